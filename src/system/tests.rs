//! What `System` promises, on a temporary root.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::journal::Owed;
use super::*;
use crate::plan::{Key, Kind, RunHeader, Tally};
use crate::value::{Attrs, Value};

struct Root {
    dir: tempfile::TempDir,
    sys: System,
}

fn root() -> Root {
    let dir = tempfile::tempdir().unwrap();
    Root { sys: at(dir.path()), dir }
}

fn at(dir: &Path) -> System {
    System::at(dir, Box::new(HostExec::new(dir, Default::default())))
}

fn meta(mode: u32) -> Meta {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Meta { mode, uid, gid, ..Meta::default() }
}

pub fn header(id: &str) -> RunHeader {
    let text = |s: &str| s.to_owned();
    RunHeader {
        id: text(id),
        who: text("ann@desk"),
        started: 1,
        tree: text("t"),
        commit: text("c"),
        repository: text("r"),
        rolls_back: vec![],
    }
}

#[test]
fn links_never_lead_out_of_the_root() {
    let Root { dir, sys } = root();
    fs::create_dir_all(dir.path().join("usr/lib")).unwrap();
    fs::write(dir.path().join("usr/lib/os-release"), "ID=x").unwrap();
    fs::create_dir(dir.path().join("etc")).unwrap();
    symlink("../../../../usr/lib/os-release", dir.path().join("etc/os-release")).unwrap();
    symlink("/usr", dir.path().join("u")).unwrap();
    symlink("round", dir.path().join("round")).unwrap();
    assert_eq!(sys.read("/etc/os-release").unwrap().unwrap(), b"ID=x");
    assert_eq!(sys.read("/u/lib/os-release").unwrap().unwrap(), b"ID=x");
    assert_eq!(sys.resolve("/u/lib/../lib/os-release"), "/usr/lib/os-release");
    assert_eq!(sys.list("/u").unwrap(), ["lib"]);
    assert_eq!(sys.stat("/u").unwrap().unwrap().kind, FileKind::Symlink);
    assert_eq!(sys.readlink("/u").unwrap().as_deref(), Some("/usr"));
    sys.write_bytes("/u/new", b"1", &meta(0o644)).unwrap();
    assert!(dir.path().join("usr/new").exists());
    assert!(sys.read("/round").is_err());
    assert_eq!(sys.read("/etc/nothing/at/all").unwrap(), None);
}

#[test]
fn a_pipe_is_not_waited_for() {
    let Root { dir, sys } = root();
    let made = std::process::Command::new("mkfifo").arg(dir.path().join("pipe")).status().unwrap();
    assert!(made.success());
    assert!(sys.read("/pipe").is_err() && sys.hash("/pipe").is_err());
    assert_eq!(sys.stat("/pipe").unwrap().unwrap().kind, FileKind::Other);
}

#[test]
fn a_file_gets_exactly_what_is_asked_for_in_one_step() {
    let Root { dir, sys } = root();
    fs::write(dir.path().join("f"), "old").unwrap();
    let hash = sys.contents().add(b"new".to_vec());
    let wanted = Meta { xattrs: BTreeMap::from([("user.a".into(), b"1".to_vec())]), mtime_ns: Some(-5), ..meta(0o4751) };
    sys.write_file("/f", &hash, &wanted).unwrap();
    let stat = sys.stat("/f").unwrap().unwrap();
    assert_eq!((stat.mode, stat.mtime_ns, stat.size), (0o4751, -5, 3));
    assert_eq!(sys.xattrs("/f").unwrap(), wanted.xattrs);
    sys.set_xattrs("/f", &BTreeMap::new()).unwrap();
    assert!(sys.xattrs("/f").unwrap().is_empty());
    assert_eq!(sys.hash("/f").unwrap(), Some(hash));
    // What a kill leaves beside it is taken away by name.
    let before = sys.list("/").unwrap();
    sys.fail_at(2);
    assert_eq!(sys.write_bytes("/f", b"newer", &wanted).unwrap_err().code, Code::Interrupted);
    assert_eq!((sys.list("/").unwrap().len(), sys.read("/f").unwrap().unwrap()), (before.len() + 1, b"new".to_vec()));
    sys.fail_at(None);
    sys.sweep("/f").unwrap();
    assert_eq!(sys.list("/").unwrap(), before);
}

#[test]
fn a_failed_write_leaves_nothing_behind() {
    let Root { dir, sys } = root();
    fs::create_dir(dir.path().join("d")).unwrap();
    fs::write(dir.path().join("d/inside"), "").unwrap();
    assert!(sys.write_bytes("/d", b"x", &meta(0o644)).is_err());
    assert!(sys.write_bytes("/no/such/f", b"x", &meta(0o644)).is_err());
    assert_eq!(sys.list("/").unwrap(), ["d"]);
}

#[test]
fn contents_come_from_wherever_they_are_and_are_checked() {
    let Root { dir, sys } = root();
    fs::write(dir.path().join("f"), "on the host").unwrap();
    let hash = sys.hash("/f").unwrap().unwrap();
    assert_eq!(sys.contents().bytes(&hash).unwrap_err().code, Code::HostNeeded);
    sys.note_file(&hash, "/f");
    assert_eq!(&sys.contents().bytes(&hash).unwrap()[..], b"on the host");
    fs::write(dir.path().join("f"), "another").unwrap();
    assert!(!sys.contents().has(&hash));
    // Large ones go to the spool, and what does not fit its hash is not taken.
    let large = vec![7; 5 << 20];
    let hash = sys.contents().add(large.clone());
    assert!(dir.path().join("var/lib/basalt/spool").exists());
    assert_eq!(sys.contents().bytes(&hash).unwrap().len(), large.len());
    let mut spooled = sys.contents().spool().unwrap();
    spooled.write(b"short").unwrap();
    assert_eq!(sys.contents().spooled(spooled, &Hash::of(b"other")).unwrap_err().code, Code::Damaged);
    drop(sys);
    assert!(!dir.path().join("var/lib/basalt/spool").exists());
}

#[test]
fn names_and_numbers_follow_the_files() {
    let Root { dir, sys } = root();
    fs::create_dir(dir.path().join("etc")).unwrap();
    fs::write(dir.path().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nbroken\n+::::::\nann:x:7:8:A:/home/ann:/bin/sh\n").unwrap();
    fs::write(dir.path().join("etc/group"), "g:x:8:\nsudo:x:27:ann,bob\n").unwrap();
    assert_eq!((sys.uid("ann").unwrap(), sys.user_name(7), sys.user_name(9)), (Some(7), "ann".into(), "9".into()));
    assert_eq!((sys.gid("sudo").unwrap(), sys.group_name(8), sys.supplementary("ann").unwrap()), (Some(27), "g".into(), vec![27]));
    fs::write(dir.path().join("etc/passwd"), "bob:x:9:9::/:/bin/sh\n").unwrap();
    assert_eq!((sys.uid("ann").unwrap(), sys.user_name(9)), (None, "bob".into()));
}

fn before(n: i64) -> Entry {
    Entry::Before {
        key: Key::new(Kind::File, format!("/{n}")),
        attrs: Attrs::from([("n".into(), Value::Int(n))]),
        secret: false,
        shown: None,
        kept: None,
    }
}

#[test]
fn a_journal_reads_back_and_every_cut_is_a_torn_end() {
    let Root { dir, sys } = root();
    sys.begin(&header("run-1")).unwrap();
    sys.journal(&[before(1), before(2)]).unwrap();
    sys.end(Tally::default(), None).unwrap();
    let journal = sys.read_journal("run-1").unwrap();
    assert!(!journal.torn && journal.entries.len() == 4 && journal.entries[2] == before(2));
    assert_eq!(sys.generation().unwrap(), 1);
    let place = dir.path().join("var/lib/basalt/runs/run-1/journal");
    let whole = fs::read(&place).unwrap();
    let first = whole.iter().position(|b| *b == b'\n').unwrap() + 1;
    for cut in first..whole.len() {
        fs::write(&place, &whole[..cut]).unwrap();
        let journal = sys.read_journal("run-1").unwrap();
        let lines = whole[..cut].iter().filter(|b| **b == b'\n').count();
        assert_eq!((journal.entries.len(), journal.torn), (lines, whole[cut - 1] != b'\n'));
    }
    fs::write(&place, &whole[..first - 1]).unwrap();
    assert_eq!(sys.read_journal("run-1").unwrap_err().code, Code::Damaged);
    // A bit that flips in the middle is damage, wherever it is; never another story.
    let last = whole[..whole.len() - 1].iter().rposition(|b| *b == b'\n').unwrap();
    for at in 0..last {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&place, &bytes).unwrap();
        assert_eq!(sys.read_journal("run-1").unwrap_err().code, Code::Damaged, "byte {at}");
    }
    // Zeros where data was to be, as filesystems leave them.
    fs::write(&place, [&whole[..last + 1], &[0; 100]].concat()).unwrap();
    assert!(sys.read_journal("run-1").unwrap().torn);
}

#[test]
fn the_next_run_cleans_up_what_a_killed_agent_left() {
    let Root { dir, sys } = root();
    let spool = dir.path().join("var/lib/basalt/spool");
    sys.begin(&header("run-1")).unwrap();
    sys.journal(&[before(1)]).unwrap();
    fs::create_dir(&spool).unwrap();
    fs::write(spool.join(format!("{}-0", i32::MAX)), "").unwrap();
    fs::write(spool.join(format!("{}-0", std::process::id())), "").unwrap();
    sys.fail_at(2);
    assert!(sys.write_bytes("/1", b"x", &meta(0o644)).is_err());
    assert_eq!(sys.list("/").unwrap().len(), 2);
    let sys = at(dir.path());
    sys.begin(&header("run-2")).unwrap();
    assert_eq!(sys.list("/").unwrap(), ["var"]);
    sys.end(Tally::default(), None).unwrap();
    assert_eq!(sys.list("/var/lib/basalt/spool").unwrap(), [format!("{}-0", std::process::id())]);
}

#[test]
fn what_is_owed_outlives_runs_until_it_is_paid() {
    let Root { dir, sys } = root();
    let owed = Owed { what: "service: web".into(), shown: "restart web".into() };
    sys.begin(&header("run-1")).unwrap();
    sys.journal(&[before(1), Entry::Owed(owed.clone())]).unwrap();
    drop(sys);
    let sys = at(dir.path());
    assert_eq!(sys.owed().unwrap(), std::slice::from_ref(&owed));
    sys.begin(&header("run-2")).unwrap();
    sys.end(Tally::default(), None).unwrap();
    sys.begin(&header("run-3")).unwrap();
    assert_eq!(sys.owed().unwrap(), std::slice::from_ref(&owed));
    sys.journal(&[Entry::Paid { what: owed.what }]).unwrap();
    sys.end(Tally::default(), None).unwrap();
    assert_eq!(sys.owed().unwrap(), []);
    assert_eq!(sys.generation().unwrap(), 3);
}

#[test]
fn runs_have_names_that_lead_nowhere_else() {
    let Root { dir: _dir, sys } = root();
    for id in ["", "..", "a/b", "-a", "a b", &"a".repeat(65)] {
        assert_eq!(sys.begin(&header(id)).unwrap_err().code, Code::Damaged, "{id:?}");
        assert!(sys.read_journal(id).is_err());
    }
    assert!(sys.kept("../../etc/passwd").ends_with("nothing"));
    assert!(sys.kept("run-1/tree-ab").ends_with("runs/run-1/keep/tree-ab"));
}

#[test]
fn the_oldest_runs_go_and_the_newest_stays() {
    let Root { dir: _dir, sys } = root();
    for n in 0..25 {
        sys.begin(&header(&format!("run-{n}"))).unwrap();
        sys.end(Tally::default(), None).unwrap();
    }
    let runs: Vec<String> = sys.runs().unwrap().into_iter().map(|r| r.header.id).collect();
    assert_eq!((runs.len(), runs[0].as_str(), runs[19].as_str()), (20, "run-24", "run-5"));
    assert_eq!(sys.generation().unwrap(), 25);
}

#[test]
fn kept_contents_and_trees_come_back() {
    let Root { dir, sys } = root();
    fs::create_dir_all(dir.path().join("d/sub")).unwrap();
    fs::write(dir.path().join("d/f"), "f").unwrap();
    fs::set_permissions(dir.path().join("d/sub"), fs::Permissions::from_mode(0o1770)).unwrap();
    let hash = sys.hash("/d/f").unwrap().unwrap();
    sys.begin(&header("run-1")).unwrap();
    sys.keep_content(&hash, "/d/f").unwrap();
    assert_eq!(sys.keep_content(&Hash::of(b"else"), "/d/f").unwrap_err().code, Code::Stale);
    let name = sys.keep_tree("/d").unwrap();
    sys.move_to_keep("/d", &name).unwrap();
    assert_eq!(sys.list("/").unwrap(), ["var"]);
    sys.end(Tally::default(), None).unwrap();
    drop(sys);
    let sys = at(dir.path());
    sys.look_in_keep("run-1");
    assert_eq!(&sys.contents().bytes(&hash).unwrap()[..], b"f");
    sys.move_from_keep(&name, "/d").unwrap();
    assert_eq!(sys.stat("/d/sub").unwrap().unwrap().mode, 0o1770);
    assert!(sys.move_from_keep(&name, "/d").is_err());
}
