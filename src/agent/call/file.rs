//! file.*: looking at files.

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
    ("file.lstat", |sys, a| stats(sys, &a.text(0, "path")?, false)),
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
    ("file.stats", |sys, a| stats(sys, &a.text(0, "path")?, true)),
];

/// What a path leads to.
fn kind(sys: &System, args: &Arguments) -> Result<Option<FileKind>> {
    Ok(sys.stat(&sys.resolve(&args.text(0, "path")?))?.map(|s| s.kind))
}

fn missing(path: &str) -> Diagnostic {
    Diagnostic::new(Code::Failed, format!("{path} is not there"))
}

fn stat(sys: &System, args: &Arguments) -> Result<Stat> {
    let path = args.text(0, "path")?;
    Ok(sys.stat(&sys.resolve(&path))?.ok_or_else(|| missing(&path))?)
}

fn text(sys: &System, args: &Arguments) -> Result<String> {
    let path = args.text(0, "path")?;
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
    let path = args.text(0, "path")?;
    let bytes = sys.read(&path)?.ok_or_else(|| missing(&path))?;
    Ok(match args.text_or(1, "form", "sha256").as_str() {
        "md5" => hex(&md5::Md5::digest(&bytes)),
        "sha1" => hex(&sha1::Sha1::digest(&bytes)),
        "sha224" => hex(&sha2::Sha224::digest(&bytes)),
        "sha256" => hex(&sha2::Sha256::digest(&bytes)),
        "sha384" => hex(&sha2::Sha384::digest(&bytes)),
        "sha512" => hex(&sha2::Sha512::digest(&bytes)),
        other => return Err(args.error(format!("does not know the hash {other:?}"))),
    }
    .into())
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
    let regex = pattern(args, &format!("(?m){source}"))?;
    Ok(regex.is_match(&text(sys, args)?).unwrap_or(false).into())
}

fn stats(sys: &System, path: &str, follow: bool) -> Result<Value> {
    let place = if follow { sys.resolve(path) } else { path.to_owned() };
    let Some(stat) = sys.stat(&place)? else { return Ok(mapping([])) };
    let kind = match stat.kind {
        FileKind::File => "file",
        FileKind::Directory => "dir",
        FileKind::Symlink => "link",
        FileKind::Other => "other",
    };
    Ok(mapping([
        ("inode", Value::Int(stat.ino as i64)),
        ("uid", Value::from(stat.uid)),
        ("gid", Value::from(stat.gid)),
        ("user", sys.user_name(stat.uid).into()),
        ("group", sys.group_name(stat.gid).into()),
        ("mtime", Value::Float(stat.mtime_ns as f64 / 1e9)),
        ("size", Value::Int(stat.size as i64)),
        ("mode", format!("{:04o}", stat.mode).into()),
        ("type", kind.into()),
        ("target", place.into()),
    ]))
}

fn find(sys: &System, args: &Arguments) -> Result<Value> {
    let known = ["path", "name", "iname", "regex", "type", "maxdepth", "mindepth"];
    if let Some((other, _)) = args.call.kwargs.iter().find(|(name, _)| !name.as_str().is_some_and(|n| known.contains(&n))) {
        return Err(args.error(format!("does not know the argument {other} here; it knows {}", known.join(", "))));
    }
    let option = |name: &str| args.call.kwargs.get(name).filter(|v| !v.is_null());
    let depth = |name: &str| option(name).and_then(Value::as_int).and_then(|d| usize::try_from(d).ok());
    let (most, least) = (depth("maxdepth").unwrap_or(usize::MAX), depth("mindepth").unwrap_or(0));
    let name = option("name").map(Value::to_text);
    let iname = option("iname").map(|n| n.to_text().to_lowercase());
    let regex = option("regex").map(|r| pattern(args, &r.to_text())).transpose()?;
    let types: Option<String> = option("type").map(Value::to_text);
    let fits = |path: &str, kind: FileKind| {
        let last = path.rsplit('/').next().unwrap_or_default();
        let letter = match kind {
            FileKind::File => 'f',
            FileKind::Directory => 'd',
            FileKind::Symlink => 'l',
            FileKind::Other => 's',
        };
        name.as_ref().is_none_or(|n| glob(n.as_bytes(), last.as_bytes()))
            && iname.as_ref().is_none_or(|n| glob(n.as_bytes(), last.to_lowercase().as_bytes()))
            && regex.as_ref().is_none_or(|r| r.is_match(last).unwrap_or(false))
            && types.as_ref().is_none_or(|t| t.contains(letter))
    };
    let root = args.text(0, "path")?;
    let root = if root == "/" { root } else { root.trim_end_matches('/').to_owned() };
    let mut found = Vec::new();
    let mut todo = vec![(root, 0)];
    let mut looked = 0;
    while let Some((path, depth)) = todo.pop() {
        looked += 1;
        if looked > MOST {
            return Err(args.error(format!("found more than {MOST} files and stopped")));
        }
        let place = if depth == 0 { sys.resolve(&path) } else { path.clone() };
        let Some(stat) = sys.stat(&place)? else { continue };
        if depth >= least && fits(&path, stat.kind) {
            found.push(path.clone());
        }
        if stat.kind == FileKind::Directory && depth < most {
            // What cannot be read is passed over, as find does.
            let names = sys.list(&path).unwrap_or_default();
            todo.extend(names.into_iter().map(|n| (format!("{}/{n}", path.trim_end_matches('/')), depth + 1)));
        }
    }
    found.sort();
    Ok(texts(found))
}

/// `*`, `?` and `[…]` as the shell reads them.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
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
