//! git.*: work trees that stand on a revision of a remote, and settings of git. What the remote has is asked when the plan is made, so that a plan
//! names the commit.

use super::args::Args;
use super::edit::{self, TextFile};
use super::file::place::{self, attrs, failed, kind, named};
use super::{Arg, ArgKind, Entry, Function, There, Want};
use crate::diagnostic::Result;
use crate::plan::{Key, Kind, Low};
use crate::value::{Attrs, Value};

const NAME: Arg = Arg::new("name", ArgKind::Str, "", "The address of the remote. Example: https://example.org/app.git");
const TARGET: Arg = Arg::new("target", ArgKind::Str, "", "The directory of the work tree. Example: /opt/app");
const USER: Arg = Arg::new("user", ArgKind::Str, "", "Who runs git, and owns a new work tree.");
const IDENTITY: Arg = Arg::new("identity", ArgKind::Strs, "", "The path of a private key on the host, for remotes over ssh.");

const fn accepted(name: &'static str) -> Arg {
    Arg::new(name, ArgKind::Any, "", "Accepted without effect.")
}

const LATEST: &[Arg] = &[
    NAME,
    TARGET,
    Arg::new("rev", ArgKind::Str, "HEAD", "A branch, tag or whole commit id of the remote."),
    Arg::new("branch", ArgKind::Str, "", "The local branch to be on. Default: as it is; of a new work tree that of the remote."),
    USER,
    IDENTITY,
    Arg::new("force_reset", ArgKind::Any, "False", "Whether commits and changes that are only here are given up."),
    Arg::new("force_clone", ArgKind::Bool, "False", "Whether a directory that is no work tree goes, with everything in it."),
    Arg::new("force_checkout", ArgKind::Bool, "False", "Whether changes that are only here are given up."),
    Arg::new("submodules", ArgKind::Bool, "False", "Whether submodules are brought up to date as well."),
    Arg::new("depth", ArgKind::Int, "", "How many commits of the history are fetched."),
    Arg::new("fetch_tags", ArgKind::Bool, "True", "Whether all tags are fetched."),
    Arg::new("update_head", ArgKind::Bool, "True", "False: a work tree that is there stays where it is."),
    Arg::new("remote", ArgKind::Str, "origin", "The remote's name; no other than origin is known."),
    accepted("force_fetch"),
    accepted("always_fetch"),
    accepted("sync_tags"),
    accepted("refspec_branch"),
    accepted("refspec_tag"),
    accepted("output_encoding"),
];

pub const FUNCTIONS: &[Entry] = &[
    Entry {
        name: "git.cloned",
        doc: "A directory is a work tree of this remote, wherever it stands.",
        args: &[NAME, TARGET, Arg::new("branch", ArgKind::Str, "", "The branch to be on."), USER, IDENTITY, accepted("output_encoding")],
        watches: false,
        parse: cloned,
    },
    Entry {
        name: "git.config_set",
        doc: "A setting of git, of a user or of a repository.",
        args: &[
            Arg::new("name", ArgKind::Str, "", "The setting. Example: user.email"),
            Arg::new("value", ArgKind::Str, "", "Its value."),
            Arg::new("multivar", ArgKind::Strs, "", "Its values, where it has several."),
            Arg::new("repo", ArgKind::Str, "", "The repository whose setting it is."),
            Arg::new("user", ArgKind::Str, "root", "Whose setting it is, where it is global."),
            Arg::new("global", ArgKind::Bool, "False", "Whether it is the user's, for all repositories."),
            accepted("output_encoding"),
        ],
        watches: false,
        parse: config_set,
    },
    Entry {
        name: "git.latest",
        doc: "A directory is a work tree that stands on a revision of its remote.",
        args: LATEST,
        watches: false,
        parse: latest,
    },
];

struct Tree {
    target: String,
    user: Option<String>,
    /// What is wanted of the tree.
    wanted: Attrs,
    force_clone: bool,
    /// A tree that is there need not move.
    once: bool,
}

/// What becomes an argument of git must not look like an option of it.
fn plain(args: &Args, what: &str, text: &str) -> Result<()> {
    match text.starts_with('-') || text.contains(|c: char| c.is_control()) {
        true => Err(args.error(format!("{text:?} cannot be the {what} of {}", args.0.function()))),
        false => Ok(()),
    }
}

fn tree(args: &Args, rev: Option<String>, branch: Option<String>) -> Result<Tree> {
    let target = args.str("target")?.unwrap_or_default();
    let target = place::absolute(args, "target", &target)?;
    let url = args.name();
    let user = args.str("user")?.filter(|u| !u.is_empty());
    let mut wanted = attrs([("remote", &url), ("rev", rev.as_deref().unwrap_or("HEAD"))]);
    let mut put = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            wanted.insert(name.to_owned(), Value::Str(value));
        }
    };
    for (what, text) in [("name", Some(&url)), ("rev", rev.as_ref()), ("branch", branch.as_ref())] {
        text.map_or(Ok(()), |text| plain(args, what, text))?;
    }
    put("branch", branch);
    put("@user", user.clone());
    let identity = args.strs("identity")?.into_iter().next().filter(|i| !i.is_empty());
    if let Some(path) = &identity
        && !path.starts_with('/')
    {
        let error = args.error(format!("identity {path} is no path of the host"));
        return Err(Box::new(error.hint("put the key there with a file.managed before this state")));
    }
    put("@identity", identity);
    // What says how to get there tells a want from what was read before a run, which a rollback wants.
    wanted.insert("@force".into(), Value::Bool(false));
    Ok(Tree { target, user, wanted, force_clone: false, once: true })
}

fn latest(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    if args.str("remote")?.is_some_and(|name| name != "origin") {
        return Err(args.error("git.latest knows no other remote than origin"));
    }
    let given = |name: &str| Ok::<_, crate::diagnostic::Error>(args.str(name)?.filter(|t| !t.is_empty()));
    let mut tree = tree(&args, given("rev")?, given("branch")?)?;
    let force = args.value("force_reset").is_some_and(Value::truthy) || args.bool("force_checkout", false)?;
    let flags = [("@force", force), ("@tags", args.bool("fetch_tags", true)?), ("@submodules", args.bool("submodules", false)?)];
    tree.wanted.extend(flags.into_iter().filter(|(_, on)| *on).map(|(name, _)| (name.to_owned(), Value::Bool(true))));
    if let Some(depth) = args.int("depth")?.filter(|depth| *depth > 0) {
        tree.wanted.insert("@depth".into(), Value::Int(depth));
    }
    tree.force_clone = args.bool("force_clone", false)?;
    tree.once = !args.bool("update_head", true)?;
    Ok(Box::new(tree))
}

fn cloned(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let branch = args.str("branch")?.filter(|b| !b.is_empty());
    Ok(Box::new(tree(&args, branch.clone(), branch)?))
}

impl Tree {
    fn key(&self) -> Key {
        Key::new(Kind::Git, &self.target)
    }
}

impl Function for Tree {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        let mut keys = vec![self.key(), place::key(&self.target)];
        keys.extend(place::parent_keys(there, &self.target, true));
        keys.extend(self.user.iter().map(|user| Key::new(Kind::User, user)));
        Ok(keys)
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        if let Some(user) = &self.user
            && there.get(&Key::new(Kind::User, user)).is_empty()
            && !there.uncertain()
        {
            return Err(failed(format!("user {user} is not available")).hint(format!("add a user.present for {user} before it")).into());
        }
        let now = there.get(&self.key());
        if !now.is_empty() {
            let moves = self.wanted.get("branch").is_some_and(|branch| now.get("branch") != Some(branch));
            if self.once && !moves {
                return Ok(Want::Nothing(format!("Repository already exists at {}", self.target)));
            }
            return Ok(Want::Is(vec![(self.key(), self.wanted.clone())]));
        }
        let directory = place::key(&self.target);
        let mut made = attrs([("kind", "directory"), ("mode", place::NEW_DIRECTORY)]);
        let mut wants = place::parents(there, &self.target, Some(&made))?;
        made.extend(self.user.iter().map(|user| ("user".to_owned(), Value::str(user))));
        match kind(&there.get(&directory)) {
            None => wants.push((directory, made)),
            Some("directory") if there.list(&self.target)?.is_empty() => {}
            Some("directory") if self.force_clone => wants.extend([(directory.clone(), Attrs::new()), (directory, made)]),
            Some("directory") => {
                let summary = format!("Target '{}' exists, is non-empty and is not a git repository.", self.target);
                return Err(failed(summary).hint("force_clone: True removes it, with everything in it, and clones").into());
            }
            Some(other) => return Err(failed(format!("{} is {}, not a directory", self.target, named(other))).into()),
        }
        wants.push((self.key(), self.wanted.clone()));
        Ok(Want::Is(wants))
    }
}

struct Config {
    /// `user`, `remote "origin"`.
    section: String,
    name: String,
    values: Vec<String>,
    /// The repository; else it is the user's.
    repo: Option<String>,
    user: String,
}

fn config_set(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let setting = args.name();
    let (Some((section, _)), Some((_, name))) = (setting.split_once('.'), setting.rsplit_once('.')) else {
        return Err(args.error(format!("{setting:?} is no setting of git: section.name is")));
    };
    let within = setting.get(section.len() + 1..setting.len().saturating_sub(name.len() + 1)).filter(|s| !s.is_empty());
    let good = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if !good(section) || !good(name) || within.is_some_and(|s| s.contains(['"', '\n', ']', '\\'])) {
        return Err(args.error(format!("{setting:?} is no setting of git: section.name is")));
    }
    let values = match (args.str("value")?, args.strs("multivar")?) {
        (Some(value), several) if several.is_empty() => vec![value],
        (None, several) if !several.is_empty() => several,
        _ => return Err(args.error("git.config_set needs one of value and multivar")),
    };
    let repo = args.str("repo")?.map(|path| place::absolute(&args, "repo", &path)).transpose()?;
    if repo.is_some() == args.bool("global", false)? {
        return Err(args.error("git.config_set needs repo, or global: True, and not both"));
    }
    let section = within.map_or(section.to_owned(), |within| format!("{section} \"{within}\""));
    let user = args.str("user")?.filter(|u| !u.is_empty()).unwrap_or_else(|| "root".into());
    // Booleans as git writes them.
    let values = values.into_iter().map(|v| if v == "True" || v == "False" { v.to_lowercase() } else { v }).collect();
    Ok(Box::new(Config { section, name: name.to_owned(), values, repo, user }))
}

/// A value as it stands in the file.
fn quoted(value: &str) -> String {
    let inside = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\t', "\\t");
    let quotes = value.starts_with([' ', '\t']) || value.ends_with([' ', '\t']) || value.contains(['#', ';']);
    if quotes { format!("\"{inside}\"") } else { inside }
}

/// The section that a line begins, its first word in lower case.
fn header(line: &str) -> Option<String> {
    let inside = line.trim().strip_prefix('[')?.split_once(']')?.0;
    Some(inside.split_once(' ').map_or(inside.to_lowercase(), |(section, within)| format!("{} {}", section.to_lowercase(), within.trim())))
}

impl Config {
    fn edited(&self, text: &str) -> String {
        let text = edit::ended(text);
        let wanted = self.section.split_once(' ').map_or(self.section.to_lowercase(), |(s, w)| format!("{} {w}", s.to_lowercase()));
        let line = |value: &String| format!("\t{} = {}\n", self.name, quoted(value));
        let ours = |line: &str| line.split_once('=').map_or(line, |(name, _)| name).trim().eq_ignore_ascii_case(&self.name);
        let lines: Vec<(bool, &str)> = text
            .split_inclusive('\n')
            .scan(false, |inside, line| {
                if let Some(section) = header(line) {
                    *inside = section == wanted;
                }
                Some((*inside, line))
            })
            .collect();
        let there: Vec<&str> = lines.iter().filter(|(inside, line)| *inside && ours(line)).map(|(_, line)| line.trim()).collect();
        let want: Vec<String> = self.values.iter().map(line).collect();
        if there.len() == want.len()
            && there
                .iter()
                .zip(&want)
                .all(|(a, b)| a.split_once('=').is_some_and(|(_, v)| Some(v.trim()) == b.split_once('=').map(|(_, v)| v.trim())))
        {
            return text;
        }
        let mut out = String::new();
        // Behind the first that is there, else at the end of the section.
        let first = lines.iter().position(|(inside, line)| *inside && ours(line));
        let at = first.or(lines.iter().rposition(|(inside, line)| *inside && !line.trim().is_empty()).map(|last| last + 1));
        for (number, (inside, line)) in lines.iter().enumerate() {
            if at == Some(number) {
                out.push_str(&want.concat());
            }
            if !(*inside && ours(line)) {
                out.push_str(line);
            }
        }
        match at {
            None => out.push_str(&format!("[{}]\n{}", self.section, want.concat())),
            Some(at) if at >= lines.len() => out.push_str(&want.concat()),
            Some(_) => {}
        }
        out
    }

    fn file(&self, there: &dyn There) -> Option<TextFile> {
        if let Some(repo) = &self.repo {
            return Some(TextFile { made: None, ..TextFile::new(format!("{repo}/.git/config")) });
        }
        let user = there.get(&Key::new(Kind::User, &self.user));
        let home = user.get("home").and_then(Value::as_str)?;
        let made = attrs([("mode", place::NEW_FILE), ("user", &self.user)]);
        Some(TextFile { made: Some(made), ..TextFile::new(place::join(home, ".gitconfig")) })
    }
}

impl Function for Config {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        let mut keys = vec![Key::new(Kind::User, &self.user)];
        if let Some(file) = self.file(there) {
            keys.extend(file.keys(there)?);
        }
        Ok(keys)
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        match self.file(there) {
            Some(file) => file.want(there, |text| Ok(self.edited(text))),
            None if there.uncertain() => {
                Ok(Want::Unknown(format!("whether user {} will be there is known after an earlier command", self.user)))
            }
            None => Err(failed(format!("user {} is not available", self.user)).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::double::Double;

    const LATEST: &str = r#"{"name": "https://x/a.git", "target": "/opt/app", "rev": "v1", "user": "al", "force_reset": true, "depth": 1}"#;

    #[test]
    fn a_work_tree_is_made_with_its_directory() {
        let mut host = Double::new();
        host.set("user:al", r#"{"uid": 1000, "home": "/home/al"}"#);
        // `/opt`, the directory, the tree.
        assert_eq!(host.apply("git.latest", LATEST).unwrap(), 3);
        assert_eq!((host.at("/opt/app").as_str(), host.attr("/opt/app", "user").as_str()), ("directory 0755", "al"));
        let tree = &host.objects[&"git:/opt/app".parse().unwrap()];
        for (name, value) in
            [("rev", "v1"), ("remote", "https://x/a.git"), ("@user", "al"), ("@depth", "1"), ("@force", "True"), ("@tags", "True")]
        {
            assert_eq!(tree[name].to_text(), value, "{name}");
        }
        assert_eq!(host.apply("git.cloned", r#"{"name": "https://x/a.git", "target": "/opt/app"}"#).unwrap(), 0);
        assert_eq!(
            host.apply("git.latest", r#"{"name": "https://x/a.git", "target": "/opt/app", "rev": "v2", "update_head": false}"#).unwrap(),
            0
        );
    }

    #[test]
    fn what_stands_there_goes_only_when_told() {
        let mut host = Double::new();
        host.directory("/opt").directory("/opt/app").file("/opt/app/mine", "x");
        let args = |more: &str| format!(r#"{{"name": "u", "target": "/opt/app"{more}}}"#);
        let error = host.apply("git.latest", &args("")).unwrap_err();
        assert!(error.summary.contains("is not a git repository"), "{}", error.summary);
        host.apply("git.latest", &args(r#", "force_clone": true"#)).unwrap();
        assert_eq!(host.at("/opt/app/mine"), "absent");
        for (args, said) in [
            (r#"{"name": "--upload-pack=x", "target": "/a"}"#, "cannot be the name"),
            (r#"{"name": "u", "target": "/a", "identity": "salt://key"}"#, "is no path of the host"),
            (r#"{"name": "u"}"#, "needs target"),
            (r#"{"name": "u", "target": "/a", "user": "no"}"#, "user no is not available"),
            (r#"{"name": "u", "target": "/a", "remote": "up"}"#, "no other remote"),
        ] {
            let error = host.apply("git.latest", args).unwrap_err();
            assert!(error.summary.contains(said), "{args}: {}", error.summary);
        }
    }

    #[test]
    fn settings_are_written_as_git_writes_them() {
        let mut host = Double::new();
        host.directory("/root").set("user:root", r#"{"uid": 0, "home": "/root"}"#);
        let mut set =
            |name: &str, value: &str| host.apply("git.config_set", &format!(r#"{{"name": "{name}", {value}, "global": true}}"#)).unwrap();
        assert_eq!(set("user.name", r#""value": "A B""#), 1);
        assert_eq!(set("url.ssh://x/.insteadOf", r#""multivar": ["https://x/", "git://x/"]"#), 1);
        set("user.email", r#""value": "a@b # c""#);
        set("user.NAME", r#""value": "C""#);
        set("http.sslVerify", r#""value": false"#);
        assert_eq!(set("http.sslverify", r#""value": "false""#), 0);
        assert_eq!(
            host.at("/root/.gitconfig"),
            "[user]\n\tNAME = C\n\temail = \"a@b # c\"\n[url \"ssh://x/\"]\n\tinsteadOf = https://x/\n\tinsteadOf = git://x/\n[http]\n\tsslVerify = false\n"
        );
    }
}
