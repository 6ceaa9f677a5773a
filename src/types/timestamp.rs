//! `2026-12-01T04:00:00Z`: how configuration writes a moment.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A moment in UTC, to the second (RFC 3339). A date alone is its midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(u64);

const DAY: u64 = 24 * 3600;
/// Days before each month of a year that is no leap year.
const BEFORE_MONTH: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];

impl Timestamp {
    /// The same by the system's clock.
    pub fn time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.0)
    }
}

/// The days from 1970-01-01 to a day of this calendar; `None` when there is no such day, or it is of another century.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1970..=2099).contains(&year) || !(1..=12).contains(&month) {
        return None;
    }
    // No century year but 2000 lies between.
    let leap = year.is_multiple_of(4);
    let before = |month: u64| BEFORE_MONTH.get(month as usize).map_or(365, |days| *days);
    let length = before(month) - before(month - 1) + u64::from(leap && month == 2);
    let leaps = (year - 1969) / 4 + u64::from(leap && month > 2);
    (1..=length).contains(&day).then(|| (year - 1970) * 365 + leaps + before(month - 1) + day - 1)
}

fn numbers<const N: usize>(text: &str, separator: char, widths: [usize; N]) -> Option<[u64; N]> {
    let mut parts = text.split(separator);
    let mut numbers = [0; N];
    for (number, width) in numbers.iter_mut().zip(widths) {
        let part = parts.next().filter(|part| part.len() == width)?;
        *number = part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok()).flatten()?;
    }
    parts.next().is_none().then_some(numbers)
}

fn seconds(text: &str) -> Option<u64> {
    let (date, time) = match text.split_once(['T', 't', ' ']) {
        Some((date, time)) => (date, numbers(time.strip_suffix(['Z', 'z'])?, ':', [2, 2, 2])?),
        None => (text, [0; 3]),
    };
    let ([year, month, day], [hour, minute, second]) = (numbers(date, '-', [4, 2, 2])?, time);
    let fits = hour < 24 && minute < 60 && second < 60;
    let days = days(year, month, day).filter(|_| fits)?;
    Some(days * DAY + hour * 3600 + minute * 60 + second)
}

impl FromStr for Timestamp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a time: write it like `2026-12-01T04:00:00Z`");
        seconds(text).map(Self).ok_or_else(wrong)
    }
}

impl TryFrom<String> for Timestamp {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Timestamp> for String {
    fn from(value: Timestamp) -> Self {
        value.to_string()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut left, mut year, mut month) = (self.0 / DAY, 1970, 1);
        while let Some(first) = days(year + 1, 1, 1).filter(|first| *first <= self.0 / DAY) {
            (year, left) = (year + 1, self.0 / DAY - first);
        }
        while let Some(first) = days(year, month + 1, 1).filter(|first| *first <= self.0 / DAY) {
            (month, left) = (month + 1, self.0 / DAY - first);
        }
        let of_day = self.0 % DAY;
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        write!(f, "{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", left + 1)
    }
}

impl JsonSchema for Timestamp {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A moment in UTC, as RFC 3339 writes it; a date alone is its midnight.",
            "examples": ["2026-12-01T04:00:00Z", "2026-12-01"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_moments() {
        for (text, seconds) in [
            ("1970-01-01", 0),
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2023-11-14T22:13:20Z", 1_700_000_000),
            ("2024-12-31t23:59:59z", 1_735_689_599),
            ("2026-12-01 04:00:00Z", 1_796_097_600),
        ] {
            assert_eq!(text.parse::<Timestamp>().unwrap().0, seconds, "{text}");
        }
    }

    #[test]
    fn what_is_no_moment() {
        for text in [
            "",
            "now",
            "2026-13-01",
            "2026-02-29",
            "2026-00-01",
            "2026-01-00",
            "2026-1-1",
            "2026-01-01T04:00:00",
            "2026-01-01T24:00:00Z",
            "2026-01-01T04:60:00Z",
            "2026-01-01T04:00:00+02:00",
            "2026-01-01T04:00Z",
            "1969-12-31",
            "2100-01-01",
            "2026-01-01-01",
            "+026-01-01",
            "2026-01-01T04:00:00.5Z",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn is_read_as_it_is_written(seconds in 0..4_102_444_800_u64) {
            let text = Timestamp(seconds).to_string();
            prop_assert_eq!(text.parse::<Timestamp>().unwrap().0, seconds, "{}", text);
            // As others read it.
            let http = httpdate::HttpDate::from(Timestamp(seconds).time()).to_string();
            prop_assert_eq!(&http[17..25], &text[11..19]);
            prop_assert_eq!((&http[5..7], &http[12..16]), (&text[8..10], &text[0..4]));
        }
    }
}
