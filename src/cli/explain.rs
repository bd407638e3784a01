//! `basalt explain TARGET ID`: why a state changes, waits, is skipped or stays; what it requires and what requires it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use clap::Args;

use super::context::Context;
use super::print::{Color, Paint, Printer, clean};
use super::{ConnectArgs, Ended, FormArgs, RepositoryArgs, ScopeArgs, TargetArgs, summary_code};
use crate::diagnostic::{Code, Diagnostic, nearest};
use crate::engine::apply::close_all;
use crate::engine::compile::{Answers, Attempt, Compile, Compiler, Wanted};
use crate::engine::plan::plan;
use crate::plan::{HostPlan, Low};
use crate::secret::Mask;
use crate::value::Map;

#[derive(Args)]
pub struct ExplainArgs {
    /// Which hosts
    #[arg(value_name = "TARGET")]
    target: String,
    /// The id (or name) of the state
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    form: FormArgs,
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    repository: RepositoryArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Compiles as another does, and keeps what came out.
struct Keeping {
    compiler: Compiler,
    lows: Mutex<HashMap<String, (Vec<Low>, Mask)>>,
}

impl Compile for Keeping {
    fn compile(&self, id: &str, grains: &Map, answers: &Answers) -> Result<Wanted, Vec<Diagnostic>> {
        let wanted = self.compiler.compile(id, grains, answers)?;
        self.lows.lock().unwrap_or_else(|e| e.into_inner()).insert(id.to_owned(), (wanted.lows.clone(), Mask::new(&wanted.secrets)));
        Ok(wanted)
    }

    fn pillar(&self, id: &str, grains: &Map, answers: &Answers) -> Attempt<Map> {
        self.compiler.pillar(id, grains, answers)
    }
}

pub async fn run(args: ExplainArgs, color: Color) -> Ended {
    let printer = Arc::new(Printer::new(false, color));
    let context = Context::open(&args.repository, &args.connect, printer.clone())?;
    let target = TargetArgs { target: args.target, form: args.form };
    let hosts = context.hosts(&target).await?;
    let keeping = Arc::new(Keeping { compiler: context.compiler(&args.scope)?, lows: Mutex::default() });
    let mut summary = context.summary();
    let planned = plan(&context.work, hosts, keeping.clone(), &mut summary).await;
    let all = std::mem::take(&mut *keeping.lows.lock().unwrap_or_else(|e| e.into_inner()));
    let mut found = false;
    let mut known = Vec::new();
    for host in &planned {
        let Some((lows, mask)) = all.get(&host.session.host.id) else { continue };
        for (index, low) in lows.iter().enumerate().filter(|(_, l)| l.id == args.id || l.name == args.id) {
            found = true;
            printer.say(&mask.text(&text(&printer, &host.session.host.id, index, low, lows, &host.plan)));
        }
        known.extend(lows.iter().map(|l| l.id.as_str()).filter(|id| !mask.holds_secret(id)));
    }
    // The plans themselves were not asked for; hosts that failed are told.
    printer.faults();
    let any = !planned.is_empty();
    close_all(planned.into_iter().map(|p| p.session).collect()).await;
    if !found && any {
        let fault = Diagnostic::new(Code::Usage, format!("no state {:?} on these hosts", args.id));
        return Err(match nearest(&args.id, known) {
            Some(near) => fault.hint(format!("did you mean {near:?}?")).into(),
            None => fault.hint("`basalt show low TARGET` lists the states").into(),
        });
    }
    Ok(summary_code(&summary.dropped_only()))
}

fn text(printer: &Printer, host: &str, index: usize, low: &Low, lows: &[Low], plan: &HostPlan) -> String {
    let mut lines = vec![format!("{}: {}  {}", printer.paint(Paint::Bold, &clean(host)), low.function(), clean(&low.name))];
    let place = low.span.as_ref().map_or_else(|| low.sls.clone(), ToString::to_string);
    lines.push(format!("  declared  {} in {} ({place})", low.id, low.sls));
    match plan.steps.iter().find(|s| s.low == index) {
        None => lines.push("  plan      nothing to do: it is as described".into()),
        Some(step) => {
            let action = serde_json::to_value(step.action).ok().and_then(|a| a.as_str().map(str::to_owned)).unwrap_or_default();
            lines.push(match (&step.fails, step.reason.as_str()) {
                (Some(why), _) => format!("  plan      would fail: {why}"),
                (None, "") => format!("  plan      {action}"),
                (None, reason) => format!("  plan      {action}: {reason}"),
            });
            lines.extend(step.command.iter().map(|c| format!("  command   {c}")));
            lines.extend(step.one_way.iter().map(|why| format!("  one way   {why}")));
            for change in &step.changes {
                lines.push(format!("  changes   {}", change.key));
                lines.extend(change.diff.lines().map(|l| format!("            {l}")));
            }
        }
    }
    let name = |i: usize| lows.get(i).map_or_else(String::new, |l| format!("{} {} ({})", l.function(), l.name, l.sls));
    for requisite in &low.requisites {
        let kind = format!("{:?}", requisite.kind).to_lowercase();
        lines.extend(requisite.of.iter().map(|i| format!("  {kind:9} {}", name(i))));
    }
    for other in lows {
        for requisite in other.requisites.iter().filter(|r| r.of.contains(index)) {
            let kind = format!("{:?}", requisite.kind).to_lowercase();
            lines.push(format!("  needed by {} {} ({kind})", other.function(), other.name));
        }
    }
    lines.iter().map(|l| clean(l)).collect::<Vec<_>>().join("\n")
}
