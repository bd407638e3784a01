//! Filters and tests by Python's regular expressions.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use fancy_regex::{Captures, Regex};
use minijinja::{Error, Value};

use super::{Filter, flag, text_of};
use crate::lang::jinja::call::Args;
use crate::lang::jinja::operate::too_long;
use crate::lang::jinja::value::{Done, Tuple, fail};

pub const TABLE: &[(&str, Filter)] = &[
    ("regex_match", |_, v, a| find(v, a, true)),
    ("regex_search", |_, v, a| find(v, a, false)),
    ("regex_replace", |_, v, a| {
        let [pattern, new, ignorecase, multiline] = a.bind("regex_replace", ["rgx", "val", "ignorecase", "multiline"], 2)?;
        let regex = compile(&text_of(&pattern.unwrap_or_default()), flag(ignorecase.as_ref(), false), flag(multiline.as_ref(), false))?;
        let (text, template) = (text_of(v), text_of(&new.unwrap_or_default()));
        let mut out = String::new();
        let mut end = 0;
        for captures in regex.captures_iter(text.as_str()) {
            let captures = captures.map_err(|e| fail(format!("the pattern cannot be matched: {e}")))?;
            let Some(whole) = captures.get(0) else { continue };
            out.push_str(text.get(end..whole.start()).unwrap_or(""));
            expand(&captures, &template, &mut out)?;
            end = whole.end();
            too_long(out.len())?;
        }
        out.push_str(text.get(end..).unwrap_or(""));
        Ok(Value::from(out))
    }),
    ("regex_escape", |_, v, _| {
        let special = |c: char| "()[]{}?*+-|^$\\.&~# \t\n\r\x0b\x0c".contains(c);
        Ok(Value::from(text_of(v).chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect::<String>()))
    }),
];

/// The test `match`.
pub fn matches(value: &Value, args: Args, _search: bool) -> Result<bool, Error> {
    let [pattern, ignorecase, multiline] = args.bind("test_match", ["rgx", "ignorecase", "multiline"], 1)?;
    let regex = compile(&text_of(&pattern.unwrap_or_default()), flag(ignorecase.as_ref(), false), flag(multiline.as_ref(), false))?;
    let text = value.as_str().ok_or_else(|| fail("expected string or bytes-like object"))?;
    Ok(at_start(&regex, text)?.is_some())
}

fn at_start<'t>(regex: &Regex, text: &'t str) -> Result<Option<Captures<'t, str>>, Error> {
    let captures = regex.captures(text).map_err(|e| fail(format!("the pattern cannot be matched: {e}")))?;
    Ok(captures.filter(|c| c.get(0).is_some_and(|m| m.start() == 0)))
}

fn find(value: &Value, args: Args, anchored: bool) -> Done {
    let [pattern, ignorecase, multiline] = args.bind("regex_search", ["rgx", "ignorecase", "multiline"], 1)?;
    let pattern = text_of(&pattern.unwrap_or_default());
    // `match` looks at the start only, whatever else would match later.
    let pattern = if anchored { format!("\\A(?:{pattern})") } else { pattern };
    let regex = compile(&pattern, flag(ignorecase.as_ref(), false), flag(multiline.as_ref(), false))?;
    let text = value.as_str().ok_or_else(|| fail("expected string or bytes-like object"))?;
    let captures = regex.captures(text).map_err(|e| fail(format!("the pattern cannot be matched: {e}")))?;
    let Some(captures) = captures else { return Ok(Value::from(())) };
    let group = |i: usize| captures.get(i).map_or(Value::from(()), |m| Value::from(m.as_str()));
    Ok(Tuple::value(if captures.len() > 1 { (1..captures.len()).map(group).collect() } else { vec![group(0)] }))
}

thread_local! {
    static COMPILED: RefCell<HashMap<String, Rc<Regex>>> = RefCell::default();
}

/// A Python pattern. Patterns of a tree come again and again; the last few hundred are kept.
pub fn compile(pattern: &str, ignorecase: bool, multiline: bool) -> Result<Rc<Regex>, Error> {
    let mut flags = String::new();
    if ignorecase {
        flags.push('i');
    }
    if multiline {
        flags.push('m');
    }
    let pattern = pattern.replace("\\Z", "\\z");
    // A trailing `$` also matches before a final line break in Python.
    let pattern = match pattern.strip_suffix('$') {
        Some(head) if !multiline && !head.ends_with('\\') => format!("{head}(?=\\n?\\z)"),
        _ => pattern,
    };
    let key = if flags.is_empty() { pattern } else { format!("(?{flags}){pattern}") };
    COMPILED.with_borrow_mut(|known| {
        if let Some(regex) = known.get(&key) {
            return Ok(regex.clone());
        }
        let regex = Rc::new(Regex::new(&key).map_err(|e| fail(format!("the regular expression {key:?} cannot be read: {e}")))?);
        if known.len() > 300 {
            known.clear();
        }
        known.insert(key, regex.clone());
        Ok(regex)
    })
}

/// Python's replacement templates: `\1`, `\g<name>`, `\n`.
fn expand(captures: &Captures<str>, template: &str, out: &mut String) -> Result<(), Error> {
    let group = |text: &str| {
        let found = text.parse::<usize>().map_or_else(|_| captures.name(text), |i| captures.get(i));
        found.map_or("", |m| m.as_str())
    };
    let mut rest = template;
    while let Some(at) = rest.find('\\') {
        out.push_str(rest.get(..at).unwrap_or(""));
        rest = rest.get(at + 1..).unwrap_or("");
        let Some(c) = rest.chars().next() else { return Err(fail("bad escape (end of pattern)")) };
        if let Some((name, after)) = rest.strip_prefix("g<").and_then(|r| r.split_once('>')) {
            out.push_str(group(name));
            rest = after;
            continue;
        }
        rest = rest.get(c.len_utf8()..).unwrap_or("");
        match c {
            '0'..='9' => {
                let second = rest.chars().next().filter(char::is_ascii_digit);
                let number: String = [Some(c), second].into_iter().flatten().collect();
                if second.is_some() {
                    rest = rest.get(1..).unwrap_or("");
                }
                let index = number.parse::<usize>().unwrap_or(0);
                if index >= captures.len() {
                    return Err(fail(format!("invalid group reference {index}")));
                }
                out.push_str(group(&number));
            }
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'r' => out.push('\r'),
            '\\' => out.push('\\'),
            c if c.is_ascii_alphabetic() => return Err(fail(format!("bad escape \\{c}"))),
            c => {
                out.push('\\');
                out.push(c);
            }
        }
    }
    out.push_str(rest);
    Ok(())
}
