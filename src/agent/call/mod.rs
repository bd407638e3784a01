//! Execution functions: what templates, conditions and `basalt call` ask of a host, with Salt's names and answers. They look and do not
//! touch, but for `cmd.*`, which runs what it is given.

mod around;
mod command;
mod file;
mod host;
mod network;

use super::grains;
use super::protocol::{Answer, Call};
use crate::diagnostic::{Code, Diagnostic, Error, Result, nearest};
use crate::system::System;
use crate::value::{Map, Value};

/// How a function is called: the host, the arguments.
type Body = fn(&System, &Arguments) -> Result<Value>;

/// All functions, module by module.
static FUNCTIONS: &[&[(&str, Body)]] = &[around::FUNCTIONS, command::FUNCTIONS, file::FUNCTIONS, host::FUNCTIONS, network::FUNCTIONS];

/// Answers one call. `own` are the grains that the controller lays over the host's.
pub fn answer(sys: &System, call: &Call, own: &Map) -> Answer {
    match run(sys, call, own) {
        Ok(value) => Answer::Value(value),
        Err(error) => Answer::Error(*error),
    }
}

/// The names of all functions, sorted.
pub fn names() -> Vec<&'static str> {
    let mut names: Vec<&str> = FUNCTIONS.iter().flat_map(|module| module.iter().map(|(name, _)| *name)).collect();
    names.sort_unstable();
    names
}

fn run(sys: &System, call: &Call, own: &Map) -> Result<Value> {
    let found = FUNCTIONS.iter().flat_map(|module| module.iter()).find(|(name, _)| *name == call.function);
    let Some((_, body)) = found else {
        let error = Diagnostic::new(Code::Failed, format!("'{}' is not available", call.function));
        return Err(match nearest(&call.function, names()) {
            Some(near) => error.hint(format!("did you mean {near}?")).into(),
            None => error.hint("sys.list_functions lists what a host can be asked").into(),
        });
    };
    body(sys, &Arguments { call, own })
}

/// The arguments of a call, by place or by name.
struct Arguments<'a> {
    call: &'a Call,
    own: &'a Map,
}

impl Arguments<'_> {
    fn value(&self, place: usize, name: &str) -> Option<&Value> {
        self.call.args.get(place).or_else(|| self.call.kwargs.get(name)).filter(|v| !v.is_null())
    }

    /// An argument that must be there, as text.
    fn text(&self, place: usize, name: &str) -> Result<String> {
        self.value(place, name).map(Value::to_text).ok_or_else(|| self.error(format!("needs the argument {name}")))
    }

    fn text_or(&self, place: usize, name: &str, default: &str) -> String {
        self.value(place, name).map_or_else(|| default.to_owned(), Value::to_text)
    }

    fn flag(&self, place: usize, name: &str) -> bool {
        self.value(place, name).is_some_and(Value::truthy)
    }

    /// The host's grains as templates see them.
    fn grains(&self, sys: &System) -> Map {
        let mut all = grains::collect(sys);
        self.own.iter().for_each(|(name, value)| drop(all.insert(name.clone(), value.clone())));
        all
    }

    /// All arguments by place, as text; lists among them count one by one.
    fn names(&self) -> Vec<String> {
        let one = |value: &Value| match value.as_list() {
            Some(list) => list.iter().map(Value::to_text).collect(),
            None => vec![value.to_text()],
        };
        self.call.args.iter().flat_map(one).collect()
    }

    fn error(&self, what: impl std::fmt::Display) -> Error {
        Diagnostic::new(Code::Failed, format!("{} {what}", self.call.function)).into()
    }
}

fn texts<S: Into<String>>(items: impl IntoIterator<Item = S>) -> Value {
    Value::List(items.into_iter().map(|item| Value::Str(item.into())).collect())
}

/// A mapping from pairs.
fn mapping<const N: usize>(pairs: [(&str, Value); N]) -> Value {
    Value::Map(pairs.into_iter().collect::<Map>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::{Command, Exec, Output};
    use serde_json::json;

    struct Echo;
    impl Exec for Echo {
        fn run(&self, command: &Command, output: &mut dyn FnMut(&[u8])) -> Result<Output> {
            let said = format!("{}\n", command.argv.join("|")).into_bytes();
            output(&said);
            Ok(Output { status: 3, stdout: said, ..Output::default() })
        }
    }

    fn root() -> (tempfile::TempDir, System) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("etc/passwd", "root:x:0:0:root:/root:/bin/bash\nal:x:1000:1000:Al A,1:/home/al:/bin/sh\n"),
            ("etc/group", "root:x:0:\nal:x:1000:\nadm:x:4:al\n"),
            ("srv/a.txt", "one\ntwo\n"),
            ("srv/sub/b.txt", "three\n"),
            ("var/lib/dpkg/status", "Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:2-3\n"),
            ("run/systemd/system/x.service", "[Service]\n"),
            ("proc/uptime", "3661.5 1\n"),
        ] {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let sys = System::at(dir.path(), Box::new(Echo));
        (dir, sys)
    }

    #[test]
    fn functions_answer_as_salts_do() {
        let (_dir, sys) = root();
        for (function, args, want) in [
            ("test.ping", json!([]), json!(true)),
            ("test.echo", json!(["x"]), json!("x")),
            ("file.file_exists", json!(["/srv/a.txt"]), json!(true)),
            ("file.file_exists", json!(["/srv"]), json!(false)),
            ("file.directory_exists", json!(["/srv"]), json!(true)),
            ("file.read", json!(["/srv/a.txt"]), json!("one\ntwo\n")),
            ("file.readdir", json!(["/srv"]), json!([".", "..", "a.txt", "sub"])),
            ("file.search", json!(["/srv/a.txt", "^t.o$"]), json!(true)),
            ("file.search", json!(["/srv/a.txt", "three"]), json!(false)),
            ("file.basename", json!(["/srv/a.txt"]), json!("a.txt")),
            ("file.dirname", json!(["/srv/a.txt"]), json!("/srv")),
            ("file.join", json!(["/srv", "a", "b"]), json!("/srv/a/b")),
            ("file.get_hash", json!(["/srv/a.txt", "md5"]), json!("2094b601daac3d68f5aed51d3c20f7cd")),
            ("user.list_users", json!([]), json!(["al", "root"])),
            ("user.info", json!(["nope"]), json!({})),
            ("user.list_groups", json!(["al"]), json!(["adm", "al"])),
            ("user.primary_group", json!(["al"]), json!("al")),
            ("group.info", json!(["adm"]), json!({"gid": 4, "members": ["al"], "name": "adm", "passwd": "x"})),
            ("pkg.version", json!(["a"]), json!("1:2-3")),
            ("pkg.version", json!(["a", "b"]), json!({"a": "1:2-3", "b": ""})),
            ("pkg.list_pkgs", json!([]), json!({"a": "1:2-3"})),
            ("pkg.version_cmp", json!(["1.10", "1.9"]), json!(1)),
            ("service.available", json!(["x"]), json!(true)),
            ("service.status", json!(["x"]), json!(false)),
            ("service.enabled", json!(["x"]), json!(true)),
            ("cmd.run", json!(["echo x"]), json!("/bin/sh|-c|echo x")),
            ("cmd.retcode", json!(["false"]), json!(3)),
            ("network.ip_in_subnet", json!(["10.1.2.3", "10.1.0.0/16"]), json!(true)),
            ("network.calc_net", json!(["172.17.0.5", "255.255.255.240"]), json!("172.17.0.0/28")),
            ("network.is_private", json!(["192.168.1.1"]), json!(true)),
            (
                "network.convert_cidr",
                json!(["10.1.2.3/8"]),
                json!({"network": "10.0.0.0", "netmask": "255.0.0.0", "broadcast": "10.255.255.255"}),
            ),
            ("network.reverse_ip", json!(["127.0.0.1"]), json!("1.0.0.127.in-addr.arpa")),
            ("network.interface_ip", json!(["nope"]), json!("Interface \"nope\" not in available interfaces: ")),
        ] {
            let call = Call { function: function.into(), args: serde_json::from_value(args.clone()).unwrap(), kwargs: Map::new() };
            match answer(&sys, &call, &Map::new()) {
                Answer::Value(value) => assert_eq!(serde_json::to_value(value).unwrap(), want, "{function} {args}"),
                Answer::Error(error) => panic!("{function}: {error}"),
            }
        }
    }

    #[test]
    fn files_are_found_by_name_type_and_depth() {
        let (_dir, sys) = root();
        for (kwargs, want) in [
            (json!({"name": "*.txt"}), json!(["/srv/a.txt", "/srv/sub/b.txt"])),
            (json!({"name": "a.txt", "print": "name,size,type"}), json!([["a.txt", 8, "f"]])),
            (json!({"grep": "^thr"}), json!(["/srv/sub/b.txt"])),
            (json!({"size": "-7b", "type": "f"}), json!(["/srv/sub/b.txt"])),
            (json!({"mtime": "1d"}), json!([])),
            (json!({"type": "f", "mtime": "-1d", "iname": "A*"}), json!(["/srv/a.txt"])),
            (json!({"type": "d"}), json!(["/srv", "/srv/sub"])),
            (json!({"type": "f", "maxdepth": 1}), json!(["/srv/a.txt"])),
            (json!({"regex": "sub/b"}), json!([])),
        ] {
            let call = Call { function: "file.find".into(), args: vec!["/srv".into()], kwargs: serde_json::from_value(kwargs).unwrap() };
            assert_eq!(serde_json::to_value(answer(&sys, &call, &Map::new())).unwrap(), json!({"value": want}));
        }
    }

    #[test]
    fn an_unknown_function_names_the_nearest() {
        let (_dir, sys) = root();
        let call = Call { function: "file.file_exist".into(), args: vec![], kwargs: Map::new() };
        let Answer::Error(error) = answer(&sys, &call, &Map::new()) else { panic!() };
        assert_eq!(
            (error.summary.as_str(), error.hint.as_deref()),
            ("'file.file_exist' is not available", Some("did you mean file.file_exists?"))
        );
    }
}
