//! The birth of a cluster: a first node makes itself one, in stages that can be come back to and gone on with.

mod lab;

use lab::Lab;

/// A machine with basalt on it, and nothing else.
fn machine() -> Lab {
    let lab = Lab::light(1);
    std::fs::copy(env!("CARGO_BIN_EXE_basalt"), lab["h1"].root().join("usr/local/bin/basalt")).unwrap();
    lab["h1"].sh("mkdir -p /srv/state; printf '[user]\\n name = op\\n email = op@localhost\\n' >/root/.gitconfig").ok();
    lab
}

fn bootstrap(lab: &Lab, args: &str) -> lab::Output {
    lab["h1"].sh(&format!("cd /srv/state && HOME=/root basalt bootstrap {args}"))
}

#[test]
fn the_first_node_configures_itself_and_every_stage_can_be_come_back_to() {
    if !lab::required() {
        return;
    }
    let lab = machine();
    let before = lab["h1"].fingerprint_root();
    bootstrap(&lab, "--check").ok().says("CPU threads").says("clock");
    before.assert_same(&lab["h1"].fingerprint_root());
    let done = bootstrap(&lab, "--single-node --yes").ok();
    done.says("h1  new → monolith  (the only node)").says("done        verified").says("lets the next one in");
    let motd = lab["h1"].read("/etc/motd").unwrap();
    assert!(motd.contains("welcome"), "{motd}");
    lab["h1"].sh("cd /srv/state && git log --format=%s").ok().says("Add the node h1\nName the cluster\n");
    lab["h1"].sh("cd /srv/state && HOME=/root basalt role show").ok().says("h1  monolith").says("1 node, scale single");
    bootstrap(&lab, "--status").ok().says("verified").says("h1: monolith,");
    // Once more: there is nothing to do.
    bootstrap(&lab, "--yes").ok().says("done before node").says("No changes. 1 host is as described.");

    // Back to the stage before the node: the machine is what it was.
    bootstrap(&lab, "--rollback cluster --yes").ok().says("taken back");
    assert_ne!(lab["h1"].read("/etc/motd").unwrap(), motd);
    lab["h1"].sh("cd /srv/state && test ! -e nodes/h1.yaml && test -e cluster.yaml").ok();
    bootstrap(&lab, "--rollback checks --yes").ok();
    lab["h1"].sh("cd /srv/state && test ! -e cluster.yaml").ok();
    bootstrap(&lab, "--rollback end --yes").code(1).complains("the stages are checks, repository, cluster, node");
    bootstrap(&lab, "--yes").ok().says("done        verified");
    assert_eq!(lab["h1"].read("/etc/motd").unwrap(), motd);
}

#[test]
fn a_failed_bootstrap_can_simply_be_run_again() {
    if !lab::required() {
        return;
    }
    let lab = machine();
    // What the first state wants to be a file is a directory with something in it.
    lab["h1"].sh("rm -f /etc/motd; mkdir /etc/motd; touch /etc/motd/x").ok();
    bootstrap(&lab, "--single-node --yes").code(7).says("Run it again");
    lab["h1"].sh("cd /srv/state && git log -2 --format=%s").ok().says("Take back: Add the node h1");
    lab["h1"].sh("rm -r /etc/motd").ok();
    bootstrap(&lab, "--single-node --yes").ok().says("done before cluster").says("done        verified");
}

#[test]
fn a_bootstrap_that_is_killed_is_run_again_and_all_of_it_is_taken_back() {
    if !lab::required() {
        return;
    }
    let lab = machine();
    let slow = "first:\n  file.managed:\n    - name: /etc/first\n    - contents: x\nwait:\n  cmd.run:\n    - name: touch /run/begun; while [ ! -e /run/go ]; do sleep 0.1; done\n    \
                - unless: test -e /run/go\nthird:\n  file.managed:\n    - name: /etc/third\n    - contents: x\n";
    let repository = lab["h1"].root().join("srv/state/states");
    std::fs::create_dir(&repository).unwrap();
    std::fs::write(repository.join("top.sls"), "base:\n  '*': [slow]\n").unwrap();
    std::fs::write(repository.join("slow.sls"), slow).unwrap();
    lab["h1"].sh("cd /srv/state && export HOME=/root && git init -q -b main . && git add -A && git commit -qm slow").ok();
    lab["h1"].sh("cd /srv/state && HOME=/root nohup basalt bootstrap --single-node --yes >/run/out 2>&1 & echo $! >/run/pid").ok();
    lab["h1"].sh("for i in $(seq 300); do [ -e /run/begun ] && exit 0; sleep 0.1; done; cat /run/out; exit 1").ok();
    lab["h1"].sh("kill -9 $(cat /run/pid); touch /run/go; sleep 3").ok();
    bootstrap(&lab, "--status").ok().says("node        broken off").says("verified    waits");
    bootstrap(&lab, "--yes").ok().says("done before cluster").says("done        verified");
    bootstrap(&lab, "--status").ok().says("h1: monolith");
    // The runs of both attempts go.
    bootstrap(&lab, "--rollback cluster --yes").ok().says("taken back  node");
    assert_eq!((lab["h1"].read("/etc/first"), lab["h1"].read("/etc/third")), (None, None));
    bootstrap(&lab, "--rollback node --yes").code(1).complains("has not come to the end of node");
}

#[test]
fn what_a_machine_is_told_decides_and_flags_go_before_it() {
    if !lab::required() {
        return;
    }
    let lab = machine();
    lab["h1"].sh("mkdir -p /etc/eos; printf 'cluster:\\n  id: prod\\n  master: 198.18.0.77\\n' >/etc/eos/cluster.yaml").ok();
    // Nobody is there: that is one of the checks, beside what else there is to say of the machine.
    let told = bootstrap(&lab, "--yes --fingerprint aaaaaaaaaaaaaaaaaaaaaaaaaa").code(3).says("CPU threads").says("198.18.0.77");
    told.says("needed: answers").says("lets machines in").complains("cannot be a node as it is");
    bootstrap(&lab, "--yes --join-cluster 198.18.0.78 --fingerprint aaaaaaaaaaaaaaaaaaaaaaaaaa").code(3).says("198.18.0.78");
    lab["h1"].sh("printf 'cluster:\\n  mastre: x\\n' >/etc/eos/cluster.yaml").ok();
    bootstrap(&lab, "--yes").code(1).complains("did you mean \"master\"?");
    bootstrap(&lab, "--single-node --yes").ok().says("new → monolith");
}
