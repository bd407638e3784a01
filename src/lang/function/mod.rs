//! Salt's execution functions in templates (`salt['pillar.get'](…)`), as far as they need no host: what pillar, grains, settings and
//! the tree answer, and plain computation. Everything else goes to [`HostCalls`](crate::lang::jinja::HostCalls).

mod basalt;
mod check;
pub mod data;
mod files;
pub mod hash;
mod lookup;
mod matching;
pub mod network;
mod path;
mod random;
mod refused;
mod roles;
mod slsutil;
mod version;

pub use refused::refused;
pub use roles::scale_of;

use crate::diagnostic::{Code, Diagnostic, Result, nearest};
use crate::lang::jinja::{Context, Renderer, Templates};
use crate::value::{Map, Value};

/// What a function sees.
pub struct Site<'a> {
    pub context: &'a Context,
    pub templates: &'a dyn Templates,
    pub renderer: &'a Renderer,
}

type Function = fn(&Site<'_>, Call<'_>) -> Result<Value>;

fn tables() -> [&'static [(&'static str, Function)]; 12] {
    [
        basalt::TABLE,
        lookup::TABLE,
        slsutil::TABLE,
        files::TABLE,
        path::TABLE,
        network::TABLE,
        hash::TABLE,
        version::TABLE,
        check::TABLE,
        matching::TABLE,
        random::TABLE,
        roles::TABLE,
    ]
}

fn find(name: &str) -> Option<Function> {
    tables().into_iter().flatten().find(|(n, _)| *n == name).map(|(_, f)| *f)
}

/// Whether a function is answered here.
pub fn is_pure(name: &str) -> bool {
    find(name).is_some()
}

/// The names of all functions that are answered here.
pub fn names() -> impl Iterator<Item = &'static str> {
    tables().into_iter().flatten().map(|(name, _)| *name)
}

/// Modules whose functions a host answers. What is in none of them is not defined for a template that asks; called, it is asked of
/// the host all the same.
const HOST_MODULES: &[&str] = &[
    "alternatives",
    "archive",
    "at",
    "augeas",
    "cloud",
    "cmd",
    "config",
    "cp",
    "cron",
    "data",
    "debconf",
    "defaults",
    "dig",
    "disk",
    "dnsutil",
    "environ",
    "ethtool",
    "event",
    "file",
    "firewalld",
    "gem",
    "git",
    "gpg",
    "grains",
    "group",
    "hashutil",
    "hosts",
    "http",
    "ini",
    "ip",
    "ipset",
    "iptables",
    "kmod",
    "locale",
    "log",
    "logrotate",
    "lowpkg",
    "lvm",
    "match",
    "mine",
    "minion",
    "mount",
    "network",
    "nftables",
    "npm",
    "openssh",
    "partition",
    "pillar",
    "pip",
    "pkg",
    "ps",
    "publish",
    "quota",
    "random",
    "rsync",
    "salt",
    "saltutil",
    "schedule",
    "sdb",
    "selinux",
    "service",
    "shadow",
    "slsutil",
    "sqlite3",
    "ssh",
    "state",
    "status",
    "supervisord",
    "sys",
    "sysctl",
    "sysfs",
    "system",
    "temp",
    "test",
    "timezone",
    "tls",
    "udev",
    "user",
    "virtualenv",
    "x509",
    "xfs",
];

/// Whether Salt has such a function on an ordinary host.
pub fn exists(name: &str) -> bool {
    is_pure(name) || name.split_once('.').is_some_and(|(module, _)| HOST_MODULES.contains(&module))
}

/// Calls a function; `None` where only the host can answer.
pub fn call(site: &Site, name: &str, args: &[Value], kwargs: &Map) -> Option<Result<Value>> {
    match find(name) {
        Some(function) => Some(function(site, Call { name, args, kwargs })),
        // By way of its runner too the mine is asked.
        None if name == "saltutil.runner" && runner(args, kwargs).is_some_and(|runner| runner == "mine.get") => None,
        None => refused(name).map(|fault| Err(Box::new(fault))),
    }
}

/// Which of a master's runners `saltutil.runner` is to run.
pub fn runner(args: &[Value], kwargs: &Map) -> Option<String> {
    args.first().or_else(|| kwargs.get("name")).map(Value::to_text)
}

/// What becomes of undefined values in a function's arguments.
#[derive(Clone, Copy)]
pub enum Undefined {
    Refused,
    /// Those inside of mappings and lists come back as they were; what uses them later is refused.
    Inside,
    /// Those that are arguments behind the first, too.
    Default,
}

/// A function that only hands its data on does not look at what is undefined in them.
pub fn undefined(name: &str) -> Undefined {
    match name {
        "grains.get" | "config.get" => Undefined::Default,
        "pillar.get" | "grains.filter_by" | "pillar.filter_by" | "match.filter_by" => Undefined::Inside,
        "slsutil.merge" | "slsutil.update" | "defaults.merge" | "defaults.update" => Undefined::Inside,
        _ => Undefined::Refused,
    }
}

/// Functions that change their first argument, a dict, and give it back.
pub fn changes_first(name: &str, args: &[Value], kwargs: &Map) -> bool {
    let in_place = |position: usize| args.get(position).or_else(|| kwargs.get("in_place")).is_none_or(Value::truthy);
    match name {
        "defaults.merge" | "defaults.update" => in_place(3),
        "slsutil.update" => true,
        _ => false,
    }
}

/// The arguments of one call.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    name: &'a str,
    args: &'a [Value],
    kwargs: &'a Map,
}

impl<'a> Call<'a> {
    /// Sorts the arguments to parameters, as Python does; the first `required` must be given.
    fn bind<const N: usize>(self, names: [&str; N], required: usize) -> Result<[Option<&'a Value>; N]> {
        let mut slots: [Option<&Value>; N] = [None; N];
        if self.args.len() > N {
            return Err(error(format!("{} takes {N} arguments but {} were given", self.name, self.args.len())));
        }
        for (slot, value) in slots.iter_mut().zip(self.args) {
            *slot = Some(value);
        }
        for (key, value) in self.kwargs {
            let name = key.as_str().unwrap_or("");
            // Salt hands these to every function and takes them away again.
            if name.starts_with("__") {
                continue;
            }
            let Some(slot) = names.iter().position(|n| *n == name).and_then(|i| slots.get_mut(i)) else {
                let wrong = error(format!("{} has no argument {name}", self.name));
                return Err(match nearest(name, names) {
                    Some(near) => Box::new(wrong.hint(format!("did you mean {near}?"))),
                    None => wrong,
                });
            };
            if slot.replace(value).is_some() {
                return Err(error(format!("{} got two values for the argument {name}", self.name)));
            }
        }
        if let Some(i) = slots.iter().take(required).position(Option::is_none) {
            return Err(error(format!("{} needs the argument {}", self.name, names.get(i).copied().unwrap_or(""))));
        }
        Ok(slots)
    }
}

fn error(message: impl Into<String>) -> Box<Diagnostic> {
    Box::new(Diagnostic::new(Code::Template, message))
}

fn text(value: Option<&Value>) -> String {
    value.map_or_else(String::new, Value::to_text)
}

fn flag(value: Option<&Value>, default: bool) -> bool {
    value.map_or(default, Value::truthy)
}
