//! Endpoints that are not written down but found.
//!
//! 1. Whoever watches is told everything at once, and again all of it when it has changed.
//! 2. A failure is told, too, and changes nothing: the last answer holds, because servers that were there are likelier to be
//!    there still than nobody is. After a failure the next answer is told, whether it is new or not.
//! 3. A watch has no end; it is over when it is dropped.

mod dns;
mod found;

use thiserror::Error;

use super::EndpointSpec;

pub use dns::{DnsDiscovery, DnsQuery, DnsResolver};
pub use found::{Finder, Found};
pub use futures_util::stream::BoxStream;

/// Finds the endpoints of an upstream.
pub trait Discovery: Send + Sync {
    /// Tells of them now and from now on, sorted and each once. Never an empty list: that there is none is
    /// [`DiscoveryError::NotFound`].
    fn watch(&self) -> BoxStream<'static, Result<Vec<EndpointSpec>, DiscoveryError>>;
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DiscoveryError {
    /// The name is not known, or has no endpoints.
    #[error("`{name}` has no endpoints")]
    NotFound {
        /// What was asked for.
        name: Box<str>,
    },
    /// Nobody answered, or not with an answer.
    #[error("`{name}` cannot be looked up: {cause}")]
    Unanswered {
        /// What was asked for.
        name: Box<str>,
        /// What happened.
        cause: Box<str>,
    },
    /// There is nobody to ask.
    #[error("no resolver: {cause}")]
    NoResolver {
        /// What happened.
        cause: Box<str>,
    },
}
