//! One pass over the filesystems of a host: look, decide, act, look again, tell, remember.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::act::{self, Report};
use super::config::Config;
use super::decide::{self, Deed, Tier, Usage, is_log, is_old_log, older};
use super::record::{self, Record, Shown};
use super::{ERROR, Events, INFO, NOTICE, WARNING};
use crate::diagnostic::{Diagnostic, Result};
use crate::object::mount::unescape;
use crate::system::{Command, Exec};

/// What is not asked how full it is: memory, other machines (a server that is gone would hold the pass up), and what shows another filesystem.
const PASSED_OVER: [&str; 12] =
    ["tmpfs", "devtmpfs", "ramfs", "squashfs", "iso9660", "nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "autofs"];
const OUTSIDE: [&str; 4] = ["/dev", "/sys", "/proc", "/run"];
/// Where Docker keeps what it writes.
const DOCKER: &str = "/var/lib/docker";
const PATIENCE: Duration = Duration::from_secs(300);

pub struct Pass<'a> {
    pub config: &'a Config,
    pub exec: &'a dyn Exec,
    pub dry_run: bool,
    pub now: u64,
}

/// A filesystem, at one of the places where it is mounted.
#[derive(Debug, PartialEq)]
struct Filesystem {
    mount: String,
    /// The number that the kernel knows it by.
    device: String,
}

/// What an action is: from which tier on, its name, and where it must lie to be of use (nowhere: it always is).
struct Action {
    tier: Tier,
    name: &'static str,
    place: Option<String>,
    what: What,
}

enum What {
    Compress,
    Packages(&'static [&'static str]),
    OldLogs(Duration),
    Temporary,
    Prune,
    ContainerLogs,
    Cache(u64),
    Stop(String),
    Vacuum,
}

/// The lines of mountinfo that count, each filesystem once; and all others with their device, for what lies where.
fn filesystems(mountinfo: &str) -> (Vec<Filesystem>, Vec<Filesystem>) {
    let (mut all, mut counted): (Vec<Filesystem>, Vec<Filesystem>) = (Vec::new(), Vec::new());
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let words: Vec<&str> = left.split(' ').collect();
        let (Some(device), Some(mount), Some(kind)) = (words.get(2), words.get(4), right.split(' ').next()) else { continue };
        let one = || Filesystem { mount: unescape(mount), device: (*device).to_owned() };
        let inside = |top: &&str| *mount == *top || mount.strip_prefix(*top).is_some_and(|rest| rest.starts_with('/'));
        let writable = right.rsplit(' ').next().is_some_and(|options| options.split(',').any(|option| option == "rw"));
        let skipped = PASSED_OVER.contains(&kind) || kind.starts_with("fuse") || (kind == "overlay" && *mount != "/");
        if !skipped && writable && !OUTSIDE.iter().any(inside) && !counted.iter().any(|known| known.device == *device) {
            counted.push(one());
        }
        all.push(one());
    }
    (counted, all)
}

/// How full the filesystem at a path is; nothing of one without a size.
fn usage(path: &str) -> Option<Usage> {
    let stat = rustix::fs::statvfs(path).ok().filter(|stat| stat.f_blocks > 0)?;
    Some(Usage { used: stat.f_blocks.saturating_sub(stat.f_bfree) * stat.f_frsize, free: stat.f_bavail * stat.f_frsize })
}

/// The device that a path is on: that of the mount nearest above it.
fn device_of<'a>(all: &'a [Filesystem], path: &str) -> Option<&'a str> {
    let above = |top: &str| top == "/" || path == top || path.strip_prefix(top).is_some_and(|rest| rest.starts_with('/'));
    let nearest = all.iter().enumerate().filter(|(_, one)| above(&one.mount)).max_by_key(|(index, one)| (one.mount.len(), *index));
    nearest.map(|(_, one)| one.device.as_str())
}

impl Pass<'_> {
    /// Gives the worst tier of all filesystems.
    pub fn run(&self, events: &mut Events) -> Result<Option<Tier>> {
        let text = std::fs::read_to_string("/proc/self/mountinfo").map_err(|e| Diagnostic::io("read what is mounted", &e))?;
        let (counted, all) = filesystems(&text);
        let mut record = Record::read(&self.config.state);
        let mut shown = Vec::new();
        self.containers(events)?;
        for one in &counted {
            let Some(before) = usage(&one.mount) else { continue };
            let was = record.tiers.get(&one.mount).copied();
            let tier = self.tier(before, was);
            let priority = match tier {
                Some(Tier::Critical | Tier::Emergency) => ERROR,
                Some(_) => WARNING,
                None => INFO,
            };
            if tier != was || self.dry_run {
                let event = json!({"event": "tier", "tier": tier.map(Tier::name), "was": was.map(Tier::name)});
                self.tell(events, priority, &one.mount, before, event)?;
            }
            if tier.is_some_and(|tier| tier > Tier::Warning) {
                self.act(events, one, &all)?;
            }
            let after = usage(&one.mount).unwrap_or(before);
            let reached = self.tier(after, tier);
            if reached != tier && !self.dry_run {
                let event = json!({"event": "tier", "tier": reached.map(Tier::name), "was": tier.map(Tier::name)});
                self.tell(events, NOTICE, &one.mount, after, event)?;
            }
            self.marker(events, &one.mount, after, reached)?;
            record.add(&one.mount, (self.now, after.used), self.config.retention.as_secs());
            let samples = record.history.get(&one.mount).map(Vec::as_slice).unwrap_or_default();
            let full_in = decide::full_in(samples, after.free);
            if let Some((days, alarm)) = full_in.and_then(|days| Some((days, decide::alarm(days)?))) {
                let priority = if alarm == "notice" { NOTICE } else { WARNING };
                let event = json!({"event": "forecast", "alarm": alarm, "full_in_days": (days * 10.0).round() / 10.0});
                self.tell(events, priority, &one.mount, after, event)?;
            }
            match reached {
                Some(tier) => record.tiers.insert(one.mount.clone(), tier),
                None => record.tiers.remove(&one.mount),
            };
            shown.push(Shown { mount: one.mount.clone(), usage: after, tier: reached, full_in });
        }
        if !self.dry_run {
            // A full disk takes no notes; that is no reason not to go on.
            let metrics = self.config.metrics.as_ref().map(|path| record::write(Path::new(path), &record::metrics(&shown, self.now)));
            for failed in [record.write(&self.config.state)].into_iter().chain(metrics).filter_map(std::result::Result::err) {
                events.tell(WARNING, &json!({"ts": self.now, "event": "error", "error": failed.summary}))?;
            }
        }
        Ok(shown.iter().filter_map(|one| one.tier).max())
    }

    fn tier(&self, usage: Usage, before: Option<Tier>) -> Option<Tier> {
        decide::tier(usage, before, &self.config.thresholds, self.config.hysteresis, self.config.min_free)
    }

    fn tell(&self, events: &mut Events, priority: u8, mount: &str, usage: Usage, event: Value) -> Result<()> {
        let mut whole =
            json!({"ts": self.now, "mount": mount, "used_percent": (usage.percent() * 10.0).round() / 10.0, "free_bytes": usage.free});
        if let (Some(whole), Value::Object(event)) = (whole.as_object_mut(), event) {
            whole.extend(event);
        }
        events.tell(priority, &whole)
    }

    /// The actions of the tiers, one after the other, as long as the threshold of the tier that the next belongs to is reached (the hysteresis keeps
    /// a tier, and deletes nothing).
    fn act(&self, events: &mut Events, one: &Filesystem, all: &[Filesystem]) -> Result<()> {
        let open = act::open_files();
        for action in self.actions() {
            let Some(now) = usage(&one.mount) else { return Ok(()) };
            if self.tier(now, None).is_none_or(|tier| tier < action.tier) {
                break;
            }
            let place = action.place.as_deref().map(|place| act::real(place).unwrap_or_default());
            if place.as_deref().is_some_and(|place| place.is_empty() || device_of(all, place) != Some(&one.device)) {
                continue;
            }
            let mut report = Report::default();
            let place = place.unwrap_or_default();
            match self.unsaved() {
                Some(why) if matches!(action.what, What::OldLogs(_) | What::Temporary | What::Cache(_)) => report.error(why),
                _ => self.perform(&action, &place, &open, &mut report),
            }
            if report.files == 0 && report.errors.is_empty() {
                continue;
            }
            let mut event =
                json!({"event": "action", "tier": action.tier.name(), "action": action.name, "done": report.files, "bytes": report.bytes});
            if let Some(event) = event.as_object_mut() {
                if !place.is_empty() {
                    event.insert("place".into(), place.into());
                }
                if self.dry_run {
                    event.insert("dry_run".into(), true.into());
                    event.insert("what".into(), report.paths.into());
                }
                if !report.errors.is_empty() {
                    event.insert("errors".into(), report.errors.clone().into());
                }
            }
            let priority = if report.errors.is_empty() { NOTICE } else { WARNING };
            self.tell(events, priority, &one.mount, usage(&one.mount).unwrap_or(now), event)?;
        }
        Ok(())
    }

    /// All actions, from the mildest to the hardest.
    fn actions(&self) -> Vec<Action> {
        let config = self.config;
        let at = |tier, name, place: &str, what| Action { tier, name, place: Some(place.to_owned()), what };
        let logs = |tier, name, what: fn(&Config) -> What| config.log_paths.iter().map(move |path| at(tier, name, path, what(config)));
        let mut actions: Vec<Action> = logs(Tier::Compress, "compress", |_| What::Compress).collect();
        actions.push(at(Tier::Cleanup, "packages", "/var/cache/apt", What::Packages(&["apt-get", "clean"])));
        actions.push(at(Tier::Cleanup, "packages", "/var/cache/dnf", What::Packages(&["dnf", "clean", "packages"])));
        actions.extend(config.temporary_paths.iter().map(|path| at(Tier::Cleanup, "temporary", path, What::Temporary)));
        actions.extend(config.cache.iter().map(|(path, size)| at(Tier::Cleanup, "cache", path, What::Cache(*size))));
        actions.extend(logs(Tier::Cleanup, "old_logs", |config| What::OldLogs(config.delete_after)));
        actions.push(at(Tier::Cleanup, "container_logs", DOCKER, What::ContainerLogs));
        actions.push(at(Tier::Cleanup, "containers", DOCKER, What::Prune));
        let stop = |unit: &String| Action { tier: Tier::Degraded, name: "stop", place: None, what: What::Stop(unit.clone()) };
        actions.extend(config.stop_services.iter().map(stop));
        actions.extend(logs(Tier::Emergency, "logs", |_| What::OldLogs(Duration::from_secs(86_400))));
        actions.push(at(Tier::Emergency, "journal", "/var/log/journal", What::Vacuum));
        actions
    }

    fn perform(&self, action: &Action, place: &str, open: &HashSet<(u64, u64)>, report: &mut Report) {
        let (classes, dry, now) = (&self.config.classes, self.dry_run, self.now);
        let enter = |path: &str| !classes.is_preserved(path);
        let closed = |found: &act::Found| !open.contains(&(found.stat.st_dev, found.stat.st_ino));
        match &action.what {
            What::Compress => act::walk(place, &enter, report, &mut |found, report| {
                let due = is_log(found.name()) && older(now, act::written_at(&found.stat), self.config.compress_after);
                if due && classes.allow(Deed::Compress, &found.path) && closed(found) {
                    act::compress(found, dry, report);
                }
            }),
            What::OldLogs(age) => {
                let emergency = action.tier == Tier::Emergency;
                act::walk(place, &enter, report, &mut |found, report| {
                    let log = is_old_log(found.name()) || (emergency && is_log(found.name()));
                    let due = log && older(now, act::written_at(&found.stat), *age);
                    if due && classes.allow(Deed::RemoveLog, &found.path) && closed(found) {
                        act::remove(found, dry, report);
                    }
                });
            }
            What::Temporary => act::walk(place, &enter, report, &mut |found, report| {
                let due = older(now, act::used_at(&found.stat), self.config.temporary_after);
                if due && classes.allow(Deed::RemoveTemporary, &found.path) && closed(found) {
                    act::remove(found, dry, report);
                }
            }),
            What::Cache(size) => self.shrink(place, *size, &enter, report),
            What::ContainerLogs => act::walk(&format!("{place}/containers"), &enter, report, &mut |found, report| {
                let large = found.name().ends_with("-json.log") && found.stat.st_size.max(0) as u64 > self.config.container_log_size;
                if large && classes.allow(Deed::RemoveLog, &found.path) {
                    act::cut(found, dry, report);
                }
            }),
            What::Packages(argv) => self.command(argv, report),
            What::Prune => {
                self.command(&["docker", "system", "prune", "--force", "--filter", &format!("until={}", self.config.prune_until)], report)
            }
            What::Vacuum => self.command(&["journalctl", "--vacuum-time=1d", "--quiet"], report),
            What::Stop(unit) => {
                if self.ask(&["systemctl", "is-active", "--quiet", "--", unit]).is_some() {
                    self.command(&["systemctl", "stop", "--", unit], report);
                }
            }
        }
    }

    /// Removes the files of a cache that were used longest ago, until it has its size.
    fn shrink(&self, place: &str, size: u64, enter: &dyn Fn(&str) -> bool, report: &mut Report) {
        let classes = &self.config.classes;
        let (mut files, mut whole) = (Vec::new(), 0);
        act::walk(place, enter, report, &mut |found, _| {
            let bytes = found.stat.st_blocks.max(0) as u64 * 512;
            whole += bytes;
            files.push((act::used_at(&found.stat), bytes));
        });
        files.sort_unstable();
        let mut limit = None;
        for (at, bytes) in files {
            if whole <= size {
                break;
            }
            whole = whole.saturating_sub(bytes);
            limit = Some(at);
        }
        let Some(limit) = limit else { return };
        act::walk(place, enter, report, &mut |found, report| {
            if act::used_at(&found.stat) <= limit && classes.allow(Deed::RemoveLog, &found.path) {
                act::remove(found, self.dry_run, report);
            }
        });
    }

    /// Why nothing may be deleted yet: a backup is to be there first.
    fn unsaved(&self) -> Option<String> {
        let folder = self.config.backup.as_ref()?;
        let written = |entry: std::fs::DirEntry| entry.metadata().ok()?.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok();
        let newest = std::fs::read_dir(folder).into_iter().flatten().flatten().filter_map(written).max();
        let fresh = newest.is_some_and(|at| self.now.saturating_sub(at.as_secs()) < 86_400);
        (!fresh).then(|| format!("nothing is deleted: {folder} holds no backup of the last day"))
    }

    /// A command whose output is wanted; `None` where it fails or is not there.
    fn ask(&self, argv: &[&str]) -> Option<String> {
        let command = Command { timeout: Some(PATIENCE), ..Command::new(argv.iter().copied()) };
        self.exec.run(&command, &mut |_| ()).ok().filter(|output| output.success()).map(|output| output.text())
    }

    /// A command that does something; one that is not installed has nothing to do.
    fn command(&self, argv: &[&str], report: &mut Report) {
        let installed = |program: &str| {
            ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"].iter().any(|folder| Path::new(folder).join(program).exists())
        };
        if !argv.first().is_some_and(|program| installed(program)) {
            return;
        }
        if self.dry_run {
            report.files += 1;
            report.paths.push(argv.join(" "));
            return;
        }
        let command = Command { timeout: Some(PATIENCE), ..Command::new(argv.iter().copied()) };
        match self.exec.run(&command, &mut |_| ()) {
            Ok(output) if output.success() => report.files += 1,
            Ok(output) => report.error(format!("`{}` failed: {}", argv.join(" "), String::from_utf8_lossy(&output.stderr).trim())),
            Err(e) => report.error(e.summary.clone()),
        }
    }

    /// More containers than there are to be is worth a word.
    fn containers(&self, events: &mut Events) -> Result<()> {
        let Some(limit) = self.config.container_limit else { return Ok(()) };
        let count = self.ask(&["docker", "ps", "--quiet"]).map_or(0, |text| text.lines().count());
        if count > limit {
            events.tell(WARNING, &json!({"ts": self.now, "event": "containers", "running": count, "limit": limit}))?;
        }
        Ok(())
    }

    /// A marker for each filesystem that a person has to look after, as long as that is so.
    fn marker(&self, events: &mut Events, mount: &str, usage: Usage, tier: Option<Tier>) -> Result<()> {
        let name = if mount == "/" { "root".to_owned() } else { mount.trim_matches('/').replace('/', "-") };
        let path = format!("{}/critical-{name}", self.config.state);
        let there = Path::new(&path).exists();
        if tier == Some(Tier::Critical) {
            let text = format!("{mount} is {:.1} % full and nothing that may be deleted is left. A person is needed.\n", usage.percent());
            let event = json!({"event": "critical", "marker": path, "error": text.trim()});
            self.tell(events, ERROR, mount, usage, event)?;
            if !self.dry_run
                && let Err(failed) = record::write(Path::new(&path), &text)
            {
                events.tell(ERROR, &json!({"ts": self.now, "event": "error", "error": failed.summary}))?;
            }
        } else if there && !self.dry_run {
            let _ = std::fs::remove_file(&path);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filesystems_are_counted_once_and_only_what_can_fill_up() {
        let text = "1 0 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
2 1 0:5 / /dev rw - devtmpfs udev rw
3 1 0:6 / /run rw - tmpfs tmpfs rw
4 1 8:2 / /srv/a\\040b rw - xfs /dev/sdb rw,attr2
5 1 8:1 /srv /mnt/bind rw - ext4 /dev/sda1 rw
6 1 0:40 / /home rw - nfs4 host:/home rw
7 1 0:41 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw
8 1 0:42 /a /pool rw - btrfs /dev/sdc rw,subvol=/a
9 1 0:42 /b /other rw - btrfs /dev/sdc rw,subvol=/b
10 1 8:3 / /cd ro - iso9660 /dev/sr0 ro
11 1 8:4 / /boot ro - ext4 /dev/sda4 ro
12 1 8:5 / /run/media rw - ext4 /dev/sdd rw
nonsense";
        let (counted, all) = filesystems(text);
        assert_eq!(counted.iter().map(|one| one.mount.as_str()).collect::<Vec<_>>(), ["/", "/srv/a b", "/pool"]);
        for (path, device) in
            [("/etc", "8:1"), ("/srv/a b/x", "8:2"), ("/srv/a bc", "8:1"), ("/other/x", "0:42"), ("/home/ann", "0:40"), ("/pool", "0:42")]
        {
            assert_eq!(device_of(&all, path), Some(device), "{path}");
        }
    }
}
