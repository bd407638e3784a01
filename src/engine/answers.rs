//! Compiling for a host and answering what its templates ask meanwhile: all calls that are missing go out in one exchange, and it compiles
//! again until none is missing. Most are the host's; what other hosts know is the mine's, and some the controller answers itself.

use std::sync::Arc;

use super::compile::{Answers, Attempt, Compiler};
use super::plan::{Work, joined};
use super::session::Session;
use crate::agent::protocol::{Answer, Call};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::lang::ask::ENTROPY;
use crate::value::Value;

/// Templates that ask, are answered, and ask something new: after this many rounds they are asking without end.
const ROUNDS: usize = 200;

/// What compiling gave, and what it took.
#[derive(Debug)]
pub struct Answered<T> {
    pub value: T,
    pub found: Found,
}

/// What there is to tell of the answers.
#[derive(Debug, Default)]
pub struct Found {
    /// Commands that ran for them, each once.
    pub ran: Vec<String>,
    /// Hosts of the mine that could not be asked, and the like.
    pub notices: Vec<String>,
}

impl Found {
    pub fn add(&mut self, other: Found) {
        for (into, from) in [(&mut self.ran, other.ran), (&mut self.notices, other.notices)] {
            for text in from {
                if !into.contains(&text) {
                    into.push(text);
                }
            }
        }
    }
}

/// Who answers.
#[derive(Clone)]
pub struct Asking {
    pub work: Work,
    pub compiler: Compiler,
    /// Whether the mine is asked: not while it is being asked itself.
    pub mine: bool,
}

impl Asking {
    /// Compiles until nothing is asked any more.
    pub async fn answered<T, F>(&self, session: &mut Session, attempt: F) -> Result<Answered<T>>
    where
        T: Send + 'static,
        F: Fn(&Answers) -> Attempt<T> + Send + Sync + 'static,
    {
        let attempt = Arc::new(attempt);
        let mut answers = Answers::new();
        let mut found = Found::default();
        for _ in 0..ROUNDS {
            let place = self.work.compiling.acquire().await;
            let attempt = attempt.clone();
            let task = tokio::task::spawn_blocking(move || (attempt(&answers), answers));
            let ((result, missing), known) =
                task.await.map_err(|e| Diagnostic::new(Code::Internal, format!("the compiler ended unexpectedly: {e}")))?;
            drop(place);
            answers = known;
            if missing.is_empty() {
                return result.map(|value| Answered { value, found }).map_err(joined);
            }
            answers.extend(self.answer(session, missing, &mut found).await?);
        }
        Err(Diagnostic::new(Code::Template, format!("the templates ask the host something new after {ROUNDS} rounds of answers"))
            .hint("a call in a template depends on the answer to another, over and over; ask once and keep the answer in a variable")
            .into())
    }

    /// Answers calls of a host's templates, those for the host itself in one exchange.
    pub async fn answer(&self, session: &mut Session, missing: Vec<Call>, found: &mut Found) -> Result<Answers> {
        let mut answers = Answers::new();
        let mut of_host = Vec::new();
        for call in missing {
            let answer = match call.function.as_str() {
                "mine.get" if self.mine => {
                    let (answer, told) = self.work.mine.get(self, &session.host.id, &session.grains.all, &call).await;
                    found.add(told);
                    answer
                }
                "mine.get" => {
                    let why = "the pillar of a host that the mine asks cannot itself ask the mine";
                    Answer::Error(
                        Diagnostic::new(Code::Template, why)
                            .hint("move mine.get into the states, or the functions into the roster's mine_functions"),
                    )
                }
                "minion.list" => Answer::Value(self.work.mine.minions()),
                ENTROPY => Answer::Value(entropy()?),
                function if runs(function) && !self.work.commands => Answer::Error(forbidden(function)),
                function => {
                    if runs(function) {
                        found.add(Found { ran: vec![shown(&call)], notices: Vec::new() });
                    }
                    of_host.push(call);
                    continue;
                }
            };
            answers.push((call, answer));
        }
        if !of_host.is_empty() {
            let replies = session.ask(of_host.clone()).await?;
            answers.extend(of_host.into_iter().zip(replies));
        }
        Ok(answers)
    }
}

fn entropy() -> Result<Value> {
    use std::io::Read;
    let mut bytes = [0; 32];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|e| Diagnostic::io("read /dev/urandom", &e))?;
    Ok(crate::plan::hex(&bytes).into())
}

/// Whether a function runs a command that the template brings.
pub fn runs(function: &str) -> bool {
    function.starts_with("cmd.") && !matches!(function, "cmd.which" | "cmd.which_bin" | "cmd.has_exec" | "cmd.shells")
}

/// The command of such a call, as it is listed.
pub fn shown(call: &Call) -> String {
    let argument =
        |place: usize, name: &str| call.args.get(place).or_else(|| call.kwargs.get(name)).map(Value::to_text).unwrap_or_default();
    match call.function.as_str() {
        "cmd.exec_code" | "cmd.exec_code_all" => format!("{} {}", argument(0, "lang"), argument(1, "code")),
        "cmd.script" | "cmd.script_retcode" => format!("{} {}", argument(0, "source"), argument(1, "args")).trim_end().to_owned(),
        _ => argument(0, "cmd"),
    }
}

fn forbidden(function: &str) -> Diagnostic {
    Diagnostic::new(Code::Template, format!("{function} runs a command while the plan is made, and plan_commands forbids that"))
        .hint("a grain or pillar value tells the same, or a function that only looks (file.read, pkg.version …); `plan_commands: true` permits it")
}

/// Salt's way to call: these arguments by place or name.
pub fn bound<const N: usize>(call: &Call, names: [&str; N]) -> Result<[Option<Value>; N]> {
    let wrong = |what: String| Diagnostic::new(Code::Template, format!("{} {what}", call.function));
    if call.args.len() > N {
        return Err(wrong(format!("takes {N} arguments but {} were given", call.args.len())).into());
    }
    let mut slots: [Option<Value>; N] = std::array::from_fn(|i| call.args.get(i).cloned());
    for (name, value) in &call.kwargs {
        let name = name.to_text();
        let Some(slot) = names.iter().position(|n| *n == name).and_then(|i| slots.get_mut(i)) else {
            let fault = wrong(format!("has no argument {name}"));
            return Err(if name == "expr_form" { fault.hint("Salt calls it tgt_type now") } else { fault }.into());
        };
        if slot.replace(value.clone()).is_some() {
            return Err(wrong(format!("got two values for the argument {name}")).into());
        }
    }
    Ok(slots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn call(function: &str, args: serde_json::Value, kwargs: serde_json::Value) -> Call {
        Call { function: function.into(), args: serde_json::from_value(args).unwrap(), kwargs: serde_json::from_value(kwargs).unwrap() }
    }

    #[test]
    fn commands_are_known_and_shown() {
        assert!(runs("cmd.run") && runs("cmd.script") && !runs("cmd.which") && !runs("cmd.has_exec") && !runs("file.read"));
        for (function, args, kwargs, want) in [
            ("cmd.run", json!(["date +%s"]), json!({}), "date +%s"),
            ("cmd.retcode", json!([]), json!({"cmd": "false"}), "false"),
            ("cmd.exec_code", json!(["python3", "print(1)"]), json!({}), "python3 print(1)"),
            ("cmd.script", json!(["salt://a.sh"]), json!({}), "salt://a.sh"),
        ] {
            assert_eq!(shown(&call(function, args, kwargs)), want);
        }
    }

    #[test]
    fn arguments_come_by_place_or_name_and_old_names_are_told() {
        let names = ["tgt", "fun", "tgt_type", "exclude_minion"];
        let text = |slots: [Option<Value>; 4]| slots.map(|v| v.map(|v| v.to_text()).unwrap_or_default());
        let bound_to = |args, kwargs| bound(&call("mine.get", args, kwargs), names);
        assert_eq!(text(bound_to(json!(["*", "f"]), json!({"tgt_type": "grain"})).unwrap()), ["*", "f", "grain", ""]);
        assert_eq!(
            bound_to(json!(["*", "f"]), json!({"expr_form": "grain"})).unwrap_err().hint.as_deref(),
            Some("Salt calls it tgt_type now")
        );
        assert!(bound_to(json!(["*", "f", "glob", true, 1]), json!({})).is_err());
        assert!(bound_to(json!(["*"]), json!({"tgt": "*"})).is_err());
    }
}
