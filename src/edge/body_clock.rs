//! How slowly a request body may come.
//!
//! 1. A body has a credit of time, which runs down only while the gateway waits for its next bytes, and grows with each
//!    byte by what the byte may take. A body at the rate or above it never uses it up.
//! 2. The first seconds are a gift. What is saved up is bounded, so that a fast beginning does not pay for an endless rest.
//! 3. Plain numbers: the caller's nanoseconds come in, a deadline in them goes out.

use std::sync::atomic::{AtomicU64, Ordering};

/// What each body gets to begin with.
const GIFT: u64 = 10 * SECOND;
/// The most that can be saved up.
const MOST: u64 = 30 * SECOND;
const SECOND: u64 = 1_000_000_000;

/// The credit of one body. Each of its users has the exchange to itself: the numbers are atomic to be shared, not raced.
#[derive(Debug, Default)]
pub(super) struct BodyClock {
    /// Bytes a second; 0 when a body may take its time.
    rate: AtomicU64,
    credit: AtomicU64,
    /// Since when its bytes are waited for; 0 while they are not.
    waiting: AtomicU64,
}

impl BodyClock {
    /// A new body, which has to come at this rate in bytes a second.
    pub(super) fn begin(&self, rate: u64) {
        self.rate.store(rate, Ordering::Relaxed);
        self.credit.store(GIFT, Ordering::Relaxed);
        self.waiting.store(0, Ordering::Relaxed);
    }

    /// Whether there is a rate and nobody waits yet.
    pub(super) fn is_idle(&self) -> bool {
        self.rate.load(Ordering::Relaxed) != 0 && self.waiting.load(Ordering::Relaxed) == 0
    }

    /// From `now` on its bytes are waited for.
    pub(super) fn wait(&self, now: u64) {
        self.waiting.store(now, Ordering::Relaxed);
    }

    /// So many bytes came.
    pub(super) fn take(&self, now: u64, bytes: usize) {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == 0 {
            return;
        }
        let waited = match self.waiting.swap(0, Ordering::Relaxed) {
            0 => 0,
            since => now.saturating_sub(since),
        };
        let earned = (bytes as u64).saturating_mul(SECOND) / rate;
        let left = self.credit.load(Ordering::Relaxed).saturating_sub(waited);
        self.credit.store(left.saturating_add(earned).min(MOST), Ordering::Relaxed);
    }

    /// When the credit is used up; 0 while it does not run down.
    pub(super) fn deadline(&self) -> u64 {
        match self.waiting.load(Ordering::Relaxed) {
            0 => 0,
            since => since.saturating_add(self.credit.load(Ordering::Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A body whose pieces come after these pauses, in milliseconds. Says whether it was in time.
    fn is_in_time(rate: u64, pieces: &[(u64, usize)]) -> bool {
        let clock = BodyClock::default();
        clock.begin(rate);
        let mut now = SECOND;
        pieces.iter().all(|(pause, bytes)| {
            clock.wait(now);
            let by = clock.deadline();
            now += pause * 1_000_000;
            clock.take(now, *bytes);
            now < by
        })
    }

    #[test]
    fn a_trickle_is_cut_off_and_a_rest_after_a_flood_is_not_endless() {
        assert!(is_in_time(256, &[(9_000, 1)]));
        assert!(!is_in_time(256, &[(9_000, 1), (1_100, 1)]));
        assert!(is_in_time(256, &[(9_000, 512), (2_900, 1)]));
        assert!(is_in_time(256, &[(0, 1 << 20), (29_000, 1)]));
        assert!(!is_in_time(256, &[(0, 1 << 20), (31_000, 1)]));
    }

    #[test]
    fn time_in_which_nobody_reads_is_free() {
        let clock = BodyClock::default();
        clock.begin(100);
        assert_eq!(clock.deadline(), 0);
        clock.wait(5);
        clock.take(6, 0);
        assert!(clock.is_idle());
        assert_eq!(clock.deadline(), 0, "an hour may pass");
        clock.wait(3600 * SECOND);
        assert_eq!(clock.deadline(), 3610 * SECOND - 1);
        clock.begin(0);
        assert!(!clock.is_idle());
    }

    proptest! {
        #[test]
        fn whoever_keeps_the_rate_is_never_cut_off(
            rate in 1_u64..1_000_000, pauses in prop::collection::vec(0_u64..9_000, 1..100),
        ) {
            let bytes = |pause: u64| usize::try_from(pause * rate / 1000 + 1).unwrap();
            let pieces: Vec<_> = pauses.iter().map(|pause| (*pause, bytes(*pause))).collect();
            prop_assert!(is_in_time(rate, &pieces));
        }

        #[test]
        fn whoever_falls_short_is_cut_off(rate in 10_u64..1_000_000, pause in 100_u64..5_000) {
            let bytes = usize::try_from(pause * rate / 2000).unwrap();
            prop_assert!(!is_in_time(rate, &vec![(pause, bytes); 400]));
        }
    }
}
