//! One case of the law on one machine: a temporary root, or the host that this program was started on. Changes are made as a run makes them, with a
//! journal, and taken back by the agent's own rollback.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use basalt::agent::protocol::{PlanRequest, RollbackRequest};
use basalt::agent::{history, planner, projection, revert, run};
use basalt::diagnostic::{Code, Diagnostic, Result as Done};
use basalt::object::{self, Progress};
use basalt::plan::{Action, Kind, RunHeader};
use basalt::system::{Entry, HostExec, System};
use basalt::value::Attrs;
use sha2::{Digest, Sha256};

use crate::lab::{Host, Output, fingerprint};
use crate::table::{self, Case, Group, Place, What, wanted};
use crate::{difference, recorded};

/// Where this program and the table are on a host of the lab.
const ON_HOST: &str = "/law";
/// Everything below a root, each path with all that can be seen of it.
type Picture = BTreeMap<String, String>;

pub struct Machine {
    root: PathBuf,
    place: Place,
    /// Hashes of files by what changes with them: most of a host stays as it is.
    known: Mutex<HashMap<(u64, i64, i64, u64), String>>,
    _folder: Option<tempfile::TempDir>,
}

/// Which faults are tried.
#[derive(Clone, Copy)]
pub struct Faults {
    pub all: bool,
}

/// How a case has ended: how often the run was stopped, killed, and its rollback stopped; and what was not as it should be.
#[derive(Default)]
pub struct Held {
    pub stopped: usize,
    pub killed: usize,
    pub undone: usize,
    pub broken: Vec<String>,
}

/// How a run is ended in the middle.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Stopped(u64),
    Killed(u64),
    /// The run goes through, and its rollback is stopped.
    Undone(u64),
}

impl Machine {
    /// A temporary root as the group wants it; `None` where this machine has not what it takes.
    pub fn root(group: &Group) -> Option<Machine> {
        // Where a sync costs nothing; but programs may not be started there.
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() && !group.slow { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        std::fs::create_dir_all(folder.path().join("var/lib")).unwrap();
        let output = Command::new("sh").args(["-ec", &group.before]).current_dir(folder.path()).output().unwrap();
        if output.status.code() == Some(77) && std::env::var("CI").as_deref() != Ok("true") {
            eprintln!("skipped: {}", String::from_utf8_lossy(&output.stderr));
            return None;
        }
        assert!(output.status.success(), "{}: {}", group.before, String::from_utf8_lossy(&output.stderr));
        Some(Machine { root: folder.path().to_owned(), place: group.place, known: Mutex::default(), _folder: Some(folder) })
    }

    /// The host that this program runs on, as the group wants it.
    pub fn host(group: &Group) -> Result<Machine, String> {
        sh(&group.before)?;
        Ok(Machine { root: "/".into(), place: group.place, known: Mutex::default(), _folder: None })
    }

    pub fn end(&self, group: &Group) -> Result<(), String> {
        sh(&group.after)
    }

    fn system(&self) -> System {
        match self.place {
            Place::Root | Place::Recorded => System::at(&self.root, Box::new(recorded::Tools(self.root.clone()))),
            Place::Light | Place::Systemd => System::at(&self.root, Box::new(HostExec::new(&self.root, Default::default()))),
        }
    }

    /// Holds a case to the law.
    pub fn hold(&self, case: &Case, faults: Faults) -> Held {
        let mut held = Held::default();
        if case.one_way {
            held.broken.extend(self.one_way(case).err());
            return held;
        }
        let was = self.picture(case);
        let undisturbed = self.undisturbed(case, &was);
        let (changes, returns) = match undisturbed {
            Ok(mutations) => mutations,
            Err(fault) => {
                held.broken.push(fault);
                return held;
            }
        };
        for fault in faults.of(case, changes, returns) {
            let tried = self.disturbed(case, &was, fault);
            let count = match fault {
                Fault::Stopped(_) => &mut held.stopped,
                Fault::Killed(_) => &mut held.killed,
                Fault::Undone(_) => &mut held.undone,
            };
            *count += 1;
            if let Err(what) = tried {
                held.broken.push(format!("{fault:?} of {changes} and {returns}: {what}"));
                break; // nothing is as it was
            }
        }
        held
    }

    /// What does not come back is told before it goes.
    fn one_way(&self, case: &Case) -> Result<(), String> {
        let sys = self.system();
        let told = match &case.what {
            What::States(lows) => plan(&sys, lows).map(|plan| plan.host.steps.iter().any(|step| step.one_way.is_some())),
            What::Object { keys, to, .. } => object::of(&keys[0]).and_then(|object| {
                let (from, to) = (object.read(&sys)?, wanted(to, &sys));
                Ok(object.one_way(&sys, &from, &to).is_some())
            }),
        };
        if !told.map_err(|e| e.to_string())? {
            return Err("it is not told that this does not come back".into());
        }
        self.forget();
        self.change(&sys, case).map_err(|e| format!("it cannot be done: {e} {}", e.detail))?;
        self.reached(case)
    }

    /// There and back; gives the mutations of both ways.
    fn undisturbed(&self, case: &Case, was: &Picture) -> Result<(u64, u64), String> {
        self.forget();
        let sys = self.system();
        let reads = self.reads(case);
        sys.fail_at(None);
        self.change(&sys, case).map_err(|e| format!("it cannot be done: {e} {}", e.detail))?;
        let changes = sys.mutations();
        self.reached(case)?;
        let sys = self.system();
        take_back(&sys, "run-2", None).map_err(|e| format!("it cannot be taken back: {e} {}", e.detail))?;
        self.same(case, was, &reads)?;
        Ok((changes, sys.mutations()))
    }

    fn disturbed(&self, case: &Case, was: &Picture, fault: Fault) -> Result<(), String> {
        self.forget();
        let sys = self.system();
        let reads = self.reads(case);
        match fault {
            Fault::Stopped(n) => {
                sys.fail_at(n);
                match self.change(&sys, case) {
                    Err(error) if error.code == Code::Interrupted => {}
                    other => return Err(format!("the run went on: {other:?}")),
                }
            }
            Fault::Killed(n) => {
                let task = format!("{} {n} {}", case.number, self.root.display());
                let mut child = Command::new(std::env::current_exe().unwrap());
                child.args(["--exact", "machine::a_run_that_is_killed", "--nocapture"]).env("LAW_KILL", task);
                let output = child.output().unwrap();
                if std::os::unix::process::ExitStatusExt::signal(&output.status) != Some(9) {
                    return Err(format!("the run was not killed: {output:?}"));
                }
            }
            Fault::Undone(n) => {
                self.change(&sys, case).map_err(|e| e.to_string())?;
                match take_back(&self.system(), "run-2", Some(n)) {
                    Err(error) if error.code == Code::Interrupted => {}
                    other => return Err(format!("the rollback went on: {other:?}")),
                }
            }
        }
        let sys = self.system();
        // A run that was stopped before its journal began has done nothing.
        if history::runs(&sys).map_err(|e| e.to_string())?.iter().any(|run| run.header.id == "run-1") {
            take_back(&sys, "run-3", None).map_err(|e| format!("it cannot be taken back: {e} {}", e.detail))?;
        }
        self.same(case, was, &reads)
    }

    /// Brings about what a case wants, as a run.
    fn change(&self, sys: &System, case: &Case) -> Done<()> {
        match &case.what {
            What::States(lows) => {
                let plan = plan(sys, lows)?;
                let mut said = Vec::new();
                let applied = run::apply(sys, &plan, &header("run-1"), &mut |body| said.push(format!("{body:?}")))?;
                match applied.tally.failed {
                    0 => Ok(()),
                    _ => Err(Diagnostic::new(Code::Failed, said.join("\n")).into()),
                }
            }
            What::Object { keys, to, .. } => {
                let object = object::of(&keys[0])?;
                let from = object.read(sys)?;
                let to = object.resolve(sys, &from, &wanted(to, sys), &|_| false)?;
                sys.begin(&header("run-1"))?;
                object.keep(sys, &from, &to)?;
                let mut images = Vec::new();
                for key in keys {
                    let attrs = object::of(key)?.read(sys)?;
                    images.push(Entry::Before { key: key.clone(), attrs, secret: false, shown: None, kept: None });
                }
                sys.journal(&images)?;
                object.set(sys, &from, &to, &mut Progress::new(&mut |_| {}))?;
                for key in keys {
                    let attrs = object::of(key)?.read(sys)?;
                    sys.journal(&[Entry::After { key: key.clone(), attrs, secret: false }])?;
                }
                sys.end(Default::default(), None)
            }
        }
    }

    /// What was set is what is read; there is nothing left to plan.
    fn reached(&self, case: &Case) -> Result<(), String> {
        let sys = self.system();
        match &case.what {
            What::States(lows) => {
                let plan = plan(&sys, lows).map_err(|e| format!("the next plan fails: {e}"))?;
                let left: Vec<String> = plan.host.steps.iter().filter(|s| s.action != Action::None).map(|s| format!("{s:?}")).collect();
                if left.is_empty() { Ok(()) } else { Err(format!("the next plan still wants {}", left.join(", "))) }
            }
            What::Object { keys, to, unread } => {
                let is = object::of(&keys[0]).and_then(|object| object.read(&sys)).map_err(|e| e.to_string())?;
                let mut to = wanted(to, &sys);
                if to.is_empty() {
                    return if is.is_empty() { Ok(()) } else { Err(format!("it was to go, and {is:?} is read")) };
                }
                to.retain(|name, _| !name.starts_with('@') && !unread.contains(name));
                // Packages are wanted by words (`installed`, `latest`) that only `resolve` can turn into what is read.
                if matches!(keys[0].kind, Kind::Packages | Kind::Pip | Kind::Git) {
                    to = object::of(&keys[0]).and_then(|o| o.resolve(&sys, &is, &to, &|_| false)).map_err(|e| e.to_string())?;
                    to.retain(|name, _| !name.starts_with('@'));
                }
                match !to.is_empty() && projection::differs(&is, &to) {
                    true => Err(format!("{to:?} was set, and {is:?} is read")),
                    false => Ok(()),
                }
            }
        }
    }

    fn same(&self, case: &Case, was: &Picture, reads: &[Attrs]) -> Result<(), String> {
        let mut differ = difference(was, &self.picture(case));
        for (was, is) in reads.iter().zip(self.reads(case)) {
            if !projection::same(was, &is) {
                differ.push(format!("read before: {was:?}\nread behind the rollback: {is:?}"));
            }
        }
        if differ.is_empty() { Ok(()) } else { Err(format!("the rollback leaves something:\n{}", differ.join("\n"))) }
    }

    fn reads(&self, case: &Case) -> Vec<Attrs> {
        let sys = self.system();
        let keys = if let What::Object { keys, .. } = &case.what { keys.as_slice() } else { &[] };
        keys.iter().map(|key| object::of(key).and_then(|object| object.read(&sys)).unwrap_or_else(|e| panic!("{key}: {e}"))).collect()
    }

    /// A machine that no run was ever on.
    fn forget(&self) {
        let _ = std::fs::remove_dir_all(self.root.join("var/lib/basalt/runs"));
    }

    /// The whole root. Of hosts what fingerprints leave out is left out here too. When a file was changed counts where a case is about files.
    fn picture(&self, case: &Case) -> Picture {
        let mut out = Picture::new();
        let times = self.place == Place::Root && !case.slow && case.kind().is_none_or(|kind| kind == Kind::File);
        self.below(&self.root, "", times, &mut out);
        if self.root == Path::new("/") {
            out.insert("mounts".into(), mounts(&std::fs::read_to_string("/proc/self/mountinfo").unwrap()));
        }
        out
    }

    fn below(&self, folder: &Path, inside: &str, times: bool, out: &mut Picture) {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let (path, outside) = (format!("{inside}/{}", entry.file_name().to_string_lossy()), entry.path());
            let left_out = match self.place {
                Place::Root | Place::Recorded => path == "/var/lib/basalt" || path.ends_with("/__pycache__"),
                // git's logs, and the times in its index.
                _ if path.contains("/.git/logs/") || path.ends_with("/.git/index") => true,
                Place::Light | Place::Systemd => fingerprint::exempt(&path) || path == ON_HOST,
            };
            if left_out {
                continue;
            }
            let meta = std::fs::symlink_metadata(&outside).unwrap();
            let mut text = format!("{:o} {}:{} {:?}", meta.mode(), meta.uid(), meta.gid(), fingerprint::xattrs(&outside));
            if meta.is_file() {
                text += &self.content(&outside, &path, &meta);
                if times {
                    text += &format!(" {}.{}", meta.mtime(), meta.mtime_nsec());
                }
            } else if meta.is_symlink() {
                text += &format!(" -> {}", std::fs::read_link(&outside).unwrap().display());
            } else if meta.is_dir() {
                self.below(&outside, &path, times, out);
            }
            out.insert(path, text);
        }
    }

    fn content(&self, outside: &Path, path: &str, meta: &std::fs::Metadata) -> String {
        let read = || std::fs::read(outside).unwrap();
        // What stands for the kernel's own files has its order.
        if path.starts_with("/proc/") {
            let text = String::from_utf8_lossy(&read()).into_owned();
            let text = if path.ends_with("/mountinfo") { mounts(&text) } else { text };
            let mut words: Vec<&str> = text.split([',', ' ', '\t', '\n']).filter(|word| !word.is_empty()).collect();
            words.sort_unstable();
            return words.join(" ");
        }
        if self.root != Path::new("/") {
            return format!(" {}", read().escape_ascii());
        }
        let key = (meta.ino(), meta.ctime(), meta.ctime_nsec(), meta.len());
        let mut known = self.known.lock().unwrap();
        let hash = known.entry(key).or_insert_with(|| Sha256::digest(read()).iter().map(|byte| format!("{byte:02x}")).collect());
        format!(" {} {hash}", meta.len())
    }
}

impl Faults {
    /// All, or a sample: every error where it costs nothing, else one in each case; and a kill for some.
    fn of(self, case: &Case, changes: u64, returns: u64) -> Vec<Fault> {
        let all = |n: u64| 1..=n;
        let one = |n: u64| (n > 0).then(|| 1 + (case.number * 7) % n);
        let stopped: Vec<u64> = if self.all || case.in_root { all(changes).collect() } else { one(changes).into_iter().collect() };
        let killed: Vec<u64> = match self.all {
            true => all(changes).collect(),
            false => one(changes).into_iter().filter(|_| case.number.is_multiple_of(5)).collect(),
        };
        let undone: Vec<u64> = if self.all { all(returns).collect() } else { one(returns).into_iter().collect() };
        if case.slow && !self.all {
            return one(changes).into_iter().map(Fault::Stopped).collect();
        }
        let stopped = stopped.into_iter().map(Fault::Stopped);
        stopped.chain(killed.into_iter().map(Fault::Killed)).chain(undone.into_iter().map(Fault::Undone)).collect()
    }
}

fn header(id: &str) -> RunHeader {
    let empty = String::new;
    RunHeader { id: id.into(), who: "law".into(), started: 0, tree: empty(), commit: empty(), repository: empty(), rolls_back: Vec::new() }
}

fn plan(sys: &System, lows: &[basalt::plan::Low]) -> Done<planner::Plan> {
    planner::plan(sys, PlanRequest { lows: lows.to_vec(), commands: true, ..PlanRequest::default() })
}

/// Takes the run back, with what it destroys; stopped at a mutation.
fn take_back(sys: &System, by: &str, stop: Option<u64>) -> Done<()> {
    let rollback = revert::plan(sys, &RollbackRequest { run: "run-1".into(), with_later: false, destroy_data: true })?;
    sys.fail_at(stop);
    let mut said = Vec::new();
    let applied = revert::apply(sys, rollback, &header(by), &mut |body| said.push(format!("{body:?}")))?;
    match applied.tally.failed {
        0 => Ok(()),
        _ => Err(Diagnostic::new(Code::Failed, said.join("\n")).into()),
    }
}

/// What is mounted where, without the numbers that the kernel gives.
fn mounts(text: &str) -> String {
    let own = |word: &&str| !word.starts_with("shared:") && !word.starts_with("master:");
    let mut lines: Vec<String> = text.lines().map(|line| line.split(' ').skip(2).filter(own).collect::<Vec<_>>().join(" ")).collect();
    lines.sort();
    lines.join("\n")
}

fn sh(script: &str) -> Result<(), String> {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    if output.status.success() { Ok(()) } else { Err(format!("{script}: {}", String::from_utf8_lossy(&output.stderr))) }
}

/// Whether this program has been started again on a host of the lab.
pub fn inside() -> bool {
    std::env::var_os("LAW_TABLE").is_some()
}

/// Starts one of this program's tests on a host.
pub fn enter(host: &Host, test: &str) -> Output {
    let folder = host.root().join(ON_HOST.trim_start_matches('/'));
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(std::env::current_exe().unwrap(), folder.join("test")).unwrap();
    for file in std::fs::read_dir(table::folder()).unwrap().map(|file| file.unwrap()) {
        std::fs::copy(file.path(), folder.join(file.file_name())).unwrap();
    }
    let pass = ["LAW_FAULTS", "LAW_ONLY"].map(|name| format!("{name}='{}'", std::env::var(name).unwrap_or_default())).join(" ");
    let disks = host.disks().join(" ");
    host.sh(&format!("{pass} LAW_TABLE={ON_HOST} LAW_DISKS='{disks}' {ON_HOST}/test --exact {test} --nocapture"))
}

/// Not a test of its own: what `Fault::Killed` starts, to be killed.
#[test]
fn a_run_that_is_killed() {
    let Ok(task) = std::env::var("LAW_KILL") else { return };
    let words: Vec<&str> = task.splitn(3, ' ').collect();
    let (number, mutation): (u64, u64) = (words[0].parse().unwrap(), words[1].parse().unwrap());
    let groups = table::groups();
    let group = groups.iter().find(|group| group.cases.iter().any(|case| case.number == number)).unwrap();
    let case = group.cases.iter().find(|case| case.number == number).unwrap();
    let machine = Machine { root: words[2].into(), place: group.place, known: Mutex::default(), _folder: None };
    let sys = machine.system();
    sys.kill_at(mutation);
    let done = machine.change(&sys, case);
    println!("{done:?}");
}
