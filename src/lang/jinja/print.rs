//! Prints an expression back as source for the engine below. Everything that Python does otherwise than minijinja becomes a filter of
//! ours (`a + b` → `a|_add(b)`): filters cannot be shadowed by variables, are looked up once per run, and carry their own place,
//! which the offset table turns back into a place in the source.
//!
//! Variables are printed with a prefix (`x` → `v_x`), so that no name of a template can meet a name of the engine.

use std::collections::BTreeSet;

use super::expression::{Arguments, Kind, Node, Target};

/// Names every template can see; they are never undefined.
pub const ROOT_NAMES: [&str; 29] = [
    "salt",
    "grains",
    "pillar",
    "opts",
    "saltenv",
    "sls",
    "slspath",
    "slsdotpath",
    "slscolonpath",
    "sls_path",
    "tplfile",
    "tplpath",
    "tpldir",
    "tpldot",
    "range",
    "dict",
    "namespace",
    "lipsum",
    "cycler",
    "joiner",
    "raise",
    "odict",
    "show_full_context",
    "proxy",
    "__salt__",
    "__grains__",
    "__pillar__",
    "__opts__",
    "__env__",
];

/// Printed offset → offset in the source, ascending.
pub type Table = Vec<(u32, u32)>;

#[derive(Default)]
pub struct Printer {
    pub out: String,
    pub table: Table,
    /// Names that are surely bound here, scope by scope.
    pub scopes: Vec<BTreeSet<String>>,
    /// Every name the template mentions.
    pub used: BTreeSet<String>,
    /// Names the template binds anywhere.
    pub bound: BTreeSet<String>,
    /// Open loops of the current macro or file.
    pub loops: usize,
    /// Special names (`caller`, `varargs`, `kwargs`) each open macro mentions.
    pub macros: Vec<BTreeSet<&'static str>>,
}

impl Printer {
    pub fn push(&mut self, text: &str) {
        self.out.push_str(text);
    }

    pub fn mark(&mut self, offset: usize) {
        self.table.push((self.out.len() as u32, offset as u32));
    }

    pub fn bind(&mut self, name: &str) {
        self.bound.insert(name.to_owned());
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name.to_owned());
        }
    }

    fn is_known(&self, name: &str) -> bool {
        self.scopes.iter().any(|s| s.contains(name)) || (ROOT_NAMES.contains(&name) && !self.bound.contains(name))
    }

    /// `value|name(` … the caller writes the arguments and the bracket.
    pub fn open_filter(&mut self, name: &str, offset: usize) {
        self.push("|");
        self.mark(offset);
        self.push(name);
        self.push("(");
    }

    pub fn filter(&mut self, name: &str, offset: usize) {
        self.push("|");
        self.mark(offset);
        self.push(name);
    }

    pub fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.push("\\\""),
                '\\' => self.push("\\\\"),
                '\n' => self.push("\\n"),
                '\r' => self.push("\\r"),
                c if c.is_control() => self.out.push_str(&format!("\\u{:04x}", c as u32)),
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }

    pub fn variable(&mut self, name: &str, offset: usize) {
        for special in ["caller", "varargs", "kwargs"] {
            if name == special {
                self.macros.iter_mut().for_each(|m| {
                    m.insert(special);
                });
            }
        }
        if name == "loop" && self.loops > 0 && !self.scopes.iter().any(|s| s.contains("loop")) {
            return self.push("loop");
        }
        self.used.insert(name.to_owned());
        let known = self.is_known(name);
        let ident = ident(name);
        self.push(&ident);
        if !known {
            self.open_filter("_v", offset);
            self.string(name);
            self.push(")");
        }
    }

    pub fn target(&mut self, target: &Target, outermost: bool) {
        match target {
            Target::Name(name) => {
                let ident = ident(name);
                self.push(&ident);
            }
            Target::Tuple(items) => {
                self.push(if outermost { "" } else { "(" });
                for item in items {
                    self.target(item, false);
                    self.push(", ");
                }
                if items.len() > 1 {
                    let end = self.out.len() - 2;
                    self.out.truncate(end);
                }
                self.push(if outermost { "" } else { ")" });
            }
            Target::Attribute(..) => {}
        }
    }

    /// An expression whose value is used as it is, undefined or not.
    pub fn expression(&mut self, node: &Node) {
        match &node.kind {
            Kind::Name(name) => self.variable(name, node.offset),
            Kind::None => self.push("none"),
            Kind::Bool(b) => self.push(if *b { "true" } else { "false" }),
            Kind::Int(digits) => {
                if digits.parse::<i128>().is_ok() {
                    self.push(digits);
                } else {
                    self.string(digits);
                    self.filter("_bigint", node.offset);
                }
            }
            Kind::Float(f) => {
                if f.is_finite() {
                    self.push(&format!("{f:?}"));
                } else {
                    self.push("\"inf\"");
                    self.filter("_float", node.offset);
                }
            }
            Kind::Str(s) => self.string(s),
            Kind::List(items) => self.sequence(items, "_list", node.offset),
            Kind::Tuple(items) => self.sequence(items, "_tuple", node.offset),
            Kind::Dict(items) => {
                self.push("[");
                for (key, value) in items {
                    self.expression(key);
                    self.push(",");
                    self.expression(value);
                    self.push(",");
                }
                self.push("]");
                self.filter("_dict", node.offset);
            }
            Kind::Attribute(value, name) => {
                self.expression(value);
                self.open_filter("_attr", node.offset);
                self.string(name);
                self.push(")");
            }
            Kind::Item(value, key) => {
                self.expression(value);
                self.open_filter("_item", node.offset);
                self.expression(key);
                self.push(")");
            }
            Kind::Slice(value, parts) => {
                self.expression(value);
                self.open_filter("_slice", node.offset);
                for part in parts {
                    match part {
                        Some(part) => self.expression(part),
                        None => self.push("none"),
                    }
                    self.push(",");
                }
                self.push(")");
            }
            Kind::Call(callee, arguments) => self.call(callee, arguments, node.offset, None),
            Kind::Filter(value, name, arguments) => {
                if let Some(value) = value {
                    self.expression(value);
                }
                self.user_filter(name, arguments, node.offset);
            }
            Kind::Test(value, name, arguments) => {
                self.expression(value);
                if super::test::is_known(name) {
                    self.open_filter(&format!("t_{name}"), node.offset);
                } else {
                    self.open_filter("_no_test", node.offset);
                    self.string(name);
                    self.push(",");
                }
                self.arguments(arguments, None);
                self.push(")");
            }
            Kind::Not(value) => {
                self.expression(value);
                self.filter("_not", node.offset);
            }
            Kind::Sign(sign, value) => {
                self.expression(value);
                self.filter(if *sign == '-' { "_neg" } else { "_pos" }, node.offset);
            }
            Kind::Binary(op, left, right) => {
                let name = match *op {
                    "+" => "_add",
                    "-" => "_sub",
                    "*" => "_mul",
                    "/" => "_div",
                    "//" => "_floordiv",
                    "%" => "_mod",
                    _ => "_pow",
                };
                self.expression(left);
                self.open_filter(name, node.offset);
                self.expression(right);
                self.push(")");
            }
            Kind::Concat(parts) => {
                for (i, part) in parts.iter().enumerate() {
                    self.expression(part);
                    if i == 0 {
                        self.open_filter("_concat", node.offset);
                    } else {
                        self.push(",");
                    }
                }
                self.push(")");
            }
            Kind::Compare(first, rest) => {
                self.expression(first);
                if let [(op, right)] = rest.as_slice() {
                    let name = match *op {
                        "==" => "_eq",
                        "!=" => "_ne",
                        "in" => "_in",
                        "not in" => "_not_in",
                        _ => "",
                    };
                    if !name.is_empty() {
                        self.open_filter(name, node.offset);
                        self.expression(right);
                        return self.push(")");
                    }
                }
                self.open_filter("_compare", node.offset);
                for (op, right) in rest {
                    self.string(op);
                    self.push(",");
                    self.expression(right);
                    self.push(",");
                }
                self.push(")");
            }
            Kind::Logic(op, left, right) => {
                self.push("(");
                self.expression(left);
                if may_be_undefined(left) {
                    self.filter("_d", left.offset);
                }
                self.push(" ");
                self.push(op);
                self.push(" ");
                self.expression(right);
                self.push(")");
            }
            Kind::If { test, then, otherwise } => {
                self.push("(");
                self.expression(then);
                self.push(" if ");
                self.condition(test);
                self.push(" else ");
                match otherwise {
                    Some(otherwise) => self.expression(otherwise),
                    None => self.push("none|_lax"),
                }
                self.push(")");
            }
        }
    }

    /// An expression that is asked for its truth.
    pub fn condition(&mut self, node: &Node) {
        self.expression(node);
        if may_be_undefined(node) {
            self.filter("_t", node.offset);
        }
    }

    fn sequence(&mut self, items: &[Node], filter: &str, offset: usize) {
        self.push("[");
        for item in items {
            self.expression(item);
            self.push(",");
        }
        self.push("]");
        self.filter(filter, offset);
    }

    fn user_filter(&mut self, name: &str, arguments: &Arguments, offset: usize) {
        // In a filter block the chain starts without a bar, hence the caller's bar.
        if !self.out.ends_with(' ') {
            self.push("|");
        }
        self.mark(offset);
        if super::filter::is_known(name) {
            self.push("f_");
            self.push(name);
            self.push("(");
        } else {
            self.push("_no_filter(");
            self.string(name);
            self.push(",");
        }
        self.arguments(arguments, None);
        self.push(")");
    }

    /// `caller`: the name of the macro that a call block hands over.
    pub fn call(&mut self, callee: &Node, arguments: &Arguments, offset: usize, caller: Option<&str>) {
        match &callee.kind {
            Kind::Attribute(value, name)
                if caller.is_none() && matches!(&value.kind, Kind::Name(n) if n == "self" && !self.is_known("self")) =>
            {
                // A block called by name.
                self.push(&format!("self.{}()", block_ident(name)));
                return;
            }
            Kind::Name(name) if name == "loop" && arguments.positional.len() == 1 && self.loops > 0 => {
                self.push("loop(");
                if let Some(items) = arguments.positional.first() {
                    self.expression(items);
                }
                self.filter("_iter", offset);
                return self.push(")");
            }
            Kind::Attribute(value, name) => {
                self.expression(value);
                self.open_filter("_call", callee.offset);
                self.string(name);
                self.push(",");
            }
            _ => {
                self.expression(callee);
                self.open_filter("_invoke", offset);
            }
        }
        self.arguments(arguments, caller);
        self.push(")");
    }

    fn arguments(&mut self, arguments: &Arguments, caller: Option<&str>) {
        for node in &arguments.positional {
            self.expression(node);
            self.push(",");
        }
        if let Some(star) = &arguments.star {
            self.push("*");
            self.expression(star);
            self.filter("_star", star.offset);
            self.push(",");
        }
        for (name, node) in &arguments.named {
            // A prefix keeps keywords of the engine and names beyond ASCII out of its grammar.
            let ident = ident(name);
            self.push(&ident);
            self.push("=");
            self.expression(node);
            self.push(",");
        }
        if let Some(caller) = caller {
            self.push("v_caller=");
            self.push(caller);
            self.push(",");
        }
        if let Some(double_star) = &arguments.double_star {
            self.push("**");
            self.expression(double_star);
            self.filter("_double_star", double_star.offset);
            self.push(",");
        }
    }
}

/// Comparisons, tests and literals have a truth of their own; anything else may be undefined and must say so.
fn may_be_undefined(node: &Node) -> bool {
    !matches!(
        node.kind,
        Kind::Compare(..) | Kind::Test(..) | Kind::Not(_) | Kind::Bool(_) | Kind::Int(_) | Kind::Str(_) | Kind::None | Kind::Float(_)
    )
}

/// A variable's name in the printed source.
pub fn ident(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 2);
    out.push_str("v_");
    for c in name.chars() {
        if c.is_ascii_alphanumeric() || c == '_' {
            out.push(c);
        } else {
            out.push_str(&format!("_u{:x}_", c as u32));
        }
    }
    out
}

pub fn block_ident(name: &str) -> String {
    ident(name).replacen("v_", "b_", 1)
}

/// The name behind [`ident`].
pub fn name_of(ident: &str) -> String {
    let rest = ident.strip_prefix("v_").unwrap_or(ident);
    if !rest.contains("_u") {
        return rest.to_owned();
    }
    let mut out = String::new();
    let mut rest = rest;
    while let Some(at) = rest.find("_u") {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        let code = after.get(2..).and_then(|t| t.split_once('_'));
        match code.and_then(|(hex, tail)| Some((char::from_u32(u32::from_str_radix(hex, 16).ok()?).filter(|c| !c.is_ascii())?, tail))) {
            Some((c, tail)) => {
                out.push(c);
                rest = tail;
            }
            None => {
                out.push_str("_u");
                rest = after.get(2..).unwrap_or("");
            }
        }
    }
    out + rest
}
