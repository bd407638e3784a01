//! Formulas as people publish them: applied as they are, nothing left to plan, and taken back to the byte.
//!
//! A case is a file `NAME.yaml` about the formula in the folder `NAME`:
//!
//! ```yaml
//! states: [users]        # what the top file gives the host
//! packages: [sudo]       # Debian packages that it installs besides those that every host has (scripts/formulas reads this line)
//! before: touch /etc/x   # optional: a shell script on the host
//! pillar: {key: value}
//! ```
//!
//! Those of `tests/formulas/own/` stand beside small formulas of our own in the shapes that public ones have; every run of the tests applies them.
//! `scripts/formulas` applies public ones, which are not in this repository.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on panics")]

mod lab;

use std::path::{Path, PathBuf};

use basalt::value::Value as Yaml;
use basalt::yaml;
use lab::host::Spec;
use lab::{Host, Lab};
use serde_json::{Value, json};

/// Where the controller serves packages to the host.
const PORT: &str = "8099";

struct Case {
    states: Vec<String>,
    before: String,
    /// An SLS.
    pillar: String,
}

fn case(path: &Path) -> Case {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{name}: {e}"));
    let value: Yaml = yaml::load(&text, &name).unwrap_or_else(|fault| panic!("{fault:?}"));
    let value = serde_json::to_value(&value).unwrap();
    for key in value.as_object().unwrap().keys() {
        assert!(["states", "packages", "before", "pillar"].contains(&key.as_str()), "{name} has an unknown {key:?}");
    }
    let states = value["states"].as_array().unwrap().iter().map(|state| state.as_str().unwrap().to_owned()).collect();
    Case { states, before: value["before"].as_str().unwrap_or_default().to_owned(), pillar: format!("#!json\n{}\n", value["pillar"]) }
}

/// With the states and the pillar that a formula tests itself with, or those that it shows.
fn example(formula: &Path) -> Case {
    let name = formula.file_name().unwrap().to_str().unwrap().trim_end_matches("-formula").to_owned();
    let text = |path: &str| std::fs::read_to_string(formula.join(path)).ok();
    let kitchen =
        text("kitchen.yml").and_then(|kitchen| yaml::load(&kitchen, "kitchen.yml").ok()).map(|yaml| serde_json::to_value(&yaml).unwrap());
    let top = kitchen.as_ref().and_then(|kitchen| kitchen["suites"][0]["provisioner"]["state_top"]["base"]["*"].as_array());
    // Its tests may bring states of their own along.
    let own = |state: &&str| [".sls", "/init.sls"].iter().any(|end| formula.join(state.replace('.', "/") + end).exists());
    let states: Vec<String> = top.into_iter().flatten().filter_map(Value::as_str).filter(own).map(str::to_owned).collect();
    let states = if states.is_empty() { vec![name] } else { states };
    Case { states, before: String::new(), pillar: text("test/salt/pillar/default.sls").or(text("pillar.example")).unwrap_or_default() }
}

/// What came of a formula.
#[derive(Default)]
struct Told {
    states: u64,
    changes: usize,
    unknown: usize,
    applied: bool,
    second: usize,
    exact: bool,
    lies: Vec<String>,
}

impl Told {
    fn is_clean(&self) -> bool {
        self.applied && self.second == 0 && self.exact && self.lies.is_empty()
    }

    fn lie(&mut self, text: impl Into<String>) {
        self.lies.push(text.into());
    }
}

fn play(lab: &Lab, host: &Host, formula: &Path, case: &Case) -> Told {
    let mut told = Told::default();
    for folder in ["states", "pillar"] {
        std::fs::remove_dir_all(lab.state().join(folder)).ok();
    }
    std::fs::create_dir_all(lab.state().join("states")).unwrap();
    let copied = std::process::Command::new("sh")
        .args(["-ec", "cd \"$1\"; for entry in *; do cp -r \"$entry\" \"$2/\"; done", "sh"])
        .args([formula, &lab.state().join("states")])
        .status();
    assert!(copied.unwrap().success());
    lab.write("states/top.sls", &format!("base:\n  '*': {}\n", json!(case.states)));
    lab.write("pillar/top.sls", "base:\n  '*': [data]\n");
    lab.write("pillar/data.sls", &case.pillar);
    lab.commit("a formula and a pillar");
    let made = host.sh(&format!("set -e\n{}", case.before));
    if made.code != Some(0) {
        told.lie(format!("the script before it fails: {}", made.stderr));
    }
    let before = host.fingerprint_root();
    let plan = lab.basalt(["plan", "--json", host.name()]);
    let Some((changes, unchanged)) = planned(&plan.stdout) else {
        told.lie(format!("there is no plan:\n{}{}", shortly(&plan.stdout), shortly(&plan.stderr)));
        return told;
    };
    (told.changes, told.states) = (changes.len(), unchanged + changes.len() as u64);
    told.unknown = changes.iter().filter(|change| change["known"] == false).count();
    told.lies.extend(changes.iter().filter(|c| !c["fails"].is_null()).map(|c| format!("{} {}: {}", c["state"], c["name"], c["fails"])));
    let applied = lab.basalt(["apply", "--json", "--yes", host.name()]);
    told.applied = applied.code == Some(0);
    for line in lines(&applied.stdout, "state_done").iter().filter(|line| line["result"] == "failed") {
        told.lie(format!("failed: {} {}: {}", line["state"], line["name"], line["comment"]));
    }
    match planned(&lab.basalt(["plan", "--json", host.name()]).stdout) {
        None => told.lie("there is no second plan"),
        Some((left, _)) => {
            let left: Vec<&Value> = left.iter().filter(|change| change["action"] != "none" || !change["fails"].is_null()).collect();
            told.second = left.len();
            told.lies
                .extend(left.iter().map(|c| format!("again: {} {} {}: {} {}", c["action"], c["state"], c["name"], c["reason"], c["diff"])));
        }
    }
    match lines(&applied.stdout, "run_started").first().and_then(|line| line["run"].as_str().map(str::to_owned)) {
        None => told.lie(format!("nothing was run:\n{}{}", shortly(&applied.stdout), shortly(&applied.stderr))),
        Some(run) => {
            let output = lab.basalt(["rollback", "--yes", "--destroy-data", "--json", "--run", &run, host.name()]);
            if output.code != Some(0) {
                let failed: Vec<Value> =
                    lines(&output.stdout, "state_done").into_iter().filter(|line| line["result"] == "failed").collect();
                told.lie(format!("the rollback ends with {:?}: {failed:?} {}", output.code, shortly(&output.stderr)));
            }
            let difference = before.diff(&host.fingerprint_root());
            told.exact = output.code == Some(0) && difference.is_empty();
            if !difference.is_empty() {
                told.lie(format!("the rollback leaves something:\n{difference}"));
            }
        }
    }
    told
}

fn shortly(text: &str) -> String {
    text.chars().take(3000).collect()
}

fn lines(output: &str, of: &str) -> Vec<Value> {
    output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).filter(|line| line["type"] == of).collect()
}

/// The steps of a plan, and how many states stay as they are.
fn planned(output: &str) -> Option<(Vec<Value>, u64)> {
    match &lines(output, "host_planned")[..] {
        [host] => Some((host["changes"].as_array()?.clone(), host["unchanged"].as_u64()?)),
        _ => None,
    }
}

fn cases(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect();
    cases.sort();
    cases
}

#[test]
fn formulas_of_the_usual_shapes_apply_clean() {
    if !lab::required() {
        return;
    }
    let lab = Lab::start(vec![Spec::systemd("server")]);
    let host = &lab["server"];
    let all = cases("tests/formulas/own");
    assert!(all.len() >= 2);
    for path in all {
        let told = play(&lab, host, &path.with_extension(""), &case(&path));
        assert!(told.is_clean(), "{}:\n{}", path.display(), told.lies.join("\n"));
        assert!(told.changes > 4 && told.unknown <= 1, "{}: {} changes, {} unknown", path.display(), told.changes, told.unknown);
    }
}

#[test]
fn every_public_formula_has_a_pillar_that_is_read() {
    let all = cases("tests/formulas");
    assert!(all.len() >= 3);
    for path in all {
        assert!(!case(&path).states.is_empty(), "{}", path.display());
    }
}

/// `scripts/formulas` names the checkouts and the folder of packages.
#[test]
#[ignore = "needs checkouts of public formulas: scripts/formulas"]
fn public_formulas() {
    if !lab::required() {
        return;
    }
    let named = std::env::var("FORMULAS").unwrap_or_default();
    let lab = Lab::start(vec![Spec::systemd("server")]);
    let host = &lab["server"];
    let packages = std::env::var("FORMULAS_PACKAGES").unwrap_or_default();
    let serve = ["-m", "http.server", "--bind", "198.18.0.254", "--directory", &packages, PORT];
    let mut command = lab.command(&lab.state(), "python3");
    let mut server = command.args(serve).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let notes = Path::new(env!("CARGO_TARGET_TMPDIR")).join("formulas.jsonl");
    let (mut noted, mut dirty) = (String::new(), Vec::new());
    for formula in named.split(':').filter(|name| !name.is_empty()).map(Path::new) {
        let name = formula.file_name().unwrap().to_str().unwrap();
        let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/formulas/{name}.yaml"));
        let mut case = if ours.exists() { case(&ours) } else { example(formula) };
        let source = format!(
            "echo 'deb [trusted=yes] http://198.18.0.254:{PORT}/ ./' >/etc/apt/sources.list.d/debian.list; apt-get -q update >/dev/null\n"
        );
        case.before.insert_str(0, &source);
        let told = play(&lab, host, formula, &case);
        noted += &json!({"formula": name, "states": told.states, "changes": told.changes, "unknown": told.unknown, "applied": told.applied,
            "second": told.second, "exact": told.exact, "lies": told.lies})
        .to_string();
        noted.push('\n');
        std::fs::write(&notes, &noted).unwrap();
        if !told.is_clean() {
            dirty.push(format!("{name}:\n{}", told.lies.join("\n")));
        }
        host.reset();
    }
    server.kill().ok();
    server.wait().unwrap();
    assert!(dirty.is_empty(), "{}", dirty.join("\n\n"));
}
