//! What lint knows beforehand: kinds of hosts, the functions of Salt, what every state takes, what a host would likely answer.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::super::high::REQUISITES;
use crate::function::{self, ArgKind};
use crate::value::{Map, Value};

/// Kinds of hosts by name, each with its grains: a base that all share, and what is its own.
pub fn families() -> Vec<(String, Map)> {
    let all: Value = serde_json::from_str(include_str!("families.json")).unwrap_or_default();
    let Value::Map(all) = all else { return Vec::new() };
    let base = all.get("base").and_then(Value::as_map).cloned().unwrap_or_default();
    let families = all.get("families").and_then(Value::as_map).into_iter().flatten();
    let laid_over = |own: &Value| {
        let mut grains = base.clone();
        grains.0.extend(own.as_map().into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())));
        grains
    };
    families.map(|(name, own)| (name.to_text(), laid_over(own))).collect()
}

/// A function of Salt's as its own table has it.
pub struct Known {
    pub args: Vec<&'static str>,
    /// Those that are True or False.
    truths: Vec<&'static str>,
    /// It takes any other argument too.
    pub any: bool,
}

impl Known {
    pub fn is_truth(&self, arg: &str) -> bool {
        self.truths.contains(&arg)
    }
}

/// The state functions of Salt 3008, which scripts/salt-states read.
static SALT: LazyLock<BTreeMap<&'static str, Known>> = LazyLock::new(|| {
    let mut out = BTreeMap::new();
    for line in include_str!("states.txt").lines() {
        let mut words = line.split(' ');
        let Some(name) = words.next() else { continue };
        let mut known = Known { args: Vec::new(), truths: Vec::new(), any: false };
        for word in words {
            match word.strip_suffix('?') {
                Some(truth) => {
                    known.truths.push(truth);
                    known.args.push(truth);
                }
                None if word == "*" => known.any = true,
                None => known.args.push(word),
            }
        }
        out.insert(name, known);
    }
    out
});

pub fn salts(function: &str) -> Option<&'static Known> {
    SALT.get(function)
}

/// All functions that Salt or basalt has.
pub fn functions() -> impl Iterator<Item = &'static str> {
    SALT.keys().copied().chain(function::entries().map(|entry| entry.name))
}

/// Whether Salt or basalt has a state module of this name.
pub fn has_module(module: &str) -> bool {
    functions().any(|name| name.split_once('.').is_some_and(|(m, _)| m == module))
}

/// State modules that left Salt for extensions of their own: a name near one of Salt's is none of Salt's misspelt.
pub fn is_extension(module: &str) -> bool {
    const FAMILIES: [&str; 26] = [
        "apache",
        "boto",
        "boto3",
        "docker",
        "elasticsearch",
        "glusterfs",
        "grafana4",
        "influxdb",
        "jenkins",
        "keystone",
        "kubernetes",
        "lxd",
        "mongodb",
        "mysql",
        "mssql",
        "neutron",
        "openvswitch",
        "postgres",
        "rabbitmq",
        "splunk",
        "tomcat",
        "trafficserver",
        "vault",
        "win",
        "zabbix",
        "zenoss",
    ];
    const MODULES: [&str; 36] = [
        "acme",
        "alternatives",
        "augeas",
        "bower",
        "composer",
        "ddns",
        "gem",
        "helm",
        "hg",
        "incron",
        "keystone",
        "logrotate",
        "lxc",
        "npm",
        "nfs_export",
        "pagerduty",
        "pdbedit",
        "pecl",
        "portage_config",
        "powerpath",
        "pyrax",
        "quota",
        "rbenv",
        "rsync",
        "rvm",
        "sensu",
        "solrcloud",
        "supervisord",
        "svn",
        "syslog_ng",
        "sysrc",
        "testinfra",
        "virt",
        "webutil",
        "zcbuildout",
        "zfs",
    ];
    MODULES.contains(&module)
        || FAMILIES.iter().any(|family| module.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with('_')))
}

/// What every state takes besides its function's own arguments.
pub const OF_ALL: [&str; 34] = [
    "name",
    "names",
    "order",
    "check_cmd",
    "cmd_opts_exclude",
    "failhard",
    "onlyif",
    "unless",
    "creates",
    "retry",
    "parallel",
    "reload_modules",
    "reload_grains",
    "reload_pillar",
    "runas",
    "runas_password",
    "no_log",
    "fire_event",
    "saltenv",
    "umask",
    "aggregate",
    "use",
    "use_in",
    "require_in",
    "watch_in",
    "onchanges_in",
    "onfail_in",
    "prereq_in",
    "listen_in",
    "state",
    "fun",
    "undo",
    "env",
    "cwd",
];

/// Everything that may stand among the arguments of any state.
pub fn of_all() -> impl Iterator<Item = &'static str> {
    OF_ALL.into_iter().chain(REQUISITES).chain(function::args::OF_CONDITIONS)
}

/// What people write for an argument that is called otherwise.
pub fn meant(argument: &str) -> Option<&'static str> {
    Some(match argument {
        "user" => "runas",
        "createdirs" | "mkdirs" | "create_dirs" => "makedirs",
        "show_diff" => "show_changes",
        "owner" => "user",
        "content" | "text" => "contents",
        "src" => "source",
        "enabled" => "enable",
        "command" | "cmd" => "name",
        "packages" => "pkgs",
        "directory" | "dir" | "chdir" => "cwd",
        _ => return None,
    })
}

/// Modules whose states react to what they watch.
pub fn reacts(module: &str) -> bool {
    super::super::low::WITH_MOD_WATCH.contains(&module)
}

/// Whether an argument is a truth, as far as basalt or Salt know.
pub fn is_truth(function: &str, arg: &str) -> bool {
    match function::find(function) {
        Some(entry) => entry.args.iter().any(|a| a.name == arg && a.kind == ArgKind::Bool),
        None => salts(function).is_some_and(|known| known.is_truth(arg)),
    }
}

/// What a host that was just installed answers, where that is likely enough.
pub fn answer(function: &str) -> Option<Value> {
    Some(match function {
        "cmd.run" | "cmd.shell" | "cmd.run_stdout" | "cmd.script" | "pkg.version" | "environ.get" | "pkg.latest_version" => Value::str(""),
        "cmd.retcode" => Value::Int(1),
        "file.file_exists"
        | "file.directory_exists"
        | "file.path_exists_glob"
        | "file.access"
        | "file.is_link"
        | "file.contains"
        | "file.search"
        | "cmd.has_exec"
        | "service.available"
        | "service.status"
        | "service.enabled"
        | "user.exists"
        | "pkg.is_installed" => Value::Bool(false),
        "mine.get" | "publish.publish" | "environ.items" | "network.interfaces" | "user.info" | "group.info" => Value::Map(Map::new()),
        "user.list_users" | "user.list_groups" | "network.ip_addrs6" => Value::List(Vec::new()),
        "network.ip_addrs" | "network.ipaddrs" => Value::List(vec![Value::str("192.0.2.10")]),
        "saltutil.runner" | "event.send" | "state.sls_exists" => Value::Bool(false),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_whole() {
        assert!(functions().count() > 400);
        assert!(salts("file.managed").is_some_and(|f| f.args.contains(&"contents_pillar") && f.is_truth("makedirs") && f.any));
        assert!(has_module("salt") && has_module("pip") && !has_module("fille"));
        let families = families();
        assert!(families.len() >= 6);
        for (name, grains) in &families {
            for grain in ["os", "os_family", "osfinger", "osrelease", "osmajorrelease", "oscodename", "kernel", "init", "cpuarch", "fqdn"] {
                assert!(grains.contains_key(grain), "{name} has no {grain}");
            }
        }
    }
}
