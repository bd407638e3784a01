//! Templates against real Salt: small templates with the answers of Salt 3008.5 itself.

use std::collections::HashMap;
use std::sync::Arc;

use basalt::lang::jinja::{Context, Environments, Limits, Offline, Renderer, Source, Templates};
use basalt::value::{Map, Value};
use serde::Deserialize;

#[derive(Deserialize)]
struct Probes {
    grains: Map,
    pillar: Map,
    sets: Vec<Set>,
}

#[derive(Deserialize)]
struct Set {
    files: HashMap<String, String>,
    probes: Vec<Probe>,
}

#[derive(Deserialize)]
struct Probe {
    template: String,
    text: Option<String>,
    error: Option<String>,
}

struct Files(HashMap<String, String>);

impl Templates for Files {
    fn read(&self, _saltenv: &str, path: &str) -> Option<Source> {
        self.0.get(path).map(|text| Source { file: path.into(), text: text.as_str().into() })
    }
    fn list(&self, _saltenv: &str) -> Vec<String> {
        let mut names: Vec<String> = self.0.keys().cloned().collect();
        names.sort();
        names
    }
}

/// What is known to differ, by file, set and number, and why. A probe of this list that begins to pass fails the test.
const DIFFERENT: &[(&str, usize, usize, &str)] = &[("probes.json", 0, 38, "Python prints the address of the method's object")];

fn load(name: &str) -> Probes {
    let path = format!("{}/tests/templates/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn context(probes: &Probes, number: usize) -> Context {
    let opts: Map = [("id", Value::str("minion"))].into_iter().collect();
    let context = Context::new(Arc::new(probes.grains.clone()), Arc::new(probes.pillar.clone()), Arc::new(opts), Arc::new(Offline));
    let sls = format!("p{number:03}");
    context.for_sls("base", &sls, &format!("{sls}.sls"))
}

#[test]
fn templates_render_as_salt_renders_them() {
    let (mut wrong, mut total) = (Vec::new(), 0);
    for name in ["probes.json", "more.json"] {
        compare(name, &mut wrong, &mut total);
    }
    assert!(wrong.is_empty(), "{} of {total} differ:\n{}", wrong.len(), wrong.join("\n"));
}

fn compare(name: &str, wrong: &mut Vec<String>, total: &mut usize) {
    let probes = load(name);
    for (s, set) in probes.sets.iter().enumerate() {
        let renderer = Renderer::new(Arc::new(Files(set.files.clone())), Environments::default(), Limits::default());
        for (i, probe) in set.probes.iter().enumerate() {
            *total += 1;
            let result = renderer.render(&format!("p{i:03}.sls"), &probe.template, &context(&probes, i));
            let problem = match (&probe.text, &probe.error, &result) {
                (Some(text), _, Ok(rendered)) if *text == rendered.text => None,
                (None, Some(_), Err(_)) => None,
                (Some(text), _, Ok(rendered)) => Some(format!("expected {text:?}\n  rendered {:?}", rendered.text)),
                (Some(text), _, Err(error)) => Some(format!("expected {text:?}\n  failed   {error}")),
                (_, error, Ok(rendered)) => Some(format!("expected the error {error:?}\n  rendered {:?}", rendered.text)),
                (None, None, Err(_)) => Some("the probe has no answer".into()),
            };
            let known = DIFFERENT.iter().find(|(file, set, number, _)| (*file, *set, *number) == (name, s, i));
            match (problem, known) {
                (Some(problem), None) => wrong.push(format!("{name} {s}/{i} {:?}\n  {problem}", probe.template)),
                (None, Some((.., reason))) => wrong.push(format!("{name} {s}/{i} passes now; take it off the list ({reason})")),
                _ => {}
            }
        }
    }
}

#[test]
fn lines_of_the_output_lead_back_to_the_template() {
    let files = [("inc.jinja".to_owned(), "one\n{{ 1 }}\n".to_owned())];
    let renderer = Renderer::new(Arc::new(Files(files.into_iter().collect())), Environments::default(), Limits::default());
    let source = "a: 1\n{% set x = 2 %}\n{% for i in [1, 2] -%}\nb{{ i }}: {{ x }}\n  c: d\n{% endfor %}\n{% include 'inc.jinja' %}\nend\n";
    let rendered = renderer.render("p.sls", source, &context(&load("probes.json"), 0)).unwrap();
    let place = |line: &str| {
        let at = rendered.text.lines().position(|l| l.trim() == line).unwrap();
        let (span, _) = rendered.lines.locate(at as u32 + 1).unwrap();
        format!("{}:{}", span.file, span.line)
    };
    assert_eq!(place("a: 1"), "p.sls:1");
    assert_eq!(place("b1: 2"), "p.sls:4");
    assert_eq!(place("c: d"), "p.sls:5");
    assert_eq!(place("b2: 2"), "p.sls:4");
    assert_eq!(place("one"), "inc.jinja:1");
    assert_eq!(place("1"), "inc.jinja:2");
    assert_eq!(place("end"), "p.sls:8");
}

#[test]
fn errors_name_the_place_and_show_the_line() {
    let files = [("m.jinja", "{% macro f(x) %}\n  {{ x.y.z }}\n{% endmacro %}\n"), ("bad.jinja", "ok\n{{ 1 + }}\n")];
    let files = files.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let renderer = Renderer::new(Arc::new(Files(files)), Environments::default(), Limits::default());
    let context = context(&load("probes.json"), 0);
    let told = |source: &str| {
        let error = renderer.render("p.sls", source, &context).unwrap_err();
        let excerpt = error.excerpt.clone().unwrap_or_default();
        (format!("{error}"), excerpt.lines().last().unwrap_or("").to_owned())
    };
    assert_eq!(told("a\nb: {{ nope }}\n"), ("p.sls:2:7: 'nope' is undefined".into(), "  |       ^".into()));
    assert_eq!(told("a\n  {{ 'a' + 1 }}\n").0, "p.sls:2:10: can only concatenate str (not \"int\") to str");
    assert_eq!(told("{% if 1 %}\nx\n{% endfor %}\n").0.split(' ').next(), Some("p.sls:3:4:"));
    assert_eq!(told("{% from 'm.jinja' import f %}\n{{ f({}) }}\n").0, "m.jinja:2:10: 'dict object' has no attribute 'y'");
    assert_eq!(told("x\n{% include 'bad.jinja' %}\n").0, "bad.jinja:2:8: unexpected 'end of print statement'");
    assert_eq!(told("x\n{{ salt['cmd.run']('id') }}\n").0.split(' ').next(), Some("p.sls:2:19:"));
    let asked = renderer.render("p.sls", "{{ salt.cmd.run('id') }}", &context).unwrap_err();
    assert_eq!(asked.code, basalt::diagnostic::Code::HostNeeded);
}

#[test]
fn nothing_runs_away() {
    let renderer = Renderer::new(Arc::new(Files(HashMap::new())), Environments::default(), Limits { fuel: 3_000_000, ..Limits::default() });
    let context = context(&load("probes.json"), 0);
    for source in [
        "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{{ 'x' * 99999999999 }}",
        "{{ [0] * 99999999999 }}",
        "{{ '%99999999s' % 1 }}",
        "{{ 'x'.ljust(99999999999) }}",
        "{{ range(99999)|product(range(99999))|list }}",
        "{% include 'given:0' %}",
    ] {
        assert!(renderer.render("p.sls", source, &context).is_err(), "{source}");
    }
    // Deeper than any stack, and it only falls apart.
    let deep = "{% set ns = namespace(l=[], t=(1,)) %}{% for i in range(90000) %}{% set ns.l = [ns.l] %}{% set ns.t = (ns.t,) %}{% endfor %}{{ ns.l }}";
    assert!(renderer.render("p.sls", deep, &context).is_ok());
    assert!(renderer.render("p.sls", &deep.replace("{{ ns.l }}", "{{ {ns.t: 1} }}"), &context).is_err());
}

/// A small generator: the same mutations in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % sides.max(1)
    }
}

/// Pieces that mutations put in.
const PIECES: &[&str] = &[
    "{%",
    "%}",
    "{{",
    "}}",
    "{#",
    "-%}",
    "{%- ",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "'",
    "\"",
    "\\",
    ".",
    ",",
    ":",
    "|",
    "=",
    "*",
    "**",
    "%",
    "~",
    " in ",
    " is ",
    " not ",
    " if ",
    " else ",
    " and ",
    "loop",
    "loop.cycle()",
    "caller()",
    "self.x()",
    "super()",
    "{% break %}",
    "{% endfor %}",
    "{% for x in [1] %}",
    "{% set x %}",
    "{% endset %}",
    "{% macro f(x) %}",
    "{% endmacro %}",
    "{% with %}",
    "{% endwith %}",
    "{% block b %}",
    "{% endblock %}",
    "{% raw %}",
    "none",
    "-1",
    "99999999999",
    "1e400",
    "0x",
    "é",
    "\u{1f600}",
    "\0",
    "\r\n",
    "[::-1]",
    "[:0]",
    "|sort",
    "|yaml",
    "|json",
    "|list",
    "|first",
    "|join",
    "|batch(0)",
    "|indent(-1)",
    "%s",
    ".format()",
    ".split('')",
    "{% include 'inc.jinja' %}",
    "{% import 'm.jinja' as m %}",
    "{% from 'm.jinja' import mac %}",
    "{% call mac() %}",
    "{% endcall %}",
    "range(9)",
    "salt['pillar.get']('a')",
    "pillar",
    "namespace()",
    "dict()",
    "|map('upper')",
    "|select('odd')",
    "|groupby('a')",
    "|round(400)",
    "|wordwrap(0)",
    "|truncate(0)",
];

#[test]
fn no_text_makes_the_engine_panic() {
    let probes = load("probes.json");
    let limits = Limits { fuel: 50_000, output: 1 << 20, ..Limits::default() };
    let rounds: usize = std::env::var("ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(12);
    let mut dice = Dice(std::env::var("SEED").ok().and_then(|r| r.parse().ok()).unwrap_or(7));
    let context = context(&probes, 0);
    let sources: Vec<Vec<char>> = probes.sets.iter().flat_map(|s| &s.probes).map(|p| p.template.chars().collect()).collect();
    for set in &probes.sets {
        for probe in &set.probes {
            // Compiled templates are kept for the life of a renderer.
            let renderer = Renderer::new(Arc::new(Files(set.files.clone())), Environments::default(), limits);
            for _ in 0..rounds {
                let mut text: Vec<char> = probe.template.chars().collect();
                for _ in 0..1 + dice.roll(4) {
                    let at = dice.roll(text.len() + 1);
                    let end = (at + dice.roll(12)).min(text.len());
                    match dice.roll(4) {
                        0 => drop(text.drain(at..end)),
                        1 => drop(text.splice(at..at, PIECES[dice.roll(PIECES.len())].chars())),
                        2 => {
                            let other = &sources[dice.roll(sources.len())];
                            let from = dice.roll(other.len());
                            let upto = (from + dice.roll(40)).min(other.len());
                            drop(text.splice(at..at, other[from..upto].iter().copied()));
                        }
                        _ => {
                            let copy: Vec<char> = text[at..end].to_vec();
                            drop(text.splice(at..at, copy));
                        }
                    }
                }
                let text: String = text.into_iter().collect();
                let rendered =
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| renderer.render("mutated.sls", &text, &context).is_ok()));
                assert!(rendered.is_ok(), "this template panics: {text:?}");
            }
        }
    }
}
