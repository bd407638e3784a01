//! network.*: interfaces, addresses, and what can be computed of them.

use std::net::{IpAddr, Ipv4Addr};

use super::{Arguments, Body, mapping, texts};
use crate::agent::grains::network::{Link, default_routes, interfaces};
use crate::diagnostic::Result;
use crate::system::System;
use crate::value::{Map, Value};

pub(super) const FUNCTIONS: &[(&str, Body)] = &[
    ("network.calc_net", calc_net),
    ("network.convert_cidr", convert_cidr),
    ("network.default_route", default_route),
    ("network.get_fqdn", |sys, a| Ok(a.grains(sys).get("fqdn").cloned().unwrap_or_default())),
    ("network.get_hostname", |_, _| Ok(rustix::system::uname().nodename().to_string_lossy().into_owned().into())),
    ("network.hw_addr", hardware),
    ("network.hwaddr", hardware),
    ("network.interface", |sys, a| {
        let link = link(sys, a)?;
        Ok(link.map_or_else(|text| text, |link| addresses4(&a.text_or(0, "iface", ""), &link)))
    }),
    ("network.interface_ip", |sys, a| {
        let first = |link: Link| Value::from(link.addresses.iter().find(|ip| ip.is_ipv4()).map(IpAddr::to_string).unwrap_or_default());
        Ok(link(sys, a)?.map_or_else(|text| text, first))
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
    ("network.is_private", |_, a| Ok(private(address(a, 0, "ip_addr")?).into())),
    ("network.reverse_ip", |_, a| {
        Ok(match address(a, 0, "ip_addr")? {
            IpAddr::V4(ip) => {
                let [a, b, c, d] = ip.octets();
                format!("{d}.{c}.{b}.{a}.in-addr.arpa")
            }
            IpAddr::V6(ip) => {
                let digits = format!("{:032x}", u128::from(ip));
                digits.chars().rev().flat_map(|c| [c, '.']).chain("ip6.arpa".chars()).collect()
            }
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
    let (mask, last) = match ip {
        IpAddr::V4(v4) => {
            let mask = netmask(prefix);
            (IpAddr::V4(mask), IpAddr::V4(Ipv4Addr::from(u32::from(v4) | !u32::from(mask))))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            (IpAddr::V6(mask.into()), IpAddr::V6((u128::from(v6) | !mask).into()))
        }
    };
    let net = network(ip, prefix);
    Ok(mapping([
        ("network", net.split('/').next().unwrap_or_default().into()),
        ("netmask", mask.to_string().into()),
        ("broadcast", last.to_string().into()),
    ]))
}

/// What Python's `ipaddress` takes for private: not reachable from everywhere.
fn private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_documentation()
                || a == 0
                || a >= 240
                || (a == 198 && (b == 18 || b == 19))
                || ([a, b, c] == [192, 0, 0] && (d < 8 || d == 170 || d == 171))
        }
        IpAddr::V6(ip) => {
            let parts = ip.segments();
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_unique_local()
                || ip.is_unicast_link_local()
                || ip.to_ipv4_mapped().is_some()
                || (parts[0] == 0x2001 && (parts[1] < 0x200 || parts[1] == 0xdb8))
                || parts[..4] == [0x100, 0, 0, 0]
        }
    }
}

/// An interface by its name; Salt answers with a text where there is none.
fn link(sys: &System, args: &Arguments) -> Result<std::result::Result<Link, Value>> {
    let name = args.text(0, "iface")?;
    let mut all = interfaces(sys);
    Ok(all.remove(&name).ok_or_else(|| {
        let known: Vec<String> = all.keys().map(|known| format!("\"{known}\"")).collect();
        format!("Interface \"{name}\" not in available interfaces: {}", known.join(", ")).into()
    }))
}

fn hardware(sys: &System, args: &Arguments) -> Result<Value> {
    Ok(link(sys, args)?.map_or_else(|text| text, |link| link.hardware.unwrap_or_default().into()))
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
    let six = link
        .addresses
        .iter()
        .zip(&link.prefixes)
        .filter_map(|(ip, prefix)| if let IpAddr::V6(ip) = ip { Some((ip, prefix)) } else { None });
    let scope = |ip: &std::net::Ipv6Addr| match () {
        () if ip.is_loopback() => "host",
        () if ip.is_unicast_link_local() => "link",
        () => "global",
    };
    let six = six.map(|(ip, prefix)| {
        mapping([("address", ip.to_string().into()), ("prefixlen", prefix.to_string().into()), ("scope", scope(ip).into())])
    });
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
    let kind = args.value(3, "type").map(Value::to_text);
    let mut found: Vec<IpAddr> = Vec::new();
    for (_, link) in interfaces(sys).into_iter().filter(|(name, _)| only.as_ref().is_none_or(|o| o == name)) {
        for ip in link.addresses.into_iter().filter(|ip| ip.is_ipv4() == v4 && (loopback || !ip.is_loopback())) {
            let right_net = net.as_ref().map_or(Ok(true), |net| within(ip, net, args))?;
            let right_type = match kind.as_deref() {
                Some("private") => private(ip),
                Some("public") => !private(ip),
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
    let family = args.value(0, "family").map(Value::to_text);
    if let Some(family) = family.as_ref().filter(|f| !["inet", "inet6"].contains(&f.as_str())) {
        return Err(args.error(format!("does not know the address family {family:?}")));
    }
    let mut out = Vec::new();
    for route in default_routes(sys) {
        let (name, destination, netmask) = if route.v4 { ("inet", "0.0.0.0", "0.0.0.0") } else { ("inet6", "::/0", "") };
        if family.as_ref().is_none_or(|f| f == name) {
            out.push(mapping([
                ("addr_family", name.into()),
                ("destination", destination.into()),
                ("flags", "UG".into()),
                ("gateway", route.gateway.map_or_else(|| if route.v4 { "0.0.0.0" } else { "::" }.into(), |g| g.to_string().into())),
                ("interface", route.interface.into()),
                ("netmask", netmask.into()),
            ]));
        }
    }
    Ok(Value::List(out))
}
