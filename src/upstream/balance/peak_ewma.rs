//! The one that answers soonest.

use std::time::Instant;

use super::alias::Lots;
use super::{Balancer, EndpointId, EndpointSet, Member, Pick, weighted};

/// Peak EWMA: of two that are drawn by weight, the one where a request is likely to take less time.
///
/// 1. The cost of an endpoint is its latency of late times the requests it would then have, those under way counted by
///    its weight. (The two are drawn by weight already: endpoints that are equally fast and idle share by weight.)
/// 2. An endpoint of which nothing is known, or nothing any more, costs nothing while it is idle, and more than any other
///    once it has a request under way: it is tried, and not by everyone at once.
/// 3. Of two with the same cost it is the first drawn.
pub struct LowestCost {
    lots: Lots,
    mean_weight: f64,
}

/// Below this latency, in seconds, nothing is known: no answer comes as soon, and what was known has decayed.
const UNKNOWN: f64 = 1e-6;

/// More than any cost of which something is known (Finagle's penalty).
const PENALTY: f64 = 1e12;

impl LowestCost {
    /// A choice among these endpoints.
    pub fn new(members: &[Member]) -> Self {
        let members = weighted(members);
        let sum: f64 = members.iter().map(|member| f64::from(member.weight)).sum();
        Self { mean_weight: sum / members.len().max(1) as f64, lots: Lots::new(&members) }
    }

    fn cost(&self, set: &EndpointSet, id: EndpointId, now: Instant) -> Option<f64> {
        let endpoint = set.get(id)?;
        let latency = endpoint.standing().latency().estimate(now);
        let active = endpoint.standing().active() as f64 * self.mean_weight / f64::from(endpoint.weight());
        Some(match (latency < UNKNOWN, active > 0.0) {
            (true, false) => 0.0,
            (true, true) => PENALTY + active,
            (false, _) => latency * (active + 1.0),
        })
    }
}

impl Balancer for LowestCost {
    fn pick(&self, set: &EndpointSet, pick: &Pick<'_>) -> Option<EndpointId> {
        let (one, other) = self.lots.two(pick.admits)?;
        let Some(other) = other else {
            return Some(one);
        };
        let less = self.cost(set, other, pick.now) < self.cost(set, one, pick.now);
        Some(if less { other } else { one })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::{Fixture, assert_near};
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn tell(fixture: &Fixture, latencies: &[Duration]) {
        for (endpoint, latency) in fixture.set.iter().zip(latencies) {
            endpoint.standing().latency().record(fixture.now, *latency);
        }
    }

    #[test]
    fn equals_share_by_weight() {
        let fixture = Fixture::new(&[10, 1, 2, 3, 4]);
        let balancer = LowestCost::new(&fixture.members);
        for _ in 0..2 {
            let shares = fixture.shares(&balancer, 200_000, &|_| true);
            assert_near(&shares, &[0.5, 0.05, 0.1, 0.15, 0.2], 0.03);
            let shares = fixture.shares(&balancer, 200_000, &|id| id.0 != 0);
            assert_near(&shares, &[0.0, 0.1, 0.2, 0.3, 0.4], 0.03);
            tell(&fixture, &[5 * MS; 5]);
        }
    }

    #[test]
    fn requests_under_way_share_by_weight() {
        let fixture = Fixture::new(&[10, 1, 2, 3, 4]);
        tell(&fixture, &[5 * MS; 5]);
        let balancer = LowestCost::new(&fixture.members);
        let mut permits = std::collections::VecDeque::new();
        let shares = fixture.shares_of(100_000, || {
            let id = fixture.pick(&balancer, &|_| true)?;
            permits.push_back(fixture.endpoint(id.0).begin(None, fixture.now).unwrap());
            if permits.len() > 400 {
                permits.pop_front();
            }
            Some(id)
        });
        assert_near(&shares, &[0.5, 0.05, 0.1, 0.15, 0.2], 0.05);
    }

    #[test]
    fn the_slow_are_left_alone_until_it_is_forgotten() {
        let mut fixture = Fixture::new(&[1; 4]);
        tell(&fixture, &[MS, MS, MS, 100 * MS]);
        let balancer = LowestCost::new(&fixture.members);
        let share = |fixture: &Fixture| fixture.shares(&balancer, 10_000, &|_| true)[3];
        assert!(share(&fixture) <= 0.0, "of any two it is the slower");
        fixture.now += Duration::from_secs(60);
        for at in 0..3 {
            fixture.endpoint(at).standing().latency().record(fixture.now, MS);
        }
        assert!(share(&fixture) > 0.4, "what is remembered of it is less than what others take");
    }

    #[test]
    fn the_unknown_is_tried_by_one_at_a_time() {
        let fixture = Fixture::new(&[1; 4]);
        tell(&fixture, &[MS, MS, MS]);
        let balancer = LowestCost::new(&fixture.members);
        assert!(fixture.shares(&balancer, 10_000, &|_| true)[3] > 0.4);
        let _trial = fixture.endpoint(3).begin(None, fixture.now).unwrap();
        assert!(fixture.shares(&balancer, 10_000, &|_| true)[3] <= 0.0);
    }
}
