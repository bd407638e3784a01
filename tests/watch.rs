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
                let mut line: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
                line["at_ms"] = now_ms().into();
                told.lock().unwrap().push(line);
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

/// All hosts have what `says` writes.
fn all(lab: &Lab) {
    lab.write("states/top.sls", "base:\n  '*': [all]\n");
}

fn says(lab: &Lab, text: &str) {
    lab.write("states/all.sls", &format!("/etc/all:\n  file.managed:\n    - contents: {text}\n"));
}

/// A commit of that, named by its text.
fn means(lab: &Lab, text: &str) -> String {
    says(lab, text);
    lab.commit(text)
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
    all(&lab);
    says(&lab, "one");
    lab.commit("one");
    lab.basalt(["apply", "--yes"]).ok();
    let mut watch = Watch::start(&lab, &[]);
    watch.until("the first look", |line| line["type"] == "host_planned");
    watch.until("the second host", |line| line["type"] == "host_planned");

    says(&lab, "two");
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
    says(&lab, "three");
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
    all(&lab);
    says(&lab, "one");
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

    says(&lab, "three");
    let better = lab.commit("better");
    watch.decides("settled", &better);
    for host in lab.all() {
        assert_eq!(host.read("/etc/all").as_deref(), Some("three\n"));
    }
    watch.stop().ok();
}

#[test]
fn a_commit_that_fails_on_one_host_is_taken_back_on_the_other() {
    if !lab::required() {
        return;
    }
    let lab = Lab::light(2);
    all(&lab);
    says(&lab, "one");
    let good = lab.commit("good");
    let mut watch = Watch::start(&lab, &["--apply", "--rollback-on-failure"]);
    watch.decides("settled", &good);
    let before: Vec<_> = lab.all().iter().map(|host| host.fingerprint_root()).collect();
    lab.write(
        "states/all.sls",
        "/etc/all:\n  file.managed:\n    - contents: two\n/etc/more:\n  file.managed:\n    - contents: two\n\
         {% if grains.id == 'h2' %}\nsleep 2; false:\n  cmd.run: []\n{% endif %}\n",
    );
    let bad = lab.commit("bad");
    assert_eq!(hosts(&watch.decides("changed", &bad)), ["h1"]);
    assert_eq!(hosts(&watch.decides("hold", &bad)), ["h2"]);
    assert_eq!(hosts(&watch.decides("taken_back", &bad)), ["h1"]);
    for (host, then) in lab.all().iter().zip(&before) {
        then.assert_same(&host.fingerprint_root());
    }
    watch.stop().ok();
}

#[test]
fn a_file_changed_by_hand_is_told_by_the_host_and_corrected_where_that_is_wanted() {
    if !lab::required() {
        return;
    }
    let lab = Lab::light(1);
    lab.write("states/top.sls", "base:\n  '*': [shown, corrected]\n");
    lab.write("states/shown.sls", "/etc/shown:\n  file.managed:\n    - contents: one\n");
    lab.write("states/corrected.sls", "/etc/corrected:\n  file.managed:\n    - contents: one\n");
    lab.write("basalt.yaml", "watch:\n  interval: 86400\n  drift_rules:\n  - {sls: corrected, drift: correct}\n");
    let commit = lab.commit("one");
    let mut watch = Watch::start(&lab, &["--apply"]);
    watch.decides("settled", &commit);
    let host = &lab["h1"];
    // The timer is a day away: the host itself tells, as soon as its session stands.
    let touch = |watch: &mut Watch, path: &str| {
        let from = watch.from;
        for attempt in 0.. {
            host.write(path, &format!("by hand {attempt}\n"));
            std::thread::sleep(Duration::from_millis(500));
            if watch.lines.lock().unwrap().iter().skip(from).any(|line| line["decision"] == "touched" && line.to_string().contains(path)) {
                return;
            }
            assert!(attempt < 40, "nobody told of {path}\n{}", watch.told());
        }
    };
    touch(&mut watch, "/etc/shown");
    let drift = watch.decides("drift", &commit);
    assert_eq!(drift["states"], serde_json::json!(["file.managed /etc/shown"]));
    assert!(host.read("/etc/shown").unwrap().starts_with("by hand"));

    touch(&mut watch, "/etc/corrected");
    watch.until("the correction", |line| line["type"] == "state_done" && line["name"] == "/etc/corrected");
    let limit = Instant::now() + Duration::from_secs(20);
    while host.read("/etc/corrected").as_deref() != Some("one\n") {
        assert!(Instant::now() < limit, "{}", watch.told());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(host.read("/etc/shown").unwrap().starts_with("by hand"), "what is to be shown is not corrected along");
    // What basalt does itself is no news, and what was shown is not shown again.
    let told = watch.all("touched").len();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(watch.all("touched").len(), told, "{}", watch.told());
    assert!(watch.all("drift").iter().all(|drift| drift["states"] == serde_json::json!(["file.managed /etc/shown"])), "{}", watch.told());
    watch.stop().ok();
}

#[test]
fn only_commits_of_allowed_signers_are_taken() {
    if !lab::required() {
        return;
    }
    let lab = Lab::light(1);
    lab.run([
        "sh",
        "-ec",
        "ssh-keygen -q -t ed25519 -N '' -f ../signer; printf 'lab@localhost %s\\n' \"$(cut -d' ' -f1,2 ../signer.pub)\" > ../signers",
    ])
    .ok();
    all(&lab);
    says(&lab, "one");
    let unsigned = lab.commit("nobody's");
    let mut watch = Watch::start(&lab, &["--apply", "--allowed-signers", "../signers"]);
    let held = watch.decides("hold", &unsigned);
    assert!(held["why"].as_str().unwrap().contains("is not signed by an allowed signer"), "{held}");

    lab.run(["sh", "-ec", "git config gpg.format ssh; git config user.signingkey ../signer; git config commit.gpgsign true"]).ok();
    let signed = lab.commit("the signer's");
    watch.decides("settled", &signed);
    assert_eq!(lab["h1"].read("/etc/all").as_deref(), Some("one\n"));

    lab.run(["git", "config", "commit.gpgsign", "false"]).ok();
    says(&lab, "two");
    let unsigned = lab.commit("nobody's again");
    watch.decides("hold", &unsigned);
    assert_eq!(lab["h1"].read("/etc/all").as_deref(), Some("one\n"));
    watch.stop().ok();
}

#[test]
fn a_host_that_is_away_holds_up_nobody_and_is_caught_up() {
    if !lab::required() {
        return;
    }
    let lab = Lab::light(2);
    lab.write("basalt.yaml", "recovery: {first_every: 1}\nconnect_timeout: 2\n");
    all(&lab);
    lab["h2"].link_down();
    let one = means(&lab, "one");
    let mut watch = Watch::start(&lab, &["--apply"]);
    let settled = watch.decides("settled", &one);
    assert_eq!(hosts(&settled), ["h2"]);
    let two = means(&lab, "two");
    watch.decides("settled", &two);
    assert_eq!(lab["h1"].read("/etc/all").as_deref(), Some("two\n"));
    lab["h2"].link_up();
    let caught_up = watch.until("h2 is caught up", |line| line["decision"] == "changed" && line["hosts"][0] == "h2");
    assert_eq!(caught_up["commit"], two.as_str(), "the newest at once");
    assert_eq!(lab["h2"].read("/etc/all").as_deref(), Some("two\n"));
    watch.stop().ok();
}

#[test]
fn a_stop_in_the_middle_is_clean_and_the_next_watch_goes_on() {
    if !lab::required() {
        return;
    }
    let lab = Lab::light(1);
    all(&lab);
    lab.write("states/all.sls", "/etc/first:\n  file.managed:\n    - contents: one\nsleep 3:\n  cmd.run:\n    - creates: /etc/last\n/etc/last:\n  file.managed:\n    - contents: one\n");
    let commit = lab.commit("slow");
    let mut watch = Watch::start(&lab, &["--apply"]);
    watch.until("the first state", |line| line["type"] == "state_done" && line["name"] == "/etc/first");
    watch.stop().ok().complains("Stopping");
    assert_eq!(lab["h1"].read("/etc/last"), None);
    let mut watch = Watch::start(&lab, &["--apply"]);
    watch.decides("settled", &commit);
    assert_eq!(lab["h1"].read("/etc/last").as_deref(), Some("one\n"));
    watch.stop().ok();
}

#[test]
fn a_rewritten_history_and_a_repository_that_goes_are_told_and_lived_through() {
    if !lab::required() {
        return;
    }
    let lab = Lab::light(1);
    all(&lab);
    means(&lab, "one");
    lab.run(["git", "clone", "-q", "--bare", ".", "../state.git"]).ok();
    lab.run(["git", "push", "-q", "../state.git", "main"]).ok();
    let two = means(&lab, "two");
    lab.run(["git", "push", "-q", "../state.git", "main"]).ok();
    let url = format!("file://{}", lab.home().join("state.git").display());
    let mut watch = Watch::start(&lab, &["--apply", "--poll", "1", "--repo", &url]);
    watch.decides("settled", &two);

    lab.run(["git", "reset", "-q", "--hard", "HEAD~1"]).ok();
    let other = means(&lab, "other");
    lab.run(["git", "push", "-q", "--force", "../state.git", "main"]).ok();
    let rewritten = watch.decides("rewritten", &two);
    assert_eq!(rewritten["by"], other.as_str());
    watch.decides("settled", &other);
    assert_eq!(lab["h1"].read("/etc/all").as_deref(), Some("other\n"));

    lab.run(["mv", "../state.git", "../gone.git"]).ok();
    watch.decides("gone", "");
    lab.run(["mv", "../gone.git", "../state.git"]).ok();
    watch.decides("back", "");
    let three = means(&lab, "three");
    let four = means(&lab, "four");
    lab.run(["git", "push", "-q", "../state.git", "main"]).ok();
    assert_eq!(watch.decides("overtaken", &three)["by"], four.as_str());
    watch.decides("settled", &four);
    assert_eq!(watch.all("gone").len(), 1, "{}", watch.told());
    watch.stop().ok();
}

#[test]
fn hosts_are_changed_in_a_window_only_and_a_commit_may_open_it() {
    if !lab::required() {
        return;
    }
    let lab = Lab::light(1);
    all(&lab);
    says(&lab, "one");
    let today: usize = lab.run(["date", "+%u"]).ok().stdout.trim().parse().unwrap();
    let days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    lab.write("basalt.yaml", &format!("watch:\n  windows:\n  - {{days: {}, from: '22:00', to: '23:00'}}\n", days[(today + 2) % 7]));
    let closed = lab.commit("one");
    let mut watch = Watch::start(&lab, &["--apply"]);
    let wait = watch.decides("wait", &closed);
    assert!(wait["seconds"].as_u64().unwrap() > 86400 && wait["why"].as_str().unwrap().contains("22:00-23:00 +"), "{wait}");
    assert_eq!(lab["h1"].read("/etc/all"), None);
    lab.write("basalt.yaml", "watch:\n  windows:\n  - {days: [mon, tue, wed, thu, fri, sat, sun]}\n");
    let open = lab.commit("any time");
    assert_eq!(watch.decides("overtaken", &closed)["by"], open.as_str());
    watch.decides("settled", &open);
    assert_eq!(lab["h1"].read("/etc/all").as_deref(), Some("one\n"));
    watch.stop().ok();
}

#[test]
fn a_store_that_is_full_is_told_and_holds_up_nothing() {
    if !lab::required() {
        return;
    }
    let lab = Lab::light(1);
    all(&lab);
    let one = means(&lab, "one");
    let store = lab.home().join(".local/state/basalt");
    lab.run(["sh", "-ec", &format!("mkdir -p {0}; mount -t tmpfs -o size=256k none {0}", store.display())]).ok();
    let mut watch = Watch::start(&lab, &["--apply"]);
    watch.decides("settled", &one);
    lab.run(["sh", "-ec", &format!("dd if=/dev/zero of={}/full bs=4k 2>/dev/null || true", store.display())]).ok();
    let two = means(&lab, "two");
    let warning = watch.until("a warning", |line| line["type"] == "warning" && line.to_string().contains("The watch goes on"));
    assert!(warning["message"].as_str().unwrap().contains("No space left"), "{warning}");
    watch.decides("settled", &two);
    assert_eq!(lab["h1"].read("/etc/all").as_deref(), Some("two\n"));
    // When there is room again it writes down what it knows.
    lab.run(["sh", "-ec", &format!("rm {}/full", store.display())]).ok();
    let three = means(&lab, "three");
    watch.decides("settled", &three);
    watch.stop().ok();
    let mut watch = Watch::start(&lab, &["--apply"]);
    watch.decides("unchanged", &three);
    watch.stop().ok();
}

/// The long one, for `scripts/soak`: writes what happened to SOAK_LOG, and judges nothing.
#[test]
#[ignore = "it takes an hour: scripts/soak runs it"]
fn soak() {
    assert!(lab::required());
    let number = |name: &str| {
        std::env::var(name).ok().and_then(|text| text.parse::<f64>().ok()).unwrap_or_else(|| panic!("{name} is set by scripts/soak"))
    };
    let (all, every) = (Duration::from_secs_f64(number("SOAK_SECONDS")), Duration::from_secs_f64(number("SOAK_EVERY")));
    let lab = Lab::hosts(5);
    let role = |host: usize, text: &str| {
        lab.write(&format!("states/role{host}.sls"), &format!("/etc/role:\n  file.managed:\n    - contents: {text}\n"))
    };
    lab.write("states/top.sls", "base:\n  h1: [role1]\n  h2: [role2]\n  h3: [role3]\n  h4: [role4]\n  h5: [role5]\n");
    let mut wanted: Vec<String> = vec!["0".to_owned(); 5];
    (1..=5).for_each(|host| role(host, "0"));
    let first = lab.commit("0");
    let mut watch = Watch::start(&lab, &["--apply"]);
    watch.decides("settled", &first);
    let began = Instant::now();
    let say = |watch: &Watch, mut line: Value| {
        line["type"] = "soak".into();
        line["at_ms"] = now_ms().into();
        watch.lines.lock().unwrap().push(line);
    };
    let rss = |watch: &Watch| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", watch.running.as_ref().unwrap().pid())).unwrap();
        let kib: u64 = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok()).unwrap();
        say(watch, serde_json::json!({"what": "rss", "seconds": began.elapsed().as_secs(), "kib": kib}));
    };
    for n in 1.. {
        rss(&watch);
        let good = n % 12 != 0;
        let text = format!("{n}");
        if n % 30 == 0 {
            lab.run(["git", "commit", "-q", "--amend", "-m", "rewritten"]).ok();
        }
        // One host, or all of them.
        let touched: Vec<usize> = if n % 7 == 0 { (1..=5).collect() } else { vec![n % 5 + 1] };
        for host in touched {
            if good {
                wanted[host - 1].clone_from(&text);
                role(host, &text);
            } else {
                role(host, "[");
            }
        }
        let commit = lab.commit(&text);
        say(&watch, serde_json::json!({"what": "commit", "commit": commit, "subject": text, "good": good}));
        if !good {
            (1..=5).for_each(|host| role(host, &wanted[host - 1]));
        }
        if began.elapsed() >= all && good {
            watch.decides("settled", &commit);
            break;
        }
        std::thread::sleep(every.saturating_sub(Duration::from_secs_f64(began.elapsed().as_secs_f64() % every.as_secs_f64())));
    }
    rss(&watch);
    for (host, should) in lab.all().iter().zip(&wanted) {
        let is = host.read("/etc/role").unwrap_or_default();
        say(&watch, serde_json::json!({"what": "host", "host": host.name(), "is": is.trim(), "should": should}));
    }
    std::fs::write(std::env::var("SOAK_LOG").unwrap(), watch.told()).unwrap();
    watch.stop().ok();
}

fn now_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}
