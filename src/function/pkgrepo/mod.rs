//! pkgrepo.*: where packages come from. `apt` are the sources of Debian and its like, `yum` the `.repo` files of Red Hat and SUSE; both are
//! edits of text files, and the package lists are fetched anew behind them.

mod apt;
mod key;
mod source;
#[cfg(test)]
mod tests;
mod yum;

use self::source::Source;
use super::args::Args;
use super::edit::differ;
use super::file::place::{self, failed};
use super::{Arg, ArgKind, Entry, Function, Run, There, Want};
use crate::diagnostic::Result;
use crate::plan::{Hash, Key, Low};
use crate::system::Command;
use crate::value::{Attrs, Value};

/// Directories that tell which kind of host it is.
const APT: &str = "/etc/apt";
const YUM: [&str; 2] = ["/etc/yum.repos.d", "/etc/zypp/repos.d"];

const NAME: Arg = Arg::new(
    "name",
    ArgKind::Str,
    "",
    "apt: the line, as it stands in sources.list. Else the repository's id. Example: deb http://deb.debian.org/debian bookworm main",
);
const REFRESH: Arg = Arg::new("refresh", ArgKind::Bool, "True", "Whether the package lists are fetched when something changed.");
const REFRESH_DB: Arg = Arg::new("refresh_db", ArgKind::Bool, "True", "The older name of refresh.");
const KEYID: Arg = Arg::new("keyid", ArgKind::Strs, "", "The id of the key, or a list of them.");
const PPA: Arg = Arg::new("ppa", ArgKind::Str, "", "Refused: Launchpad would have to be asked. Write the line and the key out.");
const COPR: Arg = Arg::new("copr", ArgKind::Str, "", "Refused: write the repository out.");

/// An option of `.repo` files, as it is.
const fn option(name: &'static str) -> Arg {
    Arg::new(name, ArgKind::Any, "", "yum, dnf, zypper: an option of the repository's section.")
}

const OPTIONS: [&str; 37] = [
    "autorefresh",
    "baseurl",
    "bandwidth",
    "cost",
    "deltarpm",
    "enablegroups",
    "exclude",
    "excludepkgs",
    "failovermethod",
    "fastestmirror",
    "gpgcakey",
    "gpgcheck",
    "gpgkey",
    "http_caching",
    "includepkgs",
    "ip_resolve",
    "keepalive",
    "keeppackages",
    "metadata_expire",
    "metalink",
    "mirrorlist",
    "mirrorlist_expire",
    "module_hotfixes",
    "password",
    "path",
    "pkg_gpgcheck",
    "priority",
    "protect",
    "proxy",
    "repo_gpgcheck",
    "retries",
    "skip_if_unavailable",
    "sslcacert",
    "sslclientcert",
    "sslclientkey",
    "sslverify",
    "type",
];

const MANAGED: [Arg; 25 + OPTIONS.len()] = {
    let mut args = [NAME; 25 + OPTIONS.len()];
    args[1] = Arg::new("file", ArgKind::Str, "/etc/apt/sources.list", "apt: the file of a new source, `.list` or `.sources`.");
    args[2] = Arg::new("clean_file", ArgKind::Bool, "False", "apt: whether everything else in that file goes.");
    args[3] = Arg::new(
        "key_url",
        ArgKind::Str,
        "",
        "apt: where the key is: https://…, salt://… or a path of the host. The controller fetches it.",
    );
    args[4] = Arg::new("key_text", ArgKind::Str, "", "apt: the key itself.");
    args[5] = KEYID;
    args[6] = Arg::new("keyserver", ArgKind::Str, "", "apt: the server that has the key; the controller asks it over https.");
    args[7] = Arg::new("signedby", ArgKind::Str, "", "apt: the file that the key goes to, as `[signed-by=…]` in the line.");
    args[8] =
        Arg::new("aptkey", ArgKind::Bool, "True", "apt: False insists on signed-by; else a key without it goes to /etc/apt/trusted.gpg.d.");
    args[9] = Arg::new("trusted", ArgKind::Bool, "", "apt: whether the source needs no signature.");
    args[10] = Arg::new("comps", ArgKind::Str, "", "apt: the components, with commas, instead of those in the line.");
    args[11] = Arg::new("dist", ArgKind::Str, "", "apt: the suite, instead of that in the line.");
    args[12] = Arg::new("architectures", ArgKind::Str, "", "apt: the architectures, with commas.");
    args[13] = Arg::new("enabled", ArgKind::Any, "True", "Whether it is used.");
    args[14] = Arg::new("disabled", ArgKind::Any, "False", "The opposite of enabled.");
    args[15] = Arg::new("comments", ArgKind::Strs, "", "Comments beside it.");
    args[16] = Arg::new("consolidate", ArgKind::Bool, "False", "Refused where it is True: it would write all sources into one file.");
    args[17] = Arg::new("allow_insecure_key", ArgKind::Bool, "True", "apt: False refuses a key_url with http.");
    args[18] = REFRESH;
    args[19] = REFRESH_DB;
    args[20] = PPA;
    args[21] = COPR;
    args[22] = Arg::new("humanname", ArgKind::Str, "", "yum, dnf, zypper: the name for people.");
    args[23] = Arg::new("gpgautoimport", ArgKind::Bool, "False", "Accepted without effect.");
    args[24] = Arg::new("refresh_modules", ArgKind::Bool, "", "Accepted without effect.");
    let mut i = 0;
    while i < OPTIONS.len() {
        args[25 + i] = option(OPTIONS[i]);
        i += 1;
    }
    args
};

pub const FUNCTIONS: &[Entry] = &[
    Entry {
        name: "pkgrepo.absent",
        doc: "A source of packages is not used.",
        args: &[
            NAME,
            KEYID,
            Arg::new("keyid_ppa", ArgKind::Bool, "False", "Accepted without effect, for ppa is refused."),
            Arg::new("key_url", ArgKind::Str, "", "Accepted without effect, as in Salt."),
            Arg::new("file", ArgKind::Str, "", "Accepted without effect, as in Salt."),
            PPA,
            COPR,
            REFRESH,
            REFRESH_DB,
        ],
        watches: false,
        parse: absent,
    },
    Entry { name: "pkgrepo.managed", doc: "A source of packages is used.", args: &MANAGED, watches: false, parse: managed },
];

/// Where the keys of a source come from.
#[derive(Default)]
struct Keys {
    /// What the controller has: which key is wanted (an id, where one was named), and the contents.
    contents: Vec<(Option<String>, Hash)>,
    text: Option<String>,
    /// A file of the host.
    local: Option<String>,
}

/// One state, for either kind of host.
struct Repo {
    name: String,
    apt: std::result::Result<Goal, String>,
    yum: yum::Repo,
    absent: bool,
}

enum Goal {
    Managed(apt::Managed),
    Absent(apt::Absent),
    /// A name that is no line of apt's is nowhere.
    Nothing,
}

fn refused(args: &Args) -> Result<()> {
    for (name, hint) in [
        (
            "ppa",
            "write it out: deb https://ppa.launchpadcontent.net/OWNER/NAME/ubuntu CODENAME main, with keyid and keyserver: keyserver.ubuntu.com",
        ),
        ("copr", "write it out: baseurl and gpgkey are in the file that `dnf copr enable` would make"),
    ] {
        if args.value(name).is_some_and(Value::truthy) {
            let error = args.error(format!("{} does not know {name}: what it stands for is known on the web only", args.0.function()));
            return Err(Box::new(error.hint(hint)));
        }
    }
    Ok(())
}

fn truth(args: &Args, name: &str) -> Result<Option<bool>> {
    let wrong = || args.error(format!("argument {name} of {} is to be True or False", args.0.function()));
    args.value(name)
        .map(|value| match value.to_text().to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => Ok(true),
            "0" | "false" | "no" | "off" | "" => Ok(false),
            _ => Err(wrong()),
        })
        .transpose()
}

fn managed(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    refused(&args)?;
    if args.bool("consolidate", false)? {
        return Err(args.error("pkgrepo.managed does not consolidate: all sources would move into one file"));
    }
    let enabled = match (truth(&args, "enabled")?, truth(&args, "disabled")?) {
        (Some(_), Some(_)) => return Err(args.error("Only one of enabled/disabled is allowed")),
        (Some(enabled), None) => enabled,
        (None, disabled) => !disabled.unwrap_or(false),
    };
    let refresh = args.bool("refresh", true)? && args.bool("refresh_db", true)?;
    let keys = keys(&args)?;
    let apt = line(&args, enabled)?
        .ok_or_else(|| format!("Name {} is not valid. This must be the complete repo entry as seen in the sources file", args.name()));
    let file = args.str("file")?.filter(|f| !f.is_empty()).map(|path| place::absolute(&args, "file", &path)).transpose()?;
    let clean = args.bool("clean_file", false)?;
    let apt = match apt {
        Ok(_) if clean && file.is_none() => return Err(args.error("clean_file needs the argument file")),
        Ok(source) => Ok(Goal::Managed(apt::Managed {
            source,
            comment: args.value("comments").is_some(),
            file,
            clean,
            keys,
            no_apt_key: !args.bool("aptkey", true)?,
            refresh,
        })),
        Err(why) => Err(why),
    };
    let mut options = Vec::new();
    if let Some(name) = args.str("humanname")?.filter(|n| !n.is_empty()) {
        options.push(("name".to_owned(), name));
    }
    for name in OPTIONS {
        if let Some(value) = low.args.get(name) {
            let value = match value {
                Value::Null => String::new(),
                Value::Bool(flag) => u8::from(*flag).to_string(),
                Value::List(list) => list.iter().map(Value::to_text).collect::<Vec<_>>().join("\n"),
                other => other.to_text(),
            };
            options.push((name.to_owned(), value));
        }
    }
    options.push(("enabled".to_owned(), u8::from(enabled).to_string()));
    let yum = yum::Repo { id: args.name(), options, comments: args.strs("comments")?, refresh };
    Ok(Box::new(Repo { name: args.name(), apt, yum, absent: false }))
}

/// The line of apt's that the state means; nothing where its name is none.
fn line(args: &Args, enabled: bool) -> Result<Option<Source>> {
    let Some(mut source) = Source::parse(&args.name()) else { return Ok(None) };
    let list = |name: &str| -> Result<Option<Vec<String>>> {
        Ok(args.str(name)?.map(|text| text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()))
    };
    if let Some(components) = list("comps")? {
        source.components = components;
    }
    if let Some(architectures) = list("architectures")? {
        source.set_option("arch", &architectures.join(","));
    }
    if let Some(suite) = args.str("dist")?.filter(|d| !d.is_empty()) {
        source.suite = suite;
    }
    if let Some(path) = args.str("signedby")?.filter(|p| !p.is_empty()) {
        source.set_option("signed-by", &path);
    }
    match args.value("trusted").is_some() && args.bool("trusted", false)? {
        true => source.set_option("trusted", "yes"),
        false => source.options.retain(|(name, value)| name != "trusted" || value == "yes"),
    }
    source.disabled = !enabled;
    if args.value("comments").is_some() {
        source.comment = args.strs("comments")?.join(" ").trim().to_owned();
    }
    if source.line().trim_end().contains('\n') {
        return Err(args.error("a source of packages has one line"));
    }
    Ok(Some(source))
}

fn keys(args: &Args) -> Result<Keys> {
    let given = |name: &str| args.value(name).is_some_and(Value::truthy);
    let server = given("keyid") || given("keyserver");
    for (one, other, both) in [
        ("keyid\"/\"keyserver", "key_url", server && given("key_url")),
        ("keyid\"/\"keyserver", "key_text", server && given("key_text")),
        ("key_url", "key_text", given("key_url") && given("key_text")),
    ] {
        if both {
            return Err(args.error(format!("You may not use both \"{one}\" and \"{other}\" argument.")));
        }
    }
    let mut keys = Keys { text: args.str("key_text")?.filter(|t| !t.is_empty()), ..Keys::default() };
    if given("key_url") {
        let url = args.str("key_url")?.unwrap_or_default();
        if url.starts_with("http:") && !args.bool("allow_insecure_key", true)? {
            return Err(args.error("key_url comes over http, and allow_insecure_key is False"));
        }
        match args.0.contents.iter().find(|content| content.name == "key_url") {
            Some(content) => keys.contents.push((None, content.hash.clone())),
            None => match url.strip_prefix("file://").unwrap_or(&url) {
                path if path.starts_with('/') => keys.local = Some(place::normal(path)),
                _ => return Err(args.error(format!("the key {url} was not found"))),
            },
        }
    }
    if given("keyid") {
        if !given("keyserver") {
            return Err(args.error("both keyserver and keyid options required."));
        }
        for (number, id) in ids(args)?.into_iter().enumerate() {
            let content = args.0.contents.iter().find(|content| content.name == format!("keyid:{number}"));
            let content = content.ok_or_else(|| args.error(format!("the key {id} was not fetched")))?;
            keys.contents.push((Some(id), content.hash.clone()));
        }
    }
    Ok(keys)
}

/// The ids of keys, in capital hexadecimal.
fn ids(args: &Args) -> Result<Vec<String>> {
    let good = |id: &String| id.len() >= 8 && id.bytes().all(|b| b.is_ascii_hexdigit());
    let ids = args.strs("keyid")?.into_iter().map(|id| match good(&id) {
        true => Ok(id.to_uppercase()),
        false => Err(args.error(format!("{id:?} is no id of a key"))),
    });
    ids.collect()
}

fn absent(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    refused(&args)?;
    let refresh = args.bool("refresh", true)? && args.bool("refresh_db", true)?;
    let key = ids(&args)?.into_iter().next();
    let goal = match Source::parse(&args.name()) {
        Some(source) => Goal::Absent(apt::Absent { source, key, refresh }),
        None => Goal::Nothing,
    };
    let yum = yum::Repo { id: args.name(), options: Vec::new(), comments: Vec::new(), refresh };
    Ok(Box::new(Repo { name: args.name(), apt: Ok(goal), yum, absent: true }))
}

impl Keys {
    fn is_empty(&self) -> bool {
        self.contents.is_empty() && self.text.is_none() && self.local.is_none()
    }

    /// What the file at this path is to hold: armored where its name ends in `.asc`, else the bytes that apt wants.
    fn bytes(&self, there: &dyn There, path: &str) -> Result<Vec<u8>> {
        let mut found: Vec<(Option<&String>, Vec<u8>)> = Vec::new();
        for (id, hash) in &self.contents {
            found.push((id.as_ref(), there.bytes(hash)?.to_vec()));
        }
        found.extend(self.text.iter().map(|text| (None, text.clone().into_bytes())));
        if let Some(local) = &self.local {
            let attrs = there.get(&place::key(&place::follow(there, local)?));
            let Some(hash) = place::text(&attrs, "content") else {
                return Err(failed(format!("the key {local} is not on the host")).into());
            };
            found.push((None, there.bytes(&Hash(hash.to_owned()))?.to_vec()));
        }
        let mut out = Vec::new();
        for (id, bytes) in found {
            let Some(keys) = key::binary(&bytes) else {
                return Err(failed("what was to be the key of the source is no OpenPGP public key").into());
            };
            if let Some(id) = id
                && !has(&keys, id)
            {
                return Err(failed(format!("the key server answered with another key than {id}")).into());
            }
            out.extend(if path.ends_with(".asc") && key::armored(&bytes) { bytes } else { keys });
        }
        Ok(out)
    }
}

/// Whether a key (or a subkey) of this id is among them.
fn has(keys: &[u8], id: &str) -> bool {
    key::fingerprints(keys).iter().any(|fingerprint| fingerprint.ends_with(id))
}

/// These changes, and the package lists fetched behind them.
fn refresh(there: &dyn There, wants: Vec<(Key, Attrs)>, refresh: bool, nothing: String) -> Want {
    refresh_with(there, wants, refresh, &["apt-get"], nothing)
}

fn refresh_with(there: &dyn There, wants: Vec<(Key, Attrs)>, refresh: bool, tools: &[&str], nothing: String) -> Want {
    if !differ(there, &wants) {
        return Want::Nothing(nothing);
    }
    if !refresh {
        return Want::Is(wants);
    }
    // That a server cannot be reached is no failure of this state, as in Salt: whoever wants its packages will say so.
    let argv: Vec<&str> = match tools {
        ["apt-get"] => vec!["apt-get", "-q", "update"],
        _ => vec![
            "/bin/sh",
            "-c",
            "for tool in dnf yum zypper; do command -v $tool >/dev/null && break; done\ncase $tool in zypper) exec zypper -n refresh;; *) exec $tool -q makecache;; esac",
        ],
    };
    let shown = if tools == ["apt-get"] { "apt-get update" } else { "refresh of the package lists" };
    let command = Command { env: vec![("DEBIAN_FRONTEND".to_owned(), "noninteractive".to_owned())], ..Command::new(argv) };
    Want::Then(wants, Run { again: true, success: vec![1, 100, 106], ..Run::new(command, shown) })
}

impl Repo {
    /// The directory of `.repo` files, where that is how this host has it.
    fn yum_directory(there: &dyn There) -> Option<&'static str> {
        YUM.into_iter().find(|directory| !there.get(&place::key(directory)).is_empty())
    }
}

impl Function for Repo {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        let mut keys: Vec<Key> = [APT].into_iter().chain(YUM).map(place::key).collect();
        if !there.get(&place::key(APT)).is_empty() {
            match &self.apt {
                Ok(Goal::Managed(managed)) => keys.extend(managed.objects(there)?),
                Ok(Goal::Absent(absent)) => keys.extend(absent.objects(there)?),
                _ => {}
            }
        } else if let Some(directory) = Repo::yum_directory(there) {
            keys.extend(self.yum.objects(there, directory)?);
        }
        Ok(keys)
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        if !there.get(&place::key(APT)).is_empty() {
            return match &self.apt {
                Ok(Goal::Managed(managed)) => managed.want(there, &self.name),
                Ok(Goal::Absent(absent)) => absent.want(there, &self.name),
                Ok(Goal::Nothing) => Ok(Want::Nothing(format!("Package repo {} is absent", self.name))),
                Err(why) => Err(failed(why.clone()).into()),
            };
        }
        match Repo::yum_directory(there) {
            Some(directory) if self.absent => self.yum.absent(there, directory),
            Some(directory) => self.yum.managed(there, directory),
            None => Err(failed("Repo management not implemented on this platform").hint("apt, yum, dnf and zypper are known").into()),
        }
    }
}
