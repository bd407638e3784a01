//! pip.* and virtualenv.*: packages of Python, and environments for them.
//!
//! An environment is a directory like any other, which a command fills: a rollback takes the directory away with everything in it.

mod requirement;

use self::requirement::Requirement;
use super::args::Args;
use super::file::place;
use super::{Arg, ArgKind, Entry, Function, Run, There, Want};
use crate::diagnostic::Result;
use crate::plan::{Hash, Key, Kind, Low};
use crate::system::Command;
use crate::value::{Attrs, Map, Value};

/// Where the system's pip is looked for.
const PROGRAMS: [&str; 3] = ["/usr/bin/pip3", "/usr/local/bin/pip3", "/usr/bin/pip"];
const BIN_ENV: Arg = Arg::new("bin_env", ArgKind::Str, "", "The environment, or a pip program. Default: the system's pip3.");
const NO_EFFECT: &str = "Accepted without effect.";

const INSTALLED: &[Arg] = &[
    Arg::new("name", ArgKind::Str, "", "The package, as pip writes requirements: `django`, `django[argon2]>=4,<5`."),
    Arg::new("pkgs", ArgKind::Strs, "", "Several of them; the name counts no more."),
    Arg::new("requirements", ArgKind::Str, "", "A file of requirements: of the state repository (salt://…) or a path of the host."),
    BIN_ENV,
    Arg::new("pip_bin", ArgKind::Str, "", "A pip program, as bin_env."),
    Arg::new("user", ArgKind::Str, "", "Who runs pip."),
    Arg::new("cwd", ArgKind::Str, "", "The directory to run pip in."),
    Arg::new("upgrade", ArgKind::Bool, "False", "The newest version that fits, which the index is asked for at each plan."),
    Arg::new("force_reinstall", ArgKind::Bool, "False", "What is installed for the state is installed anew with what it needs."),
    Arg::new("ignore_installed", ArgKind::Bool, "False", "What is installed for the state lies over what is there."),
    Arg::new("editable", ArgKind::Str, "", "A source tree or an address with `#egg=NAME`, which is installed in place."),
    Arg::new("no_deps", ArgKind::Bool, "False", "Without what it needs."),
    Arg::new("pre_releases", ArgKind::Bool, "False", "Candidates count too."),
    Arg::new("index_url", ArgKind::Str, "", "The index."),
    Arg::new("extra_index_url", ArgKind::Strs, "", "More indexes."),
    Arg::new("find_links", ArgKind::Strs, "", "Folders and pages with packages."),
    Arg::new("no_index", ArgKind::Bool, "False", "Only find_links."),
    Arg::new("trusted_host", ArgKind::Str, "", "A host whose certificate is not checked."),
    Arg::new("cert", ArgKind::Str, "", "Certificates to trust."),
    Arg::new("proxy", ArgKind::Str, "", "The proxy."),
    Arg::new("timeout", ArgKind::Int, "", "Seconds to wait for the index."),
    Arg::new("target", ArgKind::Str, "", "Refused: what lies in another folder pip does not list."),
    Arg::new("no_binary", ArgKind::Strs, "", "Packages that are built here."),
    Arg::new("constraint", ArgKind::Str, "", "A file of the host that bounds versions."),
    Arg::new("exists_action", ArgKind::Str, "", "What pip does where a source is there already."),
    Arg::new("no_cache_dir", ArgKind::Bool, "False", "Without pip's cache."),
    Arg::new("cache_dir", ArgKind::Str, "", "Pip's cache."),
    Arg::new("env_vars", ArgKind::Map, "", "Environment variables."),
    Arg::new("extra_args", ArgKind::Strs, "", "More options of `pip install`."),
    Arg::new("use_wheel", ArgKind::Bool, "False", NO_EFFECT),
    Arg::new("no_use_wheel", ArgKind::Bool, "False", NO_EFFECT),
    Arg::new("use_vt", ArgKind::Bool, "False", NO_EFFECT),
    Arg::new("log", ArgKind::Str, "", NO_EFFECT),
];
const REMOVED: &[Arg] = &[
    Arg::new("name", ArgKind::Str, "", "The package."),
    Arg::new("pkgs", ArgKind::Strs, "", "Several of them; the name counts no more."),
    BIN_ENV,
    Arg::new("user", ArgKind::Str, "", "Who runs pip."),
    Arg::new("cwd", ArgKind::Str, "", "The directory to run pip in."),
    Arg::new("use_vt", ArgKind::Bool, "False", NO_EFFECT),
];
const MANAGED: &[Arg] = &[
    Arg::new("name", ArgKind::Str, "", "The directory of the environment."),
    Arg::new("venv_bin", ArgKind::Str, "venv", "`venv` (Python's own), `virtualenv`, or the path of either or of a python."),
    Arg::new("python", ArgKind::Str, "", "The python that it is made with."),
    Arg::new("system_site_packages", ArgKind::Bool, "False", "The system's packages are seen in it."),
    Arg::new("prompt", ArgKind::Str, "", "What the shell shows in it."),
    Arg::new("user", ArgKind::Str, "", "Who makes and owns it."),
    Arg::new("cwd", ArgKind::Str, "", "The directory to run pip in."),
    Arg::new("requirements", ArgKind::Str, "", "A file of requirements: of the state repository (salt://…) or a path of the host."),
    Arg::new("pip_pkgs", ArgKind::Strs, "", "Packages in it."),
    Arg::new("pip_upgrade", ArgKind::Bool, "False", "The newest versions that fit."),
    Arg::new("pip_ignore_installed", ArgKind::Bool, "False", "What is installed lies over what is there."),
    Arg::new("pip_exists_action", ArgKind::Str, "", "What pip does where a source is there already."),
    Arg::new("pip_no_cache_dir", ArgKind::Bool, "False", "Without pip's cache."),
    Arg::new("pip_cache_dir", ArgKind::Str, "", "Pip's cache."),
    Arg::new("index_url", ArgKind::Str, "", "The index."),
    Arg::new("extra_index_url", ArgKind::Strs, "", "More indexes."),
    Arg::new("find_links", ArgKind::Strs, "", "Folders and pages with packages (ours)."),
    Arg::new("no_index", ArgKind::Bool, "False", "Only find_links (ours)."),
    Arg::new("pre_releases", ArgKind::Bool, "False", "Candidates count too."),
    Arg::new("no_deps", ArgKind::Bool, "False", "Without what packages need."),
    Arg::new("no_binary", ArgKind::Strs, "", "Packages that are built here."),
    Arg::new("proxy", ArgKind::Str, "", "The proxy."),
    Arg::new("env_vars", ArgKind::Map, "", "Environment variables."),
    Arg::new("distribute", ArgKind::Bool, "False", NO_EFFECT),
    Arg::new("use_wheel", ArgKind::Bool, "False", NO_EFFECT),
    Arg::new("no_use_wheel", ArgKind::Bool, "False", NO_EFFECT),
    Arg::new("use_vt", ArgKind::Bool, "False", NO_EFFECT),
    Arg::new("never_download", ArgKind::Bool, "False", NO_EFFECT),
];

pub const FUNCTIONS: &[Entry] = &[
    Entry { name: "pip.installed", doc: "Packages of Python are installed.", args: INSTALLED, watches: false, parse: installed },
    Entry { name: "pip.removed", doc: "Packages of Python are not installed.", args: REMOVED, watches: false, parse: removed },
];

pub const VIRTUALENV: &[Entry] = &[
    Entry { name: "virtualenv.manage", doc: "As virtualenv.managed.", args: MANAGED, watches: false, parse: managed },
    Entry {
        name: "virtualenv.managed",
        doc: "There is an environment of Python, with these packages.",
        args: MANAGED,
        watches: false,
        parse: managed,
    },
];

/// What packages are to be there, and how pip is asked for them.
struct Packages {
    /// The program; `None`: the system's.
    program: Option<String>,
    requirements: Vec<Requirement>,
    /// A file with more of them.
    file: Option<File>,
    removed: Vec<String>,
    upgrade: bool,
    /// Attributes on the way.
    how: Attrs,
}

enum File {
    Content(Hash),
    Path(String),
}

/// `/srv/app` → `/srv/app/bin/pip`; a program is itself.
fn program(args: &Args, name: &str) -> Result<Option<String>> {
    let Some(given) = args.str(name)?.filter(|given| !given.is_empty()) else { return Ok(None) };
    let path = if given == "pip3" || given == "pip" { return Ok(None) } else { place::absolute(args, name, &given)? };
    let is_program = place::base(&path).starts_with("pip");
    Ok(Some(if is_program { path } else { format!("{path}/bin/pip") }))
}

/// `--option value` for each argument that is given.
fn options(args: &Args, given: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Vec<String>> {
    let mut out = Vec::new();
    for (name, option) in given {
        for value in args.strs(name)? {
            out.extend([(*option).to_owned(), value]);
        }
    }
    for (name, option) in flags {
        if args.bool(name, false)? {
            out.push((*option).to_owned());
        }
    }
    Ok(out)
}

fn how(args: &Args, options: Vec<String>) -> Result<Attrs> {
    let mut how = Attrs::new();
    if !options.is_empty() {
        how.insert("@options".into(), Value::List(options.into_iter().map(Value::Str).collect()));
    }
    for name in ["user", "cwd"] {
        if let Some(value) = args.str(name)?.filter(|value| !value.is_empty()) {
            how.insert(format!("@{name}"), Value::Str(value));
        }
    }
    let env: Map = args.map("env_vars")?;
    if !env.is_empty() {
        how.insert("@env".into(), Value::Map(env));
    }
    Ok(how)
}

fn requirements(args: &Args, texts: &[String]) -> Result<Vec<Requirement>> {
    let one = |text: &String| {
        Requirement::parse(text).filter(|_| !text.starts_with('-')).ok_or_else(|| args.error(format!("{text:?} is no requirement of pip")))
    };
    texts.iter().map(one).collect()
}

fn file(args: &Args) -> Result<Option<File>> {
    let Some(given) = args.str("requirements")?.filter(|given| !given.is_empty()) else { return Ok(None) };
    match args.0.contents.iter().find(|content| content.name == "requirements") {
        Some(content) => Ok(Some(File::Content(content.hash.clone()))),
        None => place::absolute(args, "requirements", &given).map(|path| Some(File::Path(path))),
    }
}

fn installed(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    if args.value("target").is_some() {
        return Err(args.error("pip.installed with a target is refused: pip does not list what lies in another folder"));
    }
    let mut texts = args.strs("pkgs")?;
    let file = file(&args)?;
    let mut extra = Vec::new();
    if let Some(editable) = args.str("editable")? {
        if !editable.contains("#egg=") {
            return Err(args.error("editable needs `#egg=NAME`: what it is called cannot be known otherwise"));
        }
        extra.extend(["-e".to_owned(), editable.clone()]);
        texts.push(editable);
    } else if texts.is_empty() && file.is_none() {
        texts.push(args.name());
    }
    let given = [
        ("index_url", "--index-url"),
        ("extra_index_url", "--extra-index-url"),
        ("find_links", "--find-links"),
        ("trusted_host", "--trusted-host"),
        ("cert", "--cert"),
        ("proxy", "--proxy"),
        ("timeout", "--timeout"),
        ("no_binary", "--no-binary"),
        ("constraint", "--constraint"),
        ("exists_action", "--exists-action"),
        ("cache_dir", "--cache-dir"),
    ];
    let flags = [
        ("no_deps", "--no-deps"),
        ("pre_releases", "--pre"),
        ("no_index", "--no-index"),
        ("force_reinstall", "--force-reinstall"),
        ("ignore_installed", "--ignore-installed"),
        ("no_cache_dir", "--no-cache-dir"),
    ];
    let mut words = options(&args, &given, &flags)?;
    words.extend(args.strs("extra_args")?);
    words.extend(extra);
    Ok(Box::new(Packages {
        program: match program(&args, "bin_env")? {
            None => program(&args, "pip_bin")?,
            some => some,
        },
        requirements: requirements(&args, &texts)?,
        file,
        removed: Vec::new(),
        upgrade: args.bool("upgrade", false)?,
        how: how(&args, words)?,
    }))
}

fn removed(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let mut texts = args.strs("pkgs")?;
    if texts.is_empty() {
        texts.push(args.name());
    }
    Ok(Box::new(Packages {
        program: program(&args, "bin_env")?,
        requirements: Vec::new(),
        file: None,
        removed: requirements(&args, &texts)?.into_iter().map(|r| r.name).collect(),
        upgrade: false,
        how: how(&args, Vec::new())?,
    }))
}

impl Packages {
    fn program(&self, there: &dyn There) -> String {
        let is_there = |path: &&str| place::kind(&there.get(&place::key(path))).is_some();
        match &self.program {
            Some(program) => program.clone(),
            None => PROGRAMS.iter().copied().find(|path| is_there(path)).unwrap_or(PROGRAMS[0]).to_owned(),
        }
    }

    fn keys(&self, there: &dyn There) -> Vec<Key> {
        let mut keys: Vec<Key> = match &self.program {
            Some(program) => vec![place::key(program)],
            None => PROGRAMS.iter().map(|path| place::key(path)).collect(),
        };
        if let Some(File::Path(path)) = &self.file {
            keys.extend(place::follow_keys(there, path));
        }
        keys.push(Key::new(Kind::Pip, self.program(there)));
        keys
    }

    /// The lines of the file of requirements; others than those that name packages are refused.
    fn lines(&self, there: &dyn There) -> Result<Vec<Requirement>> {
        let hash = match &self.file {
            None => return Ok(Vec::new()),
            Some(File::Content(hash)) => hash.clone(),
            Some(File::Path(path)) => {
                let real = place::follow(there, path)?;
                let hash = place::text(&there.get(&place::key(&real)), "content").map(str::to_owned);
                Hash(hash.ok_or_else(|| place::failed(format!("the file of requirements {path} is not there")))?)
            }
        };
        let bytes = there.bytes(&hash)?;
        let text = String::from_utf8_lossy(&bytes).replace("\\\n", " ");
        let plain = text
            .lines()
            .map(|line| line.split(" #").next().unwrap_or_default().trim())
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let wrong = |line: &str| {
            place::failed(format!("a line of the requirements is not understood: {line}")).hint("options go into the state's arguments")
        };
        // Hashes of files are pip's to check; it takes them only from a file.
        plain.map(|line| Requirement::parse(line).filter(|_| !line.contains(" --")).ok_or_else(|| wrong(line).into())).collect()
    }

    fn wants(&self, there: &dyn There) -> Result<Vec<(Key, Attrs)>> {
        let key = Key::new(Kind::Pip, self.program(there));
        let now = there.get(&key);
        let mut wanted = Attrs::new();
        for requirement in self.requirements.iter().cloned().chain(self.lines(there)?) {
            let fine = now
                .get(&requirement.name)
                .and_then(Value::as_str)
                .is_some_and(|there| requirement.fulfilled_by(there) || there == requirement.text);
            if !fine || self.upgrade {
                wanted.insert(requirement.name, Value::Str(requirement.text));
            }
        }
        wanted.extend(self.removed.iter().filter(|name| now.contains_key(*name)).map(|name| (name.clone(), Value::Null)));
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        wanted.extend(self.how.clone());
        if self.upgrade {
            wanted.insert("@upgrade".into(), Value::Bool(true));
        }
        Ok(vec![(key, wanted)])
    }
}

impl Function for Packages {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        let mut keys = self.keys(there);
        keys.extend(self.program.iter().map(|program| place::key(place::parent(place::parent(program)))));
        Ok(keys)
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        let program = self.program(there);
        let made_before =
            self.program.as_ref().is_some_and(|p| place::kind(&there.get(&place::key(place::parent(place::parent(p))))).is_some());
        if place::kind(&there.get(&place::key(&program))).is_none() && !made_before && !there.uncertain() {
            if self.removed.is_empty() {
                return Err(place::failed(format!("{program} is not there"))
                    .hint("install pip, or make the environment, before it")
                    .into());
            }
            return Ok(Want::Nothing(format!("{program} is not there")));
        }
        let wants = self.wants(there)?;
        Ok(if wants.is_empty() { Want::Nothing("All specified packages are as described".into()) } else { Want::Is(wants) })
    }
}

/// Makes the environment with its arguments, then installs with `$0` what stands on standard input.
const FILL: &str = r#""$@" </dev/null || exit; exec xargs -0 -r "$0" install --disable-pip-version-check --no-input"#;

struct Environment {
    path: String,
    command: Command,
    owner: place::Owner,
    packages: Option<Packages>,
}

fn managed(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let path = place::name(&args)?;
    let tool = args.str("venv_bin")?.filter(|tool| !tool.is_empty()).unwrap_or_else(|| "venv".to_owned());
    let python = args.str("python")?.filter(|python| !python.is_empty());
    let base = place::base(&tool);
    let mut argv = match base {
        "venv" | "pyvenv" => vec![python.clone().unwrap_or_else(|| "python3".to_owned()), "-m".to_owned(), "venv".to_owned()],
        _ if base.starts_with("python") => vec![tool.clone(), "-m".to_owned(), "venv".to_owned()],
        _ if tool.starts_with('-') => return Err(args.error(format!("venv_bin cannot be {tool:?}"))),
        _ => {
            let python = python.iter().flat_map(|python| ["--python".to_owned(), python.clone()]);
            std::iter::once(tool.clone()).chain(python).collect()
        }
    };
    if args.bool("system_site_packages", false)? {
        argv.push("--system-site-packages".to_owned());
    }
    if let Some(prompt) = args.str("prompt")? {
        argv.extend(["--prompt".to_owned(), prompt]);
    }
    argv.push(path.clone());
    let given = [
        ("index_url", "--index-url"),
        ("extra_index_url", "--extra-index-url"),
        ("find_links", "--find-links"),
        ("no_binary", "--no-binary"),
        ("proxy", "--proxy"),
        ("pip_exists_action", "--exists-action"),
        ("pip_cache_dir", "--cache-dir"),
    ];
    let flags = [
        ("no_deps", "--no-deps"),
        ("pre_releases", "--pre"),
        ("no_index", "--no-index"),
        ("pip_ignore_installed", "--ignore-installed"),
        ("pip_no_cache_dir", "--no-cache-dir"),
    ];
    let (texts, file) = (args.strs("pip_pkgs")?, file(&args)?);
    let packages = (!texts.is_empty() || file.is_some())
        .then(|| -> Result<Packages> {
            Ok(Packages {
                program: Some(format!("{path}/bin/pip")),
                requirements: requirements(&args, &texts)?,
                file,
                removed: Vec::new(),
                upgrade: args.bool("pip_upgrade", false)?,
                how: how(&args, options(&args, &given, &flags)?)?,
            })
        })
        .transpose()?;
    let command = Command { user: args.str("user")?.filter(|user| !user.is_empty()), ..Command::new(argv) };
    let owner = place::Owner { user: command.user.clone(), group: None };
    Ok(Box::new(Environment { path, command, owner, packages }))
}

impl Function for Environment {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        let mut keys = place::follow_keys(there, &self.path);
        keys.extend(place::parent_keys(there, &self.path, true));
        keys.push(place::key(&format!("{}/bin/python", self.path)));
        keys.extend(self.owner.keys(&there.get(&place::key(&self.path))));
        keys.extend(self.packages.iter().flat_map(|packages| packages.keys(there)));
        Ok(keys)
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        self.owner.check(there)?;
        let packages = self.packages.as_ref().map(|packages| packages.wants(there)).transpose()?.unwrap_or_default();
        if place::kind(&there.get(&place::key(&format!("{}/bin/python", self.path)))).is_some() {
            return Ok(if packages.is_empty() { Want::Nothing("virtualenv exists".into()) } else { Want::Is(packages) });
        }
        let mut wants = Vec::new();
        let empty = match place::kind(&there.get(&place::key(&self.path))) {
            None => true,
            Some("directory") => there.list(&self.path)?.is_empty(),
            Some(other) => return Err(place::failed(format!("{} is {}, not a directory", self.path, place::named(other))).into()),
        };
        let made = self.owner.directory(place::NEW_DIRECTORY);
        wants.extend(place::parents(there, &self.path, Some(&made))?);
        wants.push((place::key(&self.path), made));
        // pip is there only when the environment is: one command makes it and installs its packages.
        let wanted = packages.first().map(|(_, wanted)| wanted.clone()).unwrap_or_default();
        let options = wanted.get("@options").and_then(Value::as_list).unwrap_or_default().iter().map(Value::to_text);
        let texts: Vec<String> = wanted.iter().filter(|(name, _)| !name.starts_with('@')).map(|(_, text)| text.to_text()).collect();
        let shown =
            [self.command.argv.join(" "), if texts.is_empty() { String::new() } else { format!(" && pip install {}", texts.join(" ")) }]
                .concat();
        let words: Vec<String> = if texts.is_empty() { Vec::new() } else { options.chain(texts).collect() };
        let argv = ["/bin/sh", "-c", FILL]
            .map(str::to_owned)
            .into_iter()
            .chain([format!("{}/bin/pip", self.path)])
            .chain(self.command.argv.iter().cloned());
        let env =
            wanted.get("@env").and_then(Value::as_map).into_iter().flat_map(|map| map.iter()).map(|(n, v)| (n.to_text(), v.to_text()));
        let command = Command { stdin: words.join("\0").into_bytes(), env: env.collect(), argv: argv.collect(), ..self.command.clone() };
        // In a directory that was there it leaves its files.
        let one_way = (!empty).then(|| format!("it fills {}, which is there", self.path));
        let run = Run { one_way, ..Run::new(command, shown) };
        Ok(Want::Then(wants, run))
    }
}

#[cfg(test)]
mod tests;
