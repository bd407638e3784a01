//! The methods of Python's strings, lists, dicts, tuples and numbers that templates call.

use minijinja::Value;

use super::call::{Args, pairs_of};
use super::operate::{integer, too_long, too_many};
use super::python::{self, as_int, type_name};
use super::value::{Builtin, BuiltinKind, Dict, Done, Flavour, List, Series, Tuple, View, defined, fail, view};

const STR: &[&str] = &[
    "capitalize",
    "casefold",
    "center",
    "count",
    "encode",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "translate",
    "upper",
    "zfill",
];
const LIST: &[&str] = &["append", "clear", "copy", "count", "extend", "index", "insert", "pop", "remove", "reverse", "sort"];
const DICT: &[&str] = &["clear", "copy", "get", "items", "keys", "pop", "popitem", "setdefault", "update", "values"];
const TUPLE: &[&str] = &["count", "index"];
const INT: &[&str] = &["bit_length", "conjugate", "is_integer"];
const FLOAT: &[&str] = &["is_integer", "conjugate"];

fn names(value: &Value) -> &'static [&'static str] {
    match view(value) {
        View::Str(_) => STR,
        View::List(_) => LIST,
        View::Dict(_) => DICT,
        View::Tuple(_) => TUPLE,
        View::Int(_) | View::Bool(_) => INT,
        View::Float(_) => FLOAT,
        _ => &[],
    }
}

pub fn exists(value: &Value, name: &str) -> bool {
    names(value).contains(&name)
}

/// The method itself, not called.
pub fn bound(value: &Value, name: &str) -> Value {
    let shown = format!("<built-in method {name} of {} object>", type_name(value));
    Builtin::value(shown, BuiltinKind::Method(value.clone(), name.to_owned()))
}

/// Calls a method that [`exists`].
pub fn call(value: &Value, name: &str, args: Args) -> Done {
    match view(value) {
        View::Str(text) => string(text, name, args),
        View::List(l) => list(l, name, args),
        View::Dict(d) => dict(d, name, args),
        View::Tuple(t) => sequence(&t.0, "tuple", name, args),
        _ => number(value, name),
    }
}

fn number(value: &Value, name: &str) -> Done {
    Ok(match (name, view(value)) {
        ("bit_length", _) => integer(as_int(value).map_or(0, |i| i128::from(128 - i.unsigned_abs().leading_zeros()))),
        ("is_integer", View::Float(f)) => Value::from(f.fract() == 0.0),
        ("is_integer", _) => Value::from(true),
        _ => value.clone(),
    })
}

fn sequence(items: &[Value], owner: &str, name: &str, args: Args) -> Done {
    let [item, start, stop] = args.bind(name, ["value", "start", "stop"], 1)?;
    let item = item.unwrap_or_default();
    if name == "count" {
        return Ok(Value::from(items.iter().filter(|i| python::equal(i, &item)).count()));
    }
    let bound = |v: Option<Value>, default: usize| {
        let i = v.as_ref().and_then(as_int).unwrap_or(default as i128);
        usize::try_from(if i < 0 { i + items.len() as i128 } else { i }).unwrap_or(0).min(items.len())
    };
    let (start, stop) = (bound(start, 0), bound(stop, items.len()));
    let found = items.iter().enumerate().take(stop).skip(start).find(|(_, i)| python::equal(i, &item));
    let missing =
        || fail(if owner == "list" { format!("{} is not in list", python::repr(&item)) } else { "tuple.index(x): x not in tuple".into() });
    found.map(|(i, _)| Value::from(i)).ok_or_else(missing)
}

fn list(list: &List, name: &str, args: Args) -> Done {
    let none = Ok(Value::from(()));
    match name {
        "append" => {
            let [item] = args.bind("append", ["object"], 1)?;
            list.edit(|l| l.push(item.unwrap_or_default()));
            none
        }
        "extend" => {
            let [items] = args.bind("extend", ["iterable"], 1)?;
            let items = python::iterate(&items.unwrap_or_default())?;
            too_many(list.len() + items.len())?;
            list.edit(|l| l.extend(items));
            none
        }
        "insert" => {
            let [index, item] = args.bind("insert", ["index", "object"], 2)?;
            let index = index.as_ref().and_then(as_int).ok_or_else(|| fail("insert() takes an integer index"))?;
            list.edit(|l| {
                let length = l.len() as i128;
                let at = if index < 0 { (index + length).max(0) } else { index.min(length) };
                l.insert(usize::try_from(at).unwrap_or(0), item.unwrap_or_default());
            });
            none
        }
        "pop" => {
            let [index] = args.bind("pop", ["index"], 0)?;
            let index = match &index {
                Some(index) => {
                    as_int(index).ok_or_else(|| fail(format!("'{}' object cannot be interpreted as an integer", type_name(index))))?
                }
                None => -1,
            };
            list.edit(|l| {
                if l.is_empty() {
                    return Err(fail("pop from empty list"));
                }
                let at = if index < 0 { index + l.len() as i128 } else { index };
                match usize::try_from(at).ok().filter(|at| *at < l.len()) {
                    Some(at) => Ok(l.remove(at)),
                    None => Err(fail("pop index out of range")),
                }
            })
        }
        "remove" => {
            let [item] = args.bind("remove", ["value"], 1)?;
            let item = item.unwrap_or_default();
            match list.items().iter().position(|i| python::equal(i, &item)) {
                Some(at) => {
                    list.edit(|l| l.remove(at));
                    none
                }
                None => Err(fail("list.remove(x): x not in list")),
            }
        }
        "clear" => {
            list.edit(Vec::clear);
            none
        }
        "copy" => Ok(List::value(list.items())),
        "reverse" => {
            list.edit(|l| l.reverse());
            none
        }
        "sort" => {
            let named = Args { positional: Vec::new(), named: args.named };
            if !args.positional.is_empty() {
                return Err(fail("sort() takes no positional arguments"));
            }
            let [_, reverse] = named.bind("sort", ["key", "reverse"], 0)?;
            let mut items = list.items();
            sort(&mut items)?;
            if reverse.is_some_and(|r| r.is_true()) {
                items.reverse();
            }
            list.edit(|l| *l = items);
            none
        }
        _ => sequence(&list.items(), "list", name, args),
    }
}

/// Sorts by `<`; the first pair that has no order is the error.
pub fn sort(items: &mut Vec<Value>) -> Result<(), minijinja::Error> {
    let mut problem = None;
    python::sort_by(items, |a, b| match python::order(a, b, "<") {
        Ok(order) => order.unwrap_or(std::cmp::Ordering::Equal),
        Err(e) => {
            problem.get_or_insert(e);
            std::cmp::Ordering::Equal
        }
    });
    problem.map_or(Ok(()), Err)
}

fn dict(dict: &Dict, name: &str, args: Args) -> Done {
    let none = Ok(Value::from(()));
    match name {
        "get" => {
            let [key, default] = args.bind("get", ["key", "default"], 1)?;
            let key = key.unwrap_or_default();
            python::hashable(&key)?;
            Ok(dict.get(&key).or(default).unwrap_or(Value::from(())))
        }
        "items" => Ok(Series::view("dict_items", dict.items().into_iter().map(|(k, v)| Tuple::value(vec![k, v])).collect())),
        "keys" => Ok(Series::view("dict_keys", dict.keys())),
        "values" => Ok(Series::view("dict_values", dict.items().into_iter().map(|(_, v)| v).collect())),
        "update" => {
            let mut pairs = Vec::new();
            if args.positional.len() > 1 {
                return Err(fail(format!("update expected at most 1 argument, got {}", args.positional.len())));
            }
            if let Some(from) = args.positional.first() {
                pairs = pairs_of(from)?;
            }
            pairs.extend(args.named.into_iter().map(|(k, v)| (Value::from(k), v)));
            for (key, value) in pairs {
                dict.insert(key, value);
            }
            none
        }
        "pop" => {
            let [key, default] = args.bind("pop", ["key", "default"], 1)?;
            let key = key.unwrap_or_default();
            python::hashable(&key)?;
            dict.remove(&key).or(default).ok_or_else(|| fail(python::repr(&key)))
        }
        "popitem" => dict.pop_last().map(|(k, v)| Tuple::value(vec![k, v])).ok_or_else(|| fail("'popitem(): dictionary is empty'")),
        "setdefault" => {
            let [key, default] = args.bind("setdefault", ["key", "default"], 1)?;
            let key = key.unwrap_or_default();
            python::hashable(&key)?;
            if let Some(value) = dict.get(&key) {
                return Ok(value);
            }
            let value = default.unwrap_or(Value::from(()));
            dict.insert(key, value.clone());
            Ok(value)
        }
        "clear" => {
            dict.clear();
            none
        }
        _ => {
            let flavour = if dict.flavour == Flavour::Ordered { Flavour::Ordered } else { Flavour::Plain };
            Ok(Value::from_object(Dict::new(dict.items(), flavour)))
        }
    }
}

fn strings(items: Vec<String>) -> Value {
    List::value(items.into_iter().map(Value::from).collect())
}

fn text_arg(value: Option<Value>, what: &str) -> Result<Option<String>, minijinja::Error> {
    match value {
        None => Ok(None),
        Some(value) => match view(&value) {
            View::Str(s) => Ok(Some(s.to_owned())),
            View::None => Ok(None),
            View::Undefined(_) => defined(&value).map(|()| None),
            _ => Err(fail(format!("{what} must be str or None, not {}", type_name(&value)))),
        },
    }
}

fn need(value: Option<Value>, what: &str) -> Result<String, minijinja::Error> {
    match &value {
        Some(v) if matches!(view(v), View::None) => Err(fail(format!("{what} must be str, not NoneType"))),
        _ => text_arg(value, what).map(Option::unwrap_or_default),
    }
}

fn int_arg(value: Option<Value>, default: i64) -> Result<i64, minijinja::Error> {
    match value {
        None => Ok(default),
        Some(value) => match as_int(&value).and_then(|i| i64::try_from(i).ok()) {
            Some(i) => Ok(i),
            None if matches!(view(&value), View::None) => Ok(default),
            None => Err(fail(format!("'{}' object cannot be interpreted as an integer", type_name(&value)))),
        },
    }
}

/// The part of `text` between two character positions, and the character position it starts at.
fn part(text: &str, start: Option<Value>, end: Option<Value>) -> Result<(String, usize), minijinja::Error> {
    if start.is_none() && end.is_none() {
        return Ok((text.to_owned(), 0));
    }
    let length = text.chars().count() as i64;
    let clamp = |i: i64| (if i < 0 { i + length } else { i }).clamp(0, length) as usize;
    let (start, end) = (clamp(int_arg(start, 0)?), clamp(int_arg(end, length)?));
    Ok((text.chars().take(end).skip(start).collect(), start))
}

fn string(text: &str, name: &str, args: Args) -> Done {
    Ok(match name {
        "split" | "rsplit" => {
            let [sep, max] = args.bind(name, ["sep", "maxsplit"], 0)?;
            let sep = text_arg(sep, "sep")?;
            let max = int_arg(max, -1)?;
            if sep.as_deref() == Some("") {
                return Err(fail("empty separator"));
            }
            strings(split(text, sep.as_deref(), max, name == "rsplit"))
        }
        "splitlines" => {
            let [keep] = args.bind(name, ["keepends"], 0)?;
            strings(split_lines(text, keep.is_some_and(|k| k.is_true())))
        }
        "join" => {
            let [items] = args.bind("join", ["iterable"], 1)?;
            let items = items.unwrap_or_default();
            defined(&items)?;
            let items = python::iterate(&items).map_err(|_| fail("can only join an iterable"))?;
            let mut parts = Vec::with_capacity(items.len());
            for (i, item) in items.iter().enumerate() {
                match item.as_str() {
                    Some(s) => parts.push(s.to_owned()),
                    None => return Err(fail(format!("sequence item {i}: expected str instance, {} found", type_name(item)))),
                }
            }
            too_long(parts.iter().map(|p| p.len() + text.len()).sum())?;
            Value::from(parts.join(text))
        }
        "format" => Value::from(super::format::braces(text, &args.positional, &args.named)?),
        "format_map" => {
            let [map] = args.bind("format_map", ["mapping"], 1)?;
            let pairs = pairs_of(&map.unwrap_or_default())?;
            let named: Vec<(String, Value)> = pairs.into_iter().filter_map(|(k, v)| Some((k.as_str()?.to_owned(), v))).collect();
            Value::from(super::format::braces(text, &[], &named)?)
        }
        "replace" => {
            let [old, new, count] = args.bind("replace", ["old", "new", "count"], 2)?;
            let (old, new) = (need(old, "replace() argument 1")?, need(new, "replace() argument 2")?);
            Value::from(replace(text, &old, &new, int_arg(count, -1)?)?)
        }
        "strip" | "lstrip" | "rstrip" => {
            let [chars] = args.bind(name, ["chars"], 0)?;
            let chars = text_arg(chars, "strip arg")?;
            let drop = |c: char| chars.as_ref().map_or_else(|| c.is_whitespace(), |s| s.contains(c));
            Value::from(match name {
                "strip" => text.trim_matches(drop),
                "lstrip" => text.trim_start_matches(drop),
                _ => text.trim_end_matches(drop),
            })
        }
        "startswith" | "endswith" => {
            let [prefix, start, end] = args.bind(name, ["prefix", "start", "end"], 1)?;
            let prefix = prefix.unwrap_or_default();
            defined(&prefix)?;
            let (text, _) = part(text, start, end)?;
            let matches = |p: &Value| p.as_str().map(|p| if name == "startswith" { text.starts_with(p) } else { text.ends_with(p) });
            let wrong = || fail(format!("{name} first arg must be str or a tuple of str, not {}", type_name(&prefix)));
            Value::from(match view(&prefix) {
                View::Tuple(all) => all.0.iter().map(matches).collect::<Option<Vec<_>>>().ok_or_else(wrong)?.contains(&true),
                _ => matches(&prefix).ok_or_else(wrong)?,
            })
        }
        "find" | "rfind" | "index" | "rindex" | "count" => {
            let [sub, start, end] = args.bind(name, ["sub", "start", "end"], 1)?;
            let sub = need(sub, &format!("{name}() argument 1"))?;
            let (text, offset) = part(text, start, end)?;
            if name == "count" {
                let count = if sub.is_empty() { text.chars().count() + 1 } else { text.matches(sub.as_str()).count() };
                return Ok(Value::from(count));
            }
            let at = if name.starts_with('r') { text.rfind(&sub) } else { text.find(&sub) };
            match at {
                Some(at) => Value::from(text.get(..at).unwrap_or("").chars().count() + offset),
                None if name.ends_with("find") => Value::from(-1),
                None => return Err(fail("substring not found")),
            }
        }
        "partition" | "rpartition" => {
            let [sep] = args.bind(name, ["sep"], 1)?;
            let sep = need(sep, "sep")?;
            if sep.is_empty() {
                return Err(fail("empty separator"));
            }
            let found = if name == "partition" { text.split_once(&sep) } else { text.rsplit_once(&sep) };
            let parts = match found {
                Some((a, b)) => [a, &sep, b],
                None if name == "partition" => [text, "", ""],
                None => ["", "", text],
            };
            Tuple::value(parts.iter().map(|p| Value::from(*p)).collect())
        }
        "removeprefix" | "removesuffix" => {
            let [affix] = args.bind(name, ["affix"], 1)?;
            let affix = need(affix, name)?;
            let cut = if name == "removeprefix" { text.strip_prefix(affix.as_str()) } else { text.strip_suffix(affix.as_str()) };
            Value::from(cut.unwrap_or(text))
        }
        "center" | "ljust" | "rjust" | "zfill" => {
            let [width, fill] = args.bind(name, ["width", "fillchar"], 1)?;
            let width = usize::try_from(int_arg(width, 0)?).unwrap_or(0);
            too_long(width)?;
            let fill = text_arg(fill, "fillchar")?.and_then(|f| f.chars().next()).unwrap_or(' ');
            Value::from(pad(text, width, fill, name))
        }
        "expandtabs" => {
            let [size] = args.bind(name, ["tabsize"], 0)?;
            let size = usize::try_from(int_arg(size, 8)?).unwrap_or(0).min(1000);
            let mut out = String::new();
            let mut column = 0;
            for c in text.chars() {
                match c {
                    '\t' if size > 0 => {
                        let fill = size - column % size;
                        column += fill;
                        too_long(out.len() + fill)?;
                        out.push_str(&" ".repeat(fill));
                    }
                    '\t' => {}
                    c => {
                        column = if c == '\n' { 0 } else { column + 1 };
                        out.push(c);
                    }
                }
            }
            too_long(out.len())?;
            Value::from(out)
        }
        "encode" | "translate" => Value::from(text),
        _ => {
            if !args.positional.is_empty() || !args.named.is_empty() {
                return Err(fail(format!("str.{name}() takes no arguments ({} given)", args.positional.len() + args.named.len())));
            }
            plain(text, name)
        }
    })
}

fn plain(text: &str, name: &str) -> Value {
    let cased = |up: bool| {
        let mut any = false;
        text.chars().all(|c| {
            any |= if up { c.is_uppercase() } else { c.is_lowercase() };
            !(if up { c.is_lowercase() } else { c.is_uppercase() })
        }) && any
    };
    let all = |test: fn(char) -> bool| Value::from(!text.is_empty() && text.chars().all(test));
    match name {
        "lower" | "casefold" => Value::from(text.to_lowercase()),
        "upper" => Value::from(text.to_uppercase()),
        "capitalize" => Value::from(capitalize(text)),
        "title" => Value::from(title(text)),
        "swapcase" => Value::from(
            text.chars()
                .flat_map(|c| if c.is_uppercase() { c.to_lowercase().collect::<Vec<_>>() } else { c.to_uppercase().collect() })
                .collect::<String>(),
        ),
        "isdigit" | "isdecimal" => all(|c| c.is_ascii_digit()),
        "isnumeric" => all(char::is_numeric),
        "isalpha" => all(char::is_alphabetic),
        "isalnum" => all(char::is_alphanumeric),
        "isspace" => all(char::is_whitespace),
        "isascii" => Value::from(text.is_ascii()),
        "isprintable" => Value::from(python::quote(text).len() == text.len() + 2),
        "isidentifier" => Value::from(
            text.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_') && text.chars().all(|c| c.is_alphanumeric() || c == '_'),
        ),
        "islower" => Value::from(cased(false)),
        "isupper" => Value::from(cased(true)),
        _ => Value::from(title(text) == text && text.chars().any(char::is_alphabetic)),
    }
}

pub fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().collect::<String>() + &chars.as_str().to_lowercase())
}

pub fn title(text: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for c in text.chars() {
        if inside {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        inside = c.is_alphabetic();
    }
    out
}

pub fn pad(text: &str, width: usize, fill: char, how: &str) -> String {
    let length = text.chars().count();
    let missing = width.saturating_sub(length);
    let fill = |n: usize| std::iter::repeat_n(fill, n).collect::<String>();
    match how {
        "ljust" => format!("{text}{}", fill(missing)),
        "rjust" => format!("{}{text}", fill(missing)),
        "center" => {
            let left = missing / 2 + (missing & width & 1);
            format!("{}{text}{}", fill(left), fill(missing - left))
        }
        _ => {
            let (sign, digits) = match text.chars().next() {
                Some(c @ ('+' | '-')) => (Some(c), text.get(1..).unwrap_or("")),
                _ => (None, text),
            };
            format!("{}{}{digits}", sign.map_or(String::new(), String::from), "0".repeat(missing))
        }
    }
}

pub fn replace(text: &str, old: &str, new: &str, count: i64) -> Result<String, minijinja::Error> {
    let hits = if old.is_empty() { text.chars().count() + 1 } else { text.matches(old).count() };
    let hits = usize::try_from(count).map_or(hits, |c| hits.min(c));
    too_long(text.len().saturating_add(hits.saturating_mul(new.len())))?;
    Ok(text.replacen(old, new, hits))
}

pub fn split(text: &str, sep: Option<&str>, max: i64, from_right: bool) -> Vec<String> {
    let limit = usize::try_from(max).unwrap_or(usize::MAX);
    let mut parts: Vec<&str> = match (sep, from_right) {
        (Some(sep), false) => text.splitn(limit.saturating_add(1), sep).collect(),
        (Some(sep), true) => {
            let mut parts: Vec<&str> = text.rsplitn(limit.saturating_add(1), sep).collect();
            parts.reverse();
            parts
        }
        (None, false) => {
            let mut parts = Vec::new();
            let mut rest = text.trim_start();
            while !rest.is_empty() {
                if parts.len() >= limit {
                    parts.push(rest);
                    break;
                }
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                let (word, after) = rest.split_at(end);
                parts.push(word);
                rest = after.trim_start();
            }
            parts
        }
        (None, true) => {
            let mut parts = Vec::new();
            let mut rest = text.trim_end();
            while !rest.is_empty() {
                if parts.len() >= limit {
                    parts.push(rest);
                    break;
                }
                let start = rest.char_indices().rev().find(|(_, c)| c.is_whitespace()).map_or(0, |(i, c)| i + c.len_utf8());
                let (before, word) = rest.split_at(start);
                parts.push(word);
                rest = before.trim_end();
            }
            parts.reverse();
            parts
        }
    };
    if sep.is_none() && max >= 0 && !from_right {
        // What is left over keeps its trailing space, as in Python.
        parts.retain(|p| !p.is_empty());
    }
    parts.into_iter().map(str::to_owned).collect()
}

pub fn split_lines(text: &str, keep: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let mut start = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((i, c)) = chars.next() {
        if !matches!(c, '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}') {
            continue;
        }
        let mut end = i + c.len_utf8();
        if c == '\r' && chars.next_if(|(_, n)| *n == '\n').is_some() {
            end += 1;
        }
        lines.push(text.get(start..if keep { end } else { i }).unwrap_or("").to_owned());
        start = end;
    }
    if start < text.len() {
        lines.push(text.get(start..).unwrap_or("").to_owned());
    }
    lines
}
