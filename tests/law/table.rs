//! Reads the table of the law: `tests/law/*.yaml`. `tests/law.rs` says how a case is written.

use std::path::{Path, PathBuf};

use basalt::plan::{Key, Kind, Low};
use basalt::system::System;
use basalt::value::{Attrs, Value as Data};
use basalt::yaml;
use serde_json::{Value, json};

/// Where the cases of a group are tried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Place {
    Root,
    Recorded,
    Light,
    Systemd,
}

impl Place {
    pub fn name(self) -> &'static str {
        match self {
            Place::Root => "root",
            Place::Recorded => "recorded",
            Place::Light => "light",
            Place::Systemd => "systemd",
        }
    }
}

/// Cases that begin with the same things there.
pub struct Group {
    pub place: Place,
    pub before: String,
    pub after: String,
    pub slow: bool,
    pub cases: Vec<Case>,
}

pub struct Case {
    pub name: String,
    /// Its place in the whole table: what faults a sample takes depends on it.
    pub number: u64,
    /// In a root a fault takes no time worth a word, unless it is slow.
    pub in_root: bool,
    pub slow: bool,
    /// It does not come back, and the plan says so.
    pub one_way: bool,
    pub what: What,
}

pub enum What {
    Object {
        /// The first is set, the others change with it.
        keys: Vec<Key>,
        to: Value,
        unread: Vec<String>,
    },
    States(Vec<Low>),
}

impl Case {
    /// The kind of object that it is about.
    pub fn kind(&self) -> Option<Kind> {
        match &self.what {
            What::Object { keys, .. } => keys.first().map(|key| key.kind),
            What::States(_) => None,
        }
    }

    /// The state functions that it is about.
    pub fn functions(&self) -> impl Iterator<Item = String> {
        let lows: &[Low] = if let What::States(lows) = &self.what { lows } else { &[] };
        lows.iter().map(Low::function)
    }
}

/// What is wanted of an object; the text of a content becomes known by its hash.
pub fn wanted(to: &Value, sys: &System) -> Attrs {
    let mut attrs: Attrs = serde_json::from_value(to.clone()).unwrap();
    if let Some(Data::Str(text)) = attrs.get("content") {
        let hash = sys.contents().add(text.clone().into_bytes());
        attrs.insert("content".into(), Data::Str(hash.0));
    }
    attrs
}

/// The folder of the table; a host of the lab has its own copy.
pub fn folder() -> PathBuf {
    std::env::var_os("LAW_TABLE").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/law"), PathBuf::from)
}

/// The whole table, in the order of its files.
pub fn groups() -> Vec<Group> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder()).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "yaml"));
    files.sort();
    let mut number = 0;
    files.iter().flat_map(|file| read(file)).map(|entry| group(&entry, &mut number)).collect()
}

fn read(file: &Path) -> Vec<Value> {
    let mut text = std::fs::read_to_string(file).unwrap();
    for (index, disk) in std::env::var("LAW_DISKS").unwrap_or_default().split_whitespace().enumerate() {
        text = text.replace(&format!("DISK{index}"), disk);
    }
    let list = yaml::load(&text, &file.display().to_string()).unwrap_or_else(|fault| panic!("{fault:?}"));
    serde_json::to_value(list).unwrap().as_array().unwrap().clone()
}

fn group(entry: &Value, number: &mut u64) -> Group {
    for key in entry.as_object().unwrap().keys() {
        assert!(
            ["where", "before", "after", "unread", "slow", "one_way", "objects", "states"].contains(&key.as_str()),
            "a group has no {key:?}: {entry}"
        );
    }
    let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let place = match entry["where"].as_str() {
        Some("root") => Place::Root,
        Some("recorded") => Place::Recorded,
        Some("light") => Place::Light,
        Some("systemd") => Place::Systemd,
        other => panic!("a case is tried in a root, recorded, light or systemd, not {other:?}: {entry}"),
    };
    let list = |key: &str| entry[key].as_array().cloned().unwrap_or_default();
    let unread: Vec<String> = list("unread").iter().map(|name| name.as_str().unwrap().to_owned()).collect();
    let (in_root, slow) = (matches!(place, Place::Root | Place::Recorded), entry["slow"] == true);
    let mut cases = Vec::new();
    let mut add = |name: String, what: What| {
        *number += 1;
        cases.push(Case { name, number: *number, in_root, slow, one_way: entry["one_way"] == true, what });
    };
    for (keys, wants) in list("objects").iter().flat_map(|object| object.as_object().unwrap().clone()) {
        let all: Vec<Key> = keys.split(" & ").map(|key| key.parse().unwrap_or_else(|e| panic!("{e}: {entry}"))).collect();
        let wants = wants.as_array().cloned().unwrap_or_else(|| vec![wants]);
        for to in wants {
            let name = format!("{} to {to}", all[0]);
            add(name, What::Object { keys: all.clone(), to, unread: unread.clone() });
        }
    }
    for state in list("states") {
        let lows = state.as_object().unwrap().iter().flat_map(|(function, args)| {
            let each = args.as_array().cloned().unwrap_or_else(|| vec![args.clone()]);
            each.iter().map(|args| low(function, args)).collect::<Vec<Low>>()
        });
        let lows: Vec<Low> = lows.collect();
        let name = lows.iter().map(|low| format!("{} {}", low.function(), low.name)).collect::<Vec<_>>().join(", ");
        add(name, What::States(lows));
    }
    Group { place, before: text("before"), after: text("after"), slow, cases }
}

fn low(function: &str, args: &Value) -> Low {
    let (state, fun) = function.split_once('.').unwrap_or_else(|| panic!("{function} is no state function"));
    let name = args["name"].as_str().unwrap_or(function);
    let mut args = if args.is_null() { json!({}) } else { args.clone() };
    args["name"] = json!(name);
    let low = json!({"id": function, "sls": "law", "state": state, "fun": fun, "name": name, "args": args});
    serde_json::from_value(low).unwrap()
}
