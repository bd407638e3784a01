//! The Python packages that one pip manages: those of an environment (`pip:/srv/app/bin/pip`), or the system's.
//!
//! Attributes: one per package, its version, under its name as the index writes it; `@all` in what was read: what is not named goes. What is
//! wanted may also be a requirement (`django[argon2]>=4,<5`) or null for removed; `resolve` asks pip what that comes to.
//! Only on the way: `@options` (words for `pip install`), `@upgrade`, `@user`, `@cwd`, `@env`.

use super::{Object, Progress};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::plan::{Key, Kind};
use crate::system::{Command, System};
use crate::value::{Attrs, Value, attributes, those};

pub struct Pip {
    program: String,
}

/// A name as the index writes it: lower case, runs of `-`, `_` and `.` as one `-`.
pub fn plain(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '-' | '_' | '.' if out.ends_with('-') => {}
            '-' | '_' | '.' => out.push('-'),
            c => out.push(c.to_ascii_lowercase()),
        }
    }
    out
}

/// Whether a wanted value is a version, and not a requirement.
fn exact(value: &Value) -> bool {
    value.as_str().is_none_or(|text| text.starts_with(|c: char| c.is_ascii_digit()))
}

fn packages(attrs: &Attrs) -> impl Iterator<Item = (&String, &Value)> {
    attrs.iter().filter(|(name, _)| !name.starts_with('@'))
}

fn words(attrs: &Attrs, name: &str) -> Vec<String> {
    attrs.get(name).and_then(Value::as_list).unwrap_or_default().iter().map(Value::to_text).collect()
}

impl Pip {
    pub fn new(program: &str) -> Pip {
        Pip { program: program.to_owned() }
    }

    fn command(&self, how: &Attrs, argv: &[&str], rest: &[String]) -> Command {
        let text = |name: &str| how.get(name).and_then(Value::as_str).map(str::to_owned);
        let quiet = ["--disable-pip-version-check", "--no-input"].map(str::to_owned);
        let argv =
            std::iter::once(self.program.clone()).chain(quiet).chain(argv.iter().map(|w| (*w).to_owned())).chain(rest.iter().cloned());
        let env = how.get("@env").and_then(Value::as_map).into_iter().flat_map(|map| map.iter()).map(|(n, v)| (n.to_text(), v.to_text()));
        Command { env: env.collect(), user: text("@user"), cwd: text("@cwd"), ..Command::new(argv) }
    }

    fn run(&self, sys: &System, progress: &mut Progress, how: &Attrs, argv: &[&str], rest: &[String]) -> Result<()> {
        let shown = format!("pip {} {}", argv.join(" "), rest.join(" "));
        sys.mutating(&shown)?;
        progress.say(shown.trim_end());
        let output = sys.run(&self.command(how, argv, rest))?;
        if output.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&[output.stderr, output.stdout].concat()).trim().to_owned();
        let first = said.lines().find(|line| line.starts_with("ERROR")).or(said.lines().next()).unwrap_or("no reason given").to_owned();
        Err(Diagnostic::new(Code::Failed, format!("{} failed: {first}", shown.trim_end())).detail(said).into())
    }

    fn requirements(to: &Attrs, from: &Attrs) -> Vec<String> {
        let wanted = packages(to).filter(|(name, value)| !value.is_null() && from.get(*name) != Some(value));
        wanted.map(|(name, value)| if exact(value) { format!("{name}=={}", value.to_text()) } else { value.to_text() }).collect()
    }
}

impl Object for Pip {
    fn key(&self) -> Key {
        Key::new(Kind::Pip, &self.program)
    }

    fn read(&self, sys: &System) -> Result<Attrs> {
        if sys.stat(&sys.resolve(&self.program))?.is_none() {
            return Ok(Attrs::new());
        }
        let output = sys.run(&self.command(&Attrs::new(), &["list", "--format=freeze"], &[]))?;
        if !output.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Diagnostic::new(Code::Failed, format!("{} does not list its packages", self.program)).detail(said).into());
        }
        let text = output.text();
        let pairs = text.lines().filter_map(|line| line.split_once("=="));
        let mut attrs = attributes(pairs.map(|(name, version)| (plain(name.trim()), Value::str(version.trim()))));
        attrs.insert("@all".into(), Value::Bool(true));
        Ok(attrs)
    }

    /// Newer pips tell what an installation comes to; where one does not, that is known after apply.
    fn resolve(&self, sys: &System, from: &Attrs, to: &Attrs, _touched: &dyn Fn(&str) -> bool) -> Result<Attrs> {
        let loose = packages(to).any(|(_, value)| !exact(value));
        if !loose || from.is_empty() {
            return Ok(to.clone());
        }
        let mut argv = vec!["install", "--quiet", "--dry-run", "--report", "-"];
        argv.extend(to.contains_key("@upgrade").then_some("--upgrade"));
        let rest = [words(to, "@options"), Pip::requirements(to, from)].concat();
        let output = sys.run(&self.command(to, &argv, &rest))?;
        let report = output.success().then(|| serde_json::from_slice::<Value>(&output.stdout).ok()).flatten();
        let installs = report.as_ref().and_then(|report| report.traverse("install", ":")).and_then(Value::as_list);
        let Some(installs) = installs else { return Ok(to.clone()) };
        let mut out = those(to, |name, value| name.starts_with('@') || exact(value));
        for install in installs {
            let said = |path: &str| install.traverse(path, ":").and_then(Value::as_str);
            if let (Some(name), Some(version)) = (said("metadata:name"), said("metadata:version")) {
                out.insert(plain(name), Value::str(version));
            }
        }
        if packages(&out).all(|(name, value)| from.get(name).unwrap_or(&Value::Null) == value) {
            out.retain(|name, _| !name.starts_with('@'));
        }
        Ok(out)
    }

    fn set(&self, sys: &System, from: &Attrs, to: &Attrs, progress: &mut Progress) -> Result<Attrs> {
        // The environment it is in was not there: it goes with that.
        if to.is_empty() {
            return self.read(sys);
        }
        let whole = to.contains_key("@all");
        let goes = |name: &String| to.get(name).map_or(whole, Value::is_null);
        let gone: Vec<String> = packages(from).map(|(name, _)| name).filter(|name| goes(name)).cloned().collect();
        if !gone.is_empty() {
            self.run(sys, progress, to, &["uninstall", "--yes"], &gone)?;
        }
        let requirements = Pip::requirements(to, from);
        if !requirements.is_empty() {
            let mut argv = vec!["install"];
            argv.extend(to.contains_key("@upgrade").then_some("--upgrade"));
            // What they need stands in the list itself.
            argv.extend(whole.then_some("--no-deps"));
            self.run(sys, progress, to, &argv, &[words(to, "@options"), requirements].concat())?;
        }
        self.read(sys)
    }

    fn describe(&self, _sys: &System, from: &Attrs, to: &Attrs) -> String {
        let mut out = String::new();
        for (name, wanted) in packages(to).filter(|(name, wanted)| from.get(*name) != Some(wanted)) {
            out.push_str(&match (from.get(name), wanted) {
                (None, Value::Null) => continue,
                (Some(now), Value::Null) => format!("{name}: {now} removed\n"),
                (None, wanted) if exact(wanted) => format!("{name}: {wanted}\n"),
                (Some(now), wanted) if exact(wanted) => format!("{name}: {now} → {wanted}\n"),
                (_, wanted) => format!("{wanted}, and what it needs\n"),
            });
        }
        if to.contains_key("@all") {
            packages(from)
                .filter(|(name, _)| !to.contains_key(*name))
                .for_each(|(name, now)| out.push_str(&format!("{name}: {now} removed\n")));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::HostExec;

    /// A wheel that says its name and version and nothing more.
    fn wheel(folder: &std::path::Path, name: &str, version: &str, needs: &str) {
        let script = "import sys, zipfile
name, version, needs, folder = sys.argv[1:]
info = f'{name}-{version}.dist-info'
needs = f'Requires-Dist: {needs}\\n' if needs else ''
with zipfile.ZipFile(f'{folder}/{name}-{version}-py3-none-any.whl', 'w') as out:
    out.writestr(f'{name}.py', f'version = \"{version}\"\\n')
    out.writestr(f'{info}/METADATA', f'Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n{needs}')
    out.writestr(f'{info}/WHEEL', 'Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    out.writestr(f'{info}/RECORD', '')";
        let status = std::process::Command::new("python3").args(["-c", script, name, version, needs]).arg(folder).status().unwrap();
        assert!(status.success());
    }

    /// The law with a real pip, in an environment of its own and with an index that is a folder.
    #[test]
    fn packages_come_with_what_they_need_and_go_back() {
        let dir = tempfile::tempdir().unwrap();
        let env = dir.path().join("env");
        let made = std::process::Command::new("python3").args(["-m", "venv"]).arg(&env).output();
        if !made.is_ok_and(|out| out.status.success()) {
            eprintln!("skipped: needs python3 with venv");
            return;
        }
        let index = dir.path().join("index");
        std::fs::create_dir(&index).unwrap();
        for (name, version, needs) in [("lower", "1.0", ""), ("lower", "2.0", ""), ("upper", "1.5", "lower<2"), ("upper", "3.0", "lower")] {
            wheel(&index, name, version, needs);
        }
        let sys = System::at("/", Box::new(HostExec::new(std::path::Path::new("/"), Default::default())));
        let pip = Pip::new(env.join("bin/pip").to_str().unwrap());
        let options = serde_json::json!(["--no-index", "--find-links", index]);
        let wants = |text: serde_json::Value| -> Attrs {
            let mut attrs: Attrs = serde_json::from_value(text).unwrap();
            attrs.insert("@options".into(), serde_json::from_value(options.clone()).unwrap());
            attrs
        };
        let set = |from: &Attrs, to: &Attrs| pip.set(&sys, from, to, &mut Progress::new(&mut |_| {})).unwrap();
        let before = pip.read(&sys).unwrap();
        let resolved = pip.resolve(&sys, &before, &wants(serde_json::json!({"upper": "upper<2"})), &|_| false).unwrap();
        // Old pips do not tell; then it is known when it has happened.
        if resolved.get("upper") == Some(&"1.5".into()) {
            assert_eq!(resolved.get("lower"), Some(&"1.0".into()));
        }
        let first = set(&before, &resolved);
        assert_eq!((first.get("upper"), first.get("lower")), (Some(&"1.5".into()), Some(&"1.0".into())));
        let newer = set(&first, &wants(serde_json::json!({"upper": "upper>=3", "lower": null})));
        assert_eq!(newer.get("upper"), Some(&"3.0".into()));
        let mut back = first.clone();
        back.insert("@options".into(), serde_json::from_value(options.clone()).unwrap());
        assert_eq!(set(&newer, &back), first);
        assert_eq!(set(&first, &before), before);
        assert!(Pip::new("/nonexistent/pip").read(&sys).unwrap().is_empty());
        assert_eq!(plain("Zope.Interface__x"), "zope-interface-x");
    }
}
