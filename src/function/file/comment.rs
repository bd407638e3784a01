//! file.comment, file.uncomment: lines that a regular expression matches, put behind a comment character or taken out from behind it.

use super::pattern::{self, Pattern};
use super::place::{self, failed};
use super::text::{self, Backup, Found, file_lines, near_hint};
use crate::diagnostic::Result;
use crate::function::args::Args;
use crate::function::{Arg, ArgKind, Entry, Function, There, Want};
use crate::plan::{Key, Low};

pub const COMMENT: Entry = Entry {
    name: "file.comment",
    doc: "Lines that a regular expression matches, commented out.",
    args: &[
        super::NAME,
        REGEX,
        CHAR,
        super::BACKUP,
        Arg::new("ignore_missing", ArgKind::Bool, "False", "Whether it is fine that no line matches."),
    ],
    watches: false,
    parse: |low| parse(low, true),
};

pub const UNCOMMENT: Entry = Entry {
    name: "file.uncomment",
    doc: "Commented lines that a regular expression matches, commented no more.",
    args: &[super::NAME, REGEX, CHAR, super::BACKUP],
    watches: false,
    parse: |low| parse(low, false),
};

const REGEX: Arg = Arg::new(
    "regex",
    ArgKind::Str,
    "",
    "What the line is like, without the comment character; required. With ^ in front, or it is commented again each time.",
);
const CHAR: Arg = Arg::new("char", ArgKind::Str, "#", "The comment character or characters.");

struct Comment {
    path: String,
    char: String,
    regex: String,
    comment: bool,
    ignore_missing: bool,
    backup: Option<Backup>,
    /// A line that is to be edited is in the file.
    todo: Pattern,
    /// A line that has been edited is in the file.
    done: Pattern,
    /// The lines to edit.
    line: Pattern,
}

fn parse(low: &Low, comment: bool) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let path = place::name(&args)?;
    let Some(regex) = args.str("regex")?.filter(|r| !r.is_empty()) else {
        return Err(args.error(format!("{} needs a regex", low.function())));
    };
    let char = args.str("char")?.filter(|c| !c.is_empty()).unwrap_or_else(|| "#".into());
    let lines = |source: String| Pattern::new(&source, pattern::MULTILINE);
    let start = if regex.starts_with('^') { "^" } else { "" };
    let stop = if regex.ends_with('$') { "$" } else { "" };
    let core = regex.trim_start_matches('^').trim_end_matches('$');
    // The expressions are Salt's, so that the same lines count.
    let (todo, done, line) = if comment {
        let plain = unanchored(&regex);
        (
            lines(format!("^(?!\\s*{char})\\s*{plain}"))?,
            lines(format!("{char}{plain}"))?,
            Pattern::new(&format!("{start}({core}){stop}"), 0)?,
        )
    } else {
        let plain = regex.trim_start_matches('^');
        (
            lines(format!("{char}[ \\t]*{plain}"))?,
            lines(format!("^[ \\t]*{plain}"))?,
            Pattern::new(&format!("^{char}\\s*({core}){stop}"), 0)?,
        )
    };
    let backup = Backup::parse(&args, &path)?;
    Ok(Box::new(Comment { path, char, regex, comment, ignore_missing: args.bool("ignore_missing", false)?, backup, todo, done, line }))
}

/// Without a flag group in front and without anchors.
fn unanchored(regex: &str) -> &str {
    let flags = ["(?i)", "(?L)", "(?m)", "(?s)", "(?u)", "(?x)"];
    let rest = flags.iter().find_map(|f| regex.strip_prefix(f)).unwrap_or(regex);
    let rest = rest.strip_prefix('^').unwrap_or(rest);
    rest.strip_suffix('$').unwrap_or(rest)
}

impl Function for Comment {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        text::edit_keys(there, &self.path, self.backup.as_ref())
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        let file = match text::open(there, &self.path)? {
            Found::Text(file) => file,
            other => return text::missing(&other, &self.path),
        };
        let word = if self.comment { "commented" } else { "uncommented" };
        if !self.todo.is_match(&file.text)? {
            if self.done.is_match(&file.text)? {
                return Ok(Want::Nothing(format!("{} is {word} already", self.regex)));
            }
            if self.ignore_missing {
                return Ok(Want::Nothing(format!("no line of {} matches {}, and none has to", self.path, self.regex)));
            }
            return Err(failed(format!("no line of {} matches {}", self.path, self.regex)).hint(near_hint(&file.text, &self.regex)).into());
        }
        let mut new = String::with_capacity(file.text.len() + 16);
        for line in file_lines(&file.text) {
            match (self.line.matches_at_start(line)?, self.comment) {
                (true, true) => new.push_str(&format!("{}{line}", self.char)),
                (true, false) => new.push_str(line.trim_start_matches(|c| self.char.contains(c))),
                (false, _) => new.push_str(line),
            }
        }
        if !self.done.is_match(&new)? {
            let hint = "white space before it, or another comment character in front: match from the start of the line";
            return Err(failed(format!("the lines of {} that match {} cannot be {word}", self.path, self.regex)).hint(hint).into());
        }
        Ok(file.want(there, &new, self.backup.as_ref()))
    }
}
