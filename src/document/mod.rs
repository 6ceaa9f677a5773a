//! Configuration text as a tree that remembers places, and that tree as the structs of `config`, with every error at
//! once.
//!
//! A document is made in this order:
//!
//! 1. The main file is parsed; variables in its scalars are expanded on the way (`interpolate`).
//! 2. The files that its `include` names are parsed likewise and added to it.
//! 3. The environment overrides what came out: `PORTCULLIS__A__B`, then `PORT`.
//!
//! [`decode`] then turns the tree, or any part of it, into a type. What is wrong in meaning rather than in form is for
//! others to find; [`Document::mark_of`] tells them where it stands.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

mod access;
mod capture;
mod de;
mod decode;
mod environment;
mod error;
mod fault;
mod forms;
mod include;
mod interpolate;
mod key;
mod node;
mod overrides;
mod parse;
mod pass;
mod path;
mod place;
mod scalar;
mod serialize;
mod source;
mod stack;
mod syntax;

pub use decode::decode;
pub use environment::Environment;
pub use error::{ConfigError, Errors, Report};
pub use fault::{closest, suggest};
pub use forms::word_or_map;
pub use node::{Entry, Key, Node, Value};
pub use place::join;
pub use source::{Mark, Source, SourceId, Sources};

/// A configuration as it was written, before anything is known about its meaning.
#[derive(Clone, Debug)]
pub struct Document {
    /// The top of the tree: a map, without `include`.
    pub root: Node,
    /// What its marks refer to.
    pub sources: Sources,
    /// Every file that was read, the main one first.
    pub files: Vec<PathBuf>,
}

impl Document {
    /// Reads a file and all it includes.
    ///
    /// # Errors
    /// Everything that keeps the text from being a document: files that cannot be read, text that is not YAML,
    /// variables that are not set, overrides that lead nowhere.
    pub fn load(path: &Path, environment: &Environment) -> Result<Self, Failure> {
        let mut loader = Loader::new(environment);
        let text = read(path);
        loader.files.push(path.to_owned());
        match text {
            Ok(text) => loader.assemble(path, &text),
            Err(message) => loader.fail(ConfigError::new("", message)),
        }
    }

    /// The same for text at hand. `name` is the path to show, and what `include` is relative to.
    ///
    /// # Errors
    /// As [`Document::load`].
    pub fn parse(name: &str, text: &str, environment: &Environment) -> Result<Self, Failure> {
        Loader::new(environment).assemble(Path::new(name), text)
    }

    /// The same for text that may not reach for files: an `include` is an error.
    ///
    /// # Errors
    /// As [`Document::load`].
    pub fn alone(name: &str, text: &str, environment: &Environment) -> Result<Self, Failure> {
        let mut loader = Loader::new(environment);
        loader.alone = true;
        loader.assemble(Path::new(name), text)
    }

    /// The place of a document path such as `routes[3].path`, or of its nearest ancestor that exists.
    pub fn mark_of(&self, path: &str) -> Mark {
        self.root.nearest(path).mark
    }
}

/// Why there is no document.
#[derive(Clone, Debug)]
pub struct Failure {
    /// All that is wrong.
    pub errors: Errors,
    /// What the marks of the errors refer to.
    pub sources: Sources,
    /// The tree as far as it could be made, for finding what else is wrong; `None` when there is no sense in it.
    pub document: Option<Box<Document>>,
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.errors.render(&self.sources).trim_end())
    }
}

impl std::error::Error for Failure {}

struct Loader<'a> {
    /// Whether other files are out of reach.
    alone: bool,
    environment: &'a Environment,
    sources: Sources,
    files: Vec<PathBuf>,
    errors: Errors,
    /// Whether a part is missing, whose absence would look like mistakes elsewhere.
    incomplete: bool,
}

impl<'a> Loader<'a> {
    fn new(environment: &'a Environment) -> Self {
        let (sources, files, errors) = Default::default();
        Self { alone: false, environment, sources, files, errors, incomplete: false }
    }

    fn assemble(mut self, main: &Path, text: &str) -> Result<Document, Failure> {
        let Some(mut root) = self.parse(main, text) else {
            return Err(self.failure(None));
        };
        match root.value {
            Value::Map(_) => {}
            Value::Null => root.value = Value::Map([].into()),
            _ => {
                let message = format!("a configuration is a map, found {}", root.kind());
                return self.fail(ConfigError::new("", message).at(root.mark));
            }
        }
        if self.alone
            && let Some((key, _)) = root.entry("include")
        {
            let error = ConfigError::new("include", "other files are out of reach here").at(key.mark);
            return self.fail(error.with_hint("`portcullis check` reads them"));
        }
        let included = include::take(&mut root, main, &mut self.errors);
        if !included.is_empty() {
            let files = included.into_iter().filter_map(|file| self.include(file)).collect();
            include::merge(&mut root, files, &self.sources, &mut self.errors);
        }
        overrides::apply(&mut root, self.environment, &mut self.sources, &mut self.errors);
        let document =
            Document { root, sources: self.sources.clone(), files: std::mem::take(&mut self.files) };
        match self.errors.is_empty() {
            true => Ok(document),
            false => {
                let whole = !self.incomplete;
                Err(self.failure(whole.then_some(document)))
            }
        }
    }

    fn include(&mut self, file: include::Included) -> Option<Node> {
        self.files.push(file.path.clone());
        match read(&file.path) {
            Ok(text) => {
                let parsed = self.parse(&file.path, &text);
                self.incomplete |= parsed.is_none();
                parsed
            }
            Err(message) => {
                self.incomplete = true;
                self.errors.push(ConfigError::new(file.entry, message).at(file.mark));
                None
            }
        }
    }

    fn parse(&mut self, path: &Path, text: &str) -> Option<Node> {
        let source = self.sources.add(Source::File(path.display().to_string()));
        parse::parse(source, text, Some(self.environment), &mut self.errors)
    }

    fn fail(mut self, error: ConfigError) -> Result<Document, Failure> {
        self.errors.push(error);
        Err(self.failure(None))
    }

    fn failure(self, document: Option<Document>) -> Failure {
        Failure { errors: self.errors, sources: self.sources, document: document.map(Box::new) }
    }
}

/// Reads a file; the error is a message for the operator.
fn read(path: &Path) -> Result<String, String> {
    bounded(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("cannot read `{}`: there is no such file", path.display()),
        std::io::ErrorKind::InvalidData => format!("cannot read `{}`: it is not UTF-8 text", path.display()),
        _ => format!("cannot read `{}`: {error}", path.display()),
    })
}

/// The text of a file, which may be a pipe, up to a size that no configuration has.
fn bounded(path: &Path) -> io::Result<String> {
    const MOST: u64 = 256 << 20;
    let mut text = String::new();
    let read = fs::File::open(path)?.take(MOST + 1).read_to_string(&mut text)?;
    if read as u64 > MOST { Err(io::Error::other("it is larger than 256MiB")) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_file_then_environment() {
        let environment = [("N", "2"), ("PORTCULLIS__B", "${N}")].into_iter().collect();
        let document = Document::parse("c.yaml", "{ a: \"${N}\", b: 1 }", &environment).unwrap();
        assert_eq!(document.root.get("a").unwrap().text(), Some("2"));
        assert_eq!(document.root.get("b").unwrap().text(), Some("${N}"));
    }

    #[test]
    fn an_empty_text_is_an_empty_map() {
        for text in ["", "# nothing\n", "---\n", "\u{feff}"] {
            let document = Document::parse("c.yaml", text, &Environment::default()).unwrap();
            assert_eq!(document.root.value, Value::Map([].into()));
        }
    }

    #[test]
    fn a_document_is_a_map() {
        for (text, kind) in [("- 1", "a list"), ("text", "a single value")] {
            let failure = Document::parse("c.yaml", text, &Environment::default()).unwrap_err();
            assert_eq!(failure.to_string(), format!("c.yaml:1:1: a configuration is a map, found {kind}"));
        }
    }

    #[test]
    fn marks_of_paths_fall_back_to_ancestors() {
        let text = "routes:\n  - path: /a\n  - path: /b\n    hosts: { a.b: 1 }\n";
        let document = Document::parse("c.yaml", text, &Environment::default()).unwrap();
        let place = |path| {
            let mark = document.mark_of(path);
            (mark.line, mark.column)
        };
        assert_eq!(place("routes[1].path"), (3, 11));
        assert_eq!(place(r#"routes[1].hosts["a.b"]"#), (4, 19));
        assert_eq!(place("routes[1].timeouts.request"), (3, 5));
        assert_eq!(place("routes[9]"), (2, 3));
        assert_eq!(place("nothing"), (1, 1));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error() {
        let failure = Document::load(Path::new("/nonexistent/c.yaml"), &Environment::default()).unwrap_err();
        assert_eq!(failure.to_string(), "cannot read `/nonexistent/c.yaml`: there is no such file");
        let failure = Document::load(Path::new("/"), &Environment::default()).unwrap_err();
        assert!(failure.to_string().starts_with("cannot read `/`: "));
    }
}
