//! Contents by their hash, whoever has them: memory, the spool for large ones, the keep of a run, a file of the host, and at last the
//! controller. Whatever comes from a file or over the wire is checked against its hash.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::{Holes, Stat, copy_hashing, hash_of, open_file};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::plan::Hash;

/// What is held in memory in all; the rest goes to the spool.
const MEMORY: usize = 32 << 20;
/// A single content beyond this goes to the spool.
const LARGE: usize = 4 << 20;

/// Files of the host that are remembered for one content.
const PLACES: usize = 8;

/// Gets contents from where the lows came from.
pub trait Fetch: Send {
    /// Puts all of `hashes` into `contents` (`Contents::add`, `Contents::spool`), or says why not.
    fn fetch(&mut self, hashes: &[Hash], contents: &Contents) -> Result<()>;
}

pub struct Contents {
    memory: RefCell<BTreeMap<Hash, Arc<[u8]>>>,
    held: Cell<usize>,
    /// Real paths: the spool, and files of the host as they were when they were noted.
    files: RefCell<BTreeMap<Hash, Vec<(PathBuf, Stat)>>>,
    /// Where keeps of runs are looked through.
    keeps: RefCell<Vec<PathBuf>>,
    spool: PathBuf,
    fetch: RefCell<Option<Box<dyn Fetch>>>,
}

/// A content on its way into the spool.
pub struct Spooled {
    path: PathBuf,
    file: File,
}

impl Contents {
    /// `spool` is a directory for large contents, made when the first comes and emptied at the end.
    pub(super) fn new(spool: PathBuf) -> Contents {
        Contents {
            memory: RefCell::default(),
            held: Cell::new(0),
            files: RefCell::default(),
            keeps: RefCell::default(),
            spool,
            fetch: RefCell::new(None),
        }
    }

    /// Makes bytes known.
    pub fn add(&self, bytes: impl Into<Arc<[u8]>>) -> Hash {
        let bytes = bytes.into();
        let hash = Hash::of(&bytes);
        if self.memory.borrow().contains_key(&hash) {
            return hash;
        }
        // Where the spool cannot be written (no root, a full disk) memory has to do.
        let large = bytes.len() > LARGE || self.held.get() + bytes.len() > MEMORY;
        if large && self.spool_bytes(&hash, &bytes).is_ok() {
            return hash;
        }
        self.held.set(self.held.get() + bytes.len());
        self.memory.borrow_mut().insert(hash.clone(), bytes);
        hash
    }

    fn spool_bytes(&self, hash: &Hash, bytes: &[u8]) -> Result<()> {
        let mut spooled = self.spool()?;
        spooled.write(bytes)?;
        self.spooled(spooled, hash)
    }

    /// For a content that comes in pieces: write them, then hand it back to `spooled`.
    pub fn spool(&self) -> Result<Spooled> {
        let failed = |e: io::Error| Diagnostic::io(format!("keep a content in {}", self.spool.display()), &e);
        fs::DirBuilder::new().mode(0o700).recursive(true).create(&self.spool).map_err(failed)?;
        let count = self.files.borrow().len();
        for n in count.. {
            let path = self.spool.join(format!("{}-{n}", std::process::id()));
            match File::options().write(true).create_new(true).mode(0o600).open(&path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(failed(e).into()),
                Ok(file) => return Ok(Spooled { path, file }),
            }
        }
        Err(Diagnostic::new(Code::Internal, "no name is left in the spool").into())
    }

    /// Removes what agents left in the spool that are there no more.
    pub(super) fn clear_spool(&self) {
        for entry in fs::read_dir(&self.spool).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let pid = name.split('-').next().and_then(|pid| pid.parse().ok()).and_then(rustix::process::Pid::from_raw);
            if pid.is_some_and(|pid| rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// A content that came in pieces is whole: it counts only if it is what it was announced as.
    pub fn spooled(&self, spooled: Spooled, hash: &Hash) -> Result<()> {
        if !open_file(&spooled.path).and_then(hash_of).is_ok_and(|there| there == *hash) {
            let _ = fs::remove_file(&spooled.path);
            return Err(Diagnostic::new(Code::Damaged, format!("a content is not what it was announced as ({hash})")).into());
        }
        self.note(hash, spooled.path);
        Ok(())
    }

    /// A file of the host had this content when it was read.
    pub(super) fn note(&self, hash: &Hash, real: PathBuf) {
        let Some(stat) = stat_of(&real) else { return };
        let mut files = self.files.borrow_mut();
        let paths = files.entry(hash.clone()).or_default();
        paths.retain(|(path, _)| *path != real);
        // A content that is in ever so many files (an empty one) need not be remembered for each.
        if paths.len() >= PLACES
            && let Some(oldest) = paths.iter().position(|(path, _)| !path.starts_with(&self.spool))
        {
            paths.remove(oldest);
        }
        paths.push((real, stat));
    }

    /// Contents are also looked for in this keep.
    pub(super) fn look_in(&self, keep: PathBuf) {
        let mut keeps = self.keeps.borrow_mut();
        if !keeps.contains(&keep) {
            keeps.push(keep);
        }
    }

    /// Whether it can be had without asking the controller. A file that has changed since it was noted counts no more.
    pub fn has(&self, hash: &Hash) -> bool {
        self.memory.borrow().contains_key(hash) || self.file(hash).is_some()
    }

    /// Sets who is asked for what is not here.
    pub fn fetch_from(&self, fetch: Box<dyn Fetch>) {
        *self.fetch.borrow_mut() = Some(fetch);
    }

    /// Sees to it that all these are here, in one exchange with the controller for those that are not.
    pub fn fetch(&self, hashes: &[Hash]) -> Result<()> {
        let mut missing: Vec<Hash> = hashes.iter().filter(|h| !self.has(h)).cloned().collect();
        missing.sort();
        missing.dedup();
        let Some(first) = missing.first() else { return Ok(()) };
        let Some(mut fetch) = self.fetch.borrow_mut().take() else {
            return Err(
                Diagnostic::new(Code::HostNeeded, format!("the content {first} is not on the host and cannot be fetched now")).into()
            );
        };
        let result = fetch.fetch(&missing, self);
        *self.fetch.borrow_mut() = Some(fetch);
        result?;
        match missing.iter().find(|h| !self.has(h)) {
            Some(hash) => Err(Diagnostic::new(Code::Damaged, format!("the controller did not send the content {hash}")).into()),
            None => Ok(()),
        }
    }

    pub fn bytes(&self, hash: &Hash) -> Result<Arc<[u8]>> {
        self.fetch(std::slice::from_ref(hash))?;
        if let Some(bytes) = self.memory.borrow().get(hash) {
            return Ok(bytes.clone());
        }
        let bytes = self.file(hash).and_then(|path| fs::read(path).ok()).filter(|bytes| Hash::of(bytes) == *hash);
        bytes.map(Arc::from).ok_or_else(|| changed(hash).into())
    }

    /// Writes a content to a file, at its current place, in pieces.
    pub fn copy_to(&self, hash: &Hash, mut to: &File) -> Result<()> {
        self.fetch(std::slice::from_ref(hash))?;
        let failed = |e: io::Error| Diagnostic::io("write a content", &e);
        if let Some(bytes) = self.memory.borrow().get(hash) {
            return to.write_all(bytes).map_err(|e| failed(e).into());
        }
        let from = self.file(hash).and_then(|path| open_file(&path).ok()).ok_or_else(|| changed(hash))?;
        let mut holes = Holes(to);
        let copied = copy_hashing(from, &mut holes).and_then(|hash| holes.end().map(|()| hash));
        if copied.map_err(failed)? == *hash { Ok(()) } else { Err(changed(hash).into()) }
    }

    /// A file that has this content, as far as can be told without reading it.
    fn file(&self, hash: &Hash) -> Option<PathBuf> {
        if let Some(paths) = self.files.borrow_mut().get_mut(hash) {
            paths.retain(|(path, noted)| {
                stat_of(path).is_some_and(|now| now.ino == noted.ino && now.mtime_ns == noted.mtime_ns && now.size == noted.size)
            });
            if let Some((path, _)) = paths.first() {
                return Some(path.clone());
            }
        }
        let name = file_name(hash)?;
        self.keeps.borrow().iter().map(|keep| keep.join(name)).find(|path| path.is_file())
    }
}

impl Spooled {
    pub fn write(&mut self, piece: &[u8]) -> Result<()> {
        self.file.write_all(piece).map_err(|e| Diagnostic::io(format!("write {}", self.path.display()), &e).into())
    }
}

impl Drop for Contents {
    fn drop(&mut self) {
        for (path, _) in self.files.borrow().values().flatten().filter(|(path, _)| path.starts_with(&self.spool)) {
            let _ = fs::remove_file(path);
        }
        let _ = fs::remove_dir(&self.spool);
    }
}

/// A hash as the name of a file. What comes over the wire may be anything, and never leads out of a directory.
pub(super) fn file_name(hash: &Hash) -> Option<&str> {
    (hash.0.len() == 64 && hash.0.bytes().all(|b| b.is_ascii_hexdigit())).then_some(hash.0.as_str())
}

fn stat_of(path: &Path) -> Option<Stat> {
    fs::metadata(path).ok().map(|meta| Stat::of(&meta))
}

fn changed(hash: &Hash) -> Diagnostic {
    Diagnostic::new(Code::Failed, format!("the content {hash} was on the host and is not any more")).hint("plan again")
}
