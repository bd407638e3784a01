//! What most commands begin with: the repository, its settings and roster, the hosts that are meant, the way to reach them.

use std::collections::{BTreeMap, HashMap};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::opened::Opened;
use super::print::Printer;
use super::{ConnectArgs, End, RepositoryArgs, ScopeArgs, TargetArgs};
use crate::agent::protocol::{Answer, Call, Prune, RunHeader};
use crate::diagnostic::{Code, Diagnostic, Result, nearest};
use crate::engine::compile::{Answers, Attempt, Compile, Compiler, Wanted};
use crate::engine::event::{Source, Summary};
use crate::engine::history::run_id;
use crate::engine::link::Connect;
use crate::engine::mine::{GRAINS, Memory, Mine};
use crate::engine::plan::{Planned, Work, compiling, on_all};
use crate::engine::repository::{Snapshot, is_url};
use crate::engine::saved::{SavedPlan, Scope};
use crate::engine::session::{Session, Stop, interrupted};
use crate::engine::settings::Settings;
use crate::engine::tree::TreeCompiler;
use crate::fleet::target::{Form, Target};
use crate::fleet::{Host, Roster, Secret};
use crate::lang::What;
use crate::lang::decrypt::NoKeys;
use crate::plan::{Hash, hex};
use crate::remote::{Passwords, Remote};
use crate::store::Store;
use crate::store::disk::DiskStore;
use crate::value::{Map, Value};
use crate::watch::up::StoredKeys;

/// Grains that were seen so long ago (seconds) still decide who is meant; older ones are asked again.
const GRAINS_AGE: u64 = 3600;
/// What a host said so long ago (seconds) stands for it in the mine where it cannot be asked.
const MINE_AGE: u64 = 24 * 3600;
/// Longer answers (bytes) are not kept for later.
const LONGEST_ANSWER: usize = 64 << 10;
const RUN_TIMEOUT: u64 = 3600;
const PARALLEL: u64 = 100;

pub struct Context {
    pub printer: Arc<Printer>,
    pub snapshot: Arc<Snapshot>,
    pub source: Source,
    pub settings: Settings,
    pub store: Arc<dyn Store>,
    pub work: Work,
    roster: Roster,
    /// Hosts of which it could not be told whether they are meant.
    unasked: Mutex<Summary>,
    /// What hosts answered to their templates in this command.
    answers: Arc<Mutex<HashMap<String, Answers>>>,
}

/// What lasts longer than one moment of the repository: how hosts are reached, what is remembered, and what stops the work.
#[derive(Clone)]
pub struct Means {
    pub stop: Stop,
    pub store: Arc<dyn Store>,
    connect: Arc<dyn Connect>,
    compiling: Arc<Semaphore>,
    key: Arc<str>,
}

impl Means {
    pub fn of(repository: &RepositoryArgs, connect: &ConnectArgs, settings: &Settings) -> Result<Means> {
        let passwords =
            Passwords { ssh: asked(connect.ask_pass, "ssh password: ")?, sudo: asked(connect.ask_sudo_pass, "sudo password: ")? };
        let stop = stop_on_signals();
        let store = store_of(repository)?;
        let connect_timeout = settings.connect_timeout.map(Duration::from_secs);
        let connect = Arc::new(Remote::new(passwords, connect_timeout, Some(own_key()).filter(|key| key.is_file())));
        let key = key(store.as_ref()).into();
        Ok(Means { stop, store, connect, compiling: compiling(), key })
    }

    /// Known to this user on this machine alone.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl Context {
    pub fn open(repository: &RepositoryArgs, connect: &ConnectArgs, printer: Arc<Printer>) -> Result<Context> {
        let opened = Opened::at(repository, repository.commit.as_deref())?;
        let roster = opened.roster(repository)?;
        opened.notices.iter().chain(&roster.warnings).for_each(|notice| printer.fault(notice));
        let means = Means::of(repository, connect, &opened.settings)?;
        Ok(Context::of(&opened, roster, &means, printer))
    }

    /// The repository at one moment.
    pub fn of(opened: &Opened, roster: Roster, means: &Means, printer: Arc<Printer>) -> Context {
        let (snapshot, settings) = (opened.snapshot.clone(), opened.settings.clone());
        let source = Source {
            repository: snapshot.name.clone(),
            tree: snapshot.tree.clone(),
            commit: snapshot.commit.clone(),
            subject: snapshot.subject.clone(),
            dirty: snapshot.dirty,
        };
        let Means { stop, store, connect, compiling, key } = means.clone();
        let work = Work {
            connect,
            sink: printer.clone(),
            stop,
            parallel: usize::try_from(settings.parallel.unwrap_or(PARALLEL)).unwrap_or(usize::MAX),
            run_timeout: Duration::from_secs(settings.run_timeout.unwrap_or(RUN_TIMEOUT)),
            commands: settings.plan_commands.unwrap_or(true),
            key,
            compiling,
            mine: Arc::new(Mine::new(
                roster.hosts.clone(),
                settings.nodegroups.clone().unwrap_or_default(),
                Arc::new(Remembered(store.clone())),
            )),
            origin: settings.repository.clone().or_else(|| snapshot.origin()).unwrap_or_default().into(),
            prune: None,
        };
        let (unasked, answers) = Default::default();
        Context { printer, snapshot, source, settings, store, work, roster, unasked, answers }
    }

    /// The hosts that a target means. Where it speaks of grains or pillar, those are known from the last hour or asked.
    pub async fn hosts(&self, target: &TargetArgs) -> std::result::Result<Vec<Host>, End> {
        let (parsed, hosts) = self.matching(&target.target, form(target)).await?;
        let ids: Vec<&str> = self.roster.ids().collect();
        match parsed.complaint(hosts.len(), &ids) {
            // One that was not reached may be the one that is meant.
            Some(_) if !self.summary().dropped.is_empty() => {
                self.printer.faults();
                self.printer.say("None of the other hosts is meant.");
                Err(End::Code(super::summary_code(&self.summary())))
            }
            Some(_) if ids.is_empty() => Err(self.nobody(&target.target).into()),
            Some(fault) => Err(fault.into()),
            None => Ok(hosts),
        }
    }

    /// The hosts that an expression means, be it none.
    pub async fn matching(&self, expression: &str, form: Form) -> Result<(Target, Vec<Host>)> {
        let empty = Map::new();
        let nodegroups = self.settings.nodegroups.as_ref().unwrap_or(&empty);
        let parsed = Target::parse(form, expression, nodegroups)?;
        let mut chosen = Vec::new();
        if parsed.needs_grains() || parsed.needs_pillar() {
            let grains = self.grains().await?;
            let pillars = if parsed.needs_pillar() { Some(self.tree(&ScopeArgs::default())?) } else { None };
            for host in &self.roster.hosts {
                let Some(grains) = grains.get(&host.id) else { continue };
                let pillar = match &pillars {
                    Some(tree) => tree.pillar_of(&host.id, grains).map_err(crate::engine::plan::joined)?,
                    None => Map::new(),
                };
                if parsed.matches(&host.id, grains, &pillar)? {
                    chosen.push(host.clone());
                }
            }
        } else {
            for host in &self.roster.hosts {
                if parsed.matches(&host.id, &empty, &empty)? {
                    chosen.push(host.clone());
                }
            }
        }
        Ok((parsed, chosen))
    }

    pub fn knows(&self, id: &str) -> bool {
        self.roster.get(id).is_some()
    }

    /// What a command begins to count with: the hosts that the target could not be compared with.
    pub fn summary(&self) -> Summary {
        self.unasked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Hosts by their ids.
    pub fn named<'a>(&self, ids: impl Iterator<Item = &'a String>) -> Result<Vec<Host>> {
        ids.map(|id| self.roster.hosts.iter().find(|h| h.id == *id).cloned().ok_or_else(|| self.nobody(id).into())).collect()
    }

    fn nobody(&self, target: &str) -> Diagnostic {
        if self.roster.hosts.is_empty() {
            return Diagnostic::new(Code::Settings, "the roster has no hosts")
                .hint("write them into roster.yaml (`web1: 192.0.2.7` is enough; `localhost: {host: local}` is this machine), or name a roster with --roster");
        }
        let fault = Diagnostic::new(Code::Usage, format!("no host of the roster matches {target:?}"));
        match nearest(target, self.roster.hosts.iter().map(|h| h.id.as_str())) {
            Some(near) => fault.hint(format!("did you mean {near:?}?")),
            None => fault.hint(format!("the roster has {}", short_list(self.roster.hosts.iter().map(|h| h.id.as_str())))),
        }
    }

    /// Grains of every host: seen within the hour, or asked now. Hosts that cannot be asked are told of and left out.
    async fn grains(&self) -> Result<BTreeMap<String, Map>> {
        let mut known = BTreeMap::new();
        let mut unknown = Vec::new();
        for host in &self.roster.hosts {
            match self.seen(&host.id) {
                Some(grains) => drop(known.insert(host.id.clone(), grains)),
                None => unknown.push(host.clone()),
            }
        }
        let work = self.work.clone();
        let mut unasked = Summary::default();
        let asked = on_all(&self.work, unknown, &mut unasked, move |host| {
            let work = work.clone();
            async move {
                let session = work.session(host).await?;
                let found = (session.host.id.clone(), session.grains.all.clone());
                session.close().await;
                Ok(found)
            }
        })
        .await;
        unasked.hosts = unasked.dropped.len();
        *self.unasked.lock().unwrap_or_else(PoisonError::into_inner) = unasked;
        for (host, grains) in asked {
            self.remember_seen(&host, &grains);
            known.insert(host, grains);
        }
        Ok(known)
    }

    fn seen(&self, host: &str) -> Option<Map> {
        seen(&self.store, host).filter(|(age, _)| *age < GRAINS_AGE).map(|(_, grains)| grains)
    }

    /// Writes something down for later commands.
    pub fn keep(&self, key: &str, what: &impl Serialize) {
        remember(&self.store, key, what);
    }

    fn remember_seen(&self, host: &str, grains: &Map) {
        remember(&self.store, &format!("grains/{host}"), &Seen { time: now(), grains: grains.clone() });
    }

    /// Keeps the grains that hosts greeted with, where the store has none of the last hour or other answers to templates.
    pub fn remember_grains(&self, planned: &[Planned]) {
        for host in planned {
            let id = &host.session.host.id;
            if self.seen(id).is_none() {
                self.remember_seen(id, &host.session.grains.all);
            }
            let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
            if let Some(answers) = answers.filter(|answers| *answers != answers_of(&self.store, id)) {
                remember(&self.store, &format!("answers/{id}"), &answers);
            }
        }
    }

    pub fn compiler(&self, scope: &ScopeArgs) -> Result<Compiler> {
        Ok(self.listening(self.tree(scope)?))
    }

    /// A compiler whose hosts' answers are remembered.
    pub fn listening(&self, tree: TreeCompiler) -> Compiler {
        Arc::new(Listening { tree, answers: self.answers.clone() })
    }

    pub fn tree(&self, scope: &ScopeArgs) -> Result<TreeCompiler> {
        let what = if scope.sls.is_empty() { What::Highstate } else { What::Sls(scope.sls.clone()) };
        self.tree_of(what, pillar(scope)?)
    }

    pub fn tree_of(&self, what: What, pillar: Option<Map>) -> Result<TreeCompiler> {
        let tree = TreeCompiler::new(&self.snapshot, &self.settings, what, pillar, cache_folder())?;
        Ok(tree.knowing(Arc::new(StoredKeys(self.store.clone()))))
    }

    pub fn run_header(&self, rolls_back: Vec<String>) -> RunHeader {
        let started = now_ms();
        RunHeader {
            id: run_id(started / 1000, random()),
            who: who(),
            started,
            tree: self.source.tree.clone(),
            commit: self.source.commit.clone(),
            repository: self.source.repository.clone(),
            rolls_back,
        }
    }

    /// Plans from here on let hosts go of what has left the tree, where they are to.
    pub fn prune(&mut self, prune: Option<Prune>) -> Result<()> {
        if prune.is_some() && self.work.origin.is_empty() {
            return Err(Diagnostic::new(Code::Settings, "this state repository cannot be told from others, so nothing is pruned")
                .detail("Hosts know it by its first commit. It has none yet, or not here (a shallow clone, the roots of a Salt master).")
                .hint("give it a name: `repository: NAME` in basalt.yaml")
                .into());
        }
        self.work.prune = prune;
        Ok(())
    }

    pub fn saved_scope(&self, scope: &ScopeArgs) -> Result<Scope> {
        let pillar = pillar(scope)?.map(|p| Hash::of(serde_json::to_string(&p).unwrap_or_default().as_bytes()));
        Ok(Scope { sls: scope.sls.clone(), pillar, prune: self.work.prune })
    }

    /// A saved plan is of this tree and this pillar, or it is stale.
    pub fn same_source(&self, saved: &SavedPlan, scope: &ScopeArgs) -> Result<()> {
        let stale = |what: String| Diagnostic::new(Code::Stale, what).detail("Nothing was touched.").hint("plan again");
        if saved.source.tree != self.source.tree {
            let (then, now) = (short(&saved.source.tree), short(&self.source.tree));
            return Err(stale(format!("the saved plan was made from tree {then}, the state repository is at {now}")).into());
        }
        if saved.scope != self.saved_scope(scope)? {
            return Err(stale("the saved plan was made with another --pillar".into()).into());
        }
        Ok(())
    }
}

/// What was last seen of a host.
#[derive(Serialize, Deserialize)]
struct Seen {
    /// Seconds since the epoch.
    time: u64,
    grains: Map,
}

/// What hosts answered to their templates when they were last planned.
pub fn answers_of(store: &Arc<dyn Store>, host: &str) -> Answers {
    let entry = store.get(&format!("answers/{host}")).ok().flatten();
    entry.and_then(|entry| serde_json::from_slice(&entry.value).ok()).unwrap_or_default()
}

/// Compiles, and keeps what hosts answered, so that `basalt diff` has it later. What holds a secret is not kept.
struct Listening {
    tree: TreeCompiler,
    answers: Arc<Mutex<HashMap<String, Answers>>>,
}

impl Compile for Listening {
    fn compile(&self, id: &str, grains: &Map, answers: &Answers) -> std::result::Result<Wanted, Vec<Diagnostic>> {
        let wanted = self.tree.compile(id, grains, answers)?;
        if wanted.missing.is_empty() {
            let plain = |pair: &&(Call, Answer)| {
                let text = serde_json::to_string(pair).unwrap_or_default();
                text.len() <= LONGEST_ANSWER && !wanted.secrets.iter().any(|secret| text.contains(&escaped(secret)))
            };
            let plain = answers.iter().filter(plain).cloned().collect();
            self.answers.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), plain);
        }
        Ok(wanted)
    }

    fn pillar(&self, id: &str, grains: &Map, answers: &Answers) -> Attempt<Map> {
        self.tree.pillar(id, grains, answers)
    }
}

/// A text as it stands in JSON.
fn escaped(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default().trim_matches('"').to_owned()
}

/// The grains a host had, and how many seconds ago.
pub fn seen(store: &Arc<dyn Store>, host: &str) -> Option<(u64, Map)> {
    let entry = store.get(&format!("grains/{host}")).ok()??;
    let seen: Seen = serde_json::from_slice(&entry.value).ok()?;
    // What was seen in the future was seen before the clock was put right.
    Some((now().checked_sub(seen.time)?, seen.grains))
}

/// A cache: where it cannot be written, the next command asks again.
fn remember(store: &Arc<dyn Store>, key: &str, what: &impl Serialize) {
    if let Ok(bytes) = serde_json::to_vec(what) {
        let _ = store.put(key, &bytes);
    }
}

/// What hosts said when the mine asked them, kept for a day.
struct Remembered(Arc<dyn Store>);

#[derive(Serialize, Deserialize)]
struct Said {
    time: u64,
    value: Value,
}

impl Remembered {
    fn key(host: &str, what: &str) -> String {
        // An alias may be any text.
        let name = Hash::of(what.as_bytes()).0;
        format!("mine/{host}/{}", name.get(..24).unwrap_or(&name))
    }
}

impl Memory for Remembered {
    fn recall(&self, host: &str, what: &str) -> Option<(u64, Value)> {
        let (age, value) = if what == GRAINS {
            seen(&self.0, host).map(|(age, grains)| (age, Value::Map(grains)))?
        } else {
            let entry = self.0.get(&Remembered::key(host, what)).ok()??;
            let said: Said = serde_json::from_slice(&entry.value).ok()?;
            (now().checked_sub(said.time)?, said.value)
        };
        (age < MINE_AGE).then_some((age, value))
    }

    fn keep(&self, host: &str, what: &str, said: &Value) {
        match said {
            Value::Map(grains) if what == GRAINS => {
                remember(&self.0, &format!("grains/{host}"), &Seen { time: now(), grains: grains.clone() });
            }
            value => remember(&self.0, &Remembered::key(host, what), &Said { time: now(), value: value.clone() }),
        }
    }
}

/// What tells one machine from another behind the same address.
pub fn machine(session: &Session) -> String {
    session.hello().grains.get("machine_id").and_then(Value::as_str).unwrap_or_default().to_owned()
}

pub fn form(target: &TargetArgs) -> Form {
    let f = &target.form;
    match () {
        () if f.list => Form::List,
        () if f.pcre => Form::Pcre,
        () if f.grain => Form::Grain,
        () if f.pillar_target => Form::Pillar,
        () if f.nodegroup => Form::Nodegroup,
        () if f.ipcidr => Form::Ipcidr,
        () if f.compound => Form::Compound,
        () => Form::Glob,
    }
}

/// Of a commit or tree, as people read it.
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn short_list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    match names.get(..6) {
        Some(first) if names.len() > 6 => format!("{} and {} more", first.join(", "), names.len() - 6),
        _ => names.join(", "),
    }
}

/// `--pillar`: JSON, or a file of JSON or YAML.
fn pillar(scope: &ScopeArgs) -> Result<Option<Map>> {
    pillar_argument(scope.pillar.as_deref())
}

/// What `--pillar` gives: JSON, or a file of JSON or YAML.
pub fn pillar_argument(argument: Option<&str>) -> Result<Option<Map>> {
    let Some(text) = argument else { return Ok(None) };
    let (text, name) = if text.trim_start().starts_with('{') {
        (text.to_owned(), "--pillar".to_owned())
    } else {
        let read = std::fs::read_to_string(text);
        let failed = |e| Diagnostic { code: Code::Usage, ..Diagnostic::io(format_args!("read the pillar {text}"), &e) };
        (read.map_err(failed)?, text.to_owned())
    };
    match crate::yaml::load(&text, &name)? {
        Value::Map(map) => Ok(Some(map)),
        other => Err(Diagnostic::new(Code::Usage, format!("a pillar is a mapping, {name} is {}", other.kind())).into()),
    }
}

/// The tree of a repository alone, for what needs no host.
pub fn tree_of(repository: &RepositoryArgs, what: What, pillar: Option<Map>) -> Result<TreeCompiler> {
    Opened::at(repository, repository.commit.as_deref())?.tree(what, pillar)
}

/// Whether a target means a host, by what was last seen of it; one that was never seen is meant where it cannot be told.
pub fn is_meant(target: &Target, id: &str, seen: Option<&Map>, tree: &TreeCompiler) -> Result<bool> {
    let Some(grains) = seen else {
        return if target.needs_grains() || target.needs_pillar() { Ok(true) } else { target.matches(id, &Map::new(), &Map::new()) };
    };
    let pillar = if target.needs_pillar() { tree.pillar_of(id, grains) } else { Ok(Map::new()) };
    // A pillar that does not compile hides no host.
    pillar.map_or(Ok(true), |pillar| target.matches(id, grains, &pillar))
}

/// Minion ids with their grains.
pub type IdsAndGrains = Vec<(String, Map)>;

/// The same with the folder of the work tree and the hosts of its roster (ids and grains), where there are such.
pub fn tree_and_hosts(repository: &RepositoryArgs) -> Result<(TreeCompiler, Option<PathBuf>, IdsAndGrains)> {
    let opened = Opened::at(repository, None)?;
    let tree = opened.tree(What::Highstate, None)?;
    // Who only reads a tree needs none of its secrets.
    let tree = TreeCompiler { compiler: tree.compiler.decrypting(Arc::new(NoKeys)), ..tree };
    let roster = opened.roster(repository).map(|roster| roster.hosts).unwrap_or_default();
    Ok((tree, opened.snapshot.folder.clone(), roster.iter().map(|host| (host.id.clone(), host.grains())).collect()))
}

/// Where the history of this repository is kept: one folder per repository, named by where it is.
pub fn store_of(repository: &RepositoryArgs) -> Result<Arc<dyn Store>> {
    let place = if let Some(folder) = &repository.salt_config {
        folder.canonicalize().unwrap_or_else(|_| folder.clone()).display().to_string()
    } else if is_url(&repository.repo) {
        repository.repo.clone()
    } else {
        let found = git2::Repository::discover(&repository.repo).ok();
        let folder = found.as_ref().map_or_else(|| PathBuf::from(&repository.repo), |r| r.path().to_owned());
        folder.canonicalize().unwrap_or(folder).display().to_string()
    };
    let name = Hash::of(place.as_bytes()).0;
    Ok(Arc::new(DiskStore::at(folder("XDG_STATE_HOME", ".local/state").join(name.get(..24).unwrap_or(&name)))))
}

/// The ssh key of this controller, which machines that join let in.
pub fn own_key() -> PathBuf {
    state_folder().join("ssh_key")
}

/// What this controller keeps for good.
pub fn state_folder() -> PathBuf {
    folder("XDG_STATE_HOME", ".local/state")
}

pub fn cache_folder() -> PathBuf {
    folder("XDG_CACHE_HOME", ".cache")
}

/// basalt's folder below one of the XDG folders.
pub fn folder(variable: &str, default: &str) -> PathBuf {
    let base = std::env::var_os(variable).map(PathBuf::from).filter(|p| p.is_absolute());
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/".into())).join(default);
    base.unwrap_or_else(home).join("basalt")
}

/// Milliseconds since the epoch.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// Seconds since the epoch.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// A secret of this user and machine, made when it is first asked for: what is keyed with it can only be compared here.
fn key(store: &dyn Store) -> String {
    if let Ok(Some(entry)) = store.get("key") {
        return String::from_utf8_lossy(&entry.value).into_owned();
    }
    let mut bytes = [0; 32];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut random| std::io::Read::read_exact(&mut random, &mut bytes));
    // Without random numbers, or where it cannot be kept, it is another one each time: plans with secrets then cannot be saved.
    let key = format!("{}{:x}", hex(&bytes), if read.is_ok() { 0 } else { random() });
    // Somebody may have been faster.
    match store.put_if("key", 0, key.as_bytes()) {
        Ok(false) => store.get("key").ok().flatten().map_or(key, |entry| String::from_utf8_lossy(&entry.value).into_owned()),
        _ => key,
    }
}

fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // Keys of a new hasher are random; nothing secret depends on it.
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// A text that nobody can know beforehand.
pub fn mark() -> String {
    format!("{:016x}{:016x}", random(), random())
}

/// `user@controller`.
pub fn who() -> String {
    let uid = rustix::process::getuid().as_raw();
    let user = std::env::var("SUDO_USER").ok().or_else(|| user_name(uid)).unwrap_or_else(|| format!("uid {uid}"));
    format!("{user}@{}", hostname())
}

/// This machine's name.
pub fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// The name of a user of this machine.
pub fn user_name(uid: u32) -> Option<String> {
    let uid = uid.to_string();
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    let mut users = passwd.lines().map(|l| l.split(':').collect::<Vec<_>>());
    users.find(|f| f.get(2) == Some(&uid.as_str())).and_then(|f| Some((*f.first()?).to_owned()))
}

fn asked(ask: bool, prompt: &str) -> Result<Option<Secret>> {
    if !ask {
        return Ok(None);
    }
    rpassword::prompt_password(prompt)
        .map(|text| Some(Secret(text)))
        .map_err(|e| Diagnostic { code: Code::Usage, ..Diagnostic::io("ask for a password", &e) }.into())
}

/// The first signal stops every host at its next state, the second ends what runs there, the third ends the program.
fn stop_on_signals() -> Stop {
    use tokio::signal::unix::{SignalKind, signal};
    let (pull, stop) = Stop::new();
    tokio::spawn(async move {
        let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
            // Without signals there is nothing to pull; the sender must live as long as the command.
            return std::future::pending::<()>().await;
        };
        let mut times = 0_u8;
        loop {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            times += 1;
            let said: &[u8] = match times {
                1 => b"\nStopping: every host ends the state it is in. Once more to end the commands that run there.\n",
                2 => b"\nEnding what runs. Once more to leave at once.\n",
                #[expect(clippy::disallowed_methods, reason = "whoever sends the third signal does not want to wait")]
                _ => std::process::exit(130),
            };
            let _ = std::io::stderr().write_all(said);
            let _ = pull.send(times);
        }
    });
    stop
}

/// Asks on the terminal. Without one there is nobody to say yes.
pub async fn confirmed(printer: &Printer, stop: &Stop, question: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(Diagnostic::new(Code::Usage, "this needs a yes, and there is no terminal to ask on").hint("--yes says it").into());
    }
    printer.ask(question);
    let answer = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|_| line)
    });
    let mut stop = stop.clone();
    let answer = tokio::select! {
        answer = answer => answer.ok().and_then(|r| r.ok()).unwrap_or_default(),
        () = stop.pulled(1) => return Err(interrupted().detail("Nothing was changed.").into()),
    };
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
