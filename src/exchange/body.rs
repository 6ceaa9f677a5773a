//! What the head of a message says of the bytes of its body.

use http::HeaderName;
use http::header::CONTENT_LENGTH;

use super::RequestHeader;

/// What is true of the bytes as they are, and of no others.
pub const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

/// Has the head of a request tell nothing of how its body was before a filter changed it.
pub fn reframe(head: &mut RequestHeader) {
    for name in DIGESTS {
        head.remove_header(&name);
    }
    // A body that is empty stays so.
    if head.headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0") {
        head.remove_header(&CONTENT_LENGTH);
    }
}
