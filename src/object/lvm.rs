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

/// The law on recorded commands: no device-mapper is where we test.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::{Exec, Output};
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    /// LVM, as far as its reports show what its tools do.
    #[derive(Default)]
    struct Fake {
        /// Physical volumes and their groups.
        physical: Mutex<BTreeMap<String, String>>,
        /// Logical volumes and their sizes.
        logical: Mutex<BTreeMap<String, i64>>,
    }

    impl Exec for Fake {
        fn run(&self, command: &Command, _: &mut dyn FnMut(&[u8])) -> Result<Output> {
            let words: Vec<&str> = command.argv.iter().map(String::as_str).collect();
            let last = words[words.len() - 1];
            let (mut physical, mut logical) = (self.physical.lock().unwrap(), self.logical.lock().unwrap());
            let size = || words.iter().find_map(|w| w.strip_suffix('b')?.parse::<i64>().ok()).unwrap();
            let mut out = String::new();
            match words[0] {
                "blkid" if last == "/dev/full" => return Ok(Output { stdout: b"TYPE=ext4\n".to_vec(), ..Output::default() }),
                "blkid" => return Ok(Output { status: 2, ..Output::default() }),
                "pvs" => physical.get(last).into_iter().for_each(|group| out += &format!("  {last}\t{group}\n")),
                "vgs" => {
                    let count = logical.keys().filter(|name| name.starts_with(&format!("{last}/"))).count();
                    physical.iter().filter(|(_, group)| *group == last).for_each(|(device, _)| out += &format!("  {device}\t{count}\n"));
                }
                "lvs" => logical.get(last).into_iter().for_each(|size| out += &format!("  {size}\t\t\n")),
                "pvcreate" => drop(physical.insert(last.to_owned(), String::new())),
                "pvremove" => drop(physical.remove(last)),
                "vgcreate" | "vgextend" => {
                    let at = words.iter().position(|w| w.starts_with("/dev/")).unwrap();
                    words[at..].iter().for_each(|device| drop(physical.insert((*device).to_owned(), words[at - 1].to_owned())));
                }
                "vgreduce" => drop(physical.insert(last.to_owned(), String::new())),
                "vgremove" => physical.values_mut().filter(|group| *group == last).for_each(String::clear),
                "lvcreate" => {
                    let name = words[words.iter().position(|w| *w == "-n").unwrap() + 1];
                    logical.insert(format!("{last}/{name}"), size());
                }
                "lvresize" => drop(logical.insert(last.to_owned(), size())),
                "lvremove" => drop(logical.remove(last)),
                other => panic!("{other}"),
            }
            Ok(Output {
                status: if out.is_empty() && words[0].ends_with('s') { 5 } else { 0 },
                stdout: out.into_bytes(),
                ..Output::default()
            })
        }
    }

    fn host() -> System {
        let fake = Fake::default();
        fake.physical.lock().unwrap().extend([("/dev/b".to_owned(), "data".to_owned()), ("/dev/c".to_owned(), String::new())]);
        fake.logical.lock().unwrap().insert("data/home".into(), 100);
        System::at("/nonexistent", Box::new(fake))
    }

    #[test]
    fn volumes_are_made_and_go_back_and_data_is_named() {
        let quiet = |act: &dyn Fn(&mut Progress) -> Result<Attrs>| act(&mut Progress::new(&mut |_| {}));
        for (name, to, destroys) in [
            ("pv:/dev/d", r#"{"physical": true, "options": []}"#, false),
            ("pv:/dev/c", "{}", false),
            ("vg:new", r#"{"devices": "/dev/c", "options": []}"#, false),
            ("vg:data", r#"{"devices": "/dev/b,/dev/c"}"#, false),
            ("lv:data/new", r#"{"size": 50, "options": ["-n", "new", "-L", "50b", "data"]}"#, true),
            ("lv:data/home", r#"{"size": 200}"#, true),
        ] {
            let (object, to): (Lvm, Attrs) = (Lvm::new(name), serde_json::from_str(to).unwrap());
            for fault in 1.. {
                let sys = host();
                let before = object.read(&sys).unwrap();
                sys.fail_at(fault);
                let done = quiet(&|progress| object.set(&sys, &before, &to, progress));
                sys.fail_at(None);
                assert!(fault < 20, "{name}: {done:?}");
                let now = object.read(&sys).unwrap();
                if done.is_ok() {
                    let wanted = to.iter().filter(|(name, _)| *name != "options");
                    wanted.for_each(|(attr, value)| assert_eq!(now.get(attr), Some(value), "{name} {attr}"));
                    assert_eq!((now.is_empty(), object.destroys(&sys, &now, &before).is_some()), (to.is_empty(), destroys), "{name}");
                }
                // What is made anew gets the options of the state, as far as it had any.
                let back = quiet(&|progress| object.set(&sys, &now, &before, progress)).unwrap();
                assert_eq!(back, before, "{name} after a fault at {fault}");
                if done.is_ok() {
                    break;
                }
            }
        }
        let (sys, home, full) = (host(), Lvm::new("lv:data/home"), Lvm::new("pv:/dev/full"));
        let before = home.read(&sys).unwrap();
        assert!(home.one_way(&sys, &before, &Attrs::new()).is_some());
        let now = quiet(&|progress| home.set(&sys, &before, &Attrs::new(), progress)).unwrap();
        assert!(quiet(&|progress| home.set(&sys, &now, &before, progress)).is_err());
        let physical = Attrs::from([("physical".to_owned(), Value::Bool(true))]);
        assert!(quiet(&|progress| full.set(&sys, &Attrs::new(), &physical, progress)).unwrap_err().summary.contains("it holds ext4"));
        assert!(Lvm::new("vg:data").destroys(&sys, &Lvm::new("vg:data").read(&sys).unwrap(), &Attrs::new()).is_none());
    }
}
