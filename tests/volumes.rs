//! Volumes at work: the sample's own states (`states/volumes`) carve subvolumes with limits, mount them and export them with nfs-ganesha; clients in
//! other namespaces read and write through libnfs (`nfs-cat`, and `lab/nfs-write.py` for what is larger). Limits, clients and exports change and are taken back, and the data is nobody's to touch.

mod lab;

use std::path::Path;
use std::time::{Duration, Instant};

use lab::host::Spec;
use lab::{Host, Lab, Output};

/// The controller is one client, h2 another.
const CONTROLLER: &str = "198.18.0.254";
const OTHER: &str = "198.18.0.2";

fn lab() -> Lab {
    let server = Spec::systemd("h1").disks(&["512m"]).packages(&["nfs-ganesha", "nfs-ganesha-vfs"]);
    let lab = Lab::start(vec![server, Spec::light("h2")]);
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in ["states/volumes/init.sls", "states/volumes/files/ganesha.conf.j2"] {
        lab.write(file, &std::fs::read_to_string(package.join(file)).unwrap());
    }
    lab.write("states/top.sls", "base:\n  h1: [volumes]\n");
    lab.write("pillar/top.sls", "base:\n  h1: [volumes]\n");
    lab
}

/// A share: its limit and who may do what.
struct Share {
    name: &'static str,
    size: &'static str,
    clients: &'static [(&'static str, &'static str)],
}

fn shares(lab: &Lab, shares: &[Share]) {
    let mut text = format!("volumes:\n  device: {}\n  grace_period: 1\n  shares:\n", lab["h1"].disks()[0]);
    for (id, Share { name, size, clients }) in shares.iter().enumerate() {
        text += &format!("    {name}:\n      export_id: {}\n      size: {size}\n      squash: no_root_squash\n      clients:\n", id + 1);
        for (hosts, access) in *clients {
            text += &format!("        - {{hosts: {hosts}, access_type: {access}, squash: no_root_squash}}\n");
        }
    }
    lab.write("pillar/volumes.sls", &text);
    lab.commit("volumes");
}

/// A program of libnfs on a file of the server, as the client of this namespace (none: the controller).
fn nfs(lab: &Lab, namespace: Option<&str>, script: &str) -> Output {
    let script = script.replace("SERVER", &format!("nfs://{}", lab["h1"].address())).replace("V4", "?version=4");
    let enter: &[&str] = if namespace.is_some() { &["ip", "netns", "exec"] } else { &[] };
    lab.run(enter.iter().copied().chain(namespace).chain(["sh", "-c", &script]))
}

/// Writes a file of so many megabytes.
fn fill(lab: &Lab, megabytes: u32, path: &str) -> Output {
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/nfs-write.py");
    nfs(lab, None, &format!("head -c {megabytes}M /dev/urandom | python3 {program} 'SERVER/{path}V4'"))
}

fn pid(host: &Host) -> String {
    host.sh("systemctl show -p MainPID --value nfs-ganesha").ok().stdout
}

fn run(lab: &Lab) -> String {
    lab["h1"].sh("ls -t /var/lib/basalt/runs | head -n 1").ok().stdout.trim().to_owned()
}

/// Apply, and the next plan is empty; gives the run.
fn apply(lab: &Lab) -> String {
    lab.basalt(["plan", "--detailed-exitcode"]).code(2);
    lab.basalt(["apply", "--yes"]).code(0);
    lab.basalt(["plan", "--detailed-exitcode"]).code(0);
    run(lab)
}

#[test]
fn a_volume_is_carved_exported_and_used_by_its_clients_and_taken_back_without_its_data() {
    if !lab::required_with(&["nfs-cat", "python3"]) {
        return;
    }
    let lab = lab();
    let host = &lab["h1"];
    let before = host.fingerprint_root();
    let both: &[(&str, &str)] = &[(CONTROLLER, "RW")];
    shares(&lab, &[Share { name: "projects", size: "4M", clients: both }, Share { name: "media", size: "64M", clients: both }]);
    let plan = lab.basalt(["plan", "--detailed-exitcode"]).code(2);
    assert!(!plan.stdout.contains("known after apply"), "{plan}");
    plan.says("nothing → btrfs").says("referenced: 4194304").says("Clients = 198.18.0.254;");
    let first = apply(&lab);

    // Who is accepted reads and writes; who is not does not even see it.
    nfs(&lab, None, "echo mine >f && nfs-cp f 'SERVER/projects/fV4' && nfs-cat 'SERVER/projects/fV4'").ok().says("mine");
    assert_eq!(host.sh("cat /srv/volumes/projects/f /srv/pool/projects/f").ok().stdout, "mine\nmine\n");
    let refused = nfs(&lab, Some("h2"), "nfs-cat 'SERVER/projects/fV4'");
    assert!(!refused.stdout.contains("mine") && refused.stderr.contains("Failed to mount"), "{refused}");
    // The limit holds for what comes over the network, too.
    let full = fill(&lab, 6, "projects/big");
    assert!(full.code != Some(0) && full.stderr.contains("NFS4ERR_DQUOT"), "{full}");
    host.sh("rm /srv/volumes/projects/big").ok();

    // More room, and back: the file that was written meanwhile stays.
    shares(&lab, &[Share { name: "projects", size: "16M", clients: both }, Share { name: "media", size: "64M", clients: both }]);
    lab.basalt(["plan"]).code(0).says("referenced: 4194304 → 16777216").says("1 to change");
    apply(&lab);
    fill(&lab, 6, "projects/bigger").ok();
    lab.basalt(["rollback", "--yes"]).code(0);
    let limit = "btrfs qgroup show --raw -r /srv/volumes/projects | awk '$4 ~ /^[0-9]/ {print $4}' | sort -n | head -n 1";
    assert_eq!(host.sh(limit).ok().stdout, "4194304\n");
    assert_eq!(host.sh("stat -c %s /srv/pool/projects/bigger").ok().stdout, "6291456\n");
    host.sh("rm /srv/pool/projects/bigger").ok();

    // All that was made goes, but what people have put into it.
    let text = lab.basalt(["rollback", "--run", &first, "--yes"]).code(0).says("--destroy-data").stdout;
    assert!(text.contains("/srv/pool/projects stays"), "{text}");
    assert_eq!(host.sh("grep -c btrfs /proc/self/mountinfo; pidof ganesha.nfsd; true").ok().stdout, "0\n");
    before.assert_same(&host.fingerprint_root());
    let device = host.disks()[0].clone();
    let inside = host.sh(&format!("mount {device} /mnt && cat /mnt/projects/f && umount /mnt"));
    assert_eq!(inside.ok().stdout, "mine\n");
}

/// A client in the middle of a read: it reads a file to its end, slowly, while exports change around it.
fn slow_reader(lab: &Lab) -> lab::Running {
    let script = format!(
        "nfs-cat 'nfs://{}/media/film?version=4' | {{ dd bs=1 count=1 of=/dev/null 2>/dev/null; : >started; while [ ! -e go ]; do sleep 0.1; done; cat; }} | wc -c",
        lab["h1"].address()
    );
    let mut command = lab.command(&lab.state(), "sh");
    command.args(["-c", &script]);
    let reader = lab::Running::spawn(command);
    let limit = Instant::now() + Duration::from_secs(20);
    while !lab.state().join("started").exists() {
        assert!(Instant::now() < limit, "the reader does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    reader
}

#[test]
fn exports_change_and_go_and_come_back_while_other_clients_go_on() {
    if !lab::required_with(&["nfs-cat", "python3"]) {
        return;
    }
    let lab = lab();
    let host = &lab["h1"];
    let media = || Share { name: "media", size: "64M", clients: &[(CONTROLLER, "RW")] };
    let projects = |clients| Share { name: "projects", size: "4M", clients };
    lab.run(["sh", "-c", "printf 'started\\ngo\\nf\\ng\\n' >.gitignore"]).ok();
    shares(&lab, &[media(), projects(&[(CONTROLLER, "RW")])]);
    apply(&lab);
    nfs(&lab, None, "echo mine >f && nfs-cp f 'SERVER/projects/fV4'").ok();
    fill(&lab, 4, "media/film").ok();
    let server = pid(host);
    let reader = slow_reader(&lab);
    let other = || nfs(&lab, Some("h2"), "nfs-cat 'SERVER/projects/fV4'").stdout.contains("mine");
    let own = || nfs(&lab, None, "nfs-cat 'SERVER/projects/fV4'").stdout.contains("mine");

    // Another client, who may only read.
    assert!(own() && !other());
    shares(&lab, &[media(), projects(&[(CONTROLLER, "RW"), (OTHER, "RO")])]);
    lab.basalt(["plan"]).code(0).says("+        Clients = 198.18.0.2;").says("systemctl reload nfs-ganesha.service").says("1 to change");
    apply(&lab);
    assert!(own() && other());
    let written = nfs(&lab, Some("h2"), "echo x >g && nfs-cp g 'SERVER/projects/gV4'");
    assert!(written.stderr.contains("NFS4ERR_ROFS"), "{written}");
    lab.basalt(["rollback", "--yes"]).code(0);
    assert!(own() && !other());

    // No export any more: nobody sees it, the data stays. Then it is back.
    shares(&lab, &[media(), projects(&[])]);
    lab.basalt(["plan"]).code(0).says("-EXPORT {").says("1 to change");
    apply(&lab);
    assert!(!own() && host.sh("cat /srv/volumes/projects/f").ok().stdout == "mine\n");
    lab.basalt(["rollback", "--yes"]).code(0);
    assert!(own() && !other());

    // A third volume while the server runs, and its way back: the server lets go of what is unmounted.
    let third = Share { name: "scratch", size: "8M", clients: &[(CONTROLLER, "RW")] };
    shares(&lab, &[media(), projects(&[(CONTROLLER, "RW")]), third]);
    apply(&lab);
    nfs(&lab, None, "nfs-ls 'SERVER/scratchV4'").ok();
    lab.basalt(["rollback", "--yes"]).code(0);
    assert_eq!(host.sh("grep -c scratch /proc/self/mountinfo; ls /srv/pool; true").ok().stdout, "0\nmedia\nprojects\n");

    // Two exports of one number: refused before anything is touched.
    lab.write(
        "pillar/volumes.sls",
        &std::fs::read_to_string(lab.state().join("pillar/volumes.sls")).unwrap().replace("export_id: 3", "export_id: 1"),
    );
    lab.commit("a number twice");
    let refused = lab.basalt(["plan"]);
    assert!(refused.stdout.contains("export_id 1 of /srv/volumes/scratch is that of /srv/volumes/media"), "{refused}");

    // It is still the same server, and the reader has missed nothing.
    assert_eq!(pid(host), server);
    std::fs::write(lab.state().join("go"), "").unwrap();
    assert_eq!(reader.wait().ok().stdout.trim(), (4 * 1024 * 1024 - 1).to_string());
}

/// The lab's kernel has no NFS server, so `exportfs` is a stand-in that writes down what it would have read.
#[test]
fn the_kernels_exports_are_written_told_and_taken_back() {
    if !lab::required() {
        return;
    }
    let lab = Lab::start(vec![Spec::light("h1")]);
    let host = &lab["h1"];
    host.sh("printf '#!/bin/sh\\necho \"exportfs $*\"; cat /etc/exports /etc/exports.d/*.exports >/run/exported 2>/dev/null; :\\n' >/usr/sbin/exportfs; chmod 755 /usr/sbin/exportfs").ok();
    host.sh("mkdir -p /srv/a /srv/b; printf '# ours\\n/srv/old *(ro)\\n' >/etc/exports").ok();
    let state = |clients: &str, old: &str| {
        lab.write("states/top.sls", "base:\n  '*': [exports]\n");
        let text = format!(
            "/srv/a:\n  nfs_export.present:\n    - clients: {clients}\n/srv/b:\n  nfs_export.present:\n    - hosts: '@trusted'\n    - options: [ro]\n    \
             - exports: /etc/exports.d/b.exports\n/srv/old:\n  nfs_export.{old}\n"
        );
        lab.write("states/exports.sls", &text);
        lab.commit("exports");
    };
    let exported = || host.sh("cat /run/exported").stdout;
    let before = host.fingerprint_root();
    state("[{hosts: 198.18.0.0/24, options: [rw, sync]}]", "present: [{hosts: '*'}, {options: [ro]}]");
    apply(&lab);
    let first = "# ours\n/srv/old *(ro)\n/srv/a 198.18.0.0/24(rw,sync)\n/srv/b @trusted(ro)\n";
    assert_eq!(exported(), first);
    state("[{hosts: 198.18.0.0/24, options: [rw, sync]}, {hosts: 198.18.1.1, options: [ro]}]", "absent: []");
    lab.basalt(["plan"]).code(0).says("+/srv/a 198.18.0.0/24(rw,sync) 198.18.1.1(ro)").says("-/srv/old *(ro)").says("exportfs -r");
    apply(&lab);
    assert_eq!(exported(), "# ours\n/srv/a 198.18.0.0/24(rw,sync) 198.18.1.1(ro)\n/srv/b @trusted(ro)\n");
    lab.basalt(["rollback", "--yes"]).code(0);
    assert_eq!(exported(), first);
    let run = lab["h1"].sh("ls -tr /var/lib/basalt/runs | head -n 1").ok().stdout;
    lab.basalt(["rollback", "--run", run.trim(), "--yes"]).code(0);
    before.assert_same(&host.fingerprint_root());
    assert_eq!(exported(), "# ours\n/srv/old *(ro)\n");
}
