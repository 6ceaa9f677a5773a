//! The filters: one file each. The file's name is the config key, the metric label and the docs page.

mod compression;
mod concurrency;
mod decompression;
mod grpc_web;
mod headers;
mod ip_restriction;
mod quota;
mod rate_limit;
mod request_id;
mod rewrite;

use crate::registry::Registry;

/// Every filter of the house.
pub fn builtin() -> Registry {
    Registry::default()
        .filter::<compression::Compression>()
        .filter::<concurrency::Concurrency>()
        .filter::<decompression::Decompression>()
        .filter::<grpc_web::GrpcWeb>()
        .filter::<headers::Headers>()
        .filter::<ip_restriction::IpRestriction>()
        .filter::<quota::Quota>()
        .filter::<rate_limit::RateLimit>()
        .filter::<request_id::RequestIds>()
        .filter::<rewrite::Rewrite>()
}
