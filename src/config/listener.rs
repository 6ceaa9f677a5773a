//! `listeners:`, where clients connect.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::FilterUse;
use super::forms::{ADDRESS, address};
use crate::types::{ByteSize, Duration};

/// A place where clients connect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Its name: the metric label, and what a route's `listeners` names.
    pub name: String,
    /// The address and port, `0.0.0.0:8080` or `[::]:8443`. Port 0 takes any free port.
    #[serde(deserialize_with = "address")]
    #[schemars(regex(pattern = ADDRESS))]
    pub address: std::net::SocketAddr,
    /// Filters before every route's, on this listener.
    #[serde(default)]
    pub filters: Vec<FilterUse>,
    /// Bounds on what one client may take.
    #[serde(default)]
    pub limits: ListenerLimits,
}

/// Bounds on connections and request heads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerLimits {
    /// Connections open at once, in all; further ones are closed unread.
    pub connections: usize,
    /// Connections open at once from one address (an IPv6 /64 counts as one); further ones are closed unread. Not
    /// counted for `server.trusted_proxies`.
    pub connections_per_ip: usize,
    /// The size of a whole request head; 431 above. At most 512KiB.
    pub header_bytes: ByteSize,
    /// The number of header fields; 431 above. At most 255.
    pub headers: usize,
    /// The length of the request target; 414 above. Never more than `header_bytes`.
    pub uri_bytes: ByteSize,
    /// The time for a whole request head, from its first byte; 408 after.
    pub header_timeout: Duration,
    /// How long a connection may stay open without a request.
    pub idle_timeout: Duration,
    /// Requests served on one connection before it is closed.
    pub requests_per_connection: u32,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            connections: 50_000,
            connections_per_ip: 1_000,
            header_bytes: ByteSize::kib(64),
            headers: 100,
            uri_bytes: ByteSize::kib(16),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            requests_per_connection: 10_000,
        }
    }
}
