//! What the file functions have in common: paths as keys, links followed, parents that are to be made, owners.
//!
//! Every `…_keys` here names what its partner looks at, so that `objects` and `want` of a function stay side by side.

use crate::diagnostic::{Code, Diagnostic, Error, Result};
use crate::function::There;
use crate::function::args::Args;
use crate::plan::{Key, Kind};
use crate::value::{Attrs, Value, attributes};

/// New files and directories get what a umask of 022 leaves, as Salt's do; the agent's own umask is stricter.
pub const NEW_FILE: &str = "0644";
pub const NEW_DIRECTORY: &str = "0755";

/// Links at the end of a path are followed this often, as the kernel does.
const LINKS: usize = 40;

pub fn key(path: &str) -> Key {
    Key::new(Kind::File, path)
}

/// A state that fails, and why.
pub fn failed(summary: impl Into<String>) -> Diagnostic {
    Diagnostic::new(Code::Failed, summary)
}

/// The path that a state's `name` (or another argument) says: absolute, without `//`, `.`, `..` and a final slash.
pub fn absolute(args: &Args, what: &str, path: &str) -> Result<String> {
    if path.starts_with('/') {
        return Ok(normal(path));
    }
    let function = args.0.function();
    let summary =
        if path.is_empty() { format!("{function} needs {what}") } else { format!("{what} of {function} is no absolute path: {path}") };
    let hint = match path.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("write the home directory out: /root{rest}"),
        _ => format!("give {what} as a path that starts with /"),
    };
    Err(Diagnostic::new(Code::Compile, summary).hint(hint).into())
}

/// The path of the state itself.
pub fn name(args: &Args) -> Result<String> {
    absolute(args, "name", &args.name())
}

/// Without empty parts, `.` and `..`.
pub fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The directory a path is in; that of `/` is `/`.
pub fn parent(path: &str) -> &str {
    match path.rfind('/') {
        None | Some(0) => "/",
        Some(at) => path.get(..at).unwrap_or("/"),
    }
}

/// The last part of a path.
pub fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

pub fn join(directory: &str, name: &str) -> String {
    if directory == "/" { format!("/{name}") } else { format!("{directory}/{name}") }
}

/// Whether `path` is `directory` or lies below it.
pub fn within(path: &str, directory: &str) -> bool {
    directory == "/" || path == directory || path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

/// What is at a path: `file`, `directory`, `symlink`, `other`; nothing where it is absent.
pub fn kind(attrs: &Attrs) -> Option<&str> {
    attrs.get("kind").and_then(Value::as_str)
}

pub fn text<'a>(attrs: &'a Attrs, name: &str) -> Option<&'a str> {
    attrs.get(name).and_then(Value::as_str)
}

/// A kind in the words of a comment.
pub fn named(kind: &str) -> &'static str {
    match kind {
        "file" => "a file",
        "directory" => "a directory",
        "symlink" => "a symbolic link",
        _ => "a device, pipe or socket",
    }
}

/// Attributes by name.
pub fn attrs<const N: usize>(pairs: [(&str, &str); N]) -> Attrs {
    attributes(pairs.into_iter().map(|(name, value)| (name.to_owned(), Value::str(value))))
}

/// Where a path ends when the links at its end are followed.
pub fn follow(there: &dyn There, path: &str) -> Result<String> {
    let mut here = path.to_owned();
    for _ in 0..LINKS {
        match text(&there.get(&key(&here)), "target") {
            Some(target) => here = target_path(&here, target),
            None => return Ok(here),
        }
    }
    Err(failed(format!("{path} is a link that leads back to itself"))
        .hint("mend or remove the links, or set `follow_symlinks: False`")
        .into())
}

/// The path itself and what the links at its end lead to.
pub fn follow_keys(there: &dyn There, path: &str) -> Vec<Key> {
    let mut keys = vec![key(path)];
    let mut here = path.to_owned();
    while keys.len() < LINKS {
        match text(&there.get(&key(&here)), "target") {
            Some(target) => here = target_path(&here, target),
            None => break,
        }
        keys.push(key(&here));
    }
    keys
}

/// Where a link leads, as a path.
pub fn target_path(link: &str, target: &str) -> String {
    normal(&if target.starts_with('/') { target.to_owned() } else { join(parent(link), target) })
}

/// The parent of a path; those above it too, as far as they are missing and would be made.
pub fn parent_keys(there: &dyn There, path: &str, make: bool) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut here = parent(path);
    loop {
        keys.extend(follow_keys(there, here));
        if !make || here == "/" || kind(&there.get(&key(here))).is_some() {
            return keys;
        }
        here = parent(here);
    }
}

/// The directories above a path that are to be made with these attributes, topmost first. `None`: they must be there.
pub fn parents(there: &dyn There, path: &str, make: Option<&Attrs>) -> Result<Vec<(Key, Attrs)>> {
    let mut missing = Vec::new();
    let mut here = parent(path);
    loop {
        let end = follow(there, here)?;
        match kind(&there.get(&key(&end))) {
            Some("directory") => break,
            Some(other) => {
                return Err(failed(format!("{here} is {}, not a directory", named(other)))
                    .hint("nothing can be in it: remove or rename it first")
                    .into());
            }
            // A dangling link: the directory it leads to cannot be guessed at.
            None if end != here && make.is_some() => {
                return Err(failed(format!("{here} is a link to {end}, which is not there"))
                    .hint(format!("make {end} a directory first"))
                    .into());
            }
            None => match make {
                Some(attrs) => missing.push((key(here), attrs.clone())),
                // Some earlier step may bring it (a package); if it does not, writing will fail and say so.
                None if there.uncertain() => break,
                None => {
                    let hint = format!("add `makedirs: True`, or a file.directory for {here} before it");
                    return Err(failed(format!("the directory {here} is not there")).hint(hint).into());
                }
            },
        }
        if here == "/" {
            break;
        }
        here = parent(here);
    }
    missing.reverse();
    Ok(missing)
}

/// The mode of directories that are made for a file of this mode: who may read the file may enter them. Salt's rule.
pub fn mode_of_parents(mode: &str) -> String {
    let last = mode.len().saturating_sub(3);
    let digits =
        mode.chars().skip(last).map(|c| c.to_digit(8).map_or(c, |d| char::from_digit(if d == 0 { 0 } else { d | 1 }, 8).unwrap_or(c)));
    format!("{:0>4}", digits.collect::<String>())
}

/// `user` and `group` of a state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Owner {
    pub user: Option<String>,
    pub group: Option<String>,
}

impl Owner {
    /// `owner` is accepted for `user`, as Salt accepts it.
    pub fn parse(args: &Args) -> Result<Owner> {
        let given = |name: &str| Ok::<_, Error>(args.str(name)?.filter(|s| !s.is_empty()));
        Ok(Owner { user: given("user")?.or(given("owner")?), group: given("group")? })
    }

    /// The accounts it names. `now`: who owns the file, so that a number is known for the name it has.
    pub fn keys(&self, now: &Attrs) -> Vec<Key> {
        let mut keys = Vec::new();
        for (wanted, kind, attribute) in [(&self.user, Kind::User, "user"), (&self.group, Kind::Group, "group")] {
            match wanted {
                Some(number) if is_number(number) => keys.extend(text(now, attribute).map(|n| Key::new(kind, n))),
                Some(name) => keys.push(Key::new(kind, name)),
                None => {}
            }
        }
        keys
    }

    /// An account that is neither there nor planned is an error, unless some step before may still bring it.
    pub fn check(&self, there: &dyn There) -> Result<()> {
        for (wanted, kind) in [(&self.user, Kind::User), (&self.group, Kind::Group)] {
            let Some(name) = wanted.as_ref().filter(|n| !is_number(n)) else { continue };
            if there.get(&Key::new(kind, name)).is_empty() && !there.uncertain() {
                let kind = kind.name();
                let hint = format!("add a {kind}.present for {name} and let this state require it");
                return Err(failed(format!("{kind} {name} is not available")).hint(hint).into());
            }
        }
        Ok(())
    }

    /// Adds what is wanted of owners to `wanted`. A number that is the present owner's stays unsaid: files know their owners by name.
    pub fn add(&self, there: &dyn There, now: &Attrs, wanted: &mut Attrs) {
        for (owner, kind, attribute, id) in [(&self.user, Kind::User, "user", "uid"), (&self.group, Kind::Group, "group", "gid")] {
            let Some(owner) = owner else { continue };
            let same_number = is_number(owner)
                && text(now, attribute).is_some_and(|n| there.get(&Key::new(kind, n)).get(id).is_some_and(|v| v.to_text() == *owner));
            if !same_number {
                wanted.insert(attribute.into(), Value::str(owner));
            }
        }
    }

    /// The attributes of directories that are made on the way, with this mode.
    pub fn directory(&self, mode: &str) -> Attrs {
        let mut wanted = attrs([("kind", "directory"), ("mode", mode)]);
        for (name, owner) in [("user", &self.user), ("group", &self.group)] {
            if let Some(owner) = owner {
                wanted.insert(name.into(), Value::str(owner));
            }
        }
        wanted
    }
}

fn is_number(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_digit())
}

/// Everything below a directory, parents first, down to `depth` levels; links are not entered.
pub fn walk(there: &dyn There, directory: &str, depth: Option<usize>) -> Result<Vec<(String, Attrs)>> {
    let mut found = Vec::new();
    let mut pending = vec![(directory.to_owned(), 0)];
    while let Some((here, level)) = pending.pop() {
        if depth.is_some_and(|depth| level >= depth) {
            continue;
        }
        for (name, attrs) in there.list(&here)? {
            let path = join(&here, &name);
            if kind(&attrs) == Some("directory") {
                pending.push((path.clone(), level + 1));
            }
            found.push((path, attrs));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_plain() {
        for (path, plain) in [("/", "/"), ("//a/./b/../c/", "/a/c"), ("/../x", "/x")] {
            assert_eq!(normal(path), plain);
        }
        assert_eq!((parent("/a"), parent("/a/b"), parent("/"), base("/a/b")), ("/", "/a", "/", "b"));
        assert_eq!(target_path("/a/b", "../c"), "/c");
        assert!(within("/a/b", "/a") && !within("/ab", "/a"));
    }

    #[test]
    fn who_may_read_a_file_may_enter_the_directories_made_for_it() {
        for (file, directory) in [("0644", "0755"), ("0600", "0700"), ("0640", "0750"), ("4755", "0755"), ("0444", "0555")] {
            assert_eq!(mode_of_parents(file), directory);
        }
    }
}
