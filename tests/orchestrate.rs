//! Orchestration on real hosts: jobs in order, failures and their compensation, going on where it stopped, taking all of it back.

mod lab;

use lab::Lab;
use rustix::process::Signal;

const ROLLOUT: &str = r#"
storage:
  salt.state:
    - tgt: h1
    - sls: store

{% for id in ['h2', 'h3'] %}
front {{ id }}:
  salt.state:
    - tgt: {{ id }}
    - sls: front
    - pillar:
        backend: {{ salt['pillar.get']('backend', 'h1') }}
    - require:
      - salt: storage
{% endfor %}

look:
  salt.function:
    - name: file.read
    - tgt: 'h[23]'
    - arg:
      - /etc/front
    - require:
      - salt: front h2
      - salt: front h3

undo:
  salt.state:
    - tgt: h1
    - sls: sorry
    - onfail:
      - salt: front h2
"#;

fn rollout() -> Lab {
    let lab = Lab::light(3);
    lab.write("orchestration/rollout.sls", ROLLOUT);
    lab.write("states/top.sls", "base: {}\n");
    lab.write("states/store.sls", "/etc/store:\n  file.managed:\n    - contents: store\n");
    lab.write("states/front.sls", "/etc/front:\n  file.managed:\n    - contents: to {{ pillar['backend'] }}\n");
    lab.write("states/sorry.sls", "/etc/sorry:\n  file.managed:\n    - contents: sorry\n");
    lab.commit("a rollout");
    lab
}

/// The run that the closing line names.
fn run_of(output: &lab::Output) -> String {
    let line = output.stdout.lines().find(|line| line.starts_with("Orchestration ")).unwrap();
    line.split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn jobs_go_in_order_and_all_of_it_is_taken_back_as_one() {
    if !lab::required() {
        return;
    }
    let lab = rollout();
    let before: Vec<_> = lab.all().iter().map(|host| host.fingerprint_root()).collect();
    lab.basalt(["orchestrate", "orchestration.rollout", "--test"])
        .ok()
        .says("+store")
        .says("+to h1")
        .says("would call file.read on h2, h3")
        .says("skipped  undo");
    for (host, then) in lab.all().iter().zip(&before) {
        then.assert_same(&host.fingerprint_root());
    }
    let done = lab.basalt(["orchestrate", "orchestration.rollout", "--yes", "--pillar", "{\"backend\": \"h9\"}"]).ok();
    let done =
        done.says("changed  storage").says("changed  front h3").says("to h9").says("skipped  undo  (nothing failed that it waits for)");
    assert_eq!(lab["h3"].read("/etc/front").as_deref(), Some("to h9\n"));
    let again = lab.basalt(["orchestrate", "orchestration.rollout", "--yes", "--pillar", "{\"backend\": \"h9\"}"]).ok();
    let again = again.says("ok  storage").says("ok  front h3");
    assert!(!again.stdout.contains("Run "), "nothing was left to change: {again}");
    lab.basalt(["rollback", "--run", &run_of(&done), "--yes"]).ok().says("3 runs").says("h1: run").says("h3: run");
    for (host, then) in lab.all().iter().zip(&before) {
        then.assert_same(&host.fingerprint_root());
    }
}

#[test]
fn a_failure_stops_what_requires_it_and_starts_what_makes_up_for_it_and_is_gone_on_with() {
    if !lab::required() {
        return;
    }
    let lab = rollout();
    // A directory where a file is to be: the job on h2 fails.
    lab["h2"].sh("mkdir /etc/front").ok();
    let failed = lab.basalt(["orchestrate", "orchestration.rollout", "--yes"]).code(3);
    let failed = failed
        .says("failed  front h2")
        .says("changed  front h3")
        .says("skipped  look  (required jobs failed: front h2)")
        .says("changed  undo");
    assert_eq!(lab["h1"].read("/etc/sorry").as_deref(), Some("sorry\n"));

    // Mended, it goes on: what was done is not done again.
    lab["h2"].sh("rmdir /etc/front").ok();
    let run = run_of(&failed);
    let resumed = lab.basalt(["orchestrate", "--resume", &run, "--yes"]).ok();
    resumed.says("changed  storage  (done before)").says("changed  front h2").says("look");
    assert_eq!(lab["h2"].read("/etc/front").as_deref(), Some("to h1\n"));
    lab.basalt(["rollback", "--run", &run, "--yes"]).ok();
    for path in ["/etc/store", "/etc/front", "/etc/sorry"] {
        assert!(lab.all().iter().all(|host| host.read(path).is_none()), "{path}");
    }
}

#[test]
fn runs_are_taken_back_in_the_order_in_which_they_were_made() {
    if !lab::required() {
        return;
    }
    let lab = rollout();
    let job = |id: &str| format!("{id}:\n  salt.state:\n    - tgt: h1\n    - sls: {id}\n");
    lab.write("orchestration/order.sls", &[job("gated"), job("other")].concat());
    lab.write(
        "states/gated.sls",
        "/etc/gate:\n  file.managed:\n    - contents: g\n/etc/x:\n  file.managed:\n    - contents: gated\n    - require: [{file: /etc/gate}]\n",
    );
    lab.write("states/other.sls", "/etc/x:\n  file.managed:\n    - contents: other\n");
    lab.commit("two that write one file");
    let before = lab["h1"].fingerprint_root();
    lab["h1"].sh("mkdir /etc/gate").ok();
    let failed = lab.basalt(["orchestrate", "orchestration.order", "--yes"]).code(3).says("failed  gated").says("changed  other");
    lab["h1"].sh("rmdir /etc/gate").ok();
    // The first job changes the file behind the second.
    lab.basalt(["orchestrate", "--resume", &run_of(&failed), "--yes"]).ok().says("changed  gated").says("changed  other  (done before)");
    assert_eq!(lab["h1"].read("/etc/x").as_deref(), Some("gated\n"));
    lab.basalt(["rollback", "--run", &run_of(&failed), "--yes"]).ok();
    before.assert_same(&lab["h1"].fingerprint_root());
}

#[test]
fn a_controller_killed_in_the_middle_goes_on_where_it_was() {
    if !lab::required() {
        return;
    }
    let lab = rollout();
    lab.write("states/front.sls", "wait:\n  cmd.run:\n    - name: touch /run/begun; while [ ! -e /run/go ]; do sleep 0.1; done; touch /run/waited\n    - creates: /run/waited\n/etc/front:\n  file.managed:\n    - contents: x\n");
    lab.commit("a slow one");
    let running = lab.spawn_basalt(["orchestrate", "orchestration.rollout", "--yes"]);
    lab["h2"].sh("while [ ! -e /run/begun ]; do sleep 0.1; done").ok();
    running.signal(Signal::KILL);
    let killed = running.wait();
    let run = run_of(&killed);
    lab.basalt(["runs"])
        .ok()
        .says(&format!("Orchestration {run} of orchestration.rollout is under way or was cut off, with 1 of 5 jobs done"));
    lab.all().iter().for_each(|host| drop(host.sh("touch /run/go").ok()));
    // The agent on h2 ends the command it is in, and lets go of the lock.
    let resumed = lab.basalt(["orchestrate", "--resume", &run, "--yes", "--lock-timeout", "30"]).ok();
    resumed.says("changed  storage  (done before)").says("changed  front h2").says("changed  front h3");
    assert_eq!(lab["h3"].read("/etc/front").as_deref(), Some("x\n"));
}

#[test]
fn one_that_is_interrupted_is_taken_back_and_one_that_loses_a_host_goes_on() {
    if !lab::required() {
        return;
    }
    let lab = rollout();
    let slow = "wait:\n  cmd.run:\n    - name: touch /run/begun; while [ ! -e /run/go ]; do sleep 0.1; done; touch /run/waited\n    - creates: /run/waited\n";
    lab.write("states/front.sls", &format!("{slow}/etc/front:\n  file.managed:\n    - contents: x\n"));
    lab.commit("a slow one");
    let before: Vec<_> = lab.all().iter().map(|host| host.fingerprint_root()).collect();
    let begun = "for i in $(seq 600); do [ -e /run/begun ] && exit 0; sleep 0.1; done; exit 1";
    let running = lab.spawn_basalt(["orchestrate", "orchestration.rollout", "--yes"]);
    lab["h2"].sh(begun).ok();
    running.signal(Signal::INT);
    lab["h2"].sh("touch /run/go").ok();
    let stopped = running.wait().code(130).says("Interrupted. `basalt orchestrate --resume");
    assert_eq!(lab["h1"].read("/etc/store").as_deref(), Some("store\n"));
    lab.basalt(["rollback", "--run", &run_of(&stopped), "--yes"]).ok();
    for (host, then) in lab.all().iter().zip(&before) {
        then.assert_same(&host.fingerprint_root());
    }

    lab["h2"].sh("rm -f /run/go /run/begun /run/waited").ok();
    lab["h3"].sh("touch /run/go").ok();
    let running = lab.spawn_basalt(["orchestrate", "orchestration.rollout", "--yes"]);
    lab["h2"].sh(begun).ok();
    lab["h2"].link_down();
    let lost = running.wait().code(4).says("failed  front h2").says("changed  front h3").says("changed  undo");
    lab["h2"].link_up();
    lab["h2"].sh("touch /run/go").ok();
    let resumed = lab.basalt(["orchestrate", "--resume", &run_of(&lost), "--yes", "--lock-timeout", "60"]).ok();
    // The agent on h2 may have gone on by itself until it noticed that nobody is there.
    resumed.says("changed  storage  (done before)").says("2/5 front h2").says("changed  front h3  (done before)");
    assert_eq!(lab["h2"].read("/etc/front").as_deref(), Some("x\n"));
}

#[test]
fn what_is_wrong_is_said_before_anything_is_done() {
    if !lab::required() {
        return;
    }
    let lab = rollout();
    lab.write(
        "orchestration/wrong.sls",
        "a:\n  salt.state:\n    - tgt: h1\n    - slss: store\nb:\n  salt.runner:\n    - name: cloud.profile\n",
    );
    lab.write("orchestration/nobody.sls", "a:\n  salt.state:\n    - tgt: nobody\n    - sls: store\n");
    lab.write("orchestration/state.sls", "/etc/x:\n  file.absent: []\n");
    lab.write("orchestration/within.sls", "inner:\n  salt.runner:\n    - name: state.orchestrate\n    - mods: orchestration.rollout\n");
    lab.commit("wrong ones");
    lab.basalt(["orchestrate", "orchestration.wrong", "--yes"]).code(1).complains("did you mean \"sls\"?").complains("cloud.profile");
    lab.basalt(["orchestrate", "orchestration.state", "--yes"]).code(1).complains("file.absent is no job of an orchestration");
    lab.basalt(["orchestrate", "orchestration.nobody", "--yes"]).code(3).says("no host matches \"nobody\"");
    lab.basalt(["orchestrate", "orchestration.gone", "--yes"]).code(1).complains("orchestration.gone");
    lab.basalt(["orchestrate", "--resume", "20200101-0000-aaaa", "--yes"]).code(1).complains("there was no orchestration");
    let within = lab.basalt(["orchestrate", "orchestration.within", "--yes"]).ok().says("changed  front h3").says("changed  inner");
    lab.basalt(["rollback", "--run", &run_of(&within), "--yes"]).ok().says("3 runs");
    assert_eq!(lab["h2"].read("/etc/front"), None);
}

#[test]
fn events_are_waited_for_while_other_runners_fire_them() {
    if !lab::required() {
        return;
    }
    let lab = rollout();
    lab.write("states/told.sls", "app/{{ grains['id'] }}/deployed:\n  event.send:\n    - data:\n        version: 3\n");
    lab.write("orchestration/sends.sls", "send:\n  salt.state:\n    - tgt: h1,h2\n    - tgt_type: list\n    - sls: told\n");
    lab.write(
        "orchestration/waits.sls",
        "both:\n  salt.wait_for_event:\n    - name: app/*/deployed\n    - id_list: [h1, h2]\n    - timeout: 60\n\
         run:\n  salt.wait_for_event:\n    - name: salt/job/*/ret/*\n    - id_list: [h2]\n    - timeout: 60\n    - require: [{salt: both}]\n\
         go:\n  salt.state:\n    - tgt: h3\n    - sls: store\n    - require: [{salt: run}]\n",
    );
    lab.write(
        "orchestration/all.sls",
        "all:\n  salt.parallel_runners:\n    - runners:\n        waiting:\n          - name: state.orchestrate\n          - kwarg: {mods: orchestration.waits}\n        \
         sending:\n          - name: state.orchestrate\n          - kwarg: {mods: orchestration.sends}\n\
         somebody:\n  salt.wait_for_event:\n    - name: ops/*\n    - event_id: answer\n    - id_list: [go on]\n    - timeout: 60\n    - require: [{salt: all}]\n",
    );
    lab.commit("events");
    lab.basalt(["orchestrate", "orchestration.all", "--test"])
        .ok()
        .says("would wait for app/*/deployed of h1, h2")
        .says("event app/h1/deployed")
        .says("changed  somebody  (would wait for ops/* of go on)");
    let running = lab.spawn_basalt(["orchestrate", "orchestration.all", "--yes"]);
    // The waiting one goes on when the other has sent, and only then.
    lab["h3"].sh("for i in $(seq 600); do [ -e /etc/store ] && exit 0; sleep 0.1; done; exit 1").ok();
    lab.basalt(["event", "send", "ops/other", "{answer: go on"]).code(1);
    lab.basalt(["event", "send", "ops/answer", "{answer: no}"]).ok();
    lab.basalt(["event", "send", "ops/answer", "{answer: go on}"]).ok().says("Fired ops/answer.");
    let done = running.wait().ok();
    let done = done.says("changed  both  (all events seen in").says("changed  all").says("changed  somebody");
    lab.basalt(["rollback", "--run", &run_of(&done), "--yes"]).ok();
    assert_eq!(lab["h3"].read("/etc/store"), None);

    // What was sent before it began does not count, and a runner that fails makes the job fail when all have come to their end.
    lab.basalt(["event", "send", "ops/answer", "{answer: go on}"]).ok();
    lab.write(
        "orchestration/late.sls",
        "late:\n  salt.wait_for_event:\n    - name: ops/*\n    - event_id: answer\n    - id_list: [go on]\n    - timeout: 1\n",
    );
    lab.write(
        "orchestration/two.sls",
        "two:\n  salt.parallel_runners:\n    - runners:\n        one: [{name: state.orchestrate}, {kwarg: {mods: orchestration.late}}]\n        \
         other: [{name: state.orchestrate}, {kwarg: {mods: orchestration.sends}}]\n",
    );
    lab.commit("too late");
    let late = lab.basalt(["orchestrate", "orchestration.two", "--yes"]).code(3);
    let late = late.says("timeout value reached: within 1 seconds no ops/* of go on").says("changed  other").says("(runner one failed)");
    // Gone on with, only the one that failed is begun again.
    let again = lab.basalt(["orchestrate", "--resume", &run_of(&late), "--yes"]).code(3);
    again.says("changed  other  (done before)").says("(runner one failed)");
}

#[test]
fn hosts_are_waited_for_until_they_have_started_anew() {
    if !lab::required() {
        return;
    }
    let lab = rollout();
    lab.write(
        "orchestration/reboot.sls",
        "down:\n  salt.function:\n    - name: cmd.run\n    - tgt: h1\n    - arg: [touch /run/down]\n\
         up:\n  salt.wait_for_event:\n    - name: salt/minion/*/start\n    - id_list: [h1, h2]\n    - timeout: 60\n    - require: [{salt: down}]\n\
         after:\n  salt.state:\n    - tgt: h1,h2\n    - tgt_type: list\n    - sls: store\n    - require: [{salt: up}]\n\
         again:\n  salt.wait_for_event:\n    - name: salt/minion/h2/start\n    - id_list: [h2]\n    - timeout: 3\n    - require: [{salt: after}]\n",
    );
    lab.commit("a reboot");
    let running = lab.spawn_basalt(["orchestrate", "orchestration.reboot", "--yes"]);
    lab["h1"].sh("for i in $(seq 600); do [ -e /run/down ] && exit 0; sleep 0.1; done; exit 1").ok();
    lab["h1"].restart();
    assert_eq!(lab["h1"].read("/etc/store"), None, "h2 has not started yet");
    lab["h2"].restart();
    // Each start counts once: h2 does not start another time.
    let done = running.wait().code(3);
    done.says("changed  up  (all events seen in").says("changed  after").says("no salt/minion/h2/start of h2");
    assert_eq!(lab["h2"].read("/etc/store").as_deref(), Some("store\n"));
}

#[test]
fn conditions_of_jobs_are_asked_of_the_controller() {
    if !lab::required() {
        return;
    }
    let lab = rollout();
    let file = |name: &str| lab.home().join(name).display().to_string();
    let (go, done) = (file("go"), file("done"));
    let job = |id: &str, more: &str| format!("{id}:\n  salt.state:\n    - tgt: h1\n    - sls: store\n{more}");
    let sls = [
        job("only", &format!("    - onlyif: test -e {go}\n")),
        job("not", "    - unless: 'true'\n"),
        job("there", &format!("    - creates: {go}.not\n    - onlyif:\n      - fun: file.file_exists\n        path: {go}\n")),
        job("checked", &format!("    - check_cmd: ['test -e {done}']\n    - retry: {{attempts: 3, interval: 1}}\n")),
        job("behind", "    - require: [{salt: checked}]\n"),
    ];
    lab.write("orchestration/conditions.sls", &sls.concat());
    lab.commit("conditions");
    let failed = lab.basalt(["orchestrate", "orchestration.conditions", "--yes"]).code(3);
    let failed = failed
        .says("skipped  only  (onlyif condition is false)")
        .says("skipped  not  (unless condition is true)")
        .says("skipped  there")
        .says("failed  checked  (check_cmd determined the state failed)")
        .says("skipped  behind  (required jobs failed: checked)");
    std::fs::write(&go, "").unwrap();
    std::fs::write(&done, "").unwrap();
    lab.basalt(["orchestrate", "--resume", &run_of(&failed), "--yes"])
        .ok()
        .says("ok  only")
        .says("ok  there")
        .says("checked  (check_cmd determined the state succeeded)")
        .says("ok  behind");
}

/// The sample's orchestration: that of the Eos design, with the words that its text has lost.
const NODE_ADDITION: &str = include_str!("../orchestration/node_addition.sls");

#[test]
fn the_orchestration_of_the_eos_design_runs_as_it_is() {
    if !lab::required() {
        return;
    }
    let lab = Lab::light(3);
    std::fs::remove_file(lab.state().join("roster.yaml")).unwrap();
    lab.write("states/top.sls", "base: {}\n");
    for role in ["edge", "core", "data"] {
        lab.write(&format!("roles/{role}.sls"), &format!("/etc/role:\n  file.managed:\n    - contents: {role}\n"));
    }
    let shown = |what: &str| {
        format!("/etc/{what}:\n  file.managed:\n    - contents: {{{{ pillar.get('role', 'all') }}}} {{{{ pillar['scale'] }}}}\n")
    };
    lab.write("states/storage/config.sls", &shown("config"));
    lab.write("states/storage/thresholds.sls", &shown("thresholds"));
    lab.write("orchestration/node_addition.sls", NODE_ADDITION);
    for (number, id) in ["h1", "h2", "h3"].iter().enumerate() {
        let role = ["role: monolith\n", "", ""][number];
        let address = lab[*id].address();
        lab.write(&format!("nodes/{id}.yaml"), &format!("host: {address}\n{role}joined: 2026-11-20 0{number}:00:00 UTC\n"));
    }
    lab.commit("three nodes");
    let new_node = r#"{"new_node": {"hostname": "h3", "preferred_role": "data"}}"#;
    lab.basalt(["orchestrate", "orchestration.node_addition", "--yes", "--pillar", new_node])
        .ok()
        .says("ok  accept_new_node  (h3 is a host that is known)")
        .says("changed  update_h3_role")
        .says("changed  update_storage_thresholds");
    let all = |path: &str| lab.all().iter().map(|host| host.read(path).unwrap_or_default()).collect::<String>();
    assert_eq!(all("/etc/role"), "edge\ncore\ndata\n");
    assert_eq!(all("/etc/config"), "edge small\ncore small\ndata small\n");
    assert_eq!(all("/etc/thresholds"), "all small\n".repeat(3));
    // Who is not known is not accepted.
    let stranger = r#"{"new_node": {"hostname": "h9"}}"#;
    lab.basalt(["orchestrate", "orchestration.node_addition", "--yes", "--pillar", stranger])
        .code(1)
        .says("h9 is not known")
        .says("no SLS roles.app");
}
