//! `basalt orchestrate`: jobs over many hosts, in the order that an orchestration SLS gives them.

use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::context::{Context, confirmed, hostname, now_ms, pillar_argument};
use super::print::{Color, Printer, count};
use super::{ConnectArgs, Ended, GuardArgs, RepositoryArgs, exit_code};
use crate::agent::protocol::RunHeader;
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::engine::answers::{Answered, Asking};
use crate::engine::compile::{Answers, Compiler};
use crate::engine::history::RunHistory;
use crate::engine::plan::Work;
use crate::fleet::{Form, Host};
use crate::lang::What;
use crate::orchestrate::run::Later;
use crate::orchestrate::{Bell, Ground, Job, Orchestrated, Record, are_of, carry_out, jobs};
use crate::store::Store;
use crate::value::Map;

#[derive(Args)]
pub struct OrchestrateArgs {
    /// The SLS: `orchestration.rollout` is orchestration/rollout.sls
    #[arg(value_name = "SLS", required_unless_present = "resume", value_delimiter = ',')]
    sls: Vec<String>,
    /// Show what every job would do now, and change nothing
    #[arg(long)]
    test: bool,
    /// Add this pillar: JSON, or a file of JSON or YAML
    #[arg(long, value_name = "JSON|FILE")]
    pillar: Option<String>,
    /// Go on with an orchestration that did not come to its end; what was done is not done again
    #[arg(long, value_name = "RUN", conflicts_with_all = ["sls", "pillar", "test", "commit"])]
    resume: Option<String>,
    /// Do not ask
    #[arg(short = 'y', long)]
    yes: bool,
    #[command(flatten)]
    repository: RepositoryArgs,
    #[command(flatten)]
    connect: ConnectArgs,
    /// Seconds to wait for another run on a host; 0 refuses at once
    #[arg(long, value_name = "SECONDS", default_value_t = 0, hide_default_value = true)]
    lock_timeout: u64,
    #[command(flatten)]
    guard: GuardArgs,
    /// One JSON object per line
    #[arg(long)]
    pub json: bool,
}

pub async fn run(mut args: OrchestrateArgs, color: Color) -> Ended {
    let printer = Arc::new(Printer::new(args.json, color));
    if args.json && !args.yes && !args.test {
        return Err(Diagnostic::new(Code::Usage, "--json cannot ask")
            .hint("--yes carries the jobs out, --test shows what they would do")
            .into());
    }
    let begun = match &args.resume {
        Some(id) => Some(read(super::context::store_of(&args.repository)?.as_ref(), id)?),
        None => None,
    };
    if let Some(record) = begun.as_ref().filter(|record| !record.commit.is_empty()) {
        args.repository.commit = Some(record.commit.clone());
    }
    let context = Context::open(&args.repository, &args.connect, printer.clone())?;
    let desk = Desk { context: &context, lock_timeout: args.lock_timeout, guard_timeout: args.guard.seconds(&context.settings) };
    let mut record = match begun {
        Some(record) if record.tree == context.source.tree => record,
        Some(record) => {
            return Err(Diagnostic::new(
                Code::Stale,
                format!("{} was begun with another tree than the state repository has now", record.id),
            )
            .hint("begin it anew: `basalt orchestrate`; what is as described stays as it is")
            .into());
        }
        None => {
            let RunHeader { id, who, started, tree, commit, .. } = context.run_header(Vec::new());
            // A dirty work tree is no commit to come back to.
            let commit = if context.source.dirty { String::new() } else { commit };
            Record {
                id,
                sls: args.sls.clone(),
                pillar: pillar_argument(args.pillar.as_deref())?,
                who,
                commit,
                tree,
                started,
                ended: 0,
                jobs: Vec::new(),
                heard: Default::default(),
            }
        }
    };
    let jobs = desk.jobs(&record.sls, record.pillar.clone()).await?;
    if args.resume.is_none() {
        record.jobs = Record::of(&jobs);
    } else if !are_of(&record.jobs, &jobs) {
        return Err(Diagnostic::new(Code::Stale, format!("the jobs of {} are not those that were begun", record.id))
            .detail("What hosts are and say decides which jobs there are, and that has changed.")
            .hint("begin it anew: `basalt orchestrate`; what is as described stays as it is")
            .into());
    }
    if args.test || !args.yes {
        let mut trial = record.clone();
        let shown = carry_out(&desk, &jobs, &mut trial, true).await;
        if args.test {
            printer.say(&format!("{}. Jobs that change hosts may change what later ones have to do.", count(jobs.len(), "job")));
            return Ok(code(&shown));
        }
        if !confirmed(&printer, &context.work.stop, &format!("Carry out {}?", count(jobs.len(), "job"))).await? {
            printer.say("Nothing was changed.");
            return Ok(exit_code(&[], true));
        }
    }
    printer.json(&json!({"type": "orchestration_started", "run": record.id, "jobs": jobs.len()}));
    printer.say(&format!("Orchestration {} of {}.", record.id, count(jobs.len(), "job")));
    desk.remember(&record);
    let done = carry_out(&desk, &jobs, &mut record, false).await;
    if !done.interrupted {
        record.ended = now_ms();
    }
    desk.remember(&record);
    printer.faults();
    printer.json(&json!({"type": "orchestration_done", "run": record.id, "changed": done.changed, "failed": done.failed, "interrupted": done.interrupted}));
    printer.say(&closing(&record, &done));
    Ok(code(&done))
}

fn closing(record: &Record, done: &Orchestrated) -> String {
    let id = &record.id;
    match () {
        () if done.interrupted => {
            format!("Interrupted. `basalt orchestrate --resume {id}` goes on, `basalt rollback --run {id}` takes it back.")
        }
        () if done.failed && record.runs().is_empty() => "Failed.".to_owned(),
        () if done.failed => {
            format!(
                "Failed. `basalt orchestrate --resume {id}` tries again from there, `basalt rollback --run {id}` takes back what was done."
            )
        }
        () if record.runs().is_empty() => "Done.".to_owned(),
        () => format!("Done. `basalt rollback --run {id}` takes back what its states did."),
    }
}

fn code(done: &Orchestrated) -> u8 {
    let mut codes = done.codes.clone();
    if done.failed && codes.is_empty() {
        codes.push(Code::Failed);
    }
    if done.interrupted {
        codes.push(Code::Interrupted);
    }
    exit_code(&codes, false)
}

/// The record of an orchestration.
pub fn read(store: &dyn Store, id: &str) -> Result<Record> {
    let known = |id: &str| id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    match if known(id) { store.get(&Record::key(id))? } else { None } {
        Some(entry) => serde_json::from_slice(&entry.value)
            .map_err(|e| Diagnostic::new(Code::Damaged, format!("the record of {id} cannot be read: {e}")).into()),
        None => Err(Diagnostic::new(Code::Usage, format!("there was no orchestration {id:?} from here")).into()),
    }
}

/// What an orchestration stands on when it is started by hand.
struct Desk<'a> {
    context: &'a Context,
    lock_timeout: u64,
    guard_timeout: u64,
}

impl Ground for Desk<'_> {
    fn work(&self) -> &Work {
        &self.context.work
    }

    fn here(&self) -> Host {
        Host::new(format!("{}_master", hostname()), Host::LOCAL)
    }

    fn bell(&self) -> Bell {
        Bell { store: self.context.store.clone(), clock: now_ms }
    }

    fn hosts<'a>(&'a self, target: &'a str, form: Form) -> Later<'a, Result<Vec<Host>>> {
        Box::pin(async move { Ok(self.context.matching(target, form).await?.1) })
    }

    fn knows(&self, id: &str) -> bool {
        self.context.knows(id)
    }

    fn compiler(&self, what: What, pillar: Option<Map>) -> Result<Compiler> {
        Ok(self.context.listening(self.context.tree_of(what, pillar)?))
    }

    /// Its templates see this machine, as those of Salt's orchestrations see the master.
    fn jobs<'a>(&'a self, sls: &'a [String], pillar: Option<Map>) -> Later<'a, Result<Vec<Job>>> {
        Box::pin(async move {
            let work = &self.context.work;
            let tree = Arc::new(self.context.tree_of(What::Sls(sls.to_vec()), pillar)?);
            let mut session = work.session(self.here()).await?;
            let (id, grains) = (session.host.id.clone(), session.grains.all.clone());
            let asking = Asking { work: work.clone(), compiler: tree.clone(), mine: true };
            let attempt = move |answers: &Answers| match tree.compiled(&id, &grains, answers) {
                Ok(mut compiled) => {
                    let missing = std::mem::take(&mut compiled.missing);
                    (jobs(compiled.lows), missing)
                }
                Err(faults) => (Err(faults), Vec::new()),
            };
            let answered = asking.answered(&mut session, attempt).await;
            session.close().await;
            work.mine.close().await;
            let Answered { value, .. } = answered?;
            Ok(value)
        })
    }

    fn run_header(&self) -> RunHeader {
        self.context.run_header(Vec::new())
    }

    fn new_history(&self, run: RunHeader) -> RunHistory {
        RunHistory::new(run, self.context.source.clone())
    }

    fn remember_run(&self, history: &RunHistory) {
        self.context.remember(history);
    }

    fn remember(&self, record: &Record) {
        self.context.keep(&Record::key(&record.id), record);
    }

    fn now_ms(&self) -> u64 {
        now_ms()
    }

    fn lock_timeout(&self) -> u64 {
        self.lock_timeout
    }

    fn guard_timeout(&self) -> u64 {
        self.guard_timeout
    }
}
