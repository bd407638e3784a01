//! Bad input: each kind ends with a clear error, its place, the right exit code, and nothing lost or half done.
//!
//! Hosts here are folders on this machine, reached by the local transport; what needs a real host stands in `tests/engine.rs`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A state repository with one host whose root is a folder.
struct Bench {
    folder: tempfile::TempDir,
}

struct Said {
    code: Option<i32>,
    text: String,
}

impl Bench {
    fn new(files: &[(&str, &str)]) -> Bench {
        let bench = Bench { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir_all(bench.root().join("etc")).unwrap();
        std::fs::create_dir_all(bench.repository()).unwrap();
        bench.git(&["init", "-q", "-b", "main"]);
        bench.write("roster.yaml", &format!("web1:\n  host: local\n  root: {}\n", bench.root().display()));
        bench.write("states/top.sls", "base:\n  '*': [main]\n");
        for (path, text) in files {
            bench.write(path, text);
        }
        bench.git(&["add", "-A"]);
        bench.git(&["commit", "-q", "-m", "first"]);
        bench
    }

    fn repository(&self) -> PathBuf {
        self.folder.path().join("salt")
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn write(&self, path: &str, text: &str) {
        let file = self.repository().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }

    fn read(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.root().join(path)).ok()
    }

    fn git(&self, args: &[&str]) {
        let mut git = Command::new("git");
        git.arg("-C").arg(self.repository()).args(["-c", "user.name=t", "-c", "user.email=t@localhost"]).args(args);
        assert!(git.output().unwrap().status.success(), "git {args:?}");
    }

    /// These hosts besides, each with a folder as its root.
    fn more(self, hosts: &[&str]) -> Bench {
        let mut roster = std::fs::read_to_string(self.repository().join("roster.yaml")).unwrap();
        for host in hosts {
            std::fs::create_dir_all(self.host(host).join("etc")).unwrap();
            roster += &format!("{host}:\n  host: local\n  root: {}\n", self.host(host).display());
        }
        self.write("roster.yaml", &roster);
        self
    }

    /// A host that nobody answers for.
    fn dead(self) -> Bench {
        let roster = std::fs::read_to_string(self.repository().join("roster.yaml")).unwrap();
        self.write("roster.yaml", &format!("{roster}dead:\n  host: 127.0.0.1\n  port: 1\n  user: root\n"));
        self
    }

    fn host(&self, name: &str) -> PathBuf {
        if name == "web1" { self.root() } else { self.folder.path().join(name) }
    }

    fn basalt(&self, args: &[&str]) -> Said {
        self.command(args).output().unwrap().into()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_basalt"));
        command.args(args).current_dir(self.repository()).env_remove("BASALT_REPO").env_remove("BASALT_ROSTER");
        for (name, place) in [("XDG_STATE_HOME", "state"), ("XDG_CACHE_HOME", "cache"), ("XDG_CONFIG_HOME", "config")] {
            command.env(name, self.folder.path().join(place));
        }
        // One agent for all tests of this file.
        command.env("BASALT_CACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("agents"));
        command
    }

    /// Plan and apply refuse with this code and say all of this; the host stays empty.
    #[track_caller]
    fn refused(&self, code: i32, words: &[&str]) {
        for args in [&["plan"][..], &["apply", "--yes"]] {
            self.basalt(args).is(code, words);
        }
        assert_eq!(std::fs::read_dir(self.root().join("etc")).unwrap().count(), 0, "something was done all the same");
    }
}

impl From<Output> for Said {
    fn from(Output { status, stdout, stderr }: Output) -> Said {
        Said { code: status.code(), text: format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)) }
    }
}

impl Said {
    #[track_caller]
    fn is(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.text);
        for word in words {
            assert!(self.text.contains(word), "{word:?} is not in:\n{}", self.text);
        }
    }
}

/// A file that would be made first, so that a half-done apply shows.
const FIRST: &str = "/etc/first:\n  file.managed:\n    - contents: first\n";

#[test]
fn broken_yaml_names_its_place() {
    let sls = format!("{FIRST}/etc/second:\n  file.managed:\n    - contents: [a, b\n    - mode: '0644'\n");
    Bench::new(&[("states/main.sls", &sls)]).refused(1, &["states/main.sls", "web1"]);
}

#[test]
fn a_duplicate_key_names_its_place() {
    let sls = format!("{FIRST}/etc/second:\n  file.managed: []\n/etc/first:\n  file.absent: []\n");
    Bench::new(&[("states/main.sls", &sls)]).refused(1, &["states/main.sls:6", "/etc/first"]);
}

#[test]
fn a_broken_template_names_template_line_and_column() {
    let sls = format!("{FIRST}{{% if grains['id'] %}}\n/etc/second:\n  file.managed: []\n");
    Bench::new(&[("states/main.sls", &sls)]).refused(1, &["states/main.sls:"]);
    let undefined = format!("{FIRST}/etc/second:\n  file.managed:\n    - contents: {{{{ pillar['nope'] }}}}\n");
    Bench::new(&[("states/main.sls", &undefined)]).refused(1, &["states/main.sls:6", "nope"]);
}

#[test]
fn an_unknown_state_or_argument_names_the_nearest() {
    let state = format!("{FIRST}/etc/second:\n  file.manged: []\n");
    Bench::new(&[("states/main.sls", &state)]).refused(1, &["file.manged", "file.managed", "states/main.sls:5:3"]);
    let argument = format!("{FIRST}/etc/second:\n  file.managed:\n    - contnets: x\n");
    Bench::new(&[("states/main.sls", &argument)]).refused(1, &["contnets", "contents", "states/main.sls"]);
}

#[test]
fn a_missing_source_names_what_was_wanted() {
    let sls = format!("{FIRST}/etc/second:\n  file.managed:\n    - source: salt://files/nginx.cnf\n");
    let bench = Bench::new(&[("states/main.sls", &sls), ("states/files/nginx.conf", "x\n")]);
    bench.refused(1, &["salt://files/nginx.cnf", "salt://files/nginx.conf"]);
    let sls = format!("include:\n  - nothere\n{FIRST}");
    Bench::new(&[("states/main.sls", &sls)]).refused(1, &["nothere", "states/main.sls"]);
}

#[test]
fn a_cycle_is_printed_whole() {
    let sls = "/etc/a:\n  file.managed:\n    - require: [{file: /etc/b}]\n/etc/b:\n  file.managed:\n    - require: [{file: /etc/c}]\n\
               /etc/c:\n  file.managed:\n    - require: [{file: /etc/a}]\n";
    Bench::new(&[("states/main.sls", sls)])
        .refused(1, &["/etc/a", "/etc/b", "/etc/c", "states/main.sls:1", "states/main.sls:4", "states/main.sls:7"]);
}

#[test]
fn an_id_that_stands_twice_names_both_places() {
    let bench = Bench::new(&[
        ("states/main.sls", "include:\n  - other\n/etc/x:\n  file.managed: []\n"),
        ("states/other.sls", "/etc/x:\n  file.absent: []\n"),
    ]);
    bench.refused(1, &["/etc/x", "main", "other"]);
}

#[test]
fn a_requisite_that_matches_nothing_is_refused() {
    let sls = format!("{FIRST}/etc/second:\n  file.managed:\n    - require:\n      - file: /etc/frist\n");
    Bench::new(&[("states/main.sls", &sls)]).refused(1, &["/etc/frist", "states/main.sls"]);
}

#[test]
fn a_target_a_commit_and_a_repository_that_are_not_there_are_named() {
    let bench = Bench::new(&[("states/main.sls", FIRST)]);
    bench.basalt(&["plan", "wbe1"]).is(1, &["wbe1", "did you mean \"web1\""]);
    bench.basalt(&["plan", "--commit", "nope"]).is(1, &["nope"]);
    bench.basalt(&["plan", "--repo", "/nonexistent"]).is(1, &["/nonexistent"]);
    bench.basalt(&["plan", "-G", "-E", "x"]).is(1, &["cannot be used with"]);
    bench.basalt(&["rollback", "--run", "20200101-0000-aaaa", "--yes"]).is(1, &["20200101-0000-aaaa"]);
    bench.basalt(&["show", "run", "20200101-0000-aaaa"]).is(1, &["20200101-0000-aaaa"]);
}

#[test]
fn settings_and_rosters_are_checked() {
    let bench = Bench::new(&[("states/main.sls", FIRST)]);
    bench.write("basalt.yaml", "paralel: 3\n");
    bench.basalt(&["plan"]).is(1, &["basalt.yaml:1", "paralel", "parallel"]);
    bench.write("basalt.yaml", "parallel: 3\n");
    bench.write("roster.yaml", "web1:\n  hots: 192.0.2.1\n");
    bench.basalt(&["plan"]).is(1, &["roster.yaml", "hots", "host"]);
}

#[test]
fn without_a_terminal_and_without_yes_nothing_happens() {
    let bench = Bench::new(&[("states/main.sls", FIRST)]);
    bench.basalt(&["apply"]).is(1, &["--yes"]);
    assert_eq!(bench.read("etc/first"), None);
}

#[test]
fn a_saved_plan_of_another_tree_or_host_is_stale() {
    let bench = Bench::new(&[("states/main.sls", FIRST)]);
    let plan = bench.folder.path().join("plan");
    let plan = plan.to_str().unwrap();
    // Of a dirty work tree that has changed since.
    bench.write("states/main.sls", &format!("{FIRST}# edited\n"));
    bench.basalt(&["plan", "-o", plan]).is(0, &["Saved."]);
    bench.write("states/main.sls", &format!("{FIRST}# edited again\n"));
    bench.basalt(&["apply", "--yes", "--plan", plan]).is(5, &["tree"]);
    // Of another host that answers to the same name.
    bench.basalt(&["plan", "-o", plan]).is(0, &["Saved."]);
    std::fs::write(bench.root().join("etc/machine-id"), "11111111111111111111111111111111\n").unwrap();
    bench.basalt(&["apply", "--yes", "--plan", plan]).is(5, &["another machine"]);
    assert_eq!(bench.read("etc/first"), None);
}

#[test]
fn a_damaged_journal_is_told_and_stops_nobody_but_its_own_rollback() {
    let bench = Bench::new(&[("states/main.sls", FIRST)]);
    bench.basalt(&["apply", "--yes"]).is(0, &["ok="]);
    let runs = bench.root().join("var/lib/basalt/runs");
    let run = std::fs::read_dir(&runs).unwrap().next().unwrap().unwrap().path();
    let journal = run.join("journal");
    let whole = std::fs::read(&journal).unwrap();
    // A torn tail, as a power cut leaves it: what is whole counts.
    std::fs::write(&journal, &whole[..whole.len() - 10]).unwrap();
    bench.basalt(&["plan"]).is(0, &["No changes"]);
    bench.basalt(&["rollback", "--yes"]).is(0, &["taken back"]);
    assert_eq!(bench.read("etc/first"), None);
    // Damage in the middle: never guessed at.
    bench.basalt(&["apply", "--yes"]).is(0, &["ok="]);
    for entry in std::fs::read_dir(&runs).unwrap() {
        let journal = entry.unwrap().path().join("journal");
        let mut bytes = std::fs::read(&journal).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x15;
        std::fs::write(&journal, bytes).unwrap();
    }
    let said = bench.basalt(&["rollback", "--yes"]);
    assert!(matches!(said.code, Some(1 | 3)), "{}", said.text);
    assert!(said.text.contains("damaged"), "{}", said.text);
    assert_eq!(bench.read("etc/first").as_deref(), Some("first\n"));
}

#[test]
fn a_path_that_leaves_the_roots_is_not_there() {
    let sls = format!("{FIRST}/etc/second:\n  file.managed:\n    - source: salt://../../secret\n");
    let bench = Bench::new(&[("states/main.sls", &sls)]);
    std::fs::write(bench.folder.path().join("secret"), "secret\n").unwrap();
    bench.refused(1, &["secret"]);
}

/// A host whose agent cannot plan is not forgotten because the others went well; a saved plan is for all its hosts or for none.
#[test]
fn a_host_that_cannot_be_planned_is_a_failure_and_no_saved_plan_goes_past_it() {
    let bench = Bench::new(&[("states/main.sls", FIRST)]).more(&["web2"]);
    let plan = bench.folder.path().join("plan");
    let plan = plan.to_str().unwrap();
    bench.basalt(&["plan", "-o", plan]).is(0, &["on 2 hosts"]);
    std::fs::create_dir_all(bench.root().join("var/lib/basalt")).unwrap();
    std::fs::write(bench.root().join("var/lib/basalt/runs"), "no folder").unwrap();
    bench.basalt(&["apply", "--yes", "--plan", plan]).is(3, &["not every host of the saved plan"]);
    assert!(!bench.host("web2").join("etc/first").exists());
    bench.basalt(&["plan"]).is(3, &["on 1 host;"]);
    bench.basalt(&["apply", "--yes"]).is(3, &["web2  ok=0 changed=1", "web1  ok=0 changed=0 failed=1"]);
    bench.basalt(&["runs"]).is(0, &["failed       2 hosts"]);
}

/// Time that is over is not success, and is not blamed on the user.
#[test]
fn a_run_whose_time_is_over_has_failed() {
    let sls = "/etc/slow:\n  file.managed:\n    - contents: x\n    - retry: {attempts: 3, until: False, interval: 20}\n\
               /etc/last:\n  file.managed:\n    - contents: x\n";
    let bench = Bench::new(&[("states/main.sls", sls)]);
    let apply: Said = bench.command(&["apply", "--yes"]).env("BASALT_RUN_TIMEOUT", "3").output().unwrap().into();
    apply.is(3, &["when the time of this run was over", "skipped"]);
    assert!(!apply.text.contains("by the user"), "{}", apply.text);
    assert_eq!((bench.read("etc/slow").as_deref(), bench.read("etc/last")), (Some("x\n"), None));
    bench.basalt(&["runs"]).is(0, &["stopped"]);
}

/// Hosts that come later have their time for themselves.
#[test]
fn a_host_is_not_charged_for_the_batches_before_it() {
    let sls = "/etc/slow:\n  file.managed:\n    - contents: x\n    - retry: {attempts: 2, until: False, interval: 2}\n\
               /etc/last:\n  file.managed:\n    - contents: x\n";
    let bench = Bench::new(&[("states/main.sls", sls)]).more(&["web2", "web3"]);
    let apply: Said = bench.command(&["apply", "--yes", "--batch", "1"]).env("BASALT_RUN_TIMEOUT", "5").output().unwrap().into();
    apply.is(0, &["web3  ok=0 changed=2"]);
}

/// A signal does not keep a failed run from being taken back, and what is not taken back is not called so.
#[test]
fn a_failed_run_is_taken_back_after_an_interrupt_too() {
    let sls = format!(
        "{FIRST}/etc/none/second:\n  file.managed:\n    - contents: x\n    - retry: {{attempts: 2, interval: 20}}\n/etc/last:\n  \
         file.managed:\n    - contents: x\n"
    );
    let bench = Bench::new(&[("states/main.sls", &sls)]);
    let mut command = bench.command(&["apply", "--yes", "--rollback-on-failure"]);
    let child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    while bench.read("etc/first").is_none() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    let id = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    Said::from(child.wait_with_output().unwrap()).is(130, &["taken back"]);
    assert_eq!(bench.read("etc/first"), None);
    bench.basalt(&["runs"]).is(0, &["rolled back", "failed"]);
}

/// What could not be taken back where a host was away is taken back when it is there again.
#[test]
fn a_rollback_goes_on_where_it_could_not_reach() {
    let bench = Bench::new(&[("states/main.sls", FIRST)]).more(&["web2"]);
    bench.basalt(&["apply", "--yes"]).is(0, &["web2  ok=0 changed=1"]);
    bench.basalt(&["rollback", "--yes", "web2"]).is(0, &["taken back"]);
    let rest = bench.basalt(&["rollback", "--yes"]);
    rest.is(0, &["web1: run", "taken back"]);
    assert_eq!(bench.read("etc/first"), None);
    bench.basalt(&["rollback", "--yes"]).is(1, &["there is no run to take back"]);
}

/// Whether a host is meant that cannot be asked, nobody knows: it is told, and the exit code tells it too.
#[test]
fn a_target_by_grain_tells_of_hosts_that_cannot_be_asked() {
    let bench = Bench::new(&[("states/main.sls", FIRST)]).dead();
    bench.basalt(&["plan", "-G", "id:web1"]).is(4, &["dead", "refuses the connection", "on 1 host;"]);
    let none = bench.basalt(&["plan", "-G", "id:nobody"]);
    none.is(4, &["dead", "refuses the connection"]);
}

/// Counts say of how many hosts they speak; a host without states is not called as described.
#[test]
fn summaries_count_what_they_name() {
    let top = "base:\n  'web1': [main]\n";
    let bench = Bench::new(&[("states/main.sls", FIRST), ("states/top.sls", top)]).more(&["web2"]).dead();
    bench.basalt(&["plan"]).is(4, &["on 2 hosts; 0 unchanged. Nothing can be planned on 1 of 3 hosts. 1 host has no states"]);
    bench.basalt(&["apply", "--yes"]).is(4, &["dead  ok=0 changed=0 failed=0 skipped=0 unreachable=1"]);
    bench.basalt(&["plan"]).is(4, &["No changes. 1 host is as described. Nothing can be planned on 1 of 3 hosts. 1 host has no states"]);
    bench.basalt(&["rollback", "--yes"]).is(4, &["1 to remove on 1 host;"]);
}

/// Who reads the first lines only does not break a run off.
#[test]
fn a_reader_that_goes_away_does_not_end_a_run() {
    let sls = "/etc/slow:\n  file.managed:\n    - contents: x\n    - retry: {attempts: 2, until: False, interval: 1}\n\
               /etc/last:\n  file.managed:\n    - contents: x\n";
    let bench = Bench::new(&[("states/main.sls", sls)]);
    let mut child = bench.command(&["apply", "--yes"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("Run ") {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut lines, &mut line).unwrap() > 0);
    }
    drop(lines);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(bench.read("etc/last").as_deref(), Some("x\n"));
    bench.basalt(&["runs"]).is(0, &["changed"]);
}

/// A plan that was only half written is not to pass for a whole one.
#[test]
fn output_that_cannot_be_written_is_an_error() {
    let bench = Bench::new(&[("states/main.sls", FIRST)]);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let plan: Said = bench.command(&["plan", "--json"]).stdout(full).output().unwrap().into();
    plan.is(1, &["the output could not be written"]);
}

#[test]
fn explain_says_that_a_state_would_fail() {
    let bench = Bench::new(&[("states/main.sls", "/etc/none/x:\n  file.managed: []\n")]);
    bench.basalt(&["explain", "web1", "/etc/none/x"]).is(0, &["plan      would fail: ", "/etc/none"]);
}

/// Three hundred hosts and one mistake are one error.
#[test]
fn a_fault_that_hosts_share_is_told_once() {
    let bench = Bench::new(&[("states/main.sls", "{{ nope }}\n")]).more(&["web2", "web3"]);
    let plan = bench.basalt(&["plan"]);
    plan.is(1, &["web1, web2, web3\n  error: 'nope' is undefined"]);
    assert_eq!(plan.text.matches("is undefined").count(), 1, "{}", plan.text);
}

#[test]
fn a_damaged_record_hides_no_other_run() {
    let bench = Bench::new(&[("states/main.sls", FIRST)]);
    bench.basalt(&["apply", "--yes"]).is(0, &[]);
    let store = std::fs::read_dir(bench.folder.path().join("state/basalt")).unwrap().next().unwrap().unwrap().path();
    std::fs::write(store.join("runs/20200101-0000-aaaa"), "1\n{").unwrap();
    bench.basalt(&["runs"]).is(0, &["warning: the record of runs/20200101-0000-aaaa is damaged", "changed"]);
}
