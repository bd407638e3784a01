//! `basalt watch` on real hosts: what happens in the repository and on the hosts leads to what is to follow from it, and to nothing else.

mod lab;

use std::io::{BufRead, BufReader};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lab::{Lab, Output, Running};
use rustix::process::Signal;
use serde_json::Value;

/// A watch in the lab, and what it has told so far.
struct Watch {
    running: Option<Running>,
    lines: Arc<Mutex<Vec<Value>>>,
    /// Lines before this were looked at.
    from: usize,
}

impl Watch {
    fn start(lab: &Lab, args: &[&str]) -> Watch {
        let mut running = lab.spawn_basalt(["watch", "--json"].iter().chain(args));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (stdout, told) = (running.stdout(), lines.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                told.lock().unwrap().push(serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}")));
            }
        });
        Watch { running: Some(running), lines, from: 0 }
    }

    /// Waits for a line after the last one that was waited for.
    #[track_caller]
    fn until(&mut self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let limit = Instant::now() + Duration::from_secs(60);
        loop {
            let found = {
                let lines = self.lines.lock().unwrap();
                lines.iter().enumerate().skip(self.from).find(|(_, line)| is(line)).map(|(index, line)| (index, line.clone()))
            };
            if let Some((index, line)) = found {
                self.from = index + 1;
                return line;
            }
            assert!(Instant::now() < limit, "{what} did not come\n{}", self.told());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for a decision about a commit (empty: the work tree).
    #[track_caller]
    fn decides(&mut self, decision: &str, commit: &str) -> Value {
        let about = |line: &Value| line["commit"].as_str().unwrap_or_default() == commit;
        self.until(&format!("{decision} {commit}"), |line| line["type"] == "decision" && line["decision"] == decision && about(line))
    }

    fn told(&self) -> String {
        self.lines.lock().unwrap().iter().map(|line| format!("{line}\n")).collect()
    }

    /// All decisions of a kind so far.
    fn all(&self, decision: &str) -> Vec<Value> {
        self.lines.lock().unwrap().iter().filter(|line| line["decision"] == decision).cloned().collect()
    }

    fn stop(mut self) -> Output {
        let running = self.running.take().unwrap();
        running.signal(Signal::TERM);
        running.wait()
    }
}

fn hosts(line: &Value) -> Vec<String> {
    line["hosts"].as_array().unwrap().iter().map(|host| host.as_str().unwrap().to_owned()).collect()
}

/// Two roles on three hosts: h1 is the web server, the others store.
fn roles(lab: &Lab) -> String {
    lab.write("states/top.sls", "base:\n  h1: [web]\n  'h[23]': [store]\n");
    lab.write("states/web.sls", "/etc/web:\n  file.managed:\n    - contents: one\n");
    lab.write("states/store.sls", "/etc/store:\n  file.managed:\n    - contents: one\n");
    lab.commit("two roles")
}

#[test]
fn an_edit_shows_its_plan_and_a_half_written_file_waits_for_the_next() {
    if !lab::required() {
        return;
    }
    let lab = Lab::light(2);
    lab.write("states/top.sls", "base:\n  '*': [all]\n");
    lab.write("states/all.sls", "/etc/all:\n  file.managed:\n    - contents: one\n");
    lab.commit("one");
    lab.basalt(["apply", "--yes"]).ok();
    let mut watch = Watch::start(&lab, &[]);
    watch.until("the first look", |line| line["type"] == "host_planned");
    watch.until("the second host", |line| line["type"] == "host_planned");

    lab.write("states/all.sls", "/etc/all:\n  file.managed:\n    - contents: two\n");
    let edit = watch.decides("edit", "");
    assert_eq!(edit["why"], "states/all.sls");
    let plan = watch.until("the plan", |line| line["type"] == "host_planned");
    assert!(plan["changes"][0]["diff"].as_str().unwrap().contains("+two"), "{plan}");
    watch.until("the plan of the other host", |line| line["type"] == "host_planned");
    assert_eq!(lab["h1"].read("/etc/all").as_deref(), Some("one\n"), "a plan changes nothing");

    // An editor writes half of a file, and then the rest; files of its own mean nothing.
    lab.write("states/all.sls", "/etc/all:\n  file.managed:\n    - contents: [\n");
    let broken = watch.decides("broken", "");
    assert!(broken["why"].as_str().unwrap().contains("states/all.sls"), "{broken}");
    lab.write("states/.all.sls.swp", "x");
    lab.write("states/all.sls", "/etc/all:\n  file.managed:\n    - contents: three\n");
    watch.until("the plan", |line| line["type"] == "host_planned" && line.to_string().contains("+three"));
    assert_eq!(watch.all("broken").len(), 1, "{}", watch.told());
    watch.stop().ok();
}

#[test]
fn a_commit_reaches_its_hosts_and_the_others_are_left_alone() {
    if !lab::required() {
        return;
    }
    let lab = Lab::light(3);
    let first = roles(&lab);
    let mut watch = Watch::start(&lab, &["--apply"]);
    watch.decides("settled", &first);
    assert_eq!(lab["h3"].read("/etc/store").as_deref(), Some("one\n"));

    lab.write("states/web.sls", "/etc/web:\n  file.managed:\n    - contents: two\n");
    let second = lab.commit("the web server alone");
    let left = watch.decides("leave", &second);
    assert_eq!(hosts(&left), ["h2", "h3"]);
    assert_eq!(left["why"], format!("what is wanted of them is the same as at {}", &first[..12]));
    let changed = watch.decides("changed", &second);
    assert_eq!(hosts(&changed), ["h1"]);
    watch.decides("settled", &second);
    assert_eq!(lab["h1"].read("/etc/web").as_deref(), Some("two\n"));
    watch.stop().ok();

    // The next watch knows what is where, and looks all the same.
    let mut watch = Watch::start(&lab, &["--apply"]);
    for _ in 0..3 {
        watch.decides("unchanged", &second);
    }
    assert!(watch.all("apply").is_empty(), "{}", watch.told());
    watch.stop().ok();
}

#[test]
fn a_bad_commit_is_taken_back_and_held_and_a_good_one_follows() {
    if !lab::required() {
        return;
    }
    let lab = Lab::light(2);
    lab.write("states/top.sls", "base:\n  '*': [all]\n");
    lab.write("states/all.sls", "/etc/all:\n  file.managed:\n    - contents: one\n");
    let good = lab.commit("good");
    let mut watch = Watch::start(&lab, &["--apply", "--rollback-on-failure", "--interval", "3"]);
    watch.decides("settled", &good);

    lab.write("states/all.sls", "/etc/all:\n  file.managed:\n    - contents: two\n'false':\n  cmd.run: []\n");
    let bad = lab.commit("bad");
    let held = watch.decides("hold", &bad);
    assert!(held["why"].as_str().unwrap().contains("it was taken back"), "{held}");
    // It stays held: the timer looks at the hosts by what they had before.
    watch.decides("check", &good);
    watch.decides("unchanged", &good);
    assert_eq!(lab["h1"].read("/etc/all").as_deref(), Some("one\n"));

    // One that does not compile gets nowhere.
    lab.write("states/all.sls", "/etc/all:\n  file.managed:\n    - contents: {{ nothing }}\n");
    let worse = lab.commit("worse");
    assert!(watch.decides("hold", &worse)["why"].as_str().unwrap().starts_with("it does not compile"));

    lab.write("states/all.sls", "/etc/all:\n  file.managed:\n    - contents: three\n");
    let better = lab.commit("better");
    watch.decides("settled", &better);
    for host in lab.all() {
        assert_eq!(host.read("/etc/all").as_deref(), Some("three\n"));
    }
    watch.stop().ok();
}
