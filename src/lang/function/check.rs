//! `test.*` and `log.*`.

use super::{Function, error};
use crate::value::{Map, Value};

pub const TABLE: &[(&str, Function)] = &[
    ("test.echo", |_, c| {
        let [text] = c.bind(["text"], 1)?;
        Ok(text.cloned().unwrap_or_default())
    }),
    ("test.ping", |_, _| Ok(Value::Bool(true))),
    ("test.true", |_, _| Ok(Value::Bool(true))),
    ("test.true_", |_, _| Ok(Value::Bool(true))),
    ("test.false", |_, _| Ok(Value::Bool(false))),
    ("test.false_", |_, _| Ok(Value::Bool(false))),
    ("test.none", |_, _| Ok(Value::Null)),
    ("test.kwarg", |_, c| Ok(Value::Map(c.kwargs.clone()))),
    ("test.arg", |_, c| {
        let entries = [("args", Value::List(c.args.to_vec())), ("kwargs", Value::Map(c.kwargs.clone()))];
        Ok(Value::Map(entries.into_iter().collect::<Map>()))
    }),
    ("test.exception", |_, c| {
        let [message] = c.bind(["message"], 0)?;
        Err(error(message.map_or("Test Exception".into(), Value::to_text)))
    }),
    // What templates log is of no use on a controller that shows plans.
    ("log.debug", |_, _| Ok(Value::Bool(true))),
    ("log.info", |_, _| Ok(Value::Bool(true))),
    ("log.warning", |_, _| Ok(Value::Bool(true))),
    ("log.error", |_, _| Ok(Value::Bool(true))),
    ("log.critical", |_, _| Ok(Value::Bool(true))),
    ("log.exception", |_, _| Ok(Value::Bool(true))),
];
