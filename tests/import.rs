//! `basalt import` on real hosts: its plan against the host it was taken from is empty, and a fresh host becomes the same by it, as both hosts'
//! own tools see it.

mod lab;

use lab::Lab;
use lab::host::Spec;

/// What somebody did on the host by hand over the years.
const BY_HAND: &str = r#"
set -e
echo 'deb [trusted=yes] file:/srv/lab-repo/old ./' >/etc/apt/sources.list.d/old.list
apt-get install -y -q lab-tool lab-service lab-leaf=1.0 >/dev/null
apt-mark hold lab-leaf >/dev/null
groupadd -g 1500 team
useradd -m -u 1501 -g team -G sudo -s /bin/sh -c "Ann O'Hara,12" ann
install -d -m 700 -o ann -g team ~ann/.ssh
echo 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHpXvOq1zGqG2G4zjoYVwPpe1fiBoHbFzSqTBDAg0lNC ann@desk' >~ann/.ssh/authorized_keys
chown ann:team ~ann/.ssh/authorized_keys
chmod 600 ~ann/.ssh/authorized_keys
echo 'interval = 30' >>/etc/lab-service.conf
install -d -m 750 -g team /etc/app
echo 'workers = 4' >/etc/app/app.ini
printf '\000\377binary\n' >/etc/app/data.bin
ln -s app.ini /etc/app/current
echo 'password = hunter2' >/etc/app/secret.ini
chmod 640 /etc/app/app.ini
printf '[Unit]\nDescription=app\n[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n' >/etc/systemd/system/app.service
systemctl -q daemon-reload
systemctl -q enable --now app.service
systemctl -q disable --now lab-service.service
systemctl -q mask e2scrub_all.timer
echo '5 4 * * * /usr/bin/true' | crontab -u ann -
echo 'net.ipv4.ip_forward = 1' >/etc/sysctl.d/10-app.conf
mkdir /mnt/scratch
echo 'tmpfs /mnt/scratch tmpfs nosuid,nodev,size=1024k 0 0' >>/etc/fstab
mount /mnt/scratch
ln -sf /usr/share/zoneinfo/Europe/Berlin /etc/localtime
echo Europe/Berlin >/etc/timezone
"#;

/// What both hosts are to say alike.
const LOOK: [&str; 10] = [
    "dpkg-query -W -f '${Package} ${Version} ${db:Status-Abbrev}\\n'",
    "apt-mark showhold",
    "getent passwd",
    "getent group | sort",
    "systemctl daemon-reload; systemctl list-unit-files --no-legend --no-pager | sort",
    "systemctl is-active app lab-service cron; findmnt -n -o FSTYPE,OPTIONS /mnt/scratch",
    "crontab -l -u ann; stat -c '%A %U %G' /var/spool/cron/crontabs/ann /home/ann/.ssh /home/ann/.ssh/authorized_keys /etc/app /etc/app/app.ini /etc/app/current /etc/app/data.bin",
    "readlink /etc/localtime /etc/app/current; cat /etc/timezone; sysctl -n net.ipv4.ip_forward",
    "cat /etc/apt/sources.list.d/*; cat /home/ann/.ssh/authorized_keys",
    "cd /etc; find . -type f ! -name '*-' ! -name hosts ! -name hostname ! -name machine-id ! -name 'shadow' ! -name gshadow \
     ! -name .pwd.lock ! -name .updated ! -name secret.ini ! -name fstab ! -name ld.so.cache | sort | xargs sha256sum",
];

#[test]
fn what_was_done_by_hand_is_written_down_and_makes_another_host_the_same() {
    if !lab::required() {
        return;
    }
    let lab = Lab::hosts(2);
    lab["h1"].sh(BY_HAND).ok();
    lab["h1"].sh("echo 1 >/proc/sys/net/ipv4/ip_forward").ok();
    lab.commit("a roster");

    let said = lab.basalt(["import", "h1"]).code(0).says("wrote ").says("/etc/app/secret.ini: line 1 looks like a secret");
    assert!(lab.state().join("states/top.sls").exists(), "{said}");
    let text = |part: &str| std::fs::read_to_string(lab.state().join(format!("states/imported/h1/{part}.sls"))).unwrap();
    // Only what makes this host: what lab-tool needs comes with it.
    assert!(text("packages").contains("      - lab-tool\n") && !text("packages").contains("lab-lib"), "{}", text("packages"));
    let whole = lab.run(["grep", "-r", "hunter2", "."]);
    assert_eq!(whole.stdout, "", "a secret was copied");
    lab.basalt(["plan", "h1", "--detailed-exitcode"]).code(0).says("No changes.");
    lab.basalt(["lint"]).code(0);
    // It is not overwritten.
    lab.basalt(["import", "h1"]).code(1).complains("is there already");

    lab.write("states/top.sls", "base:\n  '*':\n    - imported.h1\n");
    lab.basalt(["apply", "h2", "--yes"]).code(0);
    lab.basalt(["plan", "--detailed-exitcode"]).code(0).says("No changes.");
    for look in LOOK {
        let [one, other] = ["h1", "h2"].map(|host| lab[host].sh(look).stdout);
        assert_eq!(one, other, "{look}");
    }
    lab.basalt(["rollback", "h2", "--yes"]).code(0);
}

/// The same on a host of Red Hat's kind.
const BY_HAND_WITH_DNF: &str = r#"
set -e
dnf -q -y install lab-tool lab-service lab-leaf-1.0 >/dev/null
dnf -q versionlock add lab-leaf >/dev/null
useradd -m -u 1501 -s /bin/sh -c "Ann O'Hara" ann
echo 'interval = 30' >>/etc/lab-service.conf
mkdir -p /etc/app
echo 'workers = 4' >/etc/app/app.ini
printf '[more]\nname=More\nbaseurl=file:///srv/lab-rpms/extra\ngpgcheck=0\n' >/etc/yum.repos.d/more.repo
printf '[Unit]\nDescription=app\n[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n' >/etc/systemd/system/app.service
systemctl -q daemon-reload
systemctl -q enable --now app.service
systemctl -q enable --now lab-service.service
"#;

const LOOK_WITH_DNF: [&str; 5] = [
    "rpm -qa | sort; dnf -q -C repoquery --userinstalled | sort; grep -v -e '^#' -e '^$' /etc/dnf/plugins/versionlock.list",
    "getent passwd; getent group | sort",
    "systemctl daemon-reload; systemctl list-unit-files --no-legend --no-pager | sort",
    "systemctl is-active app lab-service; cat /etc/yum.repos.d/* /etc/app/* /etc/lab-service.conf",
    "cd /etc; find . -type f ! -name '*-' ! -name hosts ! -name hostname ! -name machine-id ! -name 'shadow' ! -name gshadow \
     ! -name .pwd.lock ! -name .updated ! -name ld.so.cache ! -name versionlock.list | sort | xargs sha256sum",
];

#[test]
fn a_host_with_dnf_makes_another_the_same() {
    if !lab::required() {
        return;
    }
    let lab = Lab::start(vec![Spec::dnf("h1"), Spec::dnf("h2")]);
    lab["h1"].sh(BY_HAND_WITH_DNF).ok();
    lab.commit("a roster");
    lab.basalt(["import", "h1"]).code(0).says("wrote ");
    let packages = std::fs::read_to_string(lab.state().join("states/imported/h1/packages.sls")).unwrap();
    assert!(packages.contains("      - lab-tool\n") && !packages.contains("lab-lib"), "{packages}");
    lab.basalt(["plan", "h1", "--detailed-exitcode"]).code(0).says("No changes.");
    lab.write("states/top.sls", "base:\n  '*':\n    - imported.h1\n");
    lab.basalt(["apply", "h2", "--yes"]).code(0);
    lab.basalt(["plan", "--detailed-exitcode"]).code(0).says("No changes.");
    for look in LOOK_WITH_DNF {
        let [one, other] = ["h1", "h2"].map(|host| lab[host].sh(look).stdout);
        assert_eq!(one, other, "{look}");
    }
}

#[test]
fn areas_are_chosen_and_a_host_without_packages_that_are_known_is_refused() {
    if !lab::required() {
        return;
    }
    let lab = Lab::light(1);
    lab.commit("a roster");
    lab["h1"].sh("echo by hand >/etc/own.conf").ok();
    lab.write("states/top.sls", "base: {}\n");
    lab.basalt(["import", "h1", "--users"]).code(0).says("Add to ").says("- imported.h1");
    let place = lab.state().join("states/imported/h1");
    assert!(place.join("users.sls").exists() && !place.join("packages.sls").exists() && !place.join("files").join("etc/own.conf").exists());
    std::fs::remove_dir_all(&place).unwrap();
    lab["h1"].sh("mv /var/lib/dpkg/status /var/lib/dpkg/status.away").ok();
    lab.basalt(["import", "h1"]).code(3).says("has neither dpkg nor dnf 4");
}
