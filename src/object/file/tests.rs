//! What is particular to files; `tests/law/files.yaml` holds them to the law.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;
use crate::plan::RunHeader;
use crate::system::{Command, Exec, Output};

struct NoCommands;

impl Exec for NoCommands {
    fn run(&self, command: &Command, _: &mut dyn FnMut(&[u8])) -> Result<Output> {
        panic!("a file needs no command: {command:?}");
    }
}

struct Host {
    root: tempfile::TempDir,
    sys: System,
}

impl Host {
    fn new() -> Host {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc")).unwrap();
        fs::create_dir_all(root.path().join("var/lib")).unwrap();
        fs::write(root.path().join("etc/passwd"), format!("me:x:{}:{}::/:/bin/sh\nother:x:4711:4711::/:/bin/sh\n", me(), my_group()))
            .unwrap();
        fs::write(root.path().join("etc/group"), format!("us:x:{}:\nothers:x:4711:\n", my_group())).unwrap();
        let sys = System::at(root.path(), Box::new(NoCommands));
        Host { root, sys }
    }

    /// A run under way, and what it takes back.
    fn run(&self, id: &str, rolls_back: &[&str]) {
        let header = RunHeader {
            id: id.into(),
            who: "test".into(),
            started: 0,
            tree: String::new(),
            commit: String::new(),
            repository: String::new(),
            rolls_back: rolls_back.iter().map(|s| (*s).to_owned()).collect(),
        };
        self.sys.begin(&header).unwrap();
    }

    fn end(&self) {
        self.sys.end(Default::default(), None).unwrap();
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    fn set(&self, file: &File, from: &Attrs, to: &Attrs) -> Result<Attrs> {
        file.keep(&self.sys, from, to)?;
        file.set(&self.sys, from, to, &mut Progress::new(&mut |_| {}))
    }

    fn content(&self, text: &str) -> String {
        self.sys.contents().add(text.as_bytes().to_vec()).0
    }

    /// Everything below a directory, as text: names, modes, contents, targets.
    fn tree(&self, path: &str) -> String {
        let mut out = String::new();
        let mut todo = vec![self.at(path)];
        while let Some(here) = todo.pop() {
            let Ok(meta) = here.symlink_metadata() else { continue };
            out += &format!("{} {:o} {}\n", here.display(), meta.mode(), fs::read_link(&here).unwrap_or_default().display());
            if meta.is_dir() {
                let mut names: Vec<_> = fs::read_dir(&here).unwrap().map(|e| e.unwrap().path()).collect();
                names.sort();
                todo.extend(names);
            } else if meta.is_file() {
                out += &fs::read_to_string(&here).unwrap();
            }
        }
        out
    }
}

fn me() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn my_group() -> u32 {
    rustix::process::getegid().as_raw()
}

const PATH: &str = "/etc/thing";

fn put(host: &Host, text: &str, mode: u32) {
    fs::write(host.at(PATH), text).unwrap();
    fs::set_permissions(host.at(PATH), fs::Permissions::from_mode(mode)).unwrap();
    let file = fs::File::options().write(true).open(host.at(PATH)).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_nanos(1_500_000_000_123_456_789)).unwrap();
}

#[test]
fn what_was_put_into_a_directory_that_was_made_is_kept_when_it_goes() {
    let host = Host::new();
    host.run("20261120-0000-aaaa", &[]);
    let file = File::new(PATH);
    let to: Attrs = [("kind".to_owned(), Value::str("directory"))].into();
    host.set(&file, &Attrs::new(), &to).unwrap();
    fs::write(host.at(PATH).join("mine"), "precious").unwrap();
    host.end();
    host.run("20261120-0001-bbbb", &["20261120-0000-aaaa"]);
    let now = file.read(&host.sys).unwrap();
    host.set(&file, &now, &Attrs::new()).unwrap();
    assert_eq!(file.read(&host.sys).unwrap(), Attrs::new());
    let kept = host.sys.kept(&host.sys.keep_tree(PATH).unwrap());
    assert_eq!(fs::read_to_string(kept.join("mine")).unwrap(), "precious");
}

#[test]
fn a_tree_that_another_took_the_place_of_comes_back() {
    let host = Host::new();
    fs::create_dir(host.at(PATH)).unwrap();
    fs::write(host.at(PATH).join("old"), "old").unwrap();
    host.run("20261120-0000-aaaa", &[]);
    let file = File::new(PATH);
    let before = file.read(&host.sys).unwrap();
    host.set(&file, &before, &Attrs::new()).unwrap();
    let to: Attrs = [("kind".to_owned(), Value::str("directory"))].into();
    let now = host.set(&file, &Attrs::new(), &to).unwrap();
    fs::write(host.at(PATH).join("new"), "new").unwrap();
    // Once more in the same run: both trees are kept.
    host.set(&file, &now, &Attrs::new()).unwrap();
    host.set(&file, &Attrs::new(), &to).unwrap();
    host.end();
    host.run("20261120-0001-bbbb", &["20261120-0000-aaaa"]);
    let now = file.read(&host.sys).unwrap();
    host.set(&file, &now, &before).unwrap();
    assert_eq!(host.sys.list(PATH).unwrap(), ["old"]);
}

#[test]
fn a_file_with_two_names_is_one_file_again() {
    let host = Host::new();
    put(&host, "shared\n", 0o644);
    fs::hard_link(host.at(PATH), host.at("/etc/twin")).unwrap();
    let ino = fs::metadata(host.at(PATH)).unwrap().ino();
    for to in [Attrs::new(), [("content".to_owned(), Value::Str(host.content("apart\n")))].into()] {
        let host_run = format!("20261120-0000-{}", if to.is_empty() { "aaaa" } else { "cccc" });
        host.run(&host_run, &[]);
        let file = File::new(PATH);
        let before = file.read(&host.sys).unwrap();
        host.set(&file, &before, &to).unwrap();
        host.end();
        host.run(&host_run.replace("0000", "0001"), &[&host_run]);
        let now = file.read(&host.sys).unwrap();
        host.set(&file, &now, &before).unwrap();
        host.end();
        assert_eq!(fs::metadata(host.at(PATH)).unwrap().ino(), ino);
        assert_eq!(fs::read_to_string(host.at("/etc/twin")).unwrap(), "shared\n");
        fs::remove_file(host.at(&original(&host_run, PATH))).unwrap();
    }
}

#[test]
fn owners_are_names_and_unknown_ones_an_error_before_anything_changes() {
    let host = Host::new();
    host.run("20261120-0000-aaaa", &[]);
    put(&host, "x", 0o644);
    let file = File::new(PATH);
    let before = file.read(&host.sys).unwrap();
    assert_eq!((text(&before, "user"), text(&before, "group")), ("me", "us"));
    let mut to: Attrs = [("content".to_owned(), Value::Str(host.content("y")))].into();
    to.insert("user".into(), Value::str("nobody-here"));
    let error = host.set(&file, &before, &to).unwrap_err();
    assert_eq!(error.summary, "user nobody-here is not available");
    assert_eq!(file.read(&host.sys).unwrap(), before);
    if me() == 0 {
        to.insert("user".into(), Value::str("other"));
        to.insert("group".into(), Value::str("4711"));
        let reached = file.set(&host.sys, &before, &to, &mut Progress::new(&mut |_| {})).unwrap();
        assert_eq!((text(&reached, "user"), text(&reached, "group")), ("other", "others"));
    }
}

#[test]
fn extended_attributes_stay_with_new_contents_and_come_back() {
    let host = Host::new();
    put(&host, "x", 0o644);
    let value = [("user.note".to_owned(), b"kept".to_vec())].into();
    if host.sys.set_xattrs(PATH, &value).is_err() {
        return; // a filesystem without them
    }
    let file = File::new(PATH);
    let before = file.read(&host.sys).unwrap();
    let now = file
        .set(&host.sys, &before, &[("content".to_owned(), Value::Str(host.content("y")))].into(), &mut Progress::new(&mut |_| {}))
        .unwrap();
    assert_eq!(now.get("xattrs"), before.get("xattrs"));
    host.sys.set_xattrs(PATH, &BTreeMap::new()).unwrap();
    let now = file.read(&host.sys).unwrap();
    let mut with: Attrs = now.clone();
    with.insert("xattrs".into(), before.get("xattrs").unwrap().clone());
    assert_eq!(file.set(&host.sys, &now, &with, &mut Progress::new(&mut |_| {})).unwrap().get("xattrs"), before.get("xattrs"));
}

#[test]
fn the_state_directory_and_what_it_is_in_stay() {
    let host = Host::new();
    host.run("20261120-0000-aaaa", &[]);
    for path in ["/var/lib", "/var", "/var/lib/basalt", "/"] {
        let file = File::new(path);
        let before = file.read(&host.sys).unwrap();
        assert!(host.set(&file, &before, &Attrs::new()).unwrap_err().summary.contains("cannot be removed"), "{path}");
    }
}

#[test]
fn a_missing_directory_is_explained() {
    let host = Host::new();
    let file = File::new("/etc/no/such");
    let error = host.set(&file, &Attrs::new(), &[("content".to_owned(), Value::Str(host.content("y")))].into()).unwrap_err();
    assert!(error.hint.as_deref().is_some_and(|h| h.contains("directory")), "{error:?}");
}

#[test]
fn changes_are_told_in_lines() {
    let host = Host::new();
    put(&host, "a\nb\nc\n", 0o644);
    let file = File::new(PATH);
    let before = file.read(&host.sys).unwrap();
    let mut to: Attrs = [("kind".to_owned(), Value::str("file")), ("mode".to_owned(), Value::str("0600"))].into();
    to.insert("content".into(), Value::Str(host.content("a\nB\nc\n")));
    let told = file.describe(&host.sys, &before, &to);
    assert_eq!(told, "mode: 0644 → 0600\n--- before/etc/thing\n+++ after/etc/thing\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n");
    assert!(file.describe(&host.sys, &before, &Attrs::new()).contains("-b\n"));
    to.insert("content".into(), Value::Str(host.sys.contents().add(vec![0u8, 1, 2]).0));
    assert!(file.describe(&host.sys, &before, &to).contains("binary"), "{}", file.describe(&host.sys, &before, &to));
}

#[test]
fn a_glance_says_what_one_look_tells() {
    let host = Host::new();
    put(&host, "x", 0o600);
    let glance = File::glance(&host.sys, PATH).unwrap();
    assert_eq!(glance.keys().map(String::as_str).collect::<Vec<_>>(), ["group", "kind", "mode", "user"]);
    assert_eq!(File::glance(&host.sys, "/etc/none").unwrap(), Attrs::new());
    assert_eq!(File::new("/etc/passwd/below").read(&host.sys).unwrap(), Attrs::new(), "below a file there is nothing");
}

/// Runs a test of this file once more in a mount namespace of its own. Whether this is that run; without privilege there is none.
fn among_own_mounts(test: &str) -> bool {
    if std::env::var_os("BASALT_TEST_MOUNTS").is_some() {
        return true;
    }
    let exe = std::env::current_exe().unwrap();
    let name = format!("object::file::tests::{test}");
    let mut run = std::process::Command::new("unshare");
    run.arg("-m").arg(exe).args(["--exact", &name, "--nocapture"]).env("BASALT_TEST_MOUNTS", "1");
    match run.output() {
        Ok(output) if me() == 0 && !String::from_utf8_lossy(&output.stderr).contains("unshare failed") => {
            assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        }
        _ => eprintln!("not run: no mount namespaces here"),
    }
    false
}

fn mount(arguments: &[&str], place: &std::path::Path) -> bool {
    std::process::Command::new("mount").args(arguments).arg(place).status().is_ok_and(|s| s.success())
}

#[test]
fn a_full_or_read_only_filesystem_leaves_the_old_file_whole_and_says_so() {
    if !among_own_mounts("a_full_or_read_only_filesystem_leaves_the_old_file_whole_and_says_so") {
        return;
    }
    let host = Host::new();
    assert!(mount(&["-t", "tmpfs", "-o", "size=64k", "none"], &host.at("/etc")));
    put(&host, "old\n", 0o644);
    let file = File::new(PATH);
    let before = file.read(&host.sys).unwrap();
    let tree = host.tree("/etc");
    let large: Attrs = [("content".to_owned(), Value::Str(host.content(&"x".repeat(200_000))))].into();
    let set = |to: &Attrs| file.set(&host.sys, &before, to, &mut Progress::new(&mut |_| {})).unwrap_err();
    let error = set(&large);
    assert!(error.hint.as_deref().is_some_and(|h| h.contains("make room")), "{error:?}");
    assert_eq!(host.tree("/etc"), tree);
    assert!(mount(&["-o", "remount,ro"], &host.at("/etc")));
    for to in [large, Attrs::new(), [("mode".to_owned(), Value::str("0600"))].into()] {
        let error = set(&to);
        assert!(error.hint.as_deref().is_some_and(|h| h.contains("read-only")), "{error:?}");
    }
    assert_eq!(host.tree("/etc"), tree);
    // Something that is mounted cannot be moved away.
    let mounted = File::new("/etc");
    let now = mounted.read(&host.sys).unwrap();
    host.run("20261120-0000-aaaa", &[]);
    let error = mounted.set(&host.sys, &now, &Attrs::new(), &mut Progress::new(&mut |_| {})).unwrap_err();
    assert!(error.hint.as_deref().is_some_and(|h| h.contains("unmount")), "{error:?}");
}

#[test]
fn an_immutable_file_says_what_locks_it() {
    let host = Host::new();
    put(&host, "old\n", 0o644);
    let chattr =
        |flag: &str| std::process::Command::new("chattr").arg(flag).arg(host.at(PATH)).stderr(std::process::Stdio::null()).status();
    if !chattr("+i").is_ok_and(|s| s.success()) {
        eprintln!("not run: no chattr here");
        return;
    }
    let file = File::new(PATH);
    let before = file.read(&host.sys).unwrap();
    let error =
        file.set(&host.sys, &before, &[("mode".to_owned(), Value::str("0600"))].into(), &mut Progress::new(&mut |_| {})).unwrap_err();
    let again = file.read(&host.sys).unwrap();
    chattr("-i").unwrap();
    assert!(error.hint.as_deref().is_some_and(|h| h.contains("chattr -i")), "{error:?}");
    assert_eq!(again, before);
}
