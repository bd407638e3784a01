//! archive.extracted: what an archive holds is in a directory. The controller has unpacked it (`lang::archive`), so each path is a `file:`
//! object like any other.
//!
//! As in Salt it is extracted where a path is missing or is of another kind; contents that people changed stay, unless `overwrite` says otherwise.

use std::collections::BTreeSet;

use super::args::Args;
use super::file::{directory, place};
use super::{Arg, ArgKind, Entry, Function, There, Want};
use crate::diagnostic::Result;
use crate::plan::{Content, Key, Low};
use crate::value::{Attrs, Value, gathered};

const EXTRACTED: &[Arg] = &[
    Arg::new("name", ArgKind::Str, "", "The directory to extract into."),
    Arg::new(
        "source",
        ArgKind::Any,
        "",
        "The archive: salt://… or an address, which the controller fetches; or a list of which the first counts.",
    ),
    Arg::new("source_hash", ArgKind::Any, "", "What a download must hash to."),
    Arg::new("source_hash_name", ArgKind::Str, "", "The name by which a file of hashes knows it."),
    Arg::new("source_hash_update", ArgKind::Bool, "False", "Extract also where a content differs from the archive's."),
    Arg::new("skip_verify", ArgKind::Bool, "False", "Take a download without a source_hash."),
    Arg::new("archive_format", ArgKind::Str, "", "tar or zip. Default: as the source's name ends."),
    Arg::new("options", ArgKind::Str, "", "Of tar's only `--strip-components=N`, and those that change nothing here."),
    Arg::new("overwrite", ArgKind::Bool, "False", "Every content is that of the archive."),
    Arg::new("force", ArgKind::Bool, "False", "What is of another kind makes room."),
    Arg::new("clean", ArgKind::Bool, "False", "When it is extracted, what else is in the archive's topmost directories goes."),
    Arg::new("clean_parent", ArgKind::Bool, "False", "When it is extracted, what else is in the directory goes."),
    Arg::new("user", ArgKind::Str, "", "Who owns what is extracted."),
    Arg::new("group", ArgKind::Str, "", "Its group."),
    Arg::new("enforce_ownership_on", ArgKind::Str, "", "A directory below the name: owners are set on what is in it instead."),
    Arg::new("if_missing", ArgKind::Str, "", "Nothing is extracted where this path is."),
    Arg::new("enforce_toplevel", ArgKind::Bool, "True", "Refuse an archive that has not one single directory at its top."),
    Arg::new("extract_perms", ArgKind::Bool, "True", "Modes as a zip has them."),
    Arg::new("keep_source", ArgKind::Bool, "True", "Accepted without effect: the archive never comes to the host."),
    Arg::new("keep", ArgKind::Bool, "True", "Accepted without effect, as keep_source."),
    Arg::new("list_options", ArgKind::Str, "", "Accepted without effect."),
    Arg::new("trim_output", ArgKind::Any, "False", "Accepted without effect."),
    Arg::new("use_cmd_unzip", ArgKind::Bool, "", "Accepted without effect: no program is used."),
    Arg::new("skip_files_list_verify", ArgKind::Bool, "False", "Accepted without effect: the list is always looked at."),
    Arg::new("use_etag", ArgKind::Bool, "False", "Accepted without effect."),
];

pub const FUNCTIONS: &[Entry] = &[Entry {
    name: "archive.extracted",
    doc: "What an archive holds is in a directory.",
    args: EXTRACTED,
    watches: false,
    parse: extracted,
}];

struct Extracted {
    directory: String,
    contents: Vec<Content>,
    owner: place::Owner,
    owned: Option<String>,
    if_missing: Option<String>,
    enforce_toplevel: bool,
    overwrite: bool,
    update: bool,
    force: bool,
    clean: bool,
    clean_parent: bool,
}

fn extracted(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let directory = place::name(&args)?;
    if low.contents.is_empty() {
        let why = "archive.extracted needs a source in the state repository (salt://…) or on the web";
        return Err(args.error(format!("{why}; what lies on the host cannot be planned")));
    }
    let path = |name: &str| args.str(name)?.filter(|p| !p.is_empty()).map(|path| place::absolute(&args, name, &path)).transpose();
    let owned = path("enforce_ownership_on")?;
    if owned.as_ref().is_some_and(|path| !place::within(path, &directory)) {
        return Err(args.error(format!("Value for 'enforce_ownership_on' must be within {directory}")));
    }
    let (clean, clean_parent) = (args.bool("clean", false)?, args.bool("clean_parent", false)?);
    if clean && clean_parent {
        return Err(args.error("Only one of 'clean' and 'clean_parent' can be set to True"));
    }
    Ok(Box::new(Extracted {
        contents: low.contents.clone(),
        owner: place::Owner::parse(&args)?,
        owned,
        if_missing: path("if_missing")?,
        enforce_toplevel: args.bool("enforce_toplevel", true)?,
        overwrite: args.bool("overwrite", false)?,
        update: args.bool("source_hash_update", false)?,
        force: args.bool("force", false)?,
        clean,
        clean_parent,
        directory,
    }))
}

fn kind_of(content: &Content) -> &'static str {
    match content.name.ends_with('/') {
        true => "directory",
        false if content.link.is_some() => "symlink",
        false => "file",
    }
}

impl Extracted {
    fn path(&self, content: &Content) -> String {
        place::join(&self.directory, content.name.trim_end_matches('/'))
    }

    /// Directories that files lie in and that the archive does not name.
    fn implied(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for content in &self.contents {
            let path = self.path(content);
            let mut here = place::parent(&path);
            while here != self.directory && place::within(here, &self.directory) && found.insert(here.to_owned()) {
                here = place::parent(here);
            }
        }
        for content in self.contents.iter().filter(|c| kind_of(c) == "directory") {
            found.remove(&self.path(content));
        }
        found
    }

    /// The first names of the archive's paths, and whether each is a directory.
    fn top(&self) -> BTreeSet<(String, bool)> {
        let top = |content: &Content| match content.name.split_once('/') {
            Some((first, _)) => (first.to_owned(), true),
            None => (content.name.clone(), false),
        };
        gathered(self.contents.iter().map(top))
    }

    fn content_differs(&self, there: &dyn There) -> bool {
        self.contents.iter().any(|content| {
            let now = there.get(&place::key(&self.path(content)));
            match &content.link {
                Some(target) => place::text(&now, "target") != Some(target),
                None => kind_of(content) == "file" && place::text(&now, "content") != Some(&content.hash.0),
            }
        })
    }

    /// What goes when it is extracted: everything below these directories that is not in the archive.
    fn cleaned(&self, there: &dyn There) -> Result<Vec<(Key, Attrs)>> {
        let keep: BTreeSet<String> = self.contents.iter().map(|content| self.path(content)).chain(self.implied()).collect();
        let tops: Vec<String> = match (self.clean, self.clean_parent) {
            (_, true) => vec![self.directory.clone()],
            (true, _) => {
                self.top().into_iter().filter(|(_, directory)| *directory).map(|(name, _)| place::join(&self.directory, &name)).collect()
            }
            _ => Vec::new(),
        };
        let mut gone = Vec::new();
        for top in tops {
            if place::kind(&there.get(&place::key(&top))) == Some("directory") {
                gone.extend(directory::cleaned(there, &top, &keep, &[])?);
            }
        }
        Ok(gone)
    }

    /// Owners of what is there already.
    fn ownership(&self, there: &dyn There) -> Result<Vec<(Key, Attrs)>> {
        if self.owner == place::Owner::default() {
            return Ok(Vec::new());
        }
        let paths: Vec<String> = match &self.owned {
            Some(top) => std::iter::once(top.clone()).chain(place::walk(there, top, None)?.into_iter().map(|(path, _)| path)).collect(),
            None => self.contents.iter().map(|content| self.path(content)).chain(self.implied()).collect(),
        };
        let wants = paths.into_iter().filter_map(|path| {
            let key = place::key(&path);
            let now = there.get(&key);
            let kind = place::kind(&now)?;
            let mut wanted = place::attrs([("kind", kind)]);
            self.owner.add(there, &now, &mut wanted);
            Some((key, wanted))
        });
        Ok(wants.collect())
    }
}

impl Function for Extracted {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        let mut keys = place::follow_keys(there, &self.directory);
        keys.extend(place::parent_keys(there, &self.directory, true));
        keys.extend(self.if_missing.iter().map(|path| place::key(path)));
        keys.extend(self.contents.iter().map(|content| place::key(&self.path(content))));
        keys.extend(self.implied().iter().map(|path| place::key(path)));
        keys.extend(self.owner.keys(&there.get(&place::key(&self.directory))));
        keys.extend(self.cleaned(there)?.into_iter().map(|(key, _)| key));
        keys.extend(self.ownership(there)?.into_iter().map(|(key, _)| key));
        if let Some(top) = &self.owned {
            keys.push(place::key(top));
            keys.extend(place::walk(there, top, None)?.into_iter().map(|(path, _)| place::key(&path)));
        }
        Ok(keys)
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        if let Some(path) = self.if_missing.as_ref().filter(|path| place::kind(&there.get(&place::key(path))).is_some()) {
            return Ok(Want::Nothing(format!("Path {path} exists")));
        }
        self.owner.check(there)?;
        let top = self.top();
        if self.enforce_toplevel && (top.len() > 1 || top.iter().any(|(_, directory)| !directory)) {
            let summary = "Archive does not have a single top-level directory; `enforce_toplevel: False` allows it to be extracted";
            return Err(place::failed(summary).into());
        }
        let here = place::follow(there, &self.directory)?;
        match place::kind(&there.get(&place::key(&here))) {
            None | Some("directory") => {}
            Some(_) => return Err(place::failed(format!("{} exists and is not a directory", self.directory)).into()),
        }
        let (mut missing, mut wrong) = (false, Vec::new());
        for content in &self.contents {
            let path = self.path(content);
            match place::kind(&there.get(&place::key(&path))) {
                None => missing = true,
                Some(kind) if kind != kind_of(content) => wrong.push(path),
                Some(_) => {}
            }
        }
        if !wrong.is_empty() && !self.force && !self.clean && !self.clean_parent {
            let summary = format!("what the archive holds is there as something else, and `force` is not set: {}", wrong.join(", "));
            return Err(place::failed(summary).into());
        }
        let needed = missing || !wrong.is_empty() || self.overwrite || (self.update && self.content_differs(there));
        let mut wants = Vec::new();
        if needed {
            let made = self.owner.directory(place::NEW_DIRECTORY);
            if place::kind(&there.get(&place::key(&here))).is_none() {
                wants.extend(place::parents(there, &here, Some(&made))?);
                wants.push((place::key(&here), made.clone()));
            }
            wants.extend(self.cleaned(there)?);
            // Parents before what is in them.
            let is_there = |path: &str| place::kind(&there.get(&place::key(path))) == Some("directory");
            let mut all: Vec<(String, Attrs)> =
                self.implied().into_iter().filter(|path| !is_there(path)).map(|path| (path, made.clone())).collect();
            for content in &self.contents {
                let (path, kind) = (self.path(content), kind_of(content));
                let now = there.get(&place::key(&path));
                let mut wanted = place::attrs([("kind", kind)]);
                match (&content.link, kind) {
                    (Some(target), _) => drop(wanted.insert("target".into(), Value::str(target))),
                    (None, "file") => {
                        wanted.insert("content".into(), Value::str(&content.hash.0));
                        let mode = content.mode.map_or_else(|| place::NEW_FILE.to_owned(), |mode| format!("{mode:04o}"));
                        wanted.insert("mode".into(), Value::Str(mode));
                    }
                    _ if place::kind(&now) != Some("directory") => wanted = made.clone(),
                    _ => {}
                }
                self.owner.add(there, &now, &mut wanted);
                all.push((path, wanted));
            }
            all.retain(|(path, wanted)| !is_there(path) || wanted.len() > 1);
            all.sort_by(|a, b| a.0.cmp(&b.0));
            wants.extend(all.into_iter().map(|(path, wanted)| (place::key(&path), wanted)));
        } else {
            wants = self.ownership(there)?;
        }
        let done = || Want::Nothing(format!("all of the archive is in {}", self.directory));
        Ok(if wants.is_empty() { done() } else { Want::Is(wants) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Host, low};
    use super::*;
    use crate::plan::Hash;
    use serde_json::json;

    fn contents() -> Vec<Content> {
        let of = |name: &str, mode, link: Option<&str>| Content {
            name: name.into(),
            hash: Hash::of(name.as_bytes()),
            size: 1,
            mode,
            link: link.map(str::to_owned),
            secret: false,
        };
        vec![of("app/", None, None), of("app/bin/run", Some(0o755), None), of("app/text", None, None), of("app/link", None, Some("text"))]
    }

    fn wanted(host: &Host, args: serde_json::Value) -> serde_json::Value {
        let mut low = low("archive.extracted", args);
        assert_eq!(super::super::args::check(std::slice::from_ref(&low)), []);
        low.contents = contents();
        let function = match extracted(&low) {
            Ok(function) => function,
            Err(e) => return json!({ "fails": e.summary }),
        };
        let keys = function.objects(host).unwrap();
        match function.want(host) {
            Ok(Want::Is(wants)) => {
                wants.iter().for_each(|(key, _)| assert!(keys.contains(key), "{key}"));
                serde_json::to_value(wants).unwrap()
            }
            Ok(Want::Nothing(why)) => json!(why),
            Ok(other) => panic!("{other:?}"),
            Err(e) => json!({ "fails": e.summary }),
        }
    }

    fn host(there: &[(&str, &str)]) -> Host {
        let mut host = Host::default();
        for path in ["/", "/opt"] {
            host.has(&format!("file:{path}"), json!({"kind": "directory"}));
        }
        for (path, kind) in there {
            host.has(
                &format!("file:{path}"),
                json!({"kind": kind, "mode": "0644", "target": if *kind == "symlink" { json!("text") } else { json!(null) }}),
            );
        }
        host
    }

    const ALL: [(&str, &str); 5] = [
        ("/opt/app", "directory"),
        ("/opt/app/bin", "directory"),
        ("/opt/app/bin/run", "file"),
        ("/opt/app/text", "file"),
        ("/opt/app/link", "symlink"),
    ];

    #[test]
    fn what_is_missing_is_extracted_as_a_whole() {
        let hash = |name: &str| Hash::of(name.as_bytes()).0;
        let file = |name: &str, mode: &str| json!([format!("file:/opt/{name}"), {"kind": "file", "mode": mode, "content": hash(name)}]);
        let directory = |path: &str| json!([format!("file:{path}"), {"kind": "directory", "mode": "0755"}]);
        let all = json!([
            directory("/opt/app"),
            directory("/opt/app/bin"),
            file("app/bin/run", "0755"),
            ["file:/opt/app/link", {"kind": "symlink", "target": "text"}],
            file("app/text", "0644"),
        ]);
        assert_eq!(wanted(&host(&[]), json!({"name": "/opt/"})), all);
        assert_eq!(wanted(&host(&[]), json!({"name": "/opt/new"}))[0], directory("/opt/new"));
        assert_eq!(wanted(&host(&ALL[..4]), json!({"name": "/opt"})), json!([all[2], all[3], all[4]]));
        assert_eq!(wanted(&host(&ALL), json!({"name": "/opt"})), json!("all of the archive is in /opt"));
        assert_eq!(wanted(&host(&ALL), json!({"name": "/opt", "overwrite": true})).as_array().unwrap().len(), 3);
        assert_eq!(wanted(&host(&ALL), json!({"name": "/opt", "source_hash_update": true})).as_array().unwrap().len(), 3);
        assert_eq!(
            wanted(&host(&[("/opt/there", "file")]), json!({"name": "/opt", "if_missing": "/opt/there"})),
            json!("Path /opt/there exists")
        );
    }

    #[test]
    fn what_is_in_the_way_is_named_and_owners_are_set() {
        let mut other = ALL;
        other[3].1 = "directory";
        let said = wanted(&host(&other), json!({"name": "/opt"}));
        assert!(said["fails"].as_str().unwrap().ends_with("/opt/app/text"), "{said}");
        assert_eq!(wanted(&host(&other), json!({"name": "/opt", "force": true})).as_array().unwrap().len(), 3);
        let mut owned = host(&ALL);
        owned.has("user:www", json!({"name": "www"}));
        let wants = wanted(&owned, json!({"name": "/opt", "user": "www"}));
        assert_eq!((wants.as_array().unwrap().len(), &wants[0][1]["user"]), (5, &json!("www")));
        assert_eq!(wanted(&host(&ALL), json!({"name": "/opt", "user": "www"})), json!({"fails": "user www is not available"}));
    }
}
