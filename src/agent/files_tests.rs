//! File states through plan, apply, the next plan and rollback: afterwards the tree is what it was, to the byte.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::protocol::RollbackRequest;
use super::revert;
use super::tests::{Bench, header};

/// Everything below a path as text: kinds, modes, owners, times of files, contents, targets.
fn tree(bench: &Bench, path: &str) -> String {
    let mut out = String::new();
    let mut todo = vec![bench.dir.path().join(path.trim_start_matches('/'))];
    while let Some(here) = todo.pop() {
        let Ok(meta) = here.symlink_metadata() else { continue };
        let below = here.strip_prefix(bench.dir.path()).unwrap().display().to_string();
        out += &format!("{below} {:o} {} {}", meta.mode(), meta.uid(), meta.gid());
        if meta.is_dir() {
            let mut names: Vec<_> = fs::read_dir(&here).unwrap().map(|e| e.unwrap().path()).collect();
            names.sort();
            todo.extend(names);
        } else if meta.is_symlink() {
            out += &format!(" -> {}", fs::read_link(&here).unwrap().display());
        } else {
            out += &format!(" {} {:?}", meta.mtime_nsec(), fs::read_to_string(&here).unwrap());
        }
        out.push('\n');
    }
    out
}

fn roll_back(bench: &Bench, run: &str, id: &str) -> usize {
    let plan = revert::plan(&bench.sys, &RollbackRequest { run: run.into(), with_later: false, destroy_data: false }).unwrap();
    let steps = plan.plan.steps.len();
    let applied = revert::apply(&bench.sys, plan, &header(id), &mut |_| {}).unwrap();
    assert_eq!((applied.tally.failed, applied.stopped), (0, None));
    steps
}

const BEFORE: [(&str, &str); 8] = [
    ("/etc/app.conf", "port = 80\nname = old\n"),
    ("/etc/hosts", "127.0.0.1 localhost\n"),
    ("/etc/motd", "welcome\n"),
    ("/srv/www/index", "hello\n"),
    ("/srv/www/deep/er/page", "page\n"),
    ("/srv/old/data", "precious\n"),
    ("/srv/moved/a/b", "b\n"),
    ("/srv/link-was", "a file\n"),
];

#[test]
fn every_file_state_is_planned_done_once_and_taken_back_to_the_byte() {
    for (name, text) in [
        ("managed", r#"x file.managed {"name": "/etc/new/dir/f", "contents": "x", "makedirs": true, "mode": "0600"}"#),
        ("replaced", r#"x file.managed {"name": "/etc/app.conf", "contents": "x", "mode": "0600", "backup": "minion"}"#),
        ("mode", r#"x file.managed {"name": "/etc/app.conf", "mode": "0640"}"#),
        ("directory", r#"x file.directory {"name": "/srv/www", "mode": "0750", "file_mode": "0640", "recurse": ["mode"]}"#),
        ("clean", r#"x file.directory {"name": "/srv/www", "clean": true}"#),
        ("symlink", r#"x file.symlink {"name": "/srv/link-was", "target": "www/index", "force": true}"#),
        ("tree to link", r#"x file.symlink {"name": "/srv/www", "target": "/srv/old", "force": true}"#),
        ("backupname", r#"x file.symlink {"name": "/srv/www", "target": "/srv/old", "backupname": "www.was"}"#),
        ("absent", r#"x file.absent {"name": "/srv/www"}"#),
        ("replace", r#"x file.replace {"name": "/etc/app.conf", "pattern": "^port = .*", "repl": "port = 443"}"#),
        ("append", r#"x file.append {"name": "/etc/hosts", "text": ["10.0.0.1 db", "10.0.0.2 web"]}"#),
        ("line", r#"x file.line {"name": "/etc/app.conf", "mode": "ensure", "content": "log = on", "after": "^port"}"#),
        ("block", r#"x file.blockreplace {"name": "/etc/motd", "content": "managed", "append_if_not_found": true}"#),
        ("keyvalue", r#"x file.keyvalue {"name": "/etc/app.conf", "key": "name", "value": "new", "separator": " = "}"#),
        ("comment", r#"x file.comment {"name": "/etc/app.conf", "regex": "^name"}"#),
        ("copy", r#"x file.copy {"name": "/srv/copy", "source": "/srv/www"}"#),
        ("rename", r#"x file.rename {"name": "/srv/here/now", "source": "/srv/moved", "makedirs": true}"#),
        ("forced copy", r#"x file.copy {"name": "/srv/moved", "source": "/srv/www", "force": true}"#),
        ("touch", r#"x file.touch {"name": "/etc/stamp"}"#),
    ] {
        let bench = Bench::new();
        BEFORE.iter().for_each(|(path, text)| bench.file(path, text));
        fs::create_dir_all(bench.dir.path().join("var/cache")).unwrap();
        let all = || tree(&bench, "/etc") + &tree(&bench, "/srv") + &tree(&bench, "/var/cache");
        let before = all();
        let plan = bench.plan(text);
        assert_eq!(plan.host.steps.len(), 1, "{name}: {:?}", plan.host);
        assert_eq!(plan.host.steps[0].fails, None, "{name}");
        assert_eq!(bench.apply(&plan, "20261120-0000-aaaa"), "x changed", "{name}");
        assert_ne!(all(), before, "{name}");
        if name != "touch" {
            let again = bench.plan(text);
            assert_eq!(again.host.steps.len(), 0, "{name}: {:?}", again.host.steps);
        }
        roll_back(&bench, "20261120-0000-aaaa", "20261120-0001-bbbb");
        assert_eq!(all(), before, "{name}");
    }
}

#[test]
fn a_directory_that_is_emptied_and_made_again_in_one_run_is_planned_truly_and_comes_back() {
    let bench = Bench::new();
    BEFORE.iter().for_each(|(path, text)| bench.file(path, text));
    let before = tree(&bench, "/srv");
    let text = r#"a file.absent {"name": "/srv/www"}
b file.directory {"name": "/srv/www"}
c file.managed {"name": "/srv/www/index", "contents": "hello"}
d file.managed {"name": "/srv/www/deep/x", "contents": "x", "makedirs": true}"#;
    let plan = bench.plan(text);
    assert_eq!(bench.apply(&plan, "20261120-0000-aaaa"), "a changed, b changed, c changed, d changed");
    assert_eq!(bench.read("/srv/www/index").as_deref(), Some("hello\n"));
    assert_eq!(bench.read("/srv/www/deep/er/page"), None);
    assert!(roll_back(&bench, "20261120-0000-aaaa", "20261120-0001-bbbb") > 0);
    assert_eq!(tree(&bench, "/srv"), before);
}

/// Not a benchmark: the number that would show a file read twice or a parent read for each of its files.
#[test]
fn a_plan_of_many_files_that_are_as_described_is_quick() {
    let bench = Bench::new();
    let mut text = String::new();
    for n in 0..2000 {
        bench.file(&format!("/srv/d{}/f{n}", n % 20), "same\n");
        text += &format!("f{n} file.managed {{\"name\": \"/srv/d{}/f{n}\", \"contents\": \"same\", \"makedirs\": true}}\n", n % 20);
    }
    let begun = std::time::Instant::now();
    let plan = bench.plan(&text);
    assert_eq!((plan.host.steps.len(), plan.host.unchanged), (0, 2000));
    eprintln!("2000 files planned in {:?}", begun.elapsed());
}
