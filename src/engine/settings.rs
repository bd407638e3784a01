//! Settings: `basalt.yaml` in the state repository, then the user's, then the machine's; the first that names one wins.
//!
//! Unknown keys are errors that name the nearest known one: a misspelt setting must not be silently without effect.

mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::repository::Snapshot;
use crate::diagnostic::{Code, Diagnostic, Result, Span, nearest};
use crate::lang::jinja::{Environments, Limits};
use crate::value::{Map, Value};
use crate::yaml::{self, Data, Node};

pub use watch::{Drift, Watch};

/// What the files say; `None` where they say nothing. Seconds where a time is meant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Folders of states by environment, relative to the repository.
    pub file_roots: Option<Roots>,
    pub pillar_roots: Option<Roots>,
    /// What hosts call this state repository, instead of its first commit.
    pub repository: Option<String>,
    /// The roster file, relative to the repository or absolute.
    pub roster: Option<String>,
    pub nodegroups: Option<Map>,
    /// Salt master options that the language reads (`pillar_merge_lists` …).
    pub options: Map,
    /// Whether conditions may run commands of their own while a plan is made.
    pub plan_commands: Option<bool>,
    /// Until a host answers.
    pub connect_timeout: Option<u64>,
    /// The whole run on one host.
    pub run_timeout: Option<u64>,
    /// From the end of a run that can cut the connection until the host takes it back.
    pub guard_timeout: Option<u64>,
    /// Hosts worked on at the same time.
    pub parallel: Option<u64>,
    /// gpg's home folder, where it is not the user's own.
    pub gpg_keydir: Option<String>,
    /// Files with the identities that age decrypts with.
    pub age_identity: Option<Vec<String>>,
    /// Until a message is decrypted.
    pub decrypt_timeout: Option<u64>,
    /// Keys of the pillar whose values are secret in any case.
    pub secret_pillar: Option<Vec<String>>,
    /// What compiling may take, by name.
    pub limits: BTreeMap<String, u64>,
    /// How hosts that are away or fail are tried again, by name; nothing said of `tries` or null: for ever.
    pub recovery: BTreeMap<String, Option<u64>>,
    pub watch: Watch,
}

/// How many nested frames templates may be given.
const DEEPEST: u64 = 20_000;

pub type Roots = BTreeMap<String, Vec<String>>;

const KEYS: [&str; 17] = [
    "repository",
    "file_roots",
    "pillar_roots",
    "roster",
    "nodegroups",
    "plan_commands",
    "connect_timeout",
    "run_timeout",
    "guard_timeout",
    "parallel",
    "gpg_keydir",
    "age_identity",
    "decrypt_timeout",
    "secret_pillar",
    "limits",
    "recovery",
    "watch",
];

/// Limits of compiling: steps and nested frames of a template, MiB of its text, MiB of memory and seconds of a processor for a host.
pub const LIMITS: [&str; 5] = ["steps", "depth", "output", "memory", "time"];

/// Of trying a host again: seconds between the first tries, how many those are, seconds between the later ones, and after how many it has failed.
pub const RECOVERY: [&str; 4] = ["first_every", "first_tries", "every", "tries"];

/// Options of a Salt master that the compiler understands; they stand at the top level as in Salt's own file.
pub const SALT_OPTIONS: [&str; 17] = [
    "pillar_source_merging_strategy",
    "pillar_merge_lists",
    "pillar_includes_override_sls",
    "top_file_merging_strategy",
    "env_order",
    "default_top",
    "state_top",
    "jinja_env",
    "jinja_sls_env",
    "jinja_trim_blocks",
    "jinja_lstrip_blocks",
    "renderer",
    "decrypt_pillar",
    "decrypt_pillar_delimiter",
    "decrypt_pillar_default",
    "decrypt_pillar_renderers",
    "gpg_decrypt_must_succeed",
];

impl Settings {
    /// Reads settings from text; `file` is named in errors.
    pub fn parse(text: &str, file: &str) -> Result<Settings> {
        let node = yaml::load_spanned(text, file)?;
        let mut settings = Settings::default();
        let entries = match &node.data {
            Data::Map(entries) => entries,
            Data::Scalar(Value::Null) => return Ok(settings),
            _ => return Err(wrong(file, &node, "settings are a mapping of names to values")),
        };
        for (key, (place, value)) in entries {
            let span = Span::new(file, place.line, place.column);
            let name = key.to_text();
            match name.as_str() {
                "file_roots" => settings.file_roots = Some(roots(file, value)?),
                "pillar_roots" => settings.pillar_roots = Some(roots(file, value)?),
                "repository" => settings.repository = Some(text_of(file, value)?),
                "roster" => settings.roster = Some(text_of(file, value)?),
                "nodegroups" => match value.to_value() {
                    Value::Map(groups) => settings.nodegroups = Some(groups),
                    _ => return Err(wrong(file, value, "nodegroups are a mapping of names to targets")),
                },
                "plan_commands" => match value.to_value() {
                    Value::Bool(b) => settings.plan_commands = Some(b),
                    _ => return Err(wrong(file, value, "plan_commands is true or false")),
                },
                "connect_timeout" => settings.connect_timeout = Some(number(file, value)?),
                "run_timeout" => settings.run_timeout = Some(number(file, value)?),
                "guard_timeout" => settings.guard_timeout = Some(number(file, value)?),
                "parallel" => settings.parallel = Some(number(file, value)?),
                "gpg_keydir" => settings.gpg_keydir = Some(text_of(file, value)?),
                "age_identity" => settings.age_identity = Some(texts_of(file, value)?),
                "decrypt_timeout" => settings.decrypt_timeout = Some(number(file, value)?),
                "secret_pillar" => settings.secret_pillar = Some(texts_of(file, value)?),
                "limits" => settings.limits = limits(file, value)?,
                "recovery" => settings.recovery = recovery(file, value)?,
                "watch" => settings.watch = Watch::parse(file, value)?,
                option if SALT_OPTIONS.contains(&option) => {
                    if matches!(option, "jinja_env" | "jinja_sls_env") {
                        environment(file, value)?;
                    }
                    settings.options.insert(option, value.to_value());
                }
                unknown => {
                    let mut fault = Diagnostic::new(Code::Settings, format!("unknown setting {unknown:?}")).at(span);
                    if let Some(near) = nearest(unknown, KEYS.into_iter().chain(SALT_OPTIONS)) {
                        fault = fault.hint(format!("did you mean {near:?}?"));
                    }
                    return Err(fault.excerpt_of(text).into());
                }
            }
        }
        Ok(settings)
    }

    /// Reads a file of settings; a file that is not there says nothing.
    pub fn read(path: &Path) -> Result<Settings> {
        match std::fs::read_to_string(path) {
            Ok(text) => Settings::parse(&text, &path.display().to_string()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Settings::default()),
            Err(e) => Err(Diagnostic { code: Code::Settings, ..Diagnostic::io(format_args!("read {}", path.display()), &e) }.into()),
        }
    }

    /// All folders of states and pillar.
    pub fn all_roots(&self) -> Vec<PathBuf> {
        let roots = [&self.file_roots, &self.pillar_roots];
        roots.into_iter().flatten().flat_map(Roots::values).flatten().map(PathBuf::from).collect()
    }

    /// Makes absolute roots relative to the one repository that holds all of them; gives its work tree.
    pub fn into_repository(&mut self) -> Result<PathBuf> {
        let first = self.all_roots().into_iter().find(|root| root.is_dir());
        let first = first.ok_or_else(|| Diagnostic::new(Code::Settings, "none of the roots is there"))?;
        let work_tree = Snapshot::work_tree_of(&first)?;
        for roots in [&mut self.file_roots, &mut self.pillar_roots].into_iter().flatten() {
            for folders in roots.values_mut() {
                let mut inside = Vec::new();
                for folder in folders.iter().filter(|folder| Path::new(folder).is_dir()) {
                    let real = Path::new(folder).canonicalize().ok();
                    let Some(path) = real.as_ref().and_then(|real| real.strip_prefix(&work_tree).ok()) else {
                        let fault =
                            Diagnostic::new(Code::Settings, format!("the root {folder} is not in the repository {}", work_tree.display()));
                        return Err(fault
                            .detail("What it was at a commit cannot be known.")
                            .hint("without a commit, roots may lie anywhere")
                            .into());
                    };
                    // The work tree itself as a root.
                    inside.push(if path.as_os_str().is_empty() { ".".to_owned() } else { path.display().to_string() });
                }
                *folders = inside;
            }
        }
        Ok(work_tree)
    }

    /// Fills what is not said here with what `other` says.
    pub fn or(mut self, other: Settings) -> Settings {
        for (key, value) in other.options {
            self.options.0.get_or_insert_with(&key, || value);
        }
        for (key, value) in other.limits {
            self.limits.entry(key).or_insert(value);
        }
        for (key, value) in other.recovery {
            self.recovery.entry(key).or_insert(value);
        }
        Settings {
            file_roots: self.file_roots.or(other.file_roots),
            pillar_roots: self.pillar_roots.or(other.pillar_roots),
            repository: self.repository.or(other.repository),
            roster: self.roster.or(other.roster),
            nodegroups: self.nodegroups.or(other.nodegroups),
            options: self.options,
            plan_commands: self.plan_commands.or(other.plan_commands),
            connect_timeout: self.connect_timeout.or(other.connect_timeout),
            run_timeout: self.run_timeout.or(other.run_timeout),
            guard_timeout: self.guard_timeout.or(other.guard_timeout),
            parallel: self.parallel.or(other.parallel),
            gpg_keydir: self.gpg_keydir.or(other.gpg_keydir),
            age_identity: self.age_identity.or(other.age_identity),
            decrypt_timeout: self.decrypt_timeout.or(other.decrypt_timeout),
            secret_pillar: self.secret_pillar.or(other.secret_pillar),
            limits: self.limits,
            recovery: self.recovery,
            watch: self.watch.or(other.watch),
        }
    }

    /// The limits of compiling, as far as they are set.
    pub fn compile_limits(&self) -> Limits {
        let mut out = Limits::default();
        let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        for (name, value) in &self.limits {
            match name.as_str() {
                "steps" => out.fuel = *value,
                "depth" => out.recursion = size(*value),
                "output" => out.output = size(value.saturating_mul(1 << 20)),
                "memory" => out.allowance.memory = size(value.saturating_mul(1 << 20)),
                _ => out.allowance.time = *value,
            }
        }
        out
    }
}

/// `{base: [states]}` as Salt writes it, or just `[states]` or `states` for the base environment.
fn roots(file: &str, node: &Node) -> Result<Roots> {
    match &node.data {
        Data::Map(entries) => entries.iter().map(|(env, (_, value))| Ok((env.to_text(), texts_of(file, value)?))).collect(),
        _ => Ok(BTreeMap::from([("base".to_owned(), texts_of(file, node)?)])),
    }
}

/// Of what Salt hands to Jinja, only what templates are read with here; anything else would be without effect.
fn environment(file: &str, node: &Node) -> Result<()> {
    let Data::Map(entries) = &node.data else { return Err(wrong(file, node, "a Jinja environment is a mapping of options to values")) };
    for (key, (_, value)) in entries {
        let name = key.to_text();
        if !Environments::KNOWN.contains(&name.to_lowercase().as_str()) {
            return Err(wrong(
                file,
                value,
                &format!("basalt's templates have no option {name:?}, only {}", Environments::KNOWN.join(" and ")),
            ));
        }
        if !matches!(value.to_value(), Value::Bool(_)) {
            return Err(wrong(file, value, &format!("{name} is true or false")));
        }
    }
    Ok(())
}

fn limits(file: &str, node: &Node) -> Result<BTreeMap<String, u64>> {
    let mut out = BTreeMap::new();
    for (name, value) in entries(file, node, "limit", &LIMITS)? {
        let number = number(file, value)?;
        // Frames are frames of the stack as well.
        if name == "depth" && number > DEEPEST {
            return Err(wrong(file, value, &format!("depth is at most {DEEPEST}")));
        }
        out.insert(name, number);
    }
    Ok(out)
}

fn recovery(file: &str, node: &Node) -> Result<BTreeMap<String, Option<u64>>> {
    let mut out = BTreeMap::new();
    for (name, value) in entries(file, node, "recovery", &RECOVERY)? {
        let for_ever = name == "tries" && value.to_value() == Value::Null;
        let number = if for_ever { None } else { Some(number(file, value)?) };
        out.insert(name, number);
    }
    Ok(out)
}

/// The entries of a mapping of known names.
fn entries<'a>(file: &str, node: &'a Node, what: &str, known: &[&'static str]) -> Result<Vec<(String, &'a Node)>> {
    let Data::Map(entries) = &node.data else {
        return Err(wrong(file, node, &format!("a mapping is expected here, of {}", known.join(", "))));
    };
    let mut out = Vec::new();
    for (key, (place, value)) in entries {
        let name = key.to_text();
        if !known.contains(&name.as_str()) {
            let fault = Diagnostic::new(Code::Settings, format!("unknown {what} {name:?}")).at(Span::new(file, place.line, place.column));
            return Err(fault
                .hint(match nearest(&name, known.iter().copied()) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("known are {}", known.join(", ")),
                })
                .into());
        }
        out.push((name, value));
    }
    Ok(out)
}

fn text_of(file: &str, node: &Node) -> Result<String> {
    match node.to_value() {
        Value::Str(s) if !s.is_empty() => Ok(s),
        other => Err(wrong(file, node, &format!("a text is expected here, not {}", other.kind()))),
    }
}

/// One text, or a list of them.
fn texts_of(file: &str, node: &Node) -> Result<Vec<String>> {
    match &node.data {
        Data::List(items) => items.iter().map(|item| text_of(file, item)).collect(),
        _ => Ok(vec![text_of(file, node)?]),
    }
}

fn number(file: &str, node: &Node) -> Result<u64> {
    node.to_value()
        .as_int()
        .and_then(|n| u64::try_from(n).ok())
        .filter(|n| *n > 0)
        .ok_or_else(|| wrong(file, node, "a whole number above zero is expected here"))
}

fn wrong(file: &str, node: &Node, what: &str) -> crate::diagnostic::Error {
    Diagnostic::new(Code::Settings, what).at(Span::new(file, node.place.line, node.place.column)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_says_something_wins() {
        let mine = Settings::parse("parallel: 4\nfile_roots: salt\n", "a").unwrap();
        let theirs = Settings::parse("parallel: 9\nroster: /etc/roster\npillar_merge_lists: true\n", "b").unwrap();
        let both = mine.or(theirs);
        assert_eq!((both.parallel, both.roster.as_deref()), (Some(4), Some("/etc/roster")));
        assert_eq!(both.file_roots.unwrap()["base"], ["salt"]);
        assert_eq!(both.options.get("pillar_merge_lists"), Some(&Value::Bool(true)));
    }

    #[test]
    fn a_misspelt_setting_is_an_error_with_its_place_and_the_nearest_name() {
        let fault = Settings::parse("parallel: 4\npilar_roots: x\n", "basalt.yaml").unwrap_err();
        assert_eq!(fault.span, Some(Span::new("basalt.yaml", 2, 1)));
        assert_eq!(fault.hint.as_deref(), Some("did you mean \"pillar_roots\"?"));
        assert!(Settings::parse("parallel: -1", "x").is_err());
        assert!(Settings::parse("- a", "x").is_err());
        assert!(Settings::parse("jinja_env: {trim_blocks: true}", "x").is_ok());
        for fault in ["jinja_env: {autoescape: true}", "jinja_sls_env: {trim_blocks: 1}", "jinja_env: true"] {
            assert!(Settings::parse(fault, "x").is_err(), "{fault}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_says_nothing() {
        assert_eq!(Settings::read(Path::new("/nonexistent/basalt.yaml")).unwrap(), Settings::default());
    }
}
