//! Every algorithm against a plain model of it, over random arrivals.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

/// Times in nanoseconds that are exact: a token a millisecond or so.
const MS: u64 = 1_000_000;

/// Steps in time, in quarters of a millisecond, with costs.
fn arrivals() -> impl Strategy<Value = Vec<(u64, u64)>> {
    let gap = prop_oneof![4 => 0u64..6, 2 => 0u64..40, 1 => 0u64..2000];
    prop::collection::vec((gap, 1u64..4), 1..300)
}

fn walk(arrivals: &[(u64, u64)]) -> impl Iterator<Item = (u64, u64)> {
    let mut now = 1_700_000_000_000 * MS;
    arrivals.iter().map(move |(gap, cost)| {
        now += gap * MS / 4;
        (now, *cost)
    })
}

proptest! {
    #[test]
    fn a_token_bucket_is_a_bucket(arrivals in arrivals(), amount in prop::sample::select(vec![1u64, 2, 4, 5, 10]), burst in 1u64..20) {
        let bucket = TokenBucket::new(amount, 10 * MS, burst);
        let mut cell = Tat::default();
        // In parts of a token: as many as the period has nanoseconds.
        let part = u128::from(10 * MS);
        let (mut level, mut last) = (u128::from(burst) * part, 0u64);
        for (now, cost) in walk(&arrivals) {
            level = (level + u128::from(now - last) * u128::from(amount)).min(u128::from(burst) * part);
            last = now;
            let wanted = u128::from(cost) * part;
            let decision = bucket.take(&mut cell, cost, now);
            prop_assert_eq!(decision.refused(), level < wanted);
            match decision.verdict {
                Verdict::Refuse(retry) => {
                    // Then it is there, and not a nanosecond before.
                    prop_assert!(level + u128::from(retry) * u128::from(amount) >= wanted);
                    prop_assert!(level + u128::from(retry - 1) * u128::from(amount) < wanted);
                }
                _ => level -= wanted,
            }
            prop_assert!(decision.remaining.abs_diff((level / part) as u64) <= 1);
            prop_assert_eq!(u128::from(decision.reset) * u128::from(amount), u128::from(burst) * part - level);
        }
    }

    #[test]
    fn what_is_given_back_was_never_taken(arrivals in arrivals(), burst in 1u64..20) {
        let bucket = TokenBucket::new(10, 10 * MS, burst);
        let (mut one, mut other) = (Tat::default(), Tat::default());
        for (now, cost) in walk(&arrivals) {
            let decision = bucket.take(&mut one, cost, now);
            prop_assert_eq!(decision, bucket.take(&mut other, cost, now));
            if !bucket.take(&mut one, cost, now).refused() {
                bucket.give_back(&mut one, cost);
            }
            prop_assert_eq!(bucket.look(&one, now), bucket.look(&other, now));
        }
    }

    #[test]
    fn a_leaky_bucket_is_a_queue(arrivals in arrivals(), amount in prop::sample::select(vec![1u64, 2, 4, 5, 10]), max_wait in 0u64..30) {
        let each = 10 * MS / amount;
        let queue = LeakyBucket::new(amount, 10 * MS, max_wait * MS);
        let mut cell = Tat::default();
        let mut free_at = 0;
        let mut left: Vec<u64> = Vec::new();
        for (now, _) in walk(&arrivals) {
            let leaves = now.max(free_at);
            let decision = queue.join(&mut cell, 1, now);
            prop_assert_eq!(decision.refused(), leaves - now > max_wait * MS);
            match decision.verdict {
                Verdict::Refuse(retry) => prop_assert_eq!(retry, leaves - now - max_wait * MS),
                Verdict::Pass => prop_assert_eq!(leaves, now),
                Verdict::Wait(wait) => prop_assert_eq!(leaves - now, wait),
            }
            if !decision.refused() {
                left.push(leaves);
                free_at = leaves + each;
            }
        }
        // Whatever comes, they leave at an even pace.
        prop_assert!(left.windows(2).all(|pair| pair[1] - pair[0] >= each));
    }

    #[test]
    fn fixed_windows_count_from_their_beginning(arrivals in arrivals(), amount in 1u64..20) {
        let window = FixedWindow::new(amount, 10 * MS);
        let mut cell = Tally::default();
        let mut passed: Vec<(u64, u64)> = Vec::new();
        for (now, cost) in walk(&arrivals) {
            let begins = now - now % (10 * MS);
            let used: u64 = passed.iter().filter(|(at, _)| *at >= begins).map(|(_, cost)| cost).sum();
            let decision = window.take(&mut cell, cost, now);
            prop_assert_eq!(decision.refused(), used + cost > amount);
            prop_assert_eq!(decision.reset, begins + 10 * MS - now);
            if !decision.refused() {
                passed.push((now, cost));
            }
            prop_assert_eq!(decision.remaining, amount - used - if decision.refused() { 0 } else { cost });
        }
    }

    #[test]
    fn sliding_windows_weigh_the_one_before(arrivals in arrivals(), amount in 1u64..20) {
        let window = SlidingWindow::new(amount, 10 * MS);
        let mut cell = Windows::default();
        let mut passed: Vec<(u64, u64)> = Vec::new();
        for (now, cost) in walk(&arrivals) {
            let begins = now - now % (10 * MS);
            let used = |from: u64, to: u64| -> u64 {
                passed.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, cost)| cost).sum()
            };
            let left = begins + 10 * MS - now;
            let before = (used(begins - 10 * MS, begins) * left).div_ceil(10 * MS);
            let counted = before + used(begins, begins + 10 * MS);
            let decision = window.take(&mut cell, cost, now);
            prop_assert_eq!(decision.refused(), counted + cost > amount);
            match decision.verdict {
                Verdict::Refuse(retry) if cost <= amount => {
                    let mut later = cell;
                    prop_assert!(!window.take(&mut later, cost, now + retry + 1).refused());
                }
                Verdict::Refuse(_) => {}
                _ => passed.push((now, cost)),
            }
        }
    }

    #[test]
    fn sliding_logs_count_exactly(arrivals in arrivals(), amount in 1u64..20) {
        let log = SlidingLog::new(amount, 10 * MS);
        let mut cell = Log::default();
        let mut passed: Vec<(u64, u64)> = Vec::new();
        for (now, cost) in walk(&arrivals) {
            let used: u64 =
                passed.iter().filter(|(at, _)| at + 10 * MS > now).map(|(_, cost)| cost).sum();
            let decision = log.take(&mut cell, cost, now);
            prop_assert_eq!(decision.refused(), used + cost > amount);
            match decision.verdict {
                Verdict::Refuse(retry) if cost <= amount => {
                    let mut later = cell.clone();
                    prop_assert!(log.take(&mut later, cost, now + retry - 1).refused());
                    prop_assert!(!log.take(&mut cell.clone(), cost, now + retry).refused());
                }
                Verdict::Refuse(_) => {}
                _ => passed.push((now, cost)),
            }
            prop_assert!(cell.until.len() as u64 <= amount);
        }
    }

    #[test]
    fn there_are_never_more_at_once_than_may_be(steps in prop::collection::vec((0u128..5, any::<bool>()), 1..300), limit in 1u64..5) {
        let slots = Arc::new(Slots::new(100));
        let mut held: Vec<(u128, Held)> = Vec::new();
        for (key, comes) in steps {
            let there = held.iter().filter(|(known, _)| *known == key).count() as u64;
            if comes {
                match slots.take(key + 1, limit) {
                    Some(place) => {
                        prop_assert!(there < limit);
                        held.push((key, place));
                    }
                    None => prop_assert_eq!(there, limit),
                }
            } else if let Some(at) = held.iter().position(|(known, _)| *known == key) {
                held.swap_remove(at);
            }
        }
        drop(held);
        prop_assert_eq!(slots.keys(), 0);
    }
}
