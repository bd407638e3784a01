//! State repositories: the work tree, any commit, bare repositories and URLs, all seen as one `Snapshot` of files.
//!
//! libgit2 reads; whatever talks to a network is done by the user's own `git`, because libgit2 knows neither ssh_config nor
//! credential helpers.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use git2::{ObjectType, Oid, TreeWalkMode, TreeWalkResult};
use sha2::{Digest, Sha256};

use crate::diagnostic::{Code, Diagnostic, Result};
use crate::lang::root::{Directory, Tree};

/// The files of a state repository at one moment, with the names git gives that moment.
pub struct Snapshot {
    /// Where it is from, for people: a path or URL.
    pub name: String,
    /// The id of the tree: of the commit's, or of the work tree as it is.
    pub tree: String,
    /// The commit; empty in a repository without one.
    pub commit: String,
    /// The first line of the commit's message.
    pub subject: String,
    /// The work tree differs from the commit.
    pub dirty: bool,
    /// The folder of a work tree; `None` where files come from a commit.
    pub folder: Option<PathBuf>,
    /// Folders anywhere on this machine instead of a repository: a Salt master's roots, which hold all files.
    pub roots: Option<Vec<PathBuf>>,
    files: BTreeMap<String, Blob>,
    git: Option<Mutex<git2::Repository>>,
}

#[derive(Clone, Copy)]
struct Blob {
    mode: u32,
    /// `None`: read it from the work tree.
    oid: Option<Oid>,
}

/// A file of a snapshot.
pub struct File {
    pub bytes: Arc<[u8]>,
    /// 0o644, 0o755, or 0o120000 for a symbolic link, whose bytes are its target.
    pub mode: u32,
}

pub const LINK: u32 = 0o120000;

impl Snapshot {
    /// Opens the repository at `place` (a folder in it, a bare repository, or a URL) at `commit`, or as its work tree is.
    /// `cache` is where repositories of URLs are kept.
    pub fn open(place: &str, commit: Option<&str>, cache: &Path) -> Result<Snapshot> {
        let repository = match is_url(place) {
            true => match commit.and_then(|commit| with_commit(place, commit, cache)) {
                Some(repository) => repository,
                None => fetched(place, cache)?,
            },
            false => git2::Repository::discover(place).map_err(|e| not_a_repository(place, &e))?,
        };
        match commit {
            Some(reference) => Snapshot::of_commit(repository, place, reference),
            None if repository.is_bare() => Snapshot::of_commit(repository, place, "HEAD"),
            None => Snapshot::of_work_tree(repository, place),
        }
    }

    /// The folders that a Salt master serves, as they are now, wherever they lie. Their tree is known by a hash of all they hold.
    pub fn of_roots(name: &str, roots: &[PathBuf]) -> Result<Snapshot> {
        let mut real = Vec::new();
        for root in roots {
            match root.canonicalize() {
                Ok(root) => real.push(root),
                // Salt serves what there is.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(Diagnostic::io(format_args!("open the root {}", root.display()), &e).into()),
            }
        }
        let mut sha = Sha256::new();
        for root in &real {
            let fault = |e: std::io::Error| Diagnostic::io(format_args!("read {}", root.display()), &e);
            let directory = Directory::new(root, root.display().to_string()).and_then(|d| d.within(&real)).map_err(fault)?;
            sha.update(root.as_os_str().as_encoded_bytes());
            for path in directory.list().map_err(fault)? {
                let Some(file) = directory.read(&path).map_err(fault)? else { continue };
                sha.update(format!("\0{path}\0{:o}\0{}\0", file.mode, file.bytes.len()));
                sha.update(&file.bytes);
            }
            sha.update(b"\0\0");
        }
        let tree = crate::plan::hex(&sha.finalize());
        Ok(Snapshot {
            name: name.to_owned(),
            tree: tree.get(..40).unwrap_or(&tree).to_owned(),
            commit: String::new(),
            subject: String::new(),
            dirty: false,
            folder: None,
            roots: Some(real),
            files: BTreeMap::new(),
            git: None,
        })
    }

    /// The work tree's folder of the repository that a place lies in.
    pub fn work_tree_of(place: &Path) -> Result<PathBuf> {
        let shown = place.display().to_string();
        let repository = git2::Repository::discover(place).map_err(|e| not_a_repository(&shown, &e))?;
        let folder = repository.workdir().unwrap_or_else(|| repository.path()).to_owned();
        folder.canonicalize().map_err(|e| Diagnostic::io(format_args!("open {}", folder.display()), &e).into())
    }

    /// The best common ancestor of two commits, as `git diff A...B` begins with it.
    pub fn merge_base(place: &str, a: &str, b: &str, cache: &Path) -> Result<String> {
        let repository = if is_url(place) {
            fetched(place, cache)?
        } else {
            git2::Repository::discover(place).map_err(|e| not_a_repository(place, &e))?
        };
        let commit = |reference: &str| -> Result<Oid> { Ok(resolved(&repository, place, reference)?.id()) };
        let base = repository.merge_base(commit(a)?, commit(b)?);
        Ok(base
            .map_err(|_| {
                Diagnostic::new(Code::Repository, format!("{a} and {b} have no commit in common"))
                    .hint(format!("`{a}..{b}` compares the two themselves"))
            })?
            .to_string())
    }

    fn of_commit(repository: git2::Repository, place: &str, reference: &str) -> Result<Snapshot> {
        let fault = |e: git2::Error| no_commit(place, reference, &e);
        let commit = resolved(&repository, place, reference)?;
        let tree = commit.tree().map_err(fault)?;
        let mut files = BTreeMap::new();
        tree.walk(TreeWalkMode::PreOrder, |folder, entry| {
            if let (Some(ObjectType::Blob), Ok(name)) = (entry.kind(), entry.name()) {
                let mode = if entry.filemode() & 0o170000 == LINK as i32 { LINK } else { entry.filemode() as u32 & 0o777 };
                files.insert(format!("{folder}{name}"), Blob { mode, oid: Some(entry.id()) });
            }
            TreeWalkResult::Ok
        })
        .map_err(fault)?;
        let (id, subject) = (commit.id().to_string(), subject(&commit));
        let tree_id = tree.id().to_string();
        drop((tree, commit));
        Ok(Snapshot {
            name: place.to_owned(),
            tree: tree_id,
            commit: id,
            subject,
            dirty: false,
            folder: None,
            roots: None,
            files,
            git: Some(Mutex::new(repository)),
        })
    }

    fn of_work_tree(repository: git2::Repository, place: &str) -> Result<Snapshot> {
        let fault = |e: git2::Error| Diagnostic::new(Code::Repository, format!("cannot read the work tree of {place}: {}", e.message()));
        let folder = repository.workdir().unwrap_or_else(|| repository.path()).to_owned();
        let head = repository.head().ok().and_then(|h| h.peel_to_commit().ok());
        let mut options = git2::StatusOptions::new();
        options.include_untracked(true).recurse_untracked_dirs(true).include_ignored(false).exclude_submodules(true);
        let dirty = {
            let statuses = repository.statuses(Some(&mut options)).map_err(fault)?;
            !statuses.is_empty()
        };
        // What git lists plus what it does not ignore: the same files that `git add -A` would take.
        let mut index = repository.index().map_err(fault)?;
        index.read(false).map_err(fault)?;
        let tree = match (&head, dirty) {
            (Some(commit), false) => commit.tree_id(),
            _ => {
                // The tree's id is wanted, not its objects: they go to memory, not into the user's repository.
                let memory = repository.odb().map_err(fault)?;
                memory.add_new_mempack_backend(1000).map_err(fault)?;
                index.add_all(["*"], git2::IndexAddOption::DEFAULT, None).map_err(fault)?;
                index.update_all(["*"], None).map_err(fault)?;
                index.write_tree_to(&repository).map_err(fault)?
            }
        };
        let mut files = BTreeMap::new();
        for entry in index.iter() {
            if let Ok(path) = String::from_utf8(entry.path) {
                let mode = if entry.mode & 0o170000 == LINK { LINK } else { entry.mode & 0o777 };
                files.insert(path, Blob { mode, oid: None });
            }
        }
        let (commit, subject) = head.as_ref().map(|c| (c.id().to_string(), subject(c))).unwrap_or_default();
        drop(head);
        Ok(Snapshot {
            name: folder.display().to_string().trim_end_matches('/').to_owned(),
            tree: tree.to_string(),
            commit,
            subject,
            dirty,
            folder: Some(folder),
            roots: None,
            files,
            git: Some(Mutex::new(repository)),
        })
    }

    /// What is the same in all clones of this repository and in no other one: its first commit. `None` where that cannot be known.
    pub fn origin(&self) -> Option<String> {
        let repository = self.git.as_ref()?.lock().ok().filter(|repository| !repository.is_shallow())?;
        let mut commit = repository.find_commit(Oid::from_str(&self.commit).ok()?).ok()?;
        while commit.parent_count() > 0 {
            commit = commit.parent(0).ok()?;
        }
        Some(commit.id().to_string())
    }

    /// All paths, in order.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    pub fn contains(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    /// Whether some file lies below this folder.
    pub fn has_folder(&self, folder: &str) -> bool {
        let prefix = format!("{folder}/");
        self.files.range(prefix.clone()..).next().is_some_and(|(path, _)| path.starts_with(&prefix))
    }

    /// A file's bytes and mode; `None` where there is none. A link is not followed.
    pub fn read(&self, path: &str) -> Result<Option<File>> {
        let Some(blob) = self.files.get(path) else { return Ok(None) };
        let bytes: Vec<u8> = match (blob.oid, &self.folder) {
            (Some(oid), _) => {
                let Some(git) = &self.git else { return Ok(None) };
                let git = git.lock().unwrap_or_else(|e| e.into_inner());
                let found = git.find_blob(oid).map(|b| b.content().to_vec());
                found.map_err(|e| Diagnostic::new(Code::Repository, format!("cannot read {path} from git: {}", e.message())))?
            }
            (None, Some(folder)) => {
                let file = folder.join(path);
                let read =
                    if blob.mode == LINK { fs::read_link(&file).map(|t| t.into_os_string().into_encoded_bytes()) } else { fs::read(&file) };
                match read {
                    Ok(bytes) => bytes,
                    // Deleted since, or deleted and not yet told to git.
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                    Err(e) => return Err(Diagnostic::io(format_args!("read {}", file.display()), &e).into()),
                }
            }
            (None, None) => return Ok(None),
        };
        Ok(Some(File { bytes: bytes.into(), mode: blob.mode }))
    }

    /// The first twelve digits of commit or tree, and whether the work tree differs: as plans print it.
    pub fn short(&self) -> String {
        if self.roots.is_some() {
            return format!("tree {}, not in git", self.tree.get(..12).unwrap_or(&self.tree));
        }
        let commit = self.commit.get(..12).unwrap_or("no commit");
        if self.dirty { format!("{commit} (dirty, tree {})", self.tree.get(..12).unwrap_or(&self.tree)) } else { commit.to_owned() }
    }
}

/// The commit that a reference means; of a repository of a URL also by the names that its branches have there.
pub(super) fn resolved<'a>(repository: &'a git2::Repository, place: &str, reference: &str) -> Result<git2::Commit<'a>> {
    let fault = |e: git2::Error| no_commit(place, reference, &e);
    let object = repository
        .revparse_single(reference)
        .or_else(|e| if is_url(place) { repository.revparse_single(&format!("origin/{reference}")) } else { Err(e) })
        .map_err(fault)?;
    Ok(object.peel_to_commit().map_err(fault)?)
}

pub(super) fn subject(commit: &git2::Commit<'_>) -> String {
    commit.summary().ok().flatten().unwrap_or_default().to_owned()
}

/// `ssh://…`, `https://…`, `file://…` and scp's `user@host:path`. A path that exists is a path.
pub fn is_url(place: &str) -> bool {
    if Path::new(place).exists() {
        return false;
    }
    place.contains("://") || place.split_once(':').is_some_and(|(host, path)| !host.contains('/') && !path.is_empty())
}

/// Where the repository of a URL is kept.
pub(super) fn cached(url: &str, cache: &Path) -> PathBuf {
    let name = crate::plan::Hash::of(url.as_bytes()).0;
    cache.join("git").join(name.get(..24).unwrap_or(&name))
}

/// The repository of a URL as it is here, where it has the commit of this id: a commit never changes, so nobody has to be asked.
fn with_commit(url: &str, id: &str, cache: &Path) -> Option<git2::Repository> {
    let oid = Oid::from_str(id).ok().filter(|_| id.len() == 40)?;
    let repository = git2::Repository::open_bare(cached(url, cache)).ok()?;
    let there = repository.find_commit(oid).is_ok();
    there.then_some(repository)
}

/// The repository of a URL, fetched into the cache by the user's own git.
pub(super) fn fetched(url: &str, cache: &Path) -> Result<git2::Repository> {
    if url.starts_with('-') || url.starts_with("ext::") {
        return Err(Diagnostic::new(Code::Repository, format!("{url:?} is not a URL of a repository")).into());
    }
    let folder = cached(url, cache);
    fs::create_dir_all(cache.join("git")).map_err(|e| Diagnostic::io(format_args!("make {}", cache.display()), &e))?;
    // One at a time: half a clone of somebody else's is no repository yet.
    let lock = folder.with_extension("lock");
    let held = fs::File::create(&lock).map_err(|e| Diagnostic::io(format_args!("lock {}", lock.display()), &e))?;
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive)
        .map_err(|e| Diagnostic::io(format_args!("lock {}", lock.display()), &e.into()))?;
    let exists = folder.join("HEAD").is_file();
    let mut git = std::process::Command::new("git");
    if exists {
        git.arg("-C").arg(&folder).args(["fetch", "--quiet", "--prune", "--tags", "--force", "origin"]);
    } else {
        git.args(["clone", "--quiet", "--mirror", "--", url]).arg(&folder);
    }
    given_up_in_time(&mut git);
    let output = git.env("GIT_TERMINAL_PROMPT", "0").stdin(Stdio::null()).output().map_err(|e| {
        Diagnostic::new(Code::Repository, format!("cannot run git: {e}")).hint("repositories of URLs are fetched by git: install it")
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Diagnostic::new(Code::Repository, format!("git cannot fetch {url}"))
            .detail(said)
            .hint("check the URL and that `git ls-remote` works with it")
            .into());
    }
    git2::Repository::open_bare(&folder).map_err(|e| not_a_repository(url, &e).into())
}

/// A server that says nothing any more ends a fetch after a minute: git and ssh by themselves wait for ever. What the user has set counts.
fn given_up_in_time(git: &mut std::process::Command) {
    let set = |name: &str| std::env::var_os(name).is_some();
    for (name, value) in [("GIT_HTTP_LOW_SPEED_LIMIT", "1"), ("GIT_HTTP_LOW_SPEED_TIME", "60")] {
        if !set(name) {
            git.env(name, value);
        }
    }
    let own_ssh = || git2::Config::open_default().and_then(|config| config.get_string("core.sshCommand")).is_ok();
    if !set("GIT_SSH_COMMAND") && !set("GIT_SSH") && !own_ssh() {
        git.env("GIT_SSH_COMMAND", "ssh -o ConnectTimeout=60 -o ServerAliveInterval=15 -o ServerAliveCountMax=4");
    }
}

pub(super) fn not_a_repository(place: &str, error: &git2::Error) -> Diagnostic {
    if error.code() == git2::ErrorCode::NotFound {
        Diagnostic::new(Code::Repository, format!("{place} is not in a git repository"))
            .detail("A state repository is a git repository: every plan names the commit or tree that it was made from.")
            .hint("`basalt init DIR` makes a new one; in a folder with states already: `git init && git add -A && git commit`; or name one with --repo")
    } else {
        Diagnostic::new(Code::Repository, format!("cannot open the repository {place}: {}", error.message()))
    }
}

fn no_commit(place: &str, reference: &str, error: &git2::Error) -> Diagnostic {
    let fault = Diagnostic::new(Code::Repository, format!("there is no commit {reference:?} in {place}")).detail(error.message());
    if reference == "HEAD" {
        fault.hint("the repository has no commit yet: make one")
    } else {
        fault.hint("`git log --all --oneline` lists what there is")
    }
}

/// Joins and normalises a path inside a snapshot (`states/../pillar/a` is `pillar/a`). `None` where it would leave the repository.
pub fn inside(base: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for component in Path::new(base).components().chain(Path::new(path).components()) {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::ParentDir => {
                parts.pop()?;
            }
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(folder: &Path, args: &[&str]) {
        let done = std::process::Command::new("git")
            .arg("-C")
            .arg(folder)
            .args(["-c", "user.name=t", "-c", "user.email=t@localhost"])
            .args(args)
            .output()
            .unwrap();
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn sample() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        git(folder.path(), &["init", "-q", "-b", "main"]);
        fs::create_dir(folder.path().join("states")).unwrap();
        fs::write(folder.path().join("states/top.sls"), "one\n").unwrap();
        git(folder.path(), &["add", "-A"]);
        git(folder.path(), &["commit", "-q", "-m", "first"]);
        folder
    }

    fn text(snapshot: &Snapshot, path: &str) -> Option<String> {
        snapshot.read(path).unwrap().map(|f| String::from_utf8(f.bytes.to_vec()).unwrap())
    }

    #[test]
    fn a_clean_work_tree_has_the_commits_tree_and_an_edit_makes_it_dirty() {
        let folder = sample();
        let place = folder.path().to_str().unwrap();
        let clean = Snapshot::open(place, None, folder.path()).unwrap();
        let commit = Snapshot::open(place, Some("HEAD"), folder.path()).unwrap();
        assert_eq!((clean.dirty, &clean.tree, &clean.commit), (false, &commit.tree, &commit.commit));
        fs::write(folder.path().join("states/new.sls"), "untracked\n").unwrap();
        fs::write(folder.path().join("states/top.sls"), "two\n").unwrap();
        let dirty = Snapshot::open(place, None, folder.path()).unwrap();
        assert!(dirty.dirty && dirty.tree != commit.tree);
        assert_eq!(text(&dirty, "states/new.sls").as_deref(), Some("untracked\n"));
        assert_eq!(text(&dirty, "states/top.sls").as_deref(), Some("two\n"));
        assert_eq!(text(&commit, "states/top.sls").as_deref(), Some("one\n"));
        assert!(dirty.has_folder("states") && !dirty.has_folder("state"));
    }

    #[test]
    fn the_same_work_tree_has_the_same_tree_id_and_the_index_is_left_alone() {
        let folder = sample();
        let place = folder.path().to_str().unwrap();
        fs::write(folder.path().join("states/top.sls"), "two\n").unwrap();
        let first = Snapshot::open(place, None, folder.path()).unwrap().tree;
        assert_eq!(first, Snapshot::open(place, None, folder.path()).unwrap().tree);
        let staged =
            std::process::Command::new("git").arg("-C").arg(folder.path()).args(["diff", "--cached", "--name-only"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&staged.stdout), "");
        assert!(!folder.path().join(".git/objects").join(&first[..2]).join(&first[2..]).exists());
    }

    #[test]
    fn a_url_is_fetched_and_fetched_again() {
        let folder = sample();
        let cache = tempfile::tempdir().unwrap();
        let url = format!("file://{}", folder.path().display());
        assert_eq!(text(&Snapshot::open(&url, None, cache.path()).unwrap(), "states/top.sls").as_deref(), Some("one\n"));
        fs::write(folder.path().join("states/top.sls"), "two\n").unwrap();
        git(folder.path(), &["commit", "-qam", "second"]);
        let second = Snapshot::open(&url, Some("main"), cache.path()).unwrap();
        assert_eq!((text(&second, "states/top.sls").as_deref(), second.subject.as_str()), (Some("two\n"), "second"));
    }

    #[test]
    fn what_is_not_there_is_said_with_what_to_do() {
        let empty = tempfile::tempdir().unwrap();
        let place = empty.path().to_str().unwrap();
        let fault = Snapshot::open(place, None, empty.path()).err().unwrap();
        assert!(fault.summary.contains("not in a git repository") && fault.hint.is_some());
        let folder = sample();
        let fault = Snapshot::open(folder.path().to_str().unwrap(), Some("nope"), empty.path()).err().unwrap();
        assert!(fault.summary.contains("no commit \"nope\""));
        let fault = Snapshot::open("file:///nonexistent/repo.git", None, empty.path()).err().unwrap();
        assert!(fault.summary.contains("git cannot fetch"), "{fault}");
    }

    #[test]
    fn paths_never_leave_the_repository() {
        assert_eq!(inside("states/a", "../../pillar/x").as_deref(), Some("pillar/x"));
        assert_eq!(inside("states", "../../x"), None);
        assert_eq!(inside("states", "/etc/passwd"), None);
    }
}
