//! Hosts that are away or fail: when the next try is, and when to give up.
//!
//! ```text
//!                 a try fails                  `tries` have failed
//!   (nothing) ──────────────► transient ─────────────────────────► failed
//!       ▲                      │  ▲  it fails again                  │
//!       └── a try succeeds ────┘  └──────── it comes up, or somebody says so
//! ```
//!
//! Tries follow each other every `first_every` seconds at first, then every `every` seconds, for ever or until `tries` have failed. Everything here is pure, with the
//! clock passed in; what is known of a host stands in the store, so that a controller that was restarted goes on where it was. A host that announces itself is such a
//! recovery too: it is written down before it is acknowledged, and due at once.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::diagnostic::{Code, Diagnostic, Result};
use crate::engine::settings::Settings;
use crate::store::Store;

/// How patient to be, in seconds and tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    pub first_every: u64,
    /// So many tries follow each other quickly.
    pub first_tries: u64,
    pub every: u64,
    /// After so many tries a host has failed; never, where nothing is said.
    pub tries: Option<u64>,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { first_every: 60, first_tries: 5, every: 300, tries: None }
    }
}

impl Pace {
    pub fn of(settings: &Settings) -> Pace {
        let mut pace = Pace::default();
        for (name, value) in &settings.recovery {
            match (name.as_str(), value) {
                ("tries", tries) => pace.tries = *tries,
                ("first_every", Some(seconds)) => pace.first_every = *seconds,
                ("first_tries", Some(tries)) => pace.first_tries = *tries,
                (_, Some(seconds)) => pace.every = *seconds,
                (_, None) => {}
            }
        }
        pace
    }

    /// From the end of that try to the next; none: there is no next.
    fn wait(&self, tries: u64) -> Option<u64> {
        match self.tries {
            Some(last) if tries >= last => None,
            _ if tries <= self.first_tries => Some(self.first_every),
            _ => Some(self.every),
        }
    }
}

/// A host that is not as it should be, as the store has it. Times are seconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    pub standing: Standing,
    /// When it was first found so.
    pub since: u64,
    /// Tries that have failed since.
    pub tries: u64,
    /// When it was last tried, or heard of.
    pub last: u64,
    /// What was wrong then.
    pub why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Standing {
    /// It is tried again then.
    Transient { next: u64 },
    /// Nobody tries it any more, until it comes up or somebody says so.
    Failed,
}

impl Standing {
    pub fn name(self) -> &'static str {
        match self {
            Standing::Transient { .. } => "transient",
            Standing::Failed => "failed",
        }
    }
}

impl Recovery {
    /// A try has failed.
    pub fn failed(before: Option<&Recovery>, pace: &Pace, why: &str, now: u64) -> Recovery {
        let tries = before.map_or(0, |before| before.tries).saturating_add(1);
        let standing = match pace.wait(tries) {
            Some(wait) => Standing::Transient { next: now.saturating_add(wait) },
            None => Standing::Failed,
        };
        Recovery { standing, since: before.map_or(now, |before| before.since), tries, last: now, why: why.to_owned() }
    }

    /// It is there, or somebody says so: it is due at once, and its tries are counted anew.
    pub fn begun(before: Option<&Recovery>, why: &str, now: u64) -> Recovery {
        let standing = Standing::Transient { next: now };
        Recovery { standing, since: before.map_or(now, |before| before.since), tries: 0, last: now, why: why.to_owned() }
    }

    /// When it is tried again.
    pub fn next(&self) -> Option<u64> {
        match self.standing {
            Standing::Transient { next } => Some(next),
            Standing::Failed => None,
        }
    }

    /// Seconds until the next try; none: there is no next. A clock that was put back makes nobody wait longer than the pace.
    pub fn wait(&self, pace: &Pace, now: u64) -> Option<u64> {
        let longest = pace.wait(self.tries).unwrap_or(pace.every);
        self.next().map(|next| match next.saturating_sub(now) {
            wait if wait > longest => 0,
            wait => wait,
        })
    }
}

fn key(host: &str) -> String {
    format!("recovery/{host}")
}

/// What is known of a host; nothing: it is as it should be.
pub fn read(store: &dyn Store, host: &str) -> Result<Option<Recovery>> {
    // What cannot be read is of another version: the host is looked at anew.
    Ok(store.get(&key(host))?.and_then(|entry| serde_json::from_slice(&entry.value).ok()))
}

/// All hosts that are not as they should be.
pub fn all(store: &dyn Store) -> Result<BTreeMap<String, Recovery>> {
    let mut found = BTreeMap::new();
    for key in store.list("recovery/")? {
        let host = key.trim_start_matches("recovery/");
        if let Some(recovery) = read(store, host)? {
            found.insert(host.to_owned(), recovery);
        }
    }
    Ok(found)
}

/// A try of a host has ended; what comes of it is written down. None: it is as it should be.
pub fn tried(store: &dyn Store, host: &str, outcome: std::result::Result<(), &str>, pace: &Pace, now: u64) -> Result<Option<Recovery>> {
    match outcome {
        Ok(()) => store.delete(&key(host)).map(|()| None),
        Err(why) => change(store, host, |before| Recovery::failed(before, pace, why, now)).map(Some),
    }
}

/// A host has come up, or somebody says that it can be tried again. When this returns well it is written down, and no crash loses it.
pub fn begun(store: &dyn Store, host: &str, why: &str, now: u64) -> Result<Recovery> {
    change(store, host, |before| Recovery::begun(before, why, now))
}

fn change(store: &dyn Store, host: &str, change: impl Fn(Option<&Recovery>) -> Recovery) -> Result<Recovery> {
    loop {
        let entry = store.get(&key(host))?;
        let before = entry.as_ref().and_then(|entry| serde_json::from_slice(&entry.value).ok());
        let after = change(before.as_ref());
        let bytes = serde_json::to_vec(&after).map_err(|e| Diagnostic::new(Code::Internal, e.to_string()))?;
        if store.put_if(&key(host), entry.map_or(0, |entry| entry.version), &bytes)? {
            return Ok(after);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::DiskStore;

    /// What happens to a host at which second, and what it is then: how it stands, tries that have failed, seconds to the next.
    enum What {
        Fails,
        Rises,
    }
    use What::{Fails, Rises};

    #[test]
    fn tries_become_rarer_and_end_where_they_are_to() {
        let forever = Pace { first_tries: 3, ..Pace::default() };
        let until = Pace { tries: Some(3), first_tries: 2, ..forever };
        let once = Pace { tries: Some(1), ..forever };
        let cases = [
            (
                forever,
                vec![
                    (0, Fails, 1, Some(60)),
                    (60, Fails, 2, Some(60)),
                    (120, Fails, 3, Some(60)),
                    (180, Fails, 4, Some(300)),
                    (480, Fails, 5, Some(300)),
                ],
            ),
            (until, vec![(0, Fails, 1, Some(60)), (60, Fails, 2, Some(60)), (120, Fails, 3, None)]),
            (once, vec![(0, Fails, 1, None), (500, Rises, 0, Some(0)), (510, Fails, 1, None)]),
            // Who comes up is tried at once, and has all its tries again; since when it is so, stays.
            (
                until,
                vec![
                    (0, Fails, 1, Some(60)),
                    (10, Rises, 0, Some(0)),
                    (11, Fails, 1, Some(60)),
                    (71, Fails, 2, Some(60)),
                    (131, Fails, 3, None),
                ],
            ),
            (forever, vec![(7, Rises, 0, Some(0)), (9, Fails, 1, Some(60))]),
        ];
        for (number, (pace, steps)) in cases.into_iter().enumerate() {
            let mut before: Option<Recovery> = None;
            let start = steps[0].0;
            for (now, what, tries, wait) in steps {
                let after = match what {
                    Fails => Recovery::failed(before.as_ref(), &pace, "away", now),
                    Rises => Recovery::begun(before.as_ref(), "it came up", now),
                };
                let name = if wait.is_some() { "transient" } else { "failed" };
                assert_eq!((after.tries, after.wait(&pace, now), after.standing.name()), (tries, wait, name), "case {number} at {now}");
                assert_eq!((after.since, after.last), (start, now), "case {number} at {now}");
                before = Some(after);
            }
        }
    }

    #[test]
    fn time_passes_and_a_clock_that_is_put_back_makes_nobody_wait() {
        let pace = Pace::default();
        let found = Recovery::failed(None, &pace, "away", 1000);
        for (now, wait) in [(1000, 60), (1030, 30), (1060, 0), (5000, 0), (999, 0), (3, 0)] {
            assert_eq!(found.wait(&pace, now), Some(wait), "at {now}");
        }
    }

    #[test]
    fn the_store_has_it_and_another_controller_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let pace = Pace { tries: Some(2), ..Pace::default() };
        let store = || DiskStore::at(folder.path().to_owned());
        tried(&store(), "h1", Err("away"), &pace, 100).unwrap();
        tried(&store(), "h2", Ok(()), &pace, 100).unwrap();
        // Restarted.
        let found = all(&store()).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["h1"]);
        assert_eq!(found["h1"].wait(&pace, 130), Some(30));
        assert_eq!(tried(&store(), "h1", Err("still away"), &pace, 160).unwrap().unwrap().standing, Standing::Failed);
        assert_eq!(begun(&store(), "h1", "it came up", 200).unwrap().next(), Some(200));
        let text = String::from_utf8(store().get("recovery/h1").unwrap().unwrap().value).unwrap();
        assert_eq!(text, r#"{"standing":{"state":"transient","next":200},"since":100,"tries":0,"last":200,"why":"it came up"}"#);
        tried(&store(), "h1", Ok(()), &pace, 201).unwrap();
        assert_eq!(all(&store()).unwrap(), BTreeMap::new());
        // Of a version that nobody knows.
        store().put_if("recovery/h3", 0, b"?").unwrap();
        assert_eq!(read(&store(), "h3").unwrap(), None);
        assert_eq!(begun(&store(), "h3", "it came up", 5).unwrap().since, 5);
    }

    #[test]
    fn settings_say_how_patient_to_be() {
        let pace = |text: &str| Pace::of(&Settings::parse(text, "basalt.yaml").unwrap());
        assert_eq!(pace("recovery: {}\n"), Pace::default());
        let said = pace("recovery: {first_every: 5, first_tries: 2, every: 30, tries: 9}\n");
        assert_eq!(said, Pace { first_every: 5, first_tries: 2, every: 30, tries: Some(9) });
        let over = Settings::parse("recovery: {tries: null}\n", "a")
            .unwrap()
            .or(Settings::parse("recovery: {tries: 3, every: 9}\n", "b").unwrap());
        assert_eq!(Pace::of(&over), Pace { every: 9, ..Pace::default() });
        for wrong in ["recovery: 3", "recovery: {evry: 3}", "recovery: {every: null}", "recovery: {tries: 0}"] {
            assert!(Settings::parse(wrong, "x").is_err(), "{wrong}");
        }
    }
}
