//! Events: what `salt.wait_for_event` waits for. There is no bus: who fires an event writes it into the store, and who waits looks there.
//!
//! | who fires | tag | data |
//! |---|---|---|
//! | `basalt event send`, the runner `event.send` | as it is given | as they are given |
//! | `event.send` and `event.wait` of states that an orchestration applies | their name | `id`: the host; `data`: theirs |
//! | an orchestration whose states have run on a host | `salt/job/RUN/ret/HOST` | `id`, `jid`, `fun`, `success`, `retcode` |
//!
//! `salt/minion/HOST/start` is not fired by anybody: who waits for it asks the host itself (`wait`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::diagnostic::{Code, Diagnostic, Result};
use crate::engine::compile::{Answers, Attempt, Compile, Compiler, Wanted};
use crate::engine::event::{Event, Sink};
use crate::plan::Verdict;
use crate::secret::Mask;
use crate::store::Store;
use crate::value::{Map, Value};

const FOLDER: &str = "events/";
/// They are kept so long (milliseconds).
const AGE: u64 = 24 * 3600 * 1000;
/// A tag is a path of words; longer ones are a mistake.
const LONGEST_TAG: usize = 1000;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fired {
    pub tag: String,
    pub data: Map,
}

impl Fired {
    /// Which of these it names under `key`, as Salt looks for them: in its data, else in the `data` of those.
    pub fn names(&self, key: &str, ids: &[Value]) -> Vec<Value> {
        let under = |data: &Map| data.get(key).filter(|found| **found != Value::Null).cloned();
        let found = under(&self.data).or_else(|| under(self.data.get("data")?.as_map()?));
        match found {
            Some(Value::List(found)) => ids.iter().filter(|id| found.contains(id)).cloned().collect(),
            Some(found) => ids.iter().find(|id| **id == found).cloned().into_iter().collect(),
            None => Vec::new(),
        }
    }
}

/// Where events are fired and looked for.
#[derive(Clone)]
pub struct Bell {
    pub store: Arc<dyn Store>,
    /// Milliseconds since the epoch.
    pub clock: fn() -> u64,
}

impl Bell {
    pub fn fire(&self, tag: &str, data: Map) -> Result<()> {
        if tag.is_empty() || tag.len() > LONGEST_TAG || tag.chars().any(char::is_control) {
            return Err(Diagnostic::new(Code::Usage, format!("{tag:?} is no tag of an event"))
                .hint("words with slashes, as in app/deployed")
                .into());
        }
        let now = (self.clock)();
        for key in self.store.list(FOLDER)? {
            let time = key.strip_prefix(FOLDER).and_then(|name| name.split('-').next()?.parse::<u64>().ok());
            if time.is_some_and(|time| time.saturating_add(AGE) >= now) {
                break;
            }
            self.store.delete(&key)?;
        }
        let fired = Fired { tag: tag.to_owned(), data };
        let bytes = serde_json::to_vec(&fired).map_err(|e| Diagnostic::new(Code::Internal, e.to_string()))?;
        for number in 0.. {
            if self.store.put_if(&format!("{}-{number:06}", from(now)), 0, &bytes)? {
                break;
            }
        }
        Ok(())
    }

    /// Those that were fired then or later, under their keys, the oldest first.
    pub fn since(&self, time: u64) -> Result<Vec<(String, Fired)>> {
        let from = from(time);
        let mut found = Vec::new();
        for key in self.store.list(FOLDER)?.into_iter().filter(|key| *key >= from) {
            // One that cannot be read is as good as one that has been forgotten meanwhile.
            let fired = self.store.get(&key)?.and_then(|entry| serde_json::from_slice(&entry.value).ok());
            found.extend(fired.map(|fired| (key, fired)));
        }
        Ok(found)
    }
}

/// What the keys of a time begin with.
fn from(time: u64) -> String {
    format!("{FOLDER}{time:015}")
}

/// What the states of a job's hosts send, by host, id and tag.
type Sent = Arc<Mutex<HashMap<(String, String, String), Map>>>;

/// Hears of a run which of its states send events, and fires them.
pub struct Ear {
    sink: Arc<dyn Sink>,
    bell: Bell,
    sent: Sent,
}

impl Ear {
    /// In place of the sink and the compiler of a job.
    pub fn between(sink: Arc<dyn Sink>, compiler: Compiler, bell: Bell) -> (Arc<dyn Sink>, Compiler) {
        let sent = Sent::default();
        (Arc::new(Ear { sink, bell, sent: sent.clone() }), Arc::new(Noting { compiler, sent }))
    }
}

impl Sink for Ear {
    fn event(&self, event: Event<'_>) {
        self.sink.event(event);
        let Event::StateDone { host, id, state: "event.send" | "event.wait", name, outcome, .. } = event else { return };
        if outcome.result != Verdict::Changed {
            return;
        }
        let key = (host.to_owned(), id.to_owned(), name.to_owned());
        let own = self.sent.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned().unwrap_or_default();
        let data = [("id", Value::str(host)), ("data", Value::Map(own))].into_iter().collect();
        if let Err(fault) = self.bell.fire(name, data) {
            self.sink.event(Event::JobFailed { id, fault: &fault });
        }
    }
}

/// Compiles, and keeps what is to be sent.
struct Noting {
    compiler: Compiler,
    sent: Sent,
}

impl Compile for Noting {
    fn compile(&self, id: &str, grains: &Map, answers: &Answers) -> std::result::Result<Wanted, Vec<Diagnostic>> {
        let wanted = self.compiler.compile(id, grains, answers)?;
        let mask = Mask::new(&wanted.secrets);
        for low in wanted.lows.iter().filter(|low| low.state == "event") {
            if let Some(Value::Map(data)) = low.args.get("data") {
                let key = (id.to_owned(), mask.text(&low.id), mask.text(&low.name));
                self.sent.lock().unwrap_or_else(PoisonError::into_inner).insert(key, mask.map(data));
            }
        }
        Ok(wanted)
    }

    fn pillar(&self, id: &str, grains: &Map, answers: &Answers) -> Attempt<Map> {
        self.compiler.pillar(id, grains, answers)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::store::disk::DiskStore;
    use serde_json::json;

    static NOW: AtomicU64 = AtomicU64::new(0);

    fn map(data: serde_json::Value) -> Map {
        serde_json::from_value(data).unwrap()
    }

    #[test]
    fn what_was_fired_is_found_in_its_order_until_it_is_too_old() {
        let folder = tempfile::tempdir().unwrap();
        let bell = Bell { store: Arc::new(DiskStore::at(folder.path())), clock: || NOW.load(Ordering::Relaxed) };
        let tags = |since| bell.since(since).unwrap().into_iter().map(|(_, fired)| fired.tag).collect::<Vec<_>>();
        for (time, tag) in [(5, "a"), (5, "b"), (900, "c")] {
            NOW.store(time, Ordering::Relaxed);
            bell.fire(tag, map(json!({"id": tag}))).unwrap();
        }
        assert_eq!((tags(0), tags(6)), (vec!["a".into(), "b".into(), "c".into()], vec!["c".into()]));
        NOW.store(AGE + 6, Ordering::Relaxed);
        bell.fire("d", Map::new()).unwrap();
        assert_eq!(tags(0), ["c", "d"]);
        assert!(bell.fire("", Map::new()).unwrap_err().summary.contains("no tag"));
    }

    #[test]
    fn an_event_names_whom_salt_finds_in_it() {
        let ids = [Value::str("a"), Value::str("b"), Value::Int(3)];
        for (data, key, expected) in [
            (json!({"id": "a"}), "id", json!(["a"])),
            (json!({"id": "z"}), "id", json!([])),
            (json!({"data": {"id": "b"}}), "id", json!(["b"])),
            (json!({"id": null, "data": {"id": 3}}), "id", json!([3])),
            (json!({"id": "a", "data": {"id": "b"}}), "id", json!(["a"])),
            (json!({"all": ["b", "a", "z"]}), "all", json!(["a", "b"])),
            (json!({"id": "3"}), "id", json!([])),
            (json!({}), "id", json!([])),
            (json!({"data": "b"}), "id", json!([])),
        ] {
            let fired = Fired { tag: "t".into(), data: map(data.clone()) };
            assert_eq!(serde_json::to_value(fired.names(key, &ids)).unwrap(), expected, "{data}");
        }
    }
}
