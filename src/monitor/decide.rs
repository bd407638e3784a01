//! What the monitor decides, without a host: which tier a filesystem is in, when it will be full, what may be done to a path.

use std::time::Duration;

/// How bad it is. The order counts: a tier has the actions of all below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    Warning = 1,
    Compress,
    Cleanup,
    Degraded,
    Emergency,
    Critical,
}

impl Tier {
    pub const ALL: [Tier; 6] = [Tier::Warning, Tier::Compress, Tier::Cleanup, Tier::Degraded, Tier::Emergency, Tier::Critical];

    pub fn name(self) -> &'static str {
        match self {
            Tier::Warning => "warning",
            Tier::Compress => "compress",
            Tier::Cleanup => "cleanup",
            Tier::Degraded => "degraded",
            Tier::Emergency => "emergency",
            Tier::Critical => "critical",
        }
    }

    pub fn named(name: &str) -> Option<Tier> {
        Tier::ALL.into_iter().find(|tier| tier.name() == name)
    }
}

/// Where each tier begins: percent in use, ascending.
#[derive(Debug, PartialEq)]
pub struct Thresholds(pub Vec<(Tier, f64)>);

/// How full a filesystem is, in bytes that people may use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    pub used: u64,
    pub free: u64,
}

impl Usage {
    pub fn percent(self) -> f64 {
        let whole = self.used + self.free;
        if whole == 0 { 0.0 } else { self.used as f64 * 100.0 / whole as f64 }
    }
}

/// The tier of a filesystem: the highest whose threshold is reached. One that it was in before ends only when usage has fallen below its threshold by
/// the hysteresis, so that a filesystem at a threshold does not go to and fro.
/// On one of more than ten times `min_free`, less than that free is `cleanup` at least.
pub fn tier(usage: Usage, before: Option<Tier>, thresholds: &Thresholds, hysteresis: f64, min_free: u64) -> Option<Tier> {
    let percent = usage.percent();
    let scarce = usage.free < min_free && (usage.used + usage.free) / 10 > min_free;
    let holds = |tier: Tier, threshold: f64| {
        let keep = if before.is_some_and(|before| before >= tier) { hysteresis } else { 0.0 };
        percent >= threshold - keep || (scarce && tier <= Tier::Cleanup)
    };
    thresholds.0.iter().filter(|(tier, threshold)| holds(*tier, *threshold)).map(|(tier, _)| *tier).max()
}

/// A moment of a filesystem: seconds, and bytes in use.
pub type Sample = (u64, u64);

/// The least history from which a forecast is made.
const SHORTEST: u64 = 86_400;

/// In how many days a filesystem is full, if it goes on growing as in its history (the line of least squares). `None`: it does not grow, or too
/// little is known.
pub fn full_in(samples: &[Sample], free: u64) -> Option<f64> {
    let ((first, _), (last, _)) = (samples.first()?, samples.last()?);
    if last.saturating_sub(*first) < SHORTEST {
        return None;
    }
    let count = samples.len() as f64;
    let x = |at: u64| (at - first.min(&at)) as f64 / 86_400.0;
    let mean = |of: &dyn Fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (mean_x, mean_y) = (mean(&|s| x(s.0)), mean(&|s| s.1 as f64));
    let above: f64 = samples.iter().map(|s| (x(s.0) - mean_x) * (s.1 as f64 - mean_y)).sum();
    let below: f64 = samples.iter().map(|s| (x(s.0) - mean_x).powi(2)).sum();
    let per_day = above / below;
    (per_day.is_finite() && per_day >= 1.0).then(|| free as f64 / per_day)
}

/// What a forecast is worth saying: full in less than 30, 7, 3 days.
pub fn alarm(days: f64) -> Option<&'static str> {
    match days {
        days if days < 3.0 => Some("critical"),
        days if days < 7.0 => Some("warning"),
        days if days < 30.0 => Some("notice"),
        _ => None,
    }
}

/// What a file is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Never touched.
    Critical,
    /// May be compressed; only logs go, and only by age.
    Important,
    Standard,
    /// Goes when it is old.
    Expendable,
}

pub const CLASSES: [(&str, Class); 4] =
    [("critical", Class::Critical), ("important", Class::Important), ("standard", Class::Standard), ("expendable", Class::Expendable)];

/// What the classes and preserved paths say of a path.
#[derive(Debug, PartialEq)]
pub struct Classes {
    /// Paths, which mean all below them too, or patterns of names (`*.key`).
    pub patterns: Vec<(String, Class)>,
    pub preserve: Vec<String>,
}

/// What is to be done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    Compress,
    RemoveLog,
    RemoveTemporary,
}

/// Whether a text fits a pattern in which `*` stands for anything but a slash.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => text.strip_prefix(head).is_some_and(|text| {
            let ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            ends.take_while(|at| text.get(..*at).is_some_and(|skipped| !skipped.contains('/')))
                .any(|at| text.get(at..).is_some_and(|left| fits(rest, left)))
        }),
    }
}

/// Whether a path is one that a pattern means, or lies below it.
fn within(pattern: &str, path: &str) -> bool {
    let depth = pattern.trim_end_matches('/').matches('/').count();
    let ends = path.char_indices().filter(|(_, c)| *c == '/').map(|(at, _)| at).chain([path.len()]);
    ends.skip(depth).take(2).any(|at| path.get(..at).is_some_and(|top| fits(pattern.trim_end_matches('/'), top)))
}

impl Classes {
    /// Whether nothing at or below a path may be touched.
    pub fn is_preserved(&self, path: &str) -> bool {
        self.preserve.iter().any(|pattern| within(pattern, path))
    }

    /// What a path is worth: critical by its name, or what the longest path says that it is or lies below, or what its name says.
    pub fn class(&self, path: &str) -> Option<Class> {
        let name = path.rsplit('/').next().unwrap_or_default();
        let by_name = |class: &Class, pattern: &String| !pattern.starts_with('/') && fits(pattern, name) && *class == Class::Critical;
        if self.patterns.iter().any(|(pattern, class)| by_name(class, pattern)) {
            return Some(Class::Critical);
        }
        let paths = self.patterns.iter().filter(|(pattern, _)| pattern.starts_with('/') && within(pattern, path));
        let longest = paths.max_by_key(|(pattern, _)| pattern.len());
        let named = || self.patterns.iter().find(|(pattern, _)| !pattern.starts_with('/') && fits(pattern, name));
        longest.or_else(named).map(|(_, class)| *class)
    }

    /// Whether a deed may be done to a file. What has no class is not deleted.
    pub fn allow(&self, deed: Deed, path: &str) -> bool {
        if self.is_preserved(path) {
            return false;
        }
        match (deed, self.class(path)) {
            (_, Some(Class::Critical)) => false,
            (Deed::Compress, _) => true,
            (Deed::RemoveLog, class) => class.is_some(),
            (Deed::RemoveTemporary, class) => class == Some(Class::Expendable),
        }
    }
}

/// `*.log`, which is compressed.
pub fn is_log(name: &str) -> bool {
    name.ends_with(".log")
}

/// Logs that were put aside: `x.log.1`, `x.log.gz`, `syslog.2.gz`, `x-20260101`.
pub fn is_old_log(name: &str) -> bool {
    let plain = [".gz", ".xz", ".zst"].iter().find_map(|end| name.strip_suffix(end));
    let stem = plain.unwrap_or(name);
    let number = |(stem, number): (&str, &str)| !stem.is_empty() && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    stem.rsplit_once(['.', '-']).is_some_and(number) || (plain.is_some() && is_log(stem))
}

/// Whether something is older than a span; what comes from the future is not.
pub fn older(now: u64, at: u64, span: Duration) -> bool {
    now.saturating_sub(at) > span.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge() -> Thresholds {
        Thresholds(Tier::ALL.into_iter().zip([70.0, 75.0, 80.0, 83.0, 86.0, 90.0]).collect())
    }

    fn usage(percent: u64) -> Usage {
        Usage { used: percent << 20, free: (100 - percent) << 20 }
    }

    #[test]
    fn the_highest_threshold_that_is_reached_wins() {
        for (percent, expected) in [
            (0, None),
            (69, None),
            (70, Some(Tier::Warning)),
            (74, Some(Tier::Warning)),
            (75, Some(Tier::Compress)),
            (80, Some(Tier::Cleanup)),
            (82, Some(Tier::Cleanup)),
            (83, Some(Tier::Degraded)),
            (86, Some(Tier::Emergency)),
            (89, Some(Tier::Emergency)),
            (90, Some(Tier::Critical)),
            (100, Some(Tier::Critical)),
        ] {
            assert_eq!(tier(usage(percent), None, &edge(), 2.0, 0), expected, "{percent}");
        }
    }

    #[test]
    fn a_tier_ends_only_below_its_threshold_by_the_hysteresis() {
        for (before, percent, expected) in [
            (Tier::Cleanup, 79, Some(Tier::Cleanup)),
            (Tier::Cleanup, 78, Some(Tier::Cleanup)),
            (Tier::Cleanup, 77, Some(Tier::Compress)),
            (Tier::Cleanup, 73, Some(Tier::Compress)),
            (Tier::Cleanup, 72, Some(Tier::Warning)),
            (Tier::Cleanup, 60, None),
            (Tier::Warning, 68, Some(Tier::Warning)),
            (Tier::Warning, 67, None),
            // On the way up it does not count.
            (Tier::Warning, 79, Some(Tier::Compress)),
            (Tier::Critical, 88, Some(Tier::Critical)),
            (Tier::Critical, 87, Some(Tier::Emergency)),
        ] {
            assert_eq!(tier(usage(percent), Some(before), &edge(), 2.0, 0), expected, "{before:?} {percent}");
        }
    }

    #[test]
    fn little_free_space_is_cleanup_where_the_filesystem_is_large() {
        let large = Usage { used: 20_000 << 20, free: 999 << 20 };
        let quiet = Thresholds(vec![(Tier::Warning, 97.0), (Tier::Compress, 98.0), (Tier::Cleanup, 99.0), (Tier::Degraded, 99.5)]);
        assert_eq!(tier(large, None, &quiet, 2.0, 1000 << 20), Some(Tier::Cleanup));
        assert_eq!(tier(Usage { free: 1000 << 20, ..large }, None, &quiet, 2.0, 1000 << 20), None);
        assert_eq!(tier(usage(60), None, &edge(), 2.0, 1000 << 20), None);
    }

    #[test]
    fn growth_of_its_own_history_says_when_it_is_full() {
        let day = 86_400;
        let grows: Vec<Sample> = (0..8).map(|n| (n * day, 1000 + n * 100)).collect();
        let days = full_in(&grows, 650).unwrap();
        assert!((days - 6.5).abs() < 1e-9, "{days}");
        // Ups and downs of a day do not hide it.
        let wavy: Vec<Sample> = (0..56).map(|n| (n * day / 8, 1000 + n * 100 / 8 + if n % 2 == 0 { 0 } else { 30 })).collect();
        assert!((full_in(&wavy, 650).unwrap() - 6.5).abs() < 0.5);
        for (samples, why) in [
            (vec![], "nothing"),
            (vec![(0, 1), (day - 1, 1000)], "less than a day"),
            (vec![(0, 1000), (day, 1000), (2 * day, 1000)], "no growth"),
            (vec![(0, 1000), (day, 900), (2 * day, 800)], "it shrinks"),
            (vec![(5, 10), (5, 20)], "no time passes"),
            (vec![(2 * day, 10), (0, 20)], "the clock was set back"),
        ] {
            assert_eq!(full_in(&samples, 650), None, "{why}");
        }
        let alarms = [0.0, 2.9, 3.0, 6.9, 7.0, 29.9, 30.0].map(alarm);
        assert_eq!(alarms, [Some("critical"), Some("critical"), Some("warning"), Some("warning"), Some("notice"), Some("notice"), None]);
    }

    #[test]
    fn classes_and_preserved_paths_say_what_may_be_done() {
        let text = [
            ("/etc", Class::Critical),
            ("/var/lib", Class::Critical),
            ("/var/lib/docker/containers", Class::Standard),
            ("*.key", Class::Critical),
            ("/var/log", Class::Important),
            ("/tmp", Class::Expendable),
            ("*.tmp", Class::Expendable),
        ];
        let preserve = ["/home/*/Documents", "/var/log/audit", "/tmp/keep*"].map(str::to_owned).to_vec();
        let classes = Classes { patterns: text.map(|(pattern, class)| (pattern.to_owned(), class)).to_vec(), preserve };
        use Deed::*;
        for (path, allowed) in [
            ("/etc/x.log", [false, false, false]),
            ("/etcetera/x.log", [true, false, false]),
            ("/var/lib/app/x.log", [false, false, false]),
            ("/var/lib/docker/containers/a/a-json.log", [true, true, false]),
            ("/var/log/x.log", [true, true, false]),
            ("/var/log/audit", [false, false, false]),
            ("/var/log/audit/audit.log", [false, false, false]),
            ("/var/log/auditor/x.log", [true, true, false]),
            ("/var/log/server.key", [false, false, false]),
            ("/tmp/x", [true, true, true]),
            ("/tmp/site.key", [false, false, false]),
            ("/tmp/keepsake/x", [false, false, false]),
            ("/home/ann/Documents/x.tmp", [false, false, false]),
            ("/home/ann/x.tmp", [true, true, true]),
            ("/home/ann/Documents2/x.tmp", [true, true, true]),
            ("/srv/x", [true, false, false]),
        ] {
            assert_eq!([Compress, RemoveLog, RemoveTemporary].map(|deed| classes.allow(deed, path)), allowed, "{path}");
        }
    }

    #[test]
    fn logs_are_known_by_their_names() {
        for (name, log, old) in [
            ("x.log", true, false),
            ("x.log.1", false, true),
            ("x.log.gz", false, true),
            ("syslog.2.gz", false, true),
            ("app-20260101", false, true),
            ("data.gz", false, false),
            ("syslog", false, false),
            (".1", false, false),
            ("1", false, false),
        ] {
            assert_eq!((is_log(name), is_old_log(name)), (log, old), "{name}");
        }
    }
}
