//! The functions that edit a text which is there. The expected texts were checked against Salt's own modules where they are surprising.

use super::refused;
use crate::function::Want;
use crate::function::file::double::{Double, low};

/// The file's text, the arguments besides the name, the text afterwards or a part of the error.
type Case<'a> = (&'a str, &'a str, Result<&'a str, &'a str>);

fn edits(function: &str, cases: &[Case]) {
    for (before, args, after) in cases {
        let mut host = Double::new();
        host.file("/etc/f", before);
        let args = format!(r#"{{"name": "/etc/f", {args}}}"#);
        let result = host.apply(function, &args).map(|_| host.at("/etc/f"));
        match (result, after) {
            (Ok(text), Ok(after)) => assert_eq!(text, *after, "{function} {args}"),
            (Err(error), Err(part)) => {
                let said = format!("{} | {}", error.summary, error.hint.unwrap_or_default());
                assert!(said.contains(part), "{function} {args}: {said}");
            }
            (result, _) => panic!("{function} {args}: {result:?}, wanted {after:?}"),
        }
    }
}

#[test]
fn replace_edits_as_salt_does() {
    edits(
        "file.replace",
        &[
            ("a=1\nb=2\n", r#""pattern": "^a=.*", "repl": "a=3", "backup": false"#, Ok("a=3\nb=2\n")),
            ("a\n", r#""pattern": "^b=.*", "repl": "b=1", "append_if_not_found": true, "backup": false"#, Ok("a\nb=1\n")),
            ("a", r#""pattern": "^b=.*", "repl": "b=1", "append_if_not_found": true, "backup": false"#, Ok("a\nb=1\n")),
            ("a\n", r#""pattern": "^b=.*", "repl": "b=1", "prepend_if_not_found": true, "backup": false"#, Ok("b=1\na\n")),
            ("b=1 # mine\n", r#""pattern": "^c", "repl": "b=1 # mine", "append_if_not_found": true"#, Ok("b=1 # mine\n")),
            ("a\n", r#""pattern": "^(b)", "repl": "\\1", "not_found_content": "B", "append_if_not_found": true"#, Ok("a\nB\n")),
            ("A\n", r#""pattern": "a", "repl": "b", "flags": ["IGNORECASE"], "backup": false"#, Ok("b\n")),
            ("p\n", r#""pattern": "p", "repl": "C:\\\\x", "backslash_literal": false, "backup": false"#, Ok("C:\\x\n")),
            ("p\n", r#""pattern": "p", "repl": "\\d", "backslash_literal": true, "backup": false"#, Ok("\\d\n")),
            ("a\n", r#""pattern": "z", "repl": "y""#, Ok("a\n")),
            ("a\n", r#""pattern": "(z", "repl": "y""#, Err("does not compile at position")),
            ("a\n", r#""pattern": "a", "repl": "\\1""#, Err("group 1")),
            ("a\0b", r#""pattern": "a", "repl": "b""#, Err("binary")),
        ],
    );
}

#[test]
fn replace_keeps_the_old_file_and_says_what_was_near() {
    let mut host = Double::new();
    host.file("/etc/f", "PermitRootLogin yes\n").link("/etc/l", "f");
    let replace = host.parse(&low("file.replace", r#"{"name": "/etc/f", "pattern": "^PermitRootLogin no$", "repl": "x"}"#)).unwrap();
    let Want::Nothing(why) = host.want(replace.as_ref()).unwrap() else { panic!() };
    assert!(why.contains("line 1: PermitRootLogin yes"), "{why}");
    host.apply("file.replace", r#"{"name": "/etc/l", "pattern": "yes", "repl": "no"}"#).unwrap();
    assert_eq!((host.at("/etc/f").as_str(), host.at("/etc/f.bak").as_str()), ("PermitRootLogin no\n", "PermitRootLogin yes\n"));
    assert_eq!(host.at("/etc/l.bak"), "-> /etc/f.bak");
    assert!(refused(&mut host, "file.replace", r#"{"name": "/etc/none", "pattern": "a", "repl": "b"}"#).contains("file not found"));
    host.apply("file.replace", r#"{"name": "/etc/none", "pattern": "a", "repl": "b", "ignore_if_missing": true}"#).unwrap();
    host.uncertain = true;
    let later = host.parse(&low("file.replace", r#"{"name": "/etc/none", "pattern": "a", "repl": "b"}"#)).unwrap();
    assert!(matches!(host.want(later.as_ref()).unwrap(), Want::Unknown(_)));
}

#[test]
fn append_adds_what_is_not_there() {
    edits(
        "file.append",
        &[
            ("a\n", r#""text": "b""#, Ok("a\nb\n")),
            ("a", r#""text": ["b", "c\nd"]"#, Ok("a\nb\nc\nd\n")),
            ("", r#""text": "b""#, Ok("b\n")),
            ("a  b\n", r#""text": "a b""#, Ok("a  b\n")),
            ("a\nb\n", r#""text": "a\nb\n""#, Ok("a\nb\n")),
            ("say \"a  b\" 'c'\n", r#""text": "say \"a b\" 'c'""#, Ok("say \"a  b\" 'c'\nsay \"a b\" 'c'\n")),
            ("xa\n", r#""text": "a""#, Ok("xa\na\n")),
            ("xab\n", r#""text": "a.", "ignore_whitespace": false"#, Ok("xab\n")),
            ("a", r#""source": "salt://x""#, Err("was not found")),
            ("a", r#""makedirs": true"#, Err("needs a text")),
        ],
    );
    let mut host = Double::new();
    host.apply("file.append", r#"{"name": "/opt/x/f", "text": "a", "makedirs": true}"#).unwrap();
    assert_eq!((host.at("/opt/x/f").as_str(), host.attr("/opt/x/f", "mode").as_str()), ("a\n", "0644"));
    let mut state = low("file.append", r#"{"name": "/opt/x/f", "source": "salt://x"}"#);
    state.contents.push(host.content("source", "b\n", None));
    host.apply_low(&state).unwrap();
    assert_eq!(host.at("/opt/x/f"), "a\nb\n");
}

#[test]
fn prepend_adds_at_the_start() {
    edits(
        "file.prepend",
        &[
            ("a\n", r#""text": ["b", "c"]"#, Ok("b\nc\na\n")),
            ("a\nb\n", r#""text": "b""#, Ok("a\nb\n")),
            ("a\nb\n", r#""text": "b", "header": true"#, Ok("b\na\nb\n")),
        ],
    );
}

#[test]
fn line_is_placed_among_its_neighbours() {
    edits(
        "file.line",
        &[
            ("a\nb\n", r#""mode": "ensure", "content": "x", "after": "^a""#, Ok("a\nx\nb\n")),
            ("a\n  b\n", r#""mode": "ensure", "content": "x", "before": "b""#, Ok("a\nx\n  b\n")),
            ("  a\nb\n", r#""mode": "ensure", "content": "x", "after": "a""#, Ok("  a\n  x\nb\n")),
            ("a\nb\n", r#""mode": "ensure", "content": "x", "after": "a", "before": "b""#, Ok("a\nx\nb\n")),
            ("a\ny\nb\n", r#""mode": "ensure", "content": "x", "after": "a", "before": "b""#, Ok("a\nx\nb\n")),
            ("a\n1\n2\nb\n", r#""mode": "ensure", "content": "x", "after": "a", "before": "b""#, Err("more than one line")),
            ("a\nb\n", r#""mode": "ensure", "content": "x", "after": "z""#, Err("no line of /etc/f is like after (z)")),
            ("a\na\n", r#""mode": "ensure", "content": "x", "after": "a""#, Err("2 lines of /etc/f are like after")),
            ("a=1\nb\n", r#""mode": "replace", "content": "a=2", "match": "^a=""#, Ok("a=2\nb\n")),
            ("\ta=1\n", r#""mode": "replace", "content": "a=2", "match": "a=1""#, Ok("\ta=2\n")),
            ("a\nb\na\n", r#""mode": "delete", "match": "a""#, Ok("b\n")),
            ("a\nb", r#""mode": "delete", "content": "b""#, Ok("a\n")),
            ("a\n", r#""mode": "delete", "match": "zz""#, Ok("a\n")),
            ("a\r\nb\r\n", r#""mode": "ensure", "content": "x", "after": "^a$""#, Ok("a\r\nx\r\nb\r\n")),
            ("a\n", r#""mode": "insert", "content": "x""#, Err("insert needs")),
            ("a\n", r#""mode": "ensure", "content": "x""#, Err("ensure needs")),
            ("a\n", r#""mode": "wish", "content": "x""#, Err("ensure, replace, insert or delete")),
            ("a\n", r#""content": "x""#, Err("needs a mode")),
            ("a\n", r#""mode": "insert", "after": "a""#, Err("needs the content")),
        ],
    );
    // Insert adds every time where no neighbour says otherwise; so it is asked once only.
    for (before, args, after) in [
        ("a\nb\n", r#""content": "x", "location": "start""#, "x\na\nb\n"),
        ("a\nb", r#""content": "x", "location": "end""#, "a\nb\nx"),
        ("  a\nb\n", r#""content": "x", "after": "a", "before": "b""#, "  a\nx\nb\n"),
        ("  a\nb\n", r#""content": "x", "after": "a", "indent": false"#, "  a\nx\nb\n"),
        ("a\nb\n", r#""content": "x", "before": "b""#, "a\nx\nb\n"),
    ] {
        let mut host = Double::new();
        host.file("/etc/f", before);
        let function = host.parse(&low("file.line", &format!(r#"{{"name": "/etc/f", "mode": "insert", {args}}}"#))).unwrap();
        let want = host.want(function.as_ref()).unwrap();
        host.lay(want);
        assert_eq!(host.at("/etc/f"), after, "{args}");
    }
    let mut host = Double::new();
    host.apply("file.line", r#"{"name": "/etc/f", "mode": "delete", "match": "x", "create": true, "file_mode": "0600"}"#).unwrap();
    assert_eq!((host.at("/etc/f").as_str(), host.attr("/etc/f", "mode").as_str()), ("", "0600"));
    assert!(refused(&mut host, "file.line", r#"{"name": "/etc/g", "mode": "delete", "match": "x"}"#).contains("file not found"));
    host.file("/etc/h", "a\n");
    host.apply("file.line", r#"{"name": "/etc/h", "mode": "ensure", "content": "x", "after": "a", "backup": true}"#).unwrap();
    assert!(host.objects.keys().any(|k| k.name.starts_with("/etc/h.")));
}

#[test]
fn recurse_copies_a_tree_and_cleans_what_is_not_in_it() {
    let tree = |host: &Double, args: &str| {
        let mut state = low("file.recurse", &format!(r#"{{"name": "/etc/d", "source": "salt://d", {args}}}"#));
        for (name, text) in [("f", "f\n"), ("sub/deep/g", "g\n")] {
            state.contents.push(host.content(name, text, Some(0o755)));
        }
        state.contents.push(host.content("empty/", "", None));
        let mut link = host.content("l", "", None);
        link.link = Some("f".into());
        state.contents.push(link);
        state
    };
    let mut host = Double::new();
    let state = tree(&host, r#""file_mode": "keep", "dir_mode": 750"#);
    host.apply_low(&state).unwrap();
    let there = ["/etc/d", "/etc/d/sub", "/etc/d/sub/deep", "/etc/d/empty"].map(|p| host.at(p));
    assert_eq!(there, ["directory 0750"; 4]);
    assert_eq!(
        (host.at("/etc/d/sub/deep/g").as_str(), host.at("/etc/d/l").as_str(), host.attr("/etc/d/f", "mode").as_str()),
        ("g\n", "-> f", "0755")
    );

    host.file("/etc/d/old", "")
        .directory("/etc/d/olddir")
        .file("/etc/d/olddir/x", "")
        .file("/etc/d/sub/keep.me", "")
        .file("/etc/d/mine", "");
    host.required = vec![low("file.managed", r#"{"name": "/etc/d/mine"}"#)];
    let state = tree(&host, r#""clean": true, "exclude_pat": "*.me""#);
    host.apply_low(&state).unwrap();
    let left: Vec<&str> = host.objects.keys().filter_map(|k| k.name.strip_prefix("/etc/d/")).collect();
    assert_eq!(left, ["empty", "f", "l", "mine", "sub", "sub/deep", "sub/deep/g", "sub/keep.me"]);

    // What stands in the way.
    let mut host = Double::new();
    host.directory("/etc/d").file("/etc/d/sub", "").directory("/etc/d/f").file("/etc/d/f/x", "");
    let state = tree(&host, r#""user": "root""#);
    assert!(host.apply_low(&state).unwrap_err().summary.contains("/etc/d/sub is a file"));
    let state = tree(&host, r#""clean": true"#);
    host.apply_low(&state).unwrap();
    assert_eq!((host.at("/etc/d/sub/deep/g").as_str(), host.at("/etc/d/f").as_str()), ("g\n", "f\n"));
    let mut bad = tree(&host, r#""user": "root""#);
    bad.contents.push(host.content("../out", "", None));
    assert!(host.apply_low(&bad).unwrap_err().summary.contains("no path below"));
}
