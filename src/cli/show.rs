//! `basalt show`: a run of the past, or what the compiler sees.

use clap::Subcommand;

use super::print::Color;
use super::{Ended, runs};

#[derive(Subcommand)]
pub enum ShowCommand {
    /// A run: who, when, which commit, what became of each host
    Run(runs::ShowRunArgs),
}

impl ShowCommand {
    pub fn json(&self) -> bool {
        match self {
            ShowCommand::Run(args) => args.json,
        }
    }
}

pub async fn run(command: ShowCommand, color: Color) -> Ended {
    match command {
        ShowCommand::Run(args) => runs::show(args, color),
    }
}
