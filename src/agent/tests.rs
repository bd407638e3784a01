//! What a plan promises, case by case: planned and carried out over a temporary root with a real `System` and a recorded `Exec`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::planner::{Plan, plan};
use super::protocol::{Applied, Body, PlanRequest};
use super::run;
use crate::diagnostic::{Code, Result};
use crate::plan::{Action, Content, Control, Hash, Low, Outcome, Requisite, RunHeader, Step, Verdict};
use crate::system::{Command, Contents, Exec, Fetch, Output, System};
use crate::value::{Map, Value};

/// Lows, one a line: `ID FUNCTION {arguments and conditions} require=ID,ID watch_any=ID`.
pub fn lows(text: &str) -> Vec<Low> {
    let mut lows: Vec<Low> = Vec::new();
    let mut named: Vec<Vec<(String, String)>> = Vec::new();
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let (id, rest) = line.split_once(' ').unwrap();
        let (function, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let (state, fun) = function.split_once('.').unwrap();
        let end = if rest.starts_with('{') { rest.rfind('}').unwrap() + 1 } else { 0 };
        let mut args: Map = if end > 0 { serde_json::from_str(&rest[..end]).unwrap() } else { Map::new() };
        let mut control = Map::new();
        for name in ["unless", "onlyif", "creates", "check_cmd", "failhard", "retry"] {
            if let Some(value) = args.remove(name) {
                let list = matches!(value, Value::List(_)) || ["failhard", "retry"].contains(&name);
                control.insert(name, if list { value } else { Value::List(vec![value]) });
            }
        }
        let control: Control = serde_json::from_value(serde_json::to_value(&control).unwrap()).unwrap();
        let name = args.get("name").map_or(id.to_owned(), Value::to_text);
        let contents =
            args.remove("@contents").map(|c| serde_json::from_value(serde_json::to_value(&c).unwrap()).unwrap()).unwrap_or_default();
        named.push(
            rest[end..].split_whitespace().map(|r| r.split_once('=').unwrap()).map(|(k, of)| (k.to_owned(), of.to_owned())).collect(),
        );
        lows.push(Low {
            id: id.to_owned(),
            sls: "s".to_owned(),
            state: state.to_owned(),
            fun: fun.to_owned(),
            name,
            args,
            requisites: Vec::new(),
            control,
            contents,
            failed: None,
            span: None,
        });
    }
    let ids: Vec<String> = lows.iter().map(|l| l.id.clone()).collect();
    for (low, requisites) in lows.iter_mut().zip(named) {
        for (kind, of) in requisites {
            let of = of.split(',').map(|id| ids.iter().position(|i| i == id).unwrap()).collect();
            let any = kind.ends_with("_any");
            let kind = serde_json::from_value(kind.trim_end_matches("_any").into()).unwrap();
            low.requisites.push(Requisite { kind, any, of });
        }
    }
    lows
}

/// Runs nothing: answers by the last argument, and does a few simple things below its root.
#[derive(Clone)]
pub struct Recorded {
    root: std::path::PathBuf,
    pub ran: Arc<Mutex<Vec<String>>>,
    /// Exit codes and output by command line; others succeed.
    answers: Arc<Mutex<BTreeMap<String, (i32, String)>>>,
}

impl Exec for Recorded {
    fn run(&self, command: &Command, output: &mut dyn FnMut(&[u8])) -> Result<Output> {
        let line = command.argv.last().cloned().unwrap_or_default();
        self.ran.lock().unwrap().push(line.clone());
        let place = |path: &str| self.root.join(path.trim_start_matches('/'));
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["touch", path] => std::fs::write(place(path), "").unwrap(),
            ["write", path, text] => std::fs::write(place(path), text).unwrap(),
            ["rm", path] => std::fs::remove_file(place(path)).unwrap(),
            _ => {}
        }
        let failed = i32::from(line.starts_with("false"));
        let (status, text) = self.answers.lock().unwrap().get(&line).cloned().unwrap_or((failed, String::new()));
        output(text.as_bytes());
        Ok(Output { status, stdout: text.into_bytes(), ..Output::default() })
    }
}

pub struct Bench {
    pub dir: tempfile::TempDir,
    pub exec: Recorded,
    pub sys: System,
}

impl Bench {
    pub fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let exec = Recorded { root: dir.path().to_owned(), ran: Arc::default(), answers: Arc::default() };
        let sys = System::at(dir.path(), Box::new(exec.clone()));
        Bench { dir, exec, sys }
    }

    pub fn file(&self, path: &str, text: &str) {
        let path = self.dir.path().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub fn answer(&self, line: &str, status: i32, text: &str) {
        self.exec.answers.lock().unwrap().insert(line.to_owned(), (status, text.to_owned()));
    }

    pub fn ran(&self) -> Vec<String> {
        std::mem::take(&mut *self.exec.ran.lock().unwrap())
    }

    pub fn plan(&self, text: &str) -> Plan {
        self.try_plan(text).unwrap()
    }

    pub fn try_plan(&self, text: &str) -> Result<Plan> {
        plan(&self.sys, PlanRequest { lows: lows(text), commands: true, ..PlanRequest::default() })
    }
}

pub fn header(id: &str) -> RunHeader {
    RunHeader {
        id: id.to_owned(),
        who: "ann@desk".to_owned(),
        started: 1,
        tree: String::new(),
        commit: String::new(),
        repository: String::new(),
        rolls_back: Vec::new(),
    }
}

impl Bench {
    /// Carries a plan out as the run `id`; `at` sees every event first.
    pub fn apply_watching(&self, plan: &Plan, id: &str, mut at: impl FnMut(&Body)) -> (Result<Applied>, Vec<Outcome>, Vec<String>) {
        let (mut outcomes, mut lines) = (Vec::new(), Vec::new());
        let applied = run::apply(&self.sys, plan, &header(id), &mut |body| {
            at(&body);
            match body {
                Body::Done(outcome) => outcomes.push(outcome),
                Body::Line { text, .. } => lines.push(text),
                _ => {}
            }
        });
        if applied.is_err() {
            self.sys.abandon();
        }
        (applied, outcomes, lines)
    }

    /// Carries a plan out and gives what became of each low, as `ID verdict`.
    pub fn apply(&self, plan: &Plan, id: &str) -> String {
        let (applied, outcomes, _) = self.apply_watching(plan, id, |_| {});
        applied.unwrap();
        verdicts(plan, &outcomes)
    }

    pub fn read(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.dir.path().join(path.trim_start_matches('/'))).ok()
    }
}

fn verdicts(plan: &Plan, outcomes: &[Outcome]) -> String {
    outcomes.iter().map(|o| format!("{} {:?}", plan.lows[o.low].id, o.result).to_lowercase()).collect::<Vec<_>>().join(", ")
}

/// The objects and commands that steps change, and those that outcomes tell of.
fn planned(plan: &Plan) -> Vec<(usize, Vec<String>)> {
    let acts = plan.host.steps.iter().filter(|s| s.action != Action::None);
    acts.map(|s| (s.low, s.changes.iter().map(|c| c.key.to_string()).collect())).collect()
}

fn reported(outcomes: &[Outcome]) -> Vec<(usize, Vec<String>)> {
    let changed = outcomes.iter().filter(|o| o.result == Verdict::Changed);
    changed.map(|o| (o.low, o.changes.iter().map(|c| c.key.to_string()).collect())).collect()
}

/// `ID action`, with `!` for what would fail; what stays is not there.
fn shown(plan: &Plan) -> String {
    let one = |s: &Step| {
        let action = format!("{:?}", s.action).to_lowercase();
        format!("{}{} {}", s.id, if s.fails.is_some() { "!" } else { "" }, action)
    };
    plan.host.steps.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[test]
fn requisites_plan_as_salt_would_run_them() {
    for (text, expected) in [
        ("a test.nop\nb test.succeed_with_changes", "b run"),
        (
            "a test.fail_without_changes\nb test.succeed_with_changes require=a\nc test.succeed_with_changes require=b",
            "a! none, b! none, c! none",
        ),
        ("a test.fail_without_changes\nn test.nop\nb test.succeed_with_changes require_any=a,n", "a! none, b run"),
        ("a test.succeed_with_changes\nb cmd.run {\"name\": \"x\"} onchanges=a", "a run, b run"),
        ("a test.nop\nb cmd.run {\"name\": \"x\"} onchanges=a", ""),
        ("a test.succeed_with_changes\nb cmd.wait {\"name\": \"x\"} watch=a", "a run, b run"),
        ("a test.nop\nb cmd.wait {\"name\": \"x\"} watch=a", ""),
        // It would run by itself: a watch adds nothing.
        ("a test.succeed_with_changes\nb cmd.run {\"name\": \"x\"} watch=a", "a run, b run"),
        ("a test.succeed_with_changes\nb cmd.wait {\"name\": \"x\"} listen=a\nc test.succeed_with_changes", "a run, c run, b run"),
        ("a test.nop\nb cmd.wait {\"name\": \"x\"} listen=a", ""),
        ("a test.nop\nb cmd.run {\"name\": \"x\"} onfail=a", ""),
        ("a cmd.run {\"name\": \"y\"}\nb cmd.run {\"name\": \"x\"} onfail=a", "a run, b none"),
        ("a test.fail_without_changes\nb cmd.run {\"name\": \"x\"} onfail_any=a", "a! none, b run"),
        ("a cmd.run {\"name\": \"x\"} prereq=b\nb test.succeed_with_changes", "a run, b run"),
        ("a cmd.run {\"name\": \"x\"} prereq=b\nb test.nop", ""),
        // Whether a stateful command changes anything is known when it has run; so is what hangs on it.
        ("a cmd.run {\"name\": \"x\", \"stateful\": true}\nb cmd.run {\"name\": \"y\"} onchanges=a", "a run, b unknown"),
        ("a cmd.run {\"name\": \"x\", \"stateful\": true}\nb cmd.wait {\"name\": \"y\"} watch=a", "a run, b unknown"),
    ] {
        let bench = Bench::new();
        assert_eq!(shown(&bench.plan(text)), expected, "{text}");
        assert_eq!(bench.ran(), [""; 0], "a plan runs nothing: {text}");
    }
}

#[test]
fn the_test_run_of_a_prereq_in_the_list_is_no_step_of_its_own() {
    let bench = Bench::new();
    let mut list = lows("b test.succeed_with_changes\na cmd.run {\"name\": \"x\"} prereq=b");
    list.push(list[0].clone());
    let plan = plan(&bench.sys, PlanRequest { lows: list, ..PlanRequest::default() }).unwrap();
    assert_eq!(shown(&plan), "a run, b run");
    assert_eq!(plan.host.steps.iter().map(|s| s.low).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(bench.apply(&plan, "run-1"), "a changed, b changed");
}

#[test]
fn conditions_answer_from_the_projection_run_or_wait() {
    for (text, expected, ran) in [
        (r#"a cmd.run {"name": "x", "unless": "test -f /etc/here"}"#, "", vec![]),
        (r#"a cmd.run {"name": "x", "unless": "[ -f /etc/gone ] >/dev/null 2>&1"}"#, "a run", vec![]),
        (r#"a cmd.run {"name": "x", "onlyif": "grep -q '^two$' /etc/here && ! test -e /etc/gone"}"#, "a run", vec![]),
        (r#"a cmd.run {"name": "x", "onlyif": ["grep -qx 'tw' /etc/here || false"]}"#, "", vec![]),
        (r#"a cmd.run {"name": "x", "creates": "/etc/here"}"#, "", vec![]),
        (r#"a cmd.run {"name": "x", "creates": ["/etc/here", "/etc/gone"]}"#, "a run", vec![]),
        (r#"a cmd.run {"name": "x", "onlyif": [{"fun": "file.file_exists", "path": "/etc/here"}]}"#, "a run", vec![]),
        (r#"a cmd.run {"name": "x", "unless": "id -u www || getent group staff"}"#, "a run", vec![]),
        (r#"a cmd.run {"name": "x", "onlyif": "command -v tool && ! which nothing"}"#, "a run", vec![]),
        (r#"a cmd.run {"name": "x", "unless": "dpkg -s web >/dev/null && dpkg-query -W web 2>&1"}"#, "", vec![]),
        (r#"a cmd.run {"name": "x", "onlyif": "dpkg -s mail"}"#, "", vec![]),
        (
            r#"f file.managed {"name": "/etc/new", "contents": "three"}
            a cmd.run {"name": "x", "onlyif": "grep -Eq 'th(r|x)ee' /etc/new && test -s /etc/new"}"#,
            "f add, a run",
            vec![],
        ),
        (
            r#"f file.absent {"name": "/etc"}
            a cmd.run {"name": "x", "onlyif": "test -e /etc/here"}"#,
            "f remove",
            vec![],
        ),
        (r#"a cmd.run {"name": "x", "onlyif": [{"fun": "file.contains", "path": "/etc/here", "text": "two"}]}"#, "a run", vec![]),
        // All of them must hold for the state to stay.
        (r#"a cmd.run {"name": "x", "unless": ["true", "false"]}"#, "a run", vec![]),
        (r#"a cmd.run {"name": "x", "unless": ["true", "ask | me"]}"#, "", vec!["ask | me"]),
        (r#"a cmd.run {"name": "x", "onlyif": "false-alarm; me"}"#, "", vec!["false-alarm; me"]),
        // A command that runs earlier may change what is asked for.
        ("f test.succeed_with_changes\na cmd.run {\"name\": \"x\", \"unless\": \"ask | me\"}", "f run, a unknown", vec![]),
        ("f cmd.run {\"name\": \"y\"}\na cmd.run {\"name\": \"x\", \"unless\": \"test -f /etc/gone\"}", "f run, a unknown", vec![]),
        ("f test.succeed_with_changes\na cmd.run {\"name\": \"x\", \"unless\": \"test -f /etc/gone\"}", "f run, a run", vec![]),
    ] {
        let bench = Bench::new();
        bench.file("/etc/here", "one\ntwo\n");
        bench.file("/etc/passwd", "root:x:0:0::/root:/bin/sh\n");
        bench.file("/var/lib/dpkg/status", "Package: web\nStatus: install ok installed\nArchitecture: all\nVersion: 1.0\n\n");
        bench.file("/usr/bin/tool", "");
        std::fs::set_permissions(bench.dir.path().join("usr/bin/tool"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let plan = bench.plan(text);
        assert_eq!(shown(&plan), expected, "{text}");
        assert_eq!(bench.ran(), ran, "{text}");
        assert_eq!(plan.host.commands, ran, "{text}");
    }
}

#[test]
fn commands_at_plan_time_can_be_forbidden() {
    let bench = Bench::new();
    let request = PlanRequest { lows: lows(r#"a cmd.run {"name": "x", "unless": "ask | me"}"#), ..PlanRequest::default() };
    assert_eq!((shown(&plan(&bench.sys, request).unwrap()), bench.ran()), ("a unknown".to_owned(), vec![]));
}

#[test]
fn what_is_wrong_with_lows_refuses_the_plan_and_names_all_of_it() {
    let error = Bench::new().try_plan("a test.nopp\nb test.nop {\"comment\": []}").map(|_| ()).unwrap_err();
    assert_eq!(error.summary, "there is no state test.nopp");
    assert!(error.detail.contains("argument comment of test.nop is to be a string"), "{}", error.detail);
}

#[test]
fn a_plan_is_equal_to_another_exactly_if_it_does_the_same() {
    let bench = Bench::new();
    let of = |text: &str| bench.plan(text).host.fingerprint;
    assert_eq!(of("a test.succeed_with_changes"), of("a test.succeed_with_changes"));
    assert_ne!(of("a test.succeed_with_changes"), of("b test.succeed_with_changes"));
    assert_eq!(bench.plan("a test.nop\nb test.succeed_with_changes").host.unchanged, 1);
    let changes = bench.plan("a test.succeed_with_changes").host.steps.iter().filter(|s| s.action == Action::Run).count();
    assert_eq!(changes, 1);
}

const FILES: &str = r#"
d file.directory {"name": "/srv/d", "makedirs": true}
f file.managed {"name": "/srv/d/f", "contents": "one"} require=d
l file.symlink {"name": "/srv/d/l", "target": "f"} require=f
g file.absent {"name": "/etc/gone"}
n test.nop
"#;

#[test]
fn a_first_plan_on_an_empty_host_tells_what_apply_does_and_the_next_plan_is_empty() {
    let bench = Bench::new();
    bench.file("/etc/gone", "old\n");
    let plan = bench.plan(FILES);
    assert_eq!(shown(&plan), "d add, f add, l add, g remove");
    let (applied, outcomes, _) = bench.apply_watching(&plan, "run-1", |_| {});
    assert_eq!(reported(&outcomes), planned(&plan));
    let applied = applied.unwrap();
    assert_eq!((applied.tally.changed, applied.tally.ok, applied.tally.failed, applied.generation), (4, 1, 0, 1));
    assert_eq!((bench.read("/srv/d/l"), bench.read("/etc/gone")), (Some("one\n".to_owned()), None));
    let again = bench.plan(FILES);
    assert_eq!((shown(&again).as_str(), again.host.unchanged), ("", 5));
    // And what was changed by hand is exactly what the next plan shows.
    bench.file("/srv/d/f", "two\n");
    let drift = bench.plan(FILES);
    assert_eq!(shown(&drift), "f change");
    assert!(drift.host.steps[0].changes[0].diff.contains("-two\n+one\n"), "{}", drift.host.steps[0].changes[0].diff);
}

#[test]
fn outcomes_are_as_planned_or_say_whose_failure_it_was() {
    for (text, plan, outcomes) in [
        ("a cmd.run {\"name\": \"x\"}\nb test.succeed_with_changes require=a", "a run, b run", "a changed, b changed"),
        ("a cmd.run {\"name\": \"false\"}\nb test.succeed_with_changes require=a", "a run, b run", "a failed, b skipped"),
        (
            "a cmd.run {\"name\": \"false\"}\nn test.nop require=a\nb cmd.run {\"name\": \"y\"} require=n",
            "a run, b run",
            "a failed, n skipped, b skipped",
        ),
        ("a cmd.run {\"name\": \"false\"}\nb cmd.wait {\"name\": \"y\"} watch=a", "a run, b run", "a failed, b skipped"),
        ("a cmd.run {\"name\": \"false\"}\nb cmd.run {\"name\": \"y\"} onchanges=a", "a run, b run", "a failed, b ok"),
        ("a cmd.run {\"name\": \"false\"}\nb cmd.run {\"name\": \"y\"} onfail_any=a", "a run, b none", "a failed, b changed"),
        ("a cmd.run {\"name\": \"x\"}\nb cmd.run {\"name\": \"y\"} onfail_any=a", "a run, b none", "a changed, b ok"),
        ("a test.fail_without_changes\nb test.succeed_with_changes require=a", "a! none, b! none", "a failed, b skipped"),
        ("a test.succeed_with_changes\nb cmd.wait {\"name\": \"y\"} listen=a\nc test.nop", "a run, b run", "a changed, b changed"),
        ("a test.fail_with_changes\nb cmd.wait {\"name\": \"y\"} listen=a", "a run, b run", "a failed, b changed"),
        ("a cmd.run {\"name\": \"x\"} prereq=b\nb test.succeed_with_changes", "a run, b run", "a changed, b changed"),
        ("a cmd.run {\"name\": \"false\", \"failhard\": true}\nb test.succeed_with_changes", "a run, b run", "a failed, b skipped"),
        // What only a command can tell is decided when it has run.
        ("a cmd.run {\"name\": \"same\", \"stateful\": true}\nb cmd.run {\"name\": \"y\"} onchanges=a", "a run, b unknown", "a ok, b ok"),
        (
            "a cmd.run {\"name\": \"differs\", \"stateful\": true}\nb cmd.run {\"name\": \"y\"} onchanges=a",
            "a run, b unknown",
            "a changed, b changed",
        ),
        (
            "a cmd.run {\"name\": \"differs\", \"stateful\": true}\nb cmd.wait {\"name\": \"y\"} watch=a",
            "a run, b unknown",
            "a changed, b changed",
        ),
        (
            "a cmd.run {\"name\": \"touch /made\"}\nb cmd.run {\"name\": \"y\", \"unless\": \"test -f /made\"}",
            "a run, b unknown",
            "a changed, b ok",
        ),
        ("a cmd.run {\"name\": \"x\"}\nb cmd.run {\"name\": \"y\", \"creates\": \"/made\"}", "a run, b unknown", "a changed, b changed"),
        // A check decides, whatever the command said.
        ("a cmd.run {\"name\": \"false\", \"check_cmd\": \"true\"}", "a run", "a changed"),
        ("a cmd.run {\"name\": \"x\", \"check_cmd\": \"false\"}\nb test.nop require=a", "a run", "a failed, b skipped"),
        ("a cmd.run {\"name\": \"code\", \"success_retcodes\": 7}", "a run", "a changed"),
        ("a cmd.run {\"name\": \"code\"}", "a run", "a failed"),
        (
            "a cmd.run {\"name\": \"false\", \"retry\": {\"attempts\": 3, \"until\": true, \"interval\": 0, \"splay\": 0}}",
            "a run",
            "a failed",
        ),
    ] {
        let bench = Bench::new();
        bench.answer("same", 0, "changed=no\n");
        bench.answer("differs", 0, "out\nchanged=yes comment='it did'\n");
        bench.answer("code", 7, "");
        let made = bench.plan(text);
        assert_eq!(shown(&made), plan, "{text}");
        let (applied, done, _) = bench.apply_watching(&made, "run-1", |_| {});
        assert_eq!(verdicts(&made, &done), outcomes, "{text}");
        let tally = applied.unwrap().tally;
        assert_eq!(tally.ok + tally.changed + tally.failed + tally.skipped, made.lows.len(), "{text}");
        if let Some(skipped) = done.iter().find(|o| o.result == Verdict::Skipped && !text.contains("failhard")) {
            assert!(skipped.comment.starts_with("One or more requisite failed: s."), "{}", skipped.comment);
        }
        if text.contains("retry") {
            assert_eq!(bench.ran(), ["false", "false", "false"]);
        }
    }
}

/// A controller that has these contents and counts the exchanges.
#[derive(Clone, Default)]
struct Controller {
    contents: Arc<Mutex<BTreeMap<Hash, Vec<u8>>>>,
    exchanges: Arc<Mutex<Vec<usize>>>,
}

impl Controller {
    fn has(&self, bytes: &[u8], secret: bool) -> Content {
        self.contents.lock().unwrap().insert(Hash::of(bytes), bytes.to_vec());
        Content { name: "source".into(), hash: Hash::of(bytes), size: bytes.len() as u64, mode: None, link: None, secret }
    }
}

impl Fetch for Controller {
    fn fetch(&mut self, hashes: &[Hash], contents: &Contents) -> Result<()> {
        self.exchanges.lock().unwrap().push(hashes.len());
        for hash in hashes {
            contents.add(self.contents.lock().unwrap().get(hash).cloned().unwrap_or_default());
        }
        Ok(())
    }
}

#[test]
fn contents_travel_in_one_exchange_and_not_at_all_where_they_agree() {
    let bench = Bench::new();
    bench.file("/etc/large", &"old\n".repeat(1 << 19));
    bench.file("/etc/image", "\0\x01");
    let controller = Controller::default();
    bench.sys.contents().fetch_from(Box::new(controller.clone()));
    let large = "new\n".repeat(1 << 19);
    let parts =
        [("/etc/a", "a\n", false), ("/etc/b", "hunter2\n", true), ("/etc/large", large.as_str(), false), ("/etc/image", "\0\x02", false)];
    let mut list = lows(&parts.map(|(path, ..)| format!("{path} file.managed {{\"source\": \"salt://x\"}}")).join("\n"));
    for (low, (_, text, secret)) in list.iter_mut().zip(parts) {
        low.contents.push(controller.has(text.as_bytes(), secret));
    }
    let request = PlanRequest { lows: list, ..PlanRequest::default() };
    let first = plan(&bench.sys, request.clone()).unwrap();
    let diffs: Vec<&str> = first.host.steps.iter().map(|s| s.changes[0].diff.as_str()).collect();
    assert!(diffs[0].contains("+a\n"), "{}", diffs[0]);
    assert!(diffs[1].contains("content differs (secret)") && !diffs[1].contains("hunter2"), "{}", diffs[1]);
    assert!(diffs[2].contains("content: 2097152 bytes → 2097152 bytes"), "{}", diffs[2]);
    assert!(diffs[3].contains("binary"), "{}", diffs[3]);
    // The secret and the large one are not shown and come only when they are written.
    assert_eq!(*controller.exchanges.lock().unwrap(), [2]);
    assert_eq!(bench.apply(&first, "run-1"), "/etc/a changed, /etc/b changed, /etc/large changed, /etc/image changed");
    assert_eq!(*controller.exchanges.lock().unwrap(), [2, 2]);
    assert_eq!(shown(&plan(&bench.sys, request).unwrap()), "");
    assert_eq!(*controller.exchanges.lock().unwrap(), [2, 2]);
}

#[test]
fn a_host_that_is_not_as_it_was_is_stale_and_stays_untouched() {
    for path in ["/etc/f", "/etc/same", "/etc/probe"] {
        let bench = Bench::new();
        for path in ["/etc/f", "/etc/same", "/etc/probe"] {
            bench.file(path, "x\n");
        }
        let plan = bench.plan(
            "f file.managed {\"name\": \"/etc/f\", \"contents\": \"one\"}\ns file.managed {\"name\": \"/etc/same\", \"contents\": \"x\"}\nc cmd.run {\"name\": \"y\", \"onlyif\": \"test -f /etc/probe\"}",
        );
        assert_eq!(shown(&plan), "f change, c run");
        run::check(&bench.sys, &plan).unwrap();
        match path {
            "/etc/probe" => std::fs::remove_file(bench.dir.path().join("etc/probe")).unwrap(),
            _ => bench.file(path, "by hand\n"),
        }
        let (applied, outcomes, _) = bench.apply_watching(&plan, "run-1", |_| {});
        let error = applied.unwrap_err();
        assert_eq!((error.code, outcomes.len(), bench.ran().len(), bench.sys.generation().unwrap()), (Code::Stale, 0, 0, 0), "{path}");
        assert!(error.detail.contains(path), "{}", error.detail);
    }
}

#[test]
fn what_diverges_during_the_run_fails_unless_an_earlier_step_explains_it() {
    let two = "a file.managed {\"name\": \"/etc/a\", \"contents\": \"one\"}\nb file.managed {\"name\": \"/etc/b\", \"contents\": \"two\"}";
    let with = |text: &str, by_hand: Option<&str>| {
        let bench = Bench::new();
        bench.file("/etc/b", "old\n");
        let plan = bench.plan(text);
        let (_, outcomes, _) = bench.apply_watching(&plan, "run-1", |body| {
            if let (Body::Started { low: 0 }, Some(by_hand)) = (body, by_hand) {
                bench.file("/etc/b", by_hand);
            }
        });
        assert_eq!(outcomes.iter().filter(|o| o.result != Verdict::Failed).count(), reported(&outcomes).len());
        (verdicts(&plan, &outcomes), bench.read("/etc/b").unwrap(), outcomes[1].comment.clone())
    };
    let (verdicts, text, comment) = with(two, Some("by hand\n"));
    assert_eq!((verdicts.as_str(), text.as_str()), ("a changed, b failed", "by hand\n"));
    assert!(comment.starts_with("diverged from the plan: file:/etc/b changed during the run (content"), "{comment}");
    // Somebody got there first: it is as planned, and differs from before the run.
    assert_eq!(with(two, Some("two\n")).0, "a changed, b changed");
    // A command of an earlier step may have done it.
    let command = "a cmd.run {\"name\": \"write /etc/b by-command\"}\nb file.managed {\"name\": \"/etc/b\", \"contents\": \"two\"}";
    assert_eq!(with(command, None), ("a changed, b changed".to_owned(), "two\n".to_owned(), String::new()));
}

#[test]
fn a_reaction_is_owed_until_it_has_run_wherever_a_run_breaks_off() {
    let text = "f file.managed {\"name\": \"/etc/f\", \"contents\": \"one\"}\nr cmd.wait {\"name\": \"reload\"} watch=f";
    let mut mutation = 1;
    let mut owed_seen = 0;
    loop {
        let bench = Bench::new();
        std::fs::create_dir(bench.dir.path().join("etc")).unwrap();
        let plan = bench.plan(text);
        assert_eq!(shown(&plan), "f add, r run");
        bench.sys.fail_at(mutation);
        let (applied, outcomes, _) = bench.apply_watching(&plan, "run-1", |_| {});
        bench.sys.fail_at(None);
        let ran = bench.ran().len();
        if let Ok(applied) = applied {
            assert_eq!((applied.tally.changed, ran), (2, 1), "{:?}", verdicts(&plan, &outcomes));
            assert_eq!(bench.sys.owed().unwrap(), []);
            break;
        }
        // Whatever was done: the file changed and nothing ran means that the next plan runs it.
        let next = bench.plan(text);
        if bench.read("/etc/f").is_some() && ran == 0 {
            owed_seen += 1;
            assert_eq!(shown(&next), "r run", "stopped before mutation {mutation}");
            assert_eq!(next.host.steps[0].reason, "owed since run run-1");
        }
        bench.apply(&next, "run-2");
        assert_eq!((shown(&bench.plan(text)).as_str(), bench.sys.owed().unwrap().len()), ("", 0), "stopped before mutation {mutation}");
        mutation += 1;
    }
    assert!(owed_seen > 0 && mutation > 5);
}

#[test]
fn a_reaction_to_a_change_that_failed_is_not_owed_and_one_that_failed_still_is() {
    let bench = Bench::new();
    bench.file("/etc/d/in", "");
    let failing =
        "f file.managed {\"name\": \"/etc/f\", \"contents\": \"one\", \"check_cmd\": \"false\"}\nr cmd.wait {\"name\": \"reload\"} watch=f";
    assert_eq!(bench.apply(&bench.plan(failing), "run-1"), "f failed, r skipped");
    assert_eq!((bench.read("/etc/f"), bench.sys.owed().unwrap().len()), (None, 0));
    let text = "f file.managed {\"name\": \"/etc/f\", \"contents\": \"one\"}\nr cmd.wait {\"name\": \"reload\"} watch=f";
    bench.answer("reload", 1, "");
    assert_eq!(bench.apply(&bench.plan(text), "run-2"), "f changed, r failed");
    bench.answer("reload", 0, "");
    let next = bench.plan(text);
    assert_eq!((shown(&next).as_str(), next.host.steps[0].reason.as_str()), ("r run", "owed since run run-2"));
    assert_eq!(bench.apply(&next, "run-3"), "r changed");
    assert_eq!(shown(&bench.plan(text)), "");
}

#[test]
fn secrets_appear_nowhere_and_cancel_stops_at_the_next_state() {
    let bench = Bench::new();
    bench.file("/etc/f", "password=hunter2\n");
    bench.answer("say", 3, "the hunter2 is\n");
    let text = "f file.managed {\"name\": \"/etc/f\", \"contents\": \"nothing\"}\nc cmd.run {\"name\": \"login hunter2\"}\ns cmd.run {\"name\": \"say\"}\nl test.succeed_with_changes";
    let request = PlanRequest { lows: lows(text), secrets: vec!["hunter2".into()], commands: true, ..PlanRequest::default() };
    let plan = plan(&bench.sys, request).unwrap();
    let wire = serde_json::to_string(&plan.host).unwrap();
    assert!(!wire.contains("hunter2") && wire.contains("login ********"), "{wire}");
    let flag = bench.sys.cancel_flag();
    let (applied, outcomes, lines) = bench.apply_watching(&plan, "run-1", |body| {
        if matches!(body, Body::Started { low: 2 }) {
            flag.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    });
    let said = format!("{} {lines:?}", serde_json::to_string(&outcomes).unwrap());
    assert!(!said.contains("hunter2") && said.contains("the ******** is"), "{said}");
    assert_eq!(verdicts(&plan, &outcomes), "f changed, c changed, s failed, l skipped");
    assert!(applied.unwrap().stopped.is_some());
}

#[test]
fn a_script_is_there_while_it_runs_and_gone_afterwards() {
    let bench = Bench::new();
    std::fs::create_dir(bench.dir.path().join("tmp")).unwrap();
    let controller = Controller::default();
    bench.sys.contents().fetch_from(Box::new(controller.clone()));
    let mut list = lows("s cmd.script {\"name\": \"salt://x.sh one two\"}");
    list[0].contents.push(controller.has(b"#!/bin/sh\necho hi\n", false));
    let plan = plan(&bench.sys, PlanRequest { lows: list, ..PlanRequest::default() }).unwrap();
    assert_eq!(shown(&plan), "s run");
    assert_eq!(bench.apply(&plan, "run-1"), "s changed");
    let path = bench.ran().remove(0);
    assert!(path.starts_with("/tmp/basalt-"), "{path}");
    assert_eq!(std::fs::read_dir(bench.dir.path().join("tmp")).unwrap().count(), 0);
}

/// Every file below a root but basalt's own, with what it is and what is in it.
fn picture(dir: &std::path::Path) -> BTreeMap<String, String> {
    use std::os::unix::fs::MetadataExt;
    let mut out = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(here) = todo.pop() {
        for entry in std::fs::read_dir(&here).unwrap() {
            let path = entry.unwrap().path();
            let meta = std::fs::symlink_metadata(&path).unwrap();
            if path.ends_with("var/lib/basalt") {
                continue;
            }
            let text = if meta.is_file() { std::fs::read_to_string(&path).unwrap() } else { String::new() };
            out.insert(path.display().to_string(), format!("{:o} {} {text}", meta.mode(), meta.uid()));
            if meta.is_dir() {
                todo.push(path);
            }
        }
    }
    out
}

#[test]
fn stopped_at_any_mutation_a_run_can_be_taken_back_or_finished() {
    let text = format!("{FILES}c file.managed {{\"name\": \"/etc/kept\", \"contents\": \"new\", \"mode\": \"0600\"}}");
    let fresh = || {
        let bench = Bench::new();
        for path in ["/etc/gone", "/etc/kept", "/var/lib/other"] {
            bench.file(path, "old\n");
        }
        bench
    };
    for mutation in 1.. {
        let bench = fresh();
        let before = picture(bench.dir.path());
        let plan = bench.plan(&text);
        bench.sys.fail_at(mutation);
        let whole = bench.apply_watching(&plan, "run-1", |_| {}).0.is_ok();
        bench.sys.fail_at(None);
        if bench.sys.generation().unwrap() == 1 {
            let request = super::protocol::RollbackRequest { run: "run-1".into(), with_later: false, destroy_data: false };
            let back = super::revert::plan(&bench.sys, &request).unwrap();
            super::revert::apply(&bench.sys, back, &header("run-2"), &mut |_| {}).unwrap();
            assert_eq!(picture(bench.dir.path()), before, "stopped before mutation {mutation}");
        } else {
            assert_eq!(picture(bench.dir.path()), before, "stopped before mutation {mutation}");
        }
        // And again from here to the end.
        let rest = bench.plan(&text);
        bench.apply(&rest, "run-3");
        assert_eq!(shown(&bench.plan(&text)), "", "stopped before mutation {mutation}");
        if whole {
            assert!(mutation > 8);
            break;
        }
    }
}

#[test]
fn a_condition_that_calls_something_unknown_is_a_state_that_would_fail() {
    let plan = Bench::new().plan(r#"a cmd.run {"name": "x", "onlyif": [{"fun": "no.such"}]}"#);
    assert_eq!(plan.host.steps[0].fails.as_deref(), Some("a condition calls no.such, which basalt does not know"));
}
