//! What dpkg and apt have on disk: which packages there are, in which state, and which came only because others need them.

use std::collections::BTreeSet;

use super::manager::{Package, Packages, State};
use crate::diagnostic::Result;
use crate::system::System;

pub const STATUS: &str = "/var/lib/dpkg/status";
/// Which packages came with others.
pub const MARKS: &str = "/var/lib/apt/extended_states";

/// All packages by name; those of a foreign architecture as `name:arch`.
pub fn read(sys: &System) -> Result<Option<Packages>> {
    let Some(bytes) = sys.read(STATUS)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes);
    let mut found: Vec<(&str, Package)> = text.split("\n\n").filter_map(stanza).collect();
    let native = found.iter().find(|(name, _)| *name == "dpkg").map_or_else(|| "amd64".to_owned(), |(_, p)| p.arch.clone());
    let marks = sys.read(MARKS)?.unwrap_or_default();
    let auto = automatic(&String::from_utf8_lossy(&marks));
    let mut packages = Packages::new();
    for (name, mut package) in found.drain(..) {
        package.auto = auto.contains(&(name.to_owned(), package.arch.clone()))
            || (package.arch == "all" && auto.contains(&(name.to_owned(), native.clone())));
        let foreign = package.arch != native && package.arch != "all";
        packages.insert(if foreign { format!("{name}:{}", package.arch) } else { name.to_owned() }, package);
    }
    Ok(Some(packages))
}

/// One paragraph of the status file; `None` for what is not there at all.
fn stanza(text: &str) -> Option<(&str, Package)> {
    let mut name = None;
    let mut package = Package::default();
    let mut conffiles = false;
    for line in text.split('\n') {
        // Nearly all lines are of no interest: only these first letters are looked at closely.
        match line.as_bytes().first() {
            Some(b' ') if conffiles => {
                let mut words = line.split_whitespace();
                if let (Some(path), Some(sum)) = (words.next(), words.next()) {
                    package.conffiles.push((path.to_owned(), sum.to_owned()));
                }
                continue;
            }
            Some(b'P' | b'S' | b'V' | b'A' | b'C') => {}
            _ => {
                conffiles &= line.starts_with(' ');
                continue;
            }
        }
        conffiles = false;
        let Some((field, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        match field {
            "Package" => name = Some(value),
            "Version" => package.version = value.to_owned(),
            "Architecture" => package.arch = value.to_owned(),
            "Conffiles" => conffiles = true,
            "Status" => {
                let mut words = value.split(' ');
                package.hold = words.next() == Some("hold");
                package.state = match words.nth(1)? {
                    "not-installed" => return None,
                    "installed" | "triggers-awaited" | "triggers-pending" => State::Installed,
                    "config-files" => State::Config,
                    _ => State::Broken,
                };
            }
            _ => {}
        }
    }
    Some((name?, package))
}

fn automatic(text: &str) -> BTreeSet<(String, String)> {
    let of = |stanza: &str| {
        let field = |name: &str| stanza.lines().find_map(|l| l.strip_prefix(name)).map(|v| v.trim().to_owned());
        (field("Auto-Installed:").as_deref() == Some("1")).then(|| Some((field("Package:")?, field("Architecture:")?)))?
    };
    text.split("\n\n").filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::{Command, Exec, Output};

    struct Nothing;
    impl Exec for Nothing {
        fn run(&self, command: &Command, _: &mut dyn FnMut(&[u8])) -> Result<Output> {
            panic!("reading ran {:?}", command.argv)
        }
    }

    #[test]
    fn states_marks_and_architectures_are_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("var/lib/dpkg")).unwrap();
        std::fs::create_dir_all(dir.path().join("var/lib/apt")).unwrap();
        let status = "Package: dpkg\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n\n\
            Package: libc6\nStatus: hold ok installed\nArchitecture: i386\nVersion: 2:3\nConffiles:\n /etc/x abc\n /etc/y def obsolete\nDescription: Conffiles:\n /etc/no nope\n\n\
            Package: gone\nStatus: deinstall ok not-installed\nArchitecture: all\n\n\
            Package: rc\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 5\n\n\
            Package: half\nStatus: install ok half-configured\nArchitecture: amd64\nVersion: 6\n";
        std::fs::write(dir.path().join("var/lib/dpkg/status"), status).unwrap();
        std::fs::write(
            dir.path().join("var/lib/apt/extended_states"),
            "Package: libc6\nArchitecture: i386\nAuto-Installed: 1\n\nPackage: rc\nArchitecture: amd64\nAuto-Installed: 0\n",
        )
        .unwrap();
        let status = read(&System::at(dir.path(), Box::new(Nothing))).unwrap().unwrap();
        let shown: Vec<String> = status
            .iter()
            .map(|(name, p)| format!("{name} {} {:?} {} {} {}", p.version, p.state, p.hold, p.auto, p.conffiles.len()))
            .collect();
        assert_eq!(
            shown,
            [
                "dpkg 1 Installed false false 0",
                "half 6 Broken false false 0",
                "libc6:i386 2:3 Installed true true 2",
                "rc 5 Config false false 0",
            ]
        );
    }
}
