//! How an upstream is kept from going dark: health, breaker, limits, the budget of retries.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::health::ActiveHealth;
use crate::types::{Duration, Percent};

/// Who of the servers is asked, by how they are.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Health {
    /// Asking them whether they are well. Off unless named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<ActiveHealth>,
    /// Taking endpoints that answer badly out of the choice for a while. Off unless named; `{}` is on with what stands here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passive: Option<PassiveHealth>,
    /// Below this share of healthy endpoints all are asked: that much failing at once is not theirs, and the healthy few
    /// could not carry it.
    pub panic_threshold: PanicThreshold,
    /// What becomes of requests when no endpoint is healthy.
    pub when_none_healthy: WhenNoneHealthy,
}

/// Below which share of healthy endpoints all are asked.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct PanicThreshold(pub Percent);

impl Default for PanicThreshold {
    fn default() -> Self {
        Self(Percent::of(30))
    }
}

/// What becomes of requests when no endpoint is healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenNoneHealthy {
    /// 503.
    #[default]
    Fail,
    /// Every endpoint is as good as another.
    TryAll,
}

/// When an endpoint that answers badly is taken out of the choice, and for how long (outlier ejection).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PassiveHealth {
    /// After so many errors in a row: failed connections, resets, timeouts, answers of 500 and above.
    #[schemars(range(min = 1))]
    pub consecutive_errors: u32,
    /// Or when so many of the requests in the `window` were errors.
    pub error_rate: Percent,
    /// `error_rate` counts from so many requests in the `window` on.
    #[schemars(range(min = 1))]
    pub min_requests: u32,
    /// How far back `error_rate` looks.
    pub window: Duration,
    /// For how long, the first time; twice as long the second, and so on up to ten times. Each such time without another
    /// takes one back.
    pub eject_for: Duration,
    /// The most endpoints that may be out at once.
    pub max_ejected: Percent,
}

impl Default for PassiveHealth {
    fn default() -> Self {
        Self {
            consecutive_errors: 5,
            error_rate: Percent::of(50),
            min_requests: 20,
            window: Duration::from_secs(10),
            eject_for: Duration::from_secs(10),
            max_ejected: Percent::of(50),
        }
    }
}

/// When a server, or all of them, is not asked any more, and how it is asked again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Breaker {
    /// Whether each endpoint has its own, or the upstream one for all.
    pub scope: BreakerScope,
    /// Open after so many failures in a row.
    #[schemars(range(min = 1))]
    pub consecutive_failures: u32,
    /// Open when so many of the calls in the `window` failed.
    pub error_rate: Percent,
    /// A call that takes longer than this until its response head is slow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_call_duration: Option<Duration>,
    /// Open when so many of the calls in the `window` were slow.
    pub slow_call_rate: Percent,
    /// The rates count from so many calls in the `window` on.
    #[schemars(range(min = 1))]
    pub min_requests: u32,
    /// How far back the rates look.
    pub window: Duration,
    /// How long nobody is asked once it is open. Requests are answered 503 with `Retry-After` for so long, unless another
    /// endpoint can be asked.
    pub open_for: Duration,
    /// How many calls are let through at once then, to see how it goes.
    #[schemars(range(min = 1))]
    pub half_open_requests: u32,
    /// Closed again after so many of them went well. One that fails opens it anew.
    #[schemars(range(min = 1))]
    pub close_after: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            scope: BreakerScope::Endpoint,
            consecutive_failures: 5,
            error_rate: Percent::of(50),
            slow_call_duration: None,
            slow_call_rate: Percent::of(80),
            min_requests: 20,
            window: Duration::from_secs(10),
            open_for: Duration::from_secs(30),
            half_open_requests: 3,
            close_after: 3,
        }
    }
}

/// Whom a breaker stands before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BreakerScope {
    /// One endpoint: the others are asked instead.
    #[default]
    Endpoint,
    /// The whole upstream.
    Upstream,
}

/// How many of an upstream's requests may be retries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetryBudget {
    /// The share of the requests of the last ten seconds that may be sent again: what an outage adds to the load.
    pub ratio: Percent,
    /// Retries a second that are always allowed.
    pub min_per_second: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { ratio: Percent::of(20), min_per_second: 3 }
    }
}
