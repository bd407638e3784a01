//! Archives that `archive.extracted` names, unpacked on the controller: what they hold becomes contents of the state like the files of
//! `file.recurse`. So a plan knows every path and every byte that will come, and a rollback takes back exactly those.
//!
//! Tar (plain, gzip, bzip2, xz, lzma) and zip (stored, deflated). An archive is hostile: paths that lead out of it, devices, and more than
//! `LIMIT` bytes are refused.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use crate::diagnostic::{Code, Diagnostic, Result};
use crate::plan::{Content, Hash, Low};
use crate::value::Value;

/// Bytes in all, unpacked.
const LIMIT: u64 = 2 << 30;
const MEMBERS: usize = 200_000;

/// What stands at a path in an archive.
#[derive(Clone, Debug, PartialEq)]
enum Item {
    Directory,
    File { bytes: Arc<[u8]>, mode: Option<u32> },
    Link(String),
}

type Members = BTreeMap<String, Item>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Format {
    Tar,
    Zip,
}

/// What was unpacked already, for all hosts of a command: by the archive's hash, its format, and how many directories are stripped.
#[derive(Default)]
pub struct Archives(Mutex<HashMap<(Hash, Format, usize), Arc<Members>>>);

impl Archives {
    /// The contents of a low that unpacks this archive, and their bytes.
    pub fn contents(&self, low: &Low, source: &str, bytes: &[u8]) -> Result<Vec<(Content, Arc<[u8]>)>> {
        let (format, strip) = (format(low, source)?, strip(low)?);
        let key = (Hash::of(bytes), format, strip);
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let members = match known {
            Some(members) => members,
            None => {
                let members = Arc::new(stripped(
                    match format {
                        Format::Tar => tar(&plain(bytes)?),
                        Format::Zip => zip(bytes),
                    }
                    .map_err(|error| Box::new(Diagnostic { summary: format!("{source}: {}", error.summary), ..*error }))?,
                    strip,
                ));
                self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, members.clone());
                members
            }
        };
        let keep_mode = low.args.get("extract_perms").is_none_or(Value::truthy) || format == Format::Tar;
        let nothing: Arc<[u8]> = Arc::from(&[][..]);
        Ok(members
            .iter()
            .map(|(path, item)| {
                let (name, bytes, mode, link) = match item {
                    Item::Directory => (format!("{path}/"), nothing.clone(), None, None),
                    Item::File { bytes, mode } => (path.clone(), bytes.clone(), mode.filter(|_| keep_mode), None),
                    Item::Link(target) => (path.clone(), nothing.clone(), None, Some(target.clone())),
                };
                (Content { name, hash: Hash::of(&bytes), size: bytes.len() as u64, mode, link, secret: false }, bytes)
            })
            .collect())
    }
}

fn wrong(summary: impl Into<String>) -> Box<Diagnostic> {
    Box::new(Diagnostic::new(Code::Compile, summary))
}

/// `archive_format`, or what the name ends in.
fn format(low: &Low, source: &str) -> Result<Format> {
    let tars = [".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz", ".tar.lzma", ".tlz"];
    let given = low.args.get("archive_format").filter(|v| v.truthy()).map(|v| v.to_text().to_lowercase());
    let name = source.split(['?', '#']).next().unwrap_or(source).to_lowercase();
    match given.as_deref() {
        Some("tar") => Ok(Format::Tar),
        Some("zip") => Ok(Format::Zip),
        Some(other) => {
            Err(Box::new(wrong(format!("archive.extracted {} has archive_format {other:?}", low.id)).hint("tar and zip are known")))
        }
        None if tars.iter().any(|end| name.ends_with(end)) => Ok(Format::Tar),
        None if name.ends_with(".zip") => Ok(Format::Zip),
        None => Err(Box::new(
            wrong(format!("Could not guess archive_format from the value of the 'source' argument: {source}"))
                .hint("set archive_format to tar or zip"),
        )),
    }
}

/// `options`: of tar's, those that say how many directories are stripped, and those that change nothing here.
fn strip(low: &Low) -> Result<usize> {
    let options = low.args.get("options").filter(|v| v.truthy()).map(Value::to_text).unwrap_or_default();
    let mut words = options.split_whitespace();
    let mut strip = 0;
    let number = |text: Option<&str>| text.and_then(|t| t.trim_matches(['"', '\'']).parse().ok());
    let harmless =
        ["--verbose", "--no-same-owner", "--no-same-permissions", "--gzip", "--bzip2", "--xz", "--overwrite", "--keep-newer-files"];
    while let Some(word) = words.next() {
        let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        if matches!(name, "--strip" | "--strip-components") {
            let found = if value.is_some() { number(value) } else { number(words.next()) };
            strip = found.ok_or_else(|| wrong(format!("archive.extracted {} strips no number of directories: {options:?}", low.id)))?;
        } else if !harmless.contains(&word) && !word.trim_start_matches('-').bytes().all(|b| b"xvfzjJo".contains(&b)) {
            let error = wrong(format!("archive.extracted {} has an option that basalt does not know: {word}", low.id));
            return Err(Box::new(error.hint("archives are unpacked without tar or unzip; `--strip-components=N` is known")));
        }
    }
    Ok(strip)
}

/// What an archive was before it was compressed.
fn plain(bytes: &[u8]) -> Result<Vec<u8>> {
    let failed = |e: &dyn std::fmt::Display| wrong(format!("the archive cannot be decompressed: {e}"));
    let read = |from: &mut dyn Read| -> Result<Vec<u8>> {
        let mut out = Vec::new();
        from.take(LIMIT + 1).read_to_end(&mut out).map_err(|e| failed(&e))?;
        if out.len() as u64 > LIMIT { Err(too_large()) } else { Ok(out) }
    };
    let mut out = Bounded(Vec::new());
    let mut input = bytes;
    match bytes {
        [0x1f, 0x8b, ..] => return read(&mut flate2::read::MultiGzDecoder::new(bytes)),
        [b'B', b'Z', b'h', ..] => return read(&mut bzip2::read::MultiBzDecoder::new(bytes)),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => lzma_rs::xz_decompress(&mut input, &mut out).map_err(|e| failed(&format!("{e:?}")))?,
        [0x5d, 0, 0, ..] => lzma_rs::lzma_decompress(&mut input, &mut out).map_err(|e| failed(&format!("{e:?}")))?,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => return Err(wrong("the archive is compressed with zstd, which basalt does not read")),
        _ => return Ok(bytes.to_vec()),
    }
    Ok(out.0)
}

/// A buffer that takes no more than `LIMIT`.
struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if (self.0.len() + bytes.len()) as u64 > LIMIT {
            return Err(std::io::Error::other("it is too large"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn too_large() -> Box<Diagnostic> {
    wrong(format!("the archive holds more than {} bytes or {MEMBERS} paths", LIMIT))
}

/// A path within the archive, without `.` and leading slashes; one that leads out of it is refused.
fn inside(path: &str) -> Result<Option<String>> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") || path.contains('\0') {
        return Err(wrong(format!("the archive holds a path that leads out of it: {path:?}")));
    }
    Ok((!parts.is_empty()).then(|| parts.join("/")))
}

fn utf8(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes)
        .map_err(|_| wrong(format!("the archive holds a path that is not UTF-8: {:?}", String::from_utf8_lossy(bytes))))
}

/// Salt's filter of what tar says: nobody else may write, the owner may read and write, and who may not execute it nobody may.
fn safe(mode: u32) -> u32 {
    let mode = (mode & 0o755) | 0o600;
    if mode & 0o100 == 0 { mode & !0o111 } else { mode }
}

fn tar(bytes: &[u8]) -> Result<Members> {
    let failed = |e: std::io::Error| wrong(format!("the archive cannot be read: {e}"));
    let mut members = Members::new();
    let mut archive = tar::Archive::new(bytes);
    for entry in archive.entries().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        let Some(path) = inside(utf8(&entry.path_bytes())?)? else { continue };
        let target = entry.link_name_bytes().map(|name| utf8(&name).map(str::to_owned)).transpose()?.unwrap_or_default();
        let kind = entry.header().entry_type();
        let item = if kind.is_dir() {
            Item::Directory
        } else if kind.is_symlink() {
            Item::Link(target)
        } else if kind.is_hard_link() {
            let of = inside(&target)?.unwrap_or_default();
            members
                .get(&of)
                .cloned()
                .ok_or_else(|| wrong(format!("{path} in the archive is another name of {target}, which is not in it")))?
        } else if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
            let mode = entry.header().mode().map_err(failed)?;
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(failed)?;
            Item::File { bytes: bytes.into(), mode: Some(safe(mode)) }
        } else {
            return Err(wrong(format!("{path} in the archive is a device or pipe")));
        };
        members.insert(path, item);
        if members.len() > MEMBERS {
            return Err(too_large());
        }
    }
    whole(members)
}

/// An archive without anything in it is none: what the web gives for a missing file often reads like that.
fn whole(members: Members) -> Result<Members> {
    // What lies below a link would be written where the link leads.
    let below_link =
        |path: &&String| path.match_indices('/').any(|(at, _)| matches!(path.get(..at).and_then(|p| members.get(p)), Some(Item::Link(_))));
    if let Some(path) = members.keys().find(below_link) {
        return Err(wrong(format!("{path} in the archive lies below a link")));
    }
    if members.is_empty() { Err(wrong("the archive is empty or none")) } else { Ok(members) }
}

fn stripped(members: Members, strip: usize) -> Members {
    if strip == 0 {
        return members;
    }
    let shorter = |path: String| path.splitn(strip + 1, '/').nth(strip).map(str::to_owned);
    members.into_iter().filter_map(|(path, item)| Some((shorter(path)?, item))).collect()
}

/// Numbers of a zip file: little endian, at a place.
struct Numbers<'a>(&'a [u8]);

impl<'a> Numbers<'a> {
    fn u16(&self, at: usize) -> Option<usize> {
        Some(usize::from(u16::from_le_bytes(self.0.get(at..at + 2)?.try_into().ok()?)))
    }

    fn u32(&self, at: usize) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(self.0.get(at..at + 4)?.try_into().ok()?)).ok()
    }

    fn bytes(&self, at: usize, length: usize) -> Option<&'a [u8]> {
        self.0.get(at..at.checked_add(length)?)
    }
}

fn zip(bytes: &[u8]) -> Result<Members> {
    let numbers = Numbers(bytes);
    let damaged = || wrong("the archive is not a zip file, or is damaged");
    // The record at the end has a comment of up to 64 KiB behind it.
    let start = bytes.len().saturating_sub(22 + 0xffff);
    let tail = bytes.get(start..).unwrap_or_default();
    let end = start + tail.windows(4).rposition(|w| w == b"PK\x05\x06").ok_or_else(damaged)?;
    let count = numbers.u16(end + 10).ok_or_else(damaged)?;
    let mut at = numbers.u32(end + 16).ok_or_else(damaged)?;
    let mut members = Members::new();
    let mut total = 0u64;
    for _ in 0..count {
        let entry = |offset: usize| numbers.u32(at + offset).ok_or_else(damaged);
        let short = |offset: usize| numbers.u16(at + offset).ok_or_else(damaged);
        if numbers.bytes(at, 4) != Some(b"PK\x01\x02") {
            return Err(damaged());
        }
        let (made_by, flags, method, crc) = (short(4)? >> 8, short(8)?, short(10)?, entry(16)?);
        let (packed, size, external, local) = (entry(20)?, entry(24)?, entry(38)?, entry(42)?);
        let (name_length, extra, comment) = (short(28)?, short(30)?, short(32)?);
        let name = utf8(numbers.bytes(at + 46, name_length).ok_or_else(damaged)?)?;
        at += 46 + name_length + extra + comment;
        if flags & 1 != 0 {
            return Err(wrong("the archive is password-protected, which basalt does not read"));
        }
        if [packed, size, local].contains(&0xffff_ffff) {
            return Err(wrong("the archive is a zip of more than 4 GiB (zip64), which basalt does not read"));
        }
        total += size as u64;
        if total > LIMIT {
            return Err(too_large());
        }
        let Some(path) = inside(name)? else { continue };
        let mode = if made_by == 3 { external >> 16 } else { 0 };
        if name.ends_with('/') || mode & 0o170_000 == 0o040_000 {
            members.insert(path, Item::Directory);
            continue;
        }
        let head = |offset: usize| numbers.u16(local + offset).ok_or_else(damaged);
        let data = numbers.bytes(local + 30 + head(26)? + head(28)?, packed).ok_or_else(damaged)?;
        let content = match method {
            0 => data.to_vec(),
            8 => {
                let mut out = Vec::new();
                flate2::read::DeflateDecoder::new(data).take(size as u64 + 1).read_to_end(&mut out).map_err(|_| damaged())?;
                out
            }
            other => return Err(wrong(format!("{path} in the archive is compressed by method {other}, which basalt does not read"))),
        };
        let mut sum = flate2::Crc::new();
        sum.update(&content);
        if content.len() != size || sum.sum() as usize != crc {
            return Err(wrong(format!("{path} in the archive is damaged")));
        }
        let item = match mode & 0o170_000 {
            0o120_000 => Item::Link(utf8(&content)?.to_owned()),
            _ => Item::File { bytes: content.into(), mode: u32::try_from(mode & 0o777).ok().filter(|mode| *mode != 0) },
        };
        members.insert(path, item);
    }
    whole(members)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn low(args: serde_json::Value) -> Low {
        let low = serde_json::json!({"id": "x", "sls": "s", "state": "archive", "fun": "extracted", "name": "/x", "args": args});
        serde_json::from_value(low).unwrap()
    }

    /// A tree, packed by the machine's own tar with these arguments.
    fn packed(args: &[&str]) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let script = "mkdir -p t/app/bin; echo run >t/app/bin/run; chmod 775 t/app/bin/run; echo text >t/app/text; chmod 640 t/app/text
            ln -s bin/run t/app/link; ln t/app/text t/app/twin";
        assert!(Command::new("sh").args(["-ec", script]).current_dir(dir.path()).status().unwrap().success());
        let out = Command::new("tar").args(["-C", "t", "-cf", "-"]).args(args).arg("app").current_dir(dir.path()).output().unwrap();
        assert!(out.status.success(), "{out:?}");
        out.stdout
    }

    fn names(contents: &[(Content, Arc<[u8]>)]) -> Vec<String> {
        let of = |(c, bytes): &(Content, Arc<[u8]>)| {
            let text = String::from_utf8_lossy(bytes).trim_end().to_owned();
            format!(
                "{} {} {}{}",
                c.name,
                c.mode.map_or_else(String::new, |m| format!("{m:o}")),
                text,
                c.link.as_deref().unwrap_or_default()
            )
        };
        contents.iter().map(of).collect()
    }

    #[test]
    fn tars_of_all_kinds_are_unpacked() {
        for (args, name) in [(vec![], "a.tar"), (vec!["-z"], "a.tgz"), (vec!["-j"], "a.tar.bz2"), (vec!["-J"], "a.tar.xz")] {
            let contents = Archives::default().contents(&low(serde_json::json!({})), name, &packed(&args)).unwrap();
            assert_eq!(
                names(&contents),
                ["app/  ", "app/bin/  ", "app/bin/run 755 run", "app/link  bin/run", "app/text 640 text", "app/twin 640 text"],
                "{name}"
            );
        }
        let strip = low(serde_json::json!({"options": "xvf --strip-components=1"}));
        let contents = Archives::default().contents(&strip, "a.tar", &packed(&[])).unwrap();
        assert_eq!(names(&contents)[0], "bin/  ");
        assert!(Archives::default().contents(&low(serde_json::json!({"options": "--exclude=x"})), "a.tar", &packed(&[])).is_err());
    }

    /// A zip as others write it: one stored and one deflated file, a directory.
    #[test]
    fn zips_are_unpacked_and_checked() {
        use std::io::Write;
        let text = b"text text text text text".repeat(10);
        let mut deflated = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        deflated.write_all(&text).unwrap();
        let deflated = deflated.finish().unwrap();
        let (mut out, mut central) = (Vec::new(), Vec::new());
        for (name, method, data, size, mode) in [
            ("d/", 0u16, &b""[..], 0u32, 0o040_755u32),
            ("d/stored", 0, b"abc", 3, 0o100_644),
            ("d/deflated", 8, &deflated, text.len() as u32, 0o100_755),
        ] {
            let mut crc = flate2::Crc::new();
            crc.update(if method == 8 { &text } else { data });
            let offset = out.len() as u32;
            let mut common = Vec::new();
            for number in [20u16, 0, method, 0, 0] {
                common.extend(number.to_le_bytes());
            }
            for number in [crc.sum(), data.len() as u32, size] {
                common.extend(number.to_le_bytes());
            }
            common.extend((name.len() as u16).to_le_bytes());
            common.extend(0u16.to_le_bytes());
            out.extend(b"PK\x03\x04");
            out.extend(&common);
            out.extend(name.as_bytes());
            out.extend(data);
            central.extend(b"PK\x01\x02");
            central.extend([20, 3]);
            central.extend(&common);
            central.extend([0u8; 6]);
            central.extend((mode << 16).to_le_bytes());
            central.extend(offset.to_le_bytes());
            central.extend(name.as_bytes());
        }
        let (start, length) = (out.len() as u32, central.len() as u32);
        out.extend(central);
        out.extend(b"PK\x05\x06\0\0\0\0\x03\0\x03\0");
        out.extend(length.to_le_bytes());
        out.extend(start.to_le_bytes());
        out.extend([0, 0]);
        let of = |args, bytes: &[u8]| Archives::default().contents(&low(args), "https://x/a.zip?token=1", bytes);
        let contents = of(serde_json::json!({}), &out).unwrap();
        assert_eq!(
            contents.iter().map(|(c, _)| (c.name.as_str(), c.mode)).collect::<Vec<_>>(),
            [("d/", None), ("d/deflated", Some(0o755)), ("d/stored", Some(0o644))]
        );
        assert_eq!((&*contents[1].1, &*contents[2].1), (&text[..], &b"abc"[..]));
        assert_eq!(of(serde_json::json!({"extract_perms": false}), &out).unwrap()[2].0.mode, None);
        let at = out.windows(3).position(|w| w == b"abc").unwrap();
        out[at] = b'X';
        assert!(of(serde_json::json!({}), &out).unwrap_err().summary.contains("damaged"));
        for cut in 0..out.len() {
            assert!(of(serde_json::json!({}), &out[..cut]).is_err());
        }
    }

    #[test]
    fn hostile_archives_are_refused() {
        let tar = |path: &str, kind: tar::EntryType, link: &str| {
            let mut header = tar::Header::new_gnu();
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(kind);
            header.set_mode(0o777);
            header.set_size(0);
            if !link.is_empty() {
                header.set_link_name(link).unwrap();
            }
            header.set_cksum();
            header.as_bytes().to_vec()
        };
        let of = |bytes: Vec<u8>| {
            Archives::default().contents(&low(serde_json::json!({})), "a.tar", &bytes).map(|c| names(&c)).map_err(|e| e.summary)
        };
        assert!(of(tar("../x", tar::EntryType::Regular, "")).unwrap_err().contains("leads out"));
        assert!(of(tar("x", tar::EntryType::Char, "")).unwrap_err().contains("device"));
        assert!(of(tar("x", tar::EntryType::Link, "/etc/shadow")).unwrap_err().contains("not in it"));
        assert!(
            of([tar("l", tar::EntryType::Symlink, "/etc"), tar("l/x", tar::EntryType::Regular, "")].concat())
                .unwrap_err()
                .contains("below a link")
        );
        assert_eq!(of(tar("/abs", tar::EntryType::Regular, "")).unwrap(), ["abs 755 "]);
        assert!(of(b"<html>not found</html>".repeat(100)).is_err() && of(Vec::new()).is_err());
    }
}
