//! What `watch:` of the settings says: how often is looked, what becomes of drift, when hosts may be changed, whose commits count.

use super::{entries, number, text_of, texts_of, wrong};
use crate::diagnostic::Result;
use crate::engine::window::{DAYS, Window};
use crate::lang::glob;
use crate::value::Value;
use crate::yaml::{Data, Node};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Watch {
    /// Seconds between two looks at all hosts.
    pub interval: Option<u64>,
    /// Seconds between two looks at the branch.
    pub poll: Option<u64>,
    pub drift: Option<Drift>,
    /// Before `drift`; the first that fits wins.
    pub drift_rules: Option<Vec<Rule>>,
    pub windows: Option<Vec<Window>>,
    /// A file as git's `gpg.ssh.allowedSignersFile` has it.
    pub allowed_signers: Option<String>,
}

/// What becomes of what differs without a commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Drift {
    #[default]
    Show,
    Correct,
}

/// For which states something else holds: globs.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    host: String,
    sls: String,
    id: String,
    drift: Drift,
}

const KEYS: [&str; 6] = ["interval", "poll", "drift", "drift_rules", "windows", "allowed_signers"];

impl Watch {
    pub fn drift_of(&self, host: &str, sls: &str, id: &str) -> Drift {
        let fits = |rule: &&Rule| glob::matches(&rule.host, host) && glob::matches(&rule.sls, sls) && glob::matches(&rule.id, id);
        let rule = self.drift_rules.iter().flatten().find(fits);
        rule.map(|rule| rule.drift).or(self.drift).unwrap_or_default()
    }

    /// Fills what is not said here with what `other` says.
    pub fn or(self, other: Watch) -> Watch {
        Watch {
            interval: self.interval.or(other.interval),
            poll: self.poll.or(other.poll),
            drift: self.drift.or(other.drift),
            drift_rules: self.drift_rules.or(other.drift_rules),
            windows: self.windows.or(other.windows),
            allowed_signers: self.allowed_signers.or(other.allowed_signers),
        }
    }

    pub(super) fn parse(file: &str, node: &Node) -> Result<Watch> {
        let mut watch = Watch::default();
        for (name, value) in entries(file, node, "setting of watch", &KEYS)? {
            match name.as_str() {
                "interval" => watch.interval = Some(number(file, value)?),
                "poll" => watch.poll = Some(number(file, value)?),
                "drift" => watch.drift = Some(drift(file, value)?),
                "drift_rules" => {
                    watch.drift_rules = Some(list(file, value)?.iter().map(|rule| parse_rule(file, rule)).collect::<Result<_>>()?)
                }
                "windows" => {
                    watch.windows = Some(list(file, value)?.iter().map(|window| parse_window(file, window)).collect::<Result<_>>()?)
                }
                _ => watch.allowed_signers = Some(text_of(file, value)?),
            }
        }
        Ok(watch)
    }
}

fn parse_rule(file: &str, node: &Node) -> Result<Rule> {
    let any = || "*".to_owned();
    let mut rule = Rule { host: any(), sls: any(), id: any(), drift: Drift::Show };
    let mut said = false;
    for (name, value) in entries(file, node, "part of a rule", &["host", "sls", "id", "drift"])? {
        match name.as_str() {
            "host" => rule.host = text_of(file, value)?,
            "sls" => rule.sls = text_of(file, value)?,
            "id" => rule.id = text_of(file, value)?,
            _ => (rule.drift, said) = (drift(file, value)?, true),
        }
    }
    if said { Ok(rule) } else { Err(wrong(file, node, "a rule says `drift: show` or `drift: correct`")) }
}

fn parse_window(file: &str, node: &Node) -> Result<Window> {
    let mut window = Window { days: (0..7).collect(), from: 0, to: 0 };
    for (name, value) in entries(file, node, "part of a window", &["days", "from", "to"])? {
        match name.as_str() {
            "days" => window.days = texts_of(file, value)?.iter().map(|text| day(file, value, text)).collect::<Result<_>>()?,
            "from" => window.from = time(file, value)?,
            _ => window.to = time(file, value)?,
        }
    }
    if window.days.is_empty() { Err(wrong(file, node, "a window without a day never opens")) } else { Ok(window) }
}

fn day(file: &str, node: &Node, text: &str) -> Result<u32> {
    let known = DAYS.iter().position(|day| *day == text.to_lowercase());
    known.and_then(|day| u32::try_from(day).ok()).ok_or_else(|| wrong(file, node, &format!("{text:?} is no day: {}", DAYS.join(" "))))
}

/// `22:30`; YAML reads some of these as numbers to the base of sixty, which are minutes.
fn time(file: &str, node: &Node) -> Result<u32> {
    let minutes = match node.to_value() {
        Value::Str(text) => text.split_once(':').and_then(|(h, m)| {
            let (h, m): (u32, u32) = (h.parse().ok()?, m.parse().ok()?);
            (h < 24 && m < 60).then_some(h * 60 + m)
        }),
        other => other.as_int().and_then(|n| u32::try_from(n).ok()).filter(|n| (60..24 * 60).contains(n)),
    };
    minutes.ok_or_else(|| wrong(file, node, "a time of day is expected here: '22:30'"))
}

fn drift(file: &str, node: &Node) -> Result<Drift> {
    match text_of(file, node)?.as_str() {
        "show" => Ok(Drift::Show),
        "correct" => Ok(Drift::Correct),
        _ => Err(wrong(file, node, "drift is `show` or `correct`")),
    }
}

fn list<'a>(file: &str, node: &'a Node) -> Result<&'a [Node]> {
    match &node.data {
        Data::List(items) => Ok(items),
        _ => Err(wrong(file, node, "a list is expected here")),
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::settings::Settings;

    use super::*;

    fn parsed(text: &str) -> Result<Watch> {
        Settings::parse(&format!("watch:\n  {}\n", text.replace('\n', "\n  ")), "basalt.yaml").map(|settings| settings.watch)
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let watch = parsed(
            "interval: 60\ndrift: correct\ndrift_rules:\n- {sls: 'app.*', drift: show}\n- {host: web*, id: motd, drift: show}\n- {sls: app, drift: correct}",
        )
        .unwrap();
        assert_eq!(watch.interval, Some(60));
        for (host, sls, id, drift) in [
            ("web1", "app.db", "x", Drift::Show),
            ("web1", "app", "motd", Drift::Show),
            ("db1", "app", "motd", Drift::Correct),
            ("db1", "other", "x", Drift::Correct),
        ] {
            assert_eq!(watch.drift_of(host, sls, id), drift, "{host} {sls} {id}");
        }
        assert_eq!(Watch::default().drift_of("a", "b", "c"), Drift::Show);
    }

    #[test]
    fn windows_are_read_with_and_without_quotes() {
        let watch = parsed("windows:\n- {days: [mon, fri], from: 22:30, to: '04:00'}\n- {days: sun}").unwrap();
        let windows = [Window { days: vec![0, 4], from: 1350, to: 240 }, Window { days: vec![6], from: 0, to: 0 }];
        assert_eq!(watch.windows.as_deref(), Some(&windows[..]));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "intervall: 3",
            "interval: 0",
            "drift: maybe",
            "drift_rules: [{sls: a}]",
            "windows: [{days: someday}]",
            "windows: [{days: []}]",
            "windows: [{from: '25:00'}]",
            "windows: {from: '22:00'}",
        ] {
            assert!(parsed(text).is_err(), "{text}");
        }
    }
}
