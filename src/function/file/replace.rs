//! file.replace: a regular expression's matches replaced, or a line added where there are none.

use super::pattern::{self, Pattern, Template};
use super::text::{self, Backup, Found, near_hint};
use super::{place, text::split_lines};
use crate::diagnostic::{Error, Result};
use crate::function::args::Args;
use crate::function::{Arg, ArgKind, Entry, Function, There, Want};
use crate::plan::{Key, Low};

pub const ENTRY: Entry = Entry {
    name: "file.replace",
    doc: "What a regular expression matches in a file, replaced.",
    args: &[
        super::NAME,
        Arg::new("pattern", ArgKind::Str, "", "The regular expression (Python's); required. ^ and $ are those of lines."),
        Arg::new("repl", ArgKind::Str, "", "What comes in place of a match; \\1 and \\g<name> are groups. Required."),
        Arg::new("count", ArgKind::Int, "0", "At most so many replacements; 0 is all."),
        Arg::new("flags", ArgKind::Any, "8", "Flags of Python's re: names or their sum; 8 is MULTILINE."),
        Arg::new("bufsize", ArgKind::Any, "1", "Accepted: the file is always read as a whole."),
        Arg::new("append_if_not_found", ArgKind::Bool, "False", "Whether repl is added at the end where nothing matches."),
        Arg::new("prepend_if_not_found", ArgKind::Bool, "False", "Whether repl is added at the start where nothing matches."),
        Arg::new("not_found_content", ArgKind::Str, "repl", "What is added where nothing matches."),
        super::BACKUP,
        super::SHOW_CHANGES,
        Arg::new("ignore_if_missing", ArgKind::Bool, "False", "Whether a file that is not there is fine."),
        Arg::new("backslash_literal", ArgKind::Bool, "False", "Whether backslashes in repl are only backslashes."),
        Arg::new("encoding", ArgKind::Str, "", "Accepted: other bytes than UTF-8 stay as they are."),
    ],
    watches: false,
    parse,
};

struct Replace {
    path: String,
    pattern: Pattern,
    template: Template,
    count: usize,
    /// What is added where nothing matches, and how it is recognised; at the start or at the end.
    otherwise: Option<(String, Pattern, bool)>,
    backup: Option<Backup>,
    ignore_missing: bool,
}

fn parse(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let path = place::name(&args)?;
    let (Some(source), Some(repl)) = (args.str("pattern")?, args.str("repl")?) else {
        return Err(args.error("file.replace needs a pattern and a repl"));
    };
    let flags = args.value("flags").map(pattern::flags).transpose()?.unwrap_or(pattern::MULTILINE);
    let at_state = |e: Error| match &low.span {
        Some(span) => Error::from((*e).or_at(span.clone())),
        None => e,
    };
    let pattern = Pattern::new(&source, flags).map_err(at_state)?;
    let template =
        if args.bool("backslash_literal", false)? { Template::literal(&repl) } else { Template::new(&repl, &pattern).map_err(at_state)? };
    let (append, prepend) = (args.bool("append_if_not_found", false)?, args.bool("prepend_if_not_found", false)?);
    if append && prepend {
        return Err(args.error("only one of append_if_not_found and prepend_if_not_found can be True"));
    }
    let otherwise = if append || prepend {
        let given = args.str("not_found_content")?;
        let known = given.as_ref().filter(|g| !g.is_empty()).unwrap_or(&repl);
        let known = Pattern::new(&format!("^{}($|(?=\\r\\n))", pattern::escape(known)), flags)?;
        Some((given.unwrap_or_else(|| repl.clone()), known, prepend))
    } else {
        None
    };
    let count = usize::try_from(args.int("count")?.unwrap_or(0)).map_err(|_| args.error("count is to be 0 or more"))?;
    let backup = Backup::parse(&args, &path)?;
    Ok(Box::new(Replace { path, pattern, template, count, otherwise, backup, ignore_missing: args.bool("ignore_if_missing", false)? }))
}

impl Function for Replace {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        text::edit_keys(there, &self.path, self.backup.as_ref())
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        let file = match text::open(there, &self.path)? {
            Found::Text(file) => file,
            Found::Absent if self.ignore_missing => return Ok(Want::Nothing(format!("{} is not there, and need not be", self.path))),
            other => return text::missing(&other, &self.path),
        };
        let (mut new, replaced) = self.pattern.replace(&file.text, &self.template, self.count)?;
        if let Some((addition, known, at_start)) = &self.otherwise
            && replaced == 0
            && !known.is_match(&file.text)?
        {
            if *at_start {
                new = format!("{addition}\n{new}");
            } else {
                // As Salt does, by Python's idea of lines.
                if split_lines(&new, true).last().is_some_and(|last| !last.ends_with('\n')) {
                    new.push('\n');
                }
                new.push_str(addition);
                new.push('\n');
            }
        }
        if new == file.text && replaced == 0 && self.otherwise.is_none() {
            return Ok(Want::Nothing(format!("the pattern matches nothing; {}", near_hint(&file.text, self.pattern.source()))));
        }
        Ok(file.want(there, &new, self.backup.as_ref()))
    }
}
