//! Where nodes that have come up say so: what the other side of [`announce`](crate::announce) is answered.
//!
//! An announcement is acknowledged once it stands in the store as a recovery that is due: whatever happens to the controller after that, it is not forgotten. Then it is
//! handed on; where nobody takes it in time it is left to the store, which is looked at anyway. Nobody can make a controller do more than a little by talking to it:
//! so many connections at a time, so many of one address in a minute, short lines, little patience. Nodes that the cluster does not have are not answered, and told of.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout};

use super::recovery;
use crate::announce::{Announcement, Facts, LONGEST, PATIENCE, acknowledgement, greeting, node_key, random, read};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::lang::NodeKeys;
use crate::plan::hex;
use crate::store::Store;

/// Connections at the same time.
const CONNECTIONS: usize = 64;
/// Of one address in a minute.
const A_MINUTE: u32 = 30;
const MINUTE: Duration = Duration::from_secs(60);
/// Addresses that are counted.
const ADDRESSES: usize = 4096;
/// Announcements that wait for whoever listens.
const WAITING: usize = 256;

/// A node has come up, and it stands in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Up {
    pub host: String,
    pub facts: Facts,
    pub from: SocketAddr,
}

#[derive(Debug)]
pub enum Heard {
    Up(Up),
    /// Somebody was not answered, and why. Told once a minute of an address.
    Refused(IpAddr, Diagnostic),
}

/// What an announcement is held against.
#[derive(Clone)]
pub struct Nodes {
    pub store: Arc<dyn Store>,
    /// Whether the cluster has a node of that name.
    pub known: Arc<dyn Fn(&str) -> bool + Send + Sync>,
    /// Seconds since the epoch.
    pub clock: fn() -> u64,
}

/// Listens until what it gives is dropped.
pub fn listen(listener: TcpListener, nodes: Nodes) -> mpsc::Receiver<Heard> {
    let (sender, heard) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        let (open, visits) = (Arc::new(Semaphore::new(CONNECTIONS)), Arc::new(Mutex::new(Visits::new())));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sender.closed() => return,
            };
            let Ok((stream, from)) = accepted else {
                // Too many files are open: others have to end first.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let Ok(permit) = open.clone().try_acquire_owned() else { continue };
            if !visits.lock().unwrap_or_else(PoisonError::into_inner).may_come(from.ip()) {
                continue;
            }
            let (nodes, sender, visits) = (nodes.clone(), sender.clone(), visits.clone());
            tokio::spawn(async move {
                let said = converse(stream, from, nodes).await;
                drop(permit);
                match said {
                    Ok(up) => drop(sender.try_send(Heard::Up(up))),
                    Err(fault) if visits.lock().unwrap_or_else(PoisonError::into_inner).is_told(from.ip()) => drop(fault),
                    Err(fault) => drop(sender.try_send(Heard::Refused(from.ip(), *fault))),
                }
            });
        }
    });
    heard
}

async fn converse(stream: TcpStream, from: SocketAddr, nodes: Nodes) -> Result<Up> {
    let broken = |e: std::io::Error| Diagnostic::io(format_args!("hear {from}"), &e);
    let late = |_| Diagnostic::new(Code::Unreachable, format!("{from} connects and says nothing"));
    let (reading, mut writing) = stream.into_split();
    let challenge = hex(&random::<16>()?);
    writing.write_all(greeting(&challenge).as_bytes()).await.map_err(broken)?;
    let mut line = String::new();
    let mut reading = BufReader::new(reading.take(LONGEST));
    timeout(PATIENCE, reading.read_line(&mut line)).await.map_err(late)?.map_err(broken)?;
    // The store is on a disk.
    let (announcement, answer) = tokio::task::spawn_blocking(move || written_down(&line, &challenge, &nodes))
        .await
        .map_err(|e| Diagnostic::new(Code::Internal, e.to_string()))??;
    // Who does not hear it says it again.
    let _ = timeout(PATIENCE, writing.write_all(answer.as_bytes())).await;
    Ok(Up { host: announcement.node, facts: announcement.facts, from })
}

/// Checks an announcement and writes it down; gives what acknowledges it.
fn written_down(line: &str, challenge: &str, nodes: &Nodes) -> Result<(Announcement, String)> {
    let keys = StoredKeys(nodes.store.clone());
    let announcement = read(line, challenge, |node| keys.key(node))?;
    if !(nodes.known)(&announcement.node) {
        return Err(Diagnostic::new(Code::Usage, format!("{} is no node of the cluster any more", announcement.node)).into());
    }
    recovery::begun(nodes.store.as_ref(), &announcement.node, "it has come up", (nodes.clock)())?;
    let answer = acknowledgement(&announcement, &keys.key(&announcement.node)?, challenge);
    Ok((announcement, answer))
}

/// Who has come in the last minute, and of whom it was told.
struct Visits {
    since: Instant,
    seen: HashMap<IpAddr, (u32, bool)>,
}

impl Visits {
    fn new() -> Visits {
        Visits { since: Instant::now(), seen: HashMap::new() }
    }

    fn may_come(&mut self, from: IpAddr) -> bool {
        if self.since.elapsed() >= MINUTE {
            *self = Visits::new();
        }
        if self.seen.len() >= ADDRESSES && !self.seen.contains_key(&from) {
            return false;
        }
        let (times, _) = self.seen.entry(from).or_default();
        *times += 1;
        *times <= A_MINUTE
    }

    fn is_told(&mut self, from: IpAddr) -> bool {
        self.seen.get_mut(&from).is_none_or(|(_, told)| std::mem::replace(told, true))
    }
}

/// The keys of nodes: each is made of one secret, which stands in the store.
pub struct StoredKeys(pub Arc<dyn Store>);

impl NodeKeys for StoredKeys {
    fn key(&self, node: &str) -> Result<String> {
        const KEY: &str = "announce";
        loop {
            if let Some(entry) = self.0.get(KEY)? {
                return Ok(node_key(&entry.value, node));
            }
            // Somebody may be faster.
            self.0.put_if(KEY, 0, hex(&random::<32>()?).as_bytes())?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::announce::{Options, run};
    use crate::store::disk::DiskStore;

    fn nodes(folder: &std::path::Path) -> Nodes {
        Nodes { store: Arc::new(DiskStore::at(folder)), known: Arc::new(|node| node == "h1"), clock: || 77 }
    }

    fn options(folder: &std::path::Path, to: SocketAddr, id: &str, key: &str) -> Options {
        let file = folder.join(format!("{id}.key"));
        std::fs::write(&file, format!("{key}\n")).unwrap();
        Options { to: vec!["127.0.0.1:1".parse().unwrap(), to], key: file, id: id.to_owned() }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_node_that_comes_up_is_written_down_and_acknowledged() {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (to, nodes) = (listener.local_addr().unwrap(), nodes(folder.path()));
        let mut heard = listen(listener, nodes.clone());
        let keys = StoredKeys(nodes.store.clone());
        assert_ne!(keys.key("h1").unwrap(), keys.key("h2").unwrap());
        let options_of = |id: &str, of: &str| options(folder.path(), to, id, &keys.key(of).unwrap());

        // Somebody else first; the first controller does not answer and the second does.
        let forged = options_of("h1", "h2");
        std::thread::spawn(move || run(&forged));
        let Some(Heard::Refused(_, fault)) = heard.recv().await else { panic!() };
        assert!(fault.summary.contains("has not the key"), "{fault}");
        assert_eq!(recovery::all(nodes.store.as_ref()).unwrap().len(), 0);
        let honest = options_of("h1", "h1");
        let acknowledged = tokio::task::spawn_blocking(move || run(&honest));
        let Some(Heard::Up(up)) = heard.recv().await else { panic!() };
        assert_eq!((up.host.as_str(), acknowledged.await.unwrap().unwrap()), ("h1", to));
        let known = recovery::read(nodes.store.as_ref(), "h1").unwrap().unwrap();
        assert_eq!((known.next(), known.why.as_str()), (Some(77), "it has come up"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_that_the_cluster_does_not_have_is_told_of_once() {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (to, nodes) = (listener.local_addr().unwrap(), nodes(folder.path()));
        let mut heard = listen(listener, nodes.clone());
        let gone = options(folder.path(), to, "h2", &StoredKeys(nodes.store.clone()).key("h2").unwrap());
        std::thread::spawn(move || run(&gone));
        let Some(Heard::Refused(from, fault)) = heard.recv().await else { panic!() };
        assert!(from.is_loopback() && fault.summary.contains("h2 is no node"), "{fault}");
        assert!(timeout(Duration::from_millis(1500), heard.recv()).await.is_err());
        assert!(nodes.store.get("recovery/h2").unwrap().is_none());
    }

    /// A disk that is full.
    struct Full(DiskStore);

    impl Store for Full {
        fn get(&self, key: &str) -> Result<Option<crate::store::Entry>> {
            self.0.get(key)
        }
        fn put_if(&self, _: &str, _: u64, _: &[u8]) -> Result<bool> {
            Err(Diagnostic::new(Code::Failed, "no space").into())
        }
        fn delete(&self, key: &str) -> Result<()> {
            self.0.delete(key)
        }
        fn list(&self, prefix: &str) -> Result<Vec<String>> {
            self.0.list(prefix)
        }
    }

    #[test]
    fn what_cannot_be_written_down_is_not_acknowledged() {
        let folder = tempfile::tempdir().unwrap();
        let nodes = nodes(folder.path());
        let key = StoredKeys(nodes.store.clone()).key("h1").unwrap();
        let facts = Facts { hostname: "h1".into(), mem_mib: 1, cpus: 1, node_id: "a".into() };
        let said = crate::announce::line(&Announcement { node: "h1".into(), nonce: "n".into(), facts }, &key, "c");
        assert!(written_down(&said, "c", &nodes).unwrap().1.starts_with("ok "));
        let full = Nodes { store: Arc::new(Full(DiskStore::at(folder.path()))), ..nodes };
        assert_eq!(written_down(&said, "c", &full).unwrap_err().summary, "no space");
    }

    #[test]
    fn nobody_comes_too_often() {
        let mut visits = Visits::new();
        let (a, b) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        assert_eq!((0..40).filter(|_| visits.may_come(a)).count(), 30);
        assert!(visits.may_come(b) && !visits.is_told(b) && visits.is_told(b));
        visits.since = Instant::now().checked_sub(MINUTE).unwrap();
        assert!(visits.may_come(a) && !visits.is_told(a));
    }
}
