//! Runs the commands of states and tells what came of them, as Salt does.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use super::protocol::Body;
use super::serve::Lines;
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::function::Run;
use crate::function::args::Args;
use crate::function::cmd;
use crate::plan::{Hash, Low};
use crate::secret::Mask;
use crate::system::{Command, Output, System};
use crate::value::{Map, Value};

/// How a command ended, as its state sees it.
pub struct End {
    pub success: bool,
    pub changed: bool,
    pub comment: String,
}

/// Lines of output that a failure's comment repeats.
const LAST: usize = 10;

/// Runs a command to its end, its output told line by line.
pub fn run(sys: &System, run: &Run, mask: &Mask, tell: &mut dyn FnMut(Body)) -> Result<Output> {
    if let Some(success) = run.pretended {
        return Ok(Output { status: i32::from(!success), ..Output::default() });
    }
    let script = run.script.as_ref().map(|content| Script::write(sys, content, run.command.user.as_deref())).transpose()?;
    let mut command = run.command.clone();
    command.argv.extend(script.as_ref().map(|script| script.path.clone()));
    if run.background {
        // The shell comes back at once; its child reads and writes nowhere.
        let apart = ["/bin/sh", "-c", "\"$@\" </dev/null >/dev/null 2>&1 &", "sh"].map(str::to_owned);
        command.argv = apart.into_iter().chain(command.argv).collect();
    }
    let mut lines = Lines::default();
    let mut line = |text: String| {
        if !run.quiet {
            tell(Body::Line { text: mask.text(&text), error: false });
        }
    };
    let output = sys.run_streaming(&command, &mut |piece| lines.add(piece, &mut line))?;
    lines.rest(&mut line);
    Ok(output)
}

/// What a finished command means for its state.
pub fn judge(run: &Run, output: &Output) -> End {
    let shown = &run.shown;
    if let Some(success) = run.pretended {
        return End { success, changed: true, comment: shown.clone() };
    }
    if output.timed_out && !run.timeout_is_fine {
        let comment = format!("Command \"{shown}\" took too long and was ended");
        return End { success: false, changed: true, comment };
    }
    let success = output.success() || output.timed_out || run.success.contains(&output.status);
    let mut end = End { success, changed: true, comment: format!("Command \"{shown}\" run") };
    if !success {
        end.comment = format!("Command \"{shown}\" failed with exit code {}", output.status);
        if !run.quiet {
            end.comment.push_str(&last_lines(output));
        }
    }
    if run.stateful { stateful(end, output) } else { end }
}

fn last_lines(output: &Output) -> String {
    let text = [output.text(), String::from_utf8_lossy(&output.stderr).into_owned()].join("\n");
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines.iter().skip(lines.len().saturating_sub(LAST)).fold(String::new(), |out, line| out + "\n" + line)
}

/// `stateful`: standard output is a JSON object, or its last line is `changed=yes comment='…'`.
fn stateful(end: End, output: &Output) -> End {
    let text = output.text();
    let text = text.trim_end();
    if text.is_empty() {
        return End { changed: false, comment: String::from_utf8_lossy(&output.stderr).trim_end().to_owned(), ..end };
    }
    let failed = |why: &str| End { success: false, changed: false, comment: why.to_owned() };
    let said: Map = match serde_json::from_slice::<Value>(text.as_bytes()) {
        Ok(Value::Map(map)) => map,
        Ok(_) => return failed("script JSON output must be a JSON object (e.g., {})!"),
        Err(_) => match pairs(text.lines().last().unwrap_or_default()) {
            Some(map) => map,
            None => return failed("Failed parsing script output! Stdout must be JSON or a line of name=value pairs."),
        },
    };
    let changed = said.get("changed").map_or("no".to_owned(), Value::to_text).to_lowercase();
    let comment = said.get("comment").map(Value::to_text).unwrap_or_default();
    match changed.as_str() {
        "true" | "yes" | "1" => End { changed: true, comment, ..end },
        "false" | "no" | "0" => End { changed: false, comment, ..end },
        other => failed(&format!("Failed parsing boolean value: {other}")),
    }
}

/// `name=value` words, values in quotes where they contain blanks.
fn pairs(line: &str) -> Option<Map> {
    let mut map = Map::new();
    let mut words: Vec<String> = Vec::new();
    let (mut word, mut quote) = (None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    for word in words.iter().filter(|_| quote.is_none()) {
        let (name, value) = word.split_once('=').filter(|(_, value)| !value.contains('='))?;
        map.insert(name, value);
    }
    quote.is_none().then_some(map)
}

/// A `check_cmd`.
pub fn check(line: &str) -> Run {
    Run::new(Command::new(["/bin/sh", "-c", line]), line)
}

/// `check_cmd` of a file that is not in place yet: the command gets the path of a copy as its last argument.
pub fn check_of_file(low: &Low, line: &str, content: &Hash) -> Result<Run> {
    let plain = Low { args: Map::new(), ..low.clone() };
    let command = cmd::shell(&Args(&plain), &format!("{} \"$0\"", line.trim_end()))?;
    Ok(Run { script: Some(content.clone()), ..Run::new(command, line) })
}

/// A private file that is there while a command runs.
struct Script {
    /// As the command sees it.
    path: String,
    real: std::path::PathBuf,
}

impl Script {
    fn write(sys: &System, content: &Hash, user: Option<&str>) -> Result<Script> {
        let bytes = sys.contents().bytes(content)?;
        let failed = |e: std::io::Error| Diagnostic::io("write a script to /tmp", &e);
        let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
        for n in 0..100u32 {
            let name = Hash::of(format!("{seed} {n} {}", std::process::id()).as_bytes()).0;
            let path = format!("/tmp/basalt-{}", name.get(..16).unwrap_or_default());
            let real = sys.path(&path);
            let mut file = match File::options().write(true).create_new(true).mode(0o700).open(&real) {
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => continue,
                other => other.map_err(failed)?,
            };
            let script = Script { path, real };
            file.write_all(&bytes).map_err(failed)?;
            if let Some(uid) = user.map(|user| sys.uid(user)).transpose()?.flatten() {
                std::os::unix::fs::fchown(&file, Some(uid), None).map_err(failed)?;
            }
            return Ok(script);
        }
        Err(Diagnostic::new(Code::Failed, "no name is left for a script in /tmp").into())
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.real);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(stdout: &str) -> (bool, bool, String) {
        let run = Run { stateful: true, ..Run::new(Command::new(["x"]), "x") };
        let end = judge(&run, &Output { stdout: stdout.into(), ..Output::default() });
        (end.success, end.changed, end.comment)
    }

    #[test]
    fn stateful_output_is_read_as_salt_reads_it() {
        assert_eq!(end("hello\nchanged=yes comment='it is done'\n"), (true, true, "it is done".into()));
        assert_eq!(end("changed=no"), (true, false, String::new()));
        assert_eq!(end(r#"{"changed": true, "comment": "json"}"#), (true, true, "json".into()));
        assert_eq!(end(""), (true, false, String::new()));
        for bad in ["what is this", "[1]", "changed=perhaps", "changed='yes"] {
            assert!(!end(bad).0, "{bad}");
        }
    }

    #[test]
    fn exit_codes_and_time_decide_as_the_state_says() {
        let run = Run { success: vec![3], ..Run::new(Command::new(["x"]), "x") };
        let with =
            |status: i32, timed_out: bool| judge(&run, &Output { status, timed_out, stderr: b"why\n".to_vec(), ..Output::default() });
        assert!(with(0, false).success && with(3, false).success);
        assert_eq!(with(4, false).comment, "Command \"x\" failed with exit code 4\nwhy");
        assert!(!with(0, true).success);
        assert!(judge(&Run { timeout_is_fine: true, ..run }, &Output { timed_out: true, status: 137, ..Output::default() }).success);
    }
}
