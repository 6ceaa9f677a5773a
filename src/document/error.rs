//! What is wrong with a configuration, all of it at once.

use std::fmt::{self, Write};

use serde::Serialize;

use super::source::{Mark, Source, Sources};

/// One thing that the operator has to put right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The document path, such as `routes[3].path`; empty for the document as a whole.
    pub path: String,
    /// What is wrong, in users' words.
    pub message: String,
    /// What may help.
    pub hint: Option<String>,
    /// Where it was written, if it was written anywhere.
    pub mark: Option<Mark>,
}

impl ConfigError {
    /// An error about a document path, as yet without hint and place.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into(), hint: None, mark: None }
    }

    /// The same, with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same, at a place.
    #[must_use]
    pub fn at(mut self, mark: Mark) -> Self {
        self.mark = Some(mark);
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => out.write_str(&self.message),
            path => write!(out, "{path}: {}", self.message),
        }
    }
}

impl std::error::Error for ConfigError {}

/// Errors in the making: pushed in any order, shown in the order of the sources and each once.
#[derive(Clone, Debug, Default)]
pub struct Errors(Vec<ConfigError>);

impl Errors {
    /// Adds an error.
    pub fn push(&mut self, error: ConfigError) {
        self.0.push(error);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// By source, line and column, without repetitions; those without a place come last.
    pub fn sorted(&self) -> Vec<&ConfigError> {
        let mut errors: Vec<_> = self.0.iter().collect();
        errors.sort_by(|a, b| {
            let key = |e: &ConfigError| (e.mark.is_none(), e.mark);
            key(a).cmp(&key(b)).then_with(|| (&a.path, &a.message).cmp(&(&b.path, &b.message)))
        });
        errors.dedup();
        errors
    }

    /// One line an error, `file:line:column: path: message`, each followed by its hint.
    pub fn render(&self, sources: &Sources) -> String {
        let mut text = String::new();
        for error in self.sorted() {
            if let Some(mark) = error.mark {
                text.push_str(&sources.describe(mark));
                text.push_str(": ");
            }
            // Writing to a `String` cannot fail.
            let _ = writeln!(text, "{error}");
            if let Some(hint) = &error.hint {
                let _ = writeln!(text, "  hint: {hint}");
            }
        }
        text
    }

    /// The same for machines.
    pub fn report<'a>(&'a self, sources: &'a Sources) -> Vec<Report<'a>> {
        self.sorted().into_iter().map(|error| Report::new(error, sources)).collect()
    }
}

impl Extend<ConfigError> for Errors {
    fn extend<I: IntoIterator<Item = ConfigError>>(&mut self, errors: I) {
        self.0.extend(errors);
    }
}

impl IntoIterator for Errors {
    type Item = ConfigError;
    type IntoIter = std::vec::IntoIter<ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// An error with its place spelled out, ready to be serialized.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report<'a> {
    /// The file, or `environment NAME`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line in the file, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The column in characters, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// The document path.
    pub path: &'a str,
    /// What is wrong.
    pub message: &'a str,
    /// What may help.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<&'a str>,
}

impl<'a> Report<'a> {
    fn new(error: &'a ConfigError, sources: &Sources) -> Self {
        let source = error.mark.and_then(|mark| sources.get(mark.source));
        let in_file = error.mark.filter(|_| matches!(source, Some(Source::File(_))));
        Self {
            file: source.map(Source::to_string),
            line: in_file.map(|mark| mark.line),
            column: in_file.map(|mark| mark.column),
            path: &error.path,
            message: &error.message,
            hint: error.hint.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> (Errors, Sources) {
        let mut sources = Sources::default();
        let file = sources.add(Source::File("portcullis.yaml".into()));
        let port = sources.add(Source::Variable("PORT".into()));
        let mut errors = Errors::default();
        errors.push(ConfigError::new("", "cannot be read"));
        errors.push(ConfigError::new("listeners", "no port").at(Mark::start_of(port)));
        let mark = Mark { source: file, line: 12, column: 5 };
        let typo =
            ConfigError::new("routes[3].pth", "unknown key `pth`").with_hint("did you mean `path`?").at(mark);
        errors.extend([typo.clone(), typo]);
        errors.push(ConfigError::new("version", "missing").at(Mark { source: file, line: 2, column: 50 }));
        (errors, sources)
    }

    #[test]
    fn shows_each_once_in_the_order_of_the_sources() {
        let (errors, sources) = example();
        assert_eq!(
            errors.render(&sources),
            "portcullis.yaml:2:50: version: missing\n\
             portcullis.yaml:12:5: routes[3].pth: unknown key `pth`\n  hint: did you mean `path`?\n\
             environment PORT: listeners: no port\n\
             cannot be read\n"
        );
    }

    #[test]
    fn serializes_with_places_spelled_out() {
        let (errors, sources) = example();
        assert_eq!(
            serde_json::to_value(errors.report(&sources)).unwrap(),
            serde_json::json!([
                {"file": "portcullis.yaml", "line": 2, "column": 50, "path": "version", "message": "missing"},
                {"file": "portcullis.yaml", "line": 12, "column": 5, "path": "routes[3].pth",
                 "message": "unknown key `pth`", "hint": "did you mean `path`?"},
                {"file": "environment PORT", "path": "listeners", "message": "no port"},
                {"path": "", "message": "cannot be read"},
            ])
        );
    }
}
