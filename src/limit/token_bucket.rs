//! The token bucket, as GCRA: one number a key, the time at which the bucket is full again.

use super::cells::Tat;
use super::{Decision, Verdict};

/// A bucket of `burst` tokens that fills at a rate. Every request takes its cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBucket {
    amount: u64,
    period: u64,
    burst: u64,
    /// The time in which an empty bucket fills.
    depth: u64,
}

impl TokenBucket {
    /// `amount` tokens come in `period` nanoseconds; `burst` have room. None may be zero.
    pub fn new(amount: u64, period: u64, burst: u64) -> Self {
        let mut bucket = Self { amount, period, burst, depth: 0 };
        bucket.depth = bucket.time(burst);
        bucket
    }

    /// How many have room.
    pub fn burst(&self) -> u64 {
        self.burst
    }

    /// The time in which so many tokens come.
    pub fn time(&self, tokens: u64) -> u64 {
        let time = u128::from(tokens) * u128::from(self.period) / u128::from(self.amount.max(1));
        u64::try_from(time).unwrap_or(u64::MAX / 4)
    }

    /// Takes `cost` tokens if they are there.
    pub fn take(&self, cell: &mut Tat, cost: u64, now: u64) -> Decision {
        let full_at = cell.0.max(now).saturating_add(self.time(cost));
        let missing = (full_at - now).saturating_sub(self.depth);
        if missing > 0 {
            return Decision { verdict: Verdict::Refuse(missing), ..self.look(cell, now) };
        }
        cell.0 = full_at;
        self.look(cell, now)
    }

    /// Takes tokens whether they are there or not: what is missing is owed.
    pub fn charge(&self, cell: &mut Tat, cost: u64, now: u64) {
        cell.0 = cell.0.max(now).saturating_add(self.time(cost));
    }

    /// Puts tokens back.
    pub fn give_back(&self, cell: &mut Tat, cost: u64) {
        cell.0 = cell.0.saturating_sub(self.time(cost));
    }

    /// How it stands.
    pub fn look(&self, cell: &Tat, now: u64) -> Decision {
        let reset = cell.0.saturating_sub(now);
        let room = u128::from(self.depth.saturating_sub(reset));
        // Rounded to the nearest: times are whole nanoseconds.
        let tokens =
            (room * u128::from(self.amount) + u128::from(self.period) / 2) / u128::from(self.period.max(1));
        Decision {
            verdict: Verdict::Pass,
            remaining: u64::try_from(tokens).unwrap_or(u64::MAX).min(self.burst),
            reset,
        }
    }
}
