//! Points in time, as people write them.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use time::format_description::well_known::{Iso8601, Rfc3339};
use time::{Date, OffsetDateTime};

const PATTERN: &str =
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2}))?$";
/// How long a day is, as text.
const DAY: usize = "2027-01-31".len();

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
    let moment = match text.len() {
        DAY => Date::parse(text, &Iso8601::DATE).ok()?.midnight().assume_utc(),
        _ => OffsetDateTime::parse(text, &Rfc3339).ok()?,
    };
    Some(moment.unix_timestamp())
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
            ("2026-11-29T20:47:16+01:00", 1_795_981_636),
            ("2026-11-29T14:17:16-05:30", 1_795_981_636),
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
