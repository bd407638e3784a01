//! Data written the way templates write it, for execution functions.

use super::value::from_plain;
use super::yaml_dump::{self, Flow, Json};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::value::Value;

pub use super::filter::{normpath, wrap};
pub use super::yaml_dump::double_quoted;

/// `flow`: `None` is PyYAML's default, one line for collections that hold no other. Without `unicode` other letters than ASCII's are escaped.
pub fn yaml(value: &Value, flow: Option<bool>, unicode: bool) -> Result<String> {
    let flow = flow.map_or(Flow::Leaves, |flow| if flow { Flow::All } else { Flow::None });
    yaml_dump::yaml(&from_plain(value), flow, unicode).map_err(|e| error(&e))
}

pub fn json(value: &Value, sort_keys: bool, indent: Option<usize>) -> Result<String> {
    yaml_dump::json(&from_plain(value), Json { sort_keys, indent, ascii: false }).map_err(|e| error(&e))
}

/// YAML as `yaml.dump` of Salt's serializer writes a file.
pub struct YamlFile {
    pub flow: Option<bool>,
    pub unicode: bool,
    pub indent: Option<u16>,
    pub width: Option<u16>,
    pub start: bool,
}

pub fn yaml_file(value: &Value, how: &YamlFile) -> Result<String> {
    let flow = how.flow.map_or(Flow::Leaves, |flow| if flow { Flow::All } else { Flow::None });
    let style = yaml_dump::Style { flow, unicode: how.unicode, indent: how.indent, width: how.width, start: how.start };
    let text = yaml_dump::emit(&from_plain(value), &style).map_err(|e| error(&e))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix("\n...").unwrap_or(text).to_owned())
}

pub fn json_file(value: &Value, sort_keys: bool, indent: Option<usize>, ascii: bool) -> Result<String> {
    yaml_dump::json(&from_plain(value), Json { sort_keys, indent, ascii }).map_err(|e| error(&e))
}

/// `repr()`
pub fn python(value: &Value) -> String {
    super::python::repr(&from_plain(value))
}

fn error(error: &minijinja::Error) -> Box<Diagnostic> {
    Box::new(Diagnostic::new(Code::Template, error.detail().unwrap_or("the value cannot be written").to_owned()))
}
