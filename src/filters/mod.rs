//! The filters: one file each. The file's name is the config key, the metric label and the docs page.

mod compression;
mod decompression;
mod grpc_web;
mod headers;
mod ip_restriction;
mod request_id;
mod rewrite;

use http::HeaderName;
use http::header::CONTENT_LENGTH;

use crate::exchange::RequestHeader;
use crate::registry::Registry;

/// Every filter of the house.
pub fn builtin() -> Registry {
    Registry::default()
        .filter::<compression::Compression>()
        .filter::<decompression::Decompression>()
        .filter::<grpc_web::GrpcWeb>()
        .filter::<headers::Headers>()
        .filter::<ip_restriction::IpRestriction>()
        .filter::<request_id::RequestIds>()
        .filter::<rewrite::Rewrite>()
}

/// What is true of the bytes as they are.
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

/// Has the head of a request tell nothing of how its body was before a filter changed it.
fn reframe(head: &mut RequestHeader) {
    for name in DIGESTS {
        head.remove_header(&name);
    }
    // A body that is empty stays so.
    if head.headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0") {
        head.remove_header(&CONTENT_LENGTH);
    }
}
