//! An answer in debconf's database: what a package's scripts would ask, answered before they do.
//!
//! Read from the database's files; changed through debconf's own tools, which lock it. Attributes: `type`, `value`, `owners` (packages, with commas) and
//! `seen`, there only where true: nobody is asked again. Answers of the type `password` are in a file that only root reads, and are never shown.

use super::{Object, Progress, Sign, describe_attributes};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::plan::{Key, Kind};
use crate::system::{Command, System};
use crate::value::{Attrs, Value, attributes, gathered};

const ANSWERS: [&str; 2] = ["/var/cache/debconf/config.dat", "/var/cache/debconf/passwords.dat"];
const TEMPLATES: &str = "/var/cache/debconf/templates.dat";

pub struct Debconf {
    question: String,
}

/// The paragraph of this name in a file of the database, its fields by name; further lines of a field are not needed.
fn paragraph(sys: &System, path: &str, name: &str) -> Result<Option<Attrs>> {
    let Some(bytes) = sys.read(path)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes);
    let found =
        text.split("\n\n").find(|paragraph| paragraph.trim_start().lines().next().and_then(|l| l.strip_prefix("Name: ")) == Some(name));
    Ok(found.map(|paragraph| {
        let fields = paragraph.lines().filter(|line| !line.starts_with(' ')).filter_map(|line| line.split_once(':'));
        attributes(fields.map(|(field, value)| (field.to_owned(), Value::str(value.strip_prefix(' ').unwrap_or(value)))))
    }))
}

fn text(attrs: &Attrs, name: &str) -> String {
    attrs.get(name).filter(|v| !v.is_null()).map(Value::to_text).unwrap_or_default()
}

fn owners(attrs: &Attrs) -> Vec<String> {
    text(attrs, "owners").split(',').filter(|o| !o.is_empty()).map(str::to_owned).collect()
}

impl Debconf {
    pub fn new(question: &str) -> Debconf {
        Debconf { question: question.to_owned() }
    }

    fn run(&self, sys: &System, progress: &mut Progress, argv: &[&str], stdin: String) -> Result<()> {
        let shown = format!("{} ({})", argv.join(" "), self.question);
        sys.mutating(&shown)?;
        progress.say(&shown);
        let env = vec![("DEBIAN_FRONTEND".to_owned(), "noninteractive".to_owned())];
        let output = sys.run(&Command { stdin: stdin.into_bytes(), env, ..Command::new(argv.iter().copied()) })?;
        // debconf's protocol answers with 0 or a code of its own.
        let refused = argv.first() == Some(&"debconf-communicate") && !output.text().lines().all(|line| line.starts_with('0'));
        if output.success() && !refused {
            return Ok(());
        }
        let said = [output.text(), String::from_utf8_lossy(&output.stderr).trim().to_owned()].join("\n");
        Err(Diagnostic::new(Code::Failed, format!("{shown} failed: {}", said.trim().lines().next().unwrap_or("no reason given")))
            .detail(said.trim())
            .into())
    }

    fn disown(&self, sys: &System, progress: &mut Progress, owner: &str) -> Result<()> {
        self.run(sys, progress, &["debconf-communicate", owner], format!("UNREGISTER {}\n", self.question))
    }
}

impl Object for Debconf {
    fn key(&self) -> Key {
        Key::new(Kind::Debconf, &self.question)
    }

    fn read(&self, sys: &System) -> Result<Attrs> {
        if self.question.is_empty() || self.question.contains(char::is_whitespace) {
            return Err(Diagnostic::new(Code::Failed, format!("{:?} cannot be a question of debconf", self.question)).into());
        }
        for path in ANSWERS {
            let Some(answer) = paragraph(sys, path, &self.question)? else { continue };
            let template = paragraph(sys, TEMPLATES, &text(&answer, "Template"))?.unwrap_or_default();
            let mut owners: Vec<String> =
                text(&answer, "Owners").split(',').map(|o| o.trim().to_owned()).filter(|o| !o.is_empty()).collect();
            owners.sort();
            let mut attrs = attributes([
                ("type".to_owned(), Value::Str(text(&template, "Type"))),
                ("value".to_owned(), Value::Str(text(&answer, "Value"))),
                ("owners".to_owned(), Value::Str(owners.join(","))),
            ]);
            if text(&answer, "Flags").split(',').any(|flag| flag.trim() == "seen") {
                attrs.insert("seen".into(), Value::Bool(true));
            }
            return Ok(attrs);
        }
        Ok(Attrs::new())
    }

    fn signs(&self, _sys: &System) -> Result<Vec<Sign>> {
        Ok(Sign::paths(ANSWERS.into_iter().chain([TEMPLATES])))
    }

    fn set(&self, sys: &System, from: &Attrs, to: &Attrs, progress: &mut Progress) -> Result<Attrs> {
        if to.is_empty() {
            for owner in owners(from) {
                self.disown(sys, progress, &owner)?;
            }
            return self.read(sys);
        }
        let wanted = |name: &str| to.get(name).map_or_else(|| text(from, name), Value::to_text);
        let all = owners(&attributes([("owners".to_owned(), Value::Str(wanted("owners")))]));
        let there = owners(from);
        let new: Vec<&String> = all.iter().filter(|owner| !there.contains(owner)).collect();
        let other = ["type", "value"].iter().any(|name| wanted(name) != text(from, name))
            || (to.contains_key("seen") && !from.contains_key("seen"));
        let by = new.into_iter().chain(all.first().filter(|_| other));
        for owner in gathered::<_, std::collections::BTreeSet<_>>(by) {
            let line = format!("{owner} {} {} {}\n", self.question, wanted("type"), wanted("value"));
            self.run(sys, progress, &["debconf-set-selections"], line)?;
        }
        for owner in there.iter().filter(|owner| to.contains_key("owners") && !all.contains(owner)) {
            self.disown(sys, progress, owner)?;
        }
        // What was read before a run says all of it.
        let now = self.read(sys)?;
        let whole = to.contains_key("owners") && to.contains_key("type") && to.contains_key("value");
        if whole && now.contains_key("seen") && !to.contains_key("seen") {
            let owner = all.first().cloned().unwrap_or_default();
            self.run(sys, progress, &["debconf-communicate", &owner], format!("FSET {} seen false\n", self.question))?;
            return self.read(sys);
        }
        Ok(now)
    }

    fn describe(&self, _sys: &System, from: &Attrs, to: &Attrs) -> String {
        let secret = [from, to].iter().any(|attrs| text(attrs, "type") == "password");
        let shown = |attrs: &Attrs| -> Attrs {
            let mask = |name: &str, value: &Value| if secret && name == "value" { Value::str("********") } else { value.clone() };
            attributes(attrs.iter().map(|(name, value)| (name.clone(), mask(name, value))))
        };
        let differs = secret && to.contains_key("value") && from.get("value") != to.get("value");
        describe_attributes(&shown(from), &shown(to)) + if differs { "value: ********\n" } else { "" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::HostExec;
    use std::path::Path;

    #[test]
    fn a_password_is_not_shown() {
        let sys = System::at("/nonexistent", Box::new(HostExec::new(Path::new("/nonexistent"), Default::default())));
        let to = Attrs::from([("type".to_owned(), Value::str("password")), ("value".to_owned(), Value::str("hunter2"))]);
        let shown = Debconf::new("p/q").describe(&sys, &Attrs::new(), &to);
        assert!(!shown.contains("hunter2") && shown.contains("********"), "{shown}");
    }
}
