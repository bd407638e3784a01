//! file.managed: a file with these contents, this mode and this owner.

use super::place::{self, Owner, attrs, failed, key, kind, named, text};
use super::text as lines;
use crate::diagnostic::Result;
use crate::function::args::Args;
use crate::function::{Arg, ArgKind, Entry, Function, There, Want};
use crate::plan::{Content, Hash, Key, Low};
use crate::value::{Attrs, Value};

/// Where `backup: minion` puts what a file was.
const BACKUPS: &str = "/var/cache/basalt/file_backup";

pub const ENTRY: Entry = Entry {
    name: "file.managed",
    doc: "A file with these contents, mode and owner.",
    args: &[
        super::NAME,
        Arg::new(
            "source",
            ArgKind::Strs,
            "",
            "Where the contents come from: salt://, http(s)://, a path on the host; of a list the first that is there.",
        ),
        Arg::new("source_hash", ArgKind::Any, "", "What a download must hash to: a hash, or where a file of hashes is."),
        Arg::new("source_hash_name", ArgKind::Str, "", "The name to look for in a file of hashes."),
        Arg::new("skip_verify", ArgKind::Bool, "False", "Download without a hash to compare with."),
        Arg::new("keep_source", ArgKind::Bool, "True", "Accepted: the controller keeps downloads by their hash."),
        super::USER,
        super::GROUP,
        super::OWNER,
        Arg::new("mode", ArgKind::Mode, "", "The mode; `keep` takes the source file's. New files get 0644 where it is not given."),
        super::TEMPLATE,
        super::CONTEXT,
        super::DEFAULTS,
        super::MAKEDIRS,
        Arg::new(
            "dir_mode",
            ArgKind::Mode,
            "",
            "The mode of directories that makedirs makes; by default that of the file, with x where there is r or w.",
        ),
        Arg::new("replace", ArgKind::Bool, "True", "False: a file that is there keeps its contents; only mode and owner are managed."),
        Arg::new("backup", ArgKind::Any, "", "`minion` keeps a copy of what was there, in /var/cache/basalt/file_backup."),
        super::SHOW_CHANGES,
        Arg::new("show_diff", ArgKind::Bool, "True", "The old name of show_changes."),
        Arg::new("create", ArgKind::Bool, "True", "False: a file that is not there is not made."),
        Arg::new("contents", ArgKind::Any, "", "The contents themselves; a list is one line an item."),
        Arg::new("contents_pillar", ArgKind::Any, "", "A pillar key, or a list of them, whose value the contents are."),
        Arg::new("contents_grains", ArgKind::Any, "", "A grain, or a list of them, whose value the contents are."),
        Arg::new("contents_newline", ArgKind::Bool, "True", "Whether contents end in a line break."),
        Arg::new("contents_delimiter", ArgKind::Str, ":", "What separates the parts of a pillar key."),
        Arg::new("allow_empty", ArgKind::Bool, "True", "False: empty contents are an error."),
        Arg::new("follow_symlinks", ArgKind::Bool, "True", "Whether a link at this path is followed; otherwise it becomes a file."),
        Arg::new("encoding", ArgKind::Str, "utf-8", "The contents' encoding: utf-8 or ascii."),
        Arg::new("tmp_dir", ArgKind::Str, "", "Accepted: check_cmd sees the new file beside the old one."),
        Arg::new("tmp_ext", ArgKind::Str, "", "Accepted, see tmp_dir."),
        Arg::new("new_file_diff", ArgKind::Bool, "False", "Accepted: new files are always shown."),
    ],
    watches: false,
    parse,
};

/// What is to be in the file.
#[derive(Clone, Debug)]
pub enum What {
    /// Whatever is there; a new file is empty.
    Anything,
    Content(Content),
    Bytes(Vec<u8>),
    /// The first of these files of the host that is there.
    Local(Vec<String>),
}

/// Mode of the file: as given, the source's, or not managed.
#[derive(Clone, Debug, PartialEq)]
pub enum Mode {
    Any,
    Keep,
    Is(String),
}

impl Mode {
    pub fn parse(args: &Args, name: &str) -> Result<Mode> {
        Ok(match args.mode(name)? {
            None => Mode::Any,
            Some(keep) if keep == "keep" => Mode::Keep,
            Some(mode) => Mode::Is(mode),
        })
    }
}

#[derive(Clone, Debug)]
pub struct Managed {
    pub path: String,
    pub what: What,
    pub mode: Mode,
    pub owner: Owner,
    /// The mode of directories to be made above it; `None`: they must be there.
    pub makedirs: Option<Option<String>>,
    pub replace: bool,
    pub create: bool,
    pub follow: bool,
    pub backup: bool,
}

fn parse(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let what = what(&args)?;
    let mode = Mode::parse(&args, "mode")?;
    let from_contents = match &what {
        What::Bytes(_) => true,
        What::Content(content) => content.name == "contents",
        _ => false,
    };
    if mode == Mode::Keep && from_contents {
        return Err(args.error("mode: keep needs a source to keep the mode of, and there are only contents"));
    }
    Ok(Box::new(Managed {
        path: place::name(&args)?,
        replace: args.bool("replace", true)? && !matches!(what, What::Anything),
        what,
        mode,
        owner: Owner::parse(&args)?,
        makedirs: args.bool("makedirs", false)?.then_some(args.mode("dir_mode")?),
        create: args.bool("create", true)?,
        follow: args.bool("follow_symlinks", true)?,
        backup: backup(&args)?,
    }))
}

/// `backup: minion`; the other side's copy is the journal.
pub fn backup(args: &Args) -> Result<bool> {
    match args.value("backup") {
        None | Some(Value::Bool(false)) => Ok(false),
        Some(Value::Str(s)) if s.is_empty() => Ok(false),
        Some(Value::Str(s)) if s == "minion" || s == "both" => Ok(true),
        Some(Value::Bool(true)) => Ok(true),
        Some(other) => Err(args.error(format!("backup of {} is to be minion, found {other}", args.0.function()))),
    }
}

fn what(args: &Args) -> Result<What> {
    let given: Vec<&str> = ["source", "contents", "contents_pillar", "contents_grains"]
        .into_iter()
        .filter(|n| args.value(n).is_some_and(|v| *n != "source" || v.truthy()))
        .collect();
    if let [first, second, ..] = given.as_slice() {
        return Err(args.error(format!("{first} and {second} cannot be used together: only one can say what is in the file")));
    }
    if let Some(encoding) = args.str("encoding")?
        && !["utf-8", "utf8", "utf_8", "ascii", "us-ascii"].contains(&encoding.to_ascii_lowercase().as_str())
    {
        return Err(args.error(format!("encoding {encoding} is not known: files are written in utf-8")));
    }
    let Some(argument) = given.first() else { return Ok(What::Anything) };
    if let Some(content) =
        args.0.contents.iter().find(|c| c.name == *argument || (c.name == "contents" && argument.starts_with("contents")))
    {
        if content.size == 0 && *argument != "source" && !args.bool("allow_empty", true)? {
            return Err(empty(args, argument));
        }
        return Ok(What::Content(content.clone()));
    }
    if *argument == "source" {
        let sources = args.strs("source")?;
        let local: Vec<String> =
            sources.iter().filter_map(|s| s.strip_prefix("file://").or(s.starts_with('/').then_some(s))).map(place::normal).collect();
        if local.is_empty() {
            return Err(args.error(format!("source {} was not found", sources.join(", "))));
        }
        if args.str("template")?.is_some() {
            return Err(Box::new(
                args.error(format!("source {} is a file of the host, and templates are rendered on the controller", local.join(", ")))
                    .hint("put the template into the state repository and name it as salt://…"),
            ));
        }
        return Ok(What::Local(local));
    }
    let (Some(contents), "contents") = (args.value("contents"), *argument) else {
        return Err(args.error(format!("{argument} was not resolved")));
    };
    if args.str("template")?.is_some() {
        return Err(args.error("contents with a template were not rendered"));
    }
    if !contents.truthy() && !args.bool("allow_empty", true)? {
        return Err(empty(args, argument));
    }
    Ok(What::Bytes(contents_of(args, contents, args.bool("contents_newline", true)?)?.into_bytes()))
}

fn empty(args: &Args, argument: &str) -> crate::diagnostic::Error {
    args.error(format!("{argument} would make the file empty, and allow_empty is False"))
}

/// Salt's rule: every item's lines, each with a line break.
fn contents_of(args: &Args, value: &Value, newline: bool) -> Result<String> {
    let parts = match value {
        Value::List(parts) => parts.as_slice(),
        one => std::slice::from_ref(one),
    };
    let mut text = String::new();
    for part in parts {
        if matches!(part, Value::List(_) | Value::Map(_)) {
            return Err(args.error(format!("contents are to be a string or a list of strings, found {}", part.kind())));
        }
        for line in lines::split_lines(&part.to_text(), false) {
            text.push_str(line.trim_end_matches('\n').trim_end_matches('\r'));
            text.push('\n');
        }
    }
    if !newline {
        text.truncate(text.trim_end_matches('\n').trim_end_matches('\r').len());
    }
    Ok(text)
}

/// What to write, and the mode of where it comes from.
struct Source {
    hash: Hash,
    mode: Option<String>,
}

impl Managed {
    /// The real path: that of the link's target, where links are followed.
    fn real(&self, there: &dyn There) -> Result<String> {
        if self.follow { place::follow(there, &self.path) } else { Ok(self.path.clone()) }
    }

    fn source(&self, there: &dyn There) -> Result<Option<Source>> {
        match &self.what {
            What::Anything => Ok(None),
            What::Content(content) => {
                Ok(Some(Source { hash: content.hash.clone(), mode: content.mode.map(|m| format!("{:04o}", m & 0o7777)) }))
            }
            What::Bytes(bytes) => Ok(Some(Source { hash: there.put(bytes.clone()), mode: None })),
            What::Local(paths) => {
                for path in paths {
                    let found = there.get(&key(&place::follow(there, path)?));
                    if let Some(hash) = text(&found, "content") {
                        return Ok(Some(Source { hash: Hash(hash.to_owned()), mode: text(&found, "mode").map(str::to_owned) }));
                    }
                }
                Err(failed(format!("source {} is not on the host", paths.join(", ")))
                    .hint("a source in the state repository is named salt://…")
                    .into())
            }
        }
    }

    /// The mode of a new file with this content.
    pub fn new_mode(&self, content: &Content) -> String {
        match (&self.mode, content.mode) {
            (Mode::Is(mode), _) => mode.clone(),
            (Mode::Keep, Some(mode)) => format!("{:04o}", mode & 0o7777),
            _ => place::NEW_FILE.to_owned(),
        }
    }

    pub fn keys(&self, there: &dyn There) -> Result<Vec<Key>> {
        let mut keys = if self.follow { place::follow_keys(there, &self.path) } else { vec![key(&self.path)] };
        let real = self.real(there)?;
        let now = there.get(&key(&real));
        keys.extend(place::parent_keys(there, &real, self.makedirs.is_some()));
        keys.extend(self.owner.keys(&now));
        if let What::Local(paths) = &self.what {
            keys.extend(paths.iter().flat_map(|path| place::follow_keys(there, path)));
        }
        if let Some(copy) = self.backup_path(&real, &now) {
            keys.extend(place::parent_keys(there, &copy, true));
            keys.push(key(&copy));
        }
        Ok(keys)
    }

    /// The path of the copy, named for the contents it has: equal plans make equal copies.
    fn backup_path(&self, real: &str, now: &Attrs) -> Option<String> {
        let hash = text(now, "content").filter(|_| self.backup && self.replace)?;
        Some(format!("{BACKUPS}{real}_{}", hash.get(..12)?))
    }

    /// What the file is to be; `Err` with the comment of the failed state. `above`: whether missing parents are this state's matter.
    pub fn wants(&self, there: &dyn There, above: bool) -> Result<Want> {
        let real = self.real(there)?;
        let now = there.get(&key(&real));
        let there_is = kind(&now);
        if !self.create && there_is.is_none() {
            let why = format!("{real} is not there and create is False");
            return Ok(if there.uncertain() { Want::Unknown(why) } else { Want::Nothing(why) });
        }
        self.owner.check(there)?;
        match there_is {
            Some(kind @ ("directory" | "other")) => {
                return Err(failed(format!("{real} is {}", named(kind)))
                    .hint("remove it first (file.absent) if a file is to be there")
                    .into());
            }
            Some(kind) if !self.replace => {
                let mut wanted = attrs([("kind", kind)]);
                self.owner.add(there, &now, &mut wanted);
                if let (Mode::Is(mode), "file") = (&self.mode, kind) {
                    wanted.insert("mode".into(), Value::str(mode));
                }
                return Ok(Want::Is(vec![(key(&real), wanted)]));
            }
            _ => {}
        }
        let source = self.source(there)?;
        let mut wants = Vec::new();
        let mode = match (&self.mode, &source) {
            (Mode::Is(mode), _) => Some(mode.clone()),
            (Mode::Keep, Some(Source { mode: Some(mode), .. })) => Some(mode.clone()),
            // A new file; what was a link is one too.
            _ if there_is != Some("file") => Some(place::NEW_FILE.to_owned()),
            _ => None,
        };
        if above {
            let made = self.makedirs.as_ref().map(|dir_mode| {
                let derived = || match &self.mode {
                    Mode::Is(mode) => place::mode_of_parents(mode),
                    _ => place::NEW_DIRECTORY.to_owned(),
                };
                self.owner.directory(&dir_mode.clone().unwrap_or_else(derived))
            });
            wants = place::parents(there, &real, made.as_ref())?;
        }
        let hash = source.map_or_else(|| there.put(Vec::new()), |s| s.hash);
        if let Some(copy) = self.backup_path(&real, &now)
            && text(&now, "content") != Some(&hash.0)
        {
            wants.extend(place::parents(there, &copy, Some(&attrs([("kind", "directory"), ("mode", "0700")])))?);
            wants.push((key(&copy), attrs([("kind", "file"), ("mode", "0600"), ("content", text(&now, "content").unwrap_or_default())])));
        }
        let mut wanted = attrs([("kind", "file"), ("content", &hash.0)]);
        wanted.extend(mode.map(|mode| ("mode".to_owned(), Value::Str(mode))));
        self.owner.add(there, &now, &mut wanted);
        wants.push((key(&real), wanted));
        Ok(Want::Is(wants))
    }
}

impl Function for Managed {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        self.keys(there)
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        self.wants(there, true)
    }
}
