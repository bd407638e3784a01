//! Versions of packages, compared as dpkg and rpm do.

use std::cmp::Ordering;

use super::{Function, error, flag, text};
use crate::value::Value;

pub const TABLE: &[(&str, Function)] = &[("pkg.version_cmp", |s, c| {
    let [a, b, ignore_epoch] = c.bind(["pkg1", "pkg2", "ignore_epoch"], 2)?;
    let without = |v: String| v.split_once(':').map_or(v.clone(), |(_, rest)| rest.to_owned());
    let (mut a, mut b) = (text(a), text(b));
    if flag(ignore_epoch, false) {
        (a, b) = (without(a), without(b));
    }
    if a.is_empty() || b.is_empty() {
        return Err(error("pkg.version_cmp needs two versions"));
    }
    let rpm = matches!(s.context.grains.get("os_family").and_then(Value::as_str), Some("RedHat" | "Suse"));
    Ok(Value::Int(if rpm { rpm_order(&a, &b) } else { debian(&a, &b) } as i64))
})];

fn epoch(version: &str) -> (u64, &str) {
    version.split_once(':').map_or((0, version), |(e, rest)| (e.parse().unwrap_or(0), rest))
}

pub fn debian(a: &str, b: &str) -> Ordering {
    fn revision(v: &str) -> (&str, &str) {
        v.rsplit_once('-').unwrap_or((v, "0"))
    }
    let ((epoch_a, a), (epoch_b, b)) = (epoch(a), epoch(b));
    let ((upstream_a, revision_a), (upstream_b, revision_b)) = (revision(a), revision(b));
    epoch_a.cmp(&epoch_b).then_with(|| debian_part(upstream_a, upstream_b)).then_with(|| debian_part(revision_a, revision_b))
}

fn debian_part(a: &str, b: &str) -> Ordering {
    // A tilde sorts before the end, the end before letters, letters before the rest.
    fn weight(c: Option<u8>) -> i32 {
        match c {
            Some(b'~') => -1,
            None => 0,
            Some(c) if c.is_ascii_digit() => 0,
            Some(c) if c.is_ascii_alphabetic() => i32::from(c),
            Some(c) => i32::from(c) + 256,
        }
    }
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    let digit = |s: &[u8]| s.first().is_some_and(u8::is_ascii_digit);
    loop {
        while (!a.is_empty() && !digit(a)) || (!b.is_empty() && !digit(b)) {
            let order = weight(a.first().copied()).cmp(&weight(b.first().copied()));
            if order != Ordering::Equal {
                return order;
            }
            a = a.get(1..).unwrap_or_default();
            b = b.get(1..).unwrap_or_default();
        }
        if a.is_empty() && b.is_empty() {
            return Ordering::Equal;
        }
        let (x, rest_a) = number(a);
        let (y, rest_b) = number(b);
        let order = x.len().cmp(&y.len()).then_with(|| x.cmp(y));
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
}

/// The digits in front, without leading zeros, and what follows.
fn number(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let start = digits.iter().position(|b| *b != b'0').unwrap_or(digits.len());
    (digits.get(start..).unwrap_or_default(), rest)
}

fn rpm_order(a: &str, b: &str) -> Ordering {
    let ((epoch_a, a), (epoch_b, b)) = (epoch(a), epoch(b));
    let split = |v: &str| v.split_once('-').map_or((v.to_owned(), None), |(v, r)| (v.to_owned(), Some(r.to_owned())));
    let ((version_a, release_a), (version_b, release_b)) = (split(a), split(b));
    epoch_a.cmp(&epoch_b).then_with(|| rpm_part(&version_a, &version_b)).then_with(|| match (release_a, release_b) {
        (Some(a), Some(b)) => rpm_part(&a, &b),
        _ => Ordering::Equal,
    })
}

fn rpm_part(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    let mark = |s: &[u8]| s.first().is_some_and(|c| !c.is_ascii_alphanumeric() && *c != b'~' && *c != b'^');
    let first = |s: &[u8], c: u8| s.first() == Some(&c);
    loop {
        while mark(a) {
            a = a.get(1..).unwrap_or_default();
        }
        while mark(b) {
            b = b.get(1..).unwrap_or_default();
        }
        for (c, order) in [(b'~', Ordering::Less), (b'^', Ordering::Greater)] {
            match (first(a, c), first(b, c)) {
                (true, true) => {
                    a = a.get(1..).unwrap_or_default();
                    b = b.get(1..).unwrap_or_default();
                }
                (true, false) => return if c == b'^' && !b.is_empty() { Ordering::Less } else { order },
                (false, true) => return if c == b'^' && !a.is_empty() { Ordering::Greater } else { order.reverse() },
                _ => {}
            }
        }
        if a.is_empty() || b.is_empty() {
            return a.len().min(1).cmp(&b.len().min(1));
        }
        if mark(a) || mark(b) || first(a, b'~') || first(b, b'~') || first(a, b'^') || first(b, b'^') {
            continue;
        }
        let digits = a.first().is_some_and(u8::is_ascii_digit);
        if digits != b.first().is_some_and(u8::is_ascii_digit) {
            return if digits { Ordering::Greater } else { Ordering::Less };
        }
        let order = if digits {
            let ((x, rest_a), (y, rest_b)) = (number(a), number(b));
            (a, b) = (rest_a, rest_b);
            x.len().cmp(&y.len()).then_with(|| x.cmp(y))
        } else {
            let end = |s: &[u8]| s.iter().position(|c| !c.is_ascii_alphabetic()).unwrap_or(s.len());
            let ((x, rest_a), (y, rest_b)) = (a.split_at(end(a)), b.split_at(end(b)));
            (a, b) = (rest_a, rest_b);
            x.cmp(y)
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Ordering::{Equal, Greater, Less};

    #[test]
    fn debian_versions_sort_as_dpkg_sorts_them() {
        for (a, b, order) in [
            ("1.0", "1.0", Equal),
            ("1.0~rc1", "1.0", Less),
            ("1.10", "1.9", Greater),
            ("1:0.1", "2.0", Greater),
            ("1.0-1", "1.0-1+b1", Less),
            ("1.0", "1.0a", Less),
            ("1.0+x", "1.0a", Greater),
            ("007", "7", Equal),
            ("1.0-0", "1.0", Equal),
        ] {
            assert_eq!(debian(a, b), order, "{a} {b}");
        }
    }

    #[test]
    fn rpm_versions_sort_as_rpm_sorts_them() {
        for (a, b, order) in [
            ("1.0", "1.0", Equal),
            ("1.0", "1.0.1", Less),
            ("1.0~rc1", "1.0", Less),
            ("1.0^git", "1.0", Greater),
            ("1.a", "1.1", Less),
            ("1.0-2.el9", "1.0-10.el9", Less),
            ("1.0", "1.0-3", Equal),
            ("a~", "a~", Equal),
        ] {
            assert_eq!(rpm_order(a, b), order, "{a} {b}");
        }
    }
}
