//! Errors and findings as users read them: trees and the whole text that is said about them, held by snapshots.
//!
//! `tests/errors/AREA/CASE.txt` and `tests/lint/RULE.txt` each hold a line that says what they show, files (`--- path`), and behind `===` the
//! text. `BASALT_BLESS=1 cargo test --test errors` writes the texts anew, and `docs/errors.md` and the rules in `docs/lint.md` from them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use basalt::cli::print::plain;
use basalt::diagnostic::{Diagnostic, Severity};
use basalt::engine::compile::{Answers, Compile};
use basalt::engine::download::Downloads;
use basalt::engine::tree::{HostMatcher, TreeCompiler};
use basalt::lang::lint::{RULES, families};
use basalt::lang::root::{Folder, Listing, Mount, Roots};
use basalt::lang::{Compiler, HostInput, Options, What};
use basalt::value::Map;
use serde_json::Value as Json;

struct Case {
    file: PathBuf,
    /// `template/undefined_variable`
    name: String,
    about: String,
    files: BTreeMap<String, String>,
    /// The SLS that is compiled; `top` for the highstate.
    sls: String,
    said: String,
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn blessing() -> bool {
    std::env::var_os("BASALT_BLESS").is_some()
}

fn cases(below: &str) -> Vec<Case> {
    let mut files = Vec::new();
    let mut left = vec![folder(below)];
    while let Some(next) = left.pop() {
        for entry in std::fs::read_dir(&next).unwrap().flatten() {
            if entry.path().is_dir() { left.push(entry.path()) } else { files.push(entry.path()) }
        }
    }
    files.sort();
    files.into_iter().map(|file| read(file, below)).collect()
}

fn read(file: PathBuf, below: &str) -> Case {
    let text = std::fs::read_to_string(&file).unwrap();
    let name = file.strip_prefix(folder(below)).unwrap().with_extension("").display().to_string();
    let (input, said) = text.split_once("\n===").unwrap_or_else(|| panic!("{name} has no ==="));
    let (sls, said) = said.split_once('\n').unwrap_or((said, ""));
    let mut parts = input.split("\n--- ");
    let about = parts.next().unwrap().trim().to_owned();
    let files =
        parts.map(|part| part.split_once('\n').unwrap_or((part, ""))).map(|(path, text)| (path.to_owned(), format!("{text}\n"))).collect();
    let sls = if sls.trim().is_empty() { "web" } else { sls.trim() };
    Case { file, name, about, files, sls: sls.to_owned(), said: said.to_owned() }
}

/// Compares what is said now with what the cases hold, or writes it into them.
#[track_caller]
fn hold(cases: &[Case], say: impl Fn(&Case) -> String) -> Vec<String> {
    let mut wrong = String::new();
    let mut all = Vec::new();
    for case in cases {
        let now = say(case);
        if now.trim_end() != case.said.trim_end() {
            if blessing() {
                let text = std::fs::read_to_string(&case.file).unwrap();
                let (input, said) = text.split_once("\n===").unwrap();
                let line = said.split_once('\n').map_or(said, |(line, _)| line);
                std::fs::write(&case.file, format!("{input}\n==={line}\n{}\n", now.trim_end())).unwrap();
            } else {
                let _ = writeln!(wrong, "{}:\n{}\n--- was to be:\n{}\n", case.name, now, case.said);
            }
        }
        all.push(now);
    }
    assert!(wrong.is_empty(), "\n{wrong}\nBASALT_BLESS=1 takes this over");
    all
}

struct Files(BTreeMap<String, String>);

impl Listing for Files {
    fn paths(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
    fn read(&self, path: &str) -> std::io::Result<Option<(Arc<[u8]>, u32)>> {
        Ok(self.0.get(path).map(|text| (text.as_bytes().into(), 0o644)))
    }
}

/// What compiling the case's tree says, as a plan would.
fn compile(case: &Case) -> Vec<Diagnostic> {
    let listing: Arc<dyn Listing> = Arc::new(Files(case.files.clone()));
    let roots = |name: &str| Roots::base(vec![Mount { name: String::new(), tree: Arc::new(Folder::new(listing.clone(), name)) }]);
    let compiler = Compiler::new(roots("states"), roots("pillar"), Options::default());
    let (_, grains) = families().into_iter().next().unwrap();
    let what = if case.sls == "top" { What::Highstate } else { What::Sls(vec![case.sls.clone()]) };
    let nothing = tempfile::tempdir().unwrap();
    let downloads = Downloads::at(nothing.path().to_owned());
    let tree = TreeCompiler { compiler, what, pillar: None, nodegroups: Map::new(), downloads };
    match tree.compile("web1", &grains, &Answers::new()) {
        Err(errors) => errors,
        // What only a host can answer: said so where none is there.
        Ok(wanted) if !wanted.missing.is_empty() => {
            let matcher = HostMatcher { id: "web1", grains: &grains, nodegroups: &tree.nodegroups };
            let host = HostInput { id: "web1", grains: &grains, pillar_override: None, answers: &[], matcher: &matcher };
            tree.compiler.chunks(&host, &tree.what).found.unwrap_err()
        }
        Ok(_) => Vec::new(),
    }
}

#[test]
fn errors_say_what_where_why_and_what_to_do() {
    let cases = cases("tests/errors");
    assert!(cases.len() >= 40);
    let mut placeless = Vec::new();
    for case in &cases {
        for error in compile(case) {
            let there = error.span.as_ref().is_some_and(|span| span.line > 0 && span.column > 0);
            if !there && !error.summary.starts_with("there is no top.sls") {
                placeless.push(format!("{}: {}", case.name, error.summary));
            }
        }
    }
    let said = hold(&cases, |case| compile(case).iter().map(plain).collect::<Vec<_>>().join("\n"));
    assert!(said.iter().all(|text| !text.is_empty()), "a case says nothing");
    page("docs/errors.md", &catalogue(&cases, &said));
    assert!(placeless.is_empty(), "without file, line and column:\n{}", placeless.join("\n"));
}

/// What `basalt lint` says of the case's tree.
fn lint(case: &Case, arguments: &[&str]) -> String {
    let place = tempfile::tempdir().unwrap();
    for (path, text) in &case.files {
        let file = place.path().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    if case.files.contains_key("roster.yaml") {
        assert!(Command::new("git").args(["init", "-q"]).arg(place.path()).status().unwrap().success());
    }
    let output = Command::new(env!("CARGO_BIN_EXE_basalt")).arg("lint").args(arguments).current_dir(place.path()).output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn every_rule_of_lint_has_an_example() {
    let cases = cases("tests/lint");
    let said = hold(&cases, |case| lint(case, &[]));
    for rule in RULES {
        let index =
            cases.iter().position(|case| case.name == rule.code).unwrap_or_else(|| panic!("{} has no example in tests/lint", rule.code));
        assert!(said[index].contains(&format!("[{}]", rule.code)), "{} is not found in its example:\n{}", rule.code, said[index]);
    }
    let mut text = String::from("| rule | | finds |\n|---|---|---|\n");
    let severity = |severity| match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    for rule in RULES {
        let _ = writeln!(text, "| [`{0}`](#{0}) | {1} | {2} |", rule.code, severity(rule.severity), rule.about);
    }
    for (case, said) in cases.iter().zip(&said) {
        if RULES.iter().any(|rule| rule.code == case.name) {
            let _ = write!(text, "\n### {}\n\n{}\n\n{}", case.name, case.about, shown(case, said));
        }
    }
    section("docs/lint.md", "rules", &text);
}

/// What the schema of SARIF 2.1.0 asks of the objects that are written: which keys there must be, and which may be.
#[track_caller]
fn has_keys(object: &Json, required: &[&str], allowed: &[&str]) {
    let keys: Vec<&str> = object.as_object().unwrap_or_else(|| panic!("no object: {object}")).keys().map(String::as_str).collect();
    assert!(required.iter().all(|key| keys.contains(key)), "not all of {required:?}: {object}");
    let other: Vec<_> = keys.iter().filter(|key| !required.contains(key) && !allowed.contains(key)).collect();
    assert!(other.is_empty(), "{other:?} are not in the schema: {object}");
}

fn is_sarif_place(location: &Json, more: &[&str]) {
    has_keys(location, &["physicalLocation"], more);
    has_keys(&location["physicalLocation"], &["artifactLocation", "region"], &[]);
    let (file, region) = (&location["physicalLocation"]["artifactLocation"], &location["physicalLocation"]["region"]);
    has_keys(file, &["uri"], &[]);
    let uri = file["uri"].as_str().unwrap();
    assert!(!uri.is_empty() && !uri.starts_with('/') && !uri.contains([' ', ':', '\\']), "no relative reference: {uri}");
    has_keys(region, &["startLine"], &["startColumn"]);
    assert!(region["startLine"].as_u64() >= Some(1) && region["startColumn"].as_u64() >= Some(1), "{region}");
}

#[test]
fn sarif_is_what_the_schema_asks_for() {
    let levels = ["none", "note", "warning", "error"];
    for case in cases("tests/lint") {
        let said = lint(&case, &["--sarif"]);
        let log: Json = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{}: {e}: {said}", case.name));
        has_keys(&log, &["version", "runs", "$schema"], &[]);
        assert_eq!(log["version"], "2.1.0");
        assert!(log["$schema"].as_str().unwrap().ends_with("sarif-2.1.0.json"));
        let [run] = log["runs"].as_array().unwrap().as_slice() else { panic!("{}: not one run", case.name) };
        has_keys(run, &["tool", "results"], &["columnKind"]);
        assert_eq!(run["columnKind"], "unicodeCodePoints");
        has_keys(&run["tool"], &["driver"], &[]);
        let driver = &run["tool"]["driver"];
        has_keys(driver, &["name", "rules"], &["version"]);
        assert_eq!(driver["name"], "basalt");
        let rules = driver["rules"].as_array().unwrap();
        let ids: BTreeSet<&str> = rules.iter().map(|rule| rule["id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), rules.len(), "an id is there twice");
        for rule in rules {
            has_keys(rule, &["id"], &["shortDescription", "defaultConfiguration"]);
            has_keys(&rule["shortDescription"], &["text"], &[]);
            has_keys(&rule["defaultConfiguration"], &["level"], &[]);
            assert!(levels.contains(&rule["defaultConfiguration"]["level"].as_str().unwrap()), "{rule}");
        }
        let results = run["results"].as_array().unwrap();
        assert!(results.iter().any(|result| result["ruleId"] == case.name), "{} is not in its own example: {said}", case.name);
        for result in results {
            has_keys(result, &["ruleId", "ruleIndex", "level", "message", "locations"], &["relatedLocations"]);
            let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
            assert_eq!(rules[index]["id"], result["ruleId"]);
            assert!(levels.contains(&result["level"].as_str().unwrap()), "{result}");
            has_keys(&result["message"], &["text"], &[]);
            assert!(!result["message"]["text"].as_str().unwrap().is_empty(), "{result}");
            let [location] = result["locations"].as_array().unwrap().as_slice() else { panic!("{}: not one place: {result}", case.name) };
            is_sarif_place(location, &[]);
            for related in result["relatedLocations"].as_array().unwrap() {
                is_sarif_place(related, &["id", "message"]);
                has_keys(&related["message"], &["text"], &[]);
            }
        }
    }
}

fn catalogue(cases: &[Case], said: &[String]) -> String {
    let mut text = String::from(
        "# Errors\n\nWhat basalt says to trees that are wrong: the input, and the whole message. Written by `BASALT_BLESS=1 cargo test --test errors` from\n\
         `tests/errors/`, which holds each of them. `basalt lint` finds more, in whole trees: [lint.md](lint.md).\n",
    );
    let mut area = "";
    for (case, said) in cases.iter().zip(said) {
        let (of, _) = case.name.split_once('/').unwrap();
        if of != area {
            area = of;
            let title = match of {
                "limit" => "Limits",
                "pillar" => "Pillar",
                "requisite" => "Requisites",
                "state" => "States and arguments",
                "template" => "Templates",
                "tree" => "Top files and includes",
                _ => "YAML",
            };
            let _ = write!(text, "\n## {title}\n");
        }
        let _ = write!(text, "\n### {}\n\n{}", case.about, shown(case, said));
    }
    text
}

fn shown(case: &Case, said: &str) -> String {
    let mut text = String::new();
    for (path, content) in &case.files {
        let _ = write!(text, "`{path}`\n\n````\n{}\n````\n\n", content.trim_end());
    }
    let _ = write!(text, "says\n\n````text\n{}\n````\n", said.trim_end());
    text
}

/// A page that is made of the cases.
#[track_caller]
fn page(name: &str, text: &str) {
    if blessing() {
        std::fs::write(folder(name), text).unwrap();
    }
    let there = std::fs::read_to_string(folder(name)).unwrap_or_default();
    assert!(there == text, "{name} is not what the cases say: BASALT_BLESS=1 writes it");
}

/// The part of a page between `<!-- name -->` and `<!-- /name -->`.
#[track_caller]
fn section(name: &str, part: &str, text: &str) {
    let there = std::fs::read_to_string(folder(name)).unwrap();
    let (open, close) = (format!("<!-- {part} -->\n"), format!("<!-- /{part} -->"));
    let (before, rest) = there.split_once(&open).unwrap_or_else(|| panic!("{name} has no {open}"));
    let (_, after) = rest.split_once(&close).unwrap_or_else(|| panic!("{name} has no {close}"));
    page(name, &format!("{before}{open}{text}{close}{after}"));
}
