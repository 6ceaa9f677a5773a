//! The framing of an upstream's answer, for those who read it after us.
//!
//! The engine reads the body by rules of its own and frames it anew for the client, but passes on what the upstream said
//! of it. So the head must say what the engine did, in the one way that every reader takes alike.
//!
//! 1. Transfer-Encoding is one `chunked` of an HTTP/1.1 answer (RFC 9112, section 6.1). All else has no certain end: the
//!    engine, the client, and whatever is between them may each find another.
//! 2. Content-Length has no leading zeros, which some take for an octal number.
//! 3. An answer that never has a body has no field that frames one (RFC 9110, section 8.6; RFC 9112, section 6.1).
//! 4. The version is ours (RFC 9110, section 6.2): the upstream's says how it speaks to us.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderValue, StatusCode, Version};
use pingora::http::ResponseHeader;

/// Makes the head of an answer say one thing; whether it can be done.
pub(super) fn settle(head: &mut ResponseHeader) -> bool {
    if head.headers.contains_key(TRANSFER_ENCODING) && !is_chunked(head) {
        return false;
    }
    if head.status.is_informational() || head.status == StatusCode::NO_CONTENT {
        head.remove_header(&TRANSFER_ENCODING);
        head.remove_header(&CONTENT_LENGTH);
    }
    head.set_version(Version::HTTP_11);
    without_leading_zeros(head).is_none_or(|length| head.insert_header(CONTENT_LENGTH, length).is_ok())
}

fn is_chunked(head: &ResponseHeader) -> bool {
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    let chunked = codings.next().is_some_and(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    chunked && codings.next().is_none() && head.version == Version::HTTP_11
}

/// The length in plain decimal, if it is written otherwise.
fn without_leading_zeros(head: &ResponseHeader) -> Option<HeaderValue> {
    let mut length = head.headers.get(CONTENT_LENGTH)?.as_bytes();
    let padded = |length: &[u8]| matches!(length, [b'0', b'0'..=b'9', ..]);
    if !padded(length) {
        return None;
    }
    while padded(length) {
        length = &length[1..];
    }
    HeaderValue::from_bytes(length).ok()
}
