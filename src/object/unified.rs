//! A unified diff of two texts.
//!
//! `similar::TextDiff` would do as much, but it carries all of that crate's algorithms for every way of comparing: 300 kB of the agent.
//! This is its Myers alone, over lines as numbers.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use similar::algorithms::{Capture, Compact, Replace, myers};
use similar::udiff::UnifiedHunkHeader;
use similar::{ChangeTag, DiffTag, DiffableStr, group_diff_ops};

/// After this time the rest is shown as replaced.
const PATIENCE: Duration = Duration::from_millis(500);
/// Lines of context.
const CONTEXT: usize = 3;

/// The hunks, under the two names where they are given; nothing for equal texts.
pub fn unified(before: &str, after: &str, names: Option<(&str, &str)>) -> String {
    let (old_lines, new_lines) = (before.tokenize_lines(), after.tokenize_lines());
    let mut known = HashMap::new();
    let old = numbers(&old_lines, &mut known);
    let new = numbers(&new_lines, &mut known);
    let mut hook = Compact::new(Replace::new(Capture::new()), old.as_slice(), new.as_slice());
    let deadline = Instant::now() + PATIENCE;
    let Ok(()) = myers::diff_deadline_raw(&mut hook, old.as_slice(), 0..old.len(), new.as_slice(), 0..new.len(), Some(deadline));
    let mut out = String::new();
    for hunk in group_diff_ops(hook.into_inner().into_inner().into_ops(), CONTEXT) {
        if let (true, Some((old, new))) = (out.is_empty(), names) {
            _ = writeln!(out, "--- {old}\n+++ {new}");
        }
        _ = writeln!(out, "{}", UnifiedHunkHeader::new(&hunk));
        for (tag, old, new) in hunk.iter().map(|op| op.as_tag_tuple()) {
            let (gone, come) = (old_lines.get(old).unwrap_or_default(), new_lines.get(new).unwrap_or_default());
            match tag {
                DiffTag::Equal => lines(ChangeTag::Equal, gone, &mut out),
                _ => {
                    lines(ChangeTag::Delete, gone, &mut out);
                    lines(ChangeTag::Insert, come, &mut out);
                }
            }
        }
    }
    out
}

/// Equal lines as equal numbers.
fn numbers<'a>(lines: &[&'a str], known: &mut HashMap<&'a str, usize>) -> Vec<usize> {
    let number = |line: &&'a str| {
        let next = known.len();
        *known.entry(*line).or_insert(next)
    };
    lines.iter().map(number).collect()
}

fn lines(tag: ChangeTag, lines: &[&str], out: &mut String) {
    for line in lines {
        _ = write!(out, "{tag}{line}");
        if !line.ends_with_newline() {
            out.push_str("\n\\ No newline at end of file\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts of up to some lines out of a few, so that lines recur, with and without their last line break.
    fn texts() -> Vec<String> {
        let mut state = 1u32;
        let mut next = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) % below
        };
        let mut texts = vec![String::new(), "a\n".into(), "a".into(), "a\r\nb\rc\n".into()];
        for count in [3, 8, 20, 60, 150] {
            for _ in 0..4 {
                let lines: Vec<String> = (0..count).map(|_| format!("line {}", next(count.max(8)))).collect();
                texts.push(lines.join("\n") + if next(2) == 0 { "\n" } else { "" });
            }
        }
        texts
    }

    #[test]
    fn says_what_similar_says() {
        for before in &texts() {
            for after in &texts() {
                let diff = similar::TextDiff::configure().algorithm(similar::Algorithm::RawMyers).diff_lines(before, after);
                let expected = diff.unified_diff().context_radius(CONTEXT).header("x", "y").to_string();
                assert_eq!(unified(before, after, Some(("x", "y"))), expected, "{before:?} → {after:?}");
            }
        }
    }
}
