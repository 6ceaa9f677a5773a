//! What the configuration says of an upstream's resilience, and what its endpoints share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::breaker::{Breaker, BreakerPolicy, Ticket};
use super::budget::{RetryBudget, RetryBudgetPolicy};
use super::health::ActiveHealth;
use super::outcome::Verdict;
use super::passive::{Ejections, PassivePolicy};
use super::quantile::Latencies;
use super::{Endpoint, EndpointId, EndpointSpec, LimitPolicy, Standing, Unavailable};
use crate::telemetry::{Events, UpstreamMetrics};

/// What the configuration says of an upstream's resilience.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// Asking endpoints whether they are well.
    pub active: Option<Arc<ActiveHealth>>,
    /// Taking endpoints that answer badly out of the choice.
    pub passive: Option<PassivePolicy>,
    /// The share of healthy endpoints below which all are asked, 0 to 1.
    pub panic_threshold: f64,
    /// What becomes of requests when no endpoint is healthy.
    pub when_none_healthy: WhenNoneHealthy,
    /// When nobody is called any more, and whom the breaker stands before.
    pub breaker: Option<(BreakerScope, BreakerPolicy)>,
    /// How long an endpoint that comes back takes to get its whole share.
    pub slow_start: Option<Duration>,
    /// How many requests each endpoint is given at once, and who waits.
    pub limits: Option<LimitPolicy>,
    /// How many requests may be retries.
    pub retry_budget: RetryBudgetPolicy,
    /// Whether some route asks for percentiles of the time to response heads.
    pub learns_latencies: bool,
}

/// What becomes of requests when no endpoint is healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenNoneHealthy {
    /// They are refused.
    Fail,
    /// Every endpoint is as good as another.
    TryAll,
}

/// Whom a breaker stands before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerScope {
    /// One endpoint.
    Endpoint,
    /// The whole upstream.
    Upstream,
}

/// What the endpoints of an upstream share.
#[derive(Debug)]
pub struct Common {
    /// The upstream's name.
    pub name: Arc<str>,
    /// What the configuration says.
    pub rules: Rules,
    /// What outlives snapshots.
    pub shared: Arc<Shared>,
    /// Its counters.
    pub metrics: Arc<UpstreamMetrics>,
    /// Where to tell what happens to it.
    pub events: Events,
}

/// What is known of an upstream as a whole. Its identity is its name.
#[derive(Debug)]
pub struct Shared {
    pub(super) breaker: Breaker,
    pub(super) budget: RetryBudget,
    pub(super) ejections: Ejections,
    pub(super) latencies: Latencies,
    /// Grows whenever an endpoint's health changes.
    pub(super) turns: AtomicU64,
}

impl Rules {
    /// The policy of each endpoint's own breaker.
    pub fn endpoint_breaker(&self) -> Option<&BreakerPolicy> {
        self.breaker.as_ref().filter(|(scope, _)| *scope == BreakerScope::Endpoint).map(|(_, policy)| policy)
    }

    /// The policy of the one breaker before all endpoints.
    pub fn upstream_breaker(&self) -> Option<&BreakerPolicy> {
        self.breaker.as_ref().filter(|(scope, _)| *scope == BreakerScope::Upstream).map(|(_, policy)| policy)
    }
}

impl Shared {
    /// That of an upstream nothing is known of, made at this time.
    pub fn new(born: Instant) -> Self {
        Self {
            breaker: Breaker::new(born),
            budget: RetryBudget::new(born),
            ejections: Ejections::default(),
            latencies: Latencies::new(born),
            turns: AtomicU64::new(0),
        }
    }
}

impl Default for Rules {
    /// Nobody is passed over; retries are at most a fifth of the requests, and three a second beside.
    fn default() -> Self {
        Self {
            active: None,
            passive: None,
            panic_threshold: 0.3,
            when_none_healthy: WhenNoneHealthy::Fail,
            breaker: None,
            slow_start: None,
            limits: None,
            retry_budget: RetryBudgetPolicy { ratio: 0.2, min_per_second: 3 },
            learns_latencies: false,
        }
    }
}

impl Common {
    /// That of an upstream nothing is known of.
    pub fn new(rules: Rules, metrics: Arc<UpstreamMetrics>) -> Self {
        let shared = Arc::new(Shared::new(Instant::now()));
        Self { name: Arc::clone(metrics.name()), rules, shared, metrics, events: Events::default() }
    }

    /// Its endpoints, in order; `standing` finds what is known of each.
    pub fn endpoints(
        self: &Arc<Self>,
        specs: impl IntoIterator<Item = EndpointSpec>,
        mut standing: impl FnMut(&EndpointSpec) -> Arc<Standing>,
    ) -> Vec<Endpoint> {
        let specs: Vec<EndpointSpec> = specs.into_iter().collect();
        let of = specs.len();
        let endpoint = |(id, spec): (u16, EndpointSpec)| {
            let (standing, metrics) = (standing(&spec), self.metrics.endpoint(&spec.address.to_string()));
            Endpoint::new((EndpointId(id), of), spec, standing, Arc::clone(self), metrics)
        };
        (0..).zip(specs).map(endpoint).collect()
    }

    /// Begins a call at the one breaker before all endpoints, if there is one.
    pub(super) fn begin(&self, now: Instant) -> Result<Option<Ticket>, Unavailable> {
        let Some(policy) = self.rules.upstream_breaker() else { return Ok(None) };
        let breaker = &self.shared.breaker;
        let Some(ticket) = breaker.begin(policy, now) else {
            let retry_after = breaker.retry_after(policy, now).unwrap_or_default();
            return Err(Unavailable::CircuitOpen { retry_after });
        };
        if let Some(change) = ticket.change() {
            self.tell_circuit(change, None);
        }
        Ok(Some(ticket))
    }

    /// Ends a call at the one breaker before all endpoints.
    pub(super) fn end(&self, ticket: Ticket, verdict: Verdict, took: Duration, now: Instant) {
        if let Some(policy) = self.rules.upstream_breaker()
            && let Some(change) = self.shared.breaker.end(policy, now, ticket, verdict, took)
        {
            self.tell_circuit(change, None);
        }
    }

    /// Takes in how long an answer took, where somebody asks.
    pub(super) fn learn(&self, latency: Duration, now: Instant) {
        if self.rules.learns_latencies {
            self.shared.latencies.record(now, latency);
        }
    }

    /// An endpoint's health has changed. Who sees the turn sees the change.
    pub(super) fn turned(&self) {
        self.shared.turns.fetch_add(1, Ordering::Release);
    }
}
