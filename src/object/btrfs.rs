//! Subvolumes of btrfs, with their properties and limits, and the filesystem they are in: whether it counts what they take (quotas), and which
//! of them is mounted where none is named.
//!
//! Both are known by a path, or by `DEVICE::/PATH` where the filesystem need not be mounted: then its top is mounted for each
//! command in a namespace of its own, which nobody else sees and which goes with the command.
//!
//! Attributes of a subvolume: `subvolume`, `id` (for restoring), `default` (it is the one that is mounted where none is named), `readonly`, `compression`, `nocow`, and where quotas are
//! on `referenced` and `exclusive` (limits in bytes), `groups` (quota groups above its own). A property that is not named stays as it is.
//! Only on the way: `source` (the subvolume that a snapshot is made of). Of a filesystem: `quota`, `default` (an id); on the way
//! `default_to` (the path of a subvolume).

use super::{Object, Progress};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::plan::{Key, Kind};
use crate::system::{Command, FileKind, Output, System};
use crate::value::{Attrs, Value, attributes, those};

/// The inode of a subvolume's top.
const TOP: u64 = 256;
/// Mounts the top of a device in a namespace of its own and runs a command there.
const INSIDE: &str = r#"mount -t btrfs -o "$1" -- "$2" /run || exit 125; shift 2; exec "$@""#;

/// A path in a btrfs.
struct Place {
    name: String,
    /// Where the filesystem is found, if not by a path in it.
    device: Option<String>,
    path: String,
}

impl Place {
    fn new(name: &str) -> Place {
        match name.split_once("::").filter(|(device, _)| device.starts_with("/dev/")) {
            // Within the private namespace the top of the filesystem is at /run.
            Some((device, path)) => {
                Place { name: name.to_owned(), device: Some(device.to_owned()), path: format!("/run{}", path.trim_end_matches('/')) }
            }
            None => Place { name: name.to_owned(), device: None, path: name.to_owned() },
        }
    }

    fn command(&self, argv: &[&str], read_only: bool) -> Command {
        match &self.device {
            None => Command::new(argv.iter().copied()),
            Some(device) => {
                let options = if read_only { "ro,subvolid=5" } else { "subvolid=5" };
                let inside = ["unshare", "--mount", "--", "sh", "-c", INSIDE, "sh", options, device.as_str()];
                Command::new(inside.into_iter().chain(argv.iter().copied()))
            }
        }
    }

    fn ask(&self, sys: &System, argv: &[&str]) -> Result<Output> {
        sys.run(&self.command(argv, true))
    }

    fn run(&self, sys: &System, progress: &mut Progress, argv: &[&str]) -> Result<()> {
        let shown = argv.join(" ");
        sys.mutating(&shown)?;
        progress.say(&shown);
        let output = sys.run(&self.command(argv, false))?;
        if output.success() {
            return Ok(());
        }
        let said = [output.stderr, output.stdout].concat();
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        let first = said.lines().next().unwrap_or("no reason given");
        Err(Diagnostic::new(Code::Failed, format!("{shown} failed: {first}")).detail(said.clone()).into())
    }

    /// A subvolume's path as commands are to have it.
    fn within(&self, path: &str) -> String {
        if self.device.is_some() { format!("/run{path}") } else { path.to_owned() }
    }
}

pub struct Subvolume {
    at: Place,
}

impl Subvolume {
    pub fn new(name: &str) -> Subvolume {
        Subvolume { at: Place::new(name) }
    }

    fn ask(&self, sys: &System, argv: &[&str]) -> Result<Output> {
        self.at.ask(sys, argv)
    }

    fn run(&self, sys: &System, progress: &mut Progress, argv: &[&str]) -> Result<()> {
        self.at.run(sys, progress, argv)
    }

    /// Whether a subvolume is there; something else in its place is an error.
    fn there(&self, sys: &System) -> Result<bool> {
        let (kind, inode) = match self.at.device {
            None => match sys.stat(&self.at.path)? {
                None => return Ok(false),
                Some(stat) => (stat.kind, stat.ino),
            },
            Some(_) => {
                let output = self.ask(sys, &["stat", "-c", "%F %i", &self.at.path])?;
                if !output.success() {
                    return Ok(false);
                }
                let text = output.text();
                let (kind, inode) = text.rsplit_once(' ').unwrap_or_default();
                let kind = if kind == "directory" { FileKind::Directory } else { FileKind::Other };
                (kind, inode.parse().unwrap_or(0))
            }
        };
        if kind == FileKind::Directory && inode == TOP {
            return Ok(true);
        }
        Err(Diagnostic::new(Code::Failed, format!("{} is there and is no subvolume", self.at.name)).into())
    }

    /// Whether anything is in it.
    fn is_empty(&self, sys: &System) -> Result<bool> {
        match self.at.device {
            None => Ok(sys.list(&self.at.path)?.is_empty()),
            Some(_) => Ok(self.ask(sys, &["ls", "-A", &self.at.path])?.text().is_empty()),
        }
    }

    fn properties(&self, sys: &System, attrs: &mut Attrs) -> Result<()> {
        let shown = self.ask(sys, &["btrfs", "subvolume", "show", &self.at.path])?;
        if !shown.success() {
            let said = String::from_utf8_lossy(&shown.stderr).trim().to_owned();
            return Err(Diagnostic::new(Code::Failed, format!("btrfs does not know {}: {said}", self.at.name)).into());
        }
        let text = shown.text();
        let field =
            |name: &str| text.lines().find_map(|l| l.trim().strip_prefix(name)).map(|v| v.trim_start_matches(':').trim().to_owned());
        let id = field("Subvolume ID").unwrap_or_default();
        if let Ok(id) = id.parse() {
            attrs.insert("id".into(), Value::Int(id));
        }
        if field("Flags").is_some_and(|flags| flags.contains("readonly")) {
            attrs.insert("readonly".into(), Value::Bool(true));
        }
        let default = self.ask(sys, &["btrfs", "subvolume", "get-default", &self.at.path])?.text();
        if default.split_whitespace().nth(1) == Some(id.as_str()) {
            attrs.insert("default".into(), Value::Bool(true));
        }
        let compression = self.ask(sys, &["btrfs", "property", "get", &self.at.path, "compression"])?.text();
        if let Some(kind) = compression.strip_prefix("compression=").filter(|kind| !kind.is_empty()) {
            attrs.insert("compression".into(), Value::str(kind));
        }
        let flags = self.ask(sys, &["lsattr", "-d", &self.at.path])?.text();
        if flags.split_whitespace().next().is_some_and(|flags| flags.contains('C')) {
            attrs.insert("nocow".into(), Value::Bool(true));
        }
        self.limits(sys, &id, attrs)
    }

    /// `btrfs qgroup show`: id, referenced, exclusive, then both limits and the groups above, as the head line names them.
    fn limits(&self, sys: &System, id: &str, attrs: &mut Attrs) -> Result<()> {
        let output = self.ask(sys, &["btrfs", "qgroup", "show", "--raw", "-p", "-r", "-e", &self.at.path])?;
        let text = output.text();
        let own = format!("0/{id}");
        let Some(line) = text.lines().find(|l| l.split_whitespace().next() == Some(&own)).filter(|_| output.success()) else {
            return Ok(());
        };
        let columns: Vec<&str> = line.split_whitespace().collect();
        for (column, name) in [(3, "referenced"), (4, "exclusive")] {
            if let Some(bytes) = columns.get(column).and_then(|c| c.parse().ok()) {
                attrs.insert(name.into(), Value::Int(bytes));
            }
        }
        if let Some(groups) = columns.get(5).filter(|groups| groups.contains('/')) {
            attrs.insert("groups".into(), Value::str(*groups));
        }
        Ok(())
    }

    fn create(&self, sys: &System, to: &Attrs, progress: &mut Progress) -> Result<()> {
        let groups: Vec<&str> = to.get("groups").and_then(Value::as_str).unwrap_or_default().split(',').filter(|g| !g.is_empty()).collect();
        let mut argv = vec!["btrfs", "subvolume"];
        let source = to.get("source").and_then(Value::as_str).map(|source| self.at.within(source));
        argv.push(if source.is_some() { "snapshot" } else { "create" });
        if source.is_some() && to.get("readonly").is_some_and(Value::truthy) {
            argv.push("-r");
        }
        for group in groups {
            argv.extend(["-i", group]);
        }
        argv.extend(source.as_deref());
        argv.push(&self.at.path);
        self.run(sys, progress, &argv)
    }

    fn delete(&self, sys: &System, from: &Attrs, progress: &mut Progress) -> Result<()> {
        if from.contains_key("readonly") {
            self.run(sys, progress, &["btrfs", "property", "set", "-t", "s", &self.at.path, "ro", "false"])?;
        }
        self.run(sys, progress, &["btrfs", "subvolume", "delete", &self.at.path])
    }
}

impl Object for Subvolume {
    fn key(&self) -> Key {
        Key::new(Kind::Subvolume, &self.at.name)
    }

    fn read(&self, sys: &System) -> Result<Attrs> {
        let mut attrs = Attrs::new();
        if self.there(sys)? {
            attrs.insert("subvolume".into(), Value::Bool(true));
            self.properties(sys, &mut attrs)?;
        }
        Ok(attrs)
    }

    fn set(&self, sys: &System, from: &Attrs, to: &Attrs, progress: &mut Progress) -> Result<Attrs> {
        if to.is_empty() {
            if !from.is_empty() {
                self.delete(sys, from, progress)?;
            }
            return self.read(sys);
        }
        let mut now = from.clone();
        if now.is_empty() {
            if to.contains_key("id") {
                let why = "it was deleted with what was in it";
                return Err(Diagnostic::new(Code::Failed, format!("{} cannot be brought back: {why}", self.at.name)).into());
            }
            self.create(sys, to, progress)?;
            now = self.read(sys)?;
        }
        let whole = to.contains_key("id");
        let differs = |name: &str, now: &Attrs| match to.get(name) {
            Some(Value::Null) => now.contains_key(name),
            Some(wanted) => now.get(name) != Some(wanted),
            None => whole && now.contains_key(name),
        };
        let word = |name: &str| to.get(name).map(Value::to_text).filter(|t| !t.is_empty());
        let on = |name: &str| to.get(name).is_some_and(Value::truthy);
        // What is read-only takes no other property.
        if now.contains_key("readonly") && differs("readonly", &now) {
            self.run(sys, progress, &["btrfs", "property", "set", "-t", "s", &self.at.path, "ro", "false"])?;
        }
        if differs("nocow", &now) {
            self.run(sys, progress, &["chattr", if on("nocow") { "+C" } else { "-C" }, &self.at.path])?;
        }
        if differs("compression", &now) {
            let kind = to.get("compression").filter(|v| !v.is_null()).map(Value::to_text).unwrap_or_default();
            self.run(sys, progress, &["btrfs", "property", "set", &self.at.path, "compression", &kind])?;
        }
        let id = now.get("id").map(Value::to_text).unwrap_or_default();
        let own = format!("0/{id}");
        for (name, flag) in [("referenced", None), ("exclusive", Some("-e"))] {
            if differs(name, &now) {
                let limit = word(name).unwrap_or_else(|| "none".to_owned());
                let argv: Vec<&str> =
                    ["btrfs", "qgroup", "limit"].into_iter().chain(flag).chain([limit.as_str(), &own, &self.at.path]).collect();
                self.run(sys, progress, &argv)?;
            }
        }
        if differs("groups", &now) {
            let split = |attrs: &Attrs| -> Vec<String> {
                let text = attrs.get("groups").filter(|v| !v.is_null()).map(Value::to_text).unwrap_or_default();
                text.split(',').filter(|g| !g.is_empty()).map(str::to_owned).collect()
            };
            let (there, wanted) = (split(&now), split(to));
            for group in wanted.iter().filter(|g| !there.contains(g)) {
                self.run(sys, progress, &["btrfs", "qgroup", "assign", &own, group, &self.at.path])?;
            }
            for group in there.iter().filter(|g| !wanted.contains(g)) {
                self.run(sys, progress, &["btrfs", "qgroup", "remove", &own, group, &self.at.path])?;
            }
        }
        if on("readonly") && !self.read(sys)?.contains_key("readonly") {
            self.run(sys, progress, &["btrfs", "property", "set", "-t", "s", &self.at.path, "ro", "true"])?;
        }
        self.read(sys)
    }

    fn one_way(&self, sys: &System, from: &Attrs, to: &Attrs) -> Option<String> {
        let goes = !from.is_empty() && to.is_empty();
        let empty = || self.is_empty(sys).unwrap_or(false);
        goes.then(|| if empty() { "a deleted subvolume does not come back".into() } else { "what is in the subvolume is deleted".into() })
    }

    fn destroys(&self, sys: &System, from: &Attrs, to: &Attrs) -> Option<String> {
        let goes = !from.is_empty() && to.is_empty();
        (goes && !self.is_empty(sys).unwrap_or(false)).then(|| format!("the subvolume {} is deleted with everything in it", self.at.name))
    }

    fn describe(&self, _sys: &System, from: &Attrs, to: &Attrs) -> String {
        let shown = |attrs: &Attrs| those(attrs, |name, value| !["subvolume", "id", "default"].contains(&name) && !value.is_null());
        if to.is_empty() {
            return "deleted\n".to_owned();
        }
        let made = match (from.is_empty(), to.get("source")) {
            (true, Some(source)) => format!("a snapshot of {source}\n"),
            (true, None) => "a new subvolume\n".to_owned(),
            _ => String::new(),
        };
        let rest = those(&shown(to), |name, _| name != "source");
        let gone = to.iter().filter(|(n, v)| v.is_null() && from.contains_key(*n)).map(|(n, _)| format!("{n}: none\n"));
        format!("{made}{}{}", super::describe_attributes(&shown(from), &rest), gone.collect::<String>())
    }
}

/// The filesystem that a path is in.
pub struct Filesystem {
    at: Place,
}

impl Filesystem {
    pub fn new(name: &str) -> Filesystem {
        Filesystem { at: Place::new(name) }
    }
}

impl Object for Filesystem {
    fn key(&self) -> Key {
        Key::new(Kind::Btrfs, &self.at.name)
    }

    fn read(&self, sys: &System) -> Result<Attrs> {
        if self.at.device.is_none() && sys.stat(&self.at.path)?.is_none() {
            return Ok(Attrs::new());
        }
        // Where the tools are still to come, or the filesystem, setting it says what is missing.
        let Ok(default) = self.at.ask(sys, &["btrfs", "subvolume", "get-default", &self.at.path]) else { return Ok(Attrs::new()) };
        // `ID 256 gen 7 top level 5 path a`, `ID 5 (FS_TREE)`
        let text = default.text();
        let Some(id) = text.split_whitespace().nth(1).and_then(|id| id.parse().ok()).filter(|_| default.success()) else {
            return Ok(Attrs::new());
        };
        let quota = self.at.ask(sys, &["btrfs", "qgroup", "show", &self.at.path])?.success();
        let mut attrs = attributes([("default".to_owned(), Value::Int(id))]);
        if quota {
            attrs.insert("quota".into(), Value::Bool(true));
        }
        Ok(attrs)
    }

    fn set(&self, sys: &System, from: &Attrs, to: &Attrs, progress: &mut Progress) -> Result<Attrs> {
        let (whole, path) = (to.contains_key("default"), self.at.path.as_str());
        // It was not there when the run began, and goes with what it is in.
        if to.is_empty() {
            return self.read(sys);
        }
        let quota = to.get("quota").map(Value::truthy).or(whole.then_some(false));
        if let Some(wanted) = quota.filter(|wanted| *wanted != from.contains_key("quota")) {
            self.at.run(sys, progress, &["btrfs", "quota", if wanted { "enable" } else { "disable" }, path])?;
        }
        let default = match to.get("default_to").and_then(Value::as_str) {
            Some(subvolume) => Some(Subvolume::new(&self.sibling(subvolume)).read(sys)?.get("id").map(Value::to_text).unwrap_or_default()),
            None => to.get("default").filter(|id| from.get("default") != Some(id)).map(Value::to_text),
        };
        if let Some(id) = default {
            self.at.run(sys, progress, &["btrfs", "subvolume", "set-default", &id, path])?;
        }
        self.read(sys)
    }

    fn describe(&self, _sys: &System, from: &Attrs, to: &Attrs) -> String {
        let mut out = String::new();
        let quota = |attrs: &Attrs| attrs.get("quota").is_some_and(Value::truthy);
        if (to.contains_key("quota") || to.contains_key("default")) && quota(from) != quota(to) {
            out.push_str(if quota(to) { "quotas: on\n" } else { "quotas: off\n" });
        }
        match (to.get("default_to"), to.get("default")) {
            (Some(path), _) => out.push_str(&format!("default subvolume: {path}\n")),
            (None, Some(id)) if from.get("default") != Some(id) => out.push_str(&format!("default subvolume: the one with the id {id}\n")),
            _ => {}
        }
        out
    }
}

impl Filesystem {
    /// A subvolume's name on the same device, if there is one.
    fn sibling(&self, path: &str) -> String {
        self.at.device.as_ref().map_or_else(|| path.to_owned(), |device| format!("{device}::{path}"))
    }
}
