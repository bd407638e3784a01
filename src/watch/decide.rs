//! What is done about what happened. Pure: the clock comes in, decisions go out, and whoever carries them out says what became of them.
//!
//! Every host is by itself: what it still has to do is kept as marks (`Host`), not as a queue, so a hundred commits while it was away are one
//! run when it is back. What holds for all of them is the branch's tip, and whether that commit is held.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::engine::branch::Tip;
use crate::engine::window::{Local, Window};

/// Commits that are held are known for so long, counted in later ones.
const HELD: usize = 100;

/// The moment: waits go by a clock that nobody sets, windows by the one on the wall.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Since the watch began.
    pub ticks: Duration,
    pub local: Local,
}

/// What is set for the watch.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Hosts are changed; otherwise plans are shown.
    pub apply: bool,
    /// When a commit fails on a host, it is taken back on all that have it.
    pub take_back: bool,
    /// When hosts may be changed; none: always.
    pub windows: Vec<Window>,
}

/// Why a host is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Why {
    Start,
    Edit,
    Commit,
    Timer,
    Drift,
    Up,
    /// A part of a drift is corrected by itself.
    Correction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Shows what would change.
    Plan,
    /// The host is to become what the commit says.
    Apply,
    /// The host was what the commit says: what differs is drift, shown or corrected as the settings have it.
    Check,
    /// The commit failed elsewhere: its run is taken back here too.
    TakeBack,
}

/// One host's turn.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    pub host: String,
    /// Of which commit; none: of the work tree.
    pub commit: Option<String>,
    /// What the compiler makes of it, if that was known beforehand.
    pub mark: Option<String>,
    pub act: Act,
    pub why: Why,
    /// The run that is taken back.
    pub run: Option<String>,
}

/// What became of a task.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The host is as the tree says; `run`: it was not before, and this brought it there.
    Reached { run: Option<String>, mark: Option<String> },
    /// Something differs and was left as it is: names of states. `again`: it was shown before.
    Shown { states: Vec<String>, again: bool, mark: Option<String> },
    /// It is the commit's fault.
    Failed { why: String, taken_back: bool },
    /// It is the host's fault, or nobody's; seconds until the next try, none: it is not tried again by itself.
    Away { why: String, wait: Option<u64> },
    /// The watch is being stopped.
    Stopped,
}

/// What is done, and what is left.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    Begin(Task),
    Leave {
        hosts: Vec<String>,
        commit: Option<String>,
        why: String,
    },
    /// Nobody gets this commit; a new one is waited for.
    Hold {
        commit: String,
        hosts: Vec<String>,
        why: String,
    },
    /// A commit that came to no end: another one took its place.
    Overtaken {
        commit: String,
        by: String,
    },
    /// The branch was moved to where it did not come from.
    Rewritten {
        commit: String,
        by: String,
    },
    /// Seconds until the window opens.
    Wait {
        hosts: Vec<String>,
        commit: String,
        seconds: u64,
        window: String,
    },
    Retry {
        host: String,
        commit: Option<String>,
        why: String,
        seconds: Option<u64>,
    },
    /// A host has become what the commit says.
    Done {
        host: String,
        commit: String,
        changed: bool,
        why: Why,
    },
    /// A host no longer has a commit that failed on another one.
    TakenBack {
        host: String,
        commit: String,
        run: String,
    },
    /// States that are not as they were left.
    Drift {
        host: String,
        commit: String,
        states: Vec<String>,
    },
    /// Every host has it, is left alone or away.
    Settled {
        commit: String,
        hosts: usize,
        left: usize,
        away: Vec<String>,
    },
}

/// What a commit means.
#[derive(Clone, Debug, Default)]
pub struct Look {
    pub tip: Tip,
    /// Commits between the last one and this one, the oldest first.
    pub passed: Vec<String>,
    /// The last one is no ancestor of this one.
    pub rewritten: bool,
    /// Why nobody gets it: it is not signed, or does not compile.
    pub refused: Option<String>,
    /// What the compiler makes of it for each host; none: that cannot be known without the host.
    pub hosts: BTreeMap<String, Option<String>>,
}

/// What is known of the watched hosts and the branch. It may be lost: then only looking is done again.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct State {
    tip: Option<Tip>,
    /// The tip has not come everywhere yet.
    unsettled: bool,
    held: Vec<Held>,
    hosts: BTreeMap<String, Host>,
    #[serde(skip)]
    rollout: Rollout,
    #[serde(skip)]
    rules: Rules,
    #[serde(skip)]
    stopped: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Held {
    commit: String,
    why: String,
}

/// How far the tip has come.
#[derive(Clone, Debug, Default)]
struct Rollout {
    open: BTreeSet<String>,
    hosts: usize,
    left: usize,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Host {
    /// The commit that it was last brought to or shown, and what the compiler made of it.
    has: Option<Version>,
    /// The run that brought it there, and what it had before.
    #[serde(default)]
    run: Option<String>,
    #[serde(default)]
    before: Option<Version>,
    /// That run is to be taken back.
    #[serde(default)]
    back: bool,
    /// What the compiler makes of the tip.
    #[serde(skip)]
    wanted: Option<String>,
    /// It has not got the tip yet.
    #[serde(skip)]
    behind: bool,
    /// It is to be looked at: why.
    #[serde(skip)]
    check: Option<Why>,
    /// An edit of the work tree means something else for it: what the compiler makes of that.
    #[serde(skip)]
    edit: Option<Option<String>>,
    /// What it was last shown of an edit.
    #[serde(skip)]
    shown: Option<String>,
    #[serde(skip)]
    doing: Option<Task>,
    /// Not before that, on the clock of `Now::ticks`; the last: not by itself.
    #[serde(skip)]
    retry: Option<Duration>,
    /// Told that it waits for a window.
    #[serde(skip)]
    waits: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Version {
    commit: String,
    mark: Option<String>,
}

/// A moment that never comes.
const NEVER: Duration = Duration::MAX;

impl State {
    pub fn rule(&mut self, rules: Rules) {
        self.rules = rules;
    }

    pub fn tip(&self) -> Option<&Tip> {
        self.tip.as_ref()
    }

    pub fn hosts(&self) -> impl Iterator<Item = &String> {
        self.hosts.keys()
    }

    /// No host begins anything any more.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    pub fn is_busy(&self) -> bool {
        self.hosts.values().any(|host| host.doing.is_some())
    }

    /// A host is not tried before that many seconds from now; known from before the watch began.
    pub fn away(&mut self, host: &str, wait: Option<u64>, now: &Now) {
        if let Some(host) = self.hosts.get_mut(host) {
            host.retry = Some(later(wait, now));
        }
    }

    /// The branch is at another commit, or the watch begins.
    pub fn look(&mut self, look: Look, begins: bool, now: &Now) -> Vec<Decision> {
        let commit = look.tip.commit.clone();
        let before = self.tip.replace(look.tip).map(|tip| tip.commit);
        let mut told = Vec::new();
        if let Some(before) = before.filter(|before| *before != commit) {
            if look.rewritten {
                told.push(Decision::Rewritten { commit: before.clone(), by: commit.clone() });
            }
            if self.unsettled {
                told.push(Decision::Overtaken { commit: before, by: commit.clone() });
            }
        }
        told.extend(look.passed.into_iter().map(|commit_| Decision::Overtaken { commit: commit_, by: commit.clone() }));
        self.unsettled = false;
        self.rollout = Rollout::default();
        self.hosts.values_mut().for_each(|host| host.behind = false);
        let known = self.held.iter().find(|held| held.commit == commit).map(|held| held.why.clone());
        if let Some(why) = look.refused.or_else(|| known.map(|why| format!("it was held before: {why}"))) {
            told.push(self.hold(commit, Vec::new(), why));
            return told;
        }
        let gone: Vec<String> = self.hosts.keys().filter(|id| !look.hosts.contains_key(*id)).cloned().collect();
        if !gone.is_empty() {
            gone.iter().for_each(|id| drop(self.hosts.remove(id)));
            told.push(Decision::Leave { hosts: gone, commit: Some(commit.clone()), why: "the roster has them no more".into() });
        }
        let mut same: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (id, wanted) in look.hosts {
            let host = self.hosts.entry(id.clone()).or_default();
            host.wanted.clone_from(&wanted);
            let as_before = host.has.as_ref().filter(|has| has.mark.is_some() && has.mark == wanted).map(|has| has.commit.clone());
            match as_before {
                Some(before) if host.doing.is_none() => {
                    host.has = Some(Version { commit: commit.clone(), mark: wanted });
                    if before != commit {
                        // What brought it there was another commit's.
                        (host.run, host.before, host.back) = (None, None, false);
                    }
                    if begins {
                        host.check = Some(Why::Start);
                    } else {
                        self.rollout.left += 1;
                        same.entry(before).or_default().push(id);
                    }
                }
                _ => {
                    host.behind = true;
                    self.rollout.open.insert(id);
                }
            }
        }
        for (before, hosts) in same {
            let why = format!("what is wanted of them is the same as at {}", short(&before));
            told.push(Decision::Leave { hosts, commit: Some(commit.clone()), why });
        }
        self.unsettled = !self.rollout.open.is_empty() || !begins;
        self.begin(&mut told, now);
        told
    }

    /// The work tree is another one; what the compiler makes of it.
    pub fn edit(&mut self, hosts: BTreeMap<String, Option<String>>, now: &Now) -> Vec<Decision> {
        let mut same = Vec::new();
        for (id, mark) in hosts {
            let host = self.hosts.entry(id.clone()).or_default();
            let shown = host.shown.as_ref().or(host.has.as_ref().and_then(|has| has.mark.as_ref()));
            if mark.is_some() && shown == mark.as_ref() {
                same.push(id);
                host.edit = None;
            } else {
                host.edit = Some(mark);
            }
        }
        let mut told = Vec::new();
        if !same.is_empty() {
            told.push(Decision::Leave { hosts: same, commit: None, why: "what is wanted of them is the same as before the edit".into() });
        }
        self.begin(&mut told, now);
        told
    }

    /// Hosts are to be looked at: the timer, a hint of drift, a host that came up.
    pub fn check(&mut self, hosts: &[String], why: Why, now: &Now) -> Vec<Decision> {
        for id in hosts {
            let Some(host) = self.hosts.get_mut(id) else { continue };
            host.check = Some(why);
            if why == Why::Up {
                host.retry = None;
            }
        }
        let mut told = Vec::new();
        self.begin(&mut told, now);
        told
    }

    /// Time has passed.
    pub fn tick(&mut self, now: &Now) -> Vec<Decision> {
        let mut told = Vec::new();
        self.begin(&mut told, now);
        told
    }

    /// When time alone makes a difference, on the clock of `Now::ticks`.
    pub fn wakes(&self) -> Option<Duration> {
        let due = |host: &&Host| host.doing.is_none() && (host.back || host.behind || host.check.is_some() || host.edit.is_some());
        self.hosts.values().filter(due).filter_map(|host| host.retry).filter(|at| *at != NEVER).min()
    }

    /// A task has come to its end.
    pub fn done(&mut self, id: &str, outcome: Outcome, now: &Now) -> Vec<Decision> {
        let mut told = Vec::new();
        let Some(host) = self.hosts.get_mut(id) else { return told };
        let Some(task) = host.doing.take() else { return told };
        let is_tip = task.commit.is_some() && task.commit == self.tip.as_ref().map(|tip| tip.commit.clone());
        let (plans, commit) = (task.act == Act::Plan, task.commit.clone().unwrap_or_default());
        match outcome {
            Outcome::Stopped => {}
            Outcome::Reached { .. } | Outcome::Shown { .. } => {
                host.retry = None;
                let (run, states, again, mark) = match outcome {
                    Outcome::Shown { states, again, mark } => (None, states, again, mark),
                    Outcome::Reached { run, mark } => (run, Vec::new(), false, mark),
                    _ => (None, Vec::new(), false, None),
                };
                let changed = run.is_some();
                if task.act == Act::TakeBack {
                    (host.has, host.run, host.back) = (host.before.take(), None, false);
                    told.push(Decision::TakenBack { host: id.to_owned(), commit, run: task.run.unwrap_or_default() });
                } else if task.commit.is_none() {
                    host.shown = mark;
                } else {
                    // A drift that was shown only leaves what the host was brought to.
                    if task.act != Act::Check || states.is_empty() {
                        let had = host.has.replace(Version { commit: commit.clone(), mark });
                        if task.act == Act::Apply {
                            // It may have failed elsewhere meanwhile.
                            host.back = changed && self.rules.take_back && self.held.iter().any(|held| held.commit == commit);
                            (host.run, host.before) = (run, had);
                        }
                    }
                    if !states.is_empty() {
                        let expected = plans && task.why == Why::Commit;
                        if !again && !expected {
                            told.push(Decision::Drift { host: id.to_owned(), commit, states });
                        }
                    } else if !plans {
                        told.push(Decision::Done { host: id.to_owned(), commit, changed, why: task.why });
                    }
                    if is_tip {
                        self.arrived(id);
                    }
                }
            }
            Outcome::Failed { why, taken_back } => {
                let why = if taken_back { format!("{why}; it was taken back") } else { why };
                match task.act {
                    Act::Apply => {
                        told.push(self.hold(commit.clone(), vec![id.to_owned()], why));
                        for host in self.hosts.values_mut().filter(|_| self.rules.take_back) {
                            host.back |= host.run.is_some() && host.has.as_ref().is_some_and(|has| has.commit == commit);
                        }
                    }
                    // It can be tried by hand; what it has stays known.
                    Act::TakeBack => {
                        host.back = false;
                        told.push(Decision::Leave { hosts: vec![id.to_owned()], commit: task.commit, why });
                    }
                    // Somebody may have shown a tree that cannot be.
                    _ => told.push(Decision::Leave { hosts: vec![id.to_owned()], commit: task.commit, why }),
                }
            }
            Outcome::Away { why, wait } => {
                host.retry = Some(later(wait, now));
                match task.act {
                    Act::TakeBack => {}
                    _ if task.commit.is_none() => host.edit = host.edit.take().or(Some(task.mark)),
                    Act::Check => host.check = host.check.or(Some(task.why)),
                    _ if is_tip => host.behind = true,
                    _ => {}
                }
                told.push(Decision::Retry { host: id.to_owned(), commit: task.commit, why, seconds: wait });
            }
        }
        self.begin(&mut told, now);
        told
    }

    /// A host has the tip.
    fn arrived(&mut self, id: &str) {
        if self.rollout.open.remove(id) {
            self.rollout.hosts += 1;
        }
    }

    fn hold(&mut self, commit: String, hosts: Vec<String>, why: String) -> Decision {
        if !self.held.iter().any(|held| held.commit == commit) {
            self.held.push(Held { commit: commit.clone(), why: why.clone() });
            let excess = self.held.len().saturating_sub(HELD);
            self.held.drain(..excess);
        }
        if self.is_tip(&commit) {
            self.unsettled = false;
            self.rollout = Rollout::default();
            self.hosts.values_mut().for_each(|host| host.behind = false);
        }
        Decision::Hold { commit, hosts, why }
    }

    fn is_tip(&self, commit: &str) -> bool {
        self.tip.as_ref().is_some_and(|tip| tip.commit == commit)
    }

    /// Gives every host that is free its turn, and says when the tip has come as far as it can.
    fn begin(&mut self, told: &mut Vec<Decision>, now: &Now) {
        let Some(tip) = self.tip.as_ref().map(|tip| tip.commit.clone()).filter(|_| !self.stopped) else { return };
        let held = self.held.iter().any(|held| held.commit == tip);
        let window = Window::state(&self.rules.windows, now.local);
        let mut waiting = Vec::new();
        for (id, host) in &mut self.hosts {
            if host.doing.is_some() || host.retry.is_some_and(|at| at > now.ticks) {
                continue;
            }
            let closed = self.rules.apply && window.is_some();
            let back = host.back.then(|| Some((host.has.as_ref()?.commit.clone(), host.run.clone()?))).flatten();
            let task = if let Some((commit, _)) = &back {
                Some((Some(commit.clone()), None, Act::TakeBack, Why::Commit))
            } else if host.behind && closed {
                if !std::mem::replace(&mut host.waits, true) {
                    waiting.push(id.clone());
                }
                None
            } else if host.behind {
                (host.behind, host.check, host.waits) = (false, None, false);
                let act = if self.rules.apply { Act::Apply } else { Act::Plan };
                Some((Some(tip.clone()), host.wanted.clone(), act, Why::Commit))
            } else {
                None
            };
            let task = task.or_else(|| {
                let mark = host.edit.take()?;
                Some((None, mark, Act::Plan, Why::Edit))
            });
            let task = task.or_else(|| {
                let why = host.check.take()?;
                // Where the tip is held, a host is what it was brought to before.
                let has = host.has.as_ref();
                let of = if held { Some((has?.commit.clone(), has?.mark.clone())) } else { Some((tip.clone(), host.wanted.clone())) };
                let (commit, mark) = of?;
                let act = if self.rules.apply && !closed { Act::Check } else { Act::Plan };
                Some((Some(commit), mark, act, why))
            });
            let Some((commit, mark, act, why)) = task else { continue };
            let run = back.map(|(_, run)| run);
            let task = Task { host: id.clone(), commit, mark, act, why, run };
            host.doing = Some(task.clone());
            told.push(Decision::Begin(task));
        }
        if let (false, Some((seconds, name))) = (waiting.is_empty(), window) {
            told.push(Decision::Wait { hosts: waiting, commit: tip.clone(), seconds, window: name });
        }
        let away =
            |id: &&String| self.hosts.get(*id).is_none_or(|host| host.doing.is_none() && host.retry.is_some_and(|at| at > now.ticks));
        if self.unsettled && !held && self.rollout.open.iter().all(|id| away(&id)) {
            self.unsettled = false;
            let away = self.rollout.open.iter().cloned().collect();
            told.push(Decision::Settled { commit: tip, hosts: self.rollout.hosts, left: self.rollout.left, away });
        }
    }
}

fn later(wait: Option<u64>, now: &Now) -> Duration {
    wait.map_or(NEVER, |seconds| now.ticks.saturating_add(Duration::from_secs(seconds)))
}

/// Of a commit, as people read it.
pub fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}
