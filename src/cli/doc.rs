//! `basalt doc [STATE.FUN]`: the reference of the state functions, from the table the planner itself uses.

use clap::Args;

use super::Ended;
use super::print::out;
use crate::diagnostic::{Code, Diagnostic, nearest};
use crate::function::{self, Entry};

#[derive(Args)]
pub struct DocArgs {
    /// A function (`file.managed`) or a state module (`file`); all of them in short when left out
    #[arg(value_name = "STATE.FUN")]
    name: Option<String>,
}

pub fn run(args: DocArgs) -> Ended {
    let all = function::entries();
    let Some(name) = args.name else {
        for entry in all {
            out(&format!("{:32} {}\n", entry.name, entry.doc));
        }
        return Ok(0);
    };
    let module = format!("{name}.");
    let chosen: Vec<&Entry> = function::entries().filter(|e| e.name == name || e.name.starts_with(&module)).collect();
    if chosen.is_empty() {
        let fault = Diagnostic::new(Code::Usage, format!("there is no state function {name:?}"));
        return Err(match nearest(&name, function::entries().map(|e| e.name)) {
            Some(near) => fault.hint(format!("did you mean {near}?")).into(),
            None => fault.hint("`basalt doc` lists them").into(),
        });
    }
    for entry in chosen {
        out(&text(entry));
    }
    Ok(0)
}

fn text(entry: &Entry) -> String {
    let mut text = format!("{}\n    {}\n", entry.name, entry.doc);
    if entry.watches {
        text.push_str("    Reacts to `watch` and `listen`.\n");
    }
    for arg in entry.args {
        let default = if arg.default.is_empty() { String::new() } else { format!(", default {}", arg.default) };
        text.push_str(&format!("\n    {}  ({:?}{default})\n        {}\n", arg.name, arg.kind, arg.doc));
    }
    text.push('\n');
    text
}
