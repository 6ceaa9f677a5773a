//! Counters by key: a short list that only grows, read and written without a lock.
//!
//! A route sees few pairs of method and status, and the commonest of them early: a handful of comparisons finds it. A
//! table indexed by both would be faster only past that, and a hundred times larger.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// With keys of up to eight bytes, the slots of a list's first part fill one cache line.
const SLOTS: usize = 4;

/// Counters, one for each key seen. Keys must come from a bounded set: none is ever forgotten.
#[derive(Debug)]
pub(super) struct Counts<K> {
    slots: [Slot<K>; SLOTS],
    more: OnceLock<Box<Self>>,
}

#[derive(Debug)]
struct Slot<K> {
    key: OnceLock<K>,
    count: AtomicU64,
}

impl<K: Copy + Eq> Counts<K> {
    /// Adds one to the counter of `key`.
    pub(super) fn add_one(&self, key: K) {
        let mut list = self;
        loop {
            // The first free slot becomes the key's own, unless another thread's key is faster.
            if let Some(slot) = list.slots.iter().find(|slot| *slot.key.get_or_init(|| key) == key) {
                slot.count.fetch_add(1, Ordering::Relaxed);
                return;
            }
            list = list.more.get_or_init(Box::default);
        }
    }

    /// Every key seen and its count.
    pub(super) fn iter(&self) -> impl Iterator<Item = (K, u64)> {
        let lists = std::iter::successors(Some(self), |list| list.more.get().map(Box::as_ref));
        lists
            .flat_map(|list| &list.slots)
            .filter_map(|slot| slot.key.get().map(|key| (*key, slot.count.load(Ordering::Relaxed))))
    }
}

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self { slots: Default::default(), more: OnceLock::new() }
    }
}

impl<K> Default for Slot<K> {
    fn default() -> Self {
        Self { key: OnceLock::new(), count: AtomicU64::new(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn threads_share_one_counter_a_key() {
        let counts = Counts::default();
        std::thread::scope(|scope| {
            for offset in 0..4 {
                let counts = &counts;
                scope.spawn(move || (0..10_000).for_each(|n| counts.add_one((n + offset) % 20)));
            }
        });
        let seen: HashMap<i32, u64> = counts.iter().collect();
        assert_eq!(counts.iter().count(), 20, "no key has two slots");
        assert!(seen.values().all(|count| *count == 2000), "{seen:?}");
    }

    proptest! {
        #[test]
        fn counts_as_a_map_does(keys in prop::collection::vec(0..40_u8, 0..200)) {
            let counts = Counts::default();
            let mut expected = HashMap::new();
            for key in keys {
                counts.add_one(key);
                *expected.entry(key).or_insert(0) += 1;
            }
            prop_assert_eq!(counts.iter().collect::<HashMap<_, _>>(), expected);
        }
    }
}
