//! The law: whatever basalt changes it can read back, leave alone, and take back, also when it is stopped anywhere on the way.
//!
//! One table holds every kind of object and every state function to it: the files of `tests/law/` and, for what functions do on whole hosts,
//! the scenarios of `tests/truth/`. A kind or a function without its cases fails `every_kind_and_every_function_has_its_cases`.
//! To add one, write a few lines into a file of `tests/law/`, a list of
//!
//! ```yaml
//! - where: root                 # a temporary root; `recorded`: with the tools of `law/recorded.rs`; `light`, `systemd`: a host of the lab
//!   before: mkdir etc           # what is there first: a shell script, run in the root or on the host
//!   after: rm -r /srv/x         # on hosts: what takes it away again
//!   slow: True                  # in a root: a sample takes one fault of each case, and not all errors
//!   one_way: True               # none of it comes back, and the plan says so: no rollback, no faults
//!   unread: [force]             # attributes that are wanted and say how: nobody reads them back
//!   objects:                    # each is set from what is there to what is wanted; `{}` is absent; a list of wants is a case each
//!   - file:/etc/new: {kind: file, content: its text}
//!   - user:new & group:new: …   # the first is set; the others change with it, so their before-images are taken too
//!   states:                     # each item is planned and applied: functions with their arguments, a list of them where one comes several times
//!   - kmod.present: {name: new}
//! ```
//!
//! A case holds when what is set is what is read (and the next plan is empty), when the rollback gives back the whole root, byte for byte, and when
//! it still does after the run was stopped before any of its mutations, by an error or by SIGKILL, and the rollback itself was.
//! A scenario holds when it is taken back after the agent was killed in any of its steps.
//!
//! Here a sample of the faults is tried, the same each time, spread over the mutations. `scripts/law` (`LAW_FAULTS=all`) tries them all and
//! writes `docs/law.md` from what the tests note. `LAW_ONLY=TEXT` takes the cases and scenarios with this text in their names.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on panics")]

mod lab;
#[path = "law/machine.rs"]
mod machine;
#[path = "law/recorded.rs"]
mod recorded;
#[path = "truth/scenario.rs"]
mod scenario;
#[path = "law/table.rs"]
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use basalt::function;
use basalt::plan::Kind;
use lab::host::Spec;
use lab::{Fingerprint, Host, Lab};
use machine::{Faults, Machine};
use scenario::{AREAS, Scenario};
use serde_json::json;
use table::{Case, Group, Place};

/// Whether all faults are tried, or a sample of them.
fn all() -> bool {
    std::env::var("LAW_FAULTS").as_deref() == Ok("all")
}

fn only(name: &str) -> bool {
    name.contains(&std::env::var("LAW_ONLY").unwrap_or_default())
}

/// What was tried, a line each, for `scripts/law`.
#[derive(Default)]
struct Notes {
    rows: String,
    broken: Vec<String>,
}

impl Notes {
    fn row(&mut self, row: serde_json::Value) {
        self.rows += &format!("{row}\n");
    }

    fn end(self, test: &str) {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("law");
        std::fs::create_dir_all(&folder).unwrap();
        if std::env::var_os("LAW_ONLY").is_none() {
            std::fs::write(folder.join(format!("{test}.jsonl")), self.rows).unwrap();
        }
        assert!(self.broken.is_empty(), "the law is broken {} times:\n{}", self.broken.len(), self.broken.join("\n"));
    }
}

#[test]
fn every_kind_and_every_function_has_its_cases() {
    let groups = table::groups();
    let cases: Vec<&Case> = groups.iter().flat_map(|group| &group.cases).collect();
    for kind in Kind::ALL {
        let count = cases.iter().filter(|case| case.kind() == Some(*kind)).count();
        assert!(count > 0, "there is no case in tests/law for the objects of the kind {}", kind.name());
    }
    let of_table = cases.iter().flat_map(|case| case.functions());
    let scenarios: Vec<Scenario> = AREAS.iter().flat_map(|area| scenario::scenarios(area)).collect();
    let known: BTreeSet<String> = of_table.chain(scenarios.iter().flat_map(scenario::functions).map(str::to_owned)).collect();
    let missing: Vec<&str> = function::entries().map(|entry| entry.name).filter(|name| !known.contains(*name)).collect();
    assert!(missing.is_empty(), "functions without a case in tests/law and without a scenario in tests/truth: {missing:?}");
}

/// Cases in a temporary root of this machine.
fn in_roots(place: Place, slow: bool) {
    let mut notes = Notes::default();
    for group in
        table::groups().iter().filter(|group| group.place == place && group.slow == slow && group.cases.iter().any(|case| only(&case.name)))
    {
        let Some(machine) = Machine::root(group) else { continue };
        group_holds(&machine, group, &mut notes);
    }
    notes.end(&format!("{}{}", place.name(), if slow { "-slow" } else { "" }));
}

fn group_holds(machine: &Machine, group: &Group, notes: &mut Notes) {
    for case in group.cases.iter().filter(|case| only(&case.name)) {
        let held = machine.hold(case, Faults { all: all() });
        notes.row(json!({"case": case.name, "kind": case.kind().map(Kind::name), "functions": case.functions().collect::<Vec<_>>(),
            "where": group.place.name(), "stopped": held.stopped, "killed": held.killed, "undone": held.undone, "all": all(), "held": held.broken.is_empty()}));
        notes.broken.extend(held.broken.iter().map(|fault| format!("{}: {fault}", case.name)));
    }
}

#[test]
fn in_temporary_roots() {
    in_roots(Place::Root, false);
}

#[test]
fn in_temporary_roots_that_take_long() {
    in_roots(Place::Root, true);
}

#[test]
fn with_recorded_commands() {
    in_roots(Place::Recorded, false);
}

/// Cases on a host of the lab: this program starts itself again there, as an agent would be.
fn on_a_host(place: Place, test: &str) {
    if machine::inside() {
        let mut notes = Notes::default();
        for group in table::groups().iter().filter(|group| group.place == place && group.cases.iter().any(|case| only(&case.name))) {
            let held = Machine::host(group).and_then(|machine| {
                group_holds(&machine, group, &mut notes);
                machine.end(group)
            });
            notes.broken.extend(held.err());
        }
        notes.rows.lines().for_each(|line| println!("\nROW {line}"));
        notes.broken.iter().for_each(|fault| println!("\nBROKEN {}", json!(fault)));
        return;
    }
    if !lab::required() {
        return;
    }
    let spec = if place == Place::Light { Spec::light("light") } else { Spec::systemd("server").disks(&["300m", "300m"]) };
    let lab = Lab::start(vec![spec]);
    let output = machine::enter(&lab.all()[0], test);
    let mut notes = Notes::default();
    for line in output.stdout.lines() {
        if let Some(row) = line.strip_prefix("ROW ") {
            notes.row(serde_json::from_str(row).unwrap());
        } else if let Some(fault) = line.strip_prefix("BROKEN ") {
            notes.broken.push(serde_json::from_str(fault).unwrap());
        }
    }
    assert_eq!(output.code, Some(0), "{output}");
    notes.end(place.name());
}

#[test]
fn on_a_light_host() {
    on_a_host(Place::Light, "on_a_light_host");
}

#[test]
fn on_a_host_with_systemd() {
    on_a_host(Place::Systemd, "on_a_host_with_systemd");
}

/// Where a run was to be killed is behind its end: this many mutations are tried at most.
const ENDLESS: u64 = 2000;

/// One test for each area of scenarios.
macro_rules! areas {
    ($($test:ident $area:literal)*) => {
        $(#[test]
        fn $test() {
            in_scenarios($area);
        })*

        #[test]
        fn each_area_of_scenarios_has_its_test() {
            assert_eq!(AREAS, [$($area),*]);
        }
    };
}

areas! {
    scenarios_of_files "files" scenarios_of_edits "edits" scenarios_of_accounts "accounts" scenarios_of_commands "commands"
    scenarios_of_requisites "requisites" scenarios_of_texts "texts" scenarios_of_tools "tools" scenarios_of_packages "packages" scenarios_of_dnf "dnf"
    scenarios_of_rpm "rpm" scenarios_of_services "services" scenarios_of_servers "servers" scenarios_of_storage "storage" scenarios_of_databases "databases"
}

/// The scenarios that a sample takes: few that have every function among them, and those that say so.
fn sample() -> BTreeSet<String> {
    let scenarios: Vec<Scenario> = AREAS.iter().flat_map(|area| scenario::scenarios(area)).collect();
    let mut left: BTreeSet<&str> = scenarios.iter().flat_map(scenario::functions).collect();
    let mut chosen: BTreeSet<String> = scenarios.iter().filter(|s| s.all_faults).map(|s| s.name.clone()).collect();
    while let Some(next) = scenarios.iter().max_by_key(|s| scenario::functions(s).intersection(&left).count()).filter(|_| !left.is_empty())
    {
        scenario::functions(next).iter().for_each(|name| _ = left.remove(name));
        chosen.insert(next.name.clone());
    }
    chosen
}

/// Plays an area's scenarios, killing the agent in each step before it is done whole.
fn in_scenarios(area: &str) {
    if !lab::required() {
        return;
    }
    let sample = sample();
    let mut scenarios = scenario::scenarios(area);
    scenarios.retain(|s| only(&s.name) && (all() || sample.contains(&s.name)));
    let specs = scenario::hosts(&scenarios);
    if specs.is_empty() {
        return Notes::default().end(&format!("scenarios-{area}"));
    }
    let lab = Lab::start(specs);
    lab.write("states/top.sls", "base:\n  '*': [wanted]\n");
    lab.commit("the top file");
    let mut notes = Notes::default();
    for (number, scenario) in scenarios.iter().enumerate() {
        let host = &lab[scenario.host.as_str()];
        let mut killed = 0;
        let held = play(&lab, host, scenario, number as u64, &mut killed);
        notes.row(json!({"case": scenario.name, "functions": scenario::functions(scenario), "where": scenario.host, "stopped": 0,
            "killed": killed, "undone": 0, "all": all(), "held": held.is_ok()}));
        notes.broken.extend(held.err().map(|fault| format!("{}, {fault}", scenario.name)));
        host.reset();
    }
    notes.end(&format!("scenarios-{area}"));
}

fn play(lab: &Lab, host: &Host, scenario: &Scenario, number: u64, killed: &mut u64) -> Result<(), String> {
    scenario.lay_out(lab, host)?;
    for (index, step) in scenario.steps.iter().enumerate() {
        step.lay_out(lab, host)?;
        let last = index + 1 == scenario.steps.len();
        // What does not come back by the plan's own words is not held to the law; and a sample looks at the last step alone.
        let whole = all() || scenario.all_faults;
        let mutations: Vec<u64> = match () {
            () if step.one_way => vec![],
            () if whole => (1..ENDLESS).collect(),
            () if last => vec![3 + number % 4, 7 + number % 9],
            () => vec![],
        };
        let before = (!mutations.is_empty()).then(|| host.fingerprint_root());
        for mutation in mutations {
            match kill_and_take_back(lab, host, mutation, before.as_ref()).map_err(|e| format!("step {}, {e}", index + 1))? {
                true => *killed += 1,
                false => break,
            }
        }
        if !last {
            let _ = lab.basalt(["apply", "--yes", host.name()]); // some are to fail
        }
    }
    Ok(())
}

/// Applies, killed at a mutation, and takes that back. Whether the run had so many.
fn kill_and_take_back(lab: &Lab, host: &Host, mutation: u64, before: Option<&Fingerprint>) -> Result<bool, String> {
    let bashrc = host.read("/root/.bashrc").unwrap_or_default();
    let runs = runs(host);
    // root's shell reads this before it starts the agent.
    host.write("/root/.bashrc", &format!("export BASALT_FAULT_KILL={mutation}\n{bashrc}"));
    let applied = lab.basalt(["apply", "--yes", host.name()]);
    host.write("/root/.bashrc", &bashrc);
    let mut said = String::new();
    let now = self::runs(host);
    let new: Vec<_> = now.difference(&runs).collect();
    // What can cut the connection the host has taken back by itself.
    let guarded = new.iter().any(|(run, _)| run.contains("-guard"));
    // A run that was killed before its journal began has done nothing.
    for (run, _) in new.into_iter().filter(|(_, begun)| *begun && !guarded) {
        let back = lab.basalt(["rollback", "--yes", "--destroy-data", "--with-later", "--run", run, host.name()]);
        if back.code != Some(0) {
            return Err(format!("killed at mutation {mutation}, the rollback ends with {:?}:\n{back}\n{applied}", back.code));
        }
        said = back.stdout;
    }
    let difference = before.map(|before| before.diff(&host.fingerprint_root())).unwrap_or_default();
    match difference.is_empty() {
        true => Ok(applied.code == Some(4) || guarded),
        false => Err(format!("killed at mutation {mutation}, the rollback leaves something:\n{difference}\n{applied}\n{said}")),
    }
}

/// The runs that a host knows, and whether their journals have begun.
fn runs(host: &Host) -> BTreeSet<(String, bool)> {
    let folder = host.root().join("var/lib/basalt/runs");
    let runs = std::fs::read_dir(folder).into_iter().flatten().flatten();
    runs.map(|run| {
        let begun = std::fs::metadata(run.path().join("journal")).is_ok_and(|journal| journal.len() > 0);
        (run.file_name().to_string_lossy().into_owned(), begun)
    })
    .collect()
}

/// What two pictures of a root differ in, a line each.
fn difference(was: &BTreeMap<String, String>, is: &BTreeMap<String, String>) -> Vec<String> {
    let paths: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
    let say = |text: Option<&String>| text.map_or("nothing".to_owned(), |text| text.chars().take(400).collect());
    let differ = paths.into_iter().filter(|path| was.get(*path) != is.get(*path));
    differ.map(|path| format!("{path}: {} → {}", say(was.get(path)), say(is.get(path)))).collect()
}
