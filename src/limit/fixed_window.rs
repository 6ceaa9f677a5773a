//! Fixed windows: so many from the beginning of a window to its end.

use super::cells::Tally;
use super::{Decision, Verdict};

/// `amount` in each window: of a period, from multiples of it since 1970, or of a month of the calendar in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedWindow {
    amount: u64,
    /// In nanoseconds; 0 is a month.
    period: u64,
}

impl FixedWindow {
    /// `amount` in each `period` nanoseconds, of which none would be too few; 0 is a month.
    pub fn new(amount: u64, period: u64) -> Self {
        Self { amount, period }
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
        match self.period {
            0 => month_end(at / DAY).saturating_mul(DAY),
            period => (at / period + 1).saturating_mul(period),
        }
    }
}

/// A day in nanoseconds.
const DAY: u64 = 86_400_000_000_000;

/// The day on which the month of a day ends, both counted from 1970.
fn month_end(day: u64) -> u64 {
    // Years begin in March, so that the day that not every year has is the last.
    const BEFORE: u64 = 719_468;
    let since = |year: u64| 365 * year + year / 4 - year / 100 + year / 400;
    let day = day + BEFORE;
    let guess = day * 400 / 146_097;
    let year = if since(guess + 1) <= day {
        guess + 1
    } else if since(guess) > day {
        guess - 1
    } else {
        guess
    };
    let of_year = day - since(year);
    let month = (5 * of_year + 2) / 153;
    let end = if month == 11 { since(year + 1) } else { since(year) + (153 * (month + 1) + 2) / 5 };
    end - BEFORE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_end_when_they_do() {
        let (mut day, mut leap) = (0, 0);
        for year in 1970..2400_u64 {
            let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            leap += u64::from(is_leap);
            for days in [31, 28 + u64::from(is_leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
                for at in [day, day + 1, day + days - 1] {
                    assert_eq!(month_end(at), day + days, "{year}");
                }
                day += days;
            }
        }
        assert!(leap > 100);
    }
}
