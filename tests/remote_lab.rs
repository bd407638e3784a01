//! Logins and accounts as real hosts have them: passwords, sudo, disks that will not do, a network that goes away.

#![cfg(feature = "controller")]

mod lab;

use lab::{CLERK_PASSWORD, Lab};

/// A roster with one host `x` that is the lab's first, with these keys.
fn roster(lab: &Lab, keys: &str) {
    lab.write("roster.yaml", &format!("x:\n  host: h1\n  timeout: 4\n{keys}"));
    lab.commit("roster");
}

#[test]
fn sudo_works_with_and_without_a_password() {
    if !lab::required() {
        return;
    }
    let lab = Lab::light(1);
    let whoami = ["run", "x", "--", "id", "-un"];
    roster(&lab, "  user: deploy\n");
    lab.basalt(whoami).ok().says("deploy");
    roster(&lab, "  user: deploy\n  sudo: True\n");
    lab.basalt(whoami).ok().says("root");
    roster(&lab, "  user: deploy\n  sudo_user: clerk\n");
    lab.basalt(whoami).ok().says("clerk");

    roster(&lab, "  user: clerk\n  sudo: True\n");
    lab.basalt(whoami).code(4).says("--ask-sudo-pass");
    roster(&lab, &format!("  user: clerk\n  sudo: True\n  passwd: {CLERK_PASSWORD}\n"));
    lab.basalt(whoami).ok().says("root");
    roster(&lab, "  user: clerk\n  sudo: True\n  passwd: not-that\n");
    let output = lab.basalt(whoami).code(4).says("sudo does not accept the password of clerk");
    assert!(!format!("{output}").contains("not-that"));
}

#[test]
fn a_login_by_password_works_and_a_wrong_one_is_told() {
    if !lab::required() {
        return;
    }
    let lab = Lab::light(1);
    let by_password = "  user: clerk\n  ssh_options: [PubkeyAuthentication=no]\n";
    roster(&lab, &format!("{by_password}  passwd: {CLERK_PASSWORD}\n"));
    lab.basalt(["run", "x", "--", "id", "-un"]).ok().says("clerk");
    roster(&lab, &format!("{by_password}  passwd: not-that\n  port: 22\n"));
    lab.basalt(["run", "x", "--", "id", "-un"]).code(4).says("the password is wrong");
    roster(&lab, &format!("{by_password}  port: 22\n"));
    lab.basalt(["run", "x", "--", "id", "-un"]).code(4).says("--ask-pass");
}

#[test]
fn disks_that_will_not_do_give_way_and_are_told_when_none_is_left() {
    if !lab::required() {
        return;
    }
    let lab = Lab::light(1);
    roster(&lab, "");
    let host = &lab["h1"];
    let places = "/var/cache/basalt /root/.cache/basalt /var/tmp/basalt-0 /dev/shm/basalt-0 /tmp/basalt-0";
    host.sh(&format!("for d in {places}; do mkdir -p $d; done; mount -t tmpfs -o noexec,mode=700 x /var/cache/basalt")).ok();
    host.sh("mount -t tmpfs -o size=64k,mode=700 x /root/.cache/basalt").ok();
    lab.basalt(["run", "x", "--", "true"]).ok();
    host.sh("ls /var/tmp/basalt-0").ok().says("basalt-agent-");
    host.sh("rm /var/tmp/basalt-0/*; for d in /var/tmp/basalt-0 /dev/shm/basalt-0 /tmp/basalt-0; do mount -t tmpfs -o ro x $d; done").ok();
    let output = lab.basalt(["run", "x", "--", "true"]).code(4).says("the agent found no place on the host");
    for reason in ["/var/cache/basalt: ", "noexec", "/root/.cache/basalt: ", "No space left", "/tmp/basalt-0: ", "Read-only"] {
        assert!(output.stdout.contains(reason), "{reason} is missing in {output}");
    }
}

#[test]
fn a_host_whose_network_goes_is_given_up_and_found_again() {
    if !lab::required() {
        return;
    }
    let lab = Lab::light(2);
    lab.write("roster.yaml", "x:\n  host: h1\n  timeout: 2\ny: h2\n");
    lab.commit("roster");
    lab.basalt(["run", "*", "--", "true"]).ok();
    lab["h1"].link_down();
    let begun = std::time::Instant::now();
    lab.basalt(["run", "*", "--", "echo", "here"]).code(4).says("here").says("does not answer");
    assert!(begun.elapsed().as_secs() < 12, "{:?}", begun.elapsed());
    lab["h1"].link_up();
    lab.basalt(["run", "x", "--", "echo", "again"]).ok().says("again");
}

#[test]
fn a_roster_is_a_template_and_says_what_it_cannot_do() {
    if !lab::required() {
        return;
    }
    let lab = Lab::light(1);
    lab.write("roster.yaml", "{% for n in ['a', 'b'] %}\n{{ n }}:\n  host: h1\n  tty: True\n{% endfor %}\n");
    lab.commit("roster");
    let output = lab.basalt(["run", "*", "--", "echo", "here"]).ok().says("a | here").says("b | here");
    assert!(output.stderr.contains("warning: `tty` of a has no effect"), "{output}");
    lab.write("roster.yaml", "{{ nothing.at.all }}\n");
    lab.commit("roster");
    lab.basalt(["run", "*", "--", "true"]).code(1).complains("roster.yaml");
}
