//! What templates ask while a plan is made, on real hosts: the host itself, other hosts by way of the mine, and commands, which the plan lists
//! and a setting forbids.

mod lab;

use lab::Lab;
use serde_json::Value;

/// Three light hosts: h1 and h3 are `web` by the roster, h2 is `db` by its own file.
fn site(sls: &str) -> Lab {
    let lab = Lab::light(3);
    let roster = |id: &str, address: &str, more: &str| format!("{id}:\n  host: {address}\n  user: root\n{more}");
    let web = "  minion_opts:\n    grains: {role: web}\n";
    let own = "  mine_functions:\n    where: [{mine_function: grains.get}, nodename]\n";
    lab.write(
        "roster.yaml",
        &[
            roster("h1", "198.18.0.1", &format!("{web}{own}")),
            roster("h2", "198.18.0.2", ""),
            roster("h3", "198.18.0.3", &format!("{web}{own}")),
        ]
        .concat(),
    );
    lab["h2"].sh("mkdir -p /etc/salt && printf 'role: db\\nsize: {cpus: 2}\\n' > /etc/salt/grains").ok();
    lab.write("basalt.yaml", "connect_timeout: 2\n");
    lab.write("states/top.sls", "base:\n  '*': [asks]\n");
    lab.write("states/asks.sls", sls);
    lab.write("pillar/top.sls", "base:\n  '*': [mine]\n");
    lab.write(
        "pillar/mine.sls",
        "mine_functions:\n  internal:\n    mine_function: network.ip_addrs\n    cidr: 198.18.0.0/24\n  secret:\n    - mine_function: test.ping\n    - allow_tgt: h2\n",
    );
    lab.commit("asks");
    lab
}

fn planned(lab: &Lab, host: &str) -> Value {
    let output = lab.basalt(["plan", "--json", host]).ok();
    let lines = output.stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.into_iter().find(|line| line["type"] == "host_planned").unwrap_or_else(|| panic!("no plan: {output}"))
}

const PEERS: &str = "
/etc/peers:
  file.managed:
    - contents:
{%- for id, addresses in salt['mine.get']('role:web', 'internal', tgt_type='grain') | dictsort %}
      - {{ id }} {{ addresses | join(' ') }}
{%- endfor %}
      - all {{ salt['mine.get']('*', 'network.ip_addrs').keys() | list | join(' ') }}
      - others {{ salt['mine.get']('h*', 'network.ip_addrs', exclude_minion=True) | length }}
      - 'where {{ salt['mine.get']('h1,h3', 'where', 'list') | json }}'
      - allowed {{ salt['mine.get']('*', 'secret') | length }}
      - 'runner {{ salt['saltutil.runner']('mine.get', tgt='h3', fun='internal') | json }}'
      - nobody {{ salt['mine.get']('*', 'no.such') | length }}
";

#[test]
fn a_template_lists_the_addresses_of_all_hosts_of_a_role() {
    if !lab::required() {
        return;
    }
    let lab = site(PEERS);
    let plan = lab.basalt(["plan"]).ok().says("no host that is meant has no.such");
    assert!(!plan.stdout.contains("left out"), "{plan}");
    lab.basalt(["call", "h2", "mine.get", "h*", "internal", "exclude_minion=true"]).ok().says("\"h3\": [").says("198.18.0.1");
    lab.basalt(["apply", "--yes"]).ok();
    let peers = |allowed: usize| {
        format!(
            "h1 198.18.0.1\nh3 198.18.0.3\nall h1 h2 h3\nothers 2\nwhere {{\"h1\": \"h1\", \"h3\": \"h3\"}}\nallowed {allowed}\n\
             runner {{\"h3\": [\"198.18.0.3\"]}}\nnobody 0\n"
        )
    };
    for (host, allowed) in [("h1", 0), ("h2", 3), ("h3", 0)] {
        assert_eq!(lab[host].read("/etc/peers"), Some(peers(allowed)), "{host}");
    }

    // What another host says is part of the promise: when it changes, the saved plan no longer holds.
    lab["h1"].sh("rm /etc/peers").ok();
    lab.basalt(["plan", "h1", "-o", "saved"]).ok();
    lab["h3"].sh("ip addr add 198.18.0.33/24 dev $(ip -o -4 addr show to 198.18.0.3 | awk '{print $2}')").ok();
    lab.basalt(["apply", "--yes", "--plan", "saved"]).code(5).complains("h1");
    lab.basalt(["apply", "--yes", "h1"]).ok();
    assert!(lab["h1"].read("/etc/peers").unwrap().contains("h3 198.18.0.3 198.18.0.33\n"));

    // A host that is gone stands with what it said last, and the plan tells it. Once that is forgotten it is left out.
    lab["h3"].link_down();
    let host = planned(&lab, "h1");
    assert_eq!(host["changes"].as_array().map(Vec::len), Some(0), "{host}");
    let notices = host["notices"].to_string();
    assert!(notices.contains("h3 cannot be asked") && notices.contains("internal is that of"), "{notices}");
    std::fs::remove_dir_all(lab.home().join(".local/state")).unwrap();
    let host = planned(&lab, "h1");
    let diff = host["changes"][0]["diff"].as_str().unwrap_or_default().to_owned();
    assert!(diff.contains("-h3 198.18.0.3 198.18.0.33") && host["notices"].to_string().contains("h3 is left out of internal"), "{host}");
}

#[test]
fn grains_of_the_roster_and_of_the_host_s_owner_reach_calls_and_conditions() {
    if !lab::required() {
        return;
    }
    let lab = site(
        "/etc/{{ grains['role'] }}:\n  file.managed:\n    - contents: {{ salt['grains.get']('id') }} {{ salt['grains.get']('size:cpus', 1) }}\n    \
         - onlyif:\n      - fun: grains.get\n        args: [role]\n      - fun: grains.get\n        key: id\n",
    );
    lab.basalt(["call", "h1", "grains.get", "id"]).ok().says("    h1\n");
    lab.basalt(["call", "h3", "grains.item", "role", "server_id"]).ok().says("\"role\": \"web\"").says("\"server_id\": ");
    lab.basalt(["call", "h2", "grains.get", "size:cpus"]).ok().says("    2\n");
    lab.basalt(["apply", "--yes"]).ok();
    let read = |host: &str, path: &str| lab[host].read(path).unwrap_or_default();
    assert_eq!([read("h1", "/etc/web"), read("h2", "/etc/db"), read("h3", "/etc/web")], ["h1 1\n", "h2 2\n", "h3 1\n"]);

    // A file that is no YAML counts for nothing, as with Salt; but it is told.
    lab["h2"].sh("printf 'role: [\\n' > /etc/salt/grains").ok();
    lab.basalt(["plan", "h2"]).code(1).says("the grains have no key 'role'");
    lab.basalt(["show", "grains", "h2"]).ok().complains("grains left out");
    let changes = lab.basalt(["call", "h1", "file.write", "/etc/x", "y"]);
    changes.code(1).complains("file.managed");
}

#[test]
fn commands_of_templates_are_listed_and_can_be_forbidden() {
    if !lab::required() {
        return;
    }
    let lab = site(
        "{% set name = salt['cmd.run']('hostname') %}\n/etc/name:\n  file.managed:\n    - contents: {{ name }} {{ salt['cmd.run']('hostname') }}\n    \
         - unless: hostname | grep -q nobody\n",
    );
    let plan = lab.basalt(["plan", "h1"]).ok().says("templates and conditions ran while this plan was made:");
    assert_eq!(plan.stdout.matches("$ hostname\n").count(), 1, "{plan}");
    assert_eq!(planned(&lab, "h1")["commands"], serde_json::json!(["hostname", "hostname | grep -q nobody"]));
    lab.write("basalt.yaml", "plan_commands: false\n");
    let plan = lab.basalt(["plan", "h1"]).code(1).says("cmd.run runs a command while the plan is made, and plan_commands forbids that");
    assert!(plan.stdout.contains("states/asks.sls:1"), "{plan}");
    lab.basalt(["show", "low", "h1"]).code(1).says("plan_commands forbids that");
    // A script of the tree is a command like any other.
    lab.write("states/asks.sls", "/etc/name:\n  file.managed:\n    - contents: {{ salt['cmd.script']('salt://who.sh', 'a b').stdout }}\n");
    lab.write("states/who.sh", "#!/bin/sh\necho \"$1-$2 $(hostname)\"\n");
    lab.basalt(["plan", "h1"]).code(1).says("cmd.script runs a command");
    lab.write("basalt.yaml", "plan_commands: true\n");
    lab.basalt(["apply", "--yes", "h1"]).ok().says("$ salt://who.sh a b");
    assert_eq!(lab["h1"].read("/etc/name").as_deref(), Some("a-b h1\n"));
}
