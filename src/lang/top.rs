//! Top files: which SLS a host gets in which environment. States and pillar have one each, nearly alike.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use indexmap::IndexMap;

use super::renderer::{Origin, Rendered};
use super::root::{File, Roots};
use super::{Compiler, Matches, Results, Session, Side, Where, glob};
use crate::diagnostic::{Code, Diagnostic, Span};
use crate::value::{Map, Value};
use crate::yaml::{Data, Place};

/// What an environment's top files say: targets, with the SLS and match options of each.
pub type Targets = IndexMap<String, Target>;

/// One target: SLS and options with their places.
#[derive(Clone, Debug)]
pub struct Target {
    items: Vec<(Value, Span)>,
    span: Span,
}

impl Target {
    /// How the expression is meant: the last `match` option says it.
    fn form(&self) -> &str {
        self.options("match").filter_map(Value::as_str).last().unwrap_or("compound")
    }

    fn options(&self, key: &str) -> impl Iterator<Item = &Value> {
        self.items.iter().filter_map(move |(item, _)| item.as_map()?.get(key))
    }
}

/// One file: targets by environment.
type TopFile = IndexMap<String, Targets>;

/// The top files of each environment: `top.sls` and what it includes.
pub struct Tops(IndexMap<String, Vec<TopFile>>);

/// What a host gets.
#[derive(Default)]
pub struct Given {
    pub matches: Matches,
    /// Where an environment's SLS is named first.
    places: HashMap<(String, String), Span>,
    /// SLS that may be missing.
    pub optional: HashSet<(String, String)>,
}

impl Given {
    /// Of SLS that no top file names.
    pub fn of(env: &str, names: Vec<String>) -> Given {
        Given { matches: [(env.to_owned(), names)].into_iter().collect(), ..Given::default() }
    }

    /// Where an SLS is named.
    pub fn place(&self, env: &str, sls: &str) -> Option<&Span> {
        self.places.get(&(env.to_owned(), sls.to_owned()))
    }

    fn add(&mut self, env: &str, sls: &str, span: &Span) {
        self.matches.entry(env.to_owned()).or_default().push(sls.to_owned());
        self.places.entry((env.to_owned(), sls.to_owned())).or_insert_with(|| span.clone());
    }
}

impl Compiler {
    /// The SLS of a highstate.
    pub(super) fn highstate(&self, session: &Session) -> Results<Given> {
        let mut errors = Vec::new();
        let tops = self.tops(session, Side::States, &mut errors);
        if errors.is_empty() && tops.0.values().all(Vec::is_empty) {
            let name = self.top_name();
            errors.push(
                Diagnostic::new(Code::Compile, format!("there is no {name} in the file roots"))
                    .hint("write one (`base:`, below it `'*':`, below that the names of SLS), or name the SLS with --sls"),
            );
        }
        let merged = match self.options.text("top_file_merging_strategy").unwrap_or("merge") {
            "merge" => merge(tops),
            "merge_all" => merge_all(tops),
            "same" => same(tops, self.options.text("default_top").unwrap_or("base")),
            other => {
                let error = Diagnostic::new(Code::Settings, format!("top_file_merging_strategy is {other:?}"));
                errors.push(error.hint("it is merge, merge_all or same"));
                IndexMap::new()
            }
        };
        let mut out = Given::default();
        for (env, targets) in &merged {
            for (expression, target) in targets {
                match session.host.matcher.matches(expression, target.form(), &session.pillar) {
                    Ok(true) => {}
                    Ok(false) => continue,
                    Err(error) => {
                        errors.push(error.or_at(target.span.clone()));
                        continue;
                    }
                }
                out.matches.entry(env.clone()).or_default();
                for (item, span) in &target.items {
                    match item {
                        Value::Str(sls) => out.add(env, sls, span),
                        // An SLS of another environment.
                        Value::Map(map) => {
                            if let Some((Value::Str(other), Value::Str(sls))) = map.0.last()
                                && self.roots.has(other)
                            {
                                out.add(other, sls, span);
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
        if errors.is_empty() { Ok(out) } else { Err(errors) }
    }

    /// The SLS of a host's pillar.
    pub(super) fn pillar_matches(&self, session: &Session, errors: &mut Vec<Diagnostic>) -> Given {
        let tops = self.tops(session, Side::Pillar, errors);
        let mut merged: TopFile = IndexMap::new();
        for (env, targets) in tops.0.into_values().flatten().flatten() {
            merged.entry(env).or_default().extend(targets);
        }
        let mut out = Given::default();
        for (env, mut targets) in merged {
            let order = |target: &Target| {
                let order = target.options("order").last();
                order.and_then(|order| order.as_int().or_else(|| order.as_str()?.parse().ok())).unwrap_or(0)
            };
            targets.sort_by_cached_key(|_, target| order(target));
            for (expression, target) in &targets {
                let named = || target.items.iter().filter_map(|(item, span)| Some((item.as_str()?, span)));
                if target.options("ignore_missing").any(Value::truthy) {
                    out.optional.extend(named().map(|(sls, _)| (env.clone(), sls.to_owned())));
                }
                match session.host.matcher.matches(expression, target.form(), &session.pillar) {
                    Ok(true) => {
                        out.matches.entry(env.clone()).or_default();
                        for (sls, span) in named() {
                            if out.place(&env, sls).is_none() {
                                out.add(&env, sls, span);
                            }
                        }
                    }
                    Ok(false) => {}
                    Err(error) => errors.push(error.or_at(target.span.clone())),
                }
            }
        }
        out
    }

    pub(super) fn top_name(&self) -> &str {
        self.options.text("state_top").unwrap_or("top.sls").trim_start_matches("salt://")
    }

    pub(super) fn tops(&self, session: &Session, side: Side, errors: &mut Vec<Diagnostic>) -> Tops {
        let roots: &Roots = self.roots_of(side);
        let mut out = IndexMap::new();
        // `base` speaks first, unless `env_order` says who does; then it also says who speaks at all.
        let order: Vec<&str> = self.options.list("env_order").iter().filter_map(Value::as_str).collect();
        let mut envs: Vec<&str> =
            if order.is_empty() { roots.names().collect() } else { order.into_iter().filter(|env| roots.has(env)).collect() };
        if self.options.list("env_order").is_empty() {
            envs.sort_by_key(|env| *env != "base");
        }
        envs.retain(|env| side == Side::States || self.pillar_tops(env));
        for env in envs {
            let mut list = Vec::new();
            let mut done = HashSet::new();
            let mut includes = Vec::new();
            match roots.read(env, self.top_name()) {
                Ok(Some(file)) => {
                    list.extend(self.top_file(session, &file, Where { side, env, path: self.top_name(), sls: "" }, &mut includes, errors))
                }
                Ok(None) => {}
                Err(error) => errors.push(*error),
            }
            // Salt looks only at the includes of the first file.
            for (include, span) in std::mem::take(&mut includes) {
                for sls in self.top_includes(side, env, &include) {
                    if !done.insert(sls.clone()) {
                        continue;
                    }
                    match roots.find_sls(env, &sls) {
                        Ok(Some((path, file))) => {
                            list.extend(self.top_file(session, &file, Where { side, env, path: &path, sls: "" }, &mut Vec::new(), errors))
                        }
                        Ok(None) => errors.push(
                            Diagnostic::new(Code::Compile, format!("there is no SLS {sls} that a top file includes")).at(span.clone()),
                        ),
                        Err(error) => errors.push(error.or_at(span.clone())),
                    }
                }
            }
            out.insert(env.to_owned(), list);
        }
        Tops(out)
    }

    fn top_includes(&self, side: Side, env: &str, include: &str) -> Vec<String> {
        if side == Side::Pillar || !glob::is_pattern(include) {
            return vec![include.to_owned()];
        }
        let all = self.roots_of(side).sls(env).unwrap_or_default();
        all.iter().filter(|sls| glob::matches(include, sls)).cloned().collect()
    }

    fn top_file(
        &self,
        session: &Session,
        file: &Arc<File>,
        at: Where,
        includes: &mut Vec<(String, Span)>,
        errors: &mut Vec<Diagnostic>,
    ) -> Option<TopFile> {
        match self.render(session, file, at, &Map::new()) {
            Ok(rendered) => Some(read(&rendered, includes, errors)),
            Err(error) => {
                errors.push(*error);
                None
            }
        }
    }
}

fn read(rendered: &Rendered, includes: &mut Vec<(String, Span)>, errors: &mut Vec<Diagnostic>) -> TopFile {
    let origin = &rendered.origin;
    let mut out = IndexMap::new();
    let mut refuse = |place: Place, summary: String, hint: &str| errors.push(refused(origin, place, summary).hint(hint));
    let envs = match &rendered.node.data {
        Data::Map(envs) => envs,
        Data::Scalar(Value::Null) => return out,
        _ => {
            refuse(rendered.node.place, "a top file is a mapping of environments".into(), "it begins with `base:`");
            return out;
        }
    };
    for (env, (place, targets)) in envs {
        let Some(env) = env.as_str().filter(|env| !env.is_empty()) else {
            refuse(*place, format!("the environment {} of the top file is no name", env.to_text()), "it is usually `base`");
            continue;
        };
        if env == "include" {
            if let Data::List(items) = &targets.data {
                includes.extend(items.iter().filter_map(|item| Some((item.to_value().as_str()?.to_owned(), origin.span(item.place)))));
            }
            continue;
        }
        let Data::Map(entries) = &targets.data else {
            refuse(
                targets.place,
                format!("the environment {env} of the top file is not a mapping of targets"),
                "a target is a line such as `'*':`",
            );
            continue;
        };
        let mut read: Targets = IndexMap::new();
        for (expression, (place, items)) in entries {
            let items = match &items.data {
                Data::List(items) => items.iter().map(|item| (item.to_value(), origin.span(item.place))).collect(),
                Data::Scalar(Value::Str(one)) => vec![(Value::str(one.clone()), origin.span(items.place))],
                _ => {
                    refuse(
                        *place,
                        format!("the target {} of the top file has no list of SLS", expression.to_text()),
                        "put `- ` before each SLS",
                    );
                    continue;
                }
            };
            let target = Target { items, span: origin.span(*place) };
            match expression {
                Value::Str(expression) => drop(read.insert(expression.clone(), target)),
                // It means no host, and Salt says so only in its log.
                _ if matches!(target.form(), "compound" | "glob" | "list" | "nodegroup") => {}
                _ => refuse(
                    *place,
                    format!("the target {} of the top file is {}, not a string", expression.to_text(), expression.kind()),
                    "put it in quotes",
                ),
            }
        }
        out.insert(env.to_owned(), read);
    }
    out
}

fn refused(origin: &Origin, place: Place, summary: String) -> Diagnostic {
    origin.excerpt(Diagnostic::new(Code::Compile, summary).at(origin.span(place)), place)
}

/// `base` decides for every environment it names; other top files only for their own, where `base` does not.
fn merge(mut tops: Tops) -> TopFile {
    let mut out: TopFile = IndexMap::new();
    for (env, targets) in tops.0.shift_remove("base").into_iter().flatten().flatten() {
        out.entry(env).or_default().extend(targets);
    }
    let by_base: HashSet<String> = out.keys().cloned().collect();
    for (own, files) in tops.0 {
        for (env, targets) in files.into_iter().flatten() {
            if env == own && !by_base.contains(&env) {
                out.entry(env).or_default().extend(targets);
            }
        }
    }
    out
}

/// Each environment decides for itself; one without a top file by that of `default`.
fn same(tops: Tops, default: &str) -> TopFile {
    let mut out: TopFile = IndexMap::new();
    for (own, files) in &tops.0 {
        let empty = files.iter().all(IndexMap::is_empty);
        let files = if empty { tops.0.get(default).unwrap_or(files) } else { files };
        for (env, targets) in files.iter().flatten().filter(|(env, _)| *env == own) {
            out.entry(env.clone()).or_default().extend(targets.clone());
        }
    }
    out
}

/// All top files together; a target that stands in several gets the SLS of each.
fn merge_all(tops: Tops) -> TopFile {
    let mut out: TopFile = IndexMap::new();
    for (env, targets) in tops.0.into_values().flatten().flatten() {
        let merged = out.entry(env).or_default();
        for (expression, target) in targets {
            match merged.get_mut(&expression) {
                None => drop(merged.insert(expression, target)),
                Some(there) => {
                    let more: Vec<_> =
                        target.items.into_iter().filter(|(item, _)| !there.items.iter().any(|(one, _)| one == item)).collect();
                    there.items.extend(more);
                }
            }
        }
    }
    out
}
