//! What rpm knows: installed packages, their files, the keys it trusts.

use std::collections::{BTreeMap, BTreeSet};

use super::manager::{Owned, Package, Packages};
use super::version;
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::system::{Command, System};
use crate::value::sort_few;

/// Keys stand among rpm's packages, and are none.
const KEY: &str = "gpg-pubkey";

/// Where the database is, in files that change whenever it does.
pub const DATABASES: [&str; 2] = ["/var/lib/rpm", "/usr/lib/sysimage/rpm"];

/// `name`, or `name.arch` of a foreign architecture, as Salt names packages.
pub fn name(name: &str, arch: &str) -> String {
    if arch == "noarch" || arch == "(none)" || arch == std::env::consts::ARCH { name.to_owned() } else { format!("{name}.{arch}") }
}

/// `[epoch:]version-release`; an epoch of 0 is none.
pub fn version(epoch: &str, version: &str, release: &str) -> String {
    let epoch = if ["", "0", "(none)"].contains(&epoch) { String::new() } else { format!("{epoch}:") };
    let release = if release.is_empty() { String::new() } else { format!("-{release}") };
    format!("{epoch}{version}{release}")
}

/// Versions of one package beside each other, oldest first.
pub fn joined(mut versions: Vec<String>) -> String {
    sort_few(&mut versions, |one, other| version::rpm(one, other).is_lt());
    versions.dedup();
    versions.join(",")
}

fn query(sys: &System, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(["rpm", "-q", "--nodigest", "--nosignature"]);
    command.argv.extend(arguments.iter().map(|a| (*a).to_owned()));
    let output = sys.run(&command)?;
    if !output.success() {
        return Err(Diagnostic::new(Code::Failed, "rpm cannot read its database").detail(String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(output.text())
}

/// What is installed, without holds and marks, and the keys.
pub fn database(sys: &System) -> Result<(Packages, Vec<String>)> {
    let text = query(sys, &["-a", "--qf", "%{NAME}\t%{EPOCH}\t%{VERSION}\t%{RELEASE}\t%{ARCH}\n"])?;
    let mut found: BTreeMap<String, (String, Vec<String>)> = BTreeMap::new();
    let mut keys = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split('\t').collect();
        let [package, epoch, number, release, arch] = words.as_slice() else { continue };
        let number = version(epoch, number, release);
        if *package == KEY {
            keys.push(number);
        } else {
            let (_, versions) = found.entry(name(package, arch)).or_insert_with(|| ((*arch).to_owned(), Vec::new()));
            versions.push(number);
        }
    }
    keys.sort();
    let package = |(arch, versions)| Package { version: joined(versions), arch, ..Package::default() };
    Ok((found.into_iter().map(|(name, found)| (name, package(found))).collect(), keys))
}

pub fn packages(sys: &System) -> Result<Packages> {
    Ok(database(sys)?.0)
}

/// The files of an installed package. (Of several beside each other, of all.)
pub fn owned(sys: &System, name: &str) -> Result<Vec<Owned>> {
    let text = query(sys, &["--qf", "[%{FILEFLAGS:fflags}\t%{FILEDIGESTS}\t%{FILENAMES}\n]", "--", name])?;
    let owned = |line: &str| {
        let (flags, rest) = line.split_once('\t')?;
        let (digest, path) = rest.split_once('\t')?;
        // What belongs to a package and is not in it has no digest.
        let configuration = flags.contains('c') && !digest.is_empty();
        Some(Owned { path: path.to_owned(), digest: configuration.then(|| digest.to_owned()) })
    };
    Ok(text.lines().filter_map(owned).collect())
}

/// The packages that these paths belong to, of those that belong to one.
pub fn owners(sys: &System, paths: &BTreeSet<&str>) -> Result<BTreeMap<String, String>> {
    let mut owners = BTreeMap::new();
    for path in paths {
        let output = sys.run(&Command::new(["rpm", "-q", "--qf", "%{NAME}\t%{ARCH}\n", "-f", "--", path]))?;
        let text = output.text();
        let owner = text.lines().next().and_then(|line| line.split_once('\t')).filter(|_| output.success());
        owners.extend(owner.map(|(package, arch)| ((*path).to_owned(), name(package, arch))));
    }
    Ok(owners)
}

/// Takes a key from those that rpm trusts.
pub fn distrust(sys: &System, key: &str) -> Result<()> {
    let argv = ["rpm".to_owned(), "-e".to_owned(), format!("{KEY}-{key}")];
    sys.mutating(&argv.join(" "))?;
    let output = sys.run(&Command::new(argv))?;
    if output.success() {
        return Ok(());
    }
    Err(Diagnostic::new(Code::Failed, format!("rpm does not let go of the key {key}"))
        .detail(String::from_utf8_lossy(&output.stderr))
        .into())
}
