//! Hosts over the user's own OpenSSH.
//!
//! A connection is an ssh process of its own, the master, that logs in, goes to the background and stays for a minute after its last use; the
//! agent is a session on it, opened through its socket without another process. So the next call finds the master and costs no
//! handshake. The user's ssh_config, agent, jump hosts and known_hosts hold; host keys are as strict as the user's configuration makes
//! them, and where that would ask, the answer is no.

mod fault;

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openssh::Session;
use rustix::fs::{FlockOperation, flock};
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use crate::diagnostic::{Code, Diagnostic, Error, Result};
use crate::engine::link::{Connect, Errors, Link, Opening, Wire};
use crate::fleet::Host;
use crate::plan::Hash;
use crate::remote::askpass::{self, Answers};
use crate::remote::{Settings, local, push};

/// Handshakes that may compute at the same time. One that waits for its host does not count for longer than `BURST`.
const HANDSHAKES: usize = 8;
const BURST: Duration = Duration::from_millis(500);
/// Seconds for which a master stays after its last session.
const PERSIST: u32 = 60;
/// How ssh ends when it is ssh itself that failed.
const NOT_CONNECTED: &str = "status 255";
/// A socket's path may have 104 bytes on some systems, of which ssh itself needs 17 while it makes one, and our names 17.
const LONGEST_DIRECTORY: usize = 69;

pub struct Ssh {
    settings: Settings,
    /// Where the masters' sockets are; nobody else's.
    directory: Result<PathBuf>,
    /// What ssh starts to ask for a password: this program itself.
    askpass: PathBuf,
    handshakes: Semaphore,
    questions: AtomicU64,
}

impl Ssh {
    pub fn new(settings: Settings) -> Ssh {
        // Where this program cannot be found, ssh says that it cannot ask.
        Ssh::at(settings, private_directory(), std::env::current_exe().unwrap_or_else(|_| "basalt".into()))
    }

    /// With sockets in a directory that is known to be private, and `askpass` as the program that calls `askpass::as_helper`.
    pub fn at(settings: Settings, directory: Result<PathBuf>, askpass: PathBuf) -> Ssh {
        Ssh { settings, directory, askpass, handshakes: Semaphore::new(HANDSHAKES), questions: AtomicU64::new(0) }
    }

    async fn start(&self, host: &Host) -> Result<Link> {
        let sudo_password = self.settings.sudo_password_of(host);
        let command = push::command(host, &self.settings.agents, sudo_password.is_some());
        let socket = self.socket(host)?;
        let tried = inode(&socket);
        let wire = match self.warm(&socket, &command, host).await {
            Some(wire) => wire,
            None => self.cold(&socket, &command, host, tried).await?,
        };
        push::start(wire, host, &self.settings.agents, sudo_password).await
    }

    /// An ssh of its own, which no master helps: whether the host can still be reached is what it is to show.
    async fn start_anew(&self, host: &Host) -> Result<Link> {
        let sudo_password = self.settings.sudo_password_of(host);
        let answers = self.answers(self.directory.as_ref().map_err(Error::clone)?, host)?;
        let mut command = Command::new("ssh");
        command.args(self.login(None, host)?);
        command.args(["-T", "--", &host.address, &push::command(host, &self.settings.agents, sudo_password.is_some())]);
        self.ask_us(&mut command, &answers);
        let wire = local::spawn(command, self.settings.silence)?;
        let errors = wire.errors.clone();
        push::start(wire, host, &self.settings.agents, sudo_password).await.map_err(|error| match error.detail.contains(NOT_CONNECTED) {
            true => fault::explain(host, &errors.text(), &answers.asked(), self.settings.password_of(host).is_some()),
            false => error,
        })
    }

    /// Who answers what one ssh asks.
    fn answers(&self, directory: &Path, host: &Host) -> Result<Answers> {
        let number = self.questions.fetch_add(1, Ordering::Relaxed);
        let questions = directory.join(format!("ask-{:x}-{number:x}", std::process::id()));
        let password = self.settings.password_of(host).cloned();
        Answers::serve(questions, password, host.key_password.clone())
            .map_err(|error| Diagnostic::io("make a socket to answer ssh", &error).into())
    }

    fn ask_us(&self, ssh: &mut Command, answers: &Answers) {
        ssh.env("SSH_ASKPASS", &self.askpass).env("SSH_ASKPASS_REQUIRE", "force").env(askpass::SOCKET, answers.socket());
    }

    /// One master for all that would log in alike.
    fn socket(&self, host: &Host) -> Result<PathBuf> {
        let same = format!("{:?}", (&host.address, &host.user, host.port, &host.key, &host.ssh_options, &host.host_keys));
        let directory = self.directory.as_ref().map_err(Error::clone)?;
        Ok(directory.join(Hash::of(same.as_bytes()).0.get(..16).unwrap_or_default()))
    }

    /// A session on a master that is there. `None`: there is none that works.
    async fn warm(&self, socket: &Path, command: &str, host: &Host) -> Option<Wire> {
        inode(socket)?;
        // A master whose connection has died without notice takes the session and never opens it.
        let patience = self.settings.timeout_of(host).min(Duration::from_secs(5));
        match timeout(patience, self.session(socket, command)).await {
            Ok(Ok(wire)) => Some(wire),
            Ok(Err(_)) | Err(_) => None,
        }
    }

    async fn cold(&self, socket: &Path, command: &str, host: &Host, tried: Option<u64>) -> Result<Wire> {
        let deadline = Instant::now() + self.settings.timeout_of(host) * 3;
        // Two masters for one socket would leave one of them behind for ever.
        let lock = self.lock(socket)?;
        while flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            if Instant::now() > deadline {
                return Err(fault::silent(host, "another basalt has been connecting to it all that time"));
            }
            sleep(Duration::from_millis(20)).await;
        }
        // Somebody else may have made one while we waited; the one that did not work is not tried twice.
        if inode(socket) != tried
            && let Some(wire) = self.warm(socket, command, host).await
        {
            return Ok(wire);
        }
        // What is there now answers to nobody.
        let _ = std::fs::remove_file(socket);
        self.log_in(socket, host, deadline).await?;
        drop(lock);
        match timeout(self.settings.timeout_of(host), self.session(socket, command)).await {
            Ok(session) => session.map_err(|error| no_session(host, &error)),
            Err(_) => Err(fault::silent(host, "the login worked, and then no session was opened")),
        }
    }

    fn lock(&self, socket: &Path) -> Result<File> {
        let path = socket.with_extension("lock");
        File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| Diagnostic::io(format!("open {}", path.display()), &error).into())
    }

    /// Starts a master and waits until it has logged in and gone to the background.
    async fn log_in(&self, socket: &Path, host: &Host, deadline: Instant) -> Result<()> {
        let turn = self.handshakes.acquire().await;
        let answers = self.answers(socket.parent().unwrap_or(socket), host)?;

        let mut command = Command::new("ssh");
        let login = self.login(Some(socket), host)?;
        command.args(login).args(["-N", "-f", "--", &host.address]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        self.ask_us(&mut command, &answers);
        // Ctrl-C at the terminal is for basalt, not for the masters.
        command.process_group(0).kill_on_drop(true);
        let mut ssh = command.spawn().map_err(|error| fault::no_ssh(&error))?;
        let errors = Errors::default();
        let collecting = ssh.stderr.take().map(|stderr| tokio::spawn(errors.clone().collect(stderr)));

        let mut turn = turn.ok();
        let burst = sleep(BURST);
        tokio::pin!(burst);
        let ended = loop {
            tokio::select! {
                ended = ssh.wait() => break ended,
                () = &mut burst, if turn.is_some() => turn = None,
                () = tokio::time::sleep_until(deadline) => {
                    let _ = ssh.start_kill();
                    return Err(fault::silent(host, &errors.text()));
                }
            }
        };
        match ended {
            Ok(status) if status.success() => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(fault::no_ssh(&error)),
        }
        // The last words may still be on their way.
        if let Some(collecting) = collecting {
            let _ = timeout(Duration::from_millis(200), collecting).await;
        }
        Err(fault::explain(host, &errors.text(), &answers.asked(), self.settings.password_of(host).is_some()))
    }

    fn login(&self, master: Option<&Path>, host: &Host) -> Result<Vec<String>> {
        let known = self.known_hosts(host)?;
        Ok(login(master, host, known.as_deref(), self.settings.identity_of(host), self.settings.timeout_of(host)))
    }

    /// A known_hosts of its own for a host whose keys are known here.
    fn known_hosts(&self, host: &Host) -> Result<Option<PathBuf>> {
        if host.host_keys.is_empty() {
            return Ok(None);
        }
        let text: String = host.host_keys.iter().map(|key| format!("{} {key}\n", host.id)).collect();
        let name = Hash::of(text.as_bytes()).0;
        let path = self.directory.as_ref().map_err(Error::clone)?.join(format!("known-{}", name.get(..16).unwrap_or(&name)));
        std::fs::write(&path, text).map_err(|error| Diagnostic::io(format!("write {}", path.display()), &error))?;
        Ok(Some(path))
    }

    /// The command as a session of the master at that socket.
    async fn session(&self, socket: &Path, command: &str) -> std::result::Result<Wire, openssh::Error> {
        let session = Arc::new(Session::resume_mux(socket.into(), None));
        let piped = openssh::Stdio::piped;
        let mut child = Session::to_raw_command(session, command).stdin(piped()).stdout(piped()).stderr(piped()).spawn().await?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin().take(), child.stdout().take(), child.stderr().take()) else {
            return Err(openssh::Error::Disconnected);
        };
        let errors = Errors::default();
        tokio::spawn(errors.clone().collect(stderr));
        let end = async move {
            match child.wait().await {
                Ok(status) => local::ended(status),
                Err(openssh::Error::Remote(_)) => "the command was not found (status 127)".into(),
                Err(error) => error.to_string(),
            }
        };
        let mut wire = Wire::new(stdin, stdout, errors, end);
        wire.silence = self.settings.silence;
        Ok(wire)
    }
}

impl Connect for Ssh {
    fn open<'a>(&'a self, host: &'a Host) -> Opening<'a> {
        Box::pin(self.start(host))
    }

    fn open_anew<'a>(&'a self, host: &'a Host) -> Opening<'a> {
        Box::pin(self.start_anew(host))
    }
}

fn inode(socket: &Path) -> Option<u64> {
    std::fs::metadata(socket).ok().map(|there| there.ino())
}

/// How an ssh logs in: as a master with this socket, or for itself alone. The first value of an option counts, so the roster's come first.
fn login(master: Option<&Path>, host: &Host, known: Option<&Path>, identity: Option<&Path>, patience: Duration) -> Vec<String> {
    let mut args: Vec<String> = Vec::new();
    let mut option = |text: String| args.extend(["-o".to_owned(), text]);
    if master.is_none() {
        // Before the roster's: a master of the user's own is an old connection too.
        ["ControlPath=none", "ControlMaster=no"].map(str::to_owned).into_iter().for_each(&mut option);
    }
    host.ssh_options.iter().cloned().for_each(&mut option);
    if let Some(socket) = master {
        option(format!("ControlPath={}", socket.display().to_string().replace('%', "%%")));
        option(format!("ControlPersist={PERSIST}"));
    }
    option(format!("ConnectTimeout={}", patience.as_secs().max(1)));
    for fixed in [
        "ControlMaster=yes",
        "ConnectionAttempts=1",
        "NumberOfPasswordPrompts=1",
        "ServerAliveInterval=10",
        "ServerAliveCountMax=3",
        "ClearAllForwardings=yes",
        "ForwardX11=no",
        "PermitLocalCommand=no",
        "RemoteCommand=none",
        "RequestTTY=no",
        "LogLevel=INFO",
    ] {
        option(fixed.to_owned());
    }
    if let Some(known) = known {
        let file = quoted(&known.display().to_string());
        for pinned in [format!("UserKnownHostsFile={file}"), format!("HostKeyAlias={}", host.id)] {
            option(pinned);
        }
        for strict in ["GlobalKnownHostsFile=/dev/null", "StrictHostKeyChecking=yes", "UpdateHostKeys=no"] {
            option(strict.to_owned());
        }
    }
    if let Some(key) = host.key.clone().or_else(|| identity.map(|key| key.display().to_string())) {
        option(format!("IdentityFile={}", quoted(&key)));
        if host.key.is_none() {
            option("IdentitiesOnly=yes".to_owned());
        }
    }
    if let Some(user) = &host.user {
        args.extend(["-l".to_owned(), user.clone()]);
    }
    if let Some(port) = host.port {
        args.extend(["-p".to_owned(), port.to_string()]);
    }
    args
}

/// A path as one word of ssh's configuration. `%` stays what it is there: `%d` and its like are Salt users' too.
fn quoted(path: &str) -> String {
    if path.contains(' ') { format!("\"{path}\"") } else { path.to_owned() }
}

fn no_session(host: &Host, error: &openssh::Error) -> Error {
    let mut why = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        why = format!("{why}: {inner}");
        source = inner.source();
    }
    Diagnostic::new(Code::Unreachable, format!("{} let us in and then opened no session", host.address))
        .detail(why)
        .hint("MaxSessions, ForceCommand or a restricted account in its sshd_config can do that")
        .into()
}

/// The first place for sockets that is short enough and nobody else's.
fn private_directory() -> Result<PathBuf> {
    let uid = rustix::process::getuid().as_raw();
    let below = |variable: &str, path: &str| std::env::var_os(variable).map(|dir| PathBuf::from(dir).join(path));
    let candidates = [below("XDG_RUNTIME_DIR", "basalt"), below("HOME", ".cache/basalt/ssh"), Some(format!("/tmp/basalt-{uid}").into())];
    let mut reasons = Vec::new();
    for directory in candidates.into_iter().flatten() {
        match make_private(&directory, uid) {
            Ok(()) => return Ok(directory),
            Err(error) => reasons.push(format!("{}: {error}", directory.display())),
        }
    }
    Err(Diagnostic::new(Code::Unreachable, "there is no private directory for the sockets of ssh").detail(reasons.join("\n")).into())
}

fn make_private(directory: &Path, uid: u32) -> io::Result<()> {
    if directory.as_os_str().len() > LONGEST_DIRECTORY {
        return Err(io::Error::other("the path is too long for a socket"));
    }
    // Not the parents of a place that systemd makes.
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    if directory.ends_with("ssh") {
        builder.recursive(true);
    }
    match builder.create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let there = std::fs::symlink_metadata(directory)?;
    if !there.is_dir() || there.uid() != uid {
        return Err(io::Error::other("it belongs to somebody else"));
    }
    if there.mode() & 0o077 != 0 {
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}
