//! Why a store did not do as asked.

use std::time::Duration;

use redis::RedisError;

/// Why a store did not do as asked, for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no connection.
    #[error("{place} cannot be reached: {message}")]
    Unreachable {
        /// Host and port.
        place: Box<str>,
        /// Why.
        message: String,
    },
    /// No answer came in time.
    #[error("{place} does not answer within {patience:?}")]
    Timeout {
        /// Host and port.
        place: Box<str>,
        /// How long was waited.
        patience: Duration,
    },
    /// The server does not know a script by its hash.
    #[error("{place} does not know the script")]
    Unscripted {
        /// Host and port.
        place: Box<str>,
    },
    /// The server answers that it will not.
    #[error("{place} refuses: {message}")]
    Refused {
        /// Host and port.
        place: Box<str>,
        /// What it says.
        message: String,
    },
}

impl Error {
    pub(super) fn unreachable(place: &str, error: &RedisError) -> Self {
        Self::Unreachable { place: place.into(), message: said(error) }
    }

    pub(super) fn refused(place: &str, error: &RedisError) -> Self {
        Self::Refused { place: place.into(), message: said(error) }
    }
}

/// What an error says, without the arguments of a command that a server repeats: passwords and keys may be among them.
fn said(error: &RedisError) -> String {
    let text = error.to_string();
    let end = text.find(", with args").unwrap_or(text.len());
    text.get(..end).unwrap_or_default().replace(['\r', '\n'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_repeats_is_not_told() {
        let kind = redis::ErrorKind::Client;
        let detail = "ERR unknown command 'AUTH', with args beginning with: 'hunter2'";
        let error = RedisError::from((kind, "it failed", detail.to_owned()));
        let told = Error::refused("10.0.0.1:6379", &error).to_string();
        assert!(told.starts_with("10.0.0.1:6379 refuses: it failed") && told.ends_with("'AUTH'"), "{told}");
    }
}
