//! `include`, `import` and `from`: what brings in other templates.

use super::{Done, Rewriter};
use crate::lang::jinja::expression::{Node, Parser, Target};
use crate::lang::jinja::scan::{Mistake, Token};

impl Rewriter<'_> {
    /// `"name"|_resolve("whole", "dir", …)`: the engine's name of another template.
    pub(super) fn file_filter(&mut self, filter: &str, at: usize, mode: &str, ignore_missing: bool) {
        self.printer.open_filter(filter, at);
        self.printer.string(mode);
        self.printer.push(",");
        self.printer.string(self.place.tpldir);
        self.printer.push(if ignore_missing { ",true)" } else { ",false)" });
    }

    pub(super) fn context(p: &mut Parser, default: bool) -> Result<bool, Mistake> {
        for (word, with) in [("with", true), ("without", false)] {
            if p.is_name(word) {
                p.advance();
                p.expect_name("context")?;
                return Ok(with);
            }
        }
        Ok(default)
    }

    pub(super) fn include(&mut self, p: &mut Parser, at: usize) -> Done {
        let node = p.expression()?;
        let ignore = p.skip_name("ignore");
        if ignore {
            p.expect_name("missing")?;
        }
        let mode = if Self::context(p, true)? { "whole" } else { "alone" };
        self.printer.push("{% with v__include = ");
        self.printer.expression(&node);
        self.file_filter("_include", at, mode, ignore);
        self.printer.push(" %}{% include v__include %}{% endwith %}");
        Ok(())
    }

    /// Leaves the module in `v__module`.
    pub(super) fn module(&mut self, node: &Node, with_context: bool, at: usize) {
        if with_context {
            self.printer.push("{% import (");
            self.printer.expression(node);
            self.file_filter("_resolve", at, "whole", false);
            self.printer.push(") as v__module %}{% set v__module = v__module|_module %}");
        } else {
            // Jinja2 keeps modules without context: whoever imports one again gets the same values.
            self.printer.push("{% set v__name = ");
            self.printer.expression(node);
            self.file_filter("_resolve", at, "alone", false);
            self.printer.push(" %}{% set v__module = v__name|_kept %}{% if not v__module %}{% import v__name as v__module %}");
            self.printer.push("{% set v__module = v__module|_keep(v__name) %}{% endif %}");
        }
    }

    pub(super) fn import(&mut self, p: &mut Parser, at: usize, parse: Option<&'static str>) -> Done {
        let node = p.expression()?;
        p.expect_name("as")?;
        let name = p.name()?;
        let with_context = Self::context(p, false)?;
        self.module(&node, with_context, at);
        self.assign(&Target::Name(name), at, |out| {
            out.push("v__module");
            if let Some(what) = parse {
                out.open_filter("_parse", at);
                out.string(what);
                out.push(",");
                out.expression(&node);
                out.push(")");
            }
        });
        Ok(())
    }

    pub(super) fn import_names(&mut self, p: &mut Parser, at: usize) -> Done {
        let node = p.expression()?;
        p.expect_name("import")?;
        let mut names: Vec<(String, String, usize)> = Vec::new();
        let mut with_context = false;
        while let Some(Token::Name(word)) = p.peek() {
            if word == "with" || word == "without" {
                with_context = Self::context(p, false)?;
                break;
            }
            let offset = p.offset();
            if word.starts_with('_') {
                return Err(Mistake::new(offset, "names starting with an underline can not be imported"));
            }
            let name = p.name()?;
            let alias = if p.skip_name("as") { p.name()? } else { name.clone() };
            names.push((name, alias, offset));
            if !p.skip_op(",") {
                with_context = Self::context(p, false)?;
                break;
            }
        }
        if names.is_empty() {
            return Err(p.expected("name"));
        }
        self.module(&node, with_context, at);
        for (name, alias, offset) in names {
            self.assign(&Target::Name(alias), offset, |out| {
                out.push("v__module");
                out.open_filter("_export", offset);
                out.string(&name);
                out.push(",");
                out.expression(&node);
                out.push(")");
            });
        }
        Ok(())
    }
}
