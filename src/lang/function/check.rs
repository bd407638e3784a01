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
    // What would be sent to hosts or read anew by Salt is always as it is in the repository.
    ("saltutil.sync_all", |_, _| {
        const KINDS: [&str; 21] = [
            "tops",
            "clouds",
            "beacons",
            "modules",
            "states",
            "sdb",
            "grains",
            "renderers",
            "returners",
            "output",
            "utils",
            "log_handlers",
            "executors",
            "proxymodules",
            "engines",
            "thorium",
            "serializers",
            "matchers",
            "resources",
            "pillar",
            "wrapper",
        ];
        Ok(Value::Map(KINDS.into_iter().map(|kind| (kind, Value::List(Vec::new()))).collect()))
    }),
    ("saltutil.sync_beacons", nothing),
    ("saltutil.sync_clouds", nothing),
    ("saltutil.sync_engines", nothing),
    ("saltutil.sync_executors", nothing),
    ("saltutil.sync_grains", nothing),
    ("saltutil.sync_matchers", nothing),
    ("saltutil.sync_modules", nothing),
    ("saltutil.sync_output", nothing),
    ("saltutil.sync_outputters", nothing),
    ("saltutil.sync_pillar", nothing),
    ("saltutil.sync_proxymodules", nothing),
    ("saltutil.sync_renderers", nothing),
    ("saltutil.sync_returners", nothing),
    ("saltutil.sync_sdb", nothing),
    ("saltutil.sync_serializers", nothing),
    ("saltutil.sync_states", nothing),
    ("saltutil.sync_tops", nothing),
    ("saltutil.sync_utils", nothing),
    ("saltutil.refresh_beacons", |_, _| Ok(Value::Bool(true))),
    ("saltutil.refresh_grains", |_, _| Ok(Value::Bool(true))),
    ("saltutil.refresh_matchers", |_, _| Ok(Value::Bool(true))),
    ("saltutil.refresh_modules", |_, _| Ok(Value::Bool(true))),
    ("saltutil.refresh_pillar", |_, _| Ok(Value::Bool(true))),
    ("mine.update", |_, _| Ok(Value::Bool(true))),
    // What templates log is of no use on a controller that shows plans.
    ("log.debug", |_, _| Ok(Value::Bool(true))),
    ("log.info", |_, _| Ok(Value::Bool(true))),
    ("log.warning", |_, _| Ok(Value::Bool(true))),
    ("log.error", |_, _| Ok(Value::Bool(true))),
    ("log.critical", |_, _| Ok(Value::Bool(true))),
    ("log.exception", |_, _| Ok(Value::Bool(true))),
];

fn nothing(_: &super::Site, _: super::Call) -> crate::diagnostic::Result<Value> {
    Ok(Value::List(Vec::new()))
}
