//! `basalt init [DIR]`: a state repository that plans at once.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;

use super::Ended;
use super::print::{Color, Printer};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::engine::branch::WAKE;

#[derive(Args)]
pub struct InitArgs {
    /// Where; made if it is not there
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,
    /// In a repository that is there (bare ones too): hooks that wake `basalt watch` when a commit or a push comes
    #[arg(long)]
    hooks: bool,
}

/// After what the branch may be somewhere else.
const HOOKS: [&str; 4] = ["post-commit", "post-merge", "post-receive", "post-rewrite"];

/// What a new repository holds: one SLS that every Unix host can have, its template, its pillar, and a roster to edit.
pub const FILES: [(&str, &str); 7] = [
    (
        "README.md",
        "# State repository\n\n`states/` holds what hosts are to be (Salt's SLS), `pillar/` their data, `roster.yaml` says which hosts there are.\n\n\
         ```sh\nbasalt plan     # what would change\nbasalt apply    # change it\nbasalt rollback # take it back\n```\n",
    ),
    ("states/top.sls", "# Which states go to which hosts.\nbase:\n  '*':\n    - common\n"),
    (
        "states/common/init.sls",
        "# What every host has.\n/etc/motd:\n  file.managed:\n    - source: salt://common/files/motd.j2\n    - template: jinja\n    - mode: '0644'\n",
    ),
    (
        "states/common/files/motd.j2",
        "{{ grains['id'] }}: {{ pillar.get('greeting', 'hello') }}\nKept by basalt: what is changed here by hand is changed back.\n",
    ),
    ("pillar/top.sls", "base:\n  '*':\n    - common\n"),
    ("pillar/common.sls", "greeting: welcome\n"),
    (
        "roster.yaml",
        "# Which hosts there are, in Salt's roster format. ssh_config, keys and known_hosts are your own.\n\
         # web1: web1.example.org\n\
         # web2:\n#   host: 192.0.2.7\n#   user: admin\n#   sudo: True\n\n\
         # This machine itself, without ssh:\nlocalhost:\n  host: local\n",
    ),
];

pub fn run(args: InitArgs, color: Color) -> Ended {
    let printer = Printer::new(false, color);
    if args.hooks {
        hooks(&args.folder)?.iter().for_each(|hook| printer.say(&format!("made {}", hook.display())));
        return Ok(0);
    }
    let made = make(&args.folder, &FILES)?;
    for file in &made {
        printer.say(&format!("made {}", args.folder.join(file).display()));
    }
    let place = if args.folder == Path::new(".") { String::new() } else { format!("cd {} && ", args.folder.display()) };
    printer.say(&format!("Edit roster.yaml, then: {place}basalt plan"));
    Ok(0)
}

/// Hooks that touch the file that wakes a watch. Touches none that is there.
fn hooks(folder: &Path) -> Result<Vec<PathBuf>> {
    let repository = git2::Repository::discover(folder).map_err(|e| {
        Diagnostic::new(Code::Repository, format!("{} is not in a git repository: {}", folder.display(), e.message()))
            .hint("`basalt init DIR` without --hooks makes one")
    })?;
    let folder = repository.config().and_then(|config| config.get_path("core.hooksPath"));
    let folder =
        folder.map_or_else(|_| repository.commondir().join("hooks"), |set| repository.workdir().unwrap_or(Path::new("")).join(set));
    let failed = |e: std::io::Error| Diagnostic::io(format_args!("write hooks in {}", folder.display()), &e);
    let hooks: Vec<PathBuf> = HOOKS.iter().map(|name| folder.join(name)).collect();
    if let Some(there) = hooks.iter().find(|hook| hook.exists()) {
        return Err(Diagnostic::new(Code::Usage, format!("{} is there already", there.display()))
            .hint(format!("add this line to it: {}", wake()))
            .into());
    }
    std::fs::create_dir_all(&folder).map_err(failed)?;
    for hook in &hooks {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(hook).map_err(failed)?;
        file.write_all(format!("#!/bin/sh\n# `basalt watch` looks at the branch at once.\n{}\n", wake()).as_bytes()).map_err(failed)?;
    }
    Ok(hooks)
}

fn wake() -> String {
    format!(": > \"$(git rev-parse --git-dir)/{WAKE}\"")
}

/// Makes the files and, where there is none, the git repository with its first commit. Touches nothing that is there.
pub fn make(folder: &Path, files: &[(&str, &str)]) -> Result<Vec<String>> {
    let failed = |what: &str, e: std::io::Error| Diagnostic::io(format_args!("{what} in {}", folder.display()), &e);
    for (path, _) in files {
        if folder.join(path).exists() && *path != "README.md" {
            return Err(Diagnostic::new(Code::Usage, format!("{} is there already", folder.join(path).display()))
                .hint("basalt init never overwrites: choose an empty folder, or plan in this one as it is")
                .into());
        }
    }
    let mut made = Vec::new();
    for (path, text) in files {
        let file = folder.join(path);
        if file.exists() {
            continue;
        }
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent).map_err(|e| failed("make folders", e))?;
        }
        std::fs::write(&file, text).map_err(|e| failed("write files", e))?;
        made.push((*path).to_owned());
    }
    commit(folder, &made)
        .map_err(|e| Diagnostic::new(Code::Repository, format!("cannot commit to {}: {}", folder.display(), e.message())))?;
    Ok(made)
}

/// Commits the new files, in a repository made for them where the folder is in none.
fn commit(folder: &Path, made: &[String]) -> std::result::Result<(), git2::Error> {
    let repository = match git2::Repository::discover(folder) {
        Ok(repository) => repository,
        Err(_) => git2::Repository::init(folder)?,
    };
    let root = repository.workdir().map(|w| w.canonicalize().unwrap_or_else(|_| w.to_owned()));
    let here = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let below = root.as_ref().and_then(|r| here.strip_prefix(r).ok()).unwrap_or(Path::new(""));
    let mut index = repository.index()?;
    for path in made {
        index.add_path(&below.join(path))?;
    }
    index.write()?;
    let tree = repository.find_tree(index.write_tree()?)?;
    let author = repository.signature().or_else(|_| git2::Signature::now("basalt", "basalt@localhost"))?;
    let parent = repository.head().ok().and_then(|h| h.peel_to_commit().ok());
    let parents: Vec<&git2::Commit<'_>> = parent.iter().collect();
    repository.commit(Some("HEAD"), &author, &author, "A state repository", &tree, &parents)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::repository::Snapshot;

    #[test]
    fn a_commit_touches_what_wakes_a_watch() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("states");
        make(&place, &FILES).unwrap();
        assert_eq!(hooks(&place).unwrap().len(), HOOKS.len());
        let fault = hooks(&place).unwrap_err();
        assert!(fault.hint.unwrap().contains(WAKE), "a hook of somebody else's stays");
        let woken = place.join(".git").join(WAKE);
        assert!(!woken.exists());
        let commit = "git -c user.name=t -c user.email=t@localhost commit -q --allow-empty -m x";
        assert!(std::process::Command::new("sh").args(["-ec", commit]).current_dir(&place).status().unwrap().success());
        assert!(woken.exists());
    }

    #[test]
    fn a_new_repository_is_clean_and_nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("states-of-mine");
        make(&place, &FILES).unwrap();
        let snapshot = Snapshot::open(place.to_str().unwrap(), None, folder.path()).unwrap();
        assert!(!snapshot.dirty && snapshot.contains("states/top.sls") && !snapshot.commit.is_empty());
        assert!(make(&place, &FILES).unwrap_err().summary.contains("is there already"));
    }
}
