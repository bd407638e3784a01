//! postgres_user.* and postgres_database.*: the roles and databases of a PostgreSQL server.

use super::args::Args;
use super::{Arg, ArgKind, Entry, Function, There, Want, crypt, verifier};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::object::postgres::Server;
use crate::plan::{Hash, Key, Kind, Low};
use crate::value::{Attrs, Value, attributes};

const MACHINE_ID: &str = "/etc/machine-id";

const USER: Arg =
    Arg::new("user", ArgKind::Str, "", "The user of the host that runs psql. Default: postgres, where the server is on this host.");
const MAINTENANCE_DB: Arg = Arg::new("maintenance_db", ArgKind::Str, "postgres", "The database that psql connects to.");
const DB_PASSWORD: Arg = Arg::new("db_password", ArgKind::Str, "", "Refused: give psql's user a .pgpass file.");
const DB_HOST: Arg = Arg::new("db_host", ArgKind::Str, "", "Where the server is. Default: on this host, by its socket.");
const DB_PORT: Arg = Arg::new("db_port", ArgKind::Str, "", "The server's port.");
const DB_USER: Arg = Arg::new("db_user", ArgKind::Str, "", "The role that psql logs in as. Default: the user's name.");

const DATABASES: &[Arg] = &[
    Arg::new("name", ArgKind::Str, "", "The database."),
    Arg::new("tablespace", ArgKind::Str, "", "Where its files are."),
    Arg::new("encoding", ArgKind::Str, "", "How texts are encoded: UTF8. Only a new database can have another."),
    Arg::new("lc_collate", ArgKind::Str, "", "The order of texts. Only a new database can have another."),
    Arg::new("lc_ctype", ArgKind::Str, "", "Which characters are letters. Only a new database can have another."),
    Arg::new("owner", ArgKind::Str, "", "The role that owns it."),
    Arg::new("owner_recurse", ArgKind::Bool, "False", "True is refused where the owner changes: it fails in Salt, too."),
    Arg::new("template", ArgKind::Str, "", "The database that a new one is a copy of."),
    USER,
    MAINTENANCE_DB,
    DB_PASSWORD,
    DB_HOST,
    DB_PORT,
    DB_USER,
];
const ROLES: &[Arg] = &[
    Arg::new("name", ArgKind::Str, "", "The role."),
    Arg::new("createdb", ArgKind::Bool, "", "Whether it may make databases."),
    Arg::new("createroles", ArgKind::Bool, "", "Whether it may make roles."),
    Arg::new("encrypted", ArgKind::Any, "md5", "How the password is kept: md5 (as True) or scram-sha-256."),
    Arg::new("superuser", ArgKind::Bool, "", "Whether it may do anything."),
    Arg::new("replication", ArgKind::Bool, "", "Whether it may copy the server."),
    Arg::new("inherit", ArgKind::Bool, "True", "Whether it has the rights of its groups."),
    Arg::new("login", ArgKind::Bool, "True", "Whether it may log in."),
    Arg::new("password", ArgKind::Str, "", "Its password, or what the server keeps of it (`md5…`, `SCRAM-SHA-256$…`)."),
    Arg::new("default_password", ArgKind::Str, "", "The password of a new role, where there is no password."),
    Arg::new("refresh_password", ArgKind::Bool, "False", "Set the password also where it cannot be read whether it fits."),
    Arg::new("valid_until", ArgKind::Str, "", "When the password ends to be one. Example: 2030-01-01"),
    Arg::new("groups", ArgKind::Any, "", "Roles that it is in, as a list or with commas; others that it is in stay."),
    USER,
    MAINTENANCE_DB,
    DB_PASSWORD,
    DB_HOST,
    DB_PORT,
    DB_USER,
];
const ABSENT: &[Arg] =
    &[Arg::new("name", ArgKind::Str, "", "What is not to be there."), USER, MAINTENANCE_DB, DB_PASSWORD, DB_HOST, DB_PORT, DB_USER];

pub const FUNCTIONS: &[Entry] = &[
    Entry {
        name: "postgres_database.absent",
        doc: "A PostgreSQL server does not have a database; what is in it goes with it.",
        args: ABSENT,
        watches: false,
        parse: |low| absent(low, Kind::PostgresDatabase),
    },
    Entry {
        name: "postgres_database.present",
        doc: "A PostgreSQL server has a database.",
        args: DATABASES,
        watches: false,
        parse: database,
    },
    Entry {
        name: "postgres_user.absent",
        doc: "A PostgreSQL server does not have a role.",
        args: ABSENT,
        watches: false,
        parse: |low| absent(low, Kind::PostgresRole),
    },
    Entry {
        name: "postgres_user.present",
        doc: "A PostgreSQL server has a role that may log in.",
        args: ROLES,
        watches: false,
        parse: role,
    },
];

/// The thing that a state is about, and the server it is on.
fn key(args: &Args, kind: Kind) -> Result<Key> {
    if args.str("db_password")?.is_some_and(|password| !password.is_empty()) {
        let refused = args.error(format!("{} takes no db_password", args.0.function()));
        return Err(refused.hint("let psql's user have it in ~/.pgpass (file.managed, mode 0600): rollbacks need it as well").into());
    }
    let given = |name: &str| -> Result<Option<String>> { Ok(args.str(name)?.filter(|text| !text.is_empty())) };
    let server = Server {
        user: given("user")?.filter(|user| user != "postgres" || args.value("db_host").is_some()),
        host: given("db_host")?,
        port: given("db_port")?,
        login: given("db_user")?,
        database: given("maintenance_db")?.filter(|database| database != "postgres"),
    };
    Ok(Key::new(kind, server.name(&args.name())))
}

struct Absent {
    key: Key,
    name: String,
}

fn absent(low: &Low, kind: Kind) -> Result<Box<dyn Function>> {
    let args = Args(low);
    Ok(Box::new(Absent { key: key(&args, kind)?, name: args.name() }))
}

impl Function for Absent {
    fn objects(&self, _: &dyn There) -> Result<Vec<Key>> {
        Ok(vec![self.key.clone()])
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        let kind = if self.key.kind == Kind::PostgresRole { "User" } else { "Database" };
        Ok(match there.get(&self.key).is_empty() {
            true => Want::Nothing(format!("{kind} {} is not present, so it cannot be removed", self.name)),
            false => Want::Is(vec![(self.key.clone(), Attrs::new())]),
        })
    }
}

struct Database {
    key: Key,
    name: String,
    wanted: Attrs,
    template: Option<String>,
    recurse: bool,
}

fn database(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let mut wanted = Attrs::new();
    let attributes =
        [("owner", "owner"), ("tablespace", "tablespace"), ("encoding", "encoding"), ("lc_collate", "collate"), ("lc_ctype", "ctype")];
    for (argument, attribute) in attributes {
        wanted.extend(args.str(argument)?.filter(|text| !text.is_empty()).map(|text| (attribute.to_owned(), Value::Str(text))));
    }
    let template = args.str("template")?.filter(|text| !text.is_empty());
    let recurse = args.bool("owner_recurse", false)?;
    Ok(Box::new(Database { key: key(&args, Kind::PostgresDatabase)?, name: args.name(), wanted, template, recurse }))
}

/// `UTF-8` is `utf8`.
fn letters(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

impl Function for Database {
    fn objects(&self, _: &dyn There) -> Result<Vec<Key>> {
        Ok(vec![self.key.clone()])
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        let now = there.get(&self.key);
        let mut wanted = self.wanted.clone();
        if now.is_empty() {
            wanted.extend(self.template.iter().map(|template| ("template".to_owned(), Value::str(template))));
            wanted.insert("name".to_owned(), Value::str(&self.name));
            return Ok(Want::Is(vec![(self.key.clone(), wanted)]));
        }
        let text = |attrs: &Attrs, name: &str| attrs.get(name).map(Value::to_text).unwrap_or_default();
        let differs = |name: &&str| self.wanted.contains_key(*name) && text(&now, name) != text(&self.wanted, name);
        let other_encoding = differs(&"encoding") && letters(&text(&now, "encoding")) != letters(&text(&self.wanted, "encoding"));
        let fixed: Vec<&str> = ["collate", "ctype"].into_iter().filter(differs).chain(other_encoding.then_some("encoding")).collect();
        if !fixed.is_empty() {
            let is = fixed.iter().map(|name| format!("{name} is {}", text(&now, name))).collect::<Vec<_>>().join(", ");
            let why = format!("Database {} has wrong parameters which couldn't be changed on fly: {is}", self.name);
            return Err(Diagnostic::new(Code::Failed, why).into());
        }
        wanted.remove("encoding");
        if self.recurse && differs(&"owner") {
            return Err(Diagnostic::new(
                Code::Failed,
                "owner_recurse: True is refused: who owns each thing in the database could not be taken back",
            )
            .hint("without it the database alone gets the owner")
            .into());
        }
        Ok(if wanted.is_empty() { Want::Nothing(String::new()) } else { Want::Is(vec![(self.key.clone(), wanted)]) })
    }
}

/// How a password is kept.
#[derive(Clone, Copy, PartialEq)]
enum Method {
    Md5,
    Scram,
}

struct Role {
    key: Key,
    name: String,
    /// Those that are given.
    flags: Vec<(&'static str, bool)>,
    password: Option<String>,
    default_password: Option<String>,
    refresh: bool,
    method: Method,
    valid_until: Option<String>,
    groups: Option<Vec<String>>,
}

fn role(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let mut flags = Vec::new();
    for flag in ["createdb", "createroles", "inherit", "login", "replication", "superuser"] {
        if args.value(flag).is_some() {
            flags.push((flag, args.bool(flag, false)?));
        }
    }
    let (password, default_password) = (args.str("password")?, args.str("default_password")?);
    let method = match args.value("encrypted") {
        None | Some(Value::Bool(true)) => Method::Md5,
        Some(Value::Str(text)) if text == "md5" => Method::Md5,
        Some(Value::Str(text)) if text == "scram-sha-256" => Method::Scram,
        Some(Value::Bool(false)) if password.is_none() && default_password.is_none() => Method::Md5,
        Some(Value::Bool(false)) => {
            return Err(args
                .error("PostgreSQL keeps no passwords in plain text any more")
                .hint("leave encrypted out, or give scram-sha-256")
                .into());
        }
        Some(other) => return Err(args.error(format!("Unknown password algorithm: {}", other.to_text()))),
    };
    let plain = |password: &Option<String>| password.as_ref().is_some_and(|text| !text.is_ascii() && !text.starts_with(verifier::SCRAM));
    if method == Method::Scram && (plain(&password) || plain(&default_password)) {
        let why = "a password for scram-sha-256 is to be of ASCII characters, or what the server keeps of it (SCRAM-SHA-256$…)";
        return Err(args.error(why));
    }
    let groups = match args.value("groups") {
        Some(Value::Str(text)) => Some(text.split(',').map(str::to_owned).filter(|name| !name.is_empty()).collect()),
        Some(_) => Some(args.strs("groups")?),
        None => None,
    };
    Ok(Box::new(Role {
        key: key(&args, Kind::PostgresRole)?,
        name: args.name(),
        flags,
        password,
        default_password,
        refresh: args.bool("refresh_password", false)?,
        method,
        valid_until: args.str("valid_until")?.filter(|text| !text.is_empty()),
        groups,
    }))
}

impl Role {
    /// What the server is to keep of a password, made with a salt of this host and role, so that a plan and its run agree.
    fn kept(&self, there: &dyn There, password: &str) -> Result<String> {
        match self.method {
            Method::Md5 if password.starts_with("md5") => Ok(password.to_owned()),
            Method::Md5 => Ok(verifier::md5(password, &self.name)),
            Method::Scram if password.starts_with(verifier::SCRAM) => Ok(password.to_owned()),
            Method::Scram => {
                let machine = match there.get(&Key::new(Kind::File, MACHINE_ID)).get("content").and_then(Value::as_str) {
                    Some(hash) => there.bytes(&Hash(hash.to_owned()))?.to_vec(),
                    None => Vec::new(),
                };
                Ok(verifier::scram(password, crypt::salt(&machine, &self.name).as_bytes()))
            }
        }
    }

    /// The password that is to be set; nothing where the one that is there fits.
    fn password(&self, there: &dyn There, now: &Attrs) -> Result<Option<String>> {
        let default = self.default_password.as_ref().filter(|_| now.is_empty());
        // An empty one sets none.
        let Some(password) = self.password.as_ref().or(default).filter(|password| !password.is_empty()) else { return Ok(None) };
        if now.contains_key("password_hidden") && !self.refresh {
            let why = format!("whether the password of {} fits cannot be read by this login", self.name);
            return Err(Diagnostic::new(Code::Failed, why).hint("`refresh_password: True` sets it without looking").into());
        }
        let there_now = now.get("password").and_then(Value::as_str).unwrap_or_default();
        if self.method == Method::Scram && verifier::fits(password, there_now) {
            return Ok(None);
        }
        self.kept(there, password).map(|kept| Some(kept).filter(|kept| kept != there_now))
    }
}

impl Function for Role {
    fn objects(&self, _: &dyn There) -> Result<Vec<Key>> {
        let salted = (self.method == Method::Scram).then(|| Key::new(Kind::File, MACHINE_ID));
        Ok(std::iter::once(self.key.clone()).chain(salted).collect())
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        let now = there.get(&self.key);
        let given = self.flags.iter().map(|(flag, on)| ((*flag).to_owned(), Value::Bool(*on)));
        let mut wanted = attributes(given);
        wanted.extend(self.password(there, &now)?.map(|password| ("password".to_owned(), Value::Str(password))));
        wanted.extend(self.valid_until.iter().map(|until| ("valid_until".to_owned(), Value::str(until))));
        if let Some(groups) = &self.groups {
            let there = now.get("groups").and_then(Value::as_list).unwrap_or_default().iter().map(Value::to_text);
            let mut all: Vec<String> = groups.iter().cloned().chain(there).collect();
            all.sort();
            all.dedup();
            wanted.insert("groups".to_owned(), Value::List(all.into_iter().map(Value::Str).collect()));
        }
        // What Salt's module takes as said of a user, as soon as it has anything to set.
        if wanted.iter().any(|(name, value)| now.get(name) != Some(value)) || now.is_empty() {
            for flag in ["inherit", "login"] {
                wanted.entry(flag.to_owned()).or_insert(Value::Bool(true));
            }
        }
        // To want nothing of it would be to want it gone.
        Ok(if wanted.is_empty() {
            Want::Nothing(format!("User {} is already present", self.name))
        } else {
            Want::Is(vec![(self.key.clone(), wanted)])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Host, answer, want};
    use super::*;
    use serde_json::json;

    const SCRAM: &str = "SCRAM-SHA-256$100:YWI=$pmpEXFgmAdz9JHkjU9xhmE3Z2+Odyp60i5XgkKouJgI=:Rh9319Q5KfAsx0qAgafs6UyFTRql4aHIbjDE3zBjsKE=";

    fn host() -> Host {
        let mut host = Host::default();
        let role = |own: serde_json::Value| {
            let mut role = json!({"login": true, "inherit": true, "superuser": false, "createdb": false, "createroles": false,
                "replication": false, "bypassrls": false, "groups": [], "members": []});
            role.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
            role
        };
        host.has("postgres_role:app", role(json!({"password": verifier::md5("secret", "app"), "groups": ["b", "c"]})));
        host.has("postgres_role:new", role(json!({"password": SCRAM})));
        host.has("postgres_role:group", role(json!({"login": false, "inherit": false})));
        host.has("postgres_role:far?host=db1&login=me", role(json!({"password_hidden": true})));
        host.has(
            "postgres_database:app",
            json!({"oid": "16400", "owner": "app", "tablespace": "pg_default", "encoding": "UTF8", "collate": "C", "ctype": "C"}),
        );
        host
    }

    #[test]
    fn roles_are_made_and_changed_as_salt_does() {
        let md5 = verifier::md5("other", "app");
        for (args, wanted) in [
            (json!({"name": "x"}), json!({"inherit": true, "login": true})),
            (
                json!({"name": "x", "login": false, "createdb": true, "groups": "b,a"}),
                json!({"createdb": true, "groups": ["a", "b"], "inherit": true, "login": false}),
            ),
            (json!({"name": "x", "default_password": "md5x"}), json!({"inherit": true, "login": true, "password": "md5x"})),
            // The password fits, in whichever form it is given.
            (json!({"name": "app", "password": "secret"}), json!({})),
            (json!({"name": "app", "password": verifier::md5("secret", "app"), "default_password": "y"}), json!({})),
            (json!({"name": "app", "password": "other"}), json!({"inherit": true, "login": true, "password": md5})),
            (json!({"name": "new", "password": "secret", "encrypted": "scram-sha-256"}), json!({})),
            (json!({"name": "new", "password": SCRAM, "encrypted": "scram-sha-256"}), json!({})),
            // Salt's module takes as said that a user may log in, once it sets anything.
            (json!({"name": "group"}), json!({})),
            (json!({"name": "group", "createdb": true}), json!({"createdb": true, "inherit": true, "login": true})),
            // Other groups stay.
            (json!({"name": "app", "groups": ["a"]}), json!({"groups": ["a", "b", "c"], "inherit": true, "login": true})),
            (json!({"name": "app", "groups": ["b"]}), json!({"groups": ["b", "c"]})),
        ] {
            let key = format!("postgres_role:{}", args["name"].as_str().unwrap());
            let got = answer(&host(), "postgres_user.present", args.clone()).unwrap();
            match wanted.as_object().unwrap().is_empty() {
                true => assert!(matches!(got, Want::Nothing(_)), "{args}: {got:?}"),
                false => assert_eq!(want(&host(), "postgres_user.present", args.clone()).unwrap(), json!([[key, wanted]]), "{args}"),
            }
        }
        let far = json!({"name": "far", "db_host": "db1", "db_user": "me", "password": "x"});
        let error = want(&host(), "postgres_user.present", far.clone()).unwrap_err();
        assert_eq!(error, "whether the password of far fits cannot be read by this login");
        let mut far = far;
        far["refresh_password"] = json!(true);
        let got = want(&host(), "postgres_user.present", far).unwrap();
        assert_eq!(
            got,
            json!([["postgres_role:far?host=db1&login=me", {"inherit": true, "login": true, "password": verifier::md5("x", "far")}]])
        );
        for (args, said) in [
            (json!({"name": "x", "password": "a", "encrypted": false}), "PostgreSQL keeps no passwords in plain text any more"),
            (json!({"name": "x", "encrypted": "rot13"}), "Unknown password algorithm: rot13"),
            (json!({"name": "x", "db_password": "a"}), "postgres_user.present takes no db_password"),
        ] {
            assert_eq!(want(&host(), "postgres_user.present", args).unwrap_err(), said);
        }
    }

    #[test]
    fn a_password_gets_the_same_salt_in_plan_and_run() {
        let mut host = host();
        host.file("/etc/machine-id", "m1\n");
        let args = json!({"name": "app", "password": "secret", "encrypted": "scram-sha-256"});
        let (one, two) = (want(&host, "postgres_user.present", args.clone()).unwrap(), want(&host, "postgres_user.present", args).unwrap());
        assert_eq!(one, two);
        assert!(verifier::fits("secret", one[0][1]["password"].as_str().unwrap()));
    }

    #[test]
    fn databases_are_made_and_changed_as_salt_does() {
        for (args, wanted) in [
            (json!({"name": "x"}), json!({"name": "x"})),
            (
                json!({"name": "x", "owner": "app", "template": "template0", "encoding": "UTF8", "lc_collate": "C"}),
                json!({"collate": "C", "encoding": "UTF8", "name": "x", "owner": "app", "template": "template0"}),
            ),
            (json!({"name": "app", "owner": "b", "template": "template0", "encoding": "utf-8"}), json!({"owner": "b"})),
        ] {
            let key = format!("postgres_database:{}", args["name"].as_str().unwrap());
            assert_eq!(want(&host(), "postgres_database.present", args.clone()).unwrap(), json!([[key, wanted]]), "{args}");
        }
        assert!(matches!(answer(&host(), "postgres_database.present", json!({"name": "app"})), Ok(Want::Nothing(_))));
        for (args, said) in [
            (json!({"lc_ctype": "de_DE.UTF-8"}), "Database app has wrong parameters which couldn't be changed on fly: ctype is C"),
            (json!({"encoding": "LATIN1"}), "Database app has wrong parameters which couldn't be changed on fly: encoding is UTF8"),
            (
                json!({"owner": "b", "owner_recurse": true}),
                "owner_recurse: True is refused: who owns each thing in the database could not be taken back",
            ),
        ] {
            let mut args = args;
            args["name"] = json!("app");
            assert_eq!(want(&host(), "postgres_database.present", args).unwrap_err(), said);
        }
    }

    #[test]
    fn what_is_absent_stays_so() {
        let gone = json!([["postgres_role:app", {}]]);
        assert_eq!(want(&host(), "postgres_user.absent", json!({"name": "app", "user": "postgres"})).unwrap(), gone);
        assert_eq!(want(&host(), "postgres_database.absent", json!({"name": "app"})).unwrap(), json!([["postgres_database:app", {}]]));
        for function in ["postgres_user.absent", "postgres_database.absent"] {
            assert!(matches!(answer(&host(), function, json!({"name": "none"})), Ok(Want::Nothing(_))));
        }
    }
}
