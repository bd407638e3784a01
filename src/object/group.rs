//! A group of `/etc/group` with its members and its line in `/etc/gshadow`.
//!
//! Attributes: `name`, `gid`, `system`, `members` (in the file's order). For restoring only: `files`.

use super::accounts::{self, GROUP, GSHADOW, Table};
use super::{Object, Progress, Sign, describe_attributes};
use crate::diagnostic::Result;
use crate::plan::{Key, Kind};
use crate::system::System;
use crate::value::{Attrs, Map, Value, attributes, those};

pub struct Group {
    name: String,
}

impl Group {
    pub fn new(name: &str) -> Group {
        Group { name: name.to_owned() }
    }

    fn tool(&self, sys: &System, progress: &mut Progress, argv: &[&str]) -> Result<()> {
        accounts::tool(sys, progress, argv.iter().map(|a| (*a).to_owned()).collect(), Vec::new())
    }

    /// Puts the lines back as they were, places and all.
    fn restore(&self, sys: &System, files: &Map) -> Result<()> {
        let _lock = accounts::lock(sys)?;
        for path in [GROUP, GSHADOW] {
            let mut table = Table::load(sys, path)?;
            table.restore(&self.name, files.get(path).and_then(Value::as_list).unwrap_or_default());
            table.save(sys)?;
        }
        Ok(())
    }
}

impl Object for Group {
    fn key(&self) -> Key {
        Key::new(Kind::Group, &self.name)
    }

    fn read(&self, sys: &System) -> Result<Attrs> {
        let group = Table::load(sys, GROUP)?;
        let Some([_, _, gid, members]) = group.fields(&self.name).and_then(|f| <[String; 4]>::try_from(f).ok()) else {
            return Ok(Attrs::new());
        };
        let gid: i64 = gid.parse().unwrap_or(-1);
        let members: Vec<Value> = members.split(',').filter(|m| !m.is_empty()).map(Value::from).collect();
        let mut files = Map::new();
        files.insert(GROUP, group.capture(&self.name));
        files.insert(GSHADOW, Table::load(sys, GSHADOW)?.capture(&self.name));
        Ok(attributes([
            ("name".into(), Value::from(self.name.as_str())),
            ("gid".into(), Value::Int(gid)),
            ("system".into(), Value::Bool(gid < 1000)),
            ("members".into(), Value::List(members)),
            ("files".into(), Value::Map(files)),
        ]))
    }

    fn signs(&self, _sys: &System) -> Result<Vec<Sign>> {
        Ok(Sign::paths([GROUP, GSHADOW]))
    }

    fn sweep(&self, sys: &System) -> Result<()> {
        accounts::sweep(sys)
    }

    fn set(&self, sys: &System, from: &Attrs, to: &Attrs, progress: &mut Progress) -> Result<Attrs> {
        let name = self.name.as_str();
        if to.is_empty() {
            if !from.is_empty() {
                self.tool(sys, progress, &["groupdel", name])?;
            }
            return self.read(sys);
        }
        if let Some(files) = to.get("files").and_then(Value::as_map) {
            self.restore(sys, files)?;
            return self.read(sys);
        }
        let gid = to.get("gid").filter(|gid| from.get("gid") != Some(gid)).map(Value::to_text);
        if from.is_empty() {
            let mut argv = vec!["groupadd"];
            if to.get("system").is_some_and(Value::truthy) {
                argv.push("-r");
            }
            if to.get("unique") == Some(&Value::Bool(false)) {
                argv.push("-o");
            }
            argv.extend(gid.iter().flat_map(|gid| ["-g", gid]));
            argv.push(name);
            self.tool(sys, progress, &argv)?;
        } else if let Some(gid) = &gid {
            let duplicate: &[&str] = if to.get("unique") == Some(&Value::Bool(false)) { &["-o"] } else { &[] };
            self.tool(sys, progress, &[&["groupmod", "-g", gid], duplicate, &[name]].concat())?;
        }
        let there = from.get("members").and_then(Value::as_list).unwrap_or_default();
        if let Some(members) = to.get("members").and_then(Value::as_list)
            && members != there
        {
            let members: Vec<String> = members.iter().map(Value::to_text).collect();
            self.tool(sys, progress, &["gpasswd", "-M", &members.join(","), name])?;
        }
        self.read(sys)
    }

    fn describe(&self, _sys: &System, from: &Attrs, to: &Attrs) -> String {
        let shown = |attrs: &Attrs| those(attrs, |name, _| name != "files");
        describe_attributes(&shown(from), &shown(to))
    }
}
