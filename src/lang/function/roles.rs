//! `cluster_roles.recalculate(current_nodes, new_node)`, by the Eos design's name `eos_roles.recalculate`: the roles that nodes should have, as orchestrations
//! ask for them.
//!
//! `current_nodes` is what the mine gives: ids with a mapping each (`role`, `preferred_role`, `joined`, `resources` with `cpu_cores`, `memory_gb` and `storage_gb`,
//! or the grains `num_cpus` and `mem_total`), or with the role alone. `new_node` is such a mapping with `hostname` (or `id`), or nothing. The answer has the
//! role of each node; its `scale` is an attribute and no item.

use super::{Call, Function, Site, error};
use crate::diagnostic::Result;
use crate::fleet::role::{Member, Resources, Role, Scale, assign};
use crate::value::{Map, Value};

pub const TABLE: &[(&str, Function)] = &[(NAMES[0], recalculate), (NAMES[1], recalculate)];

const NAMES: [&str; 2] = ["cluster_roles.recalculate", "eos_roles.recalculate"];

/// The scale of a cluster whose roles such a function gave.
pub fn scale_of(function: &str, roles: &Value) -> Option<&'static str> {
    let nodes = roles.as_map().filter(|_| NAMES.contains(&function))?;
    Some(Scale::of(nodes.0.len()).name())
}

fn recalculate(_: &Site<'_>, call: Call<'_>) -> Result<Value> {
    let [current, newcomer, rebalance] = call.bind(["current_nodes", "new_node", "rebalance"], 1)?;
    let mut nodes = Vec::new();
    match current {
        Some(Value::Map(map)) => {
            for (id, found) in map {
                nodes.push(node(&id.to_text(), found)?);
            }
        }
        None | Some(Value::Null) => {}
        Some(other) => return Err(error(format!("current_nodes is a mapping of nodes, and this is {}", other.kind()))),
    }
    // Who does not say when it joined stands behind those who do.
    nodes.sort_by(|(a, _), (b, _)| (a.is_empty(), a).cmp(&(b.is_empty(), b)));
    let mut members: Vec<Member> = nodes.into_iter().map(|(_, member)| member).collect();
    match newcomer {
        None | Some(Value::Null) => {}
        Some(Value::Map(map)) => {
            let id = map.get("hostname").or_else(|| map.get("id")).map(Value::to_text).filter(|id| !id.is_empty());
            let id = id.ok_or_else(|| error("new_node has no `hostname`"))?;
            let member = node(&id, &Value::Map(map.clone()))?.1;
            // What it has been elsewhere does not count.
            members.retain(|other| other.id != id);
            members.push(Member { role: None, ..member });
        }
        Some(Value::Str(id)) => members.push(Member { id: id.clone(), role: None, preferred: None, resources: None }),
        Some(other) => return Err(error(format!("new_node is a mapping, and this is {}", other.kind()))),
    }
    let roles = assign(&members, rebalance.is_none_or(Value::truthy));
    Ok(Value::Map(roles.into_iter().map(|node| (node.id, Value::str(node.role.name()))).collect()))
}

/// When it joined, and what it is.
fn node(id: &str, found: &Value) -> Result<(String, Member)> {
    let empty = Map::new();
    let (map, role) = match found {
        Value::Map(map) => (map, map.get("role")),
        Value::Null => (&empty, None),
        role => (&empty, Some(role)),
    };
    let role_of = |value: Option<&Value>| -> Result<Option<Role>> {
        match value.map(Value::to_text).filter(|name| !name.is_empty() && name != "None") {
            Some(name) => name.parse().map(Some).map_err(|why: String| error(format!("the node {id}: {why}"))),
            None => Ok(None),
        }
    };
    let joined = map.get("joined").or_else(|| map.get("timestamp")).map(Value::to_text).unwrap_or_default();
    let member =
        Member { id: id.to_owned(), role: role_of(role)?, preferred: role_of(map.get("preferred_role"))?, resources: resources(map) };
    Ok((joined, member))
}

/// What is not known is enough for everything.
fn resources(map: &Map) -> Option<Resources> {
    let number = |from: &Map, name: &str| from.get(name).and_then(Value::as_int).and_then(|number| u64::try_from(number).ok());
    let (cpu_cores, memory_gb, storage_gb) = match map.get("resources").and_then(Value::as_map) {
        Some(found) => (number(found, "cpu_cores"), number(found, "memory_gb"), number(found, "storage_gb")),
        None => (number(map, "num_cpus"), number(map, "mem_total").map(|mb| (mb + 512) / 1024), None),
    };
    let known = cpu_cores.or(memory_gb).or(storage_gb).is_some();
    let enough = |found: Option<u64>| found.unwrap_or(u64::MAX);
    known.then(|| Resources { cpu_cores: enough(cpu_cores), memory_gb: enough(memory_gb), storage_gb: enough(storage_gb) })
}
