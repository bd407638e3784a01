//! file.accumulated: texts for the template of a file. The controller has gathered them and given them to the template; on the host nothing is left
//! to do.

use crate::diagnostic::Result;
use crate::function::args::Args;
use crate::function::{Arg, ArgKind, Entry, Function, There, Want};
use crate::plan::{Key, Low};

pub const ENTRY: Entry = Entry {
    name: "file.accumulated",
    doc: "Texts for the template of a file, there as `accumulator[NAME]`; file.blockreplace takes them too.",
    args: &[
        Arg::new("name", ArgKind::Str, "", "The name under which the template finds them."),
        Arg::new("filename", ArgKind::Str, "", "The name of the state that makes the file. Example: /etc/app.conf"),
        Arg::new("text", ArgKind::Any, "", "A text, or a list of them."),
    ],
    watches: false,
    parse,
};

struct Accumulated(String);

fn parse(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let file = args.str("filename")?.filter(|f| !f.is_empty()).ok_or_else(|| args.error("file.accumulated needs the argument filename"))?;
    if args.value("text").is_none() {
        return Err(args.error("file.accumulated needs the argument text"));
    }
    Ok(Box::new(Accumulated(file)))
}

impl Function for Accumulated {
    fn objects(&self, _: &dyn There) -> Result<Vec<Key>> {
        Ok(Vec::new())
    }

    fn want(&self, _: &dyn There) -> Result<Want> {
        Ok(Want::Nothing(format!("the texts are in the template of {}", self.0)))
    }
}
