//! What packages' scripts put on a host besides what their packages list: a web server's first page, a server's data, copies that `ucf` leaves. No package
//! manager takes that away, so a run writes it down as changes of its own, each thing that came with all that is in it.
//!
//! A rollback takes it away where it is as the run left it (`@tree` of what was reached tells); what was changed since may be somebody's data
//! and stays, unless the rollback is told `--destroy-data`.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use crate::diagnostic::Result;
use crate::object::packages::{self, manager};
use crate::object::{Object, file::File, mount};
use crate::plan::{Key, Kind, hex};
use crate::system::{FileKind, System};
use crate::value::{Attrs, Value};

/// The attribute of what was reached that tells it with all that is in it.
pub const TREE: &str = "@tree";

/// Where packages' scripts put things, and how deep their folders are looked at.
const ROOTS: [(&str, usize); 4] = [("/etc", 8), ("/opt", 1), ("/srv", 1), ("/var", 3)];

/// Folders that scripts use whether their package lists them or not.
const SHARED: [&str; 9] = ["/etc", "/etc/default", "/opt", "/srv", "/var", "/var/backups", "/var/lib", "/var/spool", "/var/www"];

/// What goes by itself, or is taken back as something else. A path stands for itself and all below it; `…*` for all that begin so.
const NOT_THEIRS: [&str; 24] = [
    "/etc/.pwd.lock",
    "/etc/.updated",
    "/etc/alternatives",
    "/etc/group*",
    "/etc/gshadow*",
    "/etc/ld.so.cache",
    "/etc/mtab",
    "/etc/passwd*",
    "/etc/rc*",
    "/etc/shadow*",
    "/etc/subgid*",
    "/etc/subuid*",
    "/etc/systemd/system",
    "/etc/systemd/user",
    "/var/.updated",
    "/var/cache",
    "/var/lib/apt",
    "/var/lib/basalt",
    "/var/lib/dnf",
    "/var/lib/dpkg",
    "/var/lib/rpm",
    "/var/lib/systemd",
    "/var/lib/ucf",
    "/var/log",
];

/// A folder with more in it than this is no place for packages' scripts.
const MANY: usize = 5000;

/// A tree of more than this counts as changed.
const LARGE: usize = 20_000;

/// What is where scripts put things.
pub struct Paths {
    all: BTreeSet<String>,
    /// The folders that were looked into.
    walked: BTreeSet<String>,
}

impl Paths {
    pub fn look(sys: &System) -> Result<Paths> {
        let mounted: BTreeSet<String> = mount::mounts(sys)?.into_iter().map(|entry| entry.path).collect();
        let mut paths = Paths { all: BTreeSet::new(), walked: BTreeSet::new() };
        for (root, depth) in ROOTS {
            paths.walk(sys, root, depth, &mounted);
        }
        Ok(paths)
    }

    fn walk(&mut self, sys: &System, folder: &str, depth: usize, mounted: &BTreeSet<String>) {
        // A name that is no text is no script's, and what cannot be read is not looked at.
        let Some(names) = sys.list(folder).ok().filter(|names| names.len() <= MANY) else { return };
        self.walked.insert(folder.to_owned());
        for name in names {
            let path = format!("{folder}/{name}");
            // What is mounted is not looked at: its server may be gone.
            let inside = depth > 1 && !not_theirs(&path) && !mounted.contains(&path);
            if inside && sys.stat(&path).ok().flatten().is_some_and(|stat| stat.kind == FileKind::Directory) {
                self.walk(sys, &path, depth - 1, mounted);
            }
            self.all.insert(path);
        }
    }

    /// Whether a folder was not there, as far as can be told.
    fn lacked(&self, folder: &str) -> bool {
        let ends = folder.match_indices('/').map(|(at, _)| at).skip(1).chain([folder.len()]);
        let mut known = false;
        for path in ends.filter_map(|end| folder.get(..end)) {
            match (self.walked.contains(path), self.all.contains(path)) {
                (true, _) => known = true,
                (false, there) => return known && !there,
            }
        }
        false
    }

    /// What is in these folders since, and no package's.
    pub fn since(&self, sys: &System, folders: &BTreeSet<String>) -> Result<Vec<String>> {
        let theirs = folders.iter().map(String::as_str).chain(SHARED);
        let mut new = BTreeSet::new();
        for folder in theirs.filter(|folder| is_below_root(folder) && !not_theirs(folder)) {
            if !self.walked.contains(folder) && !self.lacked(folder) {
                continue;
            }
            let paths = sys.list(folder).unwrap_or_default().into_iter().map(|name| format!("{folder}/{name}"));
            new.extend(paths.filter(|path| !self.all.contains(path) && !not_theirs(path)));
        }
        let owned = packages::owners(sys, &new.iter().map(String::as_str).collect())?;
        new.retain(|path| !owned.contains_key(path) && !folders.contains(path));
        // What is in a new folder comes with it.
        let within_another = |path: &&String| path.rsplit_once('/').is_some_and(|(above, _)| new.contains(above));
        Ok(new.iter().filter(|path| !within_another(path)).cloned().collect())
    }
}

/// The folders of packages that are there now and were not, or were in another version.
pub fn folders(sys: &System, name: &str, before: &Attrs, now: &Attrs) -> Result<BTreeSet<String>> {
    let mut folders = BTreeSet::new();
    let manager = manager::of(name)?;
    let Some(all) = manager.packages(sys)? else { return Ok(folders) };
    let came = packages::installed(now).filter(|(name, _)| before.get(*name) != now.get(*name));
    for (name, package) in came.filter_map(|(name, _)| Some((name, all.get(name)?))) {
        for owned in manager.owned(sys, name, package)?.into_iter().filter(|owned| is_below_root(&owned.path)) {
            if !folders.contains(&owned.path) && sys.stat(&owned.path)?.is_some_and(|stat| stat.kind == FileKind::Directory) {
                folders.insert(owned.path);
            }
        }
    }
    Ok(folders)
}

fn is_below_root(path: &str) -> bool {
    ROOTS.iter().any(|(root, _)| within(root, path))
}

fn not_theirs(path: &str) -> bool {
    NOT_THEIRS.iter().any(|entry| match entry.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => within(entry, path),
    })
}

fn within(top: &str, path: &str) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What is at a path, and with `TREE` all that is in it.
pub fn read(sys: &System, path: &str) -> Result<Attrs> {
    let mut attrs = File::new(path).read(sys)?;
    if !attrs.is_empty() {
        attrs.insert(TREE.into(), Value::Str(tree(sys, path)?));
    }
    Ok(attrs)
}

/// Whether something that a run's packages brought is as that run left it; `None`: it is nothing such.
pub fn is_as_left(sys: &System, key: &Key, reached: Option<&Attrs>) -> Result<Option<bool>> {
    let left = reached.filter(|_| key.kind == Kind::File).and_then(|reached| reached.get(TREE));
    left.map(|left| Ok(left.as_str() == Some(&tree(sys, &key.name)?))).transpose()
}

/// Names, kinds, owners and modes of everything in a tree, and of its files how large and how old they are.
fn tree(sys: &System, top: &str) -> Result<String> {
    let (mut hash, mut todo, mut count) = (Sha256::new(), vec![top.to_owned()], 0);
    while let Some(path) = todo.pop() {
        let Some(stat) = sys.stat(&path)? else { continue };
        count += 1;
        if count > LARGE {
            return Ok("large".to_owned());
        }
        hash.update(format!("{path}\0{:?} {:o} {} {}", stat.kind, stat.mode, stat.uid, stat.gid));
        match stat.kind {
            FileKind::Directory => todo.extend(sys.list(&path)?.into_iter().map(|name| format!("{path}/{name}"))),
            FileKind::Symlink => hash.update(sys.readlink(&path)?.unwrap_or_default()),
            _ => hash.update(format!(" {} {}", stat.size, stat.mtime_ns)),
        }
    }
    Ok(hex(&hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::HostExec;

    #[test]
    fn what_scripts_made_is_found_and_what_was_changed_since_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let sys = System::at(dir.path(), Box::new(HostExec::new(dir.path(), Default::default())));
        for path in ["etc/default/old", "etc/web/old", "var/lib/other/x", "var/lib/deep/a/b", "home/ann/x", "var/lib/dpkg/status"] {
            write(path, "");
        }
        write("proc/self/mountinfo", "1 0 8:1 / / rw - ext4 /dev/vda rw\n2 1 0:9 / /var/lib/other rw - nfs server:/x rw\n");
        let before = Paths::look(&sys).unwrap();
        assert!(before.lacked("/var/www") && before.lacked("/var/www/html") && !before.lacked("/var/lib"));
        assert!(!before.lacked("/var/lib/other/y"), "what is mounted is not looked at");
        assert!(!before.lacked("/var/lib/deep/a/c"), "so deep nobody looks");

        let list = "/.\n/etc\n/etc/web\n/etc/web/listed\n/var\n/var/lib\n/var/lib/web\n/home\n/usr/bin/web\n";
        write("var/lib/dpkg/info/web.list", list);
        let made = [
            "etc/web/listed",
            "etc/web/page",
            "etc/default/web",
            "var/lib/web/data/1",
            "var/www/html/index",
            "home/ann/new",
            "etc/rc2.d/S01web",
        ];
        made.iter().for_each(|path| write(path, "made"));
        let folders = ["/etc", "/etc/web", "/var", "/var/lib", "/var/lib/web", "/home"].map(str::to_owned).into();
        let found = before.since(&sys, &folders).unwrap();
        assert_eq!(found, ["/etc/default/web", "/etc/web/page", "/var/lib/web/data", "/var/www"]);

        let key = Key::new(Kind::File, "/var/www");
        let left = read(&sys, &key.name).unwrap();
        assert_eq!(is_as_left(&sys, &key, Some(&left)).unwrap(), Some(true));
        write("var/www/html/more", "somebody's");
        assert_eq!(is_as_left(&sys, &key, Some(&left)).unwrap(), Some(false));
        assert_eq!(is_as_left(&sys, &key, Some(&File::new("/var/www").read(&sys).unwrap())).unwrap(), None, "a state made it");
        assert!(read(&sys, "/var/gone").unwrap().is_empty());
    }
}
