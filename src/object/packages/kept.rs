//! What the way back of packages needs and the archive may not have tomorrow: package files of versions that were replaced, and changed
//! configuration files of packages that were purged. Beside the journal, bounded.

use std::path::PathBuf;

use sha2::Digest;

use super::status::Package;
use crate::diagnostic::{Diagnostic, Result};
use crate::system::{Command, FileKind, Meta, System};

const PLACE: &str = "/var/lib/basalt/packages";
const ARCHIVES: &str = "/var/cache/apt/archives";
/// Package files beyond this go, oldest first.
const LIMIT: u64 = 1 << 30;

/// `name_version_`, as apt names its files.
fn prefix(name: &str, version: &str) -> String {
    let name = name.split(':').next().unwrap_or(name);
    format!("{name}_{}_", version.replace(':', "%3a"))
}

/// The file of this version, kept or in apt's cache.
pub fn deb(sys: &System, name: &str, version: &str) -> Result<Option<String>> {
    let prefix = prefix(name, version);
    for place in [PLACE, ARCHIVES] {
        if let Some(file) = sys.list(place)?.into_iter().find(|f| f.starts_with(&prefix) && f.ends_with(".deb")) {
            return Ok(Some(format!("{place}/{file}")));
        }
    }
    Ok(None)
}

fn place(sys: &System) -> Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt;
    let place = sys.path(PLACE);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&place).map_err(|e| Diagnostic::io(format!("create {PLACE}"), &e))?;
    Ok(place)
}

/// Keeps the file of a version that is about to go: from apt's cache, else fetched. What cannot be had was said to be one-way.
pub fn keep_deb(sys: &System, name: &str, version: &str) -> Result<()> {
    let place = place(sys)?;
    match deb(sys, name, version)? {
        Some(path) if path.starts_with(PLACE) => {}
        Some(path) => {
            let from = sys.path(&path);
            let to = place.join(from.file_name().unwrap_or_default());
            let beside = place.join(".part");
            std::fs::copy(&from, &beside)
                .and_then(|_| std::fs::File::open(&beside)?.sync_all())
                .and_then(|()| std::fs::rename(&beside, &to))
                .map_err(|e| Diagnostic::io(format!("keep {path}"), &e))?;
        }
        None => {
            let mut fetch = Command::new(["apt-get", "-q", "download"]);
            fetch.argv.push(format!("{name}={version}"));
            fetch.cwd = Some(PLACE.to_owned());
            sys.run(&fetch)?;
        }
    }
    Ok(())
}

/// Lets the oldest package files go where there are too many.
pub fn prune(sys: &System) -> Result<()> {
    let mut files = Vec::new();
    for name in sys.list(PLACE)? {
        let path = format!("{PLACE}/{name}");
        if let Some(stat) = sys.stat(&path)?.filter(|s| s.kind == FileKind::File) {
            files.push((stat.mtime_ns, stat.size, path));
        }
    }
    files.sort();
    let mut total: u64 = files.iter().map(|(_, size, _)| size).sum();
    for (_, size, path) in files {
        if total <= LIMIT {
            break;
        }
        let _ = std::fs::remove_file(sys.path(&path));
        total -= size;
    }
    Ok(())
}

fn conffiles_of(name: &str, version: &str) -> String {
    format!("{PLACE}/conffiles/{}", prefix(name, version).trim_end_matches('_'))
}

/// Keeps the configuration files of a package that its user changed.
pub fn keep_conffiles(sys: &System, name: &str, package: &Package) -> Result<()> {
    for (path, sum) in &package.conffiles {
        let Some(stat) = sys.stat(path)?.filter(|s| s.kind == FileKind::File) else { continue };
        let Some(bytes) = sys.read(path)? else { continue };
        if crate::plan::hex(&md5::Md5::digest(&bytes)) == *sum {
            continue;
        }
        let target = format!("{}{path}", conffiles_of(name, &package.version));
        place(sys)?;
        if let Some(parent) = sys.path(&target).parent() {
            std::fs::create_dir_all(parent).map_err(|e| Diagnostic::io(format!("create {}", parent.display()), &e))?;
        }
        let meta = Meta { mode: stat.mode, uid: stat.uid, gid: stat.gid, xattrs: sys.xattrs(path)?, mtime_ns: Some(stat.mtime_ns) };
        sys.write_bytes(&target, &bytes, &meta)?;
    }
    Ok(())
}

/// dpkg's own copy of a new version's configuration file, beside one that its user changed.
fn copies(package: &Package) -> impl Iterator<Item = String> {
    package.conffiles.iter().map(|(path, _)| format!("{path}.dpkg-dist"))
}

/// Notes the copies that dpkg has left beside configuration files so far.
pub fn keep_copies(sys: &System, name: &str, package: &Package) -> Result<()> {
    for path in copies(package) {
        let target = format!("{}{path}", conffiles_of(name, &package.version));
        match (sys.stat(&path)?, sys.read(&path)?) {
            (Some(stat), Some(bytes)) => {
                place(sys)?;
                if let Some(parent) = sys.path(&target).parent() {
                    std::fs::create_dir_all(parent).map_err(|e| Diagnostic::io(format!("create {}", parent.display()), &e))?;
                }
                let meta =
                    Meta { mode: stat.mode, uid: stat.uid, gid: stat.gid, xattrs: sys.xattrs(&path)?, mtime_ns: Some(stat.mtime_ns) };
                sys.write_bytes(&target, &bytes, &meta)?;
            }
            _ if sys.stat(&target)?.is_some() => sys.remove_file(&target)?,
            _ => {}
        }
    }
    Ok(())
}

/// Takes away the copies that dpkg has made since `keep_copies`; those that were there are what they were.
pub fn restore_copies(sys: &System, name: &str, package: &Package) -> Result<()> {
    for path in copies(package) {
        let kept = format!("{}{path}", conffiles_of(name, &package.version));
        match (sys.stat(&kept)?, sys.stat(&path)?) {
            (None, Some(_)) => sys.remove_file(&path)?,
            (Some(stat), _) => {
                let bytes = sys.read(&kept)?.unwrap_or_default();
                let meta =
                    Meta { mode: stat.mode, uid: stat.uid, gid: stat.gid, xattrs: sys.xattrs(&kept)?, mtime_ns: Some(stat.mtime_ns) };
                sys.write_bytes(&path, &bytes, &meta)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Puts kept configuration files of a version back where they were.
pub fn restore_conffiles(sys: &System, name: &str, version: &str) -> Result<()> {
    let root = conffiles_of(name, version);
    let mut todo = vec![root.clone()];
    while let Some(path) = todo.pop() {
        let Some(stat) = sys.stat(&path)? else { continue };
        match stat.kind {
            FileKind::Directory => todo.extend(sys.list(&path)?.into_iter().map(|n| format!("{path}/{n}"))),
            FileKind::File => {
                let bytes = sys.read(&path)?.unwrap_or_default();
                let target = path.strip_prefix(&root).unwrap_or(&path);
                let meta =
                    Meta { mode: stat.mode, uid: stat.uid, gid: stat.gid, xattrs: sys.xattrs(&path)?, mtime_ns: Some(stat.mtime_ns) };
                sys.write_bytes(target, &bytes, &meta)?;
            }
            _ => {}
        }
    }
    Ok(())
}
