//! `basalt bootstrap`: the first node of a cluster makes itself one; any other joins. In stages, each of which can be come back to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::{Duration, Instant};

use super::apply::{How, plan_and_apply};
use super::change::{ChangeArgs, carry_out};
use super::check::tell;
use super::context::{Context, cache_folder, hostname, now, now_ms, store_of};
use super::join::{Discovery, JoinHow, join};
use super::opened::Opened;
use super::print::{Color, Paint, Printer, clean, count};
use super::rollback::take_back;
use super::{ConnectArgs, Ended, RepositoryArgs, ScopeArgs, WaveArgs, init};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::engine::cluster;
use crate::engine::commit::{Edit, commit_edit};
use crate::engine::facts::resources;
use crate::engine::history::{RunHistory, time_text};
use crate::engine::repository::Snapshot;
use crate::engine::session::{Session, Stop};
use crate::enrol::check::{Check, Facts, Standing, asked_of_systemd};
use crate::enrol::token::random;
use crate::enrol::wire::fingerprint;
use crate::fleet::Host;
use crate::fleet::cluster::{Cluster, FILE, Node, path_of};
use crate::fleet::role::{Resources, Role};
use crate::remote::{Passwords, Remote};
use crate::store::Store;

/// Where a machine may be told to which cluster it belongs.
const TOLD: [&str; 2] = ["/etc/basalt/cluster.yaml", "/etc/eos/cluster.yaml"];

#[derive(Args)]
pub struct BootstrapArgs {
    /// This machine is the first node, whatever else says otherwise
    #[arg(long, conflicts_with_all = ["join_cluster", "auto_discover"])]
    single_node: bool,
    /// Join the cluster whose controller is at this address, as `basalt join` does
    #[arg(long, value_name = "ADDRESS", conflicts_with = "auto_discover")]
    join_cluster: Option<String>,
    #[command(flatten)]
    discovery: Discovery,
    #[command(flatten)]
    how: JoinHow,
    /// Show the checks, and do nothing
    #[arg(long)]
    check: bool,
    /// Show how far it is
    #[arg(long, conflicts_with = "check")]
    status: bool,
    /// Go back to the end of a stage, checks, repository, cluster or node: what came after it is taken back
    #[arg(long, value_name = "STAGE", conflicts_with_all = ["check", "status"])]
    rollback: Option<String>,
    #[command(flatten)]
    repository: RepositoryArgs,
    #[command(flatten)]
    connect: ConnectArgs,
    /// Do not ask
    #[arg(short = 'y', long)]
    yes: bool,
    /// One JSON object per line
    #[arg(long, requires = "yes")]
    pub json: bool,
}

/// The stages of a first node, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stage {
    Checks,
    Repository,
    Cluster,
    Node,
    Verified,
}

impl Stage {
    const ALL: [Stage; 5] = [Stage::Checks, Stage::Repository, Stage::Cluster, Stage::Node, Stage::Verified];

    fn name(self) -> &'static str {
        match self {
            Stage::Checks => "checks",
            Stage::Repository => "repository",
            Stage::Cluster => "cluster",
            Stage::Node => "node",
            Stage::Verified => "verified",
        }
    }

    fn description(self) -> &'static str {
        match self {
            Stage::Checks => "the machine has what a node needs",
            Stage::Repository => "there is a state repository",
            Stage::Cluster => "it says which cluster this is",
            Stage::Node => "this machine is its first node, a monolith",
            Stage::Verified => "the machine is as described",
        }
    }
}

/// Where a stage ended: what came of it, so that it can be come back to.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Checkpoint {
    stage: Stage,
    /// Seconds since the epoch.
    time: u64,
    /// The commit that the stage made, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    commit: Option<String>,
    /// The runs that it made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    runs: Vec<String>,
    /// How the nodes were then.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    nodes: BTreeMap<String, NodeState>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct NodeState {
    role: String,
    /// States that changed something on it in this stage.
    changed: usize,
}

impl Checkpoint {
    /// Why it cannot be come back to.
    fn stuck(&self, nodes: usize) -> Option<String> {
        (nodes > 1 && self.stage < Stage::Node).then(|| format!("the cluster has {nodes} nodes by now"))
    }
}

/// How far the bootstrap is, as the store has it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Record {
    checkpoints: Vec<Checkpoint>,
    /// The stage that was begun and has not ended, and since when (milliseconds): attempts that failed or were broken off are a part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    under_way: Option<(Stage, u64)>,
}

const KEY: &str = "bootstrap";

impl Record {
    fn read(store: &dyn Store) -> Result<Record> {
        match store.get(KEY)? {
            Some(entry) => serde_json::from_slice(&entry.value)
                .map_err(|e| Diagnostic::new(Code::Damaged, format!("the record of the bootstrap cannot be read: {e}")).into()),
            None => Ok(Record::default()),
        }
    }

    fn write(&self, store: &dyn Store) -> Result<()> {
        let bytes = serde_json::to_vec(self).map_err(|e| Diagnostic::new(Code::Internal, e.to_string()))?;
        store.put(KEY, &bytes)
    }

    /// A stage has ended; what it did when it was gone through before stays a part of it.
    fn end(&mut self, stage: Stage, commit: Option<String>, runs: Vec<RunHistory>, nodes: BTreeMap<String, NodeState>) {
        let mut checkpoint = Checkpoint { stage, time: now(), commit, runs: Vec::new(), nodes };
        if let Some(at) = self.checkpoints.iter().position(|checkpoint| checkpoint.stage == stage) {
            let before = self.checkpoints.remove(at);
            (checkpoint.runs, checkpoint.commit) = (before.runs, checkpoint.commit.or(before.commit));
        }
        checkpoint.runs.extend(runs.into_iter().map(|run| run.header.id));
        self.checkpoints.push(checkpoint);
    }

    fn has(&self, stage: Stage) -> bool {
        self.checkpoints.iter().any(|checkpoint| checkpoint.stage == stage)
    }
}

pub async fn run(args: BootstrapArgs, color: Color) -> Ended {
    let printer = Arc::new(Printer::new(args.json, color));
    if args.status {
        return status(&args, &printer);
    }
    if let Some(stage) = &args.rollback {
        return back(&args, stage, printer).await;
    }
    let controller = master(&args, &printer).await?;
    let found = checked(&printer, controller.as_deref()).await?;
    if args.check || found.wrong {
        return if found.wrong { Err(Diagnostic::new(Code::Failed, "this machine cannot be a node as it is").into()) } else { Ok(0) };
    }
    match controller {
        Some(controller) => {
            printer.say(&format!("Joining the cluster at {controller}."));
            join(&controller, &args.how, &printer).await
        }
        None => first(&args, printer, found.resources).await,
    }
}

/// The controller of the cluster that this machine belongs to; none: it is the first node.
async fn master(args: &BootstrapArgs, printer: &Printer) -> Result<Option<String>> {
    if args.single_node || args.join_cluster.is_some() {
        return Ok(args.join_cluster.clone());
    }
    if args.discovery.auto_discover {
        match args.discovery.look(&args.how, printer).await? {
            Some(found) => return Ok(Some(found)),
            None => printer.say("No controller answers."),
        }
    }
    for file in TOLD {
        match std::fs::read_to_string(file) {
            Ok(text) => return Ok(Cluster::parse(Some(&text), &BTreeMap::new())?.master),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Diagnostic::io(format_args!("read {file}"), &e).into()),
        }
    }
    Ok(None)
}

struct Found {
    resources: Resources,
    wrong: bool,
}

/// Makes all checks, and tells them.
async fn checked(printer: &Printer, controller: Option<&str>) -> Result<Found> {
    let (_pull, stop) = Stop::new();
    let here = Host::new("here", Host::LOCAL);
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut session = Session::open(&Remote::new(Passwords::default(), None, None), here, stop, deadline).await?;
    let resources = resources(&mut session).await;
    let grains = session.grains.all.clone();
    session.close().await;
    let resources = resources?;
    let free = rustix::fs::statvfs("/").map(|fs| fs.f_bavail.saturating_mul(fs.f_frsize) / 1_000_000_000);
    let (active, clock_is_synchronized) = asked_of_systemd();
    let is_root = rustix::process::geteuid().is_root();
    let free_gb = free.unwrap_or(0);
    let facts =
        Facts { root: Path::new("/"), is_root, hostname: hostname(), grains: &grains, resources, free_gb, active, clock_is_synchronized };
    let mut checks = facts.checks();
    if let Some(controller) = controller {
        checks.push(reaches(controller).await);
    }
    tell(printer, None, &checks.iter().collect::<Vec<_>>());
    Ok(Found { resources, wrong: checks.iter().any(|check| check.standing == Standing::Wrong) })
}

/// Whether the controller is there that this machine is to join.
async fn reaches(controller: &str) -> Check {
    let address = controller.to_owned();
    let found = tokio::task::spawn_blocking(move || fingerprint(&address)).await;
    let (found, standing, hint) = match found {
        Ok(Ok(_)) => (format!("{controller} answers"), Standing::Well, ""),
        Ok(Err(fault)) => (fault.summary, Standing::Wrong, "`basalt token create --listen` there lets machines in"),
        Err(e) => (e.to_string(), Standing::Wrong, "try again"),
    };
    Check { name: "controller", needed: "answers".to_owned(), found, standing, hint }
}

/// The stages of the first node. Those that are done are not done again.
async fn first(args: &BootstrapArgs, printer: Arc<Printer>, resources: Resources) -> Ended {
    let folder = PathBuf::from(&args.repository.repo);
    if git2::Repository::discover(&folder).is_err() {
        // Its hosts are its nodes: this machine does not stand in a roster as well.
        let files: Vec<_> = init::FILES.into_iter().filter(|(path, _)| *path != "roster.yaml").collect();
        init::make(&folder, &files)?;
    }
    let store = store_of(&args.repository)?;
    let mut record = Record::read(store.as_ref())?;
    for stage in Stage::ALL {
        if record.has(stage) && stage != Stage::Checks && stage != Stage::Verified {
            told(&printer, stage, "done before");
            continue;
        }
        let begun = record.under_way.filter(|(under_way, _)| *under_way == stage).map_or_else(now_ms, |(_, begun)| begun);
        // The first two leave nothing that would have to be taken back.
        if stage > Stage::Repository {
            record.under_way = Some((stage, begun));
            record.write(store.as_ref())?;
        }
        told(&printer, stage, "begun");
        let mut commit = None;
        match stage {
            Stage::Checks | Stage::Repository => {}
            Stage::Cluster => commit = name_cluster(args)?,
            Stage::Node | Stage::Verified => {
                let code = node(args, printer.clone(), resources).await?;
                if code != 0 {
                    printer.say("The bootstrap did not come to its end. Run it again: what is done is not done again.");
                    return Ok(code);
                }
            }
        }
        let runs = runs_since(store.as_ref(), begun)?;
        let nodes = node_states(&args.repository, &runs)?;
        record.end(stage, commit, runs, nodes);
        record.under_way = record.under_way.filter(|(under_way, _)| *under_way != stage);
        record.write(store.as_ref())?;
        told(&printer, stage, "done");
    }
    printer.say("This machine is the first node. `basalt token create --listen` lets the next one in.");
    Ok(0)
}

fn told(printer: &Printer, stage: Stage, result: &str) {
    printer.json(&json!({"type": "stage", "stage": stage.name(), "result": result}));
    printer.say(&format!("{} {}: {}", printer.paint(Paint::Green, &format!("{result:<11}")), stage.name(), stage.description()));
}

/// A `cluster.yaml`, where there is none.
fn name_cluster(args: &BootstrapArgs) -> Result<Option<String>> {
    let text = format!("cluster:\n  id: cluster-{}\n  roles:\n    assignment: automatic\n    rebalance_on_join: true\n", random(8)?);
    commit_edit(&args.repository.repo, &cache_folder(), &mut |snapshot: &Snapshot| {
        let files = [(FILE.to_owned(), Some(text.clone()))].into();
        Ok((!snapshot.contains(FILE)).then(|| Edit { message: "Name the cluster".to_owned(), files }))
    })
}

/// This machine becomes a node; or, as it is one, is made what its role says.
async fn node(args: &BootstrapArgs, printer: Arc<Printer>, resources: Resources) -> Ended {
    let id = args.how.id.clone().unwrap_or_else(hostname);
    let opened = Opened::at(&args.repository, None)?;
    if opened.snapshot.contains(&path_of(&id)) {
        let context = Context::open(&args.repository, &args.connect, printer)?;
        let hosts = context.named(std::iter::once(&id))?;
        let how = How { waves: &WaveArgs::default(), yes: args.yes, rollback_on_failure: false, prepared: None, judge: None };
        return plan_and_apply(&context, hosts, &ScopeArgs::default(), None, &how).await;
    }
    let node = Node {
        host: Host::new(&id, Host::LOCAL),
        role: None,
        preferred: args.how.preferred_role,
        joined: time_text(now()),
        resources: Some(resources),
        cordoned: false,
    };
    let change = ChangeArgs::whole(args.repository.clone(), args.connect.clone(), args.yes, args.json);
    carry_out(&change, printer, |snapshot| cluster::add(snapshot, node.clone())).await
}

/// The runs that were started since then, oldest first: none that took something back, and none that was taken back.
fn runs_since(store: &dyn Store, since: u64) -> Result<Vec<RunHistory>> {
    let mut found: Vec<RunHistory> = Vec::new();
    for key in store.list("runs/")? {
        found.extend(store.get(&key)?.and_then(|entry| serde_json::from_slice::<RunHistory>(&entry.value).ok()));
    }
    let back: Vec<String> = found.iter().flat_map(|run| run.header.rolls_back.iter().cloned()).collect();
    found.retain(|RunHistory { header, .. }| header.started >= since && header.rolls_back.is_empty() && !back.contains(&header.id));
    found.sort_by_key(|run| run.header.started);
    Ok(found)
}

/// The nodes that git has, and what these runs changed on them.
fn node_states(repository: &RepositoryArgs, runs: &[RunHistory]) -> Result<BTreeMap<String, NodeState>> {
    let changed = |id: &str| runs.iter().filter_map(|run| run.hosts.get(id)).map(|host| host.tally.changed).sum();
    let state = |node: &Node| {
        let id = node.host.id.clone();
        let state = NodeState { role: node.role.map_or("none", Role::name).to_owned(), changed: changed(&id) };
        (id, state)
    };
    Ok(cluster::read(&Opened::at(repository, None)?.snapshot)?.nodes.iter().map(state).collect())
}

fn status(args: &BootstrapArgs, printer: &Printer) -> Ended {
    let record = Record::read(store_of(&args.repository)?.as_ref())?;
    let nodes = match record.checkpoints.is_empty() {
        true => 0,
        false => cluster::read(&Opened::at(&args.repository, None)?.snapshot)?.nodes.len(),
    };
    for stage in Stage::ALL {
        let checkpoint = record.checkpoints.iter().find(|checkpoint| checkpoint.stage == stage);
        let broken_off = record.under_way.is_some_and(|(under_way, _)| under_way == stage);
        let result = if broken_off { "broken off" } else { checkpoint.map_or("waits", |_| "done") };
        let stuck = checkpoint.and_then(|checkpoint| checkpoint.stuck(nodes));
        printer.json(&json!({
            "type": "stage", "stage": stage.name(), "result": result, "time": checkpoint.map(|at| at.time), "commit": checkpoint.map(|at| &at.commit),
            "runs": checkpoint.map(|at| &at.runs), "nodes": checkpoint.map(|at| &at.nodes), "can_rollback": checkpoint.is_some() && stuck.is_none(),
        }));
        let when = checkpoint.filter(|_| !broken_off).map_or_else(|| result.to_owned(), |checkpoint| time_text(checkpoint.time));
        let stuck = stuck.map_or_else(String::new, |why| format!(" (no way back: {why})"));
        printer.say(&format!("{:<11} {when:<24} {}{stuck}", stage.name(), stage.description()));
        for (id, NodeState { role, changed }) in checkpoint.iter().flat_map(|checkpoint| &checkpoint.nodes) {
            printer.say(&format!("{:<11} {:<24} {}: {}, {} changed", "", "", clean(id), clean(role), count(*changed, "state")));
        }
    }
    Ok(0)
}

/// Back to the end of a stage: the runs of those behind it are taken back, then their commits.
async fn back(args: &BootstrapArgs, to: &str, printer: Arc<Printer>) -> Ended {
    let to =
        [Stage::Checks, Stage::Repository, Stage::Cluster, Stage::Node].into_iter().find(|stage| stage.name() == to).ok_or_else(|| {
            Diagnostic::new(Code::Usage, format!("there is no stage {to:?} to go back to"))
                .hint("the stages are checks, repository, cluster, node")
        })?;
    let store = store_of(&args.repository)?;
    let mut record = Record::read(store.as_ref())?;
    let nodes = cluster::read(&Opened::at(&args.repository, None)?.snapshot)?.nodes.len();
    let Some(target) = record.checkpoints.iter().find(|checkpoint| checkpoint.stage == to) else {
        return Err(Diagnostic::new(Code::Usage, format!("the bootstrap has not come to the end of {}", to.name()))
            .hint("`basalt bootstrap --status` says how far it is")
            .into());
    };
    if let Some(why) = target.stuck(nodes) {
        return Err(Diagnostic::new(Code::Usage, why).hint("`basalt node remove` takes the others out first").into());
    }
    // A stage that was broken off has runs and files, and no checkpoint.
    if let Some((stage, begun)) = record.under_way.filter(|(stage, _)| *stage > to) {
        record.end(stage, None, runs_since(store.as_ref(), begun)?, BTreeMap::new());
    }
    let behind: Vec<Checkpoint> = record.checkpoints.iter().filter(|checkpoint| checkpoint.stage > to).rev().cloned().collect();
    for checkpoint in &behind {
        for run in checkpoint.runs.iter().rev() {
            let code = take_back(&args.repository, &args.connect, run, args.yes, printer.clone()).await?;
            if code != 0 {
                return Ok(code);
            }
        }
        commit_edit(&args.repository.repo, &cache_folder(), &mut |snapshot| {
            let gone: Vec<String> = match checkpoint.stage {
                Stage::Cluster if checkpoint.commit.is_some() => vec![FILE.to_owned()],
                Stage::Node => snapshot.paths().filter(|path| path.starts_with(crate::fleet::cluster::FOLDER)).map(str::to_owned).collect(),
                _ => Vec::new(),
            };
            let files = gone.into_iter().filter(|path| snapshot.contains(path)).map(|path| (path, None)).collect();
            let edit = Edit { message: format!("Take back the bootstrap's stage: {}", checkpoint.stage.name()), files };
            Ok((!edit.files.is_empty()).then_some(edit))
        })?;
        record.checkpoints.retain(|kept| kept.stage != checkpoint.stage);
        record.under_way = None;
        record.write(store.as_ref())?;
        // A repository is somebody's work: it stays.
        told(&printer, checkpoint.stage, if checkpoint.stage == Stage::Repository { "stays" } else { "taken back" });
    }
    if behind.is_empty() {
        printer.say(&format!("There is nothing behind {} to take back.", to.name()));
    }
    Ok(0)
}
