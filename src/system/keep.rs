//! The keep of a run: what before-images only name. Contents by their hash, trees that were removed whole; and how long runs are kept.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Uid};

use super::files::{Holes, apply_xattrs, copy_hashing, hash_of, open_file, set_mtime, xattrs_of};
use super::{Stat, System};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::plan::Hash;

/// Runs that are kept at most, and how much they may take together. The newest is always kept.
const RUNS: usize = 20;
const BYTES: u64 = 1 << 30;
/// A tree that must be copied (it is on another filesystem than the keep) may be so large.
const COPY: u64 = 1 << 30;

impl System {
    /// Puts a file's bytes, which have this hash, into the run's keep. The next `Before` in the journal syncs them. Nothing is done
    /// where they are kept already.
    pub fn keep_content(&self, hash: &Hash, path: &str) -> Result<()> {
        let failed = |e: io::Error| Diagnostic::io(format!("keep the contents of {path}"), &e);
        let keep = self.current_keep()?;
        let name = super::contents::file_name(hash).ok_or_else(|| Diagnostic::new(Code::Damaged, format!("{hash} is no hash")))?;
        let place = keep.join(name);
        if place.exists() {
            return Ok(());
        }
        self.mutating(&format!("keep the contents of {path}"))?;
        let from = open_file(&self.followed(path)).map_err(failed)?;
        let partly = keep.join(format!("{name}.part"));
        let to = File::options().write(true).read(true).create(true).truncate(true).mode(0o600).open(&partly).map_err(failed)?;
        // A clone costs nothing where the filesystem can; what it holds is checked all the same.
        let kept = match rustix::fs::ioctl_ficlone(&to, &from) {
            Ok(()) => hash_of(&to),
            Err(_) => {
                let mut holes = Holes(&to);
                copy_hashing(&from, &mut holes).and_then(|hash| holes.end().map(|()| hash))
            }
        };
        if kept.map_err(failed)? != *hash {
            let _ = fs::remove_file(&partly);
            return Err(Diagnostic::new(Code::Stale, format!("{path} changed while it was being kept")).hint("plan again").into());
        }
        fs::rename(&partly, &place).map_err(failed)?;
        if let Some(run) = &mut *self.run.borrow_mut() {
            run.unsynced.push(to);
            // Not more open files than a process may have.
            if run.unsynced.len() >= 128 {
                for file in std::mem::take(&mut run.unsynced) {
                    file.sync_data().map_err(failed)?;
                }
            }
        }
        Ok(())
    }

    /// Puts bytes that the journal only names into the run's keep.
    pub fn keep_bytes(&self, bytes: &[u8]) -> Result<Hash> {
        let hash = Hash::of(bytes);
        let failed = |e: io::Error| Diagnostic::io("keep what the journal names", &e);
        let place = self.current_keep()?.join(&hash.0);
        if !place.exists() {
            self.mutating("keep what the journal names")?;
            let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&place).map_err(failed)?;
            file.write_all(bytes).and_then(|()| file.sync_data()).map_err(failed)?;
        }
        Ok(hash)
    }

    /// Names the place in the run's keep to which `move_to_keep` will bring the tree at this path. The name is for `kept`, in any run.
    pub fn keep_tree(&self, path: &str) -> Result<String> {
        let run = self.run_id().ok_or_else(outside)?;
        let Hash(hash) = Hash::of(path.as_bytes());
        Ok(format!("{run}/tree-{}", hash.get(..16).unwrap_or_default()))
    }

    /// Where something kept really is. What is no name of a kept thing leads nowhere.
    pub fn kept(&self, name: &str) -> PathBuf {
        let (run, thing) = name.split_once('/').unwrap_or_default();
        let plain = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        match plain(run) && plain(thing) {
            true => self.run_dir(run).join("keep").join(thing),
            false => self.runs_dir().join("nothing"),
        }
    }

    /// Takes what stands at a path away, into the keep: renamed where that is one filesystem, else copied (1 GiB at most) and removed.
    pub fn move_to_keep(&self, path: &str, name: &str) -> Result<()> {
        self.mutating(&format!("move {path} into the keep"))?;
        move_tree(&self.path(path), &self.kept(name)).map_err(|e| Diagnostic::io(format!("keep {path}"), &e).into())
    }

    /// Brings a kept tree back to its path, where nothing stands.
    pub fn move_from_keep(&self, name: &str, path: &str) -> Result<()> {
        self.mutating(&format!("bring {path} back from the keep"))?;
        move_tree(&self.kept(name), &self.path(path)).map_err(|e| Diagnostic::io(format!("bring {path} back"), &e).into())
    }

    /// Contents that this run kept can be had again.
    pub fn look_in_keep(&self, run: &str) {
        self.contents().look_in(self.run_dir(run).join("keep"));
    }

    fn current_keep(&self) -> Result<PathBuf> {
        Ok(self.run_dir(&self.run_id().ok_or_else(outside)?).join("keep"))
    }

    /// Removes the oldest runs beyond what is kept, and what killed agents left in the spool. What cannot be removed stays: a run must
    /// not fail for it.
    pub(super) fn retain_runs(&self) {
        self.contents().clear_spool();
        let Ok(runs) = self.runs() else { return };
        let mut bytes = 0;
        for (index, run) in runs.iter().enumerate() {
            let place = self.run_dir(&run.header.id);
            bytes += size(&place);
            if index > 0 && (index >= RUNS || bytes > BYTES) {
                let _ = fs::remove_dir_all(place);
            }
        }
    }
}

fn outside() -> Diagnostic {
    Diagnostic::new(Code::Internal, "something is to be kept outside of a run")
}

/// What a tree takes on the disk.
fn size(path: &Path) -> u64 {
    let Ok(meta) = fs::symlink_metadata(path) else { return 0 };
    let below = if meta.is_dir() { fs::read_dir(path).into_iter().flatten().flatten().map(|e| size(&e.path())).sum() } else { 0 };
    below + meta.blocks() * 512
}

/// Moves a tree to where nothing is. Interrupted, it can be done again: the copy gets its name when it is whole.
fn move_tree(from: &Path, to: &Path) -> io::Result<()> {
    if fs::symlink_metadata(to).is_ok() {
        return Err(io::Error::from(io::ErrorKind::AlreadyExists));
    }
    match fs::rename(from, to) {
        Err(e) if e.kind() == io::ErrorKind::CrossesDevices => {}
        other => return other,
    }
    if size(from) > COPY {
        return Err(io::Error::other("it is larger than 1 GiB and on another filesystem than /var/lib/basalt"));
    }
    let partly = to.with_file_name(format!(".basalt-part-{}", Hash::of(to.as_os_str().as_encoded_bytes()).0));
    remove_tree(&partly)?;
    copy_tree(from, &partly)?;
    File::open(&partly).and_then(|f| Ok(rustix::fs::syncfs(f)?)).or_else(|e| if partly.is_dir() { Err(e) } else { Ok(()) })?;
    fs::rename(&partly, to)?;
    remove_tree(from)
}

fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

/// Copies anything with all it has: owner, mode, attributes, times.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    let meta = fs::symlink_metadata(from)?;
    let stat = Stat::of(&meta);
    let kind = meta.file_type();
    if kind.is_dir() {
        fs::DirBuilder::new().mode(0o700).create(to)?;
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            copy_tree(&from.join(&name), &to.join(&name))?;
        }
    } else if kind.is_symlink() {
        std::os::unix::fs::symlink(fs::read_link(from)?, to)?;
    } else if kind.is_file() {
        copy_hashing(open_file(from)?, File::options().write(true).create_new(true).mode(0o600).open(to)?)?;
    } else {
        let file_type = FileType::from_raw_mode(meta.mode());
        rustix::fs::mknodat(CWD, to, file_type, Mode::from_raw_mode(0o600), meta.rdev())?;
    }
    rustix::fs::chownat(CWD, to, Some(Uid::from_raw(stat.uid)), Some(Gid::from_raw(stat.gid)), AtFlags::SYMLINK_NOFOLLOW)?;
    if !kind.is_symlink() {
        rustix::fs::chmodat(CWD, to, Mode::from_raw_mode(stat.mode), AtFlags::empty())?;
    }
    apply_xattrs(to, &xattrs_of(from)?)?;
    set_mtime(to, stat.mtime_ns)
}
