//! Targets: which hosts are meant. All of Salt's forms but range servers, read once and then asked for each host.
//!
//! A compound target is made of words: `and`, `or`, `not`, parentheses, globs of ids, and letters with a pattern (`G@os:Debian`).
//! `N@name` stands for a nodegroup's own compound and is put in its place while the target is read.

mod data;

use std::net::IpAddr;

use fancy_regex::Regex;

use crate::diagnostic::{Code, Diagnostic, Error, Result, nearest};
use crate::value::{Map, Value};

pub use data::glob;
use data::{DataMatch, How};

/// How a target's text is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Form {
    #[default]
    Glob,
    /// `-L`, `L@`.
    List,
    /// `-E`, `E@`: Python's `re.match`.
    Pcre,
    /// `-G`, `G@`.
    Grain,
    /// `-P`, `P@`.
    GrainPcre,
    /// `-I`, `I@`.
    Pillar,
    /// `-J`, `J@`.
    PillarPcre,
    /// The pillar's value as it stands, no pattern.
    PillarExact,
    /// `-N`, `N@`.
    Nodegroup,
    /// `-S`, `S@`.
    Ipcidr,
    /// `-C`.
    Compound,
}

impl Form {
    /// As Salt names it where the way to match is an argument (`match:` of a top file, `tgt_type`).
    pub fn from_salt(name: &str) -> Result<Form> {
        let forms = [
            ("glob", Form::Glob),
            ("list", Form::List),
            ("pcre", Form::Pcre),
            ("grain", Form::Grain),
            ("grain_pcre", Form::GrainPcre),
            ("pillar", Form::Pillar),
            ("pillar_pcre", Form::PillarPcre),
            ("pillar_exact", Form::PillarExact),
            ("nodegroup", Form::Nodegroup),
            ("ipcidr", Form::Ipcidr),
            ("compound", Form::Compound),
        ];
        let known = forms.map(|(known, _)| known);
        forms.iter().find(|(known, _)| *known == name).map(|(_, form)| *form).ok_or_else(|| {
            let error = Diagnostic::new(Code::Compile, format!("{name:?} is no way to match hosts"));
            match nearest(name, known) {
                Some(near) => error.hint(format!("did you mean {near:?}?")),
                None => error.hint(format!("there are {}", known.join(", "))),
            }
            .into()
        })
    }

    fn lettered(letter: char) -> Option<Form> {
        Some(match letter {
            'L' => Form::List,
            'E' => Form::Pcre,
            'G' => Form::Grain,
            'P' => Form::GrainPcre,
            'I' => Form::Pillar,
            'J' => Form::PillarPcre,
            'N' => Form::Nodegroup,
            'S' => Form::Ipcidr,
            _ => return None,
        })
    }
}

/// A target, read.
#[derive(Clone, Debug)]
pub struct Target {
    text: String,
    expr: Expr,
}

#[derive(Clone, Debug)]
enum Expr {
    Glob(String),
    List(Vec<String>),
    Pcre(Regex),
    Grains(DataMatch),
    Pillar(DataMatch),
    Subnet(Subnet),
    Not(Box<Expr>),
    All(Vec<Expr>),
    Any(Vec<Expr>),
}

impl Target {
    pub fn parse(form: Form, text: &str, nodegroups: &Map) -> Result<Target> {
        Target::delimited(form, text, ":", nodegroups)
    }

    /// A target whose keys have something else between them than a colon.
    pub fn delimited(form: Form, text: &str, delimiter: &str, nodegroups: &Map) -> Result<Target> {
        let mut parser = Parser { text, nodegroups, open: Vec::new() };
        let expr = match form {
            Form::Compound => parser.compound(words(text))?,
            // For people: blanks between names are as good as commas.
            Form::List if text.contains(',') => parser.single(form, delimiter, &text.replace(' ', ""), 1)?,
            Form::List => parser.single(form, delimiter, &text.split_whitespace().collect::<Vec<_>>().join(","), 1)?,
            _ => parser.single(form, delimiter, text, 1)?,
        };
        Ok(Target { text: text.to_owned(), expr })
    }

    pub fn matches(&self, id: &str, grains: &Map, pillar: &Map) -> Result<bool> {
        self.expr.matches(&Subject { id, grains, pillar })
    }

    /// Whether grains decide; those of a host that none has are to be asked for first.
    pub fn needs_grains(&self) -> bool {
        self.expr.any(&|expr| matches!(expr, Expr::Grains(_) | Expr::Subnet(_)))
    }

    pub fn needs_pillar(&self) -> bool {
        self.expr.any(&|expr| matches!(expr, Expr::Pillar(_)))
    }

    /// What is wrong with the hosts this target found among all: a name of a list that none has, or no host at all.
    pub fn complaint(&self, found: usize, ids: &[&str]) -> Option<Diagnostic> {
        let unknown: Vec<&str> = match &self.expr {
            Expr::List(names) => names.iter().map(String::as_str).filter(|name| !ids.contains(name)).collect(),
            _ => Vec::new(),
        };
        let error = match unknown.as_slice() {
            [] if found > 0 => return None,
            _ if ids.is_empty() => return Some(Diagnostic::new(Code::Usage, "the roster has no hosts").hint("web1: 192.0.2.1")),
            [] => Diagnostic::new(Code::Usage, format!("no host matches {:?}", self.text)),
            names => Diagnostic::new(Code::Usage, format!("the roster has no {}", names.join(", "))),
        };
        let meant = if unknown.is_empty() { vec![self.text.as_str()] } else { unknown };
        let near: Vec<&str> = meant.iter().filter_map(|name| nearest(name, ids.iter().copied())).collect();
        Some(if near.is_empty() {
            let shown = ids.iter().take(8).copied().collect::<Vec<_>>().join(", ");
            let more = ids.len().saturating_sub(8);
            error.hint(if more > 0 { format!("there are {shown} and {more} more") } else { format!("there are {shown}") })
        } else {
            let near: Vec<String> = near.iter().map(|n| format!("{n:?}")).collect();
            error.hint(format!("did you mean {}?", near.join(", ")))
        })
    }
}

struct Subject<'a> {
    id: &'a str,
    grains: &'a Map,
    pillar: &'a Map,
}

impl Expr {
    fn matches(&self, subject: &Subject) -> Result<bool> {
        Ok(match self {
            Expr::Glob(pattern) => glob(pattern, subject.id),
            Expr::List(names) => names.iter().any(|name| name == subject.id),
            Expr::Pcre(regex) => regex.is_match(subject.id).map_err(|error| {
                Diagnostic::new(Code::Usage, format!("the pattern {regex} cannot be decided for {}: {error}", subject.id))
            })?,
            Expr::Grains(data) => data.matches(subject.grains),
            Expr::Pillar(data) => data.matches(subject.pillar),
            Expr::Subnet(subnet) => subnet.matches(subject.grains),
            Expr::Not(inner) => !inner.matches(subject)?,
            Expr::All(parts) => {
                for part in parts {
                    if !part.matches(subject)? {
                        return Ok(false);
                    }
                }
                true
            }
            Expr::Any(parts) => {
                for part in parts {
                    if part.matches(subject)? {
                        return Ok(true);
                    }
                }
                false
            }
        })
    }

    fn any(&self, test: &impl Fn(&Expr) -> bool) -> bool {
        match self {
            Expr::Not(inner) => inner.any(test),
            Expr::All(parts) | Expr::Any(parts) => parts.iter().any(|part| part.any(test)),
            leaf => test(leaf),
        }
    }
}

/// A word of a compound and the column where it begins.
type Word = (usize, String);

fn words(text: &str) -> Vec<Word> {
    let mut out: Vec<Word> = Vec::new();
    let mut within = false;
    for (index, c) in text.chars().enumerate() {
        if c.is_whitespace() {
            within = false;
        } else if let (true, Some((_, word))) = (within, out.last_mut()) {
            word.push(c);
        } else {
            out.push((index + 1, c.into()));
            within = true;
        }
    }
    out
}

const OPERATORS: [&str; 5] = ["and", "or", "not", "(", ")"];

/// How deep parentheses and nodegroups may stand in each other.
const MAX_DEPTH: usize = 64;

struct Parser<'a> {
    text: &'a str,
    nodegroups: &'a Map,
    /// The nodegroups that are being read, outermost first.
    open: Vec<String>,
}

struct Words {
    rest: std::iter::Peekable<std::vec::IntoIter<Word>>,
    depth: usize,
    /// The column behind the last word.
    end: usize,
}

impl Words {
    fn next_is(&mut self, word: &str) -> bool {
        self.rest.peek().is_some_and(|(_, next)| next == word)
    }
}

impl Parser<'_> {
    fn compound(&mut self, words: Vec<Word>) -> Result<Expr> {
        let end = words.last().map_or(1, |(column, word)| column + word.chars().count() + 1);
        let mut words = Words { rest: words.into_iter().peekable(), depth: 0, end };
        let expr = self.any(&mut words)?;
        match words.rest.next() {
            None => Ok(expr),
            Some((column, word)) if word == ")" => Err(self.error(column, "this parenthesis closes none").into()),
            Some((column, _)) => Err(self.error(column, "`and` or `or` belongs before this").into()),
        }
    }

    fn any(&mut self, words: &mut Words) -> Result<Expr> {
        let mut parts = vec![self.all(words)?];
        while words.next_is("or") {
            words.rest.next();
            parts.push(self.all(words)?);
        }
        Ok(one_or(parts, Expr::Any))
    }

    fn all(&mut self, words: &mut Words) -> Result<Expr> {
        let mut parts = vec![self.not(words)?];
        loop {
            if words.next_is("and") {
                words.rest.next();
            } else if !words.next_is("not") {
                // `a not b` is `a and not b`.
                return Ok(one_or(parts, Expr::All));
            }
            parts.push(self.not(words)?);
        }
    }

    fn not(&mut self, words: &mut Words) -> Result<Expr> {
        let Some((column, word)) = words.rest.next() else {
            return Err(self.error(words.end, "the target ends where a host or pattern was expected").into());
        };
        words.depth += 1;
        if words.depth > MAX_DEPTH {
            return Err(self.error(column, "the target is nested too deep").into());
        }
        let expr = match word.as_str() {
            "not" => Expr::Not(Box::new(self.not(words)?)),
            "(" => {
                let inner = self.any(words)?;
                match words.rest.next() {
                    Some((_, close)) if close == ")" => inner,
                    Some((column, _)) => return Err(self.error(column, "`and`, `or` or a closing parenthesis belongs before this").into()),
                    None => return Err(self.error(column, "this parenthesis is not closed").into()),
                }
            }
            "and" | "or" | ")" => return Err(self.error(column, format!("a host or pattern belongs before this `{word}`")).into()),
            _ => self.word(column, &word)?,
        };
        words.depth -= 1;
        Ok(expr)
    }

    /// A pattern with its letter, or a glob.
    fn word(&mut self, column: usize, word: &str) -> Result<Expr> {
        let mut chars = word.chars();
        let (letter, second, third) = (chars.next(), chars.next(), chars.next());
        let own_delimiter = third == Some('@') && matches!(letter, Some('G' | 'P' | 'I' | 'J'));
        if !own_delimiter && second != Some('@') {
            if word.starts_with('(') || (word.ends_with(')') && !word.contains('(')) {
                let error = self.error(column, "a parenthesis stands by itself, with blanks around it");
                return Err(error.hint("'( web* or db* ) and G@os:Debian'").into());
            }
            return Ok(Expr::Glob(word.to_owned()));
        }
        let skip = if own_delimiter { 3 } else { 2 };
        let pattern: String = word.chars().skip(skip).collect();
        let delimiter = second.filter(|_| own_delimiter).unwrap_or(':').to_string();
        match letter {
            Some(letter) if pattern.is_empty() => Err(self.error(column, format!("a pattern belongs behind {letter}@")).into()),
            Some('R') => Err(self.error(column, "R@ asks a range server, which basalt does not know").into()),
            Some('T' | 'M') => Err(self.error(column, "T@ and M@ speak of proxied resources, which basalt does not know").into()),
            Some(letter) => match Form::lettered(letter) {
                Some(form) => self.single(form, &delimiter, &pattern, column + skip),
                None => Ok(Expr::Glob(word.to_owned())),
            },
            None => Ok(Expr::Glob(word.to_owned())),
        }
    }

    fn single(&mut self, form: Form, delimiter: &str, pattern: &str, column: usize) -> Result<Expr> {
        let data = |how: How, letter: &str| -> Result<DataMatch> {
            if !pattern.contains(delimiter) {
                let error = self.error(column, format!("{letter}@ takes a key and what its value must be"));
                return Err(error.hint(format!("{letter}@os{delimiter}Debian")).into());
            }
            DataMatch::new(pattern, delimiter, how).map_err(|why| self.error(column, why).into())
        };
        Ok(match form {
            Form::Glob if pattern.is_empty() => return Err(self.error(column, "the target is empty").hint("'*' means all hosts").into()),
            Form::Glob => Expr::Glob(pattern.to_owned()),
            Form::List => Expr::List(pattern.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()),
            Form::Pcre => Expr::Pcre(data::regex(pattern, false).map_err(|why| self.error(column, why))?),
            Form::Grain => Expr::Grains(data(How::Glob, "G")?),
            Form::GrainPcre => Expr::Grains(data(How::Regex, "P")?),
            Form::Pillar => Expr::Pillar(data(How::Glob, "I")?),
            Form::PillarPcre => Expr::Pillar(data(How::Regex, "J")?),
            Form::PillarExact => Expr::Pillar(data(How::Exact, "I")?),
            Form::Ipcidr => Expr::Subnet(Subnet::parse(pattern).map_err(|why| self.error(column, why))?),
            Form::Nodegroup => self.nodegroup(pattern, column)?,
            Form::Compound => self.compound(words(pattern))?,
        })
    }

    fn nodegroup(&mut self, name: &str, column: usize) -> Result<Expr> {
        let Some(group) = self.nodegroups.get(name) else {
            let error = self.error(column, format!("there is no nodegroup {name}"));
            let known: Vec<&str> = self.nodegroups.iter().filter_map(|(key, _)| key.as_str()).collect();
            return Err(match (nearest(name, known.iter().copied()), known.is_empty()) {
                (Some(near), _) => error.hint(format!("did you mean {near:?}?")),
                (None, true) => error.hint("`nodegroups` in basalt.yaml names them"),
                (None, false) => error.hint(format!("there are {}", known.join(", "))),
            }
            .into());
        };
        if self.open.iter().any(|open| open == name) || self.open.len() >= MAX_DEPTH {
            let circle = self.open.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join(" → ");
            return Err(self.error(column, format!("the nodegroup {name} contains itself")).detail(circle).into());
        }
        let (text, words) = match group {
            Value::Str(text) => (text.clone(), words(text)),
            // Each item is a word, so that a value may have blanks.
            Value::List(items) => {
                let mut next = 1;
                let words: Vec<Word> = items
                    .iter()
                    .map(|item| {
                        let word = (next, item.to_text());
                        next += word.1.chars().count() + 1;
                        word
                    })
                    .collect();
                (words.iter().map(|(_, word)| word.as_str()).collect::<Vec<_>>().join(" "), words)
            }
            other => return Err(self.error(column, format!("the nodegroup {name} is {}, and not a target", other.kind())).into()),
        };
        self.open.push(name.to_owned());
        let mut inner = Parser { text: &text, nodegroups: self.nodegroups, open: std::mem::take(&mut self.open) };
        let expr = inner.compound(as_list(words)).map_err(|mut error: Error| {
            if !error.summary.contains("nodegroup") {
                error.summary = format!("in the nodegroup {name}: {}", error.summary);
            }
            error
        });
        self.open = inner.open;
        self.open.pop();
        expr
    }

    fn error(&self, column: usize, what: impl Into<String>) -> Diagnostic {
        let mut error = Diagnostic::new(Code::Usage, format!("{} (column {column})", what.into()));
        let text = self.text.chars().map(|c| if c == '\t' { '\t' } else { ' ' });
        let pad: String = text.chain(std::iter::repeat(' ')).take(column.saturating_sub(1)).collect();
        error.excerpt = Some(format!("{}\n{pad}^", self.text));
        error
    }
}

fn one_or(mut parts: Vec<Expr>, many: impl Fn(Vec<Expr>) -> Expr) -> Expr {
    match (parts.pop(), parts.is_empty()) {
        (Some(only), true) => only,
        (last, _) => many(parts.into_iter().chain(last).collect()),
    }
}

/// A nodegroup of nothing but names is a list of them, or one regular expression where they look like it.
fn as_list(words: Vec<Word>) -> Vec<Word> {
    let lettered = |word: &str| word.as_bytes().first().is_some_and(u8::is_ascii_uppercase) && word.as_bytes().get(1) == Some(&b'@');
    if words.is_empty() || words.iter().any(|(_, word)| OPERATORS.contains(&word.as_str()) || word.contains('*') || lettered(word)) {
        return words;
    }
    let letter = if words.iter().any(|(_, word)| word.contains(['(', '[', '{', '\\', '?', '}', ']', ')'])) { "E@" } else { "L@" };
    vec![(1, letter.to_owned() + &words.into_iter().map(|(_, word)| word).collect::<Vec<_>>().join(","))]
}

/// An address or a network.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Subnet {
    address: IpAddr,
    prefix: u32,
}

impl Subnet {
    fn parse(text: &str) -> std::result::Result<Subnet, String> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| format!("{text:?} is neither an address nor a network"))?;
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => whole,
            Some(prefix) => match (prefix.parse::<u32>(), prefix.parse::<std::net::Ipv4Addr>()) {
                (Ok(bits), _) if bits <= whole => bits,
                // 255.255.255.0
                (_, Ok(mask)) if address.is_ipv4() && u32::from(mask).leading_ones() == u32::from(mask).count_ones() => {
                    u32::from(mask).count_ones()
                }
                _ => return Err(format!("/{prefix} is no prefix of such a network")),
            },
        };
        let subnet = Subnet { address, prefix };
        if subnet.bits(address).checked_shl(prefix).unwrap_or(0) != 0 {
            return Err(format!("{text} is an address within a network: the bits behind /{prefix} must be zero"));
        }
        Ok(subnet)
    }

    /// The address at the upper end of 128 bits.
    fn bits(&self, address: IpAddr) -> u128 {
        match address {
            IpAddr::V4(v4) => u128::from(u32::from(v4)) << 96,
            IpAddr::V6(v6) => u128::from(v6),
        }
    }

    fn contains(&self, other: IpAddr) -> bool {
        let shift = 128 - self.prefix;
        let network = |address| self.bits(address).checked_shr(shift).unwrap_or(0);
        self.address.is_ipv4() == other.is_ipv4() && network(self.address) == network(other)
    }

    fn matches(&self, grains: &Map) -> bool {
        let own = grains.get(if self.address.is_ipv4() { "ipv4" } else { "ipv6" });
        let addresses = match own {
            Some(Value::List(addresses)) => addresses.as_slice(),
            Some(one) => std::slice::from_ref(one),
            None => &[],
        };
        addresses.iter().filter_map(|address| address.as_str()?.parse().ok()).any(|address| self.contains(address))
    }
}

#[cfg(test)]
mod tests;
