//! The store on this machine's disk: one file per key, replaced atomically, all writers serialised by one lock.
//!
//! A file is the version in decimal, a line break, and the value. Files are private to the user.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::{Entry, Store};
use crate::diagnostic::{Code, Diagnostic, Result};

pub struct DiskStore {
    folder: PathBuf,
}

impl DiskStore {
    /// Opens the store in a folder, which is made when the first value is written.
    pub fn at(folder: impl Into<PathBuf>) -> DiskStore {
        DiskStore { folder: folder.into() }
    }

    fn file(&self, key: &str) -> Result<PathBuf> {
        let plain = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains('\0');
        if !key.split('/').all(plain) {
            return Err(Diagnostic::new(Code::Internal, format!("{key:?} is no key of the store")).into());
        }
        Ok(self.folder.join(key))
    }

    /// Held while a value is read and replaced. Dies with the process.
    fn lock(&self) -> Result<File> {
        make_folder(&self.folder)?;
        let path = self.folder.join(".lock");
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(|e| failed("open", &path, &e))?;
        flock(&file, FlockOperation::LockExclusive).map_err(|e| failed("lock", &path, &e.into()))?;
        Ok(file)
    }
}

impl Store for DiskStore {
    fn get(&self, key: &str) -> Result<Option<Entry>> {
        let path = self.file(key)?;
        match fs::read(&path) {
            Ok(bytes) => parse(&bytes).map(Some).ok_or_else(|| damaged(&path).into()),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(failed("read", &path, &e).into()),
        }
    }

    fn put_if(&self, key: &str, version: u64, value: &[u8]) -> Result<bool> {
        let path = self.file(key)?;
        let _lock = self.lock()?;
        // A damaged entry may be overwritten: it counts as version 0.
        let there = self.get(key).ok().flatten().map_or(0, |e| e.version);
        if there != version {
            return Ok(false);
        }
        if let Some(parent) = path.parent() {
            make_folder(parent)?;
        }
        let temporary = path.with_file_name(format!(".new-{}", std::process::id()));
        let write = || -> std::io::Result<()> {
            let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
            writeln!(file, "{}", version + 1)?;
            file.write_all(value)?;
            file.sync_data()?;
            fs::rename(&temporary, &path)
        };
        write().map_err(|e| {
            let _ = fs::remove_file(&temporary);
            failed("write", &path, &e)
        })?;
        Ok(true)
    }

    fn delete(&self, key: &str) -> Result<()> {
        let path = self.file(key)?;
        match fs::remove_file(&path) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            Err(e) => Err(failed("delete", &path, &e).into()),
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        let folder = self.folder.join(prefix);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(keys),
            Err(e) => return Err(failed("list", &folder, &e).into()),
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.') && entry.file_type().is_ok_and(|t| t.is_file()) {
                keys.push(format!("{prefix}{name}"));
            }
        }
        keys.sort();
        Ok(keys)
    }
}

fn parse(bytes: &[u8]) -> Option<Entry> {
    let end = bytes.iter().position(|b| *b == b'\n')?;
    let version = std::str::from_utf8(bytes.get(..end)?).ok()?.parse().ok()?;
    Some(Entry { version, value: bytes.get(end + 1..)?.to_vec() })
}

fn make_folder(path: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| failed("make", path, &e).into())
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> Diagnostic {
    Diagnostic::io(format_args!("{what} {}", path.display()), error)
        .hint("this is basalt's own memory of past runs; XDG_STATE_HOME puts it elsewhere")
}

fn damaged(path: &Path) -> Diagnostic {
    Diagnostic::new(Code::Damaged, format!("{} is damaged", path.display())).hint("delete it: only a piece of history is lost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_of_two_writers_of_one_version_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let store = DiskStore::at(folder.path());
        assert!(store.put_if("runs/a", 0, b"one").unwrap());
        assert!(!store.put_if("runs/a", 0, b"two").unwrap());
        assert!(store.put_if("runs/a", 1, b"two").unwrap());
        assert_eq!(store.get("runs/a").unwrap(), Some(Entry { version: 2, value: b"two".to_vec() }));
        assert_eq!(store.list("runs/").unwrap(), ["runs/a"]);
        store.delete("runs/a").unwrap();
        assert_eq!(store.get("runs/a").unwrap(), None);
    }

    #[test]
    fn keys_cannot_leave_the_folder() {
        let store = DiskStore::at("/nonexistent");
        for key in ["../x", "a/../b", "/etc/passwd", "", "a//b", ".lock"] {
            assert!(store.get(key).is_err(), "{key}");
        }
    }

    #[test]
    fn a_damaged_entry_is_named_and_can_be_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let store = DiskStore::at(folder.path());
        fs::write(folder.path().join("x"), b"rubbish").unwrap();
        assert_eq!(store.get("x").unwrap_err().code, Code::Damaged);
        assert!(store.put_if("x", 0, b"new").unwrap());
    }
}
