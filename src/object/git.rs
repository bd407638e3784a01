//! A work tree of git: which commit it stands on, on which branch, and where its remote is.
//!
//! Read from the files of `.git` alone. Attributes: `head` (the commit), `branch` (none: detached), `remote` (the address of `origin`). What is wanted besides: `rev` (a branch, tag or `HEAD` of the remote, which `resolve` asks for), and how to get there:
//! `@user @identity @force @depth @tags @submodules`.
//!
//! The directory is a file object of its own: when a clone is taken back, it goes with everything in it.

use std::time::Duration;

use super::{Object, Progress, Sign};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::plan::{Key, Kind};
use crate::system::{Command, Output, System};
use crate::value::{Attrs, Value, those};

/// So long a remote may take to say which commits it has.
const PATIENCE: Duration = Duration::from_secs(60);
const REMOTE: &str = "origin";
/// What tells where a work tree is; the rest of the attributes is how it is to get there.
const STATE: [&str; 3] = ["head", "branch", "remote"];

pub struct Git {
    path: String,
}

/// What a remote has under a name.
struct Found {
    commit: String,
    /// The branch to be on in a new work tree.
    branch: Option<String>,
}

fn text<'a>(attrs: &'a Attrs, name: &str) -> Option<&'a str> {
    attrs.get(name).and_then(Value::as_str).filter(|t| !t.is_empty())
}

fn flag(attrs: &Attrs, name: &str) -> bool {
    attrs.get(name).is_some_and(Value::truthy)
}

fn commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

impl Git {
    pub fn new(path: &str) -> Git {
        Git { path: path.to_owned() }
    }

    fn read_text(&self, sys: &System, name: &str) -> Result<Option<String>> {
        Ok(sys.read(&format!("{}/.git/{name}", self.path))?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The address of the remote, as `.git/config` has it.
    fn address(&self, sys: &System) -> Result<Option<String>> {
        let config = self.read_text(sys, "config")?.unwrap_or_default();
        let header = format!("[remote \"{REMOTE}\"]");
        let within = config.lines().map(str::trim).skip_while(|line| *line != header).skip(1).take_while(|line| !line.starts_with('['));
        Ok(within
            .filter_map(|line| line.split_once('='))
            .find(|(name, _)| name.trim() == "url")
            .map(|(_, value)| value.trim().trim_matches('"').to_owned()))
    }

    fn look(&self, sys: &System) -> Result<Attrs> {
        let mut attrs = Attrs::new();
        let Some(head) = self.read_text(sys, "HEAD")? else { return Ok(attrs) };
        let mut commit = head.trim().to_owned();
        if let Some(reference) = head.trim().strip_prefix("ref: ") {
            if let Some(branch) = reference.strip_prefix("refs/heads/") {
                attrs.insert("branch".into(), branch.into());
            }
            commit = match self.read_text(sys, reference)? {
                Some(commit) => commit.trim().to_owned(),
                None => {
                    let packed = self.read_text(sys, "packed-refs")?.unwrap_or_default();
                    let line = packed.lines().filter_map(|line| line.split_once(' ')).find(|(_, name)| *name == reference);
                    line.map(|(commit, _)| commit.to_owned()).unwrap_or_default()
                }
            };
        }
        attrs.insert("head".into(), commit.into());
        if let Some(address) = self.address(sys)? {
            attrs.insert("remote".into(), address.into());
        }
        Ok(attrs)
    }

    fn command(&self, to: &Attrs, argv: &[&str]) -> Command {
        let mut env = vec![("GIT_TERMINAL_PROMPT".to_owned(), "0".to_owned())];
        let mut ssh = "ssh -o BatchMode=yes -o StrictHostKeyChecking=accept-new".to_owned();
        if let Some(key) = text(to, "@identity") {
            ssh.push_str(&format!(" -o IdentitiesOnly=yes -i '{}'", key.replace('\'', "'\\''")));
        }
        env.push(("GIT_SSH_COMMAND".to_owned(), ssh));
        // The tree may be another user's than who looks at it.
        let words = ["git", "-c", "safe.directory=*"].iter().chain(argv).map(|word| (*word).to_owned());
        Command { env, user: text(to, "@user").map(str::to_owned), ..Command::new(words) }
    }

    fn ask(&self, sys: &System, to: &Attrs, argv: &[&str]) -> Result<Output> {
        sys.run(&self.command(to, &[&["-C", self.path.as_str()], argv].concat()))
    }

    fn run(&self, sys: &System, to: &Attrs, progress: &mut Progress, argv: &[&str]) -> Result<()> {
        let shown = format!("git {}", argv.join(" "));
        sys.mutating(&shown)?;
        progress.say(&shown);
        let output = self.ask(sys, to, argv)?;
        if output.success() { Ok(()) } else { Err(failed(&shown, &output)) }
    }

    /// The commit that a remote has under this name now.
    fn find(&self, sys: &System, to: &Attrs) -> Result<Found> {
        let (address, rev) = (text(to, "remote").unwrap_or_default(), text(to, "rev").unwrap_or("HEAD"));
        let command = Command { timeout: Some(PATIENCE), ..self.command(to, &["ls-remote", "--symref", "--", address]) };
        let output = sys.run(&command)?;
        if !output.success() {
            return Err(failed(&format!("git ls-remote {address}"), &output));
        }
        let said = output.text();
        let lines: Vec<(&str, &str)> = said.lines().filter_map(|line| line.split_once('\t')).collect();
        let of = |name: &str| lines.iter().find(|(what, n)| *n == name && commit(what)).map(|(commit, _)| (*commit).to_owned());
        let default =
            lines.iter().find_map(|(what, name)| what.strip_prefix("ref: refs/heads/").filter(|_| *name == "HEAD")).map(str::to_owned);
        if commit(rev) {
            return Ok(Found { commit: rev.to_owned(), branch: default });
        }
        let branch = of(&format!("refs/heads/{rev}")).map(|commit| Found { commit, branch: Some(rev.to_owned()) });
        let tag = || of(&format!("refs/tags/{rev}^{{}}")).or_else(|| of(&format!("refs/tags/{rev}")));
        let head = || of("HEAD").filter(|_| rev == "HEAD");
        let found = branch.or_else(|| head().or_else(tag).map(|commit| Found { commit, branch: default }));
        found.ok_or_else(|| {
            Diagnostic::new(Code::Failed, format!("No revision matching '{rev}' exists in the remote repository"))
                .hint("a branch, a tag or a whole commit id of the remote is meant")
                .into()
        })
    }

    /// Whether what a look at the remote needs is on the host already.
    fn can_ask(&self, sys: &System, to: &Attrs) -> Result<bool> {
        let tool =
            ["/usr/bin/git", "/usr/local/bin/git", "/bin/git"].iter().any(|path| sys.stat(&sys.resolve(path)).is_ok_and(|s| s.is_some()));
        let user = text(to, "@user").map_or(Ok(true), |user| sys.uid(user).map(|uid| uid.is_some()))?;
        let key = text(to, "@identity").map_or(Ok(true), |key| sys.stat(key).map(|stat| stat.is_some()))?;
        Ok(tool && user && key)
    }

    /// The commit and the branch that are wanted; those that are there stay where nothing is said of them.
    fn settled(&self, sys: &System, from: &Attrs, to: &Attrs) -> Result<Attrs> {
        let mut to = to.clone();
        if !to.contains_key("rev") {
            return Ok(to);
        }
        let found = self.find(sys, &to)?;
        to.remove("rev");
        to.insert("head".into(), found.commit.into());
        if from.is_empty() && !to.contains_key("branch") {
            to.extend(found.branch.map(|branch| ("branch".to_owned(), branch.into())));
        }
        Ok(to)
    }

    fn dirty(&self, sys: &System, to: &Attrs) -> bool {
        self.ask(sys, to, &["status", "--porcelain", "--untracked-files=no"])
            .is_ok_and(|output| output.success() && !output.text().is_empty())
    }

    fn go(&self, sys: &System, from: &Attrs, to: &Attrs, progress: &mut Progress) -> Result<()> {
        // What was read before a run says all of its state and nothing of how to get there.
        let back = !to.keys().any(|name| name.starts_with('@'));
        if self.read_text(sys, "HEAD")?.is_none() {
            self.run(sys, to, progress, &["init", "-q"])?;
        }
        let there = self.address(sys)?;
        match (there, text(to, "remote")) {
            (Some(now), Some(wanted)) if now != wanted => self.run(sys, to, progress, &["remote", "set-url", REMOTE, wanted])?,
            (None, Some(wanted)) => self.run(sys, to, progress, &["remote", "add", REMOTE, wanted])?,
            (Some(_), None) if back => self.run(sys, to, progress, &["remote", "remove", REMOTE])?,
            _ => {}
        }
        let to = &self.settled(sys, from, to)?;
        let Some(head) = text(to, "head") else { return Ok(()) };
        let known = format!("{head}^{{commit}}");
        if !back && !self.ask(sys, to, &["cat-file", "-e", &known])?.success() {
            let depth = to.get("@depth").map(Value::to_text);
            let mut argv = vec!["fetch", "-q"];
            argv.extend(flag(to, "@force").then_some("--force"));
            argv.extend(flag(to, "@tags").then_some("--tags"));
            if let Some(depth) = &depth {
                argv.extend(["--depth", depth.as_str()]);
            }
            argv.push(REMOTE);
            self.run(sys, to, progress, &argv)?;
            if !self.ask(sys, to, &["cat-file", "-e", &known])?.success() {
                // A commit that no branch begins with has to be asked for.
                self.run(sys, to, progress, &[argv.as_slice(), &[head]].concat())?;
            }
        }
        let now = self.look(sys)?;
        let branch = match to.get("branch") {
            Some(branch) => branch.as_str(),
            None if back => None,
            None => text(&now, "branch"),
        };
        let force = flag(to, "@force") || back;
        if let Some(before) = text(&now, "head").filter(|before| *before != head && !force) {
            let forward = self.ask(sys, to, &["merge-base", "--is-ancestor", before, head])?.success();
            if !forward {
                let summary = format!("{} would go from {before} to {head}, and that is no fast-forward", self.path);
                return Err(Diagnostic::new(Code::Failed, summary).hint("force_reset: True discards what is only here").into());
            }
        }
        let mut argv = vec!["checkout", "-q"];
        argv.extend(force.then_some("-f"));
        match branch {
            Some(branch) => argv.extend(["-B", branch, head]),
            None => argv.extend(["--detach", head]),
        }
        self.run(sys, to, progress, &argv)?;
        if flag(to, "@submodules") {
            self.run(sys, to, progress, &["submodule", "update", "-q", "--init", "--recursive"])?;
        }
        Ok(())
    }
}

fn failed(shown: &str, output: &Output) -> crate::diagnostic::Error {
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let first = said.lines().find(|line| line.starts_with("fatal") || line.starts_with("error")).or(said.lines().next());
    let why = if output.timed_out { "it took too long".to_owned() } else { first.unwrap_or("no reason given").to_owned() };
    Diagnostic::new(Code::Failed, format!("{shown} failed: {why}")).detail(said).into()
}

impl Object for Git {
    fn key(&self) -> Key {
        Key::new(Kind::Git, &self.path)
    }

    fn read(&self, sys: &System) -> Result<Attrs> {
        self.look(sys)
    }

    fn signs(&self, sys: &System) -> Result<Vec<Sign>> {
        let head = self.read_text(sys, "HEAD")?.unwrap_or_default();
        let branch = head.trim().strip_prefix("ref: ");
        Ok(Sign::paths(["HEAD", "config", "packed-refs"].into_iter().chain(branch).map(|name| format!("{}/.git/{name}", self.path))))
    }

    fn resolve(&self, sys: &System, from: &Attrs, to: &Attrs, _touched: &dyn Fn(&str) -> bool) -> Result<Attrs> {
        if to.is_empty() || !self.can_ask(sys, to)? {
            return Ok(to.clone());
        }
        let settled = self.settled(sys, from, to)?;
        let stays = STATE.iter().all(|name| settled.get(*name).is_none_or(|wanted| from.get(*name) == Some(wanted)));
        // How to get somewhere is nothing to do by itself.
        Ok(if stays { from.clone() } else { settled })
    }

    fn set(&self, sys: &System, from: &Attrs, to: &Attrs, progress: &mut Progress) -> Result<Attrs> {
        if !to.is_empty() {
            self.go(sys, from, to, progress)?;
        }
        self.read(sys)
    }

    fn one_way(&self, sys: &System, from: &Attrs, to: &Attrs) -> Option<String> {
        let loses = !from.is_empty() && flag(to, "@force") && self.dirty(sys, to);
        loses.then(|| format!("changes in {} that are not committed are lost", self.path))
    }

    fn describe(&self, _sys: &System, from: &Attrs, to: &Attrs) -> String {
        let wanted = those(to, |name, _| !name.starts_with('@'));
        super::describe_attributes(from, &wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::Exec;
    use std::path::{Path, PathBuf};

    /// git itself, the directory it works in below a root.
    struct Below(PathBuf);
    impl Exec for Below {
        fn run(&self, command: &Command, _: &mut dyn FnMut(&[u8])) -> Result<Output> {
            let argv: Vec<String> = command
                .argv
                .iter()
                .enumerate()
                .map(|(i, a)| if i > 0 && command.argv[i - 1] == "-C" { format!("{}{a}", self.0.display()) } else { a.clone() })
                .collect();
            let output = std::process::Command::new(&argv[0]).args(&argv[1..]).env("HOME", &self.0).output().unwrap();
            Ok(Output { status: output.status.code().unwrap_or(1), stdout: output.stdout, stderr: output.stderr, ..Output::default() })
        }
    }

    fn sh(dir: &Path, line: &str) -> String {
        let output = std::process::Command::new("sh").args(["-ec", line]).current_dir(dir).env("HOME", dir).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// A root with git, a remote of two commits (the second on `main` only), and `/srv/app`.
    fn root() -> Option<(tempfile::TempDir, System, [String; 2])> {
        if !Path::new("/usr/bin/git").exists() {
            eprintln!("skipped: needs git");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let commit = "git -c user.name=x -c user.email=x@x commit -q --allow-empty -am";
        sh(
            dir.path(),
            &format!(
                "mkdir -p usr/bin srv/app; touch usr/bin/git; git init -q -b main remote; cd remote; echo 1 >f; git add f; {commit} one; git branch old; git tag v1; echo 2 >f; {commit} two"
            ),
        );
        let commits = ["v1", "main"].map(|rev| sh(&dir.path().join("remote"), &format!("git rev-parse {rev}")));
        let sys = System::at(dir.path(), Box::new(Below(dir.path().to_owned())));
        Some((dir, sys, commits))
    }

    fn wanted(sys: &System, rev: &str) -> Attrs {
        let remote = sys.root().join("remote").display().to_string();
        Attrs::from([("remote", remote.as_str()), ("rev", rev), ("@user", "")].map(|(n, v)| (n.to_owned(), Value::str(v))))
    }

    fn set(sys: &System, git: &Git, to: &Attrs) -> Result<Attrs> {
        let from = git.read(sys).unwrap();
        git.set(sys, &from, to, &mut Progress::new(&mut |_| {}))
    }

    #[test]
    fn a_work_tree_goes_and_comes_back() {
        let Some((dir, sys, [one, two])) = root() else { return };
        let git = Git::new("/srv/app");
        let file = || std::fs::read_to_string(dir.path().join("srv/app/f")).ok();
        let resolved = |rev: &str| git.resolve(&sys, &git.read(&sys).unwrap(), &wanted(&sys, rev), &|_| false).unwrap();
        assert_eq!((&resolved("old")["head"], &resolved("old")["branch"]), (&Value::str(&one), &Value::str("old")));
        assert_eq!((&resolved("v1")["head"], &resolved("v1")["branch"]), (&Value::str(&one), &Value::str("main")));
        set(&sys, &git, &wanted(&sys, "v1")).unwrap();
        let before = git.read(&sys).unwrap();
        assert_eq!((file().as_deref(), &before["head"]), (Some("1\n"), &Value::str(&one)));
        assert_eq!(resolved("v1"), before);
        let to = resolved("HEAD");
        let reached = set(&sys, &git, &to).unwrap();
        assert_eq!((&reached["head"], file().as_deref()), (&Value::str(&two), Some("2\n")));
        assert_eq!(git.resolve(&sys, &reached, &wanted(&sys, "HEAD"), &|_| false).unwrap(), reached);
        set(&sys, &git, &before).unwrap();
        assert_eq!((git.read(&sys).unwrap(), file().as_deref()), (before.clone(), Some("1\n")));
        assert!(
            git.resolve(&sys, &before, &wanted(&sys, "none"), &|_| false).is_err_and(|e| e.summary.contains("No revision matching 'none'"))
        );
    }

    #[test]
    fn what_is_only_here_is_kept_unless_forced() {
        let Some((dir, sys, [_, two])) = root() else { return };
        let git = Git::new("/srv/app");
        set(&sys, &git, &wanted(&sys, "old")).unwrap();
        let app = dir.path().join("srv/app");
        sh(&app, "echo mine >f; git -c user.name=x -c user.email=x@x commit -qam mine; echo more >>f");
        let error = set(&sys, &git, &wanted(&sys, "main")).unwrap_err();
        assert!(error.summary.contains("no fast-forward"), "{}", error.summary);
        let mut forced = wanted(&sys, "main");
        forced.insert("@force".into(), Value::Bool(true));
        let from = git.read(&sys).unwrap();
        assert!(git.one_way(&sys, &from, &forced).is_some());
        assert_eq!(set(&sys, &git, &forced).unwrap()["head"], Value::str(&two));
        // A key that is not there yet: nobody can be asked, and the plan says what is known.
        forced.insert("@identity".into(), Value::str("/root/key"));
        assert!(git.resolve(&sys, &from, &forced, &|_| false).unwrap().contains_key("rev"));
    }
}
