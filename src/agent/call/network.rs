//! network.*: interfaces, addresses, and what can be computed of them.

use std::net::{IpAddr, Ipv4Addr};

use super::{Arguments, Body, mapping, texts};
use crate::agent::grains;
use crate::agent::grains::network::{Link, gateways, interfaces};
use crate::diagnostic::Result;
use crate::system::System;
use crate::value::{Map, Value};

pub(super) const FUNCTIONS: &[(&str, Body)] = &[
    ("network.calc_net", calc_net),
    ("network.convert_cidr", convert_cidr),
    ("network.default_route", default_route),
    ("network.get_fqdn", |sys, _| Ok(grains::collect(sys).get("fqdn").cloned().unwrap_or_default())),
    ("network.get_hostname", |_, _| Ok(rustix::system::uname().nodename().to_string_lossy().into_owned().into())),
    ("network.hw_addr", hardware),
    ("network.hwaddr", hardware),
    ("network.interface", |sys, a| Ok(link(sys, a)?.map_or(Value::List(Vec::new()), |link| addresses4(&a.text_or(0, "iface", ""), &link)))),
    ("network.interface_ip", |sys, a| {
        let first = link(sys, a)?.and_then(|l| l.addresses.iter().find(|ip| ip.is_ipv4()).map(IpAddr::to_string));
        Ok(first.unwrap_or_default().into())
    }),
    ("network.interfaces", |sys, _| {
        Ok(Value::Map(interfaces(sys).iter().map(|(name, l)| (name.as_str(), shown(name, l))).collect::<Map>()))
    }),
    ("network.ip_addrs", |sys, a| ip_addrs(sys, a, true)),
    ("network.ip_addrs6", |sys, a| ip_addrs(sys, a, false)),
    ("network.ip_in_subnet", |_, a| Ok(within(address(a, 0, "ip_addr")?, &a.text(1, "cidr")?, a)?.into())),
    ("network.ipaddrs", |sys, a| ip_addrs(sys, a, true)),
    ("network.ipaddrs6", |sys, a| ip_addrs(sys, a, false)),
    ("network.is_loopback", |_, a| Ok(address(a, 0, "ip_addr")?.is_loopback().into())),
    ("network.is_private", |_, a| {
        Ok(match address(a, 0, "ip_addr")? {
            IpAddr::V4(ip) => ip.is_private() || ip.is_loopback() || ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
        }
        .into())
    }),
    ("network.subnets", |sys, _| {
        let all = interfaces(sys);
        let nets = all.values().flat_map(|l| l.addresses.iter().zip(&l.prefixes)).filter(|(ip, _)| ip.is_ipv4() && !ip.is_loopback());
        let mut nets: Vec<String> = nets.map(|(ip, prefix)| network(*ip, *prefix)).collect();
        nets.sort();
        nets.dedup();
        Ok(texts(nets))
    }),
];

fn address(args: &Arguments, place: usize, name: &str) -> Result<IpAddr> {
    let text = args.text(place, name)?;
    text.parse().map_err(|_| args.error(format!("needs an address, and {text:?} is none")))
}

fn netmask(prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0))
}

/// The network of an address, as `10.0.0.0/8`.
fn network(ip: IpAddr, prefix: u8) -> String {
    match ip {
        IpAddr::V4(v4) => format!("{}/{prefix}", Ipv4Addr::from(u32::from(v4) & u32::from(netmask(prefix)))),
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            format!("{}/{prefix}", std::net::Ipv6Addr::from(u128::from(v6) & mask))
        }
    }
}

/// `10.0.0.0/8`, or an address alone.
fn cidr(text: &str, args: &Arguments) -> Result<(IpAddr, u8)> {
    let wrong = || args.error(format!("needs a network such as 10.0.0.0/8, and {text:?} is none"));
    let (ip, prefix) = text.split_once('/').map_or((text, None), |(ip, prefix)| (ip, Some(prefix)));
    let ip: IpAddr = ip.trim().parse().map_err(|_| wrong())?;
    let whole = if ip.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => whole,
        Some(mask) if mask.contains('.') => mask.parse::<Ipv4Addr>().map(|m| u32::from(m).leading_ones() as u8).map_err(|_| wrong())?,
        Some(bits) => bits.parse().ok().filter(|b| *b <= whole).ok_or_else(wrong)?,
    };
    Ok((ip, prefix))
}

fn within(ip: IpAddr, net: &str, args: &Arguments) -> Result<bool> {
    let (base, prefix) = cidr(net, args)?;
    Ok(ip.is_ipv4() == base.is_ipv4() && network(ip, prefix) == network(base, prefix))
}

fn calc_net(_: &System, args: &Arguments) -> Result<Value> {
    let ip = args.text(0, "ip_addr")?;
    let text = args.value(1, "netmask").map_or(ip.clone(), |mask| format!("{ip}/{}", mask.to_text()));
    let (ip, prefix) = cidr(&text, args)?;
    Ok(network(ip, prefix).into())
}

fn convert_cidr(_: &System, args: &Arguments) -> Result<Value> {
    let (ip, prefix) = cidr(&args.text(0, "cidr")?, args)?;
    let net = network(ip, prefix);
    Ok(mapping([
        ("network", net.split('/').next().unwrap_or_default().into()),
        ("netmask", if ip.is_ipv4() { netmask(prefix).to_string().into() } else { Value::Int(i64::from(prefix)) }),
    ]))
}

fn link(sys: &System, args: &Arguments) -> Result<Option<Link>> {
    Ok(interfaces(sys).remove(&args.text(0, "iface")?))
}

fn hardware(sys: &System, args: &Arguments) -> Result<Value> {
    Ok(link(sys, args)?.and_then(|l| l.hardware).unwrap_or_default().into())
}

fn addresses4(name: &str, link: &Link) -> Value {
    let all = link.addresses.iter().zip(&link.prefixes).zip(&link.broadcasts).filter(|((ip, _), _)| ip.is_ipv4());
    let one = |((ip, prefix), broadcast): ((&IpAddr, &u8), &Option<Ipv4Addr>)| {
        mapping([
            ("address", ip.to_string().into()),
            ("netmask", netmask(*prefix).to_string().into()),
            ("broadcast", broadcast.map_or(Value::Null, |b| b.to_string().into())),
            ("label", name.into()),
        ])
    };
    Value::List(all.map(one).collect())
}

fn shown(name: &str, link: &Link) -> Value {
    let six = link.addresses.iter().zip(&link.prefixes).filter(|(ip, _)| ip.is_ipv6());
    let six = six.map(|(ip, prefix)| mapping([("address", ip.to_string().into()), ("prefixlen", prefix.to_string().into())]));
    let mut out = Map::new();
    out.insert("up", link.up);
    if let Some(address) = &link.hardware {
        out.insert("hwaddr", address.as_str());
    }
    if link.addresses.iter().any(IpAddr::is_ipv4) {
        out.insert("inet", addresses4(name, link));
    }
    if link.addresses.iter().any(IpAddr::is_ipv6) {
        out.insert("inet6", six.collect::<Vec<_>>());
    }
    Value::Map(out)
}

fn ip_addrs(sys: &System, args: &Arguments, v4: bool) -> Result<Value> {
    let only = args.value(0, "interface").map(Value::to_text);
    let loopback = args.flag(1, "include_loopback");
    let net = args.value(2, "cidr").map(Value::to_text);
    let private = args.value(3, "type").map(Value::to_text);
    let mut found: Vec<IpAddr> = Vec::new();
    for (_, link) in interfaces(sys).into_iter().filter(|(name, _)| only.as_ref().is_none_or(|o| o == name)) {
        for ip in link.addresses.into_iter().filter(|ip| ip.is_ipv4() == v4 && (loopback || !ip.is_loopback())) {
            let right_net = net.as_ref().map_or(Ok(true), |net| within(ip, net, args))?;
            let is_private = matches!(ip, IpAddr::V4(ip) if ip.is_private());
            let right_type = match private.as_deref() {
                Some("private") => is_private,
                Some("public") => !is_private,
                _ => true,
            };
            if right_net && right_type {
                found.push(ip);
            }
        }
    }
    found.sort();
    found.dedup();
    Ok(texts(found.iter().map(IpAddr::to_string)))
}

fn default_route(sys: &System, args: &Arguments) -> Result<Value> {
    let (four, six) = gateways(sys);
    let family = args.value(0, "family").map(Value::to_text);
    let mut out = Vec::new();
    for (name, gateway, destination) in [("inet", four, "0.0.0.0"), ("inet6", six, "::/0")] {
        if let Some(gateway) = gateway.filter(|_| family.as_ref().is_none_or(|f| f == name)) {
            let gateway = gateway.as_str().map_or_else(|| destination.trim_end_matches("/0").to_owned(), str::to_owned);
            let route =
                [("addr_family", name.into()), ("destination", destination.into()), ("gateway", gateway.into()), ("flags", "UG".into())];
            out.push(mapping(route));
        }
    }
    Ok(Value::List(out))
}
