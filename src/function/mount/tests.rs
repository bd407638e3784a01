use super::super::testing::{Host, answer, low};
use super::*;
use crate::plan::Hash;
use serde_json::json;

fn host() -> Host {
    let mut host = Host::default();
    host.file("/etc/fstab", "/dev/vdb /srv ext4 noatime 0 2\n");
    for path in ["/", "/mnt", "/srv", "/etc"] {
        host.has(&format!("file:{path}"), json!({"kind": "directory"}));
    }
    host.has("file:/dev/vdb", json!({"kind": "other"}));
    host.has("file:/dev/disk/by-uuid/U-1", json!({"kind": "symlink", "target": "../../vdb"}));
    host.has(
        "mount:/srv",
        json!({"device": "/dev/vdb", "fstype": "ext4", "options": "rw,noatime", "super": "rw,commit=30", "uuid": "u-1", "label": "data"}),
    );
    host.has("mount:/bound", json!({"device": "/dev/vda", "fstype": "ext4", "options": "rw", "super": "rw", "bind": "/opt/x"}));
    host.has("mount:/n", json!({"device": "h:/x", "fstype": "nfs4", "options": "rw", "super": "rw,vers=4.2"}));
    host
}

/// What is wanted, files as their texts.
fn wanted(function: &str, args: serde_json::Value) -> serde_json::Value {
    let host = host();
    match answer(&host, function, args) {
        Ok(Want::Is(wants)) => wants
            .into_iter()
            .map(|(key, mut attrs)| {
                if let Some(Value::Str(hash)) = attrs.get("content").cloned() {
                    let text = String::from_utf8_lossy(&host.bytes(&Hash(hash)).unwrap()).into_owned();
                    attrs = Attrs::from([("text".to_owned(), Value::Str(text))]);
                }
                json!([key, attrs])
            })
            .collect(),
        Ok(Want::Nothing(why)) => json!(why),
        Ok(other) => panic!("{other:?}"),
        Err(why) => json!({ "fails": why }),
    }
}

#[test]
fn what_is_mounted_as_described_stays() {
    for device in ["/dev/vdb", "UUID=U-1", "LABEL=data", "/dev/disk/by-uuid/U-1"] {
        let args =
            json!({"name": "/srv/", "device": device, "fstype": "ext4", "opts": ["noatime", "nofail", "commit=30"], "persist": false});
        assert_eq!(wanted("mount.mounted", args), json!("Target was already mounted"), "{device}");
    }
    let bound = json!({"name": "/bound", "device": "/opt/x", "fstype": "none", "opts": "bind", "persist": false});
    assert_eq!(wanted("mount.mounted", bound), json!("Target was already mounted"));
    let entry = json!({"name": "/srv", "device": "/dev/vdb", "fstype": "ext4", "opts": "noatime", "pass_num": 2});
    assert_eq!(wanted("mount.mounted", entry), json!("Target was already mounted"));
}

#[test]
fn mounting_takes_the_point_the_mount_and_the_entry() {
    let args = json!({"name": "/mnt/new", "device": "/dev/vdb", "fstype": "xfs", "mkmnt": true, "opts": "ro,nofail"});
    assert_eq!(
        wanted("mount.mounted", args.clone()),
        json!([
            ["file:/mnt/new", {"kind": "directory", "mode": "0755"}],
            ["mount:/mnt/new", {"device": "/dev/vdb", "opts": "ro,nofail", "source": "/dev/vdb", "type": "xfs"}],
            ["file:/etc/fstab", {"text": "/dev/vdb\t\t/mnt/new\txfs\tro,nofail\t0 0\n"}],
        ])
    );
    let mut without = args.clone();
    without["mkmnt"] = json!(false);
    assert_eq!(wanted("mount.mounted", without), json!({"fails": "Mount directory is not present"}));
    let mut later = args;
    later["mount"] = json!(false);
    later["match_on"] = json!("name");
    assert_eq!(wanted("mount.mounted", later)[1][1]["text"].as_str().unwrap().lines().count(), 2);
}

#[test]
fn other_options_remount_and_another_device_mounts_anew() {
    let mounted = |args: serde_json::Value| wanted("mount.mounted", args);
    let options = json!({"name": "/srv", "device": "/dev/vdb", "fstype": "ext4", "opts": "noatime,nosuid", "persist": false});
    assert_eq!(mounted(options), json!([["mount:/srv", {"opts": "noatime,nosuid"}]]));
    // The entry had it, the state has it no more.
    let fewer = json!({"name": "/srv", "device": "/dev/vdb", "fstype": "ext4"});
    assert_eq!(mounted(fewer)[0], json!(["mount:/srv", {"opts": "defaults,relatime"}]));
    let other = json!({"name": "/srv", "device": "LABEL=other", "fstype": "ext4", "persist": false});
    assert_eq!(
        mounted(other),
        json!([["mount:/srv", {"device": "LABEL=other", "opts": "defaults", "source": "LABEL=other", "type": "ext4"}]])
    );
    let network = json!({"name": "/n", "device": "h:/x", "fstype": "nfs", "opts": "vers=4.1", "persist": false});
    assert_eq!(mounted(network), json!([["mount:/n", {"again": true, "opts": "vers=4.1", "source": "h:/x", "type": "nfs"}]]));
    let hidden = json!({"name": "/n", "device": "h:/x/", "fstype": "nfs", "opts": "fg,vers=4.2", "hidden_opts": "fg", "persist": false});
    assert_eq!(mounted(hidden), json!("Target was already mounted"));
}

#[test]
fn options_are_compared_as_the_kernel_shows_them() {
    let attrs = |own: &str, superior: &str| Attrs::from([("options".into(), Value::str(own)), ("super".into(), Value::str(superior))]);
    let missing = |fstype: &str, opts: &[&str], now: &Attrs| {
        let low = low("mount.mounted", json!({"name": "/x"}));
        Options::new(&Args(&low), opts.iter().map(|o| (*o).to_owned()).collect(), fstype).unwrap().missing(now, None)
    };
    let btrfs = attrs("rw,relatime", "rw,compress=zstd:3,discard=async,space_cache=v2,subvolid=256,subvol=/@data");
    assert!(missing("btrfs", &["compress=zstd", "subvol=@data", "discard", "suid", "rw", "x-systemd.automount"], &btrfs).is_empty());
    assert_eq!(missing("btrfs", &["compress=lzo", "subvol=@", "noatime", "strictatime"], &btrfs).len(), 4);
    let tmpfs = attrs("rw,nosuid", "rw,size=1048576k,mode=755");
    assert!(missing("tmpfs", &["size=1G", "mode=0755"], &tmpfs).is_empty());
    assert_eq!(missing("tmpfs", &["size=2G", "suid"], &tmpfs), ["size=2G", "suid"]);
    assert_eq!(missing("ext4", &["rw"], &attrs("ro", "ro")), ["rw"]);
}

#[test]
fn unmounting_swapping_and_entries() {
    assert_eq!(
        wanted("mount.unmounted", json!({"name": "/srv", "persist": true})),
        json!([["mount:/srv", {}], ["file:/etc/fstab", {"text": ""}]])
    );
    assert_eq!(wanted("mount.unmounted", json!({"name": "/srv", "device": "/dev/other"})), json!("Target was already unmounted"));
    assert_eq!(
        wanted("mount.swap", json!({"name": "/dev/vdb"})),
        json!([
            ["swap:/dev/vdb", {"active": true}],
            ["file:/etc/fstab", {"text": "/dev/vdb\t\tnone\tswap\tdefaults\t0 0\n"}],
        ])
    );
    assert_eq!(wanted("mount.swap", json!({"name": "/none"})), json!({"fails": "/none does not exist"}));
    let present = json!({"name": "h:/y", "fs_file": "/mnt/y", "fs_vfstype": "nfs", "fs_mntops": "ro"});
    assert_eq!(
        wanted("mount.fstab_present", present),
        json!([
            ["file:/etc/fstab", {"text": "/dev/vdb /srv ext4 noatime 0 2\nh:/y\t\t/mnt/y\tnfs\tro\t0 0\n"}],
            ["mount:/mnt/y", {"opts": "ro", "source": "h:/y", "type": "nfs"}],
        ])
    );
    assert_eq!(wanted("mount.fstab_absent", json!({"name": "/dev/vdb", "fs_file": "/srv/"})), json!([["file:/etc/fstab", {"text": ""}]]));
    let none = json!({"name": "/dev/vdc", "fs_file": "/x", "fs_vfstype": "ext4", "mount_by": "uuid"});
    assert_eq!(wanted("mount.fstab_present", none), json!({"fails": "Device /dev/vdc cannot be converted to uuid"}));
}
