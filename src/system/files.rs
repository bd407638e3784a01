//! A host's files: reading them, and the few ways of changing them. Every change is one step that is there whole or not at all.
//!
//! Paths are the host's own, absolute, and stay below the root even where links point out of it: a link to `/etc` is the root's `/etc`.
//! `read`, `hash` and `list` follow links as programs do; everything else speaks of what stands at the path itself.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};

use super::System;
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::plan::Hash;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    File,
    Directory,
    Symlink,
    /// A device, a pipe, a socket.
    Other,
}

/// What stands at a path (`lstat`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub kind: FileKind,
    /// The lower twelve bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    /// Nanoseconds since the epoch.
    pub mtime_ns: i64,
    pub nlink: u64,
    pub dev: u64,
    pub ino: u64,
}

impl Stat {
    pub(super) fn of(meta: &fs::Metadata) -> Stat {
        let kind = match meta.file_type() {
            t if t.is_file() => FileKind::File,
            t if t.is_dir() => FileKind::Directory,
            t if t.is_symlink() => FileKind::Symlink,
            _ => FileKind::Other,
        };
        Stat {
            kind,
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            size: meta.len(),
            mtime_ns: meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec()),
            nlink: meta.nlink(),
            dev: meta.dev(),
            ino: meta.ino(),
        }
    }
}

/// What a file has besides its contents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// All of them: what is not named is not there afterwards.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// None: now.
    pub mtime_ns: Option<i64>,
}

impl System {
    // Places --------------------------------------------------------------------------------------------------------------------

    /// Where a path of the host really is: links on the way are followed below the root, the last name is itself.
    pub fn path(&self, host_path: &str) -> PathBuf {
        self.walk(host_path, false)
    }

    /// As `path`, the last name followed too.
    pub fn followed(&self, host_path: &str) -> PathBuf {
        self.walk(host_path, true)
    }

    /// The host's path of what `path` leads to, every link followed (`readlink -f`; what is not there stands for itself).
    pub fn resolve(&self, host_path: &str) -> String {
        let real = self.walk_always(host_path, true);
        let below = real.strip_prefix(self.root()).unwrap_or(&real);
        format!("/{}", below.to_string_lossy())
    }

    fn walk(&self, host_path: &str, follow: bool) -> PathBuf {
        if let Ok(mut last) = self.last_place.lock() {
            last.clear();
            last.push(host_path);
        }
        // The kernel does it where the root is the machine's own.
        if self.root() == Path::new("/") { Path::new("/").join(host_path) } else { self.walk_always(host_path, follow) }
    }

    fn walk_always(&self, host_path: &str, follow: bool) -> PathBuf {
        let mut done = self.root().to_owned();
        let mut todo: Vec<std::ffi::OsString> = names(Path::new(host_path));
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == ".." {
                if done != self.root() {
                    done.pop();
                }
                continue;
            }
            done.push(&name);
            if todo.is_empty() && !follow {
                break;
            }
            let Ok(target) = fs::read_link(&done) else { continue };
            links += 1;
            if links > 40 {
                break;
            }
            done.pop();
            if target.is_absolute() {
                done = self.root().to_owned();
            }
            todo.extend(names(&target));
        }
        done
    }

    // Reading -------------------------------------------------------------------------------------------------------------------

    /// What stands at a path; `None`: nothing.
    pub fn stat(&self, path: &str) -> Result<Option<Stat>> {
        absent(fs::symlink_metadata(self.path(path)), "look at", path).map(|m| m.map(|m| Stat::of(&m)))
    }

    /// The whole file; `None`: absent.
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let Some(mut file) = absent(open_file(&self.followed(path)), "read", path)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|e| Diagnostic::io(format!("read {path}"), &e))?;
        Ok(Some(bytes))
    }

    /// The hash of a file's contents, read in pieces; `None`: absent.
    pub fn hash(&self, path: &str) -> Result<Option<Hash>> {
        let Some(file) = absent(open_file(&self.followed(path)), "read", path)? else { return Ok(None) };
        Ok(Some(hash_of(file).map_err(|e| Diagnostic::io(format!("read {path}"), &e))?))
    }

    /// The names in a directory, sorted; none where it is absent.
    pub fn list(&self, path: &str) -> Result<Vec<String>> {
        let Some(entries) = absent(fs::read_dir(self.followed(path)), "list", path)? else { return Ok(Vec::new()) };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| Diagnostic::io(format!("list {path}"), &e))?;
            names.push(entry.file_name().into_string().map_err(|name| not_utf8(path, &name))?);
        }
        names.sort();
        Ok(names)
    }

    /// Where a link points; `None`: there is no link.
    pub fn readlink(&self, path: &str) -> Result<Option<String>> {
        match fs::read_link(self.path(path)) {
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => Ok(None),
            other => match absent(other, "read the link", path)? {
                Some(target) => Ok(Some(target.into_os_string().into_string().map_err(|name| not_utf8(path, &name))?)),
                None => Ok(None),
            },
        }
    }

    /// Extended attributes, ACLs and capabilities among them; none where the filesystem has none.
    pub fn xattrs(&self, path: &str) -> Result<BTreeMap<String, Vec<u8>>> {
        xattrs_of(&self.path(path)).map_err(|e| Diagnostic::io(format!("read the extended attributes of {path}"), &e).into())
    }

    // Changing ------------------------------------------------------------------------------------------------------------------

    /// Puts a file with this content there, in one step: written beside it, given owner, mode and attributes, then renamed.
    pub fn write_file(&self, path: &str, content: &Hash, meta: &Meta) -> Result<()> {
        self.write_with(path, meta, |file| self.contents().copy_to(content, file))
    }

    pub fn write_bytes(&self, path: &str, content: &[u8], meta: &Meta) -> Result<()> {
        self.write_with(path, meta, |mut file| file.write_all(content).map_err(|e| Diagnostic::io(format!("write {path}"), &e).into()))
    }

    fn write_with(&self, path: &str, meta: &Meta, fill: impl FnOnce(&File) -> Result<()>) -> Result<()> {
        self.mutating(&format!("write {path} beside its place"))?;
        let place = self.path(path);
        let beside = beside(&place);
        let failed = |e: io::Error| Diagnostic::io(format!("write {path}"), &e);
        remove_if_there(&beside).map_err(failed)?;
        let written = (|| {
            let file = File::options().write(true).create_new(true).mode(0o600).open(&beside).map_err(failed)?;
            fill(&file)?;
            // Owner first: it clears set-uid bits and capabilities.
            rustix::fs::fchown(&file, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid))).map_err(|e| failed(e.into()))?;
            rustix::fs::fchmod(&file, Mode::from_raw_mode(meta.mode)).map_err(|e| failed(e.into()))?;
            apply_xattrs(&beside, &meta.xattrs).map_err(failed)?;
            // A file that replaces another must not be empty after a power cut; a new one is written again by the next run.
            if fs::symlink_metadata(&place).is_ok() {
                file.sync_data().map_err(failed)?;
            }
            if let Some(mtime) = meta.mtime_ns {
                rustix::fs::futimens(&file, &times(mtime)).map_err(|e| failed(e.into()))?;
            }
            self.mutating(&format!("put {path} in its place"))?;
            fs::rename(&beside, &place).map_err(|e| failed(e).into())
        })();
        if written.is_err() && !self.stopped_by_fault() {
            let _ = fs::remove_file(&beside);
        }
        written
    }

    /// Writes to a file as it stands, for those that the kernel makes: they cannot be replaced.
    pub fn write_in_place(&self, path: &str, bytes: &[u8]) -> Result<()> {
        self.mutating(&format!("write {path}"))?;
        let file = File::options().write(true).truncate(true).open(self.followed(path));
        file.and_then(|mut file| file.write_all(bytes)).map_err(|e| Diagnostic::io(format!("write {path}"), &e).into())
    }

    /// Takes away what a killed `write_*` left beside a path.
    pub fn sweep(&self, path: &str) -> Result<()> {
        remove_if_there(&beside(&self.path(path))).map_err(|e| Diagnostic::io(format!("clean up beside {path}"), &e).into())
    }

    /// A directory in an existing one. The mode is exactly this one, whatever the umask.
    pub fn mkdir(&self, path: &str, mode: u32, uid: u32, gid: u32) -> Result<()> {
        self.mutating(&format!("make the directory {path}"))?;
        let place = self.path(path);
        let failed = |e: io::Error| Diagnostic::io(format!("make the directory {path}"), &e);
        fs::DirBuilder::new().mode(0o700).create(&place).map_err(failed)?;
        rustix::fs::chownat(CWD, &place, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| failed(e.into()))?;
        rustix::fs::chmodat(CWD, &place, Mode::from_raw_mode(mode), AtFlags::empty()).map_err(|e| failed(e.into()))?;
        Ok(())
    }

    /// A link with this target, replacing a file or link that stands there in one step.
    pub fn symlink(&self, target: &str, path: &str, uid: u32, gid: u32) -> Result<()> {
        self.mutating(&format!("make the link {path}"))?;
        let place = self.path(path);
        let beside = beside(&place);
        let failed = |e: io::Error| Diagnostic::io(format!("make the link {path}"), &e);
        remove_if_there(&beside).map_err(failed)?;
        std::os::unix::fs::symlink(target, &beside).map_err(failed)?;
        let placed = rustix::fs::chownat(CWD, &beside, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(io::Error::from)
            .and_then(|()| fs::rename(&beside, &place));
        if placed.is_err() {
            let _ = fs::remove_file(&beside);
        }
        placed.map_err(|e| failed(e).into())
    }

    /// Another name for a file.
    pub fn hardlink(&self, existing: &str, path: &str) -> Result<()> {
        self.mutating(&format!("link {path} to {existing}"))?;
        fs::hard_link(self.path(existing), self.path(path)).map_err(|e| Diagnostic::io(format!("link {path} to {existing}"), &e).into())
    }

    /// Removes anything but a directory.
    pub fn remove_file(&self, path: &str) -> Result<()> {
        self.mutating(&format!("remove {path}"))?;
        fs::remove_file(self.path(path)).map_err(|e| Diagnostic::io(format!("remove {path}"), &e).into())
    }

    /// Removes an empty directory.
    pub fn remove_dir(&self, path: &str) -> Result<()> {
        self.mutating(&format!("remove the directory {path}"))?;
        fs::remove_dir(self.path(path)).map_err(|e| Diagnostic::io(format!("remove the directory {path}"), &e).into())
    }

    pub fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.mutating(&format!("rename {from} to {to}"))?;
        fs::rename(self.path(from), self.path(to)).map_err(|e| Diagnostic::io(format!("rename {from} to {to}"), &e).into())
    }

    /// Not for links, which have no mode.
    pub fn chmod(&self, path: &str, mode: u32) -> Result<()> {
        self.mutating(&format!("set the mode of {path}"))?;
        let place = self.path(path);
        rustix::fs::chmodat(CWD, &place, Mode::from_raw_mode(mode), AtFlags::empty())
            .map_err(|e| Diagnostic::io(format!("set the mode of {path}"), &e.into()).into())
    }

    /// Clears set-uid bits and capabilities: set the mode and attributes after it.
    pub fn chown(&self, path: &str, uid: u32, gid: u32) -> Result<()> {
        self.mutating(&format!("set the owner of {path}"))?;
        rustix::fs::chownat(CWD, self.path(path), Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| Diagnostic::io(format!("set the owner of {path}"), &e.into()).into())
    }

    /// Makes these the extended attributes: others go.
    pub fn set_xattrs(&self, path: &str, xattrs: &BTreeMap<String, Vec<u8>>) -> Result<()> {
        self.mutating(&format!("set the extended attributes of {path}"))?;
        apply_xattrs(&self.path(path), xattrs).map_err(|e| Diagnostic::io(format!("set the extended attributes of {path}"), &e).into())
    }

    pub fn set_mtime(&self, path: &str, mtime_ns: i64) -> Result<()> {
        self.mutating(&format!("set the time of {path}"))?;
        set_mtime(&self.path(path), mtime_ns).map_err(|e| Diagnostic::io(format!("set the time of {path}"), &e).into())
    }
}

/// The names of a path, last first.
fn names(path: &Path) -> Vec<std::ffi::OsString> {
    path.components()
        .filter_map(|c| match c {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .collect()
}

/// The place beside a file where its next version is written: one name per file, so that what a killed run left is found again.
/// Hidden and without an extension, so that directories of fragments (`cron.d`, `sudoers.d`) pass it over.
fn beside(place: &Path) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    let name = place.file_name().unwrap_or_default();
    let Hash(hash) = Hash::of(name.as_bytes());
    place.with_file_name(format!(".basalt-{}", hash.get(..16).unwrap_or_default()))
}

fn absent<T>(result: io::Result<T>, doing: &str, path: &str) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(Diagnostic::io(format!("{doing} {path}"), &e).into()),
    }
}

fn not_utf8(path: &str, name: &std::ffi::OsStr) -> Diagnostic {
    Diagnostic::new(Code::Failed, format!("a name at {path} is not UTF-8: {name:?}"))
        .hint("basalt names files by UTF-8 paths; rename or remove it by hand")
}

/// Opens a regular file for reading. Never waits at a pipe, never opens a device.
pub(super) fn open_file(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32).open(path)?;
    match file.metadata()?.file_type() {
        t if t.is_file() => Ok(file),
        t if t.is_dir() => Err(io::Error::from(io::ErrorKind::IsADirectory)),
        _ => Err(io::Error::other("it is a device, a pipe or a socket")),
    }
}

pub(super) fn hash_of(from: impl Read) -> io::Result<Hash> {
    copy_hashing(from, io::sink())
}

/// Copies in pieces and gives the hash of what was copied.
pub(super) fn copy_hashing(mut from: impl Read, mut to: impl Write) -> io::Result<Hash> {
    use sha2::Digest;
    let mut hasher = sha2::Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(Hash(crate::plan::hex(&hasher.finalize()))),
            Ok(n) => {
                let piece = buffer.get(..n).unwrap_or_default();
                hasher.update(piece);
                to.write_all(piece)?;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// A file that is written from its beginning; where there is nothing but zeros it gets holes, so that a huge and empty one stays as small
/// as it was.
pub(super) struct Holes<'a>(pub &'a File);

impl Holes<'_> {
    /// The end may be a hole, too.
    pub(super) fn end(mut self) -> io::Result<()> {
        let length = self.0.stream_position()?;
        self.0.set_len(length)
    }
}

impl Write for Holes<'_> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if piece.len() < 4096 || piece.iter().any(|byte| *byte != 0) {
            return self.0.write(piece);
        }
        self.0.seek_relative(i64::try_from(piece.len()).map_err(io::Error::other)?)?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(()),
        other => other,
    }
}

fn times(mtime_ns: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime_ns.div_euclid(1_000_000_000), tv_nsec: mtime_ns.rem_euclid(1_000_000_000) },
    }
}

pub(super) fn set_mtime(path: &Path, mtime_ns: i64) -> io::Result<()> {
    Ok(rustix::fs::utimensat(CWD, path, &times(mtime_ns), AtFlags::SYMLINK_NOFOLLOW)?)
}

pub(super) fn xattrs_of(path: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    use rustix::io::Errno;
    // 64 KiB is the kernel's limit for both the list and a value.
    let mut buffer = vec![0u8; 64 << 10];
    let length = match rustix::fs::llistxattr(path, &mut buffer) {
        Ok(n) => n,
        Err(Errno::NOTSUP | Errno::NOENT | Errno::NOTDIR) => return Ok(BTreeMap::new()),
        Err(e) => return Err(e.into()),
    };
    let list: Vec<String> = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default())
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect();
    let mut out = BTreeMap::new();
    for name in list {
        match rustix::fs::lgetxattr(path, &name, &mut buffer) {
            Ok(n) => drop(out.insert(name, buffer.get(..n).unwrap_or_default().to_vec())),
            Err(Errno::NODATA | Errno::NOTSUP) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(out)
}

/// Makes `wanted` the extended attributes of a file; sets only what differs.
pub(super) fn apply_xattrs(path: &Path, wanted: &BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    let there = xattrs_of(path)?;
    for name in there.keys().filter(|name| !wanted.contains_key(*name)) {
        // A security module's label cannot be taken away, only changed.
        match rustix::fs::lremovexattr(path, name) {
            Err(e) if !name.starts_with("security.") => return Err(e.into()),
            _ => {}
        }
    }
    for (name, value) in wanted.iter().filter(|(name, value)| there.get(*name) != Some(value)) {
        rustix::fs::lsetxattr(path, name, value, XattrFlags::empty())?;
    }
    Ok(())
}
