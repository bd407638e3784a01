//! module.run, module.wait: functions of Salt's that change a host, called by name. Those that a state can say become that state's want (a
//! service started is a service that runs); restarts and commands are run, and announced as what they are.

use super::args::Args;
use super::{Arg, ArgKind, Entry, Function, Run, There, Want, cmd, service};
use crate::diagnostic::{Result, nearest};
use crate::object::packages::manager;
use crate::plan::{Key, Kind, Low};
use crate::system::Command;
use crate::value::{Attrs, Map, Value, attributes};

const ARGS: &[Arg] = &[
    Arg::new("name", ArgKind::Any, "", "The older form: the function, its arguments beside it, `m_name` for one that is called name."),
    Arg::new("*", ArgKind::Any, "", "The function with a list of its arguments. Example: service.restart: [{name: nginx}]"),
];

pub const FUNCTIONS: &[Entry] = &[
    Entry {
        name: "module.run",
        doc: "Calls a function that changes the host, each time.",
        args: ARGS,
        watches: true,
        parse: |low| parse(low, false),
    },
    Entry {
        name: "module.wait",
        doc: "Calls a function that changes the host if something it watches changes.",
        args: ARGS,
        watches: true,
        parse: |low| parse(low, true),
    },
    Entry { name: "module.watch", doc: "The same as module.wait.", args: ARGS, watches: true, parse: |low| parse(low, true) },
];

/// What a function does.
#[derive(Clone, Copy)]
enum Deed {
    /// A verb of systemctl that leaves a running service as it was, but fresh.
    Restart(&'static str),
    /// An attribute of a service, and whether it is to have it.
    Service(&'static str, bool),
    Command,
    /// A command that makes effective what is there.
    Fixed(&'static [&'static str]),
    /// The package lists are fetched.
    Refresh,
    /// There is no Salt whose caches, modules or events these are.
    Nothing,
}

#[rustfmt::skip]
const KNOWN: &[(&str, Deed)] = &[
    ("cmd.retcode", Deed::Command),
    ("cmd.run", Deed::Command),
    ("cmd.run_all", Deed::Command),
    ("cmd.run_stderr", Deed::Command),
    ("cmd.run_stdout", Deed::Command),
    ("cmd.shell", Deed::Command),
    ("event.fire", Deed::Nothing),
    ("event.fire_master", Deed::Nothing),
    ("event.send", Deed::Nothing),
    ("mine.delete", Deed::Nothing),
    ("mine.flush", Deed::Nothing),
    ("mine.send", Deed::Nothing),
    ("mine.update", Deed::Nothing),
    ("pkg.refresh_db", Deed::Refresh),
    ("saltutil.clear_cache", Deed::Nothing),
    ("saltutil.refresh_grains", Deed::Nothing),
    ("saltutil.refresh_modules", Deed::Nothing),
    ("saltutil.refresh_pillar", Deed::Nothing),
    ("saltutil.sync_all", Deed::Nothing),
    ("saltutil.sync_beacons", Deed::Nothing),
    ("saltutil.sync_grains", Deed::Nothing),
    ("saltutil.sync_modules", Deed::Nothing),
    ("saltutil.sync_renderers", Deed::Nothing),
    ("saltutil.sync_returners", Deed::Nothing),
    ("saltutil.sync_states", Deed::Nothing),
    ("saltutil.sync_utils", Deed::Nothing),
    ("service.disable", Deed::Service("enabled", false)),
    ("service.enable", Deed::Service("enabled", true)),
    ("service.force_reload", Deed::Restart("reload-or-restart")),
    ("service.full_restart", Deed::Restart("full")),
    ("service.mask", Deed::Service("masked", true)),
    ("service.reload", Deed::Restart("reload")),
    ("service.restart", Deed::Restart("restart")),
    ("service.start", Deed::Service("active", true)),
    ("service.stop", Deed::Service("active", false)),
    ("service.systemctl_reload", Deed::Fixed(&["systemctl", "daemon-reload"])),
    ("service.unmask", Deed::Service("masked", false)),
    ("test.ping", Deed::Nothing),
    ("test.sleep", Deed::Command),
];

struct Module {
    waits: bool,
    wants: Vec<(Key, Attrs)>,
    run: Option<Run>,
    /// What it runs fetches the package lists, whichever way this host has for that.
    refresh: bool,
    names: String,
}

/// A function and its arguments, by place and by name.
struct Call {
    function: String,
    placed: Vec<Value>,
    named: Map,
}

impl Call {
    fn get(&self, place: usize, name: &str) -> Option<String> {
        self.placed.get(place).or_else(|| self.named.get(name)).filter(|v| !v.is_null()).map(Value::to_text)
    }
}

/// The calls of a state in either form. With a point in every argument's name it is the newer one, as Salt tells them apart.
fn calls(low: &Low) -> Vec<Call> {
    let others: Vec<(String, &Value)> = low
        .args
        .iter()
        .map(|(name, value)| (name.to_text(), value))
        .filter(|(name, _)| !["name", "returner"].contains(&name.as_str()))
        .collect();
    if others.is_empty() || others.iter().any(|(name, _)| !name.contains('.')) {
        let (mut placed, mut named) = (Vec::new(), Map::new());
        for (name, value) in others {
            match (name.as_str(), value) {
                ("args", Value::List(list)) => placed.clone_from(list),
                ("kwargs", Value::Map(map)) => named.0.extend(map.0.clone()),
                ("m_name" | "m_fun" | "m_names" | "m_state" | "m_saltenv", value) => {
                    drop(named.insert(name.trim_start_matches("m_"), value.clone()))
                }
                (name, value) => drop(named.insert(name, value.clone())),
            }
        }
        return vec![Call { function: low.name.clone(), placed, named }];
    }
    let call = |(name, value): (String, &Value)| {
        let (mut placed, mut named) = (Vec::new(), Map::new());
        let items = match value {
            Value::List(items) => items.clone(),
            Value::Null => Vec::new(),
            one => vec![one.clone()],
        };
        for item in items {
            match item {
                Value::Map(map) => named.0.extend(map.0),
                other => placed.push(other),
            }
        }
        Call { function: name.split(':').next().unwrap_or_default().to_owned(), placed, named }
    };
    others.into_iter().map(call).collect()
}

fn unknown(args: &Args, function: &str) -> crate::diagnostic::Error {
    let error = args.error(format!("{} does not know the function {function}", args.0.function()));
    let state = nearest(function, super::entries().map(|entry| entry.name));
    Box::new(match (nearest(function, KNOWN.iter().map(|(name, _)| *name)), state) {
        (Some(near), _) => error.hint(format!("did you mean {near}?")),
        (None, Some(state)) => error.hint(format!("the state {state} may say what is to be so; else cmd.run runs a command")),
        (None, None) => error.hint("a state may say what is to be so; else cmd.run runs a command"),
    })
}

fn parse(low: &Low, waits: bool) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let mut module = Module { waits, wants: Vec::new(), run: None, refresh: false, names: String::new() };
    for call in calls(low) {
        let Some((_, deed)) = KNOWN.iter().find(|(name, _)| *name == call.function) else { return Err(unknown(&args, &call.function)) };
        let needed = |name: &str| call.get(0, name).ok_or_else(|| args.error(format!("{} needs the argument {name}", call.function)));
        let unit = || {
            let name = needed("name")?;
            service::unit(&name).ok_or_else(|| args.error(format!("{name:?} cannot be the name of a service")))
        };
        let run = match deed {
            Deed::Nothing => None,
            Deed::Restart(verb) => Some(service::reaction(&unit()?, verb, 0)),
            Deed::Service(attribute, on) => {
                let value = if *on { Value::Bool(true) } else { Value::Null };
                module.wants.push((Key::new(Kind::Service, unit()?), attributes([((*attribute).to_owned(), value)])));
                None
            }
            Deed::Refresh => {
                module.refresh = true;
                Some(Run { again: true, ..Run::new(Command::default(), "") })
            }
            Deed::Fixed(argv) => Some(Run { again: true, ..Run::new(Command::new(argv.iter().copied()), argv.join(" ")) }),
            Deed::Command => {
                let line = match call.function.as_str() {
                    "test.sleep" => format!("sleep {}", call.get(0, "length").and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0)),
                    _ => needed("cmd")?,
                };
                // Its arguments are those of the command's state.
                let of_call = Low { args: call.named.clone(), ..low.clone() };
                let command = cmd::shell(&Args(&of_call), &line)?;
                let one_way = (call.function != "test.sleep").then(|| "a command".to_owned());
                Some(Run { success: cmd::exit_codes(&Args(&of_call))?, one_way, ..Run::new(command, line) })
            }
        };
        if module.run.is_some() && run.is_some() {
            return Err(Box::new(
                args.error(format!("{} runs one command", low.function())).hint("write a state for each of its functions"),
            ));
        }
        module.run = module.run.or(run);
        module.names = if module.names.is_empty() { call.function } else { format!("{}, {}", module.names, call.function) };
    }
    Ok(Box::new(module))
}

impl Module {
    fn now(&self, there: &dyn There) -> Result<Want> {
        let mut run = self.run.clone();
        if let Some(run) = run.as_mut().filter(|_| self.refresh) {
            let argv = manager::of(&there.packages().name)?.refresh();
            (run.shown, run.command) = (argv.join(" "), Command::new(argv));
        }
        Ok(match (run, self.wants.is_empty()) {
            (Some(run), true) => Want::Run(run),
            (Some(run), false) => Want::Then(self.wants.clone(), run),
            (None, false) => Want::Is(self.wants.clone()),
            (None, true) => Want::Nothing(format!("{} has nothing to do here", self.names)),
        })
    }
}

impl Function for Module {
    fn objects(&self, _: &dyn There) -> Result<Vec<Key>> {
        Ok(self.wants.iter().map(|(key, _)| key.clone()).collect())
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        if self.waits { Ok(Want::Nothing("nothing it watches changes".to_owned())) } else { self.now(there) }
    }

    fn react(&self, there: &dyn There, _cause: &str) -> Result<Option<Want>> {
        self.now(there).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Host, answer};
    use super::*;
    use serde_json::json;

    #[test]
    fn both_forms_say_the_same() {
        for args in [
            json!({"name": "service.restart", "m_name": "nginx"}),
            json!({"name": "x", "service.restart": [{"name": "nginx"}]}),
            json!({"service.restart": ["nginx"]}),
        ] {
            let Want::Run(run) = answer(&Host::default(), "module.run", args).unwrap() else { panic!() };
            assert_eq!((run.shown.as_str(), run.again, run.one_way), ("systemctl restart nginx.service", true, None));
        }
        for args in [json!({"name": "cmd.run", "cmd": "date", "cwd": "/"}), json!({"cmd.run": ["date", {"cwd": "/"}]})] {
            let Want::Run(run) = answer(&Host::default(), "module.run", args).unwrap() else { panic!() };
            assert_eq!(
                (run.command.argv, run.command.cwd.as_deref(), run.one_way.is_some()),
                (vec!["/bin/sh".into(), "-c".into(), "date".into()], Some("/"), true)
            );
        }
    }

    #[test]
    fn what_a_state_can_say_is_wanted() {
        let host = Host::default();
        let args = json!({"service.stop": [{"name": "a"}], "service.disable": [{"name": "a.socket"}], "saltutil.sync_all": null});
        let Want::Is(wants) = answer(&host, "module.run", args).unwrap() else { panic!() };
        assert_eq!(
            serde_json::to_value(wants).unwrap(),
            json!([["service:a.service", {"active": null}], ["service:a.socket", {"enabled": null}]])
        );
        assert!(matches!(answer(&host, "module.run", json!({"name": "saltutil.refresh_pillar"})).unwrap(), Want::Nothing(_)));
        assert!(matches!(answer(&host, "module.wait", json!({"name": "cmd.run", "cmd": "x"})).unwrap(), Want::Nothing(_)));
    }

    #[test]
    fn what_it_does_not_know_is_said() {
        for (args, said) in [
            (json!({"name": "file.copyy", "src": "/a"}), "module.run does not know the function file.copyy"),
            (json!({"name": "service.restart"}), "service.restart needs the argument name"),
            (json!({"cmd.run": ["a"], "service.restart": ["b"]}), "module.run runs one command"),
            (json!({"service.restart": ["a b"]}), "\"a b\" cannot be the name of a service"),
        ] {
            assert_eq!(answer(&Host::default(), "module.run", args).unwrap_err(), said);
        }
    }
}
