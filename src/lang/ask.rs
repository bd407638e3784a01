//! Calls in templates that only the host can answer: looked up among its answers, or noted so that all of them are asked at once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::jinja::HostCalls;
use crate::agent::protocol::{Answer, Call};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::value::{Map, Value};

pub struct Ask {
    /// By function.
    answers: HashMap<String, Vec<(Call, Answer)>>,
    missing: Mutex<Vec<Call>>,
}

impl Ask {
    pub fn new(known: &[(Call, Answer)]) -> Ask {
        let mut answers: HashMap<String, Vec<(Call, Answer)>> = HashMap::new();
        for (call, answer) in known {
            answers.entry(call.function.clone()).or_default().push((call.clone(), answer.clone()));
        }
        Ask { answers, missing: Mutex::new(Vec::new()) }
    }

    /// What was asked and not known so far.
    pub fn missing(&self) -> Vec<Call> {
        std::mem::take(&mut *self.missing.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl HostCalls for Ask {
    fn call(&self, function: &str, args: &[Value], kwargs: &Map) -> Result<Value> {
        let same = |call: &Call| call.args == args && call.kwargs == *kwargs;
        if let Some((_, answer)) = self.answers.get(function).and_then(|known| known.iter().find(|(call, _)| same(call))) {
            return match answer {
                Answer::Value(value) => Ok(value.clone()),
                Answer::Error(error) => Err(Box::new(error.clone())),
            };
        }
        let call = Call { function: function.to_owned(), args: args.to_vec(), kwargs: kwargs.clone() };
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        if !missing.contains(&call) {
            missing.push(call);
        }
        Err(Box::new(
            Diagnostic::new(Code::HostNeeded, format!("{function} can only be answered by the host"))
                .hint("`basalt plan` asks the host; without one, give the value as a grain or in pillar"),
        ))
    }
}
