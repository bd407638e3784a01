//! `salt.wait_for_event`: until every identifier of a list was named by an event with a certain tag.
//!
//! An event counts that was fired since the orchestration began and that no earlier wait of it has used up: so nothing is missed between a job and the
//! wait behind it. That a host has started (`salt/minion/HOST/start`) is learnt from the host: it answers over ssh, and has been started
//! since it was last asked. That was when the orchestration began, or when it was last waited for.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::job::WaitTask;
use super::record::Record;
use super::run::{Done, Ground, Later, together};
use crate::agent::protocol::{Answer, Call};
use crate::diagnostic::{Code, Result};
use crate::engine::plan::Work;
use crate::engine::session::{Session, interrupted};
use crate::fleet::{Form, Host};
use crate::lang::glob;
use crate::value::{Map, Value};

/// From one look into the store to the next.
const LOOK: Duration = Duration::from_millis(300);
/// From one question whether hosts have started to the next.
const ASK: Duration = Duration::from_secs(2);
/// Who does not answer in this time is not up yet.
const PATIENCE: Duration = Duration::from_secs(10);

/// What waits have used up.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Heard {
    /// The keys of events.
    pub events: Vec<String>,
    /// What tells one start of a host from the next, by its id; empty where it could not be asked.
    pub starts: Map,
}

impl Heard {
    /// What another wait has used up meanwhile stays.
    pub fn add(&mut self, heard: Heard) {
        self.events.extend(heard.events);
        self.events.sort();
        self.events.dedup();
        heard.starts.iter().for_each(|(host, start)| drop(self.starts.insert(host.clone(), start.clone())));
    }
}

/// Waits. What it used up is given back, to be remembered.
pub async fn wait(ground: &dyn Ground, task: &WaitTask, record: &Record) -> Result<(Done, Heard)> {
    let mut heard = record.heard.clone();
    let mut left = task.ids.clone();
    let begun = Instant::now();
    let mut ask = begun;
    let mut stop = ground.work().stop.clone();
    loop {
        for (key, fired) in ground.bell().since(record.started)? {
            if heard.events.contains(&key) || !glob::matches(&task.tag, &fired.tag) {
                continue;
            }
            let named = fired.names(&task.event_id, &left);
            if !named.is_empty() {
                named.iter().for_each(|name| remove(&mut left, name));
                heard.events.push(key);
            }
        }
        if Instant::now() >= ask {
            for (host, start) in starts(ground, task, &left).await? {
                if !start.is_empty() && heard.starts.get(&host).map(Value::to_text).as_deref() != Some(&start) {
                    remove(&mut left, &Value::str(&host));
                    heard.starts.insert(host, start);
                }
            }
            ask = Instant::now() + ASK;
        }
        if left.is_empty() {
            let comment = format!("all events seen in {} seconds", begun.elapsed().as_secs());
            return Ok((Done { changed: !task.ids.is_empty(), failed: None, comment, codes: Vec::new() }, heard));
        }
        if begun.elapsed() >= task.timeout {
            let names: Vec<String> = left.iter().map(Value::to_text).collect();
            let why = format!("timeout value reached: within {} seconds no {} of {}", task.timeout.as_secs(), task.tag, names.join(", "));
            return Ok((Done::failed(why, Code::Failed), record.heard.clone()));
        }
        tokio::select! { () = sleep(LOOK) => {}, () = stop.pulled(1) => return Err(interrupted().into()) }
    }
}

fn remove(left: &mut Vec<Value>, one: &Value) {
    if let Some(at) = left.iter().position(|id| id == one) {
        left.remove(at);
    }
}

/// How the hosts were started that a wait is to see starting; empty for those that do not answer.
pub async fn starts(ground: &dyn Ground, task: &WaitTask, ids: &[Value]) -> Result<Vec<(String, String)>> {
    let awaited = ids.iter().filter_map(Value::as_str).filter(|id| task.event_id == "id" && ground.knows(id));
    let awaited = awaited.filter(|id| glob::matches(&task.tag, &format!("salt/minion/{id}/start")));
    let mut hosts = Vec::new();
    for id in awaited {
        hosts.extend(ground.hosts(id, Form::List).await?);
    }
    let work = ground.work();
    let each = hosts.into_iter().map(|host| -> Later<'_, (String, String)> {
        Box::pin(async move {
            let id = host.id.clone();
            (id, start_of(work, host).await.unwrap_or_default())
        })
    });
    Ok(together(each.collect()).await)
}

/// A boot of the kernel, and when the first process began: a container starts anew under the same kernel.
async fn start_of(work: &Work, host: Host) -> Option<String> {
    let until = Instant::now() + PATIENCE;
    // A connection from before may still be there, and lead nowhere.
    let mut session = Session::open_anew(work.connect.as_ref(), host, work.stop.clone(), until).await.ok()?;
    let read = |path: &str| Call { function: "file.read".to_owned(), args: vec![Value::str(path)], kwargs: Map::new() };
    let answers = session.ask(vec![read("/proc/sys/kernel/random/boot_id"), read("/proc/1/stat")]).await;
    session.close().await;
    let answers = answers.ok()?;
    let [Answer::Value(Value::Str(boot)), Answer::Value(Value::Str(first))] = answers.as_slice() else { return None };
    Some(format!("{} {}", boot.trim(), begun(first)?))
}

/// When a process began, of its line in /proc: the name in it may hold anything but the last bracket.
fn begun(stat: &str) -> Option<&str> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_start_of_a_process_stands_behind_its_name() {
        let stat = "1 (a) b) S 0 1 1 0 -1 4194560 5 6 7 8 9 10 11 12 20 0 1 0 4711 23 4\n";
        assert_eq!(super::begun(stat), Some("4711"));
        assert_eq!(super::begun("1 (sh"), None);
    }
}
