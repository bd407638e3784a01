//! One host during a command: its link, what was compiled for it, the plan its agent keeps.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::grains::Grains;
use super::link::{Connect, Link, Opening};
use crate::agent::protocol::{
    Answer, Applied, ApplyRequest, Body, Call, CheckRequest, HEARTBEAT, Hello, Message, PlanRequest, RollbackRequest, RunHeader, RunRecord,
    Settled,
};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::fleet::Host;
use crate::plan::{Hash, HostPlan};
use crate::value::Value;

/// Contents the host may ask for.
pub type Blobs = HashMap<Hash, Arc<[u8]>>;

/// How long a host that was told to stop, or whose time is up, may take to end the state it is in.
const GRACE: Duration = Duration::from_secs(30);

/// What the one answer there is to one call says.
pub fn only(answers: impl IntoIterator<Item = Answer>) -> Result<Value> {
    match answers.into_iter().next() {
        Some(Answer::Value(value)) => Ok(value),
        Some(Answer::Error(fault)) => Err(fault.into()),
        None => Err(Diagnostic::new(Code::Damaged, "the host did not answer").into()),
    }
}

/// Tells every session of a command to stop: pulled once, at the next state; twice, what runs is ended too.
#[derive(Clone)]
pub struct Stop(watch::Receiver<u8>);

impl Stop {
    /// A stop and the sender that pulls it.
    pub fn new() -> (watch::Sender<u8>, Stop) {
        let (sender, receiver) = watch::channel(0);
        (sender, Stop(receiver))
    }

    pub fn is_pulled(&self) -> bool {
        *self.0.borrow() > 0
    }

    /// Waits until it is pulled so often; for ever if it never is.
    pub async fn pulled(&mut self, times: u8) {
        if self.0.wait_for(|pulled| *pulled >= times).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

pub struct Session {
    pub host: Host,
    pub grains: Grains,
    link: Link,
    streams: u32,
    stop: Stop,
    /// When the whole run on this host has to be over.
    deadline: Instant,
}

impl Session {
    pub async fn open(connect: &dyn Connect, host: Host, stop: Stop, deadline: Instant) -> Result<Session> {
        Session::over(connect.open(&host), host.clone(), stop, deadline).await
    }

    /// Over a connection that shares nothing with those that are open.
    pub async fn open_anew(connect: &dyn Connect, host: Host, stop: Stop, deadline: Instant) -> Result<Session> {
        Session::over(connect.open_anew(&host), host.clone(), stop, deadline).await
    }

    async fn over(opening: Opening<'_>, host: Host, stop: Stop, deadline: Instant) -> Result<Session> {
        let mut early = stop.clone();
        let link = tokio::select! {
            link = opening => link?,
            () = early.pulled(1) => return Err(interrupted().into()),
            () = sleep_until(deadline) => return Err(late(&host, "connecting").into()),
        };
        let grains = Grains::of(&host, &link.hello);
        Ok(Session { host, grains, link, streams: 0, stop, deadline })
    }

    pub fn hello(&self) -> &Hello {
        &self.link.hello
    }

    pub async fn plan(&mut self, request: PlanRequest, blobs: &Blobs) -> Result<HostPlan> {
        match self.converse(Body::Plan(request), blobs, &mut |_| {}).await? {
            Body::Planned(plan) => Ok(plan),
            other => Err(unexpected(&other)),
        }
    }

    pub async fn plan_rollback(&mut self, request: RollbackRequest) -> Result<HostPlan> {
        match self.converse(Body::PlanRollback(request), &Blobs::new(), &mut |_| {}).await? {
            Body::Planned(plan) => Ok(plan),
            other => Err(unexpected(&other)),
        }
    }

    /// Takes the host's lock and makes sure that the plan still holds.
    pub async fn check(&mut self, run: &RunHeader, lock_timeout: u64, blobs: &Blobs) -> Result<()> {
        let request = CheckRequest { run: run.clone(), lock_timeout };
        match self.converse(Body::Check(request), blobs, &mut |_| {}).await? {
            Body::Checked => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Carries the kept plan out; `event` gets `Started`, `Line` and `Done` as they come. `guard`: seconds until a run that can cut the
    /// connection is taken back, where nobody confirms it.
    pub async fn apply(
        &mut self,
        fingerprint: &Hash,
        run: &RunHeader,
        guard: Option<u64>,
        blobs: &Blobs,
        event: &mut (dyn FnMut(Body) + Send),
    ) -> Result<Applied> {
        let request = ApplyRequest { fingerprint: fingerprint.clone(), run: run.clone(), guard };
        match self.converse(Body::Apply(request), blobs, event).await? {
            Body::Applied(applied) => Ok(applied),
            other => Err(unexpected(&other)),
        }
    }

    /// Confirms a run by having come over a new connection, or says that it is not to stay; learns which way it went.
    pub async fn confirm(&mut self, run: &str, keep: bool) -> Result<Settled> {
        match self.converse(Body::Confirm { run: run.to_owned(), keep }, &Blobs::new(), &mut |_| {}).await? {
            Body::Settled(settled) => Ok(settled),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks for a watch over what the plan that was made last stands on; `word` gives what comes of it.
    pub async fn watch(&mut self) -> Result<()> {
        self.streams += 1;
        self.link.send(self.streams, Body::Watch).await?;
        self.link.be_patient();
        Ok(())
    }

    /// The next word of a watch, whenever it comes; `None`: told to stop.
    pub async fn word(&mut self) -> Result<Option<Body>> {
        loop {
            let message = tokio::select! {
                message = self.link.next() => message?,
                () = self.stop.pulled(1) => return Ok(None),
            };
            match message.body {
                _ if message.stream != self.streams => {}
                Body::Failed(fault) => return Err(fault.into()),
                word => return Ok(Some(word)),
            }
        }
    }

    pub async fn runs(&mut self) -> Result<Vec<RunRecord>> {
        match self.converse(Body::Runs, &Blobs::new(), &mut |_| {}).await? {
            Body::History { runs } => Ok(runs),
            other => Err(unexpected(&other)),
        }
    }

    /// One answer for each call, in their order.
    pub async fn ask(&mut self, calls: Vec<Call>) -> Result<Vec<Answer>> {
        let count = calls.len();
        match self.converse(Body::Ask { calls, grains: self.grains.own.clone() }, &Blobs::new(), &mut |_| {}).await? {
            Body::Answers { answers } if answers.len() == count => Ok(answers),
            Body::Answers { .. } => Err(Diagnostic::new(Code::Damaged, "the host answered another number of calls than was asked").into()),
            other => Err(unexpected(&other)),
        }
    }

    /// The answer to one call. That the function failed is a fault of the host.
    pub async fn ask_one(&mut self, call: Call) -> Result<Value> {
        only(self.ask(vec![call]).await?)
    }

    /// Runs a command; `event` gets its `Line`s. Gives its exit status.
    pub async fn exec(&mut self, argv: Vec<String>, shell: bool, event: &mut (dyn FnMut(Body) + Send)) -> Result<i32> {
        match self.converse(Body::Exec { argv, shell, timeout_ms: None }, &Blobs::new(), event).await? {
            Body::Exited { status } => Ok(status),
            other => Err(unexpected(&other)),
        }
    }

    /// Time anew, for the next part of the work: a host is not blamed for what others, or an answer at the prompt, took.
    pub fn renew(&mut self, time: Duration) {
        self.deadline = Instant::now() + time;
    }

    /// From now on nothing stops it but its time.
    pub fn unstoppable(&mut self) {
        self.stop = Stop::new().1;
    }

    pub async fn close(self) {
        self.link.close().await;
    }

    /// Sends a request and goes on until its answer: gives contents that are asked for, passes events on, stops the host when told.
    async fn converse(&mut self, request: Body, blobs: &Blobs, event: &mut (dyn FnMut(Body) + Send)) -> Result<Body> {
        self.streams += 1;
        let stream = self.streams;
        // A host that may be cut off has to know for how long it has not heard of us.
        let heard = matches!(&request, Body::Apply(ApplyRequest { guard: Some(_), .. }));
        let mut word = Instant::now() + HEARTBEAT;
        self.link.send(stream, request).await?;
        let mut deadline = self.deadline;
        let mut stopping: Option<Diagnostic> = None;
        let mut killed = false;
        let mut pulled = 0;
        loop {
            let message = tokio::select! {
                message = self.link.next() => message,
                () = self.stop.pulled(pulled + 1), if pulled < 2 => {
                    pulled += 1;
                    stopping = Some(interrupted());
                    deadline = Instant::now() + GRACE;
                    self.link.send(stream, Body::Cancel).await?;
                    continue;
                }
                () = sleep_until(word), if heard => {
                    word = Instant::now() + HEARTBEAT;
                    self.link.send(stream, Body::Alive).await?;
                    continue;
                }
                () = sleep_until(deadline) => {
                    match &stopping {
                        None => stopping = Some(late(&self.host, "working")),
                        // Told twice, the host ends the command that runs, which would hold its lock for ever.
                        Some(fault) if fault.code != Code::Interrupted && !killed => killed = true,
                        Some(fault) => return Err(fault.clone().into()),
                    }
                    deadline = Instant::now() + GRACE;
                    self.link.send(stream, Body::Cancel).await?;
                    continue;
                }
            };
            match message {
                Ok(Message { stream: of, .. }) if of != stream => {}
                Ok(Message { body, .. }) => match body {
                    Body::Need { hashes } => self.give(stream, hashes, blobs).await?,
                    Body::Started { .. } | Body::Line { .. } | Body::Done(_) => event(body),
                    // The host cannot know why it was told to stop.
                    Body::Failed(fault) if fault.code == Code::Interrupted => return Err(stopping.unwrap_or(fault).into()),
                    Body::Failed(fault) => return Err(fault.into()),
                    Body::Applied(Applied { stopped: Some(why), tally, generation }) => {
                        let why = stopping.filter(|_| tally.failed == 0).map_or(why, |fault| fault.summary);
                        return Ok(Body::Applied(Applied { stopped: Some(why), tally, generation }));
                    }
                    answer => return Ok(answer),
                },
                Err(fault) => return Err(fault),
            }
        }
    }

    async fn give(&mut self, stream: u32, hashes: Vec<Hash>, blobs: &Blobs) -> Result<()> {
        for hash in hashes {
            match blobs.get(&hash) {
                Some(bytes) => self.link.send_content(stream, hash, bytes).await?,
                None => {
                    let reason = "the controller has no such content".to_owned();
                    self.link.send(stream, Body::NoContent { hash, reason }).await?;
                }
            }
        }
        Ok(())
    }
}

pub fn interrupted() -> Diagnostic {
    Diagnostic::new(Code::Interrupted, "stopped by the user")
}

fn late(host: &Host, doing: &str) -> Diagnostic {
    Diagnostic::new(Code::Unreachable, format!("{} was still {doing} when the time of this run was over", host.id))
        .hint("run_timeout in basalt.yaml sets how many seconds a host may take")
}

pub fn unexpected(body: &Body) -> crate::diagnostic::Error {
    let text = format!("{body:?}");
    let name: String = text.chars().take_while(|c| c.is_alphanumeric()).collect();
    Diagnostic::new(Code::Damaged, format!("the host answered with something else than was asked ({name})")).into()
}
