//! Python's operators, attributes, subscripts and slices.

use minijinja::{Error, Value};

use super::python::{self, Number, as_int, number, type_name};
use super::value::{Dict, Done, Flavour, List, Series, SeriesKind, Tuple, Undefined, View, defined, fail, view};
use crate::budget;

/// How long a string or list an operator may make.
pub const LONGEST: usize = 64 << 20;

pub fn too_long(length: usize) -> Result<(), Error> {
    if length > LONGEST {
        return Err(fail(format!("the value would be larger than {LONGEST} bytes")));
    }
    budget::check_for(length).map_err(|e| fail(e.text()))
}

/// The same for items of a list.
pub fn too_many(items: usize) -> Result<(), Error> {
    too_long(items.saturating_mul(size_of::<Value>()))
}

fn unsupported(op: &str, a: &Value, b: &Value) -> Error {
    fail(format!("unsupported operand type(s) for {op}: '{}' and '{}'", type_name(a), type_name(b)))
}

fn int(value: Option<i128>) -> Done {
    value.map(integer).ok_or_else(|| fail("the number is too large"))
}

/// Small numbers in the engine's usual form.
pub fn integer(value: i128) -> Value {
    i64::try_from(value).map_or_else(|_| Value::from(value), Value::from)
}

fn both_defined(a: &Value, b: &Value) -> Result<(), Error> {
    defined(a)?;
    defined(b)
}

pub fn add(a: &Value, b: &Value) -> Done {
    both_defined(a, b)?;
    // A sum of many lists copies each of them many times.
    budget::work(match view(a) {
        View::List(list) => list.len() / 64,
        View::Tuple(tuple) => tuple.0.len() / 64,
        _ => 0,
    });
    match (view(a), view(b)) {
        (View::Str(a), View::Str(b)) => {
            too_long(a.len() + b.len())?;
            Ok(Value::from(format!("{a}{b}")))
        }
        (View::List(a), View::List(b)) => {
            too_many(a.len() + b.len())?;
            let mut items = a.items();
            items.extend(b.items());
            Ok(List::value(items))
        }
        (View::Tuple(a), View::Tuple(b)) => {
            too_many(a.0.len() + b.0.len())?;
            Ok(Tuple::value(a.0.iter().chain(&b.0).cloned().collect()))
        }
        (View::Str(_), _) => Err(fail(format!("can only concatenate str (not \"{}\") to str", type_name(b)))),
        (View::List(_), _) => Err(fail(format!("can only concatenate list (not \"{}\") to list", type_name(b)))),
        (View::Tuple(_), _) => Err(fail(format!("can only concatenate tuple (not \"{}\") to tuple", type_name(b)))),
        _ => arithmetic("+", a, b, i128::checked_add, |a, b| a + b),
    }
}

fn arithmetic(op: &str, a: &Value, b: &Value, ints: fn(i128, i128) -> Option<i128>, floats: fn(f64, f64) -> f64) -> Done {
    match (number(a), number(b)) {
        (Some(Number::Int(a)), Some(Number::Int(b))) => int(ints(a, b)),
        (Some(x), Some(y)) => Ok(Value::from(floats(float(&x), float(&y)))),
        _ => Err(unsupported(op, a, b)),
    }
}

fn float(n: &Number) -> f64 {
    match n {
        Number::Int(i) => *i as f64,
        Number::Float(f) => *f,
    }
}

pub fn subtract(a: &Value, b: &Value) -> Done {
    both_defined(a, b)?;
    arithmetic("-", a, b, i128::checked_sub, |a, b| a - b)
}

pub fn multiply(a: &Value, b: &Value) -> Done {
    both_defined(a, b)?;
    for (sequence, count) in [(a, b), (b, a)] {
        if let Some(count) = as_int(count) {
            let count = usize::try_from(count).unwrap_or(0);
            let check = |length: usize| too_long(length.saturating_mul(count));
            let check_items = |length: usize| too_many(length.saturating_mul(count));
            match view(sequence) {
                View::Str(s) => {
                    check(s.len())?;
                    return Ok(Value::from(s.repeat(count)));
                }
                View::List(l) => {
                    check_items(l.len())?;
                    return Ok(List::value(repeat(&l.items(), count)));
                }
                View::Tuple(t) => {
                    check_items(t.0.len())?;
                    return Ok(Tuple::value(repeat(&t.0, count)));
                }
                _ => {}
            }
        }
    }
    match (view(a), view(b)) {
        (View::Str(_) | View::List(_) | View::Tuple(_), _) => {
            Err(fail(format!("can't multiply sequence by non-int of type '{}'", type_name(b))))
        }
        _ => arithmetic("*", a, b, i128::checked_mul, |a, b| a * b),
    }
}

fn repeat(items: &[Value], count: usize) -> Vec<Value> {
    items.iter().cycle().take(items.len() * count).cloned().collect()
}

pub fn divide(a: &Value, b: &Value) -> Done {
    both_defined(a, b)?;
    match (number(a), number(b)) {
        (Some(x), Some(y)) => match float(&y) {
            0.0 => Err(fail(if let (Number::Int(_), Number::Int(_)) = (&x, &y) { "division by zero" } else { "float division by zero" })),
            y => Ok(Value::from(float(&x) / y)),
        },
        _ => Err(unsupported("/", a, b)),
    }
}

pub fn floor_divide(a: &Value, b: &Value) -> Done {
    both_defined(a, b)?;
    match (number(a), number(b)) {
        (Some(Number::Int(_)), Some(Number::Int(0))) => Err(fail("integer division or modulo by zero")),
        (Some(Number::Int(a)), Some(Number::Int(b))) => {
            let quotient = a.checked_div(b);
            let exact = a.checked_rem(b) == Some(0);
            int(if exact || (a < 0) == (b < 0) { quotient } else { quotient.map(|q| q - 1) })
        }
        (Some(x), Some(y)) => match float(&y) {
            0.0 => Err(fail("float floor division by zero")),
            y => Ok(Value::from((float(&x) / y).floor())),
        },
        _ => Err(unsupported("//", a, b)),
    }
}

pub fn modulo(a: &Value, b: &Value) -> Done {
    defined(a)?;
    if let View::Str(format) = view(a) {
        return super::format::percent(format, b).map(Value::from);
    }
    defined(b)?;
    match (number(a), number(b)) {
        (Some(Number::Int(_)), Some(Number::Int(0))) => Err(fail("integer modulo by zero")),
        (Some(Number::Int(a)), Some(Number::Int(b))) => {
            let rest = a.checked_rem(b).unwrap_or(0);
            int(Some(if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }))
        }
        (Some(x), Some(y)) => match float(&y) {
            0.0 => Err(fail("float modulo")),
            y => {
                let rest = float(&x) % y;
                Ok(Value::from(if rest != 0.0 && (rest < 0.0) != (y < 0.0) { rest + y } else { rest }))
            }
        },
        _ => Err(unsupported("%", a, b)),
    }
}

pub fn power(a: &Value, b: &Value) -> Done {
    both_defined(a, b)?;
    match (number(a), number(b)) {
        (Some(Number::Int(0)), Some(Number::Int(e))) if e < 0 => Err(fail("0.0 cannot be raised to a negative power")),
        (Some(Number::Int(a)), Some(Number::Int(e))) if e >= 0 => int(u32::try_from(e).ok().and_then(|e| a.checked_pow(e)).or(match a {
            0 | 1 => Some(a),
            -1 => Some(if e % 2 == 0 { 1 } else { -1 }),
            _ => None,
        })),
        (Some(x), Some(y)) => Ok(Value::from(float(&x).powf(float(&y)))),
        _ => Err(fail(format!("unsupported operand type(s) for ** or pow(): '{}' and '{}'", type_name(a), type_name(b)))),
    }
}

pub fn sign(value: &Value, negative: bool) -> Done {
    defined(value)?;
    match number(value) {
        Some(Number::Int(i)) => int(if negative { i.checked_neg() } else { Some(i) }),
        Some(Number::Float(f)) => Ok(Value::from(if negative { -f } else { f })),
        None => Err(fail(format!("bad operand type for unary {}: '{}'", if negative { '-' } else { '+' }, type_name(value)))),
    }
}

pub fn concat(parts: &[Value]) -> Done {
    let mut out = String::new();
    for part in parts {
        defined(part)?;
        match part.as_str() {
            Some(s) => out.push_str(s),
            None => out.push_str(&python::text(part)),
        }
        too_long(out.len())?;
    }
    Ok(Value::from(out))
}

/// One comparison other than by equality or membership.
pub fn compare(op: &str, a: &Value, b: &Value) -> Result<bool, Error> {
    use std::cmp::Ordering::{Equal, Greater, Less};
    Ok(match op {
        "==" | "!=" => {
            both_defined(a, b)?;
            python::equal(a, b) == (op == "==")
        }
        "in" | "not in" => {
            defined(a)?;
            python::contains(b, a)? == (op == "in")
        }
        _ => {
            let order = python::order(a, b, op)?;
            match op {
                "<" => order == Some(Less),
                "<=" => matches!(order, Some(Less | Equal)),
                ">" => order == Some(Greater),
                _ => matches!(order, Some(Greater | Equal)),
            }
        }
    })
}

/// `value.name`: an attribute, or else an item.
pub fn attribute(value: &Value, name: &str) -> Done {
    if name.starts_with("__") && name.ends_with("__") && !matches!(view(value), View::Undefined(_)) && name != "__salt__" {
        let message = format!("access to attribute '{name}' of '{}' object is unsafe.", type_name(value));
        return Err(fail(message));
    }
    defined_or_propagate(value)?;
    if let View::Dict(dict) = view(value) {
        if let (Flavour::Roles(scale), "scale") = (dict.flavour, name) {
            return Ok(Value::from(scale));
        }
        // A dict's own methods come first, as in Python; names that are no methods are its keys.
        if let Some(found) = dict.get_str(name).filter(|_| !super::method::exists(value, name)) {
            return Ok(found);
        }
    }
    if super::method::exists(value, name) {
        return Ok(super::method::bound(value, name));
    }
    if let Some(found) = super::call::attribute(value, name) {
        return found;
    }
    Ok(Undefined::key(value, name, format!("{} has no attribute {}", python::owner(value), python::quote(name))))
}

fn defined_or_propagate(value: &Value) -> Result<(), Error> {
    match view(value) {
        View::Undefined(Some(u)) => Err(u.error()),
        View::Undefined(None) => defined(value),
        _ => Ok(()),
    }
}

/// `value[key]`: an item, or else an attribute.
pub fn item(value: &Value, key: &Value) -> Done {
    defined_or_propagate(value)?;
    let at = |items: &[Value], what: &str| {
        as_int(key).map(|index| {
            let position = if index < 0 { index + items.len() as i128 } else { index };
            usize::try_from(position)
                .ok()
                .and_then(|p| items.get(p).cloned())
                .unwrap_or_else(|| Undefined::value(format!("{what} object has no element {index}")))
        })
    };
    let found = match view(value) {
        View::Dict(dict) => {
            python::hashable(key)?;
            dict.get(key)
        }
        View::List(list) => match as_int(key) {
            Some(index) if index >= 0 => usize::try_from(index).ok().and_then(|i| list.get(i)).or_else(|| at(&list.items(), "list")),
            _ => at(&list.items(), "list"),
        },
        View::Tuple(tuple) => at(&tuple.0, "tuple"),
        View::Series(series) if series.kind != SeriesKind::Generator && !matches!(series.kind, SeriesKind::View(_)) => {
            at(&series.items, "range")
        }
        View::Str(text) => match as_int(key) {
            Some(_) => {
                let chars: Vec<Value> = text.chars().map(|c| Value::from(c.to_string())).collect();
                at(&chars, "str")
            }
            None => None,
        },
        _ => None,
    };
    if let Some(found) = found {
        return Ok(found);
    }
    match view(key) {
        View::Undefined(_) => {
            defined(key)?;
            Ok(Undefined::value("the key is undefined"))
        }
        View::Str(name) => {
            if let Some(found) = super::call::item(value, name) {
                return found;
            }
            if !matches!(view(value), View::Dict(_)) || super::method::exists(value, name) {
                return attribute(value, name);
            }
            Ok(Undefined::key(value, name, format!("{} has no attribute {}", python::owner(value), python::quote(name))))
        }
        _ => Ok(Undefined::value(format!("{} has no element {}", python::owner(value).trim_matches('\''), python::repr(key)))),
    }
}

pub fn slice(value: &Value, start: &Value, stop: &Value, step: &Value) -> Done {
    defined_or_propagate(value)?;
    let bound = |v: &Value| -> Result<Option<i128>, Error> {
        match view(v) {
            View::None => Ok(None),
            _ => as_int(v).map(Some).ok_or_else(|| fail("slice indices must be integers or None or have an __index__ method")),
        }
    };
    let (start, stop, step) = (bound(start)?, bound(stop)?, bound(step)?.unwrap_or(1));
    if step == 0 {
        return Err(fail("slice step cannot be zero"));
    }
    fn cut<T: Clone>(items: &[T], start: Option<i128>, stop: Option<i128>, step: i128) -> Vec<T> {
        let length = items.len() as i128;
        let clamp = |i: i128| {
            let i = if i < 0 { i.saturating_add(length) } else { i };
            if step > 0 { i.clamp(0, length) } else { i.clamp(-1, length - 1) }
        };
        let mut at = start.map_or(if step > 0 { 0 } else { length - 1 }, clamp);
        let end = stop.map_or(if step > 0 { length } else { -1 }, clamp);
        let mut out = Vec::new();
        while (step > 0 && at < end) || (step < 0 && at > end) {
            out.extend(usize::try_from(at).ok().and_then(|i| items.get(i).cloned()));
            at = at.saturating_add(step);
        }
        out
    }
    match view(value) {
        View::Str(text) => {
            let chars: Vec<char> = text.chars().collect();
            Ok(Value::from(cut(&chars, start, stop, step).into_iter().collect::<String>()))
        }
        View::List(list) => Ok(List::value(cut(&list.items(), start, stop, step))),
        View::Tuple(tuple) => Ok(Tuple::value(cut(&tuple.0, start, stop, step))),
        View::Series(series) if matches!(series.kind, SeriesKind::Range(..)) => {
            Ok(Series::generator(cut(&series.items, start, stop, step)))
        }
        View::Dict(_) => Err(fail("unhashable type: 'slice'")),
        _ => Err(fail(format!("'{}' object is not subscriptable", type_name(value)))),
    }
}

/// A dict literal: keys and values in turn.
pub fn dict(flat: &[Value]) -> Done {
    let mut pairs = Vec::with_capacity(flat.len() / 2);
    for pair in flat.chunks_exact(2) {
        if let [key, value] = pair {
            python::hashable(key)?;
            pairs.push((key.clone(), value.clone()));
        }
    }
    Ok(Value::from_object(Dict::new(pairs, Flavour::Plain)))
}
