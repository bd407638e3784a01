//! What a block device holds: a filesystem, swap space, a partition table, a part of a volume group … as `blkid` finds it on the device
//! itself, or nothing.
//!
//! Attributes: `exists`, and where something is on it `holds` (`ext4`, `swap`, `LVM2_member` …), `table` (of partitions), `uuid`, `label`; of
//! a partition `partuuid`, `partlabel`. Only on the way: `options` (words for mkfs), `force`.
//!
//! Formatting is one-way: what was on the device is lost, and a rollback leaves the new filesystem with what people have put in it since. Told
//! `--destroy-data` it takes away what marks it as one, where the device held nothing before.

use super::mount::{command, mounts};
use super::swap::swaps;
use super::{Object, Progress};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::plan::{Key, Kind};
use crate::system::{Command, FileKind, System};
use crate::value::{Attrs, Value, attributes};

pub struct Blockdev {
    device: String,
}

impl Blockdev {
    pub fn new(device: &str) -> Blockdev {
        Blockdev { device: device.to_owned() }
    }
}

/// What `blkid` finds on a device, by its own look at it (no cache).
pub fn probe(sys: &System, device: &str) -> Result<Attrs> {
    let output = sys.run(&Command::new(["blkid", "-p", "-o", "export", device]))?;
    // 2: nothing is on it.
    if !output.success() && output.status != 2 {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let why = if output.status == 8 { "what is on it is ambiguous".to_owned() } else { said };
        return Err(Diagnostic::new(Code::Failed, format!("{device} cannot be looked into: {why}")).into());
    }
    let names = [
        ("TYPE", "holds"),
        ("PTTYPE", "table"),
        ("UUID", "uuid"),
        ("LABEL", "label"),
        ("PART_ENTRY_UUID", "partuuid"),
        ("PART_ENTRY_NAME", "partlabel"),
    ];
    let text = output.text();
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let known = pairs.filter_map(|(name, value)| {
        let (_, ours) = names.iter().find(|(theirs, _)| *theirs == name)?;
        Some(((*ours).to_owned(), Value::Str(value.replace('\\', ""))))
    });
    Ok(attributes(known))
}

/// What makes use of a device now: it must not be formatted, whatever the state says.
fn in_use(sys: &System, device: &str) -> Result<Option<String>> {
    let place = sys.resolve(device);
    let name = place.rsplit('/').next().unwrap_or_default();
    if let Some(mount) = mounts(sys)?.into_iter().find(|m| m.device == place || m.device == device) {
        return Ok(Some(format!("it is mounted at {}", mount.path)));
    }
    if swaps(sys)?.iter().any(|(swap, _)| *swap == place) {
        return Ok(Some("it is swapped to".to_owned()));
    }
    for uuid in sys.list("/sys/fs/btrfs")? {
        if sys.list(&format!("/sys/fs/btrfs/{uuid}/devices"))?.iter().any(|d| d == name) {
            return Ok(Some(format!("it is a part of the mounted btrfs {uuid}")));
        }
    }
    let holders = sys.list(&format!("/sys/class/block/{name}/holders"))?;
    Ok((!holders.is_empty()).then(|| format!("{} is made of it", holders.join(", "))))
}

fn text<'a>(attrs: &'a Attrs, name: &str) -> Option<&'a str> {
    attrs.get(name).and_then(Value::as_str)
}

/// What is on a device, for people; `None`: nothing that is known.
pub fn content(attrs: &Attrs) -> Option<String> {
    let label = text(attrs, "label").map(|label| format!(" with the label {label}")).unwrap_or_default();
    match (text(attrs, "holds"), text(attrs, "table")) {
        (Some(holds), _) => Some(format!("{holds}{label}")),
        (None, Some(table)) => Some(format!("a partition table ({table})")),
        (None, None) => None,
    }
}

impl Object for Blockdev {
    fn key(&self) -> Key {
        Key::new(Kind::Blockdev, &self.device)
    }

    fn read(&self, sys: &System) -> Result<Attrs> {
        let place = sys.resolve(&self.device);
        match sys.stat(&place)?.map(|stat| stat.kind) {
            None => return Ok(Attrs::new()),
            Some(FileKind::Other | FileKind::File) => {}
            Some(_) => return Err(Diagnostic::new(Code::Failed, format!("{} is not a block device", self.device)).into()),
        }
        let mut attrs = probe(sys, &place)?;
        attrs.insert("exists".into(), Value::Bool(true));
        Ok(attrs)
    }

    fn set(&self, sys: &System, from: &Attrs, to: &Attrs, progress: &mut Progress) -> Result<Attrs> {
        let device = &self.device;
        let restoring = to.contains_key("exists");
        if text(to, "holds") == text(from, "holds") && (!restoring || text(to, "table") == text(from, "table")) {
            return Ok(from.clone());
        }
        let refused = |why: String| Diagnostic::new(Code::Failed, format!("{device} is left as it is: {why}"));
        if let Some(why) = in_use(sys, device)? {
            return Err(refused(why).hint("unmount it, or name another device").into());
        }
        // What was planned is looked at once more: another minute may have brought a filesystem.
        let now = self.read(sys)?;
        if restoring {
            if let Some(before) = content(to) {
                return Err(refused(format!("{before} was on it before, and that is lost")).into());
            }
            command(sys, progress, vec!["wipefs".into(), "--all".into(), device.clone()])?;
            return self.read(sys);
        }
        let force = to.get("force").is_some_and(Value::truthy);
        if let Some(there) = content(&now).filter(|_| !force) {
            return Err(refused(format!("it holds {there}")).hint("`force: True` formats it nevertheless").into());
        }
        let kind = text(to, "holds").unwrap_or_default();
        let mut argv = vec![if kind == "swap" { "mkswap".to_owned() } else { format!("mkfs.{kind}") }];
        argv.extend(to.get("options").and_then(Value::as_list).unwrap_or_default().iter().map(Value::to_text));
        // These ask, or refuse, where something is there; it has been looked at.
        match kind {
            "ext2" | "ext3" | "ext4" => argv.push("-F".to_owned()),
            "btrfs" | "xfs" | "f2fs" | "swap" if force => argv.push("-f".to_owned()),
            _ => {}
        }
        argv.push(device.clone());
        command(sys, progress, argv)?;
        let reached = self.read(sys)?;
        match text(&reached, "holds") == Some(kind) {
            true => Ok(reached),
            false => {
                let there = content(&reached).unwrap_or_else(|| "nothing".to_owned());
                Err(Diagnostic::new(Code::Failed, format!("{device} was formatted with {kind}, and holds {there}")).into())
            }
        }
    }

    fn one_way(&self, _sys: &System, from: &Attrs, to: &Attrs) -> Option<String> {
        if text(to, "holds") == text(from, "holds") {
            return None;
        }
        Some(match content(from) {
            Some(there) => format!("formatting destroys what is on {}: {there}", self.device),
            None => format!("a rollback leaves {} formatted, with what is on it then", self.device),
        })
    }

    fn destroys(&self, _sys: &System, from: &Attrs, to: &Attrs) -> Option<String> {
        let there = content(from)?;
        (text(from, "uuid") != text(to, "uuid") || text(from, "holds") != text(to, "holds"))
            .then(|| format!("{} holds {there}, and everything in it", self.device))
    }

    fn describe(&self, _sys: &System, from: &Attrs, to: &Attrs) -> String {
        let was = content(from).unwrap_or_else(|| "nothing".to_owned());
        format!("{was} → {}\n", content(to).unwrap_or_else(|| "nothing".to_owned()))
    }
}
