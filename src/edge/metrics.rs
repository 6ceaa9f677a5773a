//! What a listener counts.

use std::sync::Arc;

use prometheus::IntGauge;

use crate::telemetry::{Metrics, RouteMetrics};

/// The metrics of one listener.
#[derive(Debug)]
pub struct ListenerMetrics {
    active: IntGauge,
    no_route: Arc<RouteMetrics>,
}

impl ListenerMetrics {
    /// The metrics of the listener called `name`.
    ///
    /// # Errors
    ///
    /// What the metrics registry has against the name.
    pub fn new(metrics: &Metrics, name: &str) -> prometheus::Result<Self> {
        Ok(Self { active: metrics.connections_active(name)?, no_route: Arc::clone(metrics.no_route()) })
    }

    /// Counts a connection as open for as long as the guard lives.
    pub(super) fn open(&self) -> Open {
        self.active.inc();
        Open(self.active.clone())
    }

    /// A connection was closed unread.
    pub(super) fn turned_away(&self, reason: &'static str) {
        self.no_route.reply(reason);
    }

    /// What came never became a request.
    pub(super) fn refused(&self, reason: &'static str) {
        self.no_route.reply(reason);
    }
}

/// An open connection.
pub(super) struct Open(IntGauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
