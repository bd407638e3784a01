//! The language against real Salt: every case of `tests/conformance` compiles to what Salt 3008.5 made of it.
//!
//! `tests/conformance/README.md` says how a case is written; `scripts/conformance` asks Salt again.

use std::path::Path;
use std::sync::Arc;

use basalt::engine::tree::HostMatcher;
use basalt::lang::jinja::{self, Environments, Limits, Offline, Renderer};
use basalt::lang::low::Chunk;
use basalt::lang::root::{Memory, Mount, Roots};
use basalt::lang::{Compiler, HostInput, Options, Results, What};
use basalt::value::{Map, Value};
use indexmap::IndexMap;

/// One rule: a tree, what it is compiled with, and what Salt says.
struct Case {
    /// `requisites/require.txt:12`
    place: String,
    area: String,
    rule: String,
    sections: Vec<(String, String)>,
}

/// Files by environment and path.
type Files = IndexMap<String, Memory>;

const ANSWERS: [&str; 5] = ["low", "pillar", "text", "top", "refused"];

impl Case {
    fn get(&self, header: &str) -> Option<&str> {
        self.sections.iter().find(|(name, _)| name == header).map(|(_, body)| body.as_str())
    }

    fn yaml(&self, header: &str) -> Map {
        let value = self.get(header).map(|text| basalt::yaml::load(text, &self.place).expect("YAML"));
        value.as_ref().and_then(Value::as_map).cloned().unwrap_or_default()
    }

    fn files(&self) -> (Files, Files) {
        let (mut states, mut pillar) = (Files::new(), Files::new());
        for (header, body) in &self.sections {
            let (name, body) = match header.strip_suffix(" (JSON)") {
                Some(name) => (name, serde_json::from_str(body).expect("a string in JSON")),
                None => (header.as_str(), body.clone()),
            };
            let (side, name) = match name.strip_prefix("pillar: ") {
                Some(rest) => (&mut pillar, rest),
                None => match name.strip_prefix("pillar ") {
                    Some(rest) => (&mut pillar, rest),
                    None => (&mut states, name),
                },
            };
            let (env, path) = name.split_once(": ").unwrap_or(("base", name));
            if path.contains(['.', '/']) {
                side.entry(env.to_owned()).or_default().0.insert(path.to_owned(), body.into_bytes());
            }
        }
        (states, pillar)
    }

    /// What basalt makes of the tree, in the words of the answers: the answer's name and its text.
    fn compile(&self, grains: &Map, nodegroups: &Map, master: Map) -> Vec<(String, String)> {
        let (states, pillar) = self.files();
        let has_no_states = states.is_empty();
        let top = master.get("state_top").and_then(Value::as_str).unwrap_or("top.sls");
        let has_top = states.values().any(|tree| tree.0.contains_key(top));
        let sls = self.get("sls").unwrap_or("a").split_whitespace().map(str::to_owned).collect();
        let what = if has_top { What::Highstate } else { What::Sls(sls) };
        let source = states.get("base").and_then(|tree| tree.0.get("a.sls")).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let templates = jinja_files(&states);
        let environments = Environments::of(&master);
        let compiler = Compiler::new(roots(states), roots(pillar), Options { master, ..Options::default() });
        let id = grains.get("id").and_then(Value::as_str).unwrap_or_default();
        let matcher = HostMatcher { id, grains, nodegroups };
        let host = HostInput { id, grains, pillar_override: None, answers: &[], matcher: &matcher };
        let wanted: Vec<&str> =
            self.sections.iter().map(|(name, _)| name.trim_end_matches(" (JSON)")).filter(|name| ANSWERS.contains(name)).collect();
        let wanted = match *wanted {
            ["refused"] if has_no_states => vec!["pillar"],
            ["refused"] => vec!["low"],
            _ => wanted,
        };
        let mut out = Vec::new();
        for name in wanted {
            let told = match name {
                "low" => compiler.chunks(&host, &what).found.map(|chunks| chunks.iter().map(|c| chunk(c) + "\n").collect()),
                "pillar" => compiler.pillar_data(&host).found.map(|map| pairs(&map)),
                "top" => compiler.top(&host).found.map(|top| top.iter().map(|(env, sls)| format!("{env}: {}\n", sls.join(", "))).collect()),
                _ => compiler.pillar_data(&host).found.and_then(|pillar| {
                    let renderer = Renderer::new(templates.clone(), environments, Limits::default());
                    let opts: Map = [("id", Value::str(id))].into_iter().collect();
                    let context = jinja::Context::new(Arc::new(grains.clone()), Arc::new(pillar), Arc::new(opts), Arc::new(Offline));
                    let rendered = renderer.render("a.sls", source.as_deref().unwrap_or(""), &context.for_sls("base", "a", "a.sls"));
                    rendered.map(|rendered| rendered.text).map_err(|error| vec![*error])
                }),
            };
            match refusal(told) {
                Ok(told) => out.push((name.to_owned(), told)),
                Err(refused) => return vec![("refused".to_owned(), refused)],
            }
        }
        out
    }

    /// What differs from Salt's answer; nothing where it is the same.
    fn difference(&self, got: &[(String, String)]) -> Option<String> {
        for (header, want) in &self.sections {
            let (name, want) = match header.strip_suffix(" (JSON)") {
                Some(name) => (name, serde_json::from_str(want).expect("a string in JSON")),
                None => (header.as_str(), want.clone()),
            };
            if !ANSWERS.contains(&name) {
                continue;
            }
            match got.iter().find(|(answer, _)| *answer == name) {
                // Of a refusal only that it is one: the words are ours.
                Some(_) if name == "refused" => {}
                Some((_, got)) if *got == want => {}
                Some((_, got)) => {
                    let (want, got): (Vec<_>, Vec<_>) = (want.split('\n').collect(), got.split('\n').collect());
                    let at = want.iter().zip(&got).position(|(w, g)| w != g).unwrap_or(want.len().min(got.len()));
                    let line = |lines: &[&str]| lines.get(at).map_or("(nothing)".to_owned(), |line| (*line).to_owned());
                    return Some(format!("{name}, line {}\n    Salt:   {}\n    basalt: {}", at + 1, line(&want), line(&got)));
                }
                None => {
                    let (other, text) = got.first().map_or(("nothing", ""), |(other, text)| (other, text));
                    return Some(format!("Salt: {name}\n{want}  basalt: {other}\n{text}"));
                }
            }
        }
        None
    }
}

/// Errors in lines, each with its place.
fn refusal(told: Results<String>) -> Result<String, String> {
    told.map_err(|errors| {
        assert!(!errors.is_empty());
        errors.iter().map(|error| format!("{error}\n")).collect()
    })
}

fn roots(files: Files) -> Roots {
    let mut roots = Roots::base(Vec::new());
    for (env, tree) in files {
        roots.environment(&env, vec![Mount { name: String::new(), tree: Arc::new(tree) }]);
    }
    roots
}

struct Shelf(IndexMap<String, String>);

impl jinja::Templates for Shelf {
    fn read(&self, _saltenv: &str, path: &str) -> Option<jinja::Source> {
        self.0.get(path).map(|text| jinja::Source { file: path.into(), text: text.as_str().into() })
    }

    fn list(&self, _saltenv: &str) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
}

fn jinja_files(states: &Files) -> Arc<Shelf> {
    let base = states.get("base").into_iter().flat_map(|tree| &tree.0);
    Arc::new(Shelf(base.map(|(path, bytes)| (path.clone(), String::from_utf8_lossy(bytes).into_owned())).collect()))
}

/// JSON as Python writes it. Keys are text, as Python's `str()` writes them.
fn json(value: &Value) -> String {
    match value {
        Value::Map(map) => {
            let pairs: Vec<String> = map.iter().map(|(k, v)| format!("{}: {}", quoted(&k.to_text()), json(v))).collect();
            format!("{{{}}}", pairs.join(", "))
        }
        Value::List(items) => format!("[{}]", items.iter().map(json).collect::<Vec<_>>().join(", ")),
        Value::Float(_) => value.to_text(),
        Value::Str(text) => quoted(text),
        scalar => serde_json::to_string(scalar).expect("a scalar is JSON"),
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string is JSON")
}

fn pairs(map: &Map) -> String {
    map.iter().map(|(key, value)| format!("{}: {}\n", quoted(&key.to_text()), json(value))).collect()
}

/// A low chunk in a line: order, function and id; what is not usual; the other arguments.
fn chunk(chunk: &Chunk) -> String {
    let mut map = (*chunk.map).clone();
    let mut take = |key: &str| map.remove(key);
    let text = |value: Option<Value>| value.map(|v| v.to_text()).unwrap_or_default();
    let (order, state, fun) = (take("order").unwrap_or_default(), text(take("state")), text(take("fun")));
    let (id, name, sls, env) =
        (take("__id__").unwrap_or_default(), take("name").unwrap_or_default(), text(take("__sls__")), text(take("__env__")));
    let mut out = format!("{} {state}.{fun} {}", json(&order), id.to_text());
    if name != id {
        out += &format!(" named {}", json(&name));
    }
    if sls != "a" {
        out += &format!(" in {sls}");
    }
    if env != "base" {
        out += &format!(" of {env}");
    }
    if let Some(Value::List(above)) = take("__sls_included_from__") {
        out += &format!(" from {}", above.iter().map(Value::to_text).collect::<Vec<_>>().join(", "));
    }
    let mut rest: Vec<(String, Value)> = map.into_iter().map(|(k, v)| (k.to_text(), v)).collect();
    rest.sort_by(|a, b| a.0.cmp(&b.0));
    if !rest.is_empty() {
        out += &format!(" {}", json(&Value::Map(rest.into_iter().collect())));
    }
    out
}

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance"))
}

fn cases() -> Vec<Case> {
    let mut files = Vec::new();
    for area in std::fs::read_dir(folder()).expect("the cases").flatten().filter(|entry| entry.path().is_dir()) {
        files.extend(std::fs::read_dir(area.path()).expect("an area").flatten().map(|entry| entry.path()));
    }
    files.sort();
    let mut out = Vec::new();
    for file in files {
        let name = file.strip_prefix(folder()).expect("below").display().to_string();
        let area = name.split('/').next().unwrap_or_default().to_owned();
        let text = std::fs::read_to_string(&file).expect("a chapter");
        let first = out.len();
        for (number, line) in text.split_inclusive('\n').enumerate() {
            let header = line.strip_prefix("-- ").and_then(|rest| rest.strip_suffix(" --\n"));
            if let Some(rule) = line.strip_prefix("== ") {
                let place = format!("{name}:{}", number + 1);
                out.push(Case { place, area: area.clone(), rule: rule.trim().to_owned(), sections: Vec::new() });
            } else if let Some(case) = out.get_mut(first..).and_then(|of_file| of_file.last_mut()) {
                match (header, case.sections.last_mut()) {
                    (Some(header), _) => case.sections.push((header.to_owned(), String::new())),
                    (None, Some((_, body))) => body.push_str(line),
                    (None, None) => panic!("{name}:{}: a case begins with a section", number + 1),
                }
            }
        }
        for (_, body) in out.iter_mut().skip(first).flat_map(|case| &mut case.sections) {
            let trimmed = body.trim_end_matches('\n').len();
            body.truncate(trimmed);
            if !body.is_empty() {
                body.push('\n');
            }
        }
    }
    out
}

/// What is counted of one area: cases, and those of them that differ from Salt and say why.
type Table = IndexMap<String, (usize, usize)>;

fn table(cases: &[Case]) -> Table {
    let mut out = Table::new();
    for case in cases {
        let counted = out.entry(case.area.clone()).or_default();
        counted.0 += 1;
        counted.1 += usize::from(case.get("differs").is_some());
    }
    out
}

/// The table as `docs/conformance.md` has it.
fn lines(table: &Table, wrong: &IndexMap<String, usize>) -> Vec<String> {
    let mut out = vec!["| area | cases | equal to Salt | differ on purpose |".to_owned(), "|---|---|---|---|".to_owned()];
    let mut sum = (0, 0, 0);
    for (area, (cases, differ)) in table {
        let equal = cases - differ - wrong.get(area).copied().unwrap_or(0);
        out.push(format!("| {area} | {cases} | {equal} | {differ} |"));
        sum = (sum.0 + cases, sum.1 + equal, sum.2 + differ);
    }
    out.push(format!("| **all** | **{}** | **{}** | **{}** |", sum.0, sum.1, sum.2));
    out
}

#[test]
fn every_case_compiles_as_salt_compiles_it() {
    let cases = cases();
    let base: Map = serde_json::from_str(&std::fs::read_to_string(folder().join("grains.json")).expect("grains")).expect("grains");
    let (mut wrong, mut count) = (Vec::new(), IndexMap::new());
    for case in &cases {
        let mut grains = base.clone();
        for (name, value) in case.yaml("grains") {
            let name = name.to_text();
            drop(if value == Value::Null { grains.remove(&name) } else { grains.insert(name, value) });
        }
        let mut master = case.yaml("options");
        let nodegroups = master.remove("nodegroups").as_ref().and_then(Value::as_map).cloned().unwrap_or_default();
        let difference = match case.sections.iter().any(|(name, _)| ANSWERS.contains(&name.trim_end_matches(" (JSON)"))) {
            true => case.difference(&case.compile(&grains, &nodegroups, master)),
            false => Some("it has no answer: scripts/conformance --ask".into()),
        };
        let problem = match (difference, case.get("differs")) {
            (None, None) | (Some(_), Some(_)) => continue,
            (Some(difference), None) => difference,
            (None, Some(reason)) => format!("it is equal to Salt now: take `differs` away ({})", reason.trim()),
        };
        *count.entry(case.area.clone()).or_insert(0) += 1;
        wrong.push(format!("tests/conformance/{}: {}\n  {problem}", case.place, case.rule));
    }
    let table = table(&cases);
    println!("{}", lines(&table, &count).join("\n"));
    let differ: usize = table.values().map(|(_, differ)| differ).sum();
    println!(
        "conformance: {} cases, {} equal to Salt 3008.5, {differ} differ as docs/compatibility.md says, {} wrong",
        cases.len(),
        cases.len() - differ - wrong.len(),
        wrong.len()
    );
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn the_page_counts_the_cases() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/conformance.md")).expect("the page");
    for line in lines(&table(&cases()), &IndexMap::new()) {
        assert!(page.contains(&line), "docs/conformance.md lacks this line; scripts/conformance writes it:\n{line}");
    }
}
