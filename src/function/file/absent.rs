//! file.absent: nothing at this path. file.exists, file.missing: fail unless something is, or is not, there.

use super::place::{self, failed, key, kind};
use crate::diagnostic::Result;
use crate::function::args::Args;
use crate::function::{Entry, Function, There, Want};
use crate::plan::{Key, Low};
use crate::value::Attrs;

pub const ABSENT: Entry = Entry {
    name: "file.absent",
    doc: "Nothing at this path: a directory goes with everything in it.",
    args: &[super::NAME],
    watches: false,
    parse: |low| parse(low, Goal::Absent),
};

pub const EXISTS: Entry = Entry {
    name: "file.exists",
    doc: "Fails unless something is at this path.",
    args: &[super::NAME],
    watches: false,
    parse: |low| parse(low, Goal::Exists),
};

pub const MISSING: Entry = Entry {
    name: "file.missing",
    doc: "Fails if something is at this path.",
    args: &[super::NAME],
    watches: false,
    parse: |low| parse(low, Goal::Missing),
};

/// Where packages put their files.
const PACKAGES: [&str; 8] = ["/bin/", "/etc/", "/lib", "/opt/", "/sbin/", "/srv/", "/usr/", "/var/"];

enum Goal {
    Absent,
    Exists,
    Missing,
}

struct Presence {
    path: String,
    goal: Goal,
}

fn parse(low: &Low, goal: Goal) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let path = place::name(&args)?;
    if path == "/" && matches!(goal, Goal::Absent) {
        return Err(args.error("/ cannot be absent"));
    }
    Ok(Box::new(Presence { path, goal }))
}

impl Function for Presence {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        Ok(match self.goal {
            Goal::Absent => vec![key(&self.path)],
            // A link that leads nowhere is nothing, as for Python's os.path.exists.
            Goal::Exists | Goal::Missing => place::follow_keys(there, &self.path),
        })
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        let path = &self.path;
        if let Goal::Absent = self.goal {
            let brings = PACKAGES.iter().any(|place| path.starts_with(place)) && !path.starts_with("/usr/local/");
            if brings && there.packages_come() && kind(&there.get(&key(path))).is_none() {
                return Ok(Want::Unknown(format!("whether a package brings {path}")));
            }
            return Ok(Want::Is(vec![(key(path), Attrs::new())]));
        }
        let exists = kind(&there.get(&key(&place::follow(there, path)?))).is_some();
        match (&self.goal, exists) {
            (Goal::Exists, true) => Ok(Want::Nothing(format!("{path} is there"))),
            (Goal::Missing, false) => Ok(Want::Nothing(format!("{path} is not there"))),
            _ if there.uncertain() => Ok(Want::Unknown(format!("whether {path} is there"))),
            (Goal::Exists, false) => Err(failed(format!("{path} is not there")).into()),
            _ => Err(failed(format!("{path} is there")).into()),
        }
    }
}
