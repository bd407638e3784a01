//! Users and groups by name and by number, from the root's own `passwd` and `group`; others (LDAP, sssd) are asked of `getent` where
//! the root is the machine itself. A static binary has no NSS of its own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Command, Stat, System};
use crate::diagnostic::Result;

/// A line of `/etc/passwd`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub password: String,
    pub uid: u32,
    pub gid: u32,
    pub gecos: String,
    pub home: String,
    pub shell: String,
}

/// A line of `/etc/group`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    pub password: String,
    pub gid: u32,
    pub members: Vec<String>,
}

/// Both files as they were when they were last read, and what `getent` said since.
#[derive(Default)]
pub(super) struct Identities {
    users: RefCell<Cached<User>>,
    groups: RefCell<Cached<Group>>,
}

struct Cached<T> {
    seen: Option<Stat>,
    entries: Arc<Vec<T>>,
    asked: BTreeMap<String, Option<T>>,
}

impl<T> Default for Cached<T> {
    fn default() -> Cached<T> {
        Cached { seen: None, entries: Arc::default(), asked: BTreeMap::new() }
    }
}

impl System {
    /// The entries of `/etc/passwd`, in their order. Lines that are none are passed over.
    pub fn passwd(&self) -> Result<Arc<Vec<User>>> {
        self.entries(&self.identities.users, "/etc/passwd", user)
    }

    /// The entries of `/etc/group`, in their order.
    pub fn groups(&self) -> Result<Arc<Vec<Group>>> {
        self.entries(&self.identities.groups, "/etc/group", group)
    }

    /// A user by name, wherever users come from on this host.
    pub fn user(&self, name: &str) -> Result<Option<User>> {
        let here = self.passwd()?.iter().find(|u| u.name == name).cloned();
        if here.is_some() { Ok(here) } else { self.getent(&self.identities.users, "passwd", name, user) }
    }

    pub fn group(&self, name: &str) -> Result<Option<Group>> {
        let here = self.groups()?.iter().find(|g| g.name == name).cloned();
        if here.is_some() { Ok(here) } else { self.getent(&self.identities.groups, "group", name, group) }
    }

    pub fn uid(&self, name: &str) -> Result<Option<u32>> {
        Ok(self.user(name)?.map(|u| u.uid))
    }

    pub fn gid(&self, name: &str) -> Result<Option<u32>> {
        Ok(self.group(name)?.map(|g| g.gid))
    }

    /// The name of a user; the number as text where it has none.
    pub fn user_name(&self, uid: u32) -> String {
        let here = self.passwd().ok().and_then(|users| users.iter().find(|u| u.uid == uid).cloned());
        let number = uid.to_string();
        here.or_else(|| self.getent(&self.identities.users, "passwd", &number, user).ok()?).map_or(number, |u| u.name)
    }

    pub fn group_name(&self, gid: u32) -> String {
        let here = self.groups().ok().and_then(|groups| groups.iter().find(|g| g.gid == gid).cloned());
        let number = gid.to_string();
        here.or_else(|| self.getent(&self.identities.groups, "group", &number, group).ok()?).map_or(number, |g| g.name)
    }

    /// The groups a login of this user would have besides its own: those that list it.
    pub fn supplementary(&self, user: &str) -> Result<Vec<u32>> {
        let member = |g: &&Group| g.members.iter().any(|m| m == user);
        Ok(self.groups()?.iter().filter(member).map(|g| g.gid).collect())
    }

    fn entries<T>(&self, cache: &RefCell<Cached<T>>, path: &str, parse: fn(&str) -> Option<T>) -> Result<Arc<Vec<T>>> {
        let seen = self.stat(path)?;
        let mut cache = cache.borrow_mut();
        if cache.seen != seen || seen.is_none() {
            let text = self.read(path)?.unwrap_or_default();
            *cache = Cached {
                seen,
                entries: Arc::new(String::from_utf8_lossy(&text).lines().filter_map(parse).collect()),
                asked: BTreeMap::new(),
            };
        }
        Ok(cache.entries.clone())
    }

    fn getent<T: Clone>(&self, cache: &RefCell<Cached<T>>, database: &str, what: &str, parse: fn(&str) -> Option<T>) -> Result<Option<T>> {
        if self.root() != std::path::Path::new("/") || what.is_empty() || what.starts_with('-') {
            return Ok(None);
        }
        if let Some(answer) = cache.borrow().asked.get(what) {
            return Ok(answer.clone());
        }
        // A host without getent has no other users either.
        let answer = self.run(&Command::new(["getent", database, what])).ok().filter(|o| o.success()).and_then(|o| parse(&o.text()));
        cache.borrow_mut().asked.insert(what.to_owned(), answer.clone());
        Ok(answer)
    }
}

fn user(line: &str) -> Option<User> {
    let mut parts = line.split(':').map(str::to_owned);
    let mut next = || parts.next();
    Some(User {
        name: next().filter(|n| !n.is_empty())?,
        password: next()?,
        uid: next()?.parse().ok()?,
        gid: next()?.parse().ok()?,
        gecos: next()?,
        home: next()?,
        shell: next()?,
    })
}

fn group(line: &str) -> Option<Group> {
    let mut parts = line.split(':').map(str::to_owned);
    let mut next = || parts.next();
    Some(Group {
        name: next().filter(|n| !n.is_empty())?,
        password: next()?,
        gid: next()?.parse().ok()?,
        members: next()?.split(',').filter(|m| !m.is_empty()).map(str::to_owned).collect(),
    })
}
