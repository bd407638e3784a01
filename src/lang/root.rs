//! File roots: where SLS, templates and sources come from.
//!
//! A saltenv is a list of mounts, looked through in order; a mount is a tree under a name (`states/` under none, `roles/` under `roles`). A tree is a
//! directory or what a git commit holds. No path leaves its tree: neither by `..` nor by a symlink.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, RwLock};

use indexmap::IndexMap;

use crate::diagnostic::{Code, Diagnostic, Result};

/// A file of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub bytes: Arc<[u8]>,
    /// Its permission bits.
    pub mode: u32,
    /// Where it points, if it is a symlink; the bytes are then those of what it points to.
    pub link: Option<String>,
    /// As the user would type it.
    pub shown: Arc<str>,
}

impl File {
    /// The text, where it is UTF-8.
    pub fn text(&self) -> Result<&str> {
        std::str::from_utf8(&self.bytes).map_err(|error| {
            let line = self.bytes.get(..error.valid_up_to()).unwrap_or_default().iter().filter(|b| **b == b'\n').count() + 1;
            let span = crate::diagnostic::Span::new(self.shown.clone(), line as u32, 0);
            Box::new(Diagnostic::new(Code::Template, format!("{} is not UTF-8", self.shown)).at(span))
        })
    }
}

/// Files below one root. Paths have no leading slash and no `.` or `..` in them.
pub trait Tree: Send + Sync {
    fn read(&self, path: &str) -> io::Result<Option<File>>;
    /// All paths of files, sorted.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Directories without any file, sorted; a commit has none.
    fn empty_directories(&self) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }
}

/// A directory of this machine.
pub struct Directory {
    root: PathBuf,
    /// Symlinks may lead anywhere below one of these.
    within: Vec<PathBuf>,
    shown: String,
}

impl Directory {
    /// `shown` is how messages name it.
    pub fn new(root: &Path, shown: impl Into<String>) -> io::Result<Directory> {
        let root = root.canonicalize()?;
        Ok(Directory { within: vec![root.clone()], root, shown: shown.into() })
    }

    /// Lets symlinks lead anywhere below these folders (the other roots), not only below the root itself.
    pub fn within(mut self, folders: &[PathBuf]) -> io::Result<Directory> {
        for folder in folders {
            self.within.push(folder.canonicalize()?);
        }
        Ok(self)
    }

    fn holds(&self, real: &Path) -> bool {
        self.within.iter().any(|folder| real.starts_with(folder))
    }

    fn walk(&self, visit: &mut dyn FnMut(&str, bool)) -> io::Result<()> {
        let mut left = vec![(self.root.clone(), String::new(), 0)];
        while let Some((directory, prefix, depth)) = left.pop() {
            let mut any = false;
            for entry in std::fs::read_dir(&directory)? {
                let entry = entry?;
                any = true;
                // A name that is no UTF-8 cannot be asked for.
                let Ok(name) = entry.file_name().into_string() else { continue };
                let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
                let Ok(real) = entry.path().canonicalize() else { continue };
                if !self.holds(&real) {
                    continue;
                }
                match std::fs::metadata(&real) {
                    // Links can make a circle of directories; nobody nests this deep.
                    Ok(meta) if meta.is_dir() && depth < 64 => left.push((entry.path(), path, depth + 1)),
                    Ok(meta) if meta.is_file() => visit(&path, true),
                    _ => {}
                }
            }
            if !any && !prefix.is_empty() {
                visit(&prefix, false);
            }
        }
        Ok(())
    }

    fn collect(&self, files: bool) -> io::Result<Vec<String>> {
        let mut out = Vec::new();
        self.walk(&mut |path, is_file| {
            if is_file == files {
                out.push(path.to_owned());
            }
        })?;
        out.sort();
        Ok(out)
    }
}

impl Tree for Directory {
    fn read(&self, path: &str) -> io::Result<Option<File>> {
        use std::os::unix::fs::PermissionsExt;
        let joined = self.root.join(path);
        let real = match joined.canonicalize() {
            Ok(real) => real,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidInput) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        if !self.holds(&real) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("it is a symlink that leads out of {}", self.shown)));
        }
        let meta = std::fs::metadata(&real)?;
        if !meta.is_file() {
            return Ok(None);
        }
        let link = std::fs::read_link(&joined).ok().map(|target| target.to_string_lossy().into_owned());
        let shown = if self.shown.is_empty() { path.to_owned() } else { format!("{}/{path}", self.shown.trim_end_matches('/')) };
        Ok(Some(File { bytes: std::fs::read(&real)?.into(), mode: meta.permissions().mode() & 0o7777, link, shown: shown.into() }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.collect(true)
    }

    fn empty_directories(&self) -> io::Result<Vec<String>> {
        self.collect(false)
    }
}

/// What a repository lists at one moment (a commit, a work tree), links not followed.
pub trait Listing: Send + Sync {
    fn paths(&self) -> Vec<String>;
    /// Bytes and mode of a file; a symlink's bytes are its target and its mode is `LINK`.
    fn read(&self, path: &str) -> io::Result<Option<(Arc<[u8]>, u32)>>;
}

/// The mode git gives a symlink.
pub const LINK: u32 = 0o120000;

/// One folder of a listing as a tree. Symlinks may lead anywhere in the listing.
pub struct Folder {
    listing: Arc<dyn Listing>,
    /// Empty for all of it.
    below: String,
    paths: Vec<String>,
}

impl Folder {
    pub fn new(listing: Arc<dyn Listing>, below: &str) -> Folder {
        let prefix = if below.is_empty() { String::new() } else { format!("{below}/") };
        let mut paths: Vec<String> = listing.paths().into_iter().filter_map(|path| path.strip_prefix(&prefix).map(str::to_owned)).collect();
        paths.sort();
        Folder { listing, below: below.to_owned(), paths }
    }
}

impl Tree for Folder {
    fn read(&self, path: &str) -> io::Result<Option<File>> {
        let shown = if self.below.is_empty() { path.to_owned() } else { format!("{}/{path}", self.below) };
        let (mut at, mut link) = (shown.clone(), None);
        // Links of links, as many as Linux follows. (A link to a directory is not gone through: git lists nothing below it.)
        for _ in 0..40 {
            let Some((bytes, mode)) = self.listing.read(&at)? else { return Ok(None) };
            if mode != LINK {
                return Ok(Some(File { bytes, mode: mode & 0o777, link, shown: shown.into() }));
            }
            let target = String::from_utf8_lossy(&bytes).into_owned();
            let parent = at.rsplit_once('/').map_or("", |(parent, _)| parent);
            let Some(next) = clean(&format!("{parent}/{target}")).filter(|_| !target.starts_with('/')) else {
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is a symlink that leads out of the repository"));
            };
            link.get_or_insert(target);
            at = next;
        }
        Ok(None)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.paths.clone())
    }
}

/// Files that are only in memory.
#[derive(Default)]
pub struct Memory(pub IndexMap<String, Vec<u8>>);

impl Tree for Memory {
    fn read(&self, path: &str) -> io::Result<Option<File>> {
        Ok(self.0.get(path).map(|bytes| File { bytes: bytes.as_slice().into(), mode: 0o644, link: None, shown: path.into() }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut out: Vec<String> = self.0.keys().cloned().collect();
        out.sort();
        Ok(out)
    }
}

/// A tree under a name.
#[derive(Clone)]
pub struct Mount {
    /// Empty, or the path its files stand below: `roles`.
    pub name: String,
    pub tree: Arc<dyn Tree>,
}

/// What was read and listed of one saltenv.
#[derive(Default)]
struct Environment {
    mounts: Vec<Mount>,
    files: RwLock<HashMap<String, Option<Arc<File>>>>,
    paths: OnceLock<Arc<Vec<String>>>,
    sls: OnceLock<Arc<Vec<String>>>,
}

/// The file roots of all saltenvs. Every file is read once.
#[derive(Default)]
pub struct Roots {
    environments: IndexMap<String, Environment>,
}

impl Roots {
    pub fn new() -> Roots {
        Roots::default()
    }

    /// One saltenv `base` with these mounts.
    pub fn base(mounts: Vec<Mount>) -> Roots {
        let mut roots = Roots::new();
        roots.environment("base", mounts);
        roots
    }

    pub fn environment(&mut self, name: &str, mounts: Vec<Mount>) {
        self.environments.insert(name.to_owned(), Environment { mounts, ..Environment::default() });
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.environments.keys().map(String::as_str)
    }

    pub fn has(&self, saltenv: &str) -> bool {
        self.environments.contains_key(saltenv)
    }

    /// A file by its path below the roots. A path that would leave them is not there.
    pub fn read(&self, saltenv: &str, path: &str) -> Result<Option<Arc<File>>> {
        let (Some(environment), Some(path)) = (self.environments.get(saltenv), clean(path)) else { return Ok(None) };
        let known = environment.files.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(&path).cloned();
        if let Some(file) = known {
            return Ok(file);
        }
        let mut found = None;
        for mount in &environment.mounts {
            let Some(below) = mount.below(&path) else { continue };
            let file = mount.tree.read(below).map_err(|error| Diagnostic::new(Code::Repository, format!("cannot read {path}: {error}")))?;
            if let Some(file) = file {
                found = Some(Arc::new(file));
                break;
            }
        }
        environment.files.write().unwrap_or_else(std::sync::PoisonError::into_inner).insert(path, found.clone());
        Ok(found)
    }

    /// All paths of files in a saltenv, sorted.
    pub fn paths(&self, saltenv: &str) -> Result<Arc<Vec<String>>> {
        let Some(environment) = self.environments.get(saltenv) else { return Ok(Arc::default()) };
        if let Some(paths) = environment.paths.get() {
            return Ok(paths.clone());
        }
        let mut all = BTreeSet::new();
        for mount in &environment.mounts {
            let paths =
                mount.tree.list().map_err(|error| Diagnostic::new(Code::Repository, format!("cannot list the file roots: {error}")))?;
            all.extend(paths.into_iter().map(|path| mount.above(&path)));
        }
        Ok(environment.paths.get_or_init(|| Arc::new(all.into_iter().collect())).clone())
    }

    /// Directories without files below `prefix`, in all mounts.
    pub fn empty_directories(&self, saltenv: &str, prefix: &str) -> Result<Vec<String>> {
        let mut out = BTreeSet::new();
        for mount in self.environments.get(saltenv).into_iter().flat_map(|environment| &environment.mounts) {
            let paths = mount
                .tree
                .empty_directories()
                .map_err(|error| Diagnostic::new(Code::Repository, format!("cannot list the file roots: {error}")))?;
            out.extend(paths.into_iter().map(|path| mount.above(&path)).filter(|path| path.starts_with(prefix)));
        }
        Ok(out.into_iter().collect())
    }

    /// The names of all SLS of a saltenv, sorted.
    pub fn sls(&self, saltenv: &str) -> Result<Arc<Vec<String>>> {
        let paths = self.paths(saltenv)?;
        let Some(environment) = self.environments.get(saltenv) else { return Ok(Arc::default()) };
        let names = || {
            let name =
                |path: &String| path.strip_suffix("/init.sls").or_else(|| path.strip_suffix(".sls")).map(|name| name.replace('/', "."));
            let unique: BTreeSet<String> = paths.iter().filter_map(name).collect();
            Arc::new(unique.into_iter().collect())
        };
        Ok(environment.sls.get_or_init(names).clone())
    }

    /// The file of an SLS and its path: `a.b` is `a/b.sls` or `a/b/init.sls`.
    pub fn find_sls(&self, saltenv: &str, sls: &str) -> Result<Option<(String, Arc<File>)>> {
        let base = sls.replace('.', "/");
        for path in [format!("{base}.sls"), format!("{base}/init.sls")] {
            if let Some(file) = self.read(saltenv, &path)? {
                return Ok(Some((path, file)));
            }
        }
        Ok(None)
    }
}

impl Mount {
    fn below<'a>(&self, path: &'a str) -> Option<&'a str> {
        if self.name.is_empty() { Some(path) } else { path.strip_prefix(&self.name)?.strip_prefix('/') }
    }

    fn above(&self, path: &str) -> String {
        if self.name.is_empty() { path.to_owned() } else { format!("{}/{path}", self.name) }
    }
}

/// A path without `.`, `..` and doubled slashes; none if it leaves the root or names nothing.
pub fn clean(path: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part if part.contains('\0') => return None,
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(files: &[(&str, &str)]) -> Arc<dyn Tree> {
        Arc::new(Memory(files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect()))
    }

    #[test]
    fn mounts_are_looked_through_in_order_and_under_their_names() {
        let states = memory(&[("a/init.sls", "1"), ("b.sls", "2")]);
        let roles = memory(&[("edge.sls", "3"), ("b.sls", "4")]);
        let roots = Roots::base(vec![Mount { name: String::new(), tree: states }, Mount { name: "roles".into(), tree: roles }]);
        let text = |sls: &str| roots.find_sls("base", sls).unwrap().map(|(_, file)| file.text().unwrap().to_owned());
        assert_eq!(
            (text("a"), text("b"), text("roles.edge"), text("roles.b")),
            (Some("1".into()), Some("2".into()), Some("3".into()), Some("4".into()))
        );
        assert_eq!((text("edge"), text("c")), (None, None));
        assert_eq!(**roots.sls("base").unwrap(), ["a", "b", "roles.b", "roles.edge"]);
    }

    #[test]
    fn no_path_leaves_its_root() {
        let base = tempfile::tempdir().unwrap();
        let root = base.path().join("root");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(base.path().join("secret"), "x").unwrap();
        std::fs::write(root.join("in"), "y").unwrap();
        std::os::unix::fs::symlink("../secret", root.join("out")).unwrap();
        std::os::unix::fs::symlink("../in", root.join("sub/link")).unwrap();
        let roots = Roots::base(vec![Mount { name: String::new(), tree: Arc::new(Directory::new(&root, "root").unwrap()) }]);
        assert!(roots.read("base", "../secret").unwrap().is_none());
        assert!(roots.read("base", "sub/../../secret").unwrap().is_none());
        assert!(roots.read("base", "out").unwrap_err().summary.contains("leads out"));
        let file = roots.read("base", "sub/link").unwrap().unwrap();
        assert_eq!((file.text().unwrap(), file.link.as_deref()), ("y", Some("../in")));
        assert_eq!(**roots.paths("base").unwrap(), ["in", "sub/link"]);
    }
}
