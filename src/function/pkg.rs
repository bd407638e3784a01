//! pkg.*: packages, as Salt's `pkg` states mean them. Which versions that comes to, and what comes with them, is the object's to find out.

use super::args::Args;
use super::{Arg, ArgKind, Entry, Function, There, Want};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::object::packages::manager;
use crate::object::packages::version::{self, Order};
use crate::plan::{Key, Low};
use crate::value::{Attrs, Value};

const NAME: Arg = Arg::new("name", ArgKind::Str, "", "The package, where pkgs names none.");
const PKGS: Arg = Arg::new("pkgs", ArgKind::Any, "", "Packages: names, or mappings of name and version.");
const VERSION: Arg = Arg::new("version", ArgKind::Str, "", "The version: exact, with `*`, or `>=1.2,<2`.");
const REFRESH: Arg = Arg::new("refresh", ArgKind::Bool, "False", "Fetch the package lists first, once a run.");
const FROMREPO: Arg = Arg::new("fromrepo", ArgKind::Str, "", "The release (apt) or repository (dnf) to take packages from, and no other.");
const ENABLEREPO: Arg = Arg::new("enablerepo", ArgKind::Strs, "", "dnf: repositories to use besides.");
const DISABLEREPO: Arg = Arg::new("disablerepo", ArgKind::Strs, "", "dnf: repositories not to use.");
const SETOPT: Arg = Arg::new("setopt", ArgKind::Strs, "", "dnf: settings for this transaction. Example: best=False");
const RECOMMENDS: Arg = Arg::new("install_recommends", ArgKind::Bool, "", "Whether recommended packages come along.");
const SKIP_VERIFY: Arg = Arg::new("skip_verify", ArgKind::Bool, "False", "Accept packages without a valid signature.");
const HOLD: Arg = Arg::new("hold", ArgKind::Bool, "", "Hold the packages at their version, or let them go.");
const UPDATE_HOLDS: Arg = Arg::new("update_holds", ArgKind::Bool, "False", "Change held packages too.");
const IGNORE_EPOCH: Arg = Arg::new("ignore_epoch", ArgKind::Bool, "False", "Compare versions without their epoch.");

const fn accepted(name: &'static str) -> Arg {
    Arg::new(name, ArgKind::Any, "", "Accepted without effect.")
}

const INSTALLED: &[Arg] = &[
    NAME,
    PKGS,
    VERSION,
    Arg::new("sources", ArgKind::List, "", "Package files: mappings of name and file."),
    REFRESH,
    FROMREPO,
    RECOMMENDS,
    SKIP_VERIFY,
    HOLD,
    UPDATE_HOLDS,
    IGNORE_EPOCH,
    Arg::new("allow_updates", ArgKind::Bool, "False", "A newer version than asked for will do."),
    accepted("skip_suggestions"),
    accepted("resolve_capabilities"),
    accepted("normalize"),
    accepted("pkg_verify"),
    accepted("cache_valid_time"),
    ENABLEREPO,
    DISABLEREPO,
    SETOPT,
    accepted("force_yes"),
    accepted("upgrade"),
    accepted("runas"),
    accepted("aggregate"),
    accepted("debconf"),
    accepted("binhost"),
];
const LATEST: &[Arg] = &[
    NAME,
    PKGS,
    REFRESH,
    FROMREPO,
    RECOMMENDS,
    SKIP_VERIFY,
    HOLD,
    UPDATE_HOLDS,
    accepted("skip_suggestions"),
    accepted("cache_valid_time"),
    accepted("watch_flags"),
    accepted("binhost"),
    accepted("oneshot"),
    accepted("slot"),
    ENABLEREPO,
    DISABLEREPO,
    SETOPT,
];
const REMOVED: &[Arg] =
    &[NAME, PKGS, VERSION, IGNORE_EPOCH, accepted("normalize"), accepted("setopt"), accepted("force_yes"), accepted("refresh")];
const UPTODATE: &[Arg] = &[NAME, REFRESH, PKGS, FROMREPO, SKIP_VERIFY, accepted("dist_upgrade"), accepted("cache_valid_time")];
const HELD: &[Arg] = &[NAME, PKGS, VERSION, Arg::new("replace", ArgKind::Bool, "False", "No other packages are held.")];
const UNHELD: &[Arg] = &[NAME, PKGS, VERSION, Arg::new("all", ArgKind::Bool, "False", "No packages are held at all.")];

pub const FUNCTIONS: &[Entry] = &[
    Entry { name: "pkg.held", doc: "Packages are held at the version they have.", args: HELD, watches: false, parse: held },
    Entry { name: "pkg.installed", doc: "Packages are installed.", args: INSTALLED, watches: false, parse: installed },
    Entry {
        name: "pkg.latest",
        doc: "Packages are installed in the newest version there is.",
        args: LATEST,
        watches: false,
        parse: latest,
    },
    Entry { name: "pkg.purged", doc: "Packages are not there, nor their configuration.", args: REMOVED, watches: false, parse: purged },
    Entry { name: "pkg.removed", doc: "Packages are not installed.", args: REMOVED, watches: false, parse: removed },
    Entry { name: "pkg.unheld", doc: "Packages are not held.", args: UNHELD, watches: false, parse: unheld },
    Entry { name: "pkg.uptodate", doc: "All packages are as new as can be.", args: UPTODATE, watches: false, parse: uptodate },
];

#[derive(Clone, Copy, PartialEq)]
enum Goal {
    Installed,
    Latest,
    Removed,
    Purged,
    UpToDate,
    /// The flag: no other packages.
    Held(bool),
    Unheld(bool),
}

struct Pkg {
    goal: Goal,
    /// Names and the versions asked for.
    packages: Vec<(String, Option<String>)>,
    /// Names and files.
    sources: Vec<(String, String)>,
    options: Attrs,
    hold: Option<bool>,
    update_holds: bool,
    ignore_epoch: bool,
    allow_updates: bool,
}

fn installed(low: &Low) -> Result<Box<dyn Function>> {
    pkg(low, Goal::Installed)
}

fn latest(low: &Low) -> Result<Box<dyn Function>> {
    pkg(low, Goal::Latest)
}

fn removed(low: &Low) -> Result<Box<dyn Function>> {
    pkg(low, Goal::Removed)
}

fn purged(low: &Low) -> Result<Box<dyn Function>> {
    pkg(low, Goal::Purged)
}

fn uptodate(low: &Low) -> Result<Box<dyn Function>> {
    pkg(low, Goal::UpToDate)
}

fn held(low: &Low) -> Result<Box<dyn Function>> {
    let others = Args(low).bool("replace", false)?;
    pkg(low, Goal::Held(others))
}

fn unheld(low: &Low) -> Result<Box<dyn Function>> {
    let all = Args(low).bool("all", false)?;
    pkg(low, Goal::Unheld(all))
}

fn pkg(low: &Low, goal: Goal) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let mut options = Attrs::new();
    if args.value("install_recommends").is_some() {
        options.insert("@recommends".into(), Value::Bool(args.bool("install_recommends", true)?));
    }
    if let Some(release) = args.str("fromrepo")?.filter(|r| !r.is_empty()) {
        options.insert("@fromrepo".into(), release.into());
    }
    for (arg, option) in [("skip_verify", "@skip_verify"), ("refresh", "@refresh")] {
        // Accepted as anything where it has no effect.
        if args.value(arg).is_some_and(Value::truthy) && !matches!(goal, Goal::Removed | Goal::Purged) {
            options.insert(option.into(), Value::Bool(true));
        }
    }
    for (arg, option) in [("enablerepo", "@enablerepo"), ("disablerepo", "@disablerepo"), ("setopt", "@setopt")] {
        let list = args.strs(arg)?;
        if !list.is_empty() && matches!(goal, Goal::Installed | Goal::Latest) {
            options.insert(option.into(), Value::List(list.into_iter().map(Value::Str).collect()));
        }
    }
    let sources = sources(&args)?;
    let packages = if goal == Goal::UpToDate {
        names(&args, "pkgs")?.unwrap_or_default()
    } else if sources.is_empty() {
        let version = args.str("version")?.filter(|v| !v.is_empty());
        names(&args, "pkgs")?.unwrap_or_else(|| vec![(args.name(), version)])
    } else {
        Vec::new()
    };
    for (name, version) in packages.iter().map(|(n, v)| (n, v.as_deref())).chain(sources.iter().map(|(n, _)| (n, None))) {
        let good = |c: char| c.is_ascii_alphanumeric() || "+-._:".contains(c);
        let versioned = |c: char| !c.is_whitespace() && !c.is_control();
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric())
            || !name.chars().all(good)
            || !version.is_none_or(|v| v.chars().all(versioned))
        {
            return Err(args.error(format!("{name:?} {} cannot be a package", version.unwrap_or_default()).replace("  ", " ")));
        }
    }
    Ok(Box::new(Pkg {
        goal,
        packages,
        sources,
        options,
        hold: if args.value("hold").is_some() { Some(args.bool("hold", false)?) } else { None },
        update_holds: args.bool("update_holds", false)?,
        ignore_epoch: args.bool("ignore_epoch", false)?,
        allow_updates: args.bool("allow_updates", false)?,
    }))
}

/// A package and the version that is wanted of it.
type Named = (String, Option<String>);

/// A list of names and of mappings `name: version`.
fn names(args: &Args, argument: &str) -> Result<Option<Vec<Named>>> {
    let wrong = || args.error(format!("argument {argument} is to be a list of packages"));
    let one = |name: &Value, version: &Value| {
        let version = if version.is_null() { None } else { Some(version.to_text().replace(' ', "")).filter(|v| !v.is_empty()) };
        (name.to_text(), version)
    };
    let mut out = Vec::new();
    match args.value(argument) {
        None => return Ok(None),
        Some(Value::List(list)) => {
            for item in list {
                match item {
                    Value::Map(map) => out.extend(map.iter().map(|(n, v)| one(n, v))),
                    Value::List(_) | Value::Null => return Err(wrong()),
                    name => out.push((name.to_text(), None)),
                }
            }
        }
        Some(Value::Map(map)) => out.extend(map.iter().map(|(n, v)| one(n, v))),
        Some(Value::Str(text)) => out.extend(text.split(',').map(|n| (n.trim().to_owned(), None))),
        Some(_) => return Err(wrong()),
    }
    Ok(Some(out).filter(|o| !o.is_empty()))
}

/// Where each package file is: a path of the host, or contents that the controller has, by hash.
fn sources(args: &Args) -> Result<Vec<(String, String)>> {
    let mut out = Vec::new();
    for item in args.list("sources")?.unwrap_or_default() {
        let Some(map) = item.as_map() else { return Err(args.error("argument sources is to be a list of mappings of name and file")) };
        for (name, file) in map {
            let (name, file) = (name.to_text(), file.to_text());
            let sent = args.0.contents.iter().find(|c| c.name == file || c.name == name);
            match sent {
                Some(content) => out.push((name, content.hash.0.clone())),
                None if file.starts_with('/') => out.push((name, file)),
                None => return Err(args.error(format!("the package file {file} of {name} was not found"))),
            }
        }
    }
    Ok(out)
}

/// Version and marks of what is installed.
fn version_of<'a>(all: &'a Attrs, name: &str) -> Option<(&'a str, bool)> {
    let text = all.get(name)?.as_str()?;
    let mut words = text.split(' ');
    let version = words.next()?;
    let words: Vec<&str> = words.collect();
    (!words.contains(&"config") && !words.contains(&"broken")).then_some((version, words.contains(&"hold")))
}

impl Function for Pkg {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        Ok(vec![there.packages()])
    }

    fn parts(&self) -> Vec<String> {
        self.packages.iter().map(|(name, _)| name.clone()).chain(self.sources.iter().map(|(name, _)| name.clone())).collect()
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        let key = there.packages();
        let manager = manager::of(&key.name)?;
        let (order, all) = (manager.order(), there.get(&key));
        if all.is_empty() {
            return Err(
                Diagnostic::new(Code::Failed, "this host has no packages that are known here; only those of apt and dnf are").into()
            );
        }
        let packages: Vec<Named> = self.packages.iter().map(|(name, version)| (manager.named(name), version.clone())).collect();
        let mut wanted = Attrs::new();
        let mut put = |name: &str, value: String| drop(wanted.insert(name.to_owned(), Value::Str(value)));
        match self.goal {
            Goal::Installed | Goal::Latest => {
                for (name, version) in &packages {
                    if let Some(value) = self.value(order, &all, name, version.as_deref())? {
                        put(name, value);
                    }
                }
                for (name, file) in self.sources.iter().filter(|(name, _)| version_of(&all, name).is_none()) {
                    put(name, "installed".into());
                    put(&format!("@source:{name}"), file.clone());
                }
            }
            Goal::UpToDate => {
                let installed = all.keys().filter(|name| !name.starts_with('@') && version_of(&all, name).is_some_and(|(_, hold)| !hold));
                let named = |name: &str| packages.is_empty() || packages.iter().any(|(n, _)| n == name);
                installed.filter(|name| named(name)).for_each(|name| put(name, "latest".into()));
            }
            Goal::Removed | Goal::Purged => {
                for (name, version) in &packages {
                    let now = version_of(&all, name);
                    let right =
                        version.as_ref().is_none_or(|v| now.is_some_and(|(now, _)| version::fulfils(order, now, v, self.ignore_epoch)));
                    if self.goal == Goal::Purged && all.contains_key(name) && right {
                        wanted.insert(name.clone(), Value::Null);
                    } else if self.goal == Goal::Removed && now.is_some() && right {
                        wanted.insert(name.clone(), "removed".into());
                    }
                }
            }
            Goal::Held(others) | Goal::Unheld(others) => {
                let hold = matches!(self.goal, Goal::Held(_));
                let named = |name: &str| packages.iter().any(|(n, _)| n == name);
                if let Some((name, _)) = packages.iter().find(|(name, _)| hold && version_of(&all, name).is_none()) {
                    return Err(Diagnostic::new(Code::Failed, format!("Package {name} is not installed, it cannot be held")).into());
                }
                for (name, value) in &all {
                    let Some((_, held)) = version_of(&all, name) else { continue };
                    let to_hold = hold && named(name);
                    let to_free = if hold { others && !named(name) } else { others || named(name) };
                    let text = value.as_str().unwrap_or_default();
                    if to_hold && !held {
                        put(name, format!("{text} hold"));
                    } else if to_free && held {
                        put(name, format!("{} unhold", text.trim_end_matches(" hold")));
                    }
                }
            }
        }
        if wanted.is_empty() {
            return Ok(Want::Nothing(match self.goal {
                Goal::Installed | Goal::Latest => "All specified packages are already installed".into(),
                Goal::Removed => "All specified packages are already absent".into(),
                Goal::Purged => "All specified packages are already purged".into(),
                Goal::UpToDate => "System is already up-to-date".into(),
                Goal::Held(_) | Goal::Unheld(_) => "The packages are held as asked already".into(),
            }));
        }
        wanted.extend(self.options.clone());
        Ok(Want::Is(vec![(key, wanted)]))
    }
}

impl Pkg {
    /// What is wanted of one package; `None`: it is as it is to be.
    fn value(&self, order: Order, all: &Attrs, name: &str, version: Option<&str>) -> Result<Option<String>> {
        let now = version_of(all, name);
        let version = version.map(|v| if v.starts_with("==") { v.trim_start_matches('=') } else { v });
        let wanted = match (version, now) {
            (Some("latest"), Some(_)) => Some("latest".to_owned()),
            _ if self.goal == Goal::Latest && now.is_some() => Some("latest".to_owned()),
            (None | Some("latest"), None) => Some("installed".to_owned()),
            (None, Some(_)) => None,
            (Some(wanted), Some((now, _))) if version::fulfils(order, now, wanted, self.ignore_epoch) => None,
            (Some(wanted), Some((now, _))) if self.allow_updates && now.split(',').any(|now| order(now, wanted).is_ge()) => None,
            (Some(wanted), _) => Some(wanted.to_owned()),
        };
        let held = now.is_some_and(|(_, hold)| hold);
        if held && wanted.as_deref().is_some_and(|w| w != "latest") && !self.update_holds && self.hold != Some(false) {
            let summary = format!("Package {name} is held at version {}", now.map(|(v, _)| v).unwrap_or_default());
            return Err(Diagnostic::new(Code::Failed, summary).hint("`update_holds: True` changes held packages too").into());
        }
        let mark = match self.hold {
            Some(true) if !held => " hold",
            Some(false) if held => " unhold",
            _ => "",
        };
        Ok(match (wanted, now) {
            (Some(wanted), _) => Some(format!("{wanted}{mark}")),
            (None, Some((now, _))) if !mark.is_empty() => Some(format!("{now}{mark}")),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Host, answer};
    use super::*;
    use serde_json::json;

    fn of(function: &str, args: serde_json::Value) -> std::result::Result<serde_json::Value, String> {
        let mut host = Host::default();
        host.has("packages:apt", json!({"@all": true, "a": "1.2-1", "b": "2:3.0 auto", "held": "1 hold", "rc": "5 config"}));
        match answer(&host, function, args)? {
            Want::Is(wants) => Ok(serde_json::to_value(&wants[0].1).unwrap()),
            Want::Nothing(_) => Ok(json!({})),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_what_is_not_as_asked_is_wanted() {
        for (function, args, want) in [
            ("pkg.installed", json!({"name": "a"}), json!({})),
            ("pkg.installed", json!({"name": "new", "install_recommends": false}), json!({"new": "installed", "@recommends": false})),
            ("pkg.installed", json!({"pkgs": ["a", {"b": ">=2:3"}, {"c": "1.*"}, "rc"]}), json!({"c": "1.*", "rc": "installed"})),
            ("pkg.installed", json!({"pkgs": [{"b": ">=3"}], "ignore_epoch": true}), json!({})),
            ("pkg.installed", json!({"name": "a", "version": "1.3-1"}), json!({"a": "1.3-1"})),
            ("pkg.installed", json!({"name": "a", "version": "1.1", "allow_updates": true}), json!({})),
            ("pkg.installed", json!({"name": "a", "hold": true}), json!({"a": "1.2-1 hold"})),
            ("pkg.installed", json!({"name": "held", "hold": false}), json!({"held": "1 unhold"})),
            ("pkg.installed", json!({"sources": [{"a": "/x.deb"}, {"n": "/n.deb"}]}), json!({"n": "installed", "@source:n": "/n.deb"})),
            ("pkg.latest", json!({"pkgs": ["a", "new"], "refresh": true}), json!({"a": "latest", "new": "installed", "@refresh": true})),
            ("pkg.removed", json!({"pkgs": ["a", "nope", "rc"]}), json!({"a": "removed"})),
            ("pkg.purged", json!({"pkgs": ["a", "nope", "rc"]}), json!({"a": null, "rc": null})),
            ("pkg.uptodate", json!({}), json!({"a": "latest", "b": "latest"})),
            ("pkg.held", json!({"name": "b"}), json!({"b": "2:3.0 auto hold"})),
            ("pkg.held", json!({"name": "a", "replace": true}), json!({"a": "1.2-1 hold", "held": "1 unhold"})),
            ("pkg.unheld", json!({"name": "held"}), json!({"held": "1 unhold"})),
        ] {
            assert_eq!(of(function, args.clone()).unwrap(), want, "{function} {args}");
        }
    }

    #[test]
    fn on_a_host_with_dnf_versions_and_names_are_rpm_s() {
        let of = |function: &str, args: serde_json::Value| {
            let mut host = Host::default();
            host.has("packages:dnf", json!({"@all": true, "a": "1.2-1.el9", "e": "1:1.0-1", "k": "1-1,2-1", "h": "1-1 hold"}));
            match answer(&host, function, args).unwrap() {
                Want::Is(wants) => serde_json::to_value(&wants[0]).unwrap(),
                _ => json!({}),
            }
        };
        for (function, args, want) in [
            ("pkg.installed", json!({"name": "a", "version": "1.2"}), json!({})),
            ("pkg.installed", json!({"name": "a.noarch", "version": "1.2-1"}), json!(["packages:dnf", {"a": "1.2-1"}])),
            ("pkg.installed", json!({"name": "e", "version": ">=2"}), json!({})),
            ("pkg.installed", json!({"name": "k", "version": "1-1"}), json!({})),
            (
                "pkg.installed",
                json!({"name": "n", "enablerepo": "x,y"}),
                json!(["packages:dnf", {"n": "installed", "@enablerepo": ["x,y"]}]),
            ),
            ("pkg.removed", json!({"name": "k"}), json!(["packages:dnf", {"k": "removed"}])),
            ("pkg.uptodate", json!({}), json!(["packages:dnf", {"a": "latest", "e": "latest", "k": "latest"}])),
        ] {
            assert_eq!(of(function, args.clone()), want, "{function} {args}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert_eq!(of("pkg.installed", json!({"name": "held", "version": "2"})).unwrap_err(), "Package held is held at version 1");
        assert_eq!(of("pkg.installed", json!({"name": "-o x"})).unwrap_err(), "\"-o x\" cannot be a package");
        let mut host = Host::default();
        host.has("packages:zypper", json!({}));
        let said = answer(&host, "pkg.removed", json!({"name": "a"})).unwrap_err();
        assert_eq!(said, "packages of zypper are not known here; only those of apt and dnf are");
        assert_eq!(of("pkg.held", json!({"name": "nope"})).unwrap_err(), "Package nope is not installed, it cannot be held");
    }
}
