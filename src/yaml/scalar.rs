//! What a scalar of YAML 1.1 means in Salt: which tag a plain one resolves to, and the value of a tagged text.

use crate::value::Value;

pub const PREFIX: &str = "tag:yaml.org,2002:";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tag {
    Null,
    Bool,
    Int,
    Float,
    Str,
    Binary,
    /// `<<`.
    Merge,
    /// `=`.
    Value,
    /// A tag that was written out and that nothing reads.
    Other(Box<str>),
}

/// The tag of a text that names it.
pub fn named(tag: &str) -> Tag {
    match tag.strip_prefix(PREFIX) {
        Some("null") => Tag::Null,
        Some("bool") => Tag::Bool,
        Some("int") => Tag::Int,
        Some("float") => Tag::Float,
        Some("str" | "timestamp" | "python/unicode") => Tag::Str,
        Some("binary") => Tag::Binary,
        _ => Tag::Other(tag.into()),
    }
}

/// A tag as it was written: `!!set`, `!secret`.
pub fn shown(tag: &str) -> String {
    tag.strip_prefix(PREFIX).map_or_else(|| tag.to_owned(), |short| format!("!!{short}"))
}

/// The tag of a plain scalar. Dates resolve to strings: Salt's loader leaves them so.
pub fn resolve(text: &str) -> Tag {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Tag::Null,
        "<<" => return Tag::Merge,
        "=" => return Tag::Value,
        "yes" | "Yes" | "YES" | "no" | "No" | "NO" | "true" | "True" | "TRUE" | "false" | "False" | "FALSE" | "on" | "On" | "ON"
        | "off" | "Off" | "OFF" => return Tag::Bool,
        _ => {}
    }
    match text.as_bytes().first() {
        Some(b'-' | b'+' | b'0'..=b'9' | b'.') if is_float(text) => Tag::Float,
        Some(b'-' | b'+' | b'0'..=b'9') if is_int(text) => Tag::Int,
        _ => Tag::Str,
    }
}

fn unsigned(text: &str) -> &str {
    text.strip_prefix(['-', '+']).unwrap_or(text)
}

/// `[0-9][0-9_]*`
fn digits(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit()) && text.bytes().all(|b| b.is_ascii_digit() || b == b'_')
}

/// `[0-5]?[0-9]`, the parts of `1:30` after the first.
fn sixtieth(text: &str) -> bool {
    matches!(text.as_bytes(), [b'0'..=b'9'] | [b'0'..=b'5', b'0'..=b'9'])
}

fn is_float(text: &str) -> bool {
    if matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let body = unsigned(text);
    if matches!(body, ".inf" | ".Inf" | ".INF") {
        return true;
    }
    let Some((whole, rest)) = body.split_once('.') else { return false };
    if let Some((first, others)) = whole.split_once(':') {
        return digits(first) && others.split(':').all(sixtieth) && rest.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    }
    let (fraction, exponent) = rest.split_once(['e', 'E']).map_or((rest, None), |(f, e)| (f, Some(e)));
    if let Some(exponent) = exponent {
        let Some(power) = exponent.strip_prefix(['-', '+']) else { return false };
        if power.is_empty() || !power.bytes().all(|b| b.is_ascii_digit()) {
            return false;
        }
    }
    // Without digits before the point there is no sign, and a digit right after it.
    if whole.is_empty() {
        body.len() == text.len() && digits(fraction)
    } else {
        digits(whole) && (fraction.is_empty() || underscored(fraction))
    }
}

/// `[0-9_]*`
fn underscored(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || b == b'_')
}

fn is_int(text: &str) -> bool {
    let body = unsigned(text);
    if let Some(binary) = body.strip_prefix("0b") {
        return !binary.is_empty() && binary.bytes().all(|b| matches!(b, b'0' | b'1' | b'_'));
    }
    if let Some(hexadecimal) = body.strip_prefix("0x") {
        return !hexadecimal.is_empty() && hexadecimal.bytes().all(|b| b.is_ascii_hexdigit() || b == b'_');
    }
    if let Some(octal) = body.strip_prefix('0') {
        return octal.bytes().all(|b| matches!(b, b'0'..=b'7' | b'_'));
    }
    match body.split_once(':') {
        Some((first, others)) => digits(first) && others.split(':').all(sixtieth),
        None => digits(body),
    }
}

/// The value of a text under its tag.
pub fn construct(tag: Tag, text: String) -> Result<Value, String> {
    match tag {
        Tag::Null => Ok(Value::Null),
        Tag::Str => Ok(Value::Str(text)),
        Tag::Bool => match text.to_ascii_lowercase().as_str() {
            "yes" | "true" | "on" => Ok(Value::Bool(true)),
            "no" | "false" | "off" => Ok(Value::Bool(false)),
            _ => Err(format!("{text:?} is no boolean")),
        },
        Tag::Int => int(&text).ok_or_else(|| format!("{text:?} is no whole number")),
        Tag::Float => float(&text).map(Value::Float).ok_or_else(|| format!("{text:?} is no number")),
        Tag::Binary => {
            let bytes = base64(&text).ok_or("what follows !!binary is no base64")?;
            String::from_utf8(bytes)
                .map(Value::Str)
                .map_err(|_| "what follows !!binary is no text: bytes that are not UTF-8 cannot be arguments".into())
        }
        Tag::Merge => Err("<< merges only as a key; in quotes it is a string".into()),
        Tag::Value => Err("= needs quotes to be a string".into()),
        Tag::Other(tag) => Err(format!("{} is no tag that can be read here", shown(&tag))),
    }
}

/// Salt strips the zeros that would make a number octal, but only where no sign stands before them: `0644` is 644, `-0644` is -420.
/// Beyond 64 bits a number becomes the nearest float.
fn int(text: &str) -> Option<Value> {
    let mut text = text;
    if text.starts_with('0') && !text.starts_with("0b") && !text.starts_with("0x") {
        text = text.trim_start_matches('0');
        if text.is_empty() {
            return Some(Value::Int(0));
        }
    }
    let text = text.replace('_', "");
    let negative = text.starts_with('-');
    let body = unsigned(&text);
    let magnitude = if let Some(digits) = body.strip_prefix("0b") {
        i128::from_str_radix(digits, 2).ok()?
    } else if let Some(digits) = body.strip_prefix("0x") {
        i128::from_str_radix(digits, 16).ok()?
    } else if body.len() > 1 && body.starts_with('0') {
        i128::from_str_radix(body, 8).ok()?
    } else if body.contains(':') {
        body.split(':').try_fold(0i128, |sum, part| sum.checked_mul(60)?.checked_add(part.parse::<u32>().ok()?.into()))?
    } else if body.bytes().all(|b| b.is_ascii_digit()) && !body.is_empty() {
        match body.parse() {
            Ok(number) => number,
            Err(_) => return Some(Value::Float(text.parse().ok()?)),
        }
    } else {
        return None;
    };
    let number = if negative { -magnitude } else { magnitude };
    Some(i64::try_from(number).map_or(Value::Float(number as f64), Value::Int))
}

fn float(text: &str) -> Option<f64> {
    let text = text.replace('_', "").to_ascii_lowercase();
    let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
    let body = unsigned(&text);
    match body {
        ".inf" => Some(sign * f64::INFINITY),
        ".nan" => Some(f64::NAN),
        _ if body.contains(':') => {
            let sum = body.split(':').try_fold(0.0, |sum, part| Some(sum * 60.0 + part.parse::<f64>().ok()?))?;
            Some(sign * sum)
        }
        _ => body.parse::<f64>().ok().map(|f| sign * f),
    }
}

/// Standard base64; line breaks and blanks are skipped, missing padding is tolerated.
fn base64(text: &str) -> Option<Vec<u8>> {
    let (mut out, mut bits, mut held) = (Vec::new(), 0u32, 0u32);
    for byte in text.bytes().filter(|b| !b.is_ascii_whitespace()) {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => break,
            _ => return None,
        };
        held = (held << 6 | u32::from(six)) & 0xffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((held >> bits) as u8);
        }
    }
    Some(out)
}
