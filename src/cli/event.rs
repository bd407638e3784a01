//! `basalt event`: tells orchestrations that wait for it that something has happened.

use clap::{Args, Subcommand};

use super::context::{now_ms, store_of};
use super::print::{Color, Printer};
use super::{Ended, RepositoryArgs};
use crate::diagnostic::{Code, Diagnostic};
use crate::orchestrate::Bell;
use crate::value::{Map, Value};

#[derive(Subcommand)]
pub enum EventCommand {
    /// Fire an event: `salt.wait_for_event` of orchestrations here sees it
    Send(SendArgs),
}

#[derive(Args)]
pub struct SendArgs {
    /// Its tag: `app/deployed`
    tag: String,
    /// Its data, a mapping: `{id: web1}`
    data: Option<String>,
    #[command(flatten)]
    repository: RepositoryArgs,
}

pub fn run(EventCommand::Send(args): EventCommand, color: Color) -> Ended {
    let data = match &args.data {
        None => Map::new(),
        Some(text) => match crate::yaml::load(text, "the command line")? {
            Value::Map(data) => data,
            other => {
                let fault = Diagnostic::new(Code::Usage, format!("an event's data are a mapping, and this is {}", other.kind()));
                return Err(fault.hint("'{id: web1}'").into());
            }
        },
    };
    Bell { store: store_of(&args.repository)?, clock: now_ms }.fire(&args.tag, data)?;
    Printer::new(false, color).say(&format!("Fired {}.", args.tag));
    Ok(0)
}
