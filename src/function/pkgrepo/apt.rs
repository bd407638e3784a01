//! pkgrepo.* with apt: the lines and paragraphs of its sources, edited one by one, and the files with the keys they are signed with.
//!
//! Salt writes all files of sources anew; here only the one that changes is touched, and in it only what is meant.

use super::key;
use super::source::{Paragraph, Source};
use super::{Keys, refresh};
use crate::diagnostic::Result;
use crate::function::edit::{self, TextFile};
use crate::function::file::place::{self, attrs, failed, kind, text};
use crate::function::{There, Want};
use crate::plan::{Hash, Key};
use crate::value::{Attrs, sort_few};

pub const LIST: &str = "/etc/apt/sources.list";
pub const PARTS: &str = "/etc/apt/sources.list.d";
const KEYRINGS: [&str; 2] = ["/etc/apt/keyrings", "/etc/apt/trusted.gpg.d"];

/// What `pkgrepo.managed` says of a line.
pub struct Managed {
    pub source: Source,
    /// Whether the comment of the line is this one; otherwise it stays whatever it is.
    pub comment: bool,
    pub file: Option<String>,
    pub clean: bool,
    pub keys: Keys,
    /// `aptkey: False`: a key needs a place of its own (`signed-by`).
    pub no_apt_key: bool,
    pub refresh: bool,
}

pub struct Absent {
    pub source: Source,
    pub key: Option<String>,
    pub refresh: bool,
}

/// A file of sources.
struct File {
    path: String,
    text: String,
    parts: Parts,
}

enum Parts {
    /// Each line as it stands.
    Lines(Vec<String>),
    Paragraphs(Vec<Paragraph>),
}

impl File {
    fn new(path: &str, text: String) -> File {
        let parts = match path.ends_with(".sources") {
            true => Parts::Paragraphs(Paragraph::parse_all(&text)),
            false => Parts::Lines(edit::ended(&text).split_inclusive('\n').map(str::to_owned).collect()),
        };
        File { path: path.to_owned(), text, parts }
    }

    /// Every source in it, and at which line or paragraph it stands.
    fn sources(&self) -> Vec<(usize, Source)> {
        match &self.parts {
            Parts::Lines(lines) => lines.iter().enumerate().filter_map(|(at, line)| Some((at, Source::parse(line)?))).collect(),
            Parts::Paragraphs(all) => all.iter().enumerate().flat_map(|(at, p)| p.sources().into_iter().map(move |s| (at, s))).collect(),
        }
    }

    fn rendered(&self) -> String {
        match &self.parts {
            Parts::Lines(lines) => lines.concat(),
            Parts::Paragraphs(all) => all.iter().map(Paragraph::text).collect::<Vec<_>>().join("\n"),
        }
    }

    /// Puts a source in the place of another.
    fn change(&mut self, at: usize, to: &Source) {
        match &mut self.parts {
            Parts::Lines(lines) => {
                if let Some(line) = lines.get_mut(at) {
                    *line = to.line();
                }
            }
            Parts::Paragraphs(all) => {
                if let Some(paragraph) = all.get_mut(at) {
                    fill(paragraph, to);
                }
            }
        }
    }

    fn add(&mut self, source: &Source) {
        match &mut self.parts {
            Parts::Lines(lines) => lines.push(source.line()),
            Parts::Paragraphs(all) => {
                let mut paragraph = Paragraph::default();
                for (name, value) in [("Types", &source.kind), ("URIs", &source.uri), ("Suites", &source.suite)] {
                    paragraph.set(name, Some(value.clone()));
                }
                fill(&mut paragraph, source);
                all.push(paragraph);
            }
        }
    }
}

/// Everything of a source but where it is.
fn fill(paragraph: &mut Paragraph, source: &Source) {
    paragraph.set("Components", Some(source.components.join(" ")));
    for (field, option) in [("Trusted", "trusted"), ("Signed-By", "signed-by"), ("Architectures", "arch")] {
        if let Some(value) = source.option(option) {
            paragraph.set(field, Some(value.replace(',', " ")));
        }
    }
    paragraph.set("Enabled", source.disabled.then(|| "no".to_owned()));
    if !source.comment.is_empty() {
        paragraph.comments = vec![format!("#{}", source.comment)];
    }
}

/// The paths of all files that apt reads sources from.
fn paths(there: &dyn There) -> Result<Vec<String>> {
    let names = there.list(PARTS)?.into_keys().filter(|name| name.ends_with(".list") || name.ends_with(".sources"));
    Ok(std::iter::once(LIST.to_owned()).chain(names.map(|name| format!("{PARTS}/{name}"))).collect())
}

fn files(there: &dyn There) -> Result<Vec<File>> {
    let mut all = Vec::new();
    for path in paths(there)? {
        if let Some(text) = TextFile::new(&path).text(there)? {
            all.push(File::new(&path, text));
        }
    }
    Ok(all)
}

/// The keys that every look at the sources needs.
fn source_keys(there: &dyn There) -> Result<Vec<Key>> {
    Ok(paths(there)?.iter().flat_map(|path| place::follow_keys(there, path)).collect())
}

impl Managed {
    pub fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        let mut keys = source_keys(there)?;
        keys.extend(self.target().keys(there)?);
        if let Some(path) = self.key_path() {
            keys.extend(place::follow_keys(there, &path));
            keys.extend(place::parent_keys(there, &path, true));
        }
        keys.extend(self.keys.local.iter().flat_map(|path| place::follow_keys(there, path)));
        Ok(keys)
    }

    /// Where a new source goes.
    fn target(&self) -> TextFile {
        TextFile::new(self.file.as_deref().unwrap_or(LIST)).with_directories()
    }

    /// Where its keys go: where the source says, or among those that are good for all sources, as apt-key had it.
    fn key_path(&self) -> Option<String> {
        if self.keys.is_empty() {
            return None;
        }
        match self.source.option("signed-by").filter(|path| path.starts_with('/')) {
            Some(path) => Some(place::normal(path)),
            None => {
                let stem = self.file.as_deref().map(|file| place::base(file).rsplit_once('.').map_or(file, |(stem, _)| stem));
                let host = self.source.uri.split("//").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or("source");
                let name: String =
                    stem.unwrap_or(host).chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect();
                Some(format!("{}/{name}.gpg", KEYRINGS[1]))
            }
        }
    }

    /// Whether a source in a file is the wanted one already.
    fn fulfilled(&self, there: &Source, in_paragraph: bool) -> bool {
        let mut wanted = self.source.clone();
        if !self.comment || in_paragraph {
            wanted.comment.clone_from(&there.comment);
        }
        if in_paragraph {
            // What a paragraph says besides is fine.
            let more = there.options.iter().filter(|(name, _)| wanted.option(name).is_none());
            let more: Vec<(String, String)> = more.cloned().collect();
            wanted.options.extend(more);
        }
        wanted.same(there)
    }

    /// The file to change and its new text; nothing where the source is there as wanted.
    fn edited(&self, mut files: Vec<File>) -> Option<(String, String)> {
        let target = self.target().path;
        let wanted = &self.source;
        // What the state's own file has comes first.
        let own = |file: &File| Some(&file.path) == self.file.as_ref();
        sort_few(&mut files, |one, other| own(one) && !own(other));
        let meant = |there: &Source| {
            there.same_place(wanted) && (wanted.components.is_empty() || there.components.iter().any(|c| wanted.components.contains(c)))
        };
        let is_paragraph = |file: &File| matches!(file.parts, Parts::Paragraphs(_));
        let found: Vec<(usize, usize, Source)> = files
            .iter()
            .enumerate()
            .flat_map(|(number, file)| file.sources().into_iter().map(move |(at, source)| (number, at, source)))
            .filter(|(_, _, source)| meant(source))
            .collect();
        let right = found.iter().any(|(number, _, source)| files.get(*number).is_some_and(|f| self.fulfilled(source, is_paragraph(f))));
        if self.clean {
            let own = files.iter().find(|file| file.path == target);
            let alone = own.is_none_or(|file| file.sources().iter().all(|(_, s)| s.disabled || self.fulfilled(s, is_paragraph(file))));
            if right && alone {
                return None;
            }
            let mut file = File::new(&target, String::new());
            file.add(wanted);
            return Some((target, file.rendered()));
        }
        if right {
            return None;
        }
        if let Some((number, at, there)) = found.into_iter().next() {
            let file = files.get_mut(number)?;
            let mut to = wanted.clone();
            if !self.comment {
                to.comment = there.comment;
            }
            file.change(at, &to);
            return Some((file.path.clone(), file.rendered()));
        }
        let there = files.into_iter().find(|file| file.path == target);
        let mut file = there.unwrap_or_else(|| File::new(&target, String::new()));
        file.add(wanted);
        Some((target, file.rendered()))
    }

    pub fn want(&self, there: &dyn There, name: &str) -> Result<Want> {
        let edited = self.edited(files(there)?);
        let mut wants = Vec::new();
        if let Some(path) = self.key_path() {
            let real = place::follow(there, &path)?;
            if edited.is_some() || kind(&there.get(&place::key(&real))).is_none() {
                if self.no_apt_key && self.source.option("signed-by").is_none() {
                    return Err(failed("missing 'signedby' or 'trusted' option when apt-key is missing")
                        .hint("name the file of the key: deb [signed-by=/etc/apt/keyrings/NAME.gpg] …")
                        .into());
                }
                let bytes = self.keys.bytes(there, &path)?;
                let hash = there.put(bytes);
                wants.extend(place::parents(there, &real, Some(&attrs([("kind", "directory"), ("mode", place::NEW_DIRECTORY)])))?);
                wants.push((place::key(&real), attrs([("kind", "file"), ("mode", place::NEW_FILE), ("content", &hash.0)])));
            }
        }
        if let Some((path, text)) = edited {
            match TextFile::new(path).with_directories().want(there, |_| Ok(text))? {
                Want::Is(more) => wants.extend(more),
                Want::Nothing(_) => {}
                other => return Ok(other),
            }
        }
        Ok(refresh(there, wants, self.refresh, format!("Package repo '{name}' already configured")))
    }
}

impl Absent {
    pub fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        let mut keys = source_keys(there)?;
        if self.key.is_some() {
            for directory in KEYRINGS {
                keys.extend(there.list(directory)?.into_keys().map(|name| place::key(&format!("{directory}/{name}"))));
            }
        }
        Ok(keys)
    }

    pub fn want(&self, there: &dyn There, name: &str) -> Result<Want> {
        let mut wants = Vec::new();
        for mut file in files(there)? {
            self.strip(&mut file);
            let new = file.rendered();
            if new == edit::ended(&file.text) || new == file.text {
                continue;
            }
            let real = place::follow(there, &file.path)?;
            // A file of its own that has no source any more goes.
            if file.path != LIST && file.sources().is_empty() {
                wants.push((place::key(&real), Attrs::new()));
            } else {
                let hash = there.put(new.into_bytes());
                wants.push((place::key(&real), attrs([("kind", "file"), ("content", &hash.0)])));
            }
        }
        if let Some(id) = self.key.as_ref().filter(|_| !wants.is_empty()) {
            for directory in KEYRINGS {
                for name in there.list(directory)?.into_keys() {
                    let path = place::key(&format!("{directory}/{name}"));
                    let Some(hash) = text(&there.get(&path), "content").map(|h| Hash(h.to_owned())) else { continue };
                    let Some(keys) = key::binary(&there.bytes(&hash)?) else { continue };
                    if super::has(&keys, id) {
                        wants.push((path, Attrs::new()));
                    }
                }
            }
        }
        Ok(refresh(there, wants, self.refresh, format!("Package repo {name} is absent")))
    }

    /// Takes the source out of a file: all of its components, or those that are named.
    fn strip(&self, file: &mut File) {
        let gone = &self.source;
        let meant = |there: &Source| there.same_place(gone) && there.architectures() == gone.architectures();
        let rest = |there: &[String]| -> Vec<String> {
            let all = gone.components.is_empty() && there.is_empty();
            there.iter().filter(|c| !all && !gone.components.contains(c)).cloned().collect()
        };
        match &mut file.parts {
            Parts::Lines(lines) => lines.retain_mut(|line| {
                let Some(mut source) = Source::parse(line).filter(meant) else { return true };
                let left = rest(&source.components);
                if left.len() == source.components.len() && !source.components.is_empty() {
                    return true;
                }
                source.components = left;
                *line = source.line();
                !source.components.is_empty()
            }),
            Parts::Paragraphs(all) => all.retain_mut(|paragraph| {
                if !paragraph.sources().iter().any(meant) {
                    return true;
                }
                let components = paragraph.words("Components");
                let left = rest(&components);
                if left.len() == components.len() && !components.is_empty() {
                    return true;
                }
                if !left.is_empty() {
                    paragraph.set("Components", Some(left.join(" ")));
                    return true;
                }
                let suites: Vec<String> = paragraph.words("Suites").into_iter().filter(|suite| *suite != gone.suite).collect();
                paragraph.set("Suites", Some(suites.join(" ")));
                !suites.is_empty()
            }),
        }
    }
}
