//! The lab's own test: its hosts are what other tests take them for.

mod lab;

use std::time::Instant;

use lab::{Lab, NEW_REPO, OLD_REPO, Spec};

/// Three systemd hosts: booted, reached over ssh, equal to themselves, different after a change, cut off and back, crashed and back, pristine again.
#[test]
fn systemd_hosts() {
    if !lab::required() {
        return;
    }
    let start = Instant::now();
    let lab = Lab::hosts(3);
    eprintln!("three hosts in {:?}", start.elapsed());

    for host in lab.all() {
        host.sh("systemctl is-active cron ssh dbus").ok().says("active\nactive\nactive\n");
        host.sh("command -v python3").code(127);
        lab.run(["ssh", "-o", "BatchMode=yes", host.name(), "hostname; cat /proc/1/comm"])
            .ok()
            .says(&format!("{}\nsystemd\n", host.name()));
        lab.run(["ssh", &format!("deploy@{}", host.address()), "sudo -n id -u"]).ok().says("0\n");
    }
    assert_eq!(
        lab.roster(),
        "h1:\n  host: 198.18.0.1\n  user: root\nh2:\n  host: 198.18.0.2\n  user: root\nh3:\n  host: 198.18.0.3\n  user: root\n"
    );

    // A fingerprint equals itself, also across a login, and shows what changed.
    let h1 = &lab["h1"];
    let start = Instant::now();
    let before = h1.fingerprint_root();
    eprintln!("a fingerprint in {:?}", start.elapsed());
    before.assert_same(&h1.fingerprint_root());
    h1.write("/etc/motd", "changed by hand\n");
    h1.sh("chmod 600 /etc/issue; mkdir /srv/new; useradd lena; systemctl -q disable --now cron; setfattr -n user.x /x 2>/dev/null; apt-mark -q hold curl").ok();
    let diff = before.diff(&h1.fingerprint_root());
    for expected in [
        "~ /etc/motd",
        "| +changed by hand",
        "mode 0600",
        "+ /srv/new  directory",
        "| +lena:x:1002:",
        "~ unit-file cron.service",
        "- unit cron.service",
        "~ package curl",
    ] {
        assert!(diff.contains(expected), "no {expected:?} in\n{diff}");
    }

    // A partition: ssh gives up, the host itself goes on.
    let h2 = &lab["h2"];
    h2.link_down();
    lab.run(["ssh", "-o", "ConnectTimeout=1", "h2", "true"]).code(255);
    h2.sh("systemctl is-system-running").ok();
    h2.link_up();
    lab.run(["ssh", "h2", "true"]).ok();

    // A crash keeps what was written; a reset does not.
    h1.kill();
    lab.run(["ssh", "-o", "ConnectTimeout=1", "h1", "true"]).code(255);
    h1.boot();
    assert_eq!(h1.read("/etc/motd").as_deref(), Some("changed by hand\n"));
    let start = Instant::now();
    h1.reset();
    eprintln!("a reset in {:?}", start.elapsed());
    before.assert_same(&h1.fingerprint_root());
    lab["h3"].restart();
    lab.run(["ssh", "h3", "true"]).ok();
}

/// The packages of the lab's repository install, upgrade, fail and go as repo.sh says, and a purge leaves nothing.
#[test]
fn packages() {
    if !lab::required() {
        return;
    }
    let lab = Lab::hosts(1);
    let host = &lab["h1"];
    let before = host.fingerprint_root();
    let apt = "DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold";
    let source = |line: &str| host.sh(&format!("echo '{line}' >/etc/apt/sources.list.d/lab.list; {apt} update")).ok();

    source(OLD_REPO);
    host.sh(&format!(
        "{apt} install lab-tool lab-service lab-broken; lab-tool; systemctl is-enabled lab-service; systemctl is-active lab-service"
    ))
    .ok()
    .says("lab-tool 1.0\nenabled\nactive\n");
    source(NEW_REPO);
    host.sh(&format!("{apt} install lab-service lab-leaf; cat /etc/lab-service.conf; lab-leaf")).ok().says("interval = 2\nlab-leaf 2.0\n");
    host.sh(&format!("{apt} install lab-leaf=1.0 --allow-downgrades; lab-leaf")).ok().says("lab-leaf 1.0\n");
    host.sh(&format!("{apt} install lab-broken")).code(100).complains("this postinst always fails");
    host.sh(&format!("{apt} install lab-rival; apt-mark showauto; ! command -v lab-leaf"))
        .complains("this postinst always fails")
        .says("lab-lib\n");
    host.sh(&format!("{apt} purge --auto-remove lab-tool lab-service lab-broken lab-rival lab-leaf")).ok();
    before.assert_same(&host.fingerprint_root());
}

/// Light hosts: many, one with a disk to fill, one that cannot be written; and a program that is interrupted on the controller.
#[test]
fn light_hosts() {
    if !lab::required() {
        return;
    }
    let specs = (1..=8).map(|i| Spec::light(&format!("w{i}"))).chain([Spec::light("tiny").disk("8m"), Spec::light("fixed").read_only()]);
    let start = Instant::now();
    let lab = Lab::start(specs.collect());
    eprintln!("ten light hosts in {:?}", start.elapsed());
    for host in lab.all() {
        lab.run(["ssh", host.name(), "hostname"]).ok().says(host.name());
    }
    lab["tiny"].sh("head -c 9m /dev/zero >/fill").complains("No space left on device");
    lab["fixed"].sh("touch /etc/x").complains("Read-only file system");
    let before = lab["w1"].fingerprint_root();
    lab["w1"].sh("touch /opt/x").ok();
    assert!(before.diff(&lab["w1"].fingerprint_root()).contains("+ /opt/x  file, 0 bytes"));
    lab["w1"].reset();
    before.assert_same(&lab["w1"].fingerprint_root());

    // A power cut loses what was not synced, and nothing else; a crash of the host loses nothing.
    let tiny = &lab["tiny"];
    tiny.sh("rm /fill; echo kept >/opt/synced; sync; echo lost >/opt/unsynced").ok();
    tiny.power_cut();
    tiny.boot();
    assert_eq!((tiny.read("/opt/synced"), tiny.read("/opt/unsynced")), (Some("kept\n".into()), None));
    tiny.sh("echo kept >/opt/unsynced").ok();
    tiny.kill();
    tiny.boot();
    assert_eq!(tiny.read("/opt/unsynced").as_deref(), Some("kept\n"));

    lab.write("a/b", "c");
    assert_eq!(lab.commit("first").len(), 40);
    lab.run(["cat", "a/b"]).ok().says("c");
}
