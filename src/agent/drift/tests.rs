use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::*;
use crate::agent::planner::Plan;
use crate::agent::tests::Bench;

/// Things under watch on a temporary root; each is looked at once, and nothing differs.
struct Watched<'a> {
    drift: Drift<'a>,
    root: PathBuf,
}

fn watched<'a>(bench: &'a Bench, plan: &'a Plan) -> Watched<'a> {
    let mut drift = Drift::of(&bench.sys, plan);
    assert_eq!(drift.look(), []);
    Watched { drift, root: bench.dir.path().to_owned() }
}

impl Watched<'_> {
    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// What is told within the time that a touch takes at most, as `key state,state`.
    fn told(&mut self) -> Vec<String> {
        let (never, _other) = UnixStream::pair().unwrap();
        let end = Instant::now() + PAUSE * 3;
        let mut told = BTreeSet::new();
        while Instant::now() < end {
            // Only what is due ends the wait: an empty deadline does it for a quiet root.
            self.drift.due.entry(usize::MAX).or_insert(end);
            self.drift.wait(never.as_fd());
            for touched in self.drift.look() {
                let ids: Vec<String> = touched.states.iter().map(|state| state.id.clone()).collect();
                told.insert(format!("{} {}", touched.key, ids.join(",")));
            }
        }
        // So that the next touch is not one of the same row.
        self.drift.things.iter_mut().for_each(|thing| thing.looked = None);
        told.into_iter().collect()
    }

    /// Does something and gives what is told of it.
    fn after(&mut self, what: impl FnOnce(&Watched)) -> Vec<String> {
        what(self);
        self.told()
    }
}

const MANAGED: &str = r#"a file.managed {"name": "/etc/app/a.conf", "contents": "a", "mode": "0644"}
b file.managed {"name": "/etc/app/b.conf", "replace": false, "mode": "0644"}
top file.directory {"name": "/", "mode": "0711"}
gone file.absent {"name": "/srv/gone/deep/file"}"#;

fn bench() -> Bench {
    let bench = Bench::new();
    bench.file("/etc/app/a.conf", "a\n");
    bench.file("/etc/app/b.conf", "log\n");
    bench.file("/etc/passwd", "root:x:0:0::/root:/bin/sh\n");
    bench.file("/etc/group", "root:x:0:\n");
    fs::create_dir_all(bench.dir.path().join("srv")).unwrap();
    bench
}

#[test]
fn a_file_that_is_written_replaced_or_removed_is_told_with_its_state() {
    let bench = bench();
    let plan = bench.plan(MANAGED);
    let mut w = watched(&bench, &plan);
    let a = ["file:/etc/app/a.conf a"];
    assert_eq!(w.after(|w| fs::write(w.at("/etc/app/a.conf"), "other\n").unwrap()), a);
    assert_eq!(w.after(|w| fs::write(w.at("/etc/app/a.conf"), "a\n").unwrap()), a);
    // As editors do.
    let replace = |w: &Watched, text: &str| {
        fs::write(w.at("/etc/app/.a.swp"), text).unwrap();
        fs::rename(w.at("/etc/app/.a.swp"), w.at("/etc/app/a.conf")).unwrap();
    };
    assert_eq!(w.after(|w| replace(w, "b\n")), a);
    assert_eq!(w.after(|w| replace(w, "c\n")), a);
    assert_eq!(w.after(|w| fs::set_permissions(w.at("/etc/app/a.conf"), fs::Permissions::from_mode(0o600)).unwrap()), a);
    assert_eq!(w.after(|w| fs::remove_file(w.at("/etc/app/a.conf")).unwrap()), a);
    assert_eq!(w.after(|w| symlink("b.conf", w.at("/etc/app/a.conf")).unwrap()), a);
    let chmod = |w: &Watched, mode| fs::set_permissions(w.at("/"), fs::Permissions::from_mode(mode)).unwrap();
    assert_eq!(w.after(|w| chmod(w, 0o711)), ["file:/ top"]);
    // What a state makes sure is not there comes, with the whole way to it.
    let deep = |w: &Watched| {
        fs::create_dir_all(w.at("/srv/gone/deep")).unwrap();
        fs::write(w.at("/srv/gone/deep/file"), "").unwrap();
    };
    assert_eq!(w.after(deep), ["file:/srv/gone/deep/file gone"]);
}

#[test]
fn what_nobody_minds_is_not_told() {
    let bench = bench();
    let plan = bench.plan(MANAGED);
    let mut w = watched(&bench, &plan);
    // Touched and the same; another file; the contents of a file of which a state minds the mode.
    assert!(w.after(|w| fs::write(w.at("/etc/app/a.conf"), "a\n").unwrap()).is_empty());
    assert!(w.after(|w| fs::write(w.at("/etc/app/other"), "x").unwrap()).is_empty());
    assert!(w.after(|w| fs::write(w.at("/etc/app/b.conf"), "log\nlog\n").unwrap()).is_empty());
    let chmod = |w: &Watched| fs::set_permissions(w.at("/etc/app/b.conf"), fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(w.after(chmod), ["file:/etc/app/b.conf b"]);
    // Nothing is left to be looked at, so it waits without an end.
    w.drift.due.clear();
    assert!(w.told().is_empty());
}

#[test]
fn a_directory_on_the_way_that_is_replaced_takes_its_files_along() {
    let bench = bench();
    let plan = bench.plan(MANAGED);
    let mut w = watched(&bench, &plan);
    let other = |w: &Watched| {
        fs::create_dir_all(w.at("/etc/new")).unwrap();
        fs::write(w.at("/etc/new/a.conf"), "n\n").unwrap();
        fs::rename(w.at("/etc/app"), w.at("/etc/old")).unwrap();
        fs::rename(w.at("/etc/new"), w.at("/etc/app")).unwrap();
    };
    assert_eq!(w.after(other), ["file:/etc/app/a.conf a", "file:/etc/app/b.conf b"]);
    // The new one is watched, the old one is not any more.
    assert_eq!(w.after(|w| fs::write(w.at("/etc/app/a.conf"), "m\n").unwrap()), ["file:/etc/app/a.conf a"]);
    assert!(w.after(|w| fs::write(w.at("/etc/old/a.conf"), "m\n").unwrap()).is_empty());
    // A link in its place: what it leads to counts.
    let link = |w: &Watched| {
        fs::remove_dir_all(w.at("/etc/app")).unwrap();
        symlink("/etc/old", w.at("/etc/app")).unwrap();
    };
    assert_eq!(w.after(link), ["file:/etc/app a,b", "file:/etc/app/b.conf b"]);
    assert_eq!(w.after(|w| fs::remove_file(w.at("/etc/old/a.conf")).unwrap()), ["file:/etc/app/a.conf a"]);
}

#[test]
fn what_comes_into_a_clean_directory_and_what_changes_below_a_recursed_one_is_told() {
    let bench = bench();
    bench.file("/srv/www/sub/page", "x");
    bench.file("/srv/clean/own", "x");
    let plan = bench.plan(
        r#"own file.managed {"name": "/srv/clean/own", "contents": "x", "contents_newline": false}
clean file.directory {"name": "/srv/clean", "clean": true} require=own
www file.directory {"name": "/srv/www", "file_mode": "0644", "dir_mode": "0755", "recurse": ["mode"]}"#,
    );
    let mut w = watched(&bench, &plan);
    assert_eq!(w.after(|w| fs::write(w.at("/srv/clean/more"), "").unwrap()), ["file:/srv/clean/more clean"]);
    let chmod = |w: &Watched| fs::set_permissions(w.at("/srv/www/sub/page"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(w.after(chmod), ["file:/srv/www/sub/page www"]);
    assert_eq!(w.after(|w| fs::write(w.at("/srv/www/sub/new"), "").unwrap()), ["file:/srv/www/sub/new www"]);
    assert!(w.after(|w| fs::write(w.at("/srv/www/sub/page"), "other").unwrap()).is_empty());
}

#[test]
fn users_packages_and_units_are_told_by_their_files() {
    let bench = bench();
    let package = |name: &str| format!("Package: {name}\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n\n");
    bench.file("/etc/os-release", "ID=debian\n");
    bench.file("/var/lib/dpkg/status", &[package("vim"), package("nano")].concat());
    bench.file("/lib/systemd/system/web.service", "[Service]\nExecStart=/x\n[Install]\nWantedBy=multi-user.target\n");
    bench.file("/lib/systemd/system/web.socket", "[Socket]\n");
    for directory in ["run/systemd/system", "run/systemd/units", "etc/systemd/system/multi-user.target.wants"] {
        fs::create_dir_all(bench.dir.path().join(directory)).unwrap();
    }
    let (links, running) = ("/etc/systemd/system/multi-user.target.wants/web.service", "/run/systemd/units/invocation:web.service");
    for (target, link) in [("/lib/systemd/system/web.service", links), ("0123", running)] {
        symlink(target, bench.dir.path().join(&link[1..])).unwrap();
    }
    let plan = bench.plan(
        r#"pkg pkg.installed {"name": "vim"}
root user.present {"name": "root", "shell": "/bin/sh"}
web service.running {"name": "web", "enable": true}
kernel sysctl.present {"name": "net.ipv4.ip_forward", "value": 1}"#,
    );
    let mut w = watched(&bench, &plan);
    let watching = w.drift.watching();
    let unwatched: Vec<&str> = watching.unwatched.iter().map(|u| u.what.as_str()).collect();
    assert_eq!(unwatched, ["sysctl:net.ipv4.ip_forward"], "{watching:?}");

    let status = |text: String| move |w: &Watched| fs::write(w.at("/var/lib/dpkg/status"), text).unwrap();
    assert!(w.after(status(package("vim"))).is_empty(), "nobody minds nano");
    assert_eq!(w.after(status(package("nano"))), ["packages:apt pkg"]);
    assert_eq!(w.after(|w| fs::write(w.at("/etc/passwd"), "root:x:0:0::/root:/bin/csh\n").unwrap()), ["user:root root"]);
    assert_eq!(w.after(|w| fs::remove_file(w.at(running)).unwrap()), ["service:web.service web"]);
    assert_eq!(w.after(|w| fs::remove_file(w.at(links)).unwrap()), ["service:web.service web"]);
    // A new directory of links.
    let elsewhere = |w: &Watched| {
        fs::create_dir(w.at("/etc/systemd/system/other.target.wants")).unwrap();
        symlink("/lib/systemd/system/web.service", w.at("/etc/systemd/system/other.target.wants/web.service")).unwrap();
    };
    assert_eq!(w.after(elsewhere), ["service:web.service web"]);
}

#[test]
fn what_conditions_look_at_is_told_and_commands_are_not_watched() {
    let bench = bench();
    let plan = bench.plan(
        r#"asks file.managed {"name": "/etc/app/h", "unless": ["probe something", {"fun": "grains.get", "args": ["os"]}]}
once cmd.run {"name": "make", "creates": "/srv/made"}
guarded file.managed {"name": "/etc/app/g", "unless": "test -f /srv/flag"}"#,
    );
    let mut w = watched(&bench, &plan);
    let unwatched: Vec<String> = w.drift.watching().unwatched.into_iter().map(|unwatched| unwatched.what).collect();
    assert_eq!(unwatched, ["probe something", "grains.get"]);
    assert_eq!(w.after(|w| fs::write(w.at("/srv/made"), "").unwrap()), ["file:/srv/made once"]);
    assert_eq!(w.after(|w| fs::write(w.at("/srv/flag"), "").unwrap()), ["file:/srv/flag guarded"]);
    assert!(w.after(|w| fs::write(w.at("/srv/flag"), "").unwrap()).is_empty());
}

#[test]
fn what_is_touched_all_the_time_is_looked_at_ever_less_often() {
    let bench = bench();
    let plan = bench.plan(MANAGED);
    let mut w = watched(&bench, &plan);
    let index = w.drift.things.iter().position(|thing| thing.key().name == "/etc/app/a.conf").unwrap();
    let mut pauses = Vec::new();
    for _ in 0..9 {
        w.drift.touch(index);
        w.drift.due.clear();
        let thing = &mut w.drift.things[index];
        thing.looked = Some(Instant::now());
        pauses.push(thing.pause.as_millis());
    }
    assert_eq!(pauses, [200, 400, 800, 1600, 3200, 6400, 10000, 10000, 10000]);
    // What takes long to look at is not looked at all the time.
    let slow = &mut w.drift.things[index];
    (slow.took, slow.pause, slow.looked) = (Duration::from_secs(1), PAUSE, Some(Instant::now()));
    w.drift.touch(index);
    assert_eq!(w.drift.things[index].pause, Duration::from_secs(20));
    w.drift.due.clear();
    w.drift.things[index].looked = Instant::now().checked_sub(Duration::from_secs(60));
    w.drift.touch(index);
    assert_eq!(w.drift.things[index].pause, PAUSE);
}

#[test]
fn a_unit_without_files_is_heard_of_over_the_bus() {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    let bench = bench();
    fs::create_dir_all(bench.dir.path().join("run/dbus")).unwrap();
    let listener = UnixListener::bind(bench.dir.path().join("run/dbus/system_bus_socket")).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut hello = [0; 256];
        let n = stream.read(&mut hello).unwrap();
        assert!(hello[..n].starts_with(b"\0AUTH EXTERNAL 3"), "{:?}", &hello[..n]);
        stream.write_all(b"OK 0123\r\n").unwrap();
        let mut asked = Vec::new();
        while !String::from_utf8_lossy(&asked).contains("web_2esocket'") {
            let n = stream.read(&mut hello).unwrap();
            asked.extend_from_slice(&hello[..n]);
        }
        (stream, asked)
    });
    let mut bus = Bus::connect(&bench.sys).unwrap();
    bus.watch("web.socket").unwrap();
    let (mut stream, asked) = server.join().unwrap();
    let asked = String::from_utf8_lossy(&asked);
    for word in ["BEGIN\r\n", "Hello", "Subscribe", "AddMatch"] {
        assert!(asked.contains(word), "{word}: {asked:?}");
    }
    // A signal as systemd sends it: one of another unit, then ours, cut in two.
    let signal = |path: &str| {
        let mut fields = vec![1, 1, b'o', 0];
        fields.extend(u32::try_from(path.len()).unwrap().to_le_bytes());
        fields.extend(path.as_bytes());
        fields.push(0);
        let mut message = vec![b'l', 4, 1, 1];
        for number in [0, 7, u32::try_from(fields.len()).unwrap()] {
            message.extend(number.to_le_bytes());
        }
        message.extend(fields);
        message.resize(message.len().next_multiple_of(8), 0);
        message
    };
    let own = signal("/org/freedesktop/systemd1/unit/web_2esocket");
    stream.write_all(&signal("/org/freedesktop/systemd1/unit/other_2eservice")).unwrap();
    stream.write_all(&own[..20]).unwrap();
    assert_eq!(bus.touched(), Some(vec![]));
    stream.write_all(&own[20..]).unwrap();
    assert_eq!(bus.touched(), Some(vec!["web.socket".to_owned()]));
    // Nonsense ends it, and so does the end.
    stream.write_all(&[b'l', 4, 1, 1, 255, 255, 255, 255, 0, 0, 0, 0, 255, 255, 255, 255]).unwrap();
    assert_eq!(bus.touched(), None);
    drop(stream);
    assert_eq!(Bus::connect(&bench.sys).err().map(|why| why.contains("systemd does not tell")), Some(true));
}
