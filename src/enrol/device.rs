//! The disks of a machine, and why one cannot be used: Aquarium's three reasons.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A disk below this is of no use, in GB.
const SMALLEST: u64 = 10;
const GB: u64 = 1_000_000_000;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// `sdb`.
    pub name: String,
    pub size_gb: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<Rejected>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Rejected {
    InUse,
    TooSmall,
    RemovableDevice,
}

impl Rejected {
    pub fn name(self) -> &'static str {
        match self {
            Rejected::InUse => "in use",
            Rejected::TooSmall => "too small",
            Rejected::RemovableDevice => "removable",
        }
    }
}

/// The disks of the machine whose root this is. What cannot be read is not a disk.
pub fn devices(root: &Path) -> Vec<Device> {
    let Ok(listed) = std::fs::read_dir(root.join("sys/block")) else { return Vec::new() };
    let mut names: Vec<String> = listed.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let used = used(root);
    // What is made of memory or of files is no disk.
    let virtual_ = |name: &String| ["loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd"].iter().any(|kind| name.starts_with(kind));
    names.into_iter().filter(|name| !virtual_(name)).filter_map(|name| device(root, name, &used)).collect()
}

fn device(root: &Path, name: String, used: &BTreeSet<String>) -> Option<Device> {
    let folder = root.join("sys/block").join(&name);
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).ok();
    let sectors: u64 = read("size")?.trim().parse().ok()?;
    let size_gb = sectors.saturating_mul(512) / GB;
    let parts = || std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let has_parts = parts().any(|part| part.starts_with(&name));
    let held = std::fs::read_dir(folder.join("holders")).is_ok_and(|mut holders| holders.next().is_some());
    let mut rejected = Vec::new();
    if has_parts || held || used.contains(&name) {
        rejected.push(Rejected::InUse);
    }
    if size_gb < SMALLEST {
        rejected.push(Rejected::TooSmall);
    }
    if read("removable").is_some_and(|flag| flag.trim() == "1") {
        rejected.push(Rejected::RemovableDevice);
    }
    Some(Device { name, size_gb, rejected })
}

/// Devices that are mounted or swapped on.
fn used(root: &Path) -> BTreeSet<String> {
    let lines = |file: &str| std::fs::read_to_string(root.join(file)).unwrap_or_default();
    let text = lines("proc/mounts") + &lines("proc/swaps");
    text.lines().filter_map(|line| line.split_whitespace().next()?.strip_prefix("/dev/").map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_disk_has_the_reasons_why_it_cannot_be_used() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let file = root.path().join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        };
        for (name, sectors, removable) in
            [("sda", 40_000_000, 0), ("sdb", 40_000_000, 0), ("sdc", 1_000_000, 1), ("sdd", 40_000_000, 0), ("loop0", 40_000_000, 0)]
        {
            write(&format!("sys/block/{name}/size"), &format!("{sectors}\n"));
            write(&format!("sys/block/{name}/removable"), &format!("{removable}\n"));
        }
        write("sys/block/sda/sda1/size", "1\n");
        write("proc/mounts", "/dev/sdb /srv btrfs rw 0 0\ntmpfs /run tmpfs rw 0 0\n");
        let found: Vec<_> = devices(root.path()).into_iter().map(|device| (device.name, device.size_gb, device.rejected)).collect();
        assert_eq!(
            found,
            [
                ("sda".into(), 20, vec![Rejected::InUse]),
                ("sdb".into(), 20, vec![Rejected::InUse]),
                ("sdc".into(), 0, vec![Rejected::TooSmall, Rejected::RemovableDevice]),
                ("sdd".into(), 20, vec![]),
            ]
        );
        assert_eq!(devices(Path::new("/nonexistent")), []);
    }
}
