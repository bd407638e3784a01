//! What is mounted at a path. Read from `/proc/self/mountinfo` alone, never from the filesystem itself, so that a network mount whose server
//! is gone holds nothing up.
//!
//! Attributes: `device` (as the kernel names it), `fstype`, `options` (of the mount), `super` (of the filesystem), and what else the device is
//! known by: `uuid`, `label`, `devices` (of a btrfs), `backing` (the file behind a loop device), `bind` (the directory that shows here). `shared`:
//! a btrfs that is mounted elsewhere too, so that options of the filesystem are not this mount's to set.
//! Only on the way: `source` (what to mount, in the user's words), `type`, `opts`, `again` (unmount and mount instead of remounting), `fresh`
//! (the filesystem has just been made: nothing is in it).

use std::time::Duration;

use super::{Object, Progress, Sign};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::plan::{Key, Kind};
use crate::system::{Command, System};
use crate::value::{Attrs, Value, attributes};

/// So long a mount or unmount may take: a server that does not answer must not hold a run up for ever.
const PATIENCE: Duration = Duration::from_secs(120);
/// Filesystems whose contents go with the mount.
const VOLATILE: [&str; 2] = ["tmpfs", "ramfs"];
/// Flags of a mount that a remount clears where they are not named.
const FLAGS: [(&str, &str); 8] = [
    ("ro", "rw"),
    ("nosuid", "suid"),
    ("nodev", "dev"),
    ("noexec", "exec"),
    ("noatime", "atime"),
    ("nodiratime", "diratime"),
    ("relatime", "norelatime"),
    ("sync", "async"),
];

/// The kernel's table of mounts.
pub const TABLE: &str = "/proc/self/mountinfo";

/// A line of mountinfo.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    dev: String,
    root: String,
    pub path: String,
    options: String,
    pub fstype: String,
    pub device: String,
    superior: String,
}

impl Entry {
    fn parse(line: &str) -> Option<Entry> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(2);
        let mut right = right.split(' ');
        let mut plain = || left.next().map(unescape);
        let (dev, root, path, options) = (plain()?, plain()?, plain()?, plain()?);
        let (fstype, device) = (unescape(right.next()?), unescape(right.next()?));
        Some(Entry { dev, root, path, options, fstype, device, superior: right.next().unwrap_or_default().to_owned() })
    }

    /// Whether it shows a directory of a filesystem and not the whole (a subvolume of btrfs is a whole).
    fn is_part(&self) -> bool {
        let subvolume = self.superior.split(',').find_map(|o| o.strip_prefix("subvol=")).unwrap_or("/");
        self.root != "/" && self.root != subvolume
    }
}

/// `\040` is a blank.
pub fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| *byte == b'\\').and_then(|code| std::str::from_utf8(code).ok());
        match octal.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(code) => {
                out.push(code);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                out.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Everything that is mounted, in the kernel's order: of several at one path the last is seen.
pub fn mounts(sys: &System) -> Result<Vec<Entry>> {
    let text = sys.read(TABLE)?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&text).lines().filter_map(Entry::parse).collect())
}

pub struct Mount {
    path: String,
}

impl Mount {
    pub fn new(path: &str) -> Mount {
        Mount { path: path.to_owned() }
    }

    /// The path as the kernel has it: links on the way followed, the last name not even looked at.
    fn place(&self, sys: &System) -> String {
        match self.path.rsplit_once('/') {
            Some((parent, name)) if !name.is_empty() => {
                format!("{}/{name}", sys.resolve(if parent.is_empty() { "/" } else { parent }).trim_end_matches('/'))
            }
            _ => "/".to_owned(),
        }
    }

    fn umount(&self, sys: &System, progress: &mut Progress) -> Result<()> {
        let shown = format!("umount {}", self.path);
        let output = tool(sys, progress, vec!["umount".to_owned(), self.path.clone()])?;
        if output.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let place = self.place(sys);
        let mut who = holders(sys, &place);
        who.extend(mounts(sys)?.into_iter().filter(|m| m.path.starts_with(&format!("{place}/"))).map(|m| format!("the mount {}", m.path)));
        let why = match (who.is_empty(), output.timed_out) {
            (false, _) => format!("it is in use by {}", who.join(", ")),
            (true, true) => format!("it took more than {} seconds", PATIENCE.as_secs()),
            (true, false) => said.lines().next().unwrap_or("no reason given").to_owned(),
        };
        Err(Diagnostic::new(Code::Failed, format!("{shown} failed: {why}")).detail(said).hint("end what uses it, then apply again").into())
    }

    fn mount(&self, sys: &System, progress: &mut Progress, to: &Attrs) -> Result<()> {
        let text = |name: &str| to.get(name).and_then(Value::as_str).map(str::to_owned).filter(|t| !t.is_empty());
        if let Some(from) = text("bind").filter(|_| to.contains_key("super")) {
            return command(sys, progress, vec!["mount".into(), "--bind".into(), from, self.path.clone()]);
        }
        let mut argv = vec!["mount".to_owned()];
        if let Some(kind) = text("type").or_else(|| text("fstype")).filter(|kind| kind != "auto") {
            argv.extend(["-t".to_owned(), kind]);
        }
        let options = match text("opts") {
            Some(opts) => opts,
            None => [options(to, "options"), options(to, "super")]
                .concat()
                .into_iter()
                .filter(|o| o != "seclabel")
                .collect::<Vec<_>>()
                .join(","),
        };
        if !options.is_empty() {
            argv.extend(["-o".to_owned(), options]);
        }
        argv.push(text("source").or_else(|| text("device")).unwrap_or_else(|| "none".to_owned()));
        argv.push(self.path.clone());
        command(sys, progress, argv)
    }

    /// Options that lead from what is there to what was there.
    fn way_back(from: &Attrs, to: &Attrs) -> Vec<String> {
        let mut out = options(to, "options");
        for (on, off) in FLAGS {
            if options(from, "options").iter().any(|o| o == on) && !out.iter().any(|o| o == on) && !out.iter().any(|o| o == off) {
                out.push(off.to_owned());
            }
        }
        let (now, before) = (options(from, "super"), options(to, "super"));
        let named = |list: &[String], name: &str| list.iter().any(|o| o.split('=').next() == Some(name));
        for gone in now.iter().filter(|o| !before.contains(o)) {
            let name = gone.split('=').next().unwrap_or_default();
            let opposite = name.strip_prefix("no").map_or_else(|| format!("no{name}"), str::to_owned);
            match name {
                _ if named(&before, name) || named(&before, &opposite) => {}
                "compress" | "compress-force" => out.push("compress=no".to_owned()),
                "ro" | "rw" => {}
                _ => out.push(opposite),
            }
        }
        out.extend(before.into_iter().filter(|o| !now.contains(o)));
        out
    }
}

fn options(attrs: &Attrs, name: &str) -> Vec<String> {
    let text = attrs.get(name).and_then(Value::as_str).unwrap_or_default();
    text.split(',').filter(|o| !o.is_empty()).map(str::to_owned).collect()
}

fn tool(sys: &System, progress: &mut Progress, argv: Vec<String>) -> Result<crate::system::Output> {
    let shown = argv.join(" ");
    sys.mutating(&shown)?;
    progress.say(&shown);
    sys.run(&Command { timeout: Some(PATIENCE), ..Command::new(argv) })
}

/// Runs a tool that must succeed; what it says is the error.
pub fn command(sys: &System, progress: &mut Progress, argv: Vec<String>) -> Result<()> {
    let shown = argv.join(" ");
    let output = tool(sys, progress, argv)?;
    if output.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let first = if output.timed_out { "it took too long" } else { said.lines().next().unwrap_or("no reason given") };
    Err(Diagnostic::new(Code::Failed, format!("{shown} failed: {first}")).detail(said.clone()).into())
}

/// Processes that have something open below a path, as links in `/proc` tell: nothing of the path itself is touched.
fn holders(sys: &System, path: &str) -> Vec<String> {
    let within = |target: &str| target == path || target.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
    let mut found = Vec::new();
    for pid in sys.list("/proc").unwrap_or_default().into_iter().filter(|name| name.bytes().all(|b| b.is_ascii_digit())) {
        let place = format!("/proc/{pid}");
        let open = sys.list(&format!("{place}/fd")).unwrap_or_default().into_iter().map(|fd| format!("fd/{fd}"));
        let links = ["cwd", "root", "exe"].map(str::to_owned).into_iter().chain(open);
        if links.into_iter().any(|link| sys.readlink(&format!("{place}/{link}")).ok().flatten().is_some_and(|t| within(&t))) {
            let name = sys.read(&format!("{place}/comm")).ok().flatten().unwrap_or_default();
            found.push(format!("{} (process {pid})", String::from_utf8_lossy(&name).trim()));
        }
        if found.len() == 5 {
            break;
        }
    }
    found
}

/// What a device is known by besides its name, from the kernel and udev alone.
fn known_by(sys: &System, entry: &Entry, all: &[Entry], index: usize, attrs: &mut Attrs) -> Result<()> {
    let mut put = |name: &str, value: String| {
        attrs.insert(name.to_owned(), Value::Str(value));
    };
    if entry.fstype == "btrfs" && all.iter().any(|other| other.dev == entry.dev && other.path != entry.path) {
        put("shared", "btrfs".to_owned());
    }
    let device = entry.device.rsplit('/').next().unwrap_or_default().to_owned();
    let trimmed = |path: &str| -> Result<Option<String>> {
        Ok(sys.read(path)?.map(|bytes| String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned()).filter(|t| !t.is_empty()))
    };
    if entry.fstype == "btrfs" {
        for uuid in sys.list("/sys/fs/btrfs")? {
            let devices = sys.list(&format!("/sys/fs/btrfs/{uuid}/devices"))?;
            if devices.contains(&device) {
                if let Some(label) = trimmed(&format!("/sys/fs/btrfs/{uuid}/label"))? {
                    put("label", label);
                }
                put("devices", devices.iter().map(|d| format!("/dev/{d}")).collect::<Vec<_>>().join(","));
                put("uuid", uuid);
            }
        }
    } else if entry.device.starts_with("/dev/") {
        for (name, folder) in [("uuid", "/dev/disk/by-uuid"), ("label", "/dev/disk/by-label")] {
            for id in sys.list(folder)? {
                let link = format!("{folder}/{id}");
                if sys.readlink(&link)?.is_some_and(|target| target.rsplit('/').next() == Some(&device)) {
                    put(name, id.replace("\\x20", " ").replace("\\x2f", "/"));
                }
            }
        }
        if sys.stat("/dev/disk/by-uuid")?.is_none() {
            for (name, value) in super::blockdev::probe(sys, &entry.device).unwrap_or_default() {
                if name == "uuid" || name == "label" {
                    put(&name, value.to_text());
                }
            }
        }
    }
    if device.starts_with("loop")
        && let Some(file) = trimmed(&format!("/sys/block/{device}/loop/backing_file"))?
    {
        put("backing", file);
    }
    // Another mount of the same filesystem shows the directory that this one is.
    let on_device = entry.device.starts_with("/dev/") && !entry.is_part();
    let earlier = all.iter().take(index).filter(|other| other.dev == entry.dev);
    let shown = |other: &Entry| {
        let rest = entry.root.strip_prefix(other.root.trim_end_matches('/'))?;
        (rest.is_empty() || rest.starts_with('/')).then(|| format!("{}{rest}", other.path.trim_end_matches('/')))
    };
    if !on_device && let Some(path) = earlier.filter_map(shown).next_back() {
        put("bind", if path.len() > 1 { path.trim_end_matches('/').to_owned() } else { "/".to_owned() });
    }
    Ok(())
}

impl Object for Mount {
    fn key(&self) -> Key {
        Key::new(Kind::Mount, &self.path)
    }

    fn read(&self, sys: &System) -> Result<Attrs> {
        let (all, place) = (mounts(sys)?, self.place(sys));
        let Some((index, entry)) = all.iter().enumerate().rfind(|(_, entry)| entry.path == place) else { return Ok(Attrs::new()) };
        let mut attrs = attributes([
            ("device".into(), entry.device.as_str().into()),
            ("fstype".into(), entry.fstype.as_str().into()),
            ("options".into(), entry.options.as_str().into()),
            ("super".into(), entry.superior.as_str().into()),
        ]);
        known_by(sys, entry, &all, index, &mut attrs)?;
        Ok(attrs)
    }

    fn signs(&self, _sys: &System) -> Result<Vec<Sign>> {
        Ok(vec![Sign::Kernel(TABLE)])
    }

    fn set(&self, sys: &System, from: &Attrs, to: &Attrs, progress: &mut Progress) -> Result<Attrs> {
        let mut now = from.clone();
        let restoring = to.contains_key("super");
        let other = |now: &Attrs| ["device", "fstype", "bind"].iter().any(|name| to.contains_key(*name) && now.get(*name) != to.get(*name));
        let again = to.contains_key("again") && !now.is_empty();
        if !now.is_empty() && (to.is_empty() || other(&now) || again) {
            self.umount(sys, progress)?;
            now = self.read(sys)?;
        }
        if to.is_empty() || (!now.is_empty() && other(&now)) {
            return if to.is_empty() { Ok(now) } else { self.mount(sys, progress, to).and_then(|()| self.read(sys)) };
        }
        if now.is_empty() {
            self.mount(sys, progress, to)?;
            now = self.read(sys)?;
            if restoring && (now.get("options") != to.get("options")) {
                let back = Mount::way_back(&now, to);
                self.remount(sys, progress, &now, &back)?;
            }
        } else if restoring {
            if now.get("options") != to.get("options") || now.get("super") != to.get("super") {
                let back = Mount::way_back(&now, to);
                self.remount(sys, progress, &now, &back)?;
            }
        } else if to.contains_key("opts") {
            self.remount(sys, progress, &now, &options(to, "opts"))?;
        }
        self.read(sys)
    }

    fn one_way(&self, _sys: &System, from: &Attrs, to: &Attrs) -> Option<String> {
        let volatile = from.get("fstype").and_then(Value::as_str).is_some_and(|kind| VOLATILE.contains(&kind));
        (volatile && to.is_empty()).then(|| "what is in a filesystem in memory goes with its mount".to_owned())
    }

    fn describe(&self, _sys: &System, from: &Attrs, to: &Attrs) -> String {
        let text = |attrs: &Attrs, name: &str| attrs.get(name).map(Value::to_text).unwrap_or_default();
        let what = |attrs: &Attrs| {
            let source = if attrs.contains_key("source") { "source" } else { "device" };
            let kind = if attrs.contains_key("type") { "type" } else { "fstype" };
            let opts = if attrs.contains_key("opts") { "opts" } else { "options" };
            format!("{} ({}, {})", text(attrs, source), text(attrs, kind), text(attrs, opts))
        };
        let other = ["device", "fstype", "bind"].iter().any(|name| to.contains_key(*name) && from.get(*name) != to.get(*name));
        match (from.is_empty(), to.is_empty()) {
            (true, _) => format!("mounted: {}\n", what(to)),
            (_, true) => format!("unmounted: {}\n", what(from)),
            _ if other => format!("mounted: {} → {}\n", what(from), what(to)),
            _ => format!(
                "options: {} → {}\n",
                text(from, "options"),
                if to.contains_key("opts") { text(to, "opts") } else { text(to, "options") }
            ),
        }
    }
}

impl Mount {
    fn remount(&self, sys: &System, progress: &mut Progress, now: &Attrs, opts: &[String]) -> Result<()> {
        let mut all: Vec<&str> = opts.iter().map(String::as_str).filter(|o| *o != "remount" && *o != "bind").collect();
        all.push("remount");
        if now.contains_key("bind") {
            all.push("bind");
        }
        // With the device named, what the file of entries says does not count: it may still be the old.
        let device = now.get("device").map(Value::to_text).unwrap_or_else(|| "none".to_owned());
        command(sys, progress, vec!["mount".into(), "-o".into(), all.join(","), device, self.path.clone()])
    }
}
