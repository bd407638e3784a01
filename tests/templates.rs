//! Templates against real Salt: small templates with the answers of Salt 3008.5 itself.

use std::collections::HashMap;
use std::sync::Arc;

use basalt::lang::jinja::{Context, Limits, Offline, Renderer, Source, Templates};
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

/// What is known to differ, by set and number, and why. A probe of this list that begins to pass fails the test.
const DIFFERENT: &[(usize, usize, &str)] = &[(0, 38, "Python prints the address of the method's object")];

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

/// The part of Salt's message that is about the template.
fn cause(error: &str) -> &str {
    let text = error.split_once("failed: ").map_or(error, |(_, t)| t);
    let text = ["Jinja variable ", "Jinja syntax error: ", "Jinja error: "].iter().find_map(|p| text.strip_prefix(p)).unwrap_or(text);
    text.split("; line ").next().unwrap_or(text)
}

#[test]
fn templates_render_as_salt_renders_them() {
    let probes = load("probes.json");
    let (mut wrong, mut total) = (Vec::new(), 0);
    for (s, set) in probes.sets.iter().enumerate() {
        let renderer = Renderer::new(Arc::new(Files(set.files.clone())), Limits::default());
        for (i, probe) in set.probes.iter().enumerate() {
            total += 1;
            let result = renderer.render(&format!("p{i:03}.sls"), &probe.template, &context(&probes, i));
            let problem = match (&probe.text, &probe.error, &result) {
                (Some(text), _, Ok(rendered)) if *text == rendered.text => None,
                (None, Some(_), Err(_)) => None,
                (Some(text), _, Ok(rendered)) => Some(format!("expected {text:?}\n  rendered {:?}", rendered.text)),
                (Some(text), _, Err(error)) => Some(format!("expected {text:?}\n  failed   {error}")),
                (_, error, Ok(rendered)) => Some(format!("expected the error {error:?}\n  rendered {:?}", rendered.text)),
                (None, None, Err(_)) => Some("the probe has no answer".into()),
            };
            let known = DIFFERENT.iter().find(|(set, number, _)| (*set, *number) == (s, i));
            match (problem, known) {
                (Some(problem), None) => wrong.push(format!("{s}/{i} {:?}\n  {problem}", probe.template)),
                (None, Some((_, _, reason))) => wrong.push(format!("{s}/{i} passes now; take it off the list ({reason})")),
                _ => {}
            }
            // The words are Salt's too, where they are not about Python's innards.
            if let (Some(expected), Err(error), true) = (&probe.error, &result, std::env::var_os("SHOW_MESSAGES").is_some())
                && cause(expected) != error.summary
            {
                println!("{s}/{i} {:?}\n  salt   {}\n  basalt {}", probe.template, cause(expected), error.summary);
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {total} differ:\n{}", wrong.len(), wrong.join("\n"));
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
            let renderer = Renderer::new(Arc::new(Files(set.files.clone())), limits);
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
