#!/bin/bash
# Makes a layer that lies above the lab's base root: packages of Debian's that few tests need. Prints its folder.
#
#   layer.sh PACKAGE…    root, Debian, half a minute; nothing but a look when it is there
#
# What the packages bring is not enabled: a state does that. Units that cannot run in a container are masked. (nfs-common brings Python along.)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
base=$(bash "$here/base.sh")
layer=$base/layer-$( (cat "$here/layer.sh"; echo "$@") | sha256sum | cut -c1-12)
if [ ! -f "$layer/done" ]; then
    exec 9>"$base/layer.lock"
    flock 9
fi
if [ ! -f "$layer/done" ]; then
    rm -rf "$layer"
    mkdir -p "$layer/up/etc/systemd/system-preset" "$layer/work" "$layer/root"
    # In a mount namespace of its own: nothing is left mounted, however this ends.
    LAYER=$layer BASE=$base unshare --mount --propagation private bash -euo pipefail -s "$@" >"$layer/log" 2>&1 <<'END' || { tail -n 5 "$layer/log" >&2; exit 1; }
root=$LAYER/root
mount -t overlay -o "lowerdir=$BASE/root,upperdir=$LAYER/up,workdir=$LAYER/work" overlay "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/tmp"
mkdir -p "$root/tmp/lists/partial"
cp /etc/resolv.conf "$root/etc/resolv.conf"
cp -a "$root/var/cache/apt" "$root/tmp/cache"
echo 'deb http://deb.debian.org/debian bookworm main' >"$root/tmp/sources"
echo 'disable *' >"$root/etc/systemd/system-preset/00-lab.preset"
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
apt() {
    DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get -qq -y --no-install-recommends -o Dir::Etc::SourceList=/tmp/sources \
        -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists=/tmp/lists -o Dir::Cache=/tmp/cache "$@"
}
apt update
apt install "$@"
rm "$root/etc/resolv.conf" "$root/usr/sbin/policy-rc.d" "$root/etc/systemd/system-preset/00-lab.preset"
rm -rf "$root"/var/log/apt/* "$root"/var/log/*.log
chroot "$root" systemctl -q mask nfs-ganesha-lock.service rpcbind.service rpcbind.socket rpc-statd.service var-lib-nfs-rpc_pipefs.mount run-rpc_pipefs.mount nfs-blkmap.service
END
    rmdir "$layer/root"
    touch "$layer/done"
fi
echo "$layer"
