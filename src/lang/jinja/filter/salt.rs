//! Salt's filters that fit nowhere else: paths into data, lists of entries, kinds.

use minijinja::{State, Value};

use super::{Filter, flag, text_of};
use crate::lang::jinja::call::{self, Args};
use crate::lang::jinja::python;
use crate::lang::jinja::value::{Dict, Done, List, View, fail, from_plain, to_plain, view};

pub const TABLE: &[(&str, Filter)] = &[
    ("skip", |_, _, _| Ok(Value::from(""))),
    ("sequence", |_, v, _| match view(v) {
        View::List(_) | View::Tuple(_) | View::Dict(_) => Ok(v.clone()),
        _ => Ok(List::value(vec![v.clone()])),
    }),
    ("to_bool", |_, v, _| {
        Ok(Value::from(match view(v) {
            View::Bool(b) => b,
            View::Str(s) => matches!(s.to_lowercase().as_str(), "yes" | "1" | "true"),
            View::Int(i) => i > 0,
            View::List(_) | View::Dict(_) => python::length(v)? > 0,
            _ => false,
        }))
    }),
    ("is_list", |_, v, _| Ok(Value::from(matches!(view(v), View::List(_))))),
    ("is_iter", |_, v, _| Ok(Value::from(python::is_iterable(v) && !matches!(view(v), View::Str(_))))),
    ("traverse", |_, v, a| {
        let [key, default, delimiter] = a.bind("traverse_dict_and_list", ["key", "default", "delimiter"], 1)?;
        let delimiter = delimiter.as_ref().map_or(":".to_owned(), text_of);
        let key = key.unwrap_or_default();
        let path: Vec<Value> = match view(&key) {
            View::Str(path) => path.split(delimiter.as_str()).map(Value::from).collect(),
            View::Int(_) => vec![key.clone()],
            _ => python::iterate(&key)?,
        };
        Ok(traverse(v, &path).or(default).unwrap_or(Value::from(())))
    }),
    ("substring_in_list", |_, v, a| {
        let [items] = a.bind("substring_in_list", ["list_to_search"], 1)?;
        let needle = text_of(v);
        Ok(Value::from(python::iterate(&items.unwrap_or_default())?.iter().any(|i| text_of(i).contains(&needle))))
    }),
    ("to_entries", |_, v, _| {
        let entry = |k: Value, v: Value| Dict::value([(Value::from("key"), k), (Value::from("value"), v)]);
        match view(v) {
            View::Dict(d) => Ok(List::value(d.items().into_iter().map(|(k, v)| entry(k, v)).collect())),
            View::List(l) => Ok(List::value(l.items().into_iter().enumerate().map(|(i, v)| entry(Value::from(i), v)).collect())),
            _ => Err(fail("Input data must be a dict or list")),
        }
    }),
    ("from_entries", |_, v, _| {
        let mut pairs = Vec::new();
        for entry in python::iterate(v)? {
            let View::Dict(d) = view(&entry) else { return Err(fail("an entry must be a mapping")) };
            let find = |name: &str| d.items().into_iter().find(|(k, _)| text_of(k).to_lowercase() == name).map(|(_, v)| v);
            if let Some(key) = find("key").filter(Value::is_true).or_else(|| find("name").filter(Value::is_true)) {
                python::hashable(&key)?;
                pairs.push((key, find("value").unwrap_or(Value::from(()))));
            }
        }
        Ok(Dict::value(pairs))
    }),
    ("exactly_one_true", |_, v, _| Ok(Value::from(python::iterate(v)?.iter().filter(|i| i.is_true()).count() == 1))),
    ("exactly_n_true", |_, v, a| {
        let [amount] = a.bind("exactly_n", ["amount"], 0)?;
        let wanted = super::number_of(amount.as_ref(), 1, "amount")?;
        Ok(Value::from(python::iterate(v)?.iter().filter(|i| i.is_true()).count() as i64 == wanted))
    }),
    ("set_dict_key_value", |_, v, a| at_path(v, a, "set")),
    ("update_dict_key_value", |_, v, a| at_path(v, a, "update")),
    ("append_dict_key_value", |_, v, a| at_path(v, a, "append")),
    ("extend_dict_key_value", |_, v, a| at_path(v, a, "extend")),
    ("method_call", |state, v, a| {
        let mut rest = a.positional;
        if rest.is_empty() {
            return Err(fail("method_call() missing 1 required positional argument: 'f_name'"));
        }
        let name = text_of(&rest.remove(0));
        if !crate::lang::jinja::method::exists(v, &name) {
            return Ok(Value::from(()));
        }
        let args = Args { positional: rest, named: a.named }.pack();
        call::method(state, v, &name, &args)
    }),
    ("compare_lists", |_, v, a| {
        let [new] = a.bind("compare_lists", ["new"], 1)?;
        let (old, new) = (python::iterate(v)?, python::iterate(&new.unwrap_or_default())?);
        let minus =
            |a: &[Value], b: &[Value]| -> Vec<Value> { a.iter().filter(|i| !b.iter().any(|o| python::equal(i, o))).cloned().collect() };
        let sides = [("new", minus(&new, &old)), ("old", minus(&old, &new))];
        Ok(Dict::value(sides.into_iter().filter(|(_, l)| !l.is_empty()).map(|(k, l)| (Value::from(k), List::value(l)))))
    }),
    ("compare_dicts", |_, v, a| {
        let [new] = a.bind("compare_dicts", ["new"], 1)?;
        let new = new.unwrap_or_default();
        let (View::Dict(old), View::Dict(new)) = (view(v), view(&new)) else { return Err(fail("compare_dicts wants two mappings")) };
        let mut out = Vec::new();
        let empty = || Value::from("");
        let mut keys = new.keys();
        keys.extend(old.keys().into_iter().filter(|k| !new.contains(k)));
        for key in keys {
            let (o, n) = (old.get(&key), new.get(&key));
            let same = matches!((&o, &n), (Some(o), Some(n)) if python::equal(o, n));
            if !same {
                let sides = [(Value::from("old"), o.unwrap_or_else(empty)), (Value::from("new"), n.unwrap_or_else(empty))];
                out.push((key, Dict::value(sides)));
            }
        }
        Ok(Dict::value(out))
    }),
    ("check_whitelist_blacklist", |_, v, a| {
        let [white, black] = a.bind("check_whitelist_blacklist", ["whitelist", "blacklist"], 0)?;
        let text = text_of(v);
        let hits = |list: Option<Value>| -> Result<Option<bool>, minijinja::Error> {
            let Some(list) = list.filter(Value::is_true) else { return Ok(None) };
            let items = if list.as_str().is_some() { vec![list] } else { python::iterate(&list)? };
            Ok(Some(items.iter().any(|p| crate::lang::glob::matches(&text_of(p), &text))))
        };
        let (white, black) = (hits(white)?, hits(black)?);
        Ok(Value::from(white.unwrap_or(true) && !black.unwrap_or(false)))
    }),
    ("mysql_to_dict", |_, v, a| {
        let [key] = a.bind("mysql_to_dict", ["key"], 1)?;
        let key = text_of(&key.unwrap_or_default());
        let mut headers: Vec<String> = Vec::new();
        let mut out = Vec::new();
        for line in python::iterate(v)?.iter().map(text_of).filter(|l| l.starts_with('|')) {
            let cells: Vec<String> = line.split('|').skip(1).map(|c| c.trim().to_owned()).collect();
            if headers.is_empty() {
                headers = cells;
                continue;
            }
            let row: Vec<(Value, Value)> = headers
                .iter()
                .zip(&cells)
                .filter(|(h, _)| !h.is_empty())
                .map(|(h, c)| (Value::from(h.as_str()), Value::from(c.as_str())))
                .collect();
            let name = row.iter().find(|(h, _)| h.as_str() == Some(&key)).map(|(_, c)| c.clone());
            if let Some(name) = name {
                out.push((name, Dict::value(row)));
            }
        }
        Ok(Dict::value(out))
    }),
    ("rand_str", random),
    ("random_hash", random),
    ("random_str", random),
    ("random_sample", |state, v, a| host(state, "random.sample", v, a)),
    ("random_shuffle", |state, v, a| host(state, "random.shuffle", v, a)),
    ("is_text_file", |state, v, a| host(state, "file.is_text_file", v, a)),
    ("is_bin_file", |state, v, a| host(state, "file.is_bin_file", v, a)),
    ("is_empty", |state, v, a| host(state, "file.is_empty", v, a)),
    ("list_files", |state, v, a| host(state, "file.list_files", v, a)),
    ("file_hashsum", |state, v, a| host(state, "file.get_hash", v, a)),
    ("get_uid", |state, v, a| host(state, "file.user_to_uid", v, a)),
    ("http_query", |state, v, a| host(state, "http.query", v, a)),
];

fn random(state: &mut State<'_, '_>, value: &Value, args: Args) -> Done {
    host(state, "random.get_str", value, args)
}

fn host(state: &mut State<'_, '_>, function: &str, value: &Value, args: Args) -> Done {
    let run = crate::lang::jinja::run::current(state)?;
    let mut positional = vec![to_plain(value)?];
    for arg in &args.positional {
        positional.push(to_plain(arg)?);
    }
    let mut named = crate::value::Map::new();
    for (key, value) in &args.named {
        named.insert(key.as_str(), to_plain(value)?);
    }
    let answer = crate::lang::function::call(&run.site(), function, &positional, &named);
    super::plain_result(answer.unwrap_or_else(|| run.context.host.call(function, &positional, &named)))
}

/// Salt's `traverse_dict_and_list`: in a list, a dict with such a key comes before the index; a dict's key may be a number.
fn traverse(value: &Value, path: &[Value]) -> Option<Value> {
    let mut here = value.clone();
    for part in path {
        here = match view(&here) {
            View::List(list) => {
                let items = list.items();
                let index = super::text::count(part);
                let key = index.map_or_else(|| part.clone(), crate::lang::jinja::operate::integer);
                let inside = items.iter().find_map(|i| match view(i) {
                    View::Dict(d) => d.get(&key),
                    _ => None,
                });
                inside.or_else(|| {
                    let index = index?;
                    let at = if index < 0 { index + items.len() as i128 } else { index };
                    items.get(usize::try_from(at).ok()?).cloned()
                })?
            }
            View::Dict(dict) => match dict.get(part) {
                Some(found) => found,
                None => {
                    let loaded = from_plain(&crate::yaml::load(part.as_str()?, "<key>").ok()?);
                    python::hashable(&loaded).ok()?;
                    dict.get(&loaded)?
                }
            },
            _ => return None,
        };
    }
    Some(here)
}

/// `…_dict_key_value`: goes down a path, making dicts where there are none, and changes what is at its end.
fn at_path(value: &Value, args: Args, how: &str) -> Done {
    let [keys, new, delimiter, ordered] = args.bind(how, ["keys", "value", "delimiter", "ordered_dict"], 2)?;
    let delimiter = delimiter.as_ref().map_or(":".to_owned(), text_of);
    let flavour =
        if flag(ordered.as_ref(), false) { crate::lang::jinja::value::Flavour::Ordered } else { crate::lang::jinja::value::Flavour::Plain };
    let fresh = || Value::from_object(Dict::new([], flavour));
    let path = text_of(&keys.unwrap_or_default());
    let new = new.unwrap_or_default();
    let mut parts: Vec<&str> = path.split(delimiter.as_str()).collect();
    let last = parts.pop().unwrap_or("");
    let mut here = value.clone();
    for part in parts {
        let View::Dict(dict) = view(&here) else { return Err(fail("Cannot traverse a value that is no dict")) };
        let next = dict.get_str(part).filter(|v| !v.is_none()).unwrap_or_else(|| {
            let next = fresh();
            dict.insert(Value::from(part), next.clone());
            next
        });
        here = next;
    }
    let View::Dict(dict) = view(&here) else { return Err(fail("Cannot change a value that is no dict")) };
    if how == "set" {
        dict.insert(Value::from(last), new);
        return Ok(value.clone());
    }
    let target = dict.get_str(last).filter(|v| !v.is_none()).unwrap_or_else(|| {
        let target = if how == "update" { fresh() } else { List::value(Vec::new()) };
        dict.insert(Value::from(last), target.clone());
        target
    });
    if !crate::lang::jinja::method::exists(&target, how) {
        return Err(fail(format!("The last key contains a {}, which cannot {how}.", python::type_name(&target))));
    }
    crate::lang::jinja::method::call(&target, how, Args { positional: vec![new], named: Vec::new() })?;
    Ok(value.clone())
}
