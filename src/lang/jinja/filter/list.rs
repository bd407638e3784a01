//! Filters on sequences and mappings: Jinja2's, and Salt's set arithmetic.

use std::cmp::Ordering;

use minijinja::{Error, State, Value};

use super::{Filter, flag, number_of, text_of};
use crate::budget;
use crate::lang::jinja::call::Args;
use crate::lang::jinja::method;
use crate::lang::jinja::operate::{self, too_long, too_many};
use crate::lang::jinja::python;
use crate::lang::jinja::value::{Done, List, Series, Tuple, Undefined, View, defined, fail, is_undefined, view};

pub const TABLE: &[(&str, Filter)] = &[
    ("length", |_, v, a| a.bind::<0>("length", [], 0).and_then(|_| python::length(v)).map(Value::from)),
    ("count", |_, v, a| a.bind::<0>("count", [], 0).and_then(|_| python::length(v)).map(Value::from)),
    ("list", |_, v, _| python::iterate(v).map(List::value)),
    ("first", |_, v, _| {
        let first = python::iterate(v)?.into_iter().next();
        Ok(first.unwrap_or_else(|| Undefined::value("No first item, sequence was empty.")))
    }),
    ("last", |_, v, _| {
        let last = python::iterate(v)?.pop();
        Ok(last.unwrap_or_else(|| Undefined::value("No last item, sequence was empty.")))
    }),
    ("random", |state, v, _| {
        let items = python::iterate(v)?;
        if items.is_empty() {
            return Ok(Undefined::value("No random item, sequence was empty."));
        }
        // The same item for the same host and list: a plan must not change by being made again.
        let run = crate::lang::jinja::run::current(state)?;
        let id = run.context.grains.get("id").map(ToString::to_string).unwrap_or_default();
        let sum = crate::lang::function::hash::md5(format!("{id}{}", python::repr(v)).as_bytes());
        let pick = u64::from_str_radix(sum.get(..12).unwrap_or("0"), 16).unwrap_or(0) as usize;
        Ok(items.get(pick % items.len()).cloned().unwrap_or_default())
    }),
    ("reverse", |_, v, _| match view(v) {
        View::Str(s) => Ok(Value::from(s.chars().rev().collect::<String>())),
        _ => {
            let mut items = python::iterate(v)?;
            items.reverse();
            Ok(Series::generator(items))
        }
    }),
    ("join", join),
    ("sort", sort),
    ("dictsort", dictsort),
    ("items", |_, v, _| match view(v) {
        View::Dict(dict) => Ok(Series::generator(dict.items().into_iter().map(|(k, v)| Tuple::value(vec![k, v])).collect())),
        // Jinja2's own rule: what is not there has no pairs, even where undefined values are errors.
        View::Undefined(_) => Ok(Series::generator(Vec::new())),
        _ => Err(fail("Can only get item pairs from a mapping.")),
    }),
    ("unique", |_, v, a| {
        a.bind::<0>("unique", [], 0)?;
        let items = unique(&python::iterate(v)?);
        Ok(if matches!(view(v), View::List(_)) { List::value(items) } else { Series::generator(items) })
    }),
    ("min", |_, v, a| extreme(v, a, Ordering::Less, "min")),
    ("max", |_, v, a| extreme(v, a, Ordering::Greater, "max")),
    ("avg", |_, v, _| match python::number(v) {
        Some(_) => operate::divide(v, &Value::from(1)),
        None => operate::divide(&total(&python::iterate(v)?, Value::from(0))?, &Value::from(python::length(v)?)),
    }),
    ("sum", |_, v, a| {
        let [attribute, start] = a.bind("sum", ["attribute", "start"], 0)?;
        let mut items = python::iterate(v)?;
        if let Some(attribute) = attribute.filter(|a| !a.is_none()) {
            items = items.iter().map(|i| get(i, &attribute)).collect::<Result<_, _>>()?;
        }
        total(&items, start.unwrap_or_else(|| Value::from(0)))
    }),
    ("map", map),
    ("select", |state, v, a| select(state, v, a, true, false)),
    ("reject", |state, v, a| select(state, v, a, false, false)),
    ("selectattr", |state, v, a| select(state, v, a, true, true)),
    ("rejectattr", |state, v, a| select(state, v, a, false, true)),
    ("groupby", groupby),
    ("batch", |_, v, a| {
        let [size, fill] = a.bind("batch", ["linecount", "fill_with"], 1)?;
        let size = usize::try_from(number_of(size.as_ref(), 1, "linecount")?).unwrap_or(0).max(1);
        let items = python::iterate(v)?;
        let mut rows: Vec<Vec<Value>> = items.chunks(size).map(<[Value]>::to_vec).collect();
        if let (Some(fill), Some(last)) = (fill.filter(|f| !f.is_none()), rows.last_mut()) {
            too_many(size)?;
            last.resize(size, fill);
        }
        Ok(Series::generator(rows.into_iter().map(List::value).collect()))
    }),
    ("slice", |_, v, a| {
        let [slices, fill] = a.bind("slice", ["slices", "fill_with"], 1)?;
        let slices = usize::try_from(number_of(slices.as_ref(), 1, "slices")?).unwrap_or(0).clamp(1, 1_000_000);
        let items = python::iterate(v)?;
        let (size, extra) = (items.len() / slices, items.len() % slices);
        let (mut at, mut rows) = (0, Vec::new());
        for i in 0..slices {
            let length = size + usize::from(i < extra);
            let mut row: Vec<Value> = items.iter().skip(at).take(length).cloned().collect();
            at += length;
            if let Some(fill) = fill.as_ref().filter(|f| !f.is_none() && i >= extra && extra > 0) {
                row.push(fill.clone());
            }
            rows.push(List::value(row));
        }
        Ok(Series::generator(rows))
    }),
    ("attr", |_, v, a| {
        let [name] = a.bind("attr", ["name"], 1)?;
        let name = text_of(&name.unwrap_or_default());
        if matches!(view(v), View::Dict(_)) && !method::exists(v, &name) {
            return Ok(Undefined::value(format!("{} has no attribute {}", python::owner(v), python::quote(&name))));
        }
        operate::attribute(v, &name)
    }),
    ("flatten", |_, v, a| {
        let [levels, nulls] = a.bind("flatten", ["levels", "preserve_nulls"], 0)?;
        let levels = levels.filter(|l| !l.is_none());
        let levels = levels.map(|l| number_of(Some(&l), 0, "levels")).transpose()?;
        let mut out = Vec::new();
        flatten(&python::iterate(v)?, levels, flag(nulls.as_ref(), false), &mut out, 0)?;
        Ok(List::value(out))
    }),
    ("union", |_, v, a| {
        let [other] = a.bind("union", ["lst2"], 1)?;
        let mut all = python::iterate(v)?;
        all.extend(python::iterate(&other.unwrap_or_default())?);
        Ok(List::value(unique(&all)))
    }),
    ("intersect", |_, v, a| {
        let other = other(a, "intersect")?;
        Ok(List::value(unique(&python::iterate(v)?.into_iter().filter(|i| has(&other, i)).collect::<Vec<_>>())))
    }),
    ("difference", |_, v, a| {
        let other = other(a, "difference")?;
        Ok(List::value(unique(&python::iterate(v)?.into_iter().filter(|i| !has(&other, i)).collect::<Vec<_>>())))
    }),
    ("symmetric_difference", |_, v, a| {
        let (mine, other) = (python::iterate(v)?, other(a, "symmetric_difference")?);
        let all = mine.iter().chain(&other).filter(|i| has(&mine, i) != has(&other, i)).cloned().collect::<Vec<_>>();
        Ok(List::value(unique(&all)))
    }),
    ("zip", |_, v, a| zip(v, a, false)),
    ("zip_longest", |_, v, a| zip(v, a, true)),
    ("product", |_, v, a| {
        let mut rows = vec![Vec::new()];
        for items in std::iter::once(v).chain(&a.positional) {
            let items = python::iterate(items)?;
            too_long(rows.len().saturating_mul(items.len()).saturating_mul(64))?;
            rows = rows.iter().flat_map(|row| items.iter().map(move |i| row.iter().chain([i]).cloned().collect::<Vec<_>>())).collect();
        }
        Ok(Series::generator(rows.into_iter().map(Tuple::value).collect()))
    }),
    ("combinations", |_, v, a| choose(v, a, false)),
    ("permutations", |_, v, a| choose(v, a, true)),
    ("compress", |_, v, a| {
        let [selectors] = a.bind("compress", ["selectors"], 1)?;
        let selectors = python::iterate(&selectors.unwrap_or_default())?;
        let kept = python::iterate(v)?.into_iter().zip(selectors).filter(|(_, s)| s.is_true()).map(|(i, _)| i).collect();
        Ok(Series::generator(kept))
    }),
    ("sorted_ignorecase", |_, v, _| {
        let mut items = python::iterate(v)?;
        items.sort_by_key(|i| text_of(i).to_lowercase());
        Ok(List::value(items))
    }),
];

fn other(args: Args, name: &str) -> Result<Vec<Value>, Error> {
    let [other] = args.bind(name, ["lst2"], 1)?;
    python::iterate(&other.unwrap_or_default())
}

fn has(items: &[Value], item: &Value) -> bool {
    items.iter().take_while(|_| budget::work(1)).any(|i| python::equal(i, item))
}

pub fn unique(items: &[Value]) -> Vec<Value> {
    let mut seen = indexmap::IndexSet::new();
    let mut out: Vec<Value> = Vec::new();
    for item in items.iter().take_while(|_| budget::work(1)) {
        let fresh =
            if python::hashable(item).is_ok() { seen.insert(crate::lang::jinja::value::Key(item.clone())) } else { !has(&out, item) };
        if fresh {
            out.push(item.clone());
        }
    }
    out
}

fn total(items: &[Value], start: Value) -> Done {
    items.iter().try_fold(start, |sum, item| operate::add(&sum, item))
}

/// An attribute path (`a.b.0`) or an index of an item, as `attribute=` takes it.
fn get(item: &Value, attribute: &Value) -> Done {
    let Some(path) = attribute.as_str() else { return operate::item(item, attribute) };
    let mut value = item.clone();
    for part in path.split('.') {
        let key = part.parse::<i64>().map_or_else(|_| Value::from(part), Value::from);
        value = operate::item(&value, &key)?;
    }
    Ok(value)
}

/// Text compares without case unless asked otherwise.
fn folded(value: Value, case_sensitive: bool) -> Value {
    match value.as_str() {
        Some(text) if !case_sensitive => Value::from(text.to_lowercase()),
        _ => value,
    }
}

fn join(_: &mut State<'_, '_>, value: &Value, args: Args) -> Done {
    let [separator, attribute] = args.bind("join", ["d", "attribute"], 0)?;
    let separator = separator.as_ref().map_or(String::new(), text_of);
    let mut out = String::new();
    for (i, item) in python::iterate(value)?.iter().enumerate() {
        let item = match attribute.as_ref().filter(|a| !a.is_none()) {
            Some(attribute) => get(item, attribute)?,
            None => item.clone(),
        };
        defined(&item)?;
        if i > 0 {
            out.push_str(&separator);
        }
        out.push_str(&text_of(&item));
        too_long(out.len())?;
    }
    Ok(Value::from(out))
}

/// Sorts items by keys made for them.
fn sort_by_keys(items: Vec<Value>, keys: Vec<Value>, reverse: bool) -> Result<Vec<Value>, Error> {
    let mut pairs: Vec<(Value, Value)> = keys.into_iter().zip(items).collect();
    let mut problem = None;
    python::sort_by(&mut pairs, |(a, _), (b, _)| match python::order(a, b, "<") {
        Ok(order) => {
            let order = order.unwrap_or(Ordering::Equal);
            if reverse { order.reverse() } else { order }
        }
        Err(e) => {
            problem.get_or_insert(e);
            Ordering::Equal
        }
    });
    match problem {
        Some(problem) => Err(problem),
        None => Ok(pairs.into_iter().map(|(_, item)| item).collect()),
    }
}

fn sort(_: &mut State<'_, '_>, value: &Value, args: Args) -> Done {
    let [reverse, case_sensitive, attribute] = args.bind("sort", ["reverse", "case_sensitive", "attribute"], 0)?;
    let items = python::iterate(value)?;
    let case_sensitive = flag(case_sensitive.as_ref(), false);
    let attributes: Vec<Value> = match attribute.filter(|a| !a.is_none()) {
        Some(a) => match a.as_str() {
            Some(text) => text.split(',').map(Value::from).collect(),
            None => vec![a],
        },
        None => Vec::new(),
    };
    let key = |item: &Value| -> Done {
        if attributes.is_empty() {
            return Ok(folded(item.clone(), case_sensitive));
        }
        // What is not there cannot be compared; with a single item nothing is.
        let there = |v: Value| if items.len() > 1 { defined(&v).map(|()| v) } else { Ok(v) };
        let parts = attributes.iter().map(|a| get(item, a).and_then(there).map(|v| folded(v, case_sensitive)));
        Ok(Tuple::value(parts.collect::<Result<_, _>>()?))
    };
    let keys = items.iter().map(key).collect::<Result<Vec<_>, _>>()?;
    sort_by_keys(items, keys, flag(reverse.as_ref(), false)).map(List::value)
}

fn dictsort(_: &mut State<'_, '_>, value: &Value, args: Args) -> Done {
    let [case_sensitive, by, reverse] = args.bind("dictsort", ["case_sensitive", "by", "reverse"], 0)?;
    let by = by.as_ref().map_or("key".to_owned(), text_of);
    let position = match by.as_str() {
        "key" => 0,
        "value" => 1,
        _ => return Err(fail("You can only sort by either \"key\" or \"value\"")),
    };
    let View::Dict(dict) = view(value) else {
        return Err(fail(format!("'{}' object has no attribute 'items'", python::type_name(value))));
    };
    let pairs = dict.items();
    let sensitive = flag(case_sensitive.as_ref(), false);
    let keys = pairs.iter().map(|(k, v)| folded(if position == 0 { k.clone() } else { v.clone() }, sensitive)).collect();
    let items = pairs.into_iter().map(|(k, v)| Tuple::value(vec![k, v])).collect();
    sort_by_keys(items, keys, flag(reverse.as_ref(), false)).map(List::value)
}

/// Salt's `min` and `max` are Python's own.
fn extreme(value: &Value, args: Args, wanted: Ordering, name: &str) -> Done {
    args.bind::<0>(name, [], 0)?;
    let mut best: Option<Value> = None;
    for item in python::iterate(value)? {
        let better = match &best {
            Some(best) => python::order(&item, best, if wanted == Ordering::Less { "<" } else { ">" })? == Some(wanted),
            None => true,
        };
        if better {
            best = Some(item);
        }
    }
    best.ok_or_else(|| fail(format!("{name}() iterable argument is empty")))
}

fn map(state: &mut State<'_, '_>, value: &Value, args: Args) -> Done {
    let items = python::iterate(value)?;
    let mut out = Vec::with_capacity(items.len());
    if args.positional.is_empty() {
        let [attribute, default] = args.bind("map", ["attribute", "default"], 0)?;
        let attribute = attribute.ok_or_else(|| fail("map requires a filter argument"))?;
        for item in &items {
            let found = get(item, &attribute)?;
            out.push(match &default {
                Some(default) if is_undefined(&found) => default.clone(),
                _ => found,
            });
        }
        return Ok(Series::generator(out));
    }
    let mut rest = args.positional;
    let name = text_of(&rest.remove(0));
    let filter = super::by_name(&name)?;
    for item in &items {
        let args = Args { positional: rest.clone(), named: args.named.clone() };
        out.push(super::apply(state, &name, filter, item, args)?);
    }
    Ok(Series::generator(out))
}

fn select(state: &mut State<'_, '_>, value: &Value, args: Args, keep: bool, by_attribute: bool) -> Done {
    let mut rest = args.positional;
    let attribute = match by_attribute {
        true if rest.is_empty() => return Err(fail("Missing parameter for attribute name")),
        true => Some(rest.remove(0)),
        false => None,
    };
    let test = if rest.is_empty() { None } else { Some(crate::lang::jinja::test::by_name(&text_of(&rest.remove(0)))?) };
    let mut out = Vec::new();
    for item in python::iterate(value)? {
        let subject = match &attribute {
            Some(attribute) => get(&item, attribute)?,
            None => item.clone(),
        };
        let passes = match test {
            Some(test) => test(state, &subject, Args { positional: rest.clone(), named: args.named.clone() })?,
            None => python::truth(&subject)?,
        };
        if passes == keep {
            out.push(item);
        }
    }
    Ok(Series::generator(out))
}

fn groupby(_: &mut State<'_, '_>, value: &Value, args: Args) -> Done {
    let [attribute, default, case_sensitive] = args.bind("groupby", ["attribute", "default", "case_sensitive"], 1)?;
    let attribute = attribute.unwrap_or_default();
    let sensitive = flag(case_sensitive.as_ref(), false);
    let items = python::iterate(value)?;
    let key = |item: &Value| -> Done {
        let found = get(item, &attribute)?;
        Ok(match &default {
            Some(default) if is_undefined(&found) => default.clone(),
            _ => found,
        })
    };
    let keys = items.iter().map(|i| key(i).map(|k| folded(k, sensitive))).collect::<Result<Vec<_>, _>>()?;
    let sorted = sort_by_keys(items, keys, false)?;
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for item in sorted {
        let here = key(&item)?;
        match groups.last_mut() {
            Some((last, group)) if python::equal(&folded(last.clone(), sensitive), &folded(here.clone(), sensitive)) => group.push(item),
            _ => groups.push((here, vec![item])),
        }
    }
    Ok(List::value(groups.into_iter().map(|(k, g)| Tuple::value(vec![k, List::value(g)])).collect()))
}

fn flatten(items: &[Value], levels: Option<i64>, nulls: bool, out: &mut Vec<Value>, depth: usize) -> Result<(), Error> {
    if depth > python::DEEPEST {
        return Err(fail("Reference cycle detected. Check input list."));
    }
    for item in items.iter().take_while(|_| budget::work(1)) {
        let is_null = item.is_none() || matches!(item.as_str(), Some("None" | "null"));
        let is_sequence = python::is_iterable(item) && !matches!(view(item), View::Str(_));
        if is_null && !nulls {
            continue;
        }
        match levels {
            _ if !is_sequence => out.push(item.clone()),
            Some(levels) if levels < 1 => out.push(item.clone()),
            levels => flatten(&python::iterate(item)?, levels.map(|l| l - 1), nulls, out, depth + 1)?,
        }
    }
    Ok(())
}

fn zip(value: &Value, args: Args, longest: bool) -> Done {
    let fill = args.named.iter().find(|(n, _)| n == "fillvalue").map_or(Value::from(()), |(_, v)| v.clone());
    let columns = std::iter::once(value).chain(&args.positional).map(python::iterate).collect::<Result<Vec<_>, _>>()?;
    let lengths = columns.iter().map(Vec::len);
    let rows = if longest { lengths.max() } else { lengths.min() }.unwrap_or(0);
    let row = |i: usize| Tuple::value(columns.iter().map(|c| c.get(i).cloned().unwrap_or_else(|| fill.clone())).collect());
    Ok(Series::generator((0..rows).map(row).collect()))
}

/// Combinations or permutations of `r` items.
fn choose(value: &Value, args: Args, ordered: bool) -> Done {
    let [r] = args.bind("combinations", ["r"], usize::from(!ordered))?;
    let items = python::iterate(value)?;
    let r = match r {
        Some(r) => usize::try_from(number_of(Some(&r), 0, "r")?).map_err(|_| fail("r must be non-negative"))?,
        None => items.len(),
    };
    let mut rows: Vec<Vec<usize>> = vec![Vec::new()];
    for _ in 0..r {
        let mut next = Vec::new();
        for row in &rows {
            let from = if ordered { 0 } else { row.last().map_or(0, |l| l + 1) };
            for i in (from..items.len()).filter(|i| !ordered || !row.contains(i)) {
                next.push(row.iter().copied().chain([i]).collect::<Vec<_>>());
            }
            too_long(next.len().saturating_mul(64 * r))?;
        }
        rows = next;
    }
    Ok(Series::generator(
        rows.into_iter().map(|row| Tuple::value(row.into_iter().filter_map(|i| items.get(i).cloned()).collect())).collect(),
    ))
}
