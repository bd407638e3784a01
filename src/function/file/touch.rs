//! file.touch: an empty file, or new times on what is there.

use super::place::{self, attrs, key, kind};
use crate::diagnostic::Result;
use crate::function::args::Args;
use crate::function::{Arg, ArgKind, Entry, Function, Run, There, Want};
use crate::plan::{Key, Low};
use crate::system::Command;
use crate::value::Value;

pub const ENTRY: Entry = Entry {
    name: "file.touch",
    doc: "An empty file; what is there already gets the time of now, or the one that is given.",
    args: &[super::NAME, Arg::new("mtime", ArgKind::Int, "now", "The time of the last change, in seconds since 1970."), super::MAKEDIRS],
    watches: false,
    parse,
};

struct Touch {
    path: String,
    mtime: Option<i64>,
    makedirs: bool,
}

fn parse(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    Ok(Box::new(Touch { path: place::name(&args)?, mtime: args.int("mtime")?, makedirs: args.bool("makedirs", false)? }))
}

impl Function for Touch {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        let mut keys = place::follow_keys(there, &self.path);
        keys.extend(place::parent_keys(there, &place::follow(there, &self.path)?, self.makedirs));
        Ok(keys)
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        let real = place::follow(there, &self.path)?;
        let mtime = self.mtime.map(|seconds| Value::Int(seconds.saturating_mul(1_000_000_000)));
        match (kind(&there.get(&key(&real))), mtime) {
            (None, mtime) => {
                let made = attrs([("kind", "directory"), ("mode", place::NEW_DIRECTORY)]);
                let mut wants = place::parents(there, &real, self.makedirs.then_some(&made))?;
                let hash = there.put(Vec::new());
                let mut wanted = attrs([("kind", "file"), ("mode", place::NEW_FILE), ("content", &hash.0)]);
                wanted.extend(mtime.map(|mtime| ("mtime".to_owned(), mtime)));
                wants.push((key(&real), wanted));
                Ok(Want::Is(wants))
            }
            (Some("file"), Some(mtime)) => {
                let mut wanted = attrs([("kind", "file")]);
                wanted.insert("mtime".into(), mtime);
                Ok(Want::Is(vec![(key(&real), wanted)]))
            }
            // Now is another time each time: it happens, as a restart does.
            (Some(_), mtime) => {
                let mut argv = vec!["touch".to_owned(), "-c".to_owned()];
                argv.extend(self.mtime.filter(|_| mtime.is_some()).map(|seconds| format!("--date=@{seconds}")));
                argv.extend(["--".to_owned(), real.clone()]);
                Ok(Want::Run(Run::new(Command::new(argv), format!("touch {real}"))))
            }
        }
    }
}
