//! What is known of an endpoint, and outlives snapshots.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use super::adaptive::AdaptiveLimit;
use super::born::Born;
use super::breaker::Breaker;
use super::endpoint::Checks;
use super::hedge::Silence;
use super::latency::PeakEwma;
use super::limits::Limit;
use super::passive::Passive;
use super::room::{Sockets, Turns};

/// What is known of an endpoint. Its identity is upstream + address, never the weight.
#[derive(Debug)]
pub struct Standing {
    /// Attempts under way, and requests that wait to begin one.
    pub(super) load: Arc<Limit>,
    pub(super) adaptive: AdaptiveLimit,
    pub(super) turns: Turns,
    pub(super) sockets: Arc<Sockets>,
    pub(super) requests: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) http2: AtomicBool,
    pub(super) breaker: Breaker,
    pub(super) passive: Passive,
    pub(super) checks: Checks,
    pub(super) latency: PeakEwma,
    pub(super) silence: Arc<Silence>,
    pub(super) born: Born,
    /// When it came back into the choice; zero when it never left.
    pub(super) back: AtomicU64,
}

impl Standing {
    /// That of an endpoint nothing is known of, made at this time.
    pub fn new(born: Instant) -> Self {
        Self {
            load: Arc::default(),
            adaptive: AdaptiveLimit::new(born),
            turns: Turns::default(),
            sockets: Arc::default(),
            requests: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            http2: AtomicBool::new(false),
            breaker: Breaker::new(born),
            passive: Passive::new(born),
            checks: Checks::default(),
            latency: PeakEwma::new(born),
            silence: Arc::default(),
            born: Born(born),
            back: AtomicU64::new(0),
        }
    }

    /// It comes back into the choice.
    pub(super) fn returns(&self, now: Instant) {
        self.back.store(self.born.nanos(now).max(1), Ordering::Relaxed);
    }

    /// Since when the endpoint is known.
    pub fn known_since(&self) -> Instant {
        self.born.0
    }

    /// Attempts under way.
    pub fn active(&self) -> u64 {
        u64::from(self.load.under_way())
    }

    /// Its connections, where they are counted.
    pub fn sockets(&self) -> &Arc<Sockets> {
        &self.sockets
    }

    /// Requests that wait until one ends.
    pub fn waiting(&self) -> u64 {
        u64::from(self.load.waiting())
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

    /// How long it takes to answer, of late.
    pub fn latency(&self) -> &PeakEwma {
        &self.latency
    }

    /// Attempts that failed by the endpoint's fault.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}
