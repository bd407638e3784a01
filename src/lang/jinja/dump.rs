//! Data written the way templates write it, for execution functions.

use super::value::from_plain;
use super::yaml_dump::{self, Flow, Json};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::value::Value;

pub use super::filter::{normpath, wrap};
pub use super::yaml_dump::double_quoted;

/// `flow`: `None` is PyYAML's default, one line for collections that hold no other.
pub fn yaml(value: &Value, flow: Option<bool>) -> Result<String> {
    let flow = flow.map_or(Flow::Leaves, |flow| if flow { Flow::All } else { Flow::None });
    yaml_dump::yaml(&from_plain(value), flow).map_err(|e| error(&e))
}

pub fn json(value: &Value, sort_keys: bool, indent: Option<usize>) -> Result<String> {
    yaml_dump::json(&from_plain(value), Json { sort_keys, indent, ascii: false }).map_err(|e| error(&e))
}

/// `repr()`
pub fn python(value: &Value) -> String {
    super::python::repr(&from_plain(value))
}

fn error(error: &minijinja::Error) -> Box<Diagnostic> {
    Box::new(Diagnostic::new(Code::Template, error.detail().unwrap_or("the value cannot be written").to_owned()))
}
