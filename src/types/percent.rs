//! `20%`: how configuration writes shares.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A share of a whole, `0%` to `100%`, fractions allowed (`0.5%`).
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Percent(f64);

impl Percent {
    /// Everything.
    pub const ALL: Self = Self(100.0);

    /// So many of a hundred.
    pub const fn of(hundredths: u8) -> Self {
        Self(if hundredths < 100 { hundredths as f64 } else { 100.0 })
    }

    /// The share as a fraction, 0 to 1.
    pub fn fraction(self) -> f64 {
        self.0 / 100.0
    }
}

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        text.strip_suffix('%')
            .filter(|number| number.split('.').all(digits) && number.matches('.').count() < 2)
            .and_then(|number| number.parse().ok())
            .filter(|number| (0.0..=100.0).contains(number))
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not a share: write it like `20%`"))
    }
}

impl TryFrom<String> for Percent {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Percent> for String {
    fn from(value: Percent) -> Self {
        value.to_string()
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl JsonSchema for Percent {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Percent".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A share of a whole, 0% to 100%.",
            "pattern": "^[0-9]+(\\.[0-9]+)?%$",
            "examples": ["20%"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in ["0%", "0.5%", "20%", "100%"] {
            assert_eq!(text.parse::<Percent>().unwrap().to_string(), text);
        }
        assert_eq!("20%".parse::<Percent>().unwrap().fraction(), 0.2);
    }

    #[test]
    fn refuses_what_is_no_share() {
        for text in ["", "20", "%", "-1%", "101%", "NaN%", "1e1%", "1.2.3%", ".5%"] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
    }
}
