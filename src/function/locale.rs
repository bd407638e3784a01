//! locale.system: the language that programs start with, in the file that the platform has for it.

use super::args::Args;
use super::edit::{self, TextFile};
use super::file::place::{self, kind};
use super::{Arg, ArgKind, Entry, Function, There, Want};
use crate::diagnostic::Result;
use crate::plan::{Key, Low};

/// Debian, and all others with systemd.
const FILES: [&str; 2] = ["/etc/default/locale", "/etc/locale.conf"];
const DEBIAN: &str = "/etc/debian_version";

pub const FUNCTIONS: &[Entry] = &[Entry {
    name: "locale.system",
    doc: "The language that programs start with.",
    args: &[Arg::new("name", ArgKind::Str, "", "The locale. Example: de_DE.UTF-8")],
    watches: false,
    parse,
}];

struct Locale {
    name: String,
}

fn parse(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let name = args.name();
    let good = |c: char| c.is_ascii_alphanumeric() || "._@-".contains(c);
    if name.is_empty() || !name.chars().all(good) {
        return Err(args.error(format!("{name:?} cannot be the name of a locale")));
    }
    Ok(Box::new(Locale { name }))
}

/// Sets `LANG` where it stands, else at the end.
fn edited(text: &str, name: &str) -> String {
    let value = |line: &str| line.trim().strip_prefix("LANG=").map(|value| value.trim_matches(['"', '\'']).to_owned());
    let lines = || text.lines().filter_map(value);
    if lines().count() == 0 {
        return edit::ended(text) + &format!("LANG={name}\n");
    }
    if lines().all(|value| value == name) {
        return text.to_owned();
    }
    text.split_inclusive('\n').map(|line| if value(line).is_some() { format!("LANG={name}\n") } else { line.to_owned() }).collect()
}

impl Locale {
    fn file(there: &dyn There) -> TextFile {
        let debian = kind(&there.get(&place::key(DEBIAN))).is_some();
        TextFile::new(FILES[usize::from(!debian)])
    }
}

impl Function for Locale {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        let mut keys = vec![place::key(DEBIAN)];
        keys.extend(Locale::file(there).keys(there)?);
        Ok(keys)
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        Locale::file(there).want(there, |text| Ok(edited(text, &self.name)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::double::Double;

    #[test]
    fn the_language_is_set_in_the_platforms_file() {
        let mut host = Double::new();
        host.file("/etc/locale.conf", "# ours\nLANG=\"C.UTF-8\"\nLC_TIME=C");
        host.apply("locale.system", r#"{"name": "de_DE.UTF-8"}"#).unwrap();
        assert_eq!(host.at("/etc/locale.conf"), "# ours\nLANG=de_DE.UTF-8\nLC_TIME=C");
        host.file("/etc/debian_version", "12").directory("/etc/default").file("/etc/default/locale", "LANG=\"de_DE.UTF-8\"\n");
        assert_eq!(host.apply("locale.system", r#"{"name": "de_DE.UTF-8"}"#).unwrap(), 0);
        host.file("/etc/default/locale", "LC_TIME=C");
        host.apply("locale.system", r#"{"name": "en_US.UTF-8"}"#).unwrap();
        assert_eq!(host.at("/etc/default/locale"), "LC_TIME=C\nLANG=en_US.UTF-8\n");
    }
}
