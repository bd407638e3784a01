//! Truth by machine: what `plan` says is what `apply` does, what it did leaves nothing to plan, and `rollback` leaves nothing of it.
//!
//! The scenarios are the files of `tests/truth/`, one area each, a list of
//!
//! ```yaml
//! - name: what the scenario is about
//!   host: light                # where: `light` (sshd only), `systemd`, or `dnf` (systemd, of Red Hat's kind)
//!   before: touch /etc/x       # optional: a shell script that makes what is there first
//!   files: {a.conf: text}      # optional: more files of `states/`
//!   make: tar cf a.tar a.conf  # optional: a shell script that makes files there, on the controller
//!   pillar: {key: value}       # optional
//!   faults: all                # optional: `tests/law.rs` tries each of its faults, and no sample of them
//!   steps:                     # one after the other; a text is the states that are wanted now, applied
//!   - |
//!     /etc/x: {file.absent: []}
//!   - drift: echo y > /etc/x   # a shell script on the host, about what is managed; then the states of before, applied again
//!   - states: …                # with what is expected besides, by ids:
//!     again: [id]              #   unguarded commands, which every plan wants to run
//!     fails: [id]              #   states that fail in the run
//!     skips: [id]              #   states that are skipped because of those
//!     one_way: True            #   the plan says that something does not come back: the roots are not compared
//! ```
//!
//! `DISK0` and `DISK1` stand for two empty disks of a host with systemd.
//!
//! After every step each planned change must be one that apply reports, with the same objects, and the other way round; a state that the plan
//! could not know may change or not, and is counted. The plan after it must be empty but for what the step expects again or failed. At the end
//! the runs are taken back one by one, and each time the whole root is what it was before that run.
//!
//! Each area is a test, so they run side by side. `scripts/truth` runs them and writes `docs/truth.md` from what they note.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on panics")]

mod lab;
#[path = "truth/scenario.rs"]
mod scenario;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use basalt::function;
use lab::{Host, Lab};
use scenario::{AREAS, Scenario, Step, functions, scenarios, text};
use serde_json::{Value, json};

/// One test for each file of `tests/truth/`.
macro_rules! areas {
    ($($area:ident)*) => {
        $(#[test]
        fn $area() {
            run(stringify!($area));
        })*

        #[test]
        fn each_area_has_its_test() {
            assert_eq!(AREAS, [$(stringify!($area)),*]);
        }
    };
}

areas! { files edits accounts commands requisites texts tools packages dnf rpm services servers storage databases }

/// Functions that need what the lab has not (device-mapper, kernel modules and servers, swap of its own, Python and its packages); their law is
/// held with recorded commands.
const NOT_IN_THE_LAB: &[&str] = &["lvm.", "kmod.", "pip.", "virtualenv.", "nfs_export.", "mount.swap"];

#[test]
fn every_function_stands_in_two_scenarios() {
    let mut count: BTreeMap<&str, usize> = function::entries().map(|entry| (entry.name, 0)).collect();
    let mut seen = BTreeSet::new();
    for scenario in AREAS.iter().flat_map(|area| scenarios(area)) {
        assert!(seen.insert(scenario.name.clone()), "two scenarios are called {:?}", scenario.name);
        functions(&scenario).into_iter().for_each(|name| *count.get_mut(name).unwrap() += 1);
    }
    let missing: Vec<_> =
        count.iter().filter(|(name, n)| **n < 2 && !NOT_IN_THE_LAB.iter().any(|module| name.starts_with(module))).collect();
    assert!(missing.is_empty(), "functions that stand in fewer than two scenarios: {missing:?}");
    let files = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/truth")).unwrap();
    let files = files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|e| e == "yaml")).count();
    assert_eq!(files, AREAS.len(), "each file of tests/truth has its test");
}

/// Runs the scenarios of an area, goes on after one that fails, and notes all for `scripts/truth`.
fn run(area: &str) {
    if !lab::required() {
        return;
    }
    let only = std::env::var("TRUTH_ONLY").unwrap_or_default();
    let scenarios: Vec<Scenario> = scenarios(area).into_iter().filter(|s| s.name.contains(&only)).collect();
    let specs = scenario::hosts(&scenarios);
    if specs.is_empty() {
        return;
    }
    let lab = Lab::start(specs);
    lab.write("states/top.sls", "base:\n  '*': [wanted]\n");
    lab.commit("the top file");
    let (mut notes, mut lies) = (String::new(), Vec::new());
    for scenario in &scenarios {
        let host = &lab[scenario.host.as_str()];
        let mut told = Told { at: scenario.name.clone(), ..Told::default() };
        play(&lab, host, scenario, &mut told);
        let functions = functions(scenario);
        notes += &json!({"area": area, "name": scenario.name, "host": scenario.host, "functions": functions,
            "steps": scenario.steps.len(), "planned": told.planned, "unknown": told.unknown, "equal": told.lies.is_empty()})
        .to_string();
        notes.push('\n');
        lies.append(&mut told.lies);
        host.reset();
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("truth");
    std::fs::create_dir_all(&folder).unwrap();
    if only.is_empty() {
        std::fs::write(folder.join(format!("{area}.jsonl")), notes).unwrap();
    }
    assert!(lies.is_empty(), "{} lies:\n{}", lies.len(), lies.join("\n"));
}

/// What a scenario has shown.
#[derive(Default)]
struct Told {
    at: String,
    planned: usize,
    unknown: usize,
    lies: Vec<String>,
}

impl Told {
    fn lie(&mut self, text: String) {
        self.lies.push(format!("{}: {text}", self.at));
    }
}

/// A state, as plan and apply name it.
type State = (String, String, String);

fn state(line: &Value) -> State {
    (text(line, "id"), text(line, "state"), text(line, "name"))
}

fn keys(list: &Value) -> BTreeSet<String> {
    list.as_array().into_iter().flatten().map(|object| text(object, "key")).collect()
}

/// The lines of a command's output of a type.
fn lines(output: &str, of: &str) -> Vec<Value> {
    let all = output.lines().map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {line}")));
    all.filter(|line| line["type"] == of).collect()
}

/// The planned steps; a host that could not be planned is a lie.
fn planned(output: &str, told: &mut Told) -> Option<Vec<Value>> {
    match &lines(output, "host_planned")[..] {
        [host] => Some(host["changes"].as_array().unwrap().clone()),
        _ => {
            told.lie(format!("there is no plan:\n{}", output.chars().take(2000).collect::<String>()));
            None
        }
    }
}

fn play(lab: &Lab, host: &Host, scenario: &Scenario, told: &mut Told) {
    if let Err(fault) = scenario.lay_out(lab, host) {
        told.lie(fault);
    }
    let mut runs = Vec::new();
    for (number, step) in scenario.steps.iter().enumerate() {
        told.at = format!("{}, step {}", scenario.name, number + 1);
        if let Err(fault) = step.lay_out(lab, host) {
            told.lie(fault);
        }
        let before = host.fingerprint_root();
        if let Some(run) = once(lab, host, step, told) {
            runs.push((number, run, before));
        }
    }
    for (number, run, before) in runs.iter().rev() {
        told.at = format!("{}, the way back from step {}", scenario.name, number + 1);
        let output = lab.basalt(["rollback", "--yes", "--destroy-data", "--with-later", "--json", "--run", run, host.name()]);
        if output.code != Some(0) {
            return told.lie(format!("the rollback ends with {:?}:\n{}{}", output.code, output.stdout, output.stderr));
        }
        let difference = before.diff(&host.fingerprint_root());
        let one_way = scenario.steps[*number].one_way;
        if one_way && !output.stdout.contains("does not come back") {
            told.lie("what does not come back is not told".to_owned());
        }
        if !one_way && !difference.is_empty() {
            told.lie(format!("the rollback leaves something:\n{difference}"));
        }
    }
}

/// Plans, applies, and plans again; gives the run's id when there was one.
fn once(lab: &Lab, host: &Host, step: &Step, told: &mut Told) -> Option<String> {
    let output = lab.basalt(["plan", "--json", host.name()]);
    let wanted = planned(&output.stdout, told)?;
    let output = lab.basalt(["apply", "--json", "--yes", host.name()]);
    if planned(&output.stdout, told)? != wanted {
        told.lie(format!("apply plans otherwise than plan:\n{wanted:#?}\n{}", output.stdout));
    }
    let mut done: BTreeMap<State, Value> = lines(&output.stdout, "state_done").into_iter().map(|line| (state(&line), line)).collect();
    for change in &wanted {
        let which = state(change);
        let id = &which.0;
        let line = done.remove(&which).unwrap_or_default();
        let result = line["result"].as_str().unwrap_or("nothing");
        if change["action"] == "none" && change["reason"].as_str().is_some_and(|reason| reason.starts_with("runs only if")) {
            continue; // `onfail`: no change unless another state breaks its promise
        }
        told.planned += 1;
        let unknown = change["known"] == false;
        told.unknown += usize::from(unknown);
        let expected: &[&str] = match () {
            () if step.skips.contains(id) => &["skipped"],
            () if step.fails.contains(id) || !change["fails"].is_null() => &["failed"],
            () if unknown => &["changed", "ok", "nothing"],
            () => &["changed"],
        };
        if !expected.contains(&result) {
            told.lie(format!("{which:?} was planned to {} and was {result}, not {expected:?}: {}", change["action"], line["comment"]));
        }
        if !unknown && result == "changed" && keys(&change["objects"]) != keys(&line["changes"]) {
            told.lie(format!("{which:?} was to change {:?} and changed {:?}", keys(&change["objects"]), keys(&line["changes"])));
        }
    }
    for (which, line) in done.into_iter().filter(|(_, line)| line["result"] != "ok") {
        if step.skips.contains(&which.0) && line["result"] == "skipped" {
            continue; // it would not have changed anything
        }
        told.lie(format!("{which:?} was not planned and was {}: {} {}", line["result"], line["comment"], line["changes"]));
    }
    let left = planned(&lab.basalt(["plan", "--json", host.name()]).stdout, told)?;
    for change in left {
        let (id, function, name) = state(&change);
        let expected = change["action"] == "none" || step.again.contains(&id) || step.fails.contains(&id) || step.skips.contains(&id);
        if !expected {
            told.lie(format!(
                "the next plan still wants to {} {function} of {id:?} ({name}): {} {}",
                change["action"], change["reason"], change["diff"]
            ));
        }
    }
    lines(&output.stdout, "run_started").first().map(|line| text(line, "run"))
}
