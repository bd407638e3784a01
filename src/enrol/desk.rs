//! The controller's side of joining: who asked, who may come, whose turn it is. Requests stand in the store, so that `basalt key` sees them and a controller that
//! was restarted goes on with them. Who is not heard of for five minutes is forgotten.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::message::{Ask, Registration, Reply};
use super::token::{self, Token};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::fleet::Host;
use crate::fleet::cluster::Node;
use crate::plan::Hash;
use crate::store::Store;

/// Seconds after which a request that nobody asks after is forgotten.
pub const IDLE: u64 = 300;
/// No more requests than this wait at a time.
const REQUESTS: usize = 256;

/// A machine that has asked to join.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// The part of its ticket that is no secret.
    pub id: String,
    hash: String,
    pub registration: Registration,
    pub from: IpAddr,
    /// Seconds since the epoch: when it asked first, and last.
    pub asked: u64,
    pub seen: u64,
    /// The token that it showed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    pub standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Somebody has to say yes or no.
    Pending,
    Accepted,
    Rejected,
}

impl Standing {
    pub fn name(self) -> &'static str {
        match self {
            Standing::Pending => "pending",
            Standing::Accepted => "accepted",
            Standing::Rejected => "rejected",
        }
    }
}

impl Request {
    /// The node that it would be.
    pub fn node(&self, joined: String) -> Result<Node> {
        let registration = &self.registration;
        let address = registration.address.clone().unwrap_or_else(|| self.from.to_string());
        let mut host = Host::new(&registration.id, address);
        host.port = registration.port;
        host.host_keys.clone_from(&registration.host_keys);
        Ok(Node {
            host,
            role: None,
            preferred: registration.preferred()?,
            joined,
            resources: Some(registration.resources()),
            cordoned: false,
        })
    }
}

/// What there is to do with a question.
#[derive(Debug)]
pub enum Next {
    Answer(Reply),
    /// Its turn to be made a node; the answer comes after that.
    Join(Box<Request>),
}

pub struct Desk<'a> {
    pub store: &'a dyn Store,
    /// The cluster's id, for people.
    pub cluster: String,
    /// The public key by which the controller comes.
    pub key: String,
    /// Whether the name that a machine would like is another one's.
    pub taken: &'a (dyn Fn(&Registration) -> Result<bool> + Send + Sync),
}

impl Desk<'_> {
    /// What a question means. Faults are told to who asked.
    pub fn next(&self, ask: Ask, from: IpAddr, now: u64) -> Next {
        let next = match ask {
            Ask::Register { token, registration } => self.register(token.as_deref(), *registration, from, now).map(Next::Answer),
            Ask::Poll { ticket } => self.poll(&ticket, now).map(Next::Answer),
            Ask::Ready { ticket } => self.ready(&ticket, now),
        };
        next.unwrap_or_else(|fault| Next::Answer(Reply::Refused { why: fault.summary }))
    }

    fn register(&self, token: Option<&str>, registration: Registration, from: IpAddr, now: u64) -> Result<Reply> {
        registration.check()?;
        let waiting = all(self.store, now)?;
        let id = registration.id.clone();
        if (self.taken)(&registration)? {
            return Err(Diagnostic::new(Code::Usage, format!("there is a host {id} already")).into());
        }
        // The same machine, once more.
        let again = |other: &&Request| other.registration.host_keys == registration.host_keys;
        if waiting.iter().any(|other| other.registration.id == id && !again(&other)) {
            return Err(Diagnostic::new(Code::Usage, format!("another machine is joining as {id}")).into());
        }
        for other in waiting.iter().filter(again) {
            self.store.delete(&key(&other.id))?;
        }
        if waiting.len() >= REQUESTS {
            return Err(Diagnostic::new(Code::Usage, "too many machines ask to join").into());
        }
        let mut registration = registration;
        let (mut standing, mut shown) = (Standing::Pending, None);
        if let Some(text) = token {
            let token = Token::parse(text)?;
            let record = token::hold(self.store, &token, &id, now, now + IDLE)?;
            registration.preferred_role = record.role.or(registration.preferred_role);
            (standing, shown) = (Standing::Accepted, Some(token.id));
        }
        let secret = token::random(32)?;
        let request = Request {
            id: token::random(8)?,
            hash: Hash::of(secret.as_bytes()).0,
            registration,
            from,
            asked: now,
            seen: now,
            token: shown,
            standing,
        };
        write(self.store, &request)?;
        Ok(self.standing(&request, format!("{}-{secret}", request.id)))
    }

    fn poll(&self, ticket: &str, now: u64) -> Result<Reply> {
        let mut request = self.of(ticket, now)?;
        request.seen = now;
        write(self.store, &request)?;
        Ok(self.standing(&request, ticket.to_owned()))
    }

    fn standing(&self, request: &Request, ticket: String) -> Reply {
        match request.standing {
            Standing::Pending => Reply::Pending { ticket },
            Standing::Accepted => Reply::Welcome { ticket, key: self.key.clone(), cluster: self.cluster.clone() },
            Standing::Rejected => Reply::Refused { why: "somebody at the controller has said no".to_owned() },
        }
    }

    fn ready(&self, ticket: &str, now: u64) -> Result<Next> {
        let request = self.of(ticket, now)?;
        match request.standing {
            Standing::Accepted => Ok(Next::Join(Box::new(request))),
            _ => Err(Diagnostic::new(Code::Usage, "nobody has said yes to this machine").into()),
        }
    }

    fn of(&self, ticket: &str, now: u64) -> Result<Request> {
        let gone = || Diagnostic::new(Code::Usage, "the controller has forgotten this request: ask again");
        let (id, secret) = ticket.split_once('-').ok_or_else(gone)?;
        let found = all(self.store, now)?.into_iter().find(|request| request.id == id);
        // Hashes: how long that takes tells nothing of the secret.
        let same = |request: &Request| Hash::of(secret.as_bytes()).0 == request.hash;
        found.filter(same).ok_or_else(|| gone().into())
    }

    /// A join has ended, one way or the other.
    pub fn ended(&self, request: &Request, joined: bool) -> Result<()> {
        if let Some(token) = &request.token {
            token::end(self.store, token, &request.registration.id, joined)?;
        }
        self.store.delete(&key(&request.id))
    }
}

fn key(id: &str) -> String {
    format!("pending/{id}")
}

fn write(store: &dyn Store, request: &Request) -> Result<()> {
    let bytes = serde_json::to_vec(request).map_err(|e| Diagnostic::new(Code::Internal, e.to_string()))?;
    store.put(&key(&request.id), &bytes)
}

/// The requests that are waiting, the oldest first. Those that nobody asks after are forgotten, and their tokens are free again.
pub fn all(store: &dyn Store, now: u64) -> Result<Vec<Request>> {
    let mut requests: Vec<Request> = Vec::new();
    for key in store.list("pending/")? {
        let Some(entry) = store.get(&key)? else { continue };
        match serde_json::from_slice::<Request>(&entry.value) {
            Ok(request) if now.saturating_sub(request.seen) < IDLE => requests.push(request),
            // What cannot be read is of another version; who sent it asks again.
            _ => store.delete(&key)?,
        }
    }
    requests.sort_by_key(|request| request.asked);
    Ok(requests)
}

/// Somebody says yes or no to the machine that would like this name.
pub fn decide(store: &dyn Store, name: &str, standing: Standing, now: u64) -> Result<Request> {
    let waiting = all(store, now)?;
    match waiting.iter().find(|request| request.registration.id == name) {
        Some(found) => {
            let request = Request { standing, ..found.clone() };
            write(store, &request)?;
            Ok(request)
        }
        None => {
            let names: Vec<&str> = waiting.iter().map(|request| request.registration.id.as_str()).collect();
            let fault = Diagnostic::new(Code::Usage, format!("no machine asks to join as {name:?}"));
            Err(match crate::diagnostic::nearest(name, names) {
                Some(near) => fault.hint(format!("did you mean {near:?}?")).into(),
                None => fault.hint("`basalt key list` has those that do").into(),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrol::token::{PIN, TokenRecord};
    use crate::store::disk::DiskStore;

    const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    fn registration(id: &str, key: &str) -> Registration {
        serde_json::from_value(serde_json::json!({
            "id": id, "cpu_cores": 4, "memory_gb": 8, "storage_gb": 100, "host_keys": [format!("ssh-ed25519 {key}")],
        }))
        .unwrap()
    }

    fn register(desk: &Desk, token: Option<&Token>, id: &str, key: &str, now: u64) -> Reply {
        let ask = Ask::Register { token: token.map(Token::to_text), registration: Box::new(registration(id, key)) };
        match desk.next(ask, FROM, now) {
            Next::Answer(reply) => reply,
            Next::Join(_) => panic!(),
        }
    }

    fn ticket(reply: Reply) -> String {
        match reply {
            Reply::Welcome { ticket, .. } | Reply::Pending { ticket } => ticket,
            other => panic!("{other:?}"),
        }
    }

    fn refused(reply: Reply) -> String {
        match reply {
            Reply::Refused { why } => why,
            other => panic!("{other:?}"),
        }
    }

    fn desk(store: &DiskStore) -> Desk<'_> {
        Desk { store, cluster: "c1".into(), key: "ssh-ed25519 AAAA".into(), taken: &|asks| Ok(asks.id == "old") }
    }

    #[test]
    fn with_a_token_it_is_its_turn_at_once_and_without_one_somebody_says_yes() {
        let folder = tempfile::tempdir().unwrap();
        let store = DiskStore::at(folder.path().to_owned());
        let desk = desk(&store);
        let token = Token::new([1; PIN]).unwrap();
        token::keep(&store, &TokenRecord::new(&token, "ann".into(), 0, 900, Some("data".into()))).unwrap();
        let mine = ticket(register(&desk, Some(&token), "n1", "AAA1", 10));
        let Next::Join(request) = desk.next(Ask::Ready { ticket: mine.clone() }, FROM, 11) else { panic!() };
        let node = request.node("now".into()).unwrap();
        assert_eq!((node.host.address.as_str(), node.preferred.map(|role| role.name())), ("192.0.2.7", Some("data")));
        assert!(refused(register(&desk, Some(&token), "n2", "AAA2", 12)).contains("n1 is joining with this token"));
        desk.ended(&request, true).unwrap();
        assert!(matches!(desk.next(Ask::Ready { ticket: mine }, FROM, 13), Next::Answer(Reply::Refused { .. })));
        assert!(refused(register(&desk, Some(&token), "n2", "AAA2", 14)).contains("used, by n1"));

        let mine = ticket(register(&desk, None, "n2", "AAA2", 20));
        assert!(matches!(desk.next(Ask::Ready { ticket: mine.clone() }, FROM, 21), Next::Answer(Reply::Refused { .. })));
        assert!(matches!(desk.next(Ask::Poll { ticket: mine.clone() }, FROM, 22), Next::Answer(Reply::Pending { .. })));
        assert!(decide(&store, "n3", Standing::Accepted, 23).unwrap_err().hint.unwrap().contains("n2"));
        decide(&store, "n2", Standing::Accepted, 23).unwrap();
        assert!(matches!(desk.next(Ask::Poll { ticket: mine.clone() }, FROM, 24), Next::Answer(Reply::Welcome { .. })));
        assert!(matches!(desk.next(Ask::Ready { ticket: mine }, FROM, 25), Next::Join(_)));
    }

    #[test]
    fn a_taken_name_a_wrong_ticket_and_a_no_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = DiskStore::at(folder.path().to_owned());
        let desk = desk(&store);
        assert_eq!(refused(register(&desk, None, "old", "AAA1", 1)), "there is a host old already");
        let mine = ticket(register(&desk, None, "n1", "AAA1", 2));
        assert_eq!(refused(register(&desk, None, "n1", "AAA2", 3)), "another machine is joining as n1");
        // The same machine may ask again, and its first ticket is worth nothing any more.
        let newer = ticket(register(&desk, None, "n1", "AAA1", 4));
        let poll = |ticket: &str, now| match desk.next(Ask::Poll { ticket: ticket.to_owned() }, FROM, now) {
            Next::Answer(reply) => reply,
            Next::Join(_) => panic!(),
        };
        assert!(refused(poll(&mine, 5)).contains("forgotten"));
        let forged = format!("{}-{}", newer.split('-').next().unwrap(), "a".repeat(32));
        assert!(refused(poll(&forged, 6)).contains("forgotten"));
        decide(&store, "n1", Standing::Rejected, 7).unwrap();
        assert!(refused(poll(&newer, 8)).contains("said no"));
    }

    #[test]
    fn who_is_not_heard_of_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let store = DiskStore::at(folder.path().to_owned());
        let desk = desk(&store);
        let mine = ticket(register(&desk, None, "n1", "AAA1", 0));
        desk.next(Ask::Poll { ticket: mine.clone() }, FROM, IDLE - 1);
        assert_eq!(all(&store, 2 * IDLE - 2).unwrap().len(), 1);
        assert_eq!(all(&store, 2 * IDLE - 1).unwrap(), []);
        assert!(matches!(desk.next(Ask::Poll { ticket: mine }, FROM, 2 * IDLE), Next::Answer(Reply::Refused { .. })));
    }
}
