//! lvm.*: physical volumes, volume groups, logical volumes.
//!
//! A logical volume that a run made stays when the run is taken back, with what is in it, unless the rollback is told `--destroy-data`.

use super::args::Args;
use super::file::place;
use super::{Arg, ArgKind, Entry, Function, There, Want};
use crate::diagnostic::Result;
use crate::plan::{Key, Kind, Low};
use crate::value::{Attrs, Value, attributes};

const DEVICE: Arg = Arg::new("name", ArgKind::Str, "", "The device.");
const GROUP: Arg = Arg::new("name", ArgKind::Str, "", "The volume group.");
const VOLUME: Arg = Arg::new("name", ArgKind::Str, "", "The logical volume.");
const VGNAME: Arg = Arg::new("vgname", ArgKind::Str, "", "The volume group that it is in; of a thin volume `GROUP/POOL`.");

const PV_PRESENT: &[Arg] = &[
    DEVICE,
    Arg::new("dataalignment", ArgKind::Str, "", "Where data begins: a multiple of this."),
    Arg::new("metadatasize", ArgKind::Str, "", "Room for metadata."),
];
const VG_PRESENT: &[Arg] = &[
    GROUP,
    Arg::new("devices", ArgKind::Strs, "", "Its physical volumes; others that are in it stay."),
    Arg::new("physicalextentsize", ArgKind::Str, "", "The size of an extent of a new group."),
];
const LV_PRESENT: &[Arg] = &[
    VOLUME,
    VGNAME,
    Arg::new("size", ArgKind::Any, "", "Its size in megabytes, or with K, M, G, T, P (or S: sectors) behind it."),
    Arg::new("extents", ArgKind::Any, "", "Its size in extents, or as lvcreate says it (`100%FREE`), which counts only for a new one."),
    Arg::new("snapshot", ArgKind::Str, "", "The name of a snapshot that is made of it."),
    Arg::new("pv", ArgKind::Str, "", "The physical volume that a new one lies on."),
    Arg::new("thinvolume", ArgKind::Bool, "False", "It lies in a thin pool."),
    Arg::new("thinpool", ArgKind::Bool, "False", "It is a thin pool."),
    Arg::new("force", ArgKind::Bool, "False", "It may shrink, and what is at its end is lost."),
    Arg::new("resizefs", ArgKind::Bool, "False", "The filesystem in it is resized too."),
];

pub const FUNCTIONS: &[Entry] = &[
    Entry {
        name: "lvm.lv_absent",
        doc: "There is no such logical volume; what is in it goes.",
        args: &[VOLUME, VGNAME],
        watches: false,
        parse: lv_absent,
    },
    Entry { name: "lvm.lv_present", doc: "There is a logical volume, of this size.", args: LV_PRESENT, watches: false, parse: lv_present },
    Entry { name: "lvm.pv_absent", doc: "A device is no physical volume.", args: &[DEVICE], watches: false, parse: pv_absent },
    Entry {
        name: "lvm.pv_present",
        doc: "A device is a physical volume; one that holds anything else is refused.",
        args: PV_PRESENT,
        watches: false,
        parse: pv_present,
    },
    Entry {
        name: "lvm.vg_absent",
        doc: "There is no such volume group; one with volumes in it is refused.",
        args: &[GROUP],
        watches: false,
        parse: vg_absent,
    },
    Entry {
        name: "lvm.vg_present",
        doc: "There is a volume group with these physical volumes.",
        args: VG_PRESENT,
        watches: false,
        parse: vg_present,
    },
];

/// One object as it is to be, or absent.
struct Volume {
    key: Key,
    wanted: Wanted,
}

enum Wanted {
    Absent,
    /// A physical volume with these options.
    Physical(Vec<String>),
    Group {
        devices: Vec<String>,
        options: Vec<String>,
    },
    Logical {
        size: Option<i64>,
        options: Vec<String>,
        force: bool,
        resizefs: bool,
        volume: String,
    },
}

/// The name of a group or volume, as LVM takes it.
fn named(args: &Args, what: &str, name: &str) -> Result<String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "+_.-".contains(c);
    match !name.is_empty() && !name.starts_with('-') && name.chars().all(good) {
        true => Ok(name.to_owned()),
        false => Err(args.error(format!("{name:?} cannot be the name of a {what}"))),
    }
}

fn key(kind: &str, name: &str) -> Key {
    Key::new(Kind::Lvm, format!("{kind}:{name}"))
}

/// `--NAME VALUE` for those that are given.
fn flags(args: &Args, names: &[&str]) -> Result<Vec<String>> {
    let mut out = Vec::new();
    for name in names {
        if let Some(value) = args.str(name)? {
            out.extend([format!("--{name}"), value]);
        }
    }
    Ok(out)
}

fn pv_present(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let options = flags(&args, &["dataalignment", "metadatasize"])?;
    Ok(Box::new(Volume { key: key("pv", &place::name(&args)?), wanted: Wanted::Physical(options) }))
}

fn pv_absent(low: &Low) -> Result<Box<dyn Function>> {
    Ok(Box::new(Volume { key: key("pv", &place::name(&Args(low))?), wanted: Wanted::Absent }))
}

fn vg_present(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let devices: Vec<String> =
        args.strs("devices")?.iter().flat_map(|d| d.split(',')).map(|d| d.trim().to_owned()).filter(|d| !d.is_empty()).collect();
    let devices = devices.iter().map(|device| place::absolute(&args, "devices", device)).collect::<Result<Vec<_>>>()?;
    if devices.is_empty() {
        return Err(args.error("lvm.vg_present needs devices"));
    }
    let options = flags(&args, &["physicalextentsize"])?;
    Ok(Box::new(Volume { key: key("vg", &named(&args, "volume group", &args.name())?), wanted: Wanted::Group { devices, options } }))
}

fn vg_absent(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    Ok(Box::new(Volume { key: key("vg", &named(&args, "volume group", &args.name())?), wanted: Wanted::Absent }))
}

fn lv_absent(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let group = args.str("vgname")?.ok_or_else(|| args.error("lvm.lv_absent needs a vgname"))?;
    let volume = format!("{}/{}", named(&args, "volume group", &group)?, named(&args, "logical volume", &args.name())?);
    Ok(Box::new(Volume { key: key("lv", &volume), wanted: Wanted::Absent }))
}

/// Bytes of Salt's sizes: megabytes where no unit is named.
fn bytes(args: &Args) -> Result<Option<i64>> {
    let Some(text) = args.str("size")? else { return Ok(None) };
    let text = text.trim().to_ascii_lowercase();
    let (digits, unit) = text.split_at(text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).len());
    let factor: f64 = match unit {
        "s" => 512.0,
        "k" => 1024.0,
        "" | "m" => 1_048_576.0,
        "g" => 1_073_741_824.0,
        "t" => 1_099_511_627_776.0,
        "p" => 1_125_899_906_842_624.0,
        _ => return Err(args.error(format!("Unit {unit} is invalid."))),
    };
    let number = digits.trim().parse::<f64>().ok().filter(|n| *n > 0.0 && *n * factor < 9.0e18);
    number.map(|n| Some((n * factor) as i64)).ok_or_else(|| args.error(format!("{text:?} is no size")))
}

fn lv_present(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let group = args.str("vgname")?.ok_or_else(|| args.error("lvm.lv_present needs a vgname"))?;
    let (group, pool) = group.split_once('/').map_or((group.as_str(), None), |(group, pool)| (group, Some(pool)));
    let (group, name) = (named(&args, "volume group", group)?, named(&args, "logical volume", &args.name())?);
    let (size, extents) = (bytes(&args)?, args.str("extents")?);
    if size.is_some() && extents.is_some() {
        return Err(args.error("Only one of extents or size can be specified."));
    }
    let thin = args.bool("thinvolume", false)?;
    let mut options: Vec<String> = Vec::new();
    let mut add = |words: &[&str]| options.extend(words.iter().map(|word| (*word).to_owned()));
    let snapshot = args.str("snapshot")?.map(|snapshot| named(&args, "snapshot", &snapshot)).transpose()?;
    let volume = snapshot.clone().unwrap_or_else(|| name.clone());
    add(&["-n", &volume]);
    match (&size, &extents) {
        (Some(size), _) => add(&[if thin { "-V" } else { "-L" }, &format!("{size}b")]),
        (None, Some(extents)) => add(&["-l", extents]),
        (None, None) if snapshot.is_some() => {}
        (None, None) => return Err(args.error("lvm.lv_present needs a size or extents")),
    }
    if snapshot.is_some() {
        add(&["-s", &format!("{group}/{name}")]);
    } else if thin {
        let pool = pool.ok_or_else(|| args.error("a thin volume needs a vgname with its pool: GROUP/POOL"))?;
        add(&["--thinpool", &named(&args, "thin pool", pool)?, &group]);
    } else if args.bool("thinpool", false)? {
        add(&["--type", "thin-pool", &group]);
    } else {
        add(&[&group]);
    }
    if let Some(pv) = args.str("pv")?.filter(|pv| !pv.is_empty()) {
        add(&[&place::absolute(&args, "pv", &pv)?]);
    }
    let volume = format!("{group}/{volume}");
    let (force, resizefs) = (args.bool("force", false)?, args.bool("resizefs", false)?);
    Ok(Box::new(Volume { key: key("lv", &volume), wanted: Wanted::Logical { size, options, force, resizefs, volume } }))
}

impl Function for Volume {
    fn objects(&self, _: &dyn There) -> Result<Vec<Key>> {
        Ok(vec![self.key.clone()])
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        let now = there.get(&self.key);
        let list = |words: &[String]| Value::List(words.iter().map(Value::str).collect());
        let is = |attrs: Attrs| Ok(Want::Is(vec![(self.key.clone(), attrs)]));
        let text = |name: &str| now.get(name).map(Value::to_text).unwrap_or_default();
        match &self.wanted {
            Wanted::Absent if now.is_empty() => Ok(Want::Nothing(format!("{} does not exist", self.key.name))),
            Wanted::Absent if !text("group").is_empty() => {
                Err(place::failed(format!("{} is in the volume group {}, and stays", self.key.name, text("group"))).into())
            }
            Wanted::Absent if !["", "0"].contains(&text("volumes").as_str()) => {
                Err(place::failed(format!("{} has {} logical volumes, and stays", self.key.name, text("volumes"))).into())
            }
            Wanted::Absent => is(Attrs::new()),
            Wanted::Physical(_) if !now.is_empty() => Ok(Want::Nothing(format!("{} already present", self.key.name))),
            Wanted::Physical(options) => is(attributes([("physical".into(), Value::Bool(true)), ("options".into(), list(options))])),
            Wanted::Group { devices, options } => {
                let there_are = text("devices");
                let mut all: Vec<String> = there_are.split(',').filter(|d| !d.is_empty()).map(str::to_owned).collect();
                all.extend(devices.iter().filter(|d| !there_are.split(',').any(|t| t == *d)).cloned());
                all.sort();
                let mut wanted = attributes([("devices".to_owned(), Value::Str(all.join(",")))]);
                if now.is_empty() {
                    wanted.insert("options".into(), list(options));
                }
                is(wanted)
            }
            Wanted::Logical { size, options, .. } if now.is_empty() => {
                let size = size.map(|size| ("size".to_owned(), Value::Int(size)));
                is(size.into_iter().chain([("options".to_owned(), list(options))]).collect())
            }
            Wanted::Logical { size, force, resizefs, volume, .. } => {
                // LVM rounds up to whole extents, which are 4 MiB where nobody says otherwise.
                let rounding = 4 << 20;
                let there_is = now.get("size").and_then(Value::as_int).unwrap_or(0);
                match size {
                    Some(size) if *size > there_is || *size + rounding <= there_is => {
                        if *size < there_is && !force {
                            return Err(place::failed("To reduce a Logical Volume option 'force' must be True.").into());
                        }
                        let resizefs = resizefs.then(|| ("resizefs".to_owned(), Value::Bool(true)));
                        is(resizefs.into_iter().chain([("size".to_owned(), Value::Int(*size))]).collect())
                    }
                    _ => Ok(Want::Nothing(format!("Logical Volume {volume} already present"))),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Host, answer};
    use super::*;
    use serde_json::json;

    fn of(function: &str, args: serde_json::Value) -> serde_json::Value {
        let mut host = Host::default();
        host.has("lvm:pv:/dev/vdb", json!({"physical": true, "group": "data"}));
        host.has("lvm:vg:data", json!({"devices": "/dev/vdb", "volumes": "1"}));
        host.has("lvm:lv:data/home", json!({"size": 1 << 30}));
        match answer(&host, &format!("lvm.{function}"), args) {
            Ok(Want::Is(wants)) => serde_json::to_value(&wants[0]).unwrap(),
            Ok(Want::Nothing(why)) => json!(why),
            Ok(other) => panic!("{other:?}"),
            Err(why) => json!({ "fails": why }),
        }
    }

    #[test]
    fn volumes_are_made_resized_and_removed() {
        for (function, args, wanted) in [
            ("pv_present", json!({"name": "/dev/vdb"}), json!("pv:/dev/vdb already present")),
            ("pv_present", json!({"name": "/dev/vdc"}), json!(["lvm:pv:/dev/vdc", {"options": [], "physical": true}])),
            ("pv_absent", json!({"name": "/dev/vdb"}), json!({"fails": "pv:/dev/vdb is in the volume group data, and stays"})),
            (
                "vg_present",
                json!({"name": "data", "devices": "/dev/vdb,/dev/vdc"}),
                json!(["lvm:vg:data", {"devices": "/dev/vdb,/dev/vdc"}]),
            ),
            ("vg_absent", json!({"name": "data"}), json!({"fails": "vg:data has 1 logical volumes, and stays"})),
            ("lv_present", json!({"name": "home", "vgname": "data", "size": "1G"}), json!("Logical Volume data/home already present")),
            (
                "lv_present",
                json!({"name": "home", "vgname": "data", "size": 2048, "resizefs": true}),
                json!(["lvm:lv:data/home", {"resizefs": true, "size": 2u64 << 30}]),
            ),
            (
                "lv_present",
                json!({"name": "home", "vgname": "data", "size": "512M"}),
                json!({"fails": "To reduce a Logical Volume option 'force' must be True."}),
            ),
            (
                "lv_present",
                json!({"name": "new", "vgname": "data", "extents": "100%FREE"}),
                json!(["lvm:lv:data/new", {"options": ["-n", "new", "-l", "100%FREE", "data"]}]),
            ),
            (
                "lv_present",
                json!({"name": "home", "vgname": "data", "snapshot": "snap", "size": "1G"}),
                json!(["lvm:lv:data/snap", {"options": ["-n", "snap", "-L", "1073741824b", "-s", "data/home"], "size": 1 << 30}]),
            ),
            ("lv_absent", json!({"name": "home", "vgname": "data"}), json!(["lvm:lv:data/home", {}])),
            (
                "lv_present",
                json!({"name": "-x", "vgname": "data", "size": 1}),
                json!({"fails": "\"-x\" cannot be the name of a logical volume"}),
            ),
        ] {
            assert_eq!(of(function, args.clone()), wanted, "{function} {args}");
        }
    }
}
