//! What is secret while one host is compiled: every text that was decrypted or that the settings mark, and whatever templates make of one.
//!
//! A secret counts in the usual other spellings too (base64, hexadecimal, quoted for JSON, YAML, a shell, HTML or a URL). When a filter, method or
//! function gets a text with a secret in it and gives one in which the secret cannot be seen any more (`upper`, `sha256`, a slice), what it
//! gave is a secret as well (`jinja::taint`). Texts below `SHORTEST` are none: they stand in too much else.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::lang::function::hash;
use crate::plan::hex;
use crate::secret::{self, SHORTEST};
use crate::value::Value;
use crate::yaml::{Data, Node, Place};

/// Numbers with fewer digits are ports and sizes.
const DIGITS: usize = 6;

/// The secrets of one host, as they are found.
#[derive(Default)]
pub struct Secrets {
    any: AtomicBool,
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    /// The texts, and what the first of each group is in other spellings.
    groups: Vec<Vec<String>>,
    seen: HashSet<String>,
}

thread_local! {
    /// Of the host whose template is rendered on this thread.
    static CURRENT: RefCell<Option<Arc<Secrets>>> = const { RefCell::new(None) };
}

/// Renders with these secrets in sight.
pub fn within<T>(secrets: &Arc<Secrets>, render: impl FnOnce() -> T) -> T {
    let before = CURRENT.replace(Some(secrets.clone()));
    let rendered = render();
    CURRENT.set(before);
    rendered
}

/// The secrets of the host that is rendered on this thread, where there are any.
pub fn current() -> Option<Arc<Secrets>> {
    CURRENT.with_borrow(|secrets| secrets.as_ref().filter(|secrets| !secrets.is_empty()).cloned())
}

impl Secrets {
    pub fn is_empty(&self) -> bool {
        !self.any.load(Ordering::Relaxed)
    }

    /// From now on this text is a secret, and each of its lines.
    pub fn add(&self, text: &str) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let known = &mut *known;
        let whole = text.trim();
        let mut add = |group: Vec<String>| {
            let group: Vec<String> = group.into_iter().filter(|text| text.len() >= SHORTEST).collect();
            if group.first().is_some_and(|first| known.seen.insert(first.clone())) {
                known.groups.push(group);
                self.any.store(true, Ordering::Relaxed);
            }
        };
        for line in secret::lines(whole).filter(|line| line.len() >= SHORTEST) {
            add(spellings(line));
        }
        if whole.contains('\n') {
            add(encodings(whole));
        }
    }

    /// Every text in a value, and numbers that look like more than a port.
    pub fn add_value(&self, value: &Value) {
        match value {
            Value::Str(text) => self.add(text),
            Value::List(items) => items.iter().for_each(|item| self.add_value(item)),
            Value::Map(map) => map.iter().for_each(|(_, value)| self.add_value(value)),
            Value::Int(_) | Value::Float(_) => self.add_number(&value.to_text()),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn add_number(&self, text: &str) {
        if text.len() >= DIGITS {
            self.add(text);
        }
    }

    pub fn holds(&self, text: &str) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.groups.iter().flatten().any(|secret| text.contains(secret.as_str()))
    }

    /// Whether there is one in any text of a value.
    pub fn holds_in(&self, value: &Value) -> bool {
        match value {
            Value::Str(text) => self.holds(text),
            Value::List(items) => items.iter().any(|item| self.holds_in(item)),
            Value::Map(map) => map.iter().any(|(key, value)| self.holds_in(key) || self.holds_in(value)),
            _ => false,
        }
    }

    /// All of them, for the mask.
    pub fn list(&self) -> Vec<String> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let mut list: Vec<String> = known.groups.iter().flatten().cloned().collect();
        list.sort();
        list.dedup();
        list
    }

    /// The secrets that stand in `given` and in none of `made`, as they were first known.
    fn lost(&self, given: &[&str], made: &[&str]) -> Vec<String> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let stands =
            |group: &Vec<String>, texts: &[&str]| group.iter().any(|secret| texts.iter().any(|text| text.contains(secret.as_str())));
        let lost = known.groups.iter().filter(|group| stands(group, given) && !stands(group, made));
        lost.filter_map(|group| group.first().cloned()).collect()
    }

    /// A text was made of others: it is secret where a secret went in and cannot be seen in it.
    pub fn made(&self, given: &[&str], made: &str) {
        if made.len() >= SHORTEST && !given.contains(&made) && !self.lost(given, &[made]).is_empty() {
            self.add(made);
        }
    }

    /// Several texts were made of others. Parts of a lost secret are secret; where nothing tells where it went, everything new is. What is
    /// among the `old` is not new.
    pub fn made_several(&self, given: &[&str], old: &[&str], made: &[&str]) {
        let lost = self.lost(given, made);
        let new = || made.iter().filter(|text| text.len() >= SHORTEST && !old.contains(text));
        for secret in lost {
            let mut parts = new().filter(|text| secret.contains(**text)).peekable();
            match parts.peek() {
                Some(_) => parts.for_each(|part| self.add(part)),
                None => new().for_each(|text| self.add(text)),
            }
        }
    }

    /// A text with secrets in it was read as YAML: quoting, escapes and folding may have made another text of one.
    pub fn read(&self, text: &str, node: &Node) {
        if self.is_empty() || !self.holds(text) {
            return;
        }
        let starts: Vec<usize> = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let offset = |place: Place| -> usize {
            let start = starts.get((place.line as usize).saturating_sub(1)).copied().unwrap_or(text.len());
            let line = text.get(start..).unwrap_or_default();
            line.char_indices().nth((place.column as usize).saturating_sub(1)).map_or(text.len(), |(at, _)| start + at)
        };
        let mut scalars = Vec::new();
        scalars_of(node, &mut scalars);
        let places: Vec<usize> = scalars.iter().map(|(place, _)| offset(*place)).collect();
        for (index, (_, value)) in scalars.iter().enumerate() {
            let (Some(value), Some(from)) = (value, places.get(index)) else { continue };
            // Aliases stand where their anchor is: the next place is not always behind this one.
            let to = places.iter().skip(index + 1).copied().find(|place| place > from).unwrap_or(text.len());
            let source = text.get(*from..to).unwrap_or_default();
            match value {
                Value::Str(made) => self.made(&[source], made),
                number => {
                    let made = number.to_text();
                    if made.len() >= DIGITS {
                        self.made(&[source], &made);
                    }
                }
            }
        }
    }
}

/// Keys (without a value) and scalars with their places, as they are written.
fn scalars_of<'a>(node: &'a Node, out: &mut Vec<(Place, Option<&'a Value>)>) {
    match &node.data {
        Data::Scalar(value) => out.push((node.place, Some(value))),
        Data::List(items) => items.iter().for_each(|item| scalars_of(item, out)),
        Data::Map(entries) => entries.values().for_each(|(place, value)| {
            out.push((*place, None));
            scalars_of(value, out);
        }),
    }
}

/// A text of one line, and what it looks like elsewhere.
fn spellings(text: &str) -> Vec<String> {
    let json = serde_json::to_string(text).unwrap_or_default();
    let json = json.trim_start_matches('"').strip_suffix('"').unwrap_or(&json).to_owned();
    let escaped = |c: char| -> String { c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect() };
    let ascii: String = json.chars().map(|c| if c.is_ascii() { c.to_string() } else { escaped(c) }).collect();
    let percent = |safe: &str, space: &str| -> String {
        let one = |byte: u8| match byte {
            b' ' => space.to_owned(),
            _ if byte.is_ascii_alphanumeric() || b"_.-~".contains(&byte) || safe.as_bytes().contains(&byte) => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        };
        text.bytes().map(one).collect()
    };
    let html = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;").replace('\'', "&#39;");
    let python = text.replace('\\', "\\\\").replace('\'', "\\'");
    let mut all = vec![text.to_owned(), json, ascii, html, python];
    // Of a shell (two ways), and of YAML and SQL.
    all.extend(["'\"'\"'", "'\\''", "''"].map(|quote| text.replace('\'', quote)));
    all.extend([percent("/", "%20"), percent("", "%20"), percent("", "+")]);
    all.extend(encodings(text));
    let mut seen = HashSet::new();
    all.retain(|spelling| seen.insert(spelling.clone()));
    all
}

/// A text in base64 and in hexadecimal.
fn encodings(text: &str) -> Vec<String> {
    let base64 = hash::base64_encode(text.as_bytes());
    // As `echo SECRET | base64` has it, whose last characters depend on the line break.
    let with_break = hash::base64_encode(format!("{text}\n").as_bytes());
    let url = |text: &str| text.replace('+', "-").replace('/', "_");
    let hexadecimal = hex(text.as_bytes());
    let upper = hexadecimal.to_uppercase();
    let all = [url(&base64), url(&with_break), with_break, base64, hexadecimal, upper];
    all.into_iter().map(|text| text.trim_end_matches('=').to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(texts: &[&str]) -> Secrets {
        let secrets = Secrets::default();
        texts.iter().for_each(|text| secrets.add(text));
        secrets
    }

    #[test]
    fn a_secret_counts_in_its_usual_spellings() {
        let s = secrets(&["it's \"a\" p\\ss & wörd"]);
        for text in [
            r#"it's \"a\" p\\ss & wörd"#,
            r#"it's \"a\" p\\ss & w\u00f6rd"#,
            "it&#39;s &#34;a&#34; p\\ss &amp; wörd",
            "it'\"'\"'s \"a\" p\\ss & wörd",
            "it%27s%20%22a%22%20p%5Css%20%26%20w%C3%B6rd",
            "it%27s+%22a%22+p%5Css+%26+w%C3%B6rd",
            "aXQncyAiYSIgcFxzcyAmIHfDtnJk",
            "697427732022612220705c737320262077c3b67264",
        ] {
            assert!(s.holds(&format!("x{text}y")), "{text}");
        }
        assert!(!s.holds("it is a password") && secrets(&["abc", "", "  \n"]).is_empty());
    }

    #[test]
    fn lines_are_secrets_and_frames_are_not() {
        let s = secrets(&["-----BEGIN KEY-----\n  MIIabc\nx\n-----END KEY-----\n"]);
        assert!(s.holds("  MIIabc") && !s.holds("-----BEGIN KEY-----"));
        // The whole of it in base64.
        assert!(s.holds(&hash::base64_encode(b"-----BEGIN KEY-----\n  MIIabc\nx\n-----END KEY-----")));
    }

    #[test]
    fn what_hides_a_secret_is_one_and_what_shows_it_is_not() {
        let s = secrets(&["hunter2"]);
        s.made(&["hunter2"], "HUNTER2");
        s.made(&["user:hunter2"], "user=hunter2;");
        s.made(&["nothing"], "of it");
        s.made(&["hunter2", "bob"], "bob");
        assert!(s.holds("HUNTER2") && !s.holds("user=") && !s.holds("of it") && !s.holds("bob"));
        s.made_several(&["user:hunter2"], &[], &["user", "hunter2"]);
        assert!(!s.holds("user"));
        s.made_several(&["hunter2"], &[], &["hunt", "other"]);
        assert!(s.holds("hunt") && !s.holds("other"));
        s.made_several(&["hunter2"], &["unknown2"], &["unknown1", "unknown2"]);
        assert!(s.holds("unknown1") && !s.holds("unknown2"));
    }

    #[test]
    fn what_yaml_makes_of_a_secret_is_one() {
        let s = secrets(&["a\\tb\\x41cd", "part #rest", "0x7fffffff"]);
        let text =
            "state:\n  - one: \"a\\tb\\x41cd\"\n    two: {name: bob, pw: part #rest\n    }\n  - three: 0x7fffffff\n    four: plain\n";
        s.read(text, &crate::yaml::load_spanned(text, "x").unwrap());
        let list = s.list();
        assert!(
            list.contains(&"a\tbAcd".to_owned()) && list.contains(&"part".to_owned()) && list.contains(&"2147483647".to_owned()),
            "{list:?}"
        );
        assert!(!s.holds("bob") && !s.holds("plain") && !s.holds("state"));
    }
}
