//! `docs/json.md` is true: every line that a command writes has a documented type and exactly the documented fields.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// Type → fields, as the page has them.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/json.md")).unwrap();
    let mut types: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let (mut current, mut steps) = (None, false);
    for line in page.lines() {
        if let Some(name) = line.strip_prefix("### ") {
            current = Some(name.to_owned());
            steps = false;
            types.insert(name.to_owned(), BTreeSet::from(["type".to_owned()]));
        } else if line.starts_with("| step field") {
            steps = true;
        } else if let (Some(name), Some(row)) = (&current, line.strip_prefix("| `")) {
            let fields = row.split(" | ").next().unwrap().split('`').map(str::trim).filter(|f| !f.is_empty());
            let of = if steps { "step".to_owned() } else { name.clone() };
            types.entry(of).or_default().extend(fields.map(str::to_owned));
        }
    }
    types
}

fn fields(value: &Value) -> BTreeSet<String> {
    value.as_object().unwrap().keys().cloned().collect()
}

/// What a watch says until the commit is settled.
fn watched(mut command: Command) -> String {
    let mut watch = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut told = String::new();
    for line in BufReader::new(watch.stdout.take().unwrap()).lines().map_while(Result::ok) {
        told += &format!("{line}\n");
        if line.contains("\"settled\"") {
            break;
        }
    }
    watch.kill().unwrap();
    watch.wait().unwrap();
    told
}

#[test]
fn every_line_has_exactly_the_documented_fields() {
    let documented = documented();
    let folder = tempfile::tempdir().unwrap();
    let repository = folder.path().join("salt");
    let command = |args: &[&str], place: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_basalt"));
        command.args(args).current_dir(place);
        for (name, place) in [("XDG_STATE_HOME", "state"), ("XDG_CACHE_HOME", "cache"), ("XDG_CONFIG_HOME", "config")] {
            command.env(name, folder.path().join(place));
        }
        command.env("BASALT_CACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("agents"));
        command
    };
    let basalt = |args: &[&str], place: &Path| String::from_utf8(command(args, place).output().unwrap().stdout).unwrap();
    basalt(&["init", "salt"], folder.path());
    let root = folder.path().join("root");
    std::fs::create_dir_all(root.join("etc")).unwrap();
    std::fs::write(
        repository.join("roster.yaml"),
        format!("web1:\n  host: local\n  root: {}\nweb2:\n  host: local\n  root: /nonexistent\nhere:\n  host: local\n", root.display()),
    )
    .unwrap();
    std::fs::write(
        repository.join("states/common/init.sls"),
        "/etc/a:\n  file.managed:\n    - contents: a\n    - mode: 0644\necho hello:\n  cmd.run: []\n",
    )
    .unwrap();
    std::fs::write(
        repository.join("states/steps.sls"),
        "a:\n  salt.state:\n    - tgt: web1\n    - sls: common\nb:\n  salt.function:\n    - name: test.ping\n    - tgt: web1\n",
    )
    .unwrap();
    std::fs::create_dir(repository.join("nodes")).unwrap();
    std::fs::write(repository.join("nodes/node1.yaml"), format!("host: local\nroot: {}\n", root.display())).unwrap();
    let script = "git add -A; git -c user.name=t -c user.email=t@localhost commit -qm nodes";
    assert!(Command::new("sh").args(["-ec", script]).current_dir(&repository).status().unwrap().success());
    let mut lines = String::new();
    for args in [
        &["plan", "--json", "web*"][..],
        &["apply", "--yes", "--json", "web*"],
        &["apply", "--yes", "--json", "web1"],
        &["rollback", "--yes", "--json", "web1"],
        &["runs", "--json"],
        &["call", "here", "test.ping", "--json"],
        &["run", "here", "--json", "--", "echo", "hello"],
        &["show", "low", "--json", "here"],
        &["lint", "--json"],
        &["plan", "--json", "nobody"],
        &["diff", "--json", "HEAD"],
        &["orchestrate", "steps", "--yes", "--json"],
        &["role", "recalculate", "--yes", "--json"],
        &["role", "show", "--json"],
        &["node", "list", "--json"],
    ] {
        lines += &basalt(args, &repository);
    }
    lines += &watched(command(&["watch", "--json", "web1"], &repository));
    let mut seen = BTreeSet::new();
    for line in lines.lines() {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let kind = value["type"].as_str().unwrap();
        let expected = documented.get(kind).unwrap_or_else(|| panic!("{kind} is not in docs/json.md"));
        assert_eq!(&fields(&value), expected, "{line}");
        if kind == "host_planned" {
            for step in value["changes"].as_array().unwrap() {
                assert_eq!(&fields(step), &documented["step"], "{line}");
            }
        }
        seen.insert(kind.to_owned());
    }
    let wanted = "plan_started host_planned host_failed run_started output state_done host_done rolled_back summary error run answer seen exited diff_started difference diff_summary finding linted \
                  cluster role role_changed check node committed decision \
                  orchestration_started job_started job_done orchestration_done";
    assert_eq!(seen, wanted.split(' ').map(str::to_owned).collect::<BTreeSet<_>>());
}
