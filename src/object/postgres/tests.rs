//! The law with a real server, below a temporary folder and reached by a socket there.

use std::path::{Path, PathBuf};
use std::process::Command as Process;

use super::database::Database;
use super::role::Role;
use super::{Server, literal, said};
use crate::diagnostic::Code;
use crate::object::{Object, Progress};
use crate::system::{Command, HostExec, System};
use crate::value::Attrs;
use serde_json::json;

/// A server of its own, and the host it is on.
struct Postgres {
    sys: System,
    folder: tempfile::TempDir,
    programs: PathBuf,
    server: Server,
}

impl Postgres {
    fn start() -> Option<Postgres> {
        let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path().join("bin"));
        let programs = versions.filter(|bin| bin.join("initdb").exists()).max();
        let root = rustix::process::geteuid().is_root();
        let known = |name: &str| Process::new("id").arg(name).output().is_ok_and(|out| out.status.success());
        let Some(programs) = programs.filter(|_| !root || known("postgres")) else {
            eprintln!("skipped: needs a PostgreSQL server's programs, and not root but a user postgres");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap().to_owned();
        if root {
            assert!(Process::new("chown").args(["postgres", &path]).status().unwrap().success());
        }
        let user = root.then(|| "postgres".to_owned());
        let server = Server { user, host: Some(path), login: Some("postgres".into()), ..Server::default() };
        let sys = System::at("/", Box::new(HostExec::new(Path::new("/"), Default::default())));
        let postgres = Postgres { sys, folder, programs, server };
        postgres.program("initdb", &["--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync"]);
        postgres
            .program("pg_ctl", &["start", "--silent", "--wait", "--log", &format!("{}/log", postgres.path()), "-o", &postgres.options()]);
        Some(postgres)
    }

    fn path(&self) -> String {
        self.folder.path().to_str().unwrap().to_owned()
    }

    fn options(&self) -> String {
        format!("-c listen_addresses= -c fsync=off -c unix_socket_directories={}", self.path())
    }

    fn program(&self, name: &str, args: &[&str]) {
        let program = self.programs.join(name);
        let argv = [program.to_str().unwrap(), "-D"].map(str::to_owned).into_iter().chain([format!("{}/data", self.path())]);
        let argv = argv.chain(args.iter().map(|arg| (*arg).to_owned()));
        let output = self.sys.run(&Command { user: self.server.user.clone(), ..Command::new(argv) }).unwrap();
        assert!(output.success(), "{name}: {} {}", output.text(), String::from_utf8_lossy(&output.stderr));
    }

    fn sql(&self, sql: &str) -> String {
        self.server.ask(&self.sys, None, sql).unwrap()
    }

    fn role(&self, name: &str) -> Role {
        Role::new(&self.server.name(name))
    }

    fn database(&self, name: &str) -> Database {
        Database::new(&self.server.name(name))
    }

    /// There and back, and a fault at every mutation, which the way back mends.
    fn law(&self, object: &dyn Object, to: serde_json::Value) {
        let to: Attrs = serde_json::from_value(to).unwrap();
        let before = object.read(&self.sys).unwrap();
        for fault in 1.. {
            let from = object.read(&self.sys).unwrap();
            assert_eq!(from, before);
            self.sys.fail_at(fault);
            let done = object.set(&self.sys, &from, &to, &mut Progress::new(&mut |_| {}));
            self.sys.fail_at(None);
            let now = object.read(&self.sys).unwrap();
            if let Ok(reached) = &done {
                assert_eq!(reached, &now);
                for (name, wanted) in &to {
                    assert_eq!(now.get(name).cloned().unwrap_or_default(), *wanted, "{name} of {to:?}");
                }
                assert_eq!(to.is_empty(), now.is_empty());
            }
            object.set(&self.sys, &now, &before, &mut Progress::new(&mut |_| {})).unwrap();
            assert_eq!(object.read(&self.sys).unwrap(), before, "back from {to:?}");
            if done.is_ok() {
                return;
            }
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.program("pg_ctl", &["stop", "--silent", "--mode=immediate"]);
    }
}

#[test]
fn roles_go_and_come_back() {
    let Some(pg) = Postgres::start() else { return };
    pg.sql(
        "CREATE ROLE ops NOLOGIN; CREATE ROLE readers; CREATE ROLE boss; CREATE ROLE \"o'dd \"\"name\"\"\" LOGIN PASSWORD 'md5aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' \
         VALID UNTIL '2031-02-03 04:05:06+00' CONNECTION LIMIT 3; CREATE ROLE quiet;
         ALTER ROLE \"o'dd \"\"name\"\"\" SET search_path TO a, \"B c\"; ALTER ROLE \"o'dd \"\"name\"\"\" IN DATABASE postgres SET work_mem TO '9MB';
         COMMENT ON ROLE \"o'dd \"\"name\"\"\" IS 'it''s \\ odd'; GRANT ops TO \"o'dd \"\"name\"\"\" WITH ADMIN OPTION;
         GRANT readers TO \"o'dd \"\"name\"\"\"; GRANT \"o'dd \"\"name\"\"\" TO boss WITH ADMIN OPTION; GRANT \"o'dd \"\"name\"\"\" TO quiet;",
    );
    let odd = pg.role("o'dd \"name\"");
    let before = odd.read(&pg.sys).unwrap();
    let shown = serde_json::to_value(&before).unwrap();
    assert_eq!(shown["groups"], json!(["ops", "readers"]), "{shown}");
    assert_eq!((&shown["admin_of"], &shown["admins"], &shown["members"]), (&json!(["ops"]), &json!(["boss"]), &json!(["boss", "quiet"])));
    assert_eq!((&shown["password"], &shown["connections"]), (&json!("md5aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), &json!(3)));
    pg.law(&odd, json!({}));
    pg.law(&odd, json!({"password": "md5bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", "groups": ["ops"], "login": false, "superuser": true}));
    pg.law(&odd, json!({"password": null, "valid_until": null, "connections": null, "createdb": true}));
    pg.law(
        &pg.role("new"),
        json!({"login": true, "inherit": true, "groups": ["ops", "readers"], "password": "md5aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}),
    );
    pg.law(&pg.role("a?b=c&d%"), json!({"login": false}));
    // Without a limit there is one that never ends.
    pg.law(&pg.role("quiet"), json!({"valid_until": "2031-01-01 00:00:00+00"}));
    assert_eq!(pg.role("none").read(&pg.sys).unwrap(), Attrs::new());
}

#[test]
fn times_are_as_the_server_writes_them_and_what_it_refuses_is_told() {
    let Some(pg) = Postgres::start() else { return };
    let role = pg.role("x");
    let resolve =
        |until: &str| role.resolve(&pg.sys, &Attrs::new(), &serde_json::from_value(json!({"valid_until": until})).unwrap(), &|_| false);
    assert_eq!(serde_json::to_value(resolve("Jan 2 2031 UTC").unwrap()).unwrap(), json!({"valid_until": "2031-01-02 00:00:00+00"}));
    assert_eq!(serde_json::to_value(resolve("infinity").unwrap()).unwrap(), json!({"valid_until": null}));
    let error = resolve("it's; DROP").unwrap_err();
    assert_eq!(error.summary, "PostgreSQL refuses: invalid input syntax for type timestamp with time zone: \"it's; DROP\"");
    // An error does not repeat the statement, which may hold a password.
    let to: Attrs = serde_json::from_value(json!({"groups": ["none"], "password": "hunter22"})).unwrap();
    let error = role.set(&pg.sys, &Attrs::new(), &to, &mut Progress::new(&mut |line| assert!(!line.contains("hunter22")))).unwrap_err();
    assert_eq!((error.summary.as_str(), error.detail.as_str()), ("PostgreSQL refuses: role \"none\" does not exist", ""));
    assert!(role.read(&pg.sys).unwrap().is_empty(), "half of it was done");
    assert!(!role.describe(&pg.sys, &Attrs::new(), &to).contains("hunter22"));
    // Who may not read passwords.
    pg.sql("CREATE ROLE clerk LOGIN CREATEROLE; CREATE ROLE app PASSWORD 'x';");
    let clerk = Server { login: Some("clerk".into()), database: Some("postgres".into()), ..pg.server.clone() };
    let app = Role::new(&clerk.name("app"));
    let now = app.read(&pg.sys).unwrap();
    assert!(!now.contains_key("password") && now.contains_key("password_hidden"));
    let to: Attrs = serde_json::from_value(json!({"password": "md5bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"})).unwrap();
    assert!(
        app.one_way(&pg.sys, &now, &to).is_some() && pg.role("app").one_way(&pg.sys, &pg.role("app").read(&pg.sys).unwrap(), &to).is_none()
    );
}

#[test]
fn databases_come_and_go_and_data_is_not_dropped_unsaid() {
    let Some(pg) = Postgres::start() else { return };
    pg.sql("CREATE ROLE app; CREATE ROLE other;");
    let db = pg.database("my \"db\"");
    pg.law(&db, json!({"name": "my \"db\"", "owner": "app", "encoding": "UTF8"}));
    let none = Attrs::new();
    let set =
        |from: &Attrs, to: serde_json::Value| db.set(&pg.sys, from, &serde_json::from_value(to).unwrap(), &mut Progress::new(&mut |_| {}));
    let made = set(&none, json!({"owner": "app", "encoding": "LATIN1", "template": "template0", "collate": "C", "ctype": "C"})).unwrap();
    assert_eq!((made["encoding"].as_str(), made["owner"].as_str()), (Some("LATIN1"), Some("app")));
    pg.law(&db, json!({"owner": "other"}));
    assert_eq!(super::database::owner(&db.key(), &made), Some(pg.role("app").key()));
    assert_eq!(db.destroys(&pg.sys, &made, &none), None);
    pg.server.ask(&pg.sys, Some("my \"db\""), "CREATE TABLE t (x int)").unwrap();
    assert_eq!(db.destroys(&pg.sys, &made, &none).as_deref(), Some("the database my \"db\" is dropped with everything in it"));
    assert!(set(&made, json!({})).unwrap().is_empty());
    assert_eq!(
        set(&none, serde_json::to_value(&made).unwrap()).unwrap_err().summary,
        "the database my \"db\" cannot be brought back: it was dropped with what was in it"
    );
}

#[test]
fn a_server_that_does_not_answer_is_no_answer() {
    let sys = System::at("/", Box::new(HostExec::new(Path::new("/"), Default::default())));
    let server = Server { host: Some("/nonexistent".into()), user: Some("nobody".into()), ..Server::default() };
    let error = Role::new(&server.name("x")).read(&sys).unwrap_err();
    assert_eq!(error.code, Code::Unreachable);
    assert!(error.summary.starts_with("PostgreSQL does not answer: "), "{}", error.summary);
}

#[test]
fn only_where_no_server_ever_was_one_comes_new() {
    let root = tempfile::tempdir().unwrap();
    let sys = System::at(root.path(), Box::new(HostExec::new(root.path(), Default::default())));
    let new = |key: &str| (Role::new(key).comes_new(&sys), Database::new(key).comes_new(&sys));
    assert_eq!((new("app"), new("postgres"), new("app?host=db1")), ((true, true), (false, false), (false, false)));
    std::fs::create_dir_all(root.path().join("var/lib/postgresql")).unwrap();
    assert_eq!(new("app"), (false, false));
}

#[test]
fn names_and_texts_are_quoted_and_said_again() {
    assert_eq!(literal("it's \\ a\nline"), "E'it''s \\\\ a\nline'");
    let server = Server { host: Some("a=b&c?d%".into()), port: Some("5433".into()), ..Server::default() };
    let name = server.name("x?y&z=%3D");
    assert_eq!(Server::of(&name), ("x?y&z=%3D".to_owned(), server));
    assert_eq!((Server::default().name("app").as_str(), Server::of("app")), ("app", ("app".to_owned(), Server::default())));
    for (stderr, summary) in [
        ("psql:<stdin>:3: ERROR:  role \"x\" already exists\n", "role \"x\" already exists"),
        (
            "psql: error: connection to server on socket \"/x\" failed: No such file\n\tIs the server running?\n",
            "connection to server on socket \"/x\" failed: No such file",
        ),
        ("", "no reason given"),
    ] {
        let output = crate::system::Output { stderr: stderr.into(), ..Default::default() };
        assert_eq!(said(&output), summary);
    }
}
