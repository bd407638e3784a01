//! A module of the kernel: loaded or not. What is built into the kernel counts as loaded.
//!
//! Attributes: `loaded`.

use super::mount::command;
use super::{Object, Progress};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::plan::{Key, Kind};
use crate::system::System;
use crate::value::{Attrs, Value, attributes};

pub struct Module {
    name: String,
}

impl Module {
    pub fn new(name: &str) -> Module {
        Module { name: name.to_owned() }
    }

    fn built_in(&self, sys: &System) -> Result<bool> {
        let text = |path: &str| -> Result<String> { Ok(String::from_utf8_lossy(&sys.read(path)?.unwrap_or_default()).into_owned()) };
        let list = text(&format!("/lib/modules/{}/modules.builtin", text("/proc/sys/kernel/osrelease")?.trim()))?;
        let stem = |line: &str| line.rsplit('/').next().unwrap_or_default().trim_end_matches(".ko").replace('-', "_");
        Ok(list.lines().any(|line| stem(line) == self.name))
    }
}

impl Object for Module {
    fn key(&self) -> Key {
        Key::new(Kind::Module, &self.name)
    }

    fn read(&self, sys: &System) -> Result<Attrs> {
        let text = sys.read("/proc/modules")?.unwrap_or_default();
        let loaded = String::from_utf8_lossy(&text).lines().any(|line| line.split(' ').next() == Some(&self.name));
        Ok(if loaded || self.built_in(sys)? { attributes([("loaded".into(), Value::Bool(true))]) } else { Attrs::new() })
    }

    fn set(&self, sys: &System, from: &Attrs, to: &Attrs, progress: &mut Progress) -> Result<Attrs> {
        match (from.is_empty(), to.is_empty()) {
            (true, false) => command(sys, progress, vec!["modprobe".into(), self.name.clone()])?,
            (false, true) if self.built_in(sys)? => {
                return Err(Diagnostic::new(Code::Failed, format!("{} is built into the kernel", self.name)).into());
            }
            (false, true) => command(sys, progress, vec!["modprobe".into(), "-r".into(), self.name.clone()])?,
            _ => {}
        }
        self.read(sys)
    }
}
