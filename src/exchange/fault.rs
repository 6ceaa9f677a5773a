//! Our own mistakes, as told by a filter that could not do its work.

use std::any::Any;
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

    /// What a panic in `whose` code said.
    pub fn panicked(whose: &str, panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Self(format!("{whose} panicked: {}", text.unwrap_or("no message")))
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
