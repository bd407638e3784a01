//! What the functions make of a host, case by case. Every case that succeeds is also asked a second time and must be done.

mod edits;

use super::double::{Double, low};
use crate::function::Want;
use crate::plan::Key;

fn refused(host: &mut Double, function: &str, args: &str) -> String {
    match host.apply(function, args) {
        Err(error) => format!("{} | {}", error.summary, error.hint.unwrap_or_default()),
        Ok(changed) => panic!("{function} {args} changed {changed}"),
    }
}

#[test]
fn managed_makes_what_contents_say() {
    for (args, text) in [
        (r#""contents": "a\r\nb""#, "a\nb\n"),
        (r#""contents": "a", "contents_newline": false"#, "a"),
        (r#""contents": ["a", "", "b\nc", 5, true]"#, "a\nb\nc\n5\nTrue\n"),
        (r#""contents": """#, ""),
        (r#""contents": null"#, ""),
        ("\"replace\": true", ""),
    ] {
        let mut host = Double::new();
        assert_eq!(host.apply("file.managed", &format!(r#"{{"name": "/etc/f", {args}}}"#)).unwrap(), 1, "{args}");
        assert_eq!((host.at("/etc/f").as_str(), host.attr("/etc/f", "mode").as_str()), (text, "0644"), "{args}");
    }
}

#[test]
fn managed_changes_only_what_is_said() {
    let mut host = Double::new();
    host.file("/etc/f", "old\n").set("user:web", r#"{"uid": 33}"#);
    // Without contents a file keeps its own.
    assert_eq!(host.apply("file.managed", r#"{"name": "/etc/f", "mode": "0600", "user": "web"}"#).unwrap(), 1);
    assert_eq!(
        (host.at("/etc/f").as_str(), host.attr("/etc/f", "mode").as_str(), host.attr("/etc/f", "user").as_str()),
        ("old\n", "0600", "web")
    );
    host.apply("file.managed", r#"{"name": "/etc/f", "contents": "new", "replace": false}"#).unwrap();
    assert_eq!(host.at("/etc/f"), "old\n");
    host.apply("file.managed", r#"{"name": "/etc/f", "contents": "new"}"#).unwrap();
    assert_eq!((host.at("/etc/f").as_str(), host.attr("/etc/f", "mode").as_str()), ("new\n", "0600"));
    // Owners by number are the names they have.
    assert_eq!(host.apply("file.managed", r#"{"name": "/etc/f", "user": 33, "group": "0"}"#).unwrap(), 0);
    host.apply("file.managed", r#"{"name": "/etc/none", "contents": "x", "create": false}"#).unwrap();
    assert_eq!(host.at("/etc/none"), "absent");
}

#[test]
fn managed_takes_the_source_and_its_mode() {
    let mut host = Double::new();
    let mut state = low("file.managed", r#"{"name": "/etc/f", "source": "salt://f", "mode": "keep"}"#);
    state.contents.push(host.content("source", "from afar\n", Some(0o100755)));
    host.apply_low(&state).unwrap();
    assert_eq!((host.at("/etc/f").as_str(), host.attr("/etc/f", "mode").as_str()), ("from afar\n", "0755"));
    // A file of the host itself, the first of a list that is there.
    host.file("/usr", "local\n");
    host.apply("file.managed", r#"{"name": "/etc/g", "source": ["/nowhere", "file:///usr"]}"#).unwrap();
    assert_eq!(host.at("/etc/g"), "local\n");
}

#[test]
fn managed_makes_parents_as_readable_as_the_file() {
    let mut host = Double::new();
    assert_eq!(host.apply("file.managed", r#"{"name": "/etc/a/b/f", "makedirs": true, "mode": "0640", "group": "root"}"#).unwrap(), 3);
    assert_eq!((host.at("/etc/a").as_str(), host.at("/etc/a/b").as_str()), ("directory 0750", "directory 0750"));
    host.apply("file.managed", r#"{"name": "/etc/c/f", "makedirs": true, "dir_mode": 711}"#).unwrap();
    assert_eq!(host.at("/etc/c"), "directory 0711");
}

#[test]
fn managed_follows_links_unless_told_not_to() {
    let mut host = Double::new();
    host.file("/etc/real", "x").link("/etc/l", "real").link("/etc/d", "/etc");
    host.apply("file.managed", r#"{"name": "/etc/l", "contents": "y"}"#).unwrap();
    assert_eq!((host.at("/etc/real").as_str(), host.at("/etc/l").as_str()), ("y\n", "-> real"));
    host.apply("file.managed", r#"{"name": "/etc/l", "contents": "z", "follow_symlinks": false}"#).unwrap();
    assert_eq!((host.at("/etc/real").as_str(), host.at("/etc/l").as_str()), ("y\n", "z\n"));
    host.apply("file.managed", r#"{"name": "/etc/d/below", "contents": "in a linked directory"}"#).unwrap();
}

#[test]
fn managed_keeps_a_copy_where_asked() {
    let mut host = Double::new();
    host.file("/etc/f", "old\n");
    host.directory("/var").directory("/var/cache");
    host.apply("file.managed", r#"{"name": "/etc/f", "contents": "new", "backup": "minion"}"#).unwrap();
    let copies: Vec<String> =
        host.objects.keys().map(|k| k.name.clone()).filter(|n| n.starts_with("/var/cache/basalt/file_backup/etc/f_")).collect();
    assert_eq!(copies.iter().map(|c| host.at(c)).collect::<Vec<_>>(), ["old\n"]);
}

#[test]
fn managed_says_what_is_wrong() {
    let mut host = Double::new();
    host.file("/etc/f", "x").link("/etc/a", "b").link("/etc/b", "a");
    for (args, part) in [
        (r#"{"name": "etc/f"}"#, "no absolute path"),
        (r#"{"name": "~/f"}"#, "/root/f"),
        (r#"{"name": "/etc/f", "contents": "x", "source": "salt://x"}"#, "cannot be used together"),
        (r#"{"name": "/etc/f", "contents": "x", "mode": "keep"}"#, "keep needs a source"),
        (r#"{"name": "/etc/f", "source": "salt://x"}"#, "salt://x was not found"),
        (r#"{"name": "/etc/f", "contents": [], "allow_empty": false}"#, "allow_empty"),
        (r#"{"name": "/etc/f", "source": "/nowhere"}"#, "not on the host"),
        (r#"{"name": "/etc"}"#, "/etc is a directory"),
        (r#"{"name": "/opt/f"}"#, "makedirs: True"),
        (r#"{"name": "/etc/f/g"}"#, "/etc/f is a file, not a directory"),
        (r#"{"name": "/etc/f", "user": "nobody-here"}"#, "user nobody-here is not available | add a user.present"),
        (r#"{"name": "/etc/a"}"#, "leads back to itself"),
        (r#"{"name": "/etc/f", "contents": "x", "backup": "master"}"#, "backup"),
        (r#"{"name": "/etc/f", "contents": "x", "encoding": "utf-16"}"#, "encoding"),
    ] {
        let said = refused(&mut host, "file.managed", args);
        assert!(said.contains(part), "{args}: {said}");
    }
    // What an earlier step may still bring is no failure.
    host.uncertain = true;
    host.apply("file.managed", r#"{"name": "/opt/f", "contents": "x", "user": "nobody-here"}"#).unwrap();
}

#[test]
fn whether_a_package_brings_what_is_to_be_absent_is_known_when_it_has_come() {
    let mut host = Double::new();
    let want = |host: &Double, path: &str| {
        let function = host.parse(&low("file.absent", &format!(r#"{{"name": "{path}"}}"#))).unwrap();
        host.want(&*function).unwrap()
    };
    assert!(matches!(want(&host, "/etc/f"), Want::Is(_)));
    host.packages_come = true;
    assert!(matches!(want(&host, "/etc/f"), Want::Unknown(_)));
    for path in ["/home/ann/f", "/usr/local/bin/f", "/root/f"] {
        assert!(matches!(want(&host, path), Want::Is(_)), "{path}");
    }
    host.file("/etc/f", "x");
    assert!(matches!(want(&host, "/etc/f"), Want::Is(_)));
}

#[test]
fn directories_are_made_with_mode_and_owner() {
    let mut host = Double::new();
    assert_eq!(host.apply("file.directory", r#"{"name": "/etc/a/b/", "makedirs": true, "mode": 750}"#).unwrap(), 2);
    assert_eq!((host.at("/etc/a").as_str(), host.at("/etc/a/b").as_str()), ("directory 0750", "directory 0750"));
    host.apply("file.directory", r#"{"name": "/etc/a", "dir_mode": "0700"}"#).unwrap();
    assert_eq!(host.at("/etc/a"), "directory 0700");
    host.apply("file.directory", r#"{"name": "/etc/a"}"#).unwrap();
    assert_eq!(host.at("/etc/a"), "directory 0700");
}

#[test]
fn recurse_reaches_what_it_names_and_nothing_else() {
    let tree = || {
        let mut host = Double::new();
        host.directory("/etc/d").directory("/etc/d/e").file("/etc/d/f", "x").file("/etc/d/e/g", "y").link("/etc/d/l", "f");
        host.set("user:web", r#"{"uid": 33}"#);
        host
    };
    let state = |host: &Double| {
        ["/etc/d", "/etc/d/e", "/etc/d/f", "/etc/d/e/g", "/etc/d/l"]
            .map(|p| format!("{} {}", host.attr(p, "user"), host.attr(p, "mode")))
            .join(", ")
    };
    for (args, after) in [
        (r#""user": "web", "recurse": ["user"]"#, "web 0755, web 0755, web 0644, web 0644, web "),
        (
            r#""user": "web", "dir_mode": "0700", "file_mode": "0600", "recurse": ["mode"]"#,
            "web 0700, root 0700, root 0600, root 0600, root ",
        ),
        (r#""user": "web", "recurse": ["user", "ignore_files"]"#, "web 0755, web 0755, root 0644, root 0644, root "),
        (r#""user": "web", "recurse": ["user", "ignore_dirs"]"#, "web 0755, root 0755, web 0644, web 0644, web "),
        (r#""user": "web", "recurse": ["user"], "max_depth": 1"#, "web 0755, web 0755, web 0644, root 0644, web "),
        (r#""user": "web", "recurse": ["user"], "children_only": true"#, "root 0755, web 0755, web 0644, web 0644, web "),
        (r#""mode": "0700", "recurse": ["mode"]"#, "root 0700, root 0700, root 0700, root 0700, root "),
    ] {
        let mut host = tree();
        host.apply("file.directory", &format!(r#"{{"name": "/etc/d", {args}}}"#)).unwrap();
        assert_eq!(state(&host), after, "{args}");
    }
    for (args, part) in [
        (r#""recurse": ["user"]"#, "gives no user"),
        (r#""recurse": ["owner"]"#, "recurse knows"),
        (r#""recurse": ["ignore_files", "ignore_dirs"]"#, "would manage nothing"),
        (r#""clean": true, "max_depth": 1"#, "max_depth and clean"),
    ] {
        assert!(refused(&mut tree(), "file.directory", &format!(r#"{{"name": "/etc/d", {args}}}"#)).contains(part), "{args}");
    }
}

#[test]
fn clean_takes_what_no_required_state_manages() {
    let mut host = Double::new();
    host.directory("/etc/d")
        .file("/etc/d/mine", "")
        .file("/etc/d/other", "")
        .directory("/etc/d/sub")
        .file("/etc/d/sub/kept", "")
        .file("/etc/d/sub/gone", "");
    host.directory("/etc/d/whole").file("/etc/d/whole/x", "").directory("/etc/d/old").file("/etc/d/old/y", "").file("/etc/d/x.save", "");
    host.required = vec![
        low("file.managed", r#"{"name": "/etc/d/mine"}"#),
        low("file.managed", r#"{"name": "/etc/d/sub/kept"}"#),
        low("file.directory", r#"{"name": "/etc/d/whole"}"#),
        low("cmd.run", r#"{"name": "/etc/d/other"}"#),
    ];
    let mut files = low("file.recurse", r#"{"name": "/etc/d/r"}"#);
    files.contents.push(host.content("in/it", "", None));
    host.directory("/etc/d/r").directory("/etc/d/r/in").file("/etc/d/r/in/it", "").file("/etc/d/r/stranger", "");
    host.required.push(files);
    host.apply("file.directory", r#"{"name": "/etc/d", "clean": true, "exclude_pat": "*.save"}"#).unwrap();
    let left: Vec<&str> = host.objects.keys().filter_map(|k: &Key| k.name.strip_prefix("/etc/d/")).collect();
    assert_eq!(left, ["mine", "r", "r/in", "r/in/it", "sub", "sub/kept", "whole", "whole/x", "x.save"]);
}

#[test]
fn a_directory_takes_the_place_of_a_file_only_when_told() {
    let mut host = Double::new();
    host.file("/etc/f", "x").link("/etc/l", "/etc");
    assert!(refused(&mut host, "file.directory", r#"{"name": "/etc/f"}"#).contains("/etc/f is a file"));
    assert!(refused(&mut host, "file.directory", r#"{"name": "/etc/l", "allow_symlink": false}"#).contains("a symbolic link"));
    assert_eq!(host.apply("file.directory", r#"{"name": "/etc/l"}"#).unwrap(), 0);
    host.apply("file.directory", r#"{"name": "/etc/f", "backupname": "/etc/f.was"}"#).unwrap();
    assert_eq!((host.at("/etc/f").as_str(), host.at("/etc/f.was").as_str()), ("directory 0755", "x"));
    host.apply("file.directory", r#"{"name": "/etc/l", "force": true}"#).unwrap();
    assert_eq!(host.at("/etc/l"), "directory 0755");
}

#[test]
fn links_change_their_targets_and_replace_others_only_when_told() {
    let mut host = Double::new();
    host.apply("file.symlink", r#"{"name": "/etc/l", "target": "a/../b"}"#).unwrap();
    assert_eq!(host.at("/etc/l"), "-> a/../b");
    // The same target, written otherwise.
    assert_eq!(host.apply("file.symlink", r#"{"name": "/etc/l", "target": "./b"}"#).unwrap(), 0);
    assert_eq!(host.apply("file.symlink", r#"{"name": "/etc/l", "target": "/b"}"#).unwrap(), 1);
    host.file("/etc/f", "x").directory("/etc/d").file("/etc/d/below", "y");
    assert!(refused(&mut host, "file.symlink", r#"{"name": "/etc/f", "target": "b"}"#).contains("force: True"));
    host.apply("file.symlink", r#"{"name": "/etc/f", "target": "b", "force": true}"#).unwrap();
    host.apply("file.symlink", r#"{"name": "/etc/d", "target": "b", "backupname": "d.was"}"#).unwrap();
    assert_eq!((host.at("/etc/d").as_str(), host.at("/etc/d.was/below").as_str()), ("-> b", "y"));
    host.file("/etc/g", "x");
    let said = refused(&mut host, "file.symlink", r#"{"name": "/etc/g", "target": "b", "backupname": "/etc/d.was"}"#);
    assert!(said.contains("/etc/d.was is there already"), "{said}");
    assert!(refused(&mut host, "file.symlink", r#"{"name": "/opt/x/l", "target": "b"}"#).contains("makedirs"));
    host.apply("file.symlink", r#"{"name": "/opt/x/l", "target": "b", "makedirs": true, "mode": "0700"}"#).unwrap();
    assert_eq!(host.at("/opt/x"), "directory 0700");
}

#[test]
fn absent_takes_anything_away_and_exists_and_missing_only_look() {
    let mut host = Double::new();
    host.directory("/etc/d").file("/etc/d/f", "x").link("/etc/l", "nowhere");
    assert_eq!(host.apply("file.absent", r#"{"name": "/etc/d"}"#).unwrap(), 1);
    assert_eq!(host.at("/etc/d/f"), "absent");
    assert_eq!(host.apply("file.absent", r#"{"name": "/etc/d"}"#).unwrap(), 0);
    assert!(refused(&mut host, "file.absent", r#"{"name": "//"}"#).contains("cannot be absent"));
    host.apply("file.missing", r#"{"name": "/etc/l"}"#).unwrap();
    host.apply("file.exists", r#"{"name": "/etc"}"#).unwrap();
    assert!(refused(&mut host, "file.exists", r#"{"name": "/etc/none"}"#).contains("is not there"));
    host.uncertain = true;
    let exists = host.parse(&low("file.exists", r#"{"name": "/etc/none"}"#)).unwrap();
    assert!(matches!(host.want(exists.as_ref()).unwrap(), Want::Unknown(_)));
}
