//! Debian's version numbers: which of two is newer, as dpkg decides it.

use std::cmp::Ordering;

/// `[epoch:]upstream[-revision]`.
pub fn compare(a: &str, b: &str) -> Ordering {
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

/// Whether a version is what Salt's specification asks for: `1.2`, `1.2*`, `>=1.2`, `>1,<2`.
pub fn fulfils(version: &str, wanted: &str, ignore_epoch: bool) -> bool {
    let plain = |v: &str| -> String { if ignore_epoch { v.split_once(':').map_or(v, |(_, r)| r) } else { v }.to_owned() };
    wanted.split(',').map(str::trim).filter(|w| !w.is_empty()).all(|condition| {
        let digits = condition.find(|c: char| !"<>=!".contains(c)).unwrap_or(condition.len());
        let (operator, number) = condition.split_at(digits);
        let (version, number) = (plain(version), plain(number.trim()));
        if number.contains(['*', '?', '[']) {
            return glob(number.as_bytes(), version.as_bytes());
        }
        let order = compare(&version, &number);
        match operator {
            ">=" | "=>" => order.is_ge(),
            "<=" | "=<" => order.is_le(),
            ">" | ">>" => order.is_gt(),
            "<" | "<<" => order.is_lt(),
            "!=" | "<>" => order.is_ne(),
            _ => order.is_eq(),
        }
    })
}

/// `*` and `?` as in file names.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
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
                assert_eq!((compare(a, b), compare(b, a)), (want, want.reverse()), "{a} {b}");
            }
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
            assert_eq!(fulfils(version, wanted, false), result, "{version} {wanted}");
        }
        assert!(fulfils("2:1.2", "1.2", true));
    }
}
