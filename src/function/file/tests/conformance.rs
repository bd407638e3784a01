//! Real Salt's answers (salt.json, written by ask_salt.py) against ours.

use serde::Deserialize;

use crate::function::file::double::{Double, low};
use crate::value::Map;

#[derive(Deserialize)]
struct Case {
    before: Option<String>,
    function: String,
    args: Map,
    after: Option<String>,
    ok: bool,
    says: String,
}

#[test]
fn edits_are_those_of_salt() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("salt.json")).unwrap();
    assert!(cases.len() > 200);
    let mut wrong = Vec::new();
    for case in &cases {
        let mut host = Double::new();
        if let Some(before) = &case.before {
            host.file("/etc/f", before);
        }
        let mut state = low(&case.function, r#"{"name": "/etc/f"}"#);
        state.args.0.extend(case.args.clone());
        let args = serde_json::to_string(&case.args).unwrap();
        let ours = host.parse_quietly(&state).and_then(|function| {
            let want = host.want(function.as_ref())?;
            host.lay(want);
            Ok(())
        });
        let after = Some(host.at("/etc/f")).filter(|text| text != "absent");
        // A state of Salt that failed may have left something behind; ours never does.
        let same = ours.is_ok() == case.ok && (!case.ok || after == case.after);
        if !same {
            let ours = ours.map_err(|e| e.summary);
            wrong.push(format!(
                "{} {args} on {:?}:\n  Salt {} {:?} ({})\n  we   {ours:?} {after:?}",
                case.function, case.before, case.ok, case.after, case.says
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ from Salt:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
