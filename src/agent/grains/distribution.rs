//! Grains of the distribution, from the files that name it (os-release, lsb-release, redhat-release …), by the rules of Salt's own heuristics:
//! they are what templates branch on, quirks included. `tests/grains.rs` holds them to Salt's answers for recorded files.

use super::os::assignments;
use super::{Host, numbers};
use crate::value::{Map, Value};

/// What os-release says, or nothing where there is none.
struct Release(Vec<(String, String)>);

impl Release {
    fn of(&self, name: &str) -> Option<&str> {
        self.0.iter().rfind(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The same, where it says something.
    fn said(&self, name: &str) -> Option<&str> {
        self.of(name).filter(|value| !value.is_empty())
    }
}

/// A distribution under Salt's names.
#[derive(Default)]
struct Named {
    os: Option<String>,
    full: Option<String>,
    id: Option<String>,
    lsb_release: Option<String>,
    lsb_codename: Option<String>,
    description: Option<String>,
}

pub fn collect(host: &Host, grains: &mut Map) {
    let text = ["/etc/os-release", "/usr/lib/os-release"].iter().find_map(|p| host.text(p));
    let release = Release(text.map(|text| assignments(&text)).unwrap_or_default());
    let known = !release.0.is_empty();
    let mut found = Named::default();
    if known {
        let name = release.of("NAME").unwrap_or("Linux");
        found.os = Some(os_name(name, release.of("ID").unwrap_or("linux"))).filter(|os| !os.is_empty());
        found.full = Some(name.trim().to_owned()).filter(|name| !name.is_empty());
    }
    lsb(host, &mut found);
    if found.description.as_deref().is_some_and(|d| d.to_lowercase().starts_with("antergos")) {
        found.full = Some("Antergos Linux".into());
    } else if found.id.is_none() {
        if known {
            of_release(&release, &mut found);
        } else {
            of_files(host, &mut found);
        }
    }
    let plain = Plain::of(host, &release);
    if !known && found.id.is_none() && plain.name.is_empty() {
        return;
    }
    conclude(&release, &plain, found, grains);
}

/// `/etc/lsb-release`: a value ends at the first sign that Salt's pattern does not take.
fn lsb(host: &Host, found: &mut Named) {
    for line in host.text("/etc/lsb-release").unwrap_or_default().lines() {
        let Some((name, value)) = line.split_once('=') else { continue };
        let value = value.strip_prefix(['\'', '"']).unwrap_or(value);
        let end = value.find(|c: char| !(c.is_alphanumeric() || c.is_whitespace() || "._-".contains(c))).unwrap_or(value.len());
        let value = value.get(..end).unwrap_or_default();
        let place = match name {
            "DISTRIB_ID" => &mut found.id,
            "DISTRIB_RELEASE" => &mut found.lsb_release,
            "DISTRIB_CODENAME" => &mut found.lsb_codename,
            "DISTRIB_DESCRIPTION" => &mut found.description,
            _ => continue,
        };
        if !value.is_empty() {
            *place = Some(value.trim_end().to_owned());
        }
    }
}

fn of_release(release: &Release, found: &mut Named) {
    let owned = |name: &str| release.of(name).map(str::to_owned);
    found.id = Some(release.of("NAME").unwrap_or("Linux").trim().to_owned());
    if let Some(version) = owned("VERSION_ID") {
        found.lsb_release = Some(version);
    }
    if let Some(codename) = owned("VERSION_CODENAME").or_else(|| Some(owned("PRETTY_NAME").unwrap_or_else(|| "Linux".into()))) {
        found.lsb_codename = Some(codename);
    }
    let cpe: Vec<&str> = release.of("CPE_NAME").unwrap_or_default().split(':').collect();
    // `cpe:/o:VENDOR:PRODUCT:VERSION` and `cpe:2.3:o:VENDOR:PRODUCT:VERSION`
    let offset = if cpe.get(1) == Some(&"2.3") { 3 } else { 2 };
    let part = |at: usize| if cpe.len() > 4 { cpe.get(at).copied().unwrap_or_default() } else { "" };
    let (vendor, version) = (part(offset), part(offset + 2));
    if ["suse", "opensuse"].contains(&vendor.to_lowercase().as_str()) {
        found.os = Some("SUSE".into());
        if release.of("NAME") == Some("openSUSE Leap") {
            found.full = Some("Leap".into());
        } else if release.of("VERSION") == Some("Tumbleweed") {
            found.full = owned("VERSION");
        }
        if vendor == "opensuse" && !version.is_empty() {
            found.lsb_release = Some(version.to_owned());
        }
    }
    if release.of("ID") == Some("mendel") {
        let third = release.of("PRETTY_NAME").unwrap_or_default().split_whitespace().nth(2);
        found.lsb_release = third.map(str::to_owned).or(found.lsb_release.take());
    }
}

/// Distributions older than os-release.
fn of_files(host: &Host, found: &mut Named) {
    let digits = |line: &str| line.chars().filter(char::is_ascii_digit).collect::<String>();
    if let Some(text) = host.text("/etc/SuSE-release") {
        found.id = Some("SUSE".into());
        let (mut version, mut patch, mut codename) = (String::new(), String::new(), String::new());
        for line in text.lines() {
            let lower = line.to_lowercase();
            if lower.contains("enterprise") {
                found.id = Some("SLES".into());
                codename = line.split('(').next().unwrap_or_default().trim().to_owned();
            } else if lower.contains("version") {
                version = digits(line);
            } else if lower.contains("patchlevel") {
                patch = digits(line);
            }
        }
        if !patch.is_empty() {
            version = format!("{version}.{patch}");
            if !codename.is_empty() && !codename.contains(&format!("SP{patch}")) {
                codename = format!("{codename} SP{patch}");
            }
        }
        found.lsb_release = Some(version);
        found.lsb_codename = Some(if codename.is_empty() { "n.a".into() } else { codename });
    } else if let Some(text) = host.text("/etc/altlinux-release") {
        found.id = Some("altlinux".into());
        for words in text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()) {
            if let ["ALT", _, version, codename, ..] = words.as_slice() {
                found.lsb_release = Some((*version).to_owned());
                found.lsb_codename = Some(codename.replace(['(', ')'], ""));
            }
        }
    } else if let Some(text) = host.text("/etc/centos-release") {
        found.id = Some("CentOS".into());
        for line in text.lines() {
            found.lsb_release = first_number(line).or(found.lsb_release.take());
            found.lsb_codename = in_brackets(line).map(str::to_owned).or(found.lsb_codename.take());
        }
    }
}

/// `6.10` of `CentOS release 6.10 (Final)`
fn first_number(line: &str) -> Option<String> {
    line.split(|c: char| !(c.is_ascii_digit() || c == '.')).find_map(|word| {
        let mut parts = word.split('.').skip_while(|p| p.is_empty());
        let (major, minor) = (parts.next()?, parts.next()?);
        (!minor.is_empty()).then(|| format!("{major}.{minor}"))
    })
}

/// What Python's `distro` makes of the files, where Salt falls back on it.
struct Plain {
    name: String,
    version: String,
    codename: String,
}

impl Plain {
    fn of(host: &Host, release: &Release) -> Plain {
        let file = distro_file(host).unwrap_or_default();
        let pretty = line_of_release(release.of("PRETTY_NAME").unwrap_or_default());
        let debian = release.of("ID") == Some("debian") || release.of("ID_LIKE").is_some_and(|like| like.split(' ').any(|l| l == "debian"));
        let debian = if debian { host.line("/etc/debian_version").unwrap_or_default() } else { String::new() };
        let mut version = String::new();
        // The most precise of them, the first among equals.
        for candidate in [release.of("VERSION_ID").unwrap_or_default(), &file.1, &pretty.1, &debian] {
            if version.is_empty() || candidate.matches('.').count() > version.matches('.').count() {
                version = candidate.to_owned();
            }
        }
        let version_text = release.of("VERSION").unwrap_or_default();
        let within = in_brackets(version_text).filter(|c| !c.is_empty() && !c.contains(|c: char| c.is_ascii_digit()));
        let after = || {
            version_text.split_once(',').map(|(_, c)| c.trim()).filter(|c| !c.is_empty() && !c.starts_with(|c: char| c.is_ascii_digit()))
        };
        let named = release.of("VERSION_CODENAME").or(release.of("UBUNTU_CODENAME")).or(within).or_else(after);
        let name = release.said("NAME").map_or_else(|| file.0.clone(), str::to_owned);
        Plain { name, version, codename: named.map_or(file.2, str::to_owned) }
    }
}

/// Name, version and codename of the first of `/etc/*-release` and `/etc/*_version` that is a distribution's own.
fn distro_file(host: &Host) -> Option<(String, String, String)> {
    const OTHERS: [&str; 9] = [
        "debian_version",
        "lsb-release",
        "oem-release",
        "os-release",
        "system-release",
        "plesk-release",
        "iredmail-release",
        "board-release",
        "ec2_version",
    ];
    let own = |name: &String| {
        let stem = ["-release", "_release", "-version", "_version"].iter().find_map(|end| name.strip_suffix(end));
        stem.is_some_and(|s| !s.is_empty() && s.chars().all(|c| c.is_alphanumeric() || c == '_')) && !OTHERS.contains(&name.as_str())
    };
    let files = host.names("/etc").into_iter().filter(own);
    files.filter_map(|name| host.text(&format!("/etc/{name}"))).find_map(|text| {
        let parsed = line_of_release(text.lines().next().unwrap_or_default());
        (!parsed.0.is_empty()).then_some(parsed)
    })
}

/// `Rocky Linux release 9.6 (Blue Onyx)`: name, version, codename.
fn line_of_release(line: &str) -> (String, String, String) {
    let line = line.trim();
    let (rest, codename) = match (line.rfind('('), line.rfind(')')) {
        (Some(open), Some(close)) if open < close => {
            (line.get(..open).unwrap_or_default().trim_end(), line.get(open + 1..close).unwrap_or_default())
        }
        _ => (line, ""),
    };
    let rest = rest.strip_suffix(" LTS").unwrap_or(rest);
    let version = rest.rsplit(' ').next().unwrap_or_default();
    let numbered = version.starts_with(|c: char| c.is_ascii_digit() || c == '.') && version.ends_with(|c: char| c.is_ascii_digit());
    let name = rest.strip_suffix(version).unwrap_or(rest).trim_end();
    let name = name.strip_suffix("release").unwrap_or(name).trim_end();
    if !numbered || name.is_empty() {
        return (line.to_owned(), String::new(), String::new());
    }
    (name.to_owned(), version.to_owned(), codename.to_owned())
}

/// Puts the names together as Salt does, and writes them.
fn conclude(release: &Release, plain: &Plain, mut found: Named, grains: &mut Map) {
    let mut full = found.full.unwrap_or_else(|| {
        let id = found.id.clone().unwrap_or_else(|| plain.name.clone());
        if id.to_lowercase().starts_with("nilrt") { "nilrt".into() } else { id.trim().to_owned() }
    });
    // CentOS names only its major version in os-release.
    if found.lsb_codename.as_deref().is_some_and(|c| c.contains("CentOS Linux 7") || c.contains("CentOS Linux 8")) {
        found.lsb_release = None;
    }
    let mut number = found.lsb_release.clone().unwrap_or_else(|| plain.version.clone()).trim().to_owned();
    let os_now = found.os.clone().unwrap_or_default();
    if let Some(codename) = found.lsb_codename.as_mut().filter(|c| !c.is_empty()) {
        let within = codename.split_once('(').map(|(_, rest)| rest.split(')').next().unwrap_or_default().to_owned());
        if os_now.contains("AstraLinuxSE") {
            if let Some(first) = within.as_deref().and_then(|w| w.split_whitespace().next()) {
                *codename = first.to_lowercase();
            }
        } else if let Some(within) = within.filter(|_| os_now.contains("Rocky") || os_now.contains("AlmaLinux")) {
            *codename = within;
        }
    }
    let mut codename = found.lsb_codename.as_deref().map(str::trim).filter(|c| !c.is_empty()).unwrap_or(&plain.codename).to_owned();
    if codename.contains("Red Hat") {
        codename.clone_from(&plain.codename);
    }
    let os = found.os.unwrap_or_else(|| os_name(&full, ""));
    // SL Micro calls itself SLES.
    if let Some(product) = release.of("SUSE_SUPPORT_PRODUCT") {
        let version = release.of("SUSE_SUPPORT_PRODUCT_VERSION").unwrap_or_default();
        codename = release.of("SUSE_PRETTY_NAME").map_or_else(|| format!("{product} {version}"), str::to_owned);
        number = version.to_owned();
        if product == "SUSE Linux Micro" {
            full = "SL-Micro".into();
        }
    }
    if !number.is_empty() {
        let info = numbers(&number);
        let first = info.first().cloned().unwrap_or_default();
        if let Value::Int(major) = first {
            grains.insert("osmajorrelease", major);
        }
        let name = if ["Debian", "Raspbian", "AlmaLinux"].contains(&os.as_str()) { &os } else { &full };
        let version = if ["Ubuntu", "Pop", "NixOS"].contains(&os.as_str()) { number.clone() } else { first.to_text() };
        grains.insert("osfinger", format!("{name}-{version}"));
        grains.insert("osrelease_info", info);
    }
    let lsb = [
        ("lsb_distrib_id", found.id),
        ("lsb_distrib_release", found.lsb_release),
        ("lsb_distrib_codename", found.lsb_codename),
        ("lsb_distrib_description", found.description),
    ];
    for (name, value) in lsb {
        if let Some(value) = value {
            grains.insert(name, value);
        }
    }
    grains.insert("os_family", family(&os));
    grains.insert("os", os);
    grains.insert("osfullname", full);
    grains.insert("osrelease", number);
    grains.insert("oscodename", codename);
}

fn in_brackets(text: &str) -> Option<&str> {
    Some(text.split_once('(')?.1.split_once(')')?.0)
}

/// Salt's short name of a distribution.
fn os_name(name: &str, id: &str) -> String {
    match (id, name) {
        ("astra", "Astra Linux (Orel)") => return "AstraLinuxCE".into(),
        ("astra", "Astra Linux (Smolensk)") => return "AstraLinuxSE".into(),
        ("pop", "Pop!_OS") => return "Pop".into(),
        _ => {}
    }
    // " GNU/Linux" and " Linux" go, whatever their case.
    let mut plain = String::new();
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        let after = rest.get(c.len_utf8()..).unwrap_or_default();
        let word = ["gnu/linux", "linux"].iter().find(|w| after.get(..w.len()).is_some_and(|s| s.eq_ignore_ascii_case(w)));
        match word {
            Some(word) if !c.is_alphanumeric() && c != '_' => rest = after.get(word.len()..).unwrap_or_default(),
            _ => {
                plain.push(c);
                rest = after;
            }
        }
    }
    let plain = plain.trim();
    let short: String = plain.chars().filter(|c| *c != ' ').flat_map(char::to_lowercase).take(10).collect();
    let known = match short.as_str() {
        "redhatente" => "RedHat",
        "gentoobase" => "Gentoo",
        "archarm" => "Arch ARM",
        "arch" => "Arch",
        "debian" => "Debian",
        "raspbian" => "Raspbian",
        "fedoraremi" | "pidora" => "Fedora",
        "chapeau" => "Chapeau",
        "korora" => "Korora",
        "amazonami" => "Amazon",
        "alt" => "ALT",
        "enterprise" | "oracleserv" => "OEL",
        "cloudserve" | "cloudlinux" => "CloudLinux",
        "virtuozzo" => "Virtuozzo",
        "almalinux" | "almalinuxk" => "AlmaLinux",
        "scientific" => "ScientificLinux",
        "synology" => "Synology",
        "nilrt" => "NILinuxRT",
        "poky" => "Poky",
        "manjaro" | "manjarolin" => "Manjaro",
        "univention" => "Univention",
        "antergos" => "Antergos",
        "sles" => "SUSE",
        "void" => "Void",
        "slesexpand" => "RES",
        "linuxmint" => "Mint",
        "neon" => "KDE neon",
        "pop" => "Pop",
        "rocky" => "Rocky",
        "alibabaclo" => "Alinux",
        "mendel" => "Mendel",
        "photon" => "VMware Photon OS",
        _ => plain,
    };
    known.to_owned()
}

fn family(os: &str) -> &str {
    match os {
        "Ubuntu" | "Mint" | "Trisquel" | "GCEL" | "Linaro" | "elementary OS" | "elementary" | "Univention" | "Raspbian" | "Devuan"
        | "antiX" | "Kali" | "Parrot OS" | "neon" | "Cumulus" | "Deepin" | "KDE neon" | "IDMS" | "TurnKey" | "Pop" | "AstraLinuxCE"
        | "AstraLinuxSE" | "Mendel" | "OSMC" => "Debian",
        "Fedora" | "Chapeau" | "Korora" | "FedBerry" | "CentOS" | "CentOS Stream" | "GoOSe" | "Scientific" | "Amazon" | "CloudLinux"
        | "Virtuozzo" | "AlmaLinux" | "AlmaLinux Kitten" | "OVS" | "OEL" | "XCP" | "XCP-ng" | "XenServer" | "RES" | "Sangoma"
        | "VMware Photon OS" | "AlterOS" | "RED OS" | "ALT" | "ScientificLinux" | "Rocky" | "Alinux" | "openEuler" => "RedHat",
        "SLES"
        | "SUSE Enterprise Server"
        | "SLED"
        | "openSUSE"
        | "SUSE"
        | "openSUSE Leap"
        | "openSUSE Tumbleweed"
        | "SLES_SAP"
        | "alfaLinux"
        | "alfaLinux Rise" => "Suse",
        "Arch ARM" | "Manjaro" | "Manjaro ARM" | "Antergos" | "EndeavourOS" => "Arch",
        "Mandrake" => "Mandriva",
        "Funtoo" => "Gentoo",
        "VMwareESX" => "VMware",
        "Bluewhite64" => "Bluewhite",
        "Slamd64" => "Slackware",
        own => own,
    }
}
