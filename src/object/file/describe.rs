//! How a change of a file looks to people: a unified diff of its text, one line per other attribute.

use super::RESTORING;
use crate::object::unified::unified;
use crate::plan::Hash;
use crate::system::System;
use crate::value::{Attrs, Value};

/// Texts beyond this are not compared line by line.
const LARGE: usize = 1 << 20;
/// More lines of a diff are counted, not shown.
const LINES: usize = 500;

pub fn describe(sys: &System, path: &str, from: &Attrs, to: &Attrs) -> String {
    let mut out = String::new();
    if to.is_empty() {
        return match from.get("kind").and_then(Value::as_str) {
            Some("file") => content(sys, path, from, to),
            Some("directory") => "removed with everything in it\n".into(),
            _ => "removed\n".into(),
        };
    }
    if from.is_empty() {
        out.push_str(&new(to));
    } else {
        for name in ["kind", "target", "mode", "user", "group"] {
            match (from.get(name), to.get(name)) {
                (Some(before), Some(after)) if before != after => out.push_str(&format!("{name}: {before} → {after}\n")),
                (None, Some(after)) => out.push_str(&format!("{name}: {after}\n")),
                _ => {}
            }
        }
    }
    if to.get("xattrs").is_some_and(|wanted| from.get("xattrs") != Some(wanted)) {
        out.push_str("extended attributes: as they were\n");
    }
    let new_text = to.get("content").is_some_and(|wanted| from.get("content") != Some(wanted));
    if new_text || (from.contains_key("content") && to.contains_key("target")) {
        out.push_str(&content(sys, path, from, to));
    }
    if out.is_empty() && RESTORING.iter().any(|name| to.get(*name).is_some_and(|wanted| from.get(*name) != Some(wanted))) {
        out.push_str("time of the last change: as it was\n");
    }
    out
}

/// What a new thing will be, in a line: `directory, mode 0755, owner alice:ops`.
fn new(to: &Attrs) -> String {
    let text = |name: &str| to.get(name).and_then(Value::as_str);
    let mut line = text("kind").unwrap_or("file").to_owned();
    if let Some(target) = text("target") {
        line.push_str(&format!(" to {target}"));
    }
    if let Some(mode) = text("mode") {
        line.push_str(&format!(", mode {mode}"));
    }
    if text("user").is_some() || text("group").is_some() {
        line.push_str(&format!(", owner {}:{}", text("user").unwrap_or_default(), text("group").unwrap_or_default()));
    }
    line + "\n"
}

fn content(sys: &System, path: &str, from: &Attrs, to: &Attrs) -> String {
    let side = |attrs: &Attrs| match attrs.get("content").and_then(Value::as_str) {
        None => Some(String::new()),
        Some(hash) => {
            let size = attrs.get("size").and_then(Value::as_int).unwrap_or(0);
            let bytes = if size > LARGE as i64 { None } else { sys.contents().bytes(&Hash(hash.to_owned())).ok() };
            bytes.filter(|b| b.len() <= LARGE).and_then(|b| std::str::from_utf8(&b).ok().filter(|t| !t.contains('\0')).map(str::to_owned))
        }
    };
    let (Some(before), Some(after)) = (side(from), side(to)) else {
        return match from.get("size") {
            Some(size) => format!("contents differ (binary or large; {size} bytes were there)\n"),
            None => "contents are binary or large\n".into(),
        };
    };
    bounded(&unified(&before, &after, Some((&format!("before{path}"), &format!("after{path}")))))
}

/// The text, or its beginning and how much more there is.
fn bounded(text: &str) -> String {
    let total = text.lines().count();
    if total <= LINES {
        return text.to_owned();
    }
    let mut cut: String = text.split_inclusive('\n').take(LINES).collect();
    cut.push_str(&format!("… {} more lines\n", total - LINES));
    cut
}
