//! The tests of `is`.

use minijinja::{Error, State, Value};

use super::call::{self, Args};
use super::operate::compare;
use super::python::{self, as_int};
use super::value::{Builtin, BuiltinKind, View, defined, fail, is_undefined, view};

type Test = fn(&mut State<'_, '_>, &Value, Args) -> Result<bool, Error>;

pub fn is_known(name: &str) -> bool {
    TESTS.iter().any(|(n, _)| *n == name)
}

pub fn all() -> impl Iterator<Item = (&'static str, Test)> {
    TESTS.iter().copied()
}

/// By name, for `select` and its like.
pub fn by_name(name: &str) -> Result<Test, Error> {
    TESTS.iter().find(|(n, _)| *n == name).map(|(_, t)| *t).ok_or_else(|| fail(format!("No test named {}.", python::quote(name))))
}

fn other(args: Args) -> Result<Value, Error> {
    let [value] = args.bind("test", ["other"], 1)?;
    Ok(value.unwrap_or_default())
}

/// `salt['some.function'] is defined` asks whether Salt has it.
fn is_defined(value: &Value) -> bool {
    match value.downcast_object_ref::<Builtin>().map(|b| &b.kind) {
        Some(BuiltinKind::Execution(name)) => crate::lang::function::exists(name),
        _ => !is_undefined(value),
    }
}

fn int(value: &Value) -> Result<i128, Error> {
    defined(value)?;
    as_int(value).ok_or_else(|| fail(format!("unsupported operand type(s) for %: '{}' and 'int'", python::type_name(value))))
}

fn cased(value: &Value, upper: bool) -> Result<bool, Error> {
    defined(value)?;
    let text = python::text(value);
    let name = if upper { "isupper" } else { "islower" };
    super::method::call(&Value::from(text), name, Args::default()).map(|v| v.is_true())
}

const TESTS: &[(&str, Test)] = &[
    ("defined", |_, v, _| Ok(is_defined(v))),
    ("undefined", |_, v, _| Ok(!is_defined(v))),
    ("none", |_, v, _| Ok(matches!(view(v), View::None))),
    ("boolean", |_, v, _| Ok(matches!(view(v), View::Bool(_)))),
    ("true", |_, v, _| Ok(matches!(view(v), View::Bool(true)))),
    ("false", |_, v, _| Ok(matches!(view(v), View::Bool(false)))),
    ("integer", |_, v, _| Ok(matches!(view(v), View::Int(_)))),
    ("float", |_, v, _| Ok(matches!(view(v), View::Float(_)))),
    ("number", |_, v, _| Ok(python::number(v).is_some())),
    ("string", |_, v, _| Ok(matches!(view(v), View::Str(_)))),
    ("mapping", |_, v, _| Ok(matches!(view(v), View::Dict(_)))),
    ("list", |_, v, _| Ok(matches!(view(v), View::List(_)))),
    ("sequence", |_, v, _| {
        let is = matches!(view(v), View::List(_) | View::Tuple(_) | View::Dict(_) | View::Str(_));
        let range = matches!(view(v), View::Series(s) if matches!(s.kind, super::value::SeriesKind::Range(..)));
        Ok(is || range)
    }),
    ("iterable", |_, v, _| {
        defined(v)?;
        Ok(python::is_iterable(v) || is_undefined(v))
    }),
    ("callable", |_, v, _| Ok(v.downcast_object_ref::<call::Macro>().is_some() || v.downcast_object_ref::<Builtin>().is_some())),
    ("odd", |_, v, _| Ok(int(v)?.rem_euclid(2) == 1)),
    ("even", |_, v, _| Ok(int(v)?.rem_euclid(2) == 0)),
    ("divisibleby", |_, v, args| {
        let by = int(&other(args)?)?;
        int(v)?.checked_rem(by).map(|r| r == 0).ok_or_else(|| fail("integer modulo by zero"))
    }),
    ("lower", |_, v, _| cased(v, false)),
    ("upper", |_, v, _| cased(v, true)),
    ("escaped", |_, _, _| Ok(false)),
    ("sameas", |_, v, args| Ok(python::same(v, &other(args)?))),
    ("in", |_, v, args| compare("in", v, &other(args)?)),
    ("eq", |_, v, args| compare("==", v, &other(args)?)),
    ("equalto", |_, v, args| compare("==", v, &other(args)?)),
    ("==", |_, v, args| compare("==", v, &other(args)?)),
    ("ne", |_, v, args| compare("!=", v, &other(args)?)),
    ("!=", |_, v, args| compare("!=", v, &other(args)?)),
    ("lt", |_, v, args| compare("<", v, &other(args)?)),
    ("lessthan", |_, v, args| compare("<", v, &other(args)?)),
    ("<", |_, v, args| compare("<", v, &other(args)?)),
    ("le", |_, v, args| compare("<=", v, &other(args)?)),
    ("<=", |_, v, args| compare("<=", v, &other(args)?)),
    ("gt", |_, v, args| compare(">", v, &other(args)?)),
    ("greaterthan", |_, v, args| compare(">", v, &other(args)?)),
    (">", |_, v, args| compare(">", v, &other(args)?)),
    ("ge", |_, v, args| compare(">=", v, &other(args)?)),
    (">=", |_, v, args| compare(">=", v, &other(args)?)),
    ("filter", |_, v, _| Ok(v.as_str().is_some_and(super::filter::is_known))),
    ("test", |_, v, _| Ok(v.as_str().is_some_and(is_known))),
    // Salt's own.
    ("match", |_, v, args| super::filter::matches(v, args, false)),
    ("equalto_ignore_case", |_, v, args| Ok(python::text(v).to_lowercase() == python::text(&other(args)?).to_lowercase())),
];
