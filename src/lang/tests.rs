//! The language as a whole, on trees in memory. The answers are what Salt 3008.5 gave for the same trees.

use super::*;
use root::{Memory, Mount};

mod asking;

struct Everything;

impl Matcher for Everything {
    fn matches(&self, _expression: &str, _form: &str, _pillar: &Map) -> Result<bool> {
        Ok(true)
    }
}

pub(super) fn compiler(files: &[(&str, &str)]) -> Compiler {
    let tree = Memory(files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect());
    Compiler::new(Roots::base(vec![Mount { name: String::new(), tree: Arc::new(tree) }]), Roots::new(), Options::default())
}

pub(super) fn compile(compiler: &Compiler, sls: &[&str]) -> Results<Compiled> {
    let grains = Map::new();
    let host = HostInput { id: "h1", grains: &grains, pillar_override: None, answers: &[], matcher: &Everything };
    compiler.compile(&host, &What::Sls(sls.iter().map(|s| (*s).to_owned()).collect()))
}

/// `id:order`, in execution order.
fn order(text: &str) -> String {
    match compile(&compiler(&[("a.sls", text)]), &["a"]) {
        Ok(compiled) => {
            let each = |chunk: &Chunk| format!("{}:{}", chunk.text("name"), chunk.text("order"));
            compiled.chunks.iter().map(each).collect::<Vec<_>>().join(" ")
        }
        Err(errors) => errors.iter().map(|e| format!("! {e}")).collect::<Vec<_>>().join("\n"),
    }
}

#[test]
fn states_run_as_they_stand_and_requisites_come_first() {
    assert_eq!(order("b:\n  test.nop\na:\n  test.nop:\n    - require:\n      - test: c\nc: test.nop\n"), "b:10000 c:10002 a:10001");
}

fn refusals(files: &[(&str, &str)]) -> String {
    match compile(&compiler(files), &["a"]) {
        Ok(_) => "accepted".into(),
        Err(errors) => errors.iter().map(|e| format!("{e} [{}]", e.hint.as_deref().unwrap_or(""))).collect::<Vec<_>>().join("\n"),
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_all_at_once() {
    let text = "a:\n  file.managed:\n    user: root\nb:\n  pkg.installed:\nc:\n  test.nop:\n  - require: d\n    y: 2\n7: test.nop\n";
    let errors = refusals(&[("a.sls", text)]);
    let places: Vec<&str> = errors.lines().map(|line| line.split(": ").next().unwrap_or("")).collect();
    assert_eq!(places, ["a.sls:3:5", "a.sls:5:3", "a.sls:10:1", "a.sls:7:3", "a.sls:7:3"], "{errors}");
    assert!(errors.contains("[put `- ` before each argument]") && errors.contains("require of id c in SLS a is not a list"), "{errors}");
}

#[test]
fn names_that_are_not_there_get_the_nearest_one() {
    let require = "nginx:\n  pkg.installed: []\nb:\n  test.nop:\n    - require:\n      - pkg: ngnix\n";
    assert!(
        refusals(&[("a.sls", require)]).contains(
            "a.sls:6:14: require names pkg: ngnix, and there is no such state, in test.nop b of SLS a [did you mean pkg: nginx?]"
        )
    );
    let include = "include:\n  - commn.base\n";
    assert!(
        refusals(&[("a.sls", include), ("common/base.sls", "x: test.nop")])
            .contains("a.sls:2:5: there is no SLS commn.base in the environment base [did you mean common.base?]")
    );
    let twice = [("a.sls", "include: [b]\nx: test.nop\n"), ("b.sls", "x: test.nop\n")];
    assert!(refusals(&twice).contains("b.sls:1:1: the id x is in SLS a and in SLS b"));
}

#[test]
fn errors_found_late_show_their_line() {
    let errors = compile(&compiler(&[("a.sls", "# one\nx:\n  test.nop:\n    - require: [nobody]\n")]), &["a"]).unwrap_err();
    assert_eq!(errors[0].excerpt.as_deref(), Some("3 |   test.nop:\n4 |     - require: [nobody]\n  |                 ^"));
}

#[test]
fn includes_that_never_end_are_refused_in_time() {
    let names: Vec<(String, String)> = (0..400).map(|i| (format!("s{i}.sls"), format!("include: [s{}]\n", i + 1))).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let errors = compile(&compiler(&files), &["s0"]).unwrap_err();
    assert!(errors[0].summary.contains("include each other in one line"), "{}", errors[0]);
}

#[test]
fn a_circle_is_printed_whole() {
    let text = "a:\n  test.nop:\n    - require: [{test: c}]\nb:\n  test.nop:\n    - watch: [{test: a}]\nc:\n  test.nop:\n    - onchanges: [{test: b}]\nd: test.nop\n";
    let errors = compile(&compiler(&[("a.sls", text)]), &["a"]).unwrap_err();
    assert_eq!(errors[0].summary, "3 states wait for each other in a circle");
    let lines: Vec<u32> = errors[0].related.iter().map(|(span, _)| span.line).collect();
    assert_eq!(lines, [4, 7, 1]);
    let told: Vec<&str> = errors[0].related.iter().map(|(_, why)| why.as_str()).collect();
    assert_eq!(
        told,
        [
            "test.nop b waits for test.nop a (watch)",
            "test.nop c waits for test.nop b (onchanges)",
            "test.nop a waits for test.nop c (require)"
        ]
    );
}

#[test]
fn a_state_that_waits_for_itself_is_told_how_to_name_the_others() {
    let refused = |text: &str| {
        let error = compile(&compiler(&[("a.sls", text)]), &["a"]).unwrap_err().remove(0);
        assert!(error.summary.ends_with(" waits for itself"), "{error}");
        format!("{}; {}", error.detail, error.hint.unwrap_or_default())
    };
    let alone = refused("a:\n  test.nop:\n    - onchanges: [a]\n");
    assert!(alone.contains("`a` means every state of that id or name") && alone.contains("take it away"), "{alone}");
    let shared =
        "a:\n  test.nop:\n    - name: x\nb:\n  test.nop:\n    - name: x\nc:\n  test.nop:\n    - name: x\n    - require: [{test: x}]\n";
    assert!(refused(shared).ends_with("one by one, such as `test: a`, `test: b`"), "{}", refused(shared));
    // The other has the same id: its name alone is its own.
    let named = "a:\n  test.nop:\n    - names: [x, y: [{require: [{test: a}]}]]\n";
    assert!(refused(named).ends_with("by its name: `test: x`"), "{}", refused(named));
    let fits = refused("b:\n  test.nop:\n    - watch: [{test: '*'}]\na: test.nop\n");
    assert!(fits.contains("every test state whose id or name fits") && fits.ends_with("`test: a`"), "{fits}");
}

#[test]
fn lows_name_each_other_by_index() {
    let text = "a:\n  cmd.run:\n    - unless: test -e /a\n    - retry: {attempts: 3}\n    - prereq: [{test: c}]\n    - listen: [{test: b}]\n    - runas: me\n\
                b:\n  test.nop:\n    - onfail: [{cmd: a}]\n    - require_any: [{cmd: a}, {test: c}]\nc:\n  test.nop:\n    - order: last\n";
    let compiled = compile(&compiler(&[("a.sls", text)]), &["a"]).unwrap();
    let ids: Vec<&str> = compiled.lows.iter().map(|low| low.id.as_str()).collect();
    assert_eq!((ids, compiled.chunks.len()), (vec!["a", "c", "b"], 4));
    let told = |index: usize| {
        let requisites = compiled.lows[index].requisites.iter();
        requisites.map(|r| format!("{:?} {} {:?}", r.kind, r.any, r.of.iter().collect::<Vec<_>>())).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(
        (told(0).as_str(), told(1).as_str(), told(2).as_str()),
        ("Prereq false [1], Listen false [2]", "", "Require true [0, 1], Onfail true [0]")
    );
    let low = &compiled.lows[0];
    assert_eq!(serde_json::to_string(&low.args).unwrap(), r#"{"name":"a","runas":"me"}"#);
    assert_eq!((low.control.unless.len(), low.control.retry.as_ref().map(|r| (r.attempts, r.interval))), (1, Some((3, 30))));
}

#[test]
fn contents_come_from_the_tree_the_pillar_and_the_grains() {
    let text = "/a:\n  file.managed:\n    - source: [salt://none, salt://files/a]\n/b:\n  file.managed:\n    - contents_pillar: [k:x, k:y]\n\
                /c:\n  file.managed:\n    - contents: |\n        one\n        two\n    - contents_newline: false\n\
                /d:\n  file.recurse:\n    - source: salt://files\n    - exclude_pat: E@^b\n/e:\n  file.managed:\n    - source: https://example.com/e\n    - source_hash: salt://files/sums\n";
    let files = [("a.sls", text), ("files/a", "A"), ("files/sub/c", "C"), ("files/b", "B"), ("files/sums", "sha256=1")];
    let compiler = compiler(&files);
    let (grains, pillar) = (Map::new(), serde_json::from_str::<Map>(r#"{"k": {"x": "1", "y": 2}}"#).unwrap());
    let host = HostInput { id: "h1", grains: &grains, pillar_override: Some(&pillar), answers: &[], matcher: &Everything };
    let compiled = compiler.compile(&host, &What::Sls(vec!["a".into()])).unwrap();
    let told = |index: usize| {
        let texts = compiled.lows[index].contents.iter();
        texts.map(|c| format!("{}={}", c.name, String::from_utf8_lossy(&compiled.blobs[&c.hash]))).collect::<Vec<_>>()
    };
    assert_eq!(
        (told(0), told(1), told(2)),
        (vec!["source=A".to_owned()], vec!["contents=1\n2\n".into()], vec!["contents=one\ntwo".into()])
    );
    assert_eq!(told(3), ["a=A", "sub/c=C", "sums=sha256=1"]);
    assert!(compiled.lows[1].contents[0].secret);
    let remote = &compiled.remote[0];
    assert_eq!((remote.low, remote.url.as_str(), remote.hashes.as_deref()), (4, "https://example.com/e", Some("sha256=1")));
}

#[test]
fn a_source_that_is_not_there_names_the_nearest() {
    let text = "/a:\n  file.managed:\n    - source: salt://files/motdd\n";
    assert!(
        refusals(&[("a.sls", text), ("files/motd", "")])
            .contains("a.sls:3:15: file.managed /a names salt://files/motdd, and there is no such file [did you mean salt://files/motd?]")
    );
}

/// Small trees, cut and stirred: whatever comes, there is an answer.
#[test]
fn no_sls_makes_it_panic() {
    let seeds = [
        "include:\n  - .b\n  - base: c\nx:\n  file.managed:\n    - name: /x\n    - require:\n      - pkg: y\n    - watch_in: [{service: z}]\ny: pkg.installed\nz:\n  service.running:\n    - names: [a, {b: [{x: 1}]}]\n    - order: last\n",
        "extend:\n  x:\n    file:\n      - user: me\n      - require: [{sls: 'a*'}]\nexclude: [{id: y}, b]\nw:\n  cmd.run:\n    - prereq: [x]\n    - use: [{file: x}]\n    - listen_in: [z]\n    - retry: true\n    - order: -1\n",
        "#!yaml|json\n{\"a\": {\"test.nop\": [{\"require\": [{\"sls\": \"b\"}]}]}}\n",
    ];
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut next = |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % n.max(1) as u64) as usize
    };
    let bits = [
        "[",
        "]",
        "{",
        "}",
        ": ",
        "- ",
        "\n",
        "  ",
        "null",
        "names",
        "require",
        "order",
        "x",
        "b",
        "*",
        "1",
        "sls",
        "extend:\n",
        "name",
        "use_in",
        "'",
        "__",
    ];
    for _ in 0..1_500 {
        let mut files = Vec::new();
        for (name, seed) in ["a.sls", "b/init.sls", "c.sls"].into_iter().zip(0..) {
            let mut text: Vec<char> = seeds[(seed + next(2)) % seeds.len()].chars().collect();
            for _ in 0..next(4) {
                let at = next(text.len());
                match next(3) {
                    0 => drop(text.drain(at..(at + next(8)).min(text.len()))),
                    1 => text.splice(at..at, bits[next(bits.len())].chars()).for_each(drop),
                    _ => text.truncate(text.len() - next(10)),
                }
            }
            files.push((name, text.into_iter().collect::<String>()));
        }
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
        for error in compile(&compiler(&files), &["a"]).err().unwrap_or_default() {
            assert!(!error.summary.is_empty());
        }
    }
}

/// A host with this pillar and these answers.
fn with(files: &[(&str, &str)], pillar: &str, answers: &[(Call, Answer)]) -> Results<Compiled> {
    let (grains, pillar) = (Map::new(), serde_json::from_str::<Map>(pillar).unwrap());
    let host = HostInput { id: "h1", grains: &grains, pillar_override: Some(&pillar), answers, matcher: &Everything };
    compiler(files).compile(&host, &What::Sls(vec!["a".into()]))
}

#[test]
fn calls_for_the_host_are_collected_over_all_sls_and_then_answered() {
    let files = [
        ("a.sls", "include: [b]\n{% if salt['cmd.run']('uname') == 'Linux' %}\nx: test.nop\n{% endif %}\n"),
        ("b.sls", "{% set there = salt['file.file_exists']('/b') %}\nb{{ there }}: test.nop\n"),
    ];
    // What `a` asks is not known, so that what it includes is not either: it takes a second round.
    let first = with(&files, "{}", &[]).unwrap();
    assert_eq!((first.missing.len(), first.lows.len()), (1, 0));
    let mut answers = vec![(first.missing[0].clone(), Answer::Value(Value::str("Linux")))];
    let second = with(&files, "{}", &answers).unwrap();
    assert_eq!(second.missing.iter().map(|call| call.function.as_str()).collect::<Vec<_>>(), ["file.file_exists"]);
    answers.push((second.missing[0].clone(), Answer::Value(Value::Bool(true))));
    let third = with(&files, "{}", &answers).unwrap();
    assert_eq!(third.lows.iter().map(|low| low.id.as_str()).collect::<Vec<_>>(), ["bTrue", "x"]);
}

#[test]
fn errors_in_what_a_template_made_name_the_template() {
    let yaml = "{% set x = 1 %}\n{% for i in [1, 2] %}\nid{{ i }}:\n  test.nop:\n    - a: {{ i }}\n     - b: 1\n{% endfor %}\n";
    let refused = refusals(&[("a.sls", yaml)]);
    assert!(refused.starts_with("a.sls:6"), "{refused}");
    let twice = "{% for i in [1, 2] %}\nsame:\n  test.nop: []\n{% endfor %}\n";
    assert!(refusals(&[("a.sls", twice)]).starts_with("a.sls:2:1: the key \"same\" is there twice"));
    let missing = "{% for i in [1] %}\nx{{ i }}:\n  test.nop:\n    - require: [{test: y}]\n{% endfor %}\n";
    assert!(refusals(&[("a.sls", missing)]).starts_with("a.sls:4:24: require names test: y"), "{}", refusals(&[("a.sls", missing)]));
    assert!(refusals(&[("a.sls", "x: test.nop\n{{ nope }}\n")]).starts_with("a.sls:2"));
}

#[test]
fn an_sls_that_a_top_file_names_and_that_is_not_there_is_refused_where_it_is_named() {
    let top = [("top.sls", "base:\n  '*':\n    - match: glob\n    - {{ 'nope' }}\n")];
    let grains = Map::new();
    let host = HostInput { id: "h1", grains: &grains, pillar_override: None, answers: &[], matcher: &Everything };
    let states = set(&top, &[], "{}").chunks(&host, &What::Highstate).found.unwrap_err();
    assert_eq!(states[0].to_string(), "top.sls:4:7: there is no SLS nope in the environment base");
    let pillar = set(&[], &top, "{}").pillar_data(&host).found.unwrap_err();
    assert_eq!(pillar[0].to_string(), "top.sls:4:7: there is no pillar SLS nope in the environment base");
}

#[test]
fn what_is_not_there_has_no_items() {
    let text = "{% for a, b in pillar.users|items %}\n{{ a }}: test.nop\n{% endfor %}\nx: test.nop\n";
    assert_eq!(compile(&compiler(&[("a.sls", text)]), &["a"]).unwrap().lows.len(), 1);
}

#[test]
fn templates_of_sources_see_context_over_defaults_and_the_pillar() {
    let files = [
        (
            "a.sls",
            "/etc/x:\n  file.managed:\n    - source: salt://a/x.j2\n    - template: jinja\n    - user: me\n    - context: {who: you}\n    - defaults: {who: nobody, n: 1}\n",
        ),
        ("a/x.j2", "{{ who }} {{ n }} {{ user }} {{ name }} {{ pillar.k }} {{ salt['pillar.get']('k') }}\n"),
    ];
    let compiled = with(&files, r#"{"k": "v"}"#, &[]).unwrap();
    let content = &compiled.lows[0].contents[0];
    assert_eq!(String::from_utf8_lossy(&compiled.blobs[&content.hash]), "you 1 me /etc/x v v\n");
    let broken = [files[0], ("a/x.j2", "one\n{{ who.x.y }}\n")];
    assert!(with(&broken, "{}", &[]).unwrap_err()[0].to_string().starts_with("a/x.j2:2"));
}

/// The compiler of trees for states and pillar with these settings.
fn set(states: &[(&str, &str)], pillar: &[(&str, &str)], settings: &str) -> Compiler {
    let roots = |files: &[(&str, &str)]| {
        let tree = Memory(files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect());
        Roots::base(vec![Mount { name: String::new(), tree: Arc::new(tree) }])
    };
    let master = serde_json::from_str(settings).unwrap();
    Compiler::new(roots(states), roots(pillar), Options { master, ..Options::default() })
}

#[test]
fn jinja_is_set_for_sls_and_for_other_templates_apart_and_reaches_imports() {
    let imported = "{% macro m() %}\n  {% if true %}\n  one\n  {% endif %}\ntwo\n{% endmacro %}\n";
    let body = "{% from 'm.jinja' import m %}\n{% set own %}\n  {% if true %}\n  one\n  {% endif %}\n{% endset %}\n\
                a:\n  test.nop:\n    - both: {{ [own, m()] | json }}\n/f:\n  file.managed:\n    - source: salt://f\n    - template: jinja\n";
    let header = format!("#jinja2: {{\"trim_blocks\": true, \"lstrip_blocks\": true}}\n{body}");
    let both = |settings: &str, sls: &str| {
        let compiler = set(&[("a.sls", sls), ("m.jinja", imported), ("f", "  {% if true %}\nf\n{% endif %}\n")], &[], settings);
        let compiled = compile(&compiler, &["a"]).unwrap();
        let file = &compiled.blobs[&compiled.lows[1].contents[0].hash];
        format!("{} {:?}", compiled.lows[0].args.get("both").unwrap(), String::from_utf8_lossy(file))
    };
    let (as_it_is, stripped) = (r#"["\n  \n  one\n  \n","\n  \n  one\n  \ntwo\n"]"#, r#"["  one\n","  one\ntwo\n"]"#);
    assert_eq!(both("{}", body), format!(r#"{as_it_is} "  \nf\n\n""#));
    let all = r#"{"trim_blocks": true, "LSTRIP_BLOCKS": true}"#;
    assert_eq!(both(&format!(r#"{{"jinja_sls_env": {all}}}"#), body), format!(r#"{stripped} "  \nf\n\n""#));
    assert_eq!(both(&format!(r#"{{"jinja_env": {all}}}"#), body), format!(r#"{as_it_is} "f\n\n""#));
    assert_eq!(both(r#"{"jinja_trim_blocks": true}"#, body), r#"["    one\n  ","    one\n  two\n"] "  f\n\n""#);
    assert_eq!(both("{}", &header), format!(r#"{stripped} "  \nf\n\n""#));
}

#[test]
fn pillar_is_merged_in_every_way_that_salt_has() {
    let files = [
        ("top.sls", "base: {'*': [a, b]}\n"),
        ("a.sls", "k: {x: 1, l: [1]}\nl: [1, 2]\ns: 1\nonly_a: 1\n"),
        ("b.sls", "k: {y: 2, l: [2]}\nl: [2, 3]\ns: 2\nonly_b: 1\n"),
    ];
    let merged = |strategy: &str, lists: bool, over: &str| {
        let settings = format!(r#"{{"pillar_source_merging_strategy": "{strategy}", "pillar_merge_lists": {lists}}}"#);
        let (grains, over) = (Map::new(), serde_json::from_str(over).unwrap());
        let host = HostInput { id: "h1", grains: &grains, pillar_override: Some(&over), answers: &[], matcher: &Everything };
        set(&[], &files, &settings).pillar_data(&host).found.map(|pillar| Value::Map(pillar).to_string()).map_err(|e| e[0].to_string())
    };
    let recursive = r#"{"k":{"x":1,"l":[2],"y":2},"l":[2,3],"s":2,"only_a":1,"only_b":1}"#;
    let joined = r#"{"k":{"x":1,"l":[1,2],"y":2},"l":[1,2,3],"s":2,"only_a":1,"only_b":1}"#;
    let replaced = r#"{"k":{"y":2,"l":[2]},"l":[2,3],"s":2,"only_a":1,"only_b":1}"#;
    for (strategy, plain, lists) in [
        ("smart", recursive, joined),
        ("recurse", recursive, joined),
        ("none", recursive, recursive),
        ("overwrite", replaced, replaced),
        ("aggregate", replaced, replaced),
        ("list", "{}", "{}"),
    ] {
        assert_eq!(merged(strategy, false, "{}").as_deref(), Ok(plain), "{strategy}");
        assert_eq!(merged(strategy, true, "{}").as_deref(), Ok(lists), "{strategy} with lists");
    }
    assert_eq!(merged("list", false, r#"{"s": 0}"#).as_deref(), Ok(r#"{"s":[[[0,1],2],0]}"#));
    assert!(merged("smrt", false, "{}").unwrap_err().contains("smrt"));
}

#[test]
fn templates_match_targets_with_their_own_host() {
    let calls = [
        ("match.compound('G@os:Debian and not web*')", "true"),
        ("match.compound('G@os:Debian and web*', 'web1')", "true"),
        ("match.compound('I@role:web and ( nope or')", "false"),
        ("match.compound('N@us')", "true"),
        ("match.grain('os:Deb*')", "true"),
        ("match.grain('os|Deb*', '|')", "true"),
        ("match.grain('nothing')", "false"),
        ("match.grain_pcre('os:^Deb')", "true"),
        ("match.pcre('mini.*')", "true"),
        ("match.pcre('(')", "false"),
        ("match.list('a,minion1,b')", "true"),
        ("match.list(['minion1'])", "true"),
        ("match.glob('min*')", "true"),
        ("match.pillar('role:w*')", "true"),
        ("match.filter_by({'x*': 1, 'G@os:Debian': {'a': 1}}, merge={'b': 2})", r#"{"a":1,"b":2}"#),
        ("match.filter_by({'x*': 1, 'default': 3}, merge={'b': 2})", "3"),
        ("match.filter_by({'web1': 1}, tgt_type='list_', minion_id='web1')", "1"),
        ("match.search_by({'x': ['min*', 'G@os:Debian'], 'y': ['x*']})", r#"["x","x"]"#),
        ("match.search_by({'y': ['x*']})", "null"),
        ("match.ifelse('x*', 1, True, 2, 3)", "2"),
        ("match.ifelse('x*', 1, False, 2, 3)", "3"),
    ];
    let (grains, pillar) = (r#"{"id": "minion1", "os": "Debian"}"#, r#"{"role": "web"}"#);
    let (grains, pillar): (Map, Map) = (serde_json::from_str(grains).unwrap(), serde_json::from_str(pillar).unwrap());
    for (call, expected) in calls {
        let (name, arguments) = call.split_once('(').unwrap();
        let sls = format!("a:\n  test.nop:\n    - r: {{{{ salt['{name}']({arguments} | json }}}}\n");
        let compiler = set(&[("a.sls", &sls)], &[], r#"{"nodegroups": {"us": "minion*"}}"#);
        let host = HostInput { id: "minion1", grains: &grains, pillar_override: Some(&pillar), answers: &[], matcher: &Everything };
        let compiled = compiler.compile(&host, &What::Sls(vec!["a".into()])).unwrap();
        assert_eq!(serde_json::to_string(compiled.lows[0].args.get("r").unwrap()).unwrap(), expected, "{call}");
    }
}

#[test]
fn a_file_that_salt_would_decrypt_is_taken_where_nothing_in_it_is_encrypted() {
    assert_eq!(order("#!jinja|yaml|gpg\na: test.nop\n"), "a:10000");
    let encrypted = "#!yaml|gpg\na:\n  test.nop:\n    - x: |\n        -----BEGIN PGP MESSAGE-----\n";
    assert!(order(encrypted).contains("a.sls:4:10: an encrypted message"), "{}", order(encrypted));
}

#[test]
fn keys_of_package_sources_come_by_address_or_from_a_key_server() {
    let sls = "a:\n  pkgrepo.managed:\n    - name: deb http://x a\n    - key_url: https://x/k.asc\n
b:\n  pkgrepo.managed:\n    - name: deb http://y a\n    - keyid: [12345678, 0xABCDEF01, 'abcd ef02']\n    - keyserver: hkp://k.org:80\n
c:\n  pkgrepo.managed:\n    - name: deb http://z a\n    - key_url: salt://k\n
d:\n  pkgrepo.managed:\n    - name: deb http://z a\n    - keyid: ABCDEF01\n    - keyserver: k.org\n";
    let compiled = with(&[("a.sls", sls), ("k", "a key")], "{}", &[]).unwrap();
    let remote: Vec<(&str, &str)> = compiled.remote.iter().map(|r| (r.name.as_str(), r.url.as_str())).collect();
    assert_eq!(
        remote,
        [
            ("key_url", "https://x/k.asc"),
            ("keyid:0", "http://k.org:80/pks/lookup?op=get&options=mr&search=0x12345678"),
            ("keyid:1", "http://k.org:80/pks/lookup?op=get&options=mr&search=0xABCDEF01"),
            ("keyid:2", "http://k.org:80/pks/lookup?op=get&options=mr&search=0xABCDEF02"),
            ("keyid:0", "https://k.org/pks/lookup?op=get&options=mr&search=0xABCDEF01"),
        ]
    );
    assert!(compiled.remote.iter().all(|r| r.skip_verify && r.source_hash.is_none()));
    assert_eq!(compiled.lows[2].contents[0].name, "key_url");
}

#[test]
fn what_is_accumulated_reaches_the_templates_of_its_file() {
    let sls = "one:\n  file.accumulated:\n    - filename: /etc/f\n    - text: [a, b, a]\n    - require_in: [{file: it}]\n
two:\n  file.accumulated:\n    - name: one\n    - filename: /etc/f\n    - text: c\n    - require_in: [{file: it}]\n
it:\n  file.managed:\n    - name: /etc/f\n    - source: salt://t\n    - template: jinja\n
block:\n  file.blockreplace:\n    - name: /etc/f\n    - content: own\n    - require: [{file: it}]\n";
    let compiled = with(&[("a.sls", sls), ("t", "{{ accumulator['one'] | join(',') }}")], "{}", &[]).unwrap();
    let it = compiled.lows.iter().find(|low| low.fun == "managed").unwrap();
    assert_eq!(&*compiled.blobs[&it.contents[0].hash], b"a,b,c");
    let block = compiled.lows.iter().find(|low| low.fun == "blockreplace").unwrap();
    assert_eq!(block.args.get("content").unwrap(), &Value::str("own\na\nb\nc"));
}
