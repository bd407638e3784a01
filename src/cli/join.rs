//! `basalt join`, on the machine that would like to be a node: says what it is, lets the controller in, and waits until it is made a node.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::time::Instant;

use super::context::{confirmed, hostname, short};
use super::print::{Color, Printer, clean, count};
use super::token::grouped;
use super::{Ended, key};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::engine::facts::resources;
use crate::engine::session::{Session, Stop};
use crate::enrol::device::devices;
use crate::enrol::discover::discover;
use crate::enrol::message::{Ask, Registration, Reply, is_key};
use crate::enrol::token::{PIN, Token, unbase32};
use crate::enrol::wire::{ask, fingerprint};
use crate::fleet::Host;
use crate::fleet::role::Role;
use crate::remote::{Passwords, Remote};

/// For an answer that takes no work.
const SOON: Duration = Duration::from_secs(30);
/// For being made a node.
const WORK: Duration = Duration::from_secs(3600);
/// Between two questions whether somebody has said yes.
const PAUSE: Duration = Duration::from_secs(2);

#[derive(Args)]
pub struct JoinArgs {
    /// The controller: an address, with its port where that is not 4506
    #[arg(required_unless_present = "auto_discover", conflicts_with = "auto_discover")]
    controller: Option<String>,
    #[command(flatten)]
    discovery: Discovery,
    #[command(flatten)]
    how: JoinHow,
    /// One JSON object per line
    #[arg(long)]
    pub json: bool,
}

/// Looking for the controller.
#[derive(Args)]
pub struct Discovery {
    /// Ask the network who is a controller; the token, the fingerprint or --cluster says which one is meant
    #[arg(long)]
    pub auto_discover: bool,
    /// Of the controllers that answer, the one of the cluster with this id
    #[arg(long, value_name = "ID", requires = "auto_discover")]
    cluster: Option<String>,
    /// Seconds to wait for answers
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=300), requires = "auto_discover")]
    discover_timeout: u64,
}

/// How a machine presents itself.
#[derive(Args)]
pub struct JoinHow {
    /// What `basalt token create` printed there. Without one somebody there has to say yes
    #[arg(long, env = "BASALT_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The controller's fingerprint, as it prints it; without it and without a token you are asked
    #[arg(long, conflicts_with = "token")]
    fingerprint: Option<String>,
    /// The minion id that this machine would like (default: its host name)
    #[arg(long, value_name = "NAME")]
    pub id: Option<String>,
    /// Where the controller reaches this machine (default: where it sees us come from)
    #[arg(long)]
    address: Option<String>,
    /// The port of this machine's ssh
    #[arg(long)]
    port: Option<u16>,
    /// The role it would like
    #[arg(long, value_name = "ROLE")]
    pub preferred_role: Option<Role>,
}

pub async fn run(args: JoinArgs, color: Color) -> Ended {
    let printer = Printer::new(args.json, color);
    let controller = match args.controller {
        Some(controller) => controller,
        None => args.discovery.look(&args.how, &printer).await?.ok_or_else(|| {
            Diagnostic::new(Code::Unreachable, "no controller answers")
                .hint("is `basalt token create --listen` running there, in this network? Else name it: basalt join ADDRESS")
        })?,
    };
    join(&controller, &args.how, &printer).await
}

impl Discovery {
    /// Asks the network; all that answer are told. The address of the one that is meant: by its key, by its cluster, or because it is the only one.
    pub async fn look(&self, how: &JoinHow, printer: &Printer) -> Result<Option<String>> {
        let pin = how.pin()?;
        let patience = Duration::from_secs(self.discover_timeout);
        let found = blocking(move || discover(pin, patience)).await?;
        for one in &found {
            let (about, fingerprint) = (&one.about, grouped(&one.pin));
            printer.json(&json!({
                "type": "discovered", "cluster": about.cluster_id, "address": one.address(), "nodes": about.node_count, "fingerprint": fingerprint,
            }));
            let nodes = count(about.node_count, "node");
            printer.say(&format!("{}  cluster {}, {nodes}, fingerprint {fingerprint}", one.address(), clean(&about.cluster_id)));
        }
        let meant: Vec<_> = found.iter().filter(|one| self.cluster.as_ref().is_none_or(|id| *id == one.about.cluster_id)).collect();
        match meant.as_slice() {
            [] if found.is_empty() => Ok(None),
            [] => Err(Diagnostic::new(Code::Usage, "none of these controllers has the cluster that --cluster names").into()),
            [one] => Ok(Some(one.address())),
            _ => Err(Diagnostic::new(Code::Usage, format!("{} controllers answer", meant.len()))
                .hint("--token, --fingerprint or --cluster ID says which one is meant")
                .into()),
        }
    }
}

impl JoinHow {
    /// The key that the controller must have, where something says it.
    fn pin(&self) -> Result<Option<[u8; PIN]>> {
        if let Some(token) = &self.token {
            return Token::parse(token).map(|token| Some(token.pin));
        }
        let wrong = || Diagnostic::new(Code::Usage, "this is no fingerprint of a controller").into();
        self.fingerprint.as_deref().map(|text| unbase32(text).ok_or_else(wrong)).transpose()
    }
}

pub async fn join(controller: &str, args: &JoinHow, printer: &Printer) -> Ended {
    if !rustix::process::geteuid().is_root() {
        return Err(Diagnostic::new(Code::Usage, "joining lets the controller in as root: only root can do that")
            .hint("sudo basalt join …")
            .into());
    }
    let (_pull, stop) = Stop::new();
    let pin = match args.pin()? {
        Some(pin) => pin,
        None => {
            let address = controller.to_owned();
            let pin = blocking(move || fingerprint(&address)).await?;
            let question = format!("The controller at {} has the fingerprint {}. Does it say the same there?", controller, grouped(&pin));
            if !confirmed(printer, &stop, &question).await? {
                return Ok(8);
            }
            pin
        }
    };
    let registration = registration(args, stop).await?;
    registration.check()?;
    printer.json(&json!({"type": "registration", "registration": registration}));
    printer.say(&format!(
        "{}: {} CPU cores, {} GB of memory, {} GB of disk.",
        registration.id, registration.cpu_cores, registration.memory_gb, registration.storage_gb
    ));
    key::devices(printer, &registration.devices);
    let register = Ask::Register { token: args.token.clone(), registration: Box::new(registration) };
    let controller = Arc::new(controller.to_owned());
    let mut reply = put(&controller, pin, register, SOON).await?;
    let mut said = false;
    let (ticket, public, cluster) = loop {
        match reply {
            Reply::Welcome { ticket, key, cluster } => break (ticket, key, cluster),
            Reply::Pending { ticket } => {
                if !std::mem::replace(&mut said, true) {
                    printer.say("Waiting until somebody at the controller says yes: `basalt key list`, `basalt key accept`.");
                }
                tokio::time::sleep(PAUSE).await;
                reply = put(&controller, pin, Ask::Poll { ticket }, SOON).await?;
            }
            other => return Err(refusal(other).into()),
        }
    };
    let door = LetIn::new(Path::new("/root/.ssh/authorized_keys"), &public)?;
    let name = if cluster.is_empty() { "the cluster".to_owned() } else { format!("the cluster {}", clean(&cluster)) };
    printer.say(&format!("The controller may come in. Joining {name} …"));
    match put(&controller, pin, Ask::Ready { ticket }, WORK).await {
        Ok(Reply::Joined { id, role, commit }) => {
            printer.json(&json!({"type": "joined", "node": id, "role": role, "commit": commit}));
            printer.say(&format!("Joined as {}: {} ({}).", clean(&id), clean(&role), clean(short(&commit))));
            Ok(0)
        }
        Ok(other) => {
            door.close()?;
            Err(refusal(other).into())
        }
        // Whether it was made a node is not known: the controller must be able to come back, or to take it back.
        Err(fault) => Err(fault.hint("ask at the controller: `basalt node list`; joining again is safe").into()),
    }
}

fn refusal(reply: Reply) -> Diagnostic {
    match reply {
        Reply::Refused { why } => Diagnostic::new(Code::Usage, format!("the controller refuses: {}", clean(&why))),
        Reply::Failed { why } => Diagnostic::new(Code::Failed, format!("it did not work: {}", clean(&why))),
        _ => Diagnostic::new(Code::Damaged, "the controller gives an answer to another question"),
    }
}

async fn put(controller: &Arc<String>, pin: [u8; PIN], question: Ask, patience: Duration) -> Result<Reply> {
    let controller = controller.clone();
    blocking(move || ask(&controller, pin, &question, patience)).await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Diagnostic::new(Code::Internal, e.to_string()))?
}

/// What this machine says of itself.
async fn registration(args: &JoinHow, stop: Stop) -> Result<Registration> {
    let here = Host::new("here", Host::LOCAL);
    let mut session = Session::open(&Remote::new(Passwords::default(), None, None), here, stop, Instant::now() + SOON).await?;
    let found = resources(&mut session).await;
    session.close().await;
    let found = found?;
    Ok(Registration {
        id: args.id.clone().unwrap_or_else(hostname),
        address: args.address.clone(),
        port: args.port,
        preferred_role: args.preferred_role.map(|role| role.name().to_owned()),
        cpu_cores: found.cpu_cores,
        memory_gb: found.memory_gb,
        storage_gb: found.storage_gb,
        host_keys: host_keys(Path::new("/etc/ssh")),
        devices: devices(Path::new("/")),
    })
}

/// The public keys of this machine's sshd, without their comments.
fn host_keys(folder: &Path) -> Vec<String> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.sort();
    let is_public = |file: &PathBuf| {
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.starts_with("ssh_host_") && name.ends_with("_key.pub")
    };
    let key = |file: PathBuf| {
        let text = std::fs::read_to_string(file).ok()?;
        Some(text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")).filter(|key| is_key(key))
    };
    files.into_iter().filter(is_public).filter_map(key).collect()
}

/// The controller's key among those that root lets in: for sessions alone, nothing forwarded.
struct LetIn {
    file: PathBuf,
    line: String,
    /// It was there before.
    known: bool,
}

impl LetIn {
    fn new(file: &Path, public: &str) -> Result<LetIn> {
        if !is_key(public) {
            return Err(Diagnostic::new(Code::Damaged, "what the controller sends is no ssh key").into());
        }
        let line = format!("restrict {public} basalt");
        let text = LetIn::read(file)?;
        let known = text.lines().any(|known| known == line);
        if !known {
            let separator = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
            LetIn::write(file, &format!("{text}{separator}{line}\n"))?;
        }
        Ok(LetIn { file: file.to_owned(), line, known })
    }

    /// It did not work: the key goes, if it came with us.
    fn close(self) -> Result<()> {
        if self.known {
            return Ok(());
        }
        let text = LetIn::read(&self.file)?;
        let kept: String = text.lines().filter(|line| *line != self.line).map(|line| format!("{line}\n")).collect();
        LetIn::write(&self.file, &kept)
    }

    fn read(file: &Path) -> Result<String> {
        match std::fs::read_to_string(file) {
            Ok(text) => Ok(text),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            Err(e) => Err(Diagnostic::io(format_args!("read {}", file.display()), &e).into()),
        }
    }

    /// Whole or not at all.
    fn write(file: &Path, text: &str) -> Result<()> {
        use std::io::Write;
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        let fault = |e: std::io::Error| Diagnostic::io(format_args!("write {}", file.display()), &e);
        let folder = file.parent().unwrap_or(Path::new("/"));
        if !folder.is_dir() {
            std::fs::DirBuilder::new().mode(0o700).create(folder).map_err(fault)?;
        }
        let beside = file.with_extension("basalt");
        let made = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside);
        made.and_then(|mut new| new.write_all(text.as_bytes()).and_then(|()| new.sync_all())).map_err(fault)?;
        std::fs::rename(&beside, file).map_err(|e| fault(e).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controller_s_key_is_let_in_once_and_goes_where_joining_failed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(".ssh/authorized_keys");
        let text = || std::fs::read_to_string(&file).unwrap();
        let first = LetIn::new(&file, "ssh-ed25519 AAAA").unwrap();
        assert_eq!(text(), "restrict ssh-ed25519 AAAA basalt\n");
        let again = LetIn::new(&file, "ssh-ed25519 AAAA").unwrap();
        again.close().unwrap();
        assert_eq!(text(), "restrict ssh-ed25519 AAAA basalt\n");
        std::fs::write(&file, format!("ssh-rsa MINE me\n{}# end", text())).unwrap();
        first.close().unwrap();
        assert_eq!(text(), "ssh-rsa MINE me\n# end\n");
        assert!(LetIn::new(&file, "command=\"x\" ssh-rsa A").is_err());
        assert!(LetIn::new(&file, "ssh-rsa A\nssh-rsa B").is_err());
    }

    #[test]
    fn host_keys_are_read_without_comments_and_certificates() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("ssh_host_ed25519_key.pub", "ssh-ed25519 AAAA root@x\n");
        write("ssh_host_rsa_key.pub", "ssh-rsa BBBB\n");
        write("ssh_host_rsa_key", "secret");
        write("ssh_host_broken_key.pub", "???\n");
        assert_eq!(host_keys(folder.path()), ["ssh-ed25519 AAAA", "ssh-rsa BBBB"]);
    }
}
