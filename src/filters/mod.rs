//! The filters: one file each. The file's name is the config key, the metric label and the docs page.

mod api_key;
mod basic;
mod bot;
mod compression;
mod cors;
mod decompression;
mod fault;
mod grpc_web;
mod headers;
mod ip_restriction;
mod maintenance;
mod parameters;
mod request_id;
mod rewrite;

use crate::registry::Registry;

/// Every filter of the house.
pub fn builtin() -> Registry {
    Registry::default()
        .filter::<api_key::ApiKey>()
        .filter::<basic::Basic>()
        .filter::<bot::Bot>()
        .filter::<compression::Compression>()
        .filter::<cors::Cors>()
        .filter::<decompression::Decompression>()
        .filter::<fault::Fault>()
        .filter::<grpc_web::GrpcWeb>()
        .filter::<headers::Headers>()
        .filter::<ip_restriction::IpRestriction>()
        .filter::<maintenance::Maintenance>()
        .filter::<parameters::Parameters>()
        .filter::<request_id::RequestIds>()
        .filter::<rewrite::Rewrite>()
}
