//! Grains of the operating system: distribution, kernel, init, locale.

use super::{Host, numbers};
use crate::value::{Map, Value};

pub fn collect(host: &Host, grains: &mut Map) {
    let uname = rustix::system::uname();
    grains.insert("kernel", uname.sysname().to_string_lossy().into_owned());
    grains.insert("kernelrelease", uname.release().to_string_lossy().into_owned());
    grains.insert("kernelversion", uname.version().to_string_lossy().into_owned());
    let cpuarch = uname.machine().to_string_lossy().into_owned();

    let release = ["/etc/os-release", "/usr/lib/os-release"].iter().find_map(|p| host.text(p)).unwrap_or_default();
    let release = assignments(&release);
    if let Some(distribution) = distribution(host, &release) {
        let family = distribution.family.clone();
        grains.insert("osarch", if family == "Debian" { debian_arch(host, &cpuarch) } else { cpuarch.clone() });
        distribution.write(grains);
    }
    grains.insert("cpuarch", cpuarch);
    grains.insert("transactional", host.exists("/usr/sbin/transactional-update"));
    grains.insert("init", init(host));
    if let Some(id) = host.line("/etc/machine-id").or_else(|| host.line("/var/lib/dbus/machine-id")) {
        grains.insert("machine_id", id);
    }
    if host.program("selinuxenabled") {
        let mut selinux = Map::new();
        let enforce = host.line("/sys/fs/selinux/enforce");
        selinux.insert("enabled", enforce.is_some());
        selinux.insert(
            "enforced",
            match enforce.as_deref() {
                Some("1") => "Enforcing",
                Some(_) => "Permissive",
                None => "Disabled",
            },
        );
        grains.insert("selinux", selinux);
    }
    if host.program("systemctl") {
        grains.insert("systemd", systemd(host));
    }
    let parameters = host.text("/proc/cmdline").unwrap_or_default();
    let parameters: Vec<Value> = parameters
        .split_whitespace()
        .map(|p| match p.split_once('=') {
            Some((name, value)) => Value::List(vec![name.into(), value.into()]),
            None => Value::List(vec![p.into(), Value::Null]),
        })
        .collect();
    grains.insert("kernelparams", parameters);
    grains.insert("locale_info", locale(host));
}

/// `NAME="value"` lines as the shell would read them.
fn assignments(text: &str) -> Vec<(String, String)> {
    let unquote = |value: &str| {
        let value = value.trim();
        let inner = ['"', '\''].iter().find_map(|q| value.strip_prefix(*q)?.strip_suffix(*q)).unwrap_or(value);
        let mut out = String::with_capacity(inner.len());
        let mut chars = inner.chars();
        while let Some(c) = chars.next() {
            out.extend(if c == '\\' { chars.next() } else { Some(c) });
        }
        out
    };
    let lines = text.lines().map(str::trim).filter(|l| !l.starts_with('#'));
    lines.filter_map(|line| line.split_once('=')).map(|(name, value)| (name.trim().to_owned(), unquote(value))).collect()
}

#[derive(Default)]
struct Distribution {
    os: String,
    family: String,
    full: String,
    release: String,
    codename: String,
    lsb: [(&'static str, String); 3],
}

impl Distribution {
    fn write(self, grains: &mut Map) {
        for (name, value) in self.lsb {
            if !value.is_empty() {
                grains.insert(name, value);
            }
        }
        if !self.release.is_empty() {
            let info = numbers(&self.release);
            let first = info.first().cloned().unwrap_or_default();
            if let Value::Int(major) = first {
                grains.insert("osmajorrelease", major);
            }
            let name = if ["Debian", "Raspbian", "AlmaLinux"].contains(&self.os.as_str()) { &self.os } else { &self.full };
            let version = if ["Ubuntu", "Pop", "NixOS"].contains(&self.os.as_str()) { self.release.clone() } else { first.to_text() };
            grains.insert("osfinger", format!("{name}-{version}"));
            grains.insert("osrelease_info", info);
        }
        grains.insert("os", self.os);
        grains.insert("os_family", self.family);
        grains.insert("osfullname", self.full);
        grains.insert("osrelease", self.release);
        grains.insert("oscodename", self.codename);
    }
}

/// From os-release, with lsb-release and centos-release where Salt prefers them. `None` where the root has none of them.
fn distribution(host: &Host, release: &[(String, String)]) -> Option<Distribution> {
    let of = |name: &str| release.iter().find(|(n, _)| n == name).map(|(_, v)| v.trim()).filter(|v| !v.is_empty());
    let name = of("NAME")?;
    let id = of("ID").unwrap_or("linux");
    let version = of("VERSION").unwrap_or_default();
    let lsb = assignments(&host.text("/etc/lsb-release").unwrap_or_default());
    let lsb_of = |name: &str| lsb.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).filter(|v| !v.is_empty());

    let mut d = Distribution { os: os_name(name, id), full: name.to_owned(), ..Distribution::default() };
    let (lsb_id, lsb_release, mut lsb_codename);
    if let Some(distributor) = lsb_of("DISTRIB_ID") {
        (lsb_id, lsb_release, lsb_codename) = (distributor, lsb_of("DISTRIB_RELEASE"), lsb_of("DISTRIB_CODENAME"));
    } else {
        let mut number = of("VERSION_ID").map(str::to_owned);
        let cpe: Vec<&str> = of("CPE_NAME").unwrap_or_default().split(':').collect();
        let offset = if cpe.get(1) == Some(&"2.3") { 3 } else { 2 };
        let (vendor, cpe_version) = (cpe.get(offset).copied().unwrap_or_default(), cpe.get(offset + 2).copied().unwrap_or_default());
        if ["suse", "opensuse"].contains(&vendor) {
            d.os = "SUSE".into();
            if name == "openSUSE Leap" {
                d.full = "Leap".into();
            } else if version == "Tumbleweed" {
                d.full = version.into();
            }
            if vendor == "opensuse" && !cpe_version.is_empty() {
                number = Some(cpe_version.to_owned());
            }
        }
        let named = release.iter().any(|(n, _)| n == "VERSION_CODENAME");
        let codename = if named { of("VERSION_CODENAME") } else { of("PRETTY_NAME") };
        (lsb_id, lsb_release, lsb_codename) = (name.to_owned(), number, codename.map(str::to_owned));
    }
    d.release = lsb_release.clone().unwrap_or_default();
    // CentOS names only its major version in os-release.
    if lsb_codename.as_deref().is_some_and(|c| c.contains("CentOS Linux 7") || c.contains("CentOS Linux 8"))
        && let Some(full) = host.line("/etc/centos-release").and_then(|t| t.split_whitespace().find(|w| w.contains('.')).map(str::to_owned))
    {
        d.release = full;
    }
    if ["Rocky", "AlmaLinux"].contains(&d.os.as_str())
        && let Some(bracketed) = lsb_codename.as_deref().and_then(in_brackets)
    {
        lsb_codename = Some(bracketed.to_owned());
    }
    let codename = || match release.iter().find(|(n, _)| n == "VERSION_CODENAME") {
        Some((_, codename)) => codename.clone(),
        None => in_brackets(version).unwrap_or_default().to_owned(),
    };
    d.codename = lsb_codename.clone().unwrap_or_else(codename);
    if d.codename.contains("Red Hat") {
        d.codename = codename();
    }
    d.family = family(&d.os).to_owned();
    d.lsb = [
        ("lsb_distrib_id", lsb_id),
        ("lsb_distrib_release", lsb_release.unwrap_or_default()),
        ("lsb_distrib_codename", lsb_codename.unwrap_or_default()),
    ];
    Some(d)
}

fn in_brackets(text: &str) -> Option<&str> {
    Some(text.split_once('(')?.1.split_once(')')?.0)
}

/// Salt's short name of a distribution.
fn os_name(name: &str, id: &str) -> String {
    match (id, name) {
        ("astra", "Astra Linux (Orel)") => return "AstraLinuxCE".into(),
        ("astra", "Astra Linux (Smolensk)") => return "AstraLinuxSE".into(),
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
    if id == "pop" { "Pop".into() } else { known.to_owned() }
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
        | "alfaLinux" => "Suse",
        "Arch ARM" | "Manjaro" | "Manjaro ARM" | "Antergos" | "EndeavourOS" => "Arch",
        "Mandrake" => "Mandriva",
        "Funtoo" => "Gentoo",
        own => own,
    }
}

/// What `dpkg --print-architecture` prints: dpkg's own ELF header tells, whatever the kernel runs.
fn debian_arch(host: &Host, cpuarch: &str) -> String {
    use std::io::Read;
    let mut head = [0; 20];
    let elf = std::fs::File::open(host.sys.path("/usr/bin/dpkg")).and_then(|mut f| f.read_exact(&mut head));
    let [0x7f, b'E', b'L', b'F', class, order, ..] = head else {
        return arch_of_kernel(cpuarch).to_owned();
    };
    let [.., low, high] = head;
    let machine = if order == 2 { u16::from_be_bytes([low, high]) } else { u16::from_le_bytes([low, high]) };
    let name = match (elf.is_ok(), machine, class, order) {
        (true, 62, 2, _) => "amd64",
        (true, 62, 1, _) => "x32",
        (true, 3, ..) => "i386",
        (true, 183, ..) => "arm64",
        (true, 40, ..) => "armhf",
        (true, 21, _, 1) => "ppc64el",
        (true, 22, 2, _) => "s390x",
        (true, 243, ..) => "riscv64",
        (true, 258, ..) => "loong64",
        (true, 8, 2, 1) => "mips64el",
        _ => arch_of_kernel(cpuarch),
    };
    name.to_owned()
}

fn arch_of_kernel(cpuarch: &str) -> &str {
    match cpuarch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armv7l" | "armv6l" => "armhf",
        "i386" | "i486" | "i586" | "i686" => "i386",
        "ppc64le" => "ppc64el",
        other => other,
    }
}

fn init(host: &Host) -> &'static str {
    if host.exists("/run/systemd/system") {
        return "systemd";
    }
    let command = host.text("/proc/1/cmdline").unwrap_or_default();
    let words: Vec<&str> = command.split('\0').flat_map(str::split_whitespace).collect();
    let first = words.first().copied().unwrap_or_default();
    let is = |name: &str| words.iter().any(|w| w.rsplit('/').next() == Some(name));
    if first.ends_with("bin/init") || first == "init" {
        // A binary, not text; its strings tell who made it.
        let binary = std::fs::read(host.sys.path("/sbin/init")).unwrap_or_default().to_ascii_lowercase();
        let holds = |name: &str| binary.windows(name.len()).any(|w| w == name.as_bytes());
        return ["upstart", "sysvinit", "systemd"].into_iter().find(|n| holds(n)).unwrap_or("unknown");
    }
    let known = [("supervisord", "supervisord"), ("dumb-init", "dumb-init"), ("tini", "tini"), ("runit", "runit"), ("my_init", "runit")];
    known.into_iter().find(|(program, _)| is(program)).map_or("unknown", |(_, name)| name)
}

/// The version stands in the name of systemd's own library; its features only its binary knows.
fn systemd(host: &Host) -> Map {
    let directories = ["/usr/lib/systemd", "/lib/systemd"].into_iter().map(str::to_owned);
    let multiarch = host.names("/usr/lib").into_iter().filter(|n| n.contains("-linux-gnu")).map(|n| format!("/usr/lib/{n}/systemd"));
    let lib64 = std::iter::once("/usr/lib64/systemd".to_owned());
    let version = directories.chain(lib64).chain(multiarch).find_map(|dir| {
        let names = host.names(&dir);
        names.iter().find_map(|n| n.strip_prefix("libsystemd-shared-")?.split(['.', '-']).next().map(str::to_owned))
    });
    [("version", version.unwrap_or_else(|| "UNDEFINED".into())), ("features", String::new())].into_iter().collect()
}

fn locale(host: &Host) -> Map {
    let from_environment = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|n| std::env::var(n).ok().filter(|v| !v.is_empty()));
    let from_file = || {
        let text = ["/etc/default/locale", "/etc/locale.conf"].iter().find_map(|p| host.text(p))?;
        assignments(&text).into_iter().find(|(n, _)| n == "LANG").map(|(_, v)| v)
    };
    let locale = from_environment.or_else(from_file).unwrap_or_else(|| "C".into());
    let (language, encoding) = match locale.split_once('.') {
        // Python takes C.UTF-8 for American English.
        Some(("C" | "POSIX", encoding)) => (Value::str("en_US"), Value::str(encoding)),
        Some((language, encoding)) => (Value::str(language), Value::str(encoding)),
        None if locale == "C" || locale == "POSIX" => (Value::Null, Value::Null),
        None => (Value::str(&locale), Value::str("ISO8859-1")),
    };
    let mut info = Map::new();
    info.insert("defaultlanguage", language);
    info.insert("defaultencoding", encoding);
    info.insert("detectedencoding", "utf-8");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
    let zone = std::fs::read(host.sys.path("/etc/localtime")).ok();
    info.insert("timezone", zone.and_then(|z| zone_name(&z, now)).unwrap_or_else(|| "UTC".into()));
    info
}

/// The abbreviation in force at a moment, from a TZif file: the last transition before it, or the first kind of time.
fn zone_name(file: &[u8], now: i64) -> Option<String> {
    let counts = |at: usize| -> Option<[usize; 6]> {
        let mut out = [0; 6];
        for (i, count) in out.iter_mut().enumerate() {
            let bytes = file.get(at + 20 + i * 4..at + 24 + i * 4)?;
            *count = u32::from_be_bytes(bytes.try_into().ok()?) as usize;
        }
        Some(out)
    };
    if file.get(..4)? != b"TZif" {
        return None;
    }
    let size = |[isut, isstd, leap, time, kind, chars]: [usize; 6], width: usize| {
        time * width + time + kind * 6 + chars + leap * (width + 4) + isstd + isut
    };
    // Version 2 and later repeat everything with 64-bit times behind the first block.
    let (at, width) = if *file.get(4)? >= b'2' { (44 + size(counts(0)?, 4), 8) } else { (0, 4) };
    let [_, _, _, times, kinds, _] = counts(at)?;
    let data = at + 44;
    let time = |i: usize| -> Option<i64> {
        let bytes = file.get(data + i * width..data + (i + 1) * width)?;
        Some(if width == 8 { i64::from_be_bytes(bytes.try_into().ok()?) } else { i64::from(i32::from_be_bytes(bytes.try_into().ok()?)) })
    };
    let last = (0..times).take_while(|i| time(*i).is_some_and(|t| t <= now)).last();
    let kind = last.map_or(Some(0), |i| file.get(data + times * width + i).map(|k| usize::from(*k)))?;
    let kinds_at = data + times * (width + 1);
    let name_at = kinds_at + kinds * 6 + usize::from(*file.get(kinds_at + kind * 6 + 5)?);
    let name = file.get(name_at..)?.split(|b| *b == 0).next()?;
    Some(String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lose_their_quotes_and_escapes() {
        let all = assignments("# c\nA=\"x y\"\nB='z'\nC=p\\$q\nD\n");
        let all: Vec<(&str, &str)> = all.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(all, [("A", "x y"), ("B", "z"), ("C", "p$q")]);
    }

    #[test]
    fn a_zone_file_names_its_time() {
        // Two kinds (AAA, BBB), transitions at 100 (BBB) and 200 (AAA), in the first block only.
        let mut file = b"TZif\0".to_vec();
        file.extend([0; 15]);
        for count in [0u32, 0, 0, 2, 2, 8] {
            file.extend(count.to_be_bytes());
        }
        file.extend(100i32.to_be_bytes());
        file.extend(200i32.to_be_bytes());
        file.extend([1, 0]);
        file.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 4]);
        file.extend(b"AAA\0BBB\0");
        let at = |now| zone_name(&file, now);
        assert_eq!((at(50).as_deref(), at(150).as_deref(), at(250).as_deref()), (Some("AAA"), Some("BBB"), Some("AAA")));
        for cut in 0..file.len() {
            let _ = zone_name(&file[..cut], 150);
        }
    }
}
