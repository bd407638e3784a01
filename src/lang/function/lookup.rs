//! What pillar, grains and settings answer: `pillar.*`, `grains.*`, `config.*`.

use super::data::{FilterBy, filter_by, merge, traverse, traverse_map, update};
use super::{Call, Function, Site, error, flag, text};
use crate::diagnostic::Result;
use crate::value::{Map, Value};

pub const TABLE: &[(&str, Function)] = &[
    ("pillar.get", pillar_get),
    ("pillar.fetch", pillar_get),
    ("pillar.items", |s, c| if c.args.is_empty() { Ok(Value::Map((*s.context.pillar).clone())) } else { several(&s.context.pillar, c) }),
    ("pillar.item", |s, c| several(&s.context.pillar, c)),
    ("pillar.raw", |s, c| {
        let [key, _] = c.bind(["key", "unmask"], 0)?;
        Ok(match key.filter(|k| k.truthy()) {
            Some(key) => s.context.pillar.0.get(key).cloned().unwrap_or_else(|| Value::Map(Map::new())),
            None => Value::Map((*s.context.pillar).clone()),
        })
    }),
    ("pillar.ls", |s, _| Ok(Value::List(s.context.pillar.0.keys().cloned().collect()))),
    ("pillar.keys", |s, c| {
        let [key, delimiter, _] = c.bind(["key", "delimiter", "unmask"], 1)?;
        match traverse_map(&s.context.pillar, &text(key), &delimiter.map_or(":".into(), Value::to_text)) {
            Some(Value::Map(map)) => Ok(Value::List(map.0.keys().cloned().collect())),
            Some(_) => Err(error(format!("Pillar value in key {} is not a dict", text(key)))),
            None => Err(error(format!("Pillar key not found: {}", text(key)))),
        }
    }),
    ("pillar.filter_by", |s, c| {
        let [lookup, pillar, merge, default, base] = c.bind(["lookup_dict", "pillar", "merge", "default", "base"], 2)?;
        by(&s.context.pillar, lookup, &text(pillar), merge, default, base)
    }),
    ("grains.get", |s, c| {
        let [key, default, delimiter, _] = c.bind(["key", "default", "delimiter", "ordered"], 1)?;
        let found = traverse_map(&s.context.grains, &text(key), &delimiter.map_or(":".into(), Value::to_text));
        Ok(found.or(default).cloned().unwrap_or_else(|| Value::str("")))
    }),
    ("grains.fetch", |s, c| {
        let [key, default, delimiter, _] = c.bind(["key", "default", "delimiter", "ordered"], 1)?;
        let found = traverse_map(&s.context.grains, &text(key), &delimiter.map_or(":".into(), Value::to_text));
        Ok(found.or(default).cloned().unwrap_or_else(|| Value::str("")))
    }),
    ("grains.has_value", |s, c| {
        let [key] = c.bind(["key"], 1)?;
        Ok(Value::Bool(traverse_map(&s.context.grains, &text(key), ":").is_some()))
    }),
    ("grains.equals", |s, c| {
        let [key, value] = c.bind(["key", "value"], 2)?;
        let found = traverse_map(&s.context.grains, &text(key), ":").map_or_else(String::new, Value::to_text);
        Ok(Value::Bool(found == text(value)))
    }),
    // Salt sets the grain where it is missing; here that is a state's to do.
    ("grains.get_or_set_hash", |s, c| {
        let [name, _, _] = c.bind(["name", "length", "chars"], 1)?;
        let name = text(name);
        traverse_map(&s.context.grains, &name, ":").cloned().ok_or_else(|| {
            let fault = error(format!("the grain {name} is not set, and grains.get_or_set_hash would set it while a plan is made"));
            Box::new(fault.hint("set it with the state grains.present, in the roster's minion_opts, or keep the value in pillar"))
        })
    }),
    ("grains.items", |s, _| Ok(Value::Map((*s.context.grains).clone()))),
    ("grains.item", |s, c| several(&s.context.grains, c)),
    ("grains.ls", |s, _| {
        let mut names: Vec<String> = s.context.grains.0.keys().map(Value::to_text).collect();
        names.sort();
        Ok(Value::List(names.into_iter().map(Value::Str).collect()))
    }),
    ("grains.filter_by", |s, c| {
        let [lookup, grain, merge, default, base] = c.bind(["lookup_dict", "grain", "merge", "default", "base"], 1)?;
        by(&s.context.grains, lookup, &grain.map_or("os_family".into(), Value::to_text), merge, default, base)
    }),
    ("config.get", config_get),
    ("config.option", config_option),
    ("config.merge", |s, c| {
        let [value, default, omit_opts, omit_master, omit_pillar] =
            c.bind(["value", "default", "omit_opts", "omit_master", "omit_pillar"], 1)?;
        let key = text(value);
        let master = s.context.pillar.get("master").and_then(Value::as_map);
        let layers = [
            (flag(omit_opts, false), s.context.opts.get(&key)),
            (flag(omit_master, false), master.and_then(|m| m.get(&key))),
            (flag(omit_pillar, false), s.context.pillar.get(&key)),
        ];
        let mut result: Option<Value> = None;
        for (_, found) in layers.into_iter().filter(|(omit, _)| !omit) {
            result = match (result, found) {
                (Some(text @ Value::Str(_)), _) => Some(text),
                (None, found) => found.cloned(),
                (Some(Value::Map(over)), Some(Value::Map(below))) => {
                    let mut merged = below.clone();
                    update(&mut merged, &over, false, false);
                    Some(Value::Map(merged))
                }
                (Some(Value::List(mut first)), Some(Value::List(second))) => {
                    first.extend(second.iter().cloned());
                    Some(Value::List(first))
                }
                (result, _) => result,
            };
        }
        Ok(result.or_else(|| default.cloned()).unwrap_or_else(|| Value::str("")))
    }),
    ("config.items", |s, _| Ok(Value::Map((*s.context.opts).clone()))),
];

fn several(map: &Map, call: Call) -> Result<Value> {
    let default = call.kwargs.get("default").cloned().unwrap_or_else(|| Value::str(""));
    let delimiter = call.kwargs.get("delimiter").map_or(":".into(), Value::to_text);
    let found = |key: &Value| traverse_map(map, &key.to_text(), &delimiter).cloned().unwrap_or_else(|| default.clone());
    Ok(Value::Map(call.args.iter().map(|key| (key.clone(), found(key))).collect()))
}

fn pillar_get(site: &Site, call: Call) -> Result<Value> {
    let [key, default, merge, merge_lists, delimiter, _, _, _] =
        call.bind(["key", "default", "merge", "merge_nested_lists", "delimiter", "pillarenv", "saltenv", "unmask"], 1)?;
    let key = text(key);
    let delimiter = delimiter.map_or(":".into(), Value::to_text);
    let found = traverse_map(&site.context.pillar, &key, &delimiter);
    if flag(merge, false) {
        let lists = merge_lists.filter(|m| !m.is_null()).or_else(|| site.context.opts.get("pillar_merge_lists"));
        match (default, found) {
            (Some(Value::Map(below)), Some(Value::Map(over))) => {
                let mut merged = below.clone();
                update(&mut merged, over, true, flag(lists, false));
                return Ok(Value::Map(merged));
            }
            (Some(Value::List(below)), Some(Value::List(over))) => {
                let mut merged = below.clone();
                for item in over {
                    if !below.contains(item) {
                        merged.push(item.clone());
                    }
                }
                return Ok(Value::List(merged));
            }
            _ => {}
        }
    }
    match found.or(default) {
        Some(value) => Ok(value.clone()),
        None if flag(site.context.opts.get("pillar_raise_on_missing"), false) => Err(error(format!("Pillar key not found: {key}"))),
        None => Ok(Value::str("")),
    }
}

fn by(
    data: &Map,
    lookup: Option<&Value>,
    key: &str,
    merge: Option<&Value>,
    default: Option<&Value>,
    base: Option<&Value>,
) -> Result<Value> {
    let Some(Value::Map(lookup)) = lookup else { return Err(error("filter_by needs a dictionary to look into")) };
    let word = Value::str("default");
    filter_by(&FilterBy { lookup, value: traverse_map(data, key, ":"), merge, default: default.unwrap_or(&word), base })
}

fn config_get(site: &Site, call: Call) -> Result<Value> {
    let [key, default, delimiter, strategy, omit_opts, omit_pillar, omit_master, omit_grains] =
        call.bind(["key", "default", "delimiter", "merge", "omit_opts", "omit_pillar", "omit_master", "omit_grains"], 1)?;
    let key = text(key);
    let delimiter = delimiter.map_or(":".into(), Value::to_text);
    let c = site.context;
    let empty = Map::new();
    let master = c.pillar.get("master").and_then(Value::as_map).unwrap_or(&empty);
    let default = || default.cloned().unwrap_or_else(|| Value::str(""));
    if let Some(strategy) = strategy.filter(|s| !s.is_null()) {
        let strategy = strategy.to_text();
        let mut all = Map::new();
        for layer in [master, &c.pillar, &c.grains, &c.opts] {
            all = merge(&all, layer, &strategy, false);
        }
        return Ok(traverse(&Value::Map(all), &key, &delimiter).cloned().unwrap_or_else(default));
    }
    let layers = [(omit_opts, &*c.opts), (omit_grains, &*c.grains), (omit_pillar, &*c.pillar), (omit_master, master)];
    let found = layers.into_iter().filter(|(omit, _)| !flag(*omit, false)).find_map(|(_, map)| traverse_map(map, &key, &delimiter));
    Ok(found.cloned().unwrap_or_else(default))
}

fn config_option(site: &Site, call: Call) -> Result<Value> {
    let [value, default, omit_opts, omit_grains, omit_pillar, omit_master, omit_all, wildcard] =
        call.bind(["value", "default", "omit_opts", "omit_grains", "omit_pillar", "omit_master", "omit_all", "wildcard"], 1)?;
    let key = text(value);
    let c = site.context;
    let all = flag(omit_all, false);
    let empty = Map::new();
    let master = c.pillar.get("master").and_then(Value::as_map).unwrap_or(&empty);
    let layers = [(omit_opts, &*c.opts), (omit_grains, &*c.grains), (omit_pillar, &*c.pillar), (omit_master, master)];
    let mut layers = layers.into_iter().filter(|(omit, _)| !all && !flag(*omit, false)).map(|(_, map)| map);
    if flag(wildcard, false) {
        let mut found = Map::new();
        for map in layers {
            for (k, v) in map.iter().filter(|(k, _)| crate::lang::glob::matches(&key, &k.to_text())) {
                found.0.get_or_insert_with(k, || v.clone());
            }
        }
        return Ok(if found.is_empty() { default.cloned().unwrap_or(Value::Map(found)) } else { Value::Map(found) });
    }
    Ok(layers.find_map(|map| map.get(&key)).or(default).cloned().unwrap_or_else(|| Value::str("")))
}
