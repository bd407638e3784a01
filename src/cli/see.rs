//! What the compiler sees, without a host: `basalt show top|sls|low|high|pillar|grains`.
//!
//! Grains come from a file, or from this machine. States come from the state repository, or from folders named with `--file-root`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use indexmap::IndexMap;

use super::print::{Color, Printer, out};
use super::{Ended, RepositoryArgs, context};
use crate::agent::grains::collect;
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::engine::download::Downloads;
use crate::engine::tree::{HostMatcher, TreeCompiler};
use crate::lang::root::{Directory, Mount, Roots, Tree};
use crate::lang::{Compiler, HostInput, Options, What};
use crate::system::{HostExec, System};
use crate::value::{Map, Value};

#[derive(Args)]
pub struct SeeArgs {
    /// SLS to compile instead of the highstate
    #[arg(value_name = "SLS")]
    sls: Vec<String>,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
    /// The minion id; the grain `id` when left out
    #[arg(long)]
    id: Option<String>,
    /// Grains from a file of JSON or YAML instead of this machine's
    #[arg(long, value_name = "FILE")]
    grains: Option<PathBuf>,
    /// Add this pillar: JSON, or a file of JSON or YAML
    #[arg(long, value_name = "JSON|FILE")]
    pillar: Option<String>,
    /// A folder of states instead of the state repository's; several are looked through in order
    #[arg(long, value_name = "DIR")]
    file_root: Vec<PathBuf>,
    /// A folder of pillar, beside --file-root
    #[arg(long, value_name = "DIR", requires = "file_root")]
    pillar_root: Vec<PathBuf>,
    #[command(flatten)]
    repository: RepositoryArgs,
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

pub fn run(args: SeeArgs, thing: Thing, color: Color) -> Ended {
    match look(&args, thing) {
        Ok(value) if args.json => {
            let answer: Map = [("ok", Value::Bool(true)), (thing.name(), text_keys(value))].into_iter().collect();
            out(&format!("{}\n", Value::Map(answer)));
            Ok(0)
        }
        Ok(value) => {
            out(&format!("{}\n", serde_json::to_string_pretty(&text_keys(value)).unwrap_or_default()));
            Ok(0)
        }
        Err(errors) if args.json => {
            let answer: Map =
                [("ok", Value::Bool(false)), ("errors", Value::List(errors.iter().map(error_json).collect()))].into_iter().collect();
            out(&format!("{}\n", Value::Map(answer)));
            Ok(1)
        }
        Err(errors) => {
            let printer = Printer::new(false, color);
            errors.iter().for_each(|error| printer.fault(error));
            Ok(1)
        }
    }
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
    let what = if args.sls.is_empty() { What::Highstate } else { What::Sls(args.sls.clone()) };
    let tree = if args.file_root.is_empty() {
        context::tree_of(&args.repository, what, pillar).map_err(one)?
    } else {
        let (states, pillars) = (roots(&args.file_root).map_err(one)?, roots(&args.pillar_root).map_err(one)?);
        TreeCompiler {
            compiler: Compiler::new(states, pillars, Options::default()),
            what,
            pillar,
            nodegroups: Map::new(),
            downloads: Downloads::at(super::context::cache_folder()),
        }
    };
    let matcher = HostMatcher { id: &id, grains: &grains, nodegroups: &tree.nodegroups };
    let host = HostInput { id: &id, grains: &grains, pillar_override: tree.pillar.as_ref(), answers: &[], matcher: &matcher };
    match thing {
        Thing::Grains => Ok(Value::Map(grains.clone())),
        Thing::Pillar => tree.compiler.pillar_data(&host).map(Value::Map),
        Thing::Top => tree.compiler.top(&host).map(by_environment),
        Thing::High => tree.compiler.high_data(&host, &tree.what).map(Value::Map),
        Thing::Sls => tree.compiler.high_data(&host, &tree.what).map(|high| sls_of(&high)),
        Thing::Low => {
            let chunks = tree.compiler.chunks(&host, &tree.what)?;
            Ok(Value::List(chunks.into_iter().map(|chunk| Value::Map(chunk.map)).collect()))
        }
    }
}

fn grains(args: &SeeArgs) -> Result<Map> {
    let Some(path) = &args.grains else {
        let root = std::path::Path::new("/");
        return Ok(collect(&System::at(root, Box::new(HostExec::new(root, Arc::default())))));
    };
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
        Value::Map(map) => Value::Map(map.into_iter().map(|(key, value)| (key.to_text(), text_keys(value))).collect()),
        Value::List(items) => Value::List(items.into_iter().map(text_keys).collect()),
        scalar => scalar,
    }
}
