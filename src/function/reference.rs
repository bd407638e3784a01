//! What the reference says of state functions beside their tables of arguments: what a plan can tell, what a rollback restores, an example.
//! It stands in `reference/MODULE.yaml`, a file for each module, and only the controller carries it:
//!
//! ```yaml
//! about: what the module is about, in one line
//! plan: what a plan can tell, of all functions of the module
//! rollback: what a rollback restores, and what it cannot
//! functions:
//!   managed:
//!     plan: …            # optional, as `rollback`: where this function is another case than its module
//!     example: |         # states that do something useful on a fresh host
//!       /etc/motd:
//!         file.managed:
//!           - contents: Welcome.
//!     files: {path: text}   # optional: more files of `states/`
//!     pillar: {key: value}  # optional
//!     test:                 # optional: how tests/reference.rs runs the example
//!       host: systemd       #   `light` (sshd only, the default), `systemd`, or `none`: the lab has not what it takes, so it is only compiled
//!       before: sh …        #   makes what is there first; `/dev/vdb` and `/dev/vdc` are empty disks, in the example too
//!       make: sh …          #   makes files of `states/` on the controller
//!       instead: {nginx: lab-leaf}   # words of the example that stand for what the lab has
//!       same: True          #   nothing is to change: it only looks
//!       again: True         #   every plan wants it again (an unguarded command)
//!       fails: True         #   failing is what it is there for
//!       one_way: True       #   the plan says that it does not come back
//! ```
//!
//! What differs from Salt is taken from `docs/compatibility.md`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Entry;
use crate::diagnostic::{Code, Diagnostic, Result};

macro_rules! files {
    ($($module:ident)*) => {
        &[$((stringify!($module), include_str!(concat!("reference/", stringify!($module), ".yaml")))),*]
    };
}

/// The state modules, as an SLS calls them, each with its file.
const FILES: &[(&str, &str)] = files! {
    alias alternatives archive basalt blockdev btrfs cmd cron debconf event file git grains group host ini iptables kmod locale lvm module
    mount nfs_export pip pkg pkgrepo postgres_database postgres_user service ssh_auth ssh_known_hosts sysctl test timezone user virtualenv
};

const COMPATIBILITY: &str = include_str!("../../docs/compatibility.md");

/// What the reference says of a state module.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Module {
    pub about: String,
    pub plan: String,
    pub rollback: String,
    /// By their names without the module.
    pub functions: BTreeMap<String, About>,
}

/// What it says of one function.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    pub plan: Option<String>,
    pub rollback: Option<String>,
    pub example: String,
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    pub pillar: Option<serde_json::Value>,
    #[serde(default)]
    pub test: Test,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Test {
    pub host: Where,
    pub before: String,
    pub make: String,
    pub instead: BTreeMap<String, String>,
    pub same: bool,
    pub again: bool,
    pub fails: bool,
    pub one_way: bool,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Where {
    #[default]
    Light,
    Systemd,
    None,
}

/// The names of all state modules.
pub fn modules() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}

/// The functions of a module.
pub fn functions(module: &str) -> impl Iterator<Item = &'static Entry> {
    super::entries().filter(move |entry| entry.name.split_once('.').is_some_and(|(of, _)| of == module))
}

/// What the reference says of this module.
pub fn module(name: &str) -> Result<Module> {
    let Some((_, text)) = FILES.iter().find(|(known, _)| *known == name) else {
        return Err(Diagnostic::new(Code::Internal, format!("the module {name} has no file in src/function/reference")).into());
    };
    let file = format!("src/function/reference/{name}.yaml");
    let value = crate::yaml::load(text, &file)?;
    let read = serde_json::to_value(&value).and_then(serde_json::from_value);
    read.map_err(|fault| Diagnostic::new(Code::Internal, format!("{file} is not as src/function/reference.rs says: {fault}")).into())
}

/// What docs/compatibility.md lists as different from Salt.
pub struct Difference {
    /// Functions (`file.line`, `nfs_export.ganesha_*`), all of a module (`mount.*`), or a module (`git`) of which functions are missing.
    names: Vec<&'static str>,
    /// A sentence or two of Markdown.
    pub text: String,
}

impl Difference {
    /// Whether it is one of this function and not of its whole module.
    pub fn is_of(&self, function: &str) -> bool {
        self.names.iter().any(|name| {
            *name == function || name.strip_suffix('*').is_some_and(|start| !start.ends_with('.') && function.starts_with(start))
        })
    }

    pub fn is_of_all(&self, module: &str) -> bool {
        self.names.iter().any(|name| *name == module || name.strip_suffix(".*") == Some(module))
    }
}

/// The rows of the tables in the section of state functions: what is not there, what is refused, what was decided otherwise.
pub fn differences() -> Vec<Difference> {
    let section = COMPATIBILITY.split("\n## ").find(|section| section.starts_with("State functions\n")).unwrap_or_default();
    let (mut found, mut head) = (Vec::new(), "");
    for line in section.lines() {
        let Some(row) = line.strip_prefix('|').and_then(|line| line.strip_suffix('|')) else {
            head = "";
            continue;
        };
        if head.is_empty() {
            head = row;
        }
        if head == row || row.starts_with("---") {
            continue;
        }
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let text = match cells[..] {
            [_, what] if head.starts_with(" module") => format!("Not there: {what}."),
            [_, what] => format!("Refused: {what}."),
            [what, salt, here, why] => {
                // The name alone says nothing where the function's own differences are listed.
                let what = if what.split('`').count() == 3 && what.starts_with('`') && what.ends_with('`') { "" } else { what };
                let parts = [("", what), ("Salt: ", salt), ("Here: ", here), ("Why: ", why)];
                let parts = parts.iter().filter(|(_, text)| !text.is_empty()).map(|(name, text)| format!("{name}{text}."));
                parts.collect::<Vec<_>>().join(" ")
            }
            _ => continue,
        };
        let names = cells.first().map(|cell| cell.split('`').skip(1).step_by(2).collect()).unwrap_or_default();
        found.push(Difference { names, text });
    }
    found
}
