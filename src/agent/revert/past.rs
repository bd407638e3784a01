//! What journals tell of the runs that are taken back: which they are, what was there before them, and which commands they ran.

use std::collections::{BTreeMap, BTreeSet};

use crate::agent::history::{self, changed};
use crate::agent::keep;
use crate::agent::protocol::{RollbackRequest, RunRecord, RunState};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::plan::{Key, Kind, Verdict};
use crate::system::journal::{Journal, Noted};
use crate::system::{Entry, System};
use crate::value::{Attrs, gathered};

/// What the journals say of a key. `first` and `done` are the places in the journals of its before-image and of its first change.
pub struct Image {
    pub shown: Key,
    pub first: usize,
    pub done: Option<usize>,
    pub before: Attrs,
    pub reached: Option<Attrs>,
    pub secret: bool,
    pub failed: Option<String>,
}

/// The runs to take back with their journals, oldest first: the one asked for, and later ones on the same keys where that is wanted.
pub fn choose(sys: &System, request: &RollbackRequest) -> Result<Vec<(String, Journal)>> {
    let records = history::runs(sys)?;
    let wrong = |why: String| Diagnostic::new(Code::Failed, why);
    let Some(index) = records.iter().position(|r| r.header.id == request.run) else {
        return Err(wrong(format!("this host knows no run {}", request.run))
            .hint("`basalt runs` lists those that can be taken back")
            .into());
    };
    let (later, rest) = records.split_at(index);
    let Some(asked) = rest.first() else { return Ok(Vec::new()) };
    // What was left because it destroys data can be taken back later.
    if let Some(by) = asked.rolled_back_by.as_ref().filter(|_| !request.destroy_data) {
        return Err(wrong(format!("run {} has been taken back already, by run {by}", request.run)).into());
    }
    if let Some(running) = records.iter().find(|r| r.state == RunState::Running) {
        return Err(Diagnostic::new(Code::Locked, format!("run {} by {} is still under way", running.header.id, running.header.who)).into());
    }
    let mut chosen = vec![(request.run.clone(), sys.read_journal(&request.run)?)];
    let mut names = BTreeMap::new();
    let mut keys: BTreeSet<Key> = gathered(chosen.iter().flat_map(|(_, journal)| changed(journal)));
    let mut taken = BTreeSet::from([request.run.clone()]);
    let mut conflicts: Vec<String> = Vec::new();
    // From the older to the newer: a run that must come along can bring others, which are later still.
    for record in later.iter().rev() {
        if !counts(record, &taken, later) {
            continue;
        }
        let journal = sys.read_journal(&record.header.id)?;
        chosen.iter().map(|(_, journal)| journal).chain([&journal]).for_each(|journal| names.extend(masked_names(journal)));
        let common = changed(&journal).into_iter().filter(|key| keys.contains(key));
        let common: Vec<String> = common.map(|key| names.get(&key).unwrap_or(&key).to_string()).collect();
        if common.is_empty() {
            continue;
        }
        conflicts.push(format!("run {} by {}: {}", record.header.id, record.header.who, common.join(", ")));
        keys.extend(changed(&journal));
        taken.insert(record.header.id.clone());
        chosen.push((record.header.id.clone(), journal));
    }
    if !conflicts.is_empty() && !request.with_later {
        return Err(wrong(format!("later runs changed what run {} changed", request.run))
            .detail(conflicts.join("\n"))
            .hint("`--with-later` takes them back too")
            .into());
    }
    Ok(chosen)
}

/// The keys in whose names there is a secret, and how they are shown.
fn masked_names(journal: &Journal) -> BTreeMap<Key, Key> {
    let name = |entry: &Entry| match entry {
        Entry::Before { key, shown: Some(shown), .. } => Some((key.clone(), Key::new(key.kind, shown.as_str()))),
        _ => None,
    };
    gathered(journal.entries.iter().filter_map(name))
}

/// Whether a later run still stands in the way: not one that was taken back, nor the rollback that did it, nor an unfinished attempt
/// at the same rollback.
fn counts(record: &RunRecord, taken: &BTreeSet<String>, later: &[RunRecord]) -> bool {
    let rolls_back = &record.header.rolls_back;
    let is_later = |id: &String| later.iter().any(|r| r.header.id == *id);
    let cancels = !rolls_back.is_empty() && rolls_back.iter().all(|id| taken.contains(id) || is_later(id));
    record.rolled_back_by.is_none() && !cancels
}

/// What is to be restored, by key.
pub type Images = Vec<(Key, Image)>;

/// The earliest before-image of each key the runs changed; and all keys they may have touched.
/// A path at which something was mounted meanwhile has another image for what is seen there since.
pub fn images(sys: &System, journals: &[(String, Journal)]) -> Result<(Images, BTreeSet<Key>)> {
    let mut images: BTreeMap<Key, Vec<Image>> = BTreeMap::new();
    let mut mounted: Vec<(String, usize)> = Vec::new();
    let mut touched = BTreeSet::new();
    let mut place = 0;
    for (_, journal) in journals {
        let changed: BTreeSet<Key> = gathered(changed(journal));
        for entry in &journal.entries {
            place += 1;
            match entry {
                Entry::Before { key, attrs, kept, secret, shown } => {
                    touched.insert(key.clone());
                    if changed.contains(key) {
                        let shown = Key::new(key.kind, shown.as_ref().unwrap_or(&key.name));
                        let before = kept.as_ref().map_or_else(|| Ok(attrs.clone()), |kept| keep::attrs_of(sys, kept))?;
                        let image = Image { first: place, done: None, shown, before, reached: None, secret: *secret, failed: None };
                        let all = images.entry(key.clone()).or_default();
                        let since = all.last().map_or(0, |last| last.first);
                        let another = mounted.iter().any(|(path, at)| *at > since && key.kind == Kind::File && within(path, &key.name));
                        match all.last_mut() {
                            Some(last) if !another => last.secret |= secret,
                            _ => all.push(image),
                        }
                    }
                }
                Entry::After { key, attrs, .. } => {
                    if key.kind == Kind::Mount {
                        mounted.push((key.name.clone(), place));
                    }
                    if let Some(image) = images.get_mut(key).and_then(|all| all.last_mut()) {
                        image.reached = Some(attrs.clone());
                        image.done.get_or_insert(place);
                    }
                }
                Entry::Outcome(outcome) if outcome.result == Verdict::Failed => {
                    for change in &outcome.changes {
                        if let Some(image) = images.get_mut(&change.key).and_then(|all| all.last_mut()) {
                            image.failed = Some(outcome.comment.clone());
                        }
                    }
                }
                _ => {}
            }
        }
    }
    let images = images.into_iter().flat_map(|(key, all)| all.into_iter().map(move |image| (key.clone(), image)));
    Ok((images.collect(), touched))
}

/// Whether a path is another or below it.
pub fn within(top: &str, path: &str) -> bool {
    path == top || path.strip_prefix(top.trim_end_matches('/')).is_some_and(|rest| rest.starts_with('/'))
}

/// What unfinished attempts at taking these runs back have undone already (commands that undo are not run twice), and whether there
/// was one: what it restored may not have been made effective yet.
pub fn undone(sys: &System, runs: &[String]) -> Result<(Vec<Noted>, bool)> {
    let (mut undone, mut tried) = (Vec::new(), false);
    for attempt in history::runs(sys)? {
        if attempt.rolled_back_by.is_some() || !attempt.header.rolls_back.iter().any(|id| runs.contains(id)) {
            continue;
        }
        tried = true;
        let mut last = None;
        for entry in sys.read_journal(&attempt.header.id)?.entries {
            match entry {
                Entry::Ran { command, .. } => last = Some(command),
                Entry::Outcome(outcome) if outcome.result == Verdict::Changed => undone.extend(last.take()),
                Entry::Outcome(_) => last = None,
                _ => {}
            }
        }
    }
    Ok((undone, tried))
}

/// Commands to run once more at the end, each once, in the order in which they first ran.
pub fn again(journals: &[(String, Journal)]) -> Vec<(&str, &Noted, &str)> {
    let mut out: Vec<(&str, &Noted, &str)> = Vec::new();
    for (run, journal) in journals {
        for entry in &journal.entries {
            if let Entry::Ran { again: true, command, shown, .. } = entry
                && !out.iter().any(|(_, known, _)| *known == command)
            {
                out.push((run, command, shown));
            }
        }
    }
    out
}

/// What these runs made necessary themselves (each also repeats what was owed when it began, behind its header).
pub fn owed(journals: &[(String, Journal)]) -> Vec<String> {
    let mut owed = Vec::new();
    for (_, journal) in journals {
        let own = journal.entries.iter().skip(1).skip_while(|entry| matches!(entry, Entry::Owed(_)));
        owed.extend(own.filter_map(|entry| if let Entry::Owed(owed) = entry { Some(owed.what.clone()) } else { None }));
    }
    owed
}
