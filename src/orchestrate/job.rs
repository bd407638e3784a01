//! Jobs: what the states of an orchestration SLS ask for. Arguments have Salt's names and defaults; those that mean nothing without a Salt master are
//! taken and passed over, and what would be done differently than it says is refused.

use std::time::Duration;

use crate::diagnostic::{Code, Diagnostic, Result, nearest};
use crate::engine::schedule::Batch;
use crate::fleet::Form;
use crate::lang::What;
use crate::plan::{Low, RequisiteKind};
use crate::value::{Map, Value};

/// A state of the SLS, and what it asks for.
#[derive(Clone, Debug)]
pub struct Job {
    pub low: Low,
    pub task: Task,
}

#[derive(Clone, Debug)]
pub enum Task {
    /// `salt.state`: states on hosts.
    State(StateTask),
    /// `salt.function`: an execution function on hosts.
    Function(FunctionTask),
    /// `salt.runner` with `state.orchestrate`: another orchestration.
    Orchestrate { sls: Vec<String>, pillar: Option<Map> },
    /// `salt.runner` with `event.send`.
    Send { tag: String, data: Map },
    /// `salt.parallel_runners`: such runners by their ids, all at the same time.
    Parallel(Vec<(String, Task)>),
    /// `salt.wheel` with `key.accept`: a host must be known. The keys that ssh asks for are ssh's own.
    Accept { id: String },
    /// `salt.wait_for_event`.
    Wait(WaitTask),
}

/// On which hosts, and how many may fail.
#[derive(Clone, Debug, PartialEq)]
pub struct On {
    pub target: String,
    pub form: Form,
    /// Only so many of them, the first.
    pub subset: Option<usize>,
    /// Nobody there is a failure.
    pub expect: bool,
    /// These may fail.
    pub may_fail: Vec<String>,
    /// So many of the others may fail.
    pub allowed: usize,
    pub timeout: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct StateTask {
    pub on: On,
    pub what: What,
    pub pillar: Option<Map>,
    pub batch: Option<Batch>,
    /// Plans only.
    pub test: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FunctionTask {
    pub on: On,
    pub function: String,
    pub args: Vec<Value>,
    pub kwargs: Map,
}

#[derive(Clone, Debug, PartialEq)]
pub struct WaitTask {
    /// A pattern.
    pub tag: String,
    /// Each is to be named by an event.
    pub ids: Vec<Value>,
    /// The key under which an event's data name one.
    pub event_id: String,
    pub timeout: Duration,
}

const FUNCTIONS: [&str; 6] = ["salt.state", "salt.function", "salt.runner", "salt.parallel_runners", "salt.wheel", "salt.wait_for_event"];
/// Salt's default, in seconds.
const TIMEOUT: usize = 300;
const ON: [&str; 8] = ["tgt", "tgt_type", "expr_form", "subset", "expect_minions", "fail_minions", "allow_fail", "timeout"];
/// What only a Salt master has: how results travel, who else may run. A host's own lock decides that here.
const PASSED_OVER: [&str; 11] =
    ["name", "ssh", "roster", "ret", "ret_config", "ret_kwargs", "concurrent", "queue", "orchestration_jid", "sync_mods", "__pub_jid"];
const STATE: [&str; 5] = ["sls", "highstate", "pillar", "batch", "test"];
const FUNCTION: [&str; 2] = ["arg", "kwarg"];

/// The jobs of compiled states, in their order; everything that is wrong in them.
pub fn jobs(lows: Vec<Low>) -> std::result::Result<Vec<Job>, Vec<Diagnostic>> {
    let mut faults = Vec::new();
    let mut jobs = Vec::new();
    for low in lows {
        match (Reader { low: &low }).read() {
            Ok(task) => jobs.push(Job { low, task }),
            Err(fault) => faults.push(match &low.span {
                Some(span) => fault.or_at(span.clone()),
                None => *fault,
            }),
        }
    }
    if faults.is_empty() { Ok(jobs) } else { Err(faults) }
}

struct Reader<'a> {
    low: &'a Low,
}

impl Reader<'_> {
    fn read(&self) -> Result<Task> {
        if let Some(kind) = self
            .low
            .requisites
            .iter()
            .map(|requisite| requisite.kind)
            .find(|kind| matches!(kind, RequisiteKind::Prereq | RequisiteKind::Listen))
        {
            let name = if kind == RequisiteKind::Prereq { "prereq" } else { "listen" };
            return Err(self
                .fault(format!("`{name}` between jobs is not supported"))
                .hint("`require`, `onchanges` and `onfail` are")
                .into());
        }
        match self.low.function().as_str() {
            "salt.state" => self.state(),
            "salt.function" => self.function(),
            "salt.runner" => self.runner(),
            "salt.parallel_runners" => self.parallel(),
            "salt.wheel" => self.wheel(),
            "salt.wait_for_event" => self.wait(),
            other => {
                let fault = self.fault(format!("{other} is no job of an orchestration"));
                let fault = fault.detail("States of hosts stand in SLS of their own, which `salt.state` names.");
                Err(match nearest(other, FUNCTIONS) {
                    Some(near) => fault.hint(format!("did you mean {near}?")),
                    None => fault.hint(format!("there are {}", FUNCTIONS.join(", "))),
                }
                .into())
            }
        }
    }

    fn state(&self) -> Result<Task> {
        self.known(&[&ON[..], &STATE, &PASSED_OVER].concat())?;
        let highstate = self.flag("highstate")?.unwrap_or(false);
        let sls = self.names("sls")?;
        let what = match (highstate, sls.is_empty()) {
            (true, _) => What::Highstate,
            (false, false) => What::Sls(sls),
            (false, true) => return Err(self.fault("neither `sls` nor `highstate: True` says which states").into()),
        };
        let batch = match self.argument("batch") {
            None | Some(Value::Null) => None,
            Some(value) => Some(value.to_text().parse::<Batch>()?),
        };
        Ok(Task::State(StateTask {
            on: self.on(true)?,
            what,
            pillar: self.map("pillar")?,
            batch,
            test: self.flag("test")?.unwrap_or(false),
        }))
    }

    fn function(&self) -> Result<Task> {
        self.known(&[&ON[..], &FUNCTION, &PASSED_OVER].concat())?;
        let function = self.low.name.clone();
        if !function.contains('.') {
            return Err(self.fault(format!("{function:?} is no execution function")).hint("name it MODULE.FUN, as in `cmd.run`").into());
        }
        let args = match self.argument("arg") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::List(args)) => args.clone(),
            Some(one) => vec![one.clone()],
        };
        Ok(Task::Function(FunctionTask { on: self.on(false)?, function, args, kwargs: self.map("kwarg")?.unwrap_or_default() }))
    }

    fn runner(&self) -> Result<Task> {
        self.run(&self.low.name, &self.low.args)
    }

    /// A runner with its arguments.
    fn run(&self, name: &str, args: &Map) -> Result<Task> {
        match name {
            "state.orchestrate" | "state.orch" | "state.sls" => {
                self.known_of(name, args, &[&["mods", "pillar", "arg", "kwarg"][..], &PASSED_OVER].concat())?;
                let given = self.map_of(args, "kwarg")?.unwrap_or_default();
                let sls = [args.get("mods"), args.get("arg"), given.get("mods")].into_iter().map(texts).find(|sls| !sls.is_empty());
                let pillar = self.map_of(args, "pillar")?.or_else(|| given.get("pillar").and_then(Value::as_map).cloned());
                Ok(Task::Orchestrate { sls: sls.ok_or_else(|| self.fault("`mods` has to name the SLS"))?, pillar })
            }
            "event.send" => {
                self.known_of(name, args, &[&["tag", "data"][..], &PASSED_OVER].concat())?;
                let tag = args.get("tag").map(Value::to_text).filter(|tag| !tag.is_empty());
                let tag = tag.ok_or_else(|| self.fault("`tag` has to name the event"))?;
                Ok(Task::Send { tag, data: self.map_of(args, "data")?.unwrap_or_default() })
            }
            other => {
                let fault = self.fault(format!("the runner {other} is not there"));
                Err(fault.hint("there are state.orchestrate and event.send").into())
            }
        }
    }

    /// Each has a `name`, else its id is that, and its arguments in `kwarg`. A text is a runner without arguments.
    fn parallel(&self) -> Result<Task> {
        self.known(&[&["runners"][..], &PASSED_OVER].concat())?;
        let runners = match self.argument("runners") {
            Some(Value::Str(name)) => [(name.as_str(), Value::Null)].into_iter().collect(),
            Some(Value::Map(runners)) => runners.clone(),
            Some(other) => return Err(self.kind("runners", "a mapping, or one name", other)),
            None => return Err(self.fault("`runners` has to say what is to run").into()),
        };
        let one = |(id, given): (&Value, &Value)| {
            let id = id.to_text();
            let given = match given {
                Value::Null => Map::new(),
                Value::Map(given) => given.clone(),
                Value::List(entries) => entries.iter().filter_map(Value::as_map).flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
                other => return Err(self.kind(&id, "a list of `name` and `kwarg`", other)),
            };
            self.known_of(&id, &given, &["name", "kwarg"])?;
            let name = given.get("name").map_or_else(|| id.clone(), Value::to_text);
            let args = self.map_of(&given, "kwarg")?.unwrap_or_default();
            Ok((id, self.run(&name, &args)?))
        };
        Ok(Task::Parallel(runners.iter().map(one).collect::<Result<_>>()?))
    }

    fn wait(&self) -> Result<Task> {
        self.known(&[&["id_list", "event_id", "timeout", "node"][..], &PASSED_OVER].concat())?;
        let Some(Value::List(ids)) = self.argument("id_list") else {
            return Err(self.fault("`id_list` has to be the list of those that the events name").into());
        };
        match self.argument("node").map(Value::to_text).as_deref() {
            None | Some("master") => {}
            Some(other) => {
                let fault = self.fault(format!("there are no events of a {other}"));
                return Err(fault.hint("leave `node` out: events are this machine's").into());
            }
        }
        Ok(Task::Wait(WaitTask {
            tag: self.low.name.clone(),
            ids: ids.clone(),
            event_id: self.argument("event_id").map_or_else(|| "id".to_owned(), Value::to_text),
            timeout: Duration::from_secs(self.number("timeout")?.unwrap_or(TIMEOUT) as u64),
        }))
    }

    fn wheel(&self) -> Result<Task> {
        match self.low.name.as_str() {
            "key.accept" => {
                self.known(&[&["match"][..], &PASSED_OVER].concat())?;
                let id = self.argument("match").map(Value::to_text).filter(|id| !id.is_empty());
                Ok(Task::Accept { id: id.ok_or_else(|| self.fault("`match` has to name the host"))? })
            }
            other => Err(self.fault(format!("the wheel function {other} is not there")).hint("there is key.accept").into()),
        }
    }

    fn on(&self, expect: bool) -> Result<On> {
        let target = match self.argument("tgt") {
            Some(Value::List(ids)) => ids.iter().map(Value::to_text).collect::<Vec<_>>().join(","),
            Some(value) if !value.to_text().is_empty() => value.to_text(),
            _ => return Err(self.fault("`tgt` has to say on which hosts").into()),
        };
        let named = self.argument("tgt_type").or_else(|| self.argument("expr_form")).map(Value::to_text);
        let form = match (named, self.argument("tgt")) {
            (Some(name), _) => Form::from_salt(&name)?,
            (None, Some(Value::List(_))) => Form::List,
            (None, _) => Form::Glob,
        };
        let allowed = self.number("allow_fail")?.unwrap_or(0);
        Ok(On {
            target,
            form,
            subset: self.number("subset")?,
            expect: self.flag("expect_minions")?.unwrap_or(expect),
            may_fail: self.names("fail_minions")?,
            allowed,
            timeout: self.number("timeout")?.map(|seconds| Duration::from_secs(seconds as u64)),
        })
    }

    fn argument(&self, name: &str) -> Option<&Value> {
        self.low.args.get(name)
    }

    fn known(&self, names: &[&str]) -> Result<()> {
        self.known_of(&self.low.function(), &self.low.args, names)
    }

    fn known_of(&self, of: &str, args: &Map, names: &[&str]) -> Result<()> {
        for key in args.0.keys().map(Value::to_text) {
            if !names.contains(&key.as_str()) {
                let fault = self.fault(format!("{of} has no argument `{key}`"));
                return Err(match nearest(&key, names.iter().copied()) {
                    Some(near) => fault.hint(format!("did you mean {near:?}?")),
                    None => fault.hint("docs/guide.md has those that it takes"),
                }
                .into());
            }
        }
        Ok(())
    }

    fn flag(&self, name: &str) -> Result<Option<bool>> {
        match self.argument(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value.as_bool().map(Some).ok_or_else(|| self.kind(name, "True or False", value)),
        }
    }

    fn number(&self, name: &str) -> Result<Option<usize>> {
        match self.argument(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let number = value.as_int().and_then(|number| usize::try_from(number).ok());
                number.map(Some).ok_or_else(|| self.kind(name, "a whole number", value))
            }
        }
    }

    fn map(&self, name: &str) -> Result<Option<Map>> {
        self.map_of(&self.low.args, name)
    }

    fn map_of(&self, args: &Map, name: &str) -> Result<Option<Map>> {
        match args.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Map(map)) => Ok(Some(map.clone())),
            Some(value) => Err(self.kind(name, "a mapping", value)),
        }
    }

    fn names(&self, name: &str) -> Result<Vec<String>> {
        match self.argument(name) {
            Some(Value::Map(_)) => Err(self.fault(format!("`{name}` is a list of names"))),
            other => Ok(texts(other)),
        }
        .map_err(Into::into)
    }

    fn kind(&self, name: &str, wanted: &str, found: &Value) -> Box<Diagnostic> {
        self.fault(format!("`{name}` is {wanted}, and this is {}", found.kind())).into()
    }

    fn fault(&self, what: impl Into<String>) -> Diagnostic {
        let fault = Diagnostic::new(Code::Compile, what).detail(format!("The job {} ({}).", self.low.id, self.low.function()));
        match &self.low.span {
            Some(span) => fault.at(span.clone()),
            None => fault,
        }
    }
}

/// A list, or names with commas between them.
fn texts(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::List(items)) => items.iter().map(Value::to_text).collect(),
        Some(Value::Str(text)) => text.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Control;
    use serde_json::json;

    fn read(function: &str, name: &str, args: serde_json::Value) -> Result<Task> {
        let low = Low {
            id: "step".into(),
            sls: "orch".into(),
            state: "salt".into(),
            fun: function.into(),
            name: name.into(),
            args: serde_json::from_value(args).unwrap(),
            requisites: Vec::new(),
            control: Control::default(),
            contents: Vec::new(),
            failed: None,
            span: None,
        };
        Reader { low: &low }.read()
    }

    #[test]
    fn salt_s_arguments_are_read() {
        let Task::State(task) = read(
            "state",
            "x",
            json!({"tgt": ["a", "b"], "sls": "one, two", "batch": "10%", "pillar": {"k": 1}, "queue": true, "allow_fail": 1}),
        )
        .unwrap() else {
            panic!()
        };
        assert_eq!((task.on.target.as_str(), task.on.form, task.on.allowed, task.on.expect), ("a,b", Form::List, 1, true));
        assert_eq!((task.what, task.batch), (What::Sls(vec!["one".into(), "two".into()]), Some(Batch::Percent(10.0))));
        let Task::Function(task) =
            read("function", "cmd.run", json!({"tgt": "G@os:Debian", "tgt_type": "compound", "arg": ["date"]})).unwrap()
        else {
            panic!()
        };
        assert_eq!(
            (task.function.as_str(), task.args, task.on.form, task.on.expect),
            ("cmd.run", vec![Value::str("date")], Form::Compound, false)
        );
        assert!(matches!(read("runner", "state.orchestrate", json!({"mods": "a"})), Ok(Task::Orchestrate { sls, .. }) if sls == ["a"]));
        assert!(
            matches!(read("runner", "event.send", json!({"tag": "a/b", "data": {"k": 1}})), Ok(Task::Send { tag, .. }) if tag == "a/b")
        );
        let Task::Wait(task) = read("wait_for_event", "salt/minion/*/start", json!({"id_list": ["a", 3]})).unwrap() else { panic!() };
        assert_eq!((task.ids.len(), task.event_id.as_str(), task.timeout.as_secs()), (2, "id", 300));
        let runners =
            json!({"one": [{"name": "state.orch"}, {"kwarg": {"mods": "a"}}], "two": {"name": "event.send", "kwarg": {"tag": "t"}}});
        let Task::Parallel(tasks) = read("parallel_runners", "x", json!({"runners": runners})).unwrap() else { panic!() };
        assert!(
            matches!(&tasks[..], [(one, Task::Orchestrate { sls, .. }), (two, Task::Send { .. })] if one == "one" && two == "two" && sls[..] == ["a"])
        );
        assert!(matches!(read("wheel", "key.accept", json!({"match": "n1"})), Ok(Task::Accept { id }) if id == "n1"));
    }

    #[test]
    fn what_would_be_done_otherwise_than_it_says_is_refused() {
        for (function, name, args, said) in [
            ("state", "x", json!({"sls": "a"}), "`tgt`"),
            ("state", "x", json!({"tgt": "*"}), "neither `sls`"),
            ("state", "x", json!({"tgt": "*", "highstate": true, "saltenv": "dev"}), "no argument `saltenv`"),
            ("state", "x", json!({"tgt": "*", "slss": "a"}), "no argument `slss`"),
            ("state", "x", json!({"tgt": "*", "sls": "a", "tgt_type": "range"}), "no way to match hosts"),
            ("state", "x", json!({"tgt": "*", "sls": "a", "batch": "none"}), "no batch"),
            ("function", "ping", json!({"tgt": "*"}), "no execution function"),
            ("runner", "cloud.profile", json!({}), "the runner cloud.profile"),
            ("wheel", "key.delete", json!({}), "the wheel function key.delete"),
            ("statee", "x", json!({}), "salt.statee is no job"),
            ("wait_for_event", "t", json!({}), "`id_list`"),
            ("wait_for_event", "t", json!({"id_list": "a"}), "`id_list`"),
            ("wait_for_event", "t", json!({"id_list": [], "node": "minion"}), "no events of a minion"),
            ("wait_for_event", "t", json!({"id_list": [], "timeout": "long"}), "whole number"),
            ("parallel_runners", "x", json!({}), "`runners`"),
            ("parallel_runners", "x", json!({"runners": ["a"]}), "a mapping"),
            ("parallel_runners", "x", json!({"runners": "state.orchestrate"}), "`mods`"),
            ("parallel_runners", "x", json!({"runners": {"one": [{"name": "state.orch"}, {"mods": "a"}]}}), "one has no argument `mods`"),
            ("parallel_runners", "x", json!({"runners": {"manage.up": null}}), "the runner manage.up"),
            ("runner", "event.send", json!({"data": {}}), "`tag`"),
        ] {
            let fault = read(function, name, args).unwrap_err();
            assert!(fault.summary.contains(said), "{}", fault.summary);
        }
    }
}
