//! What ssh's last words mean, and what to do.

use crate::diagnostic::{Code, Diagnostic, Error};
use crate::fleet::Host;
use crate::remote::askpass::{self, Kind};

pub fn no_ssh(error: &std::io::Error) -> Error {
    Diagnostic::new(Code::Unreachable, format!("cannot start ssh: {error}")).hint("install the OpenSSH client (openssh-client)").into()
}

pub fn silent(host: &Host, detail: &str) -> Error {
    Diagnostic::new(Code::Unreachable, format!("{} does not answer", place(host)))
        .detail(detail)
        .hint("is it up, and reachable from here? `timeout` in the roster sets how long a connection may take")
        .into()
}

fn place(host: &Host) -> String {
    host.port.map_or_else(|| host.address.clone(), |port| format!("{} port {port}", host.address))
}

/// The error for a login that failed: `said` is what ssh wrote, `asked` what it wanted to know.
pub fn explain(host: &Host, said: &str, asked: &[String], password_known: bool) -> Error {
    let told = |text: &str| said.contains(text);
    let place = place(host);
    let unreachable = |summary: String, hint: &str| Diagnostic::new(Code::Unreachable, summary).hint(hint);
    let error = if told("HOST IDENTIFICATION HAS CHANGED") || told("REVOKED HOST KEY") || told("Host key verification failed") {
        return host_key(host, said, asked);
    } else if told("Could not resolve hostname") {
        unreachable(
            format!("the name {} cannot be resolved", host.address),
            "`host` in the roster is a name that this machine knows, or an address",
        )
    } else if told("Connection refused") {
        unreachable(format!("{place} refuses the connection"), "does sshd run there, and is `port` in the roster right?")
    } else if told("No route to host") || told("Network is unreachable") {
        unreachable(format!("there is no way to {place}"), "the host is down, or the network between is")
    } else if told("timed out") {
        return silent(host, said);
    } else if told("Bad configuration option") || told("Bad owner or permissions on") || told("command-line line 0") || told("keyword") {
        unreachable("ssh does not accept its configuration".into(), "see ~/.ssh/config, and ssh_options in the roster")
    } else if told("Too many authentication failures") {
        unreachable(
            format!("{place} gave up: too many keys were tried"),
            "name the key with `priv` and set `identities_only: True` in the roster",
        )
    } else if told("Permission denied") {
        return refused(host, said, asked, password_known);
    } else if told("no matching") || told("Unable to negotiate") {
        unreachable(format!("{place} and this machine's ssh share no algorithm"), "ssh_options in the roster can allow an older one")
    } else if told("Connection closed") || told("Connection reset") || told("kex_exchange_identification") {
        unreachable(
            format!("{place} closed the connection before any login"),
            "its sshd is overloaded (MaxStartups), blocks this address, or this is no sshd",
        )
    } else {
        Diagnostic::new(Code::Unreachable, format!("ssh could not connect to {place}"))
    };
    error.detail(said).into()
}

/// Nothing was sent to a host whose key is not the known one.
fn host_key(host: &Host, said: &str, asked: &[String]) -> Error {
    let name = host.port.filter(|port| *port != 22).map_or_else(|| host.address.clone(), |port| format!("[{}]:{port}", host.address));
    if said.contains("REVOKED HOST KEY") {
        return Diagnostic::new(Code::HostKey, format!("{} presents a host key that is marked as revoked", host.address))
            .detail(plain(said))
            .hint("give the host a new key; nothing was sent to it")
            .into();
    }
    if said.contains("HAS CHANGED") {
        return Diagnostic::new(Code::HostKey, format!("the host key of {} is another than the known one", host.address))
            .detail(plain(said))
            .hint(format!(
                "if the host was set up anew: ssh-keygen -R '{name}', then log in once with ssh; if not, somebody may be between"
            ))
            .into();
    }
    // ssh asked whether to go on, and the fingerprint stood in the question.
    let question = asked.iter().find(|question| question.contains("fingerprint"));
    let fingerprint = question.and_then(|question| question.lines().find(|line| line.contains("fingerprint is")));
    let detail = [fingerprint.unwrap_or_default(), &plain(said)].join("\n");
    let login = host.user.as_ref().map_or_else(|| host.address.clone(), |user| format!("{user}@{}", host.address));
    let port = host.port.map_or_else(String::new, |port| format!("-p {port} "));
    Diagnostic::new(Code::HostKey, format!("the host key of {} is not known", host.address))
        .detail(detail.trim())
        .hint(format!(
            "compare it with the host's own (there: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), then log in once: ssh {port}{login}"
        ))
        .into()
}

fn refused(host: &Host, said: &str, asked: &[String], password_known: bool) -> Error {
    let methods = said.rsplit_once("Permission denied (").and_then(|(_, rest)| rest.split_once(')')).map_or("", |(methods, _)| methods);
    let user = host.user.as_deref().unwrap_or("the login user");
    let asked_for = |kind: Kind| asked.iter().find(|question| askpass::kind(question) == kind);
    let by_password = methods.contains("password") || methods.contains("keyboard-interactive");
    let error = Diagnostic::new(Code::Unreachable, format!("{} does not let {user} in (it accepts {methods})", host.address));
    let error = if said.contains("UNPROTECTED PRIVATE KEY") || said.contains("bad permissions") {
        error.hint("others can read the key file, so ssh does not use it: chmod 600")
    } else if let (Some(question), None) = (asked_for(Kind::Passphrase), &host.key_password) {
        let key = question.split('\'').nth(1).unwrap_or("the key");
        error.hint(format!("{key} has a passphrase: ssh-add it, or `priv_passwd` in the roster"))
    } else if host.key_password.is_some() && asked_for(Kind::Passphrase).is_some() && !by_password {
        error.hint("`priv_passwd` in the roster may be wrong, or the host does not know the key")
    } else if password_known && by_password {
        error.hint("the password is wrong, or this user may not log in with one")
    } else if by_password {
        error.hint("name a key the host knows (`priv` in the roster, or ssh-agent), or let --ask-pass ask for the password")
    } else {
        error.hint("name a key the host knows: `priv` in the roster, ssh-agent, or ~/.ssh/config; ssh-copy-id brings one there")
    };
    error.detail(said).into()
}

/// Without the frame of `@` that ssh draws.
fn plain(said: &str) -> String {
    said.lines().filter(|line| !line.contains("@@@@")).map(|line| line.trim_matches(['@', ' '])).collect::<Vec<_>>().join("\n")
}
