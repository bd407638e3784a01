//! cron.*: jobs and variables in a user's crontab, in Salt's own format, so that crontabs that Salt wrote go on as they are.
//!
//! Everything below the header line is ours: it is read, changed and written as Salt does it. What stands above is never touched.

use super::args::Args;
use super::{Arg, ArgKind, Entry, Function, There, Want};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::plan::{Hash, Key, Kind, Low};
use crate::value::{Value, attributes};

const HEADER: &str = "# Lines below here are managed by Salt, do not edit";
const IDENTIFIER: &str = "SALT_CRON_IDENTIFIER";
const NO_IDENTIFIER: &str = "NO ID SET";
const DISABLED: &str = "#DISABLED#";
const TIMES: [&str; 5] = ["minute", "hour", "daymonth", "month", "dayweek"];
/// Lowest and highest value of each, for `random`.
const RANGES: [(u64, u64); 5] = [(0, 59), (0, 23), (1, 28), (1, 12), (0, 6)];
const MACHINE_ID: &str = "/etc/machine-id";

const USER: Arg = Arg::new("user", ArgKind::Str, "root", "Whose crontab it is.");
const ID: Arg = Arg::new("identifier", ArgKind::Any, "NAME", "What the job is known by, so that its command may change.");
const PRESENT: &[Arg] = &[
    Arg::new("name", ArgKind::Str, "", "The command."),
    USER,
    Arg::new("minute", ArgKind::Str, "*", "Minutes; `random` picks one per host."),
    Arg::new("hour", ArgKind::Str, "*", "Hours."),
    Arg::new("daymonth", ArgKind::Str, "*", "Days of the month."),
    Arg::new("month", ArgKind::Str, "*", "Months."),
    Arg::new("dayweek", ArgKind::Str, "*", "Days of the week."),
    Arg::new("comment", ArgKind::Str, "", "A comment above the job."),
    Arg::new("commented", ArgKind::Bool, "False", "Keep the job but switched off."),
    ID,
    Arg::new("special", ArgKind::Str, "", "A word instead of times: @daily, @reboot …"),
];
const ABSENT: &[Arg] = &[
    Arg::new("name", ArgKind::Str, "", "The command."),
    USER,
    ID,
    Arg::new("special", ArgKind::Str, "", "Look among the jobs with this word instead of times."),
    Arg::new("minute", ArgKind::Str, "", "Accepted without effect, as in Salt."),
    Arg::new("hour", ArgKind::Str, "", "Accepted without effect, as in Salt."),
    Arg::new("daymonth", ArgKind::Str, "", "Accepted without effect, as in Salt."),
    Arg::new("month", ArgKind::Str, "", "Accepted without effect, as in Salt."),
    Arg::new("dayweek", ArgKind::Str, "", "Accepted without effect, as in Salt."),
    Arg::new("comment", ArgKind::Str, "", "Accepted without effect, as in Salt."),
];
const ENV_PRESENT: &[Arg] = &[Arg::new("name", ArgKind::Str, "", "The variable."), Arg::new("value", ArgKind::Str, "", "Its value."), USER];
const ENV_ABSENT: &[Arg] = &[Arg::new("name", ArgKind::Str, "", "The variable."), USER];

pub const FUNCTIONS: &[Entry] = &[
    Entry { name: "cron.present", doc: "A job is in a user's crontab.", args: PRESENT, watches: false, parse: present },
    Entry { name: "cron.absent", doc: "A job is not in a user's crontab.", args: ABSENT, watches: false, parse: absent },
    Entry {
        name: "cron.env_present",
        doc: "A variable is set in a user's crontab.",
        args: ENV_PRESENT,
        watches: false,
        parse: env_present,
    },
    Entry {
        name: "cron.env_absent",
        doc: "A variable is not set in a user's crontab.",
        args: ENV_ABSENT,
        watches: false,
        parse: env_absent,
    },
];

#[derive(Clone, Debug, PartialEq)]
enum When {
    Times([String; 5]),
    Special(String),
}

#[derive(Clone, Debug, PartialEq)]
struct Job {
    when: When,
    command: String,
    identifier: Option<String>,
    comment: Option<String>,
    off: bool,
}

/// A crontab as Salt sees it.
#[derive(Default)]
struct Tab {
    above: Vec<String>,
    env: Vec<(String, String)>,
    /// Jobs with times, then jobs with words.
    jobs: [Vec<Job>; 2],
}

impl Tab {
    fn parse(text: &str) -> Tab {
        let mut tab = Tab::default();
        let mut ours = false;
        let (mut comment, mut identifier): (Option<String>, Option<String>) = (None, None);
        for line in text.lines() {
            if line == HEADER {
                ours = true;
                continue;
            }
            if !ours {
                tab.above.push(line.to_owned());
                continue;
            }
            let (line, off) = line.strip_prefix(DISABLED).map_or((line, false), |l| (l, true));
            if line.starts_with('@') {
                let mut words = line.split_whitespace();
                let Some(word) = words.next().map(str::to_owned) else { continue };
                let command = words.collect::<Vec<_>>().join(" ");
                if !command.is_empty() {
                    let job = Job { when: When::Special(word), command, identifier: identifier.take(), comment: comment.take(), off };
                    tab.jobs[1].push(job);
                }
            } else if line.starts_with('#') {
                let text = line.trim_start_matches(['#', ' ']);
                let mut text = text.to_owned();
                if let Some((before, after)) = text.clone().split_once(IDENTIFIER) {
                    text = before.trim_end().to_owned();
                    if let Some(id) = after.strip_prefix(':').filter(|id| !id.is_empty()) {
                        identifier = Some(id.to_owned());
                    }
                }
                comment = Some(comment.map_or(text.clone(), |c| format!("{c}\n{text}")));
            } else if let Some((name, value)) = line.split_once('=').filter(|(name, _)| !name.is_empty() && !name.contains(' ')) {
                tab.env.push((name.to_owned(), value.to_owned()));
            } else {
                let mut words = line.splitn(6, ' ').map(str::to_owned);
                let mut next = || words.next();
                if let (Some(a), Some(b), Some(c), Some(d), Some(e), Some(command)) = (next(), next(), next(), next(), next(), next()) {
                    let when = When::Times([a, b, c, d, e]);
                    tab.jobs[0].push(Job { when, command, identifier: identifier.take(), comment: comment.take(), off });
                }
            }
        }
        tab
    }

    fn render(&self) -> String {
        let mut out: String = self.above.iter().map(|line| format!("{line}\n")).collect();
        out.push_str(HEADER);
        out.push('\n');
        for (name, value) in &self.env {
            let value = if value.is_empty() { "\"\"" } else { value };
            out.push_str(&format!("{name}={value}\n"));
        }
        for job in self.jobs.iter().flatten() {
            if job.comment.is_some() || job.identifier.is_some() {
                out.push('#');
                if let Some(comment) = job.comment.as_deref().filter(|c| !c.is_empty()) {
                    let comment = if matches!(job.when, When::Special(_)) { comment.trim_end() } else { comment };
                    out.push_str(&format!(" {}", comment.replace('\n', "\n# ")));
                }
                if let Some(id) = job.identifier.as_deref().filter(|id| !id.is_empty()) {
                    out.push_str(&format!(" {IDENTIFIER}:{id}"));
                }
                out.push('\n');
            }
            let when = match &job.when {
                When::Times(times) => times.join(" "),
                When::Special(word) => word.clone(),
            };
            out.push_str(&format!("{}{when} {}\n", if job.off { DISABLED } else { "" }, job.command));
        }
        out
    }
}

impl Job {
    fn part(&self) -> String {
        self.identifier.clone().filter(|id| !id.is_empty()).unwrap_or_else(|| self.command.clone())
    }

    /// Whether this job is the one meant: by its identifier, or by its command where it has none.
    fn is(&self, command: &str, identifier: Option<&str>) -> bool {
        let wanted = identifier.filter(|i| !i.is_empty()).unwrap_or(NO_IDENTIFIER);
        match self.identifier.as_deref().filter(|i| !i.is_empty()) {
            Some(id) => id == wanted,
            None => self.command == command,
        }
    }
}

/// Puts a job there or brings it up to date. Where nothing is to change the tab stays as it is.
fn set(tab: &mut Tab, job: Job, pick: impl Fn(&str, usize) -> String) {
    let found = (0..2).find_map(|kind| {
        let at = tab.jobs.get(kind)?.iter().position(|j| j.is(&job.command, job.identifier.as_deref()))?;
        Some((kind, at))
    });
    let mut new = job;
    if let Some((kind, at)) = found
        && let Some(old) = tab.jobs.get(kind).and_then(|jobs| jobs.get(at)).cloned()
    {
        if let (When::Times(now), When::Times(wanted)) = (&old.when, &mut new.when) {
            for (wanted, now) in wanted.iter_mut().zip(now) {
                // A time that was picked before stays.
                if wanted == "random" && now != "*" {
                    wanted.clone_from(now);
                }
            }
        }
        if new.comment.is_none() {
            new.comment.clone_from(&old.comment);
        }
        if new.identifier.is_none() {
            new.identifier.clone_from(&old.identifier);
        }
        if new == old {
            return;
        }
        if let Some(jobs) = tab.jobs.get_mut(kind) {
            jobs.remove(at);
        }
    }
    if let When::Times(times) = &mut new.when {
        for (field, time) in times.iter_mut().enumerate() {
            *time = pick(time, field);
        }
        tab.jobs[0].push(new);
    } else {
        tab.jobs[1].push(new);
    }
}

/// `random` and `a:b` become one value: the same each time on this host, another on the next.
fn pick(time: &str, field: usize, seed: &str) -> String {
    let (low, high) = match time.split_once(':') {
        _ if time == "random" => RANGES.get(field).copied().unwrap_or((0, 0)),
        Some((a, b)) => match (a.parse::<u64>(), b.parse::<u64>()) {
            (Ok(a), Ok(b)) => (a.min(b), a.max(b)),
            _ => return time.to_owned(),
        },
        None => return time.to_owned(),
    };
    let Hash(hash) = Hash::of(format!("{seed}\0{field}").as_bytes());
    let number = hash.get(..12).and_then(|h| u64::from_str_radix(h, 16).ok()).unwrap_or(0);
    (low + number % (high - low + 1)).to_string()
}

enum Edit {
    Set(Job),
    Remove { command: String, identifier: Option<String>, special: Option<String> },
    SetEnv(String, String),
    RemoveEnv(String),
}

struct Cron {
    user: String,
    edit: Edit,
}

fn made(args: &Args, edit: Edit) -> Result<Box<dyn Function>> {
    Ok(Box::new(Cron { user: args.str("user")?.unwrap_or_else(|| "root".into()), edit }))
}

/// Salt's default identifier is the name; an explicit null or empty one is none.
fn identifier(args: &Args) -> Option<String> {
    match args.0.args.get("identifier") {
        None | Some(Value::Bool(false)) => Some(args.name().trim().to_owned()),
        Some(Value::Null) => None,
        Some(id) => Some(id.to_text()).filter(|id| !id.is_empty()),
    }
}

fn one_line(args: &Args, what: &str, text: &str) -> Result<()> {
    if text.contains('\n') {
        return Err(args.error(format!("{what} of a cron state cannot have more than one line")));
    }
    Ok(())
}

fn present(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let command = args.name().trim().to_owned();
    one_line(&args, "the command", &command)?;
    let when = match args.str("special")? {
        Some(word) => When::Special(word),
        None => {
            let mut times: [String; 5] = Default::default();
            for (time, name) in times.iter_mut().zip(TIMES) {
                *time = args.str(name)?.unwrap_or_else(|| "*".into()).to_lowercase();
                one_line(&args, name, time)?;
            }
            When::Times(times)
        }
    };
    let job = Job { when, command, identifier: identifier(&args), comment: args.str("comment")?, off: args.bool("commented", false)? };
    made(&args, Edit::Set(job))
}

fn absent(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let command = args.name().trim().to_owned();
    made(&args, Edit::Remove { command, identifier: identifier(&args), special: args.str("special")? })
}

fn env_present(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let value = args.str("value")?.unwrap_or_default();
    one_line(&args, "the value", &value)?;
    made(&args, Edit::SetEnv(args.name(), value))
}

fn env_absent(low: &Low) -> Result<Box<dyn Function>> {
    made(&Args(low), Edit::RemoveEnv(Args(low).name()))
}

impl Cron {
    fn random(&self) -> bool {
        matches!(&self.edit, Edit::Set(Job { when: When::Times(times), .. }) if times.iter().any(|t| t == "random" || t.contains(':')))
    }

    fn apply(&self, tab: &mut Tab, seed: &str) {
        match &self.edit {
            Edit::Set(job) => {
                let seed = format!("{seed}\0{}\0{}", self.user, job.identifier.as_deref().unwrap_or(&job.command));
                set(tab, job.clone(), |time, field| pick(time, field, &seed));
            }
            Edit::Remove { command, identifier, special } => {
                let kind = usize::from(special.is_some());
                let right = |j: &Job| special.as_ref().is_none_or(|word| j.when == When::Special(word.clone()));
                if let Some(jobs) = tab.jobs.get_mut(kind)
                    && let Some(at) = jobs.iter().position(|j| j.is(command, identifier.as_deref()) && right(j))
                {
                    jobs.remove(at);
                }
            }
            Edit::SetEnv(name, value) => {
                let there = tab.env.iter().position(|(n, _)| n == name);
                // An empty value is written as two quotes, and read back as such.
                let same = |v: &str| v == value || (value.is_empty() && v == "\"\"");
                match there.and_then(|at| tab.env.get(at).map(|(_, v)| (at, v))) {
                    Some((_, v)) if same(v) => return,
                    Some((at, _)) => drop(tab.env.remove(at)),
                    None => {}
                }
                tab.env.push((name.clone(), value.clone()));
            }
            Edit::RemoveEnv(name) => tab.env.retain(|(n, _)| n != name),
        }
    }
}

/// What the jobs and variables of a crontab that a state may have made are known by: identifier or command, `NAME=`.
pub fn jobs(text: &str) -> Vec<String> {
    let tab = Tab::parse(text);
    let jobs = tab.jobs.iter().flatten().map(Job::part);
    tab.env.iter().map(|(name, _)| variable(name)).chain(jobs).collect()
}

/// A crontab without the one that is known by this.
pub fn without(text: &str, part: &str) -> String {
    let mut tab = Tab::parse(text);
    tab.env.retain(|(name, _)| variable(name) != part);
    tab.jobs.iter_mut().for_each(|jobs| jobs.retain(|job| job.part() != part));
    tab.render()
}

fn variable(name: &str) -> String {
    format!("{name}=")
}

impl Function for Cron {
    fn objects(&self, _: &dyn There) -> Result<Vec<Key>> {
        let mut keys = vec![Key::new(Kind::Crontab, &self.user), Key::new(Kind::User, &self.user)];
        if self.random() {
            keys.push(Key::new(Kind::File, MACHINE_ID));
        }
        Ok(keys)
    }

    fn parts(&self) -> Vec<String> {
        match &self.edit {
            // It may be there under its command still.
            Edit::Set(job) => vec![job.part(), job.command.clone()],
            Edit::Remove { command, identifier, .. } => identifier.iter().chain([command]).cloned().collect(),
            Edit::SetEnv(name, _) | Edit::RemoveEnv(name) => vec![variable(name)],
        }
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        let key = Key::new(Kind::Crontab, &self.user);
        if there.get(&Key::new(Kind::User, &self.user)).is_empty() {
            let summary = format!("user {} is not available", self.user);
            return match &self.edit {
                Edit::Remove { .. } | Edit::RemoveEnv(_) => Ok(Want::Nothing(summary)),
                _ if there.uncertain() => Ok(Want::Unknown(format!("known after an earlier command: {summary}"))),
                _ => Err(Diagnostic::new(Code::Failed, summary).into()),
            };
        }
        let content = |key: &Key| -> Result<String> {
            match there.get(key).get("content").and_then(Value::as_str) {
                Some(hash) => Ok(String::from_utf8_lossy(&there.bytes(&Hash(hash.to_owned()))?).into_owned()),
                None => Ok(String::new()),
            }
        };
        let text = content(&key)?;
        let seed = if self.random() { content(&Key::new(Kind::File, MACHINE_ID))? } else { String::new() };
        let mut tab = Tab::parse(&text);
        let before = tab.render();
        self.apply(&mut tab, &seed);
        let after = tab.render();
        if before == after {
            return Ok(Want::Nothing(match self.edit {
                Edit::Remove { .. } | Edit::RemoveEnv(_) => "it is not in the crontab".into(),
                _ => "it is in the crontab".into(),
            }));
        }
        let attrs = attributes([("content".to_owned(), Value::Str(there.put(after.into_bytes()).0))]);
        Ok(Want::Is(vec![(key, attrs)]))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Host, answer};
    use super::*;
    use serde_json::json;

    /// The crontab after a state over this one; `None`: nothing to do.
    fn after(before: &str, function: &str, args: serde_json::Value) -> Option<String> {
        let mut host = Host::default();
        host.has("user:root", json!({"uid": 0}));
        host.file("/etc/machine-id", "m1");
        if !before.is_empty() {
            let hash = There::put(&host, before.as_bytes().to_vec());
            host.has("crontab:root", json!({"content": hash.0}));
        }
        match answer(&host, function, args).unwrap() {
            Want::Is(wants) => {
                let hash = wants[0].1["content"].as_str().unwrap().to_owned();
                Some(String::from_utf8(host.bytes(&Hash(hash)).unwrap().to_vec()).unwrap())
            }
            Want::Nothing(_) => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn crontabs_are_written_as_salt_writes_them() {
        // Each from the one before; the texts are those of Salt 3008.5's cron module.
        let cases: Vec<(&str, serde_json::Value, Option<&str>)> = vec![
            (
                "cron.present",
                json!({"name": "/usr/bin/backup", "minute": 5, "hour": "*/2", "identifier": "BACKUP"}),
                Some(
                    "# mine\n5 4 * * * keep me\n# Lines below here are managed by Salt, do not edit\n# SALT_CRON_IDENTIFIER:BACKUP\n5 */2 * * * /usr/bin/backup\n",
                ),
            ),
            ("cron.present", json!({"name": "/usr/bin/backup", "minute": 5, "hour": "*/2", "identifier": "BACKUP"}), None),
            (
                "cron.present",
                json!({"name": "/usr/bin/backup --all", "minute": 5, "hour": "*/2", "identifier": "BACKUP", "comment": "two\nlines"}),
                Some(
                    "# mine\n5 4 * * * keep me\n# Lines below here are managed by Salt, do not edit\n# two\n# lines SALT_CRON_IDENTIFIER:BACKUP\n5 */2 * * * /usr/bin/backup --all\n",
                ),
            ),
            (
                "cron.present",
                json!({"name": "/bin/x > /dev/null 2>&1", "dayweek": "MON"}),
                Some(
                    "# mine\n5 4 * * * keep me\n# Lines below here are managed by Salt, do not edit\n# two\n# lines SALT_CRON_IDENTIFIER:BACKUP\n5 */2 * * * /usr/bin/backup --all\n# SALT_CRON_IDENTIFIER:/bin/x > /dev/null 2>&1\n* * * * mon /bin/x > /dev/null 2>&1\n",
                ),
            ),
            (
                "cron.env_present",
                json!({"name": "MAILTO", "value": "a@b.c"}),
                Some(
                    "# mine\n5 4 * * * keep me\n# Lines below here are managed by Salt, do not edit\nMAILTO=a@b.c\n# two\n# lines SALT_CRON_IDENTIFIER:BACKUP\n5 */2 * * * /usr/bin/backup --all\n# SALT_CRON_IDENTIFIER:/bin/x > /dev/null 2>&1\n* * * * mon /bin/x > /dev/null 2>&1\n",
                ),
            ),
            (
                "cron.env_present",
                json!({"name": "PATH", "value": "/bin:/usr/bin"}),
                Some(
                    "# mine\n5 4 * * * keep me\n# Lines below here are managed by Salt, do not edit\nMAILTO=a@b.c\nPATH=/bin:/usr/bin\n# two\n# lines SALT_CRON_IDENTIFIER:BACKUP\n5 */2 * * * /usr/bin/backup --all\n# SALT_CRON_IDENTIFIER:/bin/x > /dev/null 2>&1\n* * * * mon /bin/x > /dev/null 2>&1\n",
                ),
            ),
            (
                "cron.env_present",
                json!({"name": "MAILTO", "value": "z@b.c"}),
                Some(
                    "# mine\n5 4 * * * keep me\n# Lines below here are managed by Salt, do not edit\nPATH=/bin:/usr/bin\nMAILTO=z@b.c\n# two\n# lines SALT_CRON_IDENTIFIER:BACKUP\n5 */2 * * * /usr/bin/backup --all\n# SALT_CRON_IDENTIFIER:/bin/x > /dev/null 2>&1\n* * * * mon /bin/x > /dev/null 2>&1\n",
                ),
            ),
            (
                "cron.present",
                json!({"name": "/bin/boot a  b", "special": "@reboot", "comment": "at boot"}),
                Some(
                    "# mine\n5 4 * * * keep me\n# Lines below here are managed by Salt, do not edit\nPATH=/bin:/usr/bin\nMAILTO=z@b.c\n# two\n# lines SALT_CRON_IDENTIFIER:BACKUP\n5 */2 * * * /usr/bin/backup --all\n# SALT_CRON_IDENTIFIER:/bin/x > /dev/null 2>&1\n* * * * mon /bin/x > /dev/null 2>&1\n# at boot SALT_CRON_IDENTIFIER:/bin/boot a  b\n@reboot /bin/boot a  b\n",
                ),
            ),
            (
                "cron.present",
                json!({"name": "/bin/boot a  b", "special": "@daily"}),
                Some(
                    "# mine\n5 4 * * * keep me\n# Lines below here are managed by Salt, do not edit\nPATH=/bin:/usr/bin\nMAILTO=z@b.c\n# two\n# lines SALT_CRON_IDENTIFIER:BACKUP\n5 */2 * * * /usr/bin/backup --all\n# SALT_CRON_IDENTIFIER:/bin/x > /dev/null 2>&1\n* * * * mon /bin/x > /dev/null 2>&1\n# at boot SALT_CRON_IDENTIFIER:/bin/boot a  b\n@daily /bin/boot a  b\n",
                ),
            ),
            (
                "cron.present",
                json!({"name": "/bin/x > /dev/null 2>&1", "dayweek": "MON", "commented": true}),
                Some(
                    "# mine\n5 4 * * * keep me\n# Lines below here are managed by Salt, do not edit\nPATH=/bin:/usr/bin\nMAILTO=z@b.c\n# two\n# lines SALT_CRON_IDENTIFIER:BACKUP\n5 */2 * * * /usr/bin/backup --all\n# SALT_CRON_IDENTIFIER:/bin/x > /dev/null 2>&1\n#DISABLED#* * * * mon /bin/x > /dev/null 2>&1\n# at boot SALT_CRON_IDENTIFIER:/bin/boot a  b\n@daily /bin/boot a b\n",
                ),
            ),
            ("cron.present", json!({"name": "/bin/x > /dev/null 2>&1", "dayweek": "MON", "commented": true}), None),
            (
                "cron.present",
                json!({"name": "noid", "minute": 1, "identifier": null}),
                Some(
                    "# mine\n5 4 * * * keep me\n# Lines below here are managed by Salt, do not edit\nPATH=/bin:/usr/bin\nMAILTO=z@b.c\n# two\n# lines SALT_CRON_IDENTIFIER:BACKUP\n5 */2 * * * /usr/bin/backup --all\n# SALT_CRON_IDENTIFIER:/bin/x > /dev/null 2>&1\n#DISABLED#* * * * mon /bin/x > /dev/null 2>&1\n1 * * * * noid\n# at boot SALT_CRON_IDENTIFIER:/bin/boot a  b\n@daily /bin/boot a b\n",
                ),
            ),
            (
                "cron.present",
                json!({"name": "noid", "minute": 2, "identifier": null}),
                Some(
                    "# mine\n5 4 * * * keep me\n# Lines below here are managed by Salt, do not edit\nPATH=/bin:/usr/bin\nMAILTO=z@b.c\n# two\n# lines SALT_CRON_IDENTIFIER:BACKUP\n5 */2 * * * /usr/bin/backup --all\n# SALT_CRON_IDENTIFIER:/bin/x > /dev/null 2>&1\n#DISABLED#* * * * mon /bin/x > /dev/null 2>&1\n2 * * * * noid\n# at boot SALT_CRON_IDENTIFIER:/bin/boot a  b\n@daily /bin/boot a b\n",
                ),
            ),
            (
                "cron.present",
                json!({"name": "noid", "minute": 2}),
                Some(
                    "# mine\n5 4 * * * keep me\n# Lines below here are managed by Salt, do not edit\nPATH=/bin:/usr/bin\nMAILTO=z@b.c\n# two\n# lines SALT_CRON_IDENTIFIER:BACKUP\n5 */2 * * * /usr/bin/backup --all\n# SALT_CRON_IDENTIFIER:/bin/x > /dev/null 2>&1\n#DISABLED#* * * * mon /bin/x > /dev/null 2>&1\n# SALT_CRON_IDENTIFIER:noid\n2 * * * * noid\n# at boot SALT_CRON_IDENTIFIER:/bin/boot a  b\n@daily /bin/boot a b\n",
                ),
            ),
            (
                "cron.absent",
                json!({"name": "whatever", "identifier": "BACKUP"}),
                Some(
                    "# mine\n5 4 * * * keep me\n# Lines below here are managed by Salt, do not edit\nPATH=/bin:/usr/bin\nMAILTO=z@b.c\n# SALT_CRON_IDENTIFIER:/bin/x > /dev/null 2>&1\n#DISABLED#* * * * mon /bin/x > /dev/null 2>&1\n# SALT_CRON_IDENTIFIER:noid\n2 * * * * noid\n# at boot SALT_CRON_IDENTIFIER:/bin/boot a  b\n@daily /bin/boot a b\n",
                ),
            ),
            ("cron.absent", json!({"name": "not there"}), None),
            (
                "cron.absent",
                json!({"name": "/bin/boot a b", "special": "@daily", "identifier": "/bin/boot a  b"}),
                Some(
                    "# mine\n5 4 * * * keep me\n# Lines below here are managed by Salt, do not edit\nPATH=/bin:/usr/bin\nMAILTO=z@b.c\n# SALT_CRON_IDENTIFIER:/bin/x > /dev/null 2>&1\n#DISABLED#* * * * mon /bin/x > /dev/null 2>&1\n# SALT_CRON_IDENTIFIER:noid\n2 * * * * noid\n",
                ),
            ),
            (
                "cron.env_absent",
                json!({"name": "PATH"}),
                Some(
                    "# mine\n5 4 * * * keep me\n# Lines below here are managed by Salt, do not edit\nMAILTO=z@b.c\n# SALT_CRON_IDENTIFIER:/bin/x > /dev/null 2>&1\n#DISABLED#* * * * mon /bin/x > /dev/null 2>&1\n# SALT_CRON_IDENTIFIER:noid\n2 * * * * noid\n",
                ),
            ),
            (
                "cron.present",
                json!({"name": "/bin/boot", "special": "@hourly", "identifier": "noid"}),
                Some(
                    "# mine\n5 4 * * * keep me\n# Lines below here are managed by Salt, do not edit\nMAILTO=z@b.c\n# SALT_CRON_IDENTIFIER:/bin/x > /dev/null 2>&1\n#DISABLED#* * * * mon /bin/x > /dev/null 2>&1\n# SALT_CRON_IDENTIFIER:noid\n@hourly /bin/boot\n",
                ),
            ),
        ];
        let mut text = "# mine\n5 4 * * * keep me\n".to_owned();
        for (function, args, want) in cases {
            let got = after(&text, function, args.clone());
            assert_eq!(got.as_deref(), want, "{function} {args}");
            text = got.unwrap_or(text);
        }
    }

    #[test]
    fn random_times_stay_once_picked_and_differ_between_jobs() {
        let args = |name: &str| json!({"name": name, "minute": "random", "hour": "2:4"});
        let first = after("", "cron.present", args("/bin/a")).unwrap();
        assert_eq!(after(&first, "cron.present", args("/bin/a")), None);
        let minute = |name| after("", "cron.present", args(name)).unwrap().lines().last().unwrap().split(' ').next().unwrap().to_owned();
        let all: std::collections::BTreeSet<String> = ["/bin/a", "/bin/b", "/bin/c", "/bin/d"].map(minute).into_iter().collect();
        assert!(all.len() > 1, "{all:?}");
    }

    #[test]
    fn a_job_for_nobody_fails() {
        let error = answer(&Host::default(), "cron.present", json!({"name": "x", "user": "who"})).unwrap_err();
        assert_eq!(error, "user who is not available");
    }
}
