//! Rules on templates as they stand, unrendered, and what becomes of SLS that cannot be rendered.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::super::jinja::outline::{self, Outline};
use super::super::root::{File, clean};
use super::super::{Side, function};
use super::{Kind, Lint};
use crate::diagnostic::{Code, Diagnostic, Span, nearest};

impl Lint<'_> {
    /// Reads every SLS, and every template that one of them imports by name.
    pub(super) fn text(&mut self) {
        let mut seen: HashSet<Arc<str>> = HashSet::new();
        for index in 0..self.sls.len() {
            let Some(sls) = self.sls.get(index) else { continue };
            let (side, env, path, file) = (sls.side, sls.env.clone(), sls.path.clone(), sls.file.clone());
            if !renders_jinja(&file) {
                continue;
            }
            let outline = self.template(side, &env, &path, &file, &mut seen);
            if let Some(sls) = self.sls.get_mut(index) {
                sls.outline = outline;
            }
        }
        self.undefined_names();
    }

    /// One template and those it brings in.
    fn template(&mut self, side: Side, env: &str, path: &str, file: &Arc<File>, seen: &mut HashSet<Arc<str>>) -> Option<Outline> {
        seen.insert(file.shown.clone());
        self.files.insert(file.shown.clone(), file.clone());
        let text = file.text().ok()?;
        let outline = match outline::outline(&file.shown, text) {
            Ok(outline) => outline,
            Err(error) => {
                self.found.add("template-error", *error);
                return None;
            }
        };
        self.filters(&outline);
        self.calls(&outline);
        if path.ends_with(".sls") {
            self.comments(&outline, file, text);
        }
        for used in &outline.files {
            let Some(target) = beside(&used.name, path) else { continue };
            match self.compiler.roots_of(side).read(env, &target) {
                Ok(Some(found)) => {
                    if used.with_context {
                        self.in_context.insert(target.clone());
                    }
                    if used.data {
                        self.data.insert(target);
                    } else if !seen.contains(&found.shown) {
                        self.template(side, env, &target, &found, seen);
                    }
                }
                _ if used.optional => {}
                _ => {
                    let all = self.compiler.roots_of(side).paths(env).unwrap_or_default();
                    let error = Diagnostic::new(Code::Template, format!("there is no template {} below the file roots", used.name))
                        .at(used.span.clone());
                    let error = match nearest(&target, all.iter().map(String::as_str)) {
                        Some(near) => error.hint(format!("did you mean {near}?")),
                        None => error.hint("paths of templates start at the file roots; ./ and ../ start beside the template"),
                    };
                    self.found.add("missing-template", error);
                }
            }
        }
        Some(outline)
    }

    fn filters(&mut self, outline: &Outline) {
        let unknown = |what: &str, (name, span): &outline::Spot, known: Vec<&'static str>| {
            let error = Diagnostic::new(Code::Template, format!("there is no {what} {name}")).at(span.clone());
            match nearest(name, known).map(str::to_owned) {
                Some(near) => error.hint(format!("did you mean {near}?")),
                None => error,
            }
        };
        for spot in outline.filters.iter().filter(|(name, _)| !outline::knows_filter(name)) {
            self.found.add("unknown-filter", unknown("filter", spot, outline::filters().collect()));
        }
        for spot in outline.tests.iter().filter(|(name, _)| !outline::knows_test(name)) {
            self.found.add("unknown-filter", unknown("test", spot, outline::tests().collect()));
        }
    }

    fn calls(&mut self, outline: &Outline) {
        for (name, span) in &outline.calls {
            let Some((module, _)) = name.split_once('.') else { continue };
            let own = ["base"]
                .into_iter()
                .chain(self.compiler.roots.names())
                .any(|env| self.compiler.roots.read(env, &format!("_modules/{module}.py")).is_ok_and(|file| file.is_some()));
            if own {
                let found =
                    Diagnostic::new(Code::Template, format!("{name} is Python of this tree: _modules/{module}.py")).at(span.clone());
                self.found.add("custom-module", found.hint("basalt runs no Python; give its answer in pillar or grains"));
            } else if !function::exists(name)
                && let Some(near) = nearest(name, function::names()).filter(|near| near.split_once('.').is_some_and(|(m, _)| m != module))
            {
                let error = Diagnostic::new(Code::Template, format!("there is no execution function {name}")).at(span.clone());
                self.found.add("template-error", error.hint(format!("did you mean {near}?")));
            }
        }
    }

    /// Tags in lines that YAML takes for comments.
    fn comments(&mut self, outline: &Outline, file: &Arc<File>, text: &str) {
        let lines: Vec<&str> = text.lines().collect();
        for (span, risky) in &outline.tags {
            let line = lines.get(span.line.saturating_sub(1) as usize).copied().unwrap_or("");
            if *risky && line.trim_start().starts_with('#') && !line.starts_with("#!") {
                let found = Diagnostic::new(Code::Template, "this Jinja stands in a comment and runs all the same")
                    .at(Span::new(file.shown.clone(), span.line, span.column))
                    .hint("put it into {# … #}");
                self.found.add("jinja-in-comment", found);
            }
        }
    }

    /// Names in SLS that nothing binds. Templates that see the names of others are left out.
    fn undefined_names(&mut self) {
        let mut errors = Vec::new();
        for sls in self.sls.iter().filter(|sls| sls.side == Side::States && sls.kind == Kind::States) {
            let Some(outline) = sls.outline.as_ref().filter(|_| !self.in_context.contains(&sls.path)) else { continue };
            let text = sls.file.text().unwrap_or("");
            if text.contains("extends ") || is_reactor(text) {
                continue;
            }
            for (name, span) in outline.free.iter().filter(|(name, _)| !outline.guarded.contains(name)) {
                let error = Diagnostic::new(Code::Template, format!("'{name}' is undefined")).at(span.clone());
                let known = outline.bound.iter().map(String::as_str).chain(outline::root_names().map(|name| -> &str { name }));
                let error = match (nearest(name, known), name.as_str()) {
                    (_, "env") => error.hint("Salt has no `env` any more: it is saltenv"),
                    (Some(near), _) => error.hint(format!("did you mean {near}?")),
                    (None, _) => error.hint("set it, import it, or give it a default: {{ x|default(…) }}"),
                };
                errors.push(error);
            }
        }
        errors.into_iter().for_each(|error| self.found.add("undefined-variable", error));
    }

    /// SLS that no world can render: mistakes, or for want of a host or of data.
    pub(super) fn failures(&mut self) {
        let (mut hosts, mut datas) = (Vec::new(), Vec::new());
        let mut asked: BTreeSet<String> = BTreeSet::new();
        for index in 0..self.sls.len() {
            let Some(sls) = self.sls.get(index) else { continue };
            if sls.kind == Kind::Other || (sls.outline.is_none() && renders_jinja(&sls.file)) {
                continue;
            }
            let mut first = None;
            let mut fails = true;
            for world in &self.worlds {
                match self.render(index, world) {
                    Some(Ok(_)) => fails = false,
                    Some(Err(error)) => drop(first.get_or_insert(*error)),
                    None => {}
                }
            }
            let calls: BTreeSet<String> = self.worlds.iter().flat_map(|world| world.asked(&sls.path)).collect();
            let Some(error) = first.filter(|_| fails) else { continue };
            let span = error.span.clone().unwrap_or_else(|| Span::new(sls.file.shown.clone(), 1, 1));
            let literal = error.excerpt.as_deref().is_some_and(|excerpt| !excerpt.contains("the template made of it"));
            match error.code {
                Code::Yaml if literal => {
                    let code = match error.rule.as_deref() {
                        Some("tabs") => "tabs",
                        Some("duplicate-key") => "duplicate-key",
                        _ => "yaml-error",
                    };
                    self.found.add(code, error);
                }
                _ if error.summary.contains("there is no renderer") => {
                    let code = if error.detail.is_empty() { "template-error" } else { "unsupported-renderer" };
                    self.found.add(code, error.or_at(span));
                }
                Code::HostNeeded => {
                    hosts.push((span, calls.iter().cloned().collect::<Vec<_>>().join(", ")));
                    asked.extend(calls);
                }
                _ if !calls.is_empty() => {
                    hosts.push((span, format!("{} ({})", error.summary, calls.iter().cloned().collect::<Vec<_>>().join(", "))));
                    asked.extend(calls);
                }
                _ if self.wants_data(index) => datas.push((span, error.summary)),
                Code::Yaml => self.found.add("yaml-error", error),
                _ if error.summary.starts_with("there is no template") => self.found.add("missing-template", error.or_at(span)),
                _ if error.summary.ends_with("is undefined") => self.found.add("undefined-variable", error.or_at(span)),
                _ => self.found.add("template-error", error.or_at(span)),
            }
        }
        let mut told = |code: &'static str, what: &str, hint: &str, places: Vec<(Span, String)>| {
            let Some((first, _)) = places.first().cloned() else { return };
            let of = if places.len() == 1 { "1 SLS".to_owned() } else { format!("{} SLS", places.len()) };
            let mut found = Diagnostic::new(Code::HostNeeded, format!("{of} cannot be rendered {what}")).at(first.clone());
            found.related = places;
            self.found.add(code, found.hint(hint));
        };
        let names = asked.into_iter().collect::<Vec<_>>().join(", ");
        told("needs-host", &format!("without a host: they ask it ({names})"), "`basalt plan` asks the hosts", hosts);
        told("needs-data", "without data that is not in the tree", "give it with --pillar FILE and --grains FILE", datas);
    }

    /// Whether a template, or one it imports, reads pillar or grains that may be missing here.
    fn wants_data(&self, index: usize) -> bool {
        let Some(sls) = self.sls.get(index) else { return false };
        let mut seen = HashSet::new();
        self.reads_data(sls.side, &sls.env, &sls.path, &sls.file, &mut seen)
    }

    fn reads_data(&self, side: Side, env: &str, path: &str, file: &Arc<File>, seen: &mut HashSet<String>) -> bool {
        if !seen.insert(path.to_owned()) {
            return false;
        }
        let Some(outline) = file.text().ok().and_then(|text| outline::outline(&file.shown, text).ok()) else { return false };
        if outline.whole_pillar || outline.grains || !outline.pillar.is_empty() || outline.computed_files {
            return true;
        }
        outline.files.iter().filter(|file| !file.data).any(|used| {
            let target = beside(&used.name, path);
            let found = target.and_then(|target| Some((self.compiler.roots_of(side).read(env, &target).ok()??, target)));
            found.is_some_and(|(file, target)| self.reads_data(side, env, &target, &file, seen))
        })
    }
}

/// The path that a template means by a name.
pub fn beside(name: &str, path: &str) -> Option<String> {
    if name.starts_with("./") || name.starts_with("../") {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        return clean(&format!("{folder}/{name}"));
    }
    clean(name)
}

/// Whether the renderers of a file begin with Jinja.
pub fn renders_jinja(file: &File) -> bool {
    let first = file.text().unwrap_or("").lines().next().unwrap_or("").to_owned();
    match first.strip_prefix("#!").filter(|rest| !rest.starts_with('/')) {
        Some(pipe) => pipe.contains("jinja"),
        None => true,
    }
}

/// A reactor's SLS sees an event, and names calls instead of states.
fn is_reactor(text: &str) -> bool {
    let calls = ["local.", "runner.", "wheel.", "caller."];
    text.lines().any(|line| line.starts_with([' ', '\t']) && calls.iter().any(|call| line.trim_start().starts_with(call)))
}
