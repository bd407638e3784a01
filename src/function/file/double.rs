//! For tests of functions: a host that is nothing but attributes. What a function wants can be laid over it, so that a second look
//! shows whether it wants anything more.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::diagnostic::{Code, Diagnostic, Result};
use crate::function::{Function, There, Want};
use crate::plan::{Content, Hash, Key, Kind, Low};
use crate::value::{Attrs, Map, Value};

#[derive(Default)]
pub struct Double {
    pub objects: BTreeMap<Key, Attrs>,
    pub contents: RefCell<BTreeMap<Hash, Arc<[u8]>>>,
    pub required: Vec<Low>,
    pub uncertain: bool,
    pub packages_come: bool,
    /// Keys that the function named; others read as absent, as the trait says.
    named: RefCell<Option<Vec<Key>>>,
}

impl There for Double {
    fn get(&self, key: &Key) -> Attrs {
        let known = self.named.borrow().as_ref().is_none_or(|named| named.contains(key));
        if known { self.objects.get(key).cloned().unwrap_or_default() } else { Attrs::new() }
    }

    fn list(&self, directory: &str) -> Result<BTreeMap<String, Attrs>> {
        let start = if directory == "/" { "/".to_owned() } else { format!("{directory}/") };
        let below = self.objects.iter().filter(|(key, attrs)| key.kind == Kind::File && !attrs.is_empty());
        Ok(below
            .filter_map(|(key, attrs)| {
                let name = key.name.strip_prefix(&start).filter(|n| !n.is_empty() && !n.contains('/'))?;
                let looked = ["kind", "mode", "user", "group", "target"];
                let seen = attrs.iter().filter(|(n, _)| looked.contains(&n.as_str())).map(|(n, v)| (n.clone(), v.clone())).collect();
                Some((name.to_owned(), seen))
            })
            .collect())
    }

    fn required(&self) -> Vec<&Low> {
        self.required.iter().collect()
    }

    fn bytes(&self, hash: &Hash) -> Result<Arc<[u8]>> {
        let missing = || Diagnostic::new(Code::HostNeeded, format!("no content {hash}")).into();
        self.contents.borrow().get(hash).cloned().ok_or_else(missing)
    }

    fn put(&self, bytes: Vec<u8>) -> Hash {
        let hash = Hash::of(&bytes);
        self.contents.borrow_mut().insert(hash.clone(), bytes.into());
        hash
    }

    fn packages_come(&self) -> bool {
        self.packages_come
    }

    fn uncertain(&self) -> bool {
        self.uncertain
    }
}

impl Double {
    /// A host with `/`, `/etc` and the user and group `root`.
    pub fn new() -> Double {
        let mut host = Double::default();
        host.directory("/").directory("/etc");
        host.set("user:root", r#"{"uid": 0, "gid": 0}"#).set("group:root", r#"{"gid": 0}"#);
        host
    }

    /// An object, its attributes in JSON.
    pub fn set(&mut self, key: &str, json: &str) -> &mut Double {
        self.objects.insert(key.parse().unwrap(), serde_json::from_str(json).unwrap());
        self
    }

    pub fn directory(&mut self, path: &str) -> &mut Double {
        self.set(&format!("file:{path}"), r#"{"kind": "directory", "mode": "0755", "user": "root", "group": "root"}"#)
    }

    pub fn file(&mut self, path: &str, text: &str) -> &mut Double {
        let hash = self.put(text.as_bytes().to_vec());
        let json = format!(r#"{{"kind": "file", "mode": "0644", "user": "root", "group": "root", "content": "{hash}"}}"#);
        self.set(&format!("file:{path}"), &json)
    }

    pub fn link(&mut self, path: &str, target: &str) -> &mut Double {
        self.set(&format!("file:{path}"), &format!(r#"{{"kind": "symlink", "user": "root", "group": "root", "target": "{target}"}}"#))
    }

    /// What stands at a path, in a few words: a file's text, `directory MODE`, `-> TARGET`, `absent`.
    pub fn at(&self, path: &str) -> String {
        let attrs = self.objects.get(&Key::new(Kind::File, path)).cloned().unwrap_or_default();
        let text = |name: &str| attrs.get(name).map(Value::to_text).unwrap_or_default();
        match text("kind").as_str() {
            "file" => String::from_utf8_lossy(&self.bytes(&Hash(text("content"))).unwrap()).into_owned(),
            "symlink" => format!("-> {}", text("target")),
            "" => "absent".into(),
            kind => format!("{kind} {}", text("mode")),
        }
    }

    pub fn attr(&self, path: &str, name: &str) -> String {
        self.objects.get(&Key::new(Kind::File, path)).and_then(|a| a.get(name)).map(Value::to_text).unwrap_or_default()
    }

    /// A content as the controller would send it with a low.
    pub fn content(&self, name: &str, text: &str, mode: Option<u32>) -> Content {
        Content { name: name.into(), hash: self.put(text.as_bytes().to_vec()), size: text.len() as u64, mode, link: None, secret: false }
    }

    /// Asks for objects until no key is new, then for the want: as the planner does.
    pub fn want(&self, function: &dyn Function) -> Result<Want> {
        *self.named.borrow_mut() = Some(Vec::new());
        let result = (|| {
            for _ in 0..20 {
                let new: Vec<Key> = {
                    let keys = function.objects(self)?;
                    let named = self.named.borrow();
                    let named = named.as_deref().unwrap_or_default();
                    keys.into_iter().filter(|k| !named.contains(k)).collect()
                };
                if new.is_empty() {
                    let want = function.want(self)?;
                    if let Want::Is(wants) | Want::Then(wants, _) = &want {
                        for (key, _) in wants {
                            let named = self.named.borrow().as_ref().is_some_and(|n| n.contains(key));
                            assert!(named, "{key} is wanted and was not named");
                        }
                    }
                    return Ok(want);
                }
                self.named.borrow_mut().get_or_insert_default().extend(new);
            }
            panic!("its objects never end");
        })();
        *self.named.borrow_mut() = None;
        result
    }

    /// Lays a want over the host. Says how many objects differ.
    pub fn lay(&mut self, want: Want) -> usize {
        let (Want::Is(wants) | Want::Then(wants, _)) = want else { return 0 };
        let mut changed = 0;
        for (key, wanted) in wants {
            let now = self.objects.get(&key).cloned().unwrap_or_default();
            if wanted.is_empty() {
                changed += usize::from(!now.is_empty());
                let below = format!("{}/", key.name);
                self.objects.retain(|k, _| *k != key && !(k.kind == key.kind && k.name.starts_with(&below)));
                continue;
            }
            let other_kind = wanted.get("kind").is_some_and(|k| now.get("kind").is_some_and(|n| n != k));
            let mut next = if other_kind { Attrs::new() } else { now.clone() };
            next.extend(wanted);
            for owner in ["user", "group"] {
                next.entry(owner.into()).or_insert_with(|| "root".into());
            }
            changed += usize::from(next != now);
            self.objects.insert(key, next);
        }
        changed
    }

    /// Does what a state says, twice: the second time there must be nothing left to do. Says how many objects changed.
    pub fn apply(&mut self, function: &str, args: &str) -> Result<usize> {
        self.apply_low(&low(function, args))
    }

    pub fn apply_low(&mut self, low: &Low) -> Result<usize> {
        let function = self.parse(low)?;
        let want = self.want(function.as_ref())?;
        let changed = self.lay(want);
        let again = self.want(function.as_ref())?;
        let rest = self.lay(again);
        assert_eq!(rest, 0, "{} {:?} is not done the second time", low.function(), low.args);
        Ok(changed)
    }

    pub fn parse(&self, low: &Low) -> Result<Box<dyn Function>> {
        assert_eq!(crate::function::args::check(std::slice::from_ref(low)), []);
        self.parse_quietly(low)
    }

    /// Without a look at what the table of arguments says.
    pub fn parse_quietly(&self, low: &Low) -> Result<Box<dyn Function>> {
        (crate::function::find(&low.function()).unwrap().parse)(low)
    }
}

/// A low of this function with these arguments, in JSON.
pub fn low(function: &str, args: &str) -> Low {
    let (state, fun) = function.split_once('.').unwrap();
    let args: Map = serde_json::from_str(args).unwrap();
    let name = args.get("name").map(Value::to_text).unwrap_or_default();
    Low {
        id: "an id".into(),
        sls: "an.sls".into(),
        state: state.into(),
        fun: fun.into(),
        name,
        args,
        requisites: Vec::new(),
        control: Default::default(),
        contents: Vec::new(),
        failed: None,
        span: None,
    }
}
