//! `basalt apply`: plans, asks, applies; or applies a saved plan exactly as it was shown.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::change::committed;
use super::context::{Context, machine, now, now_ms};
use super::print::{Color, Printer, count};
use super::{ConnectArgs, End, Ended, PruneArgs, RepositoryArgs, ScopeArgs, TargetArgs, WaveArgs, summary_code};
use crate::diagnostic::{Code, Diagnostic};
use crate::engine::apply::{ApplyOptions, Results, apply, close_all};
use crate::engine::commit::Prepared;
use crate::engine::event::{Event, Summary};
use crate::engine::history::RunHistory;
use crate::engine::plan::{Planned, plan};
use crate::engine::saved::SavedPlan;
use crate::fleet::Host;

#[derive(Args)]
pub struct ApplyArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    prune: PruneArgs,
    #[command(flatten)]
    repository: RepositoryArgs,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    waves: WaveArgs,
    /// Apply this saved plan exactly, or refuse
    #[arg(long = "plan", value_name = "FILE", conflicts_with_all = ["target", "sls", "commit", "prune"])]
    saved: Option<PathBuf>,
    /// Do not ask
    #[arg(short = 'y', long)]
    yes: bool,
    /// When a host fails, take the run back on every host it touched
    #[arg(long, help_heading = "Run")]
    rollback_on_failure: bool,
    /// One JSON object per line
    #[arg(long, requires = "yes")]
    pub json: bool,
}

pub async fn run(mut args: ApplyArgs, color: Color) -> Ended {
    let printer = Arc::new(Printer::new(args.json, color));
    let saved = args.saved.as_ref().map(|path| SavedPlan::read(path, now())).transpose()?;
    if let Some(saved) = &saved {
        // The tree that the plan was made of: a commit stays what it was, a dirty work tree must still be the same.
        if !saved.source.dirty && !saved.source.commit.is_empty() {
            args.repository.commit = Some(saved.source.commit.clone());
        }
        args.scope.sls = saved.scope.sls.clone();
    }
    let mut context = Context::open(&args.repository, &args.connect, printer.clone())?;
    context.prune(saved.as_ref().map_or(args.prune.request(), |saved| saved.scope.prune))?;
    let hosts = match &saved {
        Some(saved) => {
            context.same_source(saved, &args.scope)?;
            context.named(saved.hosts.keys())?
        }
        None => context.hosts(&args.target).await?,
    };
    let how = How { waves: &args.waves, yes: args.yes, rollback_on_failure: args.rollback_on_failure, prepared: None, judge: None };
    plan_and_apply(&context, hosts, &args.scope, saved.as_ref(), &how).await
}

/// How a plan is carried out once it is there.
pub struct How<'a> {
    pub waves: &'a WaveArgs,
    pub yes: bool,
    pub rollback_on_failure: bool,
    /// The commit that is planned here, and becomes what is wanted before the first host is touched.
    pub prepared: Option<&'a Prepared>,
    /// Who says, having seen the plans, whether they are carried out; nobody: they are.
    pub judge: Option<&'a Judge<'a>>,
}

pub type Judge<'a> = dyn Fn(&[Planned]) -> Judgement + Send + Sync + 'a;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    Carry,
    /// The plans are shown, and that is all.
    Show,
    /// Not even that.
    Pass,
}

/// What became of the hosts.
#[derive(Default)]
pub struct Carried {
    pub summary: Summary,
    pub results: Results,
    /// The run; none, where there was nothing to do.
    pub run: Option<String>,
}

/// Plans the hosts, asks, applies.
pub async fn plan_and_apply(context: &Context, hosts: Vec<Host>, scope: &ScopeArgs, saved: Option<&SavedPlan>, how: &How<'_>) -> Ended {
    Ok(summary_code(&carry_out(context, hosts, scope, saved, how).await?.summary))
}

/// The same, and says what became of each host.
pub async fn carry_out(
    context: &Context,
    hosts: Vec<Host>,
    scope: &ScopeArgs,
    saved: Option<&SavedPlan>,
    how: &How<'_>,
) -> Result<Carried, End> {
    let untouched = |summary: Summary| Carried { summary, ..Carried::default() };
    let printer = &context.printer;
    let compiler = context.compiler(scope)?;
    let mut summary = context.summary();
    context.work.sink.event(Event::PlanStarted { source: &context.source, hosts: hosts.len() });
    let planned = plan(&context.work, hosts, compiler, &mut summary).await;
    context.remember_grains(&planned);
    let judgement = how.judge.map_or(Judgement::Carry, |judge| judge(&planned));
    // A saved plan was looked at when it was made; applying it shows what is different only, as a refusal.
    if saved.is_some() || judgement == Judgement::Pass {
        printer.faults()
    } else {
        printer.plans()
    }
    if let Some(saved) = saved {
        let fresh = planned.iter().try_for_each(|p| saved.compare(&p.session.host.id, &machine(&p.session), &p.plan));
        // A saved plan is for all its hosts or for none.
        let all = match summary.worst_dropped() {
            Some(code) => Err(Diagnostic::new(code, "not every host of the saved plan could be planned again; nothing was touched").into()),
            None => fresh,
        };
        if let Err(fault) = all {
            close_all(planned.into_iter().map(|p| p.session).collect()).await;
            return Err(fault.into());
        }
    }
    let busy = planned.iter().filter(|p| !p.plan.steps.is_empty()).count();
    // A tree that does not compile for one host is not applied to the others: half a commit is no commit.
    if summary.codes.iter().any(|c| !matches!(c, Code::Failed | Code::Unreachable | Code::HostKey)) {
        printer.plan_summary(&summary);
        printer.say("Nothing was changed.");
        close_all(planned.into_iter().map(|p| p.session).collect()).await;
        return Ok(untouched(summary));
    }
    if judgement != Judgement::Carry {
        printer.plan_summary(&summary);
        close_all(planned.into_iter().map(|p| p.session).collect()).await;
        return Ok(untouched(summary));
    }
    if busy > 0 && !printer.is_json() {
        printer.plan_summary(&summary);
    }
    let question = match (busy, how.prepared) {
        (0, None) => None,
        (0, Some(_)) => Some("Commit?".to_owned()),
        (_, None) => Some(format!("Apply to {}?", count(busy, "host"))),
        (_, Some(_)) => Some(format!("Commit, and apply to {}?", count(busy, "host"))),
    };
    if let Some(question) = question.filter(|_| !how.yes)
        && !super::context::confirmed(printer, &context.work.stop, &question).await?
    {
        close_all(planned.into_iter().map(|p| p.session).collect()).await;
        printer.say("Nothing was changed.");
        summary.declined = true;
        return Ok(untouched(summary));
    }
    if let Some(prepared) = how.prepared {
        let published = match prepared.publish() {
            Ok(true) => Ok(()),
            Ok(false) => Err(Diagnostic::new(Code::Stale, "the branch was moved by somebody else meanwhile")
                .hint("nothing was changed: try again")
                .into()),
            Err(fault) => Err(fault),
        };
        if let Err(fault) = published {
            close_all(planned.into_iter().map(|p| p.session).collect()).await;
            return Err(fault.into());
        }
        committed(printer, &prepared.commit, &prepared.edit);
    }
    Ok(finish(context, planned, summary, how, busy > 0).await)
}

async fn finish(context: &Context, planned: Vec<Planned>, planned_summary: Summary, how: &How<'_>, busy: bool) -> Carried {
    // What the plan counted becomes what was done; what did not get so far stays failed.
    let mut summary = planned_summary.dropped_only();
    let run = context.run_header(Vec::new());
    let options = ApplyOptions {
        rollback: how.rollback_on_failure.then(|| context.run_header(vec![run.id.clone()])),
        run: run.clone(),
        batch: how.waves.batch,
        canary: how.waves.canary,
        max_failures: how.waves.max_failures,
        lock_timeout: how.waves.lock_timeout,
        guard_timeout: how.waves.guard.seconds(&context.settings),
    };
    for host in &planned {
        summary.unchanged += host.plan.unchanged;
    }
    let mut history = RunHistory::new(run, context.source.clone());
    if busy {
        context.remember(&history);
    }
    let mut results = apply(&context.work, planned, &options, &mut summary).await;
    results.run.extend(summary.dropped.iter().cloned());
    if busy {
        context.remember_end(&mut history, &results.run);
        if let (false, Some(back)) = (results.taken_back.is_empty(), options.rollback) {
            let mut record = RunHistory::new(back, context.source.clone());
            record.end(now_ms(), &results.taken_back);
            context.remember(&record);
        }
    } else {
        context.printer.plan_summary(&planned_summary);
    }
    if busy || (!context.printer.is_json() && !summary.codes.is_empty()) {
        context.printer.run_summary(&summary);
    }
    Carried { summary, results, run: busy.then_some(options.run.id) }
}
