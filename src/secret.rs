//! Secrets: texts that must appear nowhere, and the mask that takes them out of whatever is shown, told or written down.
//!
//! The controller knows them (`lang::secret`: what was decrypted, and what templates made of it) and tells the agent, so both mask with
//! the same. What is shorter than `SHORTEST` cannot be masked: it stands in too much else.

use crate::diagnostic::Diagnostic;
use crate::value::{Map, Value};

pub const MASK: &str = "********";
/// Shorter texts are in so many others that masking them would only garble.
pub const SHORTEST: usize = 4;

/// The texts that must appear nowhere.
#[derive(Clone, Default)]
pub struct Mask {
    /// Longest first, so that a secret within a secret leaves nothing of it.
    secrets: Vec<String>,
}

impl Mask {
    pub fn new(secrets: &[String]) -> Mask {
        let whole = secrets.iter().map(|text| text.trim());
        let mut secrets: Vec<String> =
            whole.chain(secrets.iter().flat_map(|text| lines(text))).filter(|s| s.len() >= SHORTEST).map(str::to_owned).collect();
        secrets.sort_by_key(|s| (std::cmp::Reverse(s.len()), s.clone()));
        secrets.dedup();
        Mask { secrets }
    }

    /// There is nothing to mask.
    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty()
    }

    pub fn holds_secret(&self, text: &str) -> bool {
        self.secrets.iter().any(|secret| text.contains(secret.as_str()))
    }

    /// Whether any text in a value is or holds a secret, keys included.
    pub fn holds_in(&self, value: &Value) -> bool {
        match value {
            Value::Str(text) => self.holds_secret(text),
            Value::List(list) => list.iter().any(|v| self.holds_in(v)),
            Value::Map(map) => map.iter().any(|(k, v)| self.holds_in(k) || self.holds_in(v)),
            Value::Int(_) | Value::Float(_) => self.holds_secret(&value.to_text()),
            Value::Null | Value::Bool(_) => false,
        }
    }

    pub fn text(&self, text: &str) -> String {
        self.secrets.iter().filter(|s| text.contains(s.as_str())).fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), MASK))
    }

    pub fn value(&self, value: &Value) -> Value {
        match value {
            Value::Str(text) => Value::Str(self.text(text)),
            Value::List(list) => Value::List(list.iter().map(|v| self.value(v)).collect()),
            Value::Map(map) => Value::Map(self.map(map)),
            number if self.holds_in(number) => Value::str(MASK),
            other => other.clone(),
        }
    }

    pub fn map(&self, map: &Map) -> Map {
        map.iter().map(|(key, value)| (self.value(key), self.value(value))).collect()
    }

    pub fn diagnostic(&self, fault: Diagnostic) -> Diagnostic {
        if self.is_empty() {
            return fault;
        }
        Diagnostic {
            summary: self.text(&fault.summary),
            detail: self.text(&fault.detail),
            hint: fault.hint.map(|hint| self.text(&hint)),
            excerpt: fault.excerpt.map(|excerpt| self.text(&excerpt)),
            related: fault.related.into_iter().map(|(span, note)| (span, self.text(&note))).collect(),
            ..fault
        }
    }
}

/// The lines of a secret, each of which is one; not those that only frame it (`-----BEGIN …-----`).
pub fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !(line.starts_with("-----") && line.ends_with("-----")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_whole_line_by_line_and_in_values() {
        let secrets = ["hunter2", "hunter2-and-more", "-----BEGIN KEY-----\nsecond line\n", "no", "271828"];
        let mask = Mask::new(&secrets.map(str::to_owned));
        assert_eq!(mask.text("a hunter2-and-more b hunter2 no"), "a ******** b ******** no");
        assert_eq!(mask.text("> second line < -----BEGIN KEY-----"), "> ******** < -----BEGIN KEY-----");
        let value: Value = serde_json::from_str(r#"[{"hunter2": ["x hunter2"]}, 271828, true]"#).unwrap();
        assert_eq!(serde_json::to_string(&mask.value(&value)).unwrap(), r#"[{"********":["x ********"]},"********",true]"#);
    }

    #[test]
    fn a_fault_is_masked_in_all_its_parts() {
        let span = crate::diagnostic::Span::new("a.sls", 1, 1);
        let fault = Diagnostic::new(crate::diagnostic::Code::Yaml, "x hunter2").detail("hunter2").hint("no hunter2").at(span.clone());
        let fault = fault.related(span, "hunter2").excerpt_of("password: hunter2");
        let shown = serde_json::to_string(&Mask::new(&["hunter2".into()]).diagnostic(fault)).unwrap();
        assert!(!shown.contains("hunter2") && shown.contains("password: ********"), "{shown}");
    }
}
