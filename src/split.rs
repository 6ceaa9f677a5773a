//! The choice among the variants of a route.
//!
//! 1. With a key the choice is by weighted rendezvous hashing (Schindelhauer and Schomaker, 2005): every variant draws a
//!    number from the key and its own name, and the lowest for its weight wins. The same key comes to the same variant
//!    on every machine; where weights move, only as many keys move as have to, and only towards what has grown.
//! 2. Without a key it is by lot.
//! 3. A variant of weight zero is never chosen; a rule may still name it.

use crate::upstream::HashKey;

/// Variants and how often each is chosen.
#[derive(Debug, Clone, Default)]
pub struct Shares(Box<[Share]>);

#[derive(Debug, Clone, Copy)]
struct Share {
    /// What makes its numbers its own.
    seed: u64,
    weight: u32,
}

impl Shares {
    /// Shares of the variants with these names and weights. `of` keeps two splits apart: who is among the few of one need
    /// not be among the few of the other.
    pub fn new<'n>(of: &str, variants: impl IntoIterator<Item = (&'n str, u32)>) -> Self {
        let share =
            |(name, weight): (&str, u32)| Share { seed: stable(format!("{of}\0{name}").as_bytes()), weight };
        Self(variants.into_iter().map(share).collect())
    }

    /// The variant of a key; `None` when none has any weight.
    pub fn by_key(&self, key: &[u8]) -> Option<usize> {
        let key = stable(key);
        let draw = |share: &Share| {
            // Between 0 and 1, without either.
            let unit = ((stable(&(key ^ share.seed).to_be_bytes()) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
            -unit.ln() / f64::from(share.weight)
        };
        let weighty = self.0.iter().enumerate().filter(|(_, share)| share.weight > 0);
        let lowest = weighty.map(|(at, share)| (at, draw(share))).min_by(|(_, a), (_, b)| a.total_cmp(b));
        lowest.map(|(at, _)| at)
    }

    /// The variant of a lot from 0 to 1, without 1; `None` when none has any weight.
    pub fn by_lot(&self, lot: f64) -> Option<usize> {
        let total = self.total();
        let mut left = (lot * total as f64) as u64;
        let weighty = self.0.iter().enumerate().filter(|(_, share)| share.weight > 0);
        let mut last = None;
        for (at, share) in weighty {
            last = Some(at);
            match left.checked_sub(u64::from(share.weight)) {
                Some(rest) => left = rest,
                None => break,
            }
        }
        last
    }

    /// How often a variant is chosen, from 0 to 1.
    pub fn share(&self, at: usize) -> f64 {
        let weight = self.0.get(at).map_or(0, |share| share.weight);
        f64::from(weight) / self.total().max(1) as f64
    }

    fn total(&self) -> u64 {
        self.0.iter().map(|share| u64::from(share.weight)).sum()
    }
}

/// A hash that is the same on every machine, for ever.
fn stable(bytes: &[u8]) -> u64 {
    HashKey::of(bytes).get().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(weights: &[u32]) -> Shares {
        let names: Vec<String> = (0..weights.len()).map(|at| format!("v{at}")).collect();
        Shares::new("route", names.iter().map(String::as_str).zip(weights.iter().copied()))
    }

    /// Where so many keys come to.
    fn places(shares: &Shares, keys: u32) -> Vec<usize> {
        (0..keys).map(|key| shares.by_key(format!("visitor-{key}").as_bytes()).unwrap()).collect()
    }

    fn count(places: &[usize], at: usize) -> f64 {
        places.iter().filter(|place| **place == at).count() as f64 / places.len() as f64
    }

    #[test]
    fn keys_spread_by_weight() {
        for weights in [&[95, 5][..], &[1, 1, 1], &[1, 0, 3], &[700, 200, 100]] {
            let shares = shares(weights);
            let places = places(&shares, 100_000);
            for at in 0..weights.len() {
                let (seen, due) = (count(&places, at), shares.share(at));
                assert!((seen - due).abs() < 0.006, "{weights:?}: variant {at} got {seen}, not {due}");
            }
        }
    }

    #[test]
    fn where_weights_move_only_so_many_keys_do() {
        let before = places(&shares(&[70, 20, 10]), 100_000);
        // The last grows from 10 to 30 of 120: what it has now it took of the others, who trade nothing.
        let after = places(&shares(&[70, 20, 30]), 100_000);
        let moved: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
        assert!(moved.iter().all(|(_, after)| **after == 2));
        let share = moved.len() as f64 / before.len() as f64;
        assert!((share - (0.25 - 0.1)).abs() < 0.01, "{share}");
    }

    #[test]
    fn two_splits_do_not_pick_the_same_few() {
        let one = Shares::new("a", [("old", 90), ("new", 10)]);
        let other = Shares::new("b", [("old", 90), ("new", 10)]);
        let both = places(&one, 100_000)
            .iter()
            .zip(places(&other, 100_000))
            .filter(|(a, b)| **a == 1 && *b == 1)
            .count();
        assert!((800..1_200).contains(&both), "{both}");
    }

    #[test]
    fn lots_spread_by_weight() {
        let shares = shares(&[1, 0, 3]);
        let drawn = [0.0, 0.2499, 0.25, 0.999_999].map(|lot| shares.by_lot(lot).unwrap());
        assert_eq!(drawn, [0, 0, 2, 2]);
    }

    #[test]
    fn nobody_is_chosen_where_nobody_has_weight() {
        assert_eq!(shares(&[0, 0]).by_key(b"a"), None);
        assert_eq!(shares(&[]).by_lot(0.5), None);
    }

    /// What is written here is what every gateway out there computes: it must never change.
    #[test]
    fn the_choice_is_for_ever() {
        let shares = Shares::new("checkout", [("v1", 1), ("v2", 1)]);
        let places: Vec<_> =
            (0..16).map(|key| shares.by_key(format!("k{key}").as_bytes()).unwrap()).collect();
        assert_eq!(places, [1, 0, 1, 1, 1, 1, 0, 0, 0, 1, 1, 0, 1, 0, 0, 0]);
    }
}
