//! Machines find their controller by asking the network, on real hosts: by token, by the cluster's name, and not at all where it is not clear who is meant.

mod lab;

use std::io::{BufRead, BufReader};

use lab::{Lab, Running};
use rustix::process::Signal;
use serde_json::Value;

/// A cluster of h1; the other hosts know nobody.
fn cluster(hosts: usize) -> Lab {
    let lab = Lab::light(hosts);
    std::fs::remove_file(lab.state().join("roster.yaml")).unwrap();
    lab.write("states/top.sls", "base:\n  'role:*':\n    - match: grain\n    - role\n");
    lab.write("states/role.sls", "/etc/role:\n  file.managed:\n    - contents: {{ grains['role'] }}\n");
    lab.write("cluster.yaml", "cluster:\n  id: c1\n");
    lab.commit("a cluster");
    lab.basalt(["node", "add", "h1", &lab["h1"].address(), "--yes"]).ok();
    for host in lab.all().iter().skip(1) {
        std::fs::copy(env!("CARGO_BIN_EXE_basalt"), host.root().join("usr/local/bin/basalt")).unwrap();
        host.sh("rm -f /root/.ssh/authorized_keys").ok();
    }
    std::fs::write(lab.home().join(".ssh/known_hosts"), "").unwrap();
    lab
}

/// A controller that listens, and its first line; the others go to nobody.
fn listening(lab: &Lab) -> (Running, Value) {
    let mut running = lab.spawn_basalt(["token", "create", "--listen", "--stay", "--json"]);
    let mut lines = BufReader::new(running.stdout()).lines();
    let line = lines.next().unwrap().unwrap();
    std::thread::spawn(move || lines.for_each(drop));
    (running, serde_json::from_str(&line).unwrap())
}

#[test]
fn a_bootstrap_finds_the_controller_and_joins_by_token() {
    if !lab::required() {
        return;
    }
    let lab = cluster(2);
    lab["h2"].sh("basalt join --auto-discover --discover-timeout 1").code(4).complains("no controller answers");
    let (door, said) = listening(&lab);
    let token = said["text"].as_str().unwrap();
    // A token of another controller finds nobody: who answers has another key.
    let other = format!("{}{}", &token[..token.len() - 26], "a".repeat(26));
    lab["h2"].sh(&format!("basalt join --auto-discover --discover-timeout 1 --token {other}")).code(4).complains("no controller answers");
    // Without a token it is found, and somebody has to compare its fingerprint: here nobody can.
    let fingerprint = said["fingerprint"].as_str().unwrap();
    lab["h2"]
        .sh("basalt join --auto-discover --discover-timeout 1")
        .code(1)
        .says(&format!("198.18.0.254:4506  cluster c1, 1 node, fingerprint {fingerprint}"))
        .complains("this needs a yes");
    lab["h2"].sh("basalt bootstrap --auto-discover --discover-timeout 1 --check").ok();
    lab["h2"]
        .sh(&format!("basalt bootstrap --auto-discover --yes --token {token}"))
        .ok()
        .says("Joining the cluster c1")
        .says("Joined as h2: core");
    assert_eq!(lab["h2"].read("/etc/role").as_deref(), Some("core\n"));
    door.signal(Signal::TERM);
}

#[test]
fn of_several_controllers_one_has_to_be_meant() {
    if !lab::required() {
        return;
    }
    let lab = cluster(2);
    let (door, said) = listening(&lab);
    // Another cluster in the same network, on h1.
    std::fs::copy(env!("CARGO_BIN_EXE_basalt"), lab["h1"].root().join("usr/local/bin/basalt")).unwrap();
    lab["h1"].sh("mkdir -p /srv/two/states && cd /srv/two && printf 'cluster:\\n  id: c2\\n' >cluster.yaml && printf 'base: {}\\n' >states/top.sls").ok();
    lab["h1"].sh("cd /srv/two && git init -q . && git add -A && git -c user.name=t -c user.email=t@t commit -qm two").ok();
    lab["h1"].sh("cd /srv/two && nohup basalt token create --listen --stay >/run/two 2>&1 & for i in $(seq 100); do grep -q Listening /run/two && exit 0; sleep 0.1; done; cat /run/two; exit 1").ok();
    let asked = |more: &str| lab["h2"].sh(&format!("basalt join --auto-discover --discover-timeout 2 {more}"));
    asked("")
        .code(1)
        .says("cluster c1, 1 node")
        .says("cluster c2, 0 nodes")
        .complains("2 controllers answer")
        .complains("--cluster ID says which");
    asked("--cluster c3").code(1).complains("none of these controllers");
    asked("--cluster c2").code(1).complains("this needs a yes");
    asked(&format!("--token {}", said["text"].as_str().unwrap())).ok().says("Joined as h2: core");
    door.signal(Signal::TERM);
}
