//! `basalt diff` and `--salt-config`: what a commit means for hosts that are not asked, and trees that a Salt master serves.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use basalt::plan::Hash;
use serde_json::{Value, json};

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    /// A repository with web1, web2 and db1 (folders of this machine) and `new` (never reached).
    fn new(files: &[(&str, &str)]) -> Bench {
        let bench = Bench { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir_all(bench.repository()).unwrap();
        bench.git(&["init", "-q", "-b", "main"]);
        let mut roster = String::new();
        for host in ["web1", "web2", "db1"] {
            let root = bench.folder.path().join(host);
            std::fs::create_dir_all(root.join("etc")).unwrap();
            roster += &format!("{host}:\n  host: local\n  root: {}\n", root.display());
        }
        bench.write("roster.yaml", &format!("{roster}new: 127.0.0.1\n"));
        bench.commit(files);
        bench
    }

    fn repository(&self) -> PathBuf {
        self.folder.path().join("salt")
    }

    fn write(&self, path: &str, text: &str) {
        let file = self.repository().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }

    fn git(&self, args: &[&str]) {
        let mut git = Command::new("git");
        git.arg("-C").arg(self.repository()).args(["-c", "user.name=t", "-c", "user.email=t@localhost"]).args(args);
        assert!(git.output().unwrap().status.success(), "git {args:?}");
    }

    fn commit(&self, files: &[(&str, &str)]) {
        files.iter().for_each(|(path, text)| self.write(path, text));
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", "change"]);
    }

    fn basalt(&self, args: &[&str]) -> (Option<i32>, String) {
        run(&self.repository(), self.folder.path(), args)
    }

    #[track_caller]
    fn diff(&self, args: &[&str]) -> String {
        let (code, said) = self.basalt(&[&["diff"], args].concat());
        assert_eq!(code, Some(0), "{said}");
        said
    }

    fn lines(&self, args: &[&str]) -> Vec<Value> {
        self.diff(&[args, &["--json"]].concat()).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The store as a plan of three of the hosts leaves it, so long ago (seconds).
    fn seen(self, ago: u64, answers: &Value) -> Bench {
        for host in ["web1", "web2", "db1"] {
            let grains = json!({"id": host, "os": "Debian", "role": host.trim_end_matches(char::is_numeric)});
            saw(&self.repository().join(".git"), self.folder.path(), host, ago, &grains, answers);
        }
        self
    }
}

/// What basalt remembers of a host, in the place where it does.
fn saw(place: &Path, home: &Path, host: &str, ago: u64, grains: &Value, answers: &Value) {
    let name = Hash::of(format!("{}", place.canonicalize().unwrap().display()).as_bytes()).0;
    let folder = home.join("state/basalt").join(&name[..24]);
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - ago;
    for (what, value) in [("grains", &json!({"time": time, "grains": grains})), ("answers", answers)] {
        std::fs::create_dir_all(folder.join(what)).unwrap();
        std::fs::write(folder.join(what).join(host), format!("1\n{value}")).unwrap();
    }
}

fn run(place: &Path, home: &Path, args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_basalt"));
    command.args(args).current_dir(place).env_remove("BASALT_REPO").env_remove("BASALT_ROSTER");
    for (name, at) in [("XDG_STATE_HOME", "state"), ("XDG_CACHE_HOME", "cache"), ("XDG_CONFIG_HOME", "config")] {
        command.env(name, home.join(at));
    }
    command.env("BASALT_CACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("agents"));
    let output = command.output().unwrap();
    (output.status.code(), format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

const TOP: (&str, &str) = ("states/top.sls", "base:\n  '*': [all]\n  'web*': [web]\n");
const ALL: (&str, &str) = ("states/all.sls", "/etc/motd:\n  file.managed:\n    - contents: hello\n    - mode: '0644'\n");

#[track_caller]
fn holds(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "{word:?} is not in:\n{said}");
    }
}

#[test]
fn a_commit_is_told_by_what_it_means_for_each_host() {
    let web = "{% set port = salt['pillar.get']('port', 80) %}\nconf:\n  file.managed:\n    - name: /etc/web.conf\n    - contents: |\n        listen {{ port }}\n        workers 4\n\
               /etc/a:\n  file.directory: []\n/etc/old:\n  file.absent: []\nrun:\n  cmd.run:\n    - name: 'true'\n    - unless: 'true'\n";
    let bench = Bench::new(&[TOP, ALL, ("states/web.sls", web), ("pillar/top.sls", "base:\n  '*': [p]\n"), ("pillar/p.sls", "port: 80\n")])
        .seen(3 * 86400, &json!([]));
    // Nothing but order and places.
    bench.commit(&[(
        "states/web.sls",
        &format!("# a comment\n\n{}", web.replace("/etc/a:\n  file.directory: []\n", "") + "/etc/a:\n  file.directory: []\n"),
    )]);
    holds(&bench.diff(&["HEAD~1..HEAD", "web*"]), &["No difference between ", " on 2 hosts."]);
    // Pillar, an argument, a requisite, a condition, one state less and one more.
    let changed = web
        .replace("/etc/a:\n  file.directory: []\n", "/etc/a:\n  file.directory:\n    - mode: '0700'\n    - require:\n      - file: conf\n")
        .replace("/etc/old:\n  file.absent: []\n", "/etc/new:\n  file.managed:\n    - contents: x\n")
        .replace("unless: 'true'", "unless: 'false'");
    bench.commit(&[("states/web.sls", &changed), ("pillar/p.sls", "port: 8080\n")]);
    let said = bench.diff(&["HEAD~1..HEAD"]);
    holds(
        &said,
        &[
            "web1, web2\n",
            "  ~ file.managed  /etc/web.conf  (conf, web)\n",
            "        -listen 80\n        +listen 8080\n         workers 4\n",
            "  ~ file.directory  /etc/a  (web)\n      mode: added, 0700\n      require: added, [{'file': 'conf'}]\n",
            "  ~ cmd.run  true  (run, web)\n      unless: ['true'] → ['false']\n",
            "  - file.absent  /etc/old  (web)\n",
            "  + file.managed  /etc/new  (web)\n      contents: x\n",
            "new\n  ? not known: never seen",
            "Diff: 2 to add, 6 to change, 2 to remove on 2 of 4 hosts between ",
            "1 were never seen.",
            "Grains are those last seen, up to 3 days old (web2).",
        ],
    );
    assert!(!said.contains("db1"), "{said}");
    holds(&bench.diff(&["HEAD~1..HEAD", "-G", "role:db"]), &["new\n  ? not known", "on 1 host"]);
    // The work tree, which is dirty; the same since they parted; the exit code.
    bench.write("states/all.sls", "/etc/motd:\n  file.managed:\n    - contents: bye\n    - mode: '0644'\n");
    holds(
        &bench.diff(&["HEAD", "db1"]),
        &[
            "db1\n  ~ file.managed  /etc/motd  (all)\n      contents:\n        @@ -1 +1 @@\n        -hello\n        +bye\n",
            "the work tree (",
        ],
    );
    holds(&bench.diff(&["HEAD~1...HEAD", "web1"]), &["+listen 8080"]);
    assert_eq!(bench.basalt(&["diff", "HEAD", "--detailed-exitcode"]).0, Some(2));
    assert_eq!(bench.basalt(&["diff", "HEAD~2..HEAD~1", "--detailed-exitcode", "db1"]).0, Some(0));
    let (code, said) = bench.basalt(&["diff", "web1"]);
    assert_eq!(code, Some(1));
    holds(&said, &["there is no commit \"web1\"", "a TARGET stands behind it"]);
}

#[test]
fn errors_calls_and_rosters_are_told_too() {
    let bench = Bench::new(&[TOP, ALL, ("states/web.sls", "a: test.nop\n")]).seen(0, &json!([]));
    bench.commit(&[("states/web.sls", "a: {{ nothing }}\n")]);
    holds(&bench.diff(&["HEAD~1..", "web1"]), &["web1\n  ! compiles no more\n", "'nothing' is undefined", "states/web.sls:1:7"]);
    bench.commit(&[("states/web.sls", "{% if salt['file.file_exists']('/etc/x') %}\na: test.nop\n{% endif %}\n")]);
    holds(&bench.diff(&["HEAD~2..HEAD"]), &["web1, web2\n  ? not known: templates ask", "file.file_exists('/etc/x')"]);
    // Once a plan has asked, the answer is known.
    let bench = bench.seen(0, &json!([[{"function": "file.file_exists", "args": ["/etc/x"]}, {"value": true}]]));
    holds(&bench.diff(&["HEAD~1..HEAD"]), &["web1, web2\n  + compiles again: 2 states\n"]);
    holds(&bench.diff(&["HEAD~2..HEAD"]), &["No difference"]);
    let bench = bench.seen(0, &json!([[{"function": "file.file_exists", "args": ["/etc/x"]}, {"value": false}]]));
    holds(&bench.diff(&["HEAD~2..HEAD"]), &["web1, web2\n  - test.nop  a  (web)\n"]);
    let roster = std::fs::read_to_string(bench.repository().join("roster.yaml")).unwrap();
    bench.commit(&[("roster.yaml", &roster.replace("db1:", "db2:"))]);
    let said = bench.diff(&["HEAD~1..HEAD"]);
    holds(&said, &["db1\n  - leaves the roster\n", "db2\n  + joins the roster\n"]);
    // Renamed states, and states that moved to another SLS.
    bench
        .commit(&[("states/all.sls", "the message:\n  file.managed:\n    - name: /etc/motd\n    - contents: hello\n    - mode: '0644'\n")]);
    holds(
        &bench.diff(&["HEAD~1..HEAD", "web1"]),
        &["  ~ file.managed  /etc/motd  (the message, all)\n      id: /etc/motd → the message\n"],
    );
}

#[test]
fn json_markdown_and_what_is_not_shown() {
    let file = |word: &str| {
        format!(
            "/etc/s:\n  file.managed:\n    - contents: |\n        {word}\n        two\n    - show_changes: False\nu:\n  user.present:\n    - password: {word}\n"
        )
    };
    let bench = Bench::new(&[TOP, ALL, ("states/web.sls", &file("CANARY1"))]).seen(0, &json!([]));
    bench.commit(&[
        ("states/web.sls", &file("CANARY2")),
        ("states/all.sls", "/etc/motd:\n  file.managed:\n    - contents: |\n        ```\n        </details>\n    - mode: '0600'\n"),
    ]);
    let lines = bench.lines(&["HEAD~1..HEAD", "-L", "web1,web2,db1"]);
    assert_eq!(
        lines.iter().map(|l| l["type"].as_str().unwrap()).collect::<Vec<_>>(),
        ["diff_started", "difference", "difference", "diff_summary"]
    );
    let web = lines.iter().find(|l| l["hosts"].as_array().is_some_and(|hosts| hosts.len() == 2)).unwrap();
    assert_eq!((web["status"].as_str(), web["changes"].as_array().map(Vec::len)), (Some("differs"), Some(3)), "{web}");
    assert_eq!(lines[3]["change"], 7, "{}", lines[3]);
    let all =
        [bench.diff(&["HEAD~1..HEAD"]), bench.diff(&["HEAD~1..HEAD", "--markdown"]), bench.diff(&["HEAD~1..HEAD", "--json"])].concat();
    assert!(!all.contains("CANARY"), "{all}");
    holds(
        &bench.diff(&["HEAD~1..HEAD", "--markdown", "db1"]),
        &["<details><summary><code>db1</code>: 0 to add, 1 to change, 0 to remove</summary>", "    ````diff\n", "\n</details>\n"],
    );
}

// --- a Salt master's settings ---

/// A tree like a master's: `/etc/salt` and roots that lie elsewhere, in no repository.
fn salt() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text.replace('§', folder.path().to_str().unwrap())).unwrap();
    };
    write(
        "etc/salt/master",
        "interface: 0.0.0.0\nuser: salt\nfile_roots:\n  base:\n    - §/srv/salt\n    - §/srv/formulas/*\npillar_roots:\n  base: [§/srv/pillar]\nssh_user: admin\n",
    );
    write("etc/salt/master.d/groups.conf", "nodegroups:\n  front: 'web*'\npillar_source_merging_strategy: recurse\n");
    write(
        "etc/salt/master.d/git.conf",
        "ext_pillar:\n  - git: [https://example.org/pillar.git]\nfileserver_backend: [roots, gitfs]\ngitfs_remotes: [https://example.org/states.git]\n",
    );
    write("etc/salt/roster", "web1:\n  host: local\n  root: §/web1\ndb1: 127.0.0.1\n");
    write("srv/salt/top.sls", "base:\n  'N@front':\n    - match: compound\n    - web\n");
    write("srv/salt/web.sls", "include: [ntp]\n/etc/web:\n  file.managed:\n    - source: salt://linked\n    - mode: {{ pillar.mode }}\n");
    write("srv/formulas/ntp-formula/ntp/init.sls", "/etc/ntp:\n  file.managed:\n    - contents: x\n");
    write("srv/formulas/ntp-formula/files/one", "from the formula\n");
    write("srv/pillar/top.sls", "base:\n  '*': [p]\n");
    write("srv/pillar/p.sls", "mode: '0600'\n");
    write("web1/etc/keep", "");
    std::os::unix::fs::symlink("../formulas/ntp-formula/files/one", folder.path().join("srv/salt/linked")).unwrap();
    folder
}

#[test]
fn a_salt_masters_own_tree_is_planned_as_it_is() {
    let folder = salt();
    let config = folder.path().join("etc/salt");
    let basalt = |args: &[&str]| run(Path::new("/"), folder.path(), &[args, &["--salt-config", config.to_str().unwrap()]].concat());
    let grains = folder.path().join("grains.json");
    std::fs::write(&grains, r#"{"id": "web1"}"#).unwrap();
    let (code, said) = basalt(&["show", "low", "--grains", grains.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
    holds(&said, &["name: /etc/ntp", "name: /etc/web", "mode: 600"]);
    let (_, said) = basalt(&["plan", "web1"]);
    holds(&said, &["ext_pillar (git) has no effect", "https://example.org/states.git", "not in git"]);
    let (_, said) = basalt(&["plan", "-N", "front"]);
    assert!(said.contains("web1") && !said.contains("db1"), "{said}");
    let (_, said) = basalt(&["plan", "--json", "web1"]);
    let tree = |said: &str| {
        let started =
            said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).find(|line| line["type"] == "plan_started").unwrap();
        (started["tree"].as_str().unwrap().to_owned(), started["commit"].as_str().unwrap().to_owned())
    };
    let before = tree(&said);
    assert_eq!((before.0.len(), before.1.as_str()), (40, ""));
    assert_eq!(tree(&basalt(&["plan", "--json", "web1"]).1), before);
    std::fs::write(folder.path().join("srv/formulas/ntp-formula/files/one"), "changed\n").unwrap();
    assert_ne!(tree(&basalt(&["plan", "--json", "web1"]).1), before);
    // Commits need the roots to be in one repository.
    let (code, said) = basalt(&["diff", "HEAD"]);
    assert_eq!(code, Some(1));
    holds(&said, &["not in a git repository"]);
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        git.arg("-C").arg(folder.path().join("srv")).args(["-c", "user.name=t", "-c", "user.email=t@localhost"]).args(args);
        assert!(git.output().unwrap().status.success(), "{args:?}");
    };
    git(&["init", "-q"]);
    git(&["add", "-A"]);
    git(&["commit", "-qm", "first"]);
    std::fs::write(folder.path().join("srv/pillar/p.sls"), "mode: '0640'\n").unwrap();
    std::fs::write(folder.path().join("srv/formulas/ntp-formula/files/one"), "changed again\n").unwrap();
    saw(&config, folder.path(), "web1", 0, &json!({"id": "web1"}), &json!([]));
    let (code, said) = basalt(&["diff", "HEAD", "web1"]);
    assert_eq!(code, Some(0), "{said}");
    holds(&said, &["web1\n  ~ file.managed  /etc/web  (web)\n", "mode: 600 → 640", "        -changed\n        +changed again\n"]);
    let (code, said) = basalt(&["show", "low", "--commit", "HEAD", "--grains", grains.to_str().unwrap()]);
    assert!(code == Some(0) && said.contains("mode: 600"), "{said}");
    let (code, said) = basalt(&["plan", "--repo", "x"]);
    assert!(code == Some(1) && said.contains("--salt-config"), "{said}");
    std::fs::write(folder.path().join("srv/salt/wrong.sls"), "x:\n  file.managd:\n    - contents: x\n").unwrap();
    let (code, said) = basalt(&["lint"]);
    assert_eq!(code, Some(1), "{said}");
    holds(&said, &["srv/salt/wrong.sls:2:3: error: there is no state file.managd [unknown-state]", "did you mean file.managed?"]);
}
