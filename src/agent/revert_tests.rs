//! The way back of whole runs: several of them, drift since, commands, and errors on the way. (`tests/law.rs` stops runs and rollbacks everywhere.)

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::protocol::{Applied, Body, PlanRequest, RollbackRequest, RunState};
use super::tests::lows;
use super::{history, planner, revert, run};
use crate::diagnostic::{Code, Result};
use crate::plan::{Action, Content, Hash, Key, Kind, Outcome, RunHeader, Verdict};
use crate::system::journal::{Noted, Owed};
use crate::system::{Command, Entry, HostExec, System};
use crate::value::Attrs;

/// A host with a bit of everything that a run can change.
fn host() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    for path in ["etc", "srv/tree/sub", "srv/clean/inner", "srv/adjust"] {
        fs::create_dir_all(at(path)).unwrap();
    }
    fs::write(at("etc/passwd"), "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n").unwrap();
    fs::write(at("etc/group"), "root:x:0:\nnogroup:x:65534:\n").unwrap();
    for path in [
        "etc/replaced",
        "etc/removed",
        "srv/tree/f",
        "srv/tree/sub/g",
        "srv/clean/stray",
        "srv/clean/inner/deep",
        "srv/adjust/f",
        "etc/same",
    ] {
        fs::write(at(path), format!("this was {path}\n")).unwrap();
    }
    fs::write(at("etc/twin"), "one file, two names\n").unwrap();
    fs::hard_link(at("etc/twin"), at("srv/twin")).unwrap();
    fs::set_permissions(at("etc/replaced"), fs::Permissions::from_mode(0o4750)).unwrap();
    fs::set_permissions(at("srv/tree/sub"), fs::Permissions::from_mode(0o1777)).unwrap();
    symlink("/etc/removed", at("srv/tree/link")).unwrap();
    symlink("/old/target", at("etc/link")).unwrap();
    let out = std::process::Command::new("setfattr").args(["-n", "user.mark", "-v", "7"]).arg(at("etc/removed")).output();
    drop(out);
    dir
}

const NEW: &[u8] = b"what is wanted\n";

const STATES: &str = r#"
    replaced file.managed {"name": "/etc/replaced", "source": "salt://x", "mode": "0640", "user": "nobody"}
    new file.managed {"name": "/opt/new/deep/f", "source": "salt://x", "makedirs": true}
    twin file.managed {"name": "/etc/twin", "source": "salt://x"}
    same file.managed {"name": "/etc/same", "source": "salt://x", "replace": false}
    removed file.absent {"name": "/etc/removed"}
    tree file.absent {"name": "/srv/tree"}
    clean file.directory {"name": "/srv/clean", "clean": true, "mode": "0700"}
    made file.directory {"name": "/srv/made/a/b", "makedirs": true}
    link file.symlink {"name": "/etc/link", "target": "/new/target"}
    newlink file.symlink {"name": "/srv/newlink", "target": "made"}
"#;

fn plan(sys: &System, states: &str) -> planner::Plan {
    sys.contents().add(NEW.to_vec());
    let source = || Content { name: "source".into(), hash: Hash::of(NEW), size: NEW.len() as u64, mode: None, link: None, secret: false };
    let mut lows = lows(states);
    lows.iter_mut().filter(|low| low.args.contains_key("source")).for_each(|low| low.contents.push(source()));
    planner::plan(sys, PlanRequest { lows, commands: true, ..PlanRequest::default() }).unwrap()
}

fn system(root: &Path) -> System {
    System::at(root, Box::new(HostExec::new(root, Default::default())))
}

fn header(id: &str) -> RunHeader {
    crate::system::tests::header(id)
}

/// Everything below the root but basalt's own state: what it is, mode, owner, contents, time (of files), target, attributes.
fn snapshot(root: &Path) -> BTreeMap<String, String> {
    fn below(sys: &System, path: &str, out: &mut BTreeMap<String, String>) {
        for name in sys.list(path).unwrap() {
            let path = format!("{}/{name}", path.trim_end_matches('/'));
            if path == "/var" {
                continue;
            }
            let meta = fs::symlink_metadata(sys.path(&path)).unwrap();
            let mut text = format!("{:o} {}:{} {:?}", meta.mode(), meta.uid(), meta.gid(), sys.xattrs(&path).unwrap());
            if meta.is_file() {
                let content = sys.read(&path).unwrap().unwrap();
                text += &format!(" {}.{} {:?}", meta.mtime(), meta.mtime_nsec(), String::from_utf8_lossy(&content));
            } else if meta.is_symlink() {
                text += &format!(" -> {:?}", sys.readlink(&path).unwrap());
            }
            out.insert(path.clone(), text);
            if meta.is_dir() {
                below(sys, &path, out);
            }
        }
    }
    let mut out = BTreeMap::new();
    below(&system(root), "/", &mut out);
    out
}

/// Plans and applies all states.
fn apply(root: &Path) -> Result<Applied> {
    let sys = system(root);
    let plan = plan(&sys, STATES);
    run::apply(&sys, &plan, &header("run-1"), &mut |_| {})
}

fn roll_back(root: &Path, run: &str, by: &str) -> Result<Applied> {
    let sys = system(root);
    let rollback = revert::plan(&sys, &RollbackRequest { run: run.into(), with_later: false, destroy_data: false })?;
    let mut failed = Vec::new();
    let applied = revert::apply(&sys, rollback, &header(by), &mut |body| {
        if let Body::Done(outcome) = body
            && !outcome.comment.is_empty()
        {
            failed.push(outcome.comment);
        }
    })?;
    assert_eq!(applied.tally.failed, 0, "{failed:?}");
    Ok(applied)
}

#[track_caller]
fn same(was: &BTreeMap<String, String>, is: &BTreeMap<String, String>) {
    for path in was.keys().chain(is.keys()) {
        assert_eq!(was.get(path), is.get(path), "{path}");
    }
}

#[test]
fn a_rollback_can_be_taken_back_itself() {
    let dir = host();
    apply(dir.path()).unwrap();
    let applied = snapshot(dir.path());
    roll_back(dir.path(), "run-1", "run-2").unwrap();
    assert!(roll_back(dir.path(), "run-1", "run-3").unwrap_err().summary.contains("taken back already, by run run-2"));
    roll_back(dir.path(), "run-2", "run-3").unwrap();
    same(&applied, &snapshot(dir.path()));
}

/// A second run by hand: one line of states.
fn more(root: &Path, id: &str, line: &str) {
    let sys = system(root);
    let plan = plan(&sys, line);
    assert_eq!(run::apply(&sys, &plan, &header(id), &mut |_| {}).unwrap().tally.failed, 0);
}

#[test]
fn later_runs_on_the_same_things_stand_in_the_way_until_they_come_along() {
    let dir = host();
    let was = snapshot(dir.path());
    more(dir.path(), "run-1", r#"a file.symlink {"name": "/etc/link", "target": "/1"}"#);
    more(dir.path(), "run-2", r#"a file.absent {"name": "/etc/same"}"#);
    more(dir.path(), "run-3", "a file.symlink {\"name\": \"/etc/link\", \"target\": \"/3\"}\nb file.absent {\"name\": \"/etc/removed\"}");
    let sys = system(dir.path());
    let ask = |with_later| revert::plan(&sys, &RollbackRequest { run: "run-1".into(), with_later, destroy_data: false });
    let refused = ask(false).err().unwrap();
    assert_eq!(refused.detail, "run run-3 by ann@desk: file:/etc/link");
    assert!(refused.hint.unwrap().contains("--with-later"));
    let rollback = ask(true).unwrap();
    revert::apply(&sys, rollback, &header("run-4"), &mut |_| {}).unwrap();
    let is = snapshot(dir.path());
    assert_eq!((is.get("/etc/link"), is.get("/etc/removed"), is.get("/etc/same")), (was.get("/etc/link"), was.get("/etc/removed"), None));
    // The one that was left alone can still go.
    roll_back(dir.path(), "run-2", "run-5").unwrap();
    same(&was, &snapshot(dir.path()));
}

#[test]
fn drift_since_the_run_is_named_and_overwritten_and_a_new_one_makes_the_plan_stale() {
    let dir = host();
    more(dir.path(), "run-1", r#"a file.symlink {"name": "/etc/link", "target": "/1"}"#);
    let link = dir.path().join("etc/link");
    let relink = |target: &str| {
        fs::remove_file(&link).unwrap();
        symlink(target, &link).unwrap();
    };
    relink("/by/hand");
    let sys = system(dir.path());
    let rollback = revert::plan(&sys, &RollbackRequest { run: "run-1".into(), with_later: false, destroy_data: false }).unwrap();
    let step = &rollback.plan.steps[0];
    assert_eq!((step.id.as_str(), step.action), ("file:/etc/link", Action::Change));
    assert!(step.reason.ends_with("changed since the run, and lost: target"), "{}", step.reason);
    relink("/again");
    assert_eq!(revert::apply(&sys, rollback, &header("run-2"), &mut |_| {}).unwrap_err().code, Code::Stale);
    assert_eq!(history::runs(&sys).unwrap().len(), 1);
    roll_back(dir.path(), "run-1", "run-3").unwrap();
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("/old/target"));
}

#[test]
fn commands_are_taken_back_by_their_undo_and_what_made_changes_effective_runs_again() {
    let bench = super::tests::Bench::new();
    bench.file("/etc/conf", "old");
    let command = |line: &str| Command::new(["sh", "-c", line]);
    let ran = |line: &str, again, undo: Option<&str>, one_way: Option<&str>| Entry::Ran {
        shown: line.into(),
        command: Noted::Plain(command(line)),
        again,
        undo: undo.map(|line| Noted::Plain(command(line))),
        one_way: one_way.map(str::to_owned),
    };
    let key = Key::new(Kind::File, "/etc/conf");
    let before = crate::object::of(&key).unwrap().read(&bench.sys).unwrap();
    bench.sys.begin(&header("run-1")).unwrap();
    bench.sys.keep_content(&Hash::of(b"old"), "/etc/conf").unwrap();
    let owed = Owed { what: "service: web".into(), shown: "restart web".into() };
    bench
        .sys
        .journal(&[Entry::Before { key: key.clone(), attrs: before, secret: true, shown: None, kept: None }, Entry::Owed(owed)])
        .unwrap();
    bench.file("/etc/conf", "new");
    bench.sys.journal(&[ran("first", false, Some("undo first"), None), ran("second", false, Some("undo second"), None)]).unwrap();
    bench
        .sys
        .journal(&[
            ran("restart web", true, None, None),
            ran("mail", false, None, Some("it sends mail")),
            ran("restart web", true, None, None),
        ])
        .unwrap();
    bench.sys.abandon();

    let rollback = revert::plan(&bench.sys, &RollbackRequest { run: "run-1".into(), with_later: false, destroy_data: false }).unwrap();
    let names: Vec<&str> = rollback.plan.steps.iter().map(|step| step.command.as_deref().unwrap_or(&step.id)).collect();
    assert_eq!(names, ["sh -c undo second", "sh -c undo first", "file:/etc/conf", "restart web"]);
    assert_eq!(rollback.plan.notices, ["`mail` of run run-1 cannot be taken back: it sends mail"]);
    assert_eq!(rollback.plan.steps[2].changes[0].diff, "content differs (secret)\n");
    bench.answer("restart web", 1, "");
    let applied = revert::apply(&bench.sys, rollback, &header("run-2"), &mut |_| {}).unwrap();
    assert_eq!((applied.tally.changed, applied.tally.failed), (3, 1));
    assert_eq!(bench.ran(), ["undo second", "undo first", "restart web"]);
    // It was not taken back whole, so it can be done again; what was owed stays owed until then.
    assert_eq!(bench.sys.owed().unwrap().len(), 1);
    bench.answer("restart web", 0, "");
    let rollback = revert::plan(&bench.sys, &RollbackRequest { run: "run-1".into(), with_later: false, destroy_data: false }).unwrap();
    assert_eq!(revert::apply(&bench.sys, rollback, &header("run-3"), &mut |_| {}).unwrap().tally.failed, 0);
    assert_eq!(bench.ran(), ["restart web"]);
    assert_eq!(bench.sys.owed().unwrap(), []);
    assert_eq!(history::runs(&bench.sys).unwrap()[2].rolled_back_by.as_deref(), Some("run-3"));
}

#[test]
fn an_error_in_taking_back_keeps_both_causes_and_the_rest_goes_on() {
    let dir = host();
    let sys = system(dir.path());
    let (good, bad) = (Key::new(Kind::File, "/etc/link"), Key::new(Kind::File, "/etc/gone"));
    let image = |key: &Key| Entry::Before {
        key: key.clone(),
        attrs: crate::object::of(key).unwrap().read(&sys).unwrap(),
        secret: false,
        shown: None,
        kept: None,
    };
    fs::write(dir.path().join("etc/gone"), "nobody kept this").unwrap();
    sys.begin(&header("run-1")).unwrap();
    sys.journal(&[image(&good), image(&bad)]).unwrap();
    fs::remove_file(dir.path().join("etc/gone")).unwrap();
    fs::remove_file(dir.path().join("etc/link")).unwrap();
    let change = revert::change(&bad, &Attrs::new(), &Attrs::new());
    let outcome = Outcome { low: 0, result: Verdict::Failed, changes: vec![change], duration_ms: 0, comment: "the disk is full".into() };
    sys.journal(&[Entry::Outcome(outcome)]).unwrap();
    sys.abandon();
    let rollback = revert::plan(&sys, &RollbackRequest { run: "run-1".into(), with_later: false, destroy_data: false }).unwrap();
    let mut comments = Vec::new();
    let applied = revert::apply(&sys, rollback, &header("run-2"), &mut |body| {
        if let Body::Done(outcome) = body {
            comments.push(outcome.comment);
        }
    })
    .unwrap();
    assert_eq!((applied.tally.changed, applied.tally.failed), (1, 1));
    assert!(
        comments[0].contains("cannot take file:/etc/gone back: ") && comments[0].contains("had failed here: the disk is full"),
        "{comments:?}"
    );
    assert_eq!(history::runs(&sys).unwrap()[0].state, RunState::Failed);
    assert!(fs::symlink_metadata(dir.path().join("etc/link")).is_ok());
}
