//! The ways to a host: the user's own OpenSSH, or a process on this machine. Both start the agent with `push` and hand back a `Link`.

pub mod askpass;
pub mod local;
pub mod push;
pub mod ssh;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::agent::protocol::SILENCE;
use crate::engine::link::{Connect, Opening};
use crate::fleet::{Host, Secret};

use local::Local;
pub use push::{Agent, Agents};
use ssh::Ssh;

/// What the user typed for `--ask-pass` and `--ask-sudo-pass`. A host's own `passwd` comes before the first; sudo gets the password of
/// the login where the second is not there.
#[derive(Clone, Debug, Default)]
pub struct Passwords {
    pub ssh: Option<Secret>,
    pub sudo: Option<Secret>,
}

/// What holds for all hosts of a command.
#[derive(Clone, Debug)]
pub struct Settings {
    pub agents: Agents,
    pub passwords: Passwords,
    /// How long a connection may take to come about, for hosts whose roster entry does not say.
    pub connect_timeout: Duration,
    /// How long a host may say nothing.
    pub silence: Duration,
    /// The key with which nodes that joined by themselves are reached, if it is there.
    pub identity: Option<PathBuf>,
}

impl Settings {
    pub fn new(agents: Agents) -> Settings {
        Settings { agents, passwords: Passwords::default(), connect_timeout: Duration::from_secs(10), silence: SILENCE, identity: None }
    }

    fn password_of<'a>(&'a self, host: &'a Host) -> Option<&'a Secret> {
        host.password.as_ref().or(self.passwords.ssh.as_ref())
    }

    fn sudo_password_of<'a>(&'a self, host: &'a Host) -> Option<&'a Secret> {
        self.passwords.sudo.as_ref().or_else(|| self.password_of(host))
    }

    fn identity_of(&self, host: &Host) -> Option<&Path> {
        self.identity.as_deref().filter(|_| !host.host_keys.is_empty())
    }

    fn timeout_of(&self, host: &Host) -> Duration {
        host.timeout.unwrap_or(self.connect_timeout)
    }
}

/// Every host of a roster, each by its own way.
pub struct Remote {
    local: Local,
    ssh: Ssh,
}

impl Remote {
    pub fn new(passwords: Passwords, connect_timeout: Option<Duration>, identity: Option<PathBuf>) -> Remote {
        let mut settings = Settings { passwords, identity, ..Settings::new(Agents::carried()) };
        settings.connect_timeout = connect_timeout.unwrap_or(settings.connect_timeout);
        Remote { local: Local(settings.clone()), ssh: Ssh::new(settings) }
    }
}

impl Connect for Remote {
    fn open<'a>(&'a self, host: &'a Host) -> Opening<'a> {
        if host.is_local() { self.local.open(host) } else { self.ssh.open(host) }
    }

    fn open_anew<'a>(&'a self, host: &'a Host) -> Opening<'a> {
        if host.is_local() { self.local.open_anew(host) } else { self.ssh.open_anew(host) }
    }
}
