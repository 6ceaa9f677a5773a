//! What a listener counts.

use std::sync::Arc;

use prometheus::{IntCounterVec, IntGauge};

use crate::telemetry::{Metrics, RouteMetrics};
use crate::tls::{Failure, Session};

/// The metrics of one listener.
#[derive(Debug)]
pub struct ListenerMetrics {
    active: IntGauge,
    name: Box<str>,
    handshakes: IntCounterVec,
    no_route: Arc<RouteMetrics>,
}

impl ListenerMetrics {
    /// The metrics of the listener called `name`.
    ///
    /// # Errors
    ///
    /// What the metrics registry has against the name.
    pub fn new(metrics: &Metrics, name: &str) -> prometheus::Result<Self> {
        Ok(Self {
            active: metrics.connections_active(name)?,
            name: name.into(),
            handshakes: metrics.tls_handshakes(),
            no_route: Arc::clone(metrics.no_route()),
        })
    }

    /// Counts a connection as open for as long as the guard lives.
    pub(super) fn open(&self) -> Open {
        self.active.inc();
        Open(self.active.clone())
    }

    /// A handshake succeeded.
    pub(super) fn encrypted(&self, session: &Session) {
        self.handshake(session.version.number(), if session.resumed { "resumed" } else { "full" });
    }

    /// An authority was shown the proof of a host.
    pub(super) fn proved(&self) {
        self.handshake("-", "acme_challenge");
    }

    /// A handshake failed.
    pub(super) fn not_encrypted(&self, failure: Failure) {
        self.handshake("-", failure.code());
    }

    fn handshake(&self, version: &str, result: &str) {
        if let Ok(counter) = self.handshakes.get_metric_with_label_values(&[&*self.name, version, result]) {
            counter.inc();
        }
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
