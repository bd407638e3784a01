//! Processes in a state repository: the edits by which they come, go, start and stop.

use std::collections::{BTreeMap, BTreeSet};

use super::cluster;
use super::commit::Edit;
use super::lone;
use super::repository::Snapshot;
use crate::diagnostic::{Code, Diagnostic, Result, nearest};
use crate::fleet::process::{FILE, Process, ProcessRole, Processes, path_of, placed, roles, to_value};
use crate::lang::jinja::dump::yaml;
use crate::value::{Map, Value};

/// A role as it is for a node: `grains` are its facts, `overrides` go before all else.
fn role_of(snapshot: &Snapshot, role: &str, node: &str, address: &str, grains: &Map, overrides: &Map) -> Result<ProcessRole> {
    let Some(file) = snapshot.read(FILE)? else {
        return Err(Diagnostic::new(Code::Repository, format!("there is no {FILE} in {}", snapshot.name))
            .hint("it says which processes a role stands for; docs/guide.md has an example")
            .into());
    };
    let mut names: Map = [("node", node), ("address", address)].into_iter().collect();
    names.insert("multiplicity", 1);
    overrides.iter().for_each(|(name, value)| drop(names.insert(name.clone(), value.clone())));
    let template = String::from_utf8_lossy(&file.bytes);
    let words: BTreeSet<&str> = template.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    if let Some(name) = overrides.0.keys().filter_map(Value::as_str).find(|name| !words.contains(name)) {
        let fault = Diagnostic::new(Code::Usage, format!("{FILE} asks nowhere for {name:?}: overriding it would change nothing"));
        return Err(match nearest(name, words.iter().copied().filter(|word| word.len() > 2)) {
            Some(near) => fault.hint(format!("did you mean {near:?}?")),
            None => fault.hint("the template says what can be overridden: {{ multiplicity }}"),
        }
        .into());
    }
    let text = lone::render(FILE, &template, grains.clone(), names)?;
    let all = roles(&text, FILE)?;
    let known: Vec<String> = all.iter().map(|role| role.name.clone()).collect();
    all.into_iter().find(|found| found.name == role).ok_or_else(|| {
        let fault = Diagnostic::new(Code::Usage, format!("{FILE} has no role {role:?}"));
        match nearest(role, known.iter().map(String::as_str)) {
            Some(near) => fault.hint(format!("did you mean {near:?}?")),
            None => fault.hint(format!("there are {}", known.join(", "))),
        }
        .into()
    })
}

/// What is added to a node.
pub struct Wish<'a> {
    pub node: &'a str,
    pub role: &'a str,
    pub grains: &'a Map,
    pub overrides: &'a Map,
    pub managed: bool,
}

/// The processes of a role come to a node. Why each is as it is stands in the commit.
pub fn add(snapshot: &Snapshot, wish: &Wish<'_>) -> Result<(Edit, Vec<Process>, Vec<String>)> {
    let cluster = cluster::read(snapshot)?;
    let node = cluster.node(wish.node)?;
    if node.cordoned {
        return Err(Diagnostic::new(Code::Usage, format!("{} is cordoned: nothing new comes to it", wish.node))
            .hint(format!("`basalt node uncordon {}`", wish.node))
            .into());
    }
    let role = role_of(snapshot, wish.role, wish.node, &node.host.address, wish.grains, wish.overrides)?;
    let (made, said) = placed(&role, wish.node, wish.managed, &cluster.processes)?;
    let mut all = cluster.processes.get(wish.node).cloned().unwrap_or_default();
    all.extend(made.iter().cloned());
    let message = format!("Add the role {} to {}\n\n{}", wish.role, wish.node, said.join("\n"));
    Ok((edit(message.trim(), &cluster.processes, BTreeMap::from([(wish.node.to_owned(), all)]))?, made, said))
}

/// Managed processes are to be online, or not.
pub fn turn(snapshot: &Snapshot, ids: &[String], online: bool, why: &str) -> Result<Edit> {
    change(snapshot, ids, why, |process| {
        process.online = online;
        true
    })
}

/// They go.
pub fn remove(snapshot: &Snapshot, ids: &[String], why: &str) -> Result<Edit> {
    change(snapshot, ids, why, |_| false)
}

fn change(snapshot: &Snapshot, ids: &[String], why: &str, stays: impl Fn(&mut Process) -> bool) -> Result<Edit> {
    let there = cluster::read(snapshot)?.processes;
    let mut changed: Processes =
        there.iter().filter(|(_, list)| list.iter().any(|p| ids.contains(&p.id))).map(|(n, l)| (n.clone(), l.clone())).collect();
    for list in changed.values_mut() {
        list.retain_mut(|process| !ids.contains(&process.id) || stays(process));
    }
    edit(why, &there, changed)
}

/// The files of nodes as they are to be; what does not change is not written.
fn edit(message: &str, there: &Processes, changed: Processes) -> Result<Edit> {
    let mut files = BTreeMap::new();
    for (node, list) in changed {
        if there.get(&node).is_some_and(|old| *old == list) {
            continue;
        }
        let text = if list.is_empty() {
            None
        } else {
            Some(format!("# Written by `basalt process`.\n{}", yaml(&to_value(&list), Some(false), true)?))
        };
        files.insert(path_of(&node), text);
    }
    Ok(Edit { message: message.to_owned(), files })
}
