//! What the engine tells while it works. The command line prints it, `--json` writes it, a daemon will stream it.

use serde::Serialize;

use super::apply::HostResult;
use crate::agent::protocol::Applied;
use crate::diagnostic::{Code, Diagnostic};
use crate::plan::{Action, HostPlan, Outcome, Step, Tally, Verdict};
use crate::value::Value;

/// Gets every event, in the order in which things happened; never blocks for long.
pub trait Sink: Send + Sync {
    fn event(&self, event: Event<'_>);
}

impl<F: Fn(Event<'_>) + Send + Sync> Sink for F {
    fn event(&self, event: Event<'_>) {
        self(event)
    }
}

#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// What is wanted is known, and of whom.
    PlanStarted {
        source: &'a Source,
        hosts: usize,
    },
    /// A host works on something: `connecting`, `compiling`, `comparing`.
    Busy {
        host: &'a str,
        with: &'a str,
    },
    HostPlanned {
        host: &'a str,
        plan: &'a HostPlan,
    },
    /// The host drops out here.
    HostFailed {
        host: &'a str,
        fault: &'a Diagnostic,
    },
    /// Applying begins; the run has this id.
    RunStarted {
        run: &'a str,
        hosts: usize,
    },
    /// A state's turn has come.
    StateStarted {
        host: &'a str,
        step: Option<&'a Step>,
        done: usize,
        of: usize,
    },
    /// A line of output of what runs now.
    Line {
        host: &'a str,
        text: &'a str,
    },
    StateDone {
        host: &'a str,
        id: &'a str,
        state: &'a str,
        name: &'a str,
        sls: &'a str,
        outcome: &'a Outcome,
    },
    HostDone {
        host: &'a str,
        applied: &'a Applied,
    },
    /// The rest is not started: why.
    Stopped {
        reason: &'a str,
    },
    /// A job of an orchestration begins.
    JobStarted {
        id: &'a str,
        job: &'a str,
        number: usize,
        of: usize,
    },
    /// The hosts of a job have been planned; with `test` that is all.
    JobPlanned {
        test: bool,
    },
    /// A job cannot be done: why.
    JobFailed {
        id: &'a str,
        fault: &'a Diagnostic,
    },
    /// `result`: `ok changed failed skipped`.
    JobDone {
        id: &'a str,
        job: &'a str,
        result: &'a str,
        comment: &'a str,
    },
    /// What an execution function gave.
    Answered {
        host: &'a str,
        value: &'a Value,
    },
    /// A run that can cut the connection stays: the host was reached over a new one.
    Confirmed {
        host: &'a str,
        run: &'a str,
    },
    /// A host was taken back. `guard`: by itself, and why nobody confirmed the run.
    RolledBack {
        host: &'a str,
        run: &'a str,
        by: &'a str,
        changes: usize,
        guard: Option<&'a str>,
    },
}

/// What a plan was made from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, serde::Deserialize)]
pub struct Source {
    pub repository: String,
    pub tree: String,
    pub commit: String,
    pub subject: String,
    pub dirty: bool,
}

/// What a command came to, over all hosts; decides the closing line and the exit code.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub add: usize,
    pub change: usize,
    pub remove: usize,
    /// Commands and restarts.
    pub run: usize,
    pub unknown: usize,
    pub unchanged: usize,
    /// Hosts.
    pub hosts: usize,
    /// Those of them that could not even be planned.
    pub dropped: Vec<HostResult>,
    /// Those of them that have no states at all.
    pub bare: usize,
    pub unreachable: usize,
    /// Hosts on which something failed.
    pub failed: usize,
    /// The faults met, for the exit code.
    pub codes: Vec<Code>,
    pub declined: bool,
}

impl Summary {
    /// Counts a host's plan. A step that changes several objects counts once, as its own action.
    pub fn count_plan(&mut self, plan: &HostPlan) {
        self.unchanged += plan.unchanged;
        for step in &plan.steps {
            self.count(step.action);
            if step.fails.is_some() {
                self.codes.push(Code::Failed);
            }
        }
    }

    pub fn count_outcome(&mut self, verdict: Verdict, action: Action) {
        match verdict {
            Verdict::Changed => self.count(if action == Action::None { Action::Change } else { action }),
            Verdict::Ok => self.unchanged += 1,
            Verdict::Failed | Verdict::Skipped => {}
        }
    }

    fn count(&mut self, action: Action) {
        match action {
            Action::None => {}
            Action::Add => self.add += 1,
            Action::Change => self.change += 1,
            Action::Remove => self.remove += 1,
            Action::Run => self.run += 1,
            Action::Unknown => self.unknown += 1,
        }
    }

    pub fn count_fault(&mut self, fault: &Diagnostic) {
        match fault.code {
            Code::Unreachable | Code::HostKey => self.unreachable += 1,
            _ => self.failed += 1,
        }
        self.codes.push(fault.code);
    }

    /// A host drops out before anything is done to it.
    pub fn drop_host(&mut self, host: String, fault: Diagnostic) {
        self.count_fault(&fault);
        self.dropped.push(HostResult { fault: Some(fault), ..HostResult::of(host) });
    }

    /// Of the hosts that dropped out alone: what a run begins to count with.
    pub fn dropped_only(&self) -> Summary {
        let mut out = Summary { hosts: self.hosts, ..Summary::default() };
        for host in &self.dropped {
            if let Some(fault) = &host.fault {
                out.drop_host(host.host.clone(), fault.clone());
            }
        }
        out
    }

    /// Why hosts dropped out, where any did: the reason that is not just the network's, if there is one.
    pub fn worst_dropped(&self) -> Option<Code> {
        let codes = || self.dropped.iter().filter_map(|host| host.fault.as_ref()).map(|fault| fault.code);
        codes().find(|code| !matches!(code, Code::Unreachable | Code::HostKey)).or(codes().next())
    }

    pub fn count_tally(&mut self, tally: &Tally) {
        if tally.failed > 0 {
            self.failed += 1;
            self.codes.push(Code::Failed);
        }
    }

    /// Adds what a host's run did.
    pub fn add_applied(&mut self, host: &Summary) {
        self.add += host.add;
        self.change += host.change;
        self.remove += host.remove;
        self.run += host.run;
        self.unknown += host.unknown;
        self.unchanged += host.unchanged;
        self.unreachable += host.unreachable;
        self.failed += host.failed;
        self.codes.extend(&host.codes);
    }

    /// Whether anything would change or run.
    pub fn pending(&self) -> bool {
        self.add + self.change + self.remove + self.run + self.unknown > 0
    }
}
