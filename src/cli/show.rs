//! `basalt show`: a run of the past, or what the compiler sees.

use clap::Subcommand;

use super::print::Color;
use super::{Ended, runs, see};

#[derive(Subcommand)]
pub enum ShowCommand {
    /// A run: who, when, which commit, what became of each host
    Run(runs::ShowRunArgs),
    /// The SLS that the top file gives a host
    Top(see::SeeArgs),
    /// The SLS a host gets, those they include too
    Sls(see::SeeArgs),
    /// The high data: ids, states and arguments before they are ordered
    High(see::SeeArgs),
    /// The low chunks: every call of a state function, in execution order
    Low(see::SeeArgs),
    /// The pillar of a host
    Pillar(see::SeeArgs),
    /// The grains that are compiled with
    Grains(see::SeeArgs),
}

impl ShowCommand {
    pub fn json(&self) -> bool {
        match self {
            ShowCommand::Run(args) => args.json,
            ShowCommand::Top(args) | ShowCommand::Sls(args) | ShowCommand::High(args) => args.json,
            ShowCommand::Low(args) | ShowCommand::Pillar(args) | ShowCommand::Grains(args) => args.json,
        }
    }
}

pub async fn run(command: ShowCommand, color: Color) -> Ended {
    match command {
        ShowCommand::Run(args) => runs::show(args, color),
        ShowCommand::Top(args) => see::run(args, see::Thing::Top, color).await,
        ShowCommand::Sls(args) => see::run(args, see::Thing::Sls, color).await,
        ShowCommand::High(args) => see::run(args, see::Thing::High, color).await,
        ShowCommand::Low(args) => see::run(args, see::Thing::Low, color).await,
        ShowCommand::Pillar(args) => see::run(args, see::Thing::Pillar, color).await,
        ShowCommand::Grains(args) => see::run(args, see::Thing::Grains, color).await,
    }
}
