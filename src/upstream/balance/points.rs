//! Where the endpoints lie on a ring.

use std::net::SocketAddr;

use pingora_ketama::{Bucket, Continuum, DEFAULT_POINT_MULTIPLE};

use super::EndpointId;
use super::consistent::Place;

/// The points of `pingora-ketama`, laid out so that a key finds its own at once: by the first bits of its hash it comes to
/// about the place, and from there on it looks.
///
/// The crate tells whose its points are, in their order, but not where they are. So that is worked out here again, in the
/// way of the crate and of nginx: each point of an endpoint is the CRC-32 of its address and of the point before.
pub(super) struct Points {
    points: Box<[Point]>,
    /// By the first bits of a hash, where to look from.
    starts: Box<[u32]>,
    /// How many bits are not looked at there.
    rest: u32,
}

#[derive(Clone, Copy)]
struct Point {
    hash: u32,
    owner: EndpointId,
}

impl Points {
    /// So many times the crate's number of points for each of the places.
    pub(super) fn new(places: &[Place], units: impl Fn(&Place) -> u32) -> Self {
        let buckets: Vec<Bucket> =
            places.iter().map(|place| Bucket::new(place.member.address, units(place))).collect();
        let continuum = Continuum::new(&buckets);
        let mut hashes: Vec<u32> =
            places.iter().flat_map(|place| hashes(place.member.address, units(place))).collect();
        hashes.sort_unstable();
        hashes.dedup();
        let points: Box<[Point]> = hashes
            .into_iter()
            .zip(owners(&continuum, places))
            .map(|(hash, owner)| Point { hash, owner })
            .collect();
        let bits = points.len().max(1).ilog2() + 1;
        let rest = u32::BITS - bits;
        Self { starts: starts(&points, bits, rest), points, rest }
    }

    /// Whose the points are from that of a key on, once around.
    pub(super) fn from(&self, key: u64) -> impl Iterator<Item = EndpointId> {
        let hash = hash_of(key);
        let start = self.starts.get((hash >> self.rest) as usize).map_or(0, |start| *start as usize);
        let ahead = self.points.get(start..).unwrap_or_default();
        let at = start + ahead.iter().take_while(|point| point.hash < hash).count();
        let (before, from) = self.points.split_at_checked(at).unwrap_or_default();
        from.iter().chain(before).map(|point| point.owner)
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.points.len()
    }
}

/// The owners of all points, in the order of the ring.
fn owners(continuum: &Continuum, places: &[Place]) -> impl Iterator<Item = EndpointId> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let address = continuum.get_addr(&mut at)?;
        let place = places.binary_search_by_key(address, |place| place.member.address).ok()?;
        places.get(place).map(|place| place.member.id)
    })
}

/// The hashes of an endpoint's points.
fn hashes(address: SocketAddr, units: u32) -> impl Iterator<Item = u32> {
    let prefix = crc32(!0, format!("{}\0{}", address.ip(), address.port()).as_bytes());
    let next = move |before: &u32| Some(!crc32(prefix, &before.to_le_bytes()));
    std::iter::successors(next(&0), next).take((units * DEFAULT_POINT_MULTIPLE) as usize)
}

/// For each way that a hash may begin, the first point that is not before it.
fn starts(points: &[Point], bits: u32, rest: u32) -> Box<[u32]> {
    let mut at = 0;
    let start = |first: u32| {
        at += points.iter().skip(at).take_while(|point| point.hash >> rest < first).count();
        at as u32
    };
    (0..1 << bits).map(start).collect()
}

/// CRC-32 as in Ethernet, a step for each byte; inverted before and after by whoever calls.
fn crc32(state: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(state, |state, byte| (state >> 8) ^ TABLES[0][usize::from(state as u8 ^ byte)])
}

/// The CRC-32 of a key's bytes, the lowest first: all at once, since it is waited for by every request.
fn hash_of(key: u64) -> u32 {
    let bytes = (key ^ u64::from(u32::MAX)).to_le_bytes();
    let shares = TABLES.iter().rev().zip(bytes).map(|(table, byte)| table[usize::from(byte)]);
    !shares.fold(0, |sum, share| sum ^ share)
}

/// What a byte comes to, by how many zeros follow it.
const TABLES: [[u32; 256]; 8] = {
    let mut tables = [[0; 256]; 8];
    let mut at = 0;
    while at < 256 {
        let mut state = at as u32;
        let mut bit = 0;
        while bit < 8 {
            state = (state >> 1) ^ if state & 1 == 1 { 0xedb8_8320 } else { 0 };
            bit += 1;
        }
        tables[0][at] = state;
        at += 1;
    }
    let mut zeros = 1;
    while zeros < 8 {
        let mut at = 0;
        while at < 256 {
            let before = tables[zeros - 1][at];
            tables[zeros][at] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            at += 1;
        }
        zeros += 1;
    }
    tables
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::consistent::places;
    use super::super::{HashKey, Member};
    use super::*;

    fn member(at: usize, address: SocketAddr, weight: u16) -> Member {
        Member { id: EndpointId(at as u16), address, weight }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Placement is the crate's own, point by point.
        #[test]
        fn a_key_lies_where_pingora_has_it(
            addresses in prop::collection::hash_set(any::<SocketAddr>(), 1..12),
            weights in prop::collection::vec(1u16..6, 12),
            keys in prop::collection::vec(any::<u64>(), 50),
        ) {
            // What is not in its text is not in an endpoint's place either.
            let addresses = addresses.into_iter().map(|address| SocketAddr::new(address.ip(), address.port()));
            let members: Vec<Member> = addresses
                .zip(weights)
                .enumerate()
                .map(|(at, (address, weight))| member(at, address, weight))
                .collect();
            let places = places(&members);
            let units = |place: &Place| u32::from(place.member.weight);
            let buckets: Vec<Bucket> = places.iter().map(|place| Bucket::new(place.member.address, units(place))).collect();
            let (ours, pingoras) = (Points::new(&places, units), Continuum::new(&buckets));
            for key in keys {
                let key = HashKey::of(&key.to_le_bytes()).get().unwrap();
                let order = ours.from(key).map(|id| members[usize::from(id.0)].address);
                let theirs = pingoras.node_iter(&key.to_le_bytes()).copied();
                prop_assert!(order.eq(theirs.take(ours.len())));
            }
        }
    }

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(!crc32(!0, b"123456789"), 0xcbf4_3926);
        for key in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX] {
            assert_eq!(hash_of(key), !crc32(!0, &key.to_le_bytes()));
        }
        let (bare, none) = (Points::new(&[], |_| 1), 0);
        assert_eq!((bare.len(), bare.from(7).count()), (none, none));
    }
}
