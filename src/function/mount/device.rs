//! Whether what is mounted is what is wanted: a device has many names.

use crate::diagnostic::Result;
use crate::function::There;
use crate::function::args::Args;
use crate::function::file::pattern::{self, Pattern};
use crate::function::file::place;
use crate::plan::{Key, Kind};
use crate::value::{Attrs, Value};

pub struct Device {
    /// In the user's words, for mount.
    pub source: String,
    bind: bool,
    /// `device_name_regex`.
    others: Vec<Pattern>,
}

/// `TAG=value`, without quotes.
fn tag(source: &str) -> Option<(String, String)> {
    let (tag, value) = source.split_once('=')?;
    let tag = tag.to_ascii_lowercase();
    ["uuid", "label", "partuuid", "partlabel"].contains(&tag.as_str()).then(|| (tag, value.trim_matches('"').to_owned()))
}

impl Device {
    pub fn new(args: &Args, source: &str, bind: bool) -> Result<Device> {
        let others = args
            .strs("device_name_regex")?
            .iter()
            .map(|p| Pattern::new(&format!("^(?:{p})"), pattern::MULTILINE))
            .collect::<Result<_>>()?;
        let source = if source.len() > 1 && source.starts_with('/') { source.trim_end_matches('/') } else { source };
        Ok(Device { source: source.to_owned(), bind, others })
    }

    /// The path that names it, where one does.
    fn path(&self) -> Option<String> {
        match tag(&self.source) {
            Some((tag, value)) => Some(format!("/dev/disk/by-{tag}/{}", value.replace(' ', "\\x20"))),
            None => self.source.starts_with('/').then(|| place::normal(&self.source)),
        }
    }

    /// What is looked at to know it.
    pub fn keys(&self, there: &dyn There, now: &Attrs) -> Vec<Key> {
        let mut keys = Vec::new();
        // A directory that is bound may be a dead mount itself: its name is all that is needed.
        if let Some(path) = self.path().filter(|_| !self.bind) {
            keys.extend(place::follow_keys(there, &path));
            if self.source.starts_with("/dev/") {
                keys.push(Key::new(Kind::Blockdev, &self.source));
            }
        }
        if let Some(shown) = now.get("device").and_then(Value::as_str).filter(|shown| shown.starts_with("/dev/")) {
            keys.extend(place::follow_keys(there, shown));
        }
        keys
    }

    /// Whether this is what is mounted.
    pub fn is(&self, there: &dyn There, now: &Attrs) -> Result<bool> {
        let text = |name: &str| now.get(name).and_then(Value::as_str).unwrap_or_default();
        let shown = text("device");
        let ended = |path: &str| place::follow(there, path).unwrap_or_else(|_| path.to_owned());
        for pattern in &self.others {
            if pattern.is_match(shown)? {
                return Ok(true);
            }
        }
        // What an earlier step of this plan mounts in the same words.
        if text("source") == self.source || shown == self.source {
            return Ok(true);
        }
        if self.bind {
            return Ok(text("bind") == place::normal(&self.source));
        }
        match tag(&self.source) {
            Some((tag, value)) if tag == "uuid" && !text("uuid").is_empty() => return Ok(text("uuid").eq_ignore_ascii_case(&value)),
            Some((tag, value)) if tag == "label" && !text("label").is_empty() => return Ok(text("label") == value),
            _ => {}
        }
        let Some(path) = self.path() else {
            // `sshfs#host:` is shown as `host:`, `host:/` as `host:` …
            let plain = self.source.split_once('#').map_or(self.source.as_str(), |(_, rest)| rest);
            return Ok(plain == shown || plain.trim_end_matches('/') == shown.trim_end_matches('/'));
        };
        let real = ended(&path);
        let devices = text("devices").split(',').any(|device| !device.is_empty() && (device == real || device == path));
        Ok(real == shown || real == ended(shown) || devices || text("backing") == real || text("bind") == real)
    }

    /// What the kernel will call it, where that is sure.
    pub fn shown(&self, there: &dyn There) -> Option<String> {
        let path = self.path().filter(|path| path.starts_with("/dev/") && tag(&self.source).is_none() && !self.bind)?;
        let plain = place::kind(&there.get(&place::key(&path))) == Some("other");
        plain.then_some(path)
    }

    /// Whether an earlier step of this plan makes its filesystem: nothing is in it then.
    pub fn is_fresh(&self, there: &dyn There) -> bool {
        there.get(&Key::new(Kind::Blockdev, &self.source)).contains_key("fresh")
    }
}
