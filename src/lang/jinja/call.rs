//! Calling: arguments, macros, modules that an import leaves, `salt`, and the global functions.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use minijinja::value::{Kwargs, Object, ObjectRepr};
use minijinja::{Error, State, Value};

use super::print::name_of;
use super::python::{self, quote};
use super::run::{self, Run};
use super::taint::Taint;
use super::value::{
    Builtin, BuiltinKind, Dict, Done, Flavour, Holes, List, Series, SeriesKind, Tuple, Undefined, View, defined, fail, from_plain,
    to_plain, undefined_error, view,
};
use crate::lang::function::Undefined as Takes;
use crate::value as plain;

/// Arguments as Python sees them.
#[derive(Default)]
pub struct Args {
    pub positional: Vec<Value>,
    pub named: Vec<(String, Value)>,
}

impl Args {
    pub fn new(args: &[Value]) -> Args {
        match args.split_last() {
            Some((last, rest)) if last.is_kwargs() => {
                let pairs = last.as_object().and_then(|o| o.try_iter_pairs()).into_iter().flatten();
                let named = pairs.map(|(k, v)| (name_of(k.as_str().unwrap_or("")), v)).collect();
                Args { positional: rest.to_vec(), named }
            }
            _ => Args { positional: args.to_vec(), named: Vec::new() },
        }
    }

    /// Back into the engine's form.
    pub fn pack(self) -> Vec<Value> {
        let mut all = self.positional;
        if !self.named.is_empty() {
            all.push(Value::from(self.named.into_iter().map(|(k, v)| (super::print::ident(&k), v)).collect::<Kwargs>()));
        }
        all
    }

    /// Sorts the arguments to the parameters of `function`, of which the first `required` must be given.
    pub fn bind<const N: usize>(self, function: &str, names: [&str; N], required: usize) -> Result<[Option<Value>; N], Error> {
        let mut slots: [Option<Value>; N] = std::array::from_fn(|_| None);
        if self.positional.len() > N {
            let given = self.positional.len();
            let plural = if N == 1 { "" } else { "s" };
            return Err(fail(format!("{function}() takes {N} positional argument{plural} but {given} were given")));
        }
        for (slot, value) in slots.iter_mut().zip(self.positional) {
            *slot = Some(value);
        }
        for (name, value) in self.named {
            let Some(slot) = names.iter().position(|n| *n == name).and_then(|i| slots.get_mut(i)) else {
                return Err(fail(format!("{function}() got an unexpected keyword argument '{name}'")));
            };
            if slot.replace(value).is_some() {
                return Err(fail(format!("{function}() got multiple values for argument '{name}'")));
            }
        }
        if let Some(i) = slots.iter().take(required).position(Option::is_none) {
            let name = names.get(i).copied().unwrap_or("");
            return Err(fail(format!("{function}() missing 1 required positional argument: '{name}'")));
        }
        Ok(slots)
    }
}

/// Calls whatever can be called.
pub fn invoke(state: &mut State, callee: &Value, args: &[Value]) -> Done {
    match view(callee) {
        View::Undefined(Some(u)) => Err(u.error()),
        View::Undefined(None) => Err(undefined_error("the function is undefined")),
        View::Other => callee.call(state, args),
        _ => Err(fail(format!("'{}' object is not callable", python::type_name(callee)))),
    }
}

/// `value.name(args)`
pub fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Done {
    if super::method::exists(value, name) {
        let args = Args::new(args);
        // The methods of containers hand on what is in them.
        let taint = value.as_str().and_then(|_| Taint::of(value, &args));
        let made = super::method::call(value, name, args)?;
        if let Some(taint) = taint {
            taint.made(&made);
        }
        return Ok(made);
    }
    if is_loop(value) {
        match name {
            "cycle" if args.is_empty() => return Err(fail("no items for cycling given")),
            "cycle" => return value.call_method(state, name, args),
            // The engine would compare whatever it is without end.
            "changed" => {
                let shown = |arg: &Value| if arg.as_object().is_some() { Value::from(python::repr(arg)) } else { arg.clone() };
                let args: Vec<Value> = args.iter().map(shown).collect();
                return value.call_method(state, name, &args);
            }
            _ => {}
        }
    }
    if value.downcast_object_ref::<Cycler>().is_some() && matches!(name, "next" | "reset") {
        return value.call_method(state, name, args);
    }
    let callee = super::operate::attribute(value, name)?;
    invoke(state, &callee, args)
}

pub fn is_loop(value: &Value) -> bool {
    matches!(view(value), View::Other)
        && value.get_attr("index0").is_ok_and(|v| !v.is_undefined())
        && value.get_attr("revindex0").is_ok_and(|v| !v.is_undefined())
}

/// A macro and how its arguments are bound.
pub struct Macro {
    pub name: String,
    inner: Value,
    parameters: Vec<String>,
    /// How many of the last parameters have defaults.
    defaults: usize,
    varargs: bool,
    kwargs: bool,
    caller: bool,
}

/// Stands for an argument that was not given and has a default.
struct Missing;

impl fmt::Debug for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<missing>")
    }
}

impl Object for Missing {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
}

pub fn is_missing(value: &Value) -> bool {
    value.downcast_object_ref::<Missing>().is_some()
}

impl Macro {
    /// `args` are what the rewritten `macro` statement gives: the name, how many defaults, the special names, the parameters.
    pub fn value(inner: &Value, args: &[Value]) -> Value {
        let text = |i: usize| args.get(i).and_then(|v| v.as_str()).unwrap_or("");
        let special = text(2);
        Value::from_object(Macro {
            name: text(0).to_owned(),
            inner: inner.clone(),
            defaults: args.get(1).and_then(Value::as_usize).unwrap_or(0),
            varargs: special.contains("varargs"),
            kwargs: special.contains("kwargs"),
            caller: special.contains("caller"),
            parameters: args.iter().skip(3).filter_map(|v| v.as_str().map(str::to_owned)).collect(),
        })
    }

    fn bind(&self, args: Args) -> Result<Vec<Value>, Error> {
        let Args { mut positional, mut named } = args;
        let count = self.parameters.len();
        let mut take = |name: &str| named.iter().position(|(n, _)| n == name).map(|i| named.remove(i).1);
        let extra = if positional.len() > count { positional.split_off(count) } else { Vec::new() };
        let mut values = positional;
        for (i, name) in self.parameters.iter().enumerate().skip(values.len()) {
            values.push(match take(name) {
                Some(value) => value,
                None if i >= count - self.defaults.min(count) => Value::from_object(Missing),
                None => Undefined::value(format!("parameter {} was not provided", quote(name))),
            });
        }
        let is_parameter = |name: &str| self.parameters.iter().any(|p| p == name);
        let caller = if self.caller && !is_parameter("caller") { take("caller") } else { None };
        if !self.kwargs
            && let Some((name, _)) = named.first()
        {
            return Err(fail(if name == "caller" {
                format!("macro {} was invoked with a caller but makes no use of one", quote(&self.name))
            } else {
                format!("macro {} takes no keyword argument {}", quote(&self.name), quote(name))
            }));
        }
        if !self.varargs && !extra.is_empty() {
            return Err(fail(format!("macro {} takes not more than {count} argument(s)", quote(&self.name))));
        }
        if !is_parameter("varargs") {
            values.push(Tuple::value(extra));
        }
        if !is_parameter("kwargs") {
            values.push(Dict::value(named.into_iter().map(|(k, v)| (Value::from(k), v))));
        }
        if !is_parameter("caller") {
            values.push(caller.unwrap_or_else(|| Undefined::value("No caller defined")));
        }
        Ok(values)
    }
}

impl fmt::Debug for Macro {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Macro {}>", quote(&self.name))
    }
}

impl Object for Macro {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Done {
        let values = self.bind(Args::new(args))?;
        // What it includes prints into the macro's text, not where the output stands.
        let run = run::current(state)?;
        run.quiet.fetch_add(1, Ordering::Relaxed);
        let result = self.inner.call(state, &values);
        run.quiet.fetch_sub(1, Ordering::Relaxed);
        result
    }
    fn is_true(self: &Arc<Self>) -> bool {
        true
    }
}

/// What `import` gives: names and the text the template printed.
pub struct Module {
    pub name: String,
    pub text: String,
    names: Vec<(String, Value)>,
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<TemplateModule {}>", quote(&self.name))
    }
}

impl Module {
    /// From the engine's own module, whose names carry our prefix.
    pub fn value(name: &str, native: &Value) -> Value {
        let mut names = Vec::new();
        for key in native.try_iter().into_iter().flatten() {
            let (Some(ident), Ok(value)) = (key.as_str(), native.get_item(&key)) else { continue };
            let own = ident.strip_prefix("v_").is_some_and(|n| !n.starts_with('_'));
            let hidden = matches!(view(&value), View::Undefined(_)) || matches!(ident, "v_tplfile" | "v_tpldir" | "v_tpldot");
            if own && !hidden {
                names.push((name_of(ident), value));
            }
        }
        Value::from_object(Module { name: name.to_owned(), text: native.to_string(), names })
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|(name, _)| name.as_str())
    }

    pub fn get(&self, name: &str) -> Option<Value> {
        self.names.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone())
    }
}

impl Object for Module {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
    fn is_true(self: &Arc<Self>) -> bool {
        true
    }
    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// `namespace()`: the one thing whose attributes can be set.
pub struct Namespace(pub Dict);

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<Namespace>")
    }
}

impl Object for Namespace {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
    fn is_true(self: &Arc<Self>) -> bool {
        true
    }
    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Namespace {}>", python::repr(&Dict::value(self.0.items())))
    }
}

pub fn set_attribute(value: &Value, name: &str, new: &Value) -> Done {
    match value.downcast_object_ref::<Namespace>() {
        Some(namespace) => {
            namespace.0.insert(Value::from(name), new.clone());
            Ok(Value::from(""))
        }
        None => {
            defined(value)?;
            Err(fail("cannot assign attribute on non-namespace object"))
        }
    }
}

/// `cycler(…)` and `joiner(…)`: their state is a position.
struct Cycler {
    items: Vec<Value>,
    position: AtomicUsize,
    joiner: bool,
}

impl Cycler {
    fn current(&self) -> Value {
        let at = self.position.load(Ordering::Relaxed) % self.items.len().max(1);
        self.items.get(at).cloned().unwrap_or_default()
    }
}

impl fmt::Debug for Cycler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.joiner { "<Joiner>" } else { "<Cycler>" })
    }
}

impl Object for Cycler {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
    fn is_true(self: &Arc<Self>) -> bool {
        true
    }
    fn call(self: &Arc<Self>, _state: &mut State<'_, '_>, _args: &[Value]) -> Done {
        if !self.joiner {
            return Err(fail("'Cycler' object is not callable"));
        }
        let first = self.position.fetch_add(1, Ordering::Relaxed) == 0;
        Ok(if first { Value::from("") } else { self.items.first().cloned().unwrap_or_default() })
    }
    fn call_method(self: &Arc<Self>, _state: &mut State<'_, '_>, name: &str, _args: &[Value]) -> Done {
        match name {
            "next" if !self.joiner => {
                let value = self.current();
                self.position.fetch_add(1, Ordering::Relaxed);
                Ok(value)
            }
            "reset" if !self.joiner => {
                self.position.store(0, Ordering::Relaxed);
                Ok(Value::from(()))
            }
            _ => Err(undefined_error(format!("'{self:?}' has no attribute {}", quote(name)))),
        }
    }
}

/// The type of a value that is none of Python's own.
pub fn type_name(value: &Value) -> &'static str {
    if value.downcast_object_ref::<Macro>().is_some() {
        "Macro"
    } else if value.downcast_object_ref::<Module>().is_some() {
        "TemplateModule"
    } else if value.downcast_object_ref::<Namespace>().is_some() {
        "Namespace"
    } else if let Some(cycler) = value.downcast_object_ref::<Cycler>() {
        if cycler.joiner { "Joiner" } else { "Cycler" }
    } else if is_loop(value) {
        "LoopContext"
    } else {
        "object"
    }
}

/// Attributes of everything that is not plain data.
pub fn attribute(value: &Value, name: &str) -> Option<Done> {
    let View::Other = view(value) else { return None };
    if let Some(builtin) = value.downcast_object_ref::<Builtin>() {
        return match &builtin.kind {
            BuiltinKind::Salt => Some(Ok(Builtin::value(format!("<module '{name}'>"), BuiltinKind::Module(name.to_owned())))),
            BuiltinKind::Module(module) => Some(Ok(execution(&format!("{module}.{name}")))),
            _ => None,
        };
    }
    if let Some(module) = value.downcast_object_ref::<Module>() {
        return Some(Ok(module
            .get(name)
            .unwrap_or_else(|| Undefined::value(format!("module {} has no attribute {}", quote(&module.name), quote(name))))));
    }
    if let Some(namespace) = value.downcast_object_ref::<Namespace>() {
        return namespace.0.get_str(name).map(Ok);
    }
    if let Some(makro) = value.downcast_object_ref::<Macro>() {
        return match name {
            "name" => Some(Ok(Value::from(makro.name.clone()))),
            "arguments" => Some(Ok(Tuple::value(makro.parameters.iter().map(|p| Value::from(p.as_str())).collect()))),
            "caller" => Some(Ok(Value::from(makro.caller))),
            "catch_varargs" => Some(Ok(Value::from(makro.varargs))),
            "catch_kwargs" => Some(Ok(Value::from(makro.kwargs))),
            _ => None,
        };
    }
    if let Some(cycler) = value.downcast_object_ref::<Cycler>() {
        return match name {
            "current" if !cycler.joiner => Some(Ok(cycler.current())),
            "next" | "reset" if !cycler.joiner => {
                Some(Ok(Builtin::value(format!("<bound method Cycler.{name}>"), BuiltinKind::Method(value.clone(), name.to_owned()))))
            }
            _ => None,
        };
    }
    if is_loop(value) {
        let missing = match name {
            "previtem" => Some("there is no previous item"),
            "nextitem" => Some("there is no next item"),
            _ => None,
        };
        return match value.get_attr(name) {
            Ok(found) if !found.is_undefined() => Some(Ok(found)),
            _ => missing.map(|m| Ok(Undefined::value(m))),
        };
    }
    None
}

/// Items by name of what is not plain data: `salt['pillar.get']`.
pub fn item(value: &Value, name: &str) -> Option<Done> {
    let View::Other = view(value) else { return None };
    match value.downcast_object_ref::<Builtin>().map(|b| &b.kind) {
        Some(BuiltinKind::Salt) if name.contains('.') => Some(Ok(execution(name))),
        _ => None,
    }
}

pub fn contains(container: &Value, item: &Value) -> Option<Result<bool, Error>> {
    if let Some(BuiltinKind::Salt) = container.downcast_object_ref::<Builtin>().map(|b| &b.kind) {
        return Some(Ok(item.as_str().is_some_and(crate::lang::function::exists)));
    }
    container.downcast_object_ref::<Namespace>().map(|n| Ok(n.0.contains(item)))
}

fn execution(name: &str) -> Value {
    Builtin::value(format!("<function {name}>"), BuiltinKind::Execution(name.to_owned()))
}

pub fn builtin(state: &mut State, callee: &Builtin, args: &[Value]) -> Done {
    match &callee.kind {
        BuiltinKind::Method(value, name) => method(state, value, name, args),
        BuiltinKind::Function(function) => {
            let Args { positional, named } = Args::new(args);
            function(state, positional, named)
        }
        BuiltinKind::Execution(name) => {
            let run = run::current(state)?;
            let args = Args::new(args);
            let taint = Taint::of(&Value::UNDEFINED, &args);
            let made = execute(&run, name, args)?;
            if let Some(taint) = taint {
                taint.made(&made);
            }
            Ok(made)
        }
        BuiltinKind::Module(name) => Err(fail(format!("'{name}' is an execution module; call one of its functions"))),
        BuiltinKind::Salt => Err(fail("'salt' cannot be called; call one of its functions: salt['pillar.get']('…')")),
    }
}

/// An execution function: a pure one here, any other by way of the host.
fn execute(run: &Run, name: &str, args: Args) -> Done {
    let first = args.positional.first().or_else(|| args.named.iter().find(|(n, _)| n == "dest").map(|(_, v)| v)).cloned();
    let holes = Holes::default();
    let undefined = crate::lang::function::undefined(name);
    let out = |first: bool, value: &Value| match undefined {
        Takes::Refused => to_plain(value),
        Takes::Default if !first => holes.out(value),
        Takes::Inside | Takes::Default => defined(value).and_then(|()| holes.out(value)),
    };
    let positional = args.positional.iter().enumerate().map(|(at, value)| out(at == 0, value)).collect::<Result<Vec<_>, _>>()?;
    let mut named = plain::Map::new();
    for (key, value) in &args.named {
        named.insert(key.as_str(), out(key == "key", value)?);
    }
    let result = match crate::lang::function::call(&run.site(), name, &positional, &named) {
        Some(result) => result,
        None => run.context.host.call(name, &positional, &named),
    };
    let result = result.map_err(|diagnostic| run::raise(*diagnostic))?;
    // Some functions change the dict they are given.
    if crate::lang::function::changes_first(name, &positional, &named)
        && let Some(first) = first
        && let (View::Dict(dict), plain::Value::Map(map)) = (view(&first), &result)
    {
        dict.clear();
        for (k, v) in map {
            dict.insert(from_plain(k), holes.back(v));
        }
        return Ok(first);
    }
    match (crate::lang::function::scale_of(name, &result), view(&holes.back(&result))) {
        (Some(scale), View::Dict(dict)) => Ok(Value::from_object(Dict::new(dict.items(), Flavour::Roles(scale)))),
        _ => Ok(holes.back(&result)),
    }
}

/// The global functions, by name.
pub fn globals() -> Vec<(&'static str, Value)> {
    let function =
        |name: &'static str, f: super::value::Native| (name, Builtin::value(format!("<function {name}>"), BuiltinKind::Function(f)));
    vec![
        function("range", range),
        function("dict", |_, p, n| make_dict(p, n, Flavour::Plain)),
        function("odict", |_, p, n| make_dict(p, n, Flavour::Ordered)),
        function("namespace", |_, p, n| {
            let dict = make_dict(p, n, Flavour::Plain)?;
            let View::Dict(dict) = view(&dict) else { return Err(fail("namespace() takes a mapping")) };
            Ok(Value::from_object(Namespace(Dict::new(dict.items(), Flavour::Plain))))
        }),
        function("cycler", |_, items, _| {
            if items.is_empty() {
                return Err(fail("at least one item has to be provided"));
            }
            Ok(Value::from_object(Cycler { items, position: AtomicUsize::new(0), joiner: false }))
        }),
        function("joiner", |_, p, n| {
            let [sep] = Args { positional: p, named: n }.bind("joiner", ["sep"], 0)?;
            Ok(Value::from_object(Cycler {
                items: vec![sep.unwrap_or_else(|| Value::from(", "))],
                position: AtomicUsize::new(0),
                joiner: true,
            }))
        }),
        function("raise", |_, p, n| {
            let [message] = Args { positional: p, named: n }.bind("raise", ["msg"], 1)?;
            Err(fail(python::text(&message.unwrap_or_default())))
        }),
        function("lipsum", |_, _, _| Ok(Value::from("Lorem ipsum dolor sit amet, consectetur adipiscing elit."))),
        function("show_full_context", |state, _, _| {
            let run = run::current(state)?;
            Ok(Dict::value(run.names().into_iter().map(|(k, v)| (Value::from(k), v))))
        }),
        ("salt", Builtin::value("<salt.loader.lazy.LazyLoader>", BuiltinKind::Salt)),
        ("__salt__", Builtin::value("<salt.loader.lazy.LazyLoader>", BuiltinKind::Salt)),
    ]
}

fn range(_: &mut State<'_, '_>, positional: Vec<Value>, named: Vec<(String, Value)>) -> Done {
    if !named.is_empty() {
        return Err(fail("range() takes no keyword arguments"));
    }
    let mut numbers = Vec::new();
    for value in &positional {
        let number = python::as_int(value).and_then(|i| i64::try_from(i).ok());
        numbers.push(number.ok_or_else(|| fail(format!("'{}' object cannot be interpreted as an integer", python::type_name(value))))?);
    }
    let (start, stop, step) = match numbers.as_slice() {
        [stop] => (0, *stop, 1),
        [start, stop] => (*start, *stop, 1),
        [start, stop, step] => (*start, *stop, *step),
        _ => return Err(fail(format!("range expected 1 to 3 arguments, got {}", numbers.len()))),
    };
    if step == 0 {
        return Err(fail("range() arg 3 must not be zero"));
    }
    let mut items = Vec::new();
    let mut at = start;
    while (step > 0 && at < stop) || (step < 0 && at > stop) {
        items.push(Value::from(at));
        if items.len() > 100_000 {
            return Err(fail("Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000)."));
        }
        match at.checked_add(step) {
            Some(next) => at = next,
            None => break,
        }
    }
    Ok(Value::from_object(Series { items, kind: SeriesKind::Range(start, stop, step) }))
}

fn make_dict(positional: Vec<Value>, named: Vec<(String, Value)>, flavour: Flavour) -> Done {
    let mut pairs = Vec::new();
    if positional.len() > 1 {
        return Err(fail(format!("dict expected at most 1 argument, got {}", positional.len())));
    }
    if let Some(from) = positional.first() {
        pairs = pairs_of(from)?;
    }
    pairs.extend(named.into_iter().map(|(k, v)| (Value::from(k), v)));
    Ok(Value::from_object(Dict::new(pairs, flavour)))
}

/// What `dict(x)` and `.update(x)` take: a mapping, or pairs.
pub fn pairs_of(value: &Value) -> Result<Vec<(Value, Value)>, Error> {
    defined(value)?;
    if let View::Dict(dict) = view(value) {
        return Ok(dict.items());
    }
    if let Some(namespace) = value.downcast_object_ref::<Namespace>() {
        return Ok(namespace.0.items());
    }
    let mut pairs = Vec::new();
    for (i, pair) in python::iterate(value)?.iter().enumerate() {
        let pair =
            python::iterate(pair).map_err(|_| fail(format!("cannot convert dictionary update sequence element #{i} to a sequence")))?;
        match pair.as_slice() {
            [key, value] => {
                python::hashable(key)?;
                pairs.push((key.clone(), value.clone()));
            }
            other => {
                let length = other.len();
                return Err(fail(format!("dictionary update sequence element #{i} has length {length}; 2 is required")));
            }
        }
    }
    Ok(pairs)
}

/// Modules imported without context, kept for the length of one rendering.
#[derive(Default)]
pub struct Kept(Mutex<Vec<(String, Value)>>);

impl Kept {
    pub fn get(&self, name: &str) -> Option<Value> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().find(|(n, _)| n == name).map(|(_, v)| v.clone())
    }
    pub fn put(&self, name: &str, module: &Value) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((name.to_owned(), module.clone()));
    }
}

/// Lists become arguments (`f(*list)`).
pub fn star(value: &Value) -> Done {
    defined(value)?;
    Ok(List::value(python::iterate(value)?))
}

/// A mapping becomes named arguments (`f(**dict)`).
pub fn double_star(value: &Value) -> Done {
    let mut named = Vec::new();
    for (key, value) in pairs_of(value)? {
        let Some(name) = key.as_str() else { return Err(fail("keywords must be strings")) };
        named.push((Value::from(super::print::ident(name)), value));
    }
    Ok(Value::from_pairs(named))
}
