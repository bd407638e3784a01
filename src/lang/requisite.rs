//! What states say about each other before there are chunks: `extend`, the `*_in` forms and `use`.
//!
//! As in Salt, `require_in` and its kin become entries of `extend` on their targets, and one routine (`extend`) merges both kinds. Targets are found
//! through an index (`Finder`) instead of by walking all of the high data each time.

use std::collections::{HashMap, HashSet};

use indexmap::IndexMap;

use super::high::{Body, High, first_key, is_requisite, pair};
use crate::diagnostic::{Code, Diagnostic, nearest};
use crate::value::{Map, Pairs, Value};

/// Finds ids by what their states' arguments hold. Keys are never taken out, so a hit is checked against the high data.
struct Finder(HashMap<(String, String), Vec<usize>>);

impl Finder {
    fn new(high: &High) -> Finder {
        let mut out = Finder(HashMap::new());
        for (index, (_, body)) in high.ids.iter().enumerate() {
            for (state, args) in &body.states {
                args.iter().for_each(|arg| out.add(state, arg, index));
            }
        }
        out
    }

    fn add(&mut self, state: &str, arg: &Value, index: usize) {
        if let Some(text) = single(arg).and_then(|(_, value)| value.as_str()) {
            let ids = self.0.entry((state.to_owned(), text.to_owned())).or_default();
            if ids.last() != Some(&index) {
                ids.push(index);
            }
        }
    }

    /// The ids that have a state of this module with an argument of this value; an id counts once for each such argument.
    fn find(&self, high: &High, state: &str, text: &str) -> Vec<usize> {
        let Some(candidates) = self.0.get(&(state.to_owned(), text.to_owned())) else { return Vec::new() };
        let mut unique: Vec<usize> = candidates.clone();
        unique.sort_unstable();
        unique.dedup();
        let args = |index: usize| high.ids.get_index(index).and_then(|(_, body)| body.states.get(state)).map_or(&[][..], Vec::as_slice);
        let hits =
            |index: usize| args(index).iter().filter(|arg| single(arg).is_some_and(|(_, value)| value.as_str() == Some(text))).count();
        unique.into_iter().flat_map(|index| std::iter::repeat_n(index, hits(index))).collect()
    }
}

/// The only pair of a mapping.
fn single(arg: &Value) -> Option<(&Value, &Value)> {
    let map = arg.as_map()?;
    if map.len() == 1 { map.0.first() } else { None }
}

/// Merges the entries of `extend`. With `strict` an id must have the state itself; without, it may also be given one.
pub fn extend(high: &mut High, strict: bool, errors: &mut Vec<Diagnostic>) {
    let entries = std::mem::take(&mut high.extend);
    if entries.is_empty() {
        return;
    }
    let excluded: HashSet<String> = high
        .exclude
        .iter()
        .filter_map(|entry| entry.as_str().or_else(|| entry.as_map()?.get("sls")?.as_str()).map(str::to_owned))
        .collect();
    let mut finder = None;
    for (name, body) in entries {
        let Some((state, _)) = body.states.first() else { continue };
        let has =
            |id: &str| high.ids.get_index_of(id).filter(|_| !strict || high.ids.get(id).is_some_and(|b| b.states.contains_key(state)));
        let target = match name.as_str().and_then(has) {
            Some(index) => Some(index),
            None => match *target_of(high, &mut finder, state, &name) {
                [index] => Some(index),
                _ => None,
            },
        };
        let Some(target) = target else {
            // Nobody reads the hints of hundreds, and each looks through all ids.
            let hint = errors.len() < 100;
            errors.push(not_there(high, &name, state, &body, strict, hint));
            continue;
        };
        if !excluded.contains(&*body.sls) {
            merge(high, target, body, finder.as_mut());
        }
    }
}

fn target_of(high: &High, finder: &mut Option<Finder>, state: &str, name: &Value) -> Vec<usize> {
    let Some(name) = name.as_str() else { return Vec::new() };
    if state == "sls" {
        return high.ids.iter().enumerate().filter(|(_, (_, body))| *body.sls == *name).map(|(index, _)| index).collect();
    }
    finder.get_or_insert_with(|| Finder::new(high)).find(high, state, name)
}

fn not_there(high: &High, name: &Value, state: &str, body: &Body, strict: bool, hint: bool) -> Diagnostic {
    let name = name.to_text();
    let summary = if strict {
        format!("require_in or its kin in SLS {} names {state}: {name}, and there is no such state", body.sls)
    } else {
        format!("SLS {} extends {name}, and there is no such id", body.sls)
    };
    let rule = if strict { "requisite-never-matches" } else { "extend-nothing" };
    let error = Diagnostic::new(Code::Compile, summary).at(body.span.clone()).rule(rule).word(&name);
    if !hint {
        return error;
    }
    let hint = match nearest(&name, high.ids.keys().map(String::as_str)) {
        Some(near) if near == name => format!("{near} has no state of the module {state}"),
        Some(near) => format!("did you mean {near}?"),
        None => "is the SLS that declares it included?".to_owned(),
    };
    error.hint(hint)
}

/// Lays an entry of `extend` over an id: requisites are appended, other arguments replaced where they stand, `name` replaces `names`.
fn merge(high: &mut High, target: usize, extension: Body, mut finder: Option<&mut Finder>) {
    let Some((_, body)) = high.ids.get_index_mut(target) else { return };
    for (state, run) in extension.states {
        if let Some(finder) = finder.as_deref_mut() {
            run.iter().for_each(|arg| finder.add(&state, arg, target));
        }
        let Some(args) = body.states.get_mut(&state) else {
            body.states.insert(state, run);
            continue;
        };
        for arg in run {
            let mut updated = false;
            for old in args.iter_mut() {
                match (&arg, &*old) {
                    (Value::Str(_), Value::Str(_)) => {
                        *old = arg.clone();
                        updated = true;
                    }
                    (Value::Map(_), Value::Map(_)) => {
                        let Some(key) = first_key(&arg) else { continue };
                        if first_key(old) == Some(key) {
                            if is_requisite(key) {
                                append(old, &arg, key);
                            } else {
                                *old = arg.clone();
                            }
                            updated = true;
                        }
                        if key == "name" && first_key(old) == Some("names") {
                            *old = arg.clone();
                        }
                    }
                    _ => {}
                }
            }
            if !updated {
                args.push(arg);
            }
        }
    }
}

/// Appends the list under `key` of one argument to that of another. What is no list stays, and is refused when the high data is verified.
fn append(old: &mut Value, new: &Value, key: &str) {
    if let (Value::Map(old), Some(new)) = (old, new.as_map().and_then(|map| map.get(key)))
        && let Some(Value::List(list)) = old.get_mut(key)
    {
        match new {
            Value::List(more) => list.extend(more.iter().cloned()),
            other => list.push(other.clone()),
        }
    }
}

/// Arguments of other states that `use` does not take over.
const NEVER_USED: [&str; 15] = [
    "require_in",
    "watch_in",
    "onfail_in",
    "onchanges_in",
    "use",
    "use_in",
    "prereq_in",
    "require",
    "watch",
    "prereq",
    "onfail",
    "onfail_stop",
    "onchanges",
    "name",
    "names",
];

const REQUISITES_IN: [&str; 7] = ["require_in", "watch_in", "onfail_in", "onchanges_in", "use", "use_in", "prereq_in"];

/// Turns `require_in`, `watch_in`, `onchanges_in`, `onfail_in`, `prereq_in`, `use` and `use_in` into entries of `extend`, and merges those.
pub fn requisite_in(high: &mut High, errors: &mut Vec<Diagnostic>) {
    let mut pending = Pending { high, finder: None, names: None, sls: None, extend: IndexMap::new(), errors };
    for (id, body) in &pending.high.ids {
        for (state, args) in &body.states {
            for arg in args {
                let Some((key, items)) = arg.as_map().and_then(|map| map.0.first()) else { continue };
                let Some(key) = key.as_str().filter(|key| REQUISITES_IN.contains(key)) else { continue };
                let from = From { id, state, body, key };
                match items {
                    Value::Map(items) => {
                        for (state, name) in items {
                            pending.add(&from, name, &state.to_text());
                        }
                    }
                    Value::List(items) => pending.list(&from, items),
                    _ => {}
                }
            }
        }
    }
    let extend_by: Vec<(Value, Body)> = pending.extend.into_iter().collect();
    high.extend = extend_by;
    extend(high, true, errors);
}

/// The state that says `require_in`.
struct From<'a> {
    id: &'a str,
    state: &'a str,
    body: &'a Body,
    key: &'a str,
}

struct Pending<'a> {
    high: &'a High,
    finder: Option<Finder>,
    /// The first state that has a `name` argument of this text.
    names: Option<HashMap<String, (String, String)>>,
    /// The ids of each SLS.
    sls: Option<HashMap<&'a str, Vec<usize>>>,
    extend: IndexMap<Value, Body>,
    errors: &'a mut Vec<Diagnostic>,
}

impl Pending<'_> {
    fn list(&mut self, from: &From, items: &[Value]) {
        // Salt keeps earlier targets of the list while it goes on: each of them is extended again for every later one.
        let mut targets: Vec<(Value, String)> = Vec::new();
        for item in items {
            let (module, name) = match item {
                Value::Map(map) => match map.0.first() {
                    Some((module, name)) => (module.to_text(), name.clone()),
                    None => continue,
                },
                other => match self.bare(other) {
                    Some(found) => found,
                    // A bare name that is nowhere is ignored, as in Salt.
                    None => continue,
                },
            };
            if module == "sls" {
                targets = self.states_of_sls(&name);
            } else {
                targets.push((name.clone(), module.clone()));
            }
            self.check_dot(from, &module, &name);
            for (name, module) in targets.clone() {
                match from.key {
                    "use_in" => self.used(from, &name, &module, true),
                    "use" => self.used(from, &name, &module, false),
                    _ => self.add_one(from, &name, &module),
                }
            }
        }
    }

    fn add(&mut self, from: &From, name: &Value, module: &str) {
        self.check_dot(from, module, name);
        self.add_one(from, name, module.split('.').next().unwrap_or(module));
    }

    fn check_dot(&mut self, from: &From, module: &str, name: &Value) {
        if let Some((bare, _)) = module.split_once('.') {
            self.errors.push(
                Diagnostic::new(
                    Code::Compile,
                    format!("{} of id {} in SLS {} names the function {module} where a module belongs", from.key, from.id, from.body.sls),
                )
                .at(from.body.span.clone())
                .hint(format!("write `{bare}: {}`", name.to_text())),
            );
        }
    }

    /// `require_in` and its kin: the target gets a requisite on the state that says it.
    fn add_one(&mut self, from: &From, name: &Value, module: &str) {
        if matches!(name, Value::List(_) | Value::Map(_)) {
            self.errors.push(
                Diagnostic::new(
                    Code::Compile,
                    format!("{} of id {} in SLS {} names {} where an id belongs", from.key, from.id, from.body.sls, name.kind()),
                )
                .at(from.body.span.clone()),
            );
            return;
        }
        let kind = from.key.trim_end_matches("_in");
        let entry = self.entry(from, name.clone());
        (entry.sls, entry.env) = (from.body.sls.clone(), from.body.env.clone());
        let args = entry.states.get_or_insert_with(module, Vec::new);
        let requisite = pair(from.state, from.id);
        let mut found = false;
        for arg in args.iter_mut() {
            if first_key(arg) == Some(kind)
                && let Value::Map(map) = arg
                && let Some(Value::List(list)) = map.get_mut(kind)
            {
                list.push(requisite.clone());
                found = true;
            }
        }
        if !found {
            args.push(pair(kind, vec![requisite]));
        }
    }

    fn entry(&mut self, from: &From, name: Value) -> &mut Body {
        self.extend.entry(name).or_insert_with(|| Body { states: Pairs::new(), ..from.body.clone() })
    }

    /// `use` takes the other state's arguments over, `use_in` gives its own to the other.
    fn used(&mut self, from: &From, name: &Value, module: &str, give: bool) {
        for other in self.strictly(name, module) {
            let Some((other_id, other_body)) = self.high.ids.get_index(other) else { continue };
            let other_args = other_body.states.get(module).map_or(&[][..], Vec::as_slice);
            let own_args = from.body.states.get(from.state).map_or(&[][..], Vec::as_slice);
            let (to_id, to_state, to_args, source) =
                if give { (other_id.as_str(), module, other_args, own_args) } else { (from.id, from.state, own_args, other_args) };
            let present: HashSet<&str> = to_args.iter().filter_map(|arg| single(arg)?.0.as_str()).collect();
            let taken: Vec<Value> = source
                .iter()
                .filter(|arg| {
                    single(arg).is_some_and(|(key, _)| key.as_str().is_none_or(|k| !present.contains(k) && !NEVER_USED.contains(&k)))
                })
                .cloned()
                .collect();
            self.entry(from, Value::str(to_id)).states.get_or_insert_with(to_state, Vec::new).extend(taken);
        }
    }

    /// The ids a `module: name` means: the id itself where it has such a state, else those with an argument of that value.
    fn strictly(&mut self, name: &Value, module: &str) -> Vec<usize> {
        if let Some(index) = name.as_str().and_then(|name| self.high.ids.get_index_of(name))
            && self.high.ids.get_index(index).is_some_and(|(_, body)| body.states.contains_key(module))
        {
            return vec![index];
        }
        target_of(self.high, &mut self.finder, module, name)
    }

    /// What a bare string means: the first state of the id, or the first state with that `name`.
    fn bare(&mut self, item: &Value) -> Option<(String, Value)> {
        let text = item.as_str()?;
        if let Some(body) = self.high.ids.get(text) {
            return Some((body.states.first()?.0.clone(), item.clone()));
        }
        let (state, id) = self.names.get_or_insert_with(|| names(self.high)).get(text)?.clone();
        Some((state, Value::Str(id)))
    }

    fn states_of_sls(&mut self, sls: &Value) -> Vec<(Value, String)> {
        let Some(sls) = sls.as_str() else { return Vec::new() };
        let index = self.sls.get_or_insert_with(|| {
            let mut index: HashMap<&str, Vec<usize>> = HashMap::new();
            for (at, body) in self.high.ids.values().enumerate() {
                index.entry(&body.sls).or_default().push(at);
            }
            index
        });
        let of_sls = index.get(sls).into_iter().flatten().filter_map(|at| self.high.ids.get_index(*at));
        of_sls.flat_map(|(id, body)| body.states.keys().map(|state| (Value::str(id.clone()), state.clone()))).collect()
    }
}

fn names(high: &High) -> HashMap<String, (String, String)> {
    let mut out = HashMap::new();
    for (id, body) in &high.ids {
        for (state, args) in &body.states {
            for name in args.iter().filter_map(|arg| arg.as_map()).filter_map(|map: &Map| map.get("name")?.as_str()) {
                out.entry(name.to_owned()).or_insert_with(|| (state.clone(), id.clone()));
            }
        }
    }
    out
}
