//! kmod.*: modules of the kernel, now and after a boot.

use super::args::Args;
use super::edit::{TextFile, all};
use super::{Arg, ArgKind, Entry, Function, There, Want};
use crate::diagnostic::Result;
use crate::plan::{Key, Kind, Low};
use crate::value::{Attrs, Value, attributes};

/// What systemd loads at boot, under the name that Salt gives it.
const PERSISTENT: &str = "/etc/modules-load.d/salt_managed.conf";
const NAME: Arg = Arg::new("name", ArgKind::Str, "", "The module.");
const MODS: Arg = Arg::new("mods", ArgKind::Strs, "", "Several of them; the name counts no more.");

const PRESENT: &[Arg] =
    &[NAME, Arg::new("persist", ArgKind::Bool, "False", "Whether it is loaded at boot too (modules-load.d/salt_managed.conf)."), MODS];
const ABSENT: &[Arg] = &[
    NAME,
    Arg::new("persist", ArgKind::Bool, "False", "Whether it goes from what is loaded at boot too."),
    Arg::new("comment", ArgKind::Bool, "True", "Comment its line out instead of removing it."),
    MODS,
];

pub const FUNCTIONS: &[Entry] = &[
    Entry { name: "kmod.absent", doc: "A module of the kernel is not loaded.", args: ABSENT, watches: false, parse: absent },
    Entry { name: "kmod.present", doc: "A module of the kernel is loaded.", args: PRESENT, watches: false, parse: present },
];

struct Kmod {
    mods: Vec<String>,
    loaded: bool,
    persist: bool,
    comment: bool,
}

fn present(low: &Low) -> Result<Box<dyn Function>> {
    kmod(low, true)
}

fn absent(low: &Low) -> Result<Box<dyn Function>> {
    kmod(low, false)
}

fn kmod(low: &Low, loaded: bool) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let mut mods = args.strs("mods")?;
    if mods.is_empty() {
        mods.push(args.name());
    }
    let good = |name: &String| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') && !name.starts_with('-')
    };
    if let Some(wrong) = mods.iter().find(|name| !good(name)) {
        return Err(args.error(format!("{wrong:?} cannot be the name of a module")));
    }
    Ok(Box::new(Kmod { mods, loaded, persist: args.bool("persist", false)?, comment: args.bool("comment", true)? }))
}

/// The kernel takes both for one.
fn plain(name: &str) -> String {
    name.trim().replace('-', "_")
}

impl Kmod {
    fn edited(&self, text: &str) -> String {
        let named = |line: &str| self.mods.iter().any(|name| plain(line) == plain(name));
        if !self.loaded {
            let lines = text.split_inclusive('\n').map(|line| match named(line) {
                true if self.comment => format!("#{line}"),
                true => String::new(),
                false => line.to_owned(),
            });
            return lines.collect();
        }
        let mut out = text.to_owned();
        for name in self.mods.iter().filter(|name| !text.lines().any(|line| plain(line) == plain(name))) {
            if !out.is_empty() && !out.ends_with('\n') {
                out.push('\n');
            }
            out.push_str(&format!("{name}\n"));
        }
        out
    }
}

impl Function for Kmod {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        let mut keys: Vec<Key> = self.mods.iter().map(|name| Key::new(Kind::Module, plain(name))).collect();
        if self.persist {
            keys.extend(TextFile::new(PERSISTENT).with_directories().keys(there)?);
        }
        Ok(keys)
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        let mut wants = Vec::new();
        for name in &self.mods {
            let wanted = if self.loaded { attributes([("loaded".to_owned(), Value::Bool(true))]) } else { Attrs::new() };
            wants.push((Key::new(Kind::Module, plain(name)), wanted));
        }
        if self.persist {
            let file = TextFile::new(PERSISTENT).with_directories().want(there, |text| Ok(self.edited(text)))?;
            return Ok(all(vec![Want::Is(wants), file], ""));
        }
        Ok(Want::Is(wants))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Host, low, want};
    use super::*;
    use serde_json::json;

    #[test]
    fn modules_are_loaded_now_and_at_boot() {
        let mut host = Host::default();
        host.file(PERSISTENT, "loop\n");
        host.has("file:/etc/modules-load.d", json!({"kind": "directory"}));
        let wanted = want(&host, "kmod.present", json!({"name": "x", "mods": ["nf-conntrack", "loop"], "persist": true})).unwrap();
        assert_eq!(wanted[0], json!(["module:nf_conntrack", {"loaded": true}]));
        assert_eq!(wanted[2][0], json!("file:/etc/modules-load.d/salt_managed.conf"));
        assert_eq!(want(&host, "kmod.absent", json!({"name": "loop"})).unwrap(), json!([["module:loop", {}]]));
        assert!(present(&low("kmod.present", json!({"name": "-r"}))).is_err());
    }

    #[test]
    fn lines_are_added_commented_out_and_removed() {
        let edited = |loaded, comment, mods: &[&str], text| {
            Kmod { mods: mods.iter().map(|m| (*m).to_owned()).collect(), loaded, persist: true, comment }.edited(text)
        };
        assert_eq!(edited(true, true, &["a-b", "c"], "a_b\nx"), "a_b\nx\nc\n");
        assert_eq!(edited(false, true, &["a-b"], "a_b\nx\n"), "#a_b\nx\n");
        assert_eq!(edited(false, false, &["a-b"], "a_b\nx\n"), "x\n");
    }
}
