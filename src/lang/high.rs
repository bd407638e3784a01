//! High data: what the SLS of one host declare, before it is compiled to chunks.
//!
//! One SLS becomes ids with their state declarations (`Sls::read`), `extend`, `exclude` and `include`. `High` collects those of all SLS of a host
//! in the order Salt's dictionaries have. Everything that Salt's `verify_high` refuses is refused here, with its place.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use indexmap::IndexMap;
use indexmap::map::Entry;

use super::glob;
use super::renderer::Origin;
use crate::diagnostic::{Code, Diagnostic, Span};
use crate::value::{Map, Pairs, Value};
use crate::yaml::{Data, Node, Place};

/// Arguments that name other states. As lists of single-key mappings they are joined by `extend`; any other shape is refused.
pub const REQUISITES: [&str; 13] = [
    "onfail",
    "onfail_any",
    "onfail_all",
    "require",
    "require_any",
    "onchanges",
    "onchanges_any",
    "watch",
    "watch_any",
    "prereq",
    "prerequired",
    "listen",
    "onfail_stop",
];

pub fn is_requisite(name: &str) -> bool {
    REQUISITES.contains(&name)
}

/// One id (or one entry of `extend`): its state declarations by module, each a list of the function's name and of arguments.
#[derive(Clone, Debug)]
pub struct Body {
    pub sls: Arc<str>,
    pub env: Arc<str>,
    /// The SLS that included this one, nearest first.
    pub included_from: Arc<[Arc<str>]>,
    pub states: Pairs<String, Vec<Value>>,
    pub span: Span,
}

/// Everything declared for one host.
#[derive(Debug, Default)]
pub struct High {
    pub ids: IndexMap<String, Body>,
    pub extend: Vec<(Value, Body)>,
    pub exclude: Vec<Value>,
}

/// An entry of `include`: the environment, where one is named, and the SLS.
pub struct Include {
    pub env: Option<String>,
    pub sls: String,
    pub span: Span,
}

/// One SLS, read but not yet joined with others.
#[derive(Default)]
pub struct Sls {
    pub include: Vec<Include>,
    pub extend: Vec<(Value, Body)>,
    pub exclude: Vec<Value>,
    pub ids: IndexMap<String, Body>,
}

/// What all bodies of one SLS share.
pub struct Origins<'a> {
    pub sls: Arc<str>,
    pub env: Arc<str>,
    pub included_from: Arc<[Arc<str>]>,
    pub origin: &'a Origin,
}

impl Origins<'_> {
    fn span(&self, place: Place) -> Span {
        self.origin.span(place)
    }

    fn refuse(&self, place: Place, summary: impl Into<String>) -> Diagnostic {
        self.origin.excerpt(Diagnostic::new(Code::Compile, summary).at(self.span(place)), place)
    }

    fn body(&self, place: Place) -> Body {
        Body {
            sls: self.sls.clone(),
            env: self.env.clone(),
            included_from: self.included_from.clone(),
            states: Pairs::new(),
            span: self.span(place),
        }
    }
}

impl Sls {
    pub fn read(node: &Node, of: &Origins, errors: &mut Vec<Diagnostic>) -> Sls {
        let mut out = Sls::default();
        let entries = match &node.data {
            Data::Map(entries) => entries,
            Data::Scalar(value) if !value.truthy() => return out,
            Data::List(items) if items.is_empty() => return out,
            _ => {
                errors.push(
                    of.refuse(node.place, format!("SLS {} is {}, not a mapping of ids", of.sls, node.to_value().kind()))
                        .hint("an SLS begins with an id, and a colon after it"),
                );
                return out;
            }
        };
        for (key, (place, value)) in entries {
            let id = match key.as_str() {
                Some("include") => {
                    out.include = read_include(value, of, errors);
                    continue;
                }
                Some("extend") => {
                    out.extend = read_extend(value, of, errors);
                    continue;
                }
                Some("exclude") => {
                    match &value.data {
                        Data::List(items) => out.exclude.extend(items.iter().map(Node::to_value)),
                        _ => errors.push(of.refuse(value.place, format!("exclude in SLS {} is not a list", of.sls))),
                    }
                    continue;
                }
                // Salt keeps its own notes under such names and passes over the user's.
                Some(id) if id.starts_with("__") => continue,
                Some(id) => id.to_owned(),
                None => {
                    let refused = of.refuse(*place, format!("the id {} in SLS {} is {}, not a string", key.to_text(), of.sls, key.kind()));
                    errors.push(refused.hint("put it in quotes"));
                    continue;
                }
            };
            let mut body = of.body(*place);
            match &value.data {
                Data::Map(states) => read_states(&id, states, of, &mut body, true, errors),
                Data::Scalar(Value::Str(short)) if short.contains('.') => {
                    let mut parts = short.split('.');
                    let (state, fun) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                    body.states.insert(state.to_owned(), vec![Value::str(fun)]);
                }
                _ => {
                    let refused =
                        of.refuse(*place, format!("id {id} in SLS {} holds {}, not a mapping of states", of.sls, value.to_value().kind()));
                    errors.push(
                        refused.hint(
                            "below an id stands a function with a colon, such as `file.managed:`, or one word such as `pkg.installed`",
                        ),
                    );
                    continue;
                }
            }
            out.ids.insert(id, body);
        }
        out
    }
}

fn read_include(value: &Node, of: &Origins, errors: &mut Vec<Diagnostic>) -> Vec<Include> {
    let Data::List(items) = &value.data else {
        errors.push(
            of.refuse(value.place, format!("include in SLS {} is not a list", of.sls))
                .hint("write each included SLS on a line of its own, after `- `"),
        );
        return Vec::new();
    };
    let mut out = Vec::new();
    for item in items {
        let span = of.span(item.place);
        match &item.data {
            Data::Scalar(Value::Str(sls)) => out.push(Include { env: None, sls: sls.clone(), span }),
            Data::Map(entries) => match entries.last() {
                Some((Value::Str(env), (_, Node { data: Data::Scalar(Value::Str(sls)), .. }))) => {
                    out.push(Include { env: Some(env.clone()), sls: sls.clone(), span });
                }
                _ => errors.push(of.refuse(item.place, "an include is the name of an SLS, or `environment: name`")),
            },
            _ => errors.push(of.refuse(item.place, format!("an include is the name of an SLS, and this is {}", item.to_value().kind()))),
        }
    }
    out
}

fn read_extend(value: &Node, of: &Origins, errors: &mut Vec<Diagnostic>) -> Vec<(Value, Body)> {
    let Data::Map(entries) = &value.data else {
        errors.push(of.refuse(value.place, format!("extend in SLS {} is not a mapping of ids", of.sls)));
        return Vec::new();
    };
    let mut out = Vec::new();
    for (name, (place, value)) in entries {
        let Data::Map(states) = &value.data else {
            errors.push(of.refuse(*place, format!("extend of {} in SLS {} is not a mapping of states", name.to_text(), of.sls)));
            continue;
        };
        let mut body = of.body(*place);
        read_states(&name.to_text(), states, of, &mut body, false, errors);
        if body.states.is_empty() {
            errors.push(of.refuse(*place, format!("extend of {} in SLS {} names no state", name.to_text(), of.sls)));
            continue;
        }
        out.push((name.clone(), body));
    }
    out
}

/// The declarations of one id. `file.managed` moves behind the others as `file` with the function appended, as in Salt's dictionaries.
fn read_states(
    id: &str,
    states: &Pairs<Value, (Place, Node)>,
    of: &Origins,
    body: &mut Body,
    one_of_a_module: bool,
    errors: &mut Vec<Diagnostic>,
) {
    let mut seen = Pairs::new();
    let mut dotted = Vec::new();
    for (key, (place, value)) in states {
        let Some(key) = key.as_str() else {
            errors.push(of.refuse(*place, format!("{} below id {id} is {}, not the name of a state", key.to_text(), key.kind())));
            continue;
        };
        if key.starts_with("__") {
            continue;
        }
        let args = match &value.data {
            Data::List(items) => {
                let mut args = Vec::with_capacity(items.len() + 2); // with the function, and the order that it will have
                args.extend(items.iter().map(Node::to_value));
                args
            }
            Data::Scalar(Value::Null) => {
                let refused = of.refuse(*place, format!("{key} of id {id} in SLS {} ends with a colon but has no arguments", of.sls));
                errors.push(refused.hint(format!("take the colon away, or write `{key}: []`")));
                continue;
            }
            _ => {
                let refused =
                    of.refuse(value.place, format!("{key} of id {id} in SLS {} holds {}, not a list", of.sls, value.to_value().kind()));
                errors.push(refused.hint("put `- ` before each argument"));
                continue;
            }
        };
        match key.split_once('.') {
            Some((module, rest)) if !key.starts_with('_') => {
                if seen.insert(module, ()).is_some() && one_of_a_module {
                    let refused = of.refuse(*place, format!("id {id} in SLS {} has several states of the module {module}", of.sls));
                    errors.push(refused.hint("give the second one an id of its own"));
                    continue;
                }
                let mut args = args;
                args.push(Value::str(rest.split('.').next().unwrap_or(rest)));
                dotted.push((module.to_owned(), args));
            }
            _ => {
                seen.insert(key, ());
                body.states.insert(key.to_owned(), args);
            }
        }
    }
    for (module, args) in dotted {
        body.states.insert(module, args);
    }
}

impl High {
    /// Takes in what one SLS declares. An id that is there already is refused.
    pub fn join(&mut self, sls: Sls, errors: &mut Vec<Diagnostic>) {
        self.extend.extend(sls.extend);
        self.exclude.extend(sls.exclude);
        for (id, body) in sls.ids {
            match self.ids.entry(id) {
                Entry::Vacant(free) => {
                    free.insert(body);
                }
                Entry::Occupied(taken) => {
                    let first = taken.get();
                    errors.push(
                        Diagnostic::new(Code::Compile, format!("the id {} is in SLS {} and in SLS {}", taken.key(), first.sls, body.sls))
                            .at(body.span)
                            .related(first.span.clone(), "the first one")
                            .rule("duplicate-id")
                            .hint("ids are one namespace over all SLS of a host: rename one, or use extend to add to the other"),
                    );
                }
            }
        }
    }

    /// Numbers the declarations of the ids in `own` that name no order themselves.
    pub fn number(&mut self, own: std::ops::Range<usize>, next: &mut i64) {
        for (_, body) in self.ids.get_range_mut(own).into_iter().flatten() {
            for (state, args) in &mut body.states {
                if !state.starts_with('_') && !args.iter().any(|arg| first_key(arg) == Some("order")) {
                    args.push(pair("order", *next));
                    *next += 1;
                }
            }
        }
    }

    /// What Salt refuses before it looks at requisites.
    pub fn verify(&self, errors: &mut Vec<Diagnostic>) {
        for (id, body) in &self.ids {
            for (state, args) in &body.states {
                verify_declaration(id, state, args, body, errors);
            }
        }
    }

    /// Takes out what `exclude` names: SLS by glob, ids by name.
    pub fn apply_exclude(&mut self) {
        let (mut sls, mut ids): (Vec<&str>, HashSet<&str>) = (Vec::new(), HashSet::new());
        for entry in &self.exclude {
            match entry {
                Value::Str(name) => sls.push(name),
                Value::Map(map) if map.len() == 1 => {
                    if let Some(Value::Str(name)) = map.get("sls") {
                        sls.push(name);
                    } else if let Some(Value::Str(name)) = map.get("id") {
                        ids.insert(name);
                    }
                }
                _ => {}
            }
        }
        if !sls.is_empty() || !ids.is_empty() {
            let (patterns, names): (Vec<&str>, Vec<&str>) = sls.into_iter().partition(|name| glob::is_pattern(name));
            let names: HashSet<&str> = names.into_iter().collect();
            let mut gone: HashMap<Arc<str>, bool> = HashMap::new();
            self.ids.retain(|id, body| {
                let named = || names.contains(&*body.sls) || patterns.iter().any(|pattern| glob::matches(pattern, &body.sls));
                !ids.contains(id.as_str()) && !*gone.entry(body.sls.clone()).or_insert_with(named)
            });
        }
    }

    /// Salt's shape: ids to their declarations, with `__sls__` and `__env__`.
    pub fn to_value(&self) -> Map {
        self.ids.iter().map(|(id, body)| (id.clone(), body_value(body))).collect()
    }
}

fn body_value(body: &Body) -> Map {
    let mut out = Map::new();
    for (state, args) in &body.states {
        out.insert(state.clone(), args.clone());
    }
    out.insert("__sls__", &*body.sls);
    out.insert("__env__", &*body.env);
    if !body.included_from.is_empty() {
        out.insert("__sls_included_from__", included_from(body));
    }
    out
}

pub fn included_from(body: &Body) -> Vec<Value> {
    body.included_from.iter().map(|sls| Value::str(&**sls)).collect()
}

fn verify_declaration(id: &str, state: &str, args: &[Value], body: &Body, errors: &mut Vec<Diagnostic>) {
    let mut refuse = |summary: String, hint: Option<String>| {
        let mut refused = Diagnostic::new(Code::Compile, summary).at(body.span.clone()).word(state);
        refused.hint = hint;
        errors.push(refused);
    };
    let mut functions = Vec::new();
    for arg in args {
        match arg {
            Value::Str(function) => {
                functions.push(function.as_str());
                if function.trim().contains(' ') {
                    let hint = "if it is an argument, it lacks a colon".to_owned();
                    refuse(format!("the function {function:?} of id {id} in SLS {} has a blank in it", body.sls), Some(hint));
                }
            }
            Value::Map(map) => {
                let Some((key, value)) = map.0.first() else {
                    refuse(format!("{state} of id {id} in SLS {} has an empty argument", body.sls), None);
                    continue;
                };
                match key.as_str() {
                    Some("names") if !matches!(value, Value::List(_)) => {
                        let (what, hint) = no_list(value, "name");
                        refuse(format!("names of id {id} in SLS {} {what}", body.sls), Some(hint));
                    }
                    Some(key) if is_requisite(key) => {
                        verify_requisite(id, key, value, body, &mut refuse);
                        if map.len() != 1 {
                            let keys: Vec<String> = map.0.keys().map(Value::to_text).collect();
                            let hint = "put `- ` before each of them, and indent what belongs to one deeper".to_owned();
                            refuse(
                                format!("{state} of id {id} in SLS {} has several arguments in one: {}", body.sls, keys.join(", ")),
                                Some(hint),
                            );
                        }
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }
    match functions.len() {
        0 => {
            let hint = format!("write `{state}.FUNCTION:` below the id");
            refuse(format!("{state} of id {id} in SLS {} names no function", body.sls), Some(hint));
        }
        1 => {}
        _ => refuse(format!("{state} of id {id} in SLS {} names several functions: {}", body.sls, functions.join(", ")), None),
    }
}

/// What is wrong about a value where a list belongs, and what to do.
fn no_list(value: &Value, of: &str) -> (&'static str, String) {
    match value {
        Value::Null => ("is empty, not a list", "nothing stands below it: where a loop makes the list, put an `if` around both".to_owned()),
        _ => ("is not a list", format!("put `- ` before each {of}")),
    }
}

fn verify_requisite(id: &str, kind: &str, value: &Value, body: &Body, refuse: &mut impl FnMut(String, Option<String>)) {
    let Value::List(items) = value else {
        let (what, hint) = no_list(value, "requisite");
        refuse(format!("{kind} of id {id} in SLS {} {what}", body.sls), Some(hint));
        return;
    };
    for item in items {
        let (key, target) = match item {
            Value::Str(_) => continue,
            Value::Map(map) if map.len() == 1 => match map.0.first() {
                Some((key, target)) => (key.to_text(), target),
                None => continue,
            },
            _ => {
                refuse(
                    format!("{kind} of id {id} in SLS {} holds {}: {}", body.sls, item.kind(), item.to_text()),
                    Some("a requisite is `module: id`, such as `pkg: nginx`, or an id alone".into()),
                );
                continue;
            }
        };
        if let Some((module, _)) = key.split_once('.') {
            refuse(
                format!("{kind} of id {id} in SLS {} names the function {key} where a module belongs", body.sls),
                Some(format!("write `{module}: {}`", target.to_text())),
            );
        }
        if matches!(target, Value::List(_) | Value::Map(_)) {
            refuse(format!("{kind} of id {id} in SLS {} names {} where an id belongs", body.sls, target.kind()), None);
        }
    }
}

/// The first key of a mapping, where it is a string.
pub fn first_key(value: &Value) -> Option<&str> {
    value.as_map()?.0.first()?.0.as_str()
}

pub fn pair(key: &str, value: impl Into<Value>) -> Value {
    let mut map = Map::new();
    map.insert(key, value);
    Value::Map(map)
}
