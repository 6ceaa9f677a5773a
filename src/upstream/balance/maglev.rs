//! By a table.

use super::consistent::{Bound, Place, places, rendezvous};
use super::key::{mix, to_index};
use super::{Balancer, EndpointId, EndpointSet, Member, Pick};

/// Consistent hashing by a table (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016).
///
/// 1. Each endpoint claims entries of the table in an order of its own, which hangs on its address; they claim by turns,
///    and by weight as Envoy has it. The shares are even to about a hundredth.
/// 2. An endpoint that comes or goes moves its own keys, and a few in a hundred of others'.
/// 3. A key whose endpoint is not admitted, or bears more than its bound, is hashed again: its others lie anywhere, and
///    the keys of an endpoint spread over all others.
/// 4. A key that finds nobody in room goes to the first that is admitted, bound or not.
pub struct Maglev {
    entries: Box<[EndpointId]>,
    places: Box<[Place]>,
    bound: Option<Bound>,
}

/// The entries of the table: a prime, and a hundred for each endpoint (the paper's 65537, and Envoy's).
const ENTRIES: usize = 65_537;
const EACH: usize = 100;

/// How often a key is hashed.
const HASHES: usize = 16;

impl Maglev {
    /// A table of these endpoints; `bounded` is how many times the average an endpoint may bear.
    pub fn new(members: &[Member], bounded: Option<f64>) -> Self {
        let places = places(members);
        let size = if places.len() * EACH <= ENTRIES { ENTRIES } else { next_prime(places.len() * EACH) };
        let bound = bounded.map(|factor| Bound::new(factor, places.len()));
        Self { entries: fill(&places, size), places, bound }
    }
}

impl Balancer for Maglev {
    fn pick(&self, set: &EndpointSet, pick: &Pick<'_>) -> Option<EndpointId> {
        let key = pick.key.or_random();
        let room = self.bound.as_ref().map(|bound| bound.room(set, &self.places, pick.admits));
        let mut hash = key;
        let mut first = None;
        for _ in 0..HASHES {
            let id = *self.entries.get(to_index(hash, self.entries.len()))?;
            if (pick.admits)(id) {
                if room.is_none_or(|room| room.is_at(set, id)) {
                    return Some(id);
                }
                first.get_or_insert(id);
            }
            hash = mix(hash.wrapping_add(0x9e37_79b9_7f4a_7c15));
        }
        first.or_else(|| rendezvous(&self.places, key, pick.admits))
    }
}

/// An endpoint while it claims entries: every `skip`-th from `next` on, which comes by all of them as their number is prime.
struct Claimant {
    id: EndpointId,
    weight: u64,
    next: usize,
    skip: usize,
    /// What `round x weight` must reach for its next claim.
    due: u64,
}

impl Claimant {
    fn new(place: &Place, size: usize) -> Self {
        Self {
            id: place.member.id,
            weight: u64::from(place.member.weight),
            next: to_index(place.hash, size),
            skip: 1 + to_index(mix(!place.hash), size - 1),
            due: 0,
        }
    }

    /// Claims the first entry in its order that is free.
    fn claim(&mut self, entries: &mut [Option<EndpointId>]) {
        loop {
            let at = self.next;
            self.next = (at + self.skip) % entries.len();
            if entries[at].is_none() {
                entries[at] = Some(self.id);
                return;
            }
        }
    }
}

/// Has everyone claim entries by turns until none is free. The heaviest claims in every round, the others as often as
/// their weight is of its.
fn fill(places: &[Place], size: usize) -> Box<[EndpointId]> {
    let heaviest = places.iter().map(|place| u64::from(place.member.weight)).max().unwrap_or(0);
    let mut claimants: Vec<Claimant> = places.iter().map(|place| Claimant::new(place, size)).collect();
    let mut entries = vec![None; size];
    let mut free = if claimants.is_empty() { 0 } else { size };
    let mut round = 0;
    while free > 0 {
        round += 1;
        for claimant in &mut claimants {
            if free == 0 || round * claimant.weight < claimant.due {
                continue;
            }
            claimant.due += heaviest;
            claimant.claim(&mut entries);
            free -= 1;
        }
    }
    entries.into_iter().flatten().collect()
}

fn next_prime(from: usize) -> usize {
    let is_prime = |number: &usize| {
        let mut divisors = (2..).take_while(|divisor| divisor * divisor <= *number);
        divisors.all(|divisor| !number.is_multiple_of(divisor))
    };
    (from.max(2)..).find(is_prime).unwrap_or(from)
}

#[cfg(test)]
mod tests {
    use super::super::HashKey;
    use super::super::testing::{Fixture, assert_near, moved, moved_in_vain};
    use super::*;

    #[test]
    fn entries_are_by_weight() {
        for weights in [vec![1; 10], vec![1, 2, 3, 4], vec![1, 1000, 10]] {
            let maglev = Maglev::new(&Fixture::members(&weights), None);
            assert_eq!(maglev.entries.len(), ENTRIES);
            let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
            for (id, weight) in (0..).zip(&weights) {
                let share =
                    maglev.entries.iter().filter(|entry| entry.0 == id).count() as f64 / ENTRIES as f64;
                let due = f64::from(*weight) / sum;
                assert!((share - due).abs() <= due * 0.03, "{share} of {due} in {weights:?}");
            }
        }
        assert!(Maglev::new(&[], None).entries.is_empty());
    }

    #[test]
    fn a_key_stays_where_it_is() {
        let fixture = Fixture::new(&[1; 10]);
        let mut reversed = fixture.members.clone();
        reversed.reverse();
        let (one, other) = (Maglev::new(&fixture.members, None), Maglev::new(&reversed, None));
        let places = fixture.places(&one, 1000, &|_| true);
        assert_eq!(places, fixture.places(&other, 1000, &|_| true), "the order of the list does not matter");
    }

    #[test]
    fn what_goes_or_comes_moves_few_keys_of_others() {
        let fixture = Fixture::new(&[2, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
        let whole = fixture.places(&Maglev::new(&fixture.members, None), 20_000, &|_| true);
        for gone in [0, 4, 9] {
            let changed = fixture.members[gone];
            let mut fewer = fixture.members.clone();
            fewer.remove(gone);
            let places = fixture.places(&Maglev::new(&fewer, None), 20_000, &|_| true);
            let due = f64::from(changed.weight) / 11.0;
            let in_vain = moved_in_vain(&whole, &places, changed.address);
            assert!(moved(&whole, &places) - in_vain <= due * 1.1, "{} moved", moved(&whole, &places));
            assert!(in_vain <= 0.04, "{in_vain} moved in vain");
        }
    }

    #[test]
    fn the_keys_of_what_is_not_admitted_spread_and_the_rest_stay() {
        let fixture = Fixture::new(&[1, 2, 4, 3, 4]);
        let maglev = Maglev::new(&fixture.members, None);
        let shares = fixture.shares(&maglev, 100_000, &|id| id.0 != 2);
        assert_near(&shares, &[0.1, 0.2, 0.0, 0.3, 0.4], 0.03);
        let gone = fixture.members[2].address;
        let (whole, fewer) =
            (fixture.places(&maglev, 10_000, &|_| true), fixture.places(&maglev, 10_000, &|id| id.0 != 2));
        assert!(moved_in_vain(&whole, &fewer, gone) <= 0.0);
    }

    #[test]
    fn a_key_that_everyone_sends_stays_within_the_bound() {
        let fixture = Fixture::new(&[1; 10]);
        let maglev = Maglev::new(&fixture.members, Some(1.25));
        let mut permits = Vec::new();
        for _ in 0..1000 {
            let id = fixture.pick_for(&maglev, HashKey::of(b"hot"), &|_| true).unwrap();
            permits.push(fixture.endpoint(id.0).begin(None, fixture.now).unwrap());
        }
        let most = fixture.set.iter().map(|endpoint| endpoint.standing().active()).max();
        assert!(most.is_some_and(|most| (100..=127).contains(&most)), "{most:?} where 125 are allowed");
    }

    #[test]
    fn a_table_has_a_prime_of_entries() {
        assert_eq!(next_prime(65_537), 65_537);
        assert_eq!(next_prime(1_000_000), 1_000_003);
        assert_eq!(Maglev::new(&Fixture::members(&[1; 656]), None).entries.len(), next_prime(65_600));
    }
}
