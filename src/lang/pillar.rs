//! Pillar: the data of one host, rendered from the SLS that the pillar's top file gives it.
//!
//! SLS are merged in their order, mappings recursively, the later over the earlier; an SLS lies over what it includes.

use std::collections::{HashMap, HashSet};

use super::decrypt::{Places, decrypt_pillar, note_places};
use super::secret::Secrets;
use super::{Compiler, Results, Session, Side, Where, glob};
use crate::diagnostic::{Code, Diagnostic, Span, nearest};
use crate::value::{Map, Value};
use crate::yaml::{Data, Place};

/// How many includes may lead from one to the next.
const MAX_DEPTH: usize = 100;

impl Compiler {
    /// The environments whose top files count for pillar: with the strategy `none`, one.
    pub(super) fn pillar_tops(&self, env: &str) -> bool {
        self.options.text(STRATEGY) != Some("none") || env == self.options.saltenv
    }

    /// The pillar of the session's host, with what was given for this run laid over it.
    pub(super) fn pillar(&self, session: &Session) -> Results<Map> {
        let mut errors = Vec::new();
        let mut gather = Gather {
            compiler: self,
            session,
            merge: Merge::of(self, &mut errors),
            optional: HashSet::new(),
            places: Places::new(),
            errors,
        };
        let over = session.host.pillar_override;
        let mut pillar = over.cloned().unwrap_or_default();
        let mut given = self.pillar_matches(session, &mut gather.errors);
        gather.optional = std::mem::take(&mut given.optional);
        let order = self.options.list("env_order");
        given.matches.sort_by_cached_key(|env, _| order.iter().position(|o| o.as_str() == Some(env)).unwrap_or(usize::MAX));
        for (env, names) in &given.matches {
            if !self.pillar_roots.has(env) {
                let summary = format!("the pillar's top file names the environment {env}, and it has no pillar roots");
                let mut error = Diagnostic::new(Code::Compile, summary);
                error.span = names.first().and_then(|name| given.place(env, name)).cloned();
                gather.errors.push(error);
                continue;
            }
            let mut seen = HashMap::new();
            for name in names {
                for sls in gather.targets(env, name) {
                    if let Some(data) = gather.sls(&sls, env, &mut seen, &Map::new(), given.place(env, name), 0) {
                        gather.merge.into(&mut pillar, data);
                    }
                }
            }
        }
        if !gather.errors.is_empty() {
            return Err(gather.errors);
        }
        if let Some(over) = over {
            gather.merge.into(&mut pillar, over.clone());
        }
        decrypt_pillar(&mut pillar, &self.options.master, &self.unlock(session), &gather.places, &mut gather.errors);
        if !gather.errors.is_empty() {
            return Err(gather.errors);
        }
        if !self.options.secret_pillar.is_empty() {
            self.mark(&pillar, "", &session.secrets);
        }
        Ok(pillar)
    }
}

impl Compiler {
    /// Notes what the settings call secret: by the key itself, or by the whole path to it.
    fn mark(&self, map: &Map, path: &str, secrets: &Secrets) {
        for (key, value) in map {
            let key = key.to_text();
            let path = if path.is_empty() { key.clone() } else { format!("{path}:{key}") };
            match value {
                _ if self.options.secret_pillar.iter().any(|pattern| glob::matches(pattern, &path) || glob::matches(pattern, &key)) => {
                    secrets.add_value(value);
                }
                Value::Map(inner) => self.mark(inner, &path, secrets),
                _ => {}
            }
        }
    }
}

struct Gather<'a> {
    compiler: &'a Compiler,
    session: &'a Session<'a>,
    merge: Merge,
    optional: HashSet<(String, String)>,
    /// Of encrypted texts that wait for `decrypt_pillar`.
    places: Places,
    errors: Vec<Diagnostic>,
}

impl Gather<'_> {
    /// The SLS a name or pattern means; itself where there is none, so that its lack is reported.
    fn targets(&mut self, env: &str, name: &str) -> Vec<String> {
        let fit = self.fitting(env, name);
        if fit.is_empty() { vec![name.to_owned()] } else { fit }
    }

    fn fitting(&mut self, env: &str, name: &str) -> Vec<String> {
        match self.compiler.pillar_roots.sls(env) {
            Ok(all) if !glob::is_pattern(name) => {
                all.binary_search_by(|sls| sls.as_str().cmp(name)).map_or_else(|_| Vec::new(), |_| vec![name.to_owned()])
            }
            Ok(all) => all.iter().filter(|sls| glob::matches(name, sls)).cloned().collect(),
            Err(error) => {
                self.errors.push(*error);
                Vec::new()
            }
        }
    }

    /// One SLS with what it includes. `seen` keeps the SLS themselves, without their includes, as Salt does.
    fn sls(
        &mut self,
        name: &str,
        env: &str,
        seen: &mut HashMap<String, Map>,
        defaults: &Map,
        from: Option<&Span>,
        depth: usize,
    ) -> Option<Map> {
        let (path, file) = match self.compiler.pillar_roots.find_sls(env, name) {
            Ok(Some(found)) => found,
            Ok(None) => {
                if !self.optional.contains(&(env.to_owned(), name.to_owned())) {
                    self.not_there(name, env, from);
                }
                return None;
            }
            Err(error) => {
                self.errors.push(*error);
                return None;
            }
        };
        if depth > MAX_DEPTH {
            let error = Diagnostic::new(Code::Compile, format!("more than {MAX_DEPTH} pillar SLS include each other in one line"));
            self.errors.push(error.at(Span::new(file.shown.clone(), 1, 0)));
            return None;
        }
        let rendered = match self.compiler.render(self.session, &file, Where { side: Side::Pillar, env, path: &path, sls: name }, defaults)
        {
            Ok(rendered) => rendered,
            Err(error) => {
                self.errors.push(*error);
                return None;
            }
        };
        if self.compiler.options.truthy("decrypt_pillar") {
            note_places(&rendered.node, &|place| rendered.origin.span(place), &mut self.places);
        }
        let refuse = |place: Place, summary: String| {
            rendered.origin.excerpt(Diagnostic::new(Code::Compile, summary).at(rendered.origin.span(place)), place)
        };
        let mut data = match rendered.node.to_value() {
            Value::Map(map) => map,
            other if !other.truthy() => Map::new(),
            other => {
                self.errors.push(refuse(rendered.node.place, format!("the pillar SLS {name} is {}, not a mapping", other.kind())));
                return None;
            }
        };
        let include = data.remove("include");
        seen.insert(name.to_owned(), data.clone());
        let Some(include) = include else { return Some(data) };
        let place = match &rendered.node.data {
            Data::Map(entries) => entries.get(&Value::str("include")).map(|(place, _)| *place).unwrap_or_default(),
            _ => Place::default(),
        };
        let Value::List(items) = include else {
            self.errors.push(refuse(place, format!("include in the pillar SLS {name} is not a list")));
            return Some(data);
        };
        let span = rendered.origin.span(place);
        let mut included = Vec::new();
        // What an entry hands to the templates of its SLS also reaches later entries that hand nothing.
        let mut defaults = defaults.clone();
        for item in items {
            let (sls, key) = match &item {
                Value::Str(sls) => (sls.clone(), None),
                Value::Map(map) => match map.0.first() {
                    Some((Value::Str(sls), Value::Map(options))) => {
                        defaults = options.get("defaults").and_then(Value::as_map).cloned().unwrap_or_default();
                        (sls.clone(), options.get("key").and_then(Value::as_str).map(str::to_owned))
                    }
                    _ => {
                        self.errors.push(refuse(place, format!("an include of the pillar SLS {name} is not understood: {item}")));
                        continue;
                    }
                },
                other => {
                    self.errors.push(refuse(place, format!("an include is the name of an SLS, and this is {}", other.kind())));
                    continue;
                }
            };
            for target in self.included(&sls, name, env, path.ends_with("/init.sls")) {
                let there = match seen.get(&target) {
                    Some(known) => Some(known.clone()),
                    None => self.sls(&target, env, seen, &defaults, Some(&span), depth + 1),
                };
                let Some(there) = there.filter(|map| !map.is_empty()) else { continue };
                included.push(nested(key.as_deref(), there));
            }
        }
        if self.compiler.options.truthy("pillar_includes_override_sls") {
            included.into_iter().for_each(|more| self.merge.into(&mut data, more));
            return Some(data);
        }
        included.push(data);
        let mut included = included.into_iter();
        let mut out = included.next()?;
        included.for_each(|more| self.merge.into(&mut out, more));
        Some(out)
    }

    /// What an include means: as it stands (Salt ignores a leading dot here), and relative to the including SLS.
    fn included(&mut self, include: &str, sls: &str, env: &str, is_init: bool) -> Vec<String> {
        let mut out = self.fitting(env, &include.trim_start_matches('.').replace('/', "."));
        let mut wanted = include.to_owned();
        if let Some(rest) = include.strip_prefix('.') {
            let package = if is_init { Some(sls) } else { sls.rsplit_once('.').map(|(package, _)| package) };
            wanted = package.map_or_else(|| rest.to_owned(), |package| format!("{package}.{rest}"));
        }
        for more in self.fitting(env, &wanted) {
            if !out.contains(&more) {
                out.push(more);
            }
        }
        if out.is_empty() { vec![wanted] } else { out }
    }

    fn not_there(&mut self, name: &str, env: &str, from: Option<&Span>) {
        let all = self.compiler.pillar_roots.sls(env).unwrap_or_default();
        let mut error =
            Diagnostic::new(Code::Compile, format!("there is no pillar SLS {name} in the environment {env}")).rule("missing-sls");
        error.span = from.cloned();
        self.errors.push(match nearest(name, all.iter().map(String::as_str)) {
            Some(near) => error.hint(format!("did you mean {near}?")),
            None => error.hint("the pillar's top file or an include names it"),
        });
    }
}

/// `a:b` puts a mapping under `b` of `a`.
fn nested(key: Option<&str>, data: Map) -> Map {
    key.into_iter().flat_map(|key| key.rsplit(':')).fold(data, |inner, part| [(part, Value::Map(inner))].into_iter().collect())
}

/// How two SLS become one: `pillar_source_merging_strategy`.
#[derive(Clone, Copy)]
enum Merge {
    /// `smart`, `recurse`; `none`, which reads a single environment's top file and never joins lists.
    Recurse { lists: bool },
    /// `overwrite`, and `aggregate`: without the `!aggregate` of Salt's yamlex both replace key by key.
    Overwrite,
    /// `list`: both values of a key as a list, and no key that was not there before. As Salt starts with what the command line gives, so
    /// nothing of the tree is left where that has nothing to add to.
    List,
}

impl Merge {
    fn of(compiler: &Compiler, errors: &mut Vec<Diagnostic>) -> Merge {
        let lists = compiler.options.truthy("pillar_merge_lists");
        match compiler.options.text(STRATEGY).unwrap_or("smart") {
            "smart" | "recurse" => Merge::Recurse { lists },
            "none" => Merge::Recurse { lists: false },
            "overwrite" | "aggregate" => Merge::Overwrite,
            "list" => Merge::List,
            other => {
                let error = Diagnostic::new(Code::Settings, format!("{STRATEGY} is {other:?}"));
                errors.push(error.hint("there are smart, recurse, overwrite, aggregate, list and none"));
                Merge::Recurse { lists }
            }
        }
    }

    fn into(self, into: &mut Map, from: Map) {
        match self {
            Merge::Recurse { lists } => merge(into, from, lists),
            Merge::Overwrite => from.into_iter().for_each(|(key, value)| drop(into.0.insert(key, value))),
            Merge::List => {
                for (key, value) in from {
                    if let Some(there) = into.0.get_mut(&key) {
                        *there = Value::List(vec![std::mem::take(there), value]);
                    }
                }
            }
        }
    }
}

/// The setting's name.
const STRATEGY: &str = "pillar_source_merging_strategy";

/// Lays `from` over `into`: mappings recursively, lists joined without repeats where `lists`, everything else replaced.
pub fn merge(into: &mut Map, from: Map, lists: bool) {
    for (key, value) in from {
        match (into.0.get_mut(&key), value) {
            (Some(Value::Map(there)), Value::Map(value)) => merge(there, value, lists),
            (Some(Value::List(there)), Value::List(value)) if lists => {
                let more: Vec<Value> = value.into_iter().filter(|item| !there.contains(item)).collect();
                there.extend(more);
            }
            (_, value) => drop(into.0.insert(key, value)),
        }
    }
}
