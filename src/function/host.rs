//! host.*: names and addresses of `/etc/hosts`, written as Salt's hosts module writes them: an entry for each address, its names in their
//! order. Where nothing is to change the file stays as it is, byte for byte.

use std::net::IpAddr;

use super::args::Args;
use super::edit::TextFile;
use super::file::place::failed;
use super::{Arg, ArgKind, Entry, Function, There, Want};
use crate::diagnostic::Result;
use crate::plan::{Key, Low};

const HOSTS: &str = "/etc/hosts";

pub const FUNCTIONS: &[Entry] = &[
    Entry {
        name: "host.absent",
        doc: "A name does not stand for an address in /etc/hosts.",
        args: &[
            Arg::new("name", ArgKind::Str, "", "The name."),
            Arg::new("ip", ArgKind::Strs, "", "The address, or a list of them. Example: 192.0.2.7"),
        ],
        watches: false,
        parse: absent,
    },
    Entry {
        name: "host.only",
        doc: "An address has these names in /etc/hosts and no others.",
        args: &[
            Arg::new("name", ArgKind::Str, "", "The address."),
            Arg::new("hostnames", ArgKind::Strs, "", "Its names, in this order; an empty list removes the address."),
        ],
        watches: false,
        parse: only,
    },
    Entry {
        name: "host.present",
        doc: "A name stands for an address in /etc/hosts.",
        args: &[
            Arg::new("name", ArgKind::Str, "", "The name."),
            Arg::new("ip", ArgKind::Strs, "", "The address, or a list of them. Example: 192.0.2.7"),
            Arg::new("comment", ArgKind::Str, "", "A comment behind the address's names."),
            Arg::new("clean", ArgKind::Bool, "False", "Whether the name goes from all other addresses."),
        ],
        watches: false,
        parse: present,
    },
];

enum Goal {
    Present { name: String, addresses: Vec<String>, comment: String, clean: bool },
    Absent { name: String, addresses: Vec<String> },
    Only { address: String, names: String },
}

struct Host {
    goal: Goal,
    file: TextFile,
}

fn made(goal: Goal) -> Result<Box<dyn Function>> {
    Ok(Box::new(Host { goal, file: TextFile::new(HOSTS) }))
}

fn addresses(args: &Args) -> Result<Vec<String>> {
    let all = args.strs("ip")?;
    if all.is_empty() {
        return Err(args.error(format!("{} needs the argument ip", args.0.function())));
    }
    for part in all.iter().chain([&args.name()]) {
        word(args, part)?;
    }
    Ok(all)
}

/// What stands between white space in the file must have none in it.
fn word(args: &Args, text: &str) -> Result<()> {
    match text.is_empty() || text.contains(|c: char| c.is_whitespace() || c == '#') {
        true => Err(args.error(format!("{text:?} can be no name or address of /etc/hosts"))),
        false => Ok(()),
    }
}

fn present(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let comment = args.str("comment")?.unwrap_or_default();
    if comment.contains('\n') {
        return Err(args.error("a comment of host.present has one line"));
    }
    made(Goal::Present { name: args.name(), addresses: addresses(&args)?, comment, clean: args.bool("clean", false)? })
}

fn absent(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    made(Goal::Absent { name: args.name(), addresses: addresses(&args)? })
}

fn only(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    if !low.args.contains_key("hostnames") {
        return Err(args.error("host.only needs the argument hostnames"));
    }
    let names: Vec<String> = args.strs("hostnames")?.iter().map(|n| n.trim().to_owned()).collect();
    word(&args, &args.name())?;
    made(Goal::Only { address: args.name(), names: names.join(" ") })
}

/// A line of the file as Salt sees it: lines of one address are one.
enum Line {
    Comment(String),
    Address { address: String, names: Vec<String>, comment: Option<String> },
}

fn parse(text: &str) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if line.starts_with('#') {
            lines.push(Line::Comment(line.to_owned()));
            continue;
        }
        let (line, said) = line.split_once('#').map_or((line, None), |(l, c)| (l, Some(c.trim_start()).filter(|c| !c.is_empty())));
        let mut words = line.split_whitespace().map(str::to_owned);
        let Some(own) = words.next() else { continue };
        match lines.iter_mut().find_map(|line| match line {
            Line::Address { address, names, comment } if *address == own => Some((names, comment)),
            _ => None,
        }) {
            Some((names, comment)) => {
                names.extend(words);
                *comment = said.map(str::to_owned).or(comment.take());
            }
            None => lines.push(Line::Address { address: own, names: words.collect(), comment: said.map(str::to_owned) }),
        }
    }
    lines
}

fn render(lines: &[Line]) -> String {
    let line = |line: &Line| match line {
        Line::Comment(text) => text.clone(),
        Line::Address { address, names, comment: None } => format!("{address}\t\t{}", names.join(" ")).trim().to_owned(),
        Line::Address { address, names, comment: Some(comment) } => format!("{address}\t\t{}\t\t# {comment}", names.join(" ")),
    };
    lines.iter().map(|l| line(l) + "\n").collect()
}

/// The names of an address, over all its lines.
fn names_of(text: &str, of: &str) -> Vec<String> {
    let found = parse(text).into_iter().find_map(|line| match line {
        Line::Address { address, names, .. } if address == of => Some(names),
        _ => None,
    });
    found.unwrap_or_default()
}

/// One name for one address, and the address's comment where one is wanted.
fn add(text: &str, name: &str, own: &str, wanted: &str) -> Result<String> {
    let mut lines = parse(text);
    let found = lines.iter_mut().find_map(|line| match line {
        Line::Address { address, names, comment } if address == own => Some((names, comment)),
        _ => None,
    });
    match found {
        None => lines.push(Line::Address {
            address: own.to_owned(),
            names: vec![name.to_owned()],
            comment: Some(wanted.to_owned()).filter(|c| !c.is_empty()),
        }),
        Some((names, comment)) => {
            let known = names.iter().any(|n| n == name);
            let said = wanted.is_empty() || comment.as_deref() == Some(wanted);
            if known && said {
                return Ok(text.to_owned());
            }
            if !known {
                if own.parse::<IpAddr>().is_err() {
                    return Err(failed(format!("Invalid IP Address for {name} ({own})")).into());
                }
                names.push(name.to_owned());
            }
            if !wanted.is_empty() {
                *comment = Some(wanted.to_owned());
            }
        }
    }
    Ok(render(&lines))
}

/// Takes a name from an address; other lines stay as they are.
fn remove(text: &str, name: &str, own: &str) -> String {
    if !names_of(text, own).iter().any(|n| n == name) {
        return text.to_owned();
    }
    let edited = text.split_inclusive('\n').map(|line| {
        let bare = line.trim();
        let (words, comment) = bare.split_once('#').map_or((bare, None), |(w, c)| (w, Some(c.trim_start())));
        let mut words = words.split_whitespace();
        if bare.starts_with('#') || words.next() != Some(own) {
            return line.to_owned();
        }
        let rest: String = words.filter(|word| *word != name).map(|word| format!("{word} ")).collect();
        match comment.filter(|c| !c.is_empty()) {
            _ if rest.is_empty() => String::new(),
            Some(comment) => format!("{own}\t\t{rest}# {comment}\n"),
            None => format!("{own}\t\t{rest}\n"),
        }
    });
    edited.collect()
}

/// The first line of an address gets these names, its others go.
fn set(text: &str, own: &str, names: &str) -> String {
    let line = if names.trim().is_empty() { String::new() } else { format!("{own}\t\t{names}\n") };
    let mut done = false;
    let mut out = String::new();
    for old in text.split_inclusive('\n') {
        if old.trim_start().starts_with('#') || old.split_whitespace().next() != Some(own) {
            out.push_str(old);
        } else if !std::mem::replace(&mut done, true) {
            out.push_str(&line);
        }
    }
    if done { out } else { super::edit::ended(&out) + &line }
}

impl Host {
    fn edited(&self, text: &str) -> Result<String> {
        let mut text = text.to_owned();
        match &self.goal {
            Goal::Present { name, addresses, comment, clean } => {
                for address in addresses {
                    text = add(&text, name, address, comment)?;
                }
                for line in parse(&text).iter().filter(|_| *clean) {
                    if let Line::Address { address, .. } = line
                        && !addresses.contains(address)
                    {
                        text = remove(&text, name, address);
                    }
                }
            }
            Goal::Absent { name, addresses } => {
                for address in addresses {
                    text = remove(&text, name, address);
                }
            }
            Goal::Only { address, names } => {
                if names_of(&text, address).join(" ") != *names {
                    text = set(&text, address, names);
                }
            }
        }
        Ok(text)
    }
}

impl Function for Host {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        self.file.keys(there)
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        self.file.want(there, |text| self.edited(text))
    }
}
