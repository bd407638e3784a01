//! Everything basalt prints: events as text for people or as JSON lines for programs, faults, recaps.
//!
//! Results go to standard output, progress and faults to standard error. Text that comes from a host is never trusted: control
//! characters are shown, not sent to the terminal.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::progress::Progress;
use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::engine::event::{Event, Sink, Source, Summary};
use crate::plan::{Action, Change, HostPlan, Kind, Outcome, Step, Tally, Verdict};
use crate::value::Value;

/// The version of the JSON lines; stands in `plan_started`. Grows when a field changes its meaning or goes.
pub const JSON_VERSION: u32 = 1;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

#[derive(Clone, Copy)]
pub enum Paint {
    Green,
    Cyan,
    Yellow,
    Red,
    Bold,
    Dim,
}

/// Prints the events of one command. One lock: lines of different hosts never mix.
pub struct Printer {
    json: bool,
    color: bool,
    /// Of several commands at once: no closing lines, and no lines that live.
    among: bool,
    state: Mutex<State>,
}

struct State {
    progress: Progress,
    /// Plans by their text, so that hosts with the same plan are printed once.
    plans: BTreeMap<String, Vec<String>>,
    faults: Vec<(String, Diagnostic)>,
    tallies: BTreeMap<String, Recap>,
}

#[derive(Clone, Copy, Default)]
struct Recap {
    tally: Tally,
    unreachable: bool,
    /// The host has told its own tally, or will not tell any.
    over: bool,
    /// It took the run back by itself.
    taken_back: bool,
}

impl Printer {
    pub fn new(json: bool, color: Color) -> Printer {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty()) || std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        let color = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => !plain && std::io::stdout().is_terminal(),
        };
        let live = !json && std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb");
        let state = State { progress: Progress::new(live), plans: BTreeMap::new(), faults: Vec::new(), tallies: BTreeMap::new() };
        Printer { json, color, among: false, state: Mutex::new(state) }
    }

    /// For one of several tasks that tell on the same terminal: what is nothing new is not told.
    pub fn among_others(json: bool, color: Color) -> Printer {
        let printer = Printer::new(json, color);
        printer.state().progress = Progress::new(false);
        Printer { among: true, ..printer }
    }

    pub fn is_json(&self) -> bool {
        self.json
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Text for people on standard output; nothing in JSON mode.
    pub fn say(&self, text: &str) {
        if !self.json {
            self.state().progress.suspend(|| out(&format!("{text}\n")));
        }
    }

    /// A question, without a line break behind it.
    pub fn ask(&self, question: &str) {
        self.state().progress.suspend(|| out(&format!("{question} [y/N] ")));
    }

    /// One JSON line; nothing in text mode.
    pub fn json(&self, value: &serde_json::Value) {
        if self.json {
            out(&format!("{value}\n"));
        }
    }

    pub fn paint(&self, paint: Paint, text: &str) -> String {
        if self.color { painted(paint, text) } else { text.to_owned() }
    }

    /// A fault of the command as a whole.
    pub fn fault(&self, fault: &Diagnostic) {
        if self.json {
            let kind = if fault.severity == Severity::Error { "error" } else { "warning" };
            out(&format!("{}\n", fault_json(kind, fault)));
        } else {
            let text = self.fault_text(fault, "");
            self.state().progress.suspend(|| {
                let _ = std::io::stderr().write_all(text.as_bytes());
            });
        }
    }

    pub fn fault_text(&self, fault: &Diagnostic, indent: &str) -> String {
        let color = self.color && std::io::stderr().is_terminal();
        let word = match fault.severity {
            Severity::Error => ("error", Paint::Red),
            Severity::Warning => ("warning", Paint::Yellow),
            Severity::Note => ("note", Paint::Cyan),
        };
        let word = if color { painted(word.1, word.0) } else { word.0.to_owned() };
        let mut text = format!("{indent}{word}: {}\n", clean(&fault.summary));
        let mut more = |label: &str, body: &str| {
            // The lines of an excerpt stay below each other.
            let rest = if label.is_empty() { "" } else { "  " };
            for (i, line) in body.lines().enumerate() {
                let label = if i == 0 { label } else { rest };
                let _ = writeln!(text, "{indent}  {label}{}", clean(line));
            }
        };
        if let Some(span) = &fault.span {
            more("at ", &span.to_string());
        }
        more("", fault.excerpt.as_deref().unwrap_or_default());
        more("", &fault.detail);
        for (span, note) in &fault.related {
            more("", &format!("{note} ({span})"));
        }
        if let Some(hint) = &fault.hint {
            more("help: ", hint);
        }
        text
    }

    /// Prints the plans collected, hosts with the same plan once, and the faults.
    pub fn plans(&self) {
        if self.json {
            return;
        }
        let plans = std::mem::take(&mut self.state().plans);
        let mut groups: Vec<(Vec<String>, String)> = plans
            .into_iter()
            .filter(|(text, _)| !text.is_empty())
            .map(|(text, mut hosts)| {
                hosts.sort();
                (hosts, text)
            })
            .collect();
        groups.sort();
        for (hosts, text) in groups {
            let names = host_names(&hosts);
            self.say(&format!("{}\n{text}", self.paint(Paint::Bold, &names)));
        }
        self.faults();
    }

    /// Prints the faults of hosts that dropped out since the last time, hosts with the same fault once.
    pub fn faults(&self) {
        if self.json {
            return;
        }
        let faults = std::mem::take(&mut self.state().faults);
        let mut groups: Vec<(String, Vec<String>)> = Vec::new();
        for (host, fault) in faults {
            let text = self.fault_text(&fault, "  ");
            match groups.iter_mut().find(|(known, _)| *known == text) {
                Some((_, hosts)) => hosts.push(host),
                None => groups.push((text, vec![host])),
            }
        }
        for (text, mut hosts) in groups {
            hosts.sort();
            self.say(&format!("{}\n{text}", self.paint(Paint::Bold, &host_names(&hosts))));
        }
    }

    /// The closing line of a plan.
    pub fn plan_summary(&self, summary: &Summary) {
        if self.among {
            return;
        }
        self.json(&summary_json(summary));
        let dropped = summary.dropped.len();
        let reached = summary.hosts.saturating_sub(dropped);
        let nothing = (dropped > 0).then(|| format!("Nothing can be planned on {dropped} of {}.", count(summary.hosts, "host")));
        let failing = summary.failed.saturating_sub(summary.dropped.iter().filter(|host| !host.is_unreachable()).count());
        let text = if summary.pending() {
            let mut extra = String::new();
            if summary.run > 0 {
                let _ = write!(extra, ", {} to run", summary.run);
            }
            if summary.unknown > 0 {
                let _ = write!(extra, ", {} known after apply", summary.unknown);
            }
            let plan = format!(
                "Plan: {} to add, {} to change, {} to remove{extra} on {}; {} unchanged.",
                summary.add,
                summary.change,
                summary.remove,
                count(reached, "host"),
                summary.unchanged
            );
            let failing = (failing > 0).then(|| format!("States would fail on {}.", count(failing, "host")));
            [Some(plan), failing, nothing].into_iter().flatten().collect::<Vec<_>>().join(" ")
        } else {
            let failing = (failing > 0).then(|| format!("Nothing to do, but states would fail on {}.", count(failing, "host")));
            let same = match reached.saturating_sub(summary.bare) {
                0 => None,
                1 => Some("No changes. 1 host is as described.".to_owned()),
                n => Some(format!("No changes. {n} hosts are as described.")),
            };
            let same = same.filter(|_| failing.is_none());
            [same, failing, nothing].into_iter().flatten().collect::<Vec<_>>().join(" ")
        };
        let bare = match summary.bare {
            0 => None,
            1 => Some("1 host has no states: nothing is meant for it.".to_owned()),
            n => Some(format!("{n} hosts have no states: nothing is meant for them.")),
        };
        self.say(&[Some(text).filter(|text| !text.is_empty()), bare].into_iter().flatten().collect::<Vec<_>>().join(" "));
    }

    /// The recap of a run: one line per host, then the counts.
    pub fn run_summary(&self, summary: &Summary) {
        self.faults();
        if !self.among {
            self.json(&summary_json(summary));
        }
        let tallies = std::mem::take(&mut self.state().tallies);
        let width = tallies.keys().map(|h| h.chars().count()).max().unwrap_or(0);
        for (host, Recap { tally, unreachable, taken_back, .. }) in tallies {
            let paint = match () {
                () if unreachable || taken_back || tally.failed > 0 => Paint::Red,
                () if tally.changed > 0 => Paint::Cyan,
                () => Paint::Green,
            };
            let host = format!("{:width$}", clean(&host));
            self.say(&format!(
                "{}  ok={} changed={} failed={} skipped={} unreachable={}{}",
                self.paint(paint, &host),
                tally.ok,
                tally.changed,
                tally.failed,
                tally.skipped,
                u8::from(unreachable),
                if taken_back { "  taken back" } else { "" }
            ));
        }
    }

    /// A step as text: the sign, the function, the name, why; then its changes.
    fn step_text(&self, step: &Step) -> String {
        let (sign, paint) = sign(step.action, step.fails.is_some());
        let mut text = format!("  {} {}", self.paint(paint, sign), self.paint(paint, &step.state));
        let _ = write!(text, "  {}", line(&step.name));
        let place = if step.id == step.name || step.state.starts_with("rollback.") {
            step.sls.clone()
        } else {
            format!("{}, {}", step.id, step.sls)
        };
        let _ = writeln!(text, "  {}", self.paint(Paint::Dim, &format!("({})", line(&place))));
        let mut more = |label: &str, body: &str| {
            for line in body.lines() {
                let _ = writeln!(text, "      {label}{}", clean(line));
            }
        };
        if let Some(why) = &step.fails {
            more("would fail: ", why);
        } else {
            more("", &step.reason);
        }
        if let Some(command) = &step.command {
            more("$ ", command);
        }
        for change in &step.changes {
            text.push_str(&self.change_text(change, step));
        }
        if let Some(what) = &step.guard {
            let _ = writeln!(text, "      {}", self.paint(Paint::Yellow, &format!("guarded: it can cut the connection ({})", clean(what))));
        }
        if let Some(why) = &step.one_way {
            let _ = writeln!(text, "      {}", self.paint(Paint::Yellow, &format!("cannot be taken back: {}", clean(why))));
        }
        text
    }

    fn change_text(&self, change: &Change, step: &Step) -> String {
        let mut text = String::new();
        // The step's own object is already named in its line.
        let mut diff = change.diff.as_str();
        if step.changes.len() > 1 && change.key.name != step.name {
            let (sign, paint) = sign(change.action, false);
            let name = if change.key.kind == Kind::File { change.key.name.clone() } else { change.key.to_string() };
            let mut line = format!("{} {}", self.paint(paint, sign), line(&name));
            if diff.lines().count() == 1 {
                let _ = write!(line, "  {}", clean(diff.trim_end()));
                diff = "";
            }
            let _ = writeln!(text, "      {line}");
        }
        for line in diff.lines() {
            let _ = writeln!(text, "      {}", self.diff_line(line));
        }
        text
    }

    /// A line of a unified diff in its colour.
    pub fn diff_line(&self, line: &str) -> String {
        let paint = match line.as_bytes() {
            [b'+', ..] => Paint::Green,
            [b'-', ..] => Paint::Red,
            [b'@', ..] => Paint::Cyan,
            _ => return clean(line),
        };
        self.paint(paint, &clean(line))
    }

    fn host_plan_text(&self, plan: &HostPlan) -> String {
        let mut text = String::new();
        for notice in &plan.notices {
            let _ = writeln!(text, "  {}", self.paint(Paint::Yellow, &format!("note: {}", clean(notice))));
        }
        for step in &plan.steps {
            text.push_str(&self.step_text(step));
        }
        if !plan.commands.is_empty() {
            let _ = writeln!(text, "  {}", self.paint(Paint::Dim, "templates and conditions ran while this plan was made:"));
            for command in &plan.commands {
                let _ = writeln!(text, "    {}", self.paint(Paint::Dim, &format!("$ {}", clean(command))));
            }
        }
        text
    }
}

impl Sink for Printer {
    fn event(&self, event: Event<'_>) {
        if matches!(event, Event::RunStarted { .. }) {
            RUNNING.store(true, Ordering::Relaxed);
        }
        if self.json {
            if let Some(line) = event_json(&event) {
                out(&format!("{line}\n"));
            }
            return;
        }
        match event {
            Event::PlanStarted { .. } => {}
            Event::Busy { host, with } => self.state().progress.busy(host, with),
            Event::HostPlanned { host, plan } => {
                let text = self.host_plan_text(plan);
                let mut state = self.state();
                state.progress.idle(host);
                state.plans.entry(text).or_default().push(host.to_owned());
            }
            Event::HostFailed { host, fault } => {
                let mut state = self.state();
                state.progress.idle(host);
                let unreachable = matches!(fault.code, Code::Unreachable | Code::HostKey);
                let recap = state.tallies.entry(host.to_owned()).or_default();
                (recap.unreachable, recap.over) = (unreachable, true);
                recap.tally.failed += usize::from(!unreachable);
                state.faults.push((host.to_owned(), fault.clone()));
            }
            Event::RunStarted { run, hosts } => self.say(&format!("Run {run} on {}.", count(hosts, "host"))),
            Event::StateStarted { host, step, done, of } => {
                let what = step.map_or_else(String::new, |s| format!("{} {}", s.state, line(&s.name)));
                self.state().progress.busy(host, &format!("{}/{of} {what}", done + 1));
            }
            Event::Line { host, text } => {
                let line = format!("{} {}\n", self.paint(Paint::Dim, &format!("{host} |")), clean(text));
                self.state().progress.suspend(|| out(&line));
            }
            Event::StateDone { host, id, state, name, outcome, .. } => self.state_done(host, id, state, name, outcome),
            Event::HostDone { host, applied } => {
                let mut state = self.state();
                state.progress.idle(host);
                *state.tallies.entry(host.to_owned()).or_default() = Recap { tally: applied.tally, over: true, ..Recap::default() };
                if let Some(why) = &applied.stopped {
                    let line = format!("{host}: stopped: {}\n", clean(why));
                    state.progress.suspend(|| out(&line));
                }
            }
            Event::Stopped { reason } => self.say(&self.paint(Paint::Yellow, &format!("Stopped: {reason}."))),
            Event::JobStarted { id, job, number, of } => {
                self.say(&format!("{} {}", self.paint(Paint::Bold, &format!("{number}/{of} {}", clean(id))), job));
            }
            Event::JobPlanned { test } => {
                if test {
                    self.plans();
                } else {
                    self.faults();
                    self.state().plans.clear();
                }
            }
            Event::JobFailed { fault, .. } => self.fault(fault),
            Event::JobDone { id, result, comment, .. } => self.job_done(id, result, comment),
            Event::Answered { host, value } => self.say(&answer_text(&self.paint(Paint::Bold, &clean(host)), value)),
            Event::Confirmed { host, .. } => self.say(&format!("{host}: confirmed over a new connection.")),
            Event::RolledBack { host, run, changes, guard: Some(why), .. } => {
                let mut state = self.state();
                state.progress.idle(host);
                let recap = state.tallies.entry(host.to_owned()).or_default();
                (recap.over, recap.taken_back) = (true, true);
                drop(state);
                let line =
                    format!("{host}: run {run} was taken back by the host itself, {} changed: {}", count(changes, "object"), clean(why));
                self.say(&self.paint(Paint::Red, &line));
            }
            Event::RolledBack { host, run, changes, .. } => {
                self.say(&format!("{host}: run {run} taken back, {} changed.", count(changes, "object")))
            }
        }
    }
}

impl Printer {
    fn job_done(&self, id: &str, result: &str, comment: &str) {
        self.faults();
        let paint = match result {
            "failed" => Paint::Red,
            "changed" => Paint::Cyan,
            "skipped" => Paint::Yellow,
            _ => Paint::Green,
        };
        let why = if comment.is_empty() { String::new() } else { format!("  ({})", clean(comment)) };
        self.say(&format!("{}  {}{why}\n", self.paint(paint, result), clean(id)));
    }

    fn state_done(&self, host: &str, id: &str, state: &str, name: &str, outcome: &Outcome) {
        let mut state_of_all = self.state();
        let recap = state_of_all.tallies.entry(host.to_owned()).or_default();
        if !recap.over {
            recap.tally.count(outcome.result);
        }
        drop(state_of_all);
        let (word, paint) = match outcome.result {
            Verdict::Ok => return,
            Verdict::Changed => ("changed", Paint::Cyan),
            Verdict::Failed => ("FAILED ", Paint::Red),
            Verdict::Skipped => ("skipped", Paint::Yellow),
        };
        let what = if id == name || state.starts_with("rollback.") { name.to_owned() } else { format!("{id} ({name})") };
        let mut text = format!("{host}  {}  {state}  {}", self.paint(paint, word), line(&what));
        if matches!(outcome.result, Verdict::Failed | Verdict::Skipped) {
            for line in outcome.comment.lines() {
                let _ = write!(text, "\n    {}", clean(line));
            }
        } else {
            let _ = write!(text, "  {}", self.paint(Paint::Dim, &duration(outcome.duration_ms)));
        }
        text.push('\n');
        self.state().progress.suspend(|| out(&text));
    }
}

fn sign(action: Action, fails: bool) -> (&'static str, Paint) {
    match action {
        _ if fails => ("!", Paint::Red),
        Action::None => (" ", Paint::Green),
        Action::Add => ("+", Paint::Cyan),
        Action::Change => ("~", Paint::Cyan),
        Action::Remove => ("-", Paint::Cyan),
        Action::Run => (">", Paint::Cyan),
        Action::Unknown => ("?", Paint::Yellow),
    }
}

fn painted(paint: Paint, text: &str) -> String {
    let code = match paint {
        Paint::Green => "32",
        Paint::Cyan => "36",
        Paint::Yellow => "33",
        Paint::Red => "31",
        Paint::Bold => "1",
        Paint::Dim => "2",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

fn event_json(event: &Event<'_>) -> Option<serde_json::Value> {
    Some(match event {
        Event::PlanStarted { source, hosts } => plan_started(source, *hosts),
        Event::HostPlanned { host, plan } => json!({
            "type": "host_planned", "host": host, "unchanged": plan.unchanged,
            "changes": plan.steps.iter().map(step_json).collect::<Vec<_>>(),
            "commands": plan.commands, "notices": plan.notices,
        }),
        Event::HostFailed { host, fault } => {
            json!({"type": "host_failed", "host": host, "kind": fault.code, "message": fault.summary, "fault": fault})
        }
        Event::RunStarted { run, hosts } => json!({"type": "run_started", "run": run, "hosts": hosts}),
        Event::StateDone { host, id, state, name, sls, outcome } => json!({
            "type": "state_done", "host": host, "id": id, "state": state, "name": name, "sls": sls, "result": outcome.result,
            "changes": outcome.changes.iter().map(change_json).collect::<Vec<_>>(),
            "duration_ms": outcome.duration_ms, "comment": outcome.comment,
        }),
        Event::HostDone { host, applied } => json!({
            "type": "host_done", "host": host, "ok": applied.tally.ok, "changed": applied.tally.changed,
            "failed": applied.tally.failed, "skipped": applied.tally.skipped, "stopped": applied.stopped,
        }),
        Event::Line { host, text } => json!({"type": "output", "host": host, "line": text}),
        Event::Stopped { reason } => json!({"type": "stopped", "reason": reason}),
        Event::JobStarted { id, job, number, of } => json!({"type": "job_started", "id": id, "job": job, "number": number, "of": of}),
        Event::JobDone { id, job, result, comment } => {
            json!({"type": "job_done", "id": id, "job": job, "result": result, "comment": comment})
        }
        Event::JobFailed { fault, .. } => return Some(fault_json("warning", fault)),
        Event::Answered { host, value } => json!({"type": "answer", "host": host, "value": value}),
        Event::Confirmed { host, run } => json!({"type": "confirmed", "host": host, "run": run}),
        Event::RolledBack { host, run, by, changes, guard } => {
            json!({"type": "rolled_back", "host": host, "run": run, "by": by, "changes": changes, "guard": guard})
        }
        Event::Busy { .. } | Event::StateStarted { .. } | Event::JobPlanned { .. } => return None,
    })
}

fn fault_json(kind: &str, fault: &Diagnostic) -> serde_json::Value {
    json!({"type": kind, "kind": fault.code, "message": fault.summary, "fault": fault})
}

/// What an execution function gave, below the host's name.
pub fn answer_text(host: &str, value: &Value) -> String {
    let text = match value {
        Value::List(_) | Value::Map(_) => serde_json::to_string_pretty(value).unwrap_or_default(),
        scalar => scalar.to_text(),
    };
    let lines: Vec<String> = text.lines().map(|line| format!("    {}", clean(line))).collect();
    format!("{host}:\n{}", lines.join("\n"))
}

fn plan_started(source: &Source, hosts: usize) -> serde_json::Value {
    json!({
        "type": "plan_started", "version": JSON_VERSION, "repository": source.repository, "tree": source.tree,
        "commit": source.commit, "dirty": source.dirty, "hosts": hosts,
    })
}

/// A planned step as `host_planned.changes` has it.
pub fn step_json(step: &Step) -> serde_json::Value {
    let diff: String = step.changes.iter().map(|c| c.diff.as_str()).collect();
    json!({
        "id": step.id, "state": step.state, "name": step.name, "sls": step.sls, "action": step.action, "reason": step.reason,
        "diff": diff, "known": step.action != Action::Unknown, "one_way": step.one_way, "fails": step.fails, "command": step.command, "guard": step.guard,
        "objects": step.changes.iter().map(change_json).collect::<Vec<_>>(),
    })
}

fn change_json(change: &Change) -> serde_json::Value {
    json!({"key": change.key, "action": change.action, "diff": change.diff, "one_way": change.one_way})
}

fn summary_json(s: &Summary) -> serde_json::Value {
    json!({
        "type": "summary", "add": s.add, "change": s.change, "remove": s.remove, "run": s.run, "unknown": s.unknown,
        "unchanged": s.unchanged, "hosts": s.hosts, "unreachable": s.unreachable, "failed": s.failed,
    })
}

/// `3 hosts`, `1 host`.
pub fn count(n: usize, what: &str) -> String {
    let ending = match n {
        1 => "",
        _ if what.ends_with('s') => "es",
        _ => "s",
    };
    format!("{n} {what}{ending}")
}

pub fn host_names(hosts: &[String]) -> String {
    match hosts {
        [one] => clean(one),
        many if many.len() <= 8 => clean(&many.join(", ")),
        many => format!("{} and {} more", clean(&many.get(..6).unwrap_or(many).join(", ")), many.len() - 6),
    }
}

fn duration(ms: u64) -> String {
    if ms < 1000 { format!("{ms} ms") } else { format!("{:.1} s", ms as f64 / 1000.0) }
}

/// A fault as it is told without colours.
pub fn plain(fault: &Diagnostic) -> String {
    Printer::new(false, Color::Never).fault_text(fault, "")
}

/// Text from a host or a file, safe for a terminal: control characters but tab and line break are shown as escapes.
pub fn clean(text: &str) -> String {
    let hostile = |c: char| (c.is_control() && c != '\t' && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !text.chars().any(hostile) {
        return text.to_owned();
    }
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if hostile(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
        out
    })
}

/// The same of what is to stay one line: the name of a file may have a line break in it.
fn line(text: &str) -> String {
    clean(text).replace('\n', "\\n")
}

/// Not everything that was said could be written: a full disk.
static LOST: AtomicBool = AtomicBool::new(false);

pub fn output_was_lost() -> bool {
    LOST.load(Ordering::Relaxed)
}

/// Hosts are being changed.
static RUNNING: AtomicBool = AtomicBool::new(false);

/// Standard output; a reader that has gone away ends the program quietly, as it does with other tools. Not in the middle of a run: nobody
/// who looks at its first lines only (`| head`) wants hosts that are half done.
pub fn out(text: &str) {
    if let Err(e) = std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush()) {
        if e.kind() != std::io::ErrorKind::BrokenPipe || RUNNING.load(Ordering::Relaxed) {
            LOST.fetch_or(e.kind() != std::io::ErrorKind::BrokenPipe, Ordering::Relaxed);
            return;
        }
        #[expect(clippy::disallowed_methods, reason = "as the signal would, which Rust ignores")]
        std::process::exit(141);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_does_not_reach_the_terminal() {
        assert_eq!(clean("a\x1b[2Jb\r\tc\u{202e}d"), "a\\u{1b}[2Jb\\r\tc\\u{202e}d");
        assert_eq!(line("/etc/a\n  + file.managed  /etc/b"), "/etc/a\\n  + file.managed  /etc/b");
    }

    #[test]
    fn the_closing_line_is_the_contracts() {
        let summary = Summary { add: 2, change: 1, unchanged: 41, hosts: 3, ..Summary::default() };
        assert!(summary.pending());
        let json = summary_json(&summary);
        assert_eq!((json["type"].as_str(), json["add"].as_u64(), json["unreachable"].as_u64()), (Some("summary"), Some(2), Some(0)));
    }
}
