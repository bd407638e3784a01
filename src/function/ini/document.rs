//! An ini file as Salt's `ini_manage` reads, changes and writes it: sections, comments and lines of no known kind in their order, a commented
//! option giving its place to the option of that name.

use indexmap::IndexMap;

use crate::function::file::text::split_lines;

/// A value of an option, or a section.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    Text(String),
    Section(Section),
}

/// What is in a section, or in the whole file; comments are under names that begin with `#`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Section {
    separator: String,
    items: IndexMap<String, Node>,
}

impl Section {
    fn new(separator: &str) -> Section {
        Section { separator: separator.to_owned(), items: IndexMap::new() }
    }

    pub fn parse(text: &str, separator: &str) -> Section {
        let mut file = Section::new(separator);
        let mut sections: Vec<(Option<String>, Vec<&str>)> = vec![(None, Vec::new())];
        for line in split_lines(text, false) {
            match header(line) {
                Some(name) => {
                    // Blank lines around a header belong to it.
                    if let Some((_, body)) = sections.last_mut() {
                        body.truncate(body.iter().rposition(|l| !l.trim().is_empty()).map_or(0, |last| last + 1));
                    }
                    sections.push((Some(name.to_owned()), Vec::new()));
                }
                None => {
                    let Some((name, body)) = sections.last_mut() else { continue };
                    if !(name.is_some() && body.is_empty() && line.trim().is_empty()) {
                        body.push(line);
                    }
                }
            }
        }
        for (name, body) in sections {
            match name {
                None => file.read(&body),
                Some(name) => {
                    let mut section = Section::new(&file.separator);
                    section.read(&body);
                    let mut copy = Section::new(&file.separator);
                    copy.update(&section.items);
                    file.update(&IndexMap::from([(name, Node::Section(copy))]));
                }
            }
        }
        file
    }

    /// Takes the lines of a section in.
    fn read(&mut self, lines: &[&str]) {
        let start = lines.iter().position(|l| !l.is_empty()).unwrap_or(lines.len());
        let end = lines.iter().rposition(|l| !l.is_empty()).map_or(start, |last| last + 1);
        let (mut comments, mut unknown) = (0, 0);
        let mut indent = String::new();
        for line in lines.get(start..end).unwrap_or_default() {
            let bare = line.trim_start();
            if bare.starts_with(['#', ';']) {
                comments += 1;
                self.update(&IndexMap::from([(format!("#comment{comments}"), Node::Text((*line).to_owned()))]));
                continue;
            }
            let own = line.get(..line.len() - bare.len()).unwrap_or_default().replace('\t', "    ");
            // A line that stands deeper continues the value above it.
            if own > indent
                && let Some((_, Node::Text(value))) = self.items.last_mut()
            {
                value.push('\n');
                value.push_str(line);
                continue;
            }
            match option(line, &self.separator) {
                Some((name, value)) => {
                    indent = own;
                    self.update(&IndexMap::from([(name.to_owned(), Node::Text(value.to_owned()))]));
                }
                None => {
                    unknown += 1;
                    self.update(&IndexMap::from([(format!("#unknown{unknown}"), Node::Text((*line).to_owned()))]));
                }
            }
        }
    }

    /// Sets options and sections. Whether anything is another than before.
    pub fn update(&mut self, with: &IndexMap<String, Node>) -> bool {
        let mut changed = false;
        for (name, new) in with {
            match (self.items.get_mut(name), new) {
                (Some(Node::Section(there)), Node::Section(new)) => changed |= there.update(&new.items),
                (Some(there), new) => {
                    if there != new {
                        *there = self::copy(new, &self.separator);
                        changed = true;
                    }
                }
                (None, Node::Section(_)) => {
                    self.items.insert(name.clone(), self::copy(new, &self.separator));
                    changed = true;
                }
                (None, Node::Text(_)) => {
                    let place = self.commented(name);
                    match place {
                        Some(index) => {
                            self.items.shift_remove_index(index);
                            self.items.shift_insert(index, name.clone(), new.clone());
                        }
                        None => drop(self.items.insert(name.clone(), new.clone())),
                    }
                    changed = true;
                }
            }
        }
        changed
    }

    /// Where a comment has an option of this name.
    fn commented(&self, wanted: &str) -> Option<usize> {
        self.items.iter().position(|(key, value)| {
            let Node::Text(text) = value else { return false };
            key.contains("#comment") && option(text.trim_start_matches('#'), &self.separator).is_some_and(|(name, _)| name == wanted)
        })
    }

    pub fn get(&self, name: &str) -> Option<&Node> {
        self.items.get(name)
    }

    pub fn section_mut(&mut self, name: &str) -> Option<&mut Section> {
        match self.items.get_mut(name) {
            Some(Node::Section(section)) => Some(section),
            _ => None,
        }
    }

    pub fn remove(&mut self, name: &str) -> bool {
        self.items.shift_remove(name).is_some()
    }

    /// The names of options and sections, without comments and the like.
    pub fn names(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.items.iter().filter(|(name, _)| !name.starts_with('#')).map(|(name, node)| (name.as_str(), node))
    }

    /// The text of the whole file.
    pub fn text(&self, no_spaces: bool) -> String {
        let mut out = String::new();
        self.write(no_spaces, &mut out);
        // The file does not begin with an empty line.
        out.trim_start_matches('\n').to_owned()
    }

    fn write(&self, no_spaces: bool, out: &mut String) {
        let separator = match self.separator.trim_matches(' ') {
            "" => " ".to_owned(),
            bare if no_spaces => bare.trim().to_owned(),
            bare => format!(" {} ", bare.trim()),
        };
        for (name, node) in &self.items {
            match node {
                Node::Text(text) if name.trim_start().starts_with(['#', ';']) => out.push_str(&format!("{text}\n")),
                Node::Text(value) => out.push_str(&format!("{name}{separator}{value}\n")),
                Node::Section(_) => {}
            }
        }
        for (name, node) in &self.items {
            if let Node::Section(section) = node {
                out.push_str(&format!("\n[{name}]\n"));
                section.write(no_spaces, out);
            }
        }
    }
}

/// A section that is put in has the separator of the file.
fn copy(node: &Node, separator: &str) -> Node {
    match node {
        Node::Text(text) => Node::Text(text.clone()),
        Node::Section(section) => {
            let mut copy = Section::new(separator);
            copy.update(&section.items);
            Node::Section(copy)
        }
    }
}

/// The name in a line `[name]`.
fn header(line: &str) -> Option<&str> {
    line.trim().strip_prefix('[')?.strip_suffix(']').filter(|name| !name.is_empty())
}

/// Name and value of a line with the separator.
fn option<'l>(line: &'l str, separator: &str) -> Option<(&'l str, &'l str)> {
    let bare = line.trim_start();
    // A name has at least one character.
    let first = bare.chars().next()?.len_utf8();
    let at = bare.get(first..)?.find(separator)? + first;
    let value = bare.get(at + separator.len()..)?;
    Some((bare.get(..at)?.trim_end(), value.trim_start()))
}

impl From<IndexMap<String, Node>> for Section {
    fn from(items: IndexMap<String, Node>) -> Section {
        Section { separator: String::new(), items }
    }
}
