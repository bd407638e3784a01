#!/bin/bash
# Makes the layer that turns the lab's base into a host of Red Hat's kind, once, and prints its folder: dnf, rpm and AlmaLinux's os-release over
# base.sh's root, its packages the lab's own (rpms.sh). No image of such a system is to be had here, but dnf and rpm are Debian packages too.
# Root, Debian's archive, a minute; nothing but a look when it is there.
#
#   FOLDER/up       the layer: /srv/lab-rpms are its repositories; Python is there (dnf is written in it), apt and dpkg are not
#   FOLDER/hashes   sha256 of every file in the base with this layer over it
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
base=$(bash "$here/base.sh")
key=$(cat "$here/dnf.sh" "$here/rpms.sh" | sha256sum | cut -c1-12)
layer=$base/dnf-$key
if [ ! -f "$layer/done" ]; then
    exec 9>"$base/layer.lock"
    flock 9
fi
if [ ! -f "$layer/done" ]; then
    exec 3>&1 1>&2
    rm -rf "$layer"
    mkdir -p "$layer/up" "$layer/work" "$layer/all"
    # In a mount namespace of its own: it is all gone when the script inside ends.
    unshare --mount --propagation private bash -euo pipefail -s "$base" "$layer" "$here" <<'INSIDE'
base=$1 layer=$2 here=$3 all=$2/all
mount -t overlay -o lowerdir=$base/root,upperdir=$layer/up,workdir=$layer/work overlay $all
mount -t proc proc $all/proc
mount --rbind /dev $all/dev
mount -t tmpfs tmpfs $all/tmp
mount -t tmpfs tmpfs $all/var/cache/apt
mount -t tmpfs tmpfs $all/var/lib/apt/lists
export DEBIAN_FRONTEND=noninteractive LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
echo 'deb http://deb.debian.org/debian bookworm main' >$all/etc/apt/sources.list
rm $all/etc/apt/sources.list.d/lab.list
cp /etc/resolv.conf $all/etc/resolv.conf
mkdir -p $all/var/cache/apt/archives/partial $all/var/lib/apt/lists/partial
chroot $all apt-get -q update
chroot $all apt-get -q -y --no-install-recommends install dnf rpm dnf-plugins-core createrepo-c file
umount $all/var/cache/apt $all/var/lib/apt/lists
rm -rf $all/etc/resolv.conf $all/var/log/* $all/usr/share/doc

# The system it says it is.
cat >$all/usr/lib/os-release <<'S'
NAME="AlmaLinux"
VERSION="9.6 (Sage Margay)"
ID="almalinux"
ID_LIKE="rhel centos fedora"
VERSION_ID="9.6"
PLATFORM_ID="platform:el9"
PRETTY_NAME="AlmaLinux 9.6 (Sage Margay)"
CPE_NAME="cpe:/o:almalinux:almalinux:9::baseos"
S
echo 'AlmaLinux release 9.6 (Sage Margay)' >$all/etc/almalinux-release
for name in redhat-release system-release; do ln -s almalinux-release $all/etc/$name; done

# rpm's own database, Red Hat's defaults, the lab's repositories and what is installed from the first.
mkdir -p $all/etc/rpm $all/etc/yum.repos.d
printf '%%_dbpath /var/lib/rpm\n' >$all/etc/rpm/macros.lab
printf '[main]\ngpgcheck=1\ninstallonly_limit=3\nclean_requirements_on_remove=True\nbest=True\nskip_if_unavailable=False\n' >$all/etc/dnf/dnf.conf
printf '[lab]\nname=The lab\nbaseurl=file:///srv/lab-rpms/new\ngpgcheck=0\n' >$all/etc/yum.repos.d/lab.repo
cp $here/rpms.sh $all/tmp/rpms.sh
chroot $all bash /tmp/rpms.sh /srv/lab-rpms
chroot $all rpm --initdb
chroot $all sh -c 'dnf -q -y --disablerepo=* --nogpgcheck install /srv/lab-rpms/base/*.rpm'
(cd $all/usr/lib/python3/dist-packages/dnf-plugins && rm -f leaves.py show_leaves.py local.py post-transaction-actions.py) # not among those that Red Hat installs
chroot $all dnf -q makecache
rm -rf $all/etc/apt $all/var/lib/dpkg $all/var/lib/apt $all/var/cache/apt $all/usr/lib/apt $all/usr/lib/dpkg $all/var/log/* $all/root/.cache
rm -f $all/usr/bin/apt* $all/usr/bin/dpkg* $all/usr/bin/deb-systemd-*
umount -R $all/tmp $all/proc $all/dev
(cd $all && find . -xdev -type f -printf '%P\0' | xargs -0 sha256sum) >$layer/hashes
INSIDE
    rm -rf "$layer/work" "$layer/all"
    touch "$layer/done"
    exec 1>&3
fi
echo "$layer"
