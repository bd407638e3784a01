//! file.copy, file.rename: what stands at another path of the host, here too or here instead. Whole trees as well.

use std::collections::BTreeSet;

use super::place::{self, Owner, failed, key, kind, named, text};
use super::text::copy_of;
use crate::diagnostic::Result;
use crate::function::args::Args;
use crate::function::{Arg, ArgKind, Entry, Function, There, Want};
use crate::plan::{Key, Low};
use crate::value::{Attrs, Value};

pub const COPY: Entry = Entry {
    name: "file.copy",
    doc: "A copy of a file or directory of the host. What is there already stays, unless forced.",
    args: &[
        super::NAME,
        SOURCE,
        FORCE,
        super::MAKEDIRS,
        Arg::new("preserve", ArgKind::Bool, "False", "Whether the copy has the source's owner and mode, whatever else is given."),
        super::USER,
        super::GROUP,
        super::OWNER,
        Arg::new("mode", ArgKind::Mode, "the source's", "The mode of the copy."),
        Arg::new("dir_mode", ArgKind::Mode, "", "The mode of directories that makedirs makes."),
        Arg::new("subdir", ArgKind::Bool, "False", "Whether a directory at this path gets the copy into it."),
    ],
    watches: false,
    parse: |low| parse(low, false),
};

pub const RENAME: Entry = Entry {
    name: "file.rename",
    doc: "A file or directory of the host under another name.",
    args: &[super::NAME, SOURCE, FORCE, super::MAKEDIRS],
    watches: false,
    parse: |low| parse(low, true),
};

const SOURCE: Arg = Arg::new("source", ArgKind::Str, "", "The other path; required.");
const FORCE: Arg = Arg::new("force", ArgKind::Bool, "False", "Whether what is there already is replaced.");

struct Copy {
    path: String,
    source: String,
    rename: bool,
    force: bool,
    makedirs: bool,
    preserve: bool,
    owner: Owner,
    mode: Option<String>,
    dir_mode: Option<String>,
    subdir: bool,
}

fn parse(low: &Low, rename: bool) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let source = place::absolute(&args, "source", &args.str("source")?.unwrap_or_default())?;
    let path = place::name(&args)?;
    if path != source && (place::within(&path, &source) || place::within(&source, &path)) {
        return Err(args.error(format!("{path} and {source} are within each other")));
    }
    Ok(Box::new(Copy {
        path,
        source,
        rename,
        force: args.bool("force", false)?,
        makedirs: args.bool("makedirs", false)?,
        preserve: rename || args.bool("preserve", false)?,
        owner: Owner::parse(&args)?,
        mode: args.mode("mode")?,
        dir_mode: args.mode("dir_mode")?,
        subdir: args.bool("subdir", false)?,
    }))
}

impl Copy {
    /// The path of the copy: within a directory that is there, where `subdir` says so.
    fn target(&self, there: &dyn There) -> Result<String> {
        let inside = self.subdir && kind(&there.get(&key(&place::follow(there, &self.path)?))) == Some("directory");
        Ok(if inside { place::join(&self.path, place::base(&self.source)) } else { self.path.clone() })
    }

    /// What is copied: that of a link, where it is not renamed.
    fn real_source(&self, there: &dyn There) -> Result<String> {
        if self.rename { Ok(self.source.clone()) } else { place::follow(there, &self.source) }
    }
}

impl Function for Copy {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        let target = self.target(there)?;
        let source = self.real_source(there)?;
        let mut keys = place::follow_keys(there, &self.source);
        keys.extend(place::follow_keys(there, &self.path));
        keys.extend(copied_keys(there, &source, &target)?);
        keys.extend(place::parent_keys(there, &target, self.makedirs));
        keys.extend(self.owner.keys(&there.get(&key(&target))));
        Ok(keys)
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        let (target, source) = (self.target(there)?, self.real_source(there)?);
        let from = there.get(&key(&source));
        if kind(&from).is_none() {
            return match (self.rename, there.uncertain()) {
                (_, true) => Ok(Want::Unknown(format!("{source} is not there yet"))),
                (true, false) => Ok(Want::Nothing(format!("{source} has already been renamed"))),
                (false, false) => {
                    Err(failed(format!("{source} is not there to be copied")).hint("a state that this one requires can bring it").into())
                }
            };
        }
        if kind(&there.get(&key(&target))).is_some() && !self.force {
            return Ok(Want::Nothing(format!("{target} is there and stays as it is; `force: True` replaces it")));
        }
        self.owner.check(there)?;
        let mode = if self.preserve { None } else { self.mode.clone() };
        let dir_mode = match (&self.dir_mode, mode.as_deref().or_else(|| text(&from, "mode"))) {
            (Some(dir_mode), _) => dir_mode.clone(),
            (None, Some(mode)) if !self.rename && kind(&from) == Some("file") => place::mode_of_parents(mode),
            _ => place::NEW_DIRECTORY.to_owned(),
        };
        let owner = if self.preserve { Owner::default() } else { self.owner.clone() };
        let mut wants = place::parents(there, &target, self.makedirs.then_some(&owner.directory(&dir_mode)))?;
        let mut copies = copied(there, &source, &target)?;
        for (key, wanted) in copies.iter_mut().filter(|(_, wanted)| !wanted.is_empty()) {
            if !self.preserve {
                // A copy is new: its owner is who is named, or whoever makes it.
                wanted.remove("user");
                wanted.remove("group");
                owner.add(there, &Attrs::new(), wanted);
            }
            if let Some(mode) = mode.as_ref().filter(|_| key.name == target && kind(wanted) != Some("symlink")) {
                wanted.insert("mode".into(), Value::str(mode));
            }
        }
        wants.extend(copies);
        if self.rename {
            wants.push((key(&source), Attrs::new()));
        }
        Ok(Want::Is(wants))
    }
}

/// The keys that `copied` speaks of.
pub fn copied_keys(there: &dyn There, from: &str, to: &str) -> Result<Vec<Key>> {
    let mut keys = vec![key(from), key(to)];
    for (path, _) in below(there, from)? {
        let rest = path.get(from.len()..).unwrap_or_default();
        keys.push(key(&format!("{to}{rest}")));
        keys.push(key(&path));
    }
    keys.extend(below(there, to)?.into_iter().map(|(path, _)| key(&path)));
    Ok(keys)
}

fn below(there: &dyn There, path: &str) -> Result<Vec<(String, Attrs)>> {
    if kind(&there.get(&key(path))) == Some("directory") { place::walk(there, path, None) } else { Ok(Vec::new()) }
}

/// What makes `to` like `from`, with everything below them.
pub fn copied(there: &dyn There, from: &str, to: &str) -> Result<Vec<(Key, Attrs)>> {
    let mut wants = Vec::new();
    let sources = below(there, from)?;
    let both_directories = kind(&there.get(&key(from))) == kind(&there.get(&key(to)));
    if both_directories {
        let kept: BTreeSet<String> =
            sources.iter().map(|(path, _)| format!("{to}{}", path.get(from.len()..).unwrap_or_default())).collect();
        let mut gone: BTreeSet<String> = BTreeSet::new();
        for (path, attrs) in below(there, to)? {
            let replaced = || sources.iter().any(|(s, a)| path.strip_prefix(to) == s.strip_prefix(from) && kind(a) != kind(&attrs));
            if gone.contains(place::parent(&path)) {
                gone.insert(path);
            } else if !kept.contains(&path) || (kind(&attrs) == Some("directory") && replaced()) {
                wants.push((key(&path), Attrs::new()));
                gone.insert(path);
            }
        }
    }
    for (path, attrs) in std::iter::once((from.to_owned(), there.get(&key(from)))).chain(sources) {
        if kind(&attrs) == Some("other") {
            let hint = "devices, pipes and sockets are made by what uses them";
            return Err(failed(format!("{path} is {} and cannot be copied", named("other"))).hint(hint).into());
        }
        let rest = path.get(from.len()..).unwrap_or_default();
        wants.push((key(&format!("{to}{rest}")), copy_of(&there.get(&key(&path)))));
    }
    Ok(wants)
}
