//! Values as templates hold them: lists and dicts that can be changed through any name, tuples, undefined values that say why, and
//! the way between them and [`crate::value::Value`]. Numbers, strings, booleans and None are the engine's own.
//!
//! A lock is never held while other code runs: whoever iterates takes a copy first.

use std::cell::RefCell;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, PoisonError, RwLock};

use indexmap::IndexMap;
use minijinja::value::{Enumerator, Object, ObjectRepr, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

use super::python;
use crate::budget;
use crate::value as plain;

pub type Done = Result<Value, Error>;

/// An error with Python's words.
pub fn fail(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// The use of something that is not there.
pub fn undefined_error(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::UndefinedError, message.into())
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// A value that is not there, and why. Every use of it but a few (`is defined`, `default`, assignment) is an error, unless it is lax:
/// what an inline `if` without `else` gives.
#[derive(Debug)]
pub struct Undefined {
    pub message: String,
    /// The mapping that has no such key.
    pub of: Option<(Value, String)>,
    pub lax: bool,
}

impl Undefined {
    pub fn value(message: impl Into<String>) -> Value {
        Value::from_object(Undefined { message: message.into(), of: None, lax: false })
    }

    /// A key that a mapping does not have. What is near it is looked for only when somebody minds.
    pub fn key(of: &Value, name: &str, message: impl Into<String>) -> Value {
        Value::from_object(Undefined { message: message.into(), of: Some((of.clone(), name.to_owned())), lax: false })
    }

    pub fn lax() -> Value {
        Value::from_object(Undefined {
            message: "the inline if-expression has no value: its condition is false and it has no else".into(),
            of: None,
            lax: true,
        })
    }

    pub fn error(&self) -> Error {
        match self.of.as_ref().map(|(of, name)| (view(of), name)) {
            Some((View::Dict(dict), name)) => undefined_error(super::hint::no_key(dict, name, &self.message)),
            _ => undefined_error(self.message.clone()),
        }
    }
}

impl Object for Undefined {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
    fn is_true(self: &Arc<Self>) -> bool {
        false
    }
    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.lax { "" } else { "Undefined" })
    }
}

thread_local! {
    /// Values on their way out, while a container falls apart on this thread.
    static FALLING: RefCell<Option<Vec<Value>>> = const { RefCell::new(None) };
}

/// Drops what a container held. One by one: a value may be nested deeper than the stack is.
fn release(mut held: Vec<Value>) {
    held.retain(|value| value.as_object().is_some());
    if held.is_empty() {
        return;
    }
    let first = FALLING.try_with(|falling| match &mut *falling.borrow_mut() {
        Some(queue) => {
            queue.append(&mut held);
            false
        }
        none => {
            *none = Some(std::mem::take(&mut held));
            true
        }
    });
    if first != Ok(true) {
        return;
    }
    loop {
        let next = FALLING.try_with(|falling| falling.borrow_mut().as_mut().and_then(Vec::pop)).ok().flatten();
        match next {
            Some(value) => drop(value),
            None => break,
        }
    }
    let _ = FALLING.try_with(|falling| falling.borrow_mut().take());
}

#[derive(Default)]
pub struct List(RwLock<Vec<Value>>);

impl List {
    pub fn value(items: Vec<Value>) -> Value {
        Value::from_object(List(RwLock::new(items)))
    }
    pub fn items(&self) -> Vec<Value> {
        read(&self.0).clone()
    }
    pub fn len(&self) -> usize {
        read(&self.0).len()
    }
    pub fn get(&self, index: usize) -> Option<Value> {
        read(&self.0).get(index).cloned()
    }
    /// Changes the list; `change` must not touch other values' locks.
    pub fn edit<T>(&self, change: impl FnOnce(&mut Vec<Value>) -> T) -> T {
        change(&mut write(&self.0))
    }
}

impl Drop for List {
    fn drop(&mut self) {
        release(std::mem::take(&mut *write(&self.0)));
    }
}

impl fmt::Debug for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<list>")
    }
}

impl Object for List {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get(key.as_usize()?)
    }
    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.len())
    }
    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&python::repr(&Value::from_dyn_object(self.clone())))
    }
}

pub struct Tuple(pub Vec<Value>);

impl Tuple {
    pub fn value(items: Vec<Value>) -> Value {
        Value::from_object(Tuple(items))
    }
}

impl Drop for Tuple {
    fn drop(&mut self) {
        release(std::mem::take(&mut self.0));
    }
}

impl fmt::Debug for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<tuple>")
    }
}

impl Object for Tuple {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.get(key.as_usize()?).cloned()
    }
    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.0.len())
    }
    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&python::repr(&Value::from_dyn_object(self.clone())))
    }
}

/// A dict's key: equal and hashed as Python does it (`1`, `1.0` and `True` are one key).
#[derive(Clone)]
pub struct Key(pub Value);

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        python::equal(&self.0, &other.0)
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        python::hash(&self.0, state);
    }
}

/// Looks a string key up without making a value of it.
struct Name<'a>(&'a str);

impl Hash for Name<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        python::hash_str(self.0, state);
    }
}

impl indexmap::Equivalent<Key> for Name<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        key.0.as_str() == Some(self.0)
    }
}

/// A value of pillar or grains is made only when a template touches it.
enum Slot {
    Ready(Value),
    Later(Arc<plain::Map>, usize),
}

impl Slot {
    fn get(&mut self) -> Value {
        match self {
            Slot::Ready(value) => value.clone(),
            Slot::Later(map, index) => {
                let value = map.0.get_index(*index).map_or_else(|| Value::from(()), |(_, v)| from_plain(v));
                *self = Slot::Ready(value.clone());
                value
            }
        }
    }
}

/// How a dict prints and dumps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    Plain,
    /// An OrderedDict: `|yaml` keeps its order.
    Ordered,
    /// pillar, grains, opts as Salt hands them out: a proxy of a dict.
    Proxy,
    /// The roles of a cluster's nodes, which is of this scale: `roles.scale`, and no item.
    Roles(&'static str),
}

pub struct Dict {
    entries: RwLock<IndexMap<Key, Slot>>,
    pub flavour: Flavour,
}

impl Drop for Dict {
    fn drop(&mut self) {
        let slots = std::mem::take(&mut *write(&self.entries)).into_iter();
        let held = slots.flat_map(|(key, slot)| [Some(key.0), if let Slot::Ready(value) = slot { Some(value) } else { None }]);
        release(held.flatten().collect());
    }
}

impl fmt::Debug for Dict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<dict>")
    }
}

impl Dict {
    pub fn new(entries: impl IntoIterator<Item = (Value, Value)>, flavour: Flavour) -> Dict {
        let entries = entries.into_iter().map(|(k, v)| (Key(k), Slot::Ready(v))).collect();
        Dict { entries: RwLock::new(entries), flavour }
    }

    pub fn value(entries: impl IntoIterator<Item = (Value, Value)>) -> Value {
        Value::from_object(Dict::new(entries, Flavour::Plain))
    }

    /// A map of the host whose values are made when they are asked for.
    pub fn lazy(map: &Arc<plain::Map>, flavour: Flavour) -> Dict {
        let entries = map.0.keys().enumerate().map(|(i, k)| (Key(from_plain(k)), Slot::Later(map.clone(), i))).collect();
        Dict { entries: RwLock::new(entries), flavour }
    }

    pub fn get(&self, key: &Value) -> Option<Value> {
        if let Some(Slot::Ready(value)) = read(&self.entries).get(&Key(key.clone())) {
            return Some(value.clone());
        }
        write(&self.entries).get_mut(&Key(key.clone())).map(Slot::get)
    }

    pub fn get_str(&self, key: &str) -> Option<Value> {
        if let Some(Slot::Ready(value)) = read(&self.entries).get(&Name(key)) {
            return Some(value.clone());
        }
        write(&self.entries).get_mut(&Name(key)).map(Slot::get)
    }

    pub fn contains(&self, key: &Value) -> bool {
        read(&self.entries).contains_key(&Key(key.clone()))
    }

    pub fn len(&self) -> usize {
        read(&self.entries).len()
    }

    pub fn keys(&self) -> Vec<Value> {
        read(&self.entries).keys().map(|k| k.0.clone()).collect()
    }

    pub fn items(&self) -> Vec<(Value, Value)> {
        write(&self.entries).iter_mut().map(|(k, v)| (k.0.clone(), v.get())).collect()
    }

    pub fn insert(&self, key: Value, value: Value) {
        write(&self.entries).insert(Key(key), Slot::Ready(value));
    }

    pub fn remove(&self, key: &Value) -> Option<Value> {
        write(&self.entries).shift_remove(&Key(key.clone())).map(|mut slot| slot.get())
    }

    pub fn pop_last(&self) -> Option<(Value, Value)> {
        write(&self.entries).pop().map(|(k, mut v)| (k.0, v.get()))
    }

    pub fn clear(&self) {
        write(&self.entries).clear();
    }
}

impl Object for Dict {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get(key)
    }
    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.keys())
    }
    fn is_true(self: &Arc<Self>) -> bool {
        self.len() > 0
    }
    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&python::repr(&Value::from_dyn_object(self.clone())))
    }
}

/// A sequence that is neither list nor tuple, with the name Python prints it by: `dict_keys([…])`, a generator, a range.
pub struct Series {
    pub items: Vec<Value>,
    pub kind: SeriesKind,
}

#[derive(Clone, Debug, PartialEq)]
pub enum SeriesKind {
    /// `dict_keys`, `dict_values`, `dict_items`
    View(&'static str),
    Range(i64, i64, i64),
    /// What `map`, `select` and their like give; it has no length in Python.
    Generator,
}

impl Series {
    pub fn view(name: &'static str, items: Vec<Value>) -> Value {
        Value::from_object(Series { items, kind: SeriesKind::View(name) })
    }
    pub fn generator(items: Vec<Value>) -> Value {
        Value::from_object(Series { items, kind: SeriesKind::Generator })
    }
}

impl Drop for Series {
    fn drop(&mut self) {
        release(std::mem::take(&mut self.items));
    }
}

impl fmt::Debug for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<series>")
    }
}

impl Object for Series {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.items.get(key.as_usize()?).cloned()
    }
    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.items.len())
    }
    fn is_true(self: &Arc<Self>) -> bool {
        !self.items.is_empty() || self.kind == SeriesKind::Generator
    }
    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&python::repr(&Value::from_dyn_object(self.clone())))
    }
}

pub type Native = fn(&mut State<'_, '_>, Vec<Value>, Vec<(String, Value)>) -> Done;

/// Anything a template can call or ask that is built in: a bound method, a function, the `salt` object.
pub struct Builtin {
    /// As Python prints it.
    pub shown: String,
    pub kind: BuiltinKind,
}

pub enum BuiltinKind {
    /// A method taken off its value without being called.
    Method(Value, String),
    /// A global function.
    Function(Native),
    /// `salt['a.b']`
    Execution(String),
    /// `salt.a`
    Module(String),
    /// `salt`
    Salt,
}

impl fmt::Debug for Builtin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Builtin {
    pub fn value(shown: impl Into<String>, kind: BuiltinKind) -> Value {
        Value::from_object(Builtin { shown: shown.into(), kind })
    }
}

impl Object for Builtin {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Done {
        super::call::builtin(state, self, args)
    }
    fn is_true(self: &Arc<Self>) -> bool {
        true
    }
    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// What a value is, for code that decides by it.
pub enum View<'a> {
    Undefined(Option<&'a Undefined>),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(&'a str),
    List(&'a List),
    Tuple(&'a Tuple),
    Dict(&'a Dict),
    Series(&'a Series),
    Other,
}

pub fn view(value: &Value) -> View<'_> {
    match value.kind() {
        ValueKind::Undefined => View::Undefined(None),
        ValueKind::None => View::None,
        ValueKind::Bool => View::Bool(value.is_true()),
        ValueKind::Number if value.is_integer() => View::Int(i128::try_from(value.clone()).unwrap_or(i128::MAX)),
        ValueKind::Number => View::Float(f64::try_from(value.clone()).unwrap_or(f64::NAN)),
        ValueKind::String | ValueKind::Bytes => View::Str(value.as_str().unwrap_or("")),
        ValueKind::Map => match value.downcast_object_ref::<Dict>() {
            Some(dict) => View::Dict(dict),
            None => View::Other,
        },
        ValueKind::Seq => {
            if let Some(list) = value.downcast_object_ref::<List>() {
                View::List(list)
            } else if let Some(tuple) = value.downcast_object_ref::<Tuple>() {
                View::Tuple(tuple)
            } else if let Some(series) = value.downcast_object_ref::<Series>() {
                View::Series(series)
            } else {
                View::Other
            }
        }
        _ => match value.downcast_object_ref::<Undefined>() {
            Some(undefined) => View::Undefined(Some(undefined)),
            None => View::Other,
        },
    }
}

pub fn is_undefined(value: &Value) -> bool {
    matches!(view(value), View::Undefined(_))
}

/// The value, or the error of using one that is not there. A lax one passes.
pub fn defined(value: &Value) -> Result<(), Error> {
    match view(value) {
        View::Undefined(None) => Err(undefined_error("the value is undefined")),
        View::Undefined(Some(undefined)) if !undefined.lax => Err(undefined.error()),
        _ => Ok(()),
    }
}

pub fn from_plain(value: &plain::Value) -> Value {
    match value {
        plain::Value::Null => Value::from(()),
        plain::Value::Bool(b) => Value::from(*b),
        plain::Value::Int(i) => Value::from(*i),
        plain::Value::Float(f) => Value::from(*f),
        plain::Value::Str(s) => Value::from(s.as_str()),
        plain::Value::List(items) => List::value(items.iter().map(from_plain).collect()),
        plain::Value::Map(map) => from_map(map),
    }
}

pub fn from_map(map: &plain::Map) -> Value {
    Dict::value(map.iter().map(|(k, v)| (key_from_plain(k), from_plain(v))))
}

fn key_from_plain(key: &plain::Value) -> Value {
    match key {
        // A list cannot be a key; YAML's sequence keys are tuples in Salt.
        plain::Value::List(items) => Tuple::value(items.iter().map(key_from_plain).collect()),
        other => from_plain(other),
    }
}

/// Out of the templates' world. What has no plain form (functions, undefined values) is an error; cycles too.
pub fn to_plain(value: &Value) -> Result<plain::Value, Error> {
    to_plain_at(value, 0, None)
}

/// Undefined values that went out of the templates' world and come back into it.
#[derive(Default)]
pub struct Holes(RefCell<Vec<Value>>);

/// What stands for an undefined value outside, with its number behind it.
const HOLE: &str = "\u{f8ff}undefined\u{f8ff}";

impl Holes {
    /// Out of the templates' world, with undefined values kept.
    pub fn out(&self, value: &Value) -> Result<plain::Value, Error> {
        to_plain_at(value, 0, Some(self))
    }

    /// Back into it.
    pub fn back(&self, value: &plain::Value) -> Value {
        if self.0.borrow().is_empty() {
            return from_plain(value);
        }
        match value {
            plain::Value::Str(text) => {
                let number = text.strip_prefix(HOLE).and_then(|number| number.parse::<usize>().ok());
                number.and_then(|number| self.0.borrow().get(number).cloned()).unwrap_or_else(|| from_plain(value))
            }
            plain::Value::List(items) => List::value(items.iter().map(|item| self.back(item)).collect()),
            plain::Value::Map(map) => Dict::value(map.iter().map(|(k, v)| (key_from_plain(k), self.back(v)))),
            other => from_plain(other),
        }
    }

    fn keep(&self, value: &Value) -> plain::Value {
        let mut kept = self.0.borrow_mut();
        kept.push(value.clone());
        plain::Value::Str(format!("{HOLE}{}", kept.len() - 1))
    }
}

fn to_plain_at(value: &Value, depth: usize, holes: Option<&Holes>) -> Result<plain::Value, Error> {
    budget::work(1);
    budget::check().map_err(|e| fail(e.text()))?;
    if depth > python::DEEPEST {
        return Err(fail("maximum recursion depth exceeded"));
    }
    let all =
        |items: Vec<Value>| items.iter().map(|v| to_plain_at(v, depth + 1, holes)).collect::<Result<Vec<_>, _>>().map(plain::Value::List);
    Ok(match view(value) {
        View::Undefined(Some(u)) if u.lax => plain::Value::Str(String::new()),
        View::Undefined(_) => match holes {
            Some(holes) => holes.keep(value),
            None => {
                defined(value)?;
                plain::Value::Null
            }
        },
        View::None => plain::Value::Null,
        View::Bool(b) => plain::Value::Bool(b),
        View::Int(i) => i64::try_from(i).map_or_else(|_| plain::Value::Float(i as f64), plain::Value::Int),
        View::Float(f) => plain::Value::Float(f),
        View::Str(s) => plain::Value::Str(s.to_owned()),
        View::List(l) => all(l.items())?,
        View::Tuple(t) => all(t.0.clone())?,
        View::Series(s) => all(s.items.clone())?,
        View::Dict(d) => {
            let mut map = plain::Map::new();
            for (k, v) in d.items() {
                map.0.insert(to_plain_at(&k, depth + 1, None)?, to_plain_at(&v, depth + 1, holes)?);
            }
            plain::Value::Map(map)
        }
        View::Other => plain::Value::Str(python::text(value)),
    })
}
