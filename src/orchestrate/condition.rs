//! `onlyif`, `unless`, `creates` and `check_cmd` of jobs: they are about the machine that the orchestration runs on, as those of Salt's are about the master.

use super::run::Ground;
use crate::agent::protocol::{Call, PlanRequest};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::engine::session::Blobs;
use crate::plan::{Control, Low};
use crate::value::Value;

/// Why its conditions keep a job from running, or none does. The agent of this machine decides it as it does for states: it is asked whether a state
/// that always changes something, under the same conditions, would.
pub async fn kept(ground: &dyn Ground, low: &Low, test: bool) -> Result<Option<String>> {
    let Control { unless, onlyif, creates, .. } = low.control.clone();
    if unless.is_empty() && onlyif.is_empty() && creates.is_empty() {
        return Ok(None);
    }
    let why = match (onlyif.is_empty(), unless.is_empty(), creates.as_slice()) {
        (false, true, []) => "onlyif condition is false".to_owned(),
        (true, false, []) => "unless condition is true".to_owned(),
        (true, true, [path]) => format!("{path} exists"),
        (true, true, _) => "all files in creates exist".to_owned(),
        _ => "its conditions keep it from running".to_owned(),
    };
    let asked = Low {
        state: "test".to_owned(),
        fun: "succeed_with_changes".to_owned(),
        args: [("name", low.name.as_str())].into_iter().collect(),
        requisites: Vec::new(),
        control: Control { unless, onlyif, creates, ..Control::default() },
        ..low.clone()
    };
    let work = ground.work();
    let mut session = work.session(ground.here()).await?;
    let request = PlanRequest {
        lows: vec![asked],
        secrets: Vec::new(),
        key: String::new(),
        // Where nothing is to be run before apply, it is known then.
        commands: work.commands || !test,
        ran: Vec::new(),
        grains: session.grains.own.clone(),
        origin: work.origin.to_string(),
        prune: None,
    };
    let planned = session.plan(request, &Blobs::new()).await;
    session.close().await;
    let steps = planned?.steps;
    match steps.iter().find_map(|step| step.fails.clone()) {
        Some(fault) => Err(Diagnostic::new(Code::Failed, fault).into()),
        None => Ok(steps.is_empty().then_some(why)),
    }
}

/// What `check_cmd` says of a job that was carried out: Salt lets it decide alone. `None`: there is none.
pub async fn checked(ground: &dyn Ground, low: &Low) -> Result<Option<bool>> {
    if low.control.check_cmd.is_empty() {
        return Ok(None);
    }
    let mut session = ground.work().session(ground.here()).await?;
    let mut well = true;
    for line in &low.control.check_cmd {
        let call = Call {
            function: "cmd.retcode".to_owned(),
            args: vec![Value::str(line)],
            kwargs: [("python_shell", true)].into_iter().collect(),
        };
        well = match session.ask_one(call).await {
            Ok(status) => status == Value::Int(0),
            Err(fault) => {
                session.close().await;
                return Err(fault);
            }
        };
        if !well {
            break;
        }
    }
    session.close().await;
    Ok(Some(well))
}
