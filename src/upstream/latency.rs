//! How long an endpoint takes, of late.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A peak-sensitive, exponentially weighted moving average of latency (Finagle's and Linkerd's Peak EWMA).
///
/// 1. A latency above the average becomes the average at once; one below draws it down, the more the longer it is since
///    the last.
/// 2. It decays while nothing is recorded, so that an endpoint that was slow once is tried again.
///
/// There is no lock. Two threads that record at once may lose one of the two, and a reader may see the new average with
/// the time of the old, which lets it decay a little too much: estimates bear that.
#[derive(Debug)]
pub struct PeakEwma {
    born: Instant,
    /// Seconds, as the bits of an `f64`.
    average: AtomicU64,
    /// When something was recorded last, in nanoseconds since `born`.
    recorded: AtomicU64,
}

/// The time in which what is known decays to 1/e.
const TAU: Duration = Duration::from_secs(10);

impl Default for PeakEwma {
    fn default() -> Self {
        Self::new(Instant::now())
    }
}

impl PeakEwma {
    /// An average of nothing; no time that is told later should be before `born`.
    pub fn new(born: Instant) -> Self {
        Self { born, average: AtomicU64::new(0f64.to_bits()), recorded: AtomicU64::new(0) }
    }

    /// Takes in how long an answer took.
    pub fn record(&self, now: Instant, latency: Duration) {
        let latency = latency.as_secs_f64();
        let average = f64::from_bits(self.average.load(Ordering::Relaxed));
        let kept = self.kept(now);
        let average = if latency > average { latency } else { average * kept + latency * (1.0 - kept) };
        self.average.store(average.to_bits(), Ordering::Relaxed);
        self.recorded.fetch_max(self.nanos(now), Ordering::Relaxed);
    }

    /// The latency to be expected, in seconds; zero when nothing is known.
    pub fn estimate(&self, now: Instant) -> f64 {
        f64::from_bits(self.average.load(Ordering::Relaxed)) * self.kept(now)
    }

    /// The part of the average that has not decayed.
    fn kept(&self, now: Instant) -> f64 {
        let since = self.nanos(now).saturating_sub(self.recorded.load(Ordering::Relaxed));
        (-(since as f64) / TAU.as_nanos() as f64).exp()
    }

    fn nanos(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.born).as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_peak_counts_at_once_and_decays() {
        let born = Instant::now();
        let ewma = PeakEwma::new(born);
        assert!(ewma.estimate(born) <= 0.0);
        ewma.record(born, MS);
        ewma.record(born + MS, 500 * MS);
        let at_once = ewma.estimate(born + MS);
        assert!((at_once - 0.5).abs() < 1e-9, "{at_once}");
        let later = ewma.estimate(born + MS + TAU);
        assert!((later - 0.5 / std::f64::consts::E).abs() < 1e-6, "{later}");
    }

    #[test]
    fn what_is_fast_draws_it_down_in_time() {
        let born = Instant::now();
        let ewma = PeakEwma::new(born);
        ewma.record(born, 500 * MS);
        for at in 1..=3000 {
            ewma.record(born + at * 10 * MS, MS);
        }
        // Three times tau: a twentieth of the peak is left.
        let estimate = ewma.estimate(born + 30_000 * MS);
        assert!((estimate - 0.001 - 0.499 * (-3f64).exp()).abs() < 1e-4, "{estimate}");
    }

    proptest! {
        #[test]
        fn an_estimate_is_never_beyond_what_was_recorded(
            history in prop::collection::vec((0u64..5_000, 1u64..2_000), 1..100),
            wait in 0u64..100_000,
        ) {
            let born = Instant::now();
            let ewma = PeakEwma::new(born);
            let mut now = born;
            let mut most = 0.0f64;
            for (pause, latency) in history {
                now += Duration::from_millis(pause);
                let latency = Duration::from_millis(latency);
                let before = ewma.estimate(now);
                ewma.record(now, latency);
                most = most.max(latency.as_secs_f64());
                let estimate = ewma.estimate(now);
                prop_assert!(estimate <= most + 1e-9);
                prop_assert!(estimate >= before.min(latency.as_secs_f64()) - 1e-9);
            }
            let later = ewma.estimate(now + Duration::from_millis(wait));
            prop_assert!((0.0..=ewma.estimate(now)).contains(&later));
        }

        #[test]
        fn times_out_of_order_do_no_harm(times in prop::collection::vec(0u64..10_000, 1..50)) {
            let ewma = PeakEwma::new(Instant::now() + Duration::from_secs(5));
            for time in times {
                let now = ewma.born - Duration::from_secs(5) + Duration::from_millis(time);
                ewma.record(now, Duration::from_millis(time));
                prop_assert!(ewma.estimate(now).is_finite());
            }
        }
    }
}
