//! ini.*: options and sections of ini files, changed as Salt's `ini_manage` changes them. Where nothing is to change the file stays as it is;
//! where something is, the whole file is written in Salt's form.

mod document;

use indexmap::IndexMap;

use self::document::{Node, Section};
use super::args::Args;
use super::edit::TextFile;
use super::file::place;
use super::{Arg, ArgKind, Entry, Function, There, Want};
use crate::diagnostic::Result;
use crate::plan::{Key, Low};
use crate::value::{Map, Value};

const NAME: Arg = Arg::new("name", ArgKind::Str, "", "The path of the file, absolute. Example: /etc/app.ini");
const SEPARATOR: Arg = Arg::new("separator", ArgKind::Str, "=", "What stands between an option and its value.");
const ENCODING: Arg = Arg::new("encoding", ArgKind::Str, "utf-8", "Accepted: files are utf-8.");

pub const FUNCTIONS: &[Entry] = &[
    Entry {
        name: "ini.options_absent",
        doc: "Options are not in an ini file.",
        args: &[
            NAME,
            Arg::new("sections", ArgKind::Map, "", "Sections with lists of options. Example: {main: [debug]}"),
            SEPARATOR,
            ENCODING,
        ],
        watches: false,
        parse: |low| parse(low, options_absent),
    },
    Entry {
        name: "ini.options_present",
        doc: "Options of an ini file have these values; missing sections and files are made.",
        args: &[
            NAME,
            Arg::new(
                "sections",
                ArgKind::Map,
                "",
                "Sections with their options, or options without a section. Example: {main: {debug: 0}}",
            ),
            SEPARATOR,
            Arg::new("strict", ArgKind::Bool, "False", "Whether all other options and sections go."),
            ENCODING,
            Arg::new("no_spaces", ArgKind::Bool, "False", "Whether no spaces stand around the separator, in the whole file."),
        ],
        watches: false,
        parse: |low| parse(low, options_present),
    },
    Entry {
        name: "ini.sections_absent",
        doc: "Sections are not in an ini file, nor what is in them.",
        args: &[NAME, Arg::new("sections", ArgKind::Any, "", "A list of sections. Example: [old]"), SEPARATOR, ENCODING],
        watches: false,
        parse: |low| parse(low, sections_absent),
    },
    Entry {
        name: "ini.sections_present",
        doc: "Sections are in an ini file; missing ones are made, empty.",
        args: &[NAME, Arg::new("sections", ArgKind::Any, "", "A list of sections. Example: [new]"), SEPARATOR, ENCODING],
        watches: false,
        parse: |low| parse(low, sections_present),
    },
];

enum Goal {
    Options {
        sections: IndexMap<String, Node>,
        strict: bool,
    },
    /// Sections (none for options outside of one) with the options that go.
    NoOptions(Vec<(Option<String>, Vec<String>)>),
    Sections(Vec<String>),
    NoSections(Vec<String>),
}

struct Ini {
    file: TextFile,
    separator: String,
    no_spaces: bool,
    goal: Goal,
}

fn parse(low: &Low, goal: fn(&Args) -> Result<Goal>) -> Result<Box<dyn Function>> {
    let args = Args(low);
    if let Some(encoding) = args.str("encoding")?
        && !["utf-8", "utf8", "utf_8", "ascii", "us-ascii"].contains(&encoding.to_ascii_lowercase().as_str())
    {
        return Err(args.error(format!("encoding {encoding} is not known: files are written in utf-8")));
    }
    let goal = goal(&args)?;
    let made = matches!(goal, Goal::Options { .. } | Goal::Sections(_));
    let file = TextFile::new(place::name(&args)?);
    Ok(Box::new(Ini {
        file: if made { file } else { TextFile { made: None, ..file } },
        separator: args.str("separator")?.filter(|s| !s.is_empty()).unwrap_or_else(|| "=".into()),
        no_spaces: args.0.args.contains_key("no_spaces") && args.bool("no_spaces", false)?,
        goal,
    }))
}

/// Sections and options as Salt takes them: what is a mapping is a section, all else an option whose value is its text.
fn nodes(args: &Args, map: &Map) -> Result<IndexMap<String, Node>> {
    map.iter()
        .map(|(name, value)| {
            let name = name.to_text();
            let node = match value {
                Value::Map(map) => Node::Section(nodes(args, map)?.into()),
                Value::List(_) => return Err(args.error(format!("{name} of ini.options_present is a list, and an option has one value"))),
                other => Node::Text(other.to_text()),
            };
            Ok((name, node))
        })
        .collect()
}

fn options_present(args: &Args) -> Result<Goal> {
    Ok(Goal::Options { sections: nodes(args, &args.map("sections")?)?, strict: args.bool("strict", false)? })
}

fn options_absent(args: &Args) -> Result<Goal> {
    let of = |(section, options): (Value, Value)| match options {
        Value::List(list) => (Some(section.to_text()).filter(|s| !s.is_empty()), list.iter().map(Value::to_text).collect()),
        Value::Map(map) => (Some(section.to_text()), map.iter().map(|(name, _)| name.to_text()).collect()),
        _ => (None, vec![section.to_text()]),
    };
    Ok(Goal::NoOptions(args.map("sections")?.into_iter().map(of).collect()))
}

/// A list of sections, or a mapping whose keys they are.
fn sections(args: &Args) -> Result<Vec<String>> {
    match args.value("sections") {
        Some(Value::Map(map)) => Ok(map.iter().map(|(name, _)| name.to_text()).collect()),
        Some(Value::List(list)) => Ok(list
            .iter()
            .flat_map(|item| match item {
                Value::Map(map) => map.iter().map(|(name, _)| name.to_text()).collect(),
                name => vec![name.to_text()],
            })
            .collect()),
        None => Ok(Vec::new()),
        Some(_) => Err(args.error(format!("argument sections of {} is to be a list", args.0.function()))),
    }
}

fn sections_present(args: &Args) -> Result<Goal> {
    Ok(Goal::Sections(sections(args)?))
}

fn sections_absent(args: &Args) -> Result<Goal> {
    Ok(Goal::NoSections(sections(args)?))
}

/// What is there and not wanted goes.
fn prune(file: &mut Section, wanted: &IndexMap<String, Node>) -> bool {
    let same_kind = |there: &Node, wanted: &Node| matches!(there, Node::Text(_)) == matches!(wanted, Node::Text(_));
    let gone = file.names().filter(|(name, there)| !wanted.get(*name).is_some_and(|wanted| same_kind(there, wanted)));
    let gone: Vec<String> = gone.map(|(name, _)| name.to_owned()).collect();
    gone.iter().filter(|name| file.remove(name)).count() > 0
}

impl Ini {
    fn edited(&self, text: &str) -> String {
        let mut file = Section::parse(text, &self.separator);
        let mut changed = false;
        match &self.goal {
            Goal::Options { sections, strict } => {
                if *strict {
                    changed |= prune(&mut file, sections);
                    for (name, node) in sections {
                        if let (Node::Section(wanted), Some(there)) = (node, file.section_mut(name)) {
                            let options = wanted.names().map(|(name, node)| (name.to_owned(), node.clone())).collect();
                            changed |= prune(there, &options);
                        }
                    }
                }
                changed |= file.update(sections);
            }
            Goal::NoOptions(all) => {
                for (section, options) in all {
                    let within = match section {
                        Some(section) => file.section_mut(section),
                        None => Some(&mut file),
                    };
                    let Some(within) = within else { continue };
                    options.iter().for_each(|option| changed |= within.remove(option));
                }
            }
            Goal::Sections(names) => {
                for name in names.iter().filter(|name| file.get(name.as_str()).is_none()).cloned().collect::<Vec<_>>() {
                    changed |= file.update(&IndexMap::from([(name, Node::Section(Section::default()))]));
                }
            }
            Goal::NoSections(names) => {
                for name in names {
                    changed |= file.section_mut(name).is_some() && file.remove(name);
                }
            }
        }
        if changed { file.text(self.no_spaces) } else { text.to_owned() }
    }
}

impl Function for Ini {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        self.file.keys(there)
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        if self.file.made.is_none() && !there.uncertain() && self.file.text(there)?.is_none() {
            return Ok(Want::Nothing(format!("{} is not there", self.file.path)));
        }
        self.file.want(there, |text| Ok(self.edited(text)))
    }
}
