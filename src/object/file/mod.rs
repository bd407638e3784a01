//! Whatever stands at a path: a file, a directory, a link, or something else (device, pipe, socket) that is only managed as it is.
//!
//! Attributes: `kind`, `mode`, `user`, `group`; of a file `content` (its hash) and `size`, of a link `target`. For restoring only:
//! `mtime` of files, `xattrs` (ACLs and capabilities among them). A file with several names gets its names back too.
//!
//! A directory that goes is moved into the run's keep with everything in it, whoever put it there, and comes back from there.

mod describe;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::{Object, Progress, Sign};
use crate::diagnostic::{Code, Diagnostic, Error, Result};
use crate::plan::{Hash, Key, Kind, hex};
use crate::system::{FileKind, Meta, STATE_DIR, Stat, System};
use crate::value::{Attrs, Value};

/// What restores a file exactly and nobody wants for its own sake.
pub const RESTORING: [&str; 3] = ["size", "mtime", "xattrs"];

pub struct File {
    path: String,
}

impl File {
    pub fn new(path: impl Into<String>) -> File {
        File { path: path.into() }
    }

    /// One look without opening anything: kind, mode, user and group, and where a link points. For listings.
    pub fn glance(sys: &System, path: &str) -> Result<Attrs> {
        let Some(stat) = sys.stat(path)? else { return Ok(Attrs::new()) };
        let mut attrs = Attrs::new();
        attrs.insert("kind".into(), Value::str(kind_name(stat.kind)));
        attrs.insert("user".into(), Value::Str(sys.user_name(stat.uid)));
        attrs.insert("group".into(), Value::Str(sys.group_name(stat.gid)));
        match stat.kind {
            FileKind::Symlink => drop(attrs.insert("target".into(), Value::Str(sys.readlink(path)?.unwrap_or_default()))),
            _ => drop(attrs.insert("mode".into(), Value::Str(format!("{:04o}", stat.mode)))),
        }
        Ok(attrs)
    }

    /// What is there. `known`: the content, where it was just written.
    fn look(&self, sys: &System, known: Option<&Hash>) -> Result<Attrs> {
        let Some(stat) = sys.stat(&self.path)? else { return Ok(Attrs::new()) };
        let mut attrs = Attrs::new();
        attrs.insert("kind".into(), Value::str(kind_name(stat.kind)));
        attrs.insert("user".into(), Value::Str(sys.user_name(stat.uid)));
        attrs.insert("group".into(), Value::Str(sys.group_name(stat.gid)));
        if stat.kind == FileKind::Symlink {
            attrs.insert("target".into(), Value::Str(sys.readlink(&self.path)?.unwrap_or_default()));
            return Ok(attrs);
        }
        attrs.insert("mode".into(), Value::Str(format!("{:04o}", stat.mode)));
        if stat.kind == FileKind::File {
            let hash = match known {
                Some(hash) => Some(hash.clone()),
                None => sys.hash(&self.path)?,
            };
            // It went away between the two looks.
            let Some(hash) = hash else { return Ok(Attrs::new()) };
            sys.note_file(&hash, &self.path);
            attrs.insert("content".into(), Value::Str(hash.0));
            attrs.insert("size".into(), number(stat.size));
            attrs.insert("mtime".into(), Value::Int(stat.mtime_ns));
        }
        let xattrs = sys.xattrs(&self.path)?;
        attrs.insert("xattrs".into(), Value::Map(xattrs.into_iter().map(|(name, value)| (name, hex(&value))).collect()));
        Ok(attrs)
    }

    /// Goes from what is there to `to`, one mutation after the other; every point between two of them can be taken back.
    fn reach(&self, sys: &System, from: &Attrs, to: &Attrs) -> Result<()> {
        let path = &self.path;
        let now = sys.stat(path)?;
        let Some(wanted) = wanted_kind(from, to)? else {
            return match now {
                Some(now) => self.remove(sys, now.kind),
                None => Ok(()),
            };
        };
        let owners = Owners { uid: owner(sys, to, "user")?, gid: owner(sys, to, "group")? };
        match now {
            Some(now) if now.kind == wanted => {
                if let Some(tree) = (wanted == FileKind::Directory).then(|| self.tree_to_bring_back(sys, to)).transpose()?.flatten() {
                    self.remove(sys, now.kind)?;
                    sys.move_from_keep(&tree, path)?;
                    let there = self.look(sys, None)?;
                    return self.adjust(sys, &there, to, &self.stat(sys)?, owners);
                }
                self.adjust(sys, from, to, &now, owners)
            }
            // A file or link takes the place of the other in one step; everything else has to make room first.
            Some(now) if !(replaceable(now.kind) && replaceable(wanted)) => {
                self.remove(sys, now.kind)?;
                self.make(sys, wanted, to, owners)
            }
            _ => self.make(sys, wanted, to, owners),
        }
    }

    fn stat(&self, sys: &System) -> Result<Stat> {
        sys.stat(&self.path)?.ok_or_else(|| Diagnostic::new(Code::Failed, format!("{} went away", self.path)).into())
    }

    /// Same kind, other attributes.
    fn adjust(&self, sys: &System, from: &Attrs, to: &Attrs, now: &Stat, owners: Owners) -> Result<()> {
        let path = &self.path;
        let (uid, gid) = (owners.uid.unwrap_or(now.uid), owners.gid.unwrap_or(now.gid));
        let mode = mode(to)?.unwrap_or(now.mode);
        let xattrs = xattrs(to)?;
        let differs = |name: &str| to.get(name).is_some_and(|wanted| from.get(name) != Some(wanted));
        if now.kind == FileKind::Symlink && differs("target") {
            return sys.symlink(text(to, "target"), path, uid, gid);
        }
        if now.kind == FileKind::File && differs("content") {
            let hash = Hash(text(to, "content").to_owned());
            if self.relink(sys, &hash, to)? {
                return self.adjust(sys, &self.look(sys, Some(&hash))?, to, &self.stat(sys)?, owners);
            }
            let xattrs = match xattrs {
                Some(xattrs) => xattrs,
                None => self::xattrs(from)?.unwrap_or_default(),
            };
            return sys.write_file(path, &hash, &Meta { mode, uid, gid, xattrs, mtime_ns: mtime(to) });
        }
        if (uid, gid) != (now.uid, now.gid) {
            sys.chown(path, uid, gid)?;
        }
        if now.kind == FileKind::Symlink {
            return Ok(());
        }
        // A change of owner clears set-uid bits.
        if mode != now.mode || (mode & 0o6000 != 0 && (uid, gid) != (now.uid, now.gid)) {
            sys.chmod(path, mode)?;
        }
        // A change of mode changes ACLs, a change of owner clears capabilities.
        let touched = mode != now.mode || (uid, gid) != (now.uid, now.gid);
        if let Some(wanted) = xattrs.filter(|_| differs("xattrs") || touched) {
            sys.set_xattrs(path, &wanted)?;
        }
        match mtime(to) {
            Some(wanted) if now.kind == FileKind::File && wanted != now.mtime_ns => sys.set_mtime(path, wanted),
            _ => Ok(()),
        }
    }

    /// Where nothing stands, or something that a new file or link replaces.
    fn make(&self, sys: &System, wanted: FileKind, to: &Attrs, owners: Owners) -> Result<()> {
        let path = &self.path;
        let uid = owners.uid.unwrap_or_else(|| rustix::process::geteuid().as_raw());
        let gid = owners.gid.unwrap_or_else(|| rustix::process::getegid().as_raw());
        match wanted {
            FileKind::File => {
                let hash = match to.get("content").and_then(Value::as_str) {
                    Some(hash) => Hash(hash.to_owned()),
                    None => sys.contents().add(Vec::new()),
                };
                if self.relink(sys, &hash, to)? {
                    return self.adjust(sys, &self.look(sys, Some(&hash))?, to, &self.stat(sys)?, owners);
                }
                let meta =
                    Meta { mode: mode(to)?.unwrap_or(0o644), uid, gid, xattrs: xattrs(to)?.unwrap_or_default(), mtime_ns: mtime(to) };
                sys.write_file(path, &hash, &meta)
            }
            FileKind::Symlink => sys.symlink(text(to, "target"), path, uid, gid),
            FileKind::Directory | FileKind::Other => {
                if let Some(tree) = self.tree_to_bring_back(sys, to)? {
                    sys.move_from_keep(&tree, path)?;
                    let there = self.look(sys, None)?;
                    return self.adjust(sys, &there, to, &self.stat(sys)?, owners);
                }
                if wanted == FileKind::Other {
                    let why = "it is a device, pipe or socket, and its kept original is not there any more";
                    return Err(Diagnostic::new(Code::Failed, format!("{path} cannot be made: {why}")).into());
                }
                sys.mkdir(path, mode(to)?.unwrap_or(0o755), uid, gid)?;
                match xattrs(to)? {
                    Some(wanted) => sys.set_xattrs(path, &wanted),
                    None => Ok(()),
                }
            }
        }
    }

    fn remove(&self, sys: &System, kind: FileKind) -> Result<()> {
        let path = &self.path;
        if path == "/" || STATE_DIR == path || STATE_DIR.strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with('/')) {
            let why = format!("basalt keeps what a rollback needs in {STATE_DIR}, and that is below it");
            return Err(Diagnostic::new(Code::Failed, format!("{path} cannot be removed: {why}")).into());
        }
        match kind {
            FileKind::File | FileKind::Symlink => sys.remove_file(path),
            FileKind::Directory if sys.list(path)?.is_empty() => sys.remove_dir(path),
            FileKind::Directory | FileKind::Other => {
                // The first tree that goes from here in a run is the one to come back; later ones are kept beside it.
                let first = sys.keep_tree(path)?;
                let mut name = first.clone();
                for n in 2.. {
                    if sys.kept(&name).symlink_metadata().is_err() {
                        break;
                    }
                    name = format!("{first}-{n}");
                }
                sys.move_to_keep(path, &name)
            }
        }
    }

    /// The tree that was moved away from a path by the earliest of these runs (oldest first), if it is still in its keep.
    pub fn kept_tree(sys: &System, runs: &[String], path: &str) -> Result<Option<String>> {
        let thing = tree_name(path);
        Ok(runs.iter().map(|run| format!("{run}/{thing}")).find(|name| sys.kept(name).symlink_metadata().is_ok()))
    }

    /// The tree to bring back: that of the runs that this run takes back, or else the one that this run itself moved away.
    fn tree_to_bring_back(&self, sys: &System, to: &Attrs) -> Result<Option<String>> {
        // Only what `read` gave before says its extended attributes; nobody else asks for what was there.
        let Some(run) = sys.run_id().filter(|_| to.contains_key("xattrs")) else { return Ok(None) };
        let taken_back = taken_back(sys, &run)?;
        if !taken_back.is_empty() {
            return File::kept_tree(sys, &taken_back, &self.path);
        }
        // Within one run only where nothing stands: a step that failed half-way is taken back.
        if sys.stat(&self.path)?.is_some() { Ok(None) } else { File::kept_tree(sys, &[run], &self.path) }
    }

    /// Where another name of a file is made before it takes its place.
    fn link_beside(&self) -> String {
        format!("{}.basalt-link", self.path)
    }

    /// A file that had several names gets the same file back, where its original was kept and is unchanged.
    fn relink(&self, sys: &System, hash: &Hash, to: &Attrs) -> Result<bool> {
        let Some(run) = sys.run_id().filter(|_| to.contains_key("xattrs")) else { return Ok(false) };
        let mut runs = taken_back(sys, &run)?;
        runs.push(run);
        for run in runs {
            let original = original(&run, &self.path);
            if sys.stat(&original)?.is_some() && sys.hash(&original)?.as_ref() == Some(hash) {
                let beside = self.link_beside();
                if sys.stat(&beside)?.is_some() {
                    sys.remove_file(&beside)?;
                }
                if sys.hardlink(&original, &beside).is_err() {
                    return Ok(false);
                }
                sys.rename(&beside, &self.path)?;
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The runs that a run takes back, oldest first.
fn taken_back(sys: &System, run: &str) -> Result<Vec<String>> {
    let runs = sys.runs()?;
    let of_run = runs.iter().find(|r| r.header.id == run).map(|r| r.header.rolls_back.as_slice()).unwrap_or_default();
    Ok(runs.iter().rev().map(|r| &r.header.id).filter(|id| of_run.contains(id)).cloned().collect())
}

impl Object for File {
    fn key(&self) -> Key {
        Key::new(Kind::File, &self.path)
    }

    fn read(&self, sys: &System) -> Result<Attrs> {
        self.look(sys, None)
    }

    fn signs(&self, _sys: &System) -> Result<Vec<Sign>> {
        Ok(vec![Sign::Path(self.path.clone())])
    }

    fn keep(&self, sys: &System, from: &Attrs, to: &Attrs) -> Result<()> {
        let Some(hash) = from.get("content").and_then(Value::as_str) else { return Ok(()) };
        let stays = !to.is_empty()
            && to.get("kind").is_none_or(|k| k.as_str() == Some("file"))
            && to.get("content").is_none_or(|c| c.as_str() == Some(hash));
        if stays {
            return Ok(());
        }
        sys.keep_content(&Hash(hash.to_owned()), &self.path)?;
        let several = sys.stat(&self.path)?.is_some_and(|stat| stat.nlink > 1);
        if let Some(run) = sys.run_id().filter(|_| several) {
            let original = original(&run, &self.path);
            if sys.stat(&original)?.is_none() {
                // Where the keep is on another filesystem the contents alone have to do.
                let _ = sys.hardlink(&self.path, &original);
            }
        }
        Ok(())
    }

    fn sweep(&self, sys: &System) -> Result<()> {
        let link = self.link_beside();
        if sys.stat(&link)?.is_some() {
            sys.remove_file(&link)?;
        }
        sys.sweep(&self.path)
    }

    fn set(&self, sys: &System, from: &Attrs, to: &Attrs, _progress: &mut Progress) -> Result<Attrs> {
        // The first change of a key in a run may have been to its mode only.
        if sys.run_id().is_some() {
            self.keep(sys, from, to)?;
        }
        self.reach(sys, from, to).map_err(|error| explained(sys, &self.path, error))?;
        let written = to.get("content").and_then(Value::as_str).map(|hash| Hash(hash.to_owned()));
        self.look(sys, written.as_ref())
    }

    fn describe(&self, sys: &System, from: &Attrs, to: &Attrs) -> String {
        describe::describe(sys, &self.path, from, to)
    }
}

#[derive(Clone, Copy)]
struct Owners {
    uid: Option<u32>,
    gid: Option<u32>,
}

/// The name in a keep of the tree that was at a path, as `System::keep_tree` gives it.
fn tree_name(path: &str) -> String {
    let Hash(hash) = Hash::of(path.as_bytes());
    format!("tree-{}", hash.get(..16).unwrap_or_default())
}

/// Where the original of a file with several names stays linked.
fn original(run: &str, path: &str) -> String {
    let Hash(hash) = Hash::of(path.as_bytes());
    format!("{STATE_DIR}/runs/{run}/keep/link-{}", hash.get(..16).unwrap_or_default())
}

fn kind_name(kind: FileKind) -> &'static str {
    match kind {
        FileKind::File => "file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "symlink",
        FileKind::Other => "other",
    }
}

/// The kind that is wanted; `None`: absent.
fn wanted_kind(from: &Attrs, to: &Attrs) -> Result<Option<FileKind>> {
    if to.is_empty() {
        return Ok(None);
    }
    match to.get("kind").or_else(|| from.get("kind")).and_then(Value::as_str) {
        None | Some("file") => Ok(Some(FileKind::File)),
        Some("directory") => Ok(Some(FileKind::Directory)),
        Some("symlink") => Ok(Some(FileKind::Symlink)),
        Some("other") => Ok(Some(FileKind::Other)),
        Some(kind) => Err(Diagnostic::new(Code::Damaged, format!("{kind:?} is no kind of file")).into()),
    }
}

/// A rename over it replaces it in one step.
fn replaceable(kind: FileKind) -> bool {
    matches!(kind, FileKind::File | FileKind::Symlink)
}

/// The number of the wanted owner; `None` where none is wanted.
fn owner(sys: &System, to: &Attrs, attribute: &str) -> Result<Option<u32>> {
    let Some(name) = to.get(attribute) else { return Ok(None) };
    let name = name.to_text();
    let id = if attribute == "user" { sys.uid(&name)? } else { sys.gid(&name)? };
    match id.or_else(|| name.parse().ok()) {
        Some(id) => Ok(Some(id)),
        None => {
            let hint = format!("add a {attribute}.present for {name} before it");
            Err(Diagnostic::new(Code::Failed, format!("{attribute} {name} is not available")).hint(hint).into())
        }
    }
}

fn text<'a>(attrs: &'a Attrs, name: &str) -> &'a str {
    attrs.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn number(n: u64) -> Value {
    Value::Int(i64::try_from(n).unwrap_or(i64::MAX))
}

fn mode(attrs: &Attrs) -> Result<Option<u32>> {
    let Some(mode) = attrs.get("mode") else { return Ok(None) };
    match u32::from_str_radix(&mode.to_text(), 8) {
        Ok(mode) if mode <= 0o7777 => Ok(Some(mode)),
        _ => Err(Diagnostic::new(Code::Damaged, format!("{mode} is no mode")).into()),
    }
}

fn mtime(attrs: &Attrs) -> Option<i64> {
    attrs.get("mtime").and_then(Value::as_int)
}

fn xattrs(attrs: &Attrs) -> Result<Option<BTreeMap<String, Vec<u8>>>> {
    let Some(map) = attrs.get("xattrs").and_then(Value::as_map) else { return Ok(None) };
    let pairs = map.iter().map(|(name, value)| Some((name.to_text(), from_hex(value.as_str()?)?)));
    let read: Option<BTreeMap<String, Vec<u8>>> = pairs.collect();
    read.map(Some).ok_or_else(|| Diagnostic::new(Code::Damaged, "extended attributes cannot be read").into())
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let digits = digits?;
    (digits.len() % 2 == 0).then(|| digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect())
}

/// Adds to an error what is behind it and what to do.
fn explained(sys: &System, path: &str, mut error: Error) -> Error {
    if error.hint.is_some() || error.code != Code::Failed {
        return error;
    }
    let says = |number: i32| error.summary.contains(&format!("(os error {number})"));
    let hint = if says(30) {
        "the filesystem is mounted read-only; what was there is as it was".to_owned()
    } else if says(28) || says(122) {
        "make room on the filesystem; what was there is as it was".to_owned()
    } else if says(16) {
        format!("something is mounted at {path}: unmount it first")
    } else if says(1)
        && let Some(place) = immutable(sys, path)
    {
        format!("{place} has the attribute immutable or append-only: take it away with chattr -i -a {place}")
    } else if says(2) || says(20) {
        "the directory it is to be in is not there".to_owned()
    } else {
        return error;
    };
    error.hint = Some(hint);
    error
}

/// The path or its directory, whichever `chattr` has locked.
fn immutable(sys: &System, path: &str) -> Option<String> {
    let directory = path.rsplit_once('/').map(|(d, _)| if d.is_empty() { "/" } else { d })?;
    [path, directory].into_iter().find(|place| locked(&sys.path(place))).map(str::to_owned)
}

fn locked(place: &std::path::Path) -> bool {
    use rustix::fs::{CWD, IFlags, Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::openat(CWD, place, flags, Mode::empty()) else { return false };
    rustix::fs::ioctl_getflags(&file).is_ok_and(|flags| flags.intersects(IFlags::IMMUTABLE | IFlags::APPEND))
}
