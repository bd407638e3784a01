//! What packages leave beside themselves. Their scripts make users and groups, and `ucf` notes what it did: no package manager takes that back, so a run
//! writes it down as changes of its own (with what `brought` finds). When they go again, folders stay that something else was in then, and systemd remembers their units.

use std::collections::{BTreeMap, BTreeSet};

use super::brought::{self, Paths};
use crate::diagnostic::{Code, Result};
use crate::object;
use crate::plan::{Key, Kind};
use crate::secret::Mask;
use crate::system::{Command, Entry, FileKind, System};
use crate::value::{Attrs, gathered};

pub const UCF: &str = "/var/lib/ucf";
/// Where dpkg has the lists of what packages brought.
const INFO: &str = "/var/lib/dpkg/info";

/// What was there before packages change.
pub struct Aside {
    accounts: BTreeSet<Key>,
    files: BTreeMap<Key, Attrs>,
    paths: Paths,
    packages: Attrs,
}

fn accounts(sys: &System) -> Result<BTreeSet<Key>> {
    let users: Vec<Key> = sys.passwd()?.iter().map(|user| Key::new(Kind::User, &user.name)).collect();
    let groups: Vec<Key> = sys.groups()?.iter().map(|group| Key::new(Kind::Group, &group.name)).collect();
    Ok(gathered(users.into_iter().chain(groups)))
}

fn files(sys: &System) -> Result<Vec<Key>> {
    // Its backups have a dot in their names.
    Ok(sys.list(UCF)?.into_iter().filter(|name| !name.contains('.')).map(|name| Key::new(Kind::File, format!("{UCF}/{name}"))).collect())
}

impl Aside {
    /// Before packages change. What their scripts may change and is there can be restored from now on; `before` has what a run knows of that.
    pub fn look(sys: &System, packages: &Attrs, before: &mut BTreeMap<Key, Attrs>) -> Result<Aside> {
        let (mut all, mut entries) = (BTreeMap::new(), Vec::new());
        for key in files(sys)? {
            let object = object::of(&key)?;
            let attrs = object.read(sys)?;
            if !before.contains_key(&key) {
                object.keep(sys, &attrs, &Attrs::new())?;
                before.insert(key.clone(), attrs.clone());
                entries.push(image(&key, &attrs));
            }
            all.insert(key, attrs);
        }
        if !entries.is_empty() {
            sys.journal(&entries)?;
        }
        Ok(Aside { accounts: accounts(sys)?, files: all, paths: Paths::look(sys)?, packages: packages.clone() })
    }

    /// What is another since goes back with this run; `packages` is their key. What was brought, to be looked at again when the run ends.
    pub fn note(&self, sys: &System, packages: &Key, before: &mut BTreeMap<Key, Attrs>, mask: &Mask) -> Result<Vec<Key>> {
        let mut entries = Vec::new();
        let now = object::of(packages)?.read(sys)?;
        let folders = brought::folders(sys, &packages.name, &self.packages, &now)?;
        let mut brought = Vec::new();
        for path in self.paths.since(sys, &folders)? {
            let key = Key::new(Kind::File, path);
            // What a state manages has its image.
            if !before.contains_key(&key) {
                before.insert(key.clone(), Attrs::new());
                entries.push(image(&key, &Attrs::new()));
                entries.push(Entry::After { attrs: brought::read(sys, &key.name)?, key: key.clone(), secret: false });
                brought.push(key);
            }
        }
        for key in accounts(sys)?.difference(&self.accounts).chain(&files(sys)?).chain(self.files.keys()) {
            let mut attrs = object::of(key)?.read(sys)?;
            if self.files.get(key) == Some(&attrs) {
                continue;
            }
            if !before.contains_key(key) {
                before.insert(key.clone(), Attrs::new());
                entries.push(image(key, &Attrs::new()));
            }
            attrs.retain(|_, value| !mask.holds_in(value));
            entries.push(Entry::After { key: key.clone(), attrs, secret: false });
        }
        if !entries.is_empty() {
            sys.journal(&entries)?;
        }
        Ok(brought)
    }
}

fn image(key: &Key, attrs: &Attrs) -> Entry {
    Entry::Before { key: key.clone(), attrs: attrs.clone(), kept: None, secret: false, shown: None }
}

/// The folders of packages that go: those that are here now and were not before.
pub fn folders(sys: &System, now: &Attrs, before: &Attrs) -> Result<BTreeSet<String>> {
    let mut folders = BTreeSet::new();
    let going = now.keys().filter(|name| !name.starts_with('@') && !before.contains_key(*name));
    let going: BTreeSet<&str> = gathered(going.map(|name| name.split(':').next().unwrap_or(name)));
    for file in sys.list(INFO)? {
        let Some(package) = file.strip_suffix(".list") else { continue };
        if going.contains(package.split(':').next().unwrap_or(package)) {
            let text = sys.read(&format!("{INFO}/{file}"))?.unwrap_or_default();
            for path in String::from_utf8_lossy(&text).lines() {
                if sys.stat(path)?.is_some_and(|stat| stat.kind == FileKind::Directory) {
                    folders.insert(path.to_owned());
                }
            }
        }
    }
    Ok(folders)
}

/// Takes away those of these folders in which nothing is any more and that no other package has.
pub fn sweep(sys: &System, folders: &BTreeSet<String>) -> Result<()> {
    let mut owned: Option<BTreeSet<String>> = None;
    // From the leaves up.
    for path in folders.iter().rev() {
        if !sys.stat(path)?.is_some_and(|stat| stat.kind == FileKind::Directory) || !sys.list(path)?.is_empty() {
            continue;
        }
        if owned.is_none() {
            let mut all = BTreeSet::new();
            for file in sys.list(INFO)?.iter().filter(|file| file.ends_with(".list")) {
                let text = sys.read(&format!("{INFO}/{file}"))?.unwrap_or_default();
                all.extend(String::from_utf8_lossy(&text).lines().filter(|line| folders.contains(*line)).map(str::to_owned));
            }
            owned = Some(all);
        }
        if !owned.as_ref().is_some_and(|owned| owned.contains(path)) {
            match sys.remove_dir(path) {
                Err(error) if error.code == Code::Interrupted => return Err(error),
                // What holds it will not let it go; that is no reason to stop here.
                _ => {}
            }
        }
    }
    Ok(())
}

/// systemd remembers units that had failed also when their packages have gone.
pub fn forget_units(sys: &System) -> Result<()> {
    if sys.stat("/run/systemd/system")?.is_none() {
        return Ok(());
    }
    let failed = sys.run(&Command::new(["systemctl", "list-units", "--state=failed", "--plain", "--no-legend", "--no-pager"]))?.text();
    let gone = failed.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let unit = words.next()?;
        (words.next() == Some("not-found")).then(|| unit.to_owned())
    });
    let gone: Vec<String> = gone.collect();
    if !gone.is_empty() {
        sys.run(&Command::new(["systemctl", "reset-failed", "--"].map(str::to_owned).into_iter().chain(gone)))?;
    }
    Ok(())
}
