//! Gathers the SLS of a host: those it is given, and what they include, in the order Salt's dictionaries have.

use std::collections::HashSet;
use std::sync::Arc;

use super::high::{High, Include, Origins, Sls};
use super::top::Given;
use super::{Compiler, Matches, Session, Side, Where, glob};
use crate::diagnostic::{Code, Diagnostic, Span, nearest};
use crate::value::Map;

/// How many includes may lead from one to the next.
const MAX_DEPTH: usize = 200;

impl Compiler {
    /// Renders the SLS of every environment and all they include.
    pub(super) fn high(&self, session: &Session, given: &Given, errors: &mut Vec<Diagnostic>) -> High {
        let matches = &given.matches;
        let mut gather =
            Gather { compiler: self, session, matches, seen: HashSet::new(), high: High::default(), next_order: 10_000, errors };
        for (env, names) in matches {
            if !self.roots.has(env) {
                let mut error = Diagnostic::new(Code::Compile, format!("there is no environment {env:?}"));
                error.span = names.first().and_then(|name| given.place(env, name)).cloned();
                gather.errors.push(error);
                continue;
            }
            for name in names {
                for sls in gather.targets(env, name) {
                    if !gather.seen.contains(&(env.clone(), sls.clone())) {
                        gather.sls(&sls, env, &[], given.place(env, name));
                    }
                }
            }
        }
        gather.high
    }
}

struct Gather<'a> {
    compiler: &'a Compiler,
    session: &'a Session<'a>,
    matches: &'a Matches,
    /// (environment, SLS) that were rendered.
    seen: HashSet<(String, String)>,
    high: High,
    next_order: i64,
    errors: &'a mut Vec<Diagnostic>,
}

impl Gather<'_> {
    /// The SLS a name means: those that fit where it is a pattern, else itself.
    fn targets(&mut self, env: &str, name: &str) -> Vec<String> {
        if !glob::is_pattern(name) {
            return vec![name.to_owned()];
        }
        match self.compiler.roots.sls(env) {
            Ok(all) => {
                let fit: Vec<String> = all.iter().filter(|sls| glob::matches(name, sls)).cloned().collect();
                if fit.is_empty() { vec![name.to_owned()] } else { fit }
            }
            Err(error) => {
                self.errors.push(*error);
                Vec::new()
            }
        }
    }

    /// Renders one SLS, takes its ids in, then what it includes, then numbers its own: what is included runs first.
    fn sls(&mut self, name: &str, env: &str, chain: &[Arc<str>], from: Option<&Span>) {
        let found = match self.compiler.roots.find_sls(env, name) {
            Ok(found) => found,
            Err(error) => return self.errors.push(from.map_or(*error.clone(), |span| error.or_at(span.clone()))),
        };
        let Some((path, file)) = found else {
            let error = self.not_there(name, env, from);
            return self.errors.push(error);
        };
        let rendered = self.compiler.render(self.session, &file, Where { side: Side::States, env, path: &path, sls: name }, &Map::new());
        self.seen.insert((env.to_owned(), name.to_owned()));
        let rendered = match rendered {
            Ok(rendered) => rendered,
            Err(error) => return self.errors.push(*error),
        };
        let origins = Origins { sls: name.into(), env: env.into(), included_from: chain.into(), origin: &rendered.origin };
        let mut sls = Sls::read(&rendered.node, &origins, self.errors);
        let include = std::mem::take(&mut sls.include);
        let first = self.high.ids.len();
        self.high.join(sls, self.errors);
        let own = first..self.high.ids.len();
        if chain.len() >= MAX_DEPTH {
            let error = Diagnostic::new(Code::Compile, format!("more than {MAX_DEPTH} SLS include each other in one line"));
            self.errors.push(error.at(Span::new(file.shown.clone(), 1, 0)));
        } else if !include.is_empty() {
            let below: Vec<Arc<str>> = std::iter::once(Arc::from(name)).chain(chain.iter().cloned()).collect();
            for include in &include {
                self.include(include, name, env, path.ends_with("/init.sls"), &below);
            }
        }
        self.high.number(own, &mut self.next_order);
    }

    fn include(&mut self, include: &Include, sls: &str, env: &str, is_init: bool, chain: &[Arc<str>]) {
        let roots = &self.compiler.roots;
        let wanted_env = include.env.as_deref().unwrap_or(env);
        if !roots.has(wanted_env) {
            let error = Diagnostic::new(Code::Compile, format!("there is no environment {wanted_env:?}")).at(include.span.clone());
            return self.errors.push(match nearest(wanted_env, roots.names()) {
                Some(near) => error.hint(format!("did you mean {near}?")),
                None => error,
            });
        }
        let Some(target) = absolute(&include.sls, sls, is_init) else {
            let summary = format!("the include {} leads above the top of the file roots", include.sls);
            return self.errors.push(Diagnostic::new(Code::Compile, summary).at(include.span.clone()));
        };
        // An environment that the host has no SLS of must at least know what is included.
        if !self.matches.contains_key(wanted_env) && !roots.sls(wanted_env).is_ok_and(|all| all.iter().any(|s| glob::matches(&target, s))) {
            let error = self.not_there(&target, wanted_env, Some(&include.span));
            return self.errors.push(error);
        }
        for target in self.targets(env, &target) {
            if !self.seen.contains(&(wanted_env.to_owned(), target.clone())) {
                self.sls(&target, wanted_env, chain, Some(&include.span));
            }
        }
    }

    fn not_there(&self, name: &str, env: &str, from: Option<&Span>) -> Diagnostic {
        let mut error = Diagnostic::new(Code::Compile, format!("there is no SLS {name} in the environment {env}")).rule("missing-sls");
        error.span = from.cloned();
        let all = self.compiler.roots.sls(env).unwrap_or_default();
        let path = name.replace('.', "/");
        match nearest(name, all.iter().map(String::as_str)) {
            Some(near) => error.hint(format!("did you mean {near}?")),
            None => error.hint(format!("{path}.sls and {path}/init.sls were looked for in the file roots")),
        }
    }
}

/// The SLS that an include means: `.x` stands beside the including SLS, each further dot one level up.
pub(super) fn absolute(include: &str, sls: &str, is_init: bool) -> Option<String> {
    let rest = include.trim_start_matches('.');
    let levels = include.len() - rest.len();
    if levels == 0 {
        return Some(include.to_owned());
    }
    let mut parts: Vec<&str> = sls.split('.').collect();
    if is_init {
        parts.push("init");
    }
    let keep = parts.len().checked_sub(levels)?;
    parts.truncate(keep);
    parts.push(rest);
    Some(parts.join("."))
}

#[cfg(test)]
mod tests {
    use super::absolute;

    #[test]
    fn relative_includes() {
        for (include, sls, is_init, want) in [
            ("a.b", "x", false, Some("a.b")),
            (".b", "x.a", false, Some("x.b")),
            (".b", "x", true, Some("x.b")),
            ("..b", "x.y.a", false, Some("x.b")),
            (".b", "x", false, Some("b")),
            ("..b", "x", false, None),
        ] {
            assert_eq!(absolute(include, sls, is_init).as_deref(), want, "{include} in {sls}");
        }
    }
}
