//! `basalt import TARGET`: writes SLS for what is there on hosts, into the work tree of the state repository.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::context::{Context, mark};
use super::print::{Color, Printer, clean};
use super::{ConnectArgs, Ended, RepositoryArgs, TargetArgs, summary_code};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::engine::import::{Areas, Imported, import};
use crate::engine::plan::on_all;

#[derive(Args)]
pub struct ImportArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Packages and where they come from (without such options: everything)
    #[arg(long, help_heading = "What")]
    packages: bool,
    /// Users, groups and their ssh keys
    #[arg(long, help_heading = "What")]
    users: bool,
    /// Configuration files, crontabs, mounts, time zone and language
    #[arg(long, help_heading = "What")]
    files: bool,
    /// Units that are enabled, disabled or masked otherwise than their packages do it
    #[arg(long, help_heading = "What")]
    services: bool,
    #[command(flatten)]
    repository: RepositoryArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub async fn run(args: ImportArgs, color: Color) -> Ended {
    let printer = Arc::new(Printer::new(false, color));
    let context = Context::open(&args.repository, &args.connect, printer.clone())?;
    let root = root(&context)?;
    let hosts = context.hosts(&args.target).await?;
    let all = ![args.packages, args.users, args.files, args.services].contains(&true);
    let areas =
        Areas { packages: all || args.packages, users: all || args.users, files: all || args.files, services: all || args.services };
    let mut summary = context.summary();
    let work = context.work.clone();
    let imported = on_all(&context.work, hosts, &mut summary, move |host| {
        let work = work.clone();
        async move {
            let id = host.id.clone();
            let mut session = work.session(host).await?;
            let imported = import(&mut session, areas, &mark()).await?;
            session.close().await;
            Ok((id, imported))
        }
    })
    .await;
    printer.faults();
    for (host, found) in &imported {
        write(&root, found)?;
        for path in found.files.keys().filter(|path| path.ends_with(".sls")) {
            printer.say(&format!("wrote {}", root.join(path).display()));
        }
        found.notes.iter().for_each(|note| printer.say(&format!("{}: left out: {}", clean(host), clean(note))));
    }
    if let Some((host, _)) = imported.first() {
        let entries: String = imported.iter().map(|(host, found)| format!("  '{host}':\n    - {}\n", found.sls)).collect();
        let top = root.join("top.sls");
        match top.exists() {
            false => {
                put(&top, format!("base:\n{entries}").as_bytes())?;
                printer.say(&format!("wrote {}", top.display()));
            }
            true => printer.say(&format!("Add to {}, below `base:`:\n{}", top.display(), clean_lines(&entries))),
        }
        printer.say(&format!("Then `basalt plan {}` finds nothing to change.", clean(host)));
    }
    Ok(summary_code(&summary))
}

fn clean_lines(text: &str) -> String {
    text.lines().map(clean).collect::<Vec<_>>().join("\n")
}

/// The file root in the work tree: the settings' first, `states`, or the repository itself where its top file stands there.
fn root(context: &Context) -> Result<PathBuf> {
    let folder = context.snapshot.folder.as_ref().ok_or_else(|| {
        Diagnostic::new(Code::Usage, "import writes into the work tree of a state repository, and this has none")
            .hint("`basalt init` makes one")
    })?;
    let set = context.settings.file_roots.as_ref().and_then(|roots| roots.get("base")?.first());
    Ok(match set {
        Some(root) => folder.join(root),
        None if context.snapshot.contains("top.sls") && !context.snapshot.contains("states/top.sls") => folder.clone(),
        None => folder.join("states"),
    })
}

/// Writes what was found. What was imported before is not overwritten: it may have been edited since.
fn write(root: &Path, found: &Imported) -> Result<()> {
    let place = root.join(found.sls.replace('.', "/"));
    if place.exists() {
        return Err(Diagnostic::new(Code::Usage, format!("{} is there already", place.display()))
            .hint("move it away to import anew; git shows what is different then")
            .into());
    }
    found.files.iter().try_for_each(|(path, bytes)| put(&root.join(path), bytes))
}

fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |e: std::io::Error| Diagnostic::io(format_args!("write {}", path.display()), &e);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    Ok(std::fs::write(path, bytes).map_err(failed)?)
}
