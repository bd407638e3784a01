//! alias.*: who gets a local user's mail, in `/etc/aliases`. Where nothing is to change the file stays as it is, byte for byte. What reads the
//! file's database learns of a change by `newaliases`, where the host has it.

use super::args::Args;
use super::edit::{TextFile, ended};
use super::{Arg, ArgKind, Entry, Function, Run, There, Want};
use crate::diagnostic::Result;
use crate::plan::{Key, Low};
use crate::system::Command;

const ALIASES: &str = "/etc/aliases";

const NAME: Arg = Arg::new("name", ArgKind::Str, "", "The local user or address.");

pub const FUNCTIONS: &[Entry] = &[
    Entry { name: "alias.absent", doc: "A local user's mail goes to nobody else.", args: &[NAME], watches: false, parse: absent },
    Entry {
        name: "alias.present",
        doc: "A local user's mail goes to another address.",
        args: &[NAME, Arg::new("target", ArgKind::Strs, "", "Where it goes: an address, or a list of them.")],
        watches: false,
        parse: present,
    },
];

struct Alias {
    name: String,
    /// None: there is to be no alias.
    target: Option<String>,
    file: TextFile,
}

fn made(args: &Args, target: Option<String>) -> Result<Box<dyn Function>> {
    let name = args.name();
    let wrong = |text: &str| text.trim().is_empty() || text.contains(['\n', '#']);
    if wrong(&name) || name.contains(':') || target.as_deref().is_some_and(wrong) {
        return Err(args.error(format!("{name:?} cannot be an alias for {:?}", target.unwrap_or_default())));
    }
    Ok(Box::new(Alias { name, target, file: TextFile::new(ALIASES) }))
}

fn present(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let target = args.strs("target")?.join(", ");
    made(&args, Some(target))
}

fn absent(low: &Low) -> Result<Box<dyn Function>> {
    made(&Args(low), None)
}

/// Alias, target and what stands behind (a comment, with the white space before it) of a line.
fn parts(line: &str) -> Option<(&str, &str, &str)> {
    let bare = line.trim_end();
    let at = bare.find('#').unwrap_or(bare.len());
    let (entry, comment) = bare.split_at_checked(at)?;
    let (alias, target) = entry.split_once(':')?;
    let behind = if comment.is_empty() { "" } else { bare.get(entry.trim_end().len()..)? };
    Some((alias.trim(), target.trim(), behind))
}

impl Alias {
    fn edited(&self, text: &str) -> String {
        let own = |line: &str| parts(line).filter(|(alias, ..)| *alias == self.name).map(|(_, target, _)| target.to_owned());
        // The last line counts.
        let now = text.lines().filter_map(own).next_back();
        if now == self.target {
            return text.to_owned();
        }
        let mut target = self.target.as_ref();
        let mut out = String::new();
        for line in text.split_inclusive('\n') {
            match parts(line).filter(|(alias, ..)| *alias == self.name) {
                None => out.push_str(line),
                // The first line of it stays where it is, others go.
                Some((.., behind)) => {
                    out.push_str(&target.take().map(|target| format!("{}: {target}{behind}\n", self.name)).unwrap_or_default());
                }
            }
        }
        match target {
            Some(target) => ended(&out) + &format!("{}: {target}\n", self.name),
            None => out,
        }
    }
}

impl Function for Alias {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        self.file.keys(there)
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        let command = Command::new(["sh", "-c", "command -v newaliases >/dev/null || exit 0; exec newaliases"]);
        Ok(match self.file.want(there, |text| Ok(self.edited(text)))? {
            Want::Is(wants) if super::edit::differ(there, &wants) => {
                Want::Then(wants, Run { again: true, ..Run::new(command, "newaliases") })
            }
            other => other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Host, answer, low};
    use super::*;
    use serde_json::json;

    /// What the file becomes.
    fn after(text: &str, function: &str, args: serde_json::Value) -> String {
        let mut host = Host::default();
        host.file(ALIASES, text);
        match answer(&host, function, args).unwrap() {
            Want::Then(wants, run) => {
                assert_eq!((run.shown.as_str(), run.again, run.one_way), ("newaliases", true, None));
                let hash = crate::plan::Hash(wants[0].1["content"].to_text());
                String::from_utf8(host.bytes(&hash).unwrap().to_vec()).unwrap()
            }
            Want::Nothing(_) | Want::Is(_) => text.to_owned(),
            other => panic!("{other:?}"),
        }
    }

    /// As Salt 3008's aliases module leaves the file, but for lines that are not about the alias.
    #[test]
    fn an_alias_is_set_and_taken_away() {
        let text = "# mail\nroot:   me  # and why\npostmaster: root\nroot: you\nloose\n";
        for (function, args, wanted) in [
            ("alias.present", json!({"name": "root", "target": "you"}), text.to_owned()),
            ("alias.present", json!({"name": "root", "target": "them"}), "# mail\nroot: them  # and why\npostmaster: root\nloose\n".into()),
            ("alias.present", json!({"name": "new", "target": ["a@b", "c"]}), format!("{text}new: a@b, c\n")),
            ("alias.absent", json!({"name": "root"}), "# mail\npostmaster: root\nloose\n".into()),
            ("alias.absent", json!({"name": "none"}), text.to_owned()),
        ] {
            assert_eq!(after(text, function, args.clone()), wanted, "{function} {args}");
        }
        assert_eq!(after("a: b", "alias.present", json!({"name": "c", "target": "d"})), "a: b\nc: d\n");
    }

    #[test]
    fn what_can_be_no_alias_is_refused() {
        for args in [json!({"name": "x"}), json!({"name": "a:b", "target": "c"}), json!({"name": "x", "target": "a\nb: c"})] {
            let state = low("alias.present", args.clone());
            assert!(present(&state).is_err(), "{args}");
        }
    }
}
