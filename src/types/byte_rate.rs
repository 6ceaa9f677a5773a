//! `256B/s`, `1MiB/s`: how configuration writes what passes in a time.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::ByteSize;

const PER_SECOND: &str = "/s";

/// Bytes in a second: a size and `/s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteRate(ByteSize);

impl ByteRate {
    /// So many bytes in a second.
    pub const fn per_second(bytes: u64) -> Self {
        Self(ByteSize::bytes(bytes))
    }

    /// The number of bytes in a second.
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl FromStr for ByteRate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let size = text.strip_suffix(PER_SECOND).and_then(|size| size.parse().ok());
        size.map(Self).ok_or_else(|| format!("`{text}` is not a rate: write it like `256B/s` or `1MiB/s`"))
    }
}

impl TryFrom<String> for ByteRate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ByteRate> for String {
    fn from(rate: ByteRate) -> Self {
        rate.to_string()
    }
}

impl fmt::Display for ByteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{PER_SECOND}", self.0)
    }
}

impl JsonSchema for ByteRate {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ByteRate".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "Bytes in a second: 256B/s, 64KiB/s, 1MB/s.",
            "pattern": "^[0-9]+(B|KB|KiB|MB|MiB|GB|GiB)?/s$",
            "examples": ["256B/s", "1MiB/s"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for (text, bytes) in [("256B/s", 256), ("0B/s", 0), ("64KiB/s", 65_536)] {
            let rate: ByteRate = text.parse().unwrap();
            assert_eq!((rate.get(), rate.to_string().as_str()), (bytes, text));
        }
        for text in ["", "256", "256B", "/s", "256B/m", "-1B/s"] {
            assert!(text.parse::<ByteRate>().is_err(), "{text}");
        }
    }
}
