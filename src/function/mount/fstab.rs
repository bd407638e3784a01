//! Lines of `/etc/fstab`: which of them an entry is, and the file with it or without. The file is a `file:` object like any other.

use crate::diagnostic::{Code, Diagnostic, Result};

/// Filesystems whose entries are known by their mount point: their devices are no names of their own.
const BY_NAME: [&str; 14] = [
    "none",
    "tmpfs",
    "sysfs",
    "proc",
    "fusectl",
    "debugfs",
    "securityfs",
    "devtmpfs",
    "cgroup",
    "nfs",
    "nfs4",
    "glusterfs",
    "btrfs",
    "ceph",
];
const FIELDS: [&str; 6] = ["device", "name", "fstype", "opts", "dump", "pass_num"];

/// An entry in the order of its fields.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry(pub [String; 6]);

impl Entry {
    /// A line that is one; comments and damaged lines are none.
    fn parse(line: &str) -> Option<Entry> {
        if line.starts_with('#') {
            return None;
        }
        let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        if !(4..=6).contains(&words.len()) {
            return None;
        }
        words.resize(6, "0".to_owned());
        <[String; 6]>::try_from(words).ok().map(Entry)
    }

    pub fn opts(&self) -> &str {
        &self.0[3]
    }

    /// Whether a field is the same; options in any order.
    fn agrees(&self, other: &Entry, field: usize) -> bool {
        let sorted = |text: &str| {
            let mut words: Vec<String> = text.split(',').map(str::to_owned).collect();
            words.sort();
            words
        };
        match (self.0.get(field), other.0.get(field)) {
            (Some(a), Some(b)) if field == 3 => sorted(a) == sorted(b),
            (a, b) => a == b,
        }
    }

    /// As Salt writes it.
    fn line(&self) -> String {
        let [device, name, fstype, opts, dump, pass] = &self.0;
        format!("{device}\t\t{name}\t{fstype}\t{opts}\t{dump} {pass}\n")
    }
}

/// A blank in a field.
pub fn escape(text: &str) -> String {
    text.replace("\\ ", " ").replace(' ', "\\040").replace('\t', "\\011")
}

/// By which fields an entry is found: what `match_on` says.
pub fn criteria(match_on: &[String], fstype: &str) -> Result<Vec<usize>> {
    let field = |name: &str| -> Result<usize> {
        FIELDS.iter().position(|field| *field == name).ok_or_else(|| {
            let error = Diagnostic::new(Code::Failed, format!("Unrecognized keys in match_on: {name:?}"));
            error.hint(format!("fields are {}", FIELDS.join(", "))).into()
        })
    };
    match match_on {
        [] => criteria(&["auto".to_owned()], fstype),
        [one] if one == "auto" => Ok(vec![usize::from(BY_NAME.contains(&fstype))]),
        names => names.iter().map(|name| field(name)).collect(),
    }
}

/// What adding an entry comes to.
#[derive(Debug, PartialEq)]
pub enum Edit {
    Present,
    New(String),
    Changed(String),
}

/// The text with an entry in it, where `criteria` find its line.
pub fn with(text: &str, entry: &Entry, criteria: &[usize], not_change: bool) -> Edit {
    let mut out = String::with_capacity(text.len() + 80);
    let (mut found, mut changed) = (false, false);
    for line in text.split_inclusive('\n') {
        match Entry::parse(line) {
            Some(there) if criteria.iter().all(|field| there.agrees(entry, *field)) => {
                found = true;
                if not_change || (0..6).all(|field| there.agrees(entry, field)) {
                    out.push_str(line);
                } else {
                    changed = true;
                    out.push_str(&entry.line());
                }
            }
            _ => out.push_str(line),
        }
    }
    match (found, changed) {
        (true, false) => Edit::Present,
        (true, true) => Edit::Changed(out),
        (false, _) => {
            if !out.is_empty() && !out.ends_with('\n') {
                out.push('\n');
            }
            Edit::New(out + &entry.line())
        }
    }
}

/// The text without the entries of a mount point, and of a device where one is named.
pub fn without(text: &str, name: &str, device: Option<&str>) -> String {
    let goes = |line: &str| Entry::parse(line).is_some_and(|there| there.0[1] == name && device.is_none_or(|device| there.0[0] == device));
    text.split_inclusive('\n').filter(|line| !goes(line)).collect()
}

/// The options that the file gives for a mount point.
pub fn options(text: &str, name: &str) -> Option<String> {
    text.lines().filter_map(Entry::parse).find(|entry| entry.0[1] == name).map(|entry| entry.opts().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(device: &str, name: &str, fstype: &str, opts: &str) -> Entry {
        Entry([device, name, fstype, opts, "0", "0"].map(str::to_owned))
    }

    #[test]
    fn entries_are_found_changed_and_added_as_salt_does() {
        let text = "# static\n/dev/a / ext4 errors=remount-ro 0 1\nhost:/x\t/n nfs rw,hard\nbroken line\n";
        let by = |fstype: &str| criteria(&[], fstype).unwrap();
        assert_eq!((by("ext4"), by("nfs")), (vec![0], vec![1]));
        assert_eq!(criteria(&["name".into(), "fstype".into()], "x").unwrap(), [1, 2]);
        assert!(criteria(&["nmae".into()], "x").is_err());
        assert_eq!(with(text, &entry("host:/x", "/n", "nfs", "hard,rw"), &by("nfs"), false), Edit::Present);
        let changed = text.replace("host:/x\t/n nfs rw,hard\n", "host:/y\t\t/n\tnfs\tro\t0 0\n");
        assert_eq!(with(text, &entry("host:/y", "/n", "nfs", "ro"), &by("nfs"), false), Edit::Changed(changed));
        assert_eq!(with(text, &entry("host:/y", "/n", "nfs", "ro"), &by("nfs"), true), Edit::Present);
        let new = entry("/dev/b", "/b", "ext4", "defaults");
        assert_eq!(with("x y", &new, &by("ext4"), false), Edit::New("x y\n/dev/b\t\t/b\text4\tdefaults\t0 0\n".into()));
        assert_eq!(without(text, "/n", Some("other")), text);
        assert_eq!(without(text, "/n", None), text.replace("host:/x\t/n nfs rw,hard\n", ""));
        assert_eq!(options(text, "/").as_deref(), Some("errors=remount-ro"));
        assert_eq!(escape("/a b"), "/a\\040b");
    }
}
