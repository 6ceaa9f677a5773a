//! `hedge:`, when a request is sent to a second endpoint too.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::types::Duration;

/// When a request is sent to a second endpoint too: the first answer of the two is passed on, and the other attempt is given
/// up.
///
/// Only requests without a body and with one of the `methods` that may be sent twice, once each, and only where the upstream has
/// another endpoint and its `retry_budget` has room. Calls of gRPC and WebSockets never are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hedge {
    /// How long the response head is waited for before: a time like `100ms`; or `p50` to `p99`, as long as that many of a hundred
    /// of the upstream's answers took in the last half minute (nothing is hedged until enough of them were seen); or `never`,
    /// where `defaults` say otherwise.
    pub after: HedgeAfter,
}

/// How long a response head is waited for before a second endpoint is asked too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HedgeAfter {
    /// So long.
    Time(Duration),
    /// As long as so many of a hundred answers took of late.
    Percentile(u8),
    /// For ever.
    Never,
}

const PERCENTILES: std::ops::RangeInclusive<u8> = 50..=99;

impl FromStr for HedgeAfter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not a time to wait: write `100ms`, `p50` to `p99`, or `never`");
        if text == "never" {
            return Ok(Self::Never);
        }
        let Some(percentile) = text.strip_prefix('p') else {
            return text.parse().map(Self::Time).map_err(|_| bad());
        };
        let known = percentile.parse().ok().filter(|percentile| PERCENTILES.contains(percentile));
        known.filter(|_| percentile.len() == 2).map(Self::Percentile).ok_or_else(bad)
    }
}

impl TryFrom<String> for HedgeAfter {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<HedgeAfter> for String {
    fn from(after: HedgeAfter) -> Self {
        after.to_string()
    }
}

impl fmt::Display for HedgeAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(time) => time.fmt(f),
            Self::Percentile(percentile) => write!(f, "p{percentile}"),
            Self::Never => f.write_str("never"),
        }
    }
}

impl JsonSchema for HedgeAfter {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "HedgeAfter".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "How long a response head is waited for before a second endpoint is asked too.",
            "anyOf": [
                { "type": "string", "pattern": "^(p[5-9][0-9]|never)$" },
                generator.subschema_for::<Duration>(),
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in ["100ms", "1s", "p50", "p95", "p99", "never"] {
            assert_eq!(text.parse::<HedgeAfter>().unwrap().to_string(), text);
        }
        for text in ["", "p", "p49", "p100", "p999", "p9.5", "p+95", "95", "p095", "soon"] {
            assert!(text.parse::<HedgeAfter>().is_err(), "{text}");
        }
    }
}
