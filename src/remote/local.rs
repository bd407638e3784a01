//! This machine itself, without ssh: the agent as a child process.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::Command;

use crate::diagnostic::{Code, Diagnostic, Result};
use crate::engine::link::{Connect, Errors, Link, Opening, Wire};
use crate::fleet::Host;
use crate::remote::{Settings, push};

pub struct Local(pub Settings);

impl Local {
    async fn start(&self, host: &Host) -> Result<Link> {
        let sudo_password = self.0.sudo_password_of(host);
        let argv = push::argv(host, &self.0.agents, sudo_password.is_some());
        let Some((program, args)) = argv.split_first() else { return Err(Diagnostic::new(Code::Internal, "no command").into()) };
        let mut command = Command::new(program);
        command.args(args);
        let wire = spawn(command, self.0.silence)?;
        push::start(wire, host, &self.0.agents, sudo_password).await
    }
}

impl Connect for Local {
    fn open<'a>(&'a self, host: &'a Host) -> Opening<'a> {
        Box::pin(self.start(host))
    }
}

/// Starts a process of which only its streams are known from then on. When they close it ends by itself, in order: it is never killed.
pub fn spawn(mut command: Command, silence: Duration) -> Result<Wire> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    // In a process group of its own: Ctrl-C at the terminal is for the controller, which tells the agent.
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let failed = |error: &std::io::Error| Diagnostic::new(Code::Unreachable, format!("cannot start {name}: {error}"));
    let mut child = command.spawn().map_err(|error| failed(&error))?;
    let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take()) else {
        return Err(Diagnostic::new(Code::Internal, "a process without its streams").into());
    };
    let errors = Errors::default();
    tokio::spawn(errors.clone().collect(stderr));
    let end = async move { child.wait().await.map_or_else(|error| error.to_string(), ended) };
    let mut wire = Wire::new(stdin, stdout, errors, end);
    wire.silence = silence;
    Ok(wire)
}

/// How a process ended, in words.
pub fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with status {code}"),
        (None, Some(signal)) => format!("it was ended by signal {signal}"),
        (None, None) => "it ended".into(),
    }
}
