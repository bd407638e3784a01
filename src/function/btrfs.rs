//! btrfs.*: subvolumes, snapshots, properties, quotas. `subvolume_created`, `subvolume_deleted` and `properties` are Salt's; the others are ours.
//!
//! A rollback deletes a subvolume that it finds empty; one with something in it stays, unless it is told `--destroy-data`.

use super::args::Args;
use super::file::place;
use super::{Arg, ArgKind, Entry, Function, There, Want};
use crate::diagnostic::Result;
use crate::plan::{Key, Kind, Low};
use crate::value::{Attrs, Value, attributes};

const NAME: Arg = Arg::new("name", ArgKind::Str, "", "The path of the subvolume; with `device` from the top of the filesystem.");
const DEVICE: Arg = Arg::new(
    "device",
    ArgKind::Str,
    "",
    "The device of the filesystem, which need not be mounted. Default: the name is a path of the host.",
);

const CREATED: &[Arg] = &[
    NAME,
    DEVICE,
    Arg::new("qgroupids", ArgKind::Strs, "", "Quota groups (`1/100`) that a new subvolume is put in."),
    Arg::new("set_default", ArgKind::Bool, "False", "It is mounted where no subvolume is named."),
    Arg::new("copy_on_write", ArgKind::Bool, "True", "False switches copy on write off for what comes into it."),
    Arg::new("force_set_default", ArgKind::Bool, "True", "False sets the default only together with making the subvolume."),
];
const DELETED: &[Arg] = &[NAME, DEVICE, Arg::new("commit", ArgKind::Any, "False", "Accepted without effect: btrfs commits by itself.")];
const PROPERTIES: &[Arg] = &[
    NAME,
    DEVICE,
    Arg::new("ro", ArgKind::Bool, "", "Whether nothing can be written in it."),
    Arg::new("compression", ArgKind::Str, "", "How new files are compressed: zstd, lzo, zlib, none."),
    Arg::new("use_default", ArgKind::Bool, "False", "Accepted without effect: the name says which subvolume is meant."),
];
const SNAPSHOT: &[Arg] = &[
    Arg::new("name", ArgKind::Str, "", "The path of the snapshot; with `device` from the top of the filesystem."),
    Arg::new("source", ArgKind::Str, "", "The path of the subvolume that it is made of."),
    DEVICE,
    Arg::new("readonly", ArgKind::Bool, "False", "Whether nothing can be written in it."),
    Arg::new("qgroupids", ArgKind::Strs, "", "Quota groups (`1/100`) that it is put in."),
];
const QUOTA: &[Arg] = &[Arg::new("name", ArgKind::Str, "", "A path in the filesystem."), DEVICE];
const LIMITED: &[Arg] = &[
    NAME,
    DEVICE,
    Arg::new("referenced", ArgKind::Any, "", "What it may hold, shared with others or not: `10G`, or none."),
    Arg::new("exclusive", ArgKind::Any, "", "What it may hold alone: `10G`, or none."),
];

pub const FUNCTIONS: &[Entry] = &[
    Entry { name: "btrfs.properties", doc: "A subvolume has these properties.", args: PROPERTIES, watches: false, parse: properties },
    Entry {
        name: "btrfs.qgroup_limited",
        doc: "A subvolume may not grow beyond a limit (ours).",
        args: LIMITED,
        watches: false,
        parse: limited,
    },
    Entry {
        name: "btrfs.quota_disabled",
        doc: "A btrfs does not count what its subvolumes take (ours).",
        args: QUOTA,
        watches: false,
        parse: quota_off,
    },
    Entry {
        name: "btrfs.quota_enabled",
        doc: "A btrfs counts what its subvolumes take (ours).",
        args: QUOTA,
        watches: false,
        parse: quota_on,
    },
    Entry {
        name: "btrfs.snapshot_created",
        doc: "There is a snapshot of a subvolume; one that is there stays as it is (ours).",
        args: SNAPSHOT,
        watches: false,
        parse: snapshot,
    },
    Entry { name: "btrfs.subvolume_created", doc: "There is a subvolume.", args: CREATED, watches: false, parse: created },
    Entry {
        name: "btrfs.subvolume_deleted",
        doc: "There is no subvolume at a path; what is in it goes.",
        args: DELETED,
        watches: false,
        parse: deleted,
    },
];

struct Subvolume {
    /// A path of the host, where the filesystem is not found by its device.
    path: Option<String>,
    key: Key,
    /// The filesystem, where something of it is wanted.
    filesystem: Option<(Key, Attrs)>,
    /// Wanted of a new one, and of one that is there; `None`: it is to be absent, or has to be there.
    new: Option<Attrs>,
    old: Option<Attrs>,
    force_default: bool,
}

/// The path and the keys of a subvolume and of the filesystem that it is in.
fn place_of(args: &Args, name: &str) -> Result<(Option<String>, Key, Key)> {
    match args.str("device")?.filter(|device| !device.is_empty()) {
        None => {
            let path = place::absolute(args, "name", name)?;
            let filesystem = Key::new(Kind::Btrfs, place::parent(&path));
            Ok((Some(path.clone()), Key::new(Kind::Subvolume, path), filesystem))
        }
        Some(device) if device.starts_with("/dev/") => {
            let inside = place::normal(&format!("/{name}"));
            Ok((None, Key::new(Kind::Subvolume, format!("{device}::{inside}")), Key::new(Kind::Btrfs, format!("{device}::/"))))
        }
        Some(device) => Err(args.error(format!("device of {} is to be a path below /dev, found {device:?}", args.0.function()))),
    }
}

/// Quota groups: `1/100`.
fn groups(args: &Args) -> Result<Option<(String, Value)>> {
    let groups = args.strs("qgroupids")?;
    let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if let Some(wrong) = groups.iter().find(|g| !g.split_once('/').is_some_and(|(level, id)| number(level) && number(id))) {
        return Err(args.error(format!("{wrong:?} is no quota group (1/100)")));
    }
    Ok((!groups.is_empty()).then(|| ("groups".to_owned(), Value::Str(groups.join(",")))))
}

fn there_is() -> Attrs {
    attributes([("subvolume".to_owned(), Value::Bool(true))])
}

fn created(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let (path, key, filesystem) = place_of(&args, &args.name())?;
    let nocow = (!args.bool("copy_on_write", true)?).then(|| ("nocow".to_owned(), Value::Bool(true)));
    let default = args.bool("set_default", false)?.then(|| {
        let inside = key.name.split_once("::").map_or(key.name.as_str(), |(_, inside)| inside);
        (filesystem, attributes([("default_to".to_owned(), Value::str(inside))]))
    });
    Ok(Box::new(Subvolume {
        new: Some(there_is().into_iter().chain(nocow.clone()).chain(groups(&args)?).collect()),
        old: Some(there_is().into_iter().chain(nocow).collect()),
        force_default: args.bool("force_set_default", true)?,
        filesystem: default,
        path,
        key,
    }))
}

fn deleted(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let (path, key, _) = place_of(&args, &args.name())?;
    Ok(Box::new(Subvolume { path, key, filesystem: None, new: None, old: Some(Attrs::new()), force_default: false }))
}

fn properties(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let (path, key, _) = place_of(&args, &args.name())?;
    let mut wanted = Attrs::new();
    if args.value("ro").is_some() {
        let value = if args.bool("ro", false)? { Value::Bool(true) } else { Value::Null };
        wanted.insert("readonly".into(), value);
    }
    if let Some(kind) = args.str("compression")? {
        wanted.insert("compression".into(), if kind.is_empty() || kind == "none" { Value::Null } else { Value::Str(kind) });
    }
    if wanted.is_empty() {
        return Err(args.error("btrfs.properties needs ro or compression"));
    }
    Ok(Box::new(Subvolume { path, key, filesystem: None, new: None, old: Some(wanted), force_default: false }))
}

fn snapshot(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let source = args.str("source")?.ok_or_else(|| args.error("btrfs.snapshot_created needs the source it is made of"))?;
    let (path, key, _) = place_of(&args, &args.name())?;
    let source = if path.is_some() { place::absolute(&args, "source", &source)? } else { place::normal(&format!("/{source}")) };
    let readonly = args.bool("readonly", false)?.then(|| ("readonly".to_owned(), Value::Bool(true)));
    let new = there_is().into_iter().chain([("source".to_owned(), Value::Str(source))]).chain(readonly).chain(groups(&args)?);
    Ok(Box::new(Subvolume { path, key, filesystem: None, new: Some(new.collect()), old: Some(there_is()), force_default: false }))
}

/// Bytes: a number, or one with K, M, G, T behind it.
fn bytes(args: &Args, name: &str) -> Result<Option<Value>> {
    let Some(text) = args.str(name)?.map(|text| text.trim().to_ascii_uppercase()) else { return Ok(None) };
    if text == "NONE" {
        return Ok(Some(Value::Null));
    }
    let plain = text.trim_end_matches('B').trim_end_matches('I');
    let units = [('K', 10), ('M', 20), ('G', 30), ('T', 40), ('P', 50)];
    let (digits, shift) = match units.iter().find(|(unit, _)| plain.ends_with(*unit)) {
        Some((unit, shift)) => (plain.trim_end_matches(*unit), *shift),
        None => (plain, 0),
    };
    let number = digits.trim().parse::<i64>().ok().and_then(|n| n.checked_mul(1 << shift)).filter(|n| *n > 0);
    number.map(|n| Some(Value::Int(n))).ok_or_else(|| args.error(format!("{name} is a size such as 10G, or none; found {text:?}")))
}

fn limited(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let (path, key, _) = place_of(&args, &args.name())?;
    let mut wanted = Attrs::new();
    for name in ["referenced", "exclusive"] {
        wanted.extend(bytes(&args, name)?.map(|value| (name.to_owned(), value)));
    }
    if wanted.is_empty() {
        return Err(args.error("btrfs.qgroup_limited needs referenced or exclusive"));
    }
    Ok(Box::new(Subvolume { path, key, filesystem: None, new: None, old: Some(wanted), force_default: false }))
}

impl Function for Subvolume {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        let mut keys = vec![self.key.clone()];
        keys.extend(self.filesystem.iter().map(|(key, _)| key.clone()));
        if let Some(path) = self.path.as_ref().filter(|_| self.new.is_some() && there.get(&self.key).is_empty()) {
            keys.extend(place::parent_keys(there, path, true));
        }
        Ok(keys)
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        let now = there.get(&self.key);
        let mut wants = Vec::new();
        match (now.is_empty(), &self.new, &self.old) {
            (true, Some(new), _) => {
                if let Some(path) = &self.path {
                    let made = place::attrs([("kind", "directory"), ("mode", place::NEW_DIRECTORY)]);
                    wants.extend(place::parents(there, path, Some(&made))?);
                }
                wants.push((self.key.clone(), new.clone()));
            }
            (true, None, Some(old)) if old.is_empty() => return Ok(Want::Nothing(format!("Subvolume {} already missing", self.key.name))),
            (true, None, _) if there.uncertain() => return Ok(Want::Unknown(format!("{} is not there yet", self.key.name))),
            (true, None, _) => {
                return Err(place::failed(format!("there is no subvolume {}", self.key.name))
                    .hint("btrfs.subvolume_created makes it")
                    .into());
            }
            (false, _, Some(old)) => wants.push((self.key.clone(), old.clone())),
            (false, _, None) => {}
        }
        if let Some((key, wanted)) = &self.filesystem
            && !now.get("default").is_some_and(Value::truthy)
            && (self.force_default || now.is_empty())
        {
            wants.push((key.clone(), wanted.clone()));
        }
        Ok(Want::Is(wants))
    }
}

struct Quota {
    key: Key,
    on: bool,
}

fn quota_on(low: &Low) -> Result<Box<dyn Function>> {
    quota(low, true)
}

fn quota_off(low: &Low) -> Result<Box<dyn Function>> {
    quota(low, false)
}

fn quota(low: &Low, on: bool) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let key = match place_of(&args, &args.name())? {
        (Some(path), ..) => Key::new(Kind::Btrfs, path),
        (None, _, filesystem) => filesystem,
    };
    Ok(Box::new(Quota { key, on }))
}

impl Function for Quota {
    fn objects(&self, _: &dyn There) -> Result<Vec<Key>> {
        Ok(vec![self.key.clone()])
    }

    fn want(&self, _: &dyn There) -> Result<Want> {
        let value = if self.on { Value::Bool(true) } else { Value::Null };
        Ok(Want::Is(vec![(self.key.clone(), attributes([("quota".to_owned(), value)]))]))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Host, answer, want};
    use super::*;
    use serde_json::json;

    fn host() -> Host {
        let mut host = Host::default();
        host.has("file:/pool", json!({"kind": "directory"}));
        host.has("subvolume:/pool/a", json!({"subvolume": true, "id": 256, "readonly": true, "referenced": 1024}));
        host.has("subvolume:/dev/vdb::/@", json!({"subvolume": true, "id": 257, "default": true}));
        host
    }

    #[test]
    fn subvolumes_are_made_changed_and_deleted() {
        let directory = json!(["file:/pool/x", {"kind": "directory", "mode": "0755"}]);
        for (function, args, wanted) in [
            ("subvolume_created", json!({"name": "/pool/a"}), json!([["subvolume:/pool/a", {"subvolume": true}]])),
            (
                "subvolume_created",
                json!({"name": "/pool/x/b", "copy_on_write": false, "qgroupids": ["1/7"], "set_default": true}),
                json!([directory, ["subvolume:/pool/x/b", {"groups": "1/7", "nocow": true, "subvolume": true}], ["btrfs:/pool/x", {"default_to": "/pool/x/b"}]]),
            ),
            (
                "subvolume_created",
                json!({"name": "@", "device": "/dev/vdb", "set_default": true}),
                json!([["subvolume:/dev/vdb::/@", {"subvolume": true}]]),
            ),
            ("subvolume_deleted", json!({"name": "/pool/a"}), json!([["subvolume:/pool/a", {}]])),
            (
                "snapshot_created",
                json!({"name": "/pool/s", "source": "/pool/a", "readonly": true}),
                json!([["subvolume:/pool/s", {"readonly": true, "source": "/pool/a", "subvolume": true}]]),
            ),
            (
                "properties",
                json!({"name": "/pool/a", "ro": false, "compression": "zstd"}),
                json!([["subvolume:/pool/a", {"compression": "zstd", "readonly": null}]]),
            ),
            ("qgroup_limited", json!({"name": "/pool/a", "referenced": "1.5G"}), json!(null)),
            (
                "qgroup_limited",
                json!({"name": "/pool/a", "referenced": "2MiB", "exclusive": "none"}),
                json!([["subvolume:/pool/a", {"exclusive": null, "referenced": 2097152}]]),
            ),
            ("quota_enabled", json!({"name": "/pool"}), json!([["btrfs:/pool", {"quota": true}]])),
        ] {
            let function = format!("btrfs.{function}");
            assert_eq!(want(&host(), &function, args.clone()).unwrap_or_default(), wanted, "{function} {args}");
        }
        assert!(matches!(answer(&host(), "btrfs.subvolume_deleted", json!({"name": "/pool/none"})), Ok(Want::Nothing(_))));
        assert_eq!(
            want(&host(), "btrfs.properties", json!({"name": "/pool/none", "ro": true})).unwrap_err(),
            "there is no subvolume /pool/none"
        );
    }
}
