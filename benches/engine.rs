//! `cargo bench`: how long the pure parts take, without hosts and without ssh. Prints a line each; asserts nothing about time.
//!
//! What users feel (ssh included, beside peers and a floor) is measured by `scripts/bench`; these figures tell where it goes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use basalt::agent::planner;
use basalt::agent::protocol::PlanRequest;
use basalt::diagnostic::Result;
use basalt::lang::root::{Memory, Mount, Roots};
use basalt::lang::{Compiler, HostInput, Matcher, Options, What};
use basalt::plan::{Action, Low};
use basalt::system::{HostExec, System};
use basalt::value::Map;

struct Everybody;

impl Matcher for Everybody {
    fn matches(&self, _expression: &str, _form: &str, _pillar: &Map) -> Result<bool> {
        Ok(true)
    }
}

fn roots(files: &BTreeMap<String, String>) -> Roots {
    let memory = Memory(files.iter().map(|(path, text)| (path.clone(), text.clone().into_bytes())).collect());
    Roots::base(vec![Mount { name: String::new(), tree: Arc::new(memory) }])
}

fn compile(compiler: &Compiler, id: &str) -> Vec<Low> {
    let grains: Map = [("id", id)].into_iter().collect();
    let host = HostInput { id, grains: &grains, pillar_override: None, answers: &[], matcher: &Everybody };
    let compiled = compiler.compile(&host, &What::Sls(vec!["main".into()]));
    compiled.unwrap_or_else(|faults| panic!("the benchmark's own tree does not compile: {faults:?}")).lows
}

/// Repeats until half a second has passed and gives the fastest.
fn fastest(mut work: impl FnMut()) -> Duration {
    let start = Instant::now();
    let mut best = Duration::MAX;
    while start.elapsed() < Duration::from_millis(500) {
        let once = Instant::now();
        work();
        best = best.min(once.elapsed());
    }
    best
}

fn tell(what: &str, took: Duration) {
    println!("{what:64} {:9.2} ms", took.as_secs_f64() * 1000.0);
}

fn main() {
    // A template of an ordinary size, rendered for many hosts by one compiler.
    let template = "{% for i in range(20) %}\nkey{{ i }} = {{ grains['id'] }}-{{ i * 2 }}\n{% endfor %}\n";
    let mut files = BTreeMap::from([("files/a.conf".to_owned(), template.to_owned())]);
    let states: String = (0..20)
        .map(|i| format!("/etc/a{i}:\n  file.managed:\n    - source: salt://files/a.conf\n    - template: jinja\n    - mode: '0644'\n"))
        .collect();
    files.insert("main.sls".into(), states);
    let compiler = Compiler::new(roots(&files), Roots::base(Vec::new()), Options::default());
    tell("a host with 20 templated files, compiler warm", fastest(|| drop(compile(&compiler, "web1"))));

    // 5,000 mixed states, each requiring the one before.
    let state = |i: usize| {
        let function = ["test.nop", "file.managed", "cmd.run"][i % 3];
        let module = |i: usize| ["test", "file", "cmd"][i % 3];
        let require = if i == 0 { String::new() } else { format!("    - require:\n      - {}: s{}\n", module(i - 1), i - 1) };
        format!("s{i}:\n  {function}:\n    - name: /name/{i}\n{require}")
    };
    let files = BTreeMap::from([("main.sls".to_owned(), (0..5000).map(state).collect::<String>())]);
    tell(
        "5,000 mixed states in a chain, compiler cold",
        fastest(|| {
            let compiler = Compiler::new(roots(&files), Roots::base(Vec::new()), Options::default());
            drop(compile(&compiler, "web1"));
        }),
    );

    // The agent's side: files on a host that is as described, and one that is empty.
    let states: String =
        (0..5000).map(|i| format!("/srv/f{}/{i}:\n  file.managed:\n    - contents: content {i}\n    - makedirs: True\n", i % 50)).collect();
    let files = BTreeMap::from([("main.sls".to_owned(), states)]);
    let compiler = Compiler::new(roots(&files), Roots::base(Vec::new()), Options::default());
    let lows = compile(&compiler, "web1");
    let root = std::env::temp_dir().join(format!("basalt-bench-{}", std::process::id()));
    for i in 0..5000 {
        let folder = root.join(format!("srv/f{}", i % 50));
        std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(folder.join(i.to_string()), format!("content {i}\n")))
            .unwrap_or_default();
    }
    let request = || PlanRequest { lows: lows.clone(), ..PlanRequest::default() };
    let system = || System::at(&root, Box::new(HostExec::new(&root, Arc::new(AtomicBool::new(false)))));
    let mut steps = 0;
    tell(
        "5,000 managed files compared with a host",
        fastest(|| {
            if let Ok(plan) = planner::plan(&system(), request()) {
                steps = plan.host.steps.iter().filter(|step| step.action != Action::None).count();
            }
        }),
    );
    println!("{:64} {steps:9}", "  of which differ");
    if let Err(e) = std::fs::remove_dir_all(&root) {
        eprintln!("cannot remove {}: {e}", root.display());
    }
}
