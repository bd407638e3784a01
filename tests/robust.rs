//! What hosts and trees do that nobody planned for: reboots in the middle, mounts whose server is gone, names that are not nice.

mod lab;

use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use lab::{Host, Lab};

#[track_caller]
fn until(what: &str, done: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < limit, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn means(lab: &Lab, state: &str) {
    lab.write("states/top.sls", "base:\n  '*': [state]\n");
    lab.write("states/state.sls", state);
    lab.commit("what is meant");
}

/// The next plan says that a run was broken off; rollback takes it back, and another apply goes on.
#[test]
fn a_reboot_in_the_middle_of_a_run_is_told_and_taken_back() {
    if !lab::required() {
        return;
    }
    let lab = Lab::hosts(1);
    means(
        &lab,
        "lab-service:\n  pkg.installed: []\n/etc/first:\n  file.managed:\n    - contents: first\n\
         touch /root/begun; sleep 60:\n  cmd.run:\n    - undo: rm -f /root/begun\n    - unless: test -e /root/calm\n\
         /etc/last:\n  file.managed:\n    - contents: last\n",
    );
    let host = &lab["h1"];
    let before = host.fingerprint_root();
    let broken_off = || {
        let running = lab.spawn_basalt(["apply", "--yes"]);
        until("the run begins", || host.read("/root/begun").is_some());
        host.kill();
        drop(running);
        host.boot();
        lab.basalt(["plan"]).ok().says("was broken off; `basalt rollback` takes back what it did");
    };
    broken_off();
    lab.basalt(["rollback", "--yes"]).ok();
    before.assert_same(&host.fingerprint_root());
    // Or it goes on from where it was.
    broken_off();
    host.sh("touch /root/calm").ok();
    lab.basalt(["apply", "--yes"]).ok();
    assert_eq!(host.read("/etc/last").as_deref(), Some("last\n"));
    let plan = lab.basalt(["plan", "--detailed-exitcode"]).ok();
    assert!(!plan.stdout.contains("broken off"), "{plan}");
}

/// A filesystem that takes every question and answers none, as NFS does when its server is gone.
fn dead_mount(host: &Host) {
    host.sh("[ -e /dev/fuse ] || mknod /dev/fuse c 10 229
         mkdir -p /mnt/dead
         (exec 3<>/dev/fuse
          mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0,allow_other dead /mnt/dead
          exec sleep 600 <&3) >/dev/null 2>&1 &")
        .ok();
    until("it is mounted", || host.sh("grep -q /mnt/dead /proc/mounts").code == Some(0));
}

#[test]
fn a_mount_whose_server_is_gone_hurts_only_what_looks_there() {
    if !lab::required() {
        return;
    }
    let lab = Lab::light(1);
    dead_mount(&lab["h1"]);
    means(&lab, "/etc/motd:\n  file.managed:\n    - contents: hello\n");
    lab.basalt(["apply", "--yes"]).ok();
    means(&lab, "/mnt/dead/deep/file:\n  file.managed:\n    - contents: hello\n");
    let begun = Instant::now();
    let plan = lab.basalt(["plan"]).code(3);
    assert!(plan.to_string().contains("/mnt/dead/deep") && plan.to_string().contains("does not answer"), "{plan}");
    assert!(begun.elapsed() < Duration::from_secs(80), "{:?}", begun.elapsed());
    until("no agent hangs", || lab["h1"].sh("pgrep -fc '[b]asalt-agent' || true").stdout.trim() == "0");
    // A condition is a command like any other, with its own time.
    means(&lab, "/etc/motd:\n  file.managed:\n    - contents: hello\n    - onlyif: timeout -s KILL 2 ls /mnt/dead\n");
    lab.basalt(["plan"]).ok();
}

/// Names as they come: everything that a shell, a terminal or an option parser could take for something else.
const NAMES: [&str; 6] = ["-rf", "two\nlines", "it's \"quoted\"", "$(id) `id`", "\u{1b}[2J", " space and \u{202e}turn "];

#[test]
fn hostile_names_are_names_like_any_other() {
    if !lab::required() {
        return;
    }
    let lab = Lab::light(1);
    let host = &lab["h1"];
    let long = "n".repeat(240);
    let names: Vec<&str> = NAMES.into_iter().chain([long.as_str()]).collect();
    for name in &names {
        lab.write(&format!("states/tree/{name}"), "wanted\n");
        lab.write(&format!("packed/{name}"), "packed\n");
    }
    let tar = lab.run(["tar", "-czf", "states/all.tar.gz", "-C", "packed", "."]);
    tar.ok();
    means(
        &lab,
        "/srv/tree:\n  file.recurse:\n    - source: salt://tree\n    - clean: True\n\
         /srv/packed:\n  archive.extracted:\n    - source: salt://all.tar.gz\n    - enforce_toplevel: False\n\
         /srv/bare:\n  file.directory:\n    - clean: True\n",
    );
    // What is there already, and goes.
    let root = host.root();
    for folder in ["srv/tree", "srv/bare"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
        for name in &names {
            std::fs::write(root.join(folder).join(format!("{}old", &name[..name.len().min(200)])), "old\n").unwrap();
        }
    }
    let before = host.fingerprint_root();
    let plan = lab.basalt(["plan"]).ok();
    assert!(!plan.stdout.contains('\u{1b}') && !plan.stdout.lines().any(|line| line.starts_with("lines")), "{plan}");
    lab.basalt(["apply", "--yes"]).ok();
    for name in &names {
        assert_eq!(host.read(&format!("/srv/tree/{name}")).as_deref(), Some("wanted\n"), "{name:?}");
        assert_eq!(host.read(&format!("/srv/packed/{name}")).as_deref(), Some("packed\n"), "{name:?}");
    }
    assert_eq!(std::fs::read_dir(root.join("srv/bare")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(root.join("srv/tree")).unwrap().count(), names.len());
    lab.basalt(["plan", "--detailed-exitcode"]).code(0);
    lab.basalt(["rollback", "--yes"]).ok();
    before.assert_same(&host.fingerprint_root());

    // A name that is no text is refused, and nothing is done to what stands beside it.
    let raw = std::ffi::OsStr::from_bytes(b"raw-\xff\xfe");
    std::fs::write(root.join("srv/bare").join(raw), "raw\n").unwrap();
    means(&lab, "/srv/bare:\n  file.directory:\n    - clean: True\n");
    let plan = lab.basalt(["plan"]).code(3);
    assert!(plan.to_string().contains("raw-"), "{plan}");
    lab.basalt(["apply", "--yes"]).code(3);
    assert!(root.join("srv/bare").join(raw).exists() && host.read("/srv/bare/-rfold").is_some());
}
