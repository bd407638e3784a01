//! `match.*`: whether a target means this host, answered as targets are elsewhere. What is no target matches nothing, as with Salt.

use super::data::apply_merge;
use super::{Call, Function, Site, error, flag, text};
use crate::diagnostic::Result;
use crate::fleet::target::{Form, Target};
use crate::value::{Map, Value};

pub const TABLE: &[(&str, Function)] = &[
    ("match.compound", |s, c| by_id(s, c, Form::Compound)),
    ("match.glob", |s, c| by_id(s, c, Form::Glob)),
    ("match.pcre", |s, c| by_id(s, c, Form::Pcre)),
    ("match.list", |s, c| by_id(s, c, Form::List)),
    ("match.grain", |s, c| by_data(s, c, Form::Grain)),
    ("match.grain_pcre", |s, c| by_data(s, c, Form::GrainPcre)),
    ("match.pillar", |s, c| by_data(s, c, Form::Pillar)),
    ("match.pillar_pcre", |s, c| by_data(s, c, Form::PillarPcre)),
    ("match.ipcidr", |s, c| {
        let [target] = c.bind(["tgt"], 1)?;
        Ok(Value::Bool(means(s, Form::Ipcidr, target, ":", None)))
    }),
    ("match.filter_by", |s, c| {
        let [lookup, form, id, merge, lists, default] =
            c.bind(["lookup", "tgt_type", "minion_id", "merge", "merge_lists", "default"], 1)?;
        let form = form_of(form)?;
        let Some(Value::Map(lookup)) = lookup else { return Err(error("match.filter_by needs a dictionary to look into")) };
        let word = Value::str("default");
        match lookup.iter().find(|(target, _)| means(s, form, Some(target), ":", id)) {
            Some((_, value)) => apply_merge(Some(value.clone()), merge, flag(lists, false)),
            None => Ok(lookup.0.get(default.unwrap_or(&word)).cloned().unwrap_or_default()),
        }
    }),
    ("match.search_by", |s, c| {
        let [lookup, form, id] = c.bind(["lookup", "tgt_type", "minion_id"], 1)?;
        let form = form_of(form)?;
        let Some(Value::Map(lookup)) = lookup else { return Err(error("match.search_by needs a dictionary to look into")) };
        let mut found = Vec::new();
        for (key, targets) in lookup {
            let targets = targets.as_list().unwrap_or_default();
            found.extend(targets.iter().filter(|target| means(s, form, Some(target), ":", id)).map(|_| key.clone()));
        }
        Ok(if found.is_empty() { Value::Null } else { Value::List(found) })
    }),
    ("match.ifelse", |s, c| {
        let Some((default, pairs)) = c.args.split_last().filter(|(_, pairs)| pairs.len() % 2 == 0) else {
            return Err(error("The ifelse function must have an odd number of arguments!"));
        };
        let named = Call { args: &[], ..c };
        let [form, id, merge, lists] = named.bind(["tgt_type", "minion_id", "merge", "merge_lists"], 0)?;
        let form = form_of(form)?;
        for pair in pairs.chunks_exact(2) {
            let [target, value] = pair else { continue };
            let matched = match target {
                Value::Bool(always) => *always,
                target => means(s, form, Some(target), ":", id),
            };
            if matched {
                return apply_merge(Some(value.clone()), merge, flag(lists, false));
            }
        }
        Ok(default.clone())
    }),
];

fn by_id(site: &Site, call: Call, form: Form) -> Result<Value> {
    let [target, id] = call.bind(["tgt", "minion_id"], 1)?;
    Ok(Value::Bool(means(site, form, target, ":", id)))
}

fn by_data(site: &Site, call: Call, form: Form) -> Result<Value> {
    let [target, delimiter] = call.bind(["tgt", "delimiter"], 1)?;
    Ok(Value::Bool(means(site, form, target, &delimiter.map_or(":".into(), Value::to_text), None)))
}

/// Names of this module's functions, as `tgt_type` has them.
fn form_of(name: Option<&Value>) -> Result<Form> {
    match name.map(Value::to_text).as_deref() {
        None => Ok(Form::Compound),
        Some("list_") => Ok(Form::List),
        Some(name) => Form::from_salt(name),
    }
}

fn means(site: &Site, form: Form, target: Option<&Value>, delimiter: &str, id: Option<&Value>) -> bool {
    let empty = Map::new();
    let nodegroups = site.context.opts.get("nodegroups").and_then(Value::as_map).unwrap_or(&empty);
    let id = text(id.filter(|id| id.truthy()).or(site.context.grains.get("id")).or(site.context.opts.get("id")));
    if let (Form::List, Some(Value::List(ids))) = (form, target) {
        return ids.iter().any(|one| one.to_text() == id);
    }
    let parsed = Target::delimited(form, &text(target), delimiter, nodegroups);
    parsed.and_then(|target| target.matches(&id, &site.context.grains, &site.context.pillar)).unwrap_or(false)
}
