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
