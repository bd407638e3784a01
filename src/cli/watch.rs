//! `basalt watch`: edits, commits, a timer and drift lead to plans, or with `--apply` to runs, until it is stopped.

mod hints;
mod listen;
mod told;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clap::Args;
use tokio::sync::{Notify, Semaphore, mpsc};

use self::hints::Hints;
use super::apply::{Carried, How, Judgement, carry_out};
use super::context::{Context, Means, answers_of, cache_folder, form, is_meant, now, seen};
use super::opened::{Opened, outside};
use super::print::{Color, Printer, count};
use super::rollback::take_back_on;
use super::{ConnectArgs, End, Ended, GuardArgs, RepositoryArgs, ScopeArgs, TargetArgs, WaveArgs, exit_code};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::engine::answers::Asking;
use crate::engine::branch::{Branch, Tip};
use crate::engine::difference::{Side, on_all_processors};
use crate::engine::plan::{Planned, joined};
use crate::engine::repository::Snapshot;
use crate::engine::settings::{Drift, Settings};
use crate::engine::tree::TreeCompiler;
use crate::engine::window::Local;
use crate::fleet::target::Target;
use crate::fleet::{Host, Roster};
use crate::lang::What;
use crate::plan::{Action, Hash, HostPlan, Step};
use crate::value::Map;
use crate::watch::cause::{self, Edits};
use crate::watch::decide::{Act, Decision, Look, Outcome, Rules, State, Task};
use crate::watch::recovery::{self, Pace, Recovery};
use crate::watch::run::{Ground, Later, Looked, Said, in_a_line, watch};

/// What an earlier watch left, in the store.
const STATE: &str = "watch";
const INTERVAL: u64 = 300;
const POLL: u64 = 5;
const PARALLEL: u64 = 100;

#[derive(Args)]
pub struct WatchArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    repository: RepositoryArgs,
    #[command(flatten)]
    connect: ConnectArgs,
    /// Bring hosts to what commits say; edits that are not committed are only planned
    #[arg(long)]
    apply: bool,
    /// When a commit fails on a host, take it back on all hosts that have it
    #[arg(long, help_heading = "Run", requires = "apply")]
    rollback_on_failure: bool,
    /// Seconds to wait for another run on a host to end
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, help_heading = "Run")]
    lock_timeout: u64,
    #[command(flatten)]
    guard: GuardArgs,
    /// Seconds between two looks at all hosts (default: 300, or what the settings say)
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    interval: Option<u64>,
    /// Seconds between two looks at the branch (default: 5, or what the settings say)
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    poll: Option<u64>,
    /// Only commits whose signature git takes, verified before anything is made of them; edits are not looked at
    #[arg(long)]
    signed: bool,
    /// Only commits signed with ssh by one of these: a file as git's gpg.ssh.allowedSignersFile
    #[arg(long, value_name = "FILE")]
    allowed_signers: Option<PathBuf>,
    /// Hear nodes that have come up, at this address
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    listen: Option<String>,
    /// One JSON object per line
    #[arg(long)]
    pub json: bool,
}

pub async fn run(args: WatchArgs, color: Color) -> Ended {
    if args.repository.salt_config.is_some() {
        return Err(Diagnostic::new(Code::Usage, "a Salt master's settings cannot be watched: they have no commits")
            .hint("name the repository that holds the roots with --repo")
            .into());
    }
    let settings = outside()?;
    let signers = args.allowed_signers.clone().or_else(|| settings.watch.allowed_signers.clone().map(PathBuf::from));
    let signers = signers
        .map(|file| file.canonicalize().map_err(|e| Box::new(Diagnostic::io(format_args!("open {}", file.display()), &e))))
        .transpose()?;
    let signed = (args.signed || signers.is_some()).then_some(signers);
    let means = Means::of(&args.repository, &args.connect, &settings)?;
    let branch = Arc::new(Branch::new(&args.repository.repo, args.repository.commit.as_deref(), cache_folder()));
    // A place that is none is told at once; one that goes later is waited for.
    if !crate::engine::repository::is_url(&args.repository.repo) {
        Snapshot::work_tree_of(std::path::Path::new(&args.repository.repo))?;
    }
    let poll = Arc::new(AtomicU64::new(args.poll.or(settings.watch.poll).unwrap_or(POLL)));
    let work_tree = branch.work_tree().filter(|_| args.repository.commit.is_none() && signed.is_none());
    let (causes, heard) = mpsc::channel(64);
    let wake = Arc::new(Notify::new());
    let printer = Arc::new(Printer::among_others(args.json, color));
    match Edits::new(work_tree.as_deref(), branch.git_folder().as_deref(), wake.clone()) {
        Ok(mut edits) => {
            if let Err(fault) = edits.watch() {
                printer.fault(&Diagnostic::warning(fault.code, fault.summary).hint(fault.hint.unwrap_or_default()));
            }
            tokio::spawn(edits.run(causes.clone()));
        }
        Err(fault) => printer.fault(&fault),
    }
    let place = branch.clone();
    let tip = Arc::new(move || place.tip());
    let hints = Hints::new(causes.clone());
    tokio::spawn(cause::commits(tip, poll.clone(), wake, causes.clone()));
    let parallel = usize::try_from(settings.parallel.unwrap_or(PARALLEL)).unwrap_or(usize::MAX);
    let stop = means.stop.clone();
    let desk =
        Desk { args, color, printer, means, branch, signed, hints, poll, places: Semaphore::new(parallel.max(1)), known: Mutex::default() };
    let desk = Arc::new(desk);
    if let Some(at) = &desk.args.listen {
        listen::open(at, &desk, causes).await?;
    }
    watch(desk, heard, stop).await;
    Ok(0)
}

/// What the watch stands on here.
struct Desk {
    args: WatchArgs,
    color: Color,
    printer: Arc<Printer>,
    means: Means,
    branch: Arc<Branch>,
    /// Commits have to be signed; by whom, where it is not git's own settings that say it.
    signed: Option<Option<PathBuf>>,
    hints: Arc<Hints>,
    /// Seconds between two looks at the branch.
    poll: Arc<AtomicU64>,
    places: Semaphore,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// The work tree that was looked at last, and what was wrong with it.
    tree: Option<String>,
    fault: Option<Diagnostic>,
    /// What was last shown of each host.
    shown: HashMap<String, Shown>,
    /// Those of the roster.
    hosts: BTreeSet<String>,
    recoveries: BTreeMap<String, Recovery>,
    pace: Pace,
    /// What was written down last, and whether that failed.
    kept: Vec<u8>,
    lost: bool,
}

/// A plan that was shown: all of it, and the drift that is not to be corrected.
#[derive(Clone, Default, PartialEq)]
struct Shown {
    all: Option<Hash>,
    kept: Option<Hash>,
}

/// The repository at a moment, as far as no host is needed for it.
struct Version {
    opened: Opened,
    roster: Roster,
}

/// What the compiler makes of a version: for each host, or why not.
type Marks = std::result::Result<BTreeMap<String, Option<String>>, Vec<Diagnostic>>;

impl Desk {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn version(&self, commit: Option<&str>) -> Result<Version> {
        let opened = Opened::at(&self.args.repository, commit)?;
        Ok(Version { roster: opened.roster(&self.args.repository)?, opened })
    }

    fn tree(version: &Version) -> Result<TreeCompiler> {
        version.opened.tree(What::Highstate, None)
    }

    fn marks(&self, version: &Version) -> Result<Marks> {
        let tree = Desk::tree(version)?;
        let hosts = self.meant(version, &tree)?;
        let (mut marks, mut faults) = (BTreeMap::new(), Vec::new());
        for (host, mark) in hosts.iter().zip(on_all_processors(&hosts, |host| self.mark(&tree, host))) {
            match mark {
                Ok(mark) => drop(marks.insert(host.id.clone(), mark)),
                Err(found) => faults.extend(found.into_iter().filter(|fault| !fault.summary.is_empty())),
            }
        }
        faults.dedup();
        Ok(if faults.is_empty() { Ok(marks) } else { Err(faults) })
    }

    /// What the compiler makes of a tree for a host, as it was last seen. None: that cannot be known without it.
    fn mark(&self, tree: &TreeCompiler, host: &Host) -> std::result::Result<Option<String>, Vec<Diagnostic>> {
        let Some(grains) = self.grains(host) else { return Ok(None) };
        match Side::compile(tree, &host.id, &grains, &answers_of(&self.means.store, &host.id)) {
            Side::Faults(faults) => Err(faults),
            Side::Unknown(_) => Ok(None),
            Side::States(states) => {
                let reached = Host { span: None, ..host.clone() };
                let text = format!("{reached:?} {}", states.mark(self.means.key()));
                Ok(Some(Hash::of(text.as_bytes()).0))
            }
        }
    }

    /// Those last seen, with what the roster says now.
    fn grains(&self, host: &Host) -> Option<Map> {
        let (_, mut grains) = seen(&self.means.store, &host.id)?;
        grains.0.extend(host.grains());
        grains.insert("id", host.id.as_str());
        Some(grains)
    }

    /// The hosts that the target means.
    fn meant(&self, version: &Version, tree: &TreeCompiler) -> Result<Vec<Host>> {
        let nodegroups = version.opened.settings.nodegroups.clone().unwrap_or_default();
        let target = Target::parse(form(&self.args.target), &self.args.target.target, &nodegroups)?;
        let mut meant = Vec::new();
        for host in &version.roster.hosts {
            if is_meant(&target, &host.id, self.grains(host).as_ref(), tree)? {
                meant.push(host.clone());
            }
        }
        Ok(meant)
    }

    /// What a commit means, or why nobody gets it.
    fn meaning(&self, look: &mut Look) -> Result<(Rules, Duration)> {
        if let Some(signers) = &self.signed {
            self.branch.verify(&look.tip.commit, signers.as_deref())?;
        }
        let version = self.version(Some(&look.tip.commit))?;
        let settings = &version.opened.settings;
        self.known().pace = Pace::of(settings);
        self.known().hosts = version.roster.ids().map(str::to_owned).collect();
        self.poll.store(self.args.poll.or(settings.watch.poll).unwrap_or(POLL), Ordering::Relaxed);
        match self.marks(&version)? {
            Ok(hosts) => look.hosts = hosts,
            Err(faults) => look.refused = Some(format!("it does not compile: {}", in_a_line(&joined(faults)))),
        }
        let rules = Rules {
            apply: self.args.apply,
            take_back: self.args.rollback_on_failure,
            windows: settings.watch.windows.clone().unwrap_or_default(),
        };
        Ok((rules, Duration::from_secs(self.args.interval.or(settings.watch.interval).unwrap_or(INTERVAL))))
    }

    async fn turn(self: Arc<Self>, task: Task) -> Outcome {
        let Ok(_place) = self.places.acquire().await else { return Outcome::Stopped };
        let desk = self.clone();
        let commit = task.commit.clone();
        let version = match tokio::task::spawn_blocking(move || desk.version(commit.as_deref())).await {
            Ok(Ok(version)) => version,
            Ok(Err(fault)) => return self.outcome_of(&task, &fault),
            Err(e) => return self.away(&task.host, &e.to_string()),
        };
        let Version { opened, roster } = version;
        let Some(host) = roster.hosts.iter().find(|host| host.id == task.host).cloned() else {
            return Outcome::Failed { why: "the roster has it no more".to_owned(), taken_back: false };
        };
        let printer = Arc::new(Printer::among_others(self.args.json, self.color));
        let context = Context::of(&opened, roster, &self.means, printer);
        if task.commit.is_some() {
            self.hints.end(&host.id);
        }
        let outcome = self.visit(&task, &context, &host).await;
        if self.means.stop.is_pulled() && !matches!(outcome, Outcome::Reached { .. }) {
            return Outcome::Stopped;
        }
        if task.commit.is_some() && matches!(outcome, Outcome::Reached { .. } | Outcome::Shown { .. }) {
            self.listen(&context, &host);
        }
        match outcome {
            Outcome::Reached { run, mark: None } => Outcome::Reached { run, mark: self.seen_mark(opened, host).await },
            Outcome::Shown { states, again, mark: None } => Outcome::Shown { states, again, mark: self.seen_mark(opened, host).await },
            outcome => outcome,
        }
    }

    /// From now on the host tells what is touched there.
    fn listen(self: &Arc<Self>, context: &Context, host: &Host) {
        let Ok(compiler) = context.compiler(&ScopeArgs::default()) else { return };
        let asking = Asking { work: context.work.clone(), compiler, mine: true };
        let (desk, id, settings) = (self.clone(), host.id.clone(), context.settings.clone());
        self.hints.begin(host.clone(), asking, move |plan| {
            let found = Found::of(&id, plan, &settings);
            found.kept.len() < found.wrong.len() || found.shown.kept != desk.known().shown.get(&id).and_then(|shown| shown.kept.clone())
        });
    }

    /// What the compiler makes of it, now that the host was seen.
    async fn seen_mark(self: &Arc<Self>, opened: Opened, host: Host) -> Option<String> {
        let desk = self.clone();
        let mark = tokio::task::spawn_blocking(move || {
            let tree = opened.tree(What::Highstate, None).ok()?;
            desk.mark(&tree, &host).ok()?
        });
        mark.await.ok()?
    }

    /// Takes back what a commit did that failed on another host.
    async fn take_back(&self, task: &Task, context: &Context, run: &str) -> Outcome {
        let (id, lock_timeout, guard) = (&task.host, self.args.lock_timeout, self.args.guard.clone());
        match take_back_on(context, id, run, lock_timeout, guard).await {
            Ok(0) => {
                self.reached(id);
                Outcome::Reached { run: None, mark: None }
            }
            Ok(code) if code == exit_code(&[Code::Interrupted], false) => Outcome::Stopped,
            Ok(code) if code == exit_code(&[Code::Unreachable], false) || code == exit_code(&[Code::Locked], false) => {
                self.away(id, &format!("run {run} cannot be taken back there yet"))
            }
            Err(End::Fault(fault)) if fault.code == Code::Interrupted => Outcome::Stopped,
            Err(End::Fault(fault)) => Outcome::Failed { why: in_a_line(&fault), taken_back: false },
            _ => Outcome::Failed {
                why: format!("run {run} could not be taken back; `basalt rollback --run {run} {id}` says why"),
                taken_back: false,
            },
        }
    }

    async fn visit(&self, task: &Task, context: &Context, host: &Host) -> Outcome {
        if let Some(run) = &task.run {
            return self.take_back(task, context, run).await;
        }
        let found: Mutex<Found> = Mutex::default();
        let judge = |planned: &[Planned]| {
            // It is one host's.
            let Some(planned) = planned.first() else { return Judgement::Carry };
            let mut plan = Found::of(&host.id, &planned.plan, &context.settings);
            let before = self.known().shown.insert(host.id.clone(), plan.shown.clone()).unwrap_or_default();
            plan.again = match task.act {
                Act::Check => plan.shown.kept.is_some() && before.kept == plan.shown.kept,
                _ => plan.shown.all.is_some() && before.all == plan.shown.all,
            };
            let judgement = match task.act {
                Act::Apply | Act::TakeBack => Judgement::Carry,
                Act::Check if plan.wrong.is_empty() => Judgement::Pass,
                Act::Check if plan.kept.is_empty() => Judgement::Carry,
                _ if plan.again => Judgement::Pass,
                Act::Plan | Act::Check => Judgement::Show,
            };
            *found.lock().unwrap_or_else(PoisonError::into_inner) = plan;
            judgement
        };
        let waves = WaveArgs { lock_timeout: self.args.lock_timeout, guard: self.args.guard.clone(), ..WaveArgs::default() };
        let how = |judge| How {
            waves: &waves,
            yes: true,
            rollback_on_failure: self.args.rollback_on_failure,
            prepared: None,
            judge: Some(judge),
        };
        let carried = carry_out(context, vec![host.clone()], &ScopeArgs::default(), None, &how(&judge)).await;
        let found = std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner));
        // Of a drift that is to be corrected in part, that part by itself.
        let parts = if task.act == Act::Check { found.parts() } else { Vec::new() };
        let mut outcome = self.outcome(task, carried, found);
        if !parts.is_empty() && matches!(outcome, Outcome::Shown { .. }) {
            let only = |planned: &[Planned]| {
                let keeps = |planned: &Planned| !Found::of(&host.id, &planned.plan, &context.settings).kept.is_empty();
                if planned.iter().any(keeps) { Judgement::Pass } else { Judgement::Carry }
            };
            let scope = ScopeArgs { sls: parts, ..ScopeArgs::default() };
            let carried = carry_out(context, vec![host.clone()], &scope, None, &how(&only)).await;
            let part = self.outcome(task, carried, Found::default());
            if matches!(part, Outcome::Failed { .. } | Outcome::Away { .. }) {
                outcome = part;
            }
        }
        outcome
    }

    fn outcome(&self, task: &Task, carried: std::result::Result<Carried, End>, found: Found) -> Outcome {
        let carried = match carried {
            Ok(carried) => carried,
            Err(End::Fault(fault)) => return self.outcome_of(task, &fault),
            Err(End::Code(code)) => return self.away(&task.host, &format!("it ended with exit code {code}")),
        };
        let result = carried.results.run.first().or(carried.summary.dropped.first());
        if let Some(fault) = result.and_then(|result| result.fault.as_ref()) {
            return self.outcome_of(task, fault);
        }
        let Some(result) = result else {
            self.reached(&task.host);
            let mark = task.mark.clone();
            return match found.wrong.is_empty() {
                true => Outcome::Reached { run: None, mark },
                false if task.act == Act::Check => Outcome::Shown { states: found.kept, again: found.again, mark },
                false => Outcome::Shown { states: found.wrong, again: found.again, mark },
            };
        };
        let taken_back = result.taken_back.is_some() || carried.results.taken_back.iter().any(|back| back.fault.is_none());
        match () {
            () if self.means.stop.is_pulled() && result.stopped.is_some() => Outcome::Stopped,
            () if let Some(back) = &result.taken_back => Outcome::Failed { why: back.why.clone(), taken_back },
            () if result.tally.failed > 0 => self.failed(task, format!("{} failed", count(result.tally.failed, "state")), taken_back),
            () if let Some(why) = &result.stopped => self.failed(task, why.clone(), taken_back),
            () => {
                self.reached(&task.host);
                self.known().shown.remove(&task.host);
                Outcome::Reached { run: carried.run.filter(|_| result.tally.changed > 0), mark: task.mark.clone() }
            }
        }
    }

    /// A commit that is new to the host is at fault itself; where it was good before, something is wrong with the host.
    fn failed(&self, task: &Task, why: String, taken_back: bool) -> Outcome {
        if task.act == Act::Apply { Outcome::Failed { why, taken_back } } else { self.away(&task.host, &why) }
    }

    fn outcome_of(&self, task: &Task, fault: &Diagnostic) -> Outcome {
        let why = in_a_line(fault);
        match fault.code {
            Code::Interrupted => Outcome::Stopped,
            Code::Unreachable | Code::HostKey | Code::Locked | Code::Stale | Code::Damaged | Code::Repository | Code::Internal => {
                self.away(&task.host, &why)
            }
            Code::Failed | Code::TakenBack => self.failed(task, why, fault.code == Code::TakenBack),
            _ => Outcome::Failed { why, taken_back: false },
        }
    }

    fn away(&self, host: &str, why: &str) -> Outcome {
        let (mut known, now) = (self.known(), now());
        let pace = known.pace;
        let recovery = Recovery::failed(known.recoveries.get(host), &pace, why, now);
        let wait = recovery.wait(&pace, now);
        known.recoveries.insert(host.to_owned(), recovery);
        drop(known);
        self.written(recovery::tried(self.means.store.as_ref(), host, Err(why), &pace, now).map(drop));
        Outcome::Away { why: why.to_owned(), wait }
    }

    fn reached(&self, host: &str) {
        self.known().recoveries.remove(host);
        // Others may have written something down: an announcement, a command.
        let pace = self.known().pace;
        self.written(recovery::tried(self.means.store.as_ref(), host, Ok(()), &pace, now()).map(drop));
    }

    /// A store that cannot be written is told once, and holds up nothing.
    fn written(&self, done: Result<()>) {
        let was = std::mem::replace(&mut self.known().lost, done.is_err());
        if let (false, Err(fault)) = (was, done) {
            let detail =
                format!("{}\nThe watch goes on; what it cannot write down it looks at again when it is started anew.", fault.detail);
            self.printer.fault(&Diagnostic { detail: detail.trim_start().to_owned(), ..Diagnostic::warning(fault.code, fault.summary) });
        }
    }
}

/// What a plan says of a host.
#[derive(Default)]
struct Found {
    /// States that are not as they should be. Commands that run every time are none.
    wrong: Vec<String>,
    /// Those of them that are shown, not corrected.
    kept: Vec<String>,
    /// SLS with something wrong: whether all of it is to be corrected.
    sls: BTreeMap<String, bool>,
    shown: Shown,
    /// It was shown before.
    again: bool,
}

impl Found {
    fn of(host: &str, plan: &HostPlan, settings: &Settings) -> Found {
        let print = |steps: &[&Step]| (!steps.is_empty()).then(|| Hash::of(serde_json::to_string(steps).unwrap_or_default().as_bytes()));
        let mut found = Found::default();
        let mut kept = Vec::new();
        for step in plan.steps.iter().filter(|step| !matches!(step.action, Action::None | Action::Run)) {
            let name = format!("{} {}", step.state, step.name);
            let keeps = settings.watch.drift_of(host, &step.sls, &step.id) == Drift::Show;
            *found.sls.entry(step.sls.clone()).or_insert(true) &= !keeps;
            if keeps {
                kept.push(step);
                found.kept.push(name.clone());
            }
            found.wrong.push(name);
        }
        found.shown = Shown { all: print(&plan.steps.iter().collect::<Vec<_>>()), kept: print(&kept) };
        found
    }

    /// SLS that are corrected, where others are not.
    fn parts(&self) -> Vec<String> {
        let whole = self.sls.iter().filter(|(_, whole)| **whole).map(|(sls, _)| sls.clone()).collect();
        if self.kept.is_empty() { Vec::new() } else { whole }
    }
}

impl Ground for Desk {
    fn local(&self) -> Local {
        Local::at(now())
    }

    fn look(&self, tip: &Tip, from: Option<&Tip>) -> Result<Looked> {
        let mut look = Look { tip: tip.clone(), ..Look::default() };
        if let Some(from) = from.filter(|from| from.commit != tip.commit) {
            match self.branch.between(&from.commit, &tip.commit)? {
                Some(passed) => look.passed = passed,
                None => look.rewritten = true,
            }
        }
        let settings = match self.meaning(&mut look) {
            Ok(settings) => Some(settings),
            Err(fault) => {
                look.refused = Some(in_a_line(&fault));
                None
            }
        };
        Ok(Looked { look, settings })
    }

    fn edited(&self) -> Result<Option<BTreeMap<String, Option<String>>>> {
        let version = self.version(None);
        let marks = match &version {
            Ok(version) => {
                let snapshot = &version.opened.snapshot;
                let before = self.known().tree.replace(snapshot.tree.clone());
                if before.as_ref() == Some(&snapshot.tree) || (before.is_none() && !snapshot.dirty) {
                    return Ok(None);
                }
                self.marks(version)
            }
            Err(fault) => Err(fault.clone()),
        };
        let fault = match marks {
            Ok(Ok(marks)) => {
                self.known().fault = None;
                return Ok(Some(marks));
            }
            Ok(Err(faults)) => joined(faults),
            Err(fault) => fault,
        };
        let before = self.known().fault.replace((*fault).clone());
        if before.as_ref() == Some(&*fault) { Ok(None) } else { Err(fault) }
    }

    fn carry(self: Arc<Self>, task: Task) -> Later<Outcome> {
        Box::pin(self.turn(task))
    }

    fn tell(&self, decision: &Decision) {
        told::decision(&self.printer, decision);
    }

    fn say(&self, what: Said<'_>) {
        told::said(&self.printer, &what);
    }

    fn recall(&self) -> (State, BTreeMap<String, Option<u64>>) {
        let store = self.means.store.as_ref();
        // What cannot be read is looked at anew.
        let entry = store.get(STATE).ok().flatten();
        let state = entry.and_then(|entry| serde_json::from_slice(&entry.value).ok()).unwrap_or_default();
        let recoveries = recovery::all(store).unwrap_or_default();
        let version = self.version(self.args.repository.commit.as_deref());
        let pace = version.map_or_else(|_| Pace::default(), |version| Pace::of(&version.opened.settings));
        let away = recoveries.iter().map(|(host, recovery)| (host.clone(), recovery.wait(&pace, now()))).collect();
        self.known().recoveries = recoveries;
        (state, away)
    }

    fn keep(&self, state: &State) {
        let Ok(bytes) = serde_json::to_vec(state) else { return };
        if self.known().kept == bytes {
            return;
        }
        let done = self.means.store.put(STATE, &bytes);
        if done.is_ok() {
            self.known().kept = bytes;
        }
        self.written(done);
    }
}
