//! What pkgrepo states make of a host's sources. Lines are those that Salt 3008.5 writes.

use crate::function::Want;
use crate::function::file::double::{Double, low};
use crate::plan::Low;

fn debian() -> Double {
    let mut host = Double::new();
    host.directory("/etc/apt").directory("/etc/apt/sources.list.d").directory("/etc/apt/trusted.gpg.d").directory("/etc/apt/keyrings");
    host
}

/// The state applied, and the command behind it.
fn apply(host: &mut Double, low: &Low) -> Option<String> {
    let function = host.parse(low).unwrap();
    let want = host.want(function.as_ref()).unwrap();
    let shown = if let Want::Then(_, run) = &want { Some(run.shown.clone()) } else { None };
    host.lay(want);
    let again = host.want(function.as_ref()).unwrap();
    assert!(matches!(again, Want::Nothing(_)), "{:?}: {again:?}", low.args);
    shown
}

fn managed(host: &mut Double, args: &str) -> Option<String> {
    apply(host, &low("pkgrepo.managed", args))
}

const SALT: &str = "/etc/apt/sources.list.d/salt.list";

#[test]
fn a_line_comes_into_its_file_and_the_lists_are_fetched() {
    let mut host = debian();
    let line = "deb [signed-by=/etc/apt/keyrings/s.gpg arch=amd64] https://x.org/deb stable main";
    let args = format!(r#"{{"name": "{line}", "file": "{SALT}"}}"#);
    assert_eq!(managed(&mut host, &args).as_deref(), Some("apt-get update"));
    assert_eq!(host.at(SALT), format!("{line}\n"));
    // The same with a slash, in another order, from another file's view.
    assert_eq!(
        managed(&mut host, r#"{"name": "deb [arch=amd64 signed-by=/etc/apt/keyrings/s.gpg] https://x.org/deb/ stable main"}"#),
        None
    );
    // Other components change the line where it is.
    managed(&mut host, &format!(r#"{{"name": "{line} extra", "refresh": false}}"#));
    assert_eq!(host.at(SALT), format!("{line} extra\n"));
    assert_eq!(host.at("/etc/apt/sources.list"), "absent");
    // What else is in the file stays.
    host.file(SALT, "# mine\n\ndeb http://other a b");
    managed(
        &mut host,
        r#"{"name": "deb http://x a", "comps": "main, contrib", "dist": "b", "file": "/etc/apt/sources.list.d/salt.list", "enabled": 0}"#,
    );
    assert_eq!(host.at(SALT), "# mine\n\ndeb http://other a b\n# deb http://x b main contrib\n");
    managed(&mut host, r#"{"name": "deb http://x b main contrib", "comments": ["why", "so"], "architectures": "amd64,arm64"}"#);
    assert_eq!(host.at(SALT), "# mine\n\ndeb http://other a b\ndeb [arch=amd64,arm64] http://x b main contrib #why so\n");
    managed(&mut host, &format!(r#"{{"name": "deb http://y c main", "file": "{SALT}", "clean_file": true}}"#));
    assert_eq!(host.at(SALT), "deb http://y c main\n");
}

#[test]
fn paragraphs_are_understood_and_made() {
    let mut host = debian();
    let file = "/etc/apt/sources.list.d/debian.sources";
    host.file(file, "# ours\nTypes: deb\nURIs: http://deb.debian.org/debian\nSuites: trixie trixie-updates\nComponents: main\nSigned-By: /usr/share/k.gpg\n");
    assert_eq!(managed(&mut host, r#"{"name": "deb http://deb.debian.org/debian/ trixie-updates main"}"#), None);
    managed(&mut host, r#"{"name": "deb http://deb.debian.org/debian trixie main contrib"}"#);
    assert!(host.at(file).contains("\nComponents: main contrib\nSigned-By: /usr/share/k.gpg\n"), "{}", host.at(file));
    let own = "/etc/apt/sources.list.d/own.sources";
    managed(
        &mut host,
        &format!(r#"{{"name": "deb [arch=amd64] http://x/ a main", "file": "{own}", "signedby": "/etc/apt/keyrings/x.asc"}}"#),
    );
    let text = "Types: deb\nURIs: http://x/\nSuites: a\nComponents: main\nSigned-By: /etc/apt/keyrings/x.asc\nArchitectures: amd64\n";
    assert_eq!(host.at(own), text);
    apply(&mut host, &low("pkgrepo.absent", r#"{"name": "deb http://deb.debian.org/debian trixie main contrib"}"#));
    assert!(host.at(file).contains("Suites: trixie-updates\n"), "{}", host.at(file));
    apply(&mut host, &low("pkgrepo.absent", r#"{"name": "deb [arch=amd64] http://x a main"}"#));
    assert_eq!(host.at(own), "absent");
}

#[test]
fn keys_come_where_the_line_says() {
    use super::key::tests::{FINGERPRINT, KEY};
    let plain = String::from_utf8_lossy(&super::key::binary(KEY.as_bytes()).unwrap()).into_owned();
    let mut host = debian();
    let mut state = low(
        "pkgrepo.managed",
        &format!(
            r#"{{"name": "deb [signed-by=/usr/share/keyrings/x.gpg] http://x a main", "key_url": "salt://x.asc", "aptkey": false, "file": "{SALT}"}}"#
        ),
    );
    state.contents.push(host.content("key_url", KEY, None));
    assert_eq!(apply(&mut host, &state).as_deref(), Some("apt-get update"));
    assert_eq!((host.at("/usr/share/keyrings/x.gpg"), host.attr("/usr/share/keyrings/x.gpg", "mode").as_str()), (plain.clone(), "0644"));
    // A key that is there stays, whatever it is.
    host.file("/usr/share/keyrings/x.gpg", "another");
    assert_eq!(apply(&mut host, &state), None);
    // Without a place of its own it is good for all sources.
    let text = serde_json::to_string(KEY).unwrap();
    managed(&mut host, &format!(r#"{{"name": "deb http://y a main", "key_text": {text}, "file": "{SALT}"}}"#));
    assert_eq!(host.at("/etc/apt/trusted.gpg.d/salt.gpg"), plain);
    managed(
        &mut host,
        &format!(r#"{{"name": "deb [signed-by=/etc/apt/keyrings/y.asc] http://z a main", "key_text": {text}, "file": "{SALT}"}}"#),
    );
    assert_eq!(host.at("/etc/apt/keyrings/y.asc"), KEY);
    // A key server's answer is looked at.
    let id = FINGERPRINT.trim();
    for (asked, fine) in [(&id[id.len() - 16..], true), ("0123456789ABCDEF", false)] {
        let mut state =
            low("pkgrepo.managed", &format!(r#"{{"name": "deb http://{asked} a main", "keyid": "{asked}", "keyserver": "k.org"}}"#));
        state.contents.push(host.content("keyid:0", KEY, None));
        let function = host.parse(&state).unwrap();
        assert_eq!(host.want(function.as_ref()).is_ok(), fine);
    }
    let gone = format!(r#"{{"name": "deb http://y a main", "keyid": "{}"}}"#, &id[id.len() - 8..]);
    apply(&mut host, &low("pkgrepo.absent", &gone));
    assert_eq!(host.at("/etc/apt/trusted.gpg.d/salt.gpg"), "absent");
    assert_eq!(host.at(SALT).lines().count(), 2);
}

#[test]
fn red_hat_has_files_of_its_own() {
    let mut host = Double::new();
    host.directory("/etc/yum.repos.d")
        .file("/etc/yum.repos.d/base.repo", "# head\n[base]\nname=Base\nbaseurl=http://b\ngpgcheck=1\n# two\n");
    let file = "/etc/yum.repos.d/epel.repo";
    managed(&mut host, r#"{"name": "epel", "humanname": "Extra", "mirrorlist": "http://m", "gpgcheck": true, "gpgkey": "file:///k"}"#);
    assert_eq!(host.at(file), "[epel]\nname=Extra\ngpgcheck=1\ngpgkey=file:///k\nmirrorlist=http://m\nenabled=1\n\n");
    managed(&mut host, r#"{"name": "base", "gpgcheck": "yes"}"#);
    managed(&mut host, r#"{"name": "base", "metalink": "http://l", "disabled": true, "comments": "three"}"#);
    assert_eq!(host.at("/etc/yum.repos.d/base.repo"), "# head\n[base]\nname=Base\ngpgcheck=1\nmetalink=http://l\nenabled=0\n# three\n\n");
    apply(&mut host, &low("pkgrepo.absent", r#"{"name": "epel"}"#));
    assert_eq!(host.at(file), "absent");
    apply(&mut host, &low("pkgrepo.absent", r#"{"name": "not there"}"#));
}

#[test]
fn what_is_wrong_is_said() {
    let mut host = debian();
    for (args, said) in [
        (r#"{"name": "salt"}"#, "Name salt is not valid"),
        (r#"{"name": "x", "ppa": "a/b"}"#, "does not know ppa"),
        (r#"{"name": "deb http://x a", "key_url": "salt://a", "keyid": "12345678"}"#, "You may not use both"),
        (r#"{"name": "deb http://x a", "keyid": "12345678"}"#, "both keyserver and keyid"),
        (r#"{"name": "deb http://x a", "keyid": "xyz", "keyserver": "k"}"#, "is no id of a key"),
        (r#"{"name": "deb http://x a", "enabled": true, "disabled": false}"#, "Only one of enabled/disabled"),
        (r#"{"name": "deb http://x a", "key_text": "none"}"#, "no OpenPGP public key"),
        (r#"{"name": "deb http://x a", "key_text": "none", "aptkey": false}"#, "missing 'signedby'"),
    ] {
        let error = host.apply("pkgrepo.managed", args).unwrap_err();
        assert!(error.summary.contains(said), "{args}: {}", error.summary);
    }
    let error = Double::new().apply("pkgrepo.managed", r#"{"name": "deb http://x a"}"#).unwrap_err();
    assert_eq!(error.summary, "Repo management not implemented on this platform");
}
