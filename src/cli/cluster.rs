//! `basalt cluster`: all nodes at once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::json;

use super::apply::plan_and_apply;
use super::change::{ChangeArgs, carry_out, prepare, reconcile};
use super::check::ready;
use super::context::{Context, cache_folder, now, short};
use super::opened::Opened;
use super::print::{Color, Paint, Printer, clean, count, out};
use super::process::{Seen, asked, start, stop};
use super::recover::{as_json, painted};
use super::{AskArgs, Ended, RepositoryArgs, ScopeArgs, exit_code};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::engine::cluster::{self, dumped, loaded, set_variable};
use crate::engine::commit::commit_edit;
use crate::fleet::cluster::Cluster;
use crate::fleet::process::{Process, State};
use crate::fleet::role::Role;
use crate::lang::jinja::dump::yaml;
use crate::watch::recovery::{self, Pace, Standing};

#[derive(Subcommand)]
pub enum ClusterCommand {
    /// The nodes, whether they are there, and what runs on them
    Status(AskArgs),
    /// All nodes at once become what git says, and all managed processes are to be online
    Start(ChangeArgs),
    /// All managed processes are to be offline
    Stop(ChangeArgs),
    /// Make every node what git says
    Sync(ChangeArgs),
    /// Give every node the role that it should have, and make every node what git says
    Update(ChangeArgs),
    /// The whole cluster as one YAML: its settings, nodes and processes
    Dump(DumpArgs),
    /// Take what `dump` wrote as what is wanted; nodes and processes that do not stand in it go
    Load(LoadArgs),
    /// The settings of the cluster, or `NAME=VALUE` to change one
    Vars(VarsArgs),
    /// Stop all processes and take all nodes out of the cluster; what they have stays on them
    Reset(ChangeArgs),
}

impl ClusterCommand {
    pub fn json(&self) -> bool {
        match self {
            ClusterCommand::Status(args) => args.json,
            ClusterCommand::Start(args) | ClusterCommand::Stop(args) | ClusterCommand::Sync(args) => args.json,
            ClusterCommand::Update(args) | ClusterCommand::Reset(args) => args.json,
            ClusterCommand::Load(args) => args.change.json,
            ClusterCommand::Dump(_) | ClusterCommand::Vars(_) => false,
        }
    }
}

#[derive(Args)]
pub struct DumpArgs {
    #[command(flatten)]
    repository: RepositoryArgs,
}

#[derive(Args)]
pub struct LoadArgs {
    /// The file that `dump` wrote
    file: PathBuf,
    /// Only say whether it can be loaded
    #[arg(long)]
    verify: bool,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Args)]
pub struct VarsArgs {
    /// What is to change: `rebalance_on_join=false`
    #[arg(value_name = "NAME=VALUE")]
    set: Option<String>,
    #[command(flatten)]
    repository: RepositoryArgs,
}

pub async fn run(command: ClusterCommand, color: Color) -> Ended {
    let printer = Arc::new(Printer::new(command.json(), color));
    match command {
        ClusterCommand::Status(args) => status(&args, printer).await,
        ClusterCommand::Start(args) => {
            let ids = ids(&wanted(&args.repository)?, |process| process.managed);
            if !ids.is_empty() {
                let code = start(&args, printer.clone(), &ids).await?;
                if code != 0 {
                    return Ok(code);
                }
            }
            sync(&args, printer).await
        }
        // All of them stop: no role is to keep its quorum.
        ClusterCommand::Stop(args) => stop(&args, printer, &managed(&args)?, true).await,
        ClusterCommand::Sync(args) => sync(&args, printer).await,
        ClusterCommand::Update(args) => {
            let code = carry_out(&args, printer.clone(), cluster::recalculate).await?;
            if code != 0 {
                return Ok(code);
            }
            sync(&args, printer).await
        }
        ClusterCommand::Dump(args) => {
            let opened = Opened::at(&args.repository, args.repository.commit.as_deref())?;
            out(&format!("{}\n", yaml(&dumped(&opened.snapshot)?, Some(false), true)?.trim_end()));
            Ok(0)
        }
        ClusterCommand::Load(args) => load(&args, printer).await,
        ClusterCommand::Vars(args) => vars(&args, &printer),
        ClusterCommand::Reset(args) => reset(&args, printer).await,
    }
}

fn wanted(repository: &RepositoryArgs) -> Result<Cluster> {
    let cluster = cluster::read(&Opened::at(repository, None)?.snapshot)?;
    if cluster.nodes.is_empty() {
        return Err(Diagnostic::new(Code::Usage, "the cluster has no nodes")
            .hint("`basalt bootstrap`, or `basalt node add ID ADDRESS`")
            .into());
    }
    Ok(cluster)
}

fn managed(args: &ChangeArgs) -> Result<Vec<String>> {
    let ids = ids(&wanted(&args.repository)?, |process| process.managed);
    if ids.is_empty() {
        return Err(Diagnostic::new(Code::Usage, "the cluster has no managed processes").into());
    }
    Ok(ids)
}

fn ids(cluster: &Cluster, which: impl Fn(&Process) -> bool) -> Vec<String> {
    cluster.processes.values().flatten().filter(|process| which(process)).map(|process| process.id.clone()).collect()
}

/// Whether every node is there and every process as it is wanted; that decides the exit code, too.
async fn status(args: &AskArgs, printer: Arc<Printer>) -> Ended {
    let cluster = wanted(&args.repository)?;
    let context = Context::open(&args.repository, &args.connect, printer.clone())?;
    let Seen { online, states } = asked(&context, &cluster, cluster.nodes.iter().map(|node| &node.host.id)).await?;
    let width = cluster.nodes.iter().map(|node| node.host.id.len()).max().unwrap_or_default();
    let mut codes = Vec::new();
    let recovering = recovery::all(context.store.as_ref())?;
    for (node, should) in cluster.nodes.iter().zip(cluster.assign()) {
        let there = online.contains(&node.host.id);
        let processes = cluster.processes.get(&node.host.id).map_or(&[][..], Vec::as_slice);
        let state = |id: &str| states.get(id).cloned().unwrap_or(State::Unknown);
        let well = processes.iter().filter(|process| !process.managed || (state(&process.id) == State::Online) == process.online).count();
        let role = node.role.map_or("none", Role::name);
        let recovery = recovering.get(&node.host.id);
        let (standing, paint) = match () {
            () if recovery.is_some_and(|recovery| recovery.standing == Standing::Failed) => ("failed", Paint::Red),
            () if !there => ("offline", Paint::Red),
            () if should.changes() => ("rebalancing", Paint::Yellow),
            () => ("online", Paint::Green),
        };
        printer.json(&json!({
            "type": "node_status", "node": node.host.id, "role": role, "should": should.role.name(), "state": standing,
            "cordoned": node.cordoned, "processes": processes.len(), "as_wanted": well,
            "recovery": as_json(recovery),
        }));
        let shown = printer.paint(paint, &format!("{standing:<7}"));
        let mut more = String::new();
        if !processes.is_empty() {
            more = format!("  {well} of {} as wanted", count(processes.len(), "process"));
        }
        if should.changes() {
            more.push_str(&format!("  should be {}", should.role));
        }
        if node.cordoned {
            more.push_str("  cordoned");
        }
        more.push_str(&painted(&printer, recovery));
        printer.say(&format!("{:width$}  {shown}  {role:<8}{more}", clean(&node.host.id)));
        codes.extend((!there).then_some(Code::Unreachable));
        codes.extend((there && well < processes.len()).then_some(Code::Failed));
    }
    printer.json(&json!({"type": "cluster", "nodes": cluster.nodes.len(), "scale": cluster.scale().name()}));
    let name = if cluster.id.is_empty() { String::new() } else { format!("{}: ", clean(&cluster.id)) };
    printer.say(&format!("{name}{}, scale {}", count(cluster.nodes.len(), "node"), cluster.scale().name()));
    Ok(exit_code(&codes, false))
}

/// Every node becomes what git says.
pub async fn sync(args: &ChangeArgs, printer: Arc<Printer>) -> Ended {
    let nodes = wanted(&args.repository)?.nodes;
    let context = Context::open(&args.repository, &args.connect, printer)?;
    let hosts = context.named(nodes.iter().map(|node| &node.host.id))?;
    ready(&context, hosts.clone(), args.waits()).await?;
    let code = plan_and_apply(&context, hosts, &ScopeArgs::default(), None, &args.how(None)).await?;
    if code == 0 {
        for node in &nodes {
            recovery::tried(context.store.as_ref(), &node.host.id, Ok(()), &Pace::of(&context.settings), now())?;
        }
    }
    Ok(code)
}

async fn load(args: &LoadArgs, printer: Arc<Printer>) -> Ended {
    let name = args.file.display().to_string();
    let text = std::fs::read_to_string(&args.file)
        .map_err(|e| Diagnostic { code: Code::Usage, ..Diagnostic::io(format_args!("read {name}"), &e) })?;
    let mut nodes = Vec::new();
    let prepared = prepare(&args.change, &mut |snapshot| {
        let (edit, cluster) = loaded(snapshot, &text, &name)?;
        nodes = cluster.nodes.iter().map(|node| node.host.id.clone()).collect();
        Ok(Some(edit).filter(|edit| !edit.files.is_empty()))
    })?;
    match prepared {
        _ if args.verify => {
            printer.say(&format!("{name} can be loaded: {}.", count(nodes.len(), "node")));
            Ok(0)
        }
        Some(prepared) => reconcile(&args.change, printer, &prepared, &nodes).await,
        None => {
            printer.say("It is wanted like that already.");
            Ok(0)
        }
    }
}

fn vars(args: &VarsArgs, printer: &Printer) -> Ended {
    if let Some(set) = &args.set {
        let Some((name, value)) = set.split_once('=') else {
            return Err(Diagnostic::new(Code::Usage, format!("{set:?} changes nothing"))
                .hint("NAME=VALUE, as in rebalance_on_join=false")
                .into());
        };
        let commit = commit_edit(&args.repository.repo, &cache_folder(), &mut |snapshot| set_variable(snapshot, name, value))?;
        printer.say(&commit.map_or_else(|| "It is like that already.".to_owned(), |commit| format!("Committed {}.", short(&commit))));
        return Ok(0);
    }
    let cluster = cluster::read(&Opened::at(&args.repository, args.repository.commit.as_deref())?.snapshot)?;
    let shown: BTreeMap<&str, String> = cluster.variables().into_iter().collect();
    shown.into_iter().for_each(|(name, value)| printer.say(&format!("{name}={}", clean(&value))));
    Ok(0)
}

async fn reset(args: &ChangeArgs, printer: Arc<Printer>) -> Ended {
    let running = ids(&wanted(&args.repository)?, |process| process.managed && process.online);
    if !running.is_empty() {
        let code = stop(args, printer.clone(), &running, true).await?;
        if code != 0 {
            return Ok(code);
        }
    }
    match prepare(args, &mut |snapshot| cluster::reset(snapshot))? {
        Some(prepared) => reconcile(args, printer, &prepared, &[]).await,
        None => Ok(0),
    }
}
