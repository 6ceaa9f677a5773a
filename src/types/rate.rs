//! `100/s`, `600/m`, `5/10s`: how configuration writes how often.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::Duration;

/// The units that may stand alone, in seconds.
const UNITS: [(&str, u64); 4] = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
/// The most that can be counted of one key.
const MOST: u64 = 4_000_000_000;

/// So many in a time: `100/s`, `600/m`, `10000/h`, `50/10s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate {
    amount: u64,
    period: Duration,
}

impl Rate {
    /// How many: at least one, at most 4,000,000,000.
    pub const fn amount(self) -> u64 {
        self.amount
    }

    /// In what time; never zero.
    pub const fn period(self) -> std::time::Duration {
        self.period.get()
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not a rate: write it like `100/s`, `600/m` or `50/10s`");
        let (amount, period) = text.split_once('/').ok_or_else(bad)?;
        let amount: u64 = amount.parse().map_err(|_| bad())?;
        let unit = UNITS.iter().find(|(name, _)| *name == period).map(|(_, secs)| Duration::from_secs(*secs));
        let period = match unit {
            Some(period) => period,
            None => period.parse().map_err(|_| bad())?,
        };
        if amount == 0 || period.get().is_zero() {
            return Err(format!("`{text}` lets nothing through: a rate is at least 1"));
        }
        if amount > MOST || period.get() > std::time::Duration::from_secs(366 * 86_400) {
            return Err(format!("`{text}` is more than can be counted: at most {MOST}, in a year"));
        }
        Ok(Self { amount, period })
    }
}

impl TryFrom<String> for Rate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> Self {
        rate.to_string()
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.iter().find(|(_, secs)| Duration::from_secs(*secs) == self.period);
        match unit {
            Some((name, _)) => write!(f, "{}/{name}", self.amount),
            None => write!(f, "{}/{}", self.amount, self.period),
        }
    }
}

impl JsonSchema for Rate {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Rate".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "So many in a time: 100/s, 600/m, 10000/h, 50/10s.",
            "pattern": "^[0-9]+/([0-9]+(ms|s|m|h|d))*(s|m|h|d)?$",
            "examples": ["100/s", "600/m", "10000/h", "50/10s"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for (text, amount, millis) in [
            ("100/s", 100, 1000),
            ("600/m", 600, 60_000),
            ("10000/h", 10_000, 3_600_000),
            ("1/d", 1, 86_400_000),
            ("50/10s", 50, 10_000),
            ("3/250ms", 3, 250),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!((rate.amount(), rate.period().as_millis()), (amount, millis), "{text}");
            assert_eq!(rate.to_string(), text);
        }
        assert_eq!("5/1s".parse::<Rate>().unwrap().to_string(), "5/s");
    }

    #[test]
    fn refuses_what_is_no_rate() {
        for text in
            ["", "100", "/s", "100/", "100/x", "0/s", "5/0s", "-1/s", "1.5/s", "5000000000/s", "1/9999d"]
        {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }
}
