//! Strict reading of a cluster's files: a key that nobody knows and a value of another kind are errors with their place.

use crate::diagnostic::{Code, Diagnostic, Result, Span, nearest};
use crate::value::Value;
use crate::yaml::{Data, Node, Place};

/// A file being read.
#[derive(Clone, Copy)]
pub struct Strict<'a> {
    pub file: &'a str,
    pub text: &'a str,
}

impl Strict<'_> {
    /// The entries of a mapping, all of which have one of these keys. Nothing at all is an empty one.
    pub fn map(&self, node: Node, known: &[&str]) -> Result<Vec<(String, Place, Node)>> {
        let entries = match node.data {
            Data::Map(entries) => entries,
            Data::Scalar(Value::Null) => return Ok(Vec::new()),
            _ => return Err(self.fault(node.place, format!("a mapping belongs here, with {}", known.join(", "))).into()),
        };
        let entries: Vec<_> = entries.into_iter().map(|(key, (place, value))| (key.to_text(), place, value)).collect();
        match entries.iter().find(|(key, _, _)| !known.contains(&key.as_str())) {
            Some((key, place, _)) => {
                let fault = self.fault(*place, format!("there is no key `{key}` here"));
                Err(match nearest(key, known.iter().copied()) {
                    Some(near) => fault.hint(format!("did you mean {near:?}?")),
                    None => fault.hint(format!("there are {}", known.join(", "))),
                }
                .into())
            }
            None => Ok(entries),
        }
    }

    pub fn list(&self, node: Node) -> Result<Vec<Node>> {
        match node.data {
            Data::List(items) => Ok(items),
            Data::Scalar(Value::Null) => Ok(Vec::new()),
            _ => Err(self.fault(node.place, "a list belongs here").into()),
        }
    }

    pub fn flag(&self, node: Node, key: &str) -> Result<bool> {
        let at = node.place;
        node.into_value().as_bool().ok_or_else(|| self.fault(at, format!("`{key}` is true or false")).into())
    }

    /// What becomes a part of ids, units and paths.
    pub fn name(&self, node: Node) -> Result<String> {
        let at = node.place;
        let text = node.into_value().to_text();
        let legal = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if text.is_empty() || text.len() > 200 || text.starts_with(['-', '.']) || !text.chars().all(legal) {
            return Err(self.fault(at, format!("{text:?} cannot be a name: letters, digits, dots, dashes, _")).into());
        }
        Ok(text)
    }

    pub fn fault(&self, place: Place, what: impl Into<String>) -> Diagnostic {
        let fault = Diagnostic::new(Code::Settings, what).at(Span::new(self.file, place.line, place.column));
        // A node may have a password.
        if self.text.contains("passwd") { fault } else { fault.excerpt_of(self.text) }
    }
}
