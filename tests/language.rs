//! The language against real Salt: every folder of `fixtures/language` is a tree, and `want.json` in it what Salt 3008.5 made of it
//! (`fixtures/language/answer.py` asks it again).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use basalt::engine::tree::HostMatcher;
use basalt::lang::root::{Directory, Mount, Roots};
use basalt::lang::{Compiler, HostInput, Options, What};
use basalt::value::{Map, Value};

fn roots(folder: &Path) -> Roots {
    let tree = Directory::new(folder, "").expect("a folder of the fixtures");
    Roots::base(vec![Mount { name: String::new(), tree: Arc::new(tree) }])
}

/// Keys as Python's `str()` writes them: so are they in Salt's answers.
fn text_keys(value: Value) -> Value {
    match value {
        Value::Map(map) => Value::Map(map.into_iter().map(|(k, v)| (k.to_text(), text_keys(v))).collect()),
        Value::List(items) => Value::List(items.into_iter().map(text_keys).collect()),
        scalar => scalar,
    }
}

/// JSON with sorted keys, in which `true` is not 1 and 1 is not 1.0.
fn told(value: Value) -> serde_json::Value {
    fn sorted(value: serde_json::Value) -> serde_json::Value {
        match value {
            serde_json::Value::Object(map) => {
                let mut pairs: Vec<_> = map.into_iter().collect();
                pairs.sort_by(|a, b| a.0.cmp(&b.0));
                pairs.into_iter().map(|(k, v)| (k, sorted(v))).collect()
            }
            serde_json::Value::Array(items) => items.into_iter().map(sorted).collect(),
            other => other,
        }
    }
    sorted(serde_json::to_value(text_keys(value)).expect("values are JSON"))
}

fn cases(folder: &Path, out: &mut Vec<PathBuf>) {
    if folder.join("want.json").exists() {
        return out.push(folder.to_owned());
    }
    for entry in std::fs::read_dir(folder).expect("the fixtures").flatten() {
        if entry.path().is_dir() {
            cases(&entry.path(), out);
        }
    }
}

#[test]
fn every_tree_compiles_as_salt_compiles_it() {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/language");
    let mut folders = Vec::new();
    cases(&base, &mut folders);
    assert!(folders.len() > 20, "the fixtures are not there");
    let read = |path: PathBuf| std::fs::read_to_string(path).expect("a fixture");
    let grains: Map = serde_json::from_str(&read(base.join("grains.json"))).expect("grains");
    let (nodegroups, mut wrong) = (Map::new(), Vec::new());
    for folder in folders {
        let name = folder.strip_prefix(&base).expect("below the fixtures").display().to_string();
        let want: serde_json::Value = serde_json::from_str(&read(folder.join("want.json"))).expect("an answer");
        let states = Some(folder.join("states")).filter(|p| p.is_dir());
        let what = if states.is_some() { What::Highstate } else { What::Sls(vec!["a".into()]) };
        let pillar = folder.join("pillar");
        let pillars = if pillar.is_dir() { roots(&pillar) } else { Roots::new() };
        let compiler = Compiler::new(roots(&states.unwrap_or(folder)), pillars, Options::default());
        let matcher = HostMatcher { id: "minion1.example.com", grains: &grains, nodegroups: &nodegroups };
        let host = HostInput { id: "minion1.example.com", grains: &grains, pillar_override: None, answers: &[], matcher: &matcher };
        match compiler.chunks(&host, &what).found {
            Ok(chunks) => {
                let low = told(Value::List(chunks.into_iter().map(|c| Value::Map(c.map)).collect()));
                // As text: the order of keys counts.
                let (low, wanted) = (low.to_string(), want["low"].to_string());
                if low != wanted {
                    wrong.push(format!("{name}\n  want {}\n  got  {low}", want["low"]));
                }
            }
            Err(errors) if want["ok"] == true => wrong.push(format!("{name}: {}", errors[0])),
            Err(errors) => assert!(errors.iter().all(|e| e.span.is_some()), "{name}: an error without a place"),
        }
        if let (Some(want), Ok(got)) = (want.get("pillar"), compiler.pillar_data(&host).found) {
            let got = told(Value::Map(got));
            let (got, want) = (got.to_string(), want.to_string());
            if got != want {
                wrong.push(format!("{name}: pillar\n  want {want}\n  got  {got}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} trees differ from Salt:\n{}", wrong.len(), wrong.join("\n"));
}
