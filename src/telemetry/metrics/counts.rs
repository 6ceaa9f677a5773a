//! Counters by key: a short list that only grows, read and written without a lock.
//!
//! A route sees few pairs of method and status, and the commonest of them early: a handful of comparisons finds it. A
//! table indexed by both would be faster only past that, and a hundred times larger.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

const NODE_SLOTS: usize = 8;

/// Counters, one for each key seen. Keys must come from a bounded set: none is ever forgotten.
#[derive(Debug)]
pub(super) struct Counts<K>(OnceLock<Box<Node<K>>>);

#[derive(Debug)]
struct Node<K> {
    slots: [Slot<K>; NODE_SLOTS],
    next: Counts<K>,
}

#[derive(Debug)]
struct Slot<K> {
    key: OnceLock<K>,
    count: AtomicU64,
}

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<K: Copy + Eq> Counts<K> {
    /// Adds one to the counter of `key`.
    pub(super) fn add_one(&self, key: K) {
        let mut list = self;
        loop {
            let node = list.0.get_or_init(Box::default);
            // The first free slot becomes the key's own, unless another thread's key is faster.
            if let Some(slot) = node.slots.iter().find(|slot| *slot.key.get_or_init(|| key) == key) {
                slot.count.fetch_add(1, Ordering::Relaxed);
                return;
            }
            list = &node.next;
        }
    }

    /// Each key with its count, in the order of first use.
    pub(super) fn iter(&self) -> impl Iterator<Item = (K, u64)> {
        let first = self.0.get();
        let nodes = std::iter::successors(first, |node| node.next.0.get());
        nodes
            .flat_map(|node| &node.slots)
            .filter_map(|slot| slot.key.get().map(|key| (*key, slot.count.load(Ordering::Relaxed))))
    }
}

impl<K> Default for Node<K> {
    fn default() -> Self {
        Self { slots: Default::default(), next: Counts::default() }
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
