//! What `exclude_pat` leaves out: globs as Python's fnmatch has them, or `E@` and a regular expression.

use crate::diagnostic::Result;

use super::pattern::Pattern;

/// Whether a path (relative to the directory it is in) is left out.
pub fn excluded(path: &str, patterns: &[String]) -> Result<bool> {
    for pattern in patterns {
        if matches(pattern, path)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn matches(pattern: &str, path: &str) -> Result<bool> {
    match pattern.strip_prefix("E@") {
        Some(regex) => Pattern::new(regex, 0)?.is_match(path),
        None => Ok(glob(&pattern.chars().collect::<Vec<_>>(), &path.chars().collect::<Vec<_>>())),
    }
}

/// Python's `fnmatch`: `*` also matches `/`.
fn glob(pattern: &[char], text: &[char]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when what follows the last star does not match.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        let step = match pattern.get(p) {
            Some('*') => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some('?') => Some(1),
            Some('[') => match class(pattern.get(p..).unwrap_or_default(), text.get(t).copied().unwrap_or_default()) {
                Some((true, length)) => Some(length),
                Some((false, _)) => None,
                None => (text.get(t) == Some(&'[')).then_some(1),
            },
            Some(c) => (text.get(t) == Some(c)).then_some(1),
            None => None,
        };
        match (step, star) {
            (Some(length), _) => {
                p += length;
                t += 1;
            }
            (None, Some((after, from))) => {
                p = after;
                t = from + 1;
                star = Some((after, t));
            }
            (None, None) => return false,
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|c| *c == '*')
}

/// `[abc]`, `[!a-z]` at the start of `pattern`: whether `c` is in it, and how long it is. `None`: it has no end, so it is a bracket.
fn class(pattern: &[char], c: char) -> Option<(bool, usize)> {
    let negated = pattern.get(1) == Some(&'!');
    let start = if negated { 2 } else { 1 };
    let end = start + 1 + pattern.get(start + 1..)?.iter().position(|c| *c == ']')?;
    let members = pattern.get(start..end)?;
    let mut at = 0;
    let mut found = false;
    while let Some(first) = members.get(at) {
        match (members.get(at + 1), members.get(at + 2)) {
            (Some('-'), Some(last)) => {
                found |= (*first..=*last).contains(&c);
                at += 3;
            }
            _ => {
                found |= *first == c;
                at += 1;
            }
        }
    }
    Some((found != negated, end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_and_expressions_match_as_in_salt() {
        for (path, pattern, left_out) in [
            ("a/b.conf", "*.conf", true),
            ("a/b.conf", "E@b\\.conf$", true),
            ("a/b.conf", "b.conf", false),
            ("x1", "x[0-9]", true),
            ("x1", "x[!0-9]", false),
            ("x[", "x[", true),
            ("abcabc", "*abc", true),
            ("", "?", false),
        ] {
            assert_eq!(excluded(path, &[pattern.to_owned()]).unwrap(), left_out, "{path} {pattern}");
        }
        assert!(!excluded("a", &[]).unwrap());
    }
}
