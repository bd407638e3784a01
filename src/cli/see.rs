//! What the compiler sees: `basalt show top|sls|low|high|pillar|grains`.
//!
//! Of hosts: their grains and what their templates ask come from the hosts themselves, as a plan has them. Without a host, when `--grains`
//! or `--file-root` is given: grains come from the file or from this machine, and states from the repository or the folders.

use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use indexmap::IndexMap;
use serde_json::json;

use super::context::Context;
use super::print::{Color, Paint, Printer, clean, out};
use super::{ConnectArgs, Ended, FormArgs, RepositoryArgs, ScopeArgs, TargetArgs, context, data, summary_code};
use crate::agent::grains::collect;
use crate::agent::protocol::Answer;
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::engine::answers::{Answered, Asking, bound};
use crate::engine::compile::{Answers, Attempt};
use crate::engine::decrypt::Programs;
use crate::engine::download::Downloads;
use crate::engine::plan::on_all;
use crate::engine::settings::Settings;
use crate::engine::tree::{HostMatcher, TreeCompiler};
use crate::lang::root::{Directory, Mount, Roots, Tree};
use crate::lang::{Compiler, HostInput, Options, Seen, What};
use crate::secret::Mask;
use crate::system::{HostExec, System};
use crate::value::{Map, Value};

#[derive(Args)]
pub struct SeeArgs {
    /// Which hosts, and SLS to compile instead of the highstate; only SLS with --grains or --file-root
    #[arg(value_name = "TARGET [SLS…]", num_args = 0..)]
    words: Vec<String>,
    #[command(flatten)]
    form: FormArgs,
    /// One JSON object per line
    #[arg(long)]
    pub json: bool,
    /// Add this pillar: JSON, or a file of JSON or YAML
    #[arg(long, value_name = "JSON|FILE")]
    pillar: Option<String>,
    /// Show secrets too
    #[arg(long)]
    reveal: bool,
    /// Grains from a file of JSON or YAML; no host is asked
    #[arg(long, value_name = "FILE", conflicts_with_all = ["FormArgs", "ConnectArgs"], help_heading = "Without a host")]
    grains: Option<PathBuf>,
    /// The minion id; the grain `id` when left out
    #[arg(long, help_heading = "Without a host")]
    id: Option<String>,
    /// A folder of states instead of the state repository's; several are looked through in order
    #[arg(long, value_name = "DIR", conflicts_with_all = ["FormArgs", "ConnectArgs"], help_heading = "Without a host")]
    file_root: Vec<PathBuf>,
    /// A folder of pillar, beside --file-root
    #[arg(long, value_name = "DIR", requires = "file_root", help_heading = "Without a host")]
    pillar_root: Vec<PathBuf>,
    #[command(flatten)]
    repository: RepositoryArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Thing {
    Top,
    Sls,
    High,
    Low,
    Pillar,
    Grains,
}

impl Thing {
    fn name(self) -> &'static str {
        match self {
            Thing::Top => "top",
            Thing::Sls => "sls",
            Thing::High => "high",
            Thing::Low => "low",
            Thing::Pillar => "pillar",
            Thing::Grains => "grains",
        }
    }
}

pub async fn run(args: SeeArgs, thing: Thing, color: Color) -> Ended {
    if args.grains.is_none() && args.file_root.is_empty() {
        return of_hosts(args, thing, color).await;
    }
    match look(&args, thing) {
        Ok(value) if args.json => {
            print(&ManuallyDrop::new([("ok", Value::Bool(true)), (thing.name(), text_keys(value))].into_iter().collect()));
            Ok(0)
        }
        Ok(value) => {
            out(&clean(&data::lines(&value)));
            Ok(0)
        }
        Err(errors) if args.json => {
            print(&[("ok", Value::Bool(false)), ("errors", Value::List(errors.iter().map(error_json).collect()))].into_iter().collect());
            Ok(1)
        }
        Err(errors) => {
            let printer = Printer::new(false, color);
            errors.iter().for_each(|error| printer.fault(error));
            Ok(1)
        }
    }
}

/// A line of JSON.
fn print(answer: &Map) {
    let mut line = serde_json::to_string(answer).unwrap_or_default();
    line.push('\n');
    out(&line);
}

/// Asks the hosts that are meant, as a plan does.
async fn of_hosts(args: SeeArgs, thing: Thing, color: Color) -> Ended {
    if args.id.is_some() {
        let fault = Diagnostic::new(Code::Usage, "--id is for looking without a host, and this asks the hosts of the roster");
        return Err(fault.hint("name the host as TARGET, or give --grains too").into());
    }
    if args.words.len() > 1 && matches!(thing, Thing::Top | Thing::Pillar | Thing::Grains) {
        let fault = Diagnostic::new(Code::Usage, format!("the {} of a host does not depend on SLS", thing.name()));
        return Err(fault.hint("name hosts with one TARGET: 'web*', or -L web1,web2").into());
    }
    let printer = Arc::new(Printer::new(args.json, color));
    let context = Context::open(&args.repository, &args.connect, printer.clone())?;
    let mut words = args.words.into_iter();
    let target = TargetArgs { target: words.next().unwrap_or_else(|| "*".into()), form: args.form };
    let tree = Arc::new(context.tree(&ScopeArgs { sls: words.collect(), pillar: args.pillar })?);
    let hosts = context.hosts(&target).await?;
    let mut summary = context.summary();
    let (asking, reveal) = (Asking { work: context.work.clone(), compiler: tree.clone(), mine: true }, args.reveal);
    let seen = on_all(&context.work, hosts, &mut summary, move |host| {
        let (asking, tree) = (asking.clone(), tree.clone());
        async move {
            let work = &asking.work;
            let id = host.id.clone();
            let mut session = work.session(host).await?;
            let (grains, name) = (session.grains.all.clone(), id.clone());
            let Answered { value, found } =
                asking.answered(&mut session, move |answers| view(&tree, thing, &name, &grains, answers, reveal)).await?;
            let notices: Vec<String> = session.grains.notices().into_iter().chain(found.notices).collect();
            session.close().await;
            Ok((id, value, notices))
        }
    })
    .await;
    context.work.mine.close().await;
    for (host, value, notices) in seen {
        for notice in notices {
            printer.fault(&Diagnostic::warning(Code::Failed, format!("{host}: {notice}")));
        }
        if args.json {
            printer.json(&json!({"type": "seen", "host": host, "what": thing.name(), "value": text_keys(value)}));
        } else {
            let lines = data::lines(&value);
            let lines: String = clean(&lines).lines().map(|line| format!("    {line}\n").replace("    \n", "\n")).collect();
            printer.say(&format!("{}:\n{lines}", printer.paint(Paint::Bold, &clean(&host))));
        }
    }
    printer.faults();
    Ok(summary_code(&summary))
}

fn look(args: &SeeArgs, thing: Thing) -> std::result::Result<Value, Vec<Diagnostic>> {
    let one = |error: crate::diagnostic::Error| vec![*error];
    let mut grains = grains(args).map_err(one)?;
    let id = args.id.clone().or_else(|| grains.get("id").map(Value::to_text)).unwrap_or_else(|| "minion".into());
    grains.insert("id", id.as_str());
    if thing == Thing::Grains {
        return Ok(Value::Map(grains));
    }
    let pillar = context::pillar_argument(args.pillar.as_deref()).map_err(one)?;
    let what = if args.words.is_empty() { What::Highstate } else { What::Sls(args.words.clone()) };
    let tree = if args.file_root.is_empty() {
        context::tree_of(&args.repository, what, pillar).map_err(one)?
    } else {
        let (states, pillars) = (roots(&args.file_root).map_err(one)?, roots(&args.pillar_root).map_err(one)?);
        TreeCompiler {
            compiler: Compiler::new(states, pillars, Options::default()).decrypting(Arc::new(Programs::new(&Settings::default()))),
            what,
            pillar,
            nodegroups: Map::new(),
            downloads: Downloads::at(super::context::cache_folder()),
        }
    };
    // The program ends with this command: taking apart what it read would only take time, a tenth of all.
    let tree = ManuallyDrop::new(tree);
    let mut answers = Answers::new();
    loop {
        let (found, missing) = view(&tree, thing, &id, &grains, &answers, args.reveal);
        // Where there are no hosts the mine is empty, as it is for `salt-call --local`.
        let mine: Vec<_> = missing.into_iter().filter(|call| call.function == "mine.get").collect();
        if mine.is_empty() {
            return found;
        }
        answers.extend(mine.into_iter().map(|call| {
            let empty = bound(&call, MINE).map_or_else(|error| Answer::Error(*error), |_| Answer::Value(Value::Map(Map::new())));
            (call, empty)
        }));
    }
}

/// The arguments of `mine.get`.
const MINE: [&str; 4] = ["tgt", "fun", "tgt_type", "exclude_minion"];

/// What there is to see of one host; `reveal`: secrets too.
fn view(tree: &TreeCompiler, thing: Thing, id: &str, grains: &Map, answers: &Answers, reveal: bool) -> Attempt<Value> {
    let matcher = HostMatcher { id, grains, nodegroups: &tree.nodegroups };
    let host = HostInput { id, grains, pillar_override: tree.pillar.as_ref(), answers, matcher: &matcher };
    match thing {
        Thing::Grains => (Ok(Value::Map(grains.clone())), Vec::new()),
        Thing::Pillar => attempt(tree.compiler.pillar_data(&host), reveal, Value::Map),
        Thing::Top => attempt(tree.compiler.top(&host), reveal, by_environment),
        Thing::High => attempt(tree.compiler.high_data(&host, &tree.what), reveal, Value::Map),
        Thing::Sls => attempt(tree.compiler.high_data(&host, &tree.what), reveal, |high| sls_of(&high)),
        Thing::Low => attempt(tree.compiler.chunks(&host, &tree.what), reveal, |chunks| {
            Value::List(chunks.into_iter().map(|chunk| Value::Map(Arc::unwrap_or_clone(chunk.map))).collect())
        }),
    }
}

fn attempt<T>(seen: Seen<T>, reveal: bool, value: impl FnOnce(T) -> Value) -> Attempt<Value> {
    let mask = if reveal { Mask::default() } else { Mask::new(&seen.secrets) };
    (seen.found.map(value).map(|value| if mask.is_empty() { value } else { mask.value(&value) }), seen.missing)
}

fn grains(args: &SeeArgs) -> Result<Map> {
    let Some(path) = &args.grains else {
        let root = std::path::Path::new("/");
        return Ok(collect(&System::at(root, Box::new(HostExec::new(root, Arc::default())))));
    };
    grains_of_file(path)
}

/// Grains from a file of JSON or YAML.
pub fn grains_of_file(path: &std::path::Path) -> Result<Map> {
    let name = path.display().to_string();
    let read = std::fs::read_to_string(path);
    let text = read.map_err(|e| Diagnostic { code: Code::Usage, ..Diagnostic::io(format_args!("read the grains {name}"), &e) })?;
    let value = match serde_json::from_str(&text) {
        Ok(value) => value,
        Err(_) => crate::yaml::load(&text, &name)?,
    };
    match value {
        Value::Map(map) => Ok(map),
        other => Err(Diagnostic::new(Code::Usage, format!("grains are a mapping, {name} is {}", other.kind())).into()),
    }
}

fn roots(folders: &[PathBuf]) -> Result<Roots> {
    let mut mounts = Vec::new();
    for folder in folders {
        let shown = folder.display().to_string();
        let tree = Directory::new(folder, shown.clone());
        let tree = tree.map_err(|e| Diagnostic { code: Code::Usage, ..Diagnostic::io(format_args!("open the root {shown}"), &e) })?;
        mounts.push(Mount { name: String::new(), tree: Arc::new(tree) as Arc<dyn Tree> });
    }
    Ok(Roots::base(mounts))
}

fn by_environment(top: IndexMap<String, Vec<String>>) -> Value {
    Value::Map(top.into_iter().map(|(env, names)| (env, Value::List(names.into_iter().map(Value::Str).collect()))).collect())
}

/// The SLS that ids come from, each once.
fn sls_of(high: &Map) -> Value {
    let mut names: Vec<Value> = Vec::new();
    for sls in high.0.values().filter_map(|body| body.as_map()?.get("__sls__")) {
        if !names.contains(sls) {
            names.push(sls.clone());
        }
    }
    Value::List(names)
}

fn error_json(error: &Diagnostic) -> Value {
    let mut out: Map = [("message", error.summary.clone())].into_iter().collect();
    if let Some(span) = &error.span {
        out.insert("file", &*span.file);
        out.insert("line", i64::from(span.line));
        out.insert("column", i64::from(span.column));
    }
    for (key, text) in [("detail", Some(&error.detail)), ("hint", error.hint.as_ref()), ("excerpt", error.excerpt.as_ref())] {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            out.insert(key, text.clone());
        }
    }
    Value::Map(out)
}

/// Keys of every kind as Python's `str()` writes them: what Salt's own JSON of chunks has.
fn text_keys(value: Value) -> Value {
    match value {
        Value::Map(mut map) if map.0.keys().all(|key| matches!(key, Value::Str(_))) => {
            map.0.values_mut().for_each(|value| *value = text_keys(std::mem::take(value)));
            Value::Map(map)
        }
        Value::Map(map) => Value::Map(map.into_iter().map(|(key, value)| (key.to_text(), text_keys(value))).collect()),
        Value::List(items) => Value::List(items.into_iter().map(text_keys).collect()),
        scalar => scalar,
    }
}
