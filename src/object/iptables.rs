//! A table of the kernel's packet filter: `iptables:ipv4/filter`, `iptables:ipv6/nat`.
//!
//! Attributes: `rules`, the lines of `iptables-save` without counters and without what every table begins with (chains of the kernel that let
//! everything through); `file`, the text of the file that is loaded at boot, false where there is none; `folder`, whether the one it is in is there. Only on the way: `do` (an operation: what, chain,
//! words of a rule) and `save` (the table goes into the file).
//!
//! What an operation comes to iptables says itself: `resolve` lets it work on a copy of the table in a network namespace of its own, which goes
//! with the command. The whole table is then loaded at once.

use super::{Object, Progress};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::plan::{Key, Kind};
use crate::system::{Command, Meta, Output, System};
use crate::value::{Attrs, Value, attributes};

/// Chains that the kernel has in every table.
const OWN: [(&str, &[&str]); 5] = [
    ("filter", &["INPUT", "FORWARD", "OUTPUT"]),
    ("nat", &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"]),
    ("mangle", &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"]),
    ("raw", &["PREROUTING", "OUTPUT"]),
    ("security", &["INPUT", "FORWARD", "OUTPUT"]),
];

/// Loads a table from standard input, does one thing with it and prints it. Words are arguments; nothing is pasted in.
const TRY: &str = r#"ipt=$1 table=$2 what=$3 chain=$4; shift 4
in_table() { "$ipt" -t "$table" "$@"; }
"$ipt-restore" >&2 || exit 1
case $what in
append) in_table -C "$chain" "$@" 2>/dev/null || in_table -A "$chain" "$@" || exit 1 ;;
insert) place=$1; shift; in_table -C "$chain" "$@" 2>/dev/null || in_table -I "$chain" "$place" "$@" || exit 1 ;;
delete) if in_table -C "$chain" "$@" 2>/dev/null; then in_table -D "$chain" "$@" || exit 1; fi ;;
policy) in_table -P "$chain" "$1" || exit 1 ;;
flush) if [ -n "$chain" ]; then in_table -F "$chain" || exit 1; else in_table -F || exit 1; fi ;;
chain) in_table -S "$chain" >/dev/null 2>&1 || in_table -N "$chain" || exit 1 ;;
no-chain) if in_table -S "$chain" >/dev/null 2>&1; then in_table -F "$chain" && in_table -X "$chain" || exit 1; fi ;;
esac
exec "$ipt-save" -t "$table""#;

pub struct Iptables {
    name: String,
    family: String,
    table: String,
}

fn lines(attrs: &Attrs) -> Vec<String> {
    attrs.get("rules").and_then(Value::as_list).unwrap_or_default().iter().map(Value::to_text).collect()
}

fn above(path: &str) -> &str {
    path.rsplit_once('/').map_or("/", |(above, _)| above)
}

fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    text.lines().find(|line| !line.starts_with("Try `") && !line.is_empty()).unwrap_or("no reason given").to_owned()
}

impl Iptables {
    pub fn new(name: &str) -> Iptables {
        let (family, table) = name.split_once('/').unwrap_or((name, "filter"));
        Iptables { name: name.to_owned(), family: family.to_owned(), table: table.to_owned() }
    }

    fn program(&self) -> &'static str {
        if self.family == "ipv6" { "ip6tables" } else { "iptables" }
    }

    fn own(&self) -> &'static [&'static str] {
        OWN.iter().find(|(table, _)| *table == self.table).map(|(_, chains)| *chains).unwrap_or_default()
    }

    /// Where the system keeps what is loaded at boot.
    fn file(&self, sys: &System) -> Result<String> {
        let (four, debian, arch) =
            (self.family != "ipv6", sys.stat("/etc/debian_version")?.is_some(), sys.stat("/etc/arch-release")?.is_some());
        let path = match (debian, arch, four) {
            (true, _, true) => "/etc/iptables/rules.v4",
            (true, _, false) => "/etc/iptables/rules.v6",
            (_, true, true) => "/etc/iptables/iptables.rules",
            (_, true, false) => "/etc/iptables/ip6tables.rules",
            (_, _, true) => "/etc/sysconfig/iptables",
            (_, _, false) => "/etc/sysconfig/ip6tables",
        };
        Ok(path.to_owned())
    }

    /// The lines of this table in what iptables-save prints.
    fn parse(&self, text: &str) -> Vec<String> {
        let head = format!("*{}", self.table);
        let section = text.lines().skip_while(|line| *line != head).skip(1).take_while(|line| *line != "COMMIT");
        let open: Vec<String> = self.own().iter().map(|chain| format!(":{chain} ACCEPT")).collect();
        let bare = section
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split(" [").next().filter(|_| line.starts_with(':')).unwrap_or(line));
        bare.filter(|line| !line.is_empty() && !open.iter().any(|known| known == line)).map(str::to_owned).collect()
    }

    /// The table as iptables-restore and the file have it.
    fn text(&self, rules: &[String]) -> String {
        let known = |chain: &&&str| !rules.iter().any(|line| line.split(' ').next() == Some(&format!(":{chain}")));
        let open = self.own().iter().filter(known).map(|chain| format!(":{chain} ACCEPT [0:0]\n"));
        let line = |line: &String| if line.starts_with(':') { format!("{line} [0:0]\n") } else { format!("{line}\n") };
        format!("*{}\n{}{}COMMIT\n", self.table, open.collect::<String>(), rules.iter().map(line).collect::<String>())
    }

    /// The file with this table in it; as it is where it has it already.
    fn saved(&self, file: &str, rules: &[String]) -> String {
        let head = format!("*{}\n", self.table);
        if file.contains(&head) && self.parse(file) == rules {
            return file.to_owned();
        }
        let mut out = String::new();
        let (mut own, mut done) = (false, false);
        for line in file.split_inclusive('\n') {
            own |= line == head;
            if !own {
                out.push_str(line);
            } else if line.trim_end() == "COMMIT" {
                own = false;
                out.push_str(&self.text(rules));
                done = true;
            }
        }
        if done { out } else { out + &self.text(rules) }
    }

    /// What the table is when an operation is done.
    fn tried(&self, sys: &System, rules: &[String], operation: &[Value]) -> Result<Vec<String>> {
        let argv = ["unshare", "--net", "--", "sh", "-c", TRY, "sh", self.program(), &self.table].map(str::to_owned);
        let argv = argv.into_iter().chain(operation.iter().map(Value::to_text));
        let output = sys.run(&Command { stdin: self.text(rules).into_bytes(), ..Command::new(argv) })?;
        if !output.success() {
            return Err(Diagnostic::new(Code::Failed, format!("{} refuses it: {}", self.program(), said(&output))).into());
        }
        Ok(self.parse(&output.text()))
    }

    /// The boot's file gets this text, or goes (with its folder, where that was not there either).
    fn write(&self, sys: &System, text: Option<&str>, alone: bool) -> Result<()> {
        let path = self.file(sys)?;
        let there = sys.stat(&path)?;
        match (text, there) {
            (Some(text), there) => {
                if sys.stat(above(&path))?.is_none() {
                    sys.mkdir(above(&path), 0o755, 0, 0)?;
                }
                let (mode, uid, gid) = there.map_or((0o644, 0, 0), |stat| (stat.mode, stat.uid, stat.gid));
                sys.write_bytes(&path, text.as_bytes(), &Meta { mode, uid, gid, ..Meta::default() })
            }
            (None, Some(_)) => {
                sys.remove_file(&path)?;
                let empty = alone && sys.list(above(&path))?.is_empty();
                if empty { sys.remove_dir(above(&path)) } else { Ok(()) }
            }
            (None, None) => Ok(()),
        }
    }

    /// The table's rules and the boot's file as they are wanted.
    fn wanted(&self, sys: &System, from: &Attrs, to: &Attrs) -> Result<Attrs> {
        let mut out = to.clone();
        if let Some(operation) = out.remove("do").as_ref().and_then(Value::as_list) {
            let rules = self.tried(sys, &lines(from), operation)?;
            out.insert("rules".into(), Value::List(rules.into_iter().map(Value::Str).collect()));
        }
        if out.remove("save").is_some() {
            let file = from.get("file").and_then(Value::as_str).unwrap_or_default().to_owned();
            out.insert("file".into(), Value::Str(self.saved(&file, &lines(&out))));
        }
        Ok(out)
    }
}

impl Object for Iptables {
    fn key(&self) -> Key {
        Key::new(Kind::Iptables, &self.name)
    }

    fn read(&self, sys: &System) -> Result<Attrs> {
        let argv = [format!("{}-save", self.program()), "-t".to_owned(), self.table.clone()];
        let missing = |why: String| {
            Diagnostic::new(Code::Unreachable, format!("the packet filter cannot be asked: {why}"))
                .hint("a state that installs iptables must be required")
        };
        let output = sys.run(&Command::new(argv)).map_err(|error| missing(error.summary.clone()))?;
        if !output.success() {
            return Err(
                Diagnostic::new(Code::Failed, format!("{}-save -t {} failed: {}", self.program(), self.table, said(&output))).into()
            );
        }
        let rules = self.parse(&output.text()).into_iter().map(Value::Str).collect();
        let mut attrs = attributes([("rules".to_owned(), Value::List(rules))]);
        let path = self.file(sys)?;
        let file = sys.read(&path)?.map_or(Value::Bool(false), |bytes| Value::Str(String::from_utf8_lossy(&bytes).into_owned()));
        attrs.insert("file".into(), file);
        attrs.insert("folder".into(), Value::Bool(sys.stat(above(&path))?.is_some()));
        Ok(attrs)
    }

    fn resolve(&self, sys: &System, from: &Attrs, to: &Attrs, _touched: &dyn Fn(&str) -> bool) -> Result<Attrs> {
        self.wanted(sys, from, to)
    }

    fn sweep(&self, sys: &System) -> Result<()> {
        self.file(sys).map_or(Ok(()), |path| sys.sweep(&path))
    }

    fn set(&self, sys: &System, from: &Attrs, to: &Attrs, progress: &mut Progress) -> Result<Attrs> {
        let to = self.wanted(sys, from, to)?;
        if to.contains_key("rules") && lines(from) != lines(&to) {
            let shown = format!("{}-restore -t {}", self.program(), self.table);
            sys.mutating(&shown)?;
            progress.say(&shown);
            let command = Command::new([format!("{}-restore", self.program())]);
            let output = sys.run(&Command { stdin: self.text(&lines(&to)).into_bytes(), ..command })?;
            if !output.success() {
                return Err(Diagnostic::new(Code::Failed, format!("{shown} failed: {}", said(&output))).into());
            }
        }
        if let Some(file) = to.get("file").filter(|file| from.get("file") != Some(*file)) {
            self.write(sys, file.as_str(), to.get("folder") == Some(&Value::Bool(false)))?;
        }
        self.read(sys)
    }

    fn describe(&self, _sys: &System, from: &Attrs, to: &Attrs) -> String {
        let (old, new) = (lines(from).join("\n"), lines(to).join("\n"));
        let mut out = String::new();
        for change in similar::TextDiff::from_lines(&old, &new).iter_all_changes() {
            match change.tag() {
                similar::ChangeTag::Delete => out.push_str(&format!("- {}\n", change.value().trim_end())),
                similar::ChangeTag::Insert => out.push_str(&format!("+ {}\n", change.value().trim_end())),
                similar::ChangeTag::Equal => {}
            }
        }
        if to.get("file").is_some_and(|file| from.get("file") != Some(file)) {
            out.push_str("saved for the next boot\n");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::HostExec;
    use serde_json::json;

    #[test]
    fn a_table_is_read_and_put_into_the_file() {
        let filter = Iptables::new("ipv4/filter");
        let saved = "# Generated\n*nat\n:PREROUTING ACCEPT [1:2]\n-A PREROUTING -j RETURN\nCOMMIT\n*filter\n:INPUT DROP [3:4]\n:FORWARD ACCEPT [0:0]\n\
                     :OUTPUT ACCEPT [0:0]\n:mine - [0:0]\n-A INPUT -s 10.0.0.0/8 -m comment --comment \"a [b\" -j mine\nCOMMIT\n# Completed\n";
        let rules = filter.parse(saved);
        assert_eq!(rules, [":INPUT DROP", ":mine -", "-A INPUT -s 10.0.0.0/8 -m comment --comment \"a [b\" -j mine"]);
        let text = "*filter\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:INPUT DROP [0:0]\n:mine - [0:0]\n\
                    -A INPUT -s 10.0.0.0/8 -m comment --comment \"a [b\" -j mine\nCOMMIT\n";
        assert_eq!(filter.text(&rules), text);
        assert_eq!(filter.saved(saved, &rules), saved);
        assert_eq!(filter.saved("", &rules), text);
        let other = vec![":INPUT DROP".to_owned()];
        let without = filter.saved(saved, &other);
        assert!(
            without.starts_with("# Generated\n*nat\n") && without.ends_with("COMMIT\n# Completed\n") && filter.parse(&without) == other,
            "{without}"
        );
        assert_eq!(filter.parse("*filter\n:INPUT ACCEPT [9:9]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"), [""; 0]);
    }

    #[test]
    fn without_iptables_there_is_no_answer() {
        let root = tempfile::tempdir().unwrap();
        let sys = System::at(root.path(), Box::new(HostExec::new(root.path(), Default::default())));
        assert_eq!(Iptables::new("ipv4/filter").read(&sys).unwrap_err().code, Code::Unreachable);
    }

    #[test]
    fn a_change_is_shown_rule_by_rule() {
        let sys = System::at("/nonexistent", Box::new(HostExec::new(std::path::Path::new("/nonexistent"), Default::default())));
        let attrs = |value: serde_json::Value| -> Attrs { serde_json::from_value(value).unwrap() };
        let (from, to) = (
            attrs(json!({"rules": ["-A INPUT -j a", "-A INPUT -j b"], "file": false})),
            attrs(json!({"rules": ["-A INPUT -j a", "-A INPUT -j c"], "file": "x"})),
        );
        assert_eq!(Iptables::new("ipv4/filter").describe(&sys, &from, &to), "- -A INPUT -j b\n+ -A INPUT -j c\nsaved for the next boot\n");
    }
}
