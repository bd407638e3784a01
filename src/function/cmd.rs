//! cmd.*: commands and scripts. What they change nobody can know: they are one-way, unless `undo:` names the way back.

use std::time::Duration;

use super::args::Args;
use super::{Arg, ArgKind, Entry, Function, Run, There, Want};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::plan::{Hash, Key, Kind, Low};
use crate::system::Command;
use crate::value::Value;

const SHARED: [Arg; 19] = [
    Arg::new("cwd", ArgKind::Str, "", "The directory to run in."),
    Arg::new("root", ArgKind::Str, "", "Run in this directory as root directory (chroot)."),
    Arg::new("runas", ArgKind::Str, "", "The user to run as."),
    Arg::new("group", ArgKind::Str, "", "The group to run as."),
    Arg::new("shell", ArgKind::Str, "/bin/sh", "The shell that reads the command."),
    Arg::new("env", ArgKind::Any, "", "Environment variables: a mapping, or a list of mappings."),
    Arg::new("prepend_path", ArgKind::Str, "", "Directories to put before PATH."),
    Arg::new(
        "stateful",
        ArgKind::Any,
        "False",
        "The output tells whether something changed: JSON or a last line `changed=yes comment='…'`.",
    ),
    Arg::new("umask", ArgKind::Mode, "", "The file mode mask to run with."),
    Arg::new("timeout", ArgKind::Int, "", "Seconds after which the command is ended and counts as failed."),
    Arg::new("ignore_timeout", ArgKind::Bool, "False", "A command that took too long counts as a success."),
    Arg::new("stdin", ArgKind::Str, "", "What the command reads on standard input."),
    Arg::new("success_retcodes", ArgKind::Any, "", "Exit codes that are a success besides 0."),
    Arg::new("hide_output", ArgKind::Bool, "False", "Do not show the output."),
    Arg::new("output_loglevel", ArgKind::Str, "debug", "`quiet` does not show the output; else without effect."),
    Arg::new("use_vt", ArgKind::Bool, "False", "Accepted: output is always shown as it comes."),
    Arg::new("bg", ArgKind::Bool, "False", "Start it and do not wait for it."),
    Arg::new("undo", ArgKind::Str, "", "A command that takes it back; rollback runs it (basalt's own)."),
    Arg::new("python_shell", ArgKind::Bool, "True", "Accepted: the command always goes through the shell."),
];

const SCRIPT: [Arg; 24] = {
    let mut args = [Arg::new("source", ArgKind::Str, "", "The script: salt://…, a path or an address. Default: the name."); 24];
    args[1] = Arg::new("args", ArgKind::Str, "", "Arguments, as the shell reads them. Default: what follows the first word of the name.");
    args[2] = Arg::new("template", ArgKind::Str, "", "The template engine that the script goes through.");
    args[3] = Arg::new("context", ArgKind::Map, "", "Variables for the template.");
    args[4] = Arg::new("defaults", ArgKind::Map, "", "Variables for the template where context has none.");
    let mut i = 0;
    while i < SHARED.len() {
        args[5 + i] = SHARED[i];
        i += 1;
    }
    args
};

pub const FUNCTIONS: &[Entry] = &[
    Entry { name: "cmd.run", doc: "Runs a command, each time.", args: &SHARED, watches: true, parse: run },
    Entry { name: "cmd.wait", doc: "Runs a command if something it watches changes.", args: &SHARED, watches: true, parse: wait },
    Entry { name: "cmd.script", doc: "Runs a script from the state repository, each time.", args: &SCRIPT, watches: true, parse: script },
    Entry {
        name: "cmd.wait_script",
        doc: "Runs a script from the state repository if something it watches changes.",
        args: &SCRIPT,
        watches: true,
        parse: wait_script,
    },
];

/// PATH as commands of the agent have it, for `prepend_path`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

struct Cmd {
    run: Run,
    /// `cmd.wait`: runs only as a reaction.
    waits: bool,
    /// Directories that must be there, and the user it runs as.
    needs: Vec<Key>,
}

fn run(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    command(&args, &args.name(), &args.name(), None, false)
}

fn wait(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    command(&args, &args.name(), &args.name(), None, true)
}

fn script(low: &Low) -> Result<Box<dyn Function>> {
    any_script(low, false)
}

fn wait_script(low: &Low) -> Result<Box<dyn Function>> {
    any_script(low, true)
}

/// The path of the script is `$0` of the shell command: it is known only when it runs.
fn any_script(low: &Low, waits: bool) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let content = low.contents.iter().find(|c| c.name == "source");
    let content = content.ok_or_else(|| args.error(format!("{} has no script: its source was not found", low.function())))?;
    let name = args.name();
    let given = match args.str("args")? {
        Some(given) => given,
        None => name.split_once(' ').map(|(_, rest)| rest.to_owned()).unwrap_or_default(),
    };
    command(&args, &format!("\"$0\" {given}"), &name, Some(content.hash.clone()), waits)
}

fn command(args: &Args, line: &str, shown: &str, script: Option<Hash>, waits: bool) -> Result<Box<dyn Function>> {
    let command = shell(args, line)?;
    let mut needs: Vec<Key> = command.cwd.iter().map(|dir| Key::new(Kind::File, dir.clone())).collect();
    needs.extend(args.str("root")?.map(|dir| Key::new(Kind::File, dir)));
    needs.extend(command.user.iter().map(|user| Key::new(Kind::User, user.clone())));
    let undo = args.str("undo")?.map(|line| shell(args, &line)).transpose()?;
    let run = Run {
        success: exit_codes(args)?,
        one_way: undo.is_none().then(|| "a command".to_owned()),
        undo,
        stateful: args.value("stateful").is_some_and(|v| *v == Value::Bool(true) || v.as_list().is_some_and(|l| !l.is_empty())),
        quiet: args.bool("hide_output", false)? || args.str("output_loglevel")?.as_deref() == Some("quiet"),
        background: args.bool("bg", false)?,
        timeout_is_fine: args.bool("ignore_timeout", false)?,
        script,
        ..Run::new(Command { stdin: args.str("stdin")?.unwrap_or_default().into_bytes(), ..command }, shown)
    };
    Ok(Box::new(Cmd { run, waits, needs }))
}

/// So long a command may take that a condition or a template asks, where no `timeout` is named: one that never ends must not hold up the
/// plan.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A line for the shell, run the way the state's arguments say (`cwd`, `root`, `runas`, `env`, `umask`, `timeout`, `shell`).
/// Conditions of all states are run this way too.
pub fn shell(args: &Args, line: &str) -> Result<Command> {
    let shell = args.str("shell")?.unwrap_or_else(|| "/bin/sh".to_owned());
    let chroot = args.str("root")?.into_iter().flat_map(|root| ["chroot".to_owned(), root]);
    Ok(Command {
        argv: chroot.chain([shell, "-c".to_owned(), line.to_owned()]).collect(),
        env: environment(args)?,
        cwd: args.str("cwd")?.filter(|c| !c.is_empty()),
        user: args.str("runas")?,
        group: args.str("group")?,
        umask: args.mode("umask")?.and_then(|m| u32::from_str_radix(&m, 8).ok()),
        stdin: Vec::new(),
        timeout: args.int("timeout")?.and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0).map(Duration::from_secs),
    })
}

/// `env` in all its forms: a mapping, a list of mappings and of names that are to be empty.
fn environment(args: &Args) -> Result<Vec<(String, String)>> {
    let mut env = Vec::new();
    let mut add = |name: &Value, value: &Value| {
        let value = if value.is_null() { String::new() } else { value.to_text() };
        env.push((name.to_text(), value));
    };
    match args.value("env") {
        None => {}
        Some(Value::Map(map)) => map.iter().for_each(|(k, v)| add(k, v)),
        Some(Value::List(list)) => {
            for item in list {
                match item {
                    Value::Map(map) => map.iter().for_each(|(k, v)| add(k, v)),
                    Value::List(_) | Value::Null => return Err(args.error("argument env is to be a mapping or a list of mappings")),
                    name => add(name, &Value::Null),
                }
            }
        }
        Some(_) => return Err(args.error("argument env is to be a mapping or a list of mappings")),
    }
    if let Some(before) = args.str("prepend_path")? {
        let path = env.iter().rposition(|(name, _)| name == "PATH").map(|i| env.remove(i).1);
        env.push(("PATH".to_owned(), format!("{before}:{}", path.as_deref().unwrap_or(PATH))));
    }
    Ok(env)
}

/// `success_retcodes`.
pub fn exit_codes(args: &Args) -> Result<Vec<i32>> {
    let wrong = || args.error("argument success_retcodes is to be a list of whole numbers");
    let code = |v: &Value| v.to_text().trim().parse::<i32>().map_err(|_| wrong());
    match args.value("success_retcodes") {
        None => Ok(Vec::new()),
        Some(Value::List(list)) => list.iter().map(code).collect(),
        Some(one) => Ok(vec![code(one)?]),
    }
}

impl Function for Cmd {
    fn objects(&self, _: &dyn There) -> Result<Vec<Key>> {
        Ok(self.needs.clone())
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        if self.waits {
            return Ok(Want::Nothing("nothing it watches changes".to_owned()));
        }
        self.now(there)
    }

    fn react(&self, there: &dyn There, _cause: &str) -> Result<Option<Want>> {
        self.now(there).map(Some)
    }
}

impl Cmd {
    fn now(&self, there: &dyn There) -> Result<Want> {
        for key in &self.needs {
            let found = there.get(key);
            let fine = match key.kind {
                Kind::File => matches!(found.get("kind").and_then(Value::as_str), Some("directory" | "symlink")),
                _ => !found.is_empty(),
            };
            if fine {
                continue;
            }
            if there.uncertain() {
                let what = if key.kind == Kind::File { "the directory" } else { "the user" };
                return Ok(Want::Unknown(format!("whether {what} {} will be there is known after an earlier command", key.name)));
            }
            return Err(Diagnostic::new(
                Code::Failed,
                match key.kind {
                    Kind::File => format!("Desired working directory \"{}\" is not available", key.name),
                    _ => format!("user {} is not available", key.name),
                },
            )
            .into());
        }
        if let Some(script) = &self.run.script {
            there.bytes(script)?;
        }
        Ok(Want::Run(self.run.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(json: &str) -> Result<Vec<(String, String)>> {
        let low = serde_json::json!({"id": "x", "sls": "s", "state": "cmd", "fun": "run", "name": "x",
            "args": serde_json::from_str::<serde_json::Value>(json).unwrap()});
        environment(&Args(&serde_json::from_value(low).unwrap()))
    }

    #[test]
    fn environment_is_read_in_all_its_forms() {
        let pairs = |list: &[(&str, &str)]| list.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<Vec<_>>();
        assert_eq!(env(r#"{"env": {"A": 1, "B": null}}"#).unwrap(), pairs(&[("A", "1"), ("B", "")]));
        assert_eq!(env(r#"{"env": [{"A": "x", "B": true}, "C"]}"#).unwrap(), pairs(&[("A", "x"), ("B", "True"), ("C", "")]));
        assert_eq!(env(r#"{"env": {"PATH": "/b"}, "prepend_path": "/a"}"#).unwrap(), pairs(&[("PATH", "/a:/b")]));
        assert!(env(r#"{"env": "A=1"}"#).is_err());
    }
}
