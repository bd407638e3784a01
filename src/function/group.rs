//! group.*: groups and their members, as Salt's `group` states mean them.

use super::args::Args;
use super::{Arg, ArgKind, Entry, Function, There, Want};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::plan::{Key, Kind, Low};
use crate::value::{Attrs, Value, attributes};

const PRESENT: &[Arg] = &[
    Arg::new("name", ArgKind::Str, "", "The group's name."),
    Arg::new("gid", ArgKind::Int, "", "Its number. Default: the next free one."),
    Arg::new("system", ArgKind::Bool, "False", "A new group gets a number of the system's range."),
    Arg::new("addusers", ArgKind::Strs, "", "Users that are members; others may be too."),
    Arg::new("delusers", ArgKind::Strs, "", "Users that are no members."),
    Arg::new("members", ArgKind::Strs, "", "Users that are the members, and no others."),
    Arg::new("non_unique", ArgKind::Bool, "False", "Its number may be another group's too."),
    Arg::new("local", ArgKind::Bool, "False", "Accepted: only local groups are looked at."),
];

const ABSENT: &[Arg] = &[
    Arg::new("name", ArgKind::Str, "", "The group's name."),
    Arg::new("local", ArgKind::Bool, "False", "Accepted: only local groups are looked at."),
];

pub const FUNCTIONS: &[Entry] = &[
    Entry { name: "group.present", doc: "A group is there, with these members.", args: PRESENT, watches: false, parse: present },
    Entry { name: "group.absent", doc: "A group is not there.", args: ABSENT, watches: false, parse: absent },
];

struct Present {
    name: String,
    gid: Option<i64>,
    system: bool,
    add: Vec<String>,
    remove: Vec<String>,
    members: Option<Vec<String>>,
    non_unique: bool,
}

fn present(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let (add, remove) = (args.strs("addusers")?, args.strs("delusers")?);
    let members = if args.value("members").is_some() { Some(args.strs("members")?) } else { None };
    if members.is_some() && !(add.is_empty() && remove.is_empty()) {
        return Err(args.error("Error: Conflicting options \"members\" with \"addusers/delusers\" can not be used together"));
    }
    if let Some(both) = add.iter().find(|user| remove.contains(user)) {
        return Err(args.error(format!("Error. Same user(s) can not be added and deleted simultaneously: {both}")));
    }
    Ok(Box::new(Present {
        name: super::user::checked(&args)?,
        gid: args.int("gid")?,
        system: args.bool("system", false)?,
        add,
        remove,
        members,
        non_unique: args.bool("non_unique", false)?,
    }))
}

fn user(name: &str) -> Key {
    Key::new(Kind::User, name)
}

impl Function for Present {
    fn objects(&self, _: &dyn There) -> Result<Vec<Key>> {
        let users = self.add.iter().chain(self.members.iter().flatten());
        Ok(std::iter::once(Key::new(Kind::Group, &self.name)).chain(users.map(|u| user(u))).collect())
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        let key = Key::new(Kind::Group, &self.name);
        let now = there.get(&key);
        let mut attrs = attributes([("name".into(), self.name.as_str().into())]);
        if let Some(gid) = self.gid {
            attrs.insert("gid".into(), Value::Int(gid));
            if self.non_unique && now.get("gid") != Some(&Value::Int(gid)) {
                attrs.insert("unique".into(), Value::Bool(false));
            }
        } else if now.is_empty() && self.system {
            attrs.insert("system".into(), Value::Bool(true));
        }
        let there_now: Vec<String> = now.get("members").and_then(Value::as_list).unwrap_or_default().iter().map(Value::to_text).collect();
        let mut members: Vec<String> = match &self.members {
            // Who stays keeps its place.
            Some(members) => there_now.iter().filter(|m| members.contains(m)).cloned().collect(),
            None => there_now.iter().filter(|m| !self.remove.contains(m)).cloned().collect(),
        };
        for name in self.members.iter().flatten().chain(&self.add) {
            if !members.contains(name) {
                members.push(name.clone());
            }
        }
        let missing: Vec<&str> =
            members.iter().filter(|m| !there_now.contains(m) && there.get(&user(m)).is_empty()).map(String::as_str).collect();
        if !missing.is_empty() {
            let summary = format!("The following user(s) are not present: {}", missing.join(","));
            if there.uncertain() {
                return Ok(Want::Unknown(format!("known after an earlier command: {summary}")));
            }
            return Err(Diagnostic::new(Code::Failed, summary).into());
        }
        if members != there_now {
            attrs.insert("members".into(), members.into_iter().map(Value::from).collect::<Vec<_>>().into());
        }
        Ok(Want::Is(vec![(key, attrs)]))
    }
}

struct Absent {
    name: String,
}

fn absent(low: &Low) -> Result<Box<dyn Function>> {
    Ok(Box::new(Absent { name: super::user::checked(&Args(low))? }))
}

impl Function for Absent {
    fn objects(&self, _: &dyn There) -> Result<Vec<Key>> {
        Ok(vec![Key::new(Kind::Group, &self.name)])
    }

    fn want(&self, _: &dyn There) -> Result<Want> {
        Ok(Want::Is(vec![(Key::new(Kind::Group, &self.name), Attrs::new())]))
    }
}
