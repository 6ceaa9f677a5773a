//! Instants as numbers that fit into an atomic.

use std::time::{Duration, Instant};

/// When a state was made: the zero that its times are counted from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Born(pub(super) Instant);

impl Born {
    /// Nanoseconds from the zero until then; zero for what was before.
    pub(super) fn nanos(self, then: Instant) -> u64 {
        nanos(then.saturating_duration_since(self.0))
    }

    /// What [`nanos`](Self::nanos) made a number of.
    pub(super) fn instant(self, nanos: u64) -> Instant {
        self.0.checked_add(Duration::from_nanos(nanos)).unwrap_or(self.0)
    }
}

/// A duration in nanoseconds, at most 584 years.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_comes_back() {
        let born = Born(Instant::now());
        let then = born.0 + Duration::from_nanos(1_234_567_890);
        assert_eq!(born.instant(born.nanos(then)), then);
        assert_eq!(born.nanos(born.0 - Duration::from_nanos(1)), 0);
        assert_eq!(nanos(Duration::MAX), u64::MAX);
    }
}
