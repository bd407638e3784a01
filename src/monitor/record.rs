//! What the monitor remembers between passes (`history`: seconds, bytes in use and where; `tiers`), the marker of `critical`, and the text file for
//! node exporters. Each file is written anew and put in the place of the old one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::decide::{Sample, Tier, Usage};
use crate::diagnostic::{Diagnostic, Result};

/// A sample is kept when the last is this old: a forecast over days needs no more.
const STEP: u64 = 600;

#[derive(Default)]
pub struct Record {
    pub history: BTreeMap<String, Vec<Sample>>,
    pub tiers: BTreeMap<String, Tier>,
}

/// What the metrics show of a filesystem.
pub struct Shown {
    pub mount: String,
    pub usage: Usage,
    pub tier: Option<Tier>,
    pub full_in: Option<f64>,
}

pub fn write(path: &Path, text: &str) -> Result<()> {
    let failed = |e: &std::io::Error| Diagnostic::io(format_args!("write {}", path.display()), e);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|e| failed(&e))?;
    }
    let part = path.with_extension("part");
    std::fs::write(&part, text).and_then(|()| std::fs::rename(&part, path)).map_err(|e| failed(&e).into())
}

impl Record {
    /// What earlier passes left. Lines that are damaged are passed over: a full disk may have cut them.
    pub fn read(folder: &str) -> Record {
        let text = |name: &str| std::fs::read_to_string(format!("{folder}/{name}")).unwrap_or_default();
        let mut record = Record::default();
        for line in text("history").lines() {
            let mut words = line.splitn(3, ' ');
            let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
            if let (Some(at), Some(used)) = (number(), number())
                && let Some(mount) = words.next()
            {
                record.history.entry(mount.to_owned()).or_default().push((at, used));
            }
        }
        for line in text("tiers").lines() {
            if let Some((tier, mount)) = line.split_once(' ').and_then(|(name, mount)| Some((Tier::named(name)?, mount))) {
                record.tiers.insert(mount.to_owned(), tier);
            }
        }
        record
    }

    /// Adds a moment, and forgets what is older than the retention (or from the future: the clock was set back).
    pub fn add(&mut self, mount: &str, sample: Sample, retention: u64) {
        let samples = self.history.entry(mount.to_owned()).or_default();
        samples.retain(|(at, _)| *at <= sample.0 && sample.0 - at <= retention);
        if samples.last().is_none_or(|(at, _)| sample.0 - at >= STEP) {
            samples.push(sample);
        }
    }

    pub fn write(&self, folder: &str) -> Result<()> {
        let mut history = String::new();
        for (mount, samples) in &self.history {
            samples.iter().for_each(|(at, used)| _ = writeln!(history, "{at} {used} {mount}"));
        }
        let tiers: String = self.tiers.iter().map(|(mount, tier)| format!("{} {mount}\n", tier.name())).collect();
        write(&Path::new(folder).join("history"), &history)?;
        write(&Path::new(folder).join("tiers"), &tiers)
    }
}

/// The text that node exporters read.
pub fn metrics(shown: &[Shown], now: u64) -> String {
    let label = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let mut out = String::new();
    type Value = fn(&Shown) -> Option<f64>;
    let kinds: [(&str, &str, Value); 4] = [
        ("basalt_storage_used_percent", "How full a filesystem is.", |s| Some(s.usage.percent())),
        ("basalt_storage_free_bytes", "What is free of it.", |s| Some(s.usage.free as f64)),
        ("basalt_storage_tier", "0: none, 1: warning, 2: compress, 3: cleanup, 4: degraded, 5: emergency, 6: critical.", |s| {
            Some(s.tier.map_or(0.0, |tier| f64::from(tier as u8)))
        }),
        ("basalt_storage_full_in_days", "When it is full, if it goes on growing as it does.", |s| s.full_in),
    ];
    for (name, help, value) in kinds {
        _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (one, number) in shown.iter().filter_map(|one| Some((one, value(one)?))) {
            _ = writeln!(out, "{name}{{mount=\"{}\"}} {number}", label(&one.mount));
        }
    }
    _ = writeln!(
        out,
        "# HELP basalt_storage_last_pass_seconds When the monitor last looked.\n# TYPE basalt_storage_last_pass_seconds gauge"
    );
    _ = writeln!(out, "basalt_storage_last_pass_seconds {now}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_the_old_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("state").to_str().unwrap().to_owned();
        let mut record = Record::read(&folder);
        for at in [0, 100, 700, 1300, 5000] {
            record.add("/srv/a b", (at, at * 2), 4000);
        }
        assert_eq!(record.history["/srv/a b"], [(1300, 2600), (5000, 10000)]);
        record.tiers.insert("/srv/a b".into(), Tier::Degraded);
        record.write(&folder).unwrap();
        std::fs::write(format!("{folder}/history"), std::fs::read_to_string(format!("{folder}/history")).unwrap() + "7000 1").unwrap();
        let mut again = Record::read(&folder);
        assert_eq!((&again.history, &again.tiers), (&record.history, &record.tiers));
        // The clock goes back: what lies in its future is no history.
        again.add("/srv/a b", (2000, 1), 4000);
        assert_eq!(again.history["/srv/a b"], [(1300, 2600), (2000, 1)]);
    }

    #[test]
    fn metrics_are_what_exporters_read() {
        let shown = Shown { mount: "/a\"b".into(), usage: Usage { used: 3, free: 1 }, tier: Some(Tier::Warning), full_in: None };
        let text = metrics(&[shown], 9);
        for line in [
            "basalt_storage_used_percent{mount=\"/a\\\"b\"} 75",
            "basalt_storage_tier{mount=\"/a\\\"b\"} 1",
            "basalt_storage_last_pass_seconds 9",
        ] {
            assert!(text.lines().any(|found| found == line), "{text}");
        }
        assert!(!text.contains("full_in_days{"));
    }
}
