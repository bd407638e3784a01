//! user.*: users with their groups, password and home directory, as Salt's `user` states mean them.

use super::args::Args;
use super::{Arg, ArgKind, Entry, Function, There, Want, crypt};
use crate::diagnostic::{Code, Diagnostic, Error, Result};
use crate::plan::{Hash, Key, Kind, Low};
use crate::value::{Attrs, Value, attributes};

const PRESENT: &[Arg] = &[
    Arg::new("name", ArgKind::Str, "", "The user's name."),
    Arg::new("uid", ArgKind::Int, "", "Its number. Default: the next free one."),
    Arg::new("gid", ArgKind::Str, "", "Its primary group, by name or number."),
    Arg::new("usergroup", ArgKind::Bool, "", "Whether a new user gets a group of its own name. Default: as the host's login.defs says."),
    Arg::new("gid_from_name", ArgKind::Bool, "False", "The older way to say that the group of the same name is its primary group."),
    Arg::new("groups", ArgKind::Strs, "", "Groups it is a member of besides; they must be there."),
    Arg::new("optional_groups", ArgKind::Strs, "", "Groups it is a member of where they are there."),
    Arg::new("remove_groups", ArgKind::Bool, "True", "Whether it leaves groups that are not listed, where any are listed."),
    Arg::new("home", ArgKind::Str, "/home/NAME", "Its home directory."),
    Arg::new("createhome", ArgKind::Bool, "True", "Make the home directory where it is not there."),
    Arg::new("password", ArgKind::Str, "", "The password's hash, as /etc/shadow holds it; the password itself with hash_password."),
    Arg::new("hash_password", ArgKind::Bool, "False", "The password is given in clear and is to be hashed (SHA-512)."),
    Arg::new("enforce_password", ArgKind::Bool, "True", "Set the password also where the user has another one."),
    Arg::new("empty_password", ArgKind::Bool, "False", "Allow logging in without a password."),
    Arg::new("password_lock", ArgKind::Bool, "", "Lock or unlock the password."),
    Arg::new("shell", ArgKind::Str, "", "Its login shell."),
    Arg::new("unique", ArgKind::Bool, "True", "False: its number may be another user's too."),
    Arg::new("system", ArgKind::Bool, "False", "A new user gets a number of the system's range."),
    Arg::new("fullname", ArgKind::Str, "", "Its full name."),
    Arg::new("roomnumber", ArgKind::Str, "", "Its room number."),
    Arg::new("workphone", ArgKind::Str, "", "Its work phone number."),
    Arg::new("homephone", ArgKind::Str, "", "Its home phone number."),
    Arg::new("other", ArgKind::Str, "", "Anything else in the comment field."),
    Arg::new("date", ArgKind::Int, "", "When the password was last changed, in days since 1970."),
    Arg::new("mindays", ArgKind::Int, "", "Days before the password may be changed again."),
    Arg::new("maxdays", ArgKind::Int, "", "Days after which the password must be changed."),
    Arg::new("inactdays", ArgKind::Int, "", "Days after that before the account is locked."),
    Arg::new("warndays", ArgKind::Int, "", "Days of warning before the password must be changed."),
    Arg::new("expire", ArgKind::Int, "", "When the account expires, in days since 1970."),
    Arg::new("allow_uid_change", ArgKind::Bool, "False", "Allow changing the number of a user that is there."),
    Arg::new("allow_gid_change", ArgKind::Bool, "False", "Allow changing the primary group of a user that is there."),
    Arg::new("local", ArgKind::Bool, "False", "Accepted: only local users are looked at."),
    Arg::new("nologinit", ArgKind::Bool, "False", "Accepted without effect."),
];

const ABSENT: &[Arg] = &[
    Arg::new("name", ArgKind::Str, "", "The user's name."),
    Arg::new("purge", ArgKind::Bool, "False", "Remove the home directory too; it is kept for the way back."),
    Arg::new("force", ArgKind::Bool, "False", "Accepted; a user whose processes run is refused all the same."),
    Arg::new("local", ArgKind::Bool, "False", "Accepted: only local users are looked at."),
];

pub const FUNCTIONS: &[Entry] = &[
    Entry { name: "user.present", doc: "A user is there, with these properties.", args: PRESENT, watches: false, parse: present },
    Entry { name: "user.absent", doc: "A user is not there.", args: ABSENT, watches: false, parse: absent },
];

/// The name, unless it would break the line that is to hold it or read as an option.
pub(super) fn checked(args: &Args) -> Result<String> {
    let name = args.name();
    if name.is_empty() || name.starts_with(['-', '+']) || name.contains([':', ',', '/', '\n', ' ']) {
        return Err(args.error(format!("{name:?} cannot be a name of a user or group")));
    }
    Ok(name)
}

struct Present {
    name: String,
    uid: Option<i64>,
    /// A number, or the name of a group.
    gid: Option<String>,
    usergroup: Option<bool>,
    groups: Option<Vec<String>>,
    optional_groups: Vec<String>,
    remove_groups: bool,
    home: Option<String>,
    createhome: bool,
    password: Option<String>,
    hash_password: bool,
    enforce_password: bool,
    empty_password: bool,
    password_lock: Option<bool>,
    unique: bool,
    system: bool,
    allow_uid_change: bool,
    allow_gid_change: bool,
    /// What goes into the object as it is: shell, comment fields, ages.
    plain: Attrs,
}

fn present(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let name = checked(&args)?;
    let mut plain = Attrs::new();
    for text in ["shell", "fullname", "roomnumber", "workphone", "homephone", "other"] {
        if let Some(value) = args.str(text)? {
            if value.contains([':', '\n']) || (["fullname", "roomnumber", "workphone"].contains(&text) && value.contains(',')) {
                return Err(args.error(format!("Unsupported char in {text} of user {name}: {value:?}")));
            }
            plain.insert(text.to_owned(), value.into());
        }
    }
    for (arg, attr) in [
        ("date", "lastchanged"),
        ("mindays", "mindays"),
        ("maxdays", "maxdays"),
        ("inactdays", "inactdays"),
        ("warndays", "warndays"),
        ("expire", "expire"),
    ] {
        if let Some(days) = args.int(arg)? {
            plain.insert(attr.to_owned(), Value::Int(days));
        }
    }
    let given = |name: &str| args.value(name).is_some();
    let gid = args.str("gid")?.filter(|g| !g.is_empty());
    let from_name = args.bool("gid_from_name", false)?;
    let password = args.str("password")?.filter(|p| !p.is_empty());
    if password.as_deref().is_some_and(|p| p.contains([':', '\n'])) && !args.bool("hash_password", false)? {
        return Err(args.error("argument password is no hash: it contains ':' or a line break"));
    }
    Ok(Box::new(Present {
        uid: args.int("uid")?,
        gid: gid.or_else(|| from_name.then(|| name.clone())),
        usergroup: if given("usergroup") { Some(args.bool("usergroup", false)?) } else { None },
        groups: if given("groups") { Some(args.strs("groups")?) } else { None },
        optional_groups: args.strs("optional_groups")?,
        remove_groups: args.bool("remove_groups", true)?,
        home: args.str("home")?.filter(|h| !h.is_empty()),
        createhome: args.bool("createhome", true)?,
        password,
        hash_password: args.bool("hash_password", false)?,
        enforce_password: args.bool("enforce_password", true)?,
        empty_password: args.bool("empty_password", false)?,
        password_lock: if given("password_lock") { Some(args.bool("password_lock", false)?) } else { None },
        unique: args.bool("unique", true)?,
        system: args.bool("system", false)?,
        allow_uid_change: args.bool("allow_uid_change", false)?,
        allow_gid_change: args.bool("allow_gid_change", false)?,
        plain,
        name,
    }))
}

/// Files that decide what a new user gets.
const LOGIN_DEFS: &str = "/etc/login.defs";
const MACHINE_ID: &str = "/etc/machine-id";

fn file(path: &str) -> Key {
    Key::new(Kind::File, path)
}

fn group(name: &str) -> Key {
    Key::new(Kind::Group, name)
}

fn text<'a>(attrs: &'a Attrs, name: &str) -> &'a str {
    attrs.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn failed(summary: String) -> Error {
    Diagnostic::new(Code::Failed, summary).into()
}

/// The bytes of a file as it will be; empty where there is none.
fn contents(there: &dyn There, path: &str) -> Result<Vec<u8>> {
    let attrs = there.get(&file(path));
    match attrs.get("content").and_then(Value::as_str) {
        Some(hash) => Ok(there.bytes(&Hash(hash.to_owned()))?.to_vec()),
        None => Ok(Vec::new()),
    }
}

/// Whether the host gives every user a group of its own (`USERGROUPS_ENAB`).
fn user_groups(there: &dyn There) -> Result<bool> {
    let defs = contents(there, LOGIN_DEFS)?;
    let defs = String::from_utf8_lossy(&defs);
    let value = defs.lines().find_map(|line| line.trim().strip_prefix("USERGROUPS_ENAB"));
    Ok(value.is_some_and(|v| v.trim().eq_ignore_ascii_case("yes")))
}

impl Present {
    fn key(&self) -> Key {
        Key::new(Kind::User, &self.name)
    }

    /// The home as it is to be: as asked, else as it is, else where useradd puts it.
    fn home(&self, user: &Attrs) -> String {
        let there = Some(text(user, "home")).filter(|h| !h.is_empty()).map(str::to_owned);
        self.home.clone().or(there).unwrap_or_else(|| format!("/home/{}", self.name))
    }

    /// Its supplementary groups as they are to be; `None`: as they are.
    fn groups(&self, there: &dyn There, user: &Attrs, primary: &str) -> Result<Option<Vec<String>>> {
        let wanted = self.groups.clone().unwrap_or_default();
        let missing: Vec<&str> = wanted.iter().filter(|g| there.get(&group(g)).is_empty()).map(String::as_str).collect();
        if !missing.is_empty() {
            return Err(failed(format!("The following group(s) are not present: {}", missing.join(","))));
        }
        let optional = self.optional_groups.iter().filter(|g| !there.get(&group(g)).is_empty()).cloned();
        let mut all: Vec<String> = wanted.into_iter().chain(optional).filter(|g| g != primary).collect();
        if self.groups.is_none() && self.optional_groups.is_empty() {
            return Ok(None);
        }
        let now: Vec<String> = user.get("groups").and_then(Value::as_list).unwrap_or_default().iter().map(Value::to_text).collect();
        // Groups of the user's own name and its primary group do not count as memberships to leave.
        all.extend(now.into_iter().filter(|g| !self.remove_groups || g == primary || *g == self.name));
        all.sort();
        all.dedup();
        Ok(Some(all))
    }

    /// The field of shadow as it is to be; `None`: as it is.
    fn password(&self, there: &dyn There, user: &Attrs) -> Result<Option<String>> {
        let now = text(user, "password");
        let unset = user.is_empty() || matches!(now, "!" | "!!" | "*" | "!*");
        let mut wanted = match &self.password {
            _ if self.empty_password => Some(String::new()),
            Some(password) if unset || self.enforce_password => Some(if self.hash_password {
                // The salt that is there is taken again, so that the same password gives the same hash.
                let mut parts = now.trim_start_matches('!').split('$').skip(1);
                match (parts.next(), parts.next()) {
                    (Some("6"), Some(salt)) if !salt.starts_with("rounds=") => crypt::sha512(password, salt),
                    _ => crypt::sha512(password, &crypt::salt(&contents(there, MACHINE_ID)?, &self.name)),
                }
            } else {
                password.clone()
            }),
            _ => None,
        };
        let base = wanted.clone().unwrap_or_else(|| now.to_owned());
        match self.password_lock {
            Some(true) if !base.starts_with('!') => wanted = Some(format!("!{base}")),
            Some(false) if base.starts_with('!') && base.len() > 1 => wanted = Some(base.trim_start_matches('!').to_owned()),
            _ => {}
        }
        Ok(wanted)
    }

    fn want_new(&self, there: &dyn There) -> Result<Vec<(Key, Attrs)>> {
        let mut wants = Vec::new();
        let mut user = self.plain.clone();
        user.insert("name".into(), self.name.as_str().into());
        let own = match (&self.gid, self.usergroup) {
            (Some(_), _) | (None, Some(false)) => false,
            (None, Some(true)) => true,
            (None, None) => user_groups(there)?,
        };
        let mut primary = String::new();
        if let Some(gid) = &self.gid {
            match gid.parse::<i64>() {
                Ok(number) => drop(user.insert("gid".into(), Value::Int(number))),
                Err(_) if there.get(&group(gid)).is_empty() => {
                    return Err(failed(format!("Default group with name \"{gid}\" is not present")));
                }
                Err(_) => primary.clone_from(gid),
            }
        } else if own {
            primary.clone_from(&self.name);
            if there.get(&group(&self.name)).is_empty() {
                let mut attrs = attributes([("name".into(), self.name.as_str().into())]);
                if let Some(uid) = self.uid {
                    attrs.insert("gid".into(), Value::Int(uid));
                } else if self.system {
                    attrs.insert("system".into(), Value::Bool(true));
                }
                wants.push((group(&self.name), attrs));
                user.insert("own_group".into(), Value::Bool(true));
            }
        }
        if !primary.is_empty() {
            user.insert("group".into(), primary.as_str().into());
        }
        if let Some(uid) = self.uid {
            user.insert("uid".into(), Value::Int(uid));
            if !self.unique {
                user.insert("unique".into(), Value::Bool(false));
            }
        } else if self.system {
            user.insert("system".into(), Value::Bool(true));
        }
        let home = self.home(&Attrs::new());
        if let Some(groups) = self.groups(there, &Attrs::new(), &primary)? {
            user.insert("groups".into(), groups.into_iter().map(Value::from).collect::<Vec<_>>().into());
        }
        if let Some(password) = self.password(there, &Attrs::new())? {
            user.insert("password".into(), password.into());
        }
        let mut directory = None;
        if self.createhome && there.get(&file(&home)).is_empty() {
            user.insert("home_exists".into(), Value::Bool(true));
            let mut attrs = attributes([("kind".into(), "directory".into()), ("user".into(), self.name.as_str().into())]);
            if !primary.is_empty() {
                attrs.insert("group".into(), primary.as_str().into());
            }
            directory = Some((file(&home), attrs));
        }
        user.insert("home".into(), home.into());
        wants.push((self.key(), user));
        wants.extend(directory);
        Ok(wants)
    }

    fn want_change(&self, there: &dyn There, now: &Attrs) -> Result<Vec<(Key, Attrs)>> {
        let mut user = self.plain.clone();
        user.insert("name".into(), self.name.as_str().into());
        let mut errors = Vec::new();
        if let Some(uid) = self.uid.filter(|uid| now.get("uid") != Some(&Value::Int(*uid)) && now.contains_key("uid")) {
            if !self.allow_uid_change {
                errors.push(format!(
                    "Changing uid ({} -> {uid}) not permitted, set allow_uid_change to True to force this change",
                    now.get("uid").cloned().unwrap_or_default()
                ));
            }
            user.insert("uid".into(), Value::Int(uid));
            if !self.unique {
                user.insert("unique".into(), Value::Bool(false));
            }
        }
        let mut primary = text(now, "group").to_owned();
        let own = self.usergroup == Some(true) && !there.get(&group(&self.name)).is_empty();
        if let Some(gid) = if own { Some(self.name.clone()) } else { self.gid.clone() } {
            let attr: (&str, Value) = gid.parse::<i64>().map_or(("group", Value::from(gid.as_str())), |n| ("gid", Value::Int(n)));
            if attr.0 == "group" && there.get(&group(&gid)).is_empty() {
                return Err(failed(format!("Default group with name \"{gid}\" is not present")));
            }
            if now.get(attr.0).is_some_and(|there| *there != attr.1) {
                if !self.allow_gid_change {
                    errors.push(format!(
                        "Changing gid ({} -> {gid}) not permitted, set allow_gid_change to True to force this change",
                        now.get("gid").cloned().unwrap_or_default()
                    ));
                }
                if attr.0 == "group" {
                    primary = gid;
                }
                user.insert(attr.0.into(), attr.1);
            }
        }
        if !errors.is_empty() {
            return Err(failed(errors.join("; ")));
        }
        if let Some(home) = &self.home {
            user.insert("home".into(), home.as_str().into());
        }
        if let Some(groups) = self.groups(there, now, &primary)? {
            user.insert("groups".into(), groups.into_iter().map(Value::from).collect::<Vec<_>>().into());
        }
        if let Some(password) = self.password(there, now)? {
            user.insert("password".into(), password.into());
        }
        let home = self.home(now);
        let mut wants = vec![(self.key(), user)];
        if self.createhome && home.starts_with('/') && there.get(&file(&home)).is_empty() {
            let attrs = [("kind", "directory"), ("user", &self.name), ("group", &primary), ("mode", "0755")];
            wants.push((file(&home), attributes(attrs.into_iter().map(|(n, v)| (n.to_owned(), Value::from(v))))));
        }
        Ok(wants)
    }
}

impl Function for Present {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        let user = there.get(&self.key());
        let mut keys = vec![self.key(), group(&self.name)];
        keys.extend(self.groups.iter().flatten().chain(&self.optional_groups).map(|g| group(g)));
        keys.extend(self.gid.iter().filter(|g| g.parse::<i64>().is_err()).map(|g| group(g)));
        if self.gid.is_none() && self.usergroup.is_none() {
            keys.push(file(LOGIN_DEFS));
        }
        if self.hash_password {
            keys.push(file(MACHINE_ID));
        }
        if self.createhome {
            keys.push(file(&self.home(&user)));
        }
        Ok(keys)
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        let now = there.get(&self.key());
        let wants = if now.is_empty() { self.want_new(there) } else { self.want_change(there, &now) };
        match wants {
            // An earlier command may make what is missing.
            Err(e) if there.uncertain() && e.code == Code::Failed => {
                Ok(Want::Unknown(format!("known after an earlier command: {}", e.summary)))
            }
            other => other.map(Want::Is),
        }
    }
}

struct Absent {
    name: String,
    purge: bool,
}

fn absent(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    Ok(Box::new(Absent { name: checked(&args)?, purge: args.bool("purge", false)? }))
}

impl Function for Absent {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        let key = Key::new(Kind::User, &self.name);
        let user = there.get(&key);
        let mut keys = vec![key, group(&self.name), file(LOGIN_DEFS)];
        if self.purge && !text(&user, "home").is_empty() {
            keys.push(file(text(&user, "home")));
        }
        Ok(keys)
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        let key = Key::new(Kind::User, &self.name);
        let user = there.get(&key);
        if user.is_empty() {
            return Ok(Want::Is(vec![(key, Attrs::new())]));
        }
        let mut wants = vec![(key, Attrs::new())];
        // As userdel does it: a group that was only this user's goes with it.
        let own = there.get(&group(&self.name));
        let others = own.get("members").and_then(Value::as_list).unwrap_or_default().iter().any(|m| m.as_str() != Some(&self.name));
        if user.get("own_group") == Some(&Value::Bool(true)) && !own.is_empty() && !others && user_groups(there)? {
            wants.push((group(&self.name), Attrs::new()));
        }
        let home = text(&user, "home");
        let directory = there.get(&file(home));
        if self.purge && text(&directory, "kind") == "directory" {
            // As userdel does it: what is not the user's own stays.
            if text(&directory, "user") == self.name && !home.trim_matches('/').is_empty() {
                wants.push((file(home), Attrs::new()));
            }
        }
        Ok(Want::Is(wants))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Host, want};
    use serde_json::json;

    fn host() -> Host {
        let mut host = Host::default();
        host.has("group:sudo", json!({"name": "sudo", "gid": 27, "members": []}));
        host.has("group:alice", json!({"name": "alice", "gid": 1000, "members": []}));
        host.has(
            "user:alice",
            json!({"uid": 1000, "gid": 1000, "group": "alice", "home": "/home/alice", "shell": "/bin/bash", "groups": ["adm"],
                "password": "$6$abc$x", "own_group": true, "fullname": "Al"}),
        );
        host.has("file:/home/alice", json!({"kind": "directory", "user": "alice"}));
        host.file("/etc/login.defs", "# x\nUSERGROUPS_ENAB yes\n");
        host.file("/etc/machine-id", "m1\n");
        host
    }

    #[test]
    fn a_new_user_brings_its_group_and_its_home() {
        let got = want(&host(), "user.present", json!({"name": "bob", "shell": "/bin/sh", "groups": ["sudo"], "password": "x"})).unwrap();
        assert_eq!(
            got,
            json!([
                ["group:bob", {"name": "bob"}],
                ["user:bob", {"name": "bob", "group": "bob", "own_group": true, "groups": ["sudo"], "home": "/home/bob",
                    "home_exists": true, "password": "x", "shell": "/bin/sh"}],
                ["file:/home/bob", {"kind": "directory", "user": "bob", "group": "bob"}],
            ])
        );
        let got =
            want(&host(), "user.present", json!({"name": "svc", "gid": 27, "system": true, "createhome": false, "password_lock": true}));
        assert_eq!(got.unwrap(), json!([["user:svc", {"name": "svc", "gid": 27, "system": true, "home": "/home/svc", "password": "!"}]]));
    }

    #[test]
    fn a_user_that_is_there_keeps_what_is_not_named() {
        let of = |args| want(&host(), "user.present", args);
        assert_eq!(of(json!({"name": "alice"})).unwrap(), json!([["user:alice", {"name": "alice"}]]));
        let groups = |args: serde_json::Value| of(args).unwrap()[0][1]["groups"].clone();
        assert_eq!(groups(json!({"name": "alice", "groups": ["sudo"]})), json!(["sudo"]));
        assert_eq!(groups(json!({"name": "alice", "groups": ["sudo"], "remove_groups": false})), json!(["adm", "sudo"]));
        assert_eq!(groups(json!({"name": "alice", "optional_groups": ["nope", "sudo"]})), json!(["sudo"]));
        assert_eq!(of(json!({"name": "alice", "home": "/srv/a"})).unwrap()[1][0], "file:/srv/a");
        for (args, error) in [
            (
                json!({"name": "alice", "uid": 5}),
                "Changing uid (1000 -> 5) not permitted, set allow_uid_change to True to force this change",
            ),
            (json!({"name": "alice", "groups": ["x", "sudo", "y"]}), "The following group(s) are not present: x,y"),
            (json!({"name": "alice", "gid": "x"}), "Default group with name \"x\" is not present"),
            (json!({"name": "-r"}), "\"-r\" cannot be a name of a user or group"),
        ] {
            assert_eq!(of(args).unwrap_err(), error);
        }
    }

    #[test]
    fn passwords_are_set_locked_and_hashed_as_asked() {
        let password = |args: serde_json::Value| {
            let mut all = json!({"name": "alice"});
            all.as_object_mut().unwrap().extend(args.as_object().unwrap().clone());
            want(&host(), "user.present", all).unwrap()[0][1]["password"].clone()
        };
        assert_eq!(password(json!({"password": "$6$new"})), json!("$6$new"));
        assert_eq!(password(json!({"password": "$6$new", "enforce_password": false})), json!(null));
        assert_eq!(password(json!({"password_lock": true})), json!("!$6$abc$x"));
        assert_eq!(password(json!({"empty_password": true})), json!(""));
        // The salt of the hash that is there is used again.
        let hashed = password(json!({"password": "secret", "hash_password": true}));
        assert!(hashed.as_str().unwrap().starts_with("$6$abc$"), "{hashed}");
    }

    #[test]
    fn a_user_leaves_with_its_own_group_and_its_home_only_when_purged() {
        let keys = |args| {
            let got = want(&host(), "user.absent", args).unwrap();
            got.as_array().unwrap().iter().map(|w| w[0].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(keys(json!({"name": "alice"})), ["user:alice", "group:alice"]);
        assert_eq!(keys(json!({"name": "alice", "purge": true})), ["user:alice", "group:alice", "file:/home/alice"]);
        assert_eq!(keys(json!({"name": "nobody-here"})), ["user:nobody-here"]);
    }

    #[test]
    fn members_are_added_taken_away_or_exactly_those() {
        let mut host = host();
        host.has("group:g", json!({"name": "g", "gid": 5, "members": ["zed", "alice"]}));
        let members = |args| want(&host, "group.present", args).unwrap()[0][1]["members"].clone();
        assert_eq!(members(json!({"name": "g", "members": ["alice", "zed"]})), json!(null));
        assert_eq!(members(json!({"name": "g", "members": ["alice"]})), json!(["alice"]));
        assert_eq!(members(json!({"name": "g", "delusers": ["zed", "who"]})), json!(["alice"]));
        assert_eq!(
            want(&host, "group.present", json!({"name": "g", "addusers": ["who"]})).unwrap_err(),
            "The following user(s) are not present: who"
        );
        assert!(
            want(&host, "group.present", json!({"name": "g", "members": ["alice"], "addusers": ["zed"]}))
                .unwrap_err()
                .starts_with("Error: Conflicting")
        );
    }
}
