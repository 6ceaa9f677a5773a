//! How many at once.

use std::sync::Arc;

use super::table::{Cell, Table};

/// Of how many at once: how many there are.
#[derive(Debug, Default)]
struct Count(u64);

impl Cell for Count {
    /// Whoever is there is never forgotten.
    fn idle_at(&self) -> u64 {
        if self.0 == 0 { 0 } else { u64::MAX }
    }
}

/// Who is there, by key.
pub struct Slots(Table<Count>);

/// A place that is taken until this is dropped.
pub struct Held {
    slots: Arc<Slots>,
    key: u128,
}

impl Slots {
    /// Places for so many keys at once.
    pub fn new(max_keys: usize) -> Self {
        Self(Table::new(max_keys))
    }

    /// Takes a place where fewer than `limit` are taken. Where there are as many keys as may be, there is none.
    pub fn take(self: &Arc<Self>, key: u128, limit: u64) -> Option<Held> {
        let taken = self.0.with(key, 0, |count| {
            let free = count.0 < limit;
            count.0 += u64::from(free);
            free
        });
        if taken == Some(false) || taken.is_none() {
            return None;
        }
        Some(Held { slots: Arc::clone(self), key })
    }

    /// Takes a place even where none is free.
    pub fn force(self: &Arc<Self>, key: u128) -> Option<Held> {
        self.take(key, u64::MAX)
    }

    /// How many keys have someone there.
    pub fn keys(&self) -> usize {
        self.0.len()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.slots.0.leave(self.key, |count| {
            count.0 = count.0.saturating_sub(1);
            count.0 == 0
        });
    }
}
