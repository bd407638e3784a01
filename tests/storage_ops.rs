//! Storage operations of the sample (`states/storage`): the numbers by role and scale, against the tables of the design; and what is refused before any host is touched.

use std::io::Write;
use std::process::Command;

const NAMES: [&str; 6] = ["warning", "compress", "cleanup", "degraded", "emergency", "critical"];

/// What a node with these grains gets of `storage`, under this pillar: its low data, or the error.
fn low(pillar: &str, grains: &str) -> Result<serde_json::Value, String> {
    let mut file = tempfile::NamedTempFile::with_suffix(".json").unwrap();
    file.write_all(grains.as_bytes()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_basalt"));
    command
        .args(["show", "low", "storage", "--json", "--repo", env!("CARGO_MANIFEST_DIR"), "--pillar", pillar, "--grains"])
        .arg(file.path());
    let output = command.output().unwrap();
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout).unwrap()),
        false => Err(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))),
    }
}

fn grains(role: &str, scale: &str) -> String {
    format!(r#"{{"id": "n1", "role": "{role}", "scale": "{scale}"}}"#)
}

fn numbers(pillar: &str, role: &str, scale: &str) -> Result<Vec<i64>, String> {
    let answer = low(pillar, &grains(role, scale))?;
    let config = answer["low"].as_array().unwrap().iter().find(|chunk| chunk["__id__"] == "/etc/eos/storage-ops.yaml").unwrap();
    Ok(NAMES.map(|name| config["context"]["thresholds"][name].as_i64().unwrap()).to_vec())
}

#[test]
fn role_and_scale_decide_the_numbers_by_the_tables() {
    let single = [60, 70, 75, 80, 85, 90];
    let small = [65, 75, 80, 85, 90, 95];
    let large = [70, 80, 85, 90, 93, 95];
    for (role, scale, expected) in [
        ("monolith", "single", single),
        ("monolith", "distributed", single),
        ("app", "single", single),
        ("app", "small", small),
        ("compute", "medium", large),
        ("message", "distributed", large),
        // A role's three replace the row's, and the others follow from them.
        ("edge", "small", [70, 75, 80, 83, 86, 90]),
        ("edge", "distributed", [70, 75, 80, 83, 86, 90]),
        ("core", "medium", [65, 70, 75, 78, 81, 85]),
        ("data", "single", [60, 65, 70, 73, 76, 80]),
    ] {
        assert_eq!(numbers("{}", role, scale).unwrap(), expected, "{role} {scale}");
    }
    // What is known of neither is a node by itself.
    let answer = low("{}", r#"{"id": "n1"}"#).unwrap();
    assert_eq!(answer["low"][0]["context"]["role"], "monolith");
    // A pillar has the last word, for single numbers too.
    assert_eq!(numbers(r#"{"storage_thresholds": {"critical": 98}}"#, "app", "single").unwrap(), [60, 67, 75, 82, 90, 98]);
    assert_eq!(numbers(r#"{"storage_thresholds": {"degraded": 84}}"#, "app", "single").unwrap(), [60, 70, 75, 84, 85, 90]);
    assert_eq!(numbers(r#"{"role": "edge", "scale": "small"}"#, "app", "single").unwrap(), [70, 75, 80, 83, 86, 90]);
}

#[test]
fn numbers_that_cannot_be_are_refused_before_any_host_is_touched() {
    for (pillar, role, scale, said) in [
        (
            r#"{"storage_thresholds": {"degraded": 90}}"#,
            "app",
            "single",
            "emergency (85) is to be above degraded (90) for role app, scale single",
        ),
        (r#"{"storage_thresholds": {"critical": 101}}"#, "edge", "small", "critical is to be a whole number from 0 to 100, found 101"),
        (r#"{"storage_thresholds": {"warning": -1}}"#, "edge", "small", "warning is to be a whole number from 0 to 100, found -1"),
        (r#"{"storage_thresholds": {"cleanup": "80"}}"#, "edge", "small", "cleanup is to be a whole number"),
        (r#"{"storage_thresholds": {"compress": 70.5}}"#, "edge", "small", "compress is to be a whole number from 0 to 100, found 70.5"),
        // Too near for the others to lie between.
        (r#"{"storage_thresholds": {"cleanup": 89}}"#, "edge", "small", "degraded (89) is to be above cleanup (89)"),
        (r#"{"storage_thresholds": {"hot": 70}}"#, "edge", "small", "storage_thresholds: hot is not one of warning, compress"),
        ("{}", "edgy", "small", "role edgy is not one of monolith, edge"),
        ("{}", "edge", "huge", "scale huge is not one of single, small"),
    ] {
        let refused = numbers(pillar, role, scale).unwrap_err();
        assert!(refused.contains(said) && refused.contains("numbers.jinja"), "{pillar}: {refused}");
    }
}
