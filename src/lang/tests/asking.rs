//! What templates ask, in how many exchanges, and what they cannot ask.

use super::*;
use crate::diagnostic::Code;

/// Compiles these SLS and answers with the function's name, until nothing is asked; gives how many exchanges that took, and what came out.
fn rounds(files: &[(&str, &str)], sls: &[&str]) -> (usize, Results<Compiled>) {
    let (grains, compiler) = (Map::new(), compiler(files));
    let mut answers: Vec<(Call, Answer)> = Vec::new();
    for count in 0..20 {
        let host = HostInput { id: "h1", grains: &grains, pillar_override: None, answers: &answers, matcher: &Everything };
        let result = compiler.compile(&host, &What::Sls(sls.iter().map(|s| (*s).to_owned()).collect()));
        match result {
            Ok(compiled) if !compiled.missing.is_empty() => {
                answers.extend(compiled.missing.into_iter().map(|call| {
                    let said = Answer::Value(Value::Str(call.function.clone()));
                    (call, said)
                }));
            }
            other => return (count, other),
        }
    }
    panic!("it asks without end");
}

#[test]
fn all_that_is_missing_is_asked_in_one_exchange() {
    let ask = |function: &str| format!("{{% set said = salt['{function}']('x') %}}\n{{{{ said }}}}: test.nop\n");
    let (a, b, c) = (ask("pkg.version"), ask("file.read"), ask("service.status"));
    let files = [("a.sls", a.as_str()), ("b.sls", b.as_str()), ("c.sls", c.as_str())];
    let (count, compiled) = rounds(&files, &["a", "b", "c"]);
    let ids: Vec<String> = compiled.unwrap().lows.into_iter().map(|low| low.id).collect();
    assert_eq!((count, ids), (1, vec!["pkg.version".into(), "file.read".into(), "service.status".into()]));
    // One that depends on another's answer takes another exchange; the same call is asked once.
    let chained =
        "{% set one = salt['cmd.run']('a') %}\n{% set two = salt['cmd.run'](one) %}\n{{ two ~ salt['cmd.run']('a') }}: test.nop\n";
    assert_eq!(rounds(&[("a.sls", chained)], &["a"]).0, 2);
    assert_eq!(rounds(&[("a.sls", "x: test.nop\n")], &["a"]).0, 0);
    // A loop that looks at many things is one exchange too, whatever its conditions make of the answers.
    let looped = "{% for n in range(50) %}{% if salt['file.read']('/' ~ n) %}\n'{{ n }} {{ salt['user.info'](n) }}': test.nop\n{% endif %}{% endfor %}\n";
    let (count, compiled) = rounds(&[("a.sls", looped)], &["a"]);
    assert_eq!((count, compiled.unwrap().lows.len()), (2, 50));
    // A command behind a condition that is not known yet is not run on a guess.
    let guarded = "{% if not salt['file.file_exists']('/x') %}{{ salt['cmd.run']('never') }}: test.nop\n{% endif %}\ny: test.nop\n";
    let first = with(&[("a.sls", guarded)], "{}", &[]).unwrap();
    assert_eq!(first.missing.iter().map(|call| call.function.as_str()).collect::<Vec<_>>(), ["file.file_exists"]);
    assert_eq!(rounds(&[("a.sls", guarded)], &["a"]).0, 1);
    // Without a host it is the place of the first call that is told, not what a guess led to.
    let offline = "{% set all = salt['user.list_users']() %}\n{{ all | join(',') | upper }}: test.nop\n{{ all.nope.x }}: test.nop\n";
    let grains = Map::new();
    let host = HostInput { id: "h1", grains: &grains, pillar_override: None, answers: &[], matcher: &Everything };
    let seen = compiler(&[("a.sls", offline)]).chunks(&host, &What::Sls(vec!["a".into()]));
    let error = seen.found.unwrap_err().remove(0);
    assert_eq!((error.code, error.span.map(|s| s.line), seen.missing.len()), (Code::HostNeeded, Some(1), 1));
}

#[test]
fn chance_is_the_same_in_every_exchange_and_different_each_time() {
    let text = "{% set x = salt['random.get_str'](8, punctuation=False) %}{% set y = salt['random.get_str'](8, punctuation=False) %}\n\
                {{ x }}{{ salt['file.read']('/x') }}: test.nop\n{{ y }}: test.nop\nn{{ salt['random.seed'](60) }}: test.nop\n";
    let (count, compiled) = rounds(&[("a.sls", text)], &["a"]);
    let ids: Vec<String> = compiled.unwrap().lows.into_iter().map(|low| low.id).collect();
    assert_eq!((count, ids.len()), (1, 3));
    assert!(ids[0].ends_with("file.read") && ids[0].len() == 17 && ids[1].len() == 8 && !ids[0].starts_with(&ids[1]), "{ids:?}");
}

#[test]
fn what_cannot_be_called_says_what_to_use_instead() {
    let told = |files: &[(&str, &str)]| {
        let (_, result) = rounds(files, &["a"]);
        let error = result.unwrap_err().remove(0);
        format!(
            "{}: {} ({})",
            error.span.as_ref().map(ToString::to_string).unwrap_or_default(),
            error.summary,
            error.hint.unwrap_or_default()
        )
    };
    let changes = told(&[("a.sls", "x: test.nop\n{% do salt['file.write']('/x', 'y') %}\n")]);
    assert!(
        changes.starts_with("a.sls:2") && changes.contains("file.write changes a host") && changes.contains("the state file.managed"),
        "{changes}"
    );
    let runner = told(&[("a.sls", "{{ salt['saltutil.runner']('manage.up') }}: test.nop\n")]);
    assert!(runner.contains("saltutil.runner is not there") && runner.contains("mine.get"), "{runner}");
    let custom = [("a.sls", "{{ salt['roles.dict']('x') }}: test.nop\n"), ("_modules/roles.py", "def dict():\n    pass\n")];
    assert!(told(&custom).contains("roles.dict is a function of _modules/roles.py, and custom Python is not run"), "{}", told(&custom));
    let named = [("a.sls", "{{ salt['roles.dict']('x') }}: test.nop\n"), ("_modules/other.py", "__virtualname__ = 'roles'\n")];
    assert!(told(&named).contains("_modules/other.py"), "{}", told(&named));
    // Nothing to bring anywhere, and what a file of pillar is.
    let quiet = "{% do salt['saltutil.sync_all']() %}x{{ salt['pillar.file_exists']('no.sls') }}: test.nop\n";
    assert_eq!(rounds(&[("a.sls", quiet)], &["a"]).1.unwrap().lows[0].id, "xFalse");
}

#[test]
fn a_script_of_the_tree_goes_along_with_its_call() {
    let files = [
        ("a.sls", "{{ salt['cmd.script']('salt://s/x.sh', 'a b', template='jinja') }}: test.nop\n"),
        ("s/x.sh", "#!/bin/sh\necho {{ grains.get('id', 'none') }}\n"),
    ];
    let first = with(&files, "{}", &[]).unwrap();
    let call = &first.missing[0];
    assert_eq!(
        (call.function.as_str(), call.kwargs.get("__script__").map(Value::to_text)),
        ("cmd.script", Some("#!/bin/sh\necho none\n".into()))
    );
    let missing = [("a.sls", "{{ salt['cmd.script']('salt://no.sh') }}: test.nop\n")];
    assert!(with(&missing, "{}", &[]).unwrap_err()[0].summary.contains("there is no file salt://no.sh"));
}
