//! Carries a plan out, exactly: checks that everything it stands on is as it was, writes down the way back, then gives each low its turn.
//!
//! A step sets what was planned and nothing else. Steps that had to stay unknown, and those whose requisites turned out otherwise than
//! planned (something failed), are decided at their turn by the same `Planner`. Changed is what differs from before the run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::aside::Aside;
use super::brought;
use super::command;
use super::condition::Commands;
use super::diff;
use super::history;
use super::keep;
use super::planner::{Decision, Deed, Plan, Planned, Planner, Turn, fate, owed_name};
use super::projection::{Projection, Reads, differs, same};
use super::protocol::{Applied, Body};
use super::prune;
use crate::diagnostic::{Code, Diagnostic, Error, Result};
use crate::function::Run;
use crate::object::{self, Progress};
use crate::plan::requisite::{Fate, Maybe, Status};
use crate::plan::{Change, Hash, Key, Kind, Low, Outcome, RequisiteKind, RunHeader, Tally, Verdict};
use crate::system::journal::Owed;
use crate::system::{Entry, System};
use crate::value::{Attrs, Value, gathered, those};

/// Reads again everything the plan stands on.
pub fn check(sys: &System, plan: &Plan) -> Result<()> {
    as_planned(sys, plan).map(|_| ())
}

fn as_planned(sys: &System, plan: &Plan) -> Result<Reads> {
    let (now, mut differ) = plan.reads.differences(sys)?;
    if sys.generation()? != plan.host.generation {
        differ.push("another run has been here".to_owned());
    }
    if differ.is_empty() {
        return Ok(now);
    }
    Err(Diagnostic::new(Code::Stale, "the host has changed since the plan was made").detail(differ.join("\n")).hint("plan again").into())
}

/// Carries a plan out. The host is locked for this run. An error is the end of the run as a whole; a state that fails is an outcome.
pub fn apply(sys: &System, plan: &Plan, header: &RunHeader, tell: &mut dyn FnMut(Body)) -> Result<Applied> {
    let reads = as_planned(sys, plan)?;
    sys.contents().fetch(&needed(plan))?;
    sys.begin(header)?;
    let commands = Commands::with(plan.grains.clone());
    let mut planner = Planner::new(&plan.lows, &plan.functions, Projection::new(sys), &commands, true, &plan.mask);
    planner.owed.clone_from(&plan.owed);
    planner.secret_keys = sys.standing()?.1;
    planner.expected = vec![Fate::SAME; plan.lows.len()];
    for turn in plan.turns.iter().filter(|turn| !turn.listens) {
        if let Some(expected) = planner.expected.get_mut(turn.low) {
            *expected = fate(&turn.decision);
        }
    }
    let mut runner = Runner {
        sys,
        plan,
        planner,
        commands: &commands,
        tell,
        shown: shown(plan),
        before: BTreeMap::new(),
        known: BTreeMap::new(),
        unseen: false,
        brought: Vec::new(),
        touched: Vec::new(),
        over: BTreeSet::new(),
        tally: Tally::default(),
        stopped: None,
    };
    runner.write_the_way_back(reads)?;
    runner.turns()?;
    runner.settle()?;
    let Runner { tally, stopped, .. } = runner;
    sys.end(tally, stopped.clone())?;
    Ok(Applied { tally, stopped, generation: sys.generation()? })
}

/// The contents that planned changes need.
fn needed(plan: &Plan) -> Vec<Hash> {
    let deeds = plan.turns.iter().filter_map(|turn| if let Decision::Do(deed) = &turn.decision { Some(deed) } else { None });
    let of = |deed: &Deed| -> Vec<Hash> {
        let contents = deed.changes.iter().filter_map(|c| c.to.get("content").and_then(Value::as_str)).map(|hash| Hash(hash.to_owned()));
        contents.chain(deed.run.iter().filter_map(|run| run.script.clone())).collect()
    };
    deeds.flat_map(of).collect()
}

fn shown(plan: &Plan) -> BTreeSet<(usize, bool)> {
    let of = |low: usize, listens: bool| plan.turns.iter().find(|turn| turn.low == low && turn.listens == listens);
    let acts = |turn: Option<&Turn>| turn.is_some_and(|turn| !matches!(turn.decision, Decision::Stay(_) | Decision::Test(_)));
    let both = plan.host.steps.iter().flat_map(|step| [(step.low, false), (step.low, true)]);
    gathered(both.filter(|(low, listens)| acts(of(*low, *listens)) || (!listens && !acts(of(*low, true)))))
}

struct Runner<'a> {
    sys: &'a System,
    plan: &'a Plan,
    planner: Planner<'a>,
    commands: &'a Commands,
    tell: &'a mut dyn FnMut(Body),
    /// Turns that the plan shows (low, and whether it is the one that listens), whose outcomes are told in any case.
    shown: BTreeSet<(usize, bool)>,
    /// What was there before the run; in the journal already.
    before: BTreeMap<Key, Attrs>,
    /// What this run last saw or reached of a key.
    known: BTreeMap<Key, Attrs>,
    /// Something ran that may have changed anything: commands, maintainer scripts, changes of users and services.
    unseen: bool,
    /// What packages' scripts brought besides them.
    brought: Vec<Key>,
    /// Paths that this run changed: what is below them may be another.
    touched: Vec<String>,
    /// Lows that have done all they had to.
    over: BTreeSet<usize>,
    tally: Tally,
    stopped: Option<String>,
}

/// What became of one attempt at a state.
struct Attempt {
    result: Verdict,
    changes: Vec<Change>,
    comment: String,
    /// For the lows that name this one.
    fate: Fate,
}

impl Attempt {
    fn new(result: Verdict, comment: impl Into<String>) -> Attempt {
        let failed = matches!(result, Verdict::Failed | Verdict::Skipped);
        let changes = if result == Verdict::Changed { Maybe::Yes } else { Maybe::No };
        Attempt { result, changes: Vec::new(), comment: comment.into(), fate: Fate { failed, changes, ran: result != Verdict::Skipped } }
    }

    fn fail(&mut self, comment: String) {
        self.result = Verdict::Failed;
        self.fate.failed = true;
        self.comment = comment;
    }
}

impl<'a> Runner<'a> {
    /// All before-images of the plan, and the reactions it makes necessary, in one write.
    fn write_the_way_back(&mut self, mut reads: Reads) -> Result<()> {
        let mut entries = Vec::new();
        let keys = secrets_in_place(self.plan);
        if !keys.is_subset(&self.planner.secret_keys) {
            entries.push(Entry::Secret { keys });
        }
        for turn in &self.plan.turns {
            let Some(low) = self.plan.lows.get(turn.low) else { continue };
            let reaction = match &turn.decision {
                Decision::Do(deed) => {
                    for change in &deed.changes {
                        self.way_back(low, change, &reads, &mut entries)?;
                    }
                    deed.run.as_ref().filter(|run| deed.reaction.is_some() && run.pretended.is_none())
                }
                Decision::Unknown { reaction, keys, .. } => {
                    // What a package or a command puts there before this state has its turn was not there before the run. (Which packages
                    // to keep is known only with what is wanted of them.)
                    for key in keys.iter().filter(|key| key.kind != Kind::Packages) {
                        let change = Planned { key: key.clone(), from: Attrs::new(), to: Attrs::new(), one_way: None };
                        self.way_back(low, &change, &reads, &mut entries)?;
                    }
                    reaction.as_ref()
                }
                _ => None,
            };
            entries.extend(reaction.map(|run| Entry::Owed(self.owed(low, run))));
        }
        // What this run owes stands apart from what it inherits, behind the first before-image.
        entries.sort_by_key(|entry| matches!(entry, Entry::Owed(_)));
        entries.extend(prune::forget(self.sys, &self.plan.forget));
        self.known = std::mem::take(&mut reads.keys);
        if entries.is_empty() {
            return Ok(());
        }
        self.sys.journal(&entries)
    }

    fn before_image(&self, low: &Low, change: &Planned, attrs: Attrs) -> Result<Entry> {
        let shown = self.planner.shown(&change.key).name;
        let shown = (shown != change.key.name).then_some(shown);
        let secret = self.planner.secret(low, change);
        let holds = attrs.values().any(|value| self.plan.mask.holds_in(value));
        let (attrs, kept) = match holds || (self.planner.secret_keys.contains(&change.key) && !diff::has_content(&change.key)) {
            true => (Attrs::new(), Some(keep::attrs(self.sys, &attrs)?)),
            false => (attrs, None),
        };
        Ok(Entry::Before { key: change.key.clone(), attrs, kept, secret, shown })
    }

    /// What a change reached, without the attributes that are secrets themselves.
    fn reached(&self, low: &Low, change: &Planned, mut attrs: Attrs) -> Entry {
        let secret = self.planner.stays_secret(low, change);
        if self.planner.secret_keys.contains(&change.key) {
            diff::without_texts(&change.key, &mut attrs);
        }
        attrs.retain(|_, value| !self.plan.mask.holds_in(value));
        Entry::After { key: change.key.clone(), attrs, secret }
    }

    /// Notes what a change reached, and what is made by it.
    fn note(&self, low: &Low, change: &Planned, after: Attrs) -> Result<()> {
        let Plan { mask, origin, .. } = self.plan;
        let before = self.before.get(&change.key);
        let made = before.and_then(|before| prune::note(self.sys, mask, origin, low, &change.key, before, &after));
        let entries: Vec<Entry> = std::iter::once(self.reached(low, change, after)).chain(made).collect();
        self.sys.journal(&entries)
    }

    /// The before-image of a key of the plan, where there is none yet.
    fn way_back(&mut self, low: &Low, change: &Planned, reads: &Reads, entries: &mut Vec<Entry>) -> Result<()> {
        let from = match reads.keys.get(&change.key) {
            Some(from) => from.clone(),
            // Never read before: what stands above it was planned to go.
            None => object::of(&change.key)?.read(self.sys)?,
        };
        self.keep_before(low, change, from, entries)
    }

    /// Makes what is there restorable, and notes it where it is the first image of its key.
    fn keep_before(&mut self, low: &Low, change: &Planned, from: Attrs, entries: &mut Vec<Entry>) -> Result<()> {
        object::of(&change.key)?.keep(self.sys, &from, &change.to)?;
        if self.before.insert(change.key.clone(), from.clone()).is_none() {
            entries.push(self.before_image(low, change, from)?);
        }
        Ok(())
    }

    fn owed(&self, low: &Low, run: &Run) -> Owed {
        Owed { what: owed_name(low, &self.plan.mask), shown: self.plan.mask.text(&run.shown) }
    }

    fn turns(&mut self) -> Result<()> {
        let plan = self.plan;
        for turn in plan.turns.iter().filter(|turn| !turn.listens) {
            if self.stop() {
                self.skip(turn)?;
                continue;
            }
            if matches!(turn.decision, Decision::Test(_)) {
                continue;
            }
            if self.tally.failed > 0 && plan.lows.get(turn.low).is_some_and(|low| low.state == prune::STATE) {
                self.done(turn.low, Instant::now(), Attempt::new(Verdict::Skipped, "not pruned, because a state failed"))?;
                continue;
            }
            let status = self.planner.status(turn.low);
            self.take(turn.low, Some(turn), status, false)?;
        }
        let listens = |low: &Low| low.requisites.iter().any(|r| r.kind == RequisiteKind::Listen);
        for (index, _) in plan.lows.iter().enumerate().filter(|(_, low)| listens(low)) {
            let planned = plan.turns.iter().find(|turn| turn.listens && turn.low == index);
            self.fresh();
            let now = self.planner.listen(index);
            match (now, planned) {
                (_, Some(turn)) if self.stop() => self.skip(turn)?,
                (None, _) => {}
                (Some((status, _)), planned) if !self.stop() => self.take(index, planned, status, true)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether nothing more is to be begun.
    fn stop(&mut self) -> bool {
        if self.stopped.is_none() && self.sys.cancelled() {
            self.stopped = Some("stopped by the user or because the controller went away".to_owned());
        }
        self.stopped.is_some()
    }

    /// A step that does not get its turn any more.
    fn skip(&mut self, turn: &Turn) -> Result<()> {
        match self.shown.contains(&(turn.low, turn.listens)) {
            true => self.done(turn.low, Instant::now(), Attempt::new(Verdict::Skipped, "not begun: the run was stopped")),
            false => Ok(()),
        }
    }

    /// Forgets what was read: a decision at this point looks for itself.
    fn fresh(&mut self) {
        self.commands.forget();
        self.planner.projection = Projection::new(self.sys);
    }

    fn decide(&mut self, low: usize, listens: bool) -> Result<Decision> {
        for _ in 0..8 {
            self.fresh();
            let decision = match listens {
                true => self.planner.listen(low).map_or(Decision::Stay(String::new()), |(_, decision)| decision),
                false => self.planner.decide(low).1,
            };
            let missing = self.planner.projection.take_missing();
            if missing.is_empty() {
                return Ok(decision);
            }
            if let Err(e) = self.sys.contents().fetch(&missing) {
                return Ok(Decision::Fail(e.summary.clone()));
            }
        }
        Ok(Decision::Fail("it asks for ever more contents".to_owned()))
    }

    /// A low's turn: once, or again as its `retry` says.
    fn take(&mut self, index: usize, planned: Option<&Turn>, status: Status, listens: bool) -> Result<()> {
        let Some(low) = self.plan.lows.get(index) else { return Ok(()) };
        let planned = planned.filter(|turn| as_expected(turn, &status));
        let mut decision = match planned.map(|turn| &turn.decision) {
            None | Some(Decision::Unknown { .. }) => self.decide(index, listens)?,
            // What the plan saw failing may have been put right by a command since.
            Some(Decision::Fail(_)) if self.unseen => self.decide(index, listens)?,
            Some(decision) => decision.clone(),
        };
        let quiet = planned.is_some() && matches!(decision, Decision::Stay(_)) && !self.shown.contains(&(index, listens));
        // Some ask before the file is in place.
        let checks = !low.control.check_cmd.is_empty() && runs(&status) && !checks_new_file(low);
        if quiet && !checks {
            // A low that listens counts with its turn at the end.
            self.tally.ok += usize::from(!self.shown.contains(&(index, true)));
            self.settle_fate(index, Fate::SAME);
            self.over(index, low, listens);
            return Ok(());
        }
        (self.tell)(Body::Started { low: index });
        let begun = Instant::now();
        let mut comments = Vec::new();
        let retry = low.control.retry.as_ref();
        let (mut attempts, mut earlier) = (1, Vec::new());
        let mut attempt = loop {
            let described =
                planned.filter(|turn| attempts == 1 && matches!(turn.decision, Decision::Do(_))).map(|turn| turn.changes.as_slice());
            let mut attempt = self.attempt(index, low, &decision, described)?;
            if checks && attempt.result != Verdict::Skipped {
                self.check_commands(low, &mut attempt)?;
            }
            let again = retry.filter(|r| attempts < r.attempts && r.until == attempt.fate.failed && attempt.result != Verdict::Skipped);
            let Some(retry) = again.filter(|_| !self.sys.cancelled()) else { break attempt };
            comments.push(format!("Attempt {attempts}: {}", attempt.comment));
            earlier.append(&mut attempt.changes);
            attempts += 1;
            self.pause(retry.interval, retry.splay);
            decision = self.decide(index, listens)?;
        };
        if !comments.is_empty() {
            comments.push(attempt.comment);
            attempt.comment = comments.join("\n");
            earlier.retain(|change| !attempt.changes.iter().any(|c| c.key == change.key));
            attempt.changes.splice(..0, earlier);
            if !attempt.changes.is_empty() && attempt.result == Verdict::Ok {
                attempt.result = Verdict::Changed;
                attempt.fate.changes = Maybe::Yes;
            }
        }
        if !listens {
            self.settle_fate(index, attempt.fate);
        }
        if attempt.fate.failed && low.control.failhard {
            self.stopped = Some(self.plan.mask.text(&format!("{}.{} failed and is marked failhard", low.sls, low.id)));
        }
        if !attempt.fate.failed {
            self.over(index, low, listens);
        }
        self.done(index, begun, attempt)
    }

    /// A low has done what it had to: nothing is owed of it. One that listens has not before the end.
    fn over(&mut self, index: usize, low: &Low, listens: bool) {
        if listens || !low.requisites.iter().any(|r| r.kind == RequisiteKind::Listen) {
            self.over.insert(index);
        }
    }

    fn settle_fate(&mut self, low: usize, fate: Fate) {
        if let Some(slot) = self.planner.fates.get_mut(low) {
            *slot = Some(fate);
        }
    }

    /// Waits before another attempt; a cancelled run does not wait.
    fn pause(&self, interval: u32, splay: u32) {
        let random = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
        let seconds = u64::from(interval) + u64::from(random) % (u64::from(splay) + 1);
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end && !self.sys.cancelled() {
            std::thread::sleep(Duration::from_millis(100).min(end.saturating_duration_since(Instant::now())));
        }
    }

    fn done(&mut self, low: usize, begun: Instant, attempt: Attempt) -> Result<()> {
        let Attempt { result, changes, comment, .. } = attempt;
        let comment = self.plan.mask.text(&comment);
        let outcome = Outcome { low, result, changes, duration_ms: begun.elapsed().as_millis() as u64, comment };
        history::count(&mut self.tally, &outcome);
        self.sys.journal(&[Entry::Outcome(outcome.clone())])?;
        (self.tell)(Body::Done(outcome));
        Ok(())
    }

    fn attempt(&mut self, index: usize, low: &Low, decision: &Decision, described: Option<&[Change]>) -> Result<Attempt> {
        match decision {
            Decision::Stay(comment) => Ok(Attempt::new(Verdict::Ok, comment.clone())),
            Decision::Test(_) => Ok(Attempt::new(Verdict::Ok, "")),
            Decision::Fail(comment) => Ok(Attempt::new(Verdict::Failed, comment.clone())),
            Decision::Skip(comment) => Ok(Attempt::new(Verdict::Skipped, comment.clone())),
            Decision::Unknown { why, .. } => Ok(Attempt::new(Verdict::Failed, format!("still unknown at its turn: {why}"))),
            Decision::Do(deed) => {
                let described = match described {
                    Some(described) => described.to_vec(),
                    None => self.announce(index, low, deed)?,
                };
                self.deed(index, low, deed, &described)
            }
        }
    }

    /// For a step decided at its turn: how its changes look, and their before-images where there are none yet.
    fn announce(&mut self, index: usize, low: &Low, deed: &Deed) -> Result<Vec<Change>> {
        let described = self.planner.describe(index, &deed.changes)?;
        // A diff is worth no exchange of its own.
        self.planner.projection.take_missing();
        let mut entries = Vec::new();
        for change in &deed.changes {
            if self.before.contains_key(&change.key) {
                continue;
            }
            let now = object::of(&change.key)?.read(self.sys)?;
            self.known.insert(change.key.clone(), now.clone());
            self.keep_before(low, change, now, &mut entries)?;
        }
        if !entries.is_empty() {
            self.sys.journal(&entries)?;
        }
        Ok(described)
    }

    fn deed(&mut self, index: usize, low: &Low, deed: &Deed, described: &[Change]) -> Result<Attempt> {
        let mut attempt = Attempt::new(Verdict::Ok, "");
        for (change, described) in deed.changes.iter().zip(described) {
            match self.reach(index, low, change) {
                Ok(false) => {}
                Ok(true) => {
                    attempt.changes.push(described.clone());
                    attempt.result = Verdict::Changed;
                    attempt.fate.changes = Maybe::Yes;
                }
                Err(e) if e.code == Code::Interrupted && !self.sys.cancelled() => return Err(e),
                Err(e) => {
                    attempt.changes.push(described.clone());
                    attempt.fail(said(&e));
                    return Ok(attempt);
                }
            }
        }
        if let Some(run) = &deed.run {
            self.run(low, run, &mut attempt)?;
            if deed.reaction.is_some() && attempt.result != Verdict::Failed {
                self.sys.journal(&[Entry::Paid { what: owed_name(low, &self.plan.mask) }])?;
            }
        }
        Ok(attempt)
    }

    /// Brings one object to what is planned. Whether it differs from before the run now.
    fn reach(&mut self, index: usize, low: &Low, change: &Planned) -> Result<bool> {
        let key = &change.key;
        let object = object::of(key)?;
        let now = object.read(self.sys)?;
        let before = self.before.get(key).cloned().unwrap_or_default();
        if !differs(&now, &change.to) {
            self.known.insert(key.clone(), now.clone());
            if differs(&before, &change.to) {
                self.note(low, change, now)?;
                return Ok(true);
            }
            return Ok(false);
        }
        if !self.explained(key, &now) {
            let mut names: Vec<&String> = now.keys().chain(change.from.keys()).filter(|n| now.get(*n) != change.from.get(*n)).collect();
            names.dedup();
            let what = names.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(Diagnostic::new(Code::Failed, format!("diverged from the plan: {key} changed during the run ({what})")).into());
        }
        self.check_new_file(low, change)?;
        if low.state == prune::STATE
            && now.get("kind").and_then(Value::as_str) == Some("directory")
            && !self.sys.list(&key.name)?.is_empty()
        {
            return Err(Diagnostic::new(Code::Failed, format!("{} is not empty any more", key.name)).into());
        }
        let to = self.with_neighbours(index, change);
        let aside = if key.kind == Kind::Packages { Some(Aside::look(self.sys, &now, &mut self.before)?) } else { None };
        let tell = &mut *self.tell;
        let mask = &self.plan.mask;
        let mut say = |line: &str| tell(Body::Line { text: mask.text(line), error: false });
        let mut reached = object.set(self.sys, &now, &to, &mut Progress::new(&mut say));
        // What failed may be a neighbour's: this state's part is there already, or is tried without it.
        if to != change.to && reached.as_ref().is_err_and(|e| e.code == Code::Failed) && !self.sys.cancelled() {
            let there = object.read(self.sys)?;
            reached = match differs(&there, &change.to) {
                true => object.set(self.sys, &there, &change.to, &mut Progress::new(&mut say)),
                false => Ok(there),
            };
        }
        if let Some(aside) = aside {
            let brought = aside.note(self.sys, key, &mut self.before, &self.plan.mask)?;
            self.brought.extend(brought);
        }
        if key.kind == Kind::Mount {
            // What is seen there from now on is another filesystem's: it has before-images of its own.
            let below = |path: &str| {
                path == key.name || path.strip_prefix(key.name.trim_end_matches('/')).is_some_and(|rest| rest.starts_with('/'))
            };
            self.before.retain(|other, _| other.kind != Kind::File || !below(&other.name));
        }
        if key.kind == Kind::File {
            self.touched.push(key.name.clone());
        } else {
            self.unseen = true;
        }
        let after = match &reached {
            Ok(after) => after.clone(),
            // It may have stopped half-way.
            Err(_) => object.read(self.sys).unwrap_or_else(|_| now.clone()),
        };
        self.known.insert(key.clone(), after.clone());
        if reached.is_ok() || !same(&after, &now) {
            self.note(low, change, after)?;
        }
        reached.map(|_| true)
    }

    /// Whether what is there now is what this run left, or what one of its earlier steps can have made of it.
    fn explained(&self, key: &Key, now: &Attrs) -> bool {
        let below = |touched: &String| key.name.strip_prefix(touched.as_str()).is_some_and(|rest| rest.starts_with('/'));
        self.unseen
            || (key.kind != Kind::File && !self.touched.is_empty())
            || self.known.get(key).is_none_or(|known| same(known, now))
            || (key.kind == Kind::File && self.touched.iter().any(below))
    }

    /// Package changes of the steps right behind this one, between which nothing has to happen, go into one transaction.
    fn with_neighbours(&self, index: usize, change: &Planned) -> Attrs {
        let mut to = change.to.clone();
        if change.key.kind != Kind::Packages {
            return to;
        }
        for turn in self.plan.turns.iter().filter(|turn| !turn.listens && turn.low > index) {
            let Decision::Do(deed) = &turn.decision else { continue };
            let Some(low) = self.plan.lows.get(turn.low).filter(|low| low.state != prune::STATE) else { break };
            let waits = low.requisites.iter().filter(|r| r.kind != RequisiteKind::Listen).flat_map(|r| r.of.iter()).any(|of| of >= index);
            let [other] = deed.changes.as_slice() else { break };
            let how = |to: &Attrs| those(to, |name, _| name.starts_with('@') && !name.contains(':'));
            if waits || other.key != change.key || deed.run.is_some() || how(&to) != how(&other.to) {
                break;
            }
            to.extend(other.to.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        to
    }

    /// `check_cmd` of file.managed and file.serialize judges the new file before it is in place.
    fn check_new_file(&mut self, low: &Low, change: &Planned) -> Result<()> {
        let content = change.to.get("content").and_then(Value::as_str);
        let Some(content) = content.filter(|_| checks_new_file(low) && low.name == change.key.name) else { return Ok(()) };
        for line in &low.control.check_cmd {
            let run = command::check_of_file(low, line, &Hash(content.to_owned()))?;
            let output = command::run(self.sys, &run, &self.plan.mask, self.tell)?;
            if !output.success() {
                let text = [output.text(), String::from_utf8_lossy(&output.stderr).trim_end().to_owned()].concat();
                return Err(Diagnostic::new(Code::Failed, format!("check_cmd execution failed: {line}")).detail(text).into());
            }
        }
        Ok(())
    }

    fn run(&mut self, low: &Low, run: &Run, attempt: &mut Attempt) -> Result<()> {
        if run.pretended.is_none() {
            let mask = &self.plan.mask;
            self.sys.journal(&[Entry::Ran {
                shown: mask.text(&run.shown),
                // What nobody runs again need not be kept.
                command: keep::command(self.sys, &run.command, mask, run.again)?,
                again: run.again,
                undo: run.undo.as_ref().map(|undo| keep::command(self.sys, undo, mask, true)).transpose()?,
                one_way: run.one_way.clone(),
            }])?;
            self.sys.mutating(&format!("run for {}", low.id))?;
            self.unseen = true;
        }
        match command::run(self.sys, run, &self.plan.mask, self.tell) {
            Ok(output) => {
                let end = command::judge(run, &output);
                attempt.fate.changes = if end.changed || !attempt.changes.is_empty() { Maybe::Yes } else { Maybe::No };
                attempt.comment = end.comment;
                match (end.success, attempt.fate.changes) {
                    (false, _) => {
                        attempt.result = Verdict::Failed;
                        attempt.fate.failed = true;
                    }
                    (true, Maybe::Yes) => attempt.result = Verdict::Changed,
                    (true, _) => attempt.result = Verdict::Ok,
                }
                Ok(())
            }
            Err(e) if e.code == Code::Interrupted && !self.sys.cancelled() => Err(e),
            Err(e) => {
                attempt.fail(said(&e));
                Ok(())
            }
        }
    }

    /// `check_cmd` decides whether the state succeeded.
    fn check_commands(&mut self, low: &Low, attempt: &mut Attempt) -> Result<()> {
        for line in &low.control.check_cmd {
            let output = command::run(self.sys, &command::check(line), &self.plan.mask, self.tell);
            if !output.is_ok_and(|output| output.success()) {
                attempt.fail("check_cmd determined the state failed".to_owned());
                return Ok(());
            }
        }
        attempt.fate.failed = false;
        if attempt.result == Verdict::Failed {
            attempt.result = if attempt.fate.changes == Maybe::Yes { Verdict::Changed } else { Verdict::Ok };
        }
        attempt.comment = "check_cmd determined the state succeeded".to_owned();
        Ok(())
    }

    /// What is owed of lows that have done all they had to, or whose change did not come, is owed no more.
    fn settle(&mut self) -> Result<()> {
        let owed: BTreeSet<String> = self.sys.owed()?.into_iter().map(|o| o.what).collect();
        let mut entries = Vec::new();
        for (index, low) in self.plan.lows.iter().enumerate().filter(|_| !owed.is_empty()) {
            let what = owed_name(low, &self.plan.mask);
            if owed.contains(&what) && (self.over.contains(&index) || !self.must_react(low, &what)) {
                entries.push(Entry::Paid { what });
            }
        }
        // Later states work in what packages brought: as it is now the run leaves it.
        for key in &self.brought {
            entries.push(Entry::After { key: key.clone(), attrs: brought::read(self.sys, &key.name)?, secret: false });
        }
        if entries.is_empty() { Ok(()) } else { self.sys.journal(&entries) }
    }

    /// Whether something that a low watches has changed, in this run or an earlier one.
    fn must_react(&self, low: &Low, what: &str) -> bool {
        let reacts = |kind: RequisiteKind| matches!(kind, RequisiteKind::Watch | RequisiteKind::Listen);
        let mut of = low.requisites.iter().filter(|r| reacts(r.kind)).flat_map(|r| r.of.iter());
        let changed = |of: usize| self.planner.fates.get(of).copied().flatten().is_some_and(|fate| fate.changes == Maybe::Yes);
        self.plan.owed.iter().any(|(older, _)| older == what) || of.any(changed)
    }
}

/// Whether a state's `check_cmd` is asked about the new file, before it is in place.
fn checks_new_file(low: &Low) -> bool {
    ["file.managed", "file.serialize"].contains(&low.function().as_str())
}

/// The files in which a secret is as it is wanted: it may be another one day, and then this one is nobody's any more.
fn secrets_in_place(plan: &Plan) -> BTreeSet<Key> {
    let secret = plan.lows.iter().flat_map(|low| low.contents.iter().filter(|content| content.secret).map(move |content| (low, content)));
    let paths = secret.flat_map(|(low, content)| [low.name.clone(), format!("{}/{}", low.name.trim_end_matches('/'), content.name)]);
    let there = |key: &Key| plan.reads.keys.get(key).is_some_and(|attrs| attrs.contains_key("content"));
    gathered(paths.map(|path| Key::new(Kind::File, path)).filter(there))
}

/// Whether requisites let a state run.
fn runs(status: &Status) -> bool {
    matches!(status, Status::Met | Status::Changed(_) | Status::MayChange(_))
}

/// Whether what a step's requisites say now leaves the planned decision as right as it was.
fn as_expected(turn: &Turn, now: &Status) -> bool {
    let by_itself = matches!(&turn.decision, Decision::Do(deed) if deed.reaction.is_none());
    if by_itself && runs(&turn.status) {
        return runs(now);
    }
    let owed = matches!(&turn.decision, Decision::Do(deed) if deed.reaction.as_ref().is_some_and(|cause| cause.starts_with("owed ")));
    (owed && runs(now)) || std::mem::discriminant(&turn.status) == std::mem::discriminant(now)
}

/// An error as a state's comment.
fn said(error: &Error) -> String {
    if error.detail.is_empty() { error.summary.clone() } else { format!("{}\n{}", error.summary, error.detail) }
}
