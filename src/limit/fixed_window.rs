//! Fixed windows: so many from the beginning of a window to its end.

use super::cells::Tally;
use super::{Decision, Verdict};

/// `amount` in each window of `period`. Windows begin with multiples of the period since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedWindow {
    amount: u64,
    period: u64,
}

impl FixedWindow {
    /// `amount` in each `period` nanoseconds; neither may be zero.
    pub fn new(amount: u64, period: u64) -> Self {
        Self { amount, period: period.max(1) }
    }

    /// How much there is in a window.
    pub fn amount(&self) -> u64 {
        self.amount
    }

    /// Takes `cost` of what is left in this window.
    pub fn take(&self, cell: &mut Tally, cost: u64, now: u64) -> Decision {
        self.turn(cell, now);
        if cell.used.saturating_add(cost) > self.amount {
            return Decision { verdict: Verdict::Refuse(cell.ends - now), ..self.look(cell, now) };
        }
        cell.used += cost;
        self.look(cell, now)
    }

    /// Takes it whether it is there or not.
    pub fn charge(&self, cell: &mut Tally, cost: u64, now: u64) {
        self.turn(cell, now);
        cell.used = cell.used.saturating_add(cost);
    }

    /// Gives back what was taken at `taken`, if that was in this window.
    pub fn give_back(&self, cell: &mut Tally, cost: u64, taken: u64) {
        if cell.ends == self.end(taken) {
            cell.used = cell.used.saturating_sub(cost);
        }
    }

    /// How it stands.
    pub fn look(&self, cell: &Tally, now: u64) -> Decision {
        let used = if cell.ends > now { cell.used } else { 0 };
        let ends = self.end(now);
        Decision { verdict: Verdict::Pass, remaining: self.amount.saturating_sub(used), reset: ends - now }
    }

    fn turn(&self, cell: &mut Tally, now: u64) {
        if cell.ends <= now {
            *cell = Tally { ends: self.end(now), used: 0 };
        }
    }

    fn end(&self, at: u64) -> u64 {
        (at / self.period + 1).saturating_mul(self.period)
    }
}
