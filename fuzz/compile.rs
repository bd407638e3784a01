//! The compiler: any tree of SLS, templates and pillar is low chunks or errors, in bounded time and memory.
#![no_main]

mod tree;

use std::sync::Arc;

use basalt::budget::Allowance;
use basalt::diagnostic::Result;
use basalt::lang::jinja::Limits;
use basalt::lang::root::{Memory, Mount, Roots, Tree};
use basalt::lang::{Compiler, HostInput, Matcher, Options, What};
use basalt::value::Map;
use libfuzzer_sys::fuzz_target;

struct Everything;

impl Matcher for Everything {
    fn matches(&self, expression: &str, _: &str, _: &Map) -> Result<bool> {
        Ok(expression != "nobody")
    }
}

fn roots(files: Memory) -> Roots {
    Roots::base(vec![Mount { name: String::new(), tree: Arc::new(files) as Arc<dyn Tree> }])
}

fuzz_target!(|text: &str| {
    // Files below `pillar/` are pillar, all others states.
    let (mut states, mut pillar) = (tree::files(text, "a.sls"), Memory::default());
    for path in states.0.keys().filter(|path| path.starts_with("pillar/")).cloned().collect::<Vec<_>>() {
        if let Some(bytes) = states.0.shift_remove(&path) {
            pillar.0.insert(path["pillar/".len()..].to_owned(), bytes);
        }
    }
    let what = if states.0.contains_key("top.sls") { What::Highstate } else { What::Sls(vec!["a".into()]) };
    let limits = Limits { fuel: 20_000, recursion: 300, output: 1 << 20, allowance: Allowance { memory: 256 << 20, time: 5, values: 200_000 } };
    let compiler = Compiler::new(roots(states), roots(pillar), Options { limits, ..Options::default() });
    let grains: Map = [("os", "Debian"), ("id", "web1")].into_iter().collect();
    let host = HostInput { id: "web1", grains: &grains, pillar_override: None, answers: &[], matcher: &Everything };
    if let Err(errors) = compiler.compile(&host, &what) {
        assert!(!errors.is_empty(), "failed without a reason");
    }
});
