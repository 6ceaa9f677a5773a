//! What one upstream, and each of its endpoints, counts.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::proto::MetricType;

use super::adopted::Adopted;
use super::collector::{Family, Samples, Series};
use super::counts::Counts;
use super::histogram::{Buckets, Histogram};

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
];

/// The counters of one upstream, shared by every snapshot that has an upstream of this name. Empty until its first try.
#[derive(Debug)]
pub struct UpstreamMetrics {
    name: Arc<str>,
    buckets: Arc<Buckets>,
    duration: OnceLock<Histogram>,
    endpoints: Adopted<EndpointCounts>,
}

impl UpstreamMetrics {
    pub(super) fn new(name: Arc<str>, buckets: Arc<Buckets>) -> Self {
        Self { name, buckets, duration: OnceLock::new(), endpoints: Adopted::default() }
    }

    /// The counters of the endpoint at `address`: those that someone holds, or new ones.
    pub fn endpoint(self: &Arc<Self>, address: &str) -> EndpointMetrics {
        let counts =
            self.endpoints.adopt(address, |address| EndpointCounts { address, outcomes: Counts::default() });
        EndpointMetrics { upstream: Arc::clone(self), counts }
    }

    fn observe(&self, duration: Duration) {
        self.duration.get_or_init(|| Histogram::new(Arc::clone(&self.buckets))).observe(duration);
    }
}

impl Series for UpstreamMetrics {
    fn collect(&self, families: &mut [Samples]) {
        let [duration, requests] = families else { return };
        if let Some(histogram) = self.duration.get() {
            duration.histogram(&[&self.name], histogram.proto());
        }
        for endpoint in self.endpoints.living() {
            for (outcome, count) in endpoint.outcomes.iter() {
                requests.counter(&[&self.name, &endpoint.address, outcome], count);
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

#[derive(Debug)]
struct EndpointCounts {
    address: Arc<str>,
    outcomes: Counts<&'static str>,
}

impl EndpointMetrics {
    /// Counts one try: its outcome (a word from a fixed set) and, when a response head came, how long that took.
    pub fn record(&self, outcome: &'static str, to_response_head: Option<Duration>) {
        self.counts.outcomes.add_one(outcome);
        if let Some(duration) = to_response_head {
            self.upstream.observe(duration);
        }
    }
}
