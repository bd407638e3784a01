//! One rendering: what it sees of its host, what it has imported, and where its output stands.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use minijinja::value::Object;
use minijinja::{Error, ErrorKind, State, Value};

use super::call::Kept;
use super::scan::Options;
use super::value::{Dict, Flavour, Tuple, from_map, from_plain};
use super::{Context, Renderer, Templates};
use crate::diagnostic::Diagnostic;
use crate::lang::function::Site;

/// The name under which templates' filters find their run.
pub const NAME: &str = "__run";

pub struct Run {
    pub context: Context,
    pub templates: Arc<dyn Templates>,
    /// How what it imports is read.
    pub options: Options,
    renderer: Renderer,
    pub kept: Kept,
    grains: OnceLock<Value>,
    pillar: OnceLock<Value>,
    opts: OnceLock<Value>,
    output: Output,
    /// How many macros are open: what is printed in them is not yet output.
    pub quiet: AtomicUsize,
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<run>")
    }
}

impl Object for Run {}

/// The root of every template's names.
pub struct Root(pub Arc<Run>);

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<root>")
    }
}

impl Object for Root {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }
    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        match key.strip_prefix("v_") {
            Some(name) => self.0.name(name),
            None if key == NAME => Some(Value::from_dyn_object(self.0.clone())),
            None => None,
        }
    }
}

impl Run {
    pub fn new(context: Context, templates: Arc<dyn Templates>, options: Options, renderer: Renderer, output: Output) -> Run {
        let (grains, pillar, opts) = Default::default();
        Run { context, templates, options, renderer, kept: Kept::default(), grains, pillar, opts, output, quiet: AtomicUsize::new(0) }
    }

    /// A name of the root context.
    pub fn name(&self, name: &str) -> Option<Value> {
        let c = &self.context;
        if let Some(value) = c.extra.get(name) {
            return Some(from_plain(value));
        }
        let text = |s: &str| Some(Value::from(s));
        match name {
            "grains" | "__grains__" => Some(self.grains.get_or_init(|| grains(&c.grains)).clone()),
            "pillar" | "__pillar__" => Some(self.pillar.get_or_init(|| lazy(&c.pillar, Flavour::Proxy)).clone()),
            "opts" | "__opts__" => Some(self.opts.get_or_init(|| lazy(&c.opts, Flavour::Proxy)).clone()),
            "saltenv" | "__env__" => text(&c.saltenv),
            "sls" => text(&c.sls),
            "slspath" => text(&c.slspath),
            "slsdotpath" => text(&c.slsdotpath),
            "slscolonpath" => text(&c.slscolonpath),
            "sls_path" => text(&c.sls_path),
            "tplfile" => text(&c.tplfile),
            "tplpath" => text(&c.tplpath),
            "tpldir" => text(&c.tpldir),
            "tpldot" => text(&c.tpldot),
            "proxy" => Some(from_map(&Default::default())),
            _ => None,
        }
    }

    /// Every name of the root context.
    pub fn names(&self) -> Vec<(String, Value)> {
        let own = super::print::ROOT_NAMES.iter().filter(|n| !n.starts_with("__")).map(|n| (*n).to_owned());
        let extra = self.context.extra.iter().filter_map(|(k, _)| k.as_str().map(str::to_owned));
        own.chain(extra).filter_map(|n| self.name(&n).map(|v| (n, v))).collect()
    }

    pub fn site(&self) -> Site<'_> {
        Site { context: &self.context, templates: &*self.templates, renderer: &self.renderer }
    }

    /// The output has reached this line of that template.
    pub fn at(&self, template: &str, line: usize, text: bool) {
        if self.quiet.load(Ordering::Relaxed) > 0 {
            return;
        }
        let mut marks = self.output.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let position = self.output.lines.load(Ordering::Relaxed);
        let start = self.output.at_start.load(Ordering::Relaxed) == 1;
        let file = match marks.last() {
            Some(last) if &*last.file == template => last.file.clone(),
            _ => Arc::from(template),
        };
        marks.push(Mark { output: position as u32, file, line: line as u32, text, start });
    }
}

fn lazy(map: &Arc<crate::value::Map>, flavour: Flavour) -> Value {
    Value::from_object(Dict::lazy(map, flavour))
}

/// Salt has a tuple in one grain, which JSON has not.
fn grains(map: &Arc<crate::value::Map>) -> Value {
    let dict = Dict::lazy(map, Flavour::Proxy);
    if let Some(crate::value::Value::List(items)) = map.get(TUPLE) {
        dict.insert(Value::from(TUPLE), Tuple::value(items.iter().map(from_plain).collect()));
    }
    Value::from_object(dict)
}

const TUPLE: &str = "osrelease_info";

pub fn current(state: &State) -> Result<Arc<Run>, Error> {
    state.lookup(NAME).and_then(|v| v.downcast_object::<Run>()).ok_or_else(|| super::value::fail("no template is being rendered"))
}

/// Where in the output a piece of a template began to print.
pub struct Mark {
    /// Counted from 0.
    pub output: u32,
    /// The engine's name of the template.
    pub file: Arc<str>,
    pub line: u32,
    /// Literal text goes on line by line; a value stays on its line.
    pub text: bool,
    /// Nothing stood on the output line yet.
    pub start: bool,
}

/// Counts the lines of the output as they are written and refuses more than the limit.
#[derive(Clone)]
pub struct Output {
    pub text: Arc<Mutex<Vec<u8>>>,
    pub marks: Arc<Mutex<Vec<Mark>>>,
    lines: Arc<AtomicUsize>,
    at_start: Arc<AtomicUsize>,
    limit: usize,
    full: Arc<AtomicBool>,
}

impl Output {
    pub fn new(limit: usize) -> Output {
        Output {
            text: Arc::default(),
            marks: Arc::default(),
            lines: Arc::default(),
            at_start: Arc::new(AtomicUsize::new(1)),
            limit,
            full: Arc::default(),
        }
    }

    /// More was to be written than the limit allows.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }
}

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        if text.len() + bytes.len() > self.limit {
            self.full.store(true, Ordering::Relaxed);
            return Err(io::Error::other(format!("the template's output is larger than {} bytes", self.limit)));
        }
        let breaks = bytes.iter().filter(|b| **b == b'\n').count();
        self.lines.fetch_add(breaks, Ordering::Relaxed);
        if let Some(last) = bytes.last() {
            self.at_start.store(usize::from(*last == b'\n'), Ordering::Relaxed);
        }
        text.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Carries a diagnostic through the engine.
#[derive(Debug)]
pub struct Carried(pub Diagnostic);

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for Carried {}

pub fn raise(diagnostic: Diagnostic) -> Error {
    Error::new(ErrorKind::InvalidOperation, diagnostic.summary.clone()).with_source(Carried(diagnostic))
}
