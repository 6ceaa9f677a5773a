//! `80%`, `2GiB`: how configuration writes a mark in memory.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{ByteSize, Percent};

/// An amount of memory: a share of what there is, or a size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum MemoryMark {
    /// A share of what this process may use.
    Share(Percent),
    /// A number of bytes.
    Size(ByteSize),
}

impl MemoryMark {
    /// The bytes that it comes to for a process that may use `available`; `None` for a share when that is not known.
    pub fn bytes(self, available: Option<u64>) -> Option<u64> {
        match self {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_precision_loss,
                clippy::cast_sign_loss,
                reason = "a mark need not be exact to the byte"
            )]
            Self::Share(share) => available.map(|available| (available as f64 * share.fraction()) as u64),
            Self::Size(size) => Some(size.get()),
        }
    }
}

impl FromStr for MemoryMark {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read =
            if text.ends_with('%') { text.parse().map(Self::Share) } else { text.parse().map(Self::Size) };
        read.map_err(|_| format!("`{text}` is no amount of memory: write it like `80%` or `2GiB`"))
    }
}

impl TryFrom<String> for MemoryMark {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<MemoryMark> for String {
    fn from(mark: MemoryMark) -> Self {
        mark.to_string()
    }
}

impl fmt::Display for MemoryMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share(share) => share.fmt(f),
            Self::Size(size) => size.fmt(f),
        }
    }
}

impl JsonSchema for MemoryMark {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "MemoryMark".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "description": "A share of the memory that the process may use, or a size: 80%, 2GiB.",
            "pattern": r"^([0-9]+(\.[0-9]+)?%|[0-9]+(B|KB|KiB|MB|MiB|GB|GiB)?)$",
            "examples": ["80%", "2GiB"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_of_what_there_is() {
        let mark = |text: &str| text.parse::<MemoryMark>().unwrap();
        assert_eq!(mark("80%").bytes(Some(1000)), Some(800));
        assert_eq!(mark("80%").bytes(None), None);
        assert_eq!(mark("2KiB").bytes(None), Some(2048));
        assert_eq!(["80%", "2GiB"].map(|text| mark(text).to_string()), ["80%", "2GiB"]);
        for text in ["", "%", "101%", "2GiBs", "lots"] {
            assert!(text.parse::<MemoryMark>().is_err(), "{text}");
        }
    }
}
