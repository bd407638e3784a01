//! What can cut the connection, as one table: paths, units, packages and programs, each with the word by which a plan tells why it is
//! guarded. Who logs in here is known besides: that user's account, home and shell stand in no table.

use std::path::Path;

use crate::plan::{Key, Kind};
use crate::system::{System, User};
use crate::value::{Attrs, Value};

const NETWORK: &str = "the network";
const FIREWALL: &str = "the firewall";
const SSHD: &str = "sshd";
const PAM: &str = "PAM";
const SUDO: &str = "sudo";
const LOGIN: &str = "the login user";
const ACCOUNTS: &str = "who may log in";

/// A path stands for itself, all below it and (where it is changed or goes) what is above it; `…*` for all that begin so.
const PATHS: &[(&str, &[&str])] = &[
    (
        NETWORK,
        &[
            "/etc/network",
            "/etc/netplan",
            "/etc/systemd/network",
            "/etc/systemd/networkd.conf*",
            "/etc/NetworkManager",
            "/etc/sysconfig/network*",
            "/etc/dhcp",
            "/etc/dhcpcd.conf",
            "/etc/wireguard",
            "/etc/openvpn",
            "/etc/iproute2",
        ],
    ),
    (
        FIREWALL,
        &[
            "/etc/nftables*",
            "/etc/iptables*",
            "/etc/ufw",
            "/etc/default/ufw",
            "/etc/firewalld",
            "/etc/shorewall*",
            "/etc/sysconfig/iptables*",
            "/etc/sysconfig/ip6tables*",
            "/etc/sysconfig/nftables.conf",
            "/etc/hosts.allow",
            "/etc/hosts.deny",
        ],
    ),
    (SSHD, &["/etc/ssh", "/etc/default/ssh", "/etc/sysconfig/sshd", "/etc/crypto-policies", "/usr/sbin/sshd", "/run/sshd"]),
    (PAM, &["/etc/pam.d", "/etc/pam.conf", "/etc/security", "/etc/ld.so.preload"]),
    (SUDO, &["/etc/sudoers", "/etc/sudoers.d", "/etc/sudo.conf", "/usr/bin/sudo"]),
    (
        ACCOUNTS,
        &[
            "/etc/passwd",
            "/etc/shadow",
            "/etc/group",
            "/etc/gshadow",
            "/etc/nsswitch.conf",
            "/etc/nologin",
            "/etc/shells",
            "/etc/sssd",
            "/etc/bash.bashrc",
            "/etc/csh.cshrc",
            "/etc/zsh",
        ],
    ),
];

/// Below the home of who logs in: what sshd and a shell read when a command is run.
const HOME: [&str; 5] = [".ssh", ".bashrc", ".cshrc", ".tcshrc", ".zshenv"];

/// Units by their names without suffix and instance.
const UNITS: &[(&str, &[&str])] = &[
    (SSHD, &["ssh", "sshd"]),
    (
        NETWORK,
        &[
            "networking",
            "network",
            "NetworkManager",
            "systemd-networkd",
            "ifup",
            "dhcpcd",
            "dhclient",
            "wpa_supplicant",
            "wg-quick",
            "openvpn",
        ],
    ),
    (FIREWALL, &["nftables", "iptables", "ip6tables", "netfilter-persistent", "ufw", "firewalld", "shorewall"]),
    (ACCOUNTS, &["sssd", "nslcd", "winbind"]),
];

/// How names of packages begin.
const PACKAGES: &[(&str, &[&str])] = &[
    (SSHD, &["openssh-server", "openssh-sftp", "dropbear"]),
    (SUDO, &["sudo"]),
    (PAM, &["libpam", "pam", "libnss-", "sssd"]),
    (
        NETWORK,
        &[
            "ifupdown",
            "netplan",
            "network-manager",
            "NetworkManager",
            "isc-dhcp-client",
            "dhcpcd",
            "iproute2",
            "systemd",
            "wireguard",
            "openvpn",
        ],
    ),
    (FIREWALL, &["nftables", "iptables", "ufw", "firewalld", "shorewall"]),
];

/// Programs in commands that are run.
const PROGRAMS: &[(&str, &[&str])] = &[
    (
        NETWORK,
        &["ip", "ifconfig", "ifup", "ifdown", "nmcli", "netplan", "networkctl", "dhclient", "route", "tc", "brctl", "wg", "wg-quick"],
    ),
    (FIREWALL, &["iptables", "ip6tables", "iptables-restore", "ip6tables-restore", "nft", "ufw", "firewall-cmd", "ipset", "shorewall"]),
    (PAM, &["pam-auth-update", "authselect"]),
    (SUDO, &["visudo"]),
    (ACCOUNTS, &["chpasswd"]),
];

/// They start and end units: guarded with the name of such a unit beside them.
const CONTROL: [&str; 8] = ["systemctl", "service", "rc-service", "invoke-rc.d", "update-rc.d", "kill", "pkill", "killall"];
/// They change accounts: guarded with the login user's name beside them.
const ACCOUNT_TOOLS: [&str; 8] = ["passwd", "usermod", "userdel", "deluser", "chage", "chsh", "gpasswd", "groupmod"];
/// They can do harm to what is below a directory that they name.
const FILE_TOOLS: [&str; 6] = ["chmod", "chown", "chgrp", "mv", "rm", "setfacl"];

/// Kernel settings that decide which packets are taken.
const SYSCTL: [&str; 2] = ["net.ipv4.conf.", "net.ipv6.conf."];

/// The table, and who logs in on this host.
pub struct Cuts {
    login: Option<User>,
    groups: Vec<String>,
    /// What of the login user's home counts.
    home: Vec<String>,
}

impl Cuts {
    /// `None` below another root than the machine's own: no connection goes through that.
    pub fn of(sys: &System) -> Option<Cuts> {
        if sys.root() != Path::new("/") {
            return None;
        }
        // sudo says who became root.
        let name = std::env::var("SUDO_USER").unwrap_or_else(|_| sys.user_name(rustix::process::geteuid().as_raw()));
        let login = sys.user(&name).ok().flatten();
        let primary = login.as_ref().map(|user| sys.group_name(user.gid));
        let member = sys.supplementary(&name).unwrap_or_default().into_iter().map(|gid| sys.group_name(gid));
        Some(Cuts::for_login(member.chain(primary).collect(), login))
    }

    fn for_login(groups: Vec<String>, login: Option<User>) -> Cuts {
        let home = login.as_ref().map_or("", |login| login.home.trim_end_matches('/'));
        let home = HOME.iter().filter(|_| !home.is_empty()).map(|name| format!("{home}/{name}")).collect();
        Cuts { login, groups, home }
    }

    /// Why this change is guarded, if it is.
    pub fn change(&self, key: &Key, from: &Attrs, to: &Attrs) -> Option<&'static str> {
        match key.kind {
            Kind::Packages => {
                // Where not all packages are named, those that are not stay.
                let gone = from.keys().filter(|_| to.contains_key("@all"));
                to.keys().chain(gone).filter(|name| from.get(*name) != to.get(*name)).find_map(|name| package(name))
            }
            // What is new has nothing below it yet.
            _ => self.key(key, !from.is_empty()),
        }
    }

    /// Why a change of this thing would be guarded; `there`: it is there already.
    pub fn key(&self, key: &Key, there: bool) -> Option<&'static str> {
        match key.kind {
            Kind::File | Kind::Mount | Kind::Git => self.path(&key.name, there || key.kind != Kind::File),
            Kind::Service => unit(&key.name),
            Kind::User => self.is_login(&key.name).then_some(LOGIN),
            Kind::Group => self.groups.contains(&key.name).then_some(LOGIN),
            Kind::Iptables => Some(FIREWALL),
            Kind::Sysctl => SYSCTL.iter().any(|prefix| key.name.starts_with(prefix)).then_some(NETWORK),
            _ => None,
        }
    }

    /// Why this command, as a shell reads it, is guarded.
    pub fn command(&self, text: &str) -> Option<&'static str> {
        let separates = |c: char| !(c.is_ascii_alphanumeric() || "._/@+-".contains(c));
        let words: Vec<&str> = text.split(separates).filter(|word| !word.is_empty()).collect();
        let name = |word: &&str| word.rsplit('/').next().unwrap_or_default().to_owned();
        let names: Vec<String> = words.iter().map(name).collect();
        let uses = |tools: &[&str]| names.iter().any(|name| tools.contains(&name.as_str()));
        let program = || names.iter().find_map(|name| find(PROGRAMS, |program| program == name));
        let controls = uses(&CONTROL) || words.iter().any(|word| word.starts_with("/etc/init.d/"));
        let started = || names.iter().filter(|_| controls).find_map(|name| unit(name));
        let account = || (uses(&ACCOUNT_TOOLS) && words.iter().any(|word| self.is_login(word))).then_some(LOGIN);
        let files = uses(&FILE_TOOLS);
        let path = || words.iter().filter(|word| word.starts_with('/')).find_map(|word| self.path(word.trim_end_matches('/'), files));
        program().or_else(started).or_else(account).or_else(path)
    }

    /// Why a step of a rollback is guarded: what it restores, or what it runs.
    pub fn step(&self, change: Option<(&Key, &Attrs, &Attrs)>, command: Option<&str>) -> Option<String> {
        let change = change.and_then(|(key, from, to)| self.change(key, from, to));
        change.or_else(|| command.and_then(|command| self.command(command))).map(str::to_owned)
    }

    /// Why packages by these names would be guarded.
    pub fn packages(&self, names: &Value) -> Option<&'static str> {
        match names {
            Value::Str(name) => package(name),
            Value::List(names) => names.iter().find_map(|name| self.packages(name)),
            Value::Map(names) => names.iter().find_map(|(name, _)| package(&name.to_text())),
            _ => None,
        }
    }

    fn is_login(&self, name: &str) -> bool {
        self.login.as_ref().is_some_and(|login| login.name == name)
    }

    fn path(&self, path: &str, above: bool) -> Option<&'static str> {
        let meets = |guarded: &str| match guarded.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix) || (above && within(path, prefix)),
            None => within(guarded, path) || (above && within(path, guarded)),
        };
        let of_login = || {
            let login = self.login.as_ref()?;
            let home = login.home.trim_end_matches('/');
            (path == home || path == login.shell || self.home.iter().any(|below| meets(below))).then_some(LOGIN)
        };
        find(PATHS, meets).or_else(|| unit_of_file(path)).or_else(of_login)
    }
}

fn find(table: &[(&'static str, &[&str])], meets: impl Fn(&str) -> bool) -> Option<&'static str> {
    table.iter().find(|(_, entries)| entries.iter().any(|entry| meets(entry))).map(|(why, _)| *why)
}

fn package(name: &str) -> Option<&'static str> {
    find(PACKAGES, |prefix| name.starts_with(prefix))
}

fn unit(name: &str) -> Option<&'static str> {
    let stem = name.split(['@', '.']).next().unwrap_or_default();
    find(UNITS, |unit| unit == stem)
}

/// A unit's file, or what lies in its `.d`.
fn unit_of_file(path: &str) -> Option<&'static str> {
    let (_, rest) = path.split_once("/systemd/system/")?;
    rest.split('/').find_map(unit)
}

/// Whether a path is another or below it.
fn within(top: &str, path: &str) -> bool {
    let top = top.trim_end_matches('/');
    path == top || path.strip_prefix(top).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::attributes;

    fn cuts() -> Cuts {
        let login = User { name: "deploy".into(), home: "/home/deploy".into(), shell: "/bin/bash".into(), ..User::default() };
        Cuts::for_login(vec!["deploy".into(), "admins".into()], Some(login))
    }

    #[test]
    fn things_that_can_cut_the_connection_are_told_with_their_reason() {
        for (key, why) in [
            ("file:/etc/ssh/sshd_config.d/a.conf", Some(SSHD)),
            ("file:/etc/ssh", Some(SSHD)),
            ("file:/etc", Some(NETWORK)),
            ("file:/etc/motd", None),
            ("file:/etc/sshguard", None),
            ("file:/etc/systemd/system/ssh.service.d/override.conf", Some(SSHD)),
            ("file:/etc/systemd/system/nginx.service", None),
            ("file:/etc/sudoers.d/lab", Some(SUDO)),
            ("file:/etc/pam.d/sshd", Some(PAM)),
            ("file:/etc/sysconfig/network-scripts/ifcfg-eth0", Some(NETWORK)),
            ("file:/home/deploy/.ssh/authorized_keys", Some(LOGIN)),
            ("file:/home/deploy", Some(LOGIN)),
            ("file:/home", Some(LOGIN)),
            ("file:/home/deploy/notes", None),
            ("file:/home/other/.ssh/authorized_keys", None),
            ("file:/bin/bash", Some(LOGIN)),
            ("mount:/home", Some(LOGIN)),
            ("mount:/srv", None),
            ("service:ssh.service", Some(SSHD)),
            ("service:wg-quick@wg0.service", Some(NETWORK)),
            ("service:nginx.service", None),
            ("user:deploy", Some(LOGIN)),
            ("user:alice", None),
            ("group:admins", Some(LOGIN)),
            ("group:games", None),
            ("sysctl:net.ipv4.conf.all.rp_filter", Some(NETWORK)),
            ("sysctl:vm.swappiness", None),
        ] {
            assert_eq!(cuts().key(&key.parse().unwrap(), true), why, "{key}");
        }
        // A directory that is made has nothing below it.
        assert_eq!(cuts().key(&"file:/home".parse().unwrap(), false), None);
    }

    #[test]
    fn packages_count_where_they_change() {
        let version = |text: &str| attributes([("openssh-server".into(), Value::from(text)), ("nginx".into(), Value::from("1"))]);
        let key: Key = "packages:apt".parse().unwrap();
        assert_eq!(cuts().change(&key, &version("1"), &version("2")), Some(SSHD));
        assert_eq!(cuts().change(&key, &version("1"), &version("1")), None);
        let nginx = attributes([("nginx".into(), Value::from("2"))]);
        assert_eq!(cuts().change(&key, &version("1"), &nginx), None);
        let all = attributes([("nginx".into(), Value::from("1")), ("@all".into(), Value::from("yes"))]);
        assert_eq!(cuts().change(&key, &version("1"), &all), Some(SSHD));
    }

    #[test]
    fn commands_are_known_by_the_programs_units_users_and_paths_that_they_name() {
        for (command, why) in [
            ("ip link set eth0 down", Some(NETWORK)),
            ("sleep 1; /sbin/ip route flush table main", Some(NETWORK)),
            ("zip -r a.zip ip.txt", None),
            ("iptables -P INPUT DROP", Some(FIREWALL)),
            ("(sleep 2; nft flush ruleset) &", Some(FIREWALL)),
            ("systemctl restart networking", Some(NETWORK)),
            ("systemctl --no-block stop ssh.service", Some(SSHD)),
            ("systemctl restart nginx", None),
            ("/etc/init.d/ssh restart", Some(SSHD)),
            ("pkill sshd", Some(SSHD)),
            ("ssh backup ls", None),
            ("usermod -s /usr/sbin/nologin deploy", Some(LOGIN)),
            ("usermod -aG video alice", None),
            ("echo broken >/etc/sudoers.d/lab", Some(SUDO)),
            ("sed -i s/yes/no/ /etc/ssh/sshd_config", Some(SSHD)),
            (": > /home/deploy/.ssh/authorized_keys", Some(LOGIN)),
            ("chmod 777 /home/deploy", Some(LOGIN)),
            ("chmod -R 700 /etc", Some(NETWORK)),
            ("ls /etc /home", None),
            ("date > /var/lib/stamp", None),
        ] {
            assert_eq!(cuts().command(command), why, "{command}");
        }
    }
}
