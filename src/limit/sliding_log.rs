//! The sliding log: the count of any window, at the price of remembering arrivals.
//!
//! A key takes sixteen bytes for each arrival, whatever it cost, and [`MOST`] of those at most. When there would be more, its
//! arrivals are put together by parts of the period, and each counts until the end of its part: too long rather than not
//! long enough, so that no window ever has more than the amount.

use super::cells::Log;
use super::table::Table;
use super::{Decision, Verdict};

/// How many arrivals are told apart.
const MOST: usize = 128;
/// How many parts a period has where arrivals are put together.
const PARTS: u64 = 64;

/// `amount` in any `period`: exactly for as many arrivals as are told apart.
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

    /// The most that a key of `amount` takes, in bytes: its cell, and the arrivals it may come to have, for which there is
    /// room in powers of two.
    pub fn most_bytes(amount: u64) -> usize {
        let arrivals = usize::try_from(amount.saturating_mul(2)).unwrap_or(MOST).clamp(4, MOST);
        Table::<Log>::bytes_per_key() + arrivals.next_power_of_two() * size_of::<(u64, u64)>()
    }

    /// Takes `cost` of what is left.
    pub fn take(&self, cell: &mut Log, cost: u64, now: u64) -> Decision {
        forget(cell, now);
        // So much of the oldest has to go.
        let over = cell.used.saturating_add(cost).saturating_sub(self.amount);
        if over > 0 {
            let mut gone = 0;
            let enough = cell.until.iter().find(|(_, count)| {
                gone += count;
                gone >= over
            });
            let until = enough.or(cell.until.back()).map_or(now + self.period, |(until, _)| *until);
            let retry = until.saturating_sub(now).max(1);
            return Decision { verdict: Verdict::Refuse(retry), ..self.look(cell, now) };
        }
        self.charge(cell, cost, now);
        self.look(cell, now)
    }

    /// Takes it whether it is there or not; twice the amount at most.
    pub fn charge(&self, cell: &mut Log, cost: u64, now: u64) {
        forget(cell, now);
        let count = cost.min((2 * self.amount).saturating_sub(cell.used));
        if count == 0 {
            return;
        }
        if cell.until.len() >= MOST {
            self.put_together(cell);
        }
        cell.used += count;
        let until = now + self.period;
        match cell.until.back_mut() {
            Some((last, there)) if *last >= until => *there += count,
            _ => cell.until.push_back((until, count)),
        }
    }

    /// Gives back what was taken last.
    pub fn give_back(&self, cell: &mut Log, cost: u64) {
        let mut left = cost;
        while left > 0
            && let Some((_, count)) = cell.until.back_mut()
        {
            let back = left.min(*count);
            (*count, left, cell.used) = (*count - back, left - back, cell.used - back);
            if *count == 0 {
                cell.until.pop_back();
            }
        }
    }

    /// How it stands.
    pub fn look(&self, cell: &Log, now: u64) -> Decision {
        let over = cell.until.iter().take_while(|(until, _)| *until <= now).map(|(_, count)| count);
        let used = cell.used - over.sum::<u64>();
        let last = cell.until.back().map_or(0, |(until, _)| *until);
        Decision {
            verdict: Verdict::Pass,
            remaining: self.amount.saturating_sub(used),
            reset: last.saturating_sub(now),
        }
    }

    /// Leaves one of each part. The parts are always the same, so nothing is put off twice.
    fn put_together(&self, cell: &mut Log) {
        let part = self.period.div_ceil(PARTS);
        let mut kept = 0;
        for at in 0..cell.until.len() {
            let (until, count) = cell.until[at];
            let until = until.div_ceil(part).saturating_mul(part);
            if kept > 0 && cell.until[kept - 1].0 == until {
                cell.until[kept - 1].1 += count;
            } else {
                cell.until[kept] = (until, count);
                kept += 1;
            }
        }
        cell.until.truncate(kept);
    }
}

fn forget(cell: &mut Log, now: u64) {
    while let Some((_, count)) = cell.until.pop_front_if(|(until, _)| *until <= now) {
        cell.used -= count;
    }
    if cell.until.is_empty() {
        cell.until.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: u64 = 3_600_000_000_000;

    #[test]
    fn a_log_takes_no_more_memory_than_it_may() {
        let log = SlidingLog::new(10_000, HOUR);
        let mut cell = Log::default();
        assert!(!log.take(&mut cell, 10_000, HOUR).refused());
        assert_eq!(cell.until, [(2 * HOUR, 10_000)], "what it cost is a number");
        let mut cell = Log::default();
        for step in 0..100_000 {
            log.charge(&mut cell, 1, HOUR + step * HOUR / 20_000);
            assert!(cell.until.capacity() <= MOST, "{} after {step}", cell.until.capacity());
            assert_eq!(cell.used, cell.until.iter().map(|(_, count)| count).sum::<u64>());
        }
    }

    #[test]
    fn a_key_takes_no_more_than_is_said() {
        assert_eq!([1, 2, 3, 64, 10_000].map(SlidingLog::most_bytes), [144, 144, 208, 2128, 2128]);
        for amount in [1, 2, 3, 5, 20, 64, 500] {
            let (log, mut cell) = (SlidingLog::new(amount, HOUR), Log::default());
            for step in 0..2000 {
                log.charge(&mut cell, 1, HOUR + step * 1000);
                let bytes = Table::<Log>::bytes_per_key() + cell.until.capacity() * size_of::<(u64, u64)>();
                assert!(bytes <= SlidingLog::most_bytes(amount), "{bytes} of {amount}");
            }
        }
    }

    proptest! {
        /// However many come, no window has too many, and nobody waits longer than a part of the period too long.
        #[test]
        fn no_window_has_more_than_the_amount(gaps in prop::collection::vec(0u64..8000, 1..1000), amount in 100u64..400) {
            let (period, mut now) = (1_000_000, 50_000_000u64);
            let log = SlidingLog::new(amount, period);
            let mut cell = Log::default();
            let mut passed: Vec<u64> = Vec::new();
            for gap in gaps {
                now += gap * gap / 4000;
                let within = |time: u64| passed.iter().rev().take_while(|at| **at + time > now).count() as u64;
                let (exact, longer) = (within(period), within(period + period / PARTS + 2));
                let refused = log.take(&mut cell, 1, now).refused();
                if exact >= amount {
                    prop_assert!(refused);
                }
                if longer < amount {
                    prop_assert!(!refused, "{} of {}", longer, amount);
                }
                if !refused {
                    passed.push(now);
                }
                prop_assert!(cell.until.len() <= MOST);
            }
        }
    }
}
