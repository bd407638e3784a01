#!/bin/bash
# Makes the root that every lab host is an overlay on, once, and prints its folder. Root, Debian, a minute; nothing but a look when it is there.
#
#   FOLDER/root     a small Debian with systemd and sshd, without Python (fish would bring it), with a local apt repository in /srv/lab-repo;
#                   its folder `debian` has real packages that are not installed, and what they need
#   FOLDER/hashes   sha256 of every file in it, for fingerprints
#   FOLDER/id       the key that its users admit; FOLDER/host_key.pub the hosts' own
#
# Users: root and `deploy` (sudo without a password) and `clerk` (sudo asks for the password `lab-secret`) all admit the lab's key.
# The folder's name holds a digest of this script and repo.sh: change them and a new base is made.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${BASALT_LAB_CACHE:-/var/cache/basalt-lab}
suite=bookworm
not_installed="postgresql iptables"
packages=systemd,systemd-sysv,dbus,openssh-server,iproute2,procps,sudo,cron,btrfs-progs,curl,tcsh,git,locales

key=$(cat "$here/base.sh" "$here/repo.sh" | sha256sum | cut -c1-12)
base=$cache/$key
if [ ! -f "$base/done" ]; then
    mkdir -p "$cache/debs"
    exec 9>"$cache/lock"
    flock 9
fi
if [ ! -f "$base/done" ]; then
    exec 3>&1 1>&2
    rm -rf "$base"
    mkdir -p "$base"
    root=$base/root
    debootstrap --variant=minbase --cache-dir="$cache/debs" --include=$packages $suite "$root" >"$base/debootstrap.log" 2>&1 ||
        { tail -n 5 "$base/debootstrap.log"; exit 1; }

    # Access: one key for all users, host keys made here, passwords only for sudo.
    ssh-keygen -q -t ed25519 -N '' -C basalt-lab -f "$base/id"
    chroot "$root" useradd -m -s /bin/bash deploy
    chroot "$root" useradd -m -s /bin/bash clerk
    printf 'clerk:lab-secret\n' | chroot "$root" chpasswd
    printf 'deploy ALL=(ALL) NOPASSWD: ALL\nclerk ALL=(ALL) ALL\n' >"$root/etc/sudoers.d/lab"
    chmod 440 "$root/etc/sudoers.d/lab"
    for user in root deploy clerk; do
        home=$(chroot "$root" getent passwd $user | cut -d: -f6)
        mkdir -p -m 700 "$root$home/.ssh"
        cp "$base/id.pub" "$root$home/.ssh/authorized_keys"
        chmod 600 "$root$home/.ssh/authorized_keys"
        chroot "$root" chown -R $user: "$home/.ssh"
    done
    chroot "$root" ssh-keygen -q -A
    cp "$root/etc/ssh/ssh_host_ed25519_key.pub" "$base/host_key.pub"
    printf 'PermitRootLogin prohibit-password\nMaxStartups 500:30:1000\nMaxSessions 100\nUseDNS no\n' >"$root/etc/ssh/sshd_config.d/lab.conf"

    # Boots fast and holds still: nothing that waits for a network, no timers that change files behind a test's back.
    chroot "$root" systemctl -q enable ssh.service cron.service
    chroot "$root" systemctl -q mask ssh.socket systemd-networkd.service systemd-networkd.socket systemd-resolved.service systemd-timesyncd.service \
        systemd-networkd-wait-online.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
        fstrim.timer systemd-tmpfiles-clean.timer console-getty.service getty.target getty-static.service systemd-update-utmp.service
    rm -f "$root/etc/machine-id" "$root/var/lib/dbus/machine-id"
    printf '127.0.0.1 localhost\n' >"$root/etc/hosts"

    # Packages: only the lab's own repository, already read.
    bash "$here/repo.sh" "$root/srv/lab-repo"
    for package in $not_installed; do
        chroot "$root" apt-get -q -y --no-install-recommends --download-only install "$package" 3>&-
    done
    mkdir -p "$root/srv/lab-repo/debian"
    mv "$root"/var/cache/apt/archives/*.deb "$root/srv/lab-repo/debian/"
    (cd "$root/srv/lab-repo/debian" && dpkg-scanpackages -m . >Packages 2>/dev/null)
    rm -rf "$root"/etc/apt/sources.list "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb
    echo 'deb [trusted=yes] file:/srv/lab-repo/new ./' >"$root/etc/apt/sources.list.d/lab.list"
    chroot "$root" apt-get -q update
    rm -f "$root/etc/resolv.conf"
    rm -rf "$root"/var/log/* "$root"/var/cache/apt/*.bin
    mkdir -p "$root/var/log/apt"

    [ ! -e "$root/usr/bin/python3" ] || { echo "the base must not hold Python, but $packages pulled it in"; exit 1; }
    (cd "$root" && find . -xdev -type f -printf '%P\0' | xargs -0 sha256sum) >"$base/hashes"
    touch "$base/done"
    exec 1>&3
fi
echo "$base"
