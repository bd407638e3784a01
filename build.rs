//! Builds the agent and embeds it: `cargo build` alone leaves a controller that carries its host side.
//!
//! With the feature `controller` it runs cargo once more, for the binary `basalt-agent` without default features, statically linked,
//! into `target/agent`. The library finds the result by `env!("BASALT_AGENT")` (a path for `include_bytes!`), its SHA-256 by
//! `env!("BASALT_AGENT_HASH")` and the machine it is for, as `uname -sm` names it, by `env!("BASALT_AGENT_MACHINE")`.
//!
//! `BASALT_SKIP_AGENT=1` embeds an empty file instead, for editors and quick checks; such a controller carries no agent and says so.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use sha2::{Digest, Sha256};

/// What the agent is made of.
const SOURCES: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "build.rs",
    "src/agent",
    "src/announce",
    "src/bin/basalt-agent.ld",
    "src/bin/basalt-agent.rs",
    "src/diagnostic.rs",
    "src/function",
    "src/lib.rs",
    "src/monitor",
    "src/object",
    "src/plan.rs",
    "src/secret.rs",
    "src/system",
    "src/value.rs",
];

/// What makes the agent of a release small beyond its profile: a panic aborts there, so no code needs tables for unwinding, and at a
/// fixed address nothing needs the table of what to relocate.
const SMALL: &str = "-C force-unwind-tables=no -C relocation-model=static";

/// Where Rust links with its own lld: functions that came out equal are kept once, and the tables for unwinding that precompiled code
/// (the standard library, libc) still brings are left out.
const SMALL_BY_LLD: &str = "-C link-arg=-Wl,--icf=all -C link-arg=-Wl,-T,src/bin/basalt-agent.ld";

/// How many bytes the agent of a release may have: every host gets it over its own line.
const LIMIT: u64 = 3_000_000;

fn main() {
    println!("cargo::rerun-if-env-changed=BASALT_SKIP_AGENT");
    let out = PathBuf::from(set("OUT_DIR"));
    if env::var_os("CARGO_FEATURE_CONTROLLER").is_none() {
        // This is the agent's own build.
        println!("cargo::rerun-if-changed=build.rs");
        return;
    }
    SOURCES.iter().for_each(|path| println!("cargo::rerun-if-changed={path}"));
    let place = out.join("basalt-agent");
    if env::var_os("BASALT_SKIP_AGENT").is_some_and(|skip| skip != "0") {
        fs::write(&place, []).expect("write the empty agent");
    } else {
        fs::copy(build(&out), &place).expect("copy the agent");
    }
    let bytes = fs::read(&place).expect("read the agent");
    let hash = Sha256::digest(&bytes).iter().fold(String::new(), |mut hash, byte| {
        write!(hash, "{byte:02x}").expect("write to a string");
        hash
    });
    println!("cargo::rustc-env=BASALT_AGENT={}", place.display());
    println!("cargo::rustc-env=BASALT_AGENT_HASH={hash}");
    println!("cargo::rustc-env=BASALT_AGENT_MACHINE={}", machine(&set("TARGET")));
}

/// Runs cargo for the agent and gives the binary's path.
fn build(out: &Path) -> PathBuf {
    let target = set("TARGET");
    let profile = if set("PROFILE") == "release" { "agent" } else { "agent-dev" };
    let folder = target_folder(out).join("agent");
    let mut cargo = Command::new(set("CARGO"));
    cargo.current_dir(set("CARGO_MANIFEST_DIR"));
    // Cargo tells build scripts about the build under way in variables that would bend the one we start; what the user set for all of
    // cargo (its home, its network, its registries) stays.
    for (name, _) in env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))) {
        let of_this_build = ["CARGO_FEATURE_", "CARGO_CFG_", "CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_PROFILE_", "CARGO_BUILD_", "DEP_"];
        let alone = ["CARGO_ENCODED_RUSTFLAGS", "CARGO_MAKEFLAGS", "CARGO_TARGET_DIR", "RUSTC", "RUSTDOC", "RUSTC_WRAPPER"];
        let more = ["RUSTC_WORKSPACE_WRAPPER", "RUSTFLAGS", "TARGET", "HOST", "PROFILE", "OUT_DIR", "OPT_LEVEL", "DEBUG", "NUM_JOBS"];
        let flags = name.starts_with("CARGO_TARGET_") && name.ends_with("_RUSTFLAGS");
        if flags || of_this_build.iter().any(|p| name.starts_with(p)) || alone.contains(&name.as_str()) || more.contains(&name.as_str()) {
            cargo.env_remove(name);
        }
    }
    // With an explicit target the flags go to the agent alone and spare proc-macros and build scripts, which cannot be static.
    let mut flags = vec!["-C target-feature=+crt-static"];
    if profile == "agent" {
        flags.push(SMALL);
        if target == "x86_64-unknown-linux-gnu" {
            flags.push(SMALL_BY_LLD);
        }
    }
    cargo.env("RUSTFLAGS", flags.join(" "));
    cargo.args(["build", "--quiet", "--locked", "--package", "basalt", "--bin", "basalt-agent", "--no-default-features"]);
    cargo.args(["--profile", profile, "--target", &target, "--target-dir"]).arg(&folder);
    let built = cargo.status().expect("start cargo for the agent");
    assert!(built.success(), "the agent did not build (BASALT_SKIP_AGENT=1 builds the controller without it)");
    let agent = folder.join(target).join(profile).join("basalt-agent");
    let size = fs::metadata(&agent).expect("look at the agent").len();
    if profile == "agent" && size > LIMIT {
        println!("cargo::warning=the agent has {size} bytes, {} more than it may have (build.rs, LIMIT)", size - LIMIT);
    }
    agent
}

/// The target folder of the build under way: the one with cargo's tag above `OUT_DIR`.
fn target_folder(out: &Path) -> &Path {
    out.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists()).unwrap_or(out)
}

/// As `uname -sm` on such a machine.
fn machine(target: &str) -> String {
    let arch = target.split('-').next().unwrap_or(target);
    let arch = match arch {
        "armv7" => "armv7l",
        "i586" => "i686",
        "riscv64gc" => "riscv64",
        other => other,
    };
    format!("Linux {arch}")
}

fn set(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name} for build scripts"))
}
