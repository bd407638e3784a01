//! apt's sources as Salt reads and writes them: lines of `.list` files, paragraphs of `.sources` files.

/// A line `deb [options] uri suite components # comment`, switched off where it begins with `#`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Source {
    pub disabled: bool,
    pub kind: String,
    /// `name=value` in their order.
    pub options: Vec<(String, String)>,
    pub uri: String,
    pub suite: String,
    pub components: Vec<String>,
    pub comment: String,
}

const KINDS: [&str; 4] = ["deb", "deb-src", "rpm", "rpm-src"];

impl Source {
    /// Nothing where the line is none.
    pub fn parse(line: &str) -> Option<Source> {
        let line = line.trim();
        let (line, disabled) = line.strip_prefix('#').map_or((line, false), |rest| (rest, true));
        // A comment, but for a `#` at the very start.
        let (line, comment) = match line.char_indices().find(|(at, c)| *at > 0 && *c == '#') {
            Some((at, _)) => (line.get(..at)?, line.get(at + 1..)?),
            None => (line, ""),
        };
        let (kind, rest) = line.trim().split_once(char::is_whitespace)?;
        let mut rest = rest.trim_start();
        let mut options = Vec::new();
        if let Some(inside) = rest.strip_prefix('[') {
            let (inside, behind) = inside.split_once(']')?;
            for option in inside.split_whitespace() {
                let (name, value) = option.split_once('=')?;
                options.push((name.to_owned(), value.to_owned()));
            }
            rest = behind.trim_start();
        }
        let mut words = rest.split_whitespace().map(str::to_owned);
        let source = Source {
            disabled,
            kind: kind.to_owned(),
            options,
            uri: words.next()?,
            suite: words.next()?,
            components: words.collect(),
            comment: comment.to_owned(),
        };
        KINDS.contains(&kind).then_some(source)
    }

    pub fn line(&self) -> String {
        let options: Vec<String> = self.options.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let options = if options.is_empty() { String::new() } else { format!(" [{}]", options.join(" ")) };
        let off = if self.disabled { "# " } else { "" };
        let line = format!("{off}{}{options} {} {} {}", self.kind, self.uri, self.suite, self.components.join(" "));
        let comment = if self.comment.is_empty() { String::new() } else { format!(" #{}", self.comment) };
        format!("{}{comment}\n", if comment.is_empty() { line.trim_end() } else { &line })
    }

    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn set_option(&mut self, name: &str, value: &str) {
        match self.options.iter_mut().find(|(n, _)| n == name) {
            Some((_, there)) => value.clone_into(there),
            None => self.options.push((name.to_owned(), value.to_owned())),
        }
    }

    pub fn architectures(&self) -> Vec<&str> {
        self.option("arch").map(|list| list.split(',').collect()).unwrap_or_default()
    }

    /// Whether two name the same thing to be had: kind, place, suite.
    pub fn same_place(&self, other: &Source) -> bool {
        let plain = |uri: &str| uri.trim_end_matches('/').to_owned();
        self.kind == other.kind && plain(&self.uri) == plain(&other.uri) && self.suite == other.suite
    }

    /// Whether nothing but the order of components and options differs.
    pub fn same(&self, other: &Source) -> bool {
        let sorted = |source: &Source| {
            let mut copy = source.clone();
            copy.components.sort();
            copy.options.sort();
            copy.uri = copy.uri.trim_end_matches('/').to_owned();
            copy.comment = copy.comment.trim().to_owned();
            copy
        };
        sorted(self) == sorted(other)
    }
}

/// A paragraph of a `.sources` file: its fields in their order, and its lines as they stand.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Paragraph {
    pub comments: Vec<String>,
    pub fields: Vec<(String, String)>,
}

impl Paragraph {
    /// All paragraphs of a file.
    pub fn parse_all(text: &str) -> Vec<Paragraph> {
        let mut all: Vec<Paragraph> = Vec::new();
        let mut open = false;
        for line in text.lines() {
            if line.trim().is_empty() {
                open = false;
                continue;
            }
            if !std::mem::replace(&mut open, true) {
                all.push(Paragraph::default());
            }
            let Some(now) = all.last_mut() else { continue };
            if line.starts_with('#') {
                now.comments.push(line.to_owned());
            } else if let (true, Some((_, value))) = (line.starts_with([' ', '\t']), now.fields.last_mut()) {
                value.push('\n');
                value.push_str(line);
            } else if let Some((name, value)) = line.split_once(':') {
                now.fields.push((name.trim().to_owned(), value.trim().to_owned()));
            }
        }
        all
    }

    pub fn text(&self) -> String {
        let comments = self.comments.iter().map(|line| format!("{line}\n"));
        let fields = self.fields.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| match value.starts_with('\n') {
            true => format!("{name}:{value}\n"),
            false => format!("{name}: {value}\n"),
        });
        comments.chain(fields).collect()
    }

    pub fn get(&self, name: &str) -> &str {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value.as_str())
    }

    pub fn set(&mut self, name: &str, value: Option<String>) {
        let there = self.fields.iter().position(|(n, _)| n.eq_ignore_ascii_case(name));
        match (there.and_then(|at| self.fields.get_mut(at)), value) {
            (Some((_, now)), Some(value)) => *now = value,
            (None, Some(value)) => self.fields.push((name.to_owned(), value)),
            (_, None) => self.fields.retain(|(n, _)| !n.eq_ignore_ascii_case(name)),
        }
    }

    pub fn words(&self, name: &str) -> Vec<String> {
        self.get(name).split_whitespace().map(str::to_owned).collect()
    }

    /// The lines that it stands for, one for each kind, place and suite.
    pub fn sources(&self) -> Vec<Source> {
        let mut options = Vec::new();
        for (field, option) in [("Architectures", "arch"), ("Signed-By", "signed-by"), ("Trusted", "trusted")] {
            let value = self.words(field).join(",");
            // A key that stands in the file itself is no path.
            if !value.is_empty() && !self.get(field).contains('\n') {
                options.push((option.to_owned(), value));
            }
        }
        let mut all = Vec::new();
        for uri in self.words("URIs") {
            for suite in self.words("Suites") {
                for kind in self.words("Types") {
                    all.push(Source {
                        disabled: ["no", "false", "without", "off", "disable", "0"].contains(&self.get("Enabled").to_lowercase().as_str()),
                        kind,
                        options: options.clone(),
                        uri: uri.clone(),
                        suite: suite.clone(),
                        components: self.words("Components"),
                        comment: String::new(),
                    });
                }
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_written() {
        for (line, again) in [
            ("deb http://x/debian stable main contrib", "deb http://x/debian stable main contrib\n"),
            ("  #deb   [ arch=amd64  signed-by=/k.gpg ] http://x  a/ #why", "# deb [arch=amd64 signed-by=/k.gpg] http://x a/  #why\n"),
            ("deb [trusted=yes] file:/srv ./", "deb [trusted=yes] file:/srv ./\n"),
        ] {
            assert_eq!(Source::parse(line).unwrap().line(), again);
        }
        for line in ["", "# a comment that is none", "deb http://x", "deb [arch=amd64 http://x a", "dub http://x a b"] {
            assert_eq!(Source::parse(line), None, "{line}");
        }
    }

    #[test]
    fn a_paragraph_stands_for_several_lines() {
        let text = "# mine\nTypes: deb deb-src\nURIs: http://x/\nSuites: a b\nComponents: main\nSigned-By: /k.gpg\n\n\nTypes: deb\nURIs: http://y\nSuites: c/\nSigned-By:\n -----BEGIN\n .\n Enabled\nEnabled: no\n";
        let all = Paragraph::parse_all(text);
        assert_eq!(all.len(), 2);
        assert_eq!(all.iter().map(Paragraph::text).collect::<Vec<_>>().join("\n"), text.replace("\n\n\n", "\n\n"));
        let lines: Vec<String> = all[0].sources().iter().map(Source::line).collect();
        assert_eq!(lines[3], "deb-src [signed-by=/k.gpg] http://x/ b main\n");
        let last = &all[1].sources()[0];
        assert_eq!((last.disabled, last.options.len(), last.line().as_str()), (true, 0, "# deb http://y c/\n"));
    }
}
