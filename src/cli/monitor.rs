//! `basalt monitor`: one pass over this machine's filesystems, or pass after pass; on nodes the agent does the same.

use std::path::PathBuf;

use clap::Args;

use super::Ended;
use crate::monitor::{CONFIG, Options, run as watch};

#[derive(Args)]
pub struct MonitorArgs {
    /// What goes by which number
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
    /// Pass after pass, at the interval of the configuration
    #[arg(long)]
    daemon: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

pub fn run(args: MonitorArgs) -> Ended {
    let options = Options { config: Some(args.config), daemon: args.daemon, dry_run: args.dry_run };
    Ok(if watch(&options, &mut std::io::stdout())? { 3 } else { 0 })
}
