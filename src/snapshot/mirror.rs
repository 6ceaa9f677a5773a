//! Where copies of a route's requests go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::UpstreamTimeouts;
use crate::upstream::Upstream;

/// Where copies of a route's requests go, and what they may take.
pub struct Mirror {
    /// The upstream that gets them.
    pub upstream: Arc<Upstream>,
    /// How many requests are copied, from 0 to 1.
    pub share: f64,
    /// The longest request body that is copied, in bytes.
    pub max_body: u64,
    /// From a copy's beginning to the end of its answer.
    pub timeout: Duration,
    /// Copies at once.
    pub max_active: u32,
    /// How long to wait for the upstream.
    pub timeouts: UpstreamTimeouts,
    /// Those under way.
    pub copies: Arc<Copies>,
}

/// How many copies of a route's requests are under way, whatever its configuration was as they began.
#[derive(Debug, Default)]
pub struct Copies(AtomicU32);

/// A copy under way, until it is dropped.
#[derive(Debug)]
#[must_use = "dropped, it counts as ended"]
pub struct Place(Arc<Copies>);

impl Mirror {
    /// A place for one more copy, if there is one.
    pub fn place(&self) -> Option<Place> {
        let more = |active: u32| (active < self.max_active).then_some(active + 1);
        let taken = self.copies.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.ok().map(|_| Place(Arc::clone(&self.copies)))
    }

    /// How many copies are under way.
    pub fn active(&self) -> u32 {
        self.copies.0.load(Ordering::Relaxed)
    }

    /// How many of a hundred requests are copied.
    pub fn percent(&self) -> f64 {
        // Without what a fraction cannot say.
        (self.share * 1e8).round() / 1e6
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
