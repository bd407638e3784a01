use super::*;

fn json(text: &str) -> String {
    match load(text, "a.sls") {
        Ok(value) => serde_json::to_string(&value).unwrap_or_default(),
        Err(error) => format!("! {error}"),
    }
}

/// Every answer here is what Salt 3008.5's loader gave.
#[test]
fn plain_scalars_mean_what_salt_means() {
    for (text, want) in [
        ("0644", "644"),
        ("010", "10"),
        ("-0644", "-420"),
        ("+010", "8"),
        ("0o644", r#""0o644""#),
        ("089", r#""089""#),
        ("1e3", r#""1e3""#),
        ("1.0e+3", "1000.0"),
        ("1.0e3", r#""1.0e3""#),
        ("1:30", "90"),
        ("1:30:10", "5410"),
        ("22:22", "1342"),
        ("1:60", r#""1:60""#),
        ("1:30.5", "90.5"),
        ("1_000", "1000"),
        ("0x1F", "31"),
        ("0b101", "5"),
        ("000", "0"),
        ("-0", "0"),
        ("+12", "12"),
        ("1.", "1.0"),
        (".5", "0.5"),
        ("-.5", r#""-.5""#),
        ("+.inf", "null"),
        ("1.2.3", r#""1.2.3""#),
        ("1_000.5_0", "1000.5"),
        ("y", r#""y""#),
        ("Yes", "true"),
        ("off", "false"),
        ("~", "null"),
        ("", "null"),
        ("NULL", "null"),
        ("nUll", r#""nUll""#),
        ("2020-01-01", r#""2020-01-01""#),
        ("2020-01-01T10:00:00Z", r#""2020-01-01T10:00:00Z""#),
        ("'0644'", r#""0644""#),
        ("!!str 0644", r#""0644""#),
        ("!!int \"0644\"", "644"),
        ("!!float 1", "1.0"),
        ("!!binary aGVsbG8=", r#""hello""#),
        ("! 12", "12"),
        ("! \"12\"", "12"),
        ("-", "[null]"),
        ("'a':b", "! a.sls:1:4: did not find expected <document start>"),
        ("!!omap {a: 1}", r#"{"a":1}"#),
    ] {
        assert_eq!(json(text), want, "{text:?}");
    }
}

#[test]
fn order_is_kept_and_nothing_is_null() {
    assert_eq!(json("b: 1\na: [x, {y: z}]\n"), r#"{"b":1,"a":["x",{"y":"z"}]}"#);
    assert_eq!(json("# only a comment\n"), "null");
    assert_eq!(json("=: 1"), r#"{"=":1}"#);
}

#[test]
fn merge_keys_stand_first_and_own_keys_win() {
    let base = "a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\n";
    assert_eq!(json(&format!("{base}c:\n  y: 9\n  <<: *a\n")), r#"{"a":{"x":1,"y":2},"b":{"y":3,"z":4},"c":{"x":1,"y":9}}"#);
    assert_eq!(json(&format!("{base}c:\n  <<: [*a, *b]\n")), "! a.sls:1:14: the key \"y\" is there twice");
    assert_eq!(json(&format!("{base}c:\n  y: 0\n  <<: [*a, *b]\n")), r#"{"a":{"x":1,"y":2},"b":{"y":3,"z":4},"c":{"z":4,"x":1,"y":0}}"#);
    assert_eq!(json("c:\n  <<: 1\n"), "! a.sls:2:7: << merges a mapping or a list of mappings, and this is a scalar");
}

#[test]
fn refusals_have_a_place() {
    for (text, want) in [
        ("a: 1\nb: 2\na: 3\n", "! a.sls:3:1: the key \"a\" is there twice"),
        ("1: a\ntrue: b\n", "! a.sls:2:1: the key \"True\" is there twice"),
        ("a: {b}}\n", "! a.sls:1:7: did not find expected key"),
        ("a: {{ b }}\n", "! a.sls:1:5: a mapping cannot be a key"),
        ("a:\n\tb: 1\n", "! a.sls:2:1: found character that cannot start any token"),
        ("a: *b\n", "! a.sls:1:4: there is no &b before this *b"),
        ("a: &b [*b]\n", "! a.sls:1:8: *b stands inside of what it names"),
        ("a: &b 1\nc: &b 2\n", "! a.sls:2:4: the anchor &b is there twice"),
        ("a: 1\n---\nb: 2\n", "! a.sls:2:1: a second document begins here, and only one is allowed"),
        ("a: !secret x\n", "! a.sls:1:4: !secret is no tag that can be read here"),
        ("a: b: c\n", "! a.sls:1:5: mapping values are not allowed in this context"),
        ("a: \u{7}\n", "! a.sls:1:4: control characters are not allowed"),
        ("[!a, b]", "! a.sls:1:1: a tag behind this place cannot be read"),
    ] {
        assert_eq!(json(text), want, "{text:?}");
    }
    assert!(load("a:\n\tb: 1\n", "a.sls").is_err_and(|e| e.hint.as_deref().is_some_and(|h| h.contains("tabs"))));
}

#[test]
fn bombs_are_refused() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..12 {
        text += &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(", "));
    }
    assert!(json(&text).contains("too many values"));
    assert!(json(&"[".repeat(100_000)).contains("deep"));
    assert!(json(&"- ".repeat(5_000)).contains("deep"));
}

#[test]
fn a_text_may_end_without_a_line_break() {
    for (text, want) in [
        ("a: |\n  x", r#"{"a":"x"}"#),
        ("a: |+\n  x", r#"{"a":"x"}"#),
        ("a: |\n  x\n", r#"{"a":"x\n"}"#),
        ("a: |\n  x\n  ", r#"{"a":"x\n"}"#),
        ("a: |\n  x\n# end", r#"{"a":"x\n"}"#),
        ("a: >-\n x\n y", r#"{"a":"x y"}"#),
        ("a: \"x\\", "! a.sls:1:7: found unexpected end of stream"),
    ] {
        assert_eq!(json(text), want, "{text:?}");
    }
}

#[test]
fn places_are_those_of_keys_and_values() {
    let Ok(node) = load_spanned("a:\n  b: [c]\n", "a.sls") else { panic!("does not load") };
    let Data::Map(top) = &node.data else { panic!("no mapping") };
    let Some((_, (key, inner))) = top.first() else { panic!("nothing in it") };
    assert_eq!((*key, inner.place), (Place { line: 1, column: 1 }, Place { line: 2, column: 3 }));
    let Data::Map(inner) = &inner.data else { panic!("no mapping") };
    assert_eq!(inner.values().next().map(|(_, list)| list.place), Some(Place { line: 2, column: 6 }));
}

/// Small texts, cut and stirred: whatever comes, there is an answer.
#[test]
fn no_text_makes_it_panic() {
    let seeds = [
        "a: &x {b: [1, 2.5, 0x1], <<: *x}\nc: |\n  text\n  more\nd: >-\n  folded\n",
        "- !!int 12\n- ! a\n- !foo,\n- \"\\x41\\u00e9 \\\n  b\"\n- 'it''s'\n",
        "%YAML 1.1\n%TAG !e! tag:example.com,2000:\n---\n!e!x%41 ? [a, b] : {c: d}\n...\n",
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % n.max(1) as u64) as usize
    };
    let bits = [
        "!", "&a", "*a", "<<", ":", " ", "\n", "\t", "\r", "-", "[", "]", "{", "}", ",", "\"", "'", "\\", "%", "|", ">", "#", "\u{feff}",
        "é", "0", "\0", "!a,", "---", "? ",
    ];
    for round in 0..20_000 {
        let mut text: Vec<char> = seeds[round % seeds.len()].chars().collect();
        for _ in 0..=next(4) {
            let at = next(text.len());
            match next(3) {
                0 => text.truncate(at),
                1 => drop(text.drain(at..(at + next(5)).min(text.len()))),
                _ => drop(text.splice(at..at, bits[next(bits.len())].chars())),
            }
        }
        let text: String = text.into_iter().collect();
        if let Err(error) = load(&text, "a.sls") {
            let known = error.summary.starts_with("a tag behind this place");
            assert!(!known || text.contains('!'), "the parser panicked on {text:?}");
            assert!(error.span.is_some_and(|span| span.line > 0), "no place for {text:?}");
        }
    }
}
