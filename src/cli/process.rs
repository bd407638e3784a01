//! `basalt process`: what runs on the nodes. Git has which processes there are and whether they are to be online; the states make it so; the hosts say how they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::json;

use super::change::{ChangeArgs, prepare, reconcile};
use super::context::Context;
use super::opened::Opened;
use super::print::{Color, Paint, Printer, clean};
use super::{AskArgs, Ended, RepositoryArgs};
use crate::agent::protocol::Call;
use crate::diagnostic::{Code, Diagnostic, Result, nearest};
use crate::engine::event::Summary;
use crate::engine::plan::on_all;
use crate::engine::process::{Wish, add, remove, turn};
use crate::engine::session::only;
use crate::engine::{cluster, commit::Edit};
use crate::fleet::cluster::Cluster;
use crate::fleet::process::{Process, State, breaks_quorum};
use crate::value::{Map, Value};

#[derive(Subcommand)]
pub enum ProcessCommand {
    /// Bring the processes of a role to a node, and say how each is configured
    Add(AddArgs),
    /// The processes, as they are wanted and as they are
    List(AskArgs),
    /// Processes are to be online
    Start(TurnArgs),
    /// Processes are to be offline
    Stop(TurnArgs),
    /// Stop processes and take them out of the cluster
    Remove(TurnArgs),
    /// What would stand in a process's /etc/sysconfig file
    Configuration(ConfigurationArgs),
}

impl ProcessCommand {
    pub fn json(&self) -> bool {
        match self {
            ProcessCommand::Add(args) => args.change.json,
            ProcessCommand::List(args) => args.json,
            ProcessCommand::Start(args) | ProcessCommand::Stop(args) | ProcessCommand::Remove(args) => args.change.json,
            ProcessCommand::Configuration(args) => args.json,
        }
    }
}

#[derive(Args)]
pub struct AddArgs {
    /// The node's minion id
    node: String,
    /// A role of processes.yaml
    role: String,
    /// What goes before the node's facts in processes.yaml: `multiplicity=3`
    #[arg(long = "override", value_name = "NAME=VALUE")]
    overrides: Vec<String>,
    /// The processes come and go as they like: they are neither started nor stopped
    #[arg(long)]
    unmanaged: bool,
    #[command(flatten)]
    change: ChangeArgs,
}

impl AddArgs {
    /// The processes of a role, managed and as its template has them.
    pub fn of(node: &str, role: &str, change: &ChangeArgs) -> AddArgs {
        AddArgs { node: node.to_owned(), role: role.to_owned(), overrides: Vec::new(), unmanaged: false, change: change.clone() }
    }
}

#[derive(Args)]
pub struct TurnArgs {
    /// The ids of processes
    #[arg(required = true)]
    ids: Vec<String>,
    /// Even where a role would lose its quorum, or nobody can say whether a process has stopped
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Args)]
pub struct ConfigurationArgs {
    /// The id of a process
    id: String,
    #[command(flatten)]
    repository: RepositoryArgs,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub async fn run(command: ProcessCommand, color: Color) -> Ended {
    let printer = Arc::new(Printer::new(command.json(), color));
    match command {
        ProcessCommand::Add(args) => bring(&args, printer).await,
        ProcessCommand::List(args) => list(&args, printer).await,
        ProcessCommand::Start(args) => start(&args.change, printer, &args.ids).await,
        ProcessCommand::Stop(args) => stop(&args.change, printer, &args.ids, args.force).await,
        ProcessCommand::Remove(args) => take_out(&args.change, printer, &args.ids, args.force).await,
        ProcessCommand::Configuration(args) => {
            let cluster = wanted(&args.repository)?;
            let (node, process) = found(&cluster, &args.id)?;
            told(&Printer::new(args.json, color), node, process, None, true);
            Ok(0)
        }
    }
}

pub async fn bring(args: &AddArgs, printer: Arc<Printer>) -> Ended {
    let mut overrides = Map::new();
    for text in &args.overrides {
        let Some((name, value)) = text.split_once('=') else {
            return Err(Diagnostic::new(Code::Usage, format!("{text:?} is no override")).hint("NAME=VALUE, as in multiplicity=3").into());
        };
        overrides.insert(name, crate::yaml::load(value, "the command line").unwrap_or_else(|_| Value::str(value)));
    }
    let cluster = wanted(&args.change.repository)?;
    let host = cluster.node(&args.node)?.host.clone();
    let context = Context::open(&args.change.repository, &args.change.connect, printer.clone())?;
    let work = &context.work;
    let session = work.session(host).await?;
    let grains = session.grains.all.clone();
    session.close().await;
    let wish = Wish { node: &args.node, role: &args.role, grains: &grains, overrides: &overrides, managed: !args.unmanaged };
    let (mut made, mut said) = (Vec::new(), Vec::new());
    let prepared = prepare(&args.change, &mut |snapshot| {
        let (edit, processes, why) = add(snapshot, &wish)?;
        (made, said) = (processes, why);
        Ok(Some(edit))
    })?;
    made.iter().for_each(|process| told(&printer, &args.node, process, None, true));
    said.iter().for_each(|why| printer.say(&clean(why)));
    match prepared {
        Some(prepared) => reconcile(&args.change, printer, &prepared, std::slice::from_ref(&args.node)).await,
        None => Ok(0),
    }
}

/// Those that are managed become online.
pub async fn start(change: &ChangeArgs, printer: Arc<Printer>, ids: &[String]) -> Ended {
    let cluster = wanted(&change.repository)?;
    managed(&cluster, ids, "started")?;
    let why = format!("Start {}", ids.join(", "));
    committed(change, printer, &cluster, ids, |snapshot| turn(snapshot, ids, true, &why)).await
}

/// Those that are managed become offline, unless a role would lose its quorum.
pub async fn stop(change: &ChangeArgs, printer: Arc<Printer>, ids: &[String], force: bool) -> Ended {
    let cluster = wanted(&change.repository)?;
    managed(&cluster, ids, "stopped")?;
    let states = states(change, printer.clone(), &cluster).await?;
    let notes = quorum(&cluster, ids, &states, force, &printer)?;
    let why = message("Stop", ids, &notes);
    committed(change, printer, &cluster, ids, |snapshot| turn(snapshot, ids, false, &why)).await
}

/// First they stop. What is not managed has to have stopped by itself.
pub async fn take_out(change: &ChangeArgs, printer: Arc<Printer>, ids: &[String], force: bool) -> Ended {
    let cluster = wanted(&change.repository)?;
    let before = states(change, printer.clone(), &cluster).await?;
    let mut notes = quorum(&cluster, ids, &before, force, &printer)?;
    let state = |states: &BTreeMap<String, State>, id: &str| states.get(id).cloned().unwrap_or(State::Unknown);
    let mut running = Vec::new();
    for id in ids {
        let (_, process) = found(&cluster, id)?;
        match state(&before, id) {
            _ if process.managed => running.extend(process.online.then(|| id.clone())),
            state if state.is_down() => {}
            state if force => notes.push(format!("Forced: {id} is {state}, and nobody here can stop it")),
            state => {
                return Err(Diagnostic::new(Code::Usage, format!("{id} is {state}, and it is not managed"))
                    .detail("Nobody here starts or stops it: it has to be offline or failed before it can go.")
                    .hint("stop it on its node; --force takes it out all the same")
                    .into());
            }
        }
    }
    if !running.is_empty() {
        let why = message("Stop", &running, &notes);
        let code = committed(change, printer.clone(), &cluster, &running, |snapshot| turn(snapshot, &running, false, &why)).await?;
        if code == 8 {
            return Ok(code);
        }
        let after = states(change, printer.clone(), &cluster).await?;
        for id in &running {
            // It counts as failed, and what failed may go. One without a unit is nothing that could stop.
            let (state, has_unit) = (state(&after, id), found(&cluster, id)?.1.unit.is_some());
            if has_unit && !state.is_down() {
                let note = format!("{id} is {state} and does not stop: it goes as failed");
                printer.fault(&Diagnostic::warning(Code::Failed, note.clone()));
                notes.push(note);
            }
        }
    }
    let why = message("Remove", ids, &notes);
    committed(change, printer, &cluster, ids, |snapshot| remove(snapshot, ids, &why)).await
}

/// One commit, and the nodes of these processes reconciled.
async fn committed(
    change: &ChangeArgs,
    printer: Arc<Printer>,
    cluster: &Cluster,
    ids: &[String],
    edit: impl Fn(&crate::engine::repository::Snapshot) -> Result<Edit>,
) -> Ended {
    let mut nodes: Vec<String> = ids.iter().map(|id| found(cluster, id).map(|(node, _)| node.to_owned())).collect::<Result<_>>()?;
    nodes.dedup();
    let prepared = prepare(change, &mut |snapshot| Ok(Some(edit(snapshot)?).filter(|edit| !edit.files.is_empty())))?;
    match prepared {
        Some(prepared) => reconcile(change, printer, &prepared, &nodes).await,
        None => {
            printer.say("It is wanted like that already.");
            Ok(0)
        }
    }
}

fn wanted(repository: &RepositoryArgs) -> Result<Cluster> {
    cluster::read(&Opened::at(repository, None)?.snapshot)
}

/// A process and its node.
fn found<'a>(cluster: &'a Cluster, id: &str) -> Result<(&'a str, &'a Process)> {
    let all = || cluster.processes.iter().flat_map(|(node, list)| list.iter().map(move |process| (node.as_str(), process)));
    all().find(|(_, process)| process.id == id).ok_or_else(|| {
        let fault = Diagnostic::new(Code::Usage, format!("there is no process {id:?}"));
        match nearest(id, all().map(|(_, process)| process.id.as_str())) {
            Some(near) => fault.hint(format!("did you mean {near:?}?")),
            None => fault.hint("`basalt process list` has them"),
        }
        .into()
    })
}

fn managed(cluster: &Cluster, ids: &[String], what: &str) -> Result<()> {
    for id in ids {
        if !found(cluster, id)?.1.managed {
            return Err(Diagnostic::new(Code::Usage, format!("{id} is not managed: it is not {what} from here")).into());
        }
    }
    Ok(())
}

/// Refuses what would take its quorum from a role. Where it is forced all the same, what it breaks is told, and goes into the commit.
fn quorum(cluster: &Cluster, ids: &[String], states: &BTreeMap<String, State>, force: bool, printer: &Printer) -> Result<Vec<String>> {
    let going: Vec<&Process> = ids.iter().map(|id| found(cluster, id).map(|(_, process)| process)).collect::<Result<_>>()?;
    let online = |process: &Process| states.get(&process.id) == Some(&State::Online);
    let Some(why) = breaks_quorum(&going, &cluster.processes, &online) else { return Ok(Vec::new()) };
    if !force {
        return Err(Diagnostic::new(Code::Usage, format!("that would break the cluster: {why}"))
            .hint("--force does it all the same")
            .into());
    }
    let note = format!("Forced: {why}");
    printer.say(&clean(&note));
    Ok(vec![note])
}

/// The message of a commit: what is done, and why it may be.
fn message(what: &str, ids: &[String], notes: &[String]) -> String {
    format!("{what} {}\n\n{}", ids.join(", "), notes.join("\n")).trim().to_owned()
}

/// What nodes say when they are asked.
pub struct Seen {
    /// Those that could be asked.
    pub online: BTreeSet<String>,
    /// By the ids of processes. What nobody says anything of is unknown.
    pub states: BTreeMap<String, State>,
}

/// How the processes are, as the nodes that have some say.
async fn states(change: &ChangeArgs, printer: Arc<Printer>, cluster: &Cluster) -> Result<BTreeMap<String, State>> {
    let context = Context::open(&change.repository, &change.connect, printer)?;
    Ok(asked(&context, cluster, with_units(cluster)).await?.states)
}

/// The nodes that have something to say of a process.
fn with_units(cluster: &Cluster) -> impl Iterator<Item = &String> {
    cluster.processes.iter().filter(|(_, list)| list.iter().any(|process| process.unit.is_some())).map(|(node, _)| node)
}

/// Asks these nodes for their processes.
pub async fn asked(context: &Context, cluster: &Cluster, nodes: impl Iterator<Item = &String>) -> Result<Seen> {
    let hosts = context.named(nodes.filter(|node| context.knows(node)))?;
    let units: BTreeMap<String, Vec<(String, String)>> = cluster
        .processes
        .iter()
        .map(|(node, list)| (node.clone(), list.iter().filter_map(|process| Some((process.id.clone(), process.unit.clone()?))).collect()))
        .collect();
    let (work, units) = (context.work.clone(), Arc::new(units));
    let asked: Vec<String> = hosts.iter().map(|host| host.id.clone()).collect();
    let answers = on_all(&context.work, hosts, &mut Summary::default(), move |host| {
        let (work, units) = (work.clone(), units.clone());
        async move {
            let node = host.id.clone();
            let list = units.get(&node).map_or(&[][..], Vec::as_slice);
            let mut session = work.session(host).await?;
            let mut text = String::new();
            if !list.is_empty() {
                // A host without systemd says nothing of them.
                text = only(session.ask(vec![show(list)]).await?).map(|said| said.to_text()).unwrap_or_default();
            }
            session.close().await;
            let states = text.split("\n\n").map(state_of).chain(std::iter::repeat(State::Unknown));
            Ok((node, list.iter().map(|(id, _)| id.clone()).zip(states).collect::<Vec<_>>()))
        }
    })
    .await;
    context.printer.faults();
    let online: BTreeSet<String> = answers.iter().map(|(node, _)| node.clone()).collect();
    let mut states = BTreeMap::new();
    for (node, found) in answers {
        let found: BTreeMap<String, State> = found.into_iter().collect();
        context.keep(&seen_key(&node), &found);
        states.extend(found);
    }
    for node in asked.iter().filter(|node| !online.contains(*node)) {
        let before =
            context.store.get(&seen_key(node))?.and_then(|entry| serde_json::from_slice::<BTreeMap<String, State>>(&entry.value).ok());
        states.extend(before.into_iter().flatten().map(|(id, state)| (id, state.inhibited())));
    }
    Ok(Seen { online, states })
}

/// What a node said of its processes when it was last asked.
fn seen_key(node: &str) -> String {
    format!("processes/{node}")
}

/// Asks systemd of units: a paragraph for each, in their order.
fn show(units: &[(String, String)]) -> Call {
    // A unit is one word without quotes: the reader of processes holds it.
    let names: Vec<&str> = units.iter().map(|(_, unit)| unit.as_str()).collect();
    let command = format!("systemctl show --no-pager -p ActiveState -p SubState -p Result -- {}", names.join(" "));
    Call { function: "cmd.run".to_owned(), args: vec![Value::Str(command)], kwargs: [("python_shell", false)].into_iter().collect() }
}

fn state_of(paragraph: &str) -> State {
    let field = |name: &str| paragraph.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default();
    State::of_unit(field("ActiveState"), field("SubState"), field("Result"))
}

async fn list(args: &AskArgs, printer: Arc<Printer>) -> Ended {
    let cluster = wanted(&args.repository)?;
    let context = Context::open(&args.repository, &args.connect, printer.clone())?;
    let states = asked(&context, &cluster, with_units(&cluster)).await?.states;
    for (node, list) in &cluster.processes {
        for process in list {
            told(&printer, node, process, Some(states.get(&process.id).unwrap_or(&State::Unknown)), false);
        }
    }
    if cluster.processes.is_empty() {
        printer.say("No processes: `basalt process add NODE ROLE` brings some.");
    }
    Ok(0)
}

fn told(printer: &Printer, node: &str, process: &Process, state: Option<&State>, whole: bool) {
    let is_wanted = if process.online { "online" } else { "offline" };
    printer.json(&json!({
        "type": "process", "node": node, "id": process.id, "role": process.role, "name": process.name, "endpoint": process.endpoint,
        "managed": process.managed, "wanted": is_wanted, "state": state.map(ToString::to_string), "unit": process.unit, "configuration": process.configuration,
    }));
    let kept = if process.managed { is_wanted } else { "unmanaged" };
    let state = state.map_or_else(String::new, |state| {
        let paint = match state {
            State::Online => Paint::Green,
            State::Failed(_) => Paint::Red,
            _ => Paint::Yellow,
        };
        format!("  {}", printer.paint(paint, &clean(&state.to_string())))
    });
    let endpoint = process.endpoint.as_deref().map_or_else(String::new, |endpoint| format!("  {}", clean(endpoint)));
    printer.say(&format!("{}  {}  {kept}{state}{endpoint}", clean(node), clean(&process.id)));
    if whole {
        for (name, value) in &process.configuration {
            printer.say(&format!("    {}={}", clean(&name.to_text()), clean(&value.to_text())));
        }
    }
}
