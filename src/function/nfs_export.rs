//! nfs_export.*: directories that others may mount. `present` and `absent` are Salt's, of the kernel's server and `/etc/exports`;
//! `ganesha_present` and `ganesha_absent` (ours) of nfs-ganesha and the `EXPORT` blocks of its configuration.
//!
//! The files are edited where the export stands in them; what else is in them stays as it is.

use std::collections::BTreeSet;

use super::args::Args;
use super::edit::TextFile;
use super::file::place;
use super::{Arg, ArgKind, Entry, Function, Run, There, Want};
use crate::diagnostic::Result;
use crate::plan::{Key, Kind, Low};
use crate::system::Command;
use crate::value::{Attrs, Map, Value};

const NAME: Arg = Arg::new("name", ArgKind::Str, "", "The directory.");
const EXPORTS: Arg = Arg::new("exports", ArgKind::Str, "/etc/exports", "The file of exports.");
const CONFIG: Arg = Arg::new("config", ArgKind::Str, "/etc/ganesha/ganesha.conf", "The configuration of nfs-ganesha.");
const RELOAD: Arg = Arg::new("reload", ArgKind::Bool, "True", "Tell the server of the change.");

const PRESENT: &[Arg] = &[
    NAME,
    Arg::new("clients", ArgKind::List, "", "Who may mount it and how: a list of `hosts` and `options`."),
    Arg::new("hosts", ArgKind::Str, "", "Who may mount it, instead of `clients`."),
    Arg::new("options", ArgKind::Strs, "", "How `hosts` may."),
    EXPORTS,
];
const ABSENT: &[Arg] = &[NAME, EXPORTS];
const GANESHA: &[Arg] = &[
    NAME,
    Arg::new("export_id", ArgKind::Int, "", "Its number, which no other export has."),
    Arg::new("pseudo", ArgKind::Str, "", "Where NFSv4 shows it. Default: the directory."),
    Arg::new("access_type", ArgKind::Str, "RO", "RW, RO, MDONLY, MDONLY_RO, NONE."),
    Arg::new("squash", ArgKind::Str, "root_squash", "Who becomes nobody: no_root_squash, root_squash, all_squash …"),
    Arg::new("clients", ArgKind::List, "", "Clients with rights of their own: a list of `hosts`, `access_type`, `squash`."),
    Arg::new("fsal", ArgKind::Str, "VFS", "How the server reads the filesystem."),
    Arg::new("options", ArgKind::Map, "", "Other parameters of the block: `SecType: sys`, `Protocols: 4` …"),
    CONFIG,
    RELOAD,
];
const GANESHA_ABSENT: &[Arg] = &[NAME, CONFIG, RELOAD];

pub const FUNCTIONS: &[Entry] = &[
    Entry {
        name: "nfs_export.absent",
        doc: "The kernel's server does not export a directory.",
        args: ABSENT,
        watches: false,
        parse: absent,
    },
    Entry {
        name: "nfs_export.ganesha_absent",
        doc: "nfs-ganesha does not export a directory (ours).",
        args: GANESHA_ABSENT,
        watches: false,
        parse: ganesha_absent,
    },
    Entry {
        name: "nfs_export.ganesha_present",
        doc: "nfs-ganesha exports a directory (ours).",
        args: GANESHA,
        watches: false,
        parse: ganesha_present,
    },
    Entry { name: "nfs_export.present", doc: "The kernel's server exports a directory.", args: PRESENT, watches: false, parse: present },
];

struct Export {
    path: String,
    file: String,
    /// The line or block that is to be there.
    wanted: Option<String>,
    /// Whether the file is one of blocks.
    blocks: bool,
    reload: Option<Reload>,
}

/// How a server is told.
enum Reload {
    Kernel,
    Ganesha,
}

/// Tells nfs-ganesha to read its exports again (`$1`: their file), which goes on serving those that stay as they are, and waits until it serves those
/// of the others (their ids follow) that the file has, and not those that it has not: it says nowhere but in its log that it refuses one.
const RELOAD_GANESHA: &str = r#"systemctl is-active -q nfs-ganesha.service || exit 0
systemctl reload-or-restart nfs-ganesha.service || exit
file=$1 left=50
shift
served() {
    dbus-send --system --print-reply --dest=org.ganesha.nfsd /org/ganesha/nfsd/ExportMgr org.ganesha.nfsd.exportmgr.ShowExports
}
for id do
    has() { grep -qi "^[^#]*export_id *= *$id *;" "$file"; }
    while list=$(served 2>/dev/null); do
        echo "$list" | grep -qx " *uint16 $id"
        case "$?$(has; echo $?)" in 00|11) break;; esac
        left=$((left - 1))
        if [ $left -le 0 ]; then
            has && echo "nfs-ganesha does not serve export $id: its log says why (/var/log/ganesha)" || echo "nfs-ganesha still serves export $id"
            exit 1
        fi
        sleep 0.1
    done
done >&2"#;

/// A word that goes into the file as it is.
fn word(args: &Args, what: &str, text: &str) -> Result<String> {
    let good = |c: char| !c.is_whitespace() && !"(){};#\"'\\".contains(c);
    match !text.is_empty() && text.chars().all(good) {
        true => Ok(text.to_owned()),
        false => Err(args.error(format!("{what} of {} cannot be {text:?}", args.0.function()))),
    }
}

fn path(args: &Args, file: &str, default: &str) -> Result<(String, String)> {
    let path = place::name(args)?;
    if path.contains(['"', '\n', '\\']) {
        return Err(args.error(format!("{path:?} cannot be exported: the file has no way of writing it")));
    }
    Ok((path, place::absolute(args, file, &args.str(file)?.unwrap_or_else(|| default.to_owned()))?))
}

/// The mappings of a list of clients, each a mapping or a list of them.
fn clients(args: &Args) -> Result<Vec<Map>> {
    let wrong = || args.error("clients is to be a list of mappings with hosts and options");
    let one = |value: &Value| match value {
        Value::Map(map) => Some(map.clone()),
        _ => None,
    };
    args.list("clients")?.unwrap_or_default().iter().map(|client| one(client).ok_or_else(wrong)).collect()
}

fn present(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let (path, file) = path(&args, "exports", "/etc/exports")?;
    let mut wanted = Vec::new();
    let mut add = |hosts: &str, options: Vec<String>| -> Result<()> {
        let options = options.iter().map(|option| word(&args, "options", option)).collect::<Result<Vec<_>>>()?;
        wanted.push(format!("{}({})", word(&args, "hosts", hosts)?, options.join(",")));
        Ok(())
    };
    for client in clients(&args)? {
        let options = match client.get("options") {
            Some(Value::List(list)) => list.iter().map(Value::to_text).collect(),
            Some(value) if !value.is_null() => value.to_text().split(',').map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        add(&client.get("hosts").map(Value::to_text).unwrap_or_default(), options)?;
    }
    if wanted.is_empty() {
        match args.str("hosts")? {
            Some(hosts) => wanted.push(format!(
                "{}({})",
                word(&args, "hosts", &hosts)?,
                args.strs("options")?.iter().map(|option| word(&args, "options", option)).collect::<Result<Vec<_>>>()?.join(",")
            )),
            None => return Err(args.error("Either 'clients' or 'hosts' must be defined")),
        }
    }
    let wanted = Some(format!("{} {}\n", quoted(&path), wanted.join(" ")));
    Ok(Box::new(Export { path, file, wanted, blocks: false, reload: Some(Reload::Kernel) }))
}

fn absent(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let (path, file) = path(&args, "exports", "/etc/exports")?;
    Ok(Box::new(Export { path, file, wanted: None, blocks: false, reload: Some(Reload::Kernel) }))
}

fn reload(args: &Args) -> Result<Option<Reload>> {
    Ok(args.bool("reload", true)?.then_some(Reload::Ganesha))
}

fn ganesha_absent(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let (path, file) = path(&args, "config", "/etc/ganesha/ganesha.conf")?;
    Ok(Box::new(Export { path, file, wanted: None, blocks: true, reload: reload(&args)? }))
}

fn ganesha_present(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let (path, file) = path(&args, "config", "/etc/ganesha/ganesha.conf")?;
    let id = args.int("export_id")?.filter(|id| (0..=65535).contains(id));
    let id = id.ok_or_else(|| args.error("nfs_export.ganesha_present needs an export_id from 0 to 65535"))?;
    let given = |name: &str, default: &str| word(&args, name, &args.str(name)?.unwrap_or_else(|| default.to_owned()));
    let pseudo = args.str("pseudo")?.unwrap_or_else(|| path.clone());
    if !pseudo.starts_with('/') || pseudo.contains(['"', '\n', '\\']) {
        return Err(args.error(format!("pseudo is to be an absolute path, found {pseudo:?}")));
    }
    let mut block = format!("EXPORT {{\n    Export_Id = {id};\n    Path = \"{path}\";\n    Pseudo = \"{pseudo}\";\n");
    block += &format!("    Access_Type = {};\n    Squash = {};\n", given("access_type", "RO")?, given("squash", "root_squash")?);
    for (name, value) in args.map("options")?.iter() {
        let values = match value {
            Value::List(list) => list.iter().map(|v| word(&args, "options", &v.to_text())).collect::<Result<Vec<_>>>()?.join(", "),
            value => word(&args, "options", &value.to_text())?,
        };
        block += &format!("    {} = {values};\n", word(&args, "options", &name.to_text())?);
    }
    for client in clients(&args)? {
        let text = |name: &str| client.get(name).filter(|v| !v.is_null()).map(Value::to_text);
        let hosts = match client.get("hosts") {
            Some(Value::List(list)) => list.iter().map(|v| word(&args, "hosts", &v.to_text())).collect::<Result<Vec<_>>>()?.join(", "),
            other => word(&args, "hosts", &other.map(Value::to_text).unwrap_or_default())?,
        };
        block += &format!("    CLIENT {{\n        Clients = {hosts};\n");
        for (name, shown) in [("access_type", "Access_Type"), ("squash", "Squash")] {
            if let Some(value) = text(name) {
                block += &format!("        {shown} = {};\n", word(&args, name, &value)?);
            }
        }
        block += "    }\n";
    }
    block += &format!("    FSAL {{\n        Name = {};\n    }}\n}}\n", given("fsal", "VFS")?);
    Ok(Box::new(Export { path, file, wanted: Some(block), blocks: true, reload: reload(&args)? }))
}

/// A path as `/etc/exports` has it.
fn quoted(path: &str) -> String {
    if path.contains(char::is_whitespace) { format!("\"{path}\"") } else { path.to_owned() }
}

/// The lines of a file of exports, each with those that continue it.
fn logical_lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let (mut start, mut end) = (0, 0);
    for line in text.split_inclusive('\n') {
        end += line.len();
        if !line.trim_end_matches('\n').ends_with('\\') {
            lines.extend(text.get(start..end));
            start = end;
        }
    }
    lines.extend(text.get(start..).filter(|rest| !rest.is_empty()));
    lines
}

/// The directory of a line, as it is written and plain.
fn exported(line: &str) -> Option<String> {
    let line = line.trim_start();
    match line.strip_prefix('"') {
        _ if line.starts_with('#') => None,
        Some(rest) => rest.split_once('"').map(|(path, _)| path.to_owned()),
        None => line.split_whitespace().next().map(|path| path.replace("\\040", " ")),
    }
}

/// The parts of a configuration: each block `NAME { … }` at its top, and what stands between them. Comments and quotes hide braces.
fn blocks(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth, mut begin) = (Vec::new(), 0, 0usize, 0);
    let (mut comment, mut quote) = (false, None);
    for (at, c) in text.char_indices() {
        match (c, quote) {
            ('\n', _) => {
                comment = false;
                if depth == 0 {
                    begin = at + 1;
                }
            }
            _ if comment => {}
            (c, Some(open)) if c == open => quote = None,
            (_, Some(_)) => {}
            ('"' | '\'', None) => quote = Some(c),
            ('#', None) => comment = true,
            ('{', None) => {
                if depth == 0 {
                    // The name may stand on the line before.
                    let head = text.get(start..begin).unwrap_or_default().trim_end();
                    let name_before = text.get(begin..at).is_some_and(|t| t.trim().is_empty());
                    let begin = if name_before { head.rfind('\n').map_or(start, |n| start + n + 1) } else { begin };
                    parts.extend(text.get(start..begin).filter(|t| !t.is_empty()));
                    start = begin;
                }
                depth += 1;
            }
            ('}', None) => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    let rest = text.get(at + 1..).unwrap_or_default();
                    let end = at + 1 + rest.bytes().take_while(|b| *b == b' ' || *b == b'\t' || *b == b';').count();
                    let end = if text.get(end..).is_some_and(|t| t.starts_with('\n')) { end + 1 } else { end };
                    parts.extend(text.get(start..end));
                    start = end;
                    begin = end;
                }
            }
            _ => {}
        }
    }
    parts.extend(text.get(start..).filter(|t| !t.is_empty()));
    parts
}

/// A field of a part, where it is a block that exports.
fn field<'a>(part: &'a str, name: &str) -> Option<&'a str> {
    let (head, _) = part.split_once('{')?;
    if !head.trim().eq_ignore_ascii_case("export") {
        return None;
    }
    let mut fields = part.split(['{', ';', '\n']).filter_map(|field| field.split_once('='));
    fields.find(|(found, _)| found.trim().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().trim_matches(['"', '\'']))
}

/// Whether a part is the block that exports a directory.
fn is_export(part: &str, path: &str) -> bool {
    field(part, "path").is_some_and(|found| place::normal(found) == path)
}

impl Export {
    fn edited(&self, text: &str) -> String {
        let parts = if self.blocks { blocks(text) } else { logical_lines(text) };
        let ours = |part: &str| match self.blocks {
            true => is_export(part, &self.path),
            false => exported(part).is_some_and(|path| path == self.path),
        };
        let (mut out, mut found) = (String::with_capacity(text.len() + 256), false);
        for part in parts {
            match &self.wanted {
                _ if !ours(part) => out.push_str(part),
                // In other words, but the same.
                Some(wanted) if !found && part.split_whitespace().eq(wanted.split_whitespace()) => out.push_str(part),
                Some(wanted) if !found => out.push_str(wanted),
                _ => {}
            }
            found |= ours(part);
        }
        if let Some(wanted) = self.wanted.as_ref().filter(|_| !found) {
            if !out.is_empty() && !out.ends_with('\n') {
                out.push('\n');
            }
            out.push_str(wanted);
        }
        out
    }

    /// The ids that the export has in the file and is to have.
    fn ids(&self, text: &str) -> Vec<String> {
        let blocks = blocks(text).into_iter().filter(|part| is_export(part, &self.path)).chain(self.wanted.as_deref());
        let ids = blocks.filter_map(|part| field(part, "export_id")).filter(|id| id.bytes().all(|b| b.is_ascii_digit()));
        ids.map(str::to_owned).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// What nfs-ganesha would refuse, and say so in its log alone.
    fn check(&self, there: &dyn There, text: &str) -> Result<()> {
        let Some(wanted) = &self.wanted else { return Ok(()) };
        let mounted = !there.get(&Key::new(Kind::Mount, &self.path)).is_empty();
        if !mounted && !there.uncertain() && there.get(&place::key(&place::follow(there, &self.path)?)).is_empty() {
            return Err(place::failed(format!("{} is not there, so nfs-ganesha would not export it", self.path))
                .hint("`require` the state that makes or mounts it")
                .into());
        }
        for other in blocks(text).into_iter().filter(|part| field(part, "path").is_some() && !is_export(part, &self.path)) {
            let of = field(other, "path").unwrap_or_default();
            for name in ["export_id", "pseudo"] {
                if let Some(value) = field(other, name).filter(|value| field(wanted, name) == Some(value)) {
                    return Err(place::failed(format!("{name} {value} of {} is that of {of} in {} already", self.path, self.file)).into());
                }
            }
        }
        Ok(())
    }
}

impl Function for Export {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        let mut keys = TextFile::new(&self.file).with_directories().keys(there)?;
        if self.blocks && self.wanted.is_some() {
            let mount = Key::new(Kind::Mount, &self.path);
            // What is mounted there is there; the directory itself may be known only then.
            if there.get(&mount).is_empty() {
                keys.extend(place::follow_keys(there, &self.path));
            }
            keys.push(mount);
        }
        Ok(keys)
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        let mut ids = Vec::new();
        let edit = |text: &str| {
            if self.blocks {
                self.check(there, text)?;
                ids = self.ids(text);
            }
            Ok(self.edited(text))
        };
        let wants: Vec<(Key, Attrs)> = match TextFile::new(&self.file).with_directories().want(there, edit)? {
            Want::Is(wants) => wants,
            _ => Vec::new(),
        };
        Ok(match &self.reload {
            _ if wants.is_empty() => Want::Nothing(format!("export {} is as described", self.path)),
            Some(Reload::Kernel) => Want::Then(wants, Run { again: true, ..Run::new(Command::new(["exportfs", "-r"]), "exportfs -r") }),
            Some(Reload::Ganesha) => {
                let argv = ["/bin/sh", "-c", RELOAD_GANESHA, "sh", &self.file].map(str::to_owned).into_iter().chain(ids);
                Want::Then(wants, Run { again: true, ..Run::new(Command::new(argv), "systemctl reload nfs-ganesha.service") })
            }
            None => Want::Is(wants),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Host, answer, low};
    use super::*;
    use serde_json::json;

    fn export(path: &str, wanted: Option<&str>, blocks: bool) -> Export {
        Export { path: path.into(), file: String::new(), wanted: wanted.map(str::to_owned), blocks, reload: None }
    }

    #[test]
    fn a_line_of_exports_is_added_changed_and_removed() {
        let text = "# all\n/a  *(ro)\n\"/b c\" x(rw) \\\n  y(ro)\n/d *()";
        let line = "/a *(ro)\n";
        assert_eq!(export("/a", Some(line), false).edited(text), text);
        assert_eq!(export("/a", Some("/a h(rw)\n"), false).edited(text), text.replace("/a  *(ro)", "/a h(rw)"));
        assert_eq!(export("/b c", None, false).edited(text), "# all\n/a  *(ro)\n/d *()");
        assert_eq!(export("/e", Some("/e *()\n"), false).edited(text), format!("{text}\n/e *()\n"));
    }

    #[test]
    fn a_block_is_added_changed_and_removed() {
        let text = "NFS_CORE_PARAM { Protocols = 4; }\n# EXPORT { Path = /a; }\nEXPORT\n{\n  Export_Id = 1; # }\n  Path = \"/a\";\n  FSAL { Name = VFS; }\n}\nEXPORT { Path = /b; }\n";
        assert_eq!(blocks(text).concat(), text);
        assert_eq!(
            export("/a", None, true).edited(text),
            "NFS_CORE_PARAM { Protocols = 4; }\n# EXPORT { Path = /a; }\nEXPORT { Path = /b; }\n"
        );
        assert_eq!(export("/b", Some("X\n"), true).edited(text), text.replace("EXPORT { Path = /b; }", "X"));
        assert_eq!(export("/c", Some("EXPORT { Path = /c; }\n"), true).edited(text), format!("{text}EXPORT {{ Path = /c; }}\n"));
    }

    #[test]
    fn what_ganesha_would_refuse_is_refused_in_the_plan() {
        let mut host = Host::default();
        for path in ["/srv/a", "/srv/b"] {
            host.has(&format!("file:{path}"), json!({"kind": "directory"}));
        }
        host.file("/etc/ganesha/ganesha.conf", "EXPORT { Export_Id = 1; Path = /srv/a; Pseudo = \"/a\"; }\n# EXPORT { Export_Id = 2; }\n");
        let answer = |name: &str, id: i64, pseudo: &str| {
            answer(&host, "nfs_export.ganesha_present", json!({"name": name, "export_id": id, "pseudo": pseudo}))
        };
        let at = "in /etc/ganesha/ganesha.conf already";
        for (name, id, pseudo, said) in [
            ("/srv/b", 1, "/b", format!("export_id 1 of /srv/b is that of /srv/a {at}")),
            ("/srv/b", 2, "/a", format!("pseudo /a of /srv/b is that of /srv/a {at}")),
            ("/srv/c", 3, "/c", "/srv/c is not there, so nfs-ganesha would not export it".to_owned()),
        ] {
            assert_eq!(answer(name, id, pseudo).unwrap_err(), said);
        }
        assert!(answer("/srv/b", 2, "/b").is_ok());
        // Another id: the server must let go of the old one and take the new one.
        let Want::Then(_, run) = answer("/srv/a", 9, "/a").unwrap() else { panic!() };
        assert_eq!(run.command.argv[5..], ["1", "9"]);
    }

    #[test]
    fn states_become_lines_and_blocks() {
        let mut host = Host::default();
        host.has("file:/srv", json!({"kind": "directory"}));
        let args =
            json!({"name": "/srv", "clients": [{"hosts": "10.0.0.0/8", "options": ["rw", "sync"]}, {"hosts": "*", "options": ["ro"]}]});
        let Want::Then(wants, run) = answer(&host, "nfs_export.present", args).unwrap() else { panic!() };
        assert_eq!((run.shown.as_str(), run.again), ("exportfs -r", true));
        let content = wants.last().unwrap().1.get("content").unwrap().to_text();
        assert_eq!(&*host.bytes(&crate::plan::Hash(content)).unwrap(), b"/srv 10.0.0.0/8(rw,sync) *(ro)\n");
        let args = json!({"name": "/srv", "export_id": 7, "access_type": "RW", "options": {"SecType": "sys"}, "clients": [{"hosts": "198.18.0.2"}]});
        let Want::Then(wants, run) = answer(&host, "nfs_export.ganesha_present", args).unwrap() else { panic!() };
        assert_eq!(run.command.argv[3..], ["sh", "/etc/ganesha/ganesha.conf", "7"]);
        let content = wants.last().unwrap().1.get("content").unwrap().to_text();
        let text = String::from_utf8(host.bytes(&crate::plan::Hash(content)).unwrap().to_vec()).unwrap();
        assert!(is_export(&text, "/srv") && text.contains("SecType = sys;") && text.contains("Clients = 198.18.0.2;"), "{text}");
        for args in
            [json!({"name": "/srv"}), json!({"name": "/srv", "hosts": "a b"}), json!({"name": "/srv", "hosts": "*", "options": "rw)"})]
        {
            assert!(present(&low("nfs_export.present", args.clone())).is_err(), "{args}");
        }
    }
}
