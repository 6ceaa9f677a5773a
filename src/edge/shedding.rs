//! Whether new requests are refused because the process has as much as it can bear.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A switch that one task sets and every request reads. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Shedding(Arc<AtomicBool>);

impl Shedding {
    /// Whether new requests are refused.
    pub fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Refuses new requests from here on, or takes them again. Says whether that is news.
    pub fn set(&self, on: bool) -> bool {
        self.0.swap(on, Ordering::Relaxed) != on
    }
}
