//! The choice of an endpoint.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{EndpointId, EndpointSet};

/// Chooses an endpoint. A balancer is built for one endpoint set, its tables with it, and replaced with it.
pub trait Balancer: Send + Sync {
    /// Picks one endpoint that `admits` accepts; `None` when it accepts none.
    fn pick(&self, set: &EndpointSet, admits: &dyn Fn(EndpointId) -> bool) -> Option<EndpointId>;
}

/// Smooth weighted round robin: in turn, by weight, with each endpoint's turns spread evenly over the round.
///
/// The round is worked out beforehand as a table, so that a pick is one atomic addition and one look-up.
pub struct RoundRobin {
    turns: Box<[u16]>,
    next: AtomicUsize,
}

/// The most turns in a round; weights whose sum (after dividing by what they have in common) is greater are
/// scaled down to it.
const MAX_TURNS: u64 = 8192;

impl RoundRobin {
    /// A round over endpoints with these weights, in their order. A weight of zero gets no turn.
    pub fn new(weights: &[u16]) -> Self {
        let divisor = weights.iter().fold(0, |common, weight| gcd(common, u64::from(*weight))).max(1);
        let sum: u64 = weights.iter().map(|weight| u64::from(*weight) / divisor).sum();
        let scale = |weight: &u16| {
            let weight = u64::from(*weight) / divisor;
            if sum <= MAX_TURNS || weight == 0 { weight } else { (weight * MAX_TURNS / sum).max(1) }
        };
        let weights: Vec<i64> = weights.iter().map(|weight| scale(weight) as i64).collect();
        Self { turns: smooth(&weights), next: AtomicUsize::new(0) }
    }
}

impl Balancer for RoundRobin {
    fn pick(&self, _: &EndpointSet, admits: &dyn Fn(EndpointId) -> bool) -> Option<EndpointId> {
        let length = self.turns.len();
        if length == 0 {
            return None;
        }
        let start = self.next.fetch_add(1, Ordering::Relaxed) % length;
        let (before, from) = self.turns.split_at(start);
        let mut turns = from.iter().chain(before).map(|turn| EndpointId(*turn));
        turns.find(|id| admits(*id))
    }
}

/// The order of turns in one round: at each turn everyone gains its weight, the one with most is chosen and pays
/// the sum of all weights.
fn smooth(weights: &[i64]) -> Box<[u16]> {
    let sum: i64 = weights.iter().sum();
    let mut credit = vec![0i64; weights.len()];
    let turn = |_| {
        credit.iter_mut().zip(weights).for_each(|(credit, weight)| *credit += weight);
        let (chosen, _) = credit.iter().enumerate().rev().max_by_key(|(_, credit)| **credit)?;
        credit[chosen] -= sum;
        u16::try_from(chosen).ok()
    };
    (0..sum).filter_map(turn).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round(weights: &[u16]) -> Vec<u16> {
        RoundRobin::new(weights).turns.to_vec()
    }

    fn empty() -> EndpointSet {
        EndpointSet::round_robin(Vec::new())
    }

    #[test]
    fn turns_are_spread_evenly() {
        assert_eq!(round(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(round(&[100, 100]), [0, 1]);
    }

    #[test]
    fn an_endpoint_that_is_not_admitted_is_passed_over() {
        let balancer = RoundRobin::new(&[1, 1, 1]);
        let mut seen = [0; 3];
        for _ in 0..300 {
            let id = balancer.pick(&empty(), &|id| id != EndpointId(1)).unwrap();
            seen[usize::from(id.0)] += 1;
        }
        assert_eq!(seen[1], 0);
        assert!(balancer.pick(&empty(), &|_| false).is_none());
    }

    #[test]
    fn nobody_to_choose_is_no_panic() {
        assert!(RoundRobin::new(&[]).pick(&empty(), &|_| true).is_none());
        assert!(RoundRobin::new(&[0, 0]).pick(&empty(), &|_| true).is_none());
    }

    proptest! {
        #[test]
        fn each_endpoint_gets_its_share_in_every_stretch(weights in prop::collection::vec(1u16..50, 1..8)) {
            let turns = round(&weights);
            let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
            for (id, weight) in weights.iter().enumerate() {
                let mut count = 0.0;
                for (at, turn) in turns.iter().enumerate() {
                    count += f64::from(u8::from(usize::from(*turn) == id));
                    let due = f64::from(*weight) / sum * (at + 1) as f64;
                    prop_assert!((count - due).abs() <= weights.len() as f64, "{id} at {at}: {count} of {due}");
                }
            }
        }

        #[test]
        fn a_round_is_bounded(weights in prop::collection::vec(1u16..=1000, 1..100)) {
            let turns = round(&weights);
            prop_assert!(turns.len() as u64 <= MAX_TURNS + weights.len() as u64);
            for id in 0..weights.len() {
                prop_assert!(turns.iter().any(|turn| usize::from(*turn) == id));
            }
        }
    }
}
