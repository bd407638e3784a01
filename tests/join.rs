//! Machines that nobody knows become nodes: by a token, by somebody's yes; and what must not let them in.

mod lab;

use std::io::{BufRead, BufReader};

use lab::{Lab, Running};
use rustix::process::Signal;
use serde_json::Value;

const ROLE: &str = "/etc/role:\n  file.managed:\n    - contents: {{ grains['role'] }} at scale {{ grains['scale'] }}\n";

/// A cluster whose first node is h1; the other hosts know nobody, and nobody knows them.
fn cluster(hosts: usize) -> Lab {
    let lab = Lab::light(hosts);
    std::fs::remove_file(lab.state().join("roster.yaml")).unwrap();
    lab.write("states/top.sls", "base:\n  'role:*':\n    - match: grain\n    - role\n");
    lab.write("states/role.sls", ROLE);
    lab.write("cluster.yaml", "cluster:\n  id: c1\n");
    lab.commit("a cluster");
    let address = lab["h1"].address();
    lab.basalt(["node", "add", "h1", &address, "--yes"]).ok();
    for host in lab.all().iter().skip(1) {
        std::fs::copy(env!("CARGO_BIN_EXE_basalt"), host.root().join("usr/local/bin/basalt")).unwrap();
        host.sh("rm -f /root/.ssh/authorized_keys").ok();
    }
    std::fs::write(lab.home().join(".ssh/known_hosts"), "").unwrap();
    lab
}

/// A controller that listens, and what it said first.
struct Door {
    running: Running,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    token: String,
    fingerprint: String,
}

impl Door {
    fn open(lab: &Lab, more: &[&str]) -> Door {
        let mut running = lab.spawn_basalt([&["token", "create", "--listen", "198.18.0.254", "--json"], more].concat());
        let mut lines = BufReader::new(running.stdout()).lines();
        let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        let text = |name: &str| first[name].as_str().unwrap().to_owned();
        assert_eq!((text("type"), text("address")), ("token_created".into(), "198.18.0.254".into()));
        Door { running, lines, token: text("text"), fingerprint: text("fingerprint") }
    }

    /// The next line of a type.
    fn next(&mut self, kind: &str) -> Value {
        let mut lines = self.lines.by_ref().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
        lines.find(|line| line["type"] == kind).unwrap_or_else(|| panic!("no more {kind}"))
    }
}

fn join(lab: &Lab, host: &str, how: &str) -> lab::Output {
    lab[host].sh(&format!("basalt join 198.18.0.254 {how}"))
}

#[test]
fn a_second_machine_joins_by_token_and_the_two_become_edge_and_core() {
    if !lab::required() {
        return;
    }
    let lab = cluster(3);
    let mut door = Door::open(&lab, &[]);
    join(&lab, "h2", &format!("--token {}", door.token))
        .ok()
        .says("The controller may come in. Joining the cluster c1")
        .says("Joined as h2: core");
    assert_eq!(door.next("joined")["role"], "core");
    door.running.wait().ok();
    assert_eq!(lab["h1"].read("/etc/role").as_deref(), Some("edge at scale small\n"));
    assert_eq!(lab["h2"].read("/etc/role").as_deref(), Some("core at scale small\n"));
    assert!(lab["h2"].read("/root/.ssh/authorized_keys").unwrap().starts_with("restrict ssh-ed25519 "));
    // From now on it is a node like any other, known by the keys that git has.
    lab.basalt(["plan", "--detailed-exitcode"]).code(0).says("No changes. 2 hosts");
    lab.run(["git", "log", "-1", "--format=%s"]).ok().says("Add the node h2");
    assert!(std::fs::read_to_string(lab.state().join("nodes/h2.yaml")).unwrap().contains("host_keys:\n  - "));

    // A used token, another's key, an expired one and none at all.
    let mut door2 = Door::open(&lab, &["--stay"]);
    join(&lab, "h3", &format!("--token {}", door.token)).code(1).complains("this token has been used, by h2");
    lab.basalt(["token", "revoke", &door2.token]).ok();
    join(&lab, "h3", &format!("--token {}", door2.token)).code(1).complains("this token is revoked");
    let other_key = format!("{}{}", &door2.token[..door2.token.len() - 26], "a".repeat(26));
    join(&lab, "h3", &format!("--token {other_key}")).code(4).complains("is not the one that the token is of");
    let wrong = door2.token.replacen(|c: char| c != 'a', "a", 1);
    join(&lab, "h3", &format!("--token {wrong}")).code(1).complains("knows no such token");
    let aged: Value = serde_json::from_str(&lab.basalt(["token", "create", "--json"]).ok().stdout).unwrap();
    let age = "f=$(find \"$HOME/.local/state\" -path \"*/tokens/$1\") && sed -i 's/\"expires\":[0-9]*/\"expires\":1/' \"$f\"";
    lab.run(["sh", "-ec", age, "sh", aged["token"].as_str().unwrap()]).ok();
    join(&lab, "h3", &format!("--token {}", aged["text"].as_str().unwrap())).code(1).complains("this token is expired");
    join(&lab, "h3", "--token x").code(1).complains("this is no token");
    assert_eq!(lab["h3"].read("/root/.ssh/authorized_keys"), None);
    lab.basalt(["token", "list"]).ok().says("used by h2").says("revoked");

    // A name that is taken; then the same machine under its own, when somebody says yes.
    let asked = join(&lab, "h3", &format!("--id h1 --fingerprint {}", door2.fingerprint));
    asked.code(1).complains("there is a host h1 already");
    let how = format!("basalt join 198.18.0.254 --fingerprint {} >/run/joining 2>&1; echo $? >/run/joined", door2.fingerprint);
    lab["h3"].sh(&format!("nohup sh -c '{how}' >/dev/null 2>&1 &")).ok();
    lab["h3"].sh("for i in $(seq 100); do grep -q Waiting /run/joining && exit 0; sleep 0.1; done; cat /run/joining; exit 1").ok();
    lab.basalt(["key", "list"]).ok().says("h3  pending  from 198.18.0.3").says("ssh-ed25519 SHA256:");
    lab.basalt(["key", "accept", "h33"]).code(1).complains("did you mean \"h3\"?");
    lab.basalt(["key", "accept", "h3"]).ok();
    lab["h3"]
        .sh("for i in $(seq 300); do [ -e /run/joined ] && break; sleep 0.1; done; cat /run/joining; exit $(cat /run/joined)")
        .ok()
        .says("Joined as h3: data");
    assert_eq!(door2.next("joined")["node"], "h3");
    assert_eq!(lab["h3"].read("/etc/role").as_deref(), Some("data at scale small\n"));
    door2.running.signal(Signal::TERM);
}

#[test]
fn a_join_that_fails_in_the_middle_is_taken_back_and_then_succeeds() {
    if !lab::required() {
        return;
    }
    let lab = cluster(2);
    // The newcomer's role cannot be had there: a directory stands in the way.
    lab["h2"].sh("mkdir /etc/role").ok();
    let before = [lab["h1"].fingerprint_root(), lab["h2"].fingerprint_root()];
    let door = Door::open(&lab, &["--stay"]);
    join(&lab, "h2", &format!("--token {}", door.token)).code(3).complains("taken all of it back");
    assert_eq!(lab["h1"].read("/etc/role").as_deref(), Some("monolith at scale single\n"));
    assert_eq!(lab["h2"].read("/root/.ssh/authorized_keys").unwrap_or_default(), "");
    before[0].assert_same(&lab["h1"].fingerprint_root());
    lab.run(["git", "log", "-2", "--format=%s"]).ok().says("Take back: Add the node h2\nAdd the node h2\n");
    assert!(!lab.state().join("nodes/h2.yaml").exists());
    lab.basalt(["plan", "--detailed-exitcode"]).code(0).says("1 host");

    // The token is free again.
    lab["h2"].sh("rmdir /etc/role").ok();
    join(&lab, "h2", &format!("--token {}", door.token)).ok().says("Joined as h2: core");
    assert_eq!(lab["h1"].read("/etc/role").as_deref(), Some("edge at scale small\n"));
    door.running.signal(Signal::TERM);
}

#[test]
fn a_controller_killed_in_the_middle_of_a_join_goes_on_with_it() {
    if !lab::required() {
        return;
    }
    let lab = cluster(2);
    let slow = "wait:\n  cmd.run:\n    - name: touch /run/begun; for i in $(seq 600); do [ -e /run/go ] && break; sleep 0.1; done; touch /run/waited\n    - creates: /run/waited\n";
    lab.write("states/role.sls", &format!("{{% if grains['role'] == 'core' %}}\n{slow}{{% endif %}}\n{ROLE}"));
    lab.commit("a slow core");
    let door = Door::open(&lab, &["--stay"]);
    let how = format!("--token {}", door.token);
    lab["h2"].sh(&format!("nohup sh -c 'basalt join 198.18.0.254 {how} >/run/joining 2>&1; echo $? >/run/joined' >/dev/null 2>&1 &")).ok();
    lab["h2"].sh("for i in $(seq 300); do [ -e /run/begun ] && exit 0; sleep 0.1; done; cat /run/joining; exit 1").ok();
    door.running.signal(Signal::KILL);
    drop(door.running.wait());
    lab["h2"].sh("for i in $(seq 300); do [ -e /run/joined ] && exit 0; sleep 0.1; done; exit 1").ok();
    assert!(lab["h2"].read("/etc/role").is_none() && lab.state().join("nodes/h2.yaml").exists());
    // Another controller of the same repository; the same machine, with the same token. Nobody else can have its name.
    lab["h2"].sh("touch /run/go").ok();
    let mut again = Door::open(&lab, &["--stay"]);
    join(&lab, "h2", &how).ok().says("Joined as h2: core");
    assert_eq!(again.next("joined")["node"], "h2");
    assert_eq!(lab["h1"].read("/etc/role").as_deref(), Some("edge at scale small\n"));
    assert_eq!(lab["h2"].read("/etc/role").as_deref(), Some("core at scale small\n"));
    lab.run(["git", "log", "-1", "--format=%s"]).ok().says("Add the node h2");
    join(&lab, "h2", &how).code(1).complains("this token has been used, by h2");
    again.running.signal(Signal::TERM);
}

#[test]
fn a_machine_that_is_cut_off_in_the_middle_is_taken_back_and_then_joins() {
    if !lab::required() {
        return;
    }
    let lab = cluster(2);
    let slow = "wait:\n  cmd.run:\n    - name: touch /run/begun; for i in $(seq 600); do [ -e /run/go ] && break; sleep 0.1; done\n    - creates: /run/go\n";
    lab.write("states/role.sls", &format!("{{% if grains['role'] == 'core' %}}\n{slow}{{% endif %}}\n{ROLE}"));
    lab.commit("a slow core");
    let mut door = Door::open(&lab, &["--stay"]);
    lab["h2"]
        .sh(&format!(
            "nohup sh -c 'basalt join 198.18.0.254 --token {} >/run/joining 2>&1; echo $? >/run/joined' >/dev/null 2>&1 &",
            door.token
        ))
        .ok();
    lab["h2"].sh("for i in $(seq 300); do [ -e /run/begun ] && exit 0; sleep 0.1; done; cat /run/joining; exit 1").ok();
    lab["h2"].link_down();
    // The controller gives up on it, and everybody is as before.
    assert!(door.next("committed")["files"].to_string().contains("nodes/h2.yaml"));
    door.next("committed");
    assert_eq!(lab["h1"].read("/etc/role").as_deref(), Some("monolith at scale single\n"));
    lab.run(["git", "log", "-1", "--format=%s"]).ok().says("Take back: Add the node h2");
    lab["h2"].link_up();
    lab["h2"].sh("touch /run/go; pkill -x basalt || true; sleep 1").ok();
    join(&lab, "h2", &format!("--token {}", door.token)).ok().says("Joined as h2: core");
    assert_eq!(lab["h1"].read("/etc/role").as_deref(), Some("edge at scale small\n"));
    door.running.signal(Signal::TERM);
}
