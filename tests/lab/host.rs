//! One host of a lab: an overlay on the base root in memory, its own network end, and either systemd or only an sshd as its first process.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Fingerprint, INSIDE, Inner, Output, cgroup_roots, made};

/// How long a host may take to boot. Far above the second it needs: the machine may be compiling meanwhile.
const BOOT: Duration = Duration::from_secs(90);

/// What a host is to be.
#[derive(Debug, Clone)]
pub struct Spec {
    name: String,
    systemd: bool,
    dnf: bool,
    disk: Option<String>,
    read_only: bool,
    disks: Vec<String>,
    packages: Vec<String>,
}

impl Spec {
    /// A whole machine: systemd, sshd, cron, D-Bus.
    pub fn systemd(name: &str) -> Spec {
        Spec { name: name.to_owned(), systemd: true, dnf: false, disk: None, read_only: false, disks: Vec::new(), packages: Vec::new() }
    }

    /// sshd alone, as process 1: for many hosts and for bad ones.
    pub fn light(name: &str) -> Spec {
        Spec { systemd: false, ..Spec::systemd(name) }
    }

    /// A whole machine of Red Hat's kind: AlmaLinux by its own word, with dnf, rpm and Python, without apt and dpkg. See `dnf.sh`.
    pub fn dnf(name: &str) -> Spec {
        Spec { dnf: true, ..Spec::systemd(name) }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// A disk of its own of this size (`8m`, an ext4 in a file): to be filled, or for [`Host::power_cut`].
    pub fn disk(self, size: &str) -> Spec {
        Spec { disk: Some(size.to_owned()), ..self }
    }

    /// Empty disks of these sizes besides (hosts with systemd only): loop devices, under the names that [`Host::disks`] gives.
    pub fn disks(self, sizes: &[&str]) -> Spec {
        Spec { disks: sizes.iter().map(|size| (*size).to_owned()).collect(), ..self }
    }

    /// Debian's packages besides, not enabled: a layer above the base, made once (`layer.sh`).
    pub fn packages(self, names: &[&str]) -> Spec {
        Spec { packages: names.iter().map(|name| (*name).to_owned()).collect(), ..self }
    }

    /// A root that cannot be written (light hosts only: systemd would not boot).
    pub fn read_only(self) -> Spec {
        assert!(!self.systemd, "only a light host can have a read-only root");
        Spec { read_only: true, ..self }
    }
}

pub struct Host {
    spec: Spec,
    number: usize,
    lab: Arc<Inner>,
    /// The process that started it, while it runs.
    process: Mutex<Option<Child>>,
    disks: Vec<String>,
    /// What lies between the base and its own changes.
    layer: Option<PathBuf>,
}

impl Host {
    pub(super) fn new(lab: &Arc<Inner>, spec: Spec, number: usize) -> Host {
        assert!(number < 254, "a lab has addresses for 253 hosts");
        let disks = spec.disks.iter().enumerate().map(|(i, size)| lab.disk(&format!("{}-{i}", spec.name), size)).collect();
        let layer = match spec.dnf {
            true => Some(made("dnf.sh").unwrap().join("up")),
            false => (!spec.packages.is_empty()).then(|| layer(&spec.packages)),
        };
        let host = Host { spec, number, lab: lab.clone(), process: Mutex::new(None), disks, layer };
        let (name, address) = (&host.spec.name, host.address());
        lab.script(&format!(
            "ip netns add {name}
            ip link add v{number} type veth peer name host0 netns {name}
            ip link set v{number} master lab0 up
            ip -n {name} link set lo up
            ip -n {name} addr add {address}/24 dev host0
            ip -n {name} link set host0 up"
        ));
        host.make_root();
        host
    }

    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Its address in the lab; the controller is 198.18.0.254.
    pub fn address(&self) -> String {
        format!("198.18.0.{}", self.number)
    }

    /// Its root as the test can read and write it, also while it is down. What it mounts itself (`/proc /sys /dev /run /tmp`) is not there.
    pub fn root(&self) -> PathBuf {
        self.lab.outside(&format!("{}/root", self.folder()))
    }

    /// What it changed: the overlay's upper folder.
    fn upper(&self) -> PathBuf {
        self.lab.outside(&format!("{}/disk/up", self.folder()))
    }

    /// The folders that hold what is not in `hashes`, the uppermost first.
    pub(super) fn above_base(&self) -> Vec<PathBuf> {
        std::iter::once(self.upper()).chain(self.layer.clone().filter(|_| !self.spec.dnf)).collect()
    }

    /// The folder with the hashes of what it is an overlay on.
    pub(super) fn base(&self) -> &std::path::Path {
        self.layer.as_deref().filter(|_| self.spec.dnf).and_then(std::path::Path::parent).unwrap_or(&self.lab.base)
    }

    pub fn has_dnf(&self) -> bool {
        self.spec.dnf
    }

    /// The devices of its disks.
    pub fn disks(&self) -> &[String] {
        &self.disks
    }

    pub fn has_systemd(&self) -> bool {
        self.spec.systemd
    }

    // --- commands ---

    /// Runs a POSIX script on the host as root, past sshd (so it works with the link down).
    #[must_use = "check it, with .ok() where nothing else is expected"]
    pub fn sh(&self, script: &str) -> Output {
        let pid = self.leader().unwrap_or_else(|| panic!("{} is not running", self.name()));
        let mut command = Command::new("nsenter");
        command.arg("-t").arg(pid.to_string()).args(["--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup", "--root", "--wd"]);
        command.args(["--", "/bin/sh", "-c", script]).stdin(Stdio::null()).env_clear();
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/root").env("LANG", "C.UTF-8");
        Output::new(format!("{}# {script}", self.name()), command.output().unwrap())
    }

    /// The text of a file; none when there is none.
    pub fn read(&self, path: &str) -> Option<String> {
        std::fs::read(self.root().join(path.trim_start_matches('/'))).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Writes a file past basalt: drift. Its folder must be there; an existing file keeps its owner and mode.
    pub fn write(&self, path: &str, text: &str) {
        std::fs::write(self.root().join(path.trim_start_matches('/')), text).unwrap();
    }

    pub fn fingerprint_root(&self) -> Fingerprint {
        Fingerprint::of(self)
    }

    // --- accidents ---

    /// Cuts the host off: its packets go nowhere, nobody is told.
    pub fn link_down(&self) {
        self.lab.script(&format!("ip link set v{} down", self.number));
    }

    pub fn link_up(&self) {
        self.lab.script(&format!("ip link set v{} up", self.number));
    }

    /// A crash: every process of the host ends at once. What was written stays written; [`Host::boot`] starts it again.
    pub fn kill(&self) {
        if let Some(pid) = self.leader() {
            signal(pid, Signal::KILL);
        }
        self.reap();
    }

    /// The power goes: what had not reached the disk is lost. Only for a host with a disk of its own; [`Host::boot`] starts it again.
    pub fn power_cut(&self) {
        const SHUTDOWN: libc::Ioctl = 0x8004_587d; // EXT4_IOC_SHUTDOWN
        const WITHOUT_FLUSHING: u32 = 2; // EXT4_GOING_FLAGS_NOLOGFLUSH: not even the filesystem's own log
        assert!(self.spec.disk.is_some(), "{} has no disk of its own: memory keeps everything", self.name());
        let disk = std::fs::File::open(self.lab.outside(&format!("{}/disk", self.folder()))).unwrap();
        // SAFETY: the call reads one u32 through the pointer, which lives until it returns.
        let result = unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&disk), SHUTDOWN, &WITHOUT_FLUSHING) };
        assert_eq!(result, 0, "the disk of {} goes down: {}", self.name(), std::io::Error::last_os_error());
        drop(disk);
        self.kill();
        self.unmount();
        self.mount();
    }

    /// An orderly reboot (a light host has no order to keep: it is killed and started).
    pub fn restart(&self) {
        if self.spec.systemd {
            let _ = self.sh("systemctl --no-block poweroff");
            let limit = Instant::now() + BOOT;
            while self.leader().is_some() {
                assert!(Instant::now() < limit, "{} does not shut down", self.name());
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        self.kill();
        self.boot();
    }

    /// Starts a host that is down.
    pub fn boot(&self) {
        self.launch();
        self.wait_ready();
    }

    /// Back to the base: killed, every change dropped, link up, booted.
    pub fn reset(&self) {
        self.kill();
        self.unmount();
        self.make_root();
        self.link_up();
        self.boot();
    }

    // --- making ---

    fn folder(&self) -> String {
        format!("{INSIDE}/{}", self.spec.name)
    }

    fn make_root(&self) {
        let (folder, name) = (self.folder(), self.name());
        if let Some(size) = &self.spec.disk {
            self.lab.script(&format!(
                "mkdir -p {folder}; rm -f {folder}/image; truncate -s {size} {folder}/image; mkfs.ext4 -q -m 0 {folder}/image"
            ));
        }
        self.mount();
        self.lab.script(&format!(
            "cd {folder}/root/etc
            echo {name} >hostname
            printf '127.0.0.1 localhost\\n{address} {name}\\n' >hosts
            printf '%032x\\n' $((0xba5a17 * 256 + {number})) >machine-id",
            address = self.address(),
            number = self.number,
        ));
    }

    fn mount(&self) {
        let (folder, base) = (self.folder(), self.lab.base.display());
        let layer = self.layer.as_ref().map(|layer| format!("{}:", layer.display())).unwrap_or_default();
        let disk = match self.spec.disk {
            Some(_) => format!("-o loop {folder}/image"),
            None => "-t tmpfs -o mode=755,size=60% disk".to_owned(),
        };
        self.lab.script(&format!(
            "mkdir -p {folder}/disk {folder}/root
            mount {disk} {folder}/disk
            mkdir -p {folder}/disk/up {folder}/disk/work
            mount -t overlay -o lowerdir={layer}{base}/root,upperdir={folder}/disk/up,workdir={folder}/disk/work overlay {folder}/root"
        ));
    }

    fn unmount(&self) {
        self.lab.script(&format!("umount {0}/root; umount {0}/disk", self.folder()));
    }

    /// Starts the first process and returns at once.
    pub(super) fn launch(&self) {
        let (folder, name) = (self.folder(), self.name());
        let groups = cgroup_roots().iter().map(|root| format!("{}/{}/{name}", root.display(), self.lab.name)).collect::<Vec<_>>().join(" ");
        let disks: String = self.disks.iter().map(|device| format!(" --bind={device}")).collect();
        let start = if self.spec.systemd {
            format!(
                "for group in {groups}; do mkdir -p $group; echo $$ >$group/cgroup.procs; done
                export SYSTEMD_NSPAWN_API_VFS_WRITABLE=network # the kernel settings of its own network
                exec systemd-nspawn -q --register=no --keep-unit --boot -D {folder}/root --network-namespace-path=/run/netns/{name} \
                    --machine={name} --capability=all --system-call-filter=open_by_handle_at --resolv-conf=off --timezone=off --link-journal=no --console=pipe{disks}"
            )
        } else {
            let read_only = if self.spec.read_only { "mount -o remount,ro \"$r\"" } else { "" };
            format!(
                "exec nsenter --net=/run/netns/{name} unshare --mount --pid --ipc --uts --fork --kill-child --propagation slave sh -ec '
                r={folder}/root
                mount -t proc proc $r/proc
                mount -t sysfs -o ro sysfs $r/sys
                for d in dev run tmp; do mount -t tmpfs -o mode=755 tmpfs $r/$d; done
                chmod 1777 $r/tmp
                for d in null:3 zero:5 full:7 random:8 urandom:9; do mknod -m 666 $r/dev/${{d%:*}} c 1 ${{d#*:}}; done
                mknod -m 666 $r/dev/tty c 5 0
                mkdir $r/dev/pts $r/dev/shm $r/run/sshd $r/run/lock
                mount -t devpts -o newinstance,ptmxmode=666 devpts $r/dev/pts
                ln -s pts/ptmx $r/dev/ptmx; ln -s /proc/self/fd $r/dev/fd
                hostname {name}
                {read_only}
                exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 chroot $r /usr/sbin/sshd -D'"
            )
        };
        let log = std::fs::File::create(self.console()).unwrap();
        let mut command = self.lab.enter();
        command.args(["sh", "-ec", &start]).stdout(log.try_clone().unwrap()).stderr(log);
        let earlier = self.process.lock().unwrap().replace(command.spawn().unwrap());
        assert!(earlier.is_none(), "{name} is running already");
    }

    /// Waits until sshd answers and systemd has settled.
    pub(super) fn wait_ready(&self) {
        let limit = Instant::now() + BOOT;
        let probe = format!("exec 3<>/dev/tcp/{}/22 && read -r -t 5 line <&3 && [[ $line = SSH-* ]]", self.address());
        while !self.lab.enter().args(["bash", "-c", &probe]).stderr(Stdio::null()).status().unwrap().success() {
            let ended = self.process.lock().unwrap().as_mut().is_none_or(|child| child.try_wait().unwrap().is_some());
            assert!(
                !ended && Instant::now() < limit,
                "{} does not boot:\n{}",
                self.name(),
                std::fs::read_to_string(self.console()).unwrap()
            );
            std::thread::sleep(Duration::from_millis(30));
        }
        if self.spec.systemd {
            let state = self.sh("systemctl is-system-running --wait || systemctl list-units --failed --plain --no-legend");
            assert!(state.stdout.trim() == "running", "{} has booted badly:\n{state}", self.name());
        }
    }

    fn console(&self) -> PathBuf {
        self.lab.outside(&format!("{}/console", self.folder()))
    }

    /// Waits for the end of a host whose processes were told to end.
    pub(super) fn reap(&self) {
        if let Some(mut child) = self.process.lock().unwrap().take() {
            let _ = child.wait();
        }
    }

    /// The host's own process 1, as the test sees it: the first process below what we started that lives in another process namespace
    /// than the lab's.
    fn leader(&self) -> Option<u32> {
        let namespace = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let lab = namespace(self.lab.init)?;
        let mut todo = children(self.process.lock().unwrap().as_ref()?.id());
        while let Some(pid) = todo.pop() {
            match namespace(pid) {
                Some(other) if other != lab => return Some(pid),
                _ => todo.extend(children(pid)),
            }
        }
        None
    }
}

/// The folder of a layer with these packages; made when it is not there.
fn layer(packages: &[String]) -> PathBuf {
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/layer.sh");
    let output = Command::new("bash").arg(&script).args(packages).output().unwrap();
    assert!(output.status.success(), "{} failed: {}", script.display(), String::from_utf8_lossy(&output.stderr).trim());
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()).join("up")
}

/// The children of a process.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal); // one that has ended already is no failure
    }
}
