//! file.symlink: a symbolic link with this target.

use super::copy::{copied, copied_keys};
use super::place::{self, Owner, attrs, failed, key, kind, named, text};
use crate::diagnostic::Result;
use crate::function::args::Args;
use crate::function::{Arg, ArgKind, Entry, Function, There, Want};
use crate::plan::{Key, Low};
use crate::value::Attrs;

pub const ENTRY: Entry = Entry {
    name: "file.symlink",
    doc: "A symbolic link with this target. A link that is there may change its target; anything else needs `force` or `backupname`.",
    args: &[
        super::NAME,
        Arg::new("target", ArgKind::Str, "", "Where it points, as it is to stand in the link; required."),
        Arg::new("force", ArgKind::Bool, "False", "Whether a file or directory in its place is removed."),
        Arg::new("backupname", ArgKind::Str, "", "What a file or directory in its place is renamed to: a path or a name beside it."),
        super::MAKEDIRS,
        super::USER,
        super::GROUP,
        super::OWNER,
        Arg::new("mode", ArgKind::Mode, "", "The mode of directories that makedirs makes; links have none."),
        Arg::new("atomic", ArgKind::Bool, "False", "True: also replaces a file. Links are always replaced in one step."),
        Arg::new("inherit_user_and_group", ArgKind::Bool, "False", "Accepted: a link keeps its owner unless user or group say another."),
        Arg::new("disallow_copy_and_unlink", ArgKind::Bool, "False", "Accepted: backups are never half there."),
        Arg::new("follow_symlinks", ArgKind::Bool, "True", "Accepted: the link itself is what counts."),
    ],
    watches: false,
    parse,
};

pub struct Symlink {
    pub path: String,
    pub target: String,
    pub force: bool,
    pub backup: Option<String>,
    /// The mode of directories above it that are to be made; `None`: they must be there.
    pub makedirs: Option<String>,
    pub owner: Owner,
}

fn parse(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let path = place::name(&args)?;
    let Some(target) = args.str("target")?.filter(|t| !t.is_empty()) else {
        return Err(args.error("file.symlink needs a target"));
    };
    let backup = match args.str("backupname")?.filter(|b| !b.is_empty()) {
        None => None,
        Some(name) if name.contains('/') => Some(place::absolute(&args, "backupname", &name)?),
        Some(name) => Some(place::join(place::parent(&path), &name)),
    };
    let mode = args.mode("mode")?.unwrap_or_else(|| place::NEW_DIRECTORY.to_owned());
    Ok(Box::new(Symlink {
        path,
        target,
        force: args.bool("force", false)? || args.bool("atomic", false)?,
        backup,
        makedirs: args.bool("makedirs", false)?.then_some(mode),
        owner: Owner::parse(&args)?,
    }))
}

impl Function for Symlink {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        let now = there.get(&key(&self.path));
        let mut keys = vec![key(&self.path)];
        keys.extend(place::parent_keys(there, &self.path, self.makedirs.is_some()));
        keys.extend(self.owner.keys(&now));
        if let Some(backup) = &self.backup {
            keys.push(key(backup));
            keys.extend(copied_keys(there, &self.path, backup)?);
        }
        Ok(keys)
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        self.wants(there, true)
    }
}

impl Symlink {
    /// `above`: whether missing parents are this state's matter.
    pub fn wants(&self, there: &dyn There, above: bool) -> Result<Want> {
        let path = &self.path;
        self.owner.check(there)?;
        let now = there.get(&key(path));
        let mut wants = Vec::new();
        if above {
            let made = self.makedirs.as_ref().map(|mode| self.owner.directory(mode));
            wants = place::parents(there, path, made.as_ref())?;
        }
        match (kind(&now), &self.backup) {
            (None | Some("symlink"), _) => {}
            (Some(_), Some(backup)) => wants.extend(moved(there, path, backup, self.force)?),
            (Some(_), None) if self.force => {}
            (Some(kind), None) => {
                let hint = "set `force: True` to replace it, or `backupname` to keep it under another name";
                return Err(failed(format!("{path} is {}, and a link is to be there", named(kind))).hint(hint).into());
            }
        }
        let mut wanted = attrs([("kind", "symlink"), ("target", &self.target)]);
        // `/a/./b` and `/a/b` are one target: what is there stays.
        if let Some(target) = text(&now, "target").filter(|t| same_target(t, &self.target)) {
            wanted.insert("target".into(), target.into());
        }
        self.owner.add(there, &now, &mut wanted);
        wants.push((key(path), wanted));
        Ok(Want::Is(wants))
    }
}

/// As Python's `normpath` sees them.
fn same_target(one: &str, other: &str) -> bool {
    one.starts_with('/') == other.starts_with('/') && plain(one) == plain(other)
}

fn plain(target: &str) -> Vec<&str> {
    let mut parts: Vec<&str> = Vec::new();
    for part in target.split('/') {
        match (part, parts.last()) {
            ("" | ".", _) => {}
            ("..", Some(last)) if *last != ".." => drop(parts.pop()),
            (part, _) => parts.push(part),
        }
    }
    parts
}

/// What stands at `from` under the name `to`, all of it. The old place is left to what comes there.
pub fn moved(there: &dyn There, from: &str, to: &str, force: bool) -> Result<Vec<(Key, Attrs)>> {
    if kind(&there.get(&key(to))).is_some() && !force {
        return Err(failed(format!("{to} is there already, and {from} is to be renamed to it"))
            .hint("set `force: True` to replace it")
            .into());
    }
    copied(there, from, to)
}
