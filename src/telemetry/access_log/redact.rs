//! Header values that must not reach a log.

use http::HeaderName;
use http::header::{HOST, REFERER, USER_AGENT};

/// What a redacted value shows instead.
pub(super) const REDACTED: &[u8] = b"[redacted]";

/// Names of the headers whose values no line shows, in any format.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redact {
    names: Vec<HeaderName>,
    // Whether the names hold those that every line asks for.
    host: bool,
    user_agent: bool,
    referer: bool,
    queries: Box<[String]>,
}

impl Redact {
    /// Hides the values of these headers.
    pub fn new(names: impl IntoIterator<Item = HeaderName>) -> Self {
        let names: Vec<_> = names.into_iter().collect();
        let [host, user_agent, referer] = [HOST, USER_AGENT, REFERER].map(|name| names.contains(&name));
        Self { names, host, user_agent, referer, queries: Box::default() }
    }

    /// Hides the values of these query parameters, too.
    #[must_use]
    pub fn queries(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.queries = names.into_iter().collect();
        self
    }

    /// Whether the values of `name` are hidden.
    pub(super) fn hides(&self, name: &HeaderName) -> bool {
        self.names.contains(name)
    }

    /// The query parameters whose values are hidden.
    pub(super) fn hidden_queries(&self) -> &[String] {
        &self.queries
    }

    /// What may be shown of `Host`. That a header was present stays visible; so below.
    pub(super) fn host<'a>(&self, value: Option<&'a [u8]>) -> Option<&'a [u8]> {
        shown(self.host, value)
    }

    /// What may be shown of `User-Agent`.
    pub(super) fn user_agent<'a>(&self, value: Option<&'a [u8]>) -> Option<&'a [u8]> {
        shown(self.user_agent, value)
    }

    /// What may be shown of `Referer`.
    pub(super) fn referer<'a>(&self, value: Option<&'a [u8]>) -> Option<&'a [u8]> {
        shown(self.referer, value)
    }
}

fn shown(hidden: bool, value: Option<&[u8]>) -> Option<&[u8]> {
    value.map(|value| if hidden { REDACTED } else { value })
}
