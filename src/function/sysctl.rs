//! sysctl.present: a value of the kernel, in the running one and in the file that sets it at boot. The file is edited as Salt edits it.

use super::args::Args;
use super::edit::{self, TextFile};
use super::file::place::{self, failed};
use super::{Arg, ArgKind, Entry, Function, There, Want};
use crate::diagnostic::Result;
use crate::object::sysctl::plain;
use crate::plan::{Key, Kind, Low};
use crate::value::{Value, attributes};

/// With systemd, which does not read `/etc/sysctl.conf`, and without.
const FILES: [&str; 2] = ["/etc/sysctl.d/99-salt.conf", "/etc/sysctl.conf"];
const SYSTEMD: &str = "/run/systemd/system";
/// What a new file begins with.
const HEADER: &str = "#\n# Kernel sysctl configuration\n#\n";

pub const FUNCTIONS: &[Entry] = &[Entry {
    name: "sysctl.present",
    doc: "A kernel value, now and after the next boot.",
    args: &[
        Arg::new("name", ArgKind::Str, "", "The name of the value. Example: net.ipv4.ip_forward"),
        Arg::new("value", ArgKind::Str, "", "The value, as the kernel shows it. Example: 1"),
        Arg::new("config", ArgKind::Str, "/etc/sysctl.d/99-salt.conf", "The file; without systemd the default is /etc/sysctl.conf."),
    ],
    watches: false,
    parse,
}];

struct Sysctl {
    name: String,
    value: String,
    file: Option<String>,
}

fn parse(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let Some(value) = args.str("value")? else { return Err(args.error("sysctl.present needs the argument value")) };
    if value.contains('\n') || args.name().contains(['\n', '=']) {
        return Err(args.error("name and value of sysctl.present have one line each, and no = is in the name"));
    }
    let file = args.str("config")?.map(|path| place::absolute(&args, "config", &path)).transpose()?;
    Ok(Box::new(Sysctl { name: args.name(), value: value.trim().to_owned(), file }))
}

impl Sysctl {
    fn key(&self) -> Key {
        Key::new(Kind::Sysctl, &self.name)
    }

    fn file(&self, there: &dyn There) -> TextFile {
        let default = || FILES[usize::from(there.get(&place::key(SYSTEMD)).is_empty())].to_owned();
        TextFile::new(self.file.clone().unwrap_or_else(default)).with_directories()
    }

    fn edited(&self, text: &str) -> String {
        let mut out = String::new();
        let mut found = false;
        let text = if text.is_empty() { HEADER } else { text };
        for line in edit::ended(text).split_inclusive('\n') {
            let ours = line.split_once('=').filter(|(name, _)| !name.trim_start().starts_with('#') && name.trim() == self.name);
            match ours {
                // The first that is right is enough.
                Some((_, value)) if plain(value) == plain(&self.value) && !found => return text.to_owned(),
                Some(_) => {
                    found = true;
                    out.push_str(&format!("{} = {}\n", self.name, self.value));
                }
                None => out.push_str(line),
            }
        }
        if !found {
            out.push_str(&format!("{} = {}\n", self.name, self.value));
        }
        out
    }
}

impl Function for Sysctl {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        let mut keys = vec![self.key(), place::key(SYSTEMD)];
        keys.extend(self.file(there).keys(there)?);
        Ok(keys)
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        let file = self.file(there).want(there, |text| Ok(self.edited(text)))?;
        if there.get(&self.key()).is_empty() {
            if there.uncertain() {
                return Ok(Want::Unknown(format!("whether the kernel will know {} is known after an earlier step", self.name)));
            }
            return Err(failed(format!("sysctl {} does not exist", self.name))
                .hint("a module of the kernel may have to be loaded first")
                .into());
        }
        let running = Want::Is(vec![(self.key(), attributes([("value".to_owned(), Value::Str(plain(&self.value)))]))]);
        Ok(edit::all(vec![file, running], "Sysctl value is already set"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::double::Double;

    #[test]
    fn the_file_and_the_running_value_are_set() {
        let mut host = Double::new();
        host.set("sysctl:vm.swappiness", r#"{"value": "60"}"#).set("sysctl:net.ipv4.tcp_rmem", r#"{"value": "4096\t131072\t6291456"}"#);
        assert_eq!(host.apply("sysctl.present", r#"{"name": "vm.swappiness", "value": 10}"#).unwrap(), 2);
        assert_eq!(host.at("/etc/sysctl.conf"), "#\n# Kernel sysctl configuration\n#\nvm.swappiness = 10\n");
        // With systemd it is the other file; white space of any kind is the same.
        host.directory("/run/systemd/system");
        let memory = r#"{"name": "net.ipv4.tcp_rmem", "value": "4096 131072  6291456"}"#;
        assert_eq!(host.apply("sysctl.present", memory).unwrap(), 3);
        assert!(host.at("/etc/sysctl.d/99-salt.conf").ends_with("net.ipv4.tcp_rmem = 4096 131072  6291456\n"));
        assert_eq!(host.apply("sysctl.present", memory).unwrap(), 0);
        // Lines of that name change, others stay, and a last line without an end gets one.
        host.file("/etc/x.conf", "# vm.swappiness = 1\nvm.swappiness=5\nkernel.x = 1");
        host.apply("sysctl.present", r#"{"name": "vm.swappiness", "value": "10", "config": "/etc/x.conf"}"#).unwrap();
        assert_eq!(host.at("/etc/x.conf"), "# vm.swappiness = 1\nvm.swappiness = 10\nkernel.x = 1\n");
        let error = host.apply("sysctl.present", r#"{"name": "no.such", "value": 1}"#).unwrap_err();
        assert_eq!(error.summary, "sysctl no.such does not exist");
    }
}
