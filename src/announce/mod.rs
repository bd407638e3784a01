//! `basalt-agent announce`, on nodes: a node that has come up says so to its controllers, until one of them acknowledges.
//!
//! ```text
//! node                                       controller (`basalt watch --listen`)
//!   connects                         ◄──     basalt-up 1 CHALLENGE
//!   MAC {node, nonce, hostname, memMiB, cpus, nodeId} ──►   checks the MAC, writes it down
//!                                    ◄──     ok MAC
//! ```
//!
//! Each line has an HMAC-SHA256 with the node's own key, over what the other side has just made up: neither an announcement nor its acknowledgement can be forged, nor
//! said again later. What is said is no secret, and a hint at most: the controller then comes by ssh, with the host keys that it knows. So there is no TLS here.
//!
//! Controllers are tried in turn; between two rounds a node waits a second, then twice as long each time up to a minute, and up to half of that more by chance, so that a
//! cluster that has power again does not knock all at once.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::diagnostic::{Code, Diagnostic, Result};
use crate::plan::{hex, hmac};

/// The port when none is said.
pub const PORT: u16 = 4507;
/// No line is longer.
pub const LONGEST: u64 = 2048;
/// For a connection, and for each line.
pub const PATIENCE: Duration = Duration::from_secs(10);
const FIRST: Duration = Duration::from_secs(1);
const LAST: Duration = Duration::from_secs(60);
/// How a controller's first line begins.
const GREETING: &str = "basalt-up 1 ";

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Announcement {
    /// Its minion id.
    pub node: String,
    /// Made up for this announcement; the acknowledgement answers it.
    pub nonce: String,
    #[serde(flatten)]
    pub facts: Facts,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    pub hostname: String,
    #[serde(rename = "memMiB")]
    pub mem_mib: u64,
    pub cpus: u64,
    /// Its machine id.
    #[serde(rename = "nodeId")]
    pub node_id: String,
}

/// The key of a node, made of the controllers' own secret.
pub fn node_key(secret: &[u8], node: &str) -> String {
    hex(&hmac(secret, &[b"the key of a node\n", node.as_bytes()]))
}

/// A controller's first line.
pub fn greeting(challenge: &str) -> String {
    format!("{GREETING}{challenge}\n")
}

/// A node's line.
pub fn line(announcement: &Announcement, key: &str, challenge: &str) -> String {
    let body = serde_json::to_string(announcement).unwrap_or_default();
    format!("{} {body}\n", announcing(key, challenge, &body))
}

/// What a node's line says, if it is of the node that it names. `key` is asked for the key of that node.
pub fn read(line: &str, challenge: &str, key: impl FnOnce(&str) -> Result<String>) -> Result<Announcement> {
    let nonsense = || Diagnostic::new(Code::Usage, "it does not announce itself as a node does");
    let (mac, body) = line.trim_end_matches('\n').split_once(' ').ok_or_else(nonsense)?;
    let announcement: Announcement = serde_json::from_str(body).map_err(|_| nonsense())?;
    if !same(mac, &announcing(&key(&announcement.node)?, challenge, body)) {
        return Err(Diagnostic::new(Code::Usage, "it has not the key of the node that it says it is").into());
    }
    Ok(announcement)
}

/// A controller's answer, once the announcement is written down.
pub fn acknowledgement(announcement: &Announcement, key: &str, challenge: &str) -> String {
    format!("ok {}\n", acknowledging(key, challenge, &announcement.nonce))
}

fn announcing(key: &str, challenge: &str, body: &str) -> String {
    hex(&hmac(key.as_bytes(), &[b"announce\n", challenge.as_bytes(), b"\n", body.as_bytes()]))
}

fn acknowledging(key: &str, challenge: &str, nonce: &str) -> String {
    hex(&hmac(key.as_bytes(), &[b"acknowledge\n", challenge.as_bytes(), b"\n", nonce.as_bytes()]))
}

/// Compares in a time that tells nothing of where they differ.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

/// How a node announces itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The controllers.
    pub to: Vec<SocketAddr>,
    /// The file with the node's key.
    pub key: PathBuf,
    /// The node's minion id.
    pub id: String,
}

impl Options {
    /// From the words of a command line.
    pub fn parse(mut words: impl Iterator<Item = String>) -> std::result::Result<Options, String> {
        let mut options = Options::default();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "--to" => options.to.push(address(&value()?)?),
                "--key" => options.key = value()?.into(),
                "--id" => options.id = value()?,
                _ => return Err(format!("announce knows no argument {word}")),
            }
        }
        if options.to.is_empty() || options.id.is_empty() || options.key.as_os_str().is_empty() {
            return Err("announce needs --to ADDRESS[:PORT] (once or more), --key FILE and --id ID".to_owned());
        }
        Ok(options)
    }
}

/// Names are not looked up: a node that comes up may be before its name servers.
pub fn address(text: &str) -> std::result::Result<SocketAddr, String> {
    let alone = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT));
    alone.or_else(|_| text.parse()).map_err(|_| format!("{text:?} is no address: 192.0.2.1, 192.0.2.1:4507 or [2001:db8::1]:4507"))
}

/// Says that this node has come up until some controller acknowledges; gives its address.
pub fn run(options: &Options) -> Result<SocketAddr> {
    let mut pause = FIRST;
    loop {
        // Both may be put right while this is waiting.
        let facts = Facts::of(Path::new("/"));
        let key = std::fs::read_to_string(&options.key).map_err(|e| Diagnostic::io(format_args!("read {}", options.key.display()), &e))?;
        for to in &options.to {
            if let Ok(true) = announce(*to, key.trim(), &options.id, facts.clone()) {
                return Ok(*to);
            }
        }
        let chance = u32::from(random::<1>()?[0]);
        std::thread::sleep(pause + pause * chance / 512);
        pause = (pause * 2).min(LAST);
    }
}

/// Says it to one controller; whether that acknowledges.
fn announce(to: SocketAddr, key: &str, id: &str, facts: Facts) -> Result<bool> {
    let announcement = Announcement { node: id.to_owned(), nonce: hex(&random::<16>()?), facts };
    let said = || -> std::io::Result<bool> {
        let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut lines = BufReader::new((&stream).take(LONGEST));
        let (mut greeting, mut answer) = (String::new(), String::new());
        lines.read_line(&mut greeting)?;
        let Some(challenge) = greeting.trim_end().strip_prefix(GREETING) else { return Ok(false) };
        (&stream).write_all(line(&announcement, key, challenge).as_bytes())?;
        lines.read_line(&mut answer)?;
        Ok(answer.strip_prefix("ok ").is_some_and(|mac| same(mac.trim_end(), &acknowledging(key, challenge, &announcement.nonce))))
    };
    said().map_err(|e| Diagnostic::io(format_args!("announce to {to}"), &e).into())
}

impl Facts {
    fn of(root: &Path) -> Facts {
        let text = |file: &str| std::fs::read_to_string(root.join(file)).unwrap_or_default();
        let total =
            text("proc/meminfo").lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().split(' ').next()?.parse::<u64>().ok());
        Facts {
            hostname: text("proc/sys/kernel/hostname").trim().to_owned(),
            mem_mib: total.unwrap_or_default() / 1024,
            cpus: std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64),
            node_id: text("etc/machine-id").trim().to_owned(),
        }
    }
}

/// Bytes that nobody can know beforehand.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut bytes));
    read.map_err(|e| Diagnostic::io("read /dev/urandom", &e))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn announcement() -> Announcement {
        let facts = Facts { hostname: "store1".into(), mem_mib: 7900, cpus: 4, node_id: "abc".into() };
        Announcement { node: "h1".into(), nonce: "n1".into(), facts }
    }

    fn key(node: &str) -> Result<String> {
        Ok(node_key(b"secret", node))
    }

    #[test]
    fn what_was_forged_or_heard_before_is_not_taken() {
        let mine = key("h1").unwrap();
        let said = line(&announcement(), &mine, "c1");
        assert!(
            said.ends_with(" {\"node\":\"h1\",\"nonce\":\"n1\",\"hostname\":\"store1\",\"memMiB\":7900,\"cpus\":4,\"nodeId\":\"abc\"}\n"),
            "{said}"
        );
        assert_eq!(read(&said, "c1", key).unwrap(), announcement());
        // Said again to another challenge; changed on the way; with the key of another; an acknowledgement as an announcement.
        assert!(read(&said, "c2", key).is_err());
        assert!(read(&said.replace("7900", "7901"), "c1", key).is_err());
        assert!(read(&line(&announcement(), &key("h2").unwrap(), "c1"), "c1", key).is_err());
        let body = said.split_once(' ').unwrap().1;
        assert!(read(&format!("{} {body}", acknowledging(&mine, "c1", "n1")), "c1", key).is_err());
        for nonsense in ["", "x", "GET / HTTP/1.1", " {}", &said.replace("\"cpus\"", "\"more\":1,\"cpus\"")] {
            assert!(read(nonsense, "c1", key).is_err(), "{nonsense:?}");
        }
    }

    /// A controller that answers one connection.
    fn controller(answer: impl FnOnce(&str, &str) -> String + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(greeting("c9").as_bytes()).unwrap();
            let mut said = String::new();
            BufReader::new(&stream).read_line(&mut said).unwrap();
            let _ = stream.write_all(answer(&said, "c9").as_bytes());
        });
        address
    }

    #[test]
    fn only_who_has_the_key_can_acknowledge() {
        let mine = key("h1").unwrap();
        let honest = |key: String| {
            move |said: &str, challenge: &str| acknowledgement(&read(said, challenge, |_| Ok(key.clone())).unwrap(), &key, challenge)
        };
        let tell = |to| announce(to, &mine, "h1", announcement().facts).unwrap_or(false);
        assert!(tell(controller(honest(mine.clone()))));
        assert!(!tell(controller(|_, _| "ok\n".to_owned())));
        assert!(!tell(controller(|_, _| format!("ok {}\n", acknowledging("another", "c9", "n1")))));
        // The acknowledgement of another announcement, heard before.
        let heard = acknowledging(&mine, "c9", "n0");
        assert!(!tell(controller(move |_, _| format!("ok {heard}\n"))));
        assert!(!tell("127.0.0.1:1".parse().unwrap()));
    }

    #[test]
    fn the_words_of_the_unit_are_read() {
        let parse = |text: &str| Options::parse(text.split(' ').map(str::to_owned));
        let options = parse("--to 192.0.2.1 --to [2001:db8::1]:99 --key /k --id h1").unwrap();
        assert_eq!(options.to, ["192.0.2.1:4507".parse().unwrap(), "[2001:db8::1]:99".parse().unwrap()]);
        for wrong in
            ["--to controller --key /k --id h1", "--key /k --id h1", "--to 192.0.2.1 --id h1", "--to 192.0.2.1 --key /k", "--more", "--to"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn facts_are_those_of_the_machine() {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("proc/meminfo", "MemTotal:        8192000 kB\nMemFree: 1 kB\n"),
            ("proc/sys/kernel/hostname", "store1\n"),
            ("etc/machine-id", "abc\n"),
        ] {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let facts = Facts::of(root.path());
        assert_eq!((facts.hostname.as_str(), facts.mem_mib, facts.node_id.as_str()), ("store1", 8000, "abc"));
        assert!(facts.cpus > 0);
    }
}
