//! test, sys, grains, environ, user, group, shadow, pkg, service, status, disk and the like.

use super::{Arguments, Body, mapping, texts};
use crate::agent::grains;
use crate::diagnostic::Result;
use crate::object::Object;
use crate::object::packages::manager;
use crate::object::packages::version::{self, Order};
use crate::object::service::Service;
use crate::object::user::{GECOS, User};
use crate::system::System;
use crate::value::{Attrs, Map, Value};

pub(super) const FUNCTIONS: &[(&str, Body)] = &[
    ("alternatives.show_current", |sys, a| {
        Ok(sys.readlink(&format!("/etc/alternatives/{}", a.text(0, "name")?))?.map_or(false.into(), Value::from))
    }),
    ("disk.usage", disk_usage),
    ("environ.get", |_, a| Ok(std::env::var(a.text(0, "key")?).unwrap_or_else(|_| a.text_or(1, "default", "")).into())),
    ("environ.has_value", |_, a| {
        Ok(std::env::var(a.text(0, "key")?).is_ok_and(|v| a.value(1, "value").is_none_or(|w| w.to_text() == v)).into())
    }),
    ("environ.items", |_, _| Ok(Value::Map(std::env::vars().collect::<Map>()))),
    ("grains.get", |sys, a| {
        let all = Value::Map(a.grains(sys));
        let default = a.value(1, "default").cloned().unwrap_or_else(|| "".into());
        Ok(all.traverse(&a.text(0, "key")?, &a.text_or(2, "delimiter", ":")).cloned().unwrap_or(default))
    }),
    ("grains.has_value", |sys, a| Ok(Value::Map(a.grains(sys)).traverse(&a.text(0, "key")?, ":").is_some_and(Value::truthy).into())),
    ("grains.item", |sys, a| {
        let all = a.grains(sys);
        Ok(Value::Map(a.names().into_iter().filter_map(|name| Some((name.clone(), all.get(&name)?.clone()))).collect::<Map>()))
    }),
    ("grains.items", |sys, a| Ok(Value::Map(a.grains(sys)))),
    ("grains.ls", |sys, a| {
        let mut names: Vec<String> = a.grains(sys).iter().map(|(name, _)| name.to_text()).collect();
        names.sort();
        Ok(texts(names))
    }),
    ("group.getent", |sys, _| Ok(Value::List(sys.groups()?.iter().map(group).collect()))),
    ("group.info", |sys, a| Ok(sys.group(&a.text(0, "name")?)?.as_ref().map_or_else(|| mapping([]), group))),
    ("group.list_groups", |sys, _| Ok(sorted(sys.groups()?.iter().map(|g| g.name.clone()).collect()))),
    ("pkg.latest_version", |sys, a| latest(sys, a)),
    ("pkg.list_pkgs", |sys, a| {
        let all = manager::installed(sys)?.into_iter();
        Ok(Value::Map(if a.flag(0, "versions_as_list") {
            all.map(|(name, version)| (name, texts(version.split(',')))).collect()
        } else {
            all.collect()
        }))
    }),
    ("pkg.upgrade_available", |sys, a| Ok(latest(sys, a)?.truthy().into())),
    ("pkg.version", |sys, a| {
        let all = manager::installed(sys)?;
        Ok(by_name(a, |name| all.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap_or_default()))
    }),
    ("pkg.version_cmp", |sys, a| {
        let plain =
            |v: String| if a.flag(2, "ignore_epoch") { v.split_once(':').map_or(v.clone(), |(_, rest)| rest.to_owned()) } else { v };
        Ok((order(sys)(&plain(a.text(0, "pkg1")?), &plain(a.text(1, "pkg2")?)) as i32).into())
    }),
    ("service.available", |sys, a| Ok(unit(sys, a)?.contains_key("exists").into())),
    ("service.disabled", |sys, a| Ok((!enabled(&unit(sys, a)?)).into())),
    ("service.enabled", |sys, a| Ok(enabled(&unit(sys, a)?).into())),
    ("service.get_all", |sys, _| Ok(texts(services(sys)?))),
    ("service.masked", |sys, a| Ok(unit(sys, a)?.contains_key("masked").into())),
    ("service.missing", |sys, a| Ok((!unit(sys, a)?.contains_key("exists")).into())),
    ("service.status", |sys, a| {
        let name = a.text(0, "name")?;
        if !name.contains(['*', '?', '[']) {
            return Ok(unit(sys, a)?.contains_key("active").into());
        }
        let pattern = name.strip_suffix(".service").unwrap_or(&name);
        let mut out = Map::new();
        for name in services(sys)?.into_iter().filter(|n| super::file::glob(pattern.as_bytes(), n.as_bytes())) {
            let active = Service::new(&format!("{name}.service")).read(sys)?.contains_key("active");
            out.insert(name, active);
        }
        Ok(Value::Map(out))
    }),
    ("shadow.info", shadow),
    ("status.loadavg", |sys, _| {
        let text = sys.read("/proc/loadavg")?.unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let of = |i: usize| text.split_whitespace().nth(i).and_then(|n| n.parse::<f64>().ok()).map_or(Value::Null, Value::Float);
        Ok(mapping([("1-min", of(0)), ("5-min", of(1)), ("15-min", of(2))]))
    }),
    ("status.uptime", |sys, _| {
        let text = sys.read("/proc/uptime")?.unwrap_or_default();
        let seconds = String::from_utf8_lossy(&text).split('.').next().and_then(|s| s.parse::<i64>().ok()).unwrap_or(0);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
        Ok(mapping([
            ("seconds", Value::Int(seconds)),
            ("since_t", Value::Int(now - seconds)),
            ("days", Value::Int(seconds / 86400)),
            ("time", format!("{}:{}", seconds % 86400 / 3600, seconds % 3600 / 60).into()),
        ]))
    }),
    ("sys.list_functions", |_, a| {
        let wanted = a.names();
        let fits = |name: &str| {
            wanted.is_empty() || wanted.iter().any(|w| name == w || name.strip_prefix(w.as_str()).is_some_and(|r| r.starts_with('.')))
        };
        Ok(texts(super::names().into_iter().filter(|name| fits(name))))
    }),
    ("sys.list_modules", |_, _| {
        let mut modules: Vec<&str> = super::names().into_iter().filter_map(|n| n.split('.').next()).collect();
        modules.dedup();
        Ok(texts(modules))
    }),
    ("test.echo", |_, a| Ok(a.text(0, "text")?.into())),
    ("test.false", |_, _| Ok(false.into())),
    ("test.ping", |_, _| Ok(true.into())),
    ("test.true", |_, _| Ok(true.into())),
    ("test.version", |_, _| Ok(grains::SALT_VERSION.into())),
    ("timezone.get_zone", |sys, _| {
        let link = sys.readlink("/etc/localtime")?.unwrap_or_default();
        Ok(link.split_once("zoneinfo/").map_or("UTC", |(_, zone)| zone).into())
    }),
    ("user.getent", |sys, _| {
        let users = sys.passwd()?;
        let all: Result<Vec<Value>> = users.iter().map(|u| user(sys, u)).collect();
        Ok(Value::List(all?))
    }),
    ("user.info", |sys, a| sys.user(&a.text(0, "name")?)?.as_ref().map_or_else(|| Ok(mapping([])), |u| user(sys, u))),
    ("user.list_groups", |sys, a| groups(sys, &a.text(0, "name")?).map(texts)),
    ("user.list_users", |sys, _| Ok(sorted(sys.passwd()?.iter().map(|u| u.name.clone()).collect()))),
    ("user.primary_group", |sys, a| Ok(sys.user(&a.text(0, "name")?)?.map_or_else(String::new, |u| sys.group_name(u.gid)).into())),
];

/// The names of all services, sorted.
fn services(sys: &System) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for place in ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system", "/run/systemd/system"] {
        names.extend(sys.list(place)?.into_iter().filter_map(|n| n.strip_suffix(".service").map(str::to_owned)));
    }
    names.sort();
    names.dedup();
    Ok(names)
}

fn sorted(mut names: Vec<String>) -> Value {
    names.sort();
    names.dedup();
    texts(names)
}

fn groups(sys: &System, name: &str) -> Result<Vec<String>> {
    let Some(user) = sys.user(name)? else { return Ok(Vec::new()) };
    let mut all: Vec<String> = sys.supplementary(name)?.into_iter().map(|gid| sys.group_name(gid)).collect();
    all.push(sys.group_name(user.gid));
    all.sort();
    all.dedup();
    Ok(all)
}

fn user(sys: &System, user: &crate::system::User) -> Result<Value> {
    let mut out = Map::new();
    out.insert("name", user.name.as_str());
    out.insert("uid", user.uid);
    out.insert("gid", user.gid);
    out.insert("passwd", user.password.as_str());
    out.insert("home", user.home.as_str());
    out.insert("shell", user.shell.as_str());
    out.insert("groups", texts(groups(sys, &user.name)?));
    let mut parts = user.gecos.splitn(5, ',');
    for part in GECOS {
        out.insert(part, parts.next().unwrap_or_default());
    }
    Ok(Value::Map(out))
}

fn group(group: &crate::system::Group) -> Value {
    mapping([
        ("name", group.name.as_str().into()),
        ("passwd", group.password.as_str().into()),
        ("gid", group.gid.into()),
        ("members", texts(group.members.iter().cloned())),
    ])
}

fn shadow(sys: &System, args: &Arguments) -> Result<Value> {
    let attrs = User::new(&args.text(0, "name")?).read(sys)?;
    let of = |name: &str| attrs.get(name).cloned().unwrap_or_else(|| "".into());
    Ok(mapping([
        ("name", of("name")),
        ("passwd", of("password")),
        ("lstchg", of("lastchanged")),
        ("min", of("mindays")),
        ("max", of("maxdays")),
        ("warn", of("warndays")),
        ("inact", of("inactdays")),
        ("expire", of("expire")),
    ]))
}

/// One answer for one name, a mapping for several.
fn by_name(args: &Arguments, answer: impl Fn(&str) -> String) -> Value {
    match args.names().as_slice() {
        [one] => answer(one).into(),
        names => Value::Map(names.iter().map(|name| (name.as_str(), answer(name))).collect::<Map>()),
    }
}

/// How this host's packages compare versions.
fn order(sys: &System) -> Order {
    if matches!(manager::family(sys), "dnf" | "dnf5" | "yum" | "zypper") { version::rpm } else { version::debian }
}

/// The version that could be installed; empty where nothing newer than what is there.
fn latest(sys: &System, args: &Arguments) -> Result<Value> {
    let names = args.names();
    let packages = manager::of(&manager::key(sys).name)?;
    let available = packages.available(sys, &names.iter().map(String::as_str).collect::<Vec<_>>())?;
    let now = manager::installed(sys)?;
    Ok(by_name(args, |name| {
        let newest = available.get(name).and_then(|all| all.first()).cloned().unwrap_or_default();
        let there = now.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let has = |versions: &str| versions.split(',').any(|v| packages.order()(v, &newest).is_ge());
        if there.is_some_and(has) { String::new() } else { newest }
    }))
}

fn unit(sys: &System, args: &Arguments) -> Result<Attrs> {
    let name = args.text(0, "name")?;
    let unit = if name.rsplit('.').next().is_some_and(|s| ["service", "socket", "timer", "target", "mount", "path"].contains(&s))
        && name.contains('.')
    {
        name
    } else {
        format!("{name}.service")
    };
    Service::new(&unit).read(sys)
}

fn enabled(unit: &Attrs) -> bool {
    unit.contains_key("enabled") || unit.contains_key("static")
}

/// Local filesystems only: one on a dead server would never answer.
fn disk_usage(sys: &System, _: &Arguments) -> Result<Value> {
    let mounts = sys.read("/proc/mounts")?.unwrap_or_default();
    let mut out = Map::new();
    for line in String::from_utf8_lossy(&mounts).lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [device, place, kind, ..] = words.as_slice() else { continue };
        let remote = kind.starts_with("nfs") || kind.starts_with("fuse") || ["cifs", "smb3", "ceph", "9p", "autofs"].contains(kind);
        let place = place.replace("\\040", " ");
        let Some(stat) = (!remote).then(|| rustix::fs::statvfs(sys.followed(&place)).ok()).flatten().filter(|s| s.f_blocks > 0) else {
            continue;
        };
        let kib = |blocks: u64| blocks.saturating_mul(stat.f_frsize) / 1024;
        let (total, used, free) = (kib(stat.f_blocks), kib(stat.f_blocks.saturating_sub(stat.f_bfree)), kib(stat.f_bavail));
        let capacity = (used * 100).div_ceil((used + free).max(1));
        let fields = [
            ("filesystem", Value::from(*device)),
            ("1K-blocks", total.to_string().into()),
            ("used", used.to_string().into()),
            ("available", free.to_string().into()),
            ("capacity", format!("{capacity}%").into()),
        ];
        out.insert(place, mapping(fields));
    }
    Ok(Value::Map(out))
}
