//! `basalt lint [PATH…]`: what is wrong or looks wrong in a tree, without any host.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::{Value as Json, json};

use super::context::{self, pillar_argument};
use super::print::{Color, Paint, Printer, clean, count, out};
use super::{Ended, RepositoryArgs};
use crate::diagnostic::{Code, Diagnostic, Result, Severity, Span};
use crate::engine::tree::{HostMatcher, TreeCompiler};
use crate::lang::lint::{Finding, Input, RULES, Report, families, lint};
use crate::lang::root::{Directory, Mount, Roots, Tree};
use crate::lang::{Compiler, Matcher, Options};
use crate::value::{Map, Value};

#[derive(Args)]
pub struct LintArgs {
    /// A state repository, a folder of SLS, or files: then only what is found in them is told
    #[arg(value_name = "PATH", default_value = ".")]
    paths: Vec<PathBuf>,
    /// One JSON object per line
    #[arg(long, conflicts_with = "sarif")]
    pub json: bool,
    /// SARIF 2.1.0, as code hosts and editors read it
    #[arg(long)]
    pub sarif: bool,
    /// End with 1 also where there are only warnings
    #[arg(long)]
    strict: bool,
    /// List the rules
    #[arg(long, exclusive = true)]
    rules: bool,
    /// Grains of a host, from a file of JSON or YAML, instead of the kinds of hosts that are built in; several are tried
    #[arg(long, value_name = "FILE")]
    grains: Vec<PathBuf>,
    /// Pillar to lay over the tree's: JSON, or a file of JSON or YAML
    #[arg(long, value_name = "JSON|FILE")]
    pillar: Option<String>,
    /// Instead of a repository: the settings of a Salt master (`/etc/salt`), with its file_roots, pillar_roots, nodegroups and roster
    #[arg(long, value_name = "DIR", conflicts_with = "file_root")]
    salt_config: Option<PathBuf>,
    /// A folder of states instead of what the repository says; several are looked through in order
    #[arg(long, value_name = "DIR")]
    file_root: Vec<PathBuf>,
    /// A folder of pillar, beside --file-root
    #[arg(long, value_name = "DIR", requires = "file_root")]
    pillar_root: Vec<PathBuf>,
}

/// The tree, the hosts of its roster, and the folder that names of files are relative to.
struct Opened {
    compiler: Compiler,
    nodegroups: Map,
    hosts: Vec<(String, Map)>,
    base: PathBuf,
}

pub fn run(args: LintArgs, color: Color) -> Ended {
    if args.rules {
        for rule in RULES {
            out(&format!("{:24} {:8} {}\n", rule.code, word(rule.severity), rule.about));
        }
        return Ok(0);
    }
    let opened = open(&args)?;
    let pillars: Vec<Map> = match pillar_argument(args.pillar.as_deref())? {
        Some(given) => vec![given],
        None => example(&opened.base).into_iter().collect(),
    };
    let mut grains = Vec::new();
    for path in &args.grains {
        grains.push((path.display().to_string(), super::see::grains_of_file(path)?));
    }
    if grains.is_empty() {
        grains = families();
    }
    let nodegroups = opened.nodegroups.clone();
    let matchers = |id: &str, grains: &Map| -> Box<dyn Matcher> {
        Box::new(Owned { id: id.to_owned(), grains: grains.clone(), nodegroups: nodegroups.clone() })
    };
    let input = Input { grains, pillars, hosts: opened.hosts, matchers: &matchers };
    let mut report = lint(&opened.compiler, &input);
    if report.sls == 0 && report.findings.is_empty() {
        return Err(nothing(&args).into());
    }
    let shown = Shown::new(&opened.base);
    let only = only(&args.paths, &opened.base)?;
    report.findings.retain(|finding| only.is_empty() || finding.diagnostic.span.as_ref().is_some_and(|span| shown.is_in(span, &only)));
    report.findings.iter_mut().for_each(|finding| shown.rename(finding));
    if args.sarif {
        out(&format!("{:#}\n", sarif(&report)));
    } else if args.json {
        report.findings.iter().for_each(|finding| out(&format!("{}\n", finding_json(finding))));
        out(&format!("{}\n", summary_json(&report)));
    } else {
        text(&report, &Printer::new(false, color));
    }
    let worst = |severity| report.findings.iter().any(|finding| finding.rule.severity == severity);
    Ok(u8::from(worst(Severity::Error) || (args.strict && worst(Severity::Warning))))
}

/// That nothing is wrong where nothing is would be a poor answer.
fn nothing(args: &LintArgs) -> Diagnostic {
    let fault = |place: &str| Diagnostic::new(Code::Usage, format!("there is no SLS {place}"));
    match &args.salt_config {
        Some(folder) => fault(&format!("in the roots that the Salt master's settings in {} name", folder.display()))
            .hint("file_roots names the folders of states; without it Salt has /srv/salt, and /srv/pillar for pillar"),
        None if !args.file_root.is_empty() => fault("below the file roots").hint("name the folder that holds top.sls or the formulas"),
        None => fault("to look at").hint("name a state repository, a folder of SLS, or SLS files"),
    }
}

/// A matcher that holds what it needs.
struct Owned {
    id: String,
    grains: Map,
    nodegroups: Map,
}

impl Matcher for Owned {
    fn matches(&self, expression: &str, form: &str, pillar: &Map) -> Result<bool> {
        HostMatcher { id: &self.id, grains: &self.grains, nodegroups: &self.nodegroups }.matches(expression, form, pillar)
    }
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

// --- the tree ---

fn open(args: &LintArgs) -> Result<Opened> {
    if !args.file_root.is_empty() {
        return from_folders(Path::new("."), &args.file_root, &args.pillar_root);
    }
    if args.salt_config.is_some() {
        let repository = RepositoryArgs { salt_config: args.salt_config.clone(), ..RepositoryArgs::default() };
        let (TreeCompiler { compiler, nodegroups, .. }, _, hosts) = context::tree_and_hosts(&repository)?;
        // Its folders lie anywhere: files have absolute names.
        return Ok(Opened { compiler, nodegroups, hosts, base: PathBuf::from(".") });
    }
    let first = args.paths.first().map_or(Path::new("."), PathBuf::as_path);
    if !first.exists() {
        let fault = Diagnostic::new(Code::Usage, format!("there is no {}", first.display()));
        return Err(fault.hint("name a state repository, a folder of SLS, or SLS files").into());
    }
    let place = if first.is_dir() { first } else { first.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")) };
    let repository = RepositoryArgs { repo: place.display().to_string(), ..RepositoryArgs::default() };
    match context::tree_and_hosts(&repository) {
        Ok((TreeCompiler { compiler, nodegroups, .. }, Some(base), hosts)) => Ok(Opened { compiler, nodegroups, hosts, base }),
        Err(fault) if fault.code == Code::Settings => Err(fault),
        // No git repository, or one without the folders that a plan wants: a formula, a folder of SLS.
        _ => {
            let (states, pillars) = guess(place);
            from_folders(place, &states, &pillars)
        }
    }
}

fn from_folders(base: &Path, states: &[PathBuf], pillars: &[PathBuf]) -> Result<Opened> {
    let shown =
        |folder: &Path| folder.strip_prefix(base).map_or_else(|_| folder.display().to_string(), |below| below.display().to_string());
    let roots = |folders: &[PathBuf]| -> Result<Roots> {
        let mut mounts = Vec::new();
        for folder in folders {
            let failed = |e| Diagnostic { code: Code::Usage, ..Diagnostic::io(format_args!("open the folder {}", folder.display()), &e) };
            let tree = Directory::new(folder, shown(folder)).map_err(failed)?;
            mounts.push(Mount { name: String::new(), tree: Arc::new(tree) as Arc<dyn Tree> });
        }
        Ok(if mounts.is_empty() { Roots::new() } else { Roots::base(mounts) })
    };
    let compiler = Compiler::new(roots(states)?, roots(pillars)?, Options::default());
    Ok(Opened { compiler, nodegroups: Map::new(), hosts: Vec::new(), base: base.to_owned() })
}

/// Which folders are file roots and which are pillar: those that have a `top.sls`, or the usual names, or all of it.
fn guess(folder: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let mut tops: Vec<PathBuf> = Vec::new();
    find_tops(folder, 0, &mut tops);
    tops.sort_by_key(|top| top.components().count());
    let is_pillar = |path: &Path| path.strip_prefix(folder).is_ok_and(|p| p.iter().any(|part| part.to_string_lossy().contains("pillar")));
    let parent = |top: &PathBuf| top.parent().map(Path::to_owned);
    let pillars: Vec<PathBuf> = tops.iter().filter(|top| is_pillar(top)).filter_map(parent).take(1).collect();
    let states: Option<PathBuf> = tops.iter().find(|top| !is_pillar(top)).and_then(parent);
    let usual = || ["states", "salt", "state", "sls", "file_roots"].into_iter().map(|name| folder.join(name)).find(|path| has_states(path));
    (vec![states.or_else(usual).unwrap_or_else(|| folder.to_owned())], pillars)
}

fn find_tops(folder: &Path, depth: usize, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if name == "top.sls" {
            out.push(path);
        } else if depth < 3 && !name.starts_with('.') && !name.starts_with("test") && path.is_dir() {
            find_tops(&path, depth + 1, out);
        }
    }
}

/// A folder of SLS, and not the formula of that name, which has its SLS right below.
fn has_states(folder: &Path) -> bool {
    let below = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect::<Vec<_>>();
    let is_sls = |path: &PathBuf| path.extension().is_some_and(|e| e == "sls");
    !folder.join("init.sls").exists() && below(folder).iter().any(|path| is_sls(path) || (path.is_dir() && below(path).iter().any(is_sls)))
}

/// What a formula gives as an example of its pillar.
fn example(base: &Path) -> Option<Map> {
    let text = std::fs::read_to_string(base.join("pillar.example")).ok()?;
    match crate::yaml::load(&text, "pillar.example") {
        Ok(Value::Map(map)) => Some(map),
        _ => None,
    }
}

/// The files and folders that only findings in are told, where they are less than the tree.
fn only(paths: &[PathBuf], base: &Path) -> Result<Vec<PathBuf>> {
    let base = base.canonicalize().unwrap_or_else(|_| base.to_owned());
    let mut out = Vec::new();
    for path in paths {
        let failed = |e| Diagnostic { code: Code::Usage, ..Diagnostic::io(format_args!("find {}", path.display()), &e) };
        let whole = path.canonicalize().map_err(failed)?;
        if base.starts_with(&whole) {
            return Ok(Vec::new());
        }
        out.push(whole);
    }
    Ok(out)
}

/// Names of files as the user would type them.
struct Shown {
    base: PathBuf,
    here: PathBuf,
}

impl Shown {
    fn new(base: &Path) -> Shown {
        Shown { base: base.canonicalize().unwrap_or_else(|_| base.to_owned()), here: std::env::current_dir().unwrap_or_default() }
    }

    fn is_in(&self, span: &Span, only: &[PathBuf]) -> bool {
        let file = self.base.join(&*span.file);
        let file = file.canonicalize().unwrap_or(file);
        only.iter().any(|path| file.starts_with(path))
    }

    fn name(&self, span: &Span) -> Span {
        let file = self.base.join(&*span.file);
        let name = file.strip_prefix(&self.here).map_or_else(|_| file.display().to_string(), |below| below.display().to_string());
        Span { file: name.into(), ..span.clone() }
    }

    fn rename(&self, finding: &mut Finding) {
        let diagnostic = &mut finding.diagnostic;
        diagnostic.span = diagnostic.span.take().map(|span| self.name(&span));
        diagnostic.related.iter_mut().for_each(|(span, _)| *span = self.name(span));
    }
}

// --- what is printed ---

fn text(report: &Report, printer: &Printer) {
    for Finding { rule, diagnostic } in &report.findings {
        let paint = match rule.severity {
            Severity::Error => Paint::Red,
            Severity::Warning => Paint::Yellow,
            Severity::Note => Paint::Cyan,
        };
        let place =
            diagnostic.span.as_ref().map(|span| format!("{}: ", printer.paint(Paint::Bold, &clean(&span.to_string())))).unwrap_or_default();
        let severity = printer.paint(paint, word(rule.severity));
        let code = printer.paint(Paint::Dim, &format!("[{}]", rule.code));
        let mut lines = format!("{place}{severity}: {} {code}", clean(&diagnostic.summary));
        let mut more = |label: &str, body: &str| {
            for (i, line) in body.lines().enumerate() {
                lines.push_str(&format!("\n    {}{}", if i == 0 { label } else { "" }, clean(line)));
            }
        };
        more("", diagnostic.excerpt.as_deref().unwrap_or_default());
        for (span, about) in &diagnostic.related {
            more("", &format!("{span}: {about}"));
        }
        more("", &diagnostic.detail);
        more("help: ", diagnostic.hint.as_deref().unwrap_or_default());
        printer.say(&lines);
    }
    let [errors, warnings, notes] = counts(report);
    if errors + warnings + notes > 0 {
        printer.say("");
    }
    let in_all = format!("in {} SLS", report.sls);
    printer.say(&match (errors, warnings, notes) {
        (0, 0, 0) => format!("Nothing found {in_all}."),
        _ => format!("{}, {}, {} {in_all}.", count(errors, "error"), count(warnings, "warning"), count(notes, "note")),
    });
}

fn counts(report: &Report) -> [usize; 3] {
    [Severity::Error, Severity::Warning, Severity::Note]
        .map(|severity| report.findings.iter().filter(|f| f.rule.severity == severity).count())
}

fn finding_json(Finding { rule, diagnostic }: &Finding) -> Json {
    let span = diagnostic.span.clone().unwrap_or_else(|| Span::new("", 0, 0));
    let related: Vec<Json> = diagnostic
        .related
        .iter()
        .map(|(span, message)| json!({"file": span.file, "line": span.line, "column": span.column, "message": message}))
        .collect();
    json!({
        "type": "finding", "code": rule.code, "severity": word(rule.severity), "file": span.file, "line": span.line, "column": span.column,
        "message": diagnostic.summary, "detail": diagnostic.detail, "hint": diagnostic.hint, "excerpt": diagnostic.excerpt, "related": related,
    })
}

fn summary_json(report: &Report) -> Json {
    let [errors, warnings, notes] = counts(report);
    json!({"type": "linted", "sls": report.sls, "errors": errors, "warnings": warnings, "notes": notes})
}

fn sarif(report: &Report) -> Json {
    let rules: Vec<Json> = RULES
        .iter()
        .map(|rule| {
            json!({
                "id": rule.code, "shortDescription": {"text": rule.about},
                "defaultConfiguration": {"level": word(rule.severity)},
            })
        })
        .collect();
    let place = |span: &Span| {
        json!({"physicalLocation": {
            "artifactLocation": {"uri": uri(&span.file)},
            "region": {"startLine": span.line.max(1), "startColumn": span.column.max(1)},
        }})
    };
    let results: Vec<Json> = report
        .findings
        .iter()
        .map(|Finding { rule, diagnostic }| {
            let mut text = diagnostic.summary.clone();
            for more in [Some(&diagnostic.detail), diagnostic.hint.as_ref()].into_iter().flatten().filter(|more| !more.is_empty()) {
                text.push_str(&format!("\n{more}"));
            }
            let related: Vec<Json> = diagnostic
                .related
                .iter()
                .enumerate()
                .map(|(id, (span, message))| {
                    let mut location = place(span);
                    location["id"] = json!(id);
                    location["message"] = json!({"text": message});
                    location
                })
                .collect();
            json!({
                "ruleId": rule.code, "ruleIndex": RULES.iter().position(|r| r.code == rule.code), "level": word(rule.severity),
                "message": {"text": text}, "locations": diagnostic.span.iter().map(place).collect::<Vec<_>>(), "relatedLocations": related,
            })
        })
        .collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {"name": "basalt", "version": env!("CARGO_PKG_VERSION"), "rules": rules}},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

/// A file's name as a URI, relative where the name is: what a URI cannot hold is escaped.
fn uri(file: &str) -> String {
    let scheme = if file.starts_with('/') { "file://" } else { "" };
    let escaped = file.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    });
    std::iter::once(scheme.to_owned()).chain(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::uri;

    #[test]
    fn a_uri_holds_what_it_may() {
        assert_eq!(uri("states/my web.sls"), "states/my%20web.sls");
        assert_eq!(uri("a:b/100%.sls"), "a%3Ab/100%25.sls");
        assert_eq!(uri("/srv/salt/é.sls"), "file:///srv/salt/%C3%A9.sls");
    }
}
