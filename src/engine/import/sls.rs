//! What was found, written down: an SLS for each area, small enough to be read, and the files beside it.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::files::{Area, Found, Kind, plain};
use super::packages::{self, Package};
use super::survey::Survey;
use super::{Areas, Imported};

/// Mount points that every host has, or that a kernel brings.
const BASE_MOUNTS: [&str; 8] = ["/", "/boot", "/boot/efi", "/dev", "/proc", "/run", "/sys", "none"];

pub struct Sls<'a> {
    host: &'a str,
    /// The folder below the file root, and the name of the SLS in it.
    folder: String,
    survey: &'a Survey,
    found: &'a [Found],
    contents: BTreeMap<String, Vec<u8>>,
    notes: Vec<String>,
    out: Imported,
    parts: Vec<&'static str>,
}

impl<'a> Sls<'a> {
    pub fn new(host: &'a str, survey: &'a Survey, found: &'a [Found], contents: BTreeMap<String, Vec<u8>>, notes: Vec<String>) -> Sls<'a> {
        // A dot in an SLS leads into a folder.
        let name: String = host.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
        Sls { host, folder: format!("imported/{name}"), survey, found, contents, notes, out: Imported::default(), parts: Vec::new() }
    }

    pub fn write(mut self, packages: &BTreeMap<String, Package>, areas: Areas) -> Imported {
        if areas.packages {
            let sources = self.files(Area::Sources);
            self.part("repositories", "Where packages come from", sources);
            let packages = self.packages(packages);
            self.part("packages", "Packages that were asked for, or that came by a recommendation", packages);
        }
        if areas.users {
            let users = [self.users(), self.files(Area::Keys)].concat();
            self.part("users", "Users and groups above the system's range. Passwords are not copied", users);
        }
        if areas.files {
            let (system, mounts) = (self.system(), self.mounts());
            self.part("system", "Time zone and language", system);
            let mut files = self.files(Area::Config);
            files.push_str(&self.sysctl());
            self.part("files", "Configuration that was changed, and files of /etc that no package brought", files);
            self.part("mounts", "What fstab mounts", mounts);
            let cron = self.files(Area::Cron);
            self.part("cron", "Crontabs", cron);
        }
        if areas.services {
            let services = self.services();
            self.part("services", "Units that are not as their packages set them up", services);
        }
        let mut init = format!("# What was there on {}, by `basalt import`.\n", self.host);
        for note in &self.notes {
            let _ = writeln!(init, "# Left out: {}.", if plain(note) { note.as_str() } else { "something that cannot be named here" });
        }
        // Without anything there is nothing to include.
        if !self.parts.is_empty() {
            init.push_str("include:\n");
        }
        let sls = self.folder.replace('/', ".");
        self.parts.iter().for_each(|part| init.push_str(&format!("  - {sls}.{part}\n")));
        self.out.files.insert(format!("{}/init.sls", self.folder), init.into_bytes());
        Imported { sls, notes: self.notes, ..self.out }
    }

    fn part(&mut self, name: &'static str, about: &str, body: String) {
        if !body.is_empty() {
            self.out.files.insert(format!("{}/{name}.sls", self.folder), format!("# {about}.\n{body}").into_bytes());
            self.parts.push(name);
        }
    }

    fn files(&mut self, area: Area) -> String {
        let mut out = String::new();
        for file in self.found.iter().filter(|file| file.area == area) {
            let path = scalar(&file.path);
            let mut owner = String::new();
            for (name, is) in [("user", &file.user), ("group", &file.group)] {
                if is != "root" {
                    let _ = writeln!(owner, "    - {name}: {}", scalar(is));
                }
            }
            match &file.kind {
                Kind::File => {
                    let Some(bytes) = self.contents.remove(&file.path) else { continue };
                    let place = format!("{}/files{}", self.folder, file.path);
                    let _ = write!(
                        out,
                        "\n{path}:\n  file.managed:\n    - source: {}\n{owner}    - mode: '{}'\n    - makedirs: True\n",
                        scalar(&format!("salt://{place}")),
                        file.mode
                    );
                    if area == Area::Keys {
                        out.push_str("    - dir_mode: '0700'\n");
                    }
                    self.out.files.insert(place, bytes);
                }
                Kind::Directory => {
                    let _ = write!(out, "\n{path}:\n  file.directory:\n{owner}    - mode: '{}'\n    - makedirs: True\n", file.mode);
                }
                Kind::Link(target) => {
                    let _ = write!(out, "\n{path}:\n  file.symlink:\n    - target: {}\n{owner}    - makedirs: True\n", scalar(target));
                }
                Kind::Missing => {
                    let _ = write!(out, "\n{path}:\n  file.absent: []\n");
                }
            }
        }
        out
    }

    fn packages(&self, packages: &BTreeMap<String, Package>) -> String {
        let named = packages::named(self.survey, packages);
        // dnf has no word for it.
        let recommends = if self.survey.part("rpm").is_empty() { "    - install_recommends: False\n" } else { "" };
        let mut out = String::new();
        let mut free: Vec<&String> = Vec::new();
        for name in &named {
            match packages.get(name).filter(|package| package.hold) {
                Some(package) => {
                    let (name, version) = (scalar(name), scalar(&package.version));
                    let _ = write!(
                        out,
                        "\n{name} is held:\n  pkg.installed:\n    - name: {name}\n    - version: {version}\n    - hold: True\n{recommends}    - refresh: True\n"
                    );
                }
                None => free.push(name),
            }
        }
        if !free.is_empty() {
            let _ = write!(out, "\npackages:\n  pkg.installed:\n{recommends}    - refresh: True\n    - pkgs:\n");
            free.iter().for_each(|name| out.push_str(&format!("      - {}\n", scalar(name))));
        }
        out
    }

    fn users(&mut self) -> String {
        let groups: Vec<[&str; 4]> = self.survey.fields("group", ':').filter_map(|fields| fields.try_into().ok()).collect();
        let range = self.survey.range("GID");
        let own = |gid: &str| gid.parse().is_ok_and(|gid| range.contains(&gid));
        let mut out = String::new();
        for [name, _, gid, members] in groups.iter().filter(|[_, _, gid, _]| own(gid)) {
            if plain(name) && plain(members) {
                let _ = write!(
                    out,
                    "\n{}:\n  group.present:\n    - name: {}\n    - gid: {gid}\n",
                    scalar(&format!("group {name}")),
                    scalar(name)
                );
            }
        }
        let people = self.survey.range("UID");
        for user in self.survey.fields("passwd", ':') {
            let [name, _, uid, gid, about, home, shell] = user[..] else { continue };
            if !uid.parse().is_ok_and(|uid| people.contains(&uid)) {
                continue;
            }
            if !user.iter().all(|field| plain(field)) {
                self.notes.push(format!("the user with the number {uid}, in whose entry is what no SLS can say"));
                continue;
            }
            let group = groups.iter().find(|group| group[2] == gid).map_or(gid, |[group, ..]| *group);
            let id = scalar(&format!("user {name}"));
            let _ = write!(out, "\n{id}:\n  user.present:\n    - name: {}\n    - uid: {uid}\n    - gid: {}\n", scalar(name), scalar(group));
            let _ = write!(out, "    - home: {}\n    - shell: {}\n", scalar(home), scalar(shell));
            if !self.survey.part("homes").iter().any(|with| with == name) {
                out.push_str("    - createhome: False\n");
            }
            for (field, text) in ["fullname", "roomnumber", "workphone", "homephone", "other"].iter().zip(about.splitn(5, ',')) {
                if !text.is_empty() {
                    let _ = writeln!(out, "    - {field}: {}", scalar(text));
                }
            }
            let member = |[_, _, _, members]: &&[&str; 4]| members.split(',').any(|member| member == name);
            let (ours, theirs): (Vec<&[&str; 4]>, Vec<&[&str; 4]>) = groups.iter().filter(member).partition(|[_, _, gid, _]| own(gid));
            for (argument, groups) in [("groups", ours), ("optional_groups", theirs)] {
                if !groups.is_empty() {
                    let names: Vec<String> = groups.iter().map(|[group, ..]| scalar(group)).collect();
                    let _ = writeln!(out, "    - {argument}: [{}]", names.join(", "));
                }
            }
        }
        out
    }

    fn system(&self) -> String {
        let mut out = String::new();
        let zone = self.survey.part("zone");
        if let Some((_, name)) = zone.first().and_then(|path| path.split_once("/zoneinfo/")).filter(|(_, name)| plain(name)) {
            let utc = !zone.iter().any(|line| line == "LOCAL");
            let _ = write!(out, "\n{}:\n  timezone.system:\n    - utc: {}\n", scalar(name), if utc { "True" } else { "False" });
        }
        let language = self.survey.part("locale").iter().find_map(|line| line.strip_prefix("LANG=")).map(|lang| lang.trim_matches('"'));
        if let Some(language) = language.filter(|lang| plain(lang) && !["", "C", "POSIX", "C.UTF-8"].contains(lang)) {
            let _ = write!(out, "\n{0}:\n  locale.present: []\n  locale.system: []\n", scalar(language));
        }
        out
    }

    fn mounts(&mut self) -> String {
        let mut out = String::new();
        for line in self.survey.part("fstab").iter().filter(|line| !line.trim_start().starts_with('#')) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [device, place, kind, options, rest @ ..] = &fields[..] else { continue };
            if BASE_MOUNTS.contains(place) || *kind == "swap" {
                continue;
            }
            if line.contains('\\') || !plain(line) {
                self.notes.push(format!("the entry of fstab for {place}"));
                continue;
            }
            let number = |at: usize| rest.get(at).and_then(|field| field.parse::<u8>().ok()).unwrap_or(0);
            let options: Vec<String> = options.split(',').map(scalar).collect();
            let place = scalar(place);
            let _ = write!(
                out,
                "\n{place}:\n  file.directory:\n    - makedirs: True\n  mount.fstab_present:\n    - name: {}\n    - fs_file: {place}\n    - fs_vfstype: {}\n    - fs_mntops: [{}]\n    - fs_freq: {}\n    - fs_passno: {}\n",
                scalar(device),
                scalar(kind),
                options.join(", "),
                number(0),
                number(1)
            );
        }
        out
    }

    /// Settings of the kernel count from the next boot on, or when they are read.
    fn sysctl(&self) -> String {
        let of = |file: &&Found| file.kind == Kind::File && (file.path.starts_with("/etc/sysctl.d/") || file.path == "/etc/sysctl.conf");
        let state = |file: &Found| {
            let read = scalar(&format!("sysctl -p {}", file.path));
            format!("\n{read}:\n  cmd.run:\n    - onchanges:\n      - file: {}\n", scalar(&file.path))
        };
        // The name is a shell's to read.
        let bare = |file: &&Found| scalar(&file.path) == file.path;
        self.found.iter().filter(of).filter(bare).map(state).collect()
    }

    fn services(&mut self) -> String {
        let active: Vec<&str> = self.survey.part("active").iter().filter_map(|line| line.split_whitespace().next()).collect();
        let mut out = String::new();
        for line in self.survey.part("units") {
            let mut words = line.split_whitespace();
            let (Some(unit), Some(state)) = (words.next(), words.next()) else { continue };
            let preset = words.next().unwrap_or_default();
            let own = self.survey.part("files").iter().any(|line| {
                line.starts_with("f ") && line.split('\t').nth(1).and_then(|path| path.strip_prefix("/etc/systemd/system/")) == Some(unit)
            });
            let runs = active.contains(&unit);
            let state = match state {
                "masked" => "service.masked: []",
                "enabled" if (preset == "disabled" || own) && runs => "service.running:\n    - enable: True",
                "enabled" if preset == "disabled" || own => "service.enabled: []",
                "disabled" if own && runs => "service.running:\n    - enable: False",
                "disabled" if preset == "enabled" && !own && !runs => "service.dead:\n    - enable: False",
                "disabled" if preset == "enabled" && !own => "service.disabled: []",
                _ => continue,
            };
            if plain(unit) && !unit.contains("@.") {
                let _ = write!(out, "\n{}:\n  {state}\n", scalar(unit));
            }
        }
        out
    }
}

/// A text as YAML, bare where that is surely a text.
fn scalar(text: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "/._-+@=".contains(c);
    let bare = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/') && text.chars().all(safe);
    let words = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"];
    if bare && !words.contains(&text.to_ascii_lowercase().as_str()) { text.to_owned() } else { format!("'{}'", text.replace('\'', "''")) }
}
