//! Sees that the agent hangs in one call of the system. A filesystem whose server is gone (NFS, FUSE) never answers, and nothing that the
//! agent's worker could do would end the wait; so another thread looks at it now and then, and knows where it looked last.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::diagnostic::{Code, Diagnostic};

/// No disk takes so long for one answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The path that was looked at last, as the worker notes it (`System::last_place`).
pub type LastPlace = Arc<Mutex<PathBuf>>;

/// Watches one thread.
pub struct Watch {
    /// What the kernel says of the thread.
    status: PathBuf,
    last: LastPlace,
    patience: Duration,
    /// How often the thread had gone to sleep when that number was new, and when that was.
    slept: Option<(u64, Instant)>,
}

impl Watch {
    /// Of the thread that calls it.
    pub fn this_thread(last: LastPlace) -> Watch {
        let id = rustix::thread::gettid().as_raw_nonzero();
        Watch { status: format!("/proc/self/task/{id}/status").into(), last, patience: PATIENCE, slept: None }
    }

    /// What there is to say, if it sleeps and has not woken for too long. To be called every few seconds while it has something to do.
    pub fn hangs(&mut self) -> Option<Diagnostic> {
        let slept = asleep(&self.status);
        match (slept, self.slept) {
            (Some(now), Some((then, since))) if now == then => {
                if since.elapsed() < self.patience {
                    return None;
                }
                let place = self.last.lock().unwrap_or_else(PoisonError::into_inner).display().to_string();
                let seconds = since.elapsed().as_secs();
                Some(
                    Diagnostic::new(Code::Failed, format!("{place} does not answer: the host has waited {seconds} s for it"))
                        .detail("Something there or above it is a filesystem whose server is gone, or a disk that hangs.")
                        .hint("`umount -l` lets go of a dead mount; states that do not look there can be planned meanwhile"),
                )
            }
            (slept, _) => {
                self.slept = slept.map(|n| (n, Instant::now()));
                None
            }
        }
    }

    /// It has nothing to do, or another thing.
    pub fn rests(&mut self) {
        self.slept = None;
    }
}

/// How often a thread that sleeps now has gone to sleep; `None`: it is awake.
fn asleep(status: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(status).ok()?;
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    field("State:").filter(|state| state.starts_with(['S', 'D']))?;
    field("voluntary_ctxt_switches:")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc::channel;

    /// A thread that waits for one byte for ever, or looks again every other millisecond.
    fn waiting(theirs: UnixStream, for_ever: bool) -> Watch {
        let (send, watch) = channel();
        theirs.set_read_timeout((!for_ever).then_some(Duration::from_millis(2))).unwrap();
        std::thread::spawn(move || {
            let last: LastPlace = Arc::new(Mutex::new("/mnt/dead/x".into()));
            send.send(Watch { patience: Duration::from_millis(150), ..Watch::this_thread(last) }).unwrap();
            while (&theirs).read(&mut [0]).is_err() {}
        });
        watch.recv().unwrap()
    }

    #[test]
    fn a_thread_that_waits_in_one_call_hangs_and_one_that_wakes_does_not() {
        for hangs in [true, false] {
            let (_ours, theirs) = UnixStream::pair().unwrap();
            let mut watch = waiting(theirs, hangs);
            let mut said = None;
            for _ in 0..12 {
                std::thread::sleep(Duration::from_millis(25));
                said = said.or(watch.hangs());
            }
            assert_eq!(said.as_ref().map(|said| said.summary.starts_with("/mnt/dead/x does not answer")), hangs.then_some(true));
            watch.rests();
            assert!(watch.hangs().is_none());
        }
    }
}
