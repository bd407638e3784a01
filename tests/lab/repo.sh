#!/bin/bash
# Makes the lab's apt repository in the folder FOLDER: home-made packages, version 1.0 alone in FOLDER/old, 1.0 and 2.0 in FOLDER/new.
#
#   lab-leaf     a program and nothing else
#   lab-lib      what lab-tool depends on
#   lab-tool     Depends: lab-lib
#   lab-service  a systemd service that its maintainer scripts enable and start, and a conffile that differs between the versions
#   lab-broken   1.0 installs; the postinst of 2.0 fails
#   lab-rival    Conflicts: lab-leaf
set -euo pipefail
repo=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# package NAME VERSION [CONTROL LINE]: starts a tree in $work/tree with a program that prints its name and version.
package() {
    name=$1 version=$2 tree=$work/tree
    rm -rf "$tree"
    mkdir -p "$tree/DEBIAN" "$tree/usr/bin"
    {
        printf 'Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: basalt lab <lab@localhost>\n' "$name" "$version"
        printf 'Description: %s of the basalt lab\n' "$name"
        [ $# -lt 3 ] || printf '%s\n' "$3"
    } >"$tree/DEBIAN/control"
    printf '#!/bin/sh\necho %s %s\n' "$name" "$version" >"$tree/usr/bin/$name"
    chmod 755 "$tree/usr/bin/$name"
}
script() { # script NAME: a maintainer script from standard input
    { printf '#!/bin/sh\nset -e\n'; cat; } >"$work/tree/DEBIAN/$1"
    chmod 755 "$work/tree/DEBIAN/$1"
}
build() { # into new, and into old too when it is version 1.0
    dpkg-deb --root-owner-group -b "$work/tree" "$repo/new/${name}_${version}_all.deb" >/dev/null
    [ "$version" != 1.0 ] || cp "$repo/new/${name}_${version}_all.deb" "$repo/old/"
}

mkdir -p "$repo/old" "$repo/new"
for v in 1.0 2.0; do
    package lab-leaf $v && build
    package lab-lib $v && build
    package lab-tool $v 'Depends: lab-lib' && build
    package lab-rival $v 'Conflicts: lab-leaf' && build

    package lab-broken $v
    [ $v = 1.0 ] || echo 'echo "lab-broken: this postinst always fails" >&2; exit 1' | script postinst
    build

    package lab-service $v
    mkdir -p "$tree/etc" "$tree/lib/systemd/system"
    printf '# lab-service %s\ninterval = %s\n' $v "${v%.*}" >"$tree/etc/lab-service.conf"
    echo /etc/lab-service.conf >"$tree/DEBIAN/conffiles"
    printf '[Unit]\nDescription=lab service\n[Service]\nExecStart=/bin/sleep infinity\nExecReload=/bin/true\n[Install]\nWantedBy=multi-user.target\n' \
        >"$tree/lib/systemd/system/lab-service.service"
    # What debhelper generates, shortened.
    script postinst <<'S'
if [ "$1" = configure ]; then
    deb-systemd-helper unmask lab-service.service >/dev/null || true
    if deb-systemd-helper --quiet was-enabled lab-service.service; then deb-systemd-helper enable lab-service.service >/dev/null || true; fi
    deb-systemd-helper update-state lab-service.service >/dev/null || true
    if [ -d /run/systemd/system ]; then
        systemctl --system daemon-reload >/dev/null || true
        deb-systemd-invoke $([ -n "$2" ] && echo restart || echo start) lab-service.service >/dev/null || true
    fi
fi
S
    script prerm <<'S'
if [ -d /run/systemd/system ] && [ "$1" = remove ]; then deb-systemd-invoke stop lab-service.service >/dev/null || true; fi
S
    script postrm <<'S'
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then systemctl --system daemon-reload >/dev/null || true; fi
if [ "$1" = purge ]; then deb-systemd-helper purge lab-service.service >/dev/null || true; deb-systemd-helper unmask lab-service.service >/dev/null || true; fi
S
    build
done
for folder in old new; do
    (cd "$repo/$folder" && dpkg-scanpackages -m . >Packages 2>/dev/null)
done
