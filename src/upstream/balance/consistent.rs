//! What the ways of consistent hashing have in common: the places of endpoints, and bounded loads.

use std::sync::atomic::{AtomicU64, Ordering};

use super::key::{hash, mix, to_unit};
use super::{EndpointId, EndpointSet, Member};

/// An endpoint's place: it hangs on the address alone, so that it is the same in every gateway and in every set.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) member: Member,
    pub(super) hash: u64,
}

/// The places of those that may be picked, in an order that does not hang on the order of the list.
pub(super) fn places(members: &[Member]) -> Box<[Place]> {
    let members = members.iter().filter(|member| member.weight > 0);
    let mut places: Box<[Place]> = members
        .map(|member| Place { member: *member, hash: hash(member.address.to_string().as_bytes()) })
        .collect();
    places.sort_by_key(|place| place.member.address);
    places
}

/// The admitted endpoint that a key falls to when everyone is looked at, by weight (Thaler and Ravishankar's highest
/// random weight). A last resort.
pub(super) fn rendezvous(
    places: &[Place],
    key: u64,
    admits: &dyn Fn(EndpointId) -> bool,
) -> Option<EndpointId> {
    // The first to come of waits that are drawn by key and endpoint, shorter the greater the weight.
    let wait = |place: &Place| -(1.0 - to_unit(mix(key ^ place.hash))).ln() / f64::from(place.member.weight);
    let admitted = places.iter().filter(|place| admits(place.member.id));
    let first = admitted.min_by(|one, other| wait(one).total_cmp(&wait(other)));
    first.map(|place| place.member.id)
}

/// Bounded loads (Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2018): an endpoint that
/// bears more than `factor` times the average, by weight, is passed over.
///
/// The average is over those that are admitted. They are counted at every so many picks, so that a pick costs no more
/// the more endpoints there are. In between, the picks since are taken to be under way still: the average is never
/// thought less than it is, and at most by as many picks too great.
pub(super) struct Bound {
    factor: f64,
    every: u64,
    picks: AtomicU64,
    active: AtomicU64,
    weight: AtomicU64,
}

/// What an endpoint may bear at the moment.
#[derive(Clone, Copy)]
pub(super) struct Room {
    for_weight: f64,
}

impl Bound {
    /// A factor of less than 1 is taken for 1.
    pub(super) fn new(factor: f64, endpoints: usize) -> Self {
        Self {
            factor: factor.max(1.0),
            every: (endpoints as u64 / 4).max(1),
            picks: AtomicU64::new(0),
            active: AtomicU64::new(0),
            weight: AtomicU64::new(0),
        }
    }

    /// The room for the request that is being placed.
    pub(super) fn room(
        &self,
        set: &EndpointSet,
        places: &[Place],
        admits: &dyn Fn(EndpointId) -> bool,
    ) -> Room {
        let since = self.picks.fetch_add(1, Ordering::Relaxed) % self.every;
        if since == 0 {
            self.count(set, places, admits);
        }
        let weight = self.weight.load(Ordering::Relaxed);
        let active = self.active.load(Ordering::Relaxed) + since + 1;
        // Nobody counted yet gives no bound: the division by zero is infinite.
        Room { for_weight: self.factor * active as f64 / weight as f64 }
    }

    /// Two threads may mix their counts; the next count puts it right.
    fn count(&self, set: &EndpointSet, places: &[Place], admits: &dyn Fn(EndpointId) -> bool) {
        let (mut active, mut weight) = (0, 0);
        let admitted = places.iter().filter(|place| admits(place.member.id));
        for endpoint in admitted.filter_map(|place| set.get(place.member.id)) {
            active += endpoint.standing().active();
            weight += u64::from(endpoint.weight());
        }
        self.active.store(active, Ordering::Relaxed);
        self.weight.store(weight, Ordering::Relaxed);
    }
}

impl Room {
    /// Whether the endpoint has room for one more.
    pub(super) fn is_at(self, set: &EndpointSet, id: EndpointId) -> bool {
        set.get(id).is_some_and(|endpoint| {
            let most = (self.for_weight * f64::from(endpoint.weight())).ceil();
            endpoint.standing().active() as f64 + 1.0 <= most
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Fixture, assert_near};
    use super::*;

    #[test]
    fn a_rendezvous_is_fair_and_moves_nobody_else() {
        let fixture = Fixture::new(&[4, 1, 2, 3]);
        let places = places(&fixture.members);
        let mut keys = (0..100_000).map(mix);
        let shares = fixture.shares_of(100_000, || rendezvous(&places, keys.next()?, &|_| true));
        assert_near(&shares, &[0.4, 0.1, 0.2, 0.3], 0.03);
        for key in (0..1000).map(mix) {
            let all = rendezvous(&places, key, &|_| true);
            let fewer = rendezvous(&places, key, &|id| id.0 != 2);
            assert!(all == fewer || all == Some(EndpointId(2)));
        }
    }

    #[test]
    fn room_is_by_weight() {
        let fixture = Fixture::new(&[1, 3]);
        let places = places(&fixture.members);
        let bound = Bound::new(1.25, 2);
        let _busy: Vec<_> =
            [0, 0, 1, 1, 1, 1, 1].map(|at| fixture.endpoint(at).begin(None, fixture.now).unwrap()).into();
        let room = bound.room(&fixture.set, &places, &|_| true);
        // 8 with the one to place, of which 2.5 and 7.5 at most.
        assert!(room.is_at(&fixture.set, EndpointId(0)) && room.is_at(&fixture.set, EndpointId(1)));
        let _more = fixture.endpoint(0).begin(None, fixture.now).unwrap();
        let room = bound.room(&fixture.set, &places, &|_| true);
        assert!(!room.is_at(&fixture.set, EndpointId(0)) && room.is_at(&fixture.set, EndpointId(1)));
        // Alone, it is the average.
        let room = bound.room(&fixture.set, &places, &|id| id.0 == 0);
        assert!(room.is_at(&fixture.set, EndpointId(0)));
    }

    #[test]
    fn picks_since_the_count_make_room() {
        let fixture = Fixture::new(&[1; 40]);
        let places = places(&fixture.members);
        let bound = Bound::new(1.0, 40);
        let rooms: Vec<_> =
            (0..11).map(|_| bound.room(&fixture.set, &places, &|_| true).for_weight).collect();
        assert!((rooms[0] - 1.0 / 40.0).abs() < 1e-9 && (rooms[9] - 10.0 / 40.0).abs() < 1e-9);
        assert!((rooms[10] - 1.0 / 40.0).abs() < 1e-9, "counted anew: none is under way");
    }
}
