//! The roster: which hosts there are and how each is reached. Salt's own format, read as it is.
//!
//! ```yaml
//! web1:                     # the minion id
//!   host: 192.0.2.1
//!   user: deploy
//!   sudo: True
//! web2: 192.0.2.2           # the short form
//! here: local               # this machine itself, without ssh
//! ```
//!
//! An extension of ours: `root: DIR` makes the agent work below that directory of the host (demos, images).

use std::fmt;
use std::time::Duration;

use crate::diagnostic::{Code, Diagnostic, Result, Span, nearest};
use crate::value::{Map, Value};
use crate::yaml::{self, Data, Node, Place};

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
    pub timeout: Option<Duration>,
    /// As ssh's `-o` takes them.
    pub ssh_options: Vec<String>,
    pub minion_opts: Map,
    /// What it tells other hosts by way of the mine, as Salt writes it.
    pub mine_functions: Option<Value>,
    /// The keys of its sshd, where nobody else knows them: no known_hosts is asked then.
    pub host_keys: Vec<String>,
    /// The agent works below this directory of the host.
    pub root: Option<String>,
    pub span: Option<Span>,
}

impl Host {
    pub const LOCAL: &'static str = "local";

    /// The grains that the roster gives it, laid over its own.
    pub fn grains(&self) -> Map {
        self.minion_opts.get("grains").and_then(Value::as_map).cloned().unwrap_or_default()
    }

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
            timeout: None,
            ssh_options: Vec::new(),
            minion_opts: Map::new(),
            mine_functions: None,
            host_keys: Vec::new(),
            root: None,
            span: None,
        }
    }

    pub fn is_local(&self) -> bool {
        self.address == Host::LOCAL
    }
}

/// All hosts, in the order in which they stand.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Roster {
    pub hosts: Vec<Host>,
    /// What is asked for and cannot be done.
    pub warnings: Vec<Diagnostic>,
}

/// Keys that mean something here, and those whose meaning is Salt's own business (where its Python bundle lies).
const KEYS: [&str; 16] = [
    "host",
    "user",
    "port",
    "passwd",
    "priv",
    "priv_passwd",
    "sudo",
    "sudo_user",
    "timeout",
    "ssh_options",
    "identities_only",
    "minion_opts",
    "mine_functions",
    "root",
    "thin_dir",
    "ssh_python_env",
];

/// Salt's other keys, and why they have no effect.
const WITHOUT_EFFECT: [(&str, &str); 8] = [
    ("tty", "a terminal would garble what is sent; where sudoers say requiretty, take that out for this user"),
    ("set_path", "the agent looks for programs in the usual places; a state that needs others has `env`"),
    ("cmd_umask", "files get the modes that states name"),
    ("mods", "name the states in the top file, or with --sls"),
    ("ssh_pre_flight", "nothing runs on a host before the agent"),
    ("ssh_pre_flight_args", "nothing runs on a host before the agent"),
    ("ssh_pre_hook", "nothing runs here before a connection; ssh_config's ProxyCommand can"),
    ("remote_port_forwards", "write RemoteForward in ssh_config and keep that connection open"),
];

impl Roster {
    /// Reads a roster that templates have been rendered in. `defaults` (Salt's `roster_defaults`) hold for keys that a host does not name;
    /// `file` is named in errors.
    pub fn parse(text: &str, file: &str, defaults: &Map) -> Result<Roster> {
        Reader::new(text, file).read(defaults)
    }

    pub fn get(&self, id: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.id == id)
    }

    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.hosts.iter().map(|host| host.id.as_str())
    }
}

/// A roster being read, or a host that stands in a file of its own.
pub(super) struct Reader<'a> {
    text: &'a str,
    file: &'a str,
    pub(super) warnings: Vec<Diagnostic>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str, file: &'a str) -> Reader<'a> {
        Reader { text, file, warnings: Vec::new() }
    }

    /// The keys of a host.
    /// What a host can have.
    pub(super) fn keys() -> impl Iterator<Item = &'static str> {
        KEYS.into_iter().chain(["winrm"]).chain(WITHOUT_EFFECT.iter().map(|(name, _)| *name))
    }

    fn read(mut self, defaults: &Map) -> Result<Roster> {
        let node = yaml::load_spanned(self.text, self.file).map_err(|error| discreet(*error))?;
        let entries = match node.data {
            Data::Map(entries) => entries,
            Data::Scalar(Value::Null) => return Ok(Roster::default()),
            _ => {
                let error = self.error(node.place, "a roster is a mapping of minion ids to hosts");
                return Err(error.hint("web1:\n  host: 192.0.2.1\n  user: root").into());
            }
        };
        let mut hosts = Vec::with_capacity(entries.len());
        for (id, (place, node)) in entries {
            let id = id.to_text();
            self.legal_id(&id, place)?;
            hosts.push(self.host(id, place, node, defaults)?);
        }
        Ok(Roster { hosts, warnings: self.warnings })
    }

    /// What becomes a name of files and a word in other people's commands has no odd characters.
    pub(super) fn legal_id(&self, id: &str, place: Place) -> Result<()> {
        let legal = |c: char| !c.is_whitespace() && !c.is_control() && !"/\\,'\"".contains(c);
        if id.is_empty() || id.starts_with(['-', '.']) || !id.chars().all(legal) {
            return Err(self.error(place, format!("{id:?} cannot be a minion id")).hint("letters, digits, dots, dashes, _").into());
        }
        Ok(())
    }

    pub(super) fn host(&mut self, id: String, place: Place, node: Node, defaults: &Map) -> Result<Host> {
        let mut entries = match node.data {
            Data::Map(entries) => entries,
            Data::Scalar(Value::Str(_)) => [(Value::str("host"), (place, node))].into_iter().collect(),
            Data::Scalar(_) | Data::List(_) => {
                return Err(self.error(place, format!("{id} has no host: an address or a mapping with `host` belongs here")).into());
            }
        };
        for (key, value) in defaults {
            if !entries.contains_key(key) {
                entries.insert(key.clone(), (place, node_of(value, place)));
            }
        }
        let mut host = Host::new(id, "");
        host.span = Some(Span::new(self.file, place.line, place.column));
        for (key, (place, node)) in entries {
            self.entry(&mut host, &key.to_text(), place, node)?;
        }
        if host.address.is_empty() {
            return Err(self.error(place, format!("{} has no `host`", host.id)).hint("host: the name or address to connect to").into());
        }
        if host.sudo_user.is_some() {
            host.sudo = true;
        }
        Ok(host)
    }

    fn entry(&mut self, host: &mut Host, key: &str, place: Place, node: Node) -> Result<()> {
        let at = node.place;
        let value = node.into_value();
        match key {
            "host" => host.address = self.word(key, at, &value)?,
            "user" => host.user = Some(self.word(key, at, &value)?),
            "port" => {
                let port = value.as_int().or_else(|| value.as_str()?.parse().ok()).and_then(|port| u16::try_from(port).ok());
                host.port = Some(port.filter(|port| *port > 0).ok_or_else(|| self.error(at, "`port` is a number from 1 to 65535"))?);
            }
            "passwd" => host.password = self.secret(key, at, &value)?,
            "priv_passwd" => host.key_password = self.secret(key, at, &value)?,
            // Salt's word for "whatever ssh-agent has", which is the case anyway.
            "priv" if value.as_str() == Some("agent-forwarding") => {}
            "priv" => host.key = Some(self.word(key, at, &value)?),
            "sudo" => host.sudo = self.flag(key, at, &value)?,
            "sudo_user" => {
                let user = self.word(key, at, &value)?;
                if !user.chars().all(|c| c.is_ascii_alphanumeric() || "._-$".contains(c)) {
                    return Err(self.error(at, format!("{user:?} cannot be a user")).into());
                }
                host.sudo_user = Some(user);
            }
            "timeout" => {
                let seconds = value.as_int().or_else(|| value.as_str()?.parse().ok()).and_then(|n| u64::try_from(n).ok());
                let seconds =
                    seconds.filter(|n| (1..86_400).contains(n)).ok_or_else(|| self.error(at, "`timeout` is a number of seconds"))?;
                host.timeout = Some(Duration::from_secs(seconds));
            }
            "ssh_options" => {
                let options = match &value {
                    Value::List(options) => options.iter().map(Value::to_text).collect(),
                    Value::Str(option) => vec![option.clone()],
                    other => return Err(self.kind(key, at, "a list of option=argument", other).into()),
                };
                for option in options {
                    if !option.contains(['=', ' ']) || option.starts_with('-') {
                        let error = self.error(at, format!("{option:?} is no ssh option"));
                        return Err(error.hint("as in ssh_config, with an equals sign: ServerAliveInterval=5").into());
                    }
                    host.ssh_options.push(option);
                }
            }
            "identities_only" => {
                if self.flag(key, at, &value)? {
                    host.ssh_options.push("IdentitiesOnly=yes".into());
                }
            }
            "minion_opts" => match value {
                Value::Map(options) => host.minion_opts = options,
                Value::Null => {}
                other => return Err(self.kind(key, at, "a mapping", &other).into()),
            },
            "root" => {
                let root = self.word(key, at, &value)?;
                // It goes through a login shell's hands, and shells do not agree on how to quote these.
                if !root.starts_with('/') || root.contains(['\'', '!', '\\']) || root.split('/').any(|part| part == "..") {
                    let error = self.error(at, format!("{root:?} cannot be a root directory"));
                    return Err(error.hint("an absolute path without quotes, backslashes, ! and ..").into());
                }
                host.root = Some(root);
            }
            "mine_functions" => match value {
                Value::Map(_) | Value::List(_) => host.mine_functions = Some(value),
                Value::Null => {}
                other => return Err(self.kind(key, at, "a mapping of names to functions", &other).into()),
            },
            "thin_dir" | "ssh_python_env" => {}
            "winrm" => return Err(self.error(place, "hosts with Windows cannot be managed").into()),
            key => match WITHOUT_EFFECT.iter().find(|(name, _)| *name == key) {
                Some((_, why)) => {
                    if value.truthy() {
                        let what = format!("`{key}` of {} has no effect", host.id);
                        let span = Span::new(self.file, place.line, place.column);
                        self.warnings.push(Diagnostic::warning(Code::Settings, what).detail(*why).at(span));
                    }
                }
                None => {
                    let error = self.error(place, format!("a host of the roster has no key `{key}`"));
                    let known = KEYS.iter().chain(WITHOUT_EFFECT.iter().map(|(name, _)| name)).copied();
                    return Err(match nearest(key, known) {
                        Some(near) => error.hint(format!("did you mean {near:?}?")),
                        None => error.hint(format!("there are {}", KEYS.join(", "))),
                    }
                    .into());
                }
            },
        }
        Ok(())
    }

    /// A text that becomes an argument of ssh: one word, and never an option.
    fn word(&self, key: &str, at: Place, value: &Value) -> Result<String> {
        let text = match value {
            Value::Str(text) => text.clone(),
            Value::Int(number) => number.to_string(),
            other => return Err(self.kind(key, at, "a string", other).into()),
        };
        if text.is_empty()
            || text.starts_with('-')
            || text.chars().any(|c| c.is_control() || (c.is_whitespace() && key != "priv" && key != "root"))
        {
            return Err(self.error(at, format!("`{key}` cannot be {text:?}")).into());
        }
        Ok(text)
    }

    fn secret(&self, key: &str, at: Place, value: &Value) -> Result<Option<Secret>> {
        match value {
            Value::Null => Ok(None),
            Value::List(_) | Value::Map(_) => Err(self.kind(key, at, "a string", value).into()),
            scalar if scalar.to_text().contains(['\n', '\0']) => Err(self.error(at, format!("`{key}` is one line")).into()),
            scalar => Ok(Some(Secret(scalar.to_text()))),
        }
    }

    fn flag(&self, key: &str, at: Place, value: &Value) -> Result<bool> {
        value.as_bool().ok_or_else(|| self.kind(key, at, "True or False", value).into())
    }

    fn kind(&self, key: &str, at: Place, wanted: &str, found: &Value) -> Diagnostic {
        self.error(at, format!("`{key}` is {wanted}, and this is {}", found.kind()))
    }

    fn error(&self, place: Place, summary: impl Into<String>) -> Diagnostic {
        discreet(Diagnostic::new(Code::Settings, summary).at(Span::new(self.file, place.line, place.column)).excerpt_of(self.text))
    }
}

/// A roster may hold passwords: none in an excerpt.
fn discreet(mut error: Diagnostic) -> Diagnostic {
    error.excerpt = error.excerpt.filter(|excerpt| !excerpt.contains("passwd"));
    error
}

fn node_of(value: &Value, place: Place) -> Node {
    let data = match value {
        Value::List(items) => Data::List(items.iter().map(|item| node_of(item, place)).collect()),
        Value::Map(map) => Data::Map(map.iter().map(|(key, value)| (key.clone(), (place, node_of(value, place)))).collect()),
        scalar => Data::Scalar(scalar.clone()),
    };
    Node { place, data }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Roster> {
        Roster::parse(text, "roster.yaml", &Map::new())
    }

    fn refused(text: &str) -> Diagnostic {
        *parse(text).unwrap_err()
    }

    #[test]
    fn salt_s_own_example_is_read() {
        let roster = parse(concat!(
            "web1:\n  host: 192.168.42.1\n  user: fred\n  passwd: foobarbaz\n  sudo: True\n  port: 2222\n  timeout: 30\n",
            "  priv: /root/my key\n  priv_passwd: 1234\n  ssh_options:\n    - ServerAliveInterval=5\n  identities_only: True\n",
            "  minion_opts:\n    grains:\n      role: web\n  thin_dir: /tmp/thin\n",
            "web2: 192.168.42.2\n10: local\n",
        ))
        .unwrap();
        let web1 = roster.get("web1").unwrap();
        assert_eq!((web1.address.as_str(), web1.user.as_deref(), web1.port), ("192.168.42.1", Some("fred"), Some(2222)));
        assert_eq!((&web1.password, &web1.key_password), (&Some(Secret("foobarbaz".into())), &Some(Secret("1234".into()))));
        assert_eq!((web1.sudo, web1.key.as_deref(), web1.timeout), (true, Some("/root/my key"), Some(Duration::from_secs(30))));
        assert_eq!(web1.ssh_options, ["ServerAliveInterval=5", "IdentitiesOnly=yes"]);
        assert_eq!(Value::Map(web1.minion_opts.clone()).traverse("grains:role", ":"), Some(&Value::str("web")));
        assert_eq!(web1.span, Some(Span::new("roster.yaml", 1, 1)));
        assert_eq!(roster.ids().collect::<Vec<_>>(), ["web1", "web2", "10"]);
        assert!(roster.get("10").unwrap().is_local() && !roster.get("web2").unwrap().is_local());
        assert_eq!(roster.warnings, []);
        assert!(!format!("{roster:?}").contains("foobarbaz"));
    }

    #[test]
    fn an_empty_roster_has_no_hosts() {
        assert_eq!(parse("# nothing\n").unwrap(), Roster::default());
    }

    #[test]
    fn defaults_hold_where_a_host_says_nothing() {
        let defaults: Map = [("user", Value::str("ops")), ("timeout", Value::Int(3))].into_iter().collect();
        let roster = Roster::parse("a: 1.2.3.4\nb: {host: h, user: me}\n", "r", &defaults).unwrap();
        let seen: Vec<_> = roster.hosts.iter().map(|host| (host.user.as_deref(), host.timeout.map(|t| t.as_secs()))).collect();
        assert_eq!(seen, [(Some("ops"), Some(3)), (Some("me"), Some(3))]);
    }

    #[test]
    fn a_misspelt_key_is_told_with_its_place_and_the_nearest() {
        let error = refused("web1:\n  host: h\n  usre: me\n");
        assert_eq!(error.summary, "a host of the roster has no key `usre`");
        assert_eq!((error.span, error.hint.as_deref()), (Some(Span::new("roster.yaml", 3, 3)), Some("did you mean \"user\"?")));
    }

    #[test]
    fn what_cannot_be_done_is_a_warning_where_it_is_asked_for() {
        let roster = parse("a:\n  host: h\n  tty: True\nb:\n  host: h\n  tty: False\n").unwrap();
        assert_eq!(roster.warnings.len(), 1);
        assert_eq!((roster.warnings[0].summary.as_str(), roster.warnings[0].span.as_ref().unwrap().line), ("`tty` of a has no effect", 3));
    }

    #[test]
    fn nothing_can_become_an_option_of_ssh_or_break_out_of_a_quote() {
        for text in [
            "a: -oProxyCommand=x",
            "a: {host: h, user: -lx}",
            "a: {host: 'h x'}",
            "a: {host: h, ssh_options: [-F/x]}",
            "a: {host: h, ssh_options: [Compression]}",
            "a: {host: h, root: \"/a'b\"}",
            "a: {host: h, root: /a/../b}",
            "a: {host: h, root: rel}",
            "a: {host: h, sudo_user: \"x;y\"}",
            "a: {host: h, passwd: \"x\\ny\"}",
            "a/b: h",
            "a b: h",
            "-a: h",
        ] {
            assert_eq!(refused(text).code, Code::Settings, "{text}");
        }
    }

    #[test]
    fn values_of_the_wrong_kind_are_refused() {
        for (text, part) in [
            ("a:\n", "a has no host"),
            ("a: {user: x}\n", "a has no `host`"),
            ("a: {host: h, port: 70000}\n", "`port` is a number"),
            ("a: {host: h, sudo: maybe}\n", "`sudo` is True or False, and this is a string"),
            ("a: {host: h, timeout: 0}\n", "`timeout`"),
            ("a: {host: h, winrm: True}\n", "Windows"),
            ("- a\n", "a roster is a mapping"),
        ] {
            let error = refused(text);
            assert!(error.summary.contains(part), "{text}: {}", error.summary);
        }
    }

    #[test]
    fn no_excerpt_shows_a_password() {
        for text in ["a:\n  host: h\n  passwd: geheim\n  usre: x\n", "a:\n  host: h\n  passwd: @geheim\n"] {
            assert_eq!(refused(text).excerpt, None);
        }
    }
}
