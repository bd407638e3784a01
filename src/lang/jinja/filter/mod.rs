//! Filters: Jinja2's and Salt's, by name.

mod convert;
mod list;
mod network;
mod regex;
mod salt;
mod text;
mod time;

use minijinja::{Error, State, Value};

use super::call::Args;
use super::python;
use super::taint::Taint;
use super::value::{Done, View, defined, fail, from_plain, view};

pub use regex::matches;
pub use text::normpath;

/// Text in lines no wider than this, broken between words.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    text::wrap(text, width.max(1), true, true)
}

pub type Filter = fn(&mut State<'_, '_>, &Value, Args) -> Done;

fn tables() -> [&'static [(&'static str, Filter)]; 7] {
    [text::TABLE, list::TABLE, convert::TABLE, salt::TABLE, regex::TABLE, network::TABLE, time::TABLE]
}

pub fn all() -> impl Iterator<Item = (&'static str, Filter)> {
    tables().into_iter().flatten().copied()
}

pub fn is_known(name: &str) -> bool {
    all().any(|(n, _)| n == name)
}

pub fn by_name(name: &str) -> Result<Filter, Error> {
    all().find(|(n, _)| *n == name).map(|(_, f)| f).ok_or_else(|| fail(format!("No filter named {}.", python::quote(name))))
}

/// The few filters that have something to say about a value that is not there.
const TAKES_UNDEFINED: [&str; 4] = ["default", "d", "items", "skip"];

pub fn apply(state: &mut State, name: &str, filter: Filter, value: &Value, args: Args) -> Done {
    if !TAKES_UNDEFINED.contains(&name) {
        defined(value)?;
        args.positional.iter().chain(args.named.iter().map(|(_, v)| v)).try_for_each(defined)?;
    }
    let taint = Taint::of(value, &args);
    let made = filter(state, value, args)?;
    if let Some(taint) = taint {
        taint.made(&made);
    }
    Ok(made)
}

/// What the tags `load_yaml`, `import_json` and their like read.
pub fn parse(format: &str, text: &str) -> Done {
    match format {
        "yaml" => convert::load_yaml(text),
        "json" => convert::load_json(text),
        _ => Ok(Value::from(text)),
    }
}

/// A value as the text that string filters work on.
fn text_of(value: &Value) -> String {
    python::text(value)
}

fn number_of(value: Option<&Value>, default: i64, what: &str) -> Result<i64, Error> {
    match value {
        None => Ok(default),
        Some(value) => match python::as_int(value) {
            Some(i) => Ok(i64::try_from(i).unwrap_or(if i > 0 { i64::MAX } else { i64::MIN })),
            None if matches!(view(value), View::None) => Ok(default),
            None => Err(fail(format!("{what} must be a whole number, not '{}'", python::type_name(value)))),
        },
    }
}

fn flag(value: Option<&Value>, default: bool) -> bool {
    value.map_or(default, |v| python::truth(v).unwrap_or(false))
}

fn plain_result(result: crate::diagnostic::Result<crate::value::Value>) -> Done {
    result.map(|v| from_plain(&v)).map_err(|d| super::run::raise(*d))
}
