//! Versions of packages, compared as dpkg and rpm do.

use super::{Function, error, flag, text};
use crate::object::packages::version;
use crate::value::Value;

pub const TABLE: &[(&str, Function)] = &[("pkg.version_cmp", |s, c| {
    let [a, b, ignore_epoch] = c.bind(["pkg1", "pkg2", "ignore_epoch"], 2)?;
    let without = |v: String| v.split_once(':').map_or(v.clone(), |(_, rest)| rest.to_owned());
    let (mut a, mut b) = (text(a), text(b));
    if flag(ignore_epoch, false) {
        (a, b) = (without(a), without(b));
    }
    if a.is_empty() || b.is_empty() {
        return Err(error("pkg.version_cmp needs two versions"));
    }
    let rpm = matches!(s.context.grains.get("os_family").and_then(Value::as_str), Some("RedHat" | "Suse"));
    Ok(Value::Int(if rpm { version::rpm(&a, &b) } else { version::debian(&a, &b) } as i64))
})];
