//! A plan in a file: what was shown, to be applied exactly so or not at all.
//!
//! The file is one JSON document and a closing line with its SHA-256, so that a truncated one is known for what it is. It holds
//! no contents: apply compiles the same tree again, plans again and compares fingerprints.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::event::Source;
use crate::agent::protocol::Prune;
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::plan::{Hash, HostPlan};

/// Grows when a plan of an older basalt can no longer be applied.
pub const FORMAT: u32 = 1;
/// A plan that nobody applied for so long describes another world.
pub const LIFETIME: u64 = 24 * 3600;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedPlan {
    pub format: u32,
    pub basalt: String,
    pub source: Source,
    /// What was planned: the arguments that decide it.
    pub scope: Scope,
    /// Seconds since the epoch.
    pub created: u64,
    pub expires: u64,
    pub hosts: BTreeMap<String, SavedHost>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scope {
    /// `highstate`, or the SLS that were named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sls: Vec<String>,
    /// Hash of the pillar given on the command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pillar: Option<Hash>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prune: Option<Prune>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedHost {
    /// What tells this machine from another that answers to the same name.
    pub machine: String,
    pub plan: HostPlan,
}

impl SavedPlan {
    pub fn write(&self, path: &Path) -> Result<()> {
        use std::io::Write;
        use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
        let failed = |e: std::io::Error| Diagnostic::io(format_args!("write the plan {}", path.display()), &e);
        let text = serde_json::to_string(self).map_err(|e| failed(e.into()))?;
        let digest = Hash::of(text.as_bytes());
        let mut file = std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path).map_err(failed)?;
        // One that was there keeps its mode; what is no file (/dev/stdout) is nobody's to change.
        if file.metadata().map_err(failed)?.is_file() {
            file.set_permissions(std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        }
        file.write_all(format!("{text}\n{digest}\n").as_bytes()).map_err(failed)?;
        Ok(())
    }

    /// Reads a plan and refuses one that is damaged, of another basalt, or too old. `now` in seconds since the epoch.
    pub fn read(path: &Path, now: u64) -> Result<SavedPlan> {
        let name = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|e| Diagnostic { code: Code::Usage, ..Diagnostic::io(format_args!("read the plan {name}"), &e) })?;
        let damaged = |why: &str| {
            Diagnostic::new(Code::Damaged, format!("{name} is no whole plan: {why}")).hint("make it again with `basalt plan -o FILE`")
        };
        let (body, digest) = text.strip_suffix('\n').and_then(|t| t.rsplit_once('\n')).ok_or_else(|| damaged("its end is missing"))?;
        if Hash::of(body.as_bytes()).0 != digest {
            return Err(damaged("it was cut off or changed").into());
        }
        let format = serde_json::from_str::<Format>(body).map_err(|e| damaged(&e.to_string()))?;
        if format.format != FORMAT {
            let text = format!("{name} was made by basalt {}, this is {}", format.basalt, env!("CARGO_PKG_VERSION"));
            return Err(Diagnostic::new(Code::Stale, text).hint("plan again").into());
        }
        let plan: SavedPlan = serde_json::from_str(body).map_err(|e| damaged(&e.to_string()))?;
        if now > plan.expires {
            return Err(Diagnostic::new(Code::Stale, format!("{name} is older than a day")).hint("plan again").into());
        }
        Ok(plan)
    }

    /// Whether what a host would do now is what the plan says it would. The difference is told in words.
    pub fn compare(&self, host: &str, machine: &str, now: &HostPlan) -> Result<()> {
        let stale = |why: String| {
            Diagnostic::new(Code::Stale, format!("the saved plan no longer holds for {host}: {why}"))
                .detail("Nothing was touched on any host.")
                .hint("plan again, look at it, and apply that")
        };
        let Some(then) = self.hosts.get(host) else { return Err(stale("it does not name this host".into()).into()) };
        if then.machine != machine {
            return Err(stale("another machine answers under this name".into()).into());
        }
        if then.plan.generation != now.generation {
            return Err(stale("another run has been there since".into()).into());
        }
        if then.plan.fingerprint != now.fingerprint {
            let why = difference(&then.plan, now).unwrap_or_else(|| "what it was made from has changed".into());
            return Err(stale(why).into());
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Format {
    format: u32,
    basalt: String,
}

/// The first step in which two plans differ.
fn difference(then: &HostPlan, now: &HostPlan) -> Option<String> {
    let name = |s: &crate::plan::Step| format!("{} {}", s.state, s.name);
    for step in &now.steps {
        match then.steps.iter().find(|s| s.low == step.low && s.id == step.id) {
            None => return Some(format!("{} would now change too", name(step))),
            Some(old) if old != step => return Some(format!("{} would now change in another way", name(step))),
            Some(_) => {}
        }
    }
    then.steps
        .iter()
        .find(|s| !now.steps.iter().any(|n| n.low == s.low && n.id == s.id))
        .map(|s| format!("{} would no longer change", name(s)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> SavedPlan {
        let host = HostPlan {
            steps: Vec::new(),
            unchanged: 1,
            fingerprint: Hash::of(b"x"),
            generation: 3,
            commands: Vec::new(),
            notices: Vec::new(),
        };
        SavedPlan {
            format: FORMAT,
            basalt: "0".into(),
            source: Source::default(),
            scope: Scope::default(),
            created: 100,
            expires: 100 + LIFETIME,
            hosts: BTreeMap::from([("web1".to_owned(), SavedHost { machine: "m".into(), plan: host })]),
        }
    }

    #[test]
    fn a_plan_reads_back_and_every_truncation_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan");
        // Whoever could read what was there cannot read this.
        std::fs::write(&path, "").unwrap();
        plan().write(&path).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap()) & 0o777, 0o600);
        assert_eq!(SavedPlan::read(&path, 200).unwrap(), plan());
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(SavedPlan::read(&path, 200).unwrap_err().code, Code::Damaged, "cut at {cut}");
        }
        assert_eq!(SavedPlan::read(&folder.path().join("none"), 0).unwrap_err().code, Code::Usage);
    }

    #[test]
    fn an_old_plan_and_another_world_are_stale() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan");
        plan().write(&path).unwrap();
        assert_eq!(SavedPlan::read(&path, 100 + LIFETIME + 1).unwrap_err().code, Code::Stale);
        let saved = plan();
        let now = saved.hosts["web1"].plan.clone();
        assert!(saved.compare("web1", "m", &now).is_ok());
        assert!(saved.compare("web1", "other", &now).unwrap_err().summary.contains("another machine"));
        assert!(saved.compare("web2", "m", &now).unwrap_err().summary.contains("does not name"));
        let later = HostPlan { generation: 4, ..now.clone() };
        assert!(saved.compare("web1", "m", &later).unwrap_err().summary.contains("another run"));
        let other = HostPlan { fingerprint: Hash::of(b"y"), ..now };
        assert_eq!(saved.compare("web1", "m", &other).unwrap_err().code, Code::Stale);
    }
}
