//! Nodes that are away or fail, on real hosts: what is known of them, when they are tried again, and how they come back.

mod lab;

use lab::{Host, Lab, Spec};
use rustix::process::Signal;
use serde_json::Value;

const ROLE: &str = "/etc/role:\n  file.managed:\n    - contents: {{ grains['role'] }} at scale {{ grains['scale'] }}\n";

/// A cluster of all hosts of the lab.
fn cluster(hosts: usize) -> Lab {
    let lab = repository(Lab::light(hosts));
    for host in lab.all() {
        lab.basalt(["node", "add", host.name(), &host.address(), "--yes"]).ok();
    }
    lab
}

fn repository(lab: Lab) -> Lab {
    std::fs::remove_file(lab.state().join("roster.yaml")).unwrap();
    lab.write("states/top.sls", "base:\n  'role:*':\n    - match: grain\n    - role\n");
    lab.write("states/role.sls", ROLE);
    lab.write("basalt.yaml", "connect_timeout: 3\nrecovery: {first_every: 600, first_tries: 1, tries: 2}\n");
    lab.write("cluster.yaml", "cluster:\n  id: c1\n");
    lab.commit("a cluster");
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

#[test]
fn what_a_node_lacks_is_told_before_anything_is_changed() {
    if !lab::required() {
        return;
    }
    let lab = repository(Lab::start(vec![Spec::light("h1"), Spec::light("h2").disk("400M"), Spec::light("h3")]));
    lab.basalt(["node", "add", "h1", &lab["h1"].address(), "--yes"]).ok();
    let tip = || lab.run(["git", "rev-parse", "HEAD"]).ok().stdout;
    let before = tip();
    lab.basalt(["node", "add", "h2", &lab["h2"].address(), "--yes"])
        .code(3)
        .says("h2  error    disk  ")
        .says("needed: 1000 MB free on /")
        .says("make room: packages and files come there")
        .complains("1 host cannot be changed as it is");
    assert_eq!((tip(), lab["h2"].read("/etc/role")), (before, None));

    // One that is away is told of, and holds nobody up.
    lab["h1"].link_down();
    lab.basalt(["node", "add", "h3", &lab["h3"].address(), "--yes"]).code(4).says("h1  warning  reach").says("Committed ");
    assert_eq!(lab["h3"].read("/etc/role").as_deref(), Some("core at scale small\n"));
    lab.basalt(["node", "list"]).ok().says("transient since");
    lab["h1"].link_up();
    lab.basalt(["cluster", "start", "--yes"]).ok();
    assert_eq!(lab["h1"].read("/etc/role").as_deref(), Some("edge at scale small\n"));
    assert!(!lab.basalt(["node", "list"]).ok().stdout.contains("transient"));
}

#[test]
fn no_operation_starts_while_another_runs_on_the_same_hosts() {
    if !lab::required() {
        return;
    }
    let lab = cluster(2);
    let slow = "wait:\n  cmd.run:\n    - name: touch /run/begun; for i in $(seq 600); do [ -e /run/go ] && break; sleep 0.1; done\n    - creates: /run/go\n";
    lab.write("states/slow.sls", slow);
    lab.commit("slow");
    let running = lab.spawn_basalt(["apply", "h2", "--sls", "slow", "--yes"]);
    lab["h2"].sh("for i in $(seq 300); do [ -e /run/begun ] && exit 0; sleep 0.1; done; exit 1").ok();
    let before = lab.run(["git", "rev-parse", "HEAD"]).ok().stdout;
    for operation in [&["node", "remove", "h1", "--yes"][..], &["cluster", "sync", "--yes"]] {
        lab.basalt(operation)
            .code(6)
            .says("h2  error    operation")
            .says("needed: none under way")
            .says("--lock-timeout SECONDS")
            .complains("1 host cannot be changed");
    }
    assert_eq!(lab.run(["git", "rev-parse", "HEAD"]).ok().stdout, before);
    let waiting = lab.spawn_basalt(["cluster", "sync", "--yes", "--lock-timeout", "60"]);
    lab["h2"].sh("touch /run/go").ok();
    running.wait().ok();
    waiting.wait().ok();
    lab.basalt(["node", "remove", "h1", "--yes"]).ok();
}

/// What can be seen of a cluster: what its nodes have, and what they say when they are asked.
fn there(lab: &Lab) -> String {
    let of = |host: &Host| {
        let units =
            host.sh("systemctl is-enabled basalt-announce; systemctl is-active cron; stat -c '%a %U' /etc/basalt/announce.key").ok().stdout;
        format!("{}: {:?}\n{units}", host.name(), host.read("/etc/role"))
    };
    let status = lab.basalt(["cluster", "status", "--json"]).ok().stdout;
    lab.all().iter().map(of).collect::<String>() + &status
}

#[test]
fn all_nodes_by_one_command_or_each_by_itself_become_the_same_cluster() {
    if !lab::required() {
        return;
    }
    let lab = repository(Lab::hosts(2));
    for file in ["agent.sls", "announce.sls", "files/announce.service.jinja"] {
        let text = std::fs::read_to_string(format!("{}/states/basalt/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        lab.write(&format!("states/basalt/{file}"), &text);
    }
    lab.write("states/top.sls", "base:\n  'role:*':\n    - match: grain\n    - role\n    - basalt.announce\n");
    lab.write("pillar/top.sls", "base:\n  '*': [announce]\n");
    // The first of them is not there.
    lab.write("pillar/announce.sls", "announce:\n  to: [198.18.0.253, 198.18.0.254]\n");
    lab.commit("nodes announce themselves");
    for host in lab.all() {
        let said = lab.basalt(["node", "add", host.name(), &host.address(), "--yes"]).ok();
        let key = host.read("/etc/basalt/announce.key").unwrap();
        assert!(key.trim().len() == 64 && !said.stdout.contains(key.trim()), "{said}");
    }
    assert_ne!(lab["h1"].read("/etc/basalt/announce.key"), lab["h2"].read("/etc/basalt/announce.key"));
    lab.basalt(["plan", "--detailed-exitcode"]).code(0).says("No changes. 2 hosts");
    let version = |number: u32| lab.write("states/role.sls", &ROLE.replace(" at scale", &format!(" {number} at scale")));

    // All are down while something changes; then they have power again, and somebody types one command.
    lab.all().iter().for_each(Host::kill);
    version(2);
    lab.commit("version 2");
    lab.basalt(["cluster", "start", "--yes"]).code(4).says("h1  warning  reach").says("h2  warning  reach");
    lab.basalt(["node", "list"]).ok().says("transient since");
    lab.all().iter().for_each(Host::boot);
    lab.basalt(["cluster", "start", "--yes"]).ok();
    let coordinated = there(&lab);
    assert!(coordinated.contains("h2: Some(\"core 2 at scale small\\n\")"), "{coordinated}");

    // The same once more; now a watch runs, which would try them again in ten minutes only.
    version(1);
    lab.commit("version 1");
    lab.basalt(["cluster", "start", "--yes"]).ok();
    lab.all().iter().for_each(Host::kill);
    version(2);
    lab.commit("version 2 again");
    let begun = || {
        let mut watch = lab.spawn_basalt(["watch", "--apply", "--json", "--listen", "198.18.0.254"]);
        let out = watch.stdout();
        (watch, std::thread::spawn(move || std::io::read_to_string(out).unwrap()))
    };
    let (watch, _) = begun();
    let listed = || lab.basalt(["node", "list"]).ok().stdout;
    let until = |what: &str, is: &dyn Fn() -> bool| {
        let limit = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !is() {
            assert!(std::time::Instant::now() < limit, "{what}: {}", listed());
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    };
    until("both are away", &|| listed().matches("transient").count() == 2);
    // The controller dies, and the next one goes on where it was.
    let away = listed();
    watch.signal(Signal::KILL);
    watch.wait();
    let (watch, told) = begun();
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(listed(), away);
    lab.all().iter().for_each(Host::boot);
    until("both are there", &|| !listed().contains("transient"));
    watch.signal(Signal::TERM);
    let told = told.join().unwrap();
    assert_eq!(told.matches("\"decision\":\"up\"").count(), 2, "{told}");
    assert_eq!(there(&lab), coordinated);
    lab["h1"].sh("journalctl -u basalt-announce -o cat").ok().says("198.18.0.254:4507 knows that this node has come up");
    watch.wait().ok();
}
