//! pkgrepo.* with yum, dnf and zypper: sections of `.repo` files.

use super::refresh_with;
use crate::diagnostic::Result;
use crate::function::edit::TextFile;
use crate::function::file::place::{self, failed};
use crate::function::{There, Want};
use crate::plan::Key;
use crate::value::Attrs;

pub struct Repo {
    pub id: String,
    /// Options and values in their order; an empty value takes the option away.
    pub options: Vec<(String, String)>,
    /// What its comments are to be; none: as they are.
    pub comments: Vec<String>,
    pub refresh: bool,
}

const LINKS: [&str; 3] = ["baseurl", "mirrorlist", "metalink"];

/// A section with its options and comments, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
struct Section {
    id: String,
    options: Vec<(String, String)>,
    comments: Vec<String>,
}

/// The comments above all sections, and the sections.
fn parse(text: &str) -> (Vec<String>, Vec<Section>) {
    let (mut head, mut sections): (Vec<String>, Vec<Section>) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let bare = line.trim();
        match sections.last_mut() {
            _ if bare.is_empty() => {}
            None if bare.starts_with('#') => head.push(bare.to_owned()),
            Some(section) if bare.starts_with(['#', ';']) => {
                section.comments.push(bare.trim_start_matches(['#', ';']).trim_start().to_owned())
            }
            _ if bare.starts_with('[') && bare.ends_with(']') => {
                let id = bare.trim_start_matches('[').trim_end_matches(']').to_owned();
                sections.push(Section { id, ..Section::default() });
            }
            Some(section) => match (line.starts_with([' ', '\t']), section.options.last_mut(), bare.split_once(['=', ':'])) {
                // A further line of a value.
                (true, Some((_, value)), _) => {
                    value.push('\n');
                    value.push_str(bare);
                }
                (_, _, Some((name, value))) => section.options.push((name.trim().to_lowercase(), value.trim().to_owned())),
                _ => {}
            },
            None => {}
        }
    }
    (head, sections)
}

fn render(head: &[String], sections: &[Section]) -> String {
    let mut out: String = head.iter().map(|line| format!("{line}\n")).collect();
    for section in sections {
        out.push_str(&format!("[{}]\n", section.id));
        for (name, value) in &section.options {
            out.push_str(&format!("{name}={}\n", value.replace('\n', "\n ")));
        }
        section.comments.iter().for_each(|comment| out.push_str(&format!("# {comment}\n")));
        out.push('\n');
    }
    out
}

/// `1`, `True` and `yes` are one.
fn same(a: &str, b: &str) -> bool {
    let truth = |text: &str| match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Some(true),
        "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    };
    a == b || truth(a).is_some_and(|a| truth(b) == Some(a))
}

impl Repo {
    fn files(there: &dyn There, directory: &str) -> Result<Vec<String>> {
        let names = there.list(directory)?.into_keys().filter(|name| name.ends_with(".repo"));
        Ok(names.map(|name| format!("{directory}/{name}")).collect())
    }

    pub fn objects(&self, there: &dyn There, directory: &str) -> Result<Vec<Key>> {
        let mut keys = TextFile::new(self.own(directory)).keys(there)?;
        for path in Repo::files(there, directory)? {
            keys.extend(place::follow_keys(there, &path));
        }
        Ok(keys)
    }

    fn own(&self, directory: &str) -> String {
        format!("{directory}/{}.repo", self.id)
    }

    /// The file that has the section, and its text; else where it would be.
    fn find(&self, there: &dyn There, directory: &str) -> Result<(String, Option<String>)> {
        for path in Repo::files(there, directory)? {
            if let Some(text) = TextFile::new(&path).text(there)?
                && parse(&text).1.iter().any(|section| section.id == self.id)
            {
                return Ok((path, Some(text)));
            }
        }
        Ok((self.own(directory), None))
    }

    pub fn managed(&self, there: &dyn There, directory: &str) -> Result<Want> {
        let (path, text) = self.find(there, directory)?;
        let done = format!("Package repo '{}' already configured", self.id);
        let text = match text {
            Some(text) => Some(text),
            None => TextFile::new(&path).text(there)?,
        };
        let (head, mut sections) = parse(text.as_deref().unwrap_or_default());
        let at = match sections.iter().position(|section| section.id == self.id) {
            Some(at) => at,
            None => {
                let given = |name: &str| self.options.iter().any(|(n, value)| n == name && !value.is_empty());
                if !LINKS.into_iter().any(given) {
                    return Err(failed(format!("the repo {} is new, and none of {} was given", self.id, LINKS.join(", "))).into());
                }
                if !given("name") {
                    return Err(failed(format!("the repo {} is new, and no humanname was given", self.id)).into());
                }
                sections.push(Section { id: self.id.clone(), ..Section::default() });
                sections.len() - 1
            }
        };
        let Some(section) = sections.get_mut(at) else { return Ok(Want::Nothing(done)) };
        let before = section.clone();
        // One way to the packages takes the place of another.
        if let Some((link, _)) = self.options.iter().find(|(name, value)| LINKS.contains(&name.as_str()) && !value.is_empty()) {
            section.options.retain(|(name, _)| name == link || !LINKS.contains(&name.as_str()));
        }
        for (name, value) in &self.options {
            let there = section.options.iter_mut().find(|(n, _)| n == name);
            match there {
                _ if value.is_empty() => section.options.retain(|(n, _)| n != name),
                Some((_, now)) if same(now, value) => {}
                Some((_, now)) => now.clone_from(value),
                None if name == "enabled" && same(value, "1") && !before.options.is_empty() => {}
                None => section.options.push((name.clone(), value.clone())),
            }
        }
        if !self.comments.is_empty() {
            section.comments.clone_from(&self.comments);
        }
        if *section == before {
            return Ok(Want::Nothing(done));
        }
        let new = render(&head, &sections);
        match TextFile::new(path).want(there, |_| Ok(new))? {
            Want::Is(wants) => Ok(refresh_with(there, wants, self.refresh, &["dnf", "yum", "zypper"], done)),
            other => Ok(other),
        }
    }

    pub fn absent(&self, there: &dyn There, directory: &str) -> Result<Want> {
        let (path, Some(text)) = self.find(there, directory)? else {
            return Ok(Want::Nothing(format!("Package repo {} is absent", self.id)));
        };
        let (head, mut sections) = parse(&text);
        sections.retain(|section| section.id != self.id);
        if sections.is_empty() {
            return Ok(Want::Is(vec![(place::key(&place::follow(there, &path)?), Attrs::new())]));
        }
        TextFile::new(path).want(there, |_| Ok(render(&head, &sections)))
    }
}
