//! Packages for real: apt and dpkg in a Debian root of their own (an overlay over a base made by debootstrap, in its own mount
//! namespace), with a repository of home-made packages. The test starts itself again inside that root.

use std::io::Write;
use std::path::Path;
use std::process::{Command as Process, Stdio};

use sha2::Digest;

use super::Packages;
use crate::diagnostic::Result;
use crate::object::{Object, Progress};
use crate::system::{Command, Exec, Output, System};
use crate::value::{Attrs, Value};

const BASE: &str = "/var/cache/basalt-bench/base";
const INSIDE: &str = "BASALT_TEST_INSIDE_ROOT";

struct Real;
impl Exec for Real {
    fn run(&self, command: &Command, output: &mut dyn FnMut(&[u8])) -> Result<Output> {
        let mut process = Process::new(&command.argv[0]);
        process.args(&command.argv[1..]).envs(command.env.iter().cloned()).stdin(Stdio::null());
        if let Some(cwd) = &command.cwd {
            process.current_dir(cwd);
        }
        let done = process.output().unwrap();
        output(&done.stdout);
        Ok(Output { status: done.status.code().unwrap_or(-1), stdout: done.stdout, stderr: done.stderr, ..Output::default() })
    }
}

#[test]
fn packages_go_and_come_back_with_real_apt() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    if !rustix::process::geteuid().is_root() || !Path::new(BASE).join("usr/bin/apt-get").exists() {
        eprintln!("skipped: needs root and a Debian root in {BASE}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = r#"set -e
        mount -t tmpfs none "$1"; mkdir "$1/upper" "$1/work" "$1/root"
        mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" "$1/root"
        mount -t proc none "$1/root/proc"; mount --rbind /dev "$1/root/dev"
        cp "$3" "$1/root/test-binary"
        exec chroot "$1/root" /test-binary --exact object::packages::tests::packages_go_and_come_back_with_real_apt --nocapture"#;
    let done = Process::new("unshare")
        .args(["-m", "sh", "-c", script, "sh"])
        .args([dir.path(), Path::new(BASE), &std::env::current_exe().unwrap()])
        .env_clear()
        .envs([("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), (INSIDE, "1"), ("RUST_BACKTRACE", "0")])
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success() && said.contains("1 passed"), "{said}");
}

fn sh(script: &str) {
    let done = Process::new("sh").args(["-ec", script]).output().unwrap();
    assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A package in `/repo`, and its paragraph in the list.
fn package(name: &str, version: &str, depends: &str) {
    let root = format!("/build/{name}-{version}");
    sh(&format!("mkdir -p {root}/DEBIAN {root}/etc {root}/usr/share/{name}; echo {version} > {root}/usr/share/{name}/version"));
    std::fs::write(format!("{root}/etc/{name}.conf"), format!("default of {version}\n")).unwrap();
    std::fs::write(format!("{root}/DEBIAN/conffiles"), format!("/etc/{name}.conf\n")).unwrap();
    let depends = if depends.is_empty() { String::new() } else { format!("Depends: {depends}\n") };
    let control =
        format!("Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: t <t@example.com>\n{depends}Description: {name}\n");
    std::fs::write(format!("{root}/DEBIAN/control"), &control).unwrap();
    let file = format!("/repo/{name}_{version}_all.deb");
    sh(&format!("mkdir -p /repo; dpkg-deb -Zgzip --root-owner-group -b {root} {file}"));
    let bytes = std::fs::read(&file).unwrap();
    let mut list = std::fs::File::options().create(true).append(true).open("/repo/Packages").unwrap();
    let sum = crate::plan::hex(&sha2::Sha256::digest(&bytes));
    write!(list, "{control}Filename: ./{name}_{version}_all.deb\nSize: {}\nSHA256: {sum}\n\n", bytes.len()).unwrap();
}

fn attrs(json: &str) -> Attrs {
    serde_json::from_str(json).unwrap()
}

fn resolve(sys: &System, to: &str) -> Result<Attrs> {
    let packages = Packages::new("apt");
    packages.resolve(sys, &packages.read(sys)?, &attrs(to), &|_| false)
}

fn set(sys: &System, to: &Attrs) -> Attrs {
    let (packages, mut said) = (Packages::new("apt"), Vec::new());
    let from = packages.read(sys).unwrap();
    packages.keep(sys, &from, to).unwrap();
    let done = packages.set(sys, &from, to, &mut Progress::new(&mut |line| said.push(line.to_owned())));
    done.unwrap_or_else(|e| panic!("{e} {}\n{}", e.detail, said.join("\n")))
}

fn inside() {
    sh(
        "rm -rf /etc/apt/sources.list.d/* /var/lib/apt/lists/* /var/cache/apt/archives/*.deb; echo 'deb [trusted=yes] file:/repo ./' > /etc/apt/sources.list",
    );
    package("lib", "1.0", "");
    package("lib", "1:0.5", "");
    package("app", "1.0", "lib (>= 1.0)");
    package("app", "2.0", "lib (>= 1.0)");
    package("other", "1.0", "app");
    sh("apt-get -q update");
    let sys = System::at("/", Box::new(Real));
    let packages = Packages::new("apt");
    let read = || packages.read(&sys).unwrap();
    let clean = read();
    let version = |name: &str| read().get(name).map(Value::to_text).unwrap_or_default();

    // The plan says what apt will do; doing it gives just that.
    let to = resolve(&sys, r#"{"app": "1.0", "@recommends": false}"#).unwrap();
    assert_eq!(to, attrs(r#"{"app": "1.0", "lib": "1:0.5 auto", "@recommends": false}"#));
    assert_eq!(packages.describe(&sys, &clean, &to), "app: 1.0\nlib: 1:0.5 (pulled in)\n");
    set(&sys, &to);
    assert_eq!((version("app"), version("lib")), ("1.0".into(), "1:0.5 auto".into()));
    let one = read();

    // Nothing left to do.
    let again = resolve(&sys, r#"{"app": "1.0", "@recommends": false}"#).unwrap();
    assert_eq!(again.get("app"), one.get("app"));

    // An upgrade with a hold, back to the version before though the archive has lost it.
    sh("echo 'mine' > /etc/app.conf");
    let to = resolve(&sys, r#"{"app": "latest hold"}"#).unwrap();
    assert_eq!(to, attrs(r#"{"app": "2.0 hold"}"#));
    assert_eq!(packages.one_way(&sys, &one, &to), None);
    set(&sys, &to);
    assert_eq!(version("app"), "2.0 hold");
    let list = std::fs::read_to_string("/repo/Packages").unwrap();
    let left: Vec<&str> = list.split_inclusive("\n\n").filter(|p| !p.starts_with("Package: app\nVersion: 1.0")).collect();
    std::fs::write("/repo/Packages", left.concat()).unwrap();
    sh("rm /repo/app_1.0_all.deb; apt-get -q update");
    set(&sys, &one);
    assert_eq!(read(), one);
    assert_eq!(std::fs::read_to_string("/etc/app.conf").unwrap(), "mine\n");

    // Removing takes along what needs it; purging takes the changed configuration, and the way back brings it again.
    set(&sys, &resolve(&sys, r#"{"other": "installed"}"#).unwrap());
    let three = read();
    let removed = resolve(&sys, r#"{"app": "removed"}"#).unwrap();
    assert_eq!(removed, attrs(r#"{"app": "1.0 config", "other": "1.0 config"}"#));
    set(&sys, &removed);
    assert_eq!(version("other"), "1.0 config");
    set(&sys, &three);
    assert_eq!(read(), three);
    let purged = resolve(&sys, r#"{"app": null}"#).unwrap();
    assert_eq!(purged, attrs(r#"{"app": null, "other": null}"#));
    set(&sys, &purged);
    assert!(!Path::new("/etc/app.conf").exists());
    set(&sys, &three);
    assert_eq!(read(), three);
    assert_eq!(std::fs::read_to_string("/etc/app.conf").unwrap(), "mine\n");

    // What was newly pulled in goes wholly.
    set(&sys, &clean);
    assert_eq!(read(), clean);
    assert!(!Path::new("/usr/share/lib").exists() && !Path::new("/etc/lib.conf").exists());

    // What cannot be had is refused by name.
    for (to, said) in [
        (r#"{"nope": "installed"}"#, "apt-get: Unable to locate package nope"),
        (r#"{"lib": "9"}"#, "apt-get: Version '9' for 'lib' was not found"),
        (r#"{"lib": ">=2:0"}"#, "No version matching 'lib>=2:0' could be found (available: 1:0.5, 1.0)"),
    ] {
        assert_eq!(resolve(&sys, to).unwrap_err().summary, said);
    }
    assert_eq!(resolve(&sys, r#"{"lib": "<1:0"}"#).unwrap(), attrs(r#"{"lib": "1.0"}"#));
}
