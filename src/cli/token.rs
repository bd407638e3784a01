//! `basalt token`: letting machines in. `create --listen` is where they knock.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, interval};

use super::change::{ChangeArgs, carry_out};
use super::cluster::sync;
use super::context::{Context, hostname, now, own_key, state_folder, store_of, who};
use super::opened::Opened;
use super::print::{Color, Printer, clean};
use super::{ConnectArgs, Ended, RepositoryArgs, ShowArgs};
use crate::diagnostic::{Code, Diagnostic, Result, Severity};
use crate::engine::cluster;
use crate::engine::history::time_text;
use crate::enrol::desk::{Desk, Next, Request};
use crate::enrol::discover::{About, answer};
use crate::enrol::message::{Registration, Reply};
use crate::enrol::token::{self, Token, TokenRecord, base32};
use crate::enrol::wire::{Asked, Identity, PORT, serve};
use crate::fleet::cluster::{Cluster, Node};
use crate::fleet::role::Role;
use crate::store::Store;

#[derive(Subcommand)]
pub enum TokenCommand {
    /// Make a token for one machine, and with --listen let it in
    Create(Box<CreateArgs>),
    /// The tokens, and what became of them
    List(ShowArgs),
    /// Make a token worthless
    Revoke(RevokeArgs),
}

impl TokenCommand {
    pub fn json(&self) -> bool {
        match self {
            TokenCommand::Create(args) => args.json,
            TokenCommand::List(args) => args.json,
            TokenCommand::Revoke(_) => false,
        }
    }
}

#[derive(Args)]
pub struct CreateArgs {
    /// Listen for machines that join, at this address
    #[arg(long, value_name = "ADDRESS[:PORT]", num_args = 0..=1, default_missing_value = "0.0.0.0")]
    listen: Option<String>,
    /// Minutes for which the token is good
    #[arg(long, value_name = "MINUTES", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=1440))]
    expires: u64,
    /// The role that the machine prefers, whatever it says itself
    #[arg(long, value_name = "ROLE")]
    preferred_role: Option<Role>,
    /// Listen on when the token has been used, for other tokens and for machines without one
    #[arg(long, requires = "listen")]
    stay: bool,
    /// Seconds to wait for another run on a host
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    lock_timeout: u64,
    #[command(flatten)]
    repository: RepositoryArgs,
    #[command(flatten)]
    connect: ConnectArgs,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct RevokeArgs {
    /// The token's first part
    id: String,
    #[command(flatten)]
    repository: RepositoryArgs,
}

pub async fn run(command: TokenCommand, color: Color) -> Ended {
    let printer = Arc::new(Printer::new(command.json(), color));
    match command {
        TokenCommand::Create(args) => create(*args, printer).await,
        TokenCommand::List(args) => list(&args, &printer),
        TokenCommand::Revoke(args) => {
            token::revoke(store_of(&args.repository)?.as_ref(), args.id.split('-').next().unwrap_or_default())?;
            printer.say("Revoked.");
            Ok(0)
        }
    }
}

fn list(args: &ShowArgs, printer: &Printer) -> Ended {
    let now = now();
    let tokens = token::all(store_of(&args.repository)?.as_ref())?;
    for token in &tokens {
        let node = match &token.standing {
            token::Standing::Held { node, .. } | token::Standing::Used { node } => Some(node.as_str()),
            token::Standing::Free | token::Standing::Revoked => None,
        };
        let state = token.state(now);
        printer.json(&json!({"type": "token", "token": token.id, "state": state, "node": node, "expires": token.expires, "by": token.by}));
        let by = node.map_or(String::new(), |node| format!(" by {}", clean(node)));
        printer.say(&format!("{}  {state}{by}  until {}  made by {}", token.id, time_text(token.expires), clean(&token.by)));
    }
    if tokens.is_empty() {
        printer.say("No tokens: `basalt token create --listen` makes one.");
    }
    Ok(0)
}

async fn create(args: CreateArgs, printer: Arc<Printer>) -> Ended {
    let store = store_of(&args.repository)?;
    let identity = Identity::of(&kept(&state_folder().join("enrol_key"), Identity::make)?)?;
    // Who listens first, has the address before anybody is told it.
    let listener = args.listen.as_deref().map(listen).transpose()?;
    let address = match &listener {
        Some((_, address)) => shown(*address),
        None => "ADDRESS".to_owned(),
    };
    let made = Token::new(identity.pin)?;
    let (id, text) = (made.id.clone(), made.to_text());
    let record = TokenRecord::new(&made, who(), now(), args.expires * 60, args.preferred_role.map(|role| role.name().to_owned()));
    token::keep(store.as_ref(), &record)?;
    let command = format!("basalt join {address} --token {text}");
    let fingerprint = grouped(&identity.pin);
    printer.json(&json!({
        "type": "token_created", "token": id, "text": text, "expires": record.expires, "address": address, "command": command, "fingerprint": fingerprint,
    }));
    printer.say(&format!("For one machine, until {}. On it, as root:\n\n    {command}\n", time_text(record.expires)));
    let Some((listener, listens)) = listener else {
        printer.say("Nobody listens yet: `basalt token create --listen --stay` does, for all tokens.");
        return Ok(0);
    };
    printer.say(&format!("Listening at {address}. The controller's fingerprint is {fingerprint}."));
    let (questions, asked) = mpsc::channel(64);
    serve(listener, &identity, questions.clone());
    // Who has its address needs no discovery.
    if let Err(fault) = discoverable(identity, listens, args.repository.clone(), questions) {
        printer.fault(&Diagnostic { severity: Severity::Warning, ..*fault });
    }
    Door { args, printer, store, watched: id }.open(asked).await
}

/// A file of this controller's own, made when it is not there.
fn kept(path: &Path, make: impl FnOnce() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let fault = |e: std::io::Error| Diagnostic::io(format_args!("keep {}", path.display()), &e);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(fault)?;
    }
    match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => {
            let bytes = make()?;
            file.write_all(&bytes).map_err(fault)?;
            Ok(bytes)
        }
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => std::fs::read(path).map_err(|e| fault(e).into()),
        Err(e) => Err(fault(e).into()),
    }
}

fn listen(text: &str) -> Result<(TcpListener, SocketAddr)> {
    let with_port = if text.parse::<SocketAddr>().is_ok() { text.to_owned() } else { format!("{text}:{PORT}") };
    let fault = |e: std::io::Error| Diagnostic { code: Code::Usage, ..Diagnostic::io(format_args!("listen at {with_port}"), &e) };
    let listener = TcpListener::bind(&with_port).map_err(fault)?;
    let address = listener.local_addr().map_err(fault)?;
    Ok((listener, address))
}

/// Machines that look for a controller find this one, as long as it listens.
fn discoverable(identity: Identity, at: SocketAddr, repository: RepositoryArgs, questions: mpsc::Sender<Asked>) -> Result<()> {
    let about = move || {
        let cluster = cluster::read(&Opened::at(&repository, None).ok()?.snapshot).ok()?;
        Some(About { cluster_id: cluster.id, address: at.ip(), port: at.port(), node_count: cluster.nodes.len() })
    };
    answer(identity, about, move || questions.is_closed())
}

/// As others reach it: of all addresses the one that leads out, or else this machine's name.
fn shown(address: SocketAddr) -> String {
    let port = if address.port() == PORT { String::new() } else { format!(":{}", address.port()) };
    if !address.ip().is_unspecified() {
        return if address.is_ipv4() { format!("{}{port}", address.ip()) } else { address.to_string() };
    }
    // Connecting a datagram socket sends nothing; it only asks for the route.
    let out = UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr()));
    match out {
        Ok(out) => format!("{}{port}", out.ip()),
        Err(_) => format!("{}{port}", hostname()),
    }
}

/// For people to compare: in groups of four.
pub fn grouped(pin: &[u8]) -> String {
    let text = base32(pin);
    text.as_bytes().chunks(4).map(String::from_utf8_lossy).collect::<Vec<_>>().join("-")
}

/// The public part of the controller's ssh key, which is made when it is first asked for.
fn ssh_key() -> Result<String> {
    let path = own_key();
    let public = path.with_extension("pub");
    if !path.is_file() {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| Diagnostic::io(format_args!("make {}", folder.display()), &e))?;
        }
        let made =
            std::process::Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "basalt", "-f"]).arg(&path).output();
        let made = made.map_err(|e| Diagnostic::new(Code::Failed, format!("cannot run ssh-keygen: {e}")))?;
        if !made.status.success() {
            return Err(Diagnostic::new(Code::Failed, "ssh-keygen makes no key")
                .detail(String::from_utf8_lossy(&made.stderr).trim())
                .into());
        }
    }
    let text = std::fs::read_to_string(&public).map_err(|e| Diagnostic::io(format_args!("read {}", public.display()), &e))?;
    Ok(text.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
}

/// Whether a machine is a node already: it has the same name and the same host keys.
fn is_node(cluster: &Cluster, asks: &Registration) -> bool {
    let same = |node: &Node| node.host.id == asks.id && node.host.host_keys == asks.host_keys;
    !asks.host_keys.is_empty() && cluster.nodes.iter().any(same)
}

/// Where machines knock, until the token has been used.
struct Door {
    args: CreateArgs,
    printer: Arc<Printer>,
    store: Arc<dyn Store>,
    watched: String,
}

type Joining<'a> = Pin<Box<dyn Future<Output = Reply> + 'a>>;

impl Door {
    async fn open(self, mut asked: mpsc::Receiver<Asked>) -> Ended {
        let taken = |asks: &Registration| -> Result<bool> {
            let opened = Opened::at(&self.args.repository, None)?;
            let known = opened.roster(&self.args.repository)?.get(&asks.id).is_some();
            Ok(known && !is_node(&cluster::read(&opened.snapshot)?, asks))
        };
        let opened = Opened::at(&self.args.repository, None)?;
        let cluster = cluster::read(&opened.snapshot)?.id;
        let desk = Desk { store: self.store.as_ref(), cluster, key: ssh_key()?, taken: &taken };
        // One joins at a time: the roles of the next depend on it.
        let mut turns: VecDeque<(Box<Request>, oneshot::Sender<Reply>)> = VecDeque::new();
        let mut joining: Option<(Box<Request>, oneshot::Sender<Reply>, Joining<'_>)> = None;
        let mut clock = interval(Duration::from_secs(1));
        loop {
            if joining.is_none()
                && let Some((request, reply)) = turns.pop_front()
            {
                let work: Joining<'_> = Box::pin(self.join(request.clone()));
                joining = Some((request, reply, work));
            }
            let ended = async {
                match &mut joining {
                    Some((_, _, work)) => work.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(question) = asked.recv() => match desk.next(question.ask, question.from, now()) {
                    Next::Answer(reply) => {
                        self.told(&reply, question.from);
                        let _ = question.reply.send(reply);
                    }
                    Next::Join(request) => {
                        self.printer.say(&format!("{} is ready, at {}.", clean(&request.registration.id), question.from));
                        turns.push_back((request, question.reply));
                    }
                },
                done = ended => {
                    let Some((request, reply, _)) = joining.take() else { continue };
                    let joined = matches!(done, Reply::Joined { .. });
                    desk.ended(&request, joined)?;
                    let _ = reply.send(done);
                    // The answer is on its way while the next turn begins.
                    if joined && !self.args.stay && request.token.as_deref() == Some(self.watched.as_str()) {
                        tokio::time::sleep(Duration::from_millis(300)).await;
                        return Ok(0);
                    }
                }
                _ = clock.tick() => {
                    if !self.args.stay && joining.is_none() && turns.is_empty() && let Some(why) = self.is_over()? {
                        return Err(Diagnostic::new(Code::Failed, format!("nobody has joined with the token, which is {why}")).into());
                    }
                }
            }
        }
    }

    /// Why nobody can come any more with the token.
    fn is_over(&self) -> Result<Option<&'static str>> {
        let now = now();
        let record = token::all(self.store.as_ref())?.into_iter().find(|record| record.id == self.watched);
        Ok(record.map(|record| record.state(now)).filter(|state| matches!(*state, "expired" | "revoked")))
    }

    fn told(&self, reply: &Reply, from: std::net::IpAddr) {
        match reply {
            Reply::Refused { why } => {
                let fault = Diagnostic::new(Code::Usage, format!("{from} is refused: {why}"));
                self.printer.fault(&Diagnostic { severity: Severity::Warning, ..fault });
            }
            Reply::Welcome { .. } => self.printer.say(&format!("{from} may join.")),
            _ => {}
        }
    }

    /// Makes a node of a machine, or takes everything back.
    async fn join(&self, request: Box<Request>) -> Reply {
        match self.carry_out(&request).await {
            Ok(reply) => reply,
            Err(fault) => {
                self.printer.fault(&fault);
                Reply::Failed { why: fault.summary }
            }
        }
    }

    async fn carry_out(&self, request: &Request) -> Result<Reply> {
        let id = request.registration.id.clone();
        let node = request.node(time_text(now()))?;
        self.reach(&node.host).await?;
        let (repository, connect) = (self.args.repository.clone(), self.args.connect.clone());
        let change = ChangeArgs::whole(repository, connect, true, self.args.json).waiting(self.args.lock_timeout);
        let begun = is_node(&cluster::read(&Opened::at(&self.args.repository, None)?.snapshot)?, &request.registration);
        let ended = match begun {
            // The commit is there: a controller that went away in the middle has left the rest.
            true => sync(&change, self.printer.clone()).await,
            false => carry_out(&change, self.printer.clone(), |snapshot| cluster::add(snapshot, node.clone())).await,
        };
        if begun && !matches!(ended, Ok(0 | 4)) {
            let _ = carry_out(&change, self.printer.clone(), |snapshot| cluster::remove(snapshot, &id)).await;
        }
        match ended {
            // Others that could not be reached get their new role when they are there again.
            Ok(0 | 4) => {}
            Ok(code) | Err(super::End::Code(code)) => {
                let why = format!("the states of its role failed (exit code {code}); the controller has taken all of it back");
                return Ok(Reply::Failed { why });
            }
            Err(super::End::Fault(fault)) => return Err(fault),
        }
        let opened = Opened::at(&self.args.repository, None)?;
        let role = cluster::read(&opened.snapshot)?.node(&id)?.role.map_or("none", Role::name);
        self.printer.json(&json!({"type": "joined", "node": id, "role": role, "commit": opened.snapshot.commit}));
        self.printer.say(&format!("{id} has joined, as {role}."));
        Ok(Reply::Joined { id, role: role.to_owned(), commit: opened.snapshot.commit.clone() })
    }

    /// Whether ssh gets there, before anything is committed.
    async fn reach(&self, host: &crate::fleet::Host) -> Result<()> {
        let context = Context::open(&self.args.repository, &self.args.connect, self.printer.clone())?;
        let work = &context.work;
        let session = work.session(host.clone()).await?;
        session.close().await;
        Ok(())
    }
}
