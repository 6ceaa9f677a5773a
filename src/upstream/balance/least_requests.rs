//! The fewest requests under way.

use super::alias::Lots;
use super::{Balancer, EndpointId, EndpointSet, Member, Pick, RoundRobin, weighted};

/// Least requests: the endpoint with the fewest requests under way for its weight.
///
/// 1. Among a few endpoints everyone is looked at; of those that bear equally little the one whose turn it is, or one by
///    lot and weight. An idle set is thus gone through in turn.
/// 2. Among more, the lesser of two that are drawn by weight (the power of two choices: Mitzenmacher, 2001; Envoy's least
///    request): nearly as even, and many gateways that look at once do not all run to the same endpoint. Of two that
///    bear equally little it is the first, so that an idle set is drawn from by weight.
pub struct LeastRequests(Way);

enum Way {
    Scan { members: Box<[Member]>, turns: RoundRobin },
    Two(Lots),
}

/// How many endpoints are looked at one by one.
const FEW: usize = 8;

/// A candidate, and what it bears.
struct Candidate {
    id: EndpointId,
    weight: u64,
    active: u64,
}

impl LeastRequests {
    /// A choice among these endpoints.
    pub fn new(members: &[Member]) -> Self {
        let members = weighted(members);
        if members.len() > FEW {
            return Self(Way::Two(Lots::new(&members)));
        }
        let turns = RoundRobin::new(&members);
        Self(Way::Scan { members, turns })
    }
}

impl Balancer for LeastRequests {
    fn pick(&self, set: &EndpointSet, pick: &Pick<'_>) -> Option<EndpointId> {
        match &self.0 {
            Way::Scan { members, turns } => least(set, members, turns.turn()?, pick.admits),
            Way::Two(lots) => {
                let (one, other) = lots.two(pick.admits)?;
                let Some(other) = other.and_then(|id| candidate(set, id)) else {
                    return Some(one);
                };
                let lesser = candidate(set, one).is_none_or(|one| other.bears_less_than(&one));
                Some(if lesser { other.id } else { one })
            }
        }
    }
}

fn candidate(set: &EndpointSet, id: EndpointId) -> Option<Candidate> {
    let endpoint = set.get(id)?;
    Some(Candidate { id, weight: u64::from(endpoint.weight()), active: endpoint.standing().active() })
}

impl Candidate {
    fn bears_less_than(&self, other: &Self) -> bool {
        self.active.saturating_mul(other.weight) < other.active.saturating_mul(self.weight)
    }
}

fn least(
    set: &EndpointSet,
    members: &[Member],
    turn: EndpointId,
    admits: &dyn Fn(EndpointId) -> bool,
) -> Option<EndpointId> {
    let mut least: Option<Candidate> = None;
    let mut equals = 0;
    let admitted = members.iter().filter(|member| admits(member.id));
    for candidate in admitted.filter_map(|member| candidate(set, member.id)) {
        let best = match &least {
            Some(best) if best.bears_less_than(&candidate) => continue,
            Some(best) if !candidate.bears_less_than(best) => Some(best.id),
            _ => None,
        };
        equals = if best.is_some() { equals + candidate.weight } else { candidate.weight };
        let wins = match best {
            None => true,
            Some(best) if best == turn => false,
            Some(_) => candidate.id == turn || fastrand::u64(..equals.max(1)) < candidate.weight,
        };
        if wins {
            least = Some(candidate);
        }
    }
    least.map(|candidate| candidate.id)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Fixture, assert_near};
    use super::*;

    /// The shares of picks while so many requests are under way, of which the oldest always ends next.
    fn loaded(fixture: &Fixture, under_way: usize, admits: &dyn Fn(EndpointId) -> bool) -> Vec<f64> {
        let balancer = LeastRequests::new(&fixture.members);
        let mut permits = std::collections::VecDeque::new();
        fixture.shares_of(100_000, || {
            let id = fixture.pick(&balancer, admits)?;
            permits.push_back(fixture.endpoint(id.0).begin(None, fixture.now).unwrap());
            if permits.len() > under_way {
                permits.pop_front();
            }
            Some(id)
        })
    }

    #[test]
    fn the_least_loaded_is_chosen() {
        let fixture = Fixture::new(&[1, 1, 4]);
        let balancer = LeastRequests::new(&fixture.members);
        let _busy: Vec<_> =
            [0, 1, 2, 2, 2].map(|at| fixture.endpoint(at).begin(None, fixture.now).unwrap()).into();
        assert_eq!(fixture.pick(&balancer, &|_| true), Some(EndpointId(2)), "3 of 4 is less than 1 of 1");
        assert_ne!(fixture.pick(&balancer, &|id| id.0 != 2), Some(EndpointId(2)));
    }

    #[test]
    fn an_idle_set_is_gone_through_in_turn() {
        let fixture = Fixture::new(&[5, 1, 1]);
        let balancer = LeastRequests::new(&fixture.members);
        let round: Vec<_> = (0..7).map(|_| fixture.pick(&balancer, &|_| true).unwrap().0).collect();
        assert_eq!(round, [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn few_share_by_weight() {
        let fixture = Fixture::new(&[10, 1, 2, 3, 4]);
        for under_way in [0, 40, 400] {
            let shares = loaded(&fixture, under_way, &|_| true);
            assert_near(&shares, &[0.5, 0.05, 0.1, 0.15, 0.2], 0.03);
        }
        let shares = loaded(&fixture, 400, &|id| id.0 != 0);
        assert_near(&shares, &[0.0, 0.1, 0.2, 0.3, 0.4], 0.03);
    }

    #[test]
    fn many_share_by_weight() {
        let weights: Vec<u16> = (0..20).map(|at| 1 + at % 4).collect();
        let fixture = Fixture::new(&weights);
        let sum: u16 = weights.iter().sum();
        let due: Vec<f64> = weights.iter().map(|weight| f64::from(*weight) / f64::from(sum)).collect();
        for under_way in [0, 1000] {
            assert_near(&loaded(&fixture, under_way, &|_| true), &due, 0.06);
        }
        let due: Vec<f64> =
            (0..).zip(&due).map(|(at, due)| if at == 3 { 0.0 } else { due / (46.0 / 50.0) }).collect();
        assert_near(&loaded(&fixture, 1000, &|id| id.0 != 3), &due, 0.06);
    }

    #[test]
    fn two_choices_are_far_more_even_than_one() {
        let fixture = Fixture::new(&[1; 100]);
        let balancer = LeastRequests::new(&fixture.members);
        let mut permits = Vec::new();
        for _ in 0..1000 {
            let id = fixture.pick(&balancer, &|_| true).unwrap();
            permits.push(fixture.endpoint(id.0).begin(None, fixture.now).unwrap());
        }
        let most = fixture.set.iter().map(|endpoint| endpoint.standing().active()).max();
        assert!(most.is_some_and(|most| most <= 14), "{most:?} where 10 are due");
    }
}
