//! Sources that an SLS names by URL: fetched by the controller once, verified, kept in its cache, and sent to hosts like any file.
//!
//! So hosts need no way out, and a plan knows the content it will bring. With a `source_hash` a cached file is used without asking the
//! server again; without one (`skip_verify`) it is fetched for every plan, because only the server knows whether it changed.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use md5::Digest;

use crate::diagnostic::{Code, Diagnostic, Result};
use crate::plan::{Hash, hex};

/// Larger sources belong into a package or an archive server near the hosts.
const LIMIT: u64 = 1 << 30;
const TIMEOUT: Duration = Duration::from_secs(300);

/// A digest as `source_hash` names it: `sha256=…`, `md5:…` or the bare hexadecimal, whose length tells the kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digested {
    kind: Kind,
    hex: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Md5,
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

const KINDS: [(&str, Kind, usize); 6] = [
    ("md5", Kind::Md5, 32),
    ("sha1", Kind::Sha1, 40),
    ("sha224", Kind::Sha224, 56),
    ("sha256", Kind::Sha256, 64),
    ("sha384", Kind::Sha384, 96),
    ("sha512", Kind::Sha512, 128),
];

impl Digested {
    pub fn parse(text: &str) -> Result<Digested> {
        let text = text.trim();
        let (name, digits) = match text.split_once(['=', ':']) {
            Some((name, digits)) => (Some(name.trim().to_lowercase().replace('-', "")), digits.trim()),
            None => (None, text),
        };
        let digits = digits.to_lowercase();
        let found = KINDS.into_iter().find(|(n, _, length)| digits.len() == *length && name.as_deref().is_none_or(|name| name == *n));
        match found {
            Some((_, kind, _)) if digits.bytes().all(|b| b.is_ascii_hexdigit()) => Ok(Digested { kind, hex: digits }),
            _ => Err(Diagnostic::new(Code::Compile, format!("{text:?} is no source_hash"))
                .hint("write the kind and the digest in hexadecimal: `sha256=…` (also md5, sha1, sha224, sha384, sha512)")
                .into()),
        }
    }

    /// The digest of a name in the text of a hash file (`sha256sum` output and the like): the line that names the file, else the only digest.
    pub fn find(text: &str, name: &str) -> Result<Digested> {
        let digests = |line: &str| line.split_whitespace().find_map(|word| Digested::parse(word).ok());
        let base = name.rsplit('/').next().unwrap_or(name);
        let names = |line: &&str| line.split_whitespace().any(|w| w.trim_start_matches(['*', '.', '/']).rsplit('/').next() == Some(base));
        if let Some(found) = text.lines().filter(names).find_map(digests) {
            return Ok(found);
        }
        let all: Vec<Digested> = text.lines().filter_map(digests).collect();
        match <[Digested; 1]>::try_from(all) {
            Ok([only]) => Ok(only),
            Err(all) => Err(Diagnostic::new(Code::Compile, format!("the hash file has no digest of {base}"))
                .detail(format!("{} digests stand in it, none beside this name", all.len()))
                .into()),
        }
    }

    pub fn of(&self, bytes: &[u8]) -> String {
        match self.kind {
            Kind::Md5 => hex(&md5::Md5::digest(bytes)),
            Kind::Sha1 => hex(&sha1::Sha1::digest(bytes)),
            Kind::Sha224 => hex(&sha2::Sha224::digest(bytes)),
            Kind::Sha256 => hex(&sha2::Sha256::digest(bytes)),
            Kind::Sha384 => hex(&sha2::Sha384::digest(bytes)),
            Kind::Sha512 => hex(&sha2::Sha512::digest(bytes)),
        }
    }

    pub fn check(&self, bytes: &[u8], what: &str) -> Result<()> {
        let found = self.of(bytes);
        if found == self.hex {
            return Ok(());
        }
        Err(Diagnostic::new(Code::Compile, format!("{what} is not what its source_hash says"))
            .detail(format!("wanted {}\nfound  {found}", self.hex))
            .hint("if the new content is right, put its digest into the SLS")
            .into())
    }
}

/// What a URL gave, once somebody has fetched it; whoever wants it meanwhile waits.
type Fetched = Mutex<Option<Arc<[u8]>>>;

/// What one command fetches: once for all hosts, which share one copy of it and so get the same.
pub struct Downloads {
    cache: PathBuf,
    /// By URL and digest. Who comes second waits for the first.
    fetched: Mutex<HashMap<String, Arc<Fetched>>>,
}

impl Downloads {
    /// `cache` is a folder of the controller.
    pub fn at(cache: PathBuf) -> Downloads {
        Downloads { cache, fetched: Mutex::default() }
    }

    /// The bytes behind a URL.
    pub fn get(&self, url: &str, digest: Option<&Digested>) -> Result<Arc<[u8]>> {
        let name = format!("{url} {}", digest.map_or("", |d| d.hex.as_str()));
        let place = self.fetched.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default().clone();
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = &*place {
            return Ok(bytes.clone());
        }
        let bytes = download(url, digest, &self.cache)?;
        *place = Some(bytes.clone());
        Ok(bytes)
    }
}

fn download(url: &str, digest: Option<&Digested>, cache: &Path) -> Result<Arc<[u8]>> {
    let kept = digest.map(|d| cache.join("sources").join(Hash::of(format!("{url} {}", d.hex).as_bytes()).0));
    if let (Some(kept), Some(digest)) = (&kept, digest)
        && let Ok(bytes) = fs::read(kept)
        && digest.check(&bytes, url).is_ok()
    {
        return Ok(bytes.into());
    }
    let bytes = fetch(url)?;
    if let (Some(kept), Some(digest)) = (&kept, digest) {
        digest.check(&bytes, url)?;
        keep(kept, &bytes);
    }
    Ok(bytes.into())
}

fn fetch(url: &str) -> Result<Vec<u8>> {
    let failed = |why: String| {
        Diagnostic::new(Code::Compile, format!("cannot fetch {url}"))
            .detail(why)
            .hint("the controller fetches sources: it must reach the server")
    };
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).build().into();
    let response = agent.get(url).call().map_err(|e| failed(e.to_string()))?;
    let mut bytes = Vec::new();
    let body = response.into_body().into_reader();
    body.take(LIMIT + 1).read_to_end(&mut bytes).map_err(|e| failed(e.to_string()))?;
    if bytes.len() as u64 > LIMIT {
        return Err(failed("it is larger than 1 GiB".into()).into());
    }
    Ok(bytes)
}

/// A cache that cannot be written only costs the next fetch.
fn keep(path: &Path, bytes: &[u8]) {
    let temporary = path.with_extension(std::process::id().to_string());
    let written = path.parent().map(fs::create_dir_all).transpose().and_then(|_| fs::write(&temporary, bytes));
    if written.and_then(|()| fs::rename(&temporary, path)).is_err() {
        let _ = fs::remove_file(&temporary);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;

    #[test]
    fn digests_are_read_in_all_their_forms() {
        let md5 = "5d41402abc4b2a76b9719d911017c592";
        for text in [md5.to_owned(), format!("md5={md5}"), format!("MD5:{md5}")] {
            Digested::parse(&text).unwrap().check(b"hello", "x").unwrap();
        }
        let sha = format!("sha256={}", Hash::of(b"hello"));
        Digested::parse(&sha).unwrap().check(b"hello", "x").unwrap();
        assert!(Digested::parse(&sha).unwrap().check(b"other", "x").unwrap_err().summary.contains("not what its source_hash"));
        for bad in ["", "sha256=5d41402abc4b2a76b9719d911017c592", "sha999=00", "zz41402abc4b2a76b9719d911017c592"] {
            assert!(Digested::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_hash_file_is_read_by_name() {
        let file = "5d41402abc4b2a76b9719d911017c592  ./a.tar.gz\n7d793037a0760186574b0282f2f435e7 *b.tar.gz\n";
        Digested::find(file, "http://x/b.tar.gz").unwrap().check(b"world", "b").unwrap();
        assert!(Digested::find(file, "c.tar.gz").is_err());
        Digested::find("5d41402abc4b2a76b9719d911017c592\n", "any").unwrap().check(b"hello", "a").unwrap();
    }

    /// An address that says `hello` to one request, and then nobody listens there.
    fn hello_once() -> (String, std::thread::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/a", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello").unwrap();
        });
        (url, server)
    }

    #[test]
    fn a_source_is_fetched_once_and_verified() {
        let (url, server) = hello_once();
        let cache = tempfile::tempdir().unwrap();
        let digest = Digested::parse("5d41402abc4b2a76b9719d911017c592").unwrap();
        assert_eq!(&*download(&url, Some(&digest), cache.path()).unwrap(), b"hello");
        server.join().unwrap();
        // Nobody listens any more: this one is the cache's.
        assert_eq!(&*download(&url, Some(&digest), cache.path()).unwrap(), b"hello");
        assert!(download(&url, None, cache.path()).unwrap_err().summary.contains("cannot fetch"));
    }

    #[test]
    fn the_hosts_of_a_command_share_what_is_fetched_once() {
        let (url, server) = hello_once();
        let cache = tempfile::tempdir().unwrap();
        let downloads = Downloads::at(cache.path().to_owned());
        let first = downloads.get(&url, None).unwrap();
        server.join().unwrap();
        assert!(Arc::ptr_eq(&first, &downloads.get(&url, None).unwrap()));
    }
}
