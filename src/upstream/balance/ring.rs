//! By a ring.

use super::consistent::{Bound, Place, places, rendezvous};
use super::points::Points;
use super::{Balancer, EndpointId, EndpointSet, Member, Pick};

/// Consistent hashing by a ring (ketama, Last.fm 2007; the points are those of nginx and Pingora).
///
/// 1. Each endpoint has points on the ring, 640 for each unit of its weight, placed by its address. A key belongs to the
///    next point. An endpoint that comes or goes moves the keys that are or were its own: about one in as many as
///    there are endpoints, and none between others.
/// 2. Sets whose weights come to more than 1024 have half as many points for each unit, or a quarter, or fewer. A set that
///    grows beyond such a step moves keys between others, once.
/// 3. What is not admitted, or bears more than its bound, is passed over for the next endpoint on the ring.
/// 4. A key that finds nobody in room goes to the first that is admitted, bound or not.
pub struct Ring {
    points: Points,
    places: Box<[Place]>,
    bound: Option<Bound>,
}

/// The units of 160 points for each unit of weight.
const UNITS: u32 = 4;

/// The most units on a ring, unless there are as many endpoints.
const MAX_UNITS: u32 = 4096;

/// How far along the ring a key looks: so many questions, so many points. What was refused just before is not asked again.
const QUESTIONS: usize = 64;
const POINTS: usize = 1024;

impl Ring {
    /// A ring of these endpoints; `bounded` is how many times the average an endpoint may bear.
    pub fn new(members: &[Member], bounded: Option<f64>) -> Self {
        let places = places(members);
        let shift = shift(&places);
        let points = Points::new(&places, |place| units(place, shift));
        let bound = bounded.map(|factor| Bound::new(factor, places.len()));
        Self { points, places, bound }
    }
}

impl Balancer for Ring {
    fn pick(&self, set: &EndpointSet, pick: &Pick<'_>) -> Option<EndpointId> {
        let key = pick.key.or_random();
        let room = self.bound.as_ref().map(|bound| bound.room(set, &self.places, pick.admits));
        let (mut questions, mut refused, mut first) = (0, None, None);
        for id in self.points.from(key).take(POINTS) {
            if refused == Some(id) {
                continue;
            }
            if (pick.admits)(id) {
                if room.is_none_or(|room| room.is_at(set, id)) {
                    return Some(id);
                }
                first.get_or_insert(id);
            }
            refused = Some(id);
            questions += 1;
            if questions == QUESTIONS {
                break;
            }
        }
        first.or_else(|| rendezvous(&self.places, key, pick.admits))
    }
}

/// How many times the units are halved, so that the ring has an end.
fn shift(places: &[Place]) -> u32 {
    let most = u64::from(MAX_UNITS).max(places.len() as u64 * 2);
    let sum = |shift| places.iter().map(|place| u64::from(units(place, shift))).sum::<u64>();
    (0..u16::BITS).find(|shift| sum(*shift) <= most).unwrap_or(u16::BITS)
}

fn units(place: &Place, shift: u32) -> u32 {
    ((u32::from(place.member.weight) * UNITS) >> shift).max(1)
}

#[cfg(test)]
mod tests {
    use super::super::HashKey;
    use super::super::testing::{Fixture, assert_near, moved, moved_in_vain};
    use super::*;

    #[test]
    fn keys_spread_by_weight() {
        for (weights, slack) in [(vec![1; 10], 0.12), (vec![1, 2, 3, 4], 0.12), (vec![100, 200, 700], 0.03)] {
            let fixture = Fixture::new(&weights);
            let ring = Ring::new(&fixture.members, None);
            let mut keys = 0u32..;
            let shares = fixture.shares_of(100_000, || {
                let key = HashKey::of(&keys.next()?.to_le_bytes());
                fixture.pick_for(&ring, key, &|_| true)
            });
            let sum: u16 = weights.iter().sum();
            let due: Vec<f64> = weights.iter().map(|weight| f64::from(*weight) / f64::from(sum)).collect();
            assert_near(&shares, &due, slack);
        }
    }

    #[test]
    fn a_key_stays_where_it_is() {
        let fixture = Fixture::new(&[1; 10]);
        let mut reversed = fixture.members.clone();
        reversed.reverse();
        let (one, other) = (Ring::new(&fixture.members, None), Ring::new(&reversed, None));
        let places = fixture.places(&one, 1000, &|_| true);
        assert_eq!(places, fixture.places(&other, 1000, &|_| true), "the order of the list does not matter");
    }

    #[test]
    fn what_goes_or_comes_moves_its_own_keys_only() {
        let fixture = Fixture::new(&[2, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
        let whole = fixture.places(&Ring::new(&fixture.members, None), 20_000, &|_| true);
        for gone in [0, 4, 9] {
            let changed = fixture.members[gone];
            let mut fewer = fixture.members.clone();
            fewer.remove(gone);
            let places = fixture.places(&Ring::new(&fewer, None), 20_000, &|_| true);
            let due = f64::from(changed.weight) / 11.0;
            assert!(moved(&whole, &places) <= due * 1.3, "{} moved", moved(&whole, &places));
            assert!(moved_in_vain(&whole, &places, changed.address) <= 0.0);
            // To be not admitted is to be gone.
            let ring = Ring::new(&fixture.members, None);
            assert_eq!(places, fixture.places(&ring, 20_000, &|id| id != changed.id));
        }
    }

    #[test]
    fn the_keys_of_what_is_not_admitted_spread() {
        let fixture = Fixture::new(&[100; 5]);
        let ring = Ring::new(&fixture.members, None);
        let shares = fixture.shares(&ring, 100_000, &|id| id.0 != 2);
        assert_near(&shares, &[0.25, 0.25, 0.0, 0.25, 0.25], 0.05);
    }

    #[test]
    fn a_key_that_everyone_sends_stays_within_the_bound() {
        let fixture = Fixture::new(&[1; 10]);
        let ring = Ring::new(&fixture.members, Some(1.25));
        let mut permits = Vec::new();
        for _ in 0..1000 {
            let id = fixture.pick_for(&ring, HashKey::of(b"hot"), &|_| true).unwrap();
            permits.push(fixture.endpoint(id.0).begin(None, fixture.now).unwrap());
        }
        let most = fixture.set.iter().map(|endpoint| endpoint.standing().active()).max();
        assert!(most.is_some_and(|most| (100..=127).contains(&most)), "{most:?} where 125 are allowed");
    }

    #[test]
    fn extreme_weights_make_no_endless_ring() {
        let weights: Vec<u16> = (0..300).map(|at| if at % 2 == 0 { 1000 } else { 1 }).collect();
        let ring = Ring::new(&Fixture::members(&weights), None);
        assert!(ring.points.len() <= 4096 * 160, "{}", ring.points.len());
        assert_eq!(Ring::new(&[], None).points.len(), 0);
    }
}
