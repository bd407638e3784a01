//! Salt's Jinja: templates rendered the way Salt 3008 renders them.
//!
//! ```text
//! source ─ scan ─► pieces ─ expression ─► trees ─ rewrite, print ─► source for minijinja ─► compiled once, shared between hosts
//! ```
//!
//! minijinja gives scopes, loops, macros, includes and limits. Everything in which Python and Jinja2 differ from it (operators,
//! printing, truth, undefined values, filters, methods, imports without context) is ours: the rewritten source calls it as filters.
//! What a template sees of its host comes with the [`Context`] of each rendering; a compiled template holds nothing of a host.

mod call;
pub mod dump;
mod engine;
mod expression;
mod filter;
mod format;
mod hint;
mod method;
mod operate;
pub mod outline;
mod print;
mod python;
mod rewrite;
mod run;
mod scan;
mod taint;
mod test;
mod value;
mod yaml_dump;

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use rewrite::Place;
use scan::Options;

use crate::budget::{Allowance, Budget};
use crate::diagnostic::{Code, Diagnostic, Result, Span};
use crate::lang::NodeKeys;
use crate::lang::secret::{self, Secrets};
use crate::value::{Map, Value};

/// A file of the tree, as a template loads it.
#[derive(Clone, Debug)]
pub struct Source {
    /// As the user would type it: relative to the state repository, or absolute.
    pub file: Arc<str>,
    pub text: Arc<str>,
}

/// Where templates and the files around them come from. `path` is relative to the file roots, as after `salt://`.
pub trait Templates: Send + Sync {
    /// `None`: there is no such file.
    fn read(&self, saltenv: &str, path: &str) -> Option<Source>;
    /// Every file below the roots of an environment, sorted.
    fn list(&self, saltenv: &str) -> Vec<String>;
}

/// Execution functions that only a host can answer (`cmd.run`, `file.file_exists` …): answered from earlier answers, or recorded as
/// missing, so that the compiler can ask for all of them at once and render again.
pub trait HostCalls: Send + Sync {
    /// `Code::HostNeeded` where nothing is known yet.
    fn call(&self, function: &str, args: &[Value], kwargs: &Map) -> Result<Value>;
}

/// No host to ask: every call that needs one fails.
pub struct Offline;

impl HostCalls for Offline {
    fn call(&self, function: &str, _args: &[Value], _kwargs: &Map) -> Result<Value> {
        Err(Box::new(
            Diagnostic::new(Code::HostNeeded, format!("{function} can only be answered by the host"))
                .hint("compile with a connection to the host, or give the answer with the recorded calls"),
        ))
    }
}

/// What a template sees of one host. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    pub grains: Arc<Map>,
    pub pillar: Arc<Map>,
    pub opts: Arc<Map>,
    pub saltenv: String,
    pub sls: String,
    pub slspath: String,
    pub slsdotpath: String,
    pub slscolonpath: String,
    pub sls_path: String,
    pub tplfile: String,
    pub tplpath: String,
    pub tpldir: String,
    pub tpldot: String,
    /// More names: `context:` and `defaults:` of a `file.managed`, and what Salt adds there.
    pub extra: Map,
    pub host: Arc<dyn HostCalls>,
    pub secrets: Arc<Secrets>,
    pub node_keys: Option<Arc<dyn NodeKeys>>,
}

impl Context {
    pub fn new(grains: Arc<Map>, pillar: Arc<Map>, opts: Arc<Map>, host: Arc<dyn HostCalls>) -> Context {
        Context {
            grains,
            pillar,
            opts,
            saltenv: "base".into(),
            sls: String::new(),
            slspath: String::new(),
            slsdotpath: String::new(),
            slscolonpath: String::new(),
            sls_path: String::new(),
            tplfile: String::new(),
            tplpath: String::new(),
            tpldir: String::new(),
            tpldot: String::new(),
            extra: Map::new(),
            host,
            secrets: Arc::default(),
            node_keys: None,
        }
    }

    /// The same host, seen from an SLS: `sls` is its dotted name, `path` its file below the roots.
    pub fn for_sls(&self, saltenv: &str, sls: &str, path: &str) -> Context {
        let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
        Context {
            saltenv: saltenv.to_owned(),
            sls: sls.to_owned(),
            slspath: dir.to_owned(),
            slsdotpath: dir.replace('/', "."),
            slscolonpath: dir.replace('/', ":"),
            sls_path: dir.replace('/', "_"),
            ..self.for_file(path)
        }
    }

    /// The same host, seen from a template that is no SLS.
    pub fn for_file(&self, path: &str) -> Context {
        let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
        Context {
            tplfile: path.to_owned(),
            tplpath: path.to_owned(),
            tpldir: if dir.is_empty() { ".".into() } else { dir.to_owned() },
            tpldot: dir.replace('/', "."),
            ..self.clone()
        }
    }
}

/// What keeps a template from running away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Steps of the engine; a million take well under a second.
    pub fuel: u64,
    /// Nested frames: a macro call costs about 5, an include 11.
    pub recursion: usize,
    /// The size of the rendered text.
    pub output: usize,
    /// Of everything that is compiled for a host.
    pub allowance: Allowance,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { fuel: 20_000_000, recursion: 1500, output: 64 << 20, allowance: Allowance::default() }
    }
}

/// Salt's environment of SLS (`jinja_sls_env`) and of every other template (`jinja_env`).
#[derive(Clone, Copy, Debug, Default)]
pub struct Environments {
    sls: Options,
    other: Options,
}

impl Environments {
    /// What environments may say.
    pub const KNOWN: [&str; 2] = ["trim_blocks", "lstrip_blocks"];

    /// From the settings of a Salt master; `jinja_trim_blocks` and `jinja_lstrip_blocks` go over both.
    pub fn of(master: &Map) -> Environments {
        let both = [("jinja_trim_blocks", "trim_blocks"), ("jinja_lstrip_blocks", "lstrip_blocks")];
        let both = both.map(|(setting, name)| (name, master.get(setting).is_some_and(Value::truthy)));
        let options = |setting: &str| {
            let own = master.get(setting).and_then(Value::as_map).into_iter().flatten();
            let own = own.filter_map(|(name, value)| Some((name.as_str()?, value.truthy())));
            Options::default().with(own.chain(both.into_iter().filter(|(_, on)| *on)))
        };
        Environments { sls: options("jinja_sls_env"), other: options("jinja_env") }
    }
}

/// What a rendering gives.
#[derive(Clone, Debug)]
pub struct Rendered {
    pub text: String,
    pub lines: Lines,
}

/// From lines of the output to lines of the templates that printed them.
#[derive(Clone, Debug, Default)]
pub struct Lines(Vec<Line>);

#[derive(Clone, Debug)]
struct Line {
    output: u32,
    source: Source,
    line: u32,
    text: bool,
    start: bool,
}

impl Lines {
    /// What follows this output comes from there: literal text goes on line by line, a value stays on its line.
    pub fn mark(&mut self, before: &str, from: Span, source: Source, text: bool) {
        let output = before.matches('\n').count() as u32;
        self.0.push(Line { output, source, line: from.line, text, start: before.is_empty() || before.ends_with('\n') });
    }

    /// Where line `line` of the output (from 1) comes from: a place without a column, and the template.
    pub fn locate(&self, line: u32) -> Option<(Span, &Source)> {
        let output = line.checked_sub(1)?;
        let upto = self.0.partition_point(|m| m.output < output || (m.output == output && m.start));
        let mark = self.0.get(upto.checked_sub(1)?)?;
        let offset = if mark.text { output - mark.output } else { 0 };
        Some((Span::new(mark.source.file.clone(), mark.line + offset, 0), &mark.source))
    }
}

/// Holds the compiled templates of one tree. A clone shares them.
#[derive(Clone)]
pub struct Renderer(Arc<Compiled>);

struct Compiled {
    templates: Arc<dyn Templates>,
    sources: Arc<engine::Sources>,
    environment: minijinja::Environment<'static>,
    /// Templates that came as text, by name and text.
    given: Mutex<HashMap<u64, (Arc<str>, Options)>>,
    environments: Environments,
    limits: Limits,
}

thread_local! {
    /// How many renderings of this thread stand in each other (`slsutil.renderer`).
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

impl Renderer {
    pub fn new(templates: Arc<dyn Templates>, environments: Environments, limits: Limits) -> Renderer {
        let sources = Arc::new(engine::Sources::new(templates.clone()));
        let environment = engine::environment(&sources, &limits);
        Renderer(Arc::new(Compiled { templates, sources, environment, given: Mutex::default(), environments, limits }))
    }

    /// Renders `source`. `name` is its file, for errors; relative imports start at the context's `tpldir`.
    pub fn render(&self, name: &str, source: &str, context: &Context) -> Result<Rendered> {
        let Compiled { templates, sources, environment, limits, .. } = &*self.0;
        let _budget = Budget::open(limits.allowance);
        let diagnose = |e: minijinja::Error| Box::new(sources.diagnose(&e));
        let (key, options) = self.given(name, source, context);
        let template = environment.get_template(&key).map_err(diagnose)?;
        let output = run::Output::new(limits.output);
        let run = Arc::new(run::Run::new(context.clone(), templates.clone(), options, self.clone(), output.clone()));
        let root = minijinja::Value::from_object(run::Root(run));
        if let Err(error) = secret::within(&context.secrets, || template.render_captured_to(root, output.clone())) {
            return Err(if output.is_full() { Box::new(self.too_large(&output)) } else { diagnose(error) });
        }
        let bytes = std::mem::take(&mut *output.text.lock().unwrap_or_else(PoisonError::into_inner));
        let mut text = String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned());
        if source.ends_with('\n') {
            text.push('\n');
        }
        let marks = std::mem::take(&mut *output.marks.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Rendered { text, lines: Lines(self.lines(marks)) })
    }

    /// The output is larger than it may be; where it went over is where it was last written to.
    fn too_large(&self, output: &run::Output) -> Diagnostic {
        let limit = self.0.limits.output;
        let error = Diagnostic::new(Code::Template, format!("the template's output is larger than {limit} bytes"));
        let error = error.hint("`limits: output` in basalt.yaml allows more, in MiB");
        let marks = std::mem::take(&mut *output.marks.lock().unwrap_or_else(PoisonError::into_inner));
        match self.lines(marks).pop() {
            Some(line) => error.at(Span::new(line.source.file.clone(), line.line, 1)).excerpt_of(&line.source.text),
            None => error,
        }
    }

    /// A rendering that a template asked for.
    pub(crate) fn nested(&self, name: &str, source: &str, context: &Context) -> Result<Rendered> {
        let depth = DEPTH.get();
        if depth >= 10 {
            return Err(Box::new(Diagnostic::new(Code::Template, "slsutil.renderer is nested too deeply; does a file render itself?")));
        }
        DEPTH.set(depth + 1);
        let result = self.render(name, source, context);
        DEPTH.set(depth);
        result
    }

    fn given(&self, name: &str, source: &str, context: &Context) -> (Arc<str>, Options) {
        let options = if context.sls.is_empty() { self.0.environments.other } else { self.0.environments.sls };
        let mut hasher = DefaultHasher::new();
        (name, source, &context.tplfile, &context.tpldir, options).hash(&mut hasher);
        let hash = hasher.finish();
        let mut given = self.0.given.lock().unwrap_or_else(PoisonError::into_inner);
        let place = Place { tplfile: &context.tplfile, tpldir: &context.tpldir };
        let give = || self.0.sources.give(hash, name, source, &place, options);
        given.entry(hash).or_insert_with(give).clone()
    }

    fn lines(&self, marks: Vec<run::Mark>) -> Vec<Line> {
        let mut files: HashMap<Arc<str>, Source> = HashMap::new();
        let mut source = |name: Arc<str>| files.entry(name).or_insert_with_key(|name| self.0.sources.source(name)).clone();
        marks.into_iter().map(|m| Line { output: m.output, source: source(m.file), line: m.line, text: m.text, start: m.start }).collect()
    }
}
