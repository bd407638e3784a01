//! Expressions: the tree, and Jinja2's grammar that builds it from tokens.

use super::scan::{Mistake, Spot, Token};

#[derive(Debug, Clone)]
pub struct Node {
    /// Where an error about it points: the operator, the name after a dot, the call's bracket, or the start.
    pub offset: usize,
    pub kind: Kind,
}

#[derive(Debug, Clone)]
pub enum Kind {
    Name(String),
    None,
    Bool(bool),
    Int(String),
    Float(f64),
    Str(String),
    List(Vec<Node>),
    Tuple(Vec<Node>),
    Dict(Vec<(Node, Node)>),
    Attribute(Box<Node>, String),
    Item(Box<Node>, Box<Node>),
    Slice(Box<Node>, [Option<Box<Node>>; 3]),
    Call(Box<Node>, Arguments),
    /// A filter; without a value only at the head of a filter block.
    Filter(Option<Box<Node>>, String, Arguments),
    Test(Box<Node>, String, Arguments),
    Not(Box<Node>),
    Sign(char, Box<Node>),
    Binary(&'static str, Box<Node>, Box<Node>),
    Concat(Vec<Node>),
    Compare(Box<Node>, Vec<(&'static str, Node)>),
    Logic(&'static str, Box<Node>, Box<Node>),
    If {
        test: Box<Node>,
        then: Box<Node>,
        otherwise: Option<Box<Node>>,
    },
}

#[derive(Debug, Clone, Default)]
pub struct Arguments {
    pub positional: Vec<Node>,
    pub named: Vec<(String, Node)>,
    pub star: Option<Box<Node>>,
    pub double_star: Option<Box<Node>>,
}

/// What an assignment binds.
#[derive(Debug, Clone)]
pub enum Target {
    Name(String),
    Tuple(Vec<Target>),
    /// `set ns.name = …`
    Attribute(String, String),
}

impl Target {
    pub fn names<'a>(&'a self, into: &mut Vec<&'a str>) {
        match self {
            Target::Name(n) => into.push(n),
            Target::Tuple(all) => all.iter().for_each(|t| t.names(into)),
            Target::Attribute(..) => {}
        }
    }
}

/// As deep as an expression may nest; deeper ones are refused, so that no template text exhausts the stack.
const DEPTH: usize = 90;
/// And as many parts as a chain of operators may have.
const LONGEST: usize = 400;

type Parsed = Result<Node, Mistake>;

pub struct Parser<'t> {
    tokens: &'t [Spot],
    at: usize,
    /// Where the tag ends, and how Jinja2 calls that end.
    end: usize,
    end_name: &'static str,
    depth: usize,
}

impl<'t> Parser<'t> {
    pub fn new(tokens: &'t [Spot], end: usize, end_name: &'static str) -> Parser<'t> {
        Parser { tokens, at: 0, end, end_name, depth: 0 }
    }

    pub fn peek(&self) -> Option<&'t Token> {
        self.tokens.get(self.at).map(|s| &s.token)
    }

    pub fn offset(&self) -> usize {
        self.tokens.get(self.at).map_or(self.end, |s| s.offset)
    }

    pub fn advance(&mut self) {
        self.at += 1;
    }

    pub fn is_op(&self, op: &str) -> bool {
        matches!(self.peek(), Some(Token::Op(o)) if *o == op)
    }

    pub fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Some(Token::Name(n)) if n == name)
    }

    pub fn skip_op(&mut self, op: &str) -> bool {
        let is = self.is_op(op);
        self.at += usize::from(is);
        is
    }

    pub fn skip_name(&mut self, name: &str) -> bool {
        let is = self.is_name(name);
        self.at += usize::from(is);
        is
    }

    fn found(&self) -> String {
        self.peek().map_or_else(|| self.end_name.to_owned(), Token::describe)
    }

    pub fn expected(&self, what: &str) -> Mistake {
        Mistake::new(self.offset(), format!("expected token '{what}', got '{}'", self.found()))
    }

    pub fn expect_op(&mut self, op: &str) -> Result<(), Mistake> {
        if self.skip_op(op) { Ok(()) } else { Err(self.expected(op)) }
    }

    pub fn expect_name(&mut self, name: &str) -> Result<(), Mistake> {
        if self.skip_name(name) { Ok(()) } else { Err(self.expected(name)) }
    }

    pub fn name(&mut self) -> Result<String, Mistake> {
        match self.peek() {
            Some(Token::Name(n)) => {
                self.advance();
                Ok(n.clone())
            }
            _ => Err(self.expected("name")),
        }
    }

    /// Nothing may follow.
    pub fn finish(&self) -> Result<(), Mistake> {
        if self.at < self.tokens.len() { Err(self.expected(self.end_name)) } else { Ok(()) }
    }

    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, Mistake>) -> Result<T, Mistake> {
        if self.depth >= DEPTH {
            return Err(Mistake::new(self.offset(), "the expression is nested too deeply"));
        }
        self.depth += 1;
        let result = parse(self);
        self.depth -= 1;
        result
    }

    /// The offset of the next part of a chain. Each part stands in the tree of the next, so a chain ends before the stack does.
    fn longer(&self, length: &mut usize) -> Result<usize, Mistake> {
        *length += 1;
        if *length > LONGEST { Err(Mistake::new(self.offset(), "the expression is too long")) } else { Ok(self.offset()) }
    }

    /// One expression, inline `if` included.
    pub fn expression(&mut self) -> Parsed {
        self.deeper(|p| p.conditional())
    }

    fn conditional(&mut self) -> Parsed {
        let mut node = self.or()?;
        let mut length = 0;
        while self.is_name("if") {
            let offset = self.longer(&mut length)?;
            self.advance();
            let test = self.or()?;
            let otherwise = if self.skip_name("else") { Some(Box::new(self.expression()?)) } else { None };
            node = Node { offset, kind: Kind::If { test: Box::new(test), then: Box::new(node), otherwise } };
        }
        Ok(node)
    }

    pub fn or(&mut self) -> Parsed {
        let mut left = self.and()?;
        let mut length = 0;
        while self.is_name("or") {
            let offset = self.longer(&mut length)?;
            self.advance();
            left = Node { offset, kind: Kind::Logic("or", Box::new(left), Box::new(self.and()?)) };
        }
        Ok(left)
    }

    fn and(&mut self) -> Parsed {
        let mut left = self.not()?;
        let mut length = 0;
        while self.is_name("and") {
            let offset = self.longer(&mut length)?;
            self.advance();
            left = Node { offset, kind: Kind::Logic("and", Box::new(left), Box::new(self.not()?)) };
        }
        Ok(left)
    }

    fn not(&mut self) -> Parsed {
        if self.is_name("not") {
            let offset = self.offset();
            self.advance();
            let inner = self.deeper(|p| p.not())?;
            return Ok(Node { offset, kind: Kind::Not(Box::new(inner)) });
        }
        self.compare()
    }

    fn compare(&mut self) -> Parsed {
        let first = self.sum()?;
        let offset = self.offset();
        let mut rest = Vec::new();
        loop {
            let op = match self.peek() {
                Some(Token::Op(op @ ("==" | "!=" | "<" | "<=" | ">" | ">="))) => *op,
                Some(Token::Name(n)) if n == "in" => "in",
                Some(Token::Name(n)) if n == "not" => match self.tokens.get(self.at + 1).map(|s| &s.token) {
                    Some(Token::Name(n)) if n == "in" => {
                        self.advance();
                        "not in"
                    }
                    _ => break,
                },
                _ => break,
            };
            self.advance();
            rest.push((op, self.sum()?));
        }
        Ok(if rest.is_empty() { first } else { Node { offset, kind: Kind::Compare(Box::new(first), rest) } })
    }

    fn binary(&mut self, ops: &[&'static str], operand: fn(&mut Self) -> Parsed) -> Parsed {
        let mut left = operand(self)?;
        let mut length = 0;
        while let Some(op) = ops.iter().find(|op| self.is_op(op)) {
            let offset = self.longer(&mut length)?;
            self.advance();
            left = Node { offset, kind: Kind::Binary(op, Box::new(left), Box::new(operand(self)?)) };
        }
        Ok(left)
    }

    fn sum(&mut self) -> Parsed {
        self.binary(&["+", "-"], Self::concat)
    }

    fn concat(&mut self) -> Parsed {
        let first = self.product()?;
        let offset = self.offset();
        if !self.is_op("~") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.skip_op("~") {
            parts.push(self.product()?);
        }
        Ok(Node { offset, kind: Kind::Concat(parts) })
    }

    fn product(&mut self) -> Parsed {
        self.binary(&["*", "/", "//", "%"], Self::power)
    }

    fn power(&mut self) -> Parsed {
        self.binary(&["**"], |p| p.unary(true))
    }

    fn unary(&mut self, with_filters: bool) -> Parsed {
        self.deeper(|p| {
            let offset = p.offset();
            let node = if p.skip_op("-") {
                Node { offset, kind: Kind::Sign('-', Box::new(p.unary(false)?)) }
            } else if p.skip_op("+") {
                Node { offset, kind: Kind::Sign('+', Box::new(p.unary(false)?)) }
            } else {
                p.primary()?
            };
            let node = p.postfix(node)?;
            if with_filters { p.filters(node) } else { Ok(node) }
        })
    }

    fn primary(&mut self) -> Parsed {
        let offset = self.offset();
        let Some(token) = self.peek() else {
            return Err(Mistake::new(offset, format!("unexpected '{}'", self.end_name)));
        };
        let kind = match token {
            Token::Name(n) => {
                self.advance();
                match n.as_str() {
                    "true" | "True" => Kind::Bool(true),
                    "false" | "False" => Kind::Bool(false),
                    "none" | "None" => Kind::None,
                    _ => Kind::Name(n.clone()),
                }
            }
            Token::Str(_) => {
                let mut text = String::new();
                while let Some(Token::Str(s)) = self.peek() {
                    text.push_str(s);
                    self.advance();
                }
                Kind::Str(text)
            }
            Token::Int(i) => {
                self.advance();
                Kind::Int(i.clone())
            }
            Token::Float(f) => {
                self.advance();
                Kind::Float(*f)
            }
            Token::Op("(") => {
                self.advance();
                let node = self.tuple(true, true, &[])?;
                self.expect_op(")")?;
                return Ok(node);
            }
            Token::Op("[") => {
                self.advance();
                let mut items = Vec::new();
                while !self.is_op("]") {
                    if !items.is_empty() {
                        self.expect_op(",")?;
                    }
                    if self.is_op("]") {
                        break;
                    }
                    items.push(self.expression()?);
                }
                self.expect_op("]")?;
                Kind::List(items)
            }
            Token::Op("{") => {
                self.advance();
                let mut items = Vec::new();
                while !self.is_op("}") {
                    if !items.is_empty() {
                        self.expect_op(",")?;
                    }
                    if self.is_op("}") {
                        break;
                    }
                    let key = self.expression()?;
                    self.expect_op(":")?;
                    items.push((key, self.expression()?));
                }
                self.expect_op("}")?;
                Kind::Dict(items)
            }
            other => return Err(Mistake::new(offset, format!("unexpected '{}'", other.describe()))),
        };
        Ok(Node { offset, kind })
    }

    /// A tuple, or a single expression where no comma follows. `stop`: names that end it.
    pub fn tuple(&mut self, conditional: bool, brackets: bool, stop: &[&str]) -> Parsed {
        let offset = self.offset();
        let mut items = Vec::new();
        let mut is_tuple = false;
        loop {
            if !items.is_empty() {
                self.expect_op(",")?;
            }
            if self.peek().is_none() || self.is_op(")") || stop.iter().any(|s| self.is_name(s)) {
                break;
            }
            items.push(if conditional { self.expression()? } else { self.deeper(|p| p.or())? });
            if self.is_op(",") {
                is_tuple = true;
            } else {
                break;
            }
        }
        if !is_tuple {
            if let Some(only) = items.pop() {
                return Ok(only);
            }
            if !brackets {
                return Err(Mistake::new(self.offset(), format!("Expected an expression, got '{}'", self.found())));
            }
        }
        Ok(Node { offset, kind: Kind::Tuple(items) })
    }

    fn postfix(&mut self, mut node: Node) -> Parsed {
        let mut length = 0;
        loop {
            length += 1;
            if length > 200 {
                return Err(Mistake::new(self.offset(), "the expression is too long"));
            }
            if self.skip_op(".") {
                let offset = self.offset();
                let kind = match self.peek() {
                    Some(Token::Name(n)) => Kind::Attribute(Box::new(node), n.clone()),
                    Some(Token::Int(i)) => Kind::Item(Box::new(node), Box::new(Node { offset, kind: Kind::Int(i.clone()) })),
                    // `a.0.1` reads as a float behind the first dot.
                    Some(Token::Float(f)) => {
                        let text = crate::value::float_text(*f);
                        let (a, b) = text.split_once('.').unwrap_or((&text, "0"));
                        let number = |t: &str| Box::new(Node { offset, kind: Kind::Int(t.to_owned()) });
                        let inner = Node { offset, kind: Kind::Item(Box::new(node), number(a)) };
                        Kind::Item(Box::new(inner), number(b))
                    }
                    _ => return Err(Mistake::new(offset, "expected name or number")),
                };
                self.advance();
                node = Node { offset, kind };
            } else if self.is_op("[") {
                let offset = self.offset();
                self.advance();
                node = self.subscript(node, offset)?;
            } else if self.is_op("(") {
                let offset = self.offset();
                let arguments = self.arguments()?;
                node = Node { offset, kind: Kind::Call(Box::new(node), arguments) };
            } else {
                return Ok(node);
            }
        }
    }

    fn subscript(&mut self, node: Node, offset: usize) -> Parsed {
        let mut parts: Vec<Option<Box<Node>>> = Vec::new();
        let mut colons = 0;
        let mut current = None;
        let mut items: Vec<Node> = Vec::new();
        loop {
            if self.skip_op("]") {
                break;
            } else if self.skip_op(":") {
                colons += 1;
                parts.push(current.take());
            } else if self.skip_op(",") {
                items.extend(current.take().map(|n: Box<Node>| *n));
            } else if current.is_none() {
                current = Some(Box::new(self.expression()?));
            } else {
                return Err(self.expected("]"));
            }
        }
        if colons > 0 {
            if colons > 2 || !items.is_empty() {
                return Err(Mistake::new(offset, "expected subscript expression"));
            }
            parts.push(current);
            let mut parts = parts.into_iter();
            let slice = [parts.next().flatten(), parts.next().flatten(), parts.next().flatten()];
            return Ok(Node { offset, kind: Kind::Slice(Box::new(node), slice) });
        }
        let key = match (current, items.is_empty()) {
            (Some(key), true) => key,
            (None, true) => return Err(Mistake::new(offset, "expected subscript expression")),
            (last, false) => {
                items.extend(last.map(|n| *n));
                Box::new(Node { offset, kind: Kind::Tuple(items) })
            }
        };
        Ok(Node { offset, kind: Kind::Item(Box::new(node), key) })
    }

    pub fn arguments(&mut self) -> Result<Arguments, Mistake> {
        self.expect_op("(")?;
        let mut arguments = Arguments::default();
        let mut first = true;
        while !self.is_op(")") {
            if !first {
                self.expect_op(",")?;
                if self.is_op(")") {
                    break;
                }
            }
            first = false;
            let offset = self.offset();
            let named = match (self.peek(), self.tokens.get(self.at + 1).map(|s| &s.token)) {
                (Some(Token::Name(n)), Some(Token::Op("="))) => Some(n.clone()),
                _ => None,
            };
            let invalid = || Mistake::new(offset, "invalid syntax for function call expression");
            if self.skip_op("*") {
                if arguments.star.is_some() || arguments.double_star.is_some() {
                    return Err(invalid());
                }
                arguments.star = Some(Box::new(self.expression()?));
            } else if self.skip_op("**") {
                if arguments.double_star.is_some() {
                    return Err(invalid());
                }
                arguments.double_star = Some(Box::new(self.expression()?));
            } else if let Some(name) = named {
                if arguments.double_star.is_some() {
                    return Err(invalid());
                }
                self.at += 2;
                arguments.named.push((name, self.expression()?));
            } else {
                if arguments.star.is_some() || arguments.double_star.is_some() || !arguments.named.is_empty() {
                    return Err(invalid());
                }
                arguments.positional.push(self.expression()?);
            }
        }
        self.expect_op(")")?;
        Ok(arguments)
    }

    /// `|filter`, `is test` and calls of what they give.
    fn filters(&mut self, mut node: Node) -> Parsed {
        let mut length = 0;
        loop {
            length += 1;
            if length > 200 {
                return Err(Mistake::new(self.offset(), "the expression is too long"));
            }
            if self.is_op("|") {
                node = self.filter(Some(node))?;
            } else if self.is_name("is") {
                node = self.test(node)?;
            } else if self.is_op("(") {
                let offset = self.offset();
                let arguments = self.arguments()?;
                node = Node { offset, kind: Kind::Call(Box::new(node), arguments) };
            } else {
                return Ok(node);
            }
        }
    }

    fn dotted_name(&mut self) -> Result<String, Mistake> {
        let mut name = self.name()?;
        while self.skip_op(".") {
            name.push('.');
            name.push_str(&self.name()?);
        }
        Ok(name)
    }

    /// A filter at `|`, or at its name when it heads a filter block.
    pub fn filter(&mut self, value: Option<Node>) -> Parsed {
        if value.is_some() {
            self.expect_op("|")?;
        }
        let offset = self.offset();
        let name = self.dotted_name()?;
        let arguments = if self.is_op("(") { self.arguments()? } else { Arguments::default() };
        Ok(Node { offset, kind: Kind::Filter(value.map(Box::new), name, arguments) })
    }

    /// The filters of a filter block or a `set` block: `upper|indent(2)`.
    pub fn filter_chain(&mut self, start_with_bar: bool) -> Result<Option<Node>, Mistake> {
        if start_with_bar && !self.skip_op("|") {
            return Ok(None);
        }
        let mut node = self.filter(None)?;
        while self.is_op("|") {
            node = self.filter(Some(node))?;
        }
        Ok(Some(node))
    }

    fn test(&mut self, node: Node) -> Parsed {
        self.expect_name("is")?;
        let negated = self.skip_name("not");
        let offset = self.offset();
        let name = self.dotted_name()?;
        let mut arguments = Arguments::default();
        if self.is_op("(") {
            arguments = self.arguments()?;
        } else {
            let starts = match self.peek() {
                Some(Token::Name(n)) => {
                    if n == "is" {
                        return Err(Mistake::new(self.offset(), "You cannot chain multiple tests with is"));
                    }
                    // Jinja2 excludes else, or and and; `if` and `in` cannot start an operand either.
                    !matches!(n.as_str(), "else" | "or" | "and" | "if" | "in" | "not")
                }
                Some(Token::Str(_) | Token::Int(_) | Token::Float(_)) => true,
                Some(Token::Op(op)) => matches!(*op, "[" | "{"),
                None => false,
            };
            if starts {
                let operand = self.primary()?;
                arguments.positional.push(self.postfix(operand)?);
            }
        }
        let test = Node { offset, kind: Kind::Test(Box::new(node), name, arguments) };
        Ok(if negated { Node { offset, kind: Kind::Not(Box::new(test)) } } else { test })
    }

    /// What `for`, `set` and `with` assign to.
    pub fn target(&mut self, attributes: bool, stop: &str) -> Result<Target, Mistake> {
        if attributes && let (Some(Token::Name(ns)), Some(Token::Op("."))) = (self.peek(), self.tokens.get(self.at + 1).map(|s| &s.token)) {
            self.at += 2;
            return Ok(Target::Attribute(ns.clone(), self.name()?));
        }
        let mut items = Vec::new();
        let mut is_tuple = false;
        loop {
            if self.is_name(stop) || self.is_op(")") || self.is_op("=") || self.peek().is_none() {
                break;
            }
            let offset = self.offset();
            items.push(if self.skip_op("(") {
                let inner = self.deeper(|p| p.target(false, stop))?;
                self.expect_op(")")?;
                inner
            } else {
                let name = match self.peek() {
                    Some(Token::Name(_)) => self.name()?,
                    _ => return Err(Mistake::new(offset, format!("unexpected '{}'", self.found()))),
                };
                if matches!(name.as_str(), "true" | "True" | "false" | "False" | "none" | "None") {
                    return Err(Mistake::new(offset, format!("can't assign to '{name}'")));
                }
                Target::Name(name)
            });
            if self.skip_op(",") {
                is_tuple = true;
            } else {
                break;
            }
        }
        match (items.pop(), is_tuple) {
            (None, _) => Err(self.expected("name")),
            (Some(only), false) => Ok(only),
            (Some(last), true) => {
                items.push(last);
                Ok(Target::Tuple(items))
            }
        }
    }
}
