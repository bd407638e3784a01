//! Filters on addresses and networks.

use minijinja::{Error, Value};

use super::{Filter, number_of, text_of};
use crate::lang::function::network::{Interface, describe};
use crate::lang::jinja::call::Args;
use crate::lang::jinja::operate::integer;
use crate::lang::jinja::python;
use crate::lang::jinja::value::{Dict, Done, List, View, fail, view};

pub const TABLE: &[(&str, Filter)] = &[
    ("is_ip", |_, v, a| {
        let options = options(a)?;
        Ok(Value::from(one(v, 4, &options).is_some() || one(v, 6, &options).is_some()))
    }),
    ("is_ipv4", |_, v, a| Ok(Value::from(one(v, 4, &options(a)?).is_some()))),
    ("is_ipv6", |_, v, a| Ok(Value::from(one(v, 6, &options(a)?).is_some()))),
    ("ipv4", |_, v, a| Ok(many(v, 4, &options(a)?))),
    ("ipv6", |_, v, a| Ok(many(v, 6, &options(a)?))),
    ("ipaddr", |_, v, a| {
        let options = options(a)?;
        let (four, six) = (many(v, 4, &options), many(v, 6, &options));
        match (four.is_none(), six.is_none()) {
            (false, false) => crate::lang::jinja::operate::add(&four, &six),
            (true, _) => Ok(six),
            _ => Ok(four),
        }
    }),
    ("ip_host", |_, v, a| entries(v, a, |text| Interface::parse(text).map(|i| Value::from(i.to_string())))),
    ("network_hosts", |_, v, a| {
        entries(v, a, |text| {
            let hosts = Interface::parse(text)?.hosts()?;
            Some(List::value(hosts.into_iter().map(Value::from).collect()))
        })
    }),
    ("network_size", |_, v, a| {
        entries(v, a, |text| Some(i128::try_from(Interface::parse(text)?.size()?).map_or_else(|_| Value::from(f64::MAX), integer)))
    }),
    ("ipwrap", |_, v, _| {
        let wrap = |v: &Value| match v.as_str().and_then(Interface::parse) {
            Some(ip) if ip.version() == 6 && ip.prefix.is_none() => {
                Value::from(format!("[{}]", text_of(v).trim_start_matches('[').trim_end_matches(']')))
            }
            _ => v.clone(),
        };
        match view(v) {
            View::List(_) | View::Tuple(_) => Ok(List::value(python::iterate(v)?.iter().map(wrap).collect())),
            _ => Ok(wrap(v)),
        }
    }),
    ("filter_by_networks", |_, v, a| {
        let [networks] = a.bind("filter_by_networks", ["networks"], 1)?;
        let networks = networks.unwrap_or_default();
        if networks.is_none() {
            return Ok(v.clone());
        }
        let parse = |n: &Value| Interface::parse(&text_of(n)).ok_or_else(|| fail(format!("{} is no network", python::repr(n))));
        let networks = python::iterate(&networks)?.iter().map(parse).collect::<Result<Vec<_>, Error>>()?;
        let filter = |items: &Value| -> Done {
            let items = python::iterate(items)?;
            let inside = |i: &Value| i.as_str().and_then(Interface::parse).is_some_and(|ip| networks.iter().any(|n| n.contains(&ip)));
            Ok(List::value(items.into_iter().filter(inside).collect()))
        };
        match view(v) {
            View::Dict(d) => {
                let pairs = d.items().into_iter().map(|(k, v)| Ok((k, filter(&v)?))).collect::<Result<Vec<_>, Error>>()?;
                Ok(Dict::value(pairs))
            }
            _ => filter(v),
        }
    }),
    ("gen_mac", |_, v, _| {
        let sum = crate::lang::function::hash::md5(text_of(v).as_bytes());
        let part = |i: usize| sum.get(i..i + 2).unwrap_or("00").to_uppercase();
        Ok(Value::from(format!("{}:{}:{}:{}", text_of(v), part(0), part(2), part(4))))
    }),
];

fn options(args: Args) -> Result<String, Error> {
    let [options] = args.bind("ip_filter", ["options"], 0)?;
    Ok(options.filter(Value::is_true).as_ref().map_or(String::new(), text_of))
}

fn one(value: &Value, version: u8, options: &str) -> Option<Value> {
    let text = match view(value) {
        View::Str(s) => s.to_owned(),
        View::Int(i) => std::net::Ipv4Addr::from(u32::try_from(i).ok()?).to_string(),
        _ => return None,
    };
    let ip = Interface::parse(&text)?;
    let wanted = options.split(',').map(str::trim).filter(|o| !o.is_empty());
    (ip.version() == version && wanted.into_iter().all(|o| describe(&ip, o))).then(|| Value::from(ip.to_string()))
}

fn many(value: &Value, version: u8, options: &str) -> Value {
    match view(value) {
        View::Str(_) => one(value, version, options).unwrap_or(Value::from(())),
        View::List(_) | View::Tuple(_) | View::Series(_) => {
            List::value(python::iterate(value).unwrap_or_default().iter().filter_map(|v| one(v, version, options)).collect())
        }
        _ => Value::from(()),
    }
}

/// For one address, or for each of a list.
fn entries(value: &Value, args: Args, make: impl Fn(&str) -> Option<Value>) -> Done {
    let [options, version] = args.bind("network", ["options", "version"], 0)?;
    let options = options.filter(Value::is_true).as_ref().map_or(String::new(), text_of);
    let version = number_of(version.as_ref(), 0, "version")?;
    let keep =
        |v: &Value| (version != 6).then(|| one(v, 4, &options)).flatten().or_else(|| (version != 4).then(|| one(v, 6, &options)).flatten());
    let wrong = || fail("the network is too large or none");
    match view(value) {
        View::List(_) | View::Tuple(_) => {
            let kept = python::iterate(value)?
                .iter()
                .filter_map(keep)
                .map(|v| make(&text_of(&v)).ok_or_else(wrong))
                .collect::<Result<Vec<_>, _>>()?;
            Ok(if kept.is_empty() { Value::from(()) } else { List::value(kept) })
        }
        _ => match keep(value) {
            Some(kept) => make(&text_of(&kept)).ok_or_else(wrong),
            None => Ok(Value::from(())),
        },
    }
}
