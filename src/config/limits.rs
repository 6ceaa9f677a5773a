//! How much an upstream's endpoints are given at once, and who waits.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::types::Duration;

/// How many requests an endpoint is given at once, and how many wait for their turn. At least one of `max_requests` and
/// `max_connections`, unless `adaptive_concurrency` finds the limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Requests at once. Any number unless named.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_requests: Option<u32>,
    /// Connections at once: as many requests over HTTP/1.1, and a hundred times as many over HTTP/2. A WebSocket counts as long
    /// as it lives. Any number unless named.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_connections: Option<u32>,
    /// How many requests wait for an endpoint when all that could be asked are at their limits. More are answered 503 at once;
    /// with 0, all of them.
    pub max_queue: u32,
    /// How long a request waits; 503 then.
    pub queue_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_requests: None,
            max_connections: None,
            max_queue: 256,
            queue_timeout: Duration::from_secs(1),
        }
    }
}

/// Within which bounds a limit of requests at once finds its own way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdaptiveConcurrency {
    /// The lowest.
    #[schemars(range(min = 1))]
    pub min: u32,
    /// The highest.
    #[schemars(range(min = 1))]
    pub max: u32,
}

impl Default for AdaptiveConcurrency {
    fn default() -> Self {
        Self { min: 8, max: 1024 }
    }
}

/// How important a route's requests are to those who wait for an endpoint that has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Waits behind all others, and makes room for them when the queue is full.
    Low,
    /// As most are.
    #[default]
    Normal,
    /// Waits before all others.
    High,
}
