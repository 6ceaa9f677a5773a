//! The time that limits go by.

use std::time::{Instant, SystemTime};

/// Nanoseconds since 1970 that never go back: the wall clock as it was at the start, and what has passed since.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    began: Instant,
    offset: u64,
}

impl Clock {
    /// A clock that goes from now on.
    pub fn start() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { began: Instant::now(), offset: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX / 2) }
    }

    /// The time it is.
    pub fn now(&self) -> u64 {
        self.at(Instant::now())
    }

    /// The time it was then.
    pub fn at(&self, then: Instant) -> u64 {
        let passed = then.saturating_duration_since(self.began).as_nanos();
        self.offset.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX / 2))
    }
}
