//! What filters, methods, functions and operators make of a secret is one too, where it cannot be seen in it any more.
//!
//! Only texts are looked at. Containers that come out of containers (`items`, `map`, `default`) hold the texts that went in.

use std::sync::Arc;

use minijinja::Value;

use super::call::Args;
use super::value::{Done, View, view};
use crate::lang::secret::{self, Secrets};

/// Values nested deeper, or more of them, are not looked into.
const DEPTH: usize = 64;
const COUNT: usize = 100_000;

/// What goes into a call that is about to be made.
pub struct Taint {
    secrets: Arc<Secrets>,
    given: Vec<Value>,
}

impl Taint {
    /// `None`, mostly: nothing is secret.
    pub fn of(value: &Value, args: &Args) -> Option<Taint> {
        let secrets = secret::current()?;
        let named = args.named.iter().map(|(_, value)| value);
        Some(Taint { secrets, given: std::iter::once(value).chain(&args.positional).chain(named).cloned().collect() })
    }

    /// What came out of it.
    pub fn made(&self, made: &Value) {
        let number;
        let made = match view(made) {
            View::Undefined(_) | View::None | View::Bool(_) => return,
            View::Int(_) | View::Float(_) => {
                number = Value::from(made.to_string());
                // Shorter ones are lengths and ports.
                if number.as_str().is_none_or(|digits| digits.len() < 6) {
                    return;
                }
                &number
            }
            _ => made,
        };
        let single = made.as_str();
        // A container that comes of a container: its texts are old ones.
        let direct = self.given.iter().filter(|value| single.is_some() || value.as_str().is_some());
        let given = all_texts(direct);
        if !given.iter().any(|text| self.secrets.holds(text)) {
            return;
        }
        match single {
            Some(made) => self.secrets.made(&borrowed(&given), made),
            None => {
                let (old, several) = (all_texts(&self.given), all_texts([made]));
                self.secrets.made_several(&borrowed(&given), &borrowed(&old), &borrowed(&several));
            }
        }
    }
}

/// The result of an operator on these.
pub fn made(given: &[&Value], result: Done) -> Done {
    if let (Some(secrets), Ok(made)) = (secret::current(), &result) {
        Taint { secrets, given: given.iter().map(|value| (*value).clone()).collect() }.made(made);
    }
    result
}

/// All texts in values, keys included.
fn all_texts<'a>(values: impl IntoIterator<Item = &'a Value>) -> Vec<Arc<str>> {
    let mut out = Vec::new();
    values.into_iter().for_each(|value| texts(value, &mut out, 0));
    out
}

fn borrowed(texts: &[Arc<str>]) -> Vec<&str> {
    texts.iter().map(|text| &**text).collect()
}

fn texts(value: &Value, out: &mut Vec<Arc<str>>, depth: usize) {
    if depth > DEPTH || out.len() > COUNT {
        return;
    }
    let inner = match view(value) {
        View::Str(text) => {
            out.push(text.into());
            return;
        }
        View::List(list) => list.items(),
        View::Tuple(tuple) => tuple.0.clone(),
        View::Series(series) => series.items.clone(),
        View::Dict(dict) => dict.items().into_iter().flat_map(|(key, value)| [key, value]).collect(),
        View::Undefined(_) | View::None | View::Bool(_) | View::Int(_) | View::Float(_) | View::Other => return,
    };
    inner.iter().for_each(|value| texts(value, out, depth + 1));
}
