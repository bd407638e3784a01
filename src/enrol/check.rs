//! What a machine must have before it becomes a node, and what a node must have before a command changes it: every check is made, and all that is wrong is told at
//! once, with what there is, what there has to be and what to do.

use std::net::ToSocketAddrs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::agent::protocol::{RunRecord, RunState};
use crate::diagnostic::{Code, Diagnostic};
use crate::fleet::role::Resources;
use crate::value::{Map, Value};

/// The least that a node can be, by Aquarium's and Eos' tables: threads, GB of memory, GB of `/`.
const LEAST: (u64, u64, u64) = (2, 2, 10);
/// Below this much memory a node works, and not for long.
const COMFORT: u64 = 4;
/// What `/` and the journal need free before a node is changed (MB), as storage operations keep it free (`min_free_space`).
const ROOM: u64 = 1000;
/// Where journals and what was replaced are kept.
const JOURNAL: &str = "/var/lib/basalt";
const REACH: &str = "reach";
const OPERATION: &str = "operation";
/// Ports that roles use. Somebody else's program there is in the way.
const PORTS: [u16; 5] = [80, 443, 3306, 5432, 8080];
/// Those who would configure the same files.
const RIVALS: [&str; 6] = ["salt-minion", "puppet", "puppet-agent", "chef-client", "cfengine3", "ansible-pull"];
const OS: [&str; 3] = ["Debian", "RedHat", "Arch"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub name: &'static str,
    pub needed: String,
    pub found: String,
    pub standing: Standing,
    /// What to do; empty where it is well.
    pub hint: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Well,
    /// It can be done all the same.
    Warning,
    Wrong,
}

impl Standing {
    pub fn name(self) -> &'static str {
        match self {
            Standing::Well => "ok",
            Standing::Warning => "warning",
            Standing::Wrong => "error",
        }
    }
}

/// What the checks are about.
pub struct Facts<'a> {
    pub root: &'a Path,
    pub is_root: bool,
    pub hostname: String,
    pub grains: &'a Map,
    pub resources: Resources,
    /// Free GB of `/`, and its size.
    pub free_gb: u64,
    /// Units that are active.
    pub active: Vec<String>,
    pub clock_is_synchronized: Option<bool>,
}

impl Facts<'_> {
    /// All checks of this machine.
    pub fn checks(&self) -> Vec<Check> {
        let (threads, memory, disk) = LEAST;
        let mut checks = vec![
            Check::of(
                "user",
                "root",
                if self.is_root { "root" } else { "somebody else" },
                self.is_root,
                Standing::Wrong,
                "sudo basalt bootstrap",
            ),
            Check::least("CPU threads", threads, self.resources.cpu_cores, "threads", "give the machine more"),
            Check::least("memory", memory, self.resources.memory_gb, "GB", "give the machine more"),
            Check::least("disk", disk, self.free_gb, "GB free on /", "make room, or give / a larger disk"),
        ];
        if self.resources.memory_gb >= memory {
            let enough = self.resources.memory_gb >= COMFORT;
            checks.push(Check::of(
                "memory for work",
                &format!("{COMFORT} GB"),
                &format!("{} GB", self.resources.memory_gb),
                enough,
                Standing::Warning,
                "a node with less has no room for services",
            ));
        }
        checks.push(Check::system(self.grains));
        let resolves = (self.hostname.as_str(), 0).to_socket_addrs().is_ok_and(|mut found| found.next().is_some());
        checks.push(Check::of(
            "host name",
            "resolves",
            &if resolves { self.hostname.clone() } else { format!("{} does not resolve", self.hostname) },
            resolves,
            Standing::Warning,
            "put it into /etc/hosts or the DNS",
        ));
        checks.push(Check::of(
            "clock",
            "synchronized",
            match self.clock_is_synchronized {
                Some(true) => "synchronized",
                Some(false) => "not synchronized",
                None => "nobody knows",
            },
            self.clock_is_synchronized == Some(true),
            Standing::Warning,
            "systemd-timesyncd or chrony keep it right",
        ));
        let taken: Vec<String> =
            listening(self.root).into_iter().filter(|port| PORTS.contains(port)).map(|port| port.to_string()).collect();
        let all = PORTS.map(|port| port.to_string()).join(", ");
        checks.push(Check::of(
            "ports",
            &format!("{all} are free"),
            &if taken.is_empty() { "free".to_owned() } else { format!("{} taken", taken.join(", ")) },
            taken.is_empty(),
            Standing::Warning,
            "a role whose service listens there will fail: `ss -ltnp` tells who does",
        ));
        let rivals: Vec<&str> = self.active.iter().map(String::as_str).filter(|unit| RIVALS.contains(unit)).collect();
        checks.push(Check::of(
            "other agents",
            "none",
            &if rivals.is_empty() { "none".to_owned() } else { rivals.join(", ") },
            rivals.is_empty(),
            Standing::Warning,
            "two that configure one machine undo each other's work: stop and disable it",
        ));
        let sshd = self.root.join("etc/ssh/sshd_config").is_file();
        let found = if sshd { "there" } else { "not there" };
        checks.push(Check::of(
            "sshd",
            "there",
            found,
            sshd,
            Standing::Warning,
            "other controllers reach a node by ssh: install openssh-server",
        ));
        checks
    }
}

/// What a node must have before a command changes it; `usage` is what it says of its filesystems (`disk.usage`).
pub fn before_a_change(grains: &Map, usage: Option<&Map>) -> Vec<Check> {
    let free = |path: &str| {
        let (place, found) = usage?
            .iter()
            .filter_map(|(place, found)| Some((place.as_str()?, found.as_map()?)))
            .filter(|(place, _)| path == *place || path.starts_with(&format!("{}/", place.trim_end_matches('/'))))
            .max_by_key(|(place, _)| place.len())?;
        let kib: u64 = found.get("available").map(Value::to_text)?.parse().ok()?;
        Some((place.to_owned(), kib / 1000))
    };
    let mut checks = Vec::new();
    let (root, journal) = (free("/"), free(JOURNAL));
    if let Some((_, room)) = &root {
        checks.push(Check::least("disk", ROOM, *room, "MB free on /", "make room: packages and files come there"));
    }
    if let Some((place, room)) = journal.filter(|(place, _)| place != "/") {
        let hint = "make room: what a run replaces is kept there, so that it can be taken back";
        checks.push(Check::least("journal", ROOM, room, &format!("MB free on {place}"), hint));
    }
    if root.is_none() {
        checks.push(Check::of(
            "disk",
            &format!("{ROOM} MB free on /"),
            "nobody knows",
            false,
            Standing::Warning,
            "`basalt call HOST disk.usage` tells why",
        ));
    }
    checks.push(Check::system(grains));
    checks
}

/// A run that is under way on a node now. It is waited for, or in the way.
pub fn under_way(runs: &[RunRecord], waits: bool) -> Check {
    let running = runs.iter().find(|run| run.state == RunState::Running);
    let found = running.map_or_else(|| "none".to_owned(), |run| format!("{} by {}", run.header.id, run.header.who));
    let standing = if waits { Standing::Warning } else { Standing::Wrong };
    Check::of(OPERATION, "none under way", &found, running.is_none(), standing, "it is waited for with --lock-timeout SECONDS")
}

/// A node with which no session could be opened.
pub fn away(fault: &Diagnostic) -> Check {
    match fault.code {
        Code::Unreachable | Code::HostKey => {
            let hint = "it keeps what it has until it is there again: `basalt node recover`";
            Check::of(REACH, "answers by ssh", &fault.summary, false, Standing::Warning, hint)
        }
        _ => Check::of("agent", "runs there", &fault.summary, false, Standing::Wrong, "`basalt plan` of that host tells more"),
    }
}

impl Check {
    /// Whether it is about a node that is away.
    pub fn is_of_reach(&self) -> bool {
        self.name == REACH
    }

    /// Whether it is about another run, which ends by itself.
    pub fn is_of_runs(&self) -> bool {
        self.name == OPERATION
    }

    fn least(name: &'static str, needed: u64, found: u64, unit: &str, hint: &'static str) -> Check {
        let (needed, found, well) = (format!("{needed} {unit}"), format!("{found} {unit}"), found >= needed);
        Check::of(name, &needed, &found, well, Standing::Wrong, hint)
    }

    fn system(grains: &Map) -> Check {
        let grain = |name: &str| grains.get(name).map(Value::to_text).unwrap_or_default();
        let system = format!("{} {}", grain("os"), grain("osrelease"));
        Check::of(
            "system",
            "Debian, RHEL or Arch family",
            system.trim(),
            OS.contains(&grain("os_family").as_str()),
            Standing::Warning,
            "packages and services of this system are not known: states that need them are refused",
        )
    }

    fn of(name: &'static str, needed: &str, found: &str, well: bool, otherwise: Standing, hint: &'static str) -> Check {
        let standing = if well { Standing::Well } else { otherwise };
        Check { name, needed: needed.to_owned(), found: found.to_owned(), standing, hint: if well { "" } else { hint } }
    }
}

/// The ports that somebody listens at.
fn listening(root: &Path) -> Vec<u16> {
    let mut ports = Vec::new();
    for file in ["proc/net/tcp", "proc/net/tcp6"] {
        let text = std::fs::read_to_string(root.join(file)).unwrap_or_default();
        for line in text.lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            // Local address, remote address, state; 0A is LISTEN.
            if let [_, local, _, "0A", ..] = words.as_slice() {
                ports.extend(local.rsplit_once(':').and_then(|(_, port)| u16::from_str_radix(port, 16).ok()));
            }
        }
    }
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// Units of those that are active here, and whether the clock is synchronized, as systemd knows it.
pub fn asked_of_systemd() -> (Vec<String>, Option<bool>) {
    let said = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let is_active = |unit: &&str| said("systemctl", &["is-active", unit]).is_some_and(|state| state.trim() == "active");
    let active = RIVALS.iter().copied().filter(is_active).map(str::to_owned).collect();
    let clock = said("timedatectl", &["show", "--property=NTPSynchronized", "--value"]).and_then(|state| match state.trim() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    });
    (active, clock)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(facts: &Facts<'_>) -> Vec<(&'static str, &'static str, String)> {
        let wrong = facts.checks().into_iter().filter(|check| check.standing != Standing::Well);
        wrong.map(|check| (check.standing.name(), check.name, check.found)).collect()
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("proc/net")).unwrap();
        let tcp = "  sl  local_address rem_address   st\n   0: 00000000:0050 00000000:0000 0A 0\n   1: 00000000:1538 01020304:0050 01 0\n";
        std::fs::write(root.path().join("proc/net/tcp"), tcp).unwrap();
        let grains: Map =
            [("os", "Plan9"), ("osrelease", "4"), ("os_family", "Plan9")].into_iter().map(|(k, v)| (k, Value::str(v))).collect();
        let facts = Facts {
            root: root.path(),
            is_root: false,
            hostname: "localhost".into(),
            grains: &grains,
            resources: Resources { cpu_cores: 1, memory_gb: 1, storage_gb: 20 },
            free_gb: 9,
            active: vec!["puppet".into(), "cron".into()],
            clock_is_synchronized: Some(false),
        };
        assert_eq!(
            wrong(&facts),
            [
                ("error", "user", "somebody else".to_owned()),
                ("error", "CPU threads", "1 threads".to_owned()),
                ("error", "memory", "1 GB".to_owned()),
                ("error", "disk", "9 GB free on /".to_owned()),
                ("warning", "system", "Plan9 4".to_owned()),
                ("warning", "clock", "not synchronized".to_owned()),
                ("warning", "ports", "80 taken".to_owned()),
                ("warning", "other agents", "puppet".to_owned()),
                ("warning", "sshd", "not there".to_owned()),
            ]
        );
        assert!(facts.checks().iter().all(|check| check.hint.is_empty() == (check.standing == Standing::Well)));
    }

    #[test]
    fn a_node_is_looked_at_before_it_is_changed() {
        let grains: Map = [("os", "Debian"), ("os_family", "Debian"), ("osrelease", "13")].into_iter().collect();
        let place = |free: &str| Value::Map([("available", free)].into_iter().collect());
        let usage = |places: &[(&str, &str)]| -> Map { places.iter().map(|(at, free)| (*at, place(free))).collect() };
        type Case = (&'static [(&'static str, &'static str)], &'static [&'static str]);
        let cases: [Case; 5] = [
            (&[("/", "1000000")], &[]),
            (&[("/", "999999")], &["error disk: 999 MB free on / of 1000 MB free on /"]),
            (&[("/", "9000000"), ("/var/lib", "400000")], &["error journal: 400 MB free on /var/lib of 1000 MB free on /var/lib"]),
            (&[("/", "9000000"), ("/var/l", "4"), ("/var/lib/basalt/x", "4")], &[]),
            (&[("/srv", "9000000")], &["warning disk: nobody knows of 1000 MB free on /"]),
        ];
        for (places, expected) in cases {
            let found = before_a_change(&grains, Some(&usage(places))).into_iter().filter(|check| check.standing != Standing::Well);
            let found: Vec<String> =
                found.map(|check| format!("{} {}: {} of {}", check.standing.name(), check.name, check.found, check.needed)).collect();
            assert_eq!(found, expected, "{places:?}");
        }
        let told = |code| away(&Diagnostic::new(code, "h1 does not answer"));
        assert_eq!((told(Code::Unreachable).standing, told(Code::Unreachable).is_of_reach()), (Standing::Warning, true));
        assert_eq!((told(Code::Failed).standing, told(Code::Failed).is_of_reach()), (Standing::Wrong, false));
    }
}
