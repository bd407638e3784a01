//! What is on the host when a state's turn comes: what was read, once, with every earlier planned change laid over it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::diagnostic::{Code, Diagnostic, Result};
use crate::function::There;
use crate::object;
use crate::object::file::File;
use crate::plan::{Hash, Key, Kind, Low, RequisiteKind};
use crate::system::{FileKind, System};
use crate::value::{Attrs, Value, attributes, those};

/// Attributes that only serve to restore a thing exactly, or that tell of another object's state (a user's home, its neighbours in the
/// file, a unit's file). They never make a plan stale and never differ from what is wanted unless wanted.
const ONLY_RESTORED: [&str; 9] = ["size", "mtime", "xattrs", "files", "home_exists", "exists", "static", "@locks", "@keys"];

/// What `lstat` tells of a path, as far as conditions ask for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Look {
    pub kind: FileKind,
    pub mode: u32,
    /// A file without contents.
    pub empty: bool,
}

/// What somebody has asked for.
#[derive(Default)]
pub struct Asked {
    pub keys: BTreeSet<Key>,
    pub looks: BTreeSet<String>,
    /// Directories that were listed.
    pub lists: BTreeSet<String>,
}

pub struct Projection<'a> {
    pub sys: &'a System,
    /// As read from the host: what apply compares with before it touches anything.
    read: RefCell<BTreeMap<Key, Attrs>>,
    /// Paths that conditions looked at, without their contents.
    looked: RefCell<BTreeMap<String, Option<Look>>>,
    laid: BTreeMap<Key, Attrs>,
    /// Directories that went with everything in them, whatever stands there since.
    emptied: BTreeSet<String>,
    /// Paths at which something else will be mounted than was when they were read, and the low that does it: what is there and below is known
    /// when it is.
    covered: BTreeMap<String, usize>,
    /// At which turn a key was last laid over.
    laid_at: BTreeMap<Key, usize>,
    /// Keys that a step which is itself unknown may change, and that step's low.
    unsure: BTreeMap<Key, usize>,
    /// The lows that change or may change something, in their order.
    pending: Vec<usize>,
    /// The turn and low of the last step that may change what no plan can see (a command, maintainer scripts).
    unseen: Option<(usize, usize)>,
    /// What is in directories that were listed, as it is on the host.
    lists: RefCell<BTreeMap<String, BTreeMap<String, Attrs>>>,
    /// What is asked for, while somebody wants to know.
    asked: RefCell<Option<Asked>>,
    /// Contents that functions asked for and that must be fetched before they can be asked again.
    missing: RefCell<BTreeSet<Hash>>,
}

impl<'a> Projection<'a> {
    pub fn new(sys: &'a System) -> Projection<'a> {
        Projection {
            sys,
            read: RefCell::default(),
            looked: RefCell::default(),
            laid: BTreeMap::new(),
            emptied: BTreeSet::new(),
            covered: BTreeMap::new(),
            laid_at: BTreeMap::new(),
            unsure: BTreeMap::new(),
            pending: Vec::new(),
            unseen: None,
            lists: RefCell::default(),
            asked: RefCell::default(),
            missing: RefCell::default(),
        }
    }

    /// For another pass: what was read already, nothing laid over it.
    pub fn over(sys: &'a System, reads: Reads) -> Projection<'a> {
        let Reads { keys, looks, lists } = reads;
        Projection { read: RefCell::new(keys), looked: RefCell::new(looks), lists: RefCell::new(lists), ..Projection::new(sys) }
    }

    /// What is there when everything planned so far is done.
    pub fn now(&self, key: &Key) -> Result<Attrs> {
        if let Some(asked) = &mut *self.asked.borrow_mut() {
            asked.keys.insert(key.clone());
        }
        match self.laid.get(key) {
            Some(laid) => Ok(laid.clone()),
            None if key.kind == Kind::File && self.below_removed(&key.name) => Ok(Attrs::new()),
            None => self.as_read(key),
        }
    }

    /// What is on the host, read once.
    pub fn as_read(&self, key: &Key) -> Result<Attrs> {
        if let Some(attrs) = self.read.borrow().get(key) {
            return Ok(attrs.clone());
        }
        let attrs = match self.unseen {
            Some(_) => read_or_new(self.sys, key)?,
            None => object::of(key)?.read(self.sys)?,
        };
        self.read.borrow_mut().insert(key.clone(), attrs.clone());
        Ok(attrs)
    }

    /// Lays a planned change over what is there.
    pub fn lay(&mut self, key: &Key, to: &Attrs, turn: usize) -> Result<()> {
        let before = self.now(key)?;
        let after = laid_over(&before, to);
        let directory = |attrs: &Attrs| attrs.get("kind").and_then(Value::as_str) == Some("directory");
        if key.kind == Kind::File && directory(&before) && !directory(&after) {
            let below = format!("{}/", key.name);
            self.laid.retain(|laid, _| laid.kind != Kind::File || !laid.name.starts_with(&below));
            self.emptied.insert(key.name.clone());
        }
        self.laid.insert(key.clone(), after);
        self.laid_at.insert(key.clone(), turn);
        Ok(())
    }

    /// This low puts another filesystem or subvolume at a path, or takes it away. A `fresh` one is known: nothing is in it.
    pub fn cover(&mut self, path: &str, fresh: bool, low: usize, turn: usize) {
        let below = format!("{}/", path.trim_end_matches('/'));
        self.laid.retain(|laid, _| laid.kind != Kind::File || !laid.name.starts_with(&below));
        match fresh {
            false => drop(self.covered.insert(path.to_owned(), low)),
            true => {
                self.covered.remove(path);
                self.emptied.insert(path.to_owned());
                let text = |name: &str, value: &str| (name.to_owned(), Value::str(value));
                let top = [text("kind", "directory"), text("mode", "0755"), text("user", "root"), text("group", "root")];
                let key = Key::new(Kind::File, path);
                self.laid_at.insert(key.clone(), turn);
                self.laid.insert(key, attributes(top));
            }
        }
    }

    /// The low whose mount decides what is at a key.
    fn covered(&self, key: &Key) -> Option<usize> {
        let path = match key.kind {
            _ if self.covered.is_empty() => return None,
            Kind::File | Kind::Subvolume | Kind::Btrfs | Kind::Git => key.name.as_str(),
            _ => return None,
        };
        let within = |top: &str| path == top || path.strip_prefix(top.trim_end_matches('/')).is_some_and(|rest| rest.starts_with('/'));
        self.covered.iter().filter(|(top, _)| within(top)).map(|(_, low)| *low).max()
    }

    /// Whether something will be mounted below this directory.
    pub fn above_cover(&self, key: &Key) -> bool {
        let below = |top: &String| top.strip_prefix(key.name.trim_end_matches('/')).is_some_and(|rest| rest.starts_with('/'));
        key.kind == Kind::File && self.covered.keys().any(below)
    }

    /// From this turn on, what is there may change unseen.
    pub fn unseen_from(&mut self, turn: usize, low: usize) {
        self.unseen = Some((turn, low));
    }

    /// This low may or may not change these.
    pub fn doubt(&mut self, keys: &[Key], low: usize) {
        self.unsure.extend(keys.iter().map(|key| (key.clone(), low)));
    }

    /// The low that decides what a key is, where that is known only after apply.
    pub fn unsure(&self, key: &Key) -> Option<usize> {
        self.unsure.get(key).copied().max(self.covered(key))
    }

    /// Whether a planned step changes, or may change, a file below this directory (`/etc/apt/`).
    pub fn touched(&self, directory: &str) -> bool {
        self.laid.keys().chain(self.unsure.keys()).any(|key| key.kind == Kind::File && key.name.starts_with(directory))
    }

    /// Whether a user or group that is not in the host's own files comes from somewhere else (LDAP, sssd).
    pub fn elsewhere(&self, key: &Key) -> bool {
        let found = match key.kind {
            _ if self.laid.contains_key(key) => return false,
            Kind::User => self.sys.uid(&key.name),
            Kind::Group => self.sys.gid(&key.name),
            _ => return false,
        };
        found.is_ok_and(|id| id.is_some())
    }

    /// The low whose commands may yet change what is at a key; `None` where the projection tells the truth.
    pub fn undecided(&self, key: &Key) -> Option<usize> {
        let (turn, low) = self.unseen?;
        let settled = self.laid_at.get(key).is_some_and(|at| *at >= turn);
        self.unsure(key).or((!settled).then_some(low))
    }

    /// A low that changes or may change something.
    pub fn will_change(&mut self, low: usize) {
        self.pending.push(low);
    }

    /// The lows that change or may change something, in their order.
    pub fn pending(&self) -> &[usize] {
        &self.pending
    }

    /// Where a path stands once links on the way are followed, if something planned stands there; else the path itself.
    pub fn place(&self, path: &str) -> String {
        let laid = |path: &str| self.laid.contains_key(&Key::new(Kind::File, path));
        let Some((parent, name)) = path.trim_end_matches('/').rsplit_once('/').filter(|_| !laid(path)) else { return path.to_owned() };
        let real = format!("{}/{name}", self.sys.resolve(if parent.is_empty() { "/" } else { parent }).trim_end_matches('/'));
        if laid(&real) { real } else { path.to_owned() }
    }

    /// What a path is, links not followed, without reading what is in it.
    pub fn look(&self, path: &str) -> Result<Option<Look>> {
        if let Some(asked) = &mut *self.asked.borrow_mut() {
            asked.looks.insert(path.to_owned());
        }
        if let Some(attrs) = self.laid.get(&Key::new(Kind::File, path)) {
            return Ok(look_at_attrs(attrs));
        }
        if self.below_removed(path) {
            return Ok(None);
        }
        if let Some(look) = self.looked.borrow().get(path) {
            return Ok(look.clone());
        }
        let look = look_at_host(self.sys, path)?;
        self.looked.borrow_mut().insert(path.to_owned(), look.clone());
        Ok(look)
    }

    /// Whether a directory on the way is planned to go, or to be something else.
    fn below_removed(&self, path: &str) -> bool {
        let above = path.match_indices('/').filter(|(at, _)| *at > 0).map(|(at, _)| &path[..at]);
        let stays = |attrs: &Attrs| matches!(attrs.get("kind").and_then(Value::as_str), Some("directory" | "symlink"));
        let gone =
            |above: &str| self.emptied.contains(above) || self.laid.get(&Key::new(Kind::File, above)).is_some_and(|attrs| !stays(attrs));
        !self.laid.is_empty() && above.into_iter().any(gone)
    }

    /// Where a link leads, when everything planned so far is done.
    pub fn link(&self, path: &str) -> Result<Option<String>> {
        match self.laid.get(&Key::new(Kind::File, path)) {
            Some(attrs) => Ok(attrs.get("target").map(Value::to_text)),
            None => self.sys.readlink(path),
        }
    }

    /// Contents asked for in vain since the last call.
    pub fn take_missing(&self) -> Vec<Hash> {
        std::mem::take(&mut *self.missing.borrow_mut()).into_iter().collect()
    }

    /// What `asks` asks for, and what it gives.
    pub fn following<T>(&self, asks: impl FnOnce() -> T) -> (T, Asked) {
        *self.asked.borrow_mut() = Some(Asked::default());
        let given = asks();
        (given, self.asked.take().unwrap_or_default())
    }

    /// Everything that was read, for the stale check.
    pub fn reads(self) -> Reads {
        Reads { keys: self.read.into_inner(), looks: self.looked.into_inner(), lists: self.lists.into_inner() }
    }

    /// The bytes behind a hash, if they are on the host already; else they are noted as missing.
    pub fn bytes(&self, hash: &Hash) -> Result<Arc<[u8]>> {
        if self.sys.contents().has(hash) {
            return self.sys.contents().bytes(hash);
        }
        self.missing.borrow_mut().insert(hash.clone());
        Err(Diagnostic::new(Code::HostNeeded, format!("the content {hash} is under way")).into())
    }

    fn list(&self, directory: &str) -> Result<BTreeMap<String, Attrs>> {
        let key = Key::new(Kind::File, directory);
        if self.laid.get(&key).is_some_and(|attrs| attrs.get("kind").and_then(Value::as_str) != Some("directory")) {
            return Ok(BTreeMap::new());
        }
        let below = format!("{}/", directory.trim_end_matches('/'));
        let mut found = BTreeMap::new();
        let emptied = self.emptied.contains(directory.trim_end_matches('/')) || self.below_removed(directory);
        if !emptied {
            found = entries(self.sys, directory)?;
            self.lists.borrow_mut().entry(directory.to_owned()).or_insert_with(|| found.clone());
            if let Some(asked) = &mut *self.asked.borrow_mut() {
                asked.lists.insert(directory.to_owned());
            }
        }
        for (key, attrs) in &self.laid {
            let name = key.name.strip_prefix(&below).filter(|name| key.kind == Kind::File && !name.is_empty() && !name.contains('/'));
            match name {
                Some(name) if attrs.is_empty() => drop(found.remove(name)),
                Some(name) => drop(found.insert(name.to_owned(), attrs.clone())),
                None => {}
            }
        }
        Ok(found)
    }
}

/// What a plan stands on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reads {
    pub keys: BTreeMap<Key, Attrs>,
    pub looks: BTreeMap<String, Option<Look>>,
    /// What is in directories that were listed: what a watch minds, and no reason to call a plan stale.
    pub lists: BTreeMap<String, BTreeMap<String, Attrs>>,
}

impl Reads {
    /// Reads everything again; the names of what is not as it was.
    pub fn differences(&self, sys: &System) -> Result<(Reads, Vec<String>)> {
        let mut now = Reads::default();
        let mut differ = Vec::new();
        for (key, before) in &self.keys {
            let attrs = match read_or_new(sys, key) {
                // It answered when the plan was made.
                Err(e) if e.code == Code::Unreachable => Attrs::new(),
                read => read?,
            };
            if !same(before, &attrs) {
                differ.push(key.to_string());
            }
            now.keys.insert(key.clone(), attrs);
        }
        for (path, before) in &self.looks {
            let look = look_at_host(sys, path)?;
            if look != *before {
                differ.push(path.clone());
            }
            now.looks.insert(path.clone(), look);
        }
        Ok((now, differ))
    }
}

/// What was read, without what only serves to restore it.
pub fn telling(attrs: &Attrs) -> Attrs {
    those(attrs, |name, _| !ONLY_RESTORED.contains(&name))
}

/// Whether two readings of one thing say the same.
pub fn same(a: &Attrs, b: &Attrs) -> bool {
    telling(a) == telling(b)
}

/// What is there once `to` has been brought about.
pub fn laid_over(from: &Attrs, to: &Attrs) -> Attrs {
    let other_kind = to.contains_key("kind") && from.get("kind") != to.get("kind");
    let mut after = if other_kind || to.is_empty() { Attrs::new() } else { from.clone() };
    if to.contains_key("content") && !to.contains_key("size") {
        after.remove("size");
    }
    after.extend(to.iter().map(|(name, value)| (name.clone(), value.clone())));
    after.retain(|_, value| !value.is_null());
    after
}

/// Whether going to `to` changes anything. A null in `to` wants an attribute gone.
pub fn differs(from: &Attrs, to: &Attrs) -> bool {
    match to.is_empty() {
        true => !from.is_empty(),
        false => to.iter().any(|(name, wanted)| match from.get(name) {
            Some(there) => there != wanted,
            None => !wanted.is_null(),
        }),
    }
}

/// What is there; of what is a part of something that an earlier step may yet bring: nothing.
fn read_or_new(sys: &System, key: &Key) -> Result<Attrs> {
    let object = object::of(key)?;
    match object.read(sys) {
        Err(e) if e.code == Code::Unreachable && object.comes_new(sys) => Ok(Attrs::new()),
        read => read,
    }
}

/// What is in a directory, by name, as one look tells.
pub fn entries(sys: &System, directory: &str) -> Result<BTreeMap<String, Attrs>> {
    let below = format!("{}/", directory.trim_end_matches('/'));
    let mut found = BTreeMap::new();
    for name in sys.list(directory)? {
        let attrs = File::glance(sys, &format!("{below}{name}"))?;
        if !attrs.is_empty() {
            found.insert(name, attrs);
        }
    }
    Ok(found)
}

pub fn look_at_host(sys: &System, path: &str) -> Result<Option<Look>> {
    Ok(sys.stat(path)?.map(|stat| Look { kind: stat.kind, mode: stat.mode, empty: stat.kind == FileKind::File && stat.size == 0 }))
}

fn look_at_attrs(attrs: &Attrs) -> Option<Look> {
    let kind = match attrs.get("kind")?.as_str()? {
        "file" => FileKind::File,
        "directory" => FileKind::Directory,
        "symlink" => FileKind::Symlink,
        _ => FileKind::Other,
    };
    let mode = attrs.get("mode").and_then(|m| u32::from_str_radix(&m.to_text(), 8).ok()).unwrap_or(0o644);
    let empty = kind == FileKind::File && attrs.get("content").and_then(Value::as_str).is_none_or(|hash| hash == Hash::of(b"").0);
    Some(Look { kind, mode, empty })
}

/// The projection as one low's function sees it.
pub struct View<'p, 'a> {
    pub projection: &'p Projection<'a>,
    pub lows: &'a [Low],
    pub low: &'a Low,
}

impl There for View<'_, '_> {
    fn get(&self, key: &Key) -> Attrs {
        let known = self.projection.laid.contains_key(key) || self.projection.read.borrow().contains_key(key);
        let attrs = if known { self.projection.now(key).unwrap_or_default() } else { Attrs::new() };
        // Accounts are managed in the host's own files, and may be used wherever they come from.
        let used = known && attrs.is_empty() && !["user", "group"].contains(&self.low.state.as_str());
        match used && self.projection.elsewhere(key) {
            true => attributes([("name".to_owned(), Value::str(&key.name))]),
            false => attrs,
        }
    }

    fn list(&self, directory: &str) -> Result<BTreeMap<String, Attrs>> {
        self.projection.list(directory)
    }

    fn required(&self) -> Vec<&Low> {
        let required = |kind: RequisiteKind| matches!(kind, RequisiteKind::Require | RequisiteKind::Watch);
        let of = self.low.requisites.iter().filter(|r| required(r.kind)).flat_map(|r| r.of.iter());
        of.filter_map(|index| self.lows.get(index)).collect()
    }

    fn bytes(&self, hash: &Hash) -> Result<Arc<[u8]>> {
        self.projection.bytes(hash)
    }

    fn put(&self, bytes: Vec<u8>) -> Hash {
        self.projection.sys.contents().add(bytes)
    }

    fn packages(&self) -> Key {
        object::packages::manager::key(self.projection.sys)
    }

    fn packages_come(&self) -> bool {
        let key = self.packages();
        let (read, laid) = (self.projection.read.borrow(), self.projection.laid.get(&key));
        let version = |attrs: Option<&Attrs>, name: &str| Some(attrs?.get(name)?.as_str()?.split(' ').next()?.to_owned());
        laid.is_some_and(|laid| {
            object::packages::installed(laid).any(|(name, _)| version(Some(laid), name) != version(read.get(&key), name))
        })
    }

    fn uncertain(&self) -> bool {
        self.projection.unseen.is_some()
    }
}
