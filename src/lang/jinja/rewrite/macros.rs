//! `macro` and `call`: both become macros of the engine that take every parameter by position, behind an object that binds arguments
//! as Python does. Defaults are evaluated inside, where parameters before them can be seen.

use super::{Done, Rewriter, Tag};
use crate::lang::jinja::expression::{Kind, Node, Parser};
use crate::lang::jinja::print::ident;
use crate::lang::jinja::scan::Mistake;

impl Rewriter<'_> {
    /// `(a, b=1)` of a macro or a call block.
    pub(super) fn parameters(&mut self, p: &mut Parser) -> Result<(Vec<String>, Vec<Node>), Mistake> {
        let (mut names, mut defaults) = (Vec::new(), Vec::new());
        p.expect_op("(")?;
        while !p.is_op(")") {
            if !names.is_empty() {
                p.expect_op(",")?;
            }
            let at = p.offset();
            let name = p.name()?;
            if names.contains(&name) {
                return Err(Mistake::new(at, format!("duplicate argument '{name}' in function definition")));
            }
            names.push(name);
            if p.skip_op("=") {
                defaults.push(p.expression()?);
            } else if !defaults.is_empty() {
                return Err(Mistake::new(at, "non-default argument follows default argument"));
            }
        }
        p.expect_op(")")?;
        Ok((names, defaults))
    }

    pub(super) fn start_macro(&mut self, p: &mut Parser, offset: usize) -> Done {
        let name = p.name()?;
        let (parameters, defaults) = self.parameters(p)?;
        self.open_macro(
            &format!("m{}", ident(&name)),
            &parameters,
            &defaults,
            |defaults| Tag::Macro { name: name.clone(), parameters: parameters.clone(), defaults },
            offset,
        );
        Ok(())
    }

    pub(super) fn start_call(&mut self, p: &mut Parser, offset: usize) -> Done {
        let (parameters, defaults) = if p.is_op("(") { self.parameters(p)? } else { Default::default() };
        let at = p.offset();
        let call = p.expression()?;
        if !matches!(call.kind, Kind::Call(..)) {
            return Err(Mistake::new(at, "expected call"));
        }
        self.serial += 1;
        let id = self.serial;
        let call = Box::new(call);
        self.open_macro(
            &format!("mcall{id}"),
            &parameters,
            &defaults,
            |defaults| Tag::Call { id, parameters: parameters.clone(), defaults, call: call.clone() },
            offset,
        );
        Ok(())
    }

    pub(super) fn open_macro(
        &mut self,
        name: &str,
        parameters: &[String],
        defaults: &[Node],
        tag: impl FnOnce(usize) -> Tag,
        offset: usize,
    ) {
        let mut all: Vec<&str> = parameters.iter().map(String::as_str).collect();
        for special in ["varargs", "kwargs", "caller"] {
            if !all.contains(&special) {
                all.push(special);
            }
        }
        self.printer.push(&format!("{{% macro {name}("));
        for parameter in &all {
            let ident = ident(parameter);
            self.printer.push(&ident);
            self.printer.push(",");
        }
        self.printer.out.pop();
        self.printer.push(") %}");
        self.printer.macros.push(Default::default());
        self.enter(tag(defaults.len()), offset, true);
        let first = parameters.len() - defaults.len();
        for (i, parameter) in parameters.iter().enumerate() {
            if let Some(default) = i.checked_sub(first).and_then(|d| defaults.get(d)) {
                let ident = ident(parameter);
                self.printer.push(&format!("{{% if {ident}|_missing %}}{{% set {ident} = "));
                self.printer.expression(default);
                self.printer.push(" %}{% endif %}");
            }
            self.printer.bind(parameter);
        }
        ["varargs", "kwargs", "caller"].iter().for_each(|name| self.printer.bind(name));
    }

    /// What `_macro` needs to bind arguments as Python does.
    pub(super) fn finish_macro(&mut self, inner: &str, name: &str, parameters: &[String], defaults: usize, offset: usize) {
        let special = self.printer.macros.pop().unwrap_or_default();
        self.printer.push(inner);
        self.printer.open_filter("_macro", offset);
        self.printer.string(name);
        self.printer.push(&format!(",{defaults},"));
        self.printer.string(&special.into_iter().collect::<Vec<_>>().join(","));
        for parameter in parameters {
            self.printer.push(",");
            self.printer.string(parameter);
        }
        self.printer.push(")");
    }
}
