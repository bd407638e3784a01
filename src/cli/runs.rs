//! `basalt runs` and `basalt show run`: the history that the store remembers.

use clap::Args;
use serde_json::json;

use super::context::{Context, now_ms, store_of};
use super::print::{Color, Paint, Printer, clean, count};
use super::{Ended, RepositoryArgs};
use crate::diagnostic::{Code, Diagnostic, Result, nearest};
use crate::engine::apply::HostResult;
use crate::engine::history::{RunHistory, time_text};
use crate::orchestrate::Record;
use crate::store::Store;

#[derive(Args)]
pub struct RunsArgs {
    #[command(flatten)]
    repository: RepositoryArgs,
    /// How many, newest first
    #[arg(short = 'n', long, default_value_t = 20)]
    number: usize,
    /// One JSON object per line
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct ShowRunArgs {
    /// The run: `20261120-0752-k3f9`
    run: String,
    #[command(flatten)]
    repository: RepositoryArgs,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

pub fn run(args: RunsArgs, color: Color) -> Ended {
    let printer = Printer::new(args.json, color);
    let store = store_of(&args.repository)?;
    let mut runs = Vec::new();
    for key in store.list("runs/")? {
        match read(store.as_ref(), &key) {
            Ok(run) => runs.push(run),
            // The others are still worth telling.
            Err(fault) => printer.fault(&Diagnostic { severity: crate::diagnostic::Severity::Warning, ..*fault }),
        }
    }
    runs.sort_by_key(|run| std::cmp::Reverse(run.header.started));
    if runs.is_empty() {
        printer.say("No runs yet.");
    }
    for run in runs.iter().take(args.number) {
        printer.json(&run_json(run));
        let outcome = run.outcome();
        let paint = match outcome {
            "failed" | "unfinished" | "stopped" | "unreachable" | "taken back" => Paint::Red,
            "changed" => Paint::Cyan,
            _ => Paint::Green,
        };
        let commit = run.header.commit.get(..8).unwrap_or("no commit");
        printer.say(&format!(
            "{}  {}  {}  {}  {}{}  {}",
            run.header.id,
            time_text(run.header.started / 1000),
            printer.paint(paint, &format!("{outcome:<11}")),
            count(run.hosts.len(), "host"),
            commit,
            if run.source.dirty { "+" } else { "" },
            clean(&run.header.who)
        ));
    }
    for key in store.list("orchestrations/")? {
        let record = store.get(&key)?.and_then(|entry| serde_json::from_slice::<Record>(&entry.value).ok());
        let Some(record) = record.filter(|record| !record.is_over()) else { continue };
        let (id, done, jobs) = (&record.id, record.jobs.iter().filter(|job| job.standing.is_done()).count(), record.jobs.len());
        printer.json(&json!({"type": "orchestration_unfinished", "run": id, "sls": record.sls, "started": record.started, "done": done, "jobs": jobs}));
        printer.say(&format!(
            "Orchestration {id} of {} is under way or was cut off, with {done} of {} done: `basalt orchestrate --resume {id}` goes on.",
            clean(&record.sls.join(", ")),
            count(jobs, "job")
        ));
    }
    Ok(0)
}

pub fn show(args: ShowRunArgs, color: Color) -> Ended {
    let printer = Printer::new(args.json, color);
    let store = store_of(&args.repository)?;
    let key = format!("runs/{}", args.run);
    let plain = args.run.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if !plain || store.get(&key)?.is_none() {
        let known: Vec<String> = store.list("runs/")?.iter().filter_map(|k| k.strip_prefix("runs/").map(str::to_owned)).collect();
        let fault = Diagnostic::new(Code::Usage, format!("there is no run {:?}", args.run));
        let hint = match nearest(&args.run, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean {near}?"),
            None => "`basalt runs` lists them".to_owned(),
        };
        return Err(fault.hint(hint).into());
    }
    let run = read(store.as_ref(), &key)?;
    printer.json(&run_json(&run));
    let mut lines = vec![
        format!("Run        {}", run.header.id),
        format!("By         {}", clean(&run.header.who)),
        format!("Started    {}", time_text(run.header.started / 1000)),
        match run.ended {
            0 => "Ended      never: it was cut off, or is under way".to_owned(),
            t => format!("Ended      {} ({:.1} s)", time_text(t / 1000), t.saturating_sub(run.header.started) as f64 / 1000.0),
        },
        format!("From       {} at {}{}", clean(&run.source.repository), commit(&run), if run.source.dirty { " (dirty)" } else { "" }),
        format!("Tree       {}", run.source.tree),
    ];
    if !run.header.rolls_back.is_empty() {
        lines.push(format!("Takes back {}", run.header.rolls_back.join(", ")));
    }
    lines.push(format!("Outcome    {}", run.outcome()));
    for (host, result) in &run.hosts {
        let t = result.tally;
        lines.push(format!(
            "{}  ok={} changed={} failed={} skipped={} unreachable={}",
            clean(host),
            t.ok,
            t.changed,
            t.failed,
            t.skipped,
            u8::from(result.unreachable)
        ));
        lines.extend(result.fault.iter().chain(&result.stopped).map(|f| format!("    {}", clean(f))));
        lines.extend(result.taken_back.iter().map(|why| format!("    taken back by the host itself: {}", clean(why))));
    }
    printer.say(&lines.join("\n"));
    Ok(0)
}

fn commit(run: &RunHistory) -> String {
    let short = run.source.commit.get(..12).unwrap_or("no commit");
    if run.source.subject.is_empty() { short.to_owned() } else { format!("{short} ({})", clean(&run.source.subject)) }
}

fn run_json(run: &RunHistory) -> serde_json::Value {
    json!({"type": "run", "run": run.header.id, "outcome": run.outcome(), "record": run})
}

pub fn read(store: &dyn Store, key: &str) -> Result<RunHistory> {
    let damaged = || Diagnostic::new(Code::Damaged, format!("the record of {key} is damaged"));
    let entry = store.get(key)?.ok_or_else(damaged)?;
    serde_json::from_slice(&entry.value).map_err(|_| damaged().into())
}

impl Context {
    /// Writes down how a run ended, and the runs by which hosts took it back themselves.
    pub fn remember_end(&self, run: &mut RunHistory, results: &[HostResult]) {
        let now = now_ms();
        run.end(now, results);
        self.remember(run);
        run.taken_back(now, results).iter().for_each(|run| self.remember(run));
    }

    /// Writes a run's record; a store that cannot be written is a warning, never a reason to fail a run.
    pub fn remember(&self, run: &RunHistory) {
        let written = serde_json::to_vec(run)
            .map_err(|e| Diagnostic::new(Code::Internal, e.to_string()).into())
            .and_then(|bytes| self.store.put(&format!("runs/{}", run.header.id), &bytes));
        if let Err(fault) = written {
            self.printer.fault(&Diagnostic { severity: crate::diagnostic::Severity::Warning, ..*fault });
        }
    }
}
