//! Confirm or be taken back: before a change that can cut the connection, a process is started that outlives the session. It inherits the
//! lock, waits for the end of the run, and takes the run back by itself unless, in time, somebody reaches the host anew and says so.
//!
//! Session and guard speak over a socket pair: a byte says that the run has come to its end, from where the time counts. When the session goes
//! without it (killed together with sshd, told to stop, or it has not heard the controller for too long) the run is taken back at once. Who
//! comes over a new connection says on the guard's own socket whether the run is to stay. The guard, which is one thread, decides: exactly
//! one of the two happens.
//!
//! `guard.json` in the state directory says that a run waits to be confirmed. It is there before the first change and goes with the
//! confirmation or when the run is taken back. Where there is systemd, a unit goes with it that takes the run back at the next boot:
//! whoever cannot reach a host restarts it.

pub mod table;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use super::history;
use super::lock::Lock;
use super::planner::{Decision, Turn};
use super::protocol::{Applied, RollbackRequest, RunState, Settled};
use super::revert;
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::function::Run;
use crate::plan::{Hash, Key, Kind, Low, RunHeader, Step};
use crate::system::{Contents, HostExec, STATE_DIR, System};
use crate::value::Value;
use table::Cuts;

/// How long a guard may take to start.
const START: Duration = Duration::from_secs(5);
/// Between two attempts at taking a run back, and how many there are.
const AGAIN: Duration = Duration::from_secs(5);
const ATTEMPTS: usize = 3;
/// What confirms a run.
const KEEP: &[u8; 1] = b"k";
/// The unit that goes on after a boot, and the link that has it started.
const UNIT: &str = "/etc/systemd/system/basalt-guard.service";
const WANTED: &str = "/etc/systemd/system/multi-user.target.wants/basalt-guard.service";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a guard is to do; stands in `guard.json`.
#[derive(Serialize, Deserialize)]
struct Order {
    run: RunHeader,
    /// From the end of the run until it is taken back.
    seconds: u64,
}

impl Order {
    fn read(sys: &System) -> Option<Order> {
        serde_json::from_slice(&fs::read(mark(sys)).ok()?).ok()
    }

    fn write(&self, sys: &System) -> io::Result<()> {
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(mark(sys))?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        File::open(sys.path(STATE_DIR))?.sync_all()
    }
}

fn mark(sys: &System) -> PathBuf {
    sys.path(STATE_DIR).join("guard.json")
}

fn socket(sys: &System) -> PathBuf {
    sys.path(STATE_DIR).join("guard.sock")
}

// --- the plan --------------------------------------------------------------------------------------------------------------------

/// Says of the steps of a plan which of them can cut the connection, and why.
pub fn mark_steps(sys: &System, lows: &[Low], turns: &[Turn], steps: &mut [Step]) {
    let Some(cuts) = steps.first().and_then(|_| Cuts::of(sys)) else { return };
    let mut reasons: BTreeMap<usize, &str> = BTreeMap::new();
    // Scripts that may not run, too, so that no exchange is needed for each of them.
    let acts = |turn: &&Turn| matches!(turn.decision, Decision::Do(_) | Decision::Unknown { .. });
    let scripts = turns.iter().filter(acts).filter_map(|turn| lows.get(turn.low)).flat_map(scripts).cloned();
    let scripts: Vec<Hash> = scripts.filter(|hash| !sys.contents().has(hash)).collect();
    let _ = if scripts.is_empty() { Ok(()) } else { sys.contents().fetch(&scripts) };
    for turn in turns {
        if let Some(why) = lows.get(turn.low).and_then(|low| cuts.turn(sys.contents(), low, &turn.decision)) {
            reasons.entry(turn.low).or_insert(why);
        }
    }
    for step in steps {
        step.guard = reasons.get(&step.low).map(|why| (*why).to_owned());
    }
}

/// The scripts that a state runs.
fn scripts(low: &Low) -> impl Iterator<Item = &Hash> {
    low.contents.iter().filter(|_| low.state == "cmd").map(|content| &content.hash)
}

impl Cuts {
    fn turn(&self, contents: &Contents, low: &Low, decision: &Decision) -> Option<&'static str> {
        match decision {
            Decision::Do(deed) => {
                let changes = deed.changes.iter().find_map(|change| self.change(&change.key, &change.from, &change.to));
                let run = || deed.run.as_ref().filter(|run| run.pretended.is_none());
                changes.or_else(|| run().and_then(|run| self.run(run))).or_else(|| self.script(contents, low))
            }
            Decision::Unknown { keys, reaction, .. } => {
                let reaction = reaction.as_ref().and_then(|run| self.run(run));
                let meant = || self.meant(low).or_else(|| self.script(contents, low));
                reaction.or_else(|| keys.iter().find_map(|key| self.key(key, false))).or_else(meant)
            }
            // What it saw failing may be put right by a command before its turn.
            Decision::Fail(_) => self.meant(low),
            _ => None,
        }
    }

    fn run(&self, run: &Run) -> Option<&'static str> {
        let stdin = || self.command(&String::from_utf8_lossy(&run.command.stdin));
        self.command(&run.shown).or_else(|| self.command(&run.command.argv.join(" "))).or_else(stdin)
    }

    /// By what a script from the repository says.
    fn script(&self, contents: &Contents, low: &Low) -> Option<&'static str> {
        scripts(low).find_map(|hash| self.command(&String::from_utf8_lossy(&contents.bytes(hash).ok()?)))
    }

    /// By what a state names, where nothing else is known of it yet.
    fn meant(&self, low: &Low) -> Option<&'static str> {
        let named = |kind| self.key(&Key::new(kind, low.name.as_str()), true);
        let arg = |name: &str| low.args.get(name).and_then(|names| self.packages(names));
        match low.state.as_str() {
            "cmd" | "module" => self.command(&low.name).or_else(|| self.command(&serde_json::to_string(&low.args).unwrap_or_default())),
            "pkg" => self.packages(&Value::from(low.name.as_str())).or_else(|| arg("pkgs")).or_else(|| arg("sources")),
            "service" => named(Kind::Service),
            "user" => named(Kind::User),
            "group" => named(Kind::Group),
            "iptables" => named(Kind::Iptables),
            _ => named(Kind::File),
        }
    }
}

/// What the next plan has to say of a run that nobody has confirmed.
pub fn notice(sys: &System) -> Option<String> {
    let Order { run: RunHeader { id, who, .. }, .. } = Order::read(sys)?;
    Some(match Lock::is_held(sys) {
        true => format!("run {id} by {who} waits to be confirmed, or is being taken back"),
        false => format!("run {id} by {who} was never confirmed and its guard is gone; `basalt rollback --run {id}` takes it back"),
    })
}

// --- the session's side ----------------------------------------------------------------------------------------------------------

/// A guard that watches over the run of this session. Dropped before the run has ended, it takes the run back.
pub struct Guard {
    control: UnixStream,
}

impl Guard {
    /// Starts a guard for a run that is about to begin; from now on the lock is the guard's too.
    pub fn start(sys: &System, run: &RunHeader, seconds: u64, lock: &Lock) -> Result<Guard> {
        let failed = |why: &dyn std::fmt::Display| {
            Diagnostic::new(Code::Failed, format!("the guard of this run could not be started: {why}"))
                .detail("Nothing was changed: the run can cut the connection, and would not be taken back then.")
        };
        let agent = std::env::current_exe().map_err(|e| failed(&e))?;
        Order { run: run.clone(), seconds }.write(sys).map_err(|e| failed(&e))?;
        let systemd = sys.path("/run/systemd/system").is_dir() && rustix::process::geteuid().is_root();
        if systemd {
            // Without it a reboot keeps what was changed, which the next plan tells.
            let _ = at_next_boot(sys, &agent);
        }
        let mut why = String::new();
        // In a scope of its own it stays when the session's processes are ended; where systemd does not answer, it is a session of its own at least.
        for scope in [true, false].into_iter().filter(|scope| systemd || !scope) {
            let mut command = match scope {
                true => {
                    let mut command = Command::new("systemd-run");
                    let unit = format!("--unit=basalt-guard-{}", run.id);
                    command.args(["--scope", "--quiet", "--collect", "--no-ask-password", &unit, "--"]).arg(&agent);
                    command
                }
                false => Command::new(&agent),
            };
            command.args(["guard", "--root"]).arg(sys.root()).env("PATH", PATH).current_dir("/");
            match started(command, lock) {
                Ok(control) => return Ok(Guard { control }),
                Err(e) => why = e.to_string(),
            }
        }
        forget(sys);
        Err(failed(&why).into())
    }

    /// The run has come to its end: the time to confirm it begins.
    pub fn ended(mut self) {
        // A guard that is gone is seen by who comes to confirm.
        let _ = self.control.write_all(b"e");
    }
}

/// Starts the guard's process and waits until it watches. Its standard input is the lock, its standard output the way to us.
fn started(mut command: Command, lock: &Lock) -> io::Result<UnixStream> {
    let (mut ours, theirs) = UnixStream::pair()?;
    command.stdin(lock.share()?).stdout(OwnedFd::from(theirs)).stderr(Stdio::null());
    let mut child = command.spawn()?;
    // The command holds the other end too, whose closing is to be heard.
    drop(command);
    ours.set_read_timeout(Some(START))?;
    match ours.read_exact(&mut [0]) {
        Ok(()) => Ok(ours),
        Err(e) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(e)
        }
    }
}

/// Has the run taken back at the next boot.
fn at_next_boot(sys: &System, agent: &Path) -> io::Result<()> {
    // What lies in memory is not there then.
    if ["/run", "/dev", "/tmp"].iter().any(|memory| agent.starts_with(memory)) {
        return Ok(());
    }
    let text = format!(
        "[Unit]\nDescription=Takes back a run of basalt that nobody has confirmed\nConditionPathExists={STATE_DIR}/guard.json\n\
         [Service]\nExecStart={} guard --boot\n",
        agent.display()
    );
    let wanted = sys.path(WANTED);
    fs::write(sys.path(UNIT), text)?;
    match symlink(UNIT, &wanted) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => wanted.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all()),
    }
}

/// Nothing waits to be confirmed any more.
pub fn forget(sys: &System) {
    if !mark(sys).exists() {
        return;
    }
    // The mark goes last: what is left of the others is without effect then.
    for path in [sys.path(WANTED), sys.path(UNIT), socket(sys), mark(sys)] {
        let _ = fs::remove_file(path);
    }
    let _ = File::open(sys.path(STATE_DIR)).and_then(|folder| folder.sync_all());
}

/// Somebody has come over a new connection: tells the guard whether the run is to stay, waits for what it is about, and says how it ended.
pub fn confirm(sys: &System, run: &str, keep: bool) -> Result<Settled> {
    while Order::read(sys).is_some_and(|order| order.run.id == run) {
        if sys.cancelled() {
            return Err(Diagnostic::new(Code::Interrupted, "stopped before the run was confirmed").into());
        }
        if let Ok(mut guard) = UnixStream::connect(socket(sys)) {
            // It answers when it is done, or closes, because the run is still under way.
            let _ = guard.set_read_timeout(Some(START));
            let _ = guard.write_all(if keep { KEEP } else { b"n" }).and_then(|()| guard.read(&mut [0]));
        } else if !Lock::is_held(sys) {
            // The guard is gone without a word; whoever is here has reached the host.
            forget(sys);
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    settled(sys, run)
}

fn settled(sys: &System, run: &str) -> Result<Settled> {
    let runs = history::runs(sys)?;
    let Some(record) = runs.iter().find(|r| r.header.id == run) else { return Ok(Settled::NotBegun) };
    // One that was taken back in part is not marked so.
    let back = runs.iter().find(|r| r.header.rolls_back.iter().any(|id| id == run));
    Ok(match back {
        Some(back) => Settled::TakenBack { by: back.header.id.clone(), tally: back.tally, whole: back.state == RunState::Done },
        None => Settled::Confirmed(Applied {
            tally: record.tally,
            stopped: (record.state != RunState::Done && record.state != RunState::Failed).then(|| "it did not come to its end".to_owned()),
            generation: sys.generation()?,
        }),
    })
}

// --- the guard's side ------------------------------------------------------------------------------------------------------------

/// The guard's own process: `basalt-agent guard`.
pub fn watch(root: &Path) -> Result<()> {
    let failed = |e: io::Error| Diagnostic::io("watch over a run", &e);
    // It fails where we lead a session already.
    let _ = rustix::process::setsid();
    let sys = System::at(root, Box::new(HostExec::new(root, Default::default())));
    let order = Order::read(&sys).ok_or_else(|| Diagnostic::new(Code::Damaged, "there is no run to watch over"))?;
    let lock = Lock::inherited(io::stdin().as_fd().try_clone_to_owned().map_err(failed)?.into());
    let mut control = UnixStream::from(io::stdout().as_fd().try_clone_to_owned().map_err(failed)?);
    let _ = fs::remove_file(socket(&sys));
    let listener = UnixListener::bind(socket(&sys)).map_err(failed)?;
    control.write_all(b"s").map_err(failed)?;
    // A guard that cannot wait any more has not heard that the run is to stay.
    let confirmed = wait(Duration::from_secs(order.seconds), control, &listener).unwrap_or(None);
    drop(listener);
    match confirmed {
        Some(mut who) => {
            forget(&sys);
            let _ = who.write_all(b"c");
            Ok(())
        }
        None => take_back(&sys, &order, lock),
    }
}

/// After a boot: `basalt-agent guard --boot`.
pub fn boot(root: &Path) -> Result<()> {
    let sys = System::at(root, Box::new(HostExec::new(root, Default::default())));
    let Some(order) = Order::read(&sys) else { return Ok(()) };
    let lock = Lock::take(&sys, &order.run, Duration::ZERO)?;
    take_back(&sys, &order, lock)
}

/// Waits for whoever confirms the run. `None`: the session is gone before the end of the run, nobody came in time, or somebody does not
/// want it.
fn wait(time: Duration, control: UnixStream, listener: &UnixListener) -> io::Result<Option<UnixStream>> {
    let mut control = Some(control);
    let mut until = None;
    loop {
        let left = until.map(|until: Instant| until.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Ok(None);
        }
        let (said, came) = {
            let mut fds = vec![PollFd::new(listener, PollFlags::IN)];
            fds.extend(control.as_ref().map(|control| PollFd::new(control, PollFlags::IN)));
            let pause = left.unwrap_or(START).min(START);
            let pause = Timespec { tv_sec: pause.as_secs() as _, tv_nsec: pause.subsec_nanos() as _ };
            match poll(&mut fds, Some(&pause)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            (fds.get(1).is_some_and(|fd| !fd.revents().is_empty()), fds.first().is_some_and(|fd| !fd.revents().is_empty()))
        };
        if let Some(session) = control.as_mut().filter(|_| said) {
            match session.read(&mut [0]) {
                Ok(1) => until = Some(Instant::now() + time),
                _ if until.is_none() => return Ok(None),
                _ => control = None,
            }
        }
        if came {
            let (mut who, _) = listener.accept()?;
            who.set_read_timeout(Some(Duration::from_secs(1)))?;
            let mut word = [0];
            // While the run is under way there is nothing to confirm: they come again.
            if until.is_some() && who.read_exact(&mut word).is_ok() {
                return Ok((word == *KEEP).then_some(who));
            }
        }
    }
}

fn take_back(sys: &System, order: &Order, mut lock: Lock) -> Result<()> {
    let _ = fs::remove_file(socket(sys));
    for _ in 0..ATTEMPTS {
        match taken_back(sys, &order.run, &mut lock) {
            Ok(true) => {
                forget(sys);
                return Ok(());
            }
            Ok(false) => {}
            Err(_) => sys.abandon(),
        }
        std::thread::sleep(AGAIN);
    }
    // The mark stays: the next boot tries again, and the next plan tells.
    Err(Diagnostic::new(Code::Failed, format!("run {} could be taken back in part only", order.run.id)).into())
}

/// One attempt; whether all of it is as it was before.
fn taken_back(sys: &System, run: &RunHeader, lock: &mut Lock) -> Result<bool> {
    let runs = history::runs(sys)?;
    if runs.iter().find(|r| r.header.id == run.id).is_none_or(|record| record.rolled_back_by.is_some()) {
        return Ok(true);
    }
    let tried = runs.iter().filter(|r| r.header.rolls_back.contains(&run.id)).count();
    let back = run.taken_back(tried + 1);
    // By its own name: nobody is to think that the run itself is still under way.
    let _ = lock.name(&back);
    let rollback = revert::plan(sys, &RollbackRequest { run: run.id.clone(), with_later: false, destroy_data: false })?;
    let applied = revert::apply(sys, rollback, &back, &mut |_| {})?;
    Ok(applied.tally.failed == 0 && applied.stopped.is_none())
}
