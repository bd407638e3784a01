//! Text as Python sees it, and the editing of a file that is there: what append, line, replace and their like share.

use std::borrow::Cow;

use super::place::{self, attrs, failed, key, kind, named, text};
use crate::diagnostic::Result;
use crate::function::args::Args;
use crate::function::{There, Want};
use crate::plan::{Hash, Key};
use crate::value::{Attrs, Value, those};

/// Python's `str.splitlines`: also at form feeds, `\x1c` … and Unicode's separators.
pub fn split_lines(text: &str, keep_ends: bool) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut start = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if !matches!(c, '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}') {
            continue;
        }
        let mut end = at + c.len_utf8();
        if c == '\r' && chars.next_if(|(_, next)| *next == '\n').is_some() {
            end += 1;
        }
        lines.extend(text.get(start..if keep_ends { end } else { at }));
        start = end;
    }
    lines.extend(text.get(start..).filter(|rest| !rest.is_empty()));
    lines
}

/// Lines with their ends, split at `\n` only, as files are read.
pub fn file_lines(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}

/// Bytes that are no UTF-8 travel through the editing as these characters of a private plane (byte 0x80 is the first).
const FOREIGN: u32 = 0x10FF00;

fn decode(bytes: &[u8]) -> (String, bool) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return (text.to_owned(), false);
    }
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(chunk.invalid().iter().filter_map(|b| char::from_u32(FOREIGN + u32::from(*b))));
    }
    (out, true)
}

fn encode(text: &str, foreign: bool) -> Vec<u8> {
    if !foreign {
        return text.as_bytes().to_vec();
    }
    let mut out = Vec::with_capacity(text.len());
    for c in text.chars() {
        match u32::from(c).checked_sub(FOREIGN).and_then(|b| u8::try_from(b).ok()) {
            Some(byte) => out.push(byte),
            None => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out
}

/// A text file of the host, opened for editing.
pub struct Opened {
    /// Where it really is.
    pub path: String,
    pub attrs: Attrs,
    pub text: String,
    foreign: bool,
}

/// What there was to open.
pub enum Found {
    Text(Opened),
    Absent,
    /// Absent, but some earlier step may bring it.
    Unknown,
}

/// The keys that `open` looks at.
pub fn open_keys(there: &dyn There, path: &str) -> Vec<Key> {
    place::follow_keys(there, path)
}

/// The keys of an edit: the file, and the copy of the old one.
pub fn edit_keys(there: &dyn There, path: &str, backup: Option<&Backup>) -> Result<Vec<Key>> {
    let mut keys = open_keys(there, path);
    if let Some(backup) = backup {
        keys.extend(backup.keys(there)?);
    }
    Ok(keys)
}

/// The text file at a path, links followed.
pub fn open(there: &dyn There, path: &str) -> Result<Found> {
    let real = place::follow(there, path)?;
    let attrs = there.get(&key(&real));
    match kind(&attrs) {
        None if there.uncertain() => return Ok(Found::Unknown),
        None => return Ok(Found::Absent),
        Some("file") => {}
        Some(other) => return Err(failed(format!("{real} is {}, not a text file", named(other))).into()),
    }
    let hash = Hash(self::text(&attrs, "content").unwrap_or_default().to_owned());
    let bytes = there.bytes(&hash)?;
    if bytes.iter().take(512).any(|b| *b == 0) {
        return Err(failed(format!("{real} is a binary file: its text cannot be edited"))
            .hint("use file.managed to replace it as a whole")
            .into());
    }
    let (text, foreign) = decode(&bytes);
    Ok(Found::Text(Opened { path: real, attrs, text, foreign }))
}

/// The error or answer for a file that has to be there and is not.
pub fn missing(found: &Found, path: &str) -> Result<Want> {
    match found {
        Found::Unknown => Ok(Want::Unknown(format!("{path} is not there yet"))),
        _ => {
            Err(failed(format!("{path}: file not found")).hint("a file.managed or package before it can bring the file; require it").into())
        }
    }
}

impl Opened {
    /// The file with this text; nothing where it has it already.
    pub fn want(&self, there: &dyn There, new: &str, backup: Option<&Backup>) -> Want {
        if new == self.text {
            return Want::Nothing("No changes needed to be made".into());
        }
        let mut wants = backup.map(|b| b.wants(self)).unwrap_or_default();
        let hash = there.put(encode(new, self.foreign));
        wants.push((key(&self.path), attrs([("kind", "file"), ("content", &hash.0)])));
        Want::Is(wants)
    }
}

/// A copy of the old file beside it: `.bak` and the like. Where the path is a link, so is its backup.
#[derive(Clone, Debug)]
pub struct Backup {
    path: String,
    ending: String,
}

impl Backup {
    /// The argument `backup` of the editing functions; `.bak` where it is not given.
    pub fn parse(args: &Args, path: &str) -> Result<Option<Backup>> {
        let ending: Cow<str> = match args.0.args.get("backup") {
            None => ".bak".into(),
            Some(Value::Str(s)) if !s.is_empty() && !s.contains('/') => s.as_str().into(),
            Some(Value::Bool(true)) => return Err(args.error("backup is the ending of the copy's name (`.bak`), or False")),
            Some(value) if !value.truthy() => return Ok(None),
            Some(other) => return Err(args.error(format!("backup is the ending of the copy's name, found {other}"))),
        };
        Ok(Some(Backup { path: path.to_owned(), ending: ending.into_owned() }))
    }

    pub fn keys(&self, there: &dyn There) -> Result<Vec<Key>> {
        let real = place::follow(there, &self.path)?;
        Ok(vec![key(&format!("{real}{}", self.ending)), key(&format!("{}{}", self.path, self.ending))])
    }

    fn wants(&self, file: &Opened) -> Vec<(Key, Attrs)> {
        let target = format!("{}{}", file.path, self.ending);
        let mut wants = vec![(key(&target), copy_of(&file.attrs))];
        if file.path != self.path {
            wants.push((key(&format!("{}{}", self.path, self.ending)), attrs([("kind", "symlink"), ("target", &target)])));
        }
        wants
    }
}

/// What makes one thing at a path like another: everything but where it is.
pub fn copy_of(attrs: &Attrs) -> Attrs {
    let copied = ["kind", "content", "target", "mode", "user", "group"];
    those(attrs, |name, _| copied.contains(&name))
}

/// A line or two of the text that look like what a pattern was to find, for error messages.
pub fn near(text: &str, pattern: &str) -> Option<String> {
    let word = pattern.split(|c: char| !(c.is_alphanumeric() || c == '_')).max_by_key(|w| w.chars().count())?.to_lowercase();
    if word.chars().count() < 3 {
        return None;
    }
    let lines: Vec<String> = (1usize..)
        .zip(text.lines())
        .filter(|(_, line)| line.to_lowercase().contains(&word))
        .take(2)
        .map(|(number, line)| format!("line {number}: {}", line.trim()))
        .collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

/// The hint of an error about a pattern that matched nothing.
pub fn near_hint(text: &str, pattern: &str) -> String {
    match near(text, pattern) {
        Some(lines) => format!("nearest: {lines}"),
        None => "nothing in the file resembles it".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_split_where_python_splits_them() {
        assert_eq!(split_lines("a\nb\r\nc\rd\x0ce\u{2028}f", false), ["a", "b", "c", "d", "e", "f"]);
        assert_eq!(split_lines("a\n\nb\r\n", true), ["a\n", "\n", "b\r\n"]);
        assert_eq!(split_lines("", false), Vec::<&str>::new());
    }

    #[test]
    fn bytes_that_are_no_text_survive_the_editing() {
        let latin = b"caf\xe9 \xc3\xa9\nx";
        let (text, foreign) = decode(latin);
        assert!(foreign);
        assert_eq!(encode(&text.replace('x', "y"), foreign), b"caf\xe9 \xc3\xa9\ny");
    }

    #[test]
    fn what_is_near_is_named_with_its_line() {
        assert_eq!(near("a\nPermitRootLogin yes\n", "^PermitRootLogin no$").as_deref(), Some("line 2: PermitRootLogin yes"));
        assert_eq!(near("a\n", "^x"), None);
    }
}
