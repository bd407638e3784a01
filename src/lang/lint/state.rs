//! Rules on single states: functions, arguments and their values, each with its own place.

use super::super::high::is_requisite;
use super::super::renderer::{Origin, Rendered};
use super::super::source::{salt_url, texts};
use super::{Kind, Lint, known};
use crate::diagnostic::{Code, Diagnostic, Span, nearest};
use crate::function::{self, ArgKind};
use crate::value::{Pairs, Value};
use crate::yaml::{Data, Node, Place};

/// A state as it stands in an SLS.
pub struct State<'a> {
    pub id: String,
    /// It stands below `extend`.
    pub extends: bool,
    pub module: String,
    /// Empty where none is named, as below `extend`.
    pub fun: String,
    pub place: Place,
    pub args: Vec<Arg<'a>>,
}

pub struct Arg<'a> {
    pub name: String,
    pub place: Place,
    pub value: &'a Node,
}

impl State<'_> {
    pub fn function(&self) -> String {
        format!("{}.{}", self.module, self.fun)
    }

    pub fn arg(&self, name: &str) -> Option<&Arg<'_>> {
        self.args.iter().find(|arg| arg.name == name)
    }

    /// The names it is carried out for: `names`, `name`, or the id.
    pub fn names(&self) -> Vec<String> {
        if let Some(Data::List(items)) = self.arg("names").map(|arg| &arg.value.data) {
            return items
                .iter()
                .filter_map(|item| match &item.data {
                    Data::Map(entries) => Some(entries.first()?.0.to_text()),
                    _ => Some(item.to_value().to_text()),
                })
                .collect();
        }
        match self.arg("name").map(|arg| arg.value.to_value()) {
            Some(Value::Str(name)) => vec![name],
            _ => vec![self.id.clone()],
        }
    }
}

type Entries = Pairs<Value, (Place, Node)>;

/// The states of an SLS, those below `extend` too.
pub fn states(node: &Node) -> Vec<State<'_>> {
    let mut out = Vec::new();
    if let Data::Map(entries) = &node.data {
        ids(entries, false, &mut out);
        if let Some((_, Node { data: Data::Map(extended), .. })) = entries.get(&Value::str("extend")) {
            ids(extended, true, &mut out);
        }
    }
    out
}

fn ids<'a>(entries: &'a Entries, extends: bool, out: &mut Vec<State<'a>>) {
    for (key, (_, body)) in entries {
        let id = key.to_text();
        if !extends && matches!(id.as_str(), "include" | "extend" | "exclude") || id.starts_with("__") {
            continue;
        }
        let state = |module: &str, fun: &str, place: Place, args| State {
            id: id.clone(),
            extends,
            module: module.to_owned(),
            fun: fun.to_owned(),
            place,
            args,
        };
        match &body.data {
            Data::Scalar(Value::Str(short)) => {
                if let Some((module, fun)) = short.split_once('.') {
                    out.push(state(module, fun, body.place, Vec::new()));
                }
            }
            Data::Map(states) => {
                for (key, (place, value)) in states {
                    let (key, items) = match (key.as_str(), &value.data) {
                        (Some(key), Data::List(items)) => (key, items.as_slice()),
                        (Some(key), Data::Scalar(Value::Null)) => (key, &[][..]),
                        _ => continue,
                    };
                    let (module, mut fun) = key.split_once('.').unwrap_or((key, ""));
                    let mut place = *place;
                    let mut args = Vec::new();
                    for item in items {
                        match &item.data {
                            Data::Scalar(Value::Str(name)) if fun.is_empty() => (fun, place) = (name, item.place),
                            Data::Map(pairs) => {
                                args.extend(pairs.iter().map(|(name, (place, value))| Arg { name: name.to_text(), place: *place, value }))
                            }
                            _ => {}
                        }
                    }
                    if !module.starts_with("__") {
                        out.push(state(module, fun, place, args));
                    }
                }
            }
            _ => {}
        }
    }
}

/// Whether what was rendered can be an SLS of states: some entry is like one, or there is nothing but includes.
pub fn looks_like_states(node: &Node) -> bool {
    let Data::Map(entries) = &node.data else { return true };
    let of_states = |(key, (_, body)): (&Value, &(Place, Node))| match &body.data {
        _ if matches!(key.as_str(), Some("include" | "extend" | "exclude")) => true,
        Data::Scalar(Value::Str(short)) => {
            short.contains('.') && !short.contains([' ', '/', ':']) && known::has_module(short.split('.').next().unwrap_or(""))
        }
        Data::Map(states) => states.iter().any(|(key, (_, value))| {
            let key = key.as_str().unwrap_or("");
            let module = key.split('.').next().unwrap_or("");
            let reacts = matches!(module, "local" | "runner" | "wheel" | "caller");
            !reacts
                && (matches!(value.data, Data::List(_)) && (key.contains('.') || known::has_module(module))
                    || key.contains('.') && known::has_module(module))
        }),
        _ => false,
    };
    // A top file under another name.
    let targets = |(_, (_, body)): (&Value, &(Place, Node))| matches!(&body.data, Data::Map(below) if below.contains_key(&Value::str("*")));
    !entries.iter().any(targets) && (entries.is_empty() || entries.iter().any(of_states))
}

impl Lint<'_> {
    pub(super) fn states(&mut self) {
        for index in 0..self.sls.len() {
            if self.sls.get(index).is_some_and(|sls| sls.kind == Kind::States) {
                for rendered in self.rendered(index) {
                    self.sls_states(index, &rendered);
                }
            }
        }
    }

    fn sls_states(&mut self, index: usize, rendered: &Rendered) {
        let env = self.sls.get(index).map(|sls| sls.env.clone()).unwrap_or_default();
        for state in states(&rendered.node) {
            if self.function(&state, &rendered.origin) {
                self.arguments(&state, &rendered.origin);
                self.values(&state, &rendered.origin);
                self.sources(&state, &env, &rendered.origin);
            }
        }
    }

    /// Whether the function is one that is known.
    fn function(&mut self, state: &State, origin: &Origin) -> bool {
        if state.fun.is_empty() {
            return state.extends;
        }
        let (name, span) = (state.function(), origin.span(state.place));
        let salts = known::salts(&name).is_some();
        let ours = function::find(&name).is_some();
        if ours || salts {
            self.found.look("unknown-state", &span, None);
            let missing = (!ours).then(|| {
                Diagnostic::new(Code::Compile, format!("basalt does not have {name} yet"))
                    .at(span.clone())
                    .hint("`basalt doc` lists what there is; a host that gets this state cannot be planned")
            });
            self.found.look("unsupported-state", &span, missing);
            return true;
        }
        let custom = self
            .compiler
            .roots
            .names()
            .any(|env| self.compiler.roots.read(env, &format!("_states/{}.py", state.module)).is_ok_and(|file| file.is_some()));
        if custom {
            let found =
                Diagnostic::new(Code::Compile, format!("{name} is Python of this tree: _states/{}.py", state.module)).at(span.clone());
            self.found.look("custom-module", &span, Some(found.hint("basalt runs no Python; use functions that `basalt doc` lists")));
            return false;
        }
        let near = if known::has_module(&state.module) {
            let own = known::functions().filter(|known| known.split_once('.').is_some_and(|(module, _)| module == state.module));
            nearest(&name, own)
        } else if known::is_extension(&state.module) {
            None
        } else {
            nearest(&name, known::functions())
        };
        let error = Diagnostic::new(Code::Compile, format!("there is no state {name}")).at(span.clone());
        match near {
            Some(near) => self.found.look("unknown-state", &span, Some(error.hint(format!("did you mean {near}?")))),
            None if known::has_module(&state.module) => {
                let siblings: Vec<&str> =
                    known::functions().filter(|n| n.split_once('.').is_some_and(|(m, _)| m == state.module)).take(12).collect();
                self.found.look("unknown-state", &span, Some(error.hint(format!("there are {}", siblings.join(", ")))));
            }
            None => {
                let found = Diagnostic::new(Code::Compile, format!("neither basalt nor Salt's core has {name}")).at(span.clone());
                self.found.look("unsupported-state", &span, Some(found.hint("is it a module of yours, or of an extension of Salt?")));
            }
        }
        false
    }

    fn arguments(&mut self, state: &State, origin: &Origin) {
        let name = state.function();
        let (entry, salts) = (function::find(&name), known::salts(&name));
        if state.fun.is_empty() || (entry.is_none() && salts.is_none()) {
            return;
        }
        // Arguments of what is called stand among those of the state.
        let calls = matches!(state.module.as_str(), "module" | "salt") || matches!(name.as_str(), "test.configurable_test_state");
        for arg in &state.args {
            let span = origin.span(arg.place);
            let argument = arg.name.as_str();
            let ours = entry.is_some_and(|entry| entry.args.iter().any(|a| a.name == argument));
            let theirs = salts.is_some_and(|known| known.args.contains(&argument));
            if ours || (theirs && entry.is_none()) || known::of_all().any(|known| known == argument) || argument.starts_with("__") || calls
            {
                self.found.look("unknown-argument", &span, None);
                continue;
            }
            if theirs {
                self.found.look("unknown-argument", &span, None);
                let found = Diagnostic::new(Code::Compile, format!("basalt's {name} has no argument {argument}, which Salt's has"))
                    .at(span.clone());
                self.found.look("unsupported-argument", &span, Some(found));
                continue;
            }
            let own: Vec<&str> = entry
                .into_iter()
                .flat_map(|entry| entry.args.iter().map(|a| a.name))
                .chain(salts.into_iter().flat_map(|known| known.args.iter().copied()))
                .collect();
            let near = known::meant(argument)
                .filter(|meant| own.contains(meant))
                .or_else(|| nearest(argument, own))
                .or_else(|| nearest(argument, known::of_all()));
            // Salt takes any argument where it does not know better; only one that is nearly another is surely wrong there.
            let any = salts.is_some_and(|known| known.any);
            let error = Diagnostic::new(Code::Compile, format!("{name} has no argument {argument}")).at(span.clone());
            let error = match near {
                Some(near) => error.hint(format!("did you mean {near}?")),
                None => error.hint(format!("`basalt doc {name}` lists its arguments; variables of a template belong below `context`")),
            };
            match near {
                None if any => {
                    self.found.look("unknown-argument", &span, None);
                    self.found.look("unsupported-argument", &span, Some(error).filter(|_| entry.is_some()));
                }
                _ => self.found.look("unknown-argument", &span, Some(error)),
            }
        }
    }

    fn values(&mut self, state: &State, origin: &Origin) {
        let name = state.function();
        let entry = function::find(&name);
        for arg in &state.args {
            let (span, value) = (origin.span(arg.value.place), arg.value.to_value());
            let at = |summary: String| Diagnostic::new(Code::Compile, summary).at(span.clone());
            let argument = arg.name.as_str();
            if let Some(known) = entry.and_then(|entry| entry.args.iter().find(|a| a.name == argument)) {
                let quoted_false = known.kind == ArgKind::Bool && is_false_text(&value);
                let wrong = function::args::wrong_kind(known, &value).filter(|_| !quoted_false);
                let found = wrong
                    .map(|wanted| at(format!("argument {argument} of {name} is to be {wanted}, found {}", function::args::found(&value))));
                self.found.look("wrong-type", &span, found);
            }
            if known::is_truth(&name, argument) {
                let found = is_false_text(&value).then(|| {
                    at(format!("{argument} is the text {:?}, which Python takes for true", value.to_text()))
                        .hint(format!("write `{argument}: False`"))
                });
                self.found.look("quoted-false", &span, found);
            }
            if state.module == "file" && matches!(argument, "mode" | "dir_mode" | "file_mode") {
                self.mode(argument, &value, &span, origin, arg.value.place);
            }
            if argument == "order" {
                let fine = match &value {
                    Value::Int(_) | Value::Float(_) => true,
                    Value::Str(word) => word == "first" || word == "last",
                    _ => false,
                };
                let found = (!fine).then(|| {
                    at(format!("Salt ignores the order {}", function::args::found(&value)))
                        .hint("it is a number without quotes, `first` or `last`")
                });
                self.found.look("bad-order", &span, found);
            }
            if matches!(argument, "watch" | "watch_any") && known::salts(&name).is_some() {
                let found = (!known::reacts(&state.module)).then(|| {
                    Diagnostic::new(Code::Compile, format!("{name} does not react to what it watches"))
                        .at(origin.span(arg.place))
                        .hint(format!("watch means require here: write `{}`", argument.replace("watch", "require")))
                });
                self.found.look("watch-ignored", &origin.span(arg.place), found);
            }
        }
        if name == "file.managed" && !state.extends {
            self.contents(state, origin);
        }
    }

    fn mode(&mut self, argument: &str, value: &Value, span: &Span, origin: &Origin, place: Place) {
        let Value::Int(number) = value else { return };
        let octal = match number {
            420 => Some("0644"),
            436 => Some("0664"),
            416 => Some("0640"),
            493 => Some("0755"),
            509 => Some("0775"),
            488 => Some("0750"),
            384 => Some("0600"),
            448 => Some("0700"),
            511 => Some("0777"),
            _ => None,
        };
        let odd = octal.map(|octal| {
            Diagnostic::new(Code::Compile, format!("{argument} {number} is what {octal} is in decimal; here it is the mode {number:0>4}"))
                .at(span.clone())
                .hint(format!("write '{octal}'"))
        });
        self.found.look("odd-mode", span, odd);
        let written = origin.text_at(place);
        let digits: String = written.chars().take_while(char::is_ascii_digit).collect();
        let found = (digits.len() > 3 && digits.starts_with('0') && octal.is_none()).then(|| {
            let others = i64::from_str_radix(&digits, 8).map(|n| format!(", {n} to other readers of YAML")).unwrap_or_default();
            Diagnostic::new(Code::Compile, format!("{argument} {digits} without quotes is the number {number} to Salt{others}"))
                .at(span.clone())
                .hint(format!("write '{digits}'"))
        });
        self.found.look("unquoted-mode", span, found);
    }

    fn contents(&mut self, state: &State, origin: &Origin) {
        let given = ["source", "contents", "contents_pillar", "contents_grains", "use", "names", "replace", "create", "check_cmd"];
        let span = origin.span(state.place);
        let found = (!state.args.iter().any(|arg| given.contains(&arg.name.as_str()))).then(|| {
            Diagnostic::new(Code::Compile, "file.managed has neither source nor contents")
                .at(span.clone())
                .hint("`contents: ''` makes an empty file; `replace: False` leaves what is there and manages mode and owner")
        });
        self.found.look("no-contents", &span, found);
    }

    /// Sources below `salt://`. Of a list the first that is there counts.
    fn sources(&mut self, state: &State, env: &str, origin: &Origin) {
        let name = state.function();
        if !matches!(state.module.as_str(), "file" | "cmd" | "archive" | "pkg") {
            return;
        }
        for arg in state.args.iter().filter(|arg| matches!(arg.name.as_str(), "source" | "sources" | "source_hash")) {
            let value = arg.value.to_value();
            let span = origin.span(arg.value.place);
            if arg.name == "sources" || !matches!(value, Value::Str(_) | Value::List(_)) {
                continue;
            }
            let sources = texts(&value);
            let places: Vec<_> = sources.iter().filter_map(|source| salt_url(source, env)).collect();
            if places.len() < sources.len() || places.is_empty() {
                continue;
            }
            let directory = matches!(name.as_str(), "file.recurse");
            let roots = &self.compiler.roots;
            let there = |env: &str, path: &str| {
                if !directory {
                    return roots.read(env, path).is_ok_and(|file| file.is_some());
                }
                let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
                roots.paths(env).is_ok_and(|paths| paths.iter().any(|path| path.starts_with(&prefix)))
                    || roots.empty_directories(env, &prefix).is_ok_and(|found| !found.is_empty())
            };
            let found = (!places.iter().any(|place| there(&place.env, &place.path))).then(|| {
                let what = if directory { "directory" } else { "file" };
                let wanted = places.first().map(|place| place.path.clone()).unwrap_or_default();
                let summary = match places.len() {
                    1 => format!("there is no {what} salt://{wanted}"),
                    n => format!("none of these {n} sources is there: salt://{wanted} …"),
                };
                let paths = roots.paths(env).unwrap_or_default();
                let error = Diagnostic::new(Code::Compile, summary).at(span.clone());
                match nearest(&wanted, paths.iter().map(String::as_str)) {
                    Some(near) => error.hint(format!("did you mean salt://{near}?")),
                    None => error.hint("paths of sources start at the file roots"),
                }
            });
            self.found.look("missing-source", &span, found);
        }
    }
}

fn is_false_text(value: &Value) -> bool {
    value.as_str().is_some_and(|text| matches!(text.to_ascii_lowercase().as_str(), "false" | "no" | "off"))
}

/// The requisites of a state: the argument, and each item with its place.
pub fn requisites<'a>(state: &'a State<'a>) -> Vec<(&'a Arg<'a>, Requisite)> {
    let mut out = Vec::new();
    for arg in &state.args {
        let of_others = arg.name.ends_with("_in") || arg.name == "use";
        if !(is_requisite(&arg.name) && arg.name != "onfail_stop" || of_others) {
            continue;
        }
        let Data::List(items) = &arg.value.data else { continue };
        for item in items {
            let found = match &item.data {
                Data::Scalar(Value::Str(bare)) => Some((None, bare.clone(), item.place)),
                Data::Map(pairs) if pairs.len() == 1 => pairs.first().and_then(|(module, (place, value))| match &value.data {
                    Data::Scalar(Value::Str(wanted)) => Some((Some(module.to_text()), wanted.clone(), *place)),
                    _ => None,
                }),
                _ => None,
            };
            out.extend(found.map(|(module, wanted, place)| (arg, Requisite { module, wanted, place })));
        }
    }
    out
}

pub struct Requisite {
    /// Nothing for a bare name.
    pub module: Option<String>,
    pub wanted: String,
    pub place: Place,
}
