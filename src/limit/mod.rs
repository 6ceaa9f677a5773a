//! How much of something may be had: the counting behind `rate_limit`, `concurrency` and `quota`.
//!
//! 1. The algorithms ([`TokenBucket`], [`LeakyBucket`], [`FixedWindow`], [`SlidingWindow`], [`SlidingLog`]) are sums over
//!    a cell of one key and the time; they keep nothing and read no clock.
//! 2. A [`Table`] keeps the cells, by a hash of 128 bits with seeds of its own: a key is never stored, and nobody can
//!    make two keys meet. It is cut into many parts with a lock each.
//! 3. A table has a most of keys. One more takes the place of the least useful of a few that are looked at: of the one
//!    that would be as good as new the soonest. What that key had used is forgotten; no other key is touched.
//! 4. Time is nanoseconds since 1970 by a clock that never goes back; windows begin with the hours and days of UTC.

mod account;
mod cells;
mod clock;
mod cost;
mod credit;
mod fixed_window;
mod key;
mod leaky_bucket;
mod limiter;
mod overrides;
mod shared;
mod sliding_log;
mod sliding_window;
mod slots;
mod table;
mod token_bucket;
mod told;
mod variants;

pub use cells::{Log, Tally, Tat, Windows};
pub use clock::Clock;
pub use cost::{Cost, Price};
pub use credit::{Credit, Debtor};
pub use fixed_window::FixedWindow;
pub use key::{Found, Key, KeyHash, MissingKey, Subject, Who};
pub use leaky_bucket::LeakyBucket;
pub use limiter::{Algorithm, Limiter, Policy};
pub use overrides::check_overrides;
pub use shared::{Health, OnStoreError, Shared, Terms, Unanswered, Want, mark, spell};
pub use sliding_log::SlidingLog;
pub use sliding_window::SlidingWindow;
pub use slots::{Held, Slots};
pub use table::{Cell, Table};
pub use token_bucket::TokenBucket;
pub use told::{Headers, Label, NAME, is_name, seconds, tell};
pub use variants::Variants;

/// What came of asking for some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is given.
    pub verdict: Verdict,
    /// How much more there is now.
    pub remaining: u64,
    /// When all of it will be there again if nobody asks, in nanoseconds from now.
    pub reset: u64,
}

/// Whether something is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// At once.
    Pass,
    /// After so many nanoseconds.
    Wait(u64),
    /// Not now; asking again is of use after so many nanoseconds.
    Refuse(u64),
}

impl Decision {
    /// Whether nothing is given.
    pub fn refused(&self) -> bool {
        matches!(self.verdict, Verdict::Refuse(_))
    }
}

#[cfg(test)]
mod models;
