//! Taking runs back: which run, what that changes now, and doing it.

use tokio::task::JoinSet;

use super::event::{Event, Summary};
use super::plan::{Planned, Work, on_all};
use super::session::{Blobs, Session};
use crate::agent::protocol::{RollbackRequest, RunRecord};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::fleet::Host;

/// Opens every host and reads its journal.
pub async fn journals(work: &Work, hosts: Vec<Host>, summary: &mut Summary) -> Vec<(Session, Vec<RunRecord>)> {
    summary.hosts += hosts.len();
    let inner = work.clone();
    on_all(work, hosts, summary, move |host| {
        let work = inner.clone();
        async move {
            let mut session = work.session(host).await?;
            let runs = session.runs().await?;
            Ok((session, runs))
        }
    })
    .await
}

/// The run to take back: the one asked for, or the newest that is neither taken back nor itself a rollback.
pub fn choose(journals: &[(Session, Vec<RunRecord>)], asked: Option<&str>) -> Result<String> {
    let all = || journals.iter().flat_map(|(_, runs)| runs);
    match asked {
        Some(run) if all().any(|r| r.header.id == run) => Ok(run.to_owned()),
        Some(run) => {
            let known: Vec<&str> = all().map(|r| r.header.id.as_str()).collect();
            let fault = Diagnostic::new(Code::Usage, format!("no host that was asked knows a run {run:?}"));
            Err(match crate::diagnostic::nearest(run, known) {
                Some(near) => fault.hint(format!("did you mean {near}?")).into(),
                None => fault.hint("`basalt runs` lists the runs").into(),
            })
        }
        None => {
            newest(journals.iter().map(|(_, runs)| runs)).ok_or_else(|| Diagnostic::new(Code::Usage, "there is no run to take back").into())
        }
    }
}

/// The newest run over all journals, each of which is newest first: its order holds, whatever the clocks of controllers said. Clocks
/// decide only between runs that no host can tell apart.
fn newest<'a>(journals: impl Iterator<Item = &'a Vec<RunRecord>>) -> Option<String> {
    let open = |r: &&RunRecord| r.rolled_back_by.is_none() && r.header.rolls_back.is_empty();
    let journals: Vec<Vec<&RunRecord>> = journals.map(|runs| runs.iter().filter(open).collect()).collect();
    let firsts: Vec<&RunRecord> = journals.iter().filter_map(|runs| runs.first().copied()).collect();
    let id = |r: &&RunRecord| r.header.id.clone();
    // What stands behind another host's newest somewhere is older than that.
    let older = |r: &&RunRecord| journals.iter().any(|runs| runs.iter().skip(1).any(|other| other.header.id == r.header.id));
    let started = |r: &&RunRecord| r.header.started;
    firsts.iter().copied().filter(|r| !older(r)).max_by_key(started).or(firsts.iter().copied().max_by_key(started)).as_ref().map(id)
}

/// How far a rollback goes.
#[derive(Clone, Copy)]
pub struct Ask {
    /// Later runs that touched the same things are taken back too.
    pub with_later: bool,
    /// What destroys data is taken back too.
    pub destroy_data: bool,
}

/// Asks every host that took part in the run what taking it back would change. The others' sessions are closed, and those of hosts on
/// which it was taken back already while others could not be reached.
pub async fn plan(work: &Work, journals: Vec<(Session, Vec<RunRecord>)>, run: &str, ask: Ask, summary: &mut Summary) -> Vec<Planned> {
    let left = journals.iter().any(|(_, runs)| runs.iter().any(|r| r.header.id == run && r.rolled_back_by.is_none()));
    let mut tasks = JoinSet::new();
    for (index, (mut session, runs)) in journals.into_iter().enumerate() {
        let (work, run) = (work.clone(), run.to_owned());
        tasks.spawn(async move {
            if !runs.iter().any(|r| r.header.id == run && (r.rolled_back_by.is_none() || !left)) {
                session.close().await;
                return None;
            }
            let id = session.host.id.clone();
            match session.plan_rollback(RollbackRequest { run, with_later: ask.with_later, destroy_data: ask.destroy_data }).await {
                Ok(plan) => {
                    work.sink.event(Event::HostPlanned { host: &id, plan: &plan });
                    Some(Ok((index, Planned { session, plan, blobs: Blobs::new(), names: Vec::new() })))
                }
                Err(fault) => {
                    work.sink.event(Event::HostFailed { host: &id, fault: &fault });
                    session.close().await;
                    Some(Err((id, fault)))
                }
            }
        });
    }
    let mut planned = Vec::new();
    for result in tasks.join_all().await.into_iter().flatten() {
        match result {
            Ok(host) => planned.push(host),
            Err((host, fault)) => summary.drop_host(host, *fault),
        }
    }
    planned.sort_by_key(|(index, _)| *index);
    planned.iter().for_each(|(_, host)| summary.count_plan(&host.plan));
    planned.into_iter().map(|(_, host)| host).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::protocol::{RunHeader, RunState};

    fn run(id: &str, started: u64) -> RunRecord {
        let header = RunHeader {
            id: id.into(),
            who: "ann@desk".into(),
            started,
            tree: String::new(),
            commit: String::new(),
            repository: String::new(),
            rolls_back: vec![],
        };
        RunRecord { header, state: RunState::Done, tally: Default::default(), ended: 0, keys: vec![], rolled_back_by: None }
    }

    #[test]
    fn the_journals_tell_which_run_is_the_newest_and_not_the_clocks() {
        // The clock was put back between two runs.
        let host = vec![run("second", 100), run("first", 200)];
        assert_eq!(newest([&host].into_iter()).as_deref(), Some("second"));
        // Another host saw the first only.
        let other = vec![run("first", 200)];
        assert_eq!(newest([&host, &other].into_iter()).as_deref(), Some("second"));
        // Hosts without a common run: the clocks are all there is.
        assert_eq!(newest([&host, &vec![run("third", 300)]].into_iter()).as_deref(), Some("third"));
        let mut done = host.clone();
        done[0].rolled_back_by = Some("x".into());
        assert_eq!(newest([&done].into_iter()).as_deref(), Some("first"));
        assert_eq!(newest([].into_iter()), None);
    }
}
