//! Decisions as a table: what happens, and what is done about it.

use super::*;

/// Decisions in a line: `apply h1 c1`, `leave h2 c2`, `settled c1 1+1 (h3)` ….
fn said(told: &[Decision]) -> String {
    let of = |commit: &Option<String>| commit.clone().unwrap_or_else(|| "edit".into());
    let lines = told.iter().map(|decision| match decision {
        Decision::Begin(task) => {
            let act = match task.act {
                Act::Plan => "plan",
                Act::Apply => "apply",
                Act::Check => "check",
                Act::TakeBack => "take back",
            };
            format!("{act} {} {}", task.host, of(&task.commit))
        }
        Decision::Leave { hosts, commit, .. } => format!("leave {} {}", hosts.join(","), of(commit)),
        Decision::Hold { commit, hosts, .. } => format!("hold {commit} {}", hosts.join(",")),
        Decision::Overtaken { commit, by } => format!("{commit} overtaken by {by}"),
        Decision::Rewritten { commit, by } => format!("{commit} rewritten as {by}"),
        Decision::Wait { hosts, seconds, .. } => format!("wait {} {seconds}", hosts.join(",")),
        Decision::Retry { host, seconds, .. } => format!("retry {host} {seconds:?}"),
        Decision::Done { host, commit, changed, .. } => format!("done {host} {commit}{}", if *changed { " changed" } else { "" }),
        Decision::TakenBack { host, commit, run } => format!("taken back {host} {commit} {run}"),
        Decision::Drift { host, commit, states } => format!("drift {host} {commit} {}", states.join(",")),
        Decision::Settled { commit, hosts, left, away } => format!("settled {commit} {hosts}+{left} ({})", away.join(",")),
    });
    lines.collect::<Vec<_>>().join("; ")
}

/// A state, and the seconds that have passed.
struct Bench {
    state: State,
    seconds: u64,
    local: Local,
}

impl Bench {
    fn new(apply: bool) -> Bench {
        let mut state = State::default();
        state.rule(Rules { apply, ..Rules::default() });
        Bench { state, seconds: 0, local: Local::default() }
    }

    fn now(&self) -> Now {
        Now { ticks: Duration::from_secs(self.seconds), local: self.local }
    }

    /// `commit` means `marks` for h1, h2 ….
    fn look(&mut self, commit: &str, marks: &[&str], change: impl Fn(&mut Look)) -> String {
        let tip = Tip { commit: commit.into(), subject: String::new() };
        let hosts = marks.iter().enumerate().map(|(n, mark)| (format!("h{}", n + 1), (!mark.is_empty()).then(|| (*mark).to_owned())));
        let mut look = Look { tip, hosts: hosts.collect(), ..Look::default() };
        change(&mut look);
        let begins = self.state.tip().is_none();
        said(&self.state.look(look, begins, &self.now()))
    }

    fn commit(&mut self, commit: &str, marks: &[&str]) -> String {
        self.look(commit, marks, |_| {})
    }

    fn done(&mut self, host: &str, outcome: Outcome) -> String {
        said(&self.state.done(host, outcome, &self.now()))
    }

    fn changed(&mut self, host: &str, mark: &str) -> String {
        self.done(host, Outcome::Reached { run: Some(format!("run-{mark}")), mark: Some(mark.into()) })
    }

    fn fails(&mut self, host: &str) -> String {
        self.done(host, Outcome::Failed { why: "no".into(), taken_back: true })
    }

    fn away(&mut self, host: &str, wait: Option<u64>) -> String {
        self.done(host, Outcome::Away { why: "away".into(), wait })
    }

    fn tick(&mut self, seconds: u64) -> String {
        self.seconds += seconds;
        said(&self.state.tick(&self.now()))
    }

    fn check(&mut self, why: Why) -> String {
        let hosts: Vec<String> = self.state.hosts().cloned().collect();
        said(&self.state.check(&hosts, why, &self.now()))
    }
}

#[test]
fn a_commit_goes_to_the_hosts_for_which_it_means_something_else() {
    let mut bench = Bench::new(true);
    // Nothing is known of the second.
    assert_eq!(bench.commit("c1", &["a", ""]), "apply h1 c1; apply h2 c1");
    assert_eq!(bench.changed("h1", "a"), "done h1 c1 changed");
    assert_eq!(bench.changed("h2", "b"), "done h2 c1 changed; settled c1 2+0 ()");
    assert_eq!(bench.commit("c2", &["a", "b2"]), "leave h1 c2; apply h2 c2");
    assert_eq!(bench.changed("h2", "b2"), "done h2 c2 changed; settled c2 1+1 ()");
    // Nobody, and a host that leaves.
    assert_eq!(bench.commit("c3", &["a"]), "leave h2 c3; leave h1 c3; settled c3 0+1 ()");
    // Plans are the same, and nothing is done.
    let mut bench = Bench::new(false);
    assert_eq!(bench.commit("c1", &["a"]), "plan h1 c1");
    assert_eq!(bench.done("h1", Outcome::Shown { states: vec!["x".into()], again: false, mark: Some("a".into()) }), "settled c1 1+0 ()");
}

#[test]
fn what_came_to_no_end_is_overtaken_and_a_busy_host_takes_the_last() {
    let mut bench = Bench::new(true);
    bench.commit("c1", &["a", "a"]);
    bench.changed("h1", "a");
    // h2 is still at c1.
    let passed = |look: &mut Look| look.passed = vec!["c2".into()];
    assert_eq!(bench.look("c3", &["b", "b"], passed), "c1 overtaken by c3; c2 overtaken by c3; apply h1 c3");
    assert_eq!(bench.commit("c4", &["c", "c"]), "c3 overtaken by c4");
    assert_eq!(bench.changed("h2", "a"), "done h2 c1 changed; apply h2 c4");
    assert_eq!(bench.changed("h1", "b"), "done h1 c3 changed; apply h1 c4");
    bench.changed("h1", "c");
    assert_eq!(bench.changed("h2", "c"), "done h2 c4 changed; settled c4 2+0 ()");
    let rewritten = |look: &mut Look| look.rewritten = true;
    assert_eq!(bench.look("d1", &["c", "d"], rewritten), "c4 rewritten as d1; leave h1 d1; apply h2 d1");
}

#[test]
fn a_commit_that_fails_is_held_until_a_new_one_comes() {
    let mut bench = Bench::new(true);
    bench.commit("c1", &["a", "a", "a"]);
    for host in ["h1", "h2", "h3"] {
        bench.changed(host, "a");
    }
    bench.commit("c2", &["b", "b", "b"]);
    bench.away("h3", Some(60));
    assert_eq!(bench.fails("h1"), "hold c2 h1");
    assert_eq!(bench.changed("h2", "b"), "done h2 c2 changed");
    // Who was away does not get it any more, and nobody tries it again; all are looked at by what they had.
    assert_eq!(bench.tick(60), "");
    assert_eq!(bench.check(Why::Timer), "check h1 c1; check h2 c2; check h3 c1");
    for (host, mark) in [("h1", "a"), ("h2", "b"), ("h3", "a")] {
        bench.done(host, Outcome::Reached { run: None, mark: Some(mark.into()) });
    }
    assert_eq!(bench.commit("c3", &["a", "c", "c"]), "leave h1 c3; apply h2 c3; apply h3 c3");
    // The branch is put back to it.
    let rewritten = |look: &mut Look| look.rewritten = true;
    assert_eq!(bench.look("c2", &["b", "b", "b"], rewritten), "c3 rewritten as c2; c3 overtaken by c2; hold c2 ");
    let refused = |look: &mut Look| look.refused = Some("it is not signed".into());
    assert_eq!(bench.look("c4", &[], refused), "hold c4 ");
}

#[test]
fn what_fails_on_one_host_is_taken_back_on_those_that_have_it() {
    let mut bench = Bench::new(true);
    bench.state.rule(Rules { apply: true, take_back: true, windows: Vec::new() });
    bench.commit("c1", &["a", "a", "a", "a"]);
    for host in ["h1", "h2", "h3", "h4"] {
        bench.changed(host, "a");
    }
    bench.commit("c2", &["b", "b", "b", "a"]);
    bench.changed("h1", "b");
    // h3 is still at it, and h4 was left alone.
    assert_eq!(bench.fails("h2"), "hold c2 h2; take back h1 c2");
    assert_eq!(bench.away("h1", Some(60)), "retry h1 Some(60)");
    assert_eq!(bench.changed("h3", "b"), "done h3 c2 changed; take back h3 c2");
    assert_eq!(bench.changed("h3", ""), "taken back h3 c2 run-b");
    // The next watch goes on with it.
    let kept = serde_json::to_string(&bench.state).unwrap();
    bench.state = State { rules: bench.state.rules.clone(), ..serde_json::from_str(&kept).unwrap() };
    assert_eq!(bench.tick(0), "take back h1 c2");
    // A new commit waits until that is done.
    assert_eq!(bench.commit("c3", &["a", "a", "a", "c"]), "leave h2,h3 c3; apply h4 c3");
    assert_eq!(bench.changed("h1", ""), "taken back h1 c2 run-b; apply h1 c3");
}

#[test]
fn hosts_that_are_away_wait_by_themselves_and_catch_up() {
    let mut bench = Bench::new(true);
    bench.commit("c1", &["a", "a"]);
    assert_eq!(bench.away("h2", Some(60)), "retry h2 Some(60)");
    assert_eq!(bench.changed("h1", "a"), "done h1 c1 changed; settled c1 1+0 (h2)");
    assert_eq!(bench.commit("c2", &["b", "b"]), "apply h1 c2");
    assert_eq!(bench.tick(59), "");
    assert_eq!(bench.state.wakes(), Some(Duration::from_secs(60)));
    assert_eq!(bench.tick(1), "apply h2 c2");
    // Tried no more by itself; until it comes up.
    assert_eq!(bench.away("h2", None), "retry h2 None");
    assert_eq!((bench.tick(1_000_000), bench.state.wakes()), (String::new(), None));
    assert_eq!(said(&bench.state.check(&["h2".into()], Why::Up, &bench.now())), "apply h2 c2");
    assert_eq!(bench.changed("h2", "b"), "done h2 c2 changed");
    assert_eq!(bench.changed("h1", "b"), "done h1 c2 changed; settled c2 2+0 ()");
}

#[test]
fn hosts_are_changed_in_windows_only() {
    let mut bench = Bench::new(true);
    bench.state.rule(Rules { apply: true, take_back: false, windows: vec![Window { days: vec![0], from: 60, to: 120 }] });
    assert_eq!(bench.commit("c1", &["a", "a"]), "wait h1,h2 3600");
    assert_eq!(bench.tick(5), "");
    assert_eq!(bench.commit("c2", &["b", "b"]), "c1 overtaken by c2");
    bench.local.second = 3600;
    assert_eq!(bench.tick(3600), "apply h1 c2; apply h2 c2");
    bench.changed("h1", "b");
    bench.changed("h2", "b");
    // Outside of it what differs is only shown.
    bench.local.second = 7200;
    assert_eq!(bench.check(Why::Timer), "plan h1 c2; plan h2 c2");
}

#[test]
fn drift_is_told_once_and_what_fails_there_is_no_fault_of_the_commit() {
    let mut bench = Bench::new(true);
    bench.commit("c1", &["a"]);
    bench.changed("h1", "a");
    assert_eq!(bench.check(Why::Timer), "check h1 c1");
    let shown = |again| Outcome::Shown { states: vec!["x".into()], again, mark: Some("a".into()) };
    assert_eq!(bench.done("h1", shown(false)), "drift h1 c1 x");
    bench.check(Why::Drift);
    assert_eq!(bench.done("h1", shown(true)), "");
    bench.check(Why::Timer);
    assert_eq!(bench.away("h1", Some(60)), "retry h1 Some(60)");
    assert_eq!(bench.check(Why::Timer), "");
    assert_eq!(bench.tick(60), "check h1 c1");
    assert_eq!(bench.changed("h1", "a"), "done h1 c1 changed");
}

#[test]
fn edits_are_planned_where_they_mean_something() {
    let mut bench = Bench::new(true);
    bench.commit("c1", &["a", "a"]);
    bench.changed("h1", "a");
    bench.changed("h2", "a");
    let mut edit = |marks: [&str; 2]| {
        let hosts = marks.iter().enumerate().map(|(n, mark)| (format!("h{}", n + 1), Some((*mark).to_owned())));
        said(&bench.state.edit(hosts.collect(), &Now { ticks: Duration::ZERO, local: Local::default() }))
    };
    assert_eq!(edit(["b", "a"]), "leave h2 edit; plan h1 edit");
    // Another while that is planned: one plan more.
    assert_eq!(edit(["c", "a"]), "leave h2 edit");
    assert_eq!(edit(["d", "a"]), "leave h2 edit");
    let shown = |mark: &str| Outcome::Shown { states: vec!["x".into()], again: false, mark: Some(mark.into()) };
    assert_eq!(bench.done("h1", shown("b")), "plan h1 edit");
    assert_eq!(bench.done("h1", shown("d")), "");
}

#[test]
fn the_next_watch_goes_on_where_this_one_was_stopped() {
    let mut bench = Bench::new(true);
    bench.commit("c1", &["a", "a"]);
    bench.changed("h1", "a");
    bench.state.stop();
    assert_eq!(bench.done("h2", Outcome::Stopped), "");
    assert!(!bench.state.is_busy());
    let kept = serde_json::to_string(&bench.state).unwrap();
    let mut bench = Bench::new(true);
    let (tip, rules) = (Tip { commit: "c1".into(), subject: String::new() }, bench.state.rules.clone());
    bench.state = serde_json::from_str(&kept).unwrap();
    bench.state.rule(rules);
    let hosts = BTreeMap::from([("h1".to_owned(), Some("a".to_owned())), ("h2".to_owned(), Some("a".to_owned()))]);
    let look = Look { tip, hosts, ..Look::default() };
    assert_eq!(said(&bench.state.look(look, true, &bench.now())), "check h1 c1; apply h2 c1");
}
