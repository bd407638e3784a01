//! file.append, file.prepend: lines at the end or at the start of a file, where they are not in it already.

use super::pattern::{self, Pattern};
use super::place::{self, attrs, key};
use super::text::{self, Found, split_lines};
use crate::diagnostic::Result;
use crate::function::args::Args;
use crate::function::{Arg, ArgKind, Entry, Function, There, Want};
use crate::plan::{Hash, Key, Low};

pub const APPEND: Entry = Entry {
    name: "file.append",
    doc: "Lines at the end of a file, unless they are in it.",
    args: &[
        super::NAME,
        TEXT,
        super::MAKEDIRS,
        SOURCE,
        SOURCES,
        SOURCE_HASH,
        SOURCE_HASHES,
        super::TEMPLATE,
        super::CONTEXT,
        super::DEFAULTS,
        Arg::new(
            "ignore_whitespace",
            ArgKind::Bool,
            "True",
            "Whether other white space is the same text; False takes a text as a regular expression.",
        ),
        super::SHOW_CHANGES,
    ],
    watches: false,
    parse: |low| parse(low, true),
};

pub const PREPEND: Entry = Entry {
    name: "file.prepend",
    doc: "Lines at the start of a file, unless they are in it.",
    args: &[
        super::NAME,
        TEXT,
        super::MAKEDIRS,
        SOURCE,
        SOURCES,
        SOURCE_HASH,
        SOURCE_HASHES,
        super::TEMPLATE,
        super::CONTEXT,
        super::DEFAULTS,
        Arg::new("header", ArgKind::Bool, "False", "Whether the lines are to be the first ones, wherever else they are."),
        super::SHOW_CHANGES,
    ],
    watches: false,
    parse: |low| parse(low, false),
};

const TEXT: Arg = Arg::new("text", ArgKind::Any, "", "The text, or a list of texts; each is looked for as a whole.");
const SOURCE: Arg = Arg::new("source", ArgKind::Str, "", "A file of the state repository (or a download) with the text.");
const SOURCES: Arg = Arg::new("sources", ArgKind::Strs, "", "Several of them.");
const SOURCE_HASH: Arg = Arg::new("source_hash", ArgKind::Any, "", "What a download must hash to.");
const SOURCE_HASHES: Arg = Arg::new("source_hashes", ArgKind::Any, "", "What the downloads of `sources` must hash to.");

struct Extend {
    path: String,
    text: Vec<String>,
    /// Contents that take the place of the text.
    sources: Vec<Hash>,
    makedirs: bool,
    at_end: bool,
    header: bool,
    ignore_whitespace: bool,
}

fn parse(low: &Low, at_end: bool) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let sources = sources(&args)?;
    let text = args.strs("text")?;
    if text.is_empty() && sources.is_empty() {
        return Err(args.error(format!("{} needs a text or a source", low.function())));
    }
    Ok(Box::new(Extend {
        path: place::name(&args)?,
        text,
        sources,
        makedirs: args.bool("makedirs", false)?,
        at_end,
        header: !at_end && args.bool("header", false)?,
        ignore_whitespace: !at_end || args.bool("ignore_whitespace", true)?,
    }))
}

/// The contents of `source` or `sources`, which the controller has rendered.
pub fn sources(args: &Args) -> Result<Vec<Hash>> {
    let named = args.strs("source")?.len() + args.strs("sources")?.len();
    let found: Vec<Hash> =
        args.0.contents.iter().filter(|c| c.name == "source" || c.name.starts_with("sources")).map(|c| c.hash.clone()).collect();
    if found.len() < named {
        return Err(args.error(format!(
            "a source of {} was not found: it is to be in the state repository (salt://…) or a download",
            args.0.function()
        )));
    }
    Ok(found)
}

/// Salt's `build_whitespace_split_regex`: the words in their order with any white space, or none, between them.
fn loose(chunk: &str) -> Result<Pattern> {
    let mut source = String::from("^");
    for line in split_lines(chunk, false) {
        let words: Vec<String> = words(line).iter().map(|w| pattern::escape(w)).collect();
        source.push_str(&format!("(?:[\\s]+)?{}(?:[\\s]+)?", words.join("(?:[\\s]+)?")));
    }
    source.push('$');
    Pattern::new(&source, pattern::MULTILINE)
}

/// Words of a line; where both kinds of quotes are in it, what is in double quotes is one word, as Salt's lexer has it.
fn words(line: &str) -> Vec<String> {
    if !(line.contains('\'') && line.contains('"')) || line.matches('"').count() % 2 == 1 {
        return line.split_whitespace().map(str::to_owned).collect();
    }
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match words.last_mut() {
            Some(word) if quoted || !c.is_whitespace() => word.push(c),
            _ => words.push(String::new()),
        }
        quoted ^= c == '"';
    }
    words.retain(|w| !w.is_empty());
    words
}

impl Extend {
    fn chunks(&self, there: &dyn There) -> Result<Vec<String>> {
        if self.sources.is_empty() {
            return Ok(self.text.clone());
        }
        self.sources.iter().map(|hash| Ok(String::from_utf8_lossy(&there.bytes(hash)?).into_owned())).collect()
    }

    /// The lines that are not in the text yet.
    fn lines(&self, chunks: &[String], old: &str) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for chunk in chunks {
            let known = match self.ignore_whitespace {
                true => loose(chunk)?,
                false => Pattern::new(chunk, pattern::MULTILINE)?,
            };
            if self.header || !known.is_match(old)? {
                lines.extend(split_lines(chunk, false).into_iter().map(str::to_owned));
            }
        }
        if self.header && split_lines(old, false).get(..lines.len()).is_some_and(|head| head == lines.as_slice()) {
            lines.clear();
        }
        Ok(lines)
    }

    fn extended(&self, old: &str, lines: &[String]) -> String {
        if lines.is_empty() {
            return old.to_owned();
        }
        let block: String = lines.iter().map(|line| format!("{line}\n")).collect();
        match self.at_end {
            true if old.is_empty() || old.ends_with('\n') => format!("{old}{block}"),
            true => format!("{old}\n{block}"),
            false => format!("{block}{old}"),
        }
    }
}

impl Function for Extend {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        let mut keys = text::open_keys(there, &self.path);
        keys.extend(place::parent_keys(there, &place::follow(there, &self.path)?, self.makedirs));
        Ok(keys)
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        let chunks = self.chunks(there)?;
        if let Found::Text(file) = text::open(there, &self.path)? {
            let new = self.extended(&file.text, &self.lines(&chunks, &file.text)?);
            return Ok(file.want(there, &new, None));
        }
        // A new file; one that an earlier step may yet bring is planned as if it did not.
        let real = place::follow(there, &self.path)?;
        let made = attrs([("kind", "directory"), ("mode", place::NEW_DIRECTORY)]);
        let mut wants = place::parents(there, &real, self.makedirs.then_some(&made))?;
        let hash = there.put(self.extended("", &self.lines(&chunks, "")?).into_bytes());
        wants.push((key(&real), attrs([("kind", "file"), ("mode", place::NEW_FILE), ("content", &hash.0)])));
        Ok(Want::Is(wants))
    }
}
