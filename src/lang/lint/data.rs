//! Rules on what decides: top files, and the pillar beside those that read it.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::super::renderer::Rendered;
use super::super::{Compiler, Matcher, Side, Where, glob};
use super::world::{Host, World};
use super::{Input, Kind, Lint, known};
use crate::diagnostic::{Code, Diagnostic, Result, nearest};
use crate::value::{Map, Value};
use crate::yaml::{Data, Node, Place};

/// Keys of pillar that Salt itself reads.
const OF_SALT: [&str; 10] =
    ["mine_functions", "mine_interval", "schedule", "beacons", "salt", "master", "minion", "salt_minion", "ext_pillar", "_errors"];

/// Matches nothing: for looking at a top file without a host.
struct Nobody;

impl Matcher for Nobody {
    fn matches(&self, _: &str, _: &str, _: &Map) -> Result<bool> {
        Ok(false)
    }
}

/// A target of a top file.
struct Target<'a> {
    expression: String,
    place: Place,
    items: Vec<&'a Node>,
}

impl Target<'_> {
    fn option(&self, name: &str) -> Option<Value> {
        self.items.iter().rev().find_map(|item| item.to_value().as_map()?.get(name).cloned())
    }

    fn form(&self) -> String {
        self.option("match").map_or_else(|| "compound".into(), |form| form.to_text())
    }
}

fn targets(node: &Node) -> Vec<(String, Target<'_>)> {
    let Data::Map(envs) = &node.data else { return Vec::new() };
    let mut out = Vec::new();
    for (env, (_, targets)) in envs {
        let Data::Map(targets) = &targets.data else { continue };
        for (expression, (place, items)) in targets {
            let items = match &items.data {
                Data::List(items) => items.iter().collect(),
                _ => vec![items],
            };
            out.push((env.to_text(), Target { expression: expression.to_text(), place: *place, items }));
        }
    }
    out
}

/// For each target of the top files a host that it means: an id, and grains where it asks for some.
pub fn made_hosts(compiler: &Compiler) -> Vec<(String, Map)> {
    let Some((_, grains)) = known::families().into_iter().next() else { return Vec::new() };
    let host = Host { id: "minion1.example.com".into(), grains, pillar: None };
    let input = host.input(&Nobody);
    let world = World::new(compiler, &input);
    let mut out: BTreeMap<String, (String, Map)> = BTreeMap::new();
    for env in compiler.roots.names() {
        let path = compiler.top_name();
        let Ok(Some(file)) = compiler.roots.read(env, path) else { continue };
        let Ok(rendered) = world.render(compiler, &file, Where { side: Side::States, env, path, sls: "" }) else { continue };
        for (_, target) in targets(&rendered.node) {
            for made in made(&target.expression, &target.form()) {
                out.entry(format!("{made:?}")).or_insert(made);
            }
        }
    }
    out.into_values().collect()
}

/// Hosts that an expression means, one for each side of an `or`. What cannot be made up (pillar, expressions) leaves a plain one.
fn made(expression: &str, form: &str) -> Vec<(String, Map)> {
    let id_of = |pattern: &str| {
        if pattern == "*" {
            return "minion1.example.com".to_owned();
        }
        let mut out = String::new();
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            match c {
                '*' | '?' => out.push('1'),
                '[' => {
                    out.extend(chars.next());
                    chars.by_ref().find(|c| *c == ']');
                }
                c => out.push(c),
            }
        }
        out
    };
    let grain = |text: &str, grains: &mut Map| {
        if let Some((key, value)) = text.split_once(':') {
            // Roles, tags and the like are mostly lists.
            let value = Value::Str(id_of(value));
            grains.insert(key, if key.ends_with('s') && key != "os" { Value::List(vec![value]) } else { value });
        }
    };
    match form {
        "grain" => {
            let mut grains = Map::new();
            grain(expression, &mut grains);
            return vec![("minion1.example.com".into(), grains)];
        }
        "list" => return expression.split(',').map(|id| (id.trim().to_owned(), Map::new())).collect(),
        "glob" => return vec![(id_of(expression), Map::new())],
        "compound" => {}
        _ => return Vec::new(),
    }
    let mut out = Vec::new();
    for part in expression.split(" or ") {
        let (mut id, mut grains) = ("minion1.example.com".to_owned(), Map::new());
        let mut negated = false;
        for word in part.split_whitespace().map(|word| word.trim_matches(['(', ')'])) {
            match word.split_once('@') {
                _ if word == "not" => {
                    negated = true;
                    continue;
                }
                _ if word == "and" || word.is_empty() || negated => {}
                Some(("G", text)) => grain(text, &mut grains),
                Some(("L", ids)) => id = ids.split(',').next().unwrap_or("").to_owned(),
                Some(_) => {}
                None => id = id_of(word),
            }
            negated = false;
        }
        out.push((id, grains));
    }
    out
}

impl Lint<'_> {
    /// Top files of both sides, and SLS that none of them leads to.
    pub(super) fn tops(&mut self, input: &Input) {
        let worlds = std::mem::take(&mut self.worlds);
        for world in &worlds {
            for side in [Side::States, Side::Pillar] {
                let mut errors = Vec::new();
                self.compiler.tops(&world.session, side, &mut errors);
                for error in errors.into_iter().filter(|error| error.code == Code::Compile && error.span.is_some()) {
                    self.found.add("bad-top", error);
                }
            }
        }
        self.worlds = worlds;
        let mut named: HashSet<String> = HashSet::new();
        let mut any_top = false;
        for index in 0..self.sls.len() {
            let Some(sls) = self.sls.get(index).filter(|sls| sls.kind == Kind::Top) else { continue };
            let side = sls.side;
            any_top |= side == Side::States;
            for rendered in self.rendered(index) {
                for (env, target) in targets(&rendered.node) {
                    self.target(&rendered, side, &env, &target, input, &mut named);
                }
            }
        }
        if any_top {
            self.unused_sls(&named);
        }
    }

    fn target(&mut self, rendered: &Rendered, side: Side, env: &str, target: &Target, input: &Input, named: &mut HashSet<String>) {
        let span = rendered.origin.span(target.place);
        let form = target.form();
        let none = Map::new();
        let failed = self.worlds.first().and_then(|world| world.session.host.matcher.matches(&target.expression, &form, &none).err());
        self.found.look("bad-top", &span, failed.map(|error| error.at(span.clone())));
        let letters = ["G@", "P@", "I@", "J@", "S@", "R@", "N@"];
        if side == Side::States
            && !input.hosts.is_empty()
            && matches!(form.as_str(), "compound" | "glob" | "list" | "pcre")
            && !letters.iter().any(|letter| target.expression.contains(letter))
        {
            let any = input
                .hosts
                .iter()
                .any(|(id, grains)| (input.matchers)(id, grains).matches(&target.expression, &form, &none).unwrap_or(true));
            let found = (!any).then(|| {
                Diagnostic::new(Code::Compile, format!("no host of the roster is meant by {}", target.expression)).at(span.clone())
            });
            self.found.look("unmatched-target", &span, found);
        }
        let roots = self.compiler.roots_of(side).clone();
        for item in &target.items {
            let (env, name, place) = match &item.data {
                Data::Scalar(Value::Str(name)) => (env.to_owned(), name.clone(), item.place),
                Data::Map(pairs) => match pairs.first() {
                    Some((Value::Str(other), (_, Node { data: Data::Scalar(Value::Str(name)), place }))) if roots.has(other) => {
                        (other.clone(), name.clone(), *place)
                    }
                    _ => continue,
                },
                _ => continue,
            };
            let all = roots.sls(&env).unwrap_or_default();
            let fit: Vec<&String> = all.iter().filter(|sls| **sls == name || glob::matches(&name, sls)).collect();
            named.extend(fit.iter().map(|sls| (*sls).clone()).filter(|_| side == Side::States));
            let span = rendered.origin.span(place);
            let optional = target.option("ignore_missing").is_some_and(|value| value.truthy());
            let missing = (fit.is_empty() && !optional && roots.has(&env)).then(|| {
                let what = if side == Side::Pillar { "pillar SLS" } else { "SLS" };
                let error = Diagnostic::new(Code::Compile, format!("there is no {what} {name}")).at(span.clone());
                match nearest(&name, all.iter().map(String::as_str)) {
                    Some(near) => error.hint(format!("did you mean {near}?")),
                    None => error.hint("is it in another repository?"),
                }
            });
            self.found.look("missing-sls", &span, missing);
        }
    }

    /// SLS whose name stands nowhere else. (A name that is a common word counts as used where that word stands.)
    fn unused_sls(&mut self, named: &HashSet<String>) {
        let mut words: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for file in self.files.values() {
            for word in words_of(file.text().unwrap_or("")) {
                words.entry(word.trim_start_matches('.').to_owned()).or_default().insert(file.shown.to_string());
            }
        }
        let used = |sls: &super::Sls| {
            let last = sls.name.rsplit('.').next().unwrap_or("");
            [sls.name.as_str(), last]
                .iter()
                .any(|name| words.get(*name).is_some_and(|files| files.iter().any(|file| *file != *sls.file.shown)))
                || sls.file.text().is_ok_and(|text| text.trim().is_empty())
        };
        let unused: Vec<(String, crate::diagnostic::Span)> = self
            .sls
            .iter()
            .filter(|sls| sls.side == Side::States && sls.kind == Kind::States && !named.contains(&sls.name) && !used(sls))
            .map(|sls| (sls.name.clone(), crate::diagnostic::Span::new(sls.file.shown.clone(), 1, 1)))
            .collect();
        for (name, span) in unused {
            self.found.add("unused-sls", Diagnostic::new(Code::Compile, format!("no top file and no SLS names {name}")).at(span));
        }
    }

    /// Pillar keys that nothing reads, and keys that are read and not there.
    pub(super) fn pillar(&mut self) {
        if !self.sls.iter().any(|sls| sls.kind == Kind::Pillar) {
            return;
        }
        let mut keys: BTreeMap<String, Vec<crate::diagnostic::Span>> = BTreeMap::new();
        for index in 0..self.sls.len() {
            if self.sls.get(index).is_some_and(|sls| sls.kind == Kind::Pillar) {
                for rendered in self.rendered(index) {
                    let Data::Map(entries) = &rendered.node.data else { continue };
                    for (key, (place, _)) in entries.iter().filter(|(key, _)| key.as_str() != Some("include")) {
                        keys.entry(key.to_text()).or_default().push(rendered.origin.span(*place));
                    }
                }
            }
        }
        let mut mentioned: HashSet<String> = HashSet::new();
        let mut written: HashSet<String> = HashSet::new();
        for sls in self.sls.iter().filter(|sls| sls.side == Side::Pillar) {
            let text = sls.file.text().unwrap_or("");
            written.extend(words_of(text));
            let lines = text
                .lines()
                .filter(|line| sls.kind == Kind::Top || line.contains('{') || line.trim_start().starts_with("- ") || line.contains("key:"));
            mentioned.extend(lines.flat_map(words_of));
        }
        for env in self.compiler.roots.names() {
            for path in self.compiler.roots.paths(env).unwrap_or_default().iter() {
                // What is large is no template.
                if let Ok(Some(file)) = self.compiler.roots.read(env, path)
                    && file.bytes.len() < 1 << 18
                {
                    mentioned.extend(words_of(file.text().unwrap_or("")));
                }
            }
        }
        let elsewhere = self.found.looked.iter().any(|((code, _), (times, list))| *code == "missing-sls" && list.len() >= *times);
        let whole = self.sls.iter().any(|sls| sls.side == Side::States && sls.outline.as_ref().is_some_and(|o| o.whole_pillar));
        if !elsewhere && !whole {
            for (key, spans) in &keys {
                if !mentioned.contains(key)
                    && !OF_SALT.contains(&key.as_str())
                    && let Some(span) = spans.first()
                {
                    let found = Diagnostic::new(Code::Compile, format!("nothing in the tree reads the pillar key {key}")).at(span.clone());
                    self.found.add("unused-pillar", found);
                }
            }
        }
        if elsewhere {
            return;
        }
        let mut unset = Vec::new();
        for sls in self.sls.iter().filter(|sls| sls.side == Side::States && sls.kind == Kind::States) {
            let Some(outline) = &sls.outline else { continue };
            let top = |key: &str| key.split(':').next().unwrap_or("").to_owned();
            let guarded: HashSet<String> = outline.pillar.iter().filter(|read| read.default).map(|read| top(&read.key)).collect();
            for read in outline.pillar.iter().filter(|read| !read.default) {
                let key = top(&read.key);
                if !keys.contains_key(&key) && !written.contains(&key) && !guarded.contains(&key) && !outline.guarded.contains("pillar") {
                    let found = Diagnostic::new(Code::Template, format!("no pillar SLS sets {key}, and the template fails without it"))
                        .at(read.span.clone());
                    unset.push(match nearest(&key, keys.keys().map(String::as_str)) {
                        Some(near) => found.hint(format!("did you mean {near}?")),
                        None => found.hint(format!("set it, or give a default: pillar.get('{key}', …)")),
                    });
                }
            }
        }
        unset.into_iter().for_each(|found| self.found.add("unset-pillar", found));
    }
}

/// The words of a text: names with what may stand in a key, and their parts between dots.
fn words_of(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.'))).filter(|word| !word.is_empty()).flat_map(|word| {
        let trimmed = word.trim_matches(['-', '.']);
        let parts = if trimmed.contains('.') { trimmed.split('.').map(str::to_owned).collect() } else { Vec::new() };
        [word.to_owned(), trimmed.to_owned()].into_iter().chain(parts)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_made_up_for_a_target() {
        let one = |expression: &str| {
            made(expression, "compound").into_iter().map(|(id, grains)| format!("{id} {}", Value::Map(grains))).collect::<Vec<_>>()
        };
        assert_eq!(one("*"), ["minion1.example.com {}"]);
        assert_eq!(one("web*.example.org"), ["web1.example.org {}"]);
        assert_eq!(one("G@os:Debian and db? and not web*"), [r#"db1 {"os":"Debian"}"#]);
        assert_eq!(one("a or b").len(), 2);
    }
}
