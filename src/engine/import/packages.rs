//! Which packages make a host: those that nothing else of it brings along.

use std::collections::{BTreeMap, BTreeSet};

use super::survey::Survey;
use crate::object::packages::locked;

/// An installed package.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Package {
    pub version: String,
    pub hold: bool,
    /// Every Debian has it.
    base: bool,
    /// What it needs: the first of each of its alternatives.
    needs: Vec<String>,
    /// Path and MD5 of its configuration files; obsolete ones are nobody's.
    pub conffiles: Vec<(String, String)>,
}

/// The installed packages by name, those of a foreign architecture as `name:arch`, from dpkg's status file.
pub fn installed(status: &[String], native: &str) -> BTreeMap<String, Package> {
    let mut found = BTreeMap::new();
    for stanza in status.split(|line| line.is_empty()) {
        let mut package = Package::default();
        let (mut name, mut arch, mut installed, mut field) = (String::new(), "", false, "");
        for line in stanza {
            let (key, value) = match line.strip_prefix(' ') {
                Some(more) => (field, more.trim()),
                None => line.split_once(':').map(|(key, value)| (key, value.trim())).unwrap_or_default(),
            };
            field = key;
            match key {
                "Package" => value.clone_into(&mut name),
                "Status" => {
                    package.hold = value.starts_with("hold ");
                    installed = value.ends_with(" installed");
                }
                "Version" => value.clone_into(&mut package.version),
                "Architecture" => arch = value,
                "Essential" => package.base |= value == "yes",
                "Priority" => package.base |= ["required", "important"].contains(&value),
                "Depends" | "Pre-Depends" => {
                    let first = |group: &str| group.split('|').next()?.split_whitespace().next().map(plain);
                    package.needs.extend(value.split(',').filter_map(first));
                }
                "Conffiles" => {
                    let mut words = value.split_whitespace();
                    if let (Some(path), Some(sum), None) = (words.next(), words.next(), words.next()) {
                        package.conffiles.push((path.to_owned(), sum.to_owned()));
                    }
                }
                _ => {}
            }
        }
        if installed && !name.is_empty() {
            if arch != native && arch != "all" {
                name = format!("{name}:{arch}");
            }
            found.insert(name, package);
        }
    }
    found
}

/// The installed packages from what rpm says; those of a foreign architecture as `name.arch`.
pub fn of_rpm(survey: &Survey) -> BTreeMap<String, Package> {
    let native = survey.part("native").first().map_or("x86_64", String::as_str);
    let full =
        |name: &str, arch: &str| if ["noarch", "(none)", native].contains(&arch) { name.to_owned() } else { format!("{name}.{arch}") };
    let locks = survey.part("locks").join("\n");
    let mut found: BTreeMap<String, Package> = BTreeMap::new();
    let mut provided: BTreeMap<&str, String> = BTreeMap::new();
    for path in survey.fields("paths", '\t') {
        if let [path, name, arch] = path[..] {
            provided.insert(path, full(name, arch));
        }
    }
    let mut last = String::new();
    for line in survey.fields("rpm", '\t') {
        match line[..] {
            // Keys stand among the packages, and are none; neither is what stands behind one of them its own.
            ["Package", "gpg-pubkey", ..] => last.clear(),
            ["Package", name, epoch, version, release, arch] => {
                last = full(name, arch);
                let epoch = if ["(none)", "0"].contains(&epoch) { String::new() } else { format!("{epoch}:") };
                let version = format!("{epoch}{version}-{release}");
                let hold = locked(&locks, name, &version, arch);
                // Of several beside each other all count as one.
                let package = found.entry(last.clone()).or_default();
                (package.version, package.hold) = (version, hold);
            }
            ["Provides", what] if !last.is_empty() => drop(provided.entry(what).or_insert_with(|| last.clone())),
            ["Requires", what] => {
                if let Some(package) = found.get_mut(&last) {
                    package.needs.push(what.to_owned());
                }
            }
            ["File", _, sum, path] => {
                if let Some(package) = found.get_mut(&last) {
                    package.conffiles.push((path.to_owned(), sum.to_owned()));
                }
            }
            _ => {}
        }
    }
    for (name, package) in &mut found {
        let names = package.needs.iter().filter_map(|need| provided.get(need.as_str())).filter(|by| *by != name);
        package.needs = names.cloned().collect::<BTreeSet<_>>().into_iter().collect();
    }
    found
}

/// A name without its architecture.
fn plain(name: &str) -> String {
    name.split(':').next().unwrap_or(name).to_owned()
}

/// The packages to name: those that were asked for and that came by a recommendation, without the base's and without those that
/// another of them needs.
pub fn named(survey: &Survey, packages: &BTreeMap<String, Package>) -> Vec<String> {
    let manual: BTreeSet<&String> = survey.part("manual").iter().collect();
    // dnf says of each why it is there.
    let came: BTreeSet<&str> = survey.fields("came", '\t').filter_map(|line| line.first().copied()).collect();
    let of_rpm = !survey.part("rpm").is_empty();
    let asked_for = |name: &String| if of_rpm { !came.contains(name.split('.').next().unwrap_or(name)) } else { manual.contains(name) };
    let candidates = |by_hand: bool| -> Vec<String> {
        packages.iter().filter(|(name, p)| !p.base && asked_for(name) == by_hand).map(|(name, _)| name.clone()).collect()
    };
    let base: BTreeSet<String> = packages.iter().filter(|(_, p)| p.base).map(|(name, _)| name.clone()).collect();
    let mut named = candidates(true);
    let mut all = candidates(false);
    // What came along and is needed by nothing else here came by a recommendation.
    all.retain(|name| !brought(packages, named.iter().chain(&base)).contains(name));
    named.append(&mut all);
    // One after the other: of two that need each other one stays.
    let mut at = 0;
    while at < named.len() {
        let others: Vec<String> = named.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, name)| name.clone()).collect();
        match named.get(at).is_some_and(|name| brought(packages, others.iter()).contains(name)) {
            true => drop(named.remove(at)),
            false => at += 1,
        }
    }
    named.sort();
    named
}

/// All that these need, and what that needs.
fn brought<'a>(packages: &BTreeMap<String, Package>, by: impl Iterator<Item = &'a String>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut todo: Vec<&String> = by.collect();
    let mut seen: BTreeSet<&String> = BTreeSet::new();
    while let Some(name) = todo.pop() {
        let Some((name, package)) = packages.get_key_value(name).filter(|(name, _)| seen.insert(name)) else { continue };
        for need in package.needs.iter().filter(|need| packages.contains_key(*need) && *need != name) {
            found.insert(need.clone());
            todo.push(need);
        }
    }
    found
}
