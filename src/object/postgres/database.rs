//! A database of a PostgreSQL server.
//!
//! Attributes: `name`, `owner`, `tablespace`; what cannot be changed once it is there: `encoding`, `collate`, `ctype`; `oid`, which tells it from another
//! of its name. Only on the way: `template` (the database that a new one is a copy of).
//!
//! A database that is dropped does not come back. A rollback drops one that the run made where nothing is in it; one with something in
//! it stays, unless it is told `--destroy-data`.

use super::{Server, fitting, identifier, literal};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::object::{Object, Progress, describe_attributes};
use crate::plan::{Key, Kind};
use crate::system::System;
use crate::value::{Attrs, Value, those};

/// Objects that initdb makes have numbers below this one.
const FIRST_OWN: u32 = 16384;

pub struct Database {
    key: String,
    name: String,
    server: Server,
}

impl Database {
    pub fn new(key: &str) -> Database {
        let (name, server) = Server::of(key);
        Database { key: key.to_owned(), name, server }
    }

    /// Whether nobody has made anything in it.
    fn is_empty(&self, sys: &System) -> Result<bool> {
        let tables = ["pg_class", "pg_proc", "pg_type", "pg_namespace", "pg_largeobject_metadata"];
        let any = tables.map(|table| format!("EXISTS (SELECT FROM pg_catalog.{table} WHERE oid >= {FIRST_OWN})"));
        Ok(self.server.ask(sys, Some(&self.name), &format!("SELECT {};", any.join(" OR ")))?.trim() == "f")
    }

    fn create(&self, to: &Attrs) -> String {
        let name = |attribute: &str, word: &str| text(to, attribute).map(|text| format!(" {word} = {}", identifier(&text)));
        let word = |attribute: &str, word: &str| text(to, attribute).map(|text| format!(" {word} = {}", literal(&text)));
        let options = [
            name("tablespace", "TABLESPACE"),
            name("owner", "OWNER"),
            name("template", "TEMPLATE"),
            word("encoding", "ENCODING"),
            word("collate", "LC_COLLATE"),
            word("ctype", "LC_CTYPE"),
        ];
        let options: String = options.into_iter().flatten().collect();
        format!("CREATE DATABASE {} WITH{options};", identifier(&self.name))
    }

    /// Who is connected is sent away, as Salt does.
    fn drop_sql(&self) -> String {
        let (own, text) = (identifier(&self.name), literal(&self.name));
        format!(
            "SELECT current_setting('server_version_num')::int >= 130000 AS forceful \\gset\n\\if :forceful\nDROP DATABASE {own} WITH (FORCE);\n\\else\n\
             SELECT count(pg_terminate_backend(pid)) AS ended FROM pg_stat_activity WHERE datname = {text} AND pid <> pg_backend_pid() \\gset\n\
             DROP DATABASE {own};\n\\endif"
        )
    }
}

fn text(attrs: &Attrs, name: &str) -> Option<String> {
    attrs.get(name).filter(|value| !value.is_null()).map(Value::to_text)
}

/// The role that owns a database, as a key.
pub fn owner(database: &Key, attrs: &Attrs) -> Option<Key> {
    let owner = attrs.get("owner")?.as_str().filter(|_| database.kind == Kind::PostgresDatabase)?;
    Some(Key::new(Kind::PostgresRole, Server::of(&database.name).1.name(owner)))
}

/// Whether the server of a database is on this host.
pub fn is_here(database: &Key) -> bool {
    database.kind == Kind::PostgresDatabase && Server::of(&database.name).1.is_here()
}

impl Object for Database {
    fn key(&self) -> Key {
        Key::new(Kind::PostgresDatabase, &self.key)
    }

    fn read(&self, sys: &System) -> Result<Attrs> {
        fitting("database", &self.name)?;
        let sql = format!(
            "SELECT to_jsonb(x) FROM (SELECT d.oid::text AS oid, datname AS name, pg_catalog.pg_get_userbyid(datdba) AS owner, spcname AS tablespace, \
             pg_catalog.pg_encoding_to_char(encoding) AS encoding, datcollate AS collate, datctype AS ctype \
             FROM pg_catalog.pg_database d JOIN pg_catalog.pg_tablespace t ON t.oid = d.dattablespace WHERE datname = {}) x;",
            literal(&self.name)
        );
        self.server.attributes(sys, &sql)
    }

    fn comes_new(&self, sys: &System) -> bool {
        !["postgres", "template0", "template1"].contains(&self.name.as_str()) && self.server.comes_new(sys)
    }

    fn set(&self, sys: &System, from: &Attrs, to: &Attrs, progress: &mut Progress) -> Result<Attrs> {
        let own = identifier(&self.name);
        if to.is_empty() {
            if !from.is_empty() {
                self.server.change(sys, progress, &format!("DROP DATABASE {own}"), &self.drop_sql())?;
            }
            return self.read(sys);
        }
        if from.is_empty() {
            if to.contains_key("oid") {
                let why = "it was dropped with what was in it";
                return Err(Diagnostic::new(Code::Failed, format!("the database {} cannot be brought back: {why}", self.name)).into());
            }
            self.server.change(sys, progress, &format!("CREATE DATABASE {own}"), &self.create(to))?;
            return self.read(sys);
        }
        for (attribute, words) in [("owner", "OWNER TO"), ("tablespace", "SET TABLESPACE")] {
            if let Some(wanted) = text(to, attribute).filter(|wanted| text(from, attribute).as_ref() != Some(wanted)) {
                let sql = format!("ALTER DATABASE {own} {words} {}", identifier(&wanted));
                self.server.change(sys, progress, &sql, &format!("{sql};"))?;
            }
        }
        self.read(sys)
    }

    fn one_way(&self, _sys: &System, from: &Attrs, to: &Attrs) -> Option<String> {
        (!from.is_empty() && to.is_empty()).then(|| "a dropped database does not come back, nor what was in it".to_owned())
    }

    fn destroys(&self, sys: &System, from: &Attrs, to: &Attrs) -> Option<String> {
        let goes = !from.is_empty() && to.is_empty();
        (goes && !self.is_empty(sys).unwrap_or(false)).then(|| format!("the database {} is dropped with everything in it", self.name))
    }

    fn describe(&self, _sys: &System, from: &Attrs, to: &Attrs) -> String {
        let shown = |attrs: &Attrs| those(attrs, |name, _| name != "oid" && name != "name");
        match (from.is_empty(), to.is_empty()) {
            (_, true) => "dropped, with everything in it\n".to_owned(),
            (true, false) => format!("a new database\n{}", describe_attributes(from, &shown(to))),
            _ => describe_attributes(&shown(from), &shown(to)),
        }
    }
}
