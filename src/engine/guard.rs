//! The controller's part of a guarded run: reaches the host over a wholly new connection and confirms the run, or learns that the host has
//! taken it back.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::apply::TakenBack;
use super::event::Event;
use super::plan::Work;
use super::session::{Session, Stop};
use crate::agent::protocol::{Applied, RunHeader, Settled};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::fleet::Host;

/// How long a host may take to take a run back, and to be reached again behind that.
const RETURN: Duration = Duration::from_secs(90);
/// How long it is tried to tell a host that the user does not want the run any more: by itself it takes it back anyway.
const FAREWELL: Duration = Duration::from_secs(10);
/// From one attempt to the next: longer each time, so that nobody is locked out for knocking too often.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// What became of a guarded run.
pub enum End {
    /// It stays. As the host's journal has it, where the session did not live to hear it.
    Confirmed(Applied),
    TakenBack(TakenBack),
    /// It had not begun.
    Nothing,
}

/// Settles a run that has ended, or with which the connection was lost. `ended`: it came to its own end, so that it may stay. One that was
/// stopped, before its end or while it is to be confirmed, is not to stay.
pub async fn settle(work: &Work, host: &Host, run: &RunHeader, seconds: u64, ended: bool) -> Result<End> {
    work.sink.event(Event::Busy { host: &host.id, with: "confirming over a new connection" });
    let mut stop = work.stop.clone();
    let mut keep = ended && !stop.is_pulled();
    let wait = |keep| Instant::now() + if keep { Duration::from_secs(seconds) + RETURN } else { FAREWELL };
    let mut until = wait(keep);
    // Late in the time allowed it may be the host's own taking back that refuses: services start anew. What was seen before is the reason.
    let telling = Instant::now() + Duration::from_secs(seconds) / 2;
    let (mut last, mut pause): (Option<Diagnostic>, _) = (None, FIRST_PAUSE);
    loop {
        let begun = Instant::now();
        // Who says that it is not to stay is not stopped from saying so.
        let patience = if keep { stop.clone() } else { Stop::new().1 };
        match ask(work, host, run, keep, patience, until).await {
            Ok(Settled::Confirmed(applied)) => return Ok(End::Confirmed(applied)),
            Ok(Settled::NotBegun) => return Ok(End::Nothing),
            Ok(Settled::TakenBack { by, tally, whole }) => {
                let why = match last {
                    _ if !keep => "it was stopped".to_owned(),
                    Some(fault) => fault.summary,
                    None => "it was not confirmed in time".to_owned(),
                };
                return Ok(End::TakenBack(TakenBack { by, tally, whole, why }));
            }
            Err(fault) if last.is_none() || begun < telling => last = Some(*fault),
            Err(_) => {}
        }
        if keep {
            tokio::select! {
                () = sleep(pause) => {}
                () = stop.pulled(1) => {
                    (keep, pause) = (false, Duration::ZERO);
                    until = wait(keep);
                }
            }
        } else {
            sleep(pause).await;
        }
        if Instant::now() >= until {
            return Err(if keep { lost(host, run, last) } else { left(run, seconds) });
        }
        pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
    }
}

async fn ask(work: &Work, host: &Host, run: &RunHeader, keep: bool, stop: Stop, until: Instant) -> Result<Settled> {
    let mut session = Session::open_anew(work.connect.as_ref(), host.clone(), stop, until).await?;
    let settled = session.confirm(&run.id, keep).await;
    session.close().await;
    settled
}

/// The user does not want it confirmed, and the host cannot be told.
fn left(run: &RunHeader, seconds: u64) -> crate::diagnostic::Error {
    Diagnostic::new(Code::Interrupted, format!("stopped by the user before run {} was confirmed", run.id))
        .detail(format!("The host takes it back by itself within {seconds} s."))
        .into()
}

fn lost(host: &Host, run: &RunHeader, last: Option<Diagnostic>) -> crate::diagnostic::Error {
    let last = last.map(|fault| fault.to_string()).unwrap_or_default();
    Diagnostic::new(Code::Unreachable, format!("{} could not be reached to confirm run {}, nor behind that", host.id, run.id))
        .detail(format!("The host takes the run back by itself, but nobody could see it.\n{last}"))
        .hint("its journal tells: `basalt plan` says so when it can be reached again")
        .into()
}
