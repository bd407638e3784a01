//! Grains: what Salt's templates and targeting ask of a host, with Salt's names and values.
//!
//! Everything comes from small files below the root and a few system calls: no process is started, no name is looked up over the
//! network, nothing outside `/etc`, `/proc`, `/run`, `/sys`, `/usr` and `/var/lib/dpkg` is touched. `id`, `master`, `server_id` and what the
//! roster or the host's owner set are the controller's to lay over these (`engine/grains.rs`).

mod distribution;
mod hardware;
pub(in crate::agent) mod network;
mod os;

use super::protocol::GrainFile;
use crate::system::System;
use crate::value::{Map, Value};

/// The version of Salt whose language basalt speaks; templates branch on it.
pub const SALT_VERSION: &str = "3008.5";

/// All grains of the host. A fact that cannot be had is left out, as Salt leaves it out.
pub fn collect(sys: &System) -> Map {
    let host = Host { sys };
    let mut grains = Map::new();
    os::collect(&host, &mut grains);
    hardware::collect(&host, &mut grains);
    network::collect(&host, &mut grains);
    process(&host, &mut grains);
    grains
}

/// Facts about the process and about what stands in for Salt's own.
fn process(host: &Host, grains: &mut Map) {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    grains.insert("uid", uid);
    grains.insert("gid", gid);
    grains.insert("username", host.name_in("/etc/passwd", uid));
    grains.insert("groupname", host.name_in("/etc/group", gid));
    grains.insert("pid", Value::Int(i64::from(std::process::id())));
    let path = std::env::var("PATH").unwrap_or_default();
    grains.insert("systempath", path.split(':').map(Value::from).collect::<Vec<_>>());
    grains.insert("path", path);
    grains.insert("shell", std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".into()));
    grains.insert("ps", "ps -efHww");
    grains.insert("saltversion", SALT_VERSION);
    grains.insert("saltversioninfo", numbers(SALT_VERSION));
    // The host's own Python: templates choose package names by it. Where there is none, what Salt would bring.
    let link = std::fs::read_link(host.sys.path("/usr/bin/python3")).ok();
    let version = link.as_deref().and_then(|l| l.file_name()?.to_str()?.strip_prefix("python")).filter(|v| v.starts_with("3."));
    let mut info = numbers(version.unwrap_or("3.11"));
    info.resize(3, Value::Int(0));
    info.extend([Value::str("final"), Value::Int(0)]);
    grains.insert("pythonversion", info);
    grains.insert("pythonexecutable", "/usr/bin/python3");
}

/// The parts of a dotted version, numbers as numbers.
fn numbers(version: &str) -> Vec<Value> {
    let digits = |part: &&str| part.bytes().all(|b| b.is_ascii_digit());
    let number = |part: &str| Some(part).filter(digits).and_then(|p| p.parse::<i64>().ok());
    version.split('.').map(|part| number(part).map_or_else(|| Value::str(part), Value::Int)).collect()
}

/// The files in which the host's owner has set grains for Salt. They are YAML, which the agent does not read: the controller does.
pub fn files(sys: &System) -> Vec<GrainFile> {
    /// More than this is no file of grains.
    const MOST: usize = 256 << 10;
    let host = Host { sys };
    let own = |path: &str| host.text(path).filter(|text| text.len() <= MOST).map(|text| GrainFile { path: path.to_owned(), text });
    let mut files: Vec<GrainFile> = own("/etc/salt/grains").into_iter().collect();
    let fragments =
        host.names("/etc/salt/minion.d").into_iter().filter(|n| n.ends_with(".conf")).map(|n| format!("/etc/salt/minion.d/{n}"));
    let settings = std::iter::once("/etc/salt/minion".to_owned()).chain(fragments).filter_map(|path| own(&path));
    // Of the minion's settings only the grains are of use, and passwords may stand beside them.
    files.extend(settings.filter(|file| file.text.lines().any(|line| line.starts_with("grains:"))));
    files
}

/// Reads small files below the root.
struct Host<'a> {
    sys: &'a System,
}

impl Host<'_> {
    fn text(&self, path: &str) -> Option<String> {
        let bytes = std::fs::read(self.sys.path(path)).ok()?;
        Some(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
    }

    /// A file's only line, without white space around it; `None` where it is empty.
    fn line(&self, path: &str) -> Option<String> {
        self.text(path).map(|t| t.trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned()).filter(|t| !t.is_empty())
    }

    fn exists(&self, path: &str) -> bool {
        std::fs::symlink_metadata(self.sys.path(path)).is_ok()
    }

    /// Names in a directory, sorted.
    fn names(&self, path: &str) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.sys.path(path))
            .map(|entries| entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
            .unwrap_or_default();
        names.sort();
        names
    }

    /// Whether one of the usual directories holds a program.
    fn program(&self, name: &str) -> bool {
        ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].iter().any(|dir| self.exists(&format!("{dir}/{name}")))
    }

    /// The name with this number in passwd or group; the number itself where it has none.
    fn name_in(&self, file: &str, number: u32) -> String {
        let wanted = number.to_string();
        let text = self.text(file).unwrap_or_default();
        let found = text.lines().find(|line| line.split(':').nth(2) == Some(&wanted)).and_then(|line| line.split(':').next());
        found.map_or(wanted, str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Result;
    use crate::system::{Command, Exec, Output};

    /// Grains start no process.
    struct Nothing;
    impl Exec for Nothing {
        fn run(&self, command: &Command, _: &mut dyn FnMut(&[u8])) -> Result<Output> {
            panic!("grains ran {:?}", command.argv)
        }
    }

    /// A root with these files.
    pub fn root(files: &[(&str, &str)]) -> (tempfile::TempDir, System) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let sys = System::at(dir.path(), Box::new(Nothing));
        (dir, sys)
    }

    fn text(grains: &Map, key: &str) -> String {
        grains.get(key).map(Value::to_text).unwrap_or_default()
    }

    #[test]
    fn an_empty_root_gives_grains_without_a_panic() {
        let (_dir, sys) = root(&[]);
        let grains = collect(&sys);
        assert_eq!(text(&grains, "kernel"), "Linux");
        assert_eq!(grains.get("os"), None);
        assert_eq!(files(&sys), []);
    }

    #[test]
    fn files_of_the_owner_are_handed_over_and_other_settings_are_not() {
        let (_dir, sys) = root(&[
            ("/etc/salt/grains", "role: web\n"),
            ("/etc/salt/minion", "master: m\nmysql.pass: secret\n"),
            ("/etc/salt/minion.d/b.conf", "grains:\n  a: 1\n"),
            ("/etc/salt/minion.d/c.txt", "grains: {}\n"),
        ]);
        let paths: Vec<String> = files(&sys).into_iter().map(|f| f.path).collect();
        assert_eq!(paths, ["/etc/salt/grains", "/etc/salt/minion.d/b.conf"]);
    }

    #[test]
    fn disks_of_the_machine_are_told_from_its_own_inventions() {
        let (dir, sys) = root(&[("/sys/devices/pci0/sda/queue/rotational", "1\n"), ("/sys/devices/pci0/nvme0n1/queue/rotational", "0\n")]);
        std::fs::create_dir_all(dir.path().join("sys/block")).unwrap();
        for (name, target) in [
            ("sda", "../devices/pci0/sda"),
            ("nvme0n1", "../devices/pci0/nvme0n1"),
            ("dm-0", "../devices/virtual/block/dm-0"),
            ("sdb", "../devices/pci0/sdb"),
        ] {
            std::os::unix::fs::symlink(target, dir.path().join("sys/block").join(name)).unwrap();
        }
        let grains = collect(&sys);
        assert_eq!((text(&grains, "disks"), text(&grains, "ssds")), (r#"["sda"]"#.into(), r#"["nvme0n1"]"#.into()));
    }

    #[test]
    fn graphics_are_named_by_the_list_of_pci_where_there_is_lspci() {
        let list = "# c\n10de  NVIDIA Corporation\n\t1eb8  TU104GL [Tesla T4]\n\t\t10de 12a2  Tesla T4\n1234  Else\n\t1111  VGA\n";
        let device = [
            ("/sys/bus/pci/devices/0000:00:1e.0/class", "0x030200\n"),
            ("/sys/bus/pci/devices/0000:00:1e.0/vendor", "0x10de\n"),
            ("/sys/bus/pci/devices/0000:00:1e.0/device", "0x1eb8\n"),
            ("/sys/bus/pci/devices/0000:00:1f.0/class", "0x020000\n"),
            ("/usr/share/misc/pci.ids", list),
        ];
        let (_dir, sys) = root(&device);
        assert_eq!(text(&collect(&sys), "num_gpus"), "0");
        let (_dir, sys) = root(&[&device[..], &[("/usr/bin/lspci", "")]].concat());
        let grains = collect(&sys);
        assert_eq!(text(&grains, "num_gpus"), "1");
        assert_eq!(text(&grains, "gpus"), r#"[{"vendor":"nvidia","model":"TU104GL [Tesla T4]"}]"#);
    }

    #[test]
    fn hosts_names_and_memory_come_from_files() {
        let (_dir, sys) = root(&[
            ("/proc/meminfo", "MemTotal:        4030512 kB\nMemFree: 1 kB\nSwapTotal:       2097148 kB\n"),
            (
                "/proc/cpuinfo",
                "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu hypervisor\nprocessor\t: 1\nmodel name\t: Some CPU\n",
            ),
            ("/proc/cmdline", "BOOT=a=b root=\"/dev/x y\" quiet\n"),
            ("/sys/class/dmi/id/sys_vendor", "QEMU\n"),
            ("/etc/machine-id", "abc\n"),
            ("/etc/resolv.conf", "# x\nsearch example.com\nnameserver 192.0.2.53\nnameserver fd00::1\n"),
        ]);
        let grains = collect(&sys);
        assert_eq!(text(&grains, "mem_total"), "3936");
        assert_eq!(text(&grains, "swap_total"), "2047");
        assert_eq!(text(&grains, "num_cpus"), "2");
        assert_eq!(text(&grains, "cpu_model"), "Some CPU");
        assert_eq!(text(&grains, "virtual"), "kvm");
        assert_eq!(text(&grains, "manufacturer"), "QEMU");
        assert_eq!(text(&grains, "machine_id"), "abc");
        assert_eq!(text(&grains, "kernelparams"), r#"[["BOOT",null],["root","/dev/x y"],["quiet",null]]"#);
        let all = Value::Map(grains);
        assert_eq!(all.traverse("dns:ip6_nameservers:0", ":"), Some(&Value::str("fd00::1")));
        assert_eq!(all.traverse("dns:search:0", ":"), Some(&Value::str("example.com")));
    }

    #[test]
    fn containers_are_told_from_machines() {
        for (file, content, want) in [
            ("/run/systemd/container", "lxc\n", "container|LXC"),
            ("/run/systemd/container", "podman\n", "container|Podman"),
            ("/run/systemd/container", "systemd-nspawn\n", "systemd-nspawn|"),
            ("/.dockerenv", "", "container|Docker"),
            ("/sys/class/dmi/id/sys_vendor", "VMware, Inc.\n", "VMware|"),
            ("/sys/class/dmi/id/sys_vendor", "Amazon EC2\n", "Nitro|Amazon EC2"),
            ("/etc/hostname", "x", "physical|"),
        ] {
            let (_dir, sys) = root(&[(file, content)]);
            let grains = collect(&sys);
            assert_eq!(format!("{}|{}", text(&grains, "virtual"), text(&grains, "virtual_subtype")), want, "{file} {content}");
        }
    }
}
