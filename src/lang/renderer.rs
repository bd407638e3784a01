//! From the text of an SLS to data: the pipe of renderers that its first line or the settings name, `jinja|yaml` by default.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::decrypt::{Cipher, Piece, Unlock};
use super::jinja::{self, Lines};
use super::root::File;
use crate::diagnostic::{Code, Diagnostic, Result, Span};
use crate::value::Value;
use crate::yaml::{self, Node, Place};

/// Where the lines of a rendered text come from.
#[derive(Clone, Debug)]
pub struct Origin {
    file: Arc<File>,
    text: Arc<str>,
    /// Nothing where the text is that of the file.
    made: Option<Arc<Made>>,
}

/// What is known of a text that a template made.
#[derive(Debug)]
struct Made {
    lines: Lines,
    /// The template. (To ask the file for it again would check all of its UTF-8 again.)
    source: Arc<str>,
    /// Where the lines of the template and of the text begin.
    source_lines: Vec<usize>,
    text_lines: Vec<usize>,
}

/// Where the lines of a text begin.
fn starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1)).collect()
}

/// A line by its number, without its end.
fn line<'a>(text: &'a str, starts: &[usize], number: u32) -> Option<&'a str> {
    let rest = text.get(*starts.get(number.checked_sub(1)? as usize)?..)?;
    rest.lines().next()
}

impl Origin {
    /// A place in the text as a place in the file that printed it.
    pub fn span(&self, place: Place) -> Span {
        let Some(made) = &self.made else { return Span::new(self.file.shown.clone(), place.line, place.column) };
        let Some((mut span, source)) = made.lines.locate(place.line) else { return Span::new(self.file.shown.clone(), 1, 1) };
        let own = source.file == self.file.shown;
        let written =
            if own { line(&made.source, &made.source_lines, span.line) } else { line(&source.text, &starts(&source.text), span.line) };
        span.column = column(written.unwrap_or(""), line(&self.text, &made.text_lines, place.line).unwrap_or(""), place.column);
        span
    }

    /// The template that printed a line of the text.
    fn source(&self, line: u32) -> jinja::Source {
        let made = self.made.as_ref().and_then(|made| made.lines.locate(line));
        made.map_or_else(
            || jinja::Source { file: self.file.shown.clone(), text: self.file.text().unwrap_or("").into() },
            |(_, source)| source.clone(),
        )
    }

    /// The rest of the line at a place of the text.
    pub fn text_at(&self, place: Place) -> &str {
        let line = self.text.lines().nth(place.line.saturating_sub(1) as usize).unwrap_or("");
        line.char_indices().nth(place.column.saturating_sub(1) as usize).and_then(|(at, _)| line.get(at..)).unwrap_or("")
    }

    /// Adds the lines around a place: of the file, and what the template made of them where that is another line.
    pub fn excerpt(&self, error: Diagnostic, place: Place) -> Diagnostic {
        let Some(made) = &self.made else { return error.excerpt_of(self.file.text().unwrap_or("")) };
        let Some((span, source)) = made.lines.locate(place.line) else { return error.excerpt_of(&made.source) };
        let mut error = error.excerpt_of(&source.text);
        let there = line(&self.text, &made.text_lines, place.line);
        if there != line(&source.text, &starts(&source.text), span.line) {
            let rendered = Diagnostic::new(Code::Yaml, "").at(Span::new("", place.line, place.column)).excerpt_of(&self.text);
            let parts = [error.excerpt.take(), rendered.excerpt.map(|lines| format!("the template made of it:\n{lines}"))];
            error.excerpt = Some(parts.into_iter().flatten().collect::<Vec<_>>().join("\n")).filter(|text| !text.is_empty());
        }
        error
    }
}

/// The column of a template's line that printed this column of the line that was made of it: the same where they are alike up to it or from it
/// on, else where they part.
fn column(written: &str, made: &str, column: u32) -> u32 {
    let (written, made): (Vec<char>, Vec<char>) = (written.chars().collect(), made.chars().collect());
    let at = column.saturating_sub(1) as usize;
    let alike = written.iter().zip(&made).take_while(|(a, b)| a == b).count();
    let tail = made.get(at..).unwrap_or_default();
    let found = if alike >= at {
        at
    } else if tail.len() > 1 && written.ends_with(tail) {
        written.len() - tail.len()
    } else {
        // Not behind the brace that begins a tag, and not in the indentation.
        let part = if alike > 0 && written.get(alike - 1) == Some(&'{') { alike - 1 } else { alike };
        part.max(written.iter().take_while(|c| c.is_whitespace()).count())
    };
    found as u32 + 1
}

/// A file as data.
#[derive(Clone)]
pub struct Rendered {
    pub node: Arc<Node>,
    pub origin: Origin,
}

/// What a renderer of the pipe is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Jinja,
    Yaml,
    Json,
    Text,
    /// Decrypts the values of data, or the messages in a text.
    Decrypt(Cipher),
}

/// The last text of a file, and what it is as data.
type Parsed = (Arc<str>, Arc<Node>);

/// Renders files; what the YAML of a file was last is kept, so that hosts for which it is the same share it.
#[derive(Default)]
pub struct Files {
    parsed: Mutex<HashMap<Arc<str>, Parsed>>,
    /// By the name that places have.
    rendered: Mutex<HashMap<Arc<str>, Arc<File>>>,
}

impl Files {
    /// Renders a file through its pipe. `template` renders the text by Jinja.
    pub fn render(
        &self,
        file: &Arc<File>,
        default_pipe: &str,
        unlock: &Unlock,
        template: &dyn Fn(&str) -> Result<jinja::Rendered>,
    ) -> Result<Rendered> {
        self.rendered.lock().unwrap_or_else(PoisonError::into_inner).entry(file.shown.clone()).or_insert_with(|| file.clone());
        let source = file.text()?;
        let steps = pipe(source, default_pipe, file)?;
        let mut origin = Origin { file: file.clone(), text: source.into(), made: None };
        let nothing = || Node { place: Place { line: 1, column: 1 }, data: yaml::Data::Scalar(Value::Null) };
        if source.trim().is_empty() {
            return Ok(Rendered { node: Arc::new(nothing()), origin });
        }
        if let Some(node) = unlock.sops(source, &file.shown)? {
            return Ok(Rendered { node: Arc::new(node), origin });
        }
        let mut data: Option<Arc<Node>> = None;
        for step in steps {
            match (step, &data) {
                (Step::Decrypt(cipher), Some(node)) => data = Some(Arc::new(decrypted(node, cipher, unlock, &origin)?)),
                (Step::Decrypt(cipher), None) => decrypt_text(&mut origin, source, cipher, unlock)?,
                // Data is not rendered any further.
                (_, Some(_)) => {}
                (Step::Jinja, None) => {
                    let rendered = template(&origin.text)?;
                    if *rendered.text != *origin.text {
                        let (source_lines, text_lines) = (starts(source), starts(&rendered.text));
                        origin.made = Some(Arc::new(Made { lines: rendered.lines, source: source.into(), source_lines, text_lines }));
                        origin.text = rendered.text.into();
                    }
                }
                (Step::Yaml, None) => data = Some(self.yaml(&origin)?),
                (Step::Json, None) => data = Some(Arc::new(json(&origin)?)),
                (Step::Text, None) => {
                    let mut node = nothing();
                    node.data = yaml::Data::Scalar(Value::str(without_first_line(&origin.text).trim_start_matches(' ')));
                    data = Some(Arc::new(node));
                }
            }
        }
        if let Some(node) = data {
            unlock.secrets.read(&origin.text, &node);
            return Ok(Rendered { node, origin });
        }
        Err(Box::new(
            Diagnostic::new(Code::Template, format!("{} is rendered to text, and data is wanted", file.shown))
                .at(Span::new(file.shown.clone(), 1, 0))
                .hint("end the pipe in its first line with |yaml or |json"),
        ))
    }

    /// Adds the line that an error found later than in its text is about.
    pub fn excerpt(&self, error: Diagnostic) -> Diagnostic {
        let file =
            error.span.as_ref().and_then(|span| self.rendered.lock().unwrap_or_else(PoisonError::into_inner).get(&span.file).cloned());
        match file.as_ref().and_then(|file| file.text().ok()) {
            Some(text) => error.narrowed(text).excerpt_of(text),
            None => error,
        }
    }

    fn yaml(&self, origin: &Origin) -> Result<Arc<Node>> {
        let name = &origin.file.shown;
        let known = self.parsed.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if let Some((text, node)) = known
            && *text == *origin.text
        {
            return Ok(node);
        }
        let node = Arc::new(yaml::load_spanned(&origin.text, name).map_err(|error| relocate(*error, origin))?);
        self.parsed.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), (origin.text.clone(), node.clone()));
        Ok(node)
    }
}

/// An error in the rendered text, as one in the file.
fn relocate(mut error: Diagnostic, origin: &Origin) -> Box<Diagnostic> {
    if origin.made.is_none() {
        return Box::new(error);
    }
    let place = |span: &Span| Place { line: span.line, column: span.column };
    if let Some(span) = &error.span {
        let there = place(span);
        error.span = Some(origin.span(there));
        error = origin.excerpt(Diagnostic { excerpt: None, ..error }, there);
    }
    for (span, _) in &mut error.related {
        *span = origin.span(place(span));
    }
    Box::new(error)
}

fn json(origin: &Origin) -> Result<Node> {
    let value: Value = serde_json::from_str(&without_first_line(&origin.text)).map_err(|error| {
        let place = Place { line: error.line() as u32, column: error.column() as u32 };
        Box::new(origin.excerpt(Diagnostic::new(Code::Yaml, format!("cannot be read as JSON: {error}")).at(origin.span(place)), place))
    })?;
    Ok(node_of(value))
}

/// The text with blanks in place of a `#!` line, which is no comment in what is not YAML. Places stay.
fn without_first_line(text: &str) -> String {
    let line = text.lines().next().filter(|line| line.starts_with("#!")).map_or(0, str::len);
    " ".repeat(line) + text.get(line..).unwrap_or_default()
}

fn node_of(value: Value) -> Node {
    let place = Place { line: 1, column: 1 };
    let data = match value {
        Value::List(items) => yaml::Data::List(items.into_iter().map(node_of).collect()),
        Value::Map(map) => yaml::Data::Map(map.into_iter().map(|(key, value)| (key, (place, node_of(value)))).collect()),
        scalar => yaml::Data::Scalar(scalar),
    };
    Node { place, data }
}

/// The renderers of a file: those of its `#!` line, else the default ones.
fn pipe(source: &str, default: &str, file: &File) -> Result<Vec<Step>> {
    let first = source.lines().next().unwrap_or("");
    let named = first.strip_prefix("#!").filter(|rest| !rest.starts_with('/'));
    let text = named.unwrap_or(default).trim();
    // Salt's old names, format first.
    let text = match text {
        "yaml_jinja" => "jinja|yaml",
        "json_jinja" => "jinja|json",
        other => other,
    };
    let mut steps = Vec::new();
    for part in text.split('|') {
        let name = part.split_whitespace().next().unwrap_or("");
        steps.push(match name {
            "jinja" => Step::Jinja,
            "yaml" | "yaml_odict" => Step::Yaml,
            "json" => Step::Json,
            "text" => Step::Text,
            _ => match Cipher::renderer(name) {
                Some(cipher) => Step::Decrypt(cipher),
                None => return Err(Box::new(unknown(name, file))),
            },
        });
    }
    let data = steps.iter().position(|step| matches!(step, Step::Yaml | Step::Json));
    if data.is_some_and(|data| steps.iter().skip(data + 1).any(|step| !matches!(step, Step::Decrypt(_)))) {
        let error = Diagnostic::new(Code::Template, format!("in {}, a renderer of texts stands behind one that makes data", file.shown));
        let error = error.at(Span::new(file.shown.clone(), 1, 3)).excerpt_of(source);
        return Err(Box::new(error.hint("renderers work from left to right: jinja|yaml")));
    }
    Ok(steps)
}

/// Data with its values decrypted.
fn decrypted(node: &Node, cipher: Cipher, unlock: &Unlock, origin: &Origin) -> Result<Node> {
    unlock.node(cipher, node).map_err(|(place, error)| Box::new(origin.excerpt(error.at(origin.span(place)), place)))
}

/// A text with its messages decrypted, before it is data.
fn decrypt_text(origin: &mut Origin, source: &str, cipher: Cipher, unlock: &Unlock) -> Result<()> {
    let text = origin.text.clone();
    let place = |offset: usize| Place { line: text.get(..offset).unwrap_or_default().matches('\n').count() as u32 + 1, column: 1 };
    let pieces = unlock.pieces(cipher, &text).map_err(|(offset, error)| {
        let place = place(offset);
        Box::new(origin.excerpt(error.at(origin.span(place)), place))
    })?;
    let Some(pieces) = pieces else { return Ok(()) };
    let (mut out, mut lines, mut line) = (String::new(), Lines::default(), 1);
    for piece in &pieces {
        // As if a template had printed what the message says.
        let span = origin.span(Place { line, column: 1 });
        let source = origin.source(line);
        lines.mark(&out, span, source, matches!(piece, Piece::Plain(_)));
        out.push_str(piece.text());
        line += match piece {
            Piece::Plain(text) | Piece::Message(text, _) => text.matches('\n').count() as u32,
        };
    }
    let (source_lines, text_lines) = (starts(source), starts(&out));
    origin.made = Some(Arc::new(Made { lines, source: source.into(), source_lines, text_lines }));
    origin.text = out.into();
    Ok(())
}

fn unknown(name: &str, file: &File) -> Diagnostic {
    let error =
        Diagnostic::new(Code::Template, format!("{}: there is no renderer {name:?}", file.shown)).at(Span::new(file.shown.clone(), 1, 3));
    let error = error.excerpt_of(file.text().unwrap_or(""));
    match name {
        "py" | "pydsl" | "pyobjects" | "mako" | "wempy" | "cheetah" | "genshi" | "stateconf" | "dson" | "hjson" | "yamlex" | "pass"
        | "nacl" => error.detail("It is one of Salt's, and runs Python or needs it.").hint("rewrite the file for jinja|yaml"),
        _ => error.hint("basalt has jinja, yaml, json, text, gpg and age"),
    }
}

#[cfg(test)]
mod tests {
    use super::column;

    #[test]
    fn a_column_of_what_was_made_is_one_of_the_template() {
        for (written, made, at, want) in [
            ("a: b", "a: b", 4, 4),
            ("    - mode: {{ mode }}", "    - mode: [0644", 13, 13),
            ("{{ name }}: [1, 2", "web server: [1, 2", 13, 13),
            ("  {{ key }}: {{ value }}", "  a: b: c", 7, 3),
            ("    {% if x %}{% endif %}", "a: b", 1, 1),
        ] {
            assert_eq!(column(written, made, at), want, "{written}");
        }
    }
}
