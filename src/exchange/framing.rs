//! Which header fields are not the operator's to change.

use http::HeaderName;

/// Fields that say where a message goes or ends, or that are between two neighbours only (RFC 9110, 7.6.1).
const FRAMING: [&str; 10] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
];

/// Whether the gateway alone sees to this field: it says where a message goes or ends.
pub fn is_framing(name: &HeaderName) -> bool {
    FRAMING.contains(&name.as_str())
}
