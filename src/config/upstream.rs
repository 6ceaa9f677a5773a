//! `upstreams:`, where requests are sent.

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

use super::forms::{ADDRESS, address, parse_address, word_or_map};
use super::limits::{AdaptiveConcurrency, Limits};
use super::resilience::{Breaker, Health, RetryBudget};
use super::{Balance, CertificateFiles, Discover};
use crate::types::Duration;

/// A set of servers that answer alike.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// The servers: `"10.0.0.1:8080"`, or `{ address: "10.0.0.2:8080", weight: 3, zone: a, priority: 1 }`.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
    /// Where more servers are looked for, beside `endpoints` or in their place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discover: Option<Discover>,
    /// The version of HTTP that the servers are spoken to in. `http2` begins with the preface (prior knowledge).
    #[serde(default)]
    pub protocol: UpstreamProtocol,
    /// TLS with the servers. Plaintext unless named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<UpstreamTls>,
    /// How an endpoint is chosen.
    #[serde(default)]
    pub balance: Balance,
    /// How long an endpoint that comes back into the choice, or joins the others at run time, takes to get its whole share:
    /// from a tenth of it on, evenly. At once unless named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<Duration>,
    /// Who of the servers is asked, by how they are.
    #[serde(default)]
    pub health: Health,
    /// When servers that fail are not asked any more. Off unless named; `{}` is on with what stands there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<Breaker>,
    /// How many requests each endpoint is given at once, and how many wait for their turn. Any number unless named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// A limit of requests at once that finds its own way, for each endpoint: lower while answers become slower, higher while
    /// they do not. Off unless named; `{}` is on with what stands there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive_concurrency: Option<AdaptiveConcurrency>,
    /// How many of its requests may be retries.
    #[serde(default)]
    pub retry_budget: RetryBudget,
    /// How long to wait for the servers. A route's own word wins.
    #[serde(default)]
    pub timeouts: UpstreamTimeouts,
}

/// The version of HTTP that servers are spoken to in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UpstreamProtocol {
    /// HTTP/1.1, a request at a time on a connection.
    #[default]
    Http1,
    /// HTTP/2, many requests at once on a connection. gRPC needs it.
    Http2,
    /// What the server prefers, as agreed in the handshake of TLS. Without TLS it is HTTP/1.1.
    Auto,
}

/// TLS with the servers of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamTls {
    /// The name that the servers prove to have, and are asked for (SNI). Without it each must prove to have its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// The PEM file of the authorities that may say so; those of the system without it. It is watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The certificate that the servers are shown. Its files are watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_cert: Option<CertificateFiles>,
    /// Whether the servers must prove who they are. Without it anyone between can read and change what is sent.
    pub verify: bool,
}

impl Default for UpstreamTls {
    fn default() -> Self {
        Self { sni: None, ca: None, client_cert: None, verify: true }
    }
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "EndpointWords")]
pub struct Endpoint {
    /// Its address and port. Names are not resolved.
    pub address: SocketAddr,
    /// Its share of requests, relative to the others': 0 to 1000.
    pub weight: u16,
    /// The zone that it is in, if that is known.
    pub zone: Option<String>,
    /// Its rank, 0 to 127: lower numbers are preferred.
    pub priority: u8,
}

/// The two ways an endpoint is written.
#[derive(Serialize)]
#[serde(untagged)]
enum EndpointWords {
    /// An address and port.
    Address(SocketAddr),
    /// An address with what else is said of it.
    Full(FullEndpoint),
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FullEndpoint {
    /// Its address and port.
    #[serde(deserialize_with = "address")]
    #[schemars(regex(pattern = ADDRESS))]
    address: SocketAddr,
    /// Its share of requests, relative to the others'. None but those of sticky clients at 0: so it is drained.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1000))]
    weight: u16,
    /// The zone that it is in. Where the gateway's own is known (`server.zone`), endpoints in it are preferred.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zone: Option<String>,
    /// Its rank: lower numbers are preferred, higher ones stand by.
    #[serde(default, skip_serializing_if = "is_first")]
    #[schemars(range(min = 0, max = 127), extend("default" = 0))]
    priority: u8,
}

fn one() -> u16 {
    1
}

fn is_first(priority: &u8) -> bool {
    *priority == 0
}

impl Endpoint {
    /// An endpoint of weight 1, in no zone and of the first rank.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, weight: one(), zone: None, priority: 0 }
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let full =
            |FullEndpoint { address, weight, zone, priority }| Ok(Self { address, weight, zone, priority });
        let bare = |text: &str| parse_address(text).map(Self::new);
        word_or_map(deserializer, "an address and port, or `{ address: ..., weight: ... }`", bare, full)
    }
}

impl From<Endpoint> for EndpointWords {
    fn from(endpoint: Endpoint) -> Self {
        if endpoint == Endpoint::new(endpoint.address) {
            return Self::Address(endpoint.address);
        }
        let Endpoint { address, weight, zone, priority } = endpoint;
        Self::Full(FullEndpoint { address, weight, zone, priority })
    }
}

impl JsonSchema for Endpoint {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Endpoint".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let full = generator.subschema_for::<FullEndpoint>();
        json_schema!({
            "description": "A server: `\"10.0.0.1:8080\"`, or `{ address: \"10.0.0.2:8080\", weight: 3 }`.",
            "anyOf": [{ "type": "string", "pattern": ADDRESS }, full],
        })
    }
}

/// How long to wait for the servers of an upstream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamTimeouts {
    /// To be connected; then the next endpoint is tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<Duration>,
    /// For the next bytes from the server, the response head included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read: Option<Duration>,
    /// For the server to take the next bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write: Option<Duration>,
    /// How long an idle connection is kept for reuse.
    pub idle: Duration,
    /// No request is begun on a connection that is older than this; they are renewed by and by. Any age will do unless named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<Duration>,
}

impl Default for UpstreamTimeouts {
    fn default() -> Self {
        Self { connect: None, read: None, write: None, idle: Duration::from_secs(90), lifetime: None }
    }
}
