//! Processes on the nodes of a cluster: they come with a role, are configured, started, stopped, and go.

mod lab;

use lab::Lab;

/// What runs where: the sample's states, with a unit that does nothing for long.
fn cluster(hosts: usize) -> Lab {
    let lab = Lab::hosts(hosts);
    std::fs::remove_file(lab.state().join("roster.yaml")).unwrap();
    let sample = |path: &str| std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    lab.write("states/top.sls", "base:\n  '*':\n    - worker\n    - processes\n");
    lab.write("states/processes/init.sls", &sample("states/processes/init.sls"));
    lab.write("processes.yaml", &sample("fixtures/processes.yaml"));
    lab.write(
        "states/worker.sls",
        "/etc/systemd/system/worker@.service:\n  file.managed:\n    - order: first\n    - contents: |\n        [Service]\n        \
         EnvironmentFile=/etc/sysconfig/processes/%i\n        ExecStart=/usr/bin/sleep infinity\n        [Install]\n        WantedBy=multi-user.target\n",
    );
    lab.commit("workers");
    for host in lab.all() {
        let (id, address) = (host.name().to_owned(), host.address());
        lab.basalt(["node", "add", &id, &address, "--yes"]).ok();
    }
    lab
}

#[test]
fn processes_come_with_their_role_are_started_and_stopped_and_go() {
    if !lab::required() {
        return;
    }
    let lab = cluster(1);
    let address = lab["h1"].address();
    let added = lab.basalt(["process", "add", "h1", "objects", "--override", "multiplicity=2", "--yes"]).ok();
    let added = added
        .says(&format!("S3_ENDPOINT={address}:7480"))
        .says(&format!("{address}:7480 is taken by h1-s3server-1, so it has {address}:7481"));
    assert!(added.stdout.contains("S3_THREADS="), "{added}");
    lab["h1"].sh("systemctl is-active worker@h1-s3server-1 worker@h1-s3server-2 && systemctl is-enabled worker@h1-s3server-2").ok();
    assert!(lab["h1"].read("/etc/sysconfig/processes/h1-s3server-2").unwrap().contains(&format!("S3_ENDPOINT={address}:7481\n")));
    // Later, too, and why it is so stands in git.
    lab.basalt(["process", "configuration", "h1-s3server-2"]).ok().says(":7481");
    lab.run(["git", "log", "-1", "--format=%B"]).ok().says("Add the role objects to h1").says("is taken by");
    lab.basalt(["process", "list"]).ok().says("h1  h1-s3server-1  online  online");

    lab.basalt(["process", "stop", "h1-s3server-2", "--yes"]).ok();
    lab["h1"].sh("! systemctl is-active worker@h1-s3server-2").ok();
    lab.basalt(["process", "list"]).ok().says("h1-s3server-2  offline  offline");
    lab.basalt(["process", "start", "h1-s3server-2", "--yes"]).ok();
    lab["h1"].sh("systemctl kill -s KILL worker@h1-s3server-2; sleep 0.5").ok();
    lab.basalt(["process", "list"]).ok().says("h1-s3server-2  online  failed (signal)");
    // What git wants is what the next plan brings back.
    lab.basalt(["apply", "--yes"]).ok();
    lab.basalt(["node", "stop", "h1", "--yes"]).ok();
    lab["h1"].sh("! systemctl is-active worker@h1-s3server-1 worker@h1-s3server-2").ok();
    lab.basalt(["node", "start", "h1", "--yes"]).ok();

    lab.basalt(["process", "remove", "h1-s3server-1", "--yes"]).ok();
    lab["h1"].sh("! systemctl is-active worker@h1-s3server-1 && test ! -e /etc/sysconfig/processes/h1-s3server-1").ok();
    lab.basalt(["process", "add", "h1", "objects", "--yes"]).ok().says("h1-s3server-1").says(&format!("{address}:7480"));
    lab.basalt(["plan", "--detailed-exitcode"]).code(0);

    // A cordoned node gets no more, and a misspelt role is told.
    lab.basalt(["node", "cordon", "h1"]).ok();
    lab.basalt(["process", "add", "h1", "objects", "--yes"]).code(1).complains("h1 is cordoned");
    lab.basalt(["node", "uncordon", "h1"]).ok();
    lab.basalt(["process", "add", "h1", "object", "--yes"]).code(1).complains("did you mean \"objects\"?");
    lab.basalt(["process", "add", "h1", "objects", "--override", "multiplicity=none", "--yes"]).code(1).complains("from 1 to 1000");
    lab.basalt(["process", "stop", "h1-s3server-9", "--yes"]).code(1).complains("did you mean");
    lab.basalt(["process", "add", "h1", "objects", "--override", "multiplicty=2", "--yes"])
        .code(1)
        .complains("did you mean \"multiplicity\"?");
}

#[test]
fn what_would_break_the_cluster_and_what_nobody_manages_is_refused() {
    if !lab::required() {
        return;
    }
    let lab = cluster(2);
    for node in ["h1", "h1", "h2"] {
        lab.basalt(["process", "add", node, "station", "--yes"]).ok();
    }
    // One of three may go; two may not.
    lab.basalt(["process", "stop", "h1-station-1", "--yes"]).ok();
    lab.basalt(["process", "stop", "h1-station-2", "--yes"]).code(1).complains("more than half have to be online, and 1 would be left");
    lab.basalt(["node", "remove", "h2", "--yes"]).code(1).complains("would break the cluster");
    lab.basalt(["process", "stop", "h1-station-2", "--yes", "--force"]).ok().says("Forced: of the 3 processes of station");
    // The decision and its reason stand in git.
    lab.run(["git", "log", "-1", "--format=%B", "--", "processes"])
        .ok()
        .says("Stop h1-station-2")
        .says("Forced: of the 3 processes of station, more than half");
    lab.run(["git", "log", "-1", "--format=%B", "--", "nodes"]).ok().says("Add the node h2").says("h1: monolith → edge");

    // Unmanaged: nobody starts or stops it from here, and it goes only when it has stopped by itself.
    lab.basalt(["process", "add", "h2", "objects", "--unmanaged", "--yes"]).ok().says("unmanaged");
    lab["h2"].sh("! systemctl is-active worker@h2-s3server-1 && systemctl start worker@h2-s3server-1").ok();
    lab.basalt(["process", "stop", "h2-s3server-1", "--yes"]).code(1).complains("not managed");
    lab.basalt(["process", "remove", "h2-s3server-1", "--yes"]).code(1).complains("h2-s3server-1 is online, and it is not managed");
    lab["h2"].sh("systemctl stop worker@h2-s3server-1").ok();
    lab.basalt(["process", "remove", "h2-s3server-1", "--yes"]).ok();

    // A node goes after its processes.
    lab.basalt(["node", "remove", "h2", "--yes", "--force"]).ok().says("Remove h2-station-1").says("Remove the node h2");
    lab["h2"].sh("! systemctl is-active worker@h2-station-1 && test ! -e /etc/sysconfig/processes/h2-station-1").ok();
    assert!(!lab.state().join("processes/h2.yaml").exists() && !lab.state().join("nodes/h2.yaml").exists());
}

#[test]
fn a_node_that_is_gone_is_removed_with_its_processes() {
    if !lab::required() {
        return;
    }
    let lab = cluster(2);
    lab.basalt(["process", "add", "h2", "objects", "--yes"]).ok();
    lab.basalt(["process", "list"]).ok().says("h2-s3server-1  online  online");
    lab["h2"].kill();
    let gone = lab.basalt(["node", "remove", "h2", "--yes"]).code(4);
    gone.complains("h2-s3server-1 is inhibited (online) and does not stop: it goes as failed").says("Remove the node h2");
    assert!(!lab.state().join("processes/h2.yaml").exists() && !lab.state().join("nodes/h2.yaml").exists());
    lab.run(["git", "log", "-1", "--format=%B", "--", "processes"]).ok().says("Remove h2-s3server-1").says("it goes as failed");
    lab.basalt(["cluster", "status"]).ok().says("h1  online   monolith").says("1 node, scale single");
}

#[test]
fn the_whole_cluster_is_seen_stopped_dumped_loaded_and_reset() {
    if !lab::required() {
        return;
    }
    let lab = cluster(2);
    for node in ["h1", "h2"] {
        lab.basalt(["process", "add", node, "station", "--yes"]).ok();
    }
    lab.basalt(["cluster", "status"]).ok().says("h1  online   edge      1 of 1 process as wanted").says("2 nodes, scale small");
    lab["h2"].sh("systemctl kill -s KILL worker@h2-station-1; sleep 0.5").ok();
    lab.basalt(["cluster", "status"]).code(3).says("0 of 1 process as wanted");
    lab.basalt(["cluster", "sync", "--yes"]).ok();
    lab.basalt(["cluster", "stop", "--yes"]).ok();
    lab["h1"].sh("! systemctl is-active worker@h1-station-1").ok();
    lab.basalt(["cluster", "start", "--yes"]).ok();
    lab["h2"].sh("systemctl is-active worker@h2-station-1").ok();

    lab.basalt(["cluster", "vars", "rebalance_on_join=false"]).ok().says("Committed");
    lab.basalt(["cluster", "vars"]).ok().says("rebalance_on_join=false").says("assignment=automatic");
    lab.basalt(["cluster", "vars", "assignment=never"]).code(1).complains("automatic or manual");
    lab.basalt(["cluster", "vars", "assignmnt=manual"]).code(1).complains("did you mean \"assignment\"?");

    // What was dumped comes back as it was, when nodes have gone meanwhile.
    let dump = lab.basalt(["cluster", "dump"]).ok().stdout;
    let file = lab.home().join("dump.yaml");
    std::fs::write(&file, &dump).unwrap();
    let file = file.to_str().unwrap();
    lab.basalt(["cluster", "load", file, "--yes"]).ok().says("It is wanted like that already.");
    lab.basalt(["node", "remove", "h2", "--yes", "--force"]).ok();
    lab.basalt(["cluster", "load", file, "--verify"]).ok().says("can be loaded: 2 nodes");
    lab.basalt(["cluster", "load", file, "--yes"]).ok();
    lab["h2"].sh("systemctl is-active worker@h2-station-1").ok();
    assert_eq!(lab.basalt(["cluster", "dump"]).ok().stdout, dump);
    std::fs::write(file, dump.replace("host:", "hst:")).unwrap();
    lab.basalt(["cluster", "load", file, "--yes"]).code(1).complains("did you mean \"host\"?");

    lab.basalt(["process", "list"]).ok().says("h2-station-1  online  online");
    lab["h2"].link_down();
    lab.basalt(["cluster", "status"]).code(4).says("h2  offline");
    lab.basalt(["process", "list"]).code(0).says("h2-station-1  online  inhibited (online)");
    lab["h2"].link_up();
    lab.basalt(["cluster", "update", "--yes"]).ok().says("Every node has its role already.");
    lab.basalt(["cluster", "reset", "--yes"]).ok();
    lab["h1"].sh("! systemctl is-active worker@h1-station-1").ok();
    lab.basalt(["cluster", "status"]).code(1).complains("the cluster has no nodes");
}
