//! What the watch says: every decision as one JSON line, or as text for people, who are told nothing where nothing happens.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::cli::context::now;
use crate::cli::print::{Paint, Printer, clean, count, host_names};
use crate::diagnostic::Diagnostic;
use crate::watch::decide::{Act, Decision, Task, Why, short};
use crate::watch::run::{Said, in_a_line};

/// A line of `type: decision`; all fields are always there.
#[derive(Default)]
struct Line<'a> {
    decision: &'a str,
    cause: Option<Why>,
    hosts: &'a [String],
    commit: Option<&'a str>,
    by: Option<&'a str>,
    states: &'a [String],
    why: Option<&'a str>,
    seconds: Option<u64>,
}

impl Line<'_> {
    fn json(&self) -> Value {
        json!({
            "type": "decision", "time": now(), "decision": self.decision, "cause": self.cause, "hosts": self.hosts, "commit": self.commit, "by": self.by,
            "states": self.states, "why": self.why, "seconds": self.seconds,
        })
    }
}

pub fn decision(printer: &Printer, decision: &Decision) {
    if printer.is_json() {
        return printer.json(&as_json(decision));
    }
    if let Some((paint, text)) = text(decision) {
        printer.say(&printer.paint(paint, &format!("{} {text}", clock())));
    }
}

fn act(task: &Task) -> &'static str {
    match task.act {
        Act::Plan => "plan",
        Act::Apply => "apply",
        Act::Check => "check",
        Act::TakeBack => "take_back",
    }
}

fn as_json(decision: &Decision) -> Value {
    let one = std::slice::from_ref;
    let line = match decision {
        Decision::Begin(task) => {
            let commit = task.commit.as_deref();
            Line { decision: act(task), cause: Some(task.why), hosts: one(&task.host), commit, ..Line::default() }
        }
        Decision::Leave { hosts, commit, why } => {
            Line { decision: "leave", hosts, commit: commit.as_deref(), why: Some(why), ..Line::default() }
        }
        Decision::Hold { commit, hosts, why } => Line { decision: "hold", hosts, commit: Some(commit), why: Some(why), ..Line::default() },
        Decision::Overtaken { commit, by } => Line { decision: "overtaken", commit: Some(commit), by: Some(by), ..Line::default() },
        Decision::Rewritten { commit, by } => Line { decision: "rewritten", commit: Some(commit), by: Some(by), ..Line::default() },
        Decision::Wait { hosts, commit, seconds, window } => {
            Line { decision: "wait", hosts, commit: Some(commit), why: Some(window), seconds: Some(*seconds), ..Line::default() }
        }
        Decision::Retry { host, commit, why, seconds } => {
            Line { decision: "retry", hosts: one(host), commit: commit.as_deref(), why: Some(why), seconds: *seconds, ..Line::default() }
        }
        Decision::Done { host, commit, changed, why } => {
            let decision = if *changed { "changed" } else { "unchanged" };
            Line { decision, cause: Some(*why), hosts: one(host), commit: Some(commit), ..Line::default() }
        }
        Decision::TakenBack { host, commit, run } => {
            Line { decision: "taken_back", hosts: one(host), commit: Some(commit), why: Some(run), ..Line::default() }
        }
        Decision::Drift { host, commit, states } => {
            Line { decision: "drift", hosts: one(host), commit: Some(commit), states, ..Line::default() }
        }
        Decision::Settled { commit, away, .. } => {
            let why = (!away.is_empty()).then_some("these hosts are away and get it when they are back");
            Line { decision: "settled", hosts: away, commit: Some(commit), why, ..Line::default() }
        }
    };
    line.json()
}

fn text(decision: &Decision) -> Option<(Paint, String)> {
    let at = |commit: &Option<String>| commit.as_deref().map_or("the work tree".to_owned(), |commit| short(commit).to_owned());
    Some(match decision {
        Decision::Begin(task) => match (task.act, task.why) {
            (Act::Apply, _) => (Paint::Bold, format!("{}: {} is applied", clean(&task.host), at(&task.commit))),
            // Its plan is told, if there is anything in it.
            _ => return None,
        },
        Decision::Leave { hosts, commit, why } => {
            (Paint::Dim, format!("{}: left alone at {}: {}", host_names(hosts), at(commit), clean(why)))
        }
        Decision::Hold { commit, hosts, why } => {
            let on = if hosts.is_empty() { String::new() } else { format!("it failed on {}: ", host_names(hosts)) };
            (Paint::Red, format!("{} is held until a new commit comes: {on}{}", short(commit), clean(why)))
        }
        Decision::Overtaken { commit, by } => (Paint::Dim, format!("{} is overtaken by {}", short(commit), short(by))),
        Decision::Rewritten { commit, by } => {
            (Paint::Yellow, format!("the history was rewritten: {} does not come from {}", short(by), short(commit)))
        }
        Decision::Wait { hosts, commit, seconds, window } => {
            (Paint::Yellow, format!("{}: {} waits {} for the window {window}", host_names(hosts), short(commit), long(*seconds)))
        }
        Decision::Retry { host, why, seconds: Some(seconds), .. } => {
            (Paint::Yellow, format!("{}: tried again in {}: {}", clean(host), long(*seconds), clean(why)))
        }
        Decision::Retry { host, why, seconds: None, .. } => {
            (Paint::Red, format!("{}: not tried again until it comes up: {}", clean(host), clean(why)))
        }
        Decision::Done { host, commit, changed: true, why } => {
            let what = if *why == Why::Commit { "is as" } else { "is again as" };
            (Paint::Green, format!("{}: {what} {} says", clean(host), short(commit)))
        }
        Decision::Done { .. } => return None,
        Decision::TakenBack { host, commit, .. } => (Paint::Yellow, format!("{}: {} is taken back here too", clean(host), short(commit))),
        Decision::Drift { host, commit, states } => {
            (Paint::Yellow, format!("{}: not as {} says: {}", clean(host), short(commit), clean(&states.join(", "))))
        }
        Decision::Settled { commit, hosts, left, away } => {
            let mut text = format!("{} is on {}", short(commit), count(*hosts, "host"));
            if *left > 0 {
                let _ = write!(text, ", {left} left alone");
            }
            if !away.is_empty() {
                let _ = write!(text, "; away: {}", host_names(away));
            }
            (Paint::Green, text)
        }
    })
}

pub fn said(printer: &Printer, what: &Said<'_>) {
    let json = |line: Line<'_>| printer.json(&line.json());
    let say = |paint: Paint, text: String| printer.say(&printer.paint(paint, &format!("{} {text}", clock())));
    match what {
        Said::Gone(why) => {
            json(Line { decision: "gone", why: Some(why), ..Line::default() });
            say(Paint::Red, format!("the repository cannot be read; it is tried again and again: {}", clean(why)));
        }
        Said::Back => {
            json(Line { decision: "back", ..Line::default() });
            say(Paint::Green, "the repository is there again".to_owned());
        }
        Said::Edit(paths) => {
            json(Line { decision: "edit", cause: Some(Why::Edit), why: Some(&paths.join(" ")), ..Line::default() });
            let named = if paths.is_empty() { "the work tree".to_owned() } else { clean(&paths.join(", ")) };
            say(Paint::Bold, format!("edited: {named}"));
        }
        Said::Broken(fault) => broken(printer, fault),
        Said::Touched { host, what } => {
            json(Line { decision: "touched", cause: Some(Why::Drift), hosts: &[(*host).to_owned()], states: what, ..Line::default() });
        }
        Said::Up { host } => {
            json(Line { decision: "up", cause: Some(Why::Up), hosts: &[(*host).to_owned()], ..Line::default() });
            say(Paint::Green, format!("{}: came up", clean(host)));
        }
    }
}

/// A work tree that does not compile: somebody is in the middle of writing.
fn broken(printer: &Printer, fault: &Diagnostic) {
    printer.json(&Line { decision: "broken", cause: Some(Why::Edit), why: Some(&in_a_line(fault)), ..Line::default() }.json());
    if !printer.is_json() {
        printer.say(&format!("{} the work tree cannot be planned; the next edit is looked at again", clock()));
        printer.say(printer.fault_text(fault, "  ").trim_end());
    }
}

/// `in 90 seconds`, `5 minutes`, `3 hours`.
fn long(seconds: u64) -> String {
    let of = |n: u64, what: &str| count(usize::try_from(n).unwrap_or(usize::MAX), what);
    match seconds {
        0..120 => of(seconds, "second"),
        120..7200 => of(seconds / 60, "minute"),
        _ => of(seconds / 3600, "hour"),
    }
}

/// The time of day here.
fn clock() -> String {
    let second = crate::engine::window::Local::at(now()).second;
    format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}
