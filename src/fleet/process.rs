//! Processes of a cluster: which run on which node, at which endpoint, configured how. Pure rules, given by Halon's design of dynamic clients.
//!
//! A *process role* stands for one process or several (`processes.yaml`, a template with the node's facts); adding it to a node makes a process of each, as often as
//! its `multiplicity` says. An endpoint that is taken is counted up until it is free. What a node has stands in `processes/NODE.yaml`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::strict::Strict;
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::value::{Map, Value};
use crate::yaml::{self, Node};

/// Process roles.
pub const FILE: &str = "processes.yaml";
/// A file for each node that has processes.
pub const FOLDER: &str = "processes/";
/// An endpoint's last segment is no larger than a port.
const LAST_SEGMENT: u32 = 65_535;
/// A role makes no more processes at once than this.
const MOST: i64 = 1000;

/// What a role stands for, for one node: the template has been rendered.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessRole {
    pub name: String,
    /// More than half of its processes have to be online.
    pub quorum: bool,
    pub processes: Vec<Kind>,
}

/// One of the processes of a role.
#[derive(Clone, Debug, PartialEq)]
pub struct Kind {
    pub name: String,
    pub endpoint: Option<String>,
    pub multiplicity: i64,
    /// The unit that runs it. `$id`, `$node`, `$name` and `$endpoint` stand for its own, here and in the configuration.
    pub unit: Option<String>,
    pub configuration: Map,
}

/// A process of a node, as git has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    /// Unique in the cluster: `store1-ioservice-1`.
    pub id: String,
    pub role: String,
    pub name: String,
    pub endpoint: Option<String>,
    /// The cluster starts and stops it. Others come and go as they like.
    pub managed: bool,
    pub online: bool,
    pub quorum: bool,
    pub unit: Option<String>,
    /// What would stand in its `/etc/sysconfig` file.
    pub configuration: Map,
}

/// The processes of all nodes.
pub type Processes = BTreeMap<String, Vec<Process>>;

/// How a process is, or is to be: the words of Halon's table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nobody can say: nothing tells of it.
    Unknown,
    Offline,
    Starting,
    Online,
    /// It was asked to stop, and brings what it does to an end.
    Quiescing,
    Stopping,
    Failed(String),
    /// Its node is away; what it was when it was last seen.
    Inhibited(Box<State>),
}

impl State {
    /// From what systemd says of its unit: `ActiveState`, `SubState` and `Result`.
    pub fn of_unit(active: &str, sub: &str, result: &str) -> State {
        match active {
            // Its `ExecStop` runs; the signals come behind that.
            "deactivating" if sub == "stop" => State::Quiescing,
            "active" | "reloading" => State::Online,
            "activating" => State::Starting,
            "deactivating" => State::Stopping,
            "failed" => State::Failed(result.to_owned()),
            "inactive" => State::Offline,
            _ => State::Unknown,
        }
    }

    /// Of a process whose node cannot be asked any more.
    pub fn inhibited(self) -> State {
        match self {
            State::Unknown | State::Inhibited(_) => self,
            before => State::Inhibited(Box::new(before)),
        }
    }

    /// It does not run, and will not by itself.
    pub fn is_down(&self) -> bool {
        matches!(self, State::Offline | State::Failed(_))
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::Unknown => f.pad("unknown"),
            State::Offline => f.pad("offline"),
            State::Starting => f.pad("starting"),
            State::Online => f.pad("online"),
            State::Quiescing => f.pad("quiescing"),
            State::Stopping => f.pad("stopping"),
            State::Failed(why) if why.is_empty() => f.pad("failed"),
            State::Failed(why) => write!(f, "failed ({why})"),
            State::Inhibited(before) => write!(f, "inhibited ({before})"),
        }
    }
}

/// The file of a node's processes.
pub fn path_of(node: &str) -> String {
    format!("{FOLDER}{node}.yaml")
}

/// What adding a role to a node makes, and what there is to say of it: endpoints that were taken.
pub fn placed(role: &ProcessRole, node: &str, managed: bool, there: &Processes) -> Result<(Vec<Process>, Vec<String>)> {
    let mut ids: BTreeSet<String> = there.values().flatten().map(|process| process.id.clone()).collect();
    let mut taken: BTreeMap<String, String> = there.values().flatten().filter_map(|p| Some((p.endpoint.clone()?, p.id.clone()))).collect();
    let (mut made, mut said) = (Vec::new(), Vec::new());
    for kind in &role.processes {
        for _ in 0..kind.multiplicity {
            let id = (1..).map(|number| format!("{node}-{}-{number}", kind.name)).find(|id| !ids.contains(id)).unwrap_or_default();
            ids.insert(id.clone());
            let endpoint = match &kind.endpoint {
                Some(wished) => {
                    let (endpoint, why) = free(wished, &taken)?;
                    said.extend(why.map(|why| format!("{id}: {why}")));
                    taken.insert(endpoint.clone(), id.clone());
                    Some(endpoint)
                }
                None => None,
            };
            let words =
                [("$id", id.as_str()), ("$node", node), ("$name", &kind.name), ("$endpoint", endpoint.as_deref().unwrap_or_default())];
            let fill = |text: &str| words.iter().fold(text.to_owned(), |text, (word, value)| text.replace(word, value));
            let configuration = kind.configuration.iter().map(|(key, value)| match value {
                Value::Str(text) => (key.clone(), Value::Str(fill(text))),
                other => (key.clone(), other.clone()),
            });
            made.push(Process {
                role: role.name.clone(),
                name: kind.name.clone(),
                managed,
                online: managed,
                quorum: role.quorum,
                unit: kind.unit.as_deref().map(fill),
                configuration: configuration.collect(),
                endpoint: endpoint.clone(),
                id,
            });
        }
    }
    Ok((made, said))
}

/// The endpoint itself, or the next that is free: its last segment is counted up.
fn free(wished: &str, taken: &BTreeMap<String, String>) -> Result<(String, Option<String>)> {
    let Some(first) = taken.get(wished) else { return Ok((wished.to_owned(), None)) };
    let digits = wished.len() - wished.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let (head, last) = wished.split_at(wished.len() - digits);
    let none = || Diagnostic::new(Code::Usage, format!("the endpoint {wished} is taken by {first}, and no other of its kind is free"));
    let last: u32 = last.parse().map_err(|_| none())?;
    let next = (last.saturating_add(1)..=LAST_SEGMENT).map(|last| format!("{head}{last}")).find(|next| !taken.contains_key(next));
    let next = next.ok_or_else(none)?;
    let why = format!("{wished} is taken by {first}, so it has {next}");
    Ok((next, Some(why)))
}

/// Why these may not go offline: a role that needs most of its processes would lose them. `online` says which are.
pub fn breaks_quorum(going: &[&Process], there: &Processes, online: &dyn Fn(&Process) -> bool) -> Option<String> {
    let roles: BTreeSet<&str> = going.iter().filter(|process| process.quorum).map(|process| process.role.as_str()).collect();
    roles.into_iter().find_map(|role| {
        let all: Vec<&Process> = there.values().flatten().filter(|process| process.role == role).collect();
        let left = all.iter().filter(|process| online(process) && !going.iter().any(|gone| gone.id == process.id)).count();
        (left * 2 <= all.len())
            .then(|| format!("of the {} processes of {role}, more than half have to be online, and {left} would be left", all.len()))
    })
}

const ROLE: [&str; 3] = ["name", "quorum", "processes"];
const KIND: [&str; 5] = ["name", "endpoint", "multiplicity", "unit", "configuration"];
const PROCESS: [&str; 9] = ["id", "role", "name", "endpoint", "managed", "wanted", "quorum", "unit", "configuration"];

/// Reads `processes.yaml`, rendered for a node.
pub fn roles(text: &str, file: &str) -> Result<Vec<ProcessRole>> {
    let reader = Strict { file, text };
    let mut roles = Vec::new();
    for (_, _, value) in reader.map(yaml::load_spanned(text, file)?, &["roles"])? {
        for role in reader.list(value)? {
            let place = role.place;
            let mut found = ProcessRole { name: String::new(), quorum: false, processes: Vec::new() };
            for (key, _, value) in reader.map(role, &ROLE)? {
                match key.as_str() {
                    "name" => found.name = reader.name(value)?,
                    "quorum" => found.quorum = reader.flag(value, "quorum")?,
                    _ => found.processes = reader.list(value)?.into_iter().map(|kind| reader.kind(kind)).collect::<Result<_>>()?,
                }
            }
            if found.name.is_empty() || found.processes.is_empty() {
                return Err(reader.fault(place, "a role has a name and processes").into());
            }
            roles.push(found);
        }
    }
    Ok(roles)
}

/// Reads a node's processes.
pub fn processes(text: &str, file: &str) -> Result<Vec<Process>> {
    let reader = Strict { file, text };
    reader.list(yaml::load_spanned(text, file)?)?.into_iter().map(|process| reader.process(process)).collect()
}

/// The same as YAML's data.
pub fn to_value(processes: &[Process]) -> Value {
    Value::List(processes.iter().map(Process::to_value).collect())
}

impl Process {
    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert("id", self.id.as_str());
        map.insert("role", self.role.as_str());
        map.insert("name", self.name.as_str());
        if let Some(endpoint) = &self.endpoint {
            map.insert("endpoint", endpoint.as_str());
        }
        map.insert("managed", self.managed);
        map.insert("wanted", if self.online { "online" } else { "offline" });
        if self.quorum {
            map.insert("quorum", true);
        }
        if let Some(unit) = &self.unit {
            map.insert("unit", unit.as_str());
        }
        if !self.configuration.0.is_empty() {
            map.insert("configuration", Value::Map(self.configuration.clone()));
        }
        Value::Map(map)
    }
}

impl Strict<'_> {
    fn kind(&self, node: Node) -> Result<Kind> {
        let place = node.place;
        let mut kind = Kind { name: String::new(), endpoint: None, multiplicity: 1, unit: None, configuration: Map::new() };
        for (key, _, value) in self.map(node, &KIND)? {
            match key.as_str() {
                "name" => kind.name = self.name(value)?,
                "endpoint" => kind.endpoint = Some(self.word(value, "endpoint")?),
                "unit" => kind.unit = Some(self.word(value, "unit")?),
                "configuration" => kind.configuration = self.configuration(value)?,
                _ => {
                    let at = value.place;
                    let number = value.into_value();
                    let number = number.as_int().or_else(|| number.as_str()?.parse().ok()).filter(|number| (1..=MOST).contains(number));
                    kind.multiplicity = number.ok_or_else(|| self.fault(at, format!("`multiplicity` is a number from 1 to {MOST}")))?;
                }
            }
        }
        if kind.name.is_empty() {
            return Err(self.fault(place, "a process has a name").into());
        }
        Ok(kind)
    }

    fn process(&self, node: Node) -> Result<Process> {
        let place = node.place;
        let mut process = Process {
            id: String::new(),
            role: String::new(),
            name: String::new(),
            endpoint: None,
            managed: true,
            online: true,
            quorum: false,
            unit: None,
            configuration: Map::new(),
        };
        for (key, _, value) in self.map(node, &PROCESS)? {
            match key.as_str() {
                "id" => process.id = self.name(value)?,
                "role" => process.role = self.name(value)?,
                "name" => process.name = self.name(value)?,
                "endpoint" => process.endpoint = Some(self.word(value, "endpoint")?),
                "managed" => process.managed = self.flag(value, "managed")?,
                "quorum" => process.quorum = self.flag(value, "quorum")?,
                "unit" => process.unit = Some(self.word(value, "unit")?),
                "configuration" => process.configuration = self.configuration(value)?,
                _ => {
                    let at = value.place;
                    process.online = match value.into_value().to_text().as_str() {
                        "online" => true,
                        "offline" => false,
                        other => return Err(self.fault(at, format!("`wanted` is online or offline, not {other:?}")).into()),
                    };
                }
            }
        }
        if process.id.is_empty() || process.role.is_empty() {
            return Err(self.fault(place, "a process has an id and a role").into());
        }
        Ok(process)
    }

    fn word(&self, node: Node, key: &str) -> Result<String> {
        let at = node.place;
        let text = node.into_value().to_text();
        if text.is_empty() || text.starts_with('-') || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(self.fault(at, format!("`{key}` is one word, not {text:?}")).into());
        }
        Ok(text)
    }

    fn configuration(&self, node: Node) -> Result<Map> {
        let at = node.place;
        match node.into_value() {
            Value::Map(map) if map.0.values().all(|value| !matches!(value, Value::Map(_) | Value::List(_))) => Ok(map),
            Value::Null => Ok(Map::new()),
            _ => Err(self.fault(at, "`configuration` is a mapping of names to texts and numbers").into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLES: &str = "roles:\n  - name: storage\n    quorum: true\n    processes:\n      - name: confd\n      - name: ios\n        multiplicity: 2\n        \
                         endpoint: 10.0.0.1@tcp:12345:41:401\n        unit: ios@$id.service\n        configuration: {EP: $endpoint, SIZE: 4}\n";

    fn role() -> ProcessRole {
        roles(ROLES, FILE).unwrap().remove(0)
    }

    fn ids(made: &[Process]) -> Vec<(&str, Option<&str>)> {
        made.iter().map(|process| (process.id.as_str(), process.endpoint.as_deref())).collect()
    }

    #[test]
    fn a_role_makes_its_processes_as_often_as_it_says_and_endpoints_are_counted_up() {
        let mut there = Processes::new();
        let (made, said) = placed(&role(), "n1", true, &there).unwrap();
        assert_eq!(
            ids(&made),
            [("n1-confd-1", None), ("n1-ios-1", Some("10.0.0.1@tcp:12345:41:401")), ("n1-ios-2", Some("10.0.0.1@tcp:12345:41:402"))]
        );
        assert_eq!(said, ["n1-ios-2: 10.0.0.1@tcp:12345:41:401 is taken by n1-ios-1, so it has 10.0.0.1@tcp:12345:41:402"]);
        assert_eq!(made[2].unit.as_deref(), Some("ios@n1-ios-2.service"));
        assert_eq!(made[2].configuration.get("EP"), Some(&Value::str("10.0.0.1@tcp:12345:41:402")));
        // What a gap leaves is taken again; the rest goes on.
        there.insert("n1".into(), vec![made[0].clone(), made[2].clone()]);
        let (more, _) = placed(&role(), "n1", false, &there).unwrap();
        assert_eq!(
            ids(&more),
            [("n1-confd-2", None), ("n1-ios-1", Some("10.0.0.1@tcp:12345:41:401")), ("n1-ios-3", Some("10.0.0.1@tcp:12345:41:403"))]
        );
        assert!(!more[0].managed && !more[0].online);
    }

    #[test]
    fn where_no_endpoint_is_free_none_is_made() {
        let taken = |last: &str| BTreeMap::from([(format!("a:{last}"), "x".to_owned())]);
        assert_eq!(free("a:65534", &taken("65534")).unwrap().0, "a:65535");
        assert!(free("a:65535", &taken("65535")).unwrap_err().summary.contains("taken by x, and no other"));
        assert!(free("a:b", &taken("b")).is_err());
        assert!(free("a:99999999999999", &taken("99999999999999")).is_err());
    }

    #[test]
    fn what_a_node_has_reads_back_the_same() {
        let (made, _) = placed(&role(), "n1", true, &Processes::new()).unwrap();
        let text = serde_json::to_string(&to_value(&made)).unwrap();
        assert_eq!(processes(&text, "x").unwrap(), made);
        assert_eq!(processes("", "x").unwrap(), []);
    }

    #[test]
    fn unknown_keys_and_impossible_values_are_refused() {
        let refused = |text: &str| *roles(text, FILE).unwrap_err();
        assert_eq!(refused(&ROLES.replace("multiplicity", "multiplicty")).hint.as_deref(), Some("did you mean \"multiplicity\"?"));
        assert!(refused(&ROLES.replace("multiplicity: 2", "multiplicity: 0")).summary.contains("from 1 to 1000"));
        assert!(refused(&ROLES.replace("name: ios", "name: ../x")).summary.contains("cannot be a name"));
        assert!(refused(&ROLES.replace("unit: ios@$id.service", "unit: -x")).summary.contains("one word"));
        assert!(refused("roles: [{name: x}]\n").summary.contains("a name and processes"));
        assert!(refused("rules: []\n").hint.is_some());
        assert!(processes("- {id: a, role: r, wanted: maybe}\n", "x").unwrap_err().summary.contains("online or offline"));
        assert!(processes("- {role: r}\n", "x").is_err());
    }

    #[test]
    fn a_quorum_is_more_than_half() {
        let process =
            |number: usize| Process { id: format!("p{number}"), quorum: true, ..processes("- {id: x, role: r}\n", "x").unwrap().remove(0) };
        let there = Processes::from([("n1".to_owned(), (1..=3).map(process).collect())]);
        let (one, two) = (process(1), process(2));
        assert_eq!(breaks_quorum(&[&one], &there, &|_| true), None);
        assert!(breaks_quorum(&[&one, &two], &there, &|_| true).unwrap().contains("1 would be left"));
        assert!(breaks_quorum(&[&one], &there, &|process| process.id != "p3").is_some());
        let loose = Process { quorum: false, ..one };
        assert_eq!(breaks_quorum(&[&loose], &Processes::from([("n1".to_owned(), vec![loose.clone()])]), &|_| true), None);
    }

    #[test]
    fn states_have_the_names_of_the_table() {
        let units = [
            ("active", "running", "", "online"),
            ("activating", "start", "", "starting"),
            ("deactivating", "stop", "", "quiescing"),
            ("deactivating", "stop-sigterm", "", "stopping"),
            ("inactive", "dead", "", "offline"),
            ("failed", "failed", "exit-code", "failed (exit-code)"),
            ("", "", "", "unknown"),
        ];
        for (active, sub, result, name) in units {
            assert_eq!(State::of_unit(active, sub, result).to_string(), name);
        }
        let away = State::Failed("signal".into()).inhibited();
        assert_eq!((away.to_string().as_str(), away.is_down()), ("inhibited (failed (signal))", false));
        assert_eq!((away.clone().inhibited(), State::Unknown.inhibited()), (away, State::Unknown));
    }
}
