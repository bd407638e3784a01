//! A state repository as the compiler sees it: which folders are file roots, which are pillar, and compiling it for a host.

use std::path::PathBuf;
use std::sync::Arc;

use super::compile::{Answers, Attempt, Compile, Wanted};
use super::decrypt::Programs;
use super::download::{Digested, Downloads};
use super::repository::{Snapshot, inside};
use super::settings::{Roots as RootNames, Settings};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::fleet::target::{Form, Target};
use crate::lang::root::{Directory, Folder, Listing, Mount, Roots, Tree};
use crate::lang::source::Remote;
use crate::lang::{Compiled, Compiler, HostInput, Matcher, NodeKeys, Options, What};
use crate::plan::{Content, Hash};
use crate::secret::Mask;
use crate::value::{Map, Value};

impl Listing for Snapshot {
    fn paths(&self) -> Vec<String> {
        Snapshot::paths(self).map(str::to_owned).collect()
    }

    fn read(&self, path: &str) -> std::io::Result<Option<(Arc<[u8]>, u32)>> {
        let file = Snapshot::read(self, path).map_err(|fault| std::io::Error::other(fault.summary))?;
        Ok(file.map(|f| (f.bytes, f.mode)))
    }
}

/// The tree of a snapshot, ready to be compiled for hosts.
pub struct TreeCompiler {
    pub compiler: Compiler,
    pub what: What,
    /// Laid over the pillar of every host.
    pub pillar: Option<Map>,
    pub nodegroups: Map,
    /// Sources on the web.
    pub downloads: Downloads,
}

impl TreeCompiler {
    pub fn new(snapshot: &Arc<Snapshot>, settings: &Settings, what: What, pillar: Option<Map>, cache: PathBuf) -> Result<TreeCompiler> {
        let states = match &settings.file_roots {
            Some(names) => named(snapshot, names)?,
            None => Roots::base(default_mounts(snapshot)?),
        };
        let pillars = match &settings.pillar_roots {
            Some(names) => named(snapshot, names)?,
            None if snapshot.has_folder("pillar") => Roots::base(vec![mount(snapshot, "pillar", "")]),
            None => Roots::base(Vec::new()),
        };
        let nodegroups = settings.nodegroups.clone().unwrap_or_default();
        let secret_pillar = settings.secret_pillar.clone().unwrap_or_default();
        let mut options =
            Options { master: settings.options.clone(), secret_pillar, limits: settings.compile_limits(), ..Options::default() };
        if let Some(renderer) = settings.options.get("renderer").and_then(Value::as_str) {
            options.renderer = renderer.to_owned();
        }
        options.master.insert("nodegroups", nodegroups.clone());
        let downloads = Downloads::at(cache);
        let compiler = Compiler::new(states, pillars, options).decrypting(Arc::new(Programs::new(settings)));
        Ok(TreeCompiler { compiler, what, pillar, nodegroups, downloads })
    }
}

impl TreeCompiler {
    /// The same, with somebody who has the keys of nodes.
    pub fn knowing(self, node_keys: Arc<dyn NodeKeys>) -> TreeCompiler {
        TreeCompiler { compiler: self.compiler.knowing(node_keys), ..self }
    }
}

fn mount(snapshot: &Arc<Snapshot>, folder: &str, name: &str) -> Mount {
    let listing: Arc<dyn Listing> = snapshot.clone();
    let tree: Arc<dyn Tree> = Arc::new(Folder::new(listing, folder));
    Mount { name: name.to_owned(), tree }
}

/// Without settings: `states/` is the file root, with `roles/` and `orchestration/` beside it under their names; a repository with
/// `top.sls` at its root is a file root itself.
fn default_mounts(snapshot: &Arc<Snapshot>) -> Result<Vec<Mount>> {
    if snapshot.has_folder("states") {
        let beside = ["roles", "orchestration"].into_iter().filter(|f| snapshot.has_folder(f)).map(|f| mount(snapshot, f, f));
        return Ok(std::iter::once(mount(snapshot, "states", "")).chain(beside).collect());
    }
    if snapshot.contains("top.sls") {
        return Ok(vec![mount(snapshot, "", "")]);
    }
    Err(Diagnostic::new(Code::Repository, format!("there are no states in {}", snapshot.name))
        .detail("Neither a folder `states` nor a `top.sls` at the root of the repository.")
        .hint("`basalt init` makes a repository that plans at once; `file_roots` in basalt.yaml names other folders")
        .into())
}

/// The roots that the settings name, relative to the repository.
fn named(snapshot: &Arc<Snapshot>, names: &RootNames) -> Result<Roots> {
    let mut roots = Roots::new();
    for (env, folders) in names {
        if let Some(all) = &snapshot.roots {
            roots.environment(env, directories(folders, all)?);
            continue;
        }
        let mut mounts = Vec::new();
        for folder in folders {
            let Some(path) = inside("", folder) else {
                return Err(Diagnostic::new(Code::Settings, format!("the root {folder:?} is not inside the state repository"))
                    .hint("roots are relative to the repository, so that a commit holds all that a plan is made from")
                    .into());
            };
            if !path.is_empty() && !snapshot.has_folder(&path) {
                return Err(Diagnostic::new(Code::Settings, format!("the root {folder:?} of the settings is not in the repository")).into());
            }
            mounts.push(mount(snapshot, &path, ""));
        }
        roots.environment(env, mounts);
    }
    Ok(roots)
}

/// Folders of this machine; what is not there is passed over, as Salt does.
fn directories(folders: &[String], all: &[PathBuf]) -> Result<Vec<Mount>> {
    let mut mounts = Vec::new();
    for folder in folders.iter().map(PathBuf::from).filter(|folder| folder.is_dir()) {
        let shown = folder.display().to_string();
        let tree = Directory::new(&folder, shown.clone()).and_then(|directory| directory.within(all));
        let tree = tree.map_err(|e| Diagnostic { code: Code::Settings, ..Diagnostic::io(format_args!("open the root {shown}"), &e) })?;
        mounts.push(Mount { name: String::new(), tree: Arc::new(tree) });
    }
    Ok(mounts)
}

/// Matches the targets of top files for one host.
pub struct HostMatcher<'a> {
    pub id: &'a str,
    pub grains: &'a Map,
    pub nodegroups: &'a Map,
}

impl Matcher for HostMatcher<'_> {
    fn matches(&self, expression: &str, form: &str, pillar: &Map) -> Result<bool> {
        let form = Form::from_salt(form)?;
        Target::parse(form, expression, self.nodegroups)?.matches(self.id, self.grains, pillar)
    }
}

impl Compile for TreeCompiler {
    fn compile(&self, id: &str, grains: &Map, answers: &Answers) -> std::result::Result<Wanted, Vec<Diagnostic>> {
        let matcher = HostMatcher { id, grains, nodegroups: &self.nodegroups };
        let host = HostInput { id, grains, pillar_override: self.pillar.as_ref(), answers, matcher: &matcher };
        let mut compiled = self.compiler.compile(&host, &self.what)?;
        // The host checks this too; here the lines of the tree are at hand.
        let mut faults = crate::function::args::check(&compiled.lows);
        for remote in std::mem::take(&mut compiled.remote) {
            if let Err(found) = self.fetch(&host, &mut compiled, &remote) {
                faults.extend(found);
            }
        }
        if !faults.is_empty() {
            return Err(self.compiler.place(faults, &compiled.secrets));
        }
        Ok(Wanted { lows: compiled.lows, blobs: compiled.blobs, secrets: compiled.secrets, missing: compiled.missing })
    }

    fn pillar(&self, id: &str, grains: &Map, answers: &Answers) -> Attempt<Map> {
        let matcher = HostMatcher { id, grains, nodegroups: &self.nodegroups };
        let host = HostInput { id, grains, pillar_override: self.pillar.as_ref(), answers, matcher: &matcher };
        let seen = self.compiler.pillar_data(&host);
        (seen.found, seen.missing)
    }
}

impl TreeCompiler {
    /// What a host is to be, without what only the web has.
    pub fn compiled(&self, id: &str, grains: &Map, answers: &Answers) -> std::result::Result<Compiled, Vec<Diagnostic>> {
        let matcher = HostMatcher { id, grains, nodegroups: &self.nodegroups };
        let host = HostInput { id, grains, pillar_override: self.pillar.as_ref(), answers, matcher: &matcher };
        self.compiler.compile(&host, &self.what)
    }

    /// A host's pillar alone, as far as it needs no host.
    pub fn pillar_of(&self, id: &str, grains: &Map) -> std::result::Result<Map, Vec<Diagnostic>> {
        self.pillar(id, grains, &Answers::new()).0
    }

    /// Brings a source on the web into the low that names it.
    fn fetch(&self, host: &HostInput<'_>, compiled: &mut Compiled, remote: &Remote) -> std::result::Result<(), Vec<Diagnostic>> {
        let Some(low) = compiled.lows.get(remote.low) else { return Ok(()) };
        let placed = |fault: crate::diagnostic::Error| {
            vec![match &low.span {
                Some(span) => fault.or_at(span.clone()),
                None => *fault,
            }]
        };
        let digest = self.digest(remote).map_err(placed)?;
        let mut bytes = self.downloads.get(&remote.url, digest.as_ref()).map_err(placed)?;
        let mut secret = false;
        if remote.template {
            let (rendered, secrets) = self.compiler.render_fetched(host, low, remote, bytes.to_vec())?;
            secret = Mask::new(&secrets).holds_secret(&String::from_utf8_lossy(&rendered));
            compiled.secrets.extend(secrets);
            bytes = rendered.into();
        }
        let contents = match low.function().as_str() {
            "archive.extracted" => self.compiler.unpack_fetched(low, remote, &bytes).map_err(placed)?,
            _ => {
                let (name, hash, size) = (remote.name.clone(), Hash::of(&bytes), bytes.len() as u64);
                vec![(Content { name, hash, size, mode: None, link: None, secret }, bytes)]
            }
        };
        for (content, bytes) in contents {
            compiled.blobs.insert(content.hash.clone(), bytes);
            if let Some(low) = compiled.lows.get_mut(remote.low) {
                low.contents.push(content);
            }
        }
        Ok(())
    }

    /// What the source must be: the digest itself, or the one that a hash file (in the tree or on the web) has for it.
    fn digest(&self, remote: &Remote) -> Result<Option<Digested>> {
        if remote.skip_verify {
            return Ok(None);
        }
        let name = remote.source_hash_name.as_deref().unwrap_or(&remote.url);
        if let Some(text) = &remote.hashes {
            return Digested::find(text, name).map(Some);
        }
        match &remote.source_hash {
            Some(url) if url.starts_with("http://") || url.starts_with("https://") => {
                let text = self.downloads.get(url, None)?;
                Digested::find(&String::from_utf8_lossy(&text), name).map(Some)
            }
            Some(digest) => Digested::parse(digest).map(Some),
            None => Err(Diagnostic::new(Code::Compile, format!("nothing says what {} is to be", remote.url))
                .hint("give a source_hash; `skip_verify: True` takes whatever the server sends")
                .into()),
        }
    }
}
