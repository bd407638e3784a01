//! From a template's source to source for the engine below, statement by statement.
//!
//! A template can be rewritten in two ways. As a `Whole` it sees the variables of whoever renders, includes or imports it. `Alone`
//! (imported or included without context) a prologue hides every name it mentions, so that only the root context shows through.

mod files;
mod macros;

use super::expression::{Kind, Node, Parser, Target};
use super::print::{Printer, ROOT_NAMES, Table, block_ident, ident};
use super::scan::{Mistake, Options, Piece, Spot, Token, scan};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Whole,
    Alone,
}

pub struct Rewritten {
    pub source: String,
    pub table: Table,
    /// Names that the template binds.
    pub names: Vec<String>,
}

/// Where a template lives: what `tplfile` and relative names in it mean.
pub struct Place<'a> {
    pub tplfile: &'a str,
    pub tpldir: &'a str,
}

pub fn rewrite(source: &str, place: &Place, mode: Mode, options: Options) -> Result<Rewritten, Mistake> {
    let normal = normalize(source);
    let text = normal.as_deref().unwrap_or(source);
    // Jinja drops one line break at the very end; Renderer adds it again.
    let text = text.strip_suffix('\n').unwrap_or(text);
    let mut rewriter = Rewriter { printer: Printer::default(), place, open: Vec::new(), source: text, line: 0, counted: 0, serial: 0 };
    rewriter.printer.scopes.push(Default::default());
    for piece in scan(text, options)? {
        rewriter.piece(piece)?;
    }
    if let Some(open) = rewriter.open.last() {
        let closers = open.tag.closers().iter().map(|c| format!("'{c}'")).collect::<Vec<_>>().join(" or ");
        let message = format!(
            "Unexpected end of template. Jinja was looking for the following tags: {closers}. The innermost block that needs to be closed is '{}'.",
            open.tag.name()
        );
        return Err(Mistake::new(open.offset, message));
    }
    let Printer { out, table, used, bound, .. } = rewriter.printer;
    let names = bound.iter().cloned().collect();
    if mode == Mode::Whole {
        return Ok(Rewritten { source: out, table, names });
    }
    let mut prologue = Printer::default();
    for (name, value) in [("tplfile", place.tplfile), ("tpldir", place.tpldir), ("tpldot", &place.tpldir.replace('/', "."))] {
        prologue.push(&format!("{{% set v_{name} = "));
        prologue.string(value);
        prologue.push(" %}");
    }
    for name in used.union(&bound) {
        if ROOT_NAMES.contains(&name.as_str()) && !bound.contains(name) {
            continue;
        }
        prologue.push(&format!("{{% set {} = ", ident(name)));
        prologue.string(name);
        prologue.push("|_root %}");
    }
    let shift = prologue.out.len() as u32;
    let table = table.into_iter().map(|(printed, offset)| (printed + shift, offset)).collect();
    Ok(Rewritten { source: prologue.out + &out, table, names })
}

/// Line breaks as Jinja reads them. `None`: they are so already.
fn normalize(source: &str) -> Option<String> {
    source.contains('\r').then(|| source.replace("\r\n", "\n").replace('\r', "\n"))
}

/// As many branches as an `if` may have: the engine nests each in the one before.
const BRANCHES: usize = 300;

enum Tag {
    If { otherwise: bool, branches: usize },
    For { targets: usize, otherwise: bool },
    SetBlock { target: Target, filter: Option<Node> },
    With,
    Filter,
    Macro { name: String, parameters: Vec<String>, defaults: usize },
    Call { id: usize, parameters: Vec<String>, defaults: usize, call: Box<Node> },
    Block,
    Load { what: &'static str, target: Target },
    Profile,
}

impl Tag {
    fn name(&self) -> &'static str {
        match self {
            Tag::If { .. } => "if",
            Tag::For { .. } => "for",
            Tag::SetBlock { .. } => "set",
            Tag::With => "with",
            Tag::Filter => "filter",
            Tag::Macro { .. } => "macro",
            Tag::Call { .. } => "call",
            Tag::Block => "block",
            Tag::Load { what: "yaml", .. } => "load_yaml",
            Tag::Load { what: "json", .. } => "load_json",
            Tag::Load { .. } => "load_text",
            Tag::Profile => "profile",
        }
    }

    fn closers(&self) -> &'static [&'static str] {
        match self {
            Tag::If { otherwise: false, .. } => &["elif", "else", "endif"],
            Tag::If { otherwise: true, .. } => &["endif"],
            Tag::For { otherwise: false, .. } => &["endfor", "else"],
            Tag::For { otherwise: true, .. } => &["endfor"],
            Tag::SetBlock { .. } => &["endset"],
            Tag::With => &["endwith"],
            Tag::Filter => &["endfilter"],
            Tag::Macro { .. } => &["endmacro"],
            Tag::Call { .. } => &["endcall"],
            Tag::Block => &["endblock"],
            Tag::Load { .. } => &["endload"],
            Tag::Profile => &["endprofile"],
        }
    }
}

/// As deep as blocks may nest; minijinja's own parser goes no deeper.
const DEPTH: usize = 150;

struct Open {
    tag: Tag,
    offset: usize,
    /// Loops that were open outside, where the tag starts a world of its own.
    loops: usize,
}

struct Rewriter<'a> {
    printer: Printer,
    place: &'a Place<'a>,
    open: Vec<Open>,
    source: &'a str,
    /// The line at `counted`, for the markers.
    line: usize,
    counted: usize,
    serial: usize,
}

type Done = Result<(), Mistake>;

impl Rewriter<'_> {
    fn piece(&mut self, piece: Piece) -> Done {
        match piece {
            Piece::Text { text, offset } => {
                self.marker(offset, true);
                let raw = text.contains("{{") || text.contains("{%") || text.contains("{#") || text.ends_with('{');
                if raw {
                    self.printer.push("{{ ");
                    self.printer.string(&text);
                    self.printer.push(" }}");
                } else {
                    self.printer.push(&text);
                }
                Ok(())
            }
            Piece::Print { tokens, offset, end } => {
                self.marker(offset, false);
                let mut parser = Parser::new(&tokens, end, "end of print statement");
                let node = parser.tuple(true, false, &[])?;
                parser.finish()?;
                self.printer.push("{{ ");
                self.printer.mark(node.offset);
                self.printer.expression(&node);
                self.printer.push(" }}");
                Ok(())
            }
            Piece::Block { tokens, offset, end } => self.statement(&tokens, offset, end),
        }
    }

    /// Notes at run time which line of the source the output has reached. Macros print elsewhere; their lines are not noted.
    fn marker(&mut self, offset: usize, text: bool) {
        if self.open.iter().any(|o| matches!(o.tag, Tag::Macro { .. } | Tag::Call { .. } | Tag::SetBlock { .. } | Tag::Load { .. })) {
            return;
        }
        if let Some(between) = self.source.get(self.counted..offset) {
            self.line += between.bytes().filter(|b| *b == b'\n').count();
            self.counted = offset;
        }
        let line = self.line + 1;
        self.printer.push(&if text { format!("{{{{ {line}|_at }}}}") } else { format!("{{{{ {line}|_at(0) }}}}") });
    }

    fn statement(&mut self, tokens: &[Spot], offset: usize, end: usize) -> Done {
        if self.open.len() >= DEPTH {
            return Err(Mistake::new(offset, "blocks are nested too deeply"));
        }
        let mut parser = Parser::new(tokens, end, "end of statement block");
        let Some(Token::Name(tag)) = parser.peek() else {
            return Err(Mistake::new(offset, "tag name expected"));
        };
        let at = parser.offset();
        parser.advance();
        let p = &mut parser;
        match tag.as_str() {
            "if" => self.start_if(p, offset)?,
            "elif" | "else" => self.branch(p, tag, at)?,
            "for" => self.start_for(p, offset)?,
            "set" => self.set(p, offset)?,
            "do" => {
                let node = p.tuple(true, false, &[])?;
                self.printer.push("{{ ");
                self.printer.expression(&node);
                self.printer.push("|_do }}");
            }
            "with" => self.start_with(p, offset)?,
            "macro" => self.start_macro(p, offset)?,
            "call" => self.start_call(p, offset)?,
            "filter" => {
                self.printer.push("{% with %}{% filter ");
                if let Some(node) = p.filter_chain(false)? {
                    self.printer.expression(&node);
                }
                self.printer.push(" %}");
                self.enter(Tag::Filter, offset, true);
            }
            "include" => self.include(p, at)?,
            "import" => self.import(p, at, None)?,
            "from" => self.import_names(p, at)?,
            "import_yaml" => self.import(p, at, Some("yaml"))?,
            "import_json" => self.import(p, at, Some("json"))?,
            "import_text" => self.import(p, at, Some("text"))?,
            "load_yaml" => self.start_load(p, offset, "yaml")?,
            "load_json" => self.start_load(p, offset, "json")?,
            "load_text" => self.start_load(p, offset, "text")?,
            "block" => {
                let name = p.name()?;
                while p.skip_name("scoped") || p.skip_name("required") {}
                self.printer.push(&format!("{{% block {} %}}", block_ident(&name)));
                self.enter(Tag::Block, offset, true);
            }
            "extends" => {
                let node = p.expression()?;
                self.printer.push("{% extends (");
                self.printer.expression(&node);
                self.file_filter("_include", at, "whole", false);
                self.printer.push(") %}");
            }
            "profile" => {
                p.expect_name("as")?;
                p.expression()?;
                self.enter(Tag::Profile, offset, false);
            }
            "break" | "continue" => self.leave_loop(tag, at)?,
            "autoescape" | "endautoescape" => return Err(Mistake::new(at, format!("Encountered unknown tag '{tag}'."))),
            tag if tag.starts_with("end") => self.close(p, tag, at)?,
            _ => return Err(self.unknown(tag, at)),
        }
        parser.finish()
    }

    fn unknown(&self, tag: &str, at: usize) -> Mistake {
        let mut message = format!("Encountered unknown tag '{tag}'.");
        if let Some(open) = self.open.last() {
            let closers = open.tag.closers().iter().map(|c| format!("'{c}'")).collect::<Vec<_>>().join(" or ");
            message += &format!(
                " Jinja was looking for the following tags: {closers}. The innermost block that needs to be closed is '{}'.",
                open.tag.name()
            );
        }
        Mistake::new(at, message)
    }

    fn enter(&mut self, tag: Tag, offset: usize, own_world: bool) {
        let loops = self.printer.loops;
        if own_world {
            self.printer.loops = 0;
        }
        self.printer.scopes.push(Default::default());
        self.open.push(Open { tag, offset, loops });
    }

    fn start_if(&mut self, p: &mut Parser, offset: usize) -> Done {
        let node = p.tuple(false, false, &[])?;
        self.printer.push("{% if ");
        self.printer.condition(&node);
        self.printer.push(" %}");
        self.enter(Tag::If { otherwise: false, branches: 0 }, offset, false);
        Ok(())
    }

    fn branch(&mut self, p: &mut Parser, tag: &str, at: usize) -> Done {
        let scopes = &mut self.printer.scopes;
        match self.open.last_mut().map(|o| &mut o.tag) {
            Some(Tag::If { otherwise: false, branches }) if tag == "elif" => {
                *branches += 1;
                if *branches > BRANCHES {
                    return Err(Mistake::new(at, "the if has too many branches: look the value up in a mapping"));
                }
                scopes.pop();
                scopes.push(Default::default());
                let node = p.tuple(false, false, &[])?;
                self.printer.push("{% elif ");
                self.printer.condition(&node);
                self.printer.push(" %}");
            }
            Some(Tag::If { otherwise, .. }) if tag == "else" && !*otherwise => {
                *otherwise = true;
                scopes.pop();
                scopes.push(Default::default());
                self.printer.push("{% else %}");
            }
            Some(Tag::For { targets, otherwise }) if tag == "else" && !*otherwise => {
                *otherwise = true;
                // The else branch stands outside of the loop.
                self.printer.loops = self.printer.loops.saturating_sub(1);
                for _ in 0..*targets {
                    scopes.pop();
                }
                scopes.pop();
                scopes.push(Default::default());
                *targets = 0;
                self.printer.push("{% else %}");
            }
            _ => return Err(self.unknown(tag, at)),
        }
        Ok(())
    }

    fn start_for(&mut self, p: &mut Parser, offset: usize) -> Done {
        let at = p.offset();
        let target = p.target(false, "in")?;
        p.expect_name("in")?;
        let items = p.tuple(false, false, &["recursive"])?;
        let test = if p.skip_name("if") { Some(p.expression()?) } else { None };
        let recursive = p.skip_name("recursive");
        let mut names = Vec::new();
        target.names(&mut names);
        if names.contains(&"loop") {
            return Err(Mistake::new(at, "Can't assign to special loop variable in for-loop target"));
        }
        let out = &mut self.printer;
        out.push("{% for ");
        out.target(&target, true);
        out.push(" in ");
        out.expression(&items);
        match &target {
            Target::Tuple(_) if !recursive => {
                out.open_filter("_iter", items.offset);
                out.string(&shape(&target));
                out.push(")");
            }
            _ => out.filter("_iter", items.offset),
        }
        out.scopes.push(names.iter().map(|n| (*n).to_owned()).collect());
        out.bound.extend(names.iter().map(|n| (*n).to_owned()));
        if let Some(test) = &test {
            out.push(" if ");
            out.condition(test);
        }
        out.push(if recursive { " recursive %}" } else { " %}" });
        self.enter(Tag::For { targets: 1, otherwise: false }, offset, false);
        self.printer.loops += 1;
        Ok(())
    }

    fn leave_loop(&mut self, tag: &str, at: usize) -> Done {
        for open in self.open.iter().rev() {
            match open.tag {
                Tag::For { otherwise: false, .. } => {
                    self.printer.push(&format!("{{% {tag} %}}"));
                    return Ok(());
                }
                Tag::If { .. } | Tag::For { .. } | Tag::Profile => {}
                // The engine below would leave their frames behind.
                Tag::With | Tag::SetBlock { .. } | Tag::Filter if self.printer.loops > 0 => {
                    let message = format!(
                        "'{tag}' inside of '{}' is not supported; put the '{}' into the loop's 'if'",
                        open.tag.name(),
                        open.tag.name()
                    );
                    return Err(Mistake::new(at, message));
                }
                _ => break,
            }
        }
        Err(Mistake::new(at, format!("'{tag}' outside loop")))
    }

    fn set(&mut self, p: &mut Parser, offset: usize) -> Done {
        let at = p.offset();
        let target = p.target(true, "")?;
        if !p.skip_op("=") {
            let filter = p.filter_chain(true)?;
            let Target::Name(_) = target else {
                return Err(Mistake::new(at, "a set block needs one name"));
            };
            self.printer.push("{% set ");
            self.printer.target(&target, true);
            self.printer.push(" %}");
            self.enter(Tag::SetBlock { target, filter }, offset, false);
            return Ok(());
        }
        let node = p.tuple(true, false, &[])?;
        self.assign(&target, at, |printer| printer.expression(&node));
        Ok(())
    }

    fn assign(&mut self, target: &Target, at: usize, value: impl FnOnce(&mut Printer)) {
        let out = &mut self.printer;
        match target {
            Target::Attribute(namespace, name) => {
                out.push("{{ ");
                out.variable(namespace, at);
                out.open_filter("_set_attr", at);
                out.string(name);
                out.push(",");
                value(out);
                out.push(") }}");
            }
            target => {
                out.push("{% set ");
                out.target(target, true);
                out.push(" = ");
                value(out);
                if let Target::Tuple(_) = target {
                    out.open_filter("_unpack", at);
                    out.string(&shape(target));
                    out.push(")");
                }
                out.push(" %}");
            }
        }
        let mut names = Vec::new();
        target.names(&mut names);
        names.iter().for_each(|name| out.bind(name));
    }

    fn start_with(&mut self, p: &mut Parser, offset: usize) -> Done {
        self.printer.push("{% with ");
        let mut bound = Vec::new();
        while p.peek().is_some() {
            if !bound.is_empty() {
                p.expect_op(",")?;
                self.printer.push(", ");
            }
            let name = p.name()?;
            p.expect_op("=")?;
            let node = p.expression()?;
            let ident = ident(&name);
            self.printer.push(&ident);
            self.printer.push(" = ");
            self.printer.expression(&node);
            bound.push(name);
        }
        self.printer.push(" %}");
        self.enter(Tag::With, offset, false);
        bound.iter().for_each(|name| self.printer.bind(name));
        Ok(())
    }

    fn close(&mut self, p: &mut Parser, tag: &str, at: usize) -> Done {
        if !self.open.last().is_some_and(|o| o.tag.closers().contains(&tag)) {
            return Err(self.unknown(tag, at));
        }
        let Some(open) = self.open.pop() else { return Err(self.unknown(tag, at)) };
        self.printer.scopes.pop();
        match open.tag {
            Tag::If { .. } => self.printer.push("{% endif %}"),
            Tag::For { targets, .. } => {
                (0..targets).for_each(|_| {
                    self.printer.scopes.pop();
                });
                self.printer.push("{% endfor %}");
            }
            Tag::With => self.printer.push("{% endwith %}"),
            Tag::Filter => self.printer.push("{% endfilter %}{% endwith %}"),
            Tag::Block => {
                if matches!(p.peek(), Some(Token::Name(_))) {
                    p.advance();
                }
                self.printer.push("{% endblock %}");
            }
            Tag::Profile => {}
            Tag::SetBlock { target, filter } => {
                self.printer.push("{% endset %}");
                let mut names = Vec::new();
                target.names(&mut names);
                names.iter().for_each(|name| self.printer.bind(name));
                if let Some(filter) = filter {
                    self.printer.push("{% set ");
                    self.printer.target(&target, true);
                    self.printer.push(" = ");
                    self.printer.target(&target, true);
                    self.printer.expression(&filter);
                    self.printer.push(" %}");
                }
            }
            Tag::Load { what, target } => {
                self.printer.push("{% endset %}");
                self.assign(&target, open.offset, |out| {
                    out.push("v__load");
                    out.open_filter("_parse", open.offset);
                    out.string(what);
                    out.push(")");
                });
            }
            Tag::Macro { name, parameters, defaults } => {
                if matches!(p.peek(), Some(Token::Name(_))) {
                    p.advance();
                }
                let ident = ident(&name);
                self.printer.push("{% endmacro %}{% set ");
                self.printer.push(&ident);
                self.printer.push(" = ");
                self.finish_macro(&format!("m{ident}"), &name, &parameters, defaults, open.offset);
                self.printer.push(" %}");
                self.printer.bind(&name);
            }
            Tag::Call { id, parameters, defaults, call } => {
                self.printer.push(&format!("{{% endmacro %}}{{% set v__call{id} = "));
                self.finish_macro(&format!("mcall{id}"), "caller", &parameters, defaults, open.offset);
                self.printer.push(" %}{{ ");
                if let Kind::Call(callee, arguments) = &call.kind {
                    self.printer.call(callee, arguments, call.offset, Some(&format!("v__call{id}")));
                }
                self.printer.push(" }}");
            }
        }
        self.printer.loops = open.loops;
        Ok(())
    }

    fn start_load(&mut self, p: &mut Parser, offset: usize, what: &'static str) -> Done {
        p.expect_name("as")?;
        let target = p.target(false, "")?;
        self.printer.push("{% set v__load %}");
        self.enter(Tag::Load { what, target }, offset, false);
        Ok(())
    }
}

/// The nesting of a tuple target, for unpacking with Python's messages: `(a, (b, c))` → `(.(..))`.
fn shape(target: &Target) -> String {
    match target {
        Target::Tuple(items) => format!("({})", items.iter().map(shape).collect::<String>()),
        _ => ".".to_owned(),
    }
}

/// The `#jinja2: {…}` header of a template: the options it sets, and the range of the source it takes.
pub fn header(source: &str, options: Options) -> (Options, Option<std::ops::Range<usize>>) {
    let first = source.find('\n').map_or(source.len(), |i| i + 1);
    let start = if source.starts_with("#!") && !source.starts_with("#!/") { first } else { 0 };
    let rest = source.get(start..).unwrap_or("");
    let length = rest.find('\n').map_or(rest.len(), |i| i + 1);
    let line = rest.get(..length).unwrap_or("");
    let Some(payload) = line.strip_prefix("#jinja2:") else { return (options, None) };
    let Ok(serde_json::Value::Object(settings)) = serde_json::from_str(payload.trim()) else { return (options, None) };
    let settings = settings.iter().map(|(key, value)| (key.as_str(), value.as_bool().unwrap_or(true)));
    (options.with(settings), Some(start..start + length))
}
