//! All packages of the host, as one object: what is installed in which version, what came with others, what is held.
//!
//! Attributes: one per package (`nginx`, `libc6:i386`), a text: the version, then `auto` (came with others), `hold`, `config` (removed,
//! its configuration files are there) or `broken`. What is wanted may also be put loosely: `installed`, `latest`, `removed`,
//! `>=1.2` …, with `hold` or `unhold` behind it, and null for purged; `resolve` makes exact versions of it.
//! Names with `@` are no packages: `@all` (only in what was read: what is not named goes), `@recommends @fromrepo @skip_verify @refresh`
//! (how apt is to do it) and `@source:NAME` (the file to install from).

mod apt;
mod kept;
pub mod status;
#[cfg(test)]
mod tests;
pub mod version;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;

use self::apt::Options;
use self::status::{Package, State, Status};
use super::{Object, Progress};
use crate::diagnostic::{Code, Diagnostic, Error, Result};
use crate::plan::{Hash, Key, Kind};
use crate::system::{Meta, System};
use crate::value::{Attrs, Value, attributes, those};

/// The run in which the package lists were last fetched: once a run is enough.
static REFRESHED: Mutex<Option<String>> = Mutex::new(None);

pub struct Packages {
    manager: String,
}

impl Packages {
    pub fn new(manager: &str) -> Packages {
        Packages { manager: manager.to_owned() }
    }

    fn status(&self, sys: &System) -> Result<Status> {
        if self.manager != "apt" {
            return Err(Diagnostic::new(Code::Failed, format!("packages of {} are not known here; only apt is", self.manager)).into());
        }
        status::read(sys)?.ok_or_else(|| {
            Diagnostic::new(Code::Failed, "this host has no dpkg")
                .detail(format!("{} is not there", status::STATUS))
                .hint("packages are managed on Debian and its relatives only")
                .into()
        })
    }

    /// Keeps what the way from `to` back to `from` needs.
    fn keep_files(&self, sys: &System, from: &Attrs, to: &Attrs) -> Result<()> {
        let status = self.status(sys)?;
        for (name, there, wanted) in differences(from, to) {
            let Some(package) = status.packages.get(name) else { continue };
            if there.is_some_and(|t| t.installed) && wanted.is_none_or(|w| !w.installed || there.is_some_and(|t| t.version != w.version)) {
                kept::keep_deb(sys, name, &package.version)?;
                kept::keep_copies(sys, name, package)?;
            }
            if wanted.is_none() {
                kept::keep_conffiles(sys, name, package)?;
            }
        }
        kept::prune(sys)
    }
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

/// Whether a wanted value is an exact version (or null) already.
fn exact(value: &Value) -> bool {
    value
        .as_str()
        .is_none_or(|v| v.starts_with(|c: char| c.is_ascii_digit()) && !v.contains(['*', '?', '[', ',']) && !v.contains(" unhold"))
}

fn packages(attrs: &Attrs) -> impl Iterator<Item = (&str, &Value)> {
    attrs.iter().filter(|(name, _)| !name.starts_with('@')).map(|(name, value)| (name.as_str(), value))
}

/// The packages that are installed, and whether each came with others.
pub fn installed(attrs: &Attrs) -> impl Iterator<Item = (&str, bool)> {
    packages(attrs).filter_map(|(name, value)| there(Some(value)).filter(|there| there.installed).map(|there| (name, there.auto)))
}

/// The packages that these paths belong to, of those that belong to one.
pub fn owners(sys: &System, paths: &BTreeSet<&str>) -> Result<BTreeMap<String, String>> {
    const LISTS: &str = "/var/lib/dpkg/info";
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
    Options {
        recommends: to.get("@recommends").and_then(Value::as_bool),
        from: to.get("@fromrepo").map(Value::to_text),
        unauthenticated: to.get("@skip_verify").is_some_and(Value::truthy),
        autoremove: false,
    }
}

/// What remains of a package that is removed and not purged.
fn remains(sys: &System, status: &Status, name: &str) -> Result<Value> {
    let Some(package) = status.packages.get(name) else { return Ok(Value::Null) };
    let stem = name.split(':').next().unwrap_or(name);
    let script = ["", ":"].iter().any(|colon| {
        let arch = if colon.is_empty() { "" } else { package.arch.as_str() };
        sys.stat(&format!("/var/lib/dpkg/info/{stem}{colon}{arch}.postrm")).ok().flatten().is_some()
    });
    Ok(if script || !package.conffiles.is_empty() {
        text(&package.version, State::Config, false, package.hold).into()
    } else {
        Value::Null
    })
}

impl Object for Packages {
    fn key(&self) -> Key {
        Key::new(Kind::Packages, &self.manager)
    }

    fn settle(&self, sys: &System) -> Result<()> {
        apt::wait(sys, &mut Progress::new(&mut |_| {}))
    }

    fn read(&self, sys: &System) -> Result<Attrs> {
        let Some(status) = status::read(sys)?.filter(|_| self.manager == "apt") else { return Ok(Attrs::new()) };
        let of = |p: &Package| text(&p.version, p.state, p.auto && p.state == State::Installed, p.hold);
        let mut attrs = attributes(status.packages.iter().map(|(name, p)| (name.clone(), Value::Str(of(p)))));
        attrs.insert("@all".into(), Value::Bool(true));
        Ok(attrs)
    }

    fn keep(&self, sys: &System, from: &Attrs, to: &Attrs) -> Result<()> {
        // What is still loose is kept when it is known, before the transaction.
        if packages(to).all(|(_, value)| exact(value)) { self.keep_files(sys, from, to) } else { Ok(()) }
    }

    fn resolve(&self, sys: &System, from: &Attrs, to: &Attrs, touched: &dyn Fn(&str) -> bool) -> Result<Attrs> {
        if to.contains_key("@all") || packages(to).all(|(name, value)| exact(value) && there(from.get(name)) == there(Some(value))) {
            return Ok(to.clone());
        }
        let status = self.status(sys)?;
        let loose = touched("/etc/apt/") || to.get("@refresh").is_some_and(Value::truthy);
        let source = |name: &str| to.contains_key(&format!("@source:{name}"));
        let mut targets = Vec::new();
        let ranges: Vec<&str> =
            packages(to).filter(|(_, v)| spec(v).starts_with(['<', '>', '=', '!']) || spec(v).contains('*')).map(|(n, _)| n).collect();
        let available = if ranges.is_empty() { BTreeMap::new() } else { apt::versions(sys, &ranges)? };
        for (name, value) in packages(to).filter(|(name, _)| !source(name)) {
            let now = there(from.get(name)).filter(|t| t.installed);
            match spec(value) {
                "" | "removed" => targets.extend(now.map(|_| format!("{name}-"))),
                "installed" => targets.extend(now.is_none().then(|| name.to_owned())),
                "latest" => targets.push(name.to_owned()),
                _ if ranges.contains(&name) => {
                    let all = available.get(name).map(Vec::as_slice).unwrap_or_default();
                    match all.iter().find(|v| version::fulfils(v, spec(value), false)) {
                        Some(version) => targets.push(format!("{name}={version}")),
                        None if loose => return Ok(to.clone()),
                        None => {
                            let all = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
                            let summary = format!("No version matching '{name}{}' could be found (available: {all})", spec(value));
                            return Err(Diagnostic::new(Code::Failed, summary).into());
                        }
                    }
                }
                version => targets.extend(now.is_none_or(|t| t.version != version).then(|| format!("{name}={version}"))),
            }
        }
        let simulation = match &targets[..] {
            [] => Ok(apt::Simulation::default()),
            targets => apt::simulate(sys, &options(to), &[self.pending(sys, from)?, targets.to_vec()].concat()),
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
            let wanted = match spec(value) {
                "" => Value::Null,
                "removed" if now.is_some_and(|n| n.installed) => remains(sys, &status, name)?,
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
                            let by =
                                simulation.installs.first().map(|(n, _)| format!("; apt would install {n} instead")).unwrap_or_default();
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
                let remains = if purges { Value::Null } else { remains(sys, &status, place.key())? };
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
        let status = self.status(sys)?;
        let mut failure = None;
        let configure = ["dpkg", "--force-confold", "--force-confdef", "--configure", "-a"].map(str::to_owned);
        if status.packages.values().any(|p| p.state == State::Broken) {
            // What cannot be configured may be what is to go, or another's: the end decides.
            failure = failed(apt::run(sys, progress, configure.to_vec()))?;
        }
        let loose = packages(to).any(|(_, value)| !exact(value));
        if to.get("@refresh").is_some_and(Value::truthy) || (loose && !packages(to).all(|(n, _)| to.contains_key(&format!("@source:{n}"))))
        {
            refresh(sys, progress)?;
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

        let (mut targets, mut purges, mut then_removed) = (Vec::new(), Vec::new(), Vec::new());
        for (name, now, wanted) in differences(from, &resolved) {
            let installed = now.filter(|n| n.installed);
            match wanted {
                None => {
                    targets.extend(installed.map(|_| format!("{name}-")));
                    purges.push(name.to_owned());
                }
                Some(wanted) if !wanted.installed => match now {
                    Some(_) => targets.extend(installed.map(|_| format!("{name}-"))),
                    None => {
                        targets.push(target(sys, name, wanted.version)?);
                        then_removed.push(format!("{name}-"));
                    }
                },
                Some(wanted) => {
                    if let Some(file) = resolved.get(&format!("@source:{name}")) {
                        targets.push(source(sys, name, &file.to_text())?);
                    } else if installed.is_none_or(|n| n.version != wanted.version) {
                        targets.push(target(sys, name, wanted.version)?);
                    }
                }
            }
        }
        // Everything that is to come stands in the list; recommendations that the plan shows are among it.
        let options = Options { recommends: Some(false), ..options(to) };
        if !targets.is_empty()
            && let Some(e) = failed(apt::install(sys, progress, &options, &targets))?
        {
            if !self.reached(sys, &resolved)? {
                return Err(e);
            }
            failure = Some(e);
        }
        if !then_removed.is_empty() {
            apt::install(sys, progress, &options, &then_removed)?;
        }
        if !purges.is_empty() {
            apt::run(sys, progress, [vec!["dpkg".to_owned(), "--purge".to_owned()], purges].concat())?;
        }
        if to.contains_key("@all") {
            for (name, now, wanted) in differences(from, &resolved) {
                if let (None | Some(There { installed: false, .. }), Some(wanted)) = (now, wanted) {
                    kept::restore_conffiles(sys, name, wanted.version)?;
                }
                if let (Some(now), Some(wanted)) = (now, wanted)
                    && now.version != wanted.version
                    && let Some(package) = self.status(sys)?.packages.get(name)
                {
                    kept::restore_copies(sys, name, package)?;
                }
            }
        }
        self.mark(sys, &resolved, progress)?;
        match failure {
            Some(e) if !self.reached(sys, &resolved)? => Err(e),
            _ => self.read(sys),
        }
    }

    fn one_way(&self, sys: &System, from: &Attrs, to: &Attrs) -> Option<String> {
        let going: Vec<(&str, &str)> = differences(from, to)
            .into_iter()
            .filter_map(|(name, now, wanted)| {
                let now = now.filter(|n| n.installed)?;
                let goes = wanted.is_none_or(|w| !w.installed || (w.version != now.version && exact(&Value::from(w.version))));
                goes.then_some((name, now.version))
            })
            .filter(|(name, version)| kept::deb(sys, name, version).ok().flatten().is_none())
            .collect();
        if going.is_empty() {
            return None;
        }
        let names: Vec<&str> = going.iter().map(|(name, _)| *name).collect();
        let available = apt::versions(sys, &names).unwrap_or_default();
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
                (_, Some(w)) if !w.version.starts_with(|c: char| c.is_ascii_digit()) => {
                    format!("{name}: {} (the version is known when the package lists have been fetched)", w.version)
                }
                (None, Some(w)) if w.auto && !whole => format!("{name}: {} (pulled in)", w.version),
                (None, Some(w)) => format!("{name}: {}", w.version),
                (Some(n), Some(w)) if n.version != w.version => format!("{name}: {} → {}", n.version, w.version),
                (Some(n), Some(w)) if n.hold != w.hold => format!("{name}: {}", if w.hold { "held" } else { "no longer held" }),
                (Some(_), Some(w)) => format!("{name}: marked as {}", if w.auto { "automatic" } else { "manual" }),
                (Some(n), None) if wanted.is_some() => format!("{name}: {} removed", n.version),
                (_, None) => format!("{name}: {} purged", version(now)),
            };
            out.push_str(&line);
            out.push('\n');
        }
        out
    }
}

/// The versions that the package lists have, newest first.
pub fn available(sys: &System, names: &[&str]) -> Result<BTreeMap<String, Vec<String>>> {
    apt::versions(sys, names)
}

/// The first word of what is wanted; empty for purged.
fn spec(value: &Value) -> &str {
    value.as_str().unwrap_or_default().split(' ').next().unwrap_or_default()
}

/// What apt is to be told: the kept file of a version, or its name and version.
fn target(sys: &System, name: &str, version: &str) -> Result<String> {
    Ok(kept::deb(sys, name, version)?.unwrap_or_else(|| format!("{name}={version}")))
}

/// The file to install from: one of the host's, or contents by hash that are put beside the journal.
fn source(sys: &System, name: &str, file: &str) -> Result<String> {
    if file.starts_with('/') {
        return Ok(file.to_owned());
    }
    let path = format!("/var/lib/basalt/{name}.deb");
    let state = sys.path("/var/lib/basalt");
    if !Path::new(&state).is_dir() {
        std::fs::create_dir_all(&state).map_err(|e| Diagnostic::io("create /var/lib/basalt", &e))?;
    }
    let uid = rustix::process::geteuid().as_raw();
    sys.write_file(&path, &Hash(file.to_owned()), &Meta { mode: 0o600, uid, gid: rustix::process::getegid().as_raw(), ..Meta::default() })?;
    Ok(path)
}

/// Fetches the package lists, once a run.
fn refresh(sys: &System, progress: &mut Progress) -> Result<()> {
    let run = sys.run_id();
    if let Ok(mut last) = REFRESHED.lock() {
        if run.is_some() && *last == run {
            return Ok(());
        }
        *last = run;
    }
    apt::run(sys, progress, ["apt-get", "-q", "update"].map(str::to_owned).to_vec())
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
    /// What apt would take away with these, and of what came along once but is not needed any more.
    pub fn unneeded(&self, sys: &System, planned: &Attrs, going: &[String]) -> Result<Vec<String>> {
        let targets = [self.pending(sys, planned)?, going.iter().map(|name| format!("{name}-")).collect()].concat();
        Ok(apt::simulate(sys, &Options { autoremove: true, ..Options::default() }, &targets)?.removes)
    }

    /// What earlier states of the plan will have made of the packages, as targets for apt: it knows only what is there now.
    fn pending(&self, sys: &System, planned: &Attrs) -> Result<Vec<String>> {
        let now = self.read(sys)?;
        let target = |(name, now, wanted): (&str, Option<There>, Option<There>)| match wanted.filter(|w| w.installed) {
            Some(wanted) if now.is_some_and(|n| n.installed && n.version == wanted.version) => None,
            Some(wanted) => exact(&Value::from(wanted.version)).then(|| format!("{name}={}", wanted.version)),
            None => now.filter(|n| n.installed).map(|_| format!("{name}-")),
        };
        Ok(differences(&now, planned).into_iter().filter_map(target).collect())
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
        let now = self.read(sys)?;
        let mut marks: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (name, value) in packages(wanted) {
            let (Some(now), Some(wanted)) = (there(now.get(name)), there(Some(value))) else { continue };
            if now.hold != wanted.hold {
                marks.entry(if wanted.hold { "hold" } else { "unhold" }).or_default().push(name.to_owned());
            }
            if now.installed && wanted.installed && now.auto != wanted.auto {
                marks.entry(if wanted.auto { "auto" } else { "manual" }).or_default().push(name.to_owned());
            }
        }
        for (mark, names) in marks {
            apt::run(sys, progress, [vec!["apt-mark".to_owned(), mark.to_owned()], names].concat())?;
        }
        Ok(())
    }
}
