//! `basalt role`: which node is there for what, and why.

use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::json;

use super::change::{ChangeArgs, carry_out};
use super::opened::Opened;
use super::print::{Color, Paint, Printer, clean};
use super::{Ended, ShowArgs};
use crate::engine::cluster;
use crate::fleet::role::Role;

#[derive(Subcommand)]
pub enum RoleCommand {
    /// The roles of all nodes, and what they should be
    Show(ShowArgs),
    /// Give a node a role; the others are calculated anew
    Assign(RoleAssignArgs),
    /// Give every node the role that it should have by the number of nodes
    Recalculate(ChangeArgs),
}

impl RoleCommand {
    pub fn json(&self) -> bool {
        match self {
            RoleCommand::Show(args) => args.json,
            RoleCommand::Assign(args) => args.change.json,
            RoleCommand::Recalculate(args) => args.json,
        }
    }
}

#[derive(Args)]
pub struct RoleAssignArgs {
    /// The node's minion id
    node: String,
    /// monolith, edge, core, data, message, observe, compute or app
    role: Role,
    #[command(flatten)]
    change: ChangeArgs,
}

pub async fn run(command: RoleCommand, color: Color) -> Ended {
    let printer = Arc::new(Printer::new(command.json(), color));
    match command {
        RoleCommand::Show(args) => show(&args, &printer),
        RoleCommand::Assign(args) => carry_out(&args.change, printer, |snapshot| cluster::assign(snapshot, &args.node, args.role)).await,
        RoleCommand::Recalculate(args) => carry_out(&args, printer, cluster::recalculate).await,
    }
}

fn show(args: &ShowArgs, printer: &Printer) -> Ended {
    let opened = Opened::at(&args.repository, args.repository.commit.as_deref())?;
    let cluster = cluster::read(&opened.snapshot)?;
    let width = cluster.nodes.iter().map(|node| node.host.id.len()).max().unwrap_or_default();
    for (node, should) in cluster.nodes.iter().zip(cluster.assign()) {
        let has = node.role.map_or("none", Role::name);
        printer.json(&json!({
            "type": "role", "node": node.host.id, "role": node.role.map(Role::name), "preferred": node.preferred.map(Role::name),
            "should": should.role.name(), "reason": should.reason,
        }));
        let more = match should.changes() {
            true => printer.paint(Paint::Yellow, &format!("should be {} ({})", should.role, clean(&should.reason))),
            false => String::new(),
        };
        printer.say(format!("{:width$}  {has:<8}  {more}", clean(&node.host.id)).trim_end());
    }
    printer.json(&json!({"type": "cluster", "nodes": cluster.nodes.len(), "scale": cluster.scale().name()}));
    match cluster.nodes.len() {
        0 => printer.say("The cluster has no nodes: `basalt node add ID ADDRESS` adds one."),
        count => printer.say(&format!("{}, scale {}", super::print::count(count, "node"), cluster.scale().name())),
    }
    Ok(0)
}
