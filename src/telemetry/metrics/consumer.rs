//! What one consumer counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::proto::MetricType;

use super::collector::{Family, Samples, Series};

/// The families that a consumer has series in.
pub(super) const FAMILIES: &[Family] = &[Family {
    name: "consumer_requests_total",
    help: "Requests of consumers that a filter has made sure of, whatever became of them.",
    kind: MetricType::COUNTER,
    labels: &["consumer"],
}];

/// The counters of one consumer, shared by every snapshot that has one of this name.
#[derive(Debug)]
pub struct ConsumerMetrics {
    name: Arc<str>,
    requests: AtomicU64,
}

impl ConsumerMetrics {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self { name, requests: AtomicU64::new(0) }
    }

    /// Counts a request.
    pub fn count(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }
}

impl Series for ConsumerMetrics {
    fn collect(&self, families: &mut [Samples]) {
        let requests = self.requests.load(Ordering::Relaxed);
        if let [family] = families
            && requests > 0
        {
            family.counter(&[&self.name], requests);
        }
    }
}
