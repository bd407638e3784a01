//! What people see of a change: as its object describes it, secrets never, and contents only where they are not large.

use super::projection::Projection;
use crate::diagnostic::Result;
use crate::object::Object;
use crate::plan::{Content, Hash, Key, Kind, Low};
use crate::secret::{MASK, Mask};
use crate::value::{Attrs, Value, attributes, those};

/// Texts from this size on are not compared line by line.
const LARGE: u64 = 1 << 20;

/// Whether a thing is its content and little else. Of anything else with an unknown secret in it nobody can say which attribute it is.
pub fn has_content(key: &Key) -> bool {
    matches!(key.kind, Kind::File | Kind::Crontab)
}

/// Takes out what may be a secret that nobody knows any more. (Contents are known by their hash.)
pub fn without_texts(key: &Key, attrs: &mut Attrs) {
    if !has_content(key) {
        attrs.retain(|name, value| name == "name" || !matches!(value, Value::Str(_) | Value::List(_) | Value::Map(_)));
    }
}

/// Attributes as they may be shown.
pub fn masked(mask: &Mask, key: &Key, attrs: &Attrs, secret: bool) -> Attrs {
    // An answer of debconf whose type is not among these may be a password.
    let answer = key.kind == Kind::Debconf && attrs.get("type").is_none_or(|kind| kind.as_str() == Some("password"));
    let account = matches!(key.kind, Kind::User | Kind::PostgresRole);
    let known = |name: &str| (account && name.contains("password")) || (answer && name == "value");
    let hidden = |name: &str| known(name) || (secret && (name == "content" || !has_content(key)));
    let shown = |name: &str, value: &Value| if hidden(name) { Value::str(MASK) } else { mask.value(value) };
    attributes(attrs.iter().map(|(name, value)| (name.clone(), shown(name, value))))
}

/// Whether what a low brings to a key is a secret.
pub fn secret(low: &Low, key: &Key) -> bool {
    // Of a directory only the files that are; anywhere else the low speaks of one thing and what belongs to it (a backup).
    let stands = |content: &&Content| low.fun == "recurse" && key.name == format!("{}/{}", low.name.trim_end_matches('/'), content.name);
    match low.contents.iter().find(stands) {
        Some(content) => content.secret,
        None => low.contents.iter().any(|content| content.secret),
    }
}

/// Whether it is not to be seen: a secret, or the state says `show_changes: False`.
pub fn hidden(low: &Low, key: &Key) -> bool {
    secret(low, key) || ["show_changes", "show_diff"].iter().any(|name| low.args.get(name).is_some_and(|show| !show.truthy()))
}

/// Whether what a thing is, or will be, holds a secret. Contents that are not on the host yet are noted as missing in the projection; large ones
/// are not looked into: the controller knows of those that it sends.
pub fn holds_secret(projection: &Projection, low: &Low, attrs: &Attrs, mask: &Mask) -> bool {
    if mask.is_empty() {
        return false;
    }
    let hash = attrs.get("content").and_then(Value::as_str).map(|hash| Hash(hash.to_owned()));
    let small = size(low, attrs, hash.as_ref()).is_none_or(|size| size < LARGE);
    let content = hash.filter(|_| small).and_then(|hash| projection.bytes(&hash).ok());
    content.is_some_and(|bytes| mask.holds_secret(&String::from_utf8_lossy(&bytes))) || attrs.values().any(|value| mask.holds_in(value))
}

/// How a change looks, for people; `hidden`: without its contents.
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
    if hidden && !has_content(&object.key()) {
        let differ = to.iter().filter(|(name, wanted)| from.get(*name) != Some(wanted));
        return Ok(differ.map(|(name, _)| format!("{name}: differs (secret)\n")).collect());
    }
    if old == new {
        return Ok(describe(from, to));
    }
    let without = |attrs: &Attrs| those(attrs, |name, _| name != "content");
    let instead = |line: &str| match to.is_empty() {
        true => format!("{line}\n"),
        false => describe(&without(from), &without(to)) + line + "\n",
    };
    if hidden {
        return Ok(instead("content differs (secret)"));
    }
    let (before, after) = (size(low, from, old.as_ref()), size(low, to, new.as_ref()));
    // Nobody reads the files of an archive in a plan.
    if before.max(after) >= Some(LARGE) || low.state == "archive" {
        let shown = |size: Option<u64>| size.map_or("nothing".to_owned(), |size| format!("{size} bytes"));
        return Ok(instead(&format!("content: {} → {}", shown(before), shown(after))));
    }
    for hash in [old, new].into_iter().flatten() {
        match projection.bytes(&hash) {
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
