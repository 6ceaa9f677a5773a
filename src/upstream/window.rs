//! Calls counted over a sliding window.
//!
//! 1. The window is cut into ten slices that are used in turn: it covers the slice under way and the nine before it,
//!    which is nine tenths of its span or more.
//! 2. A slice knows the time that it begins at. The first call past its end takes the slice for itself and empties it.
//! 3. Nothing waits. What several threads do at the very moment of a slice's turn can be lost, or count in the slice
//!    that follows: at most a handful of calls in each slice, and never a call that was not.
//! 4. The span may change from call to call: what was counted stays for as long as the span then asked for says.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::born::nanos;

/// The calls of the last while, on atomics alone. Times are nanoseconds since a zero that is the caller's.
#[derive(Debug, Default)]
pub struct Window([Slice; SLICES as usize]);

/// What a [`Window`] has counted.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// All calls.
    pub total: u64,
    /// Those that failed.
    pub failed: u64,
    /// Those that were slow; a call can be slow and fail too.
    pub slow: u64,
}

#[derive(Debug, Default)]
struct Slice {
    begins: AtomicU64,
    total: AtomicU32,
    failed: AtomicU32,
    slow: AtomicU32,
}

const SLICES: u64 = 10;

/// The beginning of a slice that is being emptied.
const TURNING: u64 = u64::MAX;

impl Window {
    /// Counts a call.
    pub fn add(&self, at_nanos: u64, span: Duration, failed: bool, slow: bool) {
        let width = width(span);
        let turn = at_nanos / width;
        let slice = &self.0[(turn % SLICES) as usize];
        if !slice.turns_to(turn * width) {
            return;
        }
        slice.total.fetch_add(1, Ordering::Relaxed);
        if failed {
            slice.failed.fetch_add(1, Ordering::Relaxed);
        }
        if slow {
            slice.slow.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What was counted over the span that ends at this time.
    pub fn totals(&self, at_nanos: u64, span: Duration) -> Totals {
        let span = width(span).saturating_mul(SLICES);
        let mut totals = Totals::default();
        for slice in &self.0 {
            let begins = slice.begins.load(Ordering::Acquire);
            if begins != TURNING && begins.saturating_add(span) > at_nanos {
                totals.total += u64::from(slice.total.load(Ordering::Relaxed));
                totals.failed += u64::from(slice.failed.load(Ordering::Relaxed));
                totals.slow += u64::from(slice.slow.load(Ordering::Relaxed));
            }
        }
        totals
    }

    /// Forgets every call.
    pub fn clear(&self) {
        self.0.iter().for_each(Slice::clear);
    }
}

impl Totals {
    /// The share of calls that failed, 0 to 1.
    pub fn error_rate(&self) -> f64 {
        self.failed as f64 / self.total.max(1) as f64
    }

    /// The share of calls that were slow, 0 to 1.
    pub fn slow_rate(&self) -> f64 {
        self.slow as f64 / self.total.max(1) as f64
    }
}

impl Slice {
    /// Makes it the slice that begins then, if it is an older one; whether it can be counted in.
    ///
    /// Who comes late counts in the newer slice: a slice never turns back.
    fn turns_to(&self, begins: u64) -> bool {
        let found = self.begins.load(Ordering::Acquire);
        if found >= begins {
            return found != TURNING;
        }
        if self.begins.compare_exchange(found, TURNING, Ordering::Acquire, Ordering::Relaxed).is_err() {
            // Another thread empties it: this call is one of the handful.
            return false;
        }
        self.clear();
        self.begins.store(begins, Ordering::Release);
        true
    }

    fn clear(&self) {
        self.total.store(0, Ordering::Relaxed);
        self.failed.store(0, Ordering::Relaxed);
        self.slow.store(0, Ordering::Relaxed);
    }
}

/// How long a slice is. A call far in the future must not reach [`TURNING`], which nothing comes after.
fn width(span: Duration) -> u64 {
    (nanos(span) / SLICES).clamp(1, u64::MAX / SLICES)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SPAN: Duration = Duration::from_millis(1000);
    const WIDTH: u64 = 100_000_000;

    #[test]
    fn a_call_counts_for_the_span_and_no_longer() {
        let window = Window::default();
        window.add(WIDTH - 1, SPAN, true, false);
        window.add(WIDTH, SPAN, false, true);
        assert_eq!(window.totals(WIDTH, SPAN), Totals { total: 2, failed: 1, slow: 1 });
        assert_eq!(window.totals(10 * WIDTH - 1, SPAN).total, 2);
        assert_eq!(window.totals(10 * WIDTH, SPAN), Totals { total: 1, failed: 0, slow: 1 });
        assert_eq!(window.totals(11 * WIDTH, SPAN), Totals::default());
    }

    #[test]
    fn what_is_cleared_is_gone() {
        let window = Window::default();
        (0..20).for_each(|at| window.add(at * WIDTH / 2, SPAN, true, true));
        window.clear();
        assert_eq!(window.totals(10 * WIDTH, SPAN), Totals::default());
        window.add(10 * WIDTH, SPAN, false, false);
        assert_eq!(window.totals(10 * WIDTH, SPAN).total, 1);
    }

    #[test]
    fn rates_of_nothing_are_zero() {
        assert_eq!(Totals::default().error_rate(), 0.0);
        assert_eq!(Totals { total: 4, failed: 1, slow: 2 }.error_rate(), 0.25);
        assert_eq!(Totals { total: 4, failed: 1, slow: 2 }.slow_rate(), 0.5);
    }

    #[test]
    fn no_span_and_no_time_breaks_it() {
        let window = Window::default();
        for span in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            for at in [0, 1, u64::MAX - 1, u64::MAX, 5] {
                window.add(at, span, true, true);
                window.totals(at, span);
            }
        }
    }

    #[test]
    fn threads_count_no_more_than_there_was() {
        let window = Window::default();
        let (calls, width) = (50_000, 100);
        let span = Duration::from_nanos(width * SLICES);
        let clock = AtomicU64::new(0);
        let work = || {
            let mut most = 0;
            for call in 0..calls {
                let at = clock.fetch_add(1, Ordering::Relaxed);
                window.add(at, span, true, false);
                if call % 64 == 0 {
                    most = most.max(window.totals(at, span).total);
                }
            }
            most
        };
        let most = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).max()
        });
        // A call for each nanosecond, and a handful that came late.
        let handful = 4 * SLICES;
        assert!(most.unwrap() <= width * SLICES + handful, "{most:?}");
        let totals = window.totals(4 * calls - 1, span);
        assert!(totals.total > 0 && totals.total.abs_diff(totals.failed) <= handful, "{totals:?}");
    }

    proptest! {
        #[test]
        fn counts_what_a_list_of_calls_counts(
            calls in prop::collection::vec((0..WIDTH * 3, any::<bool>(), any::<bool>()), 1..200),
        ) {
            let window = Window::default();
            let mut at = 0;
            let mut list = Vec::new();
            for (pause, failed, slow) in calls {
                at += pause;
                window.add(at, SPAN, failed, slow);
                list.push((at / WIDTH, failed, slow));
                let inside = list.iter().filter(|(slice, ..)| slice + SLICES > at / WIDTH);
                let expected = Totals {
                    total: inside.clone().count() as u64,
                    failed: inside.clone().filter(|(_, failed, _)| *failed).count() as u64,
                    slow: inside.filter(|(.., slow)| *slow).count() as u64,
                };
                prop_assert_eq!(window.totals(at, SPAN), expected);
            }
        }

        #[test]
        fn whatever_the_spans_no_call_is_counted_that_was_not(
            calls in prop::collection::vec((0..WIDTH * 3, 1_u64..5000), 1..200),
        ) {
            let window = Window::default();
            let mut at = 0;
            let mut times = Vec::new();
            for (pause, span) in calls {
                at += pause;
                let span = Duration::from_millis(span);
                window.add(at, span, true, false);
                times.push(at);
                let totals = window.totals(at, span);
                prop_assert!(totals.total >= 1 && totals.total <= times.len() as u64);
                prop_assert_eq!(totals.failed, totals.total);
            }
        }
    }
}
