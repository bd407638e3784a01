//! How Salt walks through data and merges it.

use super::error;
use crate::diagnostic::Result;
use crate::lang::glob;
use crate::value::{Map, Value};

/// `traverse_dict_and_list`: in a list, a dict that has the key comes before the index; a key may be read as a number.
pub fn traverse<'a>(value: &'a Value, key: &str, delimiter: &str) -> Option<&'a Value> {
    if delimiter.is_empty() {
        return step(value, key);
    }
    key.split(delimiter).try_fold(value, step)
}

/// The same for a map that is no value yet.
pub fn traverse_map<'a>(map: &'a Map, key: &str, delimiter: &str) -> Option<&'a Value> {
    if delimiter.is_empty() {
        return in_map(map, key);
    }
    let mut parts = key.split(delimiter);
    let first = in_map(map, parts.next()?)?;
    parts.try_fold(first, step)
}

fn in_map<'a>(map: &'a Map, part: &str) -> Option<&'a Value> {
    map.get(part).or_else(|| {
        let loaded = crate::yaml::load(part, "<key>").ok()?;
        map.0.get(&loaded)
    })
}

fn step<'a>(here: &'a Value, part: &str) -> Option<&'a Value> {
    match here {
        Value::Map(map) => in_map(map, part),
        Value::List(items) => {
            let index = part.trim().parse::<i64>().ok();
            let key = index.map_or_else(|| Value::str(part), Value::Int);
            let inside = items.iter().find_map(|item| item.as_map().and_then(|m| m.0.get(&key)));
            inside.or_else(|| {
                let index = index?;
                let at = if index < 0 { index + items.len() as i64 } else { index };
                items.get(usize::try_from(at).ok()?)
            })
        }
        _ => None,
    }
}

/// `dictupdate.update`: `new` over `old`; dicts merge, lists are replaced or joined.
pub fn update(old: &mut Map, new: &Map, recursive: bool, merge_lists: bool) {
    for (key, value) in new {
        match (old.0.get_mut(key), value) {
            (Some(Value::Map(below)), Value::Map(above)) if recursive => update(below, above, true, merge_lists),
            (Some(Value::List(below)), Value::List(above)) if recursive && merge_lists => {
                for item in above {
                    if !below.contains(item) {
                        below.push(item.clone());
                    }
                }
            }
            (_, value) => drop(old.0.insert(key.clone(), value.clone())),
        }
    }
}

/// `dictupdate.merge` with its strategies.
pub fn merge(a: &Map, b: &Map, strategy: &str, merge_lists: bool) -> Map {
    let mut merged = a.clone();
    match strategy {
        "list" => {
            for (key, value) in &mut merged.0 {
                if let Some(other) = b.0.get(key) {
                    *value = Value::List(vec![std::mem::take(value), other.clone()]);
                }
            }
        }
        "overwrite" => {
            for (key, value) in b {
                if let Some(place) = merged.0.get_mut(key) {
                    *place = value.clone();
                }
            }
            update(&mut merged, b, true, merge_lists);
        }
        "aggregate" => aggregate(&mut merged, b, 1),
        _ => update(&mut merged, b, true, merge_lists),
    }
    merged
}

/// The merge of yamlex: dicts merge, lists are joined, down to a level.
fn aggregate(old: &mut Map, new: &Map, level: usize) {
    for (key, value) in new {
        match (old.0.get_mut(key), value) {
            (Some(Value::Map(below)), Value::Map(above)) if level > 0 => aggregate(below, above, level),
            (Some(Value::List(below)), Value::List(above)) if level > 1 => below.extend(above.iter().cloned()),
            (Some(place), value) => *place = value.clone(),
            (None, value) => {
                old.0.insert(key.clone(), value.clone());
            }
        }
    }
}

/// What `grains.filter_by`, `pillar.filter_by` and `match.filter_by` share.
pub struct FilterBy<'a> {
    pub lookup: &'a Map,
    pub value: Option<&'a Value>,
    pub merge: Option<&'a Value>,
    pub default: &'a Value,
    pub base: Option<&'a Value>,
}

pub fn filter_by(f: &FilterBy) -> Result<Value> {
    let single;
    let values: &[Value] = match f.value {
        Some(Value::List(values)) => values,
        Some(value) => {
            single = [value.clone()];
            &single
        }
        None => &[],
    };
    let mut found = None;
    'values: for value in values {
        let text = value.to_text();
        for (key, candidate) in f.lookup {
            if glob::matches(&key.to_text(), &text) {
                if candidate.is_null() {
                    break;
                }
                found = Some(candidate.clone());
                break 'values;
            }
        }
    }
    let mut result = found.or_else(|| f.lookup.0.get(f.default).cloned()).filter(|v| !v.is_null());
    if let Some(base) = f.base.filter(|b| b.truthy()).and_then(|b| f.lookup.0.get(b)) {
        result = Some(match (base, result) {
            (base, None) => base.clone(),
            (Value::Map(base), Some(Value::Map(over))) => {
                let mut merged = base.clone();
                update(&mut merged, &over, true, false);
                Value::Map(merged)
            }
            (Value::Map(_), Some(_)) => return Err(error("filter_by default and look-up values must both be dictionaries.")),
            (_, Some(other)) => other,
        });
    }
    apply_merge(result, f.merge, false)
}

/// Lays the `merge` argument over what was found.
pub fn apply_merge(found: Option<Value>, merge: Option<&Value>, merge_lists: bool) -> Result<Value> {
    let Some(merge) = merge.filter(|m| m.truthy()) else { return Ok(found.unwrap_or_default()) };
    let Value::Map(over) = merge else { return Err(error("filter_by merge argument must be a dictionary.")) };
    match found {
        None | Some(Value::Null) => Ok(merge.clone()),
        Some(Value::Map(mut below)) => {
            update(&mut below, over, true, merge_lists);
            Ok(Value::Map(below))
        }
        Some(_) => Err(error("Cannot update using non-dict types in dictupdate.update()")),
    }
}
