//! Filters between kinds of values: numbers, YAML, JSON, base64, hashes, `default`.

use minijinja::{State, Value};

use super::{Filter, flag, number_of, text_of};
use crate::lang::function::hash;
use crate::lang::jinja::call::{Args, Module};
use crate::lang::jinja::operate::integer;
use crate::lang::jinja::python::{self, Number};
use crate::lang::jinja::value::{Dict, Done, List, View, defined, fail, from_plain, is_undefined, view};
use crate::lang::jinja::yaml_dump::{self, Flow, Json};

pub const TABLE: &[(&str, Filter)] = &[
    ("default", default),
    ("d", default),
    ("int", int),
    ("float", float),
    ("round", round),
    ("abs", |_, v, _| match python::number(v) {
        Some(Number::Int(i)) => Ok(integer(i.checked_abs().unwrap_or(i))),
        Some(Number::Float(f)) => Ok(Value::from(f.abs())),
        None => Err(fail(format!("bad operand type for abs(): '{}'", python::type_name(v)))),
    }),
    ("yaml", |_, v, a| {
        let [flow] = a.bind("format_yaml", ["flow_style"], 0)?;
        yaml_dump::yaml(v, flow_of(flow.as_ref(), true), true).map(Value::from)
    }),
    ("dict_to_sls_yaml_params", |_, v, a| {
        let [flow] = a.bind("dict_to_sls_yaml_params", ["flow_style"], 0)?;
        let View::Dict(dict) = view(v) else { return Err(fail(format!("'{}' object has no attribute 'items'", python::type_name(v)))) };
        let items = dict.items().into_iter().map(|pair| Dict::value([pair])).collect();
        yaml_dump::yaml(&List::value(items), flow_of(flow.as_ref(), false), true).map(Value::from)
    }),
    ("json", |_, v, a| {
        let [sort, indent] = a.bind("format_json", ["sort_keys", "indent"], 0)?;
        let how = Json { sort_keys: flag(sort.as_ref(), true), indent: indent_of(indent.as_ref())?, ascii: false };
        yaml_dump::json(v, how).map(Value::from)
    }),
    ("tojson", |_, v, a| {
        let [indent, sort, ascii] = a.bind("tojson", ["indent", "sort_keys", "ensure_ascii"], 0)?;
        let how = Json { sort_keys: flag(sort.as_ref(), false), indent: indent_of(indent.as_ref())?, ascii: flag(ascii.as_ref(), true) };
        let text = yaml_dump::json(v, how)?;
        Ok(Value::from(text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026").replace('\'', "\\u0027")))
    }),
    ("python", |_, v, _| Ok(Value::from(python::repr(v)))),
    ("pprint", |_, v, _| Ok(Value::from(python::repr(v)))),
    ("load_yaml", |_, v, _| load_yaml(&source(v)?)),
    ("load_json", |_, v, _| load_json(&source(v)?)),
    ("load_text", |_, v, _| if v.downcast_object_ref::<Module>().is_some() { source(v).map(Value::from) } else { Ok(v.clone()) }),
    ("yaml_dquote", |_, v, _| Ok(Value::from(yaml_dump::ascii_quoted(&text_of(v))))),
    ("yaml_squote", |_, v, _| Ok(Value::from(format!("'{}'", text_of(v).replace('\'', "''"))))),
    ("yaml_encode", |_, v, _| match view(v) {
        View::Str(s) => Ok(Value::from(yaml_dump::ascii_quoted(s))),
        View::None | View::Bool(_) | View::Int(_) | View::Float(_) => yaml_dump::yaml(v, Flow::All, true).map(Value::from),
        _ => Err(fail(format!("yaml_encode() only works with YAML scalar data; failed for {}", python::type_name(v)))),
    }),
    ("to_num", to_num),
    ("str_to_num", to_num),
    ("base64_encode", |_, v, _| Ok(Value::from(hash::base64_encode(text_of(v).as_bytes())))),
    ("base64_decode", |_, v, _| {
        let bytes = hash::base64_decode(&text_of(v)).ok_or_else(|| fail("Incorrect padding"))?;
        String::from_utf8(bytes).map(Value::from).map_err(|_| fail("the decoded bytes are no text"))
    }),
    ("md5", |_, v, _| Ok(Value::from(hash::md5(text_of(v).as_bytes())))),
    ("sha1", |_, v, _| Ok(Value::from(hash::sha1(text_of(v).as_bytes())))),
    ("sha256", |_, v, _| Ok(Value::from(hash::sha256(text_of(v).as_bytes())))),
    ("sha512", |_, v, _| Ok(Value::from(hash::sha512(text_of(v).as_bytes())))),
    ("hmac", |_, v, a| {
        let [secret, challenge] = a.bind("hmac_signature", ["shared_secret", "challenge_hmac"], 2)?;
        let sum = hash::hmac_sha256(text_of(&secret.unwrap_or_default()).as_bytes(), text_of(v).as_bytes());
        Ok(Value::from(hash::base64_encode(&sum) == text_of(&challenge.unwrap_or_default())))
    }),
    ("hmac_compute", |_, v, a| {
        let [secret] = a.bind("hmac_compute", ["shared_secret"], 1)?;
        let sum = hash::hmac_sha256(text_of(&secret.unwrap_or_default()).as_bytes(), text_of(v).as_bytes());
        Ok(Value::from(hash::hex(&sum)))
    }),
    ("uuid", |_, v, _| Ok(Value::from(hash::uuid5("91633EBF-1C86-5E33-935A-28061F4B480E", &text_of(v))))),
    ("json_decode_dict", |_, v, _| Ok(v.clone())),
    ("json_decode_list", |_, v, _| Ok(v.clone())),
    ("json_encode_dict", |_, v, _| Ok(v.clone())),
    ("json_encode_list", |_, v, _| Ok(v.clone())),
];

fn flow_of(value: Option<&Value>, default: bool) -> Flow {
    match value {
        Some(v) if v.is_none() => Flow::Leaves,
        value if flag(value, default) => Flow::All,
        _ => Flow::None,
    }
}

fn indent_of(value: Option<&Value>) -> Result<Option<usize>, minijinja::Error> {
    match value {
        Some(v) if !v.is_none() => Ok(Some(usize::try_from(number_of(Some(v), 0, "indent")?).unwrap_or(0))),
        _ => Ok(None),
    }
}

fn source(value: &Value) -> Result<String, minijinja::Error> {
    if let Some(module) = value.downcast_object_ref::<Module>() {
        return Ok(module.text.clone());
    }
    value.as_str().map(str::to_owned).ok_or_else(|| fail(format!("Unable to load data from {}", python::text(value))))
}

pub fn load_yaml(text: &str) -> Done {
    match crate::yaml::load(text, "<text>") {
        Ok(value) => Ok(from_plain(&value)),
        Err(diagnostic) => {
            let line = diagnostic.span.as_ref().map_or(String::new(), |s| format!(" in line {} of the text", s.line));
            Err(fail(format!("Encountered error loading yaml: {}{line}", diagnostic.summary)))
        }
    }
}

pub fn load_json(text: &str) -> Done {
    serde_json::from_str::<crate::value::Value>(text).map(|v| from_plain(&v)).map_err(|e| {
        match crate::lang::secret::current().filter(|secrets| secrets.holds(text)) {
            // Cut off, a secret could not be told from other texts.
            Some(_) => fail(format!("Unable to load json: {e}")),
            None => fail(format!("Unable to load json from {}: {e}", text.chars().take(200).collect::<String>())),
        }
    })
}

fn default(_: &mut State<'_, '_>, value: &Value, args: Args) -> Done {
    let [default, boolean] = args.bind("do_default", ["default_value", "boolean"], 0)?;
    let default = default.unwrap_or_else(|| Value::from(""));
    let missing = is_undefined(value) || (flag(boolean.as_ref(), false) && !python::truth(value)?);
    Ok(if missing { default } else { value.clone() })
}

fn int(_: &mut State<'_, '_>, value: &Value, args: Args) -> Done {
    let [default, base] = args.bind("int", ["default", "base"], 0)?;
    let base = u32::try_from(number_of(base.as_ref(), 10, "base")?).unwrap_or(10);
    let parsed = match view(value) {
        View::Str(text) => {
            let text = text.trim();
            let whole = int_of(text, base);
            whole.or_else(|| float_of(text).filter(|f| f.is_finite()).map(|f| f as i128))
        }
        View::Float(f) if !f.is_finite() => None,
        View::Float(f) => Some(f as i128),
        _ => python::as_int(value),
    };
    Ok(parsed.map(integer).or(default).unwrap_or_else(|| Value::from(0)))
}

/// Python's `int(text, base)`.
pub fn int_of(text: &str, base: u32) -> Option<i128> {
    if !(2..=36).contains(&base) {
        return None;
    }
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let prefix = match base {
        16 => ["0x", "0X"],
        8 => ["0o", "0O"],
        2 => ["0b", "0B"],
        _ => ["", ""],
    };
    let digits = prefix.iter().find_map(|p| digits.strip_prefix(p)).unwrap_or(digits);
    if digits.is_empty() || !digits.starts_with(|c: char| c.is_digit(base)) || digits.ends_with('_') || digits.contains("__") {
        return None;
    }
    let value = i128::from_str_radix(&digits.replace('_', ""), base).ok()?;
    Some(if negative { -value } else { value })
}

/// Python's `float(text)`.
pub fn float_of(text: &str) -> Option<f64> {
    let text = text.trim().replace('_', "");
    match text.to_ascii_lowercase().trim_start_matches(['+', '-']) {
        "inf" | "infinity" | "nan" => {}
        other if other.starts_with(|c: char| c.is_ascii_digit() || c == '.') => {}
        _ => return None,
    }
    text.parse().ok()
}

fn float(_: &mut State<'_, '_>, value: &Value, args: Args) -> Done {
    let [default] = args.bind("float", ["default"], 0)?;
    let parsed = match (view(value), python::number(value)) {
        (View::Str(text), _) => float_of(text),
        (_, Some(Number::Int(i))) => Some(i as f64),
        (_, Some(Number::Float(f))) => Some(f),
        _ => None,
    };
    Ok(parsed.map(Value::from).or(default).unwrap_or_else(|| Value::from(0.0)))
}

fn round(_: &mut State<'_, '_>, value: &Value, args: Args) -> Done {
    let [precision, method] = args.bind("round", ["precision", "method"], 0)?;
    let precision = number_of(precision.as_ref(), 0, "precision")?.clamp(-300, 300);
    let method = method.as_ref().map_or("common".to_owned(), text_of);
    let (number, whole) = match python::number(value) {
        Some(Number::Int(i)) => (i as f64, true),
        Some(Number::Float(f)) => (f, false),
        None => return Err(fail(format!("type {} doesn't define __round__ method", python::type_name(value)))),
    };
    let scale = 10f64.powi(precision as i32);
    let result = match method.as_str() {
        "ceil" => (number * scale).ceil() / scale,
        "floor" => (number * scale).floor() / scale,
        "common" if whole => {
            let unit = u32::try_from(-precision).ok().filter(|p| *p > 0).and_then(|p| 10i128.checked_pow(p));
            let (Some(unit), Some(number)) = (unit, python::as_int(value)) else { return Ok(value.clone()) };
            // Half way goes to the even neighbour.
            let (below, rest) = (number.div_euclid(unit), number.rem_euclid(unit));
            let up = rest * 2 > unit || (rest * 2 == unit && below % 2 != 0);
            return Ok(integer((below + i128::from(up)) * unit));
        }
        "common" if precision >= 0 => format!("{number:.*}", precision as usize).parse().unwrap_or(number),
        "common" => (number * scale).round_ties_even() / scale,
        _ => return Err(fail("method must be common, ceil or floor")),
    };
    Ok(Value::from(result))
}

fn to_num(_: &mut State<'_, '_>, value: &Value, _: Args) -> Done {
    defined(value)?;
    match view(value) {
        View::Str(text) => {
            Ok(int_of(text.trim(), 10).map(integer).or_else(|| float_of(text).map(Value::from)).unwrap_or_else(|| value.clone()))
        }
        View::Float(f) => Ok(integer(f as i128)),
        _ => Ok(value.clone()),
    }
}
