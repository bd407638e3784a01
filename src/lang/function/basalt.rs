//! `basalt.*`: what only basalt has.

use super::{Call, Function, Site, error};
use crate::diagnostic::Result;
use crate::value::Value;

pub const TABLE: &[(&str, Function)] = &[("basalt.announce_key", announce_key)];

/// The key with which this node announces itself to its controllers: a secret.
fn announce_key(site: &Site<'_>, call: Call<'_>) -> Result<Value> {
    let [] = call.bind([], 0)?;
    let keys = site.context.node_keys.as_ref().ok_or_else(|| error("the keys of nodes are not known here"))?;
    let key = keys.key(&site.context.opts.get("id").map(Value::to_text).unwrap_or_default())?;
    site.context.secrets.add(&key);
    Ok(Value::Str(key))
}
