//! Nodes that are away or fail, on real hosts: what is known of them, when they are tried again, and how they come back.

mod lab;

use lab::Lab;
use serde_json::Value;

const ROLE: &str = "/etc/role:\n  file.managed:\n    - contents: {{ grains['role'] }} at scale {{ grains['scale'] }}\n";

/// A cluster of all hosts of the lab.
fn cluster(hosts: usize) -> Lab {
    let lab = Lab::light(hosts);
    std::fs::remove_file(lab.state().join("roster.yaml")).unwrap();
    lab.write("states/top.sls", "base:\n  'role:*':\n    - match: grain\n    - role\n");
    lab.write("states/role.sls", ROLE);
    lab.write("basalt.yaml", "connect_timeout: 3\nrecovery: {first_every: 600, first_tries: 1, tries: 2}\n");
    lab.write("cluster.yaml", "cluster:\n  id: c1\n");
    lab.commit("a cluster");
    for host in lab.all() {
        lab.basalt(["node", "add", host.name(), &host.address(), "--yes"]).ok();
    }
    lab
}

#[test]
fn a_node_that_is_away_is_transient_then_failed_and_comes_back_by_hand() {
    if !lab::required() {
        return;
    }
    let lab = cluster(2);
    lab.basalt(["node", "recover", "--yes"]).ok().says("No node is transient or failed.");
    lab["h2"].link_down();
    lab.basalt(["node", "recover", "h2", "--yes"]).code(4).says("h2 is transient since ").says("1 try failed, next try at ");
    let listed = lab.basalt(["node", "list", "--json"]).ok().stdout;
    let nodes: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let recovery = &nodes[1]["recovery"];
    assert_eq!((&nodes[0]["recovery"], &recovery["state"], &recovery["tries"]), (&Value::Null, &"transient".into(), &1.into()));
    assert_eq!(recovery["next"].as_u64().unwrap() - recovery["since"].as_u64().unwrap(), 600);
    lab.basalt(["cluster", "status"]).code(4).says("h2  offline  core").says("transient since ");
    // The second try is its last.
    lab.basalt(["node", "recover", "--yes"]).code(4).says("h2 is failed since ").says("2 tries failed, tried no more: it is away.");
    lab.basalt(["node", "show", "h2"]).ok().says("# h2  failed since ");
    lab["h2"].link_up();
    lab["h2"].sh("rm /etc/role").ok();
    lab.basalt(["node", "recover", "--yes"]).ok().says("h2 is as it should be.");
    assert_eq!(lab["h2"].read("/etc/role").as_deref(), Some("core at scale small\n"));
    assert!(!lab.basalt(["node", "list"]).ok().stdout.contains("failed"));
    lab.basalt(["node", "recover", "h3", "--yes"]).code(1).complains("did you mean");
}
