//! The functions of `file` that only look at a path.

use super::{Function, error, text};
use crate::lang::jinja::dump::normpath;
use crate::value::Value;

pub const TABLE: &[(&str, Function)] = &[
    ("file.dirname", |_, c| {
        let [path] = c.bind(["path"], 1)?;
        Ok(Value::Str(dirname(&text(path))))
    }),
    ("file.basename", |_, c| {
        let [path] = c.bind(["path"], 1)?;
        let path = text(path);
        Ok(Value::str(path.rsplit('/').next().unwrap_or("")))
    }),
    ("file.normpath", |_, c| {
        let [path] = c.bind(["path"], 1)?;
        Ok(Value::Str(normpath(&text(path))))
    }),
    ("file.join", |_, c| {
        if c.args.is_empty() {
            return Err(error("file.join needs at least one path"));
        }
        let mut path = String::new();
        for part in c.args.iter().map(Value::to_text) {
            if part.starts_with('/') {
                path = part;
                continue;
            }
            if !path.is_empty() && !path.ends_with('/') {
                path.push('/');
            }
            path.push_str(&part);
        }
        Ok(Value::Str(path))
    }),
];

/// `os.path.dirname`
fn dirname(path: &str) -> String {
    let head = path.rfind('/').map_or("", |i| path.get(..=i).unwrap_or(""));
    let trimmed = head.trim_end_matches('/');
    if trimmed.is_empty() { head.to_owned() } else { trimmed.to_owned() }
}
