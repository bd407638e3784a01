//! The lab: real Debian hosts for tests, made in a second or two and gone with the test.
//!
//! ```ignore
//! mod lab;
//!
//! #[test]
//! fn an_apply_is_taken_back() {
//!     if !lab::required() { return; }                       // says "skipped: …" where the machine cannot, fails there with CI=true
//!     let lab = Lab::hosts(3);                              // h1 h2 h3: systemd, sshd, cron, apt; 198.18.0.1 …
//!     lab.write("states/top.sls", "base:\n  '*': [web]\n"); // the state repository is `lab.state()`, its roster.yaml is there
//!     let before = lab["h1"].fingerprint_root();
//!     lab.basalt(["apply", "--yes"]).code(0);               // on the controller: in the lab's network, with a HOME of its own
//!     lab.basalt(["rollback", "--yes"]).code(0);
//!     before.assert_same(&lab["h1"].fingerprint_root());
//! }
//! ```
//!
//! **How.** Every lab is one process tree in namespaces of its own (mounts, processes, network). Its first process reads a pipe whose other
//! end is held by the test; when the test ends, however it ends, the pipe closes, the first process ends, and the kernel ends everything in the
//! lab and drops its mounts and links. So labs never meet (each has 198.18.0.0/24 for itself, nextest may run as many as it likes) and nothing
//! needs a cleaner but control groups and the home folder, which the next lab sweeps when a test was killed.
//!
//! - [`Lab`] (this file): making it, and the controller's side.
//! - [`host`]: one host: booting, killing, links, commands.
//! - [`fingerprint`]: everything a rollback must restore, as text that compares.
//! - `base.sh`, `repo.sh`: the root that hosts are overlays on, and its apt repository.
//! - `dnf.sh`, `rpms.sh`: a layer over it for hosts of Red Hat's kind ([`Spec::dnf`]), and their repositories in `/srv/lab-rpms`.

#![allow(dead_code, reason = "every test binary compiles this module and uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on panics")]

pub mod fingerprint;
pub mod host;
pub mod output;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

pub use fingerprint::Fingerprint;
pub use host::{Host, Spec};
pub use output::{Output, Running};

/// The lab's folder in its own mount namespace, the same for every lab.
pub const INSIDE: &str = "/run/basalt-lab";
/// The apt repository on every host: `OLD_REPO` holds version 1.0 of each package, `NEW_REPO` (in sources.list) 1.0 and 2.0. See `repo.sh`.
/// `/srv/lab-repo/debian` has real packages of Debian, see `base.sh`.
pub const OLD_REPO: &str = "deb [trusted=yes] file:/srv/lab-repo/old ./";
pub const NEW_REPO: &str = "deb [trusted=yes] file:/srv/lab-repo/new ./";
/// The password that `sudo` asks of the user `clerk`.
pub const CLERK_PASSWORD: &str = "lab-secret";

/// Several hosts and the controller that reaches them.
pub struct Lab {
    hosts: Vec<Host>,
    home: PathBuf,
    inner: Arc<Inner>,
    init: Option<Child>,
}

/// What the lab's hosts need to know of it.
pub(crate) struct Inner {
    /// Unique on this machine: `basalt-lab-PID-N`.
    pub name: String,
    /// The folder that `base.sh` made.
    pub base: PathBuf,
    /// The lab's first process, as the test sees it.
    pub init: u32,
}

/// Whether this machine can run a lab. Prints why not; with `CI=true` that is a failure.
#[must_use]
pub fn required() -> bool {
    required_with(&[])
}

/// The same for a test that needs more programs on this machine.
#[must_use]
pub fn required_with(programs: &[&str]) -> bool {
    let Err(reason) = able(programs) else { return true };
    assert!(std::env::var("CI").as_deref() != Ok("true"), "the lab is required with CI=true, but {reason} (see scripts/setup)");
    eprintln!("skipped: needs a lab of real hosts, but {reason} (see scripts/setup)");
    // Runners hide what passing tests say: scripts/test shows this file at its end.
    let list = Path::new(env!("CARGO_TARGET_TMPDIR")).join("skipped");
    let mut list = std::fs::OpenOptions::new().create(true).append(true).open(list).expect("the target folder can be written");
    writeln!(list, "{reason}").expect("the target folder can be written");
    false
}

fn able(programs: &[&str]) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("this is not root".into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has = |tool: &str| std::env::split_paths(&path).any(|dir| dir.join(tool).is_file());
    let tools = ["debootstrap", "systemd-nspawn", "ssh", "ip", "nsenter", "unshare", "dpkg-scanpackages", "git"];
    let missing: Vec<&str> = tools.iter().chain(programs).copied().filter(|tool| !has(tool)).collect();
    if !missing.is_empty() {
        return Err(format!("these programs are missing: {}", missing.join(" ")));
    }
    base().map(drop)
}

/// The root that hosts are overlays on; made when it is not there (a minute).
fn base() -> Result<PathBuf, String> {
    made("base.sh")
}

/// The folder that one of the lab's scripts makes and names.
pub(crate) fn made(script: &str) -> Result<PathBuf, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab").join(script);
    let output = Command::new("bash").arg(&script).output().map_err(|e| format!("{} does not start: {e}", script.display()))?;
    if !output.status.success() {
        return Err(format!("{} failed: {}", script.display(), String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

/// All hosts of all labs are one user's, and the kernel's default for a user's inotify instances (128) is meant for one system: each systemd takes eight.
fn make_room() {
    const INSTANCES: &str = "/proc/sys/fs/inotify/max_user_instances";
    const ENOUGH: u32 = 1024;
    if std::fs::read_to_string(INSTANCES).is_ok_and(|n| n.trim().parse().is_ok_and(|n: u32| n < ENOUGH)) {
        // Where it may not be set, some fifteen hosts fit.
        let _ = std::fs::write(INSTANCES, ENOUGH.to_string());
    }
}

impl Lab {
    /// `n` hosts with systemd, `h1` to `hN`.
    pub fn hosts(n: usize) -> Lab {
        Lab::start((1..=n).map(|i| Spec::systemd(&format!("h{i}"))).collect())
    }

    /// `n` light hosts, `h1` to `hN`: sshd and no systemd; they boot in a tenth of a second and a hundred fit.
    pub fn light(n: usize) -> Lab {
        Lab::start((1..=n).map(|i| Spec::light(&format!("h{i}"))).collect())
    }

    pub fn start(specs: Vec<Spec>) -> Lab {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        sweep();
        make_room();
        let base = base().unwrap();
        let name = format!("basalt-lab-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let home = std::env::temp_dir().join(&name);

        let script = format!(
            "set -e
            mount --make-rshared / # among the lab's own namespaces: what is unmounted here is gone in every host
            mount -t proc proc /proc
            mkdir -p {INSIDE} /run/netns
            mount -t tmpfs -o mode=755 basalt-lab {INSIDE}
            mount -t tmpfs -o mode=755 basalt-lab /run/netns
            ip link set lo up
            ip link add lab0 type bridge forward_delay 0
            ip addr add 198.18.0.254/24 dev lab0
            ip link set lab0 up
            echo ready
            while read -r line; do :; done"
        );
        let mut init = Command::new("unshare")
            .args([
                "--mount",
                "--pid",
                "--net",
                "--ipc",
                "--uts",
                "--fork",
                "--kill-child",
                "--propagation",
                "private",
                "sh",
                "-c",
                &script,
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare starts");
        let mut ready = String::new();
        BufReader::new(init.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert_eq!(ready.trim(), "ready", "the lab's namespaces could not be made");

        let inner = Arc::new(Inner { name, base, init: host::children(init.id())[0] });
        let mut lab = Lab { hosts: Vec::new(), home, inner, init: Some(init) };
        lab.hosts = specs.into_iter().enumerate().map(|(i, spec)| Host::new(&lab.inner, spec, i + 1)).collect();
        lab.hosts.iter().for_each(Host::launch);
        lab.make_home();
        lab.hosts.iter().for_each(Host::wait_ready);
        lab
    }

    /// The hosts in their order. `lab["h1"]` finds one by its name.
    pub fn all(&self) -> &[Host] {
        &self.hosts
    }

    // --- the controller ---

    /// The controller's HOME. `.ssh/` in it holds the key, the configuration and known_hosts.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The state repository that commands run in: a folder with a roster.yaml; [`Lab::write`] fills it, [`Lab::commit`] makes it a git repository.
    pub fn state(&self) -> PathBuf {
        self.home.join("state")
    }

    /// Writes a file of the state repository.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.state().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Commits everything in the state repository and returns the commit's id.
    pub fn commit(&self, message: &str) -> String {
        let script = "[ -d .git ] || git init -q -b main .; git add -A; git commit -q --allow-empty -m \"$1\"; git rev-parse HEAD";
        self.run(["sh", "-ec", script, "sh", message]).ok().stdout.trim().to_owned()
    }

    /// Salt's roster for these hosts: ids, addresses and the user root; everything else stands in the ssh configuration.
    pub fn roster(&self) -> String {
        self.hosts.iter().map(|host| format!("{}:\n  host: {}\n  user: root\n", host.name(), host.address())).collect()
    }

    /// Runs the built `basalt` in the state repository, on the controller.
    #[must_use = "check it, with .ok() where nothing else is expected"]
    pub fn basalt<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        self.spawn_basalt(args).wait()
    }

    /// Starts it without waiting: to interrupt or kill it, or the network under it.
    pub fn spawn_basalt<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Running {
        let mut command = self.command(&self.state(), env!("CARGO_BIN_EXE_basalt"));
        command.args(args);
        Running::spawn(command)
    }

    /// Runs any program in the state repository, on the controller.
    #[must_use = "check it, with .ok() where nothing else is expected"]
    pub fn run<S: AsRef<OsStr>>(&self, argv: impl IntoIterator<Item = S>) -> Output {
        let mut argv = argv.into_iter();
        let mut command = self.command(&self.state(), argv.next().expect("a program"));
        command.args(argv);
        Running::spawn(command).wait()
    }

    /// A program on the controller: in the lab's network and among its processes (so nothing it leaves behind outlives the lab), with the
    /// lab's HOME. Its `ssh` reads `.ssh/config` there: OpenSSH itself asks passwd for the home folder, so a wrapper hands it the file.
    pub fn command(&self, dir: &Path, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.inner.enter();
        command.args(["sh", "-c", "cd \"$1\" && shift && exec \"$@\"", "sh"]).arg(dir).arg(program);
        let home = self.home.display();
        command.env_clear().env("HOME", &self.home).env("USER", "root").env("LANG", "C.UTF-8").env("TERM", "dumb");
        command.env("PATH", format!("{home}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"));
        for (name, folder) in [("CONFIG", ".config"), ("CACHE", ".cache"), ("DATA", ".local/share"), ("STATE", ".local/state")] {
            command.env(format!("XDG_{name}_HOME"), self.home.join(folder));
        }
        command.env("XDG_RUNTIME_DIR", self.home.join("run")).stdin(Stdio::null());
        command
    }

    fn make_home(&self) {
        for folder in ["bin", "run", ".ssh", "state"] {
            std::fs::create_dir_all(self.home.join(folder)).unwrap();
        }
        let ssh = self.home.join(".ssh");
        let s = ssh.display();
        let host_key = std::fs::read_to_string(self.inner.base.join("host_key.pub")).unwrap();
        let host_key = host_key.split(' ').take(2).collect::<Vec<_>>().join(" ");
        let mut config = format!(
            "Host *\n  User root\n  IdentityFile {s}/id\n  IdentitiesOnly yes\n  UserKnownHostsFile {s}/known_hosts\n  GlobalKnownHostsFile /dev/null\n  \
             StrictHostKeyChecking yes\n  ConnectTimeout 10\n"
        );
        let mut known = String::new();
        for host in &self.hosts {
            config += &format!("Host {}\n  HostName {}\n", host.name(), host.address());
            known += &format!("{} {host_key}\n", host.address());
        }
        std::fs::copy(self.inner.base.join("id"), ssh.join("id")).unwrap();
        std::fs::write(ssh.join("config"), config).unwrap();
        std::fs::write(ssh.join("known_hosts"), known).unwrap();
        std::fs::write(self.home.join("bin/ssh"), format!("#!/bin/sh\nexec /usr/bin/ssh -F {s}/config \"$@\"\n")).unwrap();
        std::fs::write(self.home.join(".gitconfig"), "[user]\n  name = Lab\n  email = lab@localhost\n").unwrap();
        let run = format!("chmod 600 {s}/id; chmod 700 {s} {h} {h}/run; chmod 755 {h}/bin/ssh", h = self.home.display());
        assert!(Command::new("sh").args(["-c", &run]).status().unwrap().success());
        self.write("roster.yaml", &self.roster());
    }
}

impl std::ops::Index<&str> for Lab {
    type Output = Host;

    fn index(&self, name: &str) -> &Host {
        self.hosts.iter().find(|host| host.name() == name).unwrap_or_else(|| panic!("the lab has no host {name}"))
    }
}

impl Inner {
    /// A command that runs inside the lab's namespaces; its arguments are the program and its own. The folder is `/`.
    pub fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("-t").arg(self.init.to_string()).args(["--mount", "--pid", "--net", "--ipc", "--uts", "--"]).stdin(Stdio::null());
        command
    }

    /// Runs a script inside the lab as a part of making it: it must succeed.
    pub fn script(&self, script: &str) {
        let output = self.enter().args(["sh", "-ec", script]).output().unwrap();
        assert!(output.status.success(), "the lab's own script failed:\n{script}\n{}", String::from_utf8_lossy(&output.stderr));
    }

    /// A loop device on a sparse file. A process of the lab holds it open; the kernel lets go of it when that ends.
    pub fn disk(&self, name: &str, size: &str) -> String {
        let script = format!(
            "mkdir -p {INSIDE}/disks; truncate -s {size} {INSIDE}/disks/{name}
            device=$(losetup -f --show {INSIDE}/disks/{name})
            sleep infinity <$device >/dev/null 2>&1 &
            sleep 0.1; losetup -d $device; echo $device"
        );
        let output = self.enter().args(["sh", "-ec", &script]).output().unwrap();
        assert!(output.status.success(), "no disk: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// A path inside the lab's mount namespace, as the test can open it.
    pub fn outside(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(mut init) = self.init.take() {
            drop(init.stdin.take()); // the first process reads the end of its input and goes; the kernel ends the rest
            let _ = init.wait();
        }
        self.hosts.iter().for_each(Host::reap);
        remove_cgroups(&self.inner.name);
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

/// Removes what labs whose test was killed could not remove themselves: the folders that carry the number of a process that is no more.
fn sweep() {
    let folders = [vec![std::env::temp_dir()], cgroup_roots()].concat();
    for entry in folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix("basalt-lab-").and_then(|rest| rest.split('-').next()).and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove_cgroups(&name);
            let _ = std::fs::remove_dir_all(std::env::temp_dir().join(&name));
        }
    }
}

/// Where the control groups of systemd's own hierarchy begin: version 2, or the two of a mixed set-up.
pub(crate) fn cgroup_roots() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.procs").exists() {
        return vec![root.to_owned()];
    }
    ["systemd", "unified"].iter().map(|name| root.join(name)).filter(|path| path.join("cgroup.procs").exists()).collect()
}

fn remove_cgroups(name: &str) {
    /// Control groups are removed from the leaves up, and only when no process is left in them.
    fn remove(group: &Path) {
        for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                remove(&entry.path());
            }
        }
        let _ = std::fs::remove_dir(group);
    }
    for group in cgroup_roots().iter().map(|root| root.join(name)) {
        for _ in 0..20 {
            remove(&group);
            if !group.exists() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}
