//! What a command reads before anything else: the state repository at a moment, what is set for it, and its roster.

use std::path::Path;
use std::sync::Arc;

use super::RepositoryArgs;
use super::context::{cache_folder, folder, store_of};
use crate::diagnostic::{Code, Diagnostic, Result, Severity};
use crate::engine::repository::Snapshot;
use crate::engine::salt_master::SaltMaster;
use crate::engine::settings::Settings;
use crate::engine::tree::TreeCompiler;
use crate::engine::{cluster, lone};
use crate::fleet::Roster;
use crate::lang::What;
use crate::store::Store;
use crate::value::Map;
use crate::watch::up::StoredKeys;

/// The files that a command compiles, and what is set for them.
pub struct Opened {
    pub snapshot: Arc<Snapshot>,
    pub settings: Settings,
    /// What a Salt master's settings ask for in vain.
    pub notices: Vec<Diagnostic>,
    store: Arc<dyn Store>,
    roster_defaults: Map,
}

impl Opened {
    /// The state repository, or what `--salt-config` names. Without a commit, as its files are now.
    pub fn at(repository: &RepositoryArgs, commit: Option<&str>) -> Result<Opened> {
        let store = store_of(repository)?;
        let Some(folder) = &repository.salt_config else {
            let snapshot = Arc::new(Snapshot::open(&repository.repo, commit, &cache_folder())?);
            let settings = settings(&snapshot)?;
            return Ok(Opened { snapshot, settings, notices: Vec::new(), store, roster_defaults: Map::new() });
        };
        let SaltMaster { mut settings, roster_defaults, mut notices } = SaltMaster::read(folder)?;
        let snapshot = match commit {
            Some(commit) => {
                let work_tree = settings.into_repository()?;
                Snapshot::open(&work_tree.display().to_string(), Some(commit), &cache_folder())?
            }
            None => Snapshot::of_roots(&folder.display().to_string(), &settings.all_roots())?,
        };
        if snapshot.roots.is_some() {
            let note = Diagnostic::warning(Code::Repository, format!("{}: {}", snapshot.name, snapshot.short()));
            notices.push(Diagnostic { severity: Severity::Note, ..note });
        }
        Ok(Opened { settings: beneath(settings)?, snapshot: Arc::new(snapshot), notices, store, roster_defaults })
    }

    pub fn roster(&self, repository: &RepositoryArgs) -> Result<Roster> {
        roster(&self.snapshot, &self.settings, repository, &self.roster_defaults)
    }

    pub fn tree(&self, what: What, pillar: Option<Map>) -> Result<TreeCompiler> {
        let tree = TreeCompiler::new(&self.snapshot, &self.settings, what, pillar, cache_folder())?;
        Ok(tree.knowing(Arc::new(StoredKeys(self.store.clone()))))
    }
}

/// `basalt.yaml` of the repository, then the user's settings, then the machine's; BASALT_… variables go before all of them.
fn settings(snapshot: &Snapshot) -> Result<Settings> {
    let own = match snapshot.read("basalt.yaml")? {
        Some(file) => Settings::parse(&String::from_utf8_lossy(&file.bytes), "basalt.yaml")?,
        None => Settings::default(),
    };
    if own.watch.allowed_signers.is_some() {
        return Err(Diagnostic::new(
            Code::Settings,
            "allowed_signers does not stand in the repository: a commit could say who may sign it",
        )
        .hint("write it into ~/.config/basalt/config.yaml or /etc/basalt/config.yaml, or use --allowed-signers")
        .into());
    }
    beneath(own)
}

/// The settings of the user and the machine alone: what no commit says.
pub fn outside() -> Result<Settings> {
    beneath(Settings::default())
}

/// The tree's own settings with those of the environment over them, and the user's and the machine's below.
fn beneath(mut own: Settings) -> Result<Settings> {
    let number = |name: &str| -> Result<Option<u64>> {
        match std::env::var(name) {
            Err(_) => Ok(None),
            Ok(text) => {
                text.parse().map(Some).map_err(|_| Diagnostic::new(Code::Settings, format!("{name} is no whole number: {text:?}")).into())
            }
        }
    };
    own.connect_timeout = number("BASALT_CONNECT_TIMEOUT")?.or(own.connect_timeout);
    own.run_timeout = number("BASALT_RUN_TIMEOUT")?.or(own.run_timeout);
    own.guard_timeout = number("BASALT_GUARD_TIMEOUT")?.or(own.guard_timeout);
    own.parallel = number("BASALT_PARALLEL")?.or(own.parallel);
    own.age_identity =
        std::env::var("BASALT_AGE_IDENTITY").ok().filter(|file| !file.is_empty()).map(|file| vec![file]).or(own.age_identity);
    let users = Settings::read(&folder("XDG_CONFIG_HOME", ".config").join("config.yaml"))?;
    Ok(own.or(users).or(Settings::read(Path::new("/etc/basalt/config.yaml"))?))
}

fn roster(snapshot: &Arc<Snapshot>, settings: &Settings, repository: &RepositoryArgs, defaults: &Map) -> Result<Roster> {
    let (name, text) = match (&repository.roster, &settings.roster) {
        (Some(path), _) => (path.display().to_string(), read_outside(path)?),
        (None, Some(path)) if path.starts_with('/') => (path.clone(), read_outside(Path::new(path))?),
        (None, named) => {
            let name = named.clone().unwrap_or_else(|| "roster.yaml".to_owned());
            match snapshot.read(&name)? {
                Some(file) => (name, String::from_utf8_lossy(&file.bytes).into_owned()),
                None if named.is_some() => {
                    return Err(Diagnostic::new(Code::Settings, format!("the roster {name} is not in the repository")).into());
                }
                // There may be nodes, or the first is about to come.
                None => (name, String::new()),
            }
        }
    };
    let text =
        if ["{{", "{%", "{#"].iter().any(|mark| text.contains(mark)) { lone::render(&name, &text, Map::new(), Map::new())? } else { text };
    let mut roster = Roster::parse(&text, &name, defaults)?;
    // Another roster means other hosts.
    if repository.roster.is_none() {
        cluster::read(snapshot)?.add_to(&mut roster)?;
    }
    Ok(roster)
}

fn read_outside(path: &Path) -> Result<String> {
    std::fs::read_to_string(path)
        .map_err(|e| Diagnostic { code: Code::Settings, ..Diagnostic::io(format_args!("read the roster {}", path.display()), &e) }.into())
}
