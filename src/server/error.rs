//! What keeps a gateway from starting.

use super::source::Refusal;
use crate::types::ListenAddress;

/// What kept a gateway from starting.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration is refused: every error, with its place.
    #[error("{0}")]
    Config(Refusal),
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for `{name}`: {error}")]
    Bind {
        /// The listener's name.
        name: String,
        /// The address.
        address: ListenAddress,
        /// What the system says.
        error: std::io::Error,
    },
    /// The access log cannot be opened.
    #[error("cannot open the access log: {0}")]
    AccessLog(std::io::Error),
    /// The upgrade socket cannot be bound.
    #[error("cannot listen on the upgrade socket {}: {error}", path.display())]
    UpgradeSocket {
        /// The configured path.
        path: std::path::PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// An older process handed its sockets over in a way that is not understood.
    #[error("the handover from the older process failed: {0}")]
    Handover(std::io::Error),
    /// No thread can be started, or signals cannot be listened to in it.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// A mistake of ours.
    #[error("this is a mistake in Portcullis: {0}")]
    Bug(String),
}

impl StartError {
    /// The exit code of a process that ends with it: 2 for the configuration, 1 for all else.
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::Config(_)) { 2 } else { 1 }
    }
}
