//! file.*: looking at files.

use std::os::unix::fs::MetadataExt;

use sha2::Digest;

use super::{Arguments, Body, mapping, texts};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::plan::hex;
use crate::system::{FileKind, Stat, System};
use crate::value::Value;

/// So many files `file.find` looks at; a tree beyond it is most likely not what was meant.
const MOST: usize = 1_000_000;

pub(super) const FUNCTIONS: &[(&str, Body)] = &[
    ("file.access", access),
    ("file.basename", |_, a| Ok(a.text(0, "path")?.rsplit('/').next().unwrap_or_default().into())),
    ("file.contains", |sys, a| Ok(text(sys, a)?.contains(&a.text(1, "text")?).into())),
    ("file.contains_regex", search),
    ("file.directory_exists", |sys, a| Ok(kind(sys, a)?.is_some_and(|k| k == FileKind::Directory).into())),
    ("file.dirname", |_, a| {
        let path = a.text(0, "path")?;
        Ok(path.rsplit_once('/').map_or("", |(dir, _)| if dir.is_empty() { "/" } else { dir }).into())
    }),
    ("file.file_exists", |sys, a| Ok(kind(sys, a)?.is_some_and(|k| k == FileKind::File).into())),
    ("file.find", find),
    ("file.get_gid", |sys, a| Ok(Value::from(stat(sys, a)?.gid))),
    ("file.get_group", |sys, a| Ok(sys.group_name(stat(sys, a)?.gid).into())),
    ("file.get_hash", hash),
    ("file.get_mode", |sys, a| Ok(format!("{:04o}", stat(sys, a)?.mode).into())),
    ("file.get_sum", hash),
    ("file.get_uid", |sys, a| Ok(Value::from(stat(sys, a)?.uid))),
    ("file.get_user", |sys, a| Ok(sys.user_name(stat(sys, a)?.uid).into())),
    ("file.is_link", |sys, a| Ok(sys.readlink(&a.text(0, "path")?)?.is_some().into())),
    ("file.join", |_, a| {
        let join = |path: String, part: String| {
            if part.starts_with('/') || path.is_empty() { part } else { format!("{}/{part}", path.trim_end_matches('/')) }
        };
        Ok(a.names().into_iter().fold(String::new(), join).into())
    }),
    ("file.lstat", |sys, a| {
        let path = path(sys, a)?;
        let Ok(m) = std::fs::symlink_metadata(sys.path(&path)) else { return Ok(mapping([])) };
        Ok(mapping([
            ("st_atime", seconds(m.atime(), m.atime_nsec())),
            ("st_ctime", seconds(m.ctime(), m.ctime_nsec())),
            ("st_gid", Value::from(m.gid())),
            ("st_mode", Value::from(m.mode())),
            ("st_mtime", seconds(m.mtime(), m.mtime_nsec())),
            ("st_nlink", Value::Int(m.nlink() as i64)),
            ("st_size", Value::Int(m.size() as i64)),
            ("st_uid", Value::from(m.uid())),
        ]))
    }),
    ("file.path_exists_glob", |sys, a| {
        let pattern = a.text(0, "path")?;
        let (dir, name) = pattern.rsplit_once('/').unwrap_or(("/", &pattern));
        Ok(sys.list(if dir.is_empty() { "/" } else { dir })?.iter().any(|n| glob(name.as_bytes(), n.as_bytes())).into())
    }),
    ("file.read", |sys, a| Ok(text(sys, a)?.into())),
    ("file.readdir", |sys, a| {
        let path = a.text(0, "path")?;
        if kind(sys, a)? != Some(FileKind::Directory) {
            return Err(a.error(format!("needs a directory, and {path} is none")));
        }
        Ok(texts([".".to_owned(), "..".to_owned()].into_iter().chain(sys.list(&path)?)))
    }),
    ("file.readlink", |sys, a| {
        let path = a.text(0, "path")?;
        sys.readlink(&path)?.map(Value::from).ok_or_else(|| a.error(format!("needs a link, and {path} is none")))
    }),
    ("file.search", search),
    ("file.stats", stats),
];

/// What a path leads to.
fn kind(sys: &System, args: &Arguments) -> Result<Option<FileKind>> {
    Ok(sys.stat(&sys.resolve(&path(sys, args)?))?.map(|s| s.kind))
}

/// The path a call names; `~` and `~name` are home folders.
fn path(sys: &System, args: &Arguments) -> Result<String> {
    let text = args.text(0, "path")?;
    let Some(rest) = text.strip_prefix('~') else { return Ok(text) };
    let (name, below) = rest.split_once('/').map_or((rest, String::new()), |(name, below)| (name, format!("/{below}")));
    let user = if name.is_empty() {
        sys.passwd()?.iter().find(|u| u.uid == rustix::process::geteuid().as_raw()).cloned()
    } else {
        sys.user(name)?
    };
    Ok(user.map_or(text.clone(), |user| user.home + &below))
}

fn missing(path: &str) -> Diagnostic {
    Diagnostic::new(Code::Failed, format!("{path} is not there"))
}

fn stat(sys: &System, args: &Arguments) -> Result<Stat> {
    let path = path(sys, args)?;
    Ok(sys.stat(&sys.resolve(&path))?.ok_or_else(|| missing(&path))?)
}

fn text(sys: &System, args: &Arguments) -> Result<String> {
    let path = path(sys, args)?;
    let bytes = sys.read(&path)?.ok_or_else(|| missing(&path))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn access(sys: &System, args: &Arguments) -> Result<Value> {
    use rustix::fs::{Access, access};
    let mode = match args.text(1, "mode")?.as_str() {
        "f" => Access::EXISTS,
        "r" => Access::READ_OK,
        "w" => Access::WRITE_OK,
        "x" => Access::EXEC_OK,
        other => return Err(args.error(format!("knows the modes f, r, w and x, not {other:?}"))),
    };
    Ok(access(sys.followed(&args.text(0, "path")?), mode).is_ok().into())
}

fn hash(sys: &System, args: &Arguments) -> Result<Value> {
    let path = path(sys, args)?;
    let bytes = sys.read(&path)?.ok_or_else(|| missing(&path))?;
    Ok(digest(args, &bytes, &args.text_or(1, "form", "sha256"))?.into())
}

fn digest(args: &Arguments, bytes: &[u8], form: &str) -> Result<String> {
    Ok(match form {
        "md5" => hex(&md5::Md5::digest(bytes)),
        "sha1" => hex(&sha1::Sha1::digest(bytes)),
        "sha224" => hex(&sha2::Sha224::digest(bytes)),
        "sha256" => hex(&sha2::Sha256::digest(bytes)),
        "sha384" => hex(&sha2::Sha384::digest(bytes)),
        "sha512" => hex(&sha2::Sha512::digest(bytes)),
        other => return Err(args.error(format!("does not know the hash {other:?}"))),
    })
}

fn pattern(args: &Arguments, pattern: &str) -> Result<fancy_regex::Regex> {
    fancy_regex::Regex::new(pattern).map_err(|e| args.error(format!("cannot read the pattern {pattern:?}: {e}")))
}

/// Python's `re.search` line by line, which is what the default flag (MULTILINE) comes to.
fn search(sys: &System, args: &Arguments) -> Result<Value> {
    if args.flag(4, "ignore_if_missing") && kind(sys, args)?.is_none() {
        return Ok(false.into());
    }
    let source = args.value(1, "pattern").or_else(|| args.value(1, "regex")).map(Value::to_text);
    let source = source.ok_or_else(|| args.error("needs the argument pattern"))?;
    // With `multiline` the dot takes line breaks too.
    let regex = pattern(args, &format!("(?m{}){source}", if args.flag(5, "multiline") { "s" } else { "" }))?;
    Ok(regex.is_match(&text(sys, args)?).unwrap_or(false).into())
}

fn seconds(whole: i64, nanoseconds: i64) -> Value {
    Value::Float(whole as f64 + nanoseconds as f64 / 1e9)
}

/// `file.stats(path, hash_type, follow_symlinks)`
fn stats(sys: &System, args: &Arguments) -> Result<Value> {
    let path = path(sys, args)?;
    let follow = args.value(2, "follow_symlinks").is_none_or(Value::truthy);
    let place = if follow { sys.resolve(&path) } else { path };
    let Ok(m) = std::fs::symlink_metadata(sys.path(&place)) else { return Err(missing(&place).into()) };
    let kind = match m.mode() & 0o170_000 {
        0o100_000 => "file",
        0o040_000 => "dir",
        0o120_000 => "link",
        0o020_000 => "char",
        0o060_000 => "block",
        0o010_000 => "pipe",
        0o140_000 => "socket",
        _ => "other",
    };
    let mut out = mapping([
        ("inode", Value::Int(m.ino() as i64)),
        ("uid", Value::from(m.uid())),
        ("gid", Value::from(m.gid())),
        ("group", sys.group_name(m.gid()).into()),
        ("user", sys.user_name(m.uid()).into()),
        ("atime", seconds(m.atime(), m.atime_nsec())),
        ("mtime", seconds(m.mtime(), m.mtime_nsec())),
        ("ctime", seconds(m.ctime(), m.ctime_nsec())),
        ("size", Value::Int(m.size() as i64)),
        ("mode", format!("{:04o}", m.mode() & 0o7777).into()),
    ]);
    if let Value::Map(out) = &mut out {
        if let Some(form) = args.value(1, "hash_type").filter(|form| form.truthy() && kind == "file") {
            out.insert("sum", digest(args, &sys.read(&place)?.unwrap_or_default(), &form.to_text())?);
        }
        out.insert("type", kind);
        out.insert("target", place);
    }
    Ok(out)
}

/// What `file.find` looks for.
struct Wanted {
    names: Vec<fancy_regex::Regex>,
    kinds: Option<String>,
    owner: Option<Vec<String>>,
    group: Option<Vec<String>>,
    size: Option<(u64, u64)>,
    /// Seconds since the epoch: so young, or so old.
    mtime: Option<(i64, bool)>,
    grep: Option<fancy_regex::Regex>,
    print: Vec<String>,
}

impl Wanted {
    fn of(args: &Arguments) -> Result<Wanted> {
        let known = [
            "path", "name", "iname", "regex", "iregex", "type", "owner", "group", "size", "mtime", "grep", "print", "maxdepth", "mindepth",
        ];
        if let Some((other, _)) = args.call.kwargs.iter().find(|(name, _)| !name.as_str().is_some_and(|n| known.contains(&n))) {
            return Err(args.error(format!("does not know the argument {other} here; it knows {}", known.join(", "))));
        }
        let option = |name: &str| args.call.kwargs.get(name).filter(|v| !v.is_null()).map(Value::to_text);
        // Salt makes patterns of names in this simple way.
        let glob = |name: String| name.replace('.', "\\.").replace('?', ".?").replace('*', ".*") + "$";
        let names = [
            option("name").map(|n| format!("^(?:{})", glob(n))),
            option("iname").map(|n| format!("(?i)^(?:{})", glob(n))),
            option("regex").map(|r| format!("^(?:{r})")),
            option("iregex").map(|r| format!("(?i)^(?:{r})")),
        ];
        let names = names.into_iter().flatten().map(|source| pattern(args, &source)).collect::<Result<Vec<_>>>()?;
        let list =
            |name: &str| option(name).map(|text| text.split([',', ' ']).filter(|w| !w.is_empty()).map(str::to_owned).collect::<Vec<_>>());
        let kinds = option("type").map(|t| t.chars().filter(|c| !c.is_whitespace() && *c != ',').collect::<String>());
        if let Some(wrong) = kinds.as_ref().and_then(|k| k.chars().find(|c| !"bcdflps".contains(*c))) {
            return Err(args.error(format!("does not know the file type {wrong:?}")));
        }
        let size =
            option("size").map(|text| size_range(&text).ok_or_else(|| args.error(format!("cannot read the size {text:?}")))).transpose()?;
        let mtime =
            option("mtime").map(|text| moment(&text).ok_or_else(|| args.error(format!("cannot read the time {text:?}")))).transpose()?;
        let grep = option("grep").map(|source| pattern(args, &source)).transpose()?;
        let print = list("print").filter(|p| !p.is_empty()).unwrap_or_else(|| vec!["path".into()]);
        if let Some(wrong) =
            print.iter().find(|p| !["path", "name", "size", "type", "user", "group", "mtime", "mode", "md5"].contains(&p.as_str()))
        {
            return Err(args.error(format!("cannot print {wrong:?}")));
        }
        Ok(Wanted { names, kinds, owner: list("owner"), group: list("group"), size, mtime, grep, print })
    }

    fn fits(&self, sys: &System, path: &str, name: &str, stat: &Stat) -> Result<bool> {
        let among = |names: &Option<Vec<String>>, id: u32, name: String| {
            names.as_ref().is_none_or(|n| n.contains(&name) || n.contains(&id.to_string()))
        };
        Ok(self.names.iter().all(|n| n.is_match(name).unwrap_or(false))
            && self
                .kinds
                .as_ref()
                .is_none_or(|k| k.contains(letter(stat.kind)) || (stat.kind == FileKind::Other && k.contains(['b', 'c', 'p'])))
            && among(&self.owner, stat.uid, sys.user_name(stat.uid))
            && among(&self.group, stat.gid, sys.group_name(stat.gid))
            && self.size.is_none_or(|(least, most)| (least..=most).contains(&stat.size))
            && self
                .mtime
                .is_none_or(|(at, since)| if since { stat.mtime_ns / 1_000_000_000 >= at } else { stat.mtime_ns / 1_000_000_000 <= at })
            && match &self.grep {
                None => true,
                Some(_) if stat.kind != FileKind::File => false,
                Some(grep) => grep.is_match(&*String::from_utf8_lossy(&sys.read(path)?.unwrap_or_default())).unwrap_or(false),
            })
    }

    fn shown(&self, sys: &System, path: &str, name: &str, stat: &Stat) -> Result<Value> {
        let mut all = Vec::new();
        for what in &self.print {
            all.push(match what.as_str() {
                "name" => name.into(),
                "size" => Value::Int(stat.size as i64),
                "type" => letter(stat.kind).to_string().into(),
                "user" => sys.user_name(stat.uid).into(),
                "group" => sys.group_name(stat.gid).into(),
                "mtime" => Value::Int(stat.mtime_ns / 1_000_000_000),
                "mode" => Value::from(stat.mode),
                "md5" if stat.kind == FileKind::File => hex(&md5::Md5::digest(sys.read(path)?.unwrap_or_default())).into(),
                "md5" => "".into(),
                _ => path.into(),
            });
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Value::List(all) })
    }
}

fn letter(kind: FileKind) -> char {
    match kind {
        FileKind::File => 'f',
        FileKind::Directory => 'd',
        FileKind::Symlink => 'l',
        FileKind::Other => 's',
    }
}

/// `10m`, `+1k`, `-5g`: the least and the most.
fn size_range(text: &str) -> Option<(u64, u64)> {
    let text = text.trim();
    let (style, number) = ['+', '-'].into_iter().find_map(|s| Some((Some(s), text.strip_prefix(s)?))).unwrap_or((None, text));
    let unit = match number.chars().last()?.to_ascii_lowercase() {
        'b' => Some(1),
        'k' => Some(1 << 10),
        'm' => Some(1 << 20),
        'g' => Some(1 << 30),
        't' => Some(1u64 << 40),
        _ => None,
    };
    let number = if unit.is_some() { number.get(..number.len() - 1)? } else { number };
    let unit = unit.unwrap_or(1);
    let count = (number.trim().parse::<f64>().ok()? * unit as f64) as u64;
    Some(match style {
        Some('-') => (0, count),
        Some(_) => (count, u64::MAX),
        None => (count, count + unit - 1),
    })
}

/// `-3d`: changed within three days; `+3d` or `3d`: not.
fn moment(text: &str) -> Option<(i64, bool)> {
    let since = text.trim().starts_with('-');
    let mut rest: String = text.chars().filter(|c| !c.is_whitespace() && *c != '-' && *c != '+').collect();
    let (mut seconds, mut finest) = (0.0, 86_400.0f64);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let unit = match rest.get(digits..).and_then(|r| r.chars().next()).map(|c| c.to_ascii_lowercase()) {
            Some('w') => 604_800.0,
            None | Some('d') => 86_400.0,
            Some('h') => 3600.0,
            Some('m') => 60.0,
            Some('s') => 1.0,
            Some(_) => return None,
        };
        seconds += rest.get(..digits)?.parse::<f64>().ok()? * unit;
        finest = finest.min(unit);
        rest = rest.get(digits + 1..).unwrap_or_default().to_owned();
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
    Some((now - ((seconds / finest) as i64) * finest as i64, since))
}

/// As Salt's: everything below a path and itself; links to directories are not entered.
fn find(sys: &System, args: &Arguments) -> Result<Value> {
    let wanted = Wanted::of(args)?;
    let depth = |name: &str| args.call.kwargs.get(name).and_then(Value::as_int).and_then(|d| usize::try_from(d).ok());
    let (most, least) = (depth("maxdepth").unwrap_or(usize::MAX), depth("mindepth").unwrap_or(0));
    let mut found = Vec::new();
    let mut looked = 0;
    for root in roots(sys, &args.text(0, "path")?)? {
        let mut todo = vec![(root, 0)];
        while let Some((path, depth)) = todo.pop() {
            looked += 1;
            if looked > MOST {
                return Err(args.error(format!("found more than {MOST} files and stopped")));
            }
            let Some(itself) = sys.stat(&path)? else { continue };
            let stat = match itself.kind {
                FileKind::Symlink => sys.stat(&sys.resolve(&path))?.unwrap_or(itself),
                _ => itself,
            };
            let name = path.rsplit('/').next().unwrap_or_default();
            if depth >= least && wanted.fits(sys, &path, name, &stat)? {
                found.push((path.clone(), wanted.shown(sys, &path, name, &stat)?));
            }
            let enter = itself.kind == FileKind::Directory || (depth == 0 && stat.kind == FileKind::Directory);
            if enter && depth < most {
                // What cannot be read is passed over, as find does.
                let names = sys.list(&path).unwrap_or_default();
                todo.extend(names.into_iter().map(|n| (format!("{}/{n}", path.trim_end_matches('/')), depth + 1)));
            }
        }
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(Value::List(found.into_iter().map(|(_, shown)| shown).collect()))
}

/// The paths that a pattern means.
fn roots(sys: &System, text: &str) -> Result<Vec<String>> {
    let text = if text == "/" { text } else { text.trim_end_matches('/') };
    let mut paths = vec![String::new()];
    for part in text.split('/').skip(1) {
        let mut next = Vec::new();
        for path in paths {
            if part.contains(['*', '?', '[']) {
                let names = sys.list(if path.is_empty() { "/" } else { &path }).unwrap_or_default();
                next.extend(
                    names.iter().filter(|n| !n.starts_with('.') && glob(part.as_bytes(), n.as_bytes())).map(|n| format!("{path}/{n}")),
                );
            } else if !part.is_empty() {
                next.push(format!("{path}/{part}"));
            } else {
                next.push(path);
            }
        }
        paths = next;
    }
    Ok(paths.into_iter().map(|p| if p.is_empty() { "/".to_owned() } else { p }).collect())
}

/// `*`, `?` and `[…]` as the shell reads them.
pub(super) fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=text.len()).any(|skip| text.get(skip..).is_some_and(|t| glob(rest, t))),
        (Some((b'?', rest)), Some((_, text))) => glob(rest, text),
        (Some((b'[', rest)), Some((c, text))) => {
            let Some(end) = rest.iter().skip(1).position(|b| *b == b']').map(|i| i + 1) else { return false };
            let (set, after) = (rest.get(..end).unwrap_or_default(), rest.get(end + 1..).unwrap_or_default());
            let (not, set) = set.strip_prefix(b"!").map_or((false, set), |s| (true, s));
            let range = |w: &[u8]| matches!(w, [a, b'-', b] if (a..=b).contains(&c));
            let within = set.contains(c) || set.windows(3).any(range);
            within != not && glob(after, text)
        }
        (Some((p, rest)), Some((t, text))) => p == t && glob(rest, text),
        _ => false,
    }
}
