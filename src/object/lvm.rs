//! LVM: physical volumes (`lvm:pv:/dev/vdb`), volume groups (`lvm:vg:data`), logical volumes (`lvm:lv:data/home`), as LVM's own reports tell.
//!
//! Attributes of a physical volume: `physical`, `group` (for restoring); of a group: `devices` (sorted, with commas), `volumes` (how many are in
//! it); of a logical volume: `size` (bytes), `pool`, `origin`. Only on the way: `options` (words for the tool that makes it), `resizefs`.
//!
//! What is in a logical volume goes with it, or with its end when it shrinks: a rollback does neither unless it is told `--destroy-data`.

use super::mount::command;
use super::{Object, Progress};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::plan::{Key, Kind};
use crate::system::{Command, System};
use crate::value::{Attrs, Value, sort_few, those};

pub struct Lvm {
    name: String,
    what: What,
}

enum What {
    Physical(String),
    Group(String),
    Logical(String),
}

impl Lvm {
    pub fn new(name: &str) -> Lvm {
        let what = match name.split_once(':') {
            Some(("pv", device)) => What::Physical(device.to_owned()),
            Some(("lv", volume)) => What::Logical(volume.to_owned()),
            Some((_, group)) => What::Group(group.to_owned()),
            None => What::Group(name.to_owned()),
        };
        Lvm { name: name.to_owned(), what }
    }
}

/// The lines of a report, each with its fields. What LVM does not know has none.
fn report(sys: &System, tool: &str, fields: &str, of: &str) -> Result<Vec<Vec<String>>> {
    let argv = [tool, "--noheadings", "--nosuffix", "--units", "b", "--separator", "\t", "-o", fields, of];
    // Where the tools are still to come nothing of it is there.
    let Ok(output) = sys.run(&Command::new(argv)) else { return Ok(Vec::new()) };
    if !output.success() {
        return Ok(Vec::new());
    }
    let fields = |line: &str| line.trim_start_matches(' ').split('\t').map(|field| field.trim().to_owned()).collect();
    Ok(output.text().lines().filter(|line| !line.trim().is_empty()).map(fields).collect())
}

fn text(attrs: &Attrs, name: &str) -> String {
    attrs.get(name).filter(|v| !v.is_null()).map(Value::to_text).unwrap_or_default()
}

fn devices(attrs: &Attrs) -> Vec<String> {
    text(attrs, "devices").split(',').filter(|d| !d.is_empty()).map(str::to_owned).collect()
}

fn options(to: &Attrs) -> Vec<String> {
    to.get("options").and_then(Value::as_list).unwrap_or_default().iter().map(Value::to_text).collect()
}

fn argv(words: &[&str], options: &[String], rest: &[String]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).chain(options.iter().cloned()).chain(rest.iter().cloned()).collect()
}

impl Object for Lvm {
    fn key(&self) -> Key {
        Key::new(Kind::Lvm, &self.name)
    }

    fn read(&self, sys: &System) -> Result<Attrs> {
        let mut attrs = Attrs::new();
        let mut put = |name: &str, value: &str| {
            if !value.is_empty() {
                attrs.insert(name.to_owned(), Value::str(value));
            }
        };
        match &self.what {
            What::Physical(device) => {
                if let Some([_, group]) = report(sys, "pvs", "pv_name,vg_name", device)?.first().map(Vec::as_slice) {
                    put("group", group);
                    attrs.insert("physical".into(), Value::Bool(true));
                }
            }
            What::Group(group) => {
                let mut lines = report(sys, "vgs", "pv_name,lv_count", group)?;
                sort_few(&mut lines, |one, other| one < other);
                if let Some([_, volumes]) = lines.first().map(Vec::as_slice) {
                    put("volumes", volumes);
                    put("devices", &lines.iter().filter_map(|line| line.first()).map(String::as_str).collect::<Vec<_>>().join(","));
                }
            }
            What::Logical(volume) => {
                if let Some([size, pool, origin]) = report(sys, "lvs", "lv_size,pool_lv,origin", volume)?.first().map(Vec::as_slice) {
                    put("pool", pool);
                    put("origin", origin);
                    attrs.insert("size".into(), Value::Int(size.parse().unwrap_or(0)));
                }
            }
        }
        Ok(attrs)
    }

    fn set(&self, sys: &System, from: &Attrs, to: &Attrs, progress: &mut Progress) -> Result<Attrs> {
        let mut run = |argv: Vec<String>| command(sys, progress, argv);
        match (&self.what, from.is_empty(), to.is_empty()) {
            (_, true, true) => {}
            (What::Physical(device), true, false) => {
                if let Some(there) = super::blockdev::content(&super::blockdev::probe(sys, device)?) {
                    let why = format!("{device} is not made a physical volume: it holds {there}");
                    return Err(Diagnostic::new(Code::Failed, why)
                        .hint("take away what is on it first (`wipefs -a`), if nobody needs it")
                        .into());
                }
                run(argv(&["pvcreate"], &options(to), std::slice::from_ref(device)))?;
            }
            (What::Physical(device), false, true) => run(argv(&["pvremove"], &[], std::slice::from_ref(device)))?,
            (What::Physical(_), false, false) => {}
            (What::Group(group), true, false) if to.contains_key("volumes") => {
                return Err(
                    Diagnostic::new(Code::Failed, format!("the volume group {group} cannot be brought back with what was in it")).into()
                );
            }
            (What::Group(group), true, false) => run(argv(&["vgcreate"], &options(to), &[vec![group.clone()], devices(to)].concat()))?,
            (What::Group(group), false, true) => run(argv(&["vgremove"], &[], std::slice::from_ref(group)))?,
            (What::Group(group), false, false) => {
                let (now, wanted) = (devices(from), devices(to));
                for device in wanted.iter().filter(|d| !now.contains(d)) {
                    run(argv(&["vgextend"], &[], &[group.clone(), device.clone()]))?;
                }
                for device in now.iter().filter(|d| !wanted.contains(d)) {
                    run(argv(&["vgreduce"], &[], &[group.clone(), device.clone()]))?;
                }
            }
            (What::Logical(volume), true, false) if !to.contains_key("options") => {
                return Err(Diagnostic::new(Code::Failed, format!("the logical volume {volume} was removed with what was in it")).into());
            }
            (What::Logical(_), true, false) => run(argv(&["lvcreate", "--yes", "--wipesignatures", "y"], &options(to), &[]))?,
            (What::Logical(volume), false, true) => run(argv(&["lvremove", "--yes"], &[], std::slice::from_ref(volume)))?,
            (What::Logical(volume), false, false) => {
                if let Some(size) = to.get("size").filter(|size| from.get("size") != Some(size)) {
                    let resizefs: &[&str] = if to.get("resizefs").is_some_and(Value::truthy) { &["--resizefs"] } else { &[] };
                    let size = format!("{}b", size.to_text());
                    run(argv(&[&["lvresize", "--yes", "-L", size.as_str()], resizefs].concat(), &[], std::slice::from_ref(volume)))?;
                }
            }
        }
        self.read(sys)
    }

    fn one_way(&self, _sys: &System, from: &Attrs, to: &Attrs) -> Option<String> {
        match self.what {
            What::Logical(_) if !from.is_empty() && to.is_empty() => Some("what is in a logical volume is lost with it".into()),
            What::Logical(_) if shrinks(from, to) => Some("what is at the end of the logical volume is lost".into()),
            What::Group(_) if !from.is_empty() && to.is_empty() => Some("a removed volume group is not brought back".into()),
            _ => None,
        }
    }

    fn destroys(&self, _sys: &System, from: &Attrs, to: &Attrs) -> Option<String> {
        match &self.what {
            What::Logical(volume) if !from.is_empty() && to.is_empty() => {
                Some(format!("the logical volume {volume} goes with everything in it"))
            }
            What::Logical(volume) if shrinks(from, to) => Some(format!("the logical volume {volume} loses what is at its end")),
            What::Group(group) if !from.is_empty() && to.is_empty() && text(from, "volumes") != "0" => {
                Some(format!("the volume group {group} holds {} logical volumes", text(from, "volumes")))
            }
            _ => None,
        }
    }

    fn describe(&self, _sys: &System, from: &Attrs, to: &Attrs) -> String {
        let shown = |attrs: &Attrs| those(attrs, |name, _| !["physical", "volumes", "options"].contains(&name));
        if to.is_empty() { "removed\n".to_owned() } else { super::describe_attributes(&shown(from), &shown(to)) }
    }
}

fn shrinks(from: &Attrs, to: &Attrs) -> bool {
    let size = |attrs: &Attrs| attrs.get("size").and_then(Value::as_int);
    size(from).zip(size(to)).is_some_and(|(from, to)| to < from)
}
