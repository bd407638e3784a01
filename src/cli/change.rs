//! What commands that change the cluster have in common: the change is shown, planned as the commit that it would be, asked about, committed, applied.

use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::apply::{How, plan_and_apply};
use super::check::ready;
use super::context::{Context, cache_folder, short};
use super::print::{Paint, Printer, clean, count};
use super::{ConnectArgs, Ended, RepositoryArgs, ScopeArgs, WaveArgs};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::engine::cluster::Change;
use crate::engine::commit::{Edit, Prepared, commit_edit};
use crate::engine::repository::Snapshot;
use crate::fleet::role::{Assigned, Role};

#[derive(Args, Clone)]
pub struct ChangeArgs {
    #[command(flatten)]
    pub repository: RepositoryArgs,
    #[command(flatten)]
    pub connect: ConnectArgs,
    #[command(flatten)]
    waves: WaveArgs,
    /// Do not ask
    #[arg(short = 'y', long)]
    yes: bool,
    /// When a host fails, take the run back on every host it touched, and the commit with it
    #[arg(long, help_heading = "Run")]
    rollback_on_failure: bool,
    /// One JSON object per line
    #[arg(long, requires = "yes")]
    pub json: bool,
}

impl ChangeArgs {
    /// Of a change that is done whole or not at all.
    pub fn whole(repository: RepositoryArgs, connect: ConnectArgs, yes: bool, json: bool) -> ChangeArgs {
        ChangeArgs { repository, connect, waves: WaveArgs::default(), yes, rollback_on_failure: true, json }
    }

    /// How what is planned is carried out; with a commit, that is published first.
    pub fn how<'a>(&'a self, prepared: Option<&'a Prepared>) -> How<'a> {
        How { waves: &self.waves, yes: self.yes, rollback_on_failure: self.rollback_on_failure, prepared, judge: None }
    }

    /// Whether other runs are waited for.
    pub fn waits(&self) -> bool {
        self.waves.lock_timeout > 0
    }

    pub fn waiting(mut self, lock_timeout: u64) -> ChangeArgs {
        self.waves.lock_timeout = lock_timeout;
        self
    }
}

/// Carries out what `change` makes of the tip of the branch.
pub async fn carry_out(args: &ChangeArgs, printer: Arc<Printer>, change: impl Fn(&Snapshot) -> Result<Change>) -> Ended {
    let mut made: Option<Change> = None;
    let prepared = prepare(args, &mut |snapshot| {
        let change = change(snapshot)?;
        let edit = Some(change.edit.clone()).filter(|edit| !edit.files.is_empty());
        made = Some(change);
        Ok(edit)
    })?;
    let Some(change) = made else { return Ok(0) };
    tell(&printer, &change);
    match prepared {
        Some(prepared) => reconcile(args, printer, &prepared, &change.touched()).await,
        None => {
            printer.say("Every node has its role already.");
            Ok(0)
        }
    }
}

/// The commit that an edit of the tip of the branch would be; none, where there is nothing to edit.
pub fn prepare(args: &ChangeArgs, edit: &mut dyn FnMut(&Snapshot) -> Result<Option<Edit>>) -> Result<Option<Prepared>> {
    if args.repository.is_elsewhere() {
        return Err(Diagnostic::new(Code::Usage, "this command commits: it works on the tip of the repository's branch")
            .hint("leave out --commit, --roster and --salt-config")
            .into());
    }
    Prepared::new(&args.repository.repo, &cache_folder(), edit)
}

/// Plans these hosts as the commit would have them, asks, commits, applies.
pub async fn reconcile(args: &ChangeArgs, printer: Arc<Printer>, prepared: &Prepared, hosts: &[String]) -> Ended {
    let repository = args.repository.at_commit(&prepared.commit);
    let context = Context::open(&repository, &args.connect, printer)?;
    let hosts = context.named(hosts.iter())?;
    ready(&context, hosts.clone(), args.waits()).await?;
    let ended = plan_and_apply(&context, hosts, &ScopeArgs::default(), None, &args.how(Some(prepared))).await;
    if args.rollback_on_failure && !matches!(ended, Ok(0 | 4)) && prepared.is_published() {
        let reversed = prepared.reversed(&cache_folder())?;
        let commit = commit_edit(&args.repository.repo, &cache_folder(), &mut |_| Ok(Some(reversed.clone())))?.unwrap_or_default();
        committed(&context.printer, &commit, &reversed);
    }
    ended
}

/// Tells of a commit that has become what is wanted.
pub fn committed(printer: &Printer, commit: &str, edit: &Edit) {
    printer.json(&json!({"type": "committed", "commit": commit, "files": edit.files.keys().collect::<Vec<_>>()}));
    printer.say(&format!("Committed {}: {}", short(commit), edit.message.lines().next().unwrap_or_default()));
}

/// Who changes role, and why; how large the cluster becomes.
fn tell(printer: &Printer, change: &Change) {
    let (before, after) = (change.before.scale().name(), change.after.scale().name());
    printer.json(&json!({"type": "cluster", "nodes": change.after.nodes.len(), "scale": after}));
    let changed: Vec<&Assigned> = change.roles.iter().filter(|node| node.changes()).collect();
    let width = changed.iter().map(|node| node.id.len()).max().unwrap_or_default();
    for node in changed {
        printer.json(&json!({
            "type": "role_changed", "node": node.id, "before": node.before.map(Role::name), "role": node.role.name(), "reason": node.reason,
        }));
        let had = node.before.map_or("new", Role::name);
        let roles = printer.paint(Paint::Yellow, &format!("{had} → {}", node.role));
        printer.say(&format!("{:width$}  {roles}  ({})", clean(&node.id), clean(&node.reason)));
    }
    if before != after {
        printer.say(&format!("The cluster's scale goes from {before} to {after}."));
    }
    if change.before.nodes.len() != change.after.nodes.len() {
        printer.say(&format!("The cluster goes from {} to {}.", change.before.nodes.len(), count(change.after.nodes.len(), "node")));
    }
}
