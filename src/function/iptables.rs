//! iptables.*: rules, chains and policies of the kernel's packet filter.
//!
//! A state says what is to be done; the object asks iptables what the table is then, so that a rule is known again however it is written.

use super::args::Args;
use super::{Arg, ArgKind, Entry, Function, There, Want};
use crate::diagnostic::Result;
use crate::plan::{Key, Kind, Low};
use crate::value::{Map, Value, attributes};

const NAME: Arg = Arg::new("name", ArgKind::Str, "", "A name for the state.");
const TABLE: Arg = Arg::new("table", ArgKind::Str, "filter", "The table: filter, nat, mangle, raw, security.");
const FAMILY: Arg = Arg::new("family", ArgKind::Str, "ipv4", "ipv4 or ipv6, for which there is another table each.");
const CHAIN: Arg = Arg::new("chain", ArgKind::Str, "", "The chain. Example: INPUT");
const SAVE: Arg =
    Arg::new("save", ArgKind::Bool, "False", "Also write the table into the file that is loaded at boot (/etc/iptables/rules.v4).");
const RULE: Arg = Arg::new(
    "*",
    ArgKind::Any,
    "",
    "The rule: options of iptables by their long names, connstate for --state, and if, of, proto, match, dports. Example: dport: 22",
);

const RULES: &[Arg] = &[NAME, TABLE, FAMILY, CHAIN, SAVE, RULE];
const INSERTED: &[Arg] =
    &[NAME, TABLE, FAMILY, CHAIN, SAVE, Arg::new("position", ArgKind::Int, "", "The rule's number in the chain, from 1."), RULE];
const DELETED: &[Arg] = &[
    NAME,
    TABLE,
    FAMILY,
    CHAIN,
    SAVE,
    Arg::new("position", ArgKind::Int, "", "The number of the rule that goes, instead of the rule."),
    RULE,
];
const POLICY: &[Arg] = &[
    NAME,
    TABLE,
    FAMILY,
    CHAIN,
    SAVE,
    Arg::new("policy", ArgKind::Str, "", "What becomes of packets that no rule is about: ACCEPT or DROP."),
];
const FLUSHED: &[Arg] = &[NAME, TABLE, FAMILY, Arg::new("chain", ArgKind::Str, "", "The chain. Default: all chains of the table.")];
const CHAINS: &[Arg] = &[Arg::new("name", ArgKind::Str, "", "The chain."), TABLE, FAMILY];

pub const FUNCTIONS: &[Entry] = &[
    Entry { name: "iptables.append", doc: "A chain has a rule, at its end where it is new.", args: RULES, watches: false, parse: append },
    Entry { name: "iptables.chain_absent", doc: "A table does not have a chain.", args: CHAINS, watches: false, parse: chain_absent },
    Entry { name: "iptables.chain_present", doc: "A table has a chain of one's own.", args: CHAINS, watches: false, parse: chain_present },
    Entry { name: "iptables.delete", doc: "A chain does not have a rule.", args: DELETED, watches: false, parse: delete },
    Entry { name: "iptables.flush", doc: "A chain has no rules.", args: FLUSHED, watches: false, parse: flush },
    Entry {
        name: "iptables.insert",
        doc: "A chain has a rule, at a place where it is new.",
        args: INSERTED,
        watches: false,
        parse: insert,
    },
    Entry { name: "iptables.set_policy", doc: "A chain has a policy.", args: POLICY, watches: false, parse: set_policy },
];

/// Options of targets, which stand behind the jump, in Salt's order.
const BEHIND: &str = "j jump add-set and-mark and-tos checksum-fill clamp-mss-to-pmtu clustermac ctevents ctmask del-set ecn-tcp-remove exist expevents \
    gateway hash-init hashmode helper label local-node log-ip-options log-level log-prefix log-tcp-options log-tcp-sequence log-uid map-set mask mss new \
    nfmask nflog-group nflog-prefix nflog-range nflog-threshold nodst notrack on-ip on-port or-mark or-tos persistent queue-balance queue-bypass queue-num \
    random random-fully rateest-ewmalog rateest-interval rateest-name reject-with restore restore-mark sack-perm save-mark selctx set-class set-dscp \
    set-dscp-class set-mark set-mss set-tos set-xmark strip-options timeout timestamp to to-destination to-ports to-source total-nodes tproxy-mark ttl-dec \
    ttl-inc ttl-set type ulog-cprange ulog-nlgroup ulog-prefix ulog-qthreshold wscale xor-mark xor-tos zone zone-orig zone-reply dst-pfx hl-dec hl-inc \
    hl-set hmark-dport-mask hmark-dst-prefix hmark-mod hmark-offset hmark-proto-mask hmark-rnd hmark-spi-mask hmark-sport-mask hmark-src-prefix \
    hmark-tuple led-always-blink led-delay led-trigger-id queue-cpu-fanout src-pfx to-port addr and-mask delude honeypot or-mask prefix reset reuse \
    set-mac shift static tarpit tname ttl";

/// Arguments that are no part of a rule.
const ASIDE: [&str; 9] = ["name", "table", "family", "chain", "save", "position", "policy", "state", "fun"];

/// The words of a rule, in the order in which Salt's module builds it.
struct Builder {
    rest: Map,
    words: Vec<String>,
}

impl Builder {
    fn take(&mut self, name: &str) -> Option<Value> {
        self.rest.remove(name)
    }

    fn matches(&mut self, module: &str) {
        if !self.words.windows(2).any(|pair| pair == ["-m", module]) {
            self.words.extend(["-m".to_owned(), module.to_owned()]);
        }
    }

    /// An option and its value, negated where that begins with `!` or `not`; white space parts it into words.
    fn option(&mut self, flag: &str, value: &Value) {
        let text = if value.is_null() { String::new() } else { value.to_text() };
        let (negated, text) = bare(&text);
        self.words.extend(negated.then(|| "!".to_owned()));
        self.words.push(flag.to_owned());
        self.words.extend(text.split_whitespace().map(str::to_owned));
    }

    fn option_of(&mut self, name: &str, flag: &str) -> bool {
        let value = self.take(name);
        value.iter().for_each(|value| self.option(flag, value));
        value.is_some()
    }
}

/// Whether a value is meant to be another, and the value.
fn bare(text: &str) -> (bool, String) {
    let negated = text.starts_with('!') || text.starts_with("not");
    if !negated {
        return (false, text.to_owned());
    }
    // As Salt does: wherever it stands.
    (true, text.replace("! ", "").replace('!', "").replace("not ", "").replace("not", ""))
}

fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::List(list) => list.iter().map(Value::to_text).collect(),
        other => vec![other.to_text()],
    }
}

fn rule(args: &Args) -> Result<Vec<String>> {
    if args.0.args.contains_key("rules") {
        return Err(args.error(format!("{} takes no rules: each is a state of its own", args.0.function())));
    }
    let own = args.0.args.iter().filter(|(name, _)| !ASIDE.contains(&name.to_text().as_str()));
    let mut rest: Map = own.map(|(name, value)| (name.clone(), value.clone())).collect();
    if let Some(target) = rest.remove("target") {
        rest.insert("jump", target);
    }
    let mut b = Builder { rest, words: Vec::new() };
    b.option_of("if", "-i");
    b.option_of("of", "-o");
    let policy = b.rest.get("match").and_then(Value::as_str) == Some("policy");
    let protocol = (!policy && b.option_of("proto", "-p")) | b.option_of("protocol", "-p");
    if let Some(modules) = b.take("match") {
        for module in texts(&modules).iter().flat_map(|text| text.split(',')) {
            b.words.extend(["-m".to_owned(), module.trim().to_owned()]);
            if ["pknock", "quota2", "recent"].contains(&module.trim()) {
                b.option_of("name_", "--name");
            }
        }
        if policy {
            b.option_of("proto", "--proto");
        }
    }
    for set in b.take("match-set").iter().flat_map(texts) {
        b.words.extend(["-m".to_owned(), "set".to_owned()]);
        b.option("--match-set", &Value::Str(set));
    }
    if b.rest.contains_key("connstate") {
        b.matches("state");
        b.option_of("connstate", "--state");
    }
    b.option_of("dport", "--dport");
    b.option_of("sport", "--sport");
    for ports in ["dports", "sports"] {
        let Some(value) = b.take(ports) else { continue };
        if !protocol {
            return Err(args.error(format!("{} with {ports} needs the argument proto", args.0.function())));
        }
        b.matches("multiport");
        let all: Vec<(bool, String)> = texts(&value).iter().map(|text| bare(text)).collect();
        b.words.extend(all.iter().any(|(negated, _)| *negated).then(|| "!".to_owned()));
        b.words.push(format!("--{ports}"));
        b.words.push(all.into_iter().map(|(_, port)| port).collect::<Vec<_>>().join(","));
    }
    if let Some(comment) = b.take("comment") {
        b.matches("comment");
        b.words.extend(["--comment".to_owned(), comment.to_text()]);
    }
    if b.rest.get("set").is_some_and(Value::truthy) {
        b.option_of("set", "--match-set");
    }
    let mut behind = Vec::new();
    for name in BEHIND.split_whitespace() {
        let Some(value) = b.take(name) else { continue };
        behind.push(format!("--{name}"));
        behind.extend(Some(value).filter(|value| !value.is_null()).map(|value| value.to_text()).filter(|text| !text.is_empty()));
    }
    for (name, value) in std::mem::take(&mut b.rest).iter() {
        let name = name.to_text();
        b.option(&format!("{}{name}", if name.len() == 1 { "-" } else { "--" }), value);
    }
    b.words.extend(behind);
    match b.words.iter().any(|word| word.contains(['\n', '\0'])) {
        true => Err(args.error("a rule of iptables has one line")),
        false => Ok(b.words),
    }
}

struct Table {
    key: Key,
    /// What, chain, words.
    operation: Vec<String>,
    save: bool,
}

fn word(args: &Args, name: &str) -> Result<String> {
    match args.str(name)?.filter(|text| !text.is_empty() && !text.contains(char::is_whitespace)) {
        Some(text) => Ok(text),
        None => Err(args.error(format!("{} needs the argument {name}", args.0.function()))),
    }
}

fn made(args: &Args, what: &str, chain: String, words: Vec<String>) -> Result<Box<dyn Function>> {
    let (family, table) = (args.str("family")?.unwrap_or_else(|| "ipv4".into()), args.str("table")?.unwrap_or_else(|| "filter".into()));
    if !["ipv4", "ipv6"].contains(&family.as_str()) || !["filter", "nat", "mangle", "raw", "security"].contains(&table.as_str()) {
        return Err(args.error(format!("there is no table {table} of {family}")));
    }
    let operation = [what.to_owned(), chain].into_iter().chain(words).collect();
    Ok(Box::new(Table { key: Key::new(Kind::Iptables, format!("{family}/{table}")), operation, save: args.bool("save", false)? }))
}

fn append(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    made(&args, "append", word(&args, "chain")?, rule(&args)?)
}

fn insert(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let Some(position) = args.int("position")?.filter(|at| *at > 0) else {
        return Err(args.error("iptables.insert needs the argument position, counted from 1"));
    };
    made(&args, "insert", word(&args, "chain")?, [vec![position.to_string()], rule(&args)?].concat())
}

fn delete(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let chain = word(&args, "chain")?;
    match args.int("position")? {
        Some(_) => Err(args.error("iptables.delete takes no position: the next run would delete another rule")),
        None => made(&args, "delete", chain, rule(&args)?),
    }
}

fn set_policy(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    made(&args, "policy", word(&args, "chain")?, vec![word(&args, "policy")?])
}

fn flush(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    made(&args, "flush", args.str("chain")?.unwrap_or_default(), Vec::new())
}

fn chain_present(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    made(&args, "chain", word(&args, "name")?, Vec::new())
}

fn chain_absent(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    made(&args, "no-chain", word(&args, "name")?, Vec::new())
}

impl Function for Table {
    fn objects(&self, _: &dyn There) -> Result<Vec<Key>> {
        Ok(vec![self.key.clone()])
    }

    fn want(&self, _: &dyn There) -> Result<Want> {
        let operation = self.operation.iter().map(Value::str).collect();
        let mut wanted = attributes([("do".to_owned(), Value::List(operation))]);
        if self.save {
            wanted.insert("save".into(), Value::Bool(true));
        }
        Ok(Want::Is(vec![(self.key.clone(), wanted)]))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Host, low, want};
    use super::*;
    use serde_json::json;

    /// As `salt.modules.iptables.build_rule` of Salt 3008 builds them.
    #[test]
    fn rules_are_those_of_salt() {
        let cases: Vec<(serde_json::Value, Vec<String>)> = serde_json::from_str(include_str!("iptables/rules.json")).unwrap();
        assert!(cases.len() > 10);
        for (args, wanted) in cases {
            let state = low("iptables.append", args.clone());
            assert_eq!(rule(&Args(&state)).unwrap(), wanted, "{args}");
        }
    }

    #[test]
    fn operations_say_what_chain_and_words() {
        for (function, args, wanted) in [
            (
                "append",
                json!({"name": "x", "chain": "INPUT", "jump": "ACCEPT", "save": true}),
                json!([["iptables:ipv4/filter", {"do": ["append", "INPUT", "--jump", "ACCEPT"], "save": true}]]),
            ),
            (
                "insert",
                json!({"name": "x", "chain": "INPUT", "position": 2, "jump": "ACCEPT", "family": "ipv6"}),
                json!([["iptables:ipv6/filter", {"do": ["insert", "INPUT", "2", "--jump", "ACCEPT"]}]]),
            ),
            (
                "set_policy",
                json!({"name": "x", "table": "nat", "chain": "OUTPUT", "policy": "DROP"}),
                json!([["iptables:ipv4/nat", {"do": ["policy", "OUTPUT", "DROP"]}]]),
            ),
            ("flush", json!({"name": "x"}), json!([["iptables:ipv4/filter", {"do": ["flush", ""]}]])),
            ("chain_present", json!({"name": "mine"}), json!([["iptables:ipv4/filter", {"do": ["chain", "mine"]}]])),
        ] {
            assert_eq!(want(&Host::default(), &format!("iptables.{function}"), args.clone()).unwrap(), wanted, "{args}");
        }
        for (function, args, said) in [
            ("append", json!({"name": "x"}), "iptables.append needs the argument chain"),
            (
                "insert",
                json!({"name": "x", "chain": "INPUT", "position": -1}),
                "iptables.insert needs the argument position, counted from 1",
            ),
            ("append", json!({"name": "x", "chain": "INPUT", "dports": [1]}), "iptables.append with dports needs the argument proto"),
            ("append", json!({"name": "x", "chain": "INPUT", "table": "none"}), "there is no table none of ipv4"),
            ("append", json!({"name": "x", "chain": "INPUT", "comment": "a\nCOMMIT"}), "a rule of iptables has one line"),
        ] {
            assert_eq!(want(&Host::default(), &format!("iptables.{function}"), args).unwrap_err(), said);
        }
    }
}
