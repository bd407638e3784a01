//! What a change of the tree means for a host: the states of two compiles side by side.
//!
//! Both are compiled with the same grains and answers, those last seen, so that only the tree makes a difference; no host is touched and
//! nothing is fetched from the web. States are paired by what they are called; their order alone is no difference. Pillar shows through what
//! it changes. Texts that are secret on either side are not in what comes out.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;

use super::compile::Answers;
use super::session::Blobs;
use super::tree::TreeCompiler;
use crate::agent::protocol::Call;
use crate::diagnostic::Diagnostic;
use crate::lang::high::is_requisite;
use crate::lang::jinja::dump;
use crate::object::unified::unified;
use crate::plan::{Content, Hash, Low};
use crate::secret::{MASK, Mask};
use crate::value::{Map, Value};

/// Texts from this size on are not compared line by line.
const LARGE: u64 = 1 << 20;

/// What one tree wants of a host.
pub enum Side {
    States(States),
    /// It does not compile for this host.
    Faults(Vec<Diagnostic>),
    /// Its templates ask what the host was not asked before, written as they ask it.
    Unknown(Vec<String>),
}

#[derive(Default)]
pub struct States {
    pub lows: Vec<Low>,
    pub blobs: Blobs,
    pub secrets: Vec<String>,
    /// The requisites of states as they are written, by module, id and name.
    pub requisites: HashMap<(String, String, String), Map>,
}

/// Does something with each of these, on all processors; gives what came of it in their order. Compiling without hosts is such work.
pub fn on_all_processors<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let take = || Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, items.get(at)?)));
    let one = || std::iter::from_fn(take).map(|(at, item)| (at, work(item))).collect::<Vec<_>>();
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(items.len());
    let mut done: Vec<(usize, R)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        // Who panics takes the caller along, as a panic on its own thread would.
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

impl Side {
    pub fn compile(tree: &TreeCompiler, id: &str, grains: &Map, answers: &Answers) -> Side {
        let mut compiled = match tree.compiled(id, grains, answers) {
            Ok(compiled) => compiled,
            Err(faults) => return Side::Faults(faults),
        };
        if !compiled.missing.is_empty() {
            let mask = Mask::new(&compiled.secrets);
            return Side::Unknown(compiled.missing.iter().map(|call| mask.text(&written(call))).collect());
        }
        let mut requisites = HashMap::new();
        for chunk in std::mem::take(&mut compiled.chunks) {
            let text = |key| chunk.text(key).into_owned();
            let key = (text("state"), text("__id__"), text("name"));
            let written = |key: &Value| key.as_str().is_some_and(|key| is_requisite(key) && !key.ends_with("_in"));
            let own: Map = Arc::unwrap_or_clone(chunk.map).into_iter().filter(|(key, _)| written(key)).collect();
            requisites.entry(key).or_insert(own);
        }
        Side::States(States { lows: compiled.lows, blobs: compiled.blobs, secrets: compiled.secrets, requisites })
    }
}

impl States {
    /// The same for all compiles between which `Meaning::of` finds no difference; `key` keeps secrets from being guessed by it.
    pub fn mark(&self, key: &str) -> String {
        let mark = |low: &Low| {
            let contents: Vec<_> = low.contents.iter().map(|c| (&c.name, &c.hash, c.mode, &c.link)).collect();
            let text = serde_json::to_string(&(key, &low.state, arguments(low, self), contents, &low.failed)).unwrap_or_default();
            Hash::of(text.as_bytes()).0
        };
        let mut marks: Vec<String> = self.lows.iter().map(mark).collect();
        marks.sort();
        Hash::of(marks.concat().as_bytes()).0
    }
}

/// What the change means for one host. Equal meanings are told once.
#[derive(Debug, PartialEq, Serialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum Meaning {
    Same,
    Differs {
        changes: Vec<Change>,
    },
    /// It compiles no more.
    Breaks {
        faults: Vec<Diagnostic>,
    },
    /// It compiles again, with so many states; before, it did not.
    Mended {
        states: usize,
        faults: Vec<Diagnostic>,
    },
    /// It compiles on neither side.
    Broken {
        faults: Vec<Diagnostic>,
    },
    /// Templates ask what only the host knows and was not asked before.
    Unknown {
        calls: Vec<String>,
    },
    /// Nothing was ever heard of the host.
    Unseen,
    /// The roster has it on the new side only, on the old side only.
    Joins,
    Leaves,
}

impl Meaning {
    pub fn of(old: &Side, new: &Side) -> Meaning {
        match (old, new) {
            (Side::States(old), Side::States(new)) => match compare(old, new) {
                changes if changes.is_empty() => Meaning::Same,
                changes => Meaning::Differs { changes },
            },
            (Side::Faults(_), Side::Faults(faults)) => Meaning::Broken { faults: faults.clone() },
            (Side::States(_), Side::Faults(faults)) => Meaning::Breaks { faults: faults.clone() },
            (Side::Faults(faults), Side::States(new)) => Meaning::Mended { states: new.lows.len(), faults: faults.clone() },
            // What cannot be told is said even where one side would fail: with answers it might not.
            (Side::Unknown(one), Side::Unknown(other)) => unknown(one.iter().chain(other)),
            (Side::Unknown(calls), _) | (_, Side::Unknown(calls)) => unknown(calls.iter()),
        }
    }

    /// Whether the tree's change means something else than before.
    pub fn is_difference(&self) -> bool {
        !matches!(self, Meaning::Same | Meaning::Broken { .. } | Meaning::Unseen)
    }
}

/// A call as a template writes it.
fn written(call: &Call) -> String {
    let args = call.args.iter().map(dump::python);
    let kwargs = call.kwargs.iter().map(|(key, value)| format!("{}={}", key.to_text(), dump::python(value)));
    format!("{}({})", call.function, args.chain(kwargs).collect::<Vec<_>>().join(", "))
}

fn unknown<'a>(calls: impl Iterator<Item = &'a String>) -> Meaning {
    let mut out: Vec<String> = Vec::new();
    for call in calls {
        if !out.contains(call) {
            out.push(call.clone());
        }
    }
    Meaning::Unknown { calls: out }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Added,
    Removed,
    Changed,
}

/// One state that differs.
#[derive(Debug, PartialEq, Serialize)]
pub struct Change {
    pub action: Action,
    /// `file.managed`; of the new side, where there is one.
    pub state: String,
    pub id: String,
    pub name: String,
    pub sls: String,
    /// Arguments, conditions and requisites, and `function`, `id`, `name`, `sls` where the state is called otherwise now.
    pub arguments: Vec<Argument>,
    /// Contents of files that the controller makes: rendered templates, sources, directories.
    pub contents: Vec<Contents>,
}

/// An argument that differs: what it was and what it is; `None` where it is not given.
#[derive(Debug, PartialEq, Serialize)]
pub struct Argument {
    pub name: String,
    pub old: Option<Value>,
    pub new: Option<Value>,
    /// A unified diff, where it takes several lines to write.
    pub diff: String,
}

#[derive(Debug, PartialEq, Serialize)]
pub struct Contents {
    /// `source`, `contents`, or a path below the directory of a `file.recurse`.
    pub name: String,
    pub action: Action,
    /// A unified diff; empty where `note` says why.
    pub diff: String,
    /// What differs besides the text, or why the text is not shown.
    pub note: String,
}

fn compare(old: &States, new: &States) -> Vec<Change> {
    let comparison = Comparison { old, new, mask: Mask::new(&[old.secrets.as_slice(), new.secrets.as_slice()].concat()) };
    let partners = pairs(&old.lows, &new.lows);
    let mut changes = Vec::new();
    for (low, partner) in new.lows.iter().zip(&partners) {
        match partner.and_then(|index| old.lows.get(index)) {
            Some(before) => changes.extend(comparison.changed(before, low)),
            None => changes.push(comparison.alone(low, Action::Added)),
        }
    }
    let kept: std::collections::HashSet<usize> = partners.iter().flatten().copied().collect();
    let gone = old.lows.iter().enumerate().filter(|(index, _)| !kept.contains(index));
    changes.extend(gone.map(|(_, low)| comparison.alone(low, Action::Removed)));
    changes
}

/// For each new state the old one that it was: of the same module, id and name; else the only one left of that module and id; else the only
/// one left of that module and name.
fn pairs(old: &[Low], new: &[Low]) -> Vec<Option<usize>> {
    type Called = fn(&Low) -> (&str, &str, &str);
    let ways: [(Called, bool); 3] = [
        (|low| (&low.state, &low.id, &low.name), false),
        (|low| (&low.state, &low.id, ""), true),
        (|low| (&low.state, "", &low.name), true),
    ];
    let mut partners: Vec<Option<usize>> = vec![None; new.len()];
    let mut taken = vec![false; old.len()];
    for (called, only) in ways {
        let mut left: HashMap<_, (Vec<usize>, usize)> = HashMap::new();
        for (index, low) in old.iter().enumerate().rev().filter(|(index, _)| taken.get(*index) == Some(&false)) {
            left.entry(called(low)).or_default().0.push(index);
        }
        for (low, _) in new.iter().zip(&partners).filter(|(_, partner)| partner.is_none()) {
            left.entry(called(low)).or_default().1 += 1;
        }
        for (low, partner) in new.iter().zip(&mut partners).filter(|(_, partner)| partner.is_none()) {
            let Some((indexes, count)) = left.get_mut(&called(low)) else { continue };
            if only && (indexes.len() != 1 || *count != 1) {
                continue;
            }
            *partner = indexes.pop();
            if let Some(taken) = partner.and_then(|index| taken.get_mut(index)) {
                *taken = true;
            }
        }
    }
    partners
}

struct Comparison<'a> {
    old: &'a States,
    new: &'a States,
    mask: Mask,
}

impl Comparison<'_> {
    /// A state that is on one side only, with its arguments.
    fn alone(&self, low: &Low, action: Action) -> Change {
        let side = if action == Action::Added { self.new } else { self.old };
        let (none, arguments) = (Map::new(), arguments(low, side));
        let (old, new) = if action == Action::Added { (&none, &arguments) } else { (&arguments, &none) };
        let mut change = self.named(low, action);
        // Its id says what it is called, and the SLS stands beside it.
        change.arguments = self.arguments(old, new, low, low);
        change.arguments.retain(|argument| !matches!(argument.name.as_str(), "function" | "id" | "name" | "sls"));
        change.arguments.iter_mut().for_each(|argument| argument.diff.clear());
        change
    }

    fn changed(&self, old: &Low, new: &Low) -> Option<Change> {
        let mut change = self.named(new, Action::Changed);
        change.contents = self.contents(old, new);
        change.arguments = self.arguments(&arguments(old, self.old), &arguments(new, self.new), old, new);
        // What `contents` says is told by what the controller made of it.
        let told = change.contents.iter().any(|c| c.name == "contents");
        change.arguments.retain(|argument| !(told && argument.name == "contents"));
        (!change.arguments.is_empty() || !change.contents.is_empty()).then_some(change)
    }

    fn named(&self, low: &Low, action: Action) -> Change {
        let text = |text: &str| self.mask.text(text);
        let (id, name) = (text(&low.id), text(&low.name));
        Change { action, state: low.function(), id, name, sls: low.sls.clone(), arguments: Vec::new(), contents: Vec::new() }
    }

    fn arguments(&self, old: &Map, new: &Map, old_low: &Low, new_low: &Low) -> Vec<Argument> {
        let mut out = Vec::new();
        let names = new.iter().chain(old.iter().filter(|(name, _)| !new.0.contains_key(*name))).map(|(name, _)| name);
        for name in names {
            let (before, after) = (old.0.get(name), new.0.get(name));
            if before == after && before.map(Value::kind) == after.map(Value::kind) {
                continue;
            }
            let name = name.to_text();
            let hidden = is_password(&name) || (name.starts_with("contents") && (hides(old_low) || hides(new_low)));
            let shown = |value: Option<&Value>| value.map(|value| if hidden { Value::str(MASK) } else { self.mask.value(value) });
            let secret = |value: Option<&Value>| value.is_some_and(|value| self.mask.holds_in(value));
            let (before, after) = if !hidden && (secret(before) || secret(after)) && before.is_some() && after.is_some() {
                // What stands around the one secret may tell the other.
                (Some(Value::str(MASK)), Some(Value::str(MASK)))
            } else {
                (shown(before), shown(after))
            };
            let diff = diff(before.as_ref(), after.as_ref());
            out.push(Argument { name, old: before, new: after, diff });
        }
        out
    }

    fn contents(&self, old: &Low, new: &Low) -> Vec<Contents> {
        let hidden = hides(old) || hides(new);
        let by_name = |low: &Low| -> HashMap<String, Content> { low.contents.iter().map(|c| (c.name.clone(), c.clone())).collect() };
        let (before, after) = (by_name(old), by_name(new));
        let mut names: Vec<&String> = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name))).collect();
        names.sort();
        let mut out = Vec::new();
        for name in names {
            let (a, b) = (before.get(name), after.get(name));
            let action = match (a, b) {
                (Some(_), Some(_)) => Action::Changed,
                (Some(_), None) => Action::Removed,
                _ => Action::Added,
            };
            let mut notes = Vec::new();
            if let (Some(a), Some(b)) = (a, b) {
                if (&a.hash, a.mode, &a.link) == (&b.hash, b.mode, &b.link) {
                    continue;
                }
                let mode = |mode: Option<u32>| mode.map_or("none".to_owned(), |mode| format!("{mode:04o}"));
                if a.mode != b.mode {
                    notes.push(format!("mode {} → {}", mode(a.mode), mode(b.mode)));
                }
                if a.link != b.link {
                    let link = |link: &Option<String>| link.as_ref().map_or("a file".to_owned(), |to| format!("a link to {to}"));
                    notes.push(format!("{} → {}", link(&a.link), link(&b.link)));
                }
            }
            let mut text = String::new();
            if a.map(|c| &c.hash) != b.map(|c| &c.hash) {
                match self.texts(a, b, hidden) {
                    Ok(diff) => text = diff,
                    Err(note) => notes.push(note),
                }
            }
            out.push(Contents { name: self.mask.text(name), action, diff: text, note: notes.join("; ") });
        }
        out
    }

    /// The difference of two contents as text, or why there is none to show.
    fn texts(&self, old: Option<&Content>, new: Option<&Content>, hidden: bool) -> Result<String, String> {
        if hidden || old.is_some_and(|c| c.secret) || new.is_some_and(|c| c.secret) {
            return Err("the content differs and is not shown".into());
        }
        let size = |c: Option<&Content>| c.map_or(0, |c| c.size);
        let sizes = || format!("{} → {} bytes", size(old), size(new));
        if size(old) >= LARGE || size(new) >= LARGE {
            return Err(sizes());
        }
        let bytes = |content: Option<&Content>, blobs: &Blobs| match content {
            Some(content) => blobs.get(&content.hash).map(|bytes| bytes.to_vec()),
            None => Some(Vec::new()),
        };
        let text = |bytes: Option<Vec<u8>>| bytes.and_then(|bytes| String::from_utf8(bytes).ok()).filter(|text| !text.contains('\0'));
        let (Some(before), Some(after)) = (text(bytes(old, &self.old.blobs)), text(bytes(new, &self.new.blobs))) else {
            return Err(format!("binary, {}", sizes()));
        };
        if self.mask.holds_secret(&before) || self.mask.holds_secret(&after) {
            return Err("the content holds a secret, differs and is not shown".into());
        }
        Ok(unified(&before, &after, None))
    }
}

/// What a state says: its own arguments, what every state takes, its requisites as they are written, and what it is called.
fn arguments(low: &Low, side: &States) -> Map {
    let mut out = Map::new();
    for (name, value) in [("function", low.function()), ("id", low.id.clone()), ("name", low.name.clone()), ("sls", low.sls.clone())] {
        out.insert(name, value);
    }
    for (name, value) in low.args.iter().filter(|(name, _)| name.as_str() != Some("name")) {
        out.insert(name.clone(), value.clone());
    }
    // The compiler took the contents out of the argument.
    if let Some(content) = low.contents.iter().find(|c| c.name == "contents" && !c.secret && c.size < LARGE)
        && let Some(text) = side.blobs.get(&content.hash).and_then(|bytes| std::str::from_utf8(bytes).ok())
        && low.args.contains_key("contents")
    {
        out.insert("contents", text.strip_suffix('\n').unwrap_or(text));
    }
    let control = serde_json::to_value(&low.control).ok().and_then(|json| serde_json::from_value::<Value>(json).ok());
    if let Some(Value::Map(control)) = control {
        out.0.extend(control);
    }
    let key = (low.state.clone(), low.id.clone(), low.name.clone());
    for (name, value) in side.requisites.get(&key).into_iter().flatten() {
        out.insert(name.clone(), sorted(value));
    }
    out
}

/// Requisites in an order of their own: in which they are written means nothing.
fn sorted(value: &Value) -> Value {
    let Value::List(items) = value else { return value.clone() };
    let mut items: Vec<(String, Value)> = items.iter().map(|item| (dump::python(item), item.clone())).collect();
    items.sort_by(|a, b| a.0.cmp(&b.0));
    items.dedup_by(|a, b| a.0 == b.0);
    Value::List(items.into_iter().map(|(_, item)| item).collect())
}

/// A unified diff of values that take several lines.
fn diff(old: Option<&Value>, new: Option<&Value>) -> String {
    let (Some(old), Some(new)) = (old, new) else { return String::new() };
    let lines = |value: &Value| match value {
        Value::Str(text) => text.clone(),
        other => dump::yaml(other, Some(false), true).unwrap_or_default(),
    };
    let (a, b) = (lines(old), lines(new));
    let several = |text: &str| text.trim_end().contains('\n');
    // A last line without a break is only how it was written down.
    let ended = |text: String| if text.is_empty() || text.ends_with('\n') { text } else { text + "\n" };
    if !several(&a) && !several(&b) {
        return String::new();
    }
    if ended(a.clone()) == ended(b.clone()) { unified(&a, &b, None) } else { unified(&ended(a), &ended(b), None) }
}

/// A state that says `show_changes: False` wants its contents unseen.
fn hides(low: &Low) -> bool {
    low.contents.iter().any(|c| c.secret)
        || ["show_changes", "show_diff"].iter().any(|name| low.args.get(name).is_some_and(|show| !show.truthy()))
}

fn is_password(argument: &str) -> bool {
    argument.contains("passw") || argument.contains("passphrase")
}
