//! One server of an upstream.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::telemetry::EndpointMetrics;

/// An endpoint's place in its set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EndpointId(pub u16);

/// One server of an upstream. Cheap to clone; its load is shared by all clones and outlives snapshots.
#[derive(Debug, Clone)]
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
    pub fn load(&self) -> &Arc<Load> {
        &self.load
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

    /// Attempts that failed by the endpoint's fault.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Counts an attempt for as long as the permit lives.
    pub fn begin(self: &Arc<Self>) -> Permit {
        self.active.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        Permit(Arc::clone(self))
    }
}

/// An attempt under way.
#[derive(Debug)]
pub struct Permit(Arc<Load>);

impl Permit {
    /// Notes that the attempt failed by the endpoint's fault.
    pub fn failed(&self) {
        self.0.failures.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_counts_while_it_lasts() {
        let load = Arc::new(Load::default());
        let permit = load.begin();
        permit.failed();
        assert_eq!((load.active(), load.requests(), load.failures()), (1, 1, 1));
        drop(permit);
        assert_eq!((load.active(), load.requests(), load.failures()), (0, 1, 1));
    }
}
