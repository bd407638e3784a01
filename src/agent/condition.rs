//! `unless`, `onlyif` and `creates`: whether a state runs at all, as Salt means them.
//!
//! The common probes (`probe.rs`) are answered from the projection. Any other command runs at plan time, while nothing earlier is
//! pending and if the request permits commands; otherwise the answer is known after apply.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::call;
use super::probe;
use super::projection::Projection;
use super::protocol::{Answer, Call};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::function::args::Args;
use crate::function::cmd;
use crate::plan::{Kind, Low};
use crate::system::Command;
use crate::value::{Map, Value};

/// The exit code of `timeout(1)`: a condition that did not end in time.
const LATE: i32 = 124;

/// What a condition says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Truth {
    Yes,
    No,
    /// Known once these lows are done.
    After(Vec<usize>),
    /// Known at apply: commands are not permitted at plan time.
    AtApply,
    /// The command could not be started.
    Broken,
}

impl From<bool> for Truth {
    fn from(yes: bool) -> Truth {
        if yes { Truth::Yes } else { Truth::No }
    }
}

/// Whether a state runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Go,
    Stop(String),
    Unknown { why: String, waits_for: Vec<usize> },
}

/// The commands that conditions ran, and how they ended. Each runs once per plan.
#[derive(Default)]
pub struct Commands {
    /// What the controller lays over the host's grains, for conditions that ask for them.
    pub grains: Map,
    ran: RefCell<BTreeMap<String, (String, Ended)>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    With(i32),
    /// Not in time: it was ended.
    Late,
}

impl Commands {
    pub fn with(grains: Map) -> Commands {
        Commands { grains, ran: RefCell::default() }
    }

    /// At apply, every state asks anew.
    pub fn forget(&self) {
        self.ran.borrow_mut().clear();
    }

    /// As the user wrote them, with their exit codes.
    pub fn list(&self) -> Vec<(String, i32)> {
        let code = |ended: &Ended| if let Ended::With(code) = ended { *code } else { LATE };
        self.ran.borrow().values().map(|(line, ended)| (line.clone(), code(ended))).collect()
    }
}

pub struct Asker<'p, 'a> {
    pub projection: &'p Projection<'a>,
    pub commands: &'p Commands,
    pub permitted: bool,
}

/// Calls that are answered from what is there.
const SEEN: [&str; 7] = ["test.true", "test.false", "file.file_exists", "file.directory_exists", "file.is_link", "user.info", "group.info"];

/// The calls in a low's conditions that are answered by asking the host, and no commands.
pub fn unseen(low: &Low) -> impl Iterator<Item = &str> {
    let conditions = low.control.onlyif.iter().chain(&low.control.unless);
    let calls = conditions.filter_map(|condition| if let Value::Map(call) = condition { call.get("fun")?.as_str() } else { None });
    calls.filter(|fun| !SEEN.contains(fun) && !fun.starts_with("cmd."))
}

impl Asker<'_, '_> {
    pub fn decide(&self, low: &Low) -> Result<Decision> {
        let decisions = [self.onlyif(low)?, self.unless(low)?, self.creates(low)?];
        let stop = decisions.iter().find(|d| matches!(d, Decision::Stop(_)));
        let unknown = decisions.iter().find(|d| matches!(d, Decision::Unknown { .. }));
        Ok(stop.or(unknown).cloned().unwrap_or(Decision::Go))
    }

    /// All must hold.
    fn onlyif(&self, low: &Low) -> Result<Decision> {
        let mut open = Decision::Go;
        for condition in &low.control.onlyif {
            match self.ask(low, condition)? {
                Some(Truth::Yes) => {}
                Some(Truth::No | Truth::Broken) => return Ok(Decision::Stop("onlyif condition is false".to_owned())),
                Some(truth) => open = unknown(condition, truth),
                // Salt runs the state where a condition is neither a command nor a mapping.
                None => return Ok(open),
            }
        }
        Ok(open)
    }

    /// The state stays only if all hold.
    fn unless(&self, low: &Low) -> Result<Decision> {
        let (mut open, mut holds) = (None, false);
        for condition in &low.control.unless {
            match self.ask(low, condition)? {
                Some(Truth::Yes | Truth::Broken) => holds = true,
                Some(Truth::No) => return Ok(Decision::Go),
                Some(truth) => open = Some(unknown(condition, truth)),
                None => holds = false,
            }
        }
        Ok(match open {
            Some(open) => open,
            None if holds => Decision::Stop("unless condition is true".to_owned()),
            None => Decision::Go,
        })
    }

    fn creates(&self, low: &Low) -> Result<Decision> {
        let paths = &low.control.creates;
        let mut open = Decision::Go;
        for path in paths {
            match probe::exists(self.projection, path)? {
                Truth::Yes => {}
                Truth::No => return Ok(Decision::Go),
                truth => open = unknown(&Value::str(format!("creates {path}")), truth),
            }
        }
        Ok(match (open, paths.as_slice()) {
            (_, []) => Decision::Go,
            (Decision::Go, [path]) => Decision::Stop(format!("{path} exists")),
            (Decision::Go, _) => Decision::Stop("All files in creates exist".to_owned()),
            (open, _) => open,
        })
    }

    /// `None`: it is no condition at all.
    fn ask(&self, low: &Low, condition: &Value) -> Result<Option<Truth>> {
        match condition {
            Value::Str(line) => self.command(low, line).map(Some),
            Value::Map(call) => self.call(call),
            _ => Ok(None),
        }
    }

    fn command(&self, low: &Low, line: &str) -> Result<Truth> {
        let own = options(low);
        let args = Args(&own);
        let mut command = cmd::shell(&args, line)?;
        let patience = *command.timeout.get_or_insert(cmd::PATIENCE);
        let plain = args.value("root").is_none() && command.env.is_empty();
        if let Some(truth) = probe::answer(self.projection, line, &command, plain)? {
            return Ok(truth);
        }
        if !self.projection.pending().is_empty() {
            return Ok(Truth::After(self.projection.pending().to_vec()));
        }
        if !self.permitted {
            return Ok(Truth::AtApply);
        }
        let success = cmd::exit_codes(&args)?;
        match self.run(line, &command) {
            Some(Ended::With(status)) => Ok((status == 0 || success.contains(&status)).into()),
            Some(Ended::Late) => {
                let summary = format!("the condition `{line}` did not end within {} s and was ended", patience.as_secs());
                Err(Diagnostic::new(Code::Failed, summary).hint("`timeout: SECONDS` gives it longer").into())
            }
            None => Ok(Truth::Broken),
        }
    }

    fn run(&self, line: &str, command: &Command) -> Option<Ended> {
        let name = format!("{command:?}");
        if let Some((_, ended)) = self.commands.ran.borrow().get(&name) {
            return Some(*ended);
        }
        let output = self.projection.sys.run(command).ok()?;
        let ended = if output.timed_out { Ended::Late } else { Ended::With(output.status) };
        self.commands.ran.borrow_mut().insert(name, (line.to_owned(), ended));
        Some(ended)
    }

    /// `fun: file.file_exists`, with `args` and keyword arguments beside it.
    fn call(&self, mapping: &Map) -> Result<Option<Truth>> {
        let Some(fun) = mapping.get("fun").and_then(Value::as_str) else { return Ok(None) };
        let first = mapping.get("args").and_then(Value::as_list).and_then(|l| l.first()).map(Value::to_text);
        let argument = |name: &str| mapping.get(name).map(Value::to_text).or_else(|| first.clone()).unwrap_or_default();
        let known = match fun {
            // `SEEN` names them too.
            "test.true" => Some(Truth::Yes),
            "test.false" => Some(Truth::No),
            "file.file_exists" => probe::test_file(self.projection, "-f", &argument("path"))?,
            "file.directory_exists" => probe::test_file(self.projection, "-d", &argument("path"))?,
            "file.is_link" => probe::test_file(self.projection, "-L", &argument("path"))?,
            "user.info" => Some(probe::there(self.projection, Kind::User, &argument("name"))?),
            "group.info" => Some(probe::there(self.projection, Kind::Group, &argument("name"))?),
            _ => None,
        };
        if known.is_some() {
            return Ok(known);
        }
        if !call::names().contains(&fun) {
            let summary = format!("a condition calls {fun}, which basalt does not know");
            return Err(Diagnostic::new(Code::Failed, summary).hint("a command says the same (`test -f …`)").into());
        }
        if !self.projection.pending().is_empty() {
            return Ok(Some(Truth::After(self.projection.pending().to_vec())));
        }
        // These run what they are given: permitted and listed as other commands are.
        if fun.starts_with("cmd.") {
            if !self.permitted {
                return Ok(Some(Truth::AtApply));
            }
            let shown = format!("{fun} {}", argument("cmd"));
            self.commands.ran.borrow_mut().insert(shown.clone(), (shown, Ended::With(0)));
        }
        let own = ["fun", "args", "get_return"];
        let kwargs = mapping.iter().filter(|(name, _)| !name.as_str().is_some_and(|name| own.contains(&name)));
        let asked = Call {
            function: fun.to_owned(),
            args: mapping.get("args").and_then(Value::as_list).unwrap_or_default().to_vec(),
            kwargs: kwargs.map(|(name, value)| (name.clone(), value.clone())).collect(),
        };
        match call::answer(self.projection.sys, &asked, &self.commands.grains) {
            Answer::Value(value) => {
                let part = mapping.get("get_return").and_then(Value::as_str);
                let value = part.map_or(Some(&value), |path| value.traverse(path, ":"));
                Ok(Some(value.is_some_and(Value::truthy).into()))
            }
            Answer::Error(error) => Err(error.into()),
        }
    }
}

/// What Salt hands from a state's arguments to its conditions. What the function itself calls by such a name (a user's `shell`, a
/// cron entry's `env`) is not meant, except in cmd.
fn options(low: &Low) -> Low {
    let mut own = low.clone();
    if low.state != "cmd" {
        let entry = crate::function::find(&low.function());
        let taken = |name: &str| entry.is_some_and(|e| e.args.iter().any(|a| a.name == name));
        own.args.0.retain(|name, _| name.as_str().is_some_and(|name| crate::function::args::OF_CONDITIONS.contains(&name) && !taken(name)));
    }
    own
}

fn unknown(condition: &Value, truth: Truth) -> Decision {
    let shown = condition.to_text();
    match truth {
        Truth::After(waits_for) => Decision::Unknown { why: format!("what `{shown}` says is known after apply"), waits_for },
        _ => Decision::Unknown { why: format!("`{shown}` is not asked before apply"), waits_for: Vec::new() },
    }
}
