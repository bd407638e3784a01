//! The engine below: minijinja's environment with our filters in it, its loader, and its errors turned into diagnostics.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use minijinja::value::{Enumerator, Object, ObjectRepr, Rest, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, UndefinedBehavior, Value};

use super::call::{self, Args, Macro, Module};
use super::print::Table;
use super::rewrite::{Mode, Place, header, rewrite};
use super::scan::{Mistake, Options};
use super::value::{Done, List, Tuple, Undefined, View, defined, fail, is_undefined, view};
use super::{Limits, Source, Templates, filter, hint, operate, python, run, taint, test};
use crate::budget;
use crate::diagnostic::{Code, Diagnostic, Span};

/// What is known of every template the engine has loaded, by the engine's name for it.
pub struct Sources {
    templates: Arc<dyn Templates>,
    given: Mutex<HashMap<String, Given>>,
    loaded: Mutex<HashMap<String, Arc<Loaded>>>,
}

struct Given {
    source: Source,
    tplfile: String,
    tpldir: String,
    options: Options,
}

struct Loaded {
    source: Source,
    table: Table,
    /// Names that it binds.
    names: Vec<String>,
    /// A header that was cut out before scanning: from where, how long.
    cut: std::ops::Range<usize>,
}

impl Loaded {
    /// A place in the source from an offset in the printed one.
    fn span(&self, printed: usize) -> Span {
        let index = self.table.partition_point(|(at, _)| *at as usize <= printed);
        let offset = index.checked_sub(1).and_then(|i| self.table.get(i)).map_or(0, |(_, offset)| *offset as usize);
        self.span_at(offset)
    }

    fn span_at(&self, offset: usize) -> Span {
        let offset = if offset >= self.cut.start { offset + self.cut.len() } else { offset };
        let text = self.source.text.replace("\r\n", "\n");
        let mut end = offset.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let before = text.get(..end).unwrap_or("");
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        Span::new(self.source.file.clone(), line as u32, column as u32)
    }
}

impl Loaded {
    /// What to do about an error in this template.
    fn hint(&self, error: &Diagnostic) -> Option<String> {
        let line = error.span.as_ref().and_then(|span| self.source.text.lines().nth(span.line.checked_sub(1)? as usize)).unwrap_or("");
        let roots = super::print::ROOT_NAMES.into_iter().filter(|name| !name.starts_with('_'));
        hint::of(&error.summary, line, self.names.iter().map(String::as_str).chain(roots.map(|name| -> &str { name })))
    }
}

impl Sources {
    pub fn new(templates: Arc<dyn Templates>) -> Sources {
        Sources { templates, given: Mutex::default(), loaded: Mutex::default() }
    }

    /// Takes a template that came as text; gives the engine's name for it, and the options it and its imports are read with.
    pub fn give(&self, hash: u64, name: &str, text: &str, place: &Place, options: Options) -> (Arc<str>, Options) {
        let key = format!("given:{hash:x}");
        let source = Source { file: name.into(), text: text.into() };
        let given = Given { source, tplfile: place.tplfile.to_owned(), tpldir: place.tpldir.to_owned(), options };
        self.given.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), given);
        (key.into(), header(text, options).0)
    }

    /// The file behind an engine's name.
    pub fn source(&self, name: &str) -> Source {
        self.loaded(name).map_or_else(|| Source { file: name.into(), text: "".into() }, |l| l.source.clone())
    }

    fn loaded(&self, name: &str) -> Option<Arc<Loaded>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The printed source of a template: `given:HASH`, or `whole:ENV:PATH`, or `alone:ENV:PATH`, or `nothing`. Options stand behind the
    /// first word: `whole+trim+lstrip:ENV:PATH`.
    fn load(&self, name: &str) -> Result<Option<String>, Error> {
        if name == "nothing" {
            return Ok(Some(String::new()));
        }
        let mut options;
        let mut cut = None;
        let (source, tplfile, tpldir, mode) = if name.starts_with("given:") {
            let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(given) = given.get(name) else { return Ok(None) };
            (options, cut) = header(&given.source.text, given.options);
            (given.source.clone(), given.tplfile.clone(), given.tpldir.clone(), Mode::Whole)
        } else {
            let mut parts = name.splitn(3, ':');
            let (Some(mode), Some(saltenv), Some(path)) = (parts.next(), parts.next(), parts.next()) else { return Ok(None) };
            let mut words = mode.split('+');
            let mode = words.next().unwrap_or("");
            options = Options::default();
            words.for_each(|word| match word {
                "trim" => options.trim_blocks = true,
                _ => options.lstrip_blocks = true,
            });
            let mut path = path.split(WRITTEN);
            let (path, importer, written) = (path.next().unwrap_or(""), path.next(), path.next());
            let Some(source) = self.templates.read(saltenv, path) else { return Ok(None) };
            let own = path.rsplit_once('/').map_or(".", |(dir, _)| dir);
            let (tplfile, tpldir) = (written.unwrap_or(path).to_owned(), importer.unwrap_or(own).to_owned());
            (source, tplfile, tpldir, if mode == "alone" { Mode::Alone } else { Mode::Whole })
        };
        let cut = cut.unwrap_or(0..0);
        let text = match (source.text.get(..cut.start), source.text.get(cut.end..)) {
            (Some(before), Some(after)) if !cut.is_empty() => format!("{before}{after}"),
            _ => source.text.to_string(),
        };
        let place = Place { tplfile: &tplfile, tpldir: &tpldir };
        match rewrite(&text, &place, mode, options) {
            Ok(rewritten) => {
                let loaded = Arc::new(Loaded { source, table: rewritten.table, names: rewritten.names, cut });
                self.loaded.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), loaded);
                Ok(Some(rewritten.source))
            }
            Err(Mistake { offset, message }) => {
                let loaded = Loaded { source, table: Table::new(), names: Vec::new(), cut };
                let span = loaded.span_at(offset);
                let mut error = Diagnostic::new(Code::Template, message).at(span).excerpt_of(&loaded.source.text);
                error.hint = loaded.hint(&error);
                Err(run::raise(error))
            }
        }
    }

    /// An error of the engine as the user should see it: what, and where in which template.
    pub fn diagnose(&self, error: &Error) -> Diagnostic {
        // The innermost error of the engine knows the place, the innermost of all the cause.
        let mut innermost = error;
        let mut outer = Vec::new();
        let mut carried = None;
        let mut next = std::error::Error::source(error);
        while let Some(cause) = next {
            if let Some(inner) = cause.downcast_ref::<Error>() {
                outer.push(innermost);
                innermost = inner;
            } else if let Some(diagnostic) = cause.downcast_ref::<run::Carried>() {
                carried = Some(diagnostic.0.clone());
            }
            next = cause.source();
        }
        let place = |error: &Error| -> Option<(Span, Arc<Loaded>)> {
            let loaded = self.loaded(error.name()?)?;
            let span = match error.range() {
                Some(range) => loaded.span(range.start),
                None => Span::new(loaded.source.file.clone(), error.line()? as u32, 0),
            };
            Some((span, loaded))
        };
        let mut diagnostic = carried.unwrap_or_else(|| {
            let (summary, hint) = hint::split(&message(innermost));
            Diagnostic { hint, ..Diagnostic::new(Code::Template, summary) }
        });
        let mut places = std::iter::once(innermost).chain(outer.into_iter().rev()).filter_map(place);
        if diagnostic.span.is_none()
            && let Some((span, loaded)) = places.next()
        {
            diagnostic = diagnostic.at(span).excerpt_of(&loaded.source.text);
            diagnostic.hint = diagnostic.hint.take().or_else(|| loaded.hint(&diagnostic));
        }
        for (span, _) in places {
            if diagnostic.span.as_ref() != Some(&span) {
                diagnostic = diagnostic.related(span, "included or imported here");
            }
        }
        diagnostic
    }
}

fn message(error: &Error) -> String {
    match error.kind() {
        ErrorKind::SyntaxError if error.detail().is_some_and(|d| d.contains("maximum recursion")) => "blocks are nested too deeply".into(),
        ErrorKind::OutOfFuel => "the template takes too many steps; does a loop or a macro not end?".into(),
        ErrorKind::InvalidOperation | ErrorKind::UndefinedError | ErrorKind::TemplateNotFound => match error.detail() {
            Some("recursion limit exceeded") => "maximum recursion depth exceeded: macros, includes or loops are nested too deeply".into(),
            Some(detail) => detail.to_owned(),
            None => error.kind().to_string(),
        },
        _ => error.detail().map_or_else(|| error.kind().to_string(), |d| format!("{}: {d}", error.kind())),
    }
}

/// A sequence that a loop walks over while its body may change it.
struct Live {
    list: Value,
    dict: bool,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<iterator>")
    }
}

struct LiveItems {
    list: Value,
    dict: Option<Vec<Value>>,
    at: usize,
}

impl LiveItems {
    fn length(&self) -> usize {
        match view(&self.list) {
            View::List(list) => list.len(),
            View::Dict(dict) => dict.len(),
            _ => 0,
        }
    }
}

impl Iterator for LiveItems {
    type Item = Value;
    fn next(&mut self) -> Option<Value> {
        let at = self.at;
        self.at += 1;
        match (&self.dict, view(&self.list)) {
            (Some(keys), View::Dict(dict)) => {
                if dict.len() != keys.len() && at <= keys.len() {
                    self.at = keys.len() + 1;
                    return Some(Value::from(fail("dictionary changed size during iteration")));
                }
                keys.get(at).cloned()
            }
            (_, View::List(list)) => list.get(at),
            _ => None,
        }
    }
    fn size_hint(&self) -> (usize, Option<usize>) {
        let length = self.dict.as_ref().map_or_else(|| self.length(), Vec::len).saturating_sub(self.at);
        (length, Some(length))
    }
}

impl Object for Live {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }
    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let dict = match view(&self.list) {
            View::Dict(dict) if self.dict => Some(dict.keys()),
            _ => None,
        };
        Enumerator::Iter(Box::new(LiveItems { list: self.list.clone(), dict, at: 0 }))
    }
}

/// What a `for` walks over.
fn iter(value: &Value, shape: Option<&str>) -> Done {
    if let Some(shape) = shape {
        let items = python::iterate(value)?;
        return Ok(List::value(items.iter().map(|item| unpack(item, shape).unwrap_or_else(Value::from)).collect()));
    }
    match view(value) {
        View::List(_) => Ok(Value::from_object(Live { list: value.clone(), dict: false })),
        View::Dict(_) => Ok(Value::from_object(Live { list: value.clone(), dict: true })),
        View::Tuple(_) | View::Series(_) => Ok(value.clone()),
        _ => Ok(Tuple::value(python::iterate(value)?)),
    }
}

/// Takes a value apart as a tuple target wants it: `(.(..))`.
fn unpack(value: &Value, shape: &str) -> Done {
    let inner = shape.strip_prefix('(').and_then(|s| s.strip_suffix(')')).unwrap_or("");
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (i, c) in inner.char_indices() {
        match c {
            '(' => {
                if depth == 0 {
                    start = i;
                }
                depth += 1;
            }
            ')' => {
                depth -= 1;
                if depth == 0 {
                    parts.push(inner.get(start..=i).unwrap_or(""));
                }
            }
            _ if depth == 0 => parts.push("."),
            _ => {}
        }
    }
    let items = match view(value) {
        View::Undefined(_) => {
            defined(value)?;
            Vec::new()
        }
        _ => python::iterate(value).map_err(|_| fail(format!("cannot unpack non-iterable {} object", python::type_name(value))))?,
    };
    if items.len() > parts.len() {
        return Err(fail(format!("too many values to unpack (expected {})", parts.len())));
    }
    if items.len() < parts.len() {
        return Err(fail(format!("not enough values to unpack (expected {}, got {})", parts.len(), items.len())));
    }
    let items = items.iter().zip(parts).map(|(item, part)| if part == "." { Ok(item.clone()) } else { unpack(item, part) });
    Ok(Tuple::value(items.collect::<Result<_, _>>()?))
}

/// The engine's name of the template `value` names. `Err`: no such file.
fn resolve(state: &State, value: &Value, args: &[Value], include: bool) -> Done {
    let text = |i: usize| args.get(i).and_then(|v| v.as_str()).unwrap_or("");
    let (mode, dir) = (text(0), text(1));
    let ignore = args.get(2).is_some_and(Value::is_true);
    let run = run::current(state)?;
    defined(value)?;
    let names = match view(value) {
        View::Str(_) => vec![value.clone()],
        View::List(_) | View::Tuple(_) if include => python::iterate(value)?,
        _ => return Err(fail(format!("a template's name must be a string, not {}", python::type_name(value)))),
    };
    for name in &names {
        defined(name)?;
        let Some(text) = name.as_str() else { return Err(fail("a template's name must be a string")) };
        // As in Salt, a path that begins at the machine's root is none below the file roots.
        let Some(path) = absolute(text, dir).filter(|_| !text.starts_with('/')) else { continue };
        let saltenv = &run.context.saltenv;
        if run.templates.read(saltenv, &path).is_some() {
            // Salt: a template named relatively keeps the importer's tpldir, and its name as written is its tplfile.
            let written = if is_relative(text) { format!("{WRITTEN}{dir}{WRITTEN}{text}") } else { String::new() };
            let trim = if run.options.trim_blocks { "+trim" } else { "" };
            let lstrip = if run.options.lstrip_blocks { "+lstrip" } else { "" };
            return Ok(Value::from(format!("{mode}{trim}{lstrip}:{saltenv}:{path}{written}")));
        }
    }
    if ignore {
        return Ok(Value::from("nothing"));
    }
    let tried = names.iter().map(python::text).collect::<Vec<_>>();
    Err(Error::new(
        ErrorKind::TemplateNotFound,
        match tried.as_slice() {
            [one] => {
                let all = run.templates.list(&run.context.saltenv);
                let path = absolute(one, dir).unwrap_or_default();
                hint::with(format!("there is no template {one} below the file roots"), hint::near(&path, all.iter().map(String::as_str)))
            }
            _ => format!("none of the templates given were found: {}", tried.join(", ")),
        },
    ))
}

/// Stands in the engine's name of a template before the importer's directory and the name as it was written.
const WRITTEN: char = '\u{1f}';

fn is_relative(name: &str) -> bool {
    matches!(name.split('/').next(), Some("." | ".."))
}

/// A template's path below the file roots. `./` and `../` start at the directory of the importing template.
fn absolute(name: &str, dir: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    let base = if is_relative(name) { dir } else { "" };
    for part in base.split('/').chain(name.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

type Internal = fn(&mut State<'_, '_>, &Value, &[Value]) -> Done;

/// The filters that rewritten templates are made of.
const INTERNAL: &[(&str, Internal)] = &[
    ("_v", |_, value, args| Ok(if value.is_undefined() { missing(args) } else { value.clone() })),
    ("_d", |_, value, _| defined(value).map(|()| value.clone())),
    ("_t", |_, value, _| python::truth(value).map(Value::from)),
    ("_not", |_, value, _| python::truth(value).map(|t| Value::from(!t))),
    ("_lax", |_, _, _| Ok(Undefined::lax())),
    ("_list", |_, value, _| Ok(List::value(flat(value)))),
    ("_tuple", |_, value, _| Ok(Tuple::value(flat(value)))),
    ("_dict", |_, value, _| operate::dict(&flat(value))),
    ("_bigint", |_, _, _| Err(fail("the number is too large"))),
    ("_float", |_, _, _| Ok(Value::from(f64::INFINITY))),
    ("_attr", |_, value, args| operate::attribute(value, args.first().and_then(|v| v.as_str()).unwrap_or(""))),
    ("_item", |_, value, args| operate::item(value, arg(args, 0))),
    ("_slice", |_, value, args| taint::made(&[value], operate::slice(value, arg(args, 0), arg(args, 1), arg(args, 2)))),
    ("_add", |_, value, args| operate::add(value, arg(args, 0))),
    ("_sub", |_, value, args| operate::subtract(value, arg(args, 0))),
    ("_mul", |_, value, args| operate::multiply(value, arg(args, 0))),
    ("_div", |_, value, args| operate::divide(value, arg(args, 0))),
    ("_floordiv", |_, value, args| operate::floor_divide(value, arg(args, 0))),
    ("_mod", |_, value, args| taint::made(&[value, arg(args, 0)], operate::modulo(value, arg(args, 0)))),
    ("_pow", |_, value, args| operate::power(value, arg(args, 0))),
    ("_neg", |_, value, _| operate::sign(value, true)),
    ("_pos", |_, value, _| operate::sign(value, false)),
    ("_concat", |_, value, args| {
        let parts: Vec<Value> = std::iter::once(value).chain(args).cloned().collect();
        operate::concat(&parts)
    }),
    ("_eq", |_, value, args| operate::compare("==", value, arg(args, 0)).map(Value::from)),
    ("_ne", |_, value, args| operate::compare("!=", value, arg(args, 0)).map(Value::from)),
    ("_in", |_, value, args| operate::compare("in", value, arg(args, 0)).map(Value::from)),
    ("_not_in", |_, value, args| operate::compare("not in", value, arg(args, 0)).map(Value::from)),
    ("_compare", |_, value, args| {
        let mut left = value;
        for pair in args.chunks_exact(2) {
            let [op, right] = pair else { break };
            if !operate::compare(op.as_str().unwrap_or(""), left, right)? {
                return Ok(Value::from(false));
            }
            left = right;
        }
        Ok(Value::from(true))
    }),
    ("_call", |state, value, args| match args.split_first() {
        Some((name, rest)) => call::method(state, value, name.as_str().unwrap_or(""), rest),
        None => Ok(Value::default()),
    }),
    ("_invoke", call::invoke),
    ("_star", |_, value, _| call::star(value)),
    ("_double_star", |_, value, _| call::double_star(value)),
    ("_iter", |_, value, args| iter(value, args.first().and_then(|v| v.as_str()))),
    ("_unpack", |_, value, args| unpack(value, arg(args, 0).as_str().unwrap_or(""))),
    ("_do", |_, _, _| Ok(Value::from(""))),
    ("_set_attr", |_, value, args| call::set_attribute(value, arg(args, 0).as_str().unwrap_or(""), arg(args, 1))),
    ("_missing", |_, value, _| Ok(Value::from(call::is_missing(value)))),
    ("_macro", |_, value, args| Ok(Macro::value(value, args))),
    ("_root", |state, value, _| {
        let name = value.as_str().unwrap_or("");
        Ok(run::current(state)?.name(name).or_else(|| global(name)).unwrap_or_else(|| missing(std::slice::from_ref(value))))
    }),
    ("_at", |state, value, args| {
        let run = run::current(state)?;
        run.at(state.name(), value.as_usize().unwrap_or(0), args.is_empty());
        Ok(Value::from(""))
    }),
    ("_resolve", |state, value, args| resolve(state, value, args, false)),
    ("_include", |state, value, args| resolve(state, value, args, true)),
    ("_kept", |state, value, _| Ok(run::current(state)?.kept.get(value.as_str().unwrap_or("")).unwrap_or(Value::from(false)))),
    ("_keep", |state, value, args| {
        let name = arg(args, 0).as_str().unwrap_or("");
        let module = Module::value(path_of(name), value);
        run::current(state)?.kept.put(name, &module);
        Ok(module)
    }),
    ("_module", |_, value, _| Ok(Module::value("", value))),
    ("_export", |_, value, args| {
        let name = arg(args, 0).as_str().unwrap_or("");
        let module = value.downcast_object_ref::<Module>().ok_or_else(|| fail("this is no imported template"))?;
        Ok(module.get(name).unwrap_or_else(|| {
            let file = python::quote(&python::text(arg(args, 1)));
            let message = format!("the template {file} does not export the requested name {}", python::quote(name));
            Undefined::value(hint::with(message, hint::near(name, module.names())))
        }))
    }),
    ("_parse", |_, value, args| {
        let text = match value.downcast_object_ref::<Module>() {
            Some(module) => module.text.clone(),
            None => python::text(value),
        };
        taint::made(&[&Value::from(text.as_str())], filter::parse(arg(args, 0).as_str().unwrap_or(""), &text))
    }),
    ("_no_filter", |_, _, args| Err(fail(format!("No filter named {}.", python::quote(arg(args, 0).as_str().unwrap_or("")))))),
    ("_no_test", |_, _, args| Err(fail(format!("No test named {}.", python::quote(arg(args, 0).as_str().unwrap_or("")))))),
];

fn path_of(name: &str) -> &str {
    let path = name.splitn(3, ':').nth(2).unwrap_or(name);
    path.split(WRITTEN).next().unwrap_or(path)
}

fn missing(args: &[Value]) -> Value {
    Undefined::value(format!("{} is undefined", python::quote(args.first().and_then(|v| v.as_str()).unwrap_or(""))))
}

fn global(name: &str) -> Option<Value> {
    call::globals().into_iter().find(|(n, _)| *n == name).map(|(_, v)| v)
}

fn arg(args: &[Value], index: usize) -> &Value {
    args.get(index).unwrap_or(&Value::UNDEFINED)
}

/// The items of a list that the engine built.
fn flat(value: &Value) -> Vec<Value> {
    value.try_iter().map(Iterator::collect).unwrap_or_default()
}

/// What one operation after the other takes together has its limits.
fn within() -> Result<(), Error> {
    budget::done().map_err(|e| fail(e.text()))
}

pub fn environment(sources: &Arc<Sources>, limits: &Limits) -> Environment<'static> {
    let mut env = Environment::empty();
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    env.set_fuel(Some(limits.fuel));
    env.set_recursion_limit(limits.recursion);
    let mut syntax = minijinja::syntax::SyntaxConfig::builder();
    syntax.keep_trailing_newline(true);
    if let Ok(syntax) = syntax.build() {
        env.set_syntax(syntax);
    }
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    env.set_formatter(|out, _, value| {
        if is_undefined(value) {
            defined(value)?;
            return Ok(());
        }
        match value.as_str() {
            Some(text) => out.write_str(text)?,
            None => out.write_str(&python::printed(value)?)?,
        }
        within()
    });
    for (name, value) in call::globals() {
        env.add_global(format!("v_{name}"), value);
    }
    for (name, function) in INTERNAL {
        let function = *function;
        env.add_filter(*name, move |state: &mut State, value: Value, args: Rest<ValueOrKwargs>| {
            let args = args.into_values();
            let result = function(state, &value, &args);
            within().and(result)
        });
    }
    for (name, function) in filter::all() {
        env.add_filter(format!("f_{name}"), move |state: &mut State, value: Value, args: Rest<ValueOrKwargs>| {
            let result = filter::apply(state, name, function, &value, Args::new(&args.into_values()));
            within().and(result)
        });
    }
    for (name, function) in test::all() {
        env.add_filter(format!("t_{name}"), move |state: &mut State, value: Value, args: Rest<ValueOrKwargs>| {
            let result = function(state, &value, Args::new(&args.into_values())).map(Value::from);
            within().and(result)
        });
    }
    let sources = sources.clone();
    env.set_loader(move |name| sources.load(name));
    env
}
