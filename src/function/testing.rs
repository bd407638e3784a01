//! A host for tests of functions: objects by key, contents by hash.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::{There, Want};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::plan::{Hash, Key, Kind, Low};
use crate::value::Attrs;

#[derive(Default)]
pub struct Host {
    pub objects: BTreeMap<Key, Attrs>,
    pub uncertain: bool,
    contents: RefCell<BTreeMap<Hash, Vec<u8>>>,
}

impl Host {
    pub fn has(&mut self, key: &str, attrs: serde_json::Value) {
        self.objects.insert(key.parse().unwrap(), serde_json::from_value(attrs).unwrap());
    }

    /// A regular file with this text.
    pub fn file(&mut self, path: &str, text: &str) {
        let hash = There::put(self, text.as_bytes().to_vec());
        Host::has(self, &format!("file:{path}"), serde_json::json!({"kind": "file", "content": hash.0}));
    }
}

impl There for Host {
    fn get(&self, key: &Key) -> Attrs {
        self.objects.get(key).cloned().unwrap_or_default()
    }

    fn list(&self, _: &str) -> Result<BTreeMap<String, Attrs>> {
        Ok(BTreeMap::new())
    }

    fn required(&self) -> Vec<&Low> {
        Vec::new()
    }

    fn bytes(&self, hash: &Hash) -> Result<Arc<[u8]>> {
        let bytes = self.contents.borrow().get(hash).cloned();
        bytes.map(Arc::from).ok_or_else(|| Diagnostic::new(Code::HostNeeded, "no such content").into())
    }

    fn put(&self, bytes: Vec<u8>) -> Hash {
        let hash = Hash::of(&bytes);
        self.contents.borrow_mut().insert(hash.clone(), bytes);
        hash
    }

    fn packages(&self) -> Key {
        let key = self.objects.keys().find(|key| key.kind == Kind::Packages);
        key.cloned().unwrap_or_else(|| Key::new(Kind::Packages, "apt"))
    }

    fn uncertain(&self) -> bool {
        self.uncertain
    }
}

/// A low of this function with these arguments.
pub fn low(function: &str, args: serde_json::Value) -> Low {
    let (state, fun) = function.split_once('.').unwrap();
    let name = args["name"].as_str().unwrap_or("x").to_owned();
    let low = serde_json::json!({"id": "x", "sls": "s", "state": state, "fun": fun, "name": name, "args": args});
    serde_json::from_value(low).unwrap()
}

/// What the function wants, or the summary of its refusal. Every key it wants must be one that it named.
pub fn answer(host: &Host, function: &str, args: serde_json::Value) -> std::result::Result<Want, String> {
    let low = low(function, args);
    assert_eq!(super::args::check(std::slice::from_ref(&low)), []);
    let function = (super::find(function).unwrap().parse)(&low).map_err(|e| e.summary)?;
    let keys = function.objects(host).map_err(|e| e.summary)?;
    let want = function.want(host).map_err(|e| e.summary)?;
    if let Want::Is(wants) | Want::Then(wants, _) = &want {
        for (key, _) in wants {
            assert!(keys.contains(key), "{key} was not named");
        }
    }
    Ok(want)
}

/// As `answer`, the wanted objects as JSON: `[[key, attributes], …]`.
pub fn want(host: &Host, function: &str, args: serde_json::Value) -> std::result::Result<serde_json::Value, String> {
    match answer(host, function, args)? {
        Want::Is(wants) => Ok(serde_json::to_value(wants).unwrap()),
        other => panic!("{other:?}"),
    }
}
