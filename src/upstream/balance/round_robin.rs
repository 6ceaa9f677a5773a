//! In turn.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::key::to_index;
use super::{Balancer, EndpointId, EndpointSet, Member, Pick, anyone, weighted};

/// Smooth weighted round robin: in turn, by weight, with each endpoint's turns spread evenly over the round.
///
/// The round is worked out beforehand as a table, so that a pick is one atomic addition and one look-up.
pub struct RoundRobin {
    members: Box<[Member]>,
    turns: Box<[EndpointId]>,
    next: AtomicUsize,
}

/// The most turns in a round; weights whose sum (after dividing by what they have in common) is greater are
/// scaled down to it.
const MAX_TURNS: u64 = 8192;

/// How many places of the table are tried in place of a turn whose endpoint is not admitted.
const JUMPS: usize = 8;

impl RoundRobin {
    /// A round over these endpoints.
    pub fn new(members: &[Member]) -> Self {
        let members = weighted(members);
        let turns = smooth(&scaled(&members));
        let turns = turns.into_iter().filter_map(|at| members.get(at).map(|member| member.id)).collect();
        Self { members, turns, next: AtomicUsize::new(0) }
    }

    /// Whose turn it is, admitted or not.
    pub(super) fn turn(&self) -> Option<EndpointId> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        self.turns.get(next % self.turns.len().max(1)).copied()
    }
}

impl Balancer for RoundRobin {
    fn pick(&self, _: &EndpointSet, pick: &Pick<'_>) -> Option<EndpointId> {
        let admitted = |id: &EndpointId| (pick.admits)(*id);
        if !pick.again
            && let Some(id) = self.turn().filter(admitted)
        {
            return Some(id);
        }
        let jump = |_| self.turns.get(to_index(fastrand::u64(..), self.turns.len())).copied();
        let mut jumps = (0..JUMPS).filter_map(jump);
        jumps.find(admitted).or_else(|| anyone(&self.members, pick.admits))
    }
}

/// How many turns each has.
fn scaled(members: &[Member]) -> Vec<u64> {
    let weights = members.iter().map(|member| u64::from(member.weight));
    let divisor = weights.clone().fold(0, gcd).max(1);
    let sum: u64 = weights.clone().sum::<u64>() / divisor;
    let scale = |weight: u64| {
        let weight = weight / divisor;
        if sum <= MAX_TURNS { weight } else { (weight * MAX_TURNS / sum).max(1) }
    };
    weights.map(scale).collect()
}

/// The order of turns in one round: at each turn everyone gains its weight, the one with most is chosen and pays
/// the sum of all weights.
fn smooth(weights: &[u64]) -> Vec<usize> {
    if weights.iter().all(|weight| *weight == 1) {
        return (0..weights.len()).collect();
    }
    let sum: u64 = weights.iter().sum();
    let mut credit = vec![0i64; weights.len()];
    let turn = |_| {
        credit.iter_mut().zip(weights).for_each(|(credit, weight)| *credit += *weight as i64);
        let (chosen, _) = credit.iter().enumerate().rev().max_by_key(|(_, credit)| **credit)?;
        credit[chosen] -= sum as i64;
        Some(chosen)
    };
    (0..sum).filter_map(turn).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{Fixture, assert_near};
    use super::*;

    fn round(weights: &[u16]) -> Vec<u16> {
        RoundRobin::new(&Fixture::members(weights)).turns.iter().map(|id| id.0).collect()
    }

    #[test]
    fn turns_are_spread_evenly() {
        assert_eq!(round(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(round(&[100, 100]), [0, 1]);
        assert_eq!(round(&[0, 1, 0, 2]), [3, 1, 3]);
    }

    #[test]
    fn what_is_not_admitted_spreads_by_weight() {
        let fixture = Fixture::new(&[1, 1, 1]);
        let shares = fixture.shares(&RoundRobin::new(&fixture.members), 100_000, &|id| id != EndpointId(1));
        assert_near(&shares, &[0.5, 0.0, 0.5], 0.03);

        let fixture = Fixture::new(&[10, 1, 2, 3, 4]);
        let balancer = RoundRobin::new(&fixture.members);
        let shares = fixture.shares(&balancer, 200_000, &|id| id != EndpointId(0));
        assert_near(&shares, &[0.0, 0.1, 0.2, 0.3, 0.4], 0.03);
        let shares = fixture.shares(&balancer, 200_000, &|id| id != EndpointId(3));
        assert_near(&shares, &[10.0 / 17.0, 1.0 / 17.0, 2.0 / 17.0, 0.0, 4.0 / 17.0], 0.03);
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
