//! Data for people: YAML in block style, in the order in which it stands, every text whole.

use crate::lang::jinja::dump::double_quoted;
use crate::value::Value;

/// The lines of a value.
pub fn lines(value: &Value) -> String {
    let mut out = String::new();
    write(value, 0, &mut out);
    out
}

fn write(value: &Value, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Map(map) if !map.is_empty() => {
            for (key, value) in map {
                out.push_str(&format!("{indent}{}:", scalar(key)));
                below(value, depth + 1, out);
            }
        }
        Value::List(items) if !items.is_empty() => {
            for item in items {
                out.push_str(&format!("{indent}-"));
                match item {
                    // The first line stands behind the dash.
                    Value::Map(_) | Value::List(_) if !is_empty(item) => {
                        let mut inner = String::new();
                        write(item, depth + 1, &mut inner);
                        out.push(' ');
                        out.push_str(inner.trim_start());
                    }
                    item => below(item, depth + 1, out),
                }
            }
        }
        other => out.push_str(&format!("{indent}{}\n", scalar(other))),
    }
}

/// A value behind its key or dash.
fn below(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Map(_) | Value::List(_) if !is_empty(value) => {
            out.push('\n');
            write(value, depth, out);
        }
        Value::Str(text) if is_block(text) => {
            let indent = "  ".repeat(depth);
            out.push_str(if text.ends_with('\n') { " |\n" } else { " |-\n" });
            for line in text.lines() {
                let line = format!("{indent}{line}");
                out.push_str(line.trim_end());
                out.push('\n');
            }
        }
        other => out.push_str(&format!(" {}\n", scalar(other))),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Map(map) => map.is_empty(),
        Value::List(items) => items.is_empty(),
        _ => false,
    }
}

/// Whether a text of several lines reads back the same from a literal block.
fn is_block(text: &str) -> bool {
    let body = text.strip_suffix('\n').unwrap_or(text);
    let odd = |c: char| c != '\n' && c != '\t' && (c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}'));
    body.contains('\n')
        && !body.starts_with([' ', '\n', '\t'])
        && !body.ends_with('\n')
        && !text.contains(odd)
        && text.lines().all(|line| line == line.trim_end())
}

fn scalar(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(b) => b.to_string(),
        Value::Map(map) if map.is_empty() => "{}".into(),
        Value::List(items) if items.is_empty() => "[]".into(),
        Value::Str(text) if !is_plain(text) => double_quoted(text),
        other => other.to_text(),
    }
}

/// Whether a text is the same text without quotes.
fn is_plain(text: &str) -> bool {
    let begins = |c: char| c.is_alphanumeric() || matches!(c, '/' | '_' | '.' | '(' | '+' | '$' | '<' | '~' | '^' | '\\');
    text.starts_with(begins)
        && crate::yaml::load(text, "").is_ok_and(|read| read == Value::str(text))
        && !(text.contains(": ") || text.contains(" #") || text.contains(|c: char| c.is_control()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_reads_back_the_same() {
        let text = "b: 1\na:\n- x: [1, '2', 'yes', '']\n  y: {}\n- - null\n  - true\n- []\n- |\n  one\n   two\n- \"one\\ntwo\"\n- 'a: b'\n- '- x'\n\
                    - 'x #y'\n- \"\\nx\"\n- \"tab\\tx \\ny\"\n- '{{ x }}'\n- 0644x\n- '0644'\n- 2020-01-01\n- 1.5\nc d: '*'\n'1': ~\n1: two\n";
        let value = crate::yaml::load(text, "x").unwrap();
        let printed = lines(&value);
        assert_eq!(crate::yaml::load(&printed, "x").unwrap(), value, "{printed}");
        assert!(printed.starts_with("b: 1\na:\n  - x:\n      - 1\n      - \"2\"\n"), "{printed}");
        assert!(printed.contains("  - |\n    one\n     two\n  - |-\n    one\n    two\n"), "{printed}");
    }
}
