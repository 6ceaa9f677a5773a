//! Who clients are to the gateway, once a filter has made sure of it.

use std::sync::Arc;

/// A client by its name in the configuration.
#[derive(Debug, PartialEq, Eq)]
pub struct Consumer {
    /// Its name: config key, log field and metric label.
    pub name: Arc<str>,
    /// The groups it is in.
    pub groups: Box<[Box<str>]>,
}

/// Who the client of one exchange is, as far as that was verified.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    /// The consumer that it is.
    pub consumer: Option<Arc<Consumer>>,
    /// The name that it came with and has the password of.
    pub username: Option<Box<str>>,
}
