//! The law for mounts, swap, devices and modules of the kernel, on a temporary root whose `/proc` recorded commands keep up to date as the
//! kernel would. `tests/storage.rs` has the same on real disks; swap and modules would be the whole machine's there.

use std::path::PathBuf;

use super::blockdev::Blockdev;
use super::module::Module;
use super::mount::Mount;
use super::swap::Swap;
use super::{Object, Progress};
use crate::diagnostic::{Code, Result};
use crate::system::{Command, Exec, Output, System};
use crate::value::Attrs;

/// mount, umount, swapon, modprobe, mkfs and blkid, as far as the files of `/proc` and of devices show what they do.
struct Kernel(PathBuf);

impl Kernel {
    fn edit(&self, path: &str, edit: impl FnOnce(Vec<String>) -> Vec<String>) {
        let path = self.0.join(path);
        let lines = std::fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
        std::fs::write(path, edit(lines).iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    }

    fn mount(&self, words: &[&str]) {
        let value = |flag: &str| words.iter().position(|w| *w == flag).and_then(|at| words.get(at + 1)).copied().unwrap_or_default();
        let place = words[words.len() - 1].replace(' ', "\\040");
        let given: Vec<&str> = value("-o").split(',').filter(|o| !["", "defaults", "remount", "bind"].contains(o)).collect();
        let general = |o: &&str| ["ro", "rw", "noatime", "atime", "nosuid", "suid", "relatime"].contains(o);
        let on: Vec<&str> = given.iter().copied().filter(|o| general(o) && !["rw", "suid", "atime"].contains(o)).collect();
        let own = [if on.contains(&"ro") { "ro" } else { "rw" }]
            .into_iter()
            .chain(on.into_iter().filter(|o| *o != "ro"))
            .collect::<Vec<_>>()
            .join(",");
        let special: Vec<&str> = given.iter().copied().filter(|o| !general(o)).collect();
        self.edit("proc/self/mountinfo", |mut lines| {
            if value("-o").contains("remount") {
                let at = lines.iter().rposition(|l| l.split(' ').nth(4) == Some(&place)).unwrap();
                let mut fields: Vec<String> = lines[at].split(' ').map(str::to_owned).collect();
                let known: Vec<String> = fields[9].split(',').map(str::to_owned).collect();
                let off = |o: &String| special.iter().any(|s| *s == format!("no{o}"));
                let kept = known.into_iter().filter(|o| !off(o));
                let new = special.iter().filter(|s| !s.starts_with("no")).map(|s| (*s).to_owned());
                let mut all: Vec<String> = kept.chain(new).collect();
                all.dedup();
                (fields[5], fields[9]) = (own, all.join(","));
                lines[at] = fields.join(" ");
            } else {
                let superior = ["rw"].into_iter().chain(special).collect::<Vec<_>>().join(",");
                lines.push(format!("9 1 8:16 / {place} {own} - {} {} {superior}", value("-t"), words[words.len() - 2]));
            }
            lines
        });
    }
}

impl Exec for Kernel {
    fn run(&self, command: &Command, _: &mut dyn FnMut(&[u8])) -> Result<Output> {
        let words: Vec<&str> = command.argv.iter().map(String::as_str).collect();
        let last = words[words.len() - 1];
        let device = |name: &str| self.0.join(name.trim_start_matches('/'));
        let mut output = Output::default();
        match words[0] {
            "mount" => self.mount(&words),
            "umount" if last == "/busy" => {
                (output.status, output.stderr) = (32, b"umount: /busy: target is busy.\n".to_vec());
            }
            "umount" => self.edit("proc/self/mountinfo", |mut lines| {
                let at = lines.iter().rposition(|l| l.split(' ').nth(4) == Some(&last.replace(' ', "\\040"))).unwrap();
                lines.remove(at);
                lines
            }),
            "swapon" => {
                let priority = if words[1] == "-p" { words[2] } else { "-2" };
                self.edit("proc/swaps", |lines| lines.into_iter().chain([format!("{last} file 1 0 {priority}")]).collect());
            }
            "swapoff" => self.edit("proc/swaps", |lines| lines.into_iter().filter(|l| !l.starts_with(last)).collect()),
            "modprobe" if words[1] == "-r" => {
                self.edit("proc/modules", |lines| lines.into_iter().filter(|l| l.split(' ').next() != Some(last)).collect());
            }
            "modprobe" => self.edit("proc/modules", |lines| lines.into_iter().chain([format!("{last} 1 0 - Live 0x0")]).collect()),
            "blkid" => match std::fs::read_to_string(device(last)).unwrap() {
                text if text.is_empty() => output.status = 2,
                text => output.stdout = format!("DEVNAME={last}\nTYPE={text}\nUUID=1-2\nUSAGE=filesystem\n").into_bytes(),
            },
            "wipefs" => std::fs::write(device(last), "").unwrap(),
            mkfs => std::fs::write(device(last), mkfs.strip_prefix("mkfs.").unwrap()).unwrap(),
        }
        Ok(output)
    }
}

const MOUNTINFO: &str = "1 0 8:1 / / rw,relatime - ext4 /dev/vda rw
2 1 8:16 / /a\\040b rw,noatime - ext4 /dev/vdb rw,commit=30
3 1 8:1 /opt/x /bound rw - ext4 /dev/vda rw
4 1 0:9 / /busy rw - tmpfs tmpfs rw
";

fn root() -> (tempfile::TempDir, System) {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    for folder in ["proc/self", "proc/sys/kernel", "proc/77/fd", "dev/disk/by-uuid", "lib/modules/6.1"] {
        std::fs::create_dir_all(at(folder)).unwrap();
    }
    for (file, text) in [
        ("proc/self/mountinfo", MOUNTINFO),
        ("proc/swaps", "Filename Type Size Used Priority\n/on file 1 0 7\n"),
        ("proc/modules", "loaded 1 0 - Live 0x0\n"),
        ("proc/sys/kernel/osrelease", "6.1\n"),
        ("lib/modules/6.1/modules.builtin", "kernel/fs/built-in.ko\n"),
        ("proc/77/comm", "holder\n"),
        ("dev/empty", ""),
        ("dev/full", "xfs"),
    ] {
        std::fs::write(at(file), text).unwrap();
    }
    std::os::unix::fs::symlink("/busy/file", at("proc/77/fd/3")).unwrap();
    let sys = System::at(dir.path(), Box::new(Kernel(dir.path().to_owned())));
    (dir, sys)
}

fn quiet<T>(act: impl FnOnce(&mut Progress) -> T) -> T {
    act(&mut Progress::new(&mut |_| {}))
}

#[test]
fn what_is_set_is_read_and_goes_back_from_everywhere() {
    type Make = fn() -> Box<dyn Object>;
    let cases: [(Make, &str); 10] = [
        (|| Box::new(Mount::new("/new")), r#"{"device": "/dev/vdc", "source": "/dev/vdc", "type": "ext4", "opts": "noatime,commit=5"}"#),
        (|| Box::new(Mount::new("/a b")), "{}"),
        (|| Box::new(Mount::new("/a b")), r#"{"opts": "ro,nosuid,commit=9,sync_now"}"#),
        (|| Box::new(Mount::new("/a b")), r#"{"device": "/dev/vdc", "source": "/dev/vdc", "type": "ext4", "opts": "defaults"}"#),
        (|| Box::new(Swap::new("/new")), r#"{"active": true}"#),
        (|| Box::new(Swap::new("/on")), "{}"),
        (|| Box::new(Module::new("new")), r#"{"loaded": true}"#),
        (|| Box::new(Module::new("loaded")), "{}"),
        (|| Box::new(Blockdev::new("/dev/empty")), r#"{"holds": "ext4", "fresh": true, "options": ["-I", "512"]}"#),
        (|| Box::new(Blockdev::new("/dev/empty")), r#"{"holds": "btrfs", "fresh": true, "force": true}"#),
    ];
    for (object, to) in cases {
        let (object, to): (Box<dyn Object>, Attrs) = (object(), serde_json::from_str(to).unwrap());
        for fault in 1.. {
            let (_dir, sys) = root();
            let before = object.read(&sys).unwrap();
            sys.fail_at(fault);
            let done = quiet(|progress| object.set(&sys, &before, &to, progress));
            sys.fail_at(None);
            let now = object.read(&sys).unwrap();
            if let Ok(done) = &done {
                for name in ["device", "active", "loaded", "holds"].into_iter().filter(|name| to.contains_key(*name)) {
                    assert_eq!(now.get(name), to.get(name), "{} {name}", object.key());
                }
                assert_eq!((now.is_empty(), &now), (to.is_empty(), done), "{}", object.key());
            }
            quiet(|progress| object.set(&sys, &now, &before, progress)).unwrap();
            let mut after = object.read(&sys).unwrap();
            // The kernel has its own order.
            let sorted = |attrs: &mut Attrs| {
                for name in ["options", "super"] {
                    if let Some(text) = attrs.get(name).and_then(|v| v.as_str()) {
                        let mut words: Vec<&str> = text.split(',').filter(|w| !w.starts_with("commit") && *w != "atime").collect();
                        words.sort_unstable();
                        let text = words.join(",");
                        attrs.insert(name.to_owned(), text.into());
                    }
                }
            };
            let mut before = before;
            sorted(&mut after);
            sorted(&mut before);
            assert_eq!(after, before, "{} after a fault at {fault}", object.key());
            if done.is_ok() {
                break;
            }
        }
    }
}

#[test]
fn a_mount_in_use_says_by_whom_and_what_cannot_come_back_is_told() {
    let (_dir, sys) = root();
    let busy = Mount::new("/busy");
    let before = busy.read(&sys).unwrap();
    assert!(busy.one_way(&sys, &before, &Attrs::new()).is_some_and(|why| why.contains("in memory")));
    let error = quiet(|progress| busy.set(&sys, &before, &Attrs::new(), progress)).unwrap_err();
    assert_eq!((error.code, error.summary.as_str()), (Code::Failed, "umount /busy failed: it is in use by holder (process 77)"));
    assert_eq!(Mount::new("/bound").read(&sys).unwrap().get("bind"), Some(&"/opt/x".into()));
    assert!(Module::new("built_in").read(&sys).unwrap().contains_key("loaded"));
}

#[test]
fn a_device_with_something_on_it_or_in_use_is_refused() {
    let (dir, sys) = root();
    let to: Attrs = serde_json::from_str(r#"{"holds": "ext4"}"#).unwrap();
    let set = |device: &str, to: &Attrs| {
        let object = Blockdev::new(device);
        quiet(|progress| object.set(&sys, &object.read(&sys).unwrap(), to, progress)).map_err(|e| e.summary)
    };
    assert_eq!(set("/dev/full", &to).unwrap_err(), "/dev/full is left as it is: it holds xfs");
    std::fs::write(dir.path().join("dev/vdb"), "").unwrap();
    assert_eq!(set("/dev/vdb", &to).unwrap_err(), "/dev/vdb is left as it is: it is mounted at /a b");
    let forced: Attrs = serde_json::from_str(r#"{"holds": "ext4", "force": true}"#).unwrap();
    let full = Blockdev::new("/dev/full");
    let before = full.read(&sys).unwrap();
    assert!(full.one_way(&sys, &before, &forced).is_some_and(|why| why.contains("destroys")));
    set("/dev/full", &forced).unwrap();
    let now = full.read(&sys).unwrap();
    assert!(full.destroys(&sys, &now, &before).is_some());
    assert!(
        quiet(|progress| full.set(&sys, &now, &before, progress)).unwrap_err().summary.contains("xfs was on it before, and that is lost")
    );
}
