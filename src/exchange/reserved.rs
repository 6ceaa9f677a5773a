//! Header fields that nobody but the gateway itself writes.

use http::HeaderName;

/// Fields that say where a message goes or ends, or that are between two neighbours only (RFC 9110, 7.6.1).
const RESERVED: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whether a field is the gateway's own: it says where a message goes or ends, or is between two neighbours only.
pub fn is_reserved(name: &HeaderName) -> bool {
    RESERVED.contains(&name.as_str())
}
