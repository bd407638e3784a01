//! cmd.*: commands, the only functions that run what they are given. None is written to a file: code and scripts go in by standard input.

use super::{Arguments, Body, mapping};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::function::args::Args;
use crate::function::cmd;
use crate::plan::Low;
use crate::system::{Command, FileKind, Output, System};
use crate::value::Value;

pub(super) const FUNCTIONS: &[(&str, Body)] = &[
    ("cmd.exec_code", |sys, a| Ok(stripped(&code(sys, a)?.stdout, a).into())),
    ("cmd.exec_code_all", |sys, a| Ok(all(&code(sys, a)?, a))),
    ("cmd.has_exec", |sys, a| Ok(which(sys, &a.text(0, "cmd")?)?.is_some().into())),
    ("cmd.retcode", |sys, a| Ok(line(sys, a)?.0.status.into())),
    ("cmd.run", |sys, a| Ok(line(sys, a)?.1.into())),
    ("cmd.run_all", |sys, a| Ok(all(&line(sys, a)?.0, a))),
    ("cmd.run_stderr", |sys, a| Ok(stripped(&line(sys, a)?.0.stderr, a).into())),
    ("cmd.run_stdout", |sys, a| Ok(stripped(&line(sys, a)?.0.stdout, a).into())),
    ("cmd.script", |sys, a| Ok(all(&script(sys, a)?, a))),
    ("cmd.shell", |sys, a| Ok(line(sys, a)?.1.into())),
    ("cmd.which", |sys, a| Ok(which(sys, &a.text(0, "cmd")?)?.map_or(Value::Null, Value::from))),
    ("cmd.which_bin", |sys, a| {
        let names = a.value(0, "cmds").and_then(Value::as_list).unwrap_or_default();
        for name in names {
            if let Some(path) = which(sys, &name.to_text())? {
                return Ok(path.into());
            }
        }
        Ok(Value::Null)
    }),
];

/// What a stream says, without the white space at its end unless `rstrip` says otherwise.
fn stripped(bytes: &[u8], args: &Arguments) -> String {
    let text = String::from_utf8_lossy(bytes);
    if args.call.kwargs.get("rstrip").is_none_or(Value::truthy) { text.trim_end().to_owned() } else { text.into_owned() }
}

fn all(output: &Output, args: &Arguments) -> Value {
    mapping([
        ("pid", Value::from(output.pid)),
        ("retcode", output.status.into()),
        ("stdout", stripped(&output.stdout, args).into()),
        ("stderr", stripped(&output.stderr, args).into()),
    ])
}

/// A command line, and what its two outputs say as they came.
fn line(sys: &System, args: &Arguments) -> Result<(Output, String)> {
    let given = args.value(0, "cmd").cloned().unwrap_or_default();
    let name = args.text(0, "cmd")?;
    let mut command = command(args, &name)?;
    if let Some(words) = given.as_list() {
        command.argv = words.iter().map(Value::to_text).collect();
    }
    command.stdin = args.call.kwargs.get("stdin").map(Value::to_text).unwrap_or_default().into_bytes();
    run(sys, &command, &name, args)
}

/// A script that the controller sends along, run by what its first line names.
fn script(sys: &System, args: &Arguments) -> Result<Output> {
    let source = args.text(0, "source")?;
    let Some(body) = args.call.kwargs.get("__script__").map(Value::to_text) else {
        return Err(args.error("runs scripts of the state repository, so it is called in templates; `basalt run --shell` runs a line"));
    };
    let interpreter = body.lines().next().and_then(|first| first.strip_prefix("#!")).map(str::trim).filter(|i| !i.is_empty());
    let interpreter = interpreter.unwrap_or("/bin/sh");
    // The kernel gives all behind the program as one argument.
    let (program, option) = interpreter.split_once(char::is_whitespace).map_or((interpreter, None), |(p, o)| (p, Some(o.trim())));
    let name = interpreter.split_whitespace().rfind(|word| !word.starts_with('-')).unwrap_or(program);
    let mut argv: Vec<String> = [Some(program), option, Some(by_input(name))].into_iter().flatten().map(str::to_owned).collect();
    match args.value(1, "args") {
        None => {}
        Some(Value::List(words)) => argv.extend(words.iter().map(Value::to_text)),
        Some(words) => argv.extend(words.to_text().split_whitespace().map(str::to_owned)),
    }
    let mut command = command(args, &source)?;
    (command.argv, command.stdin) = (argv, body.into_bytes());
    Ok(run(sys, &command, &source, args)?.0)
}

/// `cmd.exec_code(lang, code)`
fn code(sys: &System, args: &Arguments) -> Result<Output> {
    let (lang, body) = (args.text(0, "lang")?, args.value(1, "code").cloned().unwrap_or_default());
    let mut argv = vec![lang.clone(), by_input(&lang).into()];
    match args.value(3, "args") {
        None => {}
        Some(Value::List(words)) => argv.extend(words.iter().map(Value::to_text)),
        Some(word) => argv.push(word.to_text()),
    }
    let body = match &body {
        Value::List(lines) => lines.iter().map(|l| l.to_text() + "\n").collect(),
        text => text.to_text(),
    };
    let mut command = command(args, &lang)?;
    if let Some(cwd) = args.value(2, "cwd") {
        command.cwd = Some(cwd.to_text());
    }
    (command.argv, command.stdin) = (argv, body.into_bytes());
    Ok(run(sys, &command, &lang, args)?.0)
}

/// What makes an interpreter read its program from standard input and take what follows for arguments.
fn by_input(program: &str) -> &'static str {
    let name = program.rsplit('/').next().unwrap_or_default();
    match name {
        "php" => "--",
        _ if name.ends_with("sh") => "-s",
        _ => "-",
    }
}

/// The shell with this line, set up by the call's named arguments as cmd's states are by theirs.
fn command(args: &Arguments, name: &str) -> Result<Command> {
    let low = Low {
        id: name.to_owned(),
        sls: String::new(),
        state: "cmd".into(),
        fun: "run".into(),
        name: name.to_owned(),
        args: args.call.kwargs.clone(),
        requisites: Vec::new(),
        control: Default::default(),
        contents: Vec::new(),
        failed: None,
        span: None,
    };
    let mut command = cmd::shell(&Args(&low), name)?;
    command.timeout.get_or_insert(cmd::PATIENCE);
    Ok(command)
}

fn run(sys: &System, command: &Command, name: &str, args: &Arguments) -> Result<(Output, String)> {
    let mut said = Vec::new();
    let output = sys.run_streaming(command, &mut |piece| said.extend_from_slice(piece))?;
    if output.timed_out {
        let patience = command.timeout.unwrap_or(cmd::PATIENCE).as_secs();
        let summary = format!("`{name}` did not end within {patience} s and was ended");
        return Err(Diagnostic::new(Code::Failed, summary).hint("`timeout=SECONDS` gives it longer").into());
    }
    let said = stripped(&said, args);
    Ok((output, said))
}

pub(super) fn which(sys: &System, name: &str) -> Result<Option<String>> {
    let places = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let paths = if name.starts_with('/') { vec![name.to_owned()] } else { places.iter().map(|p| format!("{p}/{name}")).collect() };
    for path in paths {
        if sys.stat(&sys.resolve(&path))?.is_some_and(|s| s.kind == FileKind::File && s.mode & 0o111 != 0) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
