//! Python's ways with values: printing, truth, equality, order, hashing, iteration, and the names of types in its messages.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use minijinja::{Error, Value};

use super::value::{Builtin, BuiltinKind, Flavour, SeriesKind, Undefined, View, defined, fail, view};
use crate::budget;
use crate::value::float_text;

/// Deeper values print as `...` and cannot be compared or dumped: a value that holds itself must not exhaust the stack.
pub const DEEPEST: usize = 60;

/// The name of a value's type, as in "'int' object is not iterable".
pub fn type_name(value: &Value) -> &'static str {
    match view(value) {
        View::Undefined(_) => "StrictUndefined",
        View::None => "NoneType",
        View::Bool(_) => "bool",
        View::Int(_) => "int",
        View::Float(_) => "float",
        View::Str(_) => "str",
        View::List(_) => "list",
        View::Tuple(_) => "tuple",
        View::Dict(d) if d.flavour == Flavour::Proxy => "DictProxy",
        View::Dict(d) if d.flavour == Flavour::Ordered => "OrderedDict",
        View::Dict(_) => "dict",
        View::Series(s) => match s.kind {
            SeriesKind::View(name) => name,
            SeriesKind::Range(..) => "range",
            SeriesKind::Generator => "generator",
        },
        View::Other => match value.downcast_object_ref::<Builtin>().map(|b| &b.kind) {
            Some(BuiltinKind::Method(..)) => "builtin_function_or_method",
            Some(BuiltinKind::Salt) => "LazyLoader",
            Some(_) => "function",
            None => super::call::type_name(value),
        },
    }
}

/// Who has no such attribute, in Jinja2's words.
pub fn owner(value: &Value) -> String {
    match view(value) {
        View::None => "'None'".into(),
        View::Dict(d) if d.flavour == Flavour::Proxy => "'salt.utils.optsdict.DictProxy object'".into(),
        _ => format!("'{} object'", type_name(value)),
    }
}

/// `repr()` of a string.
pub fn quote(text: &str) -> String {
    let mark = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::with_capacity(text.len() + 2);
    out.push(mark);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == mark => {
                out.push('\\');
                out.push(c);
            }
            c if is_printable(c) => out.push(c),
            c if (c as u32) < 0x100 => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if (c as u32) < 0x10000 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push_str(&format!("\\U{:08x}", c as u32)),
        }
    }
    out.push(mark);
    out
}

/// Python's `str.isprintable` for one character, without its table: separators, controls, formats, surrogates and private use are not.
fn is_printable(c: char) -> bool {
    match c as u32 {
        0x20 => true,
        0..0x20 | 0x7f..=0xa0 | 0xad => false,
        0x1680 | 0x180e | 0x2000..=0x200f | 0x2028..=0x202f | 0x205f..=0x206f | 0x3000 | 0xfeff => false,
        0xe000..=0xf8ff | 0xfff0..=0xfffb | 0xfffe | 0xffff | 0xe0000..=0x10ffff => false,
        0x600..=0x605 | 0x61c | 0x6dd | 0x70f | 0x8e2 => false,
        _ => true,
    }
}

/// `repr()`
pub fn repr(value: &Value) -> String {
    let mut out = String::new();
    write_repr(value, &mut out, 0, false);
    out
}

/// `str()`
pub fn text(value: &Value) -> String {
    match view(value) {
        View::Str(s) => s.to_owned(),
        View::Undefined(Some(u)) if u.lax => String::new(),
        _ => repr(value),
    }
}

/// What `{{ … }}` prints: like `str()`, but Salt writes strings with line breaks or tabs inside of dicts so that YAML reads them back.
pub fn printed(value: &Value) -> Result<String, Error> {
    Ok(match view(value) {
        View::List(_) | View::Tuple(_) | View::Dict(_) => {
            defined_inside(value, 0)?;
            let mut out = String::new();
            write_repr(value, &mut out, 0, true);
            out
        }
        _ => text(value),
    })
}

/// Salt's printer asks the values of dicts for their text, so an undefined one among them is an error; in lists it is not.
fn defined_inside(value: &Value, depth: usize) -> Result<(), Error> {
    if depth > DEEPEST || !budget::work(1) {
        return Ok(());
    }
    match view(value) {
        View::List(l) => l.items().iter().try_for_each(|v| defined_inside(v, depth + 1)),
        View::Tuple(t) => t.0.iter().try_for_each(|v| defined_inside(v, depth + 1)),
        View::Dict(d) => d.items().iter().try_for_each(|(_, v)| defined(v).and_then(|()| defined_inside(v, depth + 1))),
        _ => Ok(()),
    }
}

/// `yaml`: as Salt's PrintableDict does it.
fn write_repr(value: &Value, out: &mut String, depth: usize, yaml: bool) {
    if depth > DEEPEST || !budget::work(1) {
        return out.push_str("...");
    }
    let all = |items: &[Value], open: &str, close: &str, out: &mut String| {
        out.push_str(open);
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                out.push_str(", ");
            }
            write_repr(item, out, depth + 1, yaml);
        }
        out.push_str(close);
    };
    match view(value) {
        View::Undefined(Some(u)) if u.lax => out.push_str("Undefined"),
        View::Undefined(_) => out.push_str("Undefined"),
        View::None => out.push_str("None"),
        View::Bool(b) => out.push_str(if b { "True" } else { "False" }),
        View::Int(i) => out.push_str(&i.to_string()),
        View::Float(f) => out.push_str(&float_text(f)),
        View::Str(s) => out.push_str(&quote(s)),
        View::List(l) => all(&l.items(), "[", "]", out),
        View::Tuple(t) if t.0.len() == 1 => all(&t.0, "(", ",)", out),
        View::Tuple(t) => all(&t.0, "(", ")", out),
        View::Dict(d) => {
            let ordered = d.flavour == Flavour::Ordered && !yaml;
            if ordered && d.len() == 0 {
                return out.push_str("OrderedDict()");
            }
            out.push_str(if ordered { "OrderedDict([" } else { "{" });
            for (i, (k, v)) in d.items().into_iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                out.push_str(if ordered { "(" } else { "" });
                for (j, part) in [k, v].iter().enumerate() {
                    if j > 0 {
                        out.push_str(if ordered { ", " } else { ": " });
                    }
                    match part.as_str() {
                        Some(s) if yaml && s.contains(['\n', '\r', '\t']) => out.push_str(&super::yaml_dump::double_quoted(s)),
                        _ => write_repr(part, out, depth + 1, yaml),
                    }
                }
                out.push_str(if ordered { ")" } else { "" });
            }
            out.push_str(if ordered { "])" } else { "}" });
        }
        View::Series(s) => match s.kind {
            SeriesKind::View(name) => all(&s.items, &format!("{name}(["), "])", out),
            SeriesKind::Range(a, b, 1) => out.push_str(&format!("range({a}, {b})")),
            SeriesKind::Range(a, b, step) => out.push_str(&format!("range({a}, {b}, {step})")),
            SeriesKind::Generator => out.push_str("<generator object>"),
        },
        View::Other => out.push_str(&value.to_string()),
    }
}

/// Truth; an undefined value has none.
pub fn truth(value: &Value) -> Result<bool, Error> {
    match view(value) {
        View::Undefined(_) => defined(value).map(|()| false),
        View::List(l) => Ok(l.len() > 0),
        View::Tuple(t) => Ok(!t.0.is_empty()),
        View::Dict(d) => Ok(d.len() > 0),
        _ => Ok(value.is_true()),
    }
}

/// Booleans are numbers.
pub enum Number {
    Int(i128),
    Float(f64),
}

pub fn number(value: &Value) -> Option<Number> {
    match view(value) {
        View::Bool(b) => Some(Number::Int(i128::from(b))),
        View::Int(i) => Some(Number::Int(i)),
        View::Float(f) => Some(Number::Float(f)),
        _ => None,
    }
}

pub fn as_int(value: &Value) -> Option<i128> {
    match number(value) {
        Some(Number::Int(i)) => Some(i),
        _ => None,
    }
}

pub fn equal(a: &Value, b: &Value) -> bool {
    equal_at(a, b, 0)
}

fn equal_at(a: &Value, b: &Value, depth: usize) -> bool {
    if depth > DEEPEST || !budget::work(1) {
        return false;
    }
    let sequences = |a: &[Value], b: &[Value]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal_at(a, b, depth + 1));
    match (view(a), view(b)) {
        (View::None, View::None) => true,
        (View::Str(a), View::Str(b)) => a == b,
        (View::List(a), View::List(b)) => std::ptr::eq(a, b) || sequences(&a.items(), &b.items()),
        (View::Tuple(a), View::Tuple(b)) => sequences(&a.0, &b.0),
        (View::Series(a), View::Series(b)) if a.kind != SeriesKind::Generator => {
            std::ptr::eq(a, b) || (std::mem::discriminant(&a.kind) == std::mem::discriminant(&b.kind) && sequences(&a.items, &b.items))
        }
        (View::Dict(a), View::Dict(b)) => {
            std::ptr::eq(a, b)
                || (a.len() == b.len() && a.items().iter().all(|(k, v)| b.get(k).is_some_and(|other| equal_at(v, &other, depth + 1))))
        }
        (View::Other, View::Other) => same(a, b),
        (View::Undefined(_), View::Undefined(_)) => true,
        (View::None | View::Str(_), _) | (_, View::None | View::Str(_)) => false,
        _ => match (number(a), number(b)) {
            (Some(a), Some(b)) => order_numbers(&a, &b) == Some(Ordering::Equal),
            _ => false,
        },
    }
}

/// `is`: one object, or equal values where Python shares them.
pub fn same(a: &Value, b: &Value) -> bool {
    let address = |v: &Value| {
        let object = v.as_object()?;
        object.downcast_ref::<super::value::List>().map(|l| std::ptr::from_ref(l) as usize).or_else(|| {
            object
                .downcast_ref::<super::value::Dict>()
                .map(|d| std::ptr::from_ref(d) as usize)
                .or_else(|| object.downcast_ref::<super::value::Tuple>().map(|t| std::ptr::from_ref(t) as usize))
                .or_else(|| object.downcast_ref::<Builtin>().map(|t| std::ptr::from_ref(t) as usize))
                .or_else(|| object.downcast_ref::<super::call::Macro>().map(|t| std::ptr::from_ref(t) as usize))
        })
    };
    match (view(a), view(b)) {
        (View::None, View::None) => true,
        (View::Bool(a), View::Bool(b)) => a == b,
        (View::Int(a), View::Int(b)) => a == b,
        (View::Float(a), View::Float(b)) => a == b,
        (View::Str(a), View::Str(b)) => a == b,
        _ => matches!((address(a), address(b)), (Some(a), Some(b)) if a == b),
    }
}

fn order_numbers(a: &Number, b: &Number) -> Option<Ordering> {
    match (a, b) {
        (Number::Int(a), Number::Int(b)) => Some(a.cmp(b)),
        (Number::Int(a), Number::Float(b)) => (*a as f64).partial_cmp(b),
        (Number::Float(a), Number::Int(b)) => a.partial_cmp(&(*b as f64)),
        (Number::Float(a), Number::Float(b)) => a.partial_cmp(b),
    }
}

/// `a < b` and its like; `op` is named in the message when the two cannot be ordered.
pub fn order(a: &Value, b: &Value, op: &str) -> Result<Option<Ordering>, Error> {
    order_at(a, b, op, 0)
}

fn order_at(a: &Value, b: &Value, op: &str, depth: usize) -> Result<Option<Ordering>, Error> {
    if depth > DEEPEST || !budget::work(1) {
        return Err(fail("maximum recursion depth exceeded in comparison"));
    }
    let sequences = |a: Vec<Value>, b: Vec<Value>| {
        for (a, b) in a.iter().zip(&b) {
            if !equal_at(a, b, depth + 1) {
                return order_at(a, b, op, depth + 1);
            }
        }
        Ok(Some(a.len().cmp(&b.len())))
    };
    match (view(a), view(b)) {
        (View::Undefined(_), _) | (_, View::Undefined(_)) => {
            defined(a)?;
            defined(b)?;
            Err(unordered(a, b, op))
        }
        (View::Str(a), View::Str(b)) => Ok(Some(a.cmp(b))),
        (View::List(a), View::List(b)) => sequences(a.items(), b.items()),
        (View::Tuple(a), View::Tuple(b)) => sequences(a.0.clone(), b.0.clone()),
        _ => match (number(a), number(b)) {
            (Some(a), Some(b)) => Ok(order_numbers(&a, &b)),
            _ => Err(unordered(a, b, op)),
        },
    }
}

/// A stable sort that takes any order, also one that contradicts itself (NaN, lists of everything), which the standard one may panic at.
pub fn sort_by<T: Clone>(items: &mut Vec<T>, mut compare: impl FnMut(&T, &T) -> Ordering) {
    let mut width = 1;
    while width < items.len() {
        let mut merged = Vec::with_capacity(items.len());
        for pair in items.chunks(width * 2) {
            let (mut left, mut right) = pair.split_at(width.min(pair.len()));
            while let (Some(a), Some(b)) = (left.first(), right.first()) {
                let from = if compare(b, a) == Ordering::Less { &mut right } else { &mut left };
                if let Some((first, rest)) = from.split_first() {
                    merged.push(first.clone());
                    *from = rest;
                }
            }
            merged.extend_from_slice(left);
            merged.extend_from_slice(right);
        }
        *items = merged;
        width *= 2;
    }
}

fn unordered(a: &Value, b: &Value, op: &str) -> Error {
    fail(format!("'{op}' not supported between instances of '{}' and '{}'", type_name(a), type_name(b)))
}

pub fn hash_str<H: Hasher>(text: &str, state: &mut H) {
    1u8.hash(state);
    text.hash(state);
}

pub fn hash<H: Hasher>(value: &Value, state: &mut H) {
    match view(value) {
        View::Str(s) => hash_str(s, state),
        View::Tuple(t) => t.0.iter().take_while(|_| budget::work(1)).for_each(|v| hash(v, state)),
        _ => match number(value) {
            Some(Number::Int(i)) => i.hash(state),
            Some(Number::Float(f)) if f.fract() == 0.0 && f.abs() < 1e30 => (f as i128).hash(state),
            Some(Number::Float(f)) => f.to_bits().hash(state),
            None => 0u8.hash(state),
        },
    }
}

/// A key of a dict must not be able to change.
pub fn hashable(value: &Value) -> Result<(), Error> {
    hashable_at(value, 0)
}

fn hashable_at(value: &Value, depth: usize) -> Result<(), Error> {
    match view(value) {
        _ if depth > DEEPEST || !budget::work(1) => Err(fail("maximum recursion depth exceeded")),
        View::Undefined(_) => defined(value),
        View::List(_) | View::Dict(_) => Err(fail(format!("unhashable type: '{}'", type_name(value)))),
        View::Tuple(t) => t.0.iter().try_for_each(|v| hashable_at(v, depth + 1)),
        _ => Ok(()),
    }
}

/// The items of anything that can be iterated, as a copy.
pub fn iterate(value: &Value) -> Result<Vec<Value>, Error> {
    Ok(match view(value) {
        View::List(l) => l.items(),
        View::Tuple(t) => t.0.clone(),
        View::Dict(d) => d.keys(),
        View::Series(s) => s.items.clone(),
        View::Str(s) => s.chars().map(|c| Value::from(c.to_string())).collect(),
        View::Undefined(u) => {
            defined(value)?;
            debug_assert!(u.is_some_and(|u: &Undefined| u.lax));
            Vec::new()
        }
        View::Other if super::call::is_loop(value) => return Err(fail("'LoopContext' object is consumed by its own loop")),
        _ => return Err(fail(format!("'{}' object is not iterable", type_name(value)))),
    })
}

pub fn is_iterable(value: &Value) -> bool {
    matches!(view(value), View::List(_) | View::Tuple(_) | View::Dict(_) | View::Series(_) | View::Str(_))
}

pub fn length(value: &Value) -> Result<usize, Error> {
    match view(value) {
        View::Str(s) => Ok(s.chars().count()),
        View::List(l) => Ok(l.len()),
        View::Tuple(t) => Ok(t.0.len()),
        View::Dict(d) => Ok(d.len()),
        View::Series(s) if s.kind != SeriesKind::Generator => Ok(s.items.len()),
        View::Undefined(_) => defined(value).map(|()| 0),
        _ => Err(fail(format!("object of type '{}' has no len()", type_name(value)))),
    }
}

/// `item in container`
pub fn contains(container: &Value, item: &Value) -> Result<bool, Error> {
    let among = |items: &[Value]| items.iter().take_while(|_| budget::work(1)).any(|i| equal(i, item));
    match view(container) {
        View::Undefined(_) => {
            defined(container)?;
            Ok(false)
        }
        View::Str(s) => match view(item) {
            View::Str(part) => Ok(s.contains(part)),
            View::Undefined(_) => defined(item).map(|()| true),
            _ => Err(fail(format!("'in <string>' requires string as left operand, not {}", type_name(item)))),
        },
        View::List(l) => defined(item).map(|()| among(&l.items())),
        View::Tuple(t) => defined(item).map(|()| among(&t.0)),
        View::Series(s) => defined(item).map(|()| among(&s.items)),
        View::Dict(d) => {
            hashable(item)?;
            Ok(d.contains(item))
        }
        View::Other => super::call::contains(container, item)
            .unwrap_or_else(|| Err(fail(format!("argument of type '{}' is not iterable", type_name(container))))),
        _ => Err(fail(format!("argument of type '{}' is not iterable", type_name(container)))),
    }
}
