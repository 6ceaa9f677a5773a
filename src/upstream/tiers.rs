//! Priorities and zones: which endpoints are to be preferred, and when the next best help out.
//!
//! 1. A tier is the endpoints of one priority (lower numbers first); where the gateway's zone is known, those in it come
//!    before the others of their priority.
//! 2. All goes to the first tier while enough of it is healthy: 1 in 1.4 (Envoy's overprovisioning factor). As it falls
//!    below, the next takes on in proportion what is lacking, and so on.
//! 3. When all tiers together are short, each bears its part.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::EndpointId;

/// How many times the load of its healthy endpoints a tier can bear.
const OVERPROVISIONING: f64 = 1.4;

/// How long shares are good for.
const GOOD_FOR: Duration = Duration::from_millis(100);

/// Endpoints by tier, the first first. Each is told as its id, its priority, and its zone.
pub fn split<'a>(
    endpoints: impl IntoIterator<Item = (EndpointId, u8, Option<&'a str>)>,
    zone: Option<&str>,
) -> Vec<Vec<EndpointId>> {
    let mut tiers = BTreeMap::<(u8, bool), Vec<EndpointId>>::new();
    for (id, priority, its) in endpoints {
        let far = zone.is_some() && its != zone;
        tiers.entry((priority, far)).or_default().push(id);
    }
    tiers.into_values().collect()
}

/// The share of requests of each tier, by how many of its endpoints are healthy, of how many. The shares come to 1; they
/// are all 0 when nobody is healthy.
pub fn shares(healthy: &[usize], total: &[usize]) -> SmallVec<[f64; 4]> {
    let bears = |(healthy, total): (&usize, &usize)| {
        (OVERPROVISIONING * *healthy as f64 / (*total).max(1) as f64).min(1.0)
    };
    let bears: SmallVec<[f64; 4]> = healthy.iter().zip(total).map(bears).collect();
    let sum: f64 = bears.iter().sum();
    let mut left = 1.0f64;
    let share = |bears: &f64| {
        let share = if sum < 1.0 { bears / sum.max(f64::MIN_POSITIVE) } else { bears.min(left) };
        left = (left - share).max(0.0);
        share
    };
    bears.iter().map(share).collect()
}

/// The shares that hold at the moment, for all threads. They are worked out again now and then by the thread whose
/// request comes first.
#[derive(Debug)]
pub(super) struct Spread {
    born: Instant,
    /// When they were worked out, in nanoseconds since `born`, and 1; 0 for never.
    done: AtomicU64,
    /// The sums of the shares up to each tier, as the bits of `f64`s.
    sums: Box<[AtomicU64]>,
}

impl Spread {
    /// All goes to the first tier.
    pub(super) fn new(tiers: usize, born: Instant) -> Self {
        let sums = (0..tiers).map(|_| AtomicU64::new(1f64.to_bits())).collect();
        Self { born, done: AtomicU64::new(0), sums }
    }

    /// Whether the shares are to be worked out again; true for one thread alone.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.born).as_nanos();
        let now = u64::try_from(since).unwrap_or(u64::MAX).saturating_add(1);
        let done = self.done.load(Ordering::Relaxed);
        let due = done == 0 || u128::from(now.saturating_sub(done)) >= GOOD_FOR.as_nanos();
        due && self.done.compare_exchange(done, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Takes in new shares. Who reads meanwhile may mix them with the old.
    pub(super) fn set(&self, shares: &[f64]) {
        let mut sum = 0.0;
        for (held, share) in self.sums.iter().zip(shares) {
            sum += share;
            held.store(sum.to_bits(), Ordering::Relaxed);
        }
    }

    /// The tier that a die from 0 to 1 falls on.
    pub(super) fn tier(&self, die: f64) -> usize {
        let beyond = |sum: &AtomicU64| die < f64::from_bits(sum.load(Ordering::Relaxed));
        self.sums.iter().position(beyond).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids(tiers: Vec<Vec<EndpointId>>) -> Vec<Vec<u16>> {
        tiers.into_iter().map(|tier| tier.into_iter().map(|id| id.0).collect()).collect()
    }

    #[test]
    fn tiers_are_by_priority_then_nearness() {
        let endpoints = [
            (EndpointId(0), 1, Some("a")),
            (EndpointId(1), 0, Some("b")),
            (EndpointId(2), 0, None),
            (EndpointId(3), 0, Some("a")),
        ];
        assert_eq!(ids(split(endpoints, None)), [vec![1, 2, 3], vec![0]]);
        assert_eq!(ids(split(endpoints, Some("a"))), [vec![3], vec![1, 2], vec![0]]);
        assert_eq!(ids(split(endpoints, Some("c"))), [vec![1, 2, 3], vec![0]]);
        assert!(split([], Some("a")).is_empty());
    }

    /// The table of Envoy's documentation on priority levels.
    #[test]
    fn shares_are_as_envoy_documents_them() {
        let samples = [
            ([100, 100, 100], [1.0, 0.0, 0.0]),
            ([72, 72, 100], [1.0, 0.0, 0.0]),
            ([71, 71, 100], [0.994, 0.006, 0.0]),
            ([50, 50, 100], [0.7, 0.3, 0.0]),
            ([25, 100, 100], [0.35, 0.65, 0.0]),
            ([25, 25, 100], [0.35, 0.35, 0.3]),
            ([25, 25, 20], [0.3571, 0.3571, 0.2857]),
            ([0, 0, 0], [0.0, 0.0, 0.0]),
        ];
        for (healthy, due) in samples {
            let shares = shares(&healthy, &[100; 3]);
            let near = shares.iter().zip(due).all(|(share, due)| (share - due).abs() < 1e-3);
            assert!(near, "{healthy:?}: {shares:?}");
        }
    }

    #[test]
    fn a_die_falls_by_shares_and_one_thread_works_them_out() {
        let born = Instant::now();
        let spread = Spread::new(3, born);
        assert_eq!(spread.tier(0.99), 0);
        assert!(spread.is_due(born) && !spread.is_due(born + GOOD_FOR / 2) && spread.is_due(born + GOOD_FOR));
        spread.set(&[0.35, 0.35, 0.3]);
        assert_eq!([0.0, 0.34, 0.36, 0.69, 0.71, 0.999].map(|die| spread.tier(die)), [0, 0, 1, 1, 2, 2]);
        spread.set(&[0.0, 0.0, 0.0]);
        assert_eq!(spread.tier(0.5), 0, "nobody is healthy: in order");
    }

    fn tiers() -> impl Strategy<Value = Vec<(usize, usize)>> {
        prop::collection::vec((0usize..=50).prop_flat_map(|total| (0..=total, Just(total))), 1..6)
    }

    proptest! {
        #[test]
        fn shares_come_to_one_and_go_to_the_first_while_it_can(tiers in tiers()) {
            let (healthy, total): (Vec<_>, Vec<_>) = tiers.into_iter().unzip();
            let shares = shares(&healthy, &total);
            let sum: f64 = shares.iter().sum();
            let due = if healthy.iter().any(|healthy| *healthy > 0) { 1.0 } else { 0.0 };
            prop_assert!((sum - due).abs() < 1e-9, "{shares:?}");
            prop_assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)));
            if total[0] > 0 && healthy[0] * 100 >= total[0] * 72 {
                prop_assert!(shares[1..].iter().all(|share| *share <= 0.0), "{shares:?}");
            }
        }

        #[test]
        fn more_health_is_never_less_load(tiers in tiers(), at in any::<prop::sample::Index>()) {
            let (mut healthy, total): (Vec<_>, Vec<_>) = tiers.into_iter().unzip();
            let at = at.index(total.len());
            let before = shares(&healthy, &total);
            if healthy[at] < total[at] {
                healthy[at] += 1;
                let after = shares(&healthy, &total);
                prop_assert!(after[at] >= before[at] - 1e-9, "{before:?}, then {after:?}");
                let later = |shares: &[f64]| shares[at + 1..].iter().sum::<f64>();
                prop_assert!(later(&after) <= later(&before) + 1e-9);
            }
        }
    }
}
