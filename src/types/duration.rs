//! `250ms`, `5s`, `1h`: how configuration writes time.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A span of time, written as whole numbers with units: `250ms`, `5s`, `1m30s`, `12h`, `365d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Duration(std::time::Duration);

/// Units from the largest to the smallest, in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl Duration {
    /// A span of whole milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(std::time::Duration::from_millis(millis))
    }

    /// A span of whole seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(std::time::Duration::from_secs(secs))
    }

    /// The span as the standard library's type.
    pub const fn get(self) -> std::time::Duration {
        self.0
    }
}

impl From<std::time::Duration> for Duration {
    fn from(value: std::time::Duration) -> Self {
        Self(value)
    }
}

impl FromStr for Duration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not a duration: write it like `250ms`, `5s` or `1h30m`");
        if text == "0" {
            return Ok(Self::default());
        }
        let mut rest = text;
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
            let unit_end =
                rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
            let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
            let unit = &rest[digits..unit_end];
            let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
            let part = number.checked_mul(*millis).and_then(|part| total.checked_add(part));
            total = part.ok_or_else(|| format!("`{text}` is longer than can be counted"))?;
            rest = &rest[unit_end..];
        }
        if text.is_empty() { Err(bad()) } else { Ok(Self::from_millis(total)) }
    }
}

impl TryFrom<String> for Duration {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Duration> for String {
    fn from(value: Duration) -> Self {
        value.to_string()
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if left == 0 {
            return f.write_str("0s");
        }
        for (name, millis) in UNITS {
            let count = left / millis;
            left %= millis;
            if count > 0 {
                write!(f, "{count}{name}")?;
            }
        }
        Ok(())
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "maximum": 0,
            "minimum": 0,
            "description": "A span of time: 250ms, 5s, 1m30s, 12h, 365d.",
            "pattern": "^(0|([0-9]+(ms|s|m|h|d))+)$",
            "examples": ["250ms", "5s"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for (text, millis) in [("250ms", 250), ("5s", 5_000), ("1m30s", 90_000), ("365d", 31_536_000_000)] {
            let parsed: Duration = text.parse().unwrap();
            assert_eq!(parsed, Duration::from_millis(millis));
            assert_eq!(parsed.to_string(), text);
        }
    }

    #[test]
    fn refuses_what_has_no_unit_or_overflows() {
        for text in ["", "5", "s", "1.5s", "-1s", "1y", "99999999999999999999s", "9999999999999999d", "5 s"] {
            assert!(text.parse::<Duration>().is_err(), "{text}");
        }
    }
}
