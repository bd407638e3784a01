//! The grains of a host, as templates and targets see them: what its agent says, what its owner has set in `/etc/salt`, and what only the
//! controller knows (its id, what follows from that, and the roster's grains), laid over each other in Salt's order.

use crate::agent::protocol::{GrainFile, Hello};
use crate::diagnostic::{Diagnostic, Result};
use crate::fleet::Host;
use crate::lang::function::data::update;
use crate::lang::function::hash::sha256;
use crate::value::{Map, Value};
use crate::yaml;

#[derive(Clone, Debug, Default)]
pub struct Grains {
    /// All of them.
    pub all: Map,
    /// Those that do not come from the agent.
    pub own: Map,
    /// Files on the host that cannot be read as grains, and why: they count for nothing, as with Salt.
    pub faults: Vec<Diagnostic>,
}

impl Grains {
    pub fn of(host: &Host, hello: &Hello) -> Grains {
        let mut faults = Vec::new();
        let mut own = Map::new();
        let option = |name: &str| host.minion_opts.get(name);
        own.insert("master", option("master").map_or_else(|| "salt".to_owned(), Value::to_text));
        own.insert("server_id", server_id(&host.id));
        let mut lay = |from: &Map| from.iter().for_each(|(name, value)| drop(own.insert(name.clone(), value.clone())));
        let (files, settings): (Vec<_>, Vec<_>) = hello.grain_files.iter().partition(|file| file.path == "/etc/salt/grains");
        for file in files {
            match mapping(file) {
                Ok(grains) => lay(&grains),
                Err(fault) => faults.push(*fault),
            }
        }
        // Of the minion's settings those in minion.d go into each other, and then before the main file's.
        let (main, fragments): (Vec<_>, Vec<_>) = settings.into_iter().partition(|file| file.path == "/etc/salt/minion");
        let mut merged: Option<Map> = None;
        for file in fragments {
            match set_in(file) {
                Ok(Some(grains)) => update(merged.get_or_insert_default(), &grains, true, true),
                Ok(None) => {}
                Err(fault) => faults.push(*fault),
            }
        }
        for file in main {
            match set_in(file) {
                Ok(grains) => merged = merged.or(grains),
                Err(fault) => faults.push(*fault),
            }
        }
        for grains in [merged.as_ref(), option("grains").and_then(Value::as_map)].into_iter().flatten() {
            lay(grains);
        }
        own.insert("id", host.id.as_str());
        let mut all = hello.grains.clone();
        own.iter().for_each(|(name, value)| drop(all.insert(name.clone(), value.clone())));
        Grains { all, own, faults }
    }

    /// The faults in a line each, for a plan's notices.
    pub fn notices(&self) -> Vec<String> {
        let place = |fault: &Diagnostic| fault.span.as_ref().map_or(String::new(), |span| format!(" ({span})"));
        self.faults.iter().map(|fault| format!("grains left out: {}{}", fault.summary, place(fault))).collect()
    }
}

fn mapping(file: &GrainFile) -> Result<Map> {
    match yaml::load(&file.text, &file.path)? {
        Value::Map(map) => Ok(map),
        Value::Null => Ok(Map::new()),
        other => Err(Diagnostic::new(crate::diagnostic::Code::Yaml, format!("{} is {}, not a mapping", file.path, other.kind())).into()),
    }
}

/// The key `grains` of a minion's settings.
fn set_in(file: &GrainFile) -> Result<Option<Map>> {
    Ok(mapping(file)?.remove("grains").and_then(|grains| if let Value::Map(grains) = grains { Some(grains) } else { None }))
}

/// Salt's number for a host, from its id.
fn server_id(id: &str) -> i64 {
    // The last 31 bits of the sum.
    let digits = sha256(id.as_bytes());
    let last = digits.get(digits.len() - 8..).and_then(|d| u32::from_str_radix(d, 16).ok()).unwrap_or(0);
    i64::from(last & 0x7fff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn grains(files: &[(&str, &str)], minion_opts: serde_json::Value) -> Grains {
        let mut host = Host::new("web1", "192.0.2.1");
        host.minion_opts = serde_json::from_value(minion_opts).unwrap();
        let hello = Hello {
            protocol: 0,
            version: String::new(),
            grains: [("os", Value::str("Debian")), ("role", Value::str("none")), ("id", Value::str("liar"))].into_iter().collect(),
            grain_files: files.iter().map(|(path, text)| GrainFile { path: (*path).into(), text: (*text).into() }).collect(),
            generation: 0,
            uid: 0,
        };
        Grains::of(&host, &hello)
    }

    #[test]
    fn the_roster_goes_before_the_settings_and_these_before_the_grains_file() {
        let files = [
            ("/etc/salt/grains", "role: file\na: file\nb: file\nid: mine\n"),
            ("/etc/salt/minion", "master: m\ngrains:\n  b: main\n  c: main\n"),
        ];
        let found = grains(&files, json!({"grains": {"c": "roster"}, "master": "boss"}));
        let of = |name: &str| found.all.get(name).map(Value::to_text).unwrap_or_default();
        assert_eq!(["os", "role", "a", "b", "c", "id", "master"].map(of), ["Debian", "file", "file", "main", "roster", "web1", "boss"]);
        // What `salt-call --local --id web1 grains.get server_id` says.
        assert_eq!(of("server_id"), "1826842219");
        assert!(found.own.get("os").is_none() && found.faults.is_empty());
    }

    #[test]
    fn fragments_go_into_each_other_and_before_the_main_file() {
        let files = [
            ("/etc/salt/minion", "grains:\n  gone: 1\n"),
            ("/etc/salt/minion.d/a.conf", "grains:\n  deep: {x: 1}\n  roles: [a]\n"),
            ("/etc/salt/minion.d/b.conf", "grains:\n  deep: {y: 2}\n  roles: [b]\n"),
        ];
        let found = grains(&files, json!({}));
        assert_eq!(found.all.get("gone"), None);
        assert_eq!(serde_json::to_value(found.all.get("deep")).unwrap(), json!({"x": 1, "y": 2}));
        assert_eq!(serde_json::to_value(found.all.get("roles")).unwrap(), json!(["a", "b"]));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_told_and_left_out() {
        let found = grains(&[("/etc/salt/grains", "a: [\n"), ("/etc/salt/minion", "grains: {b: 1}\n")], json!({}));
        assert_eq!((found.all.get("a"), found.all.get("b")), (None, Some(&Value::Int(1))));
        assert_eq!(found.notices().len(), 1);
        assert!(found.notices()[0].contains("/etc/salt/grains"), "{:?}", found.notices());
    }
}
