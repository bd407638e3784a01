//! Filters on text.

use minijinja::{Error, Value};

use super::{Filter, flag, number_of, text_of};
use crate::lang::jinja::call::Args;
use crate::lang::jinja::method::{capitalize, pad, replace};
use crate::lang::jinja::operate::too_long;
use crate::lang::jinja::python::{self, as_int};
use crate::lang::jinja::value::{Done, View, fail, view};

fn plain(args: Args, name: &str) -> Result<(), Error> {
    args.bind::<0>(name, [], 0).map(|_| ())
}

pub const TABLE: &[(&str, Filter)] = &[
    ("upper", |_, v, a| plain(a, "upper").map(|()| Value::from(text_of(v).to_uppercase()))),
    ("lower", |_, v, a| plain(a, "lower").map(|()| Value::from(text_of(v).to_lowercase()))),
    ("capitalize", |_, v, a| plain(a, "capitalize").map(|()| Value::from(capitalize(&text_of(v))))),
    ("title", |_, v, a| plain(a, "title").map(|()| Value::from(title(&text_of(v))))),
    ("string", |_, v, a| plain(a, "string").map(|()| Value::from(text_of(v)))),
    ("safe", |_, v, _| Ok(Value::from(text_of(v)))),
    ("trim", |_, v, a| {
        let [chars] = a.bind("trim", ["chars"], 0)?;
        let text = text_of(v);
        Ok(Value::from(match chars.as_ref().and_then(|c| c.as_str()) {
            Some(chars) => text.trim_matches(|c| chars.contains(c)),
            None => text.trim(),
        }))
    }),
    ("replace", |_, v, a| {
        let [old, new, count] = a.bind("replace", ["old", "new", "count"], 2)?;
        let count = number_of(count.as_ref(), -1, "count")?;
        replace(&text_of(v), &text_of(&old.unwrap_or_default()), &text_of(&new.unwrap_or_default()), count).map(Value::from)
    }),
    ("indent", indent),
    ("center", |_, v, a| {
        let [width] = a.bind("center", ["width"], 0)?;
        let width = usize::try_from(number_of(width.as_ref(), 80, "width")?).unwrap_or(0);
        too_long(width)?;
        Ok(Value::from(pad(&text_of(v), width, ' ', "center")))
    }),
    ("truncate", truncate),
    ("wordcount", |_, v, _| Ok(Value::from(words(&text_of(v))))),
    ("wordwrap", wordwrap),
    ("format", |_, v, a| {
        let args = match (a.positional.is_empty(), a.named.is_empty()) {
            (false, false) => return Err(fail("can't handle positional and keyword arguments at the same time")),
            (true, false) => crate::lang::jinja::value::Dict::value(a.named.into_iter().map(|(k, v)| (Value::from(k), v))),
            _ => crate::lang::jinja::value::Tuple::value(a.positional),
        };
        crate::lang::jinja::format::percent(&text_of(v), &args).map(Value::from)
    }),
    ("escape", |_, v, _| Ok(Value::from(escape(&text_of(v))))),
    ("e", |_, v, _| Ok(Value::from(escape(&text_of(v))))),
    ("forceescape", |_, v, _| Ok(Value::from(escape(&text_of(v))))),
    ("striptags", |_, v, _| Ok(Value::from(strip_tags(&text_of(v))))),
    ("urlencode", urlencode),
    ("filesizeformat", |_, v, a| {
        let [binary] = a.bind("filesizeformat", ["binary"], 0)?;
        Ok(Value::from(file_size(python::number(v).map_or(0.0, float), flag(binary.as_ref(), false))))
    }),
    ("xmlattr", |_, v, _| {
        let mut out = String::new();
        for (key, value) in crate::lang::jinja::call::pairs_of(v)? {
            if !matches!(view(&value), View::None | View::Undefined(_)) {
                out.push_str(&format!(" {}=\"{}\"", escape(&text_of(&key)), escape(&text_of(&value))));
            }
        }
        Ok(Value::from(out))
    }),
    ("quote", |_, v, _| Ok(Value::from(shell_quote(v.as_str().ok_or_else(|| fail("expected string or bytes-like object"))?)))),
    ("to_snake_case", |_, v, _| {
        let mut out = String::new();
        let mut before = '\0';
        for c in text_of(v).chars() {
            if c.is_uppercase() && (before.is_lowercase() || before.is_ascii_digit()) {
                out.push('_');
            }
            out.extend(c.to_lowercase());
            before = c;
        }
        Ok(Value::from(out))
    }),
    ("to_camelcase", |_, v, a| {
        let [upper] = a.bind("to_camelcase", ["uppercamel"], 0)?;
        let upper = flag(upper.as_ref(), false);
        let text = text_of(v);
        let parts = text.split(['_', '-', ' ']).filter(|p| !p.is_empty()).enumerate();
        Ok(Value::from(parts.map(|(i, p)| if i == 0 && !upper { p.to_owned() } else { capitalize(p) }).collect::<String>()))
    }),
    ("contains_whitespace", |_, v, _| Ok(Value::from(text_of(v).contains(char::is_whitespace)))),
    ("is_hex", |_, v, _| {
        let text = text_of(v);
        let digits = text.strip_prefix("0x").unwrap_or(&text);
        Ok(Value::from(!digits.is_empty() && digits.chars().all(|c| c.is_ascii_hexdigit())))
    }),
    ("to_bytes", |_, v, _| Ok(v.clone())),
    ("human_to_bytes", |_, v, a| {
        let [default, _handle] = a.bind("human_to_bytes", ["default_unit", "handle_metric"], 0)?;
        let default = default.as_ref().map_or("B".to_owned(), text_of);
        Ok(Value::from(human_to_bytes(&text_of(v), &default)))
    }),
    ("which", |state, v, _| {
        let run = crate::lang::jinja::run::current(state)?;
        super::plain_result(run.context.host.call("cmd.which", &[crate::value::Value::str(text_of(v))], &Default::default()))
    }),
    ("path_join", |_, v, a| {
        if let Some((name, _)) = a.named.iter().find(|(n, _)| n != "use_posixpath") {
            return Err(fail(format!("The following keyword arguments are not valid: {name}")));
        }
        let parts: Vec<String> = std::iter::once(v).chain(&a.positional).map(text_of).collect();
        Ok(Value::from(path_join(&parts)))
    }),
];

/// Jinja2's: a word starts after white space or an opening mark.
fn title(text: &str) -> String {
    let mut out = String::new();
    let mut start = true;
    for c in text.chars() {
        if start {
            out.extend(c.to_uppercase());
        } else {
            out.extend(c.to_lowercase());
        }
        start = c.is_whitespace() || "-({[<".contains(c);
    }
    out
}

fn float(n: python::Number) -> f64 {
    match n {
        python::Number::Int(i) => i as f64,
        python::Number::Float(f) => f,
    }
}

fn words(text: &str) -> usize {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|w| !w.is_empty()).count()
}

fn indent(_: &mut minijinja::State<'_, '_>, value: &Value, args: Args) -> Done {
    let [width, first, blank] = args.bind("indent", ["width", "first", "blank"], 0)?;
    let by = match &width {
        Some(width) if matches!(view(width), View::Str(_)) => text_of(width),
        _ => {
            let width = usize::try_from(number_of(width.as_ref(), 4, "width")?).unwrap_or(0);
            too_long(width.saturating_mul(2))?;
            " ".repeat(width)
        }
    };
    let Some(text) = value.as_str() else {
        return Err(fail(format!("unsupported operand type(s) for +=: '{}' and 'str'", python::type_name(value))));
    };
    // Jinja2 adds a line break and splits: a final line break stays, as an empty last line.
    let lines = crate::lang::jinja::method::split_lines(&format!("{text}\n"), false);
    too_long(text.len().saturating_add(lines.len().saturating_mul(by.len())))?;
    let blank = flag(blank.as_ref(), false);
    let mut out = String::new();
    for (i, line) in lines.iter().enumerate() {
        if i > 0 {
            out.push('\n');
            if blank || !line.is_empty() {
                out.push_str(&by);
            }
        } else if flag(first.as_ref(), false) {
            out.push_str(&by);
        }
        out.push_str(line);
    }
    Ok(Value::from(out))
}

fn truncate(_: &mut minijinja::State<'_, '_>, value: &Value, args: Args) -> Done {
    let [length, killwords, end, leeway] = args.bind("truncate", ["length", "killwords", "end", "leeway"], 0)?;
    let length = usize::try_from(number_of(length.as_ref(), 255, "length")?).unwrap_or(0);
    let leeway = usize::try_from(number_of(leeway.as_ref(), 5, "leeway")?).unwrap_or(0);
    let end = end.as_ref().map_or("...".to_owned(), text_of);
    let text = text_of(value);
    let chars: Vec<char> = text.chars().collect();
    if end.chars().count() > length {
        return Err(fail(format!("expected length >= {}, got {length}", end.chars().count())));
    }
    if chars.len() <= length.saturating_add(leeway) {
        return Ok(Value::from(text));
    }
    let cut: String = chars.iter().take(length - end.chars().count()).collect();
    if flag(killwords.as_ref(), false) {
        return Ok(Value::from(cut + &end));
    }
    Ok(Value::from(cut.rsplit_once(' ').map_or(cut.as_str(), |(before, _)| before).to_owned() + &end))
}

fn wordwrap(_: &mut minijinja::State<'_, '_>, value: &Value, args: Args) -> Done {
    let [width, long, newline, hyphens] = args.bind("wordwrap", ["width", "break_long_words", "wrapstring", "break_on_hyphens"], 0)?;
    let width = usize::try_from(number_of(width.as_ref(), 79, "width")?).unwrap_or(1).max(1);
    let (long, hyphens) = (flag(long.as_ref(), true), flag(hyphens.as_ref(), true));
    let newline = newline.as_ref().filter(|n| !n.is_none()).map_or("\n".to_owned(), text_of);
    let mut out: Vec<String> = Vec::new();
    for line in crate::lang::jinja::method::split_lines(&text_of(value), false) {
        let mut pieces = wrap(&line, width, long, hyphens);
        // An empty line stays one.
        out.append(&mut if pieces.is_empty() { vec![String::new()] } else { std::mem::take(&mut pieces) });
    }
    too_long(out.iter().map(|piece| piece.len().saturating_add(newline.len())).sum())?;
    Ok(Value::from(out.join(&newline)))
}

/// One line in pieces no wider than `width`, broken between words.
pub fn wrap(line: &str, width: usize, break_long: bool, hyphens: bool) -> Vec<String> {
    let mut chunks: Vec<String> = Vec::new();
    let mut current = String::new();
    let mut space = None;
    for c in line.chars() {
        if space.is_some_and(|s| s != c.is_whitespace()) && !current.is_empty() {
            chunks.push(std::mem::take(&mut current));
        }
        space = Some(c.is_whitespace());
        current.push(c);
        if hyphens && c == '-' && current.chars().count() > 2 {
            chunks.push(std::mem::take(&mut current));
        }
    }
    if !current.is_empty() {
        chunks.push(current);
    }
    let count = |s: &str| s.chars().count();
    let (mut lines, mut here) = (Vec::new(), String::new());
    for mut chunk in chunks {
        if here.is_empty() && !lines.is_empty() && chunk.trim().is_empty() {
            continue;
        }
        if count(&here) + count(&chunk) > width && !here.is_empty() {
            lines.push(std::mem::take(&mut here).trim_end().to_owned());
            if chunk.trim().is_empty() {
                continue;
            }
        }
        while break_long && count(&chunk) > width {
            let head: String = chunk.chars().take(width).collect();
            chunk = chunk.chars().skip(width).collect();
            lines.push(head);
        }
        here.push_str(&chunk);
    }
    if !here.is_empty() {
        lines.push(here.trim_end().to_owned());
    }
    lines
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&#39;").replace('"', "&#34;")
}

fn strip_tags(text: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for c in text.chars() {
        match c {
            '<' => inside = true,
            '>' if inside => inside = false,
            c if !inside => out.push(c),
            _ => {}
        }
    }
    out.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn percent_encode(text: &str, slash: bool, plus: bool) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
            b'/' if slash => out.push('/'),
            b' ' if plus => out.push('+'),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn urlencode(_: &mut minijinja::State<'_, '_>, value: &Value, _: Args) -> Done {
    if matches!(view(value), View::Str(_)) || !python::is_iterable(value) {
        return Ok(Value::from(percent_encode(&text_of(value), true, false)));
    }
    let pairs = crate::lang::jinja::call::pairs_of(value)?;
    let encode = |v: &Value| percent_encode(&text_of(v), false, true);
    Ok(Value::from(pairs.iter().map(|(k, v)| format!("{}={}", encode(k), encode(v))).collect::<Vec<_>>().join("&")))
}

fn file_size(bytes: f64, binary: bool) -> String {
    let base: f64 = if binary { 1024.0 } else { 1000.0 };
    if bytes == 1.0 {
        return "1 Byte".into();
    }
    if bytes < base {
        return format!("{} Bytes", bytes as i64);
    }
    let units =
        if binary { ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"] } else { ["kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"] };
    let mut unit = base;
    for name in units {
        if bytes < unit * base || name.starts_with('Y') {
            return format!("{:.1} {name}", bytes / unit);
        }
        unit *= base;
    }
    bytes.to_string()
}

/// `shlex.quote`
pub fn shell_quote(text: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./-_".contains(c);
    if !text.is_empty() && text.chars().all(safe) { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\"'\"'")) }
}

fn human_to_bytes(text: &str, default: &str) -> i64 {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = if unit.trim().is_empty() { default } else { unit.trim() };
    let power = match unit.chars().next().map(|c| c.to_ascii_lowercase()) {
        Some('k') => 1,
        Some('m') => 2,
        Some('g') => 3,
        Some('t') => 4,
        Some('p') => 5,
        Some('b') => 0,
        _ => return 0,
    };
    number.parse::<f64>().map_or(0, |n| (n * 1024f64.powi(power)) as i64)
}

/// `os.path.normpath`
pub fn normpath(path: &str) -> String {
    if path.is_empty() {
        return ".".into();
    }
    let absolute = path.starts_with('/');
    // POSIX keeps exactly two leading slashes.
    let root = if path.starts_with("//") && !path.starts_with("///") {
        "//"
    } else if absolute {
        "/"
    } else {
        ""
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|p| *p != "..") => {
                parts.pop();
            }
            ".." if absolute => {}
            part => parts.push(part),
        }
    }
    let joined = format!("{root}{}", parts.join("/"));
    if joined.is_empty() { ".".into() } else { joined }
}

/// Salt's path join: later parts are below the first even when they start with a slash.
pub fn path_join(parts: &[String]) -> String {
    let Some((first, rest)) = parts.split_first() else { return String::new() };
    let mut path = normpath(first);
    for part in rest {
        let part = normpath(part);
        let part = part.trim_start_matches('/');
        if !path.ends_with('/') {
            path.push('/');
        }
        path.push_str(part);
    }
    normpath(&path)
}

/// A whole number out of a value that may be text, for filters that count.
pub fn count(value: &Value) -> Option<i128> {
    as_int(value).or_else(|| value.as_str()?.trim().parse().ok())
}
