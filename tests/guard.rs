//! The guard on real hosts: a change that can cut the connection is confirmed over a new one, or the host takes the run back by itself.

mod lab;

use std::time::Duration;

use lab::{Fingerprint, Host, Lab, Output, Spec};
use rustix::process::Signal;

/// Counts the guards that run on a host, into a file.
const COUNT: &str = "pgrep -fc '[b]asalt-agent.* guard' > /root/guards || true";

/// One host, reached as `user`, to which `/srv/state.sls` means this.
fn lab(user: &str, state: &str) -> Lab {
    let lab = Lab::hosts(1);
    roster(&lab, user);
    means(&lab, state);
    lab
}

fn roster(lab: &Lab, user: &str) {
    let sudo = if user == "root" { "" } else { "  sudo: True\n" };
    lab.write("roster.yaml", &format!("h1:\n  host: {}\n  user: {user}\n  timeout: 3\n{sudo}", lab["h1"].address()));
}

fn means(lab: &Lab, state: &str) {
    lab.write("states/top.sls", "base:\n  '*': [state]\n");
    lab.write("states/state.sls", state);
    lab.commit("what is meant");
}

fn apply(lab: &Lab) -> Output {
    lab.basalt(["apply", "--yes", "--guard-timeout", "4"])
}

/// The run was taken back, the host is what it was and can be reached, and everybody says so.
#[track_caller]
fn taken_back(lab: &Lab, host: &Host, before: &Fingerprint, applied: Output) {
    let applied = applied.code(7).says("was taken back by the host itself").says("  taken back");
    before.assert_same(&host.fingerprint_root());
    let plan = lab.basalt(["plan", "--detailed-exitcode"]).code(2).says("guarded: it can cut the connection");
    assert!(!plan.stdout.contains("note:"), "{plan}");
    let runs = lab.basalt(["runs"]).ok();
    let lines: Vec<&str> = runs.stdout.lines().collect();
    assert!(lines.iter().any(|line| line.contains("taken back")), "{runs}\n{applied}");
    // On a busy machine systemd may need a second attempt.
    assert!(lines.iter().any(|line| line.contains("-guard") && line.contains("rolled back")), "{runs}");
    assert_eq!(guards(host), 0, "a guard is left");
}

fn guards(host: &Host) -> usize {
    host.sh("pgrep -fc '[b]asalt-agent.* guard' || true").stdout.trim().parse().unwrap()
}

#[track_caller]
fn until(what: &str, seconds: u64, done: impl Fn() -> bool) {
    let limit = std::time::Instant::now() + Duration::from_secs(seconds);
    while !done() {
        assert!(std::time::Instant::now() < limit, "{what}: not within {seconds} s");
        std::thread::sleep(Duration::from_millis(50));
    }
}

const BAD_SSHD: &str = "/etc/ssh/sshd_config.d/bad.conf:\n  file.managed:\n    - contents: NoSuchOption yes\n\
                        ssh:\n  service.running:\n    - watch:\n      - file: /etc/ssh/sshd_config.d/bad.conf\n";

#[test]
fn a_broken_sshd_is_taken_back() {
    if !lab::required() {
        return;
    }
    // One that does not start, and one that starts and lets nobody in.
    let lab = lab("root", BAD_SSHD);
    let before = lab["h1"].fingerprint_root();
    lab.basalt(["plan"]).ok().says("guarded: it can cut the connection (sshd)");
    taken_back(&lab, &lab["h1"], &before, apply(&lab).says("refuses the connection"));
    means(&lab, &BAD_SSHD.replace("NoSuchOption yes", "AllowUsers nobody"));
    taken_back(&lab, &lab["h1"], &before, apply(&lab).says("does not let root in"));
    // What was taken back can be done again, and `show run` tells why it went.
    let runs = lab.basalt(["runs", "-n", "1"]).ok();
    let id = runs.stdout.split_whitespace().next().unwrap().split("-guard").next().unwrap();
    lab.basalt(["show", "run", id]).ok().says("taken back by the host itself: 198.18.0.1 does not let root in");
}

#[test]
fn a_network_that_goes_is_taken_back() {
    if !lab::required() {
        return;
    }
    let lab = lab(
        "root",
        "ip link set host0 down:\n  cmd.run:\n    - undo: ip link set host0 up\n/etc/later:\n  file.managed:\n    - contents: later\n",
    );
    let host = &lab["h1"];
    let before = host.fingerprint_root();
    taken_back(&lab, host, &before, apply(&lab));

    // A file of the network's settings, and the service that makes it effective.
    host.sh("printf 'true\\n' >/etc/network-up; mkdir -p /etc/network; cp /etc/network-up /etc/network/up
             printf '[Service]\\nType=oneshot\\nRemainAfterExit=yes\\nExecStart=/bin/sh /etc/network/up\\n' >/etc/systemd/system/networking.service
             systemctl daemon-reload; systemctl start networking")
        .ok();
    means(
        &lab,
        "/etc/network/up:\n  file.managed:\n    - contents: ip addr flush dev host0\n    - mode: '0644'\n\
         networking:\n  service.running:\n    - watch:\n      - file: /etc/network/up\n",
    );
    // The address comes back with the file that gives it.
    let address = format!("ip addr replace {}/24 dev host0", host.address());
    host.sh(&format!("echo '{address}' >/etc/network/up")).ok();
    let before = host.fingerprint_root();
    taken_back(&lab, host, &before, apply(&lab));
}

#[test]
fn a_user_who_is_locked_out_is_let_in_again() {
    if !lab::required() {
        return;
    }
    let lab = lab("deploy", "deploy:\n  user.present:\n    - shell: /usr/sbin/nologin\n");
    let host = &lab["h1"];
    let before = host.fingerprint_root();
    taken_back(&lab, host, &before, apply(&lab));
    means(&lab, "/home/deploy/.ssh/authorized_keys:\n  file.managed:\n    - contents: '# nobody'\n");
    taken_back(&lab, host, &before, apply(&lab).says("does not let deploy in"));
    means(&lab, "/etc/sudoers.d/lab:\n  file.managed:\n    - contents: this is no sudoers file\n");
    taken_back(&lab, host, &before, apply(&lab));
    means(&lab, "/home:\n  file.directory:\n    - mode: '0700'\n");
    taken_back(&lab, host, &before, apply(&lab));
}

#[test]
fn a_good_change_is_confirmed_and_stays_and_others_start_no_guard() {
    if !lab::required() {
        return;
    }
    let good = format!(
        "/etc/ssh/sshd_config.d/good.conf:\n  file.managed:\n    - contents: LoginGraceTime 30\n\
                        ssh:\n  service.running:\n    - watch:\n      - file: /etc/ssh/sshd_config.d/good.conf\n\
                        \"{COUNT}\":\n  cmd.run:\n    - order: last\n    - unless: test -e /root/guards\n"
    );
    let lab = lab("root", &good);
    let host = &lab["h1"];
    let before = host.fingerprint_root();
    let applied = lab.basalt(["apply", "--yes", "--json"]).ok();
    let confirmed = applied.stdout.lines().filter(|line| line.contains("\"confirmed\"")).collect::<Vec<_>>();
    assert_eq!(confirmed.len(), 1, "{applied}");
    assert!(confirmed[0].starts_with("{\"type\":\"confirmed\",\"host\":\"h1\",\"run\":\""), "{confirmed:?}");
    assert_eq!(host.read("/root/guards").as_deref(), Some("1\n"));
    assert_eq!(guards(host), 0);
    assert_eq!(host.sh("ls /etc/systemd/system/basalt-guard.service /var/lib/basalt/guard.*").stdout, "");
    lab.basalt(["plan", "--detailed-exitcode"]).code(0);
    // Taking it back is such a change too.
    lab.basalt(["rollback", "--yes"]).ok().says("guarded: it can cut the connection (sshd)").says("h1: confirmed over a new connection.");
    host.sh("rm -f /root/guards").ok();
    before.assert_same(&host.fingerprint_root());

    means(&lab, &format!("/etc/motd:\n  file.managed:\n    - contents: hello\n\"{COUNT}\":\n  cmd.run: []\n"));
    let applied = lab.basalt(["apply", "--yes"]).ok();
    assert!(!applied.stdout.contains("guarded") && !applied.stdout.contains("confirmed"), "{applied}");
    assert_eq!(host.read("/root/guards").as_deref(), Some("0\n"));
}

#[test]
fn nobody_left_to_confirm_is_no_confirmation() {
    if !lab::required() {
        return;
    }
    let slow = "/etc/ssh/sshd_config.d/good.conf:\n  file.managed:\n    - contents: LoginGraceTime 30\ntouch /root/begun; sleep 4:\n  cmd.run:\n    - undo: rm -f /root/begun\n";
    let lab = lab("root", slow);
    let host = &lab["h1"];
    let before = host.fingerprint_root();
    let begun = || host.read("/root/begun").is_some();
    // The controller is killed in the middle of the run.
    let running = lab.spawn_basalt(["apply", "--yes", "--guard-timeout", "4"]);
    until("the run begins", 30, begun);
    running.signal(Signal::KILL);
    until("it is taken back", 30, || host.read("/etc/ssh/sshd_config.d/good.conf").is_none() && guards(host) == 0);
    before.assert_same(&host.fingerprint_root());
    // The user stops it in the middle.
    let running = lab.spawn_basalt(["apply", "--yes", "--guard-timeout", "4"]);
    until("the run begins", 30, begun);
    running.signal(Signal::INT);
    running.wait().code(130).says("was taken back by the host itself").says("it was stopped");
    before.assert_same(&host.fingerprint_root());
    // The agent is killed with everything in its session.
    let running = lab.spawn_basalt(["apply", "--yes", "--guard-timeout", "4"]);
    until("the run begins", 30, begun);
    host.sh("pkill -KILL -xf '.*basalt-agent-[0-9a-f]*'; pkill -KILL sleep; true").ok();
    taken_back(&lab, host, &before, running.wait());
}

/// Whoever cannot reach a host restarts it.
#[test]
fn a_reboot_before_the_confirmation_takes_the_run_back() {
    if !lab::required() {
        return;
    }
    let lab = lab("root", BAD_SSHD);
    let host = &lab["h1"];
    let before = host.fingerprint_root();
    let running = lab.spawn_basalt(["apply", "--yes", "--guard-timeout", "600"]);
    until("the run is over", 60, || host.sh("cat /var/lib/basalt/runs/*/journal 2>/dev/null").stdout.contains("\"entry\":\"end\""));
    running.signal(Signal::INT);
    running.wait().code(130).says("The host takes it back by itself");
    host.kill();
    host.boot();
    until("it is taken back", 60, || guards(host) == 0 && host.read("/etc/ssh/sshd_config.d/bad.conf").is_none());
    before.assert_same(&host.fingerprint_root());
    lab.basalt(["rollback", "--yes"]).code(1).complains("there is no run to take back");
}

/// Where there is no systemd, the guard is a session of its own, and the next plan tells of a run that nobody confirmed.
#[test]
fn a_host_without_systemd_is_guarded_too() {
    if !lab::required() {
        return;
    }
    let lab = Lab::start(vec![Spec::light("h1")]);
    roster(&lab, "deploy");
    means(&lab, "/home/deploy/.ssh/authorized_keys:\n  file.managed:\n    - contents: '# nobody'\n");
    let host = &lab["h1"];
    let before = host.fingerprint_root();
    taken_back(&lab, host, &before, apply(&lab));

    means(
        &lab,
        "/etc/ssh/sshd_config.d/good.conf:\n  file.managed:\n    - contents: LoginGraceTime 30\n\
                 touch /root/begun; sleep 5:\n  cmd.run: []\n",
    );
    let running = lab.spawn_basalt(["apply", "--yes"]);
    until("the run begins", 30, || host.read("/root/begun").is_some());
    host.kill();
    drop(running);
    host.boot();
    lab.basalt(["plan"]).ok().says("was never confirmed and its guard is gone; `basalt rollback --run");
    lab.basalt(["rollback", "--yes"]).ok();
    assert_eq!(host.read("/etc/ssh/sshd_config.d/good.conf"), None);
    let plan = lab.basalt(["plan"]).ok();
    assert!(!plan.stdout.contains("never confirmed"), "{plan}");
}
