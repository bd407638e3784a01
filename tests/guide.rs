//! The guide is true: its console blocks are one session, in which each command says what the guide shows.
//!
//! In `docs/guide.md`, a block of `console` holds commands behind `$ ` and what they say; a line `…` stands for any lines. A block of another
//! language whose first line is a comment with a file's name, behind the start of the session, holds that file. `/tmp/try` is a temporary folder.
//! Names of runs, commits and times may differ, and so may the order in which hosts speak.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on panics")]

use std::path::{Path, PathBuf};
use std::process::Command;

use fancy_regex::Regex;

/// The folder that the guide names.
const SHOWN: &str = "/tmp/try";

struct Block {
    line: usize,
    language: String,
    text: String,
}

fn blocks(text: &str) -> Vec<Block> {
    let (mut found, mut open) = (Vec::new(), None);
    for (number, line) in text.lines().enumerate() {
        match (open.take(), line.strip_prefix("```")) {
            (None, Some(language)) => open = Some(Block { line: number + 2, language: language.to_owned(), text: String::new() }),
            (Some(block), Some(_)) => found.push(block),
            (Some(block), None) => open = Some(Block { text: block.text + line + "\n", ..block }),
            (None, None) => {}
        }
    }
    found
}

#[test]
fn the_guide_says_what_happens() {
    let basalt = Path::new(env!("CARGO_BIN_EXE_basalt"));
    let place = tempfile::tempdir().unwrap();
    let carried = Command::new(basalt).args(["agent", "--extract"]).arg(place.path().join("agent")).output().unwrap();
    if !carried.status.success() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI=true, but this basalt carries no agent");
        eprintln!("skipped: this basalt was built with BASALT_SKIP_AGENT");
        return;
    }
    let guide = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guide.md")).unwrap();
    let mut session =
        Session { home: place.path().join("home"), folder: place.path().to_owned(), hosts: place.path().join("hosts"), basalt };
    std::fs::create_dir_all(&session.home).unwrap();
    let (mut commands, mut wrong, mut begun) = (0, Vec::new(), false);
    for block in blocks(&guide) {
        if block.language == "console" {
            begun = true;
            for (command, shown) in block.text.split("\n$ ").map(|part| part.strip_prefix("$ ").unwrap_or(part)).map(head) {
                commands += 1;
                let said = session.run(command);
                if !same(shown, &said) {
                    wrong.push(format!("docs/guide.md, block of line {}: `{command}` says\n{said}", block.line));
                }
            }
        } else if begun {
            session.write(&block);
        }
    }
    assert!(commands > 15, "only {commands} commands were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn head(text: &str) -> (&str, &str) {
    text.split_once('\n').unwrap_or((text, ""))
}

struct Session<'a> {
    home: PathBuf,
    folder: PathBuf,
    /// What the guide calls `/tmp/try`.
    hosts: PathBuf,
    basalt: &'a Path,
}

impl Session<'_> {
    fn run(&mut self, command: &str) -> String {
        if let Some(folder) = command.strip_prefix("cd ") {
            self.folder.push(folder);
            return String::new();
        }
        let path = std::env::join_paths(
            std::iter::once(self.basalt.parent().unwrap().to_owned()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
        );
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec 2>&1; {}", command.replace(SHOWN, self.hosts.to_str().unwrap()))]);
        shell.current_dir(&self.folder).env("PATH", path.unwrap()).env("HOME", &self.home);
        for name in ["XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "BASALT_REPO", "BASALT_ROSTER", "BASALT_COLOR"] {
            shell.env_remove(name);
        }
        for name in ["AUTHOR", "COMMITTER"] {
            shell.env(format!("GIT_{name}_NAME"), "me").env(format!("GIT_{name}_EMAIL"), "me@example.org");
        }
        let output = shell.output().unwrap();
        String::from_utf8(output.stdout).unwrap().replace(self.hosts.to_str().unwrap(), SHOWN)
    }

    /// `# states/web.sls` at the top of a block.
    fn write(&self, block: &Block) {
        let (first, _) = head(&block.text);
        let Some(name) = first.strip_prefix("# ").filter(|name| name.contains('.') && !name.contains(' ')) else { return };
        let file = self.folder.join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, block.text.replace(SHOWN, self.hosts.to_str().unwrap())).unwrap();
    }
}

/// Whether what was said is what is shown, but for what differs from time to time.
fn same(shown: &str, said: &str) -> bool {
    let (shown, said) = (lines(shown), lines(said));
    let parts: Vec<&[String]> = shown.split(|line| line == "…").collect();
    let [first, middle @ .., last] = &parts[..] else { return shown == said };
    if !said.starts_with(first) || !said.ends_with(last) || said.len() < first.len() + last.len() {
        return false;
    }
    let mut rest = &said[first.len()..said.len() - last.len()];
    middle.iter().all(|part| {
        let found = rest.windows(part.len().max(1)).position(|window| part.is_empty() || window == *part);
        found.map(|at| rest = &rest[at + part.len()..]).is_some()
    })
}

/// The lines without names and times, and what each host says together: its lines, with those below them.
fn lines(text: &str) -> Vec<String> {
    let mut text = text.trim_end().to_owned();
    for (pattern, instead) in
        [(r"\d{8}-\d{4}-[a-z0-9]{4}", "RUN"), (r"\d+ ms", "MS"), (r"\b[0-9a-f]{12}\b", "COMMIT"), (r"[0-9-]{10} [0-9:]{8} UTC", "TIME")]
    {
        text = Regex::new(pattern).unwrap().replace_all(&text, instead).into_owned();
    }
    let host = |line: &str| {
        line.split_once("  ")
            .or(line.split_once(": "))
            .map(|(host, _)| host)
            .filter(|h| h.starts_with("web") && !h.contains(','))
            .map(str::to_owned)
    };
    let mut units: Vec<(Option<String>, Vec<String>)> = Vec::new();
    for line in text.lines().map(str::trim_end) {
        match units.last_mut() {
            Some((Some(_), unit)) if line.starts_with("    ") => unit.push(line.to_owned()),
            _ => units.push((host(line), vec![line.to_owned()])),
        }
    }
    units
        .chunk_by_mut(|a, b| a.0.is_some() == b.0.is_some())
        .filter(|units| units[0].0.is_some())
        .for_each(|units| units.sort_by(|a, b| a.0.cmp(&b.0)));
    units.into_iter().flat_map(|(_, lines)| lines).collect()
}

#[test]
fn what_differs_is_seen() {
    assert!(same("a\n…\nz\n", "a\nb\nc\nz\n") && same("…\nz", "z") && same("a\n…\nm\n…\nz", "a\nb\nm\nz"));
    assert!(!same("a\n…\nz\n", "a\nb\n") && !same("a\nb", "a") && !same("a\n…\nm\n…\nz", "a\nb\nz"));
    assert!(same(
        "Run 20261120-1015-dtsj\nweb1  x  3 ms\nweb2  y  1 ms\n    z\n",
        "Run 20251120-1015-aaaa\nweb2  y  11 ms\n    z\nweb1  x  0 ms\n"
    ));
    assert!(!same("web1  x\nweb2  y\n    z\n", "web1  x\n    z\nweb2  y\n"));
}
