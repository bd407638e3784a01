//! A comparison as Markdown, for a comment of a pull request: hosts with the same change in one collapsed part each.
//!
//! Names and contents come from the tree, and the tree from whoever opened the pull request: nothing in them may end a fence or begin markup.

use std::fmt::Write as _;

use super::diff::{Group, Report, closing, lines, place, sign};
use super::print::{clean, count};
use crate::diagnostic::Diagnostic;
use crate::engine::difference::{Action, Change, Meaning};

/// GitHub takes comments of 65,536 characters.
const LARGEST: usize = 60_000;

pub fn page(report: &Report) -> String {
    let mut out = format!("**{}**\n", escaped(&closing(report)));
    for group in &report.groups {
        if group.meaning == Meaning::Same {
            continue;
        }
        let part = part(group, true);
        // What is too long for a comment is told, not shown.
        if out.len() + part.len() > LARGEST {
            out.push_str(&self::part(group, false));
        } else {
            out.push_str(&part);
        }
    }
    if out.len() > LARGEST + 4000 {
        out = format!("**{}**\n\nThis is too much for a comment: `basalt diff` shows it.\n", escaped(&closing(report)));
    }
    out
}

fn part(Group { hosts, meaning }: &Group, whole: bool) -> String {
    let named = match hosts.as_slice() {
        [one] => one.clone(),
        many if many.len() <= 3 => many.join(", "),
        many => format!("{} and {} more", many.first().map_or("", String::as_str), count(many.len() - 1, "host")),
    };
    let mut body = String::new();
    if hosts.len() > 3 {
        let names: Vec<String> = hosts.iter().map(|host| code(host)).collect();
        let _ = writeln!(body, "{}\n", names.join(", "));
    }
    let what = match meaning {
        Meaning::Same => "no difference".to_owned(),
        Meaning::Differs { changes } => {
            changes.iter().for_each(|change| body.push_str(&change_part(change)));
            let of = |action: Action| changes.iter().filter(|change| change.action == action).count();
            format!("{} to add, {} to change, {} to remove", of(Action::Added), of(Action::Changed), of(Action::Removed))
        }
        Meaning::Breaks { faults } => {
            body.push_str(&faults_part(faults));
            "compiles no more".to_owned()
        }
        Meaning::Broken { faults } => {
            body.push_str(&faults_part(faults));
            "compiles on neither side".to_owned()
        }
        Meaning::Mended { states, .. } => format!("compiles again, with {}", count(*states, "state")),
        Meaning::Unknown { calls } => {
            body.push_str("Templates ask the host:\n\n");
            calls.iter().for_each(|call| _ = writeln!(body, "- {}", code(call)));
            "not known: templates ask what the host was not asked before".to_owned()
        }
        Meaning::Unseen => "not known: never seen".to_owned(),
        Meaning::Joins => "joins the roster".to_owned(),
        Meaning::Leaves => "leaves the roster".to_owned(),
    };
    let summary = format!("<code>{}</code>: {what}", html(&named));
    if !whole {
        return format!("\n{summary} (too long to show here)\n");
    }
    if body.is_empty() {
        return format!("\n{summary}\n");
    }
    format!("\n<details><summary>{summary}</summary>\n\n{}\n</details>\n", body.trim_end())
}

fn change_part(change: &Change) -> String {
    let mut out = format!("- {} {} {} ({})\n", code(sign(change.action)), code(&change.state), code(&change.name), code(&place(change)));
    for (line, diff) in lines(change) {
        let _ = writeln!(out, "  - {}", code(&line));
        if !diff.is_empty() {
            out.push_str(&fenced("diff", diff, "    "));
        }
    }
    out
}

fn faults_part(faults: &[Diagnostic]) -> String {
    let mut text = String::new();
    for fault in faults {
        let _ = writeln!(text, "{fault}");
        for more in [fault.excerpt.as_deref(), Some(fault.detail.as_str())].into_iter().flatten().filter(|more| !more.is_empty()) {
            let _ = writeln!(text, "{more}");
        }
        if let Some(hint) = &fault.hint {
            let _ = writeln!(text, "help: {hint}");
        }
    }
    fenced("", &text, "")
}

/// A block whose fence is longer than any in the text.
fn fenced(language: &str, text: &str, indent: &str) -> String {
    let fence = "`".repeat(longest_run(text).max(2) + 1);
    let mut out = format!("{indent}{fence}{language}\n");
    for line in clean(text).lines() {
        let _ = writeln!(out, "{indent}{line}");
    }
    let _ = writeln!(out, "{indent}{fence}");
    out
}

/// A text of one line that means nothing but itself.
fn code(text: &str) -> String {
    let text = clean(text).replace('\n', "\\n").replace('\t', "\\t");
    let fence = "`".repeat(longest_run(&text) + 1);
    // A blank beside a backtick is taken off again by whoever reads it.
    let blank = if text.starts_with(['`', ' ']) || text.ends_with(['`', ' ']) || text.is_empty() { " " } else { "" };
    format!("{fence}{blank}{text}{blank}{fence}")
}

fn longest_run(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

fn html(text: &str) -> String {
    clean(text).replace('\n', "\\n").replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Plain text among Markdown.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in clean(text).chars() {
        if c.is_ascii_punctuation() && !matches!(c, '.' | ',' | ':' | ';' | '(' | ')' | '/' | '-') {
            out.push('\\');
        }
        out.push(if c == '\n' { ' ' } else { c });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::diff::Counts;
    use crate::engine::difference::Contents;

    #[test]
    fn nothing_gets_out_of_its_fence() {
        let evil = "x\n```\n</details>\n# out\n````\n@everyone <img src=x>\n";
        let change = Change {
            action: Action::Changed,
            state: "file.managed".into(),
            id: "`id`".into(),
            name: "/etc/a`b``c\n</summary>".into(),
            sls: "a".into(),
            arguments: Vec::new(),
            contents: vec![Contents { name: "source".into(), action: Action::Changed, diff: evil.into(), note: String::new() }],
        };
        let group = Group { hosts: vec!["<b>web1</b>\n```".into()], meaning: Meaning::Differs { changes: vec![change] } };
        let counts = Counts { differ: 1, hosts: 1, ..Counts::default() };
        let page = page(&Report { old: "a_b*".into(), new: "b".into(), groups: vec![group], counts, oldest: None });
        let fence = page.lines().find(|line| line.trim_start().ends_with("diff")).unwrap().trim().trim_end_matches("diff").to_owned();
        assert_eq!(fence, "`````", "{page}");
        assert_eq!(page.matches(&fence).count(), 2, "{page}");
        assert!(page.contains("<code>&lt;b&gt;web1&lt;/b&gt;\\n```</code>"), "{page}");
        assert!(page.contains("```/etc/a`b``c\\n</summary>```"), "{page}");
        // Outside of fences a line that begins markup is ours.
        let mut inside = false;
        for line in page.lines() {
            let text = line.trim();
            if text.trim_end_matches("diff") == fence {
                inside = !inside;
            } else if !inside {
                let ours = text.is_empty() || ["**", "<details>", "</details>", "- `"].iter().any(|own| text.starts_with(own));
                assert!(ours, "{line}");
            }
        }
        assert!(!inside);
    }

    #[test]
    fn a_page_that_is_too_long_names_what_it_leaves_out() {
        let group = |host: &str, bytes: usize| {
            let contents =
                vec![Contents { name: "source".into(), action: Action::Changed, diff: "+x\n".repeat(bytes / 3), note: String::new() }];
            let (state, name, sls) = ("file.managed".into(), "/a".into(), "a".into());
            let change = Change { action: Action::Changed, state, id: "/a".into(), name, sls, arguments: Vec::new(), contents };
            Group { hosts: vec![host.into()], meaning: Meaning::Differs { changes: vec![change] } }
        };
        let groups = vec![group("a", 300), group("b", 90_000), group("c", 300)];
        let page = page(&Report {
            old: "a".into(),
            new: "b".into(),
            groups,
            counts: Counts { differ: 3, hosts: 3, ..Counts::default() },
            oldest: None,
        });
        assert!(page.len() < 62_000);
        assert!(page.contains("<code>b</code>: 0 to add, 1 to change, 0 to remove (too long to show here)"), "{page}");
        assert!(page.contains("<summary><code>c</code>"));
    }
}
