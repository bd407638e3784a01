//! A device or file that the kernel swaps to, as `/proc/swaps` tells.
//!
//! Attributes: `active`, `priority` (for restoring; the kernel's own, below zero, are not asked for again).

use super::mount::command;
use super::{Object, Progress, Sign};
use crate::diagnostic::Result;
use crate::plan::{Key, Kind};
use crate::system::System;
use crate::value::{Attrs, Value, attributes};

pub struct Swap {
    device: String,
}

impl Swap {
    pub fn new(device: &str) -> Swap {
        Swap { device: device.to_owned() }
    }
}

/// What is swapped to, with its priority.
pub fn swaps(sys: &System) -> Result<Vec<(String, i64)>> {
    let text = sys.read("/proc/swaps")?.unwrap_or_default();
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let (name, priority) = (words.next()?, words.last()?);
        Some((super::mount::unescape(name), priority.parse().ok()?))
    };
    Ok(String::from_utf8_lossy(&text).lines().skip(1).filter_map(line).collect())
}

impl Object for Swap {
    fn key(&self) -> Key {
        Key::new(Kind::Swap, &self.device)
    }

    fn read(&self, sys: &System) -> Result<Attrs> {
        let place = sys.resolve(&self.device);
        let found = swaps(sys)?.into_iter().find(|(name, _)| *name == place || *name == self.device);
        Ok(match found {
            None => Attrs::new(),
            Some((_, priority)) => {
                let mut attrs = attributes([("active".into(), Value::Bool(true))]);
                if priority >= 0 {
                    attrs.insert("priority".into(), Value::Int(priority));
                }
                attrs
            }
        })
    }

    fn signs(&self, _sys: &System) -> Result<Vec<Sign>> {
        Ok(vec![Sign::Kernel("/proc/swaps")])
    }

    fn set(&self, sys: &System, from: &Attrs, to: &Attrs, progress: &mut Progress) -> Result<Attrs> {
        if to.is_empty() {
            if !from.is_empty() {
                command(sys, progress, vec!["swapoff".into(), self.device.clone()])?;
            }
        } else if from.is_empty() {
            let mut argv = vec!["swapon".to_owned()];
            if let Some(priority) = to.get("priority").and_then(Value::as_int).filter(|p| *p >= 0) {
                argv.extend(["-p".to_owned(), priority.to_string()]);
            }
            argv.push(self.device.clone());
            command(sys, progress, argv)?;
        }
        self.read(sys)
    }
}
