//! Templates that stand outside the roots, the roster and the process roles: they see no host and no other file, only what they are given.

use std::sync::Arc;

use crate::diagnostic::Result;
use crate::lang::jinja;
use crate::value::Map;

/// `names` are there beside `grains`.
pub fn render(file: &str, text: &str, grains: Map, names: Map) -> Result<String> {
    let mut context = jinja::Context::new(Arc::new(grains), Arc::default(), Arc::default(), Arc::new(jinja::Offline)).for_file(file);
    context.extra = names;
    let renderer = jinja::Renderer::new(Arc::new(Nothing), jinja::Environments::default(), jinja::Limits::default());
    Ok(renderer.render(file, text, &context)?.text)
}

struct Nothing;

impl jinja::Templates for Nothing {
    fn read(&self, _: &str, _: &str) -> Option<jinja::Source> {
        None
    }
    fn list(&self, _: &str) -> Vec<String> {
        Vec::new()
    }
}
