//! Arguments of a state: checked against the table, and read as Salt reads them.
//!
//! `check` finds everything that is wrong with a list of lows at once; the readers of `Args` then serve `parse` of every module.
//! `null` counts as not given, as Python's `None` default does.

use super::{Arg, ArgKind, Entry};
use crate::diagnostic::{Code, Diagnostic, Result, nearest};
use crate::plan::Low;
use crate::value::{Map, Value};

/// Arguments that conditions and checks read (`runas`, `cwd` … of `unless` and `onlyif`): known in every state.
pub const OF_CONDITIONS: [&str; 11] =
    ["cwd", "root", "env", "prepend_path", "umask", "timeout", "runas", "runas_password", "use_vt", "shell", "success_retcodes"];

/// Accepted in every state and without effect here: there is no Salt to reload or to fire events.
const ACCEPTED: [&str; 7] = ["fire_event", "reload_modules", "reload_grains", "reload_pillar", "saltenv", "__env__", "name"];

/// They take something away. Salt's take any argument, and templates switch to them by the function's name alone (`file.{{ 'managed' if … else 'absent' }}`):
/// what the thing would be like, as other functions of the module say it, is of no matter then.
const TAKE_AWAY: [&str; 8] =
    ["cron.absent", "file.absent", "mount.unmounted", "pkg.purged", "pkg.removed", "pkgrepo.absent", "service.dead", "service.disabled"];

/// Everything that is wrong with these lows' functions and arguments.
pub fn check(lows: &[Low]) -> Vec<Diagnostic> {
    lows.iter().flat_map(check_low).collect()
}

fn check_low(low: &Low) -> Vec<Diagnostic> {
    match super::find(&low.function()) {
        None => vec![at(low, unknown_function(low))],
        Some(entry) => low.args.iter().filter_map(|(name, value)| check_arg(low, entry, &name.to_text(), value)).collect(),
    }
}

fn check_arg(low: &Low, entry: &Entry, name: &str, value: &Value) -> Option<Diagnostic> {
    if let Some(arg) = entry.args.iter().find(|a| a.name == name) {
        let wanted = wrong_kind(arg, value)?;
        let summary = format!("argument {name} of {} is to be {wanted}, found {}", entry.name, found(value));
        let finding = Diagnostic::new(Code::Compile, summary).rule("wrong-type").word(name);
        let text = arg.kind == ArgKind::Bool
            && matches!(value, Value::Str(text) if matches!(text.to_lowercase().as_str(), "false" | "no" | "off"));
        return Some(at(low, if text { finding.hint("without quotes: Python takes any text for true, 'False' too") } else { finding }));
    }
    // What a function of another name takes is that function's business.
    if entry.args.iter().any(|arg| arg.name == "*") {
        return None;
    }
    let for_conditions = OF_CONDITIONS.contains(&name) && low.has_conditions();
    if ACCEPTED.contains(&name) || for_conditions || (TAKE_AWAY.contains(&entry.name) && of_a_sibling(low, name)) {
        return None;
    }
    let finding = Diagnostic::new(Code::Compile, format!("{} has no argument {name}", entry.name)).rule("unknown-argument").word(name);
    let known = nearest(name, entry.args.iter().map(|a| a.name));
    Some(at(
        low,
        match known {
            Some(known) => finding.hint(format!("did you mean {known}?")),
            None => finding.hint(format!("basalt doc {} lists its arguments", entry.name)),
        },
    ))
}

/// Whether another function of the module takes this argument.
fn of_a_sibling(low: &Low, name: &str) -> bool {
    let same = |entry: &&Entry| entry.name.split_once('.').is_some_and(|(module, _)| module == low.state);
    super::entries().filter(same).any(|entry| entry.args.iter().any(|arg| arg.name == name))
}

fn unknown_function(low: &Low) -> Diagnostic {
    let name = low.function();
    let finding = Diagnostic::new(Code::Compile, format!("there is no state {name}")).rule("unknown-state").word(&name);
    let siblings: Vec<&str> = super::entries().map(|e| e.name).filter(|n| n.split_once('.').is_some_and(|(m, _)| m == low.state)).collect();
    match nearest(&name, super::entries().map(|e| e.name)) {
        Some(known) => finding.hint(format!("did you mean {known}?")),
        None if siblings.is_empty() => finding.hint("basalt doc lists all states"),
        None => finding.hint(format!("known here: {}", siblings.join(", "))),
    }
}

fn at(low: &Low, finding: Diagnostic) -> Diagnostic {
    let finding = finding.detail(format!("state {:?} in {}", low.id, low.sls));
    match &low.span {
        Some(span) => finding.or_at(span.clone()),
        None => finding,
    }
}

pub fn found(value: &Value) -> String {
    match value {
        Value::Str(s) if s.len() <= 40 => format!("{s:?}"),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) => value.to_text(),
        other => other.kind().to_owned(),
    }
}

/// What the value should have been, where it is not that.
pub fn wrong_kind(arg: &Arg, value: &Value) -> Option<&'static str> {
    let (right, wanted) = match arg.kind {
        ArgKind::Str => (scalar(value).is_some(), "a string"),
        ArgKind::Bool => (boolean(value).is_some(), "True or False"),
        ArgKind::Int => (whole(value).is_some(), "a whole number"),
        ArgKind::Mode => (mode(value).is_some(), "a mode such as '0644'"),
        ArgKind::List => (matches!(value, Value::List(_)), "a list"),
        ArgKind::Map => (mapping(value).is_some(), "a mapping"),
        ArgKind::Strs => (strings(value).is_some(), "a string or a list of strings"),
        ArgKind::Any => (true, ""),
    };
    (!right && !value.is_null()).then_some(wanted)
}

/// The arguments of one low, read by name. What has passed `check` reads without an error.
pub struct Args<'a>(pub &'a Low);

impl<'a> Args<'a> {
    /// As it is; `None` where it is not given or null.
    pub fn value(&self, name: &str) -> Option<&'a Value> {
        self.0.args.get(name).filter(|v| !v.is_null())
    }

    /// A string; numbers and booleans as Python writes them.
    pub fn str(&self, name: &str) -> Result<Option<String>> {
        self.read(name, scalar, "a string")
    }

    /// The low's `name`, which every state has.
    pub fn name(&self) -> String {
        self.0.args.get("name").and_then(scalar).unwrap_or_else(|| self.0.name.clone())
    }

    pub fn bool(&self, name: &str, default: bool) -> Result<bool> {
        match self.0.args.get(name) {
            // `makedirs:` with nothing behind it is None to Salt: false where somebody wrote it, whatever the default.
            Some(Value::Null) => Ok(false),
            _ => Ok(self.read(name, boolean, "True or False")?.unwrap_or(default)),
        }
    }

    pub fn int(&self, name: &str) -> Result<Option<i64>> {
        self.read(name, whole, "a whole number")
    }

    /// A mode in four digits (`0644`), or `keep`.
    pub fn mode(&self, name: &str) -> Result<Option<String>> {
        self.read(name, mode, "a mode such as '0644'")
    }

    /// A string or a list of strings; empty where not given.
    pub fn strs(&self, name: &str) -> Result<Vec<String>> {
        Ok(self.read(name, strings, "a string or a list of strings")?.unwrap_or_default())
    }

    pub fn list(&self, name: &str) -> Result<Option<&'a [Value]>> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::List(list)) => Ok(Some(list)),
            Some(other) => Err(self.wrong(name, "a list", other)),
        }
    }

    /// A mapping, or Salt's list of one-key mappings; empty where not given.
    pub fn map(&self, name: &str) -> Result<Map> {
        Ok(self.read(name, mapping, "a mapping")?.unwrap_or_default())
    }

    /// An error of this state about one of its arguments.
    pub fn error(&self, summary: impl Into<String>) -> crate::diagnostic::Error {
        at(self.0, Diagnostic::new(Code::Compile, summary)).into()
    }

    fn read<T>(&self, name: &str, reader: fn(&Value) -> Option<T>, wanted: &str) -> Result<Option<T>> {
        self.value(name).map(|value| reader(value).ok_or_else(|| self.wrong(name, wanted, value))).transpose()
    }

    fn wrong(&self, name: &str, wanted: &str, value: &Value) -> crate::diagnostic::Error {
        self.error(format!("argument {name} of {} is to be {wanted}, found {}", self.0.function(), found(value)))
    }
}

fn scalar(value: &Value) -> Option<String> {
    (!matches!(value, Value::List(_) | Value::Map(_) | Value::Null)).then(|| value.to_text())
}

/// Python's truth, except that a string that reads like the opposite of what Python makes of it (`'False'`) is refused.
fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Str(s) => match s.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Some(true),
            "" => Some(false),
            _ => None,
        },
        Value::List(_) | Value::Map(_) => None,
        other => Some(other.truthy()),
    }
}

fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Int(i) => Some(*i),
        Value::Float(f) if f.fract() == 0.0 && f.abs() < 9.0e15 => Some(*f as i64),
        Value::Str(s) => s.trim().parse().ok(),
        _ => None,
    }
}

/// Salt reads `0644`, `'0644'`, `644` and `'0o644'` alike.
fn mode(value: &Value) -> Option<String> {
    let text = match value {
        Value::Int(i) => i.to_string(),
        Value::Str(s) if s == "keep" => return Some(s.clone()),
        Value::Str(s) => s.trim().to_owned(),
        _ => return None,
    };
    let digits = text.trim_start_matches(['0', 'o']);
    let octal = digits.len() <= 4 && digits.bytes().all(|b| (b'0'..=b'7').contains(&b)) && !text.is_empty();
    octal.then(|| format!("{digits:0>4}"))
}

fn strings(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::List(list) => list.iter().map(scalar).collect(),
        other => scalar(other).map(|s| vec![s]),
    }
}

/// A mapping, or a list of mappings laid over each other.
fn mapping(value: &Value) -> Option<Map> {
    match value {
        Value::Map(map) => Some(map.clone()),
        Value::List(list) => {
            let maps: Option<Vec<&Map>> = list.iter().map(Value::as_map).collect();
            Some(maps?.into_iter().flat_map(|m| m.iter().map(|(k, v)| (k.clone(), v.clone()))).collect())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn low(function: &str, args: &str) -> Low {
        let (state, fun) = function.split_once('.').unwrap();
        let low = serde_json::json!({"id": "x", "sls": "s", "state": state, "fun": fun, "name": "x",
            "args": serde_json::from_str::<serde_json::Value>(args).unwrap()});
        serde_json::from_value(low).unwrap()
    }

    #[test]
    fn everything_wrong_is_found_at_once_with_the_nearest_name() {
        let lows = [low("cmd.rnu", "{}"), low("cmd.run", r#"{"name": "true", "cdw": "/", "bg": "maybe"}"#), low("test.nop", "{}")];
        let found: Vec<(String, Option<String>)> = check(&lows).into_iter().map(|d| (d.summary, d.hint)).collect();
        assert_eq!(
            found,
            [
                ("there is no state cmd.rnu".into(), Some("did you mean cmd.run?".into())),
                ("cmd.run has no argument cdw".into(), Some("did you mean cwd?".into())),
                ("argument bg of cmd.run is to be True or False, found \"maybe\"".into(), None),
            ]
        );
    }

    #[test]
    fn what_takes_away_passes_over_what_a_thing_would_be_like() {
        assert_eq!(check(&[low("file.absent", r#"{"contents": "x", "mode": 644}"#), low("service.dead", r#"{"reload": true}"#)]), []);
        assert_eq!(check(&[low("file.absent", r#"{"contnets": "x"}"#), low("file.directory", r#"{"contents": "x"}"#)]).len(), 2);
    }

    #[test]
    fn arguments_of_conditions_are_known_only_beside_conditions() {
        let mut state = low("test.nop", r#"{"runas": "nobody"}"#);
        assert_eq!(check(&[state.clone()]).len(), 1);
        state.control.unless.push(Value::str("true"));
        assert_eq!(check(&[state]), []);
    }

    #[test]
    fn modes_read_as_salt_normalises_them() {
        for (json, text) in [("644", "0644"), ("\"0644\"", "0644"), ("\"0o1777\"", "1777"), ("0", "0000"), ("\"keep\"", "keep")] {
            assert_eq!(mode(&serde_json::from_str(json).unwrap()).as_deref(), Some(text), "{json}");
        }
        for json in ["\"u+x\"", "888", "\"\"", "12345", "true"] {
            assert_eq!(mode(&serde_json::from_str(json).unwrap()), None, "{json}");
        }
    }

    #[test]
    fn a_quoted_false_is_refused_and_null_is_false() {
        assert!(Args(&low("test.nop", r#"{"x": "False"}"#)).bool("x", true).is_err());
        assert!(!Args(&low("test.nop", r#"{"x": null}"#)).bool("x", true).unwrap());
        assert!(Args(&low("test.nop", "{}")).bool("x", true).unwrap());
    }
}
