//! ssh_known_hosts.*: keys of other hosts that a user, or everybody here, trusts. A key that the state names is an edit of a file; one that it does
//! not name is asked of the other host when the state's turn comes.

use md5::Digest;

use super::args::Args;
use super::base64;
use super::edit::{self, TextFile};
use super::file::place::{self, attrs, failed};
use super::{Arg, ArgKind, Entry, Function, Run, There, Want};
use crate::diagnostic::Result;
use crate::plan::{Hash, Key, Kind, Low, hex};
use crate::system::Command;
use crate::value::{Attrs, Value};

const SYSTEM: &str = "/etc/ssh/ssh_known_hosts";
const NAME: Arg = Arg::new("name", ArgKind::Str, "", "The other host. Example: git.example.org");
const USER: Arg = Arg::new("user", ArgKind::Str, "", "Who trusts it. Default: everybody.");
const CONFIG: Arg =
    Arg::new("config", ArgKind::Str, ".ssh/known_hosts", "The file; without a user the default is /etc/ssh/ssh_known_hosts.");

pub const FUNCTIONS: &[Entry] = &[
    Entry {
        name: "ssh_known_hosts.absent",
        doc: "No key of another host is trusted.",
        args: &[NAME, USER, CONFIG],
        watches: false,
        parse: absent,
    },
    Entry {
        name: "ssh_known_hosts.present",
        doc: "A key of another host is trusted.",
        args: &[
            NAME,
            USER,
            Arg::new("key", ArgKind::Str, "", "The key. Without it the other host is asked for its keys."),
            Arg::new("enc", ArgKind::Str, "", "The kind of key; needed with key. Example: ssh-ed25519"),
            Arg::new("fingerprint", ArgKind::Str, "", "What one of the keys must have: hexadecimal with colons."),
            Arg::new("fingerprint_hash_type", ArgKind::Str, "sha256", "sha256, sha1 or md5."),
            Arg::new("port", ArgKind::Int, "22", "The port of its ssh."),
            CONFIG,
            Arg::new("hash_known_hosts", ArgKind::Bool, "True", "Whether the host's name is written as a hash."),
            Arg::new("timeout", ArgKind::Int, "5", "Seconds that the other host may take to answer."),
        ],
        watches: false,
        parse: present,
    },
];

/// Asks a host for its keys and puts them at the end of a file, if one of them has the fingerprint that is wanted.
/// Arguments: file, fingerprint or nothing, program of the hash, then those of ssh-keyscan.
const SCAN: &str = r#"file=$1 wanted=$2 sum=$3; shift 3
keys=$(ssh-keyscan "$@" 2>/dev/null | grep -v '^#')
[ -n "$keys" ] || { echo "Unable to receive remote host keys"; exit 1; }
if [ -n "$wanted" ]; then
    found=$(echo "$keys" | while read -r host kind key; do echo "$key" | base64 -d | $sum | cut -d' ' -f1 | sed 's/../&:/g; s/:$//'; done)
    echo "$found" | grep -qxF "$wanted" || { echo "Remote host public keys found but none of their fingerprints match"; exit 1; }
fi
echo "$keys" >>"$file""#;
/// Takes a host's keys out of a file.
const FORGET: &str = r#"[ ! -e "$1" ] || { ssh-keygen -q -R "$2" -f "$1" >/dev/null 2>&1; rm -f "$1.old"; }"#;

struct KnownHost {
    /// As it stands in the file: `[name]:port` where the port is another.
    host: String,
    user: Option<String>,
    config: String,
    goal: Goal,
}

enum Goal {
    Absent,
    Key { kind: String, key: String, hashed: bool },
    Scan { kind: Option<String>, fingerprint: Option<(String, String)>, argv: Vec<String> },
}

fn place_of(args: &Args) -> Result<(Option<String>, String)> {
    let user = args.str("user")?.filter(|u| !u.is_empty());
    let default = if user.is_some() { ".ssh/known_hosts" } else { SYSTEM };
    let config = args.str("config")?.filter(|c| !c.is_empty()).unwrap_or_else(|| default.into());
    if user.is_none() && !config.starts_with('/') {
        return Err(args.error("If not specifying a \"user\", specify an absolute \"config\"."));
    }
    Ok((user, config))
}

fn host(args: &Args) -> Result<String> {
    let name = args.name();
    match name.is_empty() || name.starts_with(['-', '#', '@', '|']) || name.contains(|c: char| c.is_whitespace() || c == ',') {
        true => Err(args.error(format!("{name:?} cannot be the name of a host"))),
        false => Ok(name),
    }
}

fn absent(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let (user, config) = place_of(&args)?;
    Ok(Box::new(KnownHost { host: host(&args)?, user, config, goal: Goal::Absent }))
}

fn present(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let (user, config) = place_of(&args)?;
    let name = host(&args)?;
    let given = |argument: &str| Ok::<_, crate::diagnostic::Error>(args.str(argument)?.filter(|t| !t.is_empty()));
    let (key, kind, fingerprint) = (given("key")?, given("enc")?, given("fingerprint")?);
    let hashed = args.bool("hash_known_hosts", true)?;
    let port = args.int("port")?.filter(|port| *port != 22);
    if port.is_some() && hashed {
        return Err(Box::new(
            args.error("argument port can not be used in conjunction with argument hash_known_hosts").hint("add `hash_known_hosts: False`"),
        ));
    }
    if kind.as_ref().is_some_and(|kind| kind.starts_with('-') || kind.contains(char::is_whitespace)) {
        return Err(args.error("enc is the kind of a key"));
    }
    let goal = match (key, kind) {
        (Some(_), _) if fingerprint.is_some() => return Err(args.error("Specify either \"key\" or \"fingerprint\", not both.")),
        (Some(_), None) => return Err(args.error("Required argument \"enc\" if using \"key\" argument.")),
        (Some(key), Some(_)) if base64::decode(&key).is_none_or(|bytes| bytes.is_empty()) => {
            return Err(args.error(format!("{key:?} is no public key: most likely something of it is missing")));
        }
        (Some(key), Some(kind)) => Goal::Key { kind, key, hashed },
        (None, kind) => {
            let sum = given("fingerprint_hash_type")?.unwrap_or_else(|| "sha256".into()).to_lowercase();
            if !["sha256", "sha1", "md5"].contains(&sum.as_str()) {
                return Err(args.error(format!("The fingerprint_hash_type {sum} is not supported.")));
            }
            let mut argv = vec!["-T".to_owned(), args.int("timeout")?.unwrap_or(5).clamp(1, 600).to_string()];
            argv.extend(port.into_iter().flat_map(|port| ["-p".to_owned(), port.to_string()]));
            argv.extend(kind.iter().flat_map(|kind| ["-t".to_owned(), kind.clone()]));
            argv.extend(hashed.then(|| "-H".to_owned()));
            argv.push(name.clone());
            Goal::Scan { kind, fingerprint: fingerprint.map(|f| (f.to_lowercase(), sum)), argv }
        }
    };
    let host = port.map_or(name.clone(), |port| format!("[{name}]:{port}"));
    Ok(Box::new(KnownHost { host, user, config, goal }))
}

/// HMAC with SHA-1 (RFC 2104), as ssh hashes names of hosts.
fn hmac(secret: &[u8], text: &[u8]) -> Vec<u8> {
    let mut block = [0u8; 64];
    block.iter_mut().zip(secret).for_each(|(place, byte)| *place = *byte);
    let padded = |with: u8| block.map(|byte| byte ^ with);
    let inner = sha1::Sha1::new().chain_update(padded(0x36)).chain_update(text).finalize();
    sha1::Sha1::new().chain_update(padded(0x5c)).chain_update(inner).finalize().to_vec()
}

/// The name of a host as a hash. The salt is made of what it is for, so that plan and apply agree.
fn hashed(host: &str, key: &str) -> String {
    let salt = sha1::Sha1::digest(format!("{host}\0{key}").as_bytes());
    format!("|1|{}|{}", base64::encode(&salt), base64::encode(&hmac(&salt, host.as_bytes())))
}

/// Kind and key of a line that is about this host.
fn of_host<'l>(line: &'l str, host: &str) -> Option<(&'l str, &'l str)> {
    let mut words = line.split_whitespace();
    let names = words.next().filter(|names| !names.starts_with(['#', '@']))?;
    let about = match names.strip_prefix("|1|").and_then(|rest| rest.split_once('|')) {
        Some((salt, hash)) => base64::decode(salt).is_some_and(|salt| base64::decode(hash) == Some(hmac(&salt, host.as_bytes()))),
        None => names.split(',').any(|name| name.eq_ignore_ascii_case(host)),
    };
    about.then_some(()).and_then(|()| Some((words.next()?, words.next()?)))
}

fn fingerprint(key: &str, sum: &str) -> Option<String> {
    let bytes = base64::decode(key)?;
    let digest = match sum {
        "md5" => hex(&md5::Md5::digest(&bytes)),
        "sha1" => hex(&sha1::Sha1::digest(&bytes)),
        _ => Hash::of(&bytes).0,
    };
    let pairs: Vec<&str> = (0..digest.len() / 2).filter_map(|n| digest.get(n * 2..n * 2 + 2)).collect();
    Some(pairs.join(":"))
}

impl KnownHost {
    /// The file, once the user's home is known.
    fn file(&self, there: &dyn There) -> Option<TextFile> {
        let Some(user) = &self.user else {
            return Some(TextFile::new(place::normal(&self.config)).with_directories());
        };
        let account = there.get(&Key::new(Kind::User, user));
        let home = account.get("home").and_then(Value::as_str)?;
        let path = place::normal(&if self.config.starts_with('/') { self.config.clone() } else { place::join(home, &self.config) });
        let group = ["group", "gid"].iter().find_map(|name| account.get(*name)).map_or(user.clone(), Value::to_text);
        let owned = |kind: &str, mode: &str| attrs([("kind", kind), ("mode", mode), ("user", user), ("group", &group)]);
        Some(TextFile { path, made: Some(owned("file", "0600")), above: Some(owned("directory", "0700")) })
    }

    fn edited(&self, text: &str, kind: &str, key: &str, hash: bool) -> String {
        let known = |line: &str, key: Option<&str>| {
            of_host(line, &self.host).is_some_and(|(its_kind, its_key)| its_kind == kind && key.is_none_or(|key| its_key == key))
        };
        if text.lines().any(|line| known(line, Some(key))) {
            return text.to_owned();
        }
        let rest: String = text.split_inclusive('\n').filter(|line| !known(line, None)).collect();
        let name = if hash { hashed(&self.host, key) } else { self.host.clone() };
        edit::ended(&rest) + &format!("{name} {kind} {key}\n")
    }

    /// Asks the other host.
    fn scan(&self, there: &dyn There, file: &TextFile, fingerprint: Option<&(String, String)>, argv: &[String]) -> Result<Want> {
        let real = place::follow(there, &file.path)?;
        let mut wants: Vec<(Key, Attrs)> = Vec::new();
        if place::kind(&there.get(&place::key(&real))).is_none() {
            wants = place::parents(there, &real, file.above.as_ref())?;
            let empty = there.put(Vec::new());
            let mut wanted = attrs([("kind", "file"), ("content", &empty.0)]);
            wanted.extend(file.made.clone().unwrap_or_default());
            wants.push((place::key(&real), wanted));
        }
        let (wanted, sum) = fingerprint.cloned().unwrap_or_default();
        let sum = format!("{}sum", if sum.is_empty() { "sha256" } else { &sum });
        let fixed = ["/bin/sh", "-c", SCAN, "sh", &real, &wanted, &sum].map(str::to_owned);
        let command = Command::new(fixed.into_iter().chain(argv.iter().cloned()));
        let undo = Command::new(["/bin/sh", "-c", FORGET, "sh", &real, &self.host]);
        let shown = format!("ssh-keyscan {} >> {real}", argv.join(" "));
        Ok(Want::Then(wants, Run { undo: Some(undo), ..Run::new(command, shown) }))
    }
}

impl Function for KnownHost {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        let mut keys: Vec<Key> = self.user.iter().map(|user| Key::new(Kind::User, user)).collect();
        if let Some(file) = self.file(there) {
            keys.extend(file.keys(there)?);
        }
        Ok(keys)
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        let Some(file) = self.file(there) else {
            let summary = format!("User {} does not exist", self.user.as_deref().unwrap_or_default());
            return match self.goal {
                Goal::Absent => Ok(Want::Nothing(summary)),
                _ if there.uncertain() => Ok(Want::Unknown(format!("known after an earlier command: {summary}"))),
                _ => Err(failed(summary).hint("add a user.present before this state").into()),
            };
        };
        match &self.goal {
            Goal::Absent => {
                let text = file.text(there)?.unwrap_or_default();
                if !text.lines().any(|line| of_host(line, &self.host).is_some()) {
                    return Ok(Want::Nothing("Host is already absent".into()));
                }
                file.want(there, |text| Ok(text.split_inclusive('\n').filter(|line| of_host(line, &self.host).is_none()).collect()))
            }
            Goal::Key { kind, key, hashed } => file.want(there, |text| Ok(self.edited(text, kind, key, *hashed))),
            Goal::Scan { kind, fingerprint: wanted, argv } => {
                let text = file.text(there)?.unwrap_or_default();
                let mut known = text.lines().filter_map(|line| of_host(line, &self.host));
                let fits = |(k, key): (&str, &str)| match wanted {
                    Some((wanted, sum)) => fingerprint(key, sum).is_some_and(|found| found == *wanted),
                    None => kind.as_deref().is_none_or(|kind| k == kind || format!("ssh-{kind}") == k),
                };
                match known.any(fits) {
                    true => Ok(Want::Nothing(format!("{} already exists in {}", self.host, file.path))),
                    false => self.scan(there, &file, wanted.as_ref(), argv),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::double::{Double, low};
    use super::*;

    const KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIHpXvOq1zGqG2G4zjoYVwPpe1fiBoHbFzSqTBDAg0lNC";
    /// `ssh-keygen -H` made it of `host.test`.
    const HASHED: &str = include_str!("known_host.txt");

    fn present(host: &mut Double, more: &str) -> usize {
        host.apply("ssh_known_hosts.present", &format!(r#"{{"name": "host.test", "key": "{KEY}", "enc": "ssh-ed25519"{more}}}"#)).unwrap()
    }

    #[test]
    fn a_key_that_is_named_is_an_edit() {
        let mut host = Double::new();
        host.directory("/etc/ssh").file(SYSTEM, "# all\nhost.test,192.0.2.1 ssh-ed25519 AAAA\nhost.test ssh-rsa BBBB\nother ssh-rsa CCCC");
        assert_eq!(present(&mut host, r#", "hash_known_hosts": false"#), 1);
        assert_eq!(host.at(SYSTEM), format!("# all\nhost.test ssh-rsa BBBB\nother ssh-rsa CCCC\nhost.test ssh-ed25519 {KEY}\n"));
        assert_eq!(present(&mut host, ""), 0);
        assert_eq!(present(&mut host, r#", "hash_known_hosts": false, "port": 2222"#), 1);
        assert!(host.at(SYSTEM).ends_with(&format!("[host.test]:2222 ssh-ed25519 {KEY}\n")));
        host.apply("ssh_known_hosts.absent", r#"{"name": "host.test"}"#).unwrap();
        assert_eq!(host.at(SYSTEM), format!("# all\nother ssh-rsa CCCC\n[host.test]:2222 ssh-ed25519 {KEY}\n"));
    }

    #[test]
    fn names_are_hashed_as_ssh_hashes_them() {
        assert_eq!(of_host(HASHED.trim(), "host.test"), Some(("ssh-ed25519", KEY)));
        assert_eq!(of_host(HASHED.trim(), "host.tes"), None);
        let mut host = Double::new();
        host.directory("/home").directory("/home/al").set("user:al", r#"{"uid": 1000, "home": "/home/al", "group": "al"}"#);
        assert_eq!(present(&mut host, r#", "user": "al""#), 2);
        let line = host.at("/home/al/.ssh/known_hosts");
        assert!(line.starts_with("|1|") && of_host(&line, "host.test").is_some(), "{line}");
        assert_eq!(
            (host.attr("/home/al/.ssh/known_hosts", "mode").as_str(), host.at("/home/al/.ssh").as_str()),
            ("0600", "directory 0700")
        );
        host.file("/home/al/.ssh/known_hosts", HASHED);
        assert_eq!(present(&mut host, r#", "user": "al""#), 0);
    }

    #[test]
    fn the_other_host_is_asked_for_what_nobody_names() {
        let mut host = Double::new();
        host.directory("/etc/ssh");
        let ask = |host: &Double, more: &str| {
            let function = host.parse(&low("ssh_known_hosts.present", &format!(r#"{{"name": "host.test"{more}}}"#))).unwrap();
            host.want(function.as_ref()).unwrap()
        };
        let Want::Then(wants, run) = ask(&host, r#", "enc": "ed25519""#) else { panic!() };
        assert_eq!(
            (wants.len(), run.shown.as_str(), run.undo.is_some()),
            (1, "ssh-keyscan -T 5 -t ed25519 -H host.test >> /etc/ssh/ssh_known_hosts", true)
        );
        host.file(SYSTEM, HASHED);
        assert!(matches!(ask(&host, r#", "enc": "ed25519""#), Want::Nothing(_)));
        assert!(matches!(ask(&host, r#", "enc": "rsa""#), Want::Then(..)));
        let print = fingerprint(KEY, "sha256").unwrap();
        assert_eq!(print.len(), 95);
        assert!(matches!(ask(&host, &format!(r#", "fingerprint": "{print}""#)), Want::Nothing(_)));
        assert!(matches!(ask(&host, r#", "fingerprint": "00:11""#), Want::Then(..)));
    }
}
