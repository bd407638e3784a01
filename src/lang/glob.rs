//! Shell patterns as Python's `fnmatch` reads them: `*`, `?`, `[seq]`, `[!seq]`; case matters, and `*` crosses any character.

/// Whether a text is meant as a pattern at all.
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', ']'])
}

/// What every text that fits begins with.
pub fn prefix(pattern: &str) -> &str {
    pattern.split(['*', '?', '[']).next().unwrap_or_default()
}

pub fn matches(pattern: &str, text: &str) -> bool {
    // What stands before the first special character decides most texts.
    let literal = prefix(pattern);
    if literal.len() == pattern.len() || !text.starts_with(literal) {
        return pattern == text;
    }
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where to go on when what follows the last star did not fit: the star, and one character further in the text.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let step = match pattern.get(p) {
            Some('*') => {
                retry = Some((p, t));
                p += 1;
                continue;
            }
            None if t == text.len() => return true,
            None => None,
            Some(&c) => text.get(t).and_then(|&here| one(&pattern, p, c, here)),
        };
        match (step, &mut retry) {
            (Some(next), _) => {
                p = next;
                t += 1;
            }
            (None, Some((star, from))) if *from < text.len() => {
                *from += 1;
                (p, t) = (*star + 1, *from);
            }
            _ => return false,
        }
    }
}

/// Whether the pattern's element at `p` fits one character; gives the place of the next element.
fn one(pattern: &[char], p: usize, c: char, here: char) -> Option<usize> {
    match c {
        '?' => Some(p + 1),
        '[' => {
            let negated = pattern.get(p + 1) == Some(&'!');
            let first = p + 1 + usize::from(negated);
            // A bracket that stands first belongs to the set; a set that is not closed is a bracket.
            let Some(end) = (first + 1..pattern.len()).find(|&i| pattern.get(i) == Some(&']')) else {
                return (here == '[').then_some(p + 1);
            };
            let set = pattern.get(first..end).unwrap_or_default();
            let (mut i, mut found) = (0, false);
            while let Some(&low) = set.get(i) {
                match (set.get(i + 1), set.get(i + 2)) {
                    (Some('-'), Some(&high)) => {
                        found |= (low..=high).contains(&here);
                        i += 3;
                    }
                    _ => {
                        found |= low == here;
                        i += 1;
                    }
                }
            }
            (found != negated).then_some(end + 1)
        }
        c => (c == here).then_some(p + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn as_python_does() {
        for (pattern, text, want) in [
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abb", false),
            ("*.b.*", "a.b.c", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]]", "]", true),
            ("[ab", "[ab", true),
            ("a[0]", "a0", true),
            ("**a", "ba", true),
            ("a*b*c", "aXbYbZc", true),
            ("web", "web1", false),
        ] {
            assert_eq!(matches(pattern, text), want, "{pattern} {text}");
        }
    }
}
