//! One live line per busy host on a terminal; nothing anywhere else.

use std::collections::HashMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// More lines than this would push the result out of sight; further busy hosts are only counted.
const LINES: usize = 12;

pub struct Progress {
    live: Option<MultiProgress>,
    lines: HashMap<String, ProgressBar>,
    /// Busy hosts without a line of their own, with what they do.
    waiting: Vec<String>,
}

impl Progress {
    pub fn new(live: bool) -> Progress {
        Progress { live: live.then(MultiProgress::new), lines: HashMap::new(), waiting: Vec::new() }
    }

    pub fn busy(&mut self, host: &str, with: &str) {
        let Some(all) = &self.live else { return };
        if let Some(line) = self.lines.get(host) {
            line.set_message(with.to_owned());
        } else if self.lines.len() < LINES {
            let line = all.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix}  {wide_msg}") {
                line.set_style(style);
            }
            line.set_prefix(host.to_owned());
            line.set_message(with.to_owned());
            line.enable_steady_tick(Duration::from_millis(120));
            self.lines.insert(host.to_owned(), line);
        } else if !self.waiting.iter().any(|h| h == host) {
            self.waiting.push(host.to_owned());
        }
    }

    pub fn idle(&mut self, host: &str) {
        self.waiting.retain(|h| h != host);
        if let Some(line) = self.lines.remove(host) {
            line.finish_and_clear();
        }
        if let (Some(_), Some(next)) = (&self.live, self.waiting.first().cloned()) {
            self.waiting.remove(0);
            self.busy(&next, "");
        }
    }

    /// Prints something between the live lines.
    pub fn suspend(&self, print: impl FnOnce()) {
        match &self.live {
            Some(all) => all.suspend(print),
            None => print(),
        }
    }
}
