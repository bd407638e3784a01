//! Commands that change what is wanted (a node, a role, a process) edit files of the state repository and commit them: here, and nowhere else.
//!
//! The commit is made on the tip of the branch, whatever the work tree looks like, by the user's own git: identity, signing and credentials are theirs.
//! The branch moves only if nobody moved it meanwhile; otherwise the edit is made anew on what is there now. A repository named by its URL is
//! pushed to the same way. In a work tree the edited files appear too; where they have uncommitted changes, nothing is done.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use super::repository::{Snapshot, fetched, is_url};
use crate::diagnostic::{Code, Diagnostic, Result};

/// How often a branch may be moved by others before it is given up.
const ATTEMPTS: usize = 8;

/// One commit to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edit {
    /// The first line is the subject.
    pub message: String,
    /// Paths in the repository, with the new text, or `None` to remove the file.
    pub files: BTreeMap<String, Option<String>>,
}

/// Commits what `edit` makes of the tip of the branch; it is asked again when the branch has moved. Returns the commit's id, or `None` where nothing is to
/// be changed.
pub fn commit_edit(place: &str, cache: &Path, edit: &mut dyn FnMut(&Snapshot) -> Result<Option<Edit>>) -> Result<Option<String>> {
    for _ in 0..ATTEMPTS {
        let Some(prepared) = Prepared::new(place, cache, edit)? else { return Ok(None) };
        if prepared.publish()? {
            return Ok(Some(prepared.commit));
        }
    }
    Err(Diagnostic::new(Code::Repository, format!("the branch of {place} was moved by others {ATTEMPTS} times in a row"))
        .hint("nothing was changed: try again")
        .into())
}

/// A commit that no branch has yet: it can be planned, and becomes what is wanted when it is published.
pub struct Prepared {
    pub commit: String,
    pub edit: Edit,
    base: String,
    repository: Repository,
    published: AtomicBool,
}

impl Prepared {
    pub fn new(place: &str, cache: &Path, edit: &mut dyn FnMut(&Snapshot) -> Result<Option<Edit>>) -> Result<Option<Prepared>> {
        let repository = Repository::open(place, cache)?;
        let Some(base) = repository.tip()? else {
            let fault = Diagnostic::new(Code::Repository, format!("{place} has no commit yet"));
            return Err(fault.hint("make one: `git add -A && git commit`").into());
        };
        let snapshot = Snapshot::open(&repository.folder.display().to_string(), Some(&base), cache)?;
        let Some(edit) = edit(&snapshot)? else { return Ok(None) };
        repository.refuse_uncommitted(&edit)?;
        let commit = repository.write(&base, &edit)?;
        Ok(Some(Prepared { commit, edit, base, repository, published: false.into() }))
    }

    /// What takes it back: every file as it was.
    pub fn reversed(&self, cache: &Path) -> Result<Edit> {
        let before = Snapshot::open(&self.repository.folder.display().to_string(), Some(&self.base), cache)?;
        let mut files = BTreeMap::new();
        for path in self.edit.files.keys() {
            let text = before.read(path)?.map(|file| String::from_utf8_lossy(&file.bytes).into_owned());
            files.insert(path.clone(), text);
        }
        let subject = self.edit.message.lines().next().unwrap_or_default();
        Ok(Edit { message: format!("Take back: {subject}"), files })
    }

    /// `false`: the branch was moved by somebody else, and nothing was done.
    pub fn publish(&self) -> Result<bool> {
        let done = self.repository.publish(&self.base, &self.commit)?;
        if done {
            self.published.store(true, Ordering::Relaxed);
            self.repository.check_out(&self.edit)?;
        }
        Ok(done)
    }

    pub fn is_published(&self) -> bool {
        self.published.load(Ordering::Relaxed)
    }
}

struct Repository {
    /// Where git works: the work tree, or a bare repository.
    folder: PathBuf,
    /// It has a work tree, which shows the branch.
    work_tree: bool,
    /// Where the commit is pushed to, for repositories known by their URL.
    url: Option<String>,
    branch: String,
}

impl Repository {
    fn open(place: &str, cache: &Path) -> Result<Repository> {
        if is_url(place) {
            let folder = fetched(place, cache)?.path().to_owned();
            let branch = branch_of(&folder, place)?;
            return Ok(Repository { folder, work_tree: false, url: Some(place.to_owned()), branch });
        }
        let folder = Snapshot::work_tree_of(Path::new(place))?;
        let bare = git(&folder, &["rev-parse", "--is-bare-repository"])?.trim() == "true";
        let branch = branch_of(&folder, place)?;
        Ok(Repository { folder, work_tree: !bare, url: None, branch })
    }

    fn tip(&self) -> Result<Option<String>> {
        let tip = run(&self.folder, &["rev-parse", "--verify", "--quiet", &format!("{}^{{commit}}", self.branch)], &[], None)?;
        Ok(tip.success.then(|| tip.out.trim().to_owned()))
    }

    /// What somebody is editing is not overwritten.
    fn refuse_uncommitted(&self, edit: &Edit) -> Result<()> {
        if !self.work_tree {
            return Ok(());
        }
        let mut args = vec!["status", "--porcelain", "--untracked-files=all", "--ignored", "--"];
        args.extend(edit.files.keys().map(String::as_str));
        let changed = git(&self.folder, &args)?;
        match changed.lines().next() {
            None => Ok(()),
            Some(line) => {
                let path = line.get(3..).unwrap_or(line);
                Err(Diagnostic::new(Code::Repository, format!("{path} has changes that are not committed"))
                    .detail("This command edits that file and commits it.")
                    .hint("commit or put aside (`git stash`) your changes first")
                    .into())
            }
        }
    }

    /// Makes the commit's objects; nothing points to them yet.
    fn write(&self, parent: &str, edit: &Edit) -> Result<String> {
        let tree =
            self.tree(parent, edit).map_err(|e| Diagnostic::new(Code::Repository, format!("cannot write to git: {}", e.message())))?;
        let signed = run(&self.folder, &["config", "--type=bool", "commit.gpgsign"], &[], None)?.out.trim() == "true";
        let mut args = vec!["commit-tree", &tree, "-p", parent];
        args.extend(signed.then_some("-S"));
        // Who has told git no name is basalt to it.
        let nobody = !run(&self.folder, &["var", "GIT_AUTHOR_IDENT"], &[], None)?.success;
        let name = OsStr::new("basalt");
        let email = OsStr::new("basalt@localhost");
        let named = [("GIT_AUTHOR_NAME", name), ("GIT_AUTHOR_EMAIL", email), ("GIT_COMMITTER_NAME", name), ("GIT_COMMITTER_EMAIL", email)];
        let commit = expect(run(&self.folder, &args, if nobody { &named } else { &[] }, Some(&edit.message))?)?;
        Ok(commit.trim().to_owned())
    }

    fn tree(&self, parent: &str, edit: &Edit) -> std::result::Result<String, git2::Error> {
        let repository = git2::Repository::open(&self.folder)?;
        let base = repository.find_commit(git2::Oid::from_str(parent)?)?.tree()?;
        let mut update = git2::build::TreeUpdateBuilder::new();
        for (path, text) in &edit.files {
            match text {
                Some(text) => update.upsert(path.as_str(), repository.blob(text.as_bytes())?, git2::FileMode::Blob),
                None => update.remove(path.as_str()),
            };
        }
        Ok(update.create_updated(&repository, &base)?.to_string())
    }

    /// Moves the branch from one commit to the next. `false`: somebody else moved it.
    fn publish(&self, from: &str, to: &str) -> Result<bool> {
        let Some(url) = &self.url else {
            let moved = run(&self.folder, &["update-ref", "-m", "basalt", &self.branch, to, from], &[], None)?;
            return match moved.success || self.tip()?.as_deref() != Some(from) {
                true => Ok(moved.success),
                false => Err(refused(&moved)),
            };
        };
        let pushed = run(&self.folder, &["push", "--quiet", "--", url, &format!("{to}:{}", self.branch)], &[], None)?;
        if pushed.success {
            return Ok(true);
        }
        let moved = ["fetch first", "non-fast-forward", "stale info", "cannot lock ref"].iter().any(|why| pushed.error.contains(why));
        if moved { Ok(false) } else { Err(refused(&pushed)) }
    }

    /// Shows the new commit's files in the work tree. The index keeps what else was staged.
    fn check_out(&self, edit: &Edit) -> Result<()> {
        if !self.work_tree {
            return Ok(());
        }
        let mut args = vec!["reset", "--quiet", "HEAD", "--"];
        args.extend(edit.files.keys().map(String::as_str));
        git(&self.folder, &args)?;
        for (path, text) in &edit.files {
            let file = self.folder.join(path);
            let done = match text {
                Some(text) => file.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(&file, text)),
                None => match std::fs::remove_file(&file) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
                    _ => Ok(()),
                },
            };
            done.map_err(|e| Diagnostic::io(format_args!("write {}", file.display()), &e))?;
        }
        Ok(())
    }
}

/// The branch that HEAD is on: `refs/heads/main`.
fn branch_of(folder: &Path, place: &str) -> Result<String> {
    let head = run(folder, &["symbolic-ref", "--quiet", "HEAD"], &[], None)?;
    if head.success {
        return Ok(head.out.trim().to_owned());
    }
    Err(Diagnostic::new(Code::Repository, format!("{place} is on no branch"))
        .detail("This command commits, and a commit without a branch would be lost.")
        .hint("`git switch BRANCH`")
        .into())
}

struct Output {
    success: bool,
    out: String,
    error: String,
}

fn git(folder: &Path, args: &[&str]) -> Result<String> {
    expect(run(folder, args, &[], None)?)
}

fn expect(output: Output) -> Result<String> {
    if output.success { Ok(output.out) } else { Err(refused(&output)) }
}

fn refused(output: &Output) -> Box<Diagnostic> {
    let summary = output.error.lines().find(|line| !line.is_empty()).unwrap_or("git said nothing").to_owned();
    Diagnostic::new(Code::Repository, format!("git refuses to commit: {summary}")).detail(output.error.trim()).into()
}

fn run(folder: &Path, args: &[&str], env: &[(&str, &OsStr)], input: Option<&str>) -> Result<Output> {
    let fault =
        |e: std::io::Error| Diagnostic::new(Code::Repository, format!("cannot run git: {e}")).hint("commits are made by git: install it");
    let mut command = Command::new("git");
    command.arg("-C").arg(folder).arg("--literal-pathspecs").args(args).envs(env.iter().copied());
    command.env("GIT_TERMINAL_PROMPT", "0").stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.spawn().map_err(fault)?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        // A git that does not read on says why with its status.
        let _ = stdin.write_all(text.as_bytes());
    }
    let done = child.wait_with_output().map_err(fault)?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Output { success: done.status.success(), out: text(done.stdout), error: text(done.stderr) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(folder: &Path, script: &str) -> String {
        let done = Command::new("sh").arg("-ec").arg(script).current_dir(folder).output().unwrap();
        assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    fn repository() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        sh(
            folder.path(),
            "git init -q -b main; git config user.name me; git config user.email me@localhost
             mkdir nodes; echo one > nodes/a.yaml; echo x > other; git add -A; git commit -qm first",
        );
        folder
    }

    fn edit(files: &[(&str, Option<&str>)]) -> Edit {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), text.map(str::to_owned))).collect();
        Edit { message: "Add a node".to_owned(), files }
    }

    fn commit(place: &Path, edit: &Edit) -> Result<Option<String>> {
        commit_edit(place.to_str().unwrap(), &place.join("unused"), &mut |_| Ok(Some(edit.clone())))
    }

    #[test]
    fn an_edit_is_one_commit_and_leaves_alone_what_somebody_works_on() {
        let folder = repository();
        let place = folder.path();
        sh(place, "echo y > other; echo staged > new; git add new");
        let made = commit(place, &edit(&[("nodes/a.yaml", None), ("nodes/b.yaml", Some("two\n"))])).unwrap().unwrap();
        assert_eq!(sh(place, "git rev-parse HEAD").trim(), made);
        assert_eq!(sh(place, "git log -1 --format='%an %s' --name-status"), "me Add a node\n\nD\tnodes/a.yaml\nA\tnodes/b.yaml\n");
        assert_eq!(sh(place, "git status --porcelain"), "A  new\n M other\n");
        assert_eq!(sh(place, "cat nodes/b.yaml; ls nodes"), "two\nb.yaml\n");
    }

    #[test]
    fn files_with_uncommitted_changes_are_not_overwritten() {
        let folder = repository();
        let place = folder.path();
        sh(place, "echo mine > nodes/a.yaml");
        let fault = commit(place, &edit(&[("nodes/a.yaml", Some("theirs\n"))])).unwrap_err();
        assert_eq!(fault.summary, "nodes/a.yaml has changes that are not committed");
        assert_eq!(sh(place, "cat nodes/a.yaml; git rev-list --count HEAD"), "mine\n1\n");
        let fault = commit(place, &edit(&[("nodes/a.yaml", None)])).unwrap_err();
        assert!(fault.hint.is_some());
    }

    #[test]
    fn who_comes_second_edits_what_the_first_left() {
        let folder = repository();
        let place = folder.path();
        let mut asked = 0;
        commit_edit(place.to_str().unwrap(), place, &mut |snapshot| {
            asked += 1;
            if asked == 1 {
                sh(place, "echo theirs > nodes/b.yaml; git add nodes; git commit -qm theirs");
            }
            let there = snapshot.contains("nodes/b.yaml");
            Ok(Some(edit(&[("nodes/c.yaml", Some(if there { "after\n" } else { "before\n" }))])))
        })
        .unwrap();
        assert_eq!((asked, sh(place, "git log --format=%s; cat nodes/c.yaml")), (2, "Add a node\ntheirs\nfirst\nafter\n".to_owned()));
    }

    #[test]
    fn a_repository_of_a_url_is_pushed_to() {
        let folder = repository();
        let cache = tempfile::tempdir().unwrap();
        let bare = cache.path().join("state.git");
        sh(folder.path(), &format!("git clone -q --bare . {}", bare.display()));
        let url = format!("file://{}", bare.display());
        let mut asked = 0;
        let made = commit_edit(&url, cache.path(), &mut |_| {
            asked += 1;
            if asked == 1 {
                sh(folder.path(), &format!("echo z > z; git add z; git commit -qm theirs; git push -q {} main", bare.display()));
            }
            Ok(Some(edit(&[("nodes/b.yaml", Some("two\n"))])))
        });
        assert_eq!(sh(&bare, "git rev-parse main").trim(), made.unwrap().unwrap());
        assert_eq!((asked, sh(&bare, "git log --format=%s main")), (2, "Add a node\ntheirs\nfirst\n".to_owned()));
    }

    #[test]
    fn a_branch_is_needed_and_nothing_to_edit_is_no_commit() {
        let folder = repository();
        let place = folder.path();
        assert_eq!(commit_edit(place.to_str().unwrap(), place, &mut |_| Ok(None)).unwrap(), None);
        sh(place, "git checkout -q --detach");
        assert!(commit(place, &edit(&[])).unwrap_err().summary.ends_with("is on no branch"));
    }
}
