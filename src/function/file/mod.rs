//! file.*: what files, directories and links are to be like. One file per function or small group; `place` and `text` are what they
//! share (and with them all states that edit text files, see `edit`), `pattern` is Python's regular expressions.

mod absent;
mod accumulated;
mod append;
mod blockreplace;
mod comment;
mod copy;
pub(super) mod directory;
#[cfg(test)]
pub(super) mod double;
mod keyvalue;
mod line;
mod managed;
pub(super) mod pattern;
pub(super) mod place;
mod recurse;
mod replace;
mod select;
mod serialize;
mod symlink;
#[cfg(test)]
mod tests;
pub(super) mod text;
mod touch;

use super::{Arg, ArgKind, Entry};

/// All of them, by name.
#[rustfmt::skip]
pub const FUNCTIONS: &[Entry] = &[
    absent::ABSENT,
    accumulated::ENTRY,
    append::APPEND,
    blockreplace::ENTRY,
    comment::COMMENT,
    copy::COPY,
    directory::ENTRY,
    absent::EXISTS,
    keyvalue::ENTRY,
    line::ENTRY,
    managed::ENTRY,
    absent::MISSING,
    append::PREPEND,
    recurse::ENTRY,
    copy::RENAME,
    replace::ENTRY,
    serialize::ENTRY,
    symlink::ENTRY,
    touch::ENTRY,
    comment::UNCOMMENT,
];

// Arguments that several functions take.
const NAME: Arg = Arg::new("name", ArgKind::Str, "the state's id", "The path, absolute.");
const USER: Arg = Arg::new("user", ArgKind::Str, "", "Who owns it; by default nobody in particular, root for what is new.");
const GROUP: Arg = Arg::new("group", ArgKind::Str, "", "The group that owns it.");
const OWNER: Arg = Arg::new("owner", ArgKind::Str, "", "Accepted for `user`.");
const MAKEDIRS: Arg = Arg::new("makedirs", ArgKind::Bool, "False", "Whether missing directories above it are made.");
const TEMPLATE: Arg = Arg::new("template", ArgKind::Str, "", "How the source is rendered: jinja.");
const CONTEXT: Arg = Arg::new("context", ArgKind::Map, "", "Variables of the template.");
const DEFAULTS: Arg = Arg::new("defaults", ArgKind::Map, "", "Variables of the template where the context has none.");
const SHOW_CHANGES: Arg = Arg::new("show_changes", ArgKind::Bool, "True", "False: that it changes is said, not how.");
const BACKUP: Arg = Arg::new("backup", ArgKind::Any, ".bak", "The ending of a copy of the old file beside it; False for none.");
