//! Who clients are: the consumers that the configuration names, what proves that a client is one of them, and what is
//! said of it once a filter has made sure.
//!
//! 1. Nothing here keeps a key or a password: of keys their SHA-256 is kept, of passwords a hash that is slow to try, or
//!    a MAC under a key that only this process has.
//! 2. How long a look takes tells nothing of use: keys are found by their digest, and a name that nobody has costs as much
//!    as one that somebody has.
//! 3. The index is immutable: a reload makes another. What checks passwords outlives it.

mod index;
mod password;
mod passwords;

use std::sync::Arc;

use http::HeaderValue;

use crate::telemetry::ConsumerMetrics;

pub use index::{Builder, Consumers, Credential, Digest, Entry, Lookup, MOST_KEY};
pub use password::{InvalidHash, Login, Password};
pub use passwords::{Busy, Passwords};

/// A client by its name in the configuration.
#[derive(Debug)]
pub struct Consumer {
    /// Its name: config key, log field and metric label.
    pub name: Arc<str>,
    /// The groups it is in.
    pub groups: Box<[Box<str>]>,
    /// What upstreams are told of it, made once.
    told: [Option<HeaderValue>; 2],
    metrics: Option<Arc<ConsumerMetrics>>,
}

impl Consumer {
    /// A consumer of this name, in these groups.
    pub fn new(name: impl Into<Arc<str>>, groups: impl IntoIterator<Item = impl Into<Box<str>>>) -> Self {
        let name = name.into();
        let groups: Box<[Box<str>]> = groups.into_iter().map(Into::into).collect();
        let value =
            |text: &str| Some(text).filter(|text| !text.is_empty()).and_then(|text| text.parse().ok());
        let told = [value(&name), value(&groups.join(","))];
        Self { name, groups, told, metrics: None }
    }

    /// The same, counted.
    #[must_use]
    pub fn counted(self, metrics: Arc<ConsumerMetrics>) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    /// Its name as a header value.
    pub fn name_header(&self) -> Option<&HeaderValue> {
        self.told[0].as_ref()
    }

    /// Its groups with commas between them as a header value; `None` without groups.
    pub fn groups_header(&self) -> Option<&HeaderValue> {
        self.told[1].as_ref()
    }

    /// Counts a request of it.
    pub fn count(&self) {
        if let Some(metrics) = &self.metrics {
            metrics.count();
        }
    }
}

impl PartialEq for Consumer {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.groups) == (&other.name, &other.groups)
    }
}

impl Eq for Consumer {}

/// Who the client of one exchange is, as far as that was verified.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    /// The consumer that it is.
    pub consumer: Option<Arc<Consumer>>,
    /// Whether the client has proved nothing: the consumer stands for such clients.
    pub anonymous: bool,
    /// The name that it came with and has the password of.
    pub username: Option<Box<str>>,
}
