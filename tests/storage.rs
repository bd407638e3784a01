//! Storage on real hosts with disks of their own: filesystems, mounts, subvolumes with quotas, and what a rollback leaves alone.

mod lab;

use lab::host::Spec;
use lab::{Host, Lab};

fn lab(disks: &[&str]) -> Lab {
    let lab = Lab::start(vec![Spec::systemd("h1").disks(disks)]);
    lab.write("states/top.sls", "base:\n  '*': [storage]\n");
    lab
}

fn states(lab: &Lab, text: &str) {
    lab.write("states/storage.sls", text);
    lab.commit("storage");
}

fn disk(host: &Host, index: usize) -> &str {
    &host.disks()[index]
}

/// The one run that the host knows.
fn the_run(host: &Host) -> String {
    host.sh("ls /var/lib/basalt/runs").ok().stdout.trim().to_owned()
}

/// Everything that is mounted below /srv and /mnt, with its options.
fn mounts(host: &Host) -> String {
    host.sh("grep -E ' /(srv|mnt)' /proc/self/mountinfo | cut -d' ' -f4- | sed 's/ shared:[0-9]*//' | sort || true").ok().stdout
}

#[test]
fn an_empty_disk_is_formatted_mounted_and_filled_and_stays_formatted() {
    if !lab::required() {
        return;
    }
    let lab = lab(&["256m"]);
    let host = &lab["h1"];
    let device = disk(host, 0).to_owned();
    states(
        &lab,
        &format!(
            "
{device}:
  blockdev.formatted:
    - fs_type: ext4
    - label: data
data:
  mount.mounted:
    - name: /srv/data
    - device: {device}
    - fstype: ext4
    - mkmnt: True
    - opts: noatime,nosuid
    - dump: 0
    - pass_num: 2
    - require:
      - blockdev: {device}
/srv/data/app/conf:
  file.managed:
    - contents: in the volume
    - makedirs: True
    - require:
      - mount: data
"
        ),
    );
    let before = host.fingerprint_root();
    // A new filesystem is empty: the plan knows what will be in it.
    let plan = lab.basalt(["plan", "--detailed-exitcode"]).code(2);
    assert!(!plan.stdout.contains("known after apply"), "{plan}");
    plan.clone().says("nothing → ext4").says("leaves").says("/srv/data/app/conf");
    lab.basalt(["apply", "--yes"]).code(0);
    let run = the_run(host);
    assert!(mounts(host).contains("noatime") && host.sh("cat /srv/data/app/conf").ok().stdout == "in the volume\n");
    lab.basalt(["plan", "--detailed-exitcode"]).code(0);
    // The same filesystem by its label and by its id.
    let uuid = host.sh(&format!("blkid -s UUID -o value {device}")).ok().stdout.trim().to_owned();
    for name in [format!("UUID={uuid}"), "LABEL=data".to_owned()] {
        states(
            &lab,
            &format!(
                "/srv/data:\n  mount.mounted:\n    - device: {name}\n    - fstype: ext4\n    - opts: noatime,nosuid\n    - persist: False\n"
            ),
        );
        lab.basalt(["plan", "--detailed-exitcode"]).code(0);
    }
    let back = lab.basalt(["rollback", "--yes"]).code(0).says("--destroy-data");
    assert!(back.stdout.contains("stays in them: /srv/data/app"), "{back}");
    before.assert_same(&host.fingerprint_root());
    assert_eq!(mounts(host), "");
    let inside = host.sh(&format!("mount {device} /mnt && cat /mnt/app/conf && umount /mnt"));
    assert_eq!(inside.ok().stdout, "in the volume\n");
    // What was left can still be taken back.
    lab.basalt(["rollback", "--run", &run, "--yes", "--destroy-data"]).code(0);
    host.sh(&format!("! blkid {device}")).ok();
}

#[test]
fn what_was_in_a_volume_before_is_restored_in_it() {
    if !lab::required() {
        return;
    }
    let lab = lab(&["256m", "256m"]);
    let host = &lab["h1"];
    let (device, other) = (disk(host, 0).to_owned(), disk(host, 1).to_owned());
    host.sh(&format!("mkfs.ext4 -q {device}; mount {device} /mnt; echo precious >/mnt/kept; chmod 600 /mnt/kept; umount /mnt")).ok();
    host.sh(&format!("mkfs.ext4 -q {other}; mkdir /srv/old; mount -o noatime {other} /srv/old; echo x >/srv/old/x")).ok();
    states(
        &lab,
        &format!(
            "
/srv/data:
  mount.mounted:
    - device: {device}
    - fstype: ext4
    - mkmnt: True
  file.directory:
    - mode: '0750'
/srv/data/kept:
  file.managed:
    - contents: changed
/srv/data/new:
  file.managed:
    - contents: new
/srv/old:
  mount.mounted:
    - device: {other}
    - fstype: ext4
    - opts: nodev,ro
    - persist: False
"
        ),
    );
    let (before, mounted) = (host.fingerprint_root(), mounts(host));
    lab.basalt(["plan", "--detailed-exitcode"]).code(2).says("known after apply");
    lab.basalt(["apply", "--yes"]).code(0);
    assert_eq!(host.sh("cat /srv/data/kept; stat -c %a /srv/data").ok().stdout, "changed\n750\n");
    assert!(mounts(host).contains("ro,nodev"), "{}", mounts(host));
    lab.basalt(["plan", "--detailed-exitcode"]).code(0);
    lab.basalt(["rollback", "--yes"]).code(0);
    before.assert_same(&host.fingerprint_root());
    assert_eq!(mounts(host), mounted);
    let inside = host.sh(&format!("mount {device} /mnt; cat /mnt/kept; stat -c %a /mnt/kept /mnt; ls -A /mnt; umount /mnt")).ok().stdout;
    assert_eq!(inside, "precious\n600\n755\nkept\nlost+found\n");

    // Unmounting: who is in the way is named; then it goes, and comes back.
    states(&lab, "/srv/old:\n  mount.unmounted: []\n");
    host.sh("cd /srv/old && setsid sleep 300 >/dev/null 2>&1 </dev/null & echo $! >/run/holder; sleep 0.2").ok();
    let busy = lab.basalt(["apply", "--yes"]);
    assert!(busy.code != Some(0) && busy.stdout.contains("in use by sleep (process"), "{busy}");
    host.sh("kill $(cat /run/holder); sleep 0.2").ok();
    lab.basalt(["apply", "--yes"]).code(0);
    assert_eq!(mounts(host), "");
    lab.basalt(["plan", "--detailed-exitcode"]).code(0);
    lab.basalt(["rollback", "--yes"]).code(0);
    assert_eq!(mounts(host), mounted);
}

#[test]
fn a_device_that_holds_something_is_not_formatted() {
    if !lab::required() {
        return;
    }
    let lab = lab(&["256m"]);
    let host = &lab["h1"];
    let device = disk(host, 0).to_owned();
    host.sh(&format!("mkfs.btrfs -q {device}")).ok();
    states(&lab, &format!("{device}:\n  blockdev.formatted:\n    - fs_type: ext4\n"));
    let refused = lab.basalt(["plan", "--detailed-exitcode"]);
    assert!(refused.stdout.contains("it holds btrfs") && refused.stdout.contains("force"), "{refused}");
    states(&lab, &format!("{device}:\n  blockdev.formatted:\n    - fs_type: ext4\n    - force: True\n"));
    host.sh(&format!("mount {device} /mnt")).ok();
    let refused = lab.basalt(["apply", "--yes"]);
    assert!(refused.code != Some(0) && refused.stdout.contains("it is mounted at /mnt"), "{refused}");
    host.sh("umount /mnt").ok();
    lab.basalt(["apply", "--yes"]).code(0);
    assert_eq!(host.sh(&format!("blkid -o value -s TYPE {device}")).ok().stdout, "ext4\n");
    lab.basalt(["plan", "--detailed-exitcode"]).code(0);
}

#[test]
fn subvolumes_have_limits_and_snapshots_and_their_data_is_nobodys_to_delete() {
    if !lab::required() {
        return;
    }
    let lab = lab(&["512m"]);
    let host = &lab["h1"];
    let device = disk(host, 0).to_owned();
    host.sh(&format!("mkfs.btrfs -q {device}; mkdir /srv/pool; mount {device} /srv/pool; btrfs subvolume create /srv/pool/there; echo a >/srv/pool/there/a")).ok();
    let text = format!(
        "
/srv/pool:
  btrfs.quota_enabled: []
/srv/pool/sub/box:
  btrfs.subvolume_created:
    - copy_on_write: False
    - set_default: True
box limit:
  btrfs.qgroup_limited:
    - name: /srv/pool/sub/box
    - referenced: 16M
    - exclusive: 12M
snapshot:
  btrfs.snapshot_created:
    - name: /srv/pool/snap
    - source: /srv/pool/there
    - readonly: True
/srv/pool/there:
  btrfs.properties:
    - compression: zstd
    - ro: True
'@inside':
  btrfs.subvolume_created:
    - device: {device}
/srv/box:
  mount.mounted:
    - device: {device}
    - fstype: btrfs
    - opts: subvol=/@inside,compress=zstd,noatime
    - mkmnt: True
"
    );
    states(&lab, &text);
    let show = "btrfs subvolume list /srv/pool | sed 's/gen [0-9]*//'; btrfs subvolume get-default /srv/pool; btrfs property get /srv/pool/there; \
                btrfs qgroup show /srv/pool >/dev/null 2>&1 && echo quotas";
    let show = |host: &Host| host.sh(&format!("{show}; true")).ok().stdout;
    let (before, was, mounted) = (host.fingerprint_root(), show(host), mounts(host));
    lab.basalt(["plan", "--detailed-exitcode"]).code(2);
    lab.basalt(["apply", "--yes"]).code(0);
    lab.basalt(["plan", "--detailed-exitcode"]).code(0);
    let full = host.sh("head -c 20M /dev/urandom >/srv/pool/sub/box/fill");
    assert!(full.code != Some(0) && full.stderr.contains("quota"), "{full}");
    host.sh("rm -f /srv/pool/sub/box/fill; ! touch /srv/pool/snap/x; lsattr -d /srv/pool/sub/box | grep -q C; cat /srv/pool/snap/a").ok();
    let run = the_run(host);

    // Somebody puts something into one of them: that one stays.
    host.sh("echo mine >/srv/pool/sub/box/mine").ok();
    let back = lab.basalt(["rollback", "--yes"]).says("/srv/pool/sub/box stays").says("--destroy-data");
    assert_eq!(host.sh("cat /srv/pool/sub/box/mine").ok().stdout, "mine\n", "{back}");
    host.sh("test -e /srv/pool/snap").ok();
    lab.basalt(["rollback", "--run", &run, "--yes", "--destroy-data"]).code(0);
    assert_eq!(show(host), was);
    assert_eq!(mounts(host), mounted);
    before.assert_same(&host.fingerprint_root());
}

#[test]
fn an_archive_is_extracted_as_planned_and_taken_back_to_the_byte() {
    if !lab::required() {
        return;
    }
    let lab = lab(&[]);
    let host = &lab["h1"];
    let script = "mkdir -p states/files app-1.0/bin && echo one >app-1.0/bin/run && chmod 755 app-1.0/bin/run && echo conf >app-1.0/conf &&
        ln -s bin/run app-1.0/link && tar -czf states/files/app.tar.gz app-1.0 && rm -r app-1.0";
    lab.run(["sh", "-ec", script]).ok();
    states(
        &lab,
        "
/opt/app:
  archive.extracted:
    - source: salt://files/app.tar.gz
    - options: --strip-components=1
    - enforce_toplevel: False
    - user: clerk
    - group: clerk
    - clean_parent: True
exports:
  nfs_export.present:
    - name: /srv/share
    - exports: /etc/exports.d/share.exports
    - hosts: 198.18.0.0/24
    - options: [ro, sync]
    - onlyif: command -v exportfs
",
    );
    host.sh("mkdir -p /opt/app/old; echo mine >/opt/app/conf; echo stray >/opt/app/old/stray; chmod 600 /opt/app/conf").ok();
    let before = host.fingerprint_root();
    lab.basalt(["plan", "--detailed-exitcode"]).code(2).says("/opt/app/bin/run").says("/opt/app/old");
    lab.basalt(["apply", "--yes"]).code(0);
    let there = host.sh("cd /opt/app; cat conf link; stat -c '%n %a %U' conf bin/run; ls -A").ok().stdout;
    assert_eq!(there, "conf\none\nconf 644 clerk\nbin/run 755 clerk\nbin\nconf\nlink\n");
    lab.basalt(["plan", "--detailed-exitcode"]).code(0);
    // What people change in it stays; what goes missing comes back.
    host.sh("echo local >/opt/app/conf").ok();
    lab.basalt(["plan", "--detailed-exitcode"]).code(0);
    host.sh("rm /opt/app/link").ok();
    lab.basalt(["plan", "--detailed-exitcode"]).code(2).says("/opt/app/link");
    lab.basalt(["rollback", "--yes"]).code(0);
    before.assert_same(&host.fingerprint_root());
}
