//! The state functions: what a state of an SLS wants of the host, and nothing else. One file per state module.
//!
//! A function is pure: it knows no host, reads what is there from the `Projection` and says what is wanted. The planner compares,
//! the objects act. The table `FUNCTIONS` is also what `lang`, `lint` and `doc` know of functions: names and arguments.

pub mod alias;
pub mod alternatives;
pub mod archive;
pub mod args;
pub mod basalt;
pub mod base64;
pub mod blockdev;
pub mod btrfs;
pub mod cmd;
pub mod cron;
mod crypt;
pub mod debconf;
mod edit;
pub mod event;
pub mod file;
pub mod git;
pub mod grains;
pub mod group;
pub mod host;
pub mod ini;
pub mod iptables;
pub mod kmod;
pub mod locale;
pub mod lvm;
pub mod module;
pub mod mount;
pub mod nfs_export;
pub mod pip;
pub mod pkg;
pub mod pkgrepo;
pub mod postgres;
#[cfg(feature = "controller")]
pub mod reference;
#[cfg(test)]
mod salt;
pub mod service;
pub mod ssh_auth;
pub mod ssh_known_hosts;
pub mod sysctl;
pub mod test;
#[cfg(test)]
mod testing;
pub mod timezone;
pub mod user;
mod verifier;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use crate::diagnostic::Result;
use crate::plan::{Hash, Key, Kind, Low};
use crate::system::Command;
use crate::value::Attrs;

/// All state functions, module by module. One line each.
#[rustfmt::skip]
pub static FUNCTIONS: &[&[Entry]] = &[
    alias::FUNCTIONS,
    alternatives::FUNCTIONS,
    archive::FUNCTIONS,
    basalt::FUNCTIONS,
    blockdev::FUNCTIONS,
    btrfs::FUNCTIONS,
    cmd::FUNCTIONS,
    cron::FUNCTIONS,
    debconf::FUNCTIONS,
    event::FUNCTIONS,
    file::FUNCTIONS,
    git::FUNCTIONS,
    grains::FUNCTIONS,
    group::FUNCTIONS,
    host::FUNCTIONS,
    ini::FUNCTIONS,
    iptables::FUNCTIONS,
    kmod::FUNCTIONS,
    locale::FUNCTIONS,
    lvm::FUNCTIONS,
    module::FUNCTIONS,
    mount::FUNCTIONS,
    nfs_export::FUNCTIONS,
    pip::FUNCTIONS,
    pip::VIRTUALENV,
    pkg::FUNCTIONS,
    pkgrepo::FUNCTIONS,
    postgres::FUNCTIONS,
    service::FUNCTIONS,
    ssh_auth::FUNCTIONS,
    ssh_known_hosts::FUNCTIONS,
    sysctl::FUNCTIONS,
    test::FUNCTIONS,
    timezone::FUNCTIONS,
    user::FUNCTIONS,
];

/// All state functions.
pub fn entries() -> impl Iterator<Item = &'static Entry> {
    FUNCTIONS.iter().flat_map(|module| module.iter())
}

/// The state function of this name (`file.managed`).
pub fn find(name: &str) -> Option<&'static Entry> {
    static BY_NAME: LazyLock<HashMap<&'static str, &'static Entry>> = LazyLock::new(|| entries().map(|e| (e.name, e)).collect());
    BY_NAME.get(name).copied()
}

/// A state function (file.managed, pkg.installed …): from its arguments and what is there to what is wanted. Pure; knows no host.
pub trait Function: Send + Sync {
    /// The objects it speaks of, asked again until no key is new (`clean: True` and the like find theirs as they look).
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>>;

    /// What is wanted, seen from what is there. An error here is a state that would fail: its summary is the comment.
    fn want(&self, there: &dyn There) -> Result<Want>;

    /// Which of the things that its objects hold side by side it speaks of (packages, jobs of a crontab): those are not pruned.
    fn parts(&self) -> Vec<String> {
        Vec::new()
    }

    /// Something it watches changes: planned like any other change (restart, reload, run). None: it does not care.
    fn react(&self, _there: &dyn There, _cause: &str) -> Result<Option<Want>> {
        Ok(None)
    }
}

/// What is on the host when a state's turn comes: what was read, with every earlier planned change laid over it.
pub trait There {
    /// Attributes of an object; empty where it is absent. Only keys that `objects` named are known, others are empty.
    fn get(&self, key: &Key) -> Attrs;

    /// What is directly in a directory, by name: kind, mode, user and group of each, as one look tells (no contents; `get` has those).
    /// Earlier planned changes count. Empty where there is no such directory.
    fn list(&self, directory: &str) -> Result<BTreeMap<String, Attrs>>;

    /// The states that this one requires (`clean: True` keeps what they manage).
    fn required(&self) -> Vec<&Low>;

    /// The bytes behind a hash, whoever has them (host file, controller, an earlier want). Fails with `Code::HostNeeded` while they
    /// are under way: the planner fetches and asks again.
    fn bytes(&self, hash: &Hash) -> Result<Arc<[u8]>>;

    /// Makes bytes known (a file's new contents) and gives their hash.
    fn put(&self, bytes: Vec<u8>) -> Hash;

    /// The key of the host's packages: the manager's name is in it.
    fn packages(&self) -> Key {
        Key::new(Kind::Packages, "apt")
    }

    /// Whether an earlier step of this plan installs packages, with files that nobody knows yet.
    fn packages_come(&self) -> bool {
        false
    }

    /// Whether some earlier step of this plan runs commands or is unknown, so that what is there may yet change unseen.
    fn uncertain(&self) -> bool;
}

/// What a function wants of the host.
#[derive(Clone, Debug, PartialEq)]
pub enum Want {
    /// These objects with these attributes; attributes that are not named stay as they are; no attributes: absent.
    Is(Vec<(Key, Attrs)>),
    /// Something happens that is no state: a command, a restart.
    Run(Run),
    /// Both, in this order (a running service that is to be restarted gets its attributes first).
    Then(Vec<(Key, Attrs)>, Run),
    /// Only an earlier change can tell: known after apply.
    Unknown(String),
    /// Nothing; the comment says why (as Salt would: "pattern not found", "watches, nothing changed").
    Nothing(String),
}

/// A command that a state runs, and what is honest to say about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    pub command: Command,
    /// As the plan prints it, in the user's words; secrets never in it.
    pub shown: String,
    /// Exit codes that are a success besides 0.
    pub success: Vec<i32>,
    /// Why it cannot be taken back. None for what leaves nothing behind (a restart).
    pub one_way: Option<String>,
    /// Run again at the end of a rollback, because what it made effective has changed back (restart, reload, daemon-reload).
    pub again: bool,
    /// A command that takes it back (`undo:`, an extension of ours).
    pub undo: Option<Command>,
    /// Salt's `stateful`: the last line of the output says whether something changed.
    pub stateful: bool,
    /// Do not print the output (`hide_output`).
    pub quiet: bool,
    /// `bg: True`: started and not waited for.
    pub background: bool,
    /// `ignore_timeout`: ended for taking too long counts as a success.
    pub timeout_is_fine: bool,
    /// A script: written to a private temporary file whose path becomes the last argument, and removed afterwards.
    pub script: Option<Hash>,
    /// No command at all but a pretended change (test.*), and whether it succeeds; `shown` is what it says.
    pub pretended: Option<bool>,
}

impl Run {
    /// A command that leaves nothing behind, waited for, its output shown.
    pub fn new(command: Command, shown: impl Into<String>) -> Run {
        Run {
            command,
            shown: shown.into(),
            success: Vec::new(),
            one_way: None,
            again: false,
            undo: None,
            stateful: false,
            quiet: false,
            background: false,
            timeout_is_fine: false,
            script: None,
            pretended: None,
        }
    }
}

/// One state function as the table knows it.
pub struct Entry {
    /// `file.managed`.
    pub name: &'static str,
    /// First line: what it makes true. It is the reference's text.
    pub doc: &'static str,
    pub args: &'static [Arg],
    /// Whether a `watch` makes it react (Salt's `mod_watch`); without, `watch` is `require`.
    pub watches: bool,
    pub parse: fn(&Low) -> Result<Box<dyn Function>>,
}

/// One argument of a state function.
#[derive(Clone, Copy)]
pub struct Arg {
    pub name: &'static str,
    pub kind: ArgKind,
    /// As a user would write it; empty: none. Only `basalt doc` reads it and the text; the agent is smaller without them.
    #[cfg(feature = "controller")]
    pub default: &'static str,
    #[cfg(feature = "controller")]
    pub doc: &'static str,
}

impl Arg {
    pub const fn new(name: &'static str, kind: ArgKind, default: &'static str, doc: &'static str) -> Arg {
        let _ = (default, doc);
        Arg {
            name,
            kind,
            #[cfg(feature = "controller")]
            default,
            #[cfg(feature = "controller")]
            doc,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgKind {
    Str,
    Bool,
    Int,
    /// A mode: `'0644'`, `keep`.
    Mode,
    List,
    Map,
    /// A string or a list of strings.
    Strs,
    Any,
}
