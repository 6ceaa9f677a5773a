//! What one variant of a route counts.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use prometheus::proto::MetricType;

use super::collector::{Family, Samples, Series};
use super::counts::Counts;

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "variant_requests_total",
        help: "Requests answered, by route, variant (or version of an API) and status.",
        kind: MetricType::COUNTER,
        labels: &["route", "variant", "status"],
    },
    Family {
        name: "deprecated_requests_total",
        help: "Requests for a deprecated version of an API, by who made them; `-` where that is not known.",
        kind: MetricType::COUNTER,
        labels: &["route", "variant", "consumer"],
    },
];

/// The label of those who are not known.
const NOBODY: &str = "-";

/// The counters of one variant of a route.
#[derive(Debug)]
pub struct VariantMetrics {
    route: Box<str>,
    variant: Box<str>,
    requests: Counts<u16>,
    /// Requests for what is deprecated, by consumer.
    deprecated: RwLock<HashMap<Arc<str>, AtomicU64>>,
}

impl VariantMetrics {
    /// What tells a variant from those of other routes.
    pub(super) fn key(route: &str, variant: &str) -> String {
        format!("{route}\0{variant}")
    }

    pub(super) fn new(key: &str) -> Self {
        let (route, variant) = key.split_once('\0').unwrap_or((key, ""));
        Self {
            route: route.into(),
            variant: variant.into(),
            requests: Counts::default(),
            deprecated: RwLock::default(),
        }
    }

    /// Counts a finished exchange. A status outside 100 to 599 (0: none was sent) counts as `0`.
    pub fn record(&self, status: u16) {
        self.requests.add_one(if (100..600).contains(&status) { status } else { 0 });
    }

    /// Counts a request for what is deprecated. Consumers come from the configuration.
    pub fn deprecated(&self, consumer: Option<&Arc<str>>) {
        let name = consumer.map_or(NOBODY, |name| &**name);
        if let Some(count) = self.deprecated.read().get(name) {
            count.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut counts = self.deprecated.write();
        let name = consumer.map_or_else(|| NOBODY.into(), Arc::clone);
        counts.entry(name).or_default().fetch_add(1, Ordering::Relaxed);
    }
}

impl Series for VariantMetrics {
    fn collect(&self, families: &mut [Samples]) {
        let [requests, deprecated] = families else { return };
        for (status, count) in self.requests.iter() {
            requests.counter(&[&self.route, &self.variant, &status.to_string()], count);
        }
        for (consumer, count) in self.deprecated.read().iter() {
            deprecated.counter(&[&self.route, &self.variant, consumer], count.load(Ordering::Relaxed));
        }
    }
}
