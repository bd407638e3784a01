//! file.blockreplace: what stands between two marker lines of a file.

use super::append::sources;
use super::pattern::Pattern;
use super::place::{self, failed};
use super::text::{self, Backup, Found, file_lines, near_hint};
use crate::diagnostic::Result;
use crate::function::args::Args;
use crate::function::{Arg, ArgKind, Entry, Function, There, Want};
use crate::plan::{Hash, Key, Low};

pub const ENTRY: Entry = Entry {
    name: "file.blockreplace",
    doc: "What stands between two marker lines of a file.",
    args: &[
        super::NAME,
        Arg::new("marker_start", ArgKind::Str, "#-- start managed zone --", "What the line before the block has in it."),
        Arg::new("marker_end", ArgKind::Str, "#-- end managed zone --", "What the line after the block has in it."),
        Arg::new("content", ArgKind::Str, "", "The block."),
        Arg::new("source", ArgKind::Str, "", "A file of the state repository (or a download) that is added to the content."),
        Arg::new("sources", ArgKind::Strs, "", "Several of them."),
        Arg::new("source_hash", ArgKind::Any, "", "What a download must hash to."),
        Arg::new("source_hashes", ArgKind::Any, "", "What the downloads of `sources` must hash to."),
        super::TEMPLATE,
        super::CONTEXT,
        super::DEFAULTS,
        Arg::new("append_if_not_found", ArgKind::Bool, "False", "Whether markers and block are added at the end where they are not there."),
        Arg::new("prepend_if_not_found", ArgKind::Bool, "False", "Whether they are added at the start."),
        Arg::new("insert_before_match", ArgKind::Str, "", "A regular expression: they are added before the first line that it matches."),
        Arg::new("insert_after_match", ArgKind::Str, "", "They are added after it."),
        Arg::new(
            "append_newline",
            ArgKind::Bool,
            "",
            "Whether a line break stands between block and end marker; by default where the block has none.",
        ),
        super::BACKUP,
        super::SHOW_CHANGES,
    ],
    watches: false,
    parse,
};

struct Block {
    path: String,
    start: String,
    end: String,
    content: String,
    sources: Vec<Hash>,
    otherwise: Otherwise,
    append_newline: Option<bool>,
    backup: Option<Backup>,
}

/// What to do where the markers are not there.
enum Otherwise {
    Fail,
    Append,
    Prepend,
    Before(Pattern),
    After(Pattern),
}

fn parse(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let path = place::name(&args)?;
    let mut otherwise = Vec::new();
    if args.bool("append_if_not_found", false)? {
        otherwise.push(Otherwise::Append);
    }
    if args.bool("prepend_if_not_found", false)? {
        otherwise.push(Otherwise::Prepend);
    }
    if let Some(regex) = args.str("insert_before_match")?.filter(|r| !r.is_empty()) {
        otherwise.push(Otherwise::Before(Pattern::new(&regex, 0)?));
    }
    if let Some(regex) = args.str("insert_after_match")?.filter(|r| !r.is_empty()) {
        otherwise.push(Otherwise::After(Pattern::new(&regex, 0)?));
    }
    if otherwise.len() > 1 {
        return Err(
            args.error("only one of append_if_not_found, prepend_if_not_found, insert_before_match and insert_after_match can be used")
        );
    }
    let marker = |name: &str, default: &str| {
        Ok::<_, crate::diagnostic::Error>(args.str(name)?.filter(|m| !m.is_empty()).unwrap_or_else(|| default.to_owned()))
    };
    Ok(Box::new(Block {
        start: marker("marker_start", "#-- start managed zone --")?,
        end: marker("marker_end", "#-- end managed zone --")?,
        content: args.str("content")?.unwrap_or_default(),
        sources: sources(&args)?,
        otherwise: otherwise.pop().unwrap_or(Otherwise::Fail),
        append_newline: match args.value("append_newline") {
            None => None,
            Some(_) => Some(args.bool("append_newline", false)?),
        },
        backup: Backup::parse(&args, &path)?,
        path,
    }))
}

impl Block {
    /// The block's lines and the end marker's. `end`: the marker with what follows it on its line.
    fn lines(&self, content: &str, linesep: &str, end: &str) -> Vec<String> {
        let newline = self.append_newline.unwrap_or(!content.ends_with('\n'));
        let end = format!("{}{linesep}", end.trim_end_matches(['\r', '\n']));
        let unix = content.replace("\r\n", "\n");
        let mut lines: Vec<String> = unix.split('\n').map(|line| format!("{line}{linesep}")).collect();
        if newline {
            lines.push(end);
        } else if let Some(last) = lines.last_mut() {
            *last = format!("{}{end}", last.strip_suffix(linesep).unwrap_or(last));
        }
        lines
    }

    fn edited(&self, text: &str, content: &str) -> Result<String> {
        let old = file_lines(text);
        let linesep = if old.first().is_some_and(|line| line.ends_with("\r\n")) { "\r\n" } else { "\n" };
        let mut new: Vec<String> = Vec::new();
        let (mut inside, mut found) = (None, false);
        for (number, line) in (1usize..).zip(&old) {
            if line.contains(&self.start) {
                inside = Some(number);
            } else if inside.is_some() {
                if let Some(at) = line.find(&self.end) {
                    inside = None;
                    found = true;
                    new.extend(self.lines(content, linesep, line.get(at..).unwrap_or_default()));
                }
                continue;
            }
            new.push((*line).to_owned());
        }
        if let Some(number) = inside {
            let summary = format!("the block of {} that starts in line {number} has no end ({})", self.path, self.end);
            return Err(failed(summary).hint(near_hint(text, &self.end)).into());
        }
        if found {
            return Ok(new.concat());
        }
        let mut block = vec![format!("{}{linesep}", self.start)];
        block.extend(self.lines(content, linesep, &self.end));
        let first = |pattern: &Pattern| -> Result<Option<usize>> {
            for (number, line) in old.iter().enumerate() {
                if pattern.is_match(line)? {
                    return Ok(Some(number));
                }
            }
            Ok(None)
        };
        let at = match &self.otherwise {
            Otherwise::Prepend => Some(0),
            Otherwise::Append => {
                if let Some(last) = new.last_mut().filter(|last| !last.ends_with(linesep)) {
                    last.push_str(linesep);
                }
                Some(new.len())
            }
            Otherwise::Before(pattern) => first(pattern)?,
            Otherwise::After(pattern) => first(pattern)?.map(|number| number + 1),
            Otherwise::Fail => None,
        };
        match (at, &self.otherwise) {
            (Some(at), _) => {
                new.splice(at..at, block);
                Ok(new.concat())
            }
            (None, Otherwise::Before(pattern) | Otherwise::After(pattern)) => {
                let summary = format!("{} has neither the markers nor a line that matches {}", self.path, pattern.source());
                Err(failed(summary).hint(near_hint(text, pattern.source())).into())
            }
            (None, _) => {
                let summary = format!("the markers are not in {}", self.path);
                Err(failed(summary).hint("add them, or set append_if_not_found or prepend_if_not_found").into())
            }
        }
    }
}

impl Function for Block {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        text::edit_keys(there, &self.path, self.backup.as_ref())
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        let file = match text::open(there, &self.path)? {
            Found::Text(file) => file,
            other => return text::missing(&other, &self.path),
        };
        let mut content = self.content.clone();
        for hash in &self.sources {
            content.push_str(&String::from_utf8_lossy(&there.bytes(hash)?));
        }
        Ok(file.want(there, &self.edited(&file.text, &content)?, self.backup.as_ref()))
    }
}
