//! What went wrong or looks wrong, where, why, and what to do: the one shape of every error and finding in basalt.
//!
//! Errors are part of the product. A `Diagnostic` always has a summary; everything else makes it better and should be given when
//! it is known. It travels over the protocol and into `--json` as it is.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A place in a file the user wrote. Lines and columns count from 1; 0 means not known.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Span {
    /// As the user would type it: relative to the state repository, or absolute.
    pub file: Arc<str>,
    pub line: u32,
    #[serde(default)]
    pub column: u32,
}

impl Span {
    pub fn new(file: impl Into<Arc<str>>, line: u32, column: u32) -> Span {
        Span { file: file.into(), line, column }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
            if self.column > 0 {
                write!(f, ":{}", self.column)?;
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
    Note,
}

/// What kind of trouble it is, as scripts see it: decides the exit code and never the wording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// Wrong use of the command line.
    Usage,
    /// basalt's settings or roster.
    Settings,
    /// The state repository cannot be read as asked (no such commit, no such file …).
    Repository,
    /// A template: syntax, an undefined name, a failed call.
    Template,
    /// YAML that cannot be read.
    Yaml,
    /// High data: what Salt refuses, a cycle, a duplicate id, an unknown state or argument.
    Compile,
    /// A call in a template or a condition that only a host can answer.
    HostNeeded,
    /// A host cannot be reached or its agent cannot be started.
    Unreachable,
    /// A host presented another key than the pinned one.
    HostKey,
    /// Another run holds the host.
    Locked,
    /// The saved plan no longer describes what would happen.
    Stale,
    /// A state failed, or reading or changing a host failed.
    Failed,
    /// A run was taken back, because a host failed in it or by a host that could not be reached behind it.
    TakenBack,
    /// A journal, plan file or message is damaged.
    Damaged,
    /// Stopped by the user or by a deadline.
    Interrupted,
    /// A mistake of basalt's own.
    Internal,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    pub severity: Severity,
    pub code: Code,
    /// One line, without a final full stop: what happened.
    pub summary: String,
    /// Why, in as many lines as it takes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Option<Span>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The source line or lines around the place, with a caret line where the column is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<String>,
    /// Other places that belong to it: the other members of a cycle, the first of two duplicates, the including template.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<(Span, String)>,
    /// The stable name of this kind of fault, where it has one: `duplicate-id`. What `lint` calls its findings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Cow<'static, str>>,
    /// A word of the source that it is about. Where only the beginning of a state is known, the place is narrowed down to it.
    #[serde(skip)]
    pub word: Option<String>,
}

/// Boxed: results stay small on the way that succeeds.
pub type Error = Box<Diagnostic>;
pub type Result<T> = std::result::Result<T, Error>;

impl Diagnostic {
    pub fn new(code: Code, summary: impl Into<String>) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            code,
            summary: summary.into(),
            detail: String::new(),
            span: None,
            hint: None,
            excerpt: None,
            related: Vec::new(),
            rule: None,
            word: None,
        }
    }

    pub fn warning(code: Code, summary: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::new(code, summary) }
    }

    pub fn detail(mut self, detail: impl Into<String>) -> Diagnostic {
        self.detail = detail.into();
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Diagnostic {
        self.hint = Some(hint.into());
        self
    }

    pub fn at(mut self, span: Span) -> Diagnostic {
        self.span = Some(span);
        self
    }

    /// Sets the place only where none is known yet: the innermost place is the best.
    pub fn or_at(mut self, span: Span) -> Diagnostic {
        self.span.get_or_insert(span);
        self
    }

    pub fn related(mut self, span: Span, note: impl Into<String>) -> Diagnostic {
        self.related.push((span, note.into()));
        self
    }

    pub fn rule(mut self, rule: &'static str) -> Diagnostic {
        self.rule = Some(Cow::Borrowed(rule));
        self
    }

    pub fn word(mut self, word: impl Into<String>) -> Diagnostic {
        self.word = Some(word.into());
        self
    }

    /// Goes from the line of an id to the line of its state that holds the word it is about.
    pub fn narrowed(mut self, source: &str) -> Diagnostic {
        if let (Some(word), Some(span), None) = (self.word.take(), &mut self.span, &self.excerpt)
            && let Some((line, column)) = find_below(source, span.line, &word)
        {
            (span.line, span.column) = (line, column);
        }
        self
    }

    /// Adds the excerpt of `source` around the place it has.
    pub fn excerpt_of(mut self, source: &str) -> Diagnostic {
        if let (None, Some(span)) = (&self.excerpt, &self.span) {
            self.excerpt = excerpt(source, span.line, span.column);
        }
        self
    }

    /// An `std::io::Error` while doing `what` (a phrase such as "read /etc/passwd").
    pub fn io(what: impl fmt::Display, error: &std::io::Error) -> Diagnostic {
        Diagnostic::new(Code::Failed, format!("cannot {what}: {error}"))
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(span) = &self.span {
            write!(f, "{span}: ")?;
        }
        f.write_str(&self.summary)
    }
}

impl std::error::Error for Diagnostic {}

/// The line before, the line itself and a caret line, with line numbers. `None` where there is no such line.
fn excerpt(source: &str, line: u32, column: u32) -> Option<String> {
    let index = line.checked_sub(1)? as usize;
    let mut lines = source.lines().skip(index.saturating_sub(1));
    let before = if index > 0 { lines.next() } else { None };
    let here = lines.next()?;
    let width = line.to_string().len();
    let mut out = String::new();
    if let Some(text) = before {
        out.push_str(&format!("{:width$} | {}\n", line - 1, text));
    }
    out.push_str(&format!("{line:width$} | {here}"));
    if column > 0 {
        let pad: String = here.chars().take(column as usize - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        out.push_str(&format!("\n{:width$} | {pad}^", ""));
    }
    Some(out)
}

/// The place of a word, as a whole word, in a line or in those below it that are indented deeper.
fn find_below(source: &str, line: u32, word: &str) -> Option<(u32, u32)> {
    let first = line.checked_sub(1)? as usize;
    let indent = |text: &str| text.len() - text.trim_start().len();
    let part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '/');
    let mut outer = None;
    for (number, text) in source.lines().enumerate().skip(first) {
        let outer = *outer.get_or_insert(indent(text));
        if number > first && indent(text) <= outer && !text.trim().is_empty() && !text.trim_start().starts_with(['{', '#']) {
            return None;
        }
        for (at, _) in text.match_indices(word) {
            let (before, after) = (text.get(..at)?, text.get(at + word.len()..)?);
            if !before.ends_with(part) && !after.starts_with(part) && !text.trim_start().starts_with('#') {
                return Some((number as u32 + 1, before.chars().count() as u32 + 1));
            }
        }
    }
    None
}

/// The name among `known` that `name` was most likely meant to be, for hints. `None` when nothing is near.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (name.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(d, _)| *d <= limit)
        .min_by_key(|(d, _)| *d)
        .map(|(_, candidate)| candidate)
}

/// Edits between two names (insert, delete, replace, swap of neighbours).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let mut d = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + usize::from(a[i - 1] != b[j - 1]));
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                d = d.min(before_last[j - 2] + 1);
            }
            row.push(d);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excerpt_points_at_the_column() {
        let d = Diagnostic::new(Code::Yaml, "x").at(Span::new("a.sls", 2, 3)).excerpt_of("one\ntwo\nthree\n");
        assert_eq!(d.excerpt.as_deref(), Some("1 | one\n2 | two\n  |   ^"));
    }

    #[test]
    fn excerpt_of_a_line_that_is_not_there_is_none() {
        assert_eq!(Diagnostic::new(Code::Yaml, "x").at(Span::new("a", 9, 1)).excerpt_of("one").excerpt, None);
    }

    #[test]
    fn a_place_is_narrowed_down_to_a_word_of_the_state() {
        let source = "web:\n  file.managed:\n    - name: /etc/mode.conf\n    - mode: 1\nother:\n  file.managed:\n    - user: x\n";
        let at = |word: &str| Diagnostic::new(Code::Compile, "x").at(Span::new("a", 1, 1)).word(word).narrowed(source).span.unwrap();
        assert_eq!((at("mode").line, at("mode").column), (4, 7));
        assert_eq!((at("user").line, at("user").column), (1, 1));
    }

    #[test]
    fn nearest_finds_a_slip_and_not_a_stranger() {
        assert_eq!(nearest("file.manged", ["file.managed", "file.absent"]), Some("file.managed"));
        assert_eq!(nearest("mdoe", ["mode", "user"]), Some("mode"));
        assert_eq!(nearest("zebra", ["mode", "user"]), None);
    }
}
