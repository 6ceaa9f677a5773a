//! How long an upstream takes to its response heads, of late: percentiles, for hedging.
//!
//! 1. Times are counted in buckets, eight to each doubling, from 64 microseconds to some 70 minutes. What is told of a bucket
//!    is its middle, at most a sixteenth from any time in it.
//! 2. There are three windows of ten seconds: the one under way and the two before it. Who comes first in a new window empties
//!    it; a few times that are told at that very moment may be lost, and estimates bear that.
//! 3. Nothing is told before there were enough times for the percentile that is asked for: two beyond it, and twenty in all.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::born::Born;

/// The times of the last windows.
#[derive(Debug)]
pub struct Latencies {
    born: Born,
    windows: [Window; WINDOWS],
}

/// The times of ten seconds.
#[derive(Debug)]
struct Window {
    /// Which ten seconds, counted from 1.
    at: AtomicU64,
    counts: [AtomicU32; BUCKETS],
}

const WINDOWS: usize = 3;
const SPAN: Duration = Duration::from_secs(10);
/// As a power of two: the buckets of a doubling.
const FINE: u32 = 3;
/// As a power of two: the microseconds below which all is one bucket's.
const FIRST: u32 = 6;
const DOUBLINGS: u32 = 26;
const BUCKETS: usize = (DOUBLINGS << FINE) as usize + 1;
/// The least that has to be known, and how much of it beyond the percentile.
const ENOUGH: u64 = 20;
const BEYOND: u64 = 2;

impl Latencies {
    /// Of nothing yet; no time that is told later should be before `born`.
    pub fn new(born: Instant) -> Self {
        let window = || Window { at: AtomicU64::new(0), counts: [const { AtomicU32::new(0) }; BUCKETS] };
        Self { born: Born(born), windows: std::array::from_fn(|_| window()) }
    }

    /// Takes in how long an answer took.
    pub fn record(&self, now: Instant, latency: Duration) {
        let at = self.window(now);
        let window = &self.windows[place(at)];
        let found = window.at.load(Ordering::Relaxed);
        if found > at {
            return;
        }
        if found < at && window.at.compare_exchange(found, at, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            window.counts.iter().for_each(|count| count.store(0, Ordering::Relaxed));
        }
        window.counts[bucket(latency)].fetch_add(1, Ordering::Relaxed);
    }

    /// The time within which `percentile` of a hundred answers came; `None` while too little is known.
    pub fn percentile(&self, percentile: u8, now: Instant) -> Option<Duration> {
        let newest = self.window(now);
        let recent = |window: &&Window| window.at.load(Ordering::Relaxed) + WINDOWS as u64 > newest;
        let mut counts = [0u64; BUCKETS];
        for window in self.windows.iter().filter(recent) {
            for (sum, count) in counts.iter_mut().zip(&window.counts) {
                *sum += u64::from(count.load(Ordering::Relaxed));
            }
        }
        let all: u64 = counts.iter().sum();
        let mut left = all * u64::from(100 - percentile.min(100)) / 100;
        if all < ENOUGH || left < BEYOND {
            return None;
        }
        for (at, count) in counts.iter().enumerate().rev() {
            match left.checked_sub(*count) {
                Some(rest) => left = rest,
                None => return Some(middle(at)),
            }
        }
        None
    }

    fn window(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.born.0).as_secs() / SPAN.as_secs() + 1
    }
}

fn place(at: u64) -> usize {
    (at % WINDOWS as u64) as usize
}

fn bucket(latency: Duration) -> usize {
    let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
    let Some(doubling) = micros.max(1).ilog2().checked_sub(FIRST) else { return 0 };
    let fine = (micros >> (doubling + FIRST - FINE)) & ((1 << FINE) - 1);
    (1 + ((u64::from(doubling) << FINE) | fine) as usize).min(BUCKETS - 1)
}

/// The middle of a bucket.
fn middle(bucket: usize) -> Duration {
    let Some(at) = bucket.checked_sub(1) else { return Duration::from_micros(1 << (FIRST - 1)) };
    let (doubling, fine) = (at >> FINE, at & ((1 << FINE) - 1));
    let width = 1u64 << (doubling + (FIRST - FINE) as usize);
    Duration::from_nanos((((1 << FINE) + fine as u64) * width + width / 2) * 1000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MICROS: fn(u64) -> Duration = Duration::from_micros;

    #[test]
    fn too_little_is_nothing() {
        let born = Instant::now();
        for (percentile, enough) in [(50, 20), (90, 20), (95, 40), (99, 200)] {
            let known = Latencies::new(born);
            for count in 1..=enough {
                assert_eq!(known.percentile(percentile, born), None, "p{percentile} of {}", count - 1);
                known.record(born, MICROS(1000));
            }
            assert!(known.percentile(percentile, born).is_some(), "p{percentile} of {enough}");
        }
    }

    #[test]
    fn what_was_is_forgotten() {
        let born = Instant::now();
        let known = Latencies::new(born);
        (0..40).for_each(|_| known.record(born, MICROS(1000)));
        assert!(known.percentile(95, born + Duration::from_secs(29)).is_some());
        assert_eq!(known.percentile(95, born + Duration::from_secs(30)), None);
        // The window is used again, empty.
        let later = born + Duration::from_secs(30);
        (0..40).for_each(|_| known.record(later, MICROS(100_000)));
        assert!(known.percentile(50, later).unwrap() > MICROS(90_000));
        known.record(born, MICROS(1));
        assert!(known.percentile(50, later).unwrap() > MICROS(90_000), "who comes late is not heard");
    }

    #[test]
    fn threads_lose_nothing_within_a_window() {
        let born = Instant::now();
        let known = Latencies::new(born);
        known.record(born, MICROS(100));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| known.record(born, MICROS(100))));
            }
        });
        let counted: u32 =
            known.windows.iter().flat_map(|w| &w.counts).map(|c| c.load(Ordering::Relaxed)).sum();
        assert_eq!(counted, 4001);
    }

    proptest! {
        #[test]
        fn a_percentile_is_near_that_of_the_sorted_times(
            mut times in prop::collection::vec((6u32..30).prop_flat_map(|d| (1u64 << d)..(2 << d)), 200..400),
            percentile in 50u8..=99,
        ) {
            let born = Instant::now();
            let known = Latencies::new(born);
            times.iter().for_each(|time| known.record(born, MICROS(*time)));
            times.sort_unstable();
            let beyond = times.len() * usize::from(100 - percentile) / 100;
            let exact = times[times.len() - 1 - beyond] as f64;
            let told = known.percentile(percentile, born).unwrap().as_nanos() as f64 / 1000.0;
            prop_assert!((told - exact).abs() <= exact / 16.0 + 1.0, "{told} for {exact}");
        }

        #[test]
        fn any_time_has_a_bucket(nanos in any::<u64>()) {
            prop_assert!(bucket(Duration::from_nanos(nanos)) < BUCKETS);
        }
    }
}
