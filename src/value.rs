//! Data as Salt's language knows it: what YAML holds, what templates compute with, what arguments and pillar are made of.
//!
//! A mapping keeps its order and may have keys of any kind, as Python's has; `1`, `1.0` and `True` are one key. `Attrs` is the
//! plain cousin with names only: the attributes of an object on a host.

mod pairs;

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use pairs::Pairs;

/// Attributes of an object, by name. Absent objects have none.
pub type Attrs = BTreeMap<String, Value>;

/// Attributes from pairs.
pub fn attributes(pairs: impl IntoIterator<Item = (String, Value)>) -> Attrs {
    fn gather(pairs: &mut dyn Iterator<Item = (String, Value)>) -> Attrs {
        gathered(pairs)
    }
    gather(&mut pairs.into_iter())
}

/// A set or map of these, one inserted after the other. `collect` does as much, but it sorts first: 4 kB of the agent for each kind of thing.
pub fn gathered<T, C: Default + Extend<T>>(things: impl IntoIterator<Item = T>) -> C {
    let mut all = C::default();
    all.extend(things);
    all
}

/// Sorts a handful of things by insertion, equal ones as they stand. `sort` is for more of them, and 4 kB of the agent for each kind of thing.
pub fn sort_few<T>(things: &mut [T], before: impl Fn(&T, &T) -> bool) {
    for end in 1..things.len() {
        for at in (1..=end).rev() {
            match things.get(at - 1..=at) {
                Some([one, other]) if before(other, one) => things.swap(at - 1, at),
                _ => break,
            }
        }
    }
}

/// Those of the attributes that this is true of.
pub fn those(attrs: &Attrs, wanted: impl Fn(&str, &Value) -> bool) -> Attrs {
    fn chosen(attrs: &Attrs, wanted: &dyn Fn(&str, &Value) -> bool) -> Attrs {
        let mut chosen = attrs.clone();
        chosen.retain(|name, value| wanted(name, value));
        chosen
    }
    chosen(attrs, &wanted)
}

#[derive(Clone, Debug, Default)]
pub enum Value {
    #[default]
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    List(Vec<Value>),
    Map(Map),
}

/// An ordered mapping with keys of any kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map(pub Pairs<Value, Value>);

impl Map {
    pub fn new() -> Map {
        Map::default()
    }

    /// The value under a string key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(&Name(key))
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        self.0.get_mut(&Name(key))
    }

    pub fn contains_key(&self, key: &str) -> bool {
        self.0.contains_key(&Name(key))
    }

    /// Sets a key; an existing one keeps its place. Gives the value that was there.
    pub fn insert(&mut self, key: impl Into<Value>, value: impl Into<Value>) -> Option<Value> {
        self.0.insert(key.into(), value.into())
    }

    /// Takes a string key out; the order of the others stays.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        self.0.shift_remove(&Name(key))
    }

    pub fn iter(&self) -> pairs::Iter<'_, Value, Value> {
        self.0.iter()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> IntoIterator for &'a Map {
    type Item = (&'a Value, &'a Value);
    type IntoIter = pairs::Iter<'a, Value, Value>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl IntoIterator for Map {
    type Item = (Value, Value);
    type IntoIter = std::vec::IntoIter<(Value, Value)>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<K: Into<Value>, V: Into<Value>> FromIterator<(K, V)> for Map {
    fn from_iter<T: IntoIterator<Item = (K, V)>>(pairs: T) -> Map {
        Map(pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect())
    }
}

/// Looks a string key up without allocating one.
struct Name<'a>(&'a str);

impl Hash for Name<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash_str(self.0, state);
    }
}

impl indexmap::Equivalent<Value> for Name<'_> {
    fn equivalent(&self, key: &Value) -> bool {
        matches!(key, Value::Str(s) if s == self.0)
    }
}

fn hash_str<H: Hasher>(s: &str, state: &mut H) {
    1u8.hash(state);
    s.hash(state);
}

impl Value {
    pub fn str(s: impl Into<String>) -> Value {
        Value::Str(s.into())
    }

    pub fn as_str(&self) -> Option<&str> {
        if let Value::Str(s) = self { Some(s) } else { None }
    }

    pub fn as_bool(&self) -> Option<bool> {
        if let Value::Bool(b) = self { Some(*b) } else { None }
    }

    pub fn as_int(&self) -> Option<i64> {
        if let Value::Int(i) = self { Some(*i) } else { None }
    }

    pub fn as_list(&self) -> Option<&[Value]> {
        if let Value::List(l) = self { Some(l) } else { None }
    }

    pub fn as_map(&self) -> Option<&Map> {
        if let Value::Map(m) = self { Some(m) } else { None }
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// Python's truth: empty strings and collections, zero and None are false.
    pub fn truthy(&self) -> bool {
        match self {
            Value::Null => false,
            Value::Bool(b) => *b,
            Value::Int(i) => *i != 0,
            Value::Float(f) => *f != 0.0,
            Value::Str(s) => !s.is_empty(),
            Value::List(l) => !l.is_empty(),
            Value::Map(m) => !m.is_empty(),
        }
    }

    /// What kind of value it is, in the words of an error message.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Int(_) => "a whole number",
            Value::Float(_) => "a number",
            Value::Str(_) => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// A scalar as text the way Python's `str()` writes it. Lists and mappings as JSON.
    pub fn to_text(&self) -> String {
        match self {
            Value::Null => "None".into(),
            Value::Bool(true) => "True".into(),
            Value::Bool(false) => "False".into(),
            Value::Int(i) => i.to_string(),
            Value::Float(f) => float_text(*f),
            Value::Str(s) => s.clone(),
            Value::List(_) | Value::Map(_) => serde_json::to_string(self).unwrap_or_default(),
        }
    }

    /// As a key of a JSON object, the way Python's `json.dumps` writes keys.
    pub fn json_key(&self) -> String {
        match self {
            Value::Null => "null".into(),
            Value::Bool(b) => b.to_string(),
            other => other.to_text(),
        }
    }

    /// Follows a path of keys and list indexes (`a:b:0`), as `pillar.get` and grain matching do.
    pub fn traverse<'a>(&'a self, path: &str, delimiter: &str) -> Option<&'a Value> {
        path.split(delimiter).try_fold(self, |here, part| match here {
            Value::Map(m) => m.get(part).or_else(|| m.0.get(&Value::Int(part.parse().ok()?))),
            Value::List(l) => l.get(part.parse::<usize>().ok()?),
            _ => None,
        })
    }
}

/// Python's `repr(float)`.
pub fn float_text(f: f64) -> String {
    if f.is_nan() {
        return "nan".into();
    }
    if f.is_infinite() {
        return if f > 0.0 { "inf" } else { "-inf" }.into();
    }
    if f != 0.0 && !(1e-4..1e16).contains(&f.abs()) {
        let text = format!("{f:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |d| ('-', d));
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    let text = f.to_string();
    if text.contains('.') { text } else { text + ".0" }
}

impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        use Value::*;
        match (self, other) {
            (Null, Null) => true,
            (Str(a), Str(b)) => a == b,
            (List(a), List(b)) => a == b,
            (Map(a), Map(b)) => a == b,
            _ => match (self.number(), other.number()) {
                (Some(a), Some(b)) => a == b,
                _ => false,
            },
        }
    }
}

impl Eq for Value {}

#[derive(PartialEq)]
enum Number {
    Int(i64),
    Float(f64),
}

impl Value {
    /// Booleans and whole floats count as whole numbers, so that equality and hash agree as they do in Python.
    fn number(&self) -> Option<Number> {
        match self {
            Value::Bool(b) => Some(Number::Int(i64::from(*b))),
            Value::Int(i) => Some(Number::Int(*i)),
            Value::Float(f) if f.fract() == 0.0 && f.abs() < 9.0e18 => Some(Number::Int(*f as i64)),
            Value::Float(f) => Some(Number::Float(*f)),
            _ => None,
        }
    }
}

impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Value::Null => 0u8.hash(state),
            Value::Str(s) => hash_str(s, state),
            Value::List(l) => {
                3u8.hash(state);
                l.hash(state);
            }
            Value::Map(m) => {
                4u8.hash(state);
                m.len().hash(state);
            }
            Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
                2u8.hash(state);
                match self.number() {
                    Some(Number::Int(i)) => i.hash(state),
                    Some(Number::Float(f)) => f.to_bits().hash(state),
                    None => {}
                }
            }
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

macro_rules! from {
    ($($t:ty => $e:expr),* $(,)?) => { $(impl From<$t> for Value { fn from(v: $t) -> Value { $e(v) } })* };
}

from! {
    bool => Value::Bool,
    i64 => Value::Int,
    i32 => |v| Value::Int(i64::from(v)),
    u32 => |v| Value::Int(i64::from(v)),
    f64 => Value::Float,
    String => Value::Str,
    &str => |v: &str| Value::Str(v.to_owned()),
    Vec<Value> => Value::List,
    Map => Value::Map,
    Attrs => |v: Attrs| Value::Map(v.into_iter().collect()),
    serde_json::Value => from_json,
}

fn from_json(v: serde_json::Value) -> Value {
    match v {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(b) => Value::Bool(b),
        serde_json::Value::Number(n) => n.as_i64().map_or_else(|| Value::Float(n.as_f64().unwrap_or(f64::NAN)), Value::Int),
        serde_json::Value::String(s) => Value::Str(s),
        serde_json::Value::Array(a) => Value::List(a.into_iter().map(from_json).collect()),
        serde_json::Value::Object(o) => Value::Map(o.into_iter().map(|(k, v)| (k, from_json(v))).collect()),
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Null => s.serialize_unit(),
            Value::Bool(b) => s.serialize_bool(*b),
            Value::Int(i) => s.serialize_i64(*i),
            Value::Float(f) => s.serialize_f64(*f),
            Value::Str(t) => s.serialize_str(t),
            Value::List(l) => l.serialize(s),
            Value::Map(m) => m.serialize(s),
        }
    }
}

impl Serialize for Map {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(self.len()))?;
        for (k, v) in self {
            match k {
                Value::Str(k) => map.serialize_entry(k, v)?,
                k => map.serialize_entry(&k.json_key(), v)?,
            }
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Value, D::Error> {
        d.deserialize_any(ValueVisitor)
    }
}

impl<'de> Deserialize<'de> for Map {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Map, D::Error> {
        match Value::deserialize(d)? {
            Value::Map(m) => Ok(m),
            other => Err(serde::de::Error::custom(format!("expected a mapping, found {}", other.kind()))),
        }
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        Value::deserialize(d)
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Int(v))
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(i64::try_from(v).map_or(Value::Float(v as f64), Value::Int))
    }
    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(Value::Float(v))
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::Str(v.to_owned()))
    }
    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::Str(v))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = seq.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((k, v)) = access.next_entry::<String, Value>()? {
            map.insert(k, v);
        }
        Ok(Value::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_true_and_one_point_zero_are_one_key() {
        let mut m = Map::new();
        m.insert(Value::Int(1), "a");
        m.insert(Value::Bool(true), "b");
        m.insert(Value::Float(1.0), "c");
        assert_eq!((m.len(), m.0.get(&Value::Int(1))), (1, Some(&Value::str("c"))));
    }

    #[test]
    fn a_string_key_is_found_without_allocation_and_is_not_the_number() {
        let m: Map = [("1", "text")].into_iter().collect();
        assert_eq!(m.get("1"), Some(&Value::str("text")));
        assert_eq!(m.0.get(&Value::Int(1)), None);
    }

    #[test]
    fn few_things_are_sorted_and_equal_ones_stay_in_their_order() {
        let mut things = [(2, 'a'), (1, 'a'), (2, 'b'), (0, 'a'), (1, 'b')];
        sort_few(&mut things, |one, other| one.0 < other.0);
        assert_eq!(things, [(0, 'a'), (1, 'a'), (1, 'b'), (2, 'a'), (2, 'b')]);
        sort_few(&mut things[..0], |one, other| one.0 < other.0);
    }

    #[test]
    fn json_keeps_order_and_writes_keys_as_python_does() {
        let mut m = Map::new();
        m.insert("z", 1i64);
        m.insert(Value::Bool(true), Value::Null);
        m.insert(Value::Int(7), 1.5);
        assert_eq!(serde_json::to_string(&m).unwrap(), r#"{"z":1,"true":null,"7":1.5}"#);
    }

    #[test]
    fn floats_print_as_python_prints_them() {
        for (f, text) in [(1.0, "1.0"), (0.1, "0.1"), (1e20, "1e+20"), (1e-7, "1e-07"), (1.5e300, "1.5e+300"), (1e15, "1000000000000000.0")]
        {
            assert_eq!(float_text(f), text);
        }
    }

    #[test]
    fn traverse_goes_through_maps_and_lists() {
        let v: Value = serde_json::from_str(r#"{"a": {"b": [10, {"c": 1}]}}"#).unwrap();
        assert_eq!(v.traverse("a:b:1:c", ":"), Some(&Value::Int(1)));
        assert_eq!(v.traverse("a:x", ":"), None);
    }
}
