//! The retry budget: retries may add only so much to the load (Finagle's term).
//!
//! 1. Over ten seconds, retries are at most `ratio` of the requests plus `min_per_second` for each second. The second
//!    lets an upstream with few requests retry at all.
//! 2. The ten seconds are the second under way and the nine before it, for requests and retries alike.
//! 3. Requests are counted without a lock, and none is lost. Retries take a lock: they are few, because of this, and
//!    two that ask at once must not both get the last.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::born::Born;

/// The requests and retries of the last ten seconds.
#[derive(Debug)]
pub struct RetryBudget {
    born: Born,
    requests: [AtomicU64; SECONDS as usize],
    retries: Mutex<Retries>,
}

/// How much may be retried.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryBudgetPolicy {
    /// Retries for each request, 0 to 1.
    pub ratio: f64,
    /// Retries in each second that need no requests.
    pub min_per_second: u32,
}

/// The retries of each second, and the newest second.
#[derive(Debug, Default)]
struct Retries {
    counts: [Second; SECONDS as usize],
    newest: u32,
}

/// Which second since the budget was made, and how many were in it. As a number, the second is the upper half, so that
/// one addition counts and one exchange turns to the next.
#[derive(Debug, Default, Clone, Copy)]
struct Second {
    at: u32,
    count: u32,
}

const SECONDS: u32 = 10;

impl RetryBudget {
    /// A budget that nothing was paid into.
    pub fn new(born: Instant) -> Self {
        Self { born: Born(born), requests: Default::default(), retries: Mutex::default() }
    }

    /// Counts a request: a first attempt, not a retry.
    pub fn deposit(&self, now: Instant) {
        let at = self.second(now);
        let cell = &self.requests[place(at)];
        let mut found = cell.load(Ordering::Relaxed);
        // Who comes late counts in the newer second.
        while Second::from(found).at < at {
            let first = u64::from(Second { at, count: 1 });
            match cell.compare_exchange_weak(found, first, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => found = other,
            }
        }
        cell.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes a retry out of the budget; `false` when there is none left.
    pub fn withdraw(&self, policy: &RetryBudgetPolicy, now: Instant) -> bool {
        let mut retries = self.retries.lock();
        let at = self.second(now).max(retries.newest);
        let requests = self.requests.iter().map(|cell| Second::from(cell.load(Ordering::Relaxed)));
        let earned = policy.ratio * sum(requests, at) as f64;
        let given = f64::from(policy.min_per_second) * f64::from(SECONDS);
        if (sum(retries.counts, at) + 1) as f64 > earned + given {
            return false;
        }
        retries.newest = at;
        let second = &mut retries.counts[place(at)];
        if second.at < at {
            *second = Second { at, count: 0 };
        }
        second.count += 1;
        true
    }

    fn second(&self, now: Instant) -> u32 {
        let age = now.saturating_duration_since(self.born.0);
        u32::try_from(age.as_secs()).unwrap_or(u32::MAX)
    }
}

/// What was counted in the second under way and the nine before it.
fn sum(seconds: impl IntoIterator<Item = Second>, at: u32) -> u64 {
    let inside = |second: &Second| second.at.saturating_add(SECONDS) > at;
    seconds.into_iter().filter(inside).map(|second| u64::from(second.count)).sum()
}

fn place(at: u32) -> usize {
    (at % SECONDS) as usize
}

impl From<u64> for Second {
    fn from(cell: u64) -> Self {
        Self { at: (cell >> 32) as u32, count: cell as u32 }
    }
}

impl From<Second> for u64 {
    fn from(second: Second) -> Self {
        u64::from(second.at) << 32 | u64::from(second.count)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const MILLIS: fn(u64) -> Duration = Duration::from_millis;

    fn withdrawn(budget: &RetryBudget, policy: &RetryBudgetPolicy, now: Instant) -> u64 {
        std::iter::repeat_with(|| budget.withdraw(policy, now)).take_while(|granted| *granted).count() as u64
    }

    #[test]
    fn a_share_of_requests_and_a_minimum() {
        let born = Instant::now();
        let budget = RetryBudget::new(born);
        let policy = RetryBudgetPolicy { ratio: 0.2, min_per_second: 1 };
        (0..100).for_each(|_| budget.deposit(born));
        assert_eq!(withdrawn(&budget, &policy, born), 30);
        assert_eq!(withdrawn(&budget, &policy, born + MILLIS(9_999)), 0);
        assert_eq!(withdrawn(&budget, &policy, born + MILLIS(10_000)), 10);
        assert!(
            !budget.withdraw(&RetryBudgetPolicy { ratio: 0.0, min_per_second: 0 }, born + MILLIS(99_000))
        );
    }

    #[test]
    fn time_that_goes_back_earns_nothing() {
        let born = Instant::now();
        let budget = RetryBudget::new(born);
        let policy = RetryBudgetPolicy { ratio: 0.0, min_per_second: 1 };
        assert_eq!(withdrawn(&budget, &policy, born + MILLIS(15_000)), 10);
        assert_eq!(withdrawn(&budget, &policy, born), 0);
    }

    #[test]
    fn a_request_that_comes_late_forgets_nothing() {
        let born = Instant::now();
        let budget = RetryBudget::new(born);
        (0..2).for_each(|_| budget.deposit(born + MILLIS(10_000)));
        budget.deposit(born);
        let policy = RetryBudgetPolicy { ratio: 1.0, min_per_second: 0 };
        assert_eq!(withdrawn(&budget, &policy, born + MILLIS(10_000)), 3);
    }

    #[test]
    fn threads_never_overdraw_and_lose_no_request() {
        let born = Instant::now();
        let budget = RetryBudget::new(born);
        let policy = RetryBudgetPolicy { ratio: 0.1, min_per_second: 0 };
        let granted: u64 = std::thread::scope(|scope| {
            let work = |_| {
                for at in 0..10_000 {
                    budget.deposit(born + MILLIS(at));
                }
                (0..3000).filter(|_| budget.withdraw(&policy, born + MILLIS(9_999))).count() as u64
            };
            let threads: Vec<_> = (0..4).map(|at| scope.spawn(move || work(at))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(granted, 4000);
    }

    proptest! {
        #[test]
        fn is_never_exceeded(
            ratio in 0.0..1.0,
            min_per_second in 0_u32..3,
            steps in prop::collection::vec((0_u64..2_000, any::<bool>()), 1..400),
        ) {
            let born = Instant::now();
            let budget = RetryBudget::new(born);
            let policy = RetryBudgetPolicy { ratio, min_per_second };
            let (mut requests, mut retries) = (Vec::new(), Vec::new());
            let mut at = 0;
            for (pause, is_request) in steps {
                at += pause;
                let now = born + MILLIS(at);
                let inside = |times: &[u64]| times.iter().filter(|time| **time / 1000 + 10 > at / 1000).count() as f64;
                if is_request {
                    budget.deposit(now);
                    requests.push(at);
                } else {
                    let fits = inside(&retries) + 1.0 <= ratio * inside(&requests) + f64::from(min_per_second * 10);
                    prop_assert_eq!(budget.withdraw(&policy, now), fits);
                    if fits {
                        retries.push(at);
                    }
                }
            }
        }

        #[test]
        fn steady_requests_may_be_retried_up_to_the_ratio(per_second in 1_u64..200, ratio in 0.05..1.0) {
            let born = Instant::now();
            let budget = RetryBudget::new(born);
            let policy = RetryBudgetPolicy { ratio, min_per_second: 0 };
            let (mut wanted, mut granted, seconds) = (0.0, 0.0, 60);
            for request in 0..per_second * seconds {
                let now = born + Duration::from_nanos(request * 1_000_000_000 / per_second);
                budget.deposit(now);
                wanted += ratio;
                if wanted - granted >= 1.0 && budget.withdraw(&policy, now) {
                    granted += 1.0;
                }
            }
            // Each window rounds a fraction of a retry down, and no more.
            let due = ratio * (per_second * seconds) as f64;
            prop_assert!(granted <= due && granted >= due - 1.0 - seconds as f64 / 10.0, "{granted} of {due}");
        }
    }
}
