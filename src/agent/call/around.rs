//! What a host sees around it: names, the web, the clock, what provides Salt's modules. Answered by the host's own programs.

use super::command::which;
use super::{Arguments, Body, texts};
use crate::diagnostic::Result;
use crate::function::cmd;
use crate::object::packages::manager;
use crate::system::{Command, Output, System};
use crate::value::{Map, Value};

pub(super) const FUNCTIONS: &[(&str, Body)] = &[
    ("dig.A", |sys, a| dig(sys, a, "ahostsv4")),
    ("dig.AAAA", |sys, a| dig(sys, a, "ahostsv6")),
    ("dnsutil.A", |sys, a| resolve(sys, a, "ahostsv4")),
    ("dnsutil.AAAA", |sys, a| resolve(sys, a, "ahostsv6")),
    ("http.query", query),
    ("status.time", |sys, a| {
        let format = a.text_or(0, "format", "%A, %d. %B %Y %I:%M%p");
        let output = run(sys, ["date".to_owned(), format!("+{format}")])?;
        Ok(output.text().into())
    }),
    ("test.provider", |sys, a| Ok(provider(sys, &a.text(0, "module")?)?.into())),
];

fn run(sys: &System, argv: impl IntoIterator<Item = String>) -> Result<Output> {
    sys.run(&Command { timeout: Some(cmd::PATIENCE), ..Command::new(argv) })
}

/// As `dnsutil`, with an empty list where there is no answer.
fn dig(sys: &System, args: &Arguments, database: &str) -> Result<Value> {
    let found = resolve(sys, args, database)?;
    Ok(if found.as_list().is_some() { found } else { Value::List(Vec::new()) })
}

/// By the host's resolver, or by `dig` where a name server is named.
fn resolve(sys: &System, args: &Arguments, database: &str) -> Result<Value> {
    let name = args.text(0, "host")?;
    if name.starts_with('-') {
        return Err(args.error(format!("needs a name, and {name:?} is none")));
    }
    if let Some(server) = args.value(1, "nameserver") {
        if which(sys, "dig")?.is_none() {
            return Ok("This function requires dig, which is not currently available".into());
        }
        let kind = if database == "ahostsv4" { "A" } else { "AAAA" };
        let output = run(sys, ["dig".into(), "+short".into(), format!("@{}", server.to_text()), name, kind.into()])?;
        // Names in between are aliases.
        let text = output.text();
        return Ok(texts(text.lines().filter(|line| line.parse::<std::net::IpAddr>().is_ok())));
    }
    let output = run(sys, ["getent".to_owned(), database.to_owned(), name.clone()])?;
    let mut found: Vec<String> = Vec::new();
    for address in output.text().lines().filter_map(|line| line.split_whitespace().next()) {
        // An IPv4 address in IPv6's clothes is no answer to AAAA.
        if !found.iter().any(|known| known == address) && !address.starts_with("::ffff:") {
            found.push(address.to_owned());
        }
    }
    Ok(if found.is_empty() { format!("Unable to resolve {name}").into() } else { texts(found) })
}

/// `http.query`, as far as it reads: by the host's own `curl`, for what the host reaches is what matters.
fn query(sys: &System, args: &Arguments) -> Result<Value> {
    let known = [
        "url",
        "method",
        "params",
        "header_dict",
        "header_list",
        "username",
        "password",
        "status",
        "headers",
        "text",
        "decode",
        "decode_type",
        "decode_body",
        "verify_ssl",
        "ca_bundle",
        "timeout",
        "raise_error",
        "backend",
        "opts",
    ];
    if let Some((other, _)) = args.call.kwargs.iter().find(|(name, _)| !name.as_str().is_some_and(|n| known.contains(&n))) {
        return Err(args.error(format!("does not know the argument {other} here; it knows {}", known.join(", "))));
    }
    let option = |name: &str| args.call.kwargs.get(name).filter(|v| !v.is_null());
    let method = args.text_or(1, "method", "GET").to_uppercase();
    if method != "GET" && method != "HEAD" {
        return Err(args.error(format!("with the method {method} may change something, and templates only look")));
    }
    let mut url = args.text(0, "url")?;
    if !(url.starts_with("http://") || url.starts_with("https://")) {
        return Err(args.error(format!("needs an http:// or https:// address, and {url:?} is none")));
    }
    if let Some(Value::Map(params)) = option("params") {
        let pairs = params.iter().map(|(k, v)| format!("{}={}", quoted(&k.to_text()), quoted(&v.to_text())));
        url = format!("{url}{}{}", if url.contains('?') { '&' } else { '?' }, pairs.collect::<Vec<_>>().join("&"));
    }
    if which(sys, "curl")?.is_none() {
        return Err(args.error("needs the program curl on the host"));
    }
    let seconds = option("timeout").and_then(Value::as_int).unwrap_or(30).clamp(1, 3600);
    // By its standard input, so that no other user sees the password among the arguments.
    let mut settings = vec![("url", url), ("max-time", seconds.to_string())];
    if method == "HEAD" {
        settings.push(("request", method));
        settings.push(("head", String::new()));
    }
    if let (Some(user), Some(password)) = (option("username"), option("password")) {
        settings.push(("user", format!("{}:{}", user.to_text(), password.to_text())));
    }
    match option("header_dict") {
        Some(Value::Map(headers)) => settings.extend(headers.iter().map(|(k, v)| ("header", format!("{}: {}", k.to_text(), v.to_text())))),
        _ => settings.extend(option("header_list").and_then(Value::as_list).unwrap_or_default().iter().map(|h| ("header", h.to_text()))),
    }
    if option("verify_ssl").is_some_and(|v| !v.truthy()) {
        settings.push(("insecure", String::new()));
    }
    if let Some(bundle) = option("ca_bundle") {
        settings.push(("cacert", bundle.to_text()));
    }
    let lines = settings.iter().map(|(name, value)| {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', " ");
        if value.is_empty() { format!("{name}\n") } else { format!("{name} = \"{value}\"\n") }
    });
    let mut command = Command::new(["curl", "-sS", "-i", "-L", "--proto", "=http,https", "--config", "-", "-w", "\n%{http_code}"]);
    command.stdin = lines.collect::<String>().into_bytes();
    command.timeout = Some(std::time::Duration::from_secs(seconds.unsigned_abs() + 5));
    let output = sys.run(&command)?;
    let mut answer = Map::new();
    if !output.success() {
        answer.insert("error", String::from_utf8_lossy(&output.stderr).trim());
        if option("status").is_some_and(Value::truthy) {
            answer.insert("status", 0);
        }
        return Ok(Value::Map(answer));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (text, status) = text.rsplit_once('\n').unwrap_or((&text, "0"));
    let (mut headers, mut body) = ("", text);
    // Redirections and `100 Continue` come with headers of their own.
    while body.starts_with("HTTP/") {
        (headers, body) = body.split_once("\r\n\r\n").or_else(|| body.split_once("\n\n")).unwrap_or((body, ""));
    }
    let status: i64 = status.trim().parse().unwrap_or(0);
    if option("status").is_some_and(Value::truthy) {
        answer.insert("status", status);
    }
    if status >= 400 {
        answer.insert("error", format!("HTTP {status}: {}", headers.lines().next().unwrap_or_default()));
    }
    answer.insert("body", body);
    if option("headers").is_some_and(Value::truthy) {
        let pairs = headers.lines().skip(1).filter_map(|line| line.split_once(':')).map(|(k, v)| (k.trim(), v.trim()));
        answer.insert("headers", Value::Map(pairs.collect()));
    }
    if option("text").is_some_and(Value::truthy) {
        answer.insert("text", body);
    }
    if option("decode").is_some_and(Value::truthy) {
        match serde_json::from_slice::<Value>(body.as_bytes()) {
            Ok(value) => drop(answer.insert("dict", value)),
            Err(e) => return Err(args.error(format!("decodes JSON only, and this is none: {e}"))),
        }
    }
    Ok(Value::Map(answer))
}

/// For a part of an address.
fn quoted(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
}

/// The file of Salt that would bring a module on this host.
fn provider(sys: &System, module: &str) -> Result<String> {
    let has = |program: &str| which(sys, program).map(|path| path.is_some());
    let own = super::names().iter().any(|name| name.strip_prefix(module).is_some_and(|rest| rest.starts_with('.')));
    Ok(match module {
        "pkg" => match manager::family(sys) {
            "apt" => "aptpkg",
            "dnf" | "dnf5" | "yum" => "yumpkg",
            "zypper" => "zypperpkg",
            "pacman" => "pacmanpkg",
            "apk" => "apkpkg",
            "emerge" => "ebuildpkg",
            _ => "",
        },
        "service" => match () {
            () if sys.stat("/run/systemd/system")?.is_some() => "systemd_service",
            () if has("apt-get")? => "debian_service",
            () if has("rc-service")? => "gentoo_service",
            () => "service",
        },
        "user" => "useradd",
        "group" => "groupadd",
        "shadow" => "linux_shadow",
        "cmd" => "cmdmod",
        "timezone" => "timezone",
        "alternatives" => "alternatives",
        other if own => other,
        _ => "",
    }
    .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::call::answer;
    use crate::agent::protocol::{Answer, Call};
    use crate::system::Exec;
    use serde_json::json;

    /// Answers with a recorded text, and checks what it is asked.
    struct Recorded(Vec<&'static str>, &'static str, &'static str);

    impl Exec for Recorded {
        fn run(&self, command: &Command, _: &mut dyn FnMut(&[u8])) -> Result<Output> {
            assert_eq!(command.argv, self.0);
            assert_eq!(String::from_utf8_lossy(&command.stdin), self.1);
            Ok(Output { stdout: self.2.into(), ..Output::default() })
        }
    }

    fn asked(exec: Recorded, function: &str, args: serde_json::Value, kwargs: serde_json::Value) -> serde_json::Value {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("usr/bin")).unwrap();
        std::fs::write(dir.path().join("usr/bin/curl"), "").unwrap();
        std::os::unix::fs::PermissionsExt::set_mode(&mut std::fs::metadata(dir.path()).unwrap().permissions(), 0o755);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(dir.path().join("usr/bin/curl"), mode).unwrap();
        let sys = System::at(dir.path(), Box::new(exec));
        let call = Call {
            function: function.into(),
            args: serde_json::from_value(args).unwrap(),
            kwargs: serde_json::from_value(kwargs).unwrap(),
        };
        match answer(&sys, &call, &Map::new()) {
            Answer::Value(value) => serde_json::to_value(value).unwrap(),
            Answer::Error(error) => json!(error.summary),
        }
    }

    #[test]
    fn names_are_asked_of_the_host_s_resolver() {
        let said = "192.0.2.1 STREAM web.example\n192.0.2.1 DGRAM\n192.0.2.1 RAW\n192.0.2.2 STREAM\n";
        let exec = Recorded(vec!["getent", "ahostsv4", "web.example"], "", said);
        assert_eq!(asked(exec, "dnsutil.A", json!(["web.example"]), json!({})), json!(["192.0.2.1", "192.0.2.2"]));
        let exec = Recorded(vec!["getent", "ahostsv6", "x"], "", "::ffff:192.0.2.1 STREAM x\n");
        assert_eq!(asked(exec, "dnsutil.AAAA", json!(["x"]), json!({})), json!("Unable to resolve x"));
        let exec = Recorded(vec!["getent", "ahostsv6", "x"], "", "::ffff:192.0.2.1 STREAM x\n");
        assert_eq!(asked(exec, "dig.AAAA", json!(["x"]), json!({})), json!([]));
        let exec = Recorded(vec![], "", "");
        assert_eq!(asked(exec, "dnsutil.A", json!(["-x"]), json!({})), json!("dnsutil.A needs a name, and \"-x\" is none"));
        let exec = Recorded(vec!["date", "+%Y"], "", "2026\n");
        assert_eq!(asked(exec, "status.time", json!(["%Y"]), json!({})), json!("2026"));
    }

    #[test]
    fn the_web_is_read_by_curl_and_a_password_is_no_argument() {
        let argv = || vec!["curl", "-sS", "-i", "-L", "--proto", "=http,https", "--config", "-", "-w", "\n%{http_code}"];
        let config = "url = \"http://h/x?a=b%20c\"\nmax-time = \"30\"\nuser = \"me:p\\\"w\"\n";
        let said = "HTTP/1.1 301 Moved\r\nLocation: /y\r\n\r\nHTTP/1.1 200 OK\r\nX-Y: z\r\n\r\n{\"k\": [1]}\n200";
        let kwargs = json!({"params": {"a": "b c"}, "username": "me", "password": "p\"w", "status": true, "headers": true, "decode": true});
        let got = asked(Recorded(argv(), config, said), "http.query", json!(["http://h/x"]), kwargs);
        assert_eq!(got, json!({"status": 200, "body": "{\"k\": [1]}", "headers": {"X-Y": "z"}, "dict": {"k": [1]}}));
        for (args, kwargs, part) in [
            (json!(["http://h"]), json!({"method": "POST"}), "may change something"),
            (json!(["file:///etc/shadow"]), json!({}), "needs an http://"),
            (json!(["http://h"]), json!({"data": "x"}), "does not know the argument data"),
        ] {
            let got = asked(Recorded(vec![], "", ""), "http.query", args, kwargs);
            assert!(got.as_str().unwrap_or_default().contains(part), "{got}");
        }
    }

    #[test]
    fn providers_have_salt_s_names() {
        let of = |module: &str| asked(Recorded(vec![], "", ""), "test.provider", json!([module]), json!({}));
        assert_eq!([of("user"), of("cmd"), of("file"), of("nope"), of("pkg")], ["useradd", "cmdmod", "file", "", ""].map(|n| json!(n)));
    }
}
