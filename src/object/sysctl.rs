//! A value of the running kernel below `/proc/sys`. What stands in files for the next boot is a file like any other.
//!
//! Attribute: `value`, with a tab wherever white space stands. One that cannot be read has none, and is not absent for that.

use super::{Object, Progress};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::plan::{Key, Kind};
use crate::system::System;
use crate::value::{Attrs, Value, attributes};

pub struct Sysctl {
    name: String,
}

impl Sysctl {
    pub fn new(name: &str) -> Sysctl {
        Sysctl { name: name.to_owned() }
    }

    /// `net.ipv4.conf.eth0/1.mtu` is `net/ipv4/conf/eth0.1/mtu`.
    fn path(&self) -> Result<String> {
        let swapped = |c| match c {
            '.' => '/',
            '/' => '.',
            c => c,
        };
        let path: String = self.name.chars().map(swapped).collect();
        if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") || self.name.contains(char::is_whitespace) {
            return Err(Diagnostic::new(Code::Failed, format!("{:?} cannot be the name of a kernel value", self.name)).into());
        }
        Ok(format!("/proc/sys/{path}"))
    }
}

/// A value as the kernel writes it: what is between words is one tab.
pub fn plain(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join("\t")
}

impl Object for Sysctl {
    fn key(&self) -> Key {
        Key::new(Kind::Sysctl, &self.name)
    }

    fn read(&self, sys: &System) -> Result<Attrs> {
        let path = self.path()?;
        if sys.stat(&path)?.is_none() {
            return Ok(Attrs::new());
        }
        // Some values can be written only.
        let value = sys.read(&path).ok().flatten().map(|bytes| Value::Str(plain(&String::from_utf8_lossy(&bytes))));
        Ok(attributes([("value".to_owned(), value.unwrap_or_default())]))
    }

    fn set(&self, sys: &System, from: &Attrs, to: &Attrs, progress: &mut Progress) -> Result<Attrs> {
        if let Some(value) = to.get("value").filter(|value| !value.is_null() && from.get("value") != Some(value)) {
            progress.say(&format!("{} = {}", self.name, value.to_text()));
            sys.write_in_place(&self.path()?, format!("{}\n", value.to_text()).as_bytes())?;
        }
        let now = self.read(sys)?;
        match to.get("value").filter(|value| !value.is_null() && now.get("value").is_some_and(|v| !v.is_null() && v != *value)) {
            None => Ok(now),
            Some(value) => {
                let there = now.get("value").map(Value::to_text).unwrap_or_default();
                let summary = format!("the kernel made {there:?} of {:?} for {}", value.to_text(), self.name);
                Err(Diagnostic::new(Code::Failed, summary).hint("write the value as the kernel shows it").into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::{Command, Exec, Output};

    struct Nothing;
    impl Exec for Nothing {
        fn run(&self, command: &Command, _: &mut dyn FnMut(&[u8])) -> Result<Output> {
            panic!("a kernel value needs no command, not {:?}", command.argv)
        }
    }

    #[test]
    fn names_lead_to_their_files_and_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("proc/sys/net/ipv4/conf/eth0.1/x");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "4096 \t87380\n").unwrap();
        let sys = System::at(dir.path(), Box::new(Nothing));
        let value = Sysctl::new("net.ipv4.conf.eth0/1.x");
        assert_eq!(value.read(&sys).unwrap()["value"], Value::str("4096\t87380"));
        assert!(Sysctl::new("no.such").read(&sys).unwrap().is_empty());
        for name in ["", "..x", "a..b", "a.//.b", "a b"] {
            assert!(Sysctl::new(name).read(&sys).is_err(), "{name}");
        }
    }
}
