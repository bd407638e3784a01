//! What a template says, read without rendering it: names it uses, what it reads of pillar, functions it calls, files it brings in.
//!
//! `lint` asks this of every template of a tree. It is what stands in the text, whether or not a host ever gets there.

use std::collections::BTreeSet;

use super::expression::{Arguments, Kind, Node, Parser, Target};
use super::print::ROOT_NAMES;
use super::rewrite::{Place, rewrite};
use super::scan::{Mistake, Options, Piece, Token, scan};
use super::{filter, test};
use crate::diagnostic::{Code, Diagnostic, Result, Span};

/// A name and where it stands.
pub type Spot = (String, Span);

#[derive(Debug, Default)]
pub struct Outline {
    /// Names that the template uses and binds nowhere, and that no root context has.
    pub free: Vec<Spot>,
    /// Names that it binds.
    pub bound: BTreeSet<String>,
    /// Names that it tests for or gives a default.
    pub guarded: BTreeSet<String>,
    pub pillar: Vec<PillarRead>,
    /// It looks at all of the pillar, or at keys that only a rendering knows.
    pub whole_pillar: bool,
    /// It reads grains by name.
    pub grains: bool,
    /// Execution functions it names.
    pub calls: Vec<Spot>,
    pub filters: Vec<Spot>,
    pub tests: Vec<Spot>,
    /// Files it includes or imports by a name that stands there.
    pub files: Vec<File>,
    /// It includes or imports files by names that are computed.
    pub computed_files: bool,
    /// Tags, by where they stand and whether they can fail or act: a call, a lookup, another file.
    pub tags: Vec<(Span, bool)>,
}

/// A key of the pillar as a template asks for it.
#[derive(Debug)]
pub struct PillarRead {
    /// `a:b:c`; what only a rendering knows is left out at the end.
    pub key: String,
    /// It cannot fail: there is a default, or the function gives one.
    pub default: bool,
    pub span: Span,
}

#[derive(Debug)]
pub struct File {
    pub name: String,
    pub span: Span,
    /// It sees the names of this template.
    pub with_context: bool,
    /// It is read as data (`import_yaml` and its like).
    pub data: bool,
    /// It need not be there.
    pub optional: bool,
}

/// Reads a template. `file` is for places. A mistake in its syntax is an error.
pub fn outline(file: &str, source: &str) -> Result<Outline> {
    let text = source.replace("\r\n", "\n").replace('\r', "\n");
    let fail = |mistake: Mistake| {
        let span = place(file, &text, mistake.offset);
        Box::new(Diagnostic::new(Code::Template, mistake.message).at(span).excerpt_of(&text))
    };
    rewrite(&text, &Place { tplfile: "", tpldir: "" }, super::rewrite::Mode::Whole, Options::default()).map_err(fail)?;
    let mut reader = Reader { file, text: &text, out: Outline::default(), used: Vec::new(), risky: false };
    for piece in scan(&text, Options::default()).map_err(fail)? {
        reader.piece(&piece).map_err(fail)?;
    }
    let Reader { mut out, used, .. } = reader;
    let known = |name: &str| ROOT_NAMES.contains(&name) || matches!(name, "loop" | "self" | "caller" | "varargs" | "kwargs" | "super");
    out.free = used.into_iter().filter(|(name, _)| !known(name) && !out.bound.contains(name)).collect();
    Ok(out)
}

pub fn knows_filter(name: &str) -> bool {
    filter::is_known(name)
}

pub fn knows_test(name: &str) -> bool {
    test::is_known(name)
}

/// All filters and tests, for hints.
pub fn filters() -> impl Iterator<Item = &'static str> {
    filter::all().map(|(name, _)| name)
}

pub fn tests() -> impl Iterator<Item = &'static str> {
    test::all().map(|(name, _)| name)
}

/// Names that every template sees.
pub fn root_names() -> impl Iterator<Item = &'static str> {
    ROOT_NAMES.into_iter().filter(|name| !name.starts_with('_'))
}

fn place(file: &str, text: &str, offset: usize) -> Span {
    let mut end = offset.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = text.get(..end).unwrap_or("");
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    Span::new(file, line as u32, column as u32)
}

struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    out: Outline,
    used: Vec<Spot>,
    /// The current tag holds something that can fail or act.
    risky: bool,
}

type Done = std::result::Result<(), Mistake>;

/// Methods of the pillar's dict; every other attribute is a key.
const METHODS: [&str; 8] = ["get", "items", "keys", "values", "setdefault", "update", "copy", "pop"];

impl Reader<'_> {
    fn span(&self, offset: usize) -> Span {
        place(self.file, self.text, offset)
    }

    fn piece(&mut self, piece: &Piece) -> Done {
        self.risky = false;
        let offset = match piece {
            Piece::Text { .. } => return Ok(()),
            Piece::Print { tokens, offset, end } => {
                let mut parser = Parser::new(tokens, *end, "end of print statement");
                let node = parser.tuple(true, false, &[])?;
                self.node(&node);
                *offset
            }
            Piece::Block { tokens, offset, end } => {
                let mut parser = Parser::new(tokens, *end, "end of statement block");
                let Some(Token::Name(tag)) = parser.peek() else { return Ok(()) };
                parser.advance();
                self.statement(tag, &mut parser)?;
                *offset
            }
        };
        let span = self.span(offset);
        self.out.tags.push((span, self.risky));
        Ok(())
    }

    fn statement(&mut self, tag: &str, p: &mut Parser) -> Done {
        match tag {
            "if" | "elif" => self.tuple(p, &[])?,
            "do" => self.tuple(p, &[])?,
            "for" => {
                let target = p.target(false, "in")?;
                p.expect_name("in")?;
                let items = p.tuple(false, false, &["recursive"])?;
                self.bind(&target);
                self.node(&items);
                if p.skip_name("if") {
                    let test = p.expression()?;
                    self.node(&test);
                }
            }
            "set" => {
                let target = p.target(true, "")?;
                self.bind(&target);
                if p.skip_op("=") {
                    self.tuple(p, &[])?;
                } else if let Some(filters) = p.filter_chain(true)? {
                    self.node(&filters);
                }
            }
            "with" => {
                while let Some(Token::Name(_)) = p.peek() {
                    let name = p.name()?;
                    self.out.bound.insert(name);
                    p.expect_op("=")?;
                    let value = p.expression()?;
                    self.node(&value);
                    p.skip_op(",");
                }
            }
            "macro" => {
                let name = p.name()?;
                self.out.bound.insert(name);
                self.parameters(p)?;
            }
            "call" => {
                if p.is_op("(") {
                    self.parameters(p)?;
                }
                let call = p.expression()?;
                self.node(&call);
            }
            "filter" => {
                if let Some(filters) = p.filter_chain(false)? {
                    self.node(&filters);
                }
            }
            "include" | "extends" => self.file(p, tag == "include", false)?,
            "import" => self.file(p, false, false)?,
            "from" => self.file(p, false, false)?,
            "import_yaml" | "import_json" | "import_text" => self.file(p, false, true)?,
            "load_yaml" | "load_json" | "load_text" => {
                p.expect_name("as")?;
                let target = p.target(false, "")?;
                self.bind(&target);
            }
            _ => {}
        }
        Ok(())
    }

    fn tuple(&mut self, p: &mut Parser, stop: &[&str]) -> Done {
        let node = p.tuple(true, false, stop)?;
        self.node(&node);
        Ok(())
    }

    fn parameters(&mut self, p: &mut Parser) -> Done {
        p.expect_op("(")?;
        while !p.is_op(")") {
            let name = p.name()?;
            self.out.bound.insert(name);
            if p.skip_op("=") {
                let default = p.expression()?;
                self.node(&default);
            }
            if !p.skip_op(",") {
                break;
            }
        }
        Ok(())
    }

    /// `include NAME …`, `import NAME as x …`, `from NAME import a as b, c …`.
    fn file(&mut self, p: &mut Parser, default_context: bool, data: bool) -> Done {
        self.risky = true;
        let name = p.expression()?;
        self.node(&name);
        let (mut with_context, mut optional) = (default_context, false);
        let mut last: Option<String> = None;
        let mut words = Vec::new();
        while let Some(token) = p.peek() {
            if let Token::Name(word) = token {
                words.push(word.clone());
            }
            p.advance();
        }
        let mut words = words.into_iter().peekable();
        while let Some(word) = words.next() {
            match word.as_str() {
                "with" | "without" if words.peek().is_some_and(|next| next == "context") => {
                    with_context = word == "with";
                    words.next();
                }
                "ignore" if words.peek().is_some_and(|next| next == "missing") => {
                    optional = true;
                    words.next();
                }
                "import" => {}
                "as" => last = None,
                _ => {
                    self.out.bound.extend(last.replace(word));
                }
            }
        }
        self.out.bound.extend(last);
        match &name.kind {
            Kind::Str(text) => {
                let span = self.span(name.offset);
                self.out.files.push(File { name: text.clone(), span, with_context, data, optional });
            }
            _ => self.out.computed_files = true,
        }
        Ok(())
    }

    fn bind(&mut self, target: &Target) {
        let mut names = Vec::new();
        target.names(&mut names);
        self.out.bound.extend(names.into_iter().map(str::to_owned));
    }

    fn node(&mut self, node: &Node) {
        if self.pillar_read(node) || self.call(node) {
            return;
        }
        match &node.kind {
            Kind::Name(name) => {
                if matches!(name.as_str(), "pillar" | "__pillar__") {
                    self.out.whole_pillar = true;
                }
                let span = self.span(node.offset);
                self.used.push((name.clone(), span));
            }
            Kind::None | Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) | Kind::Str(_) => {}
            Kind::List(items) | Kind::Tuple(items) | Kind::Concat(items) => items.iter().for_each(|item| self.node(item)),
            Kind::Dict(pairs) => pairs.iter().for_each(|(key, value)| {
                self.node(key);
                self.node(value);
            }),
            Kind::Attribute(of, _) => {
                self.risky |= is_data(of);
                self.out.grains |= is_name(of, "grains");
                self.node(of);
            }
            Kind::Item(of, key) => {
                self.risky |= is_data(of);
                self.out.grains |= is_name(of, "grains");
                self.node(of);
                self.node(key);
            }
            Kind::Slice(of, parts) => {
                self.node(of);
                parts.iter().flatten().for_each(|part| self.node(part));
            }
            Kind::Call(callee, arguments) => {
                self.risky = true;
                self.node(callee);
                self.arguments(arguments);
            }
            Kind::Filter(of, name, arguments) => {
                let span = self.span(node.offset);
                self.out.filters.push((name.clone(), span));
                if let (Some(of), "default" | "d") = (of, name.as_str()) {
                    self.guard(of);
                }
                of.iter().for_each(|of| self.node(of));
                self.arguments(arguments);
            }
            Kind::Test(of, name, arguments) => {
                let span = self.span(node.offset);
                self.out.tests.push((name.clone(), span));
                if matches!(name.as_str(), "defined" | "undefined") {
                    self.guard(of);
                }
                self.node(of);
                self.arguments(arguments);
            }
            Kind::Not(of) | Kind::Sign(_, of) => self.node(of),
            Kind::Binary(_, a, b) | Kind::Logic(_, a, b) => {
                self.node(a);
                self.node(b);
            }
            Kind::Compare(first, rest) => {
                // `'x' in pillar` asks for a key as one with a default does.
                if let (Kind::Str(key), [("in" | "not in", of)]) = (&first.kind, rest.as_slice())
                    && is_pillar(of)
                {
                    let span = self.span(first.offset);
                    self.out.pillar.push(PillarRead { key: key.clone(), default: true, span });
                    return;
                }
                self.node(first);
                rest.iter().for_each(|(_, node)| self.node(node));
            }
            Kind::If { test, then, otherwise } => {
                self.node(test);
                self.node(then);
                otherwise.iter().for_each(|node| self.node(node));
            }
        }
    }

    fn arguments(&mut self, arguments: &Arguments) {
        arguments.positional.iter().for_each(|node| self.node(node));
        arguments.named.iter().for_each(|(_, node)| self.node(node));
        arguments.star.iter().chain(&arguments.double_star).for_each(|node| self.node(node));
    }

    /// The name at the root of what is tested or defaulted, and the pillar key where it is one.
    fn guard(&mut self, node: &Node) {
        match &node.kind {
            Kind::Name(name) => drop(self.out.guarded.insert(name.clone())),
            Kind::Attribute(of, _) | Kind::Item(of, _) => self.guard(of),
            _ => {}
        }
    }

    /// `pillar['a']`, `pillar.a`, `pillar.get('a', …)`.
    fn pillar_read(&mut self, node: &Node) -> bool {
        let (key, default, rest): (&Node, bool, &[Node]) = match &node.kind {
            Kind::Item(of, key) if is_pillar(of) => (key, false, &[]),
            Kind::Attribute(of, name) if is_pillar(of) => {
                if METHODS.contains(&name.as_str()) {
                    return false;
                }
                let span = self.span(node.offset);
                self.risky = true;
                self.out.pillar.push(PillarRead { key: name.clone(), default: false, span });
                return true;
            }
            Kind::Call(callee, arguments) => match &callee.kind {
                Kind::Attribute(of, method) if is_pillar(of) && matches!(method.as_str(), "get" | "pop" | "setdefault") => {
                    match arguments.positional.split_first() {
                        // Without a default it gives None.
                        Some((key, rest)) => (key, true, rest),
                        None => return false,
                    }
                }
                _ => return false,
            },
            _ => return false,
        };
        rest.iter().for_each(|node| self.node(node));
        self.risky = true;
        self.key(key, default, false);
        true
    }

    /// Notes a pillar key, or what of it stands there.
    fn key(&mut self, key: &Node, default: bool, path: bool) {
        let span = self.span(key.offset);
        let (text, whole) = leading(key);
        // Of a computed key only what stands before its last colon is sure.
        let sure = if whole { Some(text) } else { text.rsplit_once(':').filter(|_| path).map(|(before, _)| before.to_owned()) };
        match sure.filter(|key| !key.is_empty()) {
            Some(key) => self.out.pillar.push(PillarRead { key, default: default || !whole, span }),
            None => self.out.whole_pillar = true,
        }
        if !whole {
            self.node(key);
        }
    }

    /// `salt['module.function'](…)`, `salt.module.function(…)`.
    fn call(&mut self, node: &Node) -> bool {
        let (callee, arguments) = match &node.kind {
            Kind::Call(callee, arguments) => (&**callee, Some(arguments)),
            _ => (node, None),
        };
        let Some((name, offset)) = execution(callee) else { return false };
        self.risky = true;
        let span = self.span(offset);
        self.out.calls.push((name.clone(), span));
        let Some(arguments) = arguments else { return true };
        let named = |name: &str| arguments.named.iter().find(|(n, _)| n == name).map(|(_, node)| node);
        match name.as_str() {
            "pillar.get" | "pillar.fetch" | "config.get" => {
                let skip = usize::from(!arguments.positional.is_empty());
                match arguments.positional.first().or_else(|| named("key")) {
                    Some(key) => self.key(key, true, true),
                    None => self.out.whole_pillar = true,
                }
                arguments.positional.iter().skip(skip).for_each(|node| self.node(node));
                arguments.named.iter().filter(|(name, _)| name != "key").for_each(|(_, node)| self.node(node));
                return true;
            }
            "grains.get" | "grains.item" => self.out.grains = true,
            "pillar.items" | "pillar.item" | "pillar.raw" | "pillar.ls" | "pillar.keys" | "pillar.data" | "pillar.obfuscate"
            | "config.items" | "config.option" | "slsutil.renderer" => self.out.whole_pillar = true,
            _ => {}
        }
        self.arguments(arguments);
        true
    }
}

fn is_name(node: &Node, name: &str) -> bool {
    matches!(&node.kind, Kind::Name(n) if n == name)
}

fn is_pillar(node: &Node) -> bool {
    is_name(node, "pillar") || is_name(node, "__pillar__")
}

/// Something whose keys may be missing.
fn is_data(node: &Node) -> bool {
    is_pillar(node) || is_name(node, "grains") || is_name(node, "salt") || is_name(node, "opts")
}

/// The text a key begins with, and whether that is all of it.
fn leading(node: &Node) -> (String, bool) {
    match &node.kind {
        Kind::Str(text) => (text.clone(), true),
        Kind::Concat(parts) => (parts.first().map(|part| leading(part).0).unwrap_or_default(), false),
        Kind::Binary("+", first, _) => (leading(first).0, false),
        Kind::Binary("%", first, _) => (until(&leading(first).0, '%'), false),
        Kind::Filter(Some(of), name, _) if name == "format" => (until(&leading(of).0, '%'), false),
        Kind::Call(callee, _) => match &callee.kind {
            Kind::Attribute(of, method) if method == "format" => (until(&leading(of).0, '{'), false),
            _ => (String::new(), false),
        },
        _ => (String::new(), false),
    }
}

fn until(text: &str, end: char) -> String {
    text.split(end).next().unwrap_or("").to_owned()
}

/// The name of an execution function, and where it stands.
fn execution(node: &Node) -> Option<(String, usize)> {
    let is_salt = |node: &Node| is_name(node, "salt") || is_name(node, "__salt__");
    match &node.kind {
        Kind::Item(of, key) if is_salt(of) => match &key.kind {
            Kind::Str(name) if name.contains('.') => Some((name.clone(), key.offset)),
            _ => None,
        },
        Kind::Attribute(module, function) => match &module.kind {
            Kind::Attribute(of, module) if is_salt(of) => Some((format!("{module}.{function}"), node.offset)),
            _ => None,
        },
        // `salt.get('pillar.get')`
        Kind::Call(callee, arguments) => match (&callee.kind, arguments.positional.first().map(|key| (&key.kind, key.offset))) {
            (Kind::Attribute(of, get), Some((Kind::Str(name), offset))) if is_salt(of) && get == "get" => Some((name.clone(), offset)),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Outline {
        outline("a.sls", text).unwrap()
    }

    #[test]
    fn names_that_are_bound_nowhere_are_free() {
        let out = read(
            "{% set a = b %}{% for c, d in a %}{{ c ~ e }}{% endfor %}{% from 'x' import m, n as o with context %}{{ m(o, p=1) }}{{ n }}",
        );
        assert_eq!(out.free.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["b", "e", "n"]);
        assert_eq!(out.free.first().map(|(_, span)| (span.line, span.column)), Some((1, 12)));
    }

    #[test]
    fn pillar_keys_are_found_in_all_their_forms() {
        let out = read(
            "{{ pillar['a'] }}{{ pillar.b.c }}{{ pillar.get('d') }}{{ pillar.get('e', 1) }}{{ salt['pillar.get']('f:g', {}) }}\
             {{ salt.pillar.get('h:' ~ x) }}{% if 'i' in pillar %}{% endif %}",
        );
        let keys: Vec<(&str, bool)> = out.pillar.iter().map(|read| (read.key.as_str(), read.default)).collect();
        assert_eq!(keys, [("a", false), ("b", false), ("d", true), ("e", true), ("f:g", true), ("h", true), ("i", true)]);
        assert!(!out.whole_pillar);
        assert!(read("{% for k in pillar %}{% endfor %}").whole_pillar);
        assert!(read("{{ pillar[x] }}").whole_pillar);
    }

    #[test]
    fn calls_filters_files_and_guards_are_found() {
        let out = read("{{ salt['cmd.run']('x')|upper }}{% import_yaml 'd.yaml' as d %}{% include 'i' ignore missing %}{{ z|default(1) }}");
        assert_eq!(out.calls.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["cmd.run"]);
        assert_eq!(out.filters.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["upper", "default"]);
        assert_eq!(
            out.files.iter().map(|f| (f.name.as_str(), f.data, f.optional)).collect::<Vec<_>>(),
            [("d.yaml", true, false), ("i", false, true)]
        );
        assert!(out.guarded.contains("z"));
    }

    #[test]
    fn a_mistake_has_its_place() {
        let error = outline("a.sls", "x: 1\n{% if y %}\n").unwrap_err();
        assert_eq!(error.span.map(|s| (s.line, s.column)), Some((2, 1)));
    }
}
