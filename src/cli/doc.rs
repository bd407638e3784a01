//! `basalt doc [STATE.FUN]`: the reference of the state functions, from the tables the planner itself uses and `function::reference`; and the
//! same as the pages of `docs/states/`.

use std::fmt::Write as _;

use clap::Args;

use super::Ended;
use super::print::out;
use crate::diagnostic::{Code, Diagnostic, Result, nearest};
use crate::function::reference::{self, About, Difference, Module};
use crate::function::{self, Arg, ArgKind, Entry};

/// Columns of text on a terminal.
const WIDTH: usize = 100;

#[derive(Args)]
pub struct DocArgs {
    /// A function (`file.managed`) or a state module (`file`); all of them in short when left out
    #[arg(value_name = "STATE.FUN")]
    name: Option<String>,
}

pub fn run(args: DocArgs) -> Ended {
    match args.name {
        None => function::entries().for_each(|entry| out(&format!("{:32} {}\n", entry.name, entry.doc))),
        Some(name) => out(&text(&name)?),
    }
    Ok(0)
}

/// A function or a module for the terminal.
fn text(name: &str) -> Result<String> {
    let module_name = name.split('.').next().unwrap_or(name);
    let chosen: Vec<&Entry> = reference::functions(module_name).filter(|entry| entry.name == name || module_name == name).collect();
    if chosen.is_empty() {
        let fault = Diagnostic::new(Code::Usage, format!("there is no state function {name:?}"));
        return Err(match nearest(name, function::entries().map(|e| e.name).chain(reference::modules())) {
            Some(near) => fault.hint(format!("did you mean {near}?")).into(),
            None => fault.hint("`basalt doc` lists them").into(),
        });
    }
    let module = reference::module(module_name)?;
    let differences = reference::differences();
    let mut text = String::new();
    if module_name == name {
        let of_all: Vec<&str> = differences.iter().filter(|d| d.is_of_all(name)).map(|d| d.text.as_str()).collect();
        let _ = writeln!(text, "{name}\n{}\n", wrapped(&module.about, 4));
        text += &parts(&[("Plan", &[&module.plan]), ("Rollback", &[&module.rollback]), ("Different from Salt", &of_all)]);
    }
    for entry in chosen {
        let Some(about) = about(&module, entry) else { continue };
        let _ = writeln!(text, "{}\n{}\n", entry.name, wrapped(entry.doc, 4));
        let _ = writeln!(text, "    Example\n{}", indented(&example(about), 8));
        text += "    Arguments\n";
        for Same { names, arg } in same(entry.args) {
            let _ = writeln!(text, "{}\n{}", wrapped(&format!("{}  ({})", names.join(", "), kind(arg)), 8), wrapped(arg.doc, 12));
        }
        if entry.watches {
            text += "\n    Reacts to `watch` and `listen`.\n";
        }
        text += "\n";
        let mut plan = about.plan.as_deref();
        let mut rollback = about.rollback.as_deref();
        if module_name != name {
            plan = plan.or(Some(&module.plan));
            rollback = rollback.or(Some(&module.rollback));
        }
        let different = |d: &&Difference| d.is_of(entry.name) || (module_name != name && d.is_of_all(module_name));
        let differences: Vec<&str> = differences.iter().filter(different).map(|d| d.text.as_str()).collect();
        text += &parts(&[("Plan", plan.as_slice()), ("Rollback", rollback.as_slice()), ("Different from Salt", &differences)]);
    }
    Ok(text)
}

fn about<'a>(module: &'a Module, entry: &Entry) -> Option<&'a About> {
    module.functions.get(entry.name.split_once('.')?.1)
}

/// Sections of a few paragraphs each; those without any are left out.
fn parts(parts: &[(&str, &[&str])]) -> String {
    let mut text = String::new();
    for (head, paragraphs) in parts.iter().filter(|(_, paragraphs)| !paragraphs.is_empty()) {
        let _ = writeln!(text, "    {head}");
        for paragraph in *paragraphs {
            let _ = writeln!(text, "{}", wrapped(paragraph, 8));
        }
        text.push('\n');
    }
    text
}

/// The states of an example, and what else it needs in the repository.
fn example(about: &About) -> String {
    let mut text = about.example.trim_end().to_owned();
    for (path, contents) in &about.files {
        let _ = write!(text, "\n\n# states/{path}\n{}", contents.trim_end());
    }
    if let Some(pillar) = &about.pillar {
        let _ = write!(text, "\n\n# pillar\n{pillar}");
    }
    text
}

/// Arguments of one meaning, which stand together.
struct Same<'a> {
    names: Vec<&'a str>,
    arg: &'a Arg,
}

/// Neighbours that differ in nothing but the name are told together, and at the end all that have no effect.
fn same(args: &[Arg]) -> Vec<Same<'_>> {
    let without_effect = |arg: &&Arg| arg.doc.starts_with("Accepted without effect");
    let mut found: Vec<Same> = Vec::new();
    for arg in args.iter().filter(|arg| !without_effect(arg)).chain(args.iter().filter(without_effect)) {
        let alike = |other: &Arg| (other.kind, other.default, other.doc) == (arg.kind, arg.default, arg.doc);
        match found.last_mut() {
            Some(last) if alike(last.arg) || (without_effect(&last.arg) && without_effect(&arg) && last.arg.doc == arg.doc) => {
                last.names.push(arg.name);
            }
            _ => found.push(Same { names: vec![arg.name], arg }),
        }
    }
    found
}

/// `text, default 5`.
fn kind(arg: &Arg) -> String {
    let default = if arg.default.is_empty() { String::new() } else { format!(", default {}", arg.default) };
    format!("{}{default}", kind_name(arg.kind))
}

fn kind_name(kind: ArgKind) -> &'static str {
    match kind {
        ArgKind::Str => "text",
        ArgKind::Bool => "True or False",
        ArgKind::Int => "whole number",
        ArgKind::Mode => "mode",
        ArgKind::List => "list",
        ArgKind::Map => "mapping",
        ArgKind::Strs => "text or list",
        ArgKind::Any => "any",
    }
}

fn indented(text: &str, by: usize) -> String {
    text.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("{:by$}{line}\n", "") }).collect()
}

/// Broken between words, so that it fits a terminal.
fn wrapped(text: &str, by: usize) -> String {
    let (mut all, mut line) = (String::new(), format!("{:by$}", ""));
    for word in text.split_whitespace() {
        if line.len() > by && line.chars().count() + 1 + word.chars().count() > WIDTH {
            all += &line;
            line = format!("\n{:by$}", "");
        }
        let space = if line.ends_with(' ') { "" } else { " " };
        line = format!("{line}{space}{word}");
    }
    all + &line
}

/// The pages of `docs/states/`: names and texts.
pub fn pages() -> Result<Vec<(String, String)>> {
    let differences = reference::differences();
    let mut index = "# State functions\n\nWritten from the code: `BASALT_BLESS=1 cargo test --test reference`. `basalt doc file.managed` shows the same. \
         Each example is run by a test:\nplanned, applied, planned again, and taken back. What all states take (`require`, `unless`, `retry` …) is Salt's; \
         what differs is in [compatibility.md](../compatibility.md).\n\n| module | about | functions |\n|---|---|---|\n"
        .to_owned();
    let mut pages = Vec::new();
    for name in reference::modules() {
        let module = reference::module(name)?;
        let links: Vec<String> = reference::functions(name).map(|entry| link(entry, &format!("{name}.md"))).collect();
        let _ = writeln!(index, "| [{name}]({name}.md) | {} | {} |", module.about, links.join(" · "));
        pages.push((format!("{name}.md"), page(name, &module, &differences)));
    }
    pages.push(("README.md".to_owned(), index));
    Ok(pages)
}

/// `[managed](file.md#filemanaged)`.
fn link(entry: &Entry, page: &str) -> String {
    let short = entry.name.split_once('.').map_or(entry.name, |(_, short)| short);
    format!("[{short}]({page}#{})", entry.name.replace('.', ""))
}

fn page(name: &str, module: &Module, differences: &[Difference]) -> String {
    let links: Vec<String> = reference::functions(name).map(|entry| link(entry, "")).collect();
    let mut text = format!(
        "# {name}\n\n{}\n\n{}\n\n**Plan.** {}\n\n**Rollback.** {}\n",
        module.about,
        links.join(" · "),
        module.plan.trim(),
        module.rollback.trim()
    );
    text += &list(differences.iter().filter(|d| d.is_of_all(name)));
    for entry in reference::functions(name) {
        let Some(about) = about(module, entry) else { continue };
        let _ = write!(text, "\n## {}\n\n{}", entry.name, entry.doc);
        text += if entry.watches { " Reacts to `watch` and `listen`.\n" } else { "\n" };
        let _ = write!(text, "\n```yaml\n{}\n```\n", example(about));
        text += "\n| argument | type | default | means |\n|---|---|---|---|\n";
        for Same { names, arg } in same(entry.args) {
            let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            let default = if arg.default.is_empty() { String::new() } else { format!("`{}`", arg.default) };
            let _ = writeln!(text, "| {} | {} | {default} | {} |", names.join(", "), kind_name(arg.kind), arg.doc.replace('|', "\\|"));
        }
        for (head, part) in [("Plan", &about.plan), ("Rollback", &about.rollback)] {
            if let Some(part) = part {
                let _ = write!(text, "\n**{head}.** {}\n", part.trim());
            }
        }
        text += &list(differences.iter().filter(|d| d.is_of(entry.name)));
    }
    text
}

fn list<'a>(differences: impl Iterator<Item = &'a Difference>) -> String {
    let rows: Vec<String> = differences.map(|difference| format!("- {}\n", difference.text)).collect();
    if rows.is_empty() { String::new() } else { format!("\n**Different from Salt:**\n\n{}", rows.concat()) }
}
