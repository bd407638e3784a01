//! Grains of the operating system: kernel, architecture, init, security, locale.

use super::{Host, distribution};
use crate::value::{Map, Value};

pub fn collect(host: &Host, grains: &mut Map) {
    let uname = rustix::system::uname();
    grains.insert("kernel", uname.sysname().to_string_lossy().into_owned());
    grains.insert("kernelrelease", uname.release().to_string_lossy().into_owned());
    grains.insert("kernelversion", uname.version().to_string_lossy().into_owned());
    let cpuarch = uname.machine().to_string_lossy().into_owned();

    distribution::collect(host, grains);
    let debian = grains.get("os_family").and_then(Value::as_str) == Some("Debian");
    grains.insert("osarch", if debian { debian_arch(host, &cpuarch) } else { cpuarch.clone() });
    grains.insert("cpuarch", cpuarch);
    grains.insert("transactional", host.program("transactional-update"));
    grains.insert("fibre_channel_host", host.exists("/sys/class/fc_host"));
    grains.insert("init", init(host));
    if let Some(id) = host.line("/etc/machine-id").or_else(|| host.line("/var/lib/dbus/machine-id")) {
        grains.insert("machine_id", id);
    }
    if host.program("selinuxenabled") {
        let mut selinux = Map::new();
        let enforce = host.line("/sys/fs/selinux/enforce");
        selinux.insert("enabled", enforce.is_some());
        if host.program("getenforce") {
            let word = match enforce.as_deref() {
                Some("1") => "Enforcing",
                Some(_) => "Permissive",
                None => "Disabled",
            };
            selinux.insert("enforced", word);
        }
        grains.insert("selinux", selinux);
    }
    if host.program("systemctl") && host.program("localectl") {
        grains.insert("systemd", systemd(host));
    }
    let parameters = host.text("/proc/cmdline").unwrap_or_default();
    // Salt knows a value only where one equals sign stands in the word: `root=UUID=…` has none.
    let parameters: Vec<Value> = words(&parameters)
        .iter()
        .map(|p| match p.split('=').collect::<Vec<_>>().as_slice() {
            [name, value] => Value::List(vec![(*name).into(), value.trim_matches('"').into()]),
            parts => Value::List(vec![parts.first().copied().unwrap_or_default().into(), Value::Null]),
        })
        .collect();
    grains.insert("kernelparams", parameters);
    grains.insert("locale_info", locale(host));
}

/// Words as a shell parts them: quotes keep white space together and go.
fn words(text: &str) -> Vec<String> {
    let (mut all, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in text.chars() {
        match quote {
            Some(q) if c == q => quote = None,
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => all.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    all.extend(word);
    all
}

/// `NAME="value"` lines as the shell would read them.
pub fn assignments(text: &str) -> Vec<(String, String)> {
    let unquote = |value: &str| {
        let value = value.trim();
        let inner = ['"', '\''].iter().find_map(|q| value.strip_prefix(*q)?.strip_suffix(*q)).unwrap_or(value);
        let mut out = String::with_capacity(inner.len());
        let mut chars = inner.chars();
        while let Some(c) = chars.next() {
            out.extend(if c == '\\' { chars.next() } else { Some(c) });
        }
        out
    };
    let lines = text.lines().map(str::trim).filter(|l| !l.starts_with('#'));
    lines.filter_map(|line| line.split_once('=')).map(|(name, value)| (name.trim().to_owned(), unquote(value))).collect()
}

/// What `dpkg --print-architecture` prints: dpkg's own ELF header tells, whatever the kernel runs.
fn debian_arch(host: &Host, cpuarch: &str) -> String {
    use std::io::Read;
    let mut head = [0; 20];
    let elf = std::fs::File::open(host.sys.path("/usr/bin/dpkg")).and_then(|mut f| f.read_exact(&mut head));
    let [0x7f, b'E', b'L', b'F', class, order, ..] = head else {
        return arch_of_kernel(cpuarch).to_owned();
    };
    let [.., low, high] = head;
    let machine = if order == 2 { u16::from_be_bytes([low, high]) } else { u16::from_le_bytes([low, high]) };
    let name = match (elf.is_ok(), machine, class, order) {
        (true, 62, 2, _) => "amd64",
        (true, 62, 1, _) => "x32",
        (true, 3, ..) => "i386",
        (true, 183, ..) => "arm64",
        (true, 40, ..) => "armhf",
        (true, 21, _, 1) => "ppc64el",
        (true, 22, 2, _) => "s390x",
        (true, 243, ..) => "riscv64",
        (true, 258, ..) => "loong64",
        (true, 8, 2, 1) => "mips64el",
        _ => arch_of_kernel(cpuarch),
    };
    name.to_owned()
}

fn arch_of_kernel(cpuarch: &str) -> &str {
    match cpuarch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armv7l" | "armv6l" => "armhf",
        "i386" | "i486" | "i586" | "i686" => "i386",
        "ppc64le" => "ppc64el",
        other => other,
    }
}

fn init(host: &Host) -> &'static str {
    if host.exists("/run/systemd/system") {
        return "systemd";
    }
    let command = host.text("/proc/1/cmdline").unwrap_or_default();
    let words: Vec<&str> = command.split('\0').flat_map(str::split_whitespace).collect();
    let first = words.first().copied().unwrap_or_default();
    let is = |name: &str| words.iter().any(|w| w.rsplit('/').next() == Some(name));
    if first.ends_with("bin/init") || first == "init" {
        // A binary, not text; its strings tell who made it.
        let binary = std::fs::read(host.sys.path("/sbin/init")).unwrap_or_default().to_ascii_lowercase();
        let holds = |name: &str| binary.windows(name.len()).any(|w| w == name.as_bytes());
        return ["upstart", "sysvinit", "systemd"].into_iter().find(|n| holds(n)).unwrap_or("unknown");
    }
    let known = [("supervisord", "supervisord"), ("dumb-init", "dumb-init"), ("tini", "tini"), ("runit", "runit"), ("my_init", "runit")];
    known.into_iter().find(|(program, _)| is(program)).map_or("unknown", |(_, name)| name)
}

/// The version stands in the name of systemd's own library; its features only its binary knows.
fn systemd(host: &Host) -> Map {
    let directories = ["/usr/lib/systemd", "/lib/systemd"].into_iter().map(str::to_owned);
    let multiarch = host.names("/usr/lib").into_iter().filter(|n| n.contains("-linux-gnu")).map(|n| format!("/usr/lib/{n}/systemd"));
    let lib64 = std::iter::once("/usr/lib64/systemd".to_owned());
    let version = directories.chain(lib64).chain(multiarch).find_map(|dir| {
        let names = host.names(&dir);
        names.iter().find_map(|n| n.strip_prefix("libsystemd-shared-")?.split(['.', '-']).next().map(str::to_owned))
    });
    [("version", version.unwrap_or_else(|| "UNDEFINED".into())), ("features", String::new())].into_iter().collect()
}

fn locale(host: &Host) -> Map {
    let from_environment = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|n| std::env::var(n).ok().filter(|v| !v.is_empty()));
    let from_file = || {
        let text = ["/etc/default/locale", "/etc/locale.conf"].iter().find_map(|p| host.text(p))?;
        assignments(&text).into_iter().find(|(n, _)| n == "LANG").map(|(_, v)| v)
    };
    let locale = from_environment.or_else(from_file).unwrap_or_else(|| "C".into());
    let (language, encoding) = match locale.split_once('.') {
        // Python takes C.UTF-8 for American English.
        Some(("C" | "POSIX", encoding)) => (Value::str("en_US"), Value::str(encoding)),
        Some((language, encoding)) => (Value::str(language), Value::str(encoding)),
        None if locale == "C" || locale == "POSIX" => (Value::Null, Value::Null),
        None => (Value::str(&locale), Value::str("ISO8859-1")),
    };
    let mut info = Map::new();
    info.insert("defaultlanguage", language);
    info.insert("defaultencoding", encoding);
    info.insert("detectedencoding", "utf-8");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
    let zone = std::fs::read(host.sys.path("/etc/localtime")).ok();
    info.insert("timezone", zone.and_then(|z| zone_name(&z, now)).unwrap_or_else(|| "UTC".into()));
    info
}

/// The abbreviation in force at a moment, from a TZif file: the last transition before it, or the first kind of time.
fn zone_name(file: &[u8], now: i64) -> Option<String> {
    let counts = |at: usize| -> Option<[usize; 6]> {
        let mut out = [0; 6];
        for (i, count) in out.iter_mut().enumerate() {
            let bytes = file.get(at + 20 + i * 4..at + 24 + i * 4)?;
            *count = u32::from_be_bytes(bytes.try_into().ok()?) as usize;
        }
        Some(out)
    };
    if file.get(..4)? != b"TZif" {
        return None;
    }
    let size = |[isut, isstd, leap, time, kind, chars]: [usize; 6], width: usize| {
        time * width + time + kind * 6 + chars + leap * (width + 4) + isstd + isut
    };
    // Version 2 and later repeat everything with 64-bit times behind the first block.
    let (at, width) = if *file.get(4)? >= b'2' { (44 + size(counts(0)?, 4), 8) } else { (0, 4) };
    let [_, _, _, times, kinds, _] = counts(at)?;
    let data = at + 44;
    let time = |i: usize| -> Option<i64> {
        let bytes = file.get(data + i * width..data + (i + 1) * width)?;
        Some(if width == 8 { i64::from_be_bytes(bytes.try_into().ok()?) } else { i64::from(i32::from_be_bytes(bytes.try_into().ok()?)) })
    };
    let last = (0..times).take_while(|i| time(*i).is_some_and(|t| t <= now)).last();
    let kind = last.map_or(Some(0), |i| file.get(data + times * width + i).map(|k| usize::from(*k)))?;
    let kinds_at = data + times * (width + 1);
    let name_at = kinds_at + kinds * 6 + usize::from(*file.get(kinds_at + kind * 6 + 5)?);
    let name = file.get(name_at..)?.split(|b| *b == 0).next()?;
    Some(String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lose_their_quotes_and_escapes() {
        let all = assignments("# c\nA=\"x y\"\nB='z'\nC=p\\$q\nD\n");
        let all: Vec<(&str, &str)> = all.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(all, [("A", "x y"), ("B", "z"), ("C", "p$q")]);
    }

    #[test]
    fn a_zone_file_names_its_time() {
        // Two kinds (AAA, BBB), transitions at 100 (BBB) and 200 (AAA), in the first block only.
        let mut file = b"TZif\0".to_vec();
        file.extend([0; 15]);
        for count in [0u32, 0, 0, 2, 2, 8] {
            file.extend(count.to_be_bytes());
        }
        file.extend(100i32.to_be_bytes());
        file.extend(200i32.to_be_bytes());
        file.extend([1, 0]);
        file.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 4]);
        file.extend(b"AAA\0BBB\0");
        let at = |now| zone_name(&file, now);
        assert_eq!((at(50).as_deref(), at(150).as_deref(), at(250).as_deref()), (Some("AAA"), Some("BBB"), Some("AAA")));
        for cut in 0..file.len() {
            let _ = zone_name(&file[..cut], 150);
        }
    }
}
