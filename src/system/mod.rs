//! A host as the agent sees it: real files below a root directory, commands, contents by hash, and the journal behind every change.
//!
//! There is no fake filesystem: tests use a temporary root and recorded commands without privilege, and the same cases run on
//! real hosts. Every method that changes the host passes a fault point first (`System::mutating`), so that tests can stop a run
//! at any mutation and see that the journal takes it back.

pub mod command;

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use crate::diagnostic::Result;

pub use command::{Command, Exec, Output};

pub struct System {
    root: PathBuf,
    exec: Box<dyn Exec>,
    faults: RefCell<Faults>,
}

/// Counts mutations and stops at the one a test asked for.
#[derive(Default)]
struct Faults {
    passed: u64,
    stop_at: Option<u64>,
}

impl System {
    /// The host below `root` (`/` on a real one; a directory in tests, demos and images), running commands through `exec`.
    pub fn at(root: impl Into<PathBuf>, exec: Box<dyn Exec>) -> System {
        System { root: root.into(), exec, faults: RefCell::default() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where an absolute path of the host really is.
    pub fn path(&self, host_path: &str) -> PathBuf {
        self.root.join(host_path.trim_start_matches('/'))
    }

    /// Runs a command to its end, without a shell unless the command is one.
    pub fn run(&self, command: &Command) -> Result<Output> {
        self.exec.run(command, &mut |_| {})
    }

    /// The fault point before every mutation; `what` names it in errors and traces.
    pub fn mutating(&self, what: &str) -> Result<()> {
        let mut faults = self.faults.borrow_mut();
        faults.passed += 1;
        if faults.stop_at == Some(faults.passed) {
            return Err(crate::diagnostic::Diagnostic::new(
                crate::diagnostic::Code::Interrupted,
                format!("stopped by a fault point before: {what}"),
            )
            .into());
        }
        Ok(())
    }

    /// For tests: the n-th mutation from here (counting from 1) fails instead of happening.
    pub fn fail_at(&self, mutation: u64) {
        *self.faults.borrow_mut() = Faults { passed: 0, stop_at: Some(mutation) };
    }
}
