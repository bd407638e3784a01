//! The documents are true where that can be held cheaply: they name every command, setting, variable, exit code and error class, their links lead
//! somewhere, and their YAML is YAML that basalt takes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use basalt::engine::settings::{SALT_OPTIONS, Settings};
use basalt::fleet::Roster;
use basalt::fleet::cluster::Cluster;
use basalt::value::Map;

const PACKAGE: &str = env!("CARGO_MANIFEST_DIR");

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(PACKAGE).join(name)).unwrap()
}

fn documents() -> Vec<PathBuf> {
    let in_folder = |folder: &str| std::fs::read_dir(Path::new(PACKAGE).join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<PathBuf> = in_folder("")
        .chain(in_folder("docs"))
        .chain(in_folder("docs/states"))
        .filter(|p| p.extension().is_some_and(|e| e == "md"))
        .collect();
    all.sort();
    assert!(all.len() > 6, "{all:?}");
    all
}

/// The code blocks of a language: the number of their first line, and their text.
fn blocks(text: &str, language: &str) -> Vec<(usize, String)> {
    let (mut found, mut open) = (Vec::new(), None);
    for (number, line) in text.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(name)) => open = Some((name == language, number + 2, String::new())),
            (Some(_), Some(_)) => {
                if let Some((true, start, block)) = open.take() {
                    found.push((start, block));
                }
            }
            (Some((_, _, block)), None) => *block += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    found
}

/// A document without its blocks of code.
fn prose(text: &str) -> String {
    let mut inside = false;
    let outside = |line: &&str| {
        let fence = line.starts_with("```");
        inside ^= fence;
        !inside && !fence
    };
    text.lines().filter(outside).collect::<Vec<_>>().join("\n")
}

/// GitHub's name for a heading.
fn anchor(heading: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    heading.trim().to_lowercase().replace(' ', "-").chars().filter(|c| plain(*c)).collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    text.lines().filter(|line| line.starts_with('#')).map(|line| anchor(line.trim_start_matches('#'))).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut broken = Vec::new();
    for document in documents() {
        let text = std::fs::read_to_string(&document).unwrap();
        for link in prose(&text).split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            if link.contains("://") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { document.clone() } else { document.parent().unwrap().join(file) };
            let there = target.exists() && (heading.is_empty() || anchors(&std::fs::read_to_string(&target).unwrap()).contains(heading));
            if !there {
                broken.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Every name stands in the guide, between backticks.
fn stand_in_the_guide<'a>(what: &str, names: impl IntoIterator<Item = &'a str>) {
    let guide = read("docs/guide.md");
    let missing: Vec<&str> = names.into_iter().filter(|name| !guide.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/guide.md lacks {what}: {}", missing.join(", "));
}

#[test]
fn the_guide_names_every_command() {
    let help = Command::new(env!("CARGO_BIN_EXE_basalt")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let list = help.split_once("Commands:\n").unwrap().1.split_once("\n\n").unwrap().0;
    let commands: Vec<&str> =
        list.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).filter(|c| !c.is_empty()).collect();
    assert!(commands.len() > 10 && commands.contains(&"plan"), "{commands:?}");
    stand_in_the_guide("commands", commands);
}

#[test]
fn the_guide_names_every_setting_and_variable() {
    // The keys as the parser has them.
    let guide = read("docs/guide.md");
    let section = guide.split_once("\n## Settings\n").unwrap().1.split("\n## ").next().unwrap();
    let settings = read("src/engine/settings.rs");
    let keys = settings.split_once("const KEYS").unwrap().1.split_once("];").unwrap().0;
    let keys: Vec<&str> = keys.split('"').skip(1).step_by(2).collect();
    assert!(keys.contains(&"plan_commands"), "{keys:?}");
    for key in keys.into_iter().chain(SALT_OPTIONS) {
        assert!(section.contains(&format!("`{key}`")), "the settings of docs/guide.md lack {key}");
    }
    // Variables that users set, as the sources read them.
    let context = ["context", "opened", "mod", "join"].map(|file| read(&format!("src/cli/{file}.rs"))).concat();
    let is_name = |c: char| c.is_ascii_uppercase() || c == '_';
    let variables: BTreeSet<&str> =
        context.match_indices("\"BASALT_").map(|(at, _)| context[at + 1..].split(|c| !is_name(c)).next().unwrap_or_default()).collect();
    assert!(variables.len() > 4, "{variables:?}");
    stand_in_the_guide("variables", variables);
}

#[test]
fn the_guide_names_every_class_of_errors() {
    let source = read("src/diagnostic.rs");
    let list = source.split_once("pub enum Code {").unwrap().1.split_once("\n}").unwrap().0;
    let codes = list.lines().filter_map(|line| line.trim().strip_suffix(',')).filter(|name| name.chars().all(char::is_alphanumeric));
    let kebab = |name: &str| {
        let upper =
            |(i, c): (usize, char)| if c.is_uppercase() && i > 0 { format!("-{}", c.to_lowercase()) } else { c.to_lowercase().to_string() };
        name.chars().enumerate().map(upper).collect::<String>()
    };
    let codes: Vec<String> = codes.map(kebab).collect();
    assert!(codes.contains(&"host-key".to_owned()) && codes.len() > 10, "{codes:?}");
    stand_in_the_guide("classes of errors", codes.iter().map(String::as_str));
}

#[test]
fn the_yaml_of_the_documents_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let grains = folder.path().join("grains.json");
    std::fs::write(&grains, r#"{"id": "web1", "os": "Debian"}"#).unwrap();
    let mut seen = (0, 0, 0);
    // The examples of docs/states have a test of their own.
    for document in documents().into_iter().filter(|document| !document.parent().unwrap().ends_with("states")) {
        let text = std::fs::read_to_string(&document).unwrap();
        for (line, block) in blocks(&text, "yaml") {
            let at = format!("{}:{line}", document.display());
            match block.lines().next() {
                Some("# basalt.yaml") => {
                    Settings::parse(&block, &at).unwrap_or_else(|e| panic!("{e}"));
                    seen.0 += 1;
                }
                // A roster: what it says is taken without a warning.
                _ if block.contains("\n  host: ") => {
                    let roster = Roster::parse(&block, &at, &Map::new()).unwrap_or_else(|e| panic!("{e}"));
                    assert!(roster.warnings.is_empty() && !roster.hosts.is_empty(), "{at}: {:?}", roster.warnings);
                    seen.1 += 1;
                }
                Some(name) if name.starts_with("# orchestration/") => {
                    let root = folder.path().join(format!("orchestration{line}"));
                    std::fs::create_dir(&root).unwrap();
                    std::fs::write(root.join("it.sls"), &block).unwrap();
                    let answer = show(&root, "low", &grains, &at, &["it"]);
                    let jobs = answer["low"].as_array().unwrap();
                    assert!(!jobs.is_empty() && jobs.iter().all(|job| job["state"] == "salt"), "{at}: {jobs:?}");
                }
                Some("# processes.yaml") => {
                    let names = [("address", "192.0.2.1")].into_iter().collect::<Map>();
                    let names = names.iter().map(|(k, v)| (k.clone(), v.clone())).chain([("multiplicity".into(), 1.into())]).collect();
                    let text = basalt::engine::lone::render("processes.yaml", &block, Map::new(), names).unwrap();
                    assert!(!basalt::fleet::process::roles(&text, &at).unwrap().is_empty());
                }
                Some("# cluster.yaml") => {
                    Cluster::parse(Some(&block), &BTreeMap::new()).unwrap_or_else(|e| panic!("{e}"));
                }
                Some("# states/top.sls") => {
                    let root = folder.path().join(format!("top{line}"));
                    std::fs::create_dir(&root).unwrap();
                    std::fs::write(root.join("top.sls"), &block).unwrap();
                    show(&root, "top", &grains, &at, &[]);
                }
                _ => {
                    let root = folder.path().join(format!("sls{line}"));
                    std::fs::create_dir_all(&root).unwrap();
                    std::fs::write(root.join("it.sls"), &block).unwrap();
                    let answer = show(&root, "low", &grains, &at, &["it"]);
                    answer["low"].as_array().unwrap().iter().for_each(|low| known(low, &at));
                    seen.2 += 1;
                }
            }
        }
    }
    assert!(seen.0 > 0 && seen.1 > 1 && seen.2 > 1, "settings, rosters, SLS: {seen:?}");
}

/// What `basalt show` says of these states.
fn show(root: &Path, what: &str, grains: &Path, at: &str, sls: &[&str]) -> serde_json::Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_basalt"));
    command.args(["show", what, "--json", "--grains"]).arg(grains).arg("--file-root").arg(root).args(sls);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{at}: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The function of a low chunk and its arguments exist.
fn known(low: &serde_json::Value, at: &str) {
    let of_all = ["state", "fun", "name", "order", "require", "watch", "require_in", "onchanges", "unless", "onlyif", "creates"];
    let function = format!("{}.{}", low["state"].as_str().unwrap(), low["fun"].as_str().unwrap());
    let entry = basalt::function::find(&function).unwrap_or_else(|| panic!("{at}: there is no {function}"));
    for argument in low.as_object().unwrap().keys().filter(|key| !key.starts_with("__")) {
        let there = entry.args.iter().any(|a| a.name == argument) || of_all.contains(&argument.as_str());
        assert!(there, "{at}: {function} has no argument {argument}");
    }
}
