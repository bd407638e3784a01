//! `basalt rollback`: takes a run back, showing first what that changes.

use std::sync::Arc;

use clap::Args;

use super::context::{Context, confirmed};
use super::print::{Color, Printer, count};
use super::runs::read;
use super::{ConnectArgs, Ended, FormArgs, GuardArgs, RepositoryArgs, TargetArgs, summary_code};
use crate::diagnostic::Code;
use crate::engine::apply::{ApplyOptions, Results, apply, close_all};
use crate::engine::event::Event;
use crate::engine::history::RunHistory;
use crate::engine::rollback::{Ask, choose, journals, plan};
use crate::orchestrate::Record;

#[derive(Args)]
pub struct RollbackArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// The run to take back (default: the newest that is neither taken back nor itself a rollback)
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
    /// Take back later runs that touched the same things as well
    #[arg(long)]
    with_later: bool,
    /// Take back what destroys data as well: volumes and subvolumes that the run made, filesystems on devices
    #[arg(long)]
    destroy_data: bool,
    /// Do not ask
    #[arg(short = 'y', long)]
    yes: bool,
    #[command(flatten)]
    repository: RepositoryArgs,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    guard: GuardArgs,
    /// Seconds to wait for another run on a host; 0 refuses at once
    #[arg(long, value_name = "SECONDS", default_value_t = 0, hide_default_value = true)]
    lock_timeout: u64,
    /// One JSON object per line
    #[arg(long, requires = "yes")]
    pub json: bool,
}

pub async fn run(args: RollbackArgs, color: Color) -> Ended {
    let printer = Arc::new(Printer::new(args.json, color));
    let context = Context::open(&args.repository, &args.connect, printer.clone())?;
    match args.run.as_deref().and_then(|run| super::orchestrate::read(context.store.as_ref(), run).ok()) {
        Some(record) => orchestration(&args, &context, &record).await,
        None => one(&args, &context, args.run.as_deref(), args.yes).await,
    }
}

/// Takes one run back wherever it was made, as a part of something larger.
pub async fn take_back(repository: &RepositoryArgs, connect: &ConnectArgs, run: &str, yes: bool, printer: Arc<Printer>) -> Ended {
    let context = Context::open(repository, connect, printer.clone())?;
    let target = TargetArgs { target: "*".to_owned(), ..TargetArgs::default() };
    let args = RollbackArgs { yes, ..RollbackArgs::of(target, 0, GuardArgs::default()) };
    one(&args, &context, Some(run), yes).await
}

/// Takes a run back on one host, without asking.
pub async fn take_back_on(context: &Context, host: &str, run: &str, lock_timeout: u64, guard: GuardArgs) -> Ended {
    let form = FormArgs { list: true, ..FormArgs::default() };
    let args = RollbackArgs::of(TargetArgs { target: host.to_owned(), form }, lock_timeout, guard);
    one(&args, context, Some(run), true).await
}

impl RollbackArgs {
    fn of(target: TargetArgs, lock_timeout: u64, guard: GuardArgs) -> RollbackArgs {
        let (repository, connect) = Default::default();
        RollbackArgs {
            target,
            run: None,
            with_later: false,
            destroy_data: false,
            yes: true,
            repository,
            connect,
            guard,
            lock_timeout,
            json: false,
        }
    }
}

/// All runs of an orchestration, the newest first. One that cannot be taken back ends it: those before it stand on it.
async fn orchestration(args: &RollbackArgs, context: &Context, record: &Record) -> Ended {
    let printer = &context.printer;
    let mut runs = record.runs();
    // Jobs that were gone on with, or ran at the same time, do not stand in the order of their runs.
    let started = |run: &&str| read(context.store.as_ref(), &format!("runs/{run}")).map_or(0, |run| run.header.started);
    runs.sort_by_cached_key(|run| std::cmp::Reverse(started(run)));
    printer.say(&format!("Taking back orchestration {}: {}.", record.id, count(runs.len(), "run")));
    if !args.yes && !runs.is_empty() && !confirmed(printer, &context.work.stop, "Take all of them back?").await? {
        printer.say("Nothing was changed.");
        return Ok(8);
    }
    for run in runs {
        let code = one(args, context, Some(run), true).await?;
        if code != 0 {
            return Ok(code);
        }
    }
    Ok(0)
}

/// One run; of an orchestration also one that found nothing to change, and left no journal.
async fn one(args: &RollbackArgs, context: &Context, run: Option<&str>, yes: bool) -> Ended {
    let printer = &context.printer;
    let hosts = context.hosts(&args.target).await?;
    let mut summary = context.summary();
    let journals = journals(&context.work, hosts, &mut summary).await;
    let nothing = {
        let known = |run: &str| journals.iter().any(|(_, runs)| runs.iter().any(|record| record.header.id == run));
        run.is_some_and(|run| run != args.run.as_deref().unwrap_or(run) && !known(run))
    };
    if nothing {
        close_all(journals.into_iter().map(|(session, _)| session).collect()).await;
        return Ok(summary_code(&summary));
    }
    let run = match choose(&journals, run) {
        Ok(run) => run,
        Err(fault) => {
            printer.plans();
            close_all(journals.into_iter().map(|(session, _)| session).collect()).await;
            // A host that was not reached may be the one that knows it.
            return if summary.codes.is_empty() { Err(fault.into()) } else { Ok(summary_code(&summary)) };
        }
    };
    let ask = Ask { with_later: args.with_later, destroy_data: args.destroy_data };
    let planned = plan(&context.work, journals, &run, ask, &mut summary).await;
    if summary.worst_dropped().is_some_and(|code| !matches!(code, Code::Unreachable | Code::HostKey)) {
        // A run is taken back on all the hosts that can be reached, or on none.
        printer.plans();
        printer.say("Nothing was changed.");
        close_all(planned.into_iter().map(|p| p.session).collect()).await;
        return Ok(summary_code(&summary));
    }
    summary.hosts = planned.len() + summary.dropped.len();
    printer.say(&format!("Taking back run {run}:"));
    printer.plans();
    if !printer.is_json() {
        printer.plan_summary(&summary);
    }
    let busy = planned.iter().filter(|p| !p.plan.steps.is_empty()).count();
    if busy > 0 && !yes && !confirmed(printer, &context.work.stop, &format!("Take {run} back on {}?", count(busy, "host"))).await? {
        close_all(planned.into_iter().map(|p| p.session).collect()).await;
        printer.say("Nothing was changed.");
        summary.declined = true;
        return Ok(summary_code(&summary));
    }
    let sizes: Vec<(String, usize)> = planned.iter().map(|p| (p.session.host.id.clone(), p.plan.steps.len())).collect();
    let header = context.run_header(vec![run.clone()]);
    let mut done = summary.dropped_only();
    let options = ApplyOptions {
        run: header.clone(),
        rollback: None,
        batch: None,
        canary: 0,
        max_failures: None,
        lock_timeout: args.lock_timeout,
        guard_timeout: args.guard.seconds(&context.settings),
    };
    let mut history = RunHistory::new(header.clone(), context.source.clone());
    context.remember(&history);
    let Results { run: mut results, .. } = apply(&context.work, planned, &options, &mut done).await;
    for result in &results {
        if result.fault.is_none() && result.stopped.is_none() && result.taken_back.is_none() && result.tally.failed == 0 {
            let changes = sizes.iter().find(|(host, _)| *host == result.host).map_or(0, |(_, n)| *n);
            context.work.sink.event(Event::RolledBack { host: &result.host, run: &run, by: &header.id, changes, guard: None });
        }
    }
    results.extend(done.dropped.iter().cloned());
    context.remember_end(&mut history, &results);
    printer.run_summary(&done);
    Ok(summary_code(&done))
}
