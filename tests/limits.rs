//! Templates, YAML and names of files that mean harm: each ends with an error that has its place, in bounded time and memory, and no file
//! outside of the roots is ever read.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use basalt::budget::Allowance;
use basalt::diagnostic::Diagnostic;
use basalt::lang::jinja::Limits;
use basalt::lang::root::{Directory, Memory, Mount, Roots, Tree};
use basalt::lang::{Compiler, HostInput, Matcher, Options, What};
use basalt::value::Map;

struct Everything;

impl Matcher for Everything {
    fn matches(&self, _: &str, _: &str, _: &Map) -> basalt::diagnostic::Result<bool> {
        Ok(true)
    }
}

const SMALL: Limits =
    Limits { fuel: 2_000_000, recursion: 1500, output: 8 << 20, allowance: Allowance { memory: 128 << 20, time: 20, values: 500_000 } };

fn roots(files: &[(&str, String)]) -> Roots {
    let files = Memory(files.iter().map(|(path, text)| ((*path).to_owned(), text.clone().into_bytes())).collect());
    Roots::base(vec![Mount { name: String::new(), tree: Arc::new(files) as Arc<dyn Tree> }])
}

/// What compiling `a` gives of these files, of which those below `pillar/` are pillar; and how long it took.
fn compile(files: &[(&str, String)], limits: Limits) -> (Result<usize, Vec<Diagnostic>>, Duration) {
    let pillar: Vec<(&str, String)> = files.iter().filter_map(|(path, text)| Some((path.strip_prefix("pillar/")?, text.clone()))).collect();
    let compiler = Compiler::new(roots(files), roots(&pillar), Options { limits, ..Options::default() });
    let grains = Map::new();
    let host = HostInput { id: "h1", grains: &grains, pillar_override: None, answers: &[], matcher: &Everything };
    let began = spent();
    let result = compiler.compile(&host, &What::Sls(vec!["a".into()])).map(|compiled| compiled.lows.len());
    (result, spent() - began)
}

/// The processor's time that this thread took so far: other tests take none of it.
fn spent() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

/// What the process has ever held, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() >> 10
}

/// Every one is refused with a word of its own, at a place, in time, without much memory.
#[track_caller]
fn refused(cases: &[(&str, &str)]) {
    let mut wrong = Vec::new();
    for (text, word) in cases {
        let shown: String = text.chars().skip(text.len().saturating_sub(100)).collect();
        eprintln!("{shown}");
        let (result, took) = compile(&[("a.sls", (*text).to_owned())], SMALL);
        match result {
            Ok(_) => wrong.push(format!("accepted: {shown}")),
            Err(errors) => {
                let error = &errors[0];
                let placed = error.span.as_ref().is_some_and(|span| span.line > 0 && &*span.file == "a.sls");
                if !placed || !word.split('|').any(|word| error.summary.contains(word)) {
                    wrong.push(format!("{word}: {shown}: {error}"));
                }
            }
        }
        if took > Duration::from_secs(60) || peak() > 1500 {
            wrong.push(format!("{shown} took {took:?}, {} MiB", peak()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A value of 2^50 parts that takes a few hundred bytes.
const SHARED: &str = "{% set ns = namespace(x=['a'], y=['a'], t=('a',)) %}{% for i in range(50) %}{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% set ns.t = (ns.t, ns.t) %}{% endfor %}";

#[test]
fn steps_come_to_an_end() {
    refused(&[
        ("{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}", "too many steps"),
        ("x:\n{% for a in range(90000) %}{% for b in range(90000) %}{% set c = a * b %}{% endfor %}{% endfor %}", "too many steps"),
        ("{% macro f(n) %}{% for i in range(9) %}{{ f(n + 1) if n < 90 }}{% endfor %}{% endmacro %}{{ f(0) }}", "too many steps"),
    ]);
}

#[test]
fn depth_comes_to_an_end() {
    refused(&[
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        (
            "{% macro f() %}{{ caller() }}{% endmacro %}{% macro g() %}{% call f() %}{{ g() }}{% endcall %}{% endmacro %}{{ g() }}",
            "recursion",
        ),
        ("{% include 'a.sls' %}", "recursion"),
        ("{% import 'a.sls' as x %}", "recursion"),
        ("{% from 'a.sls' import x with context %}", "recursion"),
        ("{{ salt['slsutil.renderer']('salt://a.sls') }}", "nested too deeply"),
    ]);
}

/// What is nested in the text itself ends before the stack does.
#[test]
fn what_is_nested_deeply_is_refused_while_it_is_read() {
    let many = |text: &str| text.repeat(50_000);
    for (text, word) in [
        (format!("x: {{{{ {}1{} }}}}", many("("), many(")")), "too deeply"),
        (format!("x: {{{{ {}1{} }}}}", many("["), many("]")), "too deeply"),
        (format!("x: {{{{ {}1{} }}}}", many("{1:"), many("}")), "too deeply"),
        (format!("x: {{{{ {}1 }}}}", many("not ")), "too deeply"),
        (format!("x: {{{{ {}1 }}}}", many("- ")), "too deeply"),
        (format!("x: {{{{ 1{} }}}}", many(" + 1")), "too long"),
        (format!("x: {{{{ 1{} }}}}", many(" ** 1")), "too long"),
        (format!("x: {{{{ a{} }}}}", many(".b")), "too long"),
        (format!("x: {{{{ a{} }}}}", many("[0]")), "too long"),
        (format!("x: {{{{ a{} }}}}", many("()")), "too long"),
        (format!("x: {{{{ 'a'{} }}}}", many("|upper")), "too long"),
        (format!("x: {{{{ 1{} }}}}", many(" and 1")), "too long"),
        (format!("x: {{{{ 1{} }}}}", many(" or 1")), "too long"),
        (format!("x: {{{{ 1{} }}}}", many(" if 1")), "too long"),
        (format!("x: {{{{ 1{} }}}}", many(" is defined")), "chain multiple tests"),
        (format!("x: {{{{ 1{} }}}}", many(" if 1 else 1")), "too"),
        (format!("{}{}", many("{% if 1 %}"), many("{% endif %}")), "too deeply"),
        (format!("{}{}", many("{% for a in b %}"), many("{% endfor %}")), "too deeply"),
        (format!("{{% if 0 %}}{}{{% endif %}}", many("{% elif 0 %}")), "too many branches"),
        (format!("x: {}{}", many("["), many("]")), "deep"),
        (format!("x: {}1{}", many("{a: "), many("}")), "deep"),
        (many("- "), "deep"),
        (many("? "), "deep"),
        (format!("#!json\n{}", many("[")), "recursion"),
        (format!("#!jinja|json\n{}", many("{\"a\": ")), "recursion"),
    ] {
        refused(&[(text.as_str(), word)]);
    }
    // Long is not deep.
    let long = format!("x:\n  test.nop:\n    - name: {{{{ {}'a' }}}}\n", "'a' ~ ".repeat(2000));
    assert_eq!(compile(&[("a.sls", long)], SMALL).0.unwrap(), 1);
}

#[test]
fn values_stay_below_their_size() {
    refused(&[
        (
            "{% set ns = namespace(x='x' * 1000) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
            "larger than|MiB of memory",
        ),
        (
            "{% set ns = namespace(x='x' * 1000) %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
            "larger than|MiB of memory",
        ),
        ("{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}", "larger than|MiB of memory"),
        ("{% set x = [1] %}{% for i in range(99) %}{% do x.extend(x) %}{% endfor %}", "larger than|MiB of memory"),
        ("x: {{ range(10 ** 9) }}", "Range too big"),
        ("x: {{ 'a' * 10 ** 9 }}", "larger than|MiB of memory"),
        ("x: {{ [1] * 10 ** 9 }}", "larger than|MiB of memory"),
        ("x: {{ (1,) * 10 ** 9 }}", "larger than|MiB of memory"),
        ("x: {{ 9 ** 9 ** 9 }}", "too large"),
        ("x: {{ '%1000000000d' % 1 }}", "too big"),
        ("x: {{ '%*d' % (1000000000, 1) }}", "too big"),
        ("x: {{ '%.1000000000f' % 1 }}", "too big"),
        ("x: {{ '{:1000000000}'.format(1) }}", "too big"),
        ("x: {{ '{:.1000000000f}'.format(1.0) }}", "too big"),
        ("x: {{ '{:{}}'.format(1, 1000000000) }}", "too big"),
        ("x: {{ 'a'.ljust(10 ** 9) }}", "larger than|MiB of memory"),
        ("x: {{ 'a'.zfill(10 ** 9) }}", "larger than|MiB of memory"),
        ("x: {{ 'a'|center(10 ** 9) }}", "larger than|MiB of memory"),
        ("x: {{ 'a'|indent(10 ** 9) }}", "larger than|MiB of memory"),
        ("x: {{ ('a' * 10 ** 6).replace('a', 'b' * 10 ** 6) }}", "larger than|MiB of memory"),
        ("x: {{ ('a' * 10 ** 6)|replace('', 'b' * 10 ** 6) }}", "larger than|MiB of memory"),
        ("x: {{ ('a' * 10 ** 6)|regex_replace('a', 'b' * 10 ** 6) }}", "larger than|MiB of memory"),
        ("x: {{ ('a' * 10 ** 6)|regex_replace('^(.*)$', '\\\\1' * 1000) }}", "larger than|MiB of memory"),
        ("x: {{ ('b' * 10 ** 6).join('a' * 10 ** 6) }}", "larger than|MiB of memory"),
        ("x: {{ range(100000)|join('b' * 10 ** 6) }}", "larger than|MiB of memory"),
        ("x: {{ ('a ' * 10 ** 5)|wordwrap(2, wrapstring='b' * 10 ** 6) }}", "larger than|MiB of memory"),
        ("x: {{ ('\\t' * 10 ** 6).expandtabs(1000) }}", "larger than|MiB of memory"),
        ("x: {{ [1]|batch(10 ** 9, 0) }}", "larger than|MiB of memory"),
        ("x: {{ range(99999)|product(range(99999)) }}", "larger than|MiB of memory"),
        ("x: {{ range(99)|permutations(99) }}", "larger than|MiB of memory"),
        ("x: {{ range(99)|combinations(50) }}", "larger than|MiB of memory"),
        ("x: {{ ['a' * 10 ** 6] * 60 }}", "output is larger"),
        ("{% for i in range(1000) %}{{ 'a' * 10 ** 5 }}{% endfor %}", "output is larger"),
    ]);
}

#[test]
fn memory_is_not_filled_bit_by_bit() {
    refused(&[
        ("{% set l = [] %}{% for i in range(9999) %}{% do l.append('a' * 10 ** 6 ~ i) %}{% endfor %}", "MiB of memory"),
        ("{% set d = {} %}{% for i in range(9999) %}{% do d.update({i: [i] * 10 ** 5}) %}{% endfor %}", "MiB of memory"),
        (
            "{% set ns = namespace(s='a' * 10 ** 6) %}{% for i in range(99) %}{% set s %}{{ ns.s }}{{ ns.s }}{% endset %}{% set ns.s = s %}{% endfor %}",
            "MiB of memory",
        ),
        ("{% set x %}{% for i in range(99999) %}{{ 'a' * 10 ** 6 }}{% endfor %}{% endset %}", "MiB of memory"),
        ("{% macro f() %}{% for i in range(99999) %}{{ 'a' * 10 ** 6 }}{% endfor %}{% endmacro %}{% set x = f() %}", "MiB of memory"),
        ("{% set l = [] %}{% for i in range(9999) %}{% do l.append(range(20000)|map('string')|list) %}{% endfor %}", "MiB of memory"),
    ]);
}

#[test]
fn values_that_hold_themselves_many_times_stay_small() {
    for (what, word) in [
        ("{{ ns.x }}", "too many values"),
        ("{{ ns.t }}", "too many values"),
        ("{{ ns.x|tojson }}", "too many values"),
        ("{{ ns.x|string|length }}", "too many values"),
        ("{{ ns.x == ns.y }}", "too many values"),
        ("{{ {ns.t: 1} }}", "too many values"),
        ("{{ ns.x|flatten }}", "too many values"),
        ("{{ ns.x in [ns.y] }}", "too many values"),
        ("{{ [ns.x, ns.y]|unique|list|length }}", "too many values"),
        ("{{ [ns.x, ns.y]|sort|length }}", "too many values"),
        ("{{ '%s' % ns.x }}", "too many values"),
        ("{{ '{}'.format(ns.x) }}", "too many values"),
        ("{{ ns.x ~ '' }}", "too many values"),
        ("{{ salt['slsutil.merge']({'a': ns.x}, {'a': ns.x}) }}", "too many values"),
        ("{{ salt['hashutil.digest'](ns.x) }}", "too many values"),
        ("{% for i in [ns.x, ns.y] %}{{ loop.changed(i) }}{% endfor %}", "too many values"),
    ] {
        refused(&[(&format!("{SHARED}x: {what}"), word)]);
    }
}

#[test]
fn long_work_ends_too() {
    let limits = Limits { allowance: Allowance { time: 1, ..SMALL.allowance }, fuel: u64::MAX / 2, ..SMALL };
    for text in [
        "{% set s = 'a' * 10 ** 7 %}{% for i in range(99999) %}{% if 'b' in s %}{% endif %}{% endfor %}",
        "{% set s = 'a' * 10 ** 6 %}{% for i in range(99999) %}{% if s|regex_search('(a|b)*c') %}{% endif %}{% endfor %}",
        "{% set l = range(100000)|list %}{% for i in range(99999) %}{% if -1 in l %}{% endif %}{% endfor %}",
        "{% set l = range(20000)|map('string')|list %}{% set m = [] %}{% for i in l %}{% do m.append([i]) %}{% endfor %}{{ m|unique|list|length }}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    ] {
        let (result, took) = compile(&[("a.sls", text.to_owned())], limits);
        let error = result.err().unwrap_or_else(|| panic!("accepted: {text}")).remove(0);
        assert!(["more than 1 seconds", "too many values"].iter().any(|w| error.summary.contains(w)), "{text}: {error}");
        assert!(error.span.is_some() && took < Duration::from_secs(30), "{text}: {error} after {took:?}");
    }
}

#[test]
fn patterns_do_not_explode() {
    refused(&[
        ("x: {{ ('a' * 60)|regex_search('(?:(?=a)(a+))+b') }}", "pattern"),
        ("x: {{ ('a' * 5000)|regex_search('(a*)*(a*)*(a*)*\\\\1b') }}", "pattern"),
        ("x: {{ 'a'|regex_search('((a{1,1000}){1,1000}){1,1000}') }}", "cannot be read"),
        ("x: {{ 'a'|regex_search('(' * 5000) }}", "cannot be read"),
    ]);
}

#[test]
fn yaml_unfolds_only_so_far() {
    let laughs: String = (1..40).map(|i| format!("a{i}: &a{i} [*a{}, *a{}, *a{}]\n", i - 1, i - 1, i - 1)).collect();
    let merges: String = (1..60).map(|i| format!("a{i}: &a{i} {{<<: [*a{}, *a{}]}}\n", i - 1, i - 1)).collect();
    let long = format!("a0: &a0 {}\nb: [{}]\n", "x".repeat(1 << 20), "*a0, ".repeat(5000));
    refused(&[
        (&format!("a0: &a0 [x]\n{laughs}"), "unfold|MiB of memory"),
        (&format!("a0: &a0 {{x: 1}}\n{merges}"), "twice"),
        (&long, "unfold|MiB of memory"),
        (
            &format!(
                "{{% set t = 'a0: &a0 [x]\\n' %}}{{% for i in range(1, 40) %}}{{% set t = 1 %}}{{% endfor %}}x: {{{{ \"{}\"|load_yaml }}}}",
                format!("a0: &a0 [x]\n{laughs}").replace('\n', "\\n")
            ),
            "unfold|MiB of memory",
        ),
    ]);
}

#[test]
fn pillar_has_the_same_limits() {
    let top = ("pillar/top.sls", "base:\n  '*': [p]\n".to_owned());
    let states = ("a.sls", "a: test.nop\n".to_owned());
    for (text, word) in [
        ("x: {% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}", "too many steps"),
        ("include: [p]\nx: 1\n", ""),
        ("{% set l = [] %}{% for i in range(9999) %}{% do l.append('a' * 10 ** 6 ~ i) %}{% endfor %}", "MiB of memory"),
    ] {
        let (result, took) = compile(&[top.clone(), states.clone(), ("pillar/p.sls", text.to_owned())], SMALL);
        assert!(took < Duration::from_secs(60));
        match result {
            Ok(_) => assert_eq!(word, "", "{text}"),
            Err(errors) => assert!(errors[0].summary.contains(word) && errors[0].span.is_some(), "{text}: {}", errors[0]),
        }
    }
}

// --- settings ---

fn basalt(place: &Path, args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_basalt"));
    command.args(args).current_dir(place).env_remove("BASALT_REPO").env_remove("BASALT_ROSTER");
    for (name, at) in [("XDG_STATE_HOME", "state"), ("XDG_CACHE_HOME", "cache"), ("XDG_CONFIG_HOME", "config")] {
        command.env(name, place.join(at));
    }
    let output = command.output().unwrap();
    (output.status.code(), format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

fn repository(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    assert!(Command::new("git").args(["init", "-q"]).arg(folder.path()).status().unwrap().success());
    folder
}

#[test]
fn each_limit_can_be_set() {
    let loops = "{% for a in range(3000) %}{% endfor %}a: test.nop\n";
    let nested = "{% macro f(n) %}{{ f(n - 1) if n }}{% endmacro %}{{ f(40) }}a: test.nop\n";
    let large = "{% for a in range(30) %}# {{ 'x' * 100000 }}\n{% endfor %}a: test.nop\n";
    let held = "{% set l = [] %}{% for a in range(60) %}{% do l.append('x' * 10 ** 6 ~ a) %}{% endfor %}a: test.nop\n";
    let slow = "{% for a in range(1500) %}{% for b in range(1000) %}{% set c = a * b %}{% endfor %}{% endfor %}a: test.nop\n";
    for (limit, text, word) in [
        ("steps: 1000", loops, "too many steps"),
        ("depth: 100", nested, "recursion"),
        ("output: 1", large, "output is larger than 1048576 bytes"),
        ("memory: 32", held, "more than 32 MiB of memory"),
        ("time: 1", slow, "more than 1 seconds"),
    ] {
        let show = |settings: &str| {
            let folder = repository(&[("basalt.yaml", settings), ("states/a.sls", text), ("g.json", "{\"id\": \"h\"}")]);
            basalt(folder.path(), &["show", "low", "--grains", "g.json", "a"])
        };
        let (code, said) = show("limits: {time: 600, steps: 20000000}\n");
        assert_eq!(code, Some(0), "{limit}: {said}");
        let (code, said) = show(&format!("limits: {{{limit}}}\n"));
        assert!(code == Some(1) && said.contains(word) && said.contains("states/a.sls:1"), "{limit}: {said}");
    }
    let folder = repository(&[("basalt.yaml", "limits: {memry: 1}\n"), ("states/a.sls", "")]);
    let (code, said) = basalt(folder.path(), &["show", "low", "--grains", "basalt.yaml", "a"]);
    assert!(code == Some(1) && said.contains("unknown limit \"memry\"") && said.contains("did you mean \"memory\""), "{said}");
}

// --- roots ---

/// Every way to name a file, with every name that would lead out; `SECRET` stands outside, and comes in nowhere.
#[test]
fn no_path_leaves_its_roots() {
    let base = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = base.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("secret", "SECRET\n");
    write("secret.sls", "SECRET: test.nop\n");
    write("secret.d/x", "SECRET\n");
    write("secret.d/x.sls", "SECRET: test.nop\n");
    std::fs::create_dir_all(base.path().join("root/sub")).unwrap();
    std::fs::create_dir_all(base.path().join("pillar")).unwrap();
    for (link, to) in [("out", "../secret"), ("out.sls", "../secret.sls"), ("dir", "../secret.d"), ("sub/up", "../../secret")] {
        std::os::unix::fs::symlink(to, base.path().join("root").join(link)).unwrap();
        std::os::unix::fs::symlink(format!("../{}", to.trim_start_matches("../")), base.path().join("pillar").join(link.replace('/', "_")))
            .unwrap();
    }
    std::os::unix::fs::symlink(base.path().join("secret"), base.path().join("root/absolute")).unwrap();
    let absolute = base.path().join("secret").display().to_string();
    let names = [
        "../secret",
        "sub/../../secret",
        "sub/../../secret.d/x",
        "./../secret",
        "/../secret",
        "//../secret",
        "sub/./../../secret",
        "out",
        "sub/up",
        "absolute",
        "dir/x",
        "..%2fsecret",
        "%2e%2e/secret",
        "..\\secret",
        absolute.as_str(),
    ];
    let ways = [
        "{% include 'NAME' %}",
        "{% include ['none', 'NAME'] ignore missing %}",
        "{% import 'NAME' as x %}{{ x }}",
        "{% from 'NAME' import x %}{{ x }}",
        "{% extends 'NAME' %}",
        "{% import_yaml 'NAME' as x %}a: {{ x }}",
        "{% import_json 'NAME' as x %}a: {{ x }}",
        "{% import_text 'NAME' as x %}a: {{ x }}",
        "a: {{ salt['cp.get_file_str']('salt://NAME') }}",
        "a: {{ salt['cp.get_file_str']('NAME') }}",
        "a: {{ salt['cp.hash_file']('salt://NAME') }}",
        "a: {{ salt['cp.list_master']()|string }}",
        "a: {{ salt['slsutil.renderer']('salt://NAME') }}",
        "a: {{ salt['slsutil.renderer']('NAME') }}",
        "a: {{ salt['slsutil.renderer'](path='salt://NAME', default_renderer='text') }}",
        "a: {{ salt['defaults.get']('NAME') }}",
        "include:\n  - NAME\n",
        "include:\n  - ..NAME\n",
        "include:\n  - base: NAME\n",
        "a:\n  file.managed:\n    - name: /x\n    - source: salt://NAME\n",
        "a:\n  file.managed:\n    - name: /x\n    - source: [salt://none, 'salt://NAME']\n",
        "a:\n  file.managed:\n    - name: /x\n    - source: salt://NAME?saltenv=base\n",
        "a:\n  file.managed:\n    - name: /x\n    - source: salt://NAME\n    - template: jinja\n",
        "a:\n  file.recurse:\n    - name: /x\n    - source: salt://NAME\n",
        "a:\n  file.recurse:\n    - name: /x\n    - source: salt://.\n",
        "a:\n  file.append:\n    - name: /x\n    - source: salt://NAME\n",
        "a:\n  cmd.script:\n    - source: salt://NAME\n",
    ];
    let mut seen = 0;
    for name in names {
        for way in ways {
            let text = way.replace("NAME", name);
            write("root/a.sls", &text);
            write("pillar/top.sls", "base:\n  '*': [p]\n");
            write("pillar/p.sls", "x: 1\n");
            seen += usize::from(compiled(base.path(), &[]).contains("SECRET"));
            assert_eq!(seen, 0, "{text}");
        }
        // Pillar's own ways, top files, and what the command line names.
        write("root/a.sls", "a: {{ pillar|tojson }}\n");
        for text in [
            format!("include:\n  - {name}\n"),
            format!("include:\n  - ..{name}\n"),
            format!("{{% include '{name}' %}}"),
            format!("{{% import_text '{name}' as x %}}x: {{{{ x }}}}"),
        ] {
            write("pillar/p.sls", &text);
            assert!(!compiled(base.path(), &[]).contains("SECRET"), "pillar: {text}");
        }
        write("pillar/p.sls", "x: 1\n");
        for top in ["root/top.sls", "pillar/top.sls"] {
            write("root/a.sls", "a: {{ pillar|tojson }}\n");
            write(top, &format!("base:\n  '*':\n    - {name}\n    - {}\n", name.replace('/', ".")));
            assert!(
                !compiled(base.path(), &[]).contains("SECRET") && !compiled(base.path(), &["high"]).contains("SECRET"),
                "{top}: {name}"
            );
            std::fs::remove_file(base.path().join(top)).unwrap();
        }
        assert!(!compiled(base.path(), &[name]).contains("SECRET"), "--sls {name}");
    }
}

/// Everything that compiling an SLS (or, with `high`, the top file) of these roots gives: lows, contents and errors.
fn compiled(base: &Path, sls: &[&str]) -> String {
    let roots = |name: &str| {
        let tree = Directory::new(&base.join(name), name).unwrap();
        Roots::base(vec![Mount { name: String::new(), tree: Arc::new(tree) as Arc<dyn Tree> }])
    };
    let compiler = Compiler::new(roots("root"), roots("pillar"), Options::default());
    let grains = Map::new();
    let host = HostInput { id: "h1", grains: &grains, pillar_override: None, answers: &[], matcher: &Everything };
    let what = match sls {
        [] => What::Sls(vec!["a".into()]),
        ["high"] => What::Highstate,
        names => What::Sls(names.iter().map(|name| (*name).to_owned()).collect()),
    };
    match compiler.compile(&host, &what) {
        Ok(compiled) => {
            let blobs: String = compiled.blobs.values().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect();
            format!("{:?}{:?}{blobs}", compiled.lows, compiled.pillar)
        }
        Err(errors) => errors.iter().map(|e| format!("{e}{:?}{:?}{:?}", e.excerpt, e.detail, e.related)).collect(),
    }
}
