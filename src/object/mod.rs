//! The things a host can have, one file per kind: how to read one, and how to get it from one state to another.
//!
//! About thirty kinds carry the hundred and more state functions, which only say what they want of them. So every function of a
//! family shares one honest reader, one setter and one way back.
//!
//! **The law**, held by one table for every kind (`tests/law.rs`): `set(to)` then `read` gives `to`; `set(back)` then `read` gives
//! `from`; a fault at any mutation leaves what `set(now, before)` can take back.

mod accounts;
pub mod blockdev;
pub mod btrfs;
pub mod crontab;
pub mod debconf;
pub mod file;
pub mod git;
pub mod group;
pub mod iptables;
pub mod locale;
pub mod lvm;
pub mod module;
pub mod mount;
pub mod packages;
pub mod pip;
pub mod postgres;
pub mod service;
pub mod swap;
pub mod sysctl;
pub mod unified;
pub mod user;

use crate::diagnostic::{Code, Diagnostic, Result};
use crate::plan::{Key, Kind};
use crate::system::System;
use crate::value::Attrs;

/// How an object is made from the name in its key.
type Make = fn(&str) -> Box<dyn Object>;

/// All kinds, one line each.
#[rustfmt::skip]
static OBJECTS: &[(Kind, Make)] = &[
    (Kind::File, |path| Box::new(file::File::new(path))),
    (Kind::Blockdev, |device| Box::new(blockdev::Blockdev::new(device))),
    (Kind::Crontab, |user| Box::new(crontab::Crontab::new(user))),
    (Kind::Debconf, |question| Box::new(debconf::Debconf::new(question))),
    (Kind::Git, |path| Box::new(git::Git::new(path))),
    (Kind::Group, |name| Box::new(group::Group::new(name))),
    (Kind::Iptables, |table| Box::new(iptables::Iptables::new(table))),
    (Kind::Locale, |name| Box::new(locale::Locale::new(name))),
    (Kind::Lvm, |name| Box::new(lvm::Lvm::new(name))),
    (Kind::Module, |name| Box::new(module::Module::new(name))),
    (Kind::Mount, |path| Box::new(mount::Mount::new(path))),
    (Kind::Packages, |manager| Box::new(packages::Packages::new(manager))),
    (Kind::Pip, |program| Box::new(pip::Pip::new(program))),
    (Kind::PostgresDatabase, |name| Box::new(postgres::database::Database::new(name))),
    (Kind::PostgresRole, |name| Box::new(postgres::role::Role::new(name))),
    (Kind::Btrfs, |path| Box::new(btrfs::Filesystem::new(path))),
    (Kind::Service, |unit| Box::new(service::Service::new(unit))),
    (Kind::Sysctl, |name| Box::new(sysctl::Sysctl::new(name))),
    (Kind::Subvolume, |name| Box::new(btrfs::Subvolume::new(name))),
    (Kind::Swap, |device| Box::new(swap::Swap::new(device))),
    (Kind::User, |name| Box::new(user::User::new(name))),
];

/// The object of this key.
pub fn of(key: &Key) -> Result<Box<dyn Object>> {
    match OBJECTS.iter().find(|(kind, _)| *kind == key.kind) {
        Some((_, make)) => Ok(make(&key.name)),
        None => Err(Diagnostic::new(Code::Internal, format!("this agent knows no objects of the kind {}", key.kind.name())).into()),
    }
}

/// What on a host tells that an object may have changed. Whoever is told reads it and compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Whatever stands at a path, also where nothing does yet.
    Path(String),
    /// A directory and everything below it.
    Tree(String),
    /// A unit of systemd, by its name, starts or stops.
    Unit(String),
    /// A file of `/proc` that can be waited for.
    Kernel(&'static str),
}

impl Sign {
    /// A sign for each of these paths.
    pub fn paths<P: Into<String>>(paths: impl IntoIterator<Item = P>) -> Vec<Sign> {
        paths.into_iter().map(|path| Sign::Path(path.into())).collect()
    }
}

/// A thing a host can have, whatever declares it: a file, the set of packages, a unit, a user, a crontab. Runs on the host.
///
/// Attributes name users, groups and packages, never numbers. `read` may give more attributes than functions want (order in a file,
/// extended attributes …): they are what `set(now, before)` needs to restore the thing exactly.
pub trait Object: Send + Sync {
    /// Identity: what journal, projection, pruning and guard know it by.
    fn key(&self) -> Key;

    /// What is there. Absent is an answer (no attributes), not an error.
    ///
    /// `Code::Unreachable` where what it is a part of does not answer (a database's server): what is there is known once it does.
    fn read(&self, sys: &System) -> Result<Attrs>;

    /// What tells that it may have changed since it was read: together they cover all that `read` looks at, but for what only serves to
    /// restore it. None: nothing does, and a timer has to look.
    fn signs(&self, _sys: &System) -> Result<Vec<Sign>> {
        Ok(Vec::new())
    }

    /// Whether what it is a part of is not on the host at all, so that nothing of it will be there in the one that comes.
    fn comes_new(&self, _sys: &System) -> bool {
        false
    }

    /// What `to` comes to on this host, side effects included: exact versions, what is pulled in and what goes with it. An error is a
    /// state that would fail. `touched` tells whether an earlier step changes a file below a directory. By default `to` itself.
    fn resolve(&self, _sys: &System, _from: &Attrs, to: &Attrs, _touched: &dyn Fn(&str) -> bool) -> Result<Attrs> {
        Ok(to.clone())
    }

    /// Waits until what a run that was killed had started on it (a package manager goes on without its agent) has come to its end.
    /// Called before a rollback looks at it.
    fn settle(&self, _sys: &System) -> Result<()> {
        Ok(())
    }

    /// Takes away what a `set` that was killed left half written beside the thing.
    fn sweep(&self, _sys: &System) -> Result<()> {
        Ok(())
    }

    /// Makes sure that `set(_, from)` will be possible later: puts what `from` only names (contents by hash, package files) into
    /// the run's keep. Called, and synced, before the first change of this key in a run. Changes nothing else.
    fn keep(&self, _sys: &System, _from: &Attrs, _to: &Attrs) -> Result<()> {
        Ok(())
    }

    /// Goes from `from` (what `read` gave just now) to `to`: only the attributes named in `to` are wanted, an empty `to` means
    /// absent. Says what was reached, side effects included. Rollback is `set(now, before)`, with `before` as `read` gave it.
    fn set(&self, sys: &System, from: &Attrs, to: &Attrs, progress: &mut Progress) -> Result<Attrs>;

    /// Why this change cannot be undone; printed in the plan. None: it can.
    fn one_way(&self, _sys: &System, _from: &Attrs, _to: &Attrs) -> Option<String> {
        None
    }

    /// Why this change would destroy data that people may have put there since (a subvolume that goes with what is in it). A rollback
    /// leaves such a thing as it is, and says so, unless it is told `--destroy-data`. None: it destroys nothing.
    fn destroys(&self, _sys: &System, _from: &Attrs, _to: &Attrs) -> Option<String> {
        None
    }

    /// For people: how the change looks. Attributes that hold secrets are masked here. The default is one line per attribute
    /// that differs (`mode: 0644 → 0600`).
    fn describe(&self, sys: &System, from: &Attrs, to: &Attrs) -> String {
        let _ = sys;
        describe_attributes(from, to)
    }
}

/// Where a setter tells what it is doing: lines of output, as they come.
pub struct Progress<'a> {
    line: &'a mut dyn FnMut(&str),
}

impl<'a> Progress<'a> {
    pub fn new(line: &'a mut dyn FnMut(&str)) -> Progress<'a> {
        Progress { line }
    }

    pub fn say(&mut self, line: &str) {
        (self.line)(line);
    }
}

/// One line per attribute of `to` that differs from `from`.
pub fn describe_attributes(from: &Attrs, to: &Attrs) -> String {
    let mut out = String::new();
    for (name, wanted) in to {
        match from.get(name) {
            Some(there) if there == wanted => {}
            Some(there) => out.push_str(&format!("{name}: {there} → {wanted}\n")),
            None => out.push_str(&format!("{name}: {wanted}\n")),
        }
    }
    out
}
