//! What one upstream, and each of its endpoints, counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::proto::MetricType;

use super::adopted::Adopted;
use super::collector::{Family, Samples, Series};
use super::counts::Counts;
use super::histogram::{Buckets, Histogram};

/// The endpoint label of what stands before all endpoints.
const ALL: &str = "-";

/// The families that an upstream has series in, in the order that [`UpstreamMetrics::collect`] fills them.
pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "upstream_request_duration_seconds",
        help: "Time to the upstream's response head.",
        kind: MetricType::HISTOGRAM,
        labels: &["upstream"],
    },
    Family {
        name: "upstream_requests_total",
        help: "Tries at an endpoint, by what became of them.",
        kind: MetricType::COUNTER,
        labels: &["upstream", "endpoint", "outcome"],
    },
    Family {
        name: "retries_total",
        help: "Attempts after the first, by what became of them; over_budget were not made, and body_not_kept could not be.",
        kind: MetricType::COUNTER,
        labels: &["upstream", "result"],
    },
    Family {
        name: "hedges_total",
        help: "Requests sent to a second endpoint too: won, lost; over_budget and nobody were not sent.",
        kind: MetricType::COUNTER,
        labels: &["upstream", "result"],
    },
    Family {
        name: "endpoint_healthy",
        help: "1 while an endpoint is in the choice, else 0.",
        kind: MetricType::GAUGE,
        labels: &["upstream", "endpoint"],
    },
    Family {
        name: "circuit_state",
        help: "Circuit breakers: 0 closed, 1 half-open, 2 open. The endpoint is `-` where one stands before all.",
        kind: MetricType::GAUGE,
        labels: &["upstream", "endpoint"],
    },
    Family {
        name: "hash_key_missing_total",
        help: "Requests that had nothing of what they are hashed by, and went to any endpoint.",
        kind: MetricType::COUNTER,
        labels: &["upstream"],
    },
    Family {
        name: "upstream_endpoints",
        help: "Endpoints, those that drain or are out of the choice among them.",
        kind: MetricType::GAUGE,
        labels: &["upstream"],
    },
    Family {
        name: "health_checks_total",
        help: "Probes of active health, by what came of them.",
        kind: MetricType::COUNTER,
        labels: &["upstream", "endpoint", "result"],
    },
    Family {
        name: "endpoint_limit",
        help: "Requests that an endpoint is given at once, where that is limited.",
        kind: MetricType::GAUGE,
        labels: &["upstream", "endpoint"],
    },
    Family {
        name: "upstream_queue",
        help: "Requests that wait for an endpoint at its limit.",
        kind: MetricType::GAUGE,
        labels: &["upstream", "endpoint"],
    },
];

/// The counters of one upstream, shared by every snapshot that has an upstream of this name. Empty until its first try.
#[derive(Debug)]
pub struct UpstreamMetrics {
    name: Arc<str>,
    buckets: Arc<Buckets>,
    duration: OnceLock<Histogram>,
    retries: Counts<&'static str>,
    hedges: Counts<&'static str>,
    circuit: Gauge,
    keys_missing: AtomicU64,
    endpoints: Adopted<EndpointCounts>,
    /// How many endpoints it was said to have, and 1.
    size: AtomicU64,
}

impl UpstreamMetrics {
    pub(super) fn new(name: Arc<str>, buckets: Arc<Buckets>) -> Self {
        Self {
            name,
            buckets,
            duration: OnceLock::new(),
            retries: Counts::default(),
            hedges: Counts::default(),
            circuit: Gauge::default(),
            keys_missing: AtomicU64::new(0),
            endpoints: Adopted::default(),
            size: AtomicU64::new(0),
        }
    }

    /// The counters of the endpoint at `address`: those that someone holds, or new ones.
    pub fn endpoint(self: &Arc<Self>, address: &str) -> EndpointMetrics {
        let counts =
            self.endpoints.adopt(address, |address| EndpointCounts { address, ..EndpointCounts::default() });
        EndpointMetrics { upstream: Arc::clone(self), counts }
    }

    /// The upstream's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Counts a retry by its result, a word from a fixed set.
    pub fn retry(&self, result: &'static str) {
        self.retries.add_one(result);
    }

    /// Counts a hedge by its result, a word from a fixed set.
    pub fn hedge(&self, result: &'static str) {
        self.hedges.add_one(result);
    }

    /// Counts a request that has nothing to be hashed by.
    pub fn key_missing(&self) {
        self.keys_missing.fetch_add(1, Ordering::Relaxed);
    }

    /// How the breaker before all endpoints stands, if there is one.
    pub fn report(&self, circuit: Option<u8>) {
        self.circuit.set(circuit.map(u64::from));
    }

    /// How many endpoints it has.
    pub fn report_size(&self, size: usize) {
        self.size.store(size as u64 + 1, Ordering::Relaxed);
    }

    fn observe(&self, duration: Duration) {
        self.duration.get_or_init(|| Histogram::new(Arc::clone(&self.buckets))).observe(duration);
    }
}

impl Series for UpstreamMetrics {
    fn collect(&self, families: &mut [Samples]) {
        let [duration, requests, retries, hedges, healthy, circuit, keys_missing, size, probes, limit, queue] =
            families
        else {
            return;
        };
        if let Some(histogram) = self.duration.get() {
            duration.histogram(&[&self.name], histogram.proto());
        }
        for (result, count) in self.retries.iter() {
            retries.counter(&[&self.name, result], count);
        }
        for (result, count) in self.hedges.iter() {
            hedges.counter(&[&self.name, result], count);
        }
        if let Some(state) = self.circuit.get() {
            circuit.gauge(&[&self.name, ALL], state);
        }
        match self.keys_missing.load(Ordering::Relaxed) {
            0 => {}
            count => keys_missing.counter(&[&self.name], count),
        }
        if let Some(known) = self.size.load(Ordering::Relaxed).checked_sub(1) {
            size.gauge(&[&self.name], i64::try_from(known).unwrap_or(i64::MAX));
        }
        for endpoint in self.endpoints.living() {
            if let Some(state) = endpoint.healthy.get() {
                healthy.gauge(&[&self.name, &endpoint.address], state);
            }
            if let Some(state) = endpoint.circuit.get() {
                circuit.gauge(&[&self.name, &endpoint.address], state);
            }
            if let Some(requests) = endpoint.limit.get() {
                limit.gauge(&[&self.name, &endpoint.address], requests);
            }
            if let Some(requests) = endpoint.waiting.get() {
                queue.gauge(&[&self.name, &endpoint.address], requests);
            }
            for (outcome, count) in endpoint.outcomes.iter() {
                requests.counter(&[&self.name, &endpoint.address, outcome], count);
            }
            for (result, count) in endpoint.probes.iter() {
                probes.counter(&[&self.name, &endpoint.address, result], count);
            }
        }
    }
}

/// The counters of one endpoint. Holds its upstream's, too: an endpoint may outlive a snapshot.
#[derive(Debug, Clone)]
pub struct EndpointMetrics {
    upstream: Arc<UpstreamMetrics>,
    counts: Arc<EndpointCounts>,
}

#[derive(Debug, Default)]
struct EndpointCounts {
    address: Arc<str>,
    outcomes: Counts<&'static str>,
    probes: Counts<&'static str>,
    healthy: Gauge,
    circuit: Gauge,
    limit: Gauge,
    waiting: Gauge,
}

/// A number, or that there is none.
#[derive(Debug, Default)]
struct Gauge(AtomicU64);

impl Gauge {
    fn set(&self, value: Option<u64>) {
        self.0.store(value.map_or(0, |value| value.saturating_add(1)), Ordering::Relaxed);
    }

    fn get(&self) -> Option<i64> {
        self.0.load(Ordering::Relaxed).checked_sub(1).and_then(|value| i64::try_from(value).ok())
    }
}

impl EndpointMetrics {
    /// Whether it is in the choice, and how its own breaker stands if it has one.
    pub fn report(&self, healthy: bool, circuit: Option<u8>) {
        self.counts.healthy.set(Some(healthy.into()));
        self.counts.circuit.set(circuit.map(u64::from));
    }

    /// How many requests it is given at once and how many wait for it, where that is limited.
    pub fn report_load(&self, limit: Option<u64>, waiting: Option<u64>) {
        self.counts.limit.set(limit);
        self.counts.waiting.set(waiting);
    }

    /// Counts a probe by its result, a word from a fixed set.
    pub fn probed(&self, result: &'static str) {
        self.counts.probes.add_one(result);
    }

    /// Counts one try: its outcome (a word from a fixed set) and, when a response head came, how long that took.
    pub fn record(&self, outcome: &'static str, to_response_head: Option<Duration>) {
        self.counts.outcomes.add_one(outcome);
        if let Some(duration) = to_response_head {
            self.upstream.observe(duration);
        }
    }
}
