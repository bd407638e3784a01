//! Tells when something is touched that a plan stands on, without looking again and again: `paths` (inotify), `bus` (systemd), and files of
//! the kernel that can be waited for. Between two events the agent waits in one poll(2) and costs nothing.
//!
//! An event is a reason to look, no more: what is told is what now differs from what was read before, in an attribute that a state minds.
//! The watch of a thing is laid anew before each look at it, so that nothing falls between the two.

mod bus;
mod paths;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use self::bus::Bus;
use self::paths::Paths;
use super::condition::{self, Asker, Commands};
use super::planner::{Plan, Planner};
use super::projection::{Look, Projection, Reads, View, entries, look_at_host, telling};
use super::protocol::{Body, Message, StateName, Touched, Unwatched, Watching};
use super::wire::Wire;
use crate::diagnostic::{Code, Result};
use crate::function::{Function, Want};
use crate::object::{self, Sign, mount, packages};
use crate::plan::{Key, Kind, Low};
use crate::system::System;
use crate::value::{Attrs, Value, attributes};

/// From an event to the look: who writes a file writes several times.
const PAUSE: Duration = Duration::from_millis(100);
/// What is touched again and again is looked at ever less often, down to this.
const LONGEST: Duration = Duration::from_secs(10);
/// And so that looking takes no more than this part of the time.
const SHARE: u32 = 20;

/// Watches until the next request, and gives it; `None` where the controller has gone.
pub fn watch(sys: &System, plan: &Plan, wire: &Wire, stream: u32, requests: &Receiver<Message>) -> Result<Option<Message>> {
    let bell = wire.bell()?;
    let mut drift = Drift::of(sys, plan);
    let mut said = None;
    loop {
        let touched = drift.look();
        let now = drift.watching();
        if said.as_ref() != Some(&now) {
            wire.say(stream, Body::Watching(now.clone()));
            said = Some(now);
        }
        if !touched.is_empty() {
            wire.say(stream, Body::Drifted { touched });
        }
        wire.end();
        let rang = drift.wait(bell.fd());
        if rang {
            bell.hush();
            match requests.try_recv() {
                Ok(request) => return Ok(Some(request)),
                Err(TryRecvError::Disconnected) => return Ok(None),
                Err(TryRecvError::Empty) => {}
            }
        }
        wire.begin(stream, false);
    }
}

/// Something that the plan stands on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Object(Key),
    /// What is in a directory, as one look tells.
    Entries(String),
    /// What a condition saw at a path.
    Look(String),
}

struct Thing {
    what: What,
    /// What was there at the last look; `None`: it could not be read.
    seen: Option<Attrs>,
    minds: Vec<Minds>,
    /// Why nothing tells of it, if so.
    blind: Option<String>,
    /// Where it is, for mounts that come above it.
    places: Vec<String>,
    kernel: Vec<&'static str>,
    units: Vec<String>,
    /// When it was looked at last, how long after the event, and how long that took.
    looked: Option<Instant>,
    pause: Duration,
    took: Duration,
}

/// A low, and the attributes that it speaks of; `None`: whatever there is.
struct Minds {
    low: usize,
    attributes: Option<BTreeSet<String>>,
}

struct Drift<'a> {
    sys: &'a System,
    plan: &'a Plan,
    things: Vec<Thing>,
    paths: std::result::Result<Paths, String>,
    /// `None`: not needed yet, or lost.
    bus: Option<Bus>,
    kernel: BTreeMap<&'static str, Option<File>>,
    mounts: Vec<mount::Entry>,
    /// Calls in conditions that only asking again can answer.
    calls: BTreeSet<String>,
    /// When to look at which thing.
    due: BTreeMap<usize, Instant>,
}

impl<'a> Drift<'a> {
    /// Everything of a plan. The first look lays the watches, and sees what has happened since the plan was made.
    fn of(sys: &'a System, plan: &'a Plan) -> Drift<'a> {
        let things = things(sys, plan);
        let mounts = mount::mounts(sys).unwrap_or_default();
        let paths = Paths::below(sys.root());
        let calls = plan.lows.iter().flat_map(condition::unseen).map(str::to_owned).collect();
        let (kernel, due) = Default::default();
        let mut drift = Drift { sys, plan, things, paths, bus: None, kernel, mounts, calls, due };
        drift.kernel.insert(mount::TABLE, File::open(sys.path(mount::TABLE)).ok());
        drift.due = (0..drift.things.len()).map(|thing| (thing, Instant::now())).collect();
        drift
    }

    /// What the watch comes to.
    fn watching(&self) -> Watching {
        let mask = &self.plan.mask;
        let blind = self.things.iter().filter_map(|thing| Some((thing, thing.blind.clone()?)));
        let mut unwatched: Vec<Unwatched> =
            blind.map(|(thing, why)| Unwatched { what: mask.text(&thing.key().to_string()), why }).collect();
        let watched = self.things.len() - unwatched.len();
        let why = "what it says is known when it is asked";
        unwatched
            .extend(self.plan.host.commands.iter().chain(&self.calls).map(|what| Unwatched { what: what.clone(), why: why.to_owned() }));
        Watching { watched, unwatched }
    }

    /// Lays the watch of a thing anew.
    fn lay(&mut self, index: usize) {
        let Some(thing) = self.things.get_mut(index) else { return };
        if let Ok(paths) = &mut self.paths {
            paths.forget(index);
        }
        (thing.places, thing.kernel, thing.units, thing.blind) = Default::default();
        let signs = match &thing.what {
            What::Object(key) => object::of(key).and_then(|object| object.signs(self.sys)),
            What::Entries(path) | What::Look(path) => Ok(Sign::paths([path])),
        };
        let signs = match signs {
            Ok(signs) if signs.is_empty() => {
                thing.blind = Some("nothing on a host tells of its changes".to_owned());
                return;
            }
            Ok(signs) => signs,
            Err(error) => {
                thing.blind = Some(self.plan.mask.text(&error.summary));
                return;
            }
        };
        let entries = matches!(thing.what, What::Entries(_));
        for sign in signs {
            let laid = match (&sign, &mut self.paths) {
                (Sign::Path(_) | Sign::Tree(_), Err(why)) => Err(why.clone()),
                (Sign::Path(path), Ok(paths)) if entries => paths.directory(index, path),
                (Sign::Path(path), Ok(paths)) => paths.path(index, path),
                (Sign::Tree(path), Ok(paths)) => paths.tree(index, path),
                (Sign::Kernel(path), _) => {
                    thing.kernel.push(path);
                    let file = self.kernel.entry(path).or_insert_with(|| File::open(self.sys.path(path)).ok());
                    file.as_ref().map(drop).ok_or_else(|| format!("there is no {path}"))
                }
                (Sign::Unit(unit), _) => {
                    thing.units.push(unit.clone());
                    if self.bus.is_none() {
                        self.bus = Bus::connect(self.sys).map_err(|why| thing.blind.get_or_insert(why).clone()).ok();
                    }
                    self.bus.as_mut().map_or(Ok(()), |bus| bus.watch(unit))
                }
            };
            if let Err(why) = laid {
                thing.blind.get_or_insert(why);
            }
            if let Sign::Path(path) | Sign::Tree(path) = sign {
                thing.places.push(path);
            }
        }
    }

    /// Looks at what is due, and gives what differs.
    fn look(&mut self) -> Vec<Touched> {
        let now = Instant::now();
        let due: Vec<usize> = self.due.iter().filter(|(_, at)| **at <= now).map(|(thing, _)| *thing).collect();
        let mut found: BTreeMap<Key, BTreeSet<usize>> = BTreeMap::new();
        for index in due {
            self.due.remove(&index);
            self.lay(index);
            let Some(thing) = self.things.get_mut(index) else { continue };
            let begun = Instant::now();
            let there = read(self.sys, &thing.what);
            if let Some((names, lows)) = thing.differs(there.as_ref()) {
                for key in thing.keys(&names) {
                    found.entry(key).or_default().extend(&lows);
                }
            }
            thing.seen = there;
            (thing.looked, thing.took) = (Some(Instant::now()), begun.elapsed());
        }
        let plan = self.plan;
        let named = |low: usize| {
            let low = plan.lows.get(low)?;
            Some(StateName { sls: low.sls.clone(), id: plan.mask.text(&low.id), state: low.function() })
        };
        let told = |(key, lows): (Key, BTreeSet<usize>)| {
            let mut states: Vec<StateName> = lows.into_iter().filter_map(named).collect();
            states.dedup();
            Touched { key: Key::new(key.kind, plan.mask.text(&key.name)), states }
        };
        found.into_iter().map(told).collect()
    }

    /// Waits until something is to be looked at, or the bell rings.
    fn wait(&mut self, bell: std::os::fd::BorrowedFd) -> bool {
        loop {
            let left = self.due.values().min().map(|at| at.saturating_duration_since(Instant::now()));
            let kernel: Vec<(&'static str, &File)> = self.kernel.iter().filter_map(|(path, file)| Some((*path, file.as_ref()?))).collect();
            let mut fds = vec![PollFd::from_borrowed_fd(bell, PollFlags::IN)];
            fds.extend(kernel.iter().map(|(_, file)| PollFd::from_borrowed_fd(file.as_fd(), PollFlags::PRI)));
            let paths = fds.len();
            fds.extend(self.paths.as_ref().ok().map(|paths| PollFd::from_borrowed_fd(paths.fd(), PollFlags::IN)));
            let bus = fds.len();
            fds.extend(self.bus.as_ref().map(|bus| PollFd::from_borrowed_fd(bus.fd(), PollFlags::IN)));
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            // A signal in between is as good as nothing.
            let _ = poll(&mut fds, timeout.as_ref());
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            drop(fds);
            let is = |at: usize| ready.get(at).copied().unwrap_or_default();
            let changed: Vec<&'static str> = kernel.iter().enumerate().filter(|(at, _)| is(at + 1)).map(|(_, (path, _))| *path).collect();
            let (by_path, by_bus) = (paths < bus && is(paths), is(bus));
            if by_path {
                self.by_path();
            }
            if by_bus {
                self.by_bus();
            }
            for path in changed {
                self.by_kernel(path);
            }
            if is(0) || self.due.values().any(|at| *at <= Instant::now()) {
                return is(0);
            }
        }
    }

    fn by_path(&mut self) {
        let touched = self.paths.as_mut().map_or_else(|_| Some(BTreeSet::new()), Paths::touched);
        for thing in touched.unwrap_or_else(|| (0..self.things.len()).collect()) {
            self.touch(thing);
        }
    }

    fn by_bus(&mut self) {
        let units = self.bus.as_mut().and_then(Bus::touched);
        if units.is_none() {
            self.bus = None;
        }
        let about = |thing: &Thing| match &units {
            Some(units) => thing.units.iter().any(|unit| units.contains(unit)),
            None => !thing.units.is_empty(),
        };
        self.touch_those(about);
    }

    fn by_kernel(&mut self, path: &'static str) {
        let mut moved = Vec::new();
        if path == mount::TABLE {
            let now = mount::mounts(self.sys).unwrap_or_default();
            let before = std::mem::replace(&mut self.mounts, now);
            let (gone, come) = (before.iter().filter(|m| !self.mounts.contains(m)), self.mounts.iter().filter(|m| !before.contains(m)));
            moved = gone.chain(come).map(|mount| mount.path.clone()).collect();
        }
        let below = |place: &String, top: &String| {
            place.strip_prefix(top.trim_end_matches('/')).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.touch_those(|thing| thing.kernel.contains(&path) || thing.places.iter().any(|p| moved.iter().any(|top| below(p, top))));
    }

    fn touch_those(&mut self, which: impl Fn(&Thing) -> bool) {
        let found: Vec<usize> = self.things.iter().enumerate().filter(|(_, thing)| which(thing)).map(|(index, _)| index).collect();
        for thing in found {
            self.touch(thing);
        }
    }

    /// Something may have happened to a thing.
    fn touch(&mut self, index: usize) {
        let Some(thing) = self.things.get_mut(index) else { return };
        if self.due.contains_key(&index) {
            return;
        }
        let next = (thing.pause * 2).min(LONGEST).max(thing.took * SHARE);
        let again = thing.looked.is_some_and(|at| at.elapsed() < next);
        thing.pause = if again { next } else { PAUSE };
        self.due.insert(index, Instant::now() + thing.pause);
    }
}

impl Thing {
    fn key(&self) -> Key {
        match &self.what {
            What::Object(key) => key.clone(),
            What::Entries(path) | What::Look(path) => Key::new(Kind::File, path),
        }
    }

    /// What is told of, where these differ: in a directory the names themselves.
    fn keys(&self, names: &BTreeSet<String>) -> Vec<Key> {
        match &self.what {
            What::Entries(path) if !names.is_empty() => {
                let within = |name: &String| Key::new(Kind::File, format!("{}/{name}", path.trim_end_matches('/')));
                names.iter().map(within).collect()
            }
            _ => vec![self.key()],
        }
    }

    /// The attributes that differ from what is there now (none: it cannot be read), and the lows that mind that; `None`: nobody does.
    fn differs(&self, now: Option<&Attrs>) -> Option<(BTreeSet<String>, Vec<usize>)> {
        let names: BTreeSet<String> = match (&self.seen, now) {
            (None, None) => return None,
            (Some(before), Some(now)) if before == now => return None,
            (Some(before), Some(now)) => {
                before.keys().chain(now.keys()).filter(|name| before.get(*name) != now.get(*name)).cloned().collect()
            }
            _ => BTreeSet::new(),
        };
        let minds = |minds: &&Minds| match &minds.attributes {
            Some(own) if !names.is_empty() => !names.is_disjoint(own),
            _ => true,
        };
        let lows: Vec<usize> = self.minds.iter().filter(minds).map(|minds| minds.low).collect();
        (!lows.is_empty()).then_some((names, lows))
    }
}

/// What a plan has read, as far as a state minds it: what it speaks of, what it lists, what its conditions look at.
fn things(sys: &System, plan: &Plan) -> Vec<Thing> {
    let commands = Commands::with(plan.grains.clone());
    let projection = Projection::over(sys, plan.reads.clone());
    let planner = Planner::new(&plan.lows, &plan.functions, projection, &commands, false, &plan.mask);
    let projection = &planner.projection;
    let mut things: BTreeMap<What, Vec<Minds>> = BTreeMap::new();
    for (index, (low, function)) in plan.lows.iter().zip(&plan.functions).enumerate() {
        let mut minds = |what, attributes| things.entry(what).or_default().push(Minds { low: index, attributes });
        let asker = Asker { projection, commands: &commands, permitted: false };
        let (_, asked) = projection.following(|| asker.decide(low));
        let looks = asked.looks.into_iter().map(What::Look);
        asked.keys.into_iter().map(What::Object).chain(looks).for_each(|what| minds(what, None));

        let view = View { projection, lows: &plan.lows, low };
        // What cannot be said before an earlier change is done is minded as a whole.
        let ((keys, want), asked) =
            projection.following(|| (planner.objects(&**function, &view).unwrap_or_default(), function.want(&view)));
        let wanted = match want {
            Ok(Want::Is(wanted) | Want::Then(wanted, _)) => wanted,
            _ => Vec::new(),
        };
        for key in keys {
            let attributes = attributes_of(low, &**function, &key, &wanted);
            minds(What::Object(key), attributes);
        }
        asked.lists.into_iter().for_each(|directory| minds(What::Entries(directory), None));
    }
    let Reads { keys, looks, lists } = planner.projection.reads();
    let of = |(what, minds): (What, Vec<Minds>)| {
        let seen = match &what {
            What::Object(key) => telling(keys.get(key)?),
            What::Look(path) => look_attrs(looks.get(path)?.as_ref()),
            What::Entries(path) => entries_attrs(lists.get(path)?),
        };
        let (blind, places, kernel, units, looked) = Default::default();
        Some(Thing { what, seen: Some(seen), minds, blind, places, kernel, units, looked, pause: PAUSE, took: Duration::ZERO })
    };
    things.into_iter().filter_map(of).collect()
}

/// The attributes of an object that a low speaks of; `None`: all.
fn attributes_of(low: &Low, function: &dyn Function, key: &Key, wanted: &[(Key, Attrs)]) -> Option<BTreeSet<String>> {
    let mut own: BTreeSet<String> = wanted.iter().filter(|(of, _)| of == key).flat_map(|(_, attrs)| attrs.keys().cloned()).collect();
    // Packages that are there already are not wanted of anybody.
    if key.kind == Kind::Packages && !["held", "unheld", "uptodate"].contains(&low.fun.as_str()) {
        let manager = packages::manager::of(&key.name).ok();
        own.extend(function.parts().into_iter().map(|name| manager.map_or(name.clone(), |manager| manager.named(&name))));
    }
    (!own.is_empty()).then_some(own)
}

fn read(sys: &System, what: &What) -> Option<Attrs> {
    match what {
        What::Object(key) => match object::of(key).and_then(|object| object.read(sys)) {
            Ok(attrs) => Some(telling(&attrs)),
            Err(error) if error.code == Code::Unreachable => Some(Attrs::new()),
            Err(_) => None,
        },
        What::Entries(path) => entries(sys, path).ok().map(|entries| entries_attrs(&entries)),
        What::Look(path) => look_at_host(sys, path).ok().map(|look| look_attrs(look.as_ref())),
    }
}

/// One word for all that a look tells of each.
fn entries_attrs(entries: &BTreeMap<String, Attrs>) -> Attrs {
    let word = |attrs: &Attrs| attrs.values().map(Value::to_text).collect::<Vec<_>>().join(" ");
    attributes(entries.iter().map(|(name, attrs)| (name.clone(), Value::Str(word(attrs)))))
}

fn look_attrs(look: Option<&Look>) -> Attrs {
    attributes(look.map(|look| ("look".to_owned(), Value::Str(format!("{look:?}")))))
}
