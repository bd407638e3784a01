//! `grains.present` and its kin: grains in `/etc/salt/grains`, which the controller reads, changes and writes, for the agent knows no YAML. Each state
//! goes on with what those before it make of the file.

use super::jinja::{HostCalls, dump};
use crate::diagnostic::Result;
use crate::plan::Low;
use crate::value::{Map, Value};

pub(super) const FILE: &str = "/etc/salt/grains";

/// The grains as states have them so far.
pub(super) struct Grains {
    all: Value,
    file: Map,
}

/// What a state makes of them.
pub(super) enum Change {
    None,
    /// The new text of the file.
    Text(String),
    /// Why the state fails.
    Failed(String),
}

impl Grains {
    pub(super) fn new(all: &Map, host: &dyn HostCalls) -> Result<Grains> {
        let path = [Value::str(FILE)];
        let mut file = Map::new();
        if host.call("file.file_exists", &path, &Map::new())?.truthy() {
            let text = host.call("file.read", &path, &Map::new())?.to_text();
            if let Value::Map(map) = crate::yaml::load(&text, FILE)? {
                file = map;
            }
        }
        // What the file says counts, also where the host's grains were asked before.
        let mut all = all.clone();
        all.0.extend(file.0.clone());
        Ok(Grains { all: Value::Map(all), file })
    }

    pub(super) fn apply(&mut self, low: &Low) -> Result<Change> {
        let flag = |name: &str| low.args.get(name).is_some_and(Value::truthy);
        let delimiter = low.args.get("delimiter").map_or(":".to_owned(), Value::to_text);
        let name = low.name.replace(&delimiter, ":");
        let value = low.args.get("value").cloned().unwrap_or_default();
        let there = self.all.traverse(&name, ":").cloned();
        let list = |value: &Value| value.as_list().map_or_else(|| vec![value.clone()], <[Value]>::to_vec);
        let new = match low.fun.as_str() {
            "present" => {
                if there.as_ref() == Some(&value) {
                    return Ok(Change::None);
                }
                let complex = |value: &Value| matches!(value, Value::List(_) | Value::Map(_));
                match there.filter(|_| !flag("force")) {
                    Some(there) if complex(&there) => {
                        return Ok(Change::Failed(format!(
                            "The key '{name}' exists but is a dict or a list. Use 'force=True' to overwrite."
                        )));
                    }
                    Some(there) if complex(&value) && !there.is_null() => {
                        return Ok(Change::Failed(format!(
                            "The key '{name}' exists and the given value is a dict or a list. Use 'force=True' to overwrite."
                        )));
                    }
                    _ => Some(value),
                }
            }
            "list_present" => match there {
                Some(Value::List(mut all)) => {
                    let missing: Vec<Value> = list(&value).into_iter().filter(|value| !all.contains(value)).collect();
                    if missing.is_empty() {
                        return Ok(Change::None);
                    }
                    all.extend(missing);
                    Some(Value::List(all))
                }
                Some(there) if there.truthy() => return Ok(Change::Failed(format!("Grain {name} is not a valid list"))),
                _ => Some(Value::List(list(&value))),
            },
            "list_absent" => match there {
                Some(Value::List(all)) => {
                    let gone = list(&value);
                    let rest: Vec<Value> = all.iter().filter(|value| !gone.contains(value)).cloned().collect();
                    if rest.len() == all.len() {
                        return Ok(Change::None);
                    }
                    Some(Value::List(rest))
                }
                Some(there) if there.truthy() => return Ok(Change::Failed(format!("Grain {name} is not a valid list"))),
                _ => return Ok(Change::None),
            },
            _ => match there {
                None => return Ok(Change::None),
                Some(Value::Null) if !flag("destructive") => return Ok(Change::None),
                Some(Value::List(_) | Value::Map(_)) if !flag("force") => {
                    return Ok(Change::Failed(format!("The key '{name}' exists but is a dict or a list. Use 'force=True' to overwrite.")));
                }
                Some(_) => (!flag("destructive")).then_some(Value::Null),
            },
        };
        let parts: Vec<&str> = name.split(':').collect();
        let (Some(first), Some(rest)) = (parts.first(), parts.get(1..)) else { return Ok(Change::None) };
        // What is around a nested grain comes into the file with it.
        let around = self.all.traverse(first, ":").cloned();
        match set(around, rest, new, flag("force")) {
            Err(why) => return Ok(Change::Failed(format!("{name}: {why}"))),
            Ok(None) => {
                self.file.remove(first);
                self.put(first, None);
            }
            Ok(Some(value)) => {
                self.file.insert(*first, value.clone());
                self.put(first, Some(value));
            }
        }
        let text = dump::yaml_file(
            &Value::Map(self.file.clone()),
            &dump::YamlFile { flow: Some(false), unicode: true, indent: None, width: None, start: false },
        )?;
        Ok(Change::Text(text + "\n"))
    }

    fn put(&mut self, name: &str, value: Option<Value>) {
        if let Value::Map(all) = &mut self.all {
            match value {
                Some(value) => drop(all.insert(name, value)),
                None => drop(all.remove(name)),
            }
        }
    }
}

/// A value with another below these keys; nothing where it goes as a whole.
fn set(there: Option<Value>, path: &[&str], new: Option<Value>, force: bool) -> std::result::Result<Option<Value>, String> {
    let Some((first, rest)) = path.split_first() else { return Ok(new) };
    let mut map = match there {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Map(map)) => map,
        Some(Value::Str(text)) if text == *first => Map::new(),
        Some(_) if force => Map::new(),
        Some(other) => return Err(format!("the key above it has the value {other}, and not {first}. Use 'force=True' to overwrite.")),
    };
    match set(map.get(first).cloned(), rest, new, force)? {
        Some(value) => drop(map.insert(*first, value)),
        None => drop(map.remove(first)),
    }
    Ok(Some(Value::Map(map)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grains_are_set_as_salt_sets_them() {
        let all: Map = serde_json::from_str(r#"{"os": "Debian", "roles": ["web"], "a": {"b": 1}, "simple": "x"}"#).unwrap();
        let mut grains = Grains { all: Value::Map(all), file: serde_json::from_str(r#"{"roles": ["web"]}"#).unwrap() };
        let mut apply = |fun: &str, name: &str, args: &str| {
            let low = format!(r#"{{"id": "x", "sls": "s", "state": "grains", "fun": "{fun}", "name": "{name}", "args": {args}}}"#);
            match grains.apply(&serde_json::from_str(&low).unwrap()).unwrap() {
                Change::None => "same".to_owned(),
                Change::Text(text) => text,
                Change::Failed(why) => why.split(' ').take(4).collect::<Vec<_>>().join(" "),
            }
        };
        assert_eq!(apply("present", "os", r#"{"value": "Debian"}"#), "same");
        assert_eq!(apply("present", "cheese", r#"{"value": "edam"}"#), "cheese: edam\nroles:\n- web\n");
        assert_eq!(apply("present", "cheese", r#"{"value": ["edam"]}"#), "The key 'cheese' exists");
        assert_eq!(apply("present", "a:c", r#"{"value": 2}"#), "a:\n  b: 1\n  c: 2\ncheese: edam\nroles:\n- web\n");
        assert_eq!(apply("present", "simple,deep", r#"{"value": 2, "delimiter": ","}"#), "simple:deep: the key above");
        assert_eq!(
            apply("list_present", "roles", r#"{"value": ["web", "db"]}"#),
            "a:\n  b: 1\n  c: 2\ncheese: edam\nroles:\n- web\n- db\n"
        );
        assert_eq!(apply("list_present", "roles", r#"{"value": "db"}"#), "same");
        assert_eq!(apply("list_absent", "roles", r#"{"value": "web"}"#), "a:\n  b: 1\n  c: 2\ncheese: edam\nroles:\n- db\n");
        assert_eq!(apply("absent", "a:b", "{}"), "a:\n  b: null\n  c: 2\ncheese: edam\nroles:\n- db\n");
        assert_eq!(apply("absent", "roles", "{}"), "The key 'roles' exists");
        assert_eq!(apply("absent", "roles", r#"{"force": true, "destructive": true}"#), "a:\n  b: null\n  c: 2\ncheese: edam\n");
        assert_eq!(apply("absent", "none", "{}"), "same");
    }
}
