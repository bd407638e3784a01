//! debconf.set: answers to what a package's scripts ask, given before they do.

use super::args::Args;
use super::{Arg, ArgKind, Entry, Function, There, Want};
use crate::diagnostic::Result;
use crate::plan::{Key, Kind, Low};
use crate::value::{Value, attributes};

pub const FUNCTIONS: &[Entry] = &[Entry {
    name: "debconf.set",
    doc: "Questions of a package are answered.",
    args: &[
        Arg::new("name", ArgKind::Str, "", "The package. Example: postfix"),
        Arg::new(
            "data",
            ArgKind::Map,
            "",
            "Questions with type and value. Example: {postfix/mailname: {type: string, value: example.org}}",
        ),
    ],
    watches: false,
    parse,
}];

struct Answers {
    package: String,
    /// Question, type, value.
    answers: Vec<(String, String, String)>,
}

fn parse(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let package = args.name();
    let word = |text: &str| !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c == ',');
    let mut answers = Vec::new();
    for (question, answer) in &args.map("data")? {
        let question = question.to_text();
        let wrong = || args.error(format!("{question} of debconf.set is to be a mapping with type and value"));
        // A mapping, or Salt's list of mappings.
        let get = |name: &str| match answer {
            Value::Map(map) => map.get(name),
            Value::List(list) => list.iter().filter_map(Value::as_map).find_map(|map| map.get(name)),
            _ => None,
        };
        let (Some(kind), Some(value)) = (get("type").map(Value::to_text), get("value")) else { return Err(wrong()) };
        let value = match kind.as_str() {
            "boolean" => if value.truthy() && value.as_str() != Some("false") { "true" } else { "false" }.to_owned(),
            _ => value.to_text(),
        };
        if !word(&package) || !word(&question) || !word(&kind) || value.contains('\n') {
            return Err(
                args.error(format!("{package} {question} {kind} cannot be an answer for debconf: all are words, and a value has one line"))
            );
        }
        answers.push((question, kind, value));
    }
    if answers.is_empty() {
        return Err(args.error("debconf.set needs the argument data"));
    }
    Ok(Box::new(Answers { package, answers }))
}

impl Function for Answers {
    fn objects(&self, _: &dyn There) -> Result<Vec<Key>> {
        Ok(self.answers.iter().map(|(question, ..)| Key::new(Kind::Debconf, question)).collect())
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        let mut wants = Vec::new();
        for (question, kind, value) in &self.answers {
            let key = Key::new(Kind::Debconf, question);
            let now = there.get(&key);
            let is = |name: &str, wanted: &str| now.get(name).is_some_and(|v| v.to_text() == wanted);
            let mut owners: Vec<String> =
                now.get("owners").map(Value::to_text).unwrap_or_default().split(',').filter(|o| !o.is_empty()).map(str::to_owned).collect();
            let owned = owners.contains(&self.package);
            if owned && is("type", kind) && is("value", value) {
                continue;
            }
            if !owned {
                owners.push(self.package.clone());
                owners.sort();
            }
            let wanted = [("type", kind.clone()), ("value", value.clone()), ("owners", owners.join(","))];
            let mut wanted = attributes(wanted.into_iter().map(|(name, value)| (name.to_owned(), Value::Str(value))));
            wanted.insert("seen".into(), Value::Bool(true));
            wants.push((key, wanted));
        }
        Ok(if wants.is_empty() { Want::Nothing("All specified answers are already set".into()) } else { Want::Is(wants) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::double::Double;

    #[test]
    fn answers_that_differ_are_given() {
        let mut host = Double::new();
        host.set("debconf:p/there", r#"{"type": "string", "value": "x", "owners": "p"}"#)
            .set("debconf:p/other", r#"{"type": "string", "value": "x", "owners": "q"}"#);
        let args = r#"{"name": "p", "data": {"p/there": {"type": "string", "value": "x"}, "p/other": {"type": "string", "value": "x"},
            "p/new": [{"type": "boolean"}, {"value": true}]}}"#;
        assert_eq!(host.apply("debconf.set", args).unwrap(), 2);
        let new = |question: &str, name: &str| host.objects[&format!("debconf:{question}").parse().unwrap()][name].to_text();
        assert_eq!([new("p/other", "owners"), new("p/new", "value"), new("p/new", "owners")], ["p,q", "true", "p"]);
        for (args, said) in [
            (r#"{"name": "p", "data": {"q": "x"}}"#, "q of debconf.set is to be a mapping with type and value"),
            (r#"{"name": "p"}"#, "debconf.set needs the argument data"),
        ] {
            assert_eq!(host.apply("debconf.set", args).unwrap_err().summary, said);
        }
    }
}
