//! Paths watched by inotify: a thing may stand on many, and many things on one directory.
//!
//! What is watched is directories, not files: the one that a path is in (names come, go and are written there), and each one on the way to it
//! (it may be moved away and another put in its place). So editors that replace a file are seen, what is not there yet is seen when it comes,
//! and many files of one directory cost one watch. A file counts as written when whoever wrote it closes it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::FsWord;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

/// What happens to a directory itself.
const ITSELF: WatchFlags = WatchFlags::DELETE_SELF.union(WatchFlags::MOVE_SELF);
/// Names come and go.
const NAMES: WatchFlags = ITSELF.union(WatchFlags::CREATE).union(WatchFlags::DELETE).union(WatchFlags::MOVE);
/// And owners and modes of what they name.
const ENTRIES: WatchFlags = NAMES.union(WatchFlags::ATTRIB);
/// And what is in it.
const CONTENTS: WatchFlags = ENTRIES.union(WatchFlags::CLOSE_WRITE);
/// A path that changes while it is walked is walked again so often.
const TRIES: usize = 8;
/// Links on the way to one path.
const LINKS: usize = 40;
/// Filesystems that do not tell what changes on them, by their magic: what the kernel makes, and what others change elsewhere.
const SILENT: [(u32, &str); 10] = [
    (0x9fa0, "proc"),
    (0x6265_6572, "sysfs"),
    (0x6367_7270, "cgroup2"),
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x6573_5546, "FUSE"),
    (0x0102_1997, "9P"),
    (0x00c3_6400, "Ceph"),
    (0x7461_636f, "OCFS2"),
];

pub struct Paths {
    root: PathBuf,
    inotify: OwnedFd,
    /// By watch descriptor.
    watched: BTreeMap<i32, Users>,
    /// By thing: what it uses of which.
    uses: BTreeMap<usize, Vec<(i32, Part)>>,
}

/// The things that use a watched directory, and what of it.
type Users = BTreeMap<Part, BTreeSet<usize>>;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// The way leads through it.
    Way,
    /// The directory itself is what is meant: the root.
    Itself,
    /// All that is directly in it.
    All,
    Name(OsString),
}

impl Paths {
    /// Paths of the host below `root`. An error says why there can be none.
    pub fn below(root: &Path) -> Result<Paths, String> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(|e| match e {
            Errno::MFILE => "too many programs of this user watch files (fs.inotify.max_user_instances)".to_owned(),
            e => format!("the kernel watches no files ({})", io::Error::from(e)),
        })?;
        Ok(Paths { root: root.to_owned(), inotify, watched: BTreeMap::new(), uses: BTreeMap::new() })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }

    /// Watches what stands at a path, the last link not followed.
    pub fn path(&mut self, thing: usize, path: &str) -> Result<(), String> {
        self.reach(thing, path).map(drop)
    }

    /// Watches which names there are in a directory, and of what.
    pub fn directory(&mut self, thing: usize, path: &str) -> Result<(), String> {
        let place = self.reach(thing, path)?;
        match self.watch(thing, &place, Part::All, ENTRIES) {
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            other => other.map_err(said),
        }
    }

    /// Watches a directory and all below it.
    pub fn tree(&mut self, thing: usize, path: &str) -> Result<(), String> {
        let mut todo = vec![self.reach(thing, path)?];
        while let Some(directory) = todo.pop() {
            match self.watch(thing, &directory, Part::All, CONTENTS) {
                Err(Errno::NOENT | Errno::NOTDIR) => continue,
                other => other.map_err(said)?,
            }
            let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
            todo.extend(entries.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()));
        }
        Ok(())
    }

    /// Watches the way to a path and its name; gives where it really is, or would be.
    fn reach(&mut self, thing: usize, path: &str) -> Result<PathBuf, String> {
        let mut last = Errno::NOENT;
        for _ in 0..TRIES {
            match self.walk(thing, path) {
                // Something on the way has just gone, or come.
                Err(e @ (Errno::NOENT | Errno::NOTDIR | Errno::AGAIN)) => last = e,
                Err(e) => return Err(said(e)),
                Ok((directory, place)) => return silent(&directory).map_or(Ok(place), Err),
            }
        }
        Err(said(last))
    }

    fn walk(&mut self, thing: usize, path: &str) -> Result<(PathBuf, PathBuf), Errno> {
        let mut here = self.root.clone();
        let mut todo = names(Path::new(path));
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == ".." {
                if here != self.root {
                    here.pop();
                }
                continue;
            }
            let next = here.join(&name);
            if todo.is_empty() {
                self.watch(thing, &here, Part::Name(name), CONTENTS)?;
                return Ok((here, next));
            }
            match fs::symlink_metadata(&next) {
                Ok(meta) if meta.is_dir() => {
                    self.watch(thing, &next, Part::Way, ITSELF)?;
                    here = next;
                }
                Ok(meta) if meta.is_symlink() => {
                    self.watch(thing, &here, Part::Name(name), NAMES)?;
                    let target = fs::read_link(&next).map_err(|_| Errno::AGAIN)?;
                    links += 1;
                    if links > LINKS {
                        return Err(Errno::LOOP);
                    }
                    if target.is_absolute() {
                        here = self.root.clone();
                    }
                    todo.extend(names(&target));
                }
                // The way ends here, for now.
                now => {
                    self.watch(thing, &here, Part::Name(name), NAMES)?;
                    let came = now.is_err() && fs::symlink_metadata(&next).is_ok();
                    return if came { Err(Errno::AGAIN) } else { Ok((here, self.root.join(path.trim_start_matches('/')))) };
                }
            }
        }
        self.watch(thing, &here, Part::Itself, ITSELF.union(WatchFlags::ATTRIB))?;
        Ok((here.clone(), here))
    }

    fn watch(&mut self, thing: usize, directory: &Path, part: Part, what: WatchFlags) -> Result<(), Errno> {
        let id = inotify::add_watch(&self.inotify, directory, what | WatchFlags::MASK_ADD | WatchFlags::ONLYDIR)?;
        if self.watched.entry(id).or_default().entry(part.clone()).or_default().insert(thing) {
            self.uses.entry(thing).or_default().push((id, part));
        }
        Ok(())
    }

    /// Watches nothing for this thing any more.
    pub fn forget(&mut self, thing: usize) {
        for (id, part) in self.uses.remove(&thing).unwrap_or_default() {
            let Some(users) = self.watched.get_mut(&id) else { continue };
            if let Some(things) = users.get_mut(&part) {
                things.remove(&thing);
                if things.is_empty() {
                    users.remove(&part);
                }
            }
            if users.is_empty() {
                self.watched.remove(&id);
                // It may have gone by itself, with its directory.
                let _ = inotify::remove_watch(&self.inotify, id);
            }
        }
    }

    /// The things that were touched since the last call. `None`: so much has happened that the kernel has lost count.
    pub fn touched(&mut self) -> Option<BTreeSet<usize>> {
        let mut found = BTreeSet::new();
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        while let Ok(event) = reader.next() {
            let what = event.events();
            if what.contains(ReadFlags::QUEUE_OVERFLOW) {
                return None;
            }
            let Some(users) = self.watched.get(&event.wd()) else { continue };
            match event.file_name().map(|name| OsStr::from_bytes(name.to_bytes())).filter(|name| !name.is_empty()) {
                Some(name) => {
                    let parts = [Part::All, Part::Name(name.to_owned())];
                    found.extend(parts.iter().filter_map(|part| users.get(part)).flatten());
                }
                None if what.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT | ReadFlags::IGNORED) => {
                    found.extend(users.values().flatten());
                }
                None => found.extend(users.get(&Part::Itself).into_iter().flatten()),
            }
            if what.contains(ReadFlags::IGNORED) {
                self.watched.remove(&event.wd());
            }
        }
        Some(found)
    }
}

/// The parts of a path, the first last.
fn names(path: &Path) -> Vec<OsString> {
    let parts = path.components().rev().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    parts.map(|part| part.as_os_str().to_owned()).collect()
}

fn said(error: Errno) -> String {
    match error {
        Errno::NOSPC => "the host's limit of watched directories is reached (fs.inotify.max_user_watches)".to_owned(),
        e => format!("it cannot be watched ({})", io::Error::from(e)),
    }
}

/// Why nothing tells what changes in a directory, if so.
fn silent(directory: &Path) -> Option<String> {
    let magic = rustix::fs::statfs(directory).ok()?.f_type;
    let name = SILENT.iter().find(|(known, _)| *known as FsWord == magic)?.1;
    Some(format!("{name} does not tell what changes on it"))
}
