//! The rules of the source tree that no compiler holds, checked by reading it. Each failure names file and line, and why the rule is there.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The order in which modules may know each other: a module imports from those above it only. Two on one line do not know each other.
const ORDER: &[&[&str]] = &[
    &["value"],
    &["diagnostic"],
    &["secret"],
    &["budget"],
    &["yaml"],
    &["plan"],
    &["system"],
    &["object"],
    &["announce", "monitor", "function"],
    &["agent"],
    &["fleet"],
    &["lang"],
    &["engine"],
    &["remote", "store"],
    &["orchestrate", "enrol"],
    &["watch"],
    &["control"],
    &["web", "cli"],
    &["main"],
];

/// A file longer than this holds more than one thing.
const LONGEST: usize = 700;

/// Places that may panic, each with the reason why no input reaches it. (file, what the line contains, reason)
const MAY_PANIC: &[(&str, &str, &str)] = &[];

/// Places below `cli` that may write to the standard streams.
const MAY_PRINT: &[(&str, &str)] =
    &[("src/bin/basalt-agent.rs", "it is a program of its own: --version, --help and why it does not start")];

/// What upper layers may know of the agent beside its protocol. (file, what, reason)
const AGENT_OUTSIDE: &[(&str, &str, &str)] =
    &[("src/cli/see.rs", "agent::grains", "compiling without a host takes this machine's grains, as its own agent would say them")];

#[test]
fn modules_import_only_what_stands_left_of_them() {
    check(
        "The layers (src/lib.rs, docs/design.md): imports point to the left only, so every layer can be read, tested and built without those above it; \
         upper layers know of `agent` only its `protocol`, because the agent runs on another machine.",
        |source, found| {
            let Some(own) = rank(&source.module) else {
                found.push((1, format!("the module `{}` has no place in the order", source.module)));
                return;
            };
            for (line, path) in imports(&source.code) {
                let module = path.split("::").next().unwrap_or_default();
                let Some(other) = rank(module) else { continue };
                if module != source.module && other >= own {
                    found.push((line, format!("`{}` imports `{path}`", source.module)));
                }
                let excepted = AGENT_OUTSIDE.iter().any(|(file, what, _)| *file == source.name && path.starts_with(what));
                if module == "agent" && own > other && source.module != "main" && !path.starts_with("agent::protocol") && !excepted {
                    found.push((line, format!("`{}` imports `{path}`: only `agent::protocol` is known to it", source.module)));
                }
            }
        },
    );
}

#[test]
fn only_the_command_line_prints() {
    check(
        "Only `cli` prints: everything below it gives values, diagnostics and events, so that JSON stays JSON and the web can show the same.",
        |source, found| {
            if source.module == "cli" || source.module == "main" || MAY_PRINT.iter().any(|(file, _)| *file == source.name) {
                return;
            }
            for (line, text) in source.lines() {
                if ["println!", "print!(", "dbg!("].iter().any(|macro_| text.contains(macro_)) {
                    found.push((line, text.trim().to_owned()));
                }
            }
        },
    );
}

#[test]
fn nothing_panics_that_input_can_reach() {
    check(
        "An error is a Diagnostic that says what, where, why and what to do; a panic says none of that. Where none can happen, say why in MAY_PANIC.",
        |source, found| {
            for (line, text) in source.lines() {
                let text = text.replace("self.expect(", ""); // a method of our own, which returns an error
                let panics =
                    [".unwrap()", ".expect(", ".unwrap_err()", ".expect_err(", "panic!(", "unreachable!("].iter().any(|p| text.contains(p));
                if panics && !MAY_PANIC.iter().any(|(file, part, _)| *file == source.name && source.original_line(line).contains(part)) {
                    found.push((line, text.trim().to_owned()));
                }
            }
        },
    );
}

#[test]
fn nothing_is_left_open() {
    check("What is not built is not there: no stubs.", |source, found| {
        for (line, text) in source.lines() {
            if ["todo!(", "unimplemented!("].iter().any(|p| text.contains(p)) {
                found.push((line, text.trim().to_owned()));
            }
        }
    });
}

#[test]
fn files_are_short() {
    check(&format!("A file above {LONGEST} lines holds more than one thing: cut it along what it holds."), |source, found| {
        let lines = source.text.lines().count();
        if lines > LONGEST {
            found.push((lines, format!("{lines} lines")));
        }
    });
}

#[test]
fn exceptions_are_still_needed() {
    let sources = sources();
    for (file, part, _) in MAY_PANIC {
        let there = sources.iter().any(|source| source.name == *file && source.text.contains(part));
        assert!(there, "MAY_PANIC names {part:?} in {file}, which is not there any more: take it out");
    }
    for (file, what, _) in AGENT_OUTSIDE {
        let there =
            sources.iter().any(|source| source.name == *file && imports(&source.code).iter().any(|(_, path)| path.starts_with(what)));
        assert!(there, "AGENT_OUTSIDE names {what} in {file}, which does not use it any more: take it out");
    }
    for (file, _) in MAY_PRINT {
        assert!(sources.iter().any(|source| source.name == *file), "MAY_PRINT names {file}, which is not there any more: take it out");
    }
}

/// The reader itself: what it must see and what it must not.
#[test]
fn the_reader_sees_code_only() {
    let text = "use crate::{a::B, c::{D, E}, f};\nlet s = \"x.unwrap() // \\\" crate::g\"; // crate::h\nlet r = r#\"panic!(\"#; let c = '\"'; let l: &'a str = \"\";\n\
                /* crate::i */ crate::j::k();\n#[cfg(test)]\nmod tests {\n    fn f() { x.unwrap() }\n}\nlet after = basalt::m::n;\n";
    let code = code_of(text);
    let found = imports(&code);
    assert_eq!(found.iter().map(|(n, p)| format!("{n} {p}")).collect::<Vec<_>>(), ["1 a::B", "1 c::", "1 f", "4 j::k", "9 m::n"]);
    assert!(!code.contains("unwrap") && !code.contains("panic"), "{code}");
    assert_eq!(code.lines().count(), text.lines().count());
}

// --- reading ---

struct Source {
    /// `src/…`, from the package's folder.
    name: String,
    /// The top-level module that it belongs to: `engine` for `src/engine/plan.rs`.
    module: String,
    text: String,
    /// The text with comments, literals and tests blanked, line for line.
    code: String,
}

impl Source {
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().map(|(i, line)| (i + 1, line))
    }

    fn original_line(&self, line: usize) -> &str {
        self.text.lines().nth(line - 1).unwrap_or_default()
    }
}

/// Runs a rule over every source file and fails with everything that it found.
#[track_caller]
fn check(reason: &str, rule: impl Fn(&Source, &mut Vec<(usize, String)>)) {
    let mut report = String::new();
    for source in sources() {
        let mut found = Vec::new();
        rule(&source, &mut found);
        for (line, what) in found {
            _ = writeln!(report, "  {}:{line}: {what}", source.name);
        }
    }
    assert!(report.is_empty(), "\n{reason}\n{report}");
}

fn sources() -> Vec<Source> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(&package.join("src"), &mut files);
    assert!(files.len() > 10, "there are sources to read");
    let tests: Vec<PathBuf> = files.iter().flat_map(|file| test_modules(file)).collect();
    let mut all: BTreeMap<String, Source> = BTreeMap::new();
    for file in files {
        let name = file.strip_prefix(package).expect("below the package").display().to_string();
        let first = name["src/".len()..].split('/').next().unwrap_or_default();
        let module = match first.trim_end_matches(".rs") {
            "lib" => continue, // names them all
            "bin" => "main",
            module => module,
        }
        .to_owned();
        let text = std::fs::read_to_string(&file).expect("a source file is text");
        let is_test = tests.iter().any(|test| file.starts_with(test) || file == test.with_extension("rs"));
        let code = if is_test { "\n".repeat(text.lines().count()) } else { code_of(&text) };
        all.insert(name.clone(), Source { name, module, text, code });
    }
    all.into_values().collect()
}

/// Where the modules live that a file declares with `#[cfg(test)] mod NAME;`, without the `.rs`.
fn test_modules(file: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(file).expect("a source file is text");
    let folder = match file.file_name().and_then(|name| name.to_str()) {
        Some("mod.rs" | "lib.rs" | "main.rs") => file.with_file_name(""),
        _ => file.with_extension(""),
    };
    let names = text.split("#[cfg(test)]").skip(1).filter_map(|item| {
        let declaration = item.trim_start().lines().next()?.strip_suffix(';')?;
        declaration.rsplit_once("mod ").map(|(_, name)| name.trim().to_owned())
    });
    names.map(|name| folder.join(name)).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of sources").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

fn rank(module: &str) -> Option<usize> {
    ORDER.iter().position(|row| row.contains(&module))
}

/// What the code names from the crate's root: `crate::a::b`, `basalt::a::b`, and each first part of a group `crate::{a::b, c}`.
fn imports(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for root in ["crate::", "basalt::"] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
                continue;
            }
            let line = code[..at].matches('\n').count() + 1;
            let rest = &code[at + root.len()..];
            let path = |text: &str| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':').collect::<String>();
            match rest.strip_prefix('{') {
                None => found.push((line, path(rest))),
                Some(group) => parts(group).iter().for_each(|part| found.push((line, path(part)))),
            }
        }
    }
    found.sort();
    found
}

/// The members of a group, from behind its `{`, cut at the commas of the outermost level.
fn parts(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (1, 0, Vec::new());
    for (i, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || (depth == 1 && c == ',') {
            parts.push(&group[start..i]);
            start = i + 1;
        }
        if depth == 0 {
            break;
        }
    }
    parts.retain(|part| !part.trim().is_empty());
    parts
}

/// The code alone: comments, literals and what stands under `#[cfg(test)]` become blanks; lines stay lines.
fn code_of(text: &str) -> String {
    let code = without_literals(text);
    let mut out = String::new();
    let mut rest = code.as_str();
    while let Some(at) = rest.find("#[cfg(test)]") {
        out += &rest[..at];
        let item = &rest[at..];
        // The item ends with its block, or with a semicolon before any block.
        let (mut depth, mut end) = (0usize, item.len());
        for (i, c) in item.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 && (c == '}' || c == ';') {
                end = i + 1;
                break;
            }
        }
        out.extend(item[..end].chars().filter(|c| *c == '\n'));
        rest = &item[end..];
    }
    out + rest
}

fn without_literals(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    // Writes blanks up to `end`, keeping line ends.
    let blank = |out: &mut String, from: usize, end: usize| {
        chars[from..end.min(chars.len())].iter().for_each(|c| out.push(if *c == '\n' { '\n' } else { ' ' }));
    };
    while i < chars.len() {
        let start = i;
        let word_before = i > 0 && (at(i - 1).is_alphanumeric() || at(i - 1) == '_');
        let hashes = (i + 1..).take_while(|n| at(*n) == '#').count();
        if at(i) == '/' && at(i + 1) == '/' {
            while i < chars.len() && at(i) != '\n' {
                i += 1;
            }
        } else if at(i) == '/' && at(i + 1) == '*' {
            i += 2;
            while i < chars.len() && !(at(i) == '*' && at(i + 1) == '/') {
                i += 1;
            }
            i += 2;
        } else if at(i) == 'r' && (!word_before || (i > 0 && at(i - 1) == 'b')) && at(i + 1 + hashes) == '"' {
            i += 2 + hashes;
            while i < chars.len() && !(at(i) == '"' && (1..=hashes).all(|n| at(i + n) == '#')) {
                i += 1;
            }
            i += 1 + hashes;
        } else if at(i) == '"' {
            i += 1;
            while i < chars.len() && at(i) != '"' {
                i += if at(i) == '\\' { 2 } else { 1 };
            }
            i += 1;
        } else if at(i) == '\'' && (at(i + 1) == '\\' || at(i + 2) == '\'') {
            i += if at(i + 1) == '\\' { 3 } else { 2 };
            while i < chars.len() && at(i) != '\'' {
                i += 1;
            }
            i += 1;
        } else {
            out.push(at(i));
            i += 1;
            continue;
        }
        blank(&mut out, start, i);
    }
    out
}
