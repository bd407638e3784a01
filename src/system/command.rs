//! Commands on the host: what to run, how, and what came of it. One method to implement, so that tests can record.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::diagnostic::Result;

/// A program to run. Arguments go as they are; nothing is ever pasted into a shell string.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Command {
    pub argv: Vec<String>,
    /// Added to a small fixed environment (PATH, LANG=C.UTF-8, HOME …).
    pub env: Vec<(String, String)>,
    pub cwd: Option<String>,
    /// User and group names to run as; the agent's own where `None`.
    pub user: Option<String>,
    pub group: Option<String>,
    pub umask: Option<u32>,
    pub stdin: Vec<u8>,
    pub timeout: Option<Duration>,
}

impl Command {
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Command {
        Command { argv: argv.into_iter().map(Into::into).collect(), ..Command::default() }
    }
}

/// What came of a command. Output is bounded; what was cut is said in the text itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// The exit code; 128 + signal where a signal ended it.
    pub status: i32,
    /// The process's number, while it ran.
    pub pid: u32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub timed_out: bool,
}

impl Output {
    pub fn success(&self) -> bool {
        self.status == 0 && !self.timed_out
    }

    /// Standard output as text, without the final line break.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end_matches('\n').to_owned()
    }
}

/// Runs commands. Real on a host, recorded in tests.
pub trait Exec: Send {
    /// `output` gets pieces of standard output and error as they come.
    /// An error means that the program could not be started; a failing program is an `Output`.
    fn run(&self, command: &Command, output: &mut dyn FnMut(&[u8])) -> Result<Output>;
}
