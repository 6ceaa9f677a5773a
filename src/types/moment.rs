//! Points in time, as people write them.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

const PATTERN: &str =
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2}))?$";
const DAY: i64 = 24 * 60 * 60;

/// A day, which is its first moment in UTC, or a time of RFC 3339. Not before 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Moment {
    seconds: u64,
    written: Box<str>,
}

impl Moment {
    /// When that is. What is said below seconds does not count.
    pub fn time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.seconds)
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let seconds = parse(text).and_then(|seconds| u64::try_from(seconds).ok());
        let seconds = seconds.ok_or_else(|| {
            format!("`{text}` is no time: write a day like 2027-01-31 (from 00:00 UTC on), or 2027-01-31T18:00:00Z")
        })?;
        Ok(Self { seconds, written: text.into() })
    }
}

/// Seconds since 1970.
fn parse(text: &str) -> Option<i64> {
    let (day, rest) = text.split_at_checked(10)?;
    let midnight = days(day)? * DAY;
    if rest.is_empty() {
        return Some(midnight);
    }
    let (time, zone) = rest.strip_prefix(['T', 't', ' '])?.split_at_checked(8)?;
    let [hour, minute, second] = numbers(time, ':')?;
    // A leap second is the moment after it.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let zone = match zone.strip_prefix('.') {
        Some(fraction) => {
            let zone = fraction.trim_start_matches(|digit: char| digit.is_ascii_digit());
            (zone.len() < fraction.len()).then_some(zone)?
        }
        None => zone,
    };
    Some(midnight + hour * 3600 + minute * 60 + second - offset(zone)?)
}

/// How far a zone is ahead of UTC, in seconds.
fn offset(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let (sign, zone) = match zone.strip_prefix('+') {
        Some(zone) => (1, zone),
        None => (-1, zone.strip_prefix('-')?),
    };
    let (hour, minute) = zone.split_once(':')?;
    let (hour, minute) = (number(hour, 2)?, number(minute, 2)?);
    (hour < 24 && minute < 60).then_some(sign * (hour * 3600 + minute * 60))
}

/// Days since 1970 of a day that there is.
fn days(day: &str) -> Option<i64> {
    let (year, rest) = day.split_at_checked(4)?;
    let year = number(year, 4)?;
    let (month, day) = rest.strip_prefix('-')?.split_once('-')?;
    let (month, day) = (number(month, 2)?, number(day, 2)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let before = usize::try_from(month - 1).ok()?;
    if day < 1 || day > *lengths.get(before)? {
        return None;
    }
    let past = year - 1;
    let since_year_one = past * 365 + past / 4 - past / 100 + past / 400;
    let in_year = lengths.iter().take(before).sum::<i64>() + day - 1;
    Some(since_year_one + in_year - 719_162)
}

fn numbers(text: &str, between: char) -> Option<[i64; 3]> {
    let mut parts = text.split(between);
    let mut next = || number(parts.next()?, 2);
    let numbers = [next()?, next()?, next()?];
    parts.next().is_none().then_some(numbers)
}

fn number(digits: &str, length: usize) -> Option<i64> {
    let fits = digits.len() == length && digits.bytes().all(|byte| byte.is_ascii_digit());
    fits.then(|| digits.parse().ok()).flatten()
}

impl TryFrom<String> for Moment {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Moment> for String {
    fn from(moment: Moment) -> Self {
        moment.written.into()
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl JsonSchema for Moment {
    fn schema_name() -> Cow<'static, str> {
        "Moment".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A day (from 00:00 UTC on) or a time of RFC 3339.",
            "pattern": PATTERN,
            "examples": ["2027-01-31", "2027-01-31T18:00:00Z", "2027-01-31T18:00:00+01:00"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_times_are_read() {
        for (text, seconds) in [
            ("1970-01-01", 0),
            ("2000-02-29", 951_782_400),
            ("2027-01-01", 1_798_761_600),
            ("2026-11-29T19:47:16Z", 1_795_981_636),
            ("2026-11-29t19:47:16.999z", 1_795_981_636),
            ("2026-11-29 20:47:16+01:00", 1_795_981_636),
            ("2026-11-29T14:17:16-05:30", 1_795_981_636),
            ("2016-12-31T23:59:60Z", 1_483_228_800),
            ("9999-12-31T23:59:59Z", 253_402_300_799),
        ] {
            let moment: Moment = text.parse().unwrap();
            assert_eq!(moment.seconds, seconds, "{text}");
            assert_eq!(moment.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "2027",
            "2027-1-1",
            "2027-13-01",
            "2027-00-01",
            "2027-02-29",
            "1900-02-29",
            "2027-01-00",
            "2027-01-32",
            "1969-12-31",
            "2027-01-01T",
            "2027-01-01T10:00Z",
            "2027-01-01T10:00:00",
            "2027-01-01T24:00:00Z",
            "2027-01-01T10:60:00Z",
            "2027-01-01T10:00:00.Z",
            "2027-01-01T10:00:00+1:00",
            "2027-01-01T10:00:00+01:00x",
            "2027-01-01T10:00:00+24:00",
            "+027-01-01",
            "2027-01-01é",
            "é027-01-01",
        ] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
        assert!("soon".parse::<Moment>().unwrap_err().contains("2027-01-31"));
    }
}
