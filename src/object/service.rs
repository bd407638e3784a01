//! A unit of systemd: whether it runs, starts with the host, may start at all.
//!
//! Read from files alone, without asking systemd: unit files and links say what is enabled, static or masked, and systemd keeps a link
//! in `/run/systemd/units` for every unit whose processes it has started and that is active. So a plan over a hundred services costs a few
//! milliseconds. Sockets, timers and what else has no processes has no such link: systemd is asked.
//!
//! Attributes, there only where true: `active enabled masked`, `hidden` (a mask hides that it is enabled), and `exists static` (it cannot be
//! enabled, something else wants it), which other objects decide. What is to be off is wanted as null; a state with `exists` in it is whole: what it does not name is off.
//! Only on the way: `no_block`, `init_delay`.

use std::time::Duration;

use super::{Object, Progress, Sign};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::plan::{Key, Kind};
use crate::system::{Command, FileKind, System};
use crate::value::{Attrs, Value};

/// Where unit files are looked for, in systemd's order.
const PLACES: [&str; 8] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/generator.late",
    "/run/systemd/transient",
];
/// Where links of somebody's making start a unit with the host.
const LINKS: [&str; 2] = ["/etc/systemd/system", "/run/systemd/system"];
/// The run levels whose scripts systemd starts with the host.
const LEVELS: [u8; 4] = [2, 3, 4, 5];
/// From the start of a service to the look whether it runs.
const SETTLE: Duration = Duration::from_millis(200);
const STATES: [&str; 3] = ["active", "enabled", "masked"];

pub struct Service {
    unit: String,
}

/// What the unit's files say.
struct File {
    /// The unit's own name, where the one asked for is another name of it.
    id: String,
    path: String,
    masked: bool,
}

impl Service {
    pub fn new(unit: &str) -> Service {
        Service { unit: unit.to_owned() }
    }

    fn file(&self, sys: &System) -> Result<Option<File>> {
        let mut name = self.unit.clone();
        // A link to another unit's file is another name of that unit.
        for _ in 0..8 {
            let Some((path, kind)) = find(sys, &name)? else { return Ok(None) };
            if kind != FileKind::Symlink {
                let masked = sys.stat(&path)?.is_some_and(|s| s.size == 0);
                return Ok(Some(File { id: name, path, masked }));
            }
            let target = sys.readlink(&path)?.unwrap_or_default();
            if target == "/dev/null" {
                return Ok(Some(File { id: name, path, masked: true }));
            }
            let last = target.rsplit('/').next().unwrap_or_default().to_owned();
            if last == name || last == template(&name) {
                let path = sys.resolve(&path);
                return Ok(Some(File { id: name, path, masked: false }));
            }
            name = match (instance(&name), last.strip_suffix(suffix(&last))) {
                (Some(instance), Some(stem)) if stem.ends_with('@') => format!("{stem}{instance}{}", suffix(&last)),
                _ => last,
            };
        }
        Ok(None)
    }

    fn systemctl(&self, sys: &System, progress: &mut Progress, argv: &[&str]) -> Result<()> {
        let words = [&["systemctl"], argv, &[self.unit.as_str()]].concat();
        let shown = words.join(" ");
        sys.mutating(&shown)?;
        progress.say(&shown);
        let output = sys.run(&Command::new(words))?;
        if output.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let status = sys.run(&Command::new(["systemctl", "status", "--no-pager", "-l", "-n", "15", self.unit.as_str()])).map(|o| o.text());
        let first = said.lines().next().unwrap_or("no reason given").to_owned();
        Err(Diagnostic::new(Code::Failed, format!("{shown} failed: {first}"))
            .detail(format!("{said}\n{}", status.unwrap_or_default()).trim().to_owned())
            .into())
    }

    /// systemd reads unit files again where they have changed since.
    fn reload_daemon(&self, sys: &System, progress: &mut Progress) -> Result<()> {
        let show = sys.run(&Command::new(["systemctl", "show", "-p", "NeedDaemonReload,LoadState", "--", self.unit.as_str()]))?.text();
        if show.lines().any(|l| l == "NeedDaemonReload=yes" || l == "LoadState=not-found") {
            sys.mutating("systemctl daemon-reload")?;
            progress.say("systemctl daemon-reload");
            sys.run(&Command::new(["systemctl", "daemon-reload"]))?;
        }
        Ok(())
    }

    fn start(&self, sys: &System, to: &Attrs, progress: &mut Progress) -> Result<()> {
        self.reload_daemon(sys, progress)?;
        let no_block = to.get("no_block").is_some_and(Value::truthy);
        let argv: &[&str] = if no_block { &["start", "--no-block"] } else { &["start"] };
        self.systemctl(sys, progress, argv)?;
        if let Some(seconds) = to.get("init_delay").and_then(Value::as_int).and_then(|s| u64::try_from(s).ok()) {
            std::thread::sleep(Duration::from_secs(seconds.min(3600)));
        }
        if no_block {
            return Ok(());
        }
        // One that only forks counts as started at once; what dies right then did not start.
        std::thread::sleep(SETTLE);
        if !self.read(sys)?.contains_key("active") {
            let status = sys.run(&Command::new(["systemctl", "status", "--no-pager", "-l", "-n", "15", self.unit.as_str()]))?;
            return Err(Diagnostic::new(Code::Failed, format!("{} was started and does not run", self.unit)).detail(status.text()).into());
        }
        Ok(())
    }
}

fn suffix(unit: &str) -> &str {
    unit.rfind('.').and_then(|at| unit.get(at..)).unwrap_or_default()
}

/// `getty@tty1.service` → `getty@.service`.
fn template(unit: &str) -> String {
    match unit.split_once('@') {
        Some((stem, _)) => format!("{stem}@{}", suffix(unit)),
        None => unit.to_owned(),
    }
}

fn instance(unit: &str) -> Option<&str> {
    unit.split_once('@')?.1.strip_suffix(suffix(unit)).filter(|i| !i.is_empty())
}

/// The first file of this unit, or of the template it is made of.
fn find(sys: &System, unit: &str) -> Result<Option<(String, FileKind)>> {
    let names = [unit.to_owned(), template(unit)];
    for name in names.iter().take(if names[0] == names[1] { 1 } else { 2 }) {
        for place in PLACES {
            let path = format!("{place}/{name}");
            if let Some(stat) = sys.stat(&path)? {
                return Ok(Some((path, stat.kind)));
            }
        }
    }
    Ok(None)
}

/// The link that systemd keeps while a unit with processes is active.
fn running_link(id: &str) -> String {
    format!("/run/systemd/units/invocation:{id}")
}

fn active(sys: &System, id: &str) -> Result<bool> {
    if sys.readlink(&running_link(id))?.is_some() {
        return Ok(true);
    }
    if id.ends_with(".service") || sys.stat("/run/systemd/system")?.is_none() {
        return Ok(false);
    }
    let state = sys.run(&Command::new(["systemctl", "show", "-p", "ActiveState", "--value", "--", id]))?.text();
    Ok(["active", "activating", "reloading"].contains(&state.as_str()))
}

/// Whether a link of somebody's making starts the unit with the host.
fn linked(sys: &System, id: &str) -> Result<bool> {
    for place in LINKS {
        for name in sys.list(place)? {
            let path = format!("{place}/{name}");
            if name.ends_with(".wants") || name.ends_with(".requires") {
                if sys.stat(&format!("{path}/{id}"))?.is_some() {
                    return Ok(true);
                }
            } else if name != id && sys.readlink(&path)?.is_some_and(|target| target.rsplit('/').next() == Some(id)) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Whether a unit's file says how it can be enabled.
fn installable(text: &str) -> bool {
    let lines = text.lines().map(str::trim).skip_while(|l| *l != "[Install]").skip(1);
    let names = ["WantedBy", "RequiredBy", "UpheldBy", "Alias"];
    let mut install = lines.take_while(|l| !l.starts_with('['));
    install.any(|l| l.split_once('=').is_some_and(|(name, value)| names.contains(&name.trim()) && !value.trim().is_empty()))
}

impl Object for Service {
    fn key(&self) -> Key {
        Key::new(Kind::Service, &self.unit)
    }

    fn read(&self, sys: &System) -> Result<Attrs> {
        if self.unit.contains('/') || self.unit.starts_with('-') || self.unit.is_empty() {
            return Err(Diagnostic::new(Code::Failed, format!("{:?} cannot be the name of a unit", self.unit)).into());
        }
        let mut attrs = Attrs::new();
        let mut put = |name: &str, is: bool| {
            if is {
                attrs.insert(name.to_owned(), Value::Bool(true));
            }
        };
        let Some(file) = self.file(sys)? else { return Ok(attrs) };
        put("exists", true);
        put("active", active(sys, &file.id)?);
        put("masked", file.masked);
        if file.masked {
            put("hidden", linked(sys, &file.id)?);
        } else {
            let init_script = file.path.starts_with("/run/systemd/generator.late/").then(|| file.id.trim_end_matches(".service"));
            if let Some(script) = init_script {
                put("enabled", starts_by_script(sys, script)?);
            } else if linked(sys, &file.id)? {
                put("enabled", true);
            } else {
                put("static", !installable(&String::from_utf8_lossy(&sys.read(&file.path)?.unwrap_or_default())));
            }
        }
        Ok(attrs)
    }

    fn signs(&self, sys: &System) -> Result<Vec<Sign>> {
        let names = [self.unit.clone(), template(&self.unit)];
        let mut signs = Sign::paths(PLACES.iter().flat_map(|place| names.iter().map(move |name| format!("{place}/{name}"))));
        signs.extend(LINKS.map(|place| Sign::Tree(place.to_owned())));
        let file = self.file(sys)?;
        if file.as_ref().is_some_and(|file| file.path.starts_with("/run/systemd/generator.late/")) {
            signs.extend(LEVELS.map(|level| Sign::Tree(format!("/etc/rc{level}.d"))));
        }
        let id = file.map_or_else(|| self.unit.clone(), |file| file.id);
        signs.push(match id.ends_with(".service") {
            true => Sign::Path(running_link(&id)),
            false => Sign::Unit(id),
        });
        Ok(signs)
    }

    fn resolve(&self, sys: &System, _from: &Attrs, to: &Attrs, _touched: &dyn Fn(&str) -> bool) -> Result<Attrs> {
        running(sys)?;
        Ok(to.clone())
    }

    fn set(&self, sys: &System, from: &Attrs, to: &Attrs, progress: &mut Progress) -> Result<Attrs> {
        let whole = to.is_empty() || to.contains_key("exists");
        let wanted = |name: &str| match to.get(name) {
            Some(value) => Some(value.truthy()),
            None => whole.then_some(false),
        };
        let is = |name: &str| from.get(name).is_some_and(Value::truthy);
        let changes = |name: &str, value: bool| wanted(name) == Some(value) && is(name) != value;
        if STATES.iter().any(|name| changes(name, true) || changes(name, false)) {
            running(sys)?;
        }
        if changes("active", false) {
            self.systemctl(sys, progress, &["stop"])?;
        }
        // What a mask hides cannot be enabled or disabled behind it.
        let enabled = is("enabled") || is("hidden");
        let enable = match to.get("enabled").or(to.get("hidden")) {
            Some(value) => Some(value.truthy()),
            None => whole.then_some(false),
        };
        let toggle = enable.is_some_and(|enable| enable != enabled);
        if changes("masked", false) || (toggle && is("masked")) {
            self.systemctl(sys, progress, &["unmask"])?;
        }
        if toggle {
            self.reload_daemon(sys, progress)?;
            self.systemctl(sys, progress, &[if enabled { "disable" } else { "enable" }])?;
        }
        if changes("active", true) {
            self.start(sys, to, progress)?;
        }
        if changes("masked", true) || (toggle && is("masked") && wanted("masked") != Some(false)) {
            self.systemctl(sys, progress, &["mask"])?;
        }
        self.read(sys)
    }

    /// A start that failed leaves a mark that outlives the unit's file.
    fn sweep(&self, sys: &System) -> Result<()> {
        if sys.stat("/run/systemd/system")?.is_some()
            && sys.run(&Command::new(["systemctl", "is-failed", "-q", "--", &self.unit]))?.success()
        {
            sys.run(&Command::new(["systemctl", "reset-failed", "--", &self.unit]))?;
        }
        Ok(())
    }

    fn describe(&self, _sys: &System, from: &Attrs, to: &Attrs) -> String {
        let whole = to.is_empty() || to.contains_key("exists");
        let mut out = String::new();
        for (name, [on, off]) in STATES.iter().zip([["started", "stopped"], ["enabled", "disabled"], ["masked", "unmasked"]]) {
            let now = from.get(*name).is_some_and(Value::truthy);
            let wanted = to.get(*name).map(Value::truthy).or(whole.then_some(false));
            if let Some(wanted) = wanted.filter(|w| *w != now) {
                out.push_str(if wanted { on } else { off });
                out.push('\n');
            }
        }
        out
    }
}

/// Whether a script of `/etc/init.d` is linked into a run level.
fn starts_by_script(sys: &System, script: &str) -> Result<bool> {
    for level in LEVELS {
        let names = sys.list(&format!("/etc/rc{level}.d"))?;
        if names.iter().any(|n| n.strip_prefix('S').and_then(|n| n.get(2..)) == Some(script)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Fails with words where no systemd is there to be told.
fn running(sys: &System) -> Result<()> {
    if sys.stat("/run/systemd/system")?.is_some() {
        return Ok(());
    }
    Err(Diagnostic::new(Code::Failed, "systemd does not run on this host")
        .detail("services are managed through systemd; this is a container, a chroot, or a host with another init")
        .into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::{Exec, Output};
    use std::os::unix::fs::symlink;
    use std::path::Path;

    struct Nothing;
    impl Exec for Nothing {
        fn run(&self, command: &Command, _: &mut dyn FnMut(&[u8])) -> Result<Output> {
            panic!("what a unit is stands in files: {:?}", command.argv)
        }
    }

    fn root() -> (tempfile::TempDir, System) {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for directory in ["run/systemd/system", "run/systemd/units", "lib/systemd/system", "etc/systemd/system/multi-user.target.wants"] {
            std::fs::create_dir_all(at(directory)).unwrap();
        }
        let install = "[Service]\nExecStart=/x\n[Install]\nWantedBy=multi-user.target\n";
        for (unit, text) in [("ssh.service", install), ("static.service", "[Service]\nExecStart=/x\n"), ("get@.service", install)] {
            std::fs::write(at(&format!("lib/systemd/system/{unit}")), text).unwrap();
        }
        symlink("/lib/systemd/system/ssh.service", at("etc/systemd/system/sshd.service")).unwrap();
        symlink("/lib/systemd/system/get@.service", at("etc/systemd/system/multi-user.target.wants/get@one.service")).unwrap();
        symlink("0123", at("run/systemd/units/invocation:ssh.service")).unwrap();
        let sys = System::at(dir.path(), Box::new(Nothing));
        (dir, sys)
    }

    fn names(sys: &System, unit: &str) -> String {
        Service::new(unit).read(sys).unwrap().into_keys().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn files_tell_what_a_unit_is() {
        let (_dir, sys) = root();
        for (unit, state) in [
            ("ssh.service", "active enabled exists"),
            ("sshd.service", "active enabled exists"),
            ("static.service", "exists static"),
            ("get@one.service", "enabled exists"),
            ("get@two.service", "exists"),
            ("nope.service", ""),
        ] {
            assert_eq!(names(&sys, unit), state, "{unit}");
        }
        assert!(Service::new("../x").read(&sys).is_err());
    }

    #[test]
    fn without_systemd_there_are_clear_words() {
        let (dir, sys) = root();
        std::fs::remove_dir(Path::new(dir.path()).join("run/systemd/system")).unwrap();
        let to = Attrs::from([("active".to_owned(), Value::Bool(true))]);
        let error = Service::new("static.service").resolve(&sys, &Attrs::new(), &to, &|_| false).unwrap_err();
        assert_eq!(error.summary, "systemd does not run on this host");
    }
}
