//! grains.*: grains that stand in the host's `/etc/salt/grains`. The controller, who reads and writes YAML, has made the file's new text.

use super::edit::TextFile;
use super::file::place::failed;
use super::{Arg, ArgKind, Entry, Function, There, Want};
use crate::diagnostic::Result;
use crate::plan::{Hash, Key, Low};

const FILE: &str = "/etc/salt/grains";
const NAME: Arg = Arg::new("name", ArgKind::Str, "", "The grain; `a:b` is one below another. Example: role");
const DELIMITER: Arg = Arg::new("delimiter", ArgKind::Str, ":", "What separates the parts of the name.");
const FORCE: Arg = Arg::new("force", ArgKind::Bool, "False", "Whether lists and mappings are given up as well.");

pub const FUNCTIONS: &[Entry] = &[
    Entry {
        name: "grains.absent",
        doc: "A grain has no value.",
        args: &[NAME, Arg::new("destructive", ArgKind::Bool, "False", "Whether its name goes as well."), DELIMITER, FORCE],
        watches: false,
        parse,
    },
    Entry {
        name: "grains.list_absent",
        doc: "Values are not in a grain that is a list.",
        args: &[NAME, Arg::new("value", ArgKind::Any, "", "The value, or a list of them."), DELIMITER],
        watches: false,
        parse,
    },
    Entry {
        name: "grains.list_present",
        doc: "Values are in a grain that is a list.",
        args: &[NAME, Arg::new("value", ArgKind::Any, "", "The value, or a list of them. Example: [web, db]"), DELIMITER],
        watches: false,
        parse,
    },
    Entry {
        name: "grains.present",
        doc: "A grain has this value.",
        args: &[NAME, Arg::new("value", ArgKind::Any, "", "The value. Example: web"), DELIMITER, FORCE],
        watches: false,
        parse,
    },
];

struct Grain {
    text: Option<Hash>,
    failed: Option<String>,
    file: TextFile,
}

fn parse(low: &Low) -> Result<Box<dyn Function>> {
    let text = low.contents.iter().find(|content| content.name == "contents").map(|content| content.hash.clone());
    Ok(Box::new(Grain { text, failed: low.failed.clone(), file: TextFile::new(FILE).with_directories() }))
}

impl Function for Grain {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        self.file.keys(there)
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        match (&self.failed, &self.text) {
            (Some(why), _) => Err(failed(why.clone()).into()),
            (None, None) => Ok(Want::Nothing("the grain is as it is to be".into())),
            (None, Some(hash)) => {
                let text = String::from_utf8_lossy(&there.bytes(hash)?).into_owned();
                self.file.want(there, |_| Ok(text))
            }
        }
    }
}
