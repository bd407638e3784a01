//! Calls in templates that the functions of this layer do not answer: looked up among the answers, or noted so that all of them are asked at
//! once. Some need no host but the tree: what custom modules there are, which files pillar has.
//!
//! What is not known yet keeps a template from being rendered truly, but what else it asks can be found out: a call that only looks is noted
//! and taken for None, and the template goes on, for nothing that it gives counts. From there on it goes astray, maybe, so that only calls
//! that look are noted: a command behind a condition that was guessed must not run. Those are noted when all before them is known.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::function::hash::sha256;
use super::function::runner;
use super::jinja::HostCalls;
use super::root::Roots;
use crate::agent::protocol::{Answer, Call};
use crate::diagnostic::{Code, Diagnostic, Result, nearest};
use crate::value::{Map, Value};

/// The call by which `random.*` gets its seed: one a compile, so that every round of it sees the same.
pub const ENTROPY: &str = "random.entropy";

pub struct Ask {
    /// By function.
    answers: HashMap<String, Vec<(Call, Answer)>>,
    missing: Mutex<Vec<Call>>,
    /// Whether to go on with a guess.
    guess: bool,
    /// A guess was given: what is rendered now may never be meant.
    astray: AtomicBool,
    /// How often a seed was wanted.
    drawn: AtomicUsize,
    states: Arc<Roots>,
    pillar: Arc<Roots>,
}

impl Ask {
    pub fn new(known: &[(Call, Answer)], guess: bool, states: &Arc<Roots>, pillar: &Arc<Roots>) -> Ask {
        let mut answers: HashMap<String, Vec<(Call, Answer)>> = HashMap::new();
        for (call, answer) in known {
            answers.entry(call.function.clone()).or_default().push((call.clone(), answer.clone()));
        }
        Ask {
            answers,
            missing: Mutex::default(),
            guess,
            astray: AtomicBool::default(),
            drawn: AtomicUsize::default(),
            states: states.clone(),
            pillar: pillar.clone(),
        }
    }

    /// What was asked and not known so far.
    pub fn missing(&self) -> Vec<Call> {
        std::mem::take(&mut *self.missing.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn look_up(&self, call: Call) -> Result<Value> {
        if let Some((_, answer)) = self.answers.get(&call.function).and_then(|known| known.iter().find(|(known, _)| *known == call)) {
            return match answer {
                Answer::Value(value) => Ok(value.clone()),
                Answer::Error(error) => Err(Box::new(error.clone())),
            };
        }
        let fault = Diagnostic::new(Code::HostNeeded, format!("{} can only be answered by the host", call.function));
        let looks = only_looks(&call.function);
        let asked = call.function.clone();
        if looks || !self.astray.load(Ordering::Relaxed) {
            let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
            if !missing.contains(&call) {
                missing.push(call);
            }
        }
        if looks && self.guess {
            self.astray.store(true, Ordering::Relaxed);
            return Ok(Value::Null);
        }
        // A slip in the name of what needs no host.
        let module = |name: &str| name.split('.').next().map(str::to_owned);
        Err(Box::new(match nearest(&asked, super::function::names()).filter(|near| module(near) == module(&asked)) {
            Some(near) => fault.hint(format!("did you mean {near}?")),
            None => fault.hint("`basalt plan` asks the host; without one, give the value as a grain or in pillar"),
        }))
    }

    /// The file of the tree that brings a module, of which Salt would take all its functions.
    fn custom(&self, module: &str) -> Option<String> {
        for env in self.states.names() {
            let paths = self.states.paths(env).ok()?;
            let own = format!("_modules/{module}.py");
            let mut modules = paths.iter().filter(|path| path.starts_with("_modules/") && path.ends_with(".py"));
            let named = |path: &&String| {
                let text = self.states.read(env, path).ok().flatten();
                text.as_ref().and_then(|f| f.text().ok()).is_some_and(|text| virtual_name(text) == Some(module))
            };
            if let Some(path) = modules.clone().find(|path| **path == own).or_else(|| modules.find(named)) {
                return Some(self.states.read(env, path).ok().flatten().map_or_else(|| path.clone(), |file| file.shown.to_string()));
            }
        }
        None
    }

    /// `pillar.file_exists(path, saltenv)`
    fn in_pillar(&self, args: &[Value], kwargs: &Map) -> Value {
        let argument = |place: usize, name: &str| args.get(place).or_else(|| kwargs.get(name)).filter(|v| v.truthy()).map(Value::to_text);
        let (path, env) = (argument(0, "path").unwrap_or_default(), argument(1, "saltenv"));
        let mut environments = self.pillar.names().filter(|name| env.as_deref().is_none_or(|env| env == *name));
        environments.any(|env| self.pillar.paths(env).is_ok_and(|paths| paths.contains(&path))).into()
    }
}

impl HostCalls for Ask {
    fn call(&self, function: &str, args: &[Value], kwargs: &Map) -> Result<Value> {
        if let Some(file) = function.split_once('.').and_then(|(module, _)| self.custom(module)) {
            let fault = Diagnostic::new(Code::Template, format!("{function} is a function of {file}, and custom Python is not run"));
            return Err(Box::new(fault.hint("say the same in Jinja (a macro, a map.jinja), or keep the value in pillar or as a grain")));
        }
        match function {
            "pillar.file_exists" => Ok(self.in_pillar(args, kwargs)),
            ENTROPY => {
                let seed = self.look_up(Call { function: ENTROPY.into(), args: Vec::new(), kwargs: Map::new() })?;
                let count = self.drawn.fetch_add(1, Ordering::Relaxed);
                Ok(sha256(format!("{} {count}", seed.to_text()).as_bytes()).into())
            }
            "saltutil.runner" if runner(args, kwargs).is_some() => self.look_up(of_runner(args, kwargs)),
            _ => self.look_up(Call { function: function.to_owned(), args: args.to_vec(), kwargs: kwargs.clone() }),
        }
    }
}

/// Whether a call can be asked on a guess: it changes nothing, costs little, and nobody else hears of it.
fn only_looks(function: &str) -> bool {
    !function.starts_with("cmd.") && !matches!(function, "http.query" | "mine.get")
}

/// `__virtualname__ = "name"` of a module.
fn virtual_name(text: &str) -> Option<&str> {
    let line = text.lines().find_map(|line| line.strip_prefix("__virtualname__")?.trim_start().strip_prefix('='))?;
    let name = line.trim();
    ['"', '\''].into_iter().find_map(|quote| name.strip_prefix(quote)?.split(quote).next())
}

/// `saltutil.runner('mine.get', …)`, which pillars use, as the call that it comes to.
fn of_runner(args: &[Value], kwargs: &Map) -> Call {
    let mut inner = Call { function: "mine.get".into(), args: args.get(1..).unwrap_or_default().to_vec(), kwargs: Map::new() };
    for (name, value) in kwargs {
        match (name.as_str(), value) {
            (Some("name"), _) => {}
            (Some("arg"), Value::List(args)) => inner.args.extend(args.iter().cloned()),
            (Some("kwarg"), Value::Map(kwargs)) => kwargs.iter().for_each(|(k, v)| drop(inner.kwargs.insert(k.clone(), v.clone()))),
            _ => drop(inner.kwargs.insert(name.clone(), value.clone())),
        }
    }
    inner
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_runner_of_the_mine_is_the_mine() {
        for (args, kwargs, want) in [
            (json!(["mine.get", "*", "f"]), json!({"tgt_type": "grain"}), json!({"args": ["*", "f"], "kwargs": {"tgt_type": "grain"}})),
            (json!(["mine.get"]), json!({"tgt": "*", "fun": "f"}), json!({"kwargs": {"tgt": "*", "fun": "f"}})),
            (
                json!([]),
                json!({"name": "mine.get", "arg": ["*", "f"], "kwarg": {"tgt_type": "grain"}}),
                json!({"args": ["*", "f"], "kwargs": {"tgt_type": "grain"}}),
            ),
        ] {
            let args: Vec<Value> = serde_json::from_value(args).unwrap();
            let mut got = serde_json::to_value(of_runner(&args, &serde_json::from_value(kwargs).unwrap())).unwrap();
            assert_eq!(got.as_object_mut().unwrap().remove("function"), Some(json!("mine.get")));
            assert_eq!(got, want);
        }
    }

    #[test]
    fn a_module_may_have_another_name_than_its_file() {
        assert_eq!(virtual_name("import os\n__virtualname__ = \"roles\"\n"), Some("roles"));
        assert_eq!(virtual_name("__virtualname__='x'  # why\n"), Some("x"));
        assert_eq!(virtual_name("def __virtual__():\n    return __virtualname__\n"), None);
    }
}
