//! file.line: one line of a file, found by what it is like or by its neighbours: ensured, replaced, inserted or deleted.

use super::managed::{Managed, Mode, What};
use super::pattern::{self, Pattern};
use super::place::{self, Owner, failed, key, kind};
use super::text::{self, Found, file_lines, near_hint};
use crate::diagnostic::{Error, Result};
use crate::function::args::Args;
use crate::function::{Arg, ArgKind, Entry, Function, There, Want};
use crate::plan::{Key, Low};

pub const ENTRY: Entry = Entry {
    name: "file.line",
    doc: "One line of a file: ensured between its neighbours, replaced, inserted or deleted.",
    args: &[
        super::NAME,
        Arg::new("content", ArgKind::Str, "", "The line; needed unless the mode is delete."),
        Arg::new("match", ArgKind::Str, "content", "What the line to replace or delete is like: a regular expression or a part of it."),
        Arg::new("mode", ArgKind::Str, "", "ensure, replace, insert or delete; required."),
        Arg::new("location", ArgKind::Str, "", "Where to insert: start or end."),
        Arg::new("before", ArgKind::Str, "", "What the line after it is like."),
        Arg::new("after", ArgKind::Str, "", "What the line before it is like."),
        Arg::new("indent", ArgKind::Bool, "True", "Whether the line takes its neighbour's indentation."),
        Arg::new("create", ArgKind::Bool, "False", "Whether a file that is not there is made."),
        super::USER,
        super::GROUP,
        Arg::new("file_mode", ArgKind::Mode, "", "The mode of the file."),
        Arg::new("backup", ArgKind::Bool, "False", "Whether a copy of the old file stays beside it, named for what is in it."),
        Arg::new("quiet", ArgKind::Bool, "False", "Accepted: a file that is not there is an error, as in Salt."),
        super::SHOW_CHANGES,
    ],
    watches: false,
    parse,
};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Action {
    Ensure,
    Replace,
    Insert,
    Delete,
}

struct Line {
    /// The file as such: made, owned.
    file: Managed,
    action: Action,
    content: String,
    matching: Option<Like>,
    location: Option<bool>,
    before: Option<Like>,
    after: Option<Like>,
    indent: bool,
    backup: bool,
}

/// What a line is like: a regular expression, or simply in it.
struct Like {
    what: &'static str,
    source: String,
    pattern: Pattern,
}

fn parse(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let action = match args.str("mode")?.map(|m| m.to_lowercase()).as_deref() {
        Some("ensure") => Action::Ensure,
        Some("replace") => Action::Replace,
        Some("insert") => Action::Insert,
        Some("delete") => Action::Delete,
        None => return Err(args.error("file.line needs a mode: ensure, replace, insert or delete")),
        Some(other) => return Err(args.error(format!("mode of file.line is ensure, replace, insert or delete, not {other}"))),
    };
    let content = args.str("content")?;
    if content.is_none() && action != Action::Delete {
        return Err(args.error("file.line needs the content of the line; only delete can do without"));
    }
    let content = content.unwrap_or_default();
    let like = |what: &'static str| -> Result<Option<Like>> {
        let Some(source) = args.str(what)?.filter(|s| !s.is_empty()) else { return Ok(None) };
        Like::new(what, source).map(Some)
    };
    let (before, after) = (like("before")?, like("after")?);
    let matching = match like("match")? {
        // Without anything else, the line itself is looked for; as in Salt, it may be a pattern.
        None if before.is_none() && after.is_none() && !content.is_empty() => Some(Like::new("content", content.clone())?),
        given => given,
    };
    let location = match args.str("location")?.as_deref() {
        None | Some("") => None,
        Some("start") => Some(true),
        Some("end") => Some(false),
        Some(other) => return Err(args.error(format!("location of file.line is start or end, not {other}"))),
    };
    if action == Action::Insert && location.is_none() && before.is_none() && after.is_none() {
        return Err(args.error("mode insert needs a location, before or after"));
    }
    if action == Action::Ensure && before.is_none() && after.is_none() {
        return Err(args.error("mode ensure needs before or after"));
    }
    let create = args.bool("create", false)?;
    Ok(Box::new(Line {
        file: Managed {
            path: place::name(&args)?,
            what: What::Anything,
            mode: args.mode("file_mode")?.map_or(Mode::Any, Mode::Is),
            owner: Owner::parse(&args)?,
            makedirs: None,
            replace: false,
            create,
            follow: true,
            backup: false,
        },
        action,
        content,
        matching,
        location,
        before,
        after,
        indent: args.bool("indent", true)?,
        backup: args.bool("backup", false)?,
    }))
}

impl Like {
    fn new(what: &'static str, source: String) -> Result<Like> {
        // The content itself need not be a pattern.
        let pattern = Pattern::new(&source, pattern::DOTALL).or_else(|e| match what {
            "content" => Pattern::new(&pattern::escape(&source), pattern::DOTALL),
            _ => Err(e),
        })?;
        Ok(Like { what, source, pattern })
    }

    /// The lines that are like it, by their number.
    fn find(&self, lines: &[String]) -> Result<Vec<usize>> {
        let mut found = Vec::new();
        for (number, line) in lines.iter().enumerate() {
            if line.contains(&self.source) || self.pattern.is_match(&line.replace("\r\n", "\n"))? {
                found.push(number);
            }
        }
        Ok(found)
    }

    /// The one line that is like it.
    fn one(&self, lines: &[String], path: &str) -> Result<usize> {
        let found = self.find(lines)?;
        match found.as_slice() {
            [one] => Ok(*one),
            [] => Err(Like::error(
                format!("no line of {path} is like {} ({})", self.what, self.source),
                near_hint(&lines.concat(), &self.source),
            )),
            many => {
                let numbers: Vec<String> = many.iter().take(5).map(|n| (n + 1).to_string()).collect();
                let summary = format!("{} lines of {path} are like {} ({})", many.len(), self.what, self.source);
                Err(Like::error(summary, format!("lines {}: let the pattern say which", numbers.join(", "))))
            }
        }
    }

    fn error(summary: String, hint: String) -> Error {
        failed(summary).hint(hint).into()
    }
}

/// The line without its end.
fn bare(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

/// How a line ends.
fn end(line: &str) -> &str {
    line.get(bare(line).len()..).unwrap_or_default()
}

impl Line {
    /// The content with a neighbour's indentation.
    fn indented(&self, neighbour: &str) -> String {
        if !self.indent {
            return self.content.clone();
        }
        let indent: String = neighbour.chars().take_while(|c| matches!(c, ' ' | '\t')).collect();
        format!("{indent}{}", self.content.trim_start())
    }

    /// Whether a line is the content already. Where it takes its neighbour's indentation, Salt would not know it again and add another.
    fn is_content(&self, line: Option<&String>) -> bool {
        line.is_some_and(|line| match self.indent {
            true => bare(line).trim_start() == bare(&self.content).trim_start(),
            false => bare(line) == bare(&self.content),
        })
    }

    /// The lines afterwards. Salt's rules to the letter: an empty last line stands for a file that ends in a line break.
    fn edited(&self, text: &str) -> Result<String> {
        let path = &self.file.path;
        let mut lines: Vec<String> = file_lines(text).into_iter().map(str::to_owned).collect();
        if lines.last().is_some_and(|last| !end(last).is_empty()) {
            lines.push(String::new());
        }
        let at = |lines: &[String], number: usize| lines.get(number).cloned().unwrap_or_default();
        match self.action {
            Action::Delete | Action::Replace => {
                let found = self.matching.as_ref().map(|m| m.find(&lines)).transpose()?.unwrap_or_default();
                if let Some(first) = found.first() {
                    let first_line = at(&lines, *first);
                    if self.action == Action::Delete {
                        lines.retain(|line| *line != first_line);
                    } else if let Some(line) = lines.get_mut(*first) {
                        *line = self.indented(&first_line);
                    }
                }
            }
            Action::Insert => match (self.location, &self.before, &self.after) {
                (Some(true), ..) => {
                    let ending = lines.first().map(|l| end(l)).filter(|e| !e.is_empty()).unwrap_or("\n").to_owned();
                    let text = if lines.is_empty() { &self.content } else { self.content.trim_end() };
                    lines.insert(0, format!("{text}{ending}"));
                }
                (Some(false), ..) => lines.push(lines.last().map_or_else(|| self.content.clone(), |last| self.indented(last))),
                (None, Some(before), Some(after)) => {
                    let last = before.one(&lines, path)?;
                    after.one(&lines, path)?;
                    lines.insert(last, self.indented(&at(&lines, last)));
                }
                (None, None, Some(after)) => {
                    let number = after.one(&lines, path)?;
                    if !self.is_content(lines.get(number + 1)) {
                        lines.insert(number + 1, self.indented(&at(&lines, number)));
                    }
                }
                (None, Some(before), None) => {
                    let number = before.one(&lines, path)?;
                    if !self.is_content(lines.get(previous(number, lines.len()))) {
                        lines.insert(number, self.indented(&at(&lines, number)));
                    }
                }
                (None, None, None) => {}
            },
            Action::Ensure => match (&self.before, &self.after) {
                (Some(before), Some(after)) => {
                    let (first, last) = (after.one(&lines, path)?, before.one(&lines, path)?);
                    if !lines.iter().any(|line| line.trim_start() == self.content) {
                        match last.checked_sub(first) {
                            Some(1) => lines.insert(last, self.indented(&at(&lines, first))),
                            Some(2) => {
                                let neighbour = at(&lines, first);
                                if let Some(line) = lines.get_mut(first + 1) {
                                    *line = self.indented(&neighbour);
                                }
                            }
                            _ => {
                                let summary = format!(
                                    "lines {} and {} of {path} have more than one line between them, or are the wrong way round",
                                    first + 1,
                                    last + 1
                                );
                                return Err(failed(summary)
                                    .hint("mode ensure knows the place only between neighbours; use insert, or nearer before and after")
                                    .into());
                            }
                        }
                    }
                }
                (Some(before), None) => {
                    let number = before.one(&lines, path)?;
                    let above = previous(number, lines.len());
                    if number == 0 || !self.is_content(lines.get(above)) {
                        lines.insert(number, self.indented(&at(&lines, above)));
                    }
                }
                (None, Some(after)) => {
                    let number = after.one(&lines, path)?;
                    if !self.is_content(lines.get(number + 1)) {
                        lines.insert(number + 1, self.indented(&at(&lines, number)));
                    }
                }
                (None, None) => {}
            },
        }
        // A line without an end gets that of its neighbours.
        let ending = lines.iter().map(|line| end(line)).find(|e| !e.is_empty()).unwrap_or("\n").to_owned();
        let last = lines.len().saturating_sub(1);
        for line in lines.iter_mut().take(last).filter(|line| end(line).is_empty()) {
            *line = format!("{}{ending}", line.trim_end());
        }
        Ok(lines.concat())
    }
}

/// The line before; that of the first is the last one, as Python counts.
fn previous(number: usize, length: usize) -> usize {
    number.checked_sub(1).unwrap_or(length.saturating_sub(1))
}

impl Function for Line {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        let mut keys = self.file.keys(there)?;
        if self.backup
            && let Some(copy) = self.copy(there)?
        {
            keys.push(key(&copy));
        }
        Ok(keys)
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        let path = &self.file.path;
        let (text, mut wants) = match text::open(there, path)? {
            Found::Text(file) => {
                let base = self.file.wants(there, false)?;
                (Some(file), base)
            }
            Found::Absent if self.file.create => (None, self.file.wants(there, true)?),
            other => return text::missing(&other, path),
        };
        let old = text.as_ref().map(|f| f.text.as_str()).unwrap_or_default();
        let new = self.edited(old)?;
        let Want::Is(list) = &mut wants else { return Ok(wants) };
        let content = match &text {
            Some(file) if new != *old => match file.want(there, &new, None) {
                Want::Is(mut edited) => edited.pop().and_then(|(_, attrs)| attrs.get("content").cloned()),
                _ => None,
            },
            Some(_) => None,
            None => Some(there.put(new.clone().into_bytes()).0.into()),
        };
        if let (Some(content), Some((_, wanted))) = (content, list.last_mut()) {
            wanted.insert("content".into(), content);
            if let (true, Some(file), Some(copy)) = (self.backup, &text, self.copy(there)?) {
                list.insert(0, (key(&copy), text::copy_of(&file.attrs)));
            }
        }
        Ok(wants)
    }
}

impl Line {
    /// Salt names the copy for the time; this one is named for what is in it, so that plan and apply agree.
    fn copy(&self, there: &dyn There) -> Result<Option<String>> {
        let real = place::follow(there, &self.file.path)?;
        let now = there.get(&key(&real));
        let hash = place::text(&now, "content").filter(|_| kind(&now) == Some("file"));
        Ok(hash.and_then(|h| h.get(..12)).map(|h| format!("{real}.{h}")))
    }
}
