//! locale.*: locales that programs can use, and the one they start with.
//!
//! `system` is an edit of the file that the platform has for it; `present` is the list that locale-gen goes by, and what it makes of it.

use super::args::Args;
use super::edit::{self, TextFile};
use super::file::place::{self, failed, kind};
use super::{Arg, ArgKind, Entry, Function, There, Want};
use crate::diagnostic::{Result, nearest};
use crate::object::locale::normal;
use crate::plan::{Key, Kind, Low};
use crate::value::{Value, attributes};

/// Debian, and all others with systemd.
const FILES: [&str; 2] = ["/etc/default/locale", "/etc/locale.conf"];
const DEBIAN: &str = "/etc/debian_version";

/// What locale-gen makes, and what it can make.
const WANTED: &str = "/etc/locale.gen";
const SUPPORTED: &str = "/usr/share/i18n/SUPPORTED";

pub const FUNCTIONS: &[Entry] = &[
    Entry {
        name: "locale.present",
        doc: "A locale is there for programs to use.",
        args: &[Arg::new(
            "name",
            ArgKind::Str,
            "",
            "The locale, its character set behind it where that is not its ending. Example: de_DE.UTF-8",
        )],
        watches: false,
        parse: present,
    },
    Entry {
        name: "locale.system",
        doc: "The language that programs start with.",
        args: &[Arg::new("name", ArgKind::Str, "", "The locale. Example: de_DE.UTF-8")],
        watches: false,
        parse,
    },
];

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

struct Present {
    /// As the list has it: the locale and its character set.
    line: String,
    key: Key,
}

fn present(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let name = args.name();
    let good = |c: char| c.is_ascii_alphanumeric() || "._@- ".contains(c);
    let mut words = name.split_whitespace();
    let (Some(locale), charset, None) = (words.next(), words.next(), words.next()) else {
        return Err(args.error(format!("{name:?} cannot be the name of a locale")));
    };
    if !name.chars().all(good) || locale.starts_with(['.', '-']) {
        return Err(args.error(format!("{name:?} cannot be the name of a locale")));
    }
    let ending = locale.split('@').next().unwrap_or(locale).split_once('.').map(|(_, codeset)| codeset);
    let line = match charset.or(ending) {
        Some(charset) => format!("{locale} {charset}"),
        None => locale.to_owned(),
    };
    Ok(Box::new(Present { line, key: Key::new(Kind::Locale, normal(locale)) }))
}

impl Present {
    /// Takes the sign of a comment off the line, or adds it.
    fn listed(&self, text: &str) -> String {
        if text.lines().any(|line| line.trim() == self.line) {
            return text.to_owned();
        }
        let commented = |line: &str| line.trim().strip_prefix('#').is_some_and(|rest| rest.trim() == self.line);
        let mut lines: Vec<String> = edit::ended(text).split_inclusive('\n').map(str::to_owned).collect();
        match lines.iter_mut().find(|line| commented(line)) {
            Some(line) => *line = format!("{}\n", self.line),
            None => lines.push(format!("{}\n", self.line)),
        }
        lines.concat()
    }
}

impl Function for Present {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        let mut keys = vec![self.key.clone()];
        for path in [WANTED, SUPPORTED] {
            keys.extend(place::follow_keys(there, path));
        }
        Ok(keys)
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        if !there.get(&self.key).is_empty() {
            return Ok(Want::Nothing(format!("Locale {} is already present", self.line)));
        }
        match TextFile::new(SUPPORTED).text(there)? {
            Some(text) if text.lines().any(|line| line.trim() == self.line) => {}
            Some(text) => {
                let error = failed(format!("the locale {} is not one that glibc has", self.line));
                return Err(match nearest(&self.line, text.lines().map(str::trim)) {
                    Some(near) => error.hint(format!("did you mean {near}?")).into(),
                    None => error.hint(format!("{SUPPORTED} lists them")).into(),
                });
            }
            // The package that brings it may come in this run.
            None if there.uncertain() || kind(&there.get(&place::key(WANTED))).is_none() => {}
            None => return Err(failed(format!("{SUPPORTED} is not there")).hint("the package locales brings it").into()),
        }
        let mut wants = Vec::new();
        if kind(&there.get(&place::key(&place::follow(there, WANTED)?))).is_some() {
            wants.push(TextFile::new(WANTED).want(there, |text| Ok(self.listed(text)))?);
        }
        wants.push(Want::Is(vec![(self.key.clone(), attributes([("available".to_owned(), Value::Bool(true))]))]));
        Ok(edit::all(wants, ""))
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

    #[test]
    fn a_locale_is_listed_and_made() {
        let mut host = Double::new();
        host.file("/usr/share/i18n/SUPPORTED", "de_DE.UTF-8 UTF-8\nde_DE ISO-8859-1\n")
            .file("/etc/locale.gen", "# all\n#  de_DE.UTF-8 UTF-8\n");
        assert_eq!(host.apply("locale.present", r#"{"name": "de_DE.UTF-8"}"#).unwrap(), 2);
        assert_eq!(host.at("/etc/locale.gen"), "# all\nde_DE.UTF-8 UTF-8\n");
        assert_eq!(host.objects[&"locale:de_DE.utf8".parse().unwrap()]["available"].to_text(), "True");
        assert_eq!(host.apply("locale.present", r#"{"name": "de_DE.UTF-8 UTF-8"}"#).unwrap(), 0);
        host.apply("locale.present", r#"{"name": "de_DE ISO-8859-1"}"#).unwrap();
        assert_eq!(host.at("/etc/locale.gen"), "# all\nde_DE.UTF-8 UTF-8\nde_DE ISO-8859-1\n");
        let error = host.apply("locale.present", r#"{"name": "de_DX.UTF-8"}"#).unwrap_err();
        assert_eq!(error.summary, "the locale de_DX.UTF-8 UTF-8 is not one that glibc has");
    }
}
