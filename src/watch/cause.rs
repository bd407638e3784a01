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
use tokio::time::{sleep, timeout};

use crate::diagnostic::{Code, Diagnostic, Result};
use crate::engine::branch::Tip;

/// Files are written in several steps, and editors write several files: what follows each other so quickly is one edit.
const QUIET: Duration = Duration::from_millis(200);
/// Between two looks at what cannot be watched.
const BLIND: Duration = Duration::from_secs(5);
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
    /// The work tree, if there is one.
    folder: Option<PathBuf>,
    git: Option<PathBuf>,
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
        let real = |path: &Path| path.canonicalize().ok();
        let (folder, git) = (folder.and_then(real), git.and_then(real));
        let found = Arc::new(Found::default());
        let (heard, inside) = (found.clone(), git.clone());
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
        Ok(Edits { watcher, folder, git, watched: HashSet::new(), found })
    }

    /// Tells of edits until nobody listens. What cannot be watched is looked at every so often: a work tree that went, or one that is too large.
    pub async fn run(mut self, causes: Causes) {
        let mut seen = self.watch().is_ok();
        loop {
            tokio::select! {
                () = self.found.more.notified() => while timeout(QUIET, self.found.more.notified()).await.is_ok() {},
                () = sleep(BLIND), if !seen => self.found.add(PathBuf::new()),
                () = causes.closed() => return,
            }
            let paths = std::mem::take(&mut *self.found.paths.lock().unwrap_or_else(PoisonError::into_inner));
            // A folder that went and came again is another one.
            self.watched.retain(|folder| !paths.contains(folder) && folder.is_dir());
            seen = self.watch().is_ok();
            let Some(paths) = self.folder.as_ref().and_then(|folder| told(folder, &paths)) else { continue };
            if causes.send(Cause::Edit { paths }).await.is_err() {
                return;
            }
        }
    }

    /// Watches every folder that git does not ignore and that is not watched yet.
    pub fn watch(&mut self) -> Result<()> {
        if let Some(git) = self.git.clone() {
            self.watch_folder(&git)?;
            // A branch that is moved without anything else in the folder: a push.
            let _ = self.watch_folder(&git.join("refs/heads"));
        }
        let Some(folder) = self.folder.clone() else { return Ok(()) };
        self.watch_folder(&folder)?;
        let Ok(repository) = git2::Repository::discover(&folder) else { return Ok(()) };
        let mut left = vec![folder];
        while let Some(folder) = left.pop() {
            let below = std::fs::read_dir(&folder).into_iter().flatten().flatten();
            for path in below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()) {
                if path.ends_with(".git") || repository.is_path_ignored(&path).unwrap_or(false) {
                    continue;
                }
                match self.watch_folder(&path) {
                    Ok(()) => left.push(path),
                    // Gone again.
                    Err(_) if !path.is_dir() => {}
                    Err(fault) => return Err(fault),
                }
            }
        }
        Ok(())
    }

    fn watch_folder(&mut self, folder: &Path) -> Result<()> {
        if !self.watched.contains(folder) {
            self.watcher.watch(folder, RecursiveMode::NonRecursive).map_err(|e| cannot(&e))?;
            self.watched.insert(folder.to_owned());
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
    if paths.contains(Path::new("")) || paths.contains(folder) || paths.len() > NAMED {
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
        .hint("edits are looked for every few seconds; `fs.inotify.max_user_watches` of the kernel may be too small")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(folder: &Path, script: &str) {
        assert!(std::process::Command::new("sh").arg("-ec").arg(script).current_dir(folder).status().unwrap().success(), "{script}");
    }

    async fn next(causes: &mut mpsc::Receiver<Cause>) -> Option<Vec<String>> {
        match timeout(Duration::from_secs(20), causes.recv()).await {
            Ok(Some(Cause::Edit { paths })) => Some(paths),
            _ => None,
        }
    }

    #[tokio::test]
    async fn edits_are_told_together_and_what_git_ignores_is_not() {
        let above = tempfile::tempdir().unwrap();
        let place = above.path().join("state");
        std::fs::create_dir(&place).unwrap();
        sh(&place, "git init -q; echo '*.swp' > .gitignore; mkdir a");
        let wake = Arc::new(Notify::new());
        let mut edits = Edits::new(Some(&place), Some(&place.join(".git")), wake.clone()).unwrap();
        edits.watch().unwrap();
        let (causes, mut heard) = mpsc::channel(8);
        tokio::spawn(edits.run(causes));
        sh(&place, "echo x > a/one; echo x > two; echo x > a/.one.swp; mkdir -p b/c");
        assert_eq!(next(&mut heard).await.unwrap(), ["a/one", "b", "two"]);
        // In a folder that was not there when the watch began; nothing of what is ignored comes in between.
        sh(&place, "echo x > a/.two.swp; echo x > b/c/three");
        assert_eq!(next(&mut heard).await.unwrap(), ["b/c/three"]);
        sh(&place, "git -c user.name=t -c user.email=t@localhost commit -q --allow-empty -m x");
        timeout(Duration::from_secs(20), wake.notified()).await.unwrap();
        // The whole of it goes, and another comes.
        sh(above.path(), "rm -rf state; mkdir state; cd state; git init -q; echo x > four");
        while next(&mut heard).await.unwrap() != Vec::<String>::new() {}
        sleep(QUIET).await;
        sh(&place, "echo x > five");
        while next(&mut heard).await.unwrap() != ["five"] {}
    }
}
