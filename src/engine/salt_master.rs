//! A Salt master's own settings: `master` and `master.d/*.conf` below a folder such as `/etc/salt`, put together as Salt does.
//!
//! What the language needs of them becomes `Settings`, with roots that are absolute and may lie anywhere. What cannot be had here (gitfs,
//! `ext_pillar`, other rosters) is told in notices that name it; all else of a master's file is its daemon's business and passed over.

use std::path::{Path, PathBuf};

use super::settings::{Roots, SALT_OPTIONS, Settings};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::lang::glob;
use crate::lang::jinja::Environments;
use crate::value::{Map, Value};
use crate::yaml;

/// Includes of includes, this deep; deeper ones include themselves.
const DEEPEST: usize = 16;
/// Stands in roots for whatever environment is asked for.
const ANY: &str = "__env__";

/// Renderings and orders that change what a tree means, and are not had here: option, why.
const WITHOUT_EFFECT: [(&str, &str); 5] = [
    ("ext_pillar", "pillar comes from files only"),
    ("file_ignore_regex", "every file below the roots is served"),
    ("file_ignore_glob", "every file below the roots is served"),
    ("extension_modules", "custom Python is not run"),
    ("pillarenv", "every environment's pillar is compiled"),
];

pub struct SaltMaster {
    pub settings: Settings,
    /// For keys that hosts of the roster do not name.
    pub roster_defaults: Map,
    /// What has no effect here.
    pub notices: Vec<Diagnostic>,
}

impl SaltMaster {
    pub fn read(folder: &Path) -> Result<SaltMaster> {
        let file = folder.join("master");
        if !file.is_file() && !folder.join("master.d").is_dir() {
            return Err(Diagnostic::new(Code::Settings, format!("there is no Salt master's configuration in {}", folder.display()))
                .detail("Neither a file `master` nor a folder `master.d`.")
                .hint("name the folder that holds them: --salt-config /etc/salt")
                .into());
        }
        let mut options = if file.is_file() { one(&file)? } else { Map::new() };
        let default = options.get("default_include").cloned().unwrap_or_else(|| Value::str("master.d/*.conf"));
        let named = options.get("include").cloned();
        let mut notices = Vec::new();
        for include in [Some(default), named].into_iter().flatten() {
            options.0.extend(included(&include, &file, 0)?);
        }
        let roots = |key: &str, name: &str| -> Result<Roots> {
            match options.get(key) {
                Some(Value::Map(map)) => environments(map, key),
                _ => environments(&Map::from_iter([("base", Value::List(default_roots(name)))]), key),
            }
        };
        let backends = backends(options.get("fileserver_backend"));
        let other: Vec<&str> = backends.iter().map(String::as_str).filter(|b| !matches!(*b, "roots" | "minion" | "minionfs")).collect();
        if !backends.iter().any(|b| b == "roots") {
            return Err(Diagnostic::new(
                Code::Settings,
                format!("the Salt master serves no local files: fileserver_backend is {}", backends.join(", ")),
            )
            .detail("basalt reads file_roots; it does not fetch what a master's other backends serve.")
            .hint("clone the repositories that gitfs_remotes names, and use one of them as the state repository with --repo")
            .into());
        }
        if !other.is_empty() {
            let remotes = texts(options.get("gitfs_remotes"));
            let named = if remotes.is_empty() { String::new() } else { format!(" ({})", remotes.join(", ")) };
            notices.push(
                notice(folder, format!("the files that {} would serve are not there{named}", other.join(", ")))
                    .detail("Of fileserver_backend basalt has `roots`.")
                    .hint("clone those repositories, and name their folders in file_roots"),
            );
        }
        for (option, why) in WITHOUT_EFFECT {
            if let Some(value) = options.get(option).filter(|value| value.truthy()) {
                let names = texts(Some(value));
                let named = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
                notices.push(notice(folder, format!("{option}{named} has no effect: {why}")));
            }
        }
        if let Some(roster) = options.get("roster").and_then(Value::as_str).filter(|name| *name != "flat") {
            notices.push(notice(folder, format!("the roster {roster:?} cannot be asked: the flat one is read")));
        }
        let mut settings = Settings {
            file_roots: Some(roots("file_roots", "salt")?),
            pillar_roots: Some(roots("pillar_roots", "pillar")?),
            nodegroups: nodegroups(options.get("nodegroups")),
            roster: Some(roster_file(folder, &options)),
            gpg_keydir: options.get("gpg_keydir").and_then(Value::as_str).map(str::to_owned),
            ..Settings::default()
        };
        for name in SALT_OPTIONS.into_iter().chain(["renderer"]) {
            let Some(value) = options.get(name) else { continue };
            let value =
                if matches!(name, "jinja_env" | "jinja_sls_env") { environment(folder, name, value, &mut notices) } else { value.clone() };
            settings.options.insert(name, value);
        }
        Ok(SaltMaster { settings, roster_defaults: ssh_defaults(&options), notices })
    }
}

fn notice(folder: &Path, text: String) -> Diagnostic {
    Diagnostic::warning(Code::Settings, format!("{}: {text}", folder.join("master").display()))
}

/// A file of settings.
fn one(path: &Path) -> Result<Map> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|e| Diagnostic { code: Code::Settings, ..Diagnostic::io(format_args!("read {name}"), &e) })?;
    match yaml::load(&text, &name)? {
        Value::Map(map) => Ok(map),
        Value::Null => Ok(Map::new()),
        other => Err(Diagnostic::new(Code::Settings, format!("{name} is {}, not a mapping of options", other.kind())).into()),
    }
}

/// What `include` names: files and patterns beside the file that names them. Those of one pattern are merged deeply, in the order of their
/// names; what a file includes goes over what it says itself.
fn included(include: &Value, from: &Path, depth: usize) -> Result<Map> {
    let mut out = Map::new();
    if depth > DEEPEST {
        return Err(Diagnostic::new(Code::Settings, format!("{} includes itself, or too deeply", from.display())).into());
    }
    let folder = from.parent().unwrap_or(Path::new("/"));
    for pattern in texts(Some(include)) {
        for path in expanded(&folder.join(home(&pattern))) {
            if !path.is_file() {
                continue;
            }
            let mut options = one(&path)?;
            if let Some(more) = options.get("include").cloned() {
                options.0.extend(included(&more, &path, depth + 1)?);
            }
            merge(&mut out, options);
        }
    }
    Ok(out)
}

/// Mappings into each other; lists get what they lack.
fn merge(into: &mut Map, from: Map) {
    for (key, value) in from {
        match (into.0.get_mut(&key), value) {
            (Some(Value::Map(there)), Value::Map(more)) => merge(there, more),
            (Some(Value::List(there)), Value::List(more)) => {
                for item in more {
                    if !there.contains(&item) {
                        there.push(item);
                    }
                }
            }
            (_, value) => drop(into.0.insert(key, value)),
        }
    }
}

fn home(path: &str) -> String {
    match (path.strip_prefix("~/"), std::env::var("HOME")) {
        (Some(rest), Ok(home)) => format!("{home}/{rest}"),
        _ => path.to_owned(),
    }
}

/// A text, or the texts of a list; of mappings in it their keys.
fn texts(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::Str(text)) => vec![text.clone()],
        Some(Value::List(items)) => items.iter().flat_map(|item| texts(Some(item))).collect(),
        Some(Value::Map(map)) => map.iter().map(|(key, _)| key.to_text()).collect(),
        _ => Vec::new(),
    }
}

fn backends(value: Option<&Value>) -> Vec<String> {
    let named: Vec<String> = texts(value).iter().flat_map(|t| t.split(',')).map(|t| t.trim().trim_end_matches("fs").to_owned()).collect();
    if named.is_empty() { vec!["roots".into()] } else { named }
}

fn default_roots(name: &str) -> Vec<Value> {
    vec![Value::Str(format!("/srv/{name}")), Value::Str(format!("/srv/spm/{name}"))]
}

/// Salt takes a list of mappings too.
fn nodegroups(value: Option<&Value>) -> Option<Map> {
    match value? {
        Value::Map(groups) => Some(groups.clone()),
        Value::List(items) => Some(items.iter().filter_map(Value::as_map).flat_map(|map| map.clone().0).collect()),
        _ => None,
    }
}

fn roster_file(folder: &Path, options: &Map) -> String {
    let named = options.get("roster_file").and_then(Value::as_str).filter(|name| !name.is_empty());
    folder.join(named.unwrap_or("roster")).display().to_string()
}

/// What salt-ssh takes where the roster names nothing.
fn ssh_defaults(options: &Map) -> Map {
    let mut out = Map::from_iter([("user", "root")]);
    for (option, key) in [
        ("ssh_user", "user"),
        ("ssh_port", "port"),
        ("ssh_passwd", "passwd"),
        ("ssh_priv", "priv"),
        ("ssh_priv_passwd", "priv_passwd"),
        ("ssh_sudo", "sudo"),
        ("ssh_sudo_user", "sudo_user"),
        ("ssh_identities_only", "identities_only"),
        ("ssh_options", "ssh_options"),
    ] {
        if let Some(value) = options.get(option).filter(|value| value.truthy()) {
            out.insert(key, value.clone());
        }
    }
    if let Some(Value::Map(own)) = options.get("roster_defaults") {
        out.0.extend(own.clone());
    }
    out
}

/// Settings of Jinja, without those that mean nothing here.
fn environment(folder: &Path, name: &str, value: &Value, notices: &mut Vec<Diagnostic>) -> Value {
    let Value::Map(map) = value else { return Value::Map(Map::new()) };
    let mut known = Map::new();
    for (key, value) in map {
        if Environments::KNOWN.contains(&key.to_text().as_str()) {
            known.insert(key.clone(), value.clone());
        } else {
            notices.push(notice(folder, format!("{name}: {} has no effect", key.to_text())));
        }
    }
    Value::Map(known)
}

/// Roots by environment, patterns expanded, and `__env__` for every environment that has a folder in its place.
fn environments(map: &Map, option: &str) -> Result<Roots> {
    let mut roots = Roots::new();
    let mut any: Vec<String> = Vec::new();
    for (env, folders) in map {
        let mut paths = Vec::new();
        for folder in texts(Some(folders)) {
            if !folder.starts_with('/') {
                let fault = Diagnostic::new(Code::Settings, format!("{option} of the Salt master names {folder:?}, which is not absolute"));
                return Err(fault.hint("Salt takes it relative to wherever the master was started").into());
            }
            paths.push(folder);
        }
        match env.to_text() {
            env if env == ANY => any = paths,
            env => drop(roots.insert(env, paths.iter().flat_map(|path| folders_of(path)).collect())),
        }
    }
    let mut dynamic: Vec<String> = any.iter().flat_map(|path| named_by(path)).filter(|env| !roots.contains_key(env)).collect();
    dynamic.sort();
    dynamic.dedup();
    for env in dynamic {
        let folders = any.iter().flat_map(|path| folders_of(&path.replace(ANY, &env))).collect();
        roots.insert(env, folders);
    }
    Ok(roots)
}

fn folders_of(path: &str) -> Vec<String> {
    if !path.contains(['*', '?', '[']) {
        return vec![path.to_owned()];
    }
    expanded(Path::new(path)).into_iter().filter_map(|path| path.into_os_string().into_string().ok()).collect()
}

/// The environments for which a path with `__env__` in it leads to a folder.
fn named_by(path: &str) -> Vec<String> {
    let Some((before, after)) = path.split_once(ANY) else { return Vec::new() };
    let (folder, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let suffix = after.split('/').next().unwrap_or_default();
    let Ok(entries) = std::fs::read_dir(format!("{folder}/")) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| !name.starts_with('.'));
    let envs = names.filter_map(|name| Some(name.strip_prefix(prefix)?.strip_suffix(suffix)?.to_owned())).filter(|env| !env.is_empty());
    envs.filter(|env| Path::new(&path.replace(ANY, env)).is_dir()).collect()
}

/// What a pattern of paths names, sorted. A name that begins with a dot is found only where the pattern has one.
fn expanded(pattern: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for part in pattern.components() {
        let text = part.as_os_str().to_string_lossy();
        if !text.contains(['*', '?', '[']) {
            found.iter_mut().for_each(|path| path.push(part));
            continue;
        }
        let mut next = Vec::new();
        for folder in &found {
            let Ok(entries) = std::fs::read_dir(folder) else { continue };
            let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
            let fits = |name: &String| (text.starts_with('.') || !name.starts_with('.')) && glob::matches(&text, name);
            next.extend(names.filter(fits).map(|name| folder.join(name)));
        }
        found = next;
    }
    found.retain(|path| path.exists());
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A master's folder like a distribution's, with roots in several places.
    fn salt(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text.replace("@", folder.path().to_str().unwrap())).unwrap();
        }
        folder
    }

    #[test]
    fn files_are_put_together_as_salt_does() {
        let folder = salt(&[
            (
                "etc/master",
                "file_roots:\n  base: [@/a]\ninclude: extra.conf\npillar_roots: {base: [@/p]}\nssh_user: admin\nssh_port: 2222\n",
            ),
            ("etc/master.d/10.conf", "file_roots:\n  base: [@/b]\nnodegroups: {one: 'web*'}\nroster_defaults: {sudo: true}\n"),
            ("etc/master.d/20.conf", "file_roots:\n  base: [@/c, @/b]\n  dev: [@/d]\ninclude: sub/*.conf\nnodegroups: {two: 'db*'}\n"),
            ("etc/master.d/sub/x.conf", "pillar_merge_lists: true\n"),
            ("etc/master.d/.hidden.conf", "pillar_merge_lists: 7\n"),
            ("etc/master.d/old.bak", "pillar_merge_lists: 8\n"),
            ("etc/extra.conf", "renderer: yaml\nroster_file: hosts\n"),
        ]);
        let at = |name: &str| folder.path().join(name).display().to_string();
        let master = SaltMaster::read(&folder.path().join("etc")).unwrap();
        let roots = master.settings.file_roots.unwrap();
        // What stands beside the master file goes over it as a whole; files of master.d are merged deeply.
        assert_eq!(roots["base"], [at("b"), at("c")]);
        assert_eq!(roots["dev"], [at("d")]);
        assert_eq!(master.settings.pillar_roots.unwrap()["base"], [at("p")]);
        assert_eq!(master.settings.nodegroups.unwrap().len(), 2);
        assert_eq!(master.settings.options.get("pillar_merge_lists"), Some(&Value::Bool(true)));
        assert_eq!(master.settings.options.get("renderer"), Some(&Value::str("yaml")));
        assert_eq!(master.settings.roster, Some(at("etc/hosts")));
        let defaults = master.roster_defaults;
        assert_eq!(
            (defaults.get("user"), defaults.get("port"), defaults.get("sudo")),
            (Some(&Value::str("admin")), Some(&Value::Int(2222)), Some(&Value::Bool(true)))
        );
        assert!(master.notices.is_empty());
    }

    #[test]
    fn roots_are_patterns_and_stand_for_environments() {
        let folder = salt(&[
            ("etc/master", "file_roots:\n  base: [@/formulas/*, @/states]\n  __env__: [@/envs/__env__/salt]\n"),
            ("formulas/b/b.sls", ""),
            ("formulas/a/a.sls", ""),
            ("envs/dev/salt/x.sls", ""),
            ("envs/base/salt/x.sls", ""),
            ("envs/none/other/x.sls", ""),
        ]);
        let roots = SaltMaster::read(&folder.path().join("etc")).unwrap().settings.file_roots.unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        assert_eq!(roots["base"], [at("formulas/a"), at("formulas/b"), at("states")]);
        assert_eq!(roots["dev"], [at("envs/dev/salt")]);
        assert_eq!(roots.len(), 2);
    }

    #[test]
    fn what_cannot_be_had_is_named() {
        let folder = salt(&[(
            "etc/master",
            "fileserver_backend: [gitfs, roots]\ngitfs_remotes: ['https://example.org/a.git', {'https://example.org/b.git': [root: x]}]\n\
             ext_pillar: [{git: x}, {cmd_yaml: y}]\nroster: ansible\njinja_env: {trim_blocks: true, finalize: x}\n",
        )]);
        let said: Vec<String> = SaltMaster::read(&folder.path().join("etc")).unwrap().notices.into_iter().map(|n| n.summary).collect();
        for word in ["a.git, https://example.org/b.git", "ext_pillar (git, cmd_yaml) has no effect", "\"ansible\"", "finalize"] {
            assert!(said.iter().any(|line| line.contains(word)), "{word}: {said:?}");
        }
        let only = salt(&[("etc/master", "fileserver_backend: [git]\n")]);
        assert!(SaltMaster::read(&only.path().join("etc")).err().unwrap().summary.contains("serves no local files"));
        let cycle = salt(&[("etc/master", "include: a.conf\n"), ("etc/a.conf", "include: a.conf\n")]);
        assert!(SaltMaster::read(&cycle.path().join("etc")).err().unwrap().summary.contains("includes itself"));
        assert!(SaltMaster::read(Path::new("/nonexistent")).err().unwrap().hint.is_some());
    }
}
