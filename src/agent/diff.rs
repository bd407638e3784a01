//! What people see of a change: unified diffs of texts, one line per attribute of everything else, secrets never.

use similar::TextDiff;

use super::projection::Projection;
use crate::diagnostic::{Code, Result};
use crate::object::Object;
use crate::plan::{Hash, Key, Kind, Low};
use crate::value::{Attrs, Value};

/// Texts from this size on are not compared line by line.
const LARGE: u64 = 1 << 20;
const MASK: &str = "********";
/// Shorter texts are in so many others that masking them would only garble.
const SHORTEST: usize = 4;

/// The texts that must appear nowhere.
#[derive(Clone, Debug, Default)]
pub struct Mask {
    /// Longest first, so that a secret within a secret leaves nothing of it.
    secrets: Vec<String>,
}

impl Mask {
    pub fn new(secrets: &[String]) -> Mask {
        let lines = secrets.iter().flat_map(|s| std::iter::once(s.trim()).chain(s.lines().map(str::trim)));
        let mut secrets: Vec<String> = lines.filter(|s| s.len() >= SHORTEST).map(str::to_owned).collect();
        secrets.sort_by_key(|s| (std::cmp::Reverse(s.len()), s.clone()));
        secrets.dedup();
        Mask { secrets }
    }

    pub fn holds_secret(&self, text: &str) -> bool {
        self.secrets.iter().any(|secret| text.contains(secret.as_str()))
    }

    pub fn text(&self, text: &str) -> String {
        self.secrets.iter().filter(|s| text.contains(s.as_str())).fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), MASK))
    }

    fn value(&self, value: &Value) -> Value {
        match value {
            Value::Str(text) => Value::Str(self.text(text)),
            Value::List(list) => Value::List(list.iter().map(|v| self.value(v)).collect()),
            Value::Map(map) => Value::Map(map.iter().map(|(k, v)| (k.clone(), self.value(v))).collect()),
            other => other.clone(),
        }
    }

    /// The attributes of `attrs` that another side does not have, as they may be shown.
    pub fn attrs(&self, key: &Key, attrs: &Attrs, other: &Attrs, secret: bool) -> Attrs {
        let hidden = |name: &str| (secret && name == "content") || (key.kind == Kind::User && name.contains("password"));
        let shown = |name: &str, value: &Value| if hidden(name) { Value::str(MASK) } else { self.value(value) };
        attrs
            .iter()
            .filter(|(name, value)| other.get(*name) != Some(value))
            .map(|(name, value)| (name.clone(), shown(name, value)))
            .collect()
    }
}

/// Whether the content a low brings is secret.
pub fn secret(low: &Low) -> bool {
    low.contents.iter().any(|c| c.secret)
}

/// How a change looks, for people. Contents that are not on the host yet are noted as missing in the projection.
pub fn describe(projection: &Projection, object: &dyn Object, low: &Low, from: &Attrs, to: &Attrs, mask: &Mask) -> Result<String> {
    if to.is_empty() {
        return Ok(String::new());
    }
    let mut text = String::new();
    let (mut from, mut to) = (from.clone(), to.clone());
    if object.key().kind == Kind::File {
        let (old, new) = (from.remove("content"), to.remove("content"));
        let (old_size, new_size) = (from.remove("size"), to.remove("size"));
        if let Some(new) = new.filter(|new| old.as_ref() != Some(new)) {
            let old = Side::new(low, old.as_ref(), old_size);
            let new = Side::new(low, Some(&new), new_size);
            text = contents(projection, &object.key().name, &old, &new, secret(low), mask)?;
        }
    }
    text.push_str(&mask.text(&object.describe(projection.sys, &from, &to)));
    Ok(text)
}

/// One side of a change of contents.
struct Side {
    hash: Option<Hash>,
    size: Option<u64>,
}

impl Side {
    fn new(low: &Low, content: Option<&Value>, size: Option<Value>) -> Side {
        let hash = content.and_then(Value::as_str).map(|hash| Hash(hash.to_owned()));
        let announced = || low.contents.iter().find(|c| Some(&c.hash) == hash.as_ref()).map(|c| c.size);
        let size = size.and_then(|v| v.as_int()).and_then(|v| u64::try_from(v).ok()).or_else(announced);
        Side { hash, size }
    }

    /// Nothing where there is no such file; the error says that it is too large or under way.
    fn text(&self, projection: &Projection) -> Result<Option<Vec<u8>>> {
        match &self.hash {
            None => Ok(Some(Vec::new())),
            Some(_) if self.size.is_some_and(|size| size >= LARGE) => Ok(None),
            Some(hash) => match projection.bytes(hash) {
                Ok(bytes) if bytes.len() as u64 >= LARGE => Ok(None),
                Ok(bytes) => Ok(Some(bytes.to_vec())),
                Err(e) if e.code == Code::HostNeeded => Ok(Some(Vec::new())),
                // Changed since it was read: apply will find the plan stale.
                Err(_) => Ok(None),
            },
        }
    }

    fn shown(&self) -> String {
        match (&self.hash, self.size) {
            (None, _) => "nothing".to_owned(),
            (Some(_), Some(size)) => format!("{size} bytes"),
            (Some(_), None) => "contents".to_owned(),
        }
    }
}

fn contents(projection: &Projection, path: &str, old: &Side, new: &Side, secret: bool, mask: &Mask) -> Result<String> {
    if secret {
        return Ok("content differs (secret)\n".to_owned());
    }
    let (Some(before), Some(after)) = (old.text(projection)?, new.text(projection)?) else {
        return Ok(format!("content: {} → {}\n", old.shown(), new.shown()));
    };
    let (Some(before), Some(after)) = (as_text(&before), as_text(&after)) else {
        return Ok(format!("binary content: {} → {} bytes\n", old.shown(), after.len()));
    };
    if mask.holds_secret(before) || mask.holds_secret(after) {
        return Ok("content differs (secret)\n".to_owned());
    }
    let name = if old.hash.is_none() { "/dev/null" } else { path };
    Ok(TextDiff::from_lines(before, after).unified_diff().context_radius(3).header(name, path).to_string())
}

fn as_text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_whole_line_by_line_and_in_values() {
        let mask = Mask::new(&["hunter2".into(), "hunter2-and-more".into(), "first line\nsecond line\n".into(), "no".into()]);
        assert_eq!(mask.text("a hunter2-and-more b hunter2 no"), "a ******** b ******** no");
        assert_eq!(mask.text("> second line <"), "> ******** <");
        let list = Value::List(vec![Value::str("hunter2")]);
        assert_eq!(mask.value(&list), Value::List(vec![Value::str(MASK)]));
    }
}
