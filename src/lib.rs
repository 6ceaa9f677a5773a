//! Portcullis: an API gateway and edge proxy on Pingora, as a library.
//!
//! The whole gateway in a program of your own, configured by the same words as a file, with filters and handlers
//! written in Rust:
//!
//! ```no_run
//! use portcullis::{Gateway, Route};
//!
//! # fn main() -> Result<(), portcullis::StartError> {
//! let gateway = Gateway::new().listen("127.0.0.1:8080");
//! let gateway = gateway.route(Route::new("app", "/*").forward_to(["127.0.0.1:3000"]));
//! gateway.run()
//! # }
//! ```

mod acme;
mod admin;
mod builder;
#[doc(hidden)]
pub mod cli;
mod compile;
mod edge;
mod handler;
mod outbound;
mod proxy;
mod registry;
mod server;
mod snapshot;
mod split;
mod state;
mod stores;
mod versions;
mod webhooks;

pub mod chain;
pub mod coding;
pub mod condition;
pub mod config;
pub mod consumer;
pub mod document;
pub mod exchange;
pub mod explain;
pub mod filters;
pub mod guard;
pub mod limit;
pub mod route;
pub mod telemetry;
pub mod tls;
pub mod types;
pub mod upstream;

pub use builder::{Gateway, Route};
pub use chain::{Authenticator, Chunk, Filter, Flow, LogEntry, Phases, Stage};
// For the fuzz targets.
#[doc(hidden)]
pub use edge::proxy_protocol;
pub use exchange::{Exchange, Fault, Reason, Reply, RequestHeader, ResponseHeader, Result};
pub use handler::{Handler, handler_fn};
pub use registry::{FilterKind, Members, Parameters, Registry, Scope};
pub use server::{Running, StartError};
pub use state::State;
pub use stores::Stores;
pub use upstream::{Discovery, DiscoveryError, EndpointSpec, HealthCheck, ProbeError, Target};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../docs/guides/library.md")]
struct Guides;
