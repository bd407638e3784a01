//! Addresses and networks: `network.*` as far as arguments and grains answer it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Call, Function, Site, error, flag, text};
use crate::diagnostic::Result;
use crate::lang::glob;
use crate::value::{Map, Value};

/// An address, or an address within a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Interface {
    pub address: IpAddr,
    pub prefix: Option<u8>,
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix {
            Some(prefix) => write!(f, "{}/{prefix}", self.address),
            None => write!(f, "{}", self.address),
        }
    }
}

impl Interface {
    /// `1.2.3.4`, `1.2.3.4/24`, `1.2.3.4/255.255.255.0` or the same for IPv6.
    pub fn parse(text: &str) -> Option<Interface> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().ok()?;
        let prefix = match prefix {
            None => None,
            Some(p) if p.bytes().all(|b| b.is_ascii_digit()) && !p.is_empty() => Some(p.parse::<u8>().ok()?),
            Some(mask) if address.is_ipv4() => {
                let bits = u32::from(mask.parse::<Ipv4Addr>().ok()?);
                let ones = bits.leading_ones();
                if bits.checked_shl(ones).unwrap_or(0) != 0 {
                    return None;
                }
                Some(ones as u8)
            }
            Some(_) => return None,
        };
        let interface = Interface { address, prefix };
        (prefix.unwrap_or(0) <= interface.width()).then_some(interface)
    }

    pub fn version(&self) -> u8 {
        if self.address.is_ipv4() { 4 } else { 6 }
    }

    fn width(&self) -> u8 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }

    fn bits(address: IpAddr) -> u128 {
        match address {
            IpAddr::V4(a) => u128::from(u32::from(a)),
            IpAddr::V6(a) => u128::from(a),
        }
    }

    fn address_of(&self, bits: u128) -> IpAddr {
        if self.address.is_ipv4() { IpAddr::V4(Ipv4Addr::from(bits as u32)) } else { IpAddr::V6(Ipv6Addr::from(bits)) }
    }

    fn prefix_or_full(&self) -> u8 {
        self.prefix.unwrap_or_else(|| self.width())
    }

    fn host_mask(&self) -> u128 {
        let host = u32::from(self.width() - self.prefix_or_full());
        1u128.checked_shl(host).map_or(u128::MAX, |b| b - 1)
    }

    pub fn network(&self) -> Interface {
        let bits = Self::bits(self.address) & !self.host_mask();
        Interface { address: self.address_of(bits), prefix: Some(self.prefix_or_full()) }
    }

    fn broadcast(&self) -> IpAddr {
        self.address_of(Self::bits(self.address) | self.host_mask())
    }

    fn netmask(&self) -> IpAddr {
        let all = if self.address.is_ipv4() { u128::from(u32::MAX) } else { u128::MAX };
        self.address_of(all & !self.host_mask())
    }

    pub fn size(&self) -> Option<u128> {
        self.host_mask().checked_add(1)
    }

    pub fn contains(&self, other: &Interface) -> bool {
        self.version() == other.version() && Self::bits(other.address) & !self.host_mask() == Self::bits(self.network().address)
    }

    /// The addresses a host can have in the network. `None` where they are too many.
    pub fn hosts(&self) -> Option<Vec<String>> {
        let size = self.size().filter(|s| *s <= 65_536)?;
        let first = Self::bits(self.network().address);
        let range = match (self.version(), size) {
            (_, 1 | 2) => first..first + size,
            (4, _) => first + 1..first + size - 1,
            _ => first + 1..first + size,
        };
        Some(range.map(|b| self.address_of(b).to_string()).collect())
    }
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            let [x, y, z, _] = a.octets();
            a.is_private()
                || a.is_loopback()
                || a.is_link_local()
                || a.is_broadcast()
                || a.is_documentation()
                || x == 0
                || (x == 192 && y == 0 && z == 0)
                || (x == 198 && (y == 18 || y == 19))
                || x >= 240
        }
        IpAddr::V6(a) => {
            let [first, second, ..] = a.segments();
            a.is_loopback()
                || a.is_unspecified()
                || first & 0xfe00 == 0xfc00
                || first & 0xffc0 == 0xfe80
                || (first == 0x2001 && second == 0xdb8)
        }
    }
}

/// One of the words by which Salt's filters ask for a kind of address.
pub fn describe(ip: &Interface, what: &str) -> bool {
    let a = ip.address;
    match what {
        "private" => is_private(a),
        "global" | "public" => !is_private(a),
        "loopback" | "lo" => a.is_loopback(),
        "multicast" => a.is_multicast(),
        "unspecified" => a.is_unspecified(),
        "link-local" | "linklocal" | "ll" | "link_local" => match a {
            IpAddr::V4(a) => a.is_link_local(),
            IpAddr::V6(a) => a.segments().first().is_some_and(|s| s & 0xffc0 == 0xfe80),
        },
        "reserved" => matches!(a, IpAddr::V4(a) if a.octets().first().is_some_and(|o| *o >= 240)),
        "site-local" | "sl" | "site_local" => matches!(a, IpAddr::V6(a) if a.segments().first().is_some_and(|s| s & 0xffc0 == 0xfec0)),
        _ => true,
    }
}

pub const TABLE: &[(&str, Function)] = &[
    ("network.calc_net", |_, c| Ok(Value::Str(calc_net(c)?.to_string()))),
    ("network.convert_cidr", |_, c| {
        let net = calc_net(c)?;
        let entries = [("network", net.address), ("netmask", net.netmask()), ("broadcast", net.broadcast())];
        Ok(Value::Map(entries.into_iter().map(|(k, v)| (k, Value::Str(v.to_string()))).collect::<Map>()))
    }),
    ("network.ip_in_subnet", |_, c| {
        let [address, cidr] = c.bind(["ip_addr", "cidr"], 2)?;
        in_subnet(&text(cidr), address)
    }),
    ("network.is_private", |_, c| Ok(Value::Bool(is_private(address(c)?)))),
    ("network.is_loopback", |_, c| Ok(Value::Bool(address(c)?.is_loopback()))),
    ("network.reverse_ip", |_, c| {
        Ok(Value::Str(match address(c)? {
            IpAddr::V4(a) => {
                let [a, b, c, d] = a.octets();
                format!("{d}.{c}.{b}.{a}.in-addr.arpa")
            }
            IpAddr::V6(a) => {
                let digits: String = a.octets().iter().map(|o| format!("{o:02x}")).collect();
                let reversed: Vec<String> = digits.chars().rev().map(String::from).collect();
                format!("{}.ip6.arpa", reversed.join("."))
            }
        }))
    }),
    ("network.ip_addrs", |s, c| addresses(s, c, "ip4_interfaces")),
    ("network.ipaddrs", |s, c| addresses(s, c, "ip4_interfaces")),
    ("network.ip_addrs6", |s, c| addresses(s, c, "ip6_interfaces")),
    ("network.ipaddrs6", |s, c| addresses(s, c, "ip6_interfaces")),
    ("network.interface_ip", |s, c| {
        let [interface] = c.bind(["iface"], 1)?;
        let of = s.context.grains.get("ip4_interfaces").and_then(Value::as_map).and_then(|m| m.get(&text(interface)));
        Ok(of.and_then(Value::as_list).and_then(<[Value]>::first).cloned().unwrap_or_else(|| Value::str("")))
    }),
    ("network.get_hostname", |s, _| Ok(s.context.grains.get("nodename").or(s.context.grains.get("host")).cloned().unwrap_or_default())),
    ("network.get_fqdn", |s, _| Ok(s.context.grains.get("fqdn").cloned().unwrap_or_default())),
];

fn address(call: Call) -> Result<IpAddr> {
    let [address] = call.bind(["ip_addr"], 1)?;
    let address = text(address);
    address.parse().map_err(|_| error(format!("'{address}' does not appear to be an IPv4 or IPv6 address")))
}

fn calc_net(call: Call) -> Result<Interface> {
    let [address, netmask] = call.bind(["ip_addr", "netmask"], if call.kwargs.contains_key("cidr") { 0 } else { 1 }).or_else(|e| {
        // convert_cidr names its argument otherwise.
        call.bind(["cidr", "netmask"], 1).map_err(|_| e)
    })?;
    let mut address = text(address);
    if let Some(netmask) = netmask.filter(|n| !n.is_null()) {
        address = format!("{address}/{netmask}");
    }
    let interface = Interface::parse(&address);
    interface.map(|i| i.network()).ok_or_else(|| error(format!("'{address}' does not appear to be an IPv4 or IPv6 network")))
}

fn in_subnet(cidr: &str, address: Option<&Value>) -> Result<Value> {
    let Some(net) = Interface::parse(cidr).filter(|n| n.network().address == n.address) else { return Ok(Value::Bool(false)) };
    let single;
    let all: &[Value] = match address {
        Some(Value::List(all)) => all,
        Some(one) => {
            single = [one.clone()];
            &single
        }
        None => &[],
    };
    for item in all {
        let ip = Interface::parse(&item.to_text()).filter(|i| i.prefix.is_none());
        let ip = ip.ok_or_else(|| error(format!("'{item}' does not appear to be an IPv4 or IPv6 address")))?;
        if net.contains(&ip) {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

/// The addresses of the host's interfaces, from its grains.
fn addresses(site: &Site, call: Call, grain: &str) -> Result<Value> {
    let [interface, loopback, cidr, kind] = call.bind(["interface", "include_loopback", "cidr", "type"], 0)?;
    let patterns: Option<Vec<String>> = interface.filter(|i| !i.is_null()).map(|i| match i {
        Value::List(all) => all.iter().map(Value::to_text).collect(),
        one => one.to_text().split(',').map(|p| p.trim().to_owned()).collect(),
    });
    let mut found: Vec<Interface> = Vec::new();
    for (name, addresses) in site.context.grains.get(grain).and_then(Value::as_map).into_iter().flatten() {
        let name = name.to_text();
        if patterns.as_ref().is_some_and(|p| !p.iter().any(|p| glob::matches(p, &name))) {
            continue;
        }
        found.extend(addresses.as_list().into_iter().flatten().filter_map(|a| Interface::parse(&a.to_text())));
    }
    found.retain(|i| flag(loopback, false) || !i.address.is_loopback());
    let net = cidr.filter(|c| c.truthy()).map(|c| Interface::parse(&c.to_text()));
    if let Some(net) = net {
        found.retain(|i| net.as_ref().is_some_and(|n| n.contains(i)));
    } else {
        match text(kind).as_str() {
            "public" => found.retain(|i| !is_private(i.address)),
            "private" => found.retain(|i| is_private(i.address)),
            _ => {}
        }
    }
    found.sort_by_key(|i| i.address);
    found.dedup();
    Ok(Value::List(found.into_iter().map(|i| Value::Str(i.address.to_string())).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_computed() {
        let net = |t: &str| Interface::parse(t).unwrap().network().to_string();
        assert_eq!(net("10.1.2.3/8"), "10.0.0.0/8");
        assert_eq!(net("10.1.2.3/255.255.255.0"), "10.1.2.0/24");
        assert_eq!(net("fe80::1/64"), "fe80::/64");
        assert_eq!(net("1.2.3.4/0"), "0.0.0.0/0");
        assert_eq!(Interface::parse("10.0.0.0/33"), None);
        assert_eq!(Interface::parse("::/0").unwrap().size(), None);
    }

    #[test]
    fn hosts_leave_out_network_and_broadcast() {
        assert_eq!(Interface::parse("10.0.0.0/30").unwrap().hosts().unwrap(), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(Interface::parse("10.0.0.7/32").unwrap().hosts().unwrap(), ["10.0.0.7"]);
    }
}
