//! file.recurse: a directory of the state repository, copied with everything below it.
//!
//! The low's `contents` are its files: the controller has chosen (`include_pat`, `exclude_pat`, `maxdepth`) and rendered them, because
//! what is not chosen must not be rendered either. `exclude_pat` counts here once more, for what `clean` leaves.

use std::collections::{BTreeMap, BTreeSet};

use super::directory::{cleaned, required_paths};
use super::managed::{Managed, Mode, What, backup};
use super::place::{self, Owner, failed, key, kind, named};
use super::symlink::Symlink;
use crate::diagnostic::Result;
use crate::function::args::Args;
use crate::function::{Arg, ArgKind, Entry, Function, There, Want};
use crate::plan::{Content, Key, Low};
use crate::value::Attrs;

pub const ENTRY: Entry = Entry {
    name: "file.recurse",
    doc: "A directory of the state repository with everything below it.",
    args: &[
        super::NAME,
        Arg::new("source", ArgKind::Strs, "", "The directory: salt://…; of a list the first that is there. Required."),
        Arg::new("keep_source", ArgKind::Bool, "True", "Accepted: the controller has the files."),
        Arg::new("clean", ArgKind::Bool, "False", "Whether everything goes that is neither in the source nor of a required file state."),
        super::USER,
        super::GROUP,
        super::OWNER,
        Arg::new("dir_mode", ArgKind::Mode, "", "The mode of directories."),
        Arg::new("file_mode", ArgKind::Mode, "", "The mode of files; `keep` takes that of the source files."),
        super::TEMPLATE,
        super::CONTEXT,
        super::DEFAULTS,
        Arg::new("replace", ArgKind::Bool, "True", "False: files that are there keep their contents."),
        Arg::new("include_empty", ArgKind::Bool, "False", "Whether empty directories are made too."),
        Arg::new("backup", ArgKind::Any, "", "`minion` keeps copies of what was there, in /var/cache/basalt/file_backup."),
        Arg::new("include_pat", ArgKind::Strs, "", "Only these: a glob or `E@` and a regular expression, on paths below the source."),
        Arg::new("exclude_pat", ArgKind::Strs, "", "Not these; clean leaves them."),
        Arg::new("maxdepth", ArgKind::Int, "", "How many levels down; 0 is the directory alone."),
        Arg::new("keep_symlinks", ArgKind::Bool, "False", "Whether links of the source are links here too."),
        Arg::new("force_symlinks", ArgKind::Bool, "False", "Whether such links replace files and directories."),
        Arg::new("makedirs", ArgKind::Bool, "True", "Accepted: directories above it are always made."),
        super::SHOW_CHANGES,
    ],
    watches: false,
    parse,
};

struct Recurse {
    path: String,
    files: Vec<Managed>,
    links: Vec<Symlink>,
    /// Directories that are to be there, the top one too; parents before their children. Whether mode and owner are managed.
    directories: BTreeMap<String, bool>,
    owner: Owner,
    dir_mode: Option<String>,
    clean: bool,
    exclude: Vec<String>,
}

fn parse(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    if args.value("mode").is_some() {
        return Err(args.error("file.recurse has file_mode and dir_mode instead of mode"));
    }
    if args.strs("source")?.is_empty() {
        return Err(args.error("file.recurse needs a source"));
    }
    let path = place::name(&args)?;
    let owner = Owner::parse(&args)?;
    let mode = Mode::parse(&args, "file_mode")?;
    let replace = args.bool("replace", true)?;
    let copies = backup(&args)?;
    let (force_links, dir_mode) = (args.bool("force_symlinks", false)?, args.mode("dir_mode")?);
    let mut recurse = Recurse {
        directories: BTreeMap::from([(path.clone(), false)]),
        files: Vec::new(),
        links: Vec::new(),
        owner: owner.clone(),
        dir_mode,
        clean: args.bool("clean", false)?,
        exclude: args.strs("exclude_pat")?,
        path,
    };
    for content in &low.contents {
        let place = recurse.place(&args, content)?;
        if content.name.ends_with('/') {
            recurse.needs(&place);
            continue;
        }
        recurse.needs(place::parent(&place));
        if let Some(target) = &content.link {
            recurse.links.push(Symlink {
                path: place,
                target: target.clone(),
                force: force_links,
                backup: None,
                makedirs: None,
                owner: owner.clone(),
            });
            continue;
        }
        recurse.files.push(Managed {
            path: place,
            what: What::Content(content.clone()),
            mode: mode.clone(),
            owner: owner.clone(),
            makedirs: None,
            replace,
            create: true,
            follow: true,
            backup: copies,
        });
    }
    Ok(Box::new(recurse))
}

impl Recurse {
    /// Where a file of the source goes. Names come from elsewhere: they must stay below the directory.
    fn place(&self, args: &Args, content: &Content) -> Result<String> {
        if content.name.split('/').any(|part| part == "..") || content.name.starts_with('/') {
            return Err(args.error(format!("{:?} is no path below a directory", content.name)));
        }
        Ok(place::normal(&place::join(&self.path, &content.name)))
    }

    /// A directory with something in it: managed itself; those between it and the top are only made.
    fn needs(&mut self, directory: &str) {
        let mut here = directory;
        self.directories.insert(here.to_owned(), true);
        while here != self.path && place::within(here, &self.path) {
            here = place::parent(here);
            self.directories.entry(here.to_owned()).or_insert(false);
        }
    }

    fn all_paths(&self) -> BTreeSet<String> {
        let files = self.files.iter().map(|f| &f.path).chain(self.links.iter().map(|l| &l.path));
        files.chain(self.directories.keys()).cloned().collect()
    }
}

impl Function for Recurse {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        let mut keys = place::parent_keys(there, &self.path, true);
        for directory in self.directories.keys() {
            keys.extend(place::follow_keys(there, directory));
            keys.extend(self.owner.keys(&there.get(&key(directory))));
        }
        for file in &self.files {
            keys.extend(file.keys(there)?);
        }
        for link in &self.links {
            keys.push(key(&link.path));
        }
        keys.sort();
        keys.dedup();
        if self.clean {
            let mut keep = self.all_paths();
            keep.extend(required_paths(there, &self.path)?);
            keys.extend(cleaned(there, &self.path, &keep, &self.exclude)?.into_iter().map(|(key, _)| key));
        }
        Ok(keys)
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        self.owner.check(there)?;
        let mut wants: Vec<(Key, Attrs)> = Vec::new();
        let made = |mode: &Option<String>| self.owner.directory(mode.as_deref().unwrap_or(place::NEW_DIRECTORY));
        wants.extend(place::parents(there, &self.path, Some(&made(&self.dir_mode)))?);
        // What stands in the way of a directory makes everything below it new.
        let mut new: BTreeSet<&str> = BTreeSet::new();
        for (directory, managed) in &self.directories {
            let below_new = new.contains(place::parent(directory));
            let now = there.get(&key(&place::follow(there, directory)?));
            match kind(&now).filter(|_| !below_new) {
                Some("directory") => {
                    let mut wanted = place::attrs([("kind", "directory")]);
                    self.owner.add(there, &now, &mut wanted);
                    if let Some(mode) = &self.dir_mode {
                        wanted.insert("mode".into(), mode.as_str().into());
                    }
                    if *managed && wanted.iter().any(|(name, value)| now.get(name) != Some(value)) {
                        wants.push((key(&place::follow(there, directory)?), wanted));
                    }
                }
                Some(other) if !self.clean || *directory == self.path => {
                    let hint = "remove it first, or set `clean: True` to replace what is below the directory";
                    return Err(failed(format!("{directory} is {}, and a directory is to be there", named(other))).hint(hint).into());
                }
                _ => {
                    new.insert(directory);
                    wants.push((key(directory), made(&self.dir_mode)));
                }
            }
        }
        for file in &self.files {
            let now = there.get(&key(&file.path));
            // Salt's `clean` lets a file take the place of a directory.
            if self.clean && file.replace && kind(&now) == Some("directory") && !new.contains(place::parent(&file.path)) {
                wants.push((key(&file.path), Attrs::new()));
                if let What::Content(content) = &file.what {
                    let mut wanted = place::attrs([("kind", "file"), ("content", &content.hash.0), ("mode", &file.new_mode(content))]);
                    self.owner.add(there, &Attrs::new(), &mut wanted);
                    wants.push((key(&file.path), wanted));
                }
                continue;
            }
            if let Want::Is(wanted) = file.wants(there, false)? {
                wants.extend(wanted);
            }
        }
        for link in &self.links {
            if let Want::Is(wanted) = link.wants(there, false)? {
                wants.extend(wanted);
            }
        }
        if self.clean {
            let mut keep = self.all_paths();
            keep.extend(required_paths(there, &self.path)?);
            wants.extend(cleaned(there, &self.path, &keep, &self.exclude)?);
        }
        Ok(Want::Is(wants))
    }
}
