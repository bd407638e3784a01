//! dnf 4, over rpm: simulations, transactions, marks, and holds by its plugin versionlock.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::kept;
use super::lock;
use super::manager::{Manager, Mark, Options, Owned, Package, Packages, Simulation, Target, streamed};
use super::rpm;
use super::version::{self, Order};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::object::{Progress, Sign};
use crate::system::{Command, Meta, Output, System};
use crate::value::{Attrs, Value, sort_few};

/// rpm gives up at once where another has its lock; dnf waits for another dnf, without end.
const LOCKS: [&str; 5] = [
    "/var/lib/rpm/.rpm.lock",
    "/usr/lib/sysimage/rpm/.rpm.lock",
    "/var/lib/dnf/rpmdb_lock.pid",
    "/var/cache/dnf/metadata_lock.pid",
    "/var/cache/dnf/download_lock.pid",
];
const PLUGIN: &str = "/etc/dnf/plugins/versionlock.conf";
const LIST: &str = "/etc/dnf/plugins/versionlock.list";
/// Held packages are there in one version only, as dnf sees them.
const SEE_ALL: &str = "--disableplugin=versionlock";

pub struct Dnf;

/// What was read last, and of which files as they were then: dnf takes a third of a second to say which packages came with others.
static KNOWN: Mutex<Option<(String, Known)>> = Mutex::new(None);

/// What rpm has, and what is locked.
type Known = (Packages, Vec<String>);

fn command(argv: impl IntoIterator<Item = String>) -> Command {
    let mut command = Command::new(["dnf"]);
    command.argv.extend(argv);
    command.env = vec![("LC_ALL".to_owned(), "C".to_owned())];
    command
}

/// Where rpm and dnf keep what is installed and why.
fn databases() -> impl Iterator<Item = &'static str> {
    rpm::DATABASES.into_iter().chain(["/var/lib/dnf"])
}

/// Everything that decides what `installed` says, as it is now.
fn stamp(sys: &System) -> Result<String> {
    let mut stamp = sys.root().display().to_string();
    for directory in databases() {
        for name in sys.list(directory)? {
            // Reading makes and maps this one.
            if let Some(stat) = sys.stat(&format!("{directory}/{name}"))?.filter(|_| !name.ends_with("-shm")) {
                stamp.push_str(&format!(" {directory}/{name} {} {} {}", stat.ino, stat.size, stat.mtime_ns));
            }
        }
    }
    Ok(stamp)
}

/// What is installed with its marks, and the keys.
fn installed(sys: &System) -> Result<(Packages, Vec<String>)> {
    let stamp = stamp(sys)?;
    if let Ok(known) = KNOWN.lock()
        && let Some((of, known)) = &*known
        && *of == stamp
    {
        return Ok(known.clone());
    }
    let (mut packages, keys) = rpm::database(sys)?;
    let ask = ["-q", "-C", "--noplugins", "--disablerepo=*", "repoquery", "--installed", "--qf", "%{name}\t%{arch}\t%{reason}"];
    let output = sys.run(&command(ask.map(str::to_owned)))?;
    if !output.success() {
        return Err(failed(&output));
    }
    for line in output.text().lines() {
        let words: Vec<&str> = line.split('\t').collect();
        if let [name, arch, "dependency" | "weak-dependency"] = words.as_slice()
            && let Some(package) = packages.get_mut(&rpm::name(name, arch))
        {
            package.auto = true;
        }
    }
    if let Ok(mut known) = KNOWN.lock() {
        *known = Some((stamp, (packages.clone(), keys.clone())));
    }
    Ok((packages, keys))
}

/// The list of held versions, where the plugin is there.
fn list(sys: &System) -> Result<Option<(String, String)>> {
    let Some(settings) = sys.read(PLUGIN)? else { return Ok(None) };
    let settings = String::from_utf8_lossy(&settings).into_owned();
    let path = settings.lines().filter_map(|line| line.split_once('=')).find(|(name, _)| name.trim() == "locklist");
    let path = path.map_or_else(|| LIST.to_owned(), |(_, path)| path.trim().to_owned());
    let text = sys.read(&path)?.unwrap_or_default();
    Ok(Some((path, String::from_utf8_lossy(&text).into_owned())))
}

/// The package that a line of the list holds, and the version: `name-epoch:version-release.arch`, or a name alone.
fn held(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    let pattern = (!line.starts_with(['#', '!']) && !line.is_empty()).then_some(line)?;
    let at = pattern.rmatch_indices('-').nth(1).map(|(at, _)| at);
    Some(at.and_then(|at| Some((pattern.get(..at)?, pattern.get(at + 1..)?))).unwrap_or((pattern, "*")))
}

/// Whether a package is held in a version that it has: a line of another version holds nothing any more.
fn holds(package: &Package, version: &str) -> bool {
    let full = |v: &str| format!("{}{v}.{}", if v.contains(':') { "" } else { "0:" }, package.arch);
    package.version.split(',').any(|v| version::glob(version.as_bytes(), full(v).as_bytes()))
}

/// Whether a list of locked packages holds this one.
pub fn locked(list: &str, name: &str, package: &Package) -> bool {
    list.lines().filter_map(held).any(|(of, version)| of == name && holds(package, version))
}

fn write_list(sys: &System, path: &str, text: &str) -> Result<()> {
    let meta = match sys.stat(path)? {
        Some(stat) => Meta { mode: stat.mode, uid: stat.uid, gid: stat.gid, xattrs: sys.xattrs(path)?, mtime_ns: None },
        None => Meta { mode: 0o644, uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw(), ..Meta::default() },
    };
    sys.write_bytes(path, text.as_bytes(), &meta)
}

/// The bare name and the architecture that stands behind it, as `rpm::name` puts it there.
fn parted(name: &str) -> (&str, &str) {
    const FOREIGN: [&str; 8] = ["i386", "i486", "i586", "i686", "x86_64", "aarch64", "armv7hl", "noarch"];
    match name.rsplit_once('.') {
        Some((stem, arch)) if FOREIGN.contains(&arch) => (stem, arch),
        _ => (name, ""),
    }
}

/// A package and its version as dnf is told them; `whole`: no epoch is the epoch 0.
fn spec(name: &str, version: Option<&str>, whole: bool) -> String {
    let (stem, arch) = parted(name);
    let arch = if arch.is_empty() { String::new() } else { format!(".{arch}") };
    match version {
        None => name.to_owned(),
        Some(version) if whole && !version.contains(':') => format!("{stem}-0:{version}{arch}"),
        Some(version) => format!("{stem}-{version}{arch}"),
    }
}

/// Targets as dnf's commands and what they are given, in an order that dnf likes.
fn commands(targets: &[Target], whole: bool) -> Result<BTreeMap<&'static str, Vec<String>>> {
    let mut out: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    for target in targets {
        let (verb, what) = match target {
            Target::Install(name, version) => ("install", spec(name, version.as_deref(), whole)),
            Target::File(path) => ("install", path.clone()),
            Target::Latest(name) => ("upgrade", name.clone()),
            Target::Remove(name, version) => ("remove", spec(name, version.as_deref(), true)),
        };
        if what.contains(['\'', '"', '\\', '#', ';']) {
            return Err(Diagnostic::new(Code::Failed, format!("{what:?} cannot be a package")).into());
        }
        out.entry(verb).or_default().push(what);
    }
    Ok(out)
}

/// `dnf` with these targets. What is of several kinds goes through dnf's shell, so that it is one transaction.
fn transaction(mut argv: Vec<String>, targets: &[Target], whole: bool) -> Result<(Command, bool)> {
    let mut commands = commands(targets, whole)?;
    if commands.len() == 1
        && let Some((verb, what)) = commands.pop_first()
    {
        argv.push(verb.to_owned());
        return Ok((command([argv, what].concat()), false));
    }
    argv.extend(["shell", "/proc/self/fd/0"].map(str::to_owned));
    let lines = commands.into_iter().map(|(verb, what)| format!("{verb} {}\n", what.join(" ")));
    let mut command = command(argv);
    command.stdin = lines.chain(["run\n".to_owned()]).collect::<String>().into_bytes();
    Ok((command, true))
}

fn arguments(options: &Options) -> Vec<String> {
    let mut out = Vec::new();
    match &options.from {
        Some(repository) => out.extend(["--disablerepo=*".to_owned(), format!("--enablerepo={repository}")]),
        None => {
            out.extend(options.disable.iter().map(|repository| format!("--disablerepo={repository}")));
            out.extend(options.enable.iter().map(|repository| format!("--enablerepo={repository}")));
        }
    }
    out.extend(options.settings.iter().map(|setting| format!("--setopt={setting}")));
    if options.unauthenticated {
        out.push("--nogpgcheck".to_owned());
    }
    if options.autoremove {
        out.push("--setopt=clean_requirements_on_remove=True".to_owned());
    }
    out
}

fn text(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// dnf's shell ends well whatever happens in it; where nothing was to be done for good, saying so is an error too.
fn errors(text: &str) -> Vec<&str> {
    let errors = text.lines().filter_map(|line| line.strip_prefix("Error: ").or_else(|| (line == "Error:").then_some("")));
    errors.map(str::trim).filter(|error| *error != "Operation aborted.").collect()
}

/// What dnf's failure says.
fn failed(output: &Output) -> crate::diagnostic::Error {
    let all = text(output);
    let tail: Vec<&str> = all.lines().filter(|l| !l.trim().is_empty()).collect();
    let tail = tail.get(tail.len().saturating_sub(20)..).unwrap_or_default().join("\n");
    let problem = all.lines().find_map(|line| line.trim().strip_prefix("Problem: "));
    let script = all.lines().find(|line| line.contains("scriptlet failed")).map(|line| line.trim_start_matches("error: "));
    let first = errors(&all).into_iter().find(|error| !error.is_empty());
    // That a transaction failed says less than what failed in it.
    let first = if first == Some("Transaction failed") { script.or(first) } else { first };
    let summary = match problem.or(first) {
        Some(why) => format!("dnf: {}", why.trim_end_matches('.')),
        None => format!("dnf ended with {}", output.status),
    };
    let failure = Diagnostic::new(Code::Failed, summary).detail(tail);
    let hint = match () {
        () if all.contains("Unable to find a match") => "check the name; a repository that has it may be missing, or not be enabled",
        () if all.contains("conflicts with") => "a package that is in the way has to go by a state of its own: pkg.removed",
        () if all.contains("Failed to download metadata") => {
            "is the repository reachable from the host? `enabled: 0` or `skip_if_unavailable: 1` in its section leaves it out"
        }
        _ => return failure.into(),
    };
    failure.hint(hint).into()
}

/// The table of a transaction: section, name with architecture, version; `replacing` what goes for another.
fn table(text: &str) -> Vec<(&str, String, String)> {
    let mut rows: Vec<(&str, String, String)> = Vec::new();
    let (mut section, mut words): (&str, Vec<&str>) = ("", Vec::new());
    fn row<'a>(section: &'a str, words: &mut Vec<&str>) -> Option<(&'a str, String, String)> {
        let words = std::mem::take(words);
        let [name, arch, version, ..] = words.as_slice() else { return None };
        Some((section, rpm::name(name, arch), version.strip_prefix("0:").unwrap_or(version).to_owned()))
    }
    for line in text.lines() {
        if line.starts_with("Transaction Summary") {
            break;
        }
        match line.strip_prefix(' ') {
            Some(rest) if rest.trim_start().starts_with("replacing ") && rest.starts_with(' ') => {
                rows.extend(row(section, &mut words));
                let mut words = rest.split_whitespace().skip(1);
                if let (Some(full), Some(version)) = (words.next(), words.next())
                    && let Some((name, arch)) = full.rsplit_once('.')
                {
                    rows.push(("replacing", rpm::name(name, arch), version.to_owned()));
                }
            }
            // A package begins with one space; more of them go on with one that was too long for a line.
            Some(rest) => {
                if !rest.starts_with(' ') {
                    rows.extend(row(section, &mut words));
                }
                words.extend(rest.split_whitespace());
            }
            None => {
                rows.extend(row(section, &mut words));
                if let Some(title) = line.strip_suffix(':') {
                    section = title;
                } else if !line.starts_with('=') {
                    section = "";
                }
            }
        }
    }
    rows.extend(row(section, &mut words));
    rows
}

/// What the packages are after it.
fn outcome(now: &Packages, text: &str) -> Simulation {
    let mut after: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    for (section, name, version) in table(text) {
        let before = || now.get(&name).map(|p| p.version.split(',').map(str::to_owned).collect::<Vec<_>>()).unwrap_or_default();
        if !order.contains(&name) {
            order.push(name.clone());
        }
        let versions = after.entry(name.clone()).or_insert_with(before);
        match section {
            "replacing" => versions.clear(),
            "Upgrading" | "Downgrading" => *versions = vec![version],
            _ if section.starts_with("Installing") => versions.push(version),
            _ if section.starts_with("Removing") => versions.retain(|v| *v != version),
            _ => {}
        }
    }
    let mut found = Simulation::default();
    for name in order {
        let versions = rpm::joined(after.remove(&name).unwrap_or_default());
        let before = now.get(&name).map(|p| p.version.as_str());
        match before {
            Some(_) if versions.is_empty() => found.removes.push(name),
            _ if versions.is_empty() || before == Some(&versions) => {}
            _ => found.installs.push((name, versions)),
        }
    }
    found
}

impl Manager for Dnf {
    fn name(&self) -> &'static str {
        "dnf"
    }

    fn packages(&self, sys: &System) -> Result<Option<Packages>> {
        let mut packages = installed(sys)?.0;
        let text = list(sys)?.map(|(_, text)| text).unwrap_or_default();
        for (name, package) in &mut packages {
            package.hold = locked(&text, parted(name).0, package);
        }
        Ok(Some(packages))
    }

    fn signs(&self, sys: &System) -> Result<Vec<Sign>> {
        let locks = list(sys)?.map_or_else(|| LIST.to_owned(), |(path, _)| path);
        let databases = databases().map(|directory| Sign::Tree(directory.to_owned()));
        Ok(databases.chain(Sign::paths([PLUGIN.to_owned(), locks])).collect())
    }

    /// `@locks`: the list of held versions as it stands. `@keys`: those that rpm trusts.
    fn besides(&self, sys: &System) -> Result<Attrs> {
        let locks = list(sys)?.map(|(_, text)| ("@locks".to_owned(), Value::Str(text)));
        let keys = Value::Str(installed(sys)?.1.join(" "));
        Ok(locks.into_iter().chain([("@keys".to_owned(), keys)]).collect())
    }

    fn restore_besides(&self, sys: &System, before: &Attrs, _: &mut Progress) -> Result<()> {
        if let (Some(text), Some((path, now))) = (before.get("@locks").and_then(Value::as_str), list(sys)?)
            && text != now
        {
            write_list(sys, &path, text)?;
        }
        if let Some(keys) = before.get("@keys").and_then(Value::as_str) {
            let keys: Vec<&str> = keys.split(' ').collect();
            for key in installed(sys)?.1.iter().filter(|key| !keys.contains(&key.as_str())) {
                rpm::distrust(sys, key)?;
            }
        }
        Ok(())
    }

    fn writes(&self, sys: &System) -> Result<Vec<String>> {
        Ok(list(sys)?.into_iter().map(|(path, _)| path).collect())
    }

    fn named(&self, name: &str) -> String {
        match parted(name) {
            (_, "") => name.to_owned(),
            (stem, arch) => rpm::name(stem, arch),
        }
    }

    fn available(&self, sys: &System, names: &[&str]) -> Result<BTreeMap<String, Vec<String>>> {
        let format = "%{name}\t%{epoch}\t%{version}\t%{release}\t%{arch}";
        let ask = ["-q", SEE_ALL, "repoquery", "--showduplicates", "--available", "--qf", format];
        let output = sys.run(&command(ask.map(str::to_owned).into_iter().chain(names.iter().map(|n| (*n).to_owned()))))?;
        if !output.success() {
            return Err(failed(&output));
        }
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in output.text().lines() {
            let words: Vec<&str> = line.split('\t').collect();
            let [name, epoch, number, release, arch] = words.as_slice() else { continue };
            let all = found.entry(rpm::name(name, arch)).or_default();
            let number = rpm::version(epoch, number, release);
            if *arch != "src" && !all.contains(&number) {
                all.push(number);
            }
        }
        for all in found.values_mut() {
            sort_few(all, |one, other| version::rpm(one, other).is_gt());
        }
        Ok(found)
    }

    fn order(&self) -> Order {
        version::rpm
    }

    fn whole(&self, version: &str) -> bool {
        version.contains('-')
    }

    fn sources(&self) -> &'static [&'static str] {
        &["/etc/yum.repos.d/", "/etc/dnf/"]
    }

    fn asks_repositories(&self) -> bool {
        true
    }

    fn simulate(&self, sys: &System, options: &Options, targets: &[Target]) -> Result<Simulation> {
        let now = self.packages(sys)?.unwrap_or_default();
        let mut argv = vec!["--assumeno".to_owned()];
        argv.extend(options.refresh.then(|| "--refresh".to_owned()));
        argv.extend(arguments(options));
        // Who names another version of a held package means it: the state was asked whether it may.
        let named = |target: &Target| match target {
            Target::Install(name, Some(_)) => now.get(name).is_some_and(|p| p.hold),
            Target::File(_) => true,
            _ => false,
        };
        argv.extend(targets.iter().any(named).then(|| SEE_ALL.to_owned()));
        let (command, shell) = transaction(argv, targets, false)?;
        let output = sys.run(&command)?;
        let text = text(&output);
        let aborted = text.contains("Operation aborted.");
        if (!output.success() && !aborted) || (shell && !errors(&text).is_empty()) {
            return Err(failed(&output));
        }
        Ok(outcome(&now, &text))
    }

    fn transact(&self, sys: &System, progress: &mut Progress, options: &Options, targets: &[Target]) -> Result<()> {
        self.wait(sys, progress)?;
        let mut argv =
            ["-y", SEE_ALL, "--setopt=clean_requirements_on_remove=False", "--setopt=install_weak_deps=False"].map(str::to_owned).to_vec();
        argv.extend(arguments(options));
        let (command, shell) = transaction(argv, targets, true)?;
        let output = streamed(sys, progress, &command)?;
        if !output.success() || (shell && !errors(&text(&output)).is_empty()) {
            return Err(failed(&output));
        }
        // Where one of several versions goes, dnf forgets why the others are there.
        let several = |target: &Target| if let Target::Remove(name, Some(_)) = target { Some(name.clone()) } else { None };
        let forgotten: Vec<String> = targets.iter().filter_map(several).collect();
        if forgotten.is_empty() { Ok(()) } else { self.mark(sys, progress, Mark::Manual, &forgotten) }
    }

    fn can_hold(&self, sys: &System) -> Result<()> {
        if list(sys)?.is_some() {
            return Ok(());
        }
        Err(Diagnostic::new(Code::Failed, "Cannot proceed, python3-dnf-plugin-versionlock is not installed.")
            .hint("dnf holds packages by that plugin: install it by a state before this one, which requires it")
            .into())
    }

    fn mark(&self, sys: &System, progress: &mut Progress, mark: Mark, names: &[String]) -> Result<()> {
        let verb = match mark {
            Mark::Auto => "remove",
            Mark::Manual => "install",
            Mark::Hold | Mark::Unhold => {
                self.can_hold(sys)?;
                let Some((path, text)) = list(sys)? else { return Ok(()) };
                let stems: Vec<&str> = names.iter().map(|name| parted(name).0).collect();
                let mut new: String =
                    text.split_inclusive('\n').filter(|line| held(line).is_none_or(|(n, _)| !stems.contains(&n))).collect();
                if mark == Mark::Hold {
                    let installed = self.packages(sys)?.unwrap_or_default();
                    for (name, stem) in names.iter().zip(stems) {
                        for version in installed.get(name).map(|p| p.version.as_str()).unwrap_or_default().split(',') {
                            let epoch = if version.contains(':') { "" } else { "0:" };
                            let end = if new.is_empty() || new.ends_with('\n') { "" } else { "\n" };
                            new.push_str(&format!("{end}{stem}-{epoch}{version}.*\n"));
                        }
                    }
                }
                return write_list(sys, &path, &new);
            }
        };
        let argv =
            [vec!["dnf", "-q", "-y", "-C", "--noplugins", "--disablerepo=*", "mark", verb], names.iter().map(String::as_str).collect()];
        self.run(sys, progress, argv.concat().into_iter().map(str::to_owned).collect())
    }

    fn refresh(&self) -> Vec<String> {
        ["dnf", "-q", "-y", "--refresh", "makecache"].map(str::to_owned).to_vec()
    }

    fn run(&self, sys: &System, progress: &mut Progress, argv: Vec<String>) -> Result<()> {
        self.wait(sys, progress)?;
        let output = streamed(sys, progress, &command(argv.into_iter().skip(1)))?;
        if output.success() { Ok(()) } else { Err(failed(&output)) }
    }

    fn wait(&self, sys: &System, progress: &mut Progress) -> Result<()> {
        lock::wait(
            sys,
            progress,
            &LOCKS,
            "try again when it is done; `systemctl stop dnf-automatic.timer packagekit` ends what works by itself",
        )
    }

    fn files(&self) -> (&'static str, Option<&'static str>) {
        (".rpm", None)
    }

    fn fetch(&self, sys: &System, packages: &[(String, String)], directory: &str) -> Result<()> {
        let beside = format!("{directory}/.fetched");
        let place = sys.path(&beside);
        let argv = ["-q", "-y", SEE_ALL, "reinstall", "--downloadonly"].map(str::to_owned).into_iter();
        let specs = packages.iter().map(|(name, version)| spec(name, Some(version), true));
        // Reinstalling what is installed is how dnf without plugins comes by its file.
        sys.run(&command(argv.chain([format!("--destdir={beside}")]).chain(specs)))?;
        let fetched = sys.list(&beside)?;
        for (name, version) in packages {
            let (stem, _) = parted(name);
            let start = format!("{stem}-{}.", version.split_once(':').map_or(version.as_str(), |(_, v)| v));
            let Some(file) = fetched.iter().find(|file| file.starts_with(&start) && file.ends_with(".rpm")) else { continue };
            let arch = file.trim_end_matches(".rpm").rsplit('.').next().unwrap_or("noarch");
            let to = sys.path(&format!("{directory}/{}{arch}.rpm", kept::prefix(name, version)));
            std::fs::rename(place.join(file), to).map_err(|e| Diagnostic::io(format!("keep {file}"), &e))?;
        }
        let _ = std::fs::remove_dir_all(&place);
        Ok(())
    }

    fn owned(&self, sys: &System, name: &str, package: &Package) -> Result<Vec<Owned>> {
        let (stem, _) = parted(name);
        rpm::owned(sys, &format!("{stem}.{}", package.arch))
    }

    fn copies(&self) -> (&'static [&'static str], bool) {
        (&[".rpmnew", ".rpmsave", ".rpmorig"], true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(packages: &[(&str, &str)]) -> Packages {
        let package = |version: &str| Package { version: version.to_owned(), arch: "noarch".into(), ..Package::default() };
        packages.iter().map(|(name, version)| ((*name).to_owned(), package(version))).collect()
    }

    fn outcome_of(text: &str) -> Simulation {
        outcome(&now(&[("tool", "1.0-1"), ("lib", "2.0-1"), ("kernel", "1-1,2-1,3-1"), ("leaf", "1:1-1"), ("held", "1-1")]), text)
    }

    #[test]
    fn the_table_of_a_transaction_says_what_there_is_afterwards() {
        let text = "Last metadata expiration check: 0:00:22 ago\nPackage tool-1.0-1.noarch is already installed.\nDependencies resolved.\n\
            ====\n Package    Arch   Version   Repo   Size\n====\nInstalling:\n kernel  noarch  4-1  lab  6.1 k\n new.with.dots noarch 1:0.5-1 lab 28  \n     replacing  leaf.noarch 1:1-1\n\
            \x20a-name-too-long-for-its-column\n             noarch 1.0-1.long\n                           lab 6.0 k\n\
            Upgrading:\n tool noarch 0:2.0-1 lab 6.0 k\nInstalling dependencies:\n more i686 3-1 lab 1 M\nRemoving:\n kernel noarch 1-1 @lab 3\n\
            Removing unused dependencies:\n lib noarch 2.0-1 @lab 27\nReinstalling:\n held noarch 1-1 lab 6 k\n\nTransaction Summary\n====\nInstall  2 Packages\n\nOperation aborted.\n";
        let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>();
        assert_eq!(
            outcome_of(text),
            Simulation {
                installs: pairs(&[
                    ("kernel", "2-1,3-1,4-1"),
                    ("new.with.dots", "1:0.5-1"),
                    ("a-name-too-long-for-its-column", "1.0-1.long"),
                    ("tool", "2.0-1"),
                    ("more.i686", "3-1"),
                ]),
                removes: vec!["leaf".into(), "lib".into()],
            }
        );
        assert_eq!(outcome_of("Dependencies resolved.\nNothing to do.\nComplete!\n"), Simulation::default());
    }

    #[test]
    fn failures_say_what_failed() {
        for (said, summary) in [
            ("No match for argument: nope\nError: Unable to find a match: nope\n", "dnf: Unable to find a match: nope"),
            (
                "Error: \n Problem: package a-2 conflicts with b provided by b-1\n  - cannot install\n",
                "dnf: package a-2 conflicts with b provided by b-1",
            ),
            (
                "error: %prein(a-2.0-1.noarch) scriptlet failed, exit status 1\n\nFailed:\n  a-1\n\nError: Transaction failed\n",
                "dnf: %prein(a-2.0-1.noarch) scriptlet failed, exit status 1",
            ),
            ("", "dnf ended with 1"),
        ] {
            assert_eq!(failed(&Output { status: 1, stdout: said.into(), ..Output::default() }).summary, summary);
        }
        assert!(errors("Error: Operation aborted.\n").is_empty());
    }

    #[test]
    fn several_kinds_of_targets_are_one_transaction() {
        let install = |name: &str, version: &str| Target::Install(name.into(), Some(version.into()));
        let (command, shell) = transaction(vec!["-y".into()], &[install("a", "1-1"), install("b.i686", "2:1-1")], true).unwrap();
        assert_eq!((command.argv.join(" ").as_str(), shell), ("dnf -y install a-0:1-1 b-2:1-1.i686", false));
        let targets = [Target::Latest("l".into()), install("a", "1.0"), Target::Remove("k".into(), Some("1-1".into()))];
        let (command, shell) = transaction(vec![], &targets, false).unwrap();
        assert_eq!((command.argv.join(" ").as_str(), shell), ("dnf shell /proc/self/fd/0", true));
        assert_eq!(String::from_utf8_lossy(&command.stdin), "install a-1.0\nremove k-0:1-1\nupgrade l\nrun\n");
        assert!(transaction(vec![], &[install("a", "1';")], true).is_err());
    }

    #[test]
    fn lines_of_the_list_hold_packages_by_name() {
        let of = ["lab-leaf-0:1.0-1.*", "# Added lock on Fri", "!bad-0:1-1.*", "", "plain", "a-b-c-1:2-3.x86_64"].map(held);
        assert_eq!(of, [Some(("lab-leaf", "0:1.0-1.*")), None, None, None, Some(("plain", "*")), Some(("a-b-c", "1:2-3.x86_64"))]);
        let package = |version: &str| Package { version: version.into(), arch: "noarch".into(), ..Package::default() };
        assert!(
            holds(&package("1.0-1"), "0:1.0-1.*") && holds(&package("1-1,1:2-1"), "1:2-1.noarch") && !holds(&package("2.0-1"), "0:1.0-1.*")
        );
    }
}
