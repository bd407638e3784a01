//! From Salt's chunks to the engine's `plan::Low`: requisites as indexes, the arguments every state takes in `Control`, the rest in `args`.

use std::collections::HashMap;

use super::Results;
use super::graph::{Kind, Targets};
use super::high::is_requisite;
use super::low::Chunk;
use super::order::Ordered;
use crate::diagnostic::{Code, Diagnostic, nearest};
use crate::plan::{Control, Indexes, Low, Requisite, RequisiteKind, Retry};
use crate::value::{Map, Value};

/// Keys that Salt keeps for itself; no state function sees them.
const INTERNAL: [&str; 33] = [
    "fun",
    "state",
    "check_cmd",
    "cmd_opts_exclude",
    "failhard",
    "onlyif",
    "unless",
    "creates",
    "retry",
    "order",
    "name_order",
    "parallel",
    "reload_modules",
    "reload_grains",
    "reload_pillar",
    "no_log",
    "fire_event",
    "saltenv",
    "use",
    "use_in",
    "aggregate",
    "onchanges_in",
    "onfail_in",
    "prereq_in",
    "watch_in",
    "require_in",
    "listen_in",
    "__env__",
    "__sls__",
    "__id__",
    "__sls_included_from__",
    "__prereq__",
    "__prerequiring__",
];

/// Each chunk once (the test runs that `prereq` adds are the planner's own business), and the environment of each.
pub fn lower(ordered: &Ordered) -> Results<(Vec<Low>, Vec<String>)> {
    let mut place: Vec<Option<usize>> = Vec::with_capacity(ordered.chunks.len());
    let mut count = 0;
    for index in 0..ordered.chunks.len() {
        let is_test = ordered.tests.contains(&index);
        place.push((!is_test).then_some(count));
        count += usize::from(!is_test);
    }
    let mut errors = Vec::new();
    let mut groups = HashMap::new();
    let mut lows: Vec<Low> = Vec::with_capacity(count);
    for (index, chunk) in ordered.chunks.iter().enumerate() {
        if place.get(index).is_some_and(Option::is_some) {
            match one(chunk, requisites(ordered, index, &place, &mut groups)) {
                Ok(low) => lows.push(low),
                Err(error) => errors.push(*error),
            }
        }
    }
    if errors.is_empty() {
        let chunks: Vec<&Chunk> = ordered.chunks.iter().zip(&place).filter_map(|(chunk, place)| place.map(|_| chunk)).collect();
        listen(&chunks, &mut lows, &mut errors);
    }
    let env = |chunk: &Chunk| chunk.text(if chunk.map.contains_key("saltenv") { "saltenv" } else { "__env__" }).into_owned();
    let envs = ordered.chunks.iter().zip(&place).filter(|(_, place)| place.is_some()).map(|(chunk, _)| env(chunk)).collect();
    if errors.is_empty() { Ok((lows, envs)) } else { Err(errors) }
}

/// What the requisites of the chunk at `index` name. `groups` keeps what an SLS or a pattern names, for thousands of states may require it.
fn requisites(ordered: &Ordered, index: usize, place: &[Option<usize>], groups: &mut HashMap<usize, Indexes>) -> Vec<Requisite> {
    let mut parts: Vec<(RequisiteKind, bool, Vec<Indexes>)> = Vec::new();
    for (kind, targets) in ordered.requisites(index) {
        let (kind, any) = meaning(*kind);
        let lows = || ordered.places(targets).filter_map(|target| place.get(target).copied().flatten()).collect::<Indexes>();
        let of = match targets {
            Targets::Group(group) => groups.entry(*group).or_insert_with(lows).clone(),
            Targets::Nodes(_) => lows(),
        };
        match parts.iter_mut().find(|(k, a, _)| *k == kind && *a == any) {
            Some((_, _, there)) => there.push(of),
            None => parts.push((kind, any, vec![of])),
        }
    }
    let requisites = parts.into_iter().map(|(kind, any, parts)| Requisite { kind, any, of: Indexes::joined(&parts) });
    requisites.filter(|requisite| !requisite.of.is_empty()).collect()
}

fn one(chunk: &Chunk, requisites: Vec<Requisite>) -> Result<Low, Box<Diagnostic>> {
    let mut args = Map::new();
    for (key, value) in &*chunk.map {
        if !key.as_str().is_some_and(|key| INTERNAL.contains(&key) || is_requisite(key)) {
            args.0.insert(key.clone(), value.clone());
        }
    }
    Ok(Low {
        id: chunk.text("__id__").into_owned(),
        sls: chunk.text("__sls__").into_owned(),
        state: chunk.text("state").into_owned(),
        fun: chunk.text("fun").into_owned(),
        name: chunk.text("name").into_owned(),
        args,
        requisites,
        control: control(chunk)?,
        contents: Vec::new(),
        failed: None,
        span: Some(chunk.span.clone()),
    })
}

/// What a requisite asks of its targets taken together: of an `onfail` one failure is enough.
fn meaning(kind: Kind) -> (RequisiteKind, bool) {
    match kind {
        Kind::Require => (RequisiteKind::Require, false),
        Kind::RequireAny => (RequisiteKind::Require, true),
        Kind::Watch => (RequisiteKind::Watch, false),
        Kind::WatchAny => (RequisiteKind::Watch, true),
        Kind::Onchanges => (RequisiteKind::Onchanges, false),
        Kind::OnchangesAny => (RequisiteKind::Onchanges, true),
        Kind::Onfail | Kind::OnfailAny => (RequisiteKind::Onfail, true),
        Kind::OnfailAll => (RequisiteKind::Onfail, false),
        Kind::Prereq => (RequisiteKind::Prereq, false),
    }
}

fn control(chunk: &Chunk) -> Result<Control, Box<Diagnostic>> {
    let list = |key: &str| match chunk.map.get(key) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::List(items)) => items.clone(),
        Some(one) => vec![one.clone()],
    };
    let refuse = |key: &str, value: &Value| {
        let summary = format!("{key} of {} holds {}: {value}", chunk.text("__id__"), value.kind());
        Box::new(
            Diagnostic::new(Code::Compile, summary)
                .at(chunk.span.clone())
                .word(key)
                .hint("in quotes it is a command; `true` and `false` are commands too"),
        )
    };
    let conditions = |key: &str| {
        let all = list(key);
        match all.iter().find(|item| !matches!(item, Value::Str(_) | Value::Map(_))) {
            Some(other) => Err(refuse(key, other)),
            None => Ok(all),
        }
    };
    let texts = |key: &str| {
        list(key)
            .into_iter()
            .map(|item| if let Value::Str(text) = item { Ok(text) } else { Err(refuse(key, &item)) })
            .collect::<Result<Vec<_>, _>>()
    };
    let truthy = |key: &str| chunk.map.get(key).is_some_and(Value::truthy);
    Ok(Control {
        unless: conditions("unless")?,
        onlyif: conditions("onlyif")?,
        creates: texts("creates")?,
        // `file` functions with a check of their own take it as an argument of this name; both mean the same to the agent.
        check_cmd: texts("check_cmd")?,
        failhard: truthy("failhard"),
        retry: chunk.map.get("retry").and_then(retry),
        parallel: truthy("parallel"),
    })
}

/// Salt's defaults for what is left out or of the wrong kind, nothing at all too. `retry: false` is none.
fn retry(value: &Value) -> Option<Retry> {
    let map = match value {
        Value::Bool(false) => return None,
        Value::Map(map) => Some(map),
        _ => None,
    };
    let number = |key: &str, default: u32| {
        let given = map.and_then(|map| map.get(key)?.as_int());
        given.map_or(default, |n| u32::try_from(n.max(0)).unwrap_or(u32::MAX))
    };
    let until = map.and_then(|map| map.get("until")?.as_bool()).unwrap_or(true);
    Some(Retry { attempts: number("attempts", 2), until, interval: number("interval", 30), splay: number("splay", 0) })
}

/// `listen` and `listen_in`: Salt resolves them only when all else has run, by module and id or name.
fn listen(chunks: &[&Chunk], lows: &mut [Low], errors: &mut Vec<Diagnostic>) {
    let mut by_name: HashMap<(&str, &str), Vec<usize>> = HashMap::new();
    for (index, low) in lows.iter().enumerate() {
        for name in [&low.id, &low.name] {
            let there = by_name.entry((&low.state, name)).or_default();
            if there.last() != Some(&index) {
                there.push(index);
            }
        }
    }
    let mut wanted: Vec<(usize, Vec<usize>)> = Vec::new();
    for (index, chunk) in chunks.iter().enumerate() {
        for key in ["listen", "listen_in"] {
            let Some(Value::List(items)) = chunk.map.get(key) else { continue };
            for item in items {
                let pairs: Vec<(String, String)> = match item {
                    Value::Map(map) => map.iter().map(|(module, name)| (module.to_text(), name.to_text())).collect(),
                    bare => {
                        // The last state of that id or name.
                        let bare = bare.to_text();
                        lows.iter()
                            .rev()
                            .find(|low| low.id == bare || low.name == bare)
                            .map(|low| (low.state.clone(), low.id.clone()))
                            .into_iter()
                            .collect()
                    }
                };
                for (module, name) in pairs {
                    match by_name.get(&(module.as_str(), name.as_str())) {
                        Some(found) if key == "listen" => wanted.push((index, found.clone())),
                        Some(found) => wanted.extend(found.iter().map(|listener| (*listener, vec![index]))),
                        None => {
                            let summary = format!("{key} of {} names {module}: {name}, and there is no such state", chunk.text("__id__"));
                            let known = by_name.keys().filter(|(m, _)| *m == module).map(|(_, name)| *name);
                            let mut error =
                                Diagnostic::new(Code::Compile, summary).at(chunk.span.clone()).rule("requisite-never-matches").word(&name);
                            error.hint = nearest(&name, known).map(|near| format!("did you mean {module}: {near}?"));
                            errors.push(error);
                        }
                    }
                }
            }
        }
    }
    for (listener, of) in wanted {
        let Some(low) = lows.get_mut(listener) else { continue };
        match low.requisites.iter_mut().find(|r| r.kind == RequisiteKind::Listen) {
            Some(there) => there.of = there.of.iter().chain(of).collect(),
            None => low.requisites.push(Requisite { kind: RequisiteKind::Listen, any: false, of: of.into_iter().collect() }),
        }
    }
}
