//! Options of a mount: which of them the kernel shows, in which words, and which of those that are wanted it does not show.

use crate::diagnostic::Result;
use crate::function::args::Args;
use crate::value::{Attrs, Value};

/// Options that never show (Salt's list, and systemd's and mount's own).
const INVISIBLE: [&str; 33] = [
    "_netdev",
    "actimeo",
    "bg",
    "comment",
    "defaults",
    "delay_connect",
    "direct-io-mode",
    "intr",
    "loop",
    "nointr",
    "nobootwait",
    "nofail",
    "password",
    "reconnect",
    "retry",
    "soft",
    "auto",
    "users",
    "bind",
    "nonempty",
    "transform_symlinks",
    "port",
    "backup-volfile-servers",
    "noauto",
    "user",
    "nouser",
    "nousers",
    "owner",
    "group",
    "rbind",
    "remount",
    "loud",
    "silent",
];
/// Options with a value that never show it.
const INVISIBLE_KEYS: [&str; 8] = ["actimeo", "comment", "credentials", "direct-io-mode", "password", "port", "retry", "secretfile"];
/// Options that are shown as the absence of another.
const ABSENT: [(&str, &[&str]); 12] = [
    ("suid", &["nosuid"]),
    ("dev", &["nodev"]),
    ("exec", &["noexec"]),
    ("async", &["sync"]),
    ("rw", &["ro"]),
    ("atime", &["noatime"]),
    ("diratime", &["nodiratime"]),
    ("norelatime", &["relatime"]),
    ("strictatime", &["relatime", "noatime"]),
    ("nostrictatime", &[]),
    ("nomand", &["mand"]),
    ("nolazytime", &["lazytime"]),
];
/// Options of the kernel itself: where the old entry had one and the new has not, the mount is to lose it.
const GENERAL: [&str; 7] = ["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "sync"];

pub struct Options {
    wanted: Vec<String>,
    fstype: String,
    invisible: Vec<String>,
    invisible_keys: Vec<String>,
    /// By filesystem: options that may differ.
    ignored: Vec<String>,
    translated: Vec<(String, String)>,
}

impl Options {
    pub fn new(args: &Args, wanted: Vec<String>, fstype: &str) -> Result<Options> {
        let mut invisible: Vec<String> = args.strs("extra_mount_invisible_options")?;
        invisible.extend(args.strs("hidden_opts")?.iter().flat_map(|text| text.split(',')).map(str::to_owned));
        let mut ignored: Vec<String> = if fstype == "ramfs" { vec!["size".into()] } else { Vec::new() };
        if let Some(Value::List(names)) = args.map("extra_mount_ignore_fs_keys")?.get(fstype) {
            ignored.extend(names.iter().map(Value::to_text));
        }
        let mut translated: Vec<(String, String)> =
            [("tcp", "proto=tcp"), ("udp", "proto=udp")].map(|(a, b)| (a.to_owned(), b.to_owned())).to_vec();
        translated.extend(args.map("extra_mount_translate_options")?.iter().map(|(name, value)| (name.to_text(), value.to_text())));
        Ok(Options {
            wanted,
            fstype: fstype.to_owned(),
            invisible,
            invisible_keys: args.strs("extra_mount_invisible_keys")?,
            ignored,
            translated,
        })
    }

    pub fn for_mount(&self) -> String {
        self.wanted.join(",")
    }

    /// Options that are wanted and not shown, or shown and wanted no more: `old` is what the file of entries has had.
    pub fn missing(&self, now: &Attrs, old: Option<&str>) -> Vec<String> {
        let text = |name: &str| now.get(name).and_then(Value::as_str).unwrap_or_default().split(',').map(plain).collect::<Vec<_>>();
        let (own, superior) = (text("options"), text("super"));
        let shown = |option: &str| own.iter().chain(&superior).any(|there| there == option);
        // Planned in this run already.
        let planned = now.get("opts").and_then(Value::as_str).is_some_and(|opts| opts.starts_with(&self.for_mount()));
        if planned {
            return Vec::new();
        }
        let mut missing: Vec<String> = self
            .wanted
            .iter()
            .filter(|option| !self.is_there(option, &own, &superior, &shown, now.contains_key("shared")))
            .cloned()
            .collect();
        for option in old.unwrap_or_default().split(',').filter(|option| GENERAL.contains(option)) {
            let stays = self.wanted.iter().any(|wanted| wanted == option);
            if !stays && own.iter().any(|there| there == option) {
                missing.push(format!("no more {option}"));
            }
        }
        missing
    }

    fn is_there(&self, option: &str, own: &[String], superior: &[String], shown: &dyn Fn(&str) -> bool, shared: bool) -> bool {
        let option = self.translated.iter().find(|(name, _)| name == option).map_or(option, |(_, to)| to.as_str());
        let (name, value) = option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
        let listed = |list: &[&str], extra: &[String], what: &str| list.contains(&what) || extra.iter().any(|e| e == what);
        if listed(&INVISIBLE, &self.invisible, option)
            || listed(&INVISIBLE, &[], name)
            || listed(&INVISIBLE_KEYS, &self.invisible_keys, name)
            || listed(&[], &self.ignored, name)
            || option.starts_with("x-")
            || option.starts_with("comment=")
        {
            return true;
        }
        if let Some((_, opposites)) = ABSENT.iter().find(|(on, _)| *on == option) {
            // Of the mount, and of the filesystem where it alone has it.
            return opposites
                .iter()
                .all(|off| !(own.iter().any(|there| there == off) || (*off == "ro" && superior.iter().any(|o| o == "ro"))));
        }
        let option = plain(option);
        if shown(&option) {
            return true;
        }
        // All mounts of a btrfs have the options of the first: another cannot have its own.
        if shared && !["subvol", "subvolid"].contains(&name) && !GENERAL.contains(&name) {
            return true;
        }
        let Some(value) = value else {
            // `discard` is shown as `discard=async`.
            return own.iter().chain(superior).any(|there| there.split('=').next() == Some(name));
        };
        let values = || own.iter().chain(superior).filter_map(|there| there.split_once('=')).filter(|(n, _)| *n == name).map(|(_, v)| v);
        match (self.fstype.as_str(), name) {
            ("btrfs", "subvol") => values().any(|there| there.trim_matches('/') == value.trim_matches('/')),
            // `zstd` is shown with its level.
            ("btrfs", "compress" | "compress-force") => values().any(|there| there.split(':').next() == Some(value)),
            ("cifs", "user") => shown(&format!("username={value}")),
            ("tmpfs", "mode") => {
                values().any(|there| there.trim_start_matches('0') == value.trim_start_matches('0'))
                    || value.trim_start_matches('0') == "1777"
            }
            ("tmpfs", "size") if value.ends_with('%') => true,
            _ => false,
        }
    }
}

/// Sizes in kilobytes, as the kernel shows them.
fn plain(option: &str) -> String {
    let Some((name, value)) = option.split_once('=').filter(|(name, _)| *name == "size") else { return option.to_owned() };
    let (digits, unit) = value.split_at(value.len() - value.chars().last().filter(char::is_ascii_alphabetic).map_or(0, char::len_utf8));
    let factor = match unit.to_ascii_lowercase().as_str() {
        "k" => 1,
        "m" => 1024,
        "g" => 1024 * 1024,
        _ => return option.to_owned(),
    };
    digits.parse::<u64>().map_or_else(|_| option.to_owned(), |size| format!("{name}={}k", size.saturating_mul(factor)))
}
