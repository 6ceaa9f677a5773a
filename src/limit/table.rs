//! Cells by key, with a most.
//!
//! A part is one array that is probed in order (linear probing with backward shift): an entry is a hash and its cell, one or
//! two cache lines away. It grows as keys come, forgetting first those that are as good as new.

use std::sync::OnceLock;

use parking_lot::Mutex;

/// What is kept of a key.
pub trait Cell: Default + Send {
    /// The time from which it is as good as a new one. `u64::MAX` where it may not be forgotten at all.
    fn idle_at(&self) -> u64;
}

/// Cells by the hash of their key, so many at most.
pub struct Table<C> {
    /// Made when the first key comes: many limits never see one.
    parts: OnceLock<Box<[Padded<C>]>>,
    count: usize,
    /// How many keys a part may have.
    most: usize,
}

/// Two parts do not share a cache line.
#[repr(align(64))]
struct Padded<C>(Mutex<Part<C>>);

struct Part<C> {
    /// A key of zero is none.
    entries: Vec<Entry<C>>,
    used: usize,
}

#[derive(Default)]
struct Entry<C> {
    key: u128,
    cell: C,
}

/// How many keys a part is made for, and how many parts there may be.
const PART: usize = 1024;
const MOST_PARTS: usize = 128;
/// How many are looked at for one that can go.
const SAMPLE: usize = 8;
/// Room that the first key makes.
const FIRST: usize = 8;

impl<C: Cell> Table<C> {
    /// A table for so many keys at most. It takes memory as they come.
    pub fn new(max_keys: usize) -> Self {
        let count = (max_keys / PART).clamp(1, MOST_PARTS);
        Self { parts: OnceLock::new(), count, most: max_keys.div_ceil(count).max(1) }
    }

    /// What a key takes at most, in bytes, when the table is full.
    pub const fn bytes_per_key() -> usize {
        size_of::<Entry<C>>() * 5 / 4
    }

    /// Works on the cell of a key, a new one if there is none. `None` when there is no room: none of the cells that were
    /// looked at may be forgotten.
    pub fn with<R>(&self, key: u128, now: u64, work: impl FnOnce(&mut C) -> R) -> Option<R> {
        let key = key.max(1);
        let mut part = self.part(key).lock();
        let at = match part.find(key) {
            Some(at) => at,
            None => part.add(key, self.most, now)?,
        };
        part.entries.get_mut(at).map(|entry| work(&mut entry.cell))
    }

    /// Works on the cell of a key if there is one.
    pub fn known<R>(&self, key: u128, work: impl FnOnce(&mut C) -> R) -> Option<R> {
        let key = key.max(1);
        let mut part = self.part(key).lock();
        let at = part.find(key)?;
        part.entries.get_mut(at).map(|entry| work(&mut entry.cell))
    }

    /// Works on the cell of a key if there is one, and forgets it when the work says so.
    pub fn leave(&self, key: u128, work: impl FnOnce(&mut C) -> bool) {
        let key = key.max(1);
        let mut part = self.part(key).lock();
        if let Some(at) = part.find(key)
            && part.entries.get_mut(at).is_some_and(|entry| work(&mut entry.cell))
        {
            part.remove(at);
        }
    }

    /// How many keys it has.
    pub fn len(&self) -> usize {
        self.there().iter().map(|part| part.0.lock().used).sum()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes that it takes, beside what cells hold elsewhere.
    pub fn bytes(&self) -> usize {
        let bytes = |part: &Padded<C>| part.0.lock().entries.capacity() * size_of::<Entry<C>>();
        self.there().iter().map(bytes).sum::<usize>() + size_of_val(self.there())
    }

    fn part(&self, key: u128) -> &Mutex<Part<C>> {
        let part = || Padded(Mutex::new(Part { entries: Vec::new(), used: 0 }));
        let parts = self.parts.get_or_init(|| (0..self.count).map(|_| part()).collect());
        &parts[scaled((key >> 64) as u64, self.count)].0
    }

    fn there(&self) -> &[Padded<C>] {
        self.parts.get().map(|parts| &**parts).unwrap_or_default()
    }
}

/// A number out of 64 bits as one below `count`, evenly.
fn scaled(bits: u64, count: usize) -> usize {
    ((u128::from(bits) * count as u128) >> 64) as usize
}

impl<C: Cell> Part<C> {
    fn home(&self, key: u128) -> usize {
        scaled(key as u64, self.entries.len())
    }

    fn next(&self, at: usize) -> usize {
        if at + 1 == self.entries.len() { 0 } else { at + 1 }
    }

    fn find(&self, key: u128) -> Option<usize> {
        if self.entries.is_empty() {
            return None;
        }
        let mut at = self.home(key);
        // There is always an entry without a key.
        loop {
            match self.entries[at].key {
                known if known == key => return Some(at),
                0 => return None,
                _ => at = self.next(at),
            }
        }
    }

    fn add(&mut self, key: u128, most: usize, now: u64) -> Option<usize> {
        if self.used >= most {
            self.evict()?;
        }
        // Four fifths of the room are used.
        if (self.used + 1) * 5 > self.entries.len() * 4 {
            self.grow(most, now);
        }
        Some(self.place(Entry { key, cell: C::default() }))
    }

    fn place(&mut self, entry: Entry<C>) -> usize {
        let mut at = self.home(entry.key);
        while self.entries[at].key != 0 {
            at = self.next(at);
        }
        self.entries[at] = entry;
        self.used += 1;
        at
    }

    /// Forgets what is as good as new, and makes room where that was not much.
    fn grow(&mut self, most: usize, now: u64) {
        let old = std::mem::take(&mut self.entries);
        let kept: Vec<Entry<C>> =
            old.into_iter().filter(|entry| entry.key != 0 && entry.cell.idle_at() > now).collect();
        let full = most * 5 / 4 + 2;
        let wanted = ((kept.len() + 1) * 2).clamp(FIRST, full.max(FIRST));
        self.used = 0;
        self.entries.reserve_exact(wanted);
        self.entries.resize_with(wanted, Entry::default);
        for entry in kept {
            self.place(entry);
        }
    }

    /// Forgets the least useful of a few.
    fn evict(&mut self) -> Option<()> {
        let mut at = fastrand::usize(..self.entries.len());
        let mut least: Option<(u64, usize)> = None;
        let mut seen = 0;
        for _ in 0..self.entries.len() {
            if seen == SAMPLE {
                break;
            }
            let entry = &self.entries[at];
            if entry.key != 0 {
                seen += 1;
                let idle_at = entry.cell.idle_at();
                if idle_at != u64::MAX && least.is_none_or(|(known, _)| idle_at < known) {
                    least = Some((idle_at, at));
                }
            }
            at = self.next(at);
        }
        least.map(|(_, at)| self.remove(at))
    }

    /// Takes an entry out, and moves those that had to go further because of it.
    fn remove(&mut self, gap: usize) {
        let count = self.entries.len();
        let distance = |from: usize, to: usize| (to + count - from) % count;
        self.used -= 1;
        self.entries[gap] = Entry::default();
        let (mut gap, mut at) = (gap, self.next(gap));
        while self.entries[at].key != 0 {
            if distance(self.home(self.entries[at].key), at) >= distance(gap, at) {
                self.entries.swap(gap, at);
                gap = at;
            }
            at = self.next(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::limit::{Tat, TokenBucket};

    fn spread(key: u64) -> u128 {
        u128::from(key.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15)) << 64
            | u128::from(key.wrapping_add(7).wrapping_mul(0xC2B2_AE3D_27D4_EB4F))
    }

    proptest! {
        #[test]
        fn it_keeps_what_a_map_keeps(steps in prop::collection::vec((0u64..60, prop::bool::weighted(0.3)), 1..400)) {
            let (table, mut map) = (Table::<Tat>::new(64), HashMap::new());
            for (step, (key, leaves)) in steps.into_iter().enumerate() {
                let value = step as u64 + 1;
                if leaves {
                    table.leave(spread(key), |_| true);
                    map.remove(&key);
                } else {
                    table.with(spread(key), 0, |cell| cell.0 = value).unwrap();
                    map.insert(key, value);
                }
                prop_assert_eq!(table.len(), map.len());
            }
            for key in 0..60 {
                prop_assert_eq!(table.known(spread(key), |cell| cell.0), map.get(&key).copied());
            }
        }
    }

    #[test]
    fn memory_is_bounded_whatever_comes() {
        // Ten million before a million are in `benches/limit.rs`.
        let table = Table::<Tat>::new(5000);
        let bucket = TokenBucket::new(10, 1_000_000_000, 10);
        for key in 0..500_000u64 {
            table.with(spread(key), key, |cell| bucket.take(cell, 1, key)).unwrap();
        }
        let most = 5000 * Table::<Tat>::bytes_per_key();
        assert!((4500..=5004).contains(&table.len()), "{}", table.len());
        assert!(table.bytes() < most + most / 10, "{} of {most}", table.bytes());
        assert!(Table::<Tat>::bytes_per_key() <= 40);
    }

    #[test]
    fn a_flood_of_keys_does_not_forget_the_busy_one() {
        let table = Table::<Tat>::new(4096);
        let bucket = TokenBucket::new(10, 1_000_000_000, 100);
        let busy = spread(u64::MAX / 2);
        let spend =
            |table: &Table<Tat>, key, now| table.with(key, now, |cell| bucket.take(cell, 1, now)).unwrap();
        for _ in 0..100 {
            assert!(!spend(&table, busy, 0).refused());
        }
        for key in 0..300_000u64 {
            spend(&table, spread(key), 1000);
        }
        assert!(spend(&table, busy, 1000).refused());
    }

    #[test]
    fn what_is_as_good_as_new_takes_no_room() {
        let table = Table::<Tat>::new(1_000_000);
        for key in 0..200_000u64 {
            table.with(spread(key), key * 1000, |cell| cell.0 = key * 1000 + 10).unwrap();
        }
        assert!(table.bytes() < 2_000_000, "{}", table.bytes());
    }

    #[test]
    fn what_may_not_be_forgotten_is_not() {
        let table = Table::<Tat>::new(3);
        for key in 0..3 {
            table.with(spread(key), 0, |cell| cell.0 = u64::MAX).unwrap();
        }
        assert_eq!(table.with(spread(9), 0, |_| ()), None);
        table.leave(spread(1), |_| true);
        assert_eq!(table.with(spread(9), 0, |_| ()), Some(()));
    }
}
