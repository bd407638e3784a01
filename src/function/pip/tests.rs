use super::super::testing::{Host, answer};
use super::*;
use serde_json::json;

fn host() -> Host {
    let mut host = Host::default();
    for path in ["/", "/srv", "/srv/app", "/srv/app/bin", "/srv/full"] {
        host.has(&format!("file:{path}"), json!({"kind": "directory"}));
    }
    for path in ["/usr/bin/pip3", "/srv/app/bin/pip", "/srv/app/bin/python"] {
        host.has(&format!("file:{path}"), json!({"kind": "file"}));
    }
    host.has("pip:/srv/app/bin/pip", json!({"@all": true, "django": "4.2.1", "my-pkg": "1.0"}));
    host.has("pip:/usr/bin/pip3", json!({"@all": true, "pip": "23"}));
    host.file("/srv/requirements.txt", "# ours\ndjango>=4 # web\n\nrequests [socks] >=2,\\\n <3\n");
    host
}

fn of(function: &str, args: serde_json::Value) -> serde_json::Value {
    match answer(&host(), function, args) {
        Ok(Want::Is(wants)) => serde_json::to_value(&wants[0]).unwrap(),
        Ok(Want::Then(wants, run)) => {
            let input = String::from_utf8(run.command.stdin).unwrap();
            json!([wants.last().unwrap().0, run.shown, input.split('\0').collect::<Vec<_>>(), run.one_way.is_some()])
        }
        Ok(Want::Nothing(_)) => json!(null),
        Ok(other) => panic!("{other:?}"),
        Err(why) => json!({ "fails": why }),
    }
}

#[test]
fn packages_that_do_not_fit_are_wanted() {
    let env = "pip:/srv/app/bin/pip";
    for (function, args, wanted) in [
        ("pip.installed", json!({"name": "Django>=4,<5", "bin_env": "/srv/app"}), json!(null)),
        ("pip.installed", json!({"pkgs": ["django>=5", "My_Pkg"], "bin_env": "/srv/app/bin/pip"}), json!([env, {"django": "django>=5"}])),
        (
            "pip.installed",
            json!({"name": "django", "upgrade": true, "bin_env": "/srv/app", "user": "www", "index_url": "https://i", "no_deps": true, "env_vars": {"A": 1}}),
            json!([env, {"django": "django", "@upgrade": true, "@user": "www", "@options": ["--index-url", "https://i", "--no-deps"], "@env": {"A": 1}}]),
        ),
        (
            "pip.installed",
            json!({"name": "x", "requirements": "/srv/requirements.txt", "bin_env": "/srv/app"}),
            json!([env, {"requests": "requests [socks] >=2,  <3"}]),
        ),
        ("pip.installed", json!({"name": "new"}), json!(["pip:/usr/bin/pip3", {"new": "new"}])),
        ("pip.installed", json!({"name": "new", "bin_env": "/srv/none"}), json!({"fails": "/srv/none/bin/pip is not there"})),
        ("pip.installed", json!({"name": "./here"}), json!({"fails": "\"./here\" is no requirement of pip"})),
        ("pip.removed", json!({"name": "My.Pkg", "bin_env": "/srv/app"}), json!([env, {"my-pkg": null}])),
        ("pip.removed", json!({"name": "none", "bin_env": "/srv/app"}), json!(null)),
    ] {
        assert_eq!(of(function, args.clone()), wanted, "{function} {args}");
    }
}

#[test]
fn an_environment_is_a_directory_that_a_command_fills() {
    assert_eq!(of("virtualenv.managed", json!({"name": "/srv/app", "pip_pkgs": ["django"]})), json!(null));
    assert_eq!(
        of("virtualenv.managed", json!({"name": "/srv/app", "pip_pkgs": ["django<4"]})),
        json!(["pip:/srv/app/bin/pip", {"django": "django<4"}])
    );
    assert_eq!(
        of("virtualenv.managed", json!({"name": "/srv/new", "pip_pkgs": ["a", "b>1"], "no_index": true, "system_site_packages": true})),
        json!(["file:/srv/new", "python3 -m venv --system-site-packages /srv/new && pip install a b>1", ["--no-index", "a", "b>1"], false])
    );
    assert_eq!(
        of("virtualenv.managed", json!({"name": "/srv/new", "venv_bin": "virtualenv", "python": "/usr/bin/python3.11"})),
        json!(["file:/srv/new", "virtualenv --python /usr/bin/python3.11 /srv/new", [""], false])
    );
}
