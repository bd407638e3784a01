//! What a host says of itself, in parts.

use std::collections::BTreeMap;

/// Prints a part after the other, each behind a line of the mark and its name. It needs what every such host has: dpkg, or rpm
/// and dnf 4; GNU find, coreutils.
pub const SURVEY: &str = r#"
export LC_ALL=C; exec 2>/dev/null
m=$1
part() { printf '\n%s %s\n' "$m" "$1"; }
look() { find "$@" -printf '%y %m %s %u %g\t%p\t%l\n'; }
if [ -f /var/lib/dpkg/status ]; then
    part status;  cat /var/lib/dpkg/status
    part native;  dpkg --print-architecture
    part manual;  apt-mark showmanual
    part sums;    { sed -n 's|^ \(/etc/.*\) [0-9a-f]\{32\}.*$|\1|p' /var/lib/dpkg/status; sed 's|^[0-9a-f]\{32\}  ||' /var/lib/ucf/hashfile; } | xargs -d '\n' -r md5sum
    part ucf;     cat /var/lib/ucf/hashfile
    part owned;   cat /var/lib/dpkg/info/*.list | grep '^/etc/' | sort -u
elif command -v dnf >/dev/null && ! command -v dnf5 >/dev/null; then
    ask() { rpm --nodigest --nosignature "$@"; }
    reasons() { dnf -q -C --noplugins '--disablerepo=*' repoquery --installed --qf '%{name}	%{arch}	%{reason}'; }
    part rpm;     ask -qa --qf 'Package\t%{NAME}\t%{EPOCH}\t%{VERSION}\t%{RELEASE}\t%{ARCH}\n[Provides\t%{PROVIDENAME}\n][Requires\t%{REQUIRENAME}\n][File\t%{FILEFLAGS:fflags}\t%{FILEDIGESTS}\t%{FILENAMES}\n]' | sed '/^File\t/{/^File\t[a-z]*c[a-z]*\t[0-9a-f][0-9a-f]*\t\/etc\//!d;}'
    part native;  uname -m
    part came;    reasons | grep -E 'dependency$'
    part paths;   ask -qa --requires | grep '^/' | sort -u | while read -r path _; do ask -qf --qf "$path\t%{NAME}\t%{ARCH}\n" "$path" | grep '^/'; done
    part locks;   cat /etc/dnf/plugins/versionlock.list
    part sums;    ask -qac | grep '^/etc/' | sort -u | xargs -d '\n' -r sha256sum
    part owned;   ask -qal | grep '^/etc/' | sort -u
fi
part passwd;  cat /etc/passwd
part group;   cat /etc/group
part limits;  grep -E '^[[:space:]]*[UG]ID_(MIN|MAX)' /etc/login.defs
part homes;   while IFS=: read -r name _ _ _ _ home _; do [ -d "$home" ] && echo "$name"; done </etc/passwd
part units;   systemctl list-unit-files --full --no-legend --no-pager --type=service,timer,socket,path
part active;  systemctl list-units --full --plain --no-legend --no-pager --state=active --type=service,timer,socket,path
part files;   look /etc -xdev -mindepth 1; if [ -d /var/spool/cron/crontabs ]; then look /var/spool/cron/crontabs -xdev -mindepth 1; else look /var/spool/cron -xdev -mindepth 1; fi
part keys;    while IFS=: read -r _ _ _ _ _ home _; do case $home in /?*) look "$home/.ssh/authorized_keys" -maxdepth 0;; esac; done </etc/passwd
part fstab;   cat /etc/fstab
part zone;    readlink -f /etc/localtime; tail -n 1 /etc/adjtime
part locale;  cat /etc/default/locale /etc/locale.conf
part end
"#;

/// Prints files in base64, each behind a line of the mark and its path.
pub const CONTENTS: &str = r#"
export LC_ALL=C
m=$1; shift
for path; do printf '\n%s %s\n' "$m" "$path"; base64 -w 60000 -- "$path" 2>/dev/null; done
printf '\n%s end\n' "$m"
"#;

/// The parts by name.
#[derive(Debug, Default)]
pub struct Survey {
    parts: BTreeMap<String, Vec<String>>,
}

impl Survey {
    pub fn read(lines: &[String], mark: &str) -> Survey {
        let mut survey = Survey::default();
        let mut name = String::new();
        for line in lines {
            match line.strip_prefix(mark).and_then(|rest| rest.strip_prefix(' ')) {
                Some(next) => next.clone_into(&mut name),
                None => survey.parts.entry(name.clone()).or_default().push(line.clone()),
            }
        }
        // Each part ends with the empty line that stands before the next mark.
        survey.parts.values_mut().for_each(|lines| drop(lines.pop_if(|last| last.is_empty())));
        survey
    }

    pub fn part(&self, name: &str) -> &[String] {
        self.parts.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// The lines of a part, in fields.
    pub fn fields(&self, name: &str, separator: char) -> impl Iterator<Item = Vec<&str>> {
        self.part(name).iter().map(move |line| line.split(separator).collect())
    }

    /// The numbers of users or groups (`UID`, `GID`) that are people's, by the host's login.defs.
    pub fn range(&self, kind: &str) -> std::ops::RangeInclusive<u32> {
        let limit = |name: &str, default: u32| {
            let named = |line: &&String| line.split_whitespace().next() == Some(&format!("{kind}_{name}"));
            let value = |line: &String| line.split_whitespace().nth(1)?.parse().ok();
            self.part("limits").iter().filter(named).find_map(value).unwrap_or(default)
        };
        limit("MIN", 1000)..=limit("MAX", 60000)
    }
}
