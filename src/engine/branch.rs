//! The branch of a state repository as it goes on: where it is, what came between, and whether a commit is signed by somebody who may.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use git2::{Oid, Repository};
use serde::{Deserialize, Serialize};

use super::repository::{cached, fetched, is_url, not_a_repository, resolved, subject};
use crate::diagnostic::{Code, Diagnostic, Result};

/// Commits between two tips are named one by one up to so many.
const PASSED: usize = 1000;
/// Below the repository's git folder; a hook touches it, so that nobody has to wait for the next look.
pub const WAKE: &str = "basalt-wake";

pub struct Branch {
    place: String,
    /// A branch, or anything else that git resolves; none: HEAD.
    reference: String,
    cache: PathBuf,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tip {
    pub commit: String,
    /// The first line of its message.
    pub subject: String,
}

impl Branch {
    pub fn new(place: &str, reference: Option<&str>, cache: PathBuf) -> Branch {
        Branch { place: place.to_owned(), reference: reference.unwrap_or("HEAD").to_owned(), cache }
    }

    /// Where it is now. A repository of a URL is fetched.
    pub fn tip(&self) -> Result<Tip> {
        let repository = if is_url(&self.place) { fetched(&self.place, &self.cache)? } else { self.repository()? };
        let commit = resolved(&repository, &self.place, &self.reference)?;
        Ok(Tip { commit: commit.id().to_string(), subject: subject(&commit) })
    }

    /// The commits after `from` and before `to`, the oldest first; none: `to` does not come from there.
    pub fn between(&self, from: &str, to: &str) -> Result<Option<Vec<String>>> {
        let repository = self.repository()?;
        let walk = || -> std::result::Result<Option<Vec<String>>, git2::Error> {
            let (from, to) = (Oid::from_str(from)?, Oid::from_str(to)?);
            if repository.find_commit(from).is_err() || !repository.graph_descendant_of(to, from)? {
                return Ok(None);
            }
            let mut walk = repository.revwalk()?;
            walk.push(to)?;
            walk.hide(from)?;
            let passed: std::result::Result<Vec<Oid>, _> = walk.skip(1).take(PASSED).collect();
            Ok(Some(passed?.iter().rev().map(Oid::to_string).collect()))
        };
        walk().map_err(|e| Diagnostic::new(Code::Repository, format!("cannot read the history of {}: {}", self.place, e.message())).into())
    }

    /// Whether the user's own git takes its signature. With a file of allowed signers, only what one of those has signed with ssh.
    pub fn verify(&self, commit: &str, signers: Option<&Path>) -> Result<()> {
        let repository = self.repository()?;
        let mut git = Command::new("git");
        git.arg("-C").arg(repository.path());
        if let Some(signers) = signers {
            // Whatever other keys the user trusts.
            git.args(["-c", "gpg.openpgp.program=false", "-c", "gpg.program=false", "-c", "gpg.x509.program=false"]);
            git.arg("-c").arg(format!("gpg.ssh.allowedSignersFile={}", signers.display()));
        }
        let fault = |e: std::io::Error| Diagnostic::new(Code::Repository, format!("cannot run git: {e}"));
        let done = git.args(["verify-commit", "--", commit]).stdin(Stdio::null()).output().map_err(fault)?;
        if done.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
        let what = if said.is_empty() { "it is not signed".to_owned() } else { format!("git verify-commit: {}", said.replace('\n', "; ")) };
        Err(Diagnostic::new(Code::Repository, format!("{commit} is not signed by an allowed signer")).detail(what).into())
    }

    /// The folder of a local repository's work tree, if it has one.
    pub fn work_tree(&self) -> Option<PathBuf> {
        if is_url(&self.place) { None } else { self.repository().ok()?.workdir().map(Path::to_owned) }
    }

    /// The git folder of a repository on this machine.
    pub fn git_folder(&self) -> Option<PathBuf> {
        match self.place.strip_prefix("file://") {
            Some(path) => Repository::open(path).ok().map(|repository| repository.path().to_owned()),
            None if is_url(&self.place) => None,
            None => self.repository().ok().map(|repository| repository.path().to_owned()),
        }
    }

    /// As it is here, without asking the network.
    fn repository(&self) -> Result<Repository> {
        let opened =
            if is_url(&self.place) { Repository::open_bare(cached(&self.place, &self.cache)) } else { Repository::discover(&self.place) };
        opened.map_err(|e| not_a_repository(&self.place, &e).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(folder: &Path, script: &str) -> String {
        let done = Command::new("sh").arg("-ec").arg(script).current_dir(folder).output().unwrap();
        assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    const COMMIT: &str = "git -c user.name=t -c user.email=t@localhost commit --allow-empty -qm";

    #[test]
    fn a_branch_goes_on_and_is_rewritten() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path();
        sh(place, &format!("git init -q -b main; {COMMIT} one; {COMMIT} two; {COMMIT} three"));
        let branch = Branch::new(place.to_str().unwrap(), None, place.join("cache"));
        let [one, two, three] = ["HEAD~2", "HEAD~1", "HEAD"].map(|name| sh(place, &format!("git rev-parse {name}")));
        assert_eq!(branch.tip().unwrap(), Tip { commit: three.clone(), subject: "three".into() });
        assert_eq!(branch.between(&one, &three).unwrap(), Some(vec![two.clone()]));
        assert_eq!(branch.between(&two, &three).unwrap(), Some(Vec::new()));
        sh(place, &format!("git reset -q --hard HEAD~2; {COMMIT} other"));
        assert_eq!(branch.between(&three, &branch.tip().unwrap().commit).unwrap(), None);
        assert_eq!(branch.between(&"0".repeat(40), &one).unwrap(), None);
        // A repository of a URL: fetched for its tip, and read as it is here for everything else.
        let url = Branch::new(&format!("file://{}", place.display()), Some("main"), place.join("cache"));
        assert_eq!(url.tip().unwrap(), branch.tip().unwrap());
        assert_eq!((url.work_tree(), url.git_folder().is_some()), (None, true));
        let tip = branch.tip().unwrap().commit;
        sh(place, "mv .git gone");
        assert!(url.tip().is_err());
        assert_eq!(url.between(&one, &tip).unwrap(), Some(Vec::new()));
    }

    #[test]
    fn only_allowed_signers_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path();
        sh(
            place,
            &format!(
                "git init -q -b main; ssh-keygen -q -t ed25519 -N '' -f mine; ssh-keygen -q -t ed25519 -N '' -f other
                 printf 'me@localhost namespaces=\"git\" %s\\n' \"$(cut -d' ' -f1,2 mine.pub)\" > signers
                 sign() {{ git -c gpg.format=ssh -c user.signingkey=$PWD/$1 -c user.name=t -c user.email=t@localhost commit -S --allow-empty -qm $1; }}
                 {COMMIT} unsigned; sign mine; sign other"
            ),
        );
        let branch = Branch::new(place.to_str().unwrap(), None, place.join("cache"));
        let commit = |name: &str| sh(place, &format!("git rev-parse {name}"));
        let signers = place.join("signers");
        assert!(branch.verify(&commit("HEAD~1"), Some(&signers)).is_ok());
        for other in ["HEAD", "HEAD~2"] {
            let fault = branch.verify(&commit(other), Some(&signers)).unwrap_err();
            assert!(fault.summary.ends_with("is not signed by an allowed signer"), "{other}");
        }
    }
}
