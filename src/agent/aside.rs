//! What maintainer scripts do beside what their packages say: users and groups that they make, and what `ucf` notes. No package manager takes
//! it back, so a run writes it down as changes of its own.

use std::collections::{BTreeMap, BTreeSet};

use crate::diagnostic::Result;
use crate::object;
use crate::plan::{Key, Kind};
use crate::system::System;
use crate::value::{Attrs, gathered};

pub const UCF: &str = "/var/lib/ucf";

/// What was there before packages change.
pub struct Aside {
    accounts: BTreeSet<Key>,
    files: BTreeMap<Key, Attrs>,
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
    pub fn look(sys: &System) -> Result<Aside> {
        let mut all = BTreeMap::new();
        for key in files(sys)? {
            let attrs = object::of(&key)?.read(sys)?;
            all.insert(key, attrs);
        }
        Ok(Aside { accounts: accounts(sys)?, files: all })
    }

    /// What may change and is there: its way back must be known beforehand.
    pub fn there(&self) -> impl Iterator<Item = (&Key, &Attrs)> {
        self.files.iter()
    }

    /// What is another now, and what it is.
    pub fn changed(&self, sys: &System) -> Result<Vec<(Key, Attrs)>> {
        let mut changed = Vec::new();
        for key in accounts(sys)?.difference(&self.accounts).chain(&files(sys)?) {
            let now = object::of(key)?.read(sys)?;
            if self.files.get(key) != Some(&now) {
                changed.push((key.clone(), now));
            }
        }
        for key in self.files.keys().filter(|key| matches!(sys.stat(&key.name), Ok(None))) {
            changed.push((key.clone(), Attrs::new()));
        }
        Ok(changed)
    }
}
