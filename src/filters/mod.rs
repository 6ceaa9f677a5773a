//! The filters: one file each. The file's name is the config key, the metric label and the docs page.

mod any_of;
mod api_key;
mod basic;
mod bot;
mod compression;
mod concurrency;
mod cors;
mod decompression;
mod fault;
mod grpc_web;
mod headers;
mod ip_restriction;
mod maintenance;
mod parameters;
mod quota;
mod rate_limit;
mod request_id;
mod rewrite;

use crate::registry::Registry;

/// Every filter of the house.
pub fn builtin() -> Registry {
    Registry::default()
        .filter::<any_of::AnyOf>()
        .filter::<api_key::ApiKey>()
        .filter::<basic::Basic>()
        .filter::<bot::Bot>()
        .filter::<compression::Compression>()
        .filter::<concurrency::Concurrency>()
        .filter::<cors::Cors>()
        .filter::<decompression::Decompression>()
        .filter::<fault::Fault>()
        .filter::<grpc_web::GrpcWeb>()
        .filter::<headers::Headers>()
        .filter::<ip_restriction::IpRestriction>()
        .filter::<maintenance::Maintenance>()
        .filter::<parameters::Parameters>()
        .filter::<quota::Quota>()
        .filter::<rate_limit::RateLimit>()
        .filter::<request_id::RequestIds>()
        .filter::<rewrite::Rewrite>()
}
