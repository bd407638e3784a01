//! The sample state repository that this repository also is compiles for every host of its fleet, to what real Salt makes of it.
//!
//! `fixtures/expected/ID.txt` was written by Salt 3008 (the functions and ids in execution order); change it together with the states.

use std::path::Path;
use std::process::Command;

#[test]
fn every_host_of_the_sample_compiles_as_with_salt() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let expected = package.join("fixtures/expected");
    let mut hosts = 0;
    for file in std::fs::read_dir(expected).unwrap().map(|entry| entry.unwrap().path()) {
        let host = file.file_stem().unwrap().to_str().unwrap();
        let grains = package.join(format!("fixtures/grains/{host}.json"));
        let output = Command::new(env!("CARGO_BIN_EXE_basalt"))
            .args(["show", "low", "--json", "--grains", grains.to_str().unwrap(), "--repo", package.to_str().unwrap()])
            .output()
            .unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(output.status.success(), "{host}: {answer:#}");
        let text = |chunk: &serde_json::Value, key: &str| chunk[key].as_str().unwrap_or_default().to_owned();
        let low: String = answer["low"]
            .as_array()
            .unwrap()
            .iter()
            .map(|chunk| format!("{}.{} {}\n", text(chunk, "state"), text(chunk, "fun"), text(chunk, "__id__")))
            .collect();
        assert_eq!(low, std::fs::read_to_string(&file).unwrap(), "{host}");
        hosts += 1;
    }
    assert_eq!(hosts, 3);
}

/// The roles of a cluster and its orchestrations compile, though their hosts are not there.
#[test]
fn every_role_and_every_orchestration_compiles() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = Vec::new();
    for folder in ["roles", "orchestration"] {
        let files = std::fs::read_dir(package.join(folder)).unwrap().map(|entry| entry.unwrap().path());
        names.extend(files.map(|file| format!("{folder}.{}", file.file_stem().unwrap().to_str().unwrap())));
    }
    for role in basalt::fleet::role::Role::ALL {
        assert!(names.contains(&format!("roles.{role}")), "there are no states for the role {role}");
    }
    let pillar = r#"{"node": "n1", "role": "data", "new_node": {"hostname": "n2"}}"#;
    for name in names {
        let output = Command::new(env!("CARGO_BIN_EXE_basalt"))
            .args(["show", "low", "--json", "--pillar", pillar, &name, "--repo", package.to_str().unwrap(), "--grains"])
            .arg(package.join("fixtures/grains/edge1.json"))
            .output()
            .unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(output.status.success(), "{name}: {answer:#}");
        // Whom a removal leaves is known only when there are nodes.
        let jobs = answer["low"].as_array().unwrap();
        assert!(!jobs.is_empty() || name == "orchestration.node_removal", "{name}");
        for low in jobs {
            let function = format!("{}.{}", low["state"].as_str().unwrap(), low["fun"].as_str().unwrap());
            assert!(function.starts_with("salt.") || basalt::function::find(&function).is_some(), "{name}: {function}");
        }
    }
}
