//! `routes:`, which request goes where, and `defaults:`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::FilterUse;
use super::forms::word_or_map;
use super::limits::Priority;
use super::mirror::Mirror;
use super::retry::Retry;
use super::split::Split;
use crate::types::{ByteSize, Duration};

/// Which requests, and where they go. Exactly one of `upstream`, `split`, `respond` and `redirect`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [
    { "required": ["upstream"] }, { "required": ["split"] }, { "required": ["respond"] }, { "required": ["redirect"] },
]))]
pub struct Route {
    /// Its name, unique: the metric label and the word in logs.
    pub name: String,
    /// Hosts: `api.example.com`, or `*.example.com` for any depth below. None means any host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// The path: `/a` exactly, `/a/*` and all below, `/users/{id}`, `/files/{rest*}`, or `{ regex: "^/v[0-9]+/" }`.
    pub path: Path,
    /// Methods; any when empty. HEAD is served where GET is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// What request headers must say: a value, `{ present: true }` or `{ regex: "…" }`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Matcher>,
    /// What the query must say, in the same three forms.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, Matcher>,
    /// The listeners that serve this route, by name; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<String>,
    /// Filters of this route, after the global ones and the listener's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<FilterUse>,
    /// How long its requests may take.
    #[serde(default, skip_serializing_if = "Timeouts::is_empty")]
    pub timeouts: Timeouts,
    /// Which of its requests are sent again, and when.
    #[serde(default, skip_serializing_if = "Retry::is_empty")]
    pub retry: Retry,
    /// How important its requests are when they have to wait for an endpoint at its limit (the upstream's `limits`).
    #[serde(default)]
    pub priority: Priority,
    /// How large its requests may be.
    #[serde(default, skip_serializing_if = "RouteLimits::is_empty")]
    pub limits: RouteLimits,
    /// Which of its requests are copied to another upstream. None unless named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
    /// The upstream that answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// Several upstreams, of which one answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
    /// An answer of the gateway's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub respond: Option<Respond>,
    /// Another place to go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Redirect>,
    /// A handler written in Rust; only code can name one.
    #[serde(skip)]
    pub handler: Option<String>,
}

impl Route {
    /// The upstreams that it leads to.
    pub fn upstreams(&self) -> impl Iterator<Item = &str> {
        let variants = self.split.iter().flat_map(|split| &split.to);
        self.upstream.as_deref().into_iter().chain(variants.map(|to| &*to.upstream))
    }
}

/// A path: a pattern, or a regular expression over the canonical path.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Path {
    /// A pattern: exact, prefix, with parameters, or with a tail.
    Pattern(String),
    /// A regular expression (linear time), unanchored as written.
    Regex(PathRegex),
}

impl<'de> Deserialize<'de> for Path {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a path or `{ regex: ... }`";
        word_or_map(
            deserializer,
            expected,
            |text| Ok(Self::Pattern(text.into())),
            |regex| Ok(Self::Regex(regex)),
        )
    }
}

impl Default for Path {
    fn default() -> Self {
        Self::Pattern("/*".into())
    }
}

/// A regular expression over the canonical path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PathRegex {
    /// The expression; named groups are captures.
    pub regex: String,
}

/// What a header or query parameter must say.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Matcher {
    /// Exactly this value.
    Exact(String),
    /// `{ present: true }` or `{ present: false }`.
    Present(Presence),
    /// `{ regex: "…" }`: a value that the expression matches.
    Regex(ValueRegex),
}

/// The forms of a matcher that are maps.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    present: Option<bool>,
    regex: Option<String>,
}

impl<'de> Deserialize<'de> for Matcher {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let condition = |condition: Condition| match (condition.present, condition.regex) {
            (Some(present), None) => Ok(Self::Present(Presence { present })),
            (None, Some(regex)) => Ok(Self::Regex(ValueRegex { regex })),
            _ => Err("a condition is a value, `{ present: true }` or `{ regex: ... }`".into()),
        };
        let expected = "a value, `{ present: true }` or `{ regex: ... }`";
        word_or_map(deserializer, expected, |value| Ok(Self::Exact(value.into())), condition)
    }
}

/// Whether a value must be there.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Presence {
    /// True when it must be there, false when it must not.
    pub present: bool,
}

/// A regular expression over a value.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ValueRegex {
    /// The expression (linear time), unanchored as written.
    pub regex: String,
}

/// An answer of the gateway's own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Respond {
    /// The status, 200 to 599.
    #[serde(default = "ok")]
    #[schemars(range(min = 200, max = 599))]
    pub status: u16,
    /// Header fields.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The body. `content-type` is `text/plain; charset=utf-8` unless `headers` says otherwise.
    #[serde(default)]
    pub body: String,
}

fn ok() -> u16 {
    200
}

/// Another place to go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// The place: an absolute URL or a path, with captured path parameters as `{name}`. The query is kept.
    pub to: String,
    /// 301, 302, 303, 307 or 308.
    #[serde(default = "found")]
    pub status: u16,
}

fn found() -> u16 {
    308
}

/// What holds for every route that does not say otherwise.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Defaults {
    /// How long requests may take.
    pub timeouts: Timeouts,
    /// Which requests are sent again, and when.
    pub retry: Retry,
    /// How large requests may be.
    pub limits: RouteLimits,
}

/// How long a request may take. A route's word wins over its upstream's, and that over `defaults`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// Until the response head, all attempts together. Default 30s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Duration>,
    /// For one attempt, until the response head. A request that has a retry left then goes to another endpoint where `retry.on`
    /// names `timeout`. The whole of `request` unless named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_try: Option<Duration>,
    /// Between bytes of a request's or response's body. Default 5m.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_idle: Option<Duration>,
    /// The whole exchange, bodies included. Off by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<Duration>,
    /// How long a WebSocket may last, once it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub websocket: Option<WebSocketTimeouts>,
    /// To be connected to an endpoint. Default 2s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<Duration>,
    /// For the next bytes from the endpoint, once it has the whole request. Not for those of calls and streams of events
    /// after their head. Default 30s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read: Option<Duration>,
    /// For the endpoint to take the next bytes. Default 30s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write: Option<Duration>,
    /// Whether the endpoint is told until when its answer is waited for: `X-Request-Deadline: 2026-01-31T12:00:00.250Z`, the
    /// nearest of `request`, `per_try` and `total`. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub announce: Option<bool>,
}

/// How long a WebSocket may last. At its end the client gets a Close frame with 1001.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WebSocketTimeouts {
    /// Without a byte in either direction. Default 10m.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<Duration>,
    /// In all. Default 24h.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<Duration>,
}

impl Timeouts {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How large a request may be. What is said of its head counts beside the limits of the listener.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RouteLimits {
    /// The size of a request body; 413 above. Default 10MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_body: Option<ByteSize>,
    /// The size of all header fields together: their names and values, and four bytes for each; 431 above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header_bytes: Option<ByteSize>,
    /// Header fields; 431 above.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub headers: Option<u32>,
    /// The length of path and query; 414 above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri_bytes: Option<ByteSize>,
    /// Parameters of the query; 400 above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query_parameters: Option<u32>,
}

impl RouteLimits {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
