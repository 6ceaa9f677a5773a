//! Where the configuration comes from.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::frame::Frame;
use super::{Parts, expiry};
use crate::compile::{
    Compiled, consumer_files, filter_files, shown, store_files, tls_files, upstream_files, webhook_files,
};
use crate::config::Config;
use crate::document::{ConfigError, Document, Environment, Errors, Failure, Sources};
use crate::registry::Registry;
use crate::snapshot::Snapshot;
use crate::telemetry::Buckets;

/// Where the configuration comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A YAML file, with those it includes.
    File(PathBuf),
    /// Words put together in code; `errors` tells what could not be.
    Code {
        /// The words.
        config: Box<Config>,
        /// What could not be put into words.
        errors: Errors,
    },
}

/// A configuration that could be read.
pub struct Loaded {
    /// The words.
    pub config: Config,
    /// What is wrong with the text that they were read from.
    pub text: Errors,
    /// What of the document could not be read as words.
    pub unread: Errors,
    /// Where they stand.
    pub place: Place,
}

/// Where words stand, for errors found after reading.
pub enum Place {
    /// In a document.
    Document(Box<Document>),
    /// In code.
    Code,
}

/// A refused configuration: every error, with its place.
#[derive(Debug)]
pub struct Refusal {
    errors: Errors,
    sources: Sources,
}

impl Source {
    /// Reads the words.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the text and, where that can still be told, with the words.
    pub fn load(&self, environment: &Environment) -> Result<Loaded, Refusal> {
        match self {
            Self::File(path) => read(path, environment),
            Self::Code { config, errors } => Ok(Loaded {
                config: Config::clone(config),
                text: errors.clone(),
                unread: Errors::default(),
                place: Place::Code,
            }),
        }
    }

    /// The file, when it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Code { .. } => None,
        }
    }
}

fn read(path: &Path, environment: &Environment) -> Result<Loaded, Refusal> {
    words(Document::load(path, environment))
}

/// Reads the words of a document, or of what could be made of it: then it is refused in the end, with all its errors.
fn words(document: Result<Document, Failure>) -> Result<Loaded, Refusal> {
    let (document, text) = match document {
        Ok(document) => (Box::new(document), Errors::default()),
        Err(Failure { document: Some(document), errors, .. }) => (document, errors),
        Err(Failure { errors, sources, .. }) => return Err(Refusal { errors, sources }),
    };
    let mut unread = Errors::default();
    let mut config = Config::read(&document, &mut unread);
    config.unread.note(&text);
    Ok(Loaded { config, text, unread, place: Place::Document(document) })
}

impl Loaded {
    /// The files it is made of, for a watcher: those of the document, certificates and keys.
    pub(super) fn files(&self, registry: &Registry) -> Vec<PathBuf> {
        let of_listeners = self.config.listeners.iter().flat_map(tls_files);
        let of_upstreams = self.config.upstreams.values().flat_map(upstream_files);
        let of_stores = self.config.stores.values().flat_map(store_files);
        let of_webhooks = self.config.telemetry.events.iter().flat_map(webhook_files);
        let of_consumers = self.config.consumers.iter().flat_map(consumer_files);
        let named = of_listeners.chain(of_upstreams).chain(of_stores).chain(of_webhooks).chain(of_consumers);
        let named = named.map(Path::to_owned);
        let of_filters = filter_files(&self.config, registry);
        self.place.files().iter().cloned().chain(named).chain(of_filters).collect()
    }

    /// Compiles the words against what is shared; all errors, of reading and of meaning, come together.
    ///
    /// # Errors
    ///
    /// Everything that is wrong.
    pub(super) fn compile(self, parts: &Parts) -> Result<(Frame, Compiled), Refusal> {
        self.compile_with(parts, true)
    }

    fn compile_with(self, parts: &Parts, certificates: bool) -> Result<(Frame, Compiled), Refusal> {
        let Self { config, text, mut unread, place } = self;
        match parts.compile(&config, certificates) {
            Ok(compiled) if unread.is_empty() && text.is_empty() => {
                return Ok((Frame::new(&config), compiled));
            }
            Ok(_) => {}
            Err(found) => unread.extend(config.unread.as_written(found)),
        }
        Err(place.refusal(text, unread))
    }
}

impl Place {
    /// Errors found in text and in words, with the places where they stand.
    pub fn refusal(self, mut text: Errors, words: Errors) -> Refusal {
        let (words, sources) = match self {
            Self::Code => (words, Sources::default()),
            // A text that is wrong cannot make right words.
            Self::Document(document) => (words.placed(&document).elsewhere(&text), document.sources),
        };
        text.extend(words);
        Refusal { errors: text, sources }
    }

    /// The files that were read, for a watcher.
    pub fn files(&self) -> &[PathBuf] {
        match self {
            Self::Code => &[],
            Self::Document(document) => &document.files,
        }
    }
}

impl Refusal {
    /// The errors for machines: file, line, column, path, message, hint.
    pub fn report(&self) -> serde_json::Value {
        serde_json::to_value(self.errors.report(&self.sources)).unwrap_or_default()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.errors.render(&self.sources).trim_end())
    }
}

impl std::error::Error for Refusal {}

/// Reads and compiles a file; starts nothing.
///
/// # Errors
///
/// Everything that is wrong with it.
pub fn check(path: &Path, registry: Registry) -> Result<Checked, Refusal> {
    let environment = Environment::of_process();
    let loaded = read(path, &environment)?;
    let parts = Parts::new(Source::File(path.to_owned()), registry, environment, Buckets::default())
        .map_err(|error| {
            Place::Code.refusal(Errors::default(), ConfigError::new("", error.to_string()).into())
        })?;
    let config = shown(&loaded.config, &parts.registry);
    let (_, compiled) = loaded.compile(&parts)?;
    let warnings = expiry::warnings(&compiled.snapshot, SystemTime::now());
    Ok(Checked { config, snapshot: compiled.snapshot, warnings })
}

/// Checks a text as if it were the configuration; nothing of it is put in force.
///
/// # Errors
///
/// The errors for machines.
pub(super) fn check_text(text: &str, parts: &Parts) -> Result<(), serde_json::Value> {
    // Whoever may ask this may not learn what the environment holds, nor what files there are.
    let loaded = words(Document::alone("config", text, &parts.environment.withheld()));
    let compiled = loaded.and_then(|loaded| loaded.compile_with(parts, false)).map(drop);
    parts.state.sweep();
    compiled.map_err(|refusal| refusal.report())
}

/// A configuration that was checked and not put in force.
pub struct Checked {
    /// The words, secrets masked.
    pub config: Config,
    /// What they compile to.
    pub snapshot: Snapshot,
    /// What is right and may still be a mistake.
    pub warnings: Vec<String>,
}
