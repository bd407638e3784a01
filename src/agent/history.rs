//! What a host's journals tell of its runs: for `basalt runs`, for the notices of a plan, and for rollback.

use std::collections::BTreeMap;

use super::guard;
use super::lock::Lock;
use super::protocol::{RunRecord, RunState};
use crate::diagnostic::Result;
use crate::plan::{Key, Outcome, RunHeader, Tally};
use crate::system::System;
use crate::system::journal::{Entry, Journal, RunStart};

/// The runs of this host, newest first.
pub fn runs(sys: &System) -> Result<Vec<RunRecord>> {
    let starts = sys.runs()?;
    let holder = Lock::holder(sys).map(|run| run.id);
    let mut records: Vec<RunRecord> = Vec::new();
    for start in starts {
        // A damaged journal is a run all the same; what it did cannot be told.
        let journal = sys.read_journal(&start.header.id).unwrap_or_default();
        let mut record = record(&start, &journal);
        if record.state == RunState::Broken && holder.as_ref() == Some(&record.header.id) {
            record.state = RunState::Running;
        }
        record.rolled_back_by = taken_back_by(&record.header, &records);
        records.push(record);
    }
    Ok(records)
}

/// What the next plan has to say: a run that did not end, an unfinished rollback, what is still owed.
pub fn notices(sys: &System) -> Result<Vec<String>> {
    let mut notices = Vec::new();
    let Some(newest) = sys.runs()?.into_iter().next() else { return Ok(notices) };
    let RunHeader { id, who, rolls_back, .. } = &newest.header;
    match sys.read_journal(id) {
        Err(e) => notices.push(e.summary.clone()),
        Ok(journal) if record(&newest, &journal).state == RunState::Broken && Lock::holder(sys).is_none_or(|run| run.id != *id) => {
            notices.push(match rolls_back.is_empty() {
                true => format!("run {id} by {who} was broken off; `basalt rollback` takes back what it did"),
                false => {
                    format!("run {id} by {who}, a rollback, was broken off; `basalt rollback --run {}` finishes it", rolls_back.join(" "))
                }
            });
        }
        Ok(_) => {}
    }
    notices.extend(guard::notice(sys));
    notices.extend(sys.owed()?.into_iter().map(|owed| format!("still owed from an earlier run: {}", owed.shown)));
    Ok(notices)
}

/// The rollback, among those known, that took a run back. One that did not end, or that was taken back itself, has not.
fn taken_back_by(run: &RunHeader, later: &[RunRecord]) -> Option<String> {
    let complete = |r: &&RunRecord| r.state == RunState::Done && r.rolled_back_by.is_none() && r.header.rolls_back.contains(&run.id);
    later.iter().find(complete).map(|r| r.header.id.clone())
}

fn record(start: &RunStart, journal: &Journal) -> RunRecord {
    let mut tally = Tally::default();
    let (mut state, mut ended) = (RunState::Broken, 0);
    for entry in &journal.entries {
        match entry {
            Entry::Outcome(outcome) => count(&mut tally, outcome),
            Entry::End { tally: whole, stopped, at } => {
                (tally, ended) = (*whole, *at);
                state = match stopped {
                    Some(_) => RunState::Stopped,
                    None if tally.failed > 0 => RunState::Failed,
                    None => RunState::Done,
                };
            }
            _ => {}
        }
    }
    RunRecord { header: start.header.clone(), state, tally, ended, keys: changed(journal), rolled_back_by: None }
}

pub fn count(tally: &mut Tally, outcome: &Outcome) {
    tally.count(outcome.result);
}

/// The keys a run changed, or was about to change when it was broken off, by first touch. Before-images are taken of all that a plan
/// may change; a run that ended tells by its `After`s which of them it did.
pub fn changed(journal: &Journal) -> Vec<Key> {
    let ended = matches!(journal.entries.last(), Some(Entry::End { .. }));
    let mut keys: BTreeMap<&Key, usize> = BTreeMap::new();
    for (index, entry) in journal.entries.iter().enumerate() {
        match entry {
            Entry::After { key, .. } => drop(keys.entry(key).or_insert(index)),
            Entry::Before { key, .. } if !ended => drop(keys.entry(key).or_insert(index)),
            _ => {}
        }
    }
    let mut keys: Vec<(usize, &Key)> = keys.into_iter().map(|(key, index)| (index, key)).collect();
    keys.sort_unstable();
    keys.into_iter().map(|(_, key)| key.clone()).collect()
}
