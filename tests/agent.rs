//! The agent as a process, spoken to over its standard input and output as the controller does: killed in the middle, cut off, locked.

use std::io::{BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use basalt::agent::protocol::{
    ApplyRequest, Body, CheckRequest, Frame, MAGIC, Message, PlanRequest, RollbackRequest, RunState, encode, read_frame, skip_to_magic,
    write_bytes,
};
use basalt::diagnostic::Code;
use basalt::plan::{Content, Hash, HostPlan, Low, RunHeader};

const NEW: &[u8] = b"what is wanted\n";

struct Agent {
    process: Child,
    input: BufReader<ChildStdout>,
    output: Option<ChildStdin>,
}

impl Agent {
    fn start(root: &Path, kill_at: Option<u64>) -> Agent {
        let mut command = Command::new(env!("CARGO_BIN_EXE_basalt-agent"));
        command.args(["serve", "--root"]).arg(root).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(n) = kill_at {
            command.env("BASALT_FAULT_KILL", n.to_string());
        }
        let mut process = command.spawn().unwrap();
        let mut input = BufReader::new(process.stdout.take().unwrap());
        let mut output = process.stdin.take().unwrap();
        assert!(skip_to_magic(&mut input, 0x1000).unwrap().1);
        output.write_all(MAGIC).unwrap();
        let mut agent = Agent { process, input, output: Some(output) };
        assert!(matches!(agent.hear(), Some(Body::Hello(_))));
        agent
    }

    fn say(&mut self, body: Body) {
        let frame = encode(&Message { stream: 1, body }).unwrap();
        self.output.as_mut().unwrap().write_all(&frame).unwrap();
    }

    /// The next message; `None` when the agent has gone.
    fn hear(&mut self) -> Option<Body> {
        match read_frame(&mut self.input).unwrap()? {
            Frame::Message(message) => Some(message.body),
            Frame::Bytes(_) => panic!("an agent sends no bytes"),
        }
    }

    /// The answer to a request, behind its events; contents are sent when they are asked for.
    fn ask(&mut self, body: Body) -> Option<Body> {
        self.say(body);
        loop {
            match self.hear()? {
                Body::Need { hashes } => {
                    for hash in hashes {
                        self.say(Body::Content { hash, size: NEW.len() as u64 });
                        write_bytes(self.output.as_mut().unwrap(), 1, NEW).unwrap();
                    }
                }
                Body::Started { .. } | Body::Done(_) | Body::Line { .. } | Body::Alive => {}
                answer => return Some(answer),
            }
        }
    }

    fn plan(&mut self, lows: &str) -> HostPlan {
        let Some(Body::Planned(plan)) = self.ask(Body::Plan(PlanRequest { lows: states(lows), commands: true, ..PlanRequest::default() }))
        else {
            panic!()
        };
        plan
    }

    /// `None`: killed.
    fn apply(&mut self, plan: &HostPlan, run: &str) -> Option<Body> {
        assert_eq!(self.ask(Body::Check(CheckRequest { run: header(run), lock_timeout: 0 })), Some(Body::Checked));
        self.ask(Body::Apply(ApplyRequest { fingerprint: plan.fingerprint.clone(), run: header(run), guard: None }))
    }

    fn end(mut self) -> Option<i32> {
        drop(self.output.take());
        self.process.wait().unwrap().code()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn header(id: &str) -> RunHeader {
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

/// `ID FUNCTION {arguments}`, one a line; a source is always the same content.
fn states(text: &str) -> Vec<Low> {
    let low = |line: &str| {
        let (id, rest) = line.trim().split_once(' ').unwrap();
        let (function, args) = rest.split_once(' ').unwrap();
        let (state, fun) = function.split_once('.').unwrap();
        let args: serde_json::Value = serde_json::from_str(args).unwrap();
        let name = args["name"].as_str().unwrap();
        let mut low: Low =
            serde_json::from_value(serde_json::json!({"id": id, "sls": "s", "state": state, "fun": fun, "name": name, "args": args}))
                .unwrap();
        if args.get("source").is_some() {
            low.contents.push(Content {
                name: "source".into(),
                hash: Hash::of(NEW),
                size: NEW.len() as u64,
                mode: None,
                link: None,
                secret: false,
            });
        }
        low
    };
    text.lines().filter(|line| !line.trim().is_empty()).map(low).collect()
}

const STATES: &str = r#"
    a file.managed {"name": "/etc/a", "source": "salt://a", "mode": "0600"}
    b file.absent {"name": "/etc/b"}
    c file.symlink {"name": "/etc/c", "target": "a"}
"#;

fn host() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("etc")).unwrap();
    std::fs::write(dir.path().join("etc/a"), "old a").unwrap();
    std::fs::write(dir.path().join("etc/b"), "old b").unwrap();
    std::fs::write(dir.path().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
    dir
}

fn names(root: &Path) -> Vec<(String, String, u32)> {
    let mut names: Vec<_> = std::fs::read_dir(root.join("etc"))
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            (entry.file_name().into_string().unwrap(), text, entry.metadata().unwrap().permissions().mode())
        })
        .collect();
    names.sort();
    names
}

#[test]
fn a_killed_agent_leaves_a_run_that_can_be_taken_back_and_no_lock() {
    let mut killed = 0;
    for n in 1.. {
        let host = host();
        let was = names(host.path());
        let mut agent = Agent::start(host.path(), Some(n));
        let plan = agent.plan(STATES);
        assert_eq!(plan.steps.len(), 3);
        let applied = agent.apply(&plan, "run-1");
        drop(agent);
        let mut agent = Agent::start(host.path(), None);
        let Some(Body::History { runs }) = agent.ask(Body::Runs) else { panic!() };
        if let Some(Body::Applied(applied)) = &applied {
            assert_eq!((applied.tally.changed, runs[0].state), (3, RunState::Done));
            break;
        }
        assert_eq!(applied, None);
        killed += 1;
        match runs.first() {
            None => {}
            Some(run) => {
                assert_eq!(run.state, RunState::Broken);
                assert!(!agent.plan(STATES).notices.is_empty());
                let Some(Body::Planned(plan)) =
                    agent.ask(Body::PlanRollback(RollbackRequest { run: "run-1".into(), with_later: false, destroy_data: false }))
                else {
                    panic!()
                };
                assert!(matches!(agent.apply(&plan, "run-2"), Some(Body::Applied(applied)) if applied.tally.failed == 0));
            }
        }
        assert_eq!(names(host.path()), was, "killed at {n}");
        assert_eq!(agent.end(), Some(0));
    }
    assert!(killed > 8, "only {killed} kills");
}

#[test]
fn a_second_controller_is_refused_by_name_until_the_first_has_gone() {
    let host = host();
    let (mut first, mut second) = (Agent::start(host.path(), None), Agent::start(host.path(), None));
    first.plan(STATES);
    second.plan(STATES);
    assert_eq!(first.ask(Body::Check(CheckRequest { run: header("run-1"), lock_timeout: 0 })), Some(Body::Checked));
    let refused = second.ask(Body::Check(CheckRequest { run: header("run-2"), lock_timeout: 0 }));
    assert!(
        matches!(&refused, Some(Body::Failed(why)) if why.code == Code::Locked && why.summary.contains("run run-1 by ann@desk")),
        "{refused:?}"
    );
    first.process.kill().unwrap();
    assert_eq!(second.ask(Body::Check(CheckRequest { run: header("run-2"), lock_timeout: 5 })), Some(Body::Checked));
}

#[test]
fn what_was_not_checked_or_not_shown_is_not_applied() {
    let host = host();
    let mut agent = Agent::start(host.path(), None);
    let apply = |fingerprint: &Hash| Body::Apply(ApplyRequest { fingerprint: fingerprint.clone(), run: header("run-1"), guard: None });
    let plan = agent.plan(STATES);
    assert!(matches!(agent.ask(apply(&plan.fingerprint)), Some(Body::Failed(why)) if why.summary.contains("not locked")));
    assert_eq!(agent.ask(Body::Check(CheckRequest { run: header("run-1"), lock_timeout: 0 })), Some(Body::Checked));
    assert!(matches!(agent.ask(apply(&Hash::of(b"another"))), Some(Body::Failed(why)) if why.code == Code::Stale));
    let plan = agent.plan(STATES);
    std::fs::write(host.path().join("etc/b"), "by hand").unwrap();
    assert!(matches!(agent.ask(apply(&plan.fingerprint)), Some(Body::Failed(why)) if why.code == Code::Stale));
    assert_eq!(std::fs::read_to_string(host.path().join("etc/a")).unwrap(), "old a");
}

#[test]
fn commands_end_when_they_are_cancelled_or_nobody_is_left() {
    let exec = || Body::Exec { argv: vec!["echo up; exec sleep 100".into()], shell: true, timeout_ms: None };
    let up = Some(Body::Line { text: "up".into(), error: false });
    let begun = Instant::now();
    let mut agent = Agent::start(Path::new("/"), None);
    agent.say(exec());
    assert_eq!(agent.hear(), up);
    agent.say(Body::Cancel);
    assert_eq!(agent.hear(), Some(Body::Exited { status: 143 }));
    agent.say(exec());
    assert_eq!(agent.hear(), up);
    assert_eq!(agent.end(), Some(0));
    let mut agent = Agent::start(Path::new("/"), None);
    let late = agent.ask(Body::Exec { argv: vec!["sleep".into(), "100".into()], shell: false, timeout_ms: Some(300) });
    assert!(matches!(late, Some(Body::Failed(why)) if why.code == Code::Interrupted));
    assert!(begun.elapsed() < Duration::from_secs(8));
}

/// What is huge is neither held in memory nor shown, and one that is nearly empty stays as small as it was when it comes back.
#[test]
fn huge_and_binary_files_cost_no_memory_and_come_back() {
    use std::os::unix::fs::MetadataExt;
    const HUGE: u64 = 1 << 30;
    let root = host();
    let (huge, binary) = (root.path().join("etc/a"), root.path().join("etc/b"));
    std::fs::OpenOptions::new().write(true).open(&huge).unwrap().set_len(HUGE).unwrap();
    let noise: Vec<u8> = (0..200_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(&binary, &noise).unwrap();
    let mut agent = Agent::start(root.path(), None);
    let plan = agent.plan(
        r#"
        a file.managed {"name": "/etc/a", "source": "salt://a"}
        b file.managed {"name": "/etc/b", "source": "salt://b"}
        "#,
    );
    let diffs: Vec<&str> = plan.steps.iter().map(|step| step.changes[0].diff.as_str()).collect();
    assert!(diffs[0].contains(&format!("{HUGE} bytes")), "{diffs:?}");
    assert!(diffs.iter().all(|diff| diff.len() < 1000), "{diffs:?}");
    assert!(matches!(agent.apply(&plan, "run-1"), Some(Body::Applied(applied)) if applied.tally.changed == 2));
    assert_eq!(std::fs::read(&huge).unwrap(), NEW);
    let request = RollbackRequest { run: "run-1".into(), with_later: false, destroy_data: false };
    let Some(Body::Planned(back)) = agent.ask(Body::PlanRollback(request)) else { panic!() };
    assert!(matches!(agent.apply(&back, "run-2"), Some(Body::Applied(applied)) if applied.tally.failed == 0));
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.process.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").trim().parse().unwrap();
    assert!(peak < 64 << 10, "{peak} kB of memory");
    let back = std::fs::metadata(&huge).unwrap();
    assert_eq!(back.len(), HUGE);
    assert!(back.blocks() < 2048, "{} blocks", back.blocks());
    assert_eq!(std::fs::read(&binary).unwrap(), noise);
}

#[test]
fn the_command_line_says_what_it_is() {
    let run = |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_basalt-agent")).args(args).stdin(Stdio::null()).output().unwrap();
    assert!(run(&["--probe"]).status.success());
    assert!(String::from_utf8_lossy(&run(&["--version"]).stdout).starts_with("basalt-agent "));
    assert_eq!(run(&["--no-such"]).status.code(), Some(1));
    assert_eq!(run(&["--root", "/no/such/directory"]).status.code(), Some(1));
}
