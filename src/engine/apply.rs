//! Applying what was planned: every host is locked and checked before the first is touched, then wave by wave.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::task::JoinSet;

use super::event::{Event, Summary};
use super::guard::{self, End};
use super::plan::{Name, Planned, Work};
use super::schedule::{Batch, may_go_on, waves};
use super::session::{Blobs, Session};
use crate::agent::protocol::{Applied, Body, RollbackRequest, RunHeader};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::plan::{Action, HostPlan, Step, Tally, Verdict};

#[derive(Clone)]
pub struct ApplyOptions {
    pub run: RunHeader,
    /// The run that takes this one back when a host fails; `None`: what failed stays as it is.
    pub rollback: Option<RunHeader>,
    pub batch: Option<Batch>,
    pub canary: usize,
    pub max_failures: Option<usize>,
    /// Seconds to wait for another run on a host to end.
    pub lock_timeout: u64,
    /// Seconds until a host takes back a run that can cut the connection, where nobody confirms it.
    pub guard_timeout: u64,
}

/// What became of one host.
#[derive(Clone, Debug)]
pub struct HostResult {
    pub host: String,
    pub tally: Tally,
    pub fault: Option<Diagnostic>,
    /// Why it did not come to its end, where no fault says so.
    pub stopped: Option<String>,
    /// The host took the run back by itself.
    pub taken_back: Option<TakenBack>,
}

/// A run that its host took back because nobody confirmed it.
#[derive(Clone, Debug)]
pub struct TakenBack {
    /// The run that did it.
    pub by: String,
    pub tally: Tally,
    /// Nothing of it is left.
    pub whole: bool,
    pub why: String,
}

impl HostResult {
    /// Of a host to which nothing has happened yet.
    pub fn of(host: impl Into<String>) -> HostResult {
        HostResult { host: host.into(), tally: Tally::default(), fault: None, stopped: None, taken_back: None }
    }

    pub fn is_unreachable(&self) -> bool {
        self.fault.as_ref().is_some_and(|fault| matches!(fault.code, Code::Unreachable | Code::HostKey))
    }
}

/// What became of the hosts in a run, and in the run that took it back.
#[derive(Default)]
pub struct Results {
    pub run: Vec<HostResult>,
    pub taken_back: Vec<HostResult>,
}

/// Applies the plans the hosts' agents keep. Hosts without a change are not touched. Faults are told and counted, not returned.
pub async fn apply(work: &Work, planned: Vec<Planned>, options: &ApplyOptions, summary: &mut Summary) -> Results {
    let mut results = Vec::new();
    // A rollback that changes nothing still takes away what a broken run left half written, and notes that the run is taken back.
    let acts = |host: &Planned| !host.plan.steps.is_empty() || !options.run.rolls_back.is_empty();
    let (busy, idle): (Vec<_>, Vec<_>) = planned.into_iter().partition(acts);
    for host in &idle {
        let applied =
            Applied { tally: Tally { ok: host.plan.unchanged, ..Tally::default() }, stopped: None, generation: host.plan.generation };
        work.sink.event(Event::HostDone { host: &host.session.host.id, applied: &applied });
        results.push(HostResult { tally: applied.tally, ..HostResult::of(&host.session.host.id) });
    }
    let Some(mut ready) = checked(work, busy, options, summary, &mut results).await else {
        return Results { run: results, ..Results::default() };
    };
    if ready.is_empty() {
        return Results { run: results, ..Results::default() };
    }
    work.sink.event(Event::RunStarted { run: &options.run.id, hosts: ready.len() });
    let mut failed = 0;
    let mut touched: Vec<Session> = Vec::new();
    for (index, size) in waves(ready.len(), options.batch, options.canary).into_iter().enumerate() {
        let wave: Vec<Planned> = ready.drain(..size.min(ready.len())).collect();
        for (result, session, wave_summary) in run_wave(work, wave, options).await {
            summary.add_applied(&wave_summary);
            if result.fault.is_some()
                || result.taken_back.is_some()
                || result.tally.failed > 0
                || (result.stopped.is_some() && !work.stop.is_pulled())
            {
                failed += 1;
            }
            touched.extend(session);
            results.push(result);
        }
        if work.stop.is_pulled() {
            summary.codes.push(Code::Interrupted);
            if !ready.is_empty() {
                work.sink.event(Event::Stopped { reason: "interrupted; the remaining hosts were not touched" });
            }
            break;
        }
        if let (false, Err(reason)) = (ready.is_empty(), may_go_on(failed, options.max_failures, index == 0 && options.canary > 0)) {
            work.sink.event(Event::Stopped { reason: &format!("{reason}; the remaining hosts were not touched") });
            break;
        }
    }
    let begun = |host: &Planned| HostResult { stopped: Some("not begun".to_owned()), ..HostResult::of(&host.session.host.id) };
    results.extend(ready.iter().map(begun));
    close_all(ready.into_iter().map(|host| host.session).collect()).await;
    let taken_back = match &options.rollback {
        Some(back) if failed > 0 => take_back(work, touched, options, back, summary).await,
        _ => {
            close_all(touched).await;
            Vec::new()
        }
    };
    Results { run: results, taken_back }
}

/// Locks and checks all hosts. `None`: the run is refused as a whole (another run holds a host, or a plan no longer holds) and
/// nothing was touched. Hosts that cannot be reached any more drop out.
async fn checked(
    work: &Work,
    hosts: Vec<Planned>,
    options: &ApplyOptions,
    summary: &mut Summary,
    results: &mut Vec<HostResult>,
) -> Option<Vec<Planned>> {
    let mut tasks = JoinSet::new();
    for (index, mut host) in hosts.into_iter().enumerate() {
        let (run, lock_timeout) = (options.run.clone(), options.lock_timeout);
        let time = work.run_timeout.saturating_add(Duration::from_secs(lock_timeout));
        tasks.spawn(async move {
            host.session.renew(time);
            let checked = host.session.check(&run, lock_timeout, &host.blobs).await;
            (index, host, checked)
        });
    }
    let mut ready = Vec::new();
    let mut refused = false;
    while let Some(done) = tasks.join_next().await {
        let Ok((index, host, checked)) = done else { continue };
        match checked {
            Ok(()) => ready.push((index, host)),
            Err(fault) => {
                let id = &host.session.host.id;
                work.sink.event(Event::HostFailed { host: id, fault: &fault });
                summary.count_fault(&fault);
                refused |= !matches!(fault.code, Code::Unreachable | Code::HostKey);
                results.push(HostResult { fault: Some(*fault), ..HostResult::of(id) });
            }
        }
    }
    if refused {
        work.sink.event(Event::Stopped { reason: "not every host can be taken as it was planned; nothing was touched" });
        return None;
    }
    ready.sort_by_key(|(index, _)| *index);
    Some(ready.into_iter().map(|(_, host)| host).collect())
}

async fn run_wave(work: &Work, wave: Vec<Planned>, options: &ApplyOptions) -> Vec<(HostResult, Option<Session>, Summary)> {
    let mut tasks = JoinSet::new();
    for host in wave {
        let (work, run, guard) = (work.clone(), options.run.clone(), options.guard_timeout);
        tasks.spawn(async move { apply_host(&work, host, &run, guard).await });
    }
    tasks.join_all().await
}

/// Applies one host's plan. The session comes back while it lives, for a rollback.
async fn apply_host(work: &Work, host: Planned, run: &RunHeader, guard: u64) -> (HostResult, Option<Session>, Summary) {
    let Planned { mut session, plan, blobs, names } = host;
    let id = session.host.id.clone();
    let mut summary = Summary::default();
    let mut result = HostResult::of(&id);
    session.renew(work.run_timeout);
    let carry = Carry { work, plan: &plan, blobs: &blobs, names: &names, run, guard };
    let (told, applied, taken_back) = carry.confirmed(&mut session, &mut summary).await;
    if taken_back.is_some() {
        // How its states ended is of no account any more, and neither is how the connection did.
        summary.codes.push(Code::TakenBack);
        (result.tally, result.taken_back) = (told, taken_back);
        return (result, None, summary);
    }
    match applied {
        Ok(applied) => {
            work.sink.event(Event::HostDone { host: &id, applied: &applied });
            summary.count_tally(&applied.tally);
            // Not the user, and no state that failed: its time was over.
            if applied.stopped.is_some() && applied.tally.failed == 0 && !work.stop.is_pulled() {
                summary.failed += 1;
                summary.codes.push(Code::Failed);
            }
            result.tally = applied.tally;
            result.stopped = applied.stopped;
            (result, Some(session), summary)
        }
        Err(fault) => {
            work.sink.event(Event::HostFailed { host: &id, fault: &fault });
            summary.count_fault(&fault);
            let alive = !matches!(fault.code, Code::Unreachable | Code::HostKey | Code::Damaged);
            result.tally = told;
            result.fault = Some(*fault);
            (result, alive.then_some(session), summary)
        }
    }
}

/// The plan that a host's agent keeps, on its way to being carried out.
struct Carry<'a> {
    work: &'a Work,
    plan: &'a HostPlan,
    blobs: &'a Blobs,
    names: &'a [Name],
    run: &'a RunHeader,
    /// Seconds that the host waits for a plan that can cut the connection to be confirmed.
    guard: u64,
}

impl Carry<'_> {
    /// Carries it out. A plan that can cut the connection is confirmed over a new one, or the host takes it back.
    async fn confirmed(&self, session: &mut Session, summary: &mut Summary) -> (Tally, Result<Applied>, Option<TakenBack>) {
        let (told, applied) = self.out(session, summary).await;
        if !self.plan.is_guarded() {
            return (told, applied, None);
        }
        let (work, run, host) = (self.work, self.run, session.host.clone());
        // What was lost on the way may have come to its end: the host knows.
        let ended = match &applied {
            Ok(applied) => applied.stopped.is_none() || applied.tally.failed > 0,
            Err(fault) => fault.code != Code::Interrupted,
        };
        match guard::settle(work, &host, run, self.guard, ended).await {
            Ok(End::Confirmed(known)) => {
                work.sink.event(Event::Confirmed { host: &host.id, run: &run.id });
                (told, applied.or(Ok(known)), None)
            }
            Ok(End::Nothing) => (told, applied, None),
            Ok(End::TakenBack(back)) => {
                let TakenBack { by, tally, whole, why } = &back;
                work.sink.event(Event::RolledBack { host: &host.id, run: &run.id, by, changes: tally.changed, guard: Some(why) });
                if !whole {
                    let fault = Diagnostic::new(Code::Failed, format!("{} could take run {} back in part only", host.id, run.id))
                        .hint(format!("`basalt rollback --run {} {}` tries again", run.id, host.id));
                    work.sink.event(Event::HostFailed { host: &host.id, fault: &fault });
                    summary.count_fault(&fault);
                }
                (told, applied, Some(back))
            }
            Err(fault) => (told, Err(fault), None),
        }
    }

    /// Carries it out and turns the agent's messages into events. Gives what became of its states as they were told, which is all that is
    /// known when the host is lost on the way.
    async fn out(&self, session: &mut Session, summary: &mut Summary) -> (Tally, Result<Applied>) {
        let Carry { plan, names, .. } = self;
        let (id, sink) = (session.host.id.clone(), &self.work.sink);
        let step_of = |low: usize| plan.steps.iter().find(|s| s.low == low);
        // A state may be told of twice: when it listens, or when a rollback finds at its end that something did not last. The worst counts.
        let mut ends: BTreeMap<usize, Verdict> = BTreeMap::new();
        let mut event = |body: Body| match body {
            Body::Started { low } => {
                sink.event(Event::StateStarted { host: &id, step: step_of(low), done: ends.len(), of: plan.steps.len() });
            }
            Body::Line { text, .. } => sink.event(Event::Line { host: &id, text: &text }),
            Body::Done(outcome) => {
                let step = step_of(outcome.low);
                let end = ends.entry(outcome.low).or_insert(outcome.result);
                *end = worse(*end, outcome.result);
                let unnamed = Name { id: String::new(), state: String::new(), name: String::new(), sls: String::new() };
                let Name { id: state_id, state, name, sls } =
                    &names.get(outcome.low).cloned().or_else(|| step.map(name_of)).unwrap_or(unnamed);
                sink.event(Event::StateDone { host: &id, id: state_id, state, name, sls, outcome: &outcome });
            }
            _ => {}
        };
        let guard = plan.is_guarded().then_some(self.guard);
        let applied = session.apply(&plan.fingerprint, self.run, guard, self.blobs, &mut event).await;
        let mut told = Tally { ok: plan.unchanged, ..Tally::default() };
        for (low, verdict) in ends {
            told.count(verdict);
            summary.count_outcome(verdict, step_of(low).map_or(Action::None, |s| s.action));
        }
        (told, applied)
    }
}

fn worse(a: Verdict, b: Verdict) -> Verdict {
    let order = [Verdict::Failed, Verdict::Changed, Verdict::Skipped];
    order.into_iter().find(|v| *v == a || *v == b).unwrap_or(Verdict::Ok)
}

fn name_of(step: &Step) -> Name {
    Name { id: step.id.clone(), state: step.state.clone(), name: step.name.clone(), sls: step.sls.clone() }
}

/// `--rollback-on-failure`: takes this run back on every host it touched, over the sessions that still hold the locks.
async fn take_back(
    work: &Work,
    sessions: Vec<Session>,
    options: &ApplyOptions,
    back: &RunHeader,
    summary: &mut Summary,
) -> Vec<HostResult> {
    let mut tasks = JoinSet::new();
    for mut session in sessions {
        let (work, run, back, guard) = (work.clone(), options.run.id.clone(), back.clone(), options.guard_timeout);
        tasks.spawn(async move {
            let id = session.host.id.clone();
            let result = take_back_host(&work, &mut session, &run, &back, guard).await;
            match &result {
                Ok(Some((changes, _))) => {
                    work.sink.event(Event::RolledBack { host: &id, run: &run, by: &back.id, changes: *changes, guard: None });
                }
                Ok(None) => {}
                Err(fault) => work.sink.event(Event::HostFailed { host: &id, fault }),
            }
            session.close().await;
            (id, result)
        });
    }
    let mut results = Vec::new();
    for (host, result) in tasks.join_all().await {
        match result {
            Ok(None) => {}
            Ok(Some((_, tally))) => {
                summary.codes.push(Code::TakenBack);
                results.push(HostResult { tally, ..HostResult::of(host) });
            }
            Err(fault) => {
                summary.count_fault(&fault);
                results.push(HostResult { fault: Some(*fault), ..HostResult::of(host) });
            }
        }
    }
    results
}

/// `None`: the run had not begun there.
async fn take_back_host(work: &Work, session: &mut Session, run: &str, back: &RunHeader, guard: u64) -> Result<Option<(usize, Tally)>> {
    // Who asked for this does not want half of it, whatever signal ended the run.
    session.unstoppable();
    session.renew(work.run_timeout);
    if !session.runs().await?.iter().any(|r| r.header.id == run) {
        return Ok(None);
    }
    let plan = session.plan_rollback(RollbackRequest { run: run.to_owned(), with_later: false, destroy_data: false }).await?;
    let mut summary = Summary::default();
    session.check(back, 0, &Blobs::new()).await?;
    let carry = Carry { work, plan: &plan, blobs: &Blobs::new(), names: &[], run: back, guard };
    let (_, applied, undone) = carry.confirmed(session, &mut summary).await;
    if let Some(undone) = undone {
        return Err(Diagnostic::new(Code::Failed, format!("taking run {run} back cut the connection, and was itself taken back"))
            .detail(undone.why)
            .into());
    }
    let applied = applied?;
    if applied.tally.failed > 0 || applied.stopped.is_some() {
        return Err(Diagnostic::new(Code::Failed, format!("run {run} could be taken back in part only"))
            .hint(format!("`basalt rollback --run {run}` tries again"))
            .into());
    }
    Ok(Some((plan.steps.len(), applied.tally)))
}

pub async fn close_all(sessions: Vec<Session>) {
    let mut tasks = JoinSet::new();
    for session in sessions {
        tasks.spawn(session.close());
    }
    tasks.join_all().await;
}
