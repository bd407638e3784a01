//! The contents that lows name: `salt://` sources, rendered where they are templates, `contents_pillar` and its kin, directories of `file.recurse`.
//!
//! They become `plan::Content`s, and their bytes go to the blobs, by hash. What lies on the web is only named (`Remote`): the caller fetches it. What
//! lies on the host (`/path`, `file://`) is left to the agent.

use std::collections::HashMap;
use std::sync::Arc;

use super::grains::{Change, Grains};
use super::root::{File, clean};
use super::secret::Secrets;
use super::{Compiler, Results, Session, glob};
use crate::diagnostic::{Code, Diagnostic, Result, nearest};
use crate::plan::{Content, Hash, Low};
use crate::value::{Map, Value};

/// A source on the web. Where the low has a `template`, what was fetched goes through `Compiler::render_fetched`.
#[derive(Clone, Debug, PartialEq)]
pub struct Remote {
    /// Index of the low, and the name its content is to have.
    pub low: usize,
    pub name: String,
    pub url: String,
    /// `source_hash` as it was written: a digest, or where a file with digests is.
    pub source_hash: Option<String>,
    pub source_hash_name: Option<String>,
    /// The text of `source_hash`, where that is a file of the tree.
    pub hashes: Option<String>,
    pub skip_verify: bool,
    pub template: bool,
}

/// Bytes by hash.
pub type Blobs = HashMap<Hash, Arc<[u8]>>;

/// Where `salt://path?saltenv=env` points.
pub(super) struct Place {
    pub env: String,
    pub path: String,
}

pub(super) struct Sources<'a> {
    pub compiler: &'a Compiler,
    pub session: &'a Session<'a>,
    pub blobs: Blobs,
    pub remote: Vec<Remote>,
    pub errors: Vec<Diagnostic>,
    /// What `file.accumulated` has gathered so far: by file, by name.
    pub accumulated: HashMap<String, Map>,
    /// The host's grains as the states so far have made them, once one asks.
    pub grains: Option<Grains>,
}

impl Sources<'_> {
    /// Finds all contents of a low. `env` is its own, or that of its SLS.
    pub fn fill(&mut self, index: usize, low: &mut Low, env: &str) {
        if let Err(error) = self.find(index, low, env) {
            self.errors.push(match (low.span.clone(), &error.span) {
                (Some(span), Some(_)) => error.related(span, format!("for {} {}", low.function(), low.id)),
                (Some(span), None) => error.at(span),
                (None, _) => *error,
            });
        }
    }

    fn find(&mut self, index: usize, low: &mut Low, env: &str) -> Result<()> {
        match (low.state.as_str(), low.fun.as_str()) {
            ("file", "managed") => {
                if !self.contents(low, env)? {
                    self.one(index, low, env, "source", false)?;
                }
            }
            ("file", "recurse") => self.directory(low, env)?,
            ("file", "accumulated") => self.accumulate(low),
            ("file", "append" | "prepend" | "blockreplace") => {
                if low.fun == "blockreplace" {
                    self.add_accumulated(low);
                }
                self.one(index, low, env, "source", true)?;
                let sources = low.args.get("sources").map(texts).unwrap_or_default();
                for (number, source) in sources.iter().enumerate() {
                    self.source(index, low, env, std::slice::from_ref(source), &format!("sources:{number}"), true)?;
                }
            }
            ("file", "serialize") => {
                let pillar = self.dataset(low)?;
                // However it is written in the file.
                let secret = pillar || low.args.get("dataset").is_some_and(|data| self.session.secrets.holds_in(data));
                let text = super::serialize::text(low, &*self.session.context.host)?;
                let content = self.content("contents".into(), text.into_bytes().into(), None);
                low.contents.push(Content { secret, ..content });
            }
            ("test", "check_pillar") => {
                let said = super::serialize::check_pillar(low, |key| look_up(&self.session.pillar, key, ":"));
                if !said.is_empty() {
                    low.failed = Some(said);
                }
            }
            ("grains", _) => self.grain(low)?,
            ("pkgrepo", _) => self.repository_keys(index, low, env)?,
            ("cmd", "script") => {
                if !low.args.get("source").is_some_and(Value::truthy) {
                    low.args.insert("source", low.name.clone());
                }
                self.one(index, low, env, "source", false)?;
            }
            ("pip" | "virtualenv", _) => self.one(index, low, env, "requirements", false)?,
            ("archive", "extracted") => {
                self.one(index, low, env, "source", false)?;
                self.unpack(low)?;
            }
            ("pkg", _) => {
                for entry in low.args.get("sources").and_then(Value::as_list).unwrap_or_default().to_vec() {
                    if let Some((name, Value::Str(source))) = entry.as_map().and_then(|map| map.0.first()) {
                        self.source(index, low, env, std::slice::from_ref(source), &format!("sources:{}", name.to_text()), false)?;
                    }
                }
            }
            _ => self.one(index, low, env, "source", false)?,
        }
        Ok(())
    }

    /// The argument `source`: one, or a list of which the first that is there counts.
    fn one(&mut self, index: usize, low: &mut Low, env: &str, argument: &str, always_template: bool) -> Result<()> {
        let sources = low.args.get(argument).map(texts).unwrap_or_default();
        if sources.is_empty() { Ok(()) } else { self.source(index, low, env, &sources, argument, always_template) }
    }

    fn source(&mut self, index: usize, low: &mut Low, env: &str, sources: &[String], name: &str, always_template: bool) -> Result<()> {
        let mut missing = Vec::new();
        for source in sources {
            if let Some(place) = salt_url(source, env) {
                match self.compiler.roots.read(&place.env, &place.path)? {
                    Some(file) => {
                        let content = self.file(low, &place, &file, source, name, always_template)?;
                        low.contents.push(content);
                        let used = if low.fun == "managed" && template_of(low)? { variables(low, file.text()?) } else { Vec::new() };
                        used.iter().for_each(|variable| drop(low.args.remove(variable)));
                        return Ok(());
                    }
                    None => missing.push(place),
                }
            } else if source.starts_with("http://") || source.starts_with("https://") || source.starts_with("ftp://") {
                let text = |key: &str| low.args.get(key).map(Value::to_text).filter(|text| !text.is_empty());
                let source_hash = text("source_hash");
                let hashes = match source_hash.as_deref().and_then(|hash| salt_url(hash, env)) {
                    Some(place) => match self.compiler.roots.read(&place.env, &place.path)? {
                        Some(file) => Some(file.text()?.to_owned()),
                        None => return Err(Box::new(self.not_there(low, &place))),
                    },
                    None => None,
                };
                self.remote.push(Remote {
                    low: index,
                    name: name.to_owned(),
                    url: source.clone(),
                    source_hash,
                    source_hash_name: text("source_hash_name"),
                    hashes,
                    skip_verify: low.args.get("skip_verify").is_some_and(Value::truthy) || name == "key_url",
                    template: always_template || template_of(low)?,
                });
                return Ok(());
            } else {
                // A path on the host: the agent looks whether it is there.
                return Ok(());
            }
        }
        match missing.first() {
            Some(place) => Err(Box::new(self.not_there(low, place))),
            None => Ok(()),
        }
    }

    /// An archive becomes what it holds. One on the web is unpacked when it has been fetched.
    fn unpack(&mut self, low: &mut Low) -> Result<()> {
        let Some(content) = low.contents.pop() else { return Ok(()) };
        let source = low.args.get("source").map(texts).and_then(|all| all.into_iter().next()).unwrap_or_default();
        let bytes = self.blobs.remove(&content.hash).unwrap_or_default();
        for (content, bytes) in self.compiler.archives.contents(low, &source, &bytes)? {
            self.blobs.insert(content.hash.clone(), bytes);
            low.contents.push(content);
        }
        Ok(())
    }

    fn file(&mut self, low: &Low, place: &Place, file: &Arc<File>, source: &str, name: &str, always_template: bool) -> Result<Content> {
        let bytes: Arc<[u8]> = if always_template || template_of(low)? {
            self.render(low, &place.env, &place.path, file, source)?.into_bytes().into()
        } else {
            file.bytes.clone()
        };
        Ok(self.content(name.to_owned(), bytes, Some(file.mode)))
    }

    /// The keys of a source of packages: at an address, or with a key server, which is asked as the web server that it is.
    fn repository_keys(&mut self, index: usize, low: &mut Low, env: &str) -> Result<()> {
        let ids: Vec<String> = match low.args.get("keyid") {
            Some(Value::List(ids)) => ids.iter().map(key_id).collect(),
            Some(one) if one.truthy() => vec![key_id(one)],
            _ => Vec::new(),
        };
        if !ids.is_empty() {
            low.args.insert("keyid", Value::List(ids.iter().map(Value::str).collect()));
        }
        if low.fun != "managed" {
            return Ok(());
        }
        self.one(index, low, env, "key_url", false)?;
        let server = low.args.get("keyserver").map(Value::to_text).unwrap_or_default();
        for (number, id) in ids.iter().enumerate().filter(|_| !server.is_empty()) {
            self.remote.push(Remote {
                low: index,
                name: format!("keyid:{number}"),
                url: format!("{}/pks/lookup?op=get&options=mr&search=0x{id}", key_server(&server)),
                source_hash: None,
                source_hash_name: None,
                hashes: None,
                skip_verify: true,
                template: false,
            });
        }
        Ok(())
    }

    fn content(&mut self, name: String, bytes: Arc<[u8]>, mode: Option<u32>) -> Content {
        let hash = Hash::of(&bytes);
        let size = bytes.len() as u64;
        self.blobs.insert(hash.clone(), bytes);
        Content { name, hash, size, mode, link: None, secret: false }
    }

    fn render(&self, low: &Low, env: &str, path: &str, file: &Arc<File>, source: &str) -> Result<String> {
        let mut names = names(low, source)?;
        if low.fun == "managed" {
            let own = variables(low, file.text()?).into_iter().filter(|name| !names.contains_key(name)).collect::<Vec<_>>();
            names.0.extend(own.into_iter().filter_map(|name| low.args.get(&name).map(|value| (Value::Str(name.clone()), value.clone()))));
        }
        if let Some(accumulated) = self.accumulated.get(&low.name) {
            names.insert("accumulator", Value::Map(accumulated.clone()));
        }
        self.compiler.template(self.session, file, env, path, &names)
    }

    /// A grain of the host's own file.
    fn grain(&mut self, low: &mut Low) -> Result<()> {
        let mut grains = match self.grains.take() {
            Some(grains) => grains,
            None => Grains::new(self.session.host.grains, &*self.session.context.host)?,
        };
        let change = grains.apply(low)?;
        self.grains = Some(grains);
        match change {
            Change::None => {}
            Change::Failed(why) => low.failed = Some(why),
            Change::Text(text) => {
                let content = self.content("contents".into(), text.into_bytes().into(), None);
                low.contents.push(content);
            }
        }
        Ok(())
    }

    /// Texts for a file that a later state makes, each once.
    fn accumulate(&mut self, low: &Low) {
        let file = low.args.get("filename").map(Value::to_text).unwrap_or_default();
        let texts = match low.args.get("text") {
            Some(Value::List(texts)) => texts.clone(),
            Some(text) if !text.is_null() => vec![text.clone()],
            _ => Vec::new(),
        };
        let of_file = self.accumulated.entry(file).or_default();
        let mut all = of_file.get(&low.name).and_then(Value::as_list).map(<[Value]>::to_vec).unwrap_or_default();
        for text in texts {
            if !all.contains(&text) {
                all.push(text);
            }
        }
        of_file.insert(low.name.as_str(), Value::List(all));
    }

    /// file.blockreplace takes what was gathered for its file behind its own content.
    fn add_accumulated(&self, low: &mut Low) {
        let Some(accumulated) = self.accumulated.get(&low.name) else { return };
        let own = low.args.get("content").filter(|c| !c.is_null()).map(Value::to_text).filter(|c| !c.is_empty());
        let gathered = accumulated.iter().filter_map(|(_, texts)| texts.as_list()).flatten().map(Value::to_text);
        let lines: Vec<String> = own.into_iter().chain(gathered).collect();
        low.args.insert("content", lines.join("\n"));
    }

    /// `contents`, `contents_pillar` and `contents_grains` of file.managed. The argument itself shrinks to nothing: what it said is a blob.
    fn contents(&mut self, low: &mut Low, env: &str) -> Result<bool> {
        let Some(argument) =
            ["contents", "contents_pillar", "contents_grains"].into_iter().find(|name| low.args.get(name).is_some_and(|v| !v.is_null()))
        else {
            return Ok(false);
        };
        let given = low.args.get(argument).cloned().unwrap_or_default();
        let delimiter = low.args.get("contents_delimiter").and_then(Value::as_str).unwrap_or(":");
        let value = match argument {
            "contents" => given,
            _ => {
                let data = if argument == "contents_pillar" { &*self.session.pillar } else { self.session.host.grains };
                let what = if argument == "contents_pillar" { "pillar" } else { "grains" };
                let look = |key: &Value| look_up(data, &key.to_text(), delimiter).ok_or_else(|| not_known(low, argument, what, key, data));
                match &given {
                    Value::List(keys) => {
                        let parts = keys.iter().map(|key| look(key).map(|value| value.to_text())).collect::<Result<Vec<_>>>()?;
                        Value::Str(parts.join("\n"))
                    }
                    key => look(key)?,
                }
            }
        };
        let newline = low.args.get("contents_newline").is_none_or(Value::truthy);
        let mut text = written(low, argument, &value, newline)?;
        if template_of(low)? {
            let file = Arc::new(File {
                bytes: text.into_bytes().into(),
                mode: 0o644,
                link: None,
                shown: format!("{} of {}", argument, low.id).into(),
            });
            text = self.render(low, env, "", &file, "")?;
        }
        let mut content = self.content("contents".into(), text.into_bytes().into(), None);
        content.secret = argument == "contents_pillar";
        low.contents.push(content);
        if argument == "contents" {
            low.args.insert(argument, "");
        }
        Ok(true)
    }

    /// `dataset_pillar` becomes the `dataset` it names. Whether it did.
    fn dataset(&mut self, low: &mut Low) -> Result<bool> {
        let Some(key) = low.args.remove("dataset_pillar").filter(Value::truthy) else { return Ok(false) };
        if low.args.get("dataset").is_some_and(Value::truthy) {
            let summary = format!("file.serialize {} has both dataset and dataset_pillar", low.id);
            return Err(Box::new(Diagnostic::new(Code::Compile, summary)));
        }
        let found = look_up(&self.session.pillar, &key.to_text(), ":");
        let dataset = found.ok_or_else(|| not_known(low, "dataset_pillar", "pillar", &key, &self.session.pillar))?;
        low.args.insert("dataset", dataset);
        Ok(true)
    }

    /// Every file below the source of file.recurse. With `include_empty` an empty directory is a name that ends in a slash.
    fn directory(&mut self, low: &mut Low, env: &str) -> Result<()> {
        let sources = low.args.get("source").map(texts).unwrap_or_default();
        let places: Vec<Place> = sources.iter().filter_map(|source| salt_url(source, env)).collect();
        let mut found = None;
        for place in &places {
            let prefix = if place.path.is_empty() { String::new() } else { format!("{}/", place.path) };
            let paths = self.compiler.roots.paths(&place.env)?;
            let below: Vec<String> = range(&paths, &prefix).to_vec();
            let empty = if low.args.get("include_empty").is_some_and(Value::truthy) {
                self.compiler.roots.empty_directories(&place.env, &prefix)?
            } else {
                Vec::new()
            };
            if !below.is_empty() || !empty.is_empty() {
                found = Some((place, prefix, below, empty));
                break;
            }
        }
        let Some((place, prefix, below, empty)) = found else {
            return match places.first() {
                Some(place) => Err(Box::new(self.not_there(low, place))),
                None => Err(Box::new(
                    Diagnostic::new(Code::Compile, format!("file.recurse {} has no source in the state repository", low.id))
                        .hint("source: salt://DIRECTORY"),
                )),
            };
        };
        let wanted = Patterns::of(low)?;
        let depth = low.args.get("maxdepth").and_then(Value::as_int).and_then(|n| usize::try_from(n).ok());
        let keep_links =
            low.args.get("keep_symlinks").is_some_and(Value::truthy) || low.args.get("force_symlinks").is_some_and(Value::truthy);
        for path in below {
            let name = path.strip_prefix(&prefix).unwrap_or(&path).to_owned();
            if depth.is_some_and(|depth| name.matches('/').count() > depth) || !wanted.take(&name)? {
                continue;
            }
            let Some(file) = self.compiler.roots.read(&place.env, &path)? else { continue };
            let content = match &file.link {
                Some(target) if keep_links => {
                    Content { name, hash: Hash::of(b""), size: 0, mode: None, link: Some(target.clone()), secret: false }
                }
                _ => {
                    let at = Place { env: place.env.clone(), path: path.clone() };
                    self.file(low, &at, &file, &format!("salt://{path}"), &name, false)?
                }
            };
            low.contents.push(content);
        }
        for path in empty {
            let name = path.strip_prefix(&prefix).unwrap_or(&path).to_owned() + "/";
            if depth.is_none_or(|depth| name.matches('/').count() <= depth + 1) && wanted.take(name.trim_end_matches('/'))? {
                low.contents.push(Content { name, hash: Hash::of(b""), size: 0, mode: None, link: None, secret: false });
            }
        }
        Ok(())
    }

    fn not_there(&self, low: &Low, place: &Place) -> Diagnostic {
        let error =
            Diagnostic::new(Code::Compile, format!("{} {} names salt://{}, and there is no such file", low.function(), low.id, place.path));
        let error = error.rule("missing-source").word(format!("salt://{}", place.path));
        let paths = self.compiler.roots.paths(&place.env).unwrap_or_default();
        match nearest(&place.path, paths.iter().map(String::as_str)) {
            Some(near) => error.hint(format!("did you mean salt://{near}?")),
            None if !self.compiler.roots.has(&place.env) => error.hint(format!("there is no environment {}", place.env)),
            None => error.hint("paths of sources start at the file roots"),
        }
    }
}

impl Compiler {
    /// The contents of an archive that was fetched for a `Remote`.
    pub fn unpack_fetched(&self, low: &Low, remote: &Remote, bytes: &[u8]) -> Result<Vec<(Content, Arc<[u8]>)>> {
        self.archives.contents(low, &remote.url, bytes)
    }

    /// Renders what was fetched for a `Remote` with a template. Gives the secrets of the host too, which the template may have added to.
    pub fn render_fetched(&self, host: &super::HostInput, low: &Low, remote: &Remote, bytes: Vec<u8>) -> Results<(Vec<u8>, Vec<String>)> {
        let secrets = Arc::new(Secrets::default());
        let rendered = self.start(host, &self.ask(host, false), &secrets);
        let rendered = rendered.and_then(|session| self.fetched(&session, low, remote, bytes));
        self.placed(rendered, &secrets).map(|bytes| (bytes, secrets.list()))
    }

    fn fetched(&self, session: &Session, low: &Low, remote: &Remote, bytes: Vec<u8>) -> Results<Vec<u8>> {
        let file = Arc::new(File { bytes: bytes.into(), mode: 0o644, link: None, shown: remote.url.as_str().into() });
        let names = names(low, &remote.url).map_err(|error| vec![*error])?;
        let text = self.template(session, &file, &self.options.saltenv, "", &names);
        text.map(String::into_bytes).map_err(|error| vec![*error])
    }
}

/// From this size on the host compares no texts, so that it does not matter whether a file of the tree holds a secret by chance.
const LARGE: u64 = 1 << 20;

/// Marks contents in which there is a secret. What was rendered is always looked into, files of the tree where they are small.
pub(super) fn mark_secret(lows: &mut [Low], blobs: &Blobs, secrets: &Secrets) {
    for low in lows {
        let rendered = low.args.contains_key("template");
        for content in &mut low.contents {
            let look = !content.secret && (rendered || content.name == "contents" || content.size < LARGE);
            let bytes = blobs.get(&content.hash).filter(|_| look);
            content.secret |= bytes.is_some_and(|bytes| secrets.holds(&String::from_utf8_lossy(bytes)));
        }
    }
}

/// The paths that start with a prefix; the list is sorted.
fn range<'a>(paths: &'a [String], prefix: &str) -> &'a [String] {
    let start = paths.partition_point(|path| path.as_str() < prefix);
    let rest = paths.get(start..).unwrap_or_default();
    rest.get(..rest.partition_point(|path| path.starts_with(prefix))).unwrap_or_default()
}

/// The id of a key in hexadecimal. YAML makes numbers of some: of those that are all digits, and of those with `0x`.
fn key_id(value: &Value) -> String {
    match value {
        Value::Int(number) if [8, 16].contains(&number.to_string().len()) => number.to_string(),
        Value::Int(number) => format!("{number:X}"),
        other => other.to_text().trim_start_matches("0x").replace(' ', "").to_uppercase(),
    }
}

/// A key server as the address of a web server.
fn key_server(server: &str) -> String {
    let server = server.trim_end_matches('/');
    let (scheme, host) = server.split_once("://").unwrap_or(("", server));
    let port = host.rsplit_once(':').map(|(_, port)| port);
    match (scheme, port) {
        ("http" | "https", _) => server.to_owned(),
        ("hkp", None) => format!("http://{host}:11371"),
        ("hkp", Some("443")) | ("hkps", _) | ("", None | Some("443")) => format!("https://{host}"),
        _ => format!("http://{host}"),
    }
}

/// A path below the roots. One that would leave them stays as it was written: there is no such file, and the error names it.
fn inside(path: &str) -> String {
    clean(path).unwrap_or_else(|| if path.contains("..") { path.to_owned() } else { String::new() })
}

/// `salt://path?saltenv=env`; nothing for any other place.
pub(super) fn salt_url(source: &str, env: &str) -> Option<Place> {
    let rest = source.strip_prefix("salt://")?;
    let (path, query) = rest.split_once("?saltenv=").unwrap_or((rest, env));
    // The root itself is a directory one can recurse into.
    Some(Place { env: query.to_owned(), path: inside(path.strip_prefix('|').unwrap_or(path)) })
}

/// A string, or the strings of a list (of a mapping its first key: `- salt://a: HASH`).
pub(super) fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Str(text) if !text.is_empty() => vec![text.clone()],
        Value::List(items) => items.iter().flat_map(texts).collect(),
        Value::Map(map) => map.0.first().and_then(|(key, _)| key.as_str()).map(str::to_owned).into_iter().collect(),
        _ => Vec::new(),
    }
}

/// Whether a low's source is a template; other languages than Jinja are refused.
fn template_of(low: &Low) -> Result<bool> {
    match low.args.get("template") {
        Some(Value::Str(name)) if name == "jinja" => Ok(true),
        Some(value) if value.truthy() => Err(Box::new(
            Diagnostic::new(Code::Compile, format!("{} {} has template: {value}", low.function(), low.id)).hint("basalt renders jinja"),
        )),
        _ => Ok(false),
    }
}

/// The names a file's template sees besides those of every template: `defaults`, over them `context`, and the state's own.
fn names(low: &Low, source: &str) -> Result<Map> {
    let mut out = Map::new();
    for key in ["user", "group", "mode", "attrs"] {
        out.insert(key, low.args.get(key).cloned().unwrap_or_default());
    }
    out.insert("name", low.name.clone());
    out.insert("source", source);
    for argument in ["defaults", "context"] {
        match low.args.get(argument) {
            None | Some(Value::Null) => {}
            Some(Value::Map(map)) => out.0.extend(map.iter().map(|(key, value)| (key.clone(), value.clone()))),
            Some(other) => {
                let summary = format!("{argument} of {} {} is {}, not a mapping", low.function(), low.id, other.kind());
                return Err(Box::new(
                    Diagnostic::new(Code::Compile, summary).hint(format!("indent what belongs to {argument} deeper, without `- `")),
                ));
            }
        }
    }
    Ok(out)
}

/// Arguments that `file.managed` does not have and its template speaks of: they are variables of the template. (`context:` whose mapping is
/// not indented makes them.)
fn variables(low: &Low, template: &str) -> Vec<String> {
    let words = |name: &str| template.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| word == name);
    let entry = crate::function::find(&low.function());
    let known = |name: &str| {
        entry.is_none_or(|entry| entry.args.iter().any(|arg| arg.name == name)) || crate::function::args::OF_CONDITIONS.contains(&name)
    };
    low.args.iter().map(|(name, _)| name.to_text()).filter(|name| !known(name) && words(name)).collect()
}

fn look_up(data: &Map, key: &str, delimiter: &str) -> Option<Value> {
    if let Some(value) = data.get(key) {
        return Some(value.clone());
    }
    let (first, rest) = key.split_once(delimiter)?;
    data.get(first)?.traverse(rest, delimiter).cloned()
}

fn not_known(low: &Low, argument: &str, what: &str, key: &Value, data: &Map) -> Box<Diagnostic> {
    let key = key.to_text();
    let error =
        Diagnostic::new(Code::Compile, format!("{argument} of {} {} names {key}, and the {what} has no such key", low.function(), low.id));
    let error = error.word(&key);
    // The part of the path that is not there, among its neighbours.
    let (mut there, mut rest) = (data, key.as_str());
    while let Some((first, more)) = rest.split_once(':')
        && let Some(next) = there.get(first).and_then(Value::as_map)
    {
        (there, rest) = (next, more);
    }
    let part = rest.split(':').next().unwrap_or(rest);
    Box::new(match nearest(part, there.0.keys().filter_map(Value::as_str)) {
        Some(near) => error.hint(format!("did you mean {near}?")),
        None => error,
    })
}

/// Salt's rule: every line of every part, each with a line break.
fn written(low: &Low, argument: &str, value: &Value, newline: bool) -> Result<String> {
    let parts = match value {
        Value::List(parts) => parts.as_slice(),
        one => std::slice::from_ref(one),
    };
    let mut out = String::new();
    for part in parts {
        if matches!(part, Value::List(_) | Value::Map(_)) {
            let summary = format!("{argument} of {} {} is {}, not a string or a list of strings", low.function(), low.id, value.kind());
            return Err(Box::new(Diagnostic::new(Code::Compile, summary).hint("file.serialize writes data as YAML or JSON")));
        }
        for line in split_lines(&part.to_text()) {
            out.push_str(line);
            out.push('\n');
        }
    }
    if !newline {
        out.truncate(out.trim_end_matches('\n').trim_end_matches('\r').len());
    }
    Ok(out)
}

/// Python's `splitlines`.
fn split_lines(text: &str) -> Vec<&str> {
    let breaks = ['\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}'];
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(breaks) {
        let (line, tail) = rest.split_at(at);
        out.push(line);
        rest = tail.strip_prefix("\r\n").unwrap_or_else(|| tail.get(tail.chars().next().map_or(0, char::len_utf8)..).unwrap_or_default());
    }
    if !rest.is_empty() {
        out.push(rest);
    }
    out
}

/// `include_pat` and `exclude_pat`: globs, or regular expressions after `E@`.
struct Patterns {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
}

enum Pattern {
    Glob(String),
    Regex(Box<fancy_regex::Regex>),
}

impl Patterns {
    fn of(low: &Low) -> Result<Patterns> {
        let read = |argument: &str| {
            let texts = low.args.get(argument).map(texts).unwrap_or_default();
            let pattern = |text: String| match text.strip_prefix("E@") {
                None => Ok(Pattern::Glob(text)),
                Some(regex) => fancy_regex::Regex::new(regex).map(|regex| Pattern::Regex(Box::new(regex))).map_err(|error| {
                    Box::new(Diagnostic::new(
                        Code::Compile,
                        format!("{argument} of {} {} is no regular expression: {error}", low.function(), low.id),
                    ))
                }),
            };
            texts.into_iter().map(pattern).collect::<Result<Vec<_>>>()
        };
        Ok(Patterns { include: read("include_pat")?, exclude: read("exclude_pat")? })
    }

    fn take(&self, path: &str) -> Result<bool> {
        let any = |patterns: &[Pattern]| {
            for pattern in patterns {
                let fits = match pattern {
                    Pattern::Glob(glob) => glob::matches(glob, path),
                    Pattern::Regex(regex) => regex.is_match(path).map_err(|error| {
                        Box::new(Diagnostic::new(Code::Compile, format!("a pattern takes too long on {path}: {error}")))
                    })?,
                };
                if fits {
                    return Ok::<bool, Box<Diagnostic>>(true);
                }
            }
            Ok(false)
        };
        Ok((self.include.is_empty() || any(&self.include)?) && !any(&self.exclude)?)
    }
}
