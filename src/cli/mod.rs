//! The command line: one short file per command over a silent library. Parses, dispatches, turns what happened into an exit code.

mod agent;
mod apply;
mod bootstrap;
mod call;
mod change;
mod check;
mod cluster;
mod context;
mod data;
mod demo;
mod diff;
pub mod doc;
mod event;
mod explain;
mod import;
mod init;
mod join;
mod key;
mod lint;
mod markdown;
mod monitor;
mod node;
mod opened;
mod orchestrate;
mod plan;
pub mod print;
mod process;
mod progress;
mod recover;
mod role;
mod rollback;
mod runs;
mod see;
mod show;
mod token;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::agent::protocol::Prune;
use crate::diagnostic::{Code, Diagnostic};
use crate::engine::event::Summary;
use crate::engine::schedule::Batch;
use crate::engine::settings::Settings;
use print::{Color, Printer};

/// Runs Salt's state language without Salt: plan, apply and roll back fleets of servers over SSH.
#[derive(Parser)]
#[command(name = "basalt", version, max_term_width = 100, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// When to use colours
    #[arg(long, global = true, value_enum, default_value_t, env = "BASALT_COLOR")]
    color: Color,
}

#[derive(Subcommand)]
enum Command {
    /// See the main job on throwaway hosts: init, commit, plan, apply, drift, rollback
    Demo(demo::DemoArgs),
    /// Make a new state repository that plans at once
    Init(init::InitArgs),
    /// Show what would change, per host, with diffs
    Plan(plan::PlanArgs),
    /// What a change of the tree means for each host, asking none
    Diff(diff::DiffArgs),
    /// Plan, ask, apply
    Apply(apply::ApplyArgs),
    /// Take a run back, showing first what that changes
    Rollback(rollback::RollbackArgs),
    /// Watch: edits, commits, a timer and drift lead to plans, or with --apply to runs
    Watch(watch::WatchArgs),
    /// The history of runs
    Runs(runs::RunsArgs),
    /// Show a run, or what the compiler sees
    #[command(subcommand)]
    Show(show::ShowCommand),
    /// Find what is wrong or looks wrong in a tree, without any host
    Lint(lint::LintArgs),
    /// Say why a state changes, waits or is skipped, and what requires it
    Explain(explain::ExplainArgs),
    /// Run one command on many hosts
    Run(call::RunArgs),
    /// Call one execution function on many hosts
    Call(call::CallArgs),
    /// Carry out jobs over many hosts, in the order of an orchestration SLS
    Orchestrate(orchestrate::OrchestrateArgs),
    /// Tell orchestrations that wait for it that something has happened: send
    #[command(subcommand)]
    Event(event::EventCommand),
    /// The nodes of the cluster: add, list, show, remove
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// All nodes at once: status, start, stop, sync, update, dump, load, vars, reset
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// What runs on the nodes: add, list, start, stop, remove, configuration
    #[command(subcommand)]
    Process(process::ProcessCommand),
    /// Make this machine the first node of a cluster, or a node of one that is there
    Bootstrap(bootstrap::BootstrapArgs),
    /// Make this machine a node, by the controller's token or somebody's yes there
    Join(join::JoinArgs),
    /// Tokens by which machines join: create, list, revoke; `create --listen` lets them in
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Machines that ask to join without a token: list, accept, reject
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Which node is there for what, and why: show, assign, recalculate
    #[command(subcommand)]
    Role(role::RoleCommand),
    /// Write SLS for what is there on hosts
    Import(import::ImportArgs),
    /// Keep this machine's filesystems from filling up, by storage-ops.yaml: one pass
    Monitor(monitor::MonitorArgs),
    /// The host-side binary that this one carries
    Agent(agent::AgentArgs),
    /// The reference of state functions, from the code
    Doc(doc::DocArgs),
    /// Print the completion script of a shell
    Completions { shell: clap_complete::Shell },
    /// Print the manual page
    Man,
}

/// Seconds until a host takes a run back that nobody confirms.
const GUARD_TIMEOUT: u64 = 60;

/// Which state repository, at which commit, and which hosts there are.
#[derive(Args, Clone, Default)]
pub struct RepositoryArgs {
    /// The state repository: a folder in it, a bare repository, or a URL that git can fetch
    #[arg(long, value_name = "PATH|URL", env = "BASALT_REPO", default_value = ".", help_heading = "Repository")]
    repo: String,
    /// Plan this commit, branch or tag instead of the work tree
    #[arg(long, value_name = "REF", help_heading = "Repository")]
    commit: Option<String>,
    /// Instead of a repository: the settings of a Salt master (`/etc/salt`), with its file_roots, pillar_roots, nodegroups and roster
    #[arg(long, value_name = "DIR", conflicts_with = "repo", help_heading = "Repository")]
    salt_config: Option<PathBuf>,
    /// The roster (Salt's format) instead of the repository's
    #[arg(long, value_name = "FILE", env = "BASALT_ROSTER", help_heading = "Repository")]
    roster: Option<PathBuf>,
}

impl RepositoryArgs {
    /// Hosts or files are not those of the tip of the repository's branch.
    fn is_elsewhere(&self) -> bool {
        self.commit.is_some() || self.salt_config.is_some() || self.roster.is_some()
    }

    fn at_commit(&self, commit: &str) -> RepositoryArgs {
        RepositoryArgs { commit: Some(commit.to_owned()), ..self.clone() }
    }
}

/// Which hosts are meant, in Salt's ways.
#[derive(Args, Clone, Default)]
pub struct TargetArgs {
    /// Which hosts: a glob of minion ids, or what one of the options below makes of it
    #[arg(value_name = "TARGET", default_value = "*")]
    target: String,
    #[command(flatten)]
    form: FormArgs,
}

#[derive(Args, Clone, Default)]
#[group(multiple = false)]
pub struct FormArgs {
    /// TARGET is a list of minion ids, separated by commas
    #[arg(short = 'L', long, help_heading = "Targets")]
    list: bool,
    /// TARGET is a regular expression on minion ids
    #[arg(short = 'E', long, help_heading = "Targets")]
    pcre: bool,
    /// TARGET is a grain: `os:Debian`
    #[arg(short = 'G', long, help_heading = "Targets")]
    grain: bool,
    /// TARGET is a pillar value: `role:web`
    #[arg(short = 'I', long = "pillar-target", help_heading = "Targets")]
    pillar_target: bool,
    /// TARGET is a nodegroup of the settings
    #[arg(short = 'N', long, help_heading = "Targets")]
    nodegroup: bool,
    /// TARGET is a subnet or address: `192.0.2.0/24`
    #[arg(short = 'S', long = "ipcidr", help_heading = "Targets")]
    ipcidr: bool,
    /// TARGET is compound: `G@os:Debian and not web*`
    #[arg(short = 'C', long, help_heading = "Targets")]
    compound: bool,
}

/// What is planned of the tree.
#[derive(Args, Clone, Default)]
pub struct ScopeArgs {
    /// Plan these SLS instead of the highstate
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    sls: Vec<String>,
    /// Add this pillar: JSON, or a file of JSON or YAML
    #[arg(long, value_name = "JSON|FILE")]
    pillar: Option<String>,
}

/// What becomes of what is described no more.
#[derive(Args, Clone, Default)]
pub struct PruneArgs {
    /// Take away what basalt made and no state speaks of any more
    #[arg(long, conflicts_with = "sls")]
    prune: bool,
    /// With --prune: what destroys data too (volumes, filesystems, mounts in use), and packages are purged
    #[arg(long, requires = "prune")]
    destroy_data: bool,
}

impl PruneArgs {
    fn request(&self) -> Option<Prune> {
        self.prune.then_some(Prune { destroy_data: self.destroy_data })
    }
}

/// How hosts are reached.
#[derive(Args, Clone, Default)]
pub struct ConnectArgs {
    /// Ask for the ssh password
    #[arg(long, help_heading = "Connection")]
    ask_pass: bool,
    /// Ask for the sudo password
    #[arg(long, help_heading = "Connection")]
    ask_sudo_pass: bool,
}

/// Of a command that only shows what git, or this machine, has.
#[derive(Args)]
pub struct ShowArgs {
    #[command(flatten)]
    repository: RepositoryArgs,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
}

/// Of a command that shows what hosts say.
#[derive(Args)]
pub struct AskArgs {
    #[command(flatten)]
    repository: RepositoryArgs,
    #[command(flatten)]
    connect: ConnectArgs,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
}

/// How a run goes over its hosts.
#[derive(Args, Clone, Default)]
pub struct WaveArgs {
    /// Hosts at a time: a number or a share
    #[arg(long, value_name = "N|N%", help_heading = "Run")]
    batch: Option<Batch>,
    /// Apply to this many hosts first, and go on only if all of them succeed
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, help_heading = "Run")]
    canary: usize,
    /// Start no further batch once more hosts than this have failed
    #[arg(long, value_name = "N", help_heading = "Run")]
    max_failures: Option<usize>,
    /// Seconds to wait for another run on a host; 0 refuses at once
    #[arg(long, value_name = "SECONDS", default_value_t = 0, hide_default_value = true, help_heading = "Run")]
    lock_timeout: u64,
    #[command(flatten)]
    guard: GuardArgs,
}

/// How long a host waits to be reached anew.
#[derive(Args, Clone, Default)]
pub struct GuardArgs {
    /// Seconds from the end of a run that can cut the connection until the host takes it back, unless it is reached over a new one
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Run")]
    guard_timeout: Option<u64>,
}

impl GuardArgs {
    fn seconds(&self, settings: &Settings) -> u64 {
        self.guard_timeout.or(settings.guard_timeout).unwrap_or(GUARD_TIMEOUT)
    }
}

/// What a command gives: its exit code, or the fault that ended it.
type Ended = Result<u8, End>;

/// How a command ended early.
pub enum End {
    Code(u8),
    Fault(Box<Diagnostic>),
}

impl From<crate::diagnostic::Error> for End {
    fn from(fault: crate::diagnostic::Error) -> End {
        End::Fault(fault)
    }
}

impl From<Diagnostic> for End {
    fn from(fault: Diagnostic) -> End {
        End::Fault(fault.into())
    }
}

pub fn main() -> ExitCode {
    // ssh asks for passwords by running this program again.
    if let Some(code) = crate::remote::askpass::as_helper() {
        return code;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(u8::from(e.use_stderr()));
        }
    };
    let color = cli.color;
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            Printer::new(false, color).fault(&Diagnostic::io("start", &e));
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(dispatch(cli.command, color));
    // Threads that wait for a host that hangs are not waited for.
    runtime.shutdown_background();
    ExitCode::from(code)
}

async fn dispatch(command: Command, color: Color) -> u8 {
    let (json, end) = match command {
        Command::Demo(args) => (args.json, demo::run(args, color).await),
        Command::Init(args) => (false, init::run(args, color)),
        Command::Plan(args) => (args.json, plan::run(args, color).await),
        Command::Diff(args) => (args.json, diff::run(args, color).await),
        Command::Apply(args) => (args.json, apply::run(args, color).await),
        Command::Rollback(args) => (args.json, rollback::run(args, color).await),
        Command::Watch(args) => (args.json, watch::run(args, color).await),
        Command::Runs(args) => (args.json, runs::run(args, color)),
        Command::Show(command) => (command.json(), show::run(command, color).await),
        Command::Lint(args) => (args.json, lint::run(args, color)),
        Command::Explain(args) => (false, explain::run(args, color).await),
        Command::Run(args) => (args.json, call::run(args, color).await),
        Command::Call(args) => (args.json, call::call(args, color).await),
        Command::Orchestrate(args) => (args.json, orchestrate::run(args, color).await),
        Command::Event(command) => (false, event::run(command, color)),
        Command::Node(command) => (command.json(), node::run(command, color).await),
        Command::Cluster(command) => (command.json(), cluster::run(command, color).await),
        Command::Process(command) => (command.json(), process::run(command, color).await),
        Command::Bootstrap(args) => (args.json, bootstrap::run(args, color).await),
        Command::Join(args) => (args.json, join::run(args, color).await),
        Command::Token(command) => (command.json(), token::run(command, color).await),
        Command::Key(command) => (command.json(), key::run(command, color)),
        Command::Role(command) => (command.json(), role::run(command, color).await),
        Command::Import(args) => (false, import::run(args, color).await),
        Command::Monitor(args) => (false, monitor::run(args)),
        Command::Agent(args) => (false, agent::run(args)),
        Command::Doc(args) => (false, doc::run(args)),
        Command::Completions { shell } => (false, completions(shell)),
        Command::Man => (false, man()),
    };
    match end {
        Ok(0 | 2) | Err(End::Code(0 | 2)) if print::output_was_lost() => {
            Printer::new(false, color).fault(&Diagnostic::new(Code::Internal, "the output could not be written"));
            1
        }
        Ok(code) | Err(End::Code(code)) => code,
        Err(End::Fault(fault)) => {
            Printer::new(json, color).fault(&fault);
            exit_code(&[fault.code], false)
        }
    }
}

fn completions(shell: clap_complete::Shell) -> Ended {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "basalt", &mut script);
    print::out(&String::from_utf8_lossy(&script));
    Ok(0)
}

fn man() -> Ended {
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(|e| Diagnostic::io("write the manual page", &e))?;
    print::out(&String::from_utf8_lossy(&page));
    Ok(0)
}

/// The exit code of a command over hosts: the worst of what happened, in the order of the contract.
fn exit_code(codes: &[Code], declined: bool) -> u8 {
    let has = |wanted: fn(&Code) -> bool| codes.iter().any(wanted);
    if has(|c| matches!(c, Code::Interrupted)) {
        return 130;
    }
    let general = |c: &Code| {
        use Code::{Failed, HostKey, Interrupted, Locked, Stale, TakenBack, Unreachable};
        !matches!(c, Interrupted | Locked | Stale | TakenBack | Failed | Unreachable | HostKey)
    };
    if has(general) {
        return 1;
    }
    if has(|c| matches!(c, Code::Locked)) {
        return 6;
    }
    if has(|c| matches!(c, Code::Stale)) {
        return 5;
    }
    if has(|c| matches!(c, Code::TakenBack)) {
        return 7;
    }
    if has(|c| matches!(c, Code::Failed)) {
        return 3;
    }
    if has(|c| matches!(c, Code::Unreachable | Code::HostKey)) {
        return 4;
    }
    if declined { 8 } else { 0 }
}

fn summary_code(summary: &Summary) -> u8 {
    exit_code(&summary.codes, summary.declined)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_worst_exit_code_wins() {
        use Code::*;
        for (codes, code) in [
            (&[][..], 0),
            (&[Unreachable], 4),
            (&[Unreachable, Failed], 3),
            (&[HostKey], 4),
            (&[Failed, TakenBack], 7),
            (&[TakenBack, Stale, Failed], 5),
            (&[Stale, Locked], 6),
            (&[Locked, Compile], 1),
            (&[Compile, Interrupted], 130),
        ] {
            assert_eq!(exit_code(codes, false), code, "{codes:?}");
        }
        assert_eq!(exit_code(&[], true), 8);
    }
}
