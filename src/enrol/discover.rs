//! Finding a controller by asking the network: `--auto-discover`.
//!
//! ```text
//! newcomer, to the group 224.0.0.1 port 4505     controllers that listen for machines that join
//!   {discover, nonce}, padded             ──►
//!                                         ◄──    {content: {nonce, cluster_id, address, port, node_count}, key, signature}
//! ```
//!
//! Group and port are those of the Eos design: every host is in that group, no router passes it on, and no switch holds it back. A controller signs what it answers with the
//! key by which machines know it, and the nonce with it: an answer that was heard before is none. That a key is the right one says the token, or somebody who compares its
//! fingerprint; discovery finds, it does not vouch. Answers are no longer than questions, come from who was asked only, and are few in a second: nobody is flooded with them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use ring::signature::{ED25519, UnparsedPublicKey};
use rustix::net::sockopt::{set_ip_multicast_if_with_ifindex, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketType};
use serde::{Deserialize, Serialize};

use super::token::{PIN, random};
use super::wire::{Identity, pin_of};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::function::base64;

pub const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
pub const PORT: u16 = 4505;
/// What both sides say they speak; it is signed, too.
const SPEECH: &str = "basalt discover 1";
/// A question has this many bytes, so that nobody gets more by an answer than it sends.
const LENGTH: usize = 1024;
/// Answers of a controller in a second.
const A_SECOND: u32 = 20;
/// Questions and answers get lost: it is asked again after so much of the time (milliseconds).
const AGAIN: [u64; 3] = [0, 700, 2000];
/// Controllers that are listed; who answers more often is somebody else.
const MOST: usize = 64;
/// How every Ed25519 key begins (RFC 8410), before its 32 bytes.
const PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    speech: String,
    nonce: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    /// JSON of a `Content`, byte for byte as it is signed.
    content: String,
    key: String,
    signature: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    nonce: String,
    #[serde(flatten)]
    found: About,
}

/// What a controller says of its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    pub cluster_id: String,
    /// Where machines join; unspecified: where the answer comes from.
    pub address: std::net::IpAddr,
    pub port: u16,
    pub node_count: usize,
}

/// A controller that has answered, and the fingerprint of the key that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub about: About,
    pub pin: [u8; PIN],
}

impl Found {
    /// As `join` takes it.
    pub fn address(&self) -> String {
        SocketAddr::new(self.about.address, self.about.port).to_string()
    }
}

fn signed(content: &str) -> Vec<u8> {
    [SPEECH.as_bytes(), b"\n", content.as_bytes()].concat()
}

/// Answers questions of the network until `ended` says so. `about` is asked for each of them; where it knows nothing, nothing is answered.
pub fn answer(
    identity: Identity,
    about: impl Fn() -> Option<About> + Send + 'static,
    ended: impl Fn() -> bool + Send + 'static,
) -> Result<()> {
    let fault = |e: std::io::Error| Diagnostic { code: Code::Usage, ..Diagnostic::io(format_args!("listen at {GROUP}:{PORT}"), &e) };
    let socket = listening(SocketAddrV4::new(GROUP, PORT)).map_err(fault)?;
    std::thread::spawn(move || answer_at(&socket, &identity, about, ended));
    Ok(())
}

/// Several programs of a machine may listen to the group. Bound to its address, what was sent to this machine alone is not heard.
fn listening(at: SocketAddrV4) -> std::io::Result<UdpSocket> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &at)?;
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    Ok(socket)
}

fn answer_at(socket: &UdpSocket, identity: &Identity, about: impl Fn() -> Option<About>, ended: impl Fn() -> bool) {
    let mut bytes = [0; LENGTH + 1];
    let (mut second, mut answers) = (Instant::now(), 0);
    while !ended() {
        let Ok((length, from)) = socket.recv_from(&mut bytes) else { continue };
        if second.elapsed() >= Duration::from_secs(1) {
            (second, answers) = (Instant::now(), 0);
        }
        let question = bytes.get(..length).filter(|_| length == LENGTH && answers < A_SECOND);
        let Some(question) = question.and_then(|bytes| serde_json::from_slice::<Question>(bytes).ok()).filter(|q| q.speech == SPEECH)
        else {
            continue;
        };
        answers += 1;
        // Who does not get it asks again.
        let _ = about().map(|about| reply(identity, about, question.nonce, from));
    }
}

fn reply(identity: &Identity, mut about: About, nonce: String, to: SocketAddr) -> std::io::Result<()> {
    // A socket of its own, for its address is the one by which the asker reaches this machine.
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(to)?;
    if about.address.is_unspecified() {
        about.address = socket.local_addr()?.ip();
    }
    let content = serde_json::to_string(&Content { nonce, found: about })?;
    let signature = base64::encode(&identity.sign(&signed(&content)));
    let bytes = serde_json::to_vec(&Answer { key: base64::encode(&identity.key), signature, content })?;
    if bytes.len() <= LENGTH {
        socket.send(&bytes)?;
    }
    Ok(())
}

/// Asks all networks of this machine, and gives who answers in that time. With a pin whoever has that key is enough.
pub fn discover(pin: Option<[u8; PIN]>, patience: Duration) -> Result<Vec<Found>> {
    let fault = |e: std::io::Error| Diagnostic { code: Code::Unreachable, ..Diagnostic::io("ask the network", &e) };
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(fault)?;
    let ask = |bytes: &[u8]| {
        let mut asked = false;
        for interface in interfaces() {
            let set = set_ip_multicast_if_with_ifindex(&socket, &GROUP, &Ipv4Addr::UNSPECIFIED, interface);
            asked |= set.is_ok() && socket.send_to(bytes, (GROUP, PORT)).is_ok();
        }
        asked
    };
    collect(&socket, ask, pin, patience)
}

/// The numbers of this machine's network interfaces, but for the one to itself.
fn interfaces() -> Vec<u32> {
    let entries = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let number = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path().join("ifindex")).ok()?.trim().parse().ok();
    entries.filter(|entry| entry.file_name() != "lo").filter_map(number).collect()
}

fn collect(socket: &UdpSocket, ask: impl Fn(&[u8]) -> bool, pin: Option<[u8; PIN]>, patience: Duration) -> Result<Vec<Found>> {
    let nonce = random(32)?;
    let question = Question { speech: SPEECH.to_owned(), nonce: nonce.clone() };
    let mut question = serde_json::to_vec(&question).map_err(|e| Diagnostic::new(Code::Internal, e.to_string()))?;
    // JSON may end in blanks.
    question.resize(LENGTH, b' ');
    let begun = Instant::now();
    let mut again = AGAIN.into_iter().map(Duration::from_millis).peekable();
    let mut found: BTreeMap<([u8; PIN], String), Found> = BTreeMap::new();
    let mut bytes = [0; LENGTH];
    while let Some(left) = patience.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
        if again.peek().is_some_and(|at| begun.elapsed() >= *at) {
            if !ask(&question) && begun.elapsed() < Duration::from_millis(100) {
                return Err(Diagnostic::new(Code::Unreachable, "this machine has no network that can be asked")
                    .hint("name the controller: basalt join ADDRESS")
                    .into());
            }
            again.next();
        }
        let next = again.peek().map_or(left, |at| at.saturating_sub(begun.elapsed()).min(left));
        socket.set_read_timeout(Some(next.max(Duration::from_millis(1)))).map_err(|e| Diagnostic::io("ask the network", &e))?;
        let Ok((length, _)) = socket.recv_from(&mut bytes) else { continue };
        let Some(one) = bytes.get(..length).and_then(|bytes| heard(bytes, &nonce)) else { continue };
        if pin.is_none_or(|pin| pin == one.pin) && found.len() < MOST {
            found.insert((one.pin, one.address()), one);
        }
        if pin.is_some() && !found.is_empty() {
            break;
        }
    }
    Ok(found.into_values().collect())
}

/// What somebody answers, if it is an answer to this question and signed by the key that it has.
fn heard(bytes: &[u8], nonce: &str) -> Option<Found> {
    let answer: Answer = serde_json::from_slice(bytes).ok()?;
    let (key, signature) = (base64::decode(&answer.key)?, base64::decode(&answer.signature)?);
    let raw = key.strip_prefix(PREFIX.as_slice()).filter(|raw| raw.len() == 32)?;
    UnparsedPublicKey::new(&ED25519, raw).verify(&signed(&answer.content), &signature).ok()?;
    let content: Content = serde_json::from_str(&answer.content).ok()?;
    (content.nonce == nonce).then(|| Found { about: content.found, pin: pin_of(&key) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn about(id: &str) -> About {
        About { cluster_id: id.into(), address: Ipv4Addr::UNSPECIFIED.into(), port: 4506, node_count: 3 }
    }

    /// A controller on this machine alone, and how it is ended.
    fn controller(id: &str) -> (SocketAddr, [u8; PIN], Ended) {
        let identity = Identity::of(&Identity::make().unwrap()).unwrap();
        let socket = listening(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (at, pin, about, ended) = (socket.local_addr().unwrap(), identity.pin, about(id), Ended(Arc::default()));
        let end = ended.0.clone();
        std::thread::spawn(move || answer_at(&socket, &identity, || Some(about.clone()), || end.load(Ordering::Relaxed)));
        (at, pin, ended)
    }

    struct Ended(Arc<AtomicBool>);

    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    fn asked(of: &[SocketAddr], pin: Option<[u8; PIN]>) -> Vec<Found> {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let ask = |bytes: &[u8]| of.iter().all(|to| socket.send_to(bytes, to).is_ok());
        collect(&socket, ask, pin, Duration::from_millis(400)).unwrap()
    }

    #[test]
    fn controllers_answer_with_who_they_are() {
        let ((one, pin, _one), (two, _, _two)) = (controller("c1"), controller("c2"));
        let mut names: Vec<String> = asked(&[one, two], None).into_iter().map(|found| found.about.cluster_id).collect();
        names.sort();
        assert_eq!(names, ["c1", "c2"]);
        let found = asked(&[two, one], Some(pin));
        assert_eq!((found.len(), found[0].pin, found[0].address().as_str(), found[0].about.node_count), (1, pin, "127.0.0.1:4506", 3));
        assert_eq!(asked(&[two], Some(pin)), []);
        // A short question is not answered: it would get more than it has sent.
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        socket.send_to(br#"{"speech":"basalt discover 1","nonce":"n"}"#, one).unwrap();
        assert!(socket.recv_from(&mut [0; 2000]).is_err());
    }

    #[test]
    fn what_was_forged_or_heard_before_is_no_answer() {
        let identity = Identity::of(&Identity::make().unwrap()).unwrap();
        let said = |nonce: &str, by: &Identity| {
            let content = serde_json::to_string(&Content { nonce: nonce.into(), found: about("c1") }).unwrap();
            Answer { key: base64::encode(&by.key), signature: base64::encode(&by.sign(&signed(&content))), content }
        };
        let bytes = |answer: &Answer| serde_json::to_vec(answer).unwrap();
        let honest = said("n1", &identity);
        assert_eq!(heard(&bytes(&honest), "n1").unwrap().pin, identity.pin);
        assert_eq!(heard(&bytes(&honest), "n2"), None);
        let other = Identity::of(&Identity::make().unwrap()).unwrap();
        let claims = Answer { key: honest.key.clone(), ..said("n1", &other) };
        assert_eq!(heard(&bytes(&claims), "n1"), None);
        let content = honest.content.replace("4506", "4599");
        let changed = Answer { content, ..honest };
        assert_eq!(heard(&bytes(&changed), "n1"), None);
        for nonsense in [&b""[..], b"{}", b"\xff", &[b' '; LENGTH]] {
            assert_eq!(heard(nonsense, "n1"), None);
        }
    }
}
