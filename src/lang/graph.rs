//! The graph of chunks: every chunk is a node, every requisite an edge from what must come first.
//!
//! A requisite that names many states at once (an SLS, a pattern) would be as many edges for every state that has it. So a large group is one node
//! of its own (`Group`): its members lead to it, and it leads to those that wait for it. Whoever walks the graph passes through such nodes.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use super::glob;
use super::low::Chunk;
use crate::diagnostic::{Code, Diagnostic, nearest};
use crate::value::{Pairs, Value};

/// Kinds of edges, by Salt's weight: the heavier decide a node's place among its like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Onfail = 1,
    OnfailAny,
    OnfailAll,
    Require,
    RequireAny,
    Onchanges,
    OnchangesAny,
    Watch,
    WatchAny,
    Prereq,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Onfail => "onfail",
            Kind::OnfailAny => "onfail_any",
            Kind::OnfailAll => "onfail_all",
            Kind::Require => "require",
            Kind::RequireAny => "require_any",
            Kind::Onchanges => "onchanges",
            Kind::OnchangesAny => "onchanges_any",
            Kind::Watch => "watch",
            Kind::WatchAny => "watch_any",
            Kind::Prereq => "prereq",
        }
    }

    fn named(name: &str) -> Option<Kind> {
        Some(match name {
            "onfail" => Kind::Onfail,
            "onfail_any" => Kind::OnfailAny,
            "onfail_all" => Kind::OnfailAll,
            "require" => Kind::Require,
            "require_any" => Kind::RequireAny,
            "onchanges" => Kind::Onchanges,
            "onchanges_any" => Kind::OnchangesAny,
            "watch" => Kind::Watch,
            "watch_any" => Kind::WatchAny,
            "prereq" => Kind::Prereq,
            _ => return None,
        })
    }

    /// In the order in which Salt reads them.
    pub const ALL: [Kind; 10] = [
        Kind::Require,
        Kind::RequireAny,
        Kind::Watch,
        Kind::WatchAny,
        Kind::Prereq,
        Kind::Onfail,
        Kind::OnfailAny,
        Kind::OnfailAll,
        Kind::Onchanges,
        Kind::OnchangesAny,
    ];

    fn of_weight(weight: u64) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u64 == weight)
    }
}

/// The kinds of the edges between two nodes, in the order they came: four bits each.
#[derive(Clone, Copy, Default)]
pub struct Kinds(u64);

impl Kinds {
    pub fn add(&mut self, kind: Kind) -> bool {
        let new = self.iter().all(|k| k != kind);
        if new {
            self.0 |= (kind as u64) << (4 * self.len());
        }
        new
    }

    pub fn len(self) -> u32 {
        (64 - self.0.leading_zeros()).div_ceil(4)
    }

    pub fn iter(self) -> impl Iterator<Item = Kind> {
        (0..self.len()).filter_map(move |i| Kind::of_weight(self.0 >> (4 * i) & 15))
    }
}

/// What leads from one node to another. `since` counts: what was added earlier is smaller.
#[derive(Clone, Copy, Default)]
pub struct Edge {
    pub kinds: Kinds,
    pub since: u64,
}

pub struct Node {
    /// Nothing for the node of a group.
    pub chunk: Option<usize>,
    pub tag: Arc<str>,
    pub out: Pairs<usize, Edge>,
    /// Sources, in the order the edges came.
    pub into: Pairs<usize, Kinds>,
    /// The node of its test run, where a `prereq` names it.
    pub test: Option<usize>,
    pub resolved: Vec<(Kind, Targets)>,
}

/// What one item of a requisite names.
#[derive(Clone)]
pub enum Targets {
    Nodes(Vec<usize>),
    Group(usize),
}

/// What an SLS or a pattern names, or an id with many `names`.
pub struct Group {
    pub members: Vec<usize>,
    set: HashSet<usize>,
    /// Its node for each kind of edge that leads from it.
    nodes: HashMap<u64, usize>,
}

/// A group of at least so many members gets a node of its own.
const LARGE: usize = 8;

/// How many requisites that name nobody are told what may have been meant.
const HINTS: usize = 100;

/// What the states of a module are known by.
#[derive(Default)]
struct Names {
    /// Names and ids to nodes.
    nodes: Pairs<String, Vec<usize>>,
    /// Places in `nodes`, by name. For patterns.
    sorted: OnceLock<Vec<usize>>,
}

#[derive(Default)]
pub struct Graph {
    pub chunks: Vec<Chunk>,
    pub nodes: Vec<Node>,
    pub groups: Vec<Group>,
    /// The node of each chunk.
    of_chunks: Vec<usize>,
    /// By module, or `id`.
    names: Pairs<String, Names>,
    sls: Pairs<String, Vec<usize>>,
    /// (module or `sls`, name or pattern) to the group it is.
    known: HashMap<(String, String), usize>,
    overlaps: HashMap<(usize, usize), bool>,
    /// Some state has a `prereq`.
    prereq: bool,
    /// Requisites that name nobody.
    missing: usize,
    edges: u64,
}

impl Graph {
    pub fn new(chunks: Vec<Chunk>) -> Graph {
        let prereq = chunks.iter().any(|chunk| chunk.map.get("prereq").is_some_and(Value::truthy));
        let mut graph = Graph { chunks, prereq, ..Graph::default() };
        let mut by_tag = HashMap::new();
        for index in 0..graph.chunks.len() {
            graph.add_chunk(index, &mut by_tag);
        }
        graph
    }

    fn add_chunk(&mut self, index: usize, by_tag: &mut HashMap<Arc<str>, usize>) {
        let Some(chunk) = self.chunks.get(index).cloned() else { return };
        let tag: Arc<str> = tag(&chunk).into();
        // Two chunks with one tag are one node: the later one takes it.
        let node = *by_tag.entry(tag.clone()).or_insert_with(|| self.new_node(None, tag));
        if let Some(node) = self.nodes.get_mut(node) {
            node.chunk = Some(index);
        }
        self.of_chunks.push(node);
        let (state, id, name) = (chunk.text("state"), chunk.text("__id__"), chunk.text("name"));
        for module in [&*state, "id"] {
            let names = &mut self.names.get_or_insert_with(module, Names::default).nodes;
            add_unique(names.get_or_insert_with(&*name, Vec::new), node);
            add_unique(names.get_or_insert_with(&*id, Vec::new), node);
        }
        add_unique(self.sls.get_or_insert_with(&*chunk.text("__sls__"), Vec::new), node);
        for sls in chunk.map.get("__sls_included_from__").and_then(Value::as_list).unwrap_or_default() {
            add_unique(self.sls.get_or_insert_with(sls.to_text().as_str(), Vec::new), node);
        }
    }

    fn new_node(&mut self, chunk: Option<usize>, tag: Arc<str>) -> usize {
        self.nodes.push(Node { chunk, tag, out: Pairs::new(), into: Pairs::new(), test: None, resolved: Vec::new() });
        self.nodes.len() - 1
    }

    fn names(&self, module: &str, name: &str) -> Option<&Vec<usize>> {
        self.names.get(module)?.nodes.get(name)
    }

    pub fn chunk_of(&self, node: usize) -> Option<&Chunk> {
        self.chunks.get(self.nodes.get(node)?.chunk?)
    }

    fn edge(&mut self, from: usize, to: usize, kind: Kind) {
        self.edges += 1;
        self.edge_since(from, to, kind, self.edges);
    }

    fn edge_since(&mut self, from: usize, to: usize, kind: Kind, since: u64) {
        if let Some(node) = self.nodes.get_mut(from) {
            node.out.get_or_insert_with(&to, || Edge { since, ..Edge::default() }).kinds.add(kind);
        }
        if let Some(node) = self.nodes.get_mut(to) {
            node.into.get_or_insert_with(&from, Kinds::default).add(kind);
        }
    }

    /// Reads the requisites of a chunk and adds their edges.
    pub fn add_requisites(&mut self, index: usize) -> Result<(), Box<Diagnostic>> {
        let (Some(chunk), Some(node)) = (self.chunks.get(index).cloned(), self.of_chunks.get(index).copied()) else { return Ok(()) };
        let mut items = Vec::new();
        let named = chunk.map.iter().filter(|(_, value)| value.truthy());
        let mut named: Vec<(Kind, &Value)> = named.filter_map(|(key, value)| Some((Kind::named(key.as_str()?)?, value))).collect();
        named.sort_by_key(|(kind, _)| Kind::ALL.iter().position(|other| other == kind));
        for (kind, value) in named {
            let Value::List(wanted) = value else { return Err(self.refuse(index, format!("{} is not a list", kind.name()))) };
            for item in wanted {
                if let Some(targets) = self.item(index, kind, item)? {
                    items.push((kind, targets));
                }
            }
        }
        drop(chunk); // its mapping is changed below
        let together = self.may_be_taken_together(&items);
        // What was named so far: states one by one, and groups with the moment they were.
        let (mut named, mut grouped): (Vec<usize>, Vec<(usize, u64)>) = (Vec::new(), Vec::new());
        for (kind, targets) in &items {
            match targets {
                Targets::Group(group) if together && self.may_be_a_node(*kind) => {
                    for again in named.iter().copied().filter(|target| self.has(*group, *target)).collect::<Vec<_>>() {
                        self.require(node, again, *kind, None);
                    }
                    let through = self.group_node(*group, *kind);
                    self.require(node, through, *kind, None);
                    grouped.push((*group, self.edges));
                }
                _ => {
                    for target in self.members(targets).to_vec() {
                        // The first naming decides the place of its edge.
                        let since = grouped.iter().find(|(group, _)| self.has(*group, target)).map(|(_, since)| *since);
                        self.require(node, target, *kind, since);
                        named.push(target);
                    }
                }
            }
        }
        if let Some(node) = self.nodes.get_mut(node) {
            node.resolved.append(&mut items);
        }
        Ok(())
    }

    /// A `prereq` adds a `require` between states that have a requisite already: then the lighter kinds, which it would outweigh, stay apart.
    fn may_be_a_node(&self, kind: Kind) -> bool {
        kind != Kind::Prereq && (!self.prereq || kind >= Kind::Require)
    }

    /// What one item names; nothing where it names null.
    fn item(&mut self, index: usize, kind: Kind, item: &Value) -> Result<Option<Targets>, Box<Diagnostic>> {
        let Some((module, wanted)) = parts(item) else {
            let held = if matches!(item, Value::Map(_)) { "an empty mapping" } else { item.kind() };
            return Err(self.refuse(index, format!("{} holds {held}", kind.name())));
        };
        match wanted {
            Value::Null => Ok(None),
            Value::Str(wanted) => match self.find(&module, wanted) {
                Some(targets) => Ok(Some(targets)),
                None => {
                    self.missing += 1;
                    Err(self.not_there(index, kind, &module, wanted))
                }
            },
            other => Err(self.refuse(index, format!("{} names {} where an id belongs: {module}: {other}", kind.name(), other.kind()))),
        }
    }

    /// What a requisite names. A pattern over SLS may name nothing.
    fn find(&mut self, module: &str, wanted: &str) -> Option<Targets> {
        let pattern = glob::is_pattern(wanted);
        let named = if pattern || module == "sls" { None } else { Some(self.names(module, wanted)?) };
        if let Some(nodes) = named.filter(|nodes| nodes.len() < LARGE) {
            return Some(Targets::Nodes(nodes.clone()));
        }
        let key = (module.to_owned(), wanted.to_owned());
        if let Some(group) = self.known.get(&key) {
            return Some(Targets::Group(*group));
        }
        let lists = self.named(module, wanted);
        if lists.is_empty() && (module != "sls" || !pattern) {
            return None;
        }
        let mut set = HashSet::new();
        let members: Vec<usize> = lists.into_iter().flatten().copied().filter(|node| set.insert(*node)).collect();
        self.groups.push(Group { members, set, nodes: HashMap::new() });
        self.known.insert(key, self.groups.len() - 1);
        Some(Targets::Group(self.groups.len() - 1))
    }

    fn named(&self, module: &str, wanted: &str) -> Vec<&Vec<usize>> {
        match (module, glob::is_pattern(wanted)) {
            ("sls", true) => self.sls.iter().filter(|(sls, _)| glob::matches(wanted, sls)).map(|(_, nodes)| nodes).collect(),
            ("sls", false) => self.sls.get(wanted).into_iter().collect(),
            (_, true) => self.fitting(module, wanted),
            (_, false) => self.names(module, wanted).into_iter().collect(),
        }
    }

    /// The nodes of the names that fit a pattern, in the order in which the names came.
    fn fitting(&self, module: &str, pattern: &str) -> Vec<&Vec<usize>> {
        let Some(Names { nodes, sorted }) = self.names.get(module) else { return Vec::new() };
        let name = |place: usize| nodes.get_index(place).map_or("", |(name, _)| name.as_str());
        let sorted = sorted.get_or_init(|| {
            let mut places: Vec<usize> = (0..nodes.len()).collect();
            places.sort_unstable_by(|one, other| name(*one).cmp(name(*other)));
            places
        });
        let prefix = glob::prefix(pattern);
        let from = sorted.partition_point(|place| name(*place) < prefix);
        let near = sorted.iter().copied().skip(from).take_while(|place| name(*place).starts_with(prefix));
        let mut places: Vec<usize> = near.filter(|place| glob::matches(pattern, name(*place))).collect();
        places.sort_unstable();
        places.into_iter().filter_map(|place| nodes.get_index(place).map(|(_, nodes)| nodes)).collect()
    }

    pub fn members<'a>(&'a self, targets: &'a Targets) -> &'a [usize] {
        match targets {
            Targets::Nodes(nodes) => nodes,
            Targets::Group(group) => self.groups.get(*group).map_or(&[], |group| group.members.as_slice()),
        }
    }

    /// Whether groups among these may be reached through their own nodes. Not where a state is named twice, by another kind, and the moment of
    /// its first naming cannot be told: in two groups, or where test runs of a `prereq` copy the edges.
    fn may_be_taken_together(&mut self, items: &[(Kind, Targets)]) -> bool {
        let group = |targets: &Targets| matches!(targets, Targets::Group(_));
        if !items.iter().any(|(_, targets)| group(targets) && self.members(targets).len() >= LARGE) {
            return false;
        }
        let groups = items.iter().filter(|(_, targets)| group(targets));
        for (kind, one) in groups {
            for (_, other) in items.iter().filter(|(k, targets)| k != kind && (self.prereq || group(targets))).collect::<Vec<_>>() {
                if self.overlap(one, other) {
                    return false;
                }
            }
        }
        true
    }

    fn has(&self, group: usize, node: usize) -> bool {
        self.groups.get(group).is_some_and(|group| group.set.contains(&node))
    }

    fn overlap(&mut self, one: &Targets, other: &Targets) -> bool {
        match (one, other) {
            (Targets::Nodes(nodes), Targets::Nodes(others)) => nodes.iter().any(|node| others.contains(node)),
            (Targets::Nodes(nodes), Targets::Group(group)) | (Targets::Group(group), Targets::Nodes(nodes)) => {
                self.groups.get(*group).is_some_and(|group| nodes.iter().any(|node| group.set.contains(node)))
            }
            (Targets::Group(a), Targets::Group(b)) => {
                let key = (*a.min(b), *a.max(b));
                if let Some(known) = self.overlaps.get(&key) {
                    return *known;
                }
                let known = match (self.groups.get(*a), self.groups.get(*b)) {
                    (Some(a), Some(b)) => a.members.iter().any(|node| b.set.contains(node)),
                    _ => false,
                };
                self.overlaps.insert(key, known);
                known
            }
        }
    }

    fn group_node(&mut self, group: usize, kind: Kind) -> usize {
        let known = self.groups.get(group).and_then(|group| group.nodes.get(&(kind as u64)).copied());
        known.unwrap_or_else(|| {
            let node = self.new_node(None, "".into());
            for member in self.groups.get(group).map(|group| group.members.clone()).unwrap_or_default() {
                self.edge(member, node, kind);
            }
            if let Some(group) = self.groups.get_mut(group) {
                group.nodes.insert(kind as u64, node);
            }
            node
        })
    }

    /// `since`: where an earlier naming decides the place.
    fn require(&mut self, node: usize, target: usize, kind: Kind, since: Option<u64>) {
        if kind == Kind::Prereq {
            return self.add_prereq(node, target);
        }
        self.edges += 2;
        let since = since.unwrap_or(self.edges);
        if let Some(test) = self.nodes.get(node).and_then(|node| node.test) {
            self.edge_since(target, test, kind, since - 1);
        }
        self.edge_since(target, node, kind, since);
    }

    /// `node` declares a prereq on `target`: the target's test run comes first, then `node`, then the target itself.
    fn add_prereq(&mut self, node: usize, target: usize) {
        self.mark(node, "__prerequiring__");
        self.mark(target, "__prereq__");
        let Some((chunk, tag, known)) = self.nodes.get(target).map(|n| (n.chunk, n.tag.clone(), n.test)) else { return };
        let test = known.unwrap_or_else(|| {
            let test = self.new_node(chunk, format!("{tag}_|-__prereq_test__").into());
            let before: Vec<(usize, Kinds)> =
                self.nodes.get(target).map(|n| n.into.iter().map(|(from, kinds)| (*from, *kinds)).collect()).unwrap_or_default();
            for (from, kinds) in before {
                kinds.iter().filter(|kind| *kind != Kind::Prereq).for_each(|kind| self.edge(from, test, kind));
            }
            if let Some(target) = self.nodes.get_mut(target) {
                target.test = Some(test);
            }
            test
        });
        self.edge(test, node, Kind::Prereq);
        self.edge(node, target, Kind::Require);
        if let Some(own_test) = self.nodes.get(node).and_then(|n| n.test) {
            self.edge(test, own_test, Kind::Prereq);
        }
    }

    fn mark(&mut self, node: usize, key: &str) {
        if let Some(chunk) = self.nodes.get(node).and_then(|n| self.chunks.get_mut(n.chunk?)) {
            Arc::make_mut(&mut chunk.map).insert(key, true);
        }
    }

    fn refuse(&self, index: usize, summary: String) -> Box<Diagnostic> {
        let Some(chunk) = self.chunks.get(index) else { return Box::new(Diagnostic::new(Code::Compile, summary)) };
        let of = format!("{summary}, in {} of SLS {}", describe(chunk), chunk.text("__sls__"));
        Box::new(Diagnostic::new(Code::Compile, of).at(chunk.span.clone()))
    }

    fn not_there(&self, index: usize, kind: Kind, module: &str, wanted: &str) -> Box<Diagnostic> {
        let error = self.refuse(index, format!("{} names {module}: {wanted}, and there is no such state", kind.name()));
        let error = Box::new(error.rule("requisite-never-matches").word(wanted));
        // Nobody reads the hints of hundreds, and each looks through all names.
        if self.missing > HINTS {
            return error;
        }
        let known: Vec<&str> = if module == "sls" {
            self.sls.keys().map(String::as_str).collect()
        } else {
            self.names.get(module).map(|names| names.nodes.keys().map(String::as_str).collect()).unwrap_or_default()
        };
        let elsewhere = || self.names.iter().find(|(m, names)| *m != "id" && names.nodes.contains_key(wanted)).map(|(m, _)| m);
        let hint = match (elsewhere(), nearest(wanted, known)) {
            (Some(other), _) if module != "id" => format!("{wanted} is a state of the module {other}"),
            (_, Some(near)) => format!("did you mean {module}: {near}?"),
            _ if module == "sls" => "an SLS that declares no state cannot be required; is it included?".to_owned(),
            _ => "is the SLS that declares it included?".to_owned(),
        };
        Box::new(error.hint(hint))
    }

    /// The first circle, whole, with the place of each of its members.
    pub fn cycle(&self) -> Diagnostic {
        let circle = self.without_groups(self.find_cycle());
        if let [(node, ..)] = circle.as_slice()
            && let Some(error) = self.waits_for_itself(*node)
        {
            return error;
        }
        let mut related = Vec::new();
        for (from, to, kind) in &circle {
            let (Some(first), Some(then)) = (self.chunk_of(*from), self.chunk_of(*to)) else { continue };
            let kind = if *kind == Kind::Require && !then.map.contains_key("require") { Kind::Prereq } else { *kind };
            let phrase = format!("{} waits for {} ({})", describe(then), describe(first), kind.name());
            related.push((then.span.clone(), phrase));
        }
        let summary = format!("{} states wait for each other in a circle", circle.len());
        let mut out = Diagnostic::new(Code::Compile, summary).rule("cycle").hint("take one of these requisites away");
        out.span = related.first().map(|(span, _)| span.clone());
        out.related = related;
        out
    }

    /// A requisite means all states of a name or id, also the one that has it: which requisite that is, and how to name the others alone.
    fn waits_for_itself(&self, node: usize) -> Option<Diagnostic> {
        let chunk = self.chunk_of(node)?;
        let items = Kind::ALL.into_iter().filter_map(|kind| chunk.map.get(kind.name())?.as_list()).flatten();
        let (module, wanted, named) = items.filter_map(parts).find_map(|(module, wanted)| {
            let wanted = wanted.as_str()?;
            let named: Vec<usize> = self.named(&module, wanted).into_iter().flatten().copied().collect();
            named.contains(&node).then_some((module, wanted, named))
        })?;
        let written = if module == "id" { wanted.to_owned() } else { format!("{module}: {wanted}") };
        let of_module = if module == "id" { String::new() } else { format!("{module} ") };
        let meant = match (&*module, glob::is_pattern(wanted)) {
            ("sls", _) => "every state of that SLS and of what it includes".to_owned(),
            (_, true) => format!("every {of_module}state whose id or name fits"),
            (_, false) => format!("every {of_module}state of that id or name"),
        };
        let others: Vec<&Chunk> = named.iter().filter(|other| **other != node).filter_map(|other| self.chunk_of(*other)).collect();
        let alone = |other: &&Chunk| {
            let (state, id, name) = (other.text("state"), other.text("__id__"), other.text("name"));
            let mut keys = [("id", id), ("name", name)].into_iter();
            let (by, key) = keys.find(|(_, key)| self.names(&state, key).is_some_and(|nodes| !nodes.contains(&node)))?;
            Some((by, format!("`{state}: {key}`")))
        };
        let hint = match (&*module, others.as_slice()) {
            (_, []) => "take it away: nothing else is meant by it".to_owned(),
            ("sls", _) => "require the states of the SLS that must come first, each by its id".to_owned(),
            (_, [other]) => match alone(other) {
                Some((by, key)) => format!("require the other one by its {by}: {key}"),
                None => "give the other one an id of its own, and require that".to_owned(),
            },
            (_, others) => {
                let keys: Vec<String> = others.iter().filter_map(alone).map(|(_, key)| key).take(3).collect();
                let such = if keys.is_empty() { String::new() } else { format!(", such as {}", keys.join(", ")) };
                format!("require those that must come first one by one{such}")
            }
        };
        let mut out = Diagnostic::new(Code::Compile, format!("{} waits for itself", describe(chunk)));
        out.related = others.iter().take(3).map(|other| (other.span.clone(), format!("{} is meant as well", describe(other)))).collect();
        let detail = format!("its requisite `{written}` means {meant}, itself included");
        Some(out.detail(detail).at(chunk.span.clone()).word(written).rule("cycle").hint(hint))
    }

    /// A circle without the nodes of groups: from a member straight to who waits for the group.
    fn without_groups(&self, mut circle: Vec<(usize, usize, Kind)>) -> Vec<(usize, usize, Kind)> {
        let is_group = |node: usize| self.nodes.get(node).is_some_and(|node| node.chunk.is_none());
        if circle.first().is_some_and(|(from, _, _)| is_group(*from)) {
            circle.rotate_left(1);
        }
        let mut out: Vec<(usize, usize, Kind)> = Vec::new();
        for (from, to, kind) in circle {
            match out.last_mut() {
                Some(last) if is_group(from) => (last.1, last.2) = (to, kind),
                _ => out.push((from, to, kind)),
            }
        }
        out
    }

    /// Edges (source, target, kind) of a circle, found depth first.
    fn find_cycle(&self) -> Vec<(usize, usize, Kind)> {
        #[derive(Clone, Copy, PartialEq)]
        enum Mark {
            New,
            Open,
            Done,
        }
        let mut marks = vec![Mark::New; self.nodes.len()];
        for start in 0..self.nodes.len() {
            if marks.get(start) != Some(&Mark::New) {
                continue;
            }
            // The way from the start: each node, the kind of the edge that led to it, and how many of its edges were followed.
            let mut way: Vec<(usize, Kind, usize)> = vec![(start, Kind::Require, 0)];
            if let Some(mark) = marks.get_mut(start) {
                *mark = Mark::Open;
            }
            while let Some((node, _, followed)) = way.last_mut() {
                let node = *node;
                let next = self.nodes.get(node).and_then(|n| n.out.get_index(*followed)).map(|(to, edge)| (*to, edge.kinds));
                *followed += 1;
                let Some((to, kinds)) = next else {
                    if let Some(mark) = marks.get_mut(node) {
                        *mark = Mark::Done;
                    }
                    way.pop();
                    continue;
                };
                let kind = kinds.iter().next().unwrap_or(Kind::Require);
                match marks.get(to) {
                    Some(Mark::Open) => {
                        let from = way.iter().position(|(n, _, _)| *n == to).unwrap_or(0);
                        let members = way.get(from..).unwrap_or_default();
                        let mut edges: Vec<_> = members.windows(2).filter_map(|w| Some((w.first()?.0, w.last()?.0, w.last()?.1))).collect();
                        edges.push((node, to, kind));
                        return edges;
                    }
                    Some(Mark::New) => {
                        if let Some(mark) = marks.get_mut(to) {
                            *mark = Mark::Open;
                        }
                        way.push((to, kind, 0));
                    }
                    _ => {}
                }
            }
        }
        Vec::new()
    }
}

/// The module (`id` for a bare string) and what is wanted of it.
fn parts(item: &Value) -> Option<(Cow<'_, str>, &Value)> {
    match item {
        Value::Str(_) => Some(("id".into(), item)),
        Value::Map(map) => map.0.first().map(|(module, wanted)| match module {
            Value::Str(module) => (module.split('.').next().unwrap_or_default().into(), wanted),
            other => (other.to_text().into(), wanted),
        }),
        _ => None,
    }
}

/// Nodes come in their order: a repeated one is the last. (Should one slip through, edges are unique in any case.)
fn add_unique(list: &mut Vec<usize>, node: usize) {
    if list.last() != Some(&node) {
        list.push(node);
    }
}

fn tag(chunk: &Chunk) -> String {
    [chunk.text("state"), chunk.text("__id__"), chunk.text("name"), chunk.text("fun")].join("_|-")
}

/// `file.managed /etc/motd`, and the name where it is another.
fn describe(chunk: &Chunk) -> String {
    let (id, name) = (chunk.text("__id__"), chunk.text("name"));
    let named = if id == name { String::new() } else { format!(" ({name})") };
    format!("{}.{} {id}{named}", chunk.text("state"), chunk.text("fun"))
}

#[cfg(test)]
mod tests {
    use super::Kind;

    #[test]
    fn kinds_have_the_names_that_they_are_known_by() {
        assert!(Kind::ALL.into_iter().all(|kind| Kind::named(kind.name()) == Some(kind)));
        assert_eq!(Kind::named("require_in"), None);
    }
}
