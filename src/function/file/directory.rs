//! file.directory: a directory with this mode and owner, and what of it holds for everything below it.

use std::collections::BTreeSet;

use super::copy::copied_keys;
use super::place::{self, Owner, attrs, failed, key, kind, named};
use super::select::excluded;
use super::symlink::moved;
use crate::diagnostic::Result;
use crate::function::args::Args;
use crate::function::{Arg, ArgKind, Entry, Function, There, Want};
use crate::plan::{Key, Low};
use crate::value::{Attrs, Value, gathered};

pub const ENTRY: Entry = Entry {
    name: "file.directory",
    doc: "A directory with this mode and owner, alone or with everything below it.",
    args: &[
        super::NAME,
        super::USER,
        super::GROUP,
        super::OWNER,
        Arg::new(
            "recurse",
            ArgKind::List,
            "",
            "What holds below it too: user, group, mode; ignore_files or ignore_dirs leaves those out; silent is accepted.",
        ),
        Arg::new("max_depth", ArgKind::Int, "", "How many levels recurse goes down; 0 is the directory alone."),
        Arg::new("dir_mode", ArgKind::Mode, "", "The mode of directories. New ones get 0755 where it is not given."),
        Arg::new("mode", ArgKind::Mode, "", "The same as dir_mode."),
        Arg::new("file_mode", ArgKind::Mode, "dir_mode", "The mode of files below it, with `recurse: [mode]`."),
        super::MAKEDIRS,
        Arg::new("clean", ArgKind::Bool, "False", "Whether everything goes that is not of a file state that this one requires."),
        Arg::new(
            "exclude_pat",
            ArgKind::Strs,
            "",
            "What clean leaves: a glob or `E@` and a regular expression, on paths below the directory.",
        ),
        Arg::new("follow_symlinks", ArgKind::Bool, "False", "Whether mode and owner are those of a link's target."),
        Arg::new("force", ArgKind::Bool, "False", "Whether a file or link in its place is removed."),
        Arg::new("backupname", ArgKind::Str, "", "What a file or link in its place is renamed to."),
        Arg::new("allow_symlink", ArgKind::Bool, "True", "Whether a link to a directory will do."),
        Arg::new("children_only", ArgKind::Bool, "False", "Whether only what is below it is managed."),
    ],
    watches: false,
    parse,
};

struct Directory {
    path: String,
    owner: Owner,
    dir_mode: Option<String>,
    file_mode: Option<String>,
    makedirs: bool,
    recurse: Option<Recurse>,
    max_depth: Option<usize>,
    clean: bool,
    exclude: Vec<String>,
    follow: bool,
    force: bool,
    backup: Option<String>,
    allow_symlink: bool,
    children_only: bool,
}

/// What holds below the directory.
#[derive(Default)]
struct Recurse {
    user: bool,
    group: bool,
    mode: bool,
    files: bool,
    directories: bool,
}

fn parse(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let dir_mode = args.mode("dir_mode")?.or(args.mode("mode")?);
    let max_depth = match args.int("max_depth")? {
        None => None,
        Some(depth) => Some(usize::try_from(depth).map_err(|_| args.error("max_depth is to be 0 or more"))?),
    };
    let clean = args.bool("clean", false)?;
    if clean && max_depth.is_some() {
        return Err(args.error("max_depth and clean cannot be used together: clean looks at everything"));
    }
    let owner = Owner::parse(&args)?;
    Ok(Box::new(Directory {
        path: place::name(&args)?,
        recurse: recurse(&args, &owner)?,
        owner,
        file_mode: args.mode("file_mode")?.or_else(|| dir_mode.clone()),
        dir_mode,
        makedirs: args.bool("makedirs", false)?,
        max_depth,
        clean,
        exclude: args.strs("exclude_pat")?,
        follow: args.bool("follow_symlinks", false)?,
        force: args.bool("force", false)?,
        backup: args.str("backupname")?.filter(|b| !b.is_empty()).map(|b| place::absolute(&args, "backupname", &b)).transpose()?,
        allow_symlink: args.bool("allow_symlink", true)?,
        children_only: args.bool("children_only", false)?,
    }))
}

fn recurse(args: &Args, owner: &Owner) -> Result<Option<Recurse>> {
    let given: BTreeSet<String> = args.strs("recurse")?.into_iter().collect();
    if given.is_empty() {
        return Ok(None);
    }
    let known = ["user", "group", "mode", "ignore_files", "ignore_dirs", "silent"];
    if let Some(unknown) = given.iter().find(|g| !known.contains(&g.as_str())) {
        return Err(args.error(format!("recurse knows {}, not {unknown}", known.join(", "))));
    }
    let has = |name: &str| given.contains(name);
    if has("ignore_files") && has("ignore_dirs") {
        return Err(args.error("recurse with both ignore_files and ignore_dirs would manage nothing"));
    }
    for (name, there) in [("user", owner.user.is_some()), ("group", owner.group.is_some())] {
        if has(name) && !there {
            return Err(args.error(format!("recurse names {name}, and the state gives no {name}")));
        }
    }
    Ok(Some(Recurse {
        user: has("user"),
        group: has("group"),
        mode: has("mode"),
        files: !has("ignore_files"),
        directories: !has("ignore_dirs"),
    }))
}

impl Directory {
    /// What is below the directory and differs: parents first.
    fn below(&self, there: &dyn There, top: &str) -> Result<Vec<(Key, Attrs)>> {
        let Some(recurse) = &self.recurse else { return Ok(Vec::new()) };
        let owner =
            Owner { user: self.owner.user.clone().filter(|_| recurse.user), group: self.owner.group.clone().filter(|_| recurse.group) };
        let mut wants = Vec::new();
        for (path, now) in place::walk(there, top, self.max_depth)? {
            let kind = kind(&now).unwrap_or_default();
            let directory = kind == "directory";
            if !(if directory { recurse.directories } else { recurse.files }) {
                continue;
            }
            let mut wanted = Attrs::new();
            owner.add(there, &now, &mut wanted);
            let mode = if directory { &self.dir_mode } else { &self.file_mode };
            if let Some(mode) = mode.as_ref().filter(|_| recurse.mode && kind != "symlink") {
                wanted.insert("mode".into(), Value::str(mode));
            }
            if wanted.iter().any(|(name, value)| now.get(name) != Some(value)) {
                wanted.insert("kind".into(), Value::str(kind));
                wants.push((key(&path), wanted));
            }
        }
        Ok(wants)
    }
}

/// What `clean` takes away below a directory: everything that neither is kept nor has kept things in it, nor is excluded.
pub fn cleaned(there: &dyn There, top: &str, keep: &BTreeSet<String>, exclude: &[String]) -> Result<Vec<(Key, Attrs)>> {
    let mut with_parents: BTreeSet<&str> = BTreeSet::new();
    for path in keep {
        let mut here = path.as_str();
        while with_parents.insert(here) && here != "/" {
            here = place::parent(here);
        }
    }
    let mut gone: Vec<String> = Vec::new();
    let mut pending = vec![top.to_owned()];
    while let Some(here) = pending.pop() {
        for (name, attrs) in there.list(&here)? {
            let path = place::join(&here, &name);
            let below = path.get(top.len()..).unwrap_or_default().trim_start_matches('/');
            if !with_parents.contains(path.as_str()) && !excluded(below, exclude)? {
                gone.push(path);
            } else if kind(&attrs) == Some("directory") {
                pending.push(path);
            }
        }
    }
    gone.sort();
    Ok(gone.into_iter().map(|path| (key(&path), Attrs::new())).collect())
}

/// What the required file states manage at or below a directory: Salt's rule for `clean`.
pub fn required_paths(there: &dyn There, top: &str) -> Result<BTreeSet<String>> {
    let mut keep = BTreeSet::new();
    for low in there.required().into_iter().filter(|low| low.state == "file" && low.name.starts_with('/')) {
        let path = place::normal(&low.name);
        if !place::within(&path, top) {
            continue;
        }
        if low.fun == "recurse" {
            keep.extend(low.contents.iter().map(|c| place::normal(&place::join(&path, &c.name))));
        } else if path != top {
            // A directory is kept with everything in it.
            keep.extend(place::walk(there, &path, None)?.into_iter().map(|(path, _)| path));
        }
        keep.insert(path);
    }
    Ok(keep)
}

impl Function for Directory {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        let mut keys = place::follow_keys(there, &self.path);
        keys.extend(place::parent_keys(there, &self.path, self.makedirs));
        let top = place::follow(there, &self.path).unwrap_or_else(|_| self.path.clone());
        keys.extend(self.owner.keys(&there.get(&key(&top))));
        if let Some(backup) = &self.backup {
            keys.extend(copied_keys(there, &self.path, backup)?);
        }
        if kind(&there.get(&key(&top))) == Some("directory") {
            if self.recurse.is_some() && self.owner != Owner::default() {
                for (_, now) in place::walk(there, &top, self.max_depth)? {
                    keys.extend(self.owner.keys(&now));
                }
                keys.sort();
                keys.dedup();
            }
            keys.extend(self.below(there, &top)?.into_iter().map(|(key, _)| key));
            if self.clean {
                keys.extend(cleaned(there, &top, &required_paths(there, &self.path)?, &self.exclude)?.into_iter().map(|(key, _)| key));
            }
        }
        Ok(keys)
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        let path = &self.path;
        self.owner.check(there)?;
        let now = there.get(&key(path));
        let end = place::follow(there, path).unwrap_or_else(|_| path.clone());
        let end_kind = there.get(&key(&end));
        let linked = kind(&now) == Some("symlink");
        let is_there = kind(&end_kind) == Some("directory") && !(linked && (self.force || !self.allow_symlink));
        let mut wants = Vec::new();
        if !is_there {
            match (kind(&now), &self.backup) {
                (None, _) => {}
                (Some(_), Some(backup)) => wants.extend(moved(there, path, backup, self.force)?),
                (Some(_), None) if self.force => {}
                (Some(kind), None) => {
                    let hint = "set `force: True` to replace it, or `backupname` to keep it under another name";
                    return Err(failed(format!("{path} is {}, and a directory is to be there", named(kind))).hint(hint).into());
                }
            }
            let mode = self.dir_mode.clone().unwrap_or_else(|| place::NEW_DIRECTORY.to_owned());
            let wanted = self.owner.directory(&mode);
            wants.extend(place::parents(there, path, self.makedirs.then_some(&wanted))?);
            wants.push((key(path), wanted));
            return Ok(Want::Is(wants));
        }
        if !self.children_only {
            // A link to a directory: its own owner counts, unless it is followed.
            let (target, now) = if linked && !self.follow { (path, &now) } else { (&end, &end_kind) };
            let mut wanted = attrs([("kind", kind(now).unwrap_or_default())]);
            self.owner.add(there, now, &mut wanted);
            if let Some(mode) = self.dir_mode.as_ref().filter(|_| kind(now) == Some("directory")) {
                wanted.insert("mode".into(), Value::str(mode));
            }
            wants.push((key(target), wanted));
        }
        if self.clean {
            wants.extend(cleaned(there, &end, &required_paths(there, path)?, &self.exclude)?);
        }
        let gone: BTreeSet<Key> = gathered(wants.iter().filter(|(_, a)| a.is_empty()).map(|(k, _)| k.clone()));
        let going = |path: &str| {
            let mut here = path;
            while here != "/" {
                if gone.contains(&key(here)) {
                    return true;
                }
                here = place::parent(here);
            }
            false
        };
        wants.extend(self.below(there, &end)?.into_iter().filter(|(key, _)| gone.is_empty() || !going(&key.name)));
        if wants.is_empty() {
            return Ok(Want::Nothing(format!("everything below {path} is as described")));
        }
        Ok(Want::Is(wants))
    }
}
