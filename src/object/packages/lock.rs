//! Package managers' locks: who holds one, and the wait until nobody does.

use std::time::{Duration, Instant};

use crate::diagnostic::{Code, Diagnostic, Result};
use crate::object::Progress;
use crate::system::System;

/// So long another package manager may hold a lock before a run gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until nobody holds any of these files; gives up with the name of who does.
pub fn wait(sys: &System, progress: &mut Progress, locks: &[&str], hint: &str) -> Result<()> {
    let start = Instant::now();
    let mut told = false;
    while let Some((path, holder)) = locks.iter().find_map(|path| Some((path, holder(sys, path)?))) {
        if sys.cancelled() {
            return Err(Diagnostic::new(Code::Interrupted, format!("stopped while waiting for {path}")).into());
        }
        if start.elapsed() >= PATIENCE {
            return Err(Diagnostic::new(Code::Failed, format!("{path} is held by {holder}")).hint(hint).into());
        }
        if !told {
            progress.say(&format!("waiting for {holder}, which holds {path}"));
            told = true;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

/// Who may hold a lock that is a file with a process's number: a file that was left behind may name a process of today.
const PROGRAMS: [&str; 5] = ["dnf", "yum", "python", "platform-python", "packagekit"];

/// Who holds a lock file, as the kernel knows it, or as the number in it says.
fn holder(sys: &System, path: &str) -> Option<String> {
    let stat = sys.stat(path).ok()??;
    let numbered = path.ends_with(".pid");
    let pid = match numbered {
        true => String::from_utf8_lossy(&sys.read(path).ok()??).trim().parse().ok()?,
        false => lock_owner(&String::from_utf8_lossy(&sys.read("/proc/locks").ok()??), stat.ino)?,
    };
    let name = sys.read(&format!("/proc/{pid}/comm")).ok().flatten().unwrap_or_default();
    let name = String::from_utf8_lossy(&name).trim().to_owned();
    if numbered && !PROGRAMS.iter().any(|program| name.to_lowercase().starts_with(program)) {
        return None;
    }
    Some(if name.is_empty() { format!("process {pid}") } else { format!("{name} (process {pid})") })
}

/// The process with a write lock on this inode. `1: POSIX  ADVISORY  WRITE 1234 08:01:393232 0 EOF`
fn lock_owner(locks: &str, ino: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, _, _, "WRITE", pid, place, ..] = words.as_slice() else { return None };
        (place.rsplit(':').next()?.parse() == Ok(ino)).then(|| pid.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_of_a_lock_is_found_by_inode() {
        let locks = "1: POSIX  ADVISORY  READ  11 08:01:7 0 EOF\n2: POSIX  ADVISORY  WRITE 1234 fe:01:393232 0 EOF\n2: -> POSIX ADVISORY WRITE 9 fe:01:5 0 EOF\n";
        assert_eq!(lock_owner(locks, 393232), Some(1234));
        assert_eq!(lock_owner(locks, 7), None);
    }
}
