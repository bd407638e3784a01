//! What hosts must have before a command changes them: looked at on all of them first, and all that is wrong told at once.

use serde_json::json;

use super::context::{Context, now};
use super::print::{Paint, Printer, clean, count};
use crate::agent::protocol::Call;
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::engine::event::Summary;
use crate::engine::plan::{Work, on_all};
use crate::enrol::check::{Check, Standing, away, before_a_change, under_way};
use crate::fleet::Host;
use crate::value::{Map, Value};
use crate::watch::recovery::{self, Pace};

/// Looks at all hosts that a change touches. One that is away holds nobody up, and counts as transient; one that is not fit for the change does: an error.
/// `waits`: another run is waited for.
pub async fn ready(context: &Context, hosts: Vec<Host>, waits: bool) -> Result<()> {
    let printer = &context.printer;
    let work = context.work.clone();
    let looked = on_all(&context.work, hosts, &mut Summary::default(), move |host| {
        let work = work.clone();
        async move { Ok((host.id.clone(), looked_at(&work, host, waits).await?)) }
    })
    .await;
    let (mut wrong, mut busy) = (0, true);
    for (host, checks) in &looked {
        let found: Vec<&Check> = checks.iter().filter(|check| check.standing != Standing::Well).collect();
        tell(printer, Some(host), &found);
        let lacks: Vec<_> = found.iter().filter(|check| check.standing == Standing::Wrong).collect();
        wrong += usize::from(!lacks.is_empty());
        busy &= lacks.iter().all(|check| check.is_of_runs());
        if let Some(away) = found.iter().find(|check| check.is_of_reach()) {
            recovery::tried(context.store.as_ref(), host, Err(&away.found), &Pace::of(&context.settings), now())?;
        }
    }
    match wrong {
        0 => Ok(()),
        wrong => Err(Diagnostic::new(
            if busy { Code::Locked } else { Code::Failed },
            format!("{} cannot be changed as it is", count(wrong, "host")),
        )
        .detail("Nothing was changed.")
        .hint("what is needed, what there is and what to do stands above")
        .into()),
    }
}

async fn looked_at(work: &Work, host: Host, waits: bool) -> Result<Vec<Check>> {
    let mut session = match work.session(host).await {
        Ok(session) => session,
        Err(fault) if matches!(fault.code, Code::Interrupted) => return Err(fault),
        Err(fault) => return Ok(vec![away(&fault)]),
    };
    let call = Call { function: "disk.usage".to_owned(), args: Vec::new(), kwargs: Map::new() };
    let usage = session.ask_one(call).await;
    let runs = session.runs().await;
    let grains = session.grains.all.clone();
    session.close().await;
    let mut checks = before_a_change(&grains, usage.ok().as_ref().and_then(Value::as_map));
    // A host that cannot tell of its runs tells so when it is planned.
    checks.extend(runs.ok().map(|runs| under_way(&runs, waits)));
    Ok(checks)
}

/// A line for each, and what to do.
pub fn tell(printer: &Printer, host: Option<&str>, checks: &[&Check]) {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or_default();
    let before = host.map_or_else(String::new, |host| format!("{}  ", clean(host)));
    let indent = " ".repeat(before.chars().count() + 9);
    for check in checks {
        let standing = check.standing.name();
        printer.json(&json!({
            "type": "check", "host": host, "name": check.name, "needed": check.needed, "found": check.found, "result": standing, "hint": check.hint,
        }));
        let paint = match check.standing {
            Standing::Well => Paint::Green,
            Standing::Warning => Paint::Yellow,
            Standing::Wrong => Paint::Red,
        };
        let shown = printer.paint(paint, &format!("{standing:<8}"));
        let needed = if check.standing == Standing::Well { String::new() } else { format!("  needed: {}", check.needed) };
        printer.say(&format!("{before}{shown} {:width$}  {}{needed}", check.name, clean(&check.found)));
        if !check.hint.is_empty() {
            printer.say(&format!("{indent}{:width$}  {}", "", check.hint));
        }
    }
}
