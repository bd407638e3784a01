//! The cluster on real hosts: nodes come and go by commits, and everyone has the role that the number of nodes gives it.

mod lab;

use lab::{Host, Lab, Spec};
use rustix::process::Signal;

/// What a role makes of a host, where it can be seen.
const ROLE: &str = "/etc/role:\n  file.managed:\n    - contents: {{ grains['role'] }} at scale {{ grains['scale'] }}\n";

fn cluster(hosts: usize) -> Lab {
    cluster_of(Lab::light(hosts))
}

/// A state repository without hosts.
fn cluster_of(lab: Lab) -> Lab {
    std::fs::remove_file(lab.state().join("roster.yaml")).unwrap();
    let roles = ["monolith", "edge", "core", "data", "message", "observe", "compute", "app"];
    let top: String = roles.iter().map(|role| format!("  'role:{role}':\n    - match: grain\n    - roles.{role}\n")).collect();
    lab.write("states/top.sls", &format!("base:\n{top}"));
    for role in roles {
        lab.write(&format!("roles/{role}.sls"), ROLE);
    }
    lab.commit("roles");
    lab
}

fn add(lab: &Lab, id: &str, more: &[&str]) -> lab::Output {
    let address = lab[id].address().to_string();
    lab.basalt([&["node", "add", id, &address, "--yes"], more].concat())
}

fn roles(lab: &Lab) -> String {
    let all = lab.all().iter().filter_map(|host| host.read("/etc/role"));
    all.map(|text| text.split(' ').next().unwrap_or_default().to_owned()).collect::<Vec<_>>().join(" ")
}

#[test]
fn nodes_join_one_after_the_other_and_get_the_roles_of_the_table() {
    if !lab::required() {
        return;
    }
    let lab = cluster(5);
    add(&lab, "h1", &[]).ok().says("h1  new → monolith  (the only node)").says("Add the node h1");
    assert_eq!(lab["h1"].read("/etc/role").as_deref(), Some("monolith at scale single\n"));

    // The second makes an edge of the first: both are planned before anything is committed.
    let shown = add(&lab, "h2", &[]).ok().says("h1  monolith → edge").says("h2  new → core").says("scale goes from single to small");
    assert!(shown.stdout.contains("+edge at scale small"), "{shown}");
    assert_eq!(roles(&lab), "edge core");
    add(&lab, "h3", &[]).ok().says("h3  new → data");
    assert_eq!(roles(&lab), "edge core data");

    // A fourth and fifth: the table wants a second core and then an app node; what these hosts have decides what they can be.
    add(&lab, "h4", &["--preferred-role", "app"]).ok().says("h4  new → app");
    add(&lab, "h5", &[]).ok().says("h5  new → ");
    assert_eq!(lab["h1"].read("/etc/role").as_deref(), Some("edge at scale medium\n"));

    // Git has it all, a commit for each; nothing is left to do.
    lab.run(["git", "log", "--format=%s"])
        .ok()
        .says("Add the node h5\nAdd the node h4\nAdd the node h3\nAdd the node h2\nAdd the node h1\nroles\n");
    lab.run(["git", "status", "--porcelain"]).ok();
    lab.basalt(["plan", "--detailed-exitcode"]).code(0).says("No changes. 5 hosts");
    lab.basalt(["role", "recalculate", "--yes"]).ok().says("Every node has its role already.");
    lab.basalt(["node", "list"]).ok().says("h1  198.18.0.").says("edge");

    // One goes: the others get the roles of fewer nodes, in the same commit.
    lab.basalt(["node", "remove", "h1", "--yes"]).ok().says("from 5 to 4 nodes");
    lab.basalt(["node", "show", "h1"]).code(1).complains("no node of the cluster");
    lab.basalt(["plan", "--detailed-exitcode"]).code(0).says("4 hosts");
}

/// A machine as large as a role asks: so its kernel tells, and its disk is there.
fn enlarge(host: &Host, cores: usize, memory_gb: u64) {
    let kb = memory_gb << 20;
    let script = format!(
        "for i in $(seq {cores}); do printf 'processor\\t: %s\\n' $((i - 1)); done >/run/cpuinfo; mount --bind /run/cpuinfo /proc/cpuinfo
         sed 's/^MemTotal:.*/MemTotal: {kb} kB/' /proc/meminfo >/run/meminfo; mount --bind /run/meminfo /proc/meminfo
         for disk in {}; do mkfs.btrfs -q $disk && mkdir -p /srv/data && mount $disk /srv/data || exit 1; done",
        host.disks().join(" ")
    );
    host.sh(&script).ok();
}

#[test]
fn a_fourth_and_a_fifth_get_their_roles_by_the_table_and_a_wish_goes_before_it() {
    if !lab::required() {
        return;
    }
    let (small, large) = (|id| Spec::light(id), |id, disk| Spec::systemd(id).disks(&[disk]));
    let lab = cluster_of(Lab::start(vec![small("h1"), small("h2"), small("h3"), large("h4", "120g"), small("h5"), large("h6", "600g")]));
    for id in ["h1", "h2", "h3"] {
        add(&lab, id, &[]).ok();
    }
    assert_eq!(roles(&lab), "edge core data");
    // Of four nodes two are to be core, and this one has what a core needs.
    enlarge(&lab["h4"], 4, 8);
    add(&lab, "h4", &[]).ok().says("h4 has 4 CPU cores, 8 GB of memory").says("h4  new → core  (core has 1 of 2 nodes)");
    // Of five nothing else is lacking.
    enlarge(&lab["h5"], 2, 4);
    add(&lab, "h5", &[]).ok().says("h5  new → app");
    assert_eq!(roles(&lab), "edge core data core app");
    assert_eq!(lab["h2"].read("/etc/role").as_deref(), Some("core at scale medium\n"));
    // The table has its data node already; this one is large enough for its wish.
    enlarge(&lab["h6"], 4, 16);
    add(&lab, "h6", &["--preferred-role", "data"]).ok().says("h6  new → data  (preferred)");
    assert_eq!(roles(&lab), "edge core data core app data");
    lab.basalt(["role", "show"]).ok().says("6 nodes, scale medium");
    lab.basalt(["role", "recalculate", "--yes"]).ok().says("Every node has its role already.");
}

#[test]
fn a_controller_killed_while_a_node_is_added_goes_on_where_it_was() {
    if !lab::required() {
        return;
    }
    let lab = cluster(2);
    add(&lab, "h1", &[]).ok();
    lab.write(
        "roles/core.sls",
        &format!("wait:\n  cmd.run:\n    - name: touch /run/begun; while [ ! -e /run/go ]; do sleep 0.1; done; touch /run/waited\n    - creates: /run/waited\n{ROLE}"),
    );
    lab.commit("a slow core");
    let address = lab["h2"].address();
    let running = lab.spawn_basalt(["node", "add", "h2", &address, "--yes"]);
    lab["h2"].sh("for i in $(seq 600); do [ -e /run/begun ] && exit 0; sleep 0.1; done; exit 1").ok();
    running.signal(Signal::KILL);
    drop(running.wait());
    assert_eq!(lab["h2"].read("/etc/role"), None);
    // Git has it: the same command goes on, and makes everybody what git says.
    lab["h2"].sh("touch /run/go; for i in $(seq 100); do [ -e /run/waited ] && break; sleep 0.1; done; sleep 2").ok();
    add(&lab, "h2", &["--lock-timeout", "30"]).ok().says("h2 is a node already");
    assert_eq!(roles(&lab), "edge core");
    add(&lab, "h2", &[]).ok().says("No changes. 2 hosts are as described.");
    lab.run(["git", "log", "-2", "--format=%s"]).ok().says("Add the node h2\na slow core\n");
    lab.basalt(["node", "add", "h2", "198.18.0.99", "--yes"]).code(1).complains("h2 is a node of the cluster already");
}

#[test]
fn a_wish_is_honoured_and_a_role_is_assigned_by_hand() {
    if !lab::required() {
        return;
    }
    let lab = cluster(2);
    add(&lab, "h1", &[]).ok();
    add(&lab, "h2", &[]).ok();
    // These hosts are too small for any wish. Somebody knows better, and writes it down.
    let large = |id: &str, more: &str| {
        let path = format!("nodes/{id}.yaml");
        let text = std::fs::read_to_string(lab.state().join(&path)).unwrap();
        let kept: String = text.lines().filter(|line| !line.starts_with("resources:")).map(|line| format!("{line}\n")).collect();
        lab.write(&path, &format!("{more}{kept}resources: {{cpu_cores: 64, memory_gb: 256, storage_gb: 4000}}\n"));
    };
    large("h2", "preferred_role: edge\n");
    lab.commit("h2 is large");
    lab.basalt(["role", "show"]).ok().says("h2  core      should be edge (preferred)");
    lab.basalt(["role", "recalculate", "--yes"]).ok().says("h1  edge → core").says("h2  core → edge  (preferred)");
    assert_eq!(roles(&lab), "core edge");
    lab.basalt(["role", "assign", "h1", "compute", "--yes"]).code(1).complains("h1 is too small for the role compute");
    large("h1", "# the old one\n");
    lab.basalt(["node", "remove", "h1", "--yes"]).code(1).complains("nodes/h1.yaml has changes that are not committed");
    lab.commit("h1 is large");
    lab.basalt(["role", "assign", "h1", "app", "--yes"]).ok().says("h1  core → app  (assigned)");
    assert_eq!(roles(&lab), "app edge");
    lab.basalt(["node", "show", "h1"]).ok().says("# the old one").says("preferred_role: app");
    lab.basalt(["role", "show"]).ok().says("h1  app").says("2 nodes, scale small");
    lab.basalt(["role", "assign", "h1", "aap", "--yes"]).code(1).complains("did you mean \"app\"?");
    lab.basalt(["role", "assign", "h3", "app", "--yes"]).code(1).complains("did you mean");
}

#[test]
fn what_cannot_be_done_leaves_no_commit() {
    if !lab::required() {
        return;
    }
    let lab = cluster(2);
    add(&lab, "h1", &[]).ok();
    let commits = |lab: &Lab| lab.run(["git", "rev-list", "--count", "HEAD"]).ok().stdout;
    let before = commits(&lab);
    lab.basalt(["node", "add", "h1", "198.18.0.99", "--yes"]).code(1).complains("h1 is a node of the cluster already");
    lab.basalt(["node", "add", "h2", "198.18.0.99", "--yes"]).code(4);
    lab.basalt(["node", "add", "h 2", "198.18.0.2", "--yes"]).code(1).complains("cannot be a minion id");
    lab.basalt(["node", "add", "h2", "-oProxyCommand=x", "--yes"]).code(1);
    add(&lab, "h2", &["--commit", "HEAD"]).code(1).complains("tip of the repository's branch");
    // A plan that fails for one host commits nothing.
    lab.write("roles/core.sls", "{{ nothing.at_all }}\n");
    let broken = lab.commit("broken");
    add(&lab, "h2", &[]).code(1).says("Nothing was changed.");
    assert_eq!(lab.run(["git", "rev-parse", "HEAD"]).ok().stdout.trim(), broken);
    assert_eq!((lab.state().join("nodes/h2.yaml").exists(), before), (false, "2\n".to_owned()));
    // Without an answer nothing is done.
    let address = lab["h2"].address().to_string();
    lab.basalt(["node", "add", "h2", &address, "--preferred-role", "edge"]).code(1);
    assert_eq!(commits(&lab), "3\n");
}
