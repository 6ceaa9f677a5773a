//! The key that hashing decides by.

/// The hash of a request's key, if the request has one. Without a key the choice is by lot.
///
/// The hash is FNV-1a over 64 bits, finished by the mixer of MurmurHash3 (`fmix64`). It has no seed: every gateway, on
/// every machine and of every version, sends a key to the same endpoint. Clients who choose their keys can therefore
/// aim at one; bounded loads are the remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HashKey(Option<u64>);

impl HashKey {
    /// No key.
    pub const NONE: Self = Self(None);

    /// The key with these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Some(hash(bytes)))
    }

    /// The hash; `None` without a key.
    pub fn get(self) -> Option<u64> {
        self.0
    }

    /// The hash, or one by lot.
    pub(super) fn or_random(self) -> u64 {
        self.0.unwrap_or_else(|| fastrand::u64(..))
    }
}

/// The stable hash of bytes: keys by it, and the places of endpoints.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, step))
}

/// Spreads what differs in any bit over all bits (MurmurHash3's `fmix64`). No two numbers give the same.
pub(in crate::upstream) fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    number = (number ^ (number >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    number ^ (number >> 33)
}

/// A number over the whole range brought to below `length`, evenly (Lemire's multiplication in place of a division).
pub(super) fn to_index(number: u64, length: usize) -> usize {
    ((u128::from(number) * length as u128) >> 64) as usize
}

/// A number over the whole range brought to between 0 and 1, without 1.
pub(in crate::upstream) fn to_unit(number: u64) -> f64 {
    (number >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written here is what every gateway out there computes: it must never change.
    #[test]
    fn the_hash_is_for_ever() {
        let samples = [
            ("", 0xefd0_1f60_ba99_2926),
            ("a", 0x82a2_a958_a9be_ce5b),
            ("foobar", 0x2c22_1949_22d1_672b),
            ("127.0.0.1:80", 0xb211_bb6b_eed1_108f),
        ];
        for (text, expected) in samples {
            assert_eq!(hash(text.as_bytes()), expected, "{text:?}: {:#x}", hash(text.as_bytes()));
        }
        assert_eq!(HashKey::of(b"a").get(), Some(hash(b"a")));
        assert_eq!(HashKey::NONE.get(), None);
    }

    #[test]
    fn keys_that_are_alike_spread_evenly() {
        let mut seen = [0; 16];
        (0..160_000).for_each(|n: u32| seen[to_index(hash(format!("user-{n}").as_bytes()), 16)] += 1);
        assert!(seen.iter().all(|count| (9_600..10_400).contains(count)), "{seen:?}");
        assert!((to_unit(u64::MAX)) < 1.0);
        assert!(to_unit(0).abs() < f64::EPSILON);
        assert_eq!(to_index(u64::MAX, 7), 6);
    }
}
