//! `basalt run TARGET -- CMD…` and `basalt call TARGET MODULE.FUN ARGS`: one thing, on many hosts, now.

use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::context::Context;
use super::print::{Color, Paint, Printer, clean};
use super::{ConnectArgs, Ended, FormArgs, RepositoryArgs, ScopeArgs, TargetArgs, summary_code};
use crate::agent::protocol::{Body, Call};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::engine::answers::{Asking, Found};
use crate::engine::event::{Event, Sink};
use crate::engine::plan::on_all;
use crate::engine::session::only;
use crate::lang::function::refused;
use crate::value::{Map, Value};

#[derive(Args)]
pub struct RunArgs {
    /// Which hosts
    #[arg(value_name = "TARGET")]
    target: String,
    #[command(flatten)]
    form: FormArgs,
    #[command(flatten)]
    repository: RepositoryArgs,
    #[command(flatten)]
    connect: ConnectArgs,
    /// CMD is one line for the host's shell
    #[arg(long)]
    shell: bool,
    /// One JSON object per line
    #[arg(long)]
    pub json: bool,
    /// The command and its arguments, behind `--`
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

#[derive(Args)]
pub struct CallArgs {
    /// Which hosts
    #[arg(value_name = "TARGET")]
    target: String,
    /// The execution function: `pkg.version`
    #[arg(value_name = "MODULE.FUN")]
    function: String,
    /// Its arguments, read as YAML; `name=value` for those with a name
    #[arg(value_name = "ARGS")]
    arguments: Vec<String>,
    #[command(flatten)]
    form: FormArgs,
    #[command(flatten)]
    repository: RepositoryArgs,
    #[command(flatten)]
    connect: ConnectArgs,
    /// One JSON object per line
    #[arg(long)]
    pub json: bool,
}

pub async fn run(args: RunArgs, color: Color) -> Ended {
    let printer = Arc::new(Printer::new(args.json, color));
    let context = Context::open(&args.repository, &args.connect, printer.clone())?;
    let hosts = context.hosts(&TargetArgs { target: args.target, form: args.form }).await?;
    let (command, shell) = if args.shell { (vec![args.command.join(" ")], true) } else { (args.command, false) };
    let mut summary = context.summary();
    let work = context.work.clone();
    let results = on_all(&context.work, hosts, &mut summary, move |host| {
        let (work, command) = (work.clone(), command.clone());
        async move {
            let id = host.id.clone();
            let mut session = work.session(host).await?;
            let mut line = |body: Body| {
                if let Body::Line { text, .. } = body {
                    work.sink.event(Event::Line { host: &id, text: &text });
                }
            };
            let status = session.exec(command, shell, &mut line).await?;
            session.close().await;
            Ok((id, status))
        }
    })
    .await;
    printer.faults();
    for (host, status) in results {
        printer.json(&json!({"type": "exited", "host": host, "status": status}));
        if status != 0 {
            summary.codes.push(Code::Failed);
            printer.say(&format!("{}: {}", clean(&host), printer.paint(Paint::Red, &format!("exit status {status}"))));
        }
    }
    Ok(summary_code(&summary))
}

pub async fn call(args: CallArgs, color: Color) -> Ended {
    let printer = Arc::new(Printer::new(args.json, color));
    let call = parse_call(&args.function, &args.arguments)?;
    if let Some(fault) = refused(&call.function) {
        return Err(Diagnostic { code: Code::Usage, ..fault }.into());
    }
    let context = Context::open(&args.repository, &args.connect, printer.clone())?;
    let hosts = context.hosts(&TargetArgs { target: args.target, form: args.form }).await?;
    let mut summary = context.summary();
    let work = context.work.clone();
    // What other hosts know is not the host's to answer, and needs their pillar for what they tell.
    let asking = match call.function.as_str() {
        "mine.get" => Some(Asking { work: work.clone(), compiler: context.compiler(&ScopeArgs::default())?, mine: true }),
        _ => None,
    };
    let results = on_all(&context.work, hosts, &mut summary, move |host| {
        let (work, call, asking) = (work.clone(), call.clone(), asking.clone());
        async move {
            let id = host.id.clone();
            let mut session = work.session(host).await?;
            let mut found = Found::default();
            let value = match &asking {
                Some(asking) => {
                    let answers = asking.answer(&mut session, vec![call], &mut found).await;
                    answers.and_then(|answers| only(answers.into_iter().map(|(_, answer)| answer)))
                }
                None => session.ask_one(call).await,
            };
            session.close().await;
            Ok((id, value?, found.notices))
        }
    })
    .await;
    context.work.mine.close().await;
    for (host, value, notices) in results {
        for notice in notices {
            printer.fault(&Diagnostic::warning(Code::Failed, format!("{host}: {notice}")));
        }
        printer.event(Event::Answered { host: &host, value: &value });
    }
    printer.faults();
    Ok(summary_code(&summary))
}

/// Salt's command line: arguments are YAML, `name=value` is a named one.
fn parse_call(function: &str, arguments: &[String]) -> Result<Call> {
    let mut call = Call { function: function.to_owned(), args: Vec::new(), kwargs: Map::new() };
    let read = |text: &str| crate::yaml::load(text, "the command line").unwrap_or_else(|_| Value::str(text));
    for argument in arguments {
        match argument.split_once('=') {
            Some((name, value)) if !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_') => {
                call.kwargs.insert(name, read(value));
            }
            _ => call.args.push(read(argument)),
        }
    }
    if function.split('.').filter(|part| !part.is_empty()).count() < 2 {
        let fault = Diagnostic::new(Code::Usage, format!("{function:?} is no execution function"));
        return Err(fault.hint("name it MODULE.FUN, as in `pkg.version`").into());
    }
    Ok(call)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_yaml_and_may_have_names() {
        let call = parse_call("cmd.run", &["echo a=b c".into(), "5".into(), "cwd=/tmp".into(), "python_shell=true".into()]).unwrap();
        assert_eq!(call.args, [Value::str("echo a=b c"), Value::Int(5)]);
        assert_eq!((call.kwargs.get("cwd"), call.kwargs.get("python_shell")), (Some(&Value::str("/tmp")), Some(&Value::Bool(true))));
        assert!(parse_call("ping", &[]).is_err());
    }
}
