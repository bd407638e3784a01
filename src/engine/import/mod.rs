//! `basalt import`: what is there on a host, as SLS whose plan against that host is empty.
//!
//! The host is looked at twice, by one shell script each: `survey` reads what packages, accounts, units and `/etc` say, and then the contents
//! of the files that count are fetched. Everything is decided here: `packages` which packages and repositories, `files` which files, `sls` how
//! it is written down. The rules are in the guide ("Import").

mod files;
mod packages;
mod sls;
mod survey;

use std::collections::BTreeMap;

use self::sls::Sls;
use self::survey::{CONTENTS, SURVEY, Survey};
use super::session::Session;
use crate::agent::protocol::Body;
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::function::base64;

/// What of a host is meant.
#[derive(Clone, Copy, Debug)]
pub struct Areas {
    pub packages: bool,
    pub users: bool,
    pub files: bool,
    pub services: bool,
}

/// What was found, as files below the file root.
#[derive(Debug, Default, PartialEq)]
pub struct Imported {
    pub files: BTreeMap<String, Vec<u8>>,
    /// The SLS that a top file names.
    pub sls: String,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

/// Files whose contents are asked for in one command.
const AT_ONCE: usize = 200;
/// Larger files are named and not copied.
const LARGEST: u64 = 1 << 20;

/// Looks at a host. `mark` is a text that nothing on it can know.
pub async fn import(session: &mut Session, areas: Areas, mark: &str) -> Result<Imported> {
    let said = run(session, SURVEY, &[mark.to_owned()]).await?;
    let survey = Survey::read(&said, mark);
    let packages = match (survey.part("status"), survey.part("rpm")) {
        ([], []) => {
            let summary = format!("{} has neither dpkg nor dnf 4, and import knows no other packages", session.host.id);
            return Err(Diagnostic::new(Code::Failed, summary).into());
        }
        ([], _) => packages::of_rpm(&survey),
        (status, _) => packages::installed(status, survey.part("native").first().map_or("amd64", String::as_str)),
    };
    let mut notes = Vec::new();
    let found = files::find(&survey, &packages, areas, &mut notes);
    let mut contents = BTreeMap::new();
    let paths: Vec<String> = found.iter().filter(|file| file.has_contents()).map(|file| file.path.clone()).collect();
    for paths in paths.chunks(AT_ONCE) {
        let said = run(session, CONTENTS, &[vec![mark.to_owned()], paths.to_vec()].concat()).await?;
        let texts = Survey::read(&said, mark);
        for path in paths {
            contents.extend(base64::decode(&texts.part(path).concat()).map(|bytes| (path.clone(), bytes)));
        }
    }
    let found = found.into_iter().filter(|file| files::may_be_copied(file, &contents, &mut notes)).collect::<Vec<_>>();
    Ok(Sls::new(&session.host.id, &survey, &found, contents, notes).write(&packages, areas))
}

/// What a script of ours prints on the host.
async fn run(session: &mut Session, script: &str, words: &[String]) -> Result<Vec<String>> {
    let mut said = Vec::new();
    let mut line = |body: Body| {
        if let Body::Line { text, .. } = body {
            said.push(text);
        }
    };
    let argv = [vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned(), "sh".to_owned()], words.to_vec()].concat();
    match session.exec(argv, false, &mut line).await? {
        0 => Ok(said),
        status => Err(Diagnostic::new(Code::Failed, format!("looking at {} ended with exit status {status}", session.host.id)).into()),
    }
}

#[cfg(test)]
mod tests;
