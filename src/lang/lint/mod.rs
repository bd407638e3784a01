//! `lint`: what is wrong or looks wrong in a tree, found without any host.
//!
//! Every SLS of the roots is read, not only what the top file names, and rendered for several kinds of hosts (`World`). A finding must hold for
//! the text that is there: where a line was looked at several times (for each kind of host, for each turn of a loop), it is told only when
//! each look found it. What cannot be rendered without a host or without data that the tree does not have is told once, as what it is.
//!
//! `text` reads templates unrendered, `state` looks at single states, `whole` at what one host gets, `data` at pillar and top files.

mod data;
mod known;
mod state;
mod text;
mod whole;
mod world;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use indexmap::IndexMap;

use super::jinja::outline::Outline;
use super::renderer::Rendered;
use super::root::File;
use super::{Compiler, Matcher, Side, Where};
use crate::diagnostic::{Diagnostic, Severity, Span};
use crate::secret::Mask;
use crate::value::Map;
pub use known::families;
use world::World;

/// A kind of finding.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its stable name.
    pub code: &'static str,
    pub severity: Severity,
    /// What it finds, in one line.
    pub about: &'static str,
}

const fn error(code: &'static str, about: &'static str) -> Rule {
    Rule { code, severity: Severity::Error, about }
}

const fn warning(code: &'static str, about: &'static str) -> Rule {
    Rule { code, severity: Severity::Warning, about }
}

const fn note(code: &'static str, about: &'static str) -> Rule {
    Rule { code, severity: Severity::Note, about }
}

/// All of them, by severity.
#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    error("template-error", "a template cannot be read or rendered"),
    error("unknown-filter", "a filter or test that Jinja does not have"),
    error("undefined-variable", "a template uses a name that nothing binds"),
    error("missing-template", "a template includes or imports a file that is not there"),
    error("yaml-error", "the text, or what a template made, is no YAML"),
    error("duplicate-key", "a key is twice in one mapping: an id in one SLS, an argument in one state"),
    error("tabs", "a line is indented with tabs"),
    error("bad-state", "what stands below an id, include, extend or exclude is not what Salt takes"),
    error("bad-top", "a top file is not what Salt takes, or a target cannot be read"),
    error("unknown-state", "a state function that does not exist, near one that does"),
    error("unknown-argument", "an argument that the function does not have"),
    error("wrong-type", "an argument has a value that it cannot take"),
    error("missing-sls", "a top file or an include names an SLS that is not there"),
    error("missing-source", "a source below salt:// that is not there"),
    error("requisite-never-matches", "a requisite names a state that is nowhere"),
    error("extend-nothing", "extend names an id that is nowhere"),
    error("duplicate-id", "one host gets the same id from two SLS"),
    error("cycle", "states wait for each other in a circle"),
    warning("shadowed-sls", "x.sls and x/init.sls are both there, and the second is never read"),
    warning("shadowed-state", "one host gets two states that set the same thing to different ends"),
    warning("unquoted-mode", "a mode such as 0644 without quotes: 644 to Salt, 420 to others"),
    warning("odd-mode", "a mode that nobody means: the decimal of an octal number"),
    warning("quoted-false", "'False' in quotes where a truth is wanted: Python takes it for true"),
    warning("no-contents", "file.managed without source or contents: an empty file, and a warning of Salt's at each run"),
    warning("watch-ignored", "watch on a state that does not react: it is require"),
    warning("bad-order", "an order that Salt ignores"),
    warning("unused-pillar", "a pillar key that nothing in the tree mentions"),
    warning("unset-pillar", "a template reads a pillar key without default that no pillar SLS sets"),
    warning("jinja-in-comment", "Jinja in a comment of YAML: it runs all the same, and can fail"),
    warning("unsupported-state", "a state function that Salt may have and basalt does not: a plan refuses it"),
    warning("unsupported-argument", "an argument that Salt has and basalt does not: a plan refuses it"),
    warning("unsupported-renderer", "an SLS is written for a renderer of Salt's that runs Python: a plan refuses it"),
    warning("custom-module", "a template calls Python of the tree, which basalt does not run"),
    note("unmatched-target", "a target of the top file that matches no host of the roster"),
    note("unused-sls", "an SLS that no top file names and no SLS includes"),
    note("needs-host", "SLS that ask the host while they are rendered: what depends on it was not looked at"),
    note("needs-data", "SLS that cannot be rendered without pillar or grains that are not in the tree"),
];

pub fn rule(code: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.code == code)
}

#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    pub rule: &'static Rule,
    pub diagnostic: Diagnostic,
}

/// Gives the matcher of a host.
pub type Matchers<'a> = &'a dyn Fn(&str, &Map) -> Box<dyn Matcher>;

/// What to lint with.
pub struct Input<'a> {
    /// Kinds of hosts: a name and grains.
    pub grains: Vec<(String, Map)>,
    /// Laid over the tree's pillar; several are tried one after the other.
    pub pillars: Vec<Map>,
    /// The hosts of the roster: ids and grains.
    pub hosts: Vec<(String, Map)>,
    pub matchers: Matchers<'a>,
}

/// What was found, and in how many SLS it was looked for.
pub struct Report {
    pub findings: Vec<Finding>,
    pub sls: usize,
}

/// An SLS of the tree.
struct Sls {
    side: Side,
    env: String,
    name: String,
    path: String,
    file: Arc<File>,
    kind: Kind,
    outline: Option<Outline>,
}

/// What an SLS is used as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    States,
    Pillar,
    Top,
    /// A reactor's, data that templates import, pillar that lies in the file roots.
    Other,
}

/// What has been found so far, by rule and place.
#[derive(Default)]
struct Findings {
    /// How often a rule looked at a place, and what it found there.
    looked: IndexMap<(&'static str, Span), (usize, Vec<Diagnostic>)>,
}

impl Findings {
    /// A rule looked at a place. It counts only if it finds something there each time.
    fn look(&mut self, code: &'static str, span: &Span, found: Option<Diagnostic>) {
        let (times, list) = self.looked.entry((code, span.clone())).or_default();
        *times += 1;
        list.extend(found);
    }

    /// A finding for certain.
    fn add(&mut self, code: &'static str, found: Diagnostic) {
        let span = found.span.clone().unwrap_or_else(|| Span::new("", 0, 0));
        self.look(code, &span, Some(found));
    }

    fn finish(self) -> Vec<Finding> {
        let mut out = Vec::new();
        for ((code, _), (times, mut list)) in self.looked {
            let Some(rule) = rule(code).filter(|_| list.len() >= times) else { continue };
            list.truncate(1);
            out.extend(list.into_iter().map(|found| {
                let diagnostic = Diagnostic { severity: rule.severity, rule: Some(code.into()), word: None, ..found };
                Finding { rule, diagnostic }
            }));
        }
        out
    }
}

/// One linting.
struct Lint<'a> {
    compiler: &'a Compiler,
    worlds: Vec<World<'a>>,
    sls: Vec<Sls>,
    found: Findings,
    /// Templates and other files that were read, for excerpts and suppressions.
    files: HashMap<Arc<str>, Arc<File>>,
    /// Files that some template imports as data, by path.
    data: HashSet<String>,
    /// Files that see the names of those who include them.
    in_context: HashSet<String>,
}

/// Lints a tree.
pub fn lint(compiler: &Compiler, input: &Input) -> Report {
    let hosts = world::hosts(compiler, input);
    let matchers: Vec<Box<dyn Matcher>> = hosts.iter().map(|host| (input.matchers)(&host.id, &host.grains)).collect();
    let inputs: Vec<super::HostInput> = hosts.iter().zip(&matchers).map(|(host, matcher)| host.input(matcher.as_ref())).collect();
    let worlds = inputs.iter().map(|input| World::new(compiler, input)).collect();
    let mut lint = Lint {
        compiler,
        worlds,
        sls: Vec::new(),
        found: Findings::default(),
        files: HashMap::new(),
        data: HashSet::new(),
        in_context: HashSet::new(),
    };
    lint.collect();
    lint.text();
    lint.sort_out();
    lint.failures();
    lint.states();
    lint.whole();
    lint.tops(input);
    lint.pillar();
    let sls = lint.sls.iter().filter(|sls| sls.kind != Kind::Other).count();
    let asking = lint.asking();
    let secrets: Vec<String> = lint.worlds.iter().flat_map(|world| world.session.secrets.list()).collect();
    let mask = Mask::new(&secrets);
    let Lint { found, files, .. } = lint;
    let mut findings: Vec<Finding> = found.finish().into_iter().map(|finding| with_excerpt(finding, &files)).collect();
    findings.retain(|finding| !suppressed(finding, &files) && !guessed(finding, &asking));
    findings.sort_by(|a, b| order(a).cmp(&order(b)));
    findings.iter_mut().for_each(|finding| finding.diagnostic = mask.diagnostic(finding.diagnostic.clone()));
    findings.dedup_by(|a, b| a.diagnostic.span == b.diagnostic.span && a.rule == b.rule);
    Report { findings: grouped(findings), sls }
}

fn order(finding: &Finding) -> (Arc<str>, u32, u32, &'static str) {
    let span = finding.diagnostic.span.clone().unwrap_or_else(|| Span::new("", 0, 0));
    (span.file, span.line, span.column, finding.rule.code)
}

fn with_excerpt(mut finding: Finding, files: &HashMap<Arc<str>, Arc<File>>) -> Finding {
    let file = finding.diagnostic.span.as_ref().and_then(|span| files.get(&span.file));
    if finding.rule.severity != Severity::Note
        && let Some(text) = file.and_then(|file| file.text().ok())
    {
        finding.diagnostic = finding.diagnostic.excerpt_of(text);
    }
    finding
}

/// `basalt: ignore CODE` in the line itself or the one before.
fn suppressed(finding: &Finding, files: &HashMap<Arc<str>, Arc<File>>) -> bool {
    let Some(span) = &finding.diagnostic.span else { return false };
    let Some(text) = files.get(&span.file).and_then(|file| file.text().ok()) else { return false };
    let from = span.line.saturating_sub(2) as usize;
    let take = if span.line > 1 { 2 } else { 1 };
    text.lines().skip(from).take(take).any(|line| {
        let codes = line.split_once("basalt: ignore").map(|(_, codes)| codes);
        codes.is_some_and(|codes| codes.split([',', ' ', '#', '}']).any(|code| code == finding.rule.code))
    })
}

/// Rules on what stands in the text, whatever is made of it.
const UNRENDERED: [&str; 7] =
    ["template-error", "unknown-filter", "undefined-variable", "missing-template", "jinja-in-comment", "custom-module", "unset-pillar"];

/// Whether a finding is in a line that may have been made of a guess at what a host would answer.
fn guessed(finding: &Finding, asking: &HashSet<Arc<str>>) -> bool {
    if UNRENDERED.contains(&finding.rule.code) {
        return false;
    }
    let made =
        finding.diagnostic.excerpt.as_deref().and_then(|excerpt| excerpt.lines().rev().nth(1)).is_some_and(|line| line.contains("{{"));
    made && finding.diagnostic.span.as_ref().is_some_and(|span| asking.contains(&span.file))
}

/// Rules that are told once a file, or once for all, with the number of further places.
const ONCE_A_FILE: [&str; 2] = ["unquoted-mode", "jinja-in-comment"];
const ONCE_A_TREE: [&str; 2] = ["unsupported-state", "unsupported-argument"];

/// So many further places are named.
const MORE: usize = 3;

fn grouped(findings: Vec<Finding>) -> Vec<Finding> {
    let mut first: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut more: HashMap<usize, Vec<Span>> = HashMap::new();
    let mut out: Vec<Finding> = Vec::new();
    for finding in findings {
        let Some(span) = finding.diagnostic.span.clone() else {
            out.push(finding);
            continue;
        };
        let key = match finding.rule.code {
            code if ONCE_A_FILE.contains(&code) => (code.to_owned(), span.file.to_string()),
            code if ONCE_A_TREE.contains(&code) => (code.to_owned(), finding.diagnostic.summary.clone()),
            // A whole folder that lies elsewhere: told once a file.
            code @ "missing-sls" if finding.diagnostic.hint.as_deref().is_some_and(|hint| hint.contains("another repository")) => {
                let name = finding.diagnostic.summary.rsplit(' ').next().unwrap_or("");
                (code.to_owned(), format!("{} {}", span.file, name.split('.').next().unwrap_or("")))
            }
            _ => {
                out.push(finding);
                continue;
            }
        };
        match first.get(&key) {
            Some(index) => more.entry(*index).or_default().push(span),
            None => {
                first.insert(key, out.len());
                out.push(finding);
            }
        }
    }
    for (index, places) in more {
        if let Some(finding) = out.get_mut(index) {
            let rest = places.len().saturating_sub(MORE);
            if rest > 0 {
                finding.diagnostic.detail = format!("and in {rest} more places");
            }
            finding.diagnostic.related.extend(places.into_iter().take(MORE).map(|span| (span, "also here".to_owned())));
        }
    }
    out
}

impl Lint<'_> {
    /// All SLS of both sides.
    fn collect(&mut self) {
        for side in [Side::States, Side::Pillar] {
            let roots = self.compiler.roots_of(side).clone();
            let envs: Vec<String> = roots.names().map(str::to_owned).collect();
            for env in envs {
                for name in roots.sls(&env).unwrap_or_default().iter() {
                    let Ok(Some((path, file))) = roots.find_sls(&env, name) else { continue };
                    let top = path == self.compiler.top_name();
                    let kind = match side {
                        _ if top => Kind::Top,
                        Side::Pillar => Kind::Pillar,
                        Side::States if is_aside(&path) => Kind::Other,
                        Side::States => Kind::States,
                    };
                    self.files.insert(file.shown.clone(), file.clone());
                    if side == Side::States && path.ends_with(".sls") && !path.ends_with("/init.sls") {
                        self.shadowed_sls(&roots, &env, &path);
                    }
                    self.sls.push(Sls { side, env: env.clone(), name: name.clone(), path, file, kind, outline: None });
                }
            }
        }
    }

    fn shadowed_sls(&mut self, roots: &super::root::Roots, env: &str, path: &str) {
        let init = format!("{}/init.sls", path.trim_end_matches(".sls"));
        if let Ok(Some(hidden)) = roots.read(env, &init) {
            self.files.insert(hidden.shown.clone(), hidden.clone());
            let found = Diagnostic::new(crate::diagnostic::Code::Compile, format!("this SLS is never read: {path} stands before it"))
                .at(Span::new(hidden.shown.clone(), 1, 1))
                .hint("keep one of them");
            self.found.add("shadowed-sls", found);
        }
    }

    /// The SLS that ask the host.
    fn asking(&self) -> HashSet<Arc<str>> {
        let asks = |sls: &&Sls| self.worlds.iter().any(|world| !world.asked(&sls.path).is_empty());
        self.sls.iter().filter(asks).map(|sls| sls.file.shown.clone()).collect()
    }

    /// Tells data and reactors from states, by what they hold.
    fn sort_out(&mut self) {
        for index in 0..self.sls.len() {
            let Some(sls) = self.sls.get(index) else { continue };
            if sls.kind != Kind::States {
                continue;
            }
            let rendered = self.rendered(index);
            let other = self.data.contains(&sls.path) || rendered.iter().any(|r| !state::looks_like_states(&r.node));
            if other && let Some(sls) = self.sls.get_mut(index) {
                sls.kind = Kind::Other;
            }
        }
    }

    /// What an SLS is in each world where it can be rendered, each result once.
    fn rendered(&self, index: usize) -> Vec<Rendered> {
        let mut out: Vec<Rendered> = Vec::new();
        for world in &self.worlds {
            if let Some(Ok(rendered)) = self.render(index, world)
                && !out.iter().any(|there| Arc::ptr_eq(&there.node, &rendered.node))
            {
                out.push(rendered);
            }
        }
        out
    }

    fn render(&self, index: usize, world: &World) -> Option<crate::diagnostic::Result<Rendered>> {
        let sls = self.sls.get(index)?;
        let name = if sls.kind == Kind::Top { "" } else { &sls.name };
        let at = Where { side: sls.side, env: &sls.env, path: &sls.path, sls: name };
        Some(world.render(self.compiler, &sls.file, at))
    }
}

/// Folders whose SLS are no states, though they lie in the file roots.
fn is_aside(path: &str) -> bool {
    let mut folders: Vec<&str> = path.split('/').collect();
    folders.pop();
    folders.iter().any(|folder| {
        folder.starts_with('.') || matches!(folder.trim_start_matches('_'), "pillar" | "pillars" | "reactor" | "reactors" | "node_modules")
    })
}
