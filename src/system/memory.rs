//! What basalt made on this host, for `--prune`: names of things and never what is in them, by the state repository that described them.
//!
//! It is part of the journal: every run begins with what was known then, as with what is owed, and notes what it makes beside what it
//! reached. So it is as safe as the journal is, and a rollback knows what was remembered before a run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Entry;
use crate::plan::Key;

/// Something that basalt made on this host, or changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Made {
    pub key: Key,
    /// One of the things that the object holds: a package, a job of a crontab, whether a unit is `enabled`. `None`: the object itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// The state repository, by what is the same in all its clones.
    pub origin: String,
    pub run: String,
    pub sls: String,
    /// What was made later has a higher number.
    pub order: u64,
    /// It was there before; it is never pruned.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub changed: bool,
    /// It came with what was asked for, as a package that another needs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub along: bool,
    /// A digest of what it was like when a run last touched it; empty for parts.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub left: String,
}

/// All that was made, by key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    things: BTreeMap<Key, Vec<Made>>,
    next: u64,
}

impl Memory {
    /// Lays an entry of a journal over it.
    pub fn lay(&mut self, entry: &Entry) {
        let Entry::Made { key, things } = entry else { return };
        match key {
            Some(key) => drop(self.things.remove(key)),
            None => self.things.clear(),
        }
        for thing in things {
            self.next = self.next.max(thing.order.saturating_add(1));
            self.things.entry(thing.key.clone()).or_default().push(thing.clone());
        }
    }

    pub fn of(&self, key: &Key) -> &[Made] {
        self.things.get(key).map(Vec::as_slice).unwrap_or_default()
    }

    pub fn all(&self) -> impl Iterator<Item = &Made> {
        self.things.values().flatten()
    }

    /// The number of what is made next.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// What the next run begins with; `None`: nothing is known.
    pub fn entry(&self) -> Option<Entry> {
        (!self.things.is_empty()).then(|| Entry::Made { key: None, things: self.all().cloned().collect() })
    }
}
