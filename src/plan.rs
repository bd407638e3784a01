//! The types that travel along basalt's path: low chunks in, planned steps, outcomes out.
//!
//! `Low` is what the compiler made of the tree for one host, with every requisite already resolved to indexes. The agent turns a
//! list of `Low` into a `Plan` of `Step`s; applying it gives one `Outcome` per low.

pub mod requisite;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::diagnostic::Span;
use crate::value::{Attrs, Map, Value};

/// One state to be true on a host, in execution order. Indexes in `requisites` count in the same list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Low {
    /// `__id__`.
    pub id: String,
    /// `__sls__`.
    pub sls: String,
    /// Module: `file`.
    pub state: String,
    /// Function: `managed`.
    pub fun: String,
    pub name: String,
    /// The function's own arguments, `name` among them; neither requisites nor the arguments every state takes (`Control`).
    pub args: Map,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requisites: Vec<Requisite>,
    #[serde(default, skip_serializing_if = "Control::is_default")]
    pub control: Control,
    /// Contents the controller found for this state, by the argument or file they are for (see `Content`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contents: Vec<Content>,
    /// Why it fails, where the controller knows it already (what it was to make of pillar or grains cannot be made).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// Where the id stands in its SLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Option<Span>,
}

impl Low {
    /// `file.managed`.
    pub fn function(&self) -> String {
        format!("{}.{}", self.state, self.fun)
    }

    /// Whether commands may run on its behalf besides its own (conditions, checks).
    pub fn has_conditions(&self) -> bool {
        !(self.control.unless.is_empty() && self.control.onlyif.is_empty() && self.control.check_cmd.is_empty())
    }
}

/// Why one low waits for others. `of` are indexes of the lows it names; all of them count, or one of them where `any`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Requisite {
    pub kind: RequisiteKind,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub any: bool,
    pub of: Indexes,
}

/// Indexes of lows, ascending, as runs of neighbours (first and last): the states of an SLS mostly stand together, and thousands of
/// states may require them all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Indexes(Vec<(usize, usize)>);

impl Indexes {
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().flat_map(|(first, last)| *first..=*last)
    }

    /// Those of all parts.
    pub fn joined(parts: &[Indexes]) -> Indexes {
        Indexes::of_runs(parts.iter().flat_map(|part| &part.0).copied().collect())
    }

    fn of_runs(mut parts: Vec<(usize, usize)>) -> Indexes {
        parts.sort_unstable();
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for (first, last) in parts {
            match runs.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => runs.push((first, last)),
            }
        }
        Indexes(runs)
    }

    pub fn contains(&self, index: usize) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&index))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all of them are below `count`.
    pub fn are_below(&self, count: usize) -> bool {
        self.0.iter().all(|(first, last)| first <= last && *last < count)
    }
}

impl FromIterator<usize> for Indexes {
    fn from_iter<I: IntoIterator<Item = usize>>(indexes: I) -> Indexes {
        Indexes::of_runs(indexes.into_iter().map(|index| (index, index)).collect())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RequisiteKind {
    Require,
    Watch,
    Listen,
    Onchanges,
    Onfail,
    Prereq,
}

/// Arguments that every state takes, as Salt means them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Control {
    /// Conditions in their order. A string is a shell command, a mapping an execution function call (`fun: file.file_exists`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unless: Vec<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub onlyif: Vec<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub creates: Vec<String>,
    /// Commands that must succeed after the change (`file.managed` runs its own on the new file before it is in place).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub check_cmd: Vec<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub failhard: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Salt's `runas`, `cwd`, `env`, `shell` … of conditions are read from the state's own arguments.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub parallel: bool,
}

impl Control {
    fn is_default(&self) -> bool {
        *self == Control::default()
    }
}

/// Salt's `retry`: times in seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Retry {
    pub attempts: u32,
    pub until: bool,
    pub interval: u32,
    pub splay: u32,
}

/// Bytes that belong to a low, known by their hash and sent only when the host asks for them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Content {
    /// What it is for. `source`: the file a `source` argument named, rendered where it is a template.
    /// `contents`: what the argument, `contents_pillar` or `contents_grains` gave, where the host cannot make it of the argument alone.
    /// `file.recurse`: the path below the directory, one `Content` a file, already chosen by `include_pat`, `exclude_pat` and `maxdepth`;
    /// a path that ends in `/` is an empty directory (`include_empty`).
    pub name: String,
    pub hash: Hash,
    /// Bytes.
    pub size: u64,
    /// The mode of the source file, for `mode: keep`; octal as a number (0o644).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Where a symlink in a source directory points (`keep_symlinks`); then there are no bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// It holds a secret: neither it nor what it replaces is ever shown.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub secret: bool,
}

/// SHA-256 of contents, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hash(pub String);

impl Hash {
    pub fn of(bytes: &[u8]) -> Hash {
        use sha2::Digest;
        Hash(hex(&sha2::Sha256::digest(bytes)))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// HMAC-SHA-256 (RFC 2104) of the parts one behind the other.
pub fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    const BLOCK: usize = 64;
    let short = if key.len() > BLOCK { Sha256::digest(key).to_vec() } else { key.to_vec() };
    let padded = |with: u8| -> Vec<u8> { short.iter().copied().chain(std::iter::repeat(0)).take(BLOCK).map(|byte| byte ^ with).collect() };
    let mut inner = Sha256::new().chain_update(padded(0x36));
    parts.iter().for_each(|part| inner.update(part));
    Sha256::new().chain_update(padded(0x5c)).chain_update(inner.finalize()).finalize().into()
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// What kind of thing an object is. One file in `object/` each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Anything at a path: file, directory, link. The name is the absolute path on the host.
    File,
    User,
    Group,
    /// All packages of one manager: `packages:apt`.
    Packages,
    /// A unit of the service manager, with its suffix: `service:nginx.service`.
    Service,
    /// The crontab of a user.
    Crontab,
    /// A value of the running kernel: `sysctl:net.ipv4.ip_forward`.
    Sysctl,
    /// A work tree of git, by its directory.
    Git,
    /// An answer in debconf's database, by its question.
    Debconf,
    /// A compiled locale, by glibc's name for it: `locale:de_DE.utf8`.
    Locale,
    /// What is mounted at a path: `mount:/srv`.
    Mount,
    /// A device or file that is swapped to.
    Swap,
    /// What a block device holds: `blockdev:/dev/vdb`.
    Blockdev,
    /// A subvolume of btrfs, by its path; on a device that need not be mounted as `subvolume:/dev/vdb::/@home`.
    Subvolume,
    /// A btrfs as a whole, by a path in it or as `btrfs:/dev/vdb::/`: whether it has quotas, what its default subvolume is.
    Btrfs,
    /// A module of the kernel.
    Module,
    /// The Python packages of one pip: `pip:/srv/app/bin/pip`.
    Pip,
    /// A part of LVM: `lvm:pv:/dev/vdb`, `lvm:vg:data`, `lvm:lv:data/home`.
    Lvm,
    /// A table of the kernel's packet filter: `iptables:ipv4/filter`.
    Iptables,
    /// A role of a PostgreSQL server: `postgres_role:app`, of one elsewhere `postgres_role:app?host=db1`.
    #[serde(rename = "postgres_role")]
    PostgresRole,
    #[serde(rename = "postgres_database")]
    PostgresDatabase,
}

impl Kind {
    pub const ALL: &'static [Kind] = &[
        Kind::File,
        Kind::User,
        Kind::Group,
        Kind::Packages,
        Kind::Service,
        Kind::Crontab,
        Kind::Sysctl,
        Kind::Git,
        Kind::Debconf,
        Kind::Locale,
        Kind::Mount,
        Kind::Swap,
        Kind::Blockdev,
        Kind::Subvolume,
        Kind::Btrfs,
        Kind::Module,
        Kind::Pip,
        Kind::Lvm,
        Kind::Iptables,
        Kind::PostgresRole,
        Kind::PostgresDatabase,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Kind::File => "file",
            Kind::User => "user",
            Kind::Group => "group",
            Kind::Packages => "packages",
            Kind::Service => "service",
            Kind::Crontab => "crontab",
            Kind::Sysctl => "sysctl",
            Kind::Git => "git",
            Kind::Debconf => "debconf",
            Kind::Locale => "locale",
            Kind::Mount => "mount",
            Kind::Swap => "swap",
            Kind::Blockdev => "blockdev",
            Kind::Subvolume => "subvolume",
            Kind::Btrfs => "btrfs",
            Kind::Module => "module",
            Kind::Pip => "pip",
            Kind::Lvm => "lvm",
            Kind::Iptables => "iptables",
            Kind::PostgresRole => "postgres_role",
            Kind::PostgresDatabase => "postgres_database",
        }
    }
}

/// The identity of an object on a host: what journal, projection, pruning and guard know it by. Printed and parsed as `kind:name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub kind: Kind,
    pub name: String,
}

impl Key {
    pub fn new(kind: Kind, name: impl Into<String>) -> Key {
        Key { kind, name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.name(), self.name)
    }
}

impl FromStr for Key {
    type Err = String;
    fn from_str(s: &str) -> Result<Key, String> {
        let (kind, name) = s.split_once(':').ok_or_else(|| format!("{s:?} is no key of an object"))?;
        let kind = Kind::ALL.iter().copied().find(|k| k.name() == kind).ok_or_else(|| format!("{kind:?} is no kind of object"))?;
        Ok(Key::new(kind, name))
    }
}

impl Serialize for Key {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Key, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What a step will do, as `plan` counts and prints it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Nothing: it is as described, or a condition or requisite keeps it from running.
    #[default]
    None,
    Add,
    Change,
    Remove,
    /// A command, a restart: something happens that is no difference between two states.
    Run,
    /// Known after apply: only an earlier change decides.
    Unknown,
}

/// One object that a step changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    pub key: Key,
    pub action: Action,
    /// What was there when the plan was made, earlier steps laid over it. Only the attributes that differ.
    pub before: Attrs,
    /// What will be there. Only the attributes that differ.
    pub after: Attrs,
    /// A unified diff or one line per attribute, for people; secrets masked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub diff: String,
    /// Why this cannot be taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_way: Option<String>,
}

/// A planned low that does not stay as it is, or that has something to say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Index into the lows the plan was made of.
    pub low: usize,
    pub id: String,
    /// `file.managed`.
    pub state: String,
    pub name: String,
    pub sls: String,
    pub action: Action,
    /// Why it changes, runs, waits or stays: one line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    /// What a `run` step will run, in the user's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Why this cannot be taken back; also where only one of the changes cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_way: Option<String>,
    /// The indexes of the lows it waits for, where the action is `unknown`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<usize>,
    /// It would fail as things are: the comment says why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fails: Option<String>,
    /// It can cut the connection: in a word or two, by what (`sshd`, `the network`). No part of the fingerprint: it depends on who logs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<String>,
}

/// What one host will do. Made by its agent; shown, saved, and applied exactly so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostPlan {
    /// Steps that change, run, are unknown or would fail; in execution order.
    pub steps: Vec<Step>,
    /// Lows that stay as they are.
    pub unchanged: usize,
    /// Everything that decides what apply does, in one hash: steps, lows, what was read. Equal fingerprints apply equally.
    pub fingerprint: Hash,
    /// How many runs the host has seen. A plan of an older generation is stale.
    pub generation: u64,
    /// Commands that templates and conditions ran while the plan was made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<String>,
    /// What the host has to say besides: an unfinished run, a restart still owed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
}

impl HostPlan {
    /// Whether it can cut the connection: then the run is to be confirmed over a new one.
    pub fn is_guarded(&self) -> bool {
        self.steps.iter().any(|step| step.guard.is_some())
    }
}

/// How a state ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    Changed,
    Failed,
    /// A requisite failed or the run was stopped; nothing was done.
    Skipped,
}

/// What became of one low.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    pub low: usize,
    pub result: Verdict,
    /// Objects whose state differs from that before the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    pub duration_ms: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
}

/// Counts of one host's run, for the recap line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    pub ok: usize,
    pub changed: usize,
    pub failed: usize,
    pub skipped: usize,
}

impl Tally {
    pub fn count(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Ok => self.ok += 1,
            Verdict::Changed => self.changed += 1,
            Verdict::Failed => self.failed += 1,
            Verdict::Skipped => self.skipped += 1,
        }
    }
}

/// Who runs what, when: the first line of a journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunHeader {
    /// `20261120-0752-k3f9`.
    pub id: String,
    /// `user@controller`.
    pub who: String,
    /// Milliseconds since the epoch, by the controller's clock: runs of the same second have an order, also between hosts.
    pub started: u64,
    pub tree: String,
    pub commit: String,
    /// The state repository's name for people (its path or URL).
    pub repository: String,
    /// The runs that this one takes back; empty for an ordinary run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rolls_back: Vec<String>,
}

impl RunHeader {
    /// The run by which the host itself takes this one back, when nobody confirms it; `attempt` counts from 1.
    pub fn taken_back(&self, attempt: usize) -> RunHeader {
        let id = if attempt == 1 { format!("{}-guard", self.id) } else { format!("{}-guard{attempt}", self.id) };
        RunHeader { id, rolls_back: vec![self.id.clone()], ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_as_it_was_printed() {
        let key = Key::new(Kind::File, "/etc/a:b");
        assert_eq!(key.to_string().parse::<Key>(), Ok(key));
        assert!("nothing".parse::<Key>().is_err());
        assert!("planet:mars".parse::<Key>().is_err());
    }

    #[test]
    fn indexes_are_runs_of_neighbours() {
        let indexes: Indexes = [7, 2, 3, 3, 4, 9, 8].into_iter().collect();
        assert_eq!(serde_json::to_string(&indexes).unwrap(), "[[2,4],[7,9]]");
        assert_eq!(indexes.iter().collect::<Vec<_>>(), [2, 3, 4, 7, 8, 9]);
        assert!(indexes.contains(9) && !indexes.contains(5) && indexes.are_below(10) && !indexes.are_below(9));
        assert!(!serde_json::from_str::<Indexes>("[[4,2]]").unwrap().are_below(10));
        assert!(Indexes::default().is_empty());
    }
}
