//! The journal of a run: what was there before each change, written and synced before the change, so that whatever happens to agent,
//! connection, controller or power, the host still knows the way back.
//!
//! `/var/lib/basalt/runs/RUN/journal` is append-only, one entry a line: number, checksum, JSON. A line that is cut or garbled at the
//! end is what a power cut leaves, and is ignored; one in the middle is damage, and an error. `agent` reads journals and reverts.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::memory::{Made, Memory};
use super::{Command, STATE_DIR, System};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::plan::{Hash, Key, Kind, Outcome, RunHeader, Tally};
use crate::value::Attrs;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "entries are read and written one by one, and never many kept")]
pub enum Entry {
    /// The first one. `generation`: how many runs the host has seen, this one included; `at`: the host's own clock.
    Run {
        header: RunHeader,
        generation: u64,
        at: u64,
    },
    /// Before the first change of a key in this run; empty attributes: absent. `secret`: neither it nor what replaces it is ever shown.
    /// `shown`: the key's name with what is secret in it masked, where that is another. `kept`: the attributes are in the run's keep, because
    /// there is a secret in them.
    Before {
        key: Key,
        attrs: Attrs,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kept: Option<Hash>,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        secret: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        shown: Option<String>,
    },
    /// What a change of a key reached; where it failed halfway, what was there then. A key without it was not touched by a run that ended.
    /// `secret`: a secret is in it now. Attributes that hold one themselves are left out.
    After {
        key: Key,
        attrs: Attrs,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        secret: bool,
    },
    /// Things in which there is a secret, known from earlier runs or because they are as wanted.
    Secret {
        keys: BTreeSet<Key>,
    },
    /// What basalt made: all of it (what the run begins with), or of this key, instead of what was known of it.
    Made {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<Key>,
        things: Vec<Made>,
    },
    /// A command is about to run. `again`: run it again at the end of a rollback; `undo` takes it back.
    Ran {
        shown: String,
        command: Noted,
        #[serde(default)]
        again: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        undo: Option<Noted>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        one_way: Option<String>,
    },
    /// A change made this necessary (a restart, a reload) and it has not run yet. Written together with the change's `Before`.
    Owed(Owed),
    /// What was owed has run.
    Paid {
        what: String,
    },
    Outcome(Outcome),
    /// The run ended by itself. Without it, it was broken off.
    End {
        tally: Tally,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stopped: Option<String>,
        at: u64,
    },
}

/// A command as a journal has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Noted {
    /// It holds a secret: it stands in the run's keep, and here how it is shown.
    Kept {
        kept: Hash,
        shown: String,
    },
    Plain(Command),
}

/// Something that must still happen, over the end of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Owed {
    /// Names it: the same `what` is owed once (the planner takes state, id and name).
    pub what: String,
    /// As the plan prints it.
    pub shown: String,
}

/// A journal as it was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Journal {
    pub entries: Vec<Entry>,
    /// The end was cut off in the middle of writing.
    pub torn: bool,
}

/// A run whose journal begins well, as a listing needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct RunStart {
    pub header: RunHeader,
    pub generation: u64,
}

/// The run under way.
pub(super) struct Run {
    pub id: String,
    file: File,
    length: u64,
    next: u64,
    /// The journal could neither be written nor be put back: nothing may change any more.
    broken: bool,
    /// Kept contents that are written but not yet synced.
    pub unsynced: Vec<File>,
    stands: Standing,
}

/// What holds over the end of a run: each begins with what the one before left.
#[derive(Clone, Default)]
struct Standing {
    owed: Vec<Owed>,
    secret_keys: BTreeSet<Key>,
    made: Memory,
}

impl Standing {
    fn lay(&mut self, entry: &Entry) {
        settle(&mut self.owed, entry);
        note_secret(&mut self.secret_keys, entry);
        self.made.lay(entry);
    }
}

impl Entry {
    /// Whether it must be on the disk before anything else happens.
    fn decisive(&self) -> bool {
        !matches!(self, Entry::After { .. } | Entry::Made { .. } | Entry::Outcome(_) | Entry::Paid { .. })
    }
}

impl System {
    /// Starts a run: from here on `journal` writes, and the host's generation is one higher.
    pub fn begin(&self, header: &RunHeader) -> Result<()> {
        let id = header.id.as_str();
        if !is_run_id(id) {
            return Err(Diagnostic::new(Code::Damaged, format!("{id:?} is no name for a run")).into());
        }
        if self.run.borrow().is_some() {
            return Err(Diagnostic::new(Code::Internal, format!("run {id} begins while another is under way")).into());
        }
        self.mutating(&format!("begin the run {id}"))?;
        self.make_state_dir()?;
        self.sweep_after_last()?;
        let Standing { owed, secret_keys: secret, made } = self.stands()?;
        let generation = self.generation()? + 1;
        let place = self.run_dir(id);
        let failed = |e: io::Error| Diagnostic::io(format!("begin the journal of run {id}"), &e);
        let make = |path: &Path| fs::DirBuilder::new().mode(0o700).create(path);
        match make(&self.runs_dir()) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(failed(e).into()),
            _ => {}
        }
        make(&place).and_then(|()| make(&place.join("keep"))).map_err(failed)?;
        let file = File::options().append(true).create_new(true).mode(0o600).open(place.join("journal")).map_err(failed)?;
        *self.run.borrow_mut() =
            Some(Run { id: id.to_owned(), file, length: 0, next: 1, broken: false, unsynced: Vec::new(), stands: Standing::default() });
        let mut entries = vec![Entry::Run { header: header.clone(), generation, at: now() }];
        entries.extend(owed.into_iter().map(Entry::Owed));
        if !secret.is_empty() {
            entries.push(Entry::Secret { keys: secret });
        }
        entries.extend(made.entry());
        self.journal(&entries)?;
        sync_dir(&place).and_then(|()| sync_dir(&self.runs_dir())).map_err(failed)?;
        self.contents().look_in(place.join("keep"));
        Ok(())
    }

    /// What the last run left half written, where it was broken off.
    fn sweep_after_last(&self) -> Result<()> {
        let Some(newest) = self.runs()?.into_iter().next() else { return Ok(()) };
        // A damaged journal is told of elsewhere, and does not keep the next run from going on.
        let entries = self.read_journal(&newest.header.id).unwrap_or_default().entries;
        if matches!(entries.last(), Some(Entry::End { .. })) {
            return Ok(());
        }
        for entry in entries {
            if let Entry::Before { key: Key { kind: Kind::File, name }, .. } = entry {
                self.sweep(&name)?;
            }
        }
        Ok(())
    }

    /// The run under way.
    pub fn run_id(&self) -> Option<String> {
        self.run.borrow().as_ref().map(|run| run.id.clone())
    }

    /// Writes entries in one go, and syncs them (with what was kept for them) before it comes back where one of them must not be lost.
    pub fn journal(&self, entries: &[Entry]) -> Result<()> {
        self.mutating("write the journal")?;
        let mut run = self.run.borrow_mut();
        let run = run.as_mut().ok_or_else(|| Diagnostic::new(Code::Internal, "the journal is written outside of a run"))?;
        let failed = |run: &Run, e: io::Error| Diagnostic::io(format!("write the journal of run {}", run.id), &e);
        if run.broken {
            return Err(failed(run, io::Error::other("an earlier write failed halfway")).into());
        }
        let mut lines = Vec::new();
        for (entry, number) in entries.iter().zip(run.next..) {
            let json = serde_json::to_string(entry).map_err(|e| failed(run, e.into()))?;
            lines.extend_from_slice(line(number, &json).as_bytes());
        }
        if entries.iter().any(Entry::decisive) {
            for file in std::mem::take(&mut run.unsynced) {
                file.sync_data().map_err(|e| failed(run, e))?;
            }
        }
        let written = run.file.write_all(&lines).and_then(|()| match entries.iter().any(Entry::decisive) {
            true => run.file.sync_data(),
            false => Ok(()),
        });
        if let Err(e) = written {
            // Half a line in the middle would be damage: take it off again (the disk is full, most likely).
            run.broken = run.file.set_len(run.length).is_err();
            return Err(failed(run, e).into());
        }
        run.length += lines.len() as u64;
        run.next += entries.len() as u64;
        for entry in entries {
            run.stands.lay(entry);
        }
        Ok(())
    }

    /// Ends the run under way, and lets go of the oldest ones.
    pub fn end(&self, tally: Tally, stopped: Option<String>) -> Result<()> {
        self.journal(&[Entry::End { tally, stopped, at: now() }])?;
        self.run.borrow_mut().take();
        self.retain_runs();
        Ok(())
    }

    /// Leaves a run that cannot go on: its journal stays without an end, as if the agent had been killed.
    pub fn abandon(&self) {
        self.run.borrow_mut().take();
    }

    /// What must still happen, from this run or earlier ones.
    pub fn owed(&self) -> Result<Vec<Owed>> {
        self.standing().map(|(owed, _)| owed)
    }

    /// What must still happen, and the things in which a run left a secret: what is in those is not shown, also when nobody knows that
    /// secret any more.
    pub fn standing(&self) -> Result<(Vec<Owed>, BTreeSet<Key>)> {
        self.stands().map(|stands| (stands.owed, stands.secret_keys))
    }

    /// What basalt made on this host.
    pub fn made(&self) -> Result<Memory> {
        self.stands().map(|stands| stands.made)
    }

    /// What is known of a thing in the run under way, and the number of what it makes next.
    pub fn made_of(&self, key: &Key) -> (Vec<Made>, u64) {
        self.run.borrow().as_ref().map(|run| (run.stands.made.of(key).to_vec(), run.stands.made.next())).unwrap_or_default()
    }

    fn stands(&self) -> Result<Standing> {
        if let Some(run) = &*self.run.borrow() {
            return Ok(run.stands.clone());
        }
        let mut stands = Standing::default();
        let Some(newest) = self.runs()?.into_iter().next() else { return Ok(stands) };
        // Each run starts with what stood then, so the newest knows all. What a damaged journal had to say cannot be known.
        self.read_journal(&newest.header.id).unwrap_or_default().entries.iter().for_each(|entry| stands.lay(entry));
        Ok(stands)
    }

    /// How many runs the host has seen.
    pub fn generation(&self) -> Result<u64> {
        Ok(self.runs()?.first().map_or(0, |run| run.generation))
    }

    /// The runs with a journal, newest first.
    pub fn runs(&self) -> Result<Vec<RunStart>> {
        let entries = match fs::read_dir(self.runs_dir()) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            // Who is not root plans too, and sees no runs.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Ok(Vec::new()),
            Err(e) => return Err(Diagnostic::io(format!("list {}", self.runs_dir().display()), &e).into()),
        };
        let mut runs: Vec<RunStart> = entries.filter_map(|entry| start_of(&entry.ok()?.path().join("journal"))).collect();
        runs.sort_by_key(|run| std::cmp::Reverse(run.generation));
        Ok(runs)
    }

    /// The journal of a run.
    pub fn read_journal(&self, id: &str) -> Result<Journal> {
        if !is_run_id(id) {
            return Err(Diagnostic::new(Code::Damaged, format!("{id:?} is no name for a run")).into());
        }
        let path = self.run_dir(id).join("journal");
        let bytes = fs::read(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => {
                Diagnostic::new(Code::Failed, format!("this host knows no run {id}")).hint("`basalt runs` lists them")
            }
            _ => Diagnostic::io(format!("read {}", path.display()), &e),
        })?;
        parse(&bytes).map_err(|why| {
            Diagnostic::new(Code::Damaged, format!("the journal of run {id} is damaged: {why}"))
                .detail(format!("{} on the host", path.display()))
                .hint("what this run changed can no longer be taken back by basalt; the kept files are beside the journal")
                .into()
        })
    }

    pub(super) fn runs_dir(&self) -> PathBuf {
        self.path(STATE_DIR).join("runs")
    }

    pub(super) fn run_dir(&self, id: &str) -> PathBuf {
        self.runs_dir().join(id)
    }

    /// Makes the state directory, or sees that the one there is nobody else's.
    pub fn make_state_dir(&self) -> Result<PathBuf> {
        let place = self.path(STATE_DIR);
        let failed = |e: io::Error| {
            let error = Diagnostic::io(format!("make {STATE_DIR}"), &e);
            match e.kind() {
                io::ErrorKind::PermissionDenied => error.hint("changing a host needs root: `sudo: True` in the roster, or the user root"),
                io::ErrorKind::ReadOnlyFilesystem => error.hint("the filesystem is mounted read-only; nothing was changed"),
                io::ErrorKind::StorageFull => error.hint("make room on the filesystem; nothing was changed"),
                _ => error,
            }
        };
        if let Some(parent) = place.parent() {
            fs::DirBuilder::new().mode(0o755).recursive(true).create(parent).map_err(failed)?;
        }
        match fs::DirBuilder::new().mode(0o700).create(&place) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(failed(e).into()),
            _ => {}
        }
        let meta = fs::symlink_metadata(&place).map_err(failed)?;
        let stat = super::Stat::of(&meta);
        let us = rustix::process::geteuid().as_raw();
        let wrong = match () {
            _ if stat.kind != super::FileKind::Directory => "it is no directory".to_owned(),
            _ if stat.uid != us => format!("it belongs to user {}, not to {us}", stat.uid),
            _ if stat.mode & 0o022 != 0 => format!("others may write to it (mode {:04o})", stat.mode),
            _ => return Ok(place),
        };
        Err(Diagnostic::new(Code::Failed, format!("{STATE_DIR} cannot be trusted: {wrong}"))
            .detail("Journals and kept files in it decide what a rollback writes, so it must belong to the user the agent runs as alone.")
            .hint(format!("look at what is in it, then `chown {us} {STATE_DIR} && chmod 0700 {STATE_DIR}`, or move it away"))
            .into())
    }
}

/// Lays an entry over what is owed.
fn settle(owed: &mut Vec<Owed>, entry: &Entry) {
    match entry {
        Entry::Owed(new) => {
            owed.retain(|o| o.what != new.what);
            owed.push(new.clone());
        }
        Entry::Paid { what } => owed.retain(|o| o.what != *what),
        _ => {}
    }
}

/// Lays an entry over what is known to hold a secret. From the before-image on until it is clear what the change reached, a thing counts.
fn note_secret(secret_keys: &mut BTreeSet<Key>, entry: &Entry) {
    match entry {
        Entry::Secret { keys } => secret_keys.extend(keys.iter().cloned()),
        Entry::Before { key, secret: true, .. } | Entry::After { key, secret: true, .. } => drop(secret_keys.insert(key.clone())),
        Entry::After { key, .. } => drop(secret_keys.remove(key)),
        _ => {}
    }
}

fn line(number: u64, json: &str) -> String {
    format!("{number} {} {json}\n", checksum(number, json))
}

fn checksum(number: u64, json: &str) -> String {
    let Hash(hash) = Hash::of(format!("{number} {json}").as_bytes());
    hash.chars().take(16).collect()
}

/// Number and entry of a line, where its checksum holds.
fn read_line(line: &[u8]) -> Option<(u64, Entry)> {
    let line = std::str::from_utf8(line).ok()?;
    let (number, rest) = line.split_once(' ')?;
    let (sum, json) = rest.split_once(' ')?;
    let number = number.parse().ok()?;
    if checksum(number, json) != sum {
        return None;
    }
    Some((number, serde_json::from_slice(json.as_bytes()).ok()?))
}

/// Reads a journal. A bad end is a torn write; anything bad with something good behind it is damage.
fn parse(bytes: &[u8]) -> std::result::Result<Journal, String> {
    let mut journal = Journal::default();
    let mut bad = None;
    for (index, line) in bytes.split_inclusive(|b| *b == b'\n').enumerate() {
        let number = index as u64 + 1;
        let whole = line.strip_suffix(b"\n").and_then(read_line);
        match (whole, bad) {
            (Some((n, entry)), None) if n == number => journal.entries.push(entry),
            (Some(_), Some(bad)) => return Err(format!("line {bad} cannot be read, and there are lines behind it")),
            (Some((n, _)), None) => return Err(format!("line {number} says that it is line {n}")),
            (None, _) => bad = bad.or(Some(number)),
        }
    }
    journal.torn = bad.is_some();
    match journal.entries.first() {
        Some(Entry::Run { .. }) => Ok(journal),
        Some(_) => Err("it does not begin with its run".into()),
        None => Err("it is empty".into()),
    }
}

/// The first line only.
fn start_of(journal: &Path) -> Option<RunStart> {
    use std::io::BufRead;
    let mut first = Vec::new();
    let file = super::files::open_file(journal).ok()?;
    io::BufReader::new(io::Read::take(file, 1 << 20)).read_until(b'\n', &mut first).ok()?;
    match read_line(first.strip_suffix(b"\n")?)? {
        (1, Entry::Run { header, generation, .. }) => Some(RunStart { header, generation }),
        _ => None,
    }
}

/// A run's id is the name of a directory: nothing that leads elsewhere.
fn is_run_id(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') && !id.starts_with('-')
}

pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Seconds since the epoch.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
