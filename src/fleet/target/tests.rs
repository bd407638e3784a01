use super::*;

fn map(json: &str) -> Map {
    serde_json::from_str(json).unwrap()
}

fn grains() -> Map {
    map(
        r#"{"os": "Debian", "osmajorrelease": 12, "virtual": "kvm", "roles": ["web", "cache"], "ec2": {"tags": {"Name": "a:b"}, "id": "i-1"},
        "ipv4": ["127.0.0.1", "10.1.2.3"], "ipv6": ["::1", "fd00::5"], "disks": [{"name": "sda", "size": 3}], "empty": {}, "flag": true}"#,
    )
}

fn groups() -> Map {
    map(r#"{"web": "web1 web2", "either": "N@web or db*", "spaced": ["G@os:Red Hat", "or", "N@web"], "pattern": "web[13]",
        "loop": "N@pool", "pool": "x or N@loop", "broken": "web1 or", "number": 3}"#)
}

fn asks(text: &str, form: Form, id: &str) -> bool {
    let (grains, pillar, groups) = (grains(), map(r#"{"tier": {"name": "front"}}"#), groups());
    Target::parse(form, text, &groups).and_then(|target| target.matches(id, &grains, &pillar)).unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn refused(text: &str, form: Form) -> Diagnostic {
    *Target::parse(form, text, &groups()).unwrap_err()
}

#[test]
fn globs_are_python_s() {
    for (pattern, text, fits) in [
        ("*", "", true),
        ("web*", "web1", true),
        ("web?", "web", false),
        ("*.example.*", "a.example.org", true),
        ("web[0-9]", "web5", true),
        ("web[!0-9]", "web5", false),
        ("web[^5]", "web5", true),
        ("[]]x", "]x", true),
        ("[!]]", "]", false),
        ("web[1", "web[1", true),
        ("a[", "a[", true),
        ("*a*b*c", "xaxbxbxc", true),
        ("*a*b*c", "xaxbxbx", false),
        ("Web*", "web1", false),
        ("a,b", "a", false),
        ("{a,b}", "a", false),
        ("[a-]", "-", true),
        ("[z-a]", "m", false),
        ("\\*", "*", false),
    ] {
        assert_eq!(glob(pattern, text), fits, "{pattern} on {text}");
    }
}

#[test]
fn a_glob_with_many_stars_is_decided_at_once() {
    let begun = std::time::Instant::now();
    assert!(!glob(&"*a".repeat(60), &"a".repeat(59)));
    assert!(!glob(&("a*".repeat(30) + "b"), &"a".repeat(3000)));
    assert!(begun.elapsed().as_secs() < 2);
}

#[test]
fn lists_take_commas_and_blanks_and_globs_do_not() {
    assert!(asks("web1,db1", Form::List, "db1") && asks("web1, db1", Form::List, "db1") && asks("web1 db1", Form::List, "db1"));
    assert!(!asks("web*", Form::List, "web1") && !asks("web1,db1", Form::Glob, "db1"));
}

#[test]
fn regular_expressions_fit_at_the_beginning() {
    assert!(asks("web", Form::Pcre, "web1") && asks("(web|db)\\d$", Form::Pcre, "db2"));
    assert!(!asks("eb", Form::Pcre, "web1") && !asks("Web", Form::Pcre, "web1"));
    assert!(asks("a|web", Form::Pcre, "web1") && !asks("a|eb", Form::Pcre, "web1"));
    assert!(refused("web(", Form::Pcre).summary.contains("no regular expression"));
    assert!(refused("a)|(b", Form::Pcre).summary.contains("no regular expression"));
}

#[test]
fn grains_are_followed_as_salt_does() {
    for (text, fits) in [
        ("os:Debian", true),
        ("os:debian", true),
        ("os:Deb*", true),
        ("os:RedHat", false),
        ("osmajorrelease:12", true),
        ("roles:web", true),
        ("roles:we?", true),
        ("roles:db", false),
        ("roles:0:web", true),
        ("ec2:id:i-*", true),
        // A key that exists is enough.
        ("ec2:tags", true),
        ("ec2:tags:*", true),
        ("ec2:none", false),
        // The delimiter in the value.
        ("ec2:tags:Name:a:b", true),
        ("disks:name:sda", true),
        ("disks:0:name:sda", true),
        ("disks:name:sdb", false),
        ("empty:*", false),
        ("flag:True", true),
        ("flag:true", true),
        ("nothing:*", false),
    ] {
        assert_eq!(asks(text, Form::Grain, "x"), fits, "{text}");
    }
    assert!(asks("tier:name:fr*", Form::Pillar, "x") && asks("*:name", Form::Pillar, "x") && !asks("*:back", Form::Pillar, "x"));
    assert!(asks("os:^(debian|ubuntu)$", Form::GrainPcre, "x") && !asks("os:ebian", Form::GrainPcre, "x"));
    assert!(asks("tier:name:f.+t", Form::PillarPcre, "x"));
    assert!(refused("os", Form::Grain).hint.unwrap().contains("G@os:Debian"));
}

#[test]
fn subnets_look_at_the_addresses_among_the_grains() {
    for (text, fits) in [
        ("10.1.2.3", true),
        ("10.1.0.0/16", true),
        ("10.2.0.0/16", false),
        ("0.0.0.0/0", true),
        ("10.1.2.0/255.255.255.0", true),
        ("fd00::/8", true),
        ("fd00::5", true),
        ("fd00::6", false),
        ("::/0", true),
    ] {
        assert_eq!(asks(text, Form::Ipcidr, "x"), fits, "{text}");
    }
    for text in ["10.1.2.3/16", "10.0.0.0/33", "10.0.0", "fd00::1/64", "10.0.0.0/255.0.255.0", "/8", "10.0.0.0/-1"] {
        assert_eq!(refused(text, Form::Ipcidr).code, Code::Usage, "{text}");
    }
}

#[test]
fn compounds_bind_as_python_does() {
    for (text, id, fits) in [
        ("web* or db*", "db1", true),
        ("web* and db*", "web1", false),
        ("not web*", "db1", true),
        ("web* not web2", "web2", false),
        ("web* and not web2", "web1", true),
        ("web1 or web2 and db*", "web1", true),
        ("( web1 or web2 ) and db*", "web1", false),
        ("not ( web1 or web2 )", "web1", false),
        ("not not web1", "web1", true),
        ("G@os:Debian and E@web(1|2)", "web2", true),
        ("G%@ec2%id%i-1", "x", true),
        ("I@tier:name:front and L@a,b", "b", true),
        ("S@10.1.0.0/16 and J@tier:name:f", "x", true),
        ("P@os:(Debian|Ubuntu)", "x", true),
        ("N@web and not web2", "web1", true),
        ("N@either", "db7", true),
        ("N@spaced", "web1", true),
        ("N@spaced", "db", false),
        ("N@pattern", "web3", true),
        ("N@pattern", "web2", false),
        ("X@y", "X@y", true),
        ("a@b", "a@b", true),
    ] {
        assert_eq!(asks(text, Form::Compound, id), fits, "{text} on {id}");
    }
    assert!(asks("web", Form::Nodegroup, "web2") && !asks("web", Form::Nodegroup, "web3"));
}

#[test]
fn errors_of_compounds_point_at_the_place() {
    for (text, column, part) in [
        ("web* or", 9, "ends where a host"),
        ("", 1, "ends where a host"),
        ("and web*", 1, "before this `and`"),
        ("web* db*", 6, "`and` or `or`"),
        ("( web* or db*", 1, "not closed"),
        ("web* )", 6, "closes none"),
        ("(web* or db*)", 1, "stands by itself"),
        ("( a b )", 5, "closing parenthesis"),
        ("web* and G@os", 12, "takes a key"),
        ("N@wbe", 3, "no nodegroup wbe"),
        ("E@web(", 3, "no regular expression"),
        ("R@%x", 1, "range server"),
        ("a and G@", 7, "belongs behind G@"),
        ("ä or or", 6, "before this `or`"),
    ] {
        let error = refused(text, Form::Compound);
        assert!(error.summary.contains(part) && error.summary.ends_with(&format!("(column {column})")), "{text}: {}", error.summary);
        assert_eq!(error.excerpt, Some(format!("{text}\n{}^", " ".repeat(column - 1))), "{text}");
    }
    assert_eq!(refused("N@wbe", Form::Compound).hint.as_deref(), Some("did you mean \"web\"?"));
}

#[test]
fn nodegroups_that_cannot_be_are_refused() {
    let error = refused("N@loop", Form::Compound);
    assert_eq!((error.summary.contains("contains itself"), error.detail.as_str()), (true, "loop → pool → loop"));
    assert!(refused("broken", Form::Nodegroup).summary.contains("in the nodegroup broken: the target ends"));
    assert!(refused("number", Form::Nodegroup).summary.contains("is a whole number"));
}

#[test]
fn no_depth_of_nesting_breaks_the_stack() {
    let error = refused(&("( ".repeat(100_000) + "a"), Form::Compound);
    assert!(error.summary.contains("nested too deep"));
    let error = refused(&("not ".repeat(100_000) + "a"), Form::Compound);
    assert!(error.summary.contains("nested too deep"));
}

#[test]
fn a_target_says_what_it_needs() {
    let needs = |text: &str| {
        let target = Target::parse(Form::Compound, text, &groups()).unwrap();
        (target.needs_grains(), target.needs_pillar())
    };
    assert_eq!(needs("web* or E@x"), (false, false));
    assert_eq!(needs("web* or not ( G@a:b )"), (true, false));
    assert_eq!(needs("N@spaced"), (true, false));
    assert_eq!(needs("S@10.0.0.0/8 or I@a:b"), (true, true));
}

#[test]
fn finding_none_is_told_with_what_is_near() {
    let complain = |text: &str, form, found, ids: &[&str]| Target::parse(form, text, &Map::new()).unwrap().complaint(found, ids);
    assert_eq!(complain("web1", Form::Glob, 1, &["web1"]), None);
    let none = complain("wbe1", Form::Glob, 0, &["web1", "db1"]).unwrap();
    assert_eq!((none.summary.as_str(), none.hint.as_deref()), ("no host matches \"wbe1\"", Some("did you mean \"web1\"?")));
    let far = complain("zebra*", Form::Glob, 0, &["web1", "db1"]).unwrap();
    assert_eq!(far.hint.as_deref(), Some("there are web1, db1"));
    // One name of a list that none has is an error even though others are found.
    let slip = complain("web1,bd1", Form::List, 1, &["web1", "db1"]).unwrap();
    assert_eq!((slip.summary.as_str(), slip.hint.as_deref()), ("the roster has no bd1", Some("did you mean \"db1\"?")));
}
