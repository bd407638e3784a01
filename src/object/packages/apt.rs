//! Talking to apt: simulations, transactions, the wait for dpkg's lock.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::diagnostic::{Code, Diagnostic, Result};
use crate::object::Progress;
use crate::system::{Command, Output, System};
use crate::value::sort_few;

/// So long another package manager may hold the lock before a run gives up.
const PATIENCE: Duration = Duration::from_secs(120);
const LOCKS: [&str; 3] = ["/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock"];

/// What decides a transaction besides the packages.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub recommends: Option<bool>,
    pub from: Option<String>,
    pub unauthenticated: bool,
    /// What is not needed any more goes too.
    pub autoremove: bool,
}

impl Options {
    fn arguments(&self) -> Vec<String> {
        let mut out: Vec<String> = Vec::new();
        match self.recommends {
            Some(true) => out.push("--install-recommends".into()),
            Some(false) => out.push("--no-install-recommends".into()),
            None => {}
        }
        if let Some(release) = &self.from {
            out.extend(["-t".into(), release.clone()]);
        }
        if self.unauthenticated {
            out.push("--allow-unauthenticated".into());
        }
        if self.autoremove {
            out.push("--auto-remove".into());
        }
        out
    }
}

/// What apt would do.
#[derive(Debug, Default, PartialEq)]
pub struct Simulation {
    /// Name and version of what is installed or upgraded, in apt's order.
    pub installs: Vec<(String, String)>,
    pub removes: Vec<String>,
}

fn command(argv: &[&str]) -> Command {
    let mut command = Command::new(argv.iter().copied());
    command.env = [
        ("DEBIAN_FRONTEND", "noninteractive"),
        ("APT_LISTCHANGES_FRONTEND", "none"),
        ("APT_LISTBUGS_FRONTEND", "none"),
        ("UCF_FORCE_CONFFOLD", "1"),
        ("LC_ALL", "C"),
    ]
    .map(|(n, v)| (n.to_owned(), v.to_owned()))
    .to_vec();
    command
}

/// Asks apt what installing and removing these (`name`, `name=version`, `name-`) would come to. Changes nothing.
pub fn simulate(sys: &System, options: &Options, targets: &[String]) -> Result<Simulation> {
    let mut command =
        command(&["apt-get", "-s", "-q", "-y", "-o", "Debug::NoLocking=1", "--allow-downgrades", "--allow-change-held-packages"]);
    command.argv.extend(options.arguments());
    command.argv.extend(["install".to_owned(), "--".to_owned()]);
    command.argv.extend(targets.iter().cloned());
    let output = sys.run(&command)?;
    if !output.success() {
        return Err(failed("apt-get", &output));
    }
    let mut found = Simulation::default();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("Inst"), Some(name)) => {
                // `Inst name [old] (new source [arch])`
                if let Some(version) = line.split_once('(').and_then(|(_, rest)| rest.split_whitespace().next()) {
                    found.installs.push((name.to_owned(), version.to_owned()));
                }
            }
            (Some("Remv" | "Purg"), Some(name)) => found.removes.push(name.to_owned()),
            _ => {}
        }
    }
    Ok(found)
}

/// The versions that the package lists have, newest first.
pub fn versions(sys: &System, names: &[&str]) -> Result<BTreeMap<String, Vec<String>>> {
    let mut command = command(&["apt-cache", "madison", "--"]);
    command.argv.extend(names.iter().map(|n| (*n).to_owned()));
    let output = sys.run(&command)?;
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let mut columns = line.split('|').map(str::trim);
        if let (Some(name), Some(version)) = (columns.next(), columns.next()) {
            let all = found.entry(name.to_owned()).or_default();
            if !all.iter().any(|v| v == version) {
                all.push(version.to_owned());
            }
        }
    }
    for all in found.values_mut() {
        sort_few(all, |one, other| super::version::compare(one, other).is_gt());
    }
    Ok(found)
}

/// Runs a package manager with the lock free, its output told as it comes.
pub fn run(sys: &System, progress: &mut Progress, argv: Vec<String>) -> Result<()> {
    wait(sys, progress)?;
    let words: Vec<&str> = argv.iter().map(String::as_str).collect();
    let command = command(&words);
    let name = words.first().copied().unwrap_or_default();
    sys.mutating(&words.join(" "))?;
    let mut rest: Vec<u8> = Vec::new();
    let output = sys.run_streaming(&command, &mut |piece| {
        rest.extend_from_slice(piece);
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            progress.say(String::from_utf8_lossy(&line).trim_end());
        }
    })?;
    if output.success() { Ok(()) } else { Err(failed(name, &output)) }
}

/// `apt-get install` with these targets, as Salt calls it: configuration files that were changed stay.
pub fn install(sys: &System, progress: &mut Progress, options: &Options, targets: &[String]) -> Result<()> {
    let fixed = [
        "apt-get",
        "-q",
        "-y",
        "-o",
        "DPkg::Options::=--force-confold",
        "-o",
        "DPkg::Options::=--force-confdef",
        "-o",
        "DPkg::Lock::Timeout=120",
        "--allow-downgrades",
        "--allow-change-held-packages",
    ];
    let mut argv: Vec<String> = fixed.map(str::to_owned).to_vec();
    argv.extend(options.arguments());
    argv.extend(["install".to_owned(), "--".to_owned()]);
    argv.extend(targets.iter().cloned());
    run(sys, progress, argv)
}

/// What a package manager's failure says: its `E:` lines.
fn failed(name: &str, output: &Output) -> crate::diagnostic::Error {
    let all = format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let errors: Vec<&str> = all.lines().filter_map(|l| l.strip_prefix("E: ")).collect();
    let tail: Vec<&str> = all.lines().filter(|l| !l.trim().is_empty()).collect();
    let tail = tail.get(tail.len().saturating_sub(15)..).unwrap_or_default().join("\n");
    let summary = match errors.first() {
        Some(first) => format!("{name}: {}", first.trim_end_matches('.')),
        None => format!("{name} ended with {}", output.status),
    };
    let failure = Diagnostic::new(Code::Failed, summary).detail(tail);
    let says = |text: &str| errors.iter().any(|e| e.contains(text));
    if says("Unable to locate package") || says("no installation candidate") {
        failure.hint("check the name; a repository that has it may be missing, or the package lists may be old (`refresh: True`)").into()
    } else if says("dpkg was interrupted") {
        failure.hint("run `dpkg --configure -a` on the host").into()
    } else {
        failure.into()
    }
}

/// Waits until nobody holds dpkg's or apt's locks; gives up with the name of who does.
pub fn wait(sys: &System, progress: &mut Progress) -> Result<()> {
    let start = Instant::now();
    let mut told = false;
    while let Some((path, holder)) = LOCKS.iter().find_map(|path| Some((path, holder(sys, path)?))) {
        if sys.cancelled() {
            return Err(Diagnostic::new(Code::Interrupted, format!("stopped while waiting for {path}")).into());
        }
        if start.elapsed() >= PATIENCE {
            return Err(Diagnostic::new(Code::Failed, format!("{path} is held by {holder}"))
                .hint("try again when it is done; unattended upgrades can be stopped with `systemctl stop unattended-upgrades`")
                .into());
        }
        if !told {
            progress.say(&format!("waiting for {holder}, which holds {path}"));
            told = true;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

/// Who holds a lock file, as the kernel knows it.
fn holder(sys: &System, path: &str) -> Option<String> {
    let stat = sys.stat(path).ok()??;
    let locks = sys.read("/proc/locks").ok()??;
    let locks = String::from_utf8_lossy(&locks);
    let pid = lock_owner(&locks, stat.ino)?;
    let name = sys.read(&format!("/proc/{pid}/comm")).ok().flatten().unwrap_or_default();
    let name = String::from_utf8_lossy(&name).trim().to_owned();
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
