//! The scenarios of `tests/truth/`, for the tests that play them: read, and laid out on a lab and its host. `tests/truth.rs` says how one is written.

#![allow(dead_code, reason = "each test that plays scenarios uses a part of this")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use basalt::function;
use basalt::value::Value as Yaml;
use basalt::yaml;
use serde_json::Value;

use crate::lab::{Host, Lab, Spec};

/// Every area, a file of `tests/truth/` each.
pub const AREAS: &[&str] = &[
    "files",
    "edits",
    "accounts",
    "commands",
    "requisites",
    "texts",
    "tools",
    "packages",
    "dnf",
    "rpm",
    "services",
    "servers",
    "storage",
    "databases",
];

pub struct Scenario {
    pub name: String,
    /// `light`, `systemd` or `dnf`: the name of its host, too.
    pub host: String,
    pub before: String,
    pub files: BTreeMap<String, String>,
    pub make: String,
    pub pillar: Option<Value>,
    pub steps: Vec<Step>,
    /// The law takes none of its faults as a sample: all of them.
    pub all_faults: bool,
}

#[derive(Default)]
pub struct Step {
    pub states: Option<String>,
    pub drift: Option<String>,
    pub again: BTreeSet<String>,
    pub fails: BTreeSet<String>,
    pub skips: BTreeSet<String>,
    pub one_way: bool,
}

pub fn scenarios(area: &str) -> Vec<Scenario> {
    let file = format!("tests/truth/{area}.yaml");
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&file)).unwrap();
    let list = yaml::load(&text, &file).unwrap_or_else(|fault| panic!("{fault:?}"));
    json_of(&list).as_array().unwrap().iter().map(scenario).collect()
}

pub fn json_of(value: &Yaml) -> Value {
    serde_json::to_value(value).unwrap()
}

pub fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

pub fn names(value: &Value, key: &str) -> BTreeSet<String> {
    value[key].as_array().into_iter().flatten().map(|id| id.as_str().unwrap().to_owned()).collect()
}

pub fn known(value: &Value, keys: &[&str]) {
    for key in value.as_object().unwrap().keys() {
        assert!(keys.contains(&key.as_str()), "a scenario has no {key:?}: {value}");
    }
}

fn scenario(value: &Value) -> Scenario {
    known(value, &["name", "host", "before", "files", "make", "pillar", "steps", "faults"]);
    let step = |step: &Value| match step {
        Value::String(states) => Step { states: Some(states.clone()), ..Step::default() },
        step => {
            known(step, &["states", "drift", "again", "fails", "skips", "one_way"]);
            Step {
                states: step["states"].as_str().map(str::to_owned),
                drift: step["drift"].as_str().map(str::to_owned),
                again: names(step, "again"),
                fails: names(step, "fails"),
                skips: names(step, "skips"),
                one_way: step["one_way"] == true,
            }
        }
    };
    Scenario {
        name: text(value, "name"),
        host: match value["host"].as_str() {
            Some(host @ ("light" | "systemd" | "dnf")) => host.to_owned(),
            other => panic!("a host is light, systemd or dnf, not {other:?}: {value}"),
        },
        before: text(value, "before"),
        files: value["files"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(path, text)| (path.clone(), text.as_str().unwrap().to_owned()))
            .collect(),
        make: text(value, "make"),
        pillar: value.get("pillar").cloned(),
        all_faults: value["faults"] == "all",
        steps: value["steps"].as_array().unwrap().iter().map(step).collect(),
    }
}

/// The state functions that a scenario's states name.
pub fn functions(scenario: &Scenario) -> BTreeSet<&'static str> {
    let states: Vec<&str> = scenario.steps.iter().filter_map(|step| step.states.as_deref()).collect();
    let states = states.join("\n");
    let words: BTreeSet<&str> =
        states.split(|c: char| !(c.is_alphanumeric() || c == '.' || c == '_')).map(|w| w.trim_end_matches('.')).collect();
    function::entries().map(|entry| entry.name).filter(|name| words.contains(name)).collect()
}

/// The hosts that scenarios are played on.
pub fn hosts(scenarios: &[Scenario]) -> Vec<Spec> {
    let all = [Spec::light("light"), Spec::systemd("systemd").disks(&["300m", "300m"]), Spec::dnf("dnf")];
    all.into_iter().filter(|spec| scenarios.iter().any(|s| s.host == spec.name())).collect()
}

impl Scenario {
    /// Writes its files and pillar, empties the disks, and makes what is there first. Fails with what went wrong.
    pub fn lay_out(&self, lab: &Lab, host: &Host) -> Result<(), String> {
        let states = lab.state().join("states");
        std::fs::remove_dir_all(&states).ok();
        std::fs::remove_dir_all(lab.state().join("pillar")).ok();
        lab.write("states/top.sls", "base:\n  '*': [wanted]\n");
        for (path, text) in &self.files {
            lab.write(&format!("states/{path}"), text);
        }
        let made = std::process::Command::new("sh").args(["-ec", &self.make]).current_dir(&states).status().unwrap();
        assert!(made.success(), "{}: what makes its files fails", self.name);
        if let Some(pillar) = &self.pillar {
            lab.write("pillar/top.sls", "base:\n  '*': [data]\n");
            lab.write("pillar/data.sls", &format!("#!json\n{pillar}\n"));
        }
        for disk in host.disks() {
            script(host, &format!("wipefs -q -a {disk}"))?;
        }
        script(host, &self.before)
    }
}

impl Step {
    /// Writes the states that are wanted now, and lets the host drift.
    pub fn lay_out(&self, lab: &Lab, host: &Host) -> Result<(), String> {
        if let Some(states) = &self.states {
            lab.write("states/wanted.sls", &with_disks(host, states));
        }
        script(host, self.drift.as_deref().unwrap_or_default())
    }
}

/// The names of the host's disks in the place of `DISK0` …
fn with_disks(host: &Host, text: &str) -> String {
    host.disks().iter().enumerate().fold(text.to_owned(), |text, (index, disk)| text.replace(&format!("DISK{index}"), disk))
}

/// Runs a scenario's own script on the host.
fn script(host: &Host, script: &str) -> Result<(), String> {
    let output = host.sh(&with_disks(host, &format!("set -e\n{script}")));
    match output.code {
        Some(0) => Ok(()),
        code => Err(format!("the script {script:?} ends with {code:?}: {}", output.stderr)),
    }
}
