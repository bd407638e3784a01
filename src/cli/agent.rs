//! `basalt agent --extract DIR`: shows the host-side binary that this one carries.

use std::path::PathBuf;

use clap::Args;

use super::Ended;
use super::print::out;
use crate::diagnostic::Diagnostic;

#[derive(Args)]
pub struct AgentArgs {
    /// Write the agents into this folder
    #[arg(long, value_name = "DIR", required = true)]
    extract: PathBuf,
}

pub fn run(args: AgentArgs) -> Ended {
    use std::os::unix::fs::PermissionsExt;
    let failed = |e: std::io::Error| Diagnostic::io(format_args!("write to {}", args.extract.display()), &e);
    std::fs::create_dir_all(&args.extract).map_err(failed)?;
    for agent in crate::remote::Agents::carried().0 {
        let path = args.extract.join(format!("basalt-agent-{}", agent.machine.to_lowercase().replace(' ', "-")));
        std::fs::write(&path, &agent.bytes).map_err(failed)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).map_err(failed)?;
        out(&format!("{}  {} bytes  sha256 {}\n", path.display(), agent.bytes.len(), agent.hash));
    }
    Ok(0)
}
