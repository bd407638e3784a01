//! YAML as Salt reads it: version 1.1 with Salt's loader's own rules, ordered, with the place of every node.
//!
//! libyaml's parser (the one Salt's loader uses) gives events; they become a graph of nodes (`compose`), in which anchors are shared
//! and merge keys are still keys, and the graph becomes values (`construct`). What a plain scalar means stands in `scalar`.
//! Duplicate keys are refused, dates stay strings, and `0644` is the number 644.

mod scalar;

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::rc::Rc;
use std::sync::Once;

use libyaml_safer::{EventData, Parser, ScalarStyle};

use crate::budget;
use crate::diagnostic::{Code, Diagnostic, Result, Span};
use crate::value::{Map, Pairs, Value};
use scalar::Tag;

/// How deep collections may stand in each other.
const MAX_DEPTH: usize = 256;
/// How many nodes a document may have for what its aliases name. Guards against a few lines that unfold into gigabytes.
const MAX_NODES: usize = 4_000_000;

/// A place in the text that was read. Both count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub line: u32,
    pub column: u32,
}

/// A value that knows where it and everything in it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub place: Place,
    pub data: Data,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    Scalar(Value),
    List(Vec<Node>),
    /// The place belongs to the key.
    Map(Pairs<Value, (Place, Node)>),
}

impl Node {
    pub fn into_value(self) -> Value {
        match self.data {
            Data::Scalar(value) => value,
            Data::List(items) => Value::List(items.into_iter().map(Node::into_value).collect()),
            Data::Map(entries) => Value::Map(Map(entries.into_iter().map(|(key, (_, node))| (key, node.into_value())).collect())),
        }
    }

    pub fn to_value(&self) -> Value {
        match &self.data {
            Data::Scalar(value) => value.clone(),
            Data::List(items) => Value::List(items.iter().map(Node::to_value).collect()),
            Data::Map(entries) => Value::Map(Map(entries.iter().map(|(key, (_, node))| (key.clone(), node.to_value())).collect())),
        }
    }
}

/// Reads one document. Nothing but blanks and comments is `Null`. `file` is for the place of errors.
pub fn load(text: &str, file: &str) -> Result<Value> {
    Ok(load_spanned(text, file)?.into_value())
}

/// What a plain scalar with this text resolves to, as a tag written out. For those who write YAML.
pub fn plain_tag(text: &str) -> String {
    let short = match scalar::resolve(text) {
        Tag::Null => "null",
        Tag::Bool => "bool",
        Tag::Int => "int",
        Tag::Float => "float",
        Tag::Merge => "merge",
        Tag::Value => "value",
        Tag::Str | Tag::Binary | Tag::Other(_) => "str",
    };
    format!("{}{short}", scalar::PREFIX)
}

/// The same, with places.
pub fn load_spanned(text: &str, file: &str) -> Result<Node> {
    // The parser cannot read a block scalar that ends without a line break: give it one, and take it from the scalar again.
    let open_end = !text.is_empty() && !text.ends_with('\n');
    let ended = if open_end { Cow::Owned(format!("{text}\n")) } else { Cow::Borrowed(text) };
    let open_end = open_end && text.rsplit('\n').next().is_some_and(|line| !line.trim_matches(' ').is_empty());
    let mut input = ended.as_bytes();
    let mut parser = Parser::new();
    parser.set_input_string(&mut input);
    // A text is UTF-8 already: a byte order mark must not be able to make it anything else.
    parser.set_encoding(libyaml_safer::Encoding::Utf8);
    let reader = Reader { parser, text, open_end, last: Place { line: 1, column: 1 } };
    let fail = |problem: Problem| Box::new(problem.diagnostic(file, text));
    let root = Composer { reader, anchors: HashMap::new() }.document().map_err(fail)?;
    match root {
        Some(root) => Constructor { left: MAX_NODES }.node(root).map_err(fail),
        None => Ok(Node { place: Place { line: 1, column: 1 }, data: Data::Scalar(Value::Null) }),
    }
}

/// What is wrong and where, before it is dressed as a diagnostic.
struct Problem {
    place: Place,
    summary: String,
    hint: Option<&'static str>,
    related: Option<(Place, String)>,
    rule: Option<&'static str>,
}

impl Problem {
    fn new(place: Place, summary: impl Into<String>) -> Problem {
        Problem { place, summary: summary.into(), hint: None, related: None, rule: None }
    }

    fn diagnostic(mut self, file: &str, text: &str) -> Diagnostic {
        // What is missing at the end is missing behind the last line.
        if let Some((number, last)) = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).last()
            && self.place.line as usize > number + 1
        {
            self.place = Place { line: number as u32 + 1, column: last.chars().count() as u32 + 1 };
        }
        let span = |place: Place| Span::new(file, place.line, place.column);
        let mut out = Diagnostic::new(Code::Yaml, self.summary).at(span(self.place)).excerpt_of(text);
        out.hint = self.hint.map(str::to_owned);
        out.rule = self.rule.map(Into::into);
        if let Some((place, note)) = self.related {
            out = out.related(span(place), note);
        }
        out
    }
}

type Step<T> = std::result::Result<T, Problem>;

/// The parser, with errors that have a place.
struct Reader<'a, 'b> {
    parser: Parser<&'b mut &'a [u8]>,
    text: &'a str,
    /// The last line has text and no line break.
    open_end: bool,
    /// Where the newest event stood.
    last: Place,
}

fn place(mark: libyaml_safer::Mark) -> Place {
    let count = |n: u64| u32::try_from(n).unwrap_or(u32::MAX - 1) + 1;
    Place { line: count(mark.line), column: count(mark.column) }
}

impl Reader<'_, '_> {
    fn next(&mut self) -> Step<(EventData, Place)> {
        budget::work(1);
        budget::check().map_err(|e| Problem::new(self.last, e.text()))?;
        // The parser panics at some odd tags (`[!a, b]`): input must not be able to end the process.
        match quietly(|| self.parser.parse()) {
            Some(Ok(mut event)) => {
                if let EventData::Scalar { value, style: ScalarStyle::Literal | ScalarStyle::Folded, .. } = &mut event.data
                    && self.open_end
                    && event.end_mark.index >= self.text.len() as u64
                    && value.ends_with('\n')
                {
                    value.pop();
                }
                self.last = place(event.start_mark);
                Ok((event.data, self.last))
            }
            Some(Err(error)) => Err(self.refused(&error)),
            None => {
                let mut problem = Problem::new(self.last, "a tag behind this place cannot be read");
                problem.hint = Some("put a blank between a tag and a comma, and no %-escapes into it");
                Err(problem)
            }
        }
    }

    fn refused(&self, error: &libyaml_safer::Error) -> Problem {
        let mut problem = match error.problem_mark() {
            Some(mark) => Problem::new(place(mark), error.problem()),
            None => Problem::new(self.control_character(), error.problem()),
        };
        if let (Some(context), Some(mark)) = (error.context(), error.context_mark()) {
            problem.related = Some((place(mark), context.to_owned())).filter(|(at, _)| *at != problem.place);
        }
        let line = self.text.lines().nth(problem.place.line.saturating_sub(1) as usize).unwrap_or("");
        problem.hint = if problem.summary.contains("cannot start any token") && line.contains('\t') {
            problem.rule = Some("tabs");
            Some("indent with spaces: YAML does not allow tabs there")
        } else if problem.summary.contains("cannot start any token") {
            Some("put the text in quotes: @, ` and % cannot begin a plain value")
        } else if problem.summary.contains("mapping values are not allowed") && self.lacks_colon(problem.place.line) {
            Some("the line before it lacks its colon")
        } else if problem.summary.contains("mapping values are not allowed") {
            Some("put a value that holds ': ' in quotes, and check the indentation of this line and the one before")
        } else if problem.summary.contains("could not find expected ':'") {
            Some("a key ends with a colon; a text of several lines needs | or > and deeper indentation")
        } else if problem.summary.contains("did not find expected key") || problem.summary.contains("did not find expected '-'") {
            Some("this line is indented otherwise than the lines it belongs to, or a quote or bracket before it is not closed")
        } else {
            None
        };
        problem
    }

    /// Whether the line before this one is a plain word, indented less.
    fn lacks_colon(&self, line: u32) -> bool {
        let lines: Vec<&str> = self.text.lines().take(line as usize).filter(|line| !line.trim().is_empty()).collect();
        let [.., before, here] = lines.as_slice() else { return false };
        let indent = |text: &str| text.len() - text.trim_start().len();
        indent(before) < indent(here) && !before.contains(':') && !before.trim_start().starts_with(['#', '-'])
    }

    /// The place of the first character YAML does not allow: the reader's errors know only an offset.
    fn control_character(&self) -> Place {
        let allowed = |c: char| matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{7e}' | '\u{85}' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
        for (number, line) in self.text.split('\n').enumerate() {
            if let Some(column) = line.chars().position(|c| !allowed(c)) {
                return Place { line: number as u32 + 1, column: column as u32 + 1 };
            }
        }
        Place { line: 1, column: 1 }
    }
}

thread_local! {
    /// A panic of this thread is expected and says nothing.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs what may panic; `None` if it did, without a word on standard error.
fn quietly<T>(task: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| {
            if !QUIET.get() {
                before(info);
            }
        }));
    });
    QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(task));
    QUIET.set(false);
    result.ok()
}

/// A node of the graph.
struct Raw {
    place: Place,
    data: RawData,
}

enum RawData {
    Scalar(Tag, String),
    List(Vec<Raw>),
    Map(Vec<(Raw, Raw)>),
    /// What has an anchor, where it stands and where it is named again.
    Shared(Rc<Raw>),
}

impl Raw {
    fn kind(&self) -> &'static str {
        match &self.data {
            RawData::Scalar(..) => "a scalar",
            RawData::List(_) => "a list",
            RawData::Map(_) => "a mapping",
            RawData::Shared(raw) => raw.kind(),
        }
    }

    fn scalar(&self) -> Option<(&Tag, &str)> {
        match &self.data {
            RawData::Scalar(tag, text) => Some((tag, text)),
            RawData::Shared(raw) => raw.scalar(),
            RawData::List(_) | RawData::Map(_) => None,
        }
    }
}

struct Composer<'a, 'b> {
    reader: Reader<'a, 'b>,
    /// `None` while the node is still being read: an alias to it would be a circle.
    anchors: HashMap<String, (Place, Option<Rc<Raw>>)>,
}

impl Composer<'_, '_> {
    fn document(mut self) -> Step<Option<Raw>> {
        let mut root = None;
        loop {
            match self.reader.next()? {
                (EventData::StreamEnd, _) => return Ok(root),
                (EventData::DocumentStart { .. }, at) => {
                    if root.is_some() {
                        let mut problem = Problem::new(at, "a second document begins here, and only one is allowed");
                        problem.hint = Some("take the --- out");
                        return Err(problem);
                    }
                    let event = self.reader.next()?;
                    root = Some(self.node(event, 0)?);
                }
                _ => {}
            }
        }
    }

    fn node(&mut self, (event, at): (EventData, Place), depth: usize) -> Step<Raw> {
        if depth > MAX_DEPTH {
            return Err(Problem::new(at, format!("lists and mappings stand in each other more than {MAX_DEPTH} deep")));
        }
        let (anchor, data) = match event {
            EventData::Alias { anchor } => return self.named(&anchor, at),
            EventData::Scalar { anchor, tag, value, plain_implicit, .. } => {
                self.announce(&anchor, at)?;
                let tag = match tag.as_deref() {
                    None | Some("!") if plain_implicit => scalar::resolve(&value),
                    None | Some("!") => Tag::Str,
                    Some(tag) => scalar::named(tag),
                };
                (anchor, RawData::Scalar(tag, value))
            }
            EventData::SequenceStart { anchor, tag, .. } => {
                self.announce(&anchor, at)?;
                only_tag(&tag, "seq", at)?;
                (anchor, RawData::List(self.items(depth + 1)?))
            }
            EventData::MappingStart { anchor, tag, .. } => {
                self.announce(&anchor, at)?;
                only_tag(&tag, "map", at)?;
                (anchor, RawData::Map(self.entries(depth + 1)?))
            }
            _ => return Err(Problem::new(at, "the document ends too early")),
        };
        let node = Raw { place: at, data };
        let Some(anchor) = anchor else { return Ok(node) };
        let shared = Rc::new(node);
        self.anchors.insert(anchor, (at, Some(shared.clone())));
        Ok(Raw { place: at, data: RawData::Shared(shared) })
    }

    // Functions of their own, so that what is nested deeply needs less of the stack.
    fn items(&mut self, depth: usize) -> Step<Vec<Raw>> {
        let mut items = Vec::new();
        loop {
            match self.reader.next()? {
                (EventData::SequenceEnd, _) => return Ok(items),
                event => items.push(self.node(event, depth)?),
            }
        }
    }

    fn entries(&mut self, depth: usize) -> Step<Vec<(Raw, Raw)>> {
        let mut entries = Vec::with_capacity(1); // nearly all have one
        loop {
            match self.reader.next()? {
                (EventData::MappingEnd, _) => return Ok(entries),
                event => {
                    let key = self.node(event, depth)?;
                    let value = self.reader.next()?;
                    entries.push((key, self.node(value, depth)?));
                }
            }
        }
    }

    /// What an alias stands for.
    fn named(&self, anchor: &str, at: Place) -> Step<Raw> {
        match self.anchors.get(anchor) {
            Some((_, Some(node))) => Ok(Raw { place: node.place, data: RawData::Shared(node.clone()) }),
            Some((_, None)) => Err(Problem::new(at, format!("*{anchor} stands inside of what it names"))),
            None => Err(Problem::new(at, format!("there is no &{anchor} before this *{anchor}"))),
        }
    }

    fn announce(&mut self, anchor: &Option<String>, at: Place) -> Step<()> {
        if let Some(anchor) = anchor
            && let Some((first, _)) = self.anchors.insert(anchor.clone(), (at, None))
        {
            let mut problem = Problem::new(at, format!("the anchor &{anchor} is there twice"));
            problem.related = Some((first, "the first one".into()));
            return Err(problem);
        }
        Ok(())
    }
}

/// Collections have no other tags than their own; Salt reads `!!omap` as a mapping.
fn only_tag(tag: &Option<String>, own: &str, at: Place) -> Step<()> {
    match tag.as_deref() {
        None | Some("!") => Ok(()),
        Some(tag) => match tag.strip_prefix(scalar::PREFIX) {
            Some(short) if short == own || (own == "map" && short == "omap") => Ok(()),
            _ => Err(Problem::new(at, format!("{} is no tag that can be read here", scalar::shown(tag)))),
        },
    }
}

struct Constructor {
    /// How many nodes aliases may still add.
    left: usize,
}

impl Constructor {
    fn node(&mut self, raw: Raw) -> Step<Node> {
        let place = raw.place;
        budget::check().map_err(|e| Problem::new(place, e.text()))?;
        let data = match raw.data {
            RawData::Scalar(tag, text) => Data::Scalar(scalar::construct(tag, text).map_err(|summary| Problem::new(place, summary))?),
            RawData::List(items) => Data::List(items.into_iter().map(|item| self.node(item)).collect::<Step<_>>()?),
            RawData::Map(entries) => Data::Map(self.map(entries)?),
            RawData::Shared(shared) => {
                let own = self.own(shared)?;
                return self.node(own);
            }
        };
        Ok(Node { place, data })
    }

    /// What is shared, for one place where it stands.
    fn own(&mut self, shared: Rc<Raw>) -> Step<Raw> {
        Rc::try_unwrap(shared).or_else(|shared| self.copy(&shared))
    }

    fn copy(&mut self, raw: &Raw) -> Step<Raw> {
        // A long text that many aliases name counts each time.
        let size = if let RawData::Scalar(_, text) = &raw.data { 1 + text.len() / 64 } else { 1 };
        self.left =
            self.left.checked_sub(size).ok_or_else(|| Problem::new(raw.place, "the document's aliases unfold into too many values"))?;
        budget::check().map_err(|e| Problem::new(raw.place, e.text()))?;
        let data = match &raw.data {
            RawData::Scalar(tag, text) => RawData::Scalar(tag.clone(), text.clone()),
            RawData::List(items) => RawData::List(items.iter().map(|item| self.copy(item)).collect::<Step<_>>()?),
            RawData::Map(entries) => {
                let entry = |(key, value): &(Raw, Raw)| Ok((self.copy(key)?, self.copy(value)?));
                RawData::Map(entries.iter().map(entry).collect::<Step<_>>()?)
            }
            RawData::Shared(raw) => RawData::Shared(raw.clone()),
        };
        Ok(Raw { place: raw.place, data })
    }

    fn map(&mut self, mut entries: Vec<(Raw, Raw)>) -> Step<Pairs<Value, (Place, Node)>> {
        if entries.iter().any(|(key, _)| is_merge(key)) {
            entries = self.flatten(entries)?;
        }
        let mut out = Pairs::with_capacity(entries.len());
        for (key, value) in entries {
            let place = key.place;
            let name = match key.scalar() {
                // `=` is a tag of its own in YAML 1.1, and a string as a key.
                Some((Tag::Value, text)) => Value::str(text),
                Some(_) => self.node(key)?.into_value(),
                None => {
                    let mut problem = Problem::new(place, format!("{} cannot be a key", key.kind()));
                    problem.hint = Some("a value that begins with { or [ must be in quotes, {{ … }} of a template too where it is to stay");
                    return Err(problem);
                }
            };
            let node = self.node(value)?;
            if let Some((first, _)) = out.get(&name) {
                let mut problem = Problem::new(place, format!("the key {:?} is there twice", name.to_text()));
                problem.rule = Some("duplicate-key");
                problem.related = Some((*first, "the first one".into()));
                problem.hint = Some("keys of one mapping, such as the ids of one SLS, must differ");
                return Err(problem);
            }
            out.insert(name, (place, node));
        }
        Ok(out)
    }

    /// A mapping's entries with what its merge keys name put before them. Of a list of mappings the first wins by standing last, as in Salt;
    /// what two of them hold is a duplicate.
    fn flatten(&mut self, entries: Vec<(Raw, Raw)>) -> Step<Vec<(Raw, Raw)>> {
        let (merges, mut own): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(key, _)| is_merge(key));
        let mut merged = Vec::new();
        for (_, value) in merges {
            match self.opened(value)? {
                Raw { data: RawData::Map(inner), .. } => merged.extend(self.flatten(inner)?),
                Raw { data: RawData::List(items), .. } => {
                    for item in items.into_iter().rev() {
                        match self.opened(item)? {
                            Raw { data: RawData::Map(inner), .. } => merged.extend(self.flatten(inner)?),
                            other => return Err(Problem::new(other.place, format!("<< merges mappings, and this is {}", other.kind()))),
                        }
                    }
                }
                other => return Err(Problem::new(other.place, "<< merges a mapping or a list of mappings, and this is a scalar")),
            }
        }
        {
            let mine: HashSet<&str> = own.iter().filter_map(|(key, _)| Some(key.scalar()?.1)).collect();
            merged.retain(|(key, _)| key.scalar().is_none_or(|(_, text)| !mine.contains(text)));
        }
        merged.append(&mut own);
        Ok(merged)
    }

    fn opened(&mut self, raw: Raw) -> Step<Raw> {
        if let RawData::Shared(shared) = raw.data { self.own(shared) } else { Ok(raw) }
    }
}

fn is_merge(key: &Raw) -> bool {
    matches!(key.scalar(), Some((Tag::Merge, _)))
}

#[cfg(test)]
mod tests;
