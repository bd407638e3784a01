//! The mine: `mine.get` in templates reads facts of other hosts. There is no cache to go stale: the hosts that are meant are asked in the same
//! command, over a session of their own that stays open until it ends, each question once. A host that cannot be asked stands with what
//! it said last, where that is remembered and young enough, or is left out; either is told in the plan.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex as Lock, PoisonError};

use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;

use super::answers::{Asking, Found, bound, runs, shown};
use super::compile::Answers;
use super::session::Session;
use crate::agent::protocol::{Answer, Call};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::fleet::{Form, Host, Target};
use crate::value::{Map, Value};

/// What hosts said in earlier commands. It forgets what is too old.
pub trait Memory: Send + Sync {
    /// How many seconds ago it was, and what was said.
    fn recall(&self, host: &str, what: &str) -> Option<(u64, Value)>;
    fn keep(&self, host: &str, what: &str, said: &Value);
}

/// Under this name a host's grains are remembered.
pub const GRAINS: &str = "grains";

pub struct Mine {
    hosts: Vec<Host>,
    nodegroups: Map,
    memory: Arc<dyn Memory>,
    places: Lock<HashMap<String, Arc<Mutex<Place>>>>,
}

/// A host of the mine during one command.
enum Place {
    Unasked,
    Open(Box<Open>),
    /// It cannot be asked: why.
    Gone(String),
}

struct Open {
    session: Session,
    pillar: Map,
    /// Its `mine_functions`, from pillar and roster.
    functions: Map,
    said: Vec<(Call, Answer)>,
}

/// What one host has to say to one question.
enum Said {
    Now(Value),
    /// So many seconds ago; why not now.
    Then(Value, u64, String),
    /// It has no such function, or does not tell this host.
    Nothing,
    Gone(String),
}

/// A host, what it has to say to each function (`None`: it is not meant), and what there is to tell of it.
type Asked = Pin<Box<dyn Future<Output = (String, (Option<Vec<Said>>, Found))> + Send>>;

/// A question to the mine.
#[derive(Clone)]
struct Question {
    target: Target,
    /// The names under which functions are asked for.
    functions: Vec<String>,
    /// The answers stand below the function's name.
    by_function: bool,
    /// Who asks.
    asker: String,
    grains: Map,
}

impl Mine {
    pub fn new(hosts: Vec<Host>, nodegroups: Map, memory: Arc<dyn Memory>) -> Mine {
        Mine { hosts, nodegroups, memory, places: Lock::default() }
    }

    /// `minion.list`: the hosts of the roster are those that are known.
    pub fn minions(&self) -> Value {
        let ids = self.hosts.iter().map(|host| Value::str(&host.id)).collect::<Vec<_>>();
        let none = || Value::List(Vec::new());
        let kinds = [("minions", Value::List(ids)), ("minions_pre", none()), ("minions_rejected", none()), ("minions_denied", none())];
        Value::Map(kinds.into_iter().collect())
    }

    /// Answers `mine.get(tgt, fun, tgt_type, exclude_minion)`.
    pub async fn get(self: &Arc<Mine>, asking: &Asking, asker: &str, grains: &Map, call: &Call) -> (Answer, Found) {
        let mut found = Found::default();
        let answer = match self.question(asker, grains, call) {
            Ok((question, leave_out)) => Answer::Value(self.ask_all(asking, question, leave_out, &mut found).await),
            Err(fault) => Answer::Error(*fault),
        };
        (answer, found)
    }

    fn question(&self, asker: &str, grains: &Map, call: &Call) -> Result<(Question, bool)> {
        let [target, fun, form, exclude] = bound(call, ["tgt", "fun", "tgt_type", "exclude_minion"])?;
        let missing = |name: &str| Diagnostic::new(Code::Template, format!("mine.get needs the argument {name}"));
        let target = match target.ok_or_else(|| missing("tgt"))? {
            Value::List(ids) => ids.iter().map(Value::to_text).collect::<Vec<_>>().join(","),
            other => other.to_text(),
        };
        let (functions, by_function) = match fun.ok_or_else(|| missing("fun"))? {
            Value::List(names) => (names.iter().map(Value::to_text).collect(), true),
            name => {
                let mut names: Vec<String> = name.to_text().split(',').map(str::to_owned).collect();
                names.dedup();
                let several = names.len() > 1;
                (names, several)
            }
        };
        let form = form.map_or("glob".to_owned(), |f| f.to_text());
        let target = Target::parse(Form::from_salt(&form)?, &target, &self.nodegroups)?;
        let question = Question { target, functions, by_function, asker: asker.to_owned(), grains: grains.clone() };
        Ok((question, exclude.is_some_and(|e| e.truthy())))
    }

    /// Asks every host that is meant, many at a time; the answers stand in the order of the ids.
    async fn ask_all(self: &Arc<Mine>, asking: &Asking, question: Question, leave_out: bool, found: &mut Found) -> Value {
        let places = Arc::new(Semaphore::new(asking.work.parallel.max(1)));
        let mut tasks = JoinSet::new();
        let known = question.target.needs_grains() || question.target.needs_pillar();
        for host in &self.hosts {
            // Where the id alone decides, hosts that are not meant are not even connected to.
            let meant = known || question.target.matches(&host.id, &Map::new(), &Map::new()).unwrap_or(false);
            if !meant || (leave_out && host.id == question.asker) {
                continue;
            }
            tasks.spawn(self.clone().asked(asking.clone(), question.clone(), host.clone(), places.clone()));
        }
        let mut all = BTreeMap::new();
        while let Some(Ok((host, said))) = tasks.join_next().await {
            all.insert(host, said);
        }
        self.sort(&question, all, found)
    }

    /// One host's answers. Boxed: whoever compiles may come here, and this compiles.
    fn asked(self: Arc<Mine>, asking: Asking, question: Question, host: Host, places: Arc<Semaphore>) -> Asked {
        Box::pin(async move {
            let _place = places.acquire_owned().await;
            let mut told = Found::default();
            let said = self.ask(&asking, &host, &question, &mut told).await;
            (host.id, (said, told))
        })
    }

    /// Puts the answers together as Salt does.
    fn sort(&self, question: &Question, all: BTreeMap<String, (Option<Vec<Said>>, Found)>, found: &mut Found) -> Value {
        let mut by_function: Vec<Map> = question.functions.iter().map(|_| Map::new()).collect();
        let (mut meant, mut gone) = (0, 0);
        for (host, (said, told)) in all {
            found.add(told);
            let Some(said) = said else { continue };
            meant += 1;
            for ((function, into), said) in question.functions.iter().zip(&mut by_function).zip(said) {
                let notice = match said {
                    Said::Now(value) => {
                        into.insert(host.as_str(), value);
                        continue;
                    }
                    Said::Nothing => continue,
                    Said::Then(value, seconds, why) => {
                        into.insert(host.as_str(), value);
                        format!("mine.get: {host} cannot be asked ({why}); its {function} is that of {} ago", ago(seconds))
                    }
                    Said::Gone(why) => {
                        gone += 1;
                        format!("mine.get: {host} is left out of {function}: {why}")
                    }
                };
                found.add(Found { notices: vec![notice], ..Found::default() });
            }
        }
        for (function, answers) in question.functions.iter().zip(&by_function) {
            if answers.is_empty() && meant > gone {
                let notice = format!("mine.get: no host that is meant has {function}; mine_functions in pillar or roster may declare it");
                found.add(Found { notices: vec![notice], ..Found::default() });
            }
        }
        if question.by_function {
            let named = question.functions.iter().zip(by_function).filter(|(_, answers)| !answers.is_empty());
            return Value::Map(named.map(|(function, answers)| (function.as_str(), Value::Map(answers))).collect());
        }
        Value::Map(by_function.into_iter().next().unwrap_or_default())
    }

    fn place(&self, host: &str) -> Arc<Mutex<Place>> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.entry(host.to_owned()).or_insert_with(|| Arc::new(Mutex::new(Place::Unasked))).clone()
    }

    /// One host's answers, an entry for each function; `None` where it is not meant.
    async fn ask(&self, asking: &Asking, host: &Host, question: &Question, told: &mut Found) -> Option<Vec<Said>> {
        let place = self.place(&host.id);
        let mut place = place.lock().await;
        if let Place::Unasked = *place {
            *place = match self.open(asking, host, told).await {
                Ok(open) => Place::Open(Box::new(open)),
                Err(fault) => Place::Gone(fault.summary),
            };
        }
        let open = match &mut *place {
            Place::Open(open) => open,
            Place::Gone(why) => return self.remembered(host, question, why),
            Place::Unasked => return None,
        };
        if !question.target.matches(&host.id, &open.session.grains.all, &open.pillar).unwrap_or(false) {
            return None;
        }
        let mut all = Vec::new();
        for function in &question.functions {
            let said = match declared(open.functions.get(function), function, question, &self.nodegroups) {
                Some(declared) => self.one(asking, host, open, function, declared, told).await,
                None => Said::Nothing,
            };
            all.push(said);
        }
        Some(all)
    }

    /// Asks one question, or remembers that it was asked in this command.
    async fn one(&self, asking: &Asking, host: &Host, open: &mut Open, name: &str, declared: Declared, told: &mut Found) -> Said {
        let Declared { call, own, for_all } = declared;
        let known = open.said.iter().find(|(asked, _)| *asked == call).map(|(_, answer)| answer.clone());
        let answer = match known {
            Some(answer) => answer,
            None if runs(&call.function) && (!own || !asking.work.commands) => {
                let why =
                    if own { "plan_commands forbids to run commands" } else { "mine_functions does not declare it, and it runs commands" };
                return Said::Gone(format!("{} is not run: {why}", call.function));
            }
            None => {
                if runs(&call.function) {
                    told.add(Found { ran: vec![format!("{} (on {}, for the mine)", shown(&call), host.id)], ..Found::default() });
                }
                match open.session.ask(vec![call.clone()]).await {
                    Ok(answers) => {
                        let answer = answers.into_iter().next().unwrap_or(Answer::Value(Value::Null));
                        // What is for some only is not remembered: who asks next may be another.
                        if let (Answer::Value(value), true) = (&answer, for_all) {
                            self.memory.keep(&host.id, name, value);
                        }
                        open.said.push((call, answer.clone()));
                        answer
                    }
                    Err(fault) => return self.recalled(host, name, &fault.summary),
                }
            }
        };
        match answer {
            Answer::Value(value) => Said::Now(value),
            // An alias that only other hosts declare is nothing to be told.
            Answer::Error(fault) if !own && fault.summary.ends_with("is not available") => Said::Nothing,
            Answer::Error(fault) => Said::Gone(fault.summary),
        }
    }

    /// What a host that cannot be asked said before.
    fn remembered(&self, host: &Host, question: &Question, why: &str) -> Option<Vec<Said>> {
        let grains = match self.memory.recall(&host.id, GRAINS) {
            Some((_, Value::Map(grains))) => Some(grains),
            _ => None,
        };
        let by_id = !question.target.needs_grains() && !question.target.needs_pillar();
        let meant = match &grains {
            _ if by_id => true,
            Some(grains) => question.target.matches(&host.id, grains, &Map::new()).unwrap_or(false),
            // Whether it is meant nobody can tell: that is worth a notice too.
            None => return Some(question.functions.iter().map(|_| Said::Gone(why.to_owned())).collect()),
        };
        meant.then(|| question.functions.iter().map(|function| self.recalled(host, function, why)).collect())
    }

    fn recalled(&self, host: &Host, function: &str, why: &str) -> Said {
        match self.memory.recall(&host.id, function) {
            Some((seconds, value)) => Said::Then(value, seconds, why.to_owned()),
            None => Said::Gone(why.to_owned()),
        }
    }

    /// Connects to a host and compiles its pillar, for its `mine_functions`.
    async fn open(&self, asking: &Asking, host: &Host, told: &mut Found) -> Result<Open> {
        let work = &asking.work;
        let mut session = work.session(host.clone()).await?;
        self.memory.keep(&host.id, GRAINS, &Value::Map(session.grains.all.clone()));
        let inner = Asking { mine: false, ..asking.clone() };
        let (compiler, id, grains) = (asking.compiler.clone(), host.id.clone(), session.grains.all.clone());
        let attempt = move |answers: &Answers| compiler.pillar(&id, &grains, answers);
        let pillar = match inner.answered(&mut session, attempt).await {
            Ok(answered) => {
                told.add(answered.found);
                answered.value
            }
            Err(fault) => {
                let notice =
                    format!("mine.get: the pillar of {} does not compile, so its mine_functions are unknown: {}", host.id, fault.summary);
                told.add(Found { notices: vec![notice], ..Found::default() });
                Map::new()
            }
        };
        let functions = functions(&pillar, host);
        Ok(Open { session, pillar, functions, said: Vec::new() })
    }

    /// Ends the sessions.
    pub async fn close(&self) {
        let places = std::mem::take(&mut *self.places.lock().unwrap_or_else(PoisonError::into_inner));
        let mut tasks = JoinSet::new();
        for place in places.into_values() {
            tasks.spawn(async move {
                if let Place::Open(open) = std::mem::replace(&mut *place.lock().await, Place::Unasked) {
                    open.session.close().await;
                }
            });
        }
        while tasks.join_next().await.is_some() {}
    }
}

/// `mine_functions` of pillar, with the roster's over them.
fn functions(pillar: &Map, host: &Host) -> Map {
    let mut all = Map::new();
    for given in [pillar.get("mine_functions"), host.minion_opts.get("mine_functions"), host.mine_functions.as_ref()].into_iter().flatten()
    {
        match given {
            Value::Map(map) => map.iter().for_each(|(name, how)| drop(all.insert(name.clone(), how.clone()))),
            // A list of names, or of names with their arguments.
            Value::List(items) => {
                for item in items {
                    match item {
                        Value::Map(map) => map.iter().for_each(|(name, how)| drop(all.insert(name.clone(), how.clone()))),
                        name => drop(all.insert(name.to_text(), Value::Null)),
                    }
                }
            }
            _ => {}
        }
    }
    all
}

/// The call behind a name.
struct Declared {
    call: Call,
    /// The host declares it.
    own: bool,
    /// Whoever asks is told.
    for_all: bool,
}

/// As the host declares it, or the function of that name without arguments. `None` where the host does not tell it to who asks.
fn declared(how: Option<&Value>, name: &str, question: &Question, nodegroups: &Map) -> Option<Declared> {
    let mut call = Call { function: name.to_owned(), args: Vec::new(), kwargs: Map::new() };
    let own = how.is_some();
    match how {
        Some(Value::Map(map)) => call.kwargs = map.clone(),
        Some(Value::List(items)) => {
            for item in items {
                match item {
                    Value::Map(map) => map.iter().for_each(|(k, v)| drop(call.kwargs.insert(k.clone(), v.clone()))),
                    argument => call.args.push(argument.clone()),
                }
            }
        }
        _ => {}
    }
    if let Some(function) = call.kwargs.remove("mine_function") {
        call.function = function.to_text();
    }
    let (allowed, form) = (call.kwargs.remove("allow_tgt"), call.kwargs.remove("allow_tgt_type"));
    let allowed = allowed.filter(Value::truthy);
    let for_all = allowed.is_none();
    if let Some(allowed) = allowed {
        let form = Form::from_salt(&form.map_or("glob".to_owned(), |f| f.to_text())).ok()?;
        let target = Target::parse(form, &allowed.to_text(), nodegroups).ok()?;
        target.matches(&question.asker, &question.grains, &Map::new()).ok().filter(|allowed| *allowed)?;
    }
    Some(Declared { call, own, for_all })
}

fn ago(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7200 => (seconds / 60, "minute"),
        _ => (seconds / 3600, "hour"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct Nothing;
    impl Memory for Nothing {
        fn recall(&self, _: &str, _: &str) -> Option<(u64, Value)> {
            None
        }
        fn keep(&self, _: &str, _: &str, _: &Value) {}
    }

    fn question(target: &str) -> Question {
        let mine = Mine::new(Vec::new(), Map::new(), Arc::new(Nothing));
        let call = Call { function: "mine.get".into(), args: vec![target.into(), "f,g".into()], kwargs: Map::new() };
        mine.question("web1", &Map::new(), &call).unwrap().0
    }

    #[test]
    fn a_name_becomes_the_call_that_the_host_declares() {
        let q = question("*");
        let show = |how: serde_json::Value| {
            let how: Value = serde_json::from_value(how).unwrap();
            let found = declared(Some(&how), "alias", &q, &Map::new());
            found.map(|found| serde_json::to_value(&found.call).unwrap())
        };
        assert_eq!(show(json!([])), Some(json!({"function": "alias"})));
        assert_eq!(show(json!(["eth0"])), Some(json!({"function": "alias", "args": ["eth0"]})));
        let want = json!({"function": "network.ip_addrs", "kwargs": {"cidr": "10.0.0.0/8"}});
        assert_eq!(show(json!([{"mine_function": "network.ip_addrs"}, {"cidr": "10.0.0.0/8"}])), Some(want.clone()));
        assert_eq!(show(json!({"mine_function": "network.ip_addrs", "cidr": "10.0.0.0/8"})), Some(want));
        // Salt's own access control: who may ask.
        assert_eq!(show(json!({"mine_function": "test.ping", "allow_tgt": "db*"})), None);
        assert_eq!(show(json!({"mine_function": "test.ping", "allow_tgt": "web*"})), Some(json!({"function": "test.ping"})));
        assert!(!declared(None, "test.ping", &q, &Map::new()).unwrap().own);
    }

    #[test]
    fn functions_come_from_pillar_and_the_roster_goes_before() {
        let pillar: Map = serde_json::from_value(json!({"mine_functions": {"a": [1], "b": [1]}})).unwrap();
        let mut host = Host::new("h", "h");
        host.mine_functions = Some(serde_json::from_value(json!(["test.ping", {"b": [2]}])).unwrap());
        assert_eq!(serde_json::to_value(functions(&pillar, &host)).unwrap(), json!({"a": [1], "b": [2], "test.ping": null}));
    }

    #[test]
    fn answers_stand_in_the_order_of_ids_and_what_is_missing_is_told() {
        let mine = Mine::new(Vec::new(), Map::new(), Arc::new(Nothing));
        let all = |entries: Vec<(&str, Option<Vec<Said>>)>| -> BTreeMap<String, (Option<Vec<Said>>, Found)> {
            entries.into_iter().map(|(host, said)| (host.to_owned(), (said, Found::default()))).collect()
        };
        let mut found = Found::default();
        let value = mine.sort(
            &question("*"),
            all(vec![
                ("c", Some(vec![Said::Now("3".into()), Said::Nothing])),
                ("a", Some(vec![Said::Now("1".into()), Said::Nothing])),
                ("b", Some(vec![Said::Gone("no route".into()), Said::Then("old".into(), 7300, "no route".into())])),
                ("d", None),
            ]),
            &mut found,
        );
        assert_eq!(serde_json::to_string(&value).unwrap(), r#"{"f":{"a":"1","c":"3"},"g":{"b":"old"}}"#);
        assert_eq!(
            found.notices,
            ["mine.get: b is left out of f: no route", "mine.get: b cannot be asked (no route); its g is that of 2 hours ago"]
        );
        let one = Question { functions: vec!["f".into()], by_function: false, ..question("*") };
        let value = mine.sort(&one, all(vec![("a", Some(vec![Said::Nothing]))]), &mut found);
        assert_eq!((serde_json::to_string(&value).unwrap().as_str(), found.notices.len()), ("{}", 3));
    }
}
