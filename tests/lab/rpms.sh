#!/bin/bash
# Makes the lab's rpm repositories in the folder FOLDER, inside of a root that has rpmbuild and createrepo_c: the packages of repo.sh as
# Red Hat's would be, version 1.0 alone in FOLDER/old, 1.0 and 2.0 in FOLDER/new.
#
#   lab-leaf     a program and nothing else
#   lab-lib      what lab-tool depends on
#   lab-tool     Requires: lab-lib
#   lab-service  a systemd service that its scriptlets enable, start and stop; a %config(noreplace) and a %config that differ between the versions
#   lab-broken   1.0 installs; the %pre of 2.0 fails
#   lab-rival    Conflicts: lab-leaf
#   lab-epoch    1.0 with epoch 1, 2.0 without: the older version is the newer package
#   lab-kernel   installed beside itself, as a kernel is
#   lab-extra    only in FOLDER/extra, signed by nobody: a repository that states bring
#   lab-base     what the lab's root has without rpm's knowledge (sh, systemd, dnf's versionlock …); installed in it
set -euo pipefail
repo=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$repo/old" "$repo/new" "$repo/extra" "$repo/base"

# package NAME VERSION [LINE …]: starts a spec; `section` adds to it from standard input, `build FOLDER …` builds it.
package() {
    name=$1 version=$2
    shift 2
    spec=$work/$name.spec
    printf 'Name: %s\nVersion: %s\nRelease: 1\nSummary: %s of the basalt lab\nLicense: none\nBuildArch: noarch\n' "$name" "$version" "$name" >"$spec"
    printf '%s\n' "$@" >>"$spec"
    cat >>"$spec" <<'S'
%description
None.
%install
mkdir -p %{buildroot}/usr/bin
printf '#!/bin/sh\necho %{name} %{version}\n' >%{buildroot}/usr/bin/%{name}
chmod 755 %{buildroot}/usr/bin/%{name}
S
}
section() { cat >>"$spec"; }
build() {
    grep -q '^%files' "$spec" || printf '%%files\n/usr/bin/%s\n' "$name" >>"$spec"
    rpmbuild --quiet -bb --define "_topdir $work/top" --define '_build_id_links none' "$spec" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
    for folder; do cp "$work"/top/RPMS/noarch/"$name-$version"-*.rpm "$repo/$folder/"; done
}
both() { if [ "$version" = 1.0 ]; then build old new; else build new; fi; }

for v in 1.0 2.0; do
    package lab-leaf $v && both
    package lab-lib $v && both
    package lab-tool $v 'Requires: lab-lib' && both
    package lab-rival $v 'Conflicts: lab-leaf' && both

    package lab-broken $v
    [ $v = 1.0 ] || printf '%%pre\necho "lab-broken: this scriptlet always fails" >&2\nexit 1\n' | section
    both

    if [ $v = 1.0 ]; then package lab-epoch $v 'Epoch: 1'; else package lab-epoch $v; fi
    both

    package lab-kernel $v 'Provides: installonlypkg(kernel)'
    section <<'S'
mv %{buildroot}/usr/bin/%{name} %{buildroot}/usr/bin/%{name}-%{version}
%files
/usr/bin/%{name}-%{version}
S
    both

    package lab-service $v
    section <<S
mkdir -p %{buildroot}/etc %{buildroot}/usr/lib/systemd/system
printf '# lab-service $v\ninterval = ${v%.*}\n' >%{buildroot}/etc/lab-service.conf
printf '# lab-service $v\ncolour = ${v%.*}\n' >%{buildroot}/etc/lab-service.colours
printf '[Unit]\nDescription=lab service\n[Service]\nExecStart=/bin/sleep infinity\nExecReload=/bin/true\n[Install]\nWantedBy=multi-user.target\n' \
    >%{buildroot}/usr/lib/systemd/system/lab-service.service
S
    # What systemd's macros come to, and a start at the first installation.
    section <<'S'
%post
if [ $1 -eq 1 ] && [ -d /run/systemd/system ]; then systemctl -q --no-reload preset lab-service.service; systemctl daemon-reload; systemctl start lab-service.service; fi || :
%preun
if [ $1 -eq 0 ]; then systemctl -q --no-reload disable lab-service.service; systemctl stop lab-service.service; fi >/dev/null 2>&1 || :
%postun
if [ -d /run/systemd/system ]; then systemctl daemon-reload; [ $1 -eq 0 ] || systemctl try-restart lab-service.service; fi >/dev/null 2>&1 || :
%files
/usr/bin/lab-service
/usr/lib/systemd/system/lab-service.service
%config(noreplace) /etc/lab-service.conf
%config /etc/lab-service.colours
S
    both
done
package lab-extra 1.0 && build extra
package lab-base 9.6 'Provides: /bin/sh' 'Provides: system-release = 9.6' 'Provides: system-release(releasever) = 9' && build base
package python3-dnf-plugin-versionlock 4.3 && build base
for folder in old new extra; do createrepo_c -q "$repo/$folder"; done
