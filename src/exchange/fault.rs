//! Our own mistakes, as told by a filter that could not do its work.

use std::fmt;

/// What a filter's hook returns.
pub type Result<T> = std::result::Result<T, Fault>;

/// A filter could not do its work. The request ends with 500 and the reason `bug`; the text goes to the log alone.
#[derive(Debug)]
pub struct Fault(String);

impl Fault {
    /// A fault with a text for the process log.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}

impl From<Box<pingora::Error>> for Fault {
    fn from(error: Box<pingora::Error>) -> Self {
        Self(error.to_string())
    }
}
