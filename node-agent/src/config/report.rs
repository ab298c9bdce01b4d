//! What is wrong with a file: findings with their place, the text underlined
//! and a hint, collected so that all of them can be shown at once.

use std::{fmt, ops::Range, sync::Arc};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// Byte range in the text of the file.
pub type Span = Range<usize>;

/// One thing that is wrong, or doubtful, in a configuration file.
#[derive(Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether the file cannot be used because of it.
    pub severity: Severity,
    /// What is wrong, as one line.
    pub title: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Where; `None` when it concerns the file as a whole.
    span: Option<Span>,
    /// Other places that matter, each with a word why.
    related: Vec<(Span, String)>,
    source: Arc<Source>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used; perhaps it does not do what was meant.
    Warning,
}

/// All errors of a file, and the warnings that go with them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// In the order of the file; at least one is an error.
    pub findings: Vec<Finding>,
}

/// Collects findings while a file is read.
pub struct Report {
    source: Arc<Source>,
    findings: Vec<Finding>,
}

/// The file as read.
#[derive(PartialEq, Eq)]
struct Source {
    name: String,
    text: String,
}

impl Report {
    /// An empty report on a file called `name`.
    pub fn new(name: &str, text: &str) -> Self {
        let source = Source {
            name: name.to_owned(),
            text: text.to_owned(),
        };
        Self {
            source: Arc::new(source),
            findings: Vec::new(),
        }
    }

    /// Adds an error at `span`; hint and related places may be added to it.
    pub fn error(&mut self, span: &Span, title: impl Into<String>) -> &mut Finding {
        self.push(Severity::Error, Some(span.clone()), title.into())
    }

    /// Adds a warning at `span`.
    pub fn warning(&mut self, span: &Span, title: impl Into<String>) -> &mut Finding {
        self.push(Severity::Warning, Some(span.clone()), title.into())
    }

    /// Adds an error that concerns the file as a whole.
    pub fn file_error(&mut self, title: impl Into<String>) -> &mut Finding {
        self.push(Severity::Error, None, title.into())
    }

    /// Adds a warning that concerns the file as a whole.
    pub fn file_warning(&mut self, title: impl Into<String>) -> &mut Finding {
        self.push(Severity::Warning, None, title.into())
    }

    /// The value with its warnings, or everything found when there is an error
    /// or no value. The findings come in the order of the file.
    pub fn finish<T>(mut self, value: Option<T>) -> Result<(T, Vec<Finding>), ConfigError> {
        self.findings
            .sort_by_key(|finding| finding.span.as_ref().map_or(0, |span| span.start));
        match value {
            Some(value) if !self.has_error() => Ok((value, self.findings)),
            Some(_) => Err(self.into_error()),
            None => {
                if !self.has_error() {
                    self.file_error("the file cannot be used");
                }
                Err(self.into_error())
            }
        }
    }

    fn has_error(&self) -> bool {
        let is_error = |finding: &Finding| finding.severity == Severity::Error;
        self.findings.iter().any(is_error)
    }

    fn into_error(self) -> ConfigError {
        ConfigError {
            findings: self.findings,
        }
    }

    fn push(&mut self, severity: Severity, span: Option<Span>, title: String) -> &mut Finding {
        let finding = Finding {
            severity,
            title,
            help: None,
            span,
            related: Vec::new(),
            source: Arc::clone(&self.source),
        };
        self.findings.push_mut(finding)
    }
}

impl Finding {
    /// Says what to do.
    pub fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }

    /// Points at another place that matters.
    pub fn related(&mut self, span: &Span, why: impl Into<String>) -> &mut Self {
        self.related.push((span.clone(), why.into()));
        self
    }

    /// The places in the text that it is about, the main one first.
    pub fn spans(&self) -> impl Iterator<Item = &Span> {
        let related = self.related.iter().map(|(span, _)| span);
        self.span.iter().chain(related)
    }

    /// Line and column of the place, both from 1, the column in characters.
    #[must_use]
    pub fn position(&self) -> Option<(usize, usize)> {
        let before = self.source.text.get(..self.span.as_ref()?.start)?;
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.matches('\n').count() + 1;
        let column = before[line_start..].chars().count() + 1;
        Some((line, column))
    }

    /// The finding with its place underlined, over several lines.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        renderer.render(&[self.group()])
    }

    fn group(&self) -> Group<'_> {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let Some(span) = &self.span else {
            let title = format!("{}: {}", self.source.name, self.title);
            let help = self.help.as_deref().map(|help| Level::HELP.message(help));
            return Group::with_title(level.primary_title(title)).elements(help);
        };
        let mut snippet = Snippet::source(&self.source.text)
            .path(&self.source.name)
            .annotation(AnnotationKind::Primary.span(span.clone()));
        for (span, why) in &self.related {
            snippet = snippet.annotation(AnnotationKind::Context.span(span.clone()).label(why));
        }
        let help = self.help.as_deref().map(|help| Level::HELP.message(help));
        level
            .primary_title(&self.title)
            .element(snippet)
            .elements(help)
    }
}

/// One line: `FILE:LINE:COLUMN: what is wrong (what to do)`, as for a log.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.source.name)?;
        if let Some((line, column)) = self.position() {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}", self.title)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {self}", self.severity)
    }
}

/// One line per finding.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.findings.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{finding}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_lines_count_from_one() {
        let text = "a = 1\nname = \"käse\" x\n";
        let mut report = Report::new("f.toml", text);
        let at = text.find('x').expect("the text has an x");
        let finding = report.error(&(at..at + 1), "stray x").help("remove it");
        assert_eq!(finding.position(), Some((2, 15)));
        assert_eq!(finding.to_string(), "f.toml:2:15: stray x (remove it)");
    }
}
