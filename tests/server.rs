//! What servers are made of, on real hosts: systemd's units, packages of apt and dnf, users with their homes, commands that hang, secrets.

mod lab;

use lab::{Host, Lab, NEW_REPO, OLD_REPO};
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// One host that gets everything in `one.sls`.
fn lab(hosts: fn(usize) -> Lab) -> Lab {
    let lab = hosts(1);
    lab.write("states/top.sls", "base:\n  '*': [one]\n");
    lab
}

fn describe(lab: &Lab, states: &str) {
    lab.write("states/one.sls", states);
    lab.commit("states");
}

fn apply(lab: &Lab, states: &str) -> lab::Output {
    describe(lab, states);
    lab.basalt(["apply", "--yes"])
}

/// Applies, finds nothing more to do, and takes it back to what it was.
fn there_and_back(lab: &Lab, states: &str, there: impl FnOnce(&Host)) {
    let host = &lab["h1"];
    let before = host.fingerprint_root();
    apply(lab, states).ok();
    there(host);
    lab.basalt(["plan", "--detailed-exitcode"]).code(0);
    lab.basalt(["rollback", "--yes"]).ok();
    before.assert_same(&host.fingerprint_root());
}

fn wait_for(mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(15);
    while !holds() {
        assert!(Instant::now() < end, "it did not come to pass within 15 seconds");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn unit(name: &str, service: &str) -> String {
    let path = format!("/etc/systemd/system/{name}");
    let install = "        [Install]\n        WantedBy=multi-user.target\n";
    format!("{path}:\n  file.managed:\n    - contents: |\n{service}{install}")
}

const MINE: &str = "        [Service]\n        ExecStart=/bin/sleep infinity\n";

#[test]
fn a_unit_made_in_the_same_run_runs_follows_its_file_and_goes_again() {
    if !lab::required() {
        return;
    }
    let lab = lab(Lab::hosts);
    let host = &lab["h1"];
    let before = host.fingerprint_root();
    let states = |service: &str| {
        let run = "mine:\n  service.running:\n    - enable: True\n    - watch:\n      - file: /etc/systemd/system/mine.service\n";
        unit("mine.service", service) + run
    };
    apply(&lab, &states(MINE)).ok();
    host.sh("systemctl is-active mine && systemctl is-enabled mine").ok();
    lab.basalt(["plan", "--detailed-exitcode"]).code(0);

    // Stopped by hand: drift, and nothing but that.
    host.sh("systemctl stop mine").ok();
    lab.basalt(["plan", "--detailed-exitcode"]).code(2).says("started");
    lab.basalt(["apply", "--yes"]).ok();
    host.sh("systemctl is-active mine").ok();

    // Another command line: systemd reads the file again before it restarts.
    apply(&lab, &states(&MINE.replace("infinity", "1000000"))).ok();
    host.sh("pgrep -fx '/bin/sleep 1000000' && test $(systemctl show -p NeedDaemonReload --value mine) = no").ok();

    // One that dies at its start fails the state with its last words, and the run is taken back to the one that ran.
    let dies = "        [Service]\n        ExecStart=/bin/sh -c 'echo these were my last words; exit 3'\n";
    apply(&lab, &states(dies)).code(3).says("these were my last words");
    lab.basalt(["rollback", "--yes"]).ok();
    host.sh("pgrep -fx '/bin/sleep 1000000' && systemctl is-active mine").ok();
    for _ in 0..3 {
        lab.basalt(["rollback", "--yes"]).ok();
    }
    before.assert_same(&host.fingerprint_root());
    assert_eq!(host.sh("systemctl show -p LoadState --value mine").stdout, "not-found\n");
}

#[test]
fn units_of_every_kind_are_seen_and_brought_back_as_they_were() {
    if !lab::required() {
        return;
    }
    let lab = lab(Lab::hosts);
    let once = unit("once.service", "        [Service]\n        Type=oneshot\n        RemainAfterExit=yes\n        ExecStart=/bin/true\n");
    let door = unit("door.socket", "        [Socket]\n        ListenStream=/run/door\n        Accept=yes\n");
    let opens = unit("door@.service", "        [Service]\n        ExecStart=/bin/cat\n");
    let tick = unit("tick.timer", "        [Timer]\n        OnCalendar=yearly\n        Unit=once.service\n");
    let fails =
        unit("fails.service", "        [Service]\n        Type=oneshot\n        ExecStart=/bin/sh -c 'echo no chance at all; exit 7'\n");
    let runs = "run:\n  service.running:\n    - names: [once, door.socket, tick.timer]\n    - enable: True\n";
    there_and_back(&lab, &format!("{once}{door}{opens}{tick}{runs}"), |host| {
        host.sh("systemctl is-active once door.socket tick.timer && systemctl is-enabled once door.socket tick.timer && test -S /run/door")
            .ok();
    });

    apply(&lab, &format!("{fails}fails:\n  service.running: []\nafter:\n  test.nop:\n    - require:\n      - service: fails\n"))
        .code(3)
        .says("no chance at all")
        .says("One or more requisite failed");
    lab.basalt(["rollback", "--yes"]).ok();
}

#[test]
fn a_service_goes_to_every_other_state_and_comes_back() {
    if !lab::required() {
        return;
    }
    let lab = lab(Lab::hosts);
    let host = &lab["h1"];
    apply(&lab, "lab-service:\n  pkg.installed: []\n").ok();
    for (state, is) in [
        ("dead", "inactive enabled"),
        ("dead:\n    - enable: False", "inactive disabled"),
        ("disabled", "active disabled"),
        ("masked", "active masked"),
    ] {
        let now = "echo $(systemctl is-active lab-service) $(systemctl is-enabled lab-service)";
        there_and_back(&lab, &format!("lab-service:\n  service.{state}{}\n", if state.contains(':') { "" } else { ": []" }), |host| {
            assert_eq!(host.sh(now).stdout.trim(), is, "{state}");
        });
    }
    host.sh("systemctl mask --now lab-service").ok();
    apply(&lab, "lab-service:\n  service.running: []\n").code(3).says("is masked");
    there_and_back(&lab, "lab-service:\n  service.running:\n    - unmask: True\n", |host| {
        host.sh("systemctl is-active lab-service").ok();
    });
}

/// How often apt changed packages.
fn transactions(host: &Host) -> usize {
    host.read("/var/log/apt/history.log").unwrap_or_default().matches("Start-Date").count()
}

#[test]
fn neighbouring_packages_are_one_transaction_and_requisites_keep_their_order() {
    if !lab::required() {
        return;
    }
    let lab = lab(Lab::hosts);
    let host = &lab["h1"];
    let before = host.fingerprint_root();
    let had = transactions(host);
    let states = "lab-leaf:\n  pkg.installed: []\nlab-lib:\n  pkg.installed: []\nlab-tool:\n  pkg.installed: []\n";
    apply(&lab, states).ok().says("lab-leaf").says("lab-lib").says("lab-tool");
    assert_eq!(transactions(host) - had, 1);
    lab.basalt(["rollback", "--yes"]).ok();
    before.assert_same(&host.fingerprint_root());

    let had = transactions(host);
    let stamp = "stamp:\n  cmd.run:\n    - name: dpkg-query -W > /var/lib/stamp\n    - undo: rm /var/lib/stamp\n    - require:\n      - pkg: lab-lib\n";
    let between = states
        .replace("lab-tool:\n  pkg.installed: []\n", &format!("{stamp}lab-tool:\n  pkg.installed:\n    - require:\n      - cmd: stamp\n"));
    apply(&lab, &between).ok();
    assert_eq!(transactions(host) - had, 2);
    let stamp = host.read("/var/lib/stamp").unwrap();
    assert!(stamp.contains("lab-lib") && !stamp.contains("lab-tool"), "{stamp}");
    lab.basalt(["rollback", "--yes"]).ok();
    before.assert_same(&host.fingerprint_root());
}

/// Version 1.0 of a package is there, and 2.0 can be had.
fn old_then_new(lab: &Lab, name: &str) {
    let repository = |line: &str| lab["h1"].sh(&format!("echo '{line}' > /etc/apt/sources.list.d/lab.list && apt-get update -q")).ok();
    repository(OLD_REPO);
    apply(lab, &format!("{name}:\n  pkg.installed: []\n")).ok();
    repository(NEW_REPO);
}

fn version(host: &Host, name: &str) -> String {
    host.sh(&format!("dpkg-query -W -f '${{Version}} ${{Status}}' {name}")).stdout
}

#[test]
fn packages_are_upgraded_and_held_and_come_back() {
    if !lab::required() {
        return;
    }
    let lab = lab(Lab::hosts);
    old_then_new(&lab, "lab-leaf");
    there_and_back(&lab, "lab-leaf:\n  pkg.latest: []\n", |_| assert_eq!(version(&lab["h1"], "lab-leaf"), "2.0 install ok installed"));
    there_and_back(&lab, "lab-leaf:\n  pkg.installed:\n    - version: '2.0'\n    - hold: True\n", |_| {
        assert_eq!(version(&lab["h1"], "lab-leaf"), "2.0 hold ok installed");
    });
}

#[test]
fn a_changed_conffile_outlives_remove_purge_and_upgrade() {
    if !lab::required() {
        return;
    }
    let lab = lab(Lab::hosts);
    let host = &lab["h1"];
    old_then_new(&lab, "lab-service");
    host.sh("echo by hand >> /etc/lab-service.conf").ok();
    there_and_back(&lab, "lab-service:\n  pkg.removed: []\n", |_| {
        assert_eq!(version(host, "lab-service"), "1.0 deinstall ok config-files")
    });
    there_and_back(&lab, "lab-service:\n  pkg.purged: []\n", |host| assert_eq!(host.read("/etc/lab-service.conf"), None));
    there_and_back(&lab, "lab-service:\n  pkg.latest: []\n", |host| {
        assert!(host.read("/etc/lab-service.conf").unwrap().ends_with("by hand\n"));
    });
}

#[test]
fn a_broken_package_fails_alone_and_a_held_lock_is_named() {
    if !lab::required() {
        return;
    }
    let lab = lab(Lab::hosts);
    let host = &lab["h1"];
    let before = host.fingerprint_root();
    let states = "lab-leaf:\n  pkg.installed: []\nlab-broken:\n  pkg.installed:\n    - version: '2.0'\nlab-tool:\n  pkg.installed: []\n\
                  after:\n  test.nop:\n    - require:\n      - pkg: lab-broken\n";
    let failed = apply(&lab, states).code(3).says("this postinst always fails").says("One or more requisite failed");
    assert!(failed.stdout.contains("h1  ok=") && failed.stdout.contains("failed=1"), "{failed}");
    host.sh("dpkg -s lab-leaf lab-tool | grep -c 'Status: install ok installed' | grep -x 2").ok();
    lab.basalt(["rollback", "--yes"]).ok();
    before.assert_same(&host.fingerprint_root());

    // Somebody holds dpkg's lock (as dpkg does): waited for, and who it is is said.
    let hold = "perl -e 'use Fcntl; open(F, \">>\", \"/var/lib/dpkg/lock-frontend\"); \
                my $lock = pack(\"ssx4qqix4\", F_WRLCK, 0, 0, 0, 0); fcntl(F, F_SETLK, $lock) or die; sleep 600' >/dev/null 2>&1 & echo $!";
    let holder = host.sh(hold).ok().stdout.trim().to_owned();
    describe(&lab, "lab-leaf:\n  pkg.installed: []\n");
    let running = lab.spawn_basalt(["apply", "--yes"]);
    wait_for(|| host.sh("ls /var/lib/basalt/runs | wc -l").stdout.trim() == "3");
    std::thread::sleep(Duration::from_secs(1));
    running.signal(Signal::INT);
    running.wait().code(130).says("waiting for perl").says("stopped while waiting for /var/lib/dpkg/lock-frontend");
    let running = lab.spawn_basalt(["apply", "--yes"]);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(host.sh("dpkg -s lab-leaf").code, Some(1));
    host.sh(&format!("kill {holder}")).ok();
    running.wait().ok();
    host.sh("dpkg -s lab-leaf").ok();
}

#[test]
fn packages_by_dnf_wait_for_locks_and_answer_templates() {
    if !lab::required() {
        return;
    }
    let lab = lab(|_| Lab::start(vec![lab::Spec::dnf("h1")]));
    let host = &lab["h1"];
    describe(&lab, "nothing:\n  test.nop: []\n");
    host.sh("dnf -q -y install lab-leaf-1.0 lab-epoch-1.0 lab-kernel-1.0 && dnf -q -y install lab-kernel-2.0").ok();
    let before = host.fingerprint_root();

    // What templates ask.
    for (call, answer) in [
        ("pkg.version lab-epoch", "1:1.0-1"),
        ("pkg.version lab-kernel", "1.0-1,2.0-1"),
        ("pkg.latest_version lab-leaf", "2.0-1"),
        ("pkg.latest_version lab-tool", "2.0-1"),
        ("pkg.upgrade_available lab-epoch", "False"),
        ("pkg.version_cmp 1.0-1 1:0.1-1", "-1"),
        ("pkg.version_cmp 1.0 1.0-7", "0"),
        ("test.provider pkg", "yumpkg"),
        ("grains.get os_family", "RedHat"),
    ] {
        let output = lab.basalt([["call", "h1"].to_vec(), call.split(' ').collect()].concat()).ok();
        assert!(output.stdout.contains(answer), "{call}: {output}");
    }

    // rpm's lock is another's: rpm itself would give up at once.
    let hold = "python3 -c 'import fcntl, time; f = open(\"/var/lib/rpm/.rpm.lock\", \"r+\"); fcntl.lockf(f, fcntl.LOCK_EX); time.sleep(600)' \
                >/dev/null 2>&1 & echo $!";
    let holder = host.sh(hold).ok().stdout.trim().to_owned();
    describe(&lab, "lab-lib:\n  pkg.installed: []\n");
    let running = lab.spawn_basalt(["apply", "--yes"]);
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(host.sh("rpm -q lab-lib").code, Some(1));
    host.sh(&format!("kill {holder}")).ok();
    running.wait().ok().says("waiting for python3");
    host.sh("rpm -q lab-lib").ok();
    lab.basalt(["rollback", "--yes"]).ok();
    before.assert_same(&host.fingerprint_root());

    // What is said: what failed in rpm, what cannot be held, what no repository has any more.
    apply(&lab, "lab-broken:\n  pkg.installed: []\n").code(3).says("%prein(lab-broken-2.0-1.noarch) scriptlet failed");
    host.sh("mv /etc/dnf/plugins/versionlock.conf /root").ok();
    describe(&lab, "lab-leaf:\n  pkg.held: []\n");
    lab.basalt(["plan"]).says("python3-dnf-plugin-versionlock is not installed");
    host.sh("mv /root/versionlock.conf /etc/dnf/plugins && cp -r /srv/lab-rpms/new /srv/two && rm /srv/two/lab-leaf-1.0* && createrepo_c -q /srv/two").ok();
    host.sh("sed -i s,lab-rpms/new,two, /etc/yum.repos.d/lab.repo && rm -rf /var/lib/basalt/packages").ok();
    describe(&lab, "lab-leaf:\n  pkg.latest: []\n");
    lab.basalt(["plan"]).says("no repository has the present version any more: lab-leaf 1.0-1");
}

#[test]
fn a_user_and_its_home_come_and_go_and_come_back_whole() {
    if !lab::required() {
        return;
    }
    let lab = lab(Lab::light);
    let host = &lab["h1"];
    let hash = "$6$labsalt$cKvkOaM6hMVTxSN/z2NTd8nnSFLoPJFqkZyWrzPVIgTnBQQCV2XO44B8KIYVFJXO8WmPLhz8ch7ycmfKW3aAx/";
    let present = format!(
        "staff:\n  group.present:\n    - gid: 3200\nbob:\n  user.present:\n    - uid: 2200\n    - groups: [staff, adm]\n    - password: {hash}\n\
         /home/bob/.profile:\n  file.append:\n    - text: umask 027\n"
    );
    there_and_back(&lab, &present, |host| {
        host.sh("id -nG bob | grep -w staff && grep -qx 'umask 027' /home/bob/.profile && test $(stat -c %U /home/bob) = bob").ok();
    });
    apply(&lab, &present).ok();
    let other = hash.replace("cKvk", "zzzz");
    for output in [
        {
            describe(&lab, &present.replace(hash, &other));
            lab.basalt(["plan"]).ok()
        },
        lab.basalt(["plan", "--json"]).ok(),
        lab.basalt(["apply", "--yes", "--json"]).ok(),
        lab.basalt(["rollback", "--yes", "--json"]).ok(),
    ] {
        assert!(!output.to_string().contains("labsalt"), "{output}");
    }
    // Only root reads what the journal must know.
    host.sh("grep -rl labsalt /var/lib/basalt && test -z \"$(find /var/lib/basalt -name journal -perm /077)\" && test $(stat -c %a /var/lib/basalt) = 700").ok();
    let said = host.sh("grep -rl labsalt / --exclude-dir=proc --exclude-dir=sys 2>/dev/null").stdout;
    assert!(said.lines().all(|path| path.starts_with("/var/lib/basalt/") || path.starts_with("/etc/shadow")), "{said}");

    host.sh(
        "mkdir -p /home/bob/deep/er && echo mine > /home/bob/deep/er/file && ln -s file /home/bob/deep/er/link && chown -R bob: /home/bob",
    )
    .ok();
    host.sh("chmod 600 /home/bob/deep/er/file && setfattr -n user.a -v b /home/bob/deep/er/file 2>/dev/null; true").ok();
    there_and_back(&lab, "bob:\n  user.absent:\n    - purge: True\n", |host| {
        host.sh("! id bob 2>/dev/null && ! test -e /home/bob").ok();
    });
}

#[test]
fn what_never_ends_is_ended() {
    if !lab::required() {
        return;
    }
    let lab = lab(Lab::light);
    let host = &lab["h1"];
    describe(
        &lab,
        "slow:\n  cmd.run:\n    - name: touch /slow\n    - unless: 'sleep 987 & wait'\n    - timeout: 1\n\
         quick:\n  cmd.run:\n    - name: touch /quick\n    - unless: test -e /quick\n",
    );
    let begun = Instant::now();
    lab.basalt(["plan"]).says("the condition `sleep 987 & wait` did not end within 1 s");
    assert!(begun.elapsed() < Duration::from_secs(20) && host.sh("pgrep -fx 'sleep 987'").code == Some(1));
    lab.basalt(["apply", "--yes"]).code(3);
    assert_eq!((host.read("/slow"), host.read("/quick").is_some()), (None, true));
    // A template's question too; it has an error instead of an answer.
    describe(&lab, "{% set x = salt['cmd.run']('sleep 986', timeout=1) %}\nx:\n  test.nop: []\n");
    let asked = lab.basalt(["plan"]);
    assert!(asked.code != Some(0) && asked.to_string().contains("`sleep 986` did not end within 1 s"), "{asked}");

    // It ignores the polite signal, and so do its children; the second Ctrl-C ends them all.
    describe(
        &lab,
        "deaf:\n  cmd.run:\n    - name: \"trap '' TERM INT; (while :; do sleep 0.2; done) >/dev/null 2>&1 & while :; do sleep 0.3; done\"\n",
    );
    let running = lab.spawn_basalt(["apply", "--yes"]);
    let begun = Instant::now();
    while host.sh("pgrep -fx 'sleep 0.2'").code != Some(0) {
        if begun.elapsed() > Duration::from_secs(8) {
            running.signal(Signal::KILL);
            panic!("{}\n{}", host.sh("ps axfww"), running.wait());
        }
    }
    running.signal(Signal::INT);
    std::thread::sleep(Duration::from_millis(500));
    running.signal(Signal::INT);
    let begun = Instant::now();
    running.wait().code(130);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    wait_for(|| host.sh("pgrep -fx 'sleep 0.[23]'").code == Some(1));
}

#[test]
fn secrets_are_in_no_output_at_all() {
    if !lab::required() {
        return;
    }
    let lab = lab(Lab::light);
    let host = &lab["h1"];
    lab.write("pillar/top.sls", "base:\n  '*':\n    - data\n");
    let states = "/etc/secret:\n  file.managed:\n    - contents_pillar: key\n    - mode: '0600'\n\
                  also there:\n  file.append:\n    - name: /etc/secret\n    - text: and a line\n\
                  /etc/quiet:\n  file.managed:\n    - contents: {{ pillar['key'] }} quiet\n    - show_changes: False\n";
    let plan = lab.state().join("../secret.plan");
    let plan = plan.to_str().unwrap();
    for key in ["open-sesame-1", "open-sesame-2"] {
        lab.write("pillar/data.sls", &format!("key: {key}\n"));
        describe(&lab, states);
        for args in [&["plan"][..], &["plan", "--json"], &["plan", "-o", plan], &["apply", "--yes", "--json"]] {
            let output = lab.basalt(args);
            let output = if args[0] == "apply" { output.ok() } else { output };
            assert!(!output.to_string().contains("sesame"), "{output}");
            let saved = std::fs::read(plan).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&saved).contains("sesame"), "{}", String::from_utf8_lossy(&saved));
        }
        assert!(host.read("/etc/secret").unwrap().contains(key));
    }
    // Drift over a secret, and the way back.
    host.sh("echo drift >> /etc/quiet; sed -i s/2/3/ /etc/secret").ok();
    for args in [&["plan"][..], &["rollback", "--yes"], &["rollback", "--yes", "--json"]] {
        let output = lab.basalt(args).ok();
        assert!(!output.to_string().contains("sesame"), "{output}");
    }
    assert_eq!(host.read("/etc/secret"), None);
}
