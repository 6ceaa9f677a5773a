//! `retry:`, which requests are sent again, and when.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};

use super::hedge::Hedge;
use crate::types::{ByteSize, Duration};

/// Which requests are sent again, to another endpoint, when an attempt fails. A route's word wins over `defaults`, each
/// setting by itself.
///
/// A request is sent again only while no byte of an answer has reached the client, its body is still at hand, its time is not
/// up, and the upstream's `retry_budget` has room. What failed before anything was sent may go again whatever its method.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// The most attempts after the first; 0 turns retries off. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 10))]
    pub max_retries: Option<u32>,
    /// After what: `connect_failure`, `reset`, `timeout`, `gateway_error` (502, 503, 504), `5xx`, `retriable_4xx` (409), a
    /// status like `503`, or a status of gRPC: `grpc_cancelled`, `grpc_deadline_exceeded`, `grpc_internal`,
    /// `grpc_resource_exhausted`, `grpc_unavailable`. Default `[connect_failure, reset, 503]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on: Option<Vec<RetryOn>>,
    /// Methods that may be sent twice. Any may with an `Idempotency-Key`, and gRPC calls after the statuses of gRPC that `on`
    /// names. Default `[GET, HEAD, OPTIONS, TRACE, PUT, DELETE]`, those that mean the same when they are repeated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub methods: Option<Vec<String>>,
    /// The pause before each. Default `{ exponential: { base: 25ms, max: 250ms } }`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,
    /// The longest `Retry-After` of an upstream that is waited for; a request that is told to come back later than that is not
    /// sent again. Default 1s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_retry_after: Option<Duration>,
    /// The longest request body that is kept to be sent again; a request with a longer one is not sent again once more than
    /// that has come. `server.retry_memory` is for all of them. Default 64KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_body: Option<ByteSize>,
    /// Whether a request that waits long for its answer is sent to a second endpoint too. Off unless named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hedge: Option<Hedge>,
}

impl Retry {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The pause before an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Backoff {
    /// Up to twice as long each time, at random between nothing and that (full jitter).
    Exponential(ExponentialBackoff),
    /// Always so long.
    Fixed(Duration),
}

impl Serialize for Backoff {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Exponential(words) => serializer.collect_map([("exponential", words)]),
            Self::Fixed(pause) => serializer.collect_map([("fixed", pause)]),
        }
    }
}

/// A pause that grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExponentialBackoff {
    /// The longest first pause.
    pub base: Duration,
    /// The longest of all.
    pub max: Duration,
}

impl Default for ExponentialBackoff {
    fn default() -> Self {
        Self { base: Duration::from_millis(25), max: Duration::from_millis(250) }
    }
}

/// After what a request is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RetryOn {
    /// No connection was made.
    ConnectFailure,
    /// The connection broke before the response head.
    Reset,
    /// The response head did not come in time.
    Timeout,
    /// 502, 503 or 504.
    GatewayError,
    /// 500 and above.
    ServerError,
    /// 409: two requests got in each other's way.
    Retriable4xx,
    /// This status.
    Status(u16),
    /// This status of gRPC, in an answer that is nothing else.
    Grpc(u16),
}

/// The words for it that are no numbers.
const WORDS: [(&str, RetryOn); 11] = [
    ("connect_failure", RetryOn::ConnectFailure),
    ("reset", RetryOn::Reset),
    ("timeout", RetryOn::Timeout),
    ("gateway_error", RetryOn::GatewayError),
    ("5xx", RetryOn::ServerError),
    ("retriable_4xx", RetryOn::Retriable4xx),
    ("grpc_cancelled", RetryOn::Grpc(1)),
    ("grpc_deadline_exceeded", RetryOn::Grpc(4)),
    ("grpc_resource_exhausted", RetryOn::Grpc(8)),
    ("grpc_internal", RetryOn::Grpc(13)),
    ("grpc_unavailable", RetryOn::Grpc(14)),
];

impl FromStr for RetryOn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = WORDS.iter().find(|(word, _)| *word == text).map(|(_, on)| *on);
        let status = || text.parse().ok().filter(|status| (400..600).contains(status)).map(Self::Status);
        known.or_else(status).ok_or_else(|| {
            let words: Vec<&str> = WORDS.iter().map(|(word, _)| *word).collect();
            format!(
                "`{text}` is not a reason to try again: write one of {}, or a status from 400 to 599",
                words.join(", ")
            )
        })
    }
}

impl TryFrom<String> for RetryOn {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<RetryOn> for String {
    fn from(on: RetryOn) -> Self {
        on.to_string()
    }
}

impl fmt::Display for RetryOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, WORDS.iter().find(|(_, on)| on == self)) {
            (_, Some((word, _))) => f.write_str(word),
            (Self::Status(code) | Self::Grpc(code), None) => write!(f, "{code}"),
            (_, None) => Ok(()),
        }
    }
}

impl JsonSchema for RetryOn {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RetryOn".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let words: Vec<&str> = WORDS.iter().map(|(word, _)| *word).collect();
        json_schema!({
            "description": "After what a request is sent again.",
            "anyOf": [
                { "type": "string", "enum": words },
                { "type": ["string", "integer"], "pattern": "^[45][0-9][0-9]$", "minimum": 400, "maximum": 599 },
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in WORDS.iter().map(|(word, _)| *word).chain(["400", "503"]) {
            assert_eq!(text.parse::<RetryOn>().unwrap().to_string(), text);
        }
        for text in ["", "resets", "200", "600", "grpc_ok"] {
            assert!(text.parse::<RetryOn>().is_err(), "{text}");
        }
    }
}
