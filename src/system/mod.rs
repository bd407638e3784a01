//! A host as the agent sees it: real files below a root directory, commands, contents by hash, and the journal behind every change.
//!
//! There is no fake filesystem: tests use a temporary root and recorded commands without privilege, and the same cases run on
//! real hosts. Every method that changes the host passes a fault point first (`System::mutating`), so that tests can stop a run
//! at any mutation and see that the journal takes it back.

pub mod command;
mod contents;
mod exec;
mod files;
mod identity;
pub mod journal;
mod keep;
pub mod memory;
#[cfg(test)]
pub mod tests;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::diagnostic::{Code, Diagnostic, Result};
use crate::plan::Hash;

pub use command::{Command, Exec, Output};
pub use contents::{Contents, Fetch, Spooled};
pub use exec::HostExec;
pub use files::{FileKind, Meta, Stat};
pub use identity::{Group, User};
pub use journal::Entry;
pub use memory::{Made, Memory};

/// Where basalt keeps what it must remember on a host: journals, kept contents, the lock.
pub const STATE_DIR: &str = "/var/lib/basalt";

pub struct System {
    root: PathBuf,
    exec: Box<dyn Exec>,
    faults: RefCell<Faults>,
    identities: identity::Identities,
    contents: Contents,
    run: RefCell<Option<journal::Run>>,
    cancelled: Arc<AtomicBool>,
    /// Where it looked last, for who sees that it hangs there.
    last_place: Arc<Mutex<PathBuf>>,
}

/// Counts mutations and stops at the one a test asked for.
#[derive(Default)]
struct Faults {
    passed: u64,
    stop_at: Option<u64>,
    #[cfg(debug_assertions)]
    kill_at: Option<u64>,
}

impl System {
    /// The host below `root` (`/` on a real one; a directory in tests, demos and images), running commands through `exec`.
    pub fn at(root: impl Into<PathBuf>, exec: Box<dyn Exec>) -> System {
        let root = root.into();
        let spool = root.join(STATE_DIR.trim_start_matches('/')).join("spool");
        System {
            exec,
            faults: RefCell::default(),
            identities: identity::Identities::default(),
            contents: Contents::new(spool),
            run: RefCell::new(None),
            cancelled: Arc::default(),
            last_place: Arc::default(),
            root,
        }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Contents by hash, whoever has them.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// A file of the host had this content when it was read: it need not travel.
    pub fn note_file(&self, hash: &Hash, path: &str) {
        self.contents.note(hash, self.followed(path));
    }

    /// Runs a command to its end, without a shell unless the command is one.
    pub fn run(&self, command: &Command) -> Result<Output> {
        self.exec.run(command, &mut |_| {})
    }

    /// As `run`; `output` gets pieces of standard output and error as they come.
    pub fn run_streaming(&self, command: &Command, output: &mut dyn FnMut(&[u8])) -> Result<Output> {
        self.exec.run(command, output)
    }

    /// Whether the run is to stop before its next state.
    pub fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Who sets it makes `cancelled` true.
    pub fn cancel_flag(&self) -> Arc<AtomicBool> {
        self.cancelled.clone()
    }

    /// The path that was looked at last, now and from now on.
    pub fn last_place(&self) -> Arc<Mutex<PathBuf>> {
        self.last_place.clone()
    }

    /// The fault point before every mutation; `what` names it in errors and traces.
    pub fn mutating(&self, what: &str) -> Result<()> {
        let mut faults = self.faults.borrow_mut();
        faults.passed += 1;
        #[cfg(debug_assertions)]
        if faults.kill_at == Some(faults.passed) {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
        if faults.stop_at.is_some_and(|n| faults.passed >= n) {
            return Err(Diagnostic::new(Code::Interrupted, format!("stopped by a fault point before: {what}")).into());
        }
        Ok(())
    }

    /// For tests: the n-th mutation from here (counting from 1) and every one after it fails instead of happening, as if the agent
    /// had been killed there. `None`: all go through again.
    pub fn fail_at(&self, mutation: impl Into<Option<u64>>) {
        *self.faults.borrow_mut() = Faults { stop_at: mutation.into(), ..Faults::default() };
    }

    /// For tests: how many mutations there were since the start or the last `fail_at`.
    pub fn mutations(&self) -> u64 {
        self.faults.borrow().passed
    }

    /// For tests with a real agent: it kills itself at the n-th mutation. Release builds do not contain it.
    #[cfg(debug_assertions)]
    pub fn kill_at(&self, mutation: u64) {
        self.faults.borrow_mut().kill_at = Some(mutation);
    }

    /// A killed agent cleans up nothing: neither does one that a fault point has stopped.
    fn stopped_by_fault(&self) -> bool {
        let faults = self.faults.borrow();
        faults.stop_at.is_some_and(|n| faults.passed >= n)
    }
}
