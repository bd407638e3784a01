//! The cluster in a state repository: reading it, and the edits by which nodes come, go and change their roles.

use std::collections::BTreeMap;

use super::commit::Edit;
use super::repository::Snapshot;
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::fleet::cluster::{Cluster, FILE, FOLDER, Node, path_of, with};
use crate::fleet::process;
use crate::fleet::role::{Assigned, Role};
use crate::lang::jinja::dump::yaml;
use crate::value::{Map, Value};

/// A change of the cluster: what is committed, and what it means for its nodes.
pub struct Change {
    pub edit: Edit,
    pub before: Cluster,
    pub after: Cluster,
    /// Of all nodes, in the order in which they joined.
    pub roles: Vec<Assigned>,
}

impl Change {
    /// The nodes that are to be reconciled: those whose role changes, and all of them when the scale does.
    pub fn touched(&self) -> Vec<String> {
        let scale = self.before.scale() != self.after.scale();
        self.roles.iter().filter(|node| scale || node.changes()).map(|node| node.id.clone()).collect()
    }

    /// Takes over the roles that `after` should have. `files` are those edited so far.
    fn new(
        message: String,
        snapshot: &Snapshot,
        before: Cluster,
        after: Cluster,
        files: BTreeMap<String, Option<String>>,
    ) -> Result<Change> {
        Change::telling(message, snapshot, before, after, files, &|_| {})
    }

    /// The same; `tell` knows more of how a node came to its role.
    fn telling(
        message: String,
        snapshot: &Snapshot,
        before: Cluster,
        mut after: Cluster,
        mut files: BTreeMap<String, Option<String>>,
        tell: &dyn Fn(&mut Assigned),
    ) -> Result<Change> {
        let mut roles = after.assign();
        for (node, assigned) in after.nodes.iter_mut().zip(&roles) {
            node.role = Some(assigned.role);
            if assigned.changes() {
                let path = path_of(&assigned.id);
                let text = match files.remove(&path) {
                    Some(Some(text)) => text,
                    _ => text_of(snapshot, &path)?,
                };
                files.insert(path, Some(with(&text, "role", Some(assigned.role.name()))));
            }
        }
        roles.iter_mut().for_each(tell);
        let changed = roles.iter().filter(|node| node.changes());
        let why: Vec<String> = changed
            .map(|node| format!("{}: {} → {} ({})", node.id, node.before.map_or("new", Role::name), node.role, node.reason))
            .collect();
        let message = format!("{message}\n\n{}", why.join("\n")).trim().to_owned();
        Ok(Change { edit: Edit { message, files }, before, after, roles })
    }
}

/// The cluster of a snapshot; one without nodes where there is none.
pub fn read(snapshot: &Snapshot) -> Result<Cluster> {
    let settings = snapshot.read(FILE)?.map(|file| String::from_utf8_lossy(&file.bytes).into_owned());
    let mut files = BTreeMap::new();
    for path in ours(snapshot) {
        files.insert(path.to_owned(), text_of(snapshot, path)?);
    }
    Cluster::parse(settings.as_deref(), &files)
}

/// A newcomer.
pub fn add(snapshot: &Snapshot, node: Node) -> Result<Change> {
    let before = read(snapshot)?;
    let id = node.host.id.clone();
    if before.nodes.iter().any(|other| other.host.id == id) {
        return Err(Diagnostic::new(Code::Usage, format!("{id} is a node of the cluster already"))
            .hint(format!("`basalt node remove {id}` first, or another name"))
            .into());
    }
    // What is written is what would be read.
    Cluster::parse(None, &BTreeMap::from([(path_of(&id), node.to_text())]))?;
    let files = BTreeMap::from([(path_of(&id), Some(node.to_text()))]);
    let mut after = before.clone();
    after.nodes.push(node);
    Change::new(format!("Add the node {id}"), snapshot, before, after, files)
}

/// A node that goes. What basalt made on it stays there.
pub fn remove(snapshot: &Snapshot, id: &str) -> Result<Change> {
    let before = read(snapshot)?;
    before.node(id)?;
    let mut after = before.clone();
    after.nodes.retain(|node| node.host.id != id);
    Change::new(format!("Remove the node {id}"), snapshot, before, after, BTreeMap::from([(path_of(id), None)]))
}

/// Whether new processes may come to a node.
pub fn cordon(snapshot: &Snapshot, id: &str, cordoned: bool) -> Result<Option<Edit>> {
    let cluster = read(snapshot)?;
    if cluster.node(id)?.cordoned == cordoned {
        return Ok(None);
    }
    let text = with(&text_of(snapshot, &path_of(id))?, "cordoned", cordoned.then_some("true"));
    let message = format!("{} the node {id}", if cordoned { "Cordon" } else { "Uncordon" });
    Ok(Some(Edit { message, files: BTreeMap::from([(path_of(id), Some(text))]) }))
}

/// Every node gets the role that it should have.
pub fn recalculate(snapshot: &Snapshot) -> Result<Change> {
    let before = read(snapshot)?;
    let after = before.clone();
    Change::new("Recalculate the roles".to_owned(), snapshot, before, after, BTreeMap::new())
}

/// A node gets the role that somebody wishes, and prefers it from now on.
pub fn assign(snapshot: &Snapshot, id: &str, role: Role) -> Result<Change> {
    let before = read(snapshot)?;
    let node = before.node(id)?;
    let lacking = node.resources.map(|resources| resources.lacking(role)).unwrap_or_default();
    if !lacking.is_empty() {
        return Err(Diagnostic::new(Code::Usage, format!("{id} is too small for the role {role}"))
            .detail(format!("It has {}.", lacking.join(", ")))
            .hint(format!("where that is not so, correct `resources` in {}", path_of(id)))
            .into());
    }
    if role == Role::Monolith && before.nodes.len() > 1 {
        return Err(Diagnostic::new(Code::Usage, "a monolith is the only node of its cluster").into());
    }
    let path = path_of(id);
    let mut text = with(&text_of(snapshot, &path)?, "role", Some(role.name()));
    if before.automatic {
        text = with(&text, "preferred_role", Some(role.name()));
    }
    let mut after = before.clone();
    for node in after.nodes.iter_mut().filter(|node| node.host.id == id) {
        (node.role, node.preferred) = (Some(role), Some(role));
    }
    let was = node.role;
    let tell = |node: &mut Assigned| {
        if node.id == id {
            node.before = was;
            if node.role == role {
                node.reason = "assigned".to_owned();
            }
        }
    };
    Change::telling(format!("Assign the role {role} to {id}"), snapshot, before, after, BTreeMap::from([(path, Some(text))]), &tell)
}

/// All nodes and processes go from git.
pub fn reset(snapshot: &Snapshot) -> Result<Option<Edit>> {
    let files: BTreeMap<_, _> = ours(snapshot).map(|path| (path.to_owned(), None)).collect();
    Ok((!files.is_empty()).then(|| Edit { message: "Take all nodes out of the cluster".to_owned(), files }))
}

/// The cluster as one value: what stands in its files, by their names.
pub fn dumped(snapshot: &Snapshot) -> Result<Value> {
    let mut dump = Map::new();
    let value = |path: &str| -> Result<Value> { crate::yaml::load(&text_of(snapshot, path)?, path) };
    if snapshot.contains(FILE)
        && let Value::Map(settings) = value(FILE)?
    {
        settings.iter().for_each(|(key, value)| drop(dump.insert(key.clone(), value.clone())));
    }
    for (name, folder) in [("nodes", FOLDER), ("processes", process::FOLDER)] {
        let mut found = Map::new();
        for path in ours(snapshot).filter(|path| path.starts_with(folder)) {
            let id = path.trim_start_matches(folder).trim_end_matches(".yaml");
            found.insert(id, value(path)?);
        }
        dump.insert(name, Value::Map(found));
    }
    Ok(Value::Map(dump))
}

/// What `dumped` gave, as what is wanted: the files that change, and the cluster that they make.
pub fn loaded(snapshot: &Snapshot, text: &str, name: &str) -> Result<(Edit, Cluster)> {
    let wrong = |what: String| Diagnostic::new(Code::Usage, format!("{name}: {what}"));
    let Value::Map(dump) = crate::yaml::load(text, name)? else { return Err(wrong("this is no mapping".to_owned()).into()) };
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for (key, value) in &dump {
        let folder = match key.as_str() {
            Some("cluster") => {
                let whole = Value::Map([("cluster", value.clone())].into_iter().collect());
                files.insert(FILE.to_owned(), yaml(&whole, Some(false), true)?);
                continue;
            }
            Some("nodes") => FOLDER,
            Some("processes") => process::FOLDER,
            _ => {
                return Err(wrong(format!("there is no key `{}`", key.to_text())).hint("there are cluster, nodes and processes").into());
            }
        };
        for (id, value) in value.as_map().into_iter().flatten() {
            files.insert(format!("{folder}{}.yaml", id.to_text()), yaml(value, Some(false), true)?);
        }
    }
    let of_nodes = files.iter().filter(|(path, _)| *path != FILE).map(|(path, text)| (path.clone(), text.clone())).collect();
    let cluster = Cluster::parse(files.get(FILE).map(String::as_str), &of_nodes)?;
    if let Some(node) = cluster.processes.keys().find(|node| cluster.node(node).is_err()) {
        return Err(wrong(format!("there are processes of {node}, which is no node")).into());
    }
    let mut edit = Edit { message: format!("Load the cluster from {name}"), files: BTreeMap::new() };
    for path in ours(snapshot).filter(|path| !files.contains_key(*path)) {
        edit.files.insert(path.to_owned(), None);
    }
    for (path, text) in files {
        // The same by another text stays as somebody wrote it.
        let same = snapshot.contains(&path) && crate::yaml::load(&text_of(snapshot, &path)?, &path)? == crate::yaml::load(&text, &path)?;
        if !same {
            edit.files.insert(path, Some(text));
        }
    }
    Ok((edit, cluster))
}

/// A setting of the cluster changes. `None`: it is like that already.
pub fn set_variable(snapshot: &Snapshot, name: &str, value: &str) -> Result<Option<Edit>> {
    let before = read(snapshot)?;
    let known: Vec<&str> = before.variables().into_iter().map(|(name, _)| name).collect();
    if !known.contains(&name) {
        let fault = Diagnostic::new(Code::Usage, format!("the cluster has no setting {name:?}"));
        return Err(match crate::diagnostic::nearest(name, known.iter().copied()) {
            Some(near) => fault.hint(format!("did you mean {near:?}?")).into(),
            None => fault.hint(format!("there are {}", known.join(", "))).into(),
        });
    }
    let old = if snapshot.contains(FILE) { text_of(snapshot, FILE)? } else { String::new() };
    let mut settings = crate::yaml::load(&old, FILE)?;
    let read_value = crate::yaml::load(value, "the command line").unwrap_or_else(|_| Value::str(value));
    let place: &[&str] = if name == "id" || name == "master" { &["cluster"] } else { &["cluster", "roles"] };
    let mut map = &mut settings;
    for key in place {
        if !matches!(map, Value::Map(_)) {
            *map = Value::Map(Map::new());
        }
        let Value::Map(inner) = map else { break };
        map = inner.0.get_or_insert_with(&Value::str(*key), || Value::Null);
    }
    if !matches!(map, Value::Map(_)) {
        *map = Value::Map(Map::new());
    }
    if let Value::Map(inner) = map {
        inner.insert(name, read_value);
    }
    let text = yaml(&settings, Some(false), true)?;
    // What it says must be what can be read.
    let after = Cluster::parse(Some(&text), &BTreeMap::new())?;
    if after.variables() == before.variables() {
        return Ok(None);
    }
    Ok(Some(Edit { message: format!("Set {name}={value}"), files: BTreeMap::from([(FILE.to_owned(), Some(text))]) }))
}

/// The files of nodes and processes.
fn ours(snapshot: &Snapshot) -> impl Iterator<Item = &str> {
    snapshot.paths().filter(|path| (path.starts_with(FOLDER) || path.starts_with(process::FOLDER)) && path.ends_with(".yaml"))
}

fn text_of(snapshot: &Snapshot, path: &str) -> Result<String> {
    match snapshot.read(path)? {
        Some(file) => Ok(String::from_utf8_lossy(&file.bytes).into_owned()),
        None => Err(Diagnostic::new(Code::Repository, format!("{path} is not in {}", snapshot.name)).into()),
    }
}
