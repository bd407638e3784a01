//! In which waves the hosts of a run are touched, and when the rest is left alone.

use std::str::FromStr;

use crate::diagnostic::{Code, Diagnostic};

/// How many hosts at a time: a number, or a share of all hosts of the run (rounded up, at least one).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Batch {
    Count(usize),
    Percent(f64),
}

impl FromStr for Batch {
    type Err = Diagnostic;

    fn from_str(text: &str) -> Result<Batch, Diagnostic> {
        let fault = || Diagnostic::new(Code::Usage, format!("{text:?} is no batch: give a number of hosts (5) or a share (10%)"));
        match text.strip_suffix('%') {
            Some(share) => {
                share.parse().ok().filter(|p: &f64| p.is_finite() && *p > 0.0 && *p <= 100.0).map(Batch::Percent).ok_or_else(fault)
            }
            None => text.parse().ok().filter(|n| *n > 0).map(Batch::Count).ok_or_else(fault),
        }
    }
}

impl Batch {
    fn of(self, hosts: usize) -> usize {
        match self {
            Batch::Count(n) => n.max(1),
            Batch::Percent(p) => ((hosts as f64 * p / 100.0).ceil() as usize).max(1),
        }
    }
}

/// The sizes of the waves: the canaries first, then batch by batch.
pub fn waves(hosts: usize, batch: Option<Batch>, canary: usize) -> Vec<usize> {
    let canary = canary.min(hosts);
    let size = batch.map_or(hosts, |b| b.of(hosts)).max(1);
    let mut left = hosts - canary;
    let mut waves = Vec::new();
    if canary > 0 {
        waves.push(canary);
    }
    while left > 0 {
        let wave = size.min(left);
        waves.push(wave);
        left -= wave;
    }
    waves
}

/// Whether the next wave may start. A canary that fails stops the run whatever the budget.
pub fn may_go_on(failed: usize, max_failures: Option<usize>, was_canary: bool) -> Result<(), String> {
    if was_canary && failed > 0 {
        return Err(format!("{failed} of the canaries failed"));
    }
    match max_failures {
        Some(max) if failed > max => Err(format!("{failed} failed, --max-failures is {max}")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waves_are_canaries_then_batches() {
        assert_eq!(waves(10, None, 0), [10]);
        assert_eq!(waves(10, Some(Batch::Count(4)), 1), [1, 4, 4, 1]);
        assert_eq!(waves(10, Some(Batch::Percent(25.0)), 0), [3, 3, 3, 1]);
        assert_eq!(waves(2, None, 5), [2]);
        assert_eq!(waves(0, None, 1), [0usize; 0]);
    }

    #[test]
    fn batches_are_read_and_nonsense_is_refused() {
        assert_eq!("10%".parse::<Batch>().unwrap(), Batch::Percent(10.0));
        assert_eq!("3".parse::<Batch>().unwrap(), Batch::Count(3));
        for bad in ["0", "-1", "0%", "101%", "x", "", "NaN%"] {
            assert!(bad.parse::<Batch>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_failed_canary_stops_and_so_does_a_spent_budget() {
        assert!(may_go_on(1, None, true).is_err());
        assert!(may_go_on(1, None, false).is_ok());
        assert!(may_go_on(2, Some(1), false).is_err());
        assert!(may_go_on(1, Some(1), false).is_ok());
    }
}
