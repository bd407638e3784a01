//! From lows to a plan: what each state wants, seen from what is there with every earlier change laid over it.
//!
//! A pass goes through the lows in order and touches nothing. Where it meets contents that only the controller has it goes on; they
//! are fetched in one exchange and it passes again, with what it has read already. The runner decides steps that had to stay
//! unknown with the same `Planner`, at their turn.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::condition::{self, Asker, Commands};
use super::diff;
use super::guard;
use super::history;
use super::projection::{Projection, Reads, View, differs, laid_over, telling};
use super::protocol::PlanRequest;
use super::prune;
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::function::{self, Function, Run, Want};
use crate::object;
use crate::plan::requisite::{self, Fate, Maybe, Status};
use crate::plan::{Action, Change, Hash, HostPlan, Key, Kind, Low, RequisiteKind, Step};
use crate::secret::Mask;
use crate::system::journal::Owed;
use crate::system::{Entry, Made, System};
use crate::value::{Attrs, Map, Value, gathered, those};

/// A plan as the agent keeps it between `plan` and `apply`.
pub struct Plan {
    pub lows: Vec<Low>,
    pub functions: Vec<Box<dyn Function>>,
    pub turns: Vec<Turn>,
    pub reads: Reads,
    pub mask: Mask,
    pub host: HostPlan,
    pub owed: Vec<Debt>,
    /// What the controller lays over the host's grains.
    pub grains: Map,
    /// Whose things the run makes.
    pub origin: String,
    /// Made once, and gone.
    pub forget: Vec<Made>,
}

/// What happens when a low's turn comes. A low that listens may have a second turn at the end.
#[derive(Clone, Debug)]
pub struct Turn {
    pub low: usize,
    pub listens: bool,
    /// What its requisites said when it was planned.
    pub status: Status,
    pub decision: Decision,
    pub changes: Vec<Change>,
}

#[derive(Clone, Debug)]
pub enum Decision {
    /// It stays: as described already, or the comment says what keeps it.
    Stay(String),
    Do(Deed),
    /// Known after these lows.
    Unknown {
        why: String,
        waits_for: Vec<usize>,
        keys: Vec<Key>,
        /// What it runs if what it watches changes: owed from the start of the run.
        reaction: Option<Box<Run>>,
    },
    /// It would fail.
    Fail(String),
    /// A requisite would fail.
    Skip(String),
    /// The test run that a `prereq` asked for, and what it says.
    Test(Fate),
}

/// What a step does.
#[derive(Clone, Debug, Default)]
pub struct Deed {
    pub changes: Vec<Planned>,
    pub run: Option<Box<Run>>,
    /// It reacts to this change of something it watches or listens to.
    pub reaction: Option<String>,
}

/// One object's planned change.
#[derive(Clone, Debug)]
pub struct Planned {
    pub key: Key,
    /// What will be there at its turn.
    pub from: Attrs,
    /// Only what is wanted; empty: absent.
    pub to: Attrs,
    pub one_way: Option<String>,
}

/// Plans `request` on a host. Nothing is changed there.
pub fn plan(sys: &System, request: PlanRequest) -> Result<Plan> {
    let mask = Mask::new(&request.secrets);
    plan_masked(sys, request, &mask).map_err(|fault| mask.diagnostic(*fault).into())
}

fn plan_masked(sys: &System, mut request: PlanRequest, mask: &Mask) -> Result<Plan> {
    let count = request.lows.len();
    if request.lows.iter().flat_map(|low| &low.requisites).any(|requisite| !requisite.of.are_below(count)) {
        return Err(Diagnostic::new(Code::Damaged, "a requisite names a state that is not there").into());
    }
    let mut functions = parse(&request.lows)?;
    let (mut prune, mut forget, mut left) = (request.prune, Vec::new(), Vec::new());
    let commands = Commands::with(request.grains.clone());
    let (owed, secret_keys) = sys.standing()?;
    let owed = debts(sys, owed)?;
    let mut projection = Projection::new(sys);
    let mut fetched: Vec<Hash> = Vec::new();
    let (turns, reads) = loop {
        let mut planner = Planner::new(&request.lows, &functions, projection, &commands, request.commands, mask);
        planner.owed.clone_from(&owed);
        planner.secret_keys.clone_from(&secret_keys);
        let turns = planner.pass()?;
        let missing = planner.projection.take_missing();
        if missing.is_empty() {
            let Some(how) = prune.take() else { break (turns, planner.projection.reads()) };
            let mut leaving = prune::leaving(&planner, &request.lows, &functions, &turns, &request.origin, how)?;
            projection = Projection::over(sys, planner.projection.reads());
            for (low, function) in leaving.states() {
                request.lows.push(low);
                functions.push(function);
            }
            (left, forget) = (leaving.notices, leaving.forget);
            continue;
        }
        if let Some(hash) = missing.iter().find(|hash| fetched.contains(hash)) {
            return Err(Diagnostic::new(Code::Damaged, format!("the content {hash} was fetched and is not there")).into());
        }
        sys.contents().fetch(&missing)?;
        fetched.extend(missing);
        projection = Projection::over(sys, planner.projection.reads());
    };
    let turns = prune::without_stays(&request.lows, turns, &mut left);
    let steps: Vec<Step> = turns.iter().filter_map(|turn| step(&request.lows, turn, &turns, mask)).collect();
    let shown: BTreeSet<usize> = gathered(steps.iter().map(|step| step.low));
    let mut host = HostPlan {
        unchanged: turns.iter().filter(|t| !t.listens && matches!(t.decision, Decision::Stay(_)) && !shown.contains(&t.low)).count(),
        fingerprint: fingerprint(&request, &steps, &turns, &reads, &commands.list())?,
        steps,
        generation: sys.generation()?,
        commands: request.ran.iter().map(|line| mask.text(line)).chain(commands.list().iter().map(|(line, _)| mask.text(line))).collect(),
        notices: history::notices(sys)?.iter().chain(&left).map(|notice| mask.text(notice)).collect(),
    };
    guard::mark_steps(sys, &request.lows, &turns, &mut host.steps);
    let origin = request.origin;
    Ok(Plan { origin, forget, lows: request.lows, functions, turns, reads, mask: mask.clone(), host, owed, grains: commands.grains })
}

/// The functions of the lows; everything wrong with them in one error.
fn parse(lows: &[Low]) -> Result<Vec<Box<dyn Function>>> {
    let mut wrong = function::args::check(lows);
    let mut functions = Vec::new();
    if wrong.is_empty() {
        for low in lows {
            match function::find(&low.function()).map(|entry| (entry.parse)(low)) {
                Some(Ok(function)) => functions.push(function),
                Some(Err(e)) => wrong.push(*e),
                None => {}
            }
        }
    }
    let mut wrong = wrong.into_iter();
    match wrong.next() {
        None => Ok(functions),
        Some(first) => {
            let others: Vec<String> = wrong.map(|d| d.to_string()).collect();
            let detail = [vec![first.detail.clone()], others].concat().join("\n");
            Err(first.detail(detail.trim()).into())
        }
    }
}

/// A reaction that an earlier run still owes, by its name, and since which run.
pub type Debt = (String, String);

fn debts(sys: &System, owed: Vec<Owed>) -> Result<Vec<Debt>> {
    if owed.is_empty() {
        return Ok(Vec::new());
    }
    let mut since = BTreeMap::new();
    let mut open: BTreeSet<String> = owed.iter().map(|o| o.what.clone()).collect();
    for run in sys.runs()? {
        let Ok(journal) = sys.read_journal(&run.header.id) else { break };
        let what = |entry: &Entry| if let Entry::Owed(owed) = entry { Some(owed.what.clone()) } else { None };
        // Each run begins with what was owed then: the newest that does not is the one that made it necessary.
        let inherited: BTreeSet<String> = journal.entries.iter().skip(1).map_while(what).collect();
        since.extend(open.iter().map(|what| (what.clone(), format!("since run {}", run.header.id))));
        open.retain(|what| inherited.contains(what));
        if open.is_empty() {
            break;
        }
    }
    Ok(owed.into_iter().map(|o| (o.what.clone(), since.remove(&o.what).unwrap_or_default())).collect())
}

/// What names a reaction in the journal's list of what is owed.
pub fn owed_name(low: &Low, mask: &Mask) -> String {
    mask.text(&format!("{}: {} ({})", low.state, low.id, low.name))
}

pub struct Planner<'a> {
    lows: &'a [Low],
    functions: &'a [Box<dyn Function>],
    pub projection: Projection<'a>,
    commands: &'a Commands,
    permitted: bool,
    mask: &'a Mask,
    /// Names of files that a state does not want to be seen.
    hidden: BTreeSet<&'a str>,
    /// Things in which an earlier run left a secret, which may be another than today's.
    pub secret_keys: BTreeSet<Key>,
    /// By low; lows that have not had their turn have none.
    pub fates: Vec<Option<Fate>>,
    /// Reactions that an earlier run still owes, and since when.
    pub owed: Vec<Debt>,
    /// At apply: what the plan expected of each low, which is what a `prereq` goes by.
    pub expected: Vec<Fate>,
}

impl<'a> Planner<'a> {
    pub fn new(
        lows: &'a [Low],
        functions: &'a [Box<dyn Function>],
        projection: Projection<'a>,
        commands: &'a Commands,
        permitted: bool,
        mask: &'a Mask,
    ) -> Planner<'a> {
        let itself = |low: &Low| diff::hidden(low, &Key::new(Kind::File, low.name.as_str()));
        let hidden = gathered(lows.iter().filter(|low| itself(low)).map(|low| low.name.as_str()));
        let fates = vec![None; lows.len()];
        let (owed, expected, secret_keys) = Default::default();
        Planner { lows, functions, projection, commands, permitted, mask, hidden, secret_keys, fates, owed, expected }
    }

    fn pass(&mut self) -> Result<Vec<Turn>> {
        let tests = test_runs(self.lows);
        let mut turns = Vec::new();
        for low in 0..self.lows.len() {
            let (status, mut decision) = self.decide(low);
            let fate = fate(&decision);
            if tests.contains(&low) {
                decision = Decision::Test(fate);
            }
            if let Some(slot) = self.fates.get_mut(low) {
                *slot = Some(fate);
            }
            turns.push(self.turn(Turn { low, listens: false, status, decision, changes: Vec::new() }, turns.len())?);
        }
        for low in 0..self.lows.len() {
            if let Some((status, decision)) = self.listen(low) {
                turns.push(self.turn(Turn { low, listens: true, status, decision, changes: Vec::new() }, turns.len())?);
            }
        }
        Ok(turns)
    }

    /// Describes what a decision changes, and lays it over what is there.
    fn turn(&mut self, mut turn: Turn, number: usize) -> Result<Turn> {
        match &turn.decision {
            Decision::Do(deed) => {
                turn.changes = self.describe(turn.low, &deed.changes)?;
                for change in &deed.changes {
                    self.projection.lay(&change.key, &change.to, number)?;
                    // Where only options change, the same filesystem stays.
                    let has = |name: &str| change.to.contains_key(name);
                    let other = change.from.is_empty() || change.to.is_empty() || (has("source") && !has("again"));
                    let fresh = match change.key.kind {
                        Kind::Mount if other => Some(change.to.get("fresh").is_some_and(Value::truthy)),
                        // A new subvolume is empty; a snapshot is not, and what stands where one is deleted is known when it is.
                        Kind::Subvolume if change.from.is_empty() != change.to.is_empty() => Some(!change.to.is_empty() && !has("source")),
                        _ => None,
                    };
                    if let Some(fresh) = fresh {
                        self.projection.cover(&change.key.name, fresh, turn.low, number);
                    }
                }
                self.projection.will_change(turn.low);
                let scripts = deed.changes.iter().any(|c| c.key.kind == Kind::Packages);
                if scripts || deed.run.as_ref().is_some_and(|run| run.one_way.is_some() || run.undo.is_some()) {
                    self.projection.unseen_from(number, turn.low);
                }
            }
            Decision::Unknown { keys, .. } => {
                // What is above a mount is looked at on the way to what it covers, and not changed.
                let own = |key: &&Key| self.lows.get(turn.low).is_some_and(|low| low.name == key.name);
                let keys: Vec<Key> = keys.iter().filter(|key| own(key) || !self.projection.above_cover(key)).cloned().collect();
                self.projection.doubt(&keys, turn.low);
                self.projection.will_change(turn.low);
                self.projection.unseen_from(number, turn.low);
            }
            _ => {}
        }
        Ok(turn)
    }

    /// Planned changes as they are shown.
    pub fn describe(&self, low: usize, changes: &[Planned]) -> Result<Vec<Change>> {
        let Some(low) = self.lows.get(low) else { return Ok(Vec::new()) };
        let mask = self.mask;
        changes
            .iter()
            .map(|change| {
                // What is secret now is masked wherever it stands; an older one nobody knows.
                let secret = if diff::has_content(&change.key) { self.secret(low, change) } else { self.secret_keys.contains(&change.key) };
                let object = object::of(&change.key)?;
                let after = laid_over(&change.from, &change.to);
                let wanted = those(&telling(&change.to), |name, value| change.from.get(name) != Some(value));
                let gone = those(&telling(&change.from), |name, _| change.to.is_empty() || wanted.contains_key(name));
                Ok(Change {
                    action: action(&change.from, &after),
                    before: diff::masked(mask, &change.key, &gone, secret),
                    after: diff::masked(mask, &change.key, &wanted, secret),
                    diff: match low.state == prune::STATE && change.from.get("kind").and_then(Value::as_str) == Some("directory") {
                        true => "empty by then\n".to_owned(),
                        false => diff::describe(&self.projection, &*object, low, &change.from, &change.to, mask, secret)?,
                    },
                    one_way: change.one_way.as_deref().map(|why| mask.text(why)),
                    key: self.shown(&change.key),
                })
            })
            .collect()
    }

    /// Whether a change is not to be seen: this state says so, or another that makes the same file, or it holds a secret, or it held one.
    pub fn secret(&self, low: &Low, change: &Planned) -> bool {
        let key = &change.key;
        let said = diff::hidden(low, key) || (key.kind == Kind::File && self.hidden.contains(key.name.as_str()));
        said || self.secret_keys.contains(key)
            || [&change.from, &change.to].into_iter().any(|attrs| diff::holds_secret(&self.projection, low, attrs, self.mask))
    }

    /// Whether a secret is in the thing when the change is made.
    pub fn stays_secret(&self, low: &Low, change: &Planned) -> bool {
        let to = laid_over(&change.from, &change.to);
        let untouched = !change.to.is_empty() && !change.to.contains_key("content") && self.secret_keys.contains(&change.key);
        !to.is_empty() && (untouched || diff::secret(low, &change.key) || diff::holds_secret(&self.projection, low, &to, self.mask))
    }

    /// A key as it may be shown.
    pub fn shown(&self, key: &Key) -> Key {
        Key::new(key.kind, self.mask.text(&key.name))
    }

    fn fate(&self, low: usize) -> Fate {
        self.fates.get(low).copied().flatten().unwrap_or(Fate::SAME)
    }

    /// What a test run of a low says, for `prereq`.
    fn test(&self, low: usize) -> Fate {
        if let Some(expected) = self.expected.get(low).filter(|fate| fate.changes != Maybe::Unknown) {
            return *expected;
        }
        match self.fates.get(low) {
            Some(None) => fate(&self.decide_without_prereq(low).1),
            _ => self.fate(low),
        }
    }

    /// What the requisites of a low say now.
    pub fn status(&self, index: usize) -> Status {
        match self.lows.get(index) {
            Some(low) => requisite::status(low, &|i| self.fate(i), &|i| self.test(i)),
            None => Status::Met,
        }
    }

    /// What a low does at its turn.
    pub fn decide(&self, index: usize) -> (Status, Decision) {
        let status = self.status(index);
        let decision = self.decide_with(index, &status);
        (status, decision)
    }

    /// For test runs, so that a `prereq` on a `prereq` comes to an end.
    fn decide_without_prereq(&self, index: usize) -> (Status, Decision) {
        let decision = self.decide_with(index, &Status::Met);
        (Status::Met, decision)
    }

    fn decide_with(&self, index: usize, status: &Status) -> Decision {
        let (Some(low), Some(function)) = (self.lows.get(index), self.functions.get(index)) else { return Decision::Stay(String::new()) };
        match status {
            Status::Failed(of) => return Decision::Skip(format!("One or more requisite failed: {}", self.names(of))),
            Status::Stays(why) => return Decision::Stay(format!("not run: {why}")),
            Status::IfFails(of) => return Decision::Stay(format!("runs only if {} fails", self.names(of))),
            _ => {}
        }
        let view = View { projection: &self.projection, lows: self.lows, low };
        match self.consider(low, &**function, &view, status) {
            Ok(decision) => decision,
            Err(e) => Decision::Fail(e.summary.clone()),
        }
    }

    /// What a low does whose requisites let it run. An error is a state that would fail.
    fn consider(&self, low: &Low, function: &dyn Function, view: &View, status: &Status) -> Result<Decision> {
        let unknown = |why: String, waits_for: Vec<usize>| -> Result<Decision> {
            let keys = self.objects(function, view).unwrap_or_default();
            Ok(Decision::Unknown { why, waits_for, keys, reaction: None })
        };
        if let Status::Unknown(of) = status {
            return unknown(format!("runs if {} changes", self.names(of)), of.clone());
        }
        let asker = Asker { projection: &self.projection, commands: self.commands, permitted: self.permitted };
        match asker.decide(low)? {
            condition::Decision::Go => {}
            condition::Decision::Stop(why) => return Ok(Decision::Stay(why)),
            condition::Decision::Unknown { why, waits_for } => return unknown(why, waits_for),
        }
        let keys = match self.objects(function, view) {
            Err(e) if e.code == Code::Unreachable && !self.projection.pending().is_empty() => {
                return unknown(e.summary.clone(), self.projection.pending().to_vec());
            }
            keys => keys?,
        };
        if let Some(of) = keys.iter().find_map(|key| self.projection.unsure(key)) {
            return unknown(format!("depends on {}", self.names(&[of])), vec![of]);
        }
        let want = function.want(view)?;
        let deed = match want {
            Want::Unknown(why) => return unknown(why, self.projection.pending().to_vec()),
            Want::Nothing(why) => Err(why),
            want => self.deed(want, None)?.ok_or_else(String::new),
        };
        let comment = match deed {
            Ok(deed) => return Ok(Decision::Do(deed)),
            Err(comment) => comment,
        };
        // Nothing to do by itself: now what it watches counts.
        let owed = self.owed.iter().find(|(what, _)| *what == owed_name(low, self.mask));
        match (status, owed) {
            (Status::Changed(of), _) => self.react(function, view, &format!("{} changes", self.names(of)), comment),
            (_, Some((_, since))) => self.react(function, view, &format!("owed {since}"), comment),
            (Status::MayChange(of), None) => Ok(self.may_react(function.react(view, "")?, of, keys).unwrap_or(Decision::Stay(comment))),
            _ => Ok(Decision::Stay(comment)),
        }
    }

    /// Something it watches may change; `None`: it would not care.
    fn may_react(&self, want: Option<Want>, of: &[usize], keys: Vec<Key>) -> Option<Decision> {
        let reaction = match want? {
            Want::Run(run) | Want::Then(_, run) => Some(Box::new(run)),
            Want::Nothing(_) => return None,
            _ => None,
        };
        Some(Decision::Unknown { why: format!("reacts if {} changes", self.names(of)), waits_for: of.to_vec(), keys, reaction })
    }

    fn react(&self, function: &dyn Function, view: &View, cause: &str, comment: String) -> Result<Decision> {
        let deed = match function.react(view, cause)? {
            Some(Want::Unknown(why)) => {
                return Ok(Decision::Unknown {
                    why,
                    waits_for: self.projection.pending().to_vec(),
                    keys: self.objects(function, view)?,
                    reaction: None,
                });
            }
            Some(want) => self.deed(want, Some(cause.to_owned()))?,
            None => None,
        };
        Ok(deed.map_or(Decision::Stay(comment), Decision::Do))
    }

    /// What a low that listens does at the end. `None`: it does not listen, or nothing it listens to changes.
    pub fn listen(&self, index: usize) -> Option<(Status, Decision)> {
        let (low, function) = (self.lows.get(index)?, self.functions.get(index)?);
        let of: Vec<usize> = low.requisites.iter().filter(|r| r.kind == RequisiteKind::Listen).flat_map(|r| r.of.iter()).collect();
        let with = |wanted: Maybe| -> Vec<usize> { of.iter().copied().filter(|i| self.fate(*i).changes == wanted).collect() };
        let (changed, may_change) = (with(Maybe::Yes), with(Maybe::Unknown));
        let view = View { projection: &self.projection, lows: self.lows, low };
        let status = match (changed.is_empty(), may_change.is_empty()) {
            (false, _) => Status::Changed(changed),
            (true, false) => Status::MayChange(may_change),
            _ => return None,
        };
        let decision = match &status {
            Status::Changed(of) => self
                .objects(&**function, &view)
                .and_then(|_| self.react(&**function, &view, &format!("listens: {} changes", self.names(of)), String::new())),
            Status::MayChange(of) => {
                function.react(&view, "").map(|want| self.may_react(want, of, Vec::new()).unwrap_or_else(|| Decision::Stay(String::new())))
            }
            _ => return None,
        };
        Some((status, decision.unwrap_or_else(|e| Decision::Fail(e.summary.clone()))))
    }

    /// All objects a function speaks of, read.
    pub fn objects(&self, function: &dyn Function, view: &View) -> Result<Vec<Key>> {
        let mut known: BTreeSet<Key> = BTreeSet::new();
        loop {
            let keys = function.objects(view)?;
            let before = known.len();
            for key in keys {
                if !known.contains(&key) {
                    self.projection.now(&key)?;
                    known.insert(key);
                }
            }
            if known.len() == before {
                return Ok(known.into_iter().collect());
            }
        }
    }

    /// Compares what is wanted with what is there. `None`: nothing to do.
    fn deed(&self, want: Want, reaction: Option<String>) -> Result<Option<Deed>> {
        let (wanted, run) = match want {
            Want::Is(wanted) => (wanted, None),
            Want::Run(run) => (Vec::new(), Some(run)),
            Want::Then(wanted, run) => (wanted, Some(run)),
            Want::Unknown(_) | Want::Nothing(_) => return Ok(None),
        };
        let mut changes: Vec<Planned> = Vec::new();
        for (key, to) in wanted {
            let from = match changes.iter().rfind(|c| c.key == key) {
                Some(earlier) => laid_over(&earlier.from, &earlier.to),
                None => self.projection.now(&key)?,
            };
            if !differs(&from, &to) {
                continue;
            }
            let object = object::of(&key)?;
            let to = object.resolve(self.projection.sys, &from, &to, &|directory| self.projection.touched(directory))?;
            if differs(&from, &to) {
                let one_way = object.one_way(self.projection.sys, &from, &to);
                changes.push(Planned { key, from, to, one_way });
            }
        }
        Ok((!changes.is_empty() || run.is_some()).then(|| Deed { changes, run: run.map(Box::new), reaction }))
    }

    /// `sls.id, sls.id`.
    pub fn names(&self, of: &[usize]) -> String {
        let mut names: Vec<String> = of.iter().filter_map(|i| self.lows.get(*i)).map(|low| format!("{}.{}", low.sls, low.id)).collect();
        names.dedup();
        names.join(", ")
    }
}

/// The lows that stand in the list only as the test run of a `prereq`: their real turn comes later.
fn test_runs(lows: &[Low]) -> BTreeSet<usize> {
    let prereqs = lows.iter().enumerate().flat_map(|(i, low)| low.requisites.iter().map(move |r| (i, r)));
    let named = prereqs.filter(|(_, r)| r.kind == RequisiteKind::Prereq).flat_map(|(i, r)| r.of.iter().filter(move |of| *of < i));
    let again = |of: &usize| {
        let (Some(low), Some(later)) = (lows.get(*of), lows.get(of + 1..)) else { return false };
        later.iter().any(|other| (&other.state, &other.fun, &other.id, &other.name) == (&low.state, &low.fun, &low.id, &low.name))
    };
    gathered(named.filter(again))
}

/// What a decision means for the lows that name this one.
pub fn fate(decision: &Decision) -> Fate {
    match decision {
        Decision::Stay(_) => Fate::SAME,
        Decision::Test(fate) => *fate,
        Decision::Do(deed) if deed.changes.is_empty() && deed.run.as_ref().is_some_and(|run| run.stateful) => Fate::UNKNOWN,
        Decision::Do(_) => Fate { changes: Maybe::Yes, ..Fate::SAME },
        Decision::Unknown { .. } => Fate::UNKNOWN,
        Decision::Fail(_) => Fate { failed: true, ..Fate::SAME },
        Decision::Skip(_) => Fate { failed: true, ran: false, ..Fate::SAME },
    }
}

fn action(from: &Attrs, after: &Attrs) -> Action {
    match (from.is_empty(), after.is_empty()) {
        (true, false) => Action::Add,
        (false, true) => Action::Remove,
        _ => Action::Change,
    }
}

/// The step as the plan shows it; `None` for what stays and has nothing to say.
fn step(lows: &[Low], turn: &Turn, turns: &[Turn], mask: &Mask) -> Option<Step> {
    let low = lows.get(turn.low)?;
    let mut step = Step {
        low: turn.low,
        id: mask.text(&low.id),
        state: low.function(),
        name: mask.text(&low.name),
        sls: low.sls.clone(),
        action: Action::None,
        reason: String::new(),
        changes: turn.changes.clone(),
        command: None,
        one_way: None,
        waits_for: Vec::new(),
        fails: None,
        guard: None,
    };
    match &turn.decision {
        Decision::Do(deed) => {
            let mut actions = turn.changes.iter().map(|c| c.action);
            let first = actions.next();
            step.action = first.map_or(Action::Run, |first| if actions.all(|a| a == first) { first } else { Action::Change });
            step.reason = mask.text(deed.reaction.as_deref().unwrap_or_default());
            step.command = deed.run.as_ref().map(|run| mask.text(&run.shown));
            let ways = deed.changes.iter().filter_map(|c| c.one_way.clone()).chain(deed.run.iter().filter_map(|run| run.one_way.clone()));
            step.one_way =
                ways.reduce(|all, way| if all.contains(&way) { all } else { format!("{all}; {way}") }).map(|way| mask.text(&way));
            if low.state == prune::STATE {
                step.action = Action::Remove;
                step.reason = low.args.get("reason").map(|why| mask.text(&why.to_text())).unwrap_or_default();
            }
        }
        Decision::Unknown { why, waits_for, .. } => {
            step.action = Action::Unknown;
            step.reason = mask.text(why);
            step.waits_for.clone_from(waits_for);
        }
        Decision::Fail(comment) | Decision::Skip(comment) => step.fails = Some(mask.text(comment)),
        // It may still run: what it waits for to fail does something.
        Decision::Stay(why) => match &turn.status {
            Status::IfFails(of) if of.iter().any(|i| turns.iter().any(|t| t.low == *i && acts(t))) => step.reason = mask.text(why),
            _ => return None,
        },
        Decision::Test(_) => return None,
    }
    Some(step)
}

fn acts(turn: &Turn) -> bool {
    matches!(turn.decision, Decision::Do(_) | Decision::Unknown { .. })
}

/// Everything that decides what apply does. What a step stands on counts as it was read, without what only serves to restore it. Where
/// there are secrets it is keyed: nobody can find out by trying which secret gives the fingerprint in a saved plan.
fn fingerprint(request: &PlanRequest, steps: &[Step], turns: &[Turn], reads: &Reads, commands: &[(String, i32)]) -> Result<Hash> {
    #[derive(Serialize)]
    struct Everything<'a> {
        lows: Vec<Low>,
        steps: &'a [Step],
        wanted: Vec<(&'a Key, &'a Attrs)>,
        reads: Vec<(&'a Key, Attrs)>,
        commands: &'a [(String, i32)],
        key: &'a str,
    }
    let changes = || turns.iter().filter_map(|t| if let Decision::Do(deed) = &t.decision { Some(&deed.changes) } else { None }).flatten();
    let plain = |low: &Low| Low { span: None, ..low.clone() };
    let everything = Everything {
        lows: request.lows.iter().map(plain).collect(),
        steps,
        wanted: changes().map(|c| (&c.key, &c.to)).collect(),
        reads: changes().filter_map(|c| reads.keys.get_key_value(&c.key)).map(|(key, attrs)| (key, telling(attrs))).collect(),
        commands,
        key: &request.key,
    };
    let json = serde_json::to_vec(&everything).map_err(|e| Diagnostic::new(Code::Internal, format!("a plan cannot be written: {e}")))?;
    Ok(Hash::of(&json))
}
