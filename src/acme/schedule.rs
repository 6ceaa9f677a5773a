//! When to order, renew and try again. Reads no clock and rolls no dice: both come in.

use std::time::{Duration, SystemTime};

/// The wait after the first failure. Each one after it is [`FACTOR`] times as long: within an hour a directory sees
/// four tries, fewer than the failures that public ones allow.
const FIRST: Duration = Duration::from_secs(2 * 60);
const FACTOR: u32 = 4;
/// The longest wait after a failure.
const LONGEST: Duration = Duration::from_secs(12 * 60 * 60);
/// How soon after an order the next may follow.
const AGAIN: Duration = Duration::from_secs(60 * 60);
/// The longest that a directory's `Retry-After` is believed.
const LONGEST_TOLD: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The wait after a store could not be asked, twice as long each time, and the longest.
const FIRST_AWAY: Duration = Duration::from_secs(1);
const LONGEST_AWAY: Duration = Duration::from_secs(30);
/// How often a store is looked into for what other machines have got: while a certificate is missing or has failed, and
/// otherwise.
const LOOK_SOON: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_secs(45);

/// From when until when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) from: SystemTime,
    pub(super) until: SystemTime,
}

impl Validity {
    /// When to renew: after two thirds of its life, and up to a thirtieth of it later, so that certificates which were
    /// ordered together are not renewed together. `dice` is from 0 to 1.
    pub(super) fn renew_at(self, dice: f64) -> SystemTime {
        self.after(2.0 / 3.0 + dice.clamp(0.0, 1.0) / 30.0)
    }

    /// When to renew where the directory suggests from when until when (RFC 9773, section 4.2): at any time in
    /// between, but never later than a tenth of the life before the end.
    pub(super) fn renew_in(self, window: (SystemTime, SystemTime), dice: f64) -> SystemTime {
        let (start, end) = window;
        let length = end.duration_since(start).unwrap_or_default();
        (start + length.mul_f64(dice.clamp(0.0, 1.0))).min(self.after(0.9))
    }

    /// The soonest that one ordered at `at` is renewed: a tenth of its life later, or an hour.
    pub(super) fn soonest(self, at: SystemTime) -> SystemTime {
        at + (self.until.duration_since(self.from).unwrap_or_default() / 10).min(AGAIN)
    }

    fn after(self, share: f64) -> SystemTime {
        let life = self.until.duration_since(self.from).unwrap_or_default();
        self.from + life.mul_f64(share)
    }
}

/// When to try again after the `failures`th failure in a row, at `now`. `told` is before when the directory does not
/// want to be asked. `dice`, from 0 to 1, adds up to a fifth, so that many gateways do not come at once.
pub(super) fn retry_at(failures: u32, now: SystemTime, told: Option<SystemTime>, dice: f64) -> SystemTime {
    let growth = FACTOR.saturating_pow(failures.saturating_sub(1));
    let wait = FIRST.saturating_mul(growth).min(LONGEST);
    let own = now + wait.mul_f64(1.0 + dice.clamp(0.0, 1.0) / 5.0);
    told.map_or(own, |told| told.min(now + LONGEST_TOLD).max(own))
}

/// When to ask a store again that could not be asked `tries` times in a row.
pub(super) fn ask_store_at(tries: u32, now: SystemTime, dice: f64) -> SystemTime {
    let wait = FIRST_AWAY.saturating_mul(2_u32.saturating_pow(tries.saturating_sub(1))).min(LONGEST_AWAY);
    now + wait.mul_f64(1.0 + dice.clamp(0.0, 1.0) / 5.0)
}

/// When to look into a store again, up to two thirds later than the least, so that machines do not come at once.
pub(super) fn look_at(soon: bool, now: SystemTime, dice: f64) -> SystemTime {
    let least = if soon { LOOK_SOON } else { LOOK };
    now + least.mul_f64(1.0 + dice.clamp(0.0, 1.0) * 2.0 / 3.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn day(days: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + days * DAY
    }

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_life() {
        let validity = Validity { from: day(0), until: day(90) };
        assert_eq!(validity.renew_at(0.0), day(60));
        let latest = validity.renew_at(1.0);
        assert!(latest > day(62) && latest <= day(63) + Duration::from_secs(1));
        let reversed = Validity { from: day(90), until: day(0) };
        assert_eq!(reversed.renew_at(0.5), day(90));
    }

    #[test]
    fn a_suggested_window_is_kept_to_unless_it_is_too_late() {
        let validity = Validity { from: day(0), until: day(100) };
        assert_eq!(validity.renew_in((day(40), day(50)), 0.5), day(45));
        assert_eq!(validity.renew_in((day(40), day(30)), 0.5), day(40));
        assert_eq!(validity.renew_in((day(95), day(120)), 1.0), day(90));
    }

    #[test]
    fn the_waits_grow_to_half_a_day() {
        let wait = |failures, dice| retry_at(failures, day(1), None, dice).duration_since(day(1)).unwrap();
        let minutes: Vec<u64> = (1..=7).map(|failures| wait(failures, 0.0).as_secs() / 60).collect();
        assert_eq!(minutes, [2, 8, 32, 128, 512, 720, 720]);
        assert_eq!(wait(u32::MAX, 0.0), LONGEST);
        assert_eq!(wait(1, 1.0), Duration::from_secs(144));
        let hour = Duration::from_secs(60 * 60);
        let tries_within_an_hour = 1
            + (1..)
                .scan(Duration::ZERO, |at, failures| {
                    *at += wait(failures, 0.0);
                    (*at < hour).then_some(())
                })
                .count();
        assert_eq!(tries_within_an_hour, 4);
    }

    #[test]
    fn what_a_directory_asks_for_is_honoured_within_reason() {
        let at = |told| retry_at(1, day(1), Some(told), 0.0);
        assert_eq!(at(day(2)), day(2));
        assert_eq!(at(day(0)), day(1) + FIRST);
        assert_eq!(at(day(365)), day(8));
    }
}
