//! The record of a run, as the store keeps it: who, when, from which commit, on which hosts, with what result.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::apply::HostResult;
use super::event::Source;
use crate::agent::protocol::RunHeader;
use crate::plan::Tally;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunHistory {
    pub header: RunHeader,
    pub source: Source,
    /// Milliseconds since the epoch; 0 while it is under way, and for ever when the controller died in the middle.
    pub ended: u64,
    pub hosts: BTreeMap<String, HostHistory>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostHistory {
    pub tally: Tally,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unreachable: bool,
    /// Why it did not come to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
    /// The host took it back by itself, because nobody confirmed it: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_back: Option<String>,
}

impl RunHistory {
    pub fn new(header: RunHeader, source: Source) -> RunHistory {
        RunHistory { header, source, ended: 0, hosts: BTreeMap::new() }
    }

    pub fn end(&mut self, now: u64, results: &[HostResult]) {
        self.ended = now;
        for result in results {
            let host = HostHistory {
                tally: result.tally,
                fault: result.fault.as_ref().map(|f| f.summary.clone()),
                unreachable: result.is_unreachable(),
                stopped: result.stopped.clone(),
                taken_back: result.taken_back.as_ref().map(|back| back.why.clone()),
            };
            self.hosts.insert(result.host.clone(), host);
        }
    }

    /// The runs by which hosts took this one back themselves.
    pub fn taken_back(&self, now: u64, results: &[HostResult]) -> Vec<RunHistory> {
        let mut runs: BTreeMap<String, RunHistory> = BTreeMap::new();
        for (result, back) in results.iter().filter_map(|result| Some((result, result.taken_back.as_ref()?))) {
            let header = RunHeader { id: back.by.clone(), ..self.header.taken_back(1) };
            let run = runs.entry(back.by.clone()).or_insert_with(|| RunHistory::new(header, self.source.clone()));
            run.end(now, &[HostResult { tally: back.tally, ..HostResult::of(&result.host) }]);
        }
        runs.into_values().collect()
    }

    /// In one word.
    pub fn outcome(&self) -> &'static str {
        let any = |test: fn(&HostHistory) -> bool| self.hosts.values().any(test);
        match () {
            () if self.ended == 0 => "unfinished",
            () if any(|h| h.taken_back.is_some()) => "taken back",
            () if any(|h| h.tally.failed > 0 || (h.fault.is_some() && !h.unreachable)) => "failed",
            () if any(|h| h.stopped.is_some()) => "stopped",
            () if any(|h| h.unreachable) => "unreachable",
            () if !self.header.rolls_back.is_empty() => "rolled back",
            () if any(|h| h.tally.changed > 0) => "changed",
            () => "ok",
        }
    }
}

/// A run's id: date, time, a short random part. Never to be taken for a host. `random` decides the last part.
pub fn run_id(now: u64, random: u64) -> String {
    let (year, month, day, hour, minute, _) = civil(now);
    const DIGITS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let tail: String = (0..4).map(|i| char::from(DIGITS[(random >> (5 * i)) as usize % 32])).collect();
    format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}-{tail}")
}

/// `2026-11-20 07:52:03 UTC`.
pub fn time_text(seconds: u64) -> String {
    let (year, month, day, hour, minute, second) = civil(seconds);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Year, month, day, hour, minute, second of a moment, in UTC (Howard Hinnant's `civil_from_days`).
fn civil(seconds: u64) -> (u64, u64, u64, u64, u64, u64) {
    let (days, rest) = (seconds / 86400, seconds % 86400);
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + u64::from(month <= 2);
    (year, month, day, rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_and_ids_are_dates() {
        assert_eq!(time_text(1_795_161_123), "2026-11-20 07:52:03 UTC");
        assert_eq!(time_text(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(run_id(1_795_161_123, 0), "20261120-0752-aaaa");
        assert_ne!(run_id(0, 1), run_id(0, 2));
    }
}
