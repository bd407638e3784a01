//! alternatives.*: which of several programs a common name leads to. It is three kinds of files (the group's record, the link in
//! `/etc/alternatives`, the name itself), and these states want those files to be as update-alternatives would leave them. So what they do is
//! planned to the last link, and taken back as files are.

use super::args::Args;
use super::edit::differ;
use super::file::place::{self, attrs, failed, key, kind, named, text};
use super::{Arg, ArgKind, Entry, Function, There, Want};
use crate::diagnostic::Result;
use crate::plan::{Hash, Key, Low};
use crate::value::{Attrs, sort_few};

/// Where the records are: Debian and SUSE, Red Hat.
const RECORDS: [&str; 2] = ["/var/lib/dpkg/alternatives", "/var/lib/alternatives"];
const LINKS: &str = "/etc/alternatives";

const NAME: Arg = Arg::new("name", ArgKind::Str, "", "The name of the group. Example: editor");
const PATH: Arg = Arg::new("path", ArgKind::Str, "", "The program. Example: /usr/bin/vim.basic");

pub const FUNCTIONS: &[Entry] = &[
    Entry {
        name: "alternatives.auto",
        doc: "The best program of a group is the chosen one.",
        args: &[NAME],
        watches: false,
        parse: |low| parse(low, Goal::Auto),
    },
    Entry {
        name: "alternatives.install",
        doc: "A program is one of a group's alternatives.",
        args: &[
            NAME,
            Arg::new("link", ArgKind::Str, "", "The common name, as a path. Example: /usr/bin/editor"),
            PATH,
            Arg::new("priority", ArgKind::Int, "", "The higher the better, where nobody chooses. Example: 50"),
        ],
        watches: false,
        parse: |low| parse(low, Goal::Install),
    },
    Entry {
        name: "alternatives.remove",
        doc: "A program is none of a group's alternatives.",
        args: &[NAME, PATH],
        watches: false,
        parse: |low| parse(low, Goal::Remove),
    },
    Entry {
        name: "alternatives.set",
        doc: "This program of a group is the chosen one.",
        args: &[NAME, PATH],
        watches: false,
        parse: |low| parse(low, Goal::Set),
    },
];

#[derive(Clone, Copy, PartialEq)]
enum Goal {
    Install,
    Remove,
    Set,
    Auto,
}

/// What the record of a group says.
#[derive(Clone, Debug, Default, PartialEq)]
struct Group {
    manual: bool,
    link: String,
    /// Names that go along with the choice, and their links.
    slaves: Vec<(String, String)>,
    choices: Vec<Choice>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Choice {
    path: String,
    priority: i64,
    /// For each of the group's slaves; empty where the choice has none.
    slaves: Vec<String>,
}

impl Group {
    fn parse(text: &str) -> Option<Group> {
        let mut lines = text.lines();
        let manual = match lines.next()? {
            "auto" => false,
            "manual" => true,
            _ => return None,
        };
        let mut group = Group { manual, link: lines.next()?.to_owned(), ..Group::default() };
        while let Some(name) = lines.next().filter(|name| !name.is_empty()) {
            group.slaves.push((name.to_owned(), lines.next()?.to_owned()));
        }
        while let Some(path) = lines.next().filter(|path| !path.is_empty()) {
            let priority = lines.next()?.parse().ok()?;
            let slaves = group.slaves.iter().map(|_| lines.next().map(str::to_owned)).collect::<Option<Vec<_>>>()?;
            // Red Hat's families begin with something else than a path.
            path.starts_with('/').then(|| group.choices.push(Choice { path: path.to_owned(), priority, slaves }))?;
        }
        Some(group)
    }

    fn record(&self) -> String {
        let mut out = format!("{}\n{}\n", if self.manual { "manual" } else { "auto" }, self.link);
        self.slaves.iter().for_each(|(name, link)| out.push_str(&format!("{name}\n{link}\n")));
        out.push('\n');
        let mut choices: Vec<&Choice> = self.choices.iter().collect();
        sort_few(&mut choices, |one, other| one.path < other.path);
        for choice in choices {
            out.push_str(&format!("{}\n{}\n", choice.path, choice.priority));
            choice.slaves.iter().for_each(|path| out.push_str(&format!("{path}\n")));
        }
        out.push('\n');
        out
    }

    fn choice(&self, path: &str) -> Option<&Choice> {
        self.choices.iter().find(|choice| choice.path == path)
    }

    /// The first of the best, by their paths.
    fn best(&self) -> Option<&Choice> {
        self.choices.iter().min_by_key(|choice| (std::cmp::Reverse(choice.priority), &choice.path))
    }
}

struct Alternative {
    goal: Goal,
    name: String,
    path: String,
    link: String,
    priority: i64,
}

fn parse(low: &Low, goal: Goal) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let name = args.name();
    if name.is_empty() || name.starts_with('-') || name.contains(|c: char| c == '/' || c.is_whitespace()) {
        return Err(args.error(format!("{name:?} cannot be the name of a group of alternatives")));
    }
    let path = |argument: &str, needed: bool| match args.str(argument)? {
        Some(path) if needed => place::absolute(&args, argument, &path),
        None if needed => Err(args.error(format!("{} needs the argument {argument}", low.function()))),
        _ => Ok(String::new()),
    };
    let priority = args.int("priority")?;
    if goal == Goal::Install && priority.is_none() {
        return Err(args.error("alternatives.install needs the argument priority"));
    }
    let (link, path) = (path("link", goal == Goal::Install)?, path("path", goal != Goal::Auto)?);
    Ok(Box::new(Alternative { goal, name, path, link, priority: priority.unwrap_or(0) }))
}

impl Alternative {
    fn record(&self, there: &dyn There) -> String {
        let has = |directory: &&str| !there.get(&key(directory)).is_empty();
        format!("{}/{}", RECORDS.iter().find(|d| has(d)).unwrap_or(&RECORDS[0]), self.name)
    }

    fn group(&self, there: &dyn There) -> Result<Option<Group>> {
        let path = self.record(there);
        let record = there.get(&key(&path));
        let Some(hash) = text(&record, "content") else { return Ok(None) };
        let bytes = there.bytes(&Hash(hash.to_owned()))?;
        match Group::parse(&String::from_utf8_lossy(&bytes)) {
            Some(group) => Ok(Some(group)),
            None => Err(failed(format!("{path} is no record of alternatives that basalt reads")).into()),
        }
    }

    /// Where the group leads now.
    fn current(&self, there: &dyn There) -> Option<String> {
        text(&there.get(&key(&format!("{LINKS}/{}", self.name))), "target").map(str::to_owned)
    }

    /// The group as it is to be, and the choice it leads to; nothing where it is so already. `Err`: why it cannot be.
    fn changed(&self, there: &dyn There, old: Option<Group>) -> Result<Option<(Group, Option<Choice>)>> {
        let current = self.current(there);
        let missing = || failed(format!("Alternative {} for {} doesn't exist", self.path, self.name));
        let mut group = match (old, self.goal) {
            (Some(group), _) => group,
            (None, Goal::Install) => Group { link: self.link.clone(), ..Group::default() },
            (None, Goal::Remove) => return Ok(None),
            (None, Goal::Set) => return Err(missing().into()),
            (None, Goal::Auto) => return Err(failed(format!("there is no group of alternatives {}", self.name)).into()),
        };
        let known = group.choice(&self.path).is_some();
        match self.goal {
            Goal::Install if known => return Ok(None),
            Goal::Install => {
                let real = place::follow(there, &self.path)?;
                if kind(&there.get(&key(&real))).is_none() && !there.uncertain() {
                    return Err(failed(format!("alternative path {} doesn't exist", self.path)).into());
                }
                group.link.clone_from(&self.link);
                let slaves = vec![String::new(); group.slaves.len()];
                group.choices.push(Choice { path: self.path.clone(), priority: self.priority, slaves });
            }
            Goal::Remove if !known => return Ok(None),
            Goal::Remove => group.choices.retain(|choice| choice.path != self.path),
            Goal::Set if !known => return Err(missing().into()),
            Goal::Set if current.as_deref() == Some(&self.path) => return Ok(None),
            Goal::Set => group.manual = true,
            Goal::Auto => group.manual = false,
        }
        // A choice that is not there any more gives way to the best.
        let chosen = match self.goal {
            Goal::Set => Some(self.path.as_str()),
            _ => current.as_deref().filter(|path| group.manual && group.choice(path).is_some()),
        };
        let chosen = chosen.and_then(|path| group.choice(path)).cloned();
        group.manual &= chosen.is_some();
        let choice = chosen.or_else(|| group.best().cloned());
        Ok(Some((group, choice)))
    }

    /// A link, where nothing but a link stands.
    fn link(there: &dyn There, path: &str, target: Option<&str>, wants: &mut Vec<(Key, Attrs)>) -> Result<()> {
        match (kind(&there.get(&key(path))), target) {
            (None | Some("symlink"), Some(target)) => wants.push((key(path), attrs([("kind", "symlink"), ("target", target)]))),
            (Some("symlink"), None) => wants.push((key(path), Attrs::new())),
            (_, None) => {}
            (Some(other), Some(_)) => {
                return Err(failed(format!("{path} is {}, and is not replaced with a link", named(other))).into());
            }
        }
        Ok(())
    }
}

impl Function for Alternative {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        let mut keys: Vec<Key> = RECORDS.iter().map(|directory| key(directory)).collect();
        keys.extend([key(&self.record(there)), key(&format!("{LINKS}/{}", self.name))]);
        if !self.path.is_empty() {
            keys.extend(place::follow_keys(there, &self.path));
        }
        keys.extend((!self.link.is_empty()).then(|| key(&self.link)));
        for (name, link) in
            self.group(there).ok().flatten().into_iter().flat_map(|g| [vec![(self.name.clone(), g.link)], g.slaves].concat())
        {
            keys.extend([key(&format!("{LINKS}/{name}")), key(&link)]);
        }
        Ok(keys)
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        let done = || Want::Nothing(format!("Alternative for {} is as it is to be", self.name));
        let old = self.group(there)?;
        let before = old.as_ref().map(|group| group.link.clone());
        let Some((group, choice)) = self.changed(there, old)? else { return Ok(done()) };
        let mut wants = Vec::new();
        let record = self.record(there);
        if choice.is_some() {
            let hash = there.put(group.record().into_bytes());
            wants.push((key(&record), attrs([("kind", "file"), ("mode", place::NEW_FILE), ("content", &hash.0)])));
        } else {
            wants.push((key(&record), Attrs::new()));
        }
        // A group that has another name from now on.
        if let Some(before) = before.filter(|before| *before != group.link) {
            Alternative::link(there, &before, None, &mut wants)?;
        }
        let ours = (self.name.clone(), group.link.clone(), choice.as_ref().map(|c| c.path.clone()));
        let slaves = group.slaves.iter().enumerate().map(|(at, (name, link))| {
            let path = choice.as_ref().and_then(|c| c.slaves.get(at)).filter(|path| !path.is_empty());
            (name.clone(), link.clone(), path.cloned())
        });
        for (name, link, path) in std::iter::once(ours).chain(slaves) {
            let middle = format!("{LINKS}/{name}");
            Alternative::link(there, &middle, path.as_deref(), &mut wants)?;
            Alternative::link(there, &link, path.as_ref().map(|_| middle.as_str()), &mut wants)?;
        }
        Ok(if differ(there, &wants) { Want::Is(wants) } else { done() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::double::Double;

    const RECORD: &str = "/var/lib/dpkg/alternatives/editor";

    fn host() -> Double {
        let mut host = Double::new();
        host.directory("/var/lib/dpkg/alternatives").directory("/etc/alternatives").directory("/usr/bin");
        for path in ["/usr/bin/vi1", "/usr/bin/vi2", "/usr/bin/nano"] {
            host.file(path, "x");
        }
        host
    }

    fn install(host: &mut Double, path: &str, priority: i64) -> usize {
        let args = format!(r#"{{"name": "editor", "link": "/usr/bin/editor", "path": "{path}", "priority": {priority}}}"#);
        host.apply("alternatives.install", &args).unwrap()
    }

    /// The texts are those that update-alternatives 1.21 wrote.
    #[test]
    fn groups_are_kept_as_update_alternatives_keeps_them() {
        let mut host = host();
        assert_eq!(install(&mut host, "/usr/bin/vi2", 10), 3);
        assert_eq!(host.at(RECORD), "auto\n/usr/bin/editor\n\n/usr/bin/vi2\n10\n\n");
        assert_eq!(
            (host.at("/usr/bin/editor").as_str(), host.at("/etc/alternatives/editor").as_str()),
            ("-> /etc/alternatives/editor", "-> /usr/bin/vi2")
        );
        assert_eq!(install(&mut host, "/usr/bin/vi1", 20), 2);
        assert_eq!(host.at(RECORD), "auto\n/usr/bin/editor\n\n/usr/bin/vi1\n20\n/usr/bin/vi2\n10\n\n");
        assert_eq!(host.at("/etc/alternatives/editor"), "-> /usr/bin/vi1");
        assert_eq!(install(&mut host, "/usr/bin/vi1", 5), 0);
        host.apply("alternatives.set", r#"{"name": "editor", "path": "/usr/bin/vi2"}"#).unwrap();
        assert_eq!((host.at(RECORD).lines().next(), host.at("/etc/alternatives/editor").as_str()), (Some("manual"), "-> /usr/bin/vi2"));
        // A better one does not take the place of a chosen one; removing that makes room.
        install(&mut host, "/usr/bin/nano", 99);
        assert_eq!(host.at("/etc/alternatives/editor"), "-> /usr/bin/vi2");
        host.apply("alternatives.remove", r#"{"name": "editor", "path": "/usr/bin/vi2"}"#).unwrap();
        assert_eq!((host.at(RECORD).lines().next(), host.at("/etc/alternatives/editor").as_str()), (Some("auto"), "-> /usr/bin/nano"));
        host.apply("alternatives.set", r#"{"name": "editor", "path": "/usr/bin/vi1"}"#).unwrap();
        host.apply("alternatives.auto", r#"{"name": "editor"}"#).unwrap();
        assert_eq!(host.at("/etc/alternatives/editor"), "-> /usr/bin/nano");
        for path in ["/usr/bin/nano", "/usr/bin/vi1", "/usr/bin/vi1"] {
            host.apply("alternatives.remove", &format!(r#"{{"name": "editor", "path": "{path}"}}"#)).unwrap();
        }
        assert_eq!(["/usr/bin/editor", "/etc/alternatives/editor", RECORD].map(|path| host.at(path)), ["absent", "absent", "absent"]);
    }

    #[test]
    fn what_goes_along_with_a_choice_follows_it() {
        let mut host = host();
        host.file(
            RECORD,
            "auto\n/usr/bin/editor\neditor.1\n/usr/share/man/editor.1\n\n/usr/bin/vi1\n20\n/usr/share/vi1.1\n/usr/bin/vi2\n10\n\n\n",
        );
        host.link("/usr/bin/editor", "/etc/alternatives/editor").link("/etc/alternatives/editor", "/usr/bin/vi1");
        host.link("/usr/share/man/editor.1", "/etc/alternatives/editor.1").link("/etc/alternatives/editor.1", "/usr/share/vi1.1");
        host.apply("alternatives.set", r#"{"name": "editor", "path": "/usr/bin/vi2"}"#).unwrap();
        assert_eq!((host.at("/usr/share/man/editor.1").as_str(), host.at("/etc/alternatives/editor.1").as_str()), ("absent", "absent"));
        host.apply("alternatives.auto", r#"{"name": "editor"}"#).unwrap();
        assert_eq!(host.at("/etc/alternatives/editor.1"), "-> /usr/share/vi1.1");
    }

    #[test]
    fn what_cannot_be_is_said() {
        let mut host = host();
        host.file("/usr/bin/editor", "a program");
        for (function, args, said) in [
            (
                "install",
                r#"{"name": "editor", "link": "/usr/bin/editor", "path": "/usr/bin/vi1", "priority": 1}"#,
                "/usr/bin/editor is a file, and is not replaced with a link",
            ),
            (
                "install",
                r#"{"name": "e", "link": "/usr/bin/e", "path": "/usr/bin/no", "priority": 1}"#,
                "alternative path /usr/bin/no doesn't exist",
            ),
            (
                "install",
                r#"{"name": "e", "link": "/usr/bin/e", "path": "/usr/bin/no"}"#,
                "alternatives.install needs the argument priority",
            ),
            ("set", r#"{"name": "editor", "path": "/usr/bin/vi1"}"#, "Alternative /usr/bin/vi1 for editor doesn't exist"),
            ("auto", r#"{"name": "../x"}"#, "\"../x\" cannot be the name of a group of alternatives"),
        ] {
            assert_eq!(host.apply(&format!("alternatives.{function}"), args).unwrap_err().summary, said);
        }
    }
}
