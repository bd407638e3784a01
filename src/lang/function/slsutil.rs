//! `slsutil.*` and `defaults.*`: merging, rendering and writing data.

use super::data::{merge, traverse, update};
use super::{Call, Function, Site, error, flag, text};
use crate::diagnostic::Result;
use crate::lang::jinja::dump;
use crate::value::{Map, Value};

pub const TABLE: &[(&str, Function)] = &[
    ("slsutil.update", |_, c| {
        let [dest, upd, recursive, lists] = c.bind(["dest", "upd", "recursive_update", "merge_lists"], 2)?;
        let (mut dest, upd) = (map(dest)?, map(upd)?);
        update(&mut dest, &upd, flag(recursive, true), flag(lists, false));
        Ok(Value::Map(dest))
    }),
    ("slsutil.merge", |_, c| {
        let [a, b, strategy, _, lists] = c.bind(["obj_a", "obj_b", "strategy", "renderer", "merge_lists"], 2)?;
        Ok(Value::Map(merge(&map(a)?, &map(b)?, &strategy.map_or("smart".into(), Value::to_text), flag(lists, false))))
    }),
    ("slsutil.merge_all", |_, c| {
        let [all, strategy, _, lists] = c.bind(["lst", "strategy", "renderer", "merge_lists"], 1)?;
        let strategy = strategy.map_or("smart".into(), Value::to_text);
        let mut merged = Map::new();
        for item in all.and_then(Value::as_list).ok_or_else(|| error("slsutil.merge_all needs a list of dictionaries"))? {
            merged = merge(&merged, &map(Some(item))?, &strategy, flag(lists, false));
        }
        Ok(Value::Map(merged))
    }),
    ("slsutil.serialize", serialize),
    ("slsutil.deserialize", |_, c| {
        let (Some(kind), Some(source)) = (c.args.first(), c.args.get(1)) else {
            return Err(error("slsutil.deserialize needs a serializer and a text"));
        };
        match kind.to_text().as_str() {
            "yaml" | "yamlex" => crate::yaml::load(&source.to_text(), "<text>"),
            "json" => serde_json::from_str(&source.to_text()).map_err(|e| error(format!("the text is no JSON: {e}"))),
            other => Err(error(format!("Serializer '{other}' not found."))),
        }
    }),
    ("slsutil.boolstr", |_, c| {
        let [value, yes, no] = c.bind(["value", "true", "false"], 1)?;
        let word = |v: Option<&Value>, default: &str| v.cloned().unwrap_or_else(|| Value::str(default));
        Ok(if flag(value, false) { word(yes, "true") } else { word(no, "false") })
    }),
    ("slsutil.banner", banner),
    ("slsutil.renderer", renderer),
    ("defaults.merge", |_, c| {
        let [dest, src, lists, in_place, convert] = c.bind(["dest", "src", "merge_lists", "in_place", "convert_none"], 2)?;
        let convert = flag(convert, true);
        let none = |v: Option<&Value>| v.is_none_or(Value::is_null) && convert;
        if none(dest) && flag(in_place, true) {
            return Err(error("Can't perform in-place merge into NoneType"));
        }
        let mut merged = if none(dest) { Map::new() } else { map(dest)? };
        let over = if none(src) { Map::new() } else { map(src)? };
        update(&mut merged, &over, true, flag(lists, false));
        Ok(Value::Map(merged))
    }),
    ("defaults.update", |_, c| {
        let [dest, defaults, lists, _, convert] = c.bind(["dest", "defaults", "merge_lists", "in_place", "convert_none"], 2)?;
        let empty = |v: Option<&Value>| v.is_none_or(Value::is_null) && flag(convert, true);
        let mut nodes = if empty(dest) { Map::new() } else { map(dest)? };
        let defaults = if empty(defaults) { Map::new() } else { map(defaults)? };
        for value in nodes.0.values_mut() {
            let mut merged = defaults.clone();
            if let Value::Map(over) = value {
                update(&mut merged, over, true, flag(lists, true));
            }
            *value = Value::Map(merged);
        }
        Ok(Value::Map(nodes))
    }),
    ("defaults.deepcopy", |_, c| {
        let [source] = c.bind(["source"], 1)?;
        Ok(source.cloned().unwrap_or_default())
    }),
    ("defaults.get", |s, c| {
        let [key, default] = c.bind(["key", "default"], 1)?;
        let key = text(key);
        let (formula, path) = key.split_once(':').map_or((key.as_str(), None), |(f, p)| (f, Some(p)));
        let mut defaults = Value::Null;
        for ext in ["yaml", "json"] {
            if let Some(source) = s.templates.read(&s.context.saltenv, &format!("{formula}/defaults.{ext}")) {
                defaults = crate::yaml::load(&source.text, &source.file)?;
                break;
            }
        }
        let missing = || default.cloned().unwrap_or_else(|| Value::str(""));
        Ok(path.map_or(defaults.clone(), |path| traverse(&defaults, path, ":").cloned().unwrap_or_else(missing)))
    }),
];

fn map(value: Option<&Value>) -> Result<Map> {
    match value {
        Some(Value::Map(map)) => Ok(map.clone()),
        _ => Err(error("Cannot update using non-dict types in dictupdate.update()")),
    }
}

fn serialize(_: &Site, call: Call) -> Result<Value> {
    let (kind, value) = match (call.args, call.kwargs.get("serializer"), call.kwargs.get("obj")) {
        ([kind, value, ..], _, _) => (kind, value),
        ([kind], _, Some(value)) | ([], Some(kind), Some(value)) => (kind, value),
        _ => return Err(error("slsutil.serialize needs a serializer and a value")),
    };
    let option = |name: &str| call.kwargs.get(name);
    match kind.to_text().as_str() {
        "yaml" => {
            dump::yaml(value, option("default_flow_style").and_then(Value::as_bool), flag(option("allow_unicode"), false)).map(Value::Str)
        }
        "json" => {
            let indent = option("indent").and_then(Value::as_int).and_then(|i| usize::try_from(i).ok());
            dump::json(value, flag(option("sort_keys"), false), indent).map(Value::Str)
        }
        "python" => Ok(Value::Str(dump::python(value))),
        other => Err(error(format!("slsutil.serialize knows yaml, json and python, not {other}"))),
    }
}

fn renderer(site: &Site, call: Call) -> Result<Value> {
    let [path, string, pipe, saltenv] = [0, 1, 2, 3].map(|i| {
        let names = ["path", "string", "default_renderer", "saltenv"];
        call.args.get(i).or_else(|| names.get(i).and_then(|n| call.kwargs.get(n))).filter(|v| !v.is_null())
    });
    let saltenv = saltenv.map_or_else(|| site.context.saltenv.clone(), Value::to_text);
    let (name, source) = match (path, string) {
        (Some(path), None) => {
            let path = path.to_text();
            let path = path.strip_prefix("salt://").ok_or_else(|| error("slsutil.renderer reads only salt:// paths here"))?.to_owned();
            let source = site.templates.read(&saltenv, &path).ok_or_else(|| error(format!("there is no file salt://{path}")))?;
            (source.file.to_string(), source.text.to_string())
        }
        (None, Some(string)) => ("<string>".to_owned(), string.to_text()),
        (Some(_), Some(_)) => return Err(error("Must not pass both path and string.")),
        (None, None) => return Err(error("Must pass path or string.")),
    };
    let mut context = site.context.clone();
    for (key, value) in call.kwargs {
        if !matches!(key.as_str(), Some("path" | "string" | "default_renderer" | "saltenv")) {
            context.extra.0.insert(key.clone(), value.clone());
        }
    }
    // A first line names the renderers of this text.
    let first = source.lines().next().unwrap_or("");
    let named = first.strip_prefix("#!").filter(|r| !r.starts_with('/'));
    let pipe = named.map_or_else(|| pipe.map_or("jinja|yaml".into(), Value::to_text), str::to_owned);
    let mut text = source;
    for step in pipe.split('|').map(str::trim) {
        match step.split_whitespace().next().unwrap_or("") {
            "jinja" => text = site.renderer.nested(&name, &text, &context)?.text,
            "yaml" => return crate::yaml::load(&text, &name),
            "json" => return serde_json::from_str(&text).map_err(|e| error(format!("{name} is no JSON: {e}"))),
            "text" => return Ok(Value::Str(text)),
            other => return Err(error(format!("slsutil.renderer knows jinja, yaml, json and text, not {other}"))),
        }
    }
    Ok(Value::Str(text))
}

fn banner(_: &Site, call: Call) -> Result<Value> {
    let [width, comment, border, start, end, title, body, newline] =
        call.bind(["width", "commentchar", "borderchar", "blockstart", "blockend", "title", "text", "newline"], 0)?;
    let width = width.and_then(Value::as_int).map_or(72, |w| usize::try_from(w).unwrap_or(0)).min(1000);
    let comment = comment.map_or("#".into(), Value::to_text);
    let border = border.map_or("#".into(), Value::to_text);
    let present = |v: Option<&Value>| v.filter(|v| !v.is_null()).map(Value::to_text);
    let title = present(title).unwrap_or_else(|| "THIS FILE IS MANAGED BY SALT - DO NOT EDIT".into());
    let body = present(body).unwrap_or_else(|| {
        "The contents of this file are managed by Salt. Any changes to this file may be overwritten automatically and without warning."
            .into()
    });
    let count = |s: &str| s.chars().count();
    let (left, right) = (comment.trim_end(), comment.trim());
    let inner = width.checked_sub(count(left) + count(right) + 2).filter(|w| *w > 0);
    let inner = inner.ok_or_else(|| error("Width is too small to render banner"))?;
    let line = border.chars().next().map_or(String::new(), |c| c.to_string()).repeat(width - count(left) - count(right));
    let border = format!("{comment}{line}{right}");
    let spacer = format!("{comment}{}{comment}", " ".repeat(width.saturating_sub(count(&comment) * 2)));
    let mut out: Vec<String> = present(start).into_iter().collect();
    out.extend([border.clone(), spacer.clone()]);
    for line in dump::wrap(&title, inner) {
        let missing = inner.saturating_sub(count(&line));
        let before = missing / 2 + (missing & inner & 1);
        out.push(format!("{left} {}{line}{} {right}", " ".repeat(before), " ".repeat(missing - before)));
    }
    out.push(spacer);
    for line in dump::wrap(&body, inner) {
        out.push(format!("{left} {line}{} {right}", " ".repeat(inner.saturating_sub(count(&line)))));
    }
    out.push(border);
    out.extend(present(end));
    let text = out.join("\n");
    Ok(Value::Str(if flag(newline, false) { text + "\n" } else { text }))
}
