//! From template text to pieces: literal text, `{% … %}` and `{{ … }}` with their tokens. Comments, raw blocks and whitespace control
//! end here; what follows sees none of them. The rules are those of Jinja2's lexer: a tag ends at the first closing mark outside of
//! strings and brackets.

/// A mistake in a template's text and where it stands (a byte offset into the source).
#[derive(Debug, Clone, PartialEq)]
pub struct Mistake {
    pub offset: usize,
    pub message: String,
}

impl Mistake {
    pub fn new(offset: usize, message: impl Into<String>) -> Mistake {
        Mistake { offset, message: message.into() }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    Name(String),
    Int(String),
    Float(f64),
    Str(String),
    Op(&'static str),
}

impl Token {
    /// As Jinja2 names it in its messages.
    pub fn describe(&self) -> String {
        match self {
            Token::Name(n) => n.clone(),
            Token::Int(i) => i.clone(),
            Token::Float(f) => crate::value::float_text(*f),
            Token::Str(s) => s.clone(),
            Token::Op(o) => (*o).to_owned(),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Spot {
    pub token: Token,
    pub offset: usize,
}

#[derive(Debug)]
pub enum Piece {
    /// Literal text, and where it starts in the source.
    Text { text: String, offset: usize },
    /// `{% … %}`: its tokens, where it starts and where its closing mark stands.
    Block { tokens: Vec<Spot>, offset: usize, end: usize },
    /// `{{ … }}`
    Print { tokens: Vec<Spot>, offset: usize, end: usize },
}

/// Whitespace options, from the settings or a `#jinja2:` header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Options {
    pub trim_blocks: bool,
    pub lstrip_blocks: bool,
}

impl Options {
    /// These, changed by what Salt's `jinja_env` or a header says; names in either case.
    pub fn with<'a>(mut self, settings: impl Iterator<Item = (&'a str, bool)>) -> Options {
        for (name, value) in settings {
            match name.to_lowercase().as_str() {
                "trim_blocks" => self.trim_blocks = value,
                "lstrip_blocks" => self.lstrip_blocks = value,
                _ => {}
            }
        }
        self
    }
}

/// The longest operators first.
const OPERATORS: [&str; 29] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".", ":", "|", ",", ";",
    "!", "&", "^",
];

pub fn scan(source: &str, options: Options) -> Result<Vec<Piece>, Mistake> {
    Scanner { source, at: 0, options, pieces: Vec::new(), strip_next: Strip::Keep }.run()
}

#[derive(Clone, Copy, PartialEq)]
enum Strip {
    Keep,
    /// `-%}`: all white space that follows.
    All,
    /// `trim_blocks`: one line break.
    Line,
}

struct Scanner<'s> {
    source: &'s str,
    at: usize,
    options: Options,
    pieces: Vec<Piece>,
    strip_next: Strip,
}

impl Scanner<'_> {
    fn rest(&self) -> &str {
        self.source.get(self.at..).unwrap_or("")
    }

    fn run(mut self) -> Result<Vec<Piece>, Mistake> {
        while self.at < self.source.len() {
            let open = self.next_open();
            let Some(open) = open else {
                let end = self.source.len();
                self.text(end, None);
                break;
            };
            let kind = self.source.as_bytes().get(open + 1).copied().unwrap_or(b' ');
            let sign = self.source.as_bytes().get(open + 2).copied().filter(|b| matches!(b, b'-' | b'+'));
            self.text(open, Some((kind, sign)));
            self.at = open + 2 + usize::from(sign.is_some());
            match kind {
                b'#' => self.comment(open)?,
                b'%' => self.block(open)?,
                _ => self.print(open)?,
            }
        }
        Ok(self.pieces)
    }

    fn next_open(&self) -> Option<usize> {
        let bytes = self.source.as_bytes();
        let mut at = self.at;
        loop {
            let brace = at + bytes.get(at..)?.iter().position(|b| *b == b'{')?;
            if matches!(bytes.get(brace + 1), Some(b'{' | b'%' | b'#')) {
                return Some(brace);
            }
            at = brace + 1;
        }
    }

    /// Takes literal text up to `end`, where a tag of this kind opens.
    fn text(&mut self, end: usize, tag: Option<(u8, Option<u8>)>) {
        let start = self.at;
        let text = self.source.get(start..end).unwrap_or("");
        let strip = std::mem::replace(&mut self.strip_next, Strip::Keep);
        let mut kept = match strip {
            Strip::Keep => text,
            Strip::All => text.trim_start_matches(is_space),
            Strip::Line => text.strip_prefix('\n').unwrap_or(text),
        };
        let offset = start + (text.len() - kept.len());
        match tag {
            Some((_, Some(b'-'))) => kept = kept.trim_end_matches(is_space),
            Some((kind, None)) if self.options.lstrip_blocks && kind != b'{' => {
                let line = kept.rfind('\n').map_or(0, |i| i + 1);
                let blank = kept.get(line..).is_some_and(|t| t.chars().all(is_space));
                // The line must start in this piece, or at the very start of the template.
                if blank && (line > 0 || start == 0 || (strip == Strip::Line && offset > start)) {
                    kept = kept.get(..line).unwrap_or("");
                }
            }
            _ => {}
        }
        if !kept.is_empty() {
            self.pieces.push(Piece::Text { text: kept.to_owned(), offset });
        }
    }

    fn comment(&mut self, open: usize) -> Result<(), Mistake> {
        let Some(close) = self.rest().find("#}") else {
            return Err(Mistake::new(open, "Missing end of comment tag"));
        };
        let sign = self.rest().as_bytes().get(close.wrapping_sub(1)).copied().filter(|_| close > 0);
        self.at += close + 2;
        self.after_close(sign);
        Ok(())
    }

    fn after_close(&mut self, sign: Option<u8>) {
        self.strip_next = match sign {
            Some(b'-') => Strip::All,
            Some(b'+') => Strip::Keep,
            _ if self.options.trim_blocks => Strip::Line,
            _ => Strip::Keep,
        };
    }

    fn block(&mut self, open: usize) -> Result<(), Mistake> {
        if let Some(after) = raw_tag(self.rest(), "raw") {
            let sign = self.rest().as_bytes().get(after.wrapping_sub(3)).copied();
            self.at += after;
            return self.raw(open, sign);
        }
        let tokens = self.tokens("%}", open)?;
        self.pieces.push(Piece::Block { tokens, offset: open, end: self.at - 2 });
        Ok(())
    }

    fn print(&mut self, open: usize) -> Result<(), Mistake> {
        let trim = self.options.trim_blocks;
        self.options.trim_blocks = false;
        let tokens = self.tokens("}}", open);
        self.options.trim_blocks = trim;
        self.pieces.push(Piece::Print { tokens: tokens?, offset: open, end: self.at - 2 });
        Ok(())
    }

    fn raw(&mut self, open: usize, sign: Option<u8>) -> Result<(), Mistake> {
        let start = self.at;
        let mut from = start;
        loop {
            let Some(found) = self.source.get(from..).and_then(|rest| rest.find("{%")) else {
                return Err(Mistake::new(open, "Missing end of raw directive"));
            };
            let tag = from + found;
            let inner = self.source.get(tag + 2..).unwrap_or("");
            let (begin, inner) = match inner.as_bytes().first() {
                Some(s @ (b'-' | b'+')) => (Some(*s), inner.get(1..).unwrap_or("")),
                _ => (None, inner),
            };
            let Some(after) = raw_tag(inner, "endraw") else {
                from = tag + 2;
                continue;
            };
            let mut text = self.source.get(start..tag).unwrap_or("");
            let whole = text.len();
            match sign {
                Some(b'-') => text = text.trim_start_matches(is_space),
                Some(b'+') => {}
                _ if self.options.trim_blocks => text = text.strip_prefix('\n').unwrap_or(text),
                _ => {}
            }
            let offset = start + whole - text.len();
            if begin == Some(b'-') {
                text = text.trim_end_matches(is_space);
            }
            if !text.is_empty() {
                self.pieces.push(Piece::Text { text: text.to_owned(), offset });
            }
            let sign = inner.as_bytes().get(after.wrapping_sub(3)).copied();
            self.at = self.source.len() - inner.len() + after;
            self.after_close(sign);
            return Ok(());
        }
    }

    /// The tokens of a tag up to its closing mark.
    fn tokens(&mut self, close: &str, open: usize) -> Result<Vec<Spot>, Mistake> {
        let mut tokens = Vec::new();
        let mut brackets: Vec<char> = Vec::new();
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches(is_space);
            self.at += rest.len() - trimmed.len();
            let offset = self.at;
            let rest = self.rest();
            if brackets.is_empty() {
                for (mark, sign) in [("-", Some(b'-')), ("+", Some(b'+')), ("", None)] {
                    if rest.strip_prefix(mark).is_some_and(|r| r.starts_with(close)) {
                        self.at += mark.len() + close.len();
                        self.after_close(sign);
                        return Ok(tokens);
                    }
                }
            }
            let Some(first) = rest.chars().next() else {
                return Err(Mistake::new(open, format!("unexpected end of template, expected '{close}'")));
            };
            let (token, length) = if first == '\'' || first == '"' {
                string(rest, first, offset)?
            } else if first.is_ascii_digit() {
                number(rest)
            } else if is_word(first) {
                let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                (Token::Name(rest.get(..length).unwrap_or("").to_owned()), length)
            } else if let Some(op) = OPERATORS.iter().find(|op| rest.starts_with(**op)) {
                match *op {
                    "!" | "&" | "^" => return Err(Mistake::new(offset, format!("unexpected char '{op}' at {offset}"))),
                    "(" => brackets.push(')'),
                    "[" => brackets.push(']'),
                    "{" => brackets.push('}'),
                    ")" | "]" | "}" => match brackets.pop() {
                        Some(expected) if op.starts_with(expected) => {}
                        Some(expected) => return Err(Mistake::new(offset, format!("unexpected '{op}', expected '{expected}'"))),
                        None => return Err(Mistake::new(offset, format!("unexpected '{op}'"))),
                    },
                    _ => {}
                }
                (Token::Op(op), op.len())
            } else {
                return Err(Mistake::new(offset, format!("unexpected char {} at {offset}", super::python::quote(&first.to_string()))));
            };
            self.at += length;
            tokens.push(Spot { token, offset });
        }
    }
}

/// `text` stands right after `{%` and a sign. If it is `raw %}` (or `endraw %}`), its length up to behind the closing mark.
fn raw_tag(text: &str, name: &str) -> Option<usize> {
    let inner = text.trim_start_matches(is_space).strip_prefix(name)?.trim_start_matches(is_space);
    let rest = inner.strip_prefix("-%}").or_else(|| inner.strip_prefix("+%}")).or_else(|| inner.strip_prefix("%}"))?;
    Some(text.len() - rest.len())
}

fn is_space(c: char) -> bool {
    // Python's `\s` for text.
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn number(text: &str) -> (Token, usize) {
    let bytes = text.as_bytes();
    let digits = |from: usize, ok: fn(u8) -> bool| {
        let mut end = from;
        while let Some(b) = bytes.get(end) {
            let next_is_digit = bytes.get(end + 1).is_some_and(|n| ok(*n));
            if ok(*b) || (*b == b'_' && end > from && next_is_digit) {
                end += 1;
            } else {
                break;
            }
        }
        end
    };
    let decimal = |b: u8| b.is_ascii_digit();
    if bytes.first() == Some(&b'0') {
        let (radix, ok): (u32, fn(u8) -> bool) = match bytes.get(1) {
            Some(b'x' | b'X') => (16, |b| b.is_ascii_hexdigit()),
            Some(b'o' | b'O') => (8, |b| (b'0'..=b'7').contains(&b)),
            Some(b'b' | b'B') => (2, |b| b == b'0' || b == b'1'),
            _ => (10, |_| false),
        };
        if radix != 10 {
            let end = digits(2, ok);
            if end > 2 {
                let clean = text.get(2..end).unwrap_or("").replace('_', "");
                let value = i128::from_str_radix(&clean, radix).map_or_else(|_| "0".to_owned(), |v| v.to_string());
                return (Token::Int(value), end);
            }
        }
    }
    let whole = digits(0, decimal as fn(u8) -> bool);
    let mut end = whole;
    if bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
        end = digits(end + 1, decimal);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        if bytes.get(end + 1 + sign).is_some_and(u8::is_ascii_digit) {
            end = digits(end + 1 + sign, decimal);
        }
    }
    let clean = text.get(..end).unwrap_or("").replace('_', "");
    if end == whole {
        let plain = clean.trim_start_matches('0');
        (Token::Int(if plain.is_empty() { "0".into() } else { plain.to_owned() }), end)
    } else {
        (Token::Float(clean.parse().unwrap_or(f64::INFINITY)), end)
    }
}

/// A string literal with Python's escapes undone.
fn string(text: &str, quote: char, offset: usize) -> Result<(Token, usize), Mistake> {
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((i, c)) = chars.next() {
        if c == quote {
            return Ok((Token::Str(out), i + 1));
        }
        if c != '\\' {
            out.push(c);
            continue;
        }
        let Some((_, escaped)) = chars.next() else { break };
        let mut digits = |count: usize, radix: u32, first: Option<char>| {
            let mut taken: String = first.into_iter().collect();
            while taken.len() < count {
                match chars.peek() {
                    Some((_, d)) if d.is_digit(radix) => {
                        taken.push(*d);
                        chars.next();
                    }
                    _ => break,
                }
            }
            u32::from_str_radix(&taken, radix).ok().filter(|_| radix == 8 || taken.len() == count).and_then(char::from_u32)
        };
        match escaped {
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'r' => out.push('\r'),
            'a' => out.push('\x07'),
            'b' => out.push('\x08'),
            'f' => out.push('\x0c'),
            'v' => out.push('\x0b'),
            '\\' | '\'' | '"' => out.push(escaped),
            '\n' => {}
            'x' | 'u' | 'U' => {
                let count = match escaped {
                    'x' => 2,
                    'u' => 4,
                    _ => 8,
                };
                let Some(c) = digits(count, 16, None) else {
                    return Err(Mistake::new(offset, format!("truncated \\{escaped} escape")));
                };
                out.push(c);
            }
            '0'..='7' => out.extend(digits(3, 8, Some(escaped))),
            other => {
                out.push('\\');
                out.push(other);
            }
        }
    }
    Err(Mistake::new(offset, format!("unexpected char {} at {offset}", super::python::quote(&quote.to_string()))))
}
