//! Header values that must not reach a log.

use http::HeaderName;

/// What a redacted value shows instead.
pub(super) const REDACTED: &[u8] = b"[redacted]";

/// Names of the headers whose values no line shows, in any format.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redact(Vec<HeaderName>);

impl Redact {
    /// Hides the values of these headers.
    pub fn new(names: impl IntoIterator<Item = HeaderName>) -> Self {
        Self(names.into_iter().collect())
    }

    /// Whether the values of `name` are hidden.
    pub(super) fn hides(&self, name: &HeaderName) -> bool {
        self.0.contains(name)
    }

    /// `value` of header `name`, or what may be shown of it. That a header was present stays visible.
    pub(super) fn shown<'a>(&self, name: &HeaderName, value: Option<&'a [u8]>) -> Option<&'a [u8]> {
        value.map(|value| if self.hides(name) { REDACTED } else { value })
    }
}
