//! The demo's throwaway hosts: a folder each as its root, and an unprivileged sshd each on a loopback port; without sshd, the local
//! transport.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::cli::context::user_name;
use crate::diagnostic::{Diagnostic, Result};
use crate::plan::Hash;

pub const NAMES: [&str; 3] = ["web1", "web2", "db1"];

pub struct Hosts {
    folder: PathBuf,
    /// None: the local transport, and why.
    ssh: std::result::Result<Ssh, String>,
}

struct Ssh {
    ports: Vec<u16>,
    daemons: Vec<Child>,
    user: String,
    /// Made by us for a privileged sshd, to be removed again.
    run_folder: Option<&'static str>,
}

/// Path below a root → type, mode, owner, content.
type Fingerprint = BTreeMap<String, String>;

impl Hosts {
    pub fn start(folder: &Path) -> Result<Hosts> {
        for name in NAMES {
            let root = folder.join("hosts").join(name);
            std::fs::create_dir_all(root.join("etc")).map_err(|e| Diagnostic::io(format_args!("make {}", root.display()), &e))?;
        }
        Ok(Hosts { folder: folder.to_owned(), ssh: Ssh::start(folder) })
    }

    pub fn root(&self, name: &str) -> PathBuf {
        self.folder.join("hosts").join(name)
    }

    /// In a few words, how they are reached.
    pub fn how(&self) -> String {
        match &self.ssh {
            Ok(ssh) => {
                let ports: Vec<String> = ssh.ports.iter().map(ToString::to_string).collect();
                format!("a folder each as root, an unprivileged sshd each on 127.0.0.1, ports {}.", ports.join(", "))
            }
            Err(why) => format!("a folder each as root, reached without ssh ({why}).",),
        }
    }

    pub fn roster(&self) -> String {
        let mut text = String::new();
        for (index, name) in NAMES.iter().enumerate() {
            let root = self.root(name);
            let _ = match &self.ssh {
                Ok(ssh) => write!(
                    text,
                    "{name}:\n  host: 127.0.0.1\n  port: {}\n  user: {}\n  priv: {folder}/key\n  root: {}\n  ssh_options:\n    - UserKnownHostsFile={folder}/known_hosts\n    - IdentitiesOnly=yes\n    - IdentityAgent=none\n    - ControlPersist=2\n",
                    ssh.ports.get(index).copied().unwrap_or_default(),
                    ssh.user,
                    root.display(),
                    folder = self.folder.display(),
                ),
                Err(_) => write!(text, "{name}:\n  host: local\n  root: {}\n", root.display()),
            };
        }
        text
    }

    /// What every host's root holds, but for what basalt remembers there.
    pub fn fingerprints(&self) -> Result<Vec<Fingerprint>> {
        NAMES
            .iter()
            .map(|name| {
                let mut found = Fingerprint::new();
                walk(&self.root(name), "", &mut found).map_err(|e| Diagnostic::io(format_args!("look at {name}"), &e))?;
                Ok(found)
            })
            .collect()
    }
}

fn walk(root: &Path, below: &str, found: &mut Fingerprint) -> std::io::Result<()> {
    for entry in std::fs::read_dir(root.join(below))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        if path == "var" || path.starts_with("var/lib") {
            if path != "var" && path != "var/lib" && path != "var/lib/basalt" {
                continue;
            }
            if path != "var/lib/basalt" {
                walk(root, &path, found)?;
            }
            continue;
        }
        let file = root.join(&path);
        let meta = std::fs::symlink_metadata(&file)?;
        let what = match () {
            () if meta.is_symlink() => format!("-> {}", std::fs::read_link(&file)?.display()),
            () if meta.is_dir() => {
                walk(root, &path, found)?;
                "directory".to_owned()
            }
            () => Hash::of(&std::fs::read(&file)?).0,
        };
        found.insert(path, format!("{:o} {} {} {what}", meta.mode(), meta.uid(), meta.gid()));
    }
    Ok(())
}

impl Ssh {
    /// Starts an sshd per host and waits until each lets us in. An error says why there is none.
    fn start(folder: &Path) -> std::result::Result<Ssh, String> {
        let sshd = find("sshd").ok_or("no sshd on this machine")?;
        let keygen = find("ssh-keygen").ok_or("no ssh-keygen on this machine")?;
        let ssh = find("ssh").ok_or("no ssh on this machine")?;
        let user = user_name(rustix::process::geteuid().as_raw()).ok_or("the user has no name")?;
        let text = |path: PathBuf| path.display().to_string();
        for name in ["key", "host_key"] {
            let made =
                Command::new(&keygen).args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.join(name)).stdin(Stdio::null()).output();
            if !made.is_ok_and(|m| m.status.success()) {
                return Err("ssh-keygen failed".into());
            }
        }
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).map_err(|e| format!("cannot read {name}: {e}"));
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text)
                .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)))
                .map_err(|e| format!("cannot write {name}: {e}"))
        };
        write("authorized_keys", &read("key.pub")?)?;
        let public: Vec<String> = read("host_key.pub")?.split_whitespace().take(2).map(str::to_owned).collect();
        let mut this = Ssh { ports: Vec::new(), daemons: Vec::new(), user, run_folder: None };
        if rustix::process::geteuid().is_root() && !Path::new("/run/sshd").exists() && std::fs::create_dir("/run/sshd").is_ok() {
            this.run_folder = Some("/run/sshd");
        }
        let mut known = String::new();
        for name in NAMES {
            let port = free_port().ok_or("no free port")?;
            let config = format!(
                "ListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\nStrictModes no\n\
                 PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nAllowTcpForwarding no\n\
                 X11Forwarding no\nPrintMotd no\nMaxSessions 50\nSetEnv BASALT_CACHE={}\n",
                text(folder.join("host_key")),
                text(folder.join("authorized_keys")),
                text(folder.join("agent")),
            );
            let file = format!("sshd-{name}.conf");
            write(&file, &config)?;
            let daemon = Command::new(&sshd)
                .args(["-D", "-f"])
                .arg(folder.join(&file))
                .arg("-E")
                .arg(folder.join(format!("sshd-{name}.log")))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .map_err(|e| format!("sshd does not start: {e}"))?;
            this.daemons.push(daemon);
            this.ports.push(port);
            let _ = writeln!(known, "[127.0.0.1]:{port} {}", public.join(" "));
        }
        write("known_hosts", &known)?;
        for port in this.ports.clone() {
            this.wait(port)?;
            let login = Command::new(&ssh)
                .args([
                    "-F",
                    "none",
                    "-o",
                    "BatchMode=yes",
                    "-o",
                    "IdentitiesOnly=yes",
                    "-o",
                    "ConnectTimeout=5",
                    "-o",
                    "IdentityAgent=none",
                ])
                .arg("-o")
                .arg(format!("UserKnownHostsFile={}", text(folder.join("known_hosts"))))
                .args(["-o", "StrictHostKeyChecking=yes", "-i"])
                .arg(folder.join("key"))
                .args(["-p", &port.to_string()])
                .arg(format!("{}@127.0.0.1", this.user))
                .arg("true")
                .stdin(Stdio::null())
                .output();
            if !login.is_ok_and(|l| l.status.success()) {
                return Err("an sshd of its own does not let this user in".into());
            }
        }
        Ok(this)
    }

    fn wait(&mut self, port: u16) -> std::result::Result<(), String> {
        let end = Instant::now() + Duration::from_secs(5);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let gone = self.daemons.iter_mut().any(|d| d.try_wait().is_ok_and(|s| s.is_some()));
            if gone || Instant::now() > end {
                return Err("an sshd of its own does not start".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        for daemon in &mut self.daemons {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        if let Some(folder) = self.run_folder {
            let _ = std::fs::remove_dir(folder);
        }
    }
}

fn free_port() -> Option<u16> {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr()).ok().map(|a| a.port())
}

/// A program in PATH or where daemons live.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_absolute() && file.is_file())
}
