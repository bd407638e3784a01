//! What has left the tree: remembers in the journal what a run makes, and finds what of it no state speaks of any more.
//!
//! What is to go becomes states of its own behind all others (`prune.file`, `prune.packages` …), the last made first, so it is planned, shown,
//! checked, journaled and taken back like any change. Never more than basalt made: what was there before, holds something else, belongs to
//! a package that stays or is somebody else's too is left, and the plan says so.

use std::collections::{BTreeMap, BTreeSet};

use super::history::changed;
use super::planner::{Decision, Planner, Turn};
use super::projection::{View, telling};
use super::protocol::Prune;
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::function::{Function, There, Want, cron};
use crate::object::packages::{self, Packages};
use crate::object::{self, Object};
use crate::plan::{Control, Hash, Key, Kind, Low};
use crate::secret::Mask;
use crate::system::journal::Journal;
use crate::system::{Entry, Made, Memory, System};
use crate::value::{Attrs, Value, attributes, gathered};

/// The module of states that take away.
pub const STATE: &str = "prune";
/// Reasons name so many things at most.
const NAMED: usize = 5;

/// What is planned beside the tree's own states.
#[derive(Default)]
pub struct Leaving {
    /// By the order in which they were made.
    states: Vec<(u64, Low, Box<dyn Function>)>,
    pub notices: Vec<String>,
    /// Made once, and gone without basalt: if they are there again one day, somebody else made them.
    pub forget: Vec<Made>,
}

/// The journal's note of what a change made of a key; `None`: nothing new. `before`: what was there before the run. A name with a secret in
/// it is not remembered.
pub fn note(sys: &System, mask: &Mask, origin: &str, low: &Low, key: &Key, before: &Attrs, after: &Attrs) -> Option<Entry> {
    let plain = |text: &str| mask.text(text) == text;
    if !plain(&key.name) {
        return None;
    }
    let run = sys.run_id().filter(|_| !origin.is_empty())?;
    let (known, mut order) = sys.made_of(key);
    let mut thing = |part: Option<String>, along: bool| {
        order += 1;
        let (origin, run, sls) = (origin.to_owned(), run.clone(), low.sls.clone());
        Made { key: key.clone(), part, origin, run, sls, order: order - 1, changed: false, along, left: String::new() }
    };
    let mut things = known.clone();
    match (parts(sys, key, before), parts(sys, key, after)) {
        (Some(before), Some(after)) => {
            things.retain(|made| made.part.as_ref().is_some_and(|part| after.contains_key(part)));
            for (part, along) in after {
                if !before.contains_key(&part) && plain(&part) && !things.iter().any(|made| made.part.as_ref() == Some(&part)) {
                    things.push(thing(Some(part), along));
                }
            }
        }
        _ if after.is_empty() => things.clear(),
        _ if matches!(key.kind, Kind::Pip | Kind::Packages) => return None,
        _ => {
            let left = digest(after);
            if things.iter().all(|made| made.origin != origin && !(before.is_empty() || made.changed)) || things.is_empty() {
                things.push(Made { changed: !before.is_empty(), ..thing(None, false) });
            }
            things.iter_mut().for_each(|made| made.left.clone_from(&left));
        }
    }
    (things != known).then(|| Entry::Made { key: Some(key.clone()), things })
}

/// The journal's note that these are nobody's any more.
pub fn forget(sys: &System, gone: &[Made]) -> Vec<Entry> {
    let keys: BTreeSet<&Key> = gathered(gone.iter().map(|made| &made.key));
    let rest = |key: &Key| sys.made_of(key).0.into_iter().filter(|made| !gone.contains(made)).collect();
    keys.into_iter().map(|key| Entry::Made { key: Some(key.clone()), things: rest(key) }).collect()
}

/// What was known of the things that runs changed, before they did; journals from the oldest on.
pub fn known_before(journals: &[(String, Journal)]) -> Vec<(Key, Vec<Made>)> {
    let mut known = BTreeMap::new();
    for (_, journal) in journals {
        let mut memory = Memory::default();
        let inherited = |entry: &&Entry| matches!(entry, Entry::Made { key: None, .. });
        journal.entries.iter().filter(inherited).for_each(|entry| memory.lay(entry));
        for key in changed(journal) {
            let things = memory.of(&key).to_vec();
            known.entry(key).or_insert(things);
        }
    }
    known.into_iter().collect()
}

/// The journal's note that this is known again, of the keys that are as they were.
pub fn known_again(sys: &System, known: &[(Key, Vec<Made>)], back: impl Fn(&Key) -> bool) -> Vec<Entry> {
    let differs = |(key, things): &&(Key, Vec<Made>)| back(key) && sys.made_of(key).0 != *things;
    known.iter().filter(differs).map(|(key, things)| Entry::Made { key: Some(key.clone()), things: things.clone() }).collect()
}

/// The things that an object holds side by side, and whether each came along with others; `None`: it is one thing.
fn parts(sys: &System, key: &Key, attrs: &Attrs) -> Option<BTreeMap<String, bool>> {
    let is = |name: &&str| attrs.get(*name).is_some_and(Value::truthy);
    match key.kind {
        Kind::Packages => Some(gathered(packages::installed(attrs).map(|(name, auto)| (name.to_owned(), auto)))),
        Kind::Service => Some(gathered(["active", "enabled", "masked"].into_iter().filter(is).map(|name| (name.to_owned(), false)))),
        Kind::Crontab => {
            let hash = attrs.get("content").and_then(Value::as_str).map(|hash| Hash(hash.to_owned()));
            let text = hash.and_then(|hash| sys.contents().bytes(&hash).ok()).unwrap_or_default();
            Some(gathered(cron::jobs(&String::from_utf8_lossy(&text)).into_iter().map(|job| (job, false))))
        }
        _ => None,
    }
}

fn digest(attrs: &Attrs) -> String {
    let Hash(hash) = Hash::of(&serde_json::to_vec(&telling(attrs)).unwrap_or_default());
    hash.chars().take(16).collect()
}

/// What has left the tree, after all its states were planned.
pub fn leaving(
    planner: &Planner,
    lows: &[Low],
    functions: &[Box<dyn Function>],
    turns: &[Turn],
    origin: &str,
    how: Prune,
) -> Result<Leaving> {
    let sys = planner.projection.sys;
    if lows.is_empty() {
        return Err(Diagnostic::new(Code::Failed, "nothing is described for this host, so nothing is pruned")
            .detail("`--prune` would take away all that basalt made here.")
            .hint("look whether the top file still names this host; to clear a host on purpose, leave it one state (`test.nop`)")
            .into());
    }
    let memory = sys.made()?;
    let mut found = Leaving::default();
    let ours: Vec<&Made> = memory.all().filter(|made| made.origin == origin).collect();
    if turns.iter().any(|turn| matches!(turn.decision, Decision::Fail(_) | Decision::Skip(_))) {
        found.notices.push("nothing is pruned while states of this plan fail".to_owned());
        return Ok(found);
    }
    let spoken = Spoken::of(planner, lows, functions, turns);
    let mut candidates: Vec<&Made> = ours.into_iter().filter(|made| !spoken.has(made)).collect();
    let changed: Vec<String> = candidates.iter().filter(|made| made.changed).map(|made| shown(made)).collect();
    if !changed.is_empty() {
        found.notices.push(format!("left the tree and stays as it is, for it was there before basalt: {}", listed(&changed)));
    }
    candidates.retain(|made| !made.changed);
    let going = packages_going(planner, &candidates, &mut found)?;
    let files: BTreeSet<&str> = gathered(candidates.iter().filter(|made| made.key.kind == Kind::File).map(|made| made.key.name.as_str()));
    let owners = packages::owners(sys, &files)?;
    for made in candidates.iter().filter(|made| made.key.kind != Kind::Packages) {
        let now = planner.projection.now(&made.key)?;
        if now.is_empty()
            || parts(sys, &made.key, &now).is_some_and(|parts| made.part.as_ref().is_some_and(|part| !parts.contains_key(part)))
        {
            found.forget.push((*made).clone());
            continue;
        }
        let others = memory.of(&made.key).iter().find(|other| other.origin != origin && other.part == made.part);
        let owner = owners.get(made.key.name.as_str()).filter(|owner| made.key.kind == Kind::File && !going.contains(*owner));
        let object = object::of(&made.key)?;
        let mut to = Attrs::new();
        if made.key.kind == Kind::Service {
            to.extend(made.part.iter().map(|part| (part.clone(), Value::Null)));
        }
        let destroys = || object.destroys(sys, &now, &to).or_else(|| in_use(sys, &made.key)).filter(|_| !how.destroy_data);
        let stays = match (others, owner) {
            (Some(other), _) => Some(format!("another state repository made or changed it too, in run {}", other.run)),
            (_, Some(owner)) => Some(format!("it belongs to the package {owner}, which stays")),
            _ => destroys().map(|why| format!("{why}; `--destroy-data` takes it away nevertheless")),
        };
        match stays {
            Some(why) => found.notices.push(format!("{} left the tree and stays: {why}", shown(made))),
            None => {
                let since = !made.left.is_empty() && made.left != digest(&now);
                found.add(made, to, since);
            }
        }
    }
    found.add_packages(&candidates, &going, how);
    found.states.sort_by_key(|(order, ..)| std::cmp::Reverse(*order));
    Ok(found)
}

/// The turns without those of what cannot go as things are, which the plan only tells.
pub fn without_stays(lows: &[Low], turns: Vec<Turn>, notices: &mut Vec<String>) -> Vec<Turn> {
    let stays = |turn: &Turn| match (lows.get(turn.low), &turn.decision) {
        (Some(low), Decision::Stay(why)) if low.state == STATE => Some(format!("{}:{} left the tree and stays: {why}", low.fun, low.name)),
        _ => None,
    };
    notices.extend(turns.iter().filter_map(stays));
    turns.into_iter().filter(|turn| stays(turn).is_none()).collect()
}

/// A mount is data to whoever looks there, though it stays on its device.
fn in_use(sys: &System, key: &Key) -> Option<String> {
    let holds = key.kind == Kind::Mount && sys.list(&key.name).is_ok_and(|names| names.iter().any(|name| name != "lost+found"));
    holds.then(|| format!("there is something in what is mounted at {}", key.name))
}

/// What the tree's states speak of.
struct Spoken {
    keys: BTreeSet<Key>,
    parts: BTreeSet<(Key, String)>,
    /// Files under whatever name.
    real: BTreeSet<String>,
    /// SLS with states of which it is not known yet what they speak of.
    unsure: BTreeSet<String>,
}

impl Spoken {
    fn of(planner: &Planner, lows: &[Low], functions: &[Box<dyn Function>], turns: &[Turn]) -> Spoken {
        let sys = planner.projection.sys;
        let mut spoken = Spoken { keys: BTreeSet::new(), parts: BTreeSet::new(), real: BTreeSet::new(), unsure: BTreeSet::new() };
        for (low, function) in lows.iter().zip(functions) {
            let view = View { projection: &planner.projection, lows, low };
            match planner.objects(&**function, &view) {
                Ok(keys) => {
                    let parts = function.parts();
                    for key in &keys {
                        spoken.parts.extend(parts.iter().map(|part| (key.clone(), part.clone())));
                    }
                    spoken.keys.extend(keys);
                }
                Err(_) => drop(spoken.unsure.insert(low.sls.clone())),
            }
            if low.name.starts_with('/') {
                spoken.keys.insert(Key::new(Kind::File, low.name.trim_end_matches('/')));
            }
        }
        // What an archive holds is known when it is there.
        let unknown = turns.iter().filter(|turn| matches!(turn.decision, Decision::Unknown { .. })).filter_map(|turn| lows.get(turn.low));
        spoken.unsure.extend(unknown.filter(|low| low.state == "archive").map(|low| low.sls.clone()));
        spoken.real = gathered(spoken.keys.iter().filter(|key| key.kind == Kind::File).map(|key| sys.resolve(&key.name)));
        spoken
    }

    fn has(&self, made: &Made) -> bool {
        let key = &made.key;
        self.unsure.contains(&made.sls)
            || match (&made.part, key.kind) {
                (Some(part), Kind::Packages | Kind::Crontab) => self.parts.contains(&(key.clone(), part.clone())),
                (_, Kind::File) => self.keys.contains(key) || self.real.contains(&key.name),
                _ => self.keys.contains(key),
            }
    }
}

/// The packages that go: those that left the tree, and what came with them if nothing needs it any more.
fn packages_going(planner: &Planner, candidates: &[&Made], found: &mut Leaving) -> Result<BTreeSet<String>> {
    let sys = planner.projection.sys;
    let Some(key) = candidates.iter().map(|made| &made.key).find(|key| key.kind == Kind::Packages).cloned() else {
        return Ok(BTreeSet::new());
    };
    let from = planner.projection.now(&key)?;
    let there: BTreeMap<&str, bool> = gathered(packages::installed(&from));
    let made = || candidates.iter().filter(|made| made.key == key).filter_map(|made| Some((made.part.clone()?, made.along)));
    let along: BTreeSet<String> =
        gathered(made().filter(|(name, along)| *along && there.get(name.as_str()) == Some(&true)).map(|(name, _)| name));
    // One that came along and was asked for by hand since is somebody's.
    let mut going: BTreeSet<String> =
        gathered(made().filter(|(name, along)| !along && there.contains_key(name.as_str())).map(|(name, _)| name));
    let object = Packages::new(&key.name);
    let removed = |names: &BTreeSet<String>| attributes(names.iter().map(|name| (name.clone(), Value::str("removed"))));
    let others = |names: &BTreeSet<String>| -> Result<Vec<String>> {
        let to = object.resolve(sys, &from, &removed(names), &|_| false)?;
        let stays: BTreeSet<&str> = gathered(packages::installed(&to).map(|(name, _)| name));
        let goes = |name: &&String| there.contains_key(name.as_str()) && !stays.contains(name.as_str());
        Ok(to.keys().filter(goes).filter(|name| !names.contains(*name) && !along.contains(*name)).cloned().collect())
    };
    if !going.is_empty() && !others(&going)?.is_empty() {
        for name in going.clone() {
            let needed = others(&BTreeSet::from([name.clone()]))?.into_iter().filter(|other| !going.contains(other)).collect::<Vec<_>>();
            if !needed.is_empty() {
                going.remove(&name);
                found
                    .notices
                    .push(format!("package {name} left the tree and stays: {} needs it, which basalt did not install", listed(&needed)));
            }
        }
        if !others(&going)?.is_empty() {
            found.notices.push(format!(
                "packages left the tree and stay, for others need them: {}",
                listed(&going.iter().cloned().collect::<Vec<_>>())
            ));
            going.clear();
        }
    }
    if !along.is_empty() {
        let unneeded = object.unneeded(sys, &from, &going.iter().cloned().collect::<Vec<_>>())?;
        going.extend(unneeded.into_iter().filter(|name| along.contains(name)));
    }
    Ok(going)
}

impl Leaving {
    /// The states, what was made last first.
    pub fn states(&mut self) -> impl Iterator<Item = (Low, Box<dyn Function>)> {
        std::mem::take(&mut self.states).into_iter().map(|(_, low, function)| (low, function))
    }

    fn add(&mut self, made: &Made, to: Attrs, since: bool) {
        let since = if since { "; changed since, and lost" } else { "" };
        let reason = format!("left the tree: made by run {} of {}{since}", made.run, made.sls);
        let name = made.part.as_ref().map_or_else(|| made.key.name.clone(), |part| format!("{} {part}", made.key.name));
        self.push(made, name, reason, to);
    }

    /// One transaction, when everything is gone that was made since the first of them.
    fn add_packages(&mut self, candidates: &[&Made], going: &BTreeSet<String>, how: Prune) {
        let goes = |made: &&&Made| made.key.kind == Kind::Packages && made.part.as_ref().is_some_and(|part| going.contains(part));
        let Some(first) = candidates.iter().filter(goes).min_by_key(|made| made.order) else { return };
        let by: BTreeSet<String> = gathered(candidates.iter().filter(goes).map(|made| format!("run {} of {}", made.run, made.sls)));
        let names: Vec<&str> = going.iter().map(String::as_str).collect();
        // Purging takes what a program has gathered in /var along.
        let value = if how.destroy_data { Value::Null } else { Value::str("removed") };
        let to = attributes(going.iter().map(|name| (name.clone(), value.clone())));
        let reason = format!("left the tree: made by {}", listed(&by.into_iter().collect::<Vec<_>>()));
        self.push(first, names.join(", "), reason, to);
    }

    fn push(&mut self, made: &Made, name: String, reason: String, to: Attrs) {
        let low = Low {
            id: name.clone(),
            sls: made.sls.clone(),
            state: STATE.to_owned(),
            fun: made.key.kind.name().to_owned(),
            name,
            args: [("reason", Value::Str(reason))].into_iter().collect(),
            requisites: Vec::new(),
            control: Control::default(),
            contents: Vec::new(),
            failed: None,
            span: None,
        };
        let gone = Gone { key: made.key.clone(), part: made.part.clone(), to };
        self.states.push((made.order, low, Box::new(gone)));
    }
}

/// Takes a thing away that has left the tree.
struct Gone {
    key: Key,
    part: Option<String>,
    to: Attrs,
}

impl Function for Gone {
    fn objects(&self, _: &dyn There) -> Result<Vec<Key>> {
        Ok(vec![self.key.clone()])
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        let now = there.get(&self.key);
        if now.is_empty() {
            return Ok(Want::Nothing("it is not there any more".into()));
        }
        if self.key.kind == Kind::File && now.get("kind").and_then(Value::as_str) == Some("directory") {
            let inside: Vec<String> = there.list(&self.key.name)?.into_keys().collect();
            if !inside.is_empty() {
                return Ok(Want::Nothing(format!("in it is what basalt did not make: {}", listed(&inside))));
            }
        }
        let to = match (self.key.kind, &self.part) {
            (Kind::Crontab, Some(job)) => {
                let Some(hash) = now.get("content").and_then(Value::as_str) else { return Ok(Want::Nothing("it is empty".into())) };
                let text = there.bytes(&Hash(hash.to_owned()))?;
                let rest = cron::without(&String::from_utf8_lossy(&text), job);
                attributes([("content".to_owned(), Value::Str(there.put(rest.into_bytes()).0))])
            }
            _ => self.to.clone(),
        };
        Ok(Want::Is(vec![(self.key.clone(), to)]))
    }
}

fn shown(made: &Made) -> String {
    match &made.part {
        Some(part) => format!("{} {part}", made.key),
        None => made.key.to_string(),
    }
}

fn listed(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let named: Vec<&str> = names.iter().take(NAMED).map(String::as_str).collect();
    if more > 0 { format!("{} and {more} more", named.join(", ")) } else { named.join(", ") }
}
