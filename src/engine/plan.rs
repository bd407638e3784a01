//! Planning many hosts at once: connect, compile with the grains that the host greets with, compare.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::answers::{Answered, Asking};
use super::compile::{Answers, Compiler};
use super::event::{Event, Sink, Summary};
use super::link::Connect;
use super::mine::Mine;
use super::session::{Blobs, Session, Stop};
use crate::agent::protocol::{PlanRequest, Prune};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::fleet::Host;
use crate::plan::{HostPlan, Low};
use crate::secret::Mask;

/// How a command works on its hosts.
#[derive(Clone)]
pub struct Work {
    pub connect: Arc<dyn Connect>,
    pub sink: Arc<dyn Sink>,
    pub stop: Stop,
    /// Hosts at the same time.
    pub parallel: usize,
    /// For planning a host, and again for carrying its plan out.
    pub run_timeout: Duration,
    /// Whether conditions and templates may run commands while a plan is made.
    pub commands: bool,
    /// Known to this user on this machine alone: goes into fingerprints of plans with secrets.
    pub key: Arc<str>,
    /// As many compiles at a time as there are processors.
    pub compiling: Arc<Semaphore>,
    /// What other hosts know, for `mine.get`.
    pub mine: Arc<Mine>,
    /// The state repository, as hosts remember whose things they have.
    pub origin: Arc<str>,
    /// What has left the tree is taken away.
    pub prune: Option<Prune>,
}

impl Work {
    /// A session with a host that has this command's time.
    pub async fn session(&self, host: Host) -> Result<Session> {
        Session::open(self.connect.as_ref(), host, self.stop.clone(), Instant::now() + self.run_timeout).await
    }
}

/// A host that has been compared; its agent keeps the plan and waits.
pub struct Planned {
    pub session: Session,
    pub plan: HostPlan,
    pub blobs: Blobs,
    /// What each low is called, for events.
    pub names: Vec<Name>,
}

#[derive(Clone)]
pub struct Name {
    pub id: String,
    pub state: String,
    pub name: String,
    pub sls: String,
}

impl Name {
    pub fn of(low: &Low, mask: &Mask) -> Name {
        Name { id: mask.text(&low.id), state: low.function(), name: mask.text(&low.name), sls: low.sls.clone() }
    }
}

/// Runs `task` for every host, a bounded number at a time; gives the results in the order of `hosts`, faults told to the sink.
pub async fn on_all<T, F, Fut>(work: &Work, hosts: Vec<Host>, summary: &mut Summary, task: F) -> Vec<T>
where
    T: Send + 'static,
    F: Fn(Host) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(work.parallel.max(1)));
    let task = Arc::new(task);
    let mut tasks = JoinSet::new();
    for (index, host) in hosts.into_iter().enumerate() {
        let (places, task, work) = (places.clone(), task.clone(), work.clone());
        tasks.spawn(async move {
            let _place = places.acquire_owned().await;
            let id = host.id.clone();
            let result = task(host).await;
            if let Err(fault) = &result {
                work.sink.event(Event::HostFailed { host: &id, fault });
            }
            (index, id, result)
        });
    }
    let mut results = Vec::new();
    while let Some(done) = tasks.join_next().await {
        match done {
            Ok((index, _, Ok(value))) => results.push((index, value)),
            Ok((_, host, Err(fault))) => summary.drop_host(host, *fault),
            Err(e) => summary.count_fault(&Diagnostic::new(Code::Internal, format!("a task for a host ended unexpectedly: {e}"))),
        }
    }
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, value)| value).collect()
}

/// Plans every host. Hosts that fail are told of as events and counted; the others come back with their sessions open.
pub async fn plan(work: &Work, hosts: Vec<Host>, compiler: Compiler, summary: &mut Summary) -> Vec<Planned> {
    summary.hosts += hosts.len();
    let asking = Asking { work: work.clone(), compiler, mine: true };
    let planned = on_all(work, hosts, summary, move |host| plan_host(asking.clone(), host)).await;
    work.mine.close().await;
    for host in &planned {
        summary.count_plan(&host.plan);
        if host.plan.steps.iter().any(|s| s.fails.is_some()) {
            summary.failed += 1;
        }
        summary.bare += usize::from(host.plan.steps.is_empty() && host.plan.unchanged == 0);
    }
    planned
}

/// Plans one host over a session of its own.
pub async fn plan_host(asking: Asking, host: Host) -> Result<Planned> {
    let work = &asking.work;
    let id = host.id.clone();
    let busy = |with| work.sink.event(Event::Busy { host: &id, with });
    busy("connecting");
    let mut session = work.session(host).await?;
    busy("compiling");
    let (compiler, grains, name) = (asking.compiler.clone(), session.grains.all.clone(), id.clone());
    let attempt = move |answers: &Answers| match compiler.compile(&name, &grains, answers) {
        Ok(mut wanted) => {
            let missing = std::mem::take(&mut wanted.missing);
            (Ok(wanted), missing)
        }
        Err(faults) => (Err(faults), Vec::new()),
    };
    let Answered { value: wanted, found } = asking.answered(&mut session, attempt).await?;
    busy("comparing");
    let mask = Mask::new(&wanted.secrets);
    let names = wanted.lows.iter().map(|low| Name::of(low, &mask)).collect();
    let key = if wanted.secrets.is_empty() { String::new() } else { work.key.to_string() };
    let request = PlanRequest {
        lows: wanted.lows,
        secrets: wanted.secrets,
        key,
        commands: work.commands,
        ran: found.ran,
        grains: session.grains.own.clone(),
        origin: work.origin.to_string(),
        prune: work.prune,
    };
    let mut plan = session.plan(request, &wanted.blobs).await?;
    plan.notices.extend(session.grains.notices().into_iter().chain(found.notices).map(|notice| mask.text(&notice)));
    work.sink.event(Event::HostPlanned { host: &id, plan: &plan });
    Ok(Planned { session, plan, blobs: wanted.blobs, names })
}

/// As many compiles at a time as there are processors.
pub fn compiling() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(2, usize::from)))
}

/// Several findings as one fault: the first, with the others behind it.
pub fn joined(mut faults: Vec<Diagnostic>) -> crate::diagnostic::Error {
    if faults.is_empty() {
        return Diagnostic::new(Code::Internal, "the compiler failed and did not say why").into();
    }
    let mut first = faults.remove(0);
    for other in faults {
        let text = if other.detail.is_empty() { other.summary } else { format!("{}: {}", other.summary, other.detail) };
        match other.span {
            Some(span) => first.related.push((span, text)),
            None => first.detail = format!("{}\n{text}", first.detail).trim_start().to_owned(),
        }
    }
    first.into()
}
