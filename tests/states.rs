//! State functions on a real host: applied, found to be done, judged by the host's own tools, and taken back to the last byte.

mod lab;

use lab::Lab;

/// A key that signs nothing here; it only has to arrive.
const KEY: &str = include_str!("../src/function/pkgrepo/test_key.asc");

const SLS: &str = r#"
old packages:
  pkgrepo.managed:
    - name: deb [trusted=yes signed-by=/etc/apt/keyrings/lab.gpg] file:/srv/lab-repo/old ./
    - file: /etc/apt/sources.list.d/old.list
    - key_url: salt://lab.asc

one of them:
  pkg.installed:
    - name: lab-leaf
    - version: '1.0'
    - require:
      - pkgrepo: old packages

db.test:
  host.present:
    - ip: [192.0.2.7, '2001:db8::7']
    - comment: the database

127.0.1.1:
  host.only:
    - hostnames: [here.test, here]

deploy's second key:
  ssh_auth.present:
    - name: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHpXvOq1zGqG2G4zjoYVwPpe1fiBoHbFzSqTBDAg0lNC second@test
    - user: deploy
    - options: [no-pty]

root's keys:
  ssh_auth.present:
    - names:
      - AAAAC3NzaC1lZDI1NTE5AAAAIHpXvOq1zGqG2G4zjoYVwPpe1fiBoHbFzSqTBDAg0lNC
    - enc: ed25519
    - user: root
    - config: /etc/ssh/keys/%u

Europe/Berlin:
  timezone.system: []

net.ipv4.ip_forward:
  sysctl.present:
    - value: 1

/etc/app.ini:
  ini.options_present:
    - sections:
        main: {workers: 4, debug: False}
        log: {level: info}

/etc/app/data.json:
  file.serialize:
    - dataset: {listen: 80, names: [a, b]}
    - serializer: json
    - makedirs: True
    - mode: '0640'

labedit:
  alternatives.install:
    - link: /usr/bin/labedit
    - path: /usr/bin/true
    - priority: 10

labedit better:
  alternatives.install:
    - name: labedit
    - link: /usr/bin/labedit
    - path: /usr/bin/false
    - priority: 20

labedit chosen:
  alternatives.set:
    - name: labedit
    - path: /usr/bin/true

lab-tool:
  debconf.set:
    - data:
        lab-tool/colour: {type: string, value: dark blue}
        lab-tool/sure: {type: boolean, value: True}

github.test:
  ssh_known_hosts.present:
    - key: AAAAC3NzaC1lZDI1NTE5AAAAIHpXvOq1zGqG2G4zjoYVwPpe1fiBoHbFzSqTBDAg0lNC
    - enc: ssh-ed25519

127.0.0.1:
  ssh_known_hosts.present:
    - user: deploy
    - enc: ed25519

init.defaultBranch:
  git.config_set:
    - value: main
    - global: True

de_DE.UTF-8:
  locale.system: []

cron again:
  module.wait:
    - name: service.restart
    - m_name: cron
    - watch:
      - ini: /etc/app.ini

not run:
  module.run:
    - service.stop:
      - name: cron
    - service.start:
      - name: cron
    - onchanges:
      - cmd: never

role:
  grains.present:
    - value: web

roles:
  grains.list_present:
    - value: [web, db]

never:
  cmd.run:
    - name: 'true'
    - unless: 'true'

app/changed:
  event.send:
    - onchanges:
      - ini: /etc/app.ini

what is needed:
  test.check_pillar:
    - integer: workers
    - string: owner
"#;

#[test]
fn a_hosts_settings_are_applied_and_taken_back() {
    if !lab::required() {
        return;
    }
    let lab = Lab::hosts(1);
    lab.write("states/top.sls", "base:\n  '*': [settings]\n");
    lab.write("states/settings.sls", SLS);
    lab.write("states/lab.asc", KEY);
    lab.write("pillar/top.sls", "base:\n  '*': [data]\n");
    lab.write("pillar/data.sls", "workers: 4\nowner: alice\n");
    lab.commit("settings");
    let host = &lab["h1"];
    let forward = || host.sh("cat /proc/sys/net/ipv4/ip_forward").ok().stdout;
    // The values below net are those of the host's own network, and no others change here.
    host.sh("mount -o remount,bind,rw /proc/sys && echo 0 > /proc/sys/net/ipv4/ip_forward").ok();
    let before = host.fingerprint_root();

    lab.basalt(["apply", "--yes"]).code(0);
    lab.basalt(["plan", "--detailed-exitcode"]).code(0).says("No changes.");
    for (line, said) in [
        ("lab-leaf", "lab-leaf 1.0"),
        ("apt-cache policy | grep -c lab-repo/old", "1"),
        ("head -c 1 /etc/apt/keyrings/lab.gpg | od -An -tx1", " 98"),
        (
            "grep db.test /etc/hosts | tr -s '\t' ' '; getent ahostsv4 db.test | head -n 1 | cut -d' ' -f1",
            "192.0.2.7 db.test # the database\n2001:db8::7 db.test # the database\n192.0.2.7",
        ),
        ("getent hosts 127.0.1.1 | tr -s ' '", "127.0.1.1 here.test here"),
        ("tail -n 1 /home/deploy/.ssh/authorized_keys | ssh-keygen -l -f - | cut -d' ' -f3", "second@test"),
        ("stat -c '%a %U' /etc/ssh/keys /etc/ssh/keys/root", "700 root\n600 root"),
        ("date -d 2026-07-01T12:00Z +%H:%M", "14:00"),
        ("timedatectl show -p Timezone --value", "Europe/Berlin"),
        ("sysctl -n net.ipv4.ip_forward; sysctl -n -p /etc/sysctl.d/99-salt.conf", "1\n1"),
        ("cat /etc/app.ini", "[main]\nworkers = 4\ndebug = False\n\n[log]\nlevel = info"),
        (
            "cat /etc/app/data.json; stat -c %a /etc/app/data.json",
            "{\n  \"listen\": 80,\n  \"names\": [\n    \"a\",\n    \"b\"\n  ]\n}\n640",
        ),
        (
            "update-alternatives --query labedit | grep -E '^(Status|Best|Value)'",
            "Status: manual\nBest: /usr/bin/false\nValue: /usr/bin/true",
        ),
        ("labedit && echo fine", "fine"),
        ("debconf-show lab-tool | sort", "* lab-tool/colour: dark blue\n* lab-tool/sure: true"),
        ("ssh-keygen -F github.test -f /etc/ssh/ssh_known_hosts | grep -c ed25519", "1"),
        ("ssh-keygen -F 127.0.0.1 -f /home/deploy/.ssh/known_hosts | grep -c ed25519", "1"),
        ("stat -c '%a %U' /home/deploy/.ssh/known_hosts", "600 deploy"),
        ("cat /root/.gitconfig", "[init]\n\tdefaultBranch = main"),
        (". /etc/default/locale; echo $LANG", "de_DE.UTF-8"),
        ("cat /etc/salt/grains", "role: web\nroles:\n- web\n- db"),
        ("systemctl is-active cron", "active"),
    ] {
        assert_eq!(host.sh(line).ok().stdout.trim_end(), said, "{line}");
    }

    lab.basalt(["rollback", "--yes"]).code(0);
    before.assert_same(&host.fingerprint_root());
    assert_eq!(forward().trim(), "0");
}
