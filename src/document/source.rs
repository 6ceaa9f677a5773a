//! Where configuration comes from, and places in it.

use std::fmt;

/// A place in a source. Lines and columns count from 1; columns count characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// The file or environment variable.
    pub source: SourceId,
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
}

impl Mark {
    /// The beginning of a source.
    pub fn start_of(source: SourceId) -> Self {
        Self { source, line: 1, column: 1 }
    }
}

/// Names one of the [`Sources`], in the order they were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub(super) u32);

/// One thing that configuration was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file, by the name to show.
    File(String),
    /// An environment variable, by its name. Lines mean nothing in it.
    Variable(String),
}

impl fmt::Display for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(name) => out.write_str(name),
            Self::Variable(name) => write!(out, "environment {name}"),
        }
    }
}

/// The files and environment variables that a document was made of.
#[derive(Clone, Debug, Default)]
pub struct Sources(Vec<Source>);

impl Sources {
    /// Adds a source and returns its id.
    pub fn add(&mut self, source: Source) -> SourceId {
        self.0.push(source);
        SourceId(u32::try_from(self.0.len() - 1).unwrap_or(u32::MAX))
    }

    /// The source of that id, unless it belongs to other `Sources`.
    pub fn get(&self, id: SourceId) -> Option<&Source> {
        self.0.get(usize::try_from(id.0).ok()?)
    }

    /// A place as users read it: `portcullis.yaml:12:5`, or `environment PORT`.
    pub fn describe(&self, mark: Mark) -> String {
        match self.get(mark.source) {
            Some(Source::File(name)) => format!("{name}:{}:{}", mark.line, mark.column),
            Some(variable) => variable.to_string(),
            None => format!("{}:{}", mark.line, mark.column),
        }
    }
}
