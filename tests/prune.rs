//! `--prune` on a real host: what has left the tree goes, judged by the host's own tools, and nothing else; a rollback brings it back.

mod lab;

use lab::Lab;

const KEPT: &str = r#"
/etc/kept.conf:
  file.managed:
    - contents: kept
"#;

/// A bit of everything that basalt makes.
const APP: &str = r#"
app:
  group.present: []
  user.present:
    - home: /srv/app
    - createhome: False
    - gid: app
    - require:
      - group: app

/srv/app:
  file.directory:
    - user: app

/srv/app/conf/app.ini:
  file.managed:
    - contents: workers=4
    - makedirs: True

/etc/systemd/system/app.service:
  file.managed:
    - contents: |
        [Unit]
        Description=app
        [Service]
        ExecStart=/bin/sleep infinity
        [Install]
        WantedBy=multi-user.target

app.service:
  service.running:
    - enable: True
    - require:
      - file: /etc/systemd/system/app.service

tools:
  pkg.installed:
    - pkgs: [lab-tool, lab-service]

/usr/bin/app-backup:
  cron.present:
    - user: root
    - identifier: APP
    - minute: 5

MAILTO:
  cron.env_present:
    - value: root

/etc/motd:
  file.append:
    - text: app lives here
"#;

#[test]
fn what_left_the_tree_goes_and_comes_back() {
    if !lab::required() {
        return;
    }
    let lab = Lab::hosts(1);
    let host = &lab["h1"];
    let now = |script: &str| host.sh(script).stdout.trim_end().to_owned();
    lab.write("states/kept.sls", KEPT);
    lab.write("states/app.sls", APP);
    lab.write("states/top.sls", "base:\n  '*': [kept, app]\n");
    lab.commit("app");
    // There before basalt: a package that the tree names too, a file that it adds to.
    host.sh("apt-get install -y -q lab-leaf && echo hello > /etc/motd").ok();
    lab.basalt(["apply", "--yes", "--prune"]).code(0);
    let whole = host.fingerprint_root();

    lab.write("states/top.sls", "base:\n  '*': [kept]\n");
    lab.basalt(["plan"]).code(0).says("No changes.");
    let (saved, clone) = (lab.home().join("plan").display().to_string(), lab.home().join("clone").display().to_string());
    let plan = lab.basalt(["plan", "--prune", "-o", &saved]).code(0);
    for said in [
        "left the tree: made by run 20",
        "of app",
        "lab-lib, lab-service, lab-tool",
        "Plan: 0 to add, 0 to change, 11 to remove on 1 host",
        "left the tree and stays as it is, for it was there before basalt: file:/etc/motd",
    ] {
        assert!(plan.stdout.contains(said) || plan.stderr.contains(said), "{said}\n{plan}");
    }
    lab.basalt(["apply", "--plan", &saved, "--yes"]).code(0);
    for (line, said) in [
        ("getent passwd app; getent group app; ls -d /srv/app /etc/systemd/system/app.service", ""),
        ("systemctl is-active app.service", "inactive"),
        ("dpkg-query -W -f '${Package} ${db:Status-Status}\\n' 'lab-*' | grep ' installed'", "lab-leaf installed"),
        ("crontab -l | grep -v '^#'", ""),
        ("cat /etc/kept.conf; cat /etc/motd", "kept\nhello\napp lives here"),
    ] {
        assert_eq!(now(line), said, "{line}");
    }
    lab.basalt(["plan", "--prune"]).code(0).says("No changes.");

    lab.basalt(["rollback", "--yes"]).code(0);
    whole.assert_same(&host.fingerprint_root());
    assert_eq!(now("systemctl is-active app.service lab-service.service"), "active\nactive");
    // It is remembered again, also by another clone of the repository.
    lab.commit("without the app");
    lab.run(["git", "clone", "-q", ".", &clone]).ok();
    lab.basalt(["plan", "--prune", "--repo", &clone]).code(0).says("11 to remove");
}

#[test]
fn an_empty_tree_a_broken_one_and_a_strange_one_prune_nothing() {
    if !lab::required() {
        return;
    }
    let lab = Lab::light(2);
    lab.write("states/kept.sls", KEPT);
    lab.write("states/top.sls", "base:\n  '*': [kept]\n");
    // Without a commit nothing tells the repository from others.
    lab.run(["git", "init", "-q", "-b", "main", "."]).ok();
    lab.basalt(["plan", "--prune"]).code(1).complains("cannot be told from others").complains("repository: NAME");
    lab.commit("kept");
    lab.basalt(["apply", "--yes"]).code(0);

    lab.write("states/top.sls", "base:\n  'h1': [kept]\n");
    let lost = lab.basalt(["apply", "--yes", "--prune"]);
    assert!(lost.code != Some(0), "{lost}");
    lost.says("nothing is described for this host, so nothing is pruned");
    lab.write("states/top.sls", "base:\n  '*': [missing]\n");
    lab.basalt(["apply", "--yes", "--prune"]).code(1);
    lab.write("states/top.sls", "base:\n  '*': [kept]\n");
    lab.write("states/kept.sls", "a: {file.exists: [{name: /nowhere}]}\n");
    lab.basalt(["plan", "--prune"]).code(3).says("nothing is pruned while states of this plan fail");
    lab.basalt(["plan", "--prune", "--sls", "kept"]).code(1);
    for host in lab.all() {
        assert_eq!(host.read("/etc/kept.conf").as_deref(), Some("kept\n"));
    }
    // Another repository finds nothing of its own here.
    lab.write("states/kept.sls", "a: {test.nop: []}\n");
    lab.write("basalt.yaml", "repository: another\n");
    lab.basalt(["plan", "--prune"]).code(0).says("No changes.");
    lab.write("basalt.yaml", "");
    lab.basalt(["apply", "--prune", "--yes"]).code(0);
    for host in lab.all() {
        assert_eq!(host.read("/etc/kept.conf"), None);
    }
}
