//! The sliding window, by the count of two: of the window before, the part counts that the sliding one still covers.
//!
//! It takes for granted that what was used in the window before was used evenly. The exact count is the sliding log.

use super::cells::Windows;
use super::{Decision, Verdict};

/// `amount` in any `period`, nearly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlidingWindow {
    amount: u64,
    period: u64,
}

impl SlidingWindow {
    /// `amount` in any `period` nanoseconds; neither may be zero.
    pub fn new(amount: u64, period: u64) -> Self {
        Self { amount, period: period.max(1) }
    }

    /// How much there is in a window.
    pub fn amount(&self) -> u64 {
        self.amount
    }

    /// Takes `cost` of what is left.
    pub fn take(&self, cell: &mut Windows, cost: u64, now: u64) -> Decision {
        self.turn(cell, now);
        if self.used(cell, now).saturating_add(cost) > self.amount {
            let retry = self.retry(cell, cost, now);
            return Decision { verdict: Verdict::Refuse(retry), ..self.look(cell, now) };
        }
        cell.used = cell.used.saturating_add(narrow(cost));
        self.look(cell, now)
    }

    /// Takes it whether it is there or not.
    pub fn charge(&self, cell: &mut Windows, cost: u64, now: u64) {
        self.turn(cell, now);
        cell.used = cell.used.saturating_add(narrow(cost));
    }

    /// Gives back what was taken at `taken`.
    pub fn give_back(&self, cell: &mut Windows, cost: u64, taken: u64) {
        let counts_until = self.counts_until(taken);
        if cell.counts_until == counts_until {
            cell.used = cell.used.saturating_sub(narrow(cost));
        } else if cell.counts_until == counts_until.saturating_add(self.period) {
            cell.before = cell.before.saturating_sub(narrow(cost));
        }
    }

    /// How it stands.
    pub fn look(&self, cell: &Windows, now: u64) -> Decision {
        let mut turned = *cell;
        self.turn(&mut turned, now);
        let reset = match (turned.used, turned.before) {
            (0, 0) => 0,
            (0, _) => turned.counts_until - self.period - now,
            _ => turned.counts_until - now,
        };
        let remaining = self.amount.saturating_sub(self.used(&turned, now));
        Decision { verdict: Verdict::Pass, remaining, reset }
    }

    /// What counts at a time in the current window, rounded up.
    fn used(&self, cell: &Windows, now: u64) -> u64 {
        // Somebody whose time was taken later may have been first.
        let left = (cell.counts_until - self.period).saturating_sub(now).min(self.period);
        let before = u128::from(cell.before) * u128::from(left);
        let before = before.div_ceil(u128::from(self.period));
        u64::try_from(before).unwrap_or(u64::MAX).saturating_add(cell.used.into())
    }

    /// How long until `cost` is there, if nobody else takes it.
    fn retry(&self, cell: &Windows, cost: u64, now: u64) -> u64 {
        let ends = cell.counts_until - self.period;
        let room = self.amount.saturating_sub(cost);
        // In this window, the part of the one before has to shrink; in the next, that of this one.
        let (of, end) = match room.checked_sub(cell.used.into()) {
            Some(room) => ((cell.before, room), ends),
            None => ((cell.used, room), cell.counts_until),
        };
        let (count, room) = of;
        let left = u128::from(room) * u128::from(self.period) / u128::from(count.max(1));
        end.saturating_sub(u64::try_from(left).unwrap_or(u64::MAX)).saturating_sub(now).max(1)
    }

    fn turn(&self, cell: &mut Windows, now: u64) {
        let counts_until = self.counts_until(now);
        if cell.counts_until >= counts_until {
            return;
        }
        let before =
            if cell.counts_until.saturating_add(self.period) == counts_until { cell.used } else { 0 };
        *cell = Windows { counts_until, before, used: 0 };
    }

    fn counts_until(&self, at: u64) -> u64 {
        (at / self.period + 2).saturating_mul(self.period)
    }
}

fn narrow(cost: u64) -> u32 {
    u32::try_from(cost).unwrap_or(u32::MAX)
}
