//! ssh_auth.*: keys that may log in as a user. Lines are read and written as Salt's ssh module reads and writes them.

use super::args::Args;
use super::base64;
use super::edit::{self, TextFile};
use super::file::place::{self, attrs, failed};
use super::{Arg, ArgKind, Entry, Function, There, Want};
use crate::diagnostic::Result;
use crate::plan::{Hash, Key, Kind, Low};
use crate::value::Value;

const USER: Arg = Arg::new("user", ArgKind::Str, "", "Whose keys they are. Example: deploy");
const ENC: Arg = Arg::new("enc", ArgKind::Str, "ssh-rsa", "The kind of key, where the key itself does not say it.");
const COMMENT: Arg = Arg::new("comment", ArgKind::Str, "", "The comment behind the key, where the key itself has none.");
const SOURCE: Arg = Arg::new("source", ArgKind::Str, "", "A file of the state repository with keys, instead of the name.");
const OPTIONS: Arg = Arg::new("options", ArgKind::Strs, "", "Options before the key. Example: [no-pty, 'from=\"192.0.2.*\"']");
const CONFIG: Arg =
    Arg::new("config", ArgKind::Str, ".ssh/authorized_keys", "The file, relative to the home directory; %u and %h are the user and it.");
const HASH: Arg = Arg::new("fingerprint_hash_type", ArgKind::Str, "sha256", "Accepted without effect: keys are compared whole.");

pub const FUNCTIONS: &[Entry] = &[
    Entry {
        name: "ssh_auth.absent",
        doc: "A key may not log in as a user.",
        args: &[KEY, USER, ENC, COMMENT, SOURCE, OPTIONS, CONFIG, HASH],
        watches: false,
        parse: |low| parse(low, Goal::Absent),
    },
    Entry {
        name: "ssh_auth.manage",
        doc: "These keys may log in as a user, and no others.",
        args: &[
            Arg::new("name", ArgKind::Str, "", "Any name."),
            Arg::new("ssh_keys", ArgKind::Strs, "", "The keys, each as a line of the file."),
            USER,
            ENC,
            COMMENT,
            OPTIONS,
            CONFIG,
            HASH,
        ],
        watches: false,
        parse: |low| parse(low, Goal::Only),
    },
    Entry {
        name: "ssh_auth.present",
        doc: "A key may log in as a user.",
        args: &[KEY, USER, ENC, COMMENT, SOURCE, OPTIONS, CONFIG, HASH],
        watches: false,
        parse: |low| parse(low, Goal::Present),
    },
];

const KEY: Arg =
    Arg::new("name", ArgKind::Str, "", "The key: `[options] kind key [comment]`, or the key alone. Example: ssh-ed25519 AAAA… me@here");

/// Kinds of keys that Salt takes, each with short names.
const KINDS: [(&str, &[&str]); 17] = [
    ("ssh-rsa", &["r", "rsa"]),
    ("ssh-dss", &["d", "dsa", "dss"]),
    ("ecdsa-sha2-nistp256", &["e", "ecdsa"]),
    ("ecdsa-sha2-nistp384", &[]),
    ("ecdsa-sha2-nistp521", &[]),
    ("ssh-ed25519", &["ed25519"]),
    ("rsa-sha2-512", &[]),
    ("rsa-sha2-256", &[]),
    ("rsa-sha2-512-cert-v01@openssh.com", &[]),
    ("rsa-sha2-256-cert-v01@openssh.com", &[]),
    ("ssh-rsa-cert-v01@openssh.com", &[]),
    ("ecdsa-sha2-nistp256-cert-v01@openssh.com", &[]),
    ("ecdsa-sha2-nistp384-cert-v01@openssh.com", &[]),
    ("ecdsa-sha2-nistp521-cert-v01@openssh.com", &[]),
    ("sk-ecdsa-sha2-nistp256@openssh.com", &["sk-ecdsa-sha2-nistp256-cert-v01@openssh.com"]),
    ("ssh-ed25519-cert-v01@openssh.com", &[]),
    ("sk-ssh-ed25519@openssh.com", &["sk-ssh-ed25519-cert-v01@openssh.com"]),
];

#[derive(Clone, Copy, PartialEq)]
enum Goal {
    Present,
    Absent,
    Only,
}

/// A line of the file.
#[derive(Clone, Debug, PartialEq)]
struct Line {
    options: String,
    kind: String,
    key: String,
    comment: String,
}

impl Line {
    fn text(&self) -> String {
        let space = if self.options.is_empty() { "" } else { " " };
        format!("{}{space}{} {} {}\n", self.options, self.kind, self.key, self.comment)
    }
}

struct Keys {
    goal: Goal,
    user: String,
    config: String,
    keys: Vec<Line>,
    /// All words of all keys of ssh_auth.manage: a key that is among them stays.
    words: Vec<String>,
    /// A file of keys instead, and the options that all of them get.
    source: Option<(Hash, String)>,
}

/// Where a kind of key stands in a line with something behind it: what is before it are options.
fn cut(line: &str) -> Option<(&str, &str)> {
    let begins = |rest: &str| {
        let kind = rest.strip_prefix("sk-").unwrap_or(rest);
        let Some(kind) = kind.strip_prefix("ssh-").or_else(|| kind.strip_prefix("ecds")) else { return false };
        let end = kind.find(|c: char| !(c.is_alphanumeric() || "_@.-".contains(c))).unwrap_or(kind.len());
        let (name, behind) = kind.split_at(end);
        !name.is_empty() && behind.chars().count() > 1 && behind.starts_with(char::is_whitespace)
    };
    for (at, _) in line.char_indices() {
        let (before, rest) = line.split_at(at);
        let after_space = rest.strip_prefix(char::is_whitespace);
        if let Some(rest) = after_space.into_iter().chain([rest]).find(|rest| begins(rest)) {
            return Some((before, rest));
        }
    }
    None
}

/// A line of a file of keys; nothing where it has none.
fn line(text: &str) -> Option<Line> {
    let (options, rest) = cut(text.trim()).filter(|_| !text.trim_start().starts_with('#'))?;
    let mut words = rest.split_whitespace();
    let (kind, key) = (words.next()?, words.next()?);
    let comment = words.collect::<Vec<_>>().join(" ");
    valid(key).then(|| Line { options: options.to_owned(), kind: kind.to_owned(), key: key.to_owned(), comment })
}

fn valid(key: &str) -> bool {
    base64::decode(key).is_some_and(|bytes| !bytes.is_empty())
}

/// The white space that cuts a text into at most so many words, as Python's `split` does it.
fn split(text: &str, pieces: usize) -> Vec<&str> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        match rest.find(char::is_whitespace).filter(|_| out.len() + 1 < pieces) {
            Some(at) => {
                let (word, behind) = rest.split_at(at);
                out.push(word);
                rest = behind.trim_start();
            }
            None => {
                out.push(rest);
                break;
            }
        }
    }
    out
}

/// The key that a state names, with what its other arguments say of it.
fn wanted(args: &Args, text: &str) -> Result<Line> {
    let mut options = args.strs("options")?.join(",");
    let mut kind = args.str("enc")?.unwrap_or_else(|| "ssh-rsa".into());
    let mut comment = args.str("comment")?.unwrap_or_default();
    let key;
    match cut(text) {
        None => {
            let words = split(text, 2);
            key = words.first().map(|w| (*w).to_owned()).unwrap_or_default();
            comment = words.get(1).map_or(comment, |c| (*c).to_owned());
        }
        Some((before, rest)) => {
            if !before.is_empty() {
                options = before.to_owned();
            }
            let words = split(rest, 3);
            kind = words.first().map_or(kind, |k| (*k).to_owned());
            key = words.get(1).map(|k| (*k).to_owned()).unwrap_or_default();
            comment = words.get(2).map_or(comment, |c| (*c).to_owned());
        }
    }
    if [&options, &kind, &key, &comment].iter().any(|part| part.contains('\n')) {
        return Err(args.error(format!("a key of {} has one line", args.0.function())));
    }
    Ok(Line { options, kind, key, comment })
}

fn parse(low: &Low, goal: Goal) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let Some(user) = args.str("user")?.filter(|u| !u.is_empty()) else {
        return Err(args.error(format!("{} needs the argument user", low.function())));
    };
    let mut source = None;
    let mut texts = Vec::new();
    if goal == Goal::Only {
        texts = args.strs("ssh_keys")?;
        if !low.args.contains_key("ssh_keys") {
            return Err(args.error("ssh_auth.manage needs the argument ssh_keys"));
        }
    } else if let Some(named) = args.str("source")?.filter(|s| !s.is_empty()) {
        let Some(content) = low.contents.iter().find(|c| c.name == "source") else {
            return Err(
                args.error(format!("the source {named} was not found: it is to be in the state repository (salt://…) or a download"))
            );
        };
        source = Some((content.hash.clone(), args.strs("options")?.join(",")));
    } else {
        texts.push(args.name());
    }
    let mut keys = texts.iter().map(|text| wanted(&args, text)).collect::<Result<Vec<Line>>>()?;
    for key in keys.iter_mut().filter(|_| goal != Goal::Absent) {
        if !valid(&key.key) {
            return Err(args.error(format!("{:?} is no public key: most likely something of it is missing", key.key)));
        }
        key.kind = refined(&args, &key.kind)?;
    }
    let words = texts.iter().flat_map(|text| text.split(' ').map(str::to_owned)).collect();
    Ok(Box::new(Keys { goal, user, config: args.str("config")?.unwrap_or_else(|| ".ssh/authorized_keys".into()), keys, words, source }))
}

/// The kind of a key by its full name.
fn refined(args: &Args, kind: &str) -> Result<String> {
    match KINDS.iter().find(|(name, short)| *name == kind || short.contains(&kind)) {
        Some((_, short)) if kind.starts_with("sk-") && short.contains(&kind) => Ok(kind.to_owned()),
        Some((name, _)) => Ok((*name).to_owned()),
        None => Err(args.error(format!("Incorrect encryption key type '{kind}'"))),
    }
}

/// One key, where it belongs: a line that has it changes in its place, else it comes to the end.
fn put(text: &str, key: &Line) -> String {
    let there: Vec<Line> = text.lines().filter_map(line).filter(|l| l.key == key.key).collect();
    if there.last().is_some_and(|l| l.text() == key.text()) {
        return text.to_owned();
    }
    if there.is_empty() {
        return edit::ended(text) + &key.text();
    }
    let edited = text.lines().map(str::trim).filter(|l| !l.is_empty()).map(|l| match line(l) {
        Some(own) if own.key == key.key => key.text(),
        _ => format!("{l}\n"),
    });
    edited.collect()
}

/// Without this key. Lines that are no keys go too, as in Salt; comments stay.
fn take(text: &str, key: &str) -> String {
    if !text.lines().filter_map(line).any(|l| l.key == key) {
        return text.to_owned();
    }
    let stays = |l: &&str| match l.starts_with('#') {
        true => true,
        false => cut(l).is_some_and(|(_, rest)| rest.split_whitespace().nth(1) != Some(key)),
    };
    text.lines().map(str::trim).filter(|l| !l.is_empty()).filter(stays).map(|l| format!("{l}\n")).collect()
}

impl Keys {
    fn user(&self) -> Key {
        Key::new(Kind::User, &self.user)
    }

    fn home(&self, there: &dyn There) -> String {
        place::normal(there.get(&self.user()).get("home").and_then(Value::as_str).unwrap_or_default())
    }

    /// The file, once the user's home is known.
    fn file(&self, there: &dyn There) -> Result<Option<TextFile>> {
        let user = there.get(&self.user());
        let Some(home) = user.get("home").and_then(Value::as_str) else { return Ok(None) };
        let mut path = String::new();
        let mut chars = self.config.chars();
        while let Some(c) = chars.next() {
            match c {
                '%' => match chars.next() {
                    Some('%') => path.push('%'),
                    Some('u') => path.push_str(&self.user),
                    Some('h') => path.push_str(home),
                    other => {
                        let token = other.map(String::from).unwrap_or_default();
                        return Err(failed(format!("config of ssh_auth: unknown token \"%{token}\""))
                            .hint("%u, %h and %% are known")
                            .into());
                    }
                },
                c => path.push(c),
            }
        }
        let path = place::normal(&if path.starts_with('/') { path } else { place::join(home, &path) });
        let group = ["group", "gid"].iter().find_map(|name| user.get(*name)).map(Value::to_text).unwrap_or_else(|| self.user.clone());
        let owned = |kind: &str, mode: &str| attrs([("kind", kind), ("mode", mode), ("user", &self.user), ("group", &group)]);
        Ok(Some(TextFile { path, made: Some(owned("file", "0600")), above: Some(owned("directory", "0700")) }))
    }

    fn edited(&self, there: &dyn There, text: &str) -> Result<String> {
        let mut keys = self.keys.clone();
        if let Some((hash, options)) = &self.source {
            let bytes = there.bytes(hash)?;
            keys = String::from_utf8_lossy(&bytes).lines().filter_map(line).collect();
            if keys.is_empty() {
                return Err(failed("no keys are in the source").hint("a key is a line `kind key comment`, as in a file .pub").into());
            }
            keys.iter_mut().filter(|_| !options.is_empty()).for_each(|key| key.options.clone_from(options));
        }
        let mut text = text.to_owned();
        if self.goal == Goal::Only {
            let others: Vec<String> = text.lines().filter_map(line).map(|l| l.key).filter(|key| !self.words.contains(key)).collect();
            text = others.iter().fold(text, |text, key| take(&text, key));
        }
        Ok(keys.iter().fold(text, |text, key| if self.goal == Goal::Absent { take(&text, &key.key) } else { put(&text, key) }))
    }
}

impl Function for Keys {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        let mut keys = vec![self.user()];
        if let Some(file) = self.file(there)? {
            keys.extend(file.keys(there)?);
            keys.extend(place::follow_keys(there, &self.home(there)));
        }
        Ok(keys)
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        let Some(file) = self.file(there)? else {
            let summary = format!("user {} is not available", self.user);
            return match self.goal {
                Goal::Absent => Ok(Want::Nothing(summary)),
                _ if there.uncertain() => Ok(Want::Unknown(format!("known after an earlier command: {summary}"))),
                _ => Err(failed(summary).hint(format!("add a user.present for {} and let this state require it", self.user)).into()),
            };
        };
        let home = self.home(there);
        let is_there = place::kind(&there.get(&place::key(&place::follow(there, &home)?))) == Some("directory");
        if !is_there && !there.uncertain() && place::within(&file.path, &home) {
            return match self.goal {
                Goal::Absent => Ok(Want::Nothing(format!("{home} is not there"))),
                _ => Err(failed(format!("the home directory {home} of {} is not there", self.user)).into()),
            };
        }
        file.want(there, |text| self.edited(there, text))
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::double::{Double, low};

    fn host() -> Double {
        let mut host = Double::new();
        host.directory("/home").directory("/home/al").set("user:al", r#"{"uid": 1000, "home": "/home/al", "group": "staff"}"#);
        host
    }

    #[test]
    fn the_file_and_its_directory_are_the_users() {
        let mut host = host();
        assert_eq!(host.apply("ssh_auth.present", r#"{"name": "ssh-ed25519 AAAAC3Nz me@here", "user": "al"}"#).unwrap(), 2);
        let file = "/home/al/.ssh/authorized_keys";
        assert_eq!(host.at(file), "ssh-ed25519 AAAAC3Nz me@here\n");
        assert_eq!([host.attr(file, "mode"), host.attr(file, "user"), host.attr(file, "group")], ["0600", "al", "staff"]);
        assert_eq!(host.at("/home/al/.ssh"), "directory 0700");
        host.apply("ssh_auth.present", r#"{"name": "AAAAB3Nz", "user": "al", "config": "%h/keys/%u"}"#).unwrap();
        assert_eq!(host.at("/home/al/keys/al"), "ssh-rsa AAAAB3Nz \n");
    }

    #[test]
    fn keys_come_from_a_file_and_others_go() {
        let mut host = host();
        let mut state = low("ssh_auth.present", r#"{"name": "x", "user": "al", "source": "salt://keys", "options": ["no-pty"]}"#);
        state.contents.push(host.content("source", "# ours\nssh-rsa AAAAB3Nz a\nssh-ed25519 AAAAC3Nz b c\n", None));
        host.apply_low(&state).unwrap();
        let file = "/home/al/.ssh/authorized_keys";
        assert_eq!(host.at(file), "no-pty ssh-rsa AAAAB3Nz a\nno-pty ssh-ed25519 AAAAC3Nz b c\n");
        host.apply("ssh_auth.manage", r#"{"name": "x", "user": "al", "ssh_keys": ["ssh-ed25519 AAAAC3Nz b", "ssh-rsa AAAAD3Nz"]}"#)
            .unwrap();
        assert_eq!(host.at(file), "ssh-ed25519 AAAAC3Nz b\nssh-rsa AAAAD3Nz \n");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let mut host = host();
        for (args, said) in [
            (r#"{"name": "ssh-rsa AAAA", "user": "no"}"#, "user no is not available"),
            (r#"{"name": "ssh-rsa AA!A", "user": "al"}"#, "\"AA!A\" is no public key: most likely something of it is missing"),
            (r#"{"name": "AAAA", "enc": "x", "user": "al"}"#, "Incorrect encryption key type 'x'"),
            (r#"{"name": "AAAA"}"#, "ssh_auth.present needs the argument user"),
            (r#"{"name": "AAAA", "user": "al", "config": "%z"}"#, "config of ssh_auth: unknown token \"%z\""),
        ] {
            assert_eq!(host.apply("ssh_auth.present", args).unwrap_err().summary, said);
        }
        assert_eq!(host.apply("ssh_auth.absent", r#"{"name": "ssh-rsa AAAA", "user": "no"}"#).unwrap(), 0);
    }
}
