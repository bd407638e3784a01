//! What a machine that joins and its controller say to each other. Everything that comes from the other side is checked here before anything is made of it:
//! names become files and words of commands, keys become lines of files.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::device::Device;
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::fleet::role::{Resources, Role};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum Ask {
    /// May I join? Without a token somebody at the controller has to say yes.
    Register { token: Option<String>, registration: Box<Registration> },
    /// Has somebody said yes?
    Poll { ticket: String },
    /// The controller's key is installed: come.
    Ready { ticket: String },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case", deny_unknown_fields)]
pub enum Reply {
    /// Install this key for root, and say when it is there.
    Welcome {
        ticket: String,
        key: String,
        cluster: String,
    },
    /// Nobody has said yes yet.
    Pending {
        ticket: String,
    },
    Joined {
        id: String,
        role: String,
        commit: String,
    },
    /// It did not work, and what was begun is taken back.
    Failed {
        why: String,
    },
    Refused {
        why: String,
    },
}

/// What a machine says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// The minion id that it would like.
    pub id: String,
    /// Where ssh reaches it; left out, where it speaks from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preferred_role: Option<String>,
    pub cpu_cores: u64,
    pub memory_gb: u64,
    pub storage_gb: u64,
    /// The public keys of its sshd: `ssh-ed25519 AAAA…`.
    pub host_keys: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
}

impl Registration {
    pub fn resources(&self) -> Resources {
        Resources { cpu_cores: self.cpu_cores, memory_gb: self.memory_gb, storage_gb: self.storage_gb }
    }

    pub fn preferred(&self) -> Result<Option<Role>> {
        let role = self.preferred_role.as_deref().map(str::parse).transpose();
        role.map_err(|why| Diagnostic::new(Code::Usage, why).into())
    }

    /// Whether all of it may be used as what it says it is.
    pub fn check(&self) -> Result<()> {
        let fault = |what: String| Err(Diagnostic::new(Code::Usage, what).into());
        if !is_name(&self.id) {
            return fault(format!("{:?} cannot be the name of a node: letters, digits, dots and dashes, no more than 64", self.id));
        }
        if let Some(address) = self.address.as_deref().filter(|address| address.parse::<IpAddr>().is_err() && !is_name(address)) {
            return fault(format!("{address:?} is no address"));
        }
        self.preferred()?;
        if self.host_keys.is_empty() {
            return fault("it has no ssh host key: is sshd installed there?".to_owned());
        }
        if let Some(key) = self.host_keys.iter().find(|key| !is_key(key)) {
            return fault(format!("{key:?} is no public key of an ssh host"));
        }
        if self.host_keys.len() > 16 || self.devices.len() > 512 {
            return fault("it says too much of itself".to_owned());
        }
        Ok(())
    }
}

/// A host name, which can also be a minion id, a file's name and an argument.
pub fn is_name(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.' || c == '_';
    !text.is_empty() && text.len() <= 64 && !text.starts_with(['-', '.']) && !text.contains("..") && text.chars().all(legal)
}

/// `ssh-ed25519 AAAA…`, without options and without a comment.
pub fn is_key(text: &str) -> bool {
    let word = |text: &str, more: &str| {
        !text.is_empty() && text.len() <= 4096 && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    text.split_once(' ').is_some_and(|(kind, key)| word(kind, "-@.") && word(key, "+/="))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registration() -> Registration {
        Registration {
            id: "store1".into(),
            address: None,
            port: None,
            preferred_role: Some("data".into()),
            cpu_cores: 4,
            memory_gb: 8,
            storage_gb: 100,
            host_keys: vec!["ssh-ed25519 AAAAC3Nza+/=".into()],
            devices: Vec::new(),
        }
    }

    #[test]
    fn what_cannot_be_a_name_an_address_or_a_key_is_refused() {
        registration().check().unwrap();
        for id in ["", "-oProxyCommand=x", "../x", "a/b", "a b", "a\nb", "a:b", ".x", &"a".repeat(65)] {
            assert!(Registration { id: id.into(), ..registration() }.check().is_err(), "{id:?}");
        }
        for address in ["-x", "a b", "1.2.3.4 ", "a;b", ""] {
            assert!(Registration { address: Some(address.into()), ..registration() }.check().is_err(), "{address:?}");
        }
        for key in ["", "ssh-ed25519", "ssh-ed25519 AAAA\nother ssh-rsa AAAA", "cert-authority ssh-rsa AAAA", "ssh-rsa AA AA"] {
            assert!(Registration { host_keys: vec![key.into()], ..registration() }.check().is_err(), "{key:?}");
        }
        assert!(Registration { host_keys: Vec::new(), ..registration() }.check().is_err());
        assert!(Registration { preferred_role: Some("dat".into()), ..registration() }.check().unwrap_err().summary.contains("data"));
        for address in ["192.0.2.1", "2001:db8::1", "node.example.org"] {
            Registration { address: Some(address.into()), ..registration() }.check().unwrap();
        }
    }

    #[test]
    fn an_unknown_field_is_not_passed_over() {
        let mut said = serde_json::to_value(registration()).unwrap();
        said["sudoers"] = "ALL".into();
        assert!(serde_json::from_value::<Registration>(said).is_err());
    }
}
