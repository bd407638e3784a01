//! Real commands. Each gets its own process group, a fixed environment, nothing of the agent's files, and a deadline; its output is
//! passed on as it comes and kept within bounds.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::process::{Pid, PidfdFlags, Signal};

use super::{Command, Exec, Output, System};
use crate::diagnostic::{Code, Diagnostic, Result};

/// Of each stream so much is kept: half of it from the beginning, half from the end.
pub const KEPT: usize = 1 << 20;
/// From the polite signal to the other one.
const GRACE: Duration = Duration::from_secs(3);
/// How long the streams of a command that has ended are listened to, when a child of it still holds them open and says nothing.
const LINGER: Duration = Duration::from_millis(200);
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs commands on this machine, below a root (by `chroot`, where it is not `/`).
pub struct HostExec {
    names: System,
    own: Plain,
}

/// As the agent's own user.
#[derive(Clone)]
struct Plain {
    root: PathBuf,
    kill: Arc<AtomicBool>,
}

/// Another user, looked up.
struct Become {
    uid: u32,
    gid: u32,
    groups: Vec<Gid>,
    name: String,
    home: String,
    shell: String,
}

impl HostExec {
    /// `kill` ends the command that runs, now.
    pub fn new(root: &Path, kill: Arc<AtomicBool>) -> HostExec {
        let own = Plain { root: root.to_owned(), kill };
        HostExec { names: System::at(root, Box::new(own.clone())), own }
    }

    fn look_up(&self, command: &Command) -> Result<Option<Become>> {
        let unknown = |what: &str, name: &str| {
            Diagnostic::new(Code::Failed, format!("{what} {name} is not available")).hint("a state that makes it must be required")
        };
        if command.user.is_none() && command.group.is_none() {
            return Ok(None);
        }
        let own = rustix::process::geteuid().as_raw();
        let name = command.user.clone().unwrap_or_else(|| self.names.user_name(own));
        let user = self.names.user(&name)?.ok_or_else(|| unknown("User", &name))?;
        let mut gid = user.gid;
        if let Some(group) = &command.group {
            gid = self.names.gid(group)?.ok_or_else(|| unknown("Group", group))?;
        }
        let mut groups = self.names.supplementary(&name)?;
        groups.push(gid);
        groups.sort_unstable();
        groups.dedup();
        let groups = groups.into_iter().map(Gid::from_raw).collect();
        Ok(Some(Become { uid: user.uid, gid, groups, name, home: user.home, shell: user.shell }))
    }
}

impl Exec for HostExec {
    fn run(&self, command: &Command, output: &mut dyn FnMut(&[u8])) -> Result<Output> {
        self.own.start(command, self.look_up(command)?, output)
    }
}

impl Exec for Plain {
    fn run(&self, command: &Command, output: &mut dyn FnMut(&[u8])) -> Result<Output> {
        self.start(command, None, output)
    }
}

impl Plain {
    fn start(&self, command: &Command, user: Option<Become>, output: &mut dyn FnMut(&[u8])) -> Result<Output> {
        let Some((program, args)) = command.argv.split_first() else {
            return Err(Diagnostic::new(Code::Failed, "there is no command to run").into());
        };
        let failed = |e: io::Error| {
            let error = Diagnostic::io(format!("run {program}"), &e);
            if e.kind() == io::ErrorKind::NotFound { error.hint("the program is not on the host, or not in its PATH") } else { error }
        };
        let mut process = std::process::Command::new(program);
        process.args(args).env_clear().envs(environment(user.as_ref())).envs(command.env.iter().map(|(k, v)| (k, v)));
        process.stdin(if command.stdin.is_empty() { Stdio::null() } else { Stdio::piped() });
        process.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let before = self.in_child(command, user).map_err(failed)?;
        // SAFETY: between fork and exec the closure makes system calls on what was prepared before, and allocates nothing.
        unsafe { process.pre_exec(before) };
        let child = process.spawn().map_err(failed)?;
        let pid = child.id();
        let ended = watch(child, command, &self.kill, output).map_err(failed)?;
        Ok(Output { pid, ..ended })
    }

    /// What the child does between fork and exec.
    fn in_child(&self, command: &Command, user: Option<Become>) -> io::Result<impl FnMut() -> io::Result<()> + use<>> {
        let c = |path: &str| CString::new(path).map_err(io::Error::other);
        let root = match self.root == Path::new("/") {
            true => None,
            false => Some(CString::new(self.root.as_os_str().as_encoded_bytes()).map_err(io::Error::other)?),
        };
        // Without a wish it is the user's home, as a login would have it.
        let home = user.as_ref().map_or_else(own_home, |u| u.home.clone());
        let wish = command.cwd.as_deref().map(c).transpose()?;
        let home = c(&home)?;
        let umask = command.umask;
        Ok(move || {
            // Ignored signals stay ignored over exec; programs expect them as they are at boot.
            for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGPIPE] {
                // SAFETY: no handler is given.
                unsafe { libc::signal(signal, libc::SIG_DFL) };
            }
            if let Some(root) = &root {
                rustix::process::chroot(root)?;
                rustix::process::chdir(c"/")?;
            }
            if let Some(umask) = umask {
                rustix::process::umask(Mode::from_raw_mode(umask));
            }
            if let Some(user) = &user {
                rustix::thread::set_thread_groups(&user.groups)?;
                rustix::thread::set_thread_gid(Gid::from_raw(user.gid))?;
                rustix::thread::set_thread_uid(Uid::from_raw(user.uid))?;
            }
            match &wish {
                Some(wish) => rustix::process::chdir(wish)?,
                None => rustix::process::chdir(&home).or_else(|_| rustix::process::chdir(c"/"))?,
            }
            Ok(())
        })
    }
}

fn own_home() -> String {
    std::env::var("HOME").ok().filter(|home| home.starts_with('/')).unwrap_or_else(|| "/root".into())
}

/// The same on every host and for every controller, whatever the session brought along.
fn environment(user: Option<&Become>) -> BTreeMap<&'static str, String> {
    let (name, home, shell) = match user {
        Some(user) => (user.name.clone(), user.home.clone(), user.shell.clone()),
        None if rustix::process::geteuid().is_root() => ("root".into(), own_home(), String::new()),
        None => (std::env::var("USER").unwrap_or_default(), own_home(), String::new()),
    };
    let shell = if shell.is_empty() { "/bin/sh".into() } else { shell };
    [("PATH", PATH.into()), ("LANG", "C.UTF-8".into()), ("HOME", home), ("USER", name.clone()), ("LOGNAME", name), ("SHELL", shell)].into()
}

/// Feeds and listens to a child until it has ended.
fn watch(mut child: Child, command: &Command, kill: &AtomicBool, output: &mut dyn FnMut(&[u8])) -> io::Result<Output> {
    let pid = Pid::from_child(&child);
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok();
    let (mut stdin, mut stdout, mut stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    for fd in [stdin.as_ref().map(AsFd::as_fd), stdout.as_ref().map(AsFd::as_fd), stderr.as_ref().map(AsFd::as_fd)].into_iter().flatten() {
        rustix::fs::fcntl_setfl(fd, rustix::fs::fcntl_getfl(fd)? | OFlags::NONBLOCK)?;
    }
    let deadline = command.timeout.map(|t| Instant::now() + t);
    let mut input = command.stdin.as_slice();
    let (mut out, mut err) = (Kept::default(), Kept::default());
    let mut ended: Option<(std::process::ExitStatus, Instant)> = None;
    // When the polite signal was sent, and whether the other one was.
    let (mut asked, mut killed, mut timed_out) = (None::<Instant>, false, false);
    loop {
        let mut moved = false;
        if input.is_empty() {
            stdin = None;
        }
        if let Some(pipe) = &mut stdin {
            match pipe.write(input) {
                Ok(n) => input = input.get(n..).unwrap_or_default(),
                Err(e) if again(&e) => {}
                // It does not want to read any more.
                Err(_) => stdin = None,
            }
        }
        moved |= drain(&mut stdout, &mut out, output)?;
        moved |= drain(&mut stderr, &mut err, output)?;
        let now = Instant::now();
        if ended.is_none() {
            ended = child.try_wait()?.map(|status| (status, now));
        }
        match &mut ended {
            Some((_, quiet)) if moved => *quiet = now,
            Some((status, quiet)) if (stdout.is_none() && stderr.is_none()) || now - *quiet >= LINGER || killed => {
                // What was to end ends whole, whoever of it did not hear the polite signal.
                if asked.is_some() {
                    let _ = rustix::process::kill_process_group(pid, Signal::KILL);
                }
                return Ok(result(*status, out, err, timed_out));
            }
            Some(_) => {}
            None => {
                let late = deadline.is_some_and(|d| now >= d);
                if asked.is_none() && (late || kill.load(Ordering::Relaxed)) {
                    timed_out = late;
                    asked = Some(now);
                    let _ = rustix::process::kill_process_group(pid, Signal::TERM);
                } else if !killed && asked.is_some_and(|at| now - at >= GRACE) {
                    killed = true;
                    let _ = rustix::process::kill_process_group(pid, Signal::KILL);
                }
            }
        }
        if !moved {
            let mut wait = Duration::from_millis(if pidfd.is_some() && ended.is_none() { 200 } else { 20 });
            if let Some(d) = deadline.filter(|_| asked.is_none()) {
                wait = wait.min(d.saturating_duration_since(now));
            }
            let pidfd = pidfd.as_ref().filter(|_| ended.is_none());
            wait_for(
                stdin.as_ref().map(AsFd::as_fd),
                [stdout.as_ref().map(AsFd::as_fd), stderr.as_ref().map(AsFd::as_fd), pidfd.map(AsFd::as_fd)],
                wait,
            )?;
        }
    }
}

/// Until one of them can be written or read, or the time is over.
fn wait_for(write: Option<BorrowedFd>, read: [Option<BorrowedFd>; 3], time: Duration) -> io::Result<()> {
    let mut fds: Vec<PollFd> = read.into_iter().flatten().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    fds.extend(write.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::OUT)));
    let time = Timespec { tv_sec: 0, tv_nsec: time.as_nanos().min(999_999_999) as _ };
    match poll(&mut fds, Some(&time)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Reads one piece of what is there; whether there was something. Closed pipes become `None`.
fn drain(pipe: &mut Option<impl Read>, kept: &mut Kept, output: &mut dyn FnMut(&[u8])) -> io::Result<bool> {
    let Some(open) = pipe else { return Ok(false) };
    let mut buffer = [0; 16 << 10];
    match open.read(&mut buffer) {
        Ok(0) => *pipe = None,
        Ok(n) => {
            let piece = buffer.get(..n).unwrap_or_default();
            output(piece);
            kept.add(piece);
        }
        Err(e) if again(&e) => return Ok(false),
        Err(e) => return Err(e),
    }
    Ok(true)
}

fn again(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn result(status: std::process::ExitStatus, out: Kept, err: Kept, timed_out: bool) -> Output {
    let status = status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap_or(-1);
    Output { status, pid: 0, stdout: out.whole(), stderr: err.whole(), timed_out }
}

/// The beginning and the end of a stream.
#[derive(Default)]
struct Kept {
    head: Vec<u8>,
    tail: Vec<u8>,
    cut: usize,
}

impl Kept {
    fn add(&mut self, piece: &[u8]) {
        let room = (KEPT / 2).saturating_sub(self.head.len()).min(piece.len());
        let (head, rest) = piece.split_at(room);
        self.head.extend_from_slice(head);
        self.tail.extend_from_slice(rest);
        // Now and then, so that not every piece moves the whole tail.
        if self.tail.len() > KEPT {
            self.trim();
        }
    }

    fn trim(&mut self) {
        let over = self.tail.len().saturating_sub(KEPT / 2);
        self.tail.drain(..over);
        self.cut += over;
    }

    fn whole(mut self) -> Vec<u8> {
        self.trim();
        if self.cut > 0 {
            self.head.extend_from_slice(format!("\n[… {} bytes left out …]\n", self.cut).as_bytes());
        }
        self.head.append(&mut self.tail);
        self.head
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exec() -> HostExec {
        HostExec::new(Path::new("/"), Arc::default())
    }

    fn sh(script: &str) -> Command {
        Command::new(["sh", "-c", script])
    }

    fn run(command: &Command) -> Output {
        exec().run(command, &mut |_| {}).unwrap()
    }

    #[test]
    fn status_streams_and_input_are_told_apart() {
        let mut seen = Vec::new();
        let command = Command { stdin: vec![b'x'; 300_000], ..sh("wc -c; echo no >&2; exit 3") };
        let output = exec().run(&command, &mut |piece| seen.extend_from_slice(piece)).unwrap();
        assert_eq!((output.status, output.text().as_str(), output.stderr.as_slice()), (3, "300000", &b"no\n"[..]));
        assert_eq!(seen.len(), "300000\nno\n".len());
        assert_eq!(run(&sh("kill -9 $$")).status, 137);
    }

    #[test]
    fn the_environment_is_fixed_and_signals_are_as_at_boot() {
        let output = run(&Command {
            env: vec![("A".into(), "1".into())],
            cwd: Some("/usr".into()),
            umask: Some(0o27),
            ..sh("env | sort; pwd; umask; grep SigIgn /proc/self/status")
        });
        let text = output.text();
        assert!(text.contains("A=1\n") && text.contains("LANG=C.UTF-8\n") && text.contains("\n/usr\n0027\n"), "{text}");
        // Signal 32 is the C library's own.
        let ignored = u64::from_str_radix(text.rsplit('\t').next().unwrap(), 16).unwrap() & 0x7fff_ffff;
        assert!(!text.contains("CARGO") && ignored == 0, "{text}");
    }

    #[test]
    fn a_deadline_ends_the_whole_group() {
        let begun = Instant::now();
        let output = run(&Command { timeout: Some(Duration::from_millis(200)), ..sh("sleep 100 & sleep 100") });
        assert!(output.timed_out && !output.success() && begun.elapsed() < Duration::from_secs(2), "{output:?} {:?}", begun.elapsed());
    }

    #[test]
    fn kill_ends_what_runs() {
        let kill = Arc::new(AtomicBool::new(false));
        let exec = HostExec::new(Path::new("/"), kill.clone());
        let begun = Instant::now();
        let output = exec.run(&sh("echo up; sleep 100"), &mut |_| kill.store(true, Ordering::Relaxed)).unwrap();
        assert!(output.status == 143 && !output.timed_out && begun.elapsed() < Duration::from_secs(2), "{output:?}");
    }

    #[test]
    fn a_daemon_left_behind_is_not_waited_for() {
        let begun = Instant::now();
        let output = run(&sh("sleep 5 & echo started"));
        assert_eq!(output.text(), "started");
        assert!(begun.elapsed() < Duration::from_secs(3));
    }

    #[test]
    fn long_output_loses_its_middle_and_says_so() {
        let output = run(&sh("echo first; head -c 5000000 /dev/zero; echo last"));
        assert!(output.stdout.len() < KEPT + 100, "{}", output.stdout.len());
        assert!(output.stdout.starts_with(b"first\n") && output.stdout.ends_with(b"last\n"));
        assert!(String::from_utf8_lossy(&output.stdout).contains("[… 3951435 bytes left out …]"));
    }

    #[test]
    fn what_cannot_start_is_an_error_with_a_reason() {
        for command in [Command::new(["/no/such/program"]), Command::default(), Command { user: Some("no-such-user".into()), ..sh("true") }]
        {
            assert_eq!(exec().run(&command, &mut |_| {}).unwrap_err().code, Code::Failed);
        }
    }

    #[test]
    fn another_user_is_one_with_all_its_groups_and_none_of_ours() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let output =
            run(&Command { user: Some("nobody".into()), ..sh("id -u; id -G; echo $USER $HOME; cat /proc/self/status | grep ^Groups") });
        let text = output.text();
        assert!(text.starts_with("65534\n65534\nnobody /nonexistent\n"), "{text}");
    }
}
