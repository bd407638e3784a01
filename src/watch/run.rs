//! The loop: takes causes and outcomes one by one, asks what they mean, has what is decided carried out. Every host has a task of its own, so none waits for
//! another; when the watch is stopped, what runs comes to the end of its state, and the next watch goes on from what was written down.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::cause::Cause;
use super::decide::{Decision, Look, Now, Outcome, Rules, State, Task, Why};
use crate::budget;
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::engine::branch::Tip;
use crate::engine::session::Stop;
use crate::engine::window::Local;

/// The clock on the wall is looked at so often, since somebody may set it.
const GLANCE: Duration = Duration::from_secs(20);

pub type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What the watch stands on: the repository, the hosts, the store, and whom it tells.
pub trait Ground: Send + Sync + 'static {
    fn local(&self) -> Local;

    /// What a commit means; `from` is the one before. Takes its time.
    fn look(&self, tip: &Tip, from: Option<&Tip>) -> Result<Looked>;

    /// What the work tree means for each host, where it is another one than the last time. Takes its time.
    fn edited(&self) -> Result<Option<BTreeMap<String, Option<String>>>>;

    /// Gives a host its turn.
    fn carry(self: Arc<Self>, task: Task) -> Later<Outcome>;

    fn tell(&self, decision: &Decision);

    /// What happened besides: the repository is gone, or a tree does not compile.
    fn say(&self, what: Said<'_>);

    /// What an earlier watch left, and the hosts that are not to be tried for so many seconds.
    fn recall(&self) -> (State, BTreeMap<String, Option<u64>>);

    fn keep(&self, state: &State);
}

pub struct Looked {
    pub look: Look,
    /// What the commit says of the watch itself, and how long it is between two looks at all hosts; none: as before.
    pub settings: Option<(Rules, Duration)>,
}

pub enum Said<'a> {
    Gone(&'a str),
    Back,
    Edit(&'a [String]),
    /// An edit that cannot be planned.
    Broken(&'a Diagnostic),
    Touched {
        host: &'a str,
        what: &'a [String],
    },
    Up {
        host: &'a str,
    },
}

/// Watches until it is stopped.
pub async fn watch(ground: Arc<dyn Ground>, mut causes: mpsc::Receiver<Cause>, mut stop: Stop) {
    let began = Instant::now();
    let (state, away) = ground.recall();
    let (outcomes, mut ended) = mpsc::channel(64);
    let mut desk = Desk { ground, state, away, outcomes, began, interval: None, timer: began, begun: false };
    loop {
        let glance = Instant::now() + GLANCE;
        let wakes = desk.state.wakes().and_then(|at| began.checked_add(at)).map_or(glance, |at| at.min(glance));
        let told = tokio::select! {
            () = stop.pulled(1) => break,
            cause = causes.recv() => match cause {
                Some(cause) => desk.hear(cause).await,
                None => break,
            },
            Some((host, outcome)) = ended.recv() => desk.done(&host, outcome),
            () = sleep_until(desk.timer), if desk.interval.is_some() => desk.timer(),
            () = sleep_until(wakes) => desk.state.tick(&desk.now()),
        };
        desk.act(told);
    }
    desk.state.stop();
    while desk.state.is_busy()
        && let Some((host, outcome)) = ended.recv().await
    {
        let told = desk.done(&host, outcome);
        desk.act(told);
    }
}

struct Desk {
    ground: Arc<dyn Ground>,
    state: State,
    /// Of an earlier watch.
    away: BTreeMap<String, Option<u64>>,
    outcomes: mpsc::Sender<(String, Outcome)>,
    began: Instant,
    interval: Option<Duration>,
    timer: Instant,
    /// A commit has been looked at.
    begun: bool,
}

impl Desk {
    fn now(&self) -> Now {
        Now { ticks: self.began.elapsed(), local: self.ground.local() }
    }

    async fn hear(&mut self, cause: Cause) -> Vec<Decision> {
        match cause {
            Cause::Commit { to } => self.commit(to).await,
            Cause::Edit { paths } => self.edit(&paths).await,
            Cause::Timer => self.timer(),
            Cause::Drift { host, touched } => {
                self.ground.say(Said::Touched { host: &host, what: &touched });
                self.state.check(&[host], Why::Drift, &self.now())
            }
            Cause::Up { host } => {
                self.ground.say(Said::Up { host: &host });
                self.state.check(&[host], Why::Up, &self.now())
            }
            Cause::Gone { why } => {
                self.ground.say(Said::Gone(&why));
                Vec::new()
            }
            Cause::Back => {
                self.ground.say(Said::Back);
                Vec::new()
            }
        }
    }

    async fn commit(&mut self, to: Tip) -> Vec<Decision> {
        let (ground, from) = (self.ground.clone(), self.state.tip().cloned());
        let tip = to.clone();
        let looked = aside(move || ground.look(&tip, from.as_ref())).await;
        let look = match looked {
            Ok(Looked { look, settings }) => {
                if let Some((rules, interval)) = settings {
                    self.state.rule(rules);
                    if self.interval != Some(interval) {
                        (self.interval, self.timer) = (Some(interval), Instant::now() + interval);
                    }
                }
                look
            }
            Err(fault) => Look { tip: to, refused: Some(in_a_line(&fault)), ..Look::default() },
        };
        let now = self.now();
        for (host, wait) in std::mem::take(&mut self.away) {
            self.state.away(&host, wait, &now);
        }
        let begins = !std::mem::replace(&mut self.begun, true);
        self.state.look(look, begins, &now)
    }

    async fn edit(&mut self, paths: &[String]) -> Vec<Decision> {
        let ground = self.ground.clone();
        match aside(move || ground.edited()).await {
            Ok(Some(hosts)) => {
                self.ground.say(Said::Edit(paths));
                self.state.edit(hosts, &self.now())
            }
            Ok(None) => Vec::new(),
            Err(fault) => {
                self.ground.say(Said::Broken(&fault));
                Vec::new()
            }
        }
    }

    fn done(&mut self, host: &str, outcome: Outcome) -> Vec<Decision> {
        let told = self.state.done(host, outcome, &self.now());
        if !self.state.is_busy() {
            budget::give_back();
        }
        told
    }

    fn timer(&mut self) -> Vec<Decision> {
        self.timer = Instant::now() + self.interval.unwrap_or(GLANCE);
        let hosts: Vec<String> = self.state.hosts().cloned().collect();
        self.state.check(&hosts, Why::Timer, &self.now())
    }

    fn act(&mut self, told: Vec<Decision>) {
        if told.is_empty() {
            return;
        }
        for decision in told {
            self.ground.tell(&decision);
            if let Decision::Begin(task) = decision {
                let (outcomes, host) = (self.outcomes.clone(), task.host.clone());
                let work = tokio::spawn(self.ground.clone().carry(task));
                tokio::spawn(async move {
                    let outcome =
                        work.await.unwrap_or_else(|e| Outcome::Away { why: format!("the task ended unexpectedly: {e}"), wait: Some(60) });
                    // Nobody listens any more once the watch is over.
                    let _ = outcomes.send((host, outcome)).await;
                });
            }
        }
        self.ground.keep(&self.state);
    }
}

/// Work that takes its time, on a thread of its own.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let fault = |e| Diagnostic::new(Code::Internal, format!("the look ended unexpectedly: {e}"));
    tokio::task::spawn_blocking(work).await.map_err(fault)?
}

/// A fault as a reason.
pub fn in_a_line(fault: &Diagnostic) -> String {
    let place = fault.span.as_ref().map_or_else(String::new, |span| format!(" ({span})"));
    let detail = fault.detail.lines().next().filter(|_| fault.span.is_none()).map_or_else(String::new, |line| format!(": {line}"));
    format!("{}{place}{detail}", fault.summary)
}
