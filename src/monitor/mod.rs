//! `basalt monitor`, on nodes `basalt-agent monitor`: keeps filesystems from filling up, by `storage-ops.yaml` alone.
//!
//! A pass looks at every filesystem of the host, decides its tier (`decide`), acts until it is below it again (`act`), and tells what it saw and did: a line of JSON
//! each (systemd's journal takes them with their priority), and a text file for node exporters. History and tiers are kept between passes.

mod act;
mod config;
mod decide;
mod pass;
mod record;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::config::Config;
use self::decide::Tier;
use self::pass::Pass;
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::system::HostExec;

pub const CONFIG: &str = "/etc/eos/storage-ops.yaml";

/// How the monitor is started.
#[derive(Default)]
pub struct Options {
    /// Default: `CONFIG`.
    pub config: Option<PathBuf>,
    /// Pass after pass, at the interval of the configuration.
    pub daemon: bool,
    /// Say what would be done, and do nothing; nothing is remembered either.
    pub dry_run: bool,
}

impl Options {
    /// From the words of a command line.
    pub fn parse(mut words: impl Iterator<Item = String>) -> std::result::Result<Options, String> {
        let mut options = Options::default();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--config" => options.config = Some(words.next().ok_or("--config needs a file")?.into()),
                "--daemon" => options.daemon = true,
                "--dry-run" => options.dry_run = true,
                _ => return Err(format!("monitor knows no argument {word}")),
            }
        }
        Ok(options)
    }
}

/// Where events go, a line each. Under systemd each line begins with its priority.
pub struct Events<'a> {
    to: &'a mut dyn Write,
    journal: bool,
}

/// Priorities of syslog.
pub const ERROR: u8 = 3;
pub const WARNING: u8 = 4;
pub const NOTICE: u8 = 5;
pub const INFO: u8 = 6;

impl Events<'_> {
    pub fn tell(&mut self, priority: u8, event: &serde_json::Value) -> Result<()> {
        let prefix = if self.journal { format!("<{priority}>") } else { String::new() };
        let written = writeln!(self.to, "{prefix}{event}").and_then(|()| self.to.flush());
        written.map_err(|e| Diagnostic::io("write an event", &e).into())
    }
}

/// Runs the monitor. Gives whether some filesystem is at `critical`, where a person is needed.
pub fn run(options: &Options, to: &mut dyn Write) -> Result<bool> {
    let path = options.config.clone().unwrap_or_else(|| CONFIG.into());
    let config = Config::read(&path)?;
    let exec = HostExec::new(Path::new("/"), Arc::default());
    let mut events = Events { to, journal: std::env::var_os("JOURNAL_STREAM").is_some() };
    loop {
        let worst = Pass { config: &config, exec: &exec, dry_run: options.dry_run, now: now()? }.run(&mut events)?;
        if !options.daemon {
            return Ok(worst == Some(Tier::Critical));
        }
        std::thread::sleep(config.interval);
    }
}

fn now() -> Result<u64> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map(|since| since.as_secs()).map_err(|_| Diagnostic::new(Code::Failed, "the clock stands before 1970").into())
}
