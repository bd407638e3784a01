//! A user of `/etc/passwd`: its number, group, shell, memberships, and what `/etc/shadow` and the subordinate ids hold of it.
//!
//! Attributes: `name uid gid group home shell fullname roomnumber workphone homephone other groups password lastchanged mindays maxdays
//! warndays inactdays expire system unique own_group home_exists`; numbers of shadow are -1 where the field is empty. For restoring only: `files`.
//! The home directory itself is a file object of its own; only `useradd -m` fills it from `/etc/skel`.

use super::accounts::{self, GROUP, GSHADOW, PASSWD, SHADOW, SUBGID, SUBUID, Table};
use super::{Object, Progress, Sign, describe_attributes};
use crate::diagnostic::Result;
use crate::plan::{Key, Kind};
use crate::system::{FileKind, System};
use crate::value::{Attrs, Map, Value, those};

/// The parts of the comment field, in their order.
pub const GECOS: [&str; 5] = ["fullname", "roomnumber", "workphone", "homephone", "other"];
/// The fields of shadow after the password, and the option of `chage` that sets each.
pub const AGES: [(&str, &str); 6] =
    [("lastchanged", "-d"), ("mindays", "-m"), ("maxdays", "-M"), ("warndays", "-W"), ("inactdays", "-I"), ("expire", "-E")];
const LINES: [&str; 4] = [PASSWD, SHADOW, SUBUID, SUBGID];
/// Lists of members: file, field, and the name it is captured under.
const LISTS: [(&str, usize, &str); 3] = [(GROUP, 3, "members"), (GSHADOW, 3, "shadow members"), (GSHADOW, 2, "administrators")];

pub struct User {
    name: String,
}

impl User {
    pub fn new(name: &str) -> User {
        User { name: name.to_owned() }
    }

    fn tool(&self, sys: &System, progress: &mut Progress, argv: &[&str]) -> Result<()> {
        accounts::tool(sys, progress, argv.iter().map(|a| (*a).to_owned()).collect(), Vec::new())
    }

    fn add(&self, sys: &System, to: &Attrs, progress: &mut Progress) -> Result<()> {
        let text = |name: &str| to.get(name).map(Value::to_text);
        let mut argv = vec!["useradd".to_owned()];
        let mut option = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                argv.extend([name.to_owned(), value]);
            }
        };
        option("-u", text("uid"));
        option("-c", Some(gecos(&Attrs::new(), to)).filter(|c| !c.is_empty()));
        option("-d", text("home"));
        option("-s", text("shell"));
        let groups = to.get("groups").map(list).unwrap_or_default();
        option("-G", Some(groups.join(",")).filter(|g| !g.is_empty()));
        let group = text("gid").or_else(|| text("group"));
        // A group of its own that is made for it gets the same number, as useradd alone would do it.
        let own = Table::load(sys, GROUP)?.fields(&self.name);
        if let (Some(own), true, false) = (&own, to.get("own_group").is_some_and(Value::truthy), to.contains_key("uid"))
            && let Some(number) = own.get(2).filter(|gid| gid.as_str() != "0")
            && Table::load(sys, PASSWD)?.count(2, number) == 0
        {
            argv.extend(["-u".to_owned(), number.clone()]);
        }
        match group {
            Some(group) if group == self.name && own.is_none() => argv.push("-U".into()),
            Some(group) => argv.extend(["-g".into(), group]),
            None => argv.push("-N".into()),
        }
        if to.get("unique") == Some(&Value::Bool(false)) && to.contains_key("uid") {
            argv.push("-o".into());
        }
        if to.get("system").is_some_and(Value::truthy) {
            argv.push("-r".into());
        }
        let make_home = to.get("home_exists").is_some_and(Value::truthy);
        argv.push(if make_home { "-m" } else { "-M" }.into());
        argv.push(self.name.clone());
        accounts::tool(sys, progress, argv, Vec::new())
    }

    fn modify(&self, sys: &System, from: &Attrs, to: &Attrs, progress: &mut Progress) -> Result<()> {
        let changed = |name: &str| to.get(name).filter(|wanted| from.get(name) != Some(wanted)).map(Value::to_text);
        let mut argv = vec!["usermod".to_owned()];
        for (name, option) in [("uid", "-u"), ("home", "-d"), ("shell", "-s"), ("gid", "-g"), ("group", "-g")] {
            argv.extend(changed(name).into_iter().flat_map(|value| [option.to_owned(), value]));
        }
        if changed("uid").is_some() && to.get("unique") == Some(&Value::Bool(false)) {
            argv.push("-o".into());
        }
        if GECOS.iter().any(|part| changed(part).is_some()) {
            argv.extend(["-c".into(), gecos(from, to)]);
        }
        if let Some(groups) = to.get("groups").filter(|wanted| from.get("groups") != Some(wanted)) {
            argv.extend(["-G".into(), list(groups).join(",")]);
        }
        if argv.len() > 1 {
            argv.push(self.name.clone());
            accounts::tool(sys, progress, argv, Vec::new())?;
        }
        Ok(())
    }

    /// Password and ages, which useradd and usermod would take in sight of all.
    fn shadow(&self, sys: &System, from: &Attrs, to: &Attrs, progress: &mut Progress) -> Result<()> {
        let changed = |name: &str| to.get(name).filter(|wanted| from.get(name) != Some(wanted)).map(Value::to_text);
        match changed("password") {
            None => {}
            Some(password) if password.is_empty() => self.tool(sys, progress, &["usermod", "-p", "", &self.name])?,
            Some(password) => {
                let line = format!("{}:{password}\n", self.name);
                accounts::tool(sys, progress, vec!["chpasswd".into(), "-e".into()], line.into_bytes())?;
            }
        }
        let ages: Vec<String> = AGES.iter().filter_map(|(name, option)| Some([(*option).to_owned(), changed(name)?])).flatten().collect();
        if !ages.is_empty() {
            let argv = [vec!["chage".to_owned()], ages, vec![self.name.clone()]].concat();
            accounts::tool(sys, progress, argv, Vec::new())?;
        }
        Ok(())
    }

    /// `userdel` drops the user's own group as well; a group is an object of its own and goes only when somebody says so.
    fn remove(&self, sys: &System, progress: &mut Progress) -> Result<()> {
        let groups = [Table::load(sys, GROUP)?.capture(&self.name), Table::load(sys, GSHADOW)?.capture(&self.name)];
        self.tool(sys, progress, &["userdel", &self.name])?;
        if Table::load(sys, GROUP)?.fields(&self.name).is_some() {
            return Ok(());
        }
        let _lock = accounts::lock(sys)?;
        for (path, captured) in [GROUP, GSHADOW].into_iter().zip(groups) {
            let mut table = Table::load(sys, path)?;
            table.restore(&self.name, &captured);
            for (_, field, _) in LISTS.iter().filter(|(list, ..)| *list == path) {
                table.restore_memberships(*field, &self.name, &Map::new());
            }
            table.save(sys)?;
        }
        Ok(())
    }

    /// Puts every line and membership back as it was.
    fn restore(&self, sys: &System, from: &Attrs, to: &Attrs, files: &Map, progress: &mut Progress) -> Result<()> {
        // With the number, usermod gives the files in the home back too.
        if !from.is_empty() {
            let both = those(to, |name, _| ["uid", "gid"].contains(&name));
            let mut numbers = both;
            numbers.insert("unique".into(), Value::Bool(false));
            self.modify(sys, from, &numbers, progress)?;
        }
        let _lock = accounts::lock(sys)?;
        for path in [GROUP, GSHADOW] {
            let mut table = Table::load(sys, path)?;
            for (_, field, captured) in LISTS.iter().filter(|(list, ..)| *list == path) {
                let places = files.get(captured).and_then(Value::as_map).cloned().unwrap_or_default();
                table.restore_memberships(*field, &self.name, &places);
            }
            table.save(sys)?;
        }
        for path in LINES {
            let mut table = Table::load(sys, path)?;
            table.restore(&self.name, files.get(path).and_then(Value::as_list).unwrap_or_default());
            table.save(sys)?;
        }
        Ok(())
    }
}

impl Object for User {
    fn key(&self) -> Key {
        Key::new(Kind::User, &self.name)
    }

    fn read(&self, sys: &System) -> Result<Attrs> {
        let passwd = Table::load(sys, PASSWD)?;
        let fields = passwd.fields(&self.name).and_then(|f| <[String; 7]>::try_from(f).ok());
        let Some([_, _, uid_text, gid_text, comment, home, shell]) = fields else {
            return Ok(Attrs::new());
        };
        let (uid, gid) = (uid_text.parse::<i64>().unwrap_or(-1), gid_text.parse::<i64>().unwrap_or(-1));
        let mut attrs = Attrs::new();
        let mut put = |name: &str, value: Value| drop(attrs.insert(name.to_owned(), value));
        put("name", self.name.as_str().into());
        put("uid", Value::Int(uid));
        put("gid", Value::Int(gid));
        put("system", Value::Bool(uid < 1000));
        put("unique", Value::Bool(passwd.count(2, &uid_text) < 2));
        let group = u32::try_from(gid).map_or_else(|_| gid_text.clone(), |gid| sys.group_name(gid));
        put("own_group", Value::Bool(group == self.name && passwd.count(3, &gid_text) < 2));
        put("group", group.into());
        put("home_exists", Value::Bool(sys.stat(&sys.resolve(&home))?.is_some_and(|s| s.kind == FileKind::Directory)));
        put("home", home.into());
        put("shell", shell.into());
        let mut parts = comment.splitn(5, ',');
        for part in GECOS {
            put(part, parts.next().unwrap_or_default().into());
        }
        let mut files = Map::new();
        for path in LINES {
            let table = Table::load(sys, path)?;
            if path == SHADOW
                && let Some(shadow) = table.fields(&self.name)
            {
                put("password", shadow.get(1).cloned().unwrap_or_default().into());
                for ((name, _), field) in AGES.iter().zip(shadow.iter().skip(2)) {
                    put(name, Value::Int(field.parse().unwrap_or(-1)));
                }
            }
            files.insert(path, table.capture(&self.name));
        }
        for (path, field, captured) in LISTS {
            let places = Table::load(sys, path)?.memberships(field, &self.name);
            if captured == "members" {
                let mut groups: Vec<String> = places.iter().map(|(group, _)| group.to_text()).collect();
                groups.sort();
                put("groups", Value::List(groups.into_iter().map(Value::from).collect()));
            }
            files.insert(captured, places);
        }
        put("files", Value::Map(files));
        Ok(attrs)
    }

    fn signs(&self, _sys: &System) -> Result<Vec<Sign>> {
        Ok(Sign::paths(LINES.into_iter().chain([GROUP, GSHADOW])))
    }

    fn sweep(&self, sys: &System) -> Result<()> {
        accounts::sweep(sys)
    }

    fn set(&self, sys: &System, from: &Attrs, to: &Attrs, progress: &mut Progress) -> Result<Attrs> {
        if to.is_empty() {
            if !from.is_empty() {
                self.remove(sys, progress)?;
            }
        } else if let Some(files) = to.get("files").and_then(Value::as_map) {
            self.restore(sys, from, to, files, progress)?;
        } else if from.is_empty() {
            self.add(sys, to, progress)?;
            self.shadow(sys, &self.read(sys)?, to, progress)?;
        } else {
            self.modify(sys, from, to, progress)?;
            self.shadow(sys, from, to, progress)?;
        }
        self.read(sys)
    }

    fn describe(&self, _sys: &System, from: &Attrs, to: &Attrs) -> String {
        let shown = |attrs: &Attrs| those(attrs, |name, _| !["files", "password"].contains(&name));
        let mut text = describe_attributes(&shown(from), &shown(to));
        if let Some(password) = to.get("password").filter(|p| from.get("password") != Some(p)) {
            let state = |p: &Value| match p.as_str().unwrap_or_default() {
                "" => "empty",
                p if p.starts_with(['!', '*']) => "locked",
                _ => "set",
            };
            let before = from.get("password").map_or(String::new(), |p| format!("{} → ", state(p)));
            text.push_str(&format!("password: {before}{} (not shown)\n", state(password)));
        }
        text
    }
}

/// The comment field as it will be: parts of `to`, else those of `from`.
fn gecos(from: &Attrs, to: &Attrs) -> String {
    let part = |name: &&str| to.get(*name).or_else(|| from.get(*name)).map(Value::to_text).unwrap_or_default();
    GECOS.iter().map(part).collect::<Vec<_>>().join(",").trim_end_matches(',').to_owned()
}

fn list(value: &Value) -> Vec<String> {
    value.as_list().unwrap_or_default().iter().map(Value::to_text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::HostExec;

    fn attrs(json: &str) -> Attrs {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn hashes_are_in_no_description_and_no_argument() {
        let user = User::new("alice");
        let secret = "$6$salt$verysecret";
        let sys = System::at("/nonexistent", Box::new(HostExec::new(std::path::Path::new("/nonexistent"), Default::default())));
        let shown = user.describe(&sys, &attrs(r#"{"password": "!"}"#), &attrs(&format!(r#"{{"password": "{secret}", "shell": "/x"}}"#)));
        assert_eq!(shown, "shell: /x\npassword: locked → set (not shown)\n");
    }
}
