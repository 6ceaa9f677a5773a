//! Why an order came to nothing.

use std::io;
use std::time::SystemTime;

use crate::stores;

/// Why an order came to nothing, for the operator.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The directory cannot be asked, or does not do as asked.
    #[error("{message}")]
    Directory {
        message: String,
        /// Before when it does not want to be asked again.
        retry_at: Option<SystemTime>,
    },
    /// A host could not be proved: another kind of challenge may do.
    #[error("{message}")]
    Unproved {
        message: String,
        /// Before when the directory does not want to be asked again.
        retry_at: Option<SystemTime>,
    },
    /// The directory does not know the account, or not any more.
    #[error("{message}")]
    NoAccount { message: String },
    /// The store cannot be used.
    #[error("the store cannot be used: {0}")]
    Store(#[from] io::Error),
    /// The store that machines share cannot be asked.
    #[error("the store cannot be used: {0}")]
    Shared(#[from] stores::Error),
    /// The lock ran out while it was needed: another machine may be at it.
    #[error("the lock was lost on the way: what came is left to whoever has it now")]
    LostLock,
    /// What came is no certificate of ours.
    #[error("the certificate that came cannot be used: {0}")]
    Unusable(String),
    /// A fault of the gateway.
    #[error("a fault of the gateway: {0}")]
    Bug(String),
}

impl Error {
    /// Before when the directory does not want to be asked again.
    pub(super) fn retry_at(&self) -> Option<SystemTime> {
        match self {
            Self::Directory { retry_at, .. } | Self::Unproved { retry_at, .. } => *retry_at,
            _ => None,
        }
    }
}
