//! test.*: states that touch nothing, to try requisites, templates and orchestration with.

use super::args::Args;
use super::{Arg, ArgKind, Entry, Function, Run, There, Want};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::plan::{Key, Low};
use crate::system::Command;

const COMMENT: Arg = Arg::new("comment", ArgKind::Str, "", "What the result says.");

const KEYS: &[Arg] = &[
    Arg::new("present", ArgKind::Strs, "", "Keys that are there. Example: [db:host]"),
    Arg::new("boolean", ArgKind::Strs, "", "Keys whose values are True or False."),
    Arg::new("integer", ArgKind::Strs, "", "Keys whose values are whole numbers."),
    Arg::new("string", ArgKind::Strs, "", "Keys whose values are strings."),
    Arg::new("listing", ArgKind::Strs, "", "Keys whose values are lists."),
    Arg::new("dictionary", ArgKind::Strs, "", "Keys whose values are mappings."),
    Arg::new("verbose", ArgKind::Bool, "False", "Accepted without effect."),
];

pub const FUNCTIONS: &[Entry] = &[
    Entry {
        name: "test.check_pillar",
        doc: "Fails unless pillar has these keys, with values of these kinds.",
        args: KEYS,
        watches: false,
        parse: check_pillar,
    },
    Entry { name: "test.nop", doc: "Does nothing and succeeds.", args: &[COMMENT], watches: true, parse: nop },
    Entry { name: "test.succeed_without_changes", doc: "Succeeds and changes nothing.", args: &[COMMENT], watches: true, parse: nop },
    Entry {
        name: "test.succeed_with_changes",
        doc: "Succeeds and pretends a change.",
        args: &[COMMENT],
        watches: true,
        parse: |low| configured(low, true, true),
    },
    Entry {
        name: "test.fail_without_changes",
        doc: "Fails and changes nothing.",
        args: &[COMMENT],
        watches: true,
        parse: |low| configured(low, false, false),
    },
    Entry {
        name: "test.fail_with_changes",
        doc: "Pretends a change and fails.",
        args: &[COMMENT],
        watches: true,
        parse: |low| configured(low, true, false),
    },
    Entry {
        name: "test.configurable_test_state",
        doc: "Succeeds or fails, with or without a pretended change, as it is told.",
        args: &[
            Arg::new("changes", ArgKind::Bool, "True", "Whether it pretends a change."),
            Arg::new("result", ArgKind::Bool, "True", "Whether it succeeds."),
            COMMENT,
            Arg::new("warnings", ArgKind::Strs, "", "Texts that the comment ends with."),
            Arg::new("allow_test_mode_failure", ArgKind::Bool, "False", "Accepted: a plan always says what would fail."),
        ],
        watches: true,
        parse: configurable,
    },
    Entry {
        name: "test.show_notification",
        doc: "Says something and changes nothing.",
        args: &[Arg::new("text", ArgKind::Str, "", "What to say; required.")],
        watches: true,
        parse: notification,
    },
];

struct Test {
    changes: bool,
    result: bool,
    comment: String,
}

fn nop(low: &Low) -> Result<Box<dyn Function>> {
    configured(low, false, true)
}

fn configured(low: &Low, changes: bool, result: bool) -> Result<Box<dyn Function>> {
    let comment = Args(low).str("comment")?.unwrap_or_else(|| if result { "Success!" } else { "Failure!" }.to_owned());
    Ok(Box::new(Test { changes, result, comment }))
}

fn configurable(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let mut lines = args.strs("comment")?;
    lines.extend(args.strs("warnings")?);
    Ok(Box::new(Test { changes: args.bool("changes", true)?, result: args.bool("result", true)?, comment: lines.join("\n") }))
}

fn check_pillar(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    if !KEYS.iter().take(6).any(|kind| args.value(kind.name).is_some()) {
        return Err(args.error("test.check_pillar needs keys to look for, under present or the name of a kind"));
    }
    // The controller has looked: it has the pillar.
    let comment = low.failed.clone().unwrap_or_else(|| "all of them are there".to_owned());
    Ok(Box::new(Test { changes: false, result: low.failed.is_none(), comment }))
}

fn notification(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let comment =
        args.str("text")?.filter(|t| !t.is_empty()).ok_or_else(|| args.error("test.show_notification needs the argument text"))?;
    Ok(Box::new(Test { changes: false, result: true, comment }))
}

impl Test {
    fn pretend(&self, shown: &str) -> Want {
        Want::Run(Run { pretended: Some(self.result), ..Run::new(Command::default(), shown) })
    }
}

impl Function for Test {
    fn objects(&self, _: &dyn There) -> Result<Vec<Key>> {
        Ok(Vec::new())
    }

    fn want(&self, _: &dyn There) -> Result<Want> {
        match (self.changes, self.result) {
            (true, _) => Ok(self.pretend(&self.comment)),
            (false, true) => Ok(Want::Nothing(self.comment.clone())),
            (false, false) => Err(Diagnostic::new(Code::Failed, self.comment.clone()).into()),
        }
    }

    fn react(&self, _: &dyn There, _cause: &str) -> Result<Option<Want>> {
        Ok(Some(self.pretend("Watch statement fired.")))
    }
}
