//! What `--prune` takes away, what it leaves, and that a rollback brings both the things and the memory of them back.

use super::planner::{Plan, plan};
use super::protocol::{PlanRequest, Prune, RollbackRequest};
use super::revert;
use super::tests::{Bench, header, lows};
use crate::diagnostic::Result;

const TREE: &str = r#"
    top file.directory {"name": "/srv/app"}
    conf file.managed {"name": "/srv/app/conf", "contents": "a"}
    old file.managed {"name": "/etc/old", "contents": "new"}
    keep file.managed {"name": "/srv/keep", "contents": "x"}
"#;
const REST: &str = r#"keep file.managed {"name": "/srv/keep", "contents": "x"}"#;

impl Bench {
    fn of(&self, origin: &str, tree: &str, prune: bool) -> Result<Plan> {
        let prune = prune.then(Prune::default);
        plan(&self.sys, PlanRequest { lows: lows(tree), commands: true, origin: origin.into(), prune, ..PlanRequest::default() })
    }

    fn run(&self, origin: &str, tree: &str, id: &str) {
        let plan = self.of(origin, tree, false).unwrap();
        self.apply(&plan, id);
    }

    /// What a pruning plan changes, and what it says besides.
    fn leaving(&self, origin: &str, tree: &str) -> (Vec<String>, Vec<String>) {
        let plan = self.of(origin, tree, true).unwrap().host;
        (plan.steps.iter().map(|step| format!("{:?} {} ({})", step.action, step.id, step.reason)).collect(), plan.notices)
    }

    fn roll_back(&self, run: &str, by: &str) {
        let request = RollbackRequest { run: run.into(), with_later: false, destroy_data: false };
        let rollback = revert::plan(&self.sys, &request).unwrap();
        let applied = revert::apply(&self.sys, rollback, &header(by), &mut |_| {}).unwrap();
        assert_eq!(applied.tally.failed, 0);
    }
}

fn bench() -> Bench {
    let bench = Bench::new();
    for (path, text) in
        [("/etc/old", "old"), ("/srv/other", ""), ("/etc/passwd", "root:x:0:0::/root:/bin/sh\n"), ("/etc/group", "root:x:0:\n")]
    {
        bench.file(path, text);
    }
    bench
}

#[test]
fn what_basalt_made_goes_in_reverse_and_comes_back_with_the_memory_of_it() {
    let bench = bench();
    bench.run("repo", TREE, "r1");
    let gone = [
        "Remove /srv/app/conf (left the tree: made by run r1 of s)".to_owned(),
        "Remove /srv/app (left the tree: made by run r1 of s)".to_owned(),
    ];
    let left = ["left the tree and stays as it is, for it was there before basalt: file:/etc/old".to_owned()];
    assert_eq!(bench.leaving("repo", REST), (gone.to_vec(), left.to_vec()));
    // Neither a plan that was not asked to nor another repository's touches it.
    assert!(bench.of("repo", REST, false).unwrap().host.steps.is_empty());
    assert_eq!(bench.leaving("other", REST), (vec![], vec![]));

    let pruning = bench.of("repo", REST, true).unwrap();
    assert_eq!(bench.apply(&pruning, "r2"), "/srv/app/conf changed, /srv/app changed");
    assert_eq!((bench.read("/srv/app/conf"), bench.read("/etc/old").as_deref()), (None, Some("new\n")));
    assert_eq!(bench.leaving("repo", REST).0, Vec::<String>::new());

    bench.roll_back("r2", "b2");
    assert_eq!(bench.read("/srv/app/conf").as_deref(), Some("a\n"));
    assert_eq!(bench.leaving("repo", REST).0, gone);
    // Taking back what made them takes the memory back too: who makes them now is somebody else.
    bench.roll_back("r1", "b1");
    bench.file("/srv/app/conf", "mine");
    bench.file("/srv/keep", "x\n");
    assert_eq!(bench.leaving("repo", REST), (vec![], vec![]));
}

#[test]
fn what_others_have_a_part_in_stays() {
    let bench = bench();
    bench.run("repo", TREE, "r1");
    bench.file("/srv/app/data", "somebody's");
    bench.file("/srv/app/conf", "by hand");
    let (steps, notices) = bench.leaving("repo", REST);
    assert_eq!(steps, ["Remove /srv/app/conf (left the tree: made by run r1 of s; changed since, and lost)"]);
    assert_eq!(notices[1], "file:/srv/app left the tree and stays: in it is what basalt did not make: data");
    // Another repository takes part in it.
    bench.run("other", r#"conf file.managed {"name": "/srv/app/conf", "contents": "theirs"}"#, "r2");
    let (steps, notices) = bench.leaving("repo", REST);
    assert_eq!(steps, Vec::<String>::new());
    assert!(notices.iter().any(|n| n.contains("file:/srv/app/conf left the tree and stays: another state repository")), "{notices:?}");
    // A package owns it by now.
    bench.file("/var/lib/dpkg/info/app.list", "/srv/keep\n");
    let (_, notices) = bench.leaving("repo", "other test.nop");
    assert!(
        notices.iter().any(|n| n == "file:/srv/keep left the tree and stays: it belongs to the package app, which stays"),
        "{notices:?}"
    );
}

#[test]
fn what_a_state_still_speaks_of_stays_also_where_a_condition_keeps_it_from_running() {
    let bench = bench();
    bench.run("repo", TREE, "r1");
    let tree = format!(r#"{REST}{}"#, "\n conf file.managed {\"name\": \"/srv/app/conf\", \"contents\": \"a\", \"onlyif\": \"false\"}");
    assert_eq!(bench.leaving("repo", &tree).0, Vec::<String>::new());
    // What is in it is still described.
    assert_eq!(bench.leaving("repo", "conf file.exists {\"name\": \"/srv/app/conf\"}").0.len(), 1);
}

#[test]
fn an_empty_or_failing_tree_prunes_nothing() {
    let bench = bench();
    bench.run("repo", TREE, "r1");
    let Err(refused) = bench.of("repo", "", true) else { panic!("an empty tree pruned all") };
    assert_eq!(refused.summary, "nothing is described for this host, so nothing is pruned");
    let (steps, notices) = bench.leaving("repo", "bad file.exists {\"name\": \"/nowhere\"}");
    assert_eq!((steps.len(), notices.as_slice()), (1, &["nothing is pruned while states of this plan fail".to_owned()][..]));
    // What fails only when it is carried out keeps the rest from going.
    let plan = bench.of("repo", &format!("{REST}\n bad cmd.run {{\"name\": \"false\"}}"), true).unwrap();
    assert_eq!(bench.apply(&plan, "r2"), "bad failed, /srv/app/conf skipped, /srv/app skipped");
    assert!(bench.read("/srv/app/conf").is_some());
}

#[test]
fn what_went_without_basalt_is_nobodys_any_more() {
    let bench = bench();
    bench.run("repo", TREE, "r1");
    std::fs::remove_file(bench.dir.path().join("srv/app/conf")).unwrap();
    let plan = bench.of("repo", REST, true).unwrap();
    assert_eq!(bench.apply(&plan, "r2"), "/srv/app changed");
    bench.file("/srv/app/conf", "made by hand");
    assert_eq!(bench.leaving("repo", REST).0, Vec::<String>::new());
}

#[test]
fn a_directory_that_fills_between_plan_and_apply_stays() {
    let bench = bench();
    bench.run("repo", TREE, "r1");
    let plan = bench.of("repo", REST, true).unwrap();
    bench.file("/srv/app/data", "somebody's");
    assert_eq!(bench.apply(&plan, "r2"), "/srv/app/conf changed, /srv/app failed");
    assert_eq!(bench.read("/srv/app/data").as_deref(), Some("somebody's"));
}

#[test]
fn a_pruning_run_killed_at_any_mutation_is_taken_back_with_the_memory() {
    for mutation in 1.. {
        let bench = bench();
        bench.run("repo", TREE, "r1");
        let gone = bench.leaving("repo", REST).0;
        let pruning = bench.of("repo", REST, true).unwrap();
        bench.sys.fail_at(mutation);
        let (applied, ..) = bench.apply_watching(&pruning, "r2", |_| {});
        bench.sys.fail_at(None);
        if bench.sys.runs().unwrap().iter().any(|run| run.header.id == "r2") {
            bench.roll_back("r2", "b2");
        }
        assert_eq!(bench.read("/srv/app/conf").as_deref(), Some("a\n"), "killed at mutation {mutation}");
        assert_eq!(bench.leaving("repo", REST).0, gone, "killed at mutation {mutation}");
        if applied.is_ok() {
            assert!(mutation > 4, "only {mutation} mutations");
            return;
        }
    }
}

#[test]
fn a_run_killed_at_any_mutation_leaves_nothing_to_prune_that_it_did_not_make() {
    for mutation in 1.. {
        let bench = bench();
        let plan = bench.of("repo", TREE, false).unwrap();
        bench.sys.fail_at(mutation);
        let (applied, ..) = bench.apply_watching(&plan, "r1", |_| {});
        bench.sys.fail_at(None);
        bench.run("repo", TREE, "r2");
        let pruning = bench.of("repo", REST, true).unwrap();
        bench.apply(&pruning, "r3");
        // What was under way is nobody's, and stays; what was there before stays as it is.
        assert_eq!((bench.read("/etc/old").as_deref(), bench.read("/srv/keep").as_deref()), (Some("new\n"), Some("x\n")), "{mutation}");
        assert!(bench.read("/srv/other").is_some(), "{mutation}");
        if applied.is_ok() {
            assert!(bench.read("/srv/app/conf").is_none());
            return;
        }
    }
}
