//! Wall-clock time as log lines spell it. Lines come many to the second, so the spelled second is kept.

use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use httpdate::HttpDate;

use crate::telemetry::encode;

/// A time in RFC 3339, in UTC with milliseconds: `2023-11-14T22:13:20.042Z`.
pub fn rfc3339(time: SystemTime) -> Vec<u8> {
    let mut out = Vec::with_capacity(24);
    Clock::default().write_rfc3339(time, &mut out);
    out
}

/// The last second spelled: `2023-11-14T22:13:20.` and `14/Nov/2023:22:13:20 +0000`.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// Seconds since the epoch that the spellings stand for.
    second: Option<u64>,
    rfc3339: [u8; 20],
    clf: [u8; 26],
}

impl Clock {
    /// Appends RFC 3339 in UTC with milliseconds: `2023-11-14T22:13:20.042Z`.
    pub(super) fn write_rfc3339(&mut self, time: SystemTime, out: &mut Vec<u8>) {
        let millis = self.turn_to(time);
        out.extend_from_slice(&self.rfc3339);
        let [a, b, c] = encode::three_digits(millis);
        out.extend_from_slice(&[a, b, c, b'Z']);
    }

    /// Appends the Common Log Format's time without its brackets: `14/Nov/2023:22:13:20 +0000`.
    pub(super) fn write_clf(&mut self, time: SystemTime, out: &mut Vec<u8>) {
        self.turn_to(time);
        out.extend_from_slice(&self.clf);
    }

    /// Spells the second of `time` unless it is the kept one, and returns the milliseconds beyond it.
    #[inline]
    fn turn_to(&mut self, time: SystemTime) -> u32 {
        let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let second = since_epoch.as_secs().min(LAST_SECOND);
        if self.second != Some(second) {
            self.second = Some(second);
            self.spell(second);
        }
        since_epoch.subsec_millis()
    }

    #[cold]
    fn spell(&mut self, second: u64) {
        let date = HttpDate::from(UNIX_EPOCH + Duration::from_secs(second)).to_string();
        // `Tue, 14 Nov 2023 22:13:20 GMT` (RFC 9110, IMF-fixdate): every part has its place.
        let (day, month, year, time) = (&date[5..7], &date[8..11], &date[12..16], &date[17..25]);
        let number = 1 + MONTHS.iter().position(|name| *name == month).unwrap_or_default();
        // Each fits its place exactly.
        let _ = write!(&mut self.rfc3339[..], "{year}-{number:02}-{day}T{time}.");
        let _ = write!(&mut self.clf[..], "{day}/{month}/{year}:{time} +0000");
    }
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The end of the year 9998: what both spellings and `httpdate` can hold.
const LAST_SECOND: u64 = 253_370_764_799;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spelled(clock: &mut Clock, millis: u64) -> (String, String) {
        let time = UNIX_EPOCH + Duration::from_millis(millis);
        let (mut rfc3339, mut clf) = (Vec::new(), Vec::new());
        clock.write_rfc3339(time, &mut rfc3339);
        clock.write_clf(time, &mut clf);
        (String::from_utf8(rfc3339).unwrap(), String::from_utf8(clf).unwrap())
    }

    #[test]
    fn both_spellings_follow_the_second() {
        let mut clock = Clock::default();
        for (millis, rfc3339, clf) in [
            (0, "1970-01-01T00:00:00.000Z", "01/Jan/1970:00:00:00 +0000"),
            (1_700_000_000_042, "2023-11-14T22:13:20.042Z", "14/Nov/2023:22:13:20 +0000"),
            (1_700_000_000_999, "2023-11-14T22:13:20.999Z", "14/Nov/2023:22:13:20 +0000"),
            (1_709_210_096_000, "2024-02-29T12:34:56.000Z", "29/Feb/2024:12:34:56 +0000"),
        ] {
            assert_eq!(spelled(&mut clock, millis), (rfc3339.to_owned(), clf.to_owned()));
        }
    }

    #[test]
    fn a_clock_set_wrong_does_not_panic() {
        let mut out = Vec::new();
        Clock::default().write_rfc3339(UNIX_EPOCH - Duration::from_secs(1), &mut out);
        Clock::default().write_rfc3339(UNIX_EPOCH + Duration::from_secs(1 << 40), &mut out);
        assert_eq!(out, b"1970-01-01T00:00:00.000Z9998-12-31T23:59:59.000Z");
    }

    proptest! {
        #[test]
        fn the_kept_second_never_shows_through(millis in prop::collection::vec(0..4_000_000_000_000_u64, 1..8)) {
            let mut kept = Clock::default();
            for millis in millis {
                prop_assert_eq!(spelled(&mut kept, millis), spelled(&mut Clock::default(), millis));
            }
        }
    }
}
