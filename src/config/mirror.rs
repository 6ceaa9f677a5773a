//! `mirror:`, which requests are copied to another upstream.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::types::{ByteSize, Duration, Percent};

/// Which requests are copied to another upstream, whose answers nobody gets: to try a new version on real traffic.
///
/// A copy is what went to the route's own upstream, filters included, with `X-Mirrored: true`. It never delays or fails the
/// request that it is of. Copied are requests whose body is whole; WebSockets, and what the gateway answers itself, are not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// The upstream that gets the copies. Its balancing, health, breakers and limits hold for them; none waits in its queues.
    pub upstream: String,
    /// How many of a hundred requests are copied, by lot.
    #[serde(default = "all")]
    pub percent: Percent,
    /// The longest request body that is copied; a request with a longer one is not. Kept in `server.retry_memory` until it has
    /// been sent. Default 64KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_body: Option<ByteSize>,
    /// How long a copy may take, from its beginning to the end of its answer.
    #[serde(default = "timeout")]
    pub timeout: Duration,
    /// Copies under way at once; what would be more is not copied.
    #[serde(default = "max_active")]
    #[schemars(range(min = 1))]
    pub max_active: u32,
}

fn all() -> Percent {
    Percent::ALL
}

fn timeout() -> Duration {
    std::time::Duration::from_secs(10).into()
}

fn max_active() -> u32 {
    128
}
