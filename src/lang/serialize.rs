//! `file.serialize`: data as the text of a file, written as Salt's serializers write it. What is there already comes from the host, where the state
//! is to merge with it.

use super::function::data::update;
use super::jinja::HostCalls;
use super::jinja::dump;
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::plan::Low;
use crate::value::{Map, Value};

/// The text of the file, and takes the arguments out that made it.
pub(super) fn text(low: &mut Low, host: &dyn HostCalls) -> Result<String> {
    let kind = kind(low)?;
    let Some(dataset) = low.args.remove("dataset").filter(|d| !d.is_null()) else {
        return Err(wrong(low, "needs a dataset, or a dataset_pillar"));
    };
    let how = options(low, "serializer_opts")?;
    if !options(low, "deserializer_opts")?.is_empty() {
        return Err(wrong(low, "has no deserializer_opts here"));
    }
    if !low.args.get("merge_if_exists").is_some_and(Value::truthy) {
        return write(low, kind, &dataset, &how);
    }
    let path = [Value::str(&low.name)];
    if !host.call("file.file_exists", &path, &Map::new())?.truthy() {
        return write(low, kind, &dataset, &how);
    }
    let there = host.call("file.read", &path, &Map::new())?.to_text();
    let old = match kind {
        Kind::Yaml => crate::yaml::load(&there, &low.name)?,
        Kind::Json => serde_json::from_str(&there).map_err(|e| Diagnostic::new(Code::Compile, format!("{} is no JSON: {e}", low.name)))?,
    };
    let merged = match (&old, &dataset) {
        (Value::Null, _) => dataset,
        (Value::Map(old), Value::Map(new)) => {
            let mut merged = old.clone();
            update(&mut merged, new, true, false);
            Value::Map(merged)
        }
        _ => return Err(wrong(low, "can merge mappings only, and what is there or what it brings is none")),
    };
    // The same data is left in the form it has.
    if merged == old { Ok(there) } else { write(low, kind, &merged, &how) }
}

#[derive(Clone, Copy)]
enum Kind {
    Yaml,
    Json,
}

fn wrong(low: &Low, what: &str) -> Box<Diagnostic> {
    Box::new(Diagnostic::new(Code::Compile, format!("file.serialize {} {what}", low.id)))
}

fn kind(low: &Low) -> Result<Kind> {
    let given = |name: &str| low.args.get(name).filter(|v| v.truthy()).map(|v| v.to_text().to_lowercase());
    match (given("serializer"), given("formatter")) {
        (Some(_), Some(_)) => Err(wrong(low, "has both serializer and formatter, and one says it")),
        (name, other) => match name.or(other).as_deref() {
            None | Some("yaml") => Ok(Kind::Yaml),
            Some("json") => Ok(Kind::Json),
            Some(name) => Err(Box::new(wrong(low, &format!("has the serializer {name}")).hint("basalt writes yaml and json"))),
        },
    }
}

/// A mapping, or a list of mappings.
fn options(low: &Low, argument: &str) -> Result<Map> {
    let mut all = Map::new();
    match low.args.get(argument) {
        None | Some(Value::Null) => {}
        Some(Value::Map(map)) => all = map.clone(),
        Some(Value::List(list)) if list.iter().all(|item| item.as_map().is_some()) => {
            list.iter().filter_map(Value::as_map).for_each(|map| all.0.extend(map.0.clone()));
        }
        Some(_) => return Err(wrong(low, &format!("has {argument} that are no mapping"))),
    }
    Ok(all)
}

fn write(low: &Low, kind: Kind, value: &Value, options: &Map) -> Result<String> {
    let known: &[&str] = match kind {
        Kind::Yaml => &["default_flow_style", "allow_unicode", "indent", "width", "explicit_start"],
        Kind::Json => &["indent", "sort_keys", "ensure_ascii"],
    };
    if let Some((name, _)) = options.iter().find(|(name, _)| !name.as_str().is_some_and(|name| known.contains(&name))) {
        return Err(Box::new(wrong(low, &format!("has the serializer option {name}")).hint(format!("basalt knows {}", known.join(", ")))));
    }
    let flag = |name: &str, default: bool| options.get(name).map_or(default, Value::truthy);
    let number = |name: &str| options.get(name).and_then(Value::as_int).and_then(|n| u16::try_from(n).ok());
    let encoding = low.args.get("encoding").is_some_and(Value::truthy);
    let text = match kind {
        Kind::Yaml => dump::yaml_file(
            value,
            &dump::YamlFile {
                flow: options.get("default_flow_style").map_or(Some(false), Value::as_bool),
                unicode: flag("allow_unicode", encoding),
                indent: number("indent"),
                width: number("width"),
                start: flag("explicit_start", false),
            },
        )?,
        Kind::Json => {
            let indent = match options.get("indent") {
                None => Some(2),
                Some(_) => number("indent").map(usize::from),
            };
            dump::json_file(value, flag("sort_keys", true), indent, flag("ensure_ascii", false))?
        }
    };
    Ok(text + "\n")
}

/// What `test.check_pillar` finds wrong; empty: nothing.
pub(super) fn check_pillar(low: &Low, look: impl Fn(&str) -> Option<Value>) -> String {
    type Check = fn(&Value) -> bool;
    let kinds: [(&str, &str, Check); 6] = [
        ("present", "", |_| true),
        ("boolean", "<class 'bool'>", |v| matches!(v, Value::Bool(_))),
        ("integer", "<class 'int'>", |v| matches!(v, Value::Int(_) | Value::Bool(_))),
        ("string", "(<class 'str'>,)", |v| matches!(v, Value::Str(_))),
        ("listing", "<class 'list'>", |v| matches!(v, Value::List(_))),
        ("dictionary", "<class 'dict'>", |v| matches!(v, Value::Map(_))),
    ];
    let mut said = String::new();
    for (argument, name, check) in kinds {
        let keys = match low.args.get(argument) {
            Some(Value::List(keys)) => keys.iter().map(Value::to_text).collect(),
            Some(key) if key.truthy() => vec![key.to_text()],
            _ => Vec::new(),
        };
        for key in keys {
            match look(&key).filter(|value| !value.is_null()) {
                None => said.push_str(&format!("Pillar key \"{key}\" is missing.\n")),
                Some(value) if !check(&value) => said.push_str(&format!("Pillar key \"{key}\" is not {name}.\n")),
                Some(_) => {}
            }
        }
    }
    said.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    /// A host with one file.
    struct Host(Option<String>);
    impl HostCalls for Host {
        fn call(&self, function: &str, _: &[Value], _: &Map) -> Result<Value> {
            Ok(match function {
                "file.file_exists" => self.0.is_some().into(),
                _ => Value::str(self.0.as_deref().unwrap_or_default()),
            })
        }
    }

    #[derive(Deserialize)]
    struct Case {
        before: Option<String>,
        args: Map,
        after: Option<String>,
        ok: bool,
        says: String,
    }

    #[test]
    fn files_are_those_of_salt() {
        let cases: Vec<Case> = serde_json::from_str(include_str!("../function/salt/serialize.json")).unwrap();
        assert!(cases.len() > 30);
        let mut wrong = Vec::new();
        for case in &cases {
            let low = serde_json::json!({"id": "x", "sls": "s", "state": "file", "fun": "serialize", "name": "/etc/f", "args": case.args});
            let mut low: Low = serde_json::from_value(low).unwrap();
            let ours = text(&mut low, &Host(case.before.clone())).map_err(|e| e.summary);
            if ours.is_ok() != case.ok || (case.ok && ours.as_ref().ok() != case.after.as_ref()) {
                wrong.push(format!("{:?} on {:?}:\n  Salt {:?} ({})\n  we   {ours:?}", case.args, case.before, case.after, case.says));
            }
        }
        assert!(wrong.is_empty(), "{} of {} differ from Salt:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    }

    #[test]
    fn a_pillar_is_judged_as_salt_judges_it() {
        let pillar: Map = serde_json::from_str(r#"{"a": true, "b": 1, "c": "x", "d": [1], "e": {"f": null}}"#).unwrap();
        let said = |args: &str| {
            let low = format!(r#"{{"id": "x", "sls": "s", "state": "test", "fun": "check_pillar", "name": "x", "args": {args}}}"#);
            check_pillar(&serde_json::from_str(&low).unwrap(), |key| Value::Map(pillar.clone()).traverse(key, ":").cloned())
        };
        assert_eq!(
            said(r#"{"present": ["a", "d:0"], "boolean": "a", "integer": ["a", "b"], "string": "c", "listing": ["d"], "dictionary": "e"}"#),
            ""
        );
        assert_eq!(
            said(r#"{"present": ["e:f", "z"], "string": "b", "listing": "c"}"#),
            "Pillar key \"e:f\" is missing.\nPillar key \"z\" is missing.\nPillar key \"b\" is not (<class 'str'>,).\nPillar key \"c\" is not <class 'list'>."
        );
    }
}
