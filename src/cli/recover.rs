//! `basalt node recover`: nodes that are away or have failed are tried again by hand; and how commands show such nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use super::apply::plan_and_apply;
use super::change::ChangeArgs;
use super::context::{Context, now, store_of};
use super::print::{Paint, Printer, clean};
use super::{Ended, RepositoryArgs, ScopeArgs};
use crate::diagnostic::Result;
use crate::engine::cluster;
use crate::engine::history::time_text;
use crate::watch::recovery::{self, Pace, Recovery, Standing};

#[derive(Args)]
pub struct RecoverArgs {
    /// Minion ids of nodes (default: all that are transient or failed)
    ids: Vec<String>,
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// Each node by itself, so that one that does not work keeps no other from it.
pub async fn run(args: RecoverArgs, printer: Arc<Printer>) -> Ended {
    let context = Context::open(&args.change.repository, &args.change.connect, printer.clone())?;
    let cluster = cluster::read(&context.snapshot)?;
    let known = recovery::all(context.store.as_ref())?;
    let ids = if args.ids.is_empty() { known.into_keys().filter(|id| context.knows(id)).collect() } else { args.ids };
    for id in &ids {
        cluster.node(id)?;
    }
    if ids.is_empty() {
        printer.say("No node is transient or failed.");
    }
    let pace = Pace::of(&context.settings);
    let mut worst = 0;
    for id in &ids {
        let hosts = context.named(std::iter::once(id))?;
        let code = plan_and_apply(&context, hosts, &ScopeArgs::default(), None, &args.change.how(None)).await?;
        worst = worst.max(code);
        let outcome = match code {
            0 => Ok(()),
            // Somebody said no: nothing was tried.
            8 => continue,
            130 => return Ok(code),
            4 => Err("it is away"),
            _ => Err("it does not become what git says"),
        };
        let after = recovery::tried(context.store.as_ref(), id, outcome, &pace, now())?;
        let shown = after.as_ref().map_or_else(|| "is as it should be".to_owned(), |recovery| format!("is {}", text(recovery)));
        printer.json(&json!({"type": "recovery", "node": id, "recovery": as_json(after.as_ref())}));
        printer.say(&format!("{} {shown}.", clean(id)));
    }
    Ok(worst)
}

/// What is known of the nodes that are not as they should be.
pub fn known(repository: &RepositoryArgs) -> Result<BTreeMap<String, Recovery>> {
    recovery::all(store_of(repository)?.as_ref())
}

pub fn as_json(recovery: Option<&Recovery>) -> Value {
    recovery.map_or(Value::Null, |recovery| {
        json!({
            "state": recovery.standing.name(), "since": recovery.since, "tries": recovery.tries, "next": recovery.next(), "why": recovery.why,
        })
    })
}

/// Behind the line of a node.
pub fn painted(printer: &Printer, recovery: Option<&Recovery>) -> String {
    let Some(recovery) = recovery else { return String::new() };
    let paint = if recovery.standing == Standing::Failed { Paint::Red } else { Paint::Yellow };
    format!("  {}", printer.paint(paint, &text(recovery)))
}

/// Since when, and when it is tried again.
fn text(recovery: &Recovery) -> String {
    let next = match recovery.next() {
        Some(next) => format!("next try at {}", time_text(next)),
        None => "tried no more".to_owned(),
    };
    let tries = match recovery.tries {
        0 => String::new(),
        1 => "1 try failed, ".to_owned(),
        tries => format!("{tries} tries failed, "),
    };
    format!("{} since {}, {tries}{next}: {}", recovery.standing.name(), time_text(recovery.since), clean(&recovery.why))
}
