//! Patterns over ids and over data: Python's `fnmatch`, `re.match`, and Salt's way of following `key:key:value` through grains and pillar.

use std::cell::RefCell;
use std::collections::HashMap;

use fancy_regex::Regex;

use crate::value::{Map, Value};

/// Python's `fnmatch.fnmatchcase`: `*`, `?`, `[seq]`, `[!seq]`; everything else is itself.
pub fn glob(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    // Where to go on when this way fails: behind the last star, with one more character given to it.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let step = match (pattern.get(p), text.get(t)) {
            (None, None) => return true,
            (Some('*'), _) => {
                retry = Some((p + 1, t));
                p += 1;
                continue;
            }
            (Some('?'), Some(_)) => Some(p + 1),
            (Some('['), Some(&c)) => match class(&pattern, p) {
                Some((end, negated)) => {
                    let from = p + 1 + usize::from(negated);
                    (in_class(pattern.get(from..end).unwrap_or_default(), c) != negated).then_some(end + 1)
                }
                None => (c == '[').then_some(p + 1),
            },
            (Some(literal), Some(c)) => (literal == c).then_some(p + 1),
            (Some(_), None) | (None, Some(_)) => None,
        };
        match (step, retry) {
            (Some(next), _) => (p, t) = (next, t + 1),
            (None, Some((behind, given))) if given < text.len() => {
                retry = Some((behind, given + 1));
                (p, t) = (behind, given + 1);
            }
            (None, _) => return false,
        }
    }
}

/// Where the class that begins at `start` ends, and whether it is negated. `None`: the bracket is a character like any other.
fn class(pattern: &[char], start: usize) -> Option<(usize, bool)> {
    let negated = pattern.get(start + 1) == Some(&'!');
    // A bracket right at the beginning belongs to the class.
    let from = start + 2 + usize::from(negated);
    let end = pattern.iter().enumerate().skip(from).find(|(_, c)| **c == ']')?.0;
    Some((end, negated))
}

fn in_class(mut members: &[char], c: char) -> bool {
    loop {
        match members {
            [] => return false,
            [low, '-', high, rest @ ..] => {
                if (*low..=*high).contains(&c) {
                    return true;
                }
                members = rest;
            }
            [one, rest @ ..] => {
                if *one == c {
                    return true;
                }
                members = rest;
            }
        }
    }
}

/// A pattern as `re.match` takes it: it must fit at the beginning.
pub fn regex(pattern: &str, ignore_case: bool) -> Result<Regex, String> {
    let flags = if ignore_case { "(?i)" } else { "" };
    // First by itself, so that an unbalanced parenthesis does not become balanced.
    Regex::new(pattern)
        .and_then(|_| Regex::new(&format!("{flags}\\A(?:{pattern})")))
        .map_err(|error| format!("{pattern:?} is no regular expression: {error}"))
}

/// `key:key:pattern` over nested data. The delimiter may also stand within keys' values: deeper readings are tried first.
#[derive(Clone, Debug)]
pub struct DataMatch {
    path: String,
    delimiter: String,
    how: How,
}

/// How the last part of a target is compared with what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Glob,
    Regex,
    Exact,
}

impl DataMatch {
    pub fn new(path: &str, delimiter: &str, how: How) -> Result<DataMatch, String> {
        if how == How::Regex {
            // Which part is the pattern shows only with the data: the last part must be one.
            let last = path.rsplit(delimiter).next().unwrap_or_default();
            let all = path.split_once(delimiter).map_or("", |(_, rest)| rest);
            self::regex(last, true).or_else(|_| self::regex(all, true))?;
        }
        Ok(DataMatch { path: path.to_owned(), delimiter: delimiter.to_owned(), how })
    }

    pub fn matches(&self, data: &Map) -> bool {
        Search { how: self.how, patterns: RefCell::default() }.within(data, &self.path, &self.delimiter, 0)
    }
}

/// Data from a host may nest without end; patterns do not.
const MAX_DEPTH: usize = 64;

struct Search {
    how: How,
    patterns: RefCell<HashMap<String, Option<Regex>>>,
}

impl Search {
    fn within(&self, data: &Map, path: &str, delimiter: &str, depth: usize) -> bool {
        let parts: Vec<&str> = path.split(delimiter).collect();
        if depth > MAX_DEPTH {
            return false;
        }
        (1..parts.len()).rev().any(|split| {
            let (keys, pattern) = parts.split_at(split);
            if keys == ["*"] {
                return self.map(data, path, depth);
            }
            let pattern = pattern.join(delimiter);
            match follow(data, keys) {
                None => false,
                Some(Value::Map(map)) => !map.is_empty() && self.map(map, &pattern, depth),
                Some(Value::List(items)) => {
                    items.iter().any(|item| item.as_map().is_some_and(|map| self.map(map, &pattern, depth)) || self.scalar(item, &pattern))
                }
                Some(scalar) => self.scalar(scalar, &pattern),
            }
        })
    }

    /// A mapping fits when a key does, or something in it; behind `*:` also when a value does or what is in it.
    fn map(&self, map: &Map, pattern: &str, depth: usize) -> bool {
        if depth > MAX_DEPTH {
            return false;
        }
        let (values_too, pattern) = pattern.strip_prefix("*:").map_or((false, pattern), |rest| (true, rest));
        pattern == "*"
            || map.iter().any(|(key, _)| self.scalar(key, pattern))
            || self.within(map, pattern, ":", depth + 1)
            || values_too
                && map.iter().any(|(_, value)| match value {
                    Value::Map(inner) => self.map(inner, pattern, depth + 1),
                    Value::List(items) => items.iter().any(|item| self.scalar(item, pattern)),
                    scalar => self.scalar(scalar, pattern),
                })
    }

    /// Neither side's case counts.
    fn scalar(&self, value: &Value, pattern: &str) -> bool {
        let text = value.to_text();
        match self.how {
            How::Glob => return glob(&pattern.to_lowercase(), &text.to_lowercase()),
            How::Exact => return pattern.to_lowercase() == text.to_lowercase(),
            How::Regex => {}
        }
        let mut patterns = self.patterns.borrow_mut();
        let regex = patterns.entry(pattern.to_owned()).or_insert_with(|| regex(pattern, true).ok());
        regex.as_ref().is_some_and(|regex| regex.is_match(&text).unwrap_or(false))
    }
}

/// Follows keys; in a list, by number or into the first mapping that has the key.
fn follow<'a>(data: &'a Map, keys: &[&str]) -> Option<&'a Value> {
    let (first, rest) = keys.split_first()?;
    rest.iter().try_fold(key_of(data, first)?, |here, key| match here {
        Value::Map(map) => key_of(map, key),
        Value::List(items) => {
            items.iter().find_map(|item| item.as_map().and_then(|map| map.get(key))).or_else(|| items.get(key.parse::<usize>().ok()?))
        }
        _ => None,
    })
}

fn key_of<'a>(map: &'a Map, key: &str) -> Option<&'a Value> {
    map.get(key).or_else(|| map.0.get(&Value::Int(key.parse().ok()?)))
}
