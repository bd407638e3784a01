//! blockdev.*: filesystems on devices. A device that holds anything is left alone, unless `force` says otherwise.

use super::args::Args;
use super::file::place;
use super::{Arg, ArgKind, Entry, Function, There, Want};
use crate::diagnostic::Result;
use crate::object::blockdev::content;
use crate::plan::{Key, Kind, Low};
use crate::value::{Value, attributes};

const FORMATTED: &[Arg] = &[
    Arg::new("name", ArgKind::Str, "", "The device."),
    Arg::new("fs_type", ArgKind::Str, "ext4", "The filesystem; `swap` makes swap space (ours)."),
    Arg::new("force", ArgKind::Bool, "False", "Format it also where something else is on it, which is lost."),
    Arg::new("inode_size", ArgKind::Int, "", "Bytes of an inode (ext, xfs)."),
    Arg::new("lazy_itable_init", ArgKind::Bool, "", "Whether inode tables are made later (ext)."),
    Arg::new("fat", ArgKind::Int, "", "Bits of the table: 12, 16 or 32 (vfat)."),
    Arg::new("label", ArgKind::Str, "", "The filesystem's label (ours)."),
];

pub const FUNCTIONS: &[Entry] = &[Entry {
    name: "blockdev.formatted",
    doc: "A device holds a filesystem of this kind. One-way: a rollback leaves it, with what is in it.",
    args: FORMATTED,
    watches: false,
    parse: formatted,
}];

struct Formatted {
    device: String,
    kind: String,
    force: bool,
    options: Vec<String>,
}

fn formatted(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let kind = args.str("fs_type")?.unwrap_or_else(|| "ext4".to_owned());
    if kind.is_empty() || !kind.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(args.error(format!("fs_type {kind:?} cannot be a filesystem")));
    }
    let ext = kind.starts_with("ext");
    let mut options = Vec::new();
    let mut add = |words: [String; 2]| options.extend(words);
    match args.int("inode_size")? {
        Some(size) if ext => add(["-I".into(), size.to_string()]),
        Some(size) if kind == "xfs" => add(["-i".into(), format!("size={size}")]),
        Some(_) => return Err(args.error(format!("inode_size is not known of {kind}"))),
        None => {}
    }
    if args.value("lazy_itable_init").is_some() {
        if !ext {
            return Err(args.error(format!("lazy_itable_init is not known of {kind}")));
        }
        add(["-E".into(), format!("lazy_itable_init={}", u8::from(args.bool("lazy_itable_init", false)?))]);
    }
    match args.int("fat")? {
        Some(bits) if kind.ends_with("fat") => add(["-F".into(), bits.to_string()]),
        Some(_) => return Err(args.error(format!("fat is not known of {kind}"))),
        None => {}
    }
    if let Some(label) = args.str("label")? {
        add([if kind.ends_with("fat") { "-n" } else { "-L" }.into(), label]);
    }
    Ok(Box::new(Formatted { device: place::name(&args)?, kind, force: args.bool("force", false)?, options }))
}

impl Formatted {
    /// The logical volume that `/dev/GROUP/VOLUME` is: an earlier state may make it.
    fn volume(&self) -> Option<Key> {
        let (group, volume) = self.device.strip_prefix("/dev/")?.split_once('/')?;
        (!volume.contains('/') && group != "mapper" && group != "disk").then(|| Key::new(Kind::Lvm, format!("lv:{group}/{volume}")))
    }
}

impl Function for Formatted {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        let key = Key::new(Kind::Blockdev, &self.device);
        let absent = there.get(&key).is_empty();
        Ok(std::iter::once(key).chain(self.volume().filter(|_| absent)).collect())
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        let key = Key::new(Kind::Blockdev, &self.device);
        let now = there.get(&key);
        let comes = self.volume().is_some_and(|volume| !there.get(&volume).is_empty());
        if now.is_empty() && !comes {
            return match there.uncertain() {
                true => Ok(Want::Unknown(format!("what is on {} is known when it is there", self.device))),
                false => Err(place::failed(format!("{} does not exist", self.device)).into()),
            };
        }
        if now.get("holds").and_then(Value::as_str) == Some(&self.kind) {
            return Ok(Want::Nothing(format!("{} already formatted with {}", self.device, self.kind)));
        }
        if let Some(content) = content(&now).filter(|_| !self.force) {
            let otherwise = "`force: True` formats it nevertheless";
            return Err(place::failed(format!("{} is not formatted: it holds {content}; {otherwise}", self.device)).into());
        }
        let mut wanted = attributes([("holds".to_owned(), Value::str(&self.kind)), ("fresh".to_owned(), Value::Bool(true))]);
        if !self.options.is_empty() {
            wanted.insert("options".into(), Value::List(self.options.iter().map(Value::str).collect()));
        }
        if self.force {
            wanted.insert("force".into(), Value::Bool(true));
        }
        // What was on it goes, whatever it was.
        wanted.extend(["table", "uuid", "label"].into_iter().filter(|n| now.contains_key(*n)).map(|n| (n.to_owned(), Value::Null)));
        Ok(Want::Is(vec![(key, wanted)]))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Host, want};
    use serde_json::json;

    #[test]
    fn a_device_that_holds_something_is_left_alone() {
        let mut host = Host::default();
        host.has("blockdev:/dev/empty", json!({"exists": true}));
        host.has("blockdev:/dev/full", json!({"exists": true, "holds": "xfs", "label": "data", "uuid": "u"}));
        host.has("blockdev:/dev/parted", json!({"exists": true, "table": "gpt"}));
        host.has("lvm:lv:data/new", json!({"size": 1}));
        let want = |args| want(&host, "blockdev.formatted", args);
        assert_eq!(
            want(json!({"name": "/dev/empty", "inode_size": 512})).unwrap(),
            json!([["blockdev:/dev/empty", {"fresh": true, "holds": "ext4", "options": ["-I", "512"]}]])
        );
        assert_eq!(
            want(json!({"name": "/dev/full", "fs_type": "btrfs", "force": true})).unwrap(),
            json!([["blockdev:/dev/full", {"force": true, "fresh": true, "holds": "btrfs", "label": null, "uuid": null}]])
        );
        assert_eq!(want(json!({"name": "/dev/data/new"})).unwrap()[0][1]["holds"], json!("ext4"));
        for (args, said) in [
            (
                json!({"name": "/dev/full"}),
                "/dev/full is not formatted: it holds xfs with the label data; `force: True` formats it nevertheless",
            ),
            (
                json!({"name": "/dev/parted"}),
                "/dev/parted is not formatted: it holds a partition table (gpt); `force: True` formats it nevertheless",
            ),
            (json!({"name": "/dev/none"}), "/dev/none does not exist"),
            (json!({"name": "/dev/empty", "fs_type": "xfs", "fat": 32}), "fat is not known of xfs"),
        ] {
            assert_eq!(want(args).unwrap_err(), said);
        }
    }
}
