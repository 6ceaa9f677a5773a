//! What is kept of one key.

use std::collections::VecDeque;

use super::table::Cell;

/// Of buckets: the time at which one is as good as new.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tat(pub u64);

/// Of fixed windows: one window's count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// When the window ends.
    pub ends: u64,
    /// How much was used in it.
    pub used: u64,
}

/// Of sliding windows: the count of two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Windows {
    /// When the window after the current one ends: until then the current one counts.
    pub counts_until: u64,
    /// How much was used in the window before.
    pub before: u32,
    /// How much was used in this one.
    pub used: u32,
}

/// Of sliding logs: the arrivals.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// When some are forgotten and how much they took, the oldest first.
    pub until: VecDeque<(u64, u64)>,
    /// How much all of them took.
    pub used: u64,
}

impl Cell for Tat {
    fn idle_at(&self) -> u64 {
        self.0
    }
}

impl Cell for Tally {
    fn idle_at(&self) -> u64 {
        self.ends
    }
}

impl Cell for Windows {
    fn idle_at(&self) -> u64 {
        self.counts_until
    }
}

impl Cell for Log {
    fn idle_at(&self) -> u64 {
        self.until.back().map_or(0, |(until, _)| *until)
    }
}
