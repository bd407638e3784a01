//! Takes runs back. What that changes is a plan like any other: shown, checked again, then carried out as a run with a journal of its
//! own, so that it can be killed and done again like any run.
//!
//! For every key the earliest before-image over the runs taken back is what is wanted, whatever happened since: `object.set(now, before)`.

mod past;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use self::past::{Image, again, choose, images, owed, undone, within};
use super::aside;
use super::brought::{self, Paths};
use super::diff;
use super::guard::table::Cuts;
use super::history;
use super::keep;
use super::projection::{same, telling};
use super::protocol::{Applied, Body, RollbackRequest};
use super::prune;
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::object::file::File;
use crate::object::postgres;
use crate::object::{self, Object, Progress, packages};
use crate::plan::{Action, Change, Hash, HostPlan, Key, Kind, Outcome, RunHeader, Step, Tally, Verdict};
use crate::secret::Mask;
use crate::system::journal::Noted;
use crate::system::{Command, Entry, Made, System};
use crate::value::{Attrs, Value, gathered, those};

/// A planned rollback.
pub struct Rollback {
    pub plan: HostPlan,
    /// The runs it takes back, oldest first.
    runs: Vec<String>,
    /// One for each step of the plan.
    turns: Vec<Turn>,
    /// All keys that these runs may have touched: nothing half written is to stay beside them.
    touched: BTreeSet<Key>,
    /// Owed by the runs taken back, and not any more.
    owed: Vec<String>,
    /// What was known to be made of the things they changed, before they did.
    made: Vec<(Key, Vec<Made>)>,
}

enum Turn {
    Restore(Restore),
    Command(Noted),
}

struct Restore {
    key: Key,
    /// The key as it may be shown.
    shown: Key,
    before: Attrs,
    now: Attrs,
    secret: bool,
    /// It is seen only when something above it has been mounted or unmounted again, or not any more then.
    hidden: Hidden,
    /// Why the run failed here, where it did: an error in taking it back is told together with it.
    failed: Option<String>,
}

/// Whether what is at a key can be looked at before and behind the restoring of mounts.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Hidden {
    Never,
    /// It is below something that is mounted or unmounted again first.
    Before,
    /// What is mounted above it goes or comes then.
    Behind,
}

/// What taking runs back would change.
pub fn plan(sys: &System, request: &RollbackRequest) -> Result<Rollback> {
    let journals = choose(sys, request)?;
    let runs: Vec<String> = journals.iter().map(|(id, _)| id.clone()).collect();
    runs.iter().for_each(|run| sys.look_in_keep(run));
    let (images, touched) = images(sys, &journals)?;
    let mut restores = Vec::new();
    let mut unchanged = 0;
    let mut notices = Vec::new();
    let mut stays = Vec::new();
    let mut left: Vec<Key> = Vec::new();
    // What must stay because something that stays needs it: a database's owner, and its server.
    let mut needed: Vec<Key> = Vec::new();
    let mut server_stays = false;
    let flips = |image: &Image| {
        let reached = image.reached.as_ref();
        ["device", "fstype", "bind"].iter().any(|name| reached.is_some_and(|reached| reached.get(*name) != image.before.get(*name)))
    };
    let flipped = images.iter().filter(|(key, image)| key.kind == Kind::Mount && flips(image));
    let mounts: BTreeMap<String, usize> = gathered(flipped.filter_map(|(key, image)| Some((key.name.clone(), image.done?))));
    for (key, image) in images {
        let hidden = match above(&mounts, &key) {
            // It was changed in a filesystem that the run had just made, whose contents are not the run's.
            Some(flip) if key.kind == Kind::File && image.first < flip && image.done.is_some_and(|done| done > flip) => {
                stays.push(key.name);
                continue;
            }
            Some(flip) if image.first < flip && key.kind == Kind::File => Hidden::Before,
            Some(_) => Hidden::Behind,
            None => Hidden::Never,
        };
        let object = object::of(&key)?;
        object.settle(sys)?;
        let now = match object.read(sys) {
            Err(error) if error.code == Code::Unreachable && image.before.is_empty() && object.comes_new(sys) => Attrs::new(),
            Err(error) if error.code == Code::Unreachable => {
                notices.push(format!("{} stays as it is: {}", image.shown, error.summary));
                continue;
            }
            read => read?,
        };
        // A directory that was removed and made again reads as before; what was in it is in the keep.
        let moved = key.kind == Kind::File && File::kept_tree(sys, &runs, &key.name)?.is_some();
        if now == image.before && !moved && hidden != Hidden::Before {
            unchanged += 1;
            continue;
        }
        if matches!(key.kind, Kind::Subvolume | Kind::Lvm | Kind::PostgresDatabase)
            && now.is_empty()
            && let Some(why) = object.one_way(sys, &image.before, &now)
        {
            notices.push(format!("{key} does not come back: {why}"));
            continue;
        }
        if !request.destroy_data && !now.is_empty() && brought::is_as_left(sys, &key, image.reached.as_ref())? == Some(false) {
            let why = "a package's script made it and it was changed since, so it may hold data";
            notices.push(format!(
                "{} stays, unless its package takes it along: {why}; `--destroy-data` takes it back nevertheless",
                image.shown
            ));
            let owners = [(Kind::User, "user"), (Kind::Group, "group")].map(|(kind, name)| Some(Key::new(kind, now.get(name)?.as_str()?)));
            needed.extend(owners.into_iter().flatten());
            left.push(key);
            continue;
        }
        match object.destroys(sys, &now, &image.before).filter(|_| !request.destroy_data) {
            Some(why) => {
                notices.push(format!("{key} stays: {why}; `--destroy-data` takes it back nevertheless"));
                needed.extend(postgres::database::owner(&key, &now));
                server_stays |= postgres::database::is_here(&key);
                left.push(key);
            }
            None => restores.push((rank(&key, &now, &image, hidden), key, image, now, hidden)),
        }
    }
    restores.retain(|(_, key, image, now, _)| {
        let serves = match key.kind {
            Kind::Packages => true,
            Kind::Service => key.name.starts_with("postgresql"),
            // What its packages' scripts have made.
            Kind::User | Kind::Group => image.before.is_empty() && now.get("gid").and_then(Value::as_int).is_some_and(|gid| gid < 1000),
            Kind::File => {
                key.name.starts_with(aside::UCF) || image.reached.as_ref().is_some_and(|reached| reached.contains_key(brought::TREE))
            }
            _ => needed.contains(key) && image.before.is_empty(),
        };
        let stays = (server_stays || needed.contains(key)) && serves;
        if stays {
            notices.push(format!("{} stays: what stays needs it", image.shown));
        }
        !stays
    });
    // The directories that something lies in which stays are not taken away either, as long as it is seen in them.
    let going: Vec<String> = mounts.keys().cloned().collect();
    restores.retain(|(_, key, image, ..)| {
        let holds = |thing: &Key| {
            let hidden = |top: &String| within(top, &thing.name) && within(&key.name, top);
            key != thing && within(&key.name, &thing.name) && !going.iter().any(hidden)
        };
        let directory = image.before.get("kind").and_then(Value::as_str) == Some("directory");
        key.kind != Kind::File || directory || !left.iter().any(holds)
    });
    restores.sort_by(|a, b| a.0.cmp(&b.0));
    if !stays.is_empty() {
        notices.push(format!("what was written to filesystems that the run made stays in them: {}", stays.join(", ")));
    }

    let mut steps = Vec::new();
    let mut turns = Vec::new();
    let named = runs.join(", ");
    let (mut undone, tried) = undone(sys, &runs)?;
    for (run, journal) in journals.iter().rev() {
        for entry in journal.entries.iter().rev() {
            match entry {
                Entry::Ran { undo: Some(undo), .. } if undone.contains(undo) => {
                    undone.iter().position(|done| done == undo).map(|index| undone.swap_remove(index));
                }
                Entry::Ran { shown, undo: Some(undo), .. } => {
                    steps.push(command_step(steps.len(), run, undo, format!("takes back `{shown}` of run {run}")));
                    turns.push(Turn::Command(undo.clone()));
                }
                Entry::Ran { shown, one_way: Some(why), .. } => {
                    notices.push(format!("`{shown}` of run {run} cannot be taken back: {why}"));
                }
                _ => {}
            }
        }
    }
    let something = tried || !restores.is_empty() || !steps.is_empty();
    let repeated = again(&journals);
    let repeat = |steps: &mut Vec<Step>, turns: &mut Vec<Turn>| {
        for (run, command, shown) in &repeated {
            steps.push(Step {
                id: (*shown).to_owned(),
                name: (*shown).to_owned(),
                command: Some((*shown).to_owned()),
                ..command_step(steps.len(), run, command, "what it makes effective has changed back".into())
            });
            turns.push(Turn::Command((*command).clone()));
        }
    };
    // Who has something open below a mount that goes must hear first that it is not to serve it any more.
    let mut served = restores.iter().any(|(rank, ..)| rank.0 == EARLY) && !repeated.is_empty();
    for (_, key, image, now, hidden) in restores {
        if served && key.kind == Kind::Mount && image.before.is_empty() {
            repeat(&mut steps, &mut turns);
            served = false;
        }
        steps.push(restore_step(sys, steps.len(), &named, &key, &image, &now)?);
        let Image { before, secret, failed, shown, .. } = image;
        turns.push(Turn::Restore(Restore { key, shown, before, now, secret, hidden, failed }));
    }
    if something {
        repeat(&mut steps, &mut turns);
    }
    let generation = sys.generation()?;
    let fingerprint = fingerprint(&runs, generation, &steps, &turns)?;
    let cuts = Cuts::of(sys);
    for (step, turn) in steps.iter_mut().zip(&turns) {
        let change = if let Turn::Restore(r) = turn { Some((&r.key, &r.now, &r.before)) } else { None };
        step.guard = cuts.as_ref().and_then(|cuts| cuts.step(change, step.command.as_deref()));
    }
    let plan = HostPlan { steps, unchanged, fingerprint, generation, commands: Vec::new(), notices };
    let owed = owed(&journals);
    let mut made = prune::known_before(&journals);
    made.retain(|(key, _)| !left.contains(key));
    Ok(Rollback { plan, runs, turns, touched, owed, made })
}

/// Reads again everything the plan stands on.
pub fn check(sys: &System, rollback: &Rollback) -> Result<()> {
    let mut differ = Vec::new();
    for turn in &rollback.turns {
        if let Turn::Restore(restore) = turn
            && restore.hidden != Hidden::Before
            && object::of(&restore.key)?.read(sys)? != restore.now
        {
            differ.push(restore.shown.to_string());
        }
    }
    if sys.generation()? != rollback.plan.generation && sys.run_id().is_none() {
        differ.push("another run has been here".into());
    }
    if differ.is_empty() {
        return Ok(());
    }
    Err(Diagnostic::new(Code::Stale, "the host has changed since the plan was made").detail(differ.join("\n")).hint("plan again").into())
}

/// Carries a planned rollback out. What fails is told and does not keep the rest from being taken back.
pub fn apply(sys: &System, rollback: Rollback, header: &RunHeader, tell: &mut dyn FnMut(Body)) -> Result<Applied> {
    check(sys, &rollback)?;
    let header = RunHeader { rolls_back: rollback.runs.clone(), ..header.clone() };
    sys.begin(&header)?;
    for key in &rollback.touched {
        object::of(key)?.sweep(sys)?;
    }
    let mut entries = Vec::new();
    for turn in &rollback.turns {
        if let Turn::Restore(Restore { key, shown, before, now, secret, .. }) = turn {
            object::of(key)?.keep(sys, now, before)?;
            let shown = (shown != key).then(|| shown.name.clone());
            // Which of the attributes is the secret nobody knows here. (Files name their contents by hash.)
            let (attrs, kept) = match *secret && !diff::has_content(key) {
                true => (Attrs::new(), Some(keep::attrs(sys, now)?)),
                false => (now.clone(), None),
            };
            entries.push(Entry::Before { key: key.clone(), attrs, kept, secret: *secret, shown });
        }
    }
    sys.journal(&entries)?;

    let packages = rollback.turns.iter().find_map(|turn| match turn {
        Turn::Restore(restore) if restore.key.kind == Kind::Packages => Some(restore),
        _ => None,
    });
    let folders = packages.map_or(Ok(BTreeSet::new()), |packages| aside::folders(sys, &packages.now, &packages.before))?;
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut stopped = None;
    for (low, (turn, step)) in rollback.turns.iter().zip(&rollback.plan.steps).enumerate() {
        if sys.cancelled() {
            stopped = Some(format!("stopped after {low} of {} steps; the same rollback can be run again", rollback.turns.len()));
            break;
        }
        tell(Body::Started { low });
        let begun = Instant::now();
        let done = match turn {
            Turn::Restore(restore) => put_back(sys, &rollback.runs, restore, step, tell),
            Turn::Command(command) => run(sys, command, tell),
        };
        if let Err(error) = &done
            && error.code == Code::Interrupted
        {
            if !sys.cancelled() {
                return Err(error.clone());
            }
            stopped = Some(error.summary.clone());
            break;
        }
        let (result, changes, comment) = match done {
            Ok(changes) if changes.is_empty() && matches!(turn, Turn::Restore(_)) => {
                (Verdict::Ok, changes, "is as it was before the run".into())
            }
            Ok(changes) => (Verdict::Changed, changes, String::new()),
            Err(error) => (Verdict::Failed, Vec::new(), said(&error)),
        };
        let outcome = Outcome { low, result, changes, duration_ms: begun.elapsed().as_millis() as u64, comment };
        sys.journal(&[Entry::Outcome(outcome.clone())])?;
        tell(Body::Done(outcome.clone()));
        outcomes.push(outcome);
    }
    if stopped.is_none() {
        aside::sweep(sys, &folders)?;
        verify(sys, &rollback.turns, &mut outcomes, tell)?;
    }
    let back = |key: &Key| {
        let of = |(turn, outcome): (&Turn, &Outcome)| matches!(turn, Turn::Restore(r) if r.key == *key).then_some(outcome.result);
        rollback.turns.iter().zip(&outcomes).filter_map(of).all(|result| result != Verdict::Failed)
    };
    if stopped.is_none() {
        sys.journal(&prune::known_again(sys, &rollback.made, back))?;
    }
    let mut tally = Tally { ok: rollback.plan.unchanged, ..Tally::default() };
    outcomes.iter().for_each(|outcome| history::count(&mut tally, outcome));
    if stopped.is_none() && tally.failed == 0 {
        let paid: Vec<Entry> = rollback.owed.iter().map(|what| Entry::Paid { what: what.clone() }).collect();
        sys.journal(&paid)?;
    }
    sys.end(tally, stopped.clone())?;
    Ok(Applied { tally, stopped, generation: sys.generation()? })
}

/// The phase of files whose texts are restored before anything is unmounted.
const EARLY: u8 = 6;

/// The order of restoring, which is not always the reverse of what was done: what stands on something else goes before it and comes
/// back after it. Services are stopped first and started last, users are there before the files they own and go after them, packages
/// change before files (their scripts write some), texts change before anything is unmounted (what serves it must let go), files go from the leaves up and come from the root down. What is in a filesystem that goes
/// is restored before it goes, what is in one that comes back behind it; mounts, volumes and swap among themselves in reverse order.
fn rank(key: &Key, now: &Attrs, image: &Image, hidden: Hidden) -> (u8, usize, Key) {
    let before = &image.before;
    let late = usize::MAX - image.done.unwrap_or(image.first);
    let off = |attrs: &Attrs| !["active", "enabled"].iter().any(|name| attrs.get(*name).and_then(Value::as_bool) == Some(true));
    let depth = key.name.matches('/').count();
    let (phase, within) = match key.kind {
        // As long as the server runs, and databases before those who own them.
        Kind::PostgresDatabase => (0, 2),
        Kind::PostgresRole if before.is_empty() => (0, 3),
        Kind::Service if off(before) => (0, 4),
        Kind::Group if !before.is_empty() => (1, 0),
        Kind::User if !before.is_empty() => (2, 0),
        Kind::Pip => (2, 1),
        Kind::Packages => (3, 0),
        Kind::File => match (hidden, before.is_empty()) {
            (Hidden::Behind, true) => (4, usize::MAX - depth),
            (Hidden::Behind, false) => (5, depth),
            (Hidden::Never, false) if [before, now].iter().all(|attrs| attrs.get("kind").and_then(Value::as_str) == Some("file")) => {
                (EARLY, 0)
            }
            (Hidden::Never, true) => (8, usize::MAX - depth),
            (Hidden::Never, false) => (9, depth),
            (Hidden::Before, true) => (11, usize::MAX - depth),
            (Hidden::Before, false) => (12, depth),
        },
        // What is to be mounted again needs its directory first.
        Kind::Mount | Kind::Swap if !before.is_empty() => (10, late),
        Kind::Mount | Kind::Swap | Kind::Blockdev | Kind::Subvolume | Kind::Btrfs | Kind::Lvm => (7, late),
        // A filesystem may need it.
        Kind::Module if !before.is_empty() => (3, 1),
        Kind::Module => (13, 1),
        Kind::Git if hidden == Hidden::Behind => (3, 2),
        Kind::Crontab | Kind::Sysctl | Kind::Git | Kind::Debconf | Kind::Locale => (13, 0),
        Kind::User => (14, 0),
        Kind::Group => (15, 0),
        Kind::Service => (16, usize::from(now.is_empty())),
        Kind::PostgresRole => (0, usize::from(!now.is_empty())),
        // As long as iptables is there.
        Kind::Iptables => (0, 5),
    };
    (phase, within, key.clone())
}

/// The place in the journals at which something above a key was mounted or unmounted.
fn above(mounts: &BTreeMap<String, usize>, key: &Key) -> Option<usize> {
    let path = match key.kind {
        Kind::File | Kind::Subvolume | Kind::Btrfs | Kind::Git => key.name.as_str(),
        _ => return None,
    };
    mounts.iter().filter(|(top, _)| within(top, path)).map(|(_, flip)| *flip).max()
}

/// A command of a journal as it may be shown.
fn line(command: &Noted) -> String {
    match command {
        Noted::Plain(command) => command.argv.join(" "),
        Noted::Kept { shown, .. } => shown.clone(),
    }
}

fn command_step(low: usize, run: &str, command: &Noted, reason: String) -> Step {
    let shown = line(command);
    Step {
        low,
        id: shown.clone(),
        state: "rollback.command".into(),
        name: shown.clone(),
        sls: run.into(),
        action: Action::Run,
        reason,
        changes: Vec::new(),
        command: Some(shown),
        one_way: None,
        waits_for: Vec::new(),
        fails: None,
        guard: None,
    }
}

fn restore_step(sys: &System, low: usize, runs: &str, key: &Key, image: &Image, now: &Attrs) -> Result<Step> {
    let object = object::of(key)?;
    let mut reason = format!("as it was before {runs}");
    let since = image.reached.as_ref().map(|reached| drift(reached, now)).unwrap_or_default();
    if !since.is_empty() {
        reason.push_str(&format!("; changed since the run, and lost: {}", since.join(", ")));
    }
    let diff = match image.secret {
        true if diff::has_content(key) => "content differs (secret)\n".into(),
        true if !image.before.is_empty() => "differs (secret)\n".into(),
        _ => masked(object.describe(sys, now, &image.before), key, &image.shown),
    };
    let one_way = object.one_way(sys, now, &image.before);
    let mut change = change(key, now, &image.before);
    (change.diff, change.one_way) = (diff, one_way.clone());
    // Which of the attributes is the secret nobody knows here.
    let shown = |attrs: &Attrs| if image.secret { Attrs::new() } else { diff::masked(&Mask::default(), key, attrs, false) };
    (change.key, change.before, change.after) = (image.shown.clone(), shown(&change.before), shown(&change.after));
    Ok(Step {
        low,
        id: image.shown.to_string(),
        state: format!("rollback.{}", key.kind.name()),
        name: image.shown.name.clone(),
        sls: runs.into(),
        action: change.action,
        reason,
        changes: vec![change],
        command: None,
        one_way,
        waits_for: Vec::new(),
        fails: None,
        guard: None,
    })
}

/// A text about a thing, which calls it by the name that may be shown.
fn masked(text: String, key: &Key, shown: &Key) -> String {
    if key == shown { text } else { text.replace(&key.name, &shown.name) }
}

/// The attributes that are not as the run left them; what only serves to restore (times) is not worth a word.
fn drift(reached: &Attrs, now: &Attrs) -> Vec<String> {
    let reached = telling(reached);
    match (reached.is_empty(), now.is_empty()) {
        (true, false) => vec!["it is there again".into()],
        (false, true) => vec!["it is gone".into()],
        _ => reached
            .iter()
            .filter(|(name, value)| **name != brought::TREE && now.get(*name) != Some(value))
            .map(|(name, _)| name.clone())
            .collect(),
    }
}

/// A change with the attributes that differ.
pub(super) fn change(key: &Key, from: &Attrs, to: &Attrs) -> Change {
    let action = match (from.is_empty(), to.is_empty()) {
        (true, _) => Action::Add,
        (_, true) => Action::Remove,
        _ => Action::Change,
    };
    let only = |these: &Attrs, other: &Attrs| those(these, |name, value| other.get(name) != Some(value));
    Change { key: key.clone(), action, before: only(from, to), after: only(to, from), diff: String::new(), one_way: None }
}

fn fingerprint(runs: &[String], generation: u64, steps: &[Step], turns: &[Turn]) -> Result<Hash> {
    let images: Vec<(&Key, &Attrs, &Attrs)> =
        turns.iter().filter_map(|turn| if let Turn::Restore(r) = turn { Some((&r.key, &r.now, &r.before)) } else { None }).collect();
    let text = serde_json::to_vec(&(runs, generation, steps, images))
        .map_err(|e| Diagnostic::new(Code::Internal, format!("a rollback's plan cannot be written down: {e}")))?;
    Ok(Hash::of(&text))
}

/// Restores one object; an earlier step (a package's scripts) may have changed it since it was looked at.
fn put_back(sys: &System, runs: &[String], restore: &Restore, step: &Step, tell: &mut dyn FnMut(Body)) -> Result<Vec<Change>> {
    let Restore { key, shown, before, secret, .. } = restore;
    let object = object::of(key)?;
    let both = |error: crate::diagnostic::Error| {
        let (why, detail) = (masked(error.summary.clone(), key, shown), masked(error.detail.clone(), key, shown));
        let summary = match (&restore.failed, error.code) {
            (_, Code::Interrupted) => why,
            (None, _) => format!("cannot take {shown} back: {why}"),
            (Some(first), _) => format!("cannot take {shown} back: {why}; the run itself had failed here: {first}"),
        };
        crate::diagnostic::Error::from(Diagnostic { summary, detail, ..*error })
    };
    let now = object.read(sys).map_err(both)?;
    let moved = key.kind == Kind::File && File::kept_tree(sys, runs, &key.name)?.is_some();
    if now == *before && !moved {
        return Ok(Vec::new());
    }
    // Where packages come back as well, what is new may be theirs.
    let goes = packages::installed(before).all(|(name, _)| now.get(name) == before.get(name));
    let paths = if key.kind == Kind::Packages && goes { Some((Paths::look(sys)?, aside::folders(sys, &now, before)?)) } else { None };
    let mut line = |text: &str| tell(Body::Line { text: text.to_owned(), error: false });
    let reached = object.set(sys, &now, before, &mut Progress::new(&mut line)).map_err(both)?;
    if key.kind == Kind::Packages {
        aside::forget_units(sys)?;
    }
    if let Some((paths, folders)) = paths {
        // What their scripts make when they go, as copies of data: it was not there, and is not lost.
        for path in paths.since(sys, &folders)? {
            let made = File::new(&path);
            let there = made.read(sys)?;
            made.keep(sys, &there, &Attrs::new())?;
            made.set(sys, &there, &Attrs::new(), &mut Progress::new(&mut line))?;
            line(&format!("a package that went left {path}; the keep of this run has it now"));
        }
    }
    // A file that came back is older than what systemd has read, which does not see that it changed.
    if key.kind == Kind::File && key.name.contains("/systemd/system/") && sys.stat("/run/systemd/system")?.is_some() {
        sys.run(&Command::new(["systemctl", "daemon-reload"])).map_err(both)?;
    }
    let mut attrs = reached;
    if *secret {
        diff::without_texts(key, &mut attrs);
    }
    sys.journal(&[Entry::After { key: key.clone(), attrs, secret: *secret && !before.is_empty() }])?;
    Ok(step.changes.clone())
}

/// Looks at everything once more at the end, because things depend on one another (a service is there because of a package, a user's
/// home because of a directory): what is still not as it was has failed after all.
fn verify(sys: &System, turns: &[Turn], outcomes: &mut [Outcome], tell: &mut dyn FnMut(Body)) -> Result<()> {
    for (turn, outcome) in turns.iter().zip(outcomes) {
        let Turn::Restore(Restore { key, shown, before, hidden, .. }) = turn else { continue };
        if outcome.result == Verdict::Failed || *hidden == Hidden::Behind {
            continue;
        }
        let left = match object::of(key)?.read(sys) {
            // The server has gone as well.
            Err(error) if error.code == Code::Unreachable => continue,
            read => read?,
        };
        if !same(&left, before) {
            outcome.result = Verdict::Failed;
            outcome.comment = format!("{shown} is still not as it was before the run: {}", drift(before, &left).join(", "));
            sys.journal(&[Entry::Outcome(outcome.clone())])?;
            tell(Body::Done(outcome.clone()));
        }
    }
    Ok(())
}

fn run(sys: &System, noted: &Noted, tell: &mut dyn FnMut(Body)) -> Result<Vec<Change>> {
    let (shown, mut command) = (line(noted), keep::command_of(sys, noted)?);
    // It says what is nothing to it: a service that is not there any more need not be restarted.
    command.env.push(("BASALT_ROLLBACK".to_owned(), "1".to_owned()));
    let again = keep::command_again(sys, noted)?;
    sys.journal(&[Entry::Ran { shown: shown.clone(), command: again, again: true, undo: None, one_way: None }])?;
    sys.mutating(&format!("run {shown}"))?;
    if let [program, .., unit] = command.argv.as_slice()
        && program == "systemctl"
    {
        // One that the run made fail over and over would be refused for a while.
        object::of(&Key::new(Kind::Service, unit))?.sweep(sys)?;
    }
    let mut lines = super::serve::Lines::default();
    // What holds a secret may also say it, and nobody knows here which text it is.
    let quiet = matches!(noted, Noted::Kept { .. });
    let mut say = |text: String| {
        if !quiet {
            tell(Body::Line { text, error: false });
        }
    };
    let output = sys.run_streaming(&command, &mut |piece| lines.add(piece, &mut say))?;
    lines.rest(&mut say);
    if output.success() {
        return Ok(Vec::new());
    }
    let why = if output.timed_out { "it took too long".to_owned() } else { format!("it ended with {}", output.status) };
    Err(Diagnostic::new(Code::Failed, format!("`{shown}` failed: {why}")).into())
}

fn said(error: &Diagnostic) -> String {
    match error.detail.is_empty() {
        true => error.summary.clone(),
        false => format!("{}\n{}", error.summary, error.detail),
    }
}
