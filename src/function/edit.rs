//! A text file that a state of another name edits (hosts, authorized keys, ini files …): read, changed by a pure function of its text, made
//! where it is missing. So these states share the planning, the diff, the journal and the way back of files.

use super::file::place::{self, attrs, key};
use super::file::text::{self, Found};
use super::{There, Want};
use crate::diagnostic::Result;
use crate::plan::Key;
use crate::value::{Attrs, Value};

pub struct TextFile {
    pub path: String,
    /// What a file that is made is like besides its text; `None`: it has to be there.
    pub made: Option<Attrs>,
    /// What directories are like that are made above it; `None`: they have to be there.
    pub above: Option<Attrs>,
}

impl TextFile {
    /// A file of the system: made with the usual mode, in a directory that is there.
    pub fn new(path: impl Into<String>) -> TextFile {
        TextFile { path: path.into(), made: Some(attrs([("mode", place::NEW_FILE)])), above: None }
    }

    /// Makes missing directories above it, with the usual mode.
    pub fn with_directories(self) -> TextFile {
        TextFile { above: Some(attrs([("kind", "directory"), ("mode", place::NEW_DIRECTORY)])), ..self }
    }

    pub fn keys(&self, there: &dyn There) -> Result<Vec<Key>> {
        let mut keys = text::open_keys(there, &self.path);
        if self.made.is_some() {
            keys.extend(place::parent_keys(there, &place::follow(there, &self.path)?, self.above.is_some()));
        }
        Ok(keys)
    }

    /// Its text; `None` where it is not there.
    pub fn text(&self, there: &dyn There) -> Result<Option<String>> {
        match text::open(there, &self.path)? {
            Found::Text(file) => Ok(Some(file.text)),
            Found::Absent | Found::Unknown => Ok(None),
        }
    }

    /// The file with another text. One that is not there counts as empty, and is made only for a text.
    pub fn want(&self, there: &dyn There, edit: impl FnOnce(&str) -> Result<String>) -> Result<Want> {
        let found = text::open(there, &self.path)?;
        if let Found::Text(file) = &found {
            let new = edit(&file.text)?;
            return Ok(file.want(there, &new, None));
        }
        let Some(made) = &self.made else { return text::missing(&found, &self.path) };
        let new = edit("")?;
        if new.is_empty() {
            return Ok(Want::Nothing(format!("{} is not there", self.path)));
        }
        let real = place::follow(there, &self.path)?;
        let mut wants = place::parents(there, &real, self.above.as_ref())?;
        let hash = there.put(new.into_bytes());
        let mut wanted = attrs([("kind", "file"), ("content", &hash.0)]);
        wanted.extend(made.clone());
        wants.push((key(&real), wanted));
        Ok(Want::Is(wants))
    }
}

/// Whether any of these is not as wanted yet.
pub fn differ(there: &dyn There, wants: &[(Key, Attrs)]) -> bool {
    wants.iter().any(|(key, to)| {
        let now = there.get(key);
        if to.is_empty() { !now.is_empty() } else { to.iter().any(|(name, value)| now.get(name).unwrap_or(&Value::Null) != value) }
    })
}

/// Several wants as one; nothing where all are nothing.
pub fn all(wants: Vec<Want>, nothing: impl Into<String>) -> Want {
    let mut together = Vec::new();
    for want in wants {
        match want {
            Want::Is(some) => together.extend(some),
            Want::Nothing(_) => {}
            other => return other,
        }
    }
    if together.is_empty() { Want::Nothing(nothing.into()) } else { Want::Is(together) }
}

/// The lines of a text with their ends; a last one without an end gets one.
pub fn ended(text: &str) -> String {
    if text.is_empty() || text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") }
}
