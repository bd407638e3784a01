//! Grains against real Salt: what Salt 3008.5 makes of recorded release files (`tests/grains/answer.py` asks it), and, where Salt is on the
//! machine, what `salt-call --local grains.items` says on a real host.

mod lab;

use std::collections::BTreeMap;

use basalt::agent::grains;
use basalt::diagnostic::Result;
use basalt::system::{Command, Exec, Output, System};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Case {
    name: String,
    files: BTreeMap<String, String>,
    grains: BTreeMap<String, Value>,
}

/// Grains start no process.
struct Nothing;

impl Exec for Nothing {
    fn run(&self, command: &Command, _: &mut dyn FnMut(&[u8])) -> Result<Output> {
        panic!("grains ran {:?}", command.argv)
    }
}

#[test]
fn distributions_are_named_as_salt_names_them() {
    let path = format!("{}/tests/grains/releases.json", env!("CARGO_MANIFEST_DIR"));
    let cases: Vec<Case> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut wrong = Vec::new();
    for case in &cases {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in &case.files {
            let path = dir.path().join(path.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let all = serde_json::to_value(grains::collect(&System::at(dir.path(), Box::new(Nothing)))).unwrap();
        let ours: BTreeMap<String, Value> = all
            .as_object()
            .unwrap()
            .iter()
            .filter(|(name, _)| {
                case.grains.contains_key(*name) || (name.starts_with("os") && *name != "osarch") || name.starts_with("lsb_")
            })
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        for name in case.grains.keys().chain(ours.keys()).collect::<std::collections::BTreeSet<_>>() {
            if case.grains.get(name) != ours.get(name) {
                wrong.push(format!("{}: {name} is {:?}, Salt says {:?}", case.name, ours.get(name), case.grains.get(name)));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differences on {} hosts:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(cases.len() >= 80, "{} cases", cases.len());
}

/// Grains that are Salt's own process, its environment, or what docs/compatibility.md lists.
const NOT_COMPARED: &[&str] = &[
    "cwd",
    "pid",
    "path",
    "systempath",
    "pythonpath",
    "pythonversion",
    "pythonexecutable",
    "saltpath",
    "zmqversion",
    "locale_info",
    "shell",
    "lvm",
    "mdadm",
    "package",
    "packages",
    "pending_reboot",
    "cpu_flags",
    "ca_truststore",
    "resources",
    "fc_wwn",
    "iscsi_iqn",
];

/// Calls whose answers differ for a reason that docs/compatibility.md names or that is Salt's own mistake. One that is the same fails the test.
const DIFFERENT: &[(&str, &str)] =
    &[("pkg.latest_version 'nope'", "one name has one text as its answer here, also where there is no version")];

/// What moves between two looks, or is only ours to order.
fn settled(function: &str, mut value: Value) -> Value {
    if let Some(map) = value.as_object_mut() {
        for name in ["pid", "atime", "st_atime", "inode"] {
            map.remove(name);
        }
    }
    // The other end of a veth pair, which only `ip` shows.
    for link in value.as_object_mut().filter(|_| function == "network.interfaces").into_iter().flat_map(|all| all.values_mut()) {
        link.as_object_mut().and_then(|link| link.remove("parent"));
    }
    if function == "file.readdir"
        && let Some(list) = value.as_array_mut()
    {
        list.sort_by_key(ToString::to_string);
    }
    value
}

#[test]
fn on_a_real_host_grains_and_functions_are_those_of_salt() {
    let venv = std::env::var("SALT_VENV").unwrap_or_else(|_| "/var/cache/basalt-oracle/venv".into());
    let venv = std::path::Path::new(&venv);
    if !venv.join("bin/salt-call").exists() {
        eprintln!("skipped: there is no Salt on this machine to compare with (scripts/grains)");
        return;
    }
    if !lab::required() {
        return;
    }
    let lab = lab::Lab::hosts(1);
    let host = &lab["h1"];
    // The environment and the Python it was made of go to the host: its base has the same libraries.
    let python = std::fs::canonicalize(venv.join("bin/python3")).unwrap();
    let python = python.parent().and_then(|bin| bin.parent()).unwrap();
    for folder in [venv, python] {
        let script =
            "mkdir -p \"$2$1\" && tar -C \"$1\" --exclude=test --exclude=__pycache__ --exclude='*.a' -cf - . | tar -C \"$2$1\" -xf -";
        let status = std::process::Command::new("sh").args(["-ec", script, "sh"]).arg(folder).arg(host.root()).status().unwrap();
        assert!(status.success());
    }
    let package = env!("CARGO_MANIFEST_DIR");
    for (name, text) in [("ask.py", include_str!("grains/ask.py")), ("calls.json", include_str!("grains/calls.json"))] {
        host.write(&format!("/root/{name}"), text);
    }
    host.sh(
        "mkdir -p /etc/salt/minion.d /srv/t/sub/deep; cd /srv/t; printf 'one\\ntwo\\n' > a.txt; printf 'three\\n' > sub/b.txt; : > sub/deep/empty
        ln -s ../a.txt sub/link; ln -s nowhere sub/broken; ln -s deep sub/dirlink; printf '%2000s' x > big.bin; chmod 640 a.txt
        printf 'id: h1\\nfile_client: local\\ngrains:\\n  gone: 1\\n' > /etc/salt/minion
        printf 'grains:\\n  role: web\\n  deep: {x: 1}\\n' > /etc/salt/minion.d/a.conf; printf 'grains:\\n  deep: {y: 2}\\n' > /etc/salt/minion.d/b.conf
        printf 'role: none\\nsite: here\\nlist: [1, 2]\\n' > /etc/salt/grains",
    )
    .ok();
    let said = host.sh(&format!("{}/bin/python /root/ask.py /root/calls.json 2>/dev/null", venv.display())).ok();
    let text = said.stdout.lines().find_map(|line| line.strip_prefix("ANSWERS")).unwrap_or_else(|| panic!("{said}"));
    let salt: Value = serde_json::from_str(text).unwrap();
    lab.write("states/top.sls", "base: {}\n");
    lab.commit("nothing");
    let answer = |args: &[&str]| -> Value {
        let output = lab.basalt([&["call", "h1", "--json"], args].concat());
        let line: Value = serde_json::from_str(output.stdout.lines().next().unwrap_or("{}")).unwrap_or_default();
        line.get("value").cloned().unwrap_or_else(|| Value::from(format!("error: {}", line["message"].as_str().unwrap_or(&output.stdout))))
    };
    let mut wrong = Vec::new();
    let ours = answer(&["grains.items"]);
    let theirs = salt["grains"].as_object().unwrap();
    for (name, value) in theirs.iter().filter(|(name, _)| !NOT_COMPARED.contains(&name.as_str())) {
        let mut own = ours[name].clone();
        let mut value = value.clone();
        for side in [&mut own, &mut value] {
            if let Some(map) = side.as_object_mut().filter(|_| name == "systemd") {
                map.remove("features");
            }
        }
        if own != value {
            wrong.push(format!("grain {name}: {own}, Salt says {value}"));
        }
    }
    for name in ours.as_object().unwrap().keys().filter(|name| !theirs.contains_key(*name)) {
        wrong.push(format!("grain {name} is not Salt's"));
    }
    let calls: Vec<(String, Vec<Value>, serde_json::Map<String, Value>)> =
        serde_json::from_str(&std::fs::read_to_string(format!("{package}/tests/grains/calls.json")).unwrap()).unwrap();
    for ((function, args, kwargs), salt) in calls.iter().zip(salt["answers"].as_array().unwrap()) {
        let mut line = vec![function.clone()];
        line.extend(args.iter().map(|a| a.as_str().map_or_else(|| a.to_string(), |text| format!("'{}'", text.replace('\'', "''")))));
        line.extend(kwargs.iter().map(|(k, v)| format!("{k}={v}")));
        let ours = settled(function, answer(&line.iter().map(String::as_str).collect::<Vec<_>>()));
        let salt = settled(function, salt.clone());
        let failed = |value: &Value| value.as_str().is_some_and(|text| text.starts_with("error: "));
        let same = ours == salt || (failed(&ours) && failed(&salt));
        let shown = line.join(" ");
        let known = DIFFERENT.iter().find(|(call, _)| shown == *call);
        match (same, known) {
            (false, None) => wrong.push(format!("{shown}\n  ours {ours}\n  Salt {salt}")),
            (true, Some((_, why))) => wrong.push(format!("{shown} is the same now; take it off the list ({why})")),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{} differences over {} grains and {} calls:\n{}", wrong.len(), theirs.len(), calls.len(), wrong.join("\n"));
}
