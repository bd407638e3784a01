//! What the tree answers: `cp.*` and the paths of `slsutil`.

use std::collections::BTreeSet;

use super::{Call, Function, Site, error, hash, text};
use crate::diagnostic::Result;
use crate::value::Value;

pub const TABLE: &[(&str, Function)] = &[
    ("cp.list_master", |s, c| {
        let [saltenv, prefix] = c.bind(["saltenv", "prefix"], 0)?;
        let prefix = text(prefix);
        Ok(strings(s.templates.list(&env(s, saltenv)).into_iter().filter(|f| f.starts_with(&prefix))))
    }),
    ("cp.list_master_dirs", |s, c| {
        let [saltenv, prefix] = c.bind(["saltenv", "prefix"], 0)?;
        let prefix = text(prefix);
        Ok(strings(dirs(s, &env(s, saltenv)).into_iter().filter(|d| d.starts_with(&prefix))))
    }),
    ("cp.list_states", |s, c| {
        let [saltenv] = c.bind(["saltenv"], 0)?;
        let states = s.templates.list(&env(s, saltenv)).into_iter().filter_map(|f| {
            let name = f.strip_suffix(".sls")?;
            let name = name.strip_suffix("/init").unwrap_or(name);
            Some(name.replace('/', "."))
        });
        Ok(strings(states.collect::<BTreeSet<_>>()))
    }),
    ("cp.get_file_str", |s, c| {
        let [path, saltenv] = c.bind(["path", "saltenv"], 1)?;
        let (path, env) = split(s, &text(path), saltenv)?;
        Ok(s.templates.read(&env, &path).map_or(Value::Bool(false), |f| Value::str(&*f.text)))
    }),
    ("cp.hash_file", |s, c| {
        let [path, saltenv] = c.bind(["path", "saltenv"], 1)?;
        let (path, env) = split(s, &text(path), saltenv)?;
        let entry = |file: crate::lang::jinja::Source| {
            let sum = hash::sha256(file.text.as_bytes());
            [("hsum", Value::Str(sum)), ("hash_type", Value::str("sha256"))].into_iter().collect::<crate::value::Map>()
        };
        Ok(Value::Map(s.templates.read(&env, &path).map(entry).unwrap_or_default()))
    }),
    ("cmd.script", script),
    ("cmd.script_retcode", |s, c| Ok(script(s, c)?.as_map().and_then(|m| m.get("retcode")).cloned().unwrap_or_default())),
    ("slsutil.file_exists", |s, c| {
        let [path, saltenv] = c.bind(["path", "saltenv"], 1)?;
        Ok(Value::Bool(file_exists(s, &text(path), &saltenv.map_or("base".into(), Value::to_text))))
    }),
    ("slsutil.dir_exists", |s, c| {
        let [path, saltenv] = c.bind(["path", "saltenv"], 1)?;
        Ok(Value::Bool(dirs(s, &saltenv.map_or("base".into(), Value::to_text)).contains(&text(path))))
    }),
    ("slsutil.path_exists", |s, c| {
        let [path, saltenv] = c.bind(["path", "saltenv"], 1)?;
        let env = saltenv.map_or("base".into(), Value::to_text);
        Ok(Value::Bool(file_exists(s, &text(path), &env) || dirs(s, &env).contains(&text(path))))
    }),
    ("slsutil.findup", |s, c| {
        let [start, names, saltenv] = c.bind(["startpath", "filenames", "saltenv"], 2)?;
        let env = saltenv.map_or("base".into(), Value::to_text);
        let names: Vec<String> = match names {
            Some(Value::List(names)) => names.iter().map(Value::to_text).collect(),
            names => vec![text(names)],
        };
        let dirs = dirs(s, &env);
        let exists = |path: &str| file_exists(s, path, &env) || dirs.contains(path);
        let mut here = text(start).trim_matches('/').to_owned();
        if !here.is_empty() && !exists(&here) {
            return Err(error(format!("Starting path not found in the state tree: {here}")));
        }
        loop {
            let below = |name: &String| if here.is_empty() { name.clone() } else { format!("{here}/{name}") };
            if let Some(found) = names.iter().map(below).find(|path| exists(path)) {
                return Ok(Value::Str(found));
            }
            if here.is_empty() {
                return Err(error("File pattern(s) not found in path ancestry"));
            }
            here = here.rsplit_once('/').map_or(String::new(), |(up, _)| up.to_owned());
        }
    }),
];

/// The script comes from the tree, and the host runs it: it goes along with the call.
fn script(site: &Site, call: Call) -> Result<Value> {
    let source = call.args.first().or_else(|| call.kwargs.get("source")).map(Value::to_text);
    let source = source.ok_or_else(|| error(format!("{} needs the argument source", call.name)))?;
    let (path, env) = split(site, &source, call.kwargs.get("saltenv"))?;
    let file = site.templates.read(&env, &path).ok_or_else(|| error(format!("there is no file {source}")))?;
    let mut body = file.text.to_string();
    match call.kwargs.get("template").filter(|t| t.truthy()).map(Value::to_text).as_deref() {
        None => {}
        Some("jinja") => body = site.renderer.nested(&file.file, &body, &site.context.for_file(&path))?.text,
        Some(other) => return Err(error(format!("cmd.script renders with jinja only, not with {other}"))),
    }
    let mut kwargs = call.kwargs.clone();
    kwargs.insert("__script__", body);
    site.context.host.call("cmd.script", call.args, &kwargs)
}

fn strings(items: impl IntoIterator<Item = String>) -> Value {
    Value::List(items.into_iter().map(Value::Str).collect())
}

fn env(site: &Site, saltenv: Option<&Value>) -> String {
    saltenv.filter(|v| v.truthy()).map_or_else(|| site.context.saltenv.clone(), Value::to_text)
}

fn file_exists(site: &Site, path: &str, saltenv: &str) -> bool {
    site.templates.list(saltenv).iter().any(|f| f == path)
}

fn dirs(site: &Site, saltenv: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for file in site.templates.list(saltenv) {
        let mut path = file.as_str();
        while let Some((dir, _)) = path.rsplit_once('/') {
            if !all.insert(dir.to_owned()) {
                break;
            }
            path = dir;
        }
    }
    all
}

/// `salt://path?saltenv=env` as path and environment.
fn split(site: &Site, url: &str, saltenv: Option<&Value>) -> Result<(String, String)> {
    let path = url.strip_prefix("salt://").ok_or_else(|| error(format!("{url} is no salt:// path; other files are the host's")))?;
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let named = query.split('&').find_map(|p| p.strip_prefix("saltenv="));
    Ok((path.to_owned(), named.map_or_else(|| env(site, saltenv), str::to_owned)))
}
