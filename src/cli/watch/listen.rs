//! `watch --listen`: a node that has come up says so, and is looked at at once.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::Desk;
use crate::announce::address;
use crate::cli::context::now;
use crate::diagnostic::{Code, Diagnostic, Result, Severity};
use crate::watch::cause::{Cause, Causes};
use crate::watch::recovery;
use crate::watch::up::{Heard, Nodes, listen};

pub async fn open(at: &str, desk: &Arc<Desk>, causes: Causes) -> Result<()> {
    let at = address(at).map_err(|why| Diagnostic::new(Code::Usage, why))?;
    let fault = |e: std::io::Error| Diagnostic { code: Code::Usage, ..Diagnostic::io(format_args!("listen at {at}"), &e) };
    let listener = TcpListener::bind(at).await.map_err(fault)?;
    let hosts = desk.clone();
    let known = Arc::new(move |node: &str| hosts.known().hosts.contains(node));
    let nodes = Nodes { store: desk.means.store.clone(), known, clock: now };
    tokio::spawn(pass_on(listen(listener, nodes), desk.clone(), causes));
    Ok(())
}

async fn pass_on(mut heard: mpsc::Receiver<Heard>, desk: Arc<Desk>, causes: Causes) {
    while let Some(heard) = heard.recv().await {
        match heard {
            Heard::Up(up) => {
                // What was written down is what the next try goes on with.
                if let Ok(Some(recovery)) = recovery::read(desk.means.store.as_ref(), &up.host) {
                    desk.known().recoveries.insert(up.host.clone(), recovery);
                }
                if causes.send(Cause::Up { host: up.host }).await.is_err() {
                    return;
                }
            }
            Heard::Refused(from, fault) => {
                let summary = format!("{from} says that it has come up and is not believed: {}", fault.summary);
                desk.printer.fault(&Diagnostic { severity: Severity::Warning, ..Diagnostic::new(fault.code, summary) });
            }
        }
    }
}
