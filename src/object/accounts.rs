//! The account databases (passwd, shadow, group, gshadow, subuid, subgid) as ordered lines, for the exact way back of users and groups.
//!
//! Going forward is the work of shadow's tools. They put what they add at the end and drop what belongs to it, so the way back puts
//! lines back where they were: under the lock that the tools take (`lckpwdf`), each file replaced in one step.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Progress;
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::system::{Command, Meta, System};
use crate::value::{Map, Value};

pub const PASSWD: &str = "/etc/passwd";
pub const SHADOW: &str = "/etc/shadow";
pub const GROUP: &str = "/etc/group";
pub const GSHADOW: &str = "/etc/gshadow";
pub const SUBUID: &str = "/etc/subuid";
pub const SUBGID: &str = "/etc/subgid";

/// Takes away what a killed `Table::save` left beside the files.
pub fn sweep(sys: &System) -> Result<()> {
    [PASSWD, SHADOW, GROUP, GSHADOW, SUBUID, SUBGID].into_iter().try_for_each(|path| sys.sweep(&sys.resolve(path)))
}

/// So many names before a line are remembered to find its place again when its neighbours have gone too.
const NEIGHBOURS: usize = 32;

/// One file of `name:…` lines.
pub struct Table {
    path: &'static str,
    /// What was read; `None`: there is no such file.
    read: Option<Vec<u8>>,
    lines: Vec<Vec<u8>>,
}

impl Table {
    pub fn load(sys: &System, path: &'static str) -> Result<Table> {
        let read = sys.read(path)?;
        let bytes = read.as_deref().unwrap_or_default();
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let lines = if bytes.is_empty() { Vec::new() } else { bytes.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect() };
        Ok(Table { path, read, lines })
    }

    fn at(&self, name: &str) -> impl Iterator<Item = usize> {
        self.lines.iter().enumerate().filter(move |(_, line)| name_of(line) == name.as_bytes()).map(|(i, _)| i)
    }

    /// The fields of the first line with this name.
    pub fn fields(&self, name: &str) -> Option<Vec<String>> {
        let line = self.lines.get(self.at(name).next()?)?;
        Some(String::from_utf8_lossy(line).split(':').map(str::to_owned).collect())
    }

    /// How many lines have this text in this field.
    pub fn count(&self, field: usize, text: &str) -> usize {
        self.lines.iter().filter(|line| line.split(|b| *b == b':').nth(field) == Some(text.as_bytes())).count()
    }

    /// The lines of this name with their places: what `restore` needs.
    pub fn capture(&self, name: &str) -> Vec<Value> {
        let place = |i: usize| -> Option<Value> {
            let before = self.lines.get(..i)?.iter().rev().take(NEIGHBOURS);
            let after: Vec<Value> = before.map(|l| Value::from(String::from_utf8_lossy(name_of(l)).into_owned())).collect();
            let mut place = Map::new();
            place.insert("line", String::from_utf8_lossy(self.lines.get(i)?).into_owned());
            place.insert("after", after);
            Some(Value::Map(place))
        };
        self.at(name).filter_map(place).collect()
    }

    /// Makes these the lines of this name, at their places.
    pub fn restore(&mut self, name: &str, captured: &[Value]) {
        self.lines.retain(|line| name_of(line) != name.as_bytes());
        for place in captured.iter().filter_map(Value::as_map) {
            let line = place.get("line").and_then(Value::as_str).unwrap_or_default();
            let after = place.get("after").and_then(Value::as_list).unwrap_or_default();
            let neighbour = after.iter().filter_map(Value::as_str).find_map(|name| self.at(name).last());
            let at = match neighbour {
                Some(i) => i + 1,
                None if after.len() < NEIGHBOURS => 0,
                None => self.lines.len(),
            };
            self.lines.insert(at.min(self.lines.len()), line.as_bytes().to_vec());
        }
    }

    /// The place of a user in the comma-separated list of every line that names it there: `{line: place}`.
    pub fn memberships(&self, field: usize, user: &str) -> Map {
        let of = |line: &Vec<u8>| {
            let members = list_at(line, field)?;
            let place = members.iter().position(|m| *m == user.as_bytes())?;
            Some((String::from_utf8_lossy(name_of(line)).into_owned(), Value::Int(place as i64)))
        };
        self.lines.iter().filter_map(of).collect()
    }

    /// Makes these the lists that name the user, at these places.
    pub fn restore_memberships(&mut self, field: usize, user: &str, places: &Map) {
        for line in &mut self.lines {
            let Some(members) = list_at(line, field) else { continue };
            let mut wanted: Vec<&[u8]> = members.iter().copied().filter(|m| *m != user.as_bytes()).collect();
            let name = String::from_utf8_lossy(name_of(line)).into_owned();
            if let Some(place) = places.get(&name).and_then(Value::as_int) {
                wanted.insert(usize::try_from(place).unwrap_or(0).min(wanted.len()), user.as_bytes());
            }
            if wanted != members {
                let list = wanted.join(&b',');
                let fields: Vec<&[u8]> =
                    line.split(|b| *b == b':').enumerate().map(|(i, f)| if i == field { &list[..] } else { f }).collect();
                *line = fields.join(&b':');
            }
        }
    }

    /// Writes the file where it differs from what was read, with the owner, mode and attributes it has.
    pub fn save(self, sys: &System) -> Result<()> {
        let Some(read) = self.read else { return Ok(()) };
        let mut bytes = self.lines.join(&b'\n');
        if !bytes.is_empty() {
            bytes.push(b'\n');
        }
        if bytes == read {
            return Ok(());
        }
        let place = sys.resolve(self.path);
        let stat = sys.stat(&place)?.ok_or_else(|| Diagnostic::new(Code::Failed, format!("{} has gone", self.path)))?;
        let meta = Meta { mode: stat.mode, uid: stat.uid, gid: stat.gid, xattrs: sys.xattrs(&place)?, mtime_ns: None };
        sys.write_bytes(&place, &bytes, &meta)
    }
}

fn name_of(line: &[u8]) -> &[u8] {
    line.split(|b| *b == b':').next().unwrap_or_default()
}

/// The members of a comma-separated field; an empty field has none.
fn list_at(line: &[u8], field: usize) -> Option<Vec<&[u8]>> {
    let list = line.split(|b| *b == b':').nth(field)?;
    Some(if list.is_empty() { Vec::new() } else { list.split(|b| *b == b',').collect() })
}

/// Holds the lock of the account databases while it lives.
pub struct Locked {
    _file: File,
}

/// As `lckpwdf` does it: a lock on `/etc/.pwd.lock`, waited for as long as shadow's tools wait.
pub fn lock(sys: &System) -> Result<Locked> {
    use std::os::unix::fs::OpenOptionsExt;
    let failed = |e: std::io::Error| Diagnostic::io("lock the account databases (/etc/.pwd.lock)", &e);
    let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(sys.path("/etc/.pwd.lock")).map_err(failed)?;
    let start = Instant::now();
    loop {
        match rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Locked { _file: file }),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) if start.elapsed() < Duration::from_secs(15) => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(e) => return Err(failed(e.into()).hint("another program is changing users or groups; try again when it is done").into()),
        }
    }
}

/// Runs one of shadow's tools; below another root than `/` by the tool's own `--root`. What it reads on standard input is never shown.
pub fn tool(sys: &System, progress: &mut Progress, argv: Vec<String>, stdin: Vec<u8>) -> Result<()> {
    let name = argv.first().map_or("", String::as_str);
    let own = sys.root() == Path::new("/");
    let there = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().any(|dir| {
        let path = Path::new(dir).join(name);
        std::fs::metadata(path).is_ok()
    });
    if !there {
        return Err(Diagnostic::new(Code::Failed, format!("{name} is not installed"))
            .detail("users and groups are managed with the tools of the package shadow (shadow-utils, passwd)")
            .hint("install that package first")
            .into());
    }
    sys.mutating(name)?;
    progress.say(&argv.join(" "));
    let mut command = Command::new(argv.iter().take(1).cloned());
    if !own {
        let option = if name == "gpasswd" { "-Q" } else { "-R" };
        command.argv.extend([option.to_owned(), sys.root().to_string_lossy().into_owned()]);
    }
    command.argv.extend(argv.iter().skip(1).cloned());
    command.stdin = stdin;
    let output = sys.run(&command)?;
    if output.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let last = said.lines().last().unwrap_or("no reason given").to_owned();
    let last = last.strip_prefix(&format!("{name}: ")).map_or(last.clone(), str::to_owned);
    let failure = Diagnostic::new(Code::Failed, format!("{name} failed: {last}")).detail(said);
    Err(match (name, output.status) {
        ("userdel", 8) => failure.hint("end the user's processes first"),
        ("groupdel", 8) => failure.hint("it is the primary group of a user: remove that user or give it another group first"),
        _ => failure,
    }
    .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        let bytes = text.as_bytes().to_vec();
        let lines = text.trim_end().split('\n').map(|l| l.as_bytes().to_vec()).collect();
        Table { path: PASSWD, read: Some(bytes), lines }
    }

    fn text(table: &Table) -> String {
        String::from_utf8(table.lines.join(&b'\n')).unwrap()
    }

    #[test]
    fn lines_find_their_places_again_though_neighbours_went_first() {
        let before = "a:1\nb:2\nc:3\nd:4";
        let mut t = table(before);
        let b = t.capture("b");
        t.restore("b", &[]);
        let c = t.capture("c");
        t.restore("c", &[]);
        t.lines.push(b"e:5".to_vec());
        assert_eq!(text(&t), "a:1\nd:4\ne:5");
        t.restore("c", &c);
        t.restore("b", &b);
        assert_eq!(text(&t), format!("{before}\ne:5"));
        // The first line, and two lines of one name.
        let mut t = table("a:1\na:2\nb:3");
        let a = t.capture("a");
        t.restore("a", &[]);
        t.restore("a", &a);
        assert_eq!(text(&t), "a:1\na:2\nb:3");
    }

    #[test]
    fn memberships_come_back_in_their_order() {
        let before = "sudo:x:27:x,me,y\nadm:x:4:me\nnone:x:5:\nother:x:6:z";
        let mut t = table(before);
        let places = t.memberships(3, "me");
        t.restore_memberships(3, "me", &Map::new());
        assert_eq!(text(&t), "sudo:x:27:x,y\nadm:x:4:\nnone:x:5:\nother:x:6:z");
        t.restore_memberships(3, "me", &places);
        assert_eq!(text(&t), before);
    }
}
