//! `basalt plan`: what would change, per host.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::context::Context;
use super::print::{Color, Printer};
use super::{ConnectArgs, End, Ended, PruneArgs, RepositoryArgs, ScopeArgs, TargetArgs, summary_code};
use crate::engine::apply::close_all;
use crate::engine::event::Event;
use crate::engine::plan::{Planned, plan};
use crate::engine::saved::{FORMAT, LIFETIME, SavedHost, SavedPlan};

#[derive(Args)]
pub struct PlanArgs {
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
    /// Save the plan, for `basalt apply --plan FILE`
    #[arg(short = 'o', long = "out", value_name = "FILE")]
    out: Option<PathBuf>,
    /// One JSON object per line
    #[arg(long)]
    pub json: bool,
    /// Exit with 2 when changes are pending
    #[arg(long)]
    detailed_exitcode: bool,
}

pub async fn run(args: PlanArgs, color: Color) -> Ended {
    let printer = Arc::new(Printer::new(args.json, color));
    let mut context = Context::open(&args.repository, &args.connect, printer.clone())?;
    context.prune(args.prune.request())?;
    let hosts = context.hosts(&args.target).await?;
    let compiler = context.compiler(&args.scope)?;
    let mut summary = context.summary();
    context.work.sink.event(Event::PlanStarted { source: &context.source, hosts: hosts.len() });
    let planned = plan(&context.work, hosts, compiler, &mut summary).await;
    context.remember_grains(&planned);
    printer.plans();
    if let Some(path) = &args.out {
        saved(&context, &args.scope, &planned)?.write(path)?;
    }
    printer.plan_summary(&summary);
    if let Some(path) = &args.out {
        printer.say(&format!("Saved. `basalt apply --plan {}` applies exactly this, or refuses.", path.display()));
    }
    close_all(planned.into_iter().map(|p| p.session).collect()).await;
    let code = summary_code(&summary);
    Ok(if code == 0 && args.detailed_exitcode && summary.pending() { 2 } else { code })
}

fn saved(context: &Context, scope: &ScopeArgs, planned: &[Planned]) -> Result<SavedPlan, End> {
    let created = super::context::now();
    let hosts = planned
        .iter()
        .map(|p| {
            let host = SavedHost { machine: super::context::machine(&p.session), plan: p.plan.clone() };
            (p.session.host.id.clone(), host)
        })
        .collect();
    Ok(SavedPlan {
        format: FORMAT,
        basalt: env!("CARGO_PKG_VERSION").to_owned(),
        source: context.source.clone(),
        scope: context.saved_scope(scope)?,
        created,
        expires: created + LIFETIME,
        hosts,
    })
}
