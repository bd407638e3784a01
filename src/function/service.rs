//! service.*: units of systemd, as Salt's `service` states mean them. A running service restarts or reloads when something it watches
//! changes.

use super::args::Args;
use super::{Arg, ArgKind, Entry, Function, Run, There, Want};
use crate::diagnostic::{Code, Diagnostic, Result, nearest};
use crate::plan::{Key, Kind, Low};
use crate::system::Command;
use crate::value::{Attrs, Value};

const NAME: Arg = Arg::new("name", ArgKind::Str, "", "The unit; `.service` may be left out.");
const ENABLE: Arg = Arg::new("enable", ArgKind::Bool, "", "Whether it starts with the host. Default: as it is.");
const NO_BLOCK: Arg = Arg::new("no_block", ArgKind::Bool, "False", "Do not wait until it has started.");
const DELAY: Arg = Arg::new("init_delay", ArgKind::Int, "", "Seconds to wait after it was started.");
const SIG: Arg = Arg::new("sig", ArgKind::Str, "", "Accepted without effect: systemd knows what runs.");
const TIMEOUT: Arg = Arg::new("timeout", ArgKind::Int, "", "Accepted without effect.");
const PROVIDER: Arg = Arg::new("provider", ArgKind::Str, "", "Accepted without effect.");

const RUNNING: &[Arg] = &[
    NAME,
    ENABLE,
    Arg::new("reload", ArgKind::Bool, "False", "Reload instead of restarting when something it watches changes."),
    Arg::new("restart", ArgKind::Bool, "True", "Accepted: it restarts when something it watches changes."),
    Arg::new("full_restart", ArgKind::Bool, "False", "Stop and start it when something it watches changes."),
    Arg::new("force", ArgKind::Bool, "False", "Restart where it cannot reload."),
    DELAY,
    NO_BLOCK,
    Arg::new("unmask", ArgKind::Bool, "False", "Remove a mask first."),
    Arg::new("unmask_runtime", ArgKind::Bool, "False", "Accepted: a mask of either kind is removed."),
    SIG,
    TIMEOUT,
    PROVIDER,
    Arg::new("wait", ArgKind::Int, "", "Accepted without effect."),
];
const DEAD: &[Arg] = &[NAME, ENABLE, DELAY, NO_BLOCK, SIG, TIMEOUT, PROVIDER];
const ENABLED: &[Arg] =
    &[NAME, SIG, PROVIDER, Arg::new("skip_verify", ArgKind::Bool, "False", "Do not insist that the unit is there now.")];
const MASKED: &[Arg] = &[NAME, Arg::new("runtime", ArgKind::Bool, "False", "Accepted: masks last.")];

pub const FUNCTIONS: &[Entry] = &[
    Entry { name: "service.dead", doc: "A service does not run.", args: DEAD, watches: true, parse: dead },
    Entry { name: "service.disabled", doc: "A service does not start with the host.", args: ENABLED, watches: false, parse: disabled },
    Entry { name: "service.enabled", doc: "A service starts with the host.", args: ENABLED, watches: false, parse: enabled },
    Entry { name: "service.masked", doc: "A unit cannot be started at all.", args: MASKED, watches: false, parse: masked },
    Entry { name: "service.running", doc: "A service runs.", args: RUNNING, watches: true, parse: running },
    Entry { name: "service.unmasked", doc: "A unit can be started.", args: MASKED, watches: false, parse: unmasked },
];

/// Directories whose names tell what services there are.
const PLACES: [&str; 3] = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
const SUFFIXES: [&str; 11] =
    [".service", ".socket", ".timer", ".target", ".mount", ".path", ".slice", ".scope", ".swap", ".automount", ".device"];

/// Waits for systemd to have read changed unit files, then does what the second argument says. Where that fails, or what was started dies
/// at once, it shows systemd's word and the end of the unit's log. A rollback may find that the unit has gone with its package.
const RESTART: &str = r#"test -z "$BASALT_ROLLBACK" || systemctl cat -- "$1" >/dev/null 2>&1 || exit 0
test "$(systemctl show -p NeedDaemonReload --value -- "$1")" != yes || systemctl daemon-reload
case "$2" in full) systemctl stop -- "$1" && systemctl start -- "$1";; *) systemctl "$2" -- "$1";; esac
code=$?
sleep "$3"
test $code != 0 || sleep 0.2
test $code = 0 && ! systemctl is-failed -q -- "$1" && exit
systemctl status --no-pager -l -n 15 -- "$1"
test $code != 0 && exit $code || exit 1"#;

struct Service {
    unit: String,
    states: Vec<(&'static str, bool)>,
    /// A service that is not there is an error.
    needed: bool,
    unmask: bool,
    no_block: bool,
    delay: i64,
    /// What a change of something it watches does.
    reaction: Option<&'static str>,
}

/// The unit that a name means; nothing where none can have it.
pub(super) fn unit(name: &str) -> Option<String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "@._:-\\".contains(c);
    if name.is_empty() || name.starts_with('-') || !name.chars().all(good) {
        return None;
    }
    Some(if SUFFIXES.iter().any(|s| name.ends_with(s)) { name.to_owned() } else { format!("{name}.service") })
}

/// Restarts or reloads a unit, and looks that it runs.
pub(super) fn reaction(unit: &str, verb: &str, delay: i64) -> Run {
    let command = Command::new(["/bin/sh", "-c", RESTART, "sh", unit, verb, &delay.to_string()]);
    let shown = if verb == "full" { "restart" } else { verb };
    Run { again: true, ..Run::new(command, format!("systemctl {shown} {unit}")) }
}

fn service(args: &Args, states: Vec<(&'static str, bool)>) -> Result<Service> {
    let name = args.name();
    let unit = unit(&name).ok_or_else(|| args.error(format!("{name:?} cannot be the name of a service")))?;
    Ok(Service { unit, states, needed: true, unmask: false, no_block: false, delay: 0, reaction: None })
}

fn running(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let mut states = vec![("active", true)];
    if args.value("enable").is_some() {
        states.push(("enabled", args.bool("enable", false)?));
    }
    let reaction = match (args.bool("reload", false)?, args.bool("force", false)?, args.bool("full_restart", false)?) {
        (true, true, _) => "reload-or-restart",
        (true, false, _) => "reload",
        (false, _, true) => "full",
        (false, ..) => "restart",
    };
    Ok(Box::new(Service {
        unmask: args.bool("unmask", false)?,
        no_block: args.bool("no_block", false)?,
        delay: args.int("init_delay")?.unwrap_or(0).clamp(0, 3600),
        reaction: Some(reaction),
        ..service(&args, states)?
    }))
}

fn dead(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let mut states = vec![("active", false)];
    if args.value("enable").is_some() {
        states.push(("enabled", args.bool("enable", false)?));
    }
    Ok(Box::new(Service { needed: false, ..service(&args, states)? }))
}

fn enabled(low: &Low) -> Result<Box<dyn Function>> {
    Ok(Box::new(service(&Args(low), vec![("enabled", true)])?))
}

fn disabled(low: &Low) -> Result<Box<dyn Function>> {
    Ok(Box::new(Service { needed: false, ..service(&Args(low), vec![("enabled", false)])? }))
}

fn masked(low: &Low) -> Result<Box<dyn Function>> {
    Ok(Box::new(Service { needed: false, ..service(&Args(low), vec![("masked", true)])? }))
}

fn unmasked(low: &Low) -> Result<Box<dyn Function>> {
    Ok(Box::new(Service { needed: false, ..service(&Args(low), vec![("masked", false)])? }))
}

impl Service {
    fn key(&self) -> Key {
        Key::new(Kind::Service, &self.unit)
    }

    /// The unit's file and, where it is an instance, that of its template, in every directory.
    fn files(&self) -> Vec<Key> {
        let template = self
            .unit
            .split_once('@')
            .zip(self.unit.rfind('.'))
            .map(|((stem, _), dot)| format!("{stem}@{}", self.unit.get(dot..).unwrap_or_default()));
        let names = std::iter::once(self.unit.clone()).chain(template);
        names.flat_map(|name| PLACES.map(|place| Key::new(Kind::File, format!("{place}/{name}")))).collect()
    }

    fn missing(&self, there: &dyn There) -> Diagnostic {
        let names: Vec<String> = PLACES.iter().flat_map(|place| there.list(place).unwrap_or_default().into_keys()).collect();
        let failure =
            Diagnostic::new(Code::Failed, format!("The named service {} is not available", self.unit.trim_end_matches(".service")));
        match nearest(&self.unit, names.iter().map(String::as_str)) {
            Some(near) => {
                let summary = format!("{}; did you mean {}?", failure.summary, near.trim_end_matches(".service"));
                Diagnostic { summary, ..failure }
            }
            None => failure,
        }
    }
}

impl Function for Service {
    fn objects(&self, _: &dyn There) -> Result<Vec<Key>> {
        Ok(std::iter::once(self.key()).chain(self.files()).collect())
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        let now = there.get(&self.key());
        let is = |name: &str| now.get(name).is_some_and(Value::truthy);
        if now.is_empty() {
            let comes = there.uncertain() || self.files().iter().any(|file| !there.get(file).is_empty());
            if self.needed && !comes {
                return Err(self.missing(there).into());
            }
            if !self.needed && self.states.iter().all(|(_, wanted)| !wanted) {
                if there.uncertain() {
                    // A package that brings it starts it.
                    return Ok(Want::Unknown(format!("{} is not there yet, and may run when it is", self.unit)));
                }
                return Ok(Want::Nothing(format!("The named service {} is not available", self.unit)));
            }
        }
        let mut attrs = Attrs::new();
        for (state, wanted) in &self.states {
            // What is static runs when something else asks for it: enabled enough.
            let fine = is(state) || (*state == "enabled" && is("static"));
            if *wanted && !fine {
                attrs.insert((*state).to_owned(), Value::Bool(true));
            } else if !*wanted && is(state) {
                attrs.insert((*state).to_owned(), Value::Null);
            }
        }
        if is("masked") && !self.states.iter().any(|(state, _)| *state == "masked") {
            if self.unmask {
                attrs.insert("masked".into(), Value::Null);
            } else if attrs.values().any(Value::truthy) {
                let summary = format!("service {} is masked", self.unit);
                return Err(Diagnostic::new(Code::Failed, summary).hint("`unmask: True` removes the mask first").into());
            }
        }
        if attrs.is_empty() {
            return Ok(Want::Nothing(match self.states.first() {
                Some(("active", true)) => format!("The service {} is already running", self.unit),
                Some(("active", false)) => format!("The service {} is already dead", self.unit),
                Some((state, true)) => format!("The service {} is already {state}", self.unit),
                _ => format!("The service {} is as it should be", self.unit),
            }));
        }
        if attrs.get("active").is_some_and(Value::truthy) {
            if self.no_block {
                attrs.insert("no_block".into(), Value::Bool(true));
            }
            if self.delay > 0 {
                attrs.insert("init_delay".into(), Value::Int(self.delay));
            }
        }
        Ok(Want::Is(vec![(self.key(), attrs)]))
    }

    fn react(&self, _: &dyn There, _cause: &str) -> Result<Option<Want>> {
        let Some(verb) = self.reaction else { return Ok(None) };
        Ok(Some(Want::Run(reaction(&self.unit, verb, self.delay))))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Host, answer};
    use super::*;
    use serde_json::json;

    fn host() -> Host {
        let mut host = Host::default();
        host.has("service:on.service", json!({"exists": true, "active": true, "enabled": true}));
        host.has("service:off.service", json!({"exists": true}));
        host.has("service:static.service", json!({"exists": true, "active": true, "static": true}));
        host.has("service:masked.service", json!({"exists": true, "masked": true}));
        host.has("file:/etc/systemd/system/soon.service", json!({"kind": "file"}));
        host
    }

    #[test]
    fn what_an_earlier_step_may_bring_and_start_is_known_when_it_has() {
        let mut host = host();
        let dead = json!({"name": "later", "enable": false});
        assert!(matches!(answer(&host, "service.dead", dead.clone()), Ok(Want::Nothing(_))));
        host.uncertain = true;
        assert!(matches!(answer(&host, "service.dead", dead), Ok(Want::Unknown(_))));
    }

    #[test]
    fn services_want_what_is_not_so() {
        for (function, args, want) in [
            ("service.running", json!({"name": "on", "enable": true}), None),
            (
                "service.running",
                json!({"name": "off.service", "enable": true, "init_delay": 2}),
                Some(json!({"active": true, "enabled": true, "init_delay": 2})),
            ),
            ("service.running", json!({"name": "on", "enable": false}), Some(json!({"enabled": null}))),
            ("service.running", json!({"name": "static", "enable": true}), None),
            ("service.running", json!({"name": "masked", "unmask": true}), Some(json!({"active": true, "masked": null}))),
            ("service.running", json!({"name": "soon"}), Some(json!({"active": true}))),
            ("service.dead", json!({"name": "on", "enable": false}), Some(json!({"active": null, "enabled": null}))),
            ("service.dead", json!({"name": "nope"}), None),
            ("service.enabled", json!({"name": "off"}), Some(json!({"enabled": true}))),
            ("service.disabled", json!({"name": "off"}), None),
            ("service.masked", json!({"name": "on"}), Some(json!({"masked": true}))),
            ("service.unmasked", json!({"name": "masked"}), Some(json!({"masked": null}))),
        ] {
            let got = match answer(&host(), function, args.clone()).unwrap() {
                Want::Is(wants) => Some(serde_json::to_value(&wants[0].1).unwrap()),
                Want::Nothing(_) => None,
                other => panic!("{other:?}"),
            };
            assert_eq!(got, want, "{function} {args}");
        }
        for (args, said) in [
            (json!({"name": "nope"}), "The named service nope is not available"),
            (json!({"name": "masked"}), "service masked.service is masked"),
            (json!({"name": "a b"}), "\"a b\" cannot be the name of a service"),
        ] {
            assert_eq!(answer(&host(), "service.running", args).unwrap_err(), said);
        }
    }

    #[test]
    fn a_watched_change_restarts_or_reloads() {
        for (args, shown) in [
            (json!({"name": "on"}), "systemctl restart on.service"),
            (json!({"name": "on", "reload": true}), "systemctl reload on.service"),
        ] {
            let low = super::super::testing::low("service.running", args);
            let function = running(&low).unwrap();
            let Some(Want::Run(run)) = function.react(&host(), "x").unwrap() else { panic!() };
            assert_eq!((run.shown.as_str(), run.again, run.one_way), (shown, true, None));
        }
    }
}
