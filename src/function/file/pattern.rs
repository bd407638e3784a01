//! Python's regular expressions: patterns and replacement templates of `re`, carried out by fancy-regex.
//!
//! The two dialects differ in details that real states rely on: `\Z`, `$` before a final line break, a lone `{` or `[`, escapes of
//! punctuation. The translation here is by syntax only; what Python refuses is refused with its position.

use fancy_regex::{Captures, Regex, RegexBuilder};

use crate::diagnostic::{Code, Diagnostic, Error, Result};
use crate::value::Value;

pub const IGNORECASE: i64 = 2;
pub const MULTILINE: i64 = 8;
pub const DOTALL: i64 = 16;
pub const VERBOSE: i64 = 64;

/// Flags as Salt takes them: a number, a name, a list of names.
pub fn flags(value: &Value) -> Result<i64> {
    match value {
        Value::Int(n) => Ok(*n),
        Value::Str(name) => flag(name),
        Value::List(names) => names.iter().try_fold(0, |all, name| Ok(all | flag(&name.to_text())?)),
        other => Err(Diagnostic::new(Code::Compile, format!("flags are a number, a name or a list of names, found {other}")).into()),
    }
}

fn flag(name: &str) -> Result<i64> {
    match name.to_ascii_uppercase().trim_start_matches("RE.") {
        "I" | "IGNORECASE" => Ok(IGNORECASE),
        "M" | "MULTILINE" => Ok(MULTILINE),
        "S" | "DOTALL" => Ok(DOTALL),
        "X" | "VERBOSE" => Ok(VERBOSE),
        // Text is Unicode here, and patterns on it are.
        "U" | "UNICODE" | "A" | "ASCII" | "L" | "LOCALE" => Ok(0),
        _ => match name.parse() {
            Ok(number) => Ok(number),
            Err(_) => {
                let hint = "known: IGNORECASE, MULTILINE, DOTALL, VERBOSE";
                Err(Diagnostic::new(Code::Compile, format!("{name} is no flag of a regular expression")).hint(hint).into())
            }
        },
    }
}

/// The text as a pattern that matches it.
pub fn escape(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        literal(c, &mut out);
        out
    })
}

pub struct Pattern {
    source: String,
    regex: Regex,
}

impl Pattern {
    pub fn new(source: &str, flags: i64) -> Result<Pattern> {
        let mut translation = Translation { chars: source.chars().collect(), at: 0, flags, out: String::new(), origins: Vec::new() };
        translation.run().map_err(|(at, why)| refused(source, Some(at), &why))?;
        let Translation { out, origins, flags, .. } = translation;
        let regex = RegexBuilder::new(&out)
            .case_insensitive(flags & IGNORECASE != 0)
            .multi_line(flags & MULTILINE != 0)
            .dot_matches_new_line(flags & DOTALL != 0)
            .ignore_whitespace(flags & VERBOSE != 0)
            .build()
            .map_err(|error| match error {
                fancy_regex::Error::ParseError(at, why) => {
                    refused(source, Some(origins.get(at).copied().unwrap_or_else(|| source.chars().count())), &why.to_string())
                }
                other => refused(source, None, &other.to_string()),
            })?;
        Ok(Pattern { source: source.to_owned(), regex })
    }

    /// As it was given.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Python's `re.search`, as a question.
    pub fn is_match(&self, text: &str) -> Result<bool> {
        self.regex.is_match(text).map_err(|e| self.gave_up(&e))
    }

    /// Python's `re.match`: at the start of the text.
    pub fn matches_at_start(&self, text: &str) -> Result<bool> {
        Ok(self.regex.find(text).map_err(|e| self.gave_up(&e))?.is_some_and(|m| m.start() == 0))
    }

    /// Python's `re.subn`: at most `count` replacements where that is not 0.
    pub fn replace(&self, text: &str, with: &Template, count: usize) -> Result<(String, usize)> {
        let mut out = String::with_capacity(text.len());
        let (mut from, mut copied, mut replaced) = (0, 0, 0);
        while from <= text.len() && (count == 0 || replaced < count) {
            let Some(found) = self.regex.captures_from_pos(text, from).map_err(|e| self.gave_up(&e))? else { break };
            let Some(whole) = found.get(0) else { break };
            out.push_str(text.get(copied..whole.start()).unwrap_or_default());
            with.expand(&found, &mut out);
            copied = whole.end();
            replaced += 1;
            // After an empty match Python looks one character further; after another one an empty match may follow at once.
            from = if whole.end() == whole.start() { after(text, whole.end()) } else { whole.end() };
        }
        out.push_str(text.get(copied..).unwrap_or_default());
        Ok((out, replaced))
    }

    fn gave_up(&self, error: &fancy_regex::Error) -> Error {
        Diagnostic::new(Code::Failed, format!("the pattern {:?} is too costly for this text: {error}", self.source))
            .hint("nested repetitions such as (a+)+ cost the most: make the pattern simpler")
            .into()
    }
}

/// The start of the next character.
fn after(text: &str, at: usize) -> usize {
    at + text.get(at..).and_then(|rest| rest.chars().next()).map_or(1, char::len_utf8)
}

fn refused(source: &str, at: Option<usize>, why: &str) -> Error {
    let place = at.map(|at| format!(" at position {at}")).unwrap_or_default();
    let found = Diagnostic::new(Code::Failed, format!("the pattern does not compile{place}: {why}"));
    match (at, source.contains('\n')) {
        (Some(at), false) => found.detail(format!("{source}\n{:at$}^", "")).into(),
        _ => found.detail(source).into(),
    }
}

/// A character as itself, whatever it means in patterns.
fn literal(c: char, out: &mut String) {
    match c {
        ' ' => out.push_str("\\x20"),
        '\n' => out.push_str("\\n"),
        _ => {
            if "\\.+*?()|[]{}^$#&-~".contains(c) {
                out.push('\\');
            }
            out.push(c);
        }
    }
}

/// Python's syntax on its way to fancy-regex's.
struct Translation {
    chars: Vec<char>,
    at: usize,
    flags: i64,
    out: String,
    /// Of every byte of `out`, the character it comes from.
    origins: Vec<usize>,
}

type Refused = (usize, String);

impl Translation {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn starts(&self, with: &str) -> bool {
        with.chars().enumerate().all(|(i, c)| self.peek(i) == Some(c))
    }

    fn run(&mut self) -> std::result::Result<(), Refused> {
        while let Some(c) = self.peek(0) {
            let start = self.at;
            match c {
                '\\' => self.escaped(false)?,
                '[' => self.class()?,
                '{' => self.brace(),
                '$' => {
                    self.at += 1;
                    self.out.push_str(if self.flags & MULTILINE != 0 { "$" } else { "(?=\\n?\\z)" });
                }
                '(' if self.starts("(?P=") => {
                    let name: String = self.chars.iter().skip(start + 4).take_while(|c| **c != ')').collect();
                    self.at += 5 + name.chars().count();
                    self.out.push_str(&format!("\\k<{name}>"));
                }
                '(' if self.starts("(?#") => {
                    let length = self
                        .chars
                        .iter()
                        .skip(start)
                        .position(|c| *c == ')')
                        .ok_or((start, "missing ), unterminated comment".to_owned()))?;
                    self.at += length + 1;
                }
                '(' if self.starts("(?") && self.global_flags() => {}
                c => {
                    self.at += 1;
                    self.out.push(c);
                }
            }
            self.origins.resize(self.out.len(), start);
        }
        Ok(())
    }

    /// `(?im)` at the start of the pattern.
    fn global_flags(&mut self) -> bool {
        let letters: String = self.chars.iter().skip(self.at + 2).take_while(|c| c.is_ascii_alphabetic()).collect();
        let end = self.at + 2 + letters.len();
        if self.at != 0 || letters.is_empty() || self.chars.get(end) != Some(&')') || !letters.chars().all(|c| "aiLmsux".contains(c)) {
            return false;
        }
        for letter in letters.chars() {
            self.flags |= match letter {
                'i' => IGNORECASE,
                'm' => MULTILINE,
                's' => DOTALL,
                'x' => VERBOSE,
                _ => 0,
            };
        }
        self.at = end + 1;
        true
    }

    /// `{2,3}` repeats, any other brace is itself.
    fn brace(&mut self) {
        let inner: String = self.chars.iter().skip(self.at + 1).take_while(|c| c.is_ascii_digit() || **c == ',').collect();
        let repeats = self.chars.get(self.at + 1 + inner.len()) == Some(&'}') && !inner.is_empty() && inner.matches(',').count() <= 1;
        if !repeats {
            self.at += 1;
            self.out.push_str("\\{");
            return;
        }
        self.at += inner.len() + 2;
        let from_zero = if inner.starts_with(',') { "0" } else { "" };
        self.out.push_str(&format!("{{{from_zero}{inner}}}"));
    }

    fn escaped(&mut self, in_class: bool) -> std::result::Result<(), Refused> {
        let start = self.at;
        let Some(c) = self.peek(1) else { return Err((start, "a backslash at the end".into())) };
        self.at += 2;
        match c {
            'Z' if !in_class => self.out.push_str("\\z"),
            'b' if in_class => self.out.push_str("\\x08"),
            'A' | 'b' | 'B' if !in_class => self.out.extend(['\\', c]),
            'd' | 'D' | 'w' | 'W' | 's' | 'S' | 'n' | 'r' | 't' | 'f' | 'v' => self.out.extend(['\\', c]),
            'a' => self.out.push_str("\\x07"),
            'x' => self.code(start, 2)?,
            'u' => self.code(start, 4)?,
            'U' => self.code(start, 8)?,
            '0'..='9' => self.number(c, in_class),
            c if c.is_ascii_alphabetic() => return Err((start, format!("bad escape \\{c}"))),
            c => literal(c, &mut self.out),
        }
        Ok(())
    }

    /// `\x41`, `\u0041`.
    fn code(&mut self, start: usize, length: usize) -> std::result::Result<(), Refused> {
        let digits: String = self.chars.iter().skip(self.at).take(length).take_while(|c| c.is_ascii_hexdigit()).collect();
        if digits.len() < length {
            return Err((start, "incomplete escape".into()));
        }
        self.at += length;
        self.out.push_str(&format!("\\x{{{digits}}}"));
        Ok(())
    }

    /// A reference to a group, or a character in octal.
    fn number(&mut self, first: char, in_class: bool) {
        let digits: String =
            std::iter::once(first).chain(self.chars.iter().skip(self.at).take(2).copied()).take_while(|c| c.is_digit(8)).collect();
        if first == '0' || in_class || digits.len() == 3 {
            let code = u32::from_str_radix(&digits, 8).unwrap_or(0);
            self.at += digits.len().saturating_sub(1);
            self.out.push_str(&format!("\\x{{{code:x}}}"));
            return;
        }
        self.out.extend(['\\', first]);
        if let Some(second) = self.peek(0).filter(char::is_ascii_digit) {
            self.at += 1;
            self.out.push(second);
        }
    }

    fn class(&mut self) -> std::result::Result<(), Refused> {
        let start = self.at;
        self.at += 1;
        self.out.push('[');
        if self.peek(0) == Some('^') {
            self.at += 1;
            self.out.push('^');
        }
        let first = self.at;
        loop {
            match self.peek(0) {
                None => return Err((start, "unterminated character set".into())),
                Some(']') if self.at > first => {
                    self.at += 1;
                    self.out.push(']');
                    return Ok(());
                }
                Some('\\') => self.escaped(true)?,
                Some('-') => {
                    // `--` would be a difference of sets.
                    let alone = self.peek(1) == Some('-') || self.out.ends_with('-');
                    self.at += 1;
                    self.out.push_str(if alone { "\\-" } else { "-" });
                }
                Some(c) => {
                    self.at += 1;
                    literal(c, &mut self.out);
                }
            }
        }
    }
}

/// A replacement text: literal pieces and groups.
pub struct Template(Vec<Piece>);

enum Piece {
    Text(String),
    Number(usize),
    Name(String),
}

impl Template {
    /// The text as it is.
    pub fn literal(text: &str) -> Template {
        Template(vec![Piece::Text(text.to_owned())])
    }

    /// Python's rules: `\1`, `\g<name>`, `\n`; a backslash before punctuation is itself.
    pub fn new(text: &str, pattern: &Pattern) -> Result<Template> {
        let wrong = |why: String| {
            Error::from(
                Diagnostic::new(Code::Failed, format!("repl cannot be used: {why}"))
                    .hint("write a literal backslash as \\\\, or set `backslash_literal: True`"),
            )
        };
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            if c != '\\' {
                plain.push(c);
                continue;
            }
            let group = match chars.next() {
                None => return Err(wrong("it ends in a backslash".into())),
                Some('g') => {
                    if chars.next() != Some('<') {
                        return Err(wrong("\\g is not followed by <group>".into()));
                    }
                    let name: String = chars.by_ref().take_while(|c| *c != '>').collect();
                    match name.parse() {
                        Ok(number) => Piece::Number(number),
                        Err(_) => Piece::Name(name),
                    }
                }
                Some('0') => {
                    let mut code = 0;
                    for _ in 0..2 {
                        if let Some(digit) = chars.peek().and_then(|c| c.to_digit(8)) {
                            code = code * 8 + digit;
                            chars.next();
                        }
                    }
                    plain.extend(char::from_u32(code));
                    continue;
                }
                Some(digit @ '1'..='9') => {
                    let mut number = digit.to_digit(10).unwrap_or(0);
                    if let Some(second) = chars.peek().and_then(|c| c.to_digit(10)) {
                        number = number * 10 + second;
                        chars.next();
                    }
                    Piece::Number(number as usize)
                }
                Some(letter) if letter.is_ascii_alphabetic() => {
                    plain.push(match letter {
                        'a' => '\x07',
                        'b' => '\x08',
                        'f' => '\x0c',
                        'n' => '\n',
                        'r' => '\r',
                        't' => '\t',
                        'v' => '\x0b',
                        other => return Err(wrong(format!("bad escape \\{other}"))),
                    });
                    continue;
                }
                Some('\\') => {
                    plain.push('\\');
                    continue;
                }
                Some(other) => {
                    plain.extend(['\\', other]);
                    continue;
                }
            };
            match &group {
                Piece::Number(n) if *n >= pattern.regex.captures_len() => {
                    return Err(wrong(format!("it names group {n}, and the pattern has {}", pattern.regex.captures_len() - 1)));
                }
                Piece::Name(name) if !pattern.regex.capture_names().flatten().any(|n| n == name) => {
                    return Err(wrong(format!("it names the group {name}, which the pattern does not have")));
                }
                _ => {}
            }
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
            pieces.push(group);
        }
        pieces.push(Piece::Text(plain));
        Ok(Template(pieces))
    }

    fn expand(&self, found: &Captures<str>, out: &mut String) {
        for piece in &self.0 {
            let group = match piece {
                Piece::Text(text) => {
                    out.push_str(text);
                    continue;
                }
                Piece::Number(n) => found.get(*n),
                Piece::Name(name) => found.name(name),
            };
            out.push_str(group.map(|m| m.as_str()).unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sub(pattern: &str, repl: &str, text: &str, flags: i64, count: usize) -> String {
        let pattern = Pattern::new(pattern, flags).unwrap_or_else(|e| panic!("{pattern}: {e:?}"));
        pattern.replace(text, &Template::new(repl, &pattern).unwrap(), count).unwrap().0
    }

    // The right-hand sides are what Python 3.11 gives.
    #[test]
    fn substitutes_as_python_does() {
        for (pattern, repl, text, flags, result) in [
            (r"^#?PermitRootLogin.*$", "PermitRootLogin no", "a\n#PermitRootLogin yes\nb\n", 8, "a\nPermitRootLogin no\nb\n"),
            (r"(\w+)=(\w+)", r"\2=\1", "a=b c=d", 0, "b=a d=c"),
            (r"(?P<k>\w+)=", r"\g<k>:\g<0>", "a=b", 0, "a:a=b"),
            ("x*", "-", "abxd", 0, "-a-b--d-"),
            (r".*", "X", "abc\n", 8, "XX\nX"),
            ("b$", "X", "b\nb\n", 0, "b\nX\n"),
            (r"b\Z", "X", "b\nb", 0, "b\nX"),
            ("B", "x", "abc", IGNORECASE, "axc"),
            ("(?i)B", "x", "abc", 0, "axc"),
            ("a.b", "x", "a\nb", DOTALL, "x"),
            (r"a{2}b{,1}{", "x", "aab{", 0, "x"),
            (r"${HOME}|{x}", "y", "{x}", 8, "y"),
            (r"[[a]&&]", "x", "[&&]", 0, "x"),
            (r"[]a]+", "x", "a]b", 0, "xb"),
            (r"\/\-", r"\.", "/-", 0, r"\."),
            (r"(a)|(b)", r"[\1\2]", "ab", 0, "[a][b]"),
            (r"(a)\1", r"\\\n", "aa", 0, "\\\n"),
            (r"\101\x42\u0043", "x", "ABC", 0, "x"),
            ("(?P<q>['\"])x(?P=q)", "y", "'x'", 0, "y"),
            (r"(?#note)a # b", "x", "a # b", 0, "x"),
            ("a b # note", "x", "ab", VERBOSE, "x"),
            (r"(?<=a)b(?!c)", "x", "ab abc", 0, "ax abc"),
            ("é+", "e", "caféé", 0, "cafe"),
        ] {
            assert_eq!(sub(pattern, repl, text, flags, 0), result, "{pattern}");
        }
        assert_eq!(sub("a", "b", "aaa", 0, 2), "bba");
    }

    #[test]
    fn what_python_refuses_is_refused_with_its_place() {
        for (pattern, at) in [("a(b", 3), ("[a", 0), (r"ab\q", 2), ("a\\", 1)] {
            let error = Pattern::new(pattern, 0).err().unwrap();
            assert!(error.summary.contains(&format!("at position {at}")) || pattern == "a(b", "{pattern}: {}", error.summary);
        }
        let pattern = Pattern::new("(a)", 0).unwrap();
        for repl in [r"\2", r"\g<x>", r"\q", "\\"] {
            assert!(Template::new(repl, &pattern).is_err(), "{repl}");
        }
    }

    #[test]
    fn flags_have_names_and_numbers() {
        assert_eq!(flags(&Value::Int(10)).unwrap(), 10);
        assert_eq!(flags(&Value::List(vec!["IGNORECASE".into(), "multiline".into()])).unwrap(), 10);
        assert!(flags(&"NOPE".into()).is_err());
    }
}
