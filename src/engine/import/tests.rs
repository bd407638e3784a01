use std::collections::BTreeMap;

use super::files::{self, Found, Kind};
use super::packages::{installed, named, of_rpm};
use super::sls::Sls;
use super::survey::Survey;
use super::{Areas, Imported};

const ALL: Areas = Areas { packages: true, users: true, files: true, services: true };

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

fn survey(text: &str) -> Survey {
    Survey::read(&lines(text), "M")
}

fn package(name: &str, more: &str) -> String {
    format!("Package: {name}\nStatus: install ok installed\nPriority: optional\nArchitecture: all\nVersion: 1\n{more}\n")
}

#[test]
fn packages_that_others_bring_and_the_bases_are_not_named() {
    let status = [
        package("libc6", "Priority: required"),
        package("web", "Depends: web-data (>= 1), lib:any | other, gone | lib2, libc6\nRecommends: web-doc"),
        package("web-data", ""),
        package("lib", "Depends: ring1"),
        package("lib2", ""),
        package("web-doc", ""),
        package("ring1", "Depends: ring2"),
        package("ring2", "Depends: ring1"),
        package("twin1", "Depends: twin2"),
        package("twin2", "Depends: twin1"),
        package("held", "").replace("install ok", "hold ok"),
        package("removed", "").replace("ok installed", "ok config-files"),
    ];
    let packages = installed(&lines(&status.join("\n")), "amd64");
    let manual = survey("M manual\nlibc6\nweb\nlib\nlib2\ntwin1\ntwin2\nheld\n");
    // `lib2` is an alternative that apt would not take by itself, `web-doc` came by a recommendation; of the twins one is enough.
    assert_eq!(named(&manual, &packages), ["held", "lib2", "twin2", "web", "web-doc"]);
    assert!(packages["held"].hold && !packages.contains_key("removed"));
}

#[test]
fn packages_of_rpm_are_told_by_what_they_provide_and_by_dnfs_reasons() {
    let text = "M native
x86_64

M rpm
Package	glibc	(none)	2.34	1.el9	x86_64
Provides	glibc
Provides	libc.so.6()(64bit)
Package	bash	(none)	5.1	1.el9	x86_64
Provides	bash
Requires	libc.so.6()(64bit)
Requires	rpmlib(FileDigests)
Package	gpg-pubkey	(none)	1	2	(none)
Provides	gpg(x)
Package	web	1	2.4	1.el9	x86_64
Provides	web
Requires	/bin/sh
Requires	web-filesystem
File	cn	abc	/etc/web.conf
Package	web-filesystem	1	2.4	1.el9	noarch
Provides	web-filesystem
Package	web-doc	(none)	1	1	noarch
Provides	web-doc
Package	old	0	1	1	i686
Provides	old

M came
glibc	x86_64	dependency
web-filesystem	noarch	dependency
web-doc	noarch	weak-dependency
bash	x86_64	dependency

M paths
/bin/sh	bash	x86_64

M locks
# by hand
web-1:2.4-1.el9.*
";
    let survey = survey(text);
    let packages = of_rpm(&survey);
    // `web-doc` came by a weak dependency.
    assert_eq!(named(&survey, &packages), ["old.i686", "web", "web-doc"]);
    assert_eq!((packages["web"].version.as_str(), packages["web"].hold), ("1:2.4-1.el9", true));
    assert_eq!(packages["web"].conffiles, [("/etc/web.conf".to_owned(), "abc".to_owned())]);
    assert!(!packages["old.i686"].hold && packages["old.i686"].version == "1-1" && !packages.contains_key("gpg-pubkey"));
}

const HOST: &str = "M native
amd64

M passwd
root:x:0:0:root:/root:/bin/bash
al:x:1000:1000:Al A,,1:/home/al:/bin/sh
nobody:x:65534:65534::/:/bin/false

M group
root:x:0:
sudo:x:27:al
al:x:1000:
team:x:1001:al

M homes
al

M units
app.service enabled enabled
cron.service enabled enabled
extra.service enabled disabled
off.service disabled enabled
quiet.timer masked enabled

M active
app.service loaded active running app

M sums
aaa  /etc/as-delivered
bbb  /etc/changed
ccc  /etc/generated

M ucf
ccc  /etc/generated

M owned
/etc/as-delivered
/etc/web

M files
d 755 4096 root root\t/etc/web\t
f 644 3 root root\t/etc/as-delivered\t
f 640 3 root adm\t/etc/changed\t
f 644 3 root root\t/etc/generated\t
f 600 3 root root\t/etc/web/site\t
l 777 3 root root\t/etc/web/on\tsite
l 777 3 root root\t/etc/systemd/system/x.wants/app.service\t/x
f 644 3 root root\t/etc/systemd/system/app.service\t
f 600 3 root root\t/etc/token\t
f 600 3 root root\t/etc/ssl/private/key\t
f 600 3 root root\t/etc/shadow\t
f 644 9999999 root root\t/etc/large\t
f 644 3 root root\t/etc/{{ evil }}\t
f 644 3 root root\t/etc/apt/sources.list.d/own.list\t
f 600 3 al crontab\t/var/spool/cron/crontabs/al\t
f 644 3 root root\t/etc/sysctl.d/own.conf\t

M keys
f 600 3 al al\t/home/al/.ssh/authorized_keys\t
f 600 3 root root\t/root/.ssh/authorized_keys\t

M fstab
# a comment
UUID=1 / ext4 defaults 0 1
tmpfs /mnt/scratch tmpfs nosuid,size=1m 0 0
none none swap sw 0 0

M zone
/usr/share/zoneinfo/Europe/Berlin

M locale
LANG=de_DE.UTF-8

M end";

fn imported() -> Imported {
    let survey = survey(HOST);
    let status = package("web", "Conffiles:\n /etc/as-delivered aaa\n /etc/changed xxx\n /etc/gone ddd\n /etc/old eee obsolete");
    let packages = installed(&lines(&status), "amd64");
    let mut notes = Vec::new();
    let found = files::find(&survey, &packages, ALL, &mut notes);
    let text = |file: &Found| if file.path == "/etc/token" { "# none\napi-token: 1234\n" } else { "plain\n" };
    let contents =
        found.iter().filter(|f| f.kind == Kind::File).map(|f| (f.path.clone(), text(f).into())).collect::<BTreeMap<_, Vec<u8>>>();
    let found: Vec<Found> = found.into_iter().filter(|file| files::may_be_copied(file, &contents, &mut notes)).collect();
    Sls::new("web1.test", &survey, &found, contents, notes).write(&packages, ALL)
}

#[test]
fn what_counts_is_written_down_and_nothing_else() {
    let imported = imported();
    let ids = |part: &str| -> Vec<String> {
        let text = String::from_utf8(imported.files[&format!("imported/web1_test/{part}.sls")].clone()).unwrap();
        text.lines().filter(|l| l.ends_with(':') && !l.starts_with(' ')).map(|l| l.trim_end_matches(':').to_owned()).collect()
    };
    assert_eq!(imported.sls, "imported.web1_test");
    assert_eq!(ids("repositories"), ["/etc/apt/sources.list.d/own.list"]);
    assert_eq!(ids("users"), ["'group al'", "'group team'", "'user al'", "/home/al/.ssh/authorized_keys"]);
    assert_eq!(
        ids("files"),
        [
            "/etc/changed",
            "/etc/gone",
            "/etc/sysctl.d/own.conf",
            "/etc/systemd/system/app.service",
            "/etc/web/on",
            "/etc/web/site",
            "'sysctl -p /etc/sysctl.d/own.conf'"
        ]
    );
    assert_eq!(ids("cron"), ["/var/spool/cron/crontabs/al"]);
    assert_eq!(ids("mounts"), ["/mnt/scratch"]);
    assert_eq!(ids("services"), ["app.service", "extra.service", "off.service", "quiet.timer"]);
    assert_eq!(ids("system"), ["Europe/Berlin", "de_DE.UTF-8"]);
    assert_eq!(
        imported.notes,
        [
            "/etc/ssl/private/key holds a secret",
            "/etc/large is larger than 1 MiB",
            "\"/etc/{{ evil }}\" has a name that no SLS can say",
            "/etc/token: line 2 looks like a secret",
        ]
    );
    let all: Vec<u8> = imported.files.values().flatten().copied().collect();
    assert!(!String::from_utf8_lossy(&all).contains("1234"));
}

#[test]
fn what_is_written_is_yaml_that_says_what_was_found() {
    for (path, bytes) in imported().files.iter().filter(|(path, _)| path.ends_with(".sls")) {
        crate::yaml::load_spanned(&String::from_utf8_lossy(bytes), path).unwrap();
    }
    let users = String::from_utf8(imported().files["imported/web1_test/users.sls"].clone()).unwrap();
    assert!(
        users.contains("    - fullname: Al A\n".replace("Al A", "'Al A'").as_str()) && users.contains("    - workphone: '1'\n"),
        "{users}"
    );
    assert!(users.contains("    - groups: [team]\n    - optional_groups: [sudo]\n"), "{users}");
}
