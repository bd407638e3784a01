//! The engine on real hosts: from a commit to a plan, to facts, and back; and what must never happen on the way.

mod lab;

use lab::Lab;
use rustix::process::Signal;

const TOP: &str = "base:\n  '*':\n    - server\n";

/// A server's daily life: packages, configuration, a service, users, directories, text edits, a cron entry, guarded commands.
const SERVER: &str = r#"
{% set who = pillar['owner'] %}
tools:
  pkg.installed:
    - pkgs:
      - lab-tool
      - lab-service

/etc/lab-service.conf:
  file.managed:
    - source: salt://server/lab-service.conf.j2
    - template: jinja
    - require:
      - pkg: tools

lab-service:
  service.running:
    - enable: True
    - watch:
      - file: /etc/lab-service.conf

ops:
  group.present:
    - gid: 3100

{{ who }}:
  user.present:
    - uid: 2100
    - gid: ops
    - home: /home/{{ who }}
    - shell: /bin/bash
    - require:
      - group: ops

/home/{{ who }}/notes:
  file.managed:
    - contents:
      - kept by basalt
      - for {{ grains['id'] }}
    - user: {{ who }}
    - group: ops
    - mode: '0600'
    - require:
      - user: {{ who }}

/srv/data/deep:
  file.directory:
    - user: {{ who }}
    - group: ops
    - mode: '2770'
    - makedirs: True
    - require:
      - user: {{ who }}

/srv/current:
  file.symlink:
    - target: data/deep

/etc/tree:
  file.recurse:
    - source: salt://server/tree

a line in hosts:
  file.append:
    - name: /etc/hosts
    - text: 192.0.2.1 example.test

login.defs:
  file.replace:
    - name: /etc/login.defs
    - pattern: ^UMASK\s+.*$
    - repl: "UMASK\t\t027"

/etc/motd:
  file.absent: []

nightly:
  cron.present:
    - name: /usr/bin/true
    - identifier: nightly
    - user: root
    - minute: '5'
    - hour: '3'

stamp:
  cmd.run:
    - name: date > /var/lib/stamp
    - creates: /var/lib/stamp
    - undo: rm -f /var/lib/stamp
"#;

fn server(lab: &Lab) {
    lab.write("states/top.sls", TOP);
    lab.write("states/server/init.sls", SERVER);
    lab.write("states/server/lab-service.conf.j2", "interval = {{ pillar['interval'] }}\nhost = {{ grains['id'] }}\n");
    lab.write("states/server/tree/a.conf", "a\n");
    lab.write("states/server/tree/below/b.conf", "b\n");
    lab.write("pillar/top.sls", "base:\n  '*':\n    - data\n");
    lab.write("pillar/data.sls", "owner: alice\ninterval: 30\n");
    lab.commit("a server");
}

/// The main job, on three hosts.
#[test]
fn a_commit_becomes_a_fact_on_three_hosts_and_is_taken_back() {
    if !lab::required() {
        return;
    }
    let lab = Lab::hosts(3);
    server(&lab);
    let before: Vec<_> = lab.all().iter().map(|h| h.fingerprint_root()).collect();

    let plan = lab.basalt(["plan", "--detailed-exitcode"]).code(2);
    assert!(plan.stdout.contains("on 3 hosts"), "{plan}");
    for (host, then) in lab.all().iter().zip(&before) {
        then.assert_same(&host.fingerprint_root());
    }
    lab.basalt(["apply", "--yes"]).code(0).says("h3  ok=");
    lab.basalt(["plan", "--detailed-exitcode"]).code(0).says("No changes. 3 hosts are as described.");
    let host = &lab["h2"];
    assert_eq!(host.read("/home/alice/notes").as_deref(), Some("kept by basalt\nfor h2\n"));
    host.sh("systemctl is-active lab-service && systemctl is-enabled lab-service && dpkg -s lab-lib >/dev/null").ok();

    // Drift on one host: the plan shows exactly that.
    let applied: Vec<_> = lab.all().iter().map(|h| h.fingerprint_root()).collect();
    host.sh("echo rogue >> /etc/lab-service.conf").ok();
    let plan = lab.basalt(["plan", "--detailed-exitcode"]).code(2).says("-rogue").says("lab-service");
    assert!(plan.stdout.contains("h2\n") && !plan.stdout.contains("h1\n") && !plan.stdout.contains("h3\n"), "{plan}");
    lab.basalt(["apply", "--yes"]).code(0);
    for (host, then) in lab.all().iter().zip(&applied) {
        then.assert_same(&host.fingerprint_root());
    }

    // Both runs back: the hosts are what they were.
    lab.basalt(["rollback", "--yes"]).code(0);
    lab.basalt(["rollback", "--yes"]).code(0);
    for (host, then) in lab.all().iter().zip(&before) {
        then.assert_same(&host.fingerprint_root());
    }
    lab.basalt(["rollback", "--yes"]).code(1).complains("there is no run to take back");
}

/// The first plan of an empty host tells what the first apply does: the same set of states.
#[test]
fn what_is_planned_is_what_changes() {
    if !lab::required() {
        return;
    }
    let lab = Lab::hosts(1);
    server(&lab);
    let ids = |output: &lab::Output, kind: &str| -> Vec<String> {
        let lines = output.stdout.lines().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
        let mut ids: Vec<String> = lines
            .flat_map(|line| match line["type"].as_str() {
                Some("host_planned") if kind == "planned" => {
                    line["changes"].as_array().into_iter().flatten().map(|c| format!("{} {}", c["state"], c["id"])).collect::<Vec<_>>()
                }
                Some("state_done") if kind == "changed" && line["result"] == "changed" => vec![format!("{} {}", line["state"], line["id"])],
                _ => vec![],
            })
            .collect();
        ids.sort();
        ids
    };
    let planned = ids(&lab.basalt(["plan", "--json"]).ok(), "planned");
    let applied = lab.basalt(["apply", "--yes", "--json"]).ok();
    assert_eq!(planned, ids(&applied, "changed"));
    assert!(planned.len() >= 13, "{planned:?}");
    let plan = lab.basalt(["plan", "--json"]).ok();
    assert_eq!(ids(&plan, "planned"), [""; 0]);
}

/// A saved plan is applied exactly, or refused with nothing touched.
#[test]
fn a_saved_plan_is_exact_or_stale() {
    if !lab::required() {
        return;
    }
    let lab = Lab::light(2);
    lab.write("states/top.sls", "base:\n  '*': [one]\n");
    lab.write("states/one.sls", "/etc/one:\n  file.managed:\n    - contents: one\n");
    lab.commit("one");
    let plan = lab.state().join("../one.plan");
    let plan = plan.to_str().unwrap();
    lab.basalt(["plan", "-o", plan]).ok().says("Saved.");

    // Somebody else was there meanwhile: stale, and the other host is not touched either.
    lab["h1"].sh("echo other > /etc/one").ok();
    lab.basalt(["apply", "--yes", "--plan", plan]).code(5).complains("h1");
    assert_eq!(lab["h2"].read("/etc/one"), None);
    lab["h1"].sh("rm /etc/one").ok();

    // The work tree has moved on: the plan's own commit is applied.
    lab.write("states/one.sls", "/etc/one:\n  file.managed:\n    - contents: two\n");
    lab.commit("two");
    lab.basalt(["apply", "--yes", "--plan", plan]).ok();
    assert_eq!(lab["h2"].read("/etc/one").as_deref(), Some("one\n"));

    // Once more: another run has been there since.
    lab.basalt(["apply", "--yes", "--plan", plan]).code(5).complains("another run");

    // Truncated: known for what it is.
    let text = std::fs::read(plan).unwrap();
    std::fs::write(plan, &text[..text.len() / 2]).unwrap();
    lab.basalt(["apply", "--yes", "--plan", plan]).code(1).complains("no whole plan");
}

/// One run at a time on a host; the second is refused by name; no lock outlives its owner.
#[test]
fn a_second_run_is_refused_by_name_and_no_lock_outlives_its_owner() {
    if !lab::required() {
        return;
    }
    let lab = Lab::light(1);
    lab.write("states/top.sls", "base:\n  '*': [slow]\n");
    lab.write("states/slow.sls", "sleep 30:\n  cmd.run: []\n");
    lab.write("states/quick.sls", "/etc/quick:\n  file.managed:\n    - contents: quick\n");
    lab.commit("slow");
    let first = lab.spawn_basalt(["apply", "--yes"]);
    wait_for(|| lab["h1"].sh("pgrep -x sleep").code == Some(0));
    lab.basalt(["apply", "--yes", "--sls", "quick"]).code(6).says("holds this host");
    assert_eq!(lab["h1"].read("/etc/quick"), None);
    // A plan reads only and is not refused.
    lab.basalt(["plan", "--sls", "quick"]).ok();
    // The controller dies; its agent stops at the next state and the lock goes with it.
    first.signal(Signal::KILL);
    first.wait();
    lab["h1"].sh("pkill -x sleep").ok();
    lab.basalt(["apply", "--yes", "--sls", "quick", "--lock-timeout", "20"]).ok();
    assert_eq!(lab["h1"].read("/etc/quick").as_deref(), Some("quick\n"));
}

/// Ends the ssh masters that earlier commands left open, so that the next one connects anew.
fn forget_connections(lab: &Lab) {
    let _ = lab.run(["pkill", "-x", "ssh"]);
}

fn wait_for(mut holds: impl FnMut() -> bool) {
    for _ in 0..200 {
        if holds() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("it did not come to pass within ten seconds");
}

/// Canary, batches and the failure budget; and taking back what failed.
#[test]
fn a_failing_canary_leaves_the_others_alone_and_a_failed_run_can_take_itself_back() {
    if !lab::required() {
        return;
    }
    let lab = Lab::light(4);
    lab.write("states/top.sls", "base:\n  '*': [risky]\n");
    lab.write(
        "states/risky.sls",
        "/etc/risky:\n  file.managed:\n    - contents: new\ntest -e /etc/blessed:\n  cmd.run:\n    - require:\n      - file: /etc/risky\n",
    );
    lab.commit("risky");
    for host in ["h2", "h3", "h4"] {
        lab[host].sh("touch /etc/blessed").ok();
    }
    lab.basalt(["apply", "--yes", "--canary", "1"]).code(3).says("canaries failed");
    assert_eq!((lab["h1"].read("/etc/risky").is_some(), lab["h2"].read("/etc/risky")), (true, None));
    lab.basalt(["rollback", "--yes"]).ok();
    assert_eq!(lab["h1"].read("/etc/risky"), None);
    lab.basalt(["apply", "--yes", "--batch", "2", "--max-failures", "0"]).code(3);
    assert_eq!((lab["h2"].read("/etc/risky").is_some(), lab["h3"].read("/etc/risky")), (true, None));
    lab.basalt(["rollback", "--yes"]).ok();
    lab.basalt(["apply", "--yes", "--rollback-on-failure"]).code(7);
    for host in lab.all() {
        assert_eq!(host.read("/etc/risky"), None, "{}", host.name());
    }
}

/// A failed requisite skips what depends on it and says so; a restart that a dead run owed is done by the next.
#[test]
fn failures_skip_what_depends_on_them_and_an_owed_restart_is_not_lost() {
    if !lab::required() {
        return;
    }
    let lab = Lab::hosts(1);
    let host = &lab["h1"];
    lab.write("states/top.sls", "base:\n  '*': [web]\n");
    let web = |contents: &str, gate: &str| {
        format!(
            "/etc/lab-service.conf:\n  file.managed:\n    - contents: {contents}\n    - require:\n      - pkg: lab-service\n\
             gate:\n  cmd.run:\n    - name: {gate}\n    - unless: test -e /etc/open\n    - failhard: True\n    - require:\n      - file: /etc/lab-service.conf\n\
             lab-service:\n  pkg.installed: []\n  service.running:\n    - watch:\n      - file: /etc/lab-service.conf\n    - require:\n      - cmd: gate\n"
        )
    };
    lab.write("states/web.sls", &web("one", "touch /etc/open"));
    lab.commit("one");
    lab.basalt(["apply", "--yes"]).ok();
    let started = || host.sh("systemctl show -p ExecMainStartTimestampMonotonic lab-service").ok().stdout;
    let first = started();
    // The gate closes: the file changes, the command fails, the service is skipped.
    host.sh("rm /etc/open").ok();
    lab.write("states/web.sls", &web("two", "'false'"));
    lab.commit("two");
    lab.basalt(["apply", "--yes"]).code(3).says("skipped");
    assert_eq!(started(), first);
    // The gate opens: nothing else would change, and the restart is still owed.
    host.sh("touch /etc/open").ok();
    lab.basalt(["plan", "--detailed-exitcode"]).code(2).says("owed");
    lab.basalt(["apply", "--yes"]).ok();
    assert_ne!(started(), first);
    lab.basalt(["plan", "--detailed-exitcode"]).code(0);
}

/// Ctrl-C stops at the next state and leaves a true journal.
#[test]
fn an_interrupt_stops_at_the_next_state() {
    if !lab::required() {
        return;
    }
    let lab = Lab::light(1);
    lab.write("states/top.sls", "base:\n  '*': [long]\n");
    lab.write(
        "states/long.sls",
        "/etc/first:\n  file.managed:\n    - contents: first\nsleep 3:\n  cmd.run: []\n/etc/last:\n  file.managed:\n    - contents: last\n",
    );
    lab.commit("long");
    let running = lab.spawn_basalt(["apply", "--yes"]);
    wait_for(|| lab["h1"].sh("pgrep -x sleep").code == Some(0));
    running.signal(Signal::INT);
    running.wait().code(130);
    assert_eq!((lab["h1"].read("/etc/first").is_some(), lab["h1"].read("/etc/last")), (true, None));
    lab.basalt(["rollback", "--yes"]).ok();
    assert_eq!(lab["h1"].read("/etc/first"), None);
}

/// Files before and after a state that takes long, for what happens in the middle of a run.
fn long(lab: &Lab, seconds: u32) {
    lab.write("states/top.sls", "base:\n  '*': [long]\n");
    lab.write(
        "states/long.sls",
        &format!(
            "/etc/first:\n  file.managed:\n    - contents: first\n/etc/hosts:\n  file.append:\n    - text: 192.0.2.9 added\n\
             sleep {seconds}:\n  cmd.run: []\n/etc/last:\n  file.managed:\n    - contents: last\n"
        ),
    );
    lab.commit("long");
}

/// The power goes in the middle of a run: what the journal says was synced before it was done, so the way back is there after the boot.
#[test]
fn a_power_cut_in_the_middle_is_taken_back() {
    if !lab::required() {
        return;
    }
    let lab = Lab::start(vec![lab::Spec::light("h1").disk("64m")]);
    let host = &lab["h1"];
    host.sh("sync").ok();
    let before = host.fingerprint_root();
    long(&lab, 30);
    let running = lab.spawn_basalt(["apply", "--yes"]);
    wait_for(|| host.sh("pgrep -x sleep").code == Some(0));
    host.power_cut();
    drop(running);
    host.boot();
    forget_connections(&lab);
    lab.basalt(["plan"]).ok().says("was broken off");
    lab.basalt(["rollback", "--yes"]).ok();
    before.assert_same(&host.fingerprint_root());
    lab.basalt(["plan", "--detailed-exitcode"]).code(2).says("/etc/first");
}

/// The network goes in the middle of a run: the controller gives the host up after its silence; the journal is true and the way back is there.
#[test]
fn a_connection_cut_in_the_middle_is_survived() {
    if !lab::required() {
        return;
    }
    let lab = Lab::light(2);
    let host = &lab["h1"];
    let before = host.fingerprint_root();
    long(&lab, 3);
    let running = lab.spawn_basalt(["apply", "--yes"]);
    wait_for(|| host.sh("pgrep -x sleep").code == Some(0));
    host.link_down();
    let applied = running.wait().code(4);
    assert!(applied.stdout.contains("h2  ok="), "the other host was held up: {applied}");
    host.link_up();
    forget_connections(&lab);
    lab.basalt(["rollback", "--yes"]).ok();
    before.assert_same(&host.fingerprint_root());
}

/// Hosts that cannot be worked on: each says why, none holds the others up, nothing is half done.
#[test]
fn hosts_that_cannot_be_worked_on_say_why_and_hold_nobody_up() {
    if !lab::required() {
        return;
    }
    let mut specs: Vec<lab::Spec> = (1..=2).map(|i| lab::Spec::light(&format!("h{i}"))).collect();
    specs.push(lab::Spec::light("full").disk("8m"));
    specs.push(lab::Spec::light("frozen").read_only());
    let lab = Lab::start(specs);
    lab.write("states/top.sls", "base:\n  '*': [one]\n");
    lab.write("states/one.sls", "/etc/one:\n  file.managed:\n    - source: salt://one.txt\n");
    lab.write("states/one.txt", &"0123456789abcdef\n".repeat(4096));
    lab.commit("one");

    // A host that is cut off delays nobody for longer than its connection timeout.
    lab["h2"].link_down();
    let apply = lab.basalt(["apply", "--yes", "h*"]).code(4);
    assert!(apply.stdout.contains("h1  ok=") && lab["h1"].read("/etc/one").is_some(), "{apply}");
    lab["h2"].link_up();
    lab.basalt(["apply", "--yes", "h2"]).ok();

    // A changed host key is refused, by the user's own known_hosts.
    lab["h1"].sh("rm /etc/ssh/ssh_host_*; ssh-keygen -A >/dev/null").ok();
    lab["h1"].restart();
    forget_connections(&lab);
    let plan = lab.basalt(["plan", "h1"]).code(4);
    assert!(plan.stdout.to_lowercase().contains("host key"), "{plan}");

    // A root that cannot be written: the state fails and says so. (The agent itself found another place.)
    let apply = lab.basalt(["apply", "--yes", "frozen"]);
    assert!(matches!(apply.code, Some(3 | 4)), "{apply}");
    assert!(apply.stdout.to_lowercase().contains("read-only"), "{apply}");

    // A full disk: the old file is whole, the error names it.
    lab["full"].sh("echo old > /etc/one; dd if=/dev/zero of=/filler bs=4k 2>/dev/null; true").ok();
    let apply = lab.basalt(["apply", "--yes", "full"]);
    assert!(matches!(apply.code, Some(3 | 4)), "{apply}");
    assert!(apply.stdout.to_lowercase().contains("no space"), "{apply}");
    assert_eq!(lab["full"].read("/etc/one").as_deref(), Some("old\n"));
}
