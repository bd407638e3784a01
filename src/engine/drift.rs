//! Drift as it happens: a host is planned, and over the same session its agent tells when something is touched that the plan stands on.
//!
//! What is told is a hint with names: whether anything is to be done about it the next plan says. One `watch` is one session with one plan;
//! whoever has changed the host himself (a run over another session) or has another tree drops it and begins anew, so there is no echo.

use tokio::sync::mpsc;

use super::answers::Asking;
use super::plan::{Planned, plan_host};
use super::session::unexpected;
use crate::agent::protocol::{Body, Touched, Watching};
use crate::diagnostic::Result;
use crate::fleet::Host;
use crate::plan::HostPlan;

/// What a watched host has to tell.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub host: String,
    pub news: News,
}

#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// How the host stands now that the watch begins.
    Planned(Box<HostPlan>),
    /// The watch stands: everything that is touched from the plan on is told, but for what is `unwatched`. Again where that has become more.
    Watching(Watching),
    Drifted(Vec<Touched>),
}

/// Plans a host, and tells what is touched there for as long as the session lasts. It ends well only when the command is told to stop, or
/// nobody listens any more; dropping it ends the session.
pub async fn watch(asking: Asking, host: Host, tell: mpsc::Sender<Told>) -> Result<()> {
    let id = host.id.clone();
    let mine = asking.work.mine.clone();
    let planned = plan_host(asking, host).await;
    // What other hosts know is asked anew for the next one.
    mine.close().await;
    let Planned { mut session, plan, .. } = planned?;
    let mut news = Some(News::Planned(Box::new(plan)));
    session.watch().await?;
    while let Some(now) = news.take() {
        if tell.send(Told { host: id.clone(), news: now }).await.is_err() {
            break;
        }
        news = match session.word().await? {
            None => None,
            Some(Body::Watching(watching)) => Some(News::Watching(watching)),
            Some(Body::Drifted { touched }) => Some(News::Drifted(touched)),
            Some(other) => return Err(unexpected(&other)),
        };
    }
    session.close().await;
    Ok(())
}
