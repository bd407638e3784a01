//! Real Salt's answers (salt.json, written by ask_salt.py) against ours, for states that make a text of a text.

use serde::Deserialize;

use super::file::double::{Double, low};
use crate::value::Map;

#[derive(Deserialize)]
struct Case {
    before: Option<String>,
    function: String,
    args: Map,
    after: Option<String>,
    ok: bool,
    changes: bool,
    says: String,
}

#[test]
fn edits_are_those_of_salt() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("salt.json")).unwrap();
    assert!(cases.len() > 400);
    let mut wrong = Vec::new();
    for case in &cases {
        let mut host = Double::new();
        host.directory("/home").directory("/home/al").set("user:al", r#"{"uid": 1000, "home": "/home/al", "group": "al"}"#);
        let mut state = low(&case.function, "{}");
        state.args.0.extend(case.args.clone());
        let path = match state.state.as_str() {
            "host" => "/etc/hosts",
            "ssh_auth" => "/home/al/.ssh/authorized_keys",
            _ => {
                state.args.insert("name", "/etc/f");
                "/etc/f"
            }
        };
        if let Some(before) = &case.before {
            host.directory("/home/al/.ssh").file(path, before);
        }
        let ours = host.parse_quietly(&state).and_then(|function| {
            let want = host.want(function.as_ref())?;
            Ok(host.lay(want) > 0)
        });
        let after = Some(host.at(path)).filter(|text| text != "absent");
        let changes = ours.as_ref().is_ok_and(|changed| *changed);
        // A state of Salt that failed may have left something behind, and those beside file.* write a file anew also where they change nothing;
        // ours never do.
        let text_counts = changes || state.state == "file";
        let same = ours.is_ok() == case.ok && (!case.ok || (changes == case.changes && (!text_counts || after == case.after)));
        if !same {
            let args = serde_json::to_string(&case.args).unwrap();
            let ours = ours.map_err(|e| e.summary);
            wrong.push(format!(
                "{} {args} on {:?}:\n  Salt {} {} {:?} ({})\n  we   {ours:?} {after:?}",
                case.function, case.before, case.ok, case.changes, case.after, case.says
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ from Salt:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
