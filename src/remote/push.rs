//! Finds the agent on a host or sends it there, in one command of the login shell.
//!
//! The command is a POSIX sh script as one quoted argument. It runs the agent where a cache of the user it runs as has it by its hash;
//! otherwise it asks for it (`need`), receives it into a directory that belongs to that user alone, tries it, and runs it. A directory that
//! will not do (read-only, full, noexec) gives way to the next one; when none will do, `fail` tells why for each. The host's environment
//! may name the directory that is tried first (`BASALT_CACHE`; else /var/cache/basalt, which only root can write).
//! `sudo` comes before the script: what runs as root lies in root's own directory.

use std::borrow::Cow;
use std::time::Duration;

use crate::agent::protocol::MAGIC;
use crate::diagnostic::{Code, Diagnostic, Error, Result};
use crate::engine::link::{Link, Wire, printable};
use crate::fleet::{Host, Secret};
use crate::plan::Hash;

/// A host-side binary and the machine it is for.
#[derive(Clone, Debug)]
pub struct Agent {
    /// As `uname -sm` names it: `Linux x86_64`.
    pub machine: String,
    pub bytes: Cow<'static, [u8]>,
    pub hash: Hash,
}

/// The host-side binaries that there are.
#[derive(Clone, Debug, Default)]
pub struct Agents(pub Vec<Agent>);

impl Agents {
    /// Those that this program was built with.
    pub fn carried() -> Agents {
        let bytes: &'static [u8] = include_bytes!(env!("BASALT_AGENT"));
        let agent =
            Agent { machine: env!("BASALT_AGENT_MACHINE").into(), bytes: bytes.into(), hash: Hash(env!("BASALT_AGENT_HASH").into()) };
        Agents(if bytes.is_empty() { Vec::new() } else { vec![agent] })
    }

    pub fn add(&mut self, machine: impl Into<String>, bytes: impl Into<Cow<'static, [u8]>>) {
        let bytes = bytes.into();
        let hash = Hash::of(&bytes);
        self.0.push(Agent { machine: machine.into(), bytes, hash });
    }
}

const NEED: &[u8] = b"\nbasalt-push need ";
const FAIL: &[u8] = b"\nbasalt-push fail ";
/// sudo's prompt; nothing else prints it.
const PROMPT: &str = "[basalt] sudo password:";

/// Each line ends where a shell lets a line end, because all become one line: csh knows no line breaks within quotes. For the sake of
/// csh and fish there is neither `'` nor `!` nor a backslash in it.
const SCRIPT: &str = r#"
h=; case "$(uname -sm)" in @CASES@ esac; n=basalt-agent-$h; b=${BASALT_CACHE:-/var/cache/basalt}; c=${HOME:-/}/.cache;
if [ "$h" ]; then for d in "$b" "$c/basalt"; do
if [ -f "$d/$n" ] && [ -x "$d/$n" ] && [ -O "$d/$n" ]; then exec "$d/$n" "$@"; fi; done; fi;
say() { echo; echo "basalt-push $*"; };
if [ -z "$h" ]; then say need "$(uname -sm)"; exit 1; fi;
private() { umask 077; [ -d "$1" ] || mkdir "$1" || return;
if [ -h "$1" ] || [ ! -O "$1" ]; then echo "belongs to somebody else"; return 1; fi;
chmod 700 "$1" || return; echo : > "$2" && chmod 700 "$2" || return;
"$2" 2>/dev/null || { echo "programs there cannot be run (noexec)"; return 1; }; };
if head -c 1 /dev/null 2>/dev/null; then take() { head -c "$1"; }; else take() { dd bs=1 count="$1" 2>/dev/null; }; fi;
receive() { umask 077; take "$1" | { cat > "$2" || { cat > /dev/null; false; }; }; };
whole() { s=$(sha256sum < "$1" 2>/dev/null); case "$s" in "$3"*) ;; "") [ "$(($(wc -c < "$1")))" = "$2" ];; *) false;; esac; };
u=$(id -u); [ -d "$c" ] || mkdir -m 700 "$c" 2>/dev/null; why=;
for d in "$b" "$c/basalt" /run/user/$u/basalt /var/tmp/basalt-$u /dev/shm/basalt-$u /tmp/basalt-$u; do
[ -d "${d%/*}" ] || continue; f=$d/$n; t=$f.$$;
if [ -d "$d" ] && [ -O "$d" ] && [ -f "$f" ] && [ -x "$f" ] && [ -O "$f" ]; then exec "$f" "$@"; fi;
if r=$(private "$d" "$t" 2>&1); then say need "$(uname -sm)"; read -r size sum || exit 1;
if r=$(receive "$size" "$t" 2>&1); then
if r="it arrived damaged"; whole "$t" "$size" "$sum"; then
if r=$("$t" --probe 2>&1) && mv -f "$t" "$f"; then
find "$d" -type f -name "basalt-agent-*" -atime +7 -exec rm -f {} + 2>/dev/null;
exec "$f" "$@"; fi; fi; fi; fi;
rm -f "$t" 2>/dev/null; why="$why$d: $(echo $r); "; done;
say fail "$why"; exit 1
"#;

/// The command for the host's login shell.
pub fn command(host: &Host, agents: &Agents, sudo_password: bool) -> String {
    argv(host, agents, sudo_password).iter().map(|arg| quote(arg)).collect::<Vec<_>>().join(" ")
}

/// The same as arguments of a process.
pub fn argv(host: &Host, agents: &Agents, sudo_password: bool) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut add = |words: &[&str]| out.extend(words.iter().map(|word| (*word).to_owned()));
    if host.sudo {
        add(&["sudo"]);
        add(if sudo_password { &["-S", "-p", PROMPT] } else { &["-n"] });
        add(&["-H", "-u", host.sudo_user.as_deref().unwrap_or("root"), "--"]);
    }
    let cases: Vec<String> = agents.0.iter().map(|agent| format!("\"{}\") h={};;", agent.machine, short(&agent.hash))).collect();
    add(&["sh", "-c", &SCRIPT.trim().replace("@CASES@", &cases.join(" ")).replace('\n', " "), "basalt-agent"]);
    if let Some(root) = &host.root {
        add(&["--root", root]);
    }
    out
}

fn short(hash: &Hash) -> &str {
    hash.0.get(..12).unwrap_or(&hash.0)
}

/// One word for sh, csh, fish, rc and their like. What they do not agree on (quotes, `!`, backslashes, line breaks) the roster refuses.
fn quote(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@".contains(c);
    if !word.is_empty() && word.chars().all(plain) { Cow::Borrowed(word) } else { Cow::Owned(format!("'{word}'")) }
}

/// What was begun with `command`: gives the password where it is asked for, sends the agent where it is missing, shakes hands.
pub async fn start(mut wire: Wire, host: &Host, agents: &Agents, sudo_password: Option<&Secret>) -> Result<Link> {
    let errors = wire.errors.clone();
    let mut asked = 0;
    loop {
        let found = tokio::select! {
            found = wire.until(&[MAGIC, NEED, FAIL]) => found.map_err(|error| explain(error, host))?,
            () = errors.seen(PROMPT, asked + 1) => {
                asked += 1;
                match sudo_password {
                    Some(Secret(password)) if asked == 1 => wire.write(format!("{password}\n").as_bytes()).await?,
                    _ => return Err(refused(host)),
                }
                continue;
            }
        };
        match found {
            (0, _) => return Link::after_magic(wire).await,
            (1, _) => {
                let machine = printable(&wire.until(&[b"\n"]).await?.1);
                let agent = agents.0.iter().find(|agent| agent.machine == machine).ok_or_else(|| no_agent(&machine, agents))?;
                send(&mut wire, agent).await?;
            }
            _ => {
                let why = printable(&wire.until(&[b"\n"]).await?.1);
                return Err(nowhere(&why));
            }
        }
    }
}

async fn send(wire: &mut Wire, agent: &Agent) -> Result<()> {
    // On a slow line the host says nothing while it receives: what was written may still be under way.
    let patience = Duration::from_secs(10 + agent.bytes.len() as u64 / 8192);
    let silence = std::mem::replace(&mut wire.silence, patience);
    wire.write(format!("{} {}\n", agent.bytes.len(), agent.hash).as_bytes()).await?;
    wire.write(&agent.bytes).await?;
    wire.silence = wire.silence.max(silence);
    Ok(())
}

fn no_agent(machine: &str, agents: &Agents) -> Error {
    let known: Vec<&str> = agents.0.iter().map(|agent| agent.machine.as_str()).collect();
    let error = Diagnostic::new(Code::Unreachable, format!("basalt carries no agent for this host: it is {machine}"));
    match known.as_slice() {
        [] => error.hint("this basalt was built without any agent (BASALT_SKIP_AGENT)"),
        known => error.detail(format!("it carries agents for {}", known.join(", "))),
    }
    .into()
}

fn nowhere(why: &str) -> Error {
    let detail: Vec<&str> = why.split("; ").map(|part| part.trim_matches([' ', ';'])).filter(|part| !part.is_empty()).collect();
    Diagnostic::new(Code::Unreachable, "the agent found no place on the host")
        .detail(detail.join("\n"))
        .hint("one of these directories must be writable, allow programs to run and have 4 MB free")
        .into()
}

fn refused(host: &Host) -> Error {
    let user = host.user.as_deref().unwrap_or("the login user");
    Diagnostic::new(Code::Unreachable, format!("sudo does not accept the password of {user}"))
        .hint("--ask-sudo-pass asks for it; it is the login user's own password")
        .into()
}

/// Turns "the agent did not start" into what is really the matter, where its output tells.
fn explain(mut error: Error, host: &Host) -> Error {
    let told = |text: &str| error.detail.contains(text);
    let hint = if host.sudo && (told("a password is required") || told("a terminal is required to read the password")) {
        "sudo wants a password: --ask-sudo-pass asks for it, or let /etc/sudoers say NOPASSWD for this user"
    } else if host.sudo && told("must have a tty") {
        "the host's sudoers say requiretty, which basalt cannot give: take it out (Defaults !requiretty) or log in as root"
    } else if host.sudo && (told("sudoers") || told("not allowed to")) {
        "the login user may not use sudo on this host as the roster asks: see /etc/sudoers there"
    } else if host.sudo && told("sudo") && told("not found") {
        "there is no sudo on this host: log in as root, or install sudo"
    } else if told("not available") || told("nologin") || told("restricted") {
        "the login user's shell does not allow commands: basalt needs one that runs `sh`"
    } else {
        return error;
    };
    error.hint = Some(hint.to_owned());
    error
}

#[cfg(test)]
mod tests;
