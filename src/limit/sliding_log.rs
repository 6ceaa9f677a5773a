//! The sliding log: the exact count of any window, at the price of remembering every arrival.

use super::cells::Log;
use super::{Decision, Verdict};

/// `amount` in any `period`, exactly. A key takes eight bytes for each that it has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlidingLog {
    amount: u64,
    period: u64,
}

impl SlidingLog {
    /// `amount` in any `period` nanoseconds; neither may be zero.
    pub fn new(amount: u64, period: u64) -> Self {
        Self { amount, period: period.max(1) }
    }

    /// Takes `cost` of what is left.
    pub fn take(&self, cell: &mut Log, cost: u64, now: u64) -> Decision {
        forget(cell, now);
        let used = cell.until.len() as u64;
        if used.saturating_add(cost) > self.amount {
            // So many of the oldest have to go.
            let over = used.saturating_add(cost) - self.amount;
            let at = usize::try_from(over - 1).unwrap_or(usize::MAX);
            let until = cell.until.get(at).or(cell.until.back()).copied();
            let retry = until.unwrap_or(now + self.period).saturating_sub(now).max(1);
            return Decision { verdict: Verdict::Refuse(retry), ..self.look(cell, now) };
        }
        self.charge(cell, cost, now);
        self.look(cell, now)
    }

    /// Takes it whether it is there or not; twice the amount at most.
    pub fn charge(&self, cell: &mut Log, cost: u64, now: u64) {
        let room = (2 * self.amount).saturating_sub(cell.until.len() as u64);
        let until = cell.until.back().copied().unwrap_or_default().max(now + self.period);
        cell.until.extend((0..cost.min(room)).map(|_| until));
    }

    /// Gives back what was taken last.
    pub fn give_back(&self, cell: &mut Log, cost: u64) {
        let left = cell.until.len().saturating_sub(usize::try_from(cost).unwrap_or(usize::MAX));
        cell.until.truncate(left);
    }

    /// How it stands.
    pub fn look(&self, cell: &Log, now: u64) -> Decision {
        let used = cell.until.iter().rev().take_while(|until| **until > now).count() as u64;
        let last = cell.until.back().copied().unwrap_or_default();
        Decision {
            verdict: Verdict::Pass,
            remaining: self.amount.saturating_sub(used),
            reset: last.saturating_sub(now),
        }
    }
}

fn forget(cell: &mut Log, now: u64) {
    while cell.until.front().is_some_and(|until| *until <= now) {
        cell.until.pop_front();
    }
    if cell.until.is_empty() {
        cell.until.shrink_to_fit();
    }
}
