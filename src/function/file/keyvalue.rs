//! file.keyvalue: lines of a file that say what a key's value is.

use super::place::{self, attrs, key as file_key};
use super::text::{self, Found, file_lines};
use crate::diagnostic::Result;
use crate::function::args::Args;
use crate::function::{Arg, ArgKind, Entry, Function, There, Want};
use crate::plan::{Key, Low};

pub const ENTRY: Entry = Entry {
    name: "file.keyvalue",
    doc: "Lines of a file that give keys these values.",
    args: &[
        super::NAME,
        Arg::new("key", ArgKind::Str, "", "The key."),
        Arg::new("value", ArgKind::Any, "", "Its value."),
        Arg::new("key_values", ArgKind::Map, "", "Several keys with their values, instead of key and value."),
        Arg::new("separator", ArgKind::Str, "=", "What stands between key and value."),
        Arg::new("append_if_not_found", ArgKind::Bool, "False", "Whether keys that are not there are added at the end."),
        Arg::new("prepend_if_not_found", ArgKind::Bool, "False", "Whether they are added at the start."),
        Arg::new("search_only", ArgKind::Bool, "False", "Accepted and without effect, as in Salt."),
        super::SHOW_CHANGES,
        Arg::new("ignore_if_missing", ArgKind::Bool, "False", "Whether a file that is not there is fine."),
        Arg::new("count", ArgKind::Int, "1", "How many lines a key may have; further ones go. -1: any number."),
        Arg::new("uncomment", ArgKind::Str, "", "Characters that may stand before a key and are taken away."),
        Arg::new("key_ignore_case", ArgKind::Bool, "False", "Whether keys in other case are the same."),
        Arg::new("value_ignore_case", ArgKind::Bool, "False", "Whether values in other case are the same."),
        Arg::new("create_if_missing", ArgKind::Bool, "False", "Whether a file that is not there is made."),
        Arg::new("prune", ArgKind::Bool, "False", "Whether all lines without one of the keys go."),
    ],
    watches: false,
    parse,
};

struct KeyValue {
    path: String,
    pairs: Vec<(String, String)>,
    separator: String,
    append: bool,
    prepend: bool,
    ignore_missing: bool,
    count: i64,
    uncomment: Option<String>,
    key_ignore_case: bool,
    value_ignore_case: bool,
    create: bool,
    prune: bool,
}

fn parse(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let several = args.map("key_values")?;
    let pairs: Vec<(String, String)> = match (args.str("key")?, args.value("value")) {
        (Some(_), Some(_)) if !several.is_empty() => return Err(args.error("key_values cannot be used together with key and value")),
        (Some(key), Some(value)) => vec![(key, value.to_text())],
        _ if several.is_empty() => return Err(args.error("file.keyvalue needs key and value, or key_values")),
        _ => several.iter().map(|(key, value)| (key.to_text(), value.to_text())).collect(),
    };
    let create = args.bool("create_if_missing", false)?;
    Ok(Box::new(KeyValue {
        path: place::name(&args)?,
        pairs,
        separator: args.str("separator")?.filter(|s| !s.is_empty()).unwrap_or_else(|| "=".into()),
        append: args.bool("append_if_not_found", false)?,
        prepend: args.bool("prepend_if_not_found", false)?,
        ignore_missing: args.bool("ignore_if_missing", false)?,
        count: args.int("count")?.unwrap_or(1),
        uncomment: args.str("uncomment")?,
        key_ignore_case: args.bool("key_ignore_case", false)?,
        value_ignore_case: args.bool("value_ignore_case", false)?,
        create,
        prune: args.bool("prune", false)?,
    }))
}

fn folded(text: &str, fold: bool) -> String {
    if fold { text.to_lowercase() } else { text.to_owned() }
}

impl KeyValue {
    /// Python's `lstrip`: white space where no characters are given.
    fn stripped<'t>(&self, line: &'t str) -> &'t str {
        match &self.uncomment {
            None => line.trim_start(),
            Some(characters) => line.trim_start_matches(|c| characters.contains(c)),
        }
    }

    fn pair(&self, key: &str, value: &str) -> String {
        format!("{key}{}{value}\n", self.separator)
    }

    /// Salt's rules, line by line. `append`: whether missing keys go to the end.
    fn edited(&self, text: &str, append: bool) -> String {
        let mut left: Vec<i64> = vec![self.count; self.pairs.len()];
        let mut out: Vec<String> = Vec::new();
        for original in file_lines(text) {
            let bare = self.stripped(original);
            let uncommented = bare.len() < original.len();
            let tested = folded(bare, self.key_ignore_case);
            let key_of = |key: &str| folded(key, self.key_ignore_case);
            if self.prune && !self.pairs.iter().any(|(key, _)| tested.starts_with(&key_of(key))) {
                continue;
            }
            let mut line = original.to_owned();
            let Some((line_key, line_value)) = bare.split_once(&self.separator) else {
                out.push(line);
                continue;
            };
            for ((key, value), left) in self.pairs.iter().zip(&mut left) {
                if !tested.starts_with(&key_of(key)) || folded(line_key, self.key_ignore_case) != key_of(key) {
                    continue;
                }
                let same = folded(line_value.trim(), self.value_ignore_case) == folded(value.trim(), self.value_ignore_case);
                // A commented line comes back while lines are wanted; others beyond the count go.
                let (same, change) = match (uncommented, *left) {
                    (true, left) if left > 0 => (same, true),
                    (true, _) => (true, false),
                    (false, left) => (same, left == 0),
                };
                if !same || change {
                    line = if *left != 0 { self.pair(line_key, value) } else { String::new() };
                }
                *left -= i64::from(*left > 0);
            }
            out.push(line);
        }
        let missing = self.pairs.iter().zip(&left).filter(|(_, left)| **left > 0).map(|((key, value), _)| self.pair(key, value));
        if append {
            out.extend(missing);
        } else if self.prepend {
            missing.for_each(|line| out.insert(0, line));
        }
        out.concat()
    }
}

impl Function for KeyValue {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        let mut keys = text::open_keys(there, &self.path);
        if self.create {
            keys.extend(place::parent_keys(there, &place::follow(there, &self.path)?, false));
        }
        Ok(keys)
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        match text::open(there, &self.path)? {
            Found::Text(file) => {
                let mut old = file.text.clone();
                // A last line without an end would run into what is added.
                if self.append && !old.is_empty() && !old.ends_with('\n') {
                    old.push('\n');
                }
                let new = self.edited(&old, self.append);
                let new = if new == old { file.text.clone() } else { new };
                Ok(file.want(there, &new, None))
            }
            Found::Absent | Found::Unknown if self.create => {
                let real = place::follow(there, &self.path)?;
                let mut wants = place::parents(there, &real, None)?;
                let hash = there.put(self.edited("", true).into_bytes());
                wants.push((file_key(&real), attrs([("kind", "file"), ("mode", place::NEW_FILE), ("content", &hash.0)])));
                Ok(Want::Is(wants))
            }
            Found::Absent if self.ignore_missing => Ok(Want::Nothing(format!("{} is not there, and need not be", self.path))),
            other => text::missing(&other, &self.path),
        }
    }
}
