//! The shell commands that conditions mostly are (`test -f X`, `which X`, `id X`, `grep -q X FILE`, and `&& || !` between them),
//! understood and answered from the projection, without running anything.

use super::condition::Truth;
use super::projection::{Look, Projection};
use crate::diagnostic::{Code, Result};
use crate::object::packages::manager;
use crate::plan::{Hash, Key, Kind};
use crate::system::{Command, FileKind};
use crate::value::Value;

/// Where programs are looked for.
const PATH: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// What `line` would say; `None` where it is more than probes. `plain`: neither chroot nor environment of its own.
pub fn answer(projection: &Projection, line: &str, command: &Command, plain: bool) -> Result<Option<Truth>> {
    let Some(list) = plain.then(|| parse(line)).flatten() else { return Ok(None) };
    let mut result = Truth::Yes;
    for (operator, pipeline) in list {
        let Some(truth) = one(projection, &pipeline, command)? else { return Ok(None) };
        result = match operator {
            Operator::And => both(result, truth),
            Operator::Or => not(both(not(result), not(truth))),
        };
    }
    Ok(Some(result))
}

/// Whether something stands at a path, links followed.
pub fn exists(projection: &Projection, path: &str) -> Result<Truth> {
    Ok(test_file(projection, "-e", path)?.unwrap_or(Truth::No))
}

/// `test FLAG PATH`; `None` where it is no absolute path or no such test.
pub fn test_file(projection: &Projection, flag: &str, path: &str) -> Result<Option<Truth>> {
    if !path.starts_with('/') {
        return Ok(None);
    }
    let link = matches!(flag, "-h" | "-L");
    let look = match look(projection, path, !link)? {
        Ok(look) => look,
        Err(undecided) => return Ok(Some(undecided)),
    };
    let holds = |check: fn(&Look) -> bool| Ok(Some(look.as_ref().is_some_and(check).into()));
    match flag {
        "-e" | "-a" => holds(|_| true),
        "-f" => holds(|l| l.kind == FileKind::File),
        "-d" => holds(|l| l.kind == FileKind::Directory),
        "-h" | "-L" => holds(|l| l.kind == FileKind::Symlink),
        "-s" => holds(|l| !l.empty),
        "-x" => holds(|l| l.kind == FileKind::Directory || l.mode & 0o111 != 0),
        "-r" | "-w" => holds(|_| true),
        _ => Ok(None),
    }
}

/// Whether an object is there.
pub fn there(projection: &Projection, kind: Kind, name: &str) -> Result<Truth> {
    let key = Key::new(kind, name);
    Ok(match projection.undecided(&key) {
        Some(low) => Truth::After(vec![low]),
        None => (!projection.now(&key)?.is_empty() || projection.elsewhere(&key)).into(),
    })
}

/// Whether this manager of packages knows one: installed, or (dpkg) removed with its configuration left.
fn package(projection: &Projection, manager: &str, name: &str) -> Result<Truth> {
    let key = Key::new(Kind::Packages, manager);
    Ok(match projection.undecided(&key) {
        Some(low) => Truth::After(vec![low]),
        None => projection.now(&key)?.contains_key(name).into(),
    })
}

/// Whether rpm has a package of this name. Where it asks for more than a name, or another manager than dnf is over it, rpm itself is asked.
fn rpm(projection: &Projection, name: &str) -> Result<Option<Truth>> {
    let key = manager::key(projection.sys);
    if key.name != "dnf" {
        return Ok(None);
    }
    let truth = package(projection, "dnf", name)?;
    Ok(matches!(truth, Truth::Yes | Truth::After(_)).then_some(truth))
}

/// Whether a unit has one of these attributes.
fn unit(projection: &Projection, name: &str, attributes: &[&str]) -> Result<Truth> {
    let name = if name.contains('.') { name.to_owned() } else { format!("{name}.service") };
    let key = Key::new(Kind::Service, name);
    Ok(match projection.undecided(&key) {
        Some(low) => Truth::After(vec![low]),
        None => {
            let attrs = projection.now(&key)?;
            attributes.iter().any(|name| attrs.get(*name).is_some_and(Value::truthy)).into()
        }
    })
}

/// What a path leads to; the error is what is to be said where that is not decided yet.
fn look(projection: &Projection, path: &str, follow: bool) -> Result<std::result::Result<Option<Look>, Truth>> {
    let mut path = path.to_owned();
    for _ in 0..40 {
        path = projection.place(&path);
        if let Some(low) = projection.undecided(&Key::new(Kind::File, path.clone())) {
            return Ok(Err(Truth::After(vec![low])));
        }
        let look = projection.look(&path)?;
        if !follow || !look.as_ref().is_some_and(|l| l.kind == FileKind::Symlink) {
            return Ok(Ok(look));
        }
        let Some(target) = projection.link(&path)? else { return Ok(Ok(None)) };
        path = match target.starts_with('/') {
            true => target,
            false => format!("{}/{target}", path.rsplit_once('/').map_or("", |(parent, _)| parent)),
        };
    }
    Ok(Ok(None))
}

fn both(a: Truth, b: Truth) -> Truth {
    match (a, b) {
        (Truth::No, _) | (_, Truth::No) => Truth::No,
        (Truth::Yes, other) => other,
        (open, _) => open,
    }
}

fn not(truth: Truth) -> Truth {
    match truth {
        Truth::Yes => Truth::No,
        Truth::No => Truth::Yes,
        open => open,
    }
}

/// One command with its leading `!`s.
fn one(projection: &Projection, words: &[String], command: &Command) -> Result<Option<Truth>> {
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut inverted = false;
    while words.first() == Some(&"!") {
        words.remove(0);
        inverted = !inverted;
    }
    let truth = simple(projection, &words, command)?;
    Ok(truth.map(|truth| if inverted { not(truth) } else { truth }))
}

fn simple(projection: &Projection, words: &[&str], command: &Command) -> Result<Option<Truth>> {
    let Some((program, args)) = words.split_first() else { return Ok(None) };
    let program = ["/usr/bin/", "/bin/", "/usr/sbin/", "/sbin/"].iter().find_map(|dir| program.strip_prefix(dir)).unwrap_or(program);
    match (program, args) {
        ("true" | ":", []) => Ok(Some(Truth::Yes)),
        ("false", []) => Ok(Some(Truth::No)),
        ("test", args) => test(projection, args, command),
        ("[", [args @ .., "]"]) => test(projection, args, command),
        ("command", ["-v", name]) | ("which" | "type" | "hash", [name]) => program_there(projection, name),
        ("id", [name] | ["-u" | "-g" | "-un" | "-gn" | "-G" | "-nG" | "-Gn", name]) if !name.starts_with('-') => {
            there(projection, Kind::User, name).map(Some)
        }
        ("getent", ["passwd", name]) if !number(name) => there(projection, Kind::User, name).map(Some),
        ("getent", ["group", name]) if !number(name) => there(projection, Kind::Group, name).map(Some),
        ("systemctl", ["is-active", name] | ["is-active", "-q" | "--quiet", name]) => unit(projection, name, &["active"]).map(Some),
        ("systemctl", ["is-enabled", name] | ["is-enabled", "-q" | "--quiet", name]) => {
            unit(projection, name, &["enabled", "static"]).map(Some)
        }
        ("dpkg", ["-s" | "--status", name]) | ("dpkg-query", ["-W" | "-s" | "--show" | "--status", name]) if !name.contains(['*', '?']) => {
            package(projection, "apt", name).map(Some)
        }
        ("rpm", ["-q" | "--query", name]) if !name.starts_with('-') => rpm(projection, name),
        ("grep" | "egrep" | "fgrep", args) => grep(projection, program, args, command),
        _ => Ok(None),
    }
}

fn number(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_digit())
}

/// A path as the command would read it.
fn absolute(path: &str, command: &Command) -> Option<String> {
    match (path.starts_with('/'), &command.cwd) {
        (true, _) => Some(path.to_owned()),
        (false, Some(cwd)) if !path.is_empty() => Some(format!("{}/{path}", cwd.trim_end_matches('/'))),
        _ => None,
    }
}

fn test(projection: &Projection, args: &[&str], command: &Command) -> Result<Option<Truth>> {
    match args {
        [] => Ok(Some(Truth::No)),
        ["!", rest @ ..] if !rest.is_empty() => Ok(test(projection, rest, command)?.map(not)),
        ["-n", text] | [text] if !text.starts_with('-') || args.len() == 2 => Ok(Some((!text.is_empty()).into())),
        ["-z", text] => Ok(Some(text.is_empty().into())),
        // What another user may do is for that user to say.
        ["-r" | "-w" | "-x", _] if command.user.as_deref().is_some_and(|user| user != "root") => Ok(None),
        [flag, path] => match absolute(path, command) {
            Some(path) => test_file(projection, flag, &path),
            None => Ok(None),
        },
        [a, "=" | "==", b] => Ok(Some((a == b).into())),
        [a, "!=", b] => Ok(Some((a != b).into())),
        _ => Ok(None),
    }
}

fn program_there(projection: &Projection, name: &str) -> Result<Option<Truth>> {
    if name.starts_with('-') {
        return Ok(None);
    }
    if name.contains('/') {
        return test_file(projection, "-x", name);
    }
    // What the shell has built in is a matter of the shell.
    if ["cd", "echo", "test", "[", "true", "false", "type", "command", "read", "kill", "pwd", "printf", "ulimit", "umask"].contains(&name) {
        return Ok(None);
    }
    let mut result = Truth::No;
    for dir in PATH {
        let path = format!("{dir}/{name}");
        let program = |l: &Look| l.kind == FileKind::File && l.mode & 0o111 != 0;
        match look(projection, &path, true)? {
            Ok(look) if look.as_ref().is_some_and(program) => return Ok(Some(Truth::Yes)),
            Ok(_) => {}
            Err(undecided) => result = undecided,
        }
    }
    Ok(Some(result))
}

/// `grep -q PATTERN FILE`, with `-F`, `-x`, `-i`, `-E`, `-s`, `-w` no more than that.
fn grep(projection: &Projection, program: &str, args: &[&str], command: &Command) -> Result<Option<Truth>> {
    let mut flags = String::new();
    let mut words = Vec::new();
    let mut only_words = false;
    for arg in args {
        match arg.strip_prefix('-').filter(|f| !only_words && !f.is_empty()) {
            Some("-") => only_words = true,
            Some("e") if words.is_empty() => {}
            Some("-quiet" | "-silent") => flags.push('q'),
            Some("-fixed-strings") => flags.push('F'),
            Some("-line-regexp") => flags.push('x'),
            Some("-extended-regexp") => flags.push('E'),
            Some("-ignore-case") => flags.push('i'),
            Some("-no-messages") => flags.push('s'),
            Some(short) if short.bytes().all(|b| b"qFxEis".contains(&b)) => flags.push_str(short),
            Some(_) => return Ok(None),
            None => words.push(*arg),
        }
    }
    let [pattern, path] = words[..] else { return Ok(None) };
    let has = |flag: char| flags.contains(flag);
    let kind = match () {
        _ if has('F') || program == "fgrep" => Pattern::Fixed,
        _ if has('E') || program == "egrep" => Pattern::Extended,
        _ => Pattern::Basic,
    };
    let Some(regex) = regex(pattern, kind, has('x'), has('i')) else { return Ok(None) };
    // What the kernel says there changes by itself.
    let Some(path) = absolute(path, command).filter(|path| !path.starts_with("/proc/") && !path.starts_with("/sys/")) else {
        return Ok(None);
    };
    let path = projection.place(&path);
    let text = match look(projection, &path, true)? {
        Err(undecided) => return Ok(Some(undecided)),
        Ok(None) => return Ok(Some(Truth::No)),
        Ok(Some(look)) if look.kind != FileKind::File => return Ok(None),
        Ok(Some(_)) => match text(projection, &path)? {
            Some(text) => text,
            None => return Ok(None),
        },
    };
    let found = text.lines().any(|line| regex.is_match(line).unwrap_or(false));
    Ok(Some(found.into()))
}

/// What will be in a file, where it is text.
fn text(projection: &Projection, path: &str) -> Result<Option<String>> {
    let attrs = projection.now(&Key::new(Kind::File, path))?;
    let Some(hash) = attrs.get("content").and_then(Value::as_str) else { return Ok(None) };
    match projection.bytes(&Hash(hash.to_owned())) {
        Ok(bytes) => Ok(String::from_utf8(bytes.to_vec()).ok()),
        // Noted as missing: this pass is planned again once it is there.
        Err(e) if e.code == Code::HostNeeded => Ok(Some(String::new())),
        Err(e) => Err(e),
    }
}

enum Pattern {
    Fixed,
    Basic,
    Extended,
}

/// The pattern in our regular expressions; `None` where it uses what they read differently.
fn regex(pattern: &str, kind: Pattern, whole: bool, any_case: bool) -> Option<fancy_regex::Regex> {
    let plain = |c: char| c.is_alphanumeric() || " _-/:,=@%\"'<>~#;!&.^$*".contains(c);
    let body = match kind {
        Pattern::Fixed => fancy_regex::escape(pattern).into_owned(),
        Pattern::Basic if pattern.chars().all(|c| plain(c) || "+?(){}|".contains(c)) && !pattern.starts_with('*') => {
            pattern.chars().fold(String::new(), |mut out, c| {
                if "+?(){}|".contains(c) {
                    out.push('\\');
                }
                out.push(c);
                out
            })
        }
        Pattern::Extended if pattern.chars().all(|c| plain(c) || "+?()|".contains(c)) => pattern.to_owned(),
        _ => return None,
    };
    let body = if whole { format!("^(?:{body})$") } else { body };
    fancy_regex::Regex::new(&if any_case { format!("(?i){body}") } else { body }).ok()
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    And,
    Or,
}

/// Simple commands with `&&` and `||` between them; redirections to nowhere are left out. `None` for any other shell.
fn parse(line: &str) -> Option<Vec<(Operator, Vec<String>)>> {
    let mut list = Vec::new();
    let mut operator = Operator::And;
    let mut words: Vec<String> = Vec::new();
    let mut chars = line.trim().chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' => {}
            '&' if chars.peek() == Some(&'&') => {
                chars.next();
                list.push((operator, non_empty(&mut words)?));
                operator = Operator::And;
            }
            '|' if chars.peek() == Some(&'|') => {
                chars.next();
                list.push((operator, non_empty(&mut words)?));
                operator = Operator::Or;
            }
            '&' if chars.next() == Some('>') => nowhere(&mut chars)?,
            '>' => nowhere(&mut chars)?,
            '1' | '2' if chars.peek() == Some(&'>') => {
                chars.next();
                nowhere(&mut chars)?;
            }
            '&' | '|' => return None,
            first => words.push(word(first, &mut chars)?),
        }
    }
    list.push((operator, non_empty(&mut words)?));
    Some(list)
}

fn non_empty(words: &mut Vec<String>) -> Option<Vec<String>> {
    let words = std::mem::take(words);
    (!words.is_empty()).then_some(words)
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// Behind `>`: only `/dev/null` and another stream are nowhere.
fn nowhere(chars: &mut Chars) -> Option<()> {
    while chars.next_if(|c| *c == ' ').is_some() {}
    let mut target = String::new();
    while let Some(c) = chars.next_if(|c| !" \t|".contains(*c) && (*c != '&' || target.is_empty())) {
        target.push(c);
    }
    ["/dev/null", "&1", "&2"].contains(&target.as_str()).then_some(())
}

/// A word, its quotes taken off; `None` where the shell would expand it.
fn word(first: char, chars: &mut Chars) -> Option<String> {
    let mut out = String::new();
    let (mut next, mut bracket) = (Some(first), false);
    while let Some(c) = next {
        match c {
            '\'' => loop {
                match chars.next()? {
                    '\'' => break,
                    c => out.push(c),
                }
            },
            '"' => loop {
                match chars.next()? {
                    '"' => break,
                    '$' | '`' | '\\' | '!' => return None,
                    c => out.push(c),
                }
            },
            '$' | '`' | '\\' | '*' | '?' | '(' | ')' | '{' | '}' | ';' | '<' | '\n' => return None,
            '~' | '#' if out.is_empty() => return None,
            c => {
                bracket |= c == '[' || c == ']';
                out.push(c);
            }
        }
        next = chars.next_if(|c| !" \t&|>".contains(*c));
    }
    // A bracket in a bare word is a pattern, alone it is `test`.
    (!bracket || out == "[" || out == "]").then_some(out)
}
