//! The language as a whole, on trees in memory. The answers are what Salt 3008.5 gave for the same trees.

use super::*;
use root::{Memory, Mount};

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

pub(super) fn compile(compiler: &Compiler, sls: &[&str]) -> std::result::Result<Compiled, Vec<Diagnostic>> {
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
