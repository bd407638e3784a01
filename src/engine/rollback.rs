//! Taking runs back: which run, what that changes now, and doing it.

use super::event::{Event, Summary};
use super::plan::{Planned, Work, on_all};
use super::session::{Blobs, Session};
use crate::agent::protocol::{RollbackRequest, RunRecord};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::fleet::Host;
use tokio::time::Instant;

/// Opens every host and reads its journal.
pub async fn journals(work: &Work, hosts: Vec<Host>, summary: &mut Summary) -> Vec<(Session, Vec<RunRecord>)> {
    summary.hosts = hosts.len();
    let inner = work.clone();
    on_all(work, hosts, summary, move |host| {
        let work = inner.clone();
        async move {
            let deadline = Instant::now() + work.run_timeout;
            let mut session = Session::open(work.connect.as_ref(), host, work.stop.clone(), deadline).await?;
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
        None => all()
            .filter(|r| r.rolled_back_by.is_none() && r.header.rolls_back.is_empty())
            .max_by_key(|r| r.header.started)
            .map(|r| r.header.id.clone())
            .ok_or_else(|| Diagnostic::new(Code::Usage, "there is no run to take back").into()),
    }
}

/// Asks every host that took part in the run what taking it back would change. The others' sessions are closed.
pub async fn plan(
    work: &Work,
    journals: Vec<(Session, Vec<RunRecord>)>,
    run: &str,
    with_later: bool,
    summary: &mut Summary,
) -> Vec<Planned> {
    let mut planned = Vec::new();
    for (mut session, runs) in journals {
        if !runs.iter().any(|r| r.header.id == run) {
            session.close().await;
            continue;
        }
        let id = session.host.id.clone();
        match session.plan_rollback(RollbackRequest { run: run.to_owned(), with_later }).await {
            Ok(plan) => {
                work.sink.event(Event::HostPlanned { host: &id, plan: &plan });
                summary.count_plan(&plan);
                planned.push(Planned { session, plan, blobs: Blobs::new(), names: Vec::new() });
            }
            Err(fault) => {
                work.sink.event(Event::HostFailed { host: &id, fault: &fault });
                summary.count_fault(&fault);
                session.close().await;
            }
        }
    }
    planned
}
