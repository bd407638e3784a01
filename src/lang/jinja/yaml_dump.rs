//! YAML as Salt's `safe_dump` writes it: PyYAML's choice of tags and order over libyaml's emitter. And Python's JSON.

use libyaml_safer::{Emitter, Encoding, Event, MappingStyle, ScalarStyle, SequenceStyle};
use minijinja::{Error, Value};

use super::python::{self, DEEPEST};
use super::value::{Flavour, View, defined, fail, view};
use crate::budget;
use crate::value::float_text;

const TAG: &str = "tag:yaml.org,2002:";

/// Which collections are written in one line, as far as the width goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    All,
    /// Those that hold no other: PyYAML's own default.
    Leaves,
    None,
}

impl Flow {
    fn takes(self, mut items: impl Iterator<Item = Value>) -> bool {
        match self {
            Flow::All => true,
            Flow::Leaves => items.all(|item| !matches!(view(&item), View::List(_) | View::Tuple(_) | View::Dict(_))),
            Flow::None => false,
        }
    }
}

/// How a document is written.
pub struct Style {
    pub flow: Flow,
    /// Whether characters beyond ASCII stay as they are.
    pub unicode: bool,
    pub indent: Option<u16>,
    pub width: Option<u16>,
    /// Whether it begins with `---`.
    pub start: bool,
}

pub fn yaml(value: &Value, flow: Flow, unicode: bool) -> Result<String, Error> {
    let text = emit(value, &Style { flow, unicode, indent: None, width: None, start: false })?;
    let text = text.trim_matches(|c: char| c.is_whitespace());
    Ok(text.strip_suffix("\n...").unwrap_or(text).to_owned())
}

/// A whole document.
pub fn emit(value: &Value, style: &Style) -> Result<String, Error> {
    let mut events = Vec::new();
    let mut shared = Shared::default();
    shared.count(value, 0);
    represent(value, style.flow, &mut shared, &mut events, 0)?;
    let mut out = Vec::new();
    let mut emitter = Emitter::new();
    emitter.set_unicode(style.unicode);
    style.indent.into_iter().for_each(|indent| emitter.set_indent(indent.into()));
    style.width.into_iter().for_each(|width| emitter.set_width(width.into()));
    emitter.set_output_string(&mut out);
    let head = [Event::stream_start(Encoding::Utf8), Event::document_start(None, &[], !style.start)];
    let tail = [Event::document_end(true), Event::stream_end()];
    for event in head.into_iter().chain(events).chain(tail) {
        emitter.emit(event).map_err(|e| fail(format!("cannot be written as YAML: {e}")))?;
    }
    emitter.flush().map_err(|e| fail(format!("cannot be written as YAML: {e}")))?;
    drop(emitter);
    Ok(String::from_utf8(out).unwrap_or_default())
}

/// Lists and dicts that stand in a value more than once: PyYAML writes them once and refers to them.
#[derive(Default)]
struct Shared {
    seen: Vec<(usize, usize)>,
    anchors: Vec<usize>,
}

fn address(value: &Value) -> Option<usize> {
    match view(value) {
        View::List(l) => Some(std::ptr::from_ref(l) as usize),
        View::Dict(d) => Some(std::ptr::from_ref(d) as usize),
        View::Tuple(t) if !t.0.is_empty() => Some(std::ptr::from_ref(t) as usize),
        _ => None,
    }
}

impl Shared {
    /// Only values nested in others can stand twice; small ones are looked for in a plain list.
    fn count(&mut self, value: &Value, depth: usize) {
        let Some(address) = address(value) else { return };
        if depth > DEEPEST || !budget::work(1 + self.seen.len() / 8) {
            return;
        }
        if let Some(entry) = self.seen.iter_mut().rev().find(|(a, _)| *a == address) {
            entry.1 += 1;
            return;
        }
        if self.seen.len() < 2000 {
            self.seen.push((address, 1));
        }
        match view(value) {
            View::List(l) => l.items().iter().for_each(|v| self.count(v, depth + 1)),
            View::Tuple(t) => t.0.iter().for_each(|v| self.count(v, depth + 1)),
            View::Dict(d) => d.items().iter().for_each(|(_, v)| self.count(v, depth + 1)),
            _ => {}
        }
    }

    /// The anchor of a value, and whether it was written before.
    fn anchor(&mut self, value: &Value) -> Option<(String, bool)> {
        let address = address(value)?;
        self.seen.iter().find(|(a, n)| *a == address && *n > 1)?;
        let known = self.anchors.iter().position(|a| *a == address);
        let number = known.unwrap_or_else(|| {
            self.anchors.push(address);
            self.anchors.len() - 1
        });
        Some((format!("id{:03}", number + 1), known.is_some()))
    }
}

/// One value more; an error where it is one too many.
fn walked() -> Result<(), Error> {
    budget::work(1);
    budget::check().map_err(|e| fail(e.text()))
}

fn scalar(tag: &str, text: &str, events: &mut Vec<Event>) {
    let tag = format!("{TAG}{tag}");
    let resolved = crate::yaml::plain_tag(text);
    let plain = resolved == tag && !(tag.ends_with(":str") && is_timestamp(text));
    let quoted = tag.ends_with(":str");
    events.push(Event::scalar(None, Some(&tag), text, plain, quoted, ScalarStyle::Any));
}

/// A date, or a date and a time: PyYAML would read it back as one, so it needs quotes.
fn is_timestamp(text: &str) -> bool {
    let digits = |part: &str, from: usize, upto: usize| (from..=upto).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    let mut parts = text.splitn(3, '-');
    let (Some(year), Some(month), Some(rest)) = (parts.next(), parts.next(), parts.next()) else { return false };
    if !digits(year, 4, 4) || !digits(month, 1, 2) {
        return false;
    }
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (day, rest) = rest.split_at(end);
    if rest.is_empty() {
        return digits(day, 2, 2) && month.len() == 2;
    }
    let time = rest.strip_prefix(['T', 't']).unwrap_or_else(|| rest.trim_start_matches([' ', '\t']));
    let mut parts = time.splitn(3, ':');
    let (Some(hour), Some(minute), Some(second)) = (parts.next(), parts.next(), parts.next()) else { return false };
    time.len() < rest.len()
        && digits(day, 1, 2)
        && digits(hour, 1, 2)
        && digits(minute, 2, 2)
        && second.get(..2).is_some_and(|s| digits(s, 2, 2))
}

fn represent(value: &Value, flow: Flow, shared: &mut Shared, events: &mut Vec<Event>, depth: usize) -> Result<(), Error> {
    if depth > DEEPEST {
        return Err(fail("maximum recursion depth exceeded"));
    }
    walked()?;
    defined(value)?;
    let anchor = shared.anchor(value);
    if let Some((anchor, true)) = &anchor {
        events.push(Event::alias(anchor));
        return Ok(());
    }
    let anchor = anchor.as_ref().map(|(a, _)| a.as_str());
    let sequence = |items: &[Value], shared: &mut Shared, events: &mut Vec<Event>| -> Result<(), Error> {
        let style = if flow.takes(items.iter().cloned()) { SequenceStyle::Flow } else { SequenceStyle::Block };
        events.push(Event::sequence_start(anchor, None, true, style));
        items.iter().try_for_each(|item| represent(item, flow, shared, events, depth + 1))?;
        events.push(Event::sequence_end());
        Ok(())
    };
    match view(value) {
        View::Undefined(_) | View::None => scalar("null", "null", events),
        View::Bool(b) => scalar("bool", if b { "true" } else { "false" }, events),
        View::Int(i) => scalar("int", &i.to_string(), events),
        View::Float(f) => scalar("float", &float(f), events),
        View::Str(s) => scalar("str", s, events),
        View::List(l) => sequence(&l.items(), shared, events)?,
        View::Tuple(t) => sequence(&t.0, shared, events)?,
        View::Dict(d) => {
            let mut items = d.items();
            if d.flavour != Flavour::Ordered {
                sort_pairs(&mut items);
            }
            let flows = flow.takes(items.iter().flat_map(|(k, v)| [k.clone(), v.clone()]));
            let style = if flows { MappingStyle::Flow } else { MappingStyle::Block };
            events.push(Event::mapping_start(anchor, None, true, style));
            for (k, v) in &items {
                represent(k, flow, shared, events, depth + 1)?;
                represent(v, flow, shared, events, depth + 1)?;
            }
            events.push(Event::mapping_end());
        }
        // What Salt's dumper does not know becomes NULL.
        View::Series(_) | View::Other => scalar("null", "NULL", events),
    }
    Ok(())
}

fn float(f: f64) -> String {
    if f.is_nan() {
        return ".nan".into();
    }
    if f.is_infinite() {
        return if f > 0.0 { ".inf" } else { "-.inf" }.into();
    }
    let text = float_text(f);
    // YAML 1.1 wants a point before the exponent.
    if !text.contains('.') && text.contains('e') { text.replacen('e', ".0e", 1) } else { text }
}

/// Sorted by key where all keys have an order, else left alone.
fn sort_pairs(items: &mut [(Value, Value)]) {
    let mut ordered = true;
    let mut sorted = items.to_vec();
    python::sort_by(&mut sorted, |(a, _), (b, _)| {
        python::order(a, b, "<")
            .unwrap_or_else(|_| {
                ordered = false;
                None
            })
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    if ordered {
        items.clone_from_slice(&sorted);
    }
}

/// A YAML string in double quotes, never folded.
pub fn double_quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        let short = match c {
            '\0' => Some('0'),
            '\x07' => Some('a'),
            '\x08' => Some('b'),
            '\t' => Some('t'),
            '\n' => Some('n'),
            '\x0b' => Some('v'),
            '\x0c' => Some('f'),
            '\r' => Some('r'),
            '\x1b' => Some('e'),
            '"' => Some('"'),
            '\\' => Some('\\'),
            '\u{85}' => Some('N'),
            '\u{a0}' => Some('_'),
            '\u{2028}' => Some('L'),
            '\u{2029}' => Some('P'),
            _ => None,
        };
        match (short, c as u32) {
            (Some(short), _) => {
                out.push('\\');
                out.push(short);
            }
            (None, code @ (0..0x20 | 0x7f..=0x9f)) => out.push_str(&format!("\\x{code:02X}")),
            (None, 0xfeff) => out.push_str("\\uFEFF"),
            _ => out.push(c),
        }
    }
    out + "\""
}

/// PyYAML's emitter by itself, as the `yaml_dquote` filter uses it: nothing beyond ASCII is left as it is.
pub fn ascii_quoted(text: &str) -> String {
    let mut out = String::new();
    for c in double_quoted(text).chars() {
        match c as u32 {
            0..0x80 => out.push(c),
            code @ 0x80..=0xff => out.push_str(&format!("\\x{code:02X}")),
            code @ 0x100..=0xffff => out.push_str(&format!("\\u{code:04X}")),
            code => out.push_str(&format!("\\U{code:08X}")),
        }
    }
    out
}

/// How `json.dumps` is asked to write.
#[derive(Clone, Copy)]
pub struct Json {
    pub sort_keys: bool,
    pub indent: Option<usize>,
    pub ascii: bool,
}

pub fn json(value: &Value, how: Json) -> Result<String, Error> {
    let mut out = String::new();
    write_json(value, how, &mut out, 0)?;
    Ok(out)
}

fn write_json(value: &Value, how: Json, out: &mut String, depth: usize) -> Result<(), Error> {
    if depth > DEEPEST {
        return Err(fail("Circular reference detected"));
    }
    walked()?;
    defined(value)?;
    let line = |out: &mut String, depth: usize| {
        if let Some(indent) = how.indent {
            out.push('\n');
            out.push_str(&" ".repeat(indent.min(100) * depth));
        }
    };
    let separator = if how.indent.is_some() { "," } else { ", " };
    let sequence = |items: &[Value], out: &mut String| -> Result<(), Error> {
        if items.is_empty() {
            out.push_str("[]");
            return Ok(());
        }
        out.push('[');
        for (i, item) in items.iter().enumerate() {
            out.push_str(if i > 0 { separator } else { "" });
            line(out, depth + 1);
            write_json(item, how, out, depth + 1)?;
        }
        line(out, depth);
        out.push(']');
        Ok(())
    };
    match view(value) {
        View::Undefined(_) => out.push_str("\"\""),
        View::None => out.push_str("null"),
        View::Bool(b) => out.push_str(if b { "true" } else { "false" }),
        View::Int(i) => out.push_str(&i.to_string()),
        View::Float(f) if f.is_nan() => out.push_str("NaN"),
        View::Float(f) if f.is_infinite() => out.push_str(if f > 0.0 { "Infinity" } else { "-Infinity" }),
        View::Float(f) => out.push_str(&float_text(f)),
        View::Str(s) => json_string(s, how.ascii, out),
        View::List(l) => sequence(&l.items(), out)?,
        View::Tuple(t) => sequence(&t.0, out)?,
        View::Dict(d) => {
            let mut items = d.items();
            if how.sort_keys {
                let mut problem = None;
                python::sort_by(&mut items, |(a, _), (b, _)| match python::order(a, b, "<") {
                    Ok(order) => order.unwrap_or(std::cmp::Ordering::Equal),
                    Err(e) => {
                        problem.get_or_insert(e);
                        std::cmp::Ordering::Equal
                    }
                });
                if let Some(problem) = problem {
                    return Err(problem);
                }
            }
            if items.is_empty() {
                out.push_str("{}");
                return Ok(());
            }
            out.push('{');
            for (i, (key, value)) in items.iter().enumerate() {
                out.push_str(if i > 0 { separator } else { "" });
                line(out, depth + 1);
                let key = match view(key) {
                    View::Str(s) => s.to_owned(),
                    View::None => "null".into(),
                    View::Bool(b) => b.to_string(),
                    View::Int(_) | View::Float(_) => python::text(key),
                    _ => {
                        let kind = python::type_name(key);
                        return Err(fail(format!("keys must be str, int, float, bool or None, not {kind}")));
                    }
                };
                json_string(&key, how.ascii, out);
                out.push_str(": ");
                write_json(value, how, out, depth + 1)?;
            }
            line(out, depth);
            out.push('}');
        }
        View::Series(_) | View::Other => {
            return Err(fail(format!("Object of type {} is not JSON serializable", python::type_name(value))));
        }
    }
    Ok(())
}

fn json_string(text: &str, ascii: bool, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c if ascii && !c.is_ascii() => {
                let mut units = [0u16; 2];
                for unit in c.encode_utf16(&mut units) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
