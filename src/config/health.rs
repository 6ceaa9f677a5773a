//! `health: { active: … }`, how servers are asked whether they are well.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

use super::forms::word_or_map;
use crate::types::Duration;

/// Asking servers whether they are well. Exactly one of `http`, `tcp`, `grpc` and `custom` says how.
///
/// A server that nobody has asked yet is taken for healthy; the first answer, soon after, decides alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("oneOf" = [
    { "required": ["http"] }, { "required": ["tcp"] }, { "required": ["grpc"] }, { "required": ["custom"] },
]))]
pub struct ActiveHealth {
    /// By a request of HTTP, over TLS and in the version that the upstream's requests have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// By a connection alone: `{}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpCheck>,
    /// By gRPC's own health protocol (`grpc.health.v1.Health/Check`). It needs HTTP/2: `protocol: http2`, or `auto` over TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcCheck>,
    /// By a check made in code, of this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom: Option<String>,
    /// How long after an answer the next question is asked, 10 % more or less: 100ms to 24h. A server that stays unhealthy is
    /// asked less often, up to five intervals apart.
    pub interval: Duration,
    /// How long the whole answer may take.
    pub timeout: Duration,
    /// How many good answers in a row make a server healthy again.
    #[schemars(range(min = 1, max = 65535))]
    pub healthy_after: u32,
    /// How many bad ones in a row make it unhealthy.
    #[schemars(range(min = 1, max = 65535))]
    pub unhealthy_after: u32,
}

impl Default for ActiveHealth {
    fn default() -> Self {
        Self {
            http: None,
            tcp: None,
            grpc: None,
            custom: None,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            healthy_after: 2,
            unhealthy_after: 3,
        }
    }
}

/// A question by HTTP, and the answer that is well.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HttpCheck {
    /// The path, in canonical form, and a query.
    pub path: String,
    /// `GET`, `HEAD` or `OPTIONS`.
    pub method: String,
    /// The host that is asked for; the server's address without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// More headers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The statuses that are well: `[200, 204]`, `[200-299]`. Redirects are not followed.
    #[schemars(length(min = 1))]
    pub expect: Vec<StatusRange>,
    /// What the first 64 KiB of the body must have: a text, anywhere, or `{ regex: "…" }`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<BodyMatch>,
}

impl Default for HttpCheck {
    fn default() -> Self {
        Self {
            path: "/".into(),
            method: "GET".into(),
            host: None,
            headers: BTreeMap::new(),
            expect: vec![StatusRange { from: 200, to: 299 }],
            body: None,
        }
    }
}

/// A question for a connection.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpCheck {}

/// A question by gRPC's health protocol.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GrpcCheck {
    /// The service that is asked for; the server as a whole when empty.
    pub service: String,
    /// The host that is asked for (`:authority`); the server's address without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// What a body must have.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum BodyMatch {
    /// This text, anywhere.
    Contains(String),
    /// What a regular expression finds.
    Regex(BodyRegex),
}

/// A regular expression over a body.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BodyRegex {
    /// The expression (linear time), unanchored as written.
    pub regex: String,
}

impl<'de> Deserialize<'de> for BodyMatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word_or_map(
            deserializer,
            "a text or `{ regex: ... }`",
            |text| Ok(Self::Contains(text.into())),
            |regex| Ok(Self::Regex(regex)),
        )
    }
}

/// Statuses of HTTP: one, or all from one to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StatusRange {
    /// The first.
    pub from: u16,
    /// The last.
    pub to: u16,
}

impl FromStr for StatusRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        let status = |text: &str| text.parse().ok().filter(|status| (200..600).contains(status));
        let range = status(from).zip(status(to)).map(|(from, to)| Self { from, to });
        range.filter(|range| range.from <= range.to).ok_or_else(|| {
            format!("`{text}` is neither a status from 200 to 599 nor a range of them like `200-299`")
        })
    }
}

impl TryFrom<String> for StatusRange {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<StatusRange> for String {
    fn from(range: StatusRange) -> Self {
        range.to_string()
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from == self.to { write!(f, "{}", self.from) } else { write!(f, "{}-{}", self.from, self.to) }
    }
}

impl JsonSchema for StatusRange {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "StatusRange".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A status of HTTP, or a range like `200-299`.",
            "type": ["string", "integer"],
            "pattern": "^[2-5][0-9][0-9](-[2-5][0-9][0-9])?$",
            "minimum": 200,
            "maximum": 599,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_read_what_they_write() {
        for text in ["200", "200-299", "599"] {
            assert_eq!(text.parse::<StatusRange>().unwrap().to_string(), text);
        }
        for text in ["", "199", "600", "299-200", "200-", "2xx", "200-299-300"] {
            assert!(text.parse::<StatusRange>().is_err(), "{text}");
        }
    }
}
