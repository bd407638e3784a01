//! The order of execution, exactly as Salt 3008 makes it.
//!
//! Every chunk is a node, every requisite an edge from what must come first. Kahn's algorithm takes, of the nodes that are free, the one with the smallest
//! key: ((the smaller of its own order and that of the states waiting for it, its own order), state + name + function, tag). A `prereq`
//! puts the state it names into the list a second time, before the one that declares it: that is its test run.

use std::cmp::Ordering;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use indexmap::IndexMap;

use super::low::Chunk;
use super::{Results, glob};
use crate::diagnostic::{Code, Diagnostic, nearest};
use crate::value::Value;

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
struct Kinds(u64);

impl Kinds {
    fn add(&mut self, kind: Kind) -> bool {
        let new = self.iter().all(|k| k != kind);
        if new {
            self.0 |= (kind as u64) << (4 * self.len());
        }
        new
    }

    fn len(self) -> u32 {
        (64 - self.0.leading_zeros()).div_ceil(4)
    }

    fn iter(self) -> impl Iterator<Item = Kind> {
        (0..self.len()).filter_map(move |i| Kind::of_weight(self.0 >> (4 * i) & 15))
    }
}

/// Python's numbers for `order`: whole until a fraction comes in.
#[derive(Clone, Copy, Debug)]
enum Order {
    Int(i64),
    Float(f64),
}

impl Order {
    fn of(value: Option<&Value>) -> Option<Order> {
        match value? {
            Value::Int(i) => Some(Order::Int(*i)),
            Value::Bool(b) => Some(Order::Int(i64::from(*b))),
            Value::Float(f) => Some(Order::Float(*f)),
            _ => None,
        }
    }

    fn get(self) -> f64 {
        match self {
            Order::Int(i) => i as f64,
            Order::Float(f) => f,
        }
    }

    fn plus(self, n: i64) -> Order {
        match self {
            Order::Int(i) => Order::Int(i.saturating_add(n)),
            Order::Float(f) => Order::Float(f + n as f64),
        }
    }

    fn value(self) -> Value {
        match self {
            Order::Int(i) => Value::Int(i),
            Order::Float(f) => Value::Float(f),
        }
    }

    /// What an `order` that is no number means.
    fn named(value: Option<&Value>, cap: i64) -> Order {
        match value.and_then(Value::as_str) {
            Some("last") => Order::Int(cap.saturating_add(LAST)),
            Some("first") => Order::Int(0),
            _ => Order::Int(cap),
        }
    }
}

const LAST: i64 = 1_000_000;

/// Chunks in execution order.
pub struct Ordered {
    pub chunks: Vec<Chunk>,
    /// For each chunk of the list: what its requisites resolved to, one entry per item of a requisite, as indexes into the list.
    pub requisites: Vec<Vec<(Kind, Vec<usize>)>>,
    /// Chunks that stand in the list only as the test run of a `prereq`; their index is that of the test run.
    pub tests: Vec<usize>,
}

struct Graph {
    chunks: Vec<Chunk>,
    nodes: Vec<Node>,
    by_tag: IndexMap<String, usize>,
    /// (module or `id`, name or id) to nodes.
    names: IndexMap<(String, String), Vec<usize>>,
    sls: IndexMap<String, Vec<usize>>,
    /// Patterns that were looked up already.
    patterns: HashMap<(String, String), Vec<Vec<usize>>>,
}

struct Node {
    chunk: usize,
    tag: String,
    out: IndexMap<usize, Kinds>,
    /// Sources, in the order the edges came.
    into: IndexMap<usize, Kinds>,
    /// The node of its test run, where a `prereq` names it.
    test: Option<usize>,
    resolved: Vec<(Kind, Vec<usize>)>,
}

pub fn order(chunks: Vec<Chunk>) -> Results<Ordered> {
    let mut graph = Graph::new(chunks);
    let mut errors = Vec::new();
    let mut cap = 1i64;
    for chunk in 0..graph.chunks.len() {
        if let Err(error) = graph.add_requisites(chunk) {
            errors.push(*error);
        } else if let Some(Value::Int(order)) = graph.chunks.get(chunk).and_then(|c| c.map.get("order"))
            && *order > 0
            && *order > cap - 1
        {
            cap = order.saturating_add(100);
        }
    }
    let sorted = graph.sort(cap);
    if sorted.len() < graph.nodes.len() {
        errors.push(graph.cycle());
    }
    if errors.is_empty() { Ok(graph.ordered(&sorted)) } else { Err(errors) }
}

impl Graph {
    fn new(chunks: Vec<Chunk>) -> Graph {
        let mut graph = Graph {
            chunks,
            nodes: Vec::new(),
            by_tag: IndexMap::new(),
            names: IndexMap::new(),
            sls: IndexMap::new(),
            patterns: HashMap::new(),
        };
        for index in 0..graph.chunks.len() {
            graph.add_chunk(index);
        }
        graph
    }

    fn add_chunk(&mut self, index: usize) {
        let Some(chunk) = self.chunks.get(index) else { return };
        let (state, id, name) = (chunk.text("state"), chunk.text("__id__"), chunk.text("name"));
        let tag = tag(chunk);
        let mut sls = vec![chunk.text("__sls__")];
        if let Some(Value::List(from)) = chunk.map.get("__sls_included_from__") {
            sls.extend(from.iter().map(Value::to_text));
        }
        // Two chunks with one tag are one node: the later one takes it.
        let node = match self.by_tag.get(&tag) {
            Some(node) => {
                if let Some(node) = self.nodes.get_mut(*node) {
                    node.chunk = index;
                }
                *node
            }
            None => {
                let node = self.new_node(index, tag.clone());
                self.by_tag.insert(tag, node);
                node
            }
        };
        let id_keys = [(state.clone(), name.clone()), (state, id.clone()), ("id".to_owned(), id), ("id".to_owned(), name)];
        for key in id_keys {
            add_unique(self.names.entry(key).or_default(), node);
        }
        for sls in sls {
            add_unique(self.sls.entry(sls).or_default(), node);
        }
    }

    fn new_node(&mut self, chunk: usize, tag: String) -> usize {
        self.nodes.push(Node { chunk, tag, out: IndexMap::new(), into: IndexMap::new(), test: None, resolved: Vec::new() });
        self.nodes.len() - 1
    }

    fn edge(&mut self, from: usize, to: usize, kind: Kind) {
        if let Some(node) = self.nodes.get_mut(from) {
            node.out.entry(to).or_default().add(kind);
        }
        if let Some(node) = self.nodes.get_mut(to) {
            node.into.entry(from).or_default().add(kind);
        }
    }

    fn add_requisites(&mut self, index: usize) -> Result<(), Box<Diagnostic>> {
        let Some(chunk) = self.chunks.get(index) else { return Ok(()) };
        let node = self.by_tag.get(&tag(chunk)).copied().unwrap_or_default();
        for kind in Kind::ALL {
            let Some(items) = self.chunks.get(index).and_then(|chunk| chunk.map.get(kind.name())).filter(|items| items.truthy()) else {
                continue;
            };
            let Value::List(items) = items.clone() else { return Err(self.refuse(index, format!("{} is not a list", kind.name()))) };
            for item in &items {
                let (module, wanted) = match item {
                    Value::Str(_) => ("id".to_owned(), item.clone()),
                    Value::Map(map) => match map.0.first() {
                        Some((module, wanted)) => (module.to_text().split('.').next().unwrap_or_default().to_owned(), wanted.clone()),
                        None => return Err(self.refuse(index, format!("{} holds an empty mapping", kind.name()))),
                    },
                    other => return Err(self.refuse(index, format!("{} holds {}", kind.name(), other.kind()))),
                };
                let wanted = match wanted {
                    Value::Null => continue,
                    Value::Str(wanted) => wanted,
                    other => {
                        return Err(
                            self.refuse(index, format!("{} names {} where an id belongs: {module}: {other}", kind.name(), other.kind()))
                        );
                    }
                };
                let Some(groups) = self.find(&module, &wanted) else { return Err(self.not_there(index, kind, &module, &wanted)) };
                for group in &groups {
                    for &target in group {
                        self.require(node, target, kind);
                    }
                }
                if let Some(node) = self.nodes.get_mut(node) {
                    let mut all: Vec<usize> = groups.into_iter().flatten().collect();
                    all.sort_unstable();
                    all.dedup();
                    node.resolved.push((kind, all));
                }
            }
        }
        Ok(())
    }

    /// The nodes a requisite names. A pattern over SLS may name none.
    fn find(&mut self, module: &str, wanted: &str) -> Option<Vec<Vec<usize>>> {
        if !glob::is_pattern(wanted) {
            let found = if module == "sls" { self.sls.get(wanted) } else { self.names.get(&(module.to_owned(), wanted.to_owned())) };
            return found.map(|nodes| vec![nodes.clone()]);
        }
        let key = (module.to_owned(), wanted.to_owned());
        if let Some(known) = self.patterns.get(&key) {
            return Some(known.clone());
        }
        let found: Vec<Vec<usize>> = if module == "sls" {
            self.sls.iter().filter(|(sls, _)| glob::matches(wanted, sls)).map(|(_, nodes)| nodes.clone()).collect()
        } else {
            self.names.iter().filter(|((m, name), _)| m == module && glob::matches(wanted, name)).map(|(_, nodes)| nodes.clone()).collect()
        };
        if found.is_empty() && module != "sls" {
            return None;
        }
        self.patterns.insert(key, found.clone());
        Some(found)
    }

    fn require(&mut self, node: usize, target: usize, kind: Kind) {
        if kind == Kind::Prereq {
            return self.prereq(node, target);
        }
        if let Some(test) = self.nodes.get(node).and_then(|node| node.test) {
            self.edge(target, test, kind);
        }
        self.edge(target, node, kind);
    }

    /// `node` declares a prereq on `target`: the target's test run comes first, then `node`, then the target itself.
    fn prereq(&mut self, node: usize, target: usize) {
        self.mark(node, "__prerequiring__");
        self.mark(target, "__prereq__");
        let Some((chunk, tag, known)) = self.nodes.get(target).map(|n| (n.chunk, n.tag.clone(), n.test)) else { return };
        let test = known.unwrap_or_else(|| {
            let test = self.new_node(chunk, format!("{tag}_|-__prereq_test__"));
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
        if let Some(chunk) = self.nodes.get(node).and_then(|n| self.chunks.get_mut(n.chunk)) {
            chunk.map.insert(key, true);
        }
    }

    /// The nodes in execution order; fewer than there are where they wait for each other in a circle.
    fn sort(&mut self, cap: i64) -> Vec<usize> {
        let mut waiting: Vec<u32> = self.nodes.iter().map(|node| node.into.values().map(|kinds| kinds.len()).sum()).collect();
        let mut free = BinaryHeap::new();
        for (node, count) in waiting.iter().enumerate() {
            if *count == 0 {
                let key = self.key(node, cap);
                free.push(Reverse((key, node)));
            }
        }
        let mut sorted = Vec::with_capacity(self.nodes.len());
        while let Some(Reverse((_, node))) = free.pop() {
            sorted.push(node);
            let followers: Vec<(usize, u32)> =
                self.nodes.get(node).map(|n| n.out.iter().map(|(to, kinds)| (*to, kinds.len())).collect()).unwrap_or_default();
            for (to, edges) in followers {
                let Some(count) = waiting.get_mut(to) else { continue };
                *count = count.saturating_sub(edges);
                if *count == 0 {
                    let key = self.key(to, cap);
                    free.push(Reverse((key, to)));
                }
            }
        }
        sorted
    }

    /// A node's key when it becomes free. Settles the chunk's `order`, and that of the direct followers where it is no number, as Salt does at this moment.
    fn key(&mut self, node: usize, cap: i64) -> SortKey {
        let Some(Node { chunk: index, tag, out, .. }) = self.nodes.get(node) else { return SortKey::default() };
        let (index, tag) = (*index, tag.clone());
        let mut own = Order::Int(cap);
        let mut label = String::new();
        if let Some(chunk) = self.chunks.get_mut(index) {
            label = chunk.text("state") + &chunk.text("name") + &chunk.text("fun");
            let there = chunk.map.get("order");
            own = Order::of(there).unwrap_or_else(|| Order::named(there, cap));
            if let Some(number) = chunk.map.remove("name_order").as_ref().and_then(Value::as_int).filter(|n| *n != 0) {
                own = Order::Float(own.get() + number as f64 / 10000.0);
            }
            if own.get() < 0.0 {
                own = own.plus(cap.saturating_add(LAST));
            }
            chunk.map.insert("order", own.value());
        }
        let (mut least, mut weight) = (f64::INFINITY, 0);
        for (to, kinds) in out {
            let Some(follower) = self.nodes.get(*to).and_then(|n| self.chunks.get_mut(n.chunk)) else { continue };
            for kind in kinds.iter() {
                if kind as u64 >= weight {
                    weight = kind as u64;
                    // A follower without any order does not pull its requisites forward.
                    let Some(there) = follower.map.get("order") else { continue };
                    let order = Order::of(Some(there)).unwrap_or_else(|| Order::named(Some(there), cap));
                    follower.map.insert("order", order.value());
                    least = least.min(order.get());
                }
            }
        }
        SortKey { least: own.get().min(least), own: own.get(), label, tag }
    }

    fn ordered(mut self, sorted: &[usize]) -> Ordered {
        let mut place: HashMap<usize, usize> = HashMap::new();
        for (at, node) in sorted.iter().enumerate() {
            place.insert(*node, at);
        }
        let tests: Vec<usize> =
            sorted.iter().filter_map(|node| self.nodes.get(*node)?.test).filter_map(|test| place.get(&test).copied()).collect();
        let mut requisites = Vec::with_capacity(sorted.len());
        for node in sorted {
            let resolved = self.nodes.get_mut(*node).map(|n| std::mem::take(&mut n.resolved)).unwrap_or_default();
            let there = |nodes: Vec<usize>| nodes.into_iter().filter_map(|node| place.get(&node).copied()).collect();
            requisites.push(resolved.into_iter().map(|(kind, nodes)| (kind, there(nodes))).collect());
        }
        let chunk = |node: &usize| self.chunks.get(self.nodes.get(*node)?.chunk).cloned();
        Ordered { chunks: sorted.iter().filter_map(chunk).collect(), requisites, tests }
    }

    fn refuse(&self, index: usize, summary: String) -> Box<Diagnostic> {
        let Some(chunk) = self.chunks.get(index) else { return Box::new(Diagnostic::new(Code::Compile, summary)) };
        let of = format!("{summary}, in {} of SLS {}", describe(chunk), chunk.text("__sls__"));
        Box::new(Diagnostic::new(Code::Compile, of).at(chunk.span.clone()))
    }

    fn not_there(&self, index: usize, kind: Kind, module: &str, wanted: &str) -> Box<Diagnostic> {
        let error = self.refuse(index, format!("{} names {module}: {wanted}, and there is no such state", kind.name()));
        let known: Vec<&str> = if module == "sls" {
            self.sls.keys().map(String::as_str).collect()
        } else {
            self.names.keys().filter(|(m, _)| m == module).map(|(_, name)| name.as_str()).collect()
        };
        let elsewhere = || self.names.keys().find(|(m, name)| m != "id" && name == wanted).map(|(m, _)| m);
        let hint = match (elsewhere(), nearest(wanted, known)) {
            (Some(other), _) if module != "id" => format!("{wanted} is a state of the module {other}"),
            (_, Some(near)) => format!("did you mean {module}: {near}?"),
            _ if module == "sls" => "an SLS that declares no state cannot be required; is it included?".to_owned(),
            _ => "is the SLS that declares it included?".to_owned(),
        };
        Box::new(error.hint(hint))
    }

    /// The first circle, whole, with the place of each of its members.
    fn cycle(&self) -> Diagnostic {
        let circle = self.find_cycle();
        let chunk = |node: usize| self.nodes.get(node).and_then(|n| self.chunks.get(n.chunk));
        let mut lines = Vec::new();
        let mut related = Vec::new();
        for (from, to, kind) in &circle {
            let (Some(first), Some(then)) = (chunk(*from), chunk(*to)) else { continue };
            let kind = if *kind == Kind::Require && !then.map.contains_key("require") { Kind::Prereq } else { *kind };
            let phrase = format!("{} waits for {} ({})", describe(then), describe(first), kind.name());
            related.push((then.span.clone(), phrase.clone()));
            lines.push(phrase);
        }
        let mut out = Diagnostic::new(Code::Compile, format!("{} states wait for each other in a circle", circle.len()))
            .detail(lines.join("\n"))
            .hint("take one of these requisites away");
        out.span = related.first().map(|(span, _)| span.clone());
        out.related = related;
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
                let next = self.nodes.get(node).and_then(|n| n.out.get_index(*followed)).map(|(to, kinds)| (*to, *kinds));
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

/// Nodes come in their order: a repeated one is the last. (Should one slip through, edges are unique in any case.)
fn add_unique(list: &mut Vec<usize>, node: usize) {
    if list.last() != Some(&node) {
        list.push(node);
    }
}

fn tag(chunk: &Chunk) -> String {
    format!("{}_|-{}_|-{}_|-{}", chunk.text("state"), chunk.text("__id__"), chunk.text("name"), chunk.text("fun"))
}

/// `file.managed /etc/motd`, and the name where it is another.
fn describe(chunk: &Chunk) -> String {
    let (id, name) = (chunk.text("__id__"), chunk.text("name"));
    let named = if id == name { String::new() } else { format!(" ({name})") };
    format!("{}.{} {id}{named}", chunk.text("state"), chunk.text("fun"))
}

#[derive(Debug, Default)]
struct SortKey {
    least: f64,
    own: f64,
    label: String,
    tag: String,
}

impl Ord for SortKey {
    fn cmp(&self, other: &SortKey) -> Ordering {
        self.least
            .total_cmp(&other.least)
            .then(self.own.total_cmp(&other.own))
            .then_with(|| self.label.cmp(&other.label))
            .then_with(|| self.tag.cmp(&other.tag))
    }
}

impl PartialOrd for SortKey {
    fn partial_cmp(&self, other: &SortKey) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for SortKey {
    fn eq(&self, other: &SortKey) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for SortKey {}
