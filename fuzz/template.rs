//! The template loader and renderer: any template is a text or an error with a place, in bounded time and memory.
#![no_main]

mod tree;

use std::sync::Arc;

use basalt::budget::Allowance;
use basalt::lang::jinja::{Context, Environments, Limits, Offline, Renderer, Source, Templates};
use basalt::lang::root::Memory;
use basalt::value::{Map, Value};
use libfuzzer_sys::fuzz_target;

struct Files(Memory);

impl Templates for Files {
    fn read(&self, _: &str, path: &str) -> Option<Source> {
        let text = String::from_utf8(self.0.0.get(path)?.clone()).ok()?;
        Some(Source { file: path.into(), text: text.into() })
    }
    fn list(&self, _: &str) -> Vec<String> {
        self.0.0.keys().cloned().collect()
    }
}

fuzz_target!(|text: &str| {
    let files = tree::files(text, "a.jinja");
    let main = files.0.get("a.jinja").cloned().unwrap_or_default();
    let grains: Map = [("os", "Debian"), ("id", "web1")].into_iter().collect();
    let pillar: Map = [("list", Value::List(vec![Value::Int(1), Value::str("two")])), ("text", Value::str("a: b\n"))].into_iter().collect();
    let context = Context::new(Arc::new(grains), Arc::new(pillar), Arc::default(), Arc::new(Offline)).for_sls("base", "a", "a.jinja");
    let limits = Limits { fuel: 20_000, recursion: 300, output: 1 << 20, allowance: Allowance { memory: 256 << 20, time: 5, values: 200_000 } };
    let renderer = Renderer::new(Arc::new(Files(files)), Environments::default(), limits);
    if let Err(error) = renderer.render("a.jinja", std::str::from_utf8(&main).unwrap_or(""), &context) {
        assert!(error.span.is_some(), "no place: {error}");
    }
});
