//! event.send: what Salt reports, a change, for those that wait for it. On the host nothing happens: it is the controller that fires the event, where an
//! orchestration ran the state (`orchestrate/event.rs`).

use super::{Arg, ArgKind, Entry, Function, Run, There, Want};
use crate::diagnostic::Result;
use crate::plan::{Key, Low};
use crate::system::Command;

const ARGS: &[Arg] = &[
    Arg::new("name", ArgKind::Str, "", "The event's tag. Example: app/deployed"),
    Arg::new("data", ArgKind::Any, "", "The event's data, for who waits for it. Example: {version: '1.2'}"),
    Arg::new("preload", ArgKind::Any, "", "Accepted without effect."),
    Arg::new("with_env", ArgKind::Any, "False", "Accepted without effect."),
    Arg::new("with_grains", ArgKind::Any, "False", "Accepted without effect."),
    Arg::new("with_pillar", ArgKind::Any, "False", "Accepted without effect."),
    Arg::new("show_changed", ArgKind::Bool, "True", "Accepted without effect."),
    Arg::new("tgt", ArgKind::Any, "", "Accepted without effect."),
];

pub const FUNCTIONS: &[Entry] = &[
    Entry {
        name: "event.send",
        doc: "Counts as a change. What waits for the event is salt.wait_for_event of orchestrations, where one ran it.",
        args: ARGS,
        watches: true,
        parse: |low| parse(low, false),
    },
    Entry {
        name: "event.wait",
        doc: "The same if something it watches changes.",
        args: ARGS,
        watches: true,
        parse: |low| parse(low, true),
    },
];

struct Event {
    tag: String,
    waits: bool,
}

fn parse(low: &Low, waits: bool) -> Result<Box<dyn Function>> {
    Ok(Box::new(Event { tag: low.name.clone(), waits }))
}

impl Event {
    fn sent(&self) -> Want {
        let shown = format!("event {}", self.tag);
        Want::Run(Run { pretended: Some(true), ..Run::new(Command::default(), shown) })
    }
}

impl Function for Event {
    fn objects(&self, _: &dyn There) -> Result<Vec<Key>> {
        Ok(Vec::new())
    }

    fn want(&self, _: &dyn There) -> Result<Want> {
        Ok(if self.waits { Want::Nothing("nothing it watches changes".to_owned()) } else { self.sent() })
    }

    fn react(&self, _: &dyn There, _cause: &str) -> Result<Option<Want>> {
        Ok(Some(self.sent()))
    }
}
