//! timezone.system: the zone of the host's clock, which is the link `/etc/localtime` and, where the platform has them, files that name it.

use super::args::Args;
use super::edit::{self, TextFile};
use super::file::place::{self, attrs, failed, key, kind, text};
use super::{Arg, ArgKind, Entry, Function, There, Want};
use crate::diagnostic::Result;
use crate::plan::{Key, Low};

const LOCALTIME: &str = "/etc/localtime";
const ZONES: &str = "/usr/share/zoneinfo/";
/// The zone by name, on Debian and its like.
const NAMED: &str = "/etc/timezone";
const DEBIAN: &str = "/etc/debian_version";
/// How older Red Hat and SUSE name it.
const CLOCK: &str = "/etc/sysconfig/clock";
/// Its third line says how the hardware clock runs.
const ADJTIME: &str = "/etc/adjtime";

pub const FUNCTIONS: &[Entry] = &[Entry {
    name: "timezone.system",
    doc: "The time zone of the host.",
    args: &[
        Arg::new("name", ArgKind::Str, "", "The zone. Example: Europe/Berlin"),
        Arg::new("utc", ArgKind::Bool, "True", "Whether the hardware clock is set to run in UTC."),
    ],
    watches: false,
    parse,
}];

struct Timezone {
    zone: String,
    utc: bool,
}

fn parse(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let zone = args.name();
    let good = |c: char| c.is_ascii_alphanumeric() || "/_+-".contains(c);
    if zone.is_empty() || zone.starts_with('/') || !zone.chars().all(good) {
        return Err(args.error(format!("{zone:?} cannot be the name of a time zone")));
    }
    Ok(Box::new(Timezone { zone, utc: args.bool("utc", true)? }))
}

/// A line of `/etc/sysconfig/clock` for each name that it has.
fn clock(text: &str, zone: &str) -> String {
    let line = |line: &str| match ["ZONE=", "TIMEZONE="].into_iter().find(|name| line.starts_with(name)) {
        Some(name) => format!("{name}\"{zone}\"\n"),
        None => line.to_owned(),
    };
    text.split_inclusive('\n').map(line).collect()
}

/// The third line names the clock's time; a file that lacks it means UTC.
fn in_utc(text: &str) -> String {
    let line =
        |(number, line): (usize, &str)| if number == 2 && line.trim() == "LOCAL" { line.replace("LOCAL", "UTC") } else { line.to_owned() };
    text.split_inclusive('\n').enumerate().map(line).collect()
}

impl Timezone {
    fn zone_path(&self) -> String {
        format!("{ZONES}{}", self.zone)
    }

    /// The files that may have to be edited.
    fn files() -> [TextFile; 3] {
        let there_only = |path| TextFile { made: None, ..TextFile::new(path) };
        [TextFile::new(NAMED), there_only(CLOCK), there_only(ADJTIME)]
    }

    /// Whether the link leads to the zone already, however it is written.
    fn linked(&self, there: &dyn There) -> bool {
        let now = there.get(&key(LOCALTIME));
        text(&now, "target").is_some_and(|target| place::target_path(LOCALTIME, target) == self.zone_path())
    }
}

impl Function for Timezone {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        let mut keys = vec![key(LOCALTIME), key(DEBIAN)];
        keys.extend(place::follow_keys(there, &self.zone_path()));
        for file in Timezone::files() {
            keys.extend(file.keys(there)?);
        }
        Ok(keys)
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        let mut wants = Vec::new();
        if !self.linked(there) {
            let zone = place::follow(there, &self.zone_path())?;
            if kind(&there.get(&key(&zone))) != Some("file") && !there.uncertain() {
                return Err(failed(format!("Zone does not exist: {}", self.zone_path()))
                    .hint("the package tzdata brings the zones")
                    .into());
            }
            wants.push(Want::Is(vec![(key(LOCALTIME), attrs([("kind", "symlink"), ("target", &self.zone_path())]))]));
        }
        let [named, in_clock, adjtime] = Timezone::files();
        let is = |path: &str| kind(&there.get(&key(path))).is_some();
        if is(DEBIAN) || is(NAMED) {
            wants.push(named.want(there, |text| Ok(if text.trim() == self.zone { text.to_owned() } else { format!("{}\n", self.zone) }))?);
        }
        if is(CLOCK) {
            wants.push(in_clock.want(there, |text| Ok(clock(text, &self.zone)))?);
        }
        if self.utc && is(ADJTIME) {
            wants.push(adjtime.want(there, |text| Ok(in_utc(text)))?);
        }
        Ok(edit::all(wants, format!("Timezone {} already set", self.zone)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::double::Double;

    #[test]
    fn the_link_and_the_files_that_name_the_zone_are_set() {
        let mut host = Double::new();
        host.file("/usr/share/zoneinfo/Europe/Berlin", "TZif").file("/etc/debian_version", "12\n");
        host.link("/etc/localtime", "/usr/share/zoneinfo/Etc/UTC").file("/etc/adjtime", "0.0 0 0\n0\nLOCAL\n");
        let berlin = r#"{"name": "Europe/Berlin"}"#;
        assert_eq!(host.apply("timezone.system", berlin).unwrap(), 3);
        assert_eq!(host.at("/etc/localtime"), "-> /usr/share/zoneinfo/Europe/Berlin");
        assert_eq!((host.at("/etc/timezone").as_str(), host.at("/etc/adjtime").as_str()), ("Europe/Berlin\n", "0.0 0 0\n0\nUTC\n"));
        // systemd writes the link from where it lies.
        host.link("/etc/localtime", "../usr/share/zoneinfo/Europe/Berlin");
        assert_eq!(host.apply("timezone.system", berlin).unwrap(), 0);
        let error = host.apply("timezone.system", r#"{"name": "Europe/Nowhere"}"#).unwrap_err();
        assert_eq!(error.summary, "Zone does not exist: /usr/share/zoneinfo/Europe/Nowhere");
    }

    #[test]
    fn other_platforms_have_their_own_file() {
        let mut host = Double::new();
        host.file("/usr/share/zoneinfo/Etc/UTC", "TZif").directory("/etc/sysconfig").file("/etc/sysconfig/clock", "ZONE=\"x\"\nUTC=true\n");
        host.apply("timezone.system", r#"{"name": "Etc/UTC", "utc": false}"#).unwrap();
        assert_eq!(
            (host.at("/etc/sysconfig/clock").as_str(), host.at("/etc/timezone").as_str()),
            ("ZONE=\"Etc/UTC\"\nUTC=true\n", "absent")
        );
    }
}
