//! Version numbers: which of two is newer, as dpkg and as rpm decide it.

use std::cmp::Ordering;

/// Which of two versions is newer.
pub type Order = fn(&str, &str) -> Ordering;

/// Debian's `[epoch:]upstream[-revision]`.
pub fn debian(a: &str, b: &str) -> Ordering {
    let (a, b) = (split(a), split(b));
    a.0.cmp(&b.0).then_with(|| parts(a.1, b.1)).then_with(|| parts(a.2, b.2))
}

fn split(version: &str) -> (u64, &str, &str) {
    let version = version.trim();
    let (epoch, rest) = version.split_once(':').unwrap_or(("0", version));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch.parse().unwrap_or(0), upstream, revision)
}

/// Digits count as numbers, letters sort before other characters, and `~` before everything, even the end.
fn parts(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while !a.is_empty() || !b.is_empty() {
        loop {
            let (x, y) = (order(a.first()), order(b.first()));
            if x == 0 && y == 0 {
                break;
            }
            if x != y {
                return x.cmp(&y);
            }
            a = a.get(1..).unwrap_or_default();
            b = b.get(1..).unwrap_or_default();
        }
        let (x, y) = (number(&mut a), number(&mut b));
        let different = x.len().cmp(&y.len()).then_with(|| x.cmp(y));
        if different != Ordering::Equal {
            return different;
        }
    }
    Ordering::Equal
}

fn order(byte: Option<&u8>) -> i32 {
    match byte {
        None => 0,
        Some(b) if b.is_ascii_digit() => 0,
        Some(b) if b.is_ascii_alphabetic() => i32::from(*b),
        Some(b'~') => -1,
        Some(b) => i32::from(*b) + 256,
    }
}

/// Takes the digits at the front, without leading zeros.
fn number<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let end = rest.iter().position(|b| !b.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, after) = rest.split_at(end);
    *rest = after;
    let zeros = digits.iter().take_while(|b| **b == b'0').count();
    digits.get(zeros..).unwrap_or_default()
}

/// `[epoch:]version[-release]`, as rpm orders them. Where only one says its release it does not count.
pub fn rpm(a: &str, b: &str) -> Ordering {
    fn split(v: &str) -> (u64, &str, Option<&str>) {
        let (epoch, v) = v.trim().split_once(':').unwrap_or(("0", v.trim()));
        let (version, release) = v.split_once('-').map_or((v, None), |(v, r)| (v, Some(r)));
        (epoch.parse().unwrap_or(0), version, release)
    }
    let ((epoch_a, version_a, release_a), (epoch_b, version_b, release_b)) = (split(a), split(b));
    epoch_a.cmp(&epoch_b).then_with(|| rpm_part(version_a, version_b)).then_with(|| match (release_a, release_b) {
        (Some(a), Some(b)) => rpm_part(a, b),
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
            let (x, y) = (number(&mut a), number(&mut b));
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

/// Whether a version is what Salt's specification asks for: `1.2`, `1.2*`, `>=1.2`, `>1,<2`. Of several that are installed beside each
/// other one is enough.
pub fn fulfils(order: Order, version: &str, wanted: &str, ignore_epoch: bool) -> bool {
    let plain = |v: &str| -> String { if ignore_epoch { v.split_once(':').map_or(v, |(_, r)| r) } else { v }.to_owned() };
    let one = |version: &str| {
        wanted.split(',').map(str::trim).filter(|w| !w.is_empty()).all(|condition| {
            let digits = condition.find(|c: char| !"<>=!".contains(c)).unwrap_or(condition.len());
            let (operator, number) = condition.split_at(digits);
            let (version, number) = (plain(version), plain(number.trim()));
            if number.contains(['*', '?', '[']) {
                return glob(number.as_bytes(), version.as_bytes());
            }
            let order = order(&version, &number);
            match operator {
                ">=" | "=>" => order.is_ge(),
                "<=" | "=<" => order.is_le(),
                ">" | ">>" => order.is_gt(),
                "<" | "<<" => order.is_lt(),
                "!=" | "<>" => order.is_ne(),
                _ => order.is_eq(),
            }
        })
    };
    version.split(',').any(one)
}

/// `*` and `?` as in file names.
pub fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=text.len()).any(|skip| text.get(skip..).is_some_and(|t| glob(rest, t))),
        (Some((b'?', rest)), Some((_, text))) => glob(rest, text),
        (Some((p, rest)), Some((t, text))) => p == t && glob(rest, text),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_dpkg_compares_them() {
        let all = [
            "0",
            "1",
            "1.0",
            "1.0-1",
            "1.0-1~bpo1",
            "1.0~rc1",
            "1.0~rc1-1",
            "1:0.9",
            "1.10",
            "1.9",
            "01.2",
            "1.2",
            "1.2+b1",
            "1.2-1+deb12u1",
            "1.2-1+deb12u10",
            "1.2a",
            "1.2.a",
            "2.36-9+deb12u9",
            "2.36-9+deb12u13",
            "1.2~",
            "1.2~~",
            "1.2~~a",
            "1.2-0",
            "0:1.2",
            "2:1.2-3-4",
            "20240101",
            "1.0.0.0.1",
            "1.0+dfsg-2",
            "1.0+dfsg1-2",
            "9.9p1",
            "10.0",
        ];
        if !std::path::Path::new("/usr/bin/dpkg").exists() {
            eprintln!("skipped: no dpkg to compare with");
            return;
        }
        for (i, a) in all.iter().enumerate() {
            for b in &all[i..] {
                let judge = |operator: &str| {
                    std::process::Command::new("/usr/bin/dpkg").args(["--compare-versions", a, operator, b]).status().unwrap().success()
                };
                let want = if judge("lt") {
                    Ordering::Less
                } else if judge("eq") {
                    Ordering::Equal
                } else {
                    Ordering::Greater
                };
                assert_eq!((debian(a, b), debian(b, a)), (want, want.reverse()), "{a} {b}");
            }
        }
    }

    #[test]
    fn rpm_versions_sort_as_rpm_sorts_them() {
        for (a, b, order) in [
            ("1.0", "1.0", Ordering::Equal),
            ("1.0", "1.0.1", Ordering::Less),
            ("1.0~rc1", "1.0", Ordering::Less),
            ("1.0^git", "1.0", Ordering::Greater),
            ("1.a", "1.1", Ordering::Less),
            ("1.0-2.el9", "1.0-10.el9", Ordering::Less),
            ("1.0", "1.0-3", Ordering::Equal),
            ("a~", "a~", Ordering::Equal),
        ] {
            assert_eq!(rpm(a, b), order, "{a} {b}");
        }
    }

    #[test]
    fn specifications_read_as_salt_reads_them() {
        for (version, wanted, result) in [
            ("1.2-3", "1.2-3", true),
            ("1.2-3", "1.2", false),
            ("1.2-3", "1.2*", true),
            ("1.2-3", ">=1.2", true),
            ("1.2-3", ">1.2,<1.3", true),
            ("1.2-3", ">=1.3", false),
            ("2:1.2", "1.2", false),
        ] {
            assert_eq!(fulfils(debian, version, wanted, false), result, "{version} {wanted}");
        }
        assert!(fulfils(debian, "2:1.2", "1.2", true));
        for (version, wanted, result) in
            [("1.0-1,1.2-3", "1.2", true), ("1:1.0-1", "1.0", false), ("1.0-1.el9", "1.0-1", false), ("1.0-1.el9", "1.0", true)]
        {
            assert_eq!(fulfils(rpm, version, wanted, false), result, "{version} {wanted}");
        }
    }
}
