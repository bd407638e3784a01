//! Grains of the network: names, interfaces, addresses, gateways, resolver. Names come from the host's own files only.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Host;
use crate::value::{Map, Value};

pub(super) fn collect(host: &Host, grains: &mut Map) {
    let uname = rustix::system::uname();
    let nodename = uname.nodename().to_string_lossy().into_owned();
    let hosts = host.text("/etc/hosts").unwrap_or_default();
    let fqdn = fqdn(&hosts, &nodename);
    let (short, domain) = fqdn.split_once('.').unwrap_or((&fqdn, ""));
    grains.insert("host", short);
    grains.insert("domain", domain);
    grains.insert("localhost", nodename.as_str());
    grains.insert("nodename", nodename.as_str());

    let links = links(host);
    for (grain, wanted) in [("ip4_interfaces", Some(true)), ("ip6_interfaces", Some(false)), ("ip_interfaces", None)] {
        let of = |link: &Link| -> Vec<Value> {
            let fits = |a: &&IpAddr| wanted.is_none_or(|v4| a.is_ipv4() == v4);
            link.addresses.iter().filter(fits).map(|a| Value::from(a.to_string())).collect()
        };
        grains.insert(grain, links.iter().map(|(name, link)| (name.as_str(), of(link))).collect::<Map>());
    }
    let hardware = |(name, link): (&String, &Link)| Some((name.clone(), Value::from(link.hardware.clone()?)));
    grains.insert("hwaddr_interfaces", links.iter().filter_map(hardware).collect::<Map>());
    for (grain, fqdn_grain, v4) in [("ipv4", "fqdn_ip4", true), ("ipv6", "fqdn_ip6", false)] {
        let mut all: Vec<IpAddr> = links.values().flat_map(|l| &l.addresses).copied().filter(|a| a.is_ipv4() == v4).collect();
        all.sort();
        all.dedup();
        let named: Vec<Value> = host_entries(&hosts)
            .filter(|(address, names)| address.is_ipv4() == v4 && names.contains(&fqdn.as_str()))
            .map(|(address, _)| Value::from(address.to_string()))
            .collect();
        grains.insert(fqdn_grain, if all.is_empty() { Vec::new() } else { named });
        grains.insert(grain, all.iter().map(|a| Value::from(a.to_string())).collect::<Vec<_>>());
    }
    // Salt asks `ip`, and knows nothing without it.
    if host.program("ip") {
        let routes = routes(host);
        grains.insert("ip_gw", !routes.is_empty());
        for (grain, v4) in [("ip4_gw", true), ("ip6_gw", false)] {
            let first = routes.iter().find(|route| route.v4 == v4);
            grains.insert(grain, first.map_or(Value::Bool(false), |r| r.gateway.map_or(Value::Bool(true), |g| g.to_string().into())));
        }
    }
    grains.insert("fqdns", if fqdn.contains('.') { vec![Value::from(fqdn.as_str())] } else { Vec::new() });
    grains.insert("fqdn", fqdn);
    if let Some(text) = ["/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"].iter().find_map(|p| host.text(p)) {
        grains.insert("dns", resolver(&text));
    }
}

/// The addresses of a hosts file and their names, the canonical one first.
fn host_entries(hosts: &str) -> impl Iterator<Item = (IpAddr, Vec<&str>)> {
    hosts.lines().filter_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        Some((words.next()?.parse().ok()?, words.collect()))
    })
}

/// What `getaddrinfo` calls the canonical name, as far as the hosts file tells; DNS is not asked.
fn fqdn(hosts: &str, nodename: &str) -> String {
    let line = host_entries(hosts).find(|(_, names)| names.contains(&nodename));
    line.and_then(|(_, names)| names.first().map(|n| (*n).to_owned())).unwrap_or_else(|| nodename.to_owned())
}

#[derive(Default)]
pub(in crate::agent) struct Link {
    pub addresses: Vec<IpAddr>,
    /// Bits of the network part, one per address.
    pub prefixes: Vec<u8>,
    pub broadcasts: Vec<Option<Ipv4Addr>>,
    pub hardware: Option<String>,
    pub up: bool,
}

/// The interfaces by name: links from `/sys`, addresses from the kernel. Empty where the root has no `/sys` (an image, a test).
fn links(host: &Host) -> BTreeMap<String, Link> {
    let mut links = BTreeMap::new();
    let mut by_index = BTreeMap::new();
    for name in host.names("/sys/class/net") {
        let of = |file: &str| host.line(&format!("/sys/class/net/{name}/{file}"));
        let flags = of("flags").and_then(|f| u32::from_str_radix(f.trim_start_matches("0x"), 16).ok());
        let Some(index) = of("ifindex").and_then(|i| i.parse::<u32>().ok()) else { continue };
        by_index.insert(index, name.clone());
        let link = Link { hardware: of("address"), up: flags.is_some_and(|f| f & 1 == 1), ..Link::default() };
        links.insert(name, link);
    }
    if links.is_empty() {
        return links;
    }
    for address in addresses().unwrap_or_default() {
        if let Some(link) = by_index.get(&address.index).and_then(|name| links.get_mut(name)) {
            link.addresses.push(address.ip);
            link.prefixes.push(address.prefix);
            link.broadcasts.push(address.broadcast);
        }
    }
    links
}

/// For the execution functions of `network`.
pub(in crate::agent) fn interfaces(sys: &crate::system::System) -> BTreeMap<String, Link> {
    links(&Host { sys })
}

struct Address {
    index: u32,
    ip: IpAddr,
    prefix: u8,
    broadcast: Option<Ipv4Addr>,
}

/// All addresses of this network namespace, by one netlink dump.
fn addresses() -> rustix::io::Result<Vec<Address>> {
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};
    const RTM_NEWADDR: u16 = 20;
    const RTM_GETADDR: u16 = 22;
    const NLMSG_ERROR: u16 = 2;
    const NLMSG_DONE: u16 = 3;
    /// NLM_F_REQUEST | NLM_F_DUMP
    const DUMP: u16 = 0x301;

    // Protocol 0 of netlink is NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    let mut request = [0u8; 24];
    for (at, bytes) in [(0, &24u32.to_ne_bytes()[..]), (4, &RTM_GETADDR.to_ne_bytes()), (6, &DUMP.to_ne_bytes())] {
        if let Some(place) = request.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
    send(&socket, &request, SendFlags::empty())?;
    let mut out = Vec::new();
    let mut buffer = vec![0u8; 1 << 16];
    loop {
        let (length, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        if rest.is_empty() {
            return Ok(out);
        }
        while let Some((kind, body, after)) = netlink_message(rest) {
            match kind {
                NLMSG_DONE | NLMSG_ERROR => return Ok(out),
                RTM_NEWADDR => out.extend(netlink_address(body)),
                _ => {}
            }
            rest = after;
        }
    }
}

/// Type and body of the first message, and what follows it.
fn netlink_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    Some((kind, bytes.get(16..length)?, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// An `ifaddrmsg` with its attributes. The local address counts where the peer's stands beside it.
fn netlink_address(body: &[u8]) -> Option<Address> {
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    const IFA_BROADCAST: u16 = 4;
    let prefix = *body.get(1)?;
    let index = u32::from_ne_bytes(body.get(4..8)?.try_into().ok()?);
    let (mut address, mut local, mut broadcast) = (None, None, None);
    let mut rest = body.get(8..)?;
    while let (Some(length), Some(kind)) = (rest.get(..2), rest.get(2..4)) {
        let length = usize::from(u16::from_ne_bytes(length.try_into().ok()?));
        let Some(payload) = rest.get(4..length) else { break };
        let ip = match payload.len() {
            4 => <[u8; 4]>::try_from(payload).ok().map(|b| IpAddr::V4(Ipv4Addr::from(b))),
            16 => <[u8; 16]>::try_from(payload).ok().map(|b| IpAddr::V6(Ipv6Addr::from(b))),
            _ => None,
        };
        match u16::from_ne_bytes(kind.try_into().ok()?) {
            IFA_ADDRESS => address = ip,
            IFA_LOCAL => local = ip,
            IFA_BROADCAST => broadcast = ip,
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    let broadcast = if let Some(IpAddr::V4(b)) = broadcast { Some(b) } else { None };
    Some(Address { index, ip: local.or(address)?, prefix, broadcast })
}

/// A default route.
pub(in crate::agent) struct Route {
    pub v4: bool,
    pub gateway: Option<IpAddr>,
    pub interface: String,
    metric: u32,
}

/// The default routes of this network namespace, IPv4 first, the preferred ones first.
fn routes(host: &Host) -> Vec<Route> {
    /// RTF_REJECT: the kernel's own unreachable default.
    const REJECT: u32 = 0x0200;
    let (four, six) = (host.text("/proc/net/route").unwrap_or_default(), host.text("/proc/net/ipv6_route").unwrap_or_default());
    let four = four.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [interface, "00000000", gateway, _, _, _, metric, "00000000", ..] = fields.as_slice() else { return None };
        // Printed as the host holds it in memory, in network order.
        let gateway = Ipv4Addr::from(u32::from_str_radix(gateway, 16).ok()?.to_ne_bytes());
        let gateway = (!gateway.is_unspecified()).then_some(IpAddr::V4(gateway));
        Some(Route { v4: true, gateway, interface: (*interface).to_owned(), metric: metric.parse().unwrap_or(0) })
    });
    let six = six.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [destination, "00", _, _, gateway, metric, _, _, flags, interface] = fields.as_slice() else { return None };
        if destination.bytes().any(|b| b != b'0') || u32::from_str_radix(flags, 16).ok()? & REJECT != 0 {
            return None;
        }
        let gateway = Ipv6Addr::from(u128::from_str_radix(gateway, 16).ok()?);
        let gateway = (!gateway.is_unspecified()).then_some(IpAddr::V6(gateway));
        let metric = u32::from_str_radix(metric, 16).unwrap_or(0);
        Some(Route { v4: false, gateway, interface: (*interface).to_owned(), metric })
    });
    let mut all: Vec<Route> = four.chain(six).collect();
    all.sort_by_key(|route| (!route.v4, route.metric));
    all
}

/// For the execution function `network.default_route`.
pub(in crate::agent) fn default_routes(sys: &crate::system::System) -> Vec<Route> {
    routes(&Host { sys })
}

fn resolver(text: &str) -> Map {
    let mut lists: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    let mut domain = String::new();
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => {
                let Some(address) = words.next() else { continue };
                let kind = if address.contains(':') { "ip6_nameservers" } else { "ip4_nameservers" };
                lists.entry("nameservers").or_default().push(address.into());
                lists.entry(kind).or_default().push(address.into());
            }
            Some("search") => drop(lists.insert("search", words.map(Value::from).collect())),
            Some("domain") => domain = words.next().unwrap_or_default().to_owned(),
            Some("options") => lists.entry("options").or_default().extend(words.map(Value::from)),
            Some("sortlist") => lists.entry("sortlist").or_default().extend(words.map(Value::from)),
            _ => {}
        }
    }
    let mut out: Map = [("domain", domain)].into_iter().collect();
    for name in ["ip4_nameservers", "ip6_nameservers", "nameservers", "options", "search", "sortlist"] {
        out.insert(name, lists.remove(name).unwrap_or_default());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canonical_name_is_the_first_of_its_line() {
        let hosts = "127.0.0.1 localhost\n# 10.0.0.1 no\n127.0.1.1 web1.example.com web1 # me\n";
        assert_eq!(fqdn(hosts, "web1"), "web1.example.com");
        assert_eq!(fqdn(hosts, "other"), "other");
    }

    #[test]
    fn the_kernel_names_loopback_where_it_is_up() {
        // Every network namespace has `lo`; its address is there when it is up.
        let all = addresses().unwrap();
        assert!(all.is_empty() || all.iter().any(|a| a.ip.is_loopback()));
    }

    #[test]
    fn damaged_netlink_is_no_panic() {
        let message = [24u32.to_ne_bytes().as_slice(), &[20, 0, 0, 0], &[0; 8], &[2, 24, 0, 0, 1, 0, 0, 0]].concat();
        for cut in 0..message.len() {
            let _ = netlink_message(&message[..cut]).map(|(_, body, _)| netlink_address(body));
        }
        let attribute = [8, 0, 2, 0, 192, 0, 2, 1];
        let body = [&[2, 24, 0, 0, 7, 0, 0, 0][..], &attribute].concat();
        let address = netlink_address(&body).unwrap();
        assert_eq!((address.index, address.prefix, address.ip.to_string()), (7, 24, "192.0.2.1".into()));
    }
}
