//! The cluster, as git has it: `cluster.yaml` says what holds for all of it, `nodes/ID.yaml` is one node.
//!
//! ```yaml
//! # cluster.yaml: as the Eos design writes it          # nodes/store1.yaml: an entry of a roster, and what makes it a node
//! cluster:                                             host: 192.0.2.11
//!   id: prod-cluster-001                               sudo: true
//!   roles:                                             role: data
//!     assignment: automatic                            preferred_role: data
//!     rebalance_on_join: true                          joined: 2026-11-20 08:00:00 UTC
//!                                                      resources: {cpu_cores: 8, memory_gb: 32, storage_gb: 900}
//! ```
//!
//! A file for each node, so that two who join at once do not edit the same one. Nodes stand in the roster beside those of `roster.yaml`, have the grains
//! `role`, `preferred_role`, `scale` and `joined`, and tell each other `node_info` by way of the mine. Commands edit these files by single lines: comments and other people's order stay.

use std::collections::BTreeMap;

use super::process::{self, Process, Processes};
use super::role::{Assigned, Member, Resources, Role, Scale, assign};
use super::roster::{Host, Reader, Roster};
use super::strict::Strict;
use crate::diagnostic::{Code, Diagnostic, Result, nearest};
use crate::value::{Map, Pairs, Value};
use crate::yaml::{self, Data, Node as Yaml, Place};

pub const FILE: &str = "cluster.yaml";
pub const FOLDER: &str = "nodes/";

#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// Empty where `cluster.yaml` names none.
    pub id: String,
    /// Where its controller is.
    pub master: Option<String>,
    /// Roles follow the number of nodes; otherwise a node has the role that its file names.
    pub automatic: bool,
    /// Nodes may have to change their role when others come or go.
    pub rebalance: bool,
    /// In the order in which they joined.
    pub nodes: Vec<Node>,
    /// What runs on them: the files of `processes/`.
    pub processes: Processes,
    /// What their files ask for and cannot be done.
    warnings: Vec<Diagnostic>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub host: Host,
    pub role: Option<Role>,
    pub preferred: Option<Role>,
    /// `2026-11-20 08:00:00 UTC`.
    pub joined: String,
    pub resources: Option<Resources>,
    /// No process comes to it any more.
    pub cordoned: bool,
}

/// The keys of `cluster.yaml` below `cluster`.
const CLUSTER: [&str; 4] = ["id", "master", "discovery", "roles"];
/// Those of a node that a host of a roster has not.
const NODE: [&str; 6] = ["role", "preferred_role", "joined", "resources", "host_keys", "cordoned"];
const RESOURCES: [&str; 5] = ["cpu_cores", "memory_gb", "storage_gb", "storage_type", "network_speed"];

/// The file of a node.
pub fn path_of(id: &str) -> String {
    format!("{FOLDER}{id}.yaml")
}

impl Cluster {
    /// `settings` is the text of `cluster.yaml`; `files` are the paths and texts of `nodes/` and `processes/`.
    pub fn parse(settings: Option<&str>, files: &BTreeMap<String, String>) -> Result<Cluster> {
        let mut cluster = Cluster {
            id: String::new(),
            master: None,
            automatic: true,
            rebalance: true,
            nodes: Vec::new(),
            processes: Processes::new(),
            warnings: Vec::new(),
        };
        if let Some(text) = settings {
            cluster.settings(text)?;
        }
        for (path, text) in files {
            if let Some(name) = path.strip_prefix(process::FOLDER) {
                let list = process::processes(text, path)?;
                cluster.processes.insert(name.strip_suffix(".yaml").unwrap_or(name).to_owned(), list);
                continue;
            }
            let (node, warnings) = node(path, text)?;
            cluster.nodes.push(node);
            cluster.warnings.extend(warnings);
        }
        cluster.nodes.sort_by(|a, b| (a.joined.is_empty(), &a.joined, &a.host.id).cmp(&(b.joined.is_empty(), &b.joined, &b.host.id)));
        Ok(cluster)
    }

    fn settings(&mut self, text: &str) -> Result<()> {
        let file = Strict { file: FILE, text };
        for (_, _, value) in file.map(yaml::load_spanned(text, FILE)?, &["cluster"])? {
            for (key, _, value) in file.map(value, &CLUSTER)? {
                match key.as_str() {
                    "id" => self.id = value.into_value().to_text(),
                    "roles" => self.roles(&file, value)?,
                    "master" => self.master = Some(value.into_value().to_text()).filter(|address| !address.is_empty()),
                    // How a controller is found is not a cluster's business.
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn roles(&mut self, file: &Strict<'_>, value: Yaml) -> Result<()> {
        for (key, _, value) in file.map(value, &["assignment", "rebalance_on_join"])? {
            let (at, value) = (value.place, value.into_value());
            match (key.as_str(), &value) {
                ("assignment", Value::Str(how)) if how == "automatic" || how == "manual" => self.automatic = how == "automatic",
                ("assignment", _) => return Err(file.fault(at, "`assignment` is automatic or manual").into()),
                ("rebalance_on_join", Value::Bool(wished)) => self.rebalance = *wished,
                _ => return Err(file.fault(at, "`rebalance_on_join` is true or false").into()),
            }
        }
        Ok(())
    }

    /// Its settings, by their names.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let assignment = if self.automatic { "automatic" } else { "manual" };
        vec![
            ("id", self.id.clone()),
            ("master", self.master.clone().unwrap_or_default()),
            ("assignment", assignment.to_owned()),
            ("rebalance_on_join", self.rebalance.to_string()),
        ]
    }

    pub fn scale(&self) -> Scale {
        Scale::of(self.nodes.len())
    }

    /// The roles that the nodes should have, in the order in which they joined.
    pub fn assign(&self) -> Vec<Assigned> {
        if self.automatic {
            let members: Vec<Member> = self.nodes.iter().map(Node::member).collect();
            return assign(&members, self.rebalance);
        }
        let keep = |node: &Node| {
            let role = node.role.or(node.preferred).unwrap_or(Role::App);
            Assigned { id: node.host.id.clone(), before: node.role, role, reason: "assigned by hand".to_owned() }
        };
        self.nodes.iter().map(keep).collect()
    }

    /// Adds the nodes to a roster. Each has the grains `role` and `scale`.
    pub fn add_to(&self, roster: &mut Roster) -> Result<()> {
        for node in &self.nodes {
            if let Some(other) = roster.get(&node.host.id) {
                let place = other.span.as_ref().map_or_else(|| "the roster".to_owned(), ToString::to_string);
                let fault = Diagnostic::new(Code::Settings, format!("{} is a host of {place} and a node of the cluster", node.host.id));
                let fault = fault.hint("a node stands in one place only: take it out of the roster");
                return Err(match &node.host.span {
                    Some(span) => fault.at(span.clone()),
                    None => fault,
                }
                .into());
            }
            roster.hosts.push(node.in_roster(self.scale(), self.processes.get(&node.host.id).map_or(&[], Vec::as_slice)));
        }
        roster.warnings.extend(self.warnings.iter().cloned());
        Ok(())
    }

    pub fn node(&self, id: &str) -> Result<&Node> {
        self.nodes.iter().find(|node| node.host.id == id).ok_or_else(|| {
            let fault = Diagnostic::new(Code::Usage, format!("{id:?} is no node of the cluster"));
            let ids = || self.nodes.iter().map(|node| node.host.id.as_str());
            match nearest(id, ids()) {
                Some(near) => fault.hint(format!("did you mean {near:?}?")),
                None if self.nodes.is_empty() => fault.hint("the cluster has no nodes yet"),
                None => fault.hint(format!("the nodes are {}", ids().collect::<Vec<_>>().join(", "))),
            }
            .into()
        })
    }
}

impl Node {
    /// The file of a new node.
    pub fn to_text(&self) -> String {
        let host = &self.host;
        let mut lines = vec![("host", Value::str(&host.address))];
        lines.extend(host.user.as_ref().map(|user| ("user", Value::str(user))));
        lines.extend(host.port.map(|port| ("port", Value::Int(port.into()))));
        lines.extend(host.sudo.then_some(("sudo", Value::Bool(true))));
        lines.extend(self.role.map(|role| ("role", Value::str(role.name()))));
        lines.extend(self.preferred.map(|role| ("preferred_role", Value::str(role.name()))));
        lines.push(("joined", Value::str(&self.joined)));
        let mut text: String = lines.into_iter().map(|(key, value)| format!("{key}: {}\n", plain(&value))).collect();
        if let Some(Resources { cpu_cores, memory_gb, storage_gb }) = self.resources {
            text.push_str(&format!("resources: {{cpu_cores: {cpu_cores}, memory_gb: {memory_gb}, storage_gb: {storage_gb}}}\n"));
        }
        if !host.host_keys.is_empty() {
            text.push_str("host_keys:\n");
            host.host_keys.iter().for_each(|key| text.push_str(&format!("  - {key}\n")));
        }
        text
    }

    fn member(&self) -> Member {
        Member { id: self.host.id.clone(), role: self.role, preferred: self.preferred, resources: self.resources }
    }

    fn in_roster(&self, scale: Scale, processes: &[Process]) -> Host {
        let mut host = self.host.clone();
        let mut grains = host.grains();
        if let Some(role) = self.role {
            grains.insert("role", role.name());
        }
        if let Some(role) = self.preferred {
            grains.insert("preferred_role", role.name());
        }
        grains.insert("scale", scale.name());
        grains.insert("joined", self.joined.as_str());
        if !processes.is_empty() {
            grains.insert("processes", process::to_value(processes));
        }
        host.minion_opts.insert("grains", Value::Map(grains));
        host.mine_functions.get_or_insert_with(node_info);
        host
    }
}

/// What a node tells the others, unless its file says otherwise: `mine.get('*', 'node_info')`.
fn node_info() -> Value {
    let grains = ["role", "preferred_role", "joined", "num_cpus", "mem_total"].map(Value::str);
    let function: Map = [("mine_function", Value::str("grains.item"))].into_iter().collect();
    let call = std::iter::once(Value::Map(function)).chain(grains).collect();
    Value::Map([("node_info", Value::List(call))].into_iter().collect())
}

fn node(path: &str, text: &str) -> Result<(Node, Vec<Diagnostic>)> {
    let file = Strict { file: path, text };
    let top = Place { line: 1, column: 1 };
    let id = path.strip_prefix(FOLDER).and_then(|name| name.strip_suffix(".yaml")).unwrap_or(path).to_owned();
    let mut reader = Reader::new(text, path);
    reader.legal_id(&id, top)?;
    let mut node = Node { host: Host::new("", ""), role: None, preferred: None, joined: String::new(), resources: None, cordoned: false };
    let mut host_keys = Vec::new();
    let mut entries = Pairs::new();
    let known: Vec<&str> = NODE.into_iter().chain(Reader::keys()).collect();
    for (key, place, value) in file.map(yaml::load_spanned(text, path)?, &known)? {
        let at = value.place;
        match key.as_str() {
            "role" => node.role = file.role(at, value.into_value())?,
            "preferred_role" => node.preferred = file.role(at, value.into_value())?,
            "joined" => node.joined = value.into_value().to_text(),
            "resources" => node.resources = Some(file.resources(value)?),
            "cordoned" => node.cordoned = file.flag(value, "cordoned")?,
            "host_keys" => host_keys = file.host_keys(at, value.into_value())?,
            _ => drop(entries.insert(Value::Str(key), (place, value))),
        }
    }
    node.host = reader.host(id, top, Yaml { place: top, data: Data::Map(entries) }, &Map::new())?;
    node.host.host_keys = host_keys;
    Ok((node, reader.warnings))
}

/// A scalar as YAML reads it back.
fn plain(value: &Value) -> String {
    let text = value.to_text();
    match value {
        Value::Str(_) if !yaml::load(&text, "").is_ok_and(|read| read == *value) => format!("'{}'", text.replace('\'', "''")),
        _ => text,
    }
}

impl Strict<'_> {
    /// Each becomes a line of a known_hosts: two words, and nothing else.
    fn host_keys(&self, place: Place, value: Value) -> Result<Vec<String>> {
        let keys: Vec<String> = value.as_list().unwrap_or_default().iter().map(Value::to_text).collect();
        let word = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_graphic());
        let legal = |key: &String| key.split_once(' ').is_some_and(|(kind, key)| word(kind) && word(key));
        if keys.is_empty() || !keys.iter().all(legal) {
            return Err(self.fault(place, "`host_keys` is a list of public keys, `ssh-ed25519 AAAA…` each").into());
        }
        Ok(keys)
    }

    fn role(&self, place: Place, value: Value) -> Result<Option<Role>> {
        if value == Value::Null {
            return Ok(None);
        }
        value.to_text().parse().map(Some).map_err(|why| self.fault(place, why).into())
    }

    fn resources(&self, value: Yaml) -> Result<Resources> {
        let mut resources = Resources { cpu_cores: 0, memory_gb: 0, storage_gb: 0 };
        for (key, _, value) in self.map(value, &RESOURCES)? {
            let at = value.place;
            let value = value.into_value();
            let slot = match key.as_str() {
                "cpu_cores" => &mut resources.cpu_cores,
                "memory_gb" => &mut resources.memory_gb,
                "storage_gb" => &mut resources.storage_gb,
                // Said at registration; no rule asks for them.
                _ => continue,
            };
            let number = value.as_int().and_then(|number| u64::try_from(number).ok());
            *slot = number.ok_or_else(|| self.fault(at, format!("`{key}` is a whole number")))?;
        }
        Ok(resources)
    }
}

/// A file of a node or cluster with one entry of its top mapping changed: in its line, or behind the last one. `None` takes the entry out.
pub fn with(text: &str, key: &str, value: Option<&str>) -> String {
    let is_it = |line: &str| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(':'));
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    match (lines.iter().position(|line| is_it(line)), value) {
        (Some(at), Some(value)) => {
            let comment =
                lines[at].find("  #").or_else(|| lines[at].find(" #")).map(|from| lines[at][from..].to_owned()).unwrap_or_default();
            lines[at] = format!("{key}: {value}{comment}");
        }
        (Some(at), None) => drop(lines.remove(at)),
        (None, Some(value)) => lines.push(format!("{key}: {value}")),
        (None, None) => {}
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: &str = "# the first\nhost: 192.0.2.11\nsudo: true\nrole: edge  # by table\njoined: 2026-11-20 08:00:00 UTC\n";

    fn parse(settings: Option<&str>, files: &[(&str, &str)]) -> Result<Cluster> {
        let files = files.iter().map(|(id, text)| (path_of(id), (*text).to_owned())).collect();
        Cluster::parse(settings, &files)
    }

    #[test]
    fn a_cluster_is_read_as_eos_writes_it() {
        let eos = "cluster:\n  id: prod-cluster-001\n  master: 10.0.1.10\n  discovery:\n    method: multicast\n    port: 4505\n  roles:\n    \
                   assignment: automatic\n    rebalance_on_join: false\n";
        let newer = "host: b\nrole: core\njoined: 2026-11-20 09:00:00 UTC\nresources: {cpu_cores: 4, memory_gb: 8, storage_gb: 100}\n";
        let cluster = parse(Some(eos), &[("a", newer), ("b", STORE)]).unwrap();
        assert_eq!((cluster.id.as_str(), cluster.automatic, cluster.rebalance), ("prod-cluster-001", true, false));
        assert_eq!(cluster.master.as_deref(), Some("10.0.1.10"));
        let nodes: Vec<_> = cluster.nodes.iter().map(|node| (node.host.id.as_str(), node.role, node.host.sudo)).collect();
        assert_eq!(nodes, [("b", Some(Role::Edge), true), ("a", Some(Role::Core), false)]);
        assert_eq!(cluster.nodes[1].resources, Some(Resources { cpu_cores: 4, memory_gb: 8, storage_gb: 100 }));
    }

    #[test]
    fn nodes_stand_in_the_roster_with_their_grains() {
        let cluster =
            parse(None, &[("a", STORE), ("b", "host: local\nminion_opts: {grains: {rack: 4, role: liar}}\nrole: core\n")]).unwrap();
        let mut roster = Roster::parse("old: local\n", "roster.yaml", &Map::new()).unwrap();
        cluster.add_to(&mut roster).unwrap();
        let grain = |id: &str, name: &str| {
            Value::Map(roster.get(id).unwrap().minion_opts.clone()).traverse(&format!("grains:{name}"), ":").map(Value::to_text)
        };
        assert_eq!(roster.ids().collect::<Vec<_>>(), ["old", "a", "b"]);
        assert_eq!(
            [grain("a", "role"), grain("b", "role"), grain("b", "rack"), grain("b", "scale")].map(Option::unwrap),
            ["edge", "core", "4", "small"]
        );
        let fault = cluster.add_to(&mut roster).unwrap_err();
        assert!(fault.summary.contains("a is a host of nodes/a.yaml"), "{fault}");
    }

    #[test]
    fn what_is_misspelt_is_told_with_its_place() {
        let refused = |text: &str| *parse(None, &[("a", text)]).unwrap_err();
        let fault = refused("host: a\npreferred_rle: data\n");
        assert_eq!((fault.span.unwrap().line, fault.hint.as_deref()), (2, Some("did you mean \"preferred_role\"?")));
        let fault = refused("host: a\nrole: dat\n");
        assert!(fault.summary.contains("did you mean \"data\"?"), "{}", fault.summary);
        assert!(refused("role: data\n").summary.contains("no `host`"));
        assert!(refused("host: a\nresources: {cpus: 3}\n").hint.unwrap().contains("cpu_cores"));
        assert!(refused("host: a\nhost_keys: ['ssh-rsa AAAA b']\n").summary.contains("host_keys"));
        assert!(refused("host: a\nresources: {cpu_cores: many}\n").summary.contains("whole number"));
        assert!(parse(Some("cluster:\n  roles:\n    assignment: auto\n"), &[]).unwrap_err().summary.contains("automatic or manual"));
        assert!(parse(Some("clutser:\n  id: 3\n"), &[]).unwrap_err().hint.unwrap().contains("cluster"));
    }

    #[test]
    fn a_role_given_by_hand_stays() {
        let cluster =
            parse(Some("cluster: {roles: {assignment: manual}}\n"), &[("a", "host: a\nrole: compute\n"), ("b", "host: b\n")]).unwrap();
        let roles: Vec<_> = cluster.assign().iter().map(|node| (node.role, node.changes())).collect();
        assert_eq!(roles, [(Role::Compute, false), (Role::App, true)]);
    }

    #[test]
    fn a_new_node_s_file_reads_back_the_same() {
        let mut host = Host::new("a", "10");
        (host.user, host.port, host.sudo) = (Some("yes".to_owned()), Some(2222), true);
        host.host_keys = vec!["ssh-ed25519 AAAAC3+/=".to_owned(), "ssh-rsa AAAAB3".to_owned()];
        let resources = Some(Resources { cpu_cores: 4, memory_gb: 8, storage_gb: 100 });
        let joined = "2026-11-20 09:00:00 UTC".to_owned();
        let node = Node { host, role: Some(Role::Core), preferred: Some(Role::Data), joined, resources, cordoned: false };
        let mut read = parse(None, &[("a", &node.to_text())]).unwrap().nodes.remove(0);
        read.host.span = None;
        assert_eq!(read, node);
    }

    #[test]
    fn an_edit_leaves_everything_else_as_it_was() {
        let text = with(STORE, "role", Some("core"));
        assert_eq!(text, STORE.replace("role: edge", "role: core"));
        let text = with(&text, "port", Some("22"));
        assert!(text.ends_with("UTC\nport: 22\n"));
        assert_eq!(with(&with(&text, "port", None), "role", Some("edge")), STORE);
    }
}
