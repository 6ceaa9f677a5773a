//! The filters: one file each. The file's name is the config key, the metric label and the docs page.

mod api_key;
mod basic;
mod compression;
mod decompression;
mod grpc_web;
mod headers;
mod ip_restriction;
mod request_id;
mod rewrite;

use crate::registry::Registry;

/// Every filter of the house.
pub fn builtin() -> Registry {
    Registry::default()
        .filter::<api_key::ApiKey>()
        .filter::<basic::Basic>()
        .filter::<compression::Compression>()
        .filter::<decompression::Decompression>()
        .filter::<grpc_web::GrpcWeb>()
        .filter::<headers::Headers>()
        .filter::<ip_restriction::IpRestriction>()
        .filter::<request_id::RequestIds>()
        .filter::<rewrite::Rewrite>()
}
