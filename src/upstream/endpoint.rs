//! One server of an upstream.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::telemetry::EndpointMetrics;

/// An endpoint's place in its set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EndpointId(pub u16);

/// What is told of one server of an upstream: by the configuration, or by discovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSpec {
    /// Its address.
    pub address: SocketAddr,
    /// Its share of requests, relative to the others'.
    pub weight: u16,
    /// Where it is; `None` when nobody says.
    pub zone: Option<Arc<str>>,
    /// Who is asked first: the lowest, then the others in order.
    pub priority: u8,
}

/// One server of an upstream. Its load outlives snapshots.
#[derive(Debug)]
pub struct Endpoint {
    id: EndpointId,
    address: SocketAddr,
    weight: u16,
    load: Arc<Load>,
    metrics: EndpointMetrics,
}

/// What is known of an endpoint's use. Its identity is upstream + address, never the weight.
#[derive(Debug, Default)]
pub struct Load {
    active: AtomicU64,
    requests: AtomicU64,
    failures: AtomicU64,
    http2: AtomicBool,
}

impl Endpoint {
    /// An endpoint at a place in its set.
    pub fn new(
        id: EndpointId,
        address: SocketAddr,
        weight: u16,
        load: Arc<Load>,
        metrics: EndpointMetrics,
    ) -> Self {
        Self { id, address, weight, load, metrics }
    }

    /// Its place in its set.
    pub fn id(&self) -> EndpointId {
        self.id
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its share of requests, relative to the others'.
    pub fn weight(&self) -> u16 {
        self.weight
    }

    /// Its counters.
    pub fn metrics(&self) -> &EndpointMetrics {
        &self.metrics
    }

    /// What is known of its use.
    pub fn load(&self) -> &Load {
        &self.load
    }

    /// Counts an attempt for as long as the permit lives.
    pub fn begin(self: Arc<Self>) -> Permit {
        self.load.active.fetch_add(1, Ordering::Relaxed);
        self.load.requests.fetch_add(1, Ordering::Relaxed);
        Permit(self)
    }
}

impl Load {
    /// Attempts under way.
    pub fn active(&self) -> u64 {
        self.active.load(Ordering::Relaxed)
    }

    /// Attempts begun since the endpoint is known.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// What was agreed to be spoken with it.
    pub fn agreed(&self, http2: bool) {
        // Told with every request, and hardly ever new: others read what lies beside it.
        if self.is_http2() != http2 {
            self.http2.store(http2, Ordering::Relaxed);
        }
    }

    /// Whether HTTP/2 was agreed on, the last time.
    pub fn is_http2(&self) -> bool {
        self.http2.load(Ordering::Relaxed)
    }

    /// Attempts that failed by the endpoint's fault.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

/// An attempt under way at an endpoint.
#[derive(Debug)]
pub struct Permit(Arc<Endpoint>);

impl Permit {
    /// The endpoint that is tried.
    pub fn endpoint(&self) -> &Endpoint {
        &self.0
    }

    /// Notes that the attempt failed by the endpoint's fault.
    pub fn failed(&self) {
        self.0.load.failures.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.load.active.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Buckets, Metrics};

    #[test]
    fn an_attempt_counts_while_it_lasts() {
        let load = Arc::new(Load::default());
        let metrics = Metrics::new("test", Buckets::default()).unwrap().upstream("u").endpoint("a");
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        let endpoint = Endpoint::new(EndpointId(0), address, 1, Arc::clone(&load), metrics);
        let permit = Arc::new(endpoint).begin();
        permit.failed();
        assert_eq!((load.active(), load.requests(), load.failures()), (1, 1, 1));
        drop(permit);
        assert_eq!((load.active(), load.requests(), load.failures()), (0, 1, 1));
    }
}
