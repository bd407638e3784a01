//! A role of a PostgreSQL server: a user, or a group of them.
//!
//! Attributes: `login`, `inherit`, `superuser`, `createdb`, `createroles`, `replication`, `bypassrls` (truths), `connections` (their limit), `valid_until`,
//! `groups` (the roles it is in), `password` as the server has it: a verifier, which does not give the password away and yet is never shown. Where the
//! login may not read it there is `password_hidden` instead.
//! Only to restore a role that was dropped: `admin_of` (groups it may give others), `members`, `admins` (members that may), `settings` (database,
//! `name=value`), `comment`.

use super::{Server, fitting, identifier, literal, wanted};
use crate::diagnostic::{Code, Result};
use crate::object::{Object, Progress, describe_attributes};
use crate::plan::{Key, Kind};
use crate::system::System;
use crate::value::{Attrs, Value, those};

const FLAGS: [(&str, &str); 7] = [
    ("superuser", "SUPERUSER"),
    ("inherit", "INHERIT"),
    ("createroles", "CREATEROLE"),
    ("createdb", "CREATEDB"),
    ("login", "LOGIN"),
    ("replication", "REPLICATION"),
    ("bypassrls", "BYPASSRLS"),
];

/// Settings whose value is a list of names: it is taken as it stands, not as one text.
const LISTS: [&str; 6] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

pub struct Role {
    key: String,
    name: String,
    server: Server,
}

impl Role {
    pub fn new(key: &str) -> Role {
        let (name, server) = Server::of(key);
        Role { key: key.to_owned(), name, server }
    }

    /// What one line says of it, and where the login may look, a second one its password.
    fn query(&self) -> String {
        let names = |of: &str, by: &str, filter: &str| {
            format!(
                "COALESCE((SELECT json_agg(DISTINCT g.rolname ORDER BY g.rolname) FROM pg_catalog.pg_auth_members m \
                 JOIN pg_catalog.pg_roles g ON g.oid = m.{of} WHERE m.{by} = r.oid{filter}), '[]')"
            )
        };
        format!(
            "SELECT to_jsonb(x) FROM (SELECT rolsuper AS superuser, rolinherit AS inherit, rolcreaterole AS createroles, \
             rolcreatedb AS createdb, rolcanlogin AS login, rolreplication AS replication, rolbypassrls AS bypassrls, \
             NULLIF(rolconnlimit, -1) AS connections, NULLIF(rolvaliduntil::timestamptz(0), 'infinity')::text AS valid_until, \
             {groups} AS groups, {admin_of} AS admin_of, {members} AS members, {admins} AS admins, \
             COALESCE((SELECT json_agg(json_build_array(COALESCE(d.datname, ''), c) ORDER BY d.datname, c) FROM pg_catalog.pg_db_role_setting s \
             CROSS JOIN LATERAL unnest(s.setconfig) AS c LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase \
             WHERE s.setrole = r.oid), '[]') AS settings, pg_catalog.shobj_description(r.oid, 'pg_authid') AS comment, \
             CASE WHEN NOT has_table_privilege('pg_catalog.pg_authid', 'select') THEN true END AS password_hidden \
             FROM pg_catalog.pg_roles r WHERE rolname = {name}) x;\n\
             SELECT has_table_privilege('pg_catalog.pg_authid', 'select') AS readable \\gset\n\\if :readable\n\
             SELECT jsonb_build_object('password', rolpassword) FROM pg_catalog.pg_authid WHERE rolname = {name};\n\\endif",
            groups = names("roleid", "member", ""),
            admin_of = names("roleid", "member", " AND m.admin_option"),
            members = names("member", "roleid", ""),
            admins = names("member", "roleid", " AND m.admin_option"),
            name = literal(&self.name),
        )
    }

    /// `CREATE ROLE` or `ALTER ROLE` with what differs; nothing where that is nothing.
    fn options(&self, from: &Attrs, to: &Attrs, whole: bool) -> Option<String> {
        let mut options = Vec::new();
        for (name, flag) in FLAGS {
            if let Some(value) = to.get(name).filter(|value| !value.is_null() && from.get(name) != Some(value)) {
                options.push(if value.truthy() { flag.to_owned() } else { format!("NO{flag}") });
            }
        }
        if let Some(limit) = wanted("connections", from, to, whole) {
            options.push(format!("CONNECTION LIMIT {}", limit.and_then(Value::as_int).unwrap_or(-1)));
        }
        if let Some(until) = wanted("valid_until", from, to, whole) {
            options.push(format!("VALID UNTIL {}", literal(until.and_then(Value::as_str).unwrap_or("infinity"))));
        }
        if let Some(password) = wanted("password", from, to, whole && !to.contains_key("password_hidden")) {
            options.push(format!("PASSWORD {}", password.and_then(Value::as_str).map_or_else(|| "NULL".to_owned(), literal)));
        }
        let verb = if from.is_empty() { "CREATE" } else { "ALTER" };
        (from.is_empty() || !options.is_empty()).then(|| format!("{verb} ROLE {} WITH {};", identifier(&self.name), options.join(" ")))
    }

    /// Who is in whom. `own_side`: the groups that it is in, else its members.
    fn memberships(&self, from: &Attrs, to: &Attrs, own_side: bool, sql: &mut Vec<String>) {
        let (all, admin) = if own_side { ("groups", "admin_of") } else { ("members", "admins") };
        if !to.contains_key(all) {
            return;
        }
        let own = identifier(&self.name);
        let pair = |other: &str| if own_side { (identifier(other), own.clone()) } else { (own.clone(), identifier(other)) };
        let (there, wanted) = (names(from, all), names(to, all));
        for other in wanted.iter().filter(|other| !there.contains(other)) {
            let (group, member) = pair(other);
            sql.push(format!("GRANT {group} TO {member};"));
        }
        for other in there.iter().filter(|other| !wanted.contains(other)) {
            let (group, member) = pair(other);
            sql.push(format!("REVOKE {group} FROM {member};"));
        }
        if to.contains_key(admin) {
            let (there, wanted) = (names(from, admin), names(to, admin));
            for other in wanted.iter().filter(|other| !there.contains(other)) {
                let (group, member) = pair(other);
                sql.push(format!("GRANT {group} TO {member} WITH ADMIN OPTION;"));
            }
        }
    }

    /// Without the roles that are to come back themselves: they bring their side of it along.
    fn of_those_there(&self, sys: &System, to: &Attrs) -> Result<Attrs> {
        let there = self.server.attributes(sys, "SELECT jsonb_build_object('roles', jsonb_agg(rolname)) FROM pg_catalog.pg_roles;")?;
        let there = names(&there, "roles");
        let mut to = to.clone();
        for list in ["groups", "admin_of", "members", "admins"] {
            let known = names(&to, list).into_iter().filter(|name| there.contains(name)).map(Value::Str).collect();
            to.insert(list.to_owned(), Value::List(known));
        }
        Ok(to)
    }

    /// Settings and the comment of a role that comes back.
    fn extras(&self, from: &Attrs, to: &Attrs, sql: &mut Vec<String>) {
        let own = identifier(&self.name);
        let there = from.get("settings").and_then(Value::as_list).unwrap_or_default();
        for setting in to.get("settings").and_then(Value::as_list).unwrap_or_default().iter().filter(|setting| !there.contains(setting)) {
            let Some([database, setting]) = setting.as_list() else { continue };
            let (database, setting) = (database.to_text(), setting.to_text());
            let Some((name, value)) = setting.split_once('=') else { continue };
            let within = if database.is_empty() { String::new() } else { format!(" IN DATABASE {}", identifier(&database)) };
            // Parts of a name with a dot are quoted each.
            let named = name.split('.').map(identifier).collect::<Vec<_>>().join(".");
            if LISTS.contains(&name) {
                sql.push(format!("SELECT set_config({}, {}, true) AS set \\gset", literal(name), literal(value)));
                sql.push(format!("ALTER ROLE {own}{within} SET {named} FROM CURRENT;"));
            } else {
                sql.push(format!("ALTER ROLE {own}{within} SET {named} TO {};", literal(value)));
            }
        }
        if let Some(comment) = wanted("comment", from, to, true) {
            let comment = comment.map_or_else(|| "NULL".to_owned(), |comment| literal(&comment.to_text()));
            sql.push(format!("COMMENT ON ROLE {own} IS {comment};"));
        }
    }
}

fn names(attrs: &Attrs, name: &str) -> Vec<String> {
    attrs.get(name).and_then(Value::as_list).unwrap_or_default().iter().map(Value::to_text).collect()
}

impl Object for Role {
    fn key(&self) -> Key {
        Key::new(Kind::PostgresRole, &self.key)
    }

    fn read(&self, sys: &System) -> Result<Attrs> {
        fitting("role", &self.name)?;
        self.server.attributes(sys, &self.query())
    }

    fn comes_new(&self, sys: &System) -> bool {
        // Those are there from the beginning.
        !(self.name == "postgres" || self.name.starts_with("pg_")) && self.server.comes_new(sys)
    }

    /// A time as the server writes it.
    fn resolve(&self, sys: &System, _from: &Attrs, to: &Attrs, _touched: &dyn Fn(&str) -> bool) -> Result<Attrs> {
        let mut to = to.clone();
        if let Some(until) = to.get("valid_until").and_then(Value::as_str) {
            let sql = format!("SELECT jsonb_build_object('valid_until', NULLIF({}::timestamptz(0), 'infinity')::text);", literal(until));
            match self.server.attributes(sys, &sql) {
                Ok(mut said) => drop(to.insert("valid_until".into(), said.remove("valid_until").unwrap_or_default())),
                Err(error) if error.code == Code::Unreachable => {}
                Err(error) => return Err(error),
            }
        }
        Ok(to)
    }

    fn set(&self, sys: &System, from: &Attrs, to: &Attrs, progress: &mut Progress) -> Result<Attrs> {
        let shown = |verb: &str| format!("{verb} ROLE {}", identifier(&self.name));
        if to.is_empty() {
            if !from.is_empty() {
                self.server.change(sys, progress, &shown("DROP"), &format!("{};", shown("DROP")))?;
            }
            return self.read(sys);
        }
        // What was read before a run says all of it.
        let whole = to.contains_key("members");
        let to = &if whole { self.of_those_there(sys, to)? } else { to.clone() };
        let mut sql = Vec::from_iter(self.options(from, to, whole));
        self.memberships(from, to, true, &mut sql);
        self.memberships(from, to, false, &mut sql);
        if whole {
            self.extras(from, to, &mut sql);
        }
        if !sql.is_empty() {
            let verb = if from.is_empty() { "CREATE" } else { "ALTER" };
            self.server.change(sys, progress, &shown(verb), &format!("BEGIN;\n{}\nCOMMIT;", sql.join("\n")))?;
        }
        self.read(sys)
    }

    fn one_way(&self, _sys: &System, from: &Attrs, to: &Attrs) -> Option<String> {
        let lost = from.contains_key("password_hidden") && (to.is_empty() || to.contains_key("password"));
        lost.then(|| "the login may not read the role's password, which does not come back".to_owned())
    }

    fn describe(&self, _sys: &System, from: &Attrs, to: &Attrs) -> String {
        const UNSEEN: [&str; 6] = ["admin_of", "members", "admins", "settings", "comment", "password_hidden"];
        if to.is_empty() {
            return "dropped\n".to_owned();
        }
        let shown = |attrs: &Attrs| those(attrs, |name, _| name != "password" && !UNSEEN.contains(&name));
        let password = match (from.get("password"), to.get("password").filter(|value| !value.is_null())) {
            (now, wanted) if now == wanted || !to.contains_key("password") => "",
            (_, Some(_)) => "password: set (not shown)\n",
            (_, None) => "password: none\n",
        };
        describe_attributes(&shown(from), &those(&shown(to), |_, value| !value.is_null())) + password
    }
}
