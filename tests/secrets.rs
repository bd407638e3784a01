//! Secrets: pillar that the real gpg and age decrypt, and a canary planted in every place a secret can get to, for which every byte is searched that
//! basalt prints, saves, or leaves on controller and host.

mod lab;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lab::{Host, Lab};

/// Whether these programs are here. With `CI=true` they must be.
fn has(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let missing: Vec<&str> =
        programs.iter().filter(|program| !std::env::split_paths(&path).any(|dir| dir.join(program).is_file())).copied().collect();
    assert!(
        missing.is_empty() || std::env::var("CI").as_deref() != Ok("true"),
        "these programs are missing: {missing:?} (see scripts/setup)"
    );
    if !missing.is_empty() {
        eprintln!("skipped: these programs are missing: {missing:?} (see scripts/setup)");
    }
    missing.is_empty()
}

/// A keyring of its own, whose agent ends with it.
struct Keyring(PathBuf);

impl Keyring {
    /// With one key, protected by this passphrase.
    fn new(place: &Path, passphrase: &str) -> Keyring {
        std::fs::create_dir(place).unwrap();
        std::fs::set_permissions(place, std::fs::Permissions::from_mode(0o700)).unwrap();
        let ring = Keyring(place.to_owned());
        let key =
            ["--batch", "--pinentry-mode", "loopback", "--passphrase", passphrase, "--quick-gen-key", "test@example.org", "future-default"];
        ring.gpg(&key, "");
        ring
    }

    fn gpg(&self, args: &[&str], input: &str) -> String {
        piped(Command::new("gpg").arg("--homedir").arg(&self.0).args(args), input)
    }

    /// An armoured message, as it stands in a block of YAML.
    fn message(&self, text: &str, indent: usize) -> String {
        let armoured = self.gpg(&["--batch", "--trust-model", "always", "-ear", "test@example.org"], text);
        armoured.trim_end().replace('\n', &format!("\n{}", " ".repeat(indent)))
    }

    /// Forgets passphrases, and starts with this program to ask for them.
    fn pinentry(&self, program: &Path) {
        std::fs::write(self.0.join("gpg-agent.conf"), format!("pinentry-program {}\n", program.display())).unwrap();
        self.end();
    }

    fn end(&self) {
        let _ = Command::new("gpgconf").arg("--homedir").arg(&self.0).args(["--kill", "all"]).status();
    }
}

impl Drop for Keyring {
    fn drop(&mut self) {
        self.end();
    }
}

fn piped(command: &mut Command, input: &str) -> String {
    use std::io::Write;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A state repository without a host, and a home of its own.
struct Site {
    folder: tempfile::TempDir,
    path: String,
}

impl Site {
    fn new() -> Site {
        let site = Site { folder: tempfile::Builder::new().prefix("s").tempdir().unwrap(), path: std::env::var("PATH").unwrap() };
        site.write("grains.json", r#"{"id": "web1"}"#);
        site.write("repo/states/top.sls", "base: {'*': [it]}\n");
        site.write("repo/states/it.sls", "it: test.nop\n");
        site.write("repo/pillar/top.sls", "base: {'*': [data]}\n");
        site
    }

    fn place(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.place(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn program(&self, name: &str, script: &str) -> PathBuf {
        self.write(&format!("bin/{name}"), &format!("#!/bin/sh\n{script}\n"));
        std::fs::set_permissions(self.place("bin").join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
        self.place("bin").join(name)
    }

    /// What `basalt show` says, and whether it succeeded.
    fn show(&self, args: &[&str], env: &[(&str, &Path)]) -> (bool, String) {
        let repo = self.place("repo");
        if !repo.join(".git").exists() {
            piped(Command::new("git").args(["init", "-q"]).arg(&repo), "");
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_basalt"));
        command.arg("show").args(args).arg("--grains").arg(self.place("grains.json")).current_dir(repo);
        command.env_clear().env("HOME", self.folder.path()).env("PATH", format!("{}:{}", self.place("bin").display(), self.path));
        let output = command.envs(env.iter().copied()).stdin(Stdio::null()).output().unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), text)
    }

    fn ok(&self, args: &[&str], env: &[(&str, &Path)]) -> String {
        let (success, text) = self.show(args, env);
        assert!(success, "{text}");
        text
    }

    fn refused(&self, args: &[&str], env: &[(&str, &Path)], words: &[&str]) -> String {
        let (success, text) = self.show(args, env);
        assert!(!success, "{text}");
        words.iter().for_each(|word| assert!(text.contains(word), "{word:?} is not in:\n{text}"));
        text
    }
}

#[test]
fn the_users_gpg_decrypts_values_wherever_they_stand() {
    if !has(&["gpg", "gpgconf"]) {
        return;
    }
    let site = Site::new();
    let ring = Keyring::new(&site.place("k"), "");
    let home: &[(&str, &Path)] = &[("GNUPGHOME", &site.place("k"))];
    let (whole, part) = (ring.message("hunter2-whole", 4), ring.message("hunter2-part\n", 6));
    let one_line = ring.message("hunter2-line", 0).replace('\n', "\\n");
    let data = format!(
        "#!jinja|yaml|gpg\ndb:\n  password: |\n    {whole}\n  list:\n    - |-\n      postgres://u:{part}@h\n    - '{one_line}'\nplain: {{{{ 6 * 7 }}}}\n"
    );
    site.write("repo/pillar/data.sls", &data);
    let shown = site.ok(&["pillar", "--json"], home);
    assert!(!shown.contains("hunter2") && shown.contains("********") && shown.contains("\"plain\":42"), "{shown}");
    // Salt takes the line breaks at the end of a value off, and leaves those within.
    let bare = site.ok(&["pillar", "--json", "--reveal"], home);
    let wanted = r#"{"db":{"password":"hunter2-whole","list":["postgres://u:hunter2-part\n@h","hunter2-line"]},"plain":42}"#;
    assert!(bare.contains(wanted), "{bare}");

    // The text as a whole, before it is anything else; the folder of keys as Salt's setting names it.
    site.write("repo/basalt.yaml", &format!("gpg_keydir: {}\n", site.place("k").display()));
    let text = ring.message("a: hunter2-text\nb: {{ 1 + 1 }}\n", 0);
    site.write("repo/pillar/data.sls", &format!("#!gpg|jinja|yaml\nfirst: {{{{ 'x' }}}}\n{text}\nlast: yes\n"));
    let bare = site.ok(&["pillar", "--json", "--reveal"], &[]);
    assert!(bare.contains(r#"{"first":"x","a":"hunter2-text","b":2,"last":true}"#), "{bare}");
    // A fault in it has the line of the file, and shows nothing.
    site.write("repo/pillar/data.sls", &format!("#!gpg|yaml\nfirst: x\n{text}\nlast: [\n"));
    let fault = site.refused(&["pillar"], &[], &["pillar/data.sls:"]);
    assert!(!fault.contains("hunter2"), "{fault}");

    // Keys of the merged pillar, whatever files they are from.
    let settings = "renderer: jinja|yaml\ndecrypt_pillar: ['db/password', {other: gpg}]\ndecrypt_pillar_delimiter: /\n";
    site.write("repo/basalt.yaml", &format!("gpg_keydir: {}\n{settings}", site.place("k").display()));
    site.write("repo/pillar/data.sls", &format!("db:\n  password: |\n    {whole}\nother: ['{one_line}', 1]\nleft: '{one_line}'\n"));
    let bare = site.ok(&["pillar", "--json", "--reveal"], &[]);
    assert!(bare.contains(r#"{"db":{"password":"hunter2-whole"},"other":["hunter2-line",1],"left":"-----BEGIN PGP"#), "{bare}");
    assert!(!site.ok(&["pillar", "--json"], &[]).contains("hunter2"));
    site.write("repo/basalt.yaml", &format!("renderer: jinja|yaml|gpg\ngpg_keydir: {}\n", site.place("k").display()));
    assert!(site.ok(&["pillar", "--json", "--reveal"], &[]).contains(r#""left":"hunter2-line""#));
}

#[test]
fn what_cannot_be_decrypted_says_where_and_what_to_do_and_nothing_hangs() {
    if !has(&["gpg", "gpgconf"]) {
        return;
    }
    let site = Site::new();
    let ring = Keyring::new(&site.place("k"), "open sesame");
    let home: &[(&str, &Path)] = &[("GNUPGHOME", &site.place("k"))];
    let message = ring.message("hunter2", 4);
    site.write("repo/pillar/data.sls", &format!("#!yaml|gpg\na: 1\nb:\n  c: |\n    {message}\nd: |\n    {message}\n"));
    site.write("repo/basalt.yaml", "decrypt_timeout: 2\n");

    // Nobody has the key.
    let other = Keyring::new(&site.place("o"), "");
    let no_key =
        site.refused(&["pillar"], &[("GNUPGHOME", &site.place("o"))], &["pillar/data.sls:4:6", "No secret key", "help:", "gpg --import"]);
    assert!(no_key.contains("pillar/data.sls:4:6"), "{no_key}");
    drop(other);
    // Nobody can ask for the passphrase, somebody gives none, and somebody never answers.
    ring.pinentry(Path::new("/bin/false"));
    site.refused(&["pillar"], home, &["pillar/data.sls:4:6", "No pinentry", "gpg-agent remembers"]);
    let never = site.program(
        "pinentry",
        "echo OK; while read -r line; do case $line in GETPIN*) echo 'ERR 83886179 Operation cancelled';; *) echo OK;; esac; done",
    );
    ring.pinentry(&never);
    site.refused(&["pillar"], home, &["pillar/data.sls:4:6", "gpg-agent remembers"]);
    let hangs = site.program("hangs", "echo OK; while read -r line; do case $line in GETPIN*) exec sleep 30;; *) echo OK;; esac; done");
    ring.pinentry(&hangs);
    let begun = Instant::now();
    site.refused(&["pillar"], home, &["pillar/data.sls:4:6", "gpg did not decrypt a value within 2 s", "help:"]);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    // The right passphrase, at last: gpg's own agent asks for it.
    let right = site
        .program("right", "echo OK; while read -r line; do case $line in GETPIN*) echo 'D open sesame'; echo OK;; *) echo OK;; esac; done");
    ring.pinentry(&right);
    assert!(site.ok(&["pillar", "--json", "--reveal"], home).contains("hunter2"));

    // No gpg on this machine.
    let bare = Site { path: String::new(), ..Site::new() };
    bare.write("repo/pillar/data.sls", &format!("#!yaml|gpg\nb:\n  c: |\n    {message}\n"));
    piped(Command::new("git").args(["init", "-q"]).arg(bare.place("repo")), "");
    bare.refused(&["pillar"], &[], &["pillar/data.sls:3:6", "gpg cannot be run", "install gpg"]);
}

#[test]
fn age_decrypts_with_the_identity_that_is_named() {
    if !has(&["age", "age-keygen"]) {
        return;
    }
    let site = Site::new();
    let identity = site.place("identity");
    piped(Command::new("age-keygen").arg("-o").arg(&identity), "");
    let public = piped(Command::new("age-keygen").arg("-y").arg(&identity), "");
    let message = piped(Command::new("age").args(["-a", "-r", public.trim()]), "hunter2-age").trim_end().replace('\n', "\n    ");
    site.write("repo/pillar/data.sls", &format!("#!yaml|age\na: |\n    {message}\n"));
    site.refused(&["pillar"], &[], &["pillar/data.sls:2:4", "BASALT_AGE_IDENTITY"]);
    let env: &[(&str, &Path)] = &[("BASALT_AGE_IDENTITY", &identity)];
    assert!(site.ok(&["pillar", "--json", "--reveal"], env).contains(r#"{"a":"hunter2-age"}"#));
    assert!(!site.ok(&["pillar", "--json"], env).contains("hunter2"));
    site.write("repo/basalt.yaml", "age_identity: ~/identity\n");
    assert!(site.ok(&["pillar", "--json", "--reveal"], &[]).contains("hunter2-age"));
    // Another's message.
    piped(Command::new("age-keygen").arg("-o").arg(site.place("other")), "");
    site.refused(&["pillar"], &[("BASALT_AGE_IDENTITY", &site.place("other"))], &["pillar/data.sls:2:4", "no identity matched", "help:"]);
    // With a passphrase on it there is nobody to ask.
    let locked = piped(Command::new("age").args(["-a", "-r", public.trim()]), &std::fs::read_to_string(&identity).unwrap());
    site.write("locked", &locked);
    site.refused(&["pillar"], &[("BASALT_AGE_IDENTITY", &site.place("locked"))], &["pillar/data.sls:2:4", "age cannot decrypt a value"]);
}

#[test]
fn files_of_sops_are_decrypted_whole() {
    let site = Site::new();
    let enc = |data: &str| format!("ENC[AES256_GCM,data:{data},iv:x,tag:y,type:str]");
    let data = format!(
        "user: bob\npassword: {}\nports:\n    - {}\n    - 80\nsops:\n    mac: {}\n    version: 3.9.0\n",
        enc("a"),
        enc("b"),
        enc("c")
    );
    site.write("repo/pillar/data.sls", &data);
    // As sops does: the whole file without what it says of itself.
    site.program(
        "sops",
        "echo \"$@\" >> $HOME/asked; cat > $HOME/got; printf 'user: bob\\npassword: \"hun{{ter2\"\\nports:\\n    - 5432\\n    - 80\\n'",
    );
    let bare = site.ok(&["pillar", "--json", "--reveal"], &[]);
    assert!(bare.contains(r#"{"user":"bob","password":"hun{{ter2","ports":[5432,80]}"#), "{bare}");
    let shown = site.ok(&["pillar", "--json"], &[]);
    assert!(shown.contains(r#"{"user":"bob","password":"********","ports":[5432,80]}"#), "{shown}");
    assert_eq!(std::fs::read_to_string(site.place("got")).unwrap(), data);
    assert!(std::fs::read_to_string(site.place("asked")).unwrap().contains("-d --input-type yaml --output-type yaml /dev/stdin"));
    site.program("sops", "echo 'Failed to get the data key required to decrypt the SOPS file.' >&2; exit 128");
    site.refused(&["pillar"], &[], &["pillar/data.sls:6:1", "Failed to get the data key", "sops -d FILE"]);
}

#[test]
fn marked_keys_of_plain_pillar_are_secret_too_and_errors_show_none() {
    let site = Site::new();
    site.write("repo/basalt.yaml", "secret_pillar: ['*password*', 'db:*']\n");
    site.write("repo/pillar/data.sls", "root_password: hunter2\ndb: {user: canary-db, port: 80}\nplain: seen\nweb: {user: www}\n");
    let shown = site.ok(&["pillar", "--json"], &[]);
    let wanted = r#"{"root_password":"********","db":{"user":"********","port":80},"plain":"seen","web":{"user":"www"}}"#;
    assert!(shown.contains(wanted), "{shown}");
    for sls in [
        // YAML that cannot be read, an unknown call, what a template raises, JSON that is none, a value of the wrong kind, a cycle of names.
        "it:\n  cmd.run:\n    - name: {{ pillar.root_password }}: {{ pillar.root_password }}: [\n",
        "{% do salt['no.such'](pillar.root_password) %}",
        "{{ raise('it is ' ~ pillar.root_password ~ ' ' ~ pillar.root_password | base64_encode) }}",
        "{{ ('{' ~ pillar.root_password) | load_json }}",
        "{{ pillar.root_password | to_num + {} }}",
        "{{ {}[pillar.root_password].x }}",
        "{% import 'x' ~ pillar.root_password as x %}",
        "{{ pillar.root_password }}:\n  {{ pillar.root_password }}:\n    - x\n",
        "it:\n  test.nop:\n    - require: [{cmd: {{ pillar.root_password }}}]\n",
        "it:\n  file.managed:\n    - source: salt://{{ pillar.root_password }}\n",
        "it:\n  file.managed:\n    - contents_pillar: {{ pillar.root_password }}\n",
        "{{ pillar.root_password }}:\n  test.nop: []\n{{ pillar.root_password }}:\n  test.nop: []\n",
    ] {
        site.write("repo/states/it.sls", sls);
        for args in [&["low"][..], &["low", "--json"], &["high"], &["sls"]] {
            let (_, text) = site.show(args, &[]);
            assert!(!text.contains("hunter2") && !text.contains("aHVudGVyMg"), "{sls}\n{text}");
        }
    }
    // What filters and methods make of a secret.
    let made = "{% set s = 'x' ~ pillar.root_password %}\n{% load_yaml as y %}\na: \"\\x41{{ s }}\"\nname: bob\n{% endload %}\nit:\n  test.nop:\n\
                {% for v in [s | upper, s[1:6], s[::-1], s | sha256, s | base64_encode, '%r' % s, s.replace('h', 'H'), s | wordwrap(5), y.a,\n\
                'a:' ~ s.split('unt')[1], salt['hashutil.md5_digest'](s), [s, s] | map('upper') | join(','), '{:>20}'.format(s), s | regex_replace('t', 'T')] %}\n\
                \x20   - v{{ loop.index }}: {{ v | json }}\n{% endfor %}\n    - safe: {{ ['bob', s] | first | json }}\n    - name: {{ y.name }}\n";
    site.write("repo/states/it.sls", made);
    let bare = site.ok(&["low", "--json", "--reveal"], &[]);
    assert!(bare.contains("\"v1\":\"XHUNTER2\"") && bare.contains("\"v3\":\"2retnuhx\"") && bare.contains("\"v10\":\"a:er2\""), "{bare}");
    let shown = site.ok(&["low", "--json"], &[]);
    let small = shown.to_lowercase();
    for part in ["hunter2", "unter2", "2retnuh", "xhunt", "ahvudgvymg", "68756e74657232"] {
        assert!(!small.contains(part), "{part}: {shown}");
    }
    assert!(shown.contains("\"safe\":\"bob\"") && shown.contains("\"name\":\"bob\""), "{shown}");
    let values: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let low = values["low"][0].as_object().unwrap();
    let visible: Vec<&String> =
        low.iter().filter(|(k, v)| k.starts_with('v') && !v.as_str().unwrap().contains("********")).map(|(k, _)| k).collect();
    // Three characters of it are none.
    assert_eq!(visible, ["v10"], "{shown}");
}

// --- the canary ---

const CANARY: &str = "c4nary-0f-the-l4b";
const OLD: &str = "0ld-c4nary-that-went";
/// With everything in it that somebody quotes.
const ODD: &str = r#"0dd"c4n'ary\<&> %s"#;

const STATES: &str = r#"
{% set s = pillar['secret'] %}
/etc/contents:
  file.managed:
    - contents: password = {{ s }}
/etc/template:
  file.managed:
    - source: salt://template.j2
    - template: jinja
/etc/pillar:
  file.managed:
    - contents_pillar: secret
/etc/encoded:
  file.managed:
    - contents: |
        {{ s | base64_encode }} {{ s | upper }} {{ s | sha256 }} {{ s[2:12] }} {{ ('x' ~ s) | base64_encode }}
/etc/odd:
  file.managed:
    - contents: {{ pillar['odd'] | json }}
/etc/data:
  file.serialize:
    - dataset: {{ {'a': pillar['odd'], 'b': [s]} | json }}
    - serializer: yaml
/etc/lines:
  file.append:
    - text: token={{ s }}
/etc/{{ s }}.conf:
  file.managed:
    - contents: a path
say {{ s }}:
  cmd.run:
    - name: echo say {{ s }}; printf %s '{{ s }}' | base64; printf %s '{{ s }}' | od -An -tx1 | tr -d ' \n'
    - unless: test {{ s }} = other
with environment:
  cmd.run:
    - name: echo "$TOKEN"; cat
    - env:
      - TOKEN: {{ s }}
    - stdin: {{ s }}
    - undo: echo undone "$TOKEN" > /var/lib/undone
fails with {{ s }}:
  cmd.run:
    - name: echo {{ s }} >&2; exit 3
reacts to {{ s }}:
  cmd.wait:
    - name: echo reacted {{ s }}
    - watch:
      - file: /etc/contents
alice:
  user.present:
    - password: {{ s }}
    - hash_password: True
    - fullname: {{ s }}
a job of {{ s }}:
  cron.present:
    - name: /bin/true {{ s }}
    - identifier: job
    - user: root
{{ s }}:
  test.succeed_with_changes: []
"#;

/// Everything that was said, and whether a secret is in it.
struct Watch {
    needles: Vec<(String, String)>,
    bytes: usize,
}

impl Watch {
    fn new() -> Watch {
        let mut needles = Vec::new();
        for secret in [CANARY, OLD, ODD] {
            let mut add = |what: &str, text: String| needles.push((format!("{what} of {secret}"), text));
            let hex: String = secret.bytes().map(|b| format!("{b:02x}")).collect();
            let base64 = piped(Command::new("base64").arg("-w0"), secret).trim_end_matches('=').to_owned();
            let json = serde_json::to_string(secret).unwrap();
            add("plain", secret.to_owned());
            add("upper", secret.to_uppercase());
            add("hex", hex);
            add("base64", base64);
            add("base64 with an x", piped(Command::new("base64").arg("-w0"), &format!("x{secret}")).trim_end_matches('=').to_owned());
            add("json", json[1..json.len() - 1].to_owned());
            add("sha256", piped(&mut Command::new("sha256sum"), secret)[..64].to_owned());
            add("part", secret[2..12].to_owned());
            add("yaml", secret.replace('\'', "''"));
        }
        Watch { needles, bytes: 0 }
    }

    #[track_caller]
    fn see(&mut self, what: &str, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        self.bytes += bytes.len();
        for (needle, secret) in &self.needles {
            assert!(!text.contains(secret.as_str()), "{needle} is in {what}:\n{}", excerpt(&text, secret));
        }
    }

    #[track_caller]
    fn folder(&mut self, folder: &Path, skip: &str) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && entry.file_name() != skip {
                self.folder(&path, skip);
            } else if path.is_file() {
                // The one thing that a journal must say in clear: where the file is that is called by a secret.
                let bytes = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
                let bytes = [OLD, CANARY].iter().fold(bytes, |bytes, name| bytes.replace(&format!("\"file:/etc/{name}.conf\""), ""));
                self.see(&path.display().to_string(), bytes.as_bytes());
            }
        }
    }
}

fn excerpt(text: &str, secret: &str) -> String {
    text.lines().filter(|line| line.contains(secret)).map(|line| line.chars().take(2000).collect::<String>()).collect::<Vec<_>>().join("\n")
}

/// Runs a command in every way it can print, and looks at what it says. Gives what it said to people.
#[track_caller]
fn run(lab: &Lab, watch: &mut Watch, args: &[&str]) -> String {
    let output = lab.basalt(["--color", "always"].iter().chain(args)).to_string();
    watch.see(&args.join(" "), output.as_bytes());
    let controller = [lab.home().join(".local/state"), lab.home().join(".cache")];
    controller.iter().for_each(|folder| watch.folder(folder, "agents"));
    output
}

/// The host's own state, but for what it keeps to go back.
#[track_caller]
fn see_host(host: &Host, watch: &mut Watch) {
    watch.folder(&host.root().join("var/lib/basalt"), "keep");
}

#[test]
fn a_secret_is_in_nothing_that_is_shown_told_or_written_down() {
    if !has(&["gpg", "gpgconf"]) || !lab::required() {
        return;
    }
    let lab = Lab::light(1);
    let host = &lab["h1"];
    let mut watch = Watch::new();
    let keys = tempfile::Builder::new().prefix("k").tempdir().unwrap();
    let ring = Keyring::new(&keys.path().join("k"), "");
    // Counts, and finds the keys.
    let gpg = format!("#!/bin/sh\necho asked >> $HOME/asked\nexec /usr/bin/gpg --homedir {} \"$@\"\n", ring.0.display());
    std::fs::write(lab.home().join("bin/gpg"), gpg).unwrap();
    std::fs::set_permissions(lab.home().join("bin/gpg"), std::fs::Permissions::from_mode(0o755)).unwrap();
    lab.write("states/top.sls", "base:\n  '*': [it]\n");
    lab.write("states/it.sls", STATES);
    lab.write("states/template.j2", "key {{ pillar['secret'] }}\n{{ pillar['odd'] | tojson }}\nname {{ name }}\n");
    lab.write("pillar/top.sls", "base:\n  '*': [data]\n");
    let pillar = |secret: &str| {
        let data = format!("#!yaml|gpg\nsecret: |\n  {}\nodd: |\n  {}\n", ring.message(secret, 2), ring.message(ODD, 2));
        lab.write("pillar/data.sls", &data);
        lab.commit("another secret");
    };
    pillar(OLD);

    // The plan, in all its ways.
    let saved = lab.state().join("../saved.plan");
    let saved = saved.to_str().unwrap();
    std::fs::write(saved, "").unwrap();
    let plan = run(&lab, &mut watch, &["plan"]);
    assert!(plan.contains("content differs (secret)") && plan.contains("echo say ********"), "{plan}");
    let asked = std::fs::read_to_string(lab.home().join("asked")).unwrap();
    assert_eq!(asked.lines().count(), 2, "each message is decrypted once");
    run(&lab, &mut watch, &["plan", "--json"]);
    run(&lab, &mut watch, &["plan", "-o", saved, "--detailed-exitcode"]);
    assert_eq!(std::fs::metadata(saved).unwrap().permissions().mode() & 0o777, 0o600);
    watch.see("the saved plan", &std::fs::read(saved).unwrap());
    // No digest of it either that somebody could try secrets with.
    let content = piped(&mut Command::new("sha256sum"), &format!("password = {OLD}\n"));
    assert!(!std::fs::read_to_string(saved).unwrap().contains(&content[..64]));

    // Applied exactly so.
    let applied = run(&lab, &mut watch, &["apply", "--plan", saved, "--yes"]);
    assert!(applied.contains("FAILED") && applied.contains("say ********"), "{applied}");
    see_host(host, &mut watch);
    for path in ["/etc/contents", "/etc/template", "/etc/pillar", "/etc/lines", "/etc/data"] {
        assert!(host.read(path).unwrap_or_default().contains(OLD), "{path}: {:?}", host.read(path));
    }
    assert_eq!(host.read("/etc/odd").unwrap().trim_end(), ODD);
    assert!(host.sh("grep alice /etc/shadow").ok().stdout.contains("alice:$6$"));
    for args in [&["plan"][..], &["plan", "--json"], &["runs"], &["runs", "--json"]] {
        run(&lab, &mut watch, args);
    }
    for what in ["top", "sls", "high", "low", "pillar"] {
        run(&lab, &mut watch, &["show", what, "h1"]);
        run(&lab, &mut watch, &["show", what, "h1", "--json"]);
    }
    assert!(lab.basalt(["show", "pillar", "h1", "--reveal"]).ok().stdout.contains(OLD), "the canary is there");
    for id in ["/etc/contents", "alice", "with environment", "/etc/pillar", "nothing"] {
        run(&lab, &mut watch, &["explain", "h1", id]);
    }

    // Drift over a secret; then another secret, and nobody knows the old one any more.
    host.sh("echo drift >> /etc/contents; echo drift >> /etc/lines; sed -i s/key/kez/ /etc/template").ok();
    let drift = run(&lab, &mut watch, &["plan"]);
    assert!(drift.contains("/etc/contents") && !drift.contains("drift"), "{drift}");
    pillar(CANARY);
    run(&lab, &mut watch, &["plan", "--json"]);
    let changed = run(&lab, &mut watch, &["plan"]);
    assert!(changed.contains("content differs (secret)"), "{changed}");
    run(&lab, &mut watch, &["apply", "--yes", "--json"]);
    assert!(host.read("/etc/contents").unwrap().contains(CANARY));
    see_host(host, &mut watch);

    // The states go, and the secret with them: what is there is still not shown.
    let files = ["/etc/contents", "/etc/template", "/etc/pillar", "/etc/encoded", "/etc/odd", "/etc/data", "/etc/lines"];
    let mut states: String = files[1..].iter().map(|path| format!("{path}:\n  file.absent: []\n")).collect();
    states += "/etc/contents:\n  file.managed:\n    - contents: nothing\nalice:\n  user.present:\n    - fullname: Alice\n";
    states += "job:\n  cron.absent:\n    - name: x\n    - identifier: job\n";
    lab.write("states/it.sls", &states);
    lab.write("pillar/data.sls", "plain: seen\n");
    lab.commit("no secrets");
    for args in [&["plan"][..], &["plan", "--json"], &["plan", "-o", saved], &["apply", "--plan", saved, "--yes"]] {
        run(&lab, &mut watch, args);
        watch.see("the saved plan", &std::fs::read(saved).unwrap());
    }
    see_host(host, &mut watch);
    assert_eq!((host.read("/etc/contents").as_deref(), host.read("/etc/pillar")), (Some("nothing\n"), None));
    // What is not secret any more is shown again.
    host.sh("echo something > /etc/contents").ok();
    assert!(run(&lab, &mut watch, &["plan"]).contains("something"));

    // The way back, run after run.
    for _ in 0..3 {
        run(&lab, &mut watch, &["rollback", "--yes"]);
        see_host(host, &mut watch);
    }
    run(&lab, &mut watch, &["rollback", "--yes", "--json"]);
    for path in files {
        assert_eq!(host.read(path), None, "{path}");
    }
    assert!(host.read("/var/lib/undone").unwrap_or_default().contains("undone 0ld-c4nary"), "{:?}", host.read("/var/lib/undone"));
    assert!(!host.sh("id alice").to_string().contains("uid="));
    see_host(host, &mut watch);
    for args in [&["runs"][..], &["runs", "--json"]] {
        run(&lab, &mut watch, args);
    }
    assert!(watch.bytes > 50_000, "{}", watch.bytes);
}
