//! The order of execution, exactly as Salt 3008 makes it.
//!
//! Kahn's algorithm over the graph takes, of the nodes that are free, the one with the smallest
//! key: ((the smaller of its own order and that of the states waiting for it, its own order), state + name + function, tag). A `prereq`
//! puts the state it names into the list a second time, before the one that declares it: that is its test run.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::Results;
use super::graph::{Graph, Kind, Targets};
use super::low::Chunk;
use crate::value::Value;

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
    /// Chunks that stand in the list only as the test run of a `prereq`: their places in it.
    pub tests: HashSet<usize>,
    graph: Graph,
    /// The node of each chunk, and the place of each node.
    nodes: Vec<usize>,
    places: Vec<Option<usize>>,
}

impl Ordered {
    /// What the requisites of a chunk name, one entry per item.
    pub fn requisites(&self, place: usize) -> &[(Kind, Targets)] {
        let node = self.nodes.get(place).and_then(|node| self.graph.nodes.get(*node));
        node.map_or(&[], |node| node.resolved.as_slice())
    }

    /// The chunks that an item names, as places in the list.
    pub fn places<'a>(&'a self, targets: &'a Targets) -> impl Iterator<Item = usize> + 'a {
        self.graph.members(targets).iter().filter_map(|node| self.places.get(*node).copied()?)
    }
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
    let mut sort = Sort { graph, cap, followers: HashMap::new() };
    let nodes = sort.run();
    if nodes.len() < sort.graph.nodes.iter().filter(|node| node.chunk.is_some()).count() {
        errors.push(sort.graph.cycle());
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let graph = sort.graph;
    let mut places = vec![None; graph.nodes.len()];
    for (place, node) in nodes.iter().enumerate() {
        if let Some(slot) = places.get_mut(*node) {
            *slot = Some(place);
        }
    }
    let tests = graph.nodes.iter().filter_map(|node| places.get(node.test?).copied()?).collect();
    let chunks = nodes.iter().filter_map(|node| graph.chunk_of(*node).cloned()).collect();
    Ok(Ordered { chunks, tests, graph, nodes, places })
}

struct Sort {
    graph: Graph,
    cap: i64,
    /// For the node of a group: since when each of its followers waits, and the smallest order of those up to it.
    followers: HashMap<usize, Vec<(u64, f64)>>,
}

impl Sort {
    /// The nodes in execution order; fewer than there are where they wait for each other in a circle.
    fn run(&mut self) -> Vec<usize> {
        let mut waiting: Vec<u32> = self.graph.nodes.iter().map(|node| node.into.values().map(|kinds| kinds.len()).sum()).collect();
        let mut heap = BinaryHeap::new();
        // Nodes of groups come free at once: they are nothing to be done.
        let mut free: VecDeque<usize> = (0..waiting.len()).filter(|node| waiting.get(*node) == Some(&0)).collect();
        let mut sorted = Vec::with_capacity(waiting.len());
        loop {
            while let Some(node) = free.pop_front() {
                if self.graph.nodes.get(node).is_some_and(|n| n.chunk.is_some()) {
                    heap.push(Reverse((self.key(node), node)));
                } else {
                    self.pass(node, &mut waiting, &mut free);
                }
            }
            let Some(Reverse((_, node))) = heap.pop() else { return sorted };
            sorted.push(node);
            self.pass(node, &mut waiting, &mut free);
        }
    }

    /// A node is done: those that waited for nothing else are free.
    fn pass(&self, node: usize, waiting: &mut [u32], free: &mut VecDeque<usize>) {
        for (to, edge) in self.graph.nodes.get(node).into_iter().flat_map(|node| &node.out) {
            let Some(count) = waiting.get_mut(*to) else { continue };
            *count = count.saturating_sub(edge.kinds.len());
            if *count == 0 {
                free.push_back(*to);
            }
        }
    }

    /// A node's key when it becomes free; settles its chunk's `order` as Salt does at this moment.
    fn key(&mut self, node: usize) -> SortKey {
        let cap = self.cap;
        let Some((Some(index), tag)) = self.graph.nodes.get(node).map(|node| (node.chunk, node.tag.clone())) else {
            return SortKey::default();
        };
        let mut own = Order::Int(cap);
        let mut label = String::new();
        if let Some(chunk) = self.graph.chunks.get_mut(index) {
            label = [chunk.text("state"), chunk.text("name"), chunk.text("fun")].concat();
            let there = chunk.map.get("order");
            own = Order::of(there).unwrap_or_else(|| Order::named(there, cap));
            if let Some(number) = Arc::make_mut(&mut chunk.map).remove("name_order").as_ref().and_then(Value::as_int).filter(|n| *n != 0) {
                own = Order::Float(own.get() + number as f64 / 10000.0);
            }
            if own.get() < 0.0 {
                own = own.plus(cap.saturating_add(LAST));
            }
            if chunk.map.get("order").and_then(Value::as_bool).is_none() {
                Arc::make_mut(&mut chunk.map).insert("order", own.value());
            }
        }
        SortKey { least: own.get().min(self.least_follower(node)), own: own.get(), label, tag }
    }

    /// The smallest order among the direct followers that count: those whose edge came before any heavier one.
    fn least_follower(&mut self, node: usize) -> f64 {
        let out: Vec<(usize, Kind, u64)> = self.graph.nodes.get(node).map_or_else(Vec::new, |node| {
            node.out.iter().flat_map(|(to, edge)| edge.kinds.iter().map(|kind| (*to, kind, edge.since))).collect()
        });
        // Since when there are edges of each kind. For a group it is its first follower that counts, not the node between.
        let mut first = [u64::MAX; Kind::ALL.len() + 2];
        for (to, kind, since) in &out {
            let since = self.group(*to).map_or(*since, |followers| followers.first().map_or(u64::MAX, |(since, _)| *since));
            if let Some(first) = first.get_mut(*kind as usize) {
                *first = since.min(*first);
            }
        }
        let mut least = f64::INFINITY;
        for (to, kind, since) in out {
            let heavier = first.iter().skip(kind as usize + 1).min().copied().unwrap_or(u64::MAX);
            if let Some(followers) = self.group(to) {
                if let Some((_, order)) = followers.get(followers.partition_point(|(since, _)| *since < heavier).wrapping_sub(1)) {
                    least = least.min(*order);
                }
            } else if since < heavier {
                least = least.min(self.order_of(to));
            }
        }
        least
    }

    /// The followers of a group's node; nothing for a node that is a chunk. Their orders do not change before all of the group is done.
    fn group(&mut self, node: usize) -> Option<&Vec<(u64, f64)>> {
        let group = self.graph.nodes.get(node).filter(|node| node.chunk.is_none())?;
        if !self.followers.contains_key(&node) {
            let mut least = f64::INFINITY;
            let mut followers = Vec::with_capacity(group.out.len());
            for (to, edge) in &group.out {
                least = least.min(self.order_of(*to));
                followers.push((edge.since, least));
            }
            self.followers.insert(node, followers);
        }
        self.followers.get(&node)
    }

    /// A follower's order as it stands; one without any does not pull its requisites forward.
    fn order_of(&self, node: usize) -> f64 {
        let there = self.graph.chunk_of(node).and_then(|chunk| chunk.map.get("order"));
        match there {
            None => f64::INFINITY,
            there => Order::of(there).unwrap_or_else(|| Order::named(there, self.cap)).get(),
        }
    }
}

#[derive(Debug, Default)]
struct SortKey {
    least: f64,
    own: f64,
    label: String,
    tag: Arc<str>,
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
