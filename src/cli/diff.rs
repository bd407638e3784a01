//! `basalt diff A..B`: what a change of the tree means for each host, asking none of them.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use clap::Args;
use serde_json::{Value as Json, json};

use super::context;
use super::markdown;
use super::opened::Opened;
use super::print::{Color, JSON_VERSION, Paint, Printer, clean, count, host_names};
use super::{Ended, RepositoryArgs, ScopeArgs, TargetArgs};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::engine::compile::Answers;
use crate::engine::difference::{Action, Argument, Change, Contents, Meaning, Side, on_all_processors};
use crate::engine::repository::{Snapshot, is_url};
use crate::engine::tree::TreeCompiler;
use crate::fleet::target::Target;
use crate::fleet::{Host, Roster};
use crate::lang::What;
use crate::store::Store;
use crate::value::{Map, Value};

/// Grains older than this (seconds) are told.
const OLD: u64 = 3600;
/// Arguments of states that come or go are shown on a line each, up to this width.
const WIDTH: usize = 100;

#[derive(Args)]
pub struct DiffArgs {
    /// What to compare, in git's words: `A..B`, `A...B` (since they parted), or `A` alone: with the work tree
    #[arg(value_name = "A..B", conflicts_with = "commit")]
    range: String,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    repository: RepositoryArgs,
    /// One JSON object per line
    #[arg(long)]
    pub json: bool,
    /// Markdown, as a comment of a pull request
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// Exit with 2 when something differs
    #[arg(long)]
    detailed_exitcode: bool,
}

/// Hosts for which the change means the same.
pub struct Group {
    pub hosts: Vec<String>,
    pub meaning: Meaning,
}

/// All that there is to tell.
pub struct Report {
    pub old: String,
    pub new: String,
    pub groups: Vec<Group>,
    pub counts: Counts,
    /// The host whose grains are the oldest, and their age in seconds.
    pub oldest: Option<(u64, String)>,
}

#[derive(Default)]
pub struct Counts {
    pub add: usize,
    pub change: usize,
    pub remove: usize,
    pub hosts: usize,
    pub same: usize,
    pub differ: usize,
    pub unknown: usize,
    pub unseen: usize,
    pub broken: usize,
}

pub async fn run(args: DiffArgs, color: Color) -> Ended {
    let printer = Printer::new(args.json, color);
    let (detailed, as_markdown) = (args.detailed_exitcode, args.markdown);
    let (report, notices) = tokio::task::spawn_blocking(move || compared(&args))
        .await
        .map_err(|e| Diagnostic::new(Code::Internal, format!("the comparison ended unexpectedly: {e}")))??;
    notices.iter().for_each(|notice| printer.fault(notice));
    match () {
        () if printer.is_json() => report_json(&report).iter().for_each(|line| printer.json(line)),
        () if as_markdown => printer.say(&markdown::page(&report)),
        () => printer.say(&text(&report, &printer)),
    }
    let differs = report.groups.iter().any(|group| group.meaning.is_difference());
    Ok(if differs && detailed { 2 } else { 0 })
}

/// One side of the comparison.
struct Version {
    opened: Opened,
    roster: Roster,
    tree: TreeCompiler,
}

impl Version {
    fn at(args: &DiffArgs, commit: Option<&str>) -> Result<Version> {
        let opened = Opened::at(&args.repository, commit)?;
        let what = if args.scope.sls.is_empty() { What::Highstate } else { What::Sls(args.scope.sls.clone()) };
        let tree = opened.tree(what, context::pillar_argument(args.scope.pillar.as_deref())?)?;
        Ok(Version { roster: opened.roster(&args.repository)?, opened, tree })
    }

    /// What is printed of it: the commit, or the work tree.
    fn name(&self) -> String {
        let Snapshot { commit, folder, roots, tree, dirty, .. } = &*self.opened.snapshot;
        let short = |id: &str| id.get(..12).unwrap_or(id).to_owned();
        match () {
            () if roots.is_some() => format!("the roots as they are (tree {})", short(tree)),
            () if folder.is_some() && *dirty => format!("the work tree ({})", short(tree)),
            () => short(commit),
        }
    }
}

/// The two sides of a range: `None` is the work tree.
fn sides(args: &DiffArgs) -> Result<(String, Option<String>)> {
    let head = |text: &str| if text.is_empty() { "HEAD".to_owned() } else { text.to_owned() };
    let named = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    if let Some((a, b)) = args.range.split_once("...") {
        let place = match &args.repository.salt_config {
            Some(_) => {
                return Err(Diagnostic::new(Code::Usage, "A...B needs a repository: name it with --repo instead of --salt-config").into());
            }
            None => &args.repository.repo,
        };
        return Ok((Snapshot::merge_base(place, &head(a), &head(b), &context::cache_folder())?, named(b)));
    }
    let (a, b) = args.range.split_once("..").unwrap_or((&args.range, ""));
    Ok((head(a), named(b)))
}

fn compared(args: &DiffArgs) -> Result<(Report, Vec<Diagnostic>)> {
    let (a, b) = sides(args)?;
    let misunderstood = |fault: crate::diagnostic::Error| {
        // `basalt diff web1`: a target where a commit is wanted.
        if args.range.contains("..") || is_url(&args.repository.repo) || fault.code != Code::Repository {
            return fault;
        }
        fault.hint("the first word is what to compare, as git names it (HEAD~1..HEAD); a TARGET stands behind it").into()
    };
    let old = Version::at(args, Some(&a)).map_err(misunderstood)?;
    let new = Version::at(args, b.as_deref())?;
    let store = context::store_of(&args.repository)?;
    let hosts = meant(args, &old, &new, &store)?;
    let told = on_all_processors(&hosts, |host| {
        let meaning = host.meaning(&old, &new);
        // Equal meanings have equal texts, whatever floats and places do.
        (serde_json::to_string(&meaning).unwrap_or_default(), host.id.clone(), meaning)
    });
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for (key, host, meaning) in told {
        groups.entry(key).or_insert_with(|| Group { hosts: Vec::new(), meaning }).hosts.push(host);
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    groups.iter_mut().for_each(|group| group.hosts.sort());
    groups.sort_by(|a, b| (rank(&a.meaning), &a.hosts).cmp(&(rank(&b.meaning), &b.hosts)));
    let counts = Counts::of(&groups);
    let oldest = hosts.iter().filter_map(|host| Some((host.age()?, host.id.clone()))).max();
    let notices = new.opened.notices.iter().chain(&new.roster.warnings).cloned().collect();
    Ok((Report { old: old.name(), new: new.name(), groups, counts, oldest }, notices))
}

/// What is told first.
fn rank(meaning: &Meaning) -> u8 {
    match meaning {
        Meaning::Breaks { .. } => 0,
        Meaning::Mended { .. } => 1,
        Meaning::Differs { .. } => 2,
        Meaning::Joins | Meaning::Leaves => 3,
        Meaning::Broken { .. } => 4,
        Meaning::Unknown { .. } => 5,
        Meaning::Unseen => 6,
        Meaning::Same => 7,
    }
}

impl Counts {
    fn of(groups: &[Group]) -> Counts {
        let mut out = Counts::default();
        for Group { hosts, meaning } in groups {
            out.hosts += hosts.len();
            match meaning {
                Meaning::Same => out.same += hosts.len(),
                Meaning::Unknown { .. } => out.unknown += hosts.len(),
                Meaning::Unseen => out.unseen += hosts.len(),
                Meaning::Broken { .. } => out.broken += hosts.len(),
                Meaning::Differs { changes } => {
                    out.differ += hosts.len();
                    let of = |action: Action| changes.iter().filter(|change| change.action == action).count() * hosts.len();
                    out.add += of(Action::Added);
                    out.change += of(Action::Changed);
                    out.remove += of(Action::Removed);
                }
                Meaning::Breaks { .. } | Meaning::Mended { .. } | Meaning::Joins | Meaning::Leaves => out.differ += hosts.len(),
            }
        }
        out
    }
}

/// A host of either roster, and what was last seen of it.
struct Known {
    id: String,
    old: Option<Host>,
    new: Option<Host>,
    /// How many seconds ago, and the grains.
    seen: Option<(u64, Map)>,
    answers: Answers,
}

impl Known {
    fn age(&self) -> Option<u64> {
        self.seen.as_ref().map(|(age, _)| *age)
    }

    /// The grains of a side: those last seen, with what that side's roster says instead of what any roster said.
    fn grains(&self, own: Option<&Host>) -> Map {
        let mut grains = self.seen.as_ref().map(|(_, grains)| grains.clone()).unwrap_or_default();
        for host in [&self.old, &self.new].into_iter().flatten() {
            host.grains().iter().for_each(|(name, _)| drop(grains.0.shift_remove(name)));
        }
        grains.0.extend(own.map(Host::grains).unwrap_or_default());
        grains.insert("id", self.id.as_str());
        grains
    }

    fn meaning(&self, old: &Version, new: &Version) -> Meaning {
        let (before, after) = match (&self.old, &self.new) {
            (Some(before), Some(after)) => (before, after),
            (None, _) => return Meaning::Joins,
            (_, None) => return Meaning::Leaves,
        };
        if self.seen.is_none() {
            return Meaning::Unseen;
        }
        let side = |version: &Version, host: &Host| Side::compile(&version.tree, &self.id, &self.grains(Some(host)), &self.answers);
        Meaning::of(&side(old, before), &side(new, after))
    }
}

/// The hosts that the target means, of both rosters. One that was never seen is meant where it cannot be told.
fn meant(args: &DiffArgs, old: &Version, new: &Version, store: &Arc<dyn Store>) -> Result<Vec<Known>> {
    let nodegroups = new.opened.settings.nodegroups.clone().unwrap_or_default();
    let target = Target::parse(context::form(&args.target), &args.target.target, &nodegroups)?;
    let ids: HashSet<&str> = old.roster.ids().chain(new.roster.ids()).collect();
    let mut ids: Vec<&str> = ids.into_iter().collect();
    ids.sort_unstable();
    let mut out = Vec::new();
    for id in &ids {
        let host = |roster: &Roster| roster.get(id).cloned();
        let known = Known {
            id: (*id).to_owned(),
            old: host(&old.roster),
            new: host(&new.roster),
            seen: context::seen(store, id),
            answers: context::answers_of(store, id),
        };
        let own = known.new.as_ref().or(known.old.as_ref());
        let grains = known.seen.as_ref().map(|_| known.grains(own));
        if context::is_meant(&target, id, grains.as_ref(), &new.tree)? {
            out.push(known);
        }
    }
    match target.complaint(out.len(), &ids) {
        Some(fault) => Err(fault.into()),
        None => Ok(out),
    }
}

// --- text ---

fn text(report: &Report, printer: &Printer) -> String {
    let mut out = String::new();
    for Group { hosts, meaning } in &report.groups {
        if *meaning == Meaning::Same {
            continue;
        }
        let _ = writeln!(out, "{}", printer.paint(Paint::Bold, &host_names(hosts)));
        let mut say = |paint: Paint, text: &str| _ = writeln!(out, "  {}", printer.paint(paint, text));
        match meaning {
            Meaning::Same => {}
            Meaning::Differs { changes } => changes.iter().for_each(|change| out.push_str(&change_text(change, printer))),
            Meaning::Breaks { faults } => {
                say(Paint::Red, "! compiles no more");
                faults.iter().for_each(|fault| out.push_str(&printer.fault_text(fault, "    ")));
            }
            Meaning::Mended { states, .. } => say(Paint::Green, &format!("+ compiles again: {}", count(*states, "state"))),
            Meaning::Broken { faults } => {
                say(Paint::Red, "! compiles on neither side");
                faults.iter().for_each(|fault| out.push_str(&printer.fault_text(fault, "    ")));
            }
            Meaning::Unknown { calls } => {
                say(Paint::Yellow, "? not known: templates ask what the host was not asked before");
                calls.iter().for_each(|call| _ = writeln!(out, "      {}", clean(call)));
            }
            Meaning::Unseen => say(Paint::Yellow, "? not known: never seen; `basalt plan` asks for the grains"),
            Meaning::Joins => say(Paint::Green, "+ joins the roster"),
            Meaning::Leaves => say(Paint::Red, "- leaves the roster"),
        }
        out.push('\n');
    }
    out.push_str(&closing(report));
    out
}

/// The last line: counts, and what the comparison stands on.
pub fn closing(report: &Report) -> String {
    let Counts { add, change, remove, hosts, same, differ, unknown, unseen, broken } = &report.counts;
    let mut out = if *differ == 0 {
        format!("No difference between {} and {} on {}.", report.old, report.new, count(*same, "host"))
    } else {
        format!(
            "Diff: {add} to add, {change} to change, {remove} to remove on {differ} of {} between {} and {}.",
            count(*hosts, "host"),
            report.old,
            report.new
        )
    };
    for (number, what) in [(unknown, "ask what is not known"), (unseen, "were never seen"), (broken, "compile on neither side")] {
        if *number > 0 {
            let _ = write!(out, " {number} {what}.");
        }
    }
    if let Some((age, host)) = report.oldest.as_ref().filter(|(age, _)| *age > OLD) {
        let _ = write!(out, " Grains are those last seen, up to {} old ({}).", ago(*age), clean(host));
    }
    out
}

/// `3 days`.
fn ago(seconds: u64) -> String {
    let of = |n: u64, what: &str| count(usize::try_from(n).unwrap_or(usize::MAX), what);
    match seconds {
        0..7200 => of(seconds / 60, "minute"),
        7200..172_800 => of(seconds / 3600, "hour"),
        _ => of(seconds / 86400, "day"),
    }
}

/// `(id, sls)`, the id only where it is not the name.
pub fn place(change: &Change) -> String {
    if change.id == change.name { change.sls.clone() } else { format!("{}, {}", change.id, change.sls) }
}

pub fn sign(action: Action) -> &'static str {
    match action {
        Action::Added => "+",
        Action::Removed => "-",
        Action::Changed => "~",
    }
}

fn change_text(change: &Change, printer: &Printer) -> String {
    let paint = match change.action {
        Action::Added => Paint::Green,
        Action::Removed => Paint::Red,
        Action::Changed => Paint::Cyan,
    };
    let place = printer.paint(Paint::Dim, &format!("({})", clean(&place(change))));
    let named = format!("{}  {}", printer.paint(paint, &change.state), clean(&change.name));
    let mut out = format!("  {} {named}  {place}\n", printer.paint(paint, sign(change.action)));
    for (line, diff) in lines(change) {
        let _ = writeln!(out, "      {}", clean(&line));
        for line in diff.lines() {
            let _ = writeln!(out, "        {}", printer.diff_line(line));
        }
    }
    out
}

/// What a change consists of: a line each, with the unified diff that belongs to it.
pub fn lines(change: &Change) -> Vec<(String, &str)> {
    let mut out = Vec::new();
    for Argument { name, old, new, diff } in &change.arguments {
        let line = match (old, new) {
            (Some(_), Some(_)) if !diff.is_empty() => format!("{name}:"),
            (Some(old), Some(new)) => format!("{name}: {} → {}", short(old), short(new)),
            (None, Some(new)) if change.action == Action::Added => format!("{name}: {}", short(new)),
            (Some(old), None) if change.action == Action::Removed => format!("{name}: {}", short(old)),
            (None, Some(new)) => format!("{name}: added, {}", short(new)),
            (Some(old), None) => format!("{name}: removed, was {}", short(old)),
            (None, None) => continue,
        };
        out.push((line, diff.as_str()));
    }
    for Contents { name, action, diff, note } in &change.contents {
        let note = if note.is_empty() { String::new() } else { format!(" {note}") };
        let file = !matches!(name.as_str(), "source" | "contents");
        let line = match action {
            Action::Changed => format!("{name}:{note}"),
            Action::Added if file => format!("{name}: a new file{note}"),
            Action::Removed if file => format!("{name}: no file any more{note}"),
            Action::Added => format!("{name}: added{note}"),
            Action::Removed => format!("{name}: removed{note}"),
        };
        out.push((line, diff.as_str()));
    }
    out
}

/// A value on one line.
fn short(value: &Value) -> String {
    let text = match value {
        Value::Str(text) if !text.contains('\n') => text.clone(),
        Value::Str(text) => return format!("a text of {} lines", text.lines().count()),
        other => crate::lang::jinja::dump::python(other),
    };
    if text.chars().count() <= WIDTH { text } else { text.chars().take(WIDTH - 1).chain(['…']).collect() }
}

// --- JSON ---

fn report_json(report: &Report) -> Vec<Json> {
    let mut out = vec![json!({
        "type": "diff_started", "version": JSON_VERSION, "old": report.old, "new": report.new, "hosts": report.counts.hosts,
    })];
    for Group { hosts, meaning } in &report.groups {
        let mut line = json!({"type": "difference", "hosts": hosts, "changes": [], "faults": [], "calls": []});
        if let (Json::Object(line), Ok(Json::Object(told))) = (&mut line, serde_json::to_value(meaning)) {
            line.extend(told.into_iter().filter(|(key, _)| key != "states"));
        }
        out.push(line);
    }
    let c = &report.counts;
    let oldest = report.oldest.as_ref().map(|(age, _)| age);
    out.push(json!({
        "type": "diff_summary", "add": c.add, "change": c.change, "remove": c.remove, "hosts": c.hosts, "same": c.same, "differ": c.differ,
        "unknown": c.unknown, "unseen": c.unseen, "broken": c.broken, "oldest_grains": oldest,
    }));
    out
}
