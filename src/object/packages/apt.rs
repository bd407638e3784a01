//! apt and dpkg: simulations, transactions, what dpkg knows.

use std::collections::BTreeMap;

use super::lock;
use super::manager::{Manager, Mark, Options, Owned, Package, Packages, Simulation, State, Target, streamed};
use super::status;
use super::version::{self, Order};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::object::{Progress, Sign};
use crate::system::{Command, Output, System};
use crate::value::sort_few;

const LOCKS: [&str; 3] = ["/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock"];

pub struct Apt;

fn arguments(options: &Options) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    match options.recommends {
        Some(true) => out.push("--install-recommends".into()),
        Some(false) => out.push("--no-install-recommends".into()),
        None => {}
    }
    if let Some(release) = &options.from {
        out.extend(["-t".into(), release.clone()]);
    }
    if options.unauthenticated {
        out.push("--allow-unauthenticated".into());
    }
    if options.autoremove {
        out.push("--auto-remove".into());
    }
    out
}

/// As apt is told it: `name`, `name=version`, `name-`, a path.
fn target(target: &Target) -> String {
    match target {
        Target::Install(name, Some(version)) => format!("{name}={version}"),
        Target::Install(name, None) | Target::Latest(name) => name.clone(),
        Target::File(path) => path.clone(),
        Target::Remove(name, _) => format!("{name}-"),
    }
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

impl Manager for Apt {
    fn name(&self) -> &'static str {
        "apt"
    }

    fn packages(&self, sys: &System) -> Result<Option<Packages>> {
        status::read(sys)
    }

    fn signs(&self, _sys: &System) -> Result<Vec<Sign>> {
        Ok(Sign::paths([status::STATUS, status::MARKS]))
    }

    /// The versions that the package lists have, newest first.
    fn available(&self, sys: &System, names: &[&str]) -> Result<BTreeMap<String, Vec<String>>> {
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
            sort_few(all, |one, other| version::debian(one, other).is_gt());
        }
        Ok(found)
    }

    fn order(&self) -> Order {
        version::debian
    }

    fn sources(&self) -> &'static [&'static str] {
        &["/etc/apt/"]
    }

    /// Asks apt what installing and removing these would come to.
    fn simulate(&self, sys: &System, options: &Options, targets: &[Target]) -> Result<Simulation> {
        let mut command =
            command(&["apt-get", "-s", "-q", "-y", "-o", "Debug::NoLocking=1", "--allow-downgrades", "--allow-change-held-packages"]);
        command.argv.extend(arguments(options));
        command.argv.extend(["install".to_owned(), "--".to_owned()]);
        command.argv.extend(targets.iter().map(target));
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

    /// `apt-get install` with these targets, as Salt calls it: configuration files that were changed stay.
    fn transact(&self, sys: &System, progress: &mut Progress, options: &Options, targets: &[Target]) -> Result<()> {
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
        // Everything that is to come stands in the list; recommendations that the plan shows are among it.
        argv.extend(arguments(&Options { recommends: Some(false), ..options.clone() }));
        argv.extend(["install".to_owned(), "--".to_owned()]);
        argv.extend(targets.iter().map(target));
        self.run(sys, progress, argv)
    }

    fn purge(&self, sys: &System, progress: &mut Progress, names: &[String]) -> Result<()> {
        self.run(sys, progress, [vec!["dpkg".to_owned(), "--purge".to_owned()], names.to_vec()].concat())
    }

    fn leaves_configuration(&self, sys: &System, name: &str, package: &Package) -> Result<bool> {
        let script = information(sys, name, package, "postrm")?.is_some();
        Ok(script || !package.conffiles.is_empty())
    }

    fn repair(&self, sys: &System, progress: &mut Progress) -> Result<()> {
        if !self.packages(sys)?.unwrap_or_default().values().any(|p| p.state == State::Broken) {
            return Ok(());
        }
        let configure = ["dpkg", "--force-confold", "--force-confdef", "--configure", "-a"].map(str::to_owned);
        self.run(sys, progress, configure.to_vec())
    }

    fn mark(&self, sys: &System, progress: &mut Progress, mark: Mark, names: &[String]) -> Result<()> {
        let mark = match mark {
            Mark::Auto => "auto",
            Mark::Manual => "manual",
            Mark::Hold => "hold",
            Mark::Unhold => "unhold",
        };
        self.run(sys, progress, [vec!["apt-mark".to_owned(), mark.to_owned()], names.to_vec()].concat())
    }

    fn refresh(&self) -> Vec<String> {
        ["apt-get", "-q", "update"].map(str::to_owned).to_vec()
    }

    fn run(&self, sys: &System, progress: &mut Progress, argv: Vec<String>) -> Result<()> {
        self.wait(sys, progress)?;
        let words: Vec<&str> = argv.iter().map(String::as_str).collect();
        let output = streamed(sys, progress, &command(&words))?;
        if output.success() { Ok(()) } else { Err(failed(words.first().copied().unwrap_or_default(), &output)) }
    }

    fn wait(&self, sys: &System, progress: &mut Progress) -> Result<()> {
        let hint = "try again when it is done; unattended upgrades can be stopped with `systemctl stop unattended-upgrades`";
        lock::wait(sys, progress, &LOCKS, hint)
    }

    fn files(&self) -> (&'static str, Option<&'static str>) {
        (".deb", Some("/var/cache/apt/archives"))
    }

    fn fetch(&self, sys: &System, packages: &[(String, String)], directory: &str) -> Result<()> {
        // One by one: what one archive has lost is not to keep the others from coming.
        for (name, version) in packages {
            let mut fetch = Command::new(["apt-get", "-q", "download"]);
            fetch.argv.push(format!("{name}={version}"));
            fetch.cwd = Some(directory.to_owned());
            sys.run(&fetch)?;
        }
        Ok(())
    }

    fn owned(&self, sys: &System, name: &str, package: &Package) -> Result<Vec<Owned>> {
        let list = match information(sys, name, package, "list")? {
            Some(path) => sys.read(&path)?.unwrap_or_default(),
            None => Vec::new(),
        };
        let list = String::from_utf8_lossy(&list);
        let plain = list.lines().map(|path| Owned { path: path.to_owned(), digest: None });
        let digest = |owned: Owned| {
            let digest = package.conffiles.iter().find(|(path, _)| *path == owned.path).map(|(_, sum)| sum.clone());
            Owned { digest, ..owned }
        };
        let listed: Vec<Owned> = plain.map(digest).collect();
        let others = package.conffiles.iter().filter(|(path, _)| !listed.iter().any(|owned| owned.path == *path));
        let others: Vec<Owned> = others.map(|(path, sum)| Owned { path: path.clone(), digest: Some(sum.clone()) }).collect();
        Ok([listed, others].concat())
    }

    fn copies(&self) -> (&'static [&'static str], bool) {
        (&[".dpkg-dist"], false)
    }
}

/// dpkg's file about a package, where there is one.
fn information(sys: &System, name: &str, package: &Package, what: &str) -> Result<Option<String>> {
    let stem = name.split(':').next().unwrap_or(name);
    for path in [format!("/var/lib/dpkg/info/{stem}.{what}"), format!("/var/lib/dpkg/info/{stem}:{}.{what}", package.arch)] {
        if sys.stat(&path)?.is_some() {
            return Ok(Some(path));
        }
    }
    Ok(None)
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
