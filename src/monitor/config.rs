//! `storage-ops.yaml` as the monitor reads it: mappings, lists of words, comments and quotes, which is what the states write (the agent carries no whole
//! YAML). What is not known, missing or senseless is an error with its line: nothing is guessed where files may be deleted.

use std::path::Path;
use std::time::Duration;

use super::decide::{Classes, Thresholds, Tier};
use crate::diagnostic::{Code, Diagnostic, Result, Span, nearest};

#[derive(Debug, PartialEq)]
pub struct Config {
    pub thresholds: Thresholds,
    pub interval: Duration,
    pub retention: Duration,
    /// Percent points that usage must fall below a threshold before its tier ends.
    pub hysteresis: f64,
    /// Where history, tiers and markers are kept.
    pub state: String,
    /// A text file for node exporters.
    pub metrics: Option<String>,
    /// Bytes that are to stay free.
    pub min_free: u64,
    pub classes: Classes,
    pub log_paths: Vec<String>,
    pub compress_after: Duration,
    pub delete_after: Duration,
    pub temporary_paths: Vec<String>,
    pub temporary_after: Duration,
    /// Containers' logs above this size are cut.
    pub container_log_size: u64,
    pub prune_until: String,
    pub stop_services: Vec<String>,
    /// A cache that is kept at this size: its folder and bytes.
    pub cache: Option<(String, u64)>,
    pub container_limit: Option<usize>,
    /// Nothing is deleted unless something in this folder is younger than a day.
    pub backup: Option<String>,
}

enum Node {
    Text(String),
    List(Vec<String>),
    Map(Vec<(String, usize, Node)>),
}

/// A line that says something: number, depth, text.
type Line<'a> = (usize, usize, &'a str);

struct Reader<'a> {
    file: &'a str,
    lines: Vec<Line<'a>>,
    at: usize,
}

/// A text without its comment: a `#` that stands first or behind a blank, outside of quotes.
fn without_comment(line: &str) -> &str {
    let (mut quote, mut before) = (None, ' ');
    for (at, c) in line.char_indices() {
        match quote {
            Some(open) if c == open && before != '\\' => quote = None,
            Some(_) => {}
            None if c == '#' && before.is_whitespace() => return line.get(..at).unwrap_or_default(),
            None if (c == '"' || c == '\'') && !before.is_alphanumeric() => quote = Some(c),
            None => {}
        }
        before = c;
    }
    line
}

impl<'a> Reader<'a> {
    fn new(file: &'a str, text: &'a str) -> Reader<'a> {
        let lines = text.lines().enumerate().filter_map(|(index, line)| {
            let line = without_comment(line).trim_end();
            let depth = line.len() - line.trim_start_matches(' ').len();
            (!line.trim().is_empty() && line != "---").then(|| (index + 1, depth, line.trim_start_matches(' ')))
        });
        Reader { file, lines: lines.collect(), at: 0 }
    }

    fn error(&self, line: usize, summary: impl Into<String>) -> crate::diagnostic::Error {
        Diagnostic::new(Code::Compile, summary).at(Span::new(self.file, line as u32, 0)).into()
    }

    fn peek(&self) -> Option<Line<'a>> {
        self.lines.get(self.at).copied()
    }

    fn word(&self, line: usize, text: &str) -> Result<String> {
        let text = text.trim();
        let wrong = || self.error(line, format!("a word or a number is expected here, not {text}"));
        match text.chars().next() {
            Some('"') => serde_json::from_str(text).map_err(|_| wrong()),
            Some('\'') => text.strip_prefix('\'').and_then(|t| t.strip_suffix('\'')).map(|t| t.replace("''", "'")).ok_or_else(wrong),
            Some('{' | '[' | '&' | '*' | '!' | '|' | '>' | '%' | '@' | '`') => Err(wrong()),
            _ => Ok(text.to_owned()),
        }
    }

    /// What stands below a key at this depth.
    fn block(&mut self, above: Option<usize>) -> Result<Node> {
        let Some((_, depth, text)) =
            self.peek().filter(|(_, depth, text)| above.is_none_or(|above| *depth > above || (*depth == above && text.starts_with("- "))))
        else {
            return Ok(Node::Text(String::new()));
        };
        if text.starts_with("- ") {
            let mut items = Vec::new();
            while let Some((line, _, text)) = self.peek().filter(|(_, d, text)| *d == depth && text.starts_with("- ")) {
                items.push(self.word(line, text.trim_start_matches("- "))?);
                self.at += 1;
            }
            return Ok(Node::List(items));
        }
        let mut entries: Vec<(String, usize, Node)> = Vec::new();
        while let Some((line, own, text)) = self.peek() {
            if own < depth || above.is_some_and(|above| own <= above) {
                break;
            }
            let Some((key, rest)) = text.split_once(':').filter(|(_, rest)| own == depth && (rest.is_empty() || rest.starts_with(' ')))
            else {
                return Err(self.error(line, format!("`key: value` is expected here, at the depth of the lines above: {text}")));
            };
            if entries.iter().any(|(known, ..)| known == key) {
                return Err(self.error(line, format!("{key} is here twice")));
            }
            self.at += 1;
            let value = match rest.trim() {
                "" => self.block(Some(depth))?,
                "[]" => Node::List(Vec::new()),
                rest => Node::Text(self.word(line, rest)?),
            };
            entries.push((key.to_owned(), line, value));
        }
        Ok(Node::Map(entries))
    }
}

/// A mapping that is taken apart: what is left over was not known.
struct Section<'r, 'a> {
    reader: &'r Reader<'a>,
    name: &'static str,
    line: usize,
    entries: Vec<(String, usize, Node)>,
    asked: Vec<&'static str>,
}

impl<'r, 'a> Section<'r, 'a> {
    fn new(reader: &'r Reader<'a>, name: &'static str, line: usize, node: Node) -> Result<Section<'r, 'a>> {
        match node {
            Node::Map(entries) => Ok(Section { reader, name, line, entries, asked: Vec::new() }),
            _ => Err(reader.error(line, format!("{name} is to be a mapping"))),
        }
    }

    fn take(&mut self, key: &'static str) -> Option<(usize, Node)> {
        self.asked.push(key);
        let index = self.entries.iter().position(|(known, ..)| known == key)?;
        let (_, line, node) = self.entries.remove(index);
        Some((line, node))
    }

    fn needed(&self, key: &str) -> crate::diagnostic::Error {
        self.reader.error(self.line, format!("{} needs {key}", self.name))
    }

    fn section(&mut self, key: &'static str) -> Result<Section<'r, 'a>> {
        let (line, node) = self.take(key).ok_or_else(|| self.needed(key))?;
        Section::new(self.reader, key, line, node)
    }

    fn optional(&mut self, key: &'static str) -> Result<Option<Section<'r, 'a>>> {
        self.take(key).map(|(line, node)| Section::new(self.reader, key, line, node)).transpose()
    }

    /// A word as `read` understands it; `what` says what it is to be.
    fn word<T>(&mut self, key: &'static str, what: &str, read: impl Fn(&str) -> Option<T>) -> Result<Option<T>> {
        let Some((line, node)) = self.take(key) else { return Ok(None) };
        let text = match node {
            Node::Text(text) => text,
            _ => String::new(),
        };
        let value = read(&text).ok_or_else(|| self.reader.error(line, format!("{key} is to be {what}, found {text:?}")))?;
        Ok(Some(value))
    }

    fn must<T>(&mut self, key: &'static str, what: &str, read: impl Fn(&str) -> Option<T>) -> Result<T> {
        self.word(key, what, read)?.ok_or_else(|| self.needed(key))
    }

    fn list(&mut self, key: &'static str) -> Result<Vec<String>> {
        match self.take(key) {
            None => Err(self.needed(key)),
            Some((_, Node::List(items))) => Ok(items),
            Some((line, _)) => Err(self.reader.error(line, format!("{key} is to be a list"))),
        }
    }

    fn paths(&mut self, key: &'static str) -> Result<Vec<String>> {
        let line = self.entries.iter().find(|(known, ..)| known == key).map_or(self.line, |(_, line, _)| *line);
        let paths = self.list(key)?;
        match paths.iter().find(|path| path_of(path).is_none()) {
            Some(wrong) => Err(self.reader.error(line, format!("{key} has {wrong:?}, which is no absolute path below /"))),
            None => Ok(paths),
        }
    }

    /// What nobody asked for is a slip of the pen.
    fn end(self) -> Result<()> {
        let Some((key, line, _)) = self.entries.first() else { return Ok(()) };
        let near = nearest(key, self.asked.iter().copied()).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        Err(self.reader.error(*line, format!("{} knows no {key}{near}", self.name)))
    }
}

/// A path that may be walked: absolute, not the root, without `..`.
fn path_of(text: &str) -> Option<String> {
    let good = text.starts_with('/') && text.len() > 1 && !text.split('/').any(|part| part == ".." || part == ".");
    good.then(|| text.trim_end_matches('/').to_owned())
}

/// `90s`, `5m`, `24h`, `7d`.
fn duration(text: &str) -> Option<Duration> {
    let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 86400)];
    let (number, seconds) = units.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?.parse::<u32>().ok()?, *seconds)))?;
    (number > 0).then(|| Duration::from_secs(u64::from(number) * seconds))
}

/// `50m`, `20G`: bytes.
fn size(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let units = [("k", 10), ("m", 20), ("g", 30), ("t", 40)];
    let (number, shift) = units.iter().find_map(|(unit, shift)| Some((lower.strip_suffix(unit)?.parse::<u32>().ok()?, *shift)))?;
    (number > 0).then_some(u64::from(number) << shift)
}

fn percent(text: &str) -> Option<f64> {
    text.parse::<u8>().ok().filter(|number| *number <= 100).map(f64::from)
}

/// A unit that systemctl takes as a word and nothing else.
fn is_service(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('-') && name.chars().all(|c| c.is_ascii_alphanumeric() || "@._:-\\".contains(c))
}

const SPAN: &str = "a time such as 5m, 24h or 7d";
const SIZE: &str = "a size such as 50m or 20G";

impl Config {
    pub fn read(path: &Path) -> Result<Config> {
        let text = std::fs::read_to_string(path).map_err(|e| Diagnostic::io(format_args!("read {}", path.display()), &e))?;
        Config::parse(&path.display().to_string(), &text)
    }

    pub fn parse(file: &str, text: &str) -> Result<Config> {
        let mut reader = Reader::new(file, text);
        let node = reader.block(None)?;
        if let Some((line, ..)) = reader.peek() {
            return Err(reader.error(line, "this line belongs to nothing above it"));
        }
        let mut whole = Section::new(&reader, "the file", 1, node)?;
        let mut storage = whole.section("storage")?;
        whole.end()?;
        let any = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        // What the states say of the node for people.
        for key in ["role", "scale", "policy", "backup"] {
            storage.word(key, "a word", any)?;
        }

        let mut numbers = storage.section("thresholds")?;
        let mut thresholds = Vec::new();
        let mut last: Option<(&str, f64)> = None;
        for tier in Tier::ALL {
            let line = numbers.entries.iter().find(|(key, ..)| key == tier.name()).map_or(numbers.line, |(_, line, _)| *line);
            let number = numbers.must(tier.name(), "a whole number from 0 to 100", percent)?;
            if let Some((name, below)) = last.filter(|(_, below)| *below >= number) {
                return Err(reader.error(line, format!("{} ({number}) is to be above {name} ({below})", tier.name())));
            }
            last = Some((tier.name(), number));
            thresholds.push((tier, number));
        }
        numbers.end()?;

        let mut monitor = storage.section("monitor")?;
        let interval = monitor.must("interval", SPAN, duration)?;
        let retention = monitor.must("history_retention", SPAN, duration)?;
        let hysteresis = monitor.word("hysteresis", "a whole number from 0 to 100", percent)?.unwrap_or(2.0);
        let state = monitor.word("state", "an absolute path", path_of)?.unwrap_or_else(|| "/var/lib/eos/storage".to_owned());
        let metrics = monitor.word("metrics", "an absolute path", path_of)?;
        monitor.end()?;

        let min_free = storage.must("min_free_space", "a number of megabytes", |text| text.parse::<u32>().ok())?;
        let mut classification = storage.section("classification")?;
        let mut classes = Vec::new();
        for (name, class) in super::decide::CLASSES {
            classes.extend(classification.list(name)?.into_iter().map(|pattern| (pattern, class)));
        }
        classification.end()?;

        let mut cleanup = storage.section("cleanup")?;
        let mut docker = cleanup.section("docker")?;
        let log_size = docker.must("log_max_size", SIZE, size)?;
        let log_files = docker.must("log_max_files", "a number", |text| text.parse::<u8>().ok().filter(|n| *n > 0))?;
        let prune_until = docker.must("prune_until", SPAN, |text| duration(text).map(|_| text.to_owned()))?;
        docker.end()?;
        let mut logs = cleanup.section("logs")?;
        let log_paths = logs.paths("paths")?;
        let compress_after = logs.must("compress_after", SPAN, duration)?;
        let delete_after = logs.must("delete_after", SPAN, duration)?;
        logs.end()?;
        let mut temporary = cleanup.section("temporary")?;
        let temporary_paths = temporary.paths("paths")?;
        let temporary_after = temporary.must("delete_after", SPAN, duration)?;
        temporary.end()?;
        cleanup.end()?;

        let mut emergency = storage.section("emergency")?;
        let line = emergency.line;
        let stop_services = emergency.list("stop_services")?;
        if let Some(wrong) = stop_services.iter().find(|name| !is_service(name)) {
            return Err(reader.error(line, format!("stop_services has {wrong:?}, which cannot be the name of a service")));
        }
        let preserve = emergency.paths("preserve_paths")?;
        emergency.end()?;

        let mut cache = None;
        if let Some(mut edge) = storage.optional("edge")? {
            cache = Some((edge.must("cache_path", "an absolute path", path_of)?, edge.must("cache_size", SIZE, size)?));
            edge.end()?;
        }
        let mut container_limit = None;
        if let Some(mut core) = storage.optional("core")? {
            container_limit = core.word("container_limit", "a number", |text| text.parse().ok())?;
            core.end()?;
        }
        let mut backup = None;
        if let Some(mut data) = storage.optional("data")? {
            let first = data.must("backup_before_cleanup", "true or false", |text| text.parse::<bool>().ok())?;
            let path = data.must("backup_path", "an absolute path", path_of)?;
            backup = first.then_some(path);
            data.end()?;
        }
        storage.end()?;
        Ok(Config {
            thresholds: Thresholds(thresholds),
            interval,
            retention,
            hysteresis,
            state,
            metrics,
            min_free: u64::from(min_free) << 20,
            classes: Classes { patterns: classes, preserve },
            log_paths,
            compress_after,
            delete_after,
            temporary_paths,
            temporary_after,
            container_log_size: log_size * u64::from(log_files),
            prune_until,
            stop_services,
            cache,
            container_limit,
            backup,
        })
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub const TEXT: &str = include_str!("storage-ops.yaml");

    #[test]
    fn a_whole_file_is_read() {
        let config = Config::parse("f", TEXT).unwrap();
        assert_eq!(config.thresholds.0.iter().map(|(_, n)| *n as u32).collect::<Vec<_>>(), [70, 75, 80, 83, 86, 90]);
        assert_eq!((config.interval.as_secs(), config.min_free, config.container_log_size), (60, 1000 << 20, 300 << 20));
        assert_eq!(config.stop_services, ["varnish", "haproxy"]);
        assert_eq!(config.cache, Some(("/var/cache/nginx".to_owned(), 20 << 30)));
        assert!(config.classes.patterns.iter().any(|(pattern, _)| pattern == "*.key"));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (old, new, said) in [
            ("degraded: 83", "degraded: 86", "emergency (86) is to be above degraded (86)"),
            ("critical: 90", "critical: 101", "critical is to be a whole number from 0 to 100, found \"101\""),
            ("critical: 90", "critcal: 90", "thresholds needs critical"),
            ("interval: 1m", "interval: soon", "interval is to be a time such as 5m, 24h or 7d, found \"soon\""),
            ("preserve_paths:", "preserved_paths:", "emergency needs preserve_paths"),
            ("        - /tmp", "        - ../tmp", "paths has \"../tmp\", which is no absolute path below /"),
            ("        - /tmp", "        - /", "paths has \"/\", which is no absolute path below /"),
            ("- varnish", "- --now", "stop_services has \"--now\", which cannot be the name of a service"),
            ("interval: 1m", "interval: 1m\n    intervall: 2m", "monitor knows no intervall; did you mean interval?"),
            ("interval: 1m", "interval: 1m\n    interval: 2m", "interval is here twice"),
            ("interval: 1m", "interval: {a: b}", "a word or a number is expected here, not {a: b}"),
            ("  scale: small", " scale: small", "`key: value` is expected here, at the depth of the lines above: scale: small"),
        ] {
            let text = TEXT.replacen(old, new, 1);
            assert_ne!(text, TEXT, "{old}");
            let error = Config::parse("f", &text).unwrap_err();
            assert_eq!(error.summary, said);
            assert!(error.span.is_some_and(|span| span.line > 0));
        }
        for text in ["", "storage:\n", "- a\n", "storage: x\n", "a:\n  - b\n c: d\n", "\t\n:\n", "storage:\n  - \"\n"] {
            assert!(Config::parse("f", text).is_err(), "{text:?}");
        }
    }
}
