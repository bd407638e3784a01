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

pub mod archive;
pub mod ask;
pub mod decrypt;
pub mod function;
pub mod glob;
mod grains;
mod graph;
pub mod high;
mod include;
pub mod jinja;
pub mod lint;
pub mod low;
mod lower;
pub mod order;
mod pillar;
mod renderer;
pub mod requisite;
pub mod root;
pub mod secret;
mod serialize;
pub mod source;
mod top;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use indexmap::IndexMap;

use crate::agent::protocol::{Answer, Call};
use crate::budget::Budget;
use crate::diagnostic::{Diagnostic, Result};
use crate::plan;
use crate::secret::Mask;
use crate::value::{Map, Value};
use decrypt::{Decrypt, Unlock};
use low::Chunk;
use root::Roots;
use secret::Secrets;

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

/// The keys by which nodes and their controllers know each other.
pub trait NodeKeys: Send + Sync {
    fn key(&self, node: &str) -> Result<String>;
}

/// What may fail in several places at once.
pub type Results<T> = std::result::Result<T, Vec<Diagnostic>>;

/// A part of a host's compile. Where it asked what only the host knows, it failed, and `missing` are the calls to answer first.
pub struct Seen<T> {
    pub found: Results<T>,
    pub missing: Vec<Call>,
    /// Texts in it that must not be shown.
    pub secrets: Vec<String>,
}

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
    /// Texts that must not be shown anywhere.
    pub secrets: Vec<String>,
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
    /// Keys of the pillar (globs, `db:*`) whose values are secret, though nobody encrypted them.
    pub secret_pillar: Vec<String>,
    pub limits: jinja::Limits,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            saltenv: "base".into(),
            renderer: "jinja|yaml".into(),
            master: Map::new(),
            secret_pillar: Vec::new(),
            limits: jinja::Limits::default(),
        }
    }
}

impl Options {
    /// What templates see as `opts`: the master's options, and what a minion's always have.
    fn opts(&self, host: &HostInput) -> Map {
        let mut opts = self.master.clone();
        for (key, value) in [
            ("id", Value::str(host.id)),
            ("__cli", Value::str("salt-call")),
            ("__role", Value::str("minion")),
            ("file_client", Value::str("local")),
            ("saltenv", Value::Null),
            ("pillarenv", Value::Null),
            ("test", Value::Bool(false)),
        ] {
            opts.insert(key, value);
        }
        opts.insert("grains", Value::Map(host.grains.clone()));
        opts
    }

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    templates: jinja::Renderer,
    pillar_templates: jinja::Renderer,
    options: Options,
    files: renderer::Files,
    decrypt: Arc<dyn Decrypt>,
    node_keys: Option<Arc<dyn NodeKeys>>,
    archives: archive::Archives,
}

/// One compile: the host and what was asked of it so far.
struct Session<'a> {
    host: &'a HostInput<'a>,
    pillar: Arc<Map>,
    /// What every template of the host sees.
    context: jinja::Context,
    secrets: Arc<Secrets>,
    /// Where it is there: SLS that were rendered, to be taken from here when they are wanted again.
    kept: Option<Mutex<Kept>>,
}

/// By side, environment and path.
type Kept = HashMap<(Side, String, String), Result<renderer::Rendered>>;

/// The files of one side, as templates load them.
struct Shelf(Arc<Roots>);

impl jinja::Templates for Shelf {
    fn read(&self, saltenv: &str, path: &str) -> Option<jinja::Source> {
        let file = self.0.read(saltenv, path).ok()??;
        Some(jinja::Source { file: file.shown.clone(), text: file.text().ok()?.into() })
    }

    fn list(&self, saltenv: &str) -> Vec<String> {
        self.0.paths(saltenv).map(|paths| paths.to_vec()).unwrap_or_default()
    }
}

impl Compiler {
    pub fn new(roots: Roots, pillar_roots: Roots, options: Options) -> Compiler {
        let (roots, pillar_roots) = (Arc::new(roots), Arc::new(pillar_roots));
        let environments = jinja::Environments::of(&options.master);
        let renderer = |roots: &Arc<Roots>| jinja::Renderer::new(Arc::new(Shelf(roots.clone())), environments, options.limits);
        Compiler {
            templates: renderer(&roots),
            pillar_templates: renderer(&pillar_roots),
            roots,
            pillar_roots,
            options,
            files: renderer::Files::default(),
            decrypt: Arc::new(decrypt::NoKeys),
            node_keys: None,
            archives: archive::Archives::default(),
        }
    }

    /// The same, with somebody who has keys.
    pub fn decrypting(self, decrypt: Arc<dyn Decrypt>) -> Compiler {
        Compiler { decrypt, ..self }
    }

    /// The same, with somebody who has the keys of nodes.
    pub fn knowing(self, node_keys: Arc<dyn NodeKeys>) -> Compiler {
        Compiler { node_keys: Some(node_keys), ..self }
    }

    fn roots_of(&self, side: Side) -> &Arc<Roots> {
        match side {
            Side::States => &self.roots,
            Side::Pillar => &self.pillar_roots,
        }
    }

    /// Everything the engine needs for one host.
    pub fn compile(&self, host: &HostInput, what: &What) -> Results<Compiled> {
        let _budget = Budget::open(self.options.limits.allowance);
        let (ask, secrets) = (self.ask(host, true), Arc::new(Secrets::default()));
        let result = self
            .start(host, &ask, &secrets)
            .and_then(|session| Ok(Compiled { pillar: (*session.pillar).clone(), ..self.wanted(&session, what)? }));
        let missing = ask.missing();
        if !missing.is_empty() {
            return Ok(Compiled { missing, secrets: secrets.list(), ..Compiled::default() });
        }
        let mut compiled = self.placed(result, &secrets)?;
        if !secrets.is_empty() {
            source::mark_secret(&mut compiled.lows, &compiled.blobs, &secrets);
            compiled.secrets = secrets.list();
        }
        Ok(compiled)
    }

    fn wanted(&self, session: &Session, what: &What) -> Results<Compiled> {
        let ordered = self.low(session, &self.given(session, what)?)?;
        let (mut lows, envs) = lower::lower(&ordered)?;
        let mut sources = source::Sources {
            compiler: self,
            session,
            blobs: HashMap::new(),
            remote: Vec::new(),
            errors: Vec::new(),
            accumulated: HashMap::new(),
            grains: None,
        };
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
    pub fn chunks(&self, host: &HostInput, what: &What) -> Seen<Vec<Chunk>> {
        self.seen(host, |session| Ok(self.low(session, &self.given(session, what)?)?.chunks))
    }

    /// The high data in Salt's shape, as chunks are made of it.
    pub fn high_data(&self, host: &HostInput, what: &What) -> Seen<Map> {
        self.seen(host, |session| Ok(self.resolved(session, &self.given(session, what)?)?.to_value()))
    }

    /// The SLS of each environment that the top file gives the host.
    pub fn top(&self, host: &HostInput) -> Seen<Matches> {
        self.seen(host, |session| Ok(self.highstate(session)?.matches))
    }

    /// The host's pillar.
    pub fn pillar_data(&self, host: &HostInput) -> Seen<Map> {
        self.seen(host, |session| Ok((*session.pillar).clone()))
    }

    fn seen<T>(&self, host: &HostInput, look: impl Fn(&Session) -> Results<T>) -> Seen<T> {
        let _budget = Budget::open(self.options.limits.allowance);
        let at = |guess: bool| {
            let (ask, secrets) = (self.ask(host, guess), Arc::new(Secrets::default()));
            let found = self.start(host, &ask, &secrets).and_then(|session| look(&session));
            Seen { found: self.placed(found, &secrets), missing: ask.missing(), secrets: secrets.list() }
        };
        let seen = at(true);
        // Made of guesses: it is the call and its place that tell what is wrong.
        if seen.missing.is_empty() { seen } else { Seen { missing: seen.missing, ..at(false) } }
    }

    fn ask(&self, host: &HostInput, guess: bool) -> Arc<ask::Ask> {
        Arc::new(ask::Ask::new(host.answers, guess, &self.roots, &self.pillar_roots))
    }

    /// Errors about states of this tree, with the lines they are about, and without secrets.
    pub fn place(&self, errors: Vec<Diagnostic>, secrets: &[String]) -> Vec<Diagnostic> {
        let mask = Mask::new(secrets);
        errors.into_iter().map(|error| mask.diagnostic(self.files.excerpt(error))).collect()
    }

    fn placed<T>(&self, result: Results<T>, secrets: &Secrets) -> Results<T> {
        result.map_err(|errors| self.place(errors, &secrets.list()))
    }

    /// Compiles the pillar, with which everything else is rendered.
    fn start<'a>(&self, host: &'a HostInput<'a>, ask: &Arc<ask::Ask>, secrets: &Arc<Secrets>) -> Results<Session<'a>> {
        let grains = Arc::new(host.grains.clone());
        let mut context = jinja::Context::new(grains, Arc::default(), Arc::new(self.options.opts(host)), ask.clone());
        context.secrets = secrets.clone();
        context.node_keys = self.node_keys.clone();
        let mut session = Session { host, pillar: Arc::default(), context, secrets: secrets.clone(), kept: None };
        session.pillar = Arc::new(self.pillar(&session)?);
        session.context.pillar = session.pillar.clone();
        Ok(session)
    }

    /// The SLS of each environment.
    fn given(&self, session: &Session, what: &What) -> Results<top::Given> {
        match what {
            What::Sls(names) => Ok(top::Given::of(&self.options.saltenv, names.clone())),
            What::Highstate => self.highstate(session),
        }
    }

    fn low(&self, session: &Session, given: &top::Given) -> Results<order::Ordered> {
        low::compile(self.resolved(session, given)?)
    }

    /// The steps of Salt's `call_high`: errors of one step are collected, and keep the next from being made.
    fn resolved(&self, session: &Session, given: &top::Given) -> Results<high::High> {
        let mut errors = Vec::new();
        let mut high = self.high(session, given, &mut errors);
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
        let Some(kept) = session.kept.as_ref().filter(|_| names.is_empty()) else { return self.render_now(session, file, at, names) };
        let key = (at.side, at.env.to_owned(), at.path.to_owned());
        if let Some(known) = kept.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return known.clone();
        }
        let rendered = self.render_now(session, file, at, names);
        kept.lock().unwrap_or_else(PoisonError::into_inner).insert(key, rendered.clone());
        rendered
    }

    fn render_now(&self, session: &Session, file: &Arc<root::File>, at: Where, names: &Map) -> Result<renderer::Rendered> {
        let mut context = session.context.for_sls(at.env, at.sls, at.path);
        context.extra = names.clone();
        let renderer = match at.side {
            Side::States => &self.templates,
            Side::Pillar => &self.pillar_templates,
        };
        self.files.render(file, &self.options.renderer, &self.unlock(session), &|text| renderer.render(&file.shown, text, &context))
    }

    fn unlock<'a>(&'a self, session: &'a Session) -> Unlock<'a> {
        let must_succeed = self.options.master.get("gpg_decrypt_must_succeed").is_none_or(Value::truthy);
        Unlock { with: &*self.decrypt, secrets: &session.secrets, must_succeed }
    }

    /// A file of the states' roots that is no SLS, rendered as a template.
    fn template(&self, session: &Session, file: &root::File, env: &str, path: &str, names: &Map) -> Result<String> {
        let mut context = session.context.for_file(path);
        context.saltenv = env.to_owned();
        context.extra = names.clone();
        Ok(self.templates.render(&file.shown, file.text()?, &context)?.text)
    }
}

#[cfg(test)]
mod tests;
