//! The id that follows one request through every log.

use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderName, HeaderValue};
use uuid::fmt::Simple;
use uuid::{Builder, Uuid};

/// The id of one request: printable ASCII, 1 to 128 characters, safe in headers, logs and JSON.
#[derive(Debug, Clone)]
pub struct RequestId(Text);

#[derive(Debug, Clone)]
enum Text {
    Ours([u8; Simple::LENGTH]),
    Theirs(HeaderValue),
}

impl RequestId {
    /// The field that carries it, upstream and back to the client.
    pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

    /// A new id for a request that came at this time: a UUID of version 7 (RFC 9562), so that ids sort by time.
    pub fn generate(at: SystemTime) -> Self {
        let since_epoch = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = since_epoch.as_secs() * 1000 + u64::from(since_epoch.subsec_millis());
        // A version 4 is random but for the bytes in its middle.
        let [a, b, c, d, e, f, _, g, _, h, i, j, ..] = Uuid::new_v4().into_bytes();
        let id = Builder::from_unix_timestamp_millis(millis, &[a, b, c, d, e, f, g, h, i, j]).into_uuid();
        let mut text = [0; Simple::LENGTH];
        id.simple().encode_lower(&mut text);
        Self(Text::Ours(text))
    }

    /// A client's own id, when it is fit to be kept.
    pub fn accept(value: &HeaderValue) -> Option<Self> {
        let fit = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:=+/@".contains(byte);
        let bytes = value.as_bytes();
        (!bytes.is_empty() && bytes.len() <= 128 && bytes.iter().all(fit))
            .then(|| Self(Text::Theirs(value.clone())))
    }

    /// The id as a header value.
    pub fn header(&self) -> HeaderValue {
        let mut value = match &self.0 {
            // Hexadecimal digits are always a valid value.
            Text::Ours(text) => HeaderValue::from_bytes(text).unwrap_or(HeaderValue::from_static("0")),
            Text::Theirs(value) => value.clone(),
        };
        // It never comes again: a table of HTTP/2 that kept it would lose another for it (RFC 7541, section 7.1.3).
        value.set_sensitive(true);
        value
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Text::Ours(text) => str::from_utf8(text).unwrap_or_default(),
            Text::Theirs(value) => value.to_str().unwrap_or_default(),
        }
    }
}

impl PartialEq for RequestId {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for RequestId {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_ids_differ_and_are_acceptable() {
        let (one, two) = (RequestId::generate(SystemTime::now()), RequestId::generate(SystemTime::now()));
        assert_ne!(one, two);
        assert_eq!(RequestId::accept(&one.header()), Some(one));
    }

    #[test]
    fn generated_ids_are_uuids_that_sort_by_time() {
        let at = |millis| RequestId::generate(UNIX_EPOCH + std::time::Duration::from_millis(millis));
        let (earlier, later) = (at(1_700_000_000_042), at(1_700_000_000_043));
        assert!(earlier.as_str() < later.as_str());
        let id = Uuid::parse_str(earlier.as_str()).unwrap();
        assert_eq!((id.get_version_num(), id.get_variant()), (7, uuid::Variant::RFC4122));
        assert_eq!(id.get_timestamp().unwrap().to_unix(), (1_700_000_000, 42_000_000));
    }

    #[test]
    fn an_id_that_could_forge_a_log_line_is_refused() {
        for bad in ["", "a b", "a\"b", "a\tb", &"x".repeat(129)] {
            assert_eq!(RequestId::accept(&HeaderValue::from_str(bad).unwrap()), None, "{bad:?}");
        }
    }
}
