//! Requirements of Python packages (`django[argon2]>=4,<5`), and whether an installed version fulfils one: the order of versions is that of
//! PEP 440.

use std::cmp::Ordering;

use crate::object::pip::plain;

#[derive(Clone, Debug, PartialEq)]
pub struct Requirement {
    /// As the index writes it.
    pub name: String,
    /// Operator and version.
    specs: Vec<(String, String)>,
    /// As it was written, for pip.
    pub text: String,
}

impl Requirement {
    /// `None`: it is none that names a package (a path, an address without `#egg=`).
    pub fn parse(text: &str) -> Option<Requirement> {
        let text = text.trim();
        if let Some((_, egg)) = text.split_once("#egg=") {
            let name = egg.split(['&', '[']).next().unwrap_or_default();
            return (!name.is_empty()).then(|| Requirement { name: plain(name), specs: Vec::new(), text: text.to_owned() });
        }
        let name_length = text.bytes().take_while(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b)).count();
        let (name, rest) = text.split_at(name_length);
        if name.is_empty() || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return None;
        }
        let rest = rest.trim_start();
        let rest = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?.1,
            None => rest,
        };
        // What stands behind `;` says when it counts, which pip decides; behind `@` where it comes from.
        let rest = rest.split(';').next().unwrap_or_default().trim().trim_start_matches('(').trim_end_matches(')');
        let specs = if rest.starts_with('@') {
            Vec::new()
        } else {
            rest.split(',').filter(|s| !s.trim().is_empty()).map(spec).collect::<Option<_>>()?
        };
        Some(Requirement { name: plain(name), specs, text: text.to_owned() })
    }

    pub fn fulfilled_by(&self, version: &str) -> bool {
        self.specs.iter().all(|(operator, wanted)| {
            let order = compare(version, wanted);
            match operator.as_str() {
                "==" => match wanted.strip_suffix(".*") {
                    Some(prefix) => begins(version, prefix),
                    None => order == Ordering::Equal,
                },
                "!=" => match wanted.strip_suffix(".*") {
                    Some(prefix) => !begins(version, prefix),
                    None => order != Ordering::Equal,
                },
                "~=" => order != Ordering::Less && wanted.rsplit_once('.').is_some_and(|(prefix, _)| begins(version, prefix)),
                ">=" => order != Ordering::Less,
                "<=" => order != Ordering::Greater,
                ">" => order == Ordering::Greater,
                "<" => order == Ordering::Less,
                _ => version == wanted,
            }
        })
    }
}

fn spec(text: &str) -> Option<(String, String)> {
    let text = text.trim();
    let operator = ["===", "==", "!=", "~=", ">=", "<=", ">", "<"].into_iter().find(|operator| text.starts_with(operator))?;
    let version = text.strip_prefix(operator)?.trim();
    version.starts_with(|c: char| c.is_ascii_alphanumeric()).then(|| (operator.to_owned(), version.to_owned()))
}

/// A version in parts that compare: epoch, release, then what comes before and behind a release.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    epoch: u64,
    release: Vec<u64>,
    /// Development and candidates before the release itself, post-releases behind it; the local part last.
    rest: (i8, u64, i64, u64, Vec<(u64, String)>),
}

fn parse(text: &str) -> Version {
    let text = text.trim().trim_start_matches(['v', 'V']).to_ascii_lowercase();
    let (text, local) = text.split_once('+').unwrap_or((&text, ""));
    let (epoch, text) = text.split_once('!').unwrap_or(("0", text));
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let mut release = Vec::new();
    let mut rest = text;
    loop {
        let length = digits(rest);
        let (number, behind) = rest.split_at(length);
        if length > 0 {
            release.push(number.parse().unwrap_or(u64::MAX));
        }
        match behind.strip_prefix('.').filter(|next| digits(next) > 0) {
            Some(next) if length > 0 => rest = next,
            _ => {
                rest = behind;
                break;
            }
        }
    }
    while release.last() == Some(&0) {
        release.pop();
    }
    // Behind everything else of its release: no candidate, no post-release, no development.
    let (mut phase, mut candidate, mut post, mut dev) = (3i8, 0u64, -1i64, u64::MAX);
    while !rest.is_empty() {
        let word_at = rest.trim_start_matches(['.', '-', '_']);
        let length = word_at.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (word, behind) = word_at.split_at(length);
        let behind = behind.trim_start_matches(['.', '-', '_']);
        let (number, behind) = behind.split_at(digits(behind));
        let number = number.parse().unwrap_or(0);
        match word {
            "a" | "alpha" => (phase, candidate) = (0, number),
            "b" | "beta" => (phase, candidate) = (1, number),
            "c" | "rc" | "pre" | "preview" => (phase, candidate) = (2, number),
            "dev" => dev = number,
            // `1.0-1` is a post-release too.
            _ => post = i64::try_from(number).unwrap_or(i64::MAX),
        }
        if behind.len() == rest.len() {
            break;
        }
        rest = behind;
    }
    // A development version of a release comes before its candidates.
    if phase == 3 && post < 0 && dev != u64::MAX {
        phase = -1;
    }
    let locals = local.split(['.', '-', '_']).filter(|part| !part.is_empty());
    let local =
        locals.map(|part| part.parse::<u64>().map_or_else(|_| (0, part.to_owned()), |number| (number + 1, String::new()))).collect();
    Version { epoch: epoch.parse().unwrap_or(0), release, rest: (phase, candidate, post, dev, local) }
}

/// The order of an installed version and a wanted one: a local part (`+ubuntu1`) counts only where it is asked for.
pub fn compare(version: &str, wanted: &str) -> Ordering {
    let version = if wanted.contains('+') { version } else { version.split('+').next().unwrap_or(version) };
    parse(version).cmp(&parse(wanted))
}

fn begins(version: &str, prefix: &str) -> bool {
    let numbers = |text: &str| -> Vec<u64> {
        text.split('.')
            .map_while(|part| part.bytes().take_while(u8::is_ascii_digit).map(char::from).collect::<String>().parse().ok())
            .collect()
    };
    let (mut there, wanted) = (numbers(version), numbers(prefix));
    there.resize(there.len().max(wanted.len()), 0);
    there.starts_with(&wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_in_the_order_of_pep_440() {
        let order = [
            "1.0.dev1",
            "1.0a1.dev2",
            "1.0a1",
            "1.0a2",
            "1.0b1",
            "1.0rc1",
            "1.0",
            "1.0.post1.dev1",
            "1.0.post1",
            "1.0.1",
            "1.1.dev0",
            "1.1",
            "1.10",
            "2",
            "1!0.1",
        ];
        for (index, lower) in order.iter().enumerate() {
            for higher in order.iter().skip(index + 1) {
                assert_eq!((compare(lower, higher), compare(higher, lower)), (Ordering::Less, Ordering::Greater), "{lower} {higher}");
            }
        }
        for (a, b) in [("1.0", "1"), ("1.0.0", "v1"), ("1.0-1", "1.0.post1"), ("1.0.RC.1", "1.0c1"), ("1.0+local", "1.0")] {
            assert_eq!(compare(a, b), Ordering::Equal, "{a} {b}");
        }
    }

    #[test]
    fn requirements_are_read_and_judged() {
        for (text, version, fulfilled) in [
            ("Django", "4.2", true),
            ("django[argon2] >= 4, < 5", "4.2.1", true),
            ("django>=4,<5", "5.0", false),
            ("a==1.4.*", "1.4.9", true),
            ("a==1.4.*", "1.40", false),
            ("a~=2.2", "2.9", true),
            ("a~=2.2", "3.0", false),
            ("a!=1.0", "1.0.0", false),
            ("a==1.0; python_version < '3'", "1.0", true),
            ("a @ https://x/a.whl", "7", true),
            ("git+https://x/y.git#egg=my_pkg&subdirectory=z", "0", true),
        ] {
            assert_eq!(Requirement::parse(text).map(|r| r.fulfilled_by(version)), Some(fulfilled), "{text}");
        }
        assert_eq!(Requirement::parse("git+https://x/y.git#egg=my_pkg").unwrap().name, "my-pkg");
        for text in ["", "./local", "a=1", "-e .", "a>>2"] {
            assert_eq!(Requirement::parse(text), None, "{text}");
        }
    }
}
