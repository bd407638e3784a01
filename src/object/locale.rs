//! A locale that programs can use: compiled into glibc's archive, or into a directory of its own.
//!
//! Attribute: `available`, there only where true. Which locales the archive holds is read from the archive itself, so that a plan asks no process.

use std::os::unix::fs::FileExt;

use super::{Object, Progress, Sign};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::plan::{Key, Kind};
use crate::system::{Command, System};
use crate::value::{Attrs, Value, attributes};

const PLACE: &str = "/usr/lib/locale";
const ARCHIVE: &str = "/usr/lib/locale/locale-archive";
const MAGIC: u32 = 0xde02_0109;
/// An archive's names are in its first part; one that claims more is damaged.
const LARGEST: usize = 8 << 20;

pub struct Locale {
    name: String,
}

/// `de_DE.UTF-8` as glibc names it: `de_DE.utf8`.
pub fn normal(name: &str) -> String {
    let name = name.split_whitespace().next().unwrap_or_default();
    let (rest, modifier) = name.split_once('@').map_or((name, String::new()), |(rest, m)| (rest, format!("@{m}")));
    match rest.split_once('.') {
        None => name.to_owned(),
        Some((language, codeset)) => {
            let codeset: String = codeset.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
            let codeset = if codeset.bytes().all(|b| b.is_ascii_digit()) { format!("iso{codeset}") } else { codeset };
            format!("{language}.{codeset}{modifier}")
        }
    }
}

/// The names in an archive, from its first part; nothing where it is none.
fn names(bytes: &[u8]) -> Option<Vec<String>> {
    let number = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?) as usize);
    if number(0)? != MAGIC as usize {
        return None;
    }
    let (table, size) = (number(8)?, number(16)?);
    let mut names = Vec::new();
    for entry in 0..size {
        let at = table.checked_add(entry.checked_mul(12)?)?;
        // Without a record the name is one that was taken out.
        if number(at.checked_add(8)?)? != 0 {
            let name = bytes.get(number(at + 4)?..)?;
            names.push(String::from_utf8_lossy(name.split(|b| *b == 0).next()?).into_owned());
        }
    }
    Some(names)
}

fn archived(sys: &System) -> Result<Vec<String>> {
    if sys.stat(ARCHIVE)?.is_none() {
        return Ok(Vec::new());
    }
    let damaged = || Diagnostic::new(Code::Failed, format!("{ARCHIVE} is no archive of locales that basalt reads"));
    let file = std::fs::File::open(sys.followed(ARCHIVE)).map_err(|e| Diagnostic::io(format!("read {ARCHIVE}"), &e))?;
    let mut head = [0u8; 32];
    file.read_exact_at(&mut head, 0).map_err(|_| damaged())?;
    // Where the names begin, and how long they are together.
    let number = |at: usize| head.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes) as usize;
    let length = number(20).saturating_add(number(24));
    if length > LARGEST {
        return Err(damaged().into());
    }
    let mut first = vec![0u8; length];
    file.read_exact_at(&mut first, 0).map_err(|_| damaged())?;
    names(&first).ok_or_else(|| damaged().into())
}

impl Locale {
    pub fn new(name: &str) -> Locale {
        Locale { name: name.to_owned() }
    }

    fn run(&self, sys: &System, progress: &mut Progress, argv: &[&str]) -> Result<()> {
        let shown = argv.join(" ");
        sys.mutating(&shown)?;
        progress.say(&shown);
        let output = sys.run(&Command::new(argv.iter().copied()))?;
        if output.success() {
            return Ok(());
        }
        let said = [output.text(), String::from_utf8_lossy(&output.stderr).trim().to_owned()].join("\n");
        let first = said.trim().lines().next().unwrap_or("no reason given").to_owned();
        Err(Diagnostic::new(Code::Failed, format!("{shown} failed: {first}")).detail(said.trim()).into())
    }

    fn make(&self, sys: &System, progress: &mut Progress) -> Result<()> {
        let (language, codeset) = self.name.split_once('.').unwrap_or((&self.name, "utf8"));
        let (codeset, modifier) = codeset.split_once('@').map_or((codeset, String::new()), |(c, m)| (c, format!("@{m}")));
        let codeset = match codeset {
            "utf8" => "UTF-8".to_owned(),
            other => other.strip_prefix("iso8859").map_or(other.to_uppercase(), |part| format!("ISO-8859-{part}")),
        };
        // Where it is there, it makes what `/etc/locale.gen` says, and knows nothing of arguments.
        match ["/usr/sbin/locale-gen", "/sbin/locale-gen"].iter().any(|path| sys.stat(&sys.resolve(path)).is_ok_and(|stat| stat.is_some()))
        {
            true => self.run(sys, progress, &["locale-gen", "--keep-existing"]),
            false => self.run(sys, progress, &["localedef", "-i", &format!("{language}{modifier}"), "-f", &codeset, &self.name]),
        }
    }
}

impl Object for Locale {
    fn key(&self) -> Key {
        Key::new(Kind::Locale, &self.name)
    }

    fn read(&self, sys: &System) -> Result<Attrs> {
        if self.name.is_empty() || self.name.starts_with(['.', '-']) || self.name.contains('/') {
            return Err(Diagnostic::new(Code::Failed, format!("{:?} cannot be the name of a locale", self.name)).into());
        }
        let there = ["C", "POSIX"].contains(&self.name.as_str())
            || sys.stat(&format!("{PLACE}/{}/LC_IDENTIFICATION", self.name))?.is_some()
            || archived(sys)?.contains(&self.name);
        Ok(if there { attributes([("available".to_owned(), Value::Bool(true))]) } else { Attrs::new() })
    }

    fn signs(&self, _sys: &System) -> Result<Vec<Sign>> {
        Ok(Sign::paths([format!("{PLACE}/{}/LC_IDENTIFICATION", self.name), ARCHIVE.to_owned()]))
    }

    fn set(&self, sys: &System, from: &Attrs, to: &Attrs, progress: &mut Progress) -> Result<Attrs> {
        if !to.is_empty() && from.is_empty() {
            self.make(sys, progress)?;
            if self.read(sys)?.is_empty() {
                return Err(Diagnostic::new(Code::Failed, format!("{} was made and is not there", self.name)).into());
            }
        } else if to.is_empty() && archived(sys)?.contains(&self.name) {
            self.run(sys, progress, &["localedef", "--delete-from-archive", &self.name])?;
            self.sweep(sys)?;
        }
        self.read(sys)
    }

    /// An archive of nothing was not there before.
    fn sweep(&self, sys: &System) -> Result<()> {
        let empty = sys.stat(ARCHIVE)?.is_some() && archived(sys).is_ok_and(|names| names.is_empty());
        if empty { sys.remove_file(ARCHIVE) } else { Ok(()) }
    }

    fn describe(&self, _sys: &System, _from: &Attrs, to: &Attrs) -> String {
        format!("{}\n", if to.is_empty() { "removed" } else { "compiled" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An archive with these names, and one that was taken out.
    fn archive(names: &[&str]) -> Vec<u8> {
        let all: Vec<(&str, u32)> = names.iter().map(|name| (*name, 1)).chain([("gone", 0)]).collect();
        let strings = 56 + 12 * 5;
        let length: usize = all.iter().map(|(name, _)| name.len() + 1).sum();
        let head = [MAGIC, 0, 56, all.len() as u32, 5, strings as u32, length as u32, 9999, 0, 0, 0, 0, 0, 0];
        let mut bytes: Vec<u8> = head.iter().flat_map(|n| n.to_ne_bytes()).collect();
        let mut at = strings;
        for (name, record) in &all {
            bytes.extend([7, at as u32, *record].iter().flat_map(|n| n.to_ne_bytes()));
            at += name.len() + 1;
        }
        bytes.resize(strings, 0);
        all.iter().for_each(|(name, _)| bytes.extend(name.bytes().chain([0])));
        bytes
    }

    #[test]
    fn names_are_those_of_glibc() {
        for (name, glibc) in [
            ("de_DE.UTF-8", "de_DE.utf8"),
            ("de_DE.UTF-8 UTF-8", "de_DE.utf8"),
            ("de_DE.ISO-8859-15@euro", "de_DE.iso885915@euro"),
            ("de_DE", "de_DE"),
        ] {
            assert_eq!(normal(name), glibc);
        }
        assert_eq!(names(b"no archive"), None);
        assert_eq!(names(&archive(&["a"])[..70]), None);
    }
}
