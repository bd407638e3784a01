//! Rules on what one host gets: SLS and what they include, together.
//!
//! A host is what a target of the top file means, or, for an SLS that no top file leads to, any kind of host with that SLS alone.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};

use super::super::high::{High, Origins, Sls as Read};
use super::super::low::Chunk;
use super::super::top::Given;
use super::super::{Compiler, Side, glob, include, low, requisite};
use super::state::{Requisite, State, requisites, states};
use super::world::World;
use super::{Kind, Lint};
use crate::diagnostic::{Code, Diagnostic, Span, nearest};
use crate::value::Value;

/// What can be named by a requisite.
#[derive(Default)]
struct Names {
    /// (module, id or name)
    states: HashSet<(String, String)>,
    any: HashSet<String>,
    sls: HashSet<String>,
}

impl Names {
    fn of(high: &High) -> Names {
        let mut out = Names::default();
        for (id, body) in &high.ids {
            out.sls.extend(std::iter::once(&body.sls).chain(body.included_from.iter()).map(|sls| sls.to_string()));
            for (module, args) in &body.states {
                out.add(module, id);
                for (key, value) in args.iter().filter_map(Value::as_map).flatten() {
                    match (key.as_str(), value) {
                        (Some("name"), Value::Str(name)) => out.add(module, name),
                        (Some("names"), Value::List(names)) => {
                            for name in names {
                                let name = name.as_map().and_then(|map| map.0.first()).map_or(name, |(name, _)| name);
                                out.add(module, &name.to_text());
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
        out
    }

    fn add(&mut self, module: &str, name: &str) {
        self.states.insert((module.to_owned(), name.to_owned()));
        self.any.insert(name.to_owned());
    }

    fn has(&self, requisite: &Requisite) -> bool {
        let wanted = requisite.wanted.as_str();
        let pattern = glob::is_pattern(wanted);
        match requisite.module.as_deref() {
            Some("sls") if pattern => true,
            Some("sls") => self.sls.contains(wanted),
            None | Some("id") => self.any.contains(wanted) || (pattern && self.any.iter().any(|name| glob::matches(wanted, name))),
            Some(module) => {
                let module = module.split('.').next().unwrap_or(module);
                self.states.contains(&(module.to_owned(), wanted.to_owned()))
                    || (pattern && self.states.iter().any(|(m, name)| m == module && glob::matches(wanted, name)))
            }
        }
    }
}

/// Everything the tree declares anywhere, to tell what is in another SLS from what is nowhere.
struct Tree {
    names: Names,
    /// Ids and names as they stand in the text, `{{ … }}` as a star.
    patterns: Vec<String>,
    /// SLS of states by name.
    index: HashMap<String, Vec<usize>>,
    /// SLS that make ids of nothing but what only the data says: `{{ name }}:`.
    free: HashSet<usize>,
}

impl Tree {
    fn may_have(&self, requisite: &Requisite) -> bool {
        let literal = |pattern: &&String| pattern.chars().filter(|c| c.is_alphanumeric()).count() >= 3;
        self.names.has(requisite)
            || (requisite.module.as_deref() != Some("sls")
                && self
                    .patterns
                    .iter()
                    .filter(literal)
                    .any(|pattern| *pattern == requisite.wanted || glob::matches(pattern, &requisite.wanted)))
    }
}

/// Ids and names as they stand in a template, `{{ … }}` as a star. A line counts as one where it could be.
fn patterns(text: &str, out: &mut Vec<String>) {
    for line in text.lines() {
        let line = line.trim();
        let named = line.strip_prefix("- name:").or_else(|| line.strip_prefix("- names:"));
        let item = line.strip_prefix("- ").filter(|item| !item.contains(": "));
        let Some(name) =
            named.or_else(|| line.strip_suffix(':').filter(|id| !id.starts_with('-'))).or(item.filter(|item| item.contains("{{")))
        else {
            continue;
        };
        let mut pattern = String::new();
        let mut rest = name.trim().trim_matches(['"', '\'']);
        while let Some((before, after)) = rest.split_once("{{") {
            pattern.push_str(before);
            pattern.push('*');
            rest = after.split_once("}}").map_or("", |(_, rest)| rest);
        }
        pattern.push_str(rest);
        if !pattern.is_empty() {
            out.push(pattern);
        }
    }
}

/// Functions of a module of which one undoes the other.
const AGAINST: [(&str, &[&str], &[&str]); 6] = [
    ("file", &["managed", "directory", "symlink", "recurse", "touch"], &["absent"]),
    ("pkg", &["installed", "latest"], &["removed", "purged"]),
    ("service", &["running"], &["dead"]),
    ("service", &["enabled"], &["disabled"]),
    ("user", &["present"], &["absent"]),
    ("group", &["present"], &["absent"]),
];

impl Lint<'_> {
    pub(super) fn whole(&mut self) {
        let worlds = std::mem::take(&mut self.worlds);
        let tree = self.tree(&worlds);
        self.structure(&worlds);
        let mut reached: HashSet<String> = HashSet::new();
        let mut done: HashSet<String> = HashSet::new();
        for world in &worlds {
            let Ok(given) = self.compiler.highstate(&world.session) else { continue };
            if given.matches.values().all(Vec::is_empty) {
                continue;
            }
            let grains = &world.session.host.grains;
            let key = format!("{:?} {:?} {:?}", given.matches, grains.get("osfinger"), world.session.host.pillar_override);
            let again = !done.insert(key);
            if !again {
                self.one(world, &given, &tree, false, &mut reached);
            }
        }
        let left: Vec<(String, String)> = self
            .sls
            .iter()
            .filter(|sls| sls.side == Side::States && sls.kind == Kind::States && !reached.contains(&sls.name))
            .map(|sls| (sls.env.clone(), sls.name.clone()))
            .collect();
        for (env, name) in left {
            let mut alike: HashSet<Vec<usize>> = HashSet::new();
            for world in &worlds {
                let given = Given::of(&env, vec![name.clone()]);
                // What is the same text on another kind of host is no news.
                if alike.insert(self.shape(world, &tree, &env, &name)) {
                    self.one(world, &given, &tree, true, &mut HashSet::new());
                }
            }
        }
        self.worlds = worlds;
    }

    /// What an SLS is in a world, with what it includes, as addresses of its rendered data.
    fn shape(&self, world: &World, tree: &Tree, env: &str, name: &str) -> Vec<usize> {
        let mut out = Vec::new();
        let mut seen = HashSet::new();
        let mut left = vec![name.to_owned()];
        while let Some(name) = left.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            let of_env = |index: &&usize| self.sls.get(**index).is_some_and(|sls| sls.env == env);
            let Some(index) = tree.index.get(&name).and_then(|all| all.iter().find(of_env).copied()) else { continue };
            match self.render(index, world) {
                Some(Ok(rendered)) => {
                    out.push(std::sync::Arc::as_ptr(&rendered.node) as usize);
                    let mut errors = Vec::new();
                    let path = self.sls.get(index).map(|sls| sls.path.clone()).unwrap_or_default();
                    let read = read(&rendered, &name, env, &mut errors);
                    left.extend(read.include.iter().filter_map(|i| include::absolute(&i.sls, &name, path.ends_with("/init.sls"))));
                }
                _ => out.push(0),
            }
        }
        out
    }

    /// All names of the tree.
    fn tree(&self, worlds: &[World]) -> Tree {
        let mut tree = Tree { names: Names::default(), patterns: Vec::new(), index: HashMap::new(), free: HashSet::new() };
        for (index, sls) in self.sls.iter().enumerate().filter(|(_, sls)| sls.side == Side::States) {
            tree.names.sls.insert(sls.name.clone());
            if sls.kind == Kind::States {
                tree.index.entry(sls.name.clone()).or_default().push(index);
            }
            if makes_ids_of_data(sls.file.text().unwrap_or("")) {
                tree.free.insert(index);
            }
            let mut seen = HashSet::new();
            for world in worlds {
                let Some(Ok(rendered)) = self.render(index, world) else { continue };
                if !seen.insert(std::sync::Arc::as_ptr(&rendered.node)) {
                    continue;
                }
                for state in states(&rendered.node) {
                    tree.names.add(&state.module, &state.id);
                    state.names().iter().for_each(|name| tree.names.add(&state.module, name));
                }
            }
        }
        for file in self.files.values() {
            patterns(file.text().unwrap_or(""), &mut tree.patterns);
        }
        tree.patterns.sort();
        tree.patterns.dedup();
        tree
    }

    /// What Salt refuses in a single SLS, and includes of what is not there.
    fn structure(&mut self, worlds: &[World]) {
        for index in 0..self.sls.len() {
            let Some(sls) = self.sls.get(index).filter(|sls| sls.kind == Kind::States) else { continue };
            let (name, env, path) = (sls.name.clone(), sls.env.clone(), sls.path.clone());
            let mut rendered: Vec<super::Rendered> = Vec::new();
            for world in worlds {
                if let Some(Ok(one)) = self.render(index, world)
                    && !rendered.iter().any(|there| std::sync::Arc::ptr_eq(&there.node, &one.node))
                {
                    rendered.push(one);
                }
            }
            let mut wrong: HashMap<(Option<Span>, String), (usize, Diagnostic)> = HashMap::new();
            for one in &rendered {
                let mut errors = Vec::new();
                let read = read(one, &name, &env, &mut errors);
                for entry in &read.include {
                    let missing = self.missing_include(entry, &name, &env, path.ends_with("/init.sls"));
                    self.found.look("missing-sls", &entry.span, missing);
                }
                let mut high = High::default();
                high.join(Read { include: Vec::new(), ..read }, &mut errors);
                high.verify(&mut errors);
                for error in errors {
                    wrong.entry((error.span.clone(), error.summary.clone())).or_insert((0, error)).0 += 1;
                }
            }
            let data = self.made_by_data(index);
            for (times, error) in wrong.into_values() {
                let made = error.excerpt.as_deref().is_some_and(|excerpt| excerpt.contains("the template made of it"));
                let empty = error.summary.ends_with("is empty, not a list");
                if times == rendered.len() && !((made || empty) && data) {
                    self.found.add("bad-state", error);
                }
            }
        }
    }

    fn missing_include(&self, entry: &super::super::high::Include, sls: &str, env: &str, is_init: bool) -> Option<Diagnostic> {
        let env = entry.env.as_deref().unwrap_or(env);
        let roots = &self.compiler.roots;
        let all = roots.sls(env).unwrap_or_default();
        let Some(target) = include::absolute(&entry.sls, sls, is_init) else {
            return Some(
                Diagnostic::new(Code::Compile, format!("the include {} leads above the top of the file roots", entry.sls))
                    .at(entry.span.clone()),
            );
        };
        let there = if glob::is_pattern(&target) {
            all.iter().any(|sls| glob::matches(&target, sls))
        } else {
            roots.find_sls(env, &target).is_ok_and(|f| f.is_some())
        };
        (!there).then(|| {
            let error = Diagnostic::new(Code::Compile, format!("there is no SLS {target}")).at(entry.span.clone());
            match nearest(&target, all.iter().map(String::as_str)) {
                Some(near) => error.hint(format!("did you mean {near}?")),
                None => {
                    let path = target.replace('.', "/");
                    error.hint(format!("{path}.sls and {path}/init.sls were looked for in the file roots; is it in another repository?"))
                }
            }
        })
    }

    /// One host: the SLS that it is given. `open`: others may be put beside them.
    fn one(&mut self, world: &World, given: &Given, tree: &Tree, open: bool, reached: &mut HashSet<String>) {
        let compiler: &Compiler = self.compiler;
        let mut errors = Vec::new();
        let mut high = compiler.high(&world.session, given, &mut errors);
        let mut own: BTreeSet<String> = given.matches.values().flatten().cloned().collect();
        let bodies = || high.ids.values().chain(high.extend.iter().map(|(_, body)| body));
        for body in bodies() {
            own.extend(std::iter::once(&body.sls).chain(body.included_from.iter()).map(|sls| sls.to_string()));
        }
        reached.extend(own.iter().cloned());
        let complete = errors.iter().all(|error| error.code == Code::Compile && error.rule.as_deref() != Some("missing-sls"));
        if !complete {
            return;
        }
        for error in errors {
            if error.rule.as_deref() == Some("duplicate-id") {
                self.found.add("duplicate-id", error);
            }
        }
        let mut unused = Vec::new();
        let extended: Vec<(String, String, Span)> = high
            .extend
            .iter()
            .filter_map(|(name, body)| Some((name.to_text(), body.states.first()?.0.clone(), body.span.clone())))
            .collect();
        let before = Names::of(&high);
        for (name, module, span) in extended {
            let there = before.any.contains(&name)
                || (open && tree.may_have(&Requisite { module: None, wanted: name.clone(), place: Default::default() }));
            let missing = (!there).then(|| {
                let error = Diagnostic::new(Code::Compile, format!("extend names {name}, and there is no such id")).at(span.clone());
                match nearest(&name, high.ids.keys().map(String::as_str)) {
                    Some(near) => error.hint(format!("did you mean {near}?")),
                    None => error.hint(format!("is the SLS included that declares it with {module}?")),
                }
            });
            self.found.look("extend-nothing", &span, missing);
        }
        requisite::extend(&mut high, false, &mut unused);
        requisite::requisite_in(&mut high, &mut unused);
        let names = Names::of(&high);
        for index in own.iter().flat_map(|name| tree.index.get(name).into_iter().flatten().copied()) {
            let Some(Ok(rendered)) = self.render(index, world) else { continue };
            let any_id = tree.free.contains(&index);
            for state in states(&rendered.node) {
                for (arg, requisite) in requisites(&state) {
                    let span = rendered.origin.span(requisite.place);
                    let there = names.has(&requisite)
                        || (arg.name == "use" && names.any.contains(&requisite.wanted))
                        || any_id
                        || tree_has(tree, &requisite, open);
                    let missing = (!there).then(|| missing(&state, &arg.name, &requisite, &names, tree, span.clone()));
                    self.found.look("requisite-never-matches", &span, missing);
                }
            }
        }
        let ids: Vec<Span> = high.ids.values().map(|body| body.span.clone()).collect();
        match low::compile(high) {
            Ok(ordered) => {
                // An SLS that requires one that includes it goes round only where somebody begins with that one.
                ids.iter().for_each(|span| self.found.look("cycle", span, None));
                self.against(&ordered.chunks);
            }
            Err(errors) => {
                errors.into_iter().filter(|error| error.rule.as_deref() == Some("cycle")).for_each(|error| self.found.add("cycle", error))
            }
        }
    }

    /// States of one host that set the same thing to different ends.
    fn against(&mut self, chunks: &[Chunk]) {
        let mut by_name: HashMap<(Cow<str>, Cow<str>), Vec<&Chunk>> = HashMap::new();
        for chunk in chunks {
            let conditional =
                ["onlyif", "unless", "onchanges", "onchanges_any", "onfail", "onfail_any", "onfail_all", "prereq", "creates", "listen"];
            if !conditional.iter().any(|key| chunk.map.contains_key(key)) {
                by_name.entry((chunk.text("state"), chunk.text("name"))).or_default().push(chunk);
            }
        }
        for ((state, name), chunks) in by_name {
            for (module, make, unmake) in AGAINST.iter().filter(|(module, _, _)| *module == state) {
                let one = |funs: &[&str]| chunks.iter().find(|chunk| funs.contains(&&*chunk.text("fun")));
                let (Some(make), Some(unmake)) = (one(make), one(unmake)) else { continue };
                // A package of that name may be one of `pkgs`, which is what counts there.
                if *module == "pkg"
                    && [make, unmake].iter().any(|chunk| chunk.map.contains_key("pkgs") || chunk.map.contains_key("version"))
                {
                    continue;
                }
                let (first, second) = if chunks.iter().position(|c| c == make) < chunks.iter().position(|c| c == unmake) {
                    (make, unmake)
                } else {
                    (unmake, make)
                };
                let found = Diagnostic::new(
                    Code::Compile,
                    format!(
                        "{state}.{} {name} undoes what {state}.{} of id {} does before it",
                        second.text("fun"),
                        first.text("fun"),
                        first.text("__id__")
                    ),
                );
                let found = found
                    .at(second.span.clone())
                    .related(first.span.clone(), "the other one")
                    .hint("every run changes it twice: keep one, or give one a condition");
                self.found.add("shadowed-state", found);
            }
        }
    }

    /// Whether a template reads data that the tree may not have.
    fn made_by_data(&self, index: usize) -> bool {
        let outline = self.sls.get(index).and_then(|sls| sls.outline.as_ref());
        outline.is_some_and(|o| o.whole_pillar || o.grains || !o.pillar.is_empty() || !o.files.is_empty() || o.computed_files)
    }
}

/// Whether another SLS that a host may get besides has what is wanted.
fn tree_has(tree: &Tree, requisite: &Requisite, open: bool) -> bool {
    // Even on a host whose SLS are all known, a state may stand in a branch that its true data would take.
    if open { tree.may_have(requisite) } else { tree.patterns.contains(&requisite.wanted) && !tree.names.has(requisite) }
}

/// Whether ids are made of nothing but what only the data says: `{{ name }}:`.
fn makes_ids_of_data(text: &str) -> bool {
    let mut found = Vec::new();
    patterns(text, &mut found);
    found.iter().any(|pattern| !pattern.chars().any(char::is_alphanumeric))
}

fn missing(state: &State, key: &str, requisite: &Requisite, names: &Names, tree: &Tree, span: Span) -> Diagnostic {
    let wanted = &requisite.wanted;
    let shown = requisite.module.as_ref().map_or_else(|| wanted.clone(), |module| format!("{module}: {wanted}"));
    let error = Diagnostic::new(Code::Compile, format!("{key} of {} names {shown}, and there is no such state", state.id)).at(span);
    let error = match (&requisite.module, key.ends_with("_in")) {
        (None, true) => error.detail("Salt ignores it without a word."),
        _ => error,
    };
    let module = requisite.module.as_deref();
    if module == Some("sls") {
        return match nearest(wanted, tree.names.sls.iter().map(String::as_str)) {
            Some(near) if near == wanted => error.hint(format!("it declares no state, or is not included: add `- {wanted}` to include")),
            Some(near) => error.hint(format!("did you mean sls: {near}?")),
            None => error.hint("no SLS of this name is there"),
        };
    }
    let mut elsewhere: Vec<&str> =
        names.states.iter().filter(|(m, name)| name == wanted && Some(m.as_str()) != module).map(|(m, _)| m.as_str()).collect();
    elsewhere.sort_unstable();
    if let Some(other) = elsewhere.first() {
        return error.hint(format!("{wanted} is a state of the module {other}: write `{other}: {wanted}`"));
    }
    let mut known: Vec<&str> =
        names.states.iter().filter(|(m, _)| module.is_none_or(|module| m == module)).map(|(_, name)| name.as_str()).collect();
    known.sort_unstable();
    match nearest(wanted, known) {
        Some(near) => error.hint(format!("did you mean {}?", module.map_or_else(|| near.to_owned(), |module| format!("{module}: {near}")))),
        None => error.hint("is the SLS included that declares it?"),
    }
}

fn read(rendered: &super::Rendered, name: &str, env: &str, errors: &mut Vec<Diagnostic>) -> Read {
    let origins = Origins { sls: name.into(), env: env.into(), included_from: Vec::new().into(), origin: &rendered.origin };
    Read::read(&rendered.node, &origins, errors)
}
