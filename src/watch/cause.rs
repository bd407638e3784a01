//! What makes the watch look: edits of the work tree, commits, the timer, drift, hosts that come up. All causes arrive on one channel.
//!
//! Nothing piles up: whoever finds something waits until it is taken, and what is found meanwhile is put together.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use crate::diagnostic::{Code, Diagnostic, Result};
use crate::engine::branch::Tip;

/// Files are written in several steps, and editors write several files: what follows each other so quickly is one edit.
const QUIET: Duration = Duration::from_millis(200);
/// More paths of one edit than this are not named.
const NAMED: usize = 100;

#[derive(Clone, Debug, PartialEq)]
pub enum Cause {
    /// Files of the work tree, below it; empty: somewhere.
    Edit {
        paths: Vec<String>,
    },
    Commit {
        to: Tip,
    },
    Timer,
    /// Something may not be as it was left on this host: what, as the host names it.
    Drift {
        host: String,
        touched: Vec<String>,
    },
    Up {
        host: String,
    },
    /// The repository cannot be read any more, or can again.
    Gone {
        why: String,
    },
    Back,
}

pub type Causes = mpsc::Sender<Cause>;

/// Looks at the branch every so many seconds, and whenever it is woken.
pub async fn commits(tip: Arc<dyn Fn() -> Result<Tip> + Send + Sync>, every: Arc<AtomicU64>, wake: Arc<Notify>, causes: Causes) {
    let mut known: Option<Tip> = None;
    let mut gone: Option<String> = None;
    loop {
        let look = tip.clone();
        let found = tokio::task::spawn_blocking(move || look()).await;
        let found = found
            .unwrap_or_else(|e| Err(Diagnostic::new(Code::Internal, format!("the look at the branch ended unexpectedly: {e}")).into()));
        let told = match found {
            Ok(to) => {
                let back = gone.take().map(|_| Cause::Back);
                let moved = (known.as_ref() != Some(&to)).then(|| Cause::Commit { to: to.clone() });
                known = Some(to);
                [back, moved]
            }
            Err(fault) => {
                let why = if fault.detail.is_empty() { fault.summary } else { format!("{}: {}", fault.summary, fault.detail) };
                let told = gone.is_none().then(|| Cause::Gone { why: why.clone() });
                gone = Some(why);
                [told, None]
            }
        };
        for cause in told.into_iter().flatten() {
            if causes.send(cause).await.is_err() {
                return;
            }
        }
        // What woke it while it looked is waiting already.
        let _ = timeout(Duration::from_secs(every.load(Ordering::Relaxed)), wake.notified()).await;
    }
}

/// Watches a work tree, and the git folder for what hooks and git itself leave there.
pub struct Edits {
    watcher: RecommendedWatcher,
    folder: Option<PathBuf>,
    watched: HashSet<PathBuf>,
    found: Arc<Found>,
}

#[derive(Default)]
struct Found {
    paths: Mutex<BTreeSet<PathBuf>>,
    more: Notify,
}

impl Edits {
    /// `wake` is for the look at the branch.
    pub fn new(folder: Option<&Path>, git: Option<&Path>, wake: Arc<Notify>) -> Result<Edits> {
        let found = Arc::new(Found::default());
        let (heard, git_folder) = (found.clone(), git.and_then(|git| git.canonicalize().ok()));
        let inside = git_folder.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Some were lost: nobody knows which.
            let Ok(event) = event else { return heard.add(PathBuf::new()) };
            if matches!(event.kind, EventKind::Access(_)) {
                return;
            }
            for path in event.paths {
                match &inside {
                    Some(git) if path.starts_with(git) => wake.notify_one(),
                    _ => heard.add(path),
                }
            }
        })
        .map_err(|e| cannot(&e))?;
        let mut edits = Edits { watcher, folder: folder.and_then(|folder| folder.canonicalize().ok()), watched: HashSet::new(), found };
        if let Some(git) = &git_folder {
            edits.watcher.watch(git, RecursiveMode::NonRecursive).map_err(|e| cannot(&e))?;
            // A branch that is moved without anything else in the folder: a push.
            let _ = edits.watcher.watch(&git.join("refs/heads"), RecursiveMode::Recursive);
        }
        edits.folders()?;
        Ok(edits)
    }

    /// Tells of edits until nobody listens.
    pub async fn run(mut self, causes: Causes) {
        let Some(folder) = self.folder.clone() else {
            // Only the git folder is watched, for as long as this is there.
            return causes.closed().await;
        };
        loop {
            tokio::select! { () = self.found.more.notified() => {}, () = causes.closed() => return }
            while timeout(QUIET, self.found.more.notified()).await.is_ok() {}
            let paths = std::mem::take(&mut *self.found.paths.lock().unwrap_or_else(PoisonError::into_inner));
            // A folder that went and came again is another one.
            self.watched.retain(|folder| !paths.contains(folder));
            // What cannot be watched was told when the watch began.
            let _ = self.folders();
            let Some(paths) = told(&folder, &paths) else { continue };
            if causes.send(Cause::Edit { paths }).await.is_err() {
                return;
            }
        }
    }

    /// Watches every folder that git does not ignore; those that are new since the last time.
    fn folders(&mut self) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let Ok(repository) = git2::Repository::discover(folder) else { return Ok(()) };
        self.watched.retain(|known| known.is_dir());
        let mut left = vec![folder.clone()];
        while let Some(folder) = left.pop() {
            if !self.watched.contains(&folder) {
                match self.watcher.watch(&folder, RecursiveMode::NonRecursive) {
                    Ok(()) => _ = self.watched.insert(folder.clone()),
                    // Gone again.
                    Err(_) if !folder.is_dir() => continue,
                    Err(e) => return Err(cannot(&e)),
                }
            }
            let below = std::fs::read_dir(&folder).into_iter().flatten().flatten();
            let folders = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path());
            left.extend(folders.filter(|path| !path.ends_with(".git") && !repository.is_path_ignored(path).unwrap_or(false)));
        }
        Ok(())
    }
}

impl Found {
    fn add(&self, path: PathBuf) {
        let mut paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        // Beyond that it is only known that there is something.
        if paths.len() <= NAMED {
            paths.insert(path);
        }
        drop(paths);
        self.more.notify_one();
    }
}

/// The paths below the work tree that git does not ignore, or none of them where not all are known. `None`: nothing worth telling.
fn told(folder: &Path, paths: &BTreeSet<PathBuf>) -> Option<Vec<String>> {
    if paths.contains(Path::new("")) || paths.len() > NAMED {
        return Some(Vec::new());
    }
    let repository = git2::Repository::discover(folder).ok()?;
    let ignored =
        |path: &Path| path.components().any(|part| part.as_os_str() == ".git") || repository.is_path_ignored(path).unwrap_or(false);
    let below: Vec<&Path> = paths.iter().filter_map(|path| path.strip_prefix(folder).ok()).filter(|path| !ignored(path)).collect();
    (!below.is_empty()).then(|| below.iter().map(|path| path.display().to_string()).collect())
}

fn cannot(error: &notify::Error) -> Box<Diagnostic> {
    Diagnostic::new(Code::Repository, format!("the work tree cannot be watched: {error}"))
        .hint("edits are not seen at once; `fs.inotify.max_user_watches` of the kernel may be too small")
        .into()
}
