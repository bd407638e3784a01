//! `basalt demo`: the main job on throwaway hosts that it makes itself, each step explained in a line.
//!
//! Every step runs this program as a user would type it, and every promise that the step shows is checked: a demo that does not hold
//! exits with an error.

mod hosts;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use serde_json::json;

use super::Ended;
use super::print::{Color, Paint, Printer, out};
use crate::diagnostic::{Code, Diagnostic, Result};
use hosts::{Hosts, NAMES};

#[derive(Args)]
pub struct DemoArgs {
    /// Leave the repository and the hosts' folders for a look
    #[arg(long)]
    keep: bool,
    /// Work in this new folder instead of a temporary one
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// One JSON object per line
    #[arg(long)]
    pub json: bool,
}

const STATES: [(&str, &str); 6] = [
    ("states/top.sls", "base:\n  '*':\n    - common\n  'web*':\n    - web\n  'role:db':\n    - match: pillar\n    - db\n"),
    (
        "states/common/init.sls",
        "/etc/motd:\n  file.managed:\n    - source: salt://common/files/motd.j2\n    - template: jinja\n    - mode: '0644'\n    - makedirs: True\n\n\
         /etc/sysctl.d/90-demo.conf:\n  file.managed:\n    - makedirs: True\n    - contents: |\n        vm.swappiness = {{ pillar['swappiness'] }}\n",
    ),
    (
        "states/web/init.sls",
        "/etc/web:\n  file.directory:\n    - mode: '0755'\n    - makedirs: True\n\n\
         /etc/web/sites:\n  file.recurse:\n    - source: salt://web/files/sites\n    - require:\n      - file: /etc/web\n\n\
         /etc/web/enabled:\n  file.symlink:\n    - target: sites/main.conf\n    - require:\n      - file: /etc/web/sites\n",
    ),
    ("states/web/files/sites/main.conf", "listen 80\nroot /srv/www\n"),
    (
        "states/db/init.sls",
        "{% for volume in pillar['volumes'] %}\n/srv/db/{{ volume.name }}/volume.conf:\n  file.managed:\n    - makedirs: True\n    - contents:\n      \
         - name = {{ volume.name }}\n      - size = {{ volume.size }}\n{% endfor %}\n",
    ),
    (
        "pillar/common.sls",
        "greeting: welcome\nswappiness: 10\n{% if grains['id'].startswith('db') %}\nrole: db\nvolumes:\n  - {name: alpha, size: 10G}\n  \
         - {name: beta, size: 20G}\n{% endif %}\n",
    ),
];

/// The demo while it runs.
struct Demo {
    folder: PathBuf,
    printer: Printer,
    json: bool,
    color: Color,
    steps: usize,
}

pub async fn run(args: DemoArgs, color: Color) -> Ended {
    let (folder, made) = match &args.folder {
        Some(folder) => {
            std::fs::create_dir(folder).map_err(|e| Diagnostic::io(format_args!("make {}", folder.display()), &e))?;
            (folder.canonicalize().map_err(|e| Diagnostic::io("find the folder", &e))?, true)
        }
        None => (temporary()?, false),
    };
    let keep = args.keep || made;
    let mut demo = Demo { folder: folder.clone(), printer: Printer::new(args.json, color), json: args.json, color, steps: 0 };
    let result = tokio::task::spawn_blocking(move || {
        let hosts = Hosts::start(&demo.folder);
        let result = hosts.and_then(|hosts| demo.steps(&hosts));
        (demo, result)
    })
    .await;
    let (demo, result) = result.map_err(|e| Diagnostic::new(Code::Internal, format!("the demo ended unexpectedly: {e}")))?;
    if keep {
        demo.printer.say(&format!("\nEverything is left in {}.", folder.display()));
    } else if let Err(e) = std::fs::remove_dir_all(&folder) {
        demo.printer.fault(&Diagnostic::io(format_args!("clean up {}", folder.display()), &e));
    }
    result?;
    demo.printer.json(&json!({"type": "demo_done", "steps": demo.steps}));
    Ok(0)
}

impl Demo {
    fn steps(&mut self, hosts: &Hosts) -> Result<()> {
        let folder = self.folder.clone();
        self.explain(&format!("Three hosts, {}: {}", NAMES.join(", "), hosts.how()));
        self.explain("A state repository: Salt's SLS, pillar and roster, under git.");
        self.basalt(&["init", "salt"], &folder, 0)?;
        let repository = folder.join("salt");
        for (path, text) in STATES {
            self.write(&repository.join(path), text)?;
        }
        self.write(&repository.join("roster.yaml"), &hosts.roster())?;
        self.git(&["add", "-A"])?;
        self.git(&["commit", "-q", "-m", "Web servers and a database"])?;

        self.explain("What would change? The hosts are empty, and the plan already tells all of it.");
        let plan = self.basalt(&["plan", "--out", "../first.plan", "--detailed-exitcode"], &repository, 2)?;
        self.expect(plan.contains("to add"), "the first plan adds something")?;
        let before = hosts.fingerprints()?;

        self.explain("Apply does exactly that, or refuses.");
        self.basalt(&["apply", "--plan", "../first.plan", "--yes"], &repository, 0)?;
        self.explain("A second plan finds nothing to do.");
        let plan = self.basalt(&["plan", "--detailed-exitcode"], &repository, 0)?;
        self.expect(plan.contains("No changes."), "the second plan is empty")?;

        self.explain("Somebody edits a file on web1 by hand …");
        let motd = hosts.root("web1").join("etc/motd");
        let kept = std::fs::read_to_string(&motd).map_err(|e| Diagnostic::io("read the managed file", &e))?;
        self.write(&motd, &format!("{kept}I was here.\n"))?;
        self.explain("… and the plan shows exactly that, on that host only.");
        let plan = self.basalt(&["plan", "--out", "../drift.plan", "--detailed-exitcode"], &repository, 2)?;
        self.expect(plan.contains("-I was here.") && !plan.contains("web2"), "the drift is shown, and nothing else")?;
        self.basalt(&["apply", "--plan", "../drift.plan", "--yes"], &repository, 0)?;
        let mended = std::fs::read_to_string(&motd).map_err(|e| Diagnostic::io("read the managed file", &e))?;
        self.expect(mended == kept, "the drift is mended")?;

        self.explain("A commit changes one number …");
        let wanted = hosts.fingerprints()?;
        self.write(&repository.join("pillar/common.sls"), &STATES[5].1.replace("swappiness: 10", "swappiness: 60"))?;
        self.git(&["commit", "-q", "-am", "Swap more"])?;
        self.basalt(&["apply", "--yes"], &repository, 0)?;
        self.explain("… which was a mistake: rollback takes the run back, on every host, to the byte.");
        self.basalt(&["rollback", "--yes"], &repository, 0)?;
        self.expect(hosts.fingerprints()? == wanted, "the hosts are what they were before that run")?;
        self.explain("Every run has a record.");
        self.basalt(&["runs"], &repository, 0)?;
        self.explain("All the way back: the other runs too, and the hosts are as empty as they began.");
        self.basalt(&["rollback", "--yes"], &repository, 0)?;
        self.basalt(&["rollback", "--yes"], &repository, 0)?;
        self.expect(hosts.fingerprints()? == before, "the hosts are what they were at first")?;
        self.explain("That is the main job. `basalt init` makes a repository for your own hosts.");
        Ok(())
    }

    fn explain(&mut self, text: &str) {
        self.steps += 1;
        self.printer.json(&json!({"type": "demo_step", "step": self.steps, "text": text}));
        self.printer.say(&format!("\n{}", self.printer.paint(Paint::Bold, &format!("# {text}"))));
    }

    /// Runs this program as a user would, shows its output and gives it; another exit code than `code` ends the demo.
    fn basalt(&self, args: &[&str], folder: &Path, code: i32) -> Result<String> {
        self.printer.say(&self.printer.paint(Paint::Cyan, &format!("$ basalt {}", args.join(" "))));
        let program = std::env::current_exe().map_err(|e| Diagnostic::io("find this program", &e))?;
        let with_json = self.json && !matches!(args.first(), Some(&"init"));
        let color = match self.color {
            Color::Never => "never",
            Color::Always => "always",
            Color::Auto if std::io::IsTerminal::is_terminal(&std::io::stdout()) && std::env::var_os("NO_COLOR").is_none() => "always",
            Color::Auto => "never",
        };
        let mut command = Command::new(program);
        command.args(args).args(["--color", color]).current_dir(folder).stdin(Stdio::null()).stderr(Stdio::piped());
        if with_json {
            command.arg("--json");
        }
        for (name, place) in
            [("XDG_STATE_HOME", "state"), ("XDG_CACHE_HOME", "cache"), ("XDG_CONFIG_HOME", "config"), ("BASALT_CACHE", "agent")]
        {
            command.env(name, self.folder.join(place));
        }
        for name in ["BASALT_REPO", "BASALT_ROSTER"] {
            command.env_remove(name);
        }
        let output = command.output().map_err(|e| Diagnostic::io("run this program", &e))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        if self.json {
            if with_json {
                out(&text);
            }
        } else {
            out(&text);
            out(&errors);
        }
        if output.status.code() != Some(code) {
            let what = format!("`basalt {}` ended with {}, {code} was expected", args.join(" "), output.status);
            return Err(Diagnostic::new(Code::Failed, what).detail(if self.json { errors } else { String::new() }).into());
        }
        // What is looked for in the output is looked for in its text, without colours and JSON's escapes.
        let plain = if with_json { json_text(&text) } else { text };
        Ok(strip_colors(&plain))
    }

    fn git(&self, args: &[&str]) -> Result<()> {
        self.printer.say(&self.printer.paint(Paint::Cyan, &format!("$ git {}", args.join(" "))));
        let output = Command::new("git")
            .arg("-C")
            .arg(self.folder.join("salt"))
            .args(["-c", "user.name=demo", "-c", "user.email=demo@localhost", "-c", "commit.gpgsign=false"])
            .args(args)
            .stdin(Stdio::null())
            .output()
            .map_err(|e| Diagnostic::io("run git", &e).hint("the demo needs git: install it"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(Diagnostic::new(Code::Failed, format!("git {} failed", args.join(" "))).detail(String::from_utf8_lossy(&output.stderr)).into())
    }

    fn write(&self, path: &Path, text: &str) -> Result<()> {
        let failed = |e: std::io::Error| Diagnostic::io(format_args!("write {}", path.display()), &e);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        std::fs::write(path, text).map_err(|e| failed(e).into())
    }

    fn expect(&self, holds: bool, what: &str) -> Result<()> {
        self.printer.json(&json!({"type": "demo_check", "check": what, "holds": holds}));
        if holds {
            self.printer.say(&self.printer.paint(Paint::Green, &format!("checked: {what}")));
            return Ok(());
        }
        Err(Diagnostic::new(Code::Failed, format!("it does not hold that {what}")).into())
    }
}

/// The summary and the diffs of JSON lines, as the text form would say them.
fn json_text(lines: &str) -> String {
    let mut text = String::new();
    for line in lines.lines().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok()) {
        let changes = line["changes"].as_array().map(Vec::as_slice).unwrap_or_default();
        match line["type"].as_str() {
            Some("host_planned") if !changes.is_empty() => {
                text.push_str(line["host"].as_str().unwrap_or_default());
                text.push('\n');
                for change in changes {
                    text.push_str(change["diff"].as_str().unwrap_or_default());
                }
            }
            Some("summary") => {
                let n = |name: &str| line[name].as_u64().unwrap_or(0);
                let any = n("add") + n("change") + n("remove") + n("run") + n("unknown") > 0;
                text.push_str(if any { "to add" } else { "No changes." });
            }
            _ => {}
        }
    }
    text
}

fn strip_colors(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, rest)| rest);
    }
    plain + rest
}

/// A new private folder. Short: ssh's control sockets have little room for paths.
fn temporary() -> Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt;
    let base = std::env::temp_dir();
    for attempt in 0..100u32 {
        let path = base.join(format!("basalt-demo-{}-{attempt}", std::process::id()));
        match std::fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return Ok(path),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(Diagnostic::io(format_args!("make {}", path.display()), &e).into()),
        }
    }
    Err(Diagnostic::new(Code::Failed, format!("no free name for a folder in {}", base.display())).into())
}
