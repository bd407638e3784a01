//! What basalt remembers between two commands: the history of runs and the grains it has seen.
//!
//! Never what is wanted (that is git's) and never what is (that is the hosts'): the store can be deleted and only history is lost.
//! `Store` is the little that every backend can do; `disk` keeps it below `$XDG_STATE_HOME/basalt`.

pub mod disk;

use crate::diagnostic::Result;

/// Keys are paths of plain names (`runs/20261120-0752-k3f9`), values are JSON.
pub trait Store: Send + Sync {
    fn get(&self, key: &str) -> Result<Option<Entry>>;

    /// Writes if the entry is still of that version (0: if there is none yet). False: somebody was faster.
    fn put_if(&self, key: &str, version: u64, value: &[u8]) -> Result<bool>;

    fn delete(&self, key: &str) -> Result<()>;

    /// The keys below a prefix (`runs/`), in order.
    fn list(&self, prefix: &str) -> Result<Vec<String>>;
}

/// A value and the version that `put_if` wants to hear again.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub version: u64,
    pub value: Vec<u8>,
}

impl dyn Store + '_ {
    /// Writes whatever was there before.
    pub fn put(&self, key: &str, value: &[u8]) -> Result<()> {
        loop {
            let version = self.get(key)?.map_or(0, |e| e.version);
            if self.put_if(key, version, value)? {
                return Ok(());
            }
        }
    }
}
