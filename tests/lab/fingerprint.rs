//! Everything a rollback must restore, as sorted text: the whole root, and what a host knows of packages and units.
//!
//! Files are read from outside, through the host's root as the lab mounts it. A file that the host has not changed is the base's own, and its
//! digest was computed once (`hashes` of `base.sh`), so a fingerprint takes a quarter of a second and not three.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::Host;

/// What may differ, each with its reason. A path stands for itself and all below it; `…*` for every path that begins so.
const EXEMPT: &[(&str, &str)] = &[
    ("/proc", "not files of the root"),
    ("/sys", "not files of the root"),
    ("/dev", "not files of the root"),
    ("/run", "gone with a reboot"),
    ("/tmp", "gone with a reboot"),
    ("/var/tmp/systemd-private-*", "systemd's, per start of a unit"),
    ("/var/log", "logs"),
    ("/var/cache", "caches"),
    ("/root/.cache", "caches: the agent's own place among them"),
    ("/home/deploy/.cache", "caches: the agent's own place among them"),
    ("/home/clerk/.cache", "caches: the agent's own place among them"),
    ("/var/lib/basalt", "basalt's own state"),
    ("/var/lib/apt/lists", "package lists"),
    ("/var/lib/apt/periodic", "apt's stamps"),
    ("/var/lib/apt/extended_states", "compared as apt's auto marks"),
    ("/var/lib/dpkg/status", "compared as dpkg's list of packages"),
    ("/var/lib/dpkg/available", "a cache of dpkg"),
    ("/var/lib/dpkg/lock*", "locks"),
    ("/var/lib/dpkg/triggers/Lock", "a lock"),
    ("/var/lib/dpkg/triggers/Unincorp", "emptied by dpkg when it has run"),
    ("/var/lib/dpkg/status-old", "dpkg's own backup"),
    ("/var/lib/dpkg/diversions-old", "dpkg's own backup"),
    ("/var/lib/dpkg/statoverride-old", "dpkg's own backup"),
    ("/var/lib/ucf/hashfile.*", "ucf's own backups"),
    ("/var/lib/ucf/registry.*", "ucf's own backups"),
    ("/var/lib/rpm", "compared as rpm's list of packages"),
    ("/var/lib/dnf", "compared as dnf's reasons"),
    ("/srv/lab-rpms", "a repository, in whose files dnf notes their digests as attributes"),
    ("/etc/passwd-", "shadow's own backup"),
    ("/etc/shadow-", "shadow's own backup"),
    ("/etc/group-", "shadow's own backup"),
    ("/etc/gshadow-", "shadow's own backup"),
    ("/etc/subuid-", "shadow's own backup"),
    ("/etc/subgid-", "shadow's own backup"),
    ("/etc/.pwd.lock", "a lock"),
    ("/etc/ld.so.cache", "a cache"),
    ("/etc/.updated", "systemd's stamp"),
    ("/var/.updated", "systemd's stamp"),
    ("/var/lib/systemd/random-seed", "a random seed"),
    ("/var/lib/systemd/timers", "timers' stamps"),
    ("/var/lib/sudo", "whom sudo has lectured"),
    ("/var/lib/nfs/ganesha", "whom nfs-ganesha has served"),
    ("/var/lib/postgresql/15/main", "compared as what the server says of it"),
];

/// Units that come and go with who is logged in.
const EXEMPT_UNITS: &[&str] = &["user@", "user-runtime-dir@", "session-", "systemd-hostnamed", "systemd-timedated", "systemd-localed"];

/// Text files up to this size are kept, so that a difference can be shown and not only named.
const SHOWN: u64 = 64 * 1024;

/// One host at one moment.
#[derive(Clone)]
pub struct Fingerprint {
    host: String,
    /// `/path`, `package NAME`, `unit NAME` … → everything about it.
    entries: BTreeMap<String, String>,
    texts: BTreeMap<String, String>,
}

impl Fingerprint {
    pub fn of(host: &Host) -> Fingerprint {
        let mut fingerprint = Fingerprint { host: host.name().to_owned(), entries: BTreeMap::new(), texts: BTreeMap::new() };
        let base = Base::new(host);
        fingerprint.walk(&host.root(), "", &base);
        fingerprint.ask(host);
        fingerprint
    }

    /// What is known of a path, `package NAME`, `auto NAME`, `unit-file NAME` or `unit NAME`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.entries.get(key).map(String::as_str)
    }

    /// Fails with a readable difference when something is not as it was.
    #[track_caller]
    pub fn assert_same(&self, after: &Fingerprint) {
        let diff = self.diff(after);
        assert!(diff.is_empty(), "{} is not what it was:\n{diff}", self.host);
    }

    /// What differs, a line each (`-` only before, `+` only after, `~` changed), with a unified diff below where both are short texts. Empty: nothing.
    pub fn diff(&self, after: &Fingerprint) -> String {
        let mut out = String::new();
        for (key, was) in &self.entries {
            match after.entries.get(key) {
                None => _ = writeln!(out, "- {key}  {was}"),
                Some(is) if is != was => {
                    _ = writeln!(out, "~ {key}\n    before: {was}\n    after:  {is}");
                    if let (Some(a), Some(b)) = (self.texts.get(key), after.texts.get(key))
                        && a != b
                    {
                        let diff = similar::TextDiff::from_lines(a, b).unified_diff().context_radius(1).to_string();
                        diff.lines().take(40).for_each(|line| _ = writeln!(out, "    | {line}"));
                    }
                }
                Some(_) => {}
            }
        }
        for (key, is) in after.entries.iter().filter(|(key, _)| !self.entries.contains_key(*key)) {
            _ = writeln!(out, "+ {key}  {is}");
        }
        out
    }

    fn walk(&mut self, folder: &Path, inside: &str, base: &Base) {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = format!("{inside}/{}", entry.file_name().to_string_lossy());
            if exempt(&path) {
                continue;
            }
            let meta = entry.metadata().unwrap(); // of the link itself
            let text = self.describe(&entry.path(), &path, &meta, base);
            if meta.is_dir() {
                self.walk(&entry.path(), &path, base);
            }
            self.entries.insert(path, text);
        }
    }

    fn describe(&mut self, outside: &Path, path: &str, meta: &Metadata, base: &Base) -> String {
        let kind = meta.file_type();
        let mut text = if kind.is_dir() {
            "directory".to_owned()
        } else if kind.is_symlink() {
            format!("symlink to {}", std::fs::read_link(outside).unwrap().display())
        } else if kind.is_file() {
            if (path.starts_with("/etc/") || path.starts_with("/var/spool/")) && meta.len() <= SHOWN {
                self.texts.insert(path.to_owned(), String::from_utf8_lossy(&std::fs::read(outside).unwrap()).into_owned());
            }
            format!("file, {} bytes, sha256 {}", meta.len(), base.hash(outside, path))
        } else if kind.is_block_device() || kind.is_char_device() {
            let which = if kind.is_block_device() { "block" } else { "character" };
            format!("{which} device {}:{}", rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()))
        } else if kind.is_fifo() {
            "fifo".to_owned()
        } else {
            "socket".to_owned()
        };
        if !kind.is_symlink() {
            _ = write!(text, ", mode {:04o}", meta.mode() & 0o7777);
        }
        _ = write!(text, ", owner {}:{}", meta.uid(), meta.gid());
        for (name, value) in xattrs(outside) {
            _ = write!(text, ", {name}={}", value.escape_ascii());
        }
        text
    }

    /// What stands in databases and in running programs: packages with versions, holds and auto marks; units, enabled and active.
    fn ask(&mut self, host: &Host) {
        let mut script = String::from(if host.has_dnf() {
            "rpm -qa --qf 'package %{NAME}.%{ARCH} %{VERSION}-%{RELEASE}\\t%{EPOCHNUM}\\n'
             dnf -q -C --noplugins --disablerepo='*' repoquery --installed --qf 'reason %{name}.%{arch} %{evr}\t%{reason}'"
        } else {
            "dpkg-query -W -f 'package ${binary:Package}\\t${Version} (${db:Status-Want} ${db:Status-Status} ${db:Status-Eflag})\\n'
             apt-mark showauto | sed 's/^/auto /; s/$/\\tinstalled as a dependency/'
             if command -v pg_lsclusters >/dev/null && pg_lsclusters -h | grep -q online; then
                 su postgres -c pg_dumpall | grep -v '^\\\\\\(un\\)\\?restrict ' | awk '{print \"postgresql \" NR \"\\t\" $0}'; fi
             if command -v iptables-save >/dev/null; then
                 iptables-save | sed 's/ \\[.*\\]$//' | grep '^-A\\|^:.* [^A]' | awk '{print \"packet filter \" NR \"\\t\" $0}'; fi"
        });
        if host.has_systemd() {
            script += "
                systemctl list-unit-files --no-legend --no-pager --plain | awk '{print \"unit-file \" $1 \"\\t\" $2}'
                systemctl list-units --no-legend --no-pager --plain --type=service,socket,timer,path | awk '{print \"unit \" $1 \"\\t\" $2, $3, $4}'";
        }
        for line in host.sh(&script).ok().stdout.lines() {
            let (key, value) = line.split_once('\t').unwrap_or_else(|| panic!("an unexpected line: {line:?}"));
            let unit = key.strip_prefix("unit-file ").or_else(|| key.strip_prefix("unit ")).unwrap_or_default();
            if !EXEMPT_UNITS.iter().any(|prefix| unit.starts_with(prefix)) {
                self.entries.insert(key.to_owned(), value.to_owned());
            }
        }
    }
}

pub fn exempt(path: &str) -> bool {
    EXEMPT.iter().any(|(exempt, _)| match exempt.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => path.strip_prefix(exempt).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
    })
}

pub fn xattrs(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut names = [0u8; 4096];
    let Ok(n) = rustix::fs::llistxattr(path, &mut names) else { return Vec::new() };
    let mut found: Vec<(String, Vec<u8>)> = Vec::new();
    for name in names[..n].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let mut value = [0u8; 4096];
        let n = rustix::fs::lgetxattr(path, std::ffi::OsStr::from_bytes(name), &mut value).unwrap_or_default();
        found.push((String::from_utf8_lossy(name).into_owned(), value[..n].to_vec()));
    }
    found.sort();
    found
}

/// The base's own digests, for files that the host has not touched.
struct Base {
    above: Vec<std::path::PathBuf>,
    hashes: HashMap<String, String>,
}

impl Base {
    fn new(host: &Host) -> Base {
        let text = std::fs::read_to_string(host.base().join("hashes")).unwrap();
        let hashes = text.lines().filter_map(|line| line.split_once("  ")).map(|(hash, path)| (format!("/{path}"), hash.to_owned()));
        Base { above: host.above_base(), hashes: hashes.collect() }
    }

    /// An overlay shows the base's file exactly where the folders above it hold nothing at that path (a folder that was replaced or renamed is
    /// copied up whole).
    fn hash(&self, outside: &Path, path: &str) -> String {
        let changed = || self.above.iter().any(|folder| std::fs::symlink_metadata(folder.join(&path[1..])).is_ok());
        match self.hashes.get(path) {
            Some(hash) if !changed() => hash.clone(),
            _ => Sha256::digest(std::fs::read(outside).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}
