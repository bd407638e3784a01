//! The language: from a state repository's files to the low chunks of one host.
//!
//! ```text
//! root ─► renderer ─► high ─► requisite ─► low ─► order ─► lower, source ─► plan::Low
//!          ▲  jinja, yaml      extend, *_in         chunks      what the engine plans
//! top, pillar: which SLS, and with which data
//! ```
//!
//! One `Compiler` per tree: files are read and templates compiled once, and threads compile many hosts with it at a time. Everything here is
//! pure: what only a host can answer is collected (`missing`) and given back in `HostInput::answers` for a second round.

pub mod function;
pub mod glob;
pub mod high;
mod include;
pub mod jinja;
pub mod low;
mod lower;
pub mod order;
mod pillar;
mod renderer;
pub mod requisite;
pub mod root;
pub mod source;
mod top;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use indexmap::IndexMap;

use crate::agent::protocol::{Answer, Call};
use crate::diagnostic::{Diagnostic, Result};
use crate::plan;
use crate::value::{Map, Value};
use low::Chunk;
use root::Roots;

/// Says whether a target expression means the host. `form` is Salt's word: `compound`, `glob`, `grain`, `pillar`, `nodegroup` …
pub trait Matcher: Send + Sync {
    fn matches(&self, expression: &str, form: &str, pillar: &Map) -> Result<bool>;
}

/// The host to compile for.
pub struct HostInput<'a> {
    pub id: &'a str,
    pub grains: &'a Map,
    /// Laid over the compiled pillar, as `--pillar` asks.
    pub pillar_override: Option<&'a Map>,
    /// What the host answered to calls in templates that were `missing` before.
    pub answers: &'a [(Call, Answer)],
    pub matcher: &'a dyn Matcher,
}

/// What may fail in several places at once.
pub type Results<T> = std::result::Result<T, Vec<Diagnostic>>;

/// The SLS of each environment.
pub type Matches = IndexMap<String, Vec<String>>;

/// What to compile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// What the top file gives the host.
    Highstate,
    Sls(Vec<String>),
}

/// What a host is to be.
#[derive(Debug, Default)]
pub struct Compiled {
    pub pillar: Map,
    /// In execution order, with Salt's keys. A state that a `prereq` names stands twice.
    pub chunks: Vec<Chunk>,
    /// The same for the engine: each state once.
    pub lows: Vec<plan::Low>,
    /// Contents that lows name, by hash.
    pub blobs: source::Blobs,
    /// Sources on the web: fetch them and add a `Content` of the name to the low.
    pub remote: Vec<source::Remote>,
    /// Ask the host these and compile again with the answers; until then the rest is empty.
    pub missing: Vec<Call>,
}

/// How files are rendered and merged: Salt master options.
#[derive(Clone, Debug)]
pub struct Options {
    /// The environment of SLS that are named without one.
    pub saltenv: String,
    /// Renderers of files whose first line names none.
    pub renderer: String,
    /// What templates see as `opts`, and the settings of pillar and top files.
    pub master: Map,
}

impl Default for Options {
    fn default() -> Options {
        Options { saltenv: "base".into(), renderer: "jinja|yaml".into(), master: Map::new() }
    }
}

impl Options {
    /// A master option that is a text.
    fn text(&self, key: &str) -> Option<&str> {
        self.master.get(key)?.as_str()
    }

    fn list(&self, key: &str) -> &[Value] {
        self.master.get(key).and_then(Value::as_list).unwrap_or_default()
    }

    fn truthy(&self, key: &str) -> bool {
        self.master.get(key).is_some_and(Value::truthy)
    }
}

/// States and pillar have roots of their own; a template of one does not see the files of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    States,
    Pillar,
}

/// Where a template stands: its path below the roots, and its name where it is an SLS.
#[derive(Clone, Copy)]
struct Where<'a> {
    side: Side,
    env: &'a str,
    path: &'a str,
    sls: &'a str,
}

/// Compiles one tree for many hosts.
pub struct Compiler {
    roots: Arc<Roots>,
    pillar_roots: Arc<Roots>,
    options: Options,
    files: renderer::Files,
}

/// One compile: the host and what was asked of it so far.
pub(crate) struct Session<'a> {
    pub host: &'a HostInput<'a>,
    pub grains: &'a Map,
    pub pillar: Map,
    pub missing: Mutex<Vec<Call>>,
}

impl Compiler {
    pub fn new(roots: Roots, pillar_roots: Roots, options: Options) -> Compiler {
        Compiler { roots: Arc::new(roots), pillar_roots: Arc::new(pillar_roots), options, files: renderer::Files::default() }
    }

    fn roots_of(&self, side: Side) -> &Arc<Roots> {
        match side {
            Side::States => &self.roots,
            Side::Pillar => &self.pillar_roots,
        }
    }

    /// Everything the engine needs for one host.
    pub fn compile(&self, host: &HostInput, what: &What) -> Results<Compiled> {
        let session = self.session(host)?;
        let result = self.wanted(&session, what);
        let missing = session.missing.into_inner().unwrap_or_else(PoisonError::into_inner);
        if !missing.is_empty() {
            return Ok(Compiled { missing, pillar: session.pillar, ..Compiled::default() });
        }
        Ok(Compiled { pillar: session.pillar, ..result? })
    }

    fn wanted(&self, session: &Session, what: &What) -> Results<Compiled> {
        let ordered = self.low(session, &self.matches(session, what)?)?;
        let (mut lows, envs) = lower::lower(&ordered)?;
        let mut sources = source::Sources { compiler: self, session, blobs: HashMap::new(), remote: Vec::new(), errors: Vec::new() };
        for (index, (low, env)) in lows.iter_mut().zip(&envs).enumerate() {
            sources.fill(index, low, env);
        }
        if !sources.errors.is_empty() {
            return Err(sources.errors);
        }
        let (blobs, remote) = (sources.blobs, sources.remote);
        Ok(Compiled { chunks: ordered.chunks, lows, blobs, remote, ..Compiled::default() })
    }

    /// The low chunks alone, as `show low` prints them: Salt checks `listen` and sources only when they are run.
    pub fn chunks(&self, host: &HostInput, what: &What) -> Results<Vec<Chunk>> {
        let session = self.session(host)?;
        Ok(self.low(&session, &self.matches(&session, what)?)?.chunks)
    }

    /// The high data in Salt's shape, as chunks are made of it.
    pub fn high_data(&self, host: &HostInput, what: &What) -> Results<Map> {
        let session = self.session(host)?;
        Ok(self.resolved(&session, &self.matches(&session, what)?)?.to_value())
    }

    /// The SLS of each environment that the top file gives the host.
    pub fn top(&self, host: &HostInput) -> Results<Matches> {
        self.highstate(&self.session(host)?)
    }

    /// The host's pillar.
    pub fn pillar_data(&self, host: &HostInput) -> Results<Map> {
        Ok(self.session(host)?.pillar)
    }

    fn session<'a>(&self, host: &'a HostInput<'a>) -> Results<Session<'a>> {
        let mut session = Session { host, grains: host.grains, pillar: Map::new(), missing: Mutex::new(Vec::new()) };
        session.pillar = self.pillar(&session)?;
        Ok(session)
    }

    /// The SLS of each environment.
    fn matches(&self, session: &Session, what: &What) -> Results<Matches> {
        match what {
            What::Sls(names) => Ok([(self.options.saltenv.clone(), names.clone())].into_iter().collect()),
            What::Highstate => self.highstate(session),
        }
    }

    fn low(&self, session: &Session, matches: &Matches) -> Results<order::Ordered> {
        low::compile(&self.resolved(session, matches)?)
    }

    /// The steps of Salt's `call_high`: errors of one step are collected, and keep the next from being made.
    fn resolved(&self, session: &Session, matches: &Matches) -> Results<high::High> {
        let mut errors = Vec::new();
        let mut high = self.high(session, matches, &mut errors);
        requisite::extend(&mut high, false, &mut errors);
        high.verify(&mut errors);
        if errors.is_empty() {
            requisite::requisite_in(&mut high, &mut errors);
            high.apply_exclude();
        }
        if errors.is_empty() { Ok(high) } else { Err(errors) }
    }

    /// A file as data, rendered for this host. `names` are those its template sees besides.
    fn render(&self, session: &Session, file: &Arc<root::File>, at: Where, names: &Map) -> Result<renderer::Rendered> {
        let _ = (session, at, names);
        self.files.render(file, &self.options.renderer, &|text| Ok(renderer::Text { text: text.to_owned(), lines: Vec::new() }))
    }

    /// A file that is no SLS, rendered as a template.
    fn template(&self, session: &Session, file: &Arc<root::File>, at: Where, names: &Map) -> Result<String> {
        let _ = (session, at, names);
        Ok(file.text()?.to_owned())
    }
}

#[cfg(test)]
mod tests;
