//! Python's two ways to format: `"%s" % x` and `"{}".format(x)`.

use minijinja::{Error, Value};

use super::operate::too_long;
use super::python::{self, Number, number, type_name};
use super::value::{View, defined, fail, view};

/// Flags, width and precision of one replacement.
#[derive(Default, Clone, Debug)]
struct Spec {
    fill: Option<char>,
    align: Option<char>,
    sign: Option<char>,
    alternate: bool,
    zero: bool,
    width: usize,
    group: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
}

/// Widths and precisions beyond this are refused.
const WIDEST: usize = 1 << 20;

pub fn percent(format: &str, args: &Value) -> Result<String, Error> {
    let (values, mapping) = match view(args) {
        View::Tuple(t) => (t.0.clone(), None),
        View::Dict(_) => (vec![args.clone()], Some(args)),
        _ => (vec![args.clone()], None),
    };
    let single = !matches!(view(args), View::Tuple(_));
    let mut used = 0;
    let mut keyed = false;
    let mut out = String::new();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut key = None;
        if chars.next_if_eq(&'(').is_some() {
            let mut name = String::new();
            let mut depth = 1;
            for c in chars.by_ref() {
                depth += i32::from(c == '(') - i32::from(c == ')');
                if depth == 0 {
                    break;
                }
                name.push(c);
            }
            if depth != 0 {
                return Err(fail("incomplete format key"));
            }
            key = Some(name);
        }
        let mut spec = Spec { align: Some('>'), ..Spec::default() };
        while let Some(flag) = chars.next_if(|c| "#0- +".contains(*c)) {
            match flag {
                '#' => spec.alternate = true,
                '0' => spec.zero = true,
                '-' => spec.align = Some('<'),
                sign => spec.sign = if spec.sign == Some('+') { Some('+') } else { Some(sign) },
            }
        }
        let next = |used: &mut usize| {
            let value = values.get(*used).cloned().ok_or_else(|| fail("not enough arguments for format string"));
            *used += 1;
            value
        };
        if chars.next_if_eq(&'*').is_some() {
            let width = next(&mut used)?;
            spec.width = python::as_int(&width).and_then(|w| usize::try_from(w.unsigned_abs()).ok()).ok_or_else(|| fail("* wants int"))?;
        } else {
            spec.width = digits(&mut chars).unwrap_or(0);
        }
        if chars.next_if_eq(&'.').is_some() {
            spec.precision = Some(digits(&mut chars).unwrap_or(0));
        }
        while chars.next_if(|c| "hlL".contains(*c)).is_some() {}
        check(&spec)?;
        let Some(kind) = chars.next() else { return Err(fail("incomplete format")) };
        if kind == '%' {
            out.push('%');
            continue;
        }
        let value = match (&key, mapping) {
            (Some(key), Some(map)) => {
                keyed = true;
                super::operate::item(map, &Value::from(key.as_str()))
                    .and_then(|v| if super::value::is_undefined(&v) { Err(fail(python::quote(key))) } else { Ok(v) })?
            }
            (Some(_), None) => return Err(fail("format requires a mapping")),
            (None, _) => next(&mut used)?,
        };
        defined(&value)?;
        let text = match kind {
            's' | 'r' | 'a' => {
                let text = if kind == 's' { python::text(&value) } else { python::repr(&value) };
                let text = match spec.precision {
                    Some(p) => text.chars().take(p).collect(),
                    None => text,
                };
                spec.zero = false;
                aligned(&text, &spec)
            }
            'c' => match python::as_int(&value) {
                Some(i) => u32::try_from(i).ok().and_then(char::from_u32).map(String::from).ok_or_else(|| fail("%c arg not in range"))?,
                None => python::text(&value),
            },
            'd' | 'i' | 'u' => match number(&value) {
                Some(Number::Int(i)) => int(i, &Spec { kind: Some('d'), ..spec })?,
                Some(Number::Float(f)) => int(f.trunc() as i128, &Spec { kind: Some('d'), ..spec })?,
                None => return Err(fail(format!("%{kind} format: a real number is required, not {}", type_name(&value)))),
            },
            'x' | 'X' | 'o' => match python::as_int(&value) {
                Some(i) => int(i, &Spec { kind: Some(kind), ..spec })?,
                None => return Err(fail(format!("%{kind} format: an integer is required, not {}", type_name(&value)))),
            },
            'e' | 'E' | 'f' | 'F' | 'g' | 'G' => match number(&value) {
                Some(n) => float(as_float(&n), &Spec { kind: Some(kind), ..spec }),
                None => return Err(fail(format!("must be real number, not {}", type_name(&value)))),
            },
            other => return Err(fail(format!("unsupported format character '{other}' (0x{:x})", other as u32))),
        };
        out.push_str(&text);
        too_long(out.len())?;
    }
    if !keyed && used < values.len() && !(single && matches!(view(args), View::Dict(_) | View::List(_))) {
        return Err(fail("not all arguments converted during string formatting"));
    }
    Ok(out)
}

fn digits(chars: &mut std::iter::Peekable<std::str::Chars>) -> Option<usize> {
    let mut text = String::new();
    while let Some(d) = chars.next_if(char::is_ascii_digit) {
        text.push(d);
    }
    if text.is_empty() { None } else { Some(text.parse().unwrap_or(usize::MAX)) }
}

fn check(spec: &Spec) -> Result<(), Error> {
    if spec.width > WIDEST || spec.precision.is_some_and(|p| p > 1000 && spec.kind.is_some() || p > WIDEST) {
        return Err(fail("width or precision too big"));
    }
    Ok(())
}

fn as_float(n: &Number) -> f64 {
    match n {
        Number::Int(i) => *i as f64,
        Number::Float(f) => *f,
    }
}

fn aligned(text: &str, spec: &Spec) -> String {
    let missing = spec.width.saturating_sub(text.chars().count());
    if missing == 0 {
        return text.to_owned();
    }
    let fill = spec.fill.unwrap_or(if spec.zero { '0' } else { ' ' });
    let run = |n: usize| std::iter::repeat_n(fill, n).collect::<String>();
    match spec.align {
        Some('>') if spec.zero && spec.fill.is_none() => signed_fill(text, missing, '0'),
        Some('>') => run(missing) + text,
        Some('^') => run(missing / 2) + text + &run(missing - missing / 2),
        Some('=') => signed_fill(text, missing, fill),
        _ => text.to_owned() + &run(missing),
    }
}

fn signed_fill(text: &str, missing: usize, fill: char) -> String {
    let head = text.find(|c: char| !matches!(c, '+' | '-' | ' ')).unwrap_or(0);
    let head =
        if text.get(head..).is_some_and(|t| t.starts_with("0x") || t.starts_with("0o") || t.starts_with("0b")) { head + 2 } else { head };
    let (sign, digits) = text.split_at(head);
    let run: String = std::iter::repeat_n(fill, missing).collect();
    format!("{sign}{run}{digits}")
}

fn sign(negative: bool, spec: &Spec) -> &'static str {
    match (negative, spec.sign) {
        (true, _) => "-",
        (false, Some('+')) => "+",
        (false, Some(' ')) => " ",
        _ => "",
    }
}

fn grouped(digits: &str, group: Option<char>, every: usize) -> String {
    let Some(group) = group else { return digits.to_owned() };
    let mut out: Vec<char> = Vec::new();
    for (i, c) in digits.chars().rev().enumerate() {
        if i > 0 && i % every == 0 {
            out.push(group);
        }
        out.push(c);
    }
    out.into_iter().rev().collect()
}

fn int(value: i128, spec: &Spec) -> Result<String, Error> {
    let magnitude = value.unsigned_abs();
    let (prefix, digits, every) = match spec.kind {
        Some('x') => ("0x", format!("{magnitude:x}"), 4),
        Some('X') => ("0X", format!("{magnitude:X}"), 4),
        Some('o') => ("0o", format!("{magnitude:o}"), 4),
        Some('b') => ("0b", format!("{magnitude:b}"), 4),
        _ => ("", magnitude.to_string(), 3),
    };
    let digits = match spec.precision {
        Some(p) => format!("{digits:0>p$}"),
        None => digits,
    };
    let prefix = if spec.alternate { prefix } else { "" };
    Ok(aligned(&format!("{}{prefix}{}", sign(value < 0, spec), grouped(&digits, spec.group, every)), spec))
}

fn float(value: f64, spec: &Spec) -> String {
    let negative = value.is_sign_negative() && !value.is_nan();
    let magnitude = value.abs();
    let kind = spec.kind.unwrap_or('g');
    let precision = spec.precision.unwrap_or(6).min(1000);
    let text = if !magnitude.is_finite() {
        if magnitude.is_nan() { "nan".to_owned() } else { "inf".to_owned() }
    } else {
        match kind.to_ascii_lowercase() {
            'f' => format!("{magnitude:.precision$}"),
            'e' => exponent(&format!("{magnitude:.precision$e}")),
            '%' => format!("{:.precision$}%", magnitude * 100.0),
            _ => general(magnitude, precision.max(1), spec.alternate),
        }
    };
    let text = if kind.is_ascii_uppercase() { text.to_uppercase() } else { text };
    let (whole, rest) = text.find(|c: char| !c.is_ascii_digit()).map_or((text.as_str(), ""), |i| text.split_at(i));
    aligned(&format!("{}{}{rest}", sign(negative, spec), grouped(whole, spec.group, 3)), spec)
}

/// `1e5` → `1e+05`
fn exponent(text: &str) -> String {
    let (mantissa, power) = text.split_once('e').unwrap_or((text, "0"));
    let (sign, digits) = power.strip_prefix('-').map_or(('+', power), |d| ('-', d));
    format!("{mantissa}e{sign}{digits:0>2}")
}

fn general(value: f64, precision: usize, keep_zeros: bool) -> String {
    let places = precision - 1;
    let scientific = format!("{value:.places$e}");
    let power: i64 = scientific.split_once('e').and_then(|(_, p)| p.parse().ok()).unwrap_or(0);
    let trim = |text: &str| {
        if keep_zeros || !text.contains('.') { text.to_owned() } else { text.trim_end_matches('0').trim_end_matches('.').to_owned() }
    };
    if power < -4 || power >= precision as i64 {
        let (mantissa, p) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        exponent(&format!("{}e{p}", trim(mantissa)))
    } else {
        let places = usize::try_from(precision as i64 - 1 - power).unwrap_or(0);
        trim(&format!("{value:.places$}"))
    }
}

/// `"{…}".format(…)`
pub fn braces(text: &str, positional: &[Value], named: &[(String, Value)]) -> Result<String, Error> {
    let mut auto = 0;
    braces_at(text, positional, named, &mut auto, 0)
}

fn braces_at(text: &str, positional: &[Value], named: &[(String, Value)], auto: &mut usize, depth: usize) -> Result<String, Error> {
    if depth > 2 {
        return Err(fail("Max string recursion exceeded"));
    }
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '{' if chars.next_if_eq(&'{').is_some() => out.push('{'),
            '}' if chars.next_if_eq(&'}').is_some() => out.push('}'),
            '}' => return Err(fail("Single '}' encountered in format string")),
            '{' => {
                let mut field = String::new();
                let mut open = 1;
                for c in chars.by_ref() {
                    open += i32::from(c == '{') - i32::from(c == '}');
                    if open == 0 {
                        break;
                    }
                    field.push(c);
                }
                if open != 0 {
                    let message =
                        if field.is_empty() { "Single '{' encountered in format string" } else { "expected '}' before end of string" };
                    return Err(fail(message));
                }
                out.push_str(&replacement(&field, positional, named, auto, depth)?);
            }
            c => out.push(c),
        }
        too_long(out.len())?;
    }
    Ok(out)
}

/// One `{name!conversion:spec}`.
fn replacement(field: &str, positional: &[Value], named: &[(String, Value)], auto: &mut usize, depth: usize) -> Result<String, Error> {
    // The first `:` or `!` outside of brackets ends the name.
    let mut bracket = false;
    let end = field.find(|c| {
        bracket = (bracket || c == '[') && c != ']';
        !bracket && (c == ':' || c == '!')
    });
    let (name, rest) = end.map_or((field, ""), |i| field.split_at(i));
    let (conversion, spec) = match rest.strip_prefix('!') {
        Some(rest) => {
            let mut chars = rest.chars();
            let conversion = chars.next();
            match chars.as_str() {
                "" => (conversion, ""),
                rest => (conversion, rest.strip_prefix(':').ok_or_else(|| fail("expected ':' after conversion specifier"))?),
            }
        }
        None => (None, rest.strip_prefix(':').unwrap_or("")),
    };
    let head = name.find(['.', '[']).unwrap_or(name.len());
    let (first, mut path) = name.split_at(head);
    let index =
        |i: usize| positional.get(i).cloned().ok_or_else(|| fail(format!("Replacement index {i} out of range for positional args tuple")));
    let mut value = if first.is_empty() {
        *auto += 1;
        index(*auto - 1)?
    } else if let Ok(i) = first.parse::<usize>() {
        index(i)?
    } else {
        let found = named.iter().find(|(n, _)| n == first).map(|(_, v)| v.clone());
        found.ok_or_else(|| fail(python::quote(first)))?
    };
    while !path.is_empty() {
        if let Some(rest) = path.strip_prefix('.') {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            let (attribute, after) = rest.split_at(end);
            value = super::operate::attribute(&value, attribute)?;
            path = after;
        } else if let Some((key, after)) = path.strip_prefix('[').and_then(|r| r.split_once(']')) {
            let key = key.parse::<i64>().map_or_else(|_| Value::from(key), Value::from);
            value = super::operate::item(&value, &key)?;
            path = after;
        } else {
            return Err(fail("Only '.' or '[' may follow ']' in format field specifier"));
        }
    }
    defined(&value)?;
    let value = match conversion {
        None => value,
        Some('s') => Value::from(python::text(&value)),
        Some('r' | 'a') => Value::from(python::repr(&value)),
        Some(other) => return Err(fail(format!("Unknown conversion specifier '{other}'"))),
    };
    let spec = if spec.contains('{') { braces_at(spec, positional, named, auto, depth + 1)? } else { spec.to_owned() };
    with_spec(&value, &spec)
}

/// `format(value, spec)`
pub fn with_spec(value: &Value, text: &str) -> Result<String, Error> {
    if text.is_empty() {
        return Ok(python::text(value));
    }
    let mut spec = Spec::default();
    let mut chars = text.chars().peekable();
    let mut ahead = chars.clone();
    match (ahead.next(), ahead.next()) {
        (Some(fill), Some(align @ ('<' | '>' | '=' | '^'))) => {
            (spec.fill, spec.align) = (Some(fill), Some(align));
            chars = ahead;
        }
        (Some(align @ ('<' | '>' | '=' | '^')), _) => {
            spec.align = Some(align);
            chars.next();
        }
        _ => {}
    }
    spec.sign = chars.next_if(|c| matches!(c, '+' | '-' | ' '));
    spec.alternate = chars.next_if_eq(&'#').is_some();
    spec.zero = chars.next_if_eq(&'0').is_some();
    spec.width = digits(&mut chars).unwrap_or(0);
    spec.group = chars.next_if(|c| matches!(c, ',' | '_'));
    if chars.next_if_eq(&'.').is_some() {
        spec.precision = Some(digits(&mut chars).ok_or_else(|| fail("Format specifier missing precision"))?);
    }
    spec.kind = chars.next();
    if chars.next().is_some() {
        return Err(fail("Invalid format specifier"));
    }
    check(&spec)?;
    let wrong = |kind: char| fail(format!("Unknown format code '{kind}' for object of type '{}'", type_name(value)));
    let is_text = matches!(view(value), View::Str(_));
    if !is_text && spec.align.is_none() {
        spec.align = Some(if spec.zero { '=' } else { '>' });
        if spec.zero {
            spec.fill = Some('0');
        }
    }
    match (view(value), spec.kind) {
        (View::Str(text), None | Some('s')) => {
            let text: String = match spec.precision {
                Some(p) => text.chars().take(p).collect(),
                None => text.to_owned(),
            };
            Ok(aligned(&text, &spec))
        }
        (View::Str(_), Some(kind)) => Err(wrong(kind)),
        _ => match (number(value), spec.kind) {
            (Some(Number::Int(i)), None | Some('d' | 'n' | 'x' | 'X' | 'o' | 'b')) => int(i, &spec),
            (Some(Number::Int(i)), Some('c')) => {
                Ok(u32::try_from(i).ok().and_then(char::from_u32).map(String::from).ok_or_else(|| fail("%c arg not in range"))?)
            }
            (Some(Number::Float(f)), None) if spec.precision.is_none() => {
                Ok(aligned(&format!("{}{}", sign(f < 0.0, &spec), crate::value::float_text(f.abs())), &spec))
            }
            (Some(n), kind @ (None | Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%' | 'n'))) => {
                let kind = if kind == Some('n') { Some('g') } else { kind };
                Ok(float(as_float(&n), &Spec { kind, ..spec }))
            }
            (Some(_), Some(kind)) => Err(wrong(kind)),
            (None, _) => Err(fail(format!("unsupported format string passed to {}.__format__", type_name(value)))),
        },
    }
}
