//! `basalt node`: the nodes of the cluster. A node comes and goes by a commit, with the roles that change by it.

use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::json;

use super::change::{ChangeArgs, carry_out};
use super::cluster::sync;
use super::context::{Context, cache_folder, now, short};
use super::opened::Opened;
use super::print::{Color, Printer, clean};
use super::recover::{self, RecoverArgs, as_json, known, painted};
use super::{Ended, RepositoryArgs, ShowArgs, process};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::engine::cluster;
use crate::engine::commit::commit_edit;
use crate::engine::facts::resources;
use crate::engine::history::time_text;
use crate::fleet::Host;
use crate::fleet::cluster::{Node, path_of};
use crate::fleet::process::Process;
use crate::fleet::role::{Resources, Role};
use crate::watch::recovery::Recovery;

#[derive(Subcommand)]
pub enum NodeCommand {
    /// Take a host that ssh reaches into the cluster: it gets a role, and is made what that role says
    Add(NodeAddArgs),
    /// The nodes, in the order in which they joined
    List(ShowArgs),
    /// What git has of a node
    Show(NodeShowArgs),
    /// Take a node out of the cluster, its processes first; the others get the roles that they should have then
    Remove(NodeRemoveArgs),
    /// Its managed processes are to be online
    Start(NodeTurnArgs),
    /// Its managed processes are to be offline
    Stop(NodeTurnArgs),
    /// No process comes to it any more
    Cordon(NodeCordonArgs),
    /// Processes may come to it again
    Uncordon(NodeCordonArgs),
    /// Try nodes again that are away or have failed, now and by hand
    Recover(RecoverArgs),
}

impl NodeCommand {
    pub fn json(&self) -> bool {
        match self {
            NodeCommand::Add(args) => args.change.json,
            NodeCommand::List(args) => args.json,
            NodeCommand::Show(args) => args.json,
            NodeCommand::Remove(args) => args.change.json,
            NodeCommand::Start(args) | NodeCommand::Stop(args) => args.change.json,
            NodeCommand::Recover(args) => args.change.json,
            NodeCommand::Cordon(_) | NodeCommand::Uncordon(_) => false,
        }
    }
}

#[derive(Args)]
pub struct NodeAddArgs {
    /// The minion id that it gets
    id: String,
    /// A name or an address that ssh understands, or `local` for this machine
    address: String,
    /// The role it gets if it is large enough for it
    #[arg(long, value_name = "ROLE")]
    preferred_role: Option<Role>,
    /// The user to log in as
    #[arg(long)]
    user: Option<String>,
    /// The port of its ssh
    #[arg(long)]
    port: Option<u16>,
    /// Bring the processes of this role of processes.yaml along; may be given several times
    #[arg(long = "process", value_name = "ROLE")]
    processes: Vec<String>,
    /// Become root by sudo
    #[arg(long)]
    sudo: bool,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Args)]
pub struct NodeShowArgs {
    /// The node's minion id
    id: String,
    #[command(flatten)]
    repository: RepositoryArgs,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct NodeTurnArgs {
    /// The node's minion id
    id: String,
    /// Even where a role would lose its quorum
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Args)]
pub struct NodeCordonArgs {
    /// The node's minion id
    id: String,
    #[command(flatten)]
    repository: RepositoryArgs,
}

#[derive(Args)]
pub struct NodeRemoveArgs {
    /// The node's minion id
    id: String,
    /// Even where a role would lose its quorum, or nobody can say whether a process has stopped
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    change: ChangeArgs,
}

pub async fn run(command: NodeCommand, color: Color) -> Ended {
    let printer = Arc::new(Printer::new(command.json(), color));
    match command {
        NodeCommand::Add(args) => add(args, printer).await,
        NodeCommand::List(args) => list(&args, &printer),
        NodeCommand::Show(args) => show(&args, &printer),
        NodeCommand::Start(args) => process::start(&args.change, printer, &managed(&args.change.repository, &args.id)?).await,
        NodeCommand::Stop(args) => process::stop(&args.change, printer, &managed(&args.change.repository, &args.id)?, args.force).await,
        NodeCommand::Cordon(args) => cordon(&args, &printer, true),
        NodeCommand::Uncordon(args) => cordon(&args, &printer, false),
        NodeCommand::Recover(args) => recover::run(args, printer).await,
        NodeCommand::Remove(args) => {
            let ids: Vec<String> = processes(&args.change.repository, &args.id)?.into_iter().map(|process| process.id).collect();
            let mut code = 0;
            if !ids.is_empty() {
                code = process::take_out(&args.change, printer.clone(), &ids, args.force).await?;
            }
            match code {
                // A node that is away can go all the same, its processes as failed; that they may still run there is told.
                0 | 4 => Ok(carry_out(&args.change, printer, |snapshot| cluster::remove(snapshot, &args.id)).await?.max(code)),
                _ => Ok(code),
            }
        }
    }
}

/// The processes of a node.
fn processes(repository: &RepositoryArgs, id: &str) -> Result<Vec<Process>> {
    let mut cluster = cluster::read(&Opened::at(repository, None)?.snapshot)?;
    cluster.node(id)?;
    Ok(cluster.processes.remove(id).unwrap_or_default())
}

/// The ids of those that are managed.
fn managed(repository: &RepositoryArgs, id: &str) -> Result<Vec<String>> {
    let ids: Vec<String> = processes(repository, id)?.into_iter().filter(|process| process.managed).map(|process| process.id).collect();
    if ids.is_empty() {
        return Err(Diagnostic::new(Code::Usage, format!("{id} has no managed processes")).into());
    }
    Ok(ids)
}

fn cordon(args: &NodeCordonArgs, printer: &Printer, cordoned: bool) -> Ended {
    let committed = commit_edit(&args.repository.repo, &cache_folder(), &mut |snapshot| cluster::cordon(snapshot, &args.id, cordoned))?;
    let said = if cordoned { "is cordoned" } else { "is not cordoned" };
    match committed {
        Some(commit) => printer.say(&format!("{} {said} ({}).", args.id, short(&commit))),
        None => printer.say(&format!("{} {said} already.", args.id)),
    }
    Ok(0)
}

async fn add(args: NodeAddArgs, printer: Arc<Printer>) -> Ended {
    let preferred = args.preferred_role;
    let mut host = Host::new(&args.id, &args.address);
    (host.user, host.port, host.sudo) = (args.user.clone(), args.port, args.sudo);
    let mut node = Node { host, role: None, preferred, joined: time_text(now()), resources: None, cordoned: false };
    let opened = Opened::at(&args.change.repository, None)?;
    let there = |known: &&Node| (&known.host.id, &known.host.address, known.host.port) == (&args.id, &args.address, args.port);
    if cluster::read(&opened.snapshot)?.nodes.iter().any(|known| there(&known)) {
        // The commit is there; a controller that went away may have left the rest.
        printer.say(&format!("{} is a node already: all of them are made what git says.", clean(&args.id)));
        let code = sync(&args.change, printer.clone()).await?;
        return if code == 0 { bring_all(&args, printer).await } else { Ok(code) };
    }
    // What git would refuse is refused before the host is asked.
    cluster::add(&opened.snapshot, node.clone())?;
    let context = Context::open(&args.change.repository, &args.change.connect, printer.clone())?;
    let found = facts(&context, &node.host).await?;
    printer.say(&format!(
        "{} has {} CPU cores, {} GB of memory, {} GB of disk.",
        clean(&args.id),
        found.cpu_cores,
        found.memory_gb,
        found.storage_gb
    ));
    if let Some((role, lacking)) = preferred.map(|role| (role, found.lacking(role))).filter(|(_, lacking)| !lacking.is_empty()) {
        let note = Diagnostic::warning(Code::Settings, format!("{} is too small for the preferred role {role}", args.id));
        printer.fault(&note.detail(format!("It has {}.", lacking.join(", "))));
    }
    node.resources = Some(found);
    let code = carry_out(&args.change, printer.clone(), |snapshot| cluster::add(snapshot, node.clone())).await?;
    if code == 0 { bring_all(&args, printer).await } else { Ok(code) }
}

/// The processes that are to come with a node, and are not there yet.
async fn bring_all(args: &NodeAddArgs, printer: Arc<Printer>) -> Ended {
    for role in &args.processes {
        if processes(&args.change.repository, &args.id)?.iter().any(|process| process.role == *role) {
            continue;
        }
        let code = process::bring(&process::AddArgs::of(&args.id, role, &args.change), printer.clone()).await?;
        if code != 0 {
            return Ok(code);
        }
    }
    Ok(0)
}

async fn facts(context: &Context, host: &Host) -> Result<Resources> {
    let work = &context.work;
    let mut session = work.session(host.clone()).await?;
    let found = resources(&mut session).await;
    session.close().await;
    found
}

fn list(args: &ShowArgs, printer: &Printer) -> Ended {
    let opened = Opened::at(&args.repository, args.repository.commit.as_deref())?;
    let cluster = cluster::read(&opened.snapshot)?;
    let width = |of: fn(&Node) -> usize| cluster.nodes.iter().map(of).max().unwrap_or_default();
    let (ids, addresses) = (width(|node| node.host.id.len()), width(|node| node.host.address.len()));
    let recovering = known(&args.repository)?;
    for node in &cluster.nodes {
        let recovery = recovering.get(&node.host.id);
        printer.json(&node_json(node, recovery));
        let role = node.role.map_or("none", Role::name);
        let (id, address, away) = (clean(&node.host.id), clean(&node.host.address), painted(printer, recovery));
        printer.say(&format!("{id:ids$}  {address:addresses$}  {role:<8}  joined {}{away}", node.joined));
    }
    if cluster.nodes.is_empty() {
        printer.say("The cluster has no nodes: `basalt node add ID ADDRESS` adds one.");
    }
    Ok(0)
}

fn show(args: &NodeShowArgs, printer: &Printer) -> Ended {
    let opened = Opened::at(&args.repository, args.repository.commit.as_deref())?;
    let cluster = cluster::read(&opened.snapshot)?;
    let recovering = known(&args.repository)?;
    let recovery = recovering.get(&args.id);
    printer.json(&node_json(cluster.node(&args.id)?, recovery));
    if recovery.is_some() {
        printer.say(&format!("# {}{}", clean(&args.id), painted(printer, recovery)));
    }
    if let Some(file) = opened.snapshot.read(&path_of(&args.id))? {
        printer.say(&format!("# {}\n{}", path_of(&args.id), clean_lines(&String::from_utf8_lossy(&file.bytes))));
    }
    Ok(0)
}

fn clean_lines(text: &str) -> String {
    text.lines().map(clean).collect::<Vec<_>>().join("\n")
}

fn node_json(node: &Node, recovery: Option<&Recovery>) -> serde_json::Value {
    json!({
        "type": "node", "node": node.host.id, "address": node.host.address, "role": node.role.map(Role::name),
        "preferred": node.preferred.map(Role::name), "joined": node.joined, "resources": node.resources.map(resources_json),
        "recovery": as_json(recovery),
    })
}

fn resources_json(found: Resources) -> serde_json::Value {
    json!({"cpu_cores": found.cpu_cores, "memory_gb": found.memory_gb, "storage_gb": found.storage_gb})
}
