//! A kind of host that the tree is rendered for: grains, pillar, and guesses at what such a host would answer.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::super::jinja::{self, HostCalls};
use super::super::renderer::Rendered;
use super::super::root::File;
use super::super::{Compiler, HostInput, Matcher, Session, Where};
use super::{Input, known};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::value::{Map, Value};

/// A host to lint for.
pub struct Host {
    pub id: String,
    pub grains: Map,
    pub pillar: Option<Map>,
}

impl Host {
    pub fn input<'a>(&'a self, matcher: &'a dyn Matcher) -> HostInput<'a> {
        HostInput { id: &self.id, grains: &self.grains, pillar_override: self.pillar.as_ref(), answers: &[], matcher }
    }
}

/// Every kind of host with every pillar, and a host for each target of the top files.
pub fn hosts(compiler: &Compiler, input: &Input) -> Vec<Host> {
    let mut out = Vec::new();
    let pillars: Vec<Option<Map>> = std::iter::once(None).chain(input.pillars.iter().cloned().map(Some)).collect();
    for (_, grains) in &input.grains {
        for pillar in &pillars {
            let id = grains.get("id").map_or_else(|| "minion".to_owned(), Value::to_text);
            let mut grains = grains.clone();
            grains.insert("id", id.as_str());
            out.push(Host { id, grains, pillar: pillar.clone() });
        }
    }
    let Some((_, grains)) = input.grains.first() else { return out };
    let mut named: Vec<(String, Map)> = input.hosts.clone();
    if named.is_empty() {
        named = super::data::made_hosts(compiler);
    }
    // Hosts beyond a hundred hardly show anything new, and each is a whole compile.
    for (id, own) in named.into_iter().take(100) {
        let mut grains = grains.clone();
        grains.insert("id", id.as_str());
        grains.0.extend(own);
        out.push(Host { id, grains, pillar: input.pillars.first().cloned() });
    }
    out
}

pub struct World<'a> {
    pub session: Session<'a>,
    guess: Arc<Guess>,
    /// What was asked of the host by what was rendered, by path.
    asked: Mutex<std::collections::HashMap<String, BTreeSet<String>>>,
}

impl<'a> World<'a> {
    pub fn new(compiler: &Compiler, host: &'a HostInput<'a>) -> World<'a> {
        let guess = Arc::new(Guess::default());
        let opts = Arc::new(compiler.options.opts(host));
        let mut context = jinja::Context::new(Arc::new(host.grains.clone()), Arc::default(), opts, guess.clone());
        let secrets: Arc<super::super::secret::Secrets> = Arc::default();
        context.secrets = secrets.clone();
        let mut session = Session { host, pillar: Arc::default(), context, secrets, kept: Some(Mutex::default()) };
        // Pillar that cannot be had is looked at for its own sake; the states see what was given.
        let pillar = compiler.pillar(&session).unwrap_or_else(|_| host.pillar_override.cloned().unwrap_or_default());
        session.pillar = Arc::new(pillar);
        session.context.pillar = session.pillar.clone();
        // Pillar was rendered without pillar: that is how Salt does it, and how it stays kept.
        guess.take();
        World { session, guess, asked: Mutex::default() }
    }

    pub fn render(&self, compiler: &Compiler, file: &Arc<File>, at: Where) -> Result<Rendered> {
        self.guess.take();
        let rendered = compiler.render(&self.session, file, at, &Map::new());
        let asked = self.guess.take();
        if !asked.is_empty() {
            self.asked.lock().unwrap_or_else(PoisonError::into_inner).entry(at.path.to_owned()).or_default().extend(asked);
        }
        rendered
    }

    /// What the templates of a path asked of the host.
    pub fn asked(&self, path: &str) -> BTreeSet<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned().unwrap_or_default()
    }
}

/// Answers for a host that is not there: what one freshly installed would say, where that is easy to tell.
#[derive(Default)]
struct Guess(Mutex<BTreeSet<String>>);

impl Guess {
    fn take(&self) -> BTreeSet<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl HostCalls for Guess {
    fn call(&self, function: &str, _: &[Value], _: &Map) -> Result<Value> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(function.to_owned());
        known::answer(function)
            .ok_or_else(|| Box::new(Diagnostic::new(Code::HostNeeded, format!("{function} can only be answered by the host"))))
    }
}
