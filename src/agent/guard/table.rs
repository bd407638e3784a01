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
            "/etc/alternatives/iptables*",
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
    (
        PAM,
        &[
            "/etc/pam.d",
            "/etc/pam.conf",
            "/etc/security",
            "/etc/environment",
            "/etc/ld.so.preload",
            "/etc/ld.so.conf*",
            "/usr/lib/x86_64-linux-gnu/security",
            "/usr/lib/aarch64-linux-gnu/security",
            "/usr/lib64/security",
        ],
    ),
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
            "/run/nologin",
            "/var/run/nologin",
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
    // Without the last nobody but root may log in.
    (ACCOUNTS, &["sssd", "nslcd", "winbind", "systemd-user-sessions"]),
];

/// How names of packages begin.
const PACKAGES: &[(&str, &[&str])] = &[
    (SSHD, &["openssh-server", "openssh-sftp", "dropbear", "libssl", "openssl-libs", "crypto-policies"]),
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
        &[
            "ip",
            "ifconfig",
            "ifup",
            "ifdown",
            "nmcli",
            "netplan",
            "networkctl",
            "dhclient",
            "dhcpcd",
            "route",
            "tc",
            "bridge",
            "brctl",
            "ethtool",
            "rfkill",
            "iw",
            "iwconfig",
            "wpa_cli",
            "wg",
            "wg-quick",
        ],
    ),
    (
        FIREWALL,
        &["iptables", "ip6tables", "iptables-restore", "ip6tables-restore", "ebtables", "nft", "ufw", "firewall-cmd", "ipset", "shorewall"],
    ),
    (PAM, &["pam-auth-update", "authselect"]),
    (SUDO, &["visudo"]),
    (ACCOUNTS, &["chpasswd", "setenforce"]),
];

/// They start and end units: guarded with the name of such a unit beside them.
const CONTROL: [&str; 8] = ["systemctl", "service", "rc-service", "invoke-rc.d", "update-rc.d", "kill", "pkill", "killall"];
/// They change accounts: guarded with the login user's name beside them.
const ACCOUNT_TOOLS: [&str; 8] = ["passwd", "usermod", "userdel", "deluser", "chage", "chsh", "gpasswd", "groupmod"];
/// They can do harm to what is below a directory that they name.
const FILE_TOOLS: [&str; 6] = ["chmod", "chown", "chgrp", "mv", "rm", "setfacl"];

/// How kernel settings begin that decide which packets are taken, and how much memory there is for them.
const SYSCTL: &str = "net.";

/// Kernel modules that a connection may go through besides the drivers of this host's interfaces.
const MODULES: [&str; 12] =
    ["8021q", "bonding", "bridge", "dummy", "ip_tables", "ip6_tables", "nf_tables", "team", "tun", "veth", "wireguard", "x_tables"];

/// The table, and who logs in on this host.
pub struct Cuts {
    login: Option<User>,
    groups: Vec<String>,
    /// What of the login user's home counts.
    home: Vec<String>,
    /// Modules that drive its network interfaces.
    drivers: Vec<String>,
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
        let driver = |interface: String| sys.readlink(&format!("/sys/class/net/{interface}/device/driver/module")).ok().flatten();
        let interfaces = sys.list("/sys/class/net").unwrap_or_default();
        let name = |path: String| path.rsplit('/').next().unwrap_or_default().replace('-', "_");
        let drivers = interfaces.into_iter().filter_map(driver).map(name).collect();
        Some(Cuts { drivers, ..Cuts::for_login(member.chain(primary).collect(), login) })
    }

    fn for_login(groups: Vec<String>, login: Option<User>) -> Cuts {
        let home = login.as_ref().map_or("", |login| login.home.trim_end_matches('/'));
        let home = HOME.iter().filter(|_| !home.is_empty()).map(|name| format!("{home}/{name}")).collect();
        Cuts { login, groups, home, drivers: Vec::new() }
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
            Kind::File => self.path(&key.name, there),
            // What is below them comes and goes, or cannot be written any more.
            Kind::Mount | Kind::Git | Kind::Subvolume | Kind::Btrfs => self.path(&key.name, true),
            Kind::Service => unit(&key.name),
            Kind::User => self.is_login(&key.name).then_some(LOGIN),
            Kind::Group => self.groups.contains(&key.name).then_some(LOGIN),
            Kind::Iptables => Some(FIREWALL),
            Kind::Sysctl => key.name.starts_with(SYSCTL).then_some(NETWORK),
            Kind::Module => there.then_some(()).filter(|()| self.carries(&key.name)).map(|()| NETWORK),
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
        let kernel = || {
            // Without a name it takes the settings that files give.
            let setting = words
                .iter()
                .any(|word| word.starts_with(SYSCTL) || word.starts_with("net/") || ["-p", "--load", "--system"].contains(word));
            let module = uses(&["rmmod", "modprobe"]) && words.iter().any(|word| self.carries(word));
            ((uses(&["sysctl"]) && setting) || module).then_some(NETWORK)
        };
        let account = || (uses(&ACCOUNT_TOOLS) && words.iter().any(|word| self.is_login(word))).then_some(LOGIN);
        let files = uses(&FILE_TOOLS);
        let path = || words.iter().filter(|word| word.starts_with('/')).find_map(|word| self.path(word.trim_end_matches('/'), files));
        program().or_else(started).or_else(kernel).or_else(account).or_else(path)
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

    /// Whether the connection may go through this module. The kernel takes `-` for `_`.
    fn carries(&self, module: &str) -> bool {
        let module = module.replace('-', "_");
        MODULES.contains(&module.as_str()) || module.starts_with("nf_conntrack") || self.drivers.contains(&module)
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
        Cuts { drivers: vec!["e1000".into()], ..Cuts::for_login(vec!["deploy".into(), "admins".into()], Some(login)) }
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
            ("mount:/etc", Some(NETWORK)),
            ("mount:/", Some(NETWORK)),
            ("mount:/usr", Some(SSHD)),
            ("mount:/srv", None),
            ("subvolume:/home", Some(LOGIN)),
            ("subvolume:/srv/data", None),
            ("btrfs:/", Some(NETWORK)),
            ("git:/etc", Some(NETWORK)),
            ("iptables:ipv4/filter", Some(FIREWALL)),
            ("module:e1000", Some(NETWORK)),
            ("module:nf-tables", Some(NETWORK)),
            ("module:loop", None),
            ("file:/run/nologin", Some(ACCOUNTS)),
            ("file:/etc/environment", Some(PAM)),
            ("service:ssh.service", Some(SSHD)),
            ("service:wg-quick@wg0.service", Some(NETWORK)),
            ("service:nginx.service", None),
            ("user:deploy", Some(LOGIN)),
            ("user:alice", None),
            ("group:admins", Some(LOGIN)),
            ("group:games", None),
            ("sysctl:net.ipv4.conf.all.rp_filter", Some(NETWORK)),
            ("sysctl:net.ipv4.tcp_mem", Some(NETWORK)),
            ("sysctl:vm.swappiness", None),
            ("service:systemd-networkd.socket", Some(NETWORK)),
            ("service:sshd.socket", Some(SSHD)),
            ("service:systemd-user-sessions.service", Some(ACCOUNTS)),
        ] {
            assert_eq!(cuts().key(&key.parse().unwrap(), true), why, "{key}");
        }
        assert_eq!(cuts().key(&"module:e1000".parse().unwrap(), false), None, "it is not taken away");
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
    fn scripts_and_what_commands_read_are_looked_into() {
        let dir = tempfile::tempdir().unwrap();
        let sys = System::at(dir.path(), Box::new(crate::system::HostExec::new(dir.path(), Default::default())));
        let guarded = |state: &str, script: &str| {
            let hash = sys.contents().add(script.as_bytes().to_vec());
            let low = serde_json::json!({"id": "x", "sls": "s", "state": state, "fun": "script", "name": "salt://x.sh",
                "args": {}, "contents": [{"name": "source", "hash": hash, "size": script.len()}]});
            cuts().script(sys.contents(), &serde_json::from_value(low).unwrap())
        };
        assert_eq!(guarded("cmd", "#!/bin/sh\nset -e\nsystemctl stop systemd-networkd\n"), Some(NETWORK));
        assert_eq!(guarded("cmd", "#!/bin/sh\necho done > /srv/stamp\n"), None);
        assert_eq!(guarded("file", "systemctl stop systemd-networkd\n"), None, "it is not run");
        let command = |stdin: &str| {
            crate::function::Run::new(crate::system::Command { stdin: stdin.into(), ..crate::system::Command::new(["sh"]) }, "sh")
        };
        assert_eq!(cuts().run(&command("nft flush ruleset\n")), Some(FIREWALL));
        assert_eq!(cuts().run(&command("date\n")), None);
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
            ("sysctl -w net.ipv4.ip_forward=0", Some(NETWORK)),
            ("sysctl --system", Some(NETWORK)),
            ("sysctl vm.swappiness=1", None),
            ("modprobe -r e1000", Some(NETWORK)),
            ("modprobe loop", None),
            ("#!/bin/sh\nset -e\n# the end\nifdown eth0", Some(NETWORK)),
        ] {
            assert_eq!(cuts().command(command), why, "{command}");
        }
    }
}
