//! The leaky bucket as a queue: requests leave at an even pace, and each is told how long it has to wait.

use super::cells::Tat;
use super::token_bucket::TokenBucket;
use super::{Decision, Verdict};

/// A queue that lets `amount` through in `period`, evenly, and in which nobody waits longer than a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeakyBucket {
    pace: TokenBucket,
    max_wait: u64,
    /// How many can be in the queue.
    room: u64,
}

impl LeakyBucket {
    /// `amount` leave in `period` nanoseconds, and nobody waits for more than `max_wait`.
    pub fn new(amount: u64, period: u64, max_wait: u64) -> Self {
        let pace = TokenBucket::new(amount, period, 1);
        let room = u128::from(max_wait) * u128::from(amount) / u128::from(period.max(1)) + 1;
        Self { pace, max_wait, room: u64::try_from(room).unwrap_or(u64::MAX) }
    }

    /// How many can be in the queue, the one that leaves at once among them.
    pub fn room(&self) -> u64 {
        self.room
    }

    /// Joins the queue where the wait is not too long.
    pub fn join(&self, cell: &mut Tat, cost: u64, now: u64) -> Decision {
        let leaves = cell.0.max(now);
        let wait = leaves - now;
        if wait > self.max_wait {
            return Decision { verdict: Verdict::Refuse(wait - self.max_wait), ..self.look(cell, now) };
        }
        cell.0 = leaves.saturating_add(self.pace.time(cost));
        let verdict = if wait == 0 { Verdict::Pass } else { Verdict::Wait(wait) };
        Decision { verdict, ..self.look(cell, now) }
    }

    /// Takes a place in the queue back, or adds to what is ahead of the next.
    pub(super) fn pace(&self) -> &TokenBucket {
        &self.pace
    }

    /// How it stands.
    pub fn look(&self, cell: &Tat, now: u64) -> Decision {
        let ahead = cell.0.saturating_sub(now);
        let each = self.pace.time(1).max(1);
        let remaining = match self.max_wait.checked_sub(ahead) {
            Some(left) => left / each + 1,
            None => 0,
        };
        Decision { verdict: Verdict::Pass, remaining: remaining.min(self.room), reset: ahead }
    }
}
