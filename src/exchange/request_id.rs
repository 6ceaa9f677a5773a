//! The id that follows one request through every log.

use http::{HeaderName, HeaderValue};

/// The id of one request: printable ASCII, 1 to 128 characters, safe in headers, logs and JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The field that carries it, upstream and back to the client.
    pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

    /// A new id: a UUID of version 7 (RFC 9562), so that ids sort by time.
    pub fn generate() -> Self {
        let mut text = [0u8; uuid::fmt::Simple::LENGTH];
        uuid::Uuid::now_v7().simple().encode_lower(&mut text);
        // Hexadecimal digits are always a valid value.
        HeaderValue::from_bytes(&text).map_or_else(|_| Self(HeaderValue::from_static("0")), Self)
    }

    /// A client's own id, when it is fit to be kept.
    pub fn accept(value: &HeaderValue) -> Option<Self> {
        let fit = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:=+/@".contains(byte);
        let bytes = value.as_bytes();
        (!bytes.is_empty() && bytes.len() <= 128 && bytes.iter().all(fit)).then(|| Self(value.clone()))
    }

    /// The id as a header value.
    pub fn header(&self) -> &HeaderValue {
        &self.0
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_ids_differ_and_are_acceptable() {
        let (one, two) = (RequestId::generate(), RequestId::generate());
        assert_ne!(one, two);
        assert_eq!(RequestId::accept(one.header()), Some(one));
    }

    #[test]
    fn an_id_that_could_forge_a_log_line_is_refused() {
        for bad in ["", "a b", "a\"b", "a\tb", &"x".repeat(129)] {
            assert_eq!(RequestId::accept(&HeaderValue::from_str(bad).unwrap()), None, "{bad:?}");
        }
    }
}
