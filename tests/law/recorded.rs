//! The tools of a temporary root: what the kernel, LVM and the NFS server would do to the files in which basalt reads what is there, and the pip of an
//! environment in the root. Anything else is a mistake of the case. Behind them: what mounts, devices and volumes refuse, with these tools.

use std::path::PathBuf;

use basalt::diagnostic::{Code, Result};
use basalt::object::blockdev::Blockdev;
use basalt::object::lvm::Lvm;
use basalt::object::module::Module;
use basalt::object::mount::Mount;
use basalt::object::{Object, Progress};
use basalt::system::{Command, Exec, Output, System};
use basalt::value::Attrs;

/// mount, umount, swapon, modprobe, mkfs, blkid, LVM's tools, exportfs and python below a root.
pub struct Tools(pub PathBuf);

impl Exec for Tools {
    fn run(&self, command: &Command, _: &mut dyn FnMut(&[u8])) -> Result<Output> {
        let words: Vec<&str> = command.argv.iter().map(String::as_str).collect();
        let last = words[words.len() - 1];
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
            "blkid" => match std::fs::read_to_string(self.below(last)).unwrap_or_default() {
                text if text.is_empty() => output.status = 2,
                text => output.stdout = format!("DEVNAME={last}\nTYPE={text}\nUUID=1-2\nUSAGE=filesystem\n").into_bytes(),
            },
            "wipefs" => std::fs::write(self.below(last), "").unwrap(),
            "exportfs" | "systemctl" => {}
            name if name.starts_with("mkfs.") => std::fs::write(self.below(last), &name["mkfs.".len()..]).unwrap(),
            name if name.starts_with("pv") || name.starts_with("vg") || name.starts_with("lv") => output = self.lvm(&words),
            name if name.ends_with("/pip") => output = self.pip(command),
            // It tells nfs-ganesha to reload.
            "/bin/sh" if words.iter().any(|word| word.contains("org.ganesha.nfsd")) => {}
            "/bin/sh" if words.contains(&"venv") => self.environment(last),
            _ => panic!("a temporary root has no tool for {words:?}"),
        }
        Ok(output)
    }
}

impl Tools {
    fn below(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    fn lines(&self, path: &str) -> Vec<String> {
        std::fs::read_to_string(self.below(path)).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    fn edit(&self, path: &str, edit: impl FnOnce(Vec<String>) -> Vec<String>) {
        std::fs::write(self.below(path), edit(self.lines(path)).iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    }

    /// A line of `/proc/self/mountinfo`, as mount leaves it.
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
                let name = |o: &str| o.split('=').next().unwrap_or_default().to_owned();
                let kept = known.into_iter().filter(|o| !off(o) && !special.iter().any(|s| s.contains('=') && name(s) == name(o)));
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

    /// LVM knows its physical volumes from `proc/lvm-physical` (`DEVICE GROUP`) and its logical ones from `proc/lvm-logical` (`GROUP/NAME BYTES`).
    fn lvm(&self, words: &[&str]) -> Output {
        let (physical, logical) = ("proc/lvm-physical", "proc/lvm-logical");
        let last = words[words.len() - 1];
        let size = || words.iter().find_map(|w| w.strip_suffix('b')?.parse::<i64>().ok()).unwrap();
        let is = |line: &String, name: &str| line.split(' ').next() == Some(name);
        let of = |line: &str| line.split(' ').nth(1).unwrap_or_default().to_owned();
        let put = |file: &str, name: &str, what: &str| {
            self.edit(file, |lines| lines.into_iter().filter(|l| !is(l, name)).chain([format!("{name} {what}")]).collect());
        };
        let mut out = String::new();
        match words[0] {
            "pvs" => self.lines(physical).iter().filter(|l| is(l, last)).for_each(|l| out += &format!("  {last}\t{}\n", of(l))),
            "vgs" => {
                let count = self.lines(logical).iter().filter(|line| line.starts_with(&format!("{last}/"))).count();
                let devices = self.lines(physical);
                devices.iter().filter(|l| of(l) == last).for_each(|l| out += &format!("  {}\t{count}\n", l.split(' ').next().unwrap()));
            }
            "lvs" => self.lines(logical).iter().filter(|l| is(l, last)).for_each(|l| out += &format!("  {}\t\t\n", of(l))),
            "pvcreate" => put(physical, last, ""),
            "pvremove" => self.edit(physical, |lines| lines.into_iter().filter(|l| !is(l, last)).collect()),
            "vgcreate" | "vgextend" => {
                let at = words.iter().position(|w| w.starts_with("/dev/")).unwrap();
                words[at..].iter().for_each(|device| put(physical, device, words[at - 1]));
            }
            "vgreduce" => put(physical, last, ""),
            "vgremove" => {
                let devices = self.lines(physical);
                devices.iter().filter(|l| of(l) == last).for_each(|l| put(physical, l.split(' ').next().unwrap(), ""));
            }
            "lvcreate" => {
                put(logical, &format!("{last}/{}", words[words.iter().position(|w| *w == "-n").unwrap() + 1]), &size().to_string())
            }
            "lvresize" => put(logical, last, &size().to_string()),
            "lvremove" => self.edit(logical, |lines| lines.into_iter().filter(|l| !is(l, last)).collect()),
            other => panic!("LVM has no {other}"),
        }
        let status = if out.is_empty() && ["pvs", "vgs", "lvs"].contains(&words[0]) { 5 } else { 0 };
        Output { status, stdout: out.into_bytes(), ..Output::default() }
    }

    /// pip itself, of an environment below the root; its folders are below the root too.
    fn pip(&self, command: &Command) -> Output {
        let argv: Vec<String> = command
            .argv
            .iter()
            .map(|word| if word.starts_with('/') { self.below(word).display().to_string() } else { word.clone() })
            .collect();
        match std::process::Command::new(&argv[0])
            .args(&argv[1..])
            .env("HOME", &self.0)
            .env("PIP_CONFIG_FILE", "/dev/null")
            .env("PIP_NO_INDEX", "1")
            .env("PIP_FIND_LINKS", self.0.join("index"))
            .output()
        {
            Ok(done) => Output { status: done.status.code().unwrap_or(1), stdout: done.stdout, stderr: done.stderr, ..Output::default() },
            Err(_) => Output { status: 127, ..Output::default() },
        }
    }

    /// The programs of a new environment.
    fn environment(&self, path: &str) {
        std::fs::create_dir_all(self.below(path).join("bin")).unwrap();
        for program in ["python", "pip"] {
            std::fs::write(self.below(path).join("bin").join(program), "").unwrap();
        }
    }
}

fn root() -> (tempfile::TempDir, System) {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    for folder in ["proc/self", "proc/sys/kernel", "proc/77/fd", "dev/disk/by-uuid", "lib/modules/6.1"] {
        std::fs::create_dir_all(at(folder)).unwrap();
    }
    let mounts = "1 0 8:1 / / rw - ext4 /dev/vda rw\n2 1 8:16 / /a\\040b rw,noatime - ext4 /dev/vdb rw\n3 1 8:1 /opt/x /bound rw - ext4 /dev/vda rw\n4 1 0:9 / /busy rw - tmpfs tmpfs rw\n";
    for (file, text) in [
        ("proc/self/mountinfo", mounts),
        ("proc/swaps", ""),
        ("proc/modules", ""),
        ("proc/sys/kernel/osrelease", "6.1\n"),
        ("proc/lvm-physical", "/dev/b data\n"),
        ("proc/lvm-logical", "data/home 100\n"),
        ("lib/modules/6.1/modules.builtin", "kernel/fs/built-in.ko\n"),
        ("proc/77/comm", "holder\n"),
        ("dev/full", "xfs"),
        ("dev/vdb", ""),
    ] {
        std::fs::write(at(file), text).unwrap();
    }
    std::os::unix::fs::symlink("/busy/file", at("proc/77/fd/3")).unwrap();
    let sys = System::at(dir.path(), Box::new(Tools(dir.path().to_owned())));
    (dir, sys)
}

/// Sets an object from what is there.
fn set(sys: &System, object: &dyn Object, to: &Attrs) -> Result<Attrs> {
    object.set(sys, &object.read(sys).unwrap(), to, &mut Progress::new(&mut |_| {}))
}

fn attrs(json: &str) -> Attrs {
    serde_json::from_str(json).unwrap()
}

#[test]
fn a_mount_in_use_says_by_whom_and_what_cannot_come_back_is_told() {
    let (_dir, sys) = root();
    let busy = Mount::new("/busy");
    let before = busy.read(&sys).unwrap();
    assert!(busy.one_way(&sys, &before, &Attrs::new()).is_some_and(|why| why.contains("in memory")));
    let error = set(&sys, &busy, &Attrs::new()).unwrap_err();
    assert_eq!((error.code, error.summary.as_str()), (Code::Failed, "umount /busy failed: it is in use by holder (process 77)"));
    assert_eq!(Mount::new("/bound").read(&sys).unwrap().get("bind"), Some(&"/opt/x".into()));
    assert!(Module::new("built_in").read(&sys).unwrap().contains_key("loaded"));
}

#[test]
fn a_device_with_something_on_it_or_in_use_is_refused() {
    let (_dir, sys) = root();
    let to = attrs(r#"{"holds": "ext4"}"#);
    let refused = |device: &str| set(&sys, &Blockdev::new(device), &to).unwrap_err().summary.clone();
    assert_eq!(refused("/dev/full"), "/dev/full is left as it is: it holds xfs");
    assert_eq!(refused("/dev/vdb"), "/dev/vdb is left as it is: it is mounted at /a b");
    let forced = attrs(r#"{"holds": "ext4", "force": true}"#);
    let full = Blockdev::new("/dev/full");
    let before = full.read(&sys).unwrap();
    assert!(full.one_way(&sys, &before, &forced).is_some_and(|why| why.contains("destroys")));
    set(&sys, &full, &forced).unwrap();
    assert!(full.destroys(&sys, &full.read(&sys).unwrap(), &before).is_some());
    assert!(set(&sys, &full, &before).unwrap_err().summary.contains("xfs was on it before, and that is lost"));
}

#[test]
fn a_volume_with_data_is_named_and_does_not_come_back() {
    let (_dir, sys) = root();
    let (home, data, full) = (Lvm::new("lv:data/home"), Lvm::new("vg:data"), Lvm::new("pv:/dev/full"));
    let before = home.read(&sys).unwrap();
    assert!(home.one_way(&sys, &before, &Attrs::new()).is_some() && home.destroys(&sys, &before, &Attrs::new()).is_some());
    assert!(data.destroys(&sys, &data.read(&sys).unwrap(), &Attrs::new()).is_some_and(|why| why.contains("1 logical volumes")));
    set(&sys, &home, &Attrs::new()).unwrap();
    assert!(set(&sys, &home, &before).is_err());
    assert!(data.destroys(&sys, &data.read(&sys).unwrap(), &Attrs::new()).is_none());
    assert!(set(&sys, &full, &attrs(r#"{"physical": true}"#)).unwrap_err().summary.contains("it holds xfs"));
}
