//! Rates by key: an algorithm over a table of its cells.

use std::time::{Duration, Instant};

use super::cells::{Log, Tally, Tat, Windows};
use super::fixed_window::FixedWindow;
use super::leaky_bucket::LeakyBucket;
use super::sliding_log::SlidingLog;
use super::sliding_window::SlidingWindow;
use super::table::Table;
use super::token_bucket::TokenBucket;
use super::{Clock, Decision, Verdict};

/// How it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// [`TokenBucket`].
    TokenBucket,
    /// [`LeakyBucket`].
    LeakyBucket,
    /// [`FixedWindow`].
    FixedWindow,
    /// [`SlidingWindow`].
    SlidingWindow,
    /// [`SlidingLog`].
    SlidingLog,
}

/// How much a key may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Tokens from a bucket.
    TokenBucket(TokenBucket),
    /// Places in a queue.
    LeakyBucket(LeakyBucket),
    /// So many in a window.
    FixedWindow(FixedWindow),
    /// So many in any window, nearly.
    SlidingWindow(SlidingWindow),
    /// So many in any window.
    SlidingLog(SlidingLog),
}

/// Cells of one algorithm by key, and the clock that they go by.
pub struct Limiter {
    cells: Cells,
    clock: Clock,
}

enum Cells {
    Tat(Table<Tat>),
    Tally(Table<Tally>),
    Windows(Table<Windows>),
    Log(Table<Log>),
}

impl Policy {
    /// `amount` in `period` by an algorithm; `burst` is for token buckets and `max_wait` for leaky ones.
    pub fn new(algorithm: Algorithm, amount: u64, period: Duration, burst: u64, max_wait: Duration) -> Self {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 4);
        let (period, max_wait) = (nanos(period), nanos(max_wait));
        match algorithm {
            Algorithm::TokenBucket => Self::TokenBucket(TokenBucket::new(amount, period, burst)),
            Algorithm::LeakyBucket => Self::LeakyBucket(LeakyBucket::new(amount, period, max_wait)),
            Algorithm::FixedWindow => Self::FixedWindow(FixedWindow::new(amount, period)),
            Algorithm::SlidingWindow => Self::SlidingWindow(SlidingWindow::new(amount, period)),
            Algorithm::SlidingLog => Self::SlidingLog(SlidingLog::new(amount, period)),
        }
    }
}

impl Limiter {
    /// Room for so many keys of an algorithm.
    pub fn new(algorithm: Algorithm, max_keys: usize) -> Self {
        let cells = match algorithm {
            Algorithm::TokenBucket | Algorithm::LeakyBucket => Cells::Tat(Table::new(max_keys)),
            Algorithm::FixedWindow => Cells::Tally(Table::new(max_keys)),
            Algorithm::SlidingWindow => Cells::Windows(Table::new(max_keys)),
            Algorithm::SlidingLog => Cells::Log(Table::new(max_keys)),
        };
        Self { cells, clock: Clock::start() }
    }

    /// The time by its clock.
    pub fn now(&self) -> u64 {
        self.clock.now()
    }

    /// The time that it was then.
    pub fn at(&self, then: Instant) -> u64 {
        self.clock.at(then)
    }

    /// How many keys it knows.
    pub fn keys(&self) -> usize {
        match &self.cells {
            Cells::Tat(table) => table.len(),
            Cells::Tally(table) => table.len(),
            Cells::Windows(table) => table.len(),
            Cells::Log(table) => table.len(),
        }
    }

    /// Takes `cost` of what a key may have.
    pub fn take(&self, policy: &Policy, key: u128, cost: u64, now: u64) -> Decision {
        let decision = match (policy, &self.cells) {
            (Policy::TokenBucket(policy), Cells::Tat(table)) => {
                table.with(key, now, |cell| policy.take(cell, cost, now))
            }
            (Policy::LeakyBucket(policy), Cells::Tat(table)) => {
                table.with(key, now, |cell| policy.join(cell, cost, now))
            }
            (Policy::FixedWindow(policy), Cells::Tally(table)) => {
                table.with(key, now, |cell| policy.take(cell, cost, now))
            }
            (Policy::SlidingWindow(policy), Cells::Windows(table)) => {
                table.with(key, now, |cell| policy.take(cell, cost, now))
            }
            (Policy::SlidingLog(policy), Cells::Log(table)) => {
                table.with(key, now, |cell| policy.take(cell, cost, now))
            }
            _ => None,
        };
        // Every one of these cells may be forgotten, so there is always room.
        decision.unwrap_or(Decision { verdict: Verdict::Pass, remaining: 0, reset: 0 })
    }

    /// Takes `cost` whether it is there or not.
    pub fn charge(&self, policy: &Policy, key: u128, cost: u64, now: u64) {
        match (policy, &self.cells) {
            (Policy::TokenBucket(policy), Cells::Tat(table)) => {
                table.with(key, now, |cell| policy.charge(cell, cost, now));
            }
            (Policy::LeakyBucket(policy), Cells::Tat(table)) => {
                table.with(key, now, |cell| policy.pace().charge(cell, cost, now));
            }
            (Policy::FixedWindow(policy), Cells::Tally(table)) => {
                table.with(key, now, |cell| policy.charge(cell, cost, now));
            }
            (Policy::SlidingWindow(policy), Cells::Windows(table)) => {
                table.with(key, now, |cell| policy.charge(cell, cost, now));
            }
            (Policy::SlidingLog(policy), Cells::Log(table)) => {
                table.with(key, now, |cell| policy.charge(cell, cost, now));
            }
            _ => {}
        }
    }

    /// Takes over what is known elsewhere: what is left of a key, and when all is back.
    pub fn learn(&self, policy: &Policy, key: u128, known: Decision, now: u64) {
        let until = now.saturating_add(known.reset);
        match (policy, &self.cells) {
            (Policy::TokenBucket(_), Cells::Tat(table)) => {
                table.with(key, now, |cell| cell.0 = until);
            }
            (Policy::FixedWindow(policy), Cells::Tally(table)) => {
                let used = policy.amount().saturating_sub(known.remaining);
                table.with(key, now, |cell| *cell = Tally { ends: until, used });
            }
            (Policy::SlidingWindow(policy), Cells::Windows(table)) => {
                let used = policy.amount().saturating_sub(known.remaining);
                table.with(key, now, |cell| {
                    *cell = Windows::default();
                    policy.charge(cell, used, now);
                });
            }
            _ => {}
        }
    }

    /// Gives back what was taken at `taken`.
    pub fn give_back(&self, policy: &Policy, key: u128, cost: u64, taken: u64) {
        match (policy, &self.cells) {
            (Policy::TokenBucket(policy), Cells::Tat(table)) => {
                table.known(key, |cell| policy.give_back(cell, cost));
            }
            (Policy::LeakyBucket(policy), Cells::Tat(table)) => {
                table.known(key, |cell| policy.pace().give_back(cell, cost));
            }
            (Policy::FixedWindow(policy), Cells::Tally(table)) => {
                table.known(key, |cell| policy.give_back(cell, cost, taken));
            }
            (Policy::SlidingWindow(policy), Cells::Windows(table)) => {
                table.known(key, |cell| policy.give_back(cell, cost, taken));
            }
            (Policy::SlidingLog(policy), Cells::Log(table)) => {
                table.known(key, |cell| policy.give_back(cell, cost));
            }
            _ => {}
        }
    }
}
