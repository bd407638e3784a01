//! Carrying an orchestration out: one job after the other, as its requisites say. A job's hosts are planned when its turn comes, for what came before may have
//! changed them.

use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::time::sleep;

use super::condition;
use super::event::{Bell, Ear};
use super::job::{FunctionTask, Job, On, StateTask, Task};
use super::record::{JobRecord, Record, Standing, are_of};
use super::wait::{starts, wait};
use crate::agent::protocol::{Call, RunHeader};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::engine::apply::{ApplyOptions, HostResult, apply, close_all};
use crate::engine::compile::Compiler;
use crate::engine::event::{Event, Summary};
use crate::engine::history::RunHistory;
use crate::engine::plan::{Planned, Work, on_all, plan};
use crate::fleet::{Form, Host};
use crate::lang::What;
use crate::plan::requisite::{Fate, Maybe, Status, status};
use crate::value::{Map, Value};

/// Orchestrations that start others go no deeper than this.
const DEEPEST: usize = 8;

/// So often a job is planned whose hosts others change.
const PLANS: usize = 3;

pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// All of them at the same time; what each gave, in their order.
pub async fn together<T>(all: Vec<Later<'_, T>>) -> Vec<T> {
    let mut all: Vec<(Later<'_, T>, Option<T>)> = all.into_iter().map(|one| (one, None)).collect();
    std::future::poll_fn(|context| {
        for (one, done) in all.iter_mut().filter(|(_, done)| done.is_none()) {
            if let Poll::Ready(value) = one.as_mut().poll(context) {
                *done = Some(value);
            }
        }
        if all.iter().all(|(_, done)| done.is_some()) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    all.into_iter().filter_map(|(_, done)| done).collect()
}

/// What an orchestration stands on: the command line, or a daemon.
pub trait Ground: Send + Sync {
    fn work(&self) -> &Work;
    /// The machine that this runs on.
    fn here(&self) -> Host;
    fn bell(&self) -> Bell;
    /// The hosts that a target means.
    fn hosts<'a>(&'a self, target: &'a str, form: Form) -> Later<'a, Result<Vec<Host>>>;
    /// Whether this is a host that is known.
    fn knows(&self, id: &str) -> bool;
    fn compiler(&self, what: What, pillar: Option<Map>) -> Result<Compiler>;
    /// The jobs of an orchestration SLS.
    fn jobs<'a>(&'a self, sls: &'a [String], pillar: Option<Map>) -> Later<'a, Result<Vec<Job>>>;
    fn run_header(&self) -> RunHeader;
    fn new_history(&self, run: RunHeader) -> RunHistory;
    fn remember_run(&self, history: &RunHistory);
    fn remember(&self, record: &Record);
    fn now_ms(&self) -> u64;
    /// Seconds to wait for another run on a host.
    fn lock_timeout(&self) -> u64;
    /// Seconds until a host takes back a run that can cut the connection, where nobody confirms it.
    fn guard_timeout(&self) -> u64;
}

/// What became of an orchestration.
#[derive(Clone, Debug, Default)]
pub struct Orchestrated {
    pub changed: bool,
    pub failed: bool,
    pub interrupted: bool,
    /// The faults met, for the exit code.
    pub codes: Vec<Code>,
}

/// What became of a job.
pub struct Done {
    pub changed: bool,
    /// Why it failed.
    pub failed: Option<String>,
    pub comment: String,
    pub codes: Vec<Code>,
}

impl Done {
    pub fn failed(why: impl Into<String>, code: Code) -> Done {
        Done { changed: false, failed: Some(why.into()), comment: String::new(), codes: vec![code] }
    }

    fn standing(&self) -> Standing {
        match (&self.failed, self.changed) {
            (Some(_), _) => Standing::Failed,
            (None, true) => Standing::Changed,
            (None, false) => Standing::Ok,
        }
    }
}

/// The fate of a job that something before it kept from running, and of one that was not to run.
const KEPT: Fate = Fate { failed: true, changes: Maybe::No, ran: false };
const STAYS: Fate = Fate { ran: false, ..Fate::SAME };

/// Why its requisites keep a job from running, and what that is to those that wait for it. `None`: it runs.
fn kept(status: Status, jobs: &[Job], test: bool) -> Option<(String, Fate)> {
    match status {
        Status::Failed(of) => {
            let names: Vec<&str> = of.iter().filter_map(|at| jobs.get(*at)).map(|job| job.low.id.as_str()).collect();
            Some((format!("required jobs failed: {}", names.join(", ")), KEPT))
        }
        Status::Stays(why) => Some((why.to_owned(), STAYS)),
        Status::IfFails(_) => Some(("nothing failed that it waits for".to_owned(), STAYS)),
        Status::Unknown(_) if test => Some(("runs if what it watches changes".to_owned(), Fate::UNKNOWN)),
        Status::Met | Status::Changed(_) | Status::MayChange(_) | Status::Unknown(_) => None,
    }
}

fn maybe(changes: bool) -> Maybe {
    if changes { Maybe::Yes } else { Maybe::No }
}

/// Carries out the jobs that `record` does not have as done. With `test` hosts are planned and nothing is changed.
pub async fn carry_out(ground: &dyn Ground, jobs: &[Job], record: &mut Record, test: bool) -> Orchestrated {
    let carry = Carry { ground, record: Mutex::new(record.clone()), test };
    let done = carry.jobs(jobs, &[]).await;
    *record = carry.record.into_inner().unwrap_or_else(PoisonError::into_inner);
    done
}

/// An orchestration under way.
struct Carry<'a> {
    ground: &'a dyn Ground,
    record: Mutex<Record>,
    test: bool,
}

impl Carry<'_> {
    /// Jobs whose records stand at `path`.
    async fn jobs(&self, jobs: &[Job], path: &[usize]) -> Orchestrated {
        let (ground, test) = (self.ground, self.test);
        self.look(jobs).await;
        let mut fates: Vec<Option<Fate>> = vec![None; jobs.len()];
        let mut all = Orchestrated::default();
        let mut halted = None;
        for (index, job) in jobs.iter().enumerate() {
            let told = |standing: Standing, comment: &str| {
                ground.work().sink.event(Event::JobDone { id: &job.low.id, job: &job.low.function(), result: standing.name(), comment });
            };
            let here = [path, &[index]].concat();
            let standing = self.job(&here, |job| job.standing).unwrap_or(Standing::Waits);
            if standing.is_done() {
                fates[index] = Some(Fate { failed: false, changes: maybe(standing == Standing::Changed), ran: true });
                told(standing, "done before");
                continue;
            }
            if ground.work().stop.is_pulled() {
                all.interrupted = true;
                break;
            }
            let fate = |at: usize| fates.get(at).copied().flatten().unwrap_or(Fate::SAME);
            let kept = match &halted {
                Some(by) => Some((format!("{by} failed, and says failhard"), KEPT)),
                None => kept(status(&job.low, &fate, &fate), jobs, test),
            };
            let kept = match kept {
                Some(kept) => Ok(Some(kept)),
                None => condition::kept(ground, &job.low, test).await.map(|why| why.map(|why| (why, STAYS))),
            };
            let (standing, comment, fate) = match kept {
                Ok(Some((why, fate))) => (Standing::Skipped, why, fate),
                undecided => {
                    self.mark(&here, Standing::Begun, "");
                    let (id, name) = (&job.low.id, &job.low.function());
                    ground.work().sink.event(Event::JobStarted { id, job: name, number: index + 1, of: jobs.len() });
                    let done = match undecided {
                        Ok(_) => self.tries(job, &here).await,
                        Err(fault) => self.broken(job, &fault),
                    };
                    all.codes.extend(&done.codes);
                    all.changed |= done.changed;
                    if done.failed.is_some() && job.low.control.failhard {
                        halted = Some(job.low.id.clone());
                    }
                    let changes = if test && done.changed { Maybe::Unknown } else { maybe(done.changed) };
                    let fate = Fate { failed: done.failed.is_some(), changes, ran: true };
                    (done.standing(), done.failed.unwrap_or(done.comment), fate)
                }
            };
            if ground.work().stop.is_pulled() && standing == Standing::Failed {
                // Broken off, not failed: it is begun again when it is gone on with.
                all.interrupted = true;
                break;
            }
            all.failed |= fate.failed;
            fates[index] = Some(fate);
            self.mark(&here, standing, &comment);
            told(standing, &comment);
        }
        all
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn job<T>(&self, path: &[usize], of: impl FnOnce(&mut JobRecord) -> T) -> Option<T> {
        let (last, before) = path.split_last()?;
        self.record().at(before)?.get_mut(*last).map(of)
    }

    fn mark(&self, path: &[usize], standing: Standing, comment: &str) {
        self.job(path, |job| {
            job.standing = standing;
            comment.clone_into(&mut job.comment);
        });
        self.remember();
    }

    fn remember(&self) {
        if !self.test {
            self.ground.remember(&self.record());
        }
    }

    /// Waits for the start of hosts are for the next one, seen from here: asks how they were started now, where it is not known.
    async fn look(&self, jobs: &[Job]) {
        let waits = jobs.iter().filter_map(|job| if let Task::Wait(task) = &job.task { Some(task) } else { None });
        for task in waits.filter(|_| !self.test) {
            let known = self.record().heard.starts.clone();
            let ids: Vec<Value> = task.ids.iter().filter(|id| id.as_str().is_some_and(|id| !known.contains_key(id))).cloned().collect();
            for (host, start) in starts(self.ground, task, &ids).await.unwrap_or_default() {
                self.record().heard.starts.insert(host, start);
            }
        }
        self.remember();
    }

    /// A job, as often as its `retry` says.
    async fn tries(&self, job: &Job, path: &[usize]) -> Done {
        let retry = job.low.control.retry.as_ref().filter(|_| !self.test);
        let mut stop = self.ground.work().stop.clone();
        let (mut changed, mut attempts) = (false, 0);
        loop {
            let mut done = self.once(job, path).await;
            attempts += 1;
            changed |= done.changed;
            done.changed = changed;
            let again = retry.filter(|retry| attempts < retry.attempts && retry.until == done.failed.is_some() && !stop.is_pulled());
            let Some(retry) = again else { return done };
            // Salt draws lots.
            let pause = Duration::from_secs(u64::from(retry.interval) + u64::from(retry.splay) / 2);
            tokio::select! { () = sleep(pause) => {}, () = stop.pulled(1) => return done }
        }
    }

    async fn once(&self, job: &Job, path: &[usize]) -> Done {
        let done = match self.task(&job.task, path).await {
            Ok(done) => done,
            Err(fault) => return self.broken(job, &fault),
        };
        if self.test {
            return done;
        }
        match condition::checked(self.ground, &job.low).await {
            Ok(None) => done,
            Ok(Some(true)) => {
                Done { failed: None, comment: "check_cmd determined the state succeeded".to_owned(), codes: Vec::new(), ..done }
            }
            Ok(Some(false)) => Done { changed: done.changed, ..Done::failed("check_cmd determined the state failed", Code::Failed) },
            Err(fault) => Done { changed: done.changed, ..self.broken(job, &fault) },
        }
    }

    fn broken(&self, job: &Job, fault: &Diagnostic) -> Done {
        self.ground.work().sink.event(Event::JobFailed { id: &job.low.id, fault });
        Done::failed(fault.summary.clone(), fault.code)
    }

    /// What a job asks for, once.
    async fn task(&self, task: &Task, path: &[usize]) -> Result<Done> {
        let (ground, test) = (self.ground, self.test);
        let would = |comment: String| Ok(Done { changed: true, failed: None, comment, codes: Vec::new() });
        match task {
            Task::State(task) => self.states(task, path).await,
            Task::Function(task) => function(ground, task, test).await,
            Task::Orchestrate { sls, pillar } => self.within(sls, pillar.clone(), path).await,
            Task::Accept { id } if ground.knows(id) => {
                Ok(Done { changed: false, failed: None, comment: format!("{id} is a host that is known"), codes: Vec::new() })
            }
            Task::Accept { id } => Ok(Done::failed(format!("{id} is not known: neither the roster nor nodes/ has it"), Code::Failed)),
            Task::Send { tag, .. } if test => would(format!("would fire the event {tag}")),
            Task::Send { tag, data } => {
                ground.bell().fire(tag, data.clone())?;
                would(String::new())
            }
            Task::Parallel(runners) => self.parallel(runners, path).await,
            Task::Wait(task) if test => {
                let ids: Vec<String> = task.ids.iter().map(Value::to_text).collect();
                would(format!("would wait for {} of {}", task.tag, ids.join(", ")))
            }
            Task::Wait(task) => {
                let record = self.record().clone();
                let (done, heard) = wait(ground, task, &record).await?;
                self.record().heard.add(heard);
                Ok(done)
            }
        }
    }

    /// Runners, all at once; only what they would do is told of one after the other. All of them come to their end, whatever fails.
    fn parallel<'b>(&'b self, runners: &'b [(String, Task)], path: &'b [usize]) -> Later<'b, Result<Done>> {
        Box::pin(async move {
            self.job(path, |job| {
                if job.jobs.iter().map(|job| &job.id).ne(runners.iter().map(|(id, _)| id)) {
                    job.jobs = runners.iter().map(|(id, _)| JobRecord::new(id, "salt.runner", id)).collect();
                }
            });
            let each = runners.iter().enumerate().map(|(index, (id, task))| -> Later<'_, Done> {
                Box::pin(self.runner(id, task, (index + 1, runners.len()), [path, &[index]].concat()))
            });
            let mut all = Vec::new();
            if self.test {
                for one in each {
                    all.push(one.await);
                }
            } else {
                all = together(each.collect()).await;
            }
            let failed: Vec<&str> =
                runners.iter().zip(&all).filter(|(_, done)| done.failed.is_some()).map(|((id, _), _)| id.as_str()).collect();
            let why = match failed.as_slice() {
                [] => None,
                [one] => Some(format!("runner {one} failed")),
                some => Some(format!("runners {} failed", some.join(", "))),
            };
            let changed = all.iter().any(|done| done.changed);
            Ok(Done { changed, failed: why, comment: String::new(), codes: all.into_iter().flat_map(|done| done.codes).collect() })
        })
    }

    /// One of several runners.
    async fn runner(&self, id: &str, task: &Task, (number, of): (usize, usize), path: Vec<usize>) -> Done {
        let sink = &self.ground.work().sink;
        let job = "salt.runner";
        let standing = self.job(&path, |job| job.standing).unwrap_or(Standing::Waits);
        if standing.is_done() {
            sink.event(Event::JobDone { id, job, result: standing.name(), comment: "done before" });
            return Done { changed: standing == Standing::Changed, failed: None, comment: String::new(), codes: Vec::new() };
        }
        self.mark(&path, Standing::Begun, "");
        sink.event(Event::JobStarted { id, job, number, of });
        let done = self.task(task, &path).await.unwrap_or_else(|fault| {
            sink.event(Event::JobFailed { id, fault: &fault });
            Done::failed(fault.summary.clone(), fault.code)
        });
        let (standing, comment) = (done.standing(), done.failed.as_deref().unwrap_or(&done.comment));
        if standing == Standing::Failed && self.ground.work().stop.is_pulled() {
            // Broken off, not failed.
            return done;
        }
        self.mark(&path, standing, comment);
        sink.event(Event::JobDone { id, job, result: standing.name(), comment });
        done
    }

    /// `salt.state`. A run that held a host until now may have changed what this one was planned on: then it is planned anew.
    async fn states(&self, task: &StateTask, path: &[usize]) -> Result<Done> {
        for _ in 1..PLANS {
            let done = self.states_once(task, path).await?;
            if done.changed || done.codes.is_empty() || done.codes.iter().any(|code| *code != Code::Stale) {
                return Ok(done);
            }
        }
        self.states_once(task, path).await
    }

    async fn states_once(&self, task: &StateTask, path: &[usize]) -> Result<Done> {
        let (ground, test) = (self.ground, self.test || task.test);
        let Some(hosts) = hosts(ground, &task.on).await? else { return Ok(nobody(&task.on)) };
        let mut work = limited(ground.work(), task.on.timeout);
        let compiler;
        (work.sink, compiler) = Ear::between(work.sink, ground.compiler(task.what.clone(), task.pillar.clone())?, ground.bell());
        let mut summary = Summary::default();
        let planned = plan(&work, hosts, compiler, &mut summary).await;
        ground.work().sink.event(Event::JobPlanned { test });
        let broken = summary.codes.iter().find(|code| !matches!(code, Code::Failed | Code::Unreachable | Code::HostKey));
        if let Some(code) = broken {
            close_all(planned.into_iter().map(|host| host.session).collect()).await;
            return Ok(Done::failed("it does not compile for every host; nothing was changed", *code));
        }
        if test || planned.iter().all(|host| host.plan.steps.is_empty()) {
            let failing = |host: &&Planned| host.plan.steps.iter().any(|step| step.fails.is_some());
            let failing = planned.iter().filter(failing).map(|host| host.session.host.id.clone());
            let failed: Vec<String> = summary.dropped.iter().map(|host| host.host.clone()).chain(failing).collect();
            let done = outcome(&task.on, &failed, planned.len() + summary.dropped.len(), summary.pending(), summary.codes.clone());
            close_all(planned.into_iter().map(|host| host.session).collect()).await;
            return Ok(done);
        }
        let run = ground.run_header();
        self.job(path, |job| job.runs.push(run.id.clone()));
        self.remember();
        let mut history = ground.new_history(run.clone());
        ground.remember_run(&history);
        let options = ApplyOptions {
            run,
            batch: task.batch,
            rollback: None,
            canary: 0,
            max_failures: None,
            lock_timeout: ground.lock_timeout(),
            guard_timeout: ground.guard_timeout(),
        };
        let mut applied = summary.dropped_only();
        let mut results = apply(&work, planned, &options, &mut applied).await.run;
        results.extend(summary.dropped.iter().cloned());
        history.end(ground.now_ms(), &results);
        ground.remember_run(&history);
        history.taken_back(ground.now_ms(), &results).iter().for_each(|run| ground.remember_run(run));
        let changed = results.iter().any(|host| host.tally.changed > 0);
        let failed =
            |host: &&HostResult| host.fault.is_some() || host.taken_back.is_some() || host.tally.failed > 0 || host.stopped.is_some();
        let failed: Vec<String> = results.iter().filter(failed).map(|host| host.host.clone()).collect();
        let fun = if task.what == What::Highstate { "state.highstate" } else { "state.sls" };
        for HostResult { host, .. } in &results {
            let (run, success) = (&history.header.id, !failed.contains(host));
            let texts = [("id", host), ("jid", run), ("fun", &fun.to_owned())].map(|(key, text)| (key, Value::str(text)));
            let numbers = [("success", Value::Bool(success)), ("retcode", Value::Int(i64::from(!success)))];
            ground.bell().fire(&format!("salt/job/{run}/ret/{host}"), texts.into_iter().chain(numbers).collect())?;
        }
        Ok(outcome(&task.on, &failed, results.len(), changed, applied.codes))
    }

    /// Another orchestration, as a job.
    fn within<'b>(&'b self, sls: &'b [String], pillar: Option<Map>, path: &'b [usize]) -> Later<'b, Result<Done>> {
        Box::pin(async move {
            if path.len() >= DEEPEST {
                return Err(Diagnostic::new(Code::Compile, format!("orchestrations start each other more than {DEEPEST} deep")).into());
            }
            let jobs = self.ground.jobs(sls, pillar).await?;
            self.job(path, |job| {
                if !are_of(&job.jobs, &jobs) {
                    job.jobs = Record::of(&jobs);
                }
            });
            let done = self.jobs(&jobs, path).await;
            let failed = (done.failed || done.interrupted).then(|| format!("a job of {} failed", sls.join(", ")));
            Ok(Done { changed: done.changed, failed, comment: String::new(), codes: done.codes })
        })
    }
}

/// Whether a job on `count` hosts is a success though it failed on these.
fn outcome(on: &On, failed: &[String], count: usize, changed: bool, codes: Vec<Code>) -> Done {
    let counts = failed.iter().filter(|host| !on.may_fail.contains(host)).count();
    let comment = match failed.len() {
        0 => String::new(),
        some => format!("failed on {some} of {count}: {}", failed.join(", ")),
    };
    if counts > on.allowed {
        let codes = if codes.is_empty() { vec![Code::Failed] } else { codes };
        return Done { changed, failed: Some(comment), comment: String::new(), codes };
    }
    Done { changed, failed: None, comment, codes: Vec::new() }
}

/// `salt.function`.
async fn function(ground: &dyn Ground, task: &FunctionTask, test: bool) -> Result<Done> {
    if let Some(fault) = crate::lang::function::refused(&task.function) {
        return Err(fault.into());
    }
    let Some(hosts) = hosts(ground, &task.on).await? else { return Ok(nobody(&task.on)) };
    let names: Vec<String> = hosts.iter().map(|host| host.id.clone()).collect();
    if test {
        return Ok(Done {
            changed: true,
            failed: None,
            comment: format!("would call {} on {}", task.function, names.join(", ")),
            codes: Vec::new(),
        });
    }
    let call = Call { function: task.function.clone(), args: task.args.clone(), kwargs: task.kwargs.clone() };
    let work = limited(ground.work(), task.on.timeout);
    let mut summary = Summary::default();
    let count = hosts.len();
    let asked = {
        let work = work.clone();
        move |host: Host| {
            let (work, call) = (work.clone(), call.clone());
            async move {
                let id = host.id.clone();
                let mut session = work.session(host).await?;
                let value = session.ask_one(call).await;
                session.close().await;
                Ok((id, value?))
            }
        }
    };
    let answers = on_all(&work, hosts, &mut summary, asked).await;
    let mut failed: Vec<String> = summary.dropped.iter().map(|host| host.host.clone()).collect();
    for (host, value) in &answers {
        ground.work().sink.event(Event::Answered { host, value });
        // Salt counts what an execution function returns as `False` as its failure.
        if *value == Value::Bool(false) {
            failed.push(host.clone());
        }
    }
    Ok(outcome(&task.on, &failed, count, !answers.is_empty(), summary.codes))
}

/// The hosts of a job; `None` where there are none and should be some.
async fn hosts(ground: &dyn Ground, on: &On) -> Result<Option<Vec<Host>>> {
    let mut hosts = ground.hosts(&on.target, on.form).await?;
    hosts.truncate(on.subset.unwrap_or(usize::MAX));
    Ok((!hosts.is_empty() || !on.expect).then_some(hosts))
}

fn nobody(on: &On) -> Done {
    Done::failed(format!("no host matches {:?}", on.target), Code::Failed)
}

fn limited(work: &Work, timeout: Option<Duration>) -> Work {
    Work { run_timeout: timeout.unwrap_or(work.run_timeout), ..work.clone() }
}
