//! What the way back of packages needs and the archive may not have tomorrow: package files of versions that were replaced, changed
//! configuration files, and how the units stood that packages bring. Beside the journal, bounded.

use std::collections::BTreeMap;
use std::path::PathBuf;

use sha2::Digest;

use super::manager::{Manager, Owned};
use crate::diagnostic::{Diagnostic, Result};
use crate::object::service::Service;
use crate::object::{Object, Progress};
use crate::system::{FileKind, Meta, System};
use crate::value::Attrs;

const PLACE: &str = "/var/lib/basalt/packages";
/// Package files beyond this go, oldest first.
const LIMIT: u64 = 1 << 30;
const UNITS: [&str; 3] = ["/usr/lib/systemd/system/", "/lib/systemd/system/", "/etc/systemd/system/"];

/// `name_version_`, as apt names its files.
pub fn prefix(name: &str, version: &str) -> String {
    let name = name.split(':').next().unwrap_or(name);
    format!("{name}_{}_", version.replace(':', "%3a"))
}

/// The file of this version, kept or in the manager's own cache.
pub fn file(sys: &System, manager: &dyn Manager, name: &str, version: &str) -> Result<Option<String>> {
    let prefix = prefix(name, version);
    let (end, cache) = manager.files();
    for place in [Some(PLACE), cache].into_iter().flatten() {
        if let Some(file) = sys.list(place)?.into_iter().find(|f| f.starts_with(&prefix) && f.ends_with(end)) {
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

/// Keeps the files of versions that are about to go: from the manager's cache, else fetched. What cannot be had was said to be one-way.
pub fn keep_files(sys: &System, manager: &dyn Manager, versions: Vec<(String, String)>) -> Result<()> {
    let mut missing = Vec::new();
    for (name, version) in versions {
        let place = place(sys)?;
        match file(sys, manager, &name, &version)? {
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
            None => missing.push((name, version)),
        }
    }
    if missing.is_empty() { Ok(()) } else { manager.fetch(sys, &missing, PLACE) }
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

/// Copies a file of the host to its place in the keep, or back.
fn copy(sys: &System, from: &str, to: &str) -> Result<()> {
    let (Some(stat), Some(bytes)) = (sys.stat(from)?, sys.read(from)?) else { return Ok(()) };
    if let Some(parent) = sys.path(to).parent() {
        std::fs::create_dir_all(parent).map_err(|e| Diagnostic::io(format!("create {}", parent.display()), &e))?;
    }
    let meta = Meta { mode: stat.mode, uid: stat.uid, gid: stat.gid, xattrs: sys.xattrs(from)?, mtime_ns: Some(stat.mtime_ns) };
    sys.write_bytes(to, &bytes, &meta)
}

/// Whether the bytes are what a package's digest says: MD5 or SHA-256, as long as it is.
fn unchanged(bytes: &[u8], digest: &str) -> bool {
    match digest.len() {
        32 => crate::plan::hex(&md5::Md5::digest(bytes)) == *digest,
        _ => crate::plan::hex(&sha2::Sha256::digest(bytes)) == *digest,
    }
}

/// Keeps the configuration files of a package that its user changed.
pub fn keep_conffiles(sys: &System, name: &str, version: &str, owned: &[Owned]) -> Result<()> {
    for Owned { path, digest } in owned {
        let Some(digest) = digest else { continue };
        let target = format!("{}{path}", conffiles_of(name, version));
        let there = sys.stat(path)?.is_some_and(|s| s.kind == FileKind::File);
        if there && !unchanged(&sys.read(path)?.unwrap_or_default(), digest) {
            place(sys)?;
            copy(sys, path, &target)?;
        } else if sys.stat(&target)?.is_some() {
            // Of an earlier run.
            sys.remove_file(&target)?;
        }
    }
    Ok(())
}

/// The manager's own copies of configuration files, beside those that their user changed.
fn copies(manager: &dyn Manager, owned: &[Owned]) -> Vec<String> {
    let ends = manager.copies().0;
    let of = owned.iter().filter(|owned| owned.digest.is_some());
    of.flat_map(|owned| ends.iter().map(move |end| format!("{}{end}", owned.path))).collect()
}

/// Notes the copies that there are beside configuration files so far.
pub fn keep_copies(sys: &System, manager: &dyn Manager, name: &str, version: &str, owned: &[Owned]) -> Result<()> {
    for path in copies(manager, owned) {
        let target = format!("{}{path}", conffiles_of(name, version));
        if sys.stat(&path)?.is_some() {
            place(sys)?;
            copy(sys, &path, &target)?;
        } else if sys.stat(&target)?.is_some() {
            sys.remove_file(&target)?;
        }
    }
    Ok(())
}

/// Takes away the copies that were made since `keep_copies`; those that were there are what they were.
pub fn restore_copies(sys: &System, manager: &dyn Manager, name: &str, version: &str, owned: &[Owned]) -> Result<()> {
    for path in copies(manager, owned) {
        let kept = format!("{}{path}", conffiles_of(name, version));
        match (sys.stat(&kept)?, sys.stat(&path)?) {
            (None, Some(_)) => sys.remove_file(&path)?,
            (Some(_), _) => copy(sys, &kept, &path)?,
            _ => {}
        }
    }
    Ok(())
}

/// Notes how the units stand that a package brings: its scriptlets stop, disable and start them as they think fit.
pub fn keep_units(sys: &System, name: &str, version: &str, owned: &[Owned]) -> Result<()> {
    let mut units: BTreeMap<&str, Attrs> = BTreeMap::new();
    for Owned { path, .. } in owned {
        let unit = UNITS.iter().find_map(|place| path.strip_prefix(place)).unwrap_or_default();
        let kind = [".service", ".socket", ".timer", ".path"].iter().any(|end| unit.ends_with(end));
        if kind && !unit.contains(['/', '@']) {
            units.insert(unit, Service::new(unit).read(sys)?);
        }
    }
    let path = format!("{PLACE}/units/{}", prefix(name, version).trim_end_matches('_'));
    if units.is_empty() || sys.stat("/run/systemd/system")?.is_none() {
        return Ok(());
    }
    place(sys)?;
    std::fs::create_dir_all(sys.path(&format!("{PLACE}/units"))).map_err(|e| Diagnostic::io("keep how units stand", &e))?;
    let uid = rustix::process::geteuid().as_raw();
    let meta = Meta { mode: 0o600, uid, gid: rustix::process::getegid().as_raw(), ..Meta::default() };
    sys.write_bytes(&path, &serde_json::to_vec(&units).unwrap_or_default(), &meta)
}

/// Makes the units of a version that is back stand as they stood.
pub fn restore_units(sys: &System, name: &str, version: &str, progress: &mut Progress) -> Result<()> {
    let path = format!("{PLACE}/units/{}", prefix(name, version).trim_end_matches('_'));
    let Some(bytes) = sys.read(&path)? else { return Ok(()) };
    let units: BTreeMap<String, Attrs> = serde_json::from_slice(&bytes).unwrap_or_default();
    for (unit, before) in units {
        let service = Service::new(&unit);
        let now = service.read(sys)?;
        if now != before && now.contains_key("exists") && before.contains_key("exists") {
            service.set(sys, &now, &before, progress)?;
        }
    }
    Ok(())
}

/// Puts kept configuration files of a version back where they were.
pub fn restore_conffiles(sys: &System, name: &str, version: &str) -> Result<()> {
    let root = conffiles_of(name, version);
    files(sys, &root)?.iter().try_for_each(|path| copy(sys, &format!("{root}{path}"), path))
}

/// The paths of all configuration files of which there are kept ones.
pub fn conffiles(sys: &System) -> Result<Vec<String>> {
    let root = format!("{PLACE}/conffiles");
    let mut all = Vec::new();
    for version in sys.list(&root)? {
        all.extend(files(sys, &format!("{root}/{version}"))?);
    }
    Ok(all)
}

/// The files below a folder, by what stands behind its path.
fn files(sys: &System, root: &str) -> Result<Vec<String>> {
    let (mut todo, mut files) = (vec![root.to_owned()], Vec::new());
    while let Some(path) = todo.pop() {
        match sys.stat(&path)?.map(|stat| stat.kind) {
            Some(FileKind::Directory) => todo.extend(sys.list(&path)?.into_iter().map(|name| format!("{path}/{name}"))),
            Some(FileKind::File) => files.extend(path.strip_prefix(root).map(str::to_owned)),
            _ => {}
        }
    }
    Ok(files)
}
