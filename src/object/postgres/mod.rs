//! What a PostgreSQL server has: [`role`]s and [`database`]s, read and set by `psql`, which runs as the server's own user.
//!
//! SQL goes to psql's standard input, every name and text in it quoted here; nothing of it stands in an argument, where others could see it.
//! A thing is known by its name and, where that is not the server on this host under its own user, by how the server is reached:
//! `postgres_role:app?host=db1&login=admin`.
//!
//! A server that does not answer is no answer (`Code::Unreachable`): what is in it is known when an earlier state has brought or started it. Where
//! none ever was on the host, nothing of what states describe is in the one that comes.

pub mod database;
pub mod role;
#[cfg(test)]
mod tests;

use super::Progress;
use crate::diagnostic::{Code, Diagnostic, Error, Result};
use crate::system::{Command, Output, System};
use crate::value::{Attrs, Value};

/// Where distributions keep the data of servers.
const CLUSTERS: [&str; 2] = ["/var/lib/postgresql", "/var/lib/pgsql"];

/// psql's exit code for a connection that it did not get, or lost.
const NO_CONNECTION: i32 = 2;

/// How a server is reached. What is not given is psql's own default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Server {
    /// The user of the host that runs psql: `postgres` where the server is on this host, else the agent's own.
    pub user: Option<String>,
    pub host: Option<String>,
    pub port: Option<String>,
    /// The role that it logs in as.
    pub login: Option<String>,
    /// The database that it connects to: `postgres`.
    pub database: Option<String>,
}

impl Server {
    fn fields(&mut self) -> [(&'static str, &mut Option<String>); 5] {
        [
            ("user", &mut self.user),
            ("host", &mut self.host),
            ("port", &mut self.port),
            ("login", &mut self.login),
            ("database", &mut self.database),
        ]
    }

    /// The name of a thing of this server, as keys have it.
    pub fn name(&self, thing: &str) -> String {
        let mut own = self.clone();
        let given = own.fields().map(|(field, value)| value.take().map(|value| format!("{field}={}", escaped(&value))));
        let given: Vec<String> = given.into_iter().flatten().collect();
        let name = escaped(thing);
        if given.is_empty() { name } else { format!("{name}?{}", given.join("&")) }
    }

    /// The thing and its server, of a key's name.
    fn of(name: &str) -> (String, Server) {
        let (thing, rest) = name.split_once('?').unwrap_or((name, ""));
        let mut server = Server::default();
        for (field, value) in rest.split('&').filter_map(|part| part.split_once('=')) {
            if let Some((_, place)) = server.fields().into_iter().find(|(known, _)| *known == field) {
                *place = Some(plain(value));
            }
        }
        (plain(thing), server)
    }

    /// Whether it is on this host, reached by its socket.
    fn is_here(&self) -> bool {
        self.host.as_deref().is_none_or(|host| host.starts_with('/'))
    }

    /// Whether no server was ever on this host: what comes is a new one.
    fn comes_new(&self, sys: &System) -> bool {
        self.is_here() && CLUSTERS.iter().all(|path| matches!(sys.stat(path), Ok(None)))
    }

    /// Runs SQL in a database (by default the one it connects to) and gives what it prints.
    fn ask(&self, sys: &System, database: Option<&str>, sql: &str) -> Result<String> {
        let user = self.user.clone().or_else(|| self.is_here().then(|| "postgres".to_owned()));
        let database = database.or(self.database.as_deref()).unwrap_or("postgres");
        // By the environment: a name in an argument could be read as a whole way to connect (`host=…`).
        let given = [("PGHOST", &self.host), ("PGPORT", &self.port), ("PGUSER", &self.login)];
        let env = given.into_iter().filter_map(|(name, value)| value.clone().map(|value| (name.to_owned(), value)));
        let fixed = [("PGDATABASE", database), ("PGCLIENTENCODING", "UTF8"), ("PGCONNECT_TIMEOUT", "10")];
        let env = env.chain(fixed.map(|(name, value)| (name.to_owned(), value.to_owned()))).collect();
        let argv = ["psql", "--no-psqlrc", "--no-password", "--no-align", "--tuples-only", "--quiet"];
        // Terse errors do not repeat the statement, which may hold a password.
        let argv = argv.into_iter().chain(["--set=ON_ERROR_STOP=1", "--set=VERBOSITY=terse", "--file=-"]);
        let stdin = format!("SET client_min_messages TO error;\nSET datestyle TO ISO, MDY;\n{sql}\n").into_bytes();
        let output = sys.run(&Command { env, user, stdin, ..Command::new(argv) }).map_err(|error| unanswered(&error.summary))?;
        if output.success() {
            return Ok(output.text());
        }
        let said = said(&output);
        if output.status == NO_CONNECTION {
            return Err(unanswered(&said));
        }
        Err(Diagnostic::new(Code::Failed, format!("PostgreSQL refuses: {said}")).into())
    }

    /// Runs SQL that changes something; `shown` is what people see of it.
    fn change(&self, sys: &System, progress: &mut Progress, shown: &str, sql: &str) -> Result<()> {
        sys.mutating(shown)?;
        progress.say(shown);
        self.ask(sys, None, sql).map(drop)
    }

    /// The attributes that a query gives as one line of JSON; nothing where it has no row.
    fn attributes(&self, sys: &System, sql: &str) -> Result<Attrs> {
        let text = self.ask(sys, None, sql)?;
        let mut attrs = Attrs::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let row: Attrs = serde_json::from_str(line)
                .map_err(|e| Diagnostic::new(Code::Failed, format!("psql gives what cannot be read: {e}")).detail(line))?;
            attrs.extend(row.into_iter().filter(|(_, value)| !value.is_null()));
        }
        Ok(attrs)
    }
}

fn unanswered(why: &str) -> Error {
    Diagnostic::new(Code::Unreachable, format!("PostgreSQL does not answer: {why}"))
        .hint("a state that installs and starts the server must be required")
        .into()
}

/// What psql says went wrong, without where in its input.
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let line =
        text.lines().find(|line| line.contains("rror:") || line.contains("ERROR:")).or(text.lines().next()).unwrap_or("no reason given");
    let bare = line.strip_prefix("psql:<stdin>:").and_then(|rest| rest.split_once(": ")).map_or(line, |(_, rest)| rest);
    let bare = bare.strip_prefix("psql: ").unwrap_or(bare);
    let bare = bare.strip_prefix("error: ").or(bare.strip_prefix("ERROR:")).unwrap_or(bare).trim();
    bare.split(" at character ").next().unwrap_or(bare).to_owned()
}

/// A text as SQL has it, whatever the server thinks of backslashes.
fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// A name as SQL has it.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// What would end a name within a key's name, and what says so.
fn escaped(text: &str) -> String {
    text.replace('%', "%25").replace('?', "%3F").replace('&', "%26").replace('=', "%3D")
}

fn plain(text: &str) -> String {
    text.replace("%3D", "=").replace("%26", "&").replace("%3F", "?").replace("%25", "%")
}

/// No SQL can hold such a name.
fn fitting(kind: &str, name: &str) -> Result<()> {
    if name.is_empty() || name.len() > 63 || name.contains('\0') {
        return Err(Diagnostic::new(Code::Failed, format!("{name:?} cannot be the name of a {kind}: it is to have 1 to 63 bytes")).into());
    }
    Ok(())
}

/// Whether the value in `to` is wanted and another than what is there. `whole`: what is not named in `to` is to go.
fn wanted<'a>(name: &str, from: &Attrs, to: &'a Attrs, whole: bool) -> Option<Option<&'a Value>> {
    let value = to.get(name).filter(|value| !value.is_null());
    let named = to.contains_key(name) || whole;
    (named && from.get(name) != value).then_some(value)
}
