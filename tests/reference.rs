//! The reference of state functions (`basalt doc`, `docs/states/`) is whole and true: every function and argument is described, and every
//! example compiles, does on a real host what a plan says, leaves nothing to plan, and is taken back.
//!
//! `src/function/reference.rs` says how a function is described. `BASALT_BLESS=1 cargo test --test reference pages` writes `docs/states/` anew.
//! `REFERENCE_ONLY=file.` runs the examples of those functions alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on panics")]

mod lab;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use basalt::cli::doc;
use basalt::engine::compile::{Answers, Compile};
use basalt::engine::download::Downloads;
use basalt::engine::tree::TreeCompiler;
use basalt::function::reference::{self, About, Where};
use basalt::function::{self, Entry};
use basalt::lang::lint::families;
use basalt::lang::root::{Folder, Listing, Mount, Roots};
use basalt::lang::{Compiler, Options, What};
use basalt::value::Map;
use lab::host::Spec;
use lab::output::Output;
use lab::{Host, Lab};
use serde_json::Value;

/// Every function with what is said of it.
fn all() -> Vec<(&'static Entry, About)> {
    let mut all = Vec::new();
    for name in reference::modules() {
        let mut module = reference::module(name).unwrap_or_else(|fault| panic!("{fault:?}"));
        for entry in reference::functions(name) {
            let about = module.functions.remove(entry.name.split_once('.').unwrap().1);
            all.push((entry, about.unwrap_or_else(|| panic!("src/function/reference/{name}.yaml says nothing of {}", entry.name))));
        }
        assert!(module.functions.is_empty(), "{name}.yaml tells of functions that are not there: {:?}", module.functions.keys());
    }
    all
}

#[test]
fn every_function_and_argument_is_described() {
    let all = all();
    let described: BTreeSet<&str> = all.iter().map(|(entry, _)| entry.name).collect();
    let missing: Vec<&str> = function::entries().map(|entry| entry.name).filter(|name| !described.contains(name)).collect();
    assert!(missing.is_empty(), "modules of these have no file in src/function/reference (and its list in reference.rs): {missing:?}");
    let sentence =
        |text: &str| text.len() > 5 && (text.trim().ends_with(['.', ']', '}']) || text.contains("Example: ") || text.ends_with('…'));
    let mut poor = Vec::new();
    for (entry, about) in &all {
        if !sentence(entry.doc) {
            poor.push(format!("{}: {:?} is no sentence", entry.name, entry.doc));
        }
        let arguments = entry.args.iter().filter(|arg| !sentence(arg.doc));
        poor.extend(arguments.map(|arg| format!("{}: the argument {} is described as {:?}", entry.name, arg.name, arg.doc)));
        if !about.example.contains(&format!("{}:", entry.name)) {
            poor.push(format!("{}: the example does not use it", entry.name));
        }
    }
    for name in reference::modules() {
        let module = reference::module(name).unwrap();
        let texts = [("about", &module.about), ("plan", &module.plan), ("rollback", &module.rollback)];
        poor.extend(texts.iter().filter(|(_, text)| !sentence(text)).map(|(part, text)| format!("{name}: {part} is {text:?}")));
    }
    assert!(poor.is_empty(), "{}", poor.join("\n"));
}

#[test]
fn differences_from_salt_are_found() {
    let differences = reference::differences();
    assert!(differences.len() > 60, "{}", differences.len());
    // Otherwise nobody who looks a function up would see it.
    let named =
        |d: &reference::Difference| function::entries().any(|entry| d.is_of(entry.name)) || reference::modules().any(|m| d.is_of_all(m));
    let nobody_s: Vec<&str> = differences.iter().filter(|d| !named(d)).map(|d| d.text.as_str()).collect();
    assert!(nobody_s.is_empty(), "rows of docs/compatibility.md that name no function and no `module.*`: {nobody_s:#?}");
    assert!(differences.iter().any(|d| d.is_of("git.latest") && d.text.contains("asks the remote at its turn")));
    assert!(differences.iter().any(|d| d.is_of_all("git") && d.text.starts_with("Not there: `config_unset`")));
    assert!(differences.iter().any(|d| d.is_of_all("btrfs") || d.is_of("btrfs.properties")));
}

/// `BASALT_BLESS=1` writes the pages.
#[test]
fn pages_say_what_the_code_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/states");
    let pages = doc::pages().unwrap_or_else(|fault| panic!("{fault:?}"));
    if std::env::var_os("BASALT_BLESS").is_some() {
        std::fs::remove_dir_all(&folder).ok();
        std::fs::create_dir_all(&folder).unwrap();
        pages.iter().for_each(|(name, text)| std::fs::write(folder.join(name), text).unwrap());
    }
    let there: BTreeSet<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    let wanted: BTreeSet<PathBuf> = pages.iter().map(|(name, _)| folder.join(name)).collect();
    assert_eq!(there, wanted, "the pages of docs/states; BASALT_BLESS=1 writes them");
    for (name, text) in pages {
        let old = std::fs::read_to_string(folder.join(&name)).unwrap();
        assert!(old == text, "docs/states/{name} is not what the code says; BASALT_BLESS=1 writes it anew");
    }
}

struct Files(BTreeMap<String, String>);

impl Listing for Files {
    fn paths(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
    fn read(&self, path: &str) -> std::io::Result<Option<(Arc<[u8]>, u32)>> {
        Ok(self.0.get(path).map(|text| (text.as_bytes().into(), 0o644)))
    }
}

/// The repository of an example.
fn repository(about: &About) -> BTreeMap<String, String> {
    let mut files: BTreeMap<String, String> = about.files.iter().map(|(path, text)| (format!("states/{path}"), text.clone())).collect();
    files.insert("states/top.sls".into(), "base:\n  '*': [example]\n".into());
    files.insert("states/example.sls".into(), about.example.clone());
    if let Some(pillar) = &about.pillar {
        files.insert("pillar/top.sls".into(), "base:\n  '*': [data]\n".into());
        files.insert("pillar/data.sls".into(), format!("#!json\n{pillar}\n"));
    }
    files
}

/// Those that run in no lab are compiled, their arguments checked and read, everywhere.
#[test]
fn examples_compile() {
    let mut wrong = Vec::new();
    let nothing = tempfile::tempdir().unwrap();
    let (_, grains) = families().into_iter().next().unwrap();
    for (entry, about) in all().iter().filter(|(_, about)| about.test.make.is_empty()) {
        let listing: Arc<dyn Listing> = Arc::new(Files(repository(about)));
        let roots = |name: &str| Roots::base(vec![Mount { name: String::new(), tree: Arc::new(Folder::new(listing.clone(), name)) }]);
        let compiler = Compiler::new(roots("states"), roots("pillar"), Options::default());
        let downloads = Downloads::at(nothing.path().to_owned());
        let tree = TreeCompiler { compiler, what: What::Highstate, pillar: None, nodegroups: Map::new(), downloads };
        let lows = match tree.compile("web1", &grains, &Answers::new()) {
            // What only a host can answer: the lab's will.
            Ok(wanted) if !wanted.missing.is_empty() && about.test.host != Where::None => continue,
            Ok(wanted) => wanted.lows,
            Err(faults) => {
                wrong.extend(faults.iter().map(|fault| format!("{}: {fault}", entry.name)));
                continue;
            }
        };
        assert!(lows.iter().any(|low| low.function() == entry.name), "{}: it is not among the states of its example", entry.name);
        let parsed = lows.iter().filter_map(|low| (function::find(&low.function()).unwrap().parse)(low).err());
        wrong.extend(parsed.map(|fault| format!("{}: {fault}", entry.name)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn examples_do_what_they_say() {
    run(Where::Light, Spec::light);
}

#[test]
fn examples_do_what_they_say_with_systemd() {
    run(Where::Systemd, Spec::systemd);
}

/// Examples that share a host: each an SLS of its own, of different modules, about different files.
#[derive(Default)]
struct Shared {
    examples: Vec<(&'static Entry, About)>,
    /// Modules and paths that they have.
    taken: BTreeSet<String>,
    one_way: bool,
}

/// Puts examples onto as few hosts as they get along on.
fn shared(examples: Vec<(&'static Entry, About)>) -> Vec<Shared> {
    let mut hosts: Vec<Shared> = Vec::new();
    for (entry, about) in examples {
        let text = format!("{} {}", about.example, about.test.before);
        let words = text.split(|c: char| c.is_whitespace() || "';,".contains(c)).map(|word| word.trim_end_matches(':'));
        let mut taken: BTreeSet<String> =
            words.filter(|word| word.starts_with("/etc/") || word.starts_with("/dev/vd")).map(str::to_owned).collect();
        taken.insert(entry.name.split('.').next().unwrap().to_owned());
        let fits = |host: &Shared| host.one_way == about.test.one_way && host.taken.is_disjoint(&taken);
        let host = match hosts.iter().position(fits) {
            Some(index) => &mut hosts[index],
            None => {
                hosts.push(Shared { one_way: about.test.one_way, ..Shared::default() });
                hosts.last_mut().unwrap()
            }
        };
        host.taken.extend(taken);
        host.examples.push((entry, about));
    }
    hosts
}

/// Plans, applies, plans again and takes back the examples of one kind of host, all at once.
fn run(on: Where, spec: fn(&str) -> Spec) {
    if !lab::required() {
        return;
    }
    let only = std::env::var("REFERENCE_ONLY").unwrap_or_default();
    let hosts = shared(all().into_iter().filter(|(entry, about)| about.test.host == on && entry.name.starts_with(&only)).collect());
    if hosts.is_empty() {
        return;
    }
    let specs = hosts.iter().enumerate().map(|(number, host)| {
        let spec = spec(&format!("h{}", number + 1));
        if host.taken.contains("/dev/vdb") { spec.disks(&["300m"]) } else { spec }
    });
    let lab = Lab::start(specs.collect());
    let hosts: Vec<(&Host, Shared)> = hosts.into_iter().enumerate().map(|(n, host)| (&lab[format!("h{}", n + 1).as_str()], host)).collect();
    write(&lab, &hosts);
    let mut before = Vec::new();
    for (host, shared) in &hosts {
        for (entry, about) in &shared.examples {
            let made = host.sh(&format!("set -e\n{}", with_disk(host, &about.test.before)));
            assert!(made.code == Some(0), "{}: what is there first is not made:\n{made}", entry.name);
        }
        before.push(host.fingerprint_root());
    }

    let said = Said {
        planned: lab.basalt(["plan", "--json"]),
        applied: lab.basalt(["apply", "--json", "--yes"]),
        again: lab.basalt(["plan", "--json"]),
    };
    let back = lab.basalt(["rollback", "--json", "--yes", "--destroy-data"]);
    let mut wrong = Vec::new();
    for ((host, shared), before) in hosts.iter().zip(before) {
        for (entry, about) in &shared.examples {
            wrong.extend(said.wrong(host, entry, about).into_iter().map(|what| format!("{}: {what}", entry.name)));
        }
        let names = || shared.examples.iter().map(|(entry, _)| entry.name).collect::<Vec<_>>();
        let failed: Vec<Value> = lines(&back, "state_done", host).into_iter().filter(|line| line["result"] == "failed").collect();
        if !failed.is_empty() {
            wrong.push(format!("{:?}: the rollback: {failed:?}", names()));
        }
        let difference = before.diff(&host.fingerprint_root());
        if !shared.one_way && !difference.is_empty() {
            wrong.push(format!("{:?}: the rollback leaves something:\n{difference}", names()));
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

fn with_disk(host: &Host, text: &str) -> String {
    host.disks().iter().fold(text.to_owned(), |text, disk| text.replace("/dev/vdb", disk))
}

/// The SLS of an example.
fn sls(entry: &Entry) -> String {
    entry.name.replace('.', "-")
}

/// The state repository of all of them.
fn write(lab: &Lab, hosts: &[(&Host, Shared)]) {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    let (mut top, mut pillar) = ("base:\n".to_owned(), "base:\n  'nobody': []\n".to_owned());
    for (host, shared) in hosts {
        let names: Vec<String> = shared.examples.iter().map(|(entry, _)| sls(entry)).collect();
        top += &format!("  {}: {names:?}\n", host.name());
        for (entry, about) in &shared.examples {
            let states =
                about.test.instead.iter().fold(with_disk(host, &about.example), |text, (word, instead)| text.replace(word, instead));
            lab.write(&format!("states/{}.sls", sls(entry)), &states);
            for (path, text) in &about.files {
                let other = files.insert(path.clone(), text.clone());
                assert!(other.is_none_or(|other| other == *text), "examples have different files of the name {path}");
                lab.write(&format!("states/{path}"), text);
            }
            if let Some(data) = &about.pillar {
                pillar += &format!("  {}: [{}]\n", host.name(), sls(entry));
                lab.write(&format!("pillar/{}.sls", sls(entry)), &format!("#!json\n{data}\n"));
            }
            let made =
                std::process::Command::new("sh").args(["-ec", &about.test.make]).current_dir(lab.state().join("states")).status().unwrap();
            assert!(made.success(), "{}: what makes its files fails", entry.name);
        }
    }
    lab.write("states/top.sls", &top);
    lab.write("pillar/top.sls", &pillar);
    lab.commit("the examples");
}

/// The lines of a type that a command said of a host.
fn lines(output: &Output, of: &str, host: &Host) -> Vec<Value> {
    let lines = output.stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["type"] == of && line["host"] == host.name()).collect()
}

/// What the commands said of all hosts.
struct Said {
    planned: Output,
    applied: Output,
    again: Output,
}

impl Said {
    /// What is not as the example says.
    fn wrong(&self, host: &Host, entry: &Entry, about: &About) -> Vec<String> {
        let (test, sls) = (&about.test, sls(entry));
        let mut wrong = Vec::new();
        let mut changes = |output: &Output| match &lines(output, "host_planned", host)[..] {
            [planned] => {
                let all = planned["changes"].as_array().cloned().unwrap_or_default();
                all.into_iter()
                    .filter(|change| change["sls"] == sls && (change["action"] != "none" || !change["fails"].is_null()))
                    .collect()
            }
            _ => {
                wrong.push(format!("there is no plan: {:?}\n{}", lines(output, "host_failed", host), output.stderr));
                Vec::new()
            }
        };
        let (planned, left) = (changes(&self.planned), changes(&self.again));
        let own = planned.iter().any(|change| change["state"] == entry.name);
        let one_way = planned.iter().any(|change| !change["one_way"].is_null());
        if own == test.same || one_way != test.one_way {
            wrong.push(format!("`same` is {}, `one_way` is {}, and the plan says {planned:?}", test.same, test.one_way));
        }
        let done: Vec<Value> = lines(&self.applied, "state_done", host).into_iter().filter(|line| line["sls"] == sls).collect();
        if done.len() < planned.len() || done.iter().any(|line| line["result"] == "failed") != test.fails {
            wrong.push(format!("`fails` is {}, and the run says {done:?}\n{}", test.fails, self.applied.stderr));
        }
        if left.is_empty() == (test.again || test.fails) {
            wrong.push(format!("`again` is {}, and the next plan says {left:?}", test.again));
        }
        wrong
    }
}
