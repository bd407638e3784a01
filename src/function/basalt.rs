//! basalt.*: what is basalt's own on a host. Ours.

use super::args::Args;
use super::file::place::{self, attrs};
use super::{Arg, ArgKind, Entry, Function, There, Want};
use crate::diagnostic::{Diagnostic, Result};
use crate::plan::{Key, Low};

pub const FUNCTIONS: &[Entry] = &[Entry {
    name: "basalt.agent_present",
    doc: "The agent that plans this is kept at a path, for units that run it (`basalt-agent monitor`).",
    args: &[Arg::new("name", ArgKind::Str, "", "The path of the program.")],
    watches: false,
    parse,
}];

struct AgentPresent {
    path: String,
}

fn parse(low: &Low) -> Result<Box<dyn Function>> {
    Ok(Box::new(AgentPresent { path: place::name(&Args(low))? }))
}

impl Function for AgentPresent {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        Ok(std::iter::once(place::key(&self.path)).chain(place::parent_keys(there, &self.path, false)).collect())
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        let own = std::fs::read("/proc/self/exe").map_err(|e| Diagnostic::io("read the agent's own program", &e))?;
        let mut wants = place::parents(there, &self.path, None)?;
        let hash = there.put(own);
        let wanted = [("kind", "file"), ("content", hash.0.as_str()), ("mode", "0755"), ("user", "root"), ("group", "root")];
        wants.push((place::key(&self.path), attrs(wanted)));
        Ok(Want::Is(wants))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Host, want};
    use crate::plan::Hash;
    use serde_json::json;

    #[test]
    fn the_program_that_plans_is_the_file() {
        let mut host = Host::default();
        host.has("file:/usr", json!({"kind": "directory"}));
        host.has("file:/usr/sbin", json!({"kind": "directory"}));
        let wanted = want(&host, "basalt.agent_present", json!({"name": "/usr/sbin/basalt-agent"})).unwrap();
        let own = Hash::of(&std::fs::read("/proc/self/exe").unwrap());
        let file = json!({"kind": "file", "content": own.0, "mode": "0755", "user": "root", "group": "root"});
        assert_eq!(wanted, json!([["file:/usr/sbin/basalt-agent", file]]));
        assert!(want(&host, "basalt.agent_present", json!({"name": "sbin/agent"})).is_err());
    }
}
