//! The roster: which hosts there are and how each is reached. Salt's own format, read as it is.

use std::fmt;
use std::time::Duration;

use crate::diagnostic::Span;
use crate::value::Map;

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// One host of the roster.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// The minion id: what targets and top files speak of.
    pub id: String,
    /// A name or an address that ssh understands, or `local` for this machine without ssh.
    pub address: String,
    pub user: Option<String>,
    pub port: Option<u16>,
    /// `passwd`.
    pub password: Option<Secret>,
    /// `priv`: a key file.
    pub key: Option<String>,
    pub key_password: Option<Secret>,
    pub sudo: bool,
    pub sudo_user: Option<String>,
    /// How long a connection may take to come about.
    pub timeout: Duration,
    /// As ssh's `-o` takes them.
    pub ssh_options: Vec<String>,
    pub minion_opts: Map,
    /// The agent works below this directory of the host (an extension of Salt's format).
    pub root: Option<String>,
    pub span: Option<Span>,
}

impl Host {
    pub const LOCAL: &'static str = "local";
    pub const TIMEOUT: Duration = Duration::from_secs(10);

    pub fn new(id: impl Into<String>, address: impl Into<String>) -> Host {
        Host {
            id: id.into(),
            address: address.into(),
            user: None,
            port: None,
            password: None,
            key: None,
            key_password: None,
            sudo: false,
            sudo_user: None,
            timeout: Host::TIMEOUT,
            ssh_options: Vec::new(),
            minion_opts: Map::new(),
            root: None,
            span: None,
        }
    }

    pub fn is_local(&self) -> bool {
        self.address == Host::LOCAL
    }
}

/// All hosts, in the order in which they stand, and what is to be said about them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Roster {
    pub hosts: Vec<Host>,
}
