//! Which files of a host count: configuration that was changed, and what somebody put into `/etc`.

use std::collections::{BTreeMap, BTreeSet};

use super::packages::Package;
use super::survey::Survey;
use super::{Areas, LARGEST};

/// Not imported, and nothing below it: what has states of its own, what makes a host this one and no other, what is generated.
const PASSED_OVER: [&str; 57] = [
    "/etc/.pwd.lock",
    "/etc/.updated",
    "/etc/adjtime",
    "/etc/alternatives",
    "/etc/apt/apt.conf.d/01autoremove-kernels",
    "/etc/ca-certificates.conf",
    "/etc/console-setup",
    "/etc/crypto-policies/back-ends",
    "/etc/default/locale",
    "/etc/dnf/plugins/versionlock.list",
    "/etc/fstab",
    "/etc/group",
    "/etc/group-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/locale.conf",
    "/etc/locale.gen",
    "/etc/localtime",
    "/etc/machine-id",
    "/etc/mailname",
    "/etc/mtab",
    "/etc/netplan",
    "/etc/network",
    "/etc/NetworkManager/system-connections",
    "/etc/passwd",
    "/etc/passwd-",
    "/etc/pki/ca-trust/extracted",
    "/etc/rc.d/rc0.d",
    "/etc/rc.d/rc1.d",
    "/etc/rc.d/rc2.d",
    "/etc/rc.d/rc3.d",
    "/etc/rc.d/rc4.d",
    "/etc/rc.d/rc5.d",
    "/etc/rc.d/rc6.d",
    "/etc/rc0.d",
    "/etc/rc1.d",
    "/etc/rc2.d",
    "/etc/rc3.d",
    "/etc/rc4.d",
    "/etc/rc5.d",
    "/etc/rc6.d",
    "/etc/rcS.d",
    "/etc/resolv.conf",
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/ssl/certs",
    "/etc/subgid",
    "/etc/subgid-",
    "/etc/subuid",
    "/etc/subuid-",
    "/etc/sysconfig/network-scripts",
    "/etc/systemd/network",
    "/etc/timezone",
    "/etc/udev/hwdb.bin",
];
/// Not imported, and named: they hold secrets.
const SECRET: [&str; 5] = ["/etc/ssl/private", "/etc/pki/tls/private", "/etc/apt/auth.conf", "/etc/apt/auth.conf.d", "/etc/ssh/ssh_host_"];
/// What dpkg, rpm and their helpers leave beside files.
const LEFTOVERS: [&str; 9] =
    [".dpkg-old", ".dpkg-new", ".dpkg-dist", ".dpkg-bak", ".ucf-old", ".ucf-dist", ".rpmsave", ".rpmnew", ".rpmorig"];
/// Where apt's and dnf's sources stand.
const SOURCES: [&str; 9] = [
    "/etc/yum.repos.d",
    "/etc/dnf",
    "/etc/pki/rpm-gpg",
    "/etc/apt/sources.list",
    "/etc/apt/sources.list.d",
    "/etc/apt/keyrings",
    "/etc/apt/trusted.gpg.d",
    "/etc/apt/preferences.d",
    "/etc/apt/apt.conf.d",
];
const CRONTABS: &str = "/var/spool/cron";

#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub path: String,
    pub kind: Kind,
    pub area: Area,
    pub mode: String,
    pub user: String,
    pub group: String,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    File,
    Directory,
    Link(String),
    /// A package brought it, and it is gone.
    Missing,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Area {
    Sources,
    Keys,
    Cron,
    Config,
}

impl Found {
    pub fn has_contents(&self) -> bool {
        self.kind == Kind::File
    }
}

/// The files that count.
pub fn find(survey: &Survey, packages: &BTreeMap<String, Package>, areas: Areas, notes: &mut Vec<String>) -> Vec<Found> {
    let sums: BTreeMap<&str, &str> =
        survey.part("sums").iter().filter_map(|line| line.split_once("  ").map(|(sum, path)| (path, sum))).collect();
    let conffiles: BTreeMap<&str, &str> =
        packages.values().flat_map(|p| &p.conffiles).map(|(path, sum)| (path.as_str(), sum.as_str())).collect();
    let generated: BTreeMap<&str, &str> =
        survey.part("ucf").iter().filter_map(|line| line.split_once("  ").map(|(sum, path)| (path, sum))).collect();
    let owned: BTreeSet<&str> = survey.part("owned").iter().map(String::as_str).collect();
    let mut found = Vec::new();
    let mut there = BTreeSet::new();
    let all = survey.part("files").iter().map(|line| (line, None)).chain(survey.part("keys").iter().map(|line| (line, Some(Area::Keys))));
    for (line, area) in all {
        let fields: Vec<&str> = line.split('\t').collect();
        let [words, path, target] = fields.as_slice() else { continue };
        let [kind, mode, size, user, group] = words.split(' ').collect::<Vec<_>>()[..] else { continue };
        there.insert(*path);
        let area = area.unwrap_or(match () {
            () if path.starts_with(CRONTABS) => Area::Cron,
            () if within(path, &SOURCES) => Area::Sources,
            () => Area::Config,
        });
        let wanted = match area {
            Area::Sources => areas.packages,
            Area::Keys => areas.users && person(survey, path),
            Area::Cron | Area::Config => areas.files,
        };
        let as_delivered = match (conffiles.get(path), generated.get(path)) {
            (Some(sum), _) | (None, Some(sum)) => sums.get(path) == Some(sum),
            _ => owned.contains(path),
        };
        let units = path.starts_with("/etc/systemd/") && kind == "l";
        let leftover = LEFTOVERS.iter().any(|end| path.ends_with(end)) || path.ends_with('~');
        if !wanted || as_delivered || units || leftover || within(path, &PASSED_OVER) {
            continue;
        }
        if SECRET.iter().any(|secret| path.starts_with(secret)) {
            // Every host has keys of its own.
            if kind != "d" && !path.starts_with("/etc/ssh/ssh_host_") {
                notes.push(format!("{path} holds a secret"));
            }
            continue;
        }
        let kind = match kind {
            "f" if size.parse::<u64>().unwrap_or(u64::MAX) > LARGEST => {
                notes.push(format!("{path} is larger than 1 MiB"));
                continue;
            }
            "f" => Kind::File,
            "l" => Kind::Link((*target).to_owned()),
            // One that is as directories are comes with what is in it.
            "d" if area == Area::Config && (mode, user, group) != ("755", "root", "root") => Kind::Directory,
            "d" => continue,
            _ => {
                notes.push(format!("{path} is neither file, directory nor link"));
                continue;
            }
        };
        if !plain(path) || !plain(target) {
            notes.push(format!("{path:?} has a name that no SLS can say"));
            continue;
        }
        let mode = format!("{mode:0>4}");
        found.push(Found { path: (*path).to_owned(), kind, area, mode, user: user.to_owned(), group: group.to_owned() });
    }
    if areas.files && !there.is_empty() {
        for path in conffiles.keys().filter(|path| path.starts_with("/etc/") && !there.contains(*path) && plain(path)) {
            let none = String::new;
            found.push(Found {
                path: (*path).to_owned(),
                kind: Kind::Missing,
                area: Area::Config,
                mode: none(),
                user: none(),
                group: none(),
            });
        }
    }
    // Above comes first.
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

/// Whether these keys are those of a user above the system's range.
fn person(survey: &Survey, path: &str) -> bool {
    let range = survey.range("UID");
    survey.fields("passwd", ':').any(|user| {
        let [_, _, uid, _, _, home, _] = user[..] else { return false };
        uid.parse().is_ok_and(|uid| range.contains(&uid)) && path.strip_prefix(home) == Some("/.ssh/authorized_keys")
    })
}

fn within(path: &str, tops: &[&str]) -> bool {
    tops.iter().any(|top| path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// Whether an SLS can say it: no control characters, nothing that was not UTF-8, nothing that Jinja would read.
pub fn plain(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() || c == '\u{fffd}') && !["{{", "{%", "{#"].iter().any(|mark| text.contains(mark))
}

/// Whether a file was read, and no line of it looks like a secret.
pub fn may_be_copied(file: &Found, contents: &BTreeMap<String, Vec<u8>>, notes: &mut Vec<String>) -> bool {
    if file.kind != Kind::File {
        return true;
    }
    let Some(bytes) = contents.get(&file.path) else {
        notes.push(format!("{} could not be read", file.path));
        return false;
    };
    // Here `passwd` is a database of names.
    let secret = if file.path == "/etc/nsswitch.conf" { None } else { secret_line(&String::from_utf8_lossy(bytes)) };
    if let Some(line) = secret {
        notes.push(format!("{}: line {line} looks like a secret", file.path));
    }
    secret.is_none()
}

/// The first line that looks like a secret: a private key, a password or token that is set, a password in a URL, a hash as in shadow.
fn secret_line(text: &str) -> Option<usize> {
    const WORDS: [&str; 8] = ["password", "passwd", "passphrase", "secret", "token", "api_key", "apikey", "private_key"];
    let is_secret = |line: &str| {
        let line = line.trim();
        if line.starts_with("-----BEGIN") {
            return line.contains("PRIVATE KEY");
        }
        if line.starts_with(['#', ';']) {
            return false;
        }
        let lower = line.to_ascii_lowercase();
        let set = lower.split_once(['=', ':']).is_some_and(|(name, value)| {
            let name = name.trim().trim_matches(['"', '\'']).replace('-', "_");
            WORDS.iter().any(|word| name.ends_with(word)) && !value.trim_matches([' ', '"', '\'']).is_empty()
        });
        let url = lower.split("://").skip(1).any(|rest| {
            let host = rest.split(['/', ' ', '"']).next().unwrap_or_default();
            host.split_once('@').is_some_and(|(user, _)| user.contains(':'))
        });
        set || url || ["$1$", "$5$", "$6$", "$y$", "$2b$"].iter().any(|hash| line.contains(hash))
    };
    text.lines().position(is_secret).map(|line| line + 1)
}
