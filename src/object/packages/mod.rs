//! All packages of the host, as one object: what is installed in which version, what came with others, what is held.
//!
//! Attributes: one per package (`nginx`, `libc6:i386`, `glibc.i686`), a text: the version, then `auto` (came with others), `hold`, `config`
//! (removed, its configuration files are there) or `broken`. Versions that are installed beside each other (kernels) have commas between them.
//! What is wanted may also be put loosely: `installed`, `latest`, `removed`, `>=1.2` …, with `hold` or `unhold` behind it, and null for
//! purged; `resolve` makes exact versions of it. Names with `@` are no packages: `@all` (only in what was read: what is not named goes),
//! `@locks @keys` (what else was read, to restore it), `@recommends @fromrepo @enablerepo …` (how it is to be done) and `@source:NAME`
//! (the file to install from).
//!
//! What differs between apt and dnf is behind `manager::Manager`.

mod apt;
mod dnf;
mod kept;
mod lock;
pub mod manager;
mod rpm;
mod status;
#[cfg(test)]
mod tests;
pub mod version;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;

use self::manager::{Manager, Mark, Options, Package, State, Target};
use super::{Object, Progress, Sign};
use crate::diagnostic::{Code, Diagnostic, Error, Result};
use crate::plan::{Hash, Key, Kind};
use crate::system::{Meta, System};
use crate::value::{Attrs, Value, attributes, those};

/// What says which repositories a state looks into.
const WHERE: [&str; 4] = ["@fromrepo", "@enablerepo", "@disablerepo", "@setopt"];

/// The run in which the package lists were last fetched: once a run is enough.
static REFRESHED: Mutex<Option<String>> = Mutex::new(None);

pub struct Packages {
    /// The manager's.
    name: String,
}

impl Packages {
    pub fn new(manager: &str) -> Packages {
        Packages { name: manager.to_owned() }
    }

    /// The manager and what it knows to be there.
    fn status(&self, sys: &System) -> Result<(&'static dyn Manager, manager::Packages)> {
        let manager = manager::of(&self.name)?;
        match manager.packages(sys)? {
            Some(packages) => Ok((manager, packages)),
            None => Err(Diagnostic::new(Code::Failed, "this host has no dpkg")
                .detail(format!("{} is not there", status::STATUS))
                .hint("packages are managed where apt or dnf is")
                .into()),
        }
    }

    /// Keeps what the way from `to` back to `from` needs.
    fn keep_files(&self, sys: &System, from: &Attrs, to: &Attrs) -> Result<()> {
        let (manager, packages) = self.status(sys)?;
        let mut going = Vec::new();
        for (name, there, wanted) in differences(from, to) {
            let Some(package) = packages.get(name) else { continue };
            let goes = lost(there, wanted);
            if !goes.is_empty() {
                let owned = manager.owned(sys, name, package)?;
                kept::keep_copies(sys, manager, name, &package.version, &owned)?;
                kept::keep_units(sys, name, &package.version, &owned)?;
                if wanted.is_none() || manager.copies().1 {
                    kept::keep_conffiles(sys, name, &package.version, &owned)?;
                }
                going.extend(goes.into_iter().map(|version| (name.to_owned(), version.to_owned())));
            } else if wanted.is_none() {
                kept::keep_conffiles(sys, name, &package.version, &manager.owned(sys, name, package)?)?;
            }
        }
        kept::keep_files(sys, manager, going)?;
        kept::prune(sys)
    }

    /// Whether a wanted value is an exact version (or null) already.
    fn exact(&self, value: &Value) -> bool {
        let version = spec(value);
        let loose = ["installed", "latest", "removed"].contains(&version) || version.starts_with(['<', '>', '=', '!']);
        let whole = manager::of(&self.name).is_ok_and(|manager| manager.whole(version));
        value.is_null() || !(loose || version.contains(['*', '?', '[']) || value.to_text().contains(" unhold") || !whole)
    }
}

/// The versions that are installed and will not be.
fn lost<'a>(there: Option<There<'a>>, wanted: Option<There>) -> Vec<&'a str> {
    let stay: Vec<&str> = wanted.filter(|w| w.installed).map(|w| w.version.split(',').collect()).unwrap_or_default();
    let now = there.filter(|t| t.installed).map(|t| t.version.split(',').collect::<Vec<_>>()).unwrap_or_default();
    now.into_iter().filter(|version| !stay.contains(version)).collect()
}

/// What gets a package from one to the other. A version takes the place of another by being installed, but where there are several.
fn targets(name: &str, now: Option<There>, wanted: Option<There>) -> Vec<Target> {
    let (going, coming) = (lost(now, wanted), lost(wanted, now));
    if wanted.is_none_or(|w| !w.installed) {
        return now.filter(|n| n.installed).map(|_| Target::Remove(name.to_owned(), None)).into_iter().collect();
    }
    let several = [now, wanted].into_iter().flatten().any(|t| t.version.contains(','));
    let remove = going.into_iter().filter(|_| several).map(|version| Target::Remove(name.to_owned(), Some(version.to_owned())));
    let install = coming.into_iter().map(|version| Target::Install(name.to_owned(), Some(version.to_owned())));
    install.chain(remove).collect()
}

/// One package as an attribute says it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct There<'a> {
    version: &'a str,
    installed: bool,
    auto: bool,
    hold: bool,
}

/// `None`: not there, neither installed nor its configuration.
fn there(value: Option<&Value>) -> Option<There<'_>> {
    let mut words = value?.as_str()?.split(' ');
    let version = words.next()?;
    let mut there = There { version, installed: true, auto: false, hold: false };
    for word in words {
        match word {
            "auto" => there.auto = true,
            "hold" => there.hold = true,
            "config" => there.installed = false,
            _ => {}
        }
    }
    Some(there)
}

fn text(version: &str, state: State, auto: bool, hold: bool) -> String {
    let state = match state {
        State::Installed => "",
        State::Config => " config",
        State::Broken => " broken",
    };
    format!("{version}{state}{}{}", if auto { " auto" } else { "" }, if hold { " hold" } else { "" })
}

fn packages(attrs: &Attrs) -> impl Iterator<Item = (&str, &Value)> {
    attrs.iter().filter(|(name, _)| !name.starts_with('@')).map(|(name, value)| (name.as_str(), value))
}

/// The packages that are installed, and whether each came with others.
pub fn installed(attrs: &Attrs) -> impl Iterator<Item = (&str, bool)> {
    packages(attrs).filter_map(|(name, value)| there(Some(value)).filter(|there| there.installed).map(|there| (name, there.auto)))
}

/// Whether dnf's list of locked packages holds this one in this version.
pub fn locked(list: &str, name: &str, version: &str, arch: &str) -> bool {
    let package = Package { version: version.to_owned(), arch: arch.to_owned(), ..Package::default() };
    dnf::locked(list, name, &package)
}

/// The packages that these paths belong to, of those that belong to one.
pub fn owners(sys: &System, paths: &BTreeSet<&str>) -> Result<BTreeMap<String, String>> {
    const LISTS: &str = "/var/lib/dpkg/info";
    if manager::family(sys) == "dnf" {
        return rpm::owners(sys, paths);
    }
    let mut owners = BTreeMap::new();
    for name in if paths.is_empty() { Vec::new() } else { sys.list(LISTS)? } {
        let Some(package) = name.strip_suffix(".list") else { continue };
        let text = sys.read(&format!("{LISTS}/{name}"))?.unwrap_or_default();
        let package = package.split(':').next().unwrap_or(package);
        let own = String::from_utf8_lossy(&text)
            .lines()
            .filter(|path| paths.contains(path))
            .map(|path| (path.to_owned(), package.to_owned()))
            .collect::<Vec<_>>();
        owners.extend(own);
    }
    Ok(owners)
}

/// What is to change: the package, what is there of it, what is to be.
fn differences<'a>(from: &'a Attrs, to: &'a Attrs) -> Vec<(&'a str, Option<There<'a>>, Option<There<'a>>)> {
    let named = packages(to).map(|(name, value)| (name, there(from.get(name)), there(Some(value))));
    let whole = to.contains_key("@all");
    let others = packages(from).filter(|(name, _)| whole && !to.contains_key(*name)).map(|(name, value)| (name, there(Some(value)), None));
    named.chain(others).filter(|(_, there, wanted)| there != wanted).collect()
}

fn options(to: &Attrs) -> Options {
    let list = |name: &str| match to.get(name) {
        Some(Value::List(list)) => list.iter().map(Value::to_text).collect(),
        Some(one) => one.to_text().split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect(),
        None => Vec::new(),
    };
    Options {
        recommends: to.get("@recommends").and_then(Value::as_bool),
        from: to.get("@fromrepo").map(Value::to_text),
        unauthenticated: to.get("@skip_verify").is_some_and(Value::truthy),
        autoremove: false,
        refresh: to.get("@refresh").is_some_and(Value::truthy),
        enable: list("@enablerepo"),
        disable: list("@disablerepo"),
        settings: list("@setopt"),
    }
}

/// What remains of a package that is removed and not purged.
fn remains(sys: &System, manager: &dyn Manager, packages: &manager::Packages, name: &str) -> Result<Value> {
    let Some(package) = packages.get(name) else { return Ok(Value::Null) };
    Ok(match manager.leaves_configuration(sys, name, package)? {
        true => text(&package.version, State::Config, false, package.hold).into(),
        false => Value::Null,
    })
}

impl Object for Packages {
    fn key(&self) -> Key {
        Key::new(Kind::Packages, &self.name)
    }

    fn settle(&self, sys: &System) -> Result<()> {
        manager::of(&self.name).map_or(Ok(()), |manager| manager.wait(sys, &mut Progress::new(&mut |_| {})))
    }

    fn read(&self, sys: &System) -> Result<Attrs> {
        // What cannot be managed reads as nothing; who wants something of it is told.
        let Ok(manager) = manager::of(&self.name) else { return Ok(Attrs::new()) };
        let Some(packages) = manager.packages(sys)? else { return Ok(Attrs::new()) };
        let of = |p: &Package| text(&p.version, p.state, p.auto && p.state == State::Installed, p.hold);
        let mut attrs = attributes(packages.iter().map(|(name, p)| (name.clone(), Value::Str(of(p)))));
        attrs.extend(manager.besides(sys)?);
        attrs.insert("@all".into(), Value::Bool(true));
        Ok(attrs)
    }

    fn sweep(&self, sys: &System) -> Result<()> {
        let own = manager::of(&self.name).map_or(Ok(Vec::new()), |manager| manager.writes(sys))?;
        own.into_iter().chain(kept::conffiles(sys)?).try_for_each(|path| sys.sweep(&path))
    }

    fn signs(&self, sys: &System) -> Result<Vec<Sign>> {
        manager::of(&self.name).map_or(Ok(Vec::new()), |manager| manager.signs(sys))
    }

    fn keep(&self, sys: &System, from: &Attrs, to: &Attrs) -> Result<()> {
        // What is still loose is kept when it is known, before the transaction.
        if packages(to).all(|(_, value)| self.exact(value)) { self.keep_files(sys, from, to) } else { Ok(()) }
    }

    fn resolve(&self, sys: &System, from: &Attrs, to: &Attrs, touched: &dyn Fn(&str) -> bool) -> Result<Attrs> {
        if to.contains_key("@all") || packages(to).all(|(name, value)| self.exact(value) && there(from.get(name)) == there(Some(value))) {
            return Ok(to.clone());
        }
        let (manager, status) = self.status(sys)?;
        let options = options(to);
        let loose = manager.sources().iter().any(|directory| touched(directory)) || (options.refresh && !manager.asks_repositories());
        let source = |name: &str| to.contains_key(&format!("@source:{name}"));
        let mut targets = Vec::new();
        let ranges: Vec<&str> =
            packages(to).filter(|(_, v)| spec(v).starts_with(['<', '>', '=', '!']) || spec(v).contains('*')).map(|(n, _)| n).collect();
        let available = if ranges.is_empty() { BTreeMap::new() } else { manager.available(sys, &ranges)? };
        for (name, value) in packages(to).filter(|(name, _)| !source(name)) {
            let now = there(from.get(name)).filter(|t| t.installed);
            match spec(value) {
                "" | "removed" => targets.extend(now.map(|_| Target::Remove(name.to_owned(), None))),
                "installed" => targets.extend(now.is_none().then(|| Target::Install(name.to_owned(), None))),
                "latest" => targets.push(Target::Latest(name.to_owned())),
                _ if ranges.contains(&name) => {
                    let all = available.get(name).map(Vec::as_slice).unwrap_or_default();
                    match all.iter().find(|v| version::fulfils(manager.order(), v, spec(value), false)) {
                        Some(version) => targets.push(Target::Install(name.to_owned(), Some(version.clone()))),
                        None if loose => return Ok(to.clone()),
                        None => {
                            let all = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
                            let summary = format!("No version matching '{name}{}' could be found (available: {all})", spec(value));
                            return Err(Diagnostic::new(Code::Failed, summary).into());
                        }
                    }
                }
                version => {
                    let other = now.is_none_or(|t| t.version != version);
                    targets.extend(other.then(|| Target::Install(name.to_owned(), Some(version.to_owned()))));
                }
            }
        }
        let simulation = match &targets[..] {
            [] => Ok(manager::Simulation::default()),
            targets => {
                let pending = self.pending(sys, from)?;
                // What earlier states bring may come from where this one does not look.
                let elsewhere = !pending.is_empty() && [from, to].iter().any(|attrs| WHERE.iter().any(|name| attrs.contains_key(*name)));
                match manager.simulate(sys, &options, &[pending, targets.to_vec()].concat()) {
                    Err(_) if elsewhere => manager.simulate(sys, &options, targets),
                    other => other,
                }
            }
        };
        let simulation = match simulation {
            Err(_) if loose => return Ok(to.clone()),
            other => other?,
        };
        let mut out = those(to, |name, _| name.starts_with('@'));
        for (name, value) in packages(to) {
            let now = there(from.get(name));
            let hold = match value.as_str().and_then(|v| v.rsplit(' ').next()) {
                Some("hold") => true,
                Some("unhold") => false,
                _ => now.is_some_and(|n| n.hold),
            };
            if hold && !now.is_some_and(|n| n.hold) {
                manager.can_hold(sys)?;
            }
            let wanted = match spec(value) {
                "" => Value::Null,
                "removed" if now.is_some_and(|n| n.installed) => remains(sys, manager, &status, name)?,
                "removed" => from.get(name).cloned().unwrap_or_default(),
                _ if source(name) => value.clone(),
                _ => {
                    let new = simulation.installs.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
                    match (new, now.filter(|n| n.installed)) {
                        (Some(version), now) => {
                            let auto = spec(value) == "latest" && now.is_some_and(|n| n.auto);
                            text(version, State::Installed, auto, hold).into()
                        }
                        (None, Some(now)) => text(now.version, State::Installed, now.auto, hold).into(),
                        (None, None) if loose => value.clone(),
                        (None, None) => {
                            let instead = |(n, _): &(String, String)| format!("; {} would install {n} instead", manager.name());
                            let by = simulation.installs.first().map(instead).unwrap_or_default();
                            return Err(Diagnostic::new(Code::Failed, format!("{name} is not a package of its own{by}"))
                                .hint("name the package that provides it")
                                .into());
                        }
                    }
                }
            };
            out.insert(name.to_owned(), wanted);
        }
        let purges = packages(to).any(|(_, v)| v.is_null());
        for (name, version) in simulation.installs {
            let now = there(from.get(&name)).filter(|t| t.installed);
            let value = text(&version, State::Installed, now.is_none_or(|t| t.auto), now.is_some_and(|t| t.hold));
            if from.get(&name).and_then(Value::as_str) != Some(&value) {
                out.entry(name).or_insert_with(|| value.into());
            }
        }
        for name in simulation.removes {
            let is_there = there(from.get(&name)).is_some_and(|t| t.installed);
            if is_there && let Entry::Vacant(place) = out.entry(name) {
                let remains = if purges { Value::Null } else { remains(sys, manager, &status, place.key())? };
                place.insert(remains);
            }
        }
        if differences(from, &out).is_empty() {
            out.retain(|name, _| !name.starts_with('@'));
        } else if loose {
            // Something is to be done; in which versions is known when the package lists have been fetched.
            return Ok(to.clone());
        }
        Ok(out)
    }

    fn set(&self, sys: &System, from: &Attrs, to: &Attrs, progress: &mut Progress) -> Result<Attrs> {
        let (manager, _) = self.status(sys)?;
        // What cannot be brought to an end may be what is to go, or another's: the end decides.
        let mut failure = failed(manager.repair(sys, progress))?;
        let loose = packages(to).any(|(_, value)| !self.exact(value));
        if to.get("@refresh").is_some_and(Value::truthy) || (loose && !packages(to).all(|(n, _)| to.contains_key(&format!("@source:{n}"))))
        {
            refresh(sys, manager, progress)?;
        }
        let from = &self.read(sys).map(|now| if now.is_empty() { from.clone() } else { now })?;
        let resolved = if loose {
            // The lists are fetched: now it has to be said which versions.
            let known = those(to, |name, _| name != "@refresh");
            self.resolve(sys, from, &known, &|_| false)?
        } else {
            to.clone()
        };
        self.keep_files(sys, from, &resolved)?;

        let (mut todo, mut purges, mut then_removed) = (Vec::new(), Vec::new(), Vec::new());
        for (name, now, wanted) in differences(from, &resolved) {
            let file = wanted.filter(|w| w.installed).and_then(|_| resolved.get(&format!("@source:{name}")));
            match (file, wanted) {
                (Some(file), _) => todo.push(Target::File(source(sys, manager, name, &file.to_text())?)),
                (None, Some(wanted)) if !wanted.installed && now.is_none() => {
                    todo.extend(with_files(sys, manager, vec![Target::Install(name.to_owned(), Some(wanted.version.to_owned()))])?);
                    then_removed.push(Target::Remove(name.to_owned(), None));
                }
                (None, wanted) => {
                    todo.extend(with_files(sys, manager, targets(name, now, wanted))?);
                    purges.extend(wanted.is_none().then(|| name.to_owned()));
                }
            }
        }
        let whole = to.contains_key("@all");
        let mut leaving = Vec::new();
        if whole {
            let (_, status) = self.status(sys)?;
            for (name, _, _) in differences(from, &resolved).into_iter().filter(|(_, _, wanted)| wanted.is_none()) {
                if let Some(package) = status.get(name) {
                    leaving.push((name, package.version.clone(), manager.owned(sys, name, package)?));
                }
            }
        }
        let options = options(to);
        if !todo.is_empty()
            && let Some(e) = failed(manager.transact(sys, progress, &options, &todo))?
        {
            if !self.reached(sys, &resolved)? {
                return Err(e);
            }
            failure = Some(e);
        }
        if !then_removed.is_empty() {
            manager.transact(sys, progress, &options, &then_removed)?;
        }
        if !purges.is_empty() {
            manager.purge(sys, progress, &purges)?;
        }
        if whole {
            for (name, version, owned) in leaving {
                kept::restore_copies(sys, manager, name, &version, &owned)?;
            }
            self.restore(sys, manager, from, &resolved, progress)?;
        }
        self.mark(sys, &resolved, progress)?;
        if whole {
            manager.restore_besides(sys, to, progress)?;
        }
        match failure {
            Some(e) if !self.reached(sys, &resolved)? => Err(e),
            _ => self.read(sys),
        }
    }

    fn one_way(&self, sys: &System, from: &Attrs, to: &Attrs) -> Option<String> {
        let manager = manager::of(&self.name).ok()?;
        let wanted = |wanted: Option<There>| wanted.is_none_or(|w| !w.installed || self.exact(&Value::from(w.version)));
        let going: Vec<(&str, &str)> = differences(from, to)
            .into_iter()
            .filter(|(_, _, w)| wanted(*w))
            .flat_map(|(name, now, wanted)| lost(now, wanted).into_iter().map(move |version| (name, version)))
            .filter(|(name, version)| kept::file(sys, manager, name, version).ok().flatten().is_none())
            .collect();
        if going.is_empty() {
            return None;
        }
        let names: Vec<&str> = going.iter().map(|(name, _)| *name).collect();
        let available = manager.available(sys, &names).unwrap_or_default();
        let lost: Vec<String> = going
            .iter()
            .filter(|(name, version)| !available.get(*name).is_some_and(|all| all.iter().any(|v| v == version)))
            .map(|(name, version)| format!("{name} {version}"))
            .collect();
        (!lost.is_empty()).then(|| format!("no repository has the present version any more: {}", lost.join(", ")))
    }

    fn describe(&self, _sys: &System, from: &Attrs, to: &Attrs) -> String {
        let mut out = String::new();
        let whole = to.contains_key("@all");
        for (name, now, wanted) in differences(from, to) {
            let version = |t: Option<There>| t.map_or(String::new(), |t| t.version.to_owned());
            let line = match (now.filter(|n| n.installed), wanted.filter(|w| w.installed)) {
                (_, Some(w)) if !self.exact(&Value::from(w.version)) => {
                    format!("{name}: {} (the version is known when the package lists have been fetched)", w.version)
                }
                (None, Some(w)) if w.auto && !whole => format!("{name}: {} (pulled in)", w.version),
                (None, Some(w)) => format!("{name}: {}", w.version),
                (Some(n), Some(w)) if n.version != w.version => format!("{name}: {} → {}", n.version, w.version),
                (Some(n), Some(w)) if n.hold != w.hold => format!("{name}: {}", if w.hold { "held" } else { "no longer held" }),
                (Some(_), Some(w)) => format!("{name}: marked as {}", if w.auto { "automatic" } else { "manual" }),
                (Some(n), None) if wanted.is_some() => format!("{name}: {} removed", n.version),
                (_, None) if self.name == "apt" => format!("{name}: {} purged", version(now)),
                (_, None) => format!("{name}: {} removed", version(now)),
            };
            out.push_str(&line);
            out.push('\n');
        }
        out
    }
}

/// The first word of what is wanted; empty for purged.
fn spec(value: &Value) -> &str {
    value.as_str().unwrap_or_default().split(' ').next().unwrap_or_default()
}

/// Kept files in the place of versions that are to be installed.
fn with_files(sys: &System, manager: &dyn Manager, targets: Vec<Target>) -> Result<Vec<Target>> {
    let file = |target: Target| match &target {
        Target::Install(name, Some(version)) => Ok(kept::file(sys, manager, name, version)?.map_or(target, Target::File)),
        _ => Ok(target),
    };
    targets.into_iter().map(file).collect()
}

/// The file to install from: one of the host's, or contents by hash that are put beside the journal.
fn source(sys: &System, manager: &dyn Manager, name: &str, file: &str) -> Result<String> {
    if file.starts_with('/') {
        return Ok(file.to_owned());
    }
    let path = format!("/var/lib/basalt/{name}{}", manager.files().0);
    let state = sys.path("/var/lib/basalt");
    if !Path::new(&state).is_dir() {
        std::fs::create_dir_all(&state).map_err(|e| Diagnostic::io("create /var/lib/basalt", &e))?;
    }
    let uid = rustix::process::geteuid().as_raw();
    sys.write_file(&path, &Hash(file.to_owned()), &Meta { mode: 0o600, uid, gid: rustix::process::getegid().as_raw(), ..Meta::default() })?;
    Ok(path)
}

/// Fetches the package lists, once a run.
fn refresh(sys: &System, manager: &dyn Manager, progress: &mut Progress) -> Result<()> {
    let run = sys.run_id();
    if let Ok(mut last) = REFRESHED.lock() {
        if run.is_some() && *last == run {
            return Ok(());
        }
        *last = run;
    }
    manager.run(sys, progress, manager.refresh())
}

/// The failure of a package manager, where it is that; other errors end all.
fn failed(result: Result<()>) -> Result<Option<Error>> {
    match result {
        Ok(()) => Ok(None),
        Err(e) if e.code == Code::Failed => Ok(Some(e)),
        Err(e) => Err(e),
    }
}

impl Packages {
    /// What would go with these, and of what came along once but is not needed any more.
    pub fn unneeded(&self, sys: &System, planned: &Attrs, going: &[String]) -> Result<Vec<String>> {
        let going = going.iter().map(|name| Target::Remove(name.clone(), None)).collect();
        let options = Options { autoremove: true, ..Options::default() };
        Ok(manager::of(&self.name)?.simulate(sys, &options, &[self.pending(sys, planned)?, going].concat())?.removes)
    }

    /// What earlier states of the plan will have made of the packages, as targets: the manager knows only what is there now.
    fn pending(&self, sys: &System, planned: &Attrs) -> Result<Vec<Target>> {
        let now = self.read(sys)?;
        let known = |wanted: Option<There>| wanted.is_none_or(|w| !w.installed || self.exact(&Value::from(w.version)));
        let all = differences(&now, planned).into_iter().filter(|(_, _, wanted)| known(*wanted));
        Ok(all.flat_map(|(name, now, wanted)| targets(name, now, wanted)).collect())
    }

    /// Puts back what came with the versions that are back: configuration that their user had changed, and how their units stood.
    fn restore(&self, sys: &System, manager: &dyn Manager, from: &Attrs, to: &Attrs, progress: &mut Progress) -> Result<()> {
        let (_, packages) = self.status(sys)?;
        for (name, now, wanted) in differences(from, to) {
            let Some(wanted) = wanted else { continue };
            let was = now.filter(|n| n.installed);
            if was.is_none() || (manager.copies().1 && was.is_some_and(|w| w.version != wanted.version)) {
                kept::restore_conffiles(sys, name, wanted.version)?;
            }
            if now.is_none_or(|now| now.version != wanted.version || !now.installed)
                && let Some(package) = packages.get(name).filter(|_| wanted.installed)
            {
                let owned = manager.owned(sys, name, package)?;
                kept::restore_copies(sys, manager, name, wanted.version, &owned)?;
                kept::restore_units(sys, name, wanted.version, progress)?;
            }
        }
        Ok(())
    }

    /// Whether the packages are there, configured, or gone, as is wanted: what failed was another's.
    fn reached(&self, sys: &System, wanted: &Attrs) -> Result<bool> {
        let now = self.read(sys)?;
        Ok(packages(wanted).all(|(name, value)| {
            let is = there(now.get(name)).filter(|is| is.installed);
            let broken = now.get(name).and_then(Value::as_str).is_some_and(|text| text.contains(" broken"));
            match there(Some(value)).filter(|wanted| wanted.installed) {
                Some(wanted) => !broken && is.is_some_and(|is| is.version == wanted.version),
                None => is.is_none(),
            }
        }))
    }

    /// Makes marks what they are to be, where a transaction left them otherwise.
    fn mark(&self, sys: &System, wanted: &Attrs, progress: &mut Progress) -> Result<()> {
        let (manager, _) = self.status(sys)?;
        let now = self.read(sys)?;
        let mut marks: BTreeMap<Mark, Vec<String>> = BTreeMap::new();
        for (name, value) in packages(wanted) {
            let (Some(now), Some(wanted)) = (there(now.get(name)), there(Some(value))) else { continue };
            if now.hold != wanted.hold {
                marks.entry(if wanted.hold { Mark::Hold } else { Mark::Unhold }).or_default().push(name.to_owned());
            }
            if now.installed && wanted.installed && now.auto != wanted.auto {
                marks.entry(if wanted.auto { Mark::Auto } else { Mark::Manual }).or_default().push(name.to_owned());
            }
        }
        for (mark, names) in marks {
            manager.mark(sys, progress, mark, &names)?;
        }
        Ok(())
    }
}
