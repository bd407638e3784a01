//! Low chunks: one call of a state function each, with exactly the keys and values that Salt's have.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::high::{High, included_from};
use super::{Results, order};
use crate::diagnostic::{Code, Diagnostic, Span};
use crate::value::{Map, Pairs, Value};

/// Modules whose states react to what they watch. Elsewhere `watch` means `require`.
pub const WITH_MOD_WATCH: [&str; 14] = [
    "at",
    "cmd",
    "docker_container",
    "docker_image",
    "etcd",
    "event",
    "kernelpkg",
    "module",
    "mount",
    "pkg",
    "service",
    "supervisord",
    "test",
    "tomcat",
];

/// A call of a state function: `state`, `fun`, `name`, `__id__`, `__sls__` …, and the arguments, requisites among them.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    /// Shared between the graph and the list that is made of it.
    pub map: Arc<Map>,
    /// Where its id stands.
    pub span: Span,
}

impl Chunk {
    /// The text under a key that Salt sets itself.
    pub fn text(&self, key: &str) -> Cow<'_, str> {
        match self.map.get(key) {
            Some(Value::Str(text)) => Cow::Borrowed(text),
            Some(other) => Cow::Owned(other.to_text()),
            None => Cow::Borrowed(""),
        }
    }
}

impl Serialize for Chunk {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.map.serialize(s)
    }
}

/// Low chunks in execution order, and the graph their requisites make.
pub fn compile(high: High) -> Results<order::Ordered> {
    let mut errors = Vec::new();
    let mut chunks = Vec::new();
    for (id, mut body) in high.ids {
        for (state, args) in std::mem::take(&mut body.states) {
            let mut map = Map(Pairs::with_capacity(args.len() + 6)); // with Salt's own keys
            map.insert("state", state);
            map.insert("name", id.clone());
            map.insert("__sls__", &*body.sls);
            map.insert("__env__", &*body.env);
            if !body.included_from.is_empty() {
                map.insert("__sls_included_from__", included_from(&body));
            }
            map.insert("__id__", id.clone());
            let (mut function, mut names) = (None, Pairs::new());
            for arg in args {
                match arg {
                    Value::Str(name) => function = function.or(Some(name)),
                    Value::Map(pairs) => {
                        for (key, value) in pairs {
                            match (key.as_str(), value) {
                                (Some("names"), Value::List(list)) => names.extend(list.into_iter().map(|name| (name, ()))),
                                (Some("state"), _) => {}
                                (Some("name"), value) if value.as_str().is_none() => drop(map.insert("name", id.clone())),
                                (_, value) => drop(map.0.insert(key, value)),
                            }
                        }
                    }
                    _ => {}
                }
            }
            // A module without a function comes from an extension of a state that is not there; Salt passes over it.
            let Some(function) = function else { continue };
            if names.is_empty() {
                map.insert("fun", function);
                chunks.push(Chunk { map: map.into(), span: body.span.clone() });
                continue;
            }
            for (number, (entry, ())) in names.into_iter().enumerate() {
                let mut live = map.clone();
                if let Err(summary) = apply_name(&mut live, entry) {
                    errors.push(
                        Diagnostic::new(Code::Compile, format!("names of id {id} in SLS {}: {summary}", body.sls)).at(body.span.clone()),
                    );
                    continue;
                }
                live.insert("name_order", number as i64 + 1);
                live.insert("fun", function.clone());
                chunks.push(Chunk { map: live.into(), span: body.span.clone() });
            }
        }
    }
    chunks.iter_mut().for_each(watch_is_require);
    if !errors.is_empty() {
        return Err(errors);
    }
    order::order(chunks)
}

/// An entry of `names`: a name, or a name with arguments of its own.
fn apply_name(chunk: &mut Map, entry: Value) -> Result<(), String> {
    let Value::Map(entry) = entry else {
        chunk.insert("name", entry);
        return Ok(());
    };
    let Some((name, args)) = entry.into_iter().next() else { return Err("an entry is an empty mapping".into()) };
    chunk.insert("name", name.clone());
    let Value::List(args) = args else { return Err(format!("{} holds {}, not a list of arguments", name.to_text(), args.kind())) };
    for arg in args {
        let Value::Map(arg) = arg else { return Err(format!("an argument of {} is {}, not `key: value`", name.to_text(), arg.kind())) };
        for (key, value) in arg {
            chunk.0.insert(key, value);
        }
    }
    Ok(())
}

fn watch_is_require(chunk: &mut Chunk) {
    if chunk.map.get("state").and_then(Value::as_str).is_some_and(|state| WITH_MOD_WATCH.contains(&state)) {
        return;
    }
    for (from, to) in [("watch", "require"), ("watch_any", "require_any")] {
        let map = Arc::make_mut(&mut chunk.map);
        let Some(moved) = map.remove(from) else { continue };
        match (map.get_mut(to), moved) {
            (Some(Value::List(there)), Value::List(moved)) => there.extend(moved),
            (_, moved) => drop(map.insert(to, moved)),
        }
    }
}
