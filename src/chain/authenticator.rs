//! What a filter that finds out who clients are tells of itself.

use http::HeaderValue;

use crate::exchange::{Exchange, RequestHeader, Result};

/// A filter that finds out who clients are by credentials of one kind, so that it can be one of several: a member of
/// `any_of`. It decides about a request in its own hooks, as it does alone; they run for no request that another decides
/// about.
pub trait Authenticator: Send + Sync {
    /// Whether the request brings credentials of this kind, be they right or wrong. Asked of every request, so it is quick.
    fn is_brought(&self, exchange: &Exchange<'_>) -> bool;

    /// Whether clients without credentials are welcome, as the `anonymous` consumer.
    fn takes_anyone(&self) -> bool {
        false
    }

    /// What `WWW-Authenticate` says to clients without credentials (RFC 9110, section 11.6.1).
    fn challenge(&self) -> Option<HeaderValue> {
        None
    }

    /// Takes such credentials out of the query that goes upstream, where another filter decided: nobody has looked whether
    /// they are right.
    fn hide_in_query(&self, _exchange: &mut Exchange<'_>) {}

    /// Takes such credentials out of the head that goes upstream, where another filter decided.
    ///
    /// # Errors
    ///
    /// A fault, which costs the request.
    fn hide_in_head(&self, _exchange: &Exchange<'_>, _head: &mut RequestHeader) -> Result<()> {
        Ok(())
    }
}
