//! What people see of a change: as its object describes it, secrets never, and contents only where they are not large.

use super::projection::Projection;
use crate::diagnostic::Result;
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

    /// Attributes as they may be shown.
    pub fn attrs(&self, key: &Key, attrs: &Attrs, secret: bool) -> Attrs {
        // An answer of debconf whose type is not among these may be a password.
        let answer = key.kind == Kind::Debconf && attrs.get("type").is_none_or(|kind| kind.as_str() == Some("password"));
        let hidden = |name: &str| {
            (secret && name == "content") || (key.kind == Kind::User && name.contains("password")) || (answer && name == "value")
        };
        let shown = |name: &str, value: &Value| if hidden(name) { Value::str(MASK) } else { self.value(value) };
        attrs.iter().map(|(name, value)| (name.clone(), shown(name, value))).collect()
    }
}

/// Whether what a low brings is not to be seen: a secret, or the state says `show_changes: False`.
pub fn secret(low: &Low) -> bool {
    low.contents.iter().any(|c| c.secret) || low.args.get("show_changes").is_some_and(|show| !show.truthy())
}

/// How a change looks, for people; `hidden`: without its contents. Contents that are not on the host yet are noted as missing in the
/// projection.
pub fn describe(
    projection: &Projection,
    object: &dyn Object,
    low: &Low,
    from: &Attrs,
    to: &Attrs,
    mask: &Mask,
    hidden: bool,
) -> Result<String> {
    let describe = |from: &Attrs, to: &Attrs| mask.text(&object.describe(projection.sys, from, to));
    let hash = |attrs: &Attrs| attrs.get("content").and_then(Value::as_str).map(|hash| Hash(hash.to_owned()));
    let (old, new) = (hash(from), hash(to));
    if object.key().kind != Kind::File || old == new {
        return Ok(describe(from, to));
    }
    let without =
        |attrs: &Attrs| Attrs::from_iter(attrs.iter().filter(|(name, _)| *name != "content").map(|(n, v)| (n.clone(), v.clone())));
    let instead = |line: &str| match to.is_empty() {
        true => format!("{line}\n"),
        false => describe(&without(from), &without(to)) + line + "\n",
    };
    if hidden {
        return Ok(instead("content differs (secret)"));
    }
    let (before, after) = (size(low, from, old.as_ref()), size(low, to, new.as_ref()));
    if before.max(after) >= Some(LARGE) {
        let shown = |size: Option<u64>| size.map_or("nothing".to_owned(), |size| format!("{size} bytes"));
        return Ok(instead(&format!("content: {} → {}", shown(before), shown(after))));
    }
    for hash in [old, new].into_iter().flatten() {
        match projection.bytes(&hash) {
            Ok(bytes) if mask.holds_secret(&String::from_utf8_lossy(&bytes)) => return Ok(instead("content differs (secret)")),
            Ok(_) => {}
            // Under way; or changed since it was read, and then apply finds the plan stale.
            Err(_) => return Ok(instead("content differs")),
        }
    }
    Ok(describe(from, to))
}

/// How large a content is, as far as it is known without having it.
fn size(low: &Low, attrs: &Attrs, hash: Option<&Hash>) -> Option<u64> {
    let noted = attrs.get("size").and_then(Value::as_int).and_then(|size| u64::try_from(size).ok());
    noted.or_else(|| low.contents.iter().find(|c| Some(&c.hash) == hash).map(|c| c.size))
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
