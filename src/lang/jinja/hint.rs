//! What to do about an error of a template: the nearest name that is known, the usual way to write it.

use super::python;
use super::value::{Dict, Flavour};
use super::{filter, test};
use crate::diagnostic::nearest;
use minijinja::Value;

/// Stands in the text of an engine's error between what happened and what to do about it.
const MARK: char = '\u{1f}';

/// A message that knows what to do.
pub fn with(message: String, hint: Option<String>) -> String {
    match hint {
        Some(hint) => format!("{message}{MARK}{hint}"),
        None => message,
    }
}

/// A message, and what it knows to do.
pub fn split(message: &str) -> (String, Option<String>) {
    match message.split_once(MARK) {
        Some((message, hint)) => (message.to_owned(), Some(hint.to_owned())),
        None => (message.to_owned(), None),
    }
}

/// `did you mean x?`
pub fn near<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(name, known).map(|near| format!("did you mean {near}?"))
}

/// A mapping was asked for a key that it does not have.
pub fn no_key(dict: &Dict, name: &str, message: &str) -> String {
    let keys = dict.keys();
    let hint = near(name, keys.iter().filter_map(Value::as_str));
    if dict.flavour != Flavour::Proxy {
        return with(message.to_owned(), hint);
    }
    let has = |key: &str| keys.iter().any(|k| k.as_str() == Some(key));
    // All three look alike; what is always in them tells.
    let what = match () {
        () if has("__cli") => "opts have",
        () if has("os") || has("os_family") || has("kernel") => "the grains have",
        () => "the pillar has",
    };
    let default = || format!("set it, or ask with a default: .get('{name}', …)");
    with(format!("{what} no key {}", python::quote(name)), hint.or_else(|| Some(default())))
}

const TAGS: [&str; 34] = [
    "if",
    "elif",
    "else",
    "endif",
    "for",
    "endfor",
    "set",
    "endset",
    "do",
    "with",
    "endwith",
    "macro",
    "endmacro",
    "call",
    "endcall",
    "filter",
    "endfilter",
    "include",
    "import",
    "from",
    "import_yaml",
    "import_json",
    "import_text",
    "load_yaml",
    "load_json",
    "load_text",
    "endload",
    "block",
    "endblock",
    "extends",
    "raw",
    "endraw",
    "break",
    "continue",
];

/// What an error's text itself tells. `line` is the line of the source it is about, `names` those that the template knows.
pub fn of<'a>(message: &str, line: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    let quoted = |start: &str, end: &str| message.strip_prefix(start)?.split_once(end).map(|(name, _)| name);
    let usual = if let Some(name) = quoted("'", "' is undefined") {
        match name {
            "env" => Some("it is called saltenv".to_owned()),
            _ => near(name, names).or_else(|| Some(format!("set it, import it, or give it a default: {{{{ {name}|default(…) }}}}"))),
        }
    } else if let Some(name) = quoted("No filter named '", "'") {
        near(name, filter::all().map(|(name, _)| name))
    } else if let Some(name) = quoted("No test named '", "'") {
        near(name, test::all().map(|(name, _)| name))
    } else if let Some(name) = quoted("Encountered unknown tag '", "'").filter(|_| !message.contains("looking for")) {
        near(name, TAGS)
    } else if message.starts_with("can only concatenate str") {
        Some("`~` joins values of any kind: 'a' ~ 1".into())
    } else if message == "unexpected '}'" {
        Some("what begins with {{ ends with }}, what begins with {% ends with %}".into())
    } else if message.ends_with("object is not iterable") {
        Some("a loop wants a list or a mapping".into())
    } else {
        None
    };
    if line.trim_start().starts_with('#') && !line.starts_with("#!") {
        let comment = "this is a comment of YAML, and Jinja runs in it all the same: {# … #} keeps it from that".to_owned();
        return Some(usual.map_or(comment.clone(), |usual| format!("{usual}\n{comment}")));
    }
    usual
}
