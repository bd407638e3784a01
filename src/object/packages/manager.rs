//! What the families of package managers have in common: what is installed, what could be, one transaction, and what the way back needs.
//!
//! `apt` and `dnf` are behind it. Which one a host has is decided as Salt decides it, by the system's family; of others only the name is known.

use std::collections::BTreeMap;

use super::apt::Apt;
use super::dnf::Dnf;
use super::version::Order;
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::object::{Progress, Sign};
use crate::plan::{Key, Kind};
use crate::system::System;
use crate::value::Attrs;

/// A package that is there, wholly or in part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Package {
    /// Of several that are installed beside each other (kernels): all, oldest first, with commas.
    pub version: String,
    pub arch: String,
    pub state: State,
    pub hold: bool,
    /// Came with others.
    pub auto: bool,
    /// Path and digest of its configuration files, where reading the packages tells them.
    pub conffiles: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    #[default]
    Installed,
    /// Removed; its configuration files are there.
    Config,
    /// Unpacked, half configured …: an interrupted run left it so.
    Broken,
}

/// A file that a package brings; `digest` where it is a configuration file.
#[derive(Clone, Debug, PartialEq)]
pub struct Owned {
    pub path: String,
    pub digest: Option<String>,
}

/// What decides a transaction besides the packages.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub recommends: Option<bool>,
    pub from: Option<String>,
    pub unauthenticated: bool,
    /// What is not needed any more goes too.
    pub autoremove: bool,
    pub refresh: bool,
    /// dnf's own: repositories to use or not, settings.
    pub enable: Vec<String>,
    pub disable: Vec<String>,
    pub settings: Vec<String>,
}

/// One thing that a transaction is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// In this version, or in the best there is.
    Install(String, Option<String>),
    /// As new as can be.
    Latest(String),
    /// From a package file of the host.
    File(String),
    /// This version of several, or what there is of it.
    Remove(String, Option<String>),
}

/// What a transaction would come to.
#[derive(Debug, Default, PartialEq)]
pub struct Simulation {
    /// Name and version (as in `Package`) of what is there otherwise than before.
    pub installs: Vec<(String, String)>,
    pub removes: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    Auto,
    Manual,
    Hold,
    Unhold,
}

pub type Packages = BTreeMap<String, Package>;

pub trait Manager: Sync {
    fn name(&self) -> &'static str;

    /// What is there; `None`: this host's packages are not its.
    fn packages(&self, sys: &System) -> Result<Option<Packages>>;

    /// What tells that packages have changed.
    fn signs(&self, sys: &System) -> Result<Vec<Sign>>;

    /// Attributes besides the packages that only serve to restore them.
    fn besides(&self, _sys: &System) -> Result<Attrs> {
        Ok(Attrs::new())
    }

    /// Makes what `besides` told what it was.
    fn restore_besides(&self, _sys: &System, _before: &Attrs, _progress: &mut Progress) -> Result<()> {
        Ok(())
    }

    /// Files of the host that it writes by itself.
    fn writes(&self, _sys: &System) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// A package as what is installed names it, whatever somebody calls it.
    fn named(&self, name: &str) -> String {
        name.to_owned()
    }

    /// The versions that repositories have, newest first.
    fn available(&self, sys: &System, names: &[&str]) -> Result<BTreeMap<String, Vec<String>>>;

    /// Which of two versions is newer.
    fn order(&self) -> Order;

    /// Whether a version says all that tells it from others.
    fn whole(&self, _version: &str) -> bool {
        true
    }

    /// Directories that say where packages come from: a change in them means other versions.
    fn sources(&self) -> &'static [&'static str];

    /// Whether it looks at the repositories when it is asked, so that a plan knows what a refresh would bring.
    fn asks_repositories(&self) -> bool {
        false
    }

    /// What these targets would come to. Changes nothing.
    fn simulate(&self, sys: &System, options: &Options, targets: &[Target]) -> Result<Simulation>;

    /// One transaction. What it is to do is listed wholly: nothing else comes or goes that the plan has not shown.
    fn transact(&self, sys: &System, progress: &mut Progress, options: &Options, targets: &[Target]) -> Result<()>;

    /// Takes away what is left of removed packages.
    fn purge(&self, _sys: &System, _progress: &mut Progress, _names: &[String]) -> Result<()> {
        Ok(())
    }

    /// Whether removing a package, without purging it, leaves its configuration to be known of.
    fn leaves_configuration(&self, _sys: &System, _name: &str, _package: &Package) -> Result<bool> {
        Ok(false)
    }

    /// Brings to an end what an interrupted transaction left half done.
    fn repair(&self, _sys: &System, _progress: &mut Progress) -> Result<()> {
        Ok(())
    }

    /// Whether packages can be held here.
    fn can_hold(&self, _sys: &System) -> Result<()> {
        Ok(())
    }

    fn mark(&self, sys: &System, progress: &mut Progress, mark: Mark, names: &[String]) -> Result<()>;

    /// The command that fetches the package lists.
    fn refresh(&self) -> Vec<String>;

    /// Runs it.
    fn run(&self, sys: &System, progress: &mut Progress, argv: Vec<String>) -> Result<()>;

    /// Waits until nobody works on the packages; gives up with the name of who does.
    fn wait(&self, sys: &System, progress: &mut Progress) -> Result<()>;

    /// The end of a package file's name, and where it keeps such files itself.
    fn files(&self) -> (&'static str, Option<&'static str>);

    /// Brings the files of these installed versions into a directory, as `kept::prefix` names them. What cannot be had is not there then.
    fn fetch(&self, sys: &System, packages: &[(String, String)], directory: &str) -> Result<()>;

    /// The files of an installed package.
    fn owned(&self, sys: &System, name: &str, package: &Package) -> Result<Vec<Owned>>;

    /// What it appends to the names of configuration files that it puts beside those which their user changed, and whether it also puts
    /// new ones in their place.
    fn copies(&self) -> (&'static [&'static str], bool);
}

/// Systems of Red Hat's family, as they name themselves or their kin.
const RED_HAT: [&str; 14] = [
    "rhel",
    "fedora",
    "centos",
    "almalinux",
    "rocky",
    "ol",
    "amzn",
    "openEuler",
    "photon",
    "virtuozzo",
    "xenenterprise",
    "scientific",
    "mageia",
    "cloudlinux",
];

/// The name of the host's package manager; empty where none is known.
pub fn family(sys: &System) -> &'static str {
    let has = |program: &str| {
        ["/usr/bin", "/bin", "/usr/sbin", "/sbin"].iter().any(|place| sys.stat(&format!("{place}/{program}")).is_ok_and(|s| s.is_some()))
    };
    let release = ["/etc/os-release", "/usr/lib/os-release"].iter().find_map(|path| sys.read(path).ok()?).unwrap_or_default();
    let release = String::from_utf8_lossy(&release);
    let kin = release.lines().filter_map(|line| line.strip_prefix("ID=").or(line.strip_prefix("ID_LIKE=")));
    let red_hat = kin.flat_map(|value| value.trim_matches(['"', '\'']).split(' ')).any(|id| RED_HAT.contains(&id));
    match () {
        () if !red_hat && (has("dpkg") || sys.stat(super::status::STATUS).is_ok_and(|s| s.is_some())) => "apt",
        () if !red_hat && has("zypper") => "zypper",
        // dnf5 brings its name with it, and may be called dnf.
        () if has("dnf5") => "dnf5",
        () if has("dnf") => "dnf",
        () if has("yum") => "yum",
        () if has("apk") => "apk",
        () if has("pacman") => "pacman",
        () if has("emerge") => "emerge",
        () => "",
    }
}

/// The key of the host's packages.
pub fn key(sys: &System) -> Key {
    Key::new(
        Kind::Packages,
        match family(sys) {
            "" => "apt",
            name => name,
        },
    )
}

/// The manager of this name.
pub fn of(name: &str) -> Result<&'static dyn Manager> {
    let unknown = || Diagnostic::new(Code::Failed, format!("packages of {name} are not known here; only those of apt and dnf are"));
    match name {
        "apt" => Ok(&Apt),
        "dnf" => Ok(&Dnf),
        "dnf5" => Err(unknown().hint("dnf 4, of Red Hat's 8 to 10 and their kin, is known; dnf 5, of Fedora since 41, is not yet").into()),
        _ => Err(unknown().hint("`cmd.run` with `unless` does what this host's own package manager can").into()),
    }
}

/// Name and version of what is installed; nothing where the host's packages are not known.
pub fn installed(sys: &System) -> Result<Vec<(String, String)>> {
    let all = match family(sys) {
        "" => None,
        "dnf5" | "yum" | "zypper" => Some(super::rpm::packages(sys)?),
        name => of(name).map_or(Ok(None), |manager| manager.packages(sys))?,
    };
    Ok(all.unwrap_or_default().into_iter().filter(|(_, p)| p.state == State::Installed).map(|(name, p)| (name, p.version)).collect())
}

/// Runs a command of a package manager that changes something, its output told as it comes.
pub fn streamed(sys: &System, progress: &mut Progress, command: &crate::system::Command) -> Result<crate::system::Output> {
    sys.mutating(&command.argv.join(" "))?;
    let mut rest: Vec<u8> = Vec::new();
    sys.run_streaming(command, &mut |piece| {
        rest.extend_from_slice(piece);
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            progress.say(String::from_utf8_lossy(&line).trim_end());
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_s_family_decides_and_then_what_is_there() {
        for (files, want) in [
            (vec![("var/lib/dpkg/status", "")], "apt"),
            (vec![("etc/os-release", "ID=debian\n"), ("usr/bin/dpkg", ""), ("usr/bin/dnf", "")], "apt"),
            (
                vec![
                    ("usr/lib/os-release", "ID=\"almalinux\"\nID_LIKE=\"rhel centos fedora\"\n"),
                    ("usr/bin/dpkg", ""),
                    ("usr/bin/dnf", ""),
                ],
                "dnf",
            ),
            (vec![("etc/os-release", "ID=fedora\n"), ("usr/bin/dnf", ""), ("usr/bin/dnf5", "")], "dnf5"),
            (vec![("etc/os-release", "ID=\"centos\"\n"), ("usr/bin/yum", "")], "yum"),
            (vec![("etc/os-release", "ID=alpine\n"), ("sbin/apk", "")], "apk"),
            (vec![("etc/os-release", "ID=opensuse-leap\n"), ("usr/bin/zypper", ""), ("usr/bin/dnf", "")], "zypper"),
            (vec![], ""),
        ] {
            let dir = tempfile::tempdir().unwrap();
            for (path, text) in &files {
                let path = dir.path().join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            assert_eq!(
                family(&System::at(dir.path(), Box::new(crate::system::HostExec::new(dir.path(), Default::default())))),
                want,
                "{files:?}"
            );
        }
    }
}
