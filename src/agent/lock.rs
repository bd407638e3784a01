//! One run at a time on a host: an advisory lock on a file, which dies with its owner whatever kills it, and which names its owner.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::diagnostic::{Code, Diagnostic, Result};
use crate::plan::RunHeader;
use crate::system::{STATE_DIR, System};

/// Held as long as it lives. The file is closed on exec: no child inherits it but the guard of a run, which gets it as its own.
#[derive(Debug)]
pub struct Lock {
    file: File,
    /// The guard has it now.
    given: bool,
}

impl Lock {
    /// Takes the host for a run; waits so long for another run to end.
    pub fn take(sys: &System, run: &RunHeader, wait: Duration) -> Result<Lock> {
        let place = sys.make_state_dir()?.join("lock");
        let failed = |e: io::Error| Diagnostic::io(format!("take the lock {STATE_DIR}/lock"), &e);
        let file = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&place).map_err(failed)?;
        // At least a moment: who only asks for the holder has the lock for an instant, too.
        let deadline = Instant::now() + wait.max(Duration::from_millis(100));
        while !try_lock(&file).map_err(failed)? {
            if Instant::now() >= deadline {
                return Err(taken(owner(&file), wait));
            }
            if sys.cancelled() {
                return Err(Diagnostic::new(Code::Interrupted, "stopped while waiting for the lock of another run").into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let mut lock = Lock { file, given: false };
        lock.name(run).map_err(failed)?;
        Ok(lock)
    }

    /// Writes its owner into it.
    pub fn name(&mut self, run: &RunHeader) -> io::Result<()> {
        let text = serde_json::to_vec(run)?;
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(&text)
    }

    /// The same lock for another process, which then holds it too.
    pub fn share(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// A lock that another process has shared.
    pub fn inherited(file: File) -> Lock {
        Lock { file, given: false }
    }

    /// Lets go of it: it stays with whom it was shared with, under the same name.
    pub fn give(mut self) {
        self.given = true;
    }

    /// Whether anybody holds the host now.
    pub fn is_held(sys: &System) -> bool {
        let Ok(file) = File::open(sys.path(STATE_DIR).join("lock")) else { return false };
        matches!(flock(&file, FlockOperation::NonBlockingLockShared), Err(rustix::io::Errno::WOULDBLOCK))
    }

    /// The run that holds the host now, whoever asks.
    pub fn holder(sys: &System) -> Option<RunHeader> {
        let file = File::open(sys.path(STATE_DIR).join("lock")).ok()?;
        // A shared try, given up at once with the file.
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Err(rustix::io::Errno::WOULDBLOCK) => owner(&file),
            _ => None,
        }
    }
}

impl Drop for Lock {
    /// Whoever takes it next is not to be called by the old name before it has written its own.
    fn drop(&mut self) {
        if !self.given {
            let _ = self.file.set_len(0);
        }
    }
}

fn try_lock(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// What a lock says of its owner: nothing in the moment before the owner has written it.
fn owner(mut file: &File) -> Option<RunHeader> {
    let mut text = Vec::new();
    file.rewind().ok()?;
    file.take(1 << 20).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

fn taken(owner: Option<RunHeader>, waited: Duration) -> crate::diagnostic::Error {
    let by = owner.map_or("another run".to_owned(), |run| format!("run {} by {}", run.id, run.who));
    let after = if waited.is_zero() { String::new() } else { format!(" after {} s", waited.as_secs()) };
    Diagnostic::new(Code::Locked, format!("{by} holds this host{after}")).hint("wait for it to end, or use --lock-timeout SECONDS").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::HostExec;
    use std::path::Path;

    fn header(id: &str) -> RunHeader {
        RunHeader {
            id: id.into(),
            who: "ann@desk".into(),
            started: 1,
            tree: "t".into(),
            commit: "c".into(),
            repository: "r".into(),
            rolls_back: vec![],
        }
    }

    fn at(root: &Path) -> System {
        System::at(root, Box::new(HostExec::new(root, Default::default())))
    }

    #[test]
    fn a_second_run_is_refused_by_name_and_a_lock_ends_with_its_owner() {
        let root = tempfile::tempdir().unwrap();
        let sys = at(root.path());
        assert_eq!(Lock::holder(&sys), None);
        let first = Lock::take(&sys, &header("run-1"), Duration::ZERO).unwrap();
        assert_eq!(Lock::holder(&sys).unwrap().id, "run-1");
        let refused = Lock::take(&sys, &header("run-2"), Duration::from_millis(120)).unwrap_err();
        assert_eq!((refused.code, refused.summary.as_str()), (Code::Locked, "run run-1 by ann@desk holds this host after 0 s"));
        drop(first);
        assert_eq!(Lock::holder(&sys), None);
        let given = Lock::take(&sys, &header("run-2"), Duration::ZERO).unwrap();
        let guards = Lock::inherited(given.share().unwrap());
        given.give();
        assert_eq!(Lock::holder(&sys).unwrap().id, "run-2");
        assert!(Lock::is_held(&sys));
        drop(guards);
        assert!(!Lock::is_held(&sys));
    }

    #[test]
    fn a_state_directory_that_others_may_write_to_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let sys = at(root.path());
        let place = sys.make_state_dir().unwrap();
        std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o777)).unwrap();
        let refused = Lock::take(&sys, &header("run-1"), Duration::ZERO).unwrap_err();
        assert!(refused.summary.contains("others may write to it (mode 0777)"), "{refused}");
        if rustix::process::geteuid().is_root() {
            std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o700)).unwrap();
            std::os::unix::fs::chown(&place, Some(65534), None).unwrap();
            assert!(Lock::take(&sys, &header("run-1"), Duration::ZERO).unwrap_err().summary.contains("belongs to user 65534"));
        }
    }
}
